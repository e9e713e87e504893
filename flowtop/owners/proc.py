"""What /proc says of a process. Everything in it is text that strangers chose, except for numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_NS = 1_000_000_000
TICK_NS = _NS // os.sysconf("SC_CLK_TCK")
"""Resolution of start times in /proc."""
LONGEST_COMMAND = 4096
_MOST_PARENTS = 12


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/PID/stat.

    Attributes:
        comm: name, at most 15 octets.
        parent_pid: 0: none.
        start_ticks: start after boot, in units of TICK_NS, outside of time namespaces.
    """

    comm: str
    parent_pid: int
    start_ticks: int


def boottime_offset_ns(path: Path = PROC / "self/timens_offsets") -> int:
    """Offset of CLOCK_BOOTTIME in this process's time namespace, which /proc adds to start times."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    for line in lines:
        clock, seconds, ns = line.split()
        if clock in ("boottime", "7"):
            return int(seconds) * _NS + int(ns)
    return 0


OFFSET_TICKS = boottime_offset_ns() // TICK_NS
"""Of start times in /proc, as this process sees them."""


def read_text(path: Path, most: int = 65536) -> str:
    """The start of a file; "" if it cannot be read (the process has ended, or belongs to somebody else)."""
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(most) or b"").decode("utf-8", "replace")
    except OSError:
        return ""


def read_stat(pid: int, proc: Path = PROC) -> Stat | None:
    """Name, parent and start time; None: there is no such process, or it is hidden (hidepid)."""
    text = read_text(proc / str(pid) / "stat", 4096)
    comm, found, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    if not found or len(fields) < 20:
        return None
    return Stat(comm, int(fields[1]), int(fields[19]) - OFFSET_TICKS)


_FIRST_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel."""


def in_first_namespace(proc: Path = PROC) -> bool:
    """Whether pids here are those of the kernel: this is the initial PID namespace."""
    try:
        return os.readlink(proc / "self/ns/pid") == _FIRST_NAMESPACE  # noqa: PTH115 - no path
    except OSError:
        return True


def unreadable(proc: Path = PROC) -> list[str]:
    """Name and pid of the processes whose open files cannot be read."""
    found = []
    for directory in proc.iterdir():
        if directory.name.isdecimal():
            try:
                for file in (directory / "fd").iterdir():
                    os.readlink(file)  # noqa: PTH115 - no path
                    break
            except PermissionError:  # also of one that has ended meanwhile
                text = read_text(directory / "stat", 4096)
                if may_have_files(text):
                    found.append(f"{text.partition('(')[2].rpartition(')')[0]} ({directory.name})")
            except OSError:
                continue
    return found


_WITHOUT_FILES = 0x00200004
"""Flags of processes, PF_KTHREAD and PF_EXITING."""


def may_have_files(stat: str) -> bool:
    """Whether it is a process that may have open files: it lives, and is no thread of the kernel.

    Args:
        stat: text of /proc/PID/stat; "": it has ended.
    """
    fields = stat.rpartition(")")[2].split()
    return len(fields) > 6 and fields[0] not in "ZX" and not int(fields[6]) & _WITHOUT_FILES


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a process only while it lives; "" for what is not.

    Attributes:
        executable: path.
        command: command line, arguments separated by spaces.
        cgroups: text of /proc/PID/cgroup: a path in each hierarchy.
    """

    stat: Stat
    executable: str = ""
    command: str = ""
    cgroups: str = ""

    @property
    def cgroup(self) -> str:
        """The path in the hierarchy of cgroup v2."""
        return next((line[3:] for line in self.cgroups.splitlines() if line.startswith("0::")), "")


def read_life(pid: int, start_ticks: int, proc: Path = PROC) -> Life | None:
    """Read a process; None: it has ended, or the pid belongs to another one by now."""
    directory = proc / str(pid)
    try:
        executable = os.readlink(directory / "exe")  # noqa: PTH115 - as it is: " (deleted)" may follow
    except OSError:
        executable = ""
    command = read_text(directory / "cmdline", LONGEST_COMMAND).rstrip("\0").replace("\0", " ")
    cgroups = read_text(directory / "cgroup")
    stat = read_stat(pid, proc)  # last: if it is this process, all above was its too
    if stat is None or stat.start_ticks != start_ticks:
        return None
    return Life(stat, executable, command, cgroups)


def parent_chain(parent_pid: int, start_ticks: int, proc: Path = PROC,
                 known: dict[int, Stat | None] | None = None) -> tuple[tuple[int, str], ...]:
    """Pid and name of the parent, its parent and so on, as far as they live.

    Args:
        parent_pid: of the process.
        start_ticks: of the process: who started later has only got the pid of a parent that has ended.
        proc: where /proc is mounted.
        known: processes that were read already; is added to.
    """
    known = {} if known is None else known
    chain: list[tuple[int, str]] = []
    while parent_pid > 0 and len(chain) < _MOST_PARENTS:
        if parent_pid not in known:
            known[parent_pid] = read_stat(parent_pid, proc)
        stat = known[parent_pid]
        if stat is None or stat.start_ticks > start_ticks:
            break
        chain.append((parent_pid, stat.comm))
        parent_pid, start_ticks = stat.parent_pid, stat.start_ticks
    return tuple(chain)


def program_name(comm: str, executable: str, command: str) -> str:
    """The name of a process: `comm`, complete where it was cut at 15 octets."""
    if len(comm.encode()) == 15:
        for path in (executable.removesuffix(" (deleted)"), command.split(" ", 1)[0]):
            name = path.rpartition("/")[2]
            if name.startswith(comm):
                return name
    return comm
