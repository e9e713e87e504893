"""Packets from the kernel: tcpdump on the same interface saw the same frames, and the flow table counted as many."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flowtop.capture.ebpf import packet_programs, packet_taps
from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
from flowtop.filters.filter import compile_filter
from flowtop.model.packets import PacketBatch, PacketLosses, PacketRequest
from flowtop.recording.recorder import Recorder, RecordingLimits
from flowtop.recording.recording import RecordingStatistics
from tests.kernel import frames as f
from tests.kernel.netns import Lab, Namespace, eventually, hooks, process, scaled, send_frames
from tests.kernel.netns import Recorder as Capturing
from tests.kernel.test_command import Command, in_a_terminal
from tests.kernel.test_exports_panel import DATAGRAMS, PAYLOAD, pinging, send_datagrams, user
from tests.unit.packets import EVERYTHING, blocks, packets

METHODS = ("auto", "clsact")


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


def ended(recorder: Recorder) -> RecordingStatistics:
    figures = recorder.end()
    assert figures is not None
    return figures


def frames(path: Path) -> Counter[tuple[int, bytes]]:
    """True length and what there is of each frame of a pcapng file."""
    return Counter((wire, octets) for _, _, wire, octets in packets(path.read_bytes()))


class Tcpdump:
    """tcpdump on an interface; a context, whose `frames` are complete once it has ended."""

    def __init__(self, namespace: Namespace, interface: str, path: Path, words: str) -> None:
        self._command = namespace.command("tcpdump", "-U", "-n", "-Z", "root", "-i", interface, "-w", str(path),
                                          *words.split())
        self._path = path

    def __enter__(self) -> Tcpdump:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        assert "listening" in self._process.stderr.readline()
        return self

    def await_frames(self, number: int) -> None:
        eventually(lambda: len(self.times()) >= number, f"tcpdump saw {number} frames")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()

    def _records(self) -> list[tuple[float, int, bytes]]:
        octets, found = self._path.read_bytes(), []
        at = 24
        while at + 16 <= len(octets):
            seconds, fraction, captured, wire = struct.unpack_from("<IIII", octets, at)
            if at + 16 + captured > len(octets):
                break
            found.append((seconds + fraction / 1e6, wire, octets[at + 16:at + 16 + captured]))
            at += 16 + captured
        return found

    def times(self) -> list[float]:
        return [time_s for time_s, _, _ in self._records()]

    def frames(self) -> Counter[tuple[int, bytes]]:
        return Counter((wire, octets) for _, wire, octets in self._records())


@pytest.mark.core
@pytest.mark.parametrize("method", METHODS)
def test_from_the_first_packet_to_the_last_what_tcpdump_sees_and_the_table_counts(
        pair: tuple[Namespace, Namespace], tmp_path: Path, udp_flood: Path, method: str) -> None:
    near, _ = pair
    recorder = Recorder(EVERYTHING)
    recorder.begin(str(tmp_path / "x.pcapng"), [compile_filter("icmp or dst portrange 10001-10003")], new=True)
    capturing = Capturing(near, "veth0", attach=method)
    recorder.connect(capturing.capture)
    with Tcpdump(near, "veth0", tmp_path / "t.pcap", "icmp or dst portrange 10001-10003") as tcpdump:
        with capturing as running:
            assert hooks(near, "veth0") == 4
            near.run("ping", "-q", "-c", "5", "-i", "0.01", "-s", "600", "10.77.0.2")
            near.run(str(udp_flood), "198.18.0.1", "5", str(scaled(5_000)), "18")
        tcpdump.await_frames(10 + scaled(5_000) * 3 // 5)
    figures = ended(recorder)
    wanted = [(key, count) for key, count, _ in running.books.flows()
              if key["protocol"] == 1 or 10001 <= key["destination_port"] <= 10003]
    assert sum(count for _, count in wanted) == figures.written == 10 + scaled(5_000) * 3 // 5
    assert (figures.dropped, figures.capped, figures.state) == (0, 0, "ended")
    assert not running.books.imbalances
    assert frames(tmp_path / "x.pcapng") == tcpdump.frames()
    times = [time_ns / 1e9 for _, time_ns, _, _ in packets((tmp_path / "x.pcapng").read_bytes())]
    assert abs(times[0] - tcpdump.times()[0]) < 0.5
    assert hooks(near, "veth0") == 0


@pytest.mark.parametrize(("method", "names"), [("auto", ("first", "second")), ("clsact", ("only",))])
def test_while_it_runs_packets_begin_and_end_and_counting_goes_on(
        pair: tuple[Namespace, Namespace], tmp_path: Path, method: str, names: tuple[str, ...]) -> None:
    near, _ = pair
    recorder = Recorder(RecordingLimits(snap=60, per_flow=3, most_octets=0))

    def ping(count: int) -> None:
        near.run("ping", "-q", "-c", str(count), "-i", "0.01", "-s", "600", "10.77.0.2")

    with Capturing(near, "veth0", attach=method) as running:
        recorder.connect(running.capture)
        ping(2)
        for name in names:
            recorder.begin(str(tmp_path / f"{name}.pcapng"), [compile_filter("icmptype 8")], new=True)
            eventually(lambda: hooks(near, "veth0") == 4, "its programs are attached")
            ping(5)
            assert ended(recorder).written == 3
            assert hooks(near, "veth0") == 2
            ping(2)
    assert sum(count for _, count, _ in running.books.flows()) == 2 * (2 + len(names) * (5 + 2))
    for name in names:
        octets = (tmp_path / f"{name}.pcapng").read_bytes()
        assert [(wire, len(frame), frame[34]) for _, _, wire, frame in packets(octets)] == [(642, 60, 8)] * 3
        statistics = [body for kind, body in blocks(octets) if kind == 5]
        assert [struct.unpack_from("<HHQHHQHHQ", body, 12) for body in statistics] == [(6, 8, 5, 7, 8, 0, 8, 8, 3)]
    figures = recorder.statistics()
    assert figures is not None
    assert (figures.written, figures.capped, figures.dropped) == (3, 2, 0)


def test_a_tag_that_the_kernel_took_off_is_back_where_it_was(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, far = pair
    packet = f.ipv4(f.udp(7, 53, bytes(range(100))), f.UDP)
    sent = [f.ethernet(f.IPV4, packet, tags=tags) for tags in (
        ((0x8100, 100),), ((0x88A8, 30), (0x8100, 0x6000 | 200)), ())]
    recorder = Recorder(RecordingLimits(snap=100, per_flow=0, most_octets=0))
    recorder.begin(str(tmp_path / "x.pcapng"), [compile_filter("port 53")], new=True)
    capturing = Capturing(far, "veth0")
    recorder.connect(capturing.capture)
    with capturing as running:
        send_frames(near, "veth0", sent)
        eventually(lambda: sum(running.books.packets.values()) == 3, "three packets have come")
    assert running.books.points["veth0", 0]["vlan_stripped_frames"] == 2, "two outer tags were in metadata"
    assert ended(recorder).written == 3
    assert [(wire, octets) for _, _, wire, octets in packets((tmp_path / "x.pcapng").read_bytes())] == [
        (len(frame), frame[:100]) for frame in sent]


VXLAN_42 = f.ethernet(f.IPV4, f.ipv4(f.udp(9, 4789, f.vxlan(42, f.ethernet(
    f.IPV4, f.ipv4(f.udp(7, 53, bytes(range(200))), f.UDP, source="192.168.0.1", destination="192.168.0.2")))), f.UDP))
GRE_7 = f.ethernet(f.IPV4, f.ipv4(f.gre(
    f.IPV4, f.ipv4(f.udp(8, 53), f.UDP, source="192.168.0.3", destination="192.168.0.4"), key=7), f.GRE))
IN_NO_TUNNEL = f.ethernet(f.IPV4, f.ipv4(f.udp(7, 53), f.UDP))
LABEL_9 = f.ethernet(f.MPLS, f.mpls((8, 9), f.ipv4(f.udp(10, 53), f.UDP)))
SESSION_5 = f.ethernet(f.PPPOE, f.pppoe(5, f.PPP_IPV6, f.ipv6(f.udp(11, 53, bytes(300)), f.UDP)))
VXLAN_43 = f.ethernet(f.IPV4, f.ipv4(f.udp(9, 51234, f.vxlan(43, f.ethernet(
    f.IPV4, f.ipv4(f.udp(12, 53), f.UDP, source="192.168.0.1", destination="192.168.0.2")))), f.UDP))
ALL_OF_THEM = [VXLAN_42, GRE_7, IN_NO_TUNNEL, LABEL_9, SESSION_5, VXLAN_43]


@pytest.mark.parametrize(("text", "wanted"), [
    ("tunnel vxlan and vni 42", [VXLAN_42]),
    ("packets > 0", ALL_OF_THEM),
    ("tunnel mpls and vni 9", [LABEL_9]),
    ("tunnel pppoe", [SESSION_5]),
    ("vni 43 and src port 12", [VXLAN_43]),
])
def test_packets_in_tunnels_are_those_of_the_flow_inside_and_written_with_the_tunnel(
        pair: tuple[Namespace, Namespace], tmp_path: Path, text: str, wanted: list[bytes]) -> None:
    near, far = pair
    path = tmp_path / "x.pcapng"
    command = Command(far, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "--decap", "--tunnel-port",
                      "vxlan=51234", "-w", str(path), text)
    command.await_rounds()

    def all_written() -> bool:
        send_frames(near, "veth0", ALL_OF_THEM)
        return {octets for *_, octets in packets(path.read_bytes())} == {frame[:256] for frame in wanted}

    eventually(all_written, "of flows that are in the table by now, all packets are written")
    assert command.end(signal.SIGTERM) == 0
    assert {(wire, octets) for _, _, wire, octets in packets(path.read_bytes())} == {
        (len(frame), frame[:256]) for frame in wanted}


def test_a_flow_in_a_tunnel_has_a_share_of_its_own(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, far = pair
    recorder = Recorder(RecordingLimits(snap=262_144, per_flow=2, most_octets=0))
    recorder.begin(str(tmp_path / "x.pcapng"), [compile_filter("udp port 53")], new=True)
    capturing = Capturing(far, "veth0", decap=True)
    recorder.connect(capturing.capture)
    with capturing as running:
        send_frames(near, "veth0", [VXLAN_42, GRE_7, VXLAN_42, IN_NO_TUNNEL, VXLAN_42])
        eventually(lambda: sum(running.books.packets.values()) == 5 + 4, "five packets, and four of tunnels")
    figures = ended(recorder)
    assert (figures.written, figures.capped) == (4, 1)
    assert [octets for *_, octets in packets((tmp_path / "x.pcapng").read_bytes())] == [
        VXLAN_42, GRE_7, VXLAN_42, IN_NO_TUNNEL]


def test_a_buffer_of_many_segments_has_its_own_length(tmp_path: Path) -> None:
    with Lab() as lab:
        near, far = lab.pair()
        recorder = Recorder(EVERYTHING)
        recorder.begin(str(tmp_path / "x.pcapng"), [compile_filter("tcp")], new=True)
        capturing = Capturing(near, "veth0")
        recorder.connect(capturing.capture)
        with Tcpdump(near, "veth0", tmp_path / "t.pcap", "-B 16384 -s 262144 tcp") as tcpdump:
            with capturing, process(*far.command("iperf3", "-s", "-1"), stdout=subprocess.DEVNULL):
                eventually(lambda: "5201" in far.run("ss", "-ltn"), "iperf3 listens")
                near.run("iperf3", "-c", "10.77.0.2", "-n", "2M")
            figures = ended(recorder)
            tcpdump.await_frames(figures.written)
    found = frames(tmp_path / "x.pcapng")
    assert (figures.dropped, figures.written) == (0, found.total())
    assert found <= tcpdump.frames(), "which may have seen one more before it ended"
    assert max(wire for wire, _ in found) > 10_000, "one buffer of many segments"


def test_a_device_without_link_header_has_raw_packets(tmp_path: Path) -> None:
    if not Path("/dev/net/tun").exists():
        pytest.skip("this kernel has no tun device")
    recorder = Recorder(EVERYTHING)
    recorder.begin(str(tmp_path / "x.pcapng"), [], new=True)
    with Lab() as lab:
        namespace = lab.namespace()
        tun = namespace.call(open_tun)
        try:
            namespace.ip("addr add 10.78.0.1/24 dev tun7")
            namespace.ip("link set tun7 up")
            capturing = Capturing(namespace, "tun7")
            recorder.connect(capturing.capture)
            with capturing:
                os.write(tun, f.ipv4(f.udp(4444, 5555, bytes(9)), f.UDP, source="10.78.0.9", destination="198.18.0.1"))
                namespace.call(send_datagram)
        finally:
            os.close(tun)
    assert ended(recorder).written == 2
    shown = subprocess.run(
        ["tshark", "-r", tmp_path / "x.pcapng", "-T", "fields", "-e", "frame.interface_name",
         "-e", "frame.packet_flags_direction", "-e", "frame.protocols", "-e", "ip.src", "-e", "udp.dstport"],
        capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == ["tun7\t0x00000001\traw:ip:udp:data\t10.78.0.9\t5555",
                     "tun7\t0x00000002\traw:ip:udp:data\t10.78.0.1\t5556"]


def open_tun() -> int:
    """A layer 3 device called tun7, for as long as the descriptor is open."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun7", 0x0001 | 0x1000))  # IFF_TUN | IFF_NO_PI
    return tun


def send_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(9), ("10.78.0.2", 5556))


class Gate:
    """A PacketSink that takes nothing until it is opened."""

    over = False

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.written = 0
        self.losses: Mapping[int, PacketLosses] = {}

    def write(self, packets: PacketBatch) -> None:
        self.gate.wait()
        self.written += len(packets.keys)

    def note_losses(self, losses: Mapping[int, PacketLosses]) -> None:
        self.losses = losses

    def finish(self) -> None:
        pass


def test_what_finds_the_ring_buffer_full_is_counted_and_counting_never_waits(
        pair: tuple[Namespace, Namespace], udp_flood: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (packet_taps, packet_programs):
        monkeypatch.setattr(module, "RING_OCTETS", 1 << 17)
    near, _ = pair
    sink = Gate()
    sent = scaled(5_000)
    capture = EbpfCapture(EbpfConfig(("veth0",)))
    capture.write_packets(PacketRequest(sink, snap=256))
    with Capturing(near, capture=lambda _: capture) as running:
        near.run(str(udp_flood), "198.18.0.1", "5", str(sent), "18")
        eventually(lambda: sum(running.books.packets.values()) == sent, "the flow table has all of them")
        sink.gate.set()
    [losses] = sink.losses.values()
    assert losses.dropped > 0
    assert sink.written > 0
    assert sink.written + losses.dropped == sent == sum(running.books.packets.values())


def test_a_command_that_is_terminated_leaves_a_whole_file(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    path = tmp_path / "x.pcapng"
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-w", str(path), "icmp")
    command.await_rounds()
    near.run("ping", "-q", "-c", "3", "-i", "0.01", "10.77.0.2")
    assert command.end(signal.SIGTERM) == 0
    assert command.errors() == f"flowtop: {path}: 6 packets written\n"
    octets = path.read_bytes()
    assert len(packets(octets)) == sum(flow["packetTotalCount"] for flow in command.rounds()[-1]["flows"]) == 6
    assert blocks(octets)[-1][0] == 5, "what became of them stands at the end"


def test_the_key_writes_what_the_filter_shows_until_it_comes_again(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair

    def recorded() -> list[Path]:
        return list(tmp_path.glob("flowtop-*.pcapng"))

    def record(terminal: int) -> None:
        os.write(terminal, b"/dst port 5353\rW\r")
        eventually(lambda: hooks(near, "veth0") == 4, "programs for packets")
        near.call(send_datagrams)
        os.write(terminal, b"W")
        eventually(lambda: hooks(near, "veth0") == 2, "they are gone")
        eventually(lambda: blocks(recorded()[0].read_bytes())[-1][0] == 5, "a whole file")
        near.call(send_datagrams)
        os.write(terminal, b"q")

    with pinging(near):
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", act=user(record), directory=tmp_path)
    assert status == 0, painted[-2000:]
    [path] = recorded()
    assert [wire for _, _, wire, _ in packets(path.read_bytes())] == [14 + 20 + 8 + PAYLOAD] * DATAGRAMS
    assert f"{path.name}: {DATAGRAMS} packets written".encode() in painted
    assert hooks(near, "veth0") == 0
