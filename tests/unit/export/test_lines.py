"""`jsonl+tcp://` and `jsonl+udp://`: the lines of `jsonl:` arrive at a socket, whole and once."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportStatistics
from flowtop.export.transports import udp
from flowtop.export.url import parse_export_url
from flowtop.fields.records import plain_records
from flowtop.process import agent
from flowtop.text.lookups import NO_LOOKUPS
from tests.prepared import run_flowtop
from tests.unit.cli.test_reading import CAPTURE
from tests.unit.export.flows import PATIENCE_S, flows, until

LOOPBACK = pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])


class Lines:
    """A collector of lines: what it received, by datagram or read."""

    def __init__(self, kind: socket.SocketKind, host: str) -> None:
        self.parts: list[bytes] = []
        self._kind = kind
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        self.socket.bind((host.strip("[]"), 0))
        if kind == socket.SOCK_STREAM:
            self.socket.listen()
        self.port: int = self.socket.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with self.socket as reading:
            reading.settimeout(0.05)
            while not self._over.is_set():
                try:
                    if self._kind == socket.SOCK_DGRAM:
                        self.parts.append(reading.recv(65_535))
                        continue
                    with reading.accept()[0] as connection:
                        connection.settimeout(PATIENCE_S)
                        while octets := connection.recv(65_535):
                            self.parts.append(octets)
                except TimeoutError:
                    continue

    def records(self) -> list[dict[str, Any]]:
        """All complete lines."""
        return [json.loads(line) for line in b"".join(self.parts).splitlines(keepends=True) if line.endswith(b"\n")]


def export(url: str, records: Any, collector: Lines) -> ExportStatistics:
    exporter = open_exporter(url, None)
    exporter.start()
    exporter.consume(records)
    until(lambda: len(collector.records()) >= len(records), lambda: (exporter.statistics(), len(collector.parts)))
    return exporter.stop(PATIENCE_S)


@LOOPBACK
@pytest.mark.parametrize("count", [1, 7, 1_000])
def test_lines_over_tcp(host: str, count: int) -> None:
    records = flows(count)
    with Lines(socket.SOCK_STREAM, host) as collector:
        found = export(f"jsonl+tcp://{host}:{collector.port}", records, collector)
    assert collector.records() == [record | {"agent": agent()} for record in plain_records(records, NO_LOOKUPS)]
    assert (found.sent_records, found.queued_records, found.not_sent_records, found.last_template_unix_s) == (
        count, 0, 0, None)
    assert found.sent_octets == sum(map(len, collector.parts))


@LOOPBACK
@pytest.mark.parametrize(("count", "room"), [(1, 9_000), (60, 9_000), (60, 1_472), (40, 300)])
def test_lines_over_udp_are_whole_in_each_datagram(host: str, count: int, room: int,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "path_octets", lambda _: room)
    records = flows(count)
    with Lines(socket.SOCK_DGRAM, host) as collector:
        found = export(f"jsonl+udp://{host}:{collector.port}", records, collector)
    assert collector.records() == [record | {"agent": agent()} for record in plain_records(records, NO_LOOKUPS)]
    assert all(part.endswith(b"\n") and (len(part) <= room or part.count(b"\n") == 1) for part in collector.parts)
    lengths = [len(line) + 1 for line in b"".join(collector.parts).splitlines()]
    assert len(collector.parts) <= -(-sum(lengths) // max(room - max(lengths), min(lengths))), "together"
    assert (found.sent_records, found.sent_messages) == (count, len(collector.parts))


def test_lines_wait_for_a_collector_and_are_not_doubled() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    exporter = open_exporter(f"jsonl+tcp://127.0.0.1:{port}?reconnect=50ms", None)
    exporter.start()
    exporter.consume(flows(5))
    until(lambda: bool(exporter.statistics().last_error), exporter.statistics)
    assert exporter.statistics().queued_records == 5
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as server:
        connection = server.accept()[0]
        with connection:
            stopping = threading.Thread(target=lambda: exporter.stop(PATIENCE_S))
            stopping.start()
            while octets := connection.recv(65_535):
                received.append(octets)
        stopping.join()
    assert [json.loads(line)["flowId"] for line in b"".join(received).splitlines()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("url", [
    "jsonl+tcp://", "jsonl+udp:h", "jsonl+tcp://:5", "jsonl+udp://h:5?reconnect=5s", "jsonl+tcp://h:5?profile=strict",
    "jsonl+udp://h:5?biflow=on", "jsonl+tcp://h:5?compress=gzip", "jsonl+udp://h:0"])
def test_what_is_not_valid(url: str) -> None:
    with pytest.raises(FlowtopError) as refusal:
        parse_export_url(url)
    assert refusal.value.exit_code == EXIT_USAGE and refusal.value.hint


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_command_sends_the_lines_of_a_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(CAPTURE)
    with Lines(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM, "127.0.0.1") as collector:
        done = run_flowtop("-b", "-o", "none", "-r", tmp_path / "x.pcap", "-e",
                           f"jsonl+{kind}://127.0.0.1:{collector.port}", "-e", f"jsonl:{tmp_path}/x.jsonl")
        assert done.returncode == 0, done.stderr
        expected = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
        until(lambda: len(collector.records()) == len(expected), lambda: collector.parts)
    assert collector.records() == expected
