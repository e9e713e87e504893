"""What numbers stand for: one value that goes down to cells, filters, groups and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flowtop.text.names import NO_NAMES, KnownNames


@dataclass(frozen=True, slots=True)
class Lookups:
    """Texts by number, as they are known at one moment. What is in here is not changed: a later moment has another one.

    Attributes:
        interfaces: names of Observation Points by ifindex, of those gone too. Untrusted text.
        hosts: names of hosts by address, for filters that ask for them.
        texts: of other text fields, by the name that the field asks with: text by code. Untrusted.
    """

    interfaces: Mapping[int, str] = field(default_factory=dict)
    hosts: KnownNames = NO_NAMES
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def named(self, name: str) -> Mapping[int, str]:
        """Text by code, of `texts`; empty where nobody knows any."""
        return self.texts.get(name, {})


NO_LOOKUPS = Lookups()
"""Nothing is known by name."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The text of a code that flows have, such as the name of an ifindex.

    Attributes:
        names: whole names by code.
        missing: what a code without a name is called.
        part: the part of a name that is shown, matched, sorted and grouped by.
    """

    names: Callable[[Lookups], Mapping[int, str]]
    missing: Callable[[int], str] = str
    part: Callable[[str], str] = str

    def text(self, code: int, lookups: Lookups) -> str:
        """The text of a code; untrusted."""
        return self.part(self.names(lookups).get(code) or self.missing(code))
