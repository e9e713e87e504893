"""`flowtop -e` as a user runs it: what leaves, what is said at the end, and what collectors that misbehave get."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.netns import PATIENCE_S, Lab, Namespace, eventually, hooks, process
from tests.kernel.test_command import (
    REPOSITORY,
    Command,
    assert_nothing_attached,
    failing,
    in_a_terminal,
    ping,
    send_datagrams,
)
from tests.oracle.collectors import ipfix_dump
from tests.oracle.test_export_tcp import COLLECTOR
from tests.oracle.test_export_tls import pki  # noqa: F401 - a fixture


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


def test_a_filter_limits_the_export_before_it_and_no_other(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    urls = [f"jsonl:{tmp_path}/{name}.jsonl" for name in ("all", "udp", "pings")]
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", urls[0], "-e", urls[1],
                      "--export-filter", "udp and dst port 5001 and if veth*", "-e", urls[2], "--export-filter",
                      "icmp and dir out")
    command.await_rounds()
    ping(near, 4)
    near.call(lambda: send_datagrams(range(5_000, 5_003)))
    assert command.end(signal.SIGINT) == 0
    everything, udp, pings = ([json.loads(line) for line in Path(url.removeprefix("jsonl:")).read_text().splitlines()]
                              for url in urls)
    assert [(flow["destinationTransportPort"], flow["packetDeltaCount"]) for flow in udp] == [(5_001, 1)]
    assert pings == [flow for flow in everything if flow["protocolIdentifier"] == 1 and flow["flowDirection"] == 1]
    assert len(everything) == len(command.rounds()[-1]["flows"]) > 4


def test_packets_seen_twice_are_exported_twice_or_once_as_the_export_asks(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    """On loopback every packet leaves and arrives."""
    near, _ = pair
    urls = [f"jsonl:{tmp_path}/all.jsonl", f"jsonl:{tmp_path}/once.jsonl?duplicates=drop"]
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "lo", "-e", urls[0], "-e", urls[1])
    command.await_rounds()
    near.run("ping", "-q", "-c", "9", "-i", "0.01", "127.0.0.1")
    assert command.end(signal.SIGINT) == 0
    everything, once = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
                        for name in ("all.jsonl", "once.jsonl"))
    sent = 9 * 2  # requests and replies
    assert sum(flow["packetDeltaCount"] for flow in everything) == 2 * sent
    assert sum(flow["packetDeltaCount"] for flow in once) == sent
    assert sum(flow["octetDeltaCount"] for flow in once) == 84 * sent
    assert not any(flow.get("duplicate") for flow in once)


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
    ("ipfx+tcp://collector", "unknown scheme 'ipfx+tcp'", "did you mean ipfix+tcp?"),
    ("ipfix+tcp://collector:70000", "Port out of range", "a port is 1 to 65535"),
    ("ipfix://collector?profile=nfdmp", "unknown profile 'nfdmp'", "did you mean nfdump?"),
    ("ipfix://a..b", "'a..b' is not a host name", "1 to 63 characters"),
    ("file:a%00b", "control characters in export 'file:a%00b'", "must not have any"),
    ("ipfix+tls://127.0.0.1?ca=%00", "control characters in export", "must not have any"),
    ("file:{tmp}/" + "a" * 300, "File name too long", "can write to"),
    ("file:{tmp}/none/x.ipfix", "there is no directory", "can write to"),
    ("file:{tmp}", "it is a directory", "can write to"),
    ("ipfix+tls://collector?ca={tmp}/none.pem", "cannot read the authorities' certificates", "PEM"),
    ("ipfix+tls://collector?cert={tmp}/empty", "cannot read the client's certificate", "PEM"),
    ("ipfix+tcp://collector", "cannot use the spool directory", "can be written"),
])
def test_what_cannot_be_is_said_before_anything_starts(
        pair: tuple[Namespace, Namespace], tmp_path: Path, url: str, message: str, hint: str) -> None:
    (tmp_path / "empty").touch()
    status, (error, advice) = failing(pair[0], "-b", "-i", "veth0", "-e", url.format(tmp=tmp_path),
                                     "--state-directory", str(tmp_path / "empty"))
    assert status in (1, 2)
    assert message in error
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
        near.call(lambda: send_datagrams(range(10_000, 13_000)))
        status = command.end(signal.SIGTERM)
    assert status == 0
    assert f"flowtop: export {url}: " in command.errors()
    if scheme == "ipfix+tls":  # no handshake: nothing was taken
        assert "0 flow records sent" in command.errors()
        assert "spooled for the next run" in command.errors()
    assert "NOT SENT" not in command.errors()


def test_a_collector_that_closes_at_once_is_told_and_costs_no_record(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    near.run("ip", "link", "set", "lo", "up")
    state = tmp_path / "state"
    with near.call(lambda: socket.create_server(("127.0.0.1", 0))) as listener:

        def refuse() -> None:
            with suppress(OSError):  # the listener is closed at the end
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"ipfix+tcp://127.0.0.1:{listener.getsockname()[1]}?reconnect=0.1s"
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", url,
                          "--export-timeout", "1", "--state-directory", str(state))
        command.await_rounds()
        near.call(lambda: send_datagrams(range(10_000, 10_100)))
        assert command.end(signal.SIGINT) == 0
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    told = re.search(r"(\d+) flow records sent,.* (\d+) spooled for the next run, (.*)", command.errors())
    assert told is not None, command.errors()
    assert int(told[1]) + int(told[2]) == len(command.rounds()[-1]["flows"]) >= 100
    assert "closed the connection" in told[3] or "reset" in told[3] or "Broken pipe" in told[3]
    assert len(list(state.rglob("*.ipfix"))) >= 1


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


def test_a_full_disk_under_the_spool_is_counted_and_told_and_ends_with_its_own_status(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    near.run("ip", "link", "set", "lo", "up")
    (tmp_path / "state").mkdir()
    small = f'mount -t tmpfs -o size=64k none {tmp_path}/state && exec "$@"'
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e", "ipfix+tcp://127.0.0.1:9",
                      "--export-timeout", "0.2", "--state-directory", str(tmp_path / "state"),
                      prefix=("unshare", "-m", "sh", "-c", small, "sh"))
    command.await_rounds()
    near.call(lambda: send_datagrams(range(10_000, 15_000)))
    assert command.end(signal.SIGTERM) == 74
    flows = len(command.rounds()[-1]["flows"])
    assert flows >= 5_000
    assert f"0 flow records sent, {flows} NOT SENT, cannot spool to" in command.errors()
    assert "No space left on device" in command.errors()


def test_what_one_run_could_not_send_the_next_sends_first(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    near.run("ip", "link", "set", "lo", "up")
    state, arrived = tmp_path / "state", tmp_path / "in"
    arrived.mkdir()

    def run(ports: range) -> str:
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e",
                          "ipfix+tcp://127.0.0.1?reconnect=0.1s", "--state-directory", str(state),
                          "--export-timeout", "0.3" if ports.start == 1 else "20")
        command.await_rounds()
        near.call(lambda: send_datagrams(ports))
        assert command.end(signal.SIGTERM) == 0
        return command.errors()

    assert "spooled for the next run, cannot connect to 127.0.0.1 port 4739: Connection refused" in run(range(1, 101))
    words = near.command(sys.executable, str(COLLECTOR), str(arrived), "127.0.0.1", "4739")
    with process(*words, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None and listening.stdout.readline()
        assert "spooled" not in run(range(101, 201))
    assert not list(state.rglob("*.ipfix"))
    session, = arrived.iterdir()
    records, complaints = ipfix_dump(session.read_bytes(), tmp_path)
    assert not complaints
    ports = [int(fields["destinationTransportPort"]) for fields in (dict(fields) for _, fields in records)
             if fields.get("protocolIdentifier") == "17" and fields.get("flowDirection") == "1"]
    assert (set(ports[:100]), set(ports[100:])) == (set(range(1, 101)), set(range(101, 201)))


@pytest.mark.parametrize(("name", "says"), [
    ("stranger", "unable to get local issuer certificate"), ("expired", "certificate has expired"),
    ("elsewhere", "IP address mismatch"),
])
def test_a_collector_that_is_not_who_it_should_be_gets_nothing_and_the_user_is_told_why(
        pair: tuple[Namespace, Namespace], pki: Path, tmp_path: Path, name: str, says: str) -> None:  # noqa: F811
    near, _ = pair
    arrived = tmp_path / "in"
    arrived.mkdir()
    words = near.command(sys.executable, str(COLLECTOR), str(arrived), "127.0.0.1", "4740", str(pki / f"{name}.pem"),
                         str(pki / f"{name}.key"))
    with process(*words, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None and listening.stdout.readline()
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "-e",
                          f"ipfix+tls://127.0.0.1?ca={pki / 'own.pem'}", "--export-timeout", "0.3",
                          "--state-directory", str(tmp_path / "state"))
        command.await_rounds()
        ping(near, 3)
        assert command.end(signal.SIGINT) == 0
    assert not any(path.stat().st_size for path in arrived.iterdir())
    assert "0 flow records sent" in command.errors()
    assert f"spooled for the next run, the collector's certificate is invalid: {says}" in command.errors()
