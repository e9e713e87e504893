"""Observation Points of other hosts: a synthetic ifindex for each exporter, Observation Domain and interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.names import NameTables
from flowtop.model.exporters import Exporter, observation_point_name
from flowtop.model.kinds import UNKNOWN_DIRECTION, Kind
from flowtop.model.record import OBSERVATION_DTYPE
from flowtop.wire.flow_records import Collected

MAX_POINTS = 16_384
"""Limit of interfaces with a number of their own, since a hostile sender can name many. The others share OTHERS."""
OTHERS = 1
"""The number shared by all interfaces beyond MAX_POINTS."""
MAX_NAMES = 4_096
"""Limit of interfaces that are reported by name only."""

_ENCAPSULATION = 2
"""Place among the sums, after packets and octets."""
_HALF = np.uint64(32)
_NAMED = 1 << 32
"""First number of interfaces that have a name and no number: above those that have one."""


class ObservationPoints:
    """Synthetic ifindexes, names and totals of Observation Points.

    Entries are never removed, as flows refer to them.

    Args:
        names: tables of names that exporters have announced.

    Attributes:
        names: the same.
        named_elsewhere: number of interfaces with a name that was announced in another Observation Domain.
    """

    def __init__(self, names: NameTables) -> None:
        self.names = names
        self.named_elsewhere = 0
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._by_name: dict[tuple[str, int, str], int] = {}
        self._texts: dict[int, str] | None = None
        self._texts_of = 0
        self._own: dict[int, str] = {}
        self._sums = np.zeros((64, UNKNOWN_DIRECTION + 1, 3), np.uint64)

    def number(self, exporter: str, domain: int, interface: int) -> int:
        """The synthetic ifindex of an exporter's interface."""
        key = exporter, domain, interface
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= MAX_POINTS:
                return OTHERS
            number = self._numbers[key] = OTHERS + 1 + len(self._numbers)
            self._texts = None
            if number >= len(self._sums):
                self._sums = np.concatenate((self._sums, np.zeros_like(self._sums)))
        return number

    def numbers(self, origins: Sequence[tuple[str, int]], origin: npt.NDArray[np.integer],
                interfaces: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """The synthetic ifindexes of interfaces, shape (n,).

        Args:
            origins: exporters and Observation Domains.
            origin: index into these, shape (n,).
        """
        places = origin.astype(np.uint64) << _HALF | interfaces
        different, inverse = np.unique(places, return_inverse=True)
        mine = [self.number(exporter, domain, place & 0xFFFF_FFFF) for place in different.tolist()
                for exporter, domain in (origins[place >> 32],)]
        numbers: npt.NDArray[np.uint32] = np.array(mine, np.uint32)[inverse]
        return numbers

    def numbers_of(self, exporter: str, domain: int, names: Sequence[str]) -> npt.NDArray[np.uint32]:
        """The synthetic ifindexes of interfaces that are reported by name only, shape (n,); that of number 0 for ""."""
        return np.array([self._number_of(exporter, domain, name) for name in names], np.uint32)

    def _number_of(self, exporter: str, domain: int, name: str) -> int:
        key = exporter, domain, name
        number = self._by_name.get(key)
        if number is None:
            if not name or len(self._by_name) >= MAX_NAMES:
                return self.number(exporter, domain, 0)
            interface = _NAMED + len(self._by_name)
            number = self._by_name[key] = self.number(exporter, domain, interface)
            self.names.store("interface", exporter, domain, interface, name)
        return number

    def interfaces(self) -> Mapping[int, str]:
        """Names by synthetic ifindex."""
        if self._texts is None or self._texts_of != self.names.changes["interface"]:
            self.named_elsewhere, self._texts_of = 0, self.names.changes["interface"]
            self._texts = {
                number: observation_point_name(Exporter(exporter, domain, self._text(exporter, domain, interface)))
                for (exporter, domain, interface), number in self._numbers.items()}
            if len(self._numbers) >= MAX_POINTS:
                self._texts[OTHERS] = "others"
        return self._texts

    def interface_numbers(self) -> Mapping[int, str]:
        """The exporter's own number of an interface by synthetic ifindex; "" for none. A new mapping when
        there are more."""
        if len(self._own) != len(self._numbers):
            self._own = {number: str(interface) if 0 < interface < _NAMED else ""
                         for (_, _, interface), number in self._numbers.items()}
        return self._own

    def _text(self, exporter: str, domain: int, interface: int) -> str:
        name, other_domain = self.names.find("interface", exporter, domain, interface)
        self.named_elsewhere += other_domain
        return name or (f"if{interface}" if interface else "")

    def book(self, rows: Collected) -> None:
        """Add traffic to the totals; of tunnels that packets were taken out of, only what is around the packets."""
        point = rows["ifindex"], rows["direction"]
        tunnels = rows["kind"] == np.uint8(Kind.PARENT)
        if tunnels.any():
            around = rows["encapsulation"] * rows["packets"]
            np.add.at(self._sums[:, :, _ENCAPSULATION], point, np.where(tunnels, around, 0))
            rows = rows[~tunnels]
            point = rows["ifindex"], rows["direction"]
        for number, name in enumerate(("packets", "octets")):
            np.add.at(self._sums[:, :, number], point, rows[name])

    def observations(self) -> npt.NDArray[np.void]:
        """OBSERVATION_DTYPE, shape (m,): every point and direction with traffic; a new array."""
        numbers, directions = np.nonzero(self._sums.any(axis=2))
        observations = np.zeros(len(numbers), OBSERVATION_DTYPE)
        observations["ifindex"], observations["direction"] = numbers, directions
        for name, sums in zip(("packets", "octets", "encapsulation_octets"), self._sums[numbers, directions].T,
                              strict=True):
            observations[name] = sums
        return observations
