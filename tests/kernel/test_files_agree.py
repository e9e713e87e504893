"""The same frames through the kernel programs and through the file parser give the same table, field by field."""

from __future__ import annotations

import errno
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.capture.files.capture import FileConfig
from tests.kernel import frames as f
from tests.kernel.observer import Observer, SeenFlow
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read

T = 1_700_000_000 * w.SECOND


@pytest.fixture(scope="module")
def program() -> Iterator[FlowProgram]:
    loaded = compile_program(map_entries=4096, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)
    yield loaded
    loaded.close()


PORT = st.sampled_from([0, 53, 443, 50_000])
TRANSPORTS = st.one_of(
    st.builds(lambda a, b, bits, more: (f.TCP, f.tcp(a, b, bits, more)), PORT, PORT, st.integers(0, 511),
              st.binary(max_size=8)),
    st.builds(lambda a, b, more: (f.UDP, f.udp(a, b, more)), PORT, PORT, st.binary(max_size=8)),
    st.builds(lambda kind, code: (f.ICMP, f.icmp(kind, code)), st.integers(0, 255), st.integers(0, 255)),
    st.builds(lambda protocol, kind, more: (protocol, f.icmp(kind, 0, more)), st.sampled_from([f.ICMP, f.ICMPV6]),
              st.sampled_from([0, 8, 128, 129]), st.binary(max_size=12)),
    st.builds(lambda kind, code: (f.ICMPV6, f.icmp(kind, code)), st.integers(0, 255), st.integers(0, 255)),
    st.builds(lambda number, octets: (number, octets),
              st.sampled_from([f.SCTP, f.DCCP, f.UDPLITE, f.ESP, f.TCP, f.UDP, f.ICMP, 47, 255]),
              st.binary(max_size=24)),
)


@st.composite
def ipv4_packets(draw: st.DrawFn) -> tuple[int, bytes]:
    protocol, payload = draw(TRANSPORTS)
    part = draw(st.sampled_from([(0, False), (0, False), (0, True), (8, True), (16, False)]))
    return f.IPV4, f.ipv4(payload, protocol, options=bytes(4 * draw(st.integers(0, 10))), offset=part[0], more=part[1],
                          identification=draw(st.integers(1, 3)), tos=draw(st.integers(0, 255)),
                          ttl=draw(st.integers(0, 255)), source=f"10.0.0.{draw(st.integers(1, 2))}")


@st.composite
def ipv6_packets(draw: st.DrawFn) -> tuple[int, bytes]:
    following, payload = draw(TRANSPORTS)
    for kind in draw(st.lists(st.sampled_from([f.HOP_BY_HOP, f.ROUTING, f.FRAGMENT, f.AH, f.DESTINATION_OPTIONS]),
                              max_size=11) | st.just([f.DESTINATION_OPTIONS] * 10)):
        if kind == f.FRAGMENT:
            offset, more = draw(st.sampled_from([(0, False), (0, True), (8, True), (16, False)]))
            payload = f.fragment_header(following, draw(st.integers(1, 3)), offset=offset, more=more) + payload
        elif kind == f.AH:
            payload = f.authentication(following, 8 + 4 * draw(st.integers(0, 6))) + payload
        else:
            payload = f.extension(following, 8 * draw(st.integers(1, 4))) + payload
        following = kind
    return f.IPV6, f.ipv6(payload, following, traffic_class=draw(st.integers(0, 255)),
                          hop_limit=draw(st.integers(0, 255)))


OTHERS = st.tuples(st.sampled_from([f.ARP, 0x88CC, 46, 0x05FF, f.IPV4, f.IPV6]), st.binary(max_size=60))
TAG = st.tuples(st.sampled_from([f.VLAN, f.SERVICE_VLAN, f.OLD_QINQ]), st.integers(0, 0xFFFF))
TAGS = st.lists(TAG, max_size=5) | st.lists(TAG, max_size=12)


@st.composite
def preceded(draw: st.DrawFn, packet: tuple[int, bytes]) -> tuple[int, bytes]:
    """A packet, perhaps behind labels, PPPoE, a backbone's tag, a pseudowire, or several of them."""
    ethertype, payload = packet
    for kind in draw(st.lists(st.sampled_from(["labels", "session", "backbone", "wire", "tag"]), max_size=4) |
                     st.lists(st.sampled_from(["labels", "session", "backbone", "wire", "tag"]), max_size=8)):
        labels = tuple(draw(st.lists(st.integers(0, 2**20 - 1), min_size=1, max_size=draw(st.sampled_from([3, 13])))))
        if kind == "labels" and ethertype in (f.IPV4, f.IPV6):
            ethertype, payload = draw(st.sampled_from([f.MPLS, f.MPLS_MULTICAST])), f.mpls(labels, payload)
        elif kind == "session" and ethertype in (f.IPV4, f.IPV6, f.MPLS, f.ARP):
            protocol = {f.IPV4: 0x21, f.IPV6: 0x57, f.MPLS: 0x281, f.ARP: 0xC021}[ethertype]
            payload = f.pppoe(draw(st.integers(0, 65535)), protocol, payload, code=draw(st.sampled_from([0, 0, 0, 9])),
                              compressed=protocol < 256 and draw(st.booleans()),
                              version_type=draw(st.sampled_from([0x11, 0x11, 0x11, 0x21])))
            ethertype = f.PPPOE
        elif kind == "backbone":
            payload = f.pbb(draw(st.integers(0, 2**32 - 1)), ethertype, payload, tags=tuple(draw(TAGS)[:2]))
            ethertype = f.PBB
        elif kind == "wire":
            inner = f.ethernet(ethertype, payload, tags=tuple(draw(TAGS)[:2]))
            inner = draw(st.binary(min_size=6, max_size=6)) + inner[6:]
            payload = f.mpls(labels[:3], draw(st.sampled_from([b"", bytes(4), b"\0\0\0\7"])) + inner)
            ethertype = f.MPLS
        elif kind == "tag":
            tag = draw(st.sampled_from([f.VLAN, f.SERVICE_VLAN, f.VLAN_9200]))
            ethertype, payload = tag, struct.pack(">HH", draw(st.integers(0, 0xFFFF)), ethertype) + payload
    return ethertype, payload


@st.composite
def generated_frames(draw: st.DrawFn) -> bytes:
    packet = draw(st.one_of(ipv4_packets(), ipv6_packets(), ipv4_packets(), ipv6_packets(), OTHERS))
    ethertype, payload = draw(st.one_of(st.just(packet), preceded(packet)))
    frame = bytearray(f.ethernet(ethertype, payload, tags=tuple(draw(TAGS)), pad=draw(st.sampled_from([0, 60]))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        at = draw(st.integers(12, max(12, len(frame) - 1)))
        frame[at:at + 1] = bytes([draw(st.integers(0, 255))])
    return bytes(frame[:draw(st.one_of(st.just(len(frame)), st.integers(14, max(14, len(frame)))))])


Table = dict[Any, Any]
COUNTERS = ("unjoined_fragments", "lying_lengths")
Counters = tuple[int, ...]
"""Of COUNTERS."""


def plain(flow: SeenFlow) -> tuple[Any, ...]:
    """The key, as tests/unit/capture/files/reading.py has it."""
    return (flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port, flow.vlan_id,
            flow.customer_vlan_id, flow.kind, flow.tunnel, flow.tunnel_id)


def kernel_table(observer: Observer, frames: list[bytes]) -> tuple[dict[Any, Any], dict[str, tuple[int, int]], Counters,
                                                                    list[bool]]:
    """Flows, ignored by kind, COUNTERS, and which frames the kernel would not run."""
    refused = []
    for frame in frames:
        try:
            observer.see(frame)
            refused.append(False)
        except OSError as error:
            assert error.errno == errno.EINVAL
            refused.append(True)
    books = observer.take()
    books.assert_balanced()
    flows = {
        plain(flow): (flow.packets, flow.octets, flow.tcp_bits | flow.opening << 12, flow.tos, flow.ttl,
                       flow.source_mac + flow.destination_mac, flow.fragments, flow.echo)
        for flow in books.flows + books.parents}
    return flows, books.ignored(), tuple(map(books.total, COUNTERS)), refused


def file_table(frames: list[bytes], *, decap: bool = False) -> tuple[Table, dict[str, tuple[int, int]], Counters]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pcap"
        path.write_bytes(w.pcap([(T, frame) for frame in frames]))
        found = read(path, FileConfig(str(path), decap=decap))
    return ({flow: tuple(facts) for flow, facts in found.table().items()}, found.ignored(),
            tuple(map(found.total, COUNTERS)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture,
                                                                  HealthCheck.too_slow])
@given(frames=st.lists(generated_frames(), min_size=1, max_size=8))
def test_kernel_and_file_parser_agree(program: FlowProgram, frames: list[bytes]) -> None:
    """But for what a test run refuses: less than an IP header, which is malformed (tests/kernel/test_program_wire.py
    sends such stumps)."""
    flows, ignored, counters, refused = kernel_table(Observer(program), frames)
    kept = [frame for frame, bad in zip(frames, refused, strict=True) if not bad]
    assert file_table(kept) == (flows, ignored, counters)
    for frame in (frame for frame, bad in zip(frames, refused, strict=True) if bad):
        assert file_table([frame]) == ({}, {"malformed": (1, _above_link(frame))}, (0, 0))


def _above_link(frame: bytes) -> int:
    """Octets behind the Ethernet header and its tags."""
    at = 12
    while int.from_bytes(frame[at:at + 2], "big") in (f.VLAN, f.SERVICE_VLAN, f.OLD_QINQ):
        at += 4
    return len(frame) - at - 2
