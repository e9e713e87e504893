"""Generated captures through the file parser and through tshark: the same table, field by field."""

from __future__ import annotations

import random
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtop.model.kinds import Kind, Tunnel
from tests.kernel import frames as f
from tests.oracle.collectors import ENVIRONMENT, needs
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read

FRAMES = 1_500
T = 1_700_000_000 * w.SECOND
FIELDS = ("ieee8021ad.id", "vlan.id", "ip.src", "ip.dst", "ip.len", "ip.dsfield", "ip.ttl", "ip.proto", "ip.id",
          "ip.frag_offset", "ipv6.src", "ipv6.dst", "ipv6.plen", "ipv6.tclass", "ipv6.hlim", "tcp.srcport",
          "tcp.dstport", "tcp.flags", "udp.srcport", "udp.dstport", "sctp.srcport", "sctp.dstport", "icmp.type",
          "icmp.code", "icmpv6.type", "icmpv6.code", "arp.opcode")
PORTED = {"tcp": 6, "udp": 17, "sctp": 132}
PORTS = (53, 443, 50_000, 50_001)


def transport(rng: random.Random, version: int) -> tuple[int, bytes]:
    """Protocol and payload."""
    ports, payload = (rng.choice(PORTS), rng.choice(PORTS)), bytes(rng.randrange(40))
    kind = rng.randrange(4)
    if kind == 0:
        return f.TCP, f.tcp(*ports, rng.randrange(512), payload, options=bytes(4 * rng.randrange(5)))
    if kind == 1:
        return f.UDP, f.udp(*ports, payload)
    if kind == 2:
        return f.SCTP, ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + bytes(8)
    return (f.ICMP, f.icmp(rng.choice((0, 8, 13)), 0, bytes(16))) if version == 4 else (
        f.ICMPV6, f.icmp(rng.choice((128, 129)), 0, bytes(16)))


def packet4(rng: random.Random, number: int) -> list[bytes]:
    """One IPv4 packet, sometimes as two fragments."""
    protocol, payload = transport(rng, 4)
    facts: dict[str, Any] = {
        "tos": rng.randrange(256), "ttl": rng.randrange(1, 256), "source": f"10.0.0.{rng.randrange(1, 4)}",
        "identification": number, "options": bytes([1] * 4 * rng.randrange(11))}
    if len(payload) >= 32 and not rng.randrange(5):
        return [f.ipv4(payload[:24], protocol, more=True, **facts), f.ipv4(payload[24:], protocol, offset=24, **facts)]
    return [f.ipv4(payload, protocol, **facts)]


def packet6(rng: random.Random) -> list[bytes]:
    """One IPv6 packet with some extension headers."""
    following, payload = transport(rng, 6)
    for kind in rng.sample((f.DESTINATION_OPTIONS, f.ROUTING, f.HOP_BY_HOP), rng.randrange(3)):
        payload, following = f.extension(following, 8 * rng.randrange(1, 4)) + payload, kind
    return [f.ipv6(payload, following, traffic_class=rng.randrange(256), hop_limit=rng.randrange(1, 256),
                   source=f"2001:db8::{rng.randrange(1, 4)}")]


def generated(rng: random.Random) -> Iterator[bytes]:
    """Frames of all that: with VLAN tags, padding, and some ARP between."""
    for number in range(FRAMES):
        kinds = rng.choice(((), (), (), (f.VLAN,), (f.SERVICE_VLAN,), (f.VLAN, f.VLAN), (f.SERVICE_VLAN, f.VLAN)))
        tags = tuple((kind, rng.randrange(1, 4095)) for kind in kinds)
        kind = rng.randrange(10)
        if kind == 9:
            yield f.ethernet(f.ARP, b"\0\1\x08\0\6\4\0\1" + bytes(20), tags=tags, pad=60)
            continue
        for packet in packet4(rng, number) if kind < 6 else packet6(rng):
            yield f.ethernet(f.IPV4 if kind < 6 else f.IPV6, packet, tags=tags, pad=rng.choice((0, 60)))


def tshark_rows(path: Path) -> list[dict[str, str]]:
    """Each frame's fields, the outermost of each."""
    run = subprocess.run(
        [needs("tshark"), "-r", path, "-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-T", "fields",
         "-E", "occurrence=a", "-E", "aggregator=;", *(word for name in FIELDS for word in ("-e", name))],
        capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in run.stdout.splitlines()]


def first(row: dict[str, str], *names: str) -> str:
    return next((row[name].split(";")[0] for name in names if row[name]), "")


def tshark_table(rows: list[dict[str, str]]) -> tuple[dict[tuple[Any, ...], list[Any]], int]:
    """Flows in the shape of Read.table, MACs left out; and how many frames were ARP."""
    table: dict[tuple[Any, ...], list[Any]] = {}
    lenders: defaultdict[str, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    arps = 0
    for row in rows:
        if row["arp.opcode"]:
            arps += 1
            continue
        four = bool(row["ip.src"])
        protocol, ports = conversation(row)
        if four and int(first(row, "ip.frag_offset")):
            protocol, *ports = lenders[row["ip.id"]]
        lenders[row["ip.id"]] = protocol, *ports
        tags = [*map(int, filter(None, f"{row['ieee8021ad.id']};{row['vlan.id']}".split(";"))), 0, 0]
        ends = first(row, "ip.src", "ipv6.src"), first(row, "ip.dst", "ipv6.dst")
        key = *ends, protocol, *ports, *tags[:2], Kind.FLOW, Tunnel.NONE, 0
        octets = int(first(row, "ip.len")) if four else int(first(row, "ipv6.plen")) + 40
        bits = int(first(row, "tcp.flags") or "0", 16)
        bits |= (bits & 0x12 == 0x02) << 12  # SYN without ACK
        facts = [int(first(row, "ip.dsfield", "ipv6.tclass"), 16), int(first(row, "ip.ttl", "ipv6.hlim"))]
        flow = table.setdefault(key, [0, 0, 0, *facts])
        flow[:3] = [flow[0] + 1, flow[1] + octets, flow[2] | bits]
    return table, arps


def conversation(row: dict[str, str]) -> tuple[int, list[int]]:
    """Protocol and ports; of ICMP type and code."""
    for name, number in PORTED.items():
        if row[f"{name}.srcport"]:
            return number, [int(first(row, f"{name}.srcport")), int(first(row, f"{name}.dstport"))]
    for name, number in (("icmp", 1), ("icmpv6", 58)):
        if row[f"{name}.type"]:
            return number, [0, int(first(row, f"{name}.type")) << 8 | int(first(row, f"{name}.code"))]
    return int(first(row, "ip.proto") or 0), [0, 0]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_generated_capture_gives_the_table_that_tshark_gives(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([(T, frame) for frame in generated(rng)]))
    expected, arps = tshark_table(tshark_rows(path))
    found = read(path)
    assert {key: facts[:5] for key, facts in found.table().items()} == expected
    assert found.ignored()["arp"][0] == arps and found.ignored().keys() == {"arp"}
    assert {bytes(facts[5]) for facts in found.table().values()} == {f.SOURCE_MAC + f.DESTINATION_MAC}
