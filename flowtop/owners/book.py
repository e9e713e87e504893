"""The processes that own sockets, by owner id: noted when the kernel reports them, completed while they live, kept
after they have ended."""

from __future__ import annotations

import pwd
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flowtop.model.owners import (
    CGROUPS,
    COMMANDS,
    CONTAINER_IDS,
    CONTAINERS,
    EXECUTABLES,
    IMAGES,
    MARKS,
    NAMESPACES,
    PARENTS,
    PODS,
    PROCESSES,
    STARTS,
    TEXTS,
    UNITS,
    USERS,
    pid_of,
)
from flowtop.owners import proc
from flowtop.owners.cgroups import CgroupPaths, slice_of, unit_of
from flowtop.owners.containers import Container, ContainerNames
from flowtop.owners.proc import PROC, TICK_NS, Life, Stat
from flowtop.text import units

MOST_OWNERS = 65_536
_RENAMED_AFTER_S = 2.0
"""A living process is read again after this time, as it may have another name."""
_RENAMED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has a socket.

    Attributes:
        pid: in the initial PID namespace.
        start_ns: CLOCK_BOOTTIME, maybe rounded down to a tick of /proc.
        comm: name, at most 15 octets.
        uid: user.
        cgroup_id: in the hierarchy of cgroup v2; 0: not known.
        parent_pid: 0: not known.
        executable, command, cgroup: of /proc, "" until they are read, or if they cannot be.
        user, unit: names.
        parents: pid and name of the parent, its parent and so on.
        container: that it runs in; None: none is known.
        told: `comm` as the kernel said it, not /proc.
    """

    pid: int
    start_ns: int
    comm: str
    uid: int
    cgroup_id: int = 0
    parent_pid: int = 0
    executable: str = ""
    command: str = ""
    cgroup: str = ""
    user: str = ""
    unit: str = ""
    parents: tuple[tuple[int, str], ...] = ()
    container: Container | None = None
    told: str = field(default="", compare=False)

    @property
    def start_ticks(self) -> int:
        """Start as in /proc."""
        return self.start_ns // TICK_NS

    @property
    def name(self) -> str:
        """Name of the process; untrusted text."""
        return proc.program_name(self.comm, self.executable, self.command)


def user_name(uid: int) -> str:
    """The name of a user, else the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def boot_unix_ns() -> int:
    """When this host has started, in ns since 1970 UTC, by its clock now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + proc.boottime_offset_ns()


def start_text(start_ticks: int, boot_ns: int) -> str:
    """A process' start in UTC, as in `-o json`: hundredths of a second, as exact as /proc."""
    at = datetime.fromtimestamp((start_ticks * TICK_NS + boot_ns) // 10_000_000 / 100, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 10_000:02}Z"


def _telling(owner: Owner) -> str:
    """The name of a process that does not hide it: "", for its pid to be shown, if it cannot be seen; and with the pid
    if it is that of those who are no processes."""
    name = owner.name
    if not units.printable(name).strip():
        return ""
    return f"{name} (pid {owner.pid})" if name in MARKS.values() else name


def read_life_in(directory: Path, pid: int, start_ticks: int) -> Life | None:
    """See proc.read_life; `directory`: where /proc is mounted."""
    return proc.read_life(pid, start_ticks, directory)


class OwnerBook:
    """Owners by id. `complete` is for one thread; the other methods are for any.

    The least recently seen ones are forgotten when there are more than `most`.

    Args:
        paths: of cgroups, for processes that ended before they were read.
        containers: names of containers; None: they are not looked for.
        proc: where /proc is mounted.
        most: owners to keep.
        user: name of a user id.
        clock: seconds, monotonic.
        boot_ns: when this host has started, in ns since 1970 UTC; None: by its clock now.
        read_life: reads a process by pid and start: proc.read_life, or a helper's.

    Attributes:
        forgotten: owners that were forgotten so far.
    """

    def __init__(self, paths: CgroupPaths, *, clock: Callable[[], float], proc: Path = PROC, most: int = MOST_OWNERS,
                 user: Callable[[int], str] = user_name, containers: ContainerNames | None = None,
                 boot_ns: int | None = None,
                 read_life: Callable[[int, int], Life | None] | None = None) -> None:
        self._read_life = read_life or partial(read_life_in, proc)
        self._paths = paths
        self._containers = containers
        self._of_container: dict[str, set[int]] = {}
        self._clock = clock
        self._boot_ns = boot_unix_ns() if boot_ns is None else boot_ns
        self._proc = proc
        self._most = most
        self._user = user
        self._users: dict[int, str] = {}
        self._lock = threading.Lock()
        self._owners: OrderedDict[int, Owner] = OrderedDict()
        self._of_start: dict[tuple[int, int], int] = {}  # by pid and tick of /proc
        self._new: dict[int, None] = {}
        self._read_s: dict[int, float] = {}
        self._active: set[int] = set()
        self._texts: dict[str, dict[int, str]] = {name: {} for name in TEXTS}
        self._texts[PROCESSES].update(MARKS)
        self._published: Mapping[str, Mapping[int, str]] = {}
        self._changed = True
        self.forgotten = 0

    def note(self, found: Iterable[tuple[int, Owner]]) -> None:
        """Note processes as the kernel has reported them. One that is known gets its latest name and user."""
        with self._lock:
            for owner_id, owner in found:
                known = self._owners.get(owner_id)
                if known is not None:
                    owner = replace(known, comm=owner.comm, uid=owner.uid, cgroup_id=owner.cgroup_id or known.cgroup_id,
                                    user="" if known.uid != owner.uid else known.user)
                owner = replace(owner, told=owner.comm)
                before = self._latest(owner_id, owner)
                self._store(owner_id, owner)
                if before != self._latest(owner_id, owner) and self._is_another(before, owner):
                    self._doubt(before)
                self._new[owner_id] = None
            while len(self._owners) > self._most:
                self._forget(next(iter(self._owners)))
                self.forgotten += 1

    def _store(self, owner_id: int, owner: Owner) -> None:
        before = self._owners.get(owner_id)
        if before is not None and before.container is not None:
            self._leave(owner_id, before.container)
        self._owners[owner_id] = owner
        self._owners.move_to_end(owner_id)
        latest = self._owners.get(self._latest(owner_id, owner))
        if latest is None or latest.start_ns <= owner.start_ns:
            self._of_start[owner.pid, owner.start_ticks] = owner_id
        texts = self._texts
        texts[PROCESSES][owner_id] = _telling(owner)
        if owner_id not in texts[STARTS]:
            texts[STARTS][owner_id] = start_text(owner.start_ticks, self._boot_ns)
        texts[USERS][owner_id] = owner.user or self._users.get(owner.uid) or str(owner.uid)
        for name, text in ((UNITS, owner.unit), (COMMANDS, owner.command), (EXECUTABLES, owner.executable),
                           (CGROUPS, owner.cgroup),
                           (PARENTS, " < ".join(f"{comm} ({pid})" for pid, comm in owner.parents))):
            if text or owner_id in texts[name]:
                texts[name][owner_id] = text
        if owner.container is not None:
            self._store_container(owner_id, owner.container)
        self._changed = True

    def _latest(self, owner_id: int, owner: Owner) -> int:
        """The last process with this pid that started in the same tick of /proc; by default this one."""
        return self._of_start.get((owner.pid, owner.start_ticks), owner_id)

    def _is_another(self, owner_id: int, than: Owner) -> bool:
        """Whether this is another process, which /proc does not tell from that one: it started in the same tick. Of
        one that was found in /proc no more than the tick is known: it may be the same."""
        owner = self._owners[owner_id]
        exact = owner.start_ns % TICK_NS and than.start_ns % TICK_NS
        return bool(exact) and owner.start_ns != than.start_ns and owner.start_ticks == than.start_ticks

    def _doubt(self, owner_id: int) -> None:
        """What /proc said of this process may have been said of the next one with its pid: only the kernel's word
        stays."""
        owner = self._owners[owner_id]
        self._store(owner_id, Owner(owner.pid, owner.start_ns, owner.told, owner.uid, owner.cgroup_id,
                                    owner.parent_pid, told=owner.told))

    def _store_container(self, owner_id: int, container: Container) -> None:
        self._of_container.setdefault(container.id, set()).add(owner_id)
        for name, text in ((CONTAINERS, container.label), (CONTAINER_IDS, container.id), (IMAGES, container.image),
                           (PODS, container.pod), (NAMESPACES, container.namespace)):
            if text or owner_id in self._texts[name]:
                self._texts[name][owner_id] = text

    def _leave(self, owner_id: int, container: Container) -> None:
        those = self._of_container[container.id]
        those.discard(owner_id)
        if not those:
            del self._of_container[container.id]

    def _forget(self, owner_id: int) -> None:
        owner = self._owners.pop(owner_id)
        if self._of_start.get((owner.pid, owner.start_ticks)) == owner_id:
            del self._of_start[owner.pid, owner.start_ticks]
        for table in self._texts.values():
            table.pop(owner_id, None)
        if owner.container is not None:
            self._leave(owner_id, owner.container)
        self._new.pop(owner_id, None)
        self._read_s.pop(owner_id, None)
        self._active.discard(owner_id)

    def touch(self, owner_ids: Iterable[int]) -> None:
        """These have traffic now: they are kept, and read again from time to time."""
        with self._lock:
            for owner_id in owner_ids:
                if owner_id in self._owners:
                    self._owners.move_to_end(owner_id)
                    self._active.add(owner_id)

    def known_as(self, pid: int, start_ticks: int) -> int | None:
        """The owner id of the process with this pid that started then, if it is known; ids have finer times."""
        return self._of_start.get((pid, start_ticks))

    def owner(self, owner_id: int) -> Owner | None:
        """What is known of an owner."""
        return self._owners.get(owner_id)

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """Texts by owner id, for each of model.owners.TEXTS; they do not change any more."""
        with self._lock:
            if self._changed:
                self._published = {name: dict(table) for name, table in self._texts.items()}
                self._changed = False
            return self._published

    def texts_of(self, owner_ids: Iterable[int]) -> Mapping[str, Mapping[int, str]]:
        """The same of some owners, as it is now."""
        with self._lock:
            return {name: {owner_id: table[owner_id] for owner_id in owner_ids if owner_id in table}
                    for name, table in self._texts.items()}

    # ---- one thread

    def complete(self) -> None:
        """Read what /proc says of processes that were noted since the last call, and of some that may have changed.
        Take what is known of containers by now."""
        if self._containers is not None:
            self._name_containers(self._containers.take_found())
        with self._lock:
            new, self._new = list(self._new), {}
        known: dict[int, Stat | None] = {}
        for owner_id in new:
            self._complete(owner_id, known)
        now_s = self._clock()
        with self._lock:
            again = [owner_id for owner_id in self._active
                     if now_s - self._read_s.get(owner_id, now_s) >= _RENAMED_AFTER_S][:_RENAMED_AT_ONCE]
        for owner_id in again:
            self._complete(owner_id, known)

    def _name_containers(self, found: Iterable[Container]) -> None:
        with self._lock:
            for container in found:
                for owner_id in list(self._of_container.get(container.id, ())):
                    owner = replace(self._owners[owner_id], container=container)
                    self._owners[owner_id] = owner
                    self._store_container(owner_id, container)
                    self._changed = True

    def _complete(self, owner_id: int, known: dict[int, Stat | None]) -> None:
        owner = self._owners.get(owner_id)
        if owner is None:
            return
        if owner.uid not in self._users:
            self._users[owner.uid] = self._user(owner.uid)
        changed = replace(owner, user=self._users[owner.uid])
        latest = self._latest(owner_id, owner)
        doubtful = latest != owner_id and self._is_another(latest, owner)
        life = None if doubtful else self._read_life(pid_of(owner_id), owner.start_ticks)
        if life is not None:
            changed = replace(changed, comm=life.stat.comm, executable=life.executable or owner.executable,
                              command=life.command or owner.command, cgroup=life.cgroup,
                              parent_pid=life.stat.parent_pid or owner.parent_pid)
        if not changed.cgroup and owner.cgroup_id:
            changed = replace(changed, cgroup=self._paths.path(owner.cgroup_id))
        if not owner.parents:
            changed = replace(changed, parents=proc.parent_chain(changed.parent_pid, owner.start_ticks, self._proc,
                                                                 known))
        changed = replace(changed, unit=unit_of(changed.cgroup) or slice_of(changed.cgroup))
        if self._containers is not None:
            container = self._containers.of(life.cgroups if life is not None else f"0::{changed.cgroup}")
            changed = replace(changed, container=container or owner.container)
        with self._lock:
            if owner_id not in self._owners:
                return
            latest = self._latest(owner_id, owner)
            if life is not None and latest != owner_id and self._is_another(latest, owner):
                return  # it came while this was read
            if life is None:
                self._read_s.pop(owner_id, None)
                self._active.discard(owner_id)
            else:
                self._read_s[owner_id] = self._clock()
            if changed != owner and self._owners[owner_id] == owner:
                self._store(owner_id, changed)
