"""Closing the books: the Metering Process's sums as a Page shows them, beside the interfaces' own counters."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from flowtop.query.query import Books

_SUMS = tuple(field.name for field in fields(Books) if field.name != "coverage")


def close_books(totals: object, observations: npt.NDArray[np.void]) -> Books:
    """The Books at one instant.

    Args:
        totals: has every field of Books but `coverage`, by the same name (the flow table's totals do).
        observations: record.OBSERVATION_DTYPE, shape (m,), cumulative, of the same instant.
    """
    return Books(**{name: getattr(totals, name) for name in _SUMS}, coverage=coverage(observations))


def coverage(observations: npt.NDArray[np.void]) -> float | None:
    """Seen / the interfaces' own counters, packets, 0..1; None while those stand at 0.

    A network card counts wire packets, a software device (veth, bridge, tun) counts buffers, in which GSO or GRO may
    hold many: each Observation Point is compared in the unit its counter is nearer to.
    """
    counted = observations["interface_packets"].astype(np.int64)
    if not counted.sum():
        return None
    packets, frames = observations["packets"].astype(np.int64), observations["frames"].astype(np.int64)
    seen = np.where(np.abs(frames - counted) <= np.abs(packets - counted), frames, packets)
    # Point by point, so that one device that forgot what it counted cannot hide what was missed at another.
    return float(np.minimum(seen, counted).sum() / counted.sum())
