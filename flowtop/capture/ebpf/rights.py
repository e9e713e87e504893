"""What a capture that has given up its rights asks of two helpers that have not: see `launch`.

One attaches and loads: it has CAP_BPF, CAP_NET_ADMIN and the like. The other one looks at processes and containers.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from flowtop.capture.ebpf.attach import Ahead, Attachment, UnseenDirectionError
from flowtop.capture.ebpf.compiler import FlowProgram
from flowtop.capture.ebpf.conntrack import adopted_dump, adopted_events
from flowtop.capture.ebpf.launch import Helpers, ports_message
from flowtop.capture.ebpf.looking import WHOLE
from flowtop.capture.ebpf.netlink import LINK_GROUPS, EventSocket, NetlinkSocket
from flowtop.confine.helper import Helper, Pending
from flowtop.errors import host_fault
from flowtop.model.kinds import Direction
from flowtop.model.packets import PacketRequest
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.owners.containers import Container, Place
from flowtop.owners.proc import Life, Stat


class Rights:
    """The client's side. For any thread.

    Args:
        helpers: that were started.
    """

    def __init__(self, helpers: Helpers) -> None:
        self.loader, self.looker = helpers.loader, helpers.looker
        self.grace_maps, self.cgroup_root = helpers.grace_maps, helpers.cgroup_root

    # ---- programs

    def compile_packets(self, request: PacketRequest, *, decap: bool,
                        tunnel_ports: TunnelPorts | None) -> HelpersBuild:
        """Start compiling, see packet_taps.build_programs. Raises FlowtopError, OSError."""
        return HelpersBuild(self.loader.begin(
            "packets", snap=request.snap, per_flow=request.per_flow, expression=request.expression, decap=decap,
            tunnel_ports=ports_message(tunnel_ports)))

    # ---- attach.TcxCalls

    def link_create_tcx(self, program_fd: int, ifindex: int, attach_type: int) -> int:
        """See bpf.link_create_tcx."""
        _, (link,) = self.loader.ask("tcx", [program_fd], ifindex=ifindex, attach_type=attach_type)
        return link

    def tcx_programs(self, ifindex: int, attach_type: int) -> list[int]:
        """See bpf.tcx_programs."""
        answer, _ = self.loader.ask("tcx_programs", ifindex=ifindex, attach_type=attach_type)
        return [int(number) for number in answer["programs"]]

    def program_name(self, program_id: int) -> str:
        """See bpf.program_name."""
        return str(self.loader.ask("program_name", number=program_id)[0]["name"])

    # ---- owners

    def attach_owners(self, programs: Sequence[int], directory: int) -> list[int]:
        """Attach OWNER_PROGRAMS, in their order, to a cgroup; returns the links. Raises OSError."""
        _, links = self.loader.ask("owners", [directory, *programs])
        return links

    def scan(self, nice: int = 0) -> HelpersScan:
        """Start a scan, see sockets.Scan. Raises OSError."""
        _, (output,) = self.looker.ask("scan", nice=nice)
        return HelpersScan(output)

    def read_life(self, pid: int, start_ticks: int) -> Life | None:
        """See proc.read_life."""
        with suppress(OSError):
            answer, _ = self.looker.ask("life", pid=pid, start_ticks=start_ticks)
            if answer["stat"] is not None:
                comm, parent_pid, start = answer["stat"]
                return Life(Stat(str(comm), int(parent_pid), int(start)), *map(str, answer["texts"]))
        return None

    def user_name(self, uid: int) -> str:
        """See book.user_name."""
        with suppress(OSError):
            return str(self.looker.ask("user", uid=uid)[0]["name"])
        return str(uid)

    def read(self, place: Place) -> tuple[Container, tuple[str, ...]]:
        """See containers.ContainerFiles.read."""
        try:
            pending = self.looker.begin("container", **asdict(place))
            try:
                answer, _ = pending.result()
            finally:
                pending.close()
        except OSError as error:
            return Container(place.id), (f"the helper: {error.strerror}",)
        return Container(*map(str, answer["container"])), tuple(map(str, answer["faults"]))

    def link_events(self) -> EventSocket:
        """Notifications of LINK_GROUPS, with as much room as only who has rights gets."""
        _, (descriptor,) = self.loader.ask("link_events")
        return EventSocket(LINK_GROUPS, bound=descriptor)

    def translation_events(self) -> EventSocket:
        """See conntrack.open_events."""
        _, (descriptor,) = self.loader.ask("nat_events")
        return adopted_events(descriptor)

    def begin_translations(self, status: int) -> NetlinkSocket:
        """See conntrack.begin_dump."""
        _, (descriptor,) = self.loader.ask("nat_dump", status=status)
        return adopted_dump(descriptor)


class HelpersBuild:
    """As compiler.Build."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self.refused: Mapping[str, str] = {}

    def result(self) -> tuple[dict[str, int], dict[str, int]]:
        """See Build.result. Raises OSError too: the helper has ended."""
        try:
            answer, descriptors = self._pending.result()
        except OSError as error:
            raise host_fault("cannot compile", error) or error from error
        self.refused = answer["refused"]
        left = iter(descriptors)
        programs = {str(name): next(left) for name in answer["programs"]}
        return programs, {str(name): next(left) for name in answer["maps"]}

    def close(self) -> None:
        """See Build.close."""
        self._pending.close()


class HelpersCompilation:
    """As compiler.Compilation."""

    def __init__(self, pending: Pending, map_entries: int) -> None:
        self._build = HelpersBuild(pending)
        self._map_entries = map_entries

    def result(self) -> FlowProgram:
        """See Compilation.result."""
        programs, maps = self._build.result()
        refused = self._build.refused
        return FlowProgram(programs, maps, self._map_entries, refused.get("owners", ""), refused.get("names", ""))

    def close(self) -> None:
        """See Compilation.close."""
        self._build.close()


class HelpersScan:
    """As sockets.Scan.

    Args:
        output: descriptor of a stream that the helper's process writes to.
    """

    def __init__(self, output: int) -> None:
        self._output = socket.socket(fileno=output)

    def result(self) -> bytes | None:
        """See Scan.result."""
        pieces = []
        with self._output, suppress(OSError):  # ended by another thread
            while piece := self._output.recv(1 << 20):
                pieces.append(piece)
        whole = b"".join(pieces)
        return whole[:-1] if whole.endswith(WHOLE) else None

    def stop(self) -> None:
        """See Scan.stop."""
        with suppress(OSError):
            self._output.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See Scan.close."""
        self.stop()
        self._output.close()


class HelpersClsact:
    """As clsact.ClsactAttacher, in the helper's process, which removes what is left when this one ends."""

    name = "clsact"

    def __init__(self, loader: Helper) -> None:
        self._loader = loader

    def sweep(self) -> int:
        """See ClsactAttacher.sweep."""
        return int(self._loader.ask("clsact_sweep")[0]["removed"])

    def attach(self, ifindex: int, direction: Direction, program_fd: int) -> Attachment:
        """See Attacher."""
        answer, _ = self._loader.ask("clsact", [program_fd], ifindex=ifindex, direction=int(direction))
        if "unseen" in answer:
            raise UnseenDirectionError(answer["unseen"])
        return _HelpersAttachment(self._loader, int(answer["number"]))

    def has_room(self, ifindex: int, direction: Direction) -> bool:  # noqa: ARG002 - of the protocol
        """See Attacher: that a qdisc goes is notified."""
        return False


class _HelpersAttachment:
    def __init__(self, loader: Helper, number: int) -> None:
        self._loader = loader
        self._number = number

    def alive(self) -> bool:
        return bool(self._loader.ask("clsact_alive", number=self._number)[0]["alive"])

    def ahead(self) -> Ahead:
        answer: dict[str, Any] = self._loader.ask("clsact_ahead", number=self._number)[0]
        return Ahead(tuple(map(str, answer["programs"])), bool(answer["passable"]))

    def close(self) -> None:
        self._loader.ask("clsact_close", number=self._number)
