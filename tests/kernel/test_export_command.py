"""`flowtop -e` as a user runs it: what leaves, what is said at the end, and what collectors that misbehave get."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.netns import PATIENCE_S, Lab, Namespace, eventually, hooks
from tests.kernel.test_command import REPOSITORY, Command, assert_nothing_attached, failing, in_a_terminal, ping


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


def test_rounds_go_to_stdout_and_the_recording_is_complete_on_exit(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    path = tmp_path / "flows.jsonl"
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", f"jsonl:{path}")
    command.await_rounds()
    ping(near, 20)
    assert command.end(signal.SIGINT) == 0
    recorded = [json.loads(line) for line in path.read_text().splitlines()]
    last = command.rounds()[-1]
    assert command.errors() == f"flowtop: export jsonl:{path}: {len(recorded)} flow records sent\n"
    for unit in ("packet", "octet"):
        assert sum(record[f"{unit}DeltaCount"] for record in recorded) == last["totals"][f"accounted{unit.title()}s"]
    requests = [record for record in recorded if record.get("icmpTypeCodeIPv4") == 8 * 256]
    assert [(record["packetTotalCount"], record["interfaceName"], record["flowEndReason"]) for record in requests] == [
        (20, "veth0", 4)]
    assert_nothing_attached(near)


def test_an_export_to_stdout_has_it_for_itself_and_its_reader_may_go(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    words = (f"{sys.executable} -m flowtop -b -d 0.1 -i veth0 --active-timeout 1 -e jsonl:- 2>{tmp_path}/err"
             " | head -n 1; echo ${PIPESTATUS[0]}")
    with subprocess.Popen(near.command("bash", "-c", words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True, cwd=REPOSITORY) as shell:
        eventually(lambda: hooks(near, "veth0") == 2, "hooks")
        # More than one line, at two times: the second finds no reader.
        while shell.poll() is None:
            ping(near, 5)
        assert shell.stdout is not None
        first, status = shell.stdout.read().splitlines()
    assert json.loads(first)["interfaceName"] == "veth0"
    assert "flow records sent" in (tmp_path / "err").read_text()
    assert status in ("0", "74"), "74: the reader went away before the last records"
    assert_nothing_attached(near)


def test_a_recorder_needs_no_standard_output(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    path = tmp_path / "flows.csv"
    words = f"exec {sys.executable} -m flowtop -b -o none -c 3 -d 0.2 -i veth0 -e csv:{path} >&-"
    done = subprocess.run(near.command("sh", "-c", words), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          cwd=REPOSITORY, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert path.read_text().startswith("flowId,interfaceName,")


@pytest.mark.parametrize(("url", "message", "hint"), [
    ("file:{tmp}/none/x.ipfix", "there is no directory", "may write"),
    ("file:{tmp}", "it is a directory", "may write"),
    ("ipfix+tls://collector?ca={tmp}/none.pem", "cannot read the authorities' certificates", "PEM"),
    ("ipfix+tls://collector?cert={tmp}/empty", "cannot read the client's certificate", "PEM"),
    ("ipfix+tcp://collector", "cannot use the spool directory", "can be written"),
])
def test_what_cannot_be_is_said_before_anything_starts(
        pair: tuple[Namespace, Namespace], tmp_path: Path, url: str, message: str, hint: str) -> None:
    (tmp_path / "empty").touch()
    status, (said, advice) = failing(pair[0], "-b", "-i", "veth0", "-e", url.format(tmp=tmp_path),
                                     "--state-directory", str(tmp_path / "empty"))
    assert status in (1, 2)
    assert message in said
    assert hint in advice


def test_the_screen_is_not_painted_over_by_an_export(pair: tuple[Namespace, Namespace]) -> None:
    status, painted = in_a_terminal(pair[0], "-i", "veth0", "-e", "csv:-", act=lambda pid, fd: None)
    assert status == 2
    assert b"standard output is the screen's" in painted
    assert b"\x1b[?1049h" not in painted, "no screen was begun"


def test_the_screen_exports_too_and_says_so_when_it_has_gone(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    path = tmp_path / "flows.jsonl"

    pinger = subprocess.Popen(near.command("ping", "-q", "-i", "0.05", "10.77.0.2"), stdout=subprocess.DEVNULL)
    try:
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", "-e", f"jsonl:{path}",
                                        act=lambda pid, terminal: os.write(terminal, b"q"))
    finally:
        pinger.kill()
        pinger.wait()
    assert status == 0
    recorded = [json.loads(line) for line in path.read_text().splitlines()]
    requests = [r for r in recorded if r.get("icmpTypeCodeIPv4") == 8 * 256]
    assert [(r["flowEndReason"], r["octetDeltaCount"]) for r in requests] == [(4, 84 * requests[0]["packetDeltaCount"])]
    after = painted.rpartition(b"\x1b[?1049l")[2]
    assert f"{len(recorded)} flow records sent".encode() in after


@pytest.mark.parametrize("scheme", ["ipfix+tcp", "ipfix+tls"])
def test_a_collector_that_never_reads_holds_up_nothing_and_what_it_did_not_take_is_spooled(
        pair: tuple[Namespace, Namespace], tmp_path: Path, scheme: str) -> None:
    near, _ = pair
    near.run("ip", "link", "set", "lo", "up")
    with near.call(lambda: socket.create_server(("127.0.0.1", 0), backlog=1)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", url,
                          "--export-timeout", "0.3", "--state-directory", str(tmp_path / "state"))
        command.await_rounds()
        near.call(lambda: many_flows(3_000))
        status = command.end(signal.SIGTERM)
    assert status == 0
    assert f"flowtop: export {url}: " in command.errors()
    if scheme == "ipfix+tls":  # no handshake: nothing was taken
        assert "0 flow records sent" in command.errors()
        assert "spooled for the next run" in command.errors()
    assert "NOT SENT" not in command.errors()


def many_flows(count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(count):
            sender.sendto(b"x", ("10.77.0.2", 10_000 + port))


def test_a_name_that_does_not_resolve_holds_up_neither_start_nor_end(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    state = tmp_path / "state"
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", "ipfix+tcp://none.invalid",
                      "--export-timeout", "0.2", "--state-directory", str(state))
    command.await_rounds()
    ping(near, 3)
    assert command.end(signal.SIGINT) == 0
    assert "spooled for the next run" in command.errors()
    assert [path.name for path in state.rglob("*.ipfix")]


def test_a_second_ctrl_c_does_not_wait_for_a_collector_that_is_away(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    near.run("ip", "link", "set", "lo", "up")
    with near.call(lambda: socket.create_server(("127.0.0.1", 0), backlog=1)) as listener:
        url = f"ipfix+tls://127.0.0.1:{listener.getsockname()[1]}"
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", url,
                          "--export-timeout", "3600", "--state-directory", str(tmp_path / "state"))
        command.await_rounds()
        ping(near, 3)
        command.process.send_signal(signal.SIGINT)
        eventually(lambda: hooks(near, "veth0") == 0, "a last drain")
        assert command.end(signal.SIGINT) == 0, "within PATIENCE_S, though an hour was asked for"
    assert "spooled for the next run" in command.errors()
