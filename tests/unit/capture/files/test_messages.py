"""Export messages in captures: datagrams in fragments, streams among other TCP services, and what is no export.

What is expected are the messages that the test itself put into the packets.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.capture.files import datagrams as module
from flowtop.capture.files.datagrams import MISSING, OVERLAPPING, Datagram, Packets
from flowtop.capture.files.messages import Payload, read_payloads
from flowtop.capture.files.octets import OctetStream
from flowtop.model.kinds import IpVersion
from tests.kernel import frames as f
from tests.unit.capture.collector.exports import ipfix, set_of
from tests.unit.capture.files import writers as w

MESSAGE = ipfix(set_of(256, bytes(range(256)) * 16))
SECOND = w.SECOND


def fragments(payload: bytes, version: int, cuts: Sequence[int], identification: int = 7) -> list[bytes]:
    """The IP packets of a UDP datagram, cut at these multiples of 8."""
    content = f.udp(5000, 4739, payload)
    edges = [0, *cuts, len(content)]
    packets = []
    for low, high in itertools.pairwise(edges):
        packets.append(packet(content[low:high], version, low, high < len(content), identification))
    return packets


def packet(part: bytes, version: int, offset: int, more: bool, identification: int = 7) -> bytes:
    """One fragment of a datagram."""
    if version == IpVersion.V4:
        return f.ipv4(part, f.UDP, identification=identification, offset=offset, more=more)
    return f.ipv6(f.fragment_header(f.UDP, identification, offset=offset, more=more) + part, f.FRAGMENT)


def take(packets: Sequence[bytes], version: int, step_ns: int = 1) -> list[tuple[bytes, str]]:
    """The datagrams in packets, with what is wrong with them."""
    joiner = Packets()
    found = [content for number, octets in enumerate(packets)
             for content in joiner.take(octets, version, 0, number * step_ns)] + list(joiner.end())
    return [(content.octets, content.damage) for content in found if isinstance(content, Datagram)]


VERSIONS = pytest.mark.parametrize("version", [IpVersion.V4, IpVersion.V6])


@VERSIONS
@settings(max_examples=60, deadline=None)
@given(cuts=st.sets(st.integers(1, len(MESSAGE) // 8), max_size=12), seed=st.integers(0, 1000), twice=st.booleans())
def test_fragments_in_any_order_give_the_datagram_once(version: int, cuts: set[int], seed: int, twice: bool) -> None:
    packets = fragments(MESSAGE, version, sorted(8 * cut for cut in cuts))
    random.Random(seed).shuffle(packets)
    if twice and len(packets) > 1:
        packets[1:1] = packets[:1]
    assert take(packets, version) == [(MESSAGE, "")]


@VERSIONS
def test_fragments_of_several_datagrams_are_kept_apart(version: int) -> None:
    messages = [ipfix(set_of(256, bytes([number]) * 3000)) for number in range(5)]
    packets = [fragments(octets, version, [1480, 2960], number) for number, octets in enumerate(messages)]
    mixed = [one for together in zip(*packets, strict=True) for one in together]
    assert take(mixed, version) == [(octets, "") for octets in messages]


@VERSIONS
@pytest.mark.parametrize("left_out", [1, 2])
def test_a_fragment_that_is_missing_is_told(version: int, left_out: int) -> None:
    packets = fragments(MESSAGE, version, [1480, 2960])
    del packets[left_out]
    assert take(packets, version) == [(MESSAGE[:1480 * left_out - 8], MISSING)]


@VERSIONS
def test_later_fragments_alone_are_no_datagram(version: int) -> None:
    assert take(fragments(MESSAGE, version, [1480, 2960])[1:], version) == []


@VERSIONS
def test_an_identification_that_is_used_again_is_another_datagram(version: int) -> None:
    first, second = fragments(MESSAGE, version, [1480]), fragments(MESSAGE[::-1], version, [1480])
    joiner = Packets()
    found = [content for octets, time_ns in ((first[0], 0), (second[0], 31 * SECOND), (second[1], 32 * SECOND))
             for content in joiner.take(octets, version, 0, time_ns)]
    assert [(content.octets, content.damage) for content in found if isinstance(content, Datagram)] == [
        (MESSAGE[:1472], MISSING), (MESSAGE[::-1], "")]


@pytest.mark.parametrize(("start", "end"), [(1472, 1600), (1488, 2000), (8, 1480), (0, 1488), (2952, 4000)])
def test_overlapping_fragments_of_ipv4_count_once_and_the_first_wins(start: int, end: int) -> None:
    content = f.udp(5000, 4739, MESSAGE)
    first, middle, last = fragments(MESSAGE, IpVersion.V4, [1480, 2960])
    hostile = packet(b"\xff" * (end - start), IpVersion.V4, start, True)
    assert take([first, middle, hostile, last], IpVersion.V4)[0][0][:2944] == content[8:2952]


@pytest.mark.parametrize(("start", "end"), [(1472, 1600), (1488, 2000), (8, 1480), (1480, 2960), (0, 1488)])
def test_overlapping_fragments_of_ipv6_give_the_datagram_up(start: int, end: int) -> None:
    first, middle, last = fragments(MESSAGE, IpVersion.V6, [1480, 2960])  # RFC 5722
    hostile = packet(b"\xff" * (end - start), IpVersion.V6, start, True)
    assert take([first, middle, hostile, last], IpVersion.V6) == [(MESSAGE[:1472], OVERLAPPING)]


@VERSIONS
def test_waiting_fragments_are_limited(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PACKETS", 4)
    packets = [fragments(MESSAGE, version, [1480], number)[0] for number in range(100)]
    joiner = Packets()
    found = [content for octets in packets for content in joiner.take(octets, version, 0, 0)]
    assert len(found) == 96 and len(joiner._waiting) == 4 and joiner._octets == 4 * 1480


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 60), st.booleans(),
                          st.sampled_from([4, 6])), max_size=30))
def test_any_fragments_end_in_datagrams_of_bounded_length(given: list[tuple[int, int, int, bool, int]]) -> None:
    joiner = Packets()
    for identification, offset, length, more, version in given:
        octets = packet(b"\0" * length, version, 8 * offset, more, identification)
        for content in joiner.take(octets, version, 0, 0):
            assert isinstance(content, Datagram) and len(content.octets) < 65_536
    list(joiner.end())
    assert joiner._octets == 0


@pytest.mark.parametrize("extensions", [
    f.extension(f.UDP), f.extension(f.UDP, 24), f.authentication(f.UDP)])
def test_extension_headers_before_a_datagram_are_skipped(extensions: bytes) -> None:
    protocol = f.AH if extensions[2:3] == b"\xaa" else f.HOP_BY_HOP
    octets = f.ipv6(extensions + f.udp(1, 4739, MESSAGE), protocol)
    assert take([octets], IpVersion.V6) == [(MESSAGE, "")]


# ---- captures

def payloads(path: Path, packets: Sequence[bytes], link_type: int = 101, head: bytes = b"") -> list[Payload]:
    """The messages in a capture of these IP packets."""
    path.write_bytes(w.pcap([(number * SECOND, head + octets) for number, octets in enumerate(packets)],
                            link_type=link_type))
    stream = OctetStream(str(path))
    try:
        return list(read_payloads(stream))
    finally:
        stream.close()


SLL = struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800)
TAGGED = f.DESTINATION_MAC + f.SOURCE_MAC + struct.pack(">HHH", 0x8100, 7, 0x0800)


@pytest.mark.parametrize(("link_type", "head"), [(101, b""), (113, SLL), (1, TAGGED), (0, struct.pack("<I", 2))])
def test_fragments_on_any_link(link_type: int, head: bytes, tmp_path: Path) -> None:
    found = payloads(tmp_path / "x", fragments(MESSAGE, IpVersion.V4, [1480, 2960])[::-1], link_type, head)
    assert found == [Payload(MESSAGE, "10.0.0.1:5000", "10.0.0.2:4739", True, "", 2 * SECOND)]


def test_a_datagram_that_was_cut_by_the_capture_is_told(tmp_path: Path) -> None:
    whole = f.ipv4(f.udp(1, 4739, MESSAGE[:1000]), f.UDP)
    (tmp_path / "x").write_bytes(w.pcap([(0, whole)], link_type=101, snap=128))
    stream = OctetStream(str(tmp_path / "x"))
    [found] = read_payloads(stream)
    stream.close()
    assert found.octets == MESSAGE[:100] and found.damage == "100 of 1000 octets of this datagram were captured"


DNS = struct.pack(">HHHHHH", 10, 0x0100, 1, 0, 0, 0) + b"\3www\7example\3com\0\0\1\0\1"
OTHERS = {
    "DNS 5": b"\0\5" + DNS[2:], "DNS 9": b"\0\x09" + DNS[2:], "DNS 10": DNS, "TFTP error": b"\0\5\0\1File not found\0",
    "TFTP": b"\0\1boot.img\0octet\0", "RTP": struct.pack(">HHII", 9, 16, 0, 7) + bytes(160),
    "NetFlow 5 without flows": struct.pack(">HHIIIIBBH", 5, 0, 1, 2, 3, 4, 0, 0, 0),
    "sFlow's version": struct.pack(">II", 5, 7) + bytes(40)}


@pytest.mark.parametrize("octets", OTHERS.values(), ids=OTHERS.keys())
def test_other_datagrams_are_no_messages(octets: bytes, tmp_path: Path) -> None:
    assert payloads(tmp_path / "x", [f.ipv4(f.udp(4000, 53, octets), f.UDP)]) == []


def test_exports_are_found_at_any_port_and_damaged_ones_after_whole_ones(tmp_path: Path) -> None:
    def sent(octets: bytes) -> bytes:
        return f.ipv4(f.udp(4000, 31_337, octets), f.UDP)

    broken = MESSAGE[:-7]
    found = payloads(tmp_path / "x", [sent(broken), sent(MESSAGE), sent(broken), sent(DNS[4:])])
    assert [one.octets for one in found] == [MESSAGE, broken]


# ---- streams

def segment(octets: bytes, sequence: int, bits: int = f.ACK, port: int = 5_000, to: int = 8_080) -> bytes:
    """An IPv4 packet with a TCP segment."""
    tcp = struct.pack(">HHIIHHHH", port, to, sequence % 2**32, 1, 5 << 12 | bits, 0xFFFF, 0, 0) + octets
    return f.ipv4(tcp, f.TCP)


MESSAGES = [ipfix(set_of(256, bytes([number]) * (100 + 7 * number)), sequence=number) for number in range(20)]
STREAM = b"".join(MESSAGES)

SERVICES = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "DNS of 10 octets": struct.pack(">H", 10) + DNS * 20,
    "length 10, then zeros": struct.pack(">HH", 10, 64) + bytes(60) * 10,
    "version and length, then text": struct.pack(">HH", 10, 1000) + b"x" * 12 + b"hello, world" * 100,
    "sets that do not add up": struct.pack(">HHIIIHH", 10, 100, 0, 0, 0, 256, 500) + bytes(400),
    "reserved set": struct.pack(">HHIIIHH", 10, 100, 0, 0, 0, 7, 84) + bytes(400)}


@pytest.mark.parametrize("syn", [True, False])
@pytest.mark.parametrize("octets", SERVICES.values(), ids=SERVICES.keys())
def test_other_services_give_nothing(octets: bytes, syn: bool, tmp_path: Path) -> None:
    packets = [segment(b"", 0, f.SYN)] * syn + [segment(octets[at:at + 100], 1 + at)
                                               for at in range(0, len(octets), 100)]
    assert payloads(tmp_path / "x", packets) == []


@pytest.mark.parametrize("to", [4739, 4740, 8080, 514, 443])
@pytest.mark.parametrize("size", [13, 100, 1448, 60_000])
def test_ipfix_is_found_at_any_port(to: int, size: int, tmp_path: Path) -> None:
    packets = [segment(b"", 0, f.SYN, to=to)] + [segment(STREAM[at:at + size], 1 + at, to=to)
                                                for at in range(0, len(STREAM), size)]
    packets[1:1] = [segment(SERVICES["HTTP"], 1, port=port, to=80) for port in range(3000, 3400)]
    assert [one.octets for one in payloads(tmp_path / "x", packets)] == MESSAGES


@pytest.mark.parametrize("start", [1, 99, 116, 500, 1001])
def test_a_capture_that_begins_in_a_message_begins_with_the_next_one(start: int, tmp_path: Path) -> None:
    packets = [segment(STREAM[at:at + 61], 1 + at, to=4739) for at in range(start, len(STREAM), 61)]
    edges = [0, *itertools.accumulate(map(len, MESSAGES))]
    first = next(number for number, edge in enumerate(edges) if edge >= start)
    assert [one.octets for one in payloads(tmp_path / "x", packets)] == MESSAGES[first:]


def test_reading_goes_on_in_the_middle_of_a_segment_after_a_gap(tmp_path: Path) -> None:
    packets = [segment(b"", 0, f.SYN)] + [segment(STREAM[at:at + 150], 1 + at) for at in range(0, len(STREAM), 150)]
    del packets[3]  # octets 300 to 449: the rest of message 2, and the start of message 3
    found = payloads(tmp_path / "x", packets)
    edges = [0, *itertools.accumulate(map(len, MESSAGES))]
    after = next(number for number, edge in enumerate(edges) if edge >= 450)
    assert [one.octets for one in found] == [*MESSAGES[:2], STREAM[edges[2]:300], *MESSAGES[after:]]
    assert [bool(one.damage) for one in found] == [number == 3 for number in range(len(found))]


def test_a_syn_that_is_repeated_is_the_same_connection_and_another_is_not(tmp_path: Path) -> None:
    half = segment(MESSAGES[0][:50], 1)
    again = [segment(b"", 0, f.SYN), half, segment(b"", 0, f.SYN), segment(MESSAGES[0][50:], 51)]
    found = payloads(tmp_path / "x", [*again, segment(b"", 9000, f.SYN), segment(MESSAGES[1], 9001)])
    assert [(one.octets, one.connection) for one in found] == [(MESSAGES[0], 0), (MESSAGES[1], 1)]
