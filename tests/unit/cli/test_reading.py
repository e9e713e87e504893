"""`flowtop -r`: as a command, without a screen and without root."""

from __future__ import annotations

import csv
import gzip
import ipaddress
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowtop.cli.run import Run
from flowtop.export.backlog import QueueBounds
from flowtop.export.exporter import Exporter
from flowtop.export.exports import Exports
from flowtop.model.record import FlowBatch, SourceState
from tests.kernel import frames as f
from tests.prepared import Flowtop, run_flowtop
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.test_damage import ipfix_file
from tests.unit.cli.command_line import options
from tests.unit.export.flows import RecordingTransport, until
from tests.unit.pipeline.test_pipeline import ScriptedCapture, Watcher

T = 1_700_000_000 * w.SECOND
CAPTURE = w.pcap([
    (T + round(time_s * 1000) * 1_000_000, f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(32)), f.UDP)))
    for time_s, port in ((0, 1), (0.2, 1), (1.5, 2), (40, 1))
] + [(T + 41 * w.SECOND, f.ethernet(f.ARP, bytes(46)))])


def run(*options: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run_flowtop("-b", *options, input=given)


def rounds(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURE)
    return path


def test_pages_of_two_runs_fit_together(tmp_path: Path) -> None:
    """Flows that are equal by the sort column have the same order in every run."""
    path, ports = tmp_path / "equal.pcap", range(1, 41)
    path.write_bytes(w.pcap([(T, f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53), f.UDP))) for port in ports]))
    listed = []
    for offset in ("0", "20"):
        [page] = rounds(run("-o", "json", "-r", str(path), "-s", "packets", "--offset", offset, "--top", "20"))
        listed += [flow["sourceTransportPort"] for flow in page["flows"]]
    assert sorted(listed) == list(ports)


def test_a_file_is_one_round_with_every_flow_in_it(path: Path) -> None:
    done = run("-o", "json", "-r", str(path))
    assert (done.returncode, done.stderr) == (0, b"")
    [only] = rounds(done)
    totals = only["totals"]
    assert (totals["observedPackets"], totals["accountedPackets"], totals["ignoredPackets"]) == (5, 4, 1)
    assert (totals["observedOctets"], totals["accountedOctets"], totals["ignoredOctets"]) == (4 * 60 + 46, 4 * 60, 46)
    flows = sorted((flow["sourceTransportPort"], flow["flowStartMilliseconds"] - T // 1_000_000,
                    flow["packetTotalCount"], flow["packetDeltaCount"], flow["flowEndReason"])
                   for flow in only["flows"])
    assert flows == [(1, 0, 2, 2, 1), (1, 40_000, 1, 1, 4), (2, 1500, 1, 1, 1)], "port 1 was idle for 39.8 s"
    assert {flow["interfaceName"] for flow in only["flows"]} == {"x.pcap"}
    assert only["time"] == "2023-11-14T22:14:01.000Z"


def test_rounds_follow_the_time_of_the_file_and_lose_nothing(path: Path) -> None:
    first, second = (rounds(run("-o", "json", "-d", "1", "-r", str(path))) for _ in range(2))
    assert first == second
    assert [(one["round"], sum(flow["packetDeltaCount"] for flow in one["flows"])) for one in first] == [
        (1, 2), (2, 1), (3, 0), (4, 1), (5, 0)]
    assert [one["time"][17:23] for one in first] == ["21.000", "22.000", "00.000", "01.000", "01.000"]


def test_a_count_ends_the_run(path: Path) -> None:
    done = run("-o", "json", "-c", "2", "-r", str(path))
    assert [one["totals"]["observedPackets"] for one in rounds(done)] == [2, 3]
    assert done.returncode == 0


def test_standard_input(path: Path) -> None:
    done = run("-o", "json", "-r", "-", given=CAPTURE)
    assert rounds(done)[-1]["totals"]["observedPackets"] == 5
    assert {flow["interfaceName"] for one in rounds(done) for flow in one["flows"]} == {"stdin"}


def test_what_is_cut_off_is_counted_as_far_as_it_goes_and_told_in_one_line(path: Path) -> None:
    path.write_bytes(CAPTURE[:-10])
    done = run("-o", "json", "-r", str(path))
    assert rounds(done)[-1]["totals"]["observedPackets"] == 4
    assert done.stderr.decode().splitlines() == [
        "flowtop: x.pcap is cut off in the middle of a record", "hint: everything before it is counted"]
    assert done.returncode == 65


@pytest.mark.parametrize(("options", "message", "status"), [
    (("-r", "/nowhere/x.pcap"), "cannot read /nowhere/x.pcap: no such file or directory", 66),
    (("-r", "/etc/hostname"), "/etc/hostname is not a capture file", 65),
    (("-r", "x", "-i", "lo"), "-r and -i exclude each other", 2),
    (("--replay",), "--replay needs -r", 2),
    (("--speed", "2"), "--speed needs -r", 2),
    (("-r", "-"), "standard input is empty", 65),
])
def test_what_cannot_be_read_is_told_in_one_line(options: tuple[str, ...], message: str, status: int) -> None:
    done = run(*options)
    assert (done.stdout, done.returncode) == (b"", status)
    assert done.stderr.decode().splitlines()[0] == f"flowtop: {message}"


FRAME = f.ethernet(f.IPV4, f.ipv4(f.udp(1, 53, bytes(32)), f.UDP))
SECTION = w.section() + w.interface(name="eth0") + w.enhanced(T // 1000, FRAME) * 3
BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 0, "is empty"),
    "text": (b"hello, this is text and no capture at all", 0, "is not a capture file"),
    "header cut": (CAPTURE[:20], 0, "is cut off in its header"),
    "link type": (w.pcap([(T, FRAME)], link_type=147), 1,
                  "has 1 frame of link type 147 (USER0), which is not supported"),
    "pcapng cut": (SECTION[:-5], 2, "is cut off in the middle of a block"),
    "pcapng damaged": (SECTION + struct.pack("<II", 6, 0x7FFFFFF0) + bytes(99), 3, "is damaged: a block of"),
    "record damaged": (CAPTURE + struct.pack("<IIII", 1, 1, 0x7FFFFFFF, 60) + bytes(99), 5, "is damaged: a record of"),
    "gzip cut": (gzip.compress(CAPTURE)[:-4], 5, "is cut off: its gzip stream does not end"),
    "gzip damaged": (gzip.compress(CAPTURE)[:-8] + b"12345678", 5, "is damaged: its gzip stream"),
    "some link types": (SECTION + w.interface(link_type=147) + w.enhanced(T // 1000, FRAME, number=1), 4,
                        "has 1 frame of link type 147 (USER0), which is not supported: counted as ignored"),
    "ipfix cut": (ipfix_file()[:-7], 2, "is cut off in the middle of a message"),
    "ipfix damaged": (ipfix_file() + bytes(99), 3, "is damaged: data that is not an IPFIX message"),
}
"""Octets of the file; how many packets or records of it count; what is said of it."""


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_what_was_before_it_is_counted(kind: str, path: Path) -> None:
    octets, counted, message = BAD[kind]
    path.write_bytes(octets)
    done = run("-o", "json", "-r", str(path))
    said, hint = done.stderr.decode().splitlines()
    assert said.startswith("flowtop: ") and message in said and "x.pcap" in said and hint.startswith("hint: ")
    assert done.returncode == 65
    if counted:
        last = rounds(done)[-1]
        observed = last["totals"]["observedPackets"] if "ipfix" not in kind else last["collecting"]["records"]
        assert observed == counted
        totals = last["totals"]
        assert totals["observedPackets"] == totals["accountedPackets"] + totals["ignoredPackets"]
    else:
        assert done.stdout == b""


def test_a_file_that_may_not_be_read_is_told_in_one_line(path: Path) -> None:
    path.chmod(0)
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run([*without, sys.executable, "-m", "flowtop", "-b", "-r", str(path)], capture_output=True)
    assert (done.stdout, done.returncode) == (b"", 66)
    assert done.stderr.decode().splitlines()[0] == f"flowtop: cannot read {path}: permission denied"


@pytest.mark.parametrize(("name", "message", "status"), [
    (".", "cannot read .: it is a directory", 66),
    ("/proc/self/mem", "/proc/self/mem cannot be read any further: input/output error", 65)])
def test_what_is_no_file_of_octets_is_told_in_one_line(name: str, message: str, status: int) -> None:
    done = run("-r", name)
    assert (done.stdout, done.returncode) == (b"", status)
    assert done.stderr.decode().splitlines()[0] == f"flowtop: {message}"


def test_a_replay_takes_the_time_it_took(path: Path) -> None:
    """41 s, a hundred times as fast: at least 0.4 s, and rounds of a tenth of a second each."""
    done = run("-o", "json", "--speed", "100", "-d", "0.1", "-r", str(path))
    assert [one["totals"]["observedPackets"] for one in rounds(done)] == [3, 3, 3, 3, 5]


class HastyFile(ScriptedCapture):
    """400 ticks of 100 new flows each, which are idle at once, as fast as anybody drains."""

    ticks = 400

    def wait(self, timeout_s: float) -> None:
        if self.drains >= self.ticks:
            super().wait(timeout_s)

    def drain(self) -> FlowBatch:
        batch = super().drain()
        batch.keys["source_port"] += self.drains * self.flows
        return replace(batch, source=SourceState(closes_tick=True, ended=self.drains >= self.ticks))


def test_a_file_is_read_no_faster_than_an_export_gets_on(tmp_path: Path) -> None:
    transport, capture = RecordingTransport(), HastyFile(flows=100)
    transport.hang.set()
    bounds = QueueBounds(records=2_000)
    exports = Exports(tmp_path, open_exporter=lambda url, _: Exporter(url, transport, bounds=bounds))
    exports.add("ipfix://127.0.0.1:9")
    read = replace(options("-b", "-r", "x.pcap", "-d", "1", "--dedupe", "off"), idle_timeout=0.5)
    pipeline = Run(read, lambda _: None).pipeline(capture, exports)
    pipeline.start(watcher := Watcher())
    until(exports.crowded, lambda: (capture.drains, watcher.errors, exports.statistics()))
    reached = capture.drains
    time.sleep(0.2)  # Nothing waits for this: read on, all would have come and gone.
    assert capture.drains <= reached + 2 < HastyFile.ticks
    transport.hang.clear()
    joined = threading.Thread(target=pipeline.join)
    joined.start()
    joined.join(60)
    [export] = exports.stop()
    ticks = HastyFile.ticks + 1  # what closing brought
    assert (len(transport.received), export.statistics.not_sent_records) == (ticks * capture.flows, 0)


def await_open(process: subprocess.Popen[bytes], path: Path) -> None:
    """Until a run has opened what it reads, and means to end by itself when it is told to."""
    about = Path(f"/proc/{process.pid}")

    def ready() -> bool:
        assert process.poll() is None, process.communicate()
        caught = next(words for words in (about / "status").read_text().splitlines() if words.startswith("SigCgt:"))
        handled = int(caught.split()[1], 16) >> signal.SIGTERM - 1 & 1
        return bool(handled) and any(os.path.realpath(link) == str(path) for link in (about / "fd").iterdir())

    until(ready, lambda: "it never opened the pipe")


def test_a_named_pipe_that_nobody_writes_to_can_be_left(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    running = Flowtop("-b", "-o", "json", "-r", path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await_open(running, path)
    running.terminate()
    output, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, b""), "as any run that a signal ends"
    assert json.loads(output.splitlines()[-1])["totals"]["observedPackets"] == 0


def test_a_named_pipe_is_read_from_its_first_writer_on(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    running = Flowtop("-b", "-o", "json", "-r", path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await_open(running, path)
    path.write_bytes(CAPTURE)
    output, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, b"")
    assert json.loads(output.splitlines()[-1])["totals"]["observedPackets"] == 5


SIZES = {1001: 10, 1002: 400, 1003: 90, 1004: 200, 1005: 30}
"""Octets of the payload of each flow's only packet, by source port."""


def sized(path: Path) -> Path:
    frames = [f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53 + port % 2, bytes(octets)), f.UDP))
              for port, octets in SIZES.items()]
    path.write_bytes(w.pcap((number * w.SECOND, frame) for number, frame in enumerate(frames, 1)))
    return path


@pytest.mark.parametrize(("sort", "smallest_first"), [("bytes", False), ("source", True)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("offset", "top"), [(0, None), (2, None), (1, 2), (4, 3), (5, None), (9, 1)])
def test_offset_and_reverse(tmp_path: Path, sort: str, smallest_first: bool, reverse: bool, offset: int,
                            top: int | None) -> None:
    keys = SIZES if sort == "bytes" else {port: port for port in SIZES}
    expected = sorted(SIZES, key=lambda port: keys[port], reverse=smallest_first == reverse)
    expected = expected[offset:None if top is None else offset + top]
    options = ["-s", sort, "--offset", str(offset), *(["--reverse"] if reverse else []),
               *([] if top is None else ["--top", str(top)]), "-r", str(sized(tmp_path / "x.pcap"))]
    [one] = rounds(run("-o", "json", *options))
    assert [flow["sourceTransportPort"] for flow in one["flows"]] == expected
    assert one["totals"]["matchedFlows"] == len(SIZES)


@pytest.mark.parametrize(("options", "expected"), [
    ((), ["53", "54"]), (("--reverse",), ["54", "53"]), (("--offset", "1"), ["54"]),
    (("--offset", "1", "--reverse"), ["53"]), (("--offset", "2"), [])])
def test_offset_and_reverse_of_groups_in_csv_and_tables(tmp_path: Path, options: tuple[str, ...],
                                                        expected: list[str]) -> None:
    """Port 53 has 600 octets of payload, port 54 has 130."""
    arguments = ("-g", "service", "-s", "bytes", *options, "-r", str(sized(tmp_path / "x.pcap")))
    groups = csv.DictReader(run("-o", "csv", *arguments).stdout.decode().splitlines())
    assert [group["servicePort"] for group in groups] == expected
    table = run(*arguments).stdout.decode().splitlines()[3:]
    assert [line.split()[1] for line in table] == expected


def test_json_says_which_host_it_is_from(path: Path, tmp_path: Path) -> None:
    done = run("-o", "json", "-r", str(path), "-e", f"jsonl:{tmp_path}/x.jsonl", "-e", f"csv:{tmp_path}/x.csv")
    agents = [rounds(done)[0]["agent"],
              *(json.loads(line)["agent"] for line in (tmp_path / "x.jsonl").read_text().splitlines())]
    assert {agent["name"] for agent in agents} == {socket.gethostname()}
    assert all(agent == agents[0] for agent in agents)
    if "address" in agents[0]:
        assert not ipaddress.ip_address(agents[0]["address"]).is_loopback
    assert "agent" not in (tmp_path / "x.csv").read_text()
