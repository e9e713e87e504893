"""Wire packets of super-packets, a full table, the two sides, the clock, and the totals that prove it all."""

from __future__ import annotations

import ctypes
import errno
import itertools
import struct
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.model.kinds import Direction, Kind
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FLOW_TOTALS_DTYPE
from tests.kernel import frames as f
from tests.kernel.observer import LOOPBACK_IFINDEX, Observer, SeenFlow, sum_over_cpus

A4, B4 = "10.0.0.1", "10.0.0.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
ENTRIES = 64
"""Capacity of the flow maps here: small, to be filled."""


@pytest.fixture(scope="module")
def program() -> Iterator[FlowProgram]:
    loaded = compile_program(map_entries=ENTRIES, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)
    yield loaded
    loaded.close()


@pytest.fixture
def observer(program: FlowProgram) -> Observer:
    return Observer(program)


def super_tcp(payload: int, options: bytes = b"\x01" * 12) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.tcp(443, 51514, f.ACK, bytes(payload), options=options), f.TCP))


class TestSuperPackets:
    """IP length + (segments - 1) x (IP header + transport header), in the frame of a real one."""

    @pytest.mark.parametrize("segments", [0, 4], ids=["segments not counted by anyone", "gso_segs"])
    @pytest.mark.parametrize("direction", Direction)
    def test_tcp(self, observer: Observer, direction: Direction, segments: int) -> None:
        frame = super_tcp(3100)  # segments of 1000, 1000, 1000, 100
        observer.see(frame, direction=direction, gso_size=1000, gso_segs=segments)
        books = observer.take(direction)
        books.assert_balanced()
        on_the_wire = 3 * (20 + 32 + 1000) + (20 + 32 + 100)
        assert books.flows == [SeenFlow(A4, B4, 6, 443, 51514, 4, on_the_wire, direction=direction)]
        assert (books.total("frames"), books.total("frame_octets")) == (1, len(frame))

    def test_udp_over_ipv6_with_an_extension_header(self, observer: Observer) -> None:
        packet = f.ipv6(f.extension(f.UDP) + f.udp(1, 2, bytes(2500)), f.DESTINATION_OPTIONS)
        observer.see(f.ethernet(f.IPV6, packet), gso_size=1000)
        assert observer.take().flows == [SeenFlow(A6, B6, 17, 1, 2, 3, 3 * (40 + 8 + 8) + 2500)]

    @pytest.mark.core
    def test_big_tcp_says_no_length(self, observer: Observer) -> None:
        segment = f.tcp(443, 51514, f.ACK, bytes(3000))
        observer.see(f.ethernet(f.IPV4, f.ipv4(segment, f.TCP, total_length=0)), gso_size=1000, gso_segs=3)
        observer.see(f.ethernet(f.IPV6, f.ipv6(segment, f.TCP, payload_length=0)), gso_size=1000, gso_segs=3)
        four, six = observer.take().flows
        assert four == SeenFlow(A4, B4, 6, 443, 51514, 3, 3 * (20 + 20 + 1000))
        assert six == SeenFlow(A6, B6, 6, 443, 51514, 3, 3 * (40 + 20 + 1000))

    @pytest.mark.parametrize("direction", Direction)
    def test_big_tcp_jumbo_option_is_never_on_the_wire(self, observer: Observer, direction: Direction) -> None:
        """Segmentation takes the Hop-by-Hop header away that carries the length of an IPv6 BIG TCP packet."""
        jumbo = struct.pack(">BBBBI", f.TCP, 0, 0xC2, 4, 8 + 20 + 3000)
        packet = f.ipv6(jumbo + f.tcp(443, 51514, f.ACK, bytes(3000)), f.HOP_BY_HOP, payload_length=0)
        observer.see(f.ethernet(f.IPV6, packet), direction=direction, gso_size=1000, gso_segs=3)
        [flow] = observer.take(direction).flows
        assert (flow.packets, flow.octets) == (3, 3 * (40 + 20 + 1000))

    def test_a_jumbogram_is_as_long_as_its_frame(self, observer: Observer) -> None:
        packet = f.ipv6(struct.pack(">BBBBI", f.UDP, 0, 0xC2, 4, 8 + 8 + 900) + f.udp(1, 2, bytes(900)), f.HOP_BY_HOP,
                        payload_length=0)
        observer.see(f.ethernet(f.IPV6, packet))
        assert observer.take().flows == [SeenFlow(A6, B6, 17, 1, 2, 1, 40 + 8 + 8 + 900)]

    def test_egress_takes_the_kernels_sum_for_tunnels(self, observer: Observer) -> None:
        """VXLAN around TCP: each segment repeats outer and inner headers, which only wire_len knows."""
        inner = f.ethernet(f.IPV4, f.ipv4(f.tcp(80, 81, f.ACK, bytes(3000)), f.TCP))
        frame = f.ethernet(f.IPV4, f.ipv4(f.udp(40000, 4789, bytes(8) + inner), f.UDP))
        headers = 14 + 20 + 8 + 8 + 14 + 20 + 20
        assert len(frame) == headers + 3000
        for direction in Direction:
            observer.see(frame, direction=direction, gso_size=1000, gso_segs=3, wire_len=len(frame) + 2 * headers)
        ingress, egress = sorted(observer.take(Direction.EGRESS).flows, key=lambda flow: flow.direction)
        assert (egress.packets, egress.octets) == (3, 3 * (headers - 14 + 1000))
        assert (ingress.packets, ingress.octets) == (3, len(frame) - 14 + 2 * (20 + 8)), "not trusted at ingress"

    def test_a_wire_length_below_our_own_is_not_believed(self, observer: Observer) -> None:
        frame = super_tcp(3100)
        observer.see(frame, direction=Direction.EGRESS, gso_size=1000, gso_segs=4, wire_len=len(frame) + 10)
        [flow] = observer.take(Direction.EGRESS).flows
        assert flow.octets == 3 * (20 + 32 + 1000) + (20 + 32 + 100)


def udp_to(port: int, octets: int = 10) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.udp(1, port, bytes(octets)), f.UDP))


def fill(map_fd: int) -> None:
    """Insert entries that no packet has until no more fit."""
    for number in itertools.count(1):
        try:
            bpf.map_update(map_fd, number.to_bytes(4, sys.byteorder).ljust(FLOW_KEY_DTYPE.itemsize, b"\0"),
                           bytes(FLOW_COUNTERS_DTYPE.itemsize))
        except OSError as error:
            assert error.errno in (errno.E2BIG, errno.ENOSPC)
            return


class TestFullTable:
    def test_the_rest_is_in_one_aggregate_a_protocol(self, observer: Observer) -> None:
        flows = 500
        for port in range(flows):
            observer.see(udp_to(port))
            observer.see(udp_to(port), repeat=2)
        tcp = f.ethernet(f.IPV6, f.ipv6(f.tcp(1, 2, f.ACK), f.TCP))
        observer.see(tcp)
        books = observer.take()
        books.assert_balanced()
        assert len(books.flows) == books.inserted == ENTRIES
        assert all((flow.packets, flow.octets) == (3, 3 * 38) for flow in books.flows)
        rest = (flows - ENTRIES) * 3
        nothing = {"kind": Kind.AGGREGATE, "source_port": 0, "destination_port": 0}
        assert books.aggregates == [
            SeenFlow("0.0.0.0", "0.0.0.0", protocol=17, packets=rest, octets=rest * 38, **nothing),
            SeenFlow("::", "::", protocol=6, packets=1, octets=60, **nothing)]
        assert books.total("aggregated_packets") == rest + 1
        assert (books.total("packets"), books.total("lost_packets")) == (flows * 3 + 1, 0)

    def test_known_flows_are_still_counted_apart(self, observer: Observer) -> None:
        for port in range(500):
            observer.see(udp_to(port))
        known = observer.take().flows[0].destination_port
        observer.see(udp_to(known))
        for port in range(500):
            observer.see(udp_to(port))
        books = observer.take()
        books.assert_balanced()
        assert [flow.packets for flow in books.flows if flow.destination_port == known] == [2]

    @pytest.mark.core
    def test_a_scan_of_all_protocols_beside_full_aggregates_loses_nothing(
            self, observer: Observer, program: FlowProgram) -> None:
        for port in range(ENTRIES):
            observer.see(udp_to(port))
        fill(program.maps["aggregates_a"])
        for protocol in range(256):
            observer.see(f.ethernet(f.IPV4, f.ipv4(bytes(20), protocol, source="10.0.0.9")))
            observer.see(f.ethernet(f.IPV6, f.ipv6(bytes([f.NO_NEXT_HEADER]) + bytes(39), protocol)), repeat=2)
        books = observer.take()
        books.assert_balanced()
        assert books.total("lost_packets") == books.total("lost_octets") == 0
        rest = [(row.ip_version, row.protocol, row.packets, row.octets) for row in books.aggregates if row.packets]
        assert rest == [(4, 255, 256, 256 * 40), (6, 255, 512, 512 * 80)]

    @pytest.mark.core
    def test_a_protocol_number_of_all_ones_is_in_one_entry_only(self, observer: Observer, program: FlowProgram) -> None:
        """255 is what the entry for all protocols is called: no key may come twice from one drain."""
        for port in range(ENTRIES):
            observer.see(udp_to(port))
        protocols = [17, 255, 99, 255]
        for number, protocol in enumerate(protocols):
            if number == 2:
                fill(program.maps["aggregates_a"])
            observer.see(f.ethernet(f.IPV4, f.ipv4(bytes(20), protocol, source="10.0.0.9")))
        books = observer.take()
        books.assert_balanced()
        assert [(flow.protocol, flow.packets) for flow in books.aggregates if flow.packets] == [(17, 1), (255, 3)]

    @pytest.mark.core
    def test_lost_is_what_not_even_an_aggregate_could_hold(self, observer: Observer, program: FlowProgram) -> None:
        """Filled here by hand from user space: 4,096 interfaces could not have filled the second."""
        fill(program.maps["aggregates_a"])
        fill(program.maps["rest_a"])
        for port in range(ENTRIES + 30):
            observer.see(udp_to(port))
        totals = observer.totals(Direction.INGRESS)
        observer.take()
        assert (int(totals["lost_packets"]), int(totals["lost_octets"])) == (30, 30 * 38)
        assert (int(totals["packets"]), int(totals["aggregated_packets"])) == (ENTRIES + 30, 0)


class TestSidesAndTotals:
    @pytest.mark.core
    def test_everything_goes_to_the_active_side(self, observer: Observer) -> None:
        observer.see(udp_to(1))
        observer.flip(1)
        observer.see(udp_to(2))
        observer.see(udp_to(2))
        b = observer.take()
        assert observer.totals(Direction.INGRESS, side=0)["packets"] == 1
        observer.flip(0)
        a = observer.take()
        a.assert_balanced()
        b.assert_balanced()
        assert ([(flow.destination_port, flow.packets) for flow in a.flows], a.inserted) == ([(1, 1)], 1)
        assert ([(flow.destination_port, flow.packets) for flow in b.flows], b.inserted) == ([(2, 2)], 1)

    def test_directions_have_their_own_books(self, observer: Observer) -> None:
        observer.see(udp_to(1))
        observer.see(udp_to(1), direction=Direction.EGRESS, repeat=5)
        assert [int(observer.totals(direction)["packets"]) for direction in Direction] == [1, 5]
        observer.take()
        observer.take(Direction.EGRESS)

    def test_a_slot_that_is_anothers_means_overflow(self, observer: Observer, program: FlowProgram) -> None:
        observer.own_slot(LOOPBACK_IFINDEX, owner=LOOPBACK_IFINDEX + 512)
        key = struct.pack("=IIII", LOOPBACK_IFINDEX, Direction.INGRESS, 0, 0)
        bpf.map_update(program.maps["totals_overflow"], key, np.zeros(observer.cpus, FLOW_TOTALS_DTYPE).tobytes())
        observer.see(udp_to(1), repeat=3)
        per_cpu = np.zeros(observer.cpus, FLOW_TOTALS_DTYPE)
        assert bpf.map_lookup(program.maps["totals_overflow"], key, per_cpu.ctypes.data)
        bpf.map_delete(program.maps["totals_overflow"], key)
        assert int(sum_over_cpus(per_cpu)["packets"]) == 3
        assert observer.take().total("packets") == 0

    def test_without_a_place_of_its_own_it_is_nobodys(self, observer: Observer) -> None:
        observer.own_slot(LOOPBACK_IFINDEX, owner=LOOPBACK_IFINDEX + 512)
        before = int(observer.totals(Direction.INGRESS, ifindex=0)["packets"])
        observer.see(udp_to(1), repeat=3)
        assert int(observer.totals(Direction.INGRESS, ifindex=0)["packets"]) - before == 3
        observer.take()


class TestClock:
    @pytest.mark.parametrize("coarse", [True, False])
    def test_first_and_last_are_monotonic_time(self, coarse: bool) -> None:
        if coarse and kernel_release() < COARSE_CLOCK_KERNEL:
            pytest.skip("bpf_ktime_get_coarse_ns needs Linux 5.11")
        loaded = compile_program(map_entries=ENTRIES, coarse_clock=coarse)
        try:
            observer = Observer(loaded)
            tick_ns = 2 * 10_000_000 if coarse else 0  # two ticks of the slowest clock Linux is built with, 100 Hz
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            observer.see(udp_to(1))
            time.sleep(0.1)
            middle = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            observer.see(udp_to(1))
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            [flow] = observer.take().flows
        finally:
            loaded.close()
        assert before - tick_ns <= flow.first_ns <= middle
        assert middle - tick_ns <= flow.last_ns <= after


def test_closing_frees_the_kernels_objects() -> None:
    loaded = compile_program(map_entries=ENTRIES, coarse_clock=False)
    descriptors = [*loaded.programs.values(), *loaded.maps.values()]
    loaded.close()
    loaded.close()
    value = ctypes.create_string_buffer(8)
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            bpf.map_lookup(descriptor, bytes(4), ctypes.addressof(value))
