"""Attach a program to an Observation Point: TCX links from Linux 6.6 on, clsact filters before."""

from __future__ import annotations

import errno
import os
from typing import Literal, NamedTuple, Protocol

from flowtop.capture.ebpf import bpf, start
from flowtop.capture.ebpf.loader import PACKET_PROGRAMS, PROGRAMS
from flowtop.model.kinds import Direction

_OWN_NAMES = frozenset(name[:15] for name in (*PROGRAMS, *PACKET_PROGRAMS))
"""As the kernel stores them: other flowtops' programs end nothing."""
ATTACH_VARIABLE = "FLOWTOP_ATTACH"
"""Environment variable that overrides EbpfConfig.attach, so that tests can use clsact on kernels with TCX."""
NO_ROOM = f"{bpf.TCX_MOST} other programs are attached, and there is no room for more"
AttachMode = Literal["auto", "tcx", "clsact"]


class UnseenDirectionError(Exception):
    """Packets of one direction of an interface cannot be observed; its text says why."""


class Ahead(NamedTuple):
    """Programs that run before flowtop's, and may keep packets from it.

    Attributes:
        programs: what each is, in the order in which they run.
        passable: whether a new attachment would run before them.
    """

    programs: tuple[str, ...]
    passable: bool


class Attachment(Protocol):
    """A program on one interface in one direction."""

    def alive(self) -> bool:
        """Whether it is still attached."""

    def ahead(self) -> Ahead:
        """Which programs of others run before it."""

    def close(self) -> None:
        """Detach it. No error if it or the interface is gone already. Called once."""


class Attacher(Protocol):
    """A method to attach programs.

    Attributes:
        name: "tcx" or "clsact", as shown to users.
    """

    name: str

    def attach(self, ifindex: int, direction: Direction, program_fd: int) -> Attachment:
        """Attach a program.

        Raises:
            OSError: ENODEV if the interface is gone; another errno if it cannot be attached to.
            UnseenDirectionError: the interface can be attached to, but not in this direction.
        """

    def has_room(self, ifindex: int, direction: Direction) -> bool:
        """Whether there is room now where `attach` found none, if the kernel does not notify that."""


class TcxCalls(Protocol):
    """The calls of bpf(2) that need rights: see the functions of these names in `bpf`."""

    def link_create_tcx(self, program_fd: int, ifindex: int, attach_type: int) -> int:
        """See bpf.link_create_tcx."""

    def tcx_programs(self, ifindex: int, attach_type: int) -> list[int]:
        """See bpf.tcx_programs."""

    def program_name(self, program_id: int) -> str:
        """See bpf.program_name."""


class TcxAttacher:
    """TCX links, first in the list so that other programs cannot hide a packet. They are removed with the process.

    Args:
        calls: `bpf`, or a helper's.
    """

    name = "tcx"

    def __init__(self, calls: TcxCalls = bpf) -> None:
        self._calls = calls

    def attach(self, ifindex: int, direction: Direction, program_fd: int) -> Attachment:
        """See Attacher. Takes an RCU grace period (about 10 ms)."""
        kind = attach_type(direction)
        if not start.spare_files(1):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        try:
            return _TcxAttachment(self._calls, self._calls.link_create_tcx(program_fd, ifindex, kind), ifindex, kind)
        except OSError as error:
            if error.errno in (errno.ERANGE, errno.E2BIG):
                raise UnseenDirectionError(NO_ROOM) from error
            raise

    def has_room(self, ifindex: int, direction: Direction) -> bool:
        """See Attacher: nobody is told when a program goes."""
        return (start.spare_files(start.HOOKS)
                and len(self._calls.tcx_programs(ifindex, attach_type(direction))) < bpf.TCX_MOST)


def attach_type(direction: Direction) -> int:
    """The TCX hook of a direction."""
    return bpf.ATTACH_TCX_INGRESS if direction is Direction.INGRESS else bpf.ATTACH_TCX_EGRESS


class _TcxAttachment:
    def __init__(self, calls: TcxCalls, link_fd: int, ifindex: int, kind: int) -> None:
        self._calls = calls
        self._link_fd = link_fd
        self._place = ifindex, kind

    def alive(self) -> bool:
        return bpf.tcx_link_ifindex(self._link_fd) != 0

    def ahead(self) -> Ahead:
        mine = bpf.link_program_id(self._link_fd)
        programs = self._calls.tcx_programs(*self._place)
        before = programs[:programs.index(mine)] if mine in programs else ()
        named = [(number, self._calls.program_name(number)) for number in before]
        return Ahead(tuple(f"program {number} ({name})" if name else f"program {number}" for number, name in named
                           if name not in _OWN_NAMES), passable=True)

    def close(self) -> None:
        os.close(self._link_fd)
