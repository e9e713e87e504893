"""Fragments of flows, and identifier and round-trip time of ICMP echoes, from packets that the test writes."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flowtop
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w

MS = 1_000_000
T = 1_700_000_000 * w.SECOND
HERE, THERE = "10.0.0.1", "10.0.0.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"


def checksum(message: bytes) -> bytes:
    """RFC 1071; of ICMP, which has no pseudo-header."""
    total = sum(int.from_bytes(message[at:at + 2], "big") for at in range(0, len(message), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", total ^ 0xFFFF)


def echo(identifier: int, number: int, *, back: bool = False, v6: bool = False, octets: int = 48) -> bytes:
    kind = (129 if back else 128) if v6 else (0 if back else 8)
    message = f.icmp(kind, 0, struct.pack(">HH", identifier, number) + bytes(octets))
    message = message[:2] + checksum(message) + message[4:]
    ends = {"source": THERE, "destination": HERE} if back else {"source": HERE, "destination": THERE}
    if v6:
        ends = {"source": THERE6, "destination": HERE6} if back else {"source": HERE6, "destination": THERE6}
        return f.ethernet(f.IPV6, f.ipv6(message, f.ICMPV6, **ends))  # type: ignore[arg-type]
    return f.ethernet(f.IPV4, f.ipv4(message, f.ICMP, **ends))  # type: ignore[arg-type]


def write(path: Path, packets: list[tuple[float, bytes]]) -> None:
    """A capture of packets at these ms."""
    path.write_bytes(w.pcap([(T + round(ms * MS), frame) for ms, frame in packets]))


def read(path: Path, packets: list[tuple[float, bytes]], text: str = "") -> list[dict[str, Any]]:
    """Flows of packets at these ms as in JSON, requests before replies."""
    write(path, packets)
    flows = flowtop.read(path).query(text).as_dicts()
    return sorted(flows, key=lambda flow: -flow.get("icmpTypeCodeIPv4", -flow.get("icmpTypeCodeIPv6", 0)))


def facts(flows: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(flow.get("icmpEchoIdentifier"), flow.get("icmpRoundTripMicroseconds")) for flow in flows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pcap"


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize(("packets", "expected"), [
    ([(0, (4660, 1)), (12.5, (4660, 1, True))], [(4660, 12_500), (4660, 12_500)]),
    ([(0, (0, 0)), (0.25, (0, 0, True))], [(0, 250), (0, 250)]),
    ([(0, (65_535, 1)), (900, (65_535, 1, True)), (1000, (65_535, 2)), (1001, (65_535, 2, True))],
     [(65_535, 900_000), (65_535, 900_000)]),
    ([(0, (1, 1)), (3000, (1, 1, True))], [(1, 3_000_000), (1, 3_000_000)]),
    ([(0, (1, 1)), (5, (2, 1, True))], [(1, None), (2, None)]),  # another ping's reply
    ([(0, (1, 1)), (1000, (1, 2)), (1007, (1, 2, True))], [(1, None), (1, None)]),  # the first request was lost
    ([(0, (7, 1))], [(7, None)]),
    ([(0, (7, 1, True))], [(7, None)]),
])
def test_identifier_and_round_trip_of_the_first_echo(path: Path, packets: Any, expected: Any,
                                                     v6: bool) -> None:
    frames = [(ms, echo(*what[:2], back=len(what) > 2, v6=v6)) for ms, what in packets]
    assert facts(read(path, frames)) == expected


def test_an_echo_that_is_cut_off_has_no_identifier(path: Path) -> None:
    whole = echo(77, 1)
    assert facts(read(path, [(0, whole[:14 + 20 + 6])])) == [(None, None)]
    assert facts(read(path, [(0, whole[:14 + 20 + 8])])) == [(77, None)]


def test_other_icmp_has_none(path: Path) -> None:
    frame = f.ethernet(f.IPV4, f.ipv4(f.icmp(3, 1, struct.pack(">HH", 5, 6)), f.ICMP))
    assert facts(read(path, [(0, frame)])) == [(None, None)]


@pytest.mark.parametrize(("text", "count"), [
    ("icmp_id 4660", 2), ("icmp_id = 0", 1), ("icmp_id > 0", 2), ("not icmp_id >= 0", 1), ("rtt > 10ms", 2),
    ("rtt < 10ms", 0)])
def test_filters(path: Path, text: str, count: int) -> None:
    other = f.ethernet(f.IPV4, f.ipv4(f.icmp(8, 0, bytes(8)), f.ICMP, source="10.0.0.9"))
    udp = f.ethernet(f.IPV4, f.ipv4(f.udp(1, 2), f.UDP))
    assert len(read(path, [(0, echo(4660, 1)), (12, echo(4660, 1, back=True)), (13, other), (14, udp)], text)) == count


@pytest.mark.parametrize("step", [(), ("-d", "0.1")], ids=["one-round", "rounds"])
def test_rounds_and_exported_records_have_them(path: Path, tmp_path: Path, step: tuple[str, ...]) -> None:
    out = tmp_path / "x.jsonl"
    write(path, [(0, echo(9, 1)), (340, echo(9, 1, back=True)), (900, pieces(UDP, f.UDP, 1480)[0])])
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(path), *step, "-e",
                           f"jsonl:{out}"], capture_output=True, check=True, timeout=60)
    for flows in (json.loads(done.stdout.splitlines()[-1])["flows"],
                  [json.loads(line) for line in out.read_text().splitlines()]):
        assert sorted(facts(flows), key=str) == [(9, 340_000), (9, 340_000), (None, None)]
        assert [flow["fragmentPackets"] for flow in flows if "fragmentPackets" in flow] == [1]


def test_the_library_has_the_round_trip(path: Path) -> None:
    write(path, [(0, echo(9, 1)), (4, echo(9, 1, back=True))])
    assert [flow.rtt_us for flow in flowtop.read(path).query()] == [4000, 4000]


def pieces(payload: bytes, protocol: int, size: int, identification: int = 1, source: str = HERE) -> list[bytes]:
    """The fragments of an IPv4 packet (RFC 791), `size` octets of its payload in each."""
    return [f.ethernet(f.IPV4, f.ipv4(payload[at:at + size], protocol, identification=identification, offset=at,
                                      more=at + size < len(payload), source=source))
            for at in range(0, len(payload), size)]


def pieces6(payload: bytes, protocol: int, size: int, identification: int = 1) -> list[bytes]:
    return [f.ethernet(f.IPV6, f.ipv6(f.fragment_header(protocol, identification, offset=at,
                                                        more=at + size < len(payload)) + payload[at:at + size],
                                      f.FRAGMENT)) for at in range(0, len(payload), size)]


UDP = f.udp(1000, 53, bytes(3000))
WHOLE = f.ethernet(f.IPV4, f.ipv4(f.udp(1000, 53, bytes(8)), f.UDP))


@pytest.mark.parametrize(("frames", "expected"), [
    (pieces(UDP, f.UDP, 1480), [3]),
    ([WHOLE, *pieces(UDP, f.UDP, 1480), WHOLE], [3]),
    (pieces(UDP, f.UDP, 1480) + pieces(UDP, f.UDP, 800, 2), [3 + 4]),
    (pieces(UDP, f.UDP, 1480) + pieces(UDP, f.UDP, 800, 2, "10.0.0.7"), [3, 4]),
    (pieces(UDP, f.UDP, 1480)[1:], [2]),  # later ones only: a flow without ports
    (pieces6(UDP, f.UDP, 1448), [3]),
    (pieces(f.icmp(8, 0, bytes(3000)), f.ICMP, 1480), [3]),
    ([WHOLE], [None]),
    (pieces6(f.udp(1, 2), f.UDP, 1448), [None]),  # an atomic fragment is a whole packet
], ids=str)
def test_fragments_of_each_flow_are_counted(path: Path, frames: list[bytes], expected: list[int | None]) -> None:
    flows = read(path, [(10 * number, frame) for number, frame in enumerate(frames)])
    assert sorted((flow.get("fragmentPackets") for flow in flows), key=str) == expected
    counted = read(path, [(3000 * number, frame) for number, frame in enumerate(frames)], "fragments")
    assert sorted(flow["fragmentPackets"] for flow in counted) == [count for count in expected if count]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_both_are_as_tshark_has_them(path: Path) -> None:
    flows = read(path, [(0, echo(4660, 1)), (12.5, echo(4660, 1, back=True))]
                 + [(20, frame) for frame in pieces(UDP, f.UDP, 1480)])
    shown = subprocess.run(["tshark", "-r", str(path), "-T", "fields", "-e", "icmp.ident", "-e", "icmp.resptime"],
                           capture_output=True, text=True, check=True).stdout.split("\n")
    identifier, response_ms = next(line for line in shown if line.split("\t")[-1]).split("\t")
    assert (flows[0]["icmpEchoIdentifier"], flows[0]["icmpRoundTripMicroseconds"]) == (
        int(identifier.split(",")[0], 0), float(response_ms) * 1000)
    fragments = subprocess.run(["tshark", "-r", str(path), "-Y", "ip.flags.mf == 1 or ip.frag_offset > 0"],
                               capture_output=True, text=True, check=True).stdout
    assert [flow["fragmentPackets"] for flow in flows if "fragmentPackets" in flow] == [fragments.count("\n")]
