"""What the kernel hands back to its sender is not received: it is in no flow, and not written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flowtop.model.kinds import Direction
from flowtop.recording.recorder import Recorder as PacketRecorder
from tests.kernel.netns import Lab, Namespace, Recorder
from tests.unit.packets import EVERYTHING

SENT = 50


class Writing:
    """A recorder that writes the packets, too."""

    def __init__(self, namespace: Namespace, interface: str, folder: Path) -> None:
        self._packets = PacketRecorder(EVERYTHING)
        self._packets.begin(str(folder / "x.pcapng"), [], new=True)
        self.recorder = Recorder(namespace, interface)
        self._packets.connect(self.recorder.capture)

    def written(self) -> int:
        """How many packets are in the file. Ends it."""
        figures = self._packets.end()
        assert figures is not None and figures.dropped == 0
        return figures.written


@pytest.mark.devices
@pytest.mark.parametrize(("option", "to"), [
    ((socket.SOL_SOCKET, socket.SO_BROADCAST, 1), "10.77.0.255"),
    ((socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1), "224.0.0.251"),
], ids=["broadcast", "multicast"])
def test_the_senders_own_copy_of_a_broadcast_is_no_packet_of_the_interface(
        lab: Lab, option: tuple[int, int, int], to: str, tmp_path: Path) -> None:
    """It passes the ingress hook (dev_loopback_xmit); the device has not received it."""
    near, _ = lab.pair()
    near.ip("addr replace 10.77.0.1/24 broadcast + dev veth0")
    near.ip("route add 224.0.0.0/4 dev veth0")

    def speak() -> int:
        heard = 0
        with (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
              socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender):
            listener.bind(("", 5353))
            listener.settimeout(5)
            if option[0] == socket.IPPROTO_IP:
                listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                                    socket.inet_aton(to) + socket.inet_aton("10.77.0.1"))
            sender.setsockopt(*option)
            for _ in range(SENT):
                sender.sendto(b"here", (to, 5353))
                heard += listener.recv(100) == b"here"
        return heard

    before = near.link_statistics("veth0")
    writing = Writing(near, "veth0", tmp_path)
    with writing.recorder as recorder:
        assert near.call(speak) == SENT, "else this test proves nothing"
        after = near.link_statistics("veth0")
    assert after["rx"]["packets"] == before["rx"]["packets"]
    assert recorder.books.imbalances == []
    arrived, left = (recorder.books.points["veth0", direction] for direction in Direction)
    assert left.flow_packets >= SENT
    assert writing.written() == left.flow_packets
    assert left["frames"] == left["interface_packets"] >= SENT
    assert arrived.flow_packets == arrived["frames"] == arrived["interface_packets"] == 0


@pytest.mark.devices
def test_nor_on_a_device_without_link_header(lab: Lab, tmp_path: Path) -> None:
    near = lab.namespace()
    near.ip("tuntap add tun0 mode tun")
    near.ip("addr add 10.78.0.1/24 dev tun0")
    near.ip("link set tun0 up")
    near.ip("route add 224.0.0.0/4 dev tun0")

    def speak() -> int:
        with (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
              socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender):
            listener.bind(("", 5353))
            listener.settimeout(5)
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                                socket.inet_aton("224.0.0.251") + socket.inet_aton("10.78.0.1"))
            for _ in range(SENT):
                sender.sendto(b"here", ("224.0.0.251", 5353))
            return sum(listener.recv(100) == b"here" for _ in range(SENT))

    writing = Writing(near, "tun0", tmp_path)
    with writing.recorder as recorder:
        assert near.call(speak) == SENT, "else this test proves nothing"
    assert recorder.books.imbalances == []
    arrived = recorder.books.points["tun0", Direction.INGRESS]
    assert arrived.flow_packets == arrived["frames"] == arrived["packets"] == arrived["interface_packets"] == 0
    left = recorder.books.points["tun0", Direction.EGRESS]
    assert writing.written() == left.flow_packets >= SENT
