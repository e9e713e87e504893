"""Retransmitted, out of order, and the handshake's round trip, from segments of known sequence numbers and times."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.record import SEGMENT_DTYPE
from tests.unit.factories import ACK, FIN, PSH, RST, START_NS, SYN, batch, counters, key

MS = 1_000_000
Segment = tuple[int, int, int, int]
"""Sequence number, octets of data, TCP control bits, ms since the start."""


def at(ms: float) -> int:
    return START_NS + round(ms * MS)


def entry_of(segments: Sequence[Segment], back: bool) -> tuple[np.ndarray, np.ndarray]:
    times = [at(ms) for _, _, _, ms in segments]
    ends = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 1000}
    bits = 0
    first = {}
    for (_, _, flags, _), time in zip(segments, times, strict=True):
        bits |= flags
        for bit, name in ((SYN, "syn_ns"), (FIN, "fin_ns"), (RST, "rst_ns")):
            if flags & bit:
                first.setdefault(name, time)
    opening = any(flags & (SYN | ACK) == SYN for _, _, flags, _ in segments)
    return key(**ends) if back else key(), counters(  # type: ignore[arg-type]
        len(segments), 1000, min(times), max(times), bits, opening=opening, **first)


def take(flows: FlowTable, there: Sequence[Segment] = (), back: Sequence[Segment] = ()) -> None:
    """A batch of segments both ways."""
    entries, rows = [], []
    for way, segments in enumerate((there, back)):
        if segments:
            rows += [(len(entries), sequence % 2**32, octets + bool(bits & SYN) + bool(bits & FIN), bits, at(ms))
                     for sequence, octets, bits, ms in segments]
            entries.append(entry_of(segments, way == 1))
    now_ns = max(row[4] for row in rows)
    flows.accumulate(replace(batch(entries, now_ns), segments=np.array(rows, SEGMENT_DTYPE)))


def counts(flows: FlowTable, port: int = 1000) -> tuple[int, int]:
    """(retransmitted, out of order) of the flow from that port."""
    (slot,) = np.flatnonzero(flows.visible & (flows.columns["source_port"] == port))
    return int(flows.columns["retransmitted"][slot]), int(flows.columns["out_of_order"][slot])


def data(sequence: int, ms: float, octets: int = 100) -> Segment:
    return sequence, octets, ACK | PSH, ms  # type: ignore[return-value]


@pytest.fixture
def flows() -> FlowTable:
    return FlowTable(TableConfig(idle_timeout_s=3600))


@pytest.mark.parametrize("start", [0, 1000, 2**31 - 150, 2**32 - 150, 2**32 - 1])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch each"])
@pytest.mark.parametrize(("steps", "expected"), [
    ([(0, 0), (100, 1), (200, 2), (300, 3)], (0, 0)),
    ([(0, 0), (100, 1), (0, 2), (200, 3)], (1, 0)),
    ([(0, 0), (100, 1), (0, 2), (100, 3), (100, 4)], (3, 0)),
    ([(0, 0), (200, 1), (100, 2), (300, 3)], (0, 1)),
    ([(0, 0), (200, 1), (100, 60), (300, 61)], (1, 0)),
    ([(0, 0), (200, 1), (100, 6), (300, 7)], (1, 0)),
    ([(0, 0), (200, 1), (400, 2), (300, 2.5), (100, 3.5), (500, 9)], (0, 2)),
    ([(0, 0), (200, 1), (400, 50), (100, 51), (300, 51)], (1, 1)),
    ([(100, 0), (0, 1)], (1, 0)),
], ids=["in order", "seen before", "thrice", "reordered", "lost before us", "lost a moment ago", "two gaps",
        "an old gap and a young one", "before the first that was captured"])
def test_late_segments(flows: FlowTable, start: int, together: bool, steps: list[tuple[int, float]],
                       expected: tuple[int, int]) -> None:
    segments = [data(start + offset, ms) for offset, ms in steps]
    for part in [segments] if together else [[segment] for segment in segments]:
        take(flows, part)
    assert counts(flows) == expected


def test_a_gap_is_waited_for_as_long_as_the_round_trip(flows: FlowTable) -> None:
    take(flows, [(0, 0, SYN, 0), data(1, 41)], [(500, 0, SYN | ACK, 40)])
    take(flows, [data(201, 100), data(101, 135), data(401, 200), data(301, 245)])
    assert counts(flows) == (1, 1)


@pytest.mark.parametrize(("probe", "what"), [
    ([(299, 1, ACK, 500), (299, 1, ACK, 900)], "keep-alives with an octet"),
    ([(300, 1, ACK, 500), (300, 1, ACK, 900), (300, 40, ACK, 950)], "probes of a window, and what was to follow")])
def test_probes_are_neither(flows: FlowTable, probe: list[Segment], what: str) -> None:
    take(flows, [data(100, 0), data(200, 1), *probe])
    assert counts(flows) == (0, 0), what


def test_syn_and_fin_that_come_again_are_retransmitted(flows: FlowTable) -> None:
    take(flows, [(7, 0, SYN, 0), (7, 0, SYN, 1000), (7, 0, SYN, 3000)])
    take(flows, [data(8, 3050), (108, 0, FIN | ACK, 3100), (108, 0, FIN | ACK, 3400)])
    assert counts(flows) == (3, 0)


def test_the_next_connection_with_these_ports_begins_anew(flows: FlowTable) -> None:
    take(flows, [(4_000_000_000, 0, SYN, 0), data(4_000_000_001, 1), (4_000_000_101, 0, FIN | ACK, 2)])
    take(flows, [(1_000, 0, SYN, 1000), data(1_001, 1001), (900, 0, SYN, 2000), data(901, 2001)])
    assert counts(flows) == (0, 0)


def test_numbers_far_from_all_before_are_no_gap_and_no_repetition(flows: FlowTable) -> None:
    take(flows, [data(0, 0), data(2**31 + 5, 1), data(100, 2), data(2**30 + 500, 3), data(2**30 + 500, 4)])
    assert counts(flows) == (1, 0)


def test_each_way_is_counted_by_itself(flows: FlowTable) -> None:
    take(flows, [data(0, 0), data(0, 5)], [data(0, 1), data(200, 2), data(100, 3)])
    assert counts(flows, 1000) == (1, 0) and counts(flows, 80) == (0, 1)


# ---- the handshake

def round_trips(flows: FlowTable) -> list[int]:
    return flows.columns["rtt_us"][flows.visible].tolist()


SYN_AT, SYN_ACK_AT = (7, 0, SYN), (900, 0, SYN | ACK)


@pytest.mark.parametrize(("there", "back", "expected_ms"), [
    ([0], [40], 40), ([0, 1000], [1040], 40), ([0, 1000], [1700, 2700], 700), ([0, 100], [60], 60), ([], [40], None),
    ([50], [40], None), ([0], [], None),
], ids=["once", "the first SYN was lost", "the answer comes twice", "SYN again while the answer was on its way",
        "SYN not seen", "the clock went back", "no answer"])
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two"])
def test_from_the_last_syn_to_its_answer(flows: FlowTable, there: list[int], back: list[int], expected_ms: int | None,
                                         together: bool) -> None:
    syns, answers = [(*SYN_AT, ms) for ms in there], [(*SYN_ACK_AT, ms) for ms in back]
    if together:
        take(flows, syns, answers)
    else:
        for ways in ((syns, []), ([], answers)):
            if any(ways):
                take(flows, *ways)
    expected = 0 if expected_ms is None else expected_ms * 1000
    assert round_trips(flows) == [expected] * len(flows.columns["rtt_us"][flows.visible])


# ---- any segments

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 70_000), st.integers(0, 31), st.integers(0, 9999)),
                min_size=1, max_size=60), st.lists(st.integers(1, 59)))
def test_hostile_numbers_are_counted_no_oftener_than_they_come(segments: list[Segment], cuts: list[int]) -> None:
    flows = FlowTable(TableConfig(idle_timeout_s=3600))
    edges = [0, *sorted({cut for cut in cuts if cut < len(segments)}), len(segments)]
    for start, end in itertools.pairwise(edges):
        take(flows, segments[start:end])
    assert sum(counts(flows)) < len(segments)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=50), st.integers(0, 2**32 - 1),
       st.integers(1, 50))
def test_without_gaps_late_is_what_was_seen_before(steps: list[tuple[int, int]], start: int, size: int) -> None:
    """Against a set of octets: as no segment leaves a gap, one that begins among seen octets was sent again."""
    flows = FlowTable(TableConfig(idle_timeout_s=3600))
    reached, expected, segments = 0, 0, []
    for back, blocks in steps:
        begin = max(0, reached - back * 3)
        expected += begin < reached and begin != reached - 1
        segments.append(data(start + begin, len(segments), blocks * 3))
        reached = max(reached, begin + blocks * 3)
    for first in range(0, len(segments), size):
        take(flows, segments[first:first + size])
    assert counts(flows) == (expected, 0)
