"""What is inside tunnels: the kernel programs against tshark's table, arithmetic, and the file parser."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.model.kinds import Direction, Kind, Tunnel
from tests.kernel import frames as f
from tests.kernel.observer import Books, Observer, SeenFlow
from tests.kernel.test_files_agree import TAGS, file_table, ipv4_packets, ipv6_packets, kernel_table, preceded
from tests.kernel.test_program_wire import (
    CAPTURES,
    TEST_RUN_OCTETS,
    corrected_table,
    ethernet_captures,
    needs_captures,
    read_capture,
    seen_table,
)
from tests.kernel.wire import Wire


@pytest.fixture(scope="module")
def program() -> Iterator[FlowProgram]:
    loaded = compile_program(map_entries=4096, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL, decap=True)
    yield loaded
    loaded.close()


@pytest.fixture
def observer(program: FlowProgram) -> Observer:
    return Observer(program)


def seen(observer: Observer, *frames: bytes, **options: Any) -> Books:
    for frame in frames:
        observer.see(frame, **options)
    books = observer.take(options.get("direction", Direction.INGRESS))
    books.assert_balanced()
    return books


INNER = f.ipv4(f.tcp(443, 50_000, f.ACK, b"x" * 10), f.TCP, source="192.168.0.1", destination="192.168.0.2", tos=8)
INNER_OCTETS = 20 + 20 + 10
FRAME = f.ethernet(f.IPV4, INNER)
INNER6 = f.ipv6(f.udp(1, 2), f.UDP)


def inside(tunnel: Tunnel, tunnel_id: int = 0) -> SeenFlow:
    return SeenFlow("192.168.0.1", "192.168.0.2", 6, 443, 50_000, 1, INNER_OCTETS, tunnel=tunnel, tunnel_id=tunnel_id)


def by_udp(port: int, payload: bytes) -> bytes:
    return f.ipv4(f.udp(7, port, payload), f.UDP)


@pytest.mark.core
@pytest.mark.parametrize(("packet", "tunnel", "tunnel_id"), [
    (by_udp(4789, f.vxlan(42, FRAME)), Tunnel.VXLAN, 42),
    (by_udp(8472, f.vxlan(0xFFFFFF, FRAME)), Tunnel.VXLAN, 0xFFFFFF),
    (by_udp(6081, f.geneve(7, 0x6558, FRAME)), Tunnel.GENEVE, 7),
    (by_udp(6081, f.geneve(7, f.IPV4, INNER, options=bytes(12))), Tunnel.GENEVE, 7),
    (by_udp(6635, f.mpls((5, 6), INNER)), Tunnel.MPLS, 6),
    (by_udp(6635, f.mpls((5,), bytes(4) + FRAME)), Tunnel.MPLS, 5),
    (f.ipv4(f.gre(f.IPV4, INNER), f.GRE), Tunnel.GRE, 0),
    (f.ipv4(f.gre(f.IPV4, INNER, key=9, sequence=1, checksum=True), f.GRE), Tunnel.GRE, 9),
    (f.ipv4(f.gre(0x6558, FRAME, key=2**32 - 1), f.GRE), Tunnel.GRE, 2**32 - 1),
    (f.ipv4(f.gre(0x8847, f.mpls((16, 17, 18), INNER)), f.GRE), Tunnel.MPLS, 18),
    (f.ipv4(f.gre(0x88BE, FRAME), f.GRE), Tunnel.ERSPAN, 0),
    (f.ipv4(f.gre(0x88BE, f.erspan2(1023, FRAME), sequence=3), f.GRE), Tunnel.ERSPAN, 1023),
    (f.ipv4(f.gre(0x22EB, f.erspan3(5, FRAME), sequence=3), f.GRE), Tunnel.ERSPAN, 5),
    (f.ipv4(f.gre(0x22EB, f.erspan3(5, FRAME, platform=True), sequence=3), f.GRE), Tunnel.ERSPAN, 5),
    (f.ipv4(INNER, f.IPIP), Tunnel.IP, 0),
    (f.ipv4(f.gre(f.IPV4, f.ipv4(f.gre(f.IPV4, INNER, key=2), f.GRE), key=1), f.GRE), Tunnel.GRE, 2),
])
def test_what_is_inside_is_counted_and_what_carries_it_beside_it(
        observer: Observer, packet: bytes, tunnel: Tunnel, tunnel_id: int) -> None:
    books = seen(observer, f.ethernet(f.IPV4, packet, tags=((f.VLAN, 9),)))
    assert books.flows == [inside(tunnel, tunnel_id)]
    assert (books.flows[0].tos, books.flows[0].tcp_bits) == (8, f.ACK)
    [parent] = books.parents
    assert (parent.source, parent.destination, parent.vlan_id, parent.packets, parent.octets) == (
        "10.0.0.1", "10.0.0.2", 9, 1, len(packet))
    assert books.total("encapsulation_octets") == len(packet) - INNER_OCTETS
    with_ethernet = FRAME in packet
    macs = (f.SOURCE_MAC, f.DESTINATION_MAC) if with_ethernet else (bytes(6), bytes(6))
    assert (books.flows[0].source_mac, books.flows[0].destination_mac) == macs
    assert (parent.source_mac, parent.destination_mac) == (f.SOURCE_MAC, f.DESTINATION_MAC)


@pytest.mark.core
@pytest.mark.parametrize("packet", [
    by_udp(4789, f.vxlan(42, f.ethernet(f.ARP, bytes(28)))),
    by_udp(4789, f.vxlan(42, FRAME, flags=0)),
    by_udp(6081, f.geneve(7, f.IPV4, INNER, version=1)),
    by_udp(6635, f.mpls(tuple(range(13)), INNER)),
    by_udp(4789, f.vxlan(42, FRAME[:-1])),
    f.ipv4(f.gre(0x880B, INNER, version=1), f.GRE),
    f.ipv4(f.gre(f.IPV4, b""), f.GRE),
    f.ipv4(INNER[:19], f.IPIP),
    f.ipv4(INNER, f.IPIP, more=True),
])
def test_what_is_no_whole_ip_packet_inside_stays_the_outer_flow(observer: Observer, packet: bytes) -> None:
    books = seen(observer, f.ethernet(f.IPV4, packet))
    [flow] = books.flows
    assert (flow.source, flow.octets, flow.tunnel, flow.kind) == ("10.0.0.1", len(packet), Tunnel.NONE, Kind.FLOW)
    assert (books.parents, books.total("encapsulation_octets")) == ([], 0)


@pytest.mark.core
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("wire_len", [0, 9_000])
def test_super_packets_in_tunnels_are_exact(observer: Observer, direction: Direction, wire_len: int) -> None:
    """Each segment on the wire: outer IP, UDP, VXLAN, inner Ethernet, IP and TCP headers, and 500 octets."""
    segments, size = 5, 500
    inner = f.ipv4(f.tcp(443, 50_000, f.ACK, bytes(segments * size), options=bytes(12)), f.TCP)
    packet = by_udp(4789, f.vxlan(1, f.ethernet(f.IPV4, inner)))
    frame = f.ethernet(f.IPV4, packet)
    books = seen(observer, frame, direction=direction, gso_size=size, gso_segs=segments,
                 wire_len=wire_len or len(frame))
    [flow], [parent] = books.flows, books.parents
    assert (flow.packets, flow.octets) == (segments, segments * (20 + 32 + size))
    assert (parent.packets, parent.octets) == (segments, segments * (20 + 8 + 8 + 14 + 20 + 32 + size))


def test_datagrams_to_be_cut_are_no_tunnels_super_packet(observer: Observer) -> None:
    """Each segment has a UDP header and a whole VXLAN frame of its own: a program's doing, sent in one go."""
    payload = f.vxlan(1, FRAME)
    packet = by_udp(4789, 3 * payload)
    books = seen(observer, f.ethernet(f.IPV4, packet), gso_size=len(payload), gso_segs=3)
    [flow] = books.flows
    assert (flow.destination_port, flow.packets, flow.octets) == (4789, 3, 3 * (28 + len(payload)))


def test_a_map_without_room_leaves_parents_out_and_keeps_the_books(observer: Observer) -> None:
    for number in range(5000):
        observer.see(f.ethernet(f.IPV4, by_udp(4789, f.vxlan(number, FRAME))))
    books = observer.take()
    books.assert_balanced()
    assert sum(flow.packets for flow in books.flows + books.aggregates) == 5000
    assert all(flow.kind is Kind.AGGREGATE for flow in books.aggregates)


def check(name: str, books: Books) -> None:
    """Innermost flows are tshark's, and parents are what the outer table has more of."""
    books.assert_balanced()
    innermost, outer = corrected_table(name, "innermost"), corrected_table(name, "outer")
    assert seen_table(books) == innermost, name
    carrying: defaultdict[Any, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for parent in books.parents:
        key = (parent.source, parent.destination, parent.protocol, parent.source_port, parent.destination_port)
        carrying[key] = carrying[key][0] + parent.packets, carrying[key][1] + parent.octets
    as_they_were = {flow: innermost.get(flow, (0, 0)) for flow in outer}
    assert dict(carrying) == {
        flow: (packets - as_they_were[flow][0], octets - as_they_were[flow][1])
        for flow, (packets, octets) in outer.items() if packets > as_they_were[flow][0]}, name


@needs_captures
@pytest.mark.parametrize("name", ethernet_captures() or ["none"])
def test_captures_give_the_innermost_flows_tshark_gives(observer: Observer, name: str) -> None:
    _, frames = read_capture(CAPTURES / name)
    if max(map(len, frames)) > TEST_RUN_OCTETS:
        pytest.skip("shared/data: frames too large for a test run; they go over the veth below")
    check(name, seen(observer, *frames))


@needs_captures
def test_captures_replayed_over_a_veth_give_the_same_tables(observer: Observer) -> None:
    """All of them over one wire: a wire takes a while until it carries."""
    if not bpf.tcx_supported(observer.program.programs["flow_ingress"]):
        pytest.skip("needs TCX (Linux 6.6) to attach without leaving anything")
    with Wire(observer) as wire:
        for name in ethernet_captures():
            _, frames = read_capture(CAPTURES / name)
            wire.send(*frames)
            check(name, wire.take(Direction.INGRESS, len(frames)))


# ---- the file parser

IP_PACKETS = st.one_of(ipv4_packets(), ipv6_packets())
OPTIONAL = st.none() | st.integers(0, 2**32 - 1)


@st.composite
def frames_inside(draw: st.DrawFn, packet: tuple[int, bytes]) -> bytes:
    inside = draw(st.one_of(st.just(packet), preceded(packet)))
    return f.ethernet(*inside, tags=tuple(draw(TAGS)), pad=draw(st.sampled_from([0, 60])))


@st.composite
def by_gre(draw: st.DrawFn, packet: tuple[int, bytes]) -> bytes:
    key, sequence, checksum = draw(OPTIONAL), draw(OPTIONAL), draw(st.booleans())
    frame = draw(frames_inside(packet))
    kind, payload = draw(st.sampled_from([
        packet, (0x6558, frame), (0x8847, f.mpls(tuple(draw(st.lists(st.integers(0, 2**20 - 1), min_size=1,
                                                                     max_size=9))), packet[1])),
        (0x88BE, f.erspan2(draw(st.integers(0, 1023)), frame) if sequence is not None else frame),
        (0x22EB, f.erspan3(draw(st.integers(0, 1023)), frame, platform=draw(st.booleans())))]))
    return f.gre(kind, payload, key=key, sequence=sequence, checksum=checksum)


@st.composite
def by_port(draw: st.DrawFn, packet: tuple[int, bytes]) -> bytes:
    frame, vni = draw(frames_inside(packet)), draw(st.integers(0, 2**24 - 1))
    port, payload = draw(st.sampled_from([
        (4789, f.vxlan(vni, frame)), (8472, f.vxlan(vni, frame)), (6081, f.geneve(vni, 0x6558, frame)),
        (6081, f.geneve(vni, *packet, options=bytes(4 * draw(st.integers(0, 63))))),
        (6635, f.mpls((vni >> 4, 3), packet[1])), (6635, f.mpls((vni >> 4,), bytes(4) + frame))]))
    return f.udp(draw(st.integers(0, 65535)), port, payload)


@st.composite
def tunnelled(draw: st.DrawFn) -> bytes:
    """A frame with up to five tunnels in one another, perhaps damaged behind its outermost addresses."""
    packet = draw(IP_PACKETS)
    for number in range(draw(st.integers(1, 5))):
        kind, make = draw(st.sampled_from([(f.GRE, by_gre), (f.UDP, by_port), (0, None)]))
        payload = draw(make(packet)) if make else packet[1]
        kind = kind or (f.IPIP if packet[0] == f.IPV4 else f.IN_IPV6)
        build: Callable[..., bytes] = draw(st.sampled_from([f.ipv4, f.ipv6]))
        addresses = {} if build is f.ipv6 else {"source": f"10.9.0.{number}", "destination": "10.9.1.1"}
        packet = (f.IPV4 if build is f.ipv4 else f.IPV6), build(payload, kind, **addresses)
    packet = draw(st.one_of(st.just(packet), preceded(packet)))
    frame = bytearray(f.ethernet(*packet, tags=tuple(draw(TAGS)[:2])))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        at = draw(st.integers(54, max(54, len(frame) - 1)))
        frame[at:at + 1] = bytes([draw(st.integers(1, 255))])
    return bytes(frame)


@settings(max_examples=int(os.environ.get("DECAP_EXAMPLES", "80")), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(frames=st.lists(tunnelled(), min_size=1, max_size=5))
def test_kernel_and_file_parser_agree(program: FlowProgram, frames: list[bytes]) -> None:
    flows, ignored, counters, malformed = kernel_table(Observer(program), frames)
    kept = [frame for frame, bad in zip(frames, malformed, strict=True) if not bad]
    assert file_table(kept, decap=True) == (flows, ignored, counters)
