"""What exporters name in their own way: interfaces, applications, VRFs, samplers, users. Bounded.

Tables in Options Data have the names of interfaces, applications, VRFs and samplers, whose numbers mean something only
at their exporter. They come before or after the flows, and often in another Observation Domain: domain 0 is about all
of them, and of the others those that have the entry have to agree.

Flows have room for numbers alone. An interface gets one in points.py; applications, VRFs and users get a code here,
whose text is looked up when it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from flowtop.capture.collector.shares import Shares
from flowtop.model.reported import APPLICATION_IDS, APPLICATIONS, USERS, VRF_IDS, VRFS
from flowtop.wire.owners import OwnerCodes
from flowtop.wire.record_names import plain_name
from flowtop.wire.relayed import application_text
from flowtop.wire.reported import Naming, Place

MAX_NAMES = 32_768
"""Limit of names per exporter."""
MAX_ALL_NAMES = 65_536
"""Limit of names in all tables; the least recently announced go."""
MAX_DOMAINS = 64
"""An entry that more domains have than this is not looked for in other domains."""
MAX_CODES = 65_536
"""Limit of applications, VRFs and users each, since a hostile sender can name many; the least recently used go."""
MAX_OWNERS = 16_384
"""Limit of processes of all exporters; beyond it the first ones are forgotten: of their flows the pid is known."""
_FIRST, _LAST = 2, (1 << 32) - 1
"""Codes count from the first to the last, and are not used again before that."""
_MOST_OCTETS = 64
"""Longer names in records are cut."""

Table = Literal["interface", "application", "vrf", "sampler"]
Key = int | bytes
"""The number of an interface, VRF or sampler, or an applicationId."""


class _Elements(NamedTuple):
    """Elements of a table: of its keys and its names, the first that is in a record counts."""

    keys: tuple[str, ...]
    names: tuple[str, ...]


TABLES: dict[Table, _Elements] = {
    "interface": _Elements(("ingressInterface", "egressInterface", "ingressPhysicalInterface",
                            "egressPhysicalInterface"), ("interfaceName", "interfaceDescription")),
    "application": _Elements(("applicationId",), ("applicationName",)),
    "vrf": _Elements(("ingressVRFID", "egressVRFID"), ("VRFname",)),
    "sampler": _Elements(("samplerId", "selectorId"), ("samplerName", "selectorName")),
}


def tables_of(names: Collection[str]) -> tuple[Table, ...]:
    """Tables that records of Options Data with these elements have names for."""
    return tuple(table for table, elements in TABLES.items()
                 if any(name in names for name in elements.names) and any(key in names for key in elements.keys))


class Found(NamedTuple):
    """A name, "" if there is none, and whether another domain has announced it."""

    name: str
    other_domain: bool


_NOTHING = Found("", other_domain=False)


class NameTables:
    """Names by table, exporter, key and Observation Domain.

    Attributes:
        renamed: exporters and numbers of interfaces whose names have changed; who keeps these clears it.
        shares: which of them are kept.
    """

    def __init__(self) -> None:
        self.renamed: set[tuple[str, Key]] = set()
        self.shares: Shares[tuple[Table, str, Key, int]] = Shares(MAX_ALL_NAMES, MAX_NAMES)
        self._names: dict[tuple[Table, str], dict[Key, dict[int, str]]] = {}

    def __len__(self) -> int:
        return len(self.shares)

    def find(self, table: Table, exporter: str, domain: int, key: Key) -> Found:
        """A name for a flow of a domain."""
        domains = self._names.get((table, exporter), {}).get(key)
        if not domains:
            return _NOTHING
        for place in (domain, 0):
            if place in domains:
                return Found(domains[place], other_domain=place != domain)
        different = set(domains.values()) if len(domains) <= MAX_DOMAINS else set()
        return Found(different.pop(), other_domain=True) if len(different) == 1 else _NOTHING

    def store(self, table: Table, exporter: str, domain: int, key: Key, name: str) -> bool:
        """Store one name; returns whether that is news."""
        domains = self._names.get((table, exporter), {}).get(key, {})
        place = table, exporter, key, domain
        new = domain not in domains
        if not new:
            self.shares.use(place)
            if domains[domain] == name:
                return False
        self._names.setdefault((table, exporter), {}).setdefault(key, {})[domain] = name
        if table == "interface":
            self.renamed.add((exporter, key))
        gone = self.shares.add(place, exporter) if new else None
        if gone is not None:
            self._remove(*gone)
        return True

    def _remove(self, table: Table, exporter: str, key: Key, domain: int) -> None:
        keys = self._names[table, exporter]
        del keys[key][domain]
        if not keys[key]:
            del keys[key]
        if not keys:
            del self._names[table, exporter]
        if table == "interface":
            self.renamed.add((exporter, key))


_CodeKey = tuple[str, int, bytes, bytes]
"""Exporter, Observation Domain, id in network order, name in the record itself."""


class _Codes:
    """Codes of the applications or of the VRFs of all exporters.

    Attributes:
        texts, ids: text and id of each code.
        changed: there are codes or texts that no snapshot has.
        shares: which codes are kept.
    """

    def __init__(self, table: Table, tables: NameTables, key: Callable[[bytes], Key],
                 id_text: Callable[[bytes], str]) -> None:
        self.texts: dict[int, str] = {}
        self.ids: dict[int, str] = {}
        self.changed = False
        self.shares: Shares[_CodeKey] = Shares(MAX_CODES)
        self._next = _FIRST
        self._table = table
        self._tables = tables
        self._key = key
        self._id_text = id_text
        self._codes: dict[_CodeKey, int] = {}
        self._same: dict[tuple[str, Key], dict[_CodeKey, None]] = {}

    def code(self, exporter: str, domain: int, place: Place) -> int:
        """The code of an id, or of a name without an id; 0 for none: an id of 0 without a name."""
        id_, name = place
        id_, name = (id_ if any(id_) else b""), name.rstrip(b"\0")[:_MOST_OCTETS]
        if not id_ and not name:
            return 0
        key = exporter, domain, id_, name
        code = self._codes.get(key)
        if code is not None:
            self.shares.use(key)
            return code
        code = self._codes[key] = self._next
        self._next = self._next + 1 if self._next < _LAST else _FIRST
        self._same.setdefault((exporter, self._key(id_)), {})[key] = None
        self._write(key)
        gone = self.shares.add(key, exporter)
        if gone is not None:
            self._remove(gone)
        return code

    def _remove(self, key: _CodeKey) -> None:
        code = self._codes.pop(key)
        for texts in (self.texts, self.ids):
            texts.pop(code, None)
        place = key[0], self._key(key[2])
        del self._same[place][key]
        if not self._same[place]:
            del self._same[place]
        self.changed = True

    def rename(self, exporter: str, key: Key) -> None:
        """Look up again what a table has named."""
        for code_key in self._same.get((exporter, key), ()):
            self._write(code_key)

    def _write(self, key: _CodeKey) -> None:
        exporter, domain, id_, name = key
        code = self._codes[key]
        known = self._tables.find(self._table, exporter, domain, self._key(id_)).name if id_ else ""
        self.changed = True
        self.texts[code] = plain_name(name) or known or self._id_text(id_)
        if id_:
            self.ids[code] = self._id_text(id_)


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


class Names:
    """Names of all exporters.

    Attributes:
        tables: what they have announced.
    """

    def __init__(self) -> None:
        self.tables = NameTables()
        self._codes = {"application": _Codes("application", self.tables, bytes, application_text),
                       "vrf": _Codes("vrf", self.tables, _number, lambda id_: str(_number(id_)))}
        self._users: dict[str, int] = {}
        self._users_share: Shares[str] = Shares(MAX_CODES)
        self._next_user = _FIRST
        self._owners = OwnerCodes(MAX_OWNERS)
        self._owners_in_snapshot = 0
        self._snapshot: Mapping[str, Mapping[int, str]] | None = {}

    def naming(self, exporter: str, domain: int) -> Naming:
        """How to give codes to what this exporter reports in this Observation Domain."""
        return Naming(lambda places: self._places(self._codes["application"], exporter, domain, places),
                      lambda places: self._places(self._codes["vrf"], exporter, domain, places), self._user_codes,
                      lambda pid, octets: self._owners.code(exporter, pid, octets))

    def learn(self, tables: Iterable[Table], place: tuple[str, int], interfaces: tuple[str, int],
              values: Mapping[str, Any]) -> bool:
        """Store the names in one record of Options Data; returns whether any is news.

        Args:
            tables: which are in it; see tables_of.
            place: exporter and Observation Domain that the record is about.
            interfaces: those of the interfaces in it.
            values: by element name: integers as int, strings as octets.
        """
        news = False
        for table in tables:
            elements, kind = TABLES[table], bytes if table == "application" else int
            exporter, domain = interfaces if table == "interface" else place
            name, key = "", None
            for element in elements.names:
                if isinstance(octets := values.get(element), bytes) and (name := plain_name(octets)):
                    break
            for element in elements.keys:
                if isinstance(key := values.get(element), kind):
                    break
            if not name or not isinstance(key, kind) or not self.tables.store(table, exporter, domain, key, name):
                continue
            news = True
            if table in self._codes:
                self._codes[table].rename(exporter, key)
        return news

    @property
    def evicted(self) -> int:
        """Number of names and codes that were removed because there were too many."""
        return self._owners.forgotten + self.tables.shares.evicted + self._users_share.evicted + sum(
            codes.shares.evicted for codes in self._codes.values())

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """Text by code, by the names in model.reported. The content does not change: later there is a new mapping."""
        changed = any(codes.changed for codes in self._codes.values())
        if self._snapshot is None or changed or self._owners_in_snapshot != len(self._owners):
            for codes in self._codes.values():
                codes.changed = False
            self._owners_in_snapshot = len(self._owners)
            owners = ({table: dict(texts) for table, texts in self._owners.texts.items()}
                      if self._owners_in_snapshot else {})
            applications, vrfs = self._codes["application"], self._codes["vrf"]
            self._snapshot = {
                APPLICATIONS: dict(applications.texts), APPLICATION_IDS: dict(applications.ids),
                VRFS: dict(vrfs.texts), VRF_IDS: dict(vrfs.ids),
                USERS: {code: name for name, code in self._users.items()}, **owners}
        return self._snapshot

    def _places(self, codes: _Codes, exporter: str, domain: int, places: Iterable[Place]) -> list[int]:
        return [codes.code(exporter, domain, place) for place in places]

    def _user_codes(self, names: Iterable[bytes]) -> list[int]:
        return [self._user(plain_name(name)) for name in names]

    def _user(self, name: str) -> int:
        if not name:
            return 0
        code = self._users.get(name)
        if code is not None:
            self._users_share.use(name)
            return code
        self._snapshot = None
        code = self._users[name] = self._next_user
        self._next_user = self._next_user + 1 if self._next_user < _LAST else _FIRST
        gone = self._users_share.add(name, None)
        if gone is not None:
            del self._users[gone]
        return code
