"""Names for numbers: one value that is passed to cells, filters, groups and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flowtop.text.names import NO_NAMES, KnownNames


@dataclass(frozen=True, slots=True)
class Lookups:
    """The texts known at one moment, by number. The content does not change: a later moment has a new value.

    Attributes:
        interfaces: names of Observation Points by ifindex, also of those that are gone. Untrusted text.
        hosts: names of hosts by address, for the filter word `name`.
        texts: for other text fields: text by code, for each name that a field looks up with `named`. Untrusted text.
    """

    interfaces: Mapping[int, str] = field(default_factory=dict)
    hosts: KnownNames = NO_NAMES
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def named(self, name: str) -> Mapping[int, str]:
        """Text by code, from `texts`; empty when there are none."""
        return self.texts.get(name, {})


NO_LOOKUPS = Lookups()
"""No names are known."""


@dataclass(frozen=True, slots=True)
class Texts:
    """How to find the text of a code in flows, such as the name of an ifindex.

    Attributes:
        names: full names by code.
        missing: gives the text of a code without a name.
        part: gives the part of a name that is shown, matched, sorted and grouped by.
    """

    names: Callable[[Lookups], Mapping[int, str]]
    missing: Callable[[int], str] = str
    part: Callable[[str], str] = str

    def text(self, code: int, lookups: Lookups) -> str:
        """The text of a code; untrusted."""
        return self.part(self.names(lookups).get(code) or self.missing(code))
