"""What a Transport Session says of itself, read by tshark and ipfixDump, beside the clock and sums made here."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtop.export.backlog import QueueBounds
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import MeteringFacts
from flowtop.export.transports import udp
from flowtop.text.lookups import Lookups
from tests.oracle.collectors import ipfix_dump, needs, tshark_records
from tests.oracle.test_export_tcp import collector
from tests.oracle.test_export_udp import received
from tests.unit.export.flows import flows, until

FACTS = MeteringFacts(Lookups({3: "eth0"}), ignored_packets=5, ignored_octets=500, first_ignored_ms=1_700_000_000_111,
                      last_ignored_ms=1_700_000_000_222)
WALL_S = 1_600_000_000
TEMPLATES, OPTIONS_TEMPLATES = 2, 3


def is_flows(message: bytes) -> bool:
    return message[16:18] in (b"\1\0", b"\1\1")


def sequence(message: bytes) -> int:
    return int.from_bytes(message[8:12], "big")


def messages(octets: bytes) -> list[bytes]:
    """Cut by the length in each header (RFC 7011 section 3.1)."""
    found = []
    while octets:
        length = int.from_bytes(octets[2:4], "big")
        found.append(octets[:length])
        octets = octets[length:]
    return found


def ahead(offset: list[float]) -> Callable[[], float]:
    """A clock that runs, and can be put forward."""
    return lambda: time.monotonic() + offset[0]


def listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def test_udp_templates_come_again_by_seconds(tmp_path: Path) -> None:
    offset, batches = [0.0], []
    with listen() as listener:
        exporter = open_exporter(f"ipfix://127.0.0.1:{listener.getsockname()[1]}?refresh=1000s", tmp_path,
                                 monotonic=ahead(offset))
        exporter.update(FACTS)
        exporter.start()
        for number, passed in enumerate((0.0, 900.0, 1_001.0, 1_900.0, 2_002.0)):
            offset[0] = passed
            exporter.consume(flows(1, number + 1))
            until(lambda known=number + 1: exporter.statistics().sent_records == known, exporter.statistics)
            batches.append([int.from_bytes(datagram[16:18], "big") for datagram in received(listener)])
        exporter.stop(5.0)
    assert [TEMPLATES in batch and OPTIONS_TEMPLATES in batch for batch in batches] == [True, False, True, False, True]


def test_a_burst_that_templates_interrupt_leaves_no_gap_in_the_sequence(tmp_path: Path) -> None:
    count, records = 1_200, flows(1_200)
    records["ip_version"] = 4
    with listen() as listener:
        exporter = open_exporter(f"ipfix://127.0.0.1:{listener.getsockname()[1]}?refresh-packets=2", tmp_path)
        exporter.update(FACTS)
        exporter.consume(records)
        exporter.start()
        assert exporter.stop(10.0).sent_records == count
        datagrams = received(listener)
    seen, complaints = tshark_records(datagrams, tmp_path)
    assert not complaints
    assert len([number for number, _ in seen if number < 263]) == count
    lengths = [(len(datagram) - 16 - 4, sequence(datagram)) for datagram in datagrams if is_flows(datagram)]
    one = sum(length for length, _ in lengths) // count  # Octets of a record: all are of one Template.
    assert len(lengths) > 6
    assert [number for _, number in lengths] == [sum(length for length, _ in lengths[:i]) // one
                                                 for i in range(len(lengths))]


def test_messages_have_512_octets_at_most_where_the_path_mtu_is_unknown(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknowing(socket.socket):
        def getsockopt(self, *arguments: int) -> int:  # type: ignore[override]
            raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(udp.socket, "socket", Unknowing)
    with listen() as listener:
        exporter = open_exporter(f"ipfix://127.0.0.1:{listener.getsockname()[1]}", tmp_path)
        exporter.update(FACTS)
        exporter.consume(flows(70))
        exporter.start()
        assert exporter.stop(10.0).sent_records == 70
        datagrams = received(listener)
    assert 512 - 120 < max(map(len, datagrams)) <= 512
    seen, complaints = tshark_records(datagrams, tmp_path)
    assert not complaints and len([number for number, _ in seen if number < 263]) == 70


def recorded(tmp_path: Path) -> bytes:
    """A file of 100 flows, and 30 more that the queue had no room for, on 2020-09-13."""
    path = tmp_path / "flows.ipfix"
    exporter = open_exporter(f"file:{path}", tmp_path, bounds=QueueBounds(records=100), wall=lambda: WALL_S + 0.9)
    exporter.update(FACTS)
    exporter.consume(flows(130))
    exporter.start()
    assert exporter.stop(10.0).sent_records == 100
    return path.read_bytes()


def test_export_time_is_the_clocks_time_in_seconds(tmp_path: Path) -> None:
    recorded(tmp_path)
    read = subprocess.run([needs("tshark"), "-r", tmp_path / "flows.ipfix", "-T", "fields", "-e", "cflow.exporttime"],
                          capture_output=True, text=True, check=True)
    times = [int(word) for word in re.split(r"[\s,]+", read.stdout.strip())]
    assert len(times) > 3 and set(times) == {WALL_S}


def test_the_last_reports_say_what_was_exported_ignored_and_not_sent(tmp_path: Path) -> None:
    octets = recorded(tmp_path)
    records, complaints = ipfix_dump(octets, tmp_path)
    assert not complaints
    before = messages(octets)[:-1]  # The last message is the one that has the reports.
    exported, ignored, not_sent = (_only(records, name) for name in (
        "exportedMessageTotalCount", "ignoredPacketTotalCount", "notSentFlowTotalCount"))
    assert exported["exportedMessageTotalCount"] == str(len(before))
    assert exported["exportedOctetTotalCount"] == str(sum(map(len, before)))
    assert exported["exportedFlowRecordTotalCount"] == "100"
    assert (ignored["ignoredPacketTotalCount"], ignored["ignoredOctetTotalCount"]) == ("5", "500")
    assert not_sent["notSentFlowTotalCount"] == "30"
    assert not_sent["notSentPacketTotalCount"] == str(sum(range(101, 131)))
    assert not_sent["notSentOctetTotalCount"] == str(100 * sum(range(101, 131)))
    times = [[value for name, value in fields if name == "observationTimeMilliseconds"] for _, fields in records]
    assert [pair for pair in times if pair] == [
        ["2023-11-14 22:13:20.111", "2023-11-14 22:13:20.222"], ["2020-09-13 12:26:40.900"] * 2]


def _only(records: list[tuple[int, list[tuple[str, str]]]], name: str) -> dict[str, str]:
    found, = (dict(fields) for _, fields in records if name in dict(fields))
    return found


def test_reports_come_once_a_minute_over_tcp(tmp_path: Path) -> None:
    offset = [0.0]
    with collector(tmp_path / "in") as listening:
        exporter = open_exporter(f"ipfix+tcp://127.0.0.1:{listening.port}", tmp_path / "s", monotonic=ahead(offset))
        exporter.update(FACTS)
        exporter.start()
        for number, passed in enumerate((0.0, 50.0, 61.0, 110.0, 122.0)):
            offset[0] = passed
            exporter.consume(flows(10, 10 * number + 1))
            until(lambda known=10 * (number + 1): exporter.statistics().sent_records == known, exporter.statistics)
        exporter.stop(10.0)
        octets, = listening.sessions()
    records, complaints = ipfix_dump(octets, tmp_path)
    assert not complaints
    found = [int(dict(fields)["exportedFlowRecordTotalCount"]) for _, fields in records
             if "exportedFlowRecordTotalCount" in dict(fields)]
    # After a minute, after another, and in the end: a tick may be what reports, before or after the records are sent.
    assert len(found) == 3 and found[0] in (20, 30) and found[1] in (40, 50) and found[2] == 50
