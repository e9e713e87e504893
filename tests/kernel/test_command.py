"""`flowtop` as a user runs it: a process in a network namespace, its output beside the interface's counters."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.netns import PATIENCE_S, Lab, Namespace, eventually, hooks, run
from tests.prepared import Flowtop, run_flowtop

REPOSITORY = Path(__file__).resolve().parents[2]
ETHERNET_HEADER = 14


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


class Command:
    """A running `flowtop`, its output going to files so that it never waits for a reader."""

    def __init__(self, namespace: Namespace, directory: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self._namespace = namespace
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, "cwd": REPOSITORY}
            self.process: subprocess.Popen[Any] = (
                subprocess.Popen(namespace.command(*prefix, sys.executable, "-m", "flowtop", *arguments), **streams)
                if prefix else Flowtop(*arguments, namespace=namespace.name, **streams))

    def await_rounds(self, number: int = 1) -> None:
        """Wait until so many rounds are out: capturing has begun then."""
        eventually(lambda: len(self.rounds()) >= number or self.process.poll() is not None, f"{number} rounds")
        assert self.process.poll() is None, self.errors()

    def end(self, number: int | None = None) -> int:
        """Send a signal (or none), wait, give the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def rounds(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def output(self) -> str:
        return self._out.read_text()

    def errors(self) -> str:
        return self._err.read_text()


def assert_nothing_attached(namespace: Namespace) -> None:
    attached = json.loads(namespace.run("bpftool", "-j", "net", "show"))
    assert not attached[0]["tc"], attached
    assert "clsact" not in namespace.run("tc", "qdisc", "show")


def ping(namespace: Namespace, count: int) -> None:
    namespace.run("ping", "-q", "-c", str(count), "-i", "0.01", "-s", "100", "10.77.0.2")


@pytest.mark.core
def test_the_last_round_is_complete_and_equals_the_interface_counters(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0")
    command.await_rounds()
    before = near.link_statistics("veth0")
    seen_before = command.rounds()[-1]["totals"]["observedPackets"]
    ping(near, 50)
    ping(near, 25)
    status = command.end(signal.SIGINT)
    after = near.link_statistics("veth0")
    rounds = command.rounds()
    last = rounds[-1]
    counted = sum(after[way]["packets"] - before[way]["packets"] for way in ("rx", "tx"))
    octets = sum(after[way]["bytes"] - before[way]["bytes"] for way in ("rx", "tx"))
    assert (status, command.errors()) == (0, "")
    assert counted == 150
    assert last["totals"]["observedPackets"] - seen_before == 150
    assert last["totals"]["lostPackets"] == 0
    for unit in ("Packets", "Octets"):
        totals = last["totals"]
        assert totals["observed" + unit] == sum(totals[name + unit] for name in ("accounted", "ignored", "lost"))
    requests = [flow for flow in last["flows"] if flow.get("icmpTypeCodeIPv4") == 8 * 256]
    assert sum(flow["packetTotalCount"] for flow in requests) == 75
    assert sum(flow["octetTotalCount"] for flow in requests) == 75 * (20 + 8 + 100)
    assert {flow["flowEndReason"] for flow in last["flows"]} == {4}
    assert sum(flow["octetTotalCount"] for flow in last["flows"]) == octets - ETHERNET_HEADER * counted
    for unit in ("packet", "octet"):
        deltas = sum(flow[f"{unit}DeltaCount"] for one in rounds for flow in one["flows"])
        assert deltas == sum(flow[f"{unit}TotalCount"] for flow in last["flows"]), "rounds add up to the last one"
    assert_nothing_attached(near)


def test_a_filter_lists_what_passes_and_totals_are_of_all(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", "icmp", "and", "dir out", "or",
                      "bytes > 1G")
    command.await_rounds()
    seen_before = command.rounds()[-1]["totals"]["observedPackets"]
    ping(near, 20)
    status = command.end(signal.SIGINT)
    last = command.rounds()[-1]
    assert (status, command.errors()) == (0, "")
    assert [(flow["icmpTypeCodeIPv4"], flow["flowDirection"], flow["packetTotalCount"]) for flow in last["flows"]] == [
        (8 * 256, 1, 20)]
    assert last["totals"]["observedPackets"] - seen_before == 40
    assert last["totals"]["matchedFlows"] == 1
    assert last["totals"]["flows"] >= 2


def test_count_ends_after_that_many_rounds_with_status_0(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-c", "3", "-d", "0.1", "-i", "veth0")
    assert command.end() == 0
    assert [one["round"] for one in command.rounds()] == [1, 2, 3]
    assert_nothing_attached(near)


@pytest.mark.parametrize(("number", "count", "status"), [
    (signal.SIGINT, None, 0), (signal.SIGTERM, None, 0), (signal.SIGHUP, None, 0),
    (signal.SIGINT, "1000", 130), (signal.SIGTERM, "1000", 143),
])
def test_signals_end_with_a_last_drain_and_the_documented_status(
        pair: tuple[Namespace, Namespace], tmp_path: Path, number: int, count: str | None, status: int) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.2", "-i", "veth0", *(["-c", count] if count else []))
    command.await_rounds()
    ping(near, 10)
    assert command.end(number) == status
    assert command.errors() == ""
    last = command.rounds()[-1]
    assert sum(f["packetTotalCount"] for f in last["flows"] if f["protocolIdentifier"] == 1) == 20
    assert_nothing_attached(near)


def test_a_round_that_was_cut_short_was_not_reached(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-c", "1", "-d", "600", "-i", "veth0")
    eventually(lambda: hooks(near, "veth0") == 2, "hooks")
    assert command.end(signal.SIGTERM) == 143
    assert len(command.rounds()) == 1


def test_a_broken_pipe_is_quiet(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    words = f"{sys.executable} -m flowtop -b -d 0.1 -i veth0 2>{tmp_path}/err | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(near.command("bash", "-c", words), capture_output=True, text=True, timeout=PATIENCE_S,
                          stdin=subprocess.DEVNULL, cwd=REPOSITORY, check=True)
    assert (tmp_path / "err").read_text() == ""
    first, status = done.stdout.splitlines()
    assert first.startswith("flowtop")
    assert status == "0"
    assert_nothing_attached(near)


def test_a_slow_reader_loses_no_packet(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    words = near.command(sys.executable, "-m", "flowtop", "-b", "-o", "json", "-d", "0.1", "-i", "veth0")
    process = subprocess.Popen(words, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    for _ in range(10):  # 2,000 flows a round: many times what the pipe holds while nobody reads
        near.call(lambda: send_datagrams(range(3000, 5000)))
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, b"")
    rounds = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    deltas = sum(f["packetDeltaCount"] for one in rounds for f in one["flows"]
                 if f["protocolIdentifier"] == 17 and f["flowDirection"] == 1)
    assert deltas == 20_000
    assert len(rounds) < 10, "the reader was waited for"


def send_datagrams(ports: range) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in ports:
            sender.sendto(b"x", ("10.77.0.2", port))


def test_a_recording_under_nohup_outlives_the_terminal(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0", prefix=("nohup",))
    command.await_rounds()
    command.process.send_signal(signal.SIGHUP)
    command.await_rounds(len(command.rounds()) + 3)
    assert command.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_told_in_two_lines(
        pair: tuple[Namespace, Namespace], redirection: str) -> None:
    near, _ = pair
    words = f"exec {sys.executable} -m flowtop -b -d 0.1 -i veth0 {redirection}"
    done = subprocess.run(near.command("sh", "-c", words), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          cwd=REPOSITORY, timeout=PATIENCE_S, check=False)
    assert done.returncode in (1, 2)
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["flowtop", "hint"]
    assert "standard output" in done.stderr
    assert_nothing_attached(near)


def test_a_flood_past_max_flows_is_listed_once_and_the_rounds_add_up(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.2", "-i", "veth0", "--max-flows", "10")
    command.await_rounds()
    near.call(lambda: send_datagrams(range(3000, 5000)))
    assert command.end(signal.SIGTERM) == 0
    rounds = command.rounds()
    totals = rounds[-1]["totals"]
    assert totals["evictedFlows"] >= 1990
    assert totals["unlistedPackets"] == 0
    deltas = [f["packetDeltaCount"] for one in rounds for f in one["flows"] if f["protocolIdentifier"] == 17
              and f["flowDirection"] == 1 and 3000 <= f["destinationTransportPort"] < 5000]
    assert sum(deltas) == 2000


def test_csv_and_table_show_the_same_flow(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    outputs = {}
    for output in ("csv", "table"):
        (tmp_path / output).mkdir()
        command = Command(near, tmp_path / output, "-b", "-o", output, "-d", "0.3", "-i", "veth0")
        eventually(lambda command=command: bool(command.output()), "a first round")
        ping(near, 5)
        assert command.end(signal.SIGTERM) == 0
        outputs[output] = command.output()
    rows = [row for row in csv.DictReader(io.StringIO(outputs["csv"])) if row["icmpTypeCodeIPv4"] == str(8 * 256)]
    assert rows[-1]["packetTotalCount"] == "5"
    assert rows[-1]["destinationIPv4Address"] == "10.77.0.2"
    assert any(line.split()[:4] == ["veth0", "→", "icmp", "10.77.0.1"] for line in outputs["table"].splitlines())


def failing(namespace: Namespace, *arguments: str, prefix: tuple[str, ...] = (),
            env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    environment = os.environ | (env or {})
    if prefix:
        done = subprocess.run(namespace.command(*prefix, sys.executable, "-m", "flowtop", *arguments), text=True,
                              capture_output=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL, cwd=REPOSITORY,
                              check=False, env=environment)
    else:
        done = run_flowtop(*arguments, namespace=namespace.name, text=True, timeout=PATIENCE_S, cwd=REPOSITORY,
                           env=environment)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("flowtop: ")
    assert lines[1].startswith("hint: ")
    assert_nothing_attached(namespace)
    return done.returncode, lines


def test_no_such_interface_suggests_a_near_name(pair: tuple[Namespace, Namespace]) -> None:
    status, (message, hint) = failing(pair[0], "-b", "-i", "vteh0")
    assert status == 66
    assert "no such interface: vteh0" in message
    assert "did you mean veth0?" in hint


@contextmanager
def netlink_monitor(namespace: Namespace, name: str) -> Iterator[None]:
    """A device that carries netlink messages, as nlmon does: a tun device that says so (TUNSETLINK)."""
    def open_tun() -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0001 | 0x1000))
        fcntl.ioctl(tun, 0x400454CD, 824)
        return tun

    tun = namespace.call(open_tun)
    try:
        namespace.ip(f"link set {name} up")
        yield
    finally:
        os.close(tun)


NETLINK = "nl0 is not observed: link type 824 is not supported: it carries netlink messages"


def test_nothing_to_observe_ends_a_batch_with_the_reason(pair: tuple[Namespace, Namespace]) -> None:
    with netlink_monitor(pair[0], "nl0"):
        status, (message, _) = failing(pair[0], "-b", "-i", "nl0")
    assert status == 69
    assert NETLINK in message


def test_what_is_not_observed_beside_others_is_said_once_and_in_every_round(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    with netlink_monitor(near, "nl0"):
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "nl0", "-i", "veth0")
        command.await_rounds(3)
        assert command.end(signal.SIGTERM) == 0
    assert command.errors().count(NETLINK) == 1
    assert [line["notObserved"] for line in command.rounds()] == [
        [{"interface": "nl0", "inPart": False,
          "reason": "link type 824 is not supported: it carries netlink messages"}]] * len(command.rounds())


def test_egress_beside_an_ingress_qdisc_is_said(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    near.run("tc", "qdisc", "add", "dev", "veth0", "handle", "ffff:", "ingress")
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0",
                      prefix=("env", "FLOWTOP_ATTACH=clsact"))
    command.await_rounds()
    ping(near, 20)
    assert command.end(signal.SIGTERM) == 0
    assert command.errors().count("egress of veth0 is not observed: its ingress qdisc ") == 1
    last = command.rounds()[-1]
    assert (last["totals"]["observedPackets"], last["totals"]["interfacePackets"]) == (20, 20), "the replies"
    (gap,) = last["notObserved"]
    assert (gap["interface"], gap["direction"]) == ("veth0", "egress")
    checked = subprocess.run(near.command("env", "FLOWTOP_ATTACH=clsact", sys.executable, "-m", "flowtop", "--check"),
                             capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert checked.returncode == 1
    assert "MISS  interfaces" in checked.stdout
    assert "egress of veth0 is not observed" in checked.stdout


NOT_ROOT = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
ROOT_WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all")


@pytest.mark.parametrize("prefix", [NOT_ROOT, ROOT_WITHOUT_CAPABILITIES], ids=["not root", "root without capabilities"])
def test_without_privileges(pair: tuple[Namespace, Namespace], tmp_path: Path, prefix: tuple[str, ...]) -> None:
    if prefix is NOT_ROOT and not _readable_by_others(Path(sys.executable)):
        pytest.skip("this Python is not readable by another user")
    status, (message, hint) = failing(pair[0], "-b", "-i", "veth0", prefix=prefix, env={"HOME": str(tmp_path)})
    assert status == 77
    assert "permi" in message or "privilege" in message or "root" in message
    assert "sudo" in hint


def _readable_by_others(path: Path) -> bool:
    done = subprocess.run([*NOT_ROOT, str(path), "-c", "import flowtop"], cwd=REPOSITORY, capture_output=True,
                          check=False)
    return done.returncode == 0


def test_a_kernel_that_refuses_bpf_is_told_apart_from_not_being_root(pair: tuple[Namespace, Namespace],
                                                                    tmp_path: Path) -> None:
    """A locked-down kernel or a container's seccomp policy: bpf(2) gives EPERM to root."""
    denier = tmp_path / "deny-bpf"
    source = tmp_path / "deny.c"
    source.write_text(DENY_BPF)
    run("cc", "-O1", "-o", str(denier), str(source))
    status, (message, hint) = failing(pair[0], "-b", "-i", "veth0", prefix=(str(denier),))
    assert status == 77
    assert "not permitted" in message
    assert "locked-down" in hint or "container" in hint


DENY_BPF = r"""
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_bpf, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 99;
	execvp(argv[1], argv + 1);
	return 98;
}
"""


def test_bcc_missing_names_the_package(pair: tuple[Namespace, Namespace]) -> None:
    """An empty directory is mounted over the distribution's packages, for this process only."""
    hide = 'mount -t tmpfs none /usr/lib/python3/dist-packages/bcc && exec "$@"'
    status, (message, hint) = failing(pair[0], "-b", "-i", "veth0", prefix=("unshare", "-m", "sh", "-c", hide, "sh"))
    assert status == 69
    assert "bcc" in message
    assert "python3-bpfcc" in hint


def in_a_terminal(namespace: Namespace, *arguments: str, act: Callable[[int, int], None],
                  directory: Path = REPOSITORY) -> tuple[int, bytes]:
    """Run the screen in a pseudo-terminal; `act(pid, fd)` plays the user. Gives exit status and what was painted."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(directory)
        words = namespace.command("env", "TERM=xterm-256color", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m",
                                  "flowtop", *arguments)
        os.execvp(words[0], words)
    painted = bytearray()
    deadline = time.monotonic() + PATIENCE_S
    acted = False
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                painted += os.read(terminal, 65536)
            except OSError:  # EIO: the child has closed its side
                break
        if not acted and b"veth0" in painted and b"10.77.0.2" in painted:
            acted = True
            act(child, terminal)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), bytes(painted)


@pytest.mark.parametrize("leave", [
    lambda pid, fd: os.write(fd, b"q"),
    lambda pid, fd: os.write(fd, b"\x03"),
    lambda pid, fd: os.kill(pid, signal.SIGTERM),
    lambda pid, fd: os.kill(pid, signal.SIGINT),
    lambda pid, fd: os.kill(pid, signal.SIGHUP),
], ids=["q", "ctrl+c", "SIGTERM", "SIGINT", "SIGHUP"])
def test_the_screen_shows_real_flows_and_leaves_with_status_0(
        pair: tuple[Namespace, Namespace], leave: Callable[[int, int], None]) -> None:
    near, _ = pair
    pinger = subprocess.Popen(near.command("ping", "-q", "-i", "0.05", "10.77.0.2"), stdout=subprocess.DEVNULL)
    try:
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", act=leave)
    finally:
        pinger.kill()
        pinger.wait()
    assert status == 0, painted[-2000:]
    assert b"Traceback" not in painted
    assert_nothing_attached(near)


def test_a_filter_typed_into_the_screen_leaves_the_flows_it_means(pair: tuple[Namespace, Namespace]) -> None:
    """Real packets of two protocols, keys on a real terminal: /, a pasted escape sequence and Esc, \\, q.

    The kernel leaves one of the protocols out until \\ asks for all flows."""
    near, _ = pair

    def act(pid: int, terminal: int) -> None:
        del pid
        for keys, shown in ((b"\\", b"10.77.0.2:9 "), (b"/", b"/ "), (b"udp and port 9", b"1 of "),
                            (b"\r", b"filter "), (b"\\", b"icmp"),
                            (b"/\x1b[200~icmp \x1b[31mand\n\x1b[201~", b"packet bytes"), (b"\x1b", b"by ")):
            os.write(terminal, keys)
            seen.append(read_until(terminal, shown))
        os.write(terminal, b"q")

    seen: list[bytes] = []
    pinger = subprocess.Popen(near.command("ping", "-q", "-i", "0.05", "10.77.0.2"), stdout=subprocess.DEVNULL)
    talker = subprocess.Popen(near.command(sys.executable, "-c", TALK))
    try:
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", "icmp", act=act)
    finally:
        for process in (pinger, talker):
            process.kill()
            process.wait()
    assert status == 0, painted[-2000:]
    assert b"Traceback" not in painted
    assert b"udp and port 9" in seen[3]
    assert b"\x1b[31mand" not in seen[5]
    assert_nothing_attached(near)


TALK = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    while True:
        out.sendto(b"x" * 100, ("10.77.0.2", 9))
        time.sleep(0.05)
"""
"""Datagrams to the discard port, which nobody there reads."""


def read_until(terminal: int, words: bytes) -> bytes:
    """What the screen paints, until it holds these words."""
    painted = bytearray()
    deadline = time.monotonic() + PATIENCE_S
    while words not in painted:
        assert time.monotonic() < deadline, (words, bytes(painted[-2000:]))
        if select.select([terminal], [], [], 0.1)[0]:
            painted += os.read(terminal, 65536)
    return bytes(painted)


def test_the_screen_that_cannot_start_leaves_two_lines_behind(pair: tuple[Namespace, Namespace]) -> None:
    status, painted = in_a_terminal(pair[0], "-i", "vteh0", act=lambda pid, fd: None)
    assert status == 66
    assert b"flowtop: no such interface: vteh0" in painted
    assert b"did you mean veth0?" in painted
    assert b"Traceback" not in painted


def test_what_the_kernel_filters_is_a_number_in_the_books(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0",
                      "udp or icmptype 8 and bytes > 10")
    command.await_rounds()
    before = near.link_statistics("veth0")
    start = command.rounds()[-1]["totals"]
    ping(near, 20)
    status = command.end(signal.SIGINT)
    after = near.link_statistics("veth0")
    last = command.rounds()[-1]
    totals = {name: last["totals"][name] - start[name] for name in start}
    assert (status, command.errors()) == (0, "")
    counted = sum(after[way]["packets"] - before[way]["packets"] for way in ("rx", "tx"))
    assert totals["observedPackets"] == counted == 40
    assert totals["filteredPackets"] == 20, "the replies, in the kernel"
    assert totals["filteredOctets"] == 20 * (20 + 8 + 100)
    assert (totals["accountedPackets"], totals["ignoredPackets"], totals["lostPackets"]) == (20, 0, 0)
    assert [flow["packetTotalCount"] for flow in last["flows"]] == [20]


def test_check_says_which_part_of_a_filter_runs_where(pair: tuple[Namespace, Namespace]) -> None:
    done = subprocess.run(pair[0].command(sys.executable, "-m", "flowtop", "--check", "udp port 53 and rate > 1M"),
                          capture_output=True, text=True, timeout=PATIENCE_S, cwd=REPOSITORY, check=False)
    assert "in the kernel: udp port 53\n" in done.stdout
    assert "in the flow table: rate > 1M\n" in done.stdout


def test_check_says_what_this_host_can_do(pair: tuple[Namespace, Namespace]) -> None:
    done = subprocess.run(pair[0].command(sys.executable, "-m", "flowtop", "--check"), capture_output=True, text=True,
                          timeout=PATIENCE_S, cwd=REPOSITORY, check=False)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    for word in ("kernel", "bcc", "TCX", "batch"):
        assert word.lower() in done.stdout.lower()
    assert os.uname().release in done.stdout
    assert_nothing_attached(pair[0])
