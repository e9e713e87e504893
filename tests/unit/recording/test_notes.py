"""What a file has beside its packets: comments with their process, and names of addresses."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flowtop.model import owners
from flowtop.model.kinds import Direction
from flowtop.model.packets import PacketBatch, PacketInterface
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.recording.packet_file import PacketFile
from flowtop.recording.recording import PacketRecording
from flowtop.recording.selection import PacketSelection
from flowtop.text.names import KnownNames
from tests.kernel import frames as f
from tests.unit.packets import blocks, packets

T = 1_700_000_000_000_000_000
NGINX, BACKUP = owners.owner_id(1234, 50 << 30), owners.owner_id(77, 60 << 30)
TEXTS = {owners.PROCESSES: {NGINX: "nginx", BACKUP: "my backup\n\x1b[2J", **owners.MARKS},
         owners.USERS: {NGINX: "www-data"}, owners.UNITS: {NGINX: "nginx.service"},
         owners.COMMANDS: {NGINX: "nginx: a long command line"}}
COMMENTS = {NGINX: "flowtop process=nginx pid=1234 user=www-data unit=nginx.service",
            BACKUP: "flowtop process=my_backup__[2J pid=77", owners.KERNEL: "flowtop process=kernel", 0: ""}


def batch(*ids: int, known: bool = True) -> PacketBatch:
    """UDP packets from 192.0.2.1, ports 1, 2, ..., to 198.51.100.1, 2, ..., of these owners; lengths differ."""
    frames = [f.ethernet(f.IPV4, f.ipv4(f.udp(1 + at, 53, bytes(10 + at)), f.UDP, source="192.0.2.1",
                                        destination=f"198.51.100.{1 + at}")) for at in range(len(ids))]
    keys = np.zeros(len(ids), FLOW_KEY_DTYPE)
    for at in range(len(ids)):
        keys["source_address"][at] = bytes([192, 0, 2, 1]).ljust(16, b"\0")
        keys["destination_address"][at] = bytes([198, 51, 100, 1 + at]).ljust(16, b"\0")
    keys["source_port"], keys["destination_port"] = np.arange(len(ids)) + 1, 53
    keys["protocol"], keys["ip_version"], keys["direction"] = 17, 4, int(Direction.EGRESS)
    lengths = np.array([len(frame) for frame in frames], np.int64)
    return PacketBatch(
        keys, np.frombuffer(b"".join(frames), np.uint8), np.cumsum(lengths) - lengths, lengths, lengths,
        T + np.arange(len(ids), dtype=np.int64), np.zeros(len(ids), np.bool_), {0: PacketInterface("eth0", 1)},
        np.array(ids, np.uint64) if known else None, TEXTS if known else {})


def recording(path: Path, most_octets: int = 0) -> PacketRecording:
    made = PacketRecording(str(path), PacketFile(str(path), 65_535), PacketSelection([]), "", most_octets=most_octets)
    made.begin()
    return made


def comments(octets: bytes) -> list[str]:
    """The comment of each Enhanced Packet Block."""
    found = []
    for kind, body in blocks(octets):
        if kind != 6:
            continue
        at, text = 20 + -(-struct.unpack_from("<I", body, 12)[0] // 4) * 4, ""
        while struct.unpack_from("<HH", body, at) != (0, 0):
            code, length = struct.unpack_from("<HH", body, at)
            if code == 1:
                text = body[at + 4:at + 4 + length].decode()
            at += 4 + -(-length // 4) * 4
        assert at + 4 == len(body)
        found.append(text)
    return found


def tshark(path: Path, *fields: str, options: tuple[str, ...] = ()) -> list[list[str]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    run = subprocess.run(["tshark", "-r", path, *options, "-T", "fields", *[
        word for field in fields for word in ("-e", field)]], capture_output=True, text=True, check=True)
    assert not run.stderr.replace("Running as user", "").strip().startswith("tshark: The file"), run.stderr
    return [line.split("\t") for line in run.stdout.splitlines()]


def test_each_packet_says_whose_it_is(tmp_path: Path) -> None:
    made = recording(tmp_path / "x.pcapng")
    ids = (NGINX, 0, BACKUP, owners.KERNEL, NGINX)
    made.write(batch(*ids))
    made.write(batch(NGINX, 0, known=False))
    made.finish()
    assert comments((tmp_path / "x.pcapng").read_bytes()) == [*(COMMENTS[owner] for owner in ids), "", ""]
    assert made.statistics().octets == (tmp_path / "x.pcapng").stat().st_size


def test_tshark_shows_comments_and_frames(tmp_path: Path) -> None:
    made = recording(tmp_path / "x.pcapng")
    made.write(batch(NGINX, 0, BACKUP))
    made.finish()
    assert tshark(tmp_path / "x.pcapng", "frame.comment", "udp.srcport", "frame.len") == [
        [COMMENTS[NGINX], "1", "52"], ["", "2", "53"], [COMMENTS[BACKUP], "3", "54"]]


def test_comments_are_part_of_the_size(tmp_path: Path) -> None:
    made = recording(tmp_path / "x.pcapng", most_octets=1_000)
    for _ in range(9):
        made.write(batch(NGINX))
    made.finish()
    octets = (tmp_path / "x.pcapng").read_bytes()
    figures = made.statistics()
    assert figures.state == "full" and len(packets(octets)) == figures.written == 9 - figures.capped
    one = 44 + 52 + 4 + -(-len(COMMENTS[NGINX]) // 4) * 4
    assert 1_000 - one < len(octets) <= 1_000


def test_names_come_before_the_packets_that_follow(tmp_path: Path) -> None:
    """A name known before is written with the address' first packet, a later one when it comes; each once."""
    made = recording(tmp_path / "x.pcapng")
    first, second = bytes([198, 51, 100, 1]), bytes([198, 51, 100, 2])
    made.name(KnownNames(1, {first: "one.example", bytes(4): "never"}))
    made.write(batch(0))
    made.write(batch(0, 0))
    made.name(KnownNames(2, {first: "other.example", second: "two.example"}))
    made.name(KnownNames(3, {first: "other.example", second: "two.example"}))
    made.write(batch(0, 0))
    made.finish()
    octets = (tmp_path / "x.pcapng").read_bytes()
    assert [kind for kind, _ in blocks(octets)] == [0x0A0D0D0A, 4, 1, 6, 6, 6, 4, 6, 6, 5]
    named = [body for kind, body in blocks(octets) if kind == 4]
    assert named[0].startswith(struct.pack("<HH", 1, 16) + first + b"one.example\0")
    assert named[1].startswith(struct.pack("<HH", 1, 16) + second + b"two.example\0")
    rows = tshark(tmp_path / "x.pcapng", "ip.dst", "ip.dst_host", options=("-N", "n"))
    assert rows[0] == ["198.51.100.1", "one.example"] and rows[4] == ["198.51.100.2", "two.example"]


def test_a_full_file_has_no_room_for_names(tmp_path: Path) -> None:
    made = recording(tmp_path / "x.pcapng", most_octets=400)
    made.write(batch(0))
    before = made.statistics().octets
    made.name(KnownNames(1, {bytes([198, 51, 100, 1]): "x" * 250}))
    assert made.statistics().octets == before
    made.finish()
    assert (tmp_path / "x.pcapng").stat().st_size <= 400
