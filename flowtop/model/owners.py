"""Owner ids: which process a flow's local socket belongs to, or that none has it. As in bpf/flow.h.

An owner id of a process is its pid and its start time, so a pid that is used again is another owner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NO_OWNER, KERNEL, FORWARDED = 0, 1, 2
"""Not known; sent by the kernel itself; came in at another interface."""
PROCESS_BIT = 1 << 63
ANY_ADDRESS_BIT = 1 << 62
"""Of drained entries: found by port alone, so only for addresses of this host."""
SENDER_BIT = 1 << 61
"""Of drained entries of packets that came in: the process that sent them, in another network namespace of this host;
without PROCESS_BIT: the cookie of its socket."""
LISTED_BIT = 1 << 62
"""Of batches: from a list of sockets, so it says nothing new of a flow that has an owner, and may be older."""
PID_BITS = 22
START_SHIFT = 12
"""Owner ids have the start time in units of 4096 ns."""

MARKS = {KERNEL: "kernel", FORWARDED: "forwarded"}
"""Texts of the ids that are not processes."""

PROCESSES, USERS, UNITS, COMMANDS, PARENTS, EXECUTABLES, CGROUPS = (
    "processes", "owner users", "units", "commands", "parents", "executables", "cgroups")
STARTS = "starts"
CONTAINERS, CONTAINER_IDS, IMAGES, PODS, NAMESPACES = "containers", "container ids", "images", "pods", "namespaces"
"""Keys of FlowBatch.texts: text by owner id. All are text that strangers may have chosen."""
TEXTS = (PROCESSES, USERS, UNITS, COMMANDS, PARENTS, EXECUTABLES, CGROUPS, CONTAINERS, CONTAINER_IDS, IMAGES, PODS,
         NAMESPACES, STARTS)

Ids = npt.NDArray[np.uint64]


def _processes(number: int) -> str:
    return f"{number:,} process{'' if number == 1 else 'es'}"


@dataclass(frozen=True, slots=True)
class OwnerStatistics:
    """How the owners of flows are found, and what is missing.

    Attributes:
        refused: why no hooks of cgroups are used, so that only sockets that live a while are known; "": they are used.
        unreadable: number of processes whose open files cannot be read: their older sockets have no owner.
        missed: processes whose names were not kept: too many began to use sockets at once, or were known already.
        nameless: containers that only their ids are known of.
        unjoined: conversations of containers, and address translations, that were too many to be kept.
        untranslated: why address translation is not known; "": it is, or there is none.
        partial: the hooks are those of a container's control group: other processes are only found in /proc.
    """

    refused: str = ""
    unreadable: int = 0
    missed: int = 0
    nameless: int = 0
    unjoined: int = 0
    untranslated: str = ""
    partial: bool = False

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, in words; empty: nothing is."""
        return (
            *((f"owners only from /proc: {self.refused}",) if self.refused else ()),
            *(("owners outside of this container only from /proc",) if self.partial else ()),
            *((f"not readable: {_processes(self.unreadable)}",) if self.unreadable else ()),
            *((f"missed: {_processes(self.missed)}",) if self.missed else ()),
            *((f"no names: {self.nameless:,} container{'' if self.nameless == 1 else 's'}",) if self.nameless else ()),
            *((f"not joined: {self.unjoined:,} of containers",) if self.unjoined else ()),
            *((f"NAT not known: {self.untranslated}",) if self.untranslated else ()))

    @property
    def record(self) -> dict[str, str | int | bool]:
        """As members of JSON."""
        return {"hooksRefused": self.refused, "hooksPartial": self.partial, "unreadableProcesses": self.unreadable,
                "missedProcesses": self.missed, "namelessContainers": self.nameless,
                "unjoinedConversations": self.unjoined, "natRefused": self.untranslated}


def owner_id(pid: int, start_ns: int) -> int:
    """The owner id of a process.

    Args:
        pid: in the initial PID namespace.
        start_ns: CLOCK_BOOTTIME outside of time namespaces.
    """
    return PROCESS_BIT | ((start_ns >> START_SHIFT) << PID_BITS & SENDER_BIT - 1) | pid


def pid_of(owner: int) -> int:
    """The pid in an owner id; 0: it is not a process."""
    return owner & (1 << PID_BITS) - 1 if owner & PROCESS_BIT else 0


def pids_of(owners: Ids) -> npt.NDArray[np.uint32]:
    """The pid in each owner id, shape (n,); 0: not a process."""
    pids = (owners & np.uint64((1 << PID_BITS) - 1)).astype(np.uint32)
    return np.where(are_processes(owners), pids, np.uint32(0))


def latest(old: Ids, new: Ids) -> Ids:
    """The owners of flows after packets with these owners, shape (n,), without LISTED_BIT: the last process that the
    kernel reported, else the first one from a list, else what is said instead of a process.

    Args:
        old: so far, without LISTED_BIT.
        new: of the packets.
    """
    listed = new & np.uint64(LISTED_BIT) != 0
    replaces = are_processes(new) & ~(listed & are_processes(old)) | (old == NO_OWNER)
    return np.where(replaces, new & ~np.uint64(LISTED_BIT), old)


def latest_of_runs(values: Ids, first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> Ids:
    """`latest` of each run of owners in the order of time, shape (m,); without LISTED_BIT.

    Args:
        values: owners of packets, shape (n,).
        first, stop: where the runs begin and end; none is empty.
    """
    places, processes = np.arange(len(values)), are_processes(values)
    process = np.maximum.accumulate(np.where(processes, places, -1))[stop - 1]
    marked = np.where((values != NO_OWNER) & ~processes, places, len(values) - 1)
    mark = np.minimum.accumulate(marked[::-1])[::-1][first]
    return np.where(process >= first, values[process], np.where(mark < stop, values[mark], np.uint64(NO_OWNER)))


def are_processes(owners: Ids) -> npt.NDArray[np.bool_]:
    """Which owner ids are processes, shape (n,)."""
    found: npt.NDArray[np.bool_] = owners >= np.uint64(PROCESS_BIT)
    return found
