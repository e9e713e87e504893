"""IPFIX over TCP in captures: whatever order the segments come in, messages come out; gaps are told."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.capture.files import streams as module
from flowtop.capture.files.streams import Piece, Segment, Streams
from tests.unit.capture.collector.exports import ipfix, set_of

KEY = ("192.0.2.1:50000", "192.0.2.2:4739")
MESSAGES = [ipfix(set_of(256, bytes([number]) * (10 + number * 7)), sequence=number) for number in range(30)]
STREAM = b"".join(MESSAGES)
SYN, RST, ACK = 0x02, 0x04, 0x10


def segments(start: int, cuts: list[int], syn: bool = True) -> list[Segment]:
    """The stream cut at these places; `start` is the sequence number of its SYN."""
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    found = [Segment(KEY, (start + 1 + low) % 2**32, ACK, STREAM[low:high])
             for low, high in pairwise(edges)]
    return [Segment(KEY, start, SYN, b""), *found] if syn else found


def read(given: list[Segment]) -> list[Piece]:
    streams = Streams()
    return [piece for segment in given for piece in streams.take(segment)] + list(streams.end())


@settings(max_examples=80, deadline=None)
@given(start=st.sampled_from([0, 7, 2**32 - 1, 2**32 - 500, 2**31 - 300]),
       cuts=st.lists(st.integers(1, len(STREAM) - 1), max_size=40), seed=st.integers(0, 1000), ahead=st.integers(0, 12))
def test_segments_may_come_late_twice_and_overlapping(start: int, cuts: list[int], seed: int, ahead: int) -> None:
    rng = random.Random(seed)
    first, *rest = segments(start, cuts)
    rest += rng.choices(rest, k=5)
    low = rng.randrange(len(STREAM))
    rest.append(Segment(KEY, (start + 1 + low) % 2**32, ACK, STREAM[low:low + 200]))
    rest.sort(key=lambda segment: (segment.sequence - start) % 2**32 // 100 + rng.randrange(ahead + 1))
    assert read([first, *rest]) == [Piece(KEY, message, False) for message in MESSAGES]


def test_a_capture_that_begins_in_the_middle_begins_with_the_next_message() -> None:
    edge = len(b"".join(MESSAGES[:5]))
    found = read(segments(7, [edge - 11, edge], syn=False)[1:])
    assert [piece.octets for piece in found] == MESSAGES[5:]


def test_a_gap_is_told_and_reading_goes_on_behind_it() -> None:
    edges = [len(b"".join(MESSAGES[:number])) for number in (5, 6, 8)]
    given = segments(7, [*edges, edges[0] - 9])
    del given[2]  # the last 9 octets of message 5
    found = read(given)
    assert [piece.octets for piece in found] == [*MESSAGES[:4], MESSAGES[4][:-9], *MESSAGES[5:]]
    assert [piece.gap for piece in found].index(True) == 5 and sum(piece.gap for piece in found) == 1


def test_what_is_no_message_in_the_middle_is_given_as_it_is() -> None:
    given = [*segments(0, []), Segment(KEY, 1 + len(STREAM), ACK, b"GET / HTTP/1.1"),
             Segment(KEY, 1 + len(STREAM) + 14, ACK, MESSAGES[0])]
    assert [piece.octets for piece in read(given)] == [*MESSAGES, b"GET / HTTP/1.1", MESSAGES[0]]


@pytest.mark.parametrize("syn", [True, False])
def test_other_protocols_give_nothing(syn: bool) -> None:
    http = [Segment(KEY, 1, ACK, b"GET / HTTP/1.1\r\n\r\n"), Segment(KEY, 19, ACK, MESSAGES[0])]
    found = read([Segment(KEY, 0, SYN, b""), *http] if syn else http[:1])
    assert found == []


def test_a_connection_that_begins_anew_is_another_stream() -> None:
    half = segments(100, [50])[:2]
    found = read([*half, *segments(9_000_000, []), Segment(KEY, 1, RST, b"")])
    assert [piece.octets for piece in found] == [STREAM[:len(MESSAGES[0])], STREAM[len(MESSAGES[0]):50], *MESSAGES]


def test_hostile_streams_cannot_grow_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 8)
    streams = Streams()
    rng = random.Random(1)
    tracemalloc.start()
    try:
        for number in range(4_000):
            key = (f"192.0.2.1:{number % 40}", "x")
            for _ in streams.take(Segment(key, 0, SYN, b"")) if number < 40 else ():
                pass
            for _ in streams.take(Segment(key, rng.randrange(2, 2**31), ACK, rng.randbytes(1400))):
                pass
        assert tracemalloc.get_traced_memory()[1] < 8 * (module.MAX_WAITING_OCTETS + 300_000)
    finally:
        tracemalloc.stop()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([ACK, SYN, RST, SYN | ACK]),
                          st.integers(0, len(STREAM)), st.integers(0, 300), st.booleans()), max_size=40))
def test_any_segments_end_in_pieces(given: list[tuple[int, int, int, int, bool]]) -> None:
    found = read([Segment(KEY, sequence, flags, STREAM[at:at + length] if mine else bytes(length))
                  for sequence, flags, at, length, mine in given])
    assert sum(len(piece.octets) for piece in found) <= sum(length for _, _, _, length, _ in given)
