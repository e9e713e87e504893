"""Raw files of datagrams are split where the test put them together."""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.wire.recognition import find_message, is_whole_datagram, split_exports, stream_verdict
from tests.unit.capture.collector import test_sflow as sflow
from tests.unit.capture.collector.exports import ipfix, set_of, template
from tests.unit.wire.test_datagrams import flowset, v5, v5_record, v9

CASES = Path(__file__).parents[4] / "shared" / "data" / "cases"


def old(version: int, count: int) -> bytes:
    """NetFlow 1 (Cisco's table: header of 16 octets), 6 or 7 (24), with records of 52 octets."""
    head = struct.pack(">HHIII", version, count, 60_000, 1_700_000_000, 0)
    return head + bytes(0 if version == 1 else 8) + b"\x01" * 52 * count


NINE = (
    v9(flowset(0, 256, 2, 8, 4, 1, 3)),
    v9(flowset(0, 256, 2, 8, 4, 1, 4), flowset(256, octets=bytes(range(16))), sequence=8),
    v9(flowset(1, 300, 4, 8, 1, 2, 34, 4, 35, 1, 0), flowset(300, octets=bytes(8)), sequence=9),
    v9(flowset(256, octets=b"\0\x09" * 8), sequence=10),
    v9(flowset(256, octets=b"\0\5" * 20), sequence=11),
    v9(flowset(0, 256, 1, 8, 4), sequence=12) + bytes(12),
)
OTHERS = (
    v5(2, v5_record() * 2), v5(30, v5_record() * 30), ipfix(template(256, [(8, 4)]), set_of(256, bytes(8))), ipfix(),
    sflow.datagram(sflow.COUNTERS, sflow.sample(sflow.raw_header(sflow.frame(200)))), sflow.datagram(),
    old(7, 3), old(6, 1))
ALL = (*NINE, *OTHERS)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(range(len(ALL)), repeat=2)))
def test_two_datagrams_of_any_kinds(first: int, second: int) -> None:
    assert split_exports(ALL[first] + ALL[second]) == [ALL[first], ALL[second]]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(ALL), max_size=30))
def test_datagrams_one_after_the_other(datagrams: list[bytes]) -> None:
    assert split_exports(b"".join(datagrams)) == datagrams


@pytest.mark.parametrize("octets", [*ALL[:-3], old(7, 3), old(6, 1), old(1, 2)])
def test_whole_datagrams_are_recognised_and_cut_ones_are_not(octets: bytes) -> None:
    if len(octets) > 28 and octets != OTHERS[3]:
        assert is_whole_datagram(octets)
    assert not is_whole_datagram(octets[:-5]) or octets[-5:] == bytes(5)


@pytest.mark.parametrize("bad", [
    v9(flowset(0, 256, 1, 8, 4), struct.pack(">HH", 256, 3)), v9(struct.pack(">HH", 256, 60_000) + bytes(9)),
    v5(0xFFFF, v5_record()), struct.pack(">HHIII", 10, 9, 1_700_000_000, 0, 0),
    struct.pack(">HHIII", 10, 60_000, 1_700_000_000, 0, 0) + bytes(20)])
@pytest.mark.parametrize("after", [NINE[1], OTHERS[0], OTHERS[2], OTHERS[6]])
def test_damage_costs_one_datagram(bad: bytes, after: bytes) -> None:
    assert split_exports(NINE[0] + bad + after + after) == [NINE[0], bad, after, after]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ALL), min_size=1, max_size=8), st.integers(0, 1000))
def test_any_damage_loses_no_octet(datagrams: list[bytes], seed: int) -> None:
    octets, rng = bytearray(b"".join(datagrams)), random.Random(seed)
    for _ in range(rng.randrange(1, 6)):
        octets[rng.randrange(len(octets))] = rng.randrange(256)
    parts = split_exports(bytes(octets))
    assert b"".join(parts) == octets and all(parts)


@pytest.mark.skipif(not (CASES / "raw-netflow9").is_dir(), reason=f"needs {CASES}")
def test_the_reported_file() -> None:
    assert len(split_exports((CASES / "raw-netflow9" / "two.dat").read_bytes())) == 2  # by its README


@pytest.mark.parametrize(("octets", "verdict"), [
    (b"", None), (b"\0", None), (b"\1", False), (b"\0\x0a\0", None), (b"\0\x0a\0\x0f", False), (ipfix(), None),
    (ipfix(set_of(256, bytes(9))), True), (ipfix(set_of(256, bytes(9)))[:-1], None), (ipfix() + b"GET ", False),
    (ipfix(struct.pack(">HH", 256, 3)), False), (ipfix(set_of(4, bytes(8))), False)])
def test_the_start_of_a_stream(octets: bytes, verdict: bool | None) -> None:
    assert stream_verdict(octets) is verdict


def test_a_message_is_found_among_other_octets() -> None:
    message = ipfix(set_of(256, bytes(30)))
    assert find_message(b"\0\x0a\0\x0a\0" * 9 + message + message) == 45 and find_message(message[1:]) is None
