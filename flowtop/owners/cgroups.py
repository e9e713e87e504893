"""Control groups (cgroup v2): where they are mounted, their paths by id, the systemd unit of a path."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from flowtop import libc

_UNIT = re.compile(r"\.(service|scope|socket|mount|swap)$")
_OCTAL = re.compile(r"\\([0-7]{3})")
_RESCAN_S = 5.0
_MOST_GROUPS = 100_000


def cgroup2_root(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """The directory where the hierarchy of cgroup v2 is mounted (proc_pid_mountinfo(5)); None: it is not, or another
    file system is mounted over it, or /proc is not mounted."""
    try:
        mounts = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in mounts:
        mount, _, filesystem = line.partition(" - ")
        if filesystem.split(" ", 1)[0] == "cgroup2":
            directory = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4]))
            if (directory / "cgroup.procs").exists():
                return directory
    return None


_ROOT_INODE = 1
"""Of the root of the whole hierarchy, as its id."""


def is_whole(root: Path) -> bool:
    """Whether a mount of cgroup v2 has the control groups of all processes. In a container with a cgroup namespace it
    has only those in the container."""
    try:
        return root.stat().st_ino == _ROOT_INODE
    except OSError:
        return False


_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""Numbers of system calls, the same on all machines."""
_CLOEXEC, _CREATE, _READ_ONLY = 1, 6, 1


@cache
def detached_root() -> Path | None:
    """The root of cgroup v2 by a mount of this process' own that has no place in the file system, for where none can be
    seen: `ip netns exec` mounts another /sys. None: that is not allowed, or Linux is older than 5.2.

    The mount, which is the same hierarchy, goes with the process.
    """
    try:
        context = libc.syscall(_FSOPEN, ctypes.create_string_buffer(b"cgroup2"), _CLOEXEC)
        try:
            libc.syscall(_FSCONFIG, context, _CREATE, None, None, 0)
            mount = libc.syscall(_FSMOUNT, context, _CLOEXEC, _READ_ONLY)
        finally:
            os.close(context)
    except OSError:
        return None
    return Path(f"/proc/self/fd/{mount}")


def unit_of(path: str) -> str:
    """The systemd unit that a cgroup belongs to, a user's unit inside its `user@.service`; "": none.

    Args:
        path: from the root of the hierarchy, such as `/system.slice/ssh.service`.
    """
    names = [name.removeprefix("_") for name in path.split("/")]
    units = [place for place, name in enumerate(names) if _UNIT.search(name)]
    if not units:
        return ""
    first = units[0]
    if names[first].startswith("user@") and len(units) > 1:
        first = units[1]
    return names[first]


def slice_of(path: str) -> str:
    """The innermost systemd slice on the way to a cgroup; "": none."""
    return next((name for name in reversed(path.split("/")) if name.endswith(".slice")), "")


class CgroupPaths:
    """Paths by cgroup id, which is the inode number of its directory. Not thread-safe.

    Args:
        root: where the hierarchy is mounted; None: no paths are known.
        clock: seconds, monotonic.
    """

    def __init__(self, root: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._paths: dict[int, str] = {}
        self._walked_s = -_RESCAN_S

    def path(self, cgroup_id: int) -> str:
        """The path from the root, `/` for the root itself; "": not known. Groups that are gone are still known if they
        were seen before; for one that is new, the hierarchy is walked at most once in five seconds."""
        if cgroup_id not in self._paths and self._root is not None and self._clock() - self._walked_s >= _RESCAN_S:
            self._walk(str(self._root))
            self._walked_s = self._clock()
        return self._paths.get(cgroup_id, "")

    def _walk(self, root: str) -> None:
        if len(self._paths) > _MOST_GROUPS:
            self._paths.clear()
        waiting = [root]
        try:
            self._paths[Path(root).stat().st_ino] = "/"
        except OSError:
            return
        while waiting and len(self._paths) <= _MOST_GROUPS:
            directory = waiting.pop()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            self._paths[entry.inode()] = entry.path[len(root):]
                            waiting.append(entry.path)
            except OSError:  # removed meanwhile
                continue
