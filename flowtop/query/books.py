"""The accounts of a Page: sums of the Metering Process, and how they compare with the interfaces' own counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.model.devices import DeviceView
from flowtop.model.flows import INTO, OUT_OF, PASSED_DTYPE
from flowtop.model.kinds import Direction
from flowtop.query.query import Books

_COMPARED = ("coverage", "unseen_packets", "excess_ingress_packets", "excess_egress_packets")
_SUMS = tuple(field.name for field in fields(Books) if field.name not in _COMPARED)


def close_books(totals: object, observations: npt.NDArray[np.void]) -> Books:
    """The accounts at one instant.

    Args:
        totals: has every field of Books except those of `comparison`, like the flow table's totals.
        observations: record.OBSERVATION_DTYPE, shape (m,), cumulative, at the same instant.
    """
    return Books(**{name: getattr(totals, name) for name in _SUMS}, **comparison(observations)._asdict())


def _compared(observations: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Packets that interfaces have counted, and that were seen, in their unit."""
    counted = observations["interface_packets"].astype(np.int64)
    packets, frames = observations["packets"].astype(np.int64), observations["frames"].astype(np.int64)
    return counted, np.where(np.abs(frames - counted) <= np.abs(packets - counted), frames, packets)


def with_coverage(devices: Mapping[int, DeviceView], observations: npt.NDArray[np.void]) -> dict[int, DeviceView]:
    """The devices, with what was seen of the packets that they have counted."""
    found = dict(devices)
    counted, seen = _compared(observations)
    for ifindex, its, mine in zip(observations["ifindex"].tolist(), counted.tolist(), seen.tolist(), strict=True):
        if (device := found.get(ifindex)) is not None:
            found[ifindex] = device._replace(seen=device.seen + mine, counted=device.counted + its,
                                             unseen=device.unseen + max(its - mine, 0))
    return found


def passed(observations: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """What the flows of each interface have had, also those that have left: observed - ignored - filtered - lost.

    Args:
        observations: record.OBSERVATION_DTYPE, shape (m,), cumulative.

    Returns model.flows.PASSED_DTYPE, an element for each interface, by ifindex. What has no direction counts as
    received.
    """
    interfaces, of = np.unique(observations["ifindex"], return_inverse=True)
    found = np.zeros(len(interfaces), PASSED_DTYPE)
    found["ifindex"] = interfaces
    out = observations["direction"] == int(Direction.EGRESS)
    for name, unit in (("octet_total", "octets"), ("packet_total", "packets")):
        flows = observations[unit].astype(np.int64)
        for part in ("ignored", "filtered", "lost"):
            apart = observations[f"{part}_{unit}"].astype(np.int64)
            flows -= apart.sum(axis=tuple(range(1, apart.ndim)))  # of ignored ones each kind
        for way, chosen in ((INTO, ~out), (OUT_OF, out)):
            np.add.at(found[way + name], of[chosen], np.maximum(flows[chosen], 0).astype(np.uint64))
    return found


class Comparison(NamedTuple):
    """Packets seen, compared with the interfaces' own counters: fields of Books."""

    coverage: float | None = None
    unseen_packets: int = 0
    excess_ingress_packets: int = 0
    excess_egress_packets: int = 0


def comparison(observations: npt.NDArray[np.void]) -> Comparison:
    """Compare each Observation Point in each direction, so that none hides what another lacks or has too much.

    Network cards count wire packets, software devices (veth, bridge, tun) count buffers, which may hold many with GSO
    or GRO: each is compared in the unit that is closer to its counter. Those that are not compared count nothing.
    """
    counted, seen = _compared(observations)
    total = int(counted.sum())
    unseen = int(np.maximum(counted - seen, 0).sum())
    excess = np.where(observations["compared"], np.maximum(seen - counted, 0), 0)
    ingress = observations["direction"] == int(Direction.INGRESS)
    return Comparison((total - unseen) / total if total else None, unseen, int(excess[ingress].sum()),
                      int(excess[~ingress].sum()))
