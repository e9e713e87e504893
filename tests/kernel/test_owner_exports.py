"""Owners leave with flows and with packets: what tshark and a second flowtop say of a process that the test started."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.netns import Lab, Namespace, eventually, process, run
from tests.kernel.test_owners import SENDER, _flowtop
from tests.unit.packets import packets

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")


@contextmanager
def sending(stage: Namespace) -> Iterator[int]:
    """A process that sends datagrams to port 7001, which nobody has; its pid."""
    with process(*stage.command(sys.executable, "-c", SENDER)) as child:
        yield child.pid


@contextmanager
def running(stage: Namespace, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`flowtop -b` on the loopback, which has begun; it has ended in order after this."""
    with process(*_flowtop(stage, *words), stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        yield child
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)


def rounds_until(child: subprocess.Popen[str], flows: int) -> None:
    """Read rounds until one has so many flows with a process."""
    assert child.stdout
    while sum("processName" in flow for flow in json.loads(child.stdout.readline())["flows"]) < flows:
        pass


def rows_of_file(path: Path, *words: str) -> list[dict[str, Any]]:
    """The flows or groups of `flowtop -r`."""
    said = run(sys.executable, "-m", "flowtop", "-b", "-r", str(path), "-o", "json", *words)
    last = json.loads(said.splitlines()[-1])
    return [*last.get("flows", ()), *last.get("groups", ())]


def test_what_an_ipfix_file_says_of_a_process_is_read_back(lab: Lab, tmp_path: Path) -> None:
    stage, path = lab.namespace(), tmp_path / "flows.ipfix"
    with running(stage, "-e", f"file:{path}?owners=on", "-e", f"jsonl:{tmp_path}/flows.jsonl", "-e",
                 f"file:{tmp_path}/none.ipfix?owners=on", "--export-filter", "process nobody") as child, \
            sending(stage) as pid:
        rounds_until(child, 1)
    [flow] = rows_of_file(path, "process a-sender and dir out")
    assert (flow["processName"], flow["processId"], flow["userName"]) == ("a-sender", pid, run("id", "-un").strip())
    assert flow["processCommand"].startswith(sys.executable)
    assert flow["destinationTransportPort"] == 7001
    lines = [json.loads(line) for line in (tmp_path / "flows.jsonl").read_text().splitlines()]
    [line] = [line for line in lines if line["destinationTransportPort"] == 7001 and line["flowDirection"] == 1]
    of_owner = {name for name in line if name.startswith(("process", "userName", "systemd"))}
    assert {name: flow[name] for name in of_owner} == {name: line[name] for name in of_owner}
    groups = {row["processName"]: row["octetTotalCount"] for row in rows_of_file(path, "-g", "process")
              if "processName" in row}
    assert groups["a-sender"] == line["octetTotalCount"]
    assert rows_of_file(tmp_path / "none.ipfix") == []


def test_a_collector_shows_the_processes_of_an_exporter(lab: Lab) -> None:
    stage = lab.namespace()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    collector = stage.command(sys.executable, "-m", "flowtop", "-b", "-l", f"udp://127.0.0.1:{port}", "-o", "json",
                              "process a-sender")
    with process(*collector, stdout=subprocess.PIPE) as second:
        assert second.stdout
        second.stdout.readline()
        with running(stage, "--idle-timeout", "1s", "-e", f"ipfix://127.0.0.1:{port}?owners=on", "dst port 7001"):
            with sending(stage) as pid:
                time.sleep(1)
            flows: list[dict[str, Any]] = []
            while not flows:
                flows = json.loads(second.stdout.readline())["flows"]
    assert {(flow["processName"], flow["processId"], flow["destinationTransportPort"]) for flow in flows} == {
        ("a-sender", pid, 7001)}


@needs_tshark
def test_packets_have_their_process_as_a_comment(lab: Lab, tmp_path: Path) -> None:
    stage, path = lab.namespace(), tmp_path / "x.pcapng"
    with running(stage, "-w", str(path), "udp port 7001") as child:
        begun_s = time.time()
        with sending(stage) as pid:
            eventually(lambda: path.exists() and len(packets(path.read_bytes())) > 10, "packets are written")
        assert child.poll() is None
    text = run("tshark", "-r", str(path), "-T", "fields", "-e", "frame.comment", "-e", "frame.packet_flags_direction")
    sent = [comment for comment, direction in (line.split("\t") for line in text.splitlines())
            if int(direction, 0) == 2]
    assert len(sent) > 5
    for comment in sent:
        assert comment.startswith(f"flowtop process=a-sender pid={pid} started="), comment
    assert f" user={run('id', '-un').strip()}" in sent[-1]
    [flow] = [flow for flow in rows_of_file(path, "process a-sender") if flow["flowDirection"] == 1]
    assert (flow["processId"], flow["userName"]) == (pid, run("id", "-un").strip())
    assert abs(datetime.fromisoformat(flow["processStart"]).timestamp() - begun_s) < 5
