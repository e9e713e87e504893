"""A capture of interfaces that has given up its rights: what /proc says of its threads, what code inside it can still
do, and that what needs rights goes on through its helpers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.ebpf.expressions import is_kernel_filter
from flowtop.filters.filter import compile_filter
from flowtop.filters.kernel import split
from tests.kernel.netns import PATIENCE_S, Lab, eventually
from tests.kernel.test_command import Command, assert_nothing_attached
from tests.unit.cli import exploit
from tests.unit.cli.test_confinement import PERSON, assert_confined, status_of

NOBODY = 65_534
AMBIENT = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups",
           "--inh-caps=-all,+bpf,+net_admin,+perfmon,+sys_admin,+sys_ptrace",
           "--ambient-caps=-all,+bpf,+net_admin,+perfmon,+sys_admin,+sys_ptrace")

KEPT = {2, 12, 19, 21, 24, 38, 39}
"""DAC_READ_SEARCH, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, SYS_RESOURCE, PERFMON, BPF (capability(7))."""


def helpers_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def capabilities(mask: str) -> set[int]:
    return {number for number in range(64) if int(mask, 16) >> number & 1}


@pytest.mark.parametrize(("prefix", "user"), [
    ((), NOBODY), (("env", "FLOWTOP_ATTACH=clsact"), NOBODY),
    (("env", f"SUDO_UID={PERSON}", f"SUDO_GID={PERSON}"), PERSON), (AMBIENT, PERSON)],
    ids=["root", "clsact", "sudo", "capabilities only"])
def test_no_thread_has_rights_and_new_interfaces_are_observed_and_all_is_counted(
        lab: Lab, tmp_path: Path, prefix: tuple[str, ...], user: int) -> None:
    near, _ = lab.pair(offload=False)
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", prefix=prefix)
    try:
        command.await_rounds(2)
        assert command.rounds()[-1]["confinement"] == {"uid": user, "seccomp": True, "landlock": landlock_version(),
                                                       "missing": []}
        assert_confined(command.process.pid, user, bounded=prefix != AMBIENT)
        for helper in helpers_of(command.process.pid):
            [status] = status_of(helper)
            held = capabilities(status["CapEff"])
            assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
            assert held <= KEPT and (prefix == AMBIENT or capabilities(status["CapBnd"]) <= KEPT), held
        near.ip("link add new type veth peer name other")
        near.ip("addr add 203.0.113.1/24 dev new")
        near.ip("link set new up")
        near.ip("link set other up")
        near.ip("neigh add 203.0.113.2 lladdr 02:00:00:00:00:02 dev new")

        def counted() -> int:
            near.run("ping", "-q", "-c", "1", "-W", "0.01", "203.0.113.2", check=False)
            return sum(flow["packetTotalCount"] for flow in command.rounds()[-1]["flows"]
                       if flow["interfaceName"] == "new")

        eventually(lambda: counted() > 0, "the new interface is observed")
        near.run("ping", "-q", "-c", "3", "-i", "0.1", "10.77.0.2")
        status = command.end(signal.SIGTERM)
    finally:
        command.process.kill()
        command.process.wait()
    totals = command.rounds()[-1]["totals"]
    assert (status, totals["lostPackets"]) == (0, 0), command.errors()
    assert totals["observedPackets"] == totals["accountedPackets"] + totals["ignoredPackets"] > 6
    assert_nothing_attached(near)


def landlock_version() -> int:
    """The version that this kernel has, by its own words: landlock_create_ruleset(NULL, 0, VERSION)."""
    return exploit.call(444, None, 0, 1)


@pytest.mark.parametrize("attach", ["auto", "clsact"])
def test_a_kill_leaves_nothing_attached_and_no_process(lab: Lab, tmp_path: Path, attach: str) -> None:
    near, _ = lab.pair(offload=False)
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", prefix=("env", f"FLOWTOP_ATTACH={attach}"))
    try:
        command.await_rounds()
        helpers = helpers_of(command.process.pid)
        assert len(helpers) == 2
    finally:
        command.process.kill()
        command.process.wait()
    eventually(lambda: not any(Path(f"/proc/{helper}").exists() for helper in helpers), "the helpers end")
    assert_nothing_attached(near)


@pytest.mark.parametrize("confined", [True, False])
def test_code_in_the_parsing_process_can_do_nothing(lab: Lab, tmp_path: Path, confined: bool) -> None:
    """Without confinement, the same code in the same place can: else this proves nothing."""
    near, _ = lab.pair(offload=False)
    report, outside = tmp_path / "report", f"/var/tmp/{tmp_path.name}"
    loopback = subprocess.Popen(near.command(sys.executable, "-c", (
        "import signal, socket; s = socket.create_server(('127.0.0.1', 7777)); print('up', flush=True);"
        "signal.pause()")),
        stdout=subprocess.PIPE)
    try:
        near.ip("link set lo up")
        assert loopback.stdout is not None
        loopback.stdout.readline()
        steps: list[list[Any]] = [
            ["read", "/etc/shadow"], ["read", str(tmp_path / "out")], ["write", outside], ["execute"], ["exec"],
            ["fork"],
            ["load"], ["tcp", 7777], ["other tcp", 7777, "mptcp"], ["other tcp", 7777, "fast open"],
            ["packets"], ["trace", os.getpid()], ["signal", os.getpid()], ["namespace"]]
        plan = {"report": str(report), "steps": steps, "module": "flowtop.capture.ebpf.capture",
                "class": "EbpfCapture"}
        (tmp_path / "out").touch()
        done = subprocess.run(
            near.command("env", f"PYTHONPATH={Path.cwd()}", sys.executable, exploit.__file__, json.dumps(plan), "-b",
                         "-i", "veth0", "-c", "1", "-d", "0.1", *([] if confined else ["--no-confine"])),
            capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    finally:
        loopback.kill()
        loopback.communicate()
    assert done.returncode == 0, done.stderr
    outcome = {step[0] + str(step[1:]): came for step, came in json.loads(report.read_text())}
    made = Path(outside).exists()
    Path(outside).unlink(missing_ok=True)
    assert made is not confined
    assert outcome.pop("exec[]") == ("EPERM" if confined else "ENOENT")
    assert set(outcome.values()) <= ({"EPERM", "EACCES"} if confined else {"done"}), outcome


HOSTILE = [
    "1);}int x(void){return 0;}//", "(key)->protocol == 6\n#include </etc/shadow>", "(key)->protocol == system(1)",
    "((flow_word *)(key)->source_address)[9] & 0xffu) == 0x1u", "(key)->protocol = 6", "\\", "x", "1" * 20_000,
    "(" * 300 + "(key)->protocol == 6" + ")" * 300, "1) || (1", "((1)"]


def test_helpers_compile_only_what_filters_become() -> None:
    """What is a filter is the parser's to say; what is none is written here."""
    for text in ("tcp port 443", "not (udp or icmp)", "net 192.0.2.0/24 and src host 2001:db8::1", "dst port > 1023",
                 "vlan 7 or proto 89"):
        made = split(compile_filter(text), observation_points=True)
        assert made.expression and is_kernel_filter(made.expression), made.expression
    assert [text for text in HOSTILE if is_kernel_filter(text)] == []


@pytest.mark.parametrize("request_", [
    b"{", b"[]", b"\xff", b'{"op":"execute"}', b'{"op":["tcp"]}', b'{"op":"tcx","ifindex":"1","attach_type":46}',
    b'{"op":"tcx_programs","ifindex":-1,"attach_type":46}', b'{"op":"tcx_programs","ifindex":1,"attach_type":1}',
    b'{"op":"program_name","number":4294967296}', b'{"op":"clsact_close","number":0}',
    b'{"op":"nat_dump","status":1}', b'{"op":' + b"[" * 60_000])
def test_a_request_of_another_form_ends_the_helper(request_: bytes) -> None:
    """It is the other end that has been taken over: nothing more is done for it."""
    script = ("import sys; from flowtop.capture.ebpf.launch import start_helpers; "
              "r = start_helpers(owners=False, check=list);"
              "r.loader._end.send(sys.stdin.buffer.read()); print(len(r.loader._end.recv(9)))")
    done = subprocess.run([sys.executable, "-c", script], input=request_, capture_output=True, timeout=PATIENCE_S,
                          check=False)
    assert done.stdout == b"0\n", done.stderr


def test_a_helper_that_is_gone_is_said(lab: Lab, tmp_path: Path) -> None:
    """Packets can no longer be asked for; what is attached goes on."""
    near, _ = lab.pair(offload=False)
    command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", "-i", "veth0")
    try:
        command.await_rounds()
        for helper in helpers_of(command.process.pid):
            os.kill(helper, signal.SIGKILL)
        near.run("ping", "-q", "-c", "3", "-i", "0.1", "10.77.0.2")
        rounds = len(command.rounds())
        command.await_rounds(rounds + 3)
        assert command.end(signal.SIGTERM) == 0, command.errors()
    finally:
        command.process.kill()
        command.process.wait()
    totals = command.rounds()[-1]["totals"]
    assert totals["lostPackets"] == 0 and totals["observedPackets"] >= 6
    assert_nothing_attached(near)


def test_the_check_of_the_host_is_made_by_the_helper_that_may(lab: Lab) -> None:
    """For a bundle: the process of the screen may neither start a program nor try what needs rights."""
    near, _ = lab.pair()

    script = ("from flowtop.capture.ebpf.check import check_host, report;"
              "from flowtop.capture.ebpf.launch import start_helpers;"
              "print(start_helpers(owners=False, check=lambda: report(check_host())).check())")
    own = near.run(sys.executable, "-m", "flowtop", "--check", check=False)
    lines = near.run(sys.executable, "-c", script).splitlines()
    assert len(lines) > 10
    tried = [line for line in lines if line[6:].split("  ")[0] in ("bcc", "hooks", "map batches", "grace period")]
    assert len(tried) == 4 and all(line.startswith("ok  ") and line in own for line in tried), lines


def test_a_helper_works_for_so_many_requests_at_once_and_its_reader_of_users_files_has_one_right() -> None:
    """Who asks may have been taken over; a container's files, and the database among them, are users' own."""
    script = """
import errno, os, sys, time
from pathlib import Path
from flowtop.capture.ebpf.launch import start_helpers
from flowtop.confine.helper import MOST_APART
from flowtop.owners.containers import ContainerFiles
def wait(files, place):
    print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm")),
          file=sys.stderr)
    time.sleep(600)
ContainerFiles.read = wait
helpers = start_helpers(owners=False, check=list)
place = dict(id="0" * 64, runtime="", pod="", uid=0, named=False)
asked = [helpers.looker.begin("container", **place) for _ in range(MOST_APART)]
def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
workers = []
while len(workers) < MOST_APART:
    workers = max(map(children, children(os.getpid())), key=len)
    time.sleep(0.01)
def rights(pid):
    return next(int(line.split()[1], 16) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("CapEff"))
while {rights(worker) for worker in workers} != {1 << 2}:
    time.sleep(0.01)
print(len(workers))
try:
    helpers.looker.begin("container", **place).result()
except OSError as error:
    print(errno.errorcode[error.errno])
os.kill(int(workers[0]), 9)
while True:
    again = helpers.looker.begin("container", **{**place, "id": "x"})
    try:
        again.result()
    except OSError as error:
        if error.errno != errno.EAGAIN:
            print(errno.errorcode[error.errno])
            break
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.stdout.split() == [b"16", b"EAGAIN", b"EPIPE"], done.stderr
