"""The accounts of a Page: sums of the Metering Process, and the interfaces' own counters."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from flowtop.query.query import Books

_SUMS = tuple(field.name for field in fields(Books) if field.name != "coverage")


def close_books(totals: object, observations: npt.NDArray[np.void]) -> Books:
    """The accounts at one instant.

    Args:
        totals: has every field of Books except `coverage`, like the flow table's totals.
        observations: record.OBSERVATION_DTYPE, shape (m,), cumulative, at the same instant.
    """
    return Books(**{name: getattr(totals, name) for name in _SUMS}, coverage=coverage(observations))


def coverage(observations: npt.NDArray[np.void]) -> float | None:
    """Observed packets / the interfaces' own counters, 0..1; None while the counters are 0.

    Network cards count wire packets, software devices (veth, bridge, tun) count buffers, which may hold many with GSO
    or GRO: each Observation Point is compared in the unit that is closer to its counter.
    """
    counted = observations["interface_packets"].astype(np.int64)
    if not counted.sum():
        return None
    packets, frames = observations["packets"].astype(np.int64), observations["frames"].astype(np.int64)
    seen = np.where(np.abs(frames - counted) <= np.abs(packets - counted), frames, packets)
    # Per point, so that a device that lost its counters cannot hide packets missed at another.
    return float(np.minimum(seen, counted).sum() / counted.sum())
