"""Real flows out of a real `flowtop -e`, read by decoders that nobody here wrote, beside the interface's counters."""

from __future__ import annotations

import gzip
import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kernel.netns import PATIENCE_S, Lab, Namespace, eventually, hooks
from tests.kernel.test_command import Command
from tests.oracle.collectors import ENVIRONMENT, NFACCTD, ipfix_dump, needs, tshark_file, tshark_json_sums
from tests.oracle.test_export_tcp import COLLECTOR, whole
from tests.oracle.test_export_tls import authority, certificate

ETHERNET_HEADER = 14
UDP_PORTS = range(20_000, 20_200)

Flow = tuple[str, int, int]
"""Destination address, destination port, protocol."""


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        near, far = lab.pair(offload=False)
        for namespace, number, other in ((near, 1, 2), (far, 2, 1)):
            for setting in ("router_solicitations=0", "accept_ra=0", "disable_ipv6=0"):
                namespace.run("sysctl", "-qw", f"net.ipv6.conf.veth0.{setting}")
            namespace.ip(f"addr add 2001:db8::{number}/64 dev veth0 nodad")
            namespace.ip(f"neigh add 2001:db8::{other} lladdr 02:00:00:00:77:0{other} dev veth0")
        yield near, far


class InNamespace:
    """A collector inside a namespace, killed at the end; what it says goes to a file."""

    def __init__(self, namespace: Namespace, log: Path, *words: str | Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(namespace.command(*map(str, words)), stdout=out, stderr=subprocess.STDOUT,
                                            env=ENVIRONMENT)

    def said(self, text: str) -> None:
        """Wait until it has said so."""
        eventually(lambda: text in self.log.read_text() or self.process.poll() is not None, text)
        assert self.process.poll() is None, self.log.read_text()

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def __enter__(self) -> InNamespace:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def counters(namespace: Namespace) -> tuple[int, int]:
    """Packets and IP octets that the interface itself counted, both ways."""
    ways = namespace.link_statistics("veth0").values()
    packets = sum(way["packets"] for way in ways)
    return packets, sum(way["bytes"] for way in ways) - ETHERNET_HEADER * packets


def await_quiet(namespace: Namespace) -> tuple[int, int]:
    """The counters, once they have stood still for a second: what IPv6 says of itself has been said."""
    before = counters(namespace)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        time.sleep(1.0)
        now = counters(namespace)
        if now == before:
            return now
        before = now
        assert time.monotonic() < deadline, "the interface never falls silent"


def udp_flows(ports: range) -> dict[Flow, tuple[int, int]]:
    """What `send_udp` sends: packets and IP octets of each flow."""
    return {("10.77.0.2", port, 17): (1 + port % 3, (1 + port % 3) * (20 + 8 + 10 + port % 90)) for port in ports}


def send_udp(ports: range) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in ports:
            for _ in range(1 + port % 3):
                sender.sendto(b"x" * (10 + port % 90), ("10.77.0.2", port))


def send_tcp(near: Namespace, far: Namespace, octets: int) -> None:
    """One connection over IPv6, its payload known, its segments the kernel's business."""
    with far.call(lambda: socket.create_server(("2001:db8::2", 5_000), family=socket.AF_INET6)) as listener:
        def swallow() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65_536):
                    pass

        reader = threading.Thread(target=swallow)
        reader.start()
        with near.call(lambda: socket.create_connection(("2001:db8::2", 5_000))) as sender:
            sender.sendall(bytes(octets))
        reader.join()


def dumped(octets: bytes, directory: Path) -> tuple[dict[Flow, tuple[int, int]], int, int, dict[str, str]]:
    """As ipfixDump reads them: flows, Σ packets, Σ octets, and the last report on metering's reliability."""
    records, complaints = ipfix_dump(octets, directory)
    assert not complaints, complaints
    flows = [dict(fields) for _, fields in records if "packetDeltaCount" in dict(fields)]
    reports = [dict(fields) for _, fields in records if "ignoredPacketTotalCount" in dict(fields)]
    found = by_flow((flow.get("destinationIPv4Address") or flow["destinationIPv6Address"],
                     int(flow["destinationTransportPort"]), int(flow["protocolIdentifier"]),
                     int(flow["packetDeltaCount"]), int(flow["octetDeltaCount"])) for flow in flows)
    return (found, sum(int(flow["packetDeltaCount"]) for flow in flows),
            sum(int(flow["octetDeltaCount"]) for flow in flows), reports[-1])


def by_flow(rows: Iterator[tuple[str, int, int, int, int]]) -> dict[Flow, tuple[int, int]]:
    packets: Counter[Flow] = Counter()
    octets: Counter[Flow] = Counter()
    for text, port, protocol, some_packets, some_octets in rows:
        address = str(ipaddress.ip_address(text))
        packets[address, port, protocol] += some_packets
        octets[address, port, protocol] += some_octets
    return {flow: (packets[flow], octets[flow]) for flow in packets}


def subset(found: dict[Flow, tuple[int, int]], ports: range) -> dict[Flow, tuple[int, int]]:
    return {flow: counts for flow, counts in found.items() if flow[1] in ports and flow[2] == 17}


@contextmanager
def collectors(near: Namespace, directory: Path) -> Iterator[dict[str, InNamespace]]:
    """nfcapd, nfacctd, and one that keeps what TCP and TLS bring, at ports of their own."""
    for name in ("nfcapd", "tcp", "tls", "pki"):
        (directory / name).mkdir()
    ca = authority(directory / "pki", "own")
    server = certificate(directory / "pki", "server", ca, "IP:127.0.0.1")
    configuration, printed = directory / "nfacctd.conf", directory / "nfacctd.json"
    configuration.write_text(NFACCTD.format(port=2_056, path=printed))
    with ExitStack() as stack:
        def begin(name: str, ready: str, *words: str | Path) -> InNamespace:
            running = stack.enter_context(InNamespace(near, directory / f"{name}.log", *words))
            running.said(ready)
            return running

        yield {
            "nfcapd": begin("nfcapd", "Startup nfcapd", needs("nfcapd"), "-w", directory / "nfcapd", "-b", "127.0.0.1",
                            "-p", "2055", "-t", "3600"),
            "nfacctd": begin("nfacctd", "Purging cache - END", needs("nfacctd"), "-f", configuration),
            "tcp": begin("tcp", "4739", sys.executable, COLLECTOR, directory / "tcp", "127.0.0.1", "4739"),
            "tls": begin("tls", "4740", sys.executable, COLLECTOR, directory / "tls", "127.0.0.1", "4740",
                         *server),
        }


def nfdump_flows(directory: Path, log: str) -> tuple[dict[Flow, tuple[int, int]], int, int]:
    """What nfcapd kept, and its own sums; it has seen no sequence error."""
    summary = re.search(r"Flows: (\d+), Packets: (\d+), Bytes: (\d+), Sequence Errors: 0, Bad Packets: 0", log)
    assert summary, log
    run = subprocess.run([needs("nfdump"), "-R", directory, "-o", "json"], capture_output=True, text=True, check=True,
                         env=ENVIRONMENT)
    rows = json.loads(run.stdout[run.stdout.index("["):run.stdout.rindex("]") + 1])
    found = by_flow((row.get("dst4_addr") or row["dst6_addr"], row.get("dst_port", 0), row["proto"],
                     row["in_packets"], row["in_bytes"]) for row in rows)
    assert sum(packets for packets, _ in found.values()) == int(summary[2])
    return found, int(summary[2]), int(summary[3])


def nfacctd_flows(path: Path) -> tuple[dict[Flow, tuple[int, int]], int, int]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    numbers = {"udp": 17, "tcp": 6, "icmp": 1, "ipv6-icmp": 58}
    found = by_flow((row["ip_dst"], row["port_dst"], numbers.get(row["ip_proto"], 0), row["packets"], row["bytes"])
                    for row in rows)
    return found, sum(row["packets"] for row in rows), sum(row["bytes"] for row in rows)


def test_what_every_decoder_reads_is_what_the_interface_counted(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, far = pair
    path, packed = tmp_path / "flows.ipfix", tmp_path / "flows.ipfix.gz"
    with collectors(near, tmp_path) as running:
        before = await_quiet(near)
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.2", "-i", "veth0", "--state-directory",
                          str(tmp_path / "state"), "-e", "ipfix://127.0.0.1:2055", "-e", "ipfix+udp://127.0.0.1:2056",
                          "-e", "ipfix+tcp://127.0.0.1", "-e",
                          f"ipfix+tls://127.0.0.1?ca={tmp_path}/pki/own.pem", "-e", f"file:{path}", "-e",
                          f"file:{packed}")
        command.await_rounds()
        assert hooks(near, "veth0") == 2
        assert counters(near) == before, "nothing came before the hooks did"
        near.call(lambda: send_udp(UDP_PORTS))
        send_tcp(near, far, 300_000)
        near.run("ping", "-q", "-c", "7", "-i", "0.01", "-s", "100", "10.77.0.2")
        near.run("ping", "-q", "-c", "5", "-i", "0.01", "-s", "200", "2001:db8::2")
        assert command.end(signal.SIGINT) == 0
        after = counters(near)
        assert command.errors().count("flow records sent\n") == 6, command.errors()
        running["nfcapd"].end(signal.SIGTERM)
        flow_packets = command.rounds()[-1]["totals"]["accountedPackets"]
        eventually(lambda: nfacctd_flows(tmp_path / "nfacctd.json")[1] >= flow_packets, "nfacctd's output")
    found, packets, octets, report = dumped(path.read_bytes(), tmp_path)
    ignored = int(report["ignoredPacketTotalCount"]), int(report["ignoredOctetTotalCount"])
    # Everything the interface counted is in a Flow Record, or in the report on what was ignored.
    assert (packets + ignored[0], octets + ignored[1]) == (after[0] - before[0], after[1] - before[1])
    assert subset(found, UDP_PORTS) == udp_flows(UDP_PORTS)
    assert found["10.77.0.2", 0, 1] == (7, 7 * (20 + 8 + 100))
    assert found["2001:db8::2", 0, 58][1] >= 5 * (40 + 8 + 200), "and neighbour discovery"
    assert found["2001:db8::2", 5_000, 6][1] >= 300_000
    for name in ("tcp", "tls"):
        session, = (tmp_path / name).iterdir()
        assert dumped(session.read_bytes(), tmp_path)[:3] == (found, packets, octets)
    assert dumped(gzip.decompress(packed.read_bytes()), tmp_path)[:3] == (found, packets, octets)
    read, complaints = tshark_file(path)
    assert not complaints
    flows = [dict(fields) for _, fields in read if "cflow.packets" in dict(fields)]
    assert (sum(int.from_bytes(flow["cflow.packets"], "big") for flow in flows),
            sum(int.from_bytes(flow["cflow.octets"], "big") for flow in flows)) == (packets, octets)
    assert tshark_json_sums(path) == (len(flows), packets, octets)
    for kept in (nfdump_flows(tmp_path / "nfcapd", running["nfcapd"].log.read_text()),
                 nfacctd_flows(tmp_path / "nfacctd.json")):
        assert kept[1:] == (packets, octets)
        assert subset(kept[0], UDP_PORTS) == udp_flows(UDP_PORTS)


def test_a_collector_killed_five_times_under_load_has_every_record_at_least_once(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    (tmp_path / "tcp").mkdir()

    def start() -> InNamespace:
        running = InNamespace(near, tmp_path / "tcp.log", sys.executable, COLLECTOR, tmp_path / "tcp", "127.0.0.1",
                                "4739")
        running.said("4739")
        return running

    def arrived() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "tcp").iterdir())

    collector = start()
    try:
        command = Command(near, tmp_path, "-b", "-o", "json", "--top", "1", "-d", "0.1", "-i", "veth0",
                          "--idle-timeout", "1", "--state-directory", str(tmp_path / "state"), "-e", "ipfix+tcp://127.0.0.1?reconnect=0.1s")
        command.await_rounds()
        ports = iter(range(20_000, 60_000, 500))
        for _ in range(5):
            known = arrived()
            near.call(lambda: send_udp(range(start := next(ports), start + 500)))
            eventually(lambda known=known: arrived() > known + 10_000, "records at the collector")
            collector.end(signal.SIGKILL)
            near.call(lambda: send_udp(range(start := next(ports), start + 500)))
            collector = start()
        near.call(lambda: send_udp(range(start := next(ports), start + 500)))
        assert command.end(signal.SIGTERM) == 0
        eventually(lambda: "flow records sent" in command.errors(), "the last line")
    finally:
        collector.end(signal.SIGKILL)
    last = next(ports)
    records: Counter[tuple[int, int, int]] = Counter()
    for session in sorted((tmp_path / "tcp").iterdir()):
        octets = whole(session.read_bytes())
        if octets:
            read, complaints = ipfix_dump(octets, tmp_path)
            assert not complaints, "ipfixDump found a sequence fault"
            records.update((int(flow["flowId"]), int(flow["destinationTransportPort"]), int(flow["packetDeltaCount"]))
                           for flow in (dict(fields) for template, fields in read if template == 256))
    sent = {(port, 1 + port % 3) for port in range(20_000, last)}
    assert {(port, packets) for _, port, packets in records} >= sent
    assert len([1 for _, port, _ in records if 20_000 <= port < last]) == len(sent), "each flow is one record"
    twice = re.search(r"(\d+) may arrive twice", command.errors())
    assert sum(records.values()) - len(records) <= int(twice[1] if twice else 0), "duplicates were in flight"
    assert "NOT SENT" not in command.errors()
