"""Tables of names in Options Data: of interfaces and samplers, by exporter and domain.

Exporters may send a table in another Observation Domain than flows: domain 0 is about all of them, and of the others
those that have the entry have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from flowtop.wire.record_names import plain_name

MAX_NAMES = 4_096
"""Limit of names per exporter, domain and kind of table."""
MAX_ALL_NAMES = 65_536
"""Limit of names in total."""
MAX_DOMAINS = 64
"""An entry that more domains have than this is not looked for in other domains."""

Table = Literal["interface", "sampler"]


class _Elements(NamedTuple):
    """Elements of a table: of its keys and its names, the first that is in a record counts."""

    keys: tuple[str, ...]
    names: tuple[str, ...]


TABLES: dict[Table, _Elements] = {
    "interface": _Elements(("ingressInterface", "egressInterface", "ingressPhysicalInterface",
                            "egressPhysicalInterface"), ("interfaceName", "interfaceDescription")),
    "sampler": _Elements(("samplerId", "selectorId"), ("samplerName", "selectorName")),
}

NAME_ELEMENTS = frozenset(name for elements in TABLES.values() for name in elements.names)
"""Elements of names: records of Options Data without one have nothing for these tables."""


class Found(NamedTuple):
    """A name, "" if there is none, and whether another domain has announced it."""

    name: str
    other_domain: bool


_NOTHING = Found("", other_domain=False)


class OptionNames:
    """Names that exporters have announced, in bounded memory.

    Attributes:
        changes: number of changes so far, for those who keep results.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._names: dict[tuple[Table, str], dict[int, dict[int, str]]] = {}
        self._counts: dict[tuple[Table, str, int], int] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def learn(self, exporter: str, domain: int, values: Mapping[str, Any]) -> bool:
        """Store the names in one record of Options Data.

        Args:
            values: by element name: integers as int, strings as octets.

        Returns:
            False: a name was dropped, because there are too many.
        """
        kept = True
        for table, elements in TABLES.items():
            name = next((text for element in elements.names if isinstance(octets := values.get(element), bytes)
                         and (text := plain_name(octets))), "")
            key = next((value for element in elements.keys if isinstance(value := values.get(element), int)), None)
            if name and key is not None:
                kept = self.store(table, exporter, domain, key, name) and kept
        return kept

    def find(self, table: Table, exporter: str, domain: int, key: int) -> Found:
        """A name for a flow of a domain."""
        domains = self._names.get((table, exporter), {}).get(key)
        if not domains:
            return _NOTHING
        for place in (domain, 0):
            if place in domains:
                return Found(domains[place], other_domain=place != domain)
        different = set(domains.values()) if len(domains) <= MAX_DOMAINS else set()
        return Found(different.pop(), other_domain=True) if len(different) == 1 else _NOTHING

    def store(self, table: Table, exporter: str, domain: int, key: int, name: str) -> bool:
        """Store one name; returns False if it was dropped, because there are too many."""
        domains = self._names.get((table, exporter), {}).get(key, {})
        if domains.get(domain) == name:
            return True
        if domain not in domains:
            count = self._counts.get((table, exporter, domain), 0)
            if count >= MAX_NAMES or self._number >= MAX_ALL_NAMES:
                return False
            self._counts[table, exporter, domain] = count + 1
            self._number += 1
        self._names.setdefault((table, exporter), {}).setdefault(key, {})[domain] = name
        self.changes += 1
        return True
