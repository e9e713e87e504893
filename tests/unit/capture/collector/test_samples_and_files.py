"""The same frames, cut at any place, in a capture file, in sFlow and in records with sections: the same flows.

How files are read is checked with tshark (tests/oracle/test_read.py).
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

import flowtop
from flowtop.capture.files.capture import FileConfig
from tests.kernel import frames as f
from tests.unit.capture.collector.exports import ipfix, set_of, template
from tests.unit.capture.collector.test_sections import FRAME_SECTION, FRAME_SIZE, VARIABLE, variable
from tests.unit.capture.collector.test_sflow import datagram, sample
from tests.unit.capture.files.reading import Read, read

PROTOCOLS = (f.TCP, f.UDP, 1, 58, 50, 132, 2, 89)
CHECK_OCTETS = 4


def ip_packet(choose: random.Random) -> tuple[int, bytes]:
    """EtherType and packet: any of PROTOCOLS, fragments, extension headers."""
    protocol = choose.choice(PROTOCOLS)
    content = bytes(choose.randrange(60))
    if protocol == f.TCP:
        content = f.tcp(choose.randrange(65_536), 443, choose.randrange(256), content)
    elif protocol == f.UDP:
        content = f.udp(choose.randrange(65_536), 53, content)
    elif protocol in (1, 58):
        content = f.icmp(choose.choice((8, 0, 3, 128)), choose.randrange(4), bytes(8))
    if choose.random() < 0.5:
        part: dict[str, Any] = {}
        if choose.random() < 0.3:
            part = {"offset": choose.choice((0, 8, 1_480)), "more": choose.random() < 0.5,
                    "identification": choose.randrange(65_536)}  # of a packet of its own: files join fragments
        return f.IPV4, f.ipv4(content, protocol, **part)
    if choose.random() < 0.4:
        return f.IPV6, f.ipv6(f.extension(protocol, 8) + content, choose.choice((0, 60, 43)))
    return f.IPV6, f.ipv6(content, protocol)


def frame(choose: random.Random) -> bytes:
    """Ethernet with up to three tags, MPLS, PPPoE or VXLAN."""
    kind, packet = ip_packet(choose)
    chance = choose.random()
    if chance < 0.15:
        labels = tuple(choose.randrange(16, 9_999) for _ in range(choose.randrange(1, 4)))
        return f.ethernet(0x8847, f.mpls(labels, packet))
    if chance < 0.3:
        return f.ethernet(0x8864, f.pppoe(choose.randrange(99), 0x21 if kind == f.IPV4 else 0x57, packet))
    if chance < 0.45:
        kind, packet = f.IPV4, f.ipv4(f.udp(1, 4_789, f.vxlan(7, f.ethernet(kind, packet))), f.UDP)
    tags = tuple((choose.choice((f.VLAN, f.SERVICE_VLAN)), choose.randrange(4_095)) for _ in range(choose.randrange(4)))
    return f.ethernet(kind, packet, tags=tags, pad=choose.choice((0, 6)))


def capture(frames: list[tuple[bytes, int]]) -> bytes:
    octets = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)
    for content, kept in frames:
        octets += struct.pack("<IIII", 1_700_000_000, 0, min(kept, len(content)), len(content)) + content[:kept]
    return octets


def samples(frames: list[tuple[bytes, int]]) -> bytes:
    made = []
    for content, kept in frames:
        header = content[:kept]
        padding = -len(header) % 4
        made.append(sample(struct.pack(
            ">6I", 1, 16 + len(header) + padding, 1, len(content) + CHECK_OCTETS, CHECK_OCTETS, len(header))
            + header + bytes(padding), interval=1))
    return datagram(*made)


def sections(frames: list[tuple[bytes, int]]) -> bytes:
    return ipfix(template(300, ((FRAME_SIZE, 2), (FRAME_SECTION, VARIABLE))), set_of(300, b"".join(
        struct.pack(">H", len(content)) + variable(content[:kept]) for content, kept in frames)))


def counts(found: Read) -> dict[tuple[Any, ...], list[Any]]:
    return {key: facts[:2] for key, facts in found.table().items()}


@pytest.mark.parametrize("decap", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_any_frame_cut_anywhere(seed: int, decap: bool, tmp_path: Path) -> None:
    choose = random.Random(seed)
    frames = [(content := frame(choose), choose.randrange(14, len(content) + 5)) for _ in range(60)]
    found = []
    for name, make in (("file", capture), ("sflow", samples), ("ipfix", sections)):
        (tmp_path / name).write_bytes(make(frames))
        found.append(read(tmp_path / name, FileConfig(str(tmp_path / name), decap=decap)))
    file, sampled, recorded = found
    assert len(counts(file)) > 20
    assert counts(sampled) == counts(file) and counts(recorded) == counts(file)
    assert {part.total("encapsulation_octets") for part in found} == {file.total("encapsulation_octets")}
    ignored = sum(packets for packets, _ in file.ignored().values())
    for name in ("sflow", "ipfix"):
        collecting = flowtop.read(tmp_path / name, decap=decap).collecting
        assert collecting is not None and collecting.unusable_records == ignored
