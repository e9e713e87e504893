"""TCP measurements in IPFIX as tshark, nfdump, nfacctd and ipfixDump read them, and tshark's own of a capture."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.frames import ACK, IPV4, PSH, SYN, TCP, ethernet, ipv4
from tests.oracle.collectors import ENVIRONMENT, ipfix_dump, needs, nfacctd_records, nfdump_records, tshark_records
from tests.oracle.test_read_tcp import analysed
from tests.unit.capture.files.writers import SECOND, pcap
from tests.unit.export.test_biflows import both
from tests.unit.export.test_tcp_metrics import KINDS, own, sent

RETRANSMITTED, RETRANSMITTED_BACK, OUT_OF_ORDER, RTT = (
    "cflow.pie.ntop.retransmitted_in_pkts", "cflow.pie.ntop.retransmitted_out_pkts",
    "cflow.pie.ntop.ooorder_in_pkts", "cflow.pie.ixia.conn-avg-rtt")
FIELDS = {"rtt_us": RTT, "retransmitted_delta": RETRANSMITTED, "out_of_order_delta": OUT_OF_ORDER}


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_tshark_names_the_elements(tmp_path: Path, profile: str) -> None:
    found, complaints = tshark_records(sent(own(*KINDS), profile), tmp_path)
    assert not complaints
    rows = {int.from_bytes(fields["cflow.srcport"], "big"): {
        name: int.from_bytes(fields[element], "big") for name, element in FIELDS.items() if element in fields}
        for _, pairs in found for fields in [dict(pairs)] if "cflow.srcport" in fields}
    assert rows == dict(enumerate(KINDS, 1))


def test_tshark_reads_biflows(tmp_path: Path) -> None:
    there, back = both(1)
    there["rtt_us"], there["retransmitted_delta"], back["retransmitted_delta"] = 25_300, 3, 4
    octets = sent(np.concatenate([there, back]), "strict", biflow=True)
    found, complaints = tshark_records(octets, tmp_path)
    assert not complaints
    [fields] = [dict(pairs) for _, pairs in found if "cflow.srcport" in dict(pairs)]
    assert [int.from_bytes(fields[name], "big") for name in (RTT, RETRANSMITTED, RETRANSMITTED_BACK)] == [25_300, 3, 4]


@pytest.mark.parametrize("profile", ["default", "nfdump"])
def test_nfdump_reads_all_the_rest(tmp_path: Path, profile: str) -> None:
    found, errors = nfdump_records(sent(own(*KINDS), profile), tmp_path)
    assert sorted((row["src_port"], row["in_packets"], row["in_bytes"]) for row in found) == [
        (port, port, 100 * port) for port in range(1, len(KINDS) + 1)]
    assert not errors


@pytest.mark.parametrize("profile", ["default", "pmacct"])
def test_nfacctd_reads_all_the_rest(tmp_path: Path, profile: str) -> None:
    found, complaints = nfacctd_records(sent(own(*KINDS), profile), len(KINDS), tmp_path)
    assert sorted((row["packets"], row["bytes"]) for row in found) == [
        (port, 100 * port) for port in range(1, len(KINDS) + 1)]
    assert not complaints


def test_ipfix_dump_reads_all_the_rest(tmp_path: Path) -> None:
    dumped, errors = ipfix_dump(b"".join(sent(own(*KINDS), "strict")), tmp_path)
    assert not errors
    assert sorted(int(dict(pairs)["packetDeltaCount"]) for _, pairs in dumped if "packetDeltaCount" in dict(pairs)) == \
        list(range(1, len(KINDS) + 1))


def segment(sequence: int, octets: int, bits: int, *, back: bool = False) -> bytes:
    ports = (443, 40_000) if back else (40_000, 443)
    header = struct.pack(">HHIIBBHHH", *ports, sequence, 1, 0x50, bits, 60_000, 0, 0) + bytes(octets)
    return ethernet(IPV4, ipv4(header, TCP))


def test_records_of_a_capture_add_up_to_what_tshark_counts(tmp_path: Path) -> None:
    """A connection of 200 s, so of several records at the active timeout; each 20 s a segment is sent again."""
    needs("tshark")
    packets, at, sequence = [(0, segment(100, 0, SYN))], SECOND, 101
    for number in range(100):
        packets.append((at, segment(sequence, 100, ACK | PSH)))
        sequence += 100
        if number % 10 == 5:
            packets.append((at + SECOND // 2, segment(sequence - 100, 100, ACK | PSH)))
        at += 2 * SECOND
    capture, exported = tmp_path / "x.pcap", tmp_path / "flows.ipfix"
    capture.write_bytes(pcap(packets))
    subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "none", "-r", capture, "-e", f"file:{exported}"],
                   capture_output=True, check=True, timeout=120)
    run = subprocess.run(["tshark", "-r", exported, "-T", "fields", "-e", RETRANSMITTED], capture_output=True,
                         check=True, text=True, env=ENVIRONMENT)
    counts = [int(number) for number in run.stdout.replace(",", " ").split()]
    [(retransmitted, _)] = analysed(capture).values()
    assert retransmitted == 10 and sum(counts) == retransmitted and len(counts) >= 3
