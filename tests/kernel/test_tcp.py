"""What a local socket knows of its TCP connection, in the flow table: the same as `ss -ti` says of that socket."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction
from flowtop.model.record import FlowBatch
from tests.kernel.netns import Books, Lab, Namespace, Recorder, eventually

DELAY_S = 0.02
NEAR, FAR, PORT = "10.83.0.1", "10.83.0.2", 5201
_TUNSETIFF, _TUN, _NO_PI = 0x400454CA, 1, 0x1000


def tun(namespace: Namespace, address: str, peer: str) -> int:
    """A tun device "wire" in there; what the namespace sends is read from the descriptor."""
    def make() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"wire", _TUN | _NO_PI))
        return descriptor

    descriptor = namespace.call(make)
    namespace.ip(f"addr add {address} peer {peer} dev wire")
    namespace.ip("link set wire up")
    return descriptor


class Wire:
    """Carries packets between two tun devices, each DELAY_S late; loses one in `lose` of the first one's data segments.

    A network emulator the kernel need not have.
    """

    def __init__(self, left: int, right: int, lose: int) -> None:
        self._other = {left: right, right: left}
        self._left, self._lose = left, lose
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self._large = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        while not self._stop.is_set():
            due_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else 0.05
            for descriptor in select.select(list(self._other), [], [], due_s)[0]:
                packet = os.read(descriptor, 65536)
                if descriptor == self._left and len(packet) > 1000:
                    self._large += 1
                    if self._large % self._lose == 0:
                        continue
                self._waiting.append((time.monotonic() + DELAY_S, self._other[descriptor], packet))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, to, packet = self._waiting.popleft()
                os.write(to, packet)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for descriptor in self._other:
            os.close(descriptor)


@dataclass
class Metered(Books):
    """Books that feed a flow table too."""

    table: FlowTable = field(default_factory=lambda: FlowTable(TableConfig(idle_timeout_s=3600, end_timeout_s=3600)))

    def add(self, batch: FlowBatch) -> None:
        super().add(batch)
        self.table.update(batch)

    def column(self, name: str, direction: Direction) -> int:
        """Of the one flow of that direction."""
        columns, visible = self.table.columns, self.table.visible
        (value,) = columns[name][visible & (columns["direction"] == direction)].tolist()
        return int(value)


@pytest.fixture
def wired() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        near, far = lab.namespace(), lab.namespace()
        near.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_slow_start_after_idle")
        wire = Wire(tun(near, NEAR, FAR), tun(far, FAR, NEAR), lose=12)
        try:
            yield near, far
        finally:
            wire.close()


@contextmanager
def connected(near: Namespace, far: Namespace) -> Iterator[tuple[socket.socket, socket.socket]]:
    listener = far.call(lambda: socket.create_server((FAR, PORT)))
    client = near.call(socket.socket)
    with listener, client:
        client.connect((FAR, PORT))
        server, _ = listener.accept()
        with server:
            yield client, server


def told_by_ss(namespace: Namespace) -> dict[str, float]:
    """rtt in us, cwnd, segments retransmitted and not yet acknowledged, of the one connection."""
    text = namespace.run("ss", "-tinH", "state", "established")
    found = {name: float(match[1]) if (match := re.search(pattern, text)) else 0.0 for name, pattern in (
        ("rtt", r"\brtt:([\d.]+)/"), ("cwnd", r"\bcwnd:(\d+)"), ("retrans", r"\bretrans:\d+/(\d+)"),
        ("unacked", r"\bunacked:(\d+)"))}
    return found | {"rtt": round(found["rtt"] * 1000)}


@pytest.mark.core
def test_round_trip_window_and_retransmissions_are_what_ss_says(wired: tuple[Namespace, Namespace]) -> None:
    near, far = wired
    octets = 60_000  # fits the buffers of both sockets
    with Recorder(near, "wire", delay_s=0.05) as recorder:
        recorder.books = books = Metered()
        with connected(near, far) as (client, server):
            client.sendall(bytes(octets))
            received = 0
            while received < octets:
                received += len(server.recv(65536))
            eventually(lambda: not told_by_ss(near)["unacked"], "everything is acknowledged")
            expected = told_by_ss(near)
            client.sendall(b"!")  # goes out with what the socket knew then
            names = {"rtt": "rtt_us", "cwnd": "congestion_window", "retrans": "retransmitted"}

            def found() -> dict[str, float]:
                return {"unacked": 0} | {word: books.column(name, Direction.EGRESS) for word, name in names.items()}

            eventually(lambda: found() == expected, f"{found()} becomes {expected}")
            assert server.recv(1) == b"!"
            assert expected["retrans"] > 0 and expected["rtt"] >= 2 * DELAY_S * 1e6
        eventually(lambda: books.column("fin_ns", Direction.INGRESS) > 0, "the server's FIN")
    for direction in Direction:
        syn, fin, first, last = (books.column(name, direction) for name in ("syn_ns", "fin_ns", "first_ns", "last_ns"))
        assert first == syn < fin <= last
    assert books.column("rst_ns", Direction.EGRESS) == 0
    for name in ("rtt_us", "congestion_window", "retransmitted"):
        assert books.column(name, Direction.INGRESS) == 0, "no socket here sends that flow"
    gap_ns = books.column("syn_ns", Direction.INGRESS) - books.column("syn_ns", Direction.EGRESS)
    assert gap_ns >= 2 * DELAY_S * 1e9 - 10_000_000, "SYN to SYN-ACK, but for ticks of the coarse clock"


def test_a_refused_connection_has_its_reset_and_no_round_trip(wired: tuple[Namespace, Namespace]) -> None:
    near, far = wired
    with Recorder(near, "wire") as recorder:
        recorder.books = books = Metered()
        with near.call(socket.socket) as client, pytest.raises(ConnectionRefusedError):
            client.connect((FAR, PORT))
    assert books.column("rst_ns", Direction.INGRESS) > 0 and books.column("syn_ns", Direction.EGRESS) > 0
    assert books.column("rtt_us", Direction.EGRESS) == 0
    assert books.column("congestion_window", Direction.EGRESS) > 0, "of the socket that sent the SYN"
    del far


def test_a_receiving_socket_has_the_round_trip_and_window_that_ss_says(wired: tuple[Namespace, Namespace]) -> None:
    """With owners, as they look the socket up; what it has retransmitted stays with the direction that it sends."""
    near, far = wired
    names = {"rtt": "rtt_us", "cwnd": "congestion_window"}
    with Recorder(near, "wire", delay_s=0.05, owners=True) as recorder:
        recorder.books = books = Metered()
        with connected(near, far) as (client, server):
            client.sendall(bytes(60_000))
            received = 0
            while received < 60_000:
                received += len(server.recv(65536))
            eventually(lambda: not told_by_ss(near)["unacked"], "everything is acknowledged")
            expected = told_by_ss(near)
            assert expected["retrans"] > 0 and expected["rtt"] >= 2 * DELAY_S * 1e6

            def found() -> dict[str, float]:
                server.sendall(b"!")  # comes in, so that the socket is looked at again
                return {word: books.column(name, Direction.INGRESS) for word, name in names.items()}

            eventually(lambda: found() == {word: expected[word] for word in names}, f"{found()} becomes {expected}")
            assert books.column("retransmitted", Direction.EGRESS) == expected["retrans"]
            assert books.column("retransmitted", Direction.INGRESS) == 0

