"""The eBPF capture: compiles, attaches, follows interface changes, and drains without loss."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.addresses import LocalAddresses
from flowtop.capture.ebpf.attach import ATTACH_VARIABLE, Attacher, AttachMode, TcxAttacher
from flowtop.capture.ebpf.clsact import ClsactAttacher, this_process
from flowtop.capture.ebpf.compiler import Compilation, FlowProgram
from flowtop.capture.ebpf.devices import Devices
from flowtop.capture.ebpf.interfaces import Interface, LinkChanges, LinkEvents, Links, Selection, is_glob
from flowtop.capture.ebpf.maps import SIDES, FlowMaps, Grace, merge_duplicates
from flowtop.capture.ebpf.names import SeenNames
from flowtop.capture.ebpf.netlink import DumpInterruptedError, RouteSocket
from flowtop.capture.ebpf.owners import FlowOwners, begin_scan
from flowtop.capture.ebpf.packet_taps import PacketTaps
from flowtop.capture.ebpf.points import ObservationPoints
from flowtop.capture.ebpf.rights import HelpersClsact, HelpersCompilation, Rights
from flowtop.capture.ebpf.start import begin, check_map_entries
from flowtop.capture.ebpf.totals import Totals, possible_cpus
from flowtop.capture.protocol import Wake
from flowtop.errors import EXIT_UNAVAILABLE, EXIT_USAGE, FlowtopError
from flowtop.model.kinds import Direction
from flowtop.model.names_seen import NAMES
from flowtop.model.packets import PacketRequest
from flowtop.model.record import FlowBatch, Unobserved
from flowtop.model.tunnel_ports import TunnelPorts


def monotonic_offset_ns(path: Path = Path("/proc/self/timens_offsets")) -> int:
    """Offset of CLOCK_MONOTONIC in this process's time namespace, ns (time_namespaces(7)); 0 without namespaces."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0
    for line in lines:
        clock, seconds, ns = line.split()
        if clock in ("monotonic", "1"):  # the number was used before Linux 5.7
            return int(seconds) * 1_000_000_000 + int(ns)
    return 0


def kernel_clock(
    offset_ns: int | None = None, monotonic_ns: Callable[[], int] = time.monotonic_ns
) -> Callable[[], int]:
    """CLOCK_MONOTONIC as read by eBPF programs: without the offset of this process's time namespace."""
    offset = monotonic_offset_ns() if offset_ns is None else offset_ns
    return monotonic_ns if offset == 0 else lambda: monotonic_ns() - offset


_SHORTEST_POLL_NS, _LONGEST_LOOK_NS, _LONGEST_POLL_NS = 20_000_000, 200_000_000, 3_600_000_000_000
_NEW_FLOWS_PER_S = 500_000
"""Assumed maximum rate of new flows: where the kernel does not say when the map is half full, `wait` looks before."""
_NAMES_POLL_NS, _NAMES_BEHIND_POLL_NS = 250_000_000, 60_000_000
"""Between two looks at names that packets told, and while some wait for their share of time."""
_OPEN_BUDGET_NS = 1_000_000_000
_RECONCILE_BUDGET_NS = 200_000_000
"""Time limit of attaching between two drains; the remaining interfaces follow."""
_RECONCILE_REST = 4
"""Minimum pause, in units of CPU time spent, before interface changes are followed again: a storm of changes costs at
most 20 % of a CPU. Waiting for grace periods takes no CPU time, and must not delay the next attaching."""

_LIST_ATTEMPTS = 200


class _Closable(Protocol):
    def close(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


@dataclass(frozen=True)
class EbpfConfig:
    """What to capture and how.

    Attributes:
        interfaces: names and globs; if empty, every interface that is up.
        map_entries: capacity of each of the two kernel maps in flows, 1,024 to 16,777,216.
        attach: "auto" uses TCX if the kernel supports it.
        decap: count packets in tunnels by their inner flow; the outer flow is counted in entries of Kind.PARENT.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
        owners: find the process of each flow.
        names_seen: read the names in DNS answers and in the first packets of connections.
        nat: for these, join the two sides of connections with address translation.
        must_observe: `open` fails if none of the interfaces can be observed, unless a glob waits for others.
    """

    interfaces: tuple[str, ...] = ()
    map_entries: int = 65536
    attach: AttachMode = "auto"
    decap: bool = False
    tunnel_ports: TunnelPorts = field(default_factory=dict)
    owners: bool = False
    names_seen: bool = False
    nat: bool = True
    must_observe: bool = False

    def __post_init__(self) -> None:
        check_map_entries(self.map_entries)


class EbpfCapture:
    """A flowtop.capture.protocol.Capture of this host's packets, in the network namespace of the opening thread.

    Args:
        config: what to capture.
        compilation: of the programs, already started, for the same configuration; None: `open` starts one.
        environ: environment variables.
        clock_ns: clock of the kernel programs; None: `kernel_clock`.
        unix_ns: ns since 1970 UTC.
        cpu_ns: CPU time of the calling thread.
        make_grace: makes the object that waits for running programs.
        rights: what helpers do for this process, which has given up its rights; None: it has not.
    """

    def __init__(
        self, config: EbpfConfig, compilation: Compilation | HelpersCompilation | None = None, *,
        environ: Mapping[str, str] = os.environ,
        clock_ns: Callable[[], int] | None = None, unix_ns: Callable[[], int] = time.time_ns,
        cpu_ns: Callable[[], int] = time.thread_time_ns, make_grace: Callable[[], Grace] = Grace,
        rights: Rights | None = None,
    ) -> None:
        self._rights = rights
        self._config = config
        self._compilation = compilation
        self._environ = environ
        self._clock_ns = clock_ns or kernel_clock()
        self._unix_ns = unix_ns
        self._cpu_ns = cpu_ns
        self._make_grace = make_grace
        self._resources = ExitStack()
        # Open as long as this object exists, so that `wake` needs no lock in nested signal handlers.
        self._wake = Wake()
        self._changes = LinkChanges()
        self._follow_at_ns: int | None = None
        self._rest_until_ns = 0
        self._owners: FlowOwners | None = None
        self._names: SeenNames | None = None
        self._packets = PacketTaps(self._clock_ns, self.wake, lambda: self._maps.settle(), decap=config.decap,
                                   tunnel_ports=config.tunnel_ports,
                                   build=None if rights is None else rights.compile_packets)

    @property
    def attach_method(self) -> str:
        """"tcx" or "clsact"; valid once open."""
        return self._attacher.name

    @property
    def unobserved(self) -> tuple[Unobserved, ...]:
        """What of the selected interfaces is not observed; valid once open."""
        return self._points.unobserved

    def open(self, progress: Callable[[str], None]) -> None:
        """See Capture.open. Takes up to two seconds, mostly for compiling."""
        try:
            self._open(progress)
        except BaseException:
            self._resources.close()
            raise

    def _open(self, progress: Callable[[str], None]) -> None:
        self._resources.callback(self._packets.finish)  # last: when nothing is attached any more
        mode = self._attach_mode()
        compilation = self._closing(self._compilation or begin(
            self._config.map_entries, decap=self._config.decap, owners=self._config.owners,
            names=self._config.names_seen))
        selection = Selection(self._config.interfaces)
        events = None if self._rights is None else self._rights.link_events()
        self._events = self._closing(LinkEvents(events))  # before the first list, so that no change is missed
        route = self._closing(RouteSocket())
        self._links = Links(route)
        self._devices = Devices(self._links)
        selection.require(self._list())
        progress("compiling the eBPF program")
        sockets = begin_scan(rights=self._rights) if self._config.owners else None
        if sockets is not None:
            self._closing(sockets)
        program = self._closing(compilation.result())
        self._maps = self._closing(FlowMaps(program.maps, self._closing(self._grace())))
        self._totals = Totals(program.maps, possible_cpus())
        if self._config.owners:
            self._owners = self._closing(FlowOwners(program, route, nat=self._config.nat, first=sockets,
                                                     rights=self._rights))
        if self._config.names_seen:
            self._names = self._closing(SeenNames(program, LocalAddresses(route, time.monotonic).are_local))
        clsact = ClsactAttacher(route, this_process()) if self._rights is None else HelpersClsact(self._rights.loader)
        clsact.sweep()
        self._attacher = self._choose_attacher(mode, clsact, program)
        self._points = ObservationPoints(
            selection, self._links, self._attacher, _by_direction(program), self._totals, self._clock_ns)
        self._resources.callback(self._points.detach, LinkChanges())
        self._packets.begin(self._points, None if self._owners is None else self._owners.of_packets)
        selected = sum(map(selection.selects, self._list()))
        progress(f"attaching to {selected} interface{'' if selected == 1 else 's'}")
        self._follow(_OPEN_BUDGET_NS)
        for one in self.unobserved:
            progress(one.text)
        waits = not self._config.interfaces or any(map(is_glob, self._config.interfaces))
        if self._config.must_observe and not waits and self.unobserved and not self._points.attached():
            raise FlowtopError(f"nothing to observe: {'; '.join(one.text for one in self.unobserved)}",
                               hint="-i takes other interfaces; flowtop --check shows which can be observed",
                               exit_code=EXIT_UNAVAILABLE)

    def _grace(self) -> Grace:
        return self._make_grace() if self._rights is None else Grace(maps=self._rights.grace_maps)

    def _list(self) -> list[Interface]:
        """List all interfaces; retries, as capture cannot start with an incomplete list."""
        for _ in range(_LIST_ATTEMPTS):
            try:
                return self._links.list()
            except DumpInterruptedError:
                time.sleep(0.01)
        raise FlowtopError("network interfaces change too fast to be listed",
                           hint="start flowtop again when fewer interfaces change", exit_code=EXIT_UNAVAILABLE)

    def _closing(self, resource: _C) -> _C:
        self._resources.callback(resource.close)
        return resource

    def _attach_mode(self) -> str:
        mode = self._environ.get(ATTACH_VARIABLE) or self._config.attach
        if mode not in get_args(AttachMode):
            raise FlowtopError(f"{ATTACH_VARIABLE}={mode} is not a valid attach method",
                               hint=f"valid: {', '.join(get_args(AttachMode))}", exit_code=EXIT_USAGE)
        return mode

    def _choose_attacher(self, mode: str, clsact: Attacher, program: FlowProgram) -> Attacher:
        if mode == "clsact":
            return clsact
        calls = self._rights or bpf
        if bpf.tcx_supported(next(iter(program.programs.values())), calls.link_create_tcx):
            return TcxAttacher(calls)
        if mode == "auto":
            return clsact
        raise FlowtopError("this kernel has no TCX links", hint="Linux 6.6 or later is needed, or attach=auto",
                           exit_code=EXIT_UNAVAILABLE)

    def _note_changes(self) -> None:
        """Read notifications of the kernel, and schedule following them."""
        news = self._events.read()
        if news.any:
            self._changes = self._changes.then(news)
            self._follow_at_ns = max(self._clock_ns(), self._rest_until_ns)

    def _follow(self, budget_ns: int) -> None:
        """Attach to new interfaces, detach from removed ones."""
        started_ns = self._cpu_ns()
        changes, self._changes = self._changes, LinkChanges()
        complete = self._points.reconcile(changes, budget_ns)
        spent_ns = self._cpu_ns() - started_ns
        ended = self._clock_ns()
        self._rest_until_ns = ended + max(_SHORTEST_POLL_NS, _RECONCILE_REST * spent_ns) if complete else ended
        self._follow_at_ns = None if complete else ended

    def _follow_if_due(self, budget_ns: int) -> None:
        if self._packets.changed(self._points):
            self._follow_at_ns = self._clock_ns()
        if self._follow_at_ns is not None and self._clock_ns() >= self._follow_at_ns:
            self._follow(budget_ns)

    def wait(self, timeout_s: float) -> None:
        """See Capture.wait. Attaches to new interfaces meanwhile."""
        deadline = self._clock_ns() + round(timeout_s * 1e9)
        while (left := deadline - self._clock_ns()) > 0:
            self._maps.awaken()  # before the look: what gets full after it wakes again
            room = self._config.map_entries // 2 - self._maps.inserted()
            if room < 0:
                return
            ready = self._poll(min(left, self._poll_ns(room)))
            if self._events.fileno() in ready:
                self._note_changes()
            self._follow_if_due(min(left, _RECONCILE_BUDGET_NS))
            if self._names is not None:
                self._names.take()
            if self._wake.fileno() in ready:
                self._wake.clear()
                return

    def _poll(self, most_ns: int) -> list[int]:
        """Sleep until there is something to do. Returns the descriptors that say so; none: the time is over."""
        poll = select.poll()
        for source in (self._wake, self._events):
            poll.register(source, select.POLLIN)
        if self._maps.wakes is not None:
            poll.register(self._maps.wakes, select.POLLIN)
        return [fd for fd, _ in poll.poll(most_ns / 1e6)]

    def _poll_ns(self, room: int) -> int:
        """How long `wait` may sleep if `room` entries are left before it must return."""
        if self._follow_at_ns is not None:
            return _SHORTEST_POLL_NS
        names_ns = _LONGEST_POLL_NS
        if self._names is not None:
            names_ns = _NAMES_BEHIND_POLL_NS if self._names.behind else _NAMES_POLL_NS
        if self._maps.wakes is not None:
            return names_ns
        return min(max(room * 1_000_000_000 // _NEW_FLOWS_PER_S, _SHORTEST_POLL_NS), _LONGEST_LOOK_NS, names_ns)

    def write_packets(self, request: PacketRequest | None) -> None:
        """See recording.PacketCapture."""
        self._packets.set_request(request)

    def wake(self) -> None:
        """See Capture.wake. May run in nested signal handlers, also before `open` and after `close`."""
        self._wake.call()

    def lift_filter(self, lifted: bool) -> None:
        """See Capture.lift_filter.

        It is a bit of the control word, which also selects the side, so both change at once.
        """
        self._maps.everything = lifted

    def drain(self) -> FlowBatch:
        """See Capture.drain. Waits for an RCU grace period (8 to 40 ms); the next drain reuses the arrays."""
        self._note_changes()
        self._follow_if_due(_RECONCILE_BUDGET_NS)
        self._points.fill_gaps()
        self._maps.buffer.count = 0
        side = self._maps.flip()
        now_ns, counters = self._clock_ns(), self._links.counters()
        self._devices.read(now_ns)
        self._maps.settle()
        self._maps.drain(side)
        self._points.inspect(self._totals.read(side, counters))
        return self._batch(now_ns, self._maps.buffer.keys, self._maps.buffer.counters)

    def _batch(self, now_ns: int, keys: npt.NDArray[np.void], counters: npt.NDArray[np.void]) -> FlowBatch:
        texts, conversations = ({}, None) if self._owners is None else self._owners.find(keys, counters)
        if self._names is not None:
            self._names.take()  # after the flows: what named a flow's peer came before its first packet
            texts = {**texts, NAMES: self._names.book.texts()}
        return FlowBatch(
            keys, counters, self._totals.observations(), now_ns, self._unix_ns() - self._clock_ns(),
            self._points.names(), self._points.attached(),
            texts=texts, conversations=conversations, owners=None if self._owners is None else self._owners.statistics,
            unobserved=self._points.unobserved, names=None if self._names is None else self._names.book,
            name_statistics=None if self._names is None else self._names.statistics,
            named_addresses={} if self._names is None else self._names.book.addresses(),
            devices=self._devices.of(self._points.names()))

    def close(self) -> FlowBatch:
        """See Capture.close."""
        try:
            attached, unobserved = self._points.attached(), self._points.unobserved
            self._note_changes()
            self._points.detach(self._changes)
            now_ns = self._clock_ns()
            self._maps.settle()
            self._maps.buffer.count = 0
            for side in range(SIDES):
                self._maps.drain(side)
                self._totals.read(side, {})
            keys, counters = merge_duplicates(self._maps.buffer.keys, self._maps.buffer.counters)
            return replace(self._batch(now_ns, keys, counters), attached=attached, unobserved=unobserved)
        finally:
            self._resources.close()


def _by_direction(program: FlowProgram) -> dict[Direction, int]:
    return {direction: program.programs[f"flow_{direction.name.lower()}"] for direction in Direction}
