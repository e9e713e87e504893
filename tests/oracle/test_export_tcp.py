"""TCP and TLS: what a Python collector takes from the wire, read by ipfixDump and tshark."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from flowtop.export.exporter import Exporter
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportState, MeteringFacts
from flowtop.text.lookups import Lookups
from tests.oracle.collectors import ipfix_dump, tshark_file
from tests.unit.export.flows import flows, until

COLLECTOR = Path(__file__).with_name("export_collector.py")


class Collector:
    """A collector's process; `restart` kills it with SIGKILL first."""

    def __init__(self, directory: Path, *certificates: Path, host: str = "127.0.0.1") -> None:
        self.directory = directory
        self.host = host
        self.port = 0
        self._certificates = certificates
        self._process: subprocess.Popen[str] | None = None
        directory.mkdir()
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, COLLECTOR, self.directory, self.host, str(self.port), *self._certificates],
            stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def sessions(self) -> list[bytes]:
        """What came in each connection, cut after its last whole message."""
        return [whole(path.read_bytes()) for path in sorted(self.directory.iterdir())]


def whole(octets: bytes) -> bytes:
    """Whole messages: version, length, 12 octets more, and what the length says."""
    end = 0
    while len(octets) - end >= 16:
        length = int.from_bytes(octets[end + 2:end + 4], "big")
        if end + length > len(octets):
            break
        end += length
    return octets[:end]


@contextmanager
def collector(directory: Path, *certificates: Path, host: str = "127.0.0.1") -> Iterator[Collector]:
    running = Collector(directory, *certificates, host=host)
    try:
        yield running
    finally:
        running.kill()


def flow_ids(octets: bytes, directory: Path) -> list[int]:
    """flowId of each Flow Record as ipfixDump reads them; it has nothing to complain of."""
    records, complaints = ipfix_dump(octets, directory)
    assert not complaints, complaints
    return [int(dict(fields)["flowId"]) for template, fields in records if 256 <= template < 263]


def dump_all(sessions: list[bytes], directory: Path) -> list[list[int]]:
    return [flow_ids(octets, directory) for octets in sessions if octets]


def exporter(url: str, state: Path) -> Exporter:
    made = open_exporter(url, state)
    made.update(MeteringFacts(Lookups({3: "eth0"}), 5, 500, 1, 2))
    made.start()
    return made


def test_a_session_over_tcp_is_read_whole_by_both_decoders(tmp_path: Path) -> None:
    with collector(tmp_path / "in") as listening:
        export = exporter(f"ipfix+tcp://127.0.0.1:{listening.port}", tmp_path / "state")
        for start in range(1, 1_001, 100):
            export.consume(flows(100, start))
        figures = export.stop(10.0)
        assert (figures.sent_records, figures.not_sent_records, figures.spooled_records) == (1_000, 0, 0)
        octets, = listening.sessions()
    assert figures.sent_octets == len(octets)
    records, complaints = ipfix_dump(octets, tmp_path)
    assert not complaints
    data = [dict(fields) for template, fields in records if 256 <= template < 263]
    assert sorted(int(flow["flowId"]) for flow in data) == list(range(1, 1_001))
    assert sum(int(flow["packetDeltaCount"]) for flow in data) == 1_000 * 1_001 // 2
    assert sum(int(flow["octetDeltaCount"]) for flow in data) == 100 * 1_000 * 1_001 // 2
    options = [dict(fields) for template, fields in records if template >= 263]
    assert any(fields.get("interfaceName") == "eth0" for fields in options)
    assert any(fields.get("ignoredPacketTotalCount") == "5" for fields in options)
    assert [fields["exportedFlowRecordTotalCount"] for fields in options
            if "exportedFlowRecordTotalCount" in fields] == ["1000"]
    seen, complaints = tshark_file(tmp_path / "messages.ipfix")
    assert not complaints
    assert len([number for number, _ in seen if 256 <= number < 263]) == 1_000


def killed_five_times(listening: Collector, url: str, tmp_path: Path) -> None:
    """Under load; every record arrives, and no decoder sees a sequence fault."""
    export, sent = exporter(url, tmp_path / "state"), 0
    for _ in range(5):
        for _ in range(40):
            export.consume(flows(100, sent + 1))
            sent += 100
        until(lambda: bool(listening.sessions()) and bool(listening.sessions()[-1]), export.statistics)
        listening.kill()
        killed = len(listening.sessions())
        export.consume(flows(500, sent + 1))
        sent += 500
        until(lambda: export.statistics().state in (ExportState.WAITING, ExportState.CONNECTING),
              export.statistics)
        listening.start()
        until(lambda known=killed: len(listening.sessions()) > known, export.statistics)
    figures = export.stop(20.0)
    sessions = listening.sessions()
    assert len(sessions) >= 6
    arrived = [identity for ids in dump_all(sessions, tmp_path) for identity in ids]
    assert set(arrived) == set(range(1, sent + 1))
    assert len(arrived) - sent <= figures.repeated_records
    assert (figures.sent_records, figures.not_sent_records) == (sent, 0)


def test_a_collector_killed_five_times_under_load_gets_every_record_and_sees_no_sequence_fault(tmp_path: Path) -> None:
    with collector(tmp_path / "in") as listening:
        killed_five_times(listening, f"ipfix+tcp://127.0.0.1:{listening.port}?reconnect=0.05s", tmp_path)


def test_an_ipv6_collector_gets_everything_over_tcp(tmp_path: Path) -> None:
    with collector(tmp_path / "in", host="::1") as listening:
        export = exporter(f"ipfix+tcp://[::1]:{listening.port}", tmp_path / "state")
        export.consume(flows(500))
        figures = export.stop(10.0)
        octets, = listening.sessions()
    assert (figures.sent_records, figures.spooled_records) == (500, 0), figures
    assert sorted(flow_ids(octets, tmp_path)) == list(range(1, 501))


def test_a_collector_away_at_the_start_and_over_a_restart_gets_everything(tmp_path: Path) -> None:
    with collector(tmp_path / "in") as listening:
        listening.kill()
        url = f"ipfix+tcp://127.0.0.1:{listening.port}?reconnect=0.05s"
        first = exporter(url, tmp_path / "state")
        first.consume(flows(3_000))
        until(lambda: first.statistics().last_error != "", first.statistics)
        figures = first.stop(0.02)
        assert (figures.spooled_records, figures.sent_records, figures.not_sent_records) == (3_000, 0, 0)
        assert "Connection refused" in figures.last_error
        listening.start()
        second = exporter(url, tmp_path / "state")
        second.consume(flows(10, 3_001))
        figures = second.stop(20.0)
        assert (figures.sent_records, figures.spooled_records) == (3_010, 0)
        ids, = dump_all(listening.sessions(), tmp_path)
    assert sorted(ids[:3_000]) == list(range(1, 3_001)) and sorted(ids[3_000:]) == list(range(3_001, 3_011))


def test_a_collector_that_never_reads_is_shown_and_neither_blocks_the_stop_nor_costs_a_record(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        url = f"ipfix+tcp://127.0.0.1:{listening.getsockname()[1]}"
        export = exporter(url, tmp_path / "state")
        total = 0
        while export.statistics().state is not ExportState.BLOCKED:
            assert total < 4_000_000
            if export.statistics().queued_records < 20_000:
                export.consume(flows(10_000, total + 1))
                total += 10_000
        figures = export.stop(0.2)
    assert figures.sent_records + figures.spooled_records == total
    assert figures.not_sent_records == 0


@pytest.mark.parametrize("talks", [False, True])
def test_a_short_flush_to_a_collector_that_has_it_all_and_does_not_close(tmp_path: Path, talks: bool) -> None:
    """Nothing is kept for the next run; nor does a collector that talks without end hold anything up."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def collect() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(0.01)
                while not done.is_set():
                    with suppress(OSError):
                        if talks:
                            connection.send(bytes(65_536))
                        connection.recv(1 << 20)

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            process = exporter(f"ipfix+tcp://127.0.0.1:{listener.getsockname()[1]}", tmp_path / "state")
            process.consume(flows(500))
            until(lambda: process.statistics().sent_records == 500, process.statistics)
            figures = process.stop(0.5)
        finally:
            done.set()
            thread.join()
    assert (figures.sent_records, figures.spooled_records, figures.not_sent_records) == (500, 0, 0)
