"""The helpers of a confined capture: what they do, with which rights, and what they check first.

They parse nothing that comes from a network but what the kernel and the host's own services say of processes and
containers. Each request is one of a few; its numbers and texts are checked, and kernel programs are made only from
filters of the form that flowtop itself writes.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from flowtop.capture.ebpf import bpf, conntrack
from flowtop.capture.ebpf.attach import UnseenDirectionError
from flowtop.capture.ebpf.clsact import ClsactAttacher, Owner, start_time, this_process
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, Build, Compilation, kernel_release
from flowtop.capture.ebpf.expressions import is_kernel_filter
from flowtop.capture.ebpf.loader import OWNER_PROGRAMS
from flowtop.capture.ebpf.netlink import EventSocket, NetlinkSocket, RouteSocket
from flowtop.capture.ebpf.packet_programs import build_programs
from flowtop.capture.ebpf.rights import WHOLE, Rights
from flowtop.capture.ebpf.start import (
    CAP_BPF,
    CAP_NET_ADMIN,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    CAP_SYS_RESOURCE,
    check_map_entries,
)
from flowtop.confine import account, seccomp
from flowtop.confine.helper import Answer, Operations, start_helper
from flowtop.confine.messages import ProtocolError, member
from flowtop.errors import FlowtopError
from flowtop.model.kinds import Direction, Tunnel
from flowtop.owners import proc, scan
from flowtop.owners.cgroups import cgroup2_root, detached_root
from flowtop.owners.containers import ContainerFiles, Place

CAP_DAC_READ_SEARCH = 2
LOADER_KEEPS = (CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF)
"""DAC_READ_SEARCH: flowtop may be installed in a user's directory. SYS_ADMIN: names of other programs, and what is now
CAP_BPF on older kernels."""
LOOKER_KEEPS = (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_NET_ADMIN)
"""SYS_ADMIN: entering network namespaces, to list their sockets."""
_ATTACH_TYPES = (bpf.ATTACH_TCX_INGRESS, bpf.ATTACH_TCX_EGRESS)
_MOST_NUMBER = (1 << 32) - 1
_LONGEST_ID = 4096


def start_helpers(*, owners: bool) -> Rights:
    """Start both. For a process without further threads, that has what capture needs. Raises OSError.

    Args:
        owners: the root of cgroup v2 is needed.
    """
    mine = this_process()
    root = (cgroup2_root() or detached_root()) if owners else None
    grace: tuple[int, int] | None = None
    with suppress(OSError):  # loading says what is refused, and why
        grace = bpf.grace_maps()
    loader = start_helper(lambda: _prepare(Loader(mine), LOADER_KEEPS))
    looker = start_helper(lambda: _prepare(looking(), LOOKER_KEEPS))
    return Rights(loader, looker, grace, root)


def _prepare(operations: Operations, keeps: Sequence[int]) -> Operations:
    """Give up all but these capabilities, and most system calls."""
    account.give_up_privileges(None, sum(1 << number for number in keeps))
    with suppress(OSError):
        seccomp.install(seccomp.Calls(programs=True))
    return operations


def _number(message: Mapping[str, Any], name: str, most: int = _MOST_NUMBER) -> int:
    value: int = member(message, name, int)
    if not 0 <= value <= most:
        raise ProtocolError(f"{name} is out of range")
    return value


def _text(message: Mapping[str, Any], name: str, most: int = _LONGEST_ID) -> str:
    value: str = member(message, name, str)
    if len(value) > most or "\0" in value:
        raise ProtocolError(f"{name} is too long")
    return value


def _expression(message: Mapping[str, Any]) -> str:
    value: str = member(message, "expression", str)
    if not is_kernel_filter(value):
        raise ProtocolError("no filter of the Flow Key")
    return value


def _ports(message: Mapping[str, Any]) -> dict[int, Tunnel]:
    found = {}
    for pair in member(message, "tunnel_ports", list):
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
                and 0 < pair[0] < 1 << 16 and pair[1] in set(Tunnel)):
            raise ProtocolError("no port of a tunnel")
        found[pair[0]] = Tunnel(pair[1])
    return found


class Loader(Operations):
    """Loads and attaches.

    Args:
        owner: of filters of clsact: the process that asks.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__({
            "tcx": self._tcx, "tcx_programs": self._tcx_programs, "program_name": self._program_name,
            "owners": self._owners, "nat_events": self._nat_events, "nat_dump": self._nat_dump,
            "clsact": self._clsact_attach, "clsact_sweep": self._clsact_sweep, "clsact_alive": self._clsact_alive,
            "clsact_ahead": self._clsact_ahead, "clsact_close": self._clsact_close,
        }, {"flows": self._flows, "packets": self._packets})
        self._owner = owner
        self._clsact: ClsactAttacher | None = None
        self._attachments: list[Any] = []

    def close(self) -> None:
        """Remove the filters of clsact that are left, as those of TCX are by the kernel."""
        for number in range(len(self._attachments)):
            with suppress(OSError, FlowtopError):
                self._close(number)

    # ---- apart

    def _flows(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        entries = _number(message, "map_entries")
        check_map_entries(entries)
        build = Compilation(map_entries=entries, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL,
                            expression=_expression(message), decap=member(message, "decap", bool),
                            tunnel_ports=_ports(message), owners=member(message, "owners", bool),
                            names=member(message, "names", bool)).build
        return _built(build, message)

    def _packets(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        build = build_programs(
            snap=_number(message, "snap"), per_flow=_number(message, "per_flow", (1 << 63) - 1),
            expression=_expression(message), decap=member(message, "decap", bool), tunnel_ports=_ports(message))
        return _built(build, message)

    # ---- at once

    def _tcx(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> Answer:
        ifindex, attach_type = _number(message, "ifindex"), _attach_type(message)
        return {}, [bpf.link_create_tcx(_only(descriptors), ifindex, attach_type)]

    def _tcx_programs(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        return {"programs": bpf.tcx_programs(_number(message, "ifindex"), _attach_type(message))}, []

    def _program_name(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        return {"name": bpf.program_name(_number(message, "number"))}, []

    def _owners(self, _: Mapping[str, Any], descriptors: Sequence[int]) -> Answer:
        if len(descriptors) != len(OWNER_PROGRAMS) + 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        directory, *programs = descriptors
        links: list[int] = []
        try:
            for (__, attach_type), program in zip(OWNER_PROGRAMS.values(), programs, strict=True):
                links.append(bpf.link_create_cgroup(program, directory, attach_type))
        except OSError:
            for link in links:
                os.close(link)
            raise
        return {}, links

    def _nat_events(self, _: Mapping[str, Any], __: Sequence[int]) -> Answer:
        return {}, [_taken(conntrack.open_events())]

    def _nat_dump(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        status = _number(message, "status")
        if status not in conntrack.STATUSES:
            raise ProtocolError("no status of a translation")
        return {}, [_taken(conntrack.begin_dump(status))]

    # ---- clsact

    def _attacher(self) -> ClsactAttacher:
        if self._clsact is None:
            self._clsact = ClsactAttacher(RouteSocket(), self._owner, start_time)
        return self._clsact

    def _clsact_sweep(self, _: Mapping[str, Any], __: Sequence[int]) -> Answer:
        return {"removed": self._attacher().sweep()}, []

    def _clsact_attach(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> Answer:
        direction, ifindex = Direction(_number(message, "direction", 1)), _number(message, "ifindex", (1 << 31) - 1)
        try:
            made = self._attacher().attach(ifindex, direction, _only(descriptors))
        except UnseenDirectionError as error:
            return {"unseen": str(error)}, []
        self._attachments.append(made)
        return {"number": len(self._attachments) - 1}, []

    def _attachment(self, message: Mapping[str, Any]) -> Any:
        number = _number(message, "number")
        if number >= len(self._attachments) or self._attachments[number] is None:
            raise ProtocolError("no such attachment")
        return self._attachments[number]

    def _clsact_alive(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        return {"alive": self._attachment(message).alive()}, []

    def _clsact_ahead(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        ahead = self._attachment(message).ahead()
        return {"programs": ahead.programs, "passable": ahead.passable}, []

    def _clsact_close(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        self._attachment(message)
        self._close(message["number"])
        return {}, []

    def _close(self, number: int) -> None:
        attachment, self._attachments[number] = self._attachments[number], None
        if attachment is not None:
            attachment.close()


def _attach_type(message: Mapping[str, Any]) -> int:
    value = _number(message, "attach_type")
    if value not in _ATTACH_TYPES:
        raise ProtocolError("no hook of flows")
    return value


def _only(descriptors: Sequence[int]) -> int:
    if len(descriptors) != 1:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return descriptors[0]


def _taken(opened: EventSocket | NetlinkSocket) -> int:
    """A descriptor of the socket that is the caller's; the object is closed."""
    descriptor = os.dup(opened.fileno())
    opened.close()
    return descriptor


def _built(build: Build, message: Mapping[str, Any]) -> Answer:
    """Wait for the programs, or for the end of who wants them, and then end the compiler."""
    poll = select.poll()
    poll.register(message["end"], select.POLLIN)
    poll.register(build, select.POLLIN)
    try:
        if message["end"] in dict(poll.poll()):
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        programs, maps = build.result()
    finally:
        build.close()
    return ({"refused": dict(build.refused), "programs": list(programs), "maps": list(maps)},
            [*programs.values(), *maps.values()])


# ---- processes and containers


def looking() -> Operations:
    """What looks at processes and containers."""
    return Operations({"life": _life, "scan": _scan}, {"container": _container})


def _life(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    life = proc.read_life(_number(message, "pid"), _number(message, "start_ticks", (1 << 63) - 1))
    if life is None:
        return {"stat": None}, []
    stat = life.stat
    return {"stat": [stat.comm, stat.parent_pid, stat.start_ticks],
            "texts": [life.executable[:_LONGEST_ID], life.command, life.cgroups[:_LONGEST_CGROUPS]]}, []


_LONGEST_CGROUPS = 32_768


def _scan(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """A process writes the output of a scan to a stream."""
    nice = _number(message, "nice", 19)
    reading, writing = socket.socketpair()
    with reading, writing:
        if os.fork() == 0:
            try:
                reading.close()
                os.nice(nice)
                gc.disable()  # nothing is circular, and it ends soon
                writing.sendall(scan.scan() + WHOLE)
            finally:
                os._exit(0)
        return {}, [reading.detach()]


def _container(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    place = Place(_text(message, "id"), _text(message, "runtime"), _text(message, "pod"), _number(message, "uid"),
                  member(message, "named", bool))
    if "/" in place.id or "/" in place.pod or ".." in place.id or ".." in place.pod:
        raise ProtocolError("no id")
    found, faults = ContainerFiles().read(place)
    return {"container": [found.id, found.name, found.image, found.pod, found.namespace],
            "faults": [fault[:_LONGEST_ID] for fault in faults[:8]]}, []
