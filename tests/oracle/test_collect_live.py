"""Real exporters, NetFlow 5, 9 and IPFIX, into a real `flowtop -l`: what they metered is what it lists."""

from __future__ import annotations

import json
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import frames as f
from tests.oracle.collectors import ENVIRONMENT, PATIENCE_S, free_udp_port, needs, write_pcap
from tests.unit.capture.collector import test_sflow as agent

FLOWS, PACKETS = 90, 1_500
Key = tuple[str, str, int, int, int]


def capture_file(path: Path, vnis: tuple[int, ...] = (0,)) -> tuple[Counter[Key], Counter[Key]]:
    """A capture (LINKTYPE_ETHERNET) of TCP and UDP over IPv4; packets and IP octets of each flow, as written.

    Args:
        vnis: of the VXLANs that the flows are in by turns; 0: of those that are in none.
    """
    rng = random.Random(5)
    keys = [(f"10.1.{rng.randrange(9)}.{rng.randrange(1, 250)}", f"10.2.0.{rng.randrange(1, 250)}", rng.choice((6, 17)),
             rng.randrange(1024, 60_000), rng.choice((53, 80, 443))) for _ in range(FLOWS)]
    packets: Counter[Key] = Counter()
    octets: Counter[Key] = Counter()
    base = int(time.time()) - 30
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)]
    for number in range(PACKETS):
        key = keys[number % FLOWS] if number < FLOWS else rng.choice(keys)
        source, destination, protocol, source_port, destination_port = key
        payload = bytes(rng.randrange(20, 1000))  # no padding: softflowd counts it
        if protocol == 6:
            ports = source_port, destination_port
            segment = struct.pack(">HHIIBBHHH", *ports, number, 0, 0x50, 0x10, 1000, 0, 0) + payload
        else:
            segment = struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
        total = 20 + len(segment)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, number, 0, 64, protocol, 0, socket.inet_aton(source),
                         socket.inet_aton(destination))
        frame = b"\2\0\0\0\0\1" + b"\2\0\0\0\0\2" + b"\x08\0" + ip + segment
        vni = vnis[keys.index(key) % len(vnis)]
        if vni:
            frame = f.ethernet(f.IPV4, f.ipv4(f.udp(50_000 + vni, 4789, f.vxlan(vni, frame)), f.UDP))
        out.append(struct.pack("<IIII", base + number * 10 // PACKETS, number, len(frame), len(frame)) + frame)
        packets[key] += 1
        octets[key] += total
    path.write_bytes(b"".join(out))
    return packets, octets


class Collector:
    """A running `flowtop -b -l`, its rounds, and what the newest of them says."""

    def __init__(self, process: subprocess.Popen[str], rounds: Path) -> None:
        self._process = process
        self._rounds = rounds

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds written so far."""
        return [json.loads(line) for line in self._rounds.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, done: Callable[[dict[str, Any]], bool]) -> None:
        """Until a round says so."""
        deadline = time.monotonic() + PATIENCE_S
        while not any(done(found) for found in self.rounds()[-1:]):
            assert time.monotonic() < deadline and self._process.poll() is None, self.rounds()[-1:]
            time.sleep(0.1)

    def end(self) -> dict[str, Any]:
        """Stop it; gives the last round."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(PATIENCE_S) == 0
        return self.rounds()[-1]


@contextmanager
def collecting(directory: Path, url: str, *options: str) -> Iterator[Collector]:
    """`flowtop -b -o json -l url`, once it listens."""
    rounds = directory / "rounds.jsonl"
    with rounds.open("w") as out:
        command = [sys.executable, "-m", "flowtop", "-b", "-o", "json", "-d", "0.2", "-l", url, *options]
        process = subprocess.Popen(command, stdout=out, text=True, env=ENVIRONMENT)
    try:
        collector = Collector(process, rounds)
        collector.wait_for(lambda found: True)
        yield collector
    finally:
        process.kill()
        process.wait()


def sums(rounds: list[dict[str, Any]], name: str) -> Counter[Key]:
    """A delta counter by flow, over all rounds."""
    found: Counter[Key] = Counter()
    for flow in (flow for one in rounds for flow in one["flows"]):
        found[flow["sourceIPv4Address"], flow["destinationIPv4Address"], flow["protocolIdentifier"],
              flow["sourceTransportPort"], flow["destinationTransportPort"]] += flow[name]
    return found


def check(collector: Collector, packets: Counter[Key], octets: Counter[Key]) -> dict[str, Any]:
    """Everything has come, nothing else has, and the books say so."""
    collector.wait_for(lambda found: bool(found["totals"]["accountedPackets"] >= packets.total()))
    last = collector.end()
    assert sums(collector.rounds(), "packetDeltaCount") == packets
    assert sums(collector.rounds(), "octetDeltaCount") == octets
    totals = last["totals"]
    assert totals["observedPackets"] == totals["accountedPackets"] == packets.total()
    assert totals["observedOctets"] == totals["accountedOctets"] == octets.total()
    assert last["collecting"]["refused"] == {} and last["collecting"]["droppedByKernel"] == 0
    assert {flow["exporterIPv4Address"] for one in collector.rounds() for flow in one["flows"]} == {"127.0.0.1"}
    return last


@pytest.mark.parametrize("version", ["5", "9", "10"])
def test_what_softflowd_exports_is_listed(version: str, tmp_path: Path) -> None:
    softflowd = needs("softflowd")
    packets, octets = capture_file(tmp_path / "in.pcap")
    port = free_udp_port()
    with collecting(tmp_path, f"udp://:{port}") as collector:
        subprocess.run([softflowd, "-r", tmp_path / "in.pcap", "-n", f"127.0.0.1:{port}", "-v", version, "-d",
                        "-p", tmp_path / "pid", "-c", "none"], check=True, capture_output=True,
                       timeout=PATIENCE_S)
        check(collector, packets, octets)
        if version == "5":  # which never tells it
            assert not any("flowDirection" in flow for one in collector.rounds() for flow in one["flows"])


NFPROBE = """daemonize: false
pcap_savefile: {path}
plugins: nfprobe
aggregate: src_host, dst_host, src_port, dst_port, proto, tos
nfprobe_receiver: 127.0.0.1:{port}
nfprobe_version: {version}
nfprobe_timeouts: maxlife=1:expint=1
"""


@pytest.mark.parametrize("version", ["5", "9", "10"])
def test_what_nfprobe_exports_is_listed(version: str, tmp_path: Path) -> None:
    pmacctd = needs("pmacctd")
    packets, octets = capture_file(tmp_path / "in.pcap")
    port = free_udp_port()
    (tmp_path / "nfprobe.conf").write_text(NFPROBE.format(path=tmp_path / "in.pcap", port=port, version=version))
    with collecting(tmp_path, f"udp://:{port}") as collector:
        process = subprocess.Popen([pmacctd, "-f", tmp_path / "nfprobe.conf"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        try:
            check(collector, packets, octets)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_capture_exported_by_flowtop_and_collected_by_flowtop_is_the_same(scheme: str, tmp_path: Path) -> None:
    vnis = 0, 100, 200, 300
    packets, octets = capture_file(tmp_path / "in.pcap", vnis)
    port = free_udp_port()
    with collecting(tmp_path, f"{scheme}://:{port}") as collector:
        command = [sys.executable, "-m", "flowtop", "-b", "-o", "none", "-r", tmp_path / "in.pcap", "--decap", "-e",
                   f"ipfix+{scheme}://127.0.0.1:{port}"]
        run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
        assert run.returncode == 0, run.stderr
        last = check(collector, packets, octets)
    assert last["collecting"]["lostRecords"] == 0 and last["collecting"]["optionsRecords"] > 0
    flows = [flow for one in collector.rounds() for flow in one["flows"]]
    assert {flow["interfaceName"] for flow in flows} == {"in.pcap"}
    assert {(flow.get("tunnel"), flow.get("tunnelId", 0)) for flow in flows} == {
        ("vxlan" if vni else None, vni) for vni in vnis}


def test_over_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    packets, octets = capture_file(tmp_path / "in.pcap")
    port = free_udp_port()
    for name in ("collector", "exporter"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True)
    url = f"tls://:{port}?cert={tmp_path}/collector.pem&key={tmp_path}/collector.key&ca={tmp_path}/exporter.pem"
    to = (f"ipfix+tls://127.0.0.1:{port}?ca={tmp_path}/collector.pem&cert={tmp_path}/exporter.pem"
          f"&key={tmp_path}/exporter.key")
    with collecting(tmp_path, url) as collector:
        command = [sys.executable, "-m", "flowtop", "-b", "-o", "none", "-r", tmp_path / "in.pcap", "-e", to]
        run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
        assert run.returncode == 0, run.stderr
        check(collector, packets, octets)


def sflow_datagrams(count: int) -> list[bytes]:
    """What an agent sends: one or two sampled TCP headers in each datagram, and counters that are no flows."""
    rng = random.Random(7)
    found = []
    for number in range(count):
        samples = [agent.sample(agent.raw_header(agent.frame(rng.randrange(20, 1000), rng.choice((None, 12)))),
                                interval=rng.choice((1, 100, 4096)), expanded=bool(rng.randrange(2)))
                   for _ in range(rng.randrange(1, 3))]
        found.append(agent.datagram(agent.COUNTERS, *samples, sequence=number))
    return found


def sampled_by_tshark(path: Path) -> tuple[int, int]:
    """Packets and IP octets, each as often as the agent says that one was taken."""
    run = subprocess.run([needs("tshark"), "-r", path, "-d", "udp.port==4739,sflow", "-T", "json",
                          "--no-duplicate-keys", "-J", "sflow eth ip vlan tcp"], capture_output=True, check=True,
                         env=ENVIRONMENT)
    rates: list[int] = []
    lengths: list[int] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == "sflow.flow_sample.sampling_rate":
                    rates.extend(map(int, inner if isinstance(inner, list) else [inner]))
                elif name == "ip.len":
                    lengths.extend(map(int, inner if isinstance(inner, list) else [inner]))
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    for packet in json.loads(run.stdout):
        walk({name: layer for name, layer in packet["_source"]["layers"].items() if name == "sflow"})
    assert len(rates) == len(lengths)
    return sum(rates), sum(rate * length for rate, length in zip(rates, lengths, strict=True))


def test_what_an_sflow_agent_samples_is_listed_as_tshark_reads_it(tmp_path: Path) -> None:
    datagrams = sflow_datagrams(60)
    write_pcap(tmp_path / "x.pcap", datagrams)
    packets, octets = sampled_by_tshark(tmp_path / "x.pcap")
    port = free_udp_port()
    with collecting(tmp_path, f"sflow://:{port}", "tcp port 443 and exporter 192.0.2.5") as collector:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for octets_sent in datagrams:
                sender.sendto(octets_sent, ("127.0.0.1", port))
        collector.wait_for(lambda found: bool(found["collecting"]["messages"] >= 60))
        last = collector.end()
    totals, collecting_ = last["totals"], last["collecting"]
    assert (totals["accountedPackets"], totals["accountedOctets"]) == (packets, octets)
    flows = [flow for one in collector.rounds() for flow in one["flows"]]
    assert (sum(flow["packetDeltaCount"] for flow in flows), sum(flow["octetDeltaCount"] for flow in flows)) == (
        packets, octets)
    assert {(flow["exporterIPv4Address"], flow["observationDomainId"], flow["interfaceName"]) for flow in flows} == {
        ("192.0.2.5", 9, "if3")}
    assert (collecting_["samplingInterval"], collecting_["refused"], collecting_["lostMessages"]) == (4096, {}, 0)


def test_a_port_in_use_is_told_in_two_lines(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        run = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-l", str(taken.getsockname()[1])],
                             capture_output=True, text=True, env=ENVIRONMENT)
    assert run.returncode == 69 and run.stdout == ""
    assert len(run.stderr.splitlines()) == 2 and "the port is in use" in run.stderr
