"""IP behind labels, PPPoE sessions, backbone tags and stacks of VLAN tags, in the kernel programs.

The same frames as in files (tests/unit/capture/files/test_headers.py), and super-packets, which only a host has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.filters.filter import compile_filter
from flowtop.filters.kernel import split
from flowtop.model.kinds import Direction, Tunnel
from flowtop.model.tunnel_ports import MOST_PORTS
from tests.kernel import frames as f
from tests.kernel.observer import Books, Observer, SeenFlow
from tests.kernel.wire import Wire
from tests.unit.capture.files.test_headers import (
    ADDED,
    BY_PORT,
    CASES,
    CHANNELS,
    FLOW4,
    LIES,
    NOT_IP,
    OCTETS4,
    OUTER_LIES,
    V4,
    Case,
    frame_of,
)

COARSE = kernel_release() >= COARSE_CLOCK_KERNEL
TEST_RUN_MINIMUM = 14 + 20
"""Octets of a frame: shorter ones, which a test run may refuse, go over the veth."""
IP_SEGMENT = 20 + 20
"""Octets of the IPv4 and TCP headers of a segment."""


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "decap"])
def decap(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def program(decap: bool) -> Iterator[FlowProgram]:
    loaded = compile_program(map_entries=4096, coarse_clock=COARSE, decap=decap)
    yield loaded
    loaded.close()


@pytest.fixture
def observer(program: FlowProgram) -> Observer:
    return Observer(program)


def seen(observer: Observer, frame: bytes, **options: object) -> Books:
    observer.see(frame, **options)  # type: ignore[arg-type]
    books = observer.take(options.get("direction", Direction.INGRESS))  # type: ignore[arg-type]
    books.assert_balanced()
    return books


def flow_of(case: Case, decap: bool, **more: object) -> SeenFlow:
    return SeenFlow(*case.flow, 1, case.octets, vlan_id=case.vlan_ids[0], customer_vlan_id=case.vlan_ids[1],
                    tunnel=case.tunnel if decap else Tunnel.NONE, tunnel_id=case.tunnel_id if decap else 0,
                    **more)  # type: ignore[arg-type]


@pytest.mark.core
@pytest.mark.parametrize("name", CASES)
def test_ip_behind_other_headers_is_counted_as_ip(observer: Observer, decap: bool, name: str) -> None:
    case = CASES[name]
    books = seen(observer, case.frame)
    assert (books.flows, books.parents, books.ignored()) == ([flow_of(case, decap)], [], {})
    assert (books.flows[0].source_mac, books.flows[0].destination_mac) == (f.SOURCE_MAC, f.DESTINATION_MAC)
    assert (books.total("encapsulation_octets"), books.total("lying_lengths")) == (0, 0)


@pytest.mark.core
@pytest.mark.parametrize("name", [name for name, (frame, _) in NOT_IP.items() if len(frame) >= TEST_RUN_MINIMUM])
def test_what_is_not_ip_behind_them_is_ignored(observer: Observer, name: str) -> None:
    frame, octets = NOT_IP[name]
    books = seen(observer, frame)
    assert (books.flows, books.ignored()) == ([], {"other": (1, octets)})


@pytest.mark.core
@pytest.mark.parametrize("name", LIES)
def test_a_length_larger_than_the_frame_is_not_believed(observer: Observer, name: str) -> None:
    frame, octets = LIES[name]
    for _ in range(5):
        observer.see(frame)
    books = observer.take()
    books.assert_balanced()
    assert [(flow.packets, flow.octets) for flow in books.flows] == [(5, 5 * octets)]
    assert books.total("lying_lengths") == 5


def test_the_length_of_an_outer_packet_lies_and_what_it_carries_is_counted(with_ports: Observer) -> None:
    books = seen(with_ports, OUTER_LIES)
    assert books.flows == [SeenFlow(*FLOW4, 1, OCTETS4, tunnel=Tunnel.VXLAN, tunnel_id=1)]
    assert [parent.octets for parent in books.parents] == [len(OUTER_LIES) - 14]
    assert books.total("lying_lengths") == 1


@pytest.mark.parametrize("frame", CHANNELS)
def test_a_control_channel_in_a_tunnel_holds_no_packet(with_ports: Observer, frame: bytes) -> None:
    books = seen(with_ports, frame)
    assert ([flow.octets for flow in books.flows], books.parents) == ([len(frame) - 14], [])


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(("ethertype", "before"), [
    (f.MPLS, f.mpls((16, 17), b"")), (f.PPPOE, f.pppoe(7, f.PPP_IPV4, b"")), (f.PBB, f.pbb(1, f.IPV4, b"")),
    (f.IPV4, b"")])
@pytest.mark.parametrize("length", [None, 0])
def test_super_packets_are_exact(observer: Observer, direction: Direction, ethertype: int, before: bytes,
                                 length: int | None) -> None:
    """IP octets of each segment: its headers and 500 octets; a super-packet may say no length, as BIG TCP does."""
    segments, size = 5, 500
    packet = f.ipv4(f.tcp(443, 50_000, f.ACK, bytes(segments * size)), f.TCP, total_length=length)
    frame = f.ethernet(ethertype, before + packet, tags=((f.VLAN, 3),))
    # What the kernel computes at egress: each further segment repeats all headers from Ethernet on.
    wire_len = len(frame) + (segments - 1) * (14 + 4 + len(before) + IP_SEGMENT)
    books = seen(observer, frame, direction=direction, gso_size=size, gso_segs=segments,
                 wire_len=wire_len if direction is Direction.EGRESS else 0)
    [flow] = books.flows
    assert (flow.packets, flow.octets) == (segments, segments * (IP_SEGMENT + size))
    assert books.total("lying_lengths") == 0


def test_devices_without_link_header(observer: Observer, decap: bool) -> None:
    """MPLS on a PPP or GRE device. A test run has an Ethernet header, which is before the network header."""
    stack = f.ethernet(f.MPLS, f.mpls((1, 2, 3, 4, 5), V4))
    books = seen(observer, stack, layer3=True)
    [flow] = books.flows
    assert (flow.source, flow.octets, flow.tunnel_id) == (FLOW4[0], OCTETS4, 5 if decap else 0)


def test_all_of_them_over_a_veth(observer: Observer, decap: bool) -> None:
    """Real buffers: at ingress the kernel has moved the outer VLAN tag to metadata."""
    if not bpf.tcx_supported(observer.program.programs["flow_ingress"]):
        pytest.skip("needs TCX (Linux 6.6) to attach without leaving anything")
    with Wire(observer) as wire:
        for name, case in CASES.items():
            wire.send(case.frame)
            books = wire.take(Direction.INGRESS, 1)
            books.assert_balanced()
            assert books.flows == [flow_of(case, decap, ifindex=wire.ifindex[Direction.INGRESS])], name
        others = [frame for name, (frame, _) in NOT_IP.items() if name != "too many tags"]  # one is in metadata here
        wire.send(*others)
        books = wire.take(Direction.INGRESS, len(others))
        books.assert_balanced()
        assert (books.flows, books.ignored()["other"][0]) == ([], len(others))
        wire.send(*(frame for frame, _ in LIES.values()))
        books = wire.take(Direction.INGRESS, len(LIES))
        assert sum(flow.octets for flow in books.flows) == sum(octets for _, octets in LIES.values())
        assert books.total("lying_lengths") == len(LIES)


@pytest.mark.parametrize(("text", "decap_only"), [
    ("port 443", False), ("vlan 42", False), ("tunnel mpls", True), ("tunnel pppoe and vni 3", True),
    ("src 192.168.0.1", False)])
def test_filters_in_the_kernel_apply_to_what_is_behind(text: str, decap_only: bool) -> None:
    """The packets that the filter names, chosen here by the cases' own values."""
    chosen = {"port 443": lambda case: case.flow == FLOW4, "vlan 42": lambda case: 42 in case.vlan_ids,
              "tunnel mpls": lambda case: case.tunnel is Tunnel.MPLS,
              "tunnel pppoe and vni 3": lambda case: (case.tunnel, case.tunnel_id) == (Tunnel.PPPOE, 3),
              "src 192.168.0.1": lambda case: case.flow == FLOW4}[text]
    divided = split(compile_filter(text, "flows"), observation_points=True, decap=True)
    assert divided.expression and not divided.rest
    loaded = compile_program(map_entries=4096, coarse_clock=COARSE, expression=divided.expression, decap=decap_only)
    try:
        observer = Observer(loaded)
        for case in CASES.values():
            observer.see(case.frame)
        books = observer.take()
        books.assert_balanced()
        wanted = sum(chosen(case) for case in CASES.values())
        assert wanted
        assert (sum(flow.packets for flow in books.flows), books.total("filtered_packets")) == (
            wanted, len(CASES) - wanted)
    finally:
        loaded.close()


@pytest.fixture(scope="module")
def with_ports() -> Iterator[Observer]:
    """As many as can be added."""
    ports = ADDED | dict.fromkeys(range(50_000, 50_000 + MOST_PORTS - len(ADDED)), Tunnel.VXLAN)
    loaded = compile_program(map_entries=4096, coarse_clock=COARSE, decap=True, tunnel_ports=ports)
    yield Observer(loaded)
    loaded.close()


@pytest.mark.core
@pytest.mark.parametrize(("port", "payload", "tunnel", "tunnel_id"),
                         [*BY_PORT, (50_020, f.vxlan(47, f.ethernet(f.IPV4, V4)), Tunnel.VXLAN, 47)])
@pytest.mark.parametrize("carry", [f.ipv4, f.ipv6])
def test_added_ports_beside_the_standard_ones(with_ports: Observer, port: int, payload: bytes, tunnel: Tunnel,
                                              tunnel_id: int, carry: Callable[[bytes, int], bytes]) -> None:
    outer = carry(f.udp(9, port, payload), f.UDP)
    books = seen(with_ports, frame_of(outer))
    assert books.flows == [SeenFlow(*FLOW4, 1, OCTETS4, tunnel=tunnel, tunnel_id=tunnel_id)]
    assert [(parent.packets, parent.octets) for parent in books.parents] == [(1, len(outer))]
