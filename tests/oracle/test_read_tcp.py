"""TCP of capture files: segments that came late and the handshake's round trip, as tshark tells them."""

from __future__ import annotations

import ipaddress
import shutil
import struct
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtop.capture.files.capture import FileConfig
from flowtop.metering.table import FlowTable
from tests.kernel.frames import ACK, IPV4, PSH, SYN, TCP, ethernet, ipv4
from tests.oracle.test_read import CAPTURES, EXPECTED
from tests.unit.capture.files.reading import read_table
from tests.unit.capture.files.writers import SECOND, pcap

pytestmark = pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark: apt-get install tshark")
MS = 1_000_000
End = tuple[str, int]


def told(table: FlowTable, *names: str) -> dict[tuple[End, End], tuple[int, ...]]:
    """Columns of TCP flows by source and destination."""
    columns = table.columns
    found = {}
    for slot in np.flatnonzero(table.visible & (columns["protocol"] == TCP)):
        size = 4 if columns["ip_version"][slot] == 4 else 16
        ends = [(str(ipaddress.ip_address(bytes(columns[f"{side}_address"][slot])[:size])),
                 int(columns[f"{side}_port"][slot])) for side in ("source", "destination")]
        found[ends[0], ends[1]] = tuple(int(columns[name][slot]) for name in names)
    return found


def tshark(path: Path, *fields: str, only: str = "tcp") -> list[list[str]]:
    """A row a packet: its ends, then these fields."""
    ends = ("ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport")
    words = [word for field in (*ends, *fields) for word in ("-e", field)]
    run = subprocess.run(["tshark", "-r", path, "-Y", only, "-T", "fields", *words], check=True, capture_output=True,
                         text=True)
    return [line.split("\t") for line in run.stdout.splitlines()]


def ends_of(row: list[str]) -> tuple[End, End]:
    return (row[0] or row[1], int(row[2])), (row[3] or row[4], int(row[5]))


def analysed(path: Path) -> dict[tuple[End, End], tuple[int, int]]:
    """(retransmitted, out of order) of each flow.

    What tshark calls spurious as it was acknowledged, though the capture has it for the first time, came out of order.
    """
    counts: Counter[tuple[Any, str]] = Counter()
    seen: defaultdict[tuple[End, End], set[str]] = defaultdict(set)
    prefix = "tcp.analysis."
    for row in tshark(path, f"{prefix}retransmission", f"{prefix}out_of_order", f"{prefix}spurious_retransmission",
                      "tcp.seq_raw"):
        flow, again = ends_of(row), bool(row[6]) and not (row[8] and row[9] not in seen[ends_of(row)])
        counts[flow, "retransmitted"] += again
        counts[flow, "out of order"] += bool(row[6] or row[7]) and not again
        seen[flow].add(row[9])
    return {flow: (counts[flow, "retransmitted"], counts[flow, "out of order"]) for flow in seen}


def handshakes(path: Path) -> dict[tuple[End, End], int]:
    """us from SYN to SYN-ACK, by the frames' times; of both ways."""
    syns, found = {}, {}
    for row in tshark(path, "frame.time_epoch", "tcp.flags.ack", only="tcp.flags.syn==1"):
        source, destination = ends_of(row)
        seconds, _, fraction = row[6].partition(".")
        ns = int(seconds) * SECOND + int(fraction.ljust(9, "0"))
        if row[7] not in ("1", "True"):
            syns[source, destination] = ns
        elif (opened := syns.get((destination, source))) is not None:
            us = max(1, (ns - opened) // 1000)
            found[source, destination] = found[destination, source] = us
    return found


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("tick_s", [None, 0.001])
@pytest.mark.parametrize("name", ["eth-ipv4-tcp-http-ooo", "simple-tcpv4", "simple-tcpv6",
                                  "eth-ip4-arp-dns-req-http-google", "iperf-same-L2L3"])
def test_shared_captures(name: str, tick_s: float | None) -> None:
    path = CAPTURES / f"{name}.pcap"
    table = read_table(path, FileConfig(str(path), tick_s))
    assert told(table, "retransmitted", "out_of_order") == analysed(path)
    assert {flow: rtt for flow, (rtt,) in told(table, "rtt_us").items() if rtt} == handshakes(path)


def segment(ports: tuple[int, int], sequence: int, acknowledged: int, bits: int, octets: int = 0) -> bytes:
    """A frame; the server is 10.0.0.2."""
    header = struct.pack(">HHIIHHHH", *ports, sequence % 2**32, acknowledged % 2**32, 5 << 12 | bits, 0xFFFF, 0, 0)
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2"} if ports[1] == 80 else {
        "source": "10.0.0.2", "destination": "10.0.0.1"}
    return ethernet(IPV4, ipv4(header + bytes(octets), TCP, **ends))


def connection(port: int, start: int, round_trip_ms: int,
               steps: Iterable[tuple[int, float]]) -> list[tuple[int, bytes]]:
    """A handshake, then segments of 100 octets from the client: (hundreds, ms after it). Nothing is acknowledged: so
    tshark goes by times alone."""
    there, back = (port, 80), (80, port)
    frames = [(0, segment(there, start, 0, SYN)), (round_trip_ms * MS, segment(back, 9, start + 1, SYN | ACK)),
              (round_trip_ms * MS + MS // 10, segment(there, start + 1, 10, ACK))]
    return frames + [(round((round_trip_ms + 1 + ms) * MS),
                      segment(there, start + 1 + 100 * hundreds, 10, ACK | PSH, 100)) for hundreds, ms in steps]


CONNECTIONS = {
    "in order": [(0, 0), (1, 1), (2, 2)],
    "sent again before anybody asked": [(0, 0), (1, 1), (2, 90), (1, 300), (2, 301), (3, 302)],
    "lost on the way here": [(0, 0), (2, 1), (1, 200), (3, 201)],
    "reordered": [(0, 0), (2, 1), (1, 2), (3, 3), (5, 4), (4, 4.5), (6, 5)],
    "both": [(0, 0), (2, 1), (1, 2), (3, 3), (3, 300), (5, 301), (4, 600)],
}


@pytest.mark.parametrize("tick_s", [None, 0.01])
def test_generated_connections(tmp_path: Path, tick_s: float | None) -> None:
    frames = []
    for number, start in enumerate((1000, 2**32 - 150, 2**31 - 100)):
        for port, steps in enumerate(CONNECTIONS.values(), 1000 + 100 * number):
            frames += [(ns + port * 10 * SECOND, frame) for ns, frame in connection(port, start, 25, steps)]
    path = tmp_path / "generated.pcap"
    path.write_bytes(pcap(sorted(frames, key=lambda one: one[0]), nano=True))
    table = read_table(path, FileConfig(str(path), tick_s))
    expected = analysed(path)
    assert told(table, "retransmitted", "out_of_order") == expected
    assert sum(retransmitted for retransmitted, _ in expected.values()) >= 15
    assert sum(reordered for _, reordered in expected.values()) >= 9
    assert {flow: rtt for flow, (rtt,) in told(table, "rtt_us").items()} == handshakes(path)


def test_frames_that_were_cut_count_by_their_headers(tmp_path: Path) -> None:
    frames = connection(1000, 5, 25, [(0, 0), (2, 1), (1, 2), (3, 3), (1, 500)])
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap(frames, snap=54))
    assert told(read_table(path), "retransmitted", "out_of_order")[("10.0.0.1", 1000), ("10.0.0.2", 80)] == (1, 1)
