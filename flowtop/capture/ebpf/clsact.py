"""Attach by clsact qdisc and direct-action filters, for kernels before TCX.

Filters remain after their process ends, so their name identifies the owner: `flowtop/PID/START/PIDNS/MARK`. START is
the process's start time in clock ticks (PIDs are reused), PIDNS the inode of its PID namespace (PIDs of other
namespaces cannot be checked here), and MARK is `q` if flowtop created the qdisc, which is then deleted with its last
filter. A flowtop that joins a marked qdisc uses the mark too. Only filters with such a name are deleted.

An interface may have an `ingress` qdisc instead (policing, SQM), which has clsact's handle and one list of filters: the
kernel takes a filter for its egress too and then runs it at ingress. A list of filters may also be a block that several
interfaces share, which takes none for one of them. So the qdisc is looked at first.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowtop.capture.ebpf import netlink
from flowtop.capture.ebpf.attach import Ahead, Attachment, UnseenDirectionError
from flowtop.capture.ebpf.start import PROC_HINT
from flowtop.errors import EXIT_UNAVAILABLE, FlowtopError
from flowtop.model.kinds import Direction

EGRESS_UNSEEN = "its ingress qdisc leaves no room for a hook at egress"
"""Why packets that leave by an interface with an `ingress` qdisc cannot be observed."""
SHARED_BLOCK = "its filters are a block that interfaces can share"
"""Why a direction whose filters are a block (`tc qdisc add ... ingress_block 1 clsact`) cannot be observed."""
_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_TCMSG = struct.Struct("=BxxxiIII")
_TCA_KIND, _TCA_OPTIONS, _TCA_INGRESS_BLOCK, _TCA_EGRESS_BLOCK = 1, 2, 13, 14
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS, _TCA_BPF_FLAGS_GEN = 6, 7, 8, 9
_DIRECT_ACTION, _SKIP_HARDWARE = 1, 1
_CLSACT_PARENT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_PARENTS = {b"clsact\0": (_INGRESS, _EGRESS), b"ingress\0": (_INGRESS,)}
"""Where a qdisc has lists of filters, by its kind."""
_OURS_FROM, _HANDLES = 0x464C0001, 4096
"""Handles of flowtop's filters: others count theirs from 1 and replace what has that number."""
_ETH_P_ALL = socket.htons(3)
_LOOK_AGAIN_S = 0.05
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Owner:
    """The flowtop process that a filter belongs to."""

    pid: int
    start: int
    pid_namespace: int

    def filter_name(self, made_qdisc: bool) -> str:
        """Name of its filters."""
        return f"flowtop/{self.pid}/{self.start}/{self.pid_namespace}/{'q' if made_qdisc else '-'}"


def parse_filter_name(name: str) -> tuple[Owner, bool] | None:
    """The owner in a filter's name, and whether flowtop created the qdisc; None if the filter is not flowtop's."""
    parts = name.split("/")
    numbers = parts[1:4]
    if len(parts) != 5 or parts[0] != "flowtop" or parts[4] not in ("q", "-") or not all(map(str.isdecimal, numbers)):
        return None
    return Owner(*map(int, numbers)), parts[4] == "q"


def start_time(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Start time of a process in clock ticks since boot (proc_pid_stat(5), field 22); None if it does not exist."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def this_process(proc: Path = Path("/proc")) -> Owner:
    """This process as owner of filters. Raises FlowtopError: /proc is not mounted."""
    try:
        pid = int((proc / "self").readlink().name)
    except OSError as error:
        raise FlowtopError(f"cannot capture: {proc} is not mounted", hint=PROC_HINT,
                           exit_code=EXIT_UNAVAILABLE) from error
    return Owner(pid, start_time(pid, proc) or 0, (proc / "self/ns/pid").stat().st_ino)


def parent_process(proc: Path = Path("/proc")) -> Owner:
    """The process that has started this one, as owner of filters. Raises FlowtopError: /proc is not mounted."""
    mine = this_process(proc)
    lines = (proc / "self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    pid = int(next(line for line in lines if line.startswith("PPid:")).split()[1])
    return Owner(pid, start_time(pid, proc) or 0, mine.pid_namespace)


@dataclass(frozen=True, slots=True)
class _Filter:
    parent: int
    priority: int
    handle: int
    protocol: int
    kind: str
    name: str

    @property
    def info(self) -> int:
        return self.priority << 16 | self.protocol

    @property
    def described(self) -> str:
        """For a person: as `tc filter show` calls it."""
        return f"{self.kind} filter {self.name!r} of pref {self.priority}" if self.name else (
            f"{self.kind} filter of pref {self.priority}")


class ClsactAttacher:
    """Adds direct-action filters at the lowest free priority of a clsact qdisc.

    Args:
        route: rtnetlink socket in the network namespace to attach in.
        owner: owner of the filters.
        started: returns the start time of a PID, as `start_time` does.
    """

    name = "clsact"

    def __init__(
        self, route: netlink.RouteSocket, owner: Owner, started: Callable[[int], int | None] = start_time
    ) -> None:
        self._route = route
        self._owner = owner
        self._started = started
        self._patience_s = 0.5  # total over all interfaces: an empty qdisc is rarely another flowtop's

    def attach(self, ifindex: int, direction: Direction, program_fd: int) -> Attachment:
        """See Attacher."""
        parent = _INGRESS if direction is Direction.INGRESS else _EGRESS
        for attempt in range(_ATTEMPTS):
            made = self._made_qdisc(ifindex)
            if (reason := self.unseen(ifindex).get(direction)) is not None:
                raise UnseenDirectionError(reason)
            try:
                place = self._add(ifindex, parent, program_fd, self._owner.filter_name(made))
            except OSError as error:
                # Another process took the place, or removed the qdisc, in between: try again.
                if error.errno not in (errno.EEXIST, errno.ENOENT, errno.EINVAL) or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return _ClsactAttachment(self, ifindex, parent, *place)
        raise AssertionError("unreachable: the last attempt raises or returns")

    def has_room(self, ifindex: int, direction: Direction) -> bool:  # noqa: ARG002 - of the protocol
        """See Attacher: that a qdisc goes is notified."""
        return False

    def _made_qdisc(self, ifindex: int) -> bool:
        """Create the clsact qdisc if there is none. Returns whether it is flowtop's."""
        try:
            self._route.request(
                _RTM_NEWQDISC, netlink.F_CREATE | netlink.F_EXCL,
                _TCMSG.pack(0, ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
                + netlink.pack_attribute(_TCA_KIND, b"clsact\0"))
        except FileExistsError:
            owners = [parse_filter_name(filter_.name) for filter_ in self._settled_filters(ifindex)]
            return any(owner is not None and owner[1] for owner in owners)
        return True

    def _qdisc(self, ifindex: int) -> dict[int, bytes]:
        """Attributes of the qdisc at the place of clsact; empty if there is none."""
        try:
            answer = self._route.request(  # answered to whoever asks for an echo alone
                _RTM_GETQDISC, netlink.F_ECHO, _TCMSG.pack(0, ifindex, 0, _CLSACT_PARENT, 0))
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
                return {}
            raise
        return {} if answer is None else dict(netlink.attributes(answer[1], _TCMSG.size))

    def _qdisc_kind(self, ifindex: int) -> bytes:
        """Its kind, as in _PARENTS."""
        return self._qdisc(ifindex).get(_TCA_KIND, b"")

    def _settled_filters(self, ifindex: int) -> list[_Filter]:
        """Filters of an existing qdisc; waits a little if it is empty, as another flowtop may just be starting."""
        while not (filters := self._filters(ifindex)) and self._patience_s > 0:
            self._patience_s -= _LOOK_AGAIN_S
            time.sleep(_LOOK_AGAIN_S)
        return filters

    def _filters(self, ifindex: int) -> list[_Filter]:
        """All filters, in the order in which they run, and an entry of handle 0 for each priority in use."""
        filters: list[_Filter] = []
        for parent in _PARENTS.get(self._qdisc_kind(ifindex), ()):
            try:
                bodies = self._route.dump(_RTM_GETTFILTER, _TCMSG.pack(0, ifindex, 0, parent, 0))
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
                    continue  # the interface or its qdisc is gone, and with it the filters
                raise
            filters.extend(_parse_filter(body, parent) for body in bodies)
        return filters

    def _add(self, ifindex: int, parent: int, program_fd: int, name: str) -> tuple[int, int]:
        """Add a filter, before those of others where that is possible; returns its priority and handle."""
        priority, handle = _first_place([filter_ for filter_ in self._filters(ifindex) if filter_.parent == parent])
        options = b"".join((
            netlink.pack_attribute(_TCA_BPF_FD, struct.pack("=I", program_fd)),
            netlink.pack_attribute(_TCA_BPF_NAME, name.encode("ascii") + b"\0"),
            netlink.pack_attribute(_TCA_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION)),
            netlink.pack_attribute(_TCA_BPF_FLAGS_GEN, struct.pack("=I", _SKIP_HARDWARE)),
        ))
        self._route.request(
            _RTM_NEWTFILTER, netlink.F_CREATE | netlink.F_EXCL,
            _TCMSG.pack(0, ifindex, handle, parent, priority << 16 | _ETH_P_ALL)
            + netlink.pack_attribute(_TCA_KIND, b"bpf\0") + netlink.pack_attribute(_TCA_OPTIONS, options))
        return priority, handle

    def remove(self, ifindex: int, parent: int, priority: int, handle: int) -> None:
        """Remove this process's filter there, and flowtop's qdisc if no filter is left on either parent."""
        self._remove(ifindex, parent, lambda owner, filter_: owner == self._owner
                     and (filter_.priority, filter_.handle) == (priority, handle))

    def _remove(self, ifindex: int, parent: int, which: Callable[[Owner, _Filter], bool]) -> int:
        """Remove the filters for which `which(owner, filter)` is true; returns their number."""
        removed = 0
        made_qdisc = False
        left = 0
        for filter_ in self._filters(ifindex):
            parsed = parse_filter_name(filter_.name)
            if filter_.parent != parent or parsed is None or not which(parsed[0], filter_):
                left += filter_.handle != 0
                continue
            made_qdisc |= parsed[1]
            self._delete(_RTM_DELTFILTER, _TCMSG.pack(0, ifindex, filter_.handle, parent, filter_.info)
                         + netlink.pack_attribute(_TCA_KIND, b"bpf\0"))
            removed += 1
        if made_qdisc and not left and not self._filters(ifindex):
            self._delete(_RTM_DELQDISC, _TCMSG.pack(0, ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0)
                         + netlink.pack_attribute(_TCA_KIND, b"clsact\0"))
        return removed

    def _delete(self, kind: int, body: bytes) -> None:
        try:
            self._route.request(kind, 0, body)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
                raise  # with those three, it, its qdisc or its interface is gone already

    def alive(self, ifindex: int, parent: int, priority: int, handle: int) -> bool:
        """Whether this process has a filter there."""
        return any(self._is_mine(filter_, priority, handle) for filter_ in self._filters(ifindex)
                   if filter_.parent == parent)

    def _is_mine(self, filter_: _Filter, priority: int, handle: int) -> bool:
        parsed = parse_filter_name(filter_.name)
        return (filter_.priority, filter_.handle) == (priority, handle) and parsed is not None and (
            parsed[0] == self._owner)

    def ahead(self, ifindex: int, parent: int, priority: int, handle: int) -> Ahead:
        """What others run before this process's filter there."""
        found: list[_Filter] = []
        filters = [filter_ for filter_ in self._filters(ifindex) if filter_.parent == parent]
        for filter_ in filters:
            if self._is_mine(filter_, priority, handle):
                break
            if filter_.handle and parse_filter_name(filter_.name) is None:
                found.append(filter_)
        first, _ = _first_place([filter_ for filter_ in filters if not self._is_mine(filter_, priority, handle)])
        passable = first < priority or any(filter_.priority == priority for filter_ in found)
        return Ahead(tuple(filter_.described for filter_ in found), passable)

    def foremost(self, ifindex: int) -> dict[Direction, tuple[str, ...]]:
        """By direction, filters that would run before flowtop's; changes nothing."""
        filters = self._filters(ifindex)
        found = {}
        for direction, parent in ((Direction.INGRESS, _INGRESS), (Direction.EGRESS, _EGRESS)):
            here = [filter_ for filter_ in filters if filter_.parent == parent]
            priority, _ = _first_place(here)
            found[direction] = tuple(
                filter_.described for filter_ in here
                if filter_.handle and filter_.priority < priority and parse_filter_name(filter_.name) is None)
        return found

    def unseen(self, ifindex: int) -> dict[Direction, str]:
        """By direction, why its qdisc has no place for a filter; changes nothing."""
        qdisc = self._qdisc(ifindex)
        found = {direction: SHARED_BLOCK for direction, block in (
            (Direction.INGRESS, _TCA_INGRESS_BLOCK), (Direction.EGRESS, _TCA_EGRESS_BLOCK)) if block in qdisc}
        if qdisc.get(_TCA_KIND) == b"ingress\0":
            found[Direction.EGRESS] = EGRESS_UNSEEN
        return found

    def sweep(self) -> int:
        """Remove filters of killed flowtop processes of this PID namespace in this network namespace.

        Returns the number of filters removed.
        """
        removed = 0
        for body in self._route.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
            _, ifindex, _, parent, _ = _TCMSG.unpack_from(body)
            if parent == _CLSACT_PARENT:
                kind = dict(netlink.attributes(body, _TCMSG.size)).get(_TCA_KIND, b"")
                removed += sum(self._remove(ifindex, hook, self._is_dead) for hook in _PARENTS.get(kind, ()))
        return removed

    def _is_dead(self, owner: Owner, _: _Filter) -> bool:
        return owner.pid_namespace == self._owner.pid_namespace and self._started(owner.pid) != owner.start


class _ClsactAttachment:
    def __init__(self, attacher: ClsactAttacher, ifindex: int, parent: int, priority: int, handle: int) -> None:
        self._attacher = attacher
        self._place = ifindex, parent, priority, handle

    def alive(self) -> bool:
        return self._attacher.alive(*self._place)

    def ahead(self) -> Ahead:
        return self._attacher.ahead(*self._place)

    def close(self) -> None:
        self._attacher.remove(*self._place)


def _first_place(filters: list[_Filter]) -> tuple[int, int]:
    """Priority and handle of the first place that a filter for all protocols can have among those of one parent.

    A priority belongs to one kind of filter and protocol. Filters of kind bpf with the same run from the newest to the
    oldest: a new one is the first of them. Other flowtops are let alone; they end nothing.
    """
    taken: dict[int, list[_Filter]] = {}
    for filter_ in filters:
        taken.setdefault(filter_.priority, []).append(filter_)
    for priority in range(1, 0xFFFF):
        here = taken.get(priority, [])
        if here and all(parse_filter_name(filter_.name) for filter_ in here if filter_.handle):
            continue  # flowtops' alone
        handles = {filter_.handle for filter_ in here}
        if all(filter_.kind == "bpf" and filter_.protocol == _ETH_P_ALL for filter_ in here):
            ours = range(_OURS_FROM, _OURS_FROM + _HANDLES)
            return priority, next(handle for handle in ours if handle not in handles)
    raise OSError(errno.ENOSPC, "no priority is free")


def _parse_filter(body: bytes, parent: int) -> _Filter:
    _, _, handle, _, info = _TCMSG.unpack_from(body)
    top = dict(netlink.attributes(body, _TCMSG.size))
    kind, name = top.get(_TCA_KIND, b""), b""
    if kind == b"bpf\0":
        name = dict(netlink.attributes(top.get(_TCA_OPTIONS, b""), 0)).get(_TCA_BPF_NAME, b"")
    return _Filter(parent, info >> 16, handle, info & 0xFFFF, kind.rstrip(b"\0").decode("ascii", "replace"),
                   name.rstrip(b"\0").decode("utf-8", "replace"))
