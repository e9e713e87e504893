"""Owners of this host's flows: hooks of cgroups attached, the kernel's notes of processes drained, sockets joined.

The kernel writes an owner id into flows (bpf/owner.h); here is who that is. Sockets that were there before the hooks,
and all of them on a kernel that refuses the hooks, are found by `flowtop.owners.sockets`.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import FlowProgram
from flowtop.capture.ebpf.loader import OWNER_PROGRAMS
from flowtop.model.owners import are_processes
from flowtop.owners.book import Owner, OwnerBook
from flowtop.owners.cgroups import CgroupPaths, cgroup2_root

PROCESS_DTYPE = np.dtype([
    ("start_ns", "u8"),
    ("cgroup_id", "u8"),
    ("pid", "u4"),
    ("parent_pid", "u4"),
    ("uid", "u4"),
    ("pad", "u4"),
    ("comm", "S16"),
])
"""struct process of bpf/owner.h, 48 bytes."""

_POLL_S = 0.02
"""Between two looks at new processes: what is in /proc of one that lives 50 ms is read."""
_U32 = struct.Struct("=I")


class OwnerHooks:
    """The programs of OWNER_PROGRAMS, attached to the root of cgroup v2 beside those of others.

    They are links: the kernel detaches them when this process ends, however it ends.

    Args:
        programs: file descriptor by name.
        root: where cgroup v2 is mounted.

    Raises OSError: the kernel refuses one of them, for example as another program is attached exclusively; then none
    is attached.
    """

    def __init__(self, programs: Mapping[str, int], root: Path) -> None:
        self._links = ExitStack()
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, (_, attach_type) in OWNER_PROGRAMS.items():
                self._links.callback(os.close, bpf.link_create_cgroup(programs[name], directory, attach_type))
        except OSError:
            self._links.close()
            raise
        finally:
            os.close(directory)

    def close(self) -> None:
        """Detach all."""
        self._links.close()


class ProcessNotes:
    """The kernel's notes of processes that use sockets.

    Args:
        maps: file descriptors by name: processes, claims.
    """

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._processes_fd, self._claims_fd = maps["processes"], maps["claims"]
        self._ids = np.empty(1024, np.uint64)
        self._processes = np.empty(1024, PROCESS_DTYPE)
        self._word = np.zeros(1, np.uint64)
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def missed(self) -> int:
        """Processes that could not be noted, as too many were since the last `take`."""
        with self._lock:
            return self._count(1)

    def _count(self, index: int) -> int:
        bpf.map_lookup(self._claims_fd, _U32.pack(index), self._word.ctypes.data)
        return int(self._word[0])

    def take(self) -> list[tuple[int, Owner]]:
        """Remove the notes from the kernel and return them, with their owner ids. Any thread."""
        found: list[tuple[int, Owner]] = []
        with self._lock:
            count = self._count(0)  # before looking: what is added meanwhile is seen the next time
            if count == self._taken:
                return found
            self._taken = count
            cursor, code = bpf.BatchCursor(), 0
            while code != bpf.END:
                if code == bpf.NO_ROOM:
                    self._ids = np.empty(2 * len(self._ids), np.uint64)
                    self._processes = np.empty(len(self._ids), PROCESS_DTYPE)
                moved, code = bpf.lookup_and_delete_batch(
                    self._processes_fd, cursor, self._ids.ctypes.data, self._processes.ctypes.data, len(self._ids))
                found += zip(self._ids[:moved].tolist(), map(_owner, self._processes[:moved].tolist()), strict=True)
        return found


def _owner(values: tuple[int, int, int, int, int, int, bytes]) -> Owner:
    start_ns, cgroup_id, pid, parent_pid, uid, _, comm = values
    return Owner(pid, start_ns, comm.decode("utf-8", "replace"), uid, cgroup_id, parent_pid)


class FlowOwners:
    """Finds the owners of flows that were drained. A thread reads what /proc says of new processes.

    Args:
        program: loaded with owners.
        clock: seconds, monotonic.
        root: where cgroup v2 is mounted; None: it is not.

    Attributes:
        refused: why the hooks are not attached; "": they are.
    """

    def __init__(self, program: FlowProgram, *, clock: Callable[[], float] = time.monotonic,
                 root: Path | None = None) -> None:
        root = root or cgroup2_root()
        self._book = OwnerBook(CgroupPaths(root), clock=clock)
        self._hooks: OwnerHooks | None = None
        self._notes: ProcessNotes | None = None
        self.refused = program.owners_refused
        if not self.refused:
            self._attach(program, root)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="owners", daemon=True)
        self._thread.start()

    def _attach(self, program: FlowProgram, root: Path | None) -> None:
        self._notes = ProcessNotes(program.maps)
        if root is None:
            self.refused = "cgroup v2 is not mounted"
            return
        try:
            self._hooks = OwnerHooks(program.programs, root)
        except OSError as error:
            self.refused = f"{root}: {error.strerror or error}"

    @property
    def missed(self) -> int:
        """Processes whose names are not known, as too many began to use sockets at once."""
        return 0 if self._notes is None else self._notes.missed

    def find(self, keys: npt.NDArray[np.void], counters: npt.NDArray[np.void]) -> Mapping[str, Mapping[int, str]]:
        """Owners of flows whose maps have been drained just now.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            counters: FLOW_COUNTERS_DTYPE, shape (n,): owners that are found are written to it.

        Returns:
            The texts of all owners, by model.owners.TEXTS.
        """
        self._take()  # after the flows: the process of each was noted before its first packet
        owners = counters["owner"]
        self._book.touch(np.unique(owners[are_processes(owners)]).tolist())
        return self._book.texts()

    def _take(self) -> None:
        if self._notes is not None:
            self._book.note(self._notes.take())

    def _run(self) -> None:
        while not self._ending.wait(_POLL_S):
            self._take()
            self._book.complete()

    def close(self) -> None:
        """Detach the hooks and end the thread. A second call does nothing."""
        if self._hooks is not None:
            self._hooks.close()
        self._ending.set()
        self._thread.join()
