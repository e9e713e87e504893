"""UDP: nfcapd and nfacctd receive, and no datagram is above the path MTU, in a network namespace with a narrow link."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportState, MeteringFacts
from flowtop.model.kinds import Tunnel
from flowtop.text.lookups import Lookups
from flowtop.wire.ipfix_decoder import decode_message
from flowtop.wire.template_store import TemplateStore
from tests.oracle.collectors import ENVIRONMENT, NFACCTD, _listening, _queued, free_udp_port, needs, tshark_records
from tests.unit.export.flows import flows, until

FACTS = MeteringFacts(Lookups({3: "eth0"}))
COUNT = 600


def export_to(port: int, tmp_path: Path, options: str = "") -> None:
    """Export COUNT records in bursts of 60, each when the collector has read the one before."""
    exporter = open_exporter(f"ipfix://127.0.0.1:{port}{options}", tmp_path / "state")
    exporter.update(FACTS)
    exporter.start()
    for start in range(1, COUNT + 1, 60):
        exporter.consume(flows(60, start))
        until(lambda known=start + 59: exporter.statistics().sent_records == known, exporter.statistics)
        until(lambda: _queued(port) == 0, exporter.statistics)
    figures = exporter.stop(5.0)
    assert (figures.sent_records, figures.not_sent_records, figures.last_error) == (COUNT, 0, "")


def test_nfcapd_gets_every_flow_without_a_sequence_error(tmp_path: Path) -> None:
    port, directory, log = free_udp_port(), tmp_path / "flows", tmp_path / "log"
    directory.mkdir()
    command = [needs("nfcapd"), "-w", directory, "-b", "127.0.0.1", "-p", str(port), "-t", "3600"]
    with _listening(command, "Startup nfcapd", signal.SIGTERM, log):
        export_to(port, tmp_path)
    summary = re.search(r"Flows: (\d+), Packets: (\d+), Bytes: (\d+), Sequence Errors: (\d+), Bad Packets: (\d+)",
                        log.read_text())
    assert summary, log.read_text()
    total = COUNT * (COUNT + 1) // 2
    assert [int(number) for number in summary.groups()] == [COUNT, total, 100 * total, 0, 0]
    run = subprocess.run([needs("nfdump"), "-R", directory, "-o", "json"], capture_output=True, text=True, check=True,
                         env=ENVIRONMENT)
    found = json.loads(run.stdout[run.stdout.index("["):run.stdout.rindex("]") + 1])
    assert sorted(flow["in_packets"] for flow in found) == list(range(1, COUNT + 1))


def test_nfacctd_gets_every_flow(tmp_path: Path) -> None:
    port, path, configuration = free_udp_port(), tmp_path / "out.json", tmp_path / "conf"
    configuration.write_text(NFACCTD.format(port=port, path=path))

    def packets() -> list[int]:
        return [json.loads(line)["packets"] for line in path.read_text().splitlines()] if path.exists() else []

    log = tmp_path / "log"
    with _listening([needs("nfacctd"), "-f", configuration], "Purging cache - END", signal.SIGINT, log):
        export_to(port, tmp_path)
        total = COUNT * (COUNT + 1) // 2
        until(lambda: sum(packets()) >= total, log.read_text)
    assert sum(packets()) == total
    assert not re.search("malformed|WARN|ERROR", log.read_text())


def test_templates_come_again_by_packets_and_a_late_listener_understands(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        exporter = open_exporter(f"ipfix://127.0.0.1:{listener.getsockname()[1]}?refresh-packets=3", tmp_path / "s")
        exporter.update(FACTS)
        exporter.start()
        for start in range(1, 101, 10):
            exporter.consume(flows(10, start))
            until(lambda known=start + 9: exporter.statistics().sent_records == known, exporter.statistics)
        exporter.stop(5.0)
        datagrams = received(listener)
    announced = [number for number, datagram in enumerate(datagrams)
                 if decode_message(datagram, TemplateStore(), session=number, datagram=True).templates]
    flow_datagrams = [number for number, datagram in enumerate(datagrams) if datagram[16:18] in (b"\1\0", b"\1\1")]
    assert len(flow_datagrams) == 10
    # Every fourth datagram of flows at the latest follows Templates: between two announcements are three at most.
    for start, end in zip(flow_datagrams, flow_datagrams[3:], strict=False):
        assert any(start < number < end for number in announced)
    records, complaints = tshark_records(datagrams, tmp_path)
    assert not complaints
    assert len([number for number, _ in records if number < 263]) == 100


def received(listener: socket.socket) -> list[bytes]:
    datagrams = []
    while True:
        try:
            datagrams.append(listener.recv(65_535))
        except BlockingIOError:
            return datagrams


def test_a_datagram_that_meets_the_refusal_of_one_before_is_sent_all_the_same(tmp_path: Path) -> None:
    port = free_udp_port()
    exporter = open_exporter(f"ipfix://127.0.0.1:{port}", tmp_path / "state")
    exporter.start()
    exporter.consume(flows(10))
    until(lambda: exporter.statistics().sent_records == 10, exporter.statistics)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", port))
        listener.setblocking(False)
        exporter.consume(flows(10, 11))
        figures = exporter.stop(5.0)
        datagrams = received(listener)
    assert figures.sent_records == 20
    data = [datagram for datagram in datagrams if datagram[16:18] in (b"\1\0", b"\1\1")]
    # No Template came while nobody listened: 10 records of 300 octets at most in one datagram, sequence 10.
    assert [int.from_bytes(datagram[8:12], "big") for datagram in data] == [10]


NARROW = """
import socket, subprocess, sys
from pathlib import Path
from flowtop.export.opening import open_exporter
from tests.unit.export.flows import flows, until

def received():
    sizes = []
    while True:
        try:
            sizes.append(len(listener.recv(65535)))
        except BlockingIOError:
            return sizes

with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
    listener.bind(("::", 4739))
    listener.setblocking(False)
    for host, wide, narrow in (("192.0.2.1", 1500, 1300), ("[2001:db8::1]", 1500, 1400)):
        subprocess.run(["ip", "link", "set", "lo", "mtu", str(wide)], check=True)
        exporter = open_exporter(f"ipfix://{host}", Path(sys.argv[1]))
        exporter.start()
        exporter.consume(flows(70))
        until(lambda: exporter.statistics().sent_records == 70, exporter.statistics)
        print(*received())
        subprocess.run(["ip", "link", "set", "lo", "mtu", str(narrow)], check=True)
        exporter.consume(flows(70, 71))
        figures = exporter.stop(10.0)
        assert (figures.sent_records, figures.not_sent_records) == (140, 0), figures
        print(*received())
"""


NARROWER = """
import subprocess, sys
from pathlib import Path
from flowtop.export.transports import udp
from flowtop.export.opening import open_exporter
from tests.oracle.test_export_udp import received, socket
from tests.unit.export.flows import flows

class Narrowing(socket.socket):
    sent = 0
    def send(self, octets):
        Narrowing.sent += 1
        if Narrowing.sent == 12:
            subprocess.run(["ip", "link", "set", "lo", "mtu", "1300"], check=True)
        return super().send(octets)

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("192.0.2.1", 4739))
    listener.setblocking(False)
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)
    udp.socket.socket = Narrowing
    exporter = open_exporter("ipfix://192.0.2.1", Path(sys.argv[1]))
    exporter.consume(flows(200))
    exporter.start()
    figures = exporter.stop(10.0)
    assert (figures.sent_records, figures.not_sent_records, figures.last_error) == (200, 0, ""), figures
    for datagram in received(listener):
        print(datagram.hex())
"""


def in_a_namespace(script: str, tmp_path: Path) -> str:
    """What the script prints, run where lo has an address of its own and any MTU."""
    name = f"gexp{os.getpid()}"
    route = f"ip -n {name} "
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in ("link set lo up", "addr add 192.0.2.1/32 dev lo", "addr add 2001:db8::1/128 dev lo nodad"):
            subprocess.run((route + command).split(), check=True)
        run = subprocess.run(["ip", "netns", "exec", name, sys.executable, "-c", script, tmp_path / "s"],
                             capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_a_path_that_becomes_narrower_in_the_middle_of_a_burst_costs_nothing(tmp_path: Path) -> None:
    datagrams = [bytes.fromhex(line) for line in in_a_namespace(NARROWER, tmp_path).splitlines()]
    seen, complaints = tshark_records(datagrams, tmp_path)
    assert not complaints, "a fault of sequence, for example"
    assert len([number for number, _ in seen if number < 263]) == 200
    sizes = [len(datagram) for datagram in datagrams]
    wide = [place for place, size in enumerate(sizes) if size > 1300 - 28]
    assert wide and max(sizes) <= 1500 - 28
    assert max(wide) < 11, "the twelfth met the narrow link, and all after it fit"


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_a_burst_of_70_records_never_makes_a_packet_above_the_path_mtu(tmp_path: Path) -> None:
    bursts = [[int(size) for size in line.split()] for line in in_a_namespace(NARROW, tmp_path).splitlines()]
    # IPv4 before and after the link became narrower, then IPv6: less IP and UDP headers.
    for sizes, limit in zip(bursts, (1500 - 28, 1300 - 28, 1500 - 48, 1400 - 48), strict=True):
        assert limit - 120 < max(sizes) <= limit


def test_a_port_where_nobody_listens_is_shown_and_a_listener_ends_that(tmp_path: Path) -> None:
    port = free_udp_port()
    exporter = open_exporter(f"ipfix://127.0.0.1:{port}", tmp_path / "state")
    exporter.start()
    for start in range(1, 401, 40):
        exporter.consume(flows(40, start))
    until(lambda: exporter.statistics().sent_records == 400, exporter.statistics)
    figures = exporter.statistics()
    assert (figures.state, figures.last_error) == (
        ExportState.BLOCKED, "port unreachable")
    assert figures.refusal == "port unreachable"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", port))
        for number in range(10):
            exporter.consume(flows(1, 1000 + number))
            until(lambda known=401 + number: exporter.statistics().sent_records == known, exporter.statistics)
        until(lambda: exporter.statistics().state is ExportState.EXPORTING, exporter.statistics)
        figures = exporter.stop(5.0)
    assert figures.refused_messages and not figures.refusal


def test_a_path_narrower_than_576_octets_is_used(tmp_path: Path) -> None:
    """RFC 791 lets a link be narrow; tcpdump's view of the datagrams is the receiver's."""
    script = f"""
import socket, sys, time
from pathlib import Path
from flowtop.export.opening import open_exporter
from tests.unit.export.flows import flows
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("127.0.0.1", 0)); listener.settimeout(5)
exporter = open_exporter(f"ipfix://127.0.0.1:{{listener.getsockname()[1]}}", Path({str(tmp_path)!r}))
records = flows(70)
records["tunnel"], records["tunnel_id"] = {Tunnel.VXLAN}, range(70)  # their names fill several datagrams
exporter.start(); exporter.consume(records); figures = exporter.stop(5.0)
largest = max(len(listener.recv(9999)) for _ in range(figures.sent_messages))
print(figures.sent_records, figures.last_error or "no error", largest)
"""
    run = subprocess.run(["unshare", "--net", "sh", "-c", 'ip link set lo up mtu 548 && exec "$0" -c "$1"',
                          sys.executable, script], capture_output=True, text=True, timeout=60,
                         cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    sent, *error, largest = run.stdout.split()
    assert (sent, error) == ("70", ["no", "error"])
    assert 300 < int(largest) <= 548 - 28


def test_templates_with_every_datagram_and_no_record_twice(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        exporter = open_exporter(f"ipfix://127.0.0.1:{listener.getsockname()[1]}?refresh-packets=1", tmp_path / "s")
        records = flows(3000)
        records["tunnel"][::2], records["tunnel_id"][::2] = Tunnel.VXLAN, 1 + records["flow_id"][::2] % 50
        exporter.consume(records)
        exporter.start()
        figures = exporter.stop(10.0)
        datagrams = received(listener)
    assert (figures.sent_records, len(datagrams)) == (3000, figures.sent_messages)
    found, complaints = tshark_records(datagrams, tmp_path)
    assert not complaints
    assert len([number for number, _ in found if number < 263]) == 1500
    vnis = [int.from_bytes(dict(fields)["cflow.layer2_segment_id"][1:], "big") for number, fields in found
            if number >= 272]
    assert sorted(vnis) == sorted(1 + identity % 50 for identity in range(1, 3001, 2))
