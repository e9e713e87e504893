"""What the kernel programs make of a frame: Flow Key, packets, octets. Frames are built octet by octet."""

from __future__ import annotations

import ctypes
import ipaddress
import struct
from collections.abc import Iterator

import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.model.kinds import Direction, Kind
from tests.kernel import frames as f
from tests.kernel.observer import Books, Observer, SeenFlow

A4, B4 = "10.0.0.1", "10.0.0.2"
A6, B6 = "2001:db8::1", "2001:db8::2"


@pytest.fixture(scope="module")
def program() -> Iterator[FlowProgram]:
    loaded = compile_program(map_entries=4096, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)
    yield loaded
    loaded.close()


@pytest.fixture
def observer(program: FlowProgram) -> Observer:
    return Observer(program)


def books_of(observer: Observer, *frames: bytes) -> Books:
    """Show the frames at ingress and take the books, which must balance."""
    for frame in frames:
        observer.see(frame)
    books = observer.take()
    books.assert_balanced()
    assert books.total("frames") == len(frames)
    assert books.total("frame_octets") == sum(map(len, frames))
    return books


def flows_of(observer: Observer, *frames: bytes) -> list[SeenFlow]:
    books = books_of(observer, *frames)
    assert books.ignored() == {}
    assert books.aggregates == []
    return books.flows


def v4(payload: bytes, protocol: int, **fields: object) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(payload, protocol, **fields))  # type: ignore[arg-type]


def v6(payload: bytes, next_header: int, **fields: object) -> bytes:
    return f.ethernet(f.IPV6, f.ipv6(payload, next_header, **fields))  # type: ignore[arg-type]


@pytest.mark.core
def test_tcp_over_ipv4(observer: Observer) -> None:
    [flow] = flows_of(observer, v4(f.tcp(443, 51514, f.SYN | f.ACK, b"x" * 100), f.TCP, tos=0xB8, ttl=57))
    assert flow == SeenFlow(A4, B4, 6, 443, 51514, 1, 20 + 20 + 100)
    assert (flow.ip_version, flow.tos, flow.ttl, flow.tcp_bits) == (4, 0xB8, 57, f.SYN | f.ACK)
    assert (flow.source_mac, flow.destination_mac) == (f.SOURCE_MAC, f.DESTINATION_MAC)
    assert flow.first_ns == flow.last_ns > 0


@pytest.mark.core
def test_udp_over_ipv6(observer: Observer) -> None:
    [flow] = flows_of(observer, v6(f.udp(53, 40112, b"x" * 30), f.UDP, traffic_class=0x2E, hop_limit=3,
                                   flow_label=0xFEDCB))
    assert flow == SeenFlow(A6, B6, 17, 53, 40112, 1, 40 + 8 + 30)
    assert (flow.ip_version, flow.tos, flow.ttl, flow.tcp_bits) == (6, 0x2E, 3, 0)


@pytest.mark.parametrize("protocol", [f.UDP, f.DCCP, f.SCTP, f.UDPLITE])
@pytest.mark.parametrize("build", [v4, v6])
def test_protocols_with_ports(observer: Observer, build: object, protocol: int) -> None:
    [flow] = flows_of(observer, build(struct.pack(">HH", 1000, 2000) + bytes(20), protocol))  # type: ignore[operator]
    assert (flow.protocol, flow.source_port, flow.destination_port) == (protocol, 1000, 2000)


@pytest.mark.parametrize("protocol", [47, f.ESP, 89, 255])
def test_protocols_without_ports(observer: Observer, protocol: int) -> None:
    [flow] = flows_of(observer, v4(b"\x11" * 40, protocol))
    assert (flow.protocol, flow.source_port, flow.destination_port) == (protocol, 0, 0)


@pytest.mark.parametrize(("build", "protocol"), [(v4, f.ICMP), (v6, f.ICMPV6)])
def test_icmp_type_and_code(observer: Observer, build: object, protocol: int) -> None:
    [flow] = flows_of(observer, build(f.icmp(3, 4), protocol))  # type: ignore[operator]
    assert (flow.source_port, flow.destination_port) == (0, 3 * 256 + 4)


def test_packets_of_one_flow_add_up(observer: Observer) -> None:
    sizes = [0, 10, 1000]
    books = books_of(observer, *(v4(f.udp(1, 2, bytes(size)), f.UDP) for size in sizes))
    assert books.flows == [SeenFlow(A4, B4, 17, 1, 2, 3, sum(28 + size for size in sizes))]
    assert books.inserted == 1


@pytest.mark.core
@pytest.mark.parametrize(("bits", "opening"), [
    ((f.SYN,), True), ((f.SYN | f.ECE | f.CWR,), True), ((f.SYN | f.ACK,), False), ((f.ACK,), False),
    ((f.SYN, f.ACK), True), ((f.ACK, f.SYN), True), ((f.SYN | f.ACK, f.ACK), False)])
def test_who_opens_a_connection_sends_syn_without_ack(observer: Observer, bits: tuple[int, ...], opening: bool) -> None:
    """Not to be told from the OR of all bits, which has both for both ends."""
    [flow] = flows_of(observer, *(v4(f.tcp(1, 2, control_bits), f.TCP) for control_bits in bits))
    assert flow.opening is opening


@pytest.mark.core
def test_tcp_bits_are_ored(observer: Observer) -> None:
    """PSH beside ACK, and bits that come one packet at a time; the reserved bits of IE 6 too."""
    seen = (f.SYN, f.ACK, f.PSH | f.ACK, f.FIN | f.ACK, f.AE | f.CWR, 0x800)
    [flow] = flows_of(observer, *(v4(f.tcp(1, 2, bits), f.TCP) for bits in seen))
    assert flow.tcp_bits == f.SYN | f.ACK | f.PSH | f.FIN | f.AE | f.CWR | 0x800


def test_ipv4_options_are_skipped(observer: Observer) -> None:
    options = b"\x07\x27\x04" + b"\x11\x22\x33\x44" * 9 + b"\x00"  # record route; its octets would pass for ports
    [flow] = flows_of(observer, v4(f.tcp(443, 51514, f.ACK), f.TCP, options=options))
    assert flow == SeenFlow(A4, B4, 6, 443, 51514, 1, 60 + 20)


def test_padding_is_not_counted_and_not_read(observer: Observer) -> None:
    short = f.ethernet(f.IPV4, f.ipv4(b"", f.UDP), pad=60)
    [flow] = flows_of(observer, short)
    assert flow == SeenFlow(A4, B4, 17, 0, 0, 1, 20), "a UDP header of padding is no UDP header"


@pytest.mark.parametrize(("present", "ports"), [(0, (0, 0)), (3, (0, 0)), (4, (443, 51514)), (13, (443, 51514))])
def test_cut_transport_headers(observer: Observer, present: int, ports: tuple[int, int]) -> None:
    """Ports that are there count; the rest is 0, and the packet is in a flow."""
    [flow] = flows_of(observer, v4(f.tcp(443, 51514, f.ACK)[:present], f.TCP))
    assert (flow.source_port, flow.destination_port) == ports
    assert (flow.octets, flow.tcp_bits) == (20 + present, 0)


class TestExtensionHeaders:
    @pytest.mark.core
    def test_all_kinds_are_walked(self, observer: Observer) -> None:
        chain = (f.extension(f.DESTINATION_OPTIONS, 16) + f.extension(f.ROUTING, 8) + f.extension(f.AH, 24)
                 + f.authentication(135, 28) + f.extension(139, 8) + f.extension(140, 16) + f.extension(f.TCP, 8))
        [flow] = flows_of(observer, v6(chain + f.tcp(443, 51514, f.SYN), f.HOP_BY_HOP))
        assert flow == SeenFlow(A6, B6, 6, 443, 51514, 1, 40 + 16 + 8 + 24 + 28 + 8 + 16 + 8 + 20)
        assert flow.tcp_bits == f.SYN

    def test_the_longest_header_is_walked(self, observer: Observer) -> None:
        [flow] = flows_of(observer, v6(f.extension(f.UDP, 2048) + f.udp(1, 2), f.DESTINATION_OPTIONS))
        assert (flow.protocol, flow.source_port, flow.destination_port) == (17, 1, 2)

    def test_esp_ends_the_chain(self, observer: Observer) -> None:
        [flow] = flows_of(observer, v6(f.extension(f.ESP) + b"\x99" * 32, f.HOP_BY_HOP))
        assert (flow.protocol, flow.source_port, flow.destination_port) == (f.ESP, 0, 0)

    def test_no_next_header_is_protocol_59(self, observer: Observer) -> None:
        flows = flows_of(observer, v6(b"", f.NO_NEXT_HEADER), v6(f.extension(f.NO_NEXT_HEADER), f.HOP_BY_HOP))
        assert flows == [SeenFlow(A6, B6, 59, 0, 0, 2, 40 + 48)]

    def test_a_cut_chain_has_its_last_type_and_no_ports(self, observer: Observer) -> None:
        promised = struct.pack(">BB", f.UDP, 9) + bytes(14)  # says 80 octets, has 16
        [flow] = flows_of(observer, v6(f.extension(f.ROUTING) + promised, f.HOP_BY_HOP))
        assert flow == SeenFlow(A6, B6, f.ROUTING, 0, 0, 1, 40 + 8 + 16)

    def test_ten_headers_are_followed_and_more_are_not(self, observer: Observer) -> None:
        def frame(headers: int) -> bytes:
            chain = f.extension(f.DESTINATION_OPTIONS) * (headers - 1) + f.extension(f.UDP)
            return v6(chain + f.udp(1, 2), f.DESTINATION_OPTIONS)

        assert [(flow.protocol, flow.source_port) for flow in flows_of(observer, frame(9))] == [(17, 1)]
        [endless] = flows_of(observer, frame(30))
        assert (endless.protocol, endless.source_port, endless.destination_port) == (f.DESTINATION_OPTIONS, 0, 0)

    def test_padding_is_no_extension_header(self, observer: Observer) -> None:
        [flow] = flows_of(observer, f.ethernet(f.IPV6, f.ipv6(b"", f.DESTINATION_OPTIONS), pad=90))
        assert flow == SeenFlow(A6, B6, f.DESTINATION_OPTIONS, 0, 0, 1, 40)


class TestFragments:
    @pytest.mark.core
    def test_later_ones_join_the_first(self, observer: Observer) -> None:
        whole = f.udp(5000, 6000, b"\x77" * 3000)
        parts = [v4(whole[at:at + 1480], f.UDP, identification=7, offset=at, more=at + 1480 < len(whole))
                 for at in range(0, len(whole), 1480)]
        books = books_of(observer, *parts)
        assert len(parts) == 3
        assert books.flows == [SeenFlow(A4, B4, 17, 5000, 6000, 3, 3 * 20 + len(whole))]
        assert books.total("unjoined_fragments") == 0

    @pytest.mark.core
    @pytest.mark.parametrize(("age_s", "joins"), [(25, True), (35, False)])
    def test_a_first_of_long_ago_is_another_packets(self, observer: Observer, age_s: int, joins: bool) -> None:
        """IPv4 ids come round again. The map is written by hand: the same first fragment, `age_s` older."""
        observer.see(v4(f.udp(5000, 6000, bytes(100)), f.UDP, identification=7, more=True))
        fragments = observer.program.maps["fragments"]
        key = ipaddress.ip_address(A4).packed.ljust(16, b"\0") + ipaddress.ip_address(B4).packed.ljust(16, b"\0")
        key += struct.pack(">HxxBBxx", 7, f.UDP, 4)
        value = ctypes.create_string_buffer(16)
        assert bpf.map_lookup(fragments, key, ctypes.addressof(value))
        source, destination, protocol, seen_ns = struct.unpack("=HHB3xQ", value.raw)
        assert (source, destination, protocol) == (5000, 6000, f.UDP)
        bpf.map_update(fragments, key, struct.pack("=HHB3xQ", 5000, 6000, f.UDP, (seen_ns - age_s * 10**9) % 2**64))
        observer.see(v4(b"\x55" * 64, f.UDP, identification=7, offset=112))
        books = observer.take()
        books.assert_balanced()
        assert [flow.packets for flow in books.flows if flow.source_port == 5000] == [2 if joins else 1]
        assert books.total("unjoined_fragments") == (not joins)

    def test_icmp_fragments_join_too(self, observer: Observer) -> None:
        flows = flows_of(observer, v4(f.icmp(8, 0, bytes(100)), f.ICMP, identification=9, more=True),
                         v4(bytes(50), f.ICMP, identification=9, offset=104))
        assert flows == [SeenFlow(A4, B4, 1, 0, 8 * 256, 2, 124 + 70)]

    @pytest.mark.parametrize("other", [{"identification": 8}, {"source": "10.0.0.9"}, {"destination": "10.0.0.9"}])
    def test_what_cannot_be_joined_is_said_so(self, observer: Observer, other: dict[str, object]) -> None:
        later: dict[str, object] = {"identification": 7, "offset": 1480} | other
        books = books_of(observer, v4(f.udp(5000, 6000, bytes(100)), f.UDP, identification=7, more=True),
                         v4(b"\x55" * 64, f.UDP, **later))
        [alone] = [flow for flow in books.flows if flow.kind is Kind.FRAGMENT]
        assert (alone.protocol, alone.source_port, alone.destination_port, alone.octets) == (17, 0, 0, 84)
        assert books.total("unjoined_fragments") == 1

    def test_an_id_of_another_protocol_is_another_packet(self, observer: Observer) -> None:
        books = books_of(observer, v4(f.udp(5000, 6000, bytes(100)), f.UDP, identification=7, more=True),
                         v4(b"\x55" * 64, f.TCP, identification=7, offset=1480))
        assert [flow.kind for flow in books.flows if flow.protocol == f.TCP] == [Kind.FRAGMENT]

    @pytest.mark.core
    def test_ipv6_fragments_join_across_the_headers_only_the_first_has(self, observer: Observer) -> None:
        first = f.fragment_header(f.DESTINATION_OPTIONS, 77, offset=0, more=True) + f.extension(f.UDP) + f.udp(5, 6)
        later = f.fragment_header(f.DESTINATION_OPTIONS, 77, offset=16, more=False) + b"\x44" * 40
        flows = flows_of(observer, v6(first, f.FRAGMENT), v6(later, f.FRAGMENT))
        assert flows == [SeenFlow(A6, B6, 17, 5, 6, 2, (40 + 8 + 8 + 8) + (40 + 8 + 40))]

    def test_ipv6_later_fragment_alone(self, observer: Observer) -> None:
        books = books_of(observer, v6(f.fragment_header(f.TCP, 78, offset=1448, more=True) + b"\x44" * 40, f.FRAGMENT))
        assert books.flows == [SeenFlow(A6, B6, 6, 0, 0, 1, 88, Kind.FRAGMENT)]

    def test_an_atomic_fragment_is_a_whole_packet(self, observer: Observer) -> None:
        atomic = f.fragment_header(f.UDP, 79, offset=0, more=False) + f.udp(5, 6)
        later = f.fragment_header(f.UDP, 79, offset=8, more=False) + b"\x44" * 8
        books = books_of(observer, v6(atomic, f.FRAGMENT), v6(later, f.FRAGMENT))
        assert [(flow.kind, flow.source_port) for flow in books.flows] == [(Kind.FRAGMENT, 0), (Kind.FLOW, 5)]


class TestLink:
    DATAGRAM = f.ipv4(f.udp(1, 2), f.UDP)

    @pytest.mark.parametrize("tpid", [f.VLAN, f.SERVICE_VLAN, f.OLD_QINQ])
    def test_a_tag_in_the_frame(self, observer: Observer, tpid: int) -> None:
        [flow] = flows_of(observer, f.ethernet(f.IPV4, self.DATAGRAM, tags=((tpid, 0xE000 | 42),)))
        assert flow == SeenFlow(A4, B4, 17, 1, 2, 1, 28, vlan_id=42)

    @pytest.mark.parametrize("ids", [(8, 10), (8, 10, 20), (8, 10, 20, 30), (8, 10, 20, 30, 40),
                                     (8, *range(10, 100, 10))])
    def test_the_outer_two_of_several_tags(self, observer: Observer, ids: tuple[int, ...]) -> None:
        tags = tuple((f.VLAN, number) for number in ids)
        [flow] = flows_of(observer, f.ethernet(f.IPV6, f.ipv6(f.udp(1, 2), f.UDP), tags=tags))
        assert flow == SeenFlow(A6, B6, 17, 1, 2, 1, 48, vlan_id=8, customer_vlan_id=10)

    def test_vlans_are_told_apart(self, observer: Observer) -> None:
        flows = flows_of(observer, *(f.ethernet(f.IPV4, self.DATAGRAM, tags=((f.VLAN, number),)) for number in (1, 2)))
        assert [flow.vlan_id for flow in flows] == [1, 2]

    def test_ten_tags_are_skipped(self, observer: Observer) -> None:
        [flow] = flows_of(observer, f.ethernet(f.IPV4, self.DATAGRAM, tags=((f.VLAN, 5), (f.VLAN, 6)) * 5))
        assert (flow.vlan_id, flow.customer_vlan_id, flow.octets) == (5, 6, len(self.DATAGRAM))

    def test_eleven_tags_are_not_ip(self, observer: Observer) -> None:
        frame = f.ethernet(f.IPV4, self.DATAGRAM, tags=((f.VLAN, 5),) * 11)
        books = books_of(observer, frame)
        # Of what is no IP, the octets after the link header and its first four tags are counted.
        assert (books.flows, books.ignored()) == ([], {"other": (1, len(frame) - 14 - 16)})

    @pytest.mark.parametrize(("kind", "ethertype"), [("arp", f.ARP), ("llc", 100), ("llc", 0x05FF), ("other", 0x0600),
                                                     ("other", 0x88CC), ("other", 0x8847)])
    @pytest.mark.parametrize("tags", [(), ((f.VLAN, 3),)])
    def test_what_is_not_ip_is_ignored_by_kind(
            self, observer: Observer, kind: str, ethertype: int, tags: tuple[tuple[int, int], ...]) -> None:
        books = books_of(observer, *(f.ethernet(ethertype, bytes(size), tags=tags) for size in (46, 60)))
        assert (books.flows, books.ignored()) == ([], {kind: (2, 106)})

    @pytest.mark.parametrize("packet", [
        pytest.param(f.ipv4(bytes(40), f.UDP, version=5), id="version 5 of IPv4"),
        pytest.param(f.ipv4(bytes(40), f.UDP, ihl=4), id="header of 16 octets"),
        pytest.param(f.ipv4(bytes(8), f.UDP, ihl=15), id="header longer than the packet"),
        pytest.param(f.ipv4(bytes(40), f.UDP, total_length=19), id="length below the header's"),
        pytest.param(f.ipv6(bytes(40), f.UDP, version=4), id="version 4 of IPv6"),
    ])
    def test_malformed_headers(self, observer: Observer, packet: bytes) -> None:
        ethertype = f.IPV6 if len(packet) == 80 else f.IPV4
        books = books_of(observer, f.ethernet(ethertype, packet))
        assert (books.flows, books.ignored()) == ([], {"malformed": (1, len(packet))})

    @pytest.mark.core
    @pytest.mark.parametrize(("packet", "lies"), [
        pytest.param(f.ipv4(f.udp(1, 2, bytes(32)), f.UDP, total_length=0), 0, id="no length: the frame's"),
        pytest.param(f.ipv4(f.udp(1, 2, bytes(32)), f.UDP), 0, id="the frame's length"),
        pytest.param(f.ipv4(f.udp(1, 2, bytes(32)), f.UDP, total_length=61), 1, id="one more than the frame's"),
        pytest.param(f.ipv4(f.udp(1, 2, bytes(32)), f.UDP, total_length=65535), 1, id="much longer"),
        pytest.param(f.ipv4(f.udp(1, 2, bytes(32)), f.UDP, options=bytes(8), total_length=1500), 1, id="options"),
        pytest.param(f.ipv6(f.udp(1, 2, bytes(32)), f.UDP), 0, id="IPv6"),
        pytest.param(f.ipv6(f.udp(1, 2, bytes(32)), f.UDP, payload_length=41), 1, id="IPv6 longer than the frame"),
        pytest.param(f.ipv6(f.udp(1, 2, bytes(32)), f.UDP, payload_length=65535), 1, id="IPv6 much longer"),
        pytest.param(f.ipv6(f.extension(f.UDP) + f.udp(1, 2), f.DESTINATION_OPTIONS, payload_length=999), 1,
                     id="IPv6 with options"),
        pytest.param(f.ipv6(f.extension(f.UDP) + f.udp(1, 2), f.HOP_BY_HOP, payload_length=0), 0, id="jumbogram"),
    ])
    @pytest.mark.parametrize("tags", [(), ((f.VLAN, 3),)])
    def test_a_length_larger_than_the_frame_is_not_believed(
            self, observer: Observer, packet: bytes, lies: int, tags: tuple[tuple[int, int], ...]) -> None:
        """Of that frame, only what there is can have been sent."""
        books = books_of(observer, f.ethernet(f.IPV6 if packet[0] >> 4 == 6 else f.IPV4, packet, tags=tags))
        [flow] = books.flows
        assert (flow.source_port, flow.destination_port, flow.packets, flow.octets) == (1, 2, 1, len(packet))
        assert (books.ignored(), books.total("lying_lengths")) == ({}, lies)

    def test_ports_beyond_the_frame_are_not_read(self, observer: Observer) -> None:
        books = books_of(observer, f.ethernet(f.IPV4, f.ipv4(b"", f.UDP, total_length=1000)))
        [flow] = books.flows
        assert (flow.source_port, flow.destination_port, flow.octets) == (0, 0, 20)
        assert books.total("lying_lengths") == 1

    def test_a_header_longer_than_the_frame_is_malformed_whatever_its_length(self, observer: Observer) -> None:
        packet = f.ipv4(bytes(8), f.UDP, ihl=15, total_length=60)
        books = books_of(observer, f.ethernet(f.IPV4, packet))
        assert (books.flows, books.ignored()) == ([], {"malformed": (1, len(packet))})
        assert books.total("lying_lengths") == 0

    def test_devices_without_link_header_whose_packets_have_one(self, observer: Observer) -> None:
        """As of vti and xfrm. A test run takes the protocol from its EtherType; its octets are not the device's."""
        datagram = f.udp(1, 2, bytes(20))
        observer.see(f.ethernet(f.IPV4, f.ipv4(datagram, f.UDP, source="8.0.0.1")), layer3=True)
        observer.see(f.ethernet(f.IPV6, f.ipv6(datagram, f.UDP, source="2001:db8:86dd::1")), layer3=True)
        observer.see(f.ethernet(f.ARP, f.ipv4(datagram, f.UDP, source="8.6.0.1")), layer3=True)
        books = observer.take()
        books.assert_balanced()
        assert books.flows == [SeenFlow("2001:db8:86dd::1", B6, 17, 1, 2, 1, 68),
                               SeenFlow("8.0.0.1", B4, 17, 1, 2, 1, 48)]
        assert [flow.source_mac + flow.destination_mac for flow in books.flows] == [bytes(12), bytes(12)]
        assert books.ignored() == {"arp": (1, 48)}
        assert books.total("frame_octets") == 48 + 68 + 48


def test_egress_is_another_flow(observer: Observer) -> None:
    frame = v4(f.udp(1, 2), f.UDP)
    observer.see(frame)
    observer.see(frame, direction=Direction.EGRESS)
    assert {flow.direction for flow in observer.take(Direction.EGRESS).flows} == {Direction.INGRESS, Direction.EGRESS}


def echo(kind: int, identifier: int, number: int, octets: int = 40) -> bytes:
    return f.icmp(kind, 0, struct.pack(">HH", identifier, number) + bytes(octets))


@pytest.mark.parametrize(("frames", "expected"), [
    ([v4(echo(8, 4660, 1), f.ICMP)], [(4660, 1)]),
    ([v4(echo(8, 4660, 1), f.ICMP), v4(echo(8, 4660, 2), f.ICMP), v4(echo(8, 7, 9), f.ICMP)], [(4660, 1)]),
    ([v4(echo(0, 0, 0), f.ICMP)], [(0, 0)]),
    ([v6(echo(128, 65_535, 3), f.ICMPV6)], [(65_535, 3)]),
    ([v6(echo(129, 1, 65_535), f.ICMPV6)], [(1, 65_535)]),
    ([v6(f.extension(f.ICMPV6) + echo(128, 5, 6), f.DESTINATION_OPTIONS)], [(5, 6)]),
    ([v4(echo(8, 4660, 1), f.ICMP, options=bytes(8))], [(4660, 1)]),
    ([v4(echo(3, 4660, 1), f.ICMP)], [None]),
    ([v4(echo(128, 4660, 1), f.ICMP)], [None]),
    ([v6(echo(8, 4660, 1), f.ICMPV6)], [None]),
    ([v4(f.icmp(8, 0, b"ab"), f.ICMP)], [None]),
    ([v4(f.udp(8, 2048, bytes(8)), f.UDP)], [None]),
])
def test_the_first_echo_of_a_flow_is_noted(observer: Observer, frames: list[bytes],
                                           expected: list[tuple[int, int] | None]) -> None:
    flows = flows_of(observer, *frames)
    assert [flow.echo for flow in flows] == expected
    assert all(flow.echo_after_ns < 20_000_000 for flow in flows), "within a tick of the coarse clock"


@pytest.mark.parametrize(("frames", "expected"), [
    ([v4(f.udp(1, 2, bytes(24)), f.UDP)], [0]),
    ([v4(f.udp(1, 2, bytes(24)), f.UDP, more=True), v4(bytes(32), f.UDP, offset=32, more=True),
      v4(bytes(8), f.UDP, offset=64)], [3]),
    ([v4(f.udp(1, 2, bytes(24)), f.UDP), v4(f.udp(1, 2, bytes(24)), f.UDP, more=True),
      v4(bytes(32), f.UDP, offset=32), v4(f.udp(1, 2, bytes(24)), f.UDP)], [2]),
    ([v4(bytes(32), f.UDP, offset=32), v4(bytes(32), f.UDP, offset=64)], [2]),
    ([v6(f.fragment_header(f.UDP, 7, offset=0, more=True) + f.udp(1, 2, bytes(24)), f.FRAGMENT),
      v6(f.fragment_header(f.UDP, 7, offset=32, more=False) + bytes(9), f.FRAGMENT)], [2]),
    ([v6(f.fragment_header(f.UDP, 7, offset=0, more=False) + f.udp(1, 2), f.FRAGMENT)], [0]),  # atomic
])
def test_fragments_of_a_flow_are_counted(observer: Observer, frames: list[bytes], expected: list[int]) -> None:
    assert [flow.fragments for flow in flows_of(observer, *frames)] == expected
