"""Codes and texts of what exporters name in their own way: applications, VRFs, users. Bounded, never forgotten.

An application or VRF is a number that means something only at its exporter, and tables in Options Data have the names,
before or after the flows. So a code stands for (exporter, number), and its text is looked up when it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flowtop.model.reported import APPLICATION_IDS, APPLICATIONS, USERS, VRF_IDS, VRFS
from flowtop.wire.data_set import DataSet
from flowtop.wire.relayed import application_text
from flowtop.wire.reported import Naming, Place

MAX_CODES = 65_536
"""Limit of applications, VRFs and users each, since a hostile sender can name many. The others share OTHERS."""
MAX_NAMES = 65_536
"""Limit of names from tables, over all exporters."""
OTHERS = 1
"""The code shared by all beyond MAX_CODES."""
_MOST_OCTETS = 64
"""Longer names are cut."""

_Key = tuple[str, int, bytes, bytes]
"""Exporter, Observation Domain, id in network order, name in the record itself."""
_TABLES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "application": ((95,), (96,)), "vrf": ((234, 235), (236,))}
"""Elements of the id and of the name in Options Data, by kind."""


def _text(octets: bytes) -> str:
    return octets.partition(b"\0")[0].decode("utf-8", "replace").strip()[:_MOST_OCTETS]


class _Kind:
    """Codes of the applications or of the VRFs of all exporters, and the names in their tables.

    Attributes:
        texts, ids: text and id of each code.
        newest: the lowest code that no snapshot has.
        beyond: number of codes and names that were refused because there were too many.
    """

    def __init__(self, id_text: Callable[[bytes], str]) -> None:
        self.texts: dict[int, str] = {}
        self.ids: dict[int, str] = {}
        self.newest = OTHERS
        self.beyond = 0
        self._id_text = id_text
        self._codes: dict[_Key, int] = {}
        self._same_id: dict[tuple[str, bytes], list[_Key]] = {}
        self._names: dict[tuple[str, int | None, bytes], str] = {}

    def code(self, exporter: str, domain: int, place: Place) -> int:
        """The code of an id, or of a name without an id; 0 for none: an id of 0 without a name."""
        id_, name = place
        id_, name = (id_ if any(id_) else b""), name.rstrip(b"\0")[:_MOST_OCTETS]
        if not id_ and not name:
            return 0
        key = exporter, domain, id_, name
        code = self._codes.get(key)
        if code is None:
            if len(self._codes) >= MAX_CODES:
                self.texts[OTHERS] = "others"
                self.beyond += 1
                return OTHERS
            code = self._codes[key] = OTHERS + 1 + len(self._codes)
            self._same_id.setdefault((exporter, id_), []).append(key)
            self._write(key)
        return code

    def announce(self, exporter: str, domain: int, id_: bytes, name: str) -> bool:
        """Store a name from a table; returns whether that is news."""
        if self._names.get((exporter, domain, id_)) == name:
            return False
        if (exporter, domain, id_) not in self._names and len(self._names) >= 2 * MAX_NAMES:
            self.beyond += 1
            return False
        # Tables may be sent in another domain than the flows that they are about.
        self._names[exporter, domain, id_] = self._names[exporter, None, id_] = name
        for key in self._same_id.get((exporter, id_), ()):
            self._write(key)
        return True

    def _write(self, key: _Key) -> None:
        exporter, domain, id_, name = key
        code = self._codes[key]
        known = self._names.get((exporter, domain, id_)) or self._names.get((exporter, None, id_))
        self.texts[code] = _text(name) or known or self._id_text(id_)
        if id_:
            self.ids[code] = self._id_text(id_)


class Names:
    """Codes and texts of the applications, VRFs and users of all exporters."""

    def __init__(self) -> None:
        self._applications = _Kind(application_text)
        self._vrfs = _Kind(lambda id_: str(int.from_bytes(id_, "big")))
        self._users: dict[str, int] = {}
        self._beyond = 0
        self._snapshot: Mapping[str, Mapping[int, str]] | None = {}

    def naming(self, exporter: str, domain: int) -> Naming:
        """How to give codes to what this exporter reports in this Observation Domain."""
        return Naming(lambda places: self._places(self._applications, exporter, domain, places),
                      lambda places: self._places(self._vrfs, exporter, domain, places), self._user_codes)

    def announce(self, exporter: str, domain: int, data_set: DataSet) -> None:
        """Store the names of applications and VRFs in Options Data, if there are any."""
        numbers = {specifier.element_id: at for at, (_, specifier) in enumerate(data_set.template.named_fields)
                   if not specifier.enterprise}
        for kind, (ids, names) in ((self._applications, _TABLES["application"]), (self._vrfs, _TABLES["vrf"])):
            id_at = next((numbers[number] for number in ids if number in numbers), None)
            name_at = next((numbers[number] for number in names if number in numbers), None)
            if id_at is None or name_at is None:
                continue
            length = data_set.template.named_fields[id_at][1].format[1]
            for row in data_set.records[:MAX_NAMES].tolist():
                name = _text(bytes(row[name_at]))
                if name and kind.announce(exporter, domain, _octets(row[id_at], length), name):
                    self._snapshot = None

    @property
    def beyond(self) -> int:
        """How many times a code or a name was refused because there were too many."""
        return self._beyond + self._applications.beyond + self._vrfs.beyond

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """Text by code, by the names in model.reported. The content does not change: later there is a new mapping."""
        if self._snapshot is None:
            self._snapshot = {
                APPLICATIONS: dict(self._applications.texts), APPLICATION_IDS: dict(self._applications.ids),
                VRFS: dict(self._vrfs.texts), VRF_IDS: dict(self._vrfs.ids),
                USERS: {code: name for name, code in self._users.items()}}
        return self._snapshot

    def _places(self, kind: _Kind, exporter: str, domain: int, places: Iterable[Place]) -> list[int]:
        codes = [kind.code(exporter, domain, place) for place in places]
        if max(codes, default=0) >= kind.newest:
            self._snapshot, kind.newest = None, max(codes) + 1
        return codes

    def _user_codes(self, names: Iterable[bytes]) -> list[int]:
        return [self._user(_text(name)) for name in names]

    def _user(self, name: str) -> int:
        if not name:
            return 0
        code = self._users.get(name)
        if code is None:
            self._snapshot = None
            if len(self._users) >= MAX_CODES:
                name, code = "others", OTHERS
                self._beyond += 1
            else:
                code = OTHERS + 1 + len(self._users)
            self._users[name] = code
        return code


def _octets(value: Any, length: int) -> bytes:
    """An id of Options Data in network order."""
    return value.to_bytes(min(length, 8), "big") if isinstance(value, int) else bytes(value)
