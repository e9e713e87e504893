"""What the loader of a confined capture attaches and lists; programs are descriptors of who asks."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from flowtop.capture.ebpf import bpf, conntrack
from flowtop.capture.ebpf.attach import UnseenDirectionError
from flowtop.capture.ebpf.clsact import ClsactAttacher, parent_process
from flowtop.capture.ebpf.loader import OWNER_PROGRAMS
from flowtop.capture.ebpf.netlink import LINK_GROUPS, EventSocket, NetlinkSocket, RouteSocket
from flowtop.confine.checks import number
from flowtop.confine.helper import Answer, Operation
from flowtop.confine.messages import ProtocolError
from flowtop.errors import FlowtopError
from flowtop.model.kinds import Direction

_ATTACH_TYPES = (bpf.ATTACH_TCX_INGRESS, bpf.ATTACH_TCX_EGRESS)


class Attaching:
    """Filters of clsact are the parent's, which asks for them.

    Attributes:
        operations: by name.
    """

    def __init__(self) -> None:
        self.operations: Mapping[str, Operation] = {
            "tcx": self._tcx, "tcx_programs": self._tcx_programs, "program_name": self._program_name,
            "owners": self._owners, "link_events": self._link_events,
            "nat_events": self._nat_events, "nat_dump": self._nat_dump,
            "clsact": self._clsact_attach, "clsact_sweep": self._clsact_sweep, "clsact_alive": self._clsact_alive,
            "clsact_ahead": self._clsact_ahead, "clsact_close": self._clsact_close}
        self._clsact: ClsactAttacher | None = None
        self._attachments: list[Any] = []

    def close(self) -> None:
        """Remove the filters of clsact that are left, as those of TCX are by the kernel."""
        for place in range(len(self._attachments)):
            with suppress(OSError, FlowtopError):
                self._close(place)

    def _tcx(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> Answer:
        ifindex, attach_type = number(message, "ifindex"), _attach_type(message)
        return {}, [bpf.link_create_tcx(_only(descriptors), ifindex, attach_type)]

    def _tcx_programs(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        return {"programs": bpf.tcx_programs(number(message, "ifindex"), _attach_type(message))}, []

    def _program_name(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        return {"name": bpf.program_name(number(message, "number"))}, []

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

    def _link_events(self, _: Mapping[str, Any], __: Sequence[int]) -> Answer:
        return {}, [_taken(EventSocket(LINK_GROUPS))]

    def _nat_events(self, _: Mapping[str, Any], __: Sequence[int]) -> Answer:
        return {}, [_taken(conntrack.open_events())]

    def _nat_dump(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        status = number(message, "status")
        if status not in conntrack.STATUSES:
            raise ProtocolError("no status of a translation")
        return {}, [_taken(conntrack.begin_dump(status))]

    # ---- clsact

    def _attacher(self) -> ClsactAttacher:
        if self._clsact is None:
            self._clsact = ClsactAttacher(RouteSocket(), parent_process())
        return self._clsact

    def _clsact_sweep(self, _: Mapping[str, Any], __: Sequence[int]) -> Answer:
        return {"removed": self._attacher().sweep()}, []

    def _clsact_attach(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> Answer:
        direction, ifindex = Direction(number(message, "direction", 1)), number(message, "ifindex", (1 << 31) - 1)
        try:
            made = self._attacher().attach(ifindex, direction, _only(descriptors))
        except UnseenDirectionError as error:
            return {"unseen": str(error)}, []
        self._attachments.append(made)
        return {"number": len(self._attachments) - 1}, []

    def _attachment(self, message: Mapping[str, Any]) -> Any:
        place = number(message, "number")
        if place >= len(self._attachments) or self._attachments[place] is None:
            raise ProtocolError("no such attachment")
        return self._attachments[place]

    def _clsact_alive(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        return {"alive": self._attachment(message).alive()}, []

    def _clsact_ahead(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        ahead = self._attachment(message).ahead()
        return {"programs": ahead.programs, "passable": ahead.passable}, []

    def _clsact_close(self, message: Mapping[str, Any], _: Sequence[int]) -> Answer:
        self._attachment(message)
        self._close(message["number"])
        return {}, []

    def _close(self, place: int) -> None:
        attachment, self._attachments[place] = self._attachments[place], None
        if attachment is not None:
            attachment.close()


def _attach_type(message: Mapping[str, Any]) -> int:
    value = number(message, "attach_type")
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
