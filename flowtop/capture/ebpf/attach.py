"""Attach a program to an Observation Point: TCX links from Linux 6.6 on, clsact filters before."""

from __future__ import annotations

import os
from typing import Literal, Protocol

from flowtop.capture.ebpf import bpf
from flowtop.model.kinds import Direction

AttachMode = Literal["auto", "tcx", "clsact"]


class Attachment(Protocol):
    """A program on one interface in one direction."""

    def alive(self) -> bool:
        """Whether it is still attached."""

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
        """


class TcxAttacher:
    """TCX links, first in the list so that other programs cannot hide a packet. They are removed with the process."""

    name = "tcx"

    def attach(self, ifindex: int, direction: Direction, program_fd: int) -> Attachment:
        """See Attacher. Takes an RCU grace period (about 10 ms)."""
        kind = bpf.ATTACH_TCX_INGRESS if direction is Direction.INGRESS else bpf.ATTACH_TCX_EGRESS
        return _TcxAttachment(bpf.link_create_tcx(program_fd, ifindex, kind))


class _TcxAttachment:
    def __init__(self, link_fd: int) -> None:
        self._link_fd = link_fd

    def alive(self) -> bool:
        return bpf.tcx_link_ifindex(self._link_fd) != 0

    def close(self) -> None:
        os.close(self._link_fd)
