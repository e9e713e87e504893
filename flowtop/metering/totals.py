"""The Metering Process's books."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowtop.record import IGNORED_KINDS


@dataclass(frozen=True, slots=True)
class MeteringTotals:
    """Sums since start and of the last tick. Packets are wire packets, octets IP octets.

    `accounted_*`, `aggregated_*` (in AGGREGATE entries), `duplicate_*`, `evicted_flows` and `unlisted_*` (of flows that
    came and went between two pages, too many to keep until the second) are what the table counted;
    observed, encapsulation (what stood around carried packets: in no other sum), ignored, filtered (by the capture
    filter), lost, unjoined and interface figures are the capture's, summed
    over Observation Points.
    `tick_*`: of the last tick, duplicates left out, by direction; one that is not known counts as ingress.
    """

    accounted_packets: int = 0
    accounted_octets: int = 0
    aggregated_packets: int = 0
    aggregated_octets: int = 0
    duplicate_packets: int = 0
    duplicate_octets: int = 0
    evicted_flows: int = 0
    unlisted_packets: int = 0
    unlisted_octets: int = 0
    observed_packets: int = 0
    observed_octets: int = 0
    encapsulation_octets: int = 0
    ignored_packets: int = 0
    ignored_octets: int = 0
    ignored_by_kind: tuple[int, ...] = (0,) * len(IGNORED_KINDS)
    lost_packets: int = 0
    lost_octets: int = 0
    filtered_packets: int = 0
    filtered_octets: int = 0
    unjoined_fragments: int = 0
    interface_packets: int = 0
    tick_ingress_packets: int = 0
    tick_ingress_octets: int = 0
    tick_egress_packets: int = 0
    tick_egress_octets: int = 0

    @property
    def unexplained_packets(self) -> int:
        """observed - accounted - ignored - filtered - lost: 0, or there is a fault in flowtop."""
        return (self.observed_packets - self.accounted_packets - self.ignored_packets - self.filtered_packets
                - self.lost_packets)

    @property
    def unexplained_octets(self) -> int:
        """As unexplained_packets."""
        return (self.observed_octets - self.accounted_octets - self.ignored_octets - self.filtered_octets
                - self.lost_octets)


def with_observed(totals: MeteringTotals, observations: npt.NDArray[np.void]) -> MeteringTotals:
    """The totals with the capture's figures taken from OBSERVATION_DTYPE, shape (m,)."""
    by_kind = tuple(int(n) for n in observations["ignored_packets"].sum(axis=0))
    return replace(
        totals,
        observed_packets=int(observations["packets"].sum()),
        observed_octets=int(observations["octets"].sum()),
        encapsulation_octets=int(observations["encapsulation_octets"].sum()),
        ignored_packets=sum(by_kind),
        ignored_octets=int(observations["ignored_octets"].sum()),
        ignored_by_kind=by_kind,
        lost_packets=int(observations["lost_packets"].sum()),
        lost_octets=int(observations["lost_octets"].sum()),
        filtered_packets=int(observations["filtered_packets"].sum()),
        filtered_octets=int(observations["filtered_octets"].sum()),
        unjoined_fragments=int(observations["unjoined_fragments"].sum()),
        interface_packets=int(observations["interface_packets"].sum()),
    )
