"""Every packet is in the books: flows + ignored + lost == observed == what the interfaces counted themselves."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from flowtop.model.kinds import Direction, Kind
from tests.kernel import frames
from tests.kernel.netns import (
    Books,
    Lab,
    Namespace,
    Point,
    Recorder,
    eventually,
    process,
    scaled,
    send_frames,
)

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
ETHERNET_HEADER = 14


class Books2:
    """Books of both ends of a veth pair, beside the counters its two interfaces kept meanwhile."""

    def __init__(self, near: Namespace, far: Namespace, **config: float) -> None:
        self._ends = {"near": near, "far": far}
        self._config = config
        self._stack = ExitStack()

    def __enter__(self) -> Books2:
        self._recorders = {end: self._stack.enter_context(Recorder(namespace, "veth0", **self._config))
                           for end, namespace in self._ends.items()}
        self._before = {end: namespace.link_statistics("veth0") for end, namespace in self._ends.items()}
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._after = {end: namespace.link_statistics("veth0") for end, namespace in self._ends.items()}

    def books(self, end: str) -> Books:
        return self._recorders[end].books

    def point(self, end: str, direction: Direction) -> Point:
        return self.books(end).points["veth0", direction]

    def device(self, end: str, direction: Direction, what: str = "packets") -> int:
        way = "rx" if direction is INGRESS else "tx"
        return self._after[end][way][what] - self._before[end][way][what]

    def assert_balanced(self) -> None:
        """What holds whatever the traffic: at every drain nothing is missing and nothing was lost."""
        for end in self._ends:
            assert self.books(end).imbalances == []
            for direction in Direction:
                point = self.point(end, direction)
                assert point["lost_packets"] == point["lost_octets"] == 0
                assert point["interface_packets"] == self.device(end, direction)
                assert point["interface_octets"] == self.device(end, direction, "bytes")

    def assert_frames_are_the_devices(self, end: str, direction: Direction) -> None:
        """Frame for frame, octet for octet; a tag the device has taken off is in its count and not in the frame."""
        point = self.point(end, direction)
        assert point["frames"] == self.device(end, direction)
        assert (point["frame_octets"] + 4 * point["vlan_stripped_frames"] * (direction is INGRESS)
                == self.device(end, direction, "bytes"))


def iperf(near: Namespace, far: Namespace, *options: str) -> None:
    with process(*far.command("iperf3", "-s", "-1", "-J"), stdout=subprocess.DEVNULL) as server:
        eventually(lambda: ":5201" in far.run("ss", "-Hltn"), "iperf3 listens")
        near.run("iperf3", "-J", "-c", "10.77.0.2", *options)
        server.wait()


def sent_segments(namespace: Namespace) -> int:
    """TCP segments sent; OutSegs leaves out those with retransmitted octets only (RFC 4022)."""
    return namespace.snmp("TcpOutSegs") + namespace.snmp("TcpRetransSegs")


@pytest.mark.core
@pytest.mark.parametrize("offload", [True, False], ids=["gso", "no-gso"])
def test_tcp_bulk_counts_wire_packets(lab: Lab, offload: bool) -> None:
    near, far = lab.pair(offload=offload)
    segments_before = sent_segments(near), sent_segments(far)
    with Books2(near, far) as both:
        iperf(near, far, "-n", f"{scaled(2_000)}M" if offload else f"{scaled(300)}M")
    sent, answered = sent_segments(near) - segments_before[0], sent_segments(far) - segments_before[1]
    both.assert_balanced()
    for end, direction, wire in (("near", EGRESS, sent), ("far", INGRESS, sent),
                                 ("far", EGRESS, answered), ("near", INGRESS, answered)):
        point = both.point(end, direction)
        assert point.flow_packets == point["packets"] == wire
        if offload or direction is INGRESS:  # without offload the kernel cuts super-packets after the egress hook
            both.assert_frames_are_the_devices(end, direction)
            # Each segment beyond a super-packet's first costs another IPv4 (20) and TCP header (20 + timestamps 12).
            assert point["octets"] == (both.device(end, direction, "bytes") - ETHERNET_HEADER * point["frames"]
                                       + 52 * (wire - point["frames"]))
        else:
            assert wire == both.device(end, direction)
            assert point["octets"] == both.device(end, direction, "bytes") - ETHERNET_HEADER * wire
    super_packets = both.point("near", EGRESS)
    assert super_packets["frames"] < sent, "the stack built super-packets, or this test proves little"


@pytest.mark.core
def test_small_udp_packets_at_full_rate_over_10_000_flows(lab: Lab, udp_flood: Path) -> None:
    near, far = lab.pair()
    flows, burst, rounds = scaled(10_000), scaled(500_000), 0
    octets = 20 + 8 + 18
    with Books2(near, far, delay_s=0.02) as both:
        enough = both.books("near").drains + scaled(120)
        while rounds == 0 or both.books("near").drains < enough:
            assert int(near.run(str(udp_flood), "198.18.0.1", str(flows), str(burst), "18")) == burst
            rounds += 1
    both.assert_balanced()
    packets = rounds * burst
    each = {10_000 + number: rounds * len(range(number, burst, flows)) for number in range(flows)}
    point = both.point("near", EGRESS)
    assert point.flow_packets == point["packets"] == packets
    assert point.flow_octets == point["octets"] == packets * octets
    counted: Counter[int] = Counter()
    for key, count, _ in both.books("near").flows():
        counted[int(key["destination_port"])] += count
    assert counted == each
    assert packets == both.device("near", EGRESS) + both.device("near", EGRESS, "dropped")
    both.assert_frames_are_the_devices("far", INGRESS)
    arrived = both.point("far", INGRESS)
    assert arrived.flow_packets == both.device("far", INGRESS)
    assert arrived.flow_octets == both.device("far", INGRESS) * octets


def _odd_frames() -> list[tuple[bytes, int, int]]:
    """(frame, octets above link header and tags, tags) of each kind of frame; all of them IP but the last three."""
    chain = b"".join(map(frames.extension, (frames.ROUTING, frames.DESTINATION_OPTIONS, frames.UDP)))
    cases: list[tuple[bytes, int, int]] = []

    def add(ethertype: int, packet: bytes, *tpids: int) -> None:
        tags = tuple((tpid, 100 + number) for number, tpid in enumerate(tpids))
        cases.append((frames.ethernet(ethertype, packet, tags=tags), len(packet), len(tags)))

    udp = frames.udp(1111, 2222, b"x" * 50)
    add(frames.IPV6, frames.ipv6(chain + udp, frames.HOP_BY_HOP))
    first = frames.fragment_header(frames.UDP, 7, offset=0, more=True) + frames.udp(1111, 2222, b"x" * 56)
    add(frames.IPV6, frames.ipv6(first, frames.FRAGMENT))
    last = frames.fragment_header(frames.UDP, 7, offset=64, more=False) + b"y" * 30
    add(frames.IPV6, frames.ipv6(last, frames.FRAGMENT))
    add(frames.IPV4, frames.ipv4(frames.udp(3333, 4444, b"z" * 40), frames.UDP, identification=9, more=True))
    add(frames.IPV4, frames.ipv4(b"z" * 33, frames.UDP, identification=9, offset=48))
    add(frames.IPV4, frames.ipv4(udp, frames.UDP, options=b"\x94\x04\0\0"))
    add(frames.IPV4, frames.ipv4(frames.icmp(8, 0, b"p" * 60), frames.ICMP))
    add(frames.IPV6, frames.ipv6(frames.icmp(128, 0, b"p" * 60), frames.ICMPV6))
    add(frames.IPV4, frames.ipv4(udp, frames.UDP), frames.VLAN)
    add(frames.IPV6, frames.ipv6(udp, frames.UDP), frames.SERVICE_VLAN, frames.VLAN)
    add(frames.ARP, bytes(28))
    add(0x88CC, bytes(46))
    add(frames.IPV4, b"\x15" + bytes(45))  # version 1
    return cases


@pytest.mark.core
def test_every_kind_of_frame_is_accounted(lab: Lab) -> None:
    near, far = lab.pair()
    cases = _odd_frames()
    times = scaled(400)
    with Books2(near, far) as both:
        send_frames(near, "veth0", [frame for frame, _, _ in cases] * times)
    both.assert_balanced()
    total = times * sum(octets for _, octets, _ in cases)
    ignored = times * sum(octets for _, octets, _ in cases[-3:])
    for end, direction in (("near", EGRESS), ("far", INGRESS)):
        both.assert_frames_are_the_devices(end, direction)
        point = both.point(end, direction)
        assert (point["packets"], point["octets"]) == (times * len(cases), total)
        assert (point.ignored_packets, point.ignored_octets) == (3 * times, ignored)
        assert (point.flow_packets, point.flow_octets) == (times * (len(cases) - 3), total - ignored)
        assert point["unjoined_fragments"] == 0, "the first fragment goes first: all are joined"
        # By arithmetic from the frames: link header and tags off, what remains is the packet.
        assert both.device(end, direction, "bytes") == times * sum(len(frame) for frame, _, _ in cases)
        assert total == times * sum(len(frame) - ETHERNET_HEADER - 4 * tags for frame, _, tags in cases)


def test_fragments_of_real_datagrams_join_their_flow(lab: Lab) -> None:
    near, far = lab.pair()
    datagrams, payload = scaled(300), 5_000

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("10.77.0.1", 5_555))
            for _ in range(datagrams):
                sender.sendto(bytes(payload), ("198.18.0.1", 6_666))

    with Books2(near, far) as both:
        near.call(send)
    both.assert_balanced()
    # MTU 1500: 1480 octets of payload a fragment; 5008 octets make three full ones and one of 568.
    fragments = 4
    for end, direction in (("near", EGRESS), ("far", INGRESS)):
        both.assert_frames_are_the_devices(end, direction)
        ((key, packets, octets),) = both.books(end).flows()
        assert (int(key["source_port"]), int(key["destination_port"])) == (5_555, 6_666)
        assert packets == datagrams * fragments
        assert octets == datagrams * (payload + 8 + fragments * 20)


def test_tun_device_has_no_link_header(lab: Lab) -> None:
    namespace = lab.namespace()
    count, out_payload = scaled(500), 100
    incoming = frames.ipv4(frames.udp(7, 8, b"i" * 60), frames.UDP, source="10.78.0.9", destination="198.18.0.1")
    incoming6 = frames.ipv6(frames.udp(7, 8, b"i" * 60), frames.UDP)

    def open_tun() -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun7", 0x0001 | 0x1000))  # IFF_TUN | IFF_NO_PI
        return tun

    if not Path("/dev/net/tun").exists():
        pytest.skip("this kernel has no tun device")
    tun = namespace.call(open_tun)
    try:
        namespace.ip("addr add 10.78.0.1/24 dev tun7")
        namespace.ip("link set tun7 up")
        with Recorder(namespace, "tun7") as recorder:
            before = namespace.link_statistics("tun7")
            for packet in (incoming, incoming6) * count:
                os.write(tun, packet)

            def send() -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    for _ in range(count):
                        sender.sendto(bytes(out_payload), ("10.78.0.2", 9))
                        os.read(tun, 2048)

            namespace.call(send)
            after = namespace.link_statistics("tun7")
    finally:
        os.close(tun)
    books = recorder.books
    assert books.imbalances == []
    for direction, way, packets, octets in (
        (INGRESS, "rx", 2 * count, count * (len(incoming) + len(incoming6))),
        (EGRESS, "tx", count, count * (out_payload + 28)),
    ):
        point = books.points["tun7", direction]
        assert point.flow_packets == point["frames"] == after[way]["packets"] - before[way]["packets"] == packets
        assert point.flow_octets == point["frame_octets"] == after[way]["bytes"] - before[way]["bytes"] == octets
        assert point.ignored_packets == point["lost_packets"] == 0


@pytest.mark.core
def test_a_full_table_keeps_totals_exact_and_the_rest_in_aggregates(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    flows = packets = 20_000
    with Recorder(near, "veth0", map_entries=1024, delay_s=3600) as recorder:
        # Nobody drains while this runs but the early drains of `wait`, which 1,024 entries outrun.
        near.run(str(udp_flood), "198.18.0.1", str(flows), str(packets), "18")
    books = recorder.books
    assert books.imbalances == []
    point = books.points["veth0", EGRESS]
    assert (point.flow_packets, point.flow_octets) == (packets, packets * 46)
    assert point["lost_packets"] == 0
    aggregated = [(packets, octets) for key, packets, octets in books.flows() if key["kind"] == Kind.AGGREGATE]
    ((rest_packets, rest_octets),) = aggregated
    assert 0 < rest_packets == point["aggregated_packets"]
    assert rest_octets == point["aggregated_octets"] == rest_packets * 46
    assert books.drains > 1, "the half full table was drained early"
