"""What a pcapng file has beside its packets, read back: comments with the process, and names of addresses."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flowtop
from flowtop.wire.owner_comments import CommentOwners
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.recording import test_notes as written

T = 1_700_000_000 * w.SECOND
SERVER, OTHER = "192.0.2.1", "2001:db8::7"
STARTS = "2026-11-30T10:00:00.12Z", "2026-11-30T11:00:00.00Z"


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def datagram(port: int, *, version: int = 4) -> bytes:
    payload = f.udp(port, 53, b"hello")
    if version == 4:
        return f.ethernet(f.IPV4, f.ipv4(payload, f.UDP, source="10.0.0.5", destination=SERVER))
    return f.ethernet(f.IPV6, f.ipv6(payload, f.UDP, destination=OTHER))


def noted(ticks: int, frame: bytes, *comments: bytes, order: str = "<") -> bytes:
    return w.enhanced(ticks, frame, order, flags=2, comments=comments)


def names(*records: tuple[int, bytes], order: str = "<") -> bytes:
    return w.block(order, 4, b"".join(w.option(order, kind, value) for kind, value in (*records, (0, b""))))


def flows(path: Path, *words: str) -> dict[int, dict[str, Any]]:
    """What the command says of the flows, by source port."""
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(path), *words],
                          capture_output=True, text=True, timeout=300, check=True)
    return {flow["sourceTransportPort"]: flow for flow in json.loads(done.stdout)["flows"]}


def owner(flow: Any) -> dict[str, Any]:
    return {name: flow[name] for name in ("processName", "processId", "processStart", "userName", "systemdUnit",
                                          "containerName", "podName") if name in flow}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("quiet", [False, True])
def test_comments_are_owners_again(tmp_path: Path, order: str, quiet: bool) -> None:
    """Also where many ticks without packets are between, and other comments and directions are beside."""
    comments = {
        1: b"flowtop process=nginx pid=1234 started=" + STARTS[0].encode() + b" user=www-data unit=nginx.service",
        2: b"flowtop process=kernel", 3: b"flowtop process=sh pid=7 container=web pod=api-7",
        4: b"a person's words", 5: b"flowtop process=sh pid=8"}
    blocks = []
    for number in range(40):
        for port, comment in comments.items():
            beside = [b"another one, longer than the prefix"] * (number % 3)
            last = [] if number == 39 and port == 1 else [comment]
            ticks = (T + (number * 3 * w.SECOND if quiet else number * 1000 + port)) // 1000
            blocks.append(noted(ticks, datagram(port), *beside, *last, order=order))
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join((w.section(order), w.interface(order), *blocks)))
    rows = {row["sourceTransportPort"]: row for row in flowtop.read(path).query().as_dicts()}
    assert {port: owner(row) for port, row in rows.items()} == {
        1: {"processName": "nginx", "processId": 1234, "processStart": STARTS[0], "userName": "www-data",
            "systemdUnit": "nginx.service"},
        2: {"processName": "kernel"}, 3: {"processName": "sh", "processId": 7, "containerName": "web",
                                          "podName": "api-7"},
        4: {}, 5: {"processName": "sh", "processId": 8}}
    assert {row["flowDirection"] for row in rows.values()} == {1}


def test_one_pid_of_two_processes(tmp_path: Path) -> None:
    """Told apart by their start; of one process the texts may become more."""
    comments = [f"flowtop process=sh pid=7 started={STARTS[0]}", f"flowtop process=sh pid=7 started={STARTS[1]} user=u",
                f"flowtop process=zsh pid=7 started={STARTS[0]} user=root"]
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join((w.section(), w.interface(), *(
        noted((T + port) // 1000, datagram(port), comment.encode()) for port, comment in enumerate(comments, 1)))))
    rows = {row["sourceTransportPort"]: owner(row) for row in flowtop.read(path).query().as_dicts()}
    first = {"processName": "zsh", "processId": 7, "processStart": STARTS[0], "userName": "root"}
    assert rows == {1: first, 2: {"processName": "sh", "processId": 7, "processStart": STARTS[1], "userName": "u"},
                    3: first}


@pytest.mark.parametrize("comment", [
    b"flowtop ", b"flowtop pid=7 process=sh", b"flowtop process=sh  pid=7", b"flowtop process=sh pid=7 ",
    b"flowtop process=sh pid=07", b"flowtop process=sh pid=4194304", b"flowtop process=sh pid=-1",
    b"flowtop process=sh pid=\xd9\xa3", b"flowtop process=\x1b[2J pid=7", b"flowtop process=sh pid=7 pid=8",
    b"flowtop process=sh pid=7 command=rm", b"flowtop process= pid=7", b"flowtop process=\xff pid=7",
    b"flowtop process=" + b"x" * 65 + b" pid=7", b"flowtop process=nginx", b"FLOWTOP process=sh pid=7",
    b"flowtop process=sh pid=" + b"9" * 5000, b"flowtop process=kernel user=root", b"flowtop user=root"])
def test_what_flowtop_does_not_write_is_no_owner(comment: bytes) -> None:
    owners = CommentOwners()
    assert owners.owner(comment) == 0 and not owners.refused
    assert owners.owner(b"flowtop process=sh pid=7")


def test_more_processes_than_there_is_room_for_are_counted() -> None:
    owners = CommentOwners(most=10)
    found = [owners.owner(b"flowtop process=p pid=%d" % pid) for pid in range(1, 26)]
    assert len(set(found[:10])) == 10 and set(found[10:]) == {0} and owners.refused == 15


def test_what_was_written_is_read_and_written_again(tmp_path: Path) -> None:
    """The comments of a second file, made from the first one, are the same."""
    made = written.recording(tmp_path / "one.pcapng")
    made.write(written.batch(written.NGINX, 0, written.BACKUP))
    made.finish()
    rows = flows(tmp_path / "one.pcapng", "-w", str(tmp_path / "two.pcapng"), "process nginx or not process ?*")
    assert {port: owner(row) for port, row in rows.items()} == {
        1: {"processName": "nginx", "processId": 1234, "userName": "www-data", "systemdUnit": "nginx.service"}, 2: {}}
    assert written.comments((tmp_path / "two.pcapng").read_bytes()) == [written.COMMENTS[written.NGINX], ""]


def test_a_round_of_json_has_the_figures_of_exports(tmp_path: Path) -> None:
    """An export of what was read back: the command line that a comment does not have is not missed."""
    made = written.recording(tmp_path / "one.pcapng")
    made.write(written.batch(written.NGINX, 0, written.BACKUP))
    made.finish()
    url = f"file:{tmp_path}/flows.ipfix?owners=on"
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(tmp_path / "one.pcapng"),
                           "-e", url], capture_output=True, text=True, timeout=300, check=True)
    [export] = json.loads(done.stdout)["exports"]
    assert export["url"] == url
    assert export["sentRecords"] + export["queuedRecords"] <= 3
    assert (export["notSentRecords"], export["cutOwnerRecords"], export["lastError"]) == (0, 0, "")
    assert "3 flow records sent" in done.stderr and "lack" not in done.stderr
    again = flows(tmp_path / "flows.ipfix")
    assert owner(again[1]) == {"processName": "nginx", "processId": 1234, "userName": "www-data",
                               "systemdUnit": "nginx.service"}


def test_listed_names_are_names_of_addresses(tmp_path: Path) -> None:
    """Of both versions of IP, in both orders, in a section of each; the first name of several counts."""
    blocks = []
    for order in "<>":
        blocks += [w.section(order), w.interface(order), names(
            (1, packed(SERVER) + b"one.example\0two.example\0"), (2, packed(OTHER) + b"Six.example\0"),
            (7, b"unknown"), order=order)]
        blocks += [w.enhanced(T // 1000, datagram(port, version=version), order)
                   for port, version in ((1, 4), (2, 6))]
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    rows = flows(path)
    assert {port: (row["peerName"], row["peerNameOrigin"]) for port, row in rows.items()} == {
        1: ("one.example", "file"), 2: ("six.example", "file")}
    assert list(flows(path, "dst name six*")) == [2]
    assert "peerName" not in flows(path, "--no-names-seen")[1]


def test_hostile_lists_of_names_are_harmless(tmp_path: Path) -> None:
    """Cut entries, lengths beyond the block, escape sequences, no name at all: counted, and packets are counted too."""
    address = packed(SERVER)
    long = struct.pack("<HH", 1, 65_000) + address + b"long.example\0\0\0\0"
    blocks = [w.section(), w.interface(), names((1, address[:3]), (2, address + b"x\0"), (1, address)),
              names((1, address + b"\x1b[2J\0")), w.block("<", 4, long), w.block("<", 4, b""), w.block("<", 4, b"\1\0"),
              w.enhanced(T // 1000, datagram(1))]
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(path)], capture_output=True,
                          text=True, timeout=300, check=True)
    line = json.loads(done.stdout)
    assert line["totals"]["accountedPackets"] == 1 and "peerName" not in line["flows"][0]
    assert line["namesSeen"]["malformedMessages"] >= 4
