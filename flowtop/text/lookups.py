"""Names for numbers: one value that is passed to cells, filters, groups and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flowtop.model.devices import DeviceView
from flowtop.text.names import NO_NAMES, KnownNames

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Networks(Protocol):
    """AS and country of addresses, from databases on this host. For any thread.

    Addresses are two arrays u8, shape (n,): both halves as numbers, IPv4 as IPv4-mapped (::ffff:a.b.c.d).
    """

    @property
    def names(self) -> Mapping[int, str]:
        """Names of AS by code, of those that were looked up so far. Codes are never used again for another name."""

    @property
    def countries(self) -> Mapping[int, str]:
        """Countries (ISO 3166 alpha-2) by code, likewise."""

    @property
    def files(self) -> tuple[str, ...]:
        """The databases in use, a line each."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with databases now, a line each, printable."""

    def origins(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint8],
                ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """AS number, code of its name and code of the country of each address; 0: not known.

        Args:
            lengths: 128 for an address; of a network its bits of the 128; 0: not to be looked up.
        """

    def names_of(self, asn: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Codes of the names of these AS numbers, as far as addresses of theirs were looked up; 0: not known."""


class Here(Protocol):
    """The addresses of this host. For any thread. Addresses: as in Networks."""

    @property
    def edition(self) -> int:
        """Another number when they are others."""

    def local(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which are addresses of this host."""

    def broadcast(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which reach all hosts of a link of this host."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """The texts known at one moment, by number. The content does not change: a later moment has a new value.

    Attributes:
        interfaces: names of Observation Points by ifindex, also of those that are gone. Untrusted text.
        hosts: names of hosts by address, for the filter word `name`.
        texts: for other text fields: text by code, for each name that a field looks up with `named`. Untrusted text.
        called: names by address, 4 or 16 octets: what each was looked up as last, by whichever client. Safe to show.
        networks: AS and country of addresses; None: there is no database. It does change: it learns.
        here: addresses of this host; None: flows are not of this host (a file, exporters).
        devices: counters of this host's network devices by ifindex; empty: flows are not of this host.
        passed: PASSED_DTYPE, shape (m,): what all flows of each interface have had since the start, also those that
            have left; None: not known.
    """

    interfaces: Mapping[int, str] = field(default_factory=dict)
    hosts: KnownNames = NO_NAMES
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    called: Mapping[bytes, str] = field(default_factory=dict)
    networks: Networks | None = None
    here: Here | None = None
    devices: Mapping[int, DeviceView] = field(default_factory=dict)
    passed: npt.NDArray[np.void] | None = field(default=None, compare=False)

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
