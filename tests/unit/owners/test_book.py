"""Processes by owner id: completed from /proc while they live, kept after their end, never mistaken for others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from flowtop.model.owners import (
    CGROUPS,
    COMMANDS,
    EXECUTABLES,
    PARENTS,
    PROCESSES,
    STARTS,
    UNITS,
    USERS,
    owner_id,
    pid_of,
)
from flowtop.owners.book import Owner, OwnerBook
from flowtop.owners.cgroups import CgroupPaths
from flowtop.owners.proc import TICK_NS, program_name, read_life, read_stat


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def book(**options: object) -> OwnerBook:
    return OwnerBook(CgroupPaths(None), clock=lambda: 0.0, **options)  # type: ignore[arg-type]


def living(pid: int) -> tuple[int, Owner]:
    """A living process as the kernel reports it, with a start time that is finer than that of /proc."""
    stat = read_stat(pid)
    assert stat is not None
    start_ns = stat.start_ticks * TICK_NS + 1_234_567
    return owner_id(pid, start_ns), Owner(pid, start_ns, stat.comm, os.getuid(), parent_pid=stat.parent_pid)


def test_what_proc_says_is_kept_after_the_end(child: subprocess.Popen[bytes]) -> None:
    owners = book()
    number, owner = living(child.pid)
    owners.note([(number, owner)])
    owners.complete()
    child.kill()
    child.wait()
    owners.complete()
    texts = owners.texts()
    assert texts[PROCESSES][number] == "sleep"
    assert texts[COMMANDS][number] == "sleep 60"
    assert texts[EXECUTABLES][number] == os.path.realpath("/usr/bin/sleep")
    assert texts[PARENTS][number].split(" < ")[0] == f"{read_stat(os.getpid()).comm} ({os.getpid()})"  # type: ignore[union-attr]
    name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert texts[USERS][number] == name


def test_the_start_is_when_it_was_started() -> None:
    """Rounded down to the ticks of /proc."""
    owners, before_s = book(), time.time()
    with subprocess.Popen(["sleep", "60"]) as process:
        after_s = time.time()
        number, owner = living(process.pid)
        process.kill()
    owners.note([(number, owner)])
    started_s = datetime.fromisoformat(owners.texts()[STARTS][number]).timestamp()
    assert before_s - 0.03 <= started_s <= after_s + 0.01


def test_another_process_with_the_pid_is_not_taken_for_it(child: subprocess.Popen[bytes]) -> None:
    _, owner = living(child.pid)
    earlier = Owner(child.pid, owner.start_ns - TICK_NS, "earlier", 0)
    owners = book()
    number = owner_id(earlier.pid, earlier.start_ns)
    owners.note([(number, earlier)])
    owners.complete()
    assert owners.texts()[PROCESSES][number] == "earlier"
    assert number not in owners.texts()[COMMANDS]
    assert owners.known_as(child.pid, owner.start_ticks) is None
    assert read_life(child.pid, earlier.start_ticks) is None


def test_two_owners_of_one_pid_have_different_ids() -> None:
    early, late = owner_id(4_194_303, 10 ** 15), owner_id(4_194_303, 10 ** 15 + 5000)
    assert early != late
    assert pid_of(early) == pid_of(late) == 4_194_303


@pytest.mark.parametrize("read", [(), ("first",), ("both",), ("first", "both")])
def test_of_two_processes_with_one_pid_in_one_tick_proc_knows_the_later_one(
        child: subprocess.Popen[bytes], read: tuple[str, ...]) -> None:
    """The child here is the later one: what /proc says is said of it alone, whenever it is read."""
    owners = book()
    number, later = living(child.pid)
    first = Owner(child.pid, later.start_ns - 1_000_000, "first", later.uid, parent_pid=1)
    assert first.start_ticks == later.start_ticks
    before = owner_id(first.pid, first.start_ns)
    owners.note([(before, first)])
    if "first" in read:
        owners.complete()
    owners.note([(number, later)])
    if "both" in read:
        owners.touch([before, number])
        owners.complete()
    texts = owners.texts()
    assert (texts[PROCESSES][before], texts[PROCESSES][number]) == ("first", "sleep")
    assert not texts[COMMANDS].get(before) and not texts[EXECUTABLES].get(before)
    if "both" in read:
        assert texts[COMMANDS][number] == "sleep 60"


def test_a_later_process_in_another_tick_does_not_hide_the_one_that_proc_meant(child: subprocess.Popen[bytes]) -> None:
    """Three processes with one pid: /proc is read for the first and means the second, the child here, in the same tick;
    and the third one is told of before it, as the kernel keeps them in no order."""
    owners = book()
    number, second = living(child.pid)
    first = Owner(child.pid, second.start_ns - 1_000_000, "first", second.uid)
    third = Owner(child.pid, second.start_ns + 2 * TICK_NS, "third", second.uid)
    before = owner_id(first.pid, first.start_ns)
    owners.note([(before, first)])
    owners.complete()
    owners.note([(owner_id(third.pid, third.start_ns), third), (number, second)])
    assert owners.texts()[PROCESSES][before] == "first"
    owners.touch([before])
    owners.complete()
    assert owners.texts()[PROCESSES][before] == "first" and not owners.texts()[COMMANDS].get(before)


def test_a_process_that_was_found_in_proc_may_be_the_one_the_kernel_tells_of(child: subprocess.Popen[bytes]) -> None:
    owners = book()
    number, told = living(child.pid)
    found = Owner(told.pid, told.start_ticks * TICK_NS, told.comm, told.uid)
    owners.note([(owner_id(found.pid, found.start_ns), found)])
    owners.complete()
    owners.note([(number, told)])
    owners.complete()
    commands = owners.texts()[COMMANDS]
    assert commands[owner_id(found.pid, found.start_ns)] == commands[number] == "sleep 60"


def test_the_latest_name_counts() -> None:
    owners = book()
    number = owner_id(10, 20)
    owners.note([(number, Owner(10, 20, "before", 0, 7))])
    owners.note([(number, Owner(10, 20, "after", 0))])
    assert owners.texts()[PROCESSES][number] == "after"
    assert owners.owner(number) == Owner(10, 20, "after", 0, 7)


def test_texts_that_were_handed_out_do_not_change() -> None:
    owners = book()
    first = owners.texts()
    owners.note([(owner_id(10, 20), Owner(10, 20, "a", 0))])
    assert owner_id(10, 20) not in first[PROCESSES]
    assert owner_id(10, 20) in owners.texts()[PROCESSES]
    assert owners.texts() is owners.texts()


def test_those_without_traffic_are_forgotten_first_and_counted() -> None:
    owners = book(most=2)
    numbers = [owner_id(pid, 20) for pid in (1, 2, 3)]
    for pid, number in enumerate(numbers, 1):
        owners.note([(number, Owner(pid, 20, f"p{pid}", 0))])
        owners.touch(numbers[:1])
    assert numbers[1] not in owners.texts()[PROCESSES]
    assert {owners.texts()[PROCESSES].get(number) for number in (numbers[0], numbers[2])} == {"p1", "p3"}
    assert owners.forgotten == 1


@pytest.mark.parametrize(("comm", "shown"), [
    (" ", ""), ("\x1b[31m", ""), ("\u200b\x07 ", ""), ("kernel", "kernel (pid 7)"), ("forwarded", "forwarded (pid 7)"),
    ("kerneloops", "kerneloops"), (" sshd", " sshd")])
def test_no_process_hides_behind_its_name(comm: str, shown: str) -> None:
    """It can be any 15 octets (prctl(2)). Without a text the pid is shown."""
    owners = book()
    owners.note([(owner_id(7, 1 << 20), Owner(7, 1 << 20, comm, 0))])
    assert owners.texts()[PROCESSES][owner_id(7, 1 << 20)] == shown


def test_marks_are_no_processes() -> None:
    assert book().texts()[PROCESSES] == {1: "kernel", 2: "forwarded"}


def test_a_process_in_a_made_up_proc(tmp_path: Path) -> None:
    """A name with everything in it; the cgroup of v2 among those of v1."""
    name = ") S 1 (\x1b[31m"
    directory = tmp_path / "77"
    directory.mkdir()
    (directory / "stat").write_text(f"77 ({name}) S 5 " + "0 " * 17 + "12345 0\n")
    (directory / "cmdline").write_bytes(b"prog\0-x\0a b\0")
    (directory / "cgroup").write_text("3:cpu:/x\n0::/system.slice/a.service\n")
    (directory / "exe").symlink_to("/opt/prog")
    life = read_life(77, 12345, tmp_path)
    assert life is not None
    assert (life.stat.comm, life.stat.parent_pid) == (name, 5)
    assert (life.command, life.cgroup, life.executable) == ("prog -x a b", "/system.slice/a.service", "/opt/prog")
    owners = book(proc=tmp_path)
    number = owner_id(77, 12345 * TICK_NS)
    owners.note([(number, Owner(77, 12345 * TICK_NS, "old", 0))])
    owners.complete()
    assert owners.texts()[UNITS][number] == "a.service"
    assert owners.texts()[CGROUPS][number] == "/system.slice/a.service"


def test_names_that_were_cut_are_completed() -> None:
    assert program_name("systemd-resolve", "/usr/lib/systemd/systemd-resolved", "") == "systemd-resolved"
    assert program_name("systemd-resolve", "", "/usr/lib/systemd/systemd-resolved -x") == "systemd-resolved"
    assert program_name("fifteen-letters", "/bin/other", "other") == "fifteen-letters"
    assert program_name("short", "/bin/short-but-longer", "") == "short"


def test_this_process_is_read() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert stat.parent_pid == os.getppid()
    assert read_life(os.getpid(), stat.start_ticks).executable == os.path.realpath(sys.executable)  # type: ignore[union-attr]
