"""AS and country of flows' addresses: several databases, asked when something is shown, read again when replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.networks.cache import AddressCache, Origins
from flowtop.networks.database import Database, DatabaseError, Identity, Integers, Known, Words, identity
from flowtop.text import units

LOOK_S = 1.0
"""Files are looked at this often while something is asked; and before each look-up of a new address."""
SCREEN_BUDGET_S = 0.05
"""Longest time that new addresses may take of one page of the screen; the others follow with the next pages."""
_PIECE = 8_192
_WHOLE = 128
_LONGEST_PATH = 120
_LEAST_KEPT, _MOST_KEPT = 4_096, 300_000
"""Addresses of a question that is kept with its answer: two of them, 27 octets an address each."""
_UNANSWERED = 255
_AT_LEAST = 64
"""Records that a look-up decodes, even when its time is over: so that all are known at last."""


class _File:
    """One database by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = units.printable(str(path), _LONGEST_PATH)
        self.database: Database | None = None
        self.fault = ""
        self._tried: Identity | None = None
        self._first = True

    def follow(self) -> bool:
        """Open the file if it is new or has changed; returns whether what is known of addresses may be different."""
        try:
            now: Identity | None = identity(self.path.stat())
            problem, hidden = "", False
        except (OSError, ValueError) as error:
            now, problem = None, (getattr(error, "strerror", None) or str(error)).lower()
            hidden = isinstance(error, PermissionError)
        database = self.database
        if problem and hidden and database is not None and database.intact():
            return False  # it was opened before rights were given up, and cannot be looked at any more
        if now == self._tried and not self._first and (database is None or database.intact()):
            return False
        self._tried, self._first = now, False
        if database is not None and now == database.identity:
            self.fault = ""  # an older file is back
            return False
        if not problem:
            try:
                self.database, self.fault = Database(self.path), ""
                return True
            except DatabaseError as error:
                problem = str(error)
        if database is not None and database.intact():
            self.fault = f"{self.label}: {problem}; the file that was there before is still used"
            return False
        self.database, self.fault = None, f"{self.label}: {problem}"
        return database is not None


class _Asked(NamedTuple):
    """A large question and its answer. `lengths` is _UNANSWERED where there was no time for one."""

    high: Words
    low: Words
    lengths: npt.NDArray[np.uint8]
    found: Origins

    def others(self, high: Words, low: Words, lengths: npt.NDArray[np.uint8]) -> Integers:
        """Rows that are different in a question of the same size."""
        return np.flatnonzero((self.low != low) | (self.high != high) | (self.lengths != lengths))


class NetworkDatabases:
    """See text.lookups.Networks. For any thread; look-ups are done one after another.

    A value is that of the first database that has it; the name of an AS comes from the database that has its number.

    Args:
        paths: of MMDB files. One that cannot be used is a fault and looked at again when it changes.
        budget_s: longest time of a look-up, which leaves further addresses for the next one; None: no limit.
        clock: seconds, monotonic.
        rng: of the hash.
    """

    def __init__(self, paths: Sequence[Path], *, budget_s: float | None = None,
                 clock: Callable[[], float] = time.monotonic, rng: np.random.Generator | None = None) -> None:
        self._files = [_File(path) for path in paths]
        self._budget_s = budget_s
        self._clock = clock
        self._lock = threading.Lock()
        self._cache = AddressCache(np.random.default_rng() if rng is None else rng)
        self._name_codes: dict[str, int] = {"": 0}
        self._by_number: dict[int, int] = {}
        self._country_codes: dict[str, int] = {"": 0}
        self._looked_at = -np.inf
        self._asked: list[_Asked] = []
        self.names: Mapping[int, str] = {}
        self.countries: Mapping[int, str] = {}
        self.faults: tuple[str, ...] = ()
        self.files: tuple[str, ...] = ()
        with self._lock:
            self._follow()

    def origins(self, high: Words, low: Words, lengths: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint32],
                                                                                      npt.NDArray[np.uint32],
                                                                                      npt.NDArray[np.uint16]]:
        """See text.lookups.Networks."""
        with self._lock:
            if self._clock() - self._looked_at >= LOOK_S:
                self._follow()
            found = Origins.none(len(high))
            if not any(file.database for file in self._files):
                return found
            known = self._nearest(high, low, lengths)
            if known is None:
                left = self._fill(found, np.arange(len(high)), high, low, lengths)
            else:
                rows = known.others(high, low, lengths)
                found = known.found.take(np.arange(len(high)))
                found.put(rows, Origins.none(len(rows)))
                left = self._fill(found, rows, high, low, lengths)
            if _LEAST_KEPT <= len(high) <= _MOST_KEPT:
                self._asked = [each for each in self._asked if each is not known][-1:]
                self._asked.append(_Asked(high, low, np.where(left, np.uint8(_UNANSWERED), lengths), found))
            self._publish()
            return found

    def names_of(self, asn: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """See text.lookups.Networks."""
        different, inverse = np.unique(asn, return_inverse=True)
        codes = [self._by_number.get(number, 0) for number in different.tolist()]
        return np.array(codes, np.uint32)[inverse]

    def _nearest(self, high: Words, low: Words, lengths: npt.NDArray[np.uint8]) -> _Asked | None:
        """The question before that was nearly the same: tables of flows are asked for again with every page."""
        if len(high) < _LEAST_KEPT:
            return None
        alike = [each for each in self._asked if len(each.high) == len(high)]
        counts = [len(each.others(high, low, lengths)) for each in alike]
        least = min(counts, default=len(high))
        return alike[counts.index(least)] if least < len(high) // 2 else None

    def _fill(self, found: Origins, rows: Integers, high: Words, low: Words,
              lengths: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Fill `found` at these rows, and say which are left for the next look-up."""
        until = np.inf if self._budget_s is None else self._clock() + self._budget_s
        whole = rows[lengths[rows] == _WHOLE]
        missing, values = self._cache.find(high[whole], low[whole])
        found.put(whole, values)
        parts = rows[(lengths[rows] > 0) & (lengths[rows] < _WHOLE)]
        left = np.zeros(len(high), np.bool_)
        left[whole[missing]] = left[parts] = True
        self._look_up(found, whole[missing], high, low, lengths, until, left, store=True)
        self._look_up(found, parts, high, low, lengths, until, left, store=False)
        return left

    def _look_up(self, found: Origins, rows: Integers, high: Words, low: Words, lengths: npt.NDArray[np.uint8],
                 until: float, left: npt.NDArray[np.bool_], *, store: bool) -> None:
        """Fill `found` at these rows, piece by piece, until the time is over; what is done is not `left` any more."""
        for start in range(0, len(rows), _PIECE):
            if start and self._clock() >= until:
                return
            self._mend()
            piece = rows[start:start + _PIECE]
            values, decoded = self._looked_up(high[piece], low[piece], lengths[piece], until)
            found.put(piece[decoded], values.take(decoded))
            left[piece[decoded]] = False
            if store:
                self._cache.store(high[piece[decoded]], low[piece[decoded]], values.take(decoded))

    def _looked_up(self, high: Words, low: Words, lengths: npt.NDArray[np.uint8],
                   until: float) -> tuple[Origins, Integers]:
        """What the databases say of these addresses, and the rows of which all records could be decoded in time."""
        merged, decoded = Origins.none(len(high)), np.ones(len(high), np.bool_)
        for file in self._files:
            database = file.database
            if database is None:
                continue
            records = database.records(high, low, lengths)
            different, inverse = np.unique(records, return_inverse=True)
            values, before, due = Origins.none(len(different)), database.unreadable, database.decoded + _AT_LEAST
            for place, record in enumerate(different.tolist()):
                if database.decoded >= due:
                    due += _AT_LEAST
                    if self._clock() >= until:
                        decoded &= inverse < place
                        break
                if record:
                    known = database.known(record)
                    values.asn[place], values.name[place], values.country[place] = self._codes(known)
            if database.unreadable != before:
                self._tell()
            values = values.take(inverse)
            numbers = (merged.asn == 0) & (merged.name == 0)
            merged.asn[numbers], merged.name[numbers] = values.asn[numbers], values.name[numbers]
            countries = merged.country == 0
            merged.country[countries] = values.country[countries]
        return merged, np.flatnonzero(decoded)

    def _codes(self, known: Known) -> tuple[int, int, int]:
        name, country = self._name_codes.get(known.name), self._country_codes.get(known.country)
        if name is None:
            name = self._name_codes[known.name] = len(self._name_codes)
        if country is None:
            country = self._country_codes[known.country] = len(self._country_codes)
        if known.asn and name:
            self._by_number.setdefault(known.asn, name)
        return known.asn, name, country

    def _publish(self) -> None:
        """Texts by code, in new mappings: other threads read the old ones."""
        if len(self._name_codes) != len(self.names) + 1:
            self.names = {code: text for text, code in self._name_codes.items() if code}
        if len(self._country_codes) != len(self.countries) + 1:
            self.countries = {code: text for text, code in self._country_codes.items() if code}

    def _mend(self) -> None:
        """Before the pages of the files are read: those that were written to must not be used any more."""
        if not all(file.database is None or file.database.intact() for file in self._files):
            self._follow()

    def _follow(self) -> None:
        self._looked_at = self._clock()
        changed = [file.follow() for file in self._files]
        if any(changed):
            self._cache.clear()
            self._asked = []
        self._tell()

    def _tell(self) -> None:
        faults = [file.fault for file in self._files if file.fault]
        faults += [f"{file.label}: {file.database.unreadable} records cannot be read" for file in self._files
                   if file.database is not None and file.database.unreadable]
        self.faults = tuple(faults)
        self.files = tuple(_described(file) for file in self._files if file.database is not None)


def _described(file: _File) -> str:
    assert file.database is not None
    day = time.strftime("%Y-%m-%d", time.gmtime(min(max(file.database.built_s, 0), 1 << 33)))
    return f"{file.label} ({file.database.kind}, {day})"
