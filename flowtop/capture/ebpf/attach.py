"""Hanging a program on one Observation Point: TCX links from Linux 6.6 on, clsact filters before."""

from __future__ import annotations

import os
from typing import Literal, Protocol

from flowtop.capture.ebpf import bpf
from flowtop.model.kinds import Direction

AttachMode = Literal["auto", "tcx", "clsact"]


class Attachment(Protocol):
    """A program on one interface in one direction."""

    def alive(self) -> bool:
        """Whether it still is attached."""

    def close(self) -> None:
        """Take it off, and nothing else. No fault when it, or the interface, is gone already. Called once."""


class Attacher(Protocol):
    """One way to attach.

    Attributes:
        name: for people: "tcx" or "clsact".
    """

    name: str

    def attach(self, ifindex: int, direction: Direction, program_fd: int) -> Attachment:
        """Attach a program.

        Raises:
            OSError: ENODEV when the interface is gone; any other errno when it cannot be attached to.
        """


class TcxAttacher:
    """TCX links, at the head so that no other program's verdict hides a packet. They end with the process."""

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
