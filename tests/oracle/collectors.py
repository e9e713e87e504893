"""Decoders that nobody here wrote, and how to ask them: tshark, ipfixDump, nfcapd with nfdump, nfacctd."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

IPFIX_PORT = 4739
PACKAGES = {"tshark": "tshark", "text2pcap": "wireshark-common", "ipfixDump": "libfixbuf-tools", "nfcapd": "nfdump",
            "nfacctd": "pmacct", "pmacctd": "pmacct", "softflowd": "softflowd"}
PATIENCE_S = 60.0
ENVIRONMENT = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def needs(tool: str) -> str:
    """The tool's path; skips the test where it is not installed."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed (apt-get install {PACKAGES[tool]})")
    return path


def write_pcap(path: Path, payloads: Sequence[bytes]) -> None:
    """A capture file (LINKTYPE_RAW): each payload in one UDP datagram from 127.0.0.1 to port 4739."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)]
    for number, payload in enumerate(payloads):
        udp = struct.pack(">HHHH", 40_000, IPFIX_PORT, 8 + len(payload), 0) + payload
        address = socket.inet_aton("127.0.0.1")
        packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0, address, address) + udp
        out.append(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)
    path.write_bytes(b"".join(out))


Fields = list[tuple[str, bytes]]


def tshark_records(payloads: Sequence[bytes], directory: Path) -> tuple[list[tuple[int, Fields]], list[str]]:
    """What tshark reads in datagrams: Data Records as (Set ID, [(field's name, octets)]), and its complaints."""
    path = directory / "messages.pcap"
    write_pcap(path, payloads)
    return tshark_file(path)


def tshark_file(path: Path) -> tuple[list[tuple[int, Fields]], list[str]]:
    """The same of a capture file, or of an RFC 5655 file."""
    run = subprocess.run([needs("tshark"), "-r", path, "-T", "pdml", "-J", "cflow"], capture_output=True, check=True,
                         env=ENVIRONMENT)
    root = ElementTree.fromstring(run.stdout)
    records = []
    for part in root.iterfind(".//proto[@name='cflow']/field"):
        found = re.match(r"Set \d+ \[id=(\d+)\]", part.get("show", ""))
        if found:
            records += [(int(found[1]), _tshark_fields(flow)) for flow in part.iterfind("field")
                        if flow.get("show", "").startswith("Flow ")]
    complaints = [element.get("showname", "") for element in root.iter()
                  if re.search("expert|malformed|sequence_analysis|no_template", element.get("name", ""))]
    return records, complaints


def tshark_json_sums(path: Path) -> tuple[int, int, int]:
    """Flow Records, packets and octets by `tshark -T json`, of a capture file or an RFC 5655 file."""
    run = subprocess.run([needs("tshark"), "-r", path, "-T", "json", "-J", "cflow", "--no-duplicate-keys"],
                         capture_output=True, check=True, env=ENVIRONMENT)

    def flows(node: object) -> Iterator[tuple[int, int]]:
        if isinstance(node, dict):
            if {"cflow.packets", "cflow.octets"} <= node.keys():
                yield int(node["cflow.packets"]), int(node["cflow.octets"])
            else:
                for value in node.values():
                    yield from flows(value)
        elif isinstance(node, list):
            for value in node:
                yield from flows(value)

    found = list(flows(json.loads(run.stdout)))
    return len(found), sum(packets for packets, _ in found), sum(octets for _, octets in found)


def _tshark_fields(flow: ElementTree.Element) -> Fields:
    """The fields that have octets, by position: start and end time stand below a duration that has none."""
    fields = []
    for element in flow:
        inside = [element] if int(element.get("size", 0)) else list(element)
        fields += [(int(field.get("pos", 0)), field.get("name", ""), bytes.fromhex(field.get("value", "")))
                   for field in inside if int(field.get("size", 0)) and field.get("name") != "cflow.padding"]
    return [(name, octets) for _, name, octets in sorted(fields, key=lambda item: item[0])]


def ipfix_dump(octets: bytes, directory: Path) -> tuple[list[tuple[int, list[tuple[str, str]]]], str]:
    """What ipfixDump reads of an RFC 5655 file: (Template ID, [(element, value)]) a record, and its complaints."""
    path = directory / "messages.ipfix"
    path.write_bytes(octets)
    run = subprocess.run([needs("ipfixDump"), "--in", path], capture_output=True, text=True, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr
    records: list[tuple[int, list[tuple[str, str]]]] = []
    in_data = False
    for line in run.stdout.splitlines():
        if line.startswith(("---", "***")):
            in_data = line.startswith("--- data record")
        elif in_data and (found := re.search(r"tid:\s+(\d+)", line)):
            records.append((int(found[1]), []))
        elif in_data and (found := re.match(r"\s+\((?:\d+/)?\d+\)(?: \(S\))?\s+(\w+) : (?:\(len: \d+\) )?(.*)", line)):
            records[-1][1].append((found[1], found[2]))
    return records, run.stderr


def free_udp_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _listening(command: Sequence[str | Path], ready: str, stop: signal.Signals, log: Path) -> Iterator[None]:
    """A collector from the moment it says that it listens until it has ended; `log` is what it says."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    try:
        _wait_until(lambda: ready in log.read_text() or process.poll() is not None, f"{command[0]} does not listen")
        assert process.poll() is None, log.read_text()
        yield
        process.send_signal(stop)
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()


def _send(payloads: Sequence[bytes], port: int) -> None:
    """Send datagrams one by one, each when the collector has taken the one before: none is dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for payload in payloads:
            sender.sendto(payload, ("127.0.0.1", port))
            _wait_until(lambda: _queued(port) == 0, "the collector stopped reading")


def _queued(port: int) -> int:
    """Octets that wait in the receive queues of a UDP port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(words[4].split(":")[1], 16) for words in map(str.split, lines)
               if int(words[1].split(":")[1], 16) == port)


def _wait_until(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


def nfdump_records(payloads: Sequence[bytes], directory: Path) -> tuple[list[dict[str, Any]], int]:
    """What nfcapd receives and nfdump reads, and the sequence errors it counted."""
    flows, port = directory / "nfcapd", free_udp_port()
    flows.mkdir()
    command = [needs("nfcapd"), "-w", flows, "-b", "127.0.0.1", "-p", str(port), "-t", "3600"]
    log = directory / "nfcapd.log"
    with _listening(command, "Startup nfcapd", signal.SIGTERM, log):
        _send(payloads, port)
    summary = re.search(r"Flows: (\d+),.*Sequence Errors: (\d+), Bad Packets: (\d+)", log.read_text())
    assert summary and summary[3] == "0", log.read_text()
    run = subprocess.run([needs("nfdump"), "-R", flows, "-o", "json"], capture_output=True, text=True, check=True,
                         env=ENVIRONMENT)
    records = json.loads(run.stdout[run.stdout.index("["):run.stdout.rindex("]") + 1])
    assert len(records) == int(summary[1])
    return records, int(summary[2])


NFACCTD = """daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: {port}
plugins: print
aggregate: src_host, dst_host, src_port, dst_port, proto, tos, tcpflags, in_iface, out_iface, src_mac, dst_mac, vlan, \
timestamp_start, timestamp_end
print_output: json
print_output_file: {path}
print_output_file_append: true
print_refresh_time: 1
nfacctd_time_new: true
timestamps_since_epoch: true
"""


NFACCTD_TUNNEL = "name=tunnel field_type=138 len=8 semantics=u_int\n"
"""observationPointId, which nfacctd tells flows apart by when it is asked to."""


def nfacctd_records(payloads: Sequence[bytes], count: int, directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What nfacctd's print plugin writes of `count` flows, and its complaints."""
    path, port, configuration = directory / "nfacctd.json", free_udp_port(), directory / "nfacctd.conf"
    primitives = directory / "primitives.lst"
    primitives.write_text(NFACCTD_TUNNEL)
    words = NFACCTD.format(port=port, path=path).replace("timestamp_end\n", "timestamp_end, tunnel\n")
    configuration.write_text(f"{words}aggregate_primitives: {primitives}\n")

    def lines() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    log = directory / "nfacctd.log"
    with _listening([needs("nfacctd"), "-f", configuration], "Purging cache - END", signal.SIGINT, log):
        _send(payloads, port)
        _wait_until(lambda: len(lines()) >= count, f"nfacctd wrote less than {count} records")
    complaints = [line for line in log.read_text().splitlines() if re.search("malformed|WARN|ERROR", line)]
    return [json.loads(line) for line in lines()], complaints
