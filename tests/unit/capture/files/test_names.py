"""Names in capture files: the same messages as live, whatever is around them, in any cut."""

from __future__ import annotations

import ipaddress
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.capture.files.octets import OctetStream
from flowtop.capture.files.pcap import PcapReader
from flowtop.capture.packets.frames import Frames
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import IpVersion, Kind
from flowtop.model.names_seen import CODE_MASK, NAMES, NameStatistics
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.names_seen.initials import VERSION_2
from tests.unit.names_seen.messages import address_record, answer, client_hello, query

T = 1_700_000_000 * w.SECOND
CLIENT, SERVER, RESOLVER = "10.0.0.5", "192.0.2.1", "10.0.0.53"
HELLO = client_hello("www.example.org")
REQUEST = b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"


def tcp(ports: tuple[int, int], payload: bytes = b"", sequence: int = 1, bits: int = f.ACK) -> bytes:
    made = bytearray(f.tcp(*ports, bits, payload))
    struct.pack_into("!I", made, 4, sequence)
    return bytes(made)


def packet(payload: bytes, protocol: int, source: str = CLIENT, destination: str = SERVER) -> bytes:
    return f.ipv4(payload, protocol, source=source, destination=destination)


DNS = [packet(f.udp(5000, 53, query("dns.example")), f.UDP, CLIENT, RESOLVER),
       packet(f.udp(53, 5000, answer("dns.example", [address_record(SERVER)])), f.UDP, RESOLVER, CLIENT)]
PIECES = [HELLO[:100], HELLO[100:300], HELLO[300:]]
"""Of a ClientHello."""
CONNECTIONS = [
    packet(tcp((4000, 443), sequence=99, bits=2), f.TCP),
    packet(tcp((4000, 443), PIECES[0], 100), f.TCP),
    packet(tcp((4001, 80), REQUEST), f.TCP),
    packet(tcp((4002, 443), b"\x17\3\3\0\5hello"), f.TCP),
    packet(tcp((4000, 443), PIECES[1], 200), f.TCP),
    packet(f.udp(4003, 443, VERSION_2), f.UDP),
    packet(tcp((4000, 443), PIECES[2], 400), f.TCP),
    packet(tcp((4000, 443), b"\x17\3\3\0\5hello", 1000), f.TCP),
    packet(tcp((4004, 80), REQUEST, bits=f.ACK | 1), f.TCP),  # FIN, which takes a sequence number, with the request
]
EXPECTED = {4000: "www.example.org", 4001: "plain.example", 4002: "dns.example", 4003: "example.com",
            4004: "plain.example", 5000: ""}


def capture(packets: list[bytes], directory: Path, step_ns: int = 10_000_000, snap: int = 65_535) -> Path:
    path = directory / "names.pcap"
    path.write_bytes(w.pcap([(T + number * step_ns, octets) for number, octets in enumerate(packets)], snap=snap))
    return path


def in_ethernet(packets: list[bytes]) -> list[bytes]:
    return [f.ethernet(f.IPV4, octets) for octets in packets]


def read(path: Path, *, tick_s: float | None = None, decap: bool = False,
         names_seen: bool = True) -> tuple[dict[int, str], NameStatistics | None]:
    """The names of flows from the client by its port."""
    source = FileCapture(FileConfig(str(path), tick_s, decap=decap, names_seen=names_seen))
    source.open(lambda _: None)
    table = FlowTable(TableConfig(idle_timeout_s=3600, end_timeout_s=3600))
    while True:
        batch = source.drain()
        table.accumulate(batch)
        assert batch.source is not None
        if batch.source.closes_tick:
            table.close_tick()
        if batch.source.ended:
            break
    source.close()
    columns, texts = table.columns, batch.texts.get(NAMES, {})
    found = {}
    for slot in table.visible.nonzero()[0].tolist():
        size = 4 if columns["ip_version"][slot] == IpVersion.V4 else 16
        sender = str(ipaddress.ip_address(bytes(columns["source_address"][slot])[:size]))
        if sender == CLIENT and columns["kind"][slot] == Kind.FLOW:
            found[int(columns["source_port"][slot])] = texts.get(int(columns["peer_name"][slot]) & CODE_MASK, "")
    return found, batch.name_statistics


@pytest.mark.parametrize("tick_s", [None, 1.0])
@pytest.mark.parametrize("step_ns", [10_000_000, 3 * w.SECOND])
def test_every_kind_of_name_is_found(tmp_path: Path, tick_s: float | None, step_ns: int) -> None:
    """In one batch, and in one for each packet; in the steps of a long quiet file too."""
    found, statistics = read(capture(in_ethernet(DNS + CONNECTIONS), tmp_path, step_ns), tick_s=tick_s)
    assert found == EXPECTED
    assert statistics is not None
    assert (statistics.answers, statistics.server_names, statistics.hosts, statistics.initials) == (1, 1, 2, 1)
    assert (statistics.malformed, statistics.unasked, statistics.dropped) == (0, 0, 0)


def test_a_hello_goes_on_in_the_next_piece_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a file comes through a pipe, a few packets at a time."""
    whole, waiting = PcapReader.read, list[Frames]()

    def one_by_one(self: PcapReader, stream: OctetStream) -> Frames | None:
        if not waiting and (frames := whole(self, stream)) is not None:
            waiting.extend(frames.take(np.array([row])) for row in range(len(frames.offset)))
        return waiting.pop(0) if waiting else None

    monkeypatch.setattr(PcapReader, "read", one_by_one)
    assert read(capture(in_ethernet(DNS + CONNECTIONS), tmp_path))[0] == EXPECTED


def test_names_in_tunnels_are_of_the_inner_flows(tmp_path: Path) -> None:
    def tunnelled(octets: bytes) -> bytes:
        inner = f.ethernet(f.IPV4, octets, tags=((0x8100, 7),))
        return f.ethernet(f.IPV4, f.ipv4(f.udp(60_000, 4789, f.vxlan(5, inner)), f.UDP, source="10.9.0.1",
                                         destination="10.9.0.2"))

    found, _ = read(capture([tunnelled(octets) for octets in DNS + CONNECTIONS], tmp_path), decap=True)
    assert found == EXPECTED


@pytest.mark.parametrize("snap", [54, 60, 96, 150])
def test_cut_packets_and_padding_do_no_harm(tmp_path: Path, snap: int) -> None:
    padded = [f.ethernet(f.IPV4, octets, pad=70) for octets in DNS + CONNECTIONS]
    found, _ = read(capture(padded, tmp_path, snap=snap))
    assert set(found.values()) <= {"", *EXPECTED.values()}


def test_without_names_none_is_read(tmp_path: Path) -> None:
    found, statistics = read(capture(in_ethernet(DNS + CONNECTIONS), tmp_path), names_seen=False)
    assert set(found.values()) == {""}
    assert statistics is None


def test_names_seen_go_along_with_written_packets(tmp_path: Path) -> None:
    """The answers are not among the packets that are written, the name is; a second file made from it has it too."""
    path = capture(in_ethernet(DNS + CONNECTIONS), tmp_path)
    for number in (1, 2):
        written = tmp_path / f"{number}.pcapng"
        subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "none", "-r", str(path), "-w", str(written),
                        "port", "4002"], capture_output=True, timeout=300, check=True)
        assert written.read_bytes().count(b"dns.example\0") == 1
        found, statistics = read(written)
        assert found == {4002: "dns.example"} and statistics is not None and not statistics.answers
        path = written


def test_the_command_filters_groups_and_writes_names(tmp_path: Path) -> None:
    path = capture(in_ethernet(DNS + CONNECTIONS), tmp_path)

    def rounds(*words: str) -> dict[str, object]:
        done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(path), *words],
                              capture_output=True, text=True, timeout=300, check=True)
        line: dict[str, object] = json.loads(done.stdout)
        return line

    line = rounds("dst", "name", "*.example", "and", "not", "src", "name", "?*")
    flows = line["flows"]
    assert isinstance(flows, list)
    assert {(flow["sourceTransportPort"], flow["peerName"], flow["peerNameOrigin"]) for flow in flows} == {
        (4001, "plain.example", "http"), (4002, "dns.example", "dns"), (4004, "plain.example", "http")}
    seen = line["namesSeen"]
    assert isinstance(seen, dict)
    assert (seen["dnsAnswers"], seen["tlsServerNames"], seen["httpHosts"], seen["quicServerNames"]) == (1, 1, 2, 1)
    groups = rounds("-g", "name", "name", "~", "EXAMPLE")["groups"]
    assert isinstance(groups, list)
    assert {group["peerName"]: group["deltaFlowCount"] for group in groups} == {
        "www.example.org": 1, "plain.example": 2, "dns.example": 1, "example.com": 1}
