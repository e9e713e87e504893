"""Observation Points of other hosts: a synthetic ifindex for each exporter, Observation Domain and interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.names import NameTables
from flowtop.capture.collector.shares import Shares
from flowtop.model.exporters import Exporter, observation_point_name
from flowtop.model.kinds import UNKNOWN_DIRECTION, Kind
from flowtop.model.record import OBSERVATION_DTYPE
from flowtop.model.reported import OPPOSITE
from flowtop.wire.flow_records import Collected

MAX_POINTS = 16_384
"""Limit of interfaces with a number of their own, since a hostile sender can name many. The least recently used lose
it; if they come again, they get another one."""
MAX_NEW, NEW_A_SECOND = 4_096, 1_000
"""Interfaces of one exporter that get a number at once, and more with each second: each costs as much as several
records."""
OTHERS = 1
"""The number that has the totals of interfaces without one."""
_LAST_NUMBER = OPPOSITE - 1

_ENCAPSULATION = 2
"""Place among the sums, after packets and octets."""
_HALF = np.uint64(32)
_NAMED = 1 << 32
"""First number of interfaces that have a name and no number: above those that have one."""

_Point = tuple[str, int, int]
"""Exporter, Observation Domain, interface."""


class ObservationPoints:
    """Synthetic ifindexes, names and totals of Observation Points.

    Flows refer to the numbers, so that one is not used again before 2,147,483,647 others.

    Args:
        names: tables of names that exporters have announced.
        most_new: limit of interfaces of one exporter that get a number at once; the others get one later.

    Attributes:
        names: the same.
        shares: which interfaces have a number.
    """

    def __init__(self, names: NameTables, most_new: int = MAX_POINTS) -> None:
        self._most_new = most_new
        self.names = names
        self.shares: Shares[_Point] = Shares(MAX_POINTS)
        self._numbers: dict[_Point, int] = {}
        self._next = OTHERS + 1
        self._by_name: dict[tuple[str, int, str], int] = {}
        self._names_of: dict[_Point, tuple[str, int, str]] = {}
        self._next_named = _NAMED
        self._gone: dict[int, str] = {}
        self._text_of: dict[int, str] = {}
        self._unnamed: dict[int, _Point] = {}
        self._elsewhere: set[int] = set()
        self._new: dict[str, float] = {}
        self._refilled_s: float | None = None
        self._rows: dict[int, int] = {OTHERS: 0}
        self._free: list[int] = []
        self._texts: dict[int, str] | None = None
        self._own: dict[int, str] | None = None
        self._own_text: dict[int, str] = {}
        self._sums = np.zeros((64, UNKNOWN_DIRECTION + 1, 3), np.uint64)

    def number(self, exporter: str, domain: int, interface: int) -> int:
        """The synthetic ifindex of an exporter's interface."""
        key = exporter, domain, interface
        number = self._numbers.get(key)
        if number is not None:
            self.shares.use(key)
            return number
        return self._add(key)

    def _add(self, key: _Point) -> int:
        """Give an interface a number, if its exporter may bring about one more now."""
        exporter, _, interface = key
        new = self._new.get(exporter, 0)
        if new >= self._most_new:
            self.shares.evicted += 1
            return OTHERS
        self._new[exporter] = new + 1
        number = self._numbers[key] = self._new_number()
        self._unnamed[number] = key
        self._own_text[number] = str(interface) if 0 < interface < _NAMED else ""
        self._texts = self._own = None
        gone = self.shares.add(key, exporter)
        if gone is not None:
            self._remove(gone)
        return number

    def _new_number(self) -> int:
        number = self._next
        while number in self._rows:  # 2**31 numbers later
            number = number + 1 if number < _LAST_NUMBER else OTHERS + 1
        self._next = number + 1 if number < _LAST_NUMBER else OTHERS + 1
        row = self._rows[number] = self._free.pop() if self._free else len(self._rows)
        if row >= len(self._sums):
            self._sums = np.concatenate((self._sums, np.zeros_like(self._sums)))
        return number

    def _remove(self, point: _Point) -> None:
        """Take the number of an interface; its totals become those of others. Flows that have it keep its name for a
        time."""
        number = self._numbers.pop(point)
        del self._own_text[number]
        row = self._rows.pop(number)
        self._sums[0] += self._sums[row]
        self._sums[row] = 0
        self._free.append(row)
        exporter, domain, interface = point
        self._unnamed.pop(number, None)
        self._elsewhere.discard(number)
        self._gone[number] = self._text_of.pop(number, "") or observation_point_name(
            Exporter(exporter, domain, f"if{interface}"))
        if len(self._gone) > MAX_POINTS:
            del self._gone[next(iter(self._gone))]
        self._by_name.pop(self._names_of.pop(point, ("", 0, "")), None)

    def numbers(self, origins: Sequence[tuple[str, int]], origin: npt.NDArray[np.integer],
                interfaces: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """The synthetic ifindexes of interfaces, shape (n,).

        Args:
            origins: exporters and Observation Domains.
            origin: index into these, shape (n,).
        """
        places = origin.astype(np.uint64) << _HALF | interfaces
        different, inverse = np.unique(places, return_inverse=True)
        known, use, mine = self._numbers, self.shares.use, []
        for place in different.tolist():
            exporter, domain = origins[place >> 32]
            key = exporter, domain, place & 0xFFFF_FFFF
            number = known.get(key)
            if number is None:
                number = self._add(key)
            else:
                use(key)
            mine.append(number)
        numbers: npt.NDArray[np.uint32] = np.array(mine, np.uint32)[inverse]
        return numbers

    def numbers_of(self, exporter: str, domain: int, names: Sequence[str]) -> npt.NDArray[np.uint32]:
        """The synthetic ifindexes of interfaces that are reported by name only, shape (n,); that of number 0 for ""."""
        return np.array([self._number_of(exporter, domain, name) for name in names], np.uint32)

    def _number_of(self, exporter: str, domain: int, name: str) -> int:
        key = exporter, domain, name
        if not name:
            return self.number(exporter, domain, 0)
        interface = self._by_name.get(key)
        if interface is None:
            interface = self._by_name[key] = self._next_named
            self._next_named += 1
            self._names_of[exporter, domain, interface] = key
            self.names.store("interface", exporter, domain, interface, name)
        return self.number(exporter, domain, interface)

    @property
    def named_elsewhere(self) -> int:
        """Number of interfaces with a name that was announced in another Observation Domain."""
        return len(self._elsewhere)

    def interfaces(self) -> Mapping[int, str]:
        """Names by synthetic ifindex."""
        renamed = self.names.renamed
        if renamed:
            for point, number in self._numbers.items():
                if (point[0], point[2]) in renamed:
                    self._unnamed[number] = point
                    self._texts = None
            renamed.clear()
        if self._texts is None:
            for number, point in self._unnamed.items():
                self._name(number, *point)
            self._unnamed.clear()
            self._texts = {**self._gone, **self._text_of}
            if self.shares.evicted:
                self._texts[OTHERS] = "others"
        return self._texts

    def interface_numbers(self) -> Mapping[int, str]:
        """The exporter's own number of an interface by synthetic ifindex; "" for none. A new mapping when
        there are more."""
        if self._own is None:
            self._own = dict(self._own_text)
        return self._own

    def _name(self, number: int, exporter: str, domain: int, interface: int) -> None:
        name, other_domain = self.names.find("interface", exporter, domain, interface)
        (self._elsewhere.add if other_domain else self._elsewhere.discard)(number)
        self._text_of[number] = observation_point_name(
            Exporter(exporter, domain, name or (f"if{interface}" if interface else "")))

    def refill(self, now_s: float | None) -> None:
        """Time has passed: more interfaces may get a number. Call it before those of a drain do.

        Args:
            now_s: s since 1970 UTC; None: each exporter may have `most_new` again.
        """
        more = float(self._most_new)
        if now_s is not None:
            more = 0.0 if self._refilled_s is None else max(now_s - self._refilled_s, 0.0) * NEW_A_SECOND
        self._new = {exporter: number - more for exporter, number in self._new.items() if number > more}
        self._refilled_s = now_s

    def book(self, rows: Collected) -> None:
        """Add traffic to the totals; of tunnels that packets were taken out of, only what is around the packets.

        Rows of interfaces whose number and name are gone already become those of OTHERS.
        """
        if not len(rows):
            return
        different, inverse = np.unique(rows["ifindex"], return_inverse=True)
        places = np.array([self._rows.get(number, 0) for number in different.tolist()])[inverse]
        if self.shares.evicted:
            kept = [number if number in self._rows or number in self._gone else OTHERS for number in different.tolist()]
            rows["ifindex"] = np.array(kept, np.uint32)[inverse]
        tunnels = rows["kind"] == np.uint8(Kind.PARENT)
        if tunnels.any():
            around = rows["encapsulation"] * rows["packets"]
            np.add.at(self._sums[:, :, _ENCAPSULATION], (places, rows["direction"]), np.where(tunnels, around, 0))
            rows, places = rows[~tunnels], places[~tunnels]
        for number, name in enumerate(("packets", "octets")):
            np.add.at(self._sums[:, :, number], (places, rows["direction"]), rows[name])

    def observations(self) -> npt.NDArray[np.void]:
        """OBSERVATION_DTYPE, shape (m,): every point and direction with traffic; a new array."""
        rows, directions = np.nonzero(self._sums.any(axis=2))
        observations = np.zeros(len(rows), OBSERVATION_DTYPE)
        numbers = np.zeros(len(self._sums), np.uint32)
        numbers[list(self._rows.values())] = list(self._rows)
        observations["ifindex"], observations["direction"] = numbers[rows], directions
        for name, sums in zip(("packets", "octets", "encapsulation_octets"), self._sums[rows, directions].T,
                              strict=True):
            observations[name] = sums
        return observations
