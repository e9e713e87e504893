"""Coverage: each Observation Point in the unit its own counter has, and none hides another's shortage."""

from __future__ import annotations

import numpy as np
import pytest

from flowtop.model.record import OBSERVATION_DTYPE
from flowtop.query.books import coverage


def observations(*points: tuple[int, int, int]) -> np.ndarray:
    """(wire packets, frames, interface packets) of each point."""
    found = np.zeros(len(points), OBSERVATION_DTYPE)
    for row, (packets, frames, counted) in zip(found, points, strict=True):
        row["packets"], row["frames"], row["interface_packets"] = packets, frames, counted
    return found


@pytest.mark.parametrize(("points", "expected"), [
    ([], None),
    ([(5, 5, 0)], None),
    ([(10, 10, 10)], 1.0),
    ([(450, 10, 450)], 1.0),   # a network card counts wire packets
    ([(450, 10, 10)], 1.0),    # a veth counts buffers
    ([(450, 10, 450), (450, 10, 10)], 1.0),
    ([(9, 9, 10)], 0.9),
    ([(50, 50, 10), (50, 50, 90)], 0.6),  # the first device forgot 40: (10 + 50) / 100
    ([(11, 11, 10)], 1.0),     # one on its way
])
def test_coverage(points: list[tuple[int, int, int]], expected: float | None) -> None:
    found = coverage(observations(*points))
    assert found == (expected if expected is None else pytest.approx(expected))
