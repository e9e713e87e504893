"""Collectors of lines over TCP that misbehave until they are healed, and what arrived at each."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.kernel.netns import Namespace

_SOME_OCTETS = 200_000
"""How much is read before a connection is ended."""
_KEY = ("sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
        "flowDirection", "flowStartMilliseconds", "flowEndMilliseconds", "packetDeltaCount")
"""What tells records apart. A record that has waited on disk has fewer of the other members."""


def records(lines: bytes) -> Counter[tuple[object, ...]]:
    """How often each record is in these lines; one that was cut off is none."""
    found = (json.loads(line) for line in lines.splitlines(keepends=True) if line.endswith(b"\n"))
    return Counter(tuple(record.get(name) for name in _KEY) for record in found)


class FaultyCollector:
    """Listens in a namespace, reads in a thread, and keeps what it has read.

    Args:
        fault: one of FAULTS.
    """

    def __init__(self, namespace: Namespace, fault: str) -> None:
        self._fault = fault
        self._healed, self._ended = threading.Event(), threading.Event()
        self._connections: list[bytearray] = []
        self._socket = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.url = f"jsonl+tcp://127.0.0.1:{self._socket.getsockname()[1]}?reconnect=200ms"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def heal(self) -> None:
        """Read all from now on."""
        self._healed.set()

    def end(self) -> Counter[tuple[object, ...]]:
        """Stop; how often each record has arrived."""
        self._ended.set()
        self._thread.join()
        self._socket.close()
        return sum((records(bytes(octets)) for octets in self._connections), Counter())

    def _run(self) -> None:
        if self._fault == "away":
            self._healed.wait()
        self._socket.listen()
        while not self._ended.is_set():
            with suppress(TimeoutError):
                connection, _ = self._socket.accept()
                connection.settimeout(None)
                self._connections.append(bytearray())
                with connection, suppress(ConnectionError):
                    FAULTS[self._fault](self, connection)
                    if self._healed.is_set():
                        self._read(connection)

    def _read(self, connection: socket.socket, octets: float = float("inf"), pause_s: float = 0.0) -> bool:
        """Read so many octets; with a pause after each thousand, until healed. Returns whether there is more."""
        while octets > 0 and not (pause_s and self._healed.is_set()):
            part = connection.recv(1_000 if pause_s else 1 << 16)
            if not part:
                return False
            self._connections[-1] += part
            octets -= len(part)
            time.sleep(pause_s)
        return True

    def _close(self, connection: socket.socket) -> None:
        if not self._healed.is_set():
            self._read(connection, _SOME_OCTETS)

    def _reset(self, connection: socket.socket) -> None:
        if not self._healed.is_set():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._read(connection, _SOME_OCTETS)

    def _half_close(self, connection: socket.socket) -> None:
        if not self._healed.is_set():
            self._read(connection, _SOME_OCTETS)
            connection.shutdown(socket.SHUT_WR)
            self._read(connection)

    def _stall(self, _: socket.socket) -> None:
        self._healed.wait()

    def _slow(self, connection: socket.socket) -> None:
        self._read(connection, pause_s=0.05)

    def _none(self, connection: socket.socket) -> None:
        self._read(connection)


FAULTS: dict[str, Callable[[FaultyCollector, socket.socket], object]] = {
    "none": FaultyCollector._none, "away": FaultyCollector._none, "closes": FaultyCollector._close,
    "resets": FaultyCollector._reset, "half-closes": FaultyCollector._half_close, "stalls": FaultyCollector._stall,
    "slow": FaultyCollector._slow}
"""What each does with a connection until it is healed."""


def compare(collectors: dict[str, FaultyCollector], recorded: Path) -> dict[str, dict[str, int]]:
    """By fault: records that are in the file and never arrived, and how many came more than once."""
    truth = records(recorded.read_bytes())
    figures = {}
    for fault, collector in collectors.items():
        arrived = collector.end()
        figures[fault] = {"records": truth.total(), "missing": (truth - arrived).total(),
                          "twice": (arrived - truth).total()}
    return figures
