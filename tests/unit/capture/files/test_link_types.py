"""Frames of every link type that is read: the packet inside, its octets, its MACs and its direction."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernel import frames as f
from tests.unit.capture.files import links
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read
from tests.unit.packets import packets as packets_of
from tests.unit.packets import write_packets

T = 1_700_000_000 * w.SECOND
PACKETS = {f.IPV4: f.ipv4(f.udp(53, 4_000, bytes(30)), f.UDP),
           f.IPV6: f.ipv6(f.tcp(443, 50_000, f.ACK, bytes(9)), f.TCP)}
KEYS = {f.IPV4: ("10.0.0.1", "10.0.0.2", 17, 53, 4_000), f.IPV6: ("2001:db8::1", "2001:db8::2", 6, 443, 50_000)}


def frames(case: links.Case) -> list[bytes]:
    return [case.head(type_) + packet + case.tail for type_, packet in PACKETS.items()]


@pytest.mark.parametrize("case", links.CASES, ids=lambda case: case.name)
def test_the_packet_in_a_frame(tmp_path: Path, case: links.Case) -> None:
    path = tmp_path / "x"
    path.write_bytes(w.pcap([(T, frame) for frame in frames(case) + [frame for frame, _ in case.other]],
                            link_type=case.link_type))
    found = read(path)
    assert dict(found.flows) == {KEYS[type_]: (1, len(packet)) for type_, packet in PACKETS.items()}
    assert {facts["macs"] for facts in found.facts.values()} == {case.macs}
    assert {facts["direction"] for facts in found.facts.values()} == {int(case.egress)}
    assert {kind: packets for kind, (packets, _) in found.ignored().items()} == Counter(kind for _, kind in case.other)
    assert found.fault == ""


def test_frames_of_many_link_types_in_one_file(tmp_path: Path) -> None:
    parts, expected = [w.section()], defaultdict[tuple[object, ...], list[int]](lambda: [0, 0])
    for number, case in enumerate(links.CASES):
        parts.append(w.interface(link_type=case.link_type, name=f"if{number}"))
        for type_, frame in zip(PACKETS, frames(case), strict=True):
            parts.append(w.enhanced(T // 1000, frame, number=number))
            expected[KEYS[type_]][0] += 1
            expected[KEYS[type_]][1] += len(PACKETS[type_])
    path = tmp_path / "x"
    path.write_bytes(b"".join(parts))
    assert dict(read(path).flows) == {key: tuple(counts) for key, counts in expected.items()}


def test_fragments_of_80211_frames_are_not_taken_for_packets(tmp_path: Path) -> None:
    """The second fragment's body begins anywhere: here with what looks like a SNAP header."""
    frame = links.dot11(sequence=0x11) + links.snap(f.IPV4) + PACKETS[f.IPV4]
    path = tmp_path / "x"
    path.write_bytes(w.pcap([(T, frame)], link_type=105))
    assert (dict(read(path).flows), read(path).ignored()) == ({}, {"other": (1, len(frame))})


def test_a_source_route_of_token_ring_is_skipped(tmp_path: Path) -> None:
    routed = bytes([links.SA[0] | 0x80]) + links.SA[1:]
    frame = b"\x10\x40" + links.DA + routed + b"\x06\x10\x00\x11\x00\x20" + links.snap(f.IPV4) + PACKETS[f.IPV4]
    path = tmp_path / "x"
    path.write_bytes(w.pcap([(T, frame)], link_type=6))
    assert dict(read(path).flows) == {KEYS[f.IPV4]: (1, len(PACKETS[f.IPV4]))}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=st.sampled_from(links.CASES), cut=st.integers(0, 200),
       changes=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=6))
def test_what_is_cut_or_damaged_is_counted(tmp_path: Path, case: links.Case, cut: int,
                                           changes: list[tuple[int, int]]) -> None:
    """`read` asserts that accounted and ignored packets are those of the file."""
    octets = bytearray(frames(case)[0])
    for place, value in changes:
        octets[place % len(octets)] = value
    path = tmp_path / "x"
    path.write_bytes(w.pcap([(T, bytes(octets[:cut])), (T, bytes(octets))], link_type=case.link_type))
    assert read(path).total("packets") == 2


PORTED = [f.ipv4(f.udp(53, 4_000 + number, bytes(17 * number)), f.UDP) for number in range(7)]
SIX = PACKETS[f.IPV6]


def aggregate(*bodies: tuple[int, bytes], head: bytes = b"", tail: bytes = b"") -> bytes:
    """An A-MSDU of packets, each with its EtherType; its subframes but the last begin at multiples of 4."""
    out = head + links.dot11(links.FROM_DS, 8, addresses=(links.DA, links.BSS, links.SA), qos=b"\x80\0")
    for number, (type_, body) in enumerate(bodies):
        subframe = links.subframe(type_, len(body)) + body
        out += subframe + bytes(-len(subframe) % 4 if number < len(bodies) - 1 else 0)
    return out + tail


AGGREGATES: dict[str, tuple[int, bytes, list[bytes], int]] = {
    "one": (105, aggregate((f.IPV4, PORTED[0])), PORTED[:1], 0),
    "two": (105, aggregate((f.IPV4, PORTED[1]), (f.IPV4, PORTED[2])), PORTED[1:3], 0),
    "both versions": (105, aggregate((f.IPV4, PORTED[1]), (f.IPV6, SIX), (f.IPV4, PORTED[3])),
                      [PORTED[1], PORTED[3], SIX], 0),
    "seven": (105, aggregate(*((f.IPV4, packet) for packet in PORTED)), PORTED, 0),
    "arp first": (105, aggregate((f.ARP, bytes(28)), (f.IPV4, PORTED[4])), PORTED[4:5], 1),
    "after radiotap, with a check sequence": (
        127, aggregate((f.IPV4, PORTED[1]), (f.IPV4, PORTED[2]), (f.IPV4, PORTED[3]),
                       head=links.radiotap(b"\x10", 1 << 1), tail=b"\x01\x02\x03\x04"), PORTED[1:4], 0),
    "in ppi": (192, aggregate((f.IPV4, PORTED[5]), (f.IPV6, SIX), head=links.ppi(105)), [PORTED[5], SIX], 0),
    "after prism": (119, aggregate((f.IPV4, PORTED[5]), (f.IPV6, SIX), head=links.prism()), [PORTED[5], SIX], 0),
    "the last one cut": (105, aggregate((f.IPV4, PORTED[1]), (f.IPV4, PORTED[2]))[:26 + 14 + 8 + len(PORTED[1]) + 5],
                         PORTED[1:2], 0),
    "padded": (105, aggregate((f.IPV4, PORTED[0]), tail=bytes(60)), PORTED[:1], 0),
}


@pytest.mark.parametrize("name", AGGREGATES)
def test_every_packet_of_an_aggregate_counts(tmp_path: Path, name: str) -> None:
    link_type, frame, packets, others = AGGREGATES[name]
    path = tmp_path / "x"
    path.write_bytes(w.pcap([(T, frame), (T + 1, frame)], link_type=link_type))
    found = read(path)
    assert dict(found.flows) == {
        KEYS[f.IPV6] if packet is SIX else ("10.0.0.1", "10.0.0.2", f.UDP, 53, 4_000 + PORTED.index(packet)):
        (2, 2 * len(packet)) for packet in packets}
    assert sum(count for count, _ in found.ignored().values()) == 2 * others
    assert found.total("frame_octets") == 2 * len(frame)
    written = tmp_path / "y"
    write_packets(path, written)
    assert [octets for _, _, _, octets in packets_of(written.read_bytes())] == [frame, frame], "each frame once"
