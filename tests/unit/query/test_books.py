"""Coverage: each Observation Point in the unit its own counter has; none hides what another lacks or has too much."""

from __future__ import annotations

import numpy as np
import pytest

from flowtop.model.kinds import Direction
from flowtop.model.record import OBSERVATION_DTYPE
from flowtop.query.books import comparison


def observations(*points: tuple[int, int, int]) -> np.ndarray:
    """(wire packets, frames, interface packets) of each point."""
    found = np.zeros(len(points), OBSERVATION_DTYPE)
    for row, (packets, frames, counted) in zip(found, points, strict=True):
        row["ifindex"], row["compared"] = 3, True
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
    found = comparison(observations(*points)).coverage
    assert found == (expected if expected is None else pytest.approx(expected))


def test_what_is_seen_twice_hides_nothing_that_is_not_seen() -> None:
    """1,000 in and 300 out, of which a wrong hook saw the former twice and the latter never."""
    found = observations((2_000, 2_000, 1_000), (0, 0, 300), (25, 25, 20))
    found["direction"] = [int(Direction.INGRESS), int(Direction.EGRESS), int(Direction.EGRESS)]
    compared = comparison(found)
    assert compared.coverage == pytest.approx(1_020 / 1_320)
    assert compared[1:] == (300, 1_000, 5)


def test_what_has_no_counters_is_no_excess() -> None:
    found = observations((10, 10, 0), (5, 5, 5))
    found["compared"][0] = False
    assert comparison(found) == (1.0, 0, 0, 0)


def test_where_nothing_is_counted_all_that_is_seen_is_excess() -> None:
    """A queue that drops everything, or a device whose counters stand still."""
    found = observations((10, 10, 0), (7, 7, 0))
    found["direction"] = [int(Direction.EGRESS), int(Direction.INGRESS)]
    assert comparison(found) == (None, 0, 7, 10)
