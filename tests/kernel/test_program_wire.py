"""Real skbs: non-linear ones, stumps that test runs refuse, and capture files against an independent flow table."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.model.kinds import Direction, Kind
from tests.kernel import frames as f
from tests.kernel.observer import Books, Observer, SeenFlow
from tests.kernel.wire import Tunnel, Wire

CAPTURES = Path(__file__).parents[2].parent / "shared" / "data" / "pcap"
EXPECTED = CAPTURES / "expected.json"
NOT_ETHERNET = "link-type-12.pcap"
"""Says Ethernet, holds an IPv4 packet of a device without link header: tshark's table of it is empty."""
LYING = {"ntp-corrupted.pcap": 32}
"""Octets of the packet whose length is larger than the frame: tshark adds up what the header says, and calls it wrong
("IPv4 total length exceeds packet length (32 bytes)")."""
TEST_RUN_OCTETS = 3000
"""A test run takes what fits into one page with its room to spare."""


@pytest.fixture(scope="module")
def program() -> Iterator[FlowProgram]:
    loaded = compile_program(map_entries=4096, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)
    yield loaded
    loaded.close()


@pytest.fixture
def observer(program: FlowProgram) -> Observer:
    return Observer(program)


@pytest.fixture
def wire(observer: Observer) -> Iterator[Wire]:
    if not bpf.tcx_supported(observer.program.programs["flow_ingress"]):
        pytest.skip("needs TCX (Linux 6.6) to attach without leaving anything")
    with Wire(observer) as ready:
        yield ready


@pytest.mark.parametrize("direction", Direction)
class TestRealPackets:
    @pytest.mark.parametrize("linear", [14, 20, 40, 56])
    def test_headers_outside_the_linear_part_are_read(self, wire: Wire, direction: Direction, linear: int) -> None:
        packets = [f.ethernet(f.IPV4, f.ipv4(f.tcp(443, 51514, f.PSH, bytes(6000)), f.TCP, options=bytes(8))),
                   f.ethernet(f.IPV6, f.ipv6(f.extension(f.UDP) + f.udp(1, 2, bytes(6000)), f.DESTINATION_OPTIONS),
                              tags=((f.VLAN, 7),))]
        wire.send(*packets, linear=linear)
        books = wire.take(direction, 2)
        books.assert_balanced()
        at = {"direction": direction, "ifindex": wire.ifindex[direction]}
        tagged, plain = sorted(books.flows, key=lambda flow: -flow.vlan_id)
        assert plain == SeenFlow("10.0.0.1", "10.0.0.2", 6, 443, 51514, 1, 28 + 6020, **at)  # type: ignore[arg-type]
        assert tagged == SeenFlow("2001:db8::1", "2001:db8::2", 17, 1, 2, 1, 40 + 8 + 6008, vlan_id=7,
                                  **at)  # type: ignore[arg-type]
        assert (plain.tcp_bits, plain.source_mac) == (f.PSH, f.SOURCE_MAC)

    def test_qinq_has_the_same_tags_at_both_ends(self, wire: Wire, direction: Direction) -> None:
        """At ingress the kernel has moved the outer tag into metadata; at egress it is still in the frame."""
        frame = f.ethernet(f.IPV4, f.ipv4(f.udp(1, 2), f.UDP), tags=((f.SERVICE_VLAN, 100), (f.VLAN, 200)))
        wire.send(frame)
        books = wire.take(direction, 1)
        books.assert_balanced()
        [flow] = books.flows
        assert (flow.vlan_id, flow.customer_vlan_id, flow.octets) == (100, 200, 28)
        stripped = 1 if direction is Direction.INGRESS else 0
        assert books.total("vlan_stripped_frames") == stripped
        assert books.total("frame_octets") == len(frame) - 4 * stripped

    @pytest.mark.parametrize("packet", [b"", f.ipv4(b"", f.UDP)[:19], f.ipv4(b"", f.UDP)[:1]])
    @pytest.mark.parametrize("ethertype", [f.IPV4, f.IPV6])
    def test_stumps_are_malformed(self, wire: Wire, direction: Direction, ethertype: int, packet: bytes) -> None:
        wire.send(f.ethernet(ethertype, packet))
        books = wire.take(direction, 1)
        books.assert_balanced()
        assert (books.flows, books.ignored()) == ([], {"malformed": (1, len(packet))})


def read_capture(path: Path) -> tuple[int, list[bytes]]:
    """Link type and frames of a pcap file, each as long as it was on the wire.

    The kernel always sees whole frames; what the capture's snap length cut off is payload, given back as zeros.
    """
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    (link,) = struct.unpack_from(f"{order}I", data, 20)
    frames, at = [], 24
    while at < len(data):
        captured, length = struct.unpack_from(f"{order}II", data, at + 8)
        frames.append(data[at + 16:at + 16 + captured] + bytes(max(0, length - captured)))
        at += 16 + captured
    return link, frames


def corrected_table(name: str, part: str) -> dict[tuple[Any, ...], tuple[int, int]]:
    """A part of tshark's table of a capture, with the octets that are there where a header says more."""
    table = expected_table(json.loads(EXPECTED.read_text())[name][part])
    return {key: (packets, LYING.get(name, octets)) for key, (packets, octets) in table.items()}


def expected_table(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """tshark's table, with later fragments (ports null) moved to the first fragment's row: the one that has ports.

    The captures hold one fragmented packet between each pair of hosts and protocol, and only one row it can be.
    """
    table: defaultdict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows:
        key = (row["src"], row["dst"], row["proto"], row["sport"], row["dport"])
        if row["sport"] is None:
            [key] = [(other["src"], other["dst"], other["proto"], other["sport"], other["dport"]) for other in rows
                     if (other["src"], other["dst"], other["proto"]) == key[:3] and other["sport"] is not None]
        packets, octets = table[key]
        table[key] = (packets + row["packets"], octets + row["octets"])
    return dict(table)


def seen_table(books: Books) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Our flows in the same shape, VLANs put together."""
    table: defaultdict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for flow in books.flows:
        assert flow.kind is Kind.FLOW
        packets, octets = table[flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port]
        table[flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port] = (
            packets + flow.packets, octets + flow.octets)
    return dict(table)


def ethernet_captures() -> list[str]:
    """Captures of the table whose link type is Ethernet (1)."""
    if not EXPECTED.exists():
        return []
    return [name for name in sorted(json.loads(EXPECTED.read_text())) if read_capture(CAPTURES / name)[0] == 1]


needs_captures = pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")


def check(name: str, books: Books, frames: int) -> None:
    """The books of that capture's frames."""
    books.assert_balanced()
    assert seen_table(books) == corrected_table(name, "outer"), name
    assert books.total("frames") == frames, name
    assert books.total("lying_lengths") == (name in LYING), name


@needs_captures
@pytest.mark.parametrize("name", ethernet_captures() or ["none"])
def test_captures_give_the_flow_table_tshark_gives(observer: Observer, name: str) -> None:
    _, frames = read_capture(CAPTURES / name)
    if max(map(len, frames)) > TEST_RUN_OCTETS:
        pytest.skip("shared/data: frames too large for a test run; they go over the veth below")
    for frame in frames:
        observer.see(frame)
    check(name, observer.take(), len(frames))


@needs_captures
def test_captures_replayed_over_a_veth_give_the_same_tables(wire: Wire) -> None:
    """All of them over one wire: a wire takes a while until it carries."""
    for name in ethernet_captures():
        _, frames = read_capture(CAPTURES / name)
        wire.send(*frames)
        check(name, wire.take(Direction.INGRESS, len(frames)), len(frames))


@needs_captures
def test_a_packet_of_a_device_without_link_header_is_read_from_one(observer: Observer) -> None:
    if not bpf.tcx_supported(observer.program.programs["flow_ingress"]):
        pytest.skip("needs TCX (Linux 6.6) to attach without leaving anything")
    _, [packet] = read_capture(CAPTURES / NOT_ETHERNET)
    with Tunnel(observer) as tunnel:
        tunnel.bring(packet)
        books = tunnel.take(1)
    books.assert_balanced()
    [flow] = books.flows
    assert (flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port, flow.packets,
            flow.octets) == ("10.171.169.243", "192.168.255.1", 6, 10250, 41252, 1, 256), "its header says 0x576"
    assert books.total("lying_lengths") == 1
