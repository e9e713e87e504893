"""Packets of selected flows from the kernel: separate programs, a ring buffer, and a thread that reads it.

Any thread may request packets; the capture's thread attaches and detaches the programs.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.packet_owners import PacketOwners
from flowtop.capture.ebpf.packet_programs import RING_OCTETS, build_programs
from flowtop.capture.ebpf.points import ObservationPoints
from flowtop.capture.ebpf.ring import Ring
from flowtop.capture.ebpf.totals import possible_cpus
from flowtop.capture.packets.frames import gather
from flowtop.errors import FlowtopError
from flowtop.model.kinds import Direction, Layer
from flowtop.model.packets import PacketBatch, PacketInterface, PacketLosses, PacketRequest
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.model.tunnel_ports import TunnelPorts

RECORD_DTYPE = np.dtype([("key", FLOW_KEY_DTYPE), ("time_ns", "u8"), ("wire", "u4"), ("captured", "u4")])
"""struct packet_record of bpf/packets.h; the frame follows it."""
LOSSES_DTYPE = np.dtype([("dropped", "u8"), ("capped", "u8")])
"""struct packet_losses."""

_POLL_S = 0.02
_LOSSES_EVERY = 25
"""Reads of the ring buffer between two reads of the loss counters."""
_LINK_TYPES = {Layer.ETHERNET: 1, Layer.IP: 101}
"""LINKTYPE_ETHERNET, LINKTYPE_RAW."""


class Building(Protocol):
    """Programs that are being compiled: compiler.Build, or a helper's."""

    def result(self) -> tuple[dict[str, int], dict[str, int]]:
        """See compiler.Build.result."""

    def close(self) -> None:
        """See compiler.Build.close."""


def build_for(request: PacketRequest, *, decap: bool = False, tunnel_ports: TunnelPorts | None = None) -> Building:
    """Start compiling the programs for a request. Raises FlowtopError like `require_ring_buffers`.

    Args:
        request: what to record.
        decap: packets in tunnels belong to their inner flow.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
    """
    return build_programs(snap=request.snap, per_flow=request.per_flow, expression=request.expression, decap=decap,
                          tunnel_ports=tunnel_ports)


class PacketTap:
    """Loaded programs and the thread that reads their packets.

    `describe` and `programs` are for the thread that attaches them.

    Args:
        request: receives the packets.
        built: result of Build.result; owned by this object.
        cpus: number of possible CPUs.
        clock_ns: clock of the kernel programs.
        unix_ns: ns since 1970 UTC.
        owners: whose sockets the packets are of; None: that is not looked for.
    """

    def __init__(self, request: PacketRequest, built: tuple[dict[str, int], dict[str, int]], cpus: int,
                 clock_ns: Callable[[], int], unix_ns: Callable[[], int] = time.time_ns,
                 owners: PacketOwners | None = None) -> None:
        self._sink = request.sink
        self._programs, self._maps = built
        self._clock_ns = clock_ns
        self._unix_ns = unix_ns
        self._owners = owners
        self._ring = Ring(self._maps["packets"], RING_OCTETS)
        self._losses = np.zeros(cpus, LOSSES_DTYPE)
        self._interfaces: Mapping[int, PacketInterface] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="packets")

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether packets are no longer needed: detach the programs, then call `finish`."""
        return self._sink.over

    def programs(self, layer: Layer) -> Mapping[Direction, int]:
        """Programs to attach to an interface of this layer."""
        return {direction: self._programs[f"packets_{direction.name.lower()}_{layer.name.lower()}"]
                for direction in Direction}

    def describe(self, ifindex: int, name: str, layer: Layer) -> None:
        """Name and type of an interface; call it before attaching."""
        self._interfaces = {**self._interfaces, ifindex: PacketInterface(name, _LINK_TYPES[layer])}

    def finish(self) -> None:
        """Write the remaining packets, end the sink and free all resources.

        Call it when all programs are detached and have returned. Waits for the disk. A second call does nothing.
        """
        if self._ending.is_set():
            return
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._owners is not None:
            self._owners.forget()
        self._ring.close()
        for descriptors in (self._programs, self._maps):
            for descriptor in descriptors.values():
                os.close(descriptor)

    # ---- the thread

    def _run(self) -> None:
        looks = 0
        while not self._ending.is_set():
            taken = self._hand_over()
            looks += 1
            if looks % _LOSSES_EVERY == 0:
                self._note_losses()
            if self._sink.over:
                return
            if not taken:
                self._ending.wait(_POLL_S)
        while self._hand_over():
            pass
        self._note_losses()
        self._sink.finish()

    def _hand_over(self) -> int:
        """Pass available packets to the sink; returns their number."""
        octets, offsets = self._ring.take()
        if offsets:
            at = np.array(offsets, np.int64)
            records = gather(octets, at, RECORD_DTYPE)
            keys = np.ascontiguousarray(records["key"])
            owners, texts = (None, {}) if self._owners is None else self._owners.find(keys)
            self._sink.write(PacketBatch(
                keys=keys, octets=octets, offset=at + RECORD_DTYPE.itemsize,
                captured=records["captured"].astype(np.int64), wire=records["wire"].astype(np.int64),
                time_ns=records["time_ns"].astype(np.int64) + (self._unix_ns() - self._clock_ns()),
                received=records["key"]["direction"] == Direction.INGRESS, interfaces=self._interfaces,
                owners=owners, texts=texts))
        return len(offsets)

    def _note_losses(self) -> None:
        losses = {}
        for ifindex in self._interfaces:
            if bpf.map_lookup(self._maps["losses"], struct.pack("=I", ifindex), self._losses.ctypes.data):
                losses[ifindex] = PacketLosses(int(self._losses["dropped"].sum()), int(self._losses["capped"].sum()))
        self._sink.note_losses(losses)


_PATIENCE_S = 30.0
"""How long the capture's thread may take to detach; it may be busy with a burst of new interfaces."""


class PacketTaps:
    """Manages one PacketTap at a time. `set_request` is for other threads, the other methods for the capture's thread.

    Args:
        clock_ns: clock of the kernel programs.
        wake: makes the capture's thread call `changed` soon.
        settle: waits until all running programs have returned.
        decap: packets in tunnels belong to their inner flow.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
        build: `build_for`, or a helper's.
    """

    def __init__(self, clock_ns: Callable[[], int], wake: Callable[[], None], settle: Callable[[], None], *,
                 decap: bool = False, tunnel_ports: TunnelPorts | None = None,
                 build: Callable[..., Building] | None = None) -> None:
        self._clock_ns = clock_ns
        self._wake = wake
        self._settle = settle
        self._build_programs = partial(build or build_for, decap=decap, tunnel_ports=tunnel_ports)
        self._requesting = threading.Lock()
        self._changes = threading.Condition()
        self._owners: PacketOwners | None = None
        self._early: tuple[PacketRequest, Building] | None = None
        self._open = False
        self._closed = False
        self._requested: PacketTap | None = None
        self._attached: PacketTap | None = None

    def set_request(self, request: PacketRequest | None) -> None:
        """See recording.PacketCapture."""
        with self._requesting:
            if request is None:
                self._end()
            elif self._closed:
                raise FlowtopError("capturing has ended", hint="start flowtop again")
            elif self._open:
                build = self._build_programs(request)
                try:
                    self._want(self._tap(request, build))
                finally:
                    build.close()
            else:  # compile in parallel with the counting programs
                self._early = request, self._build_programs(request)

    def _tap(self, request: PacketRequest, build: Building) -> PacketTap:
        tap = PacketTap(request, build.result(), possible_cpus(), self._clock_ns, owners=self._owners)
        tap.start()
        return tap

    def _want(self, tap: PacketTap) -> None:
        with self._changes:
            closed = self._closed
            self._requested = None if closed else tap
        if closed:
            tap.finish()
        self._wake()

    def _end(self) -> None:
        """Have the programs detached, then wait for packets in transit."""
        with self._changes:
            tap, self._requested = self._requested, None
            self._wake()
            self._changes.wait_for(lambda: self._attached is None or self._closed, _PATIENCE_S)
        if tap is not None:
            self._settle()
            tap.finish()

    def begin(self, points: ObservationPoints, owners: PacketOwners | None = None) -> None:
        """The capture has opened: attach programs requested before, ahead of the counting ones.

        Args:
            owners: whose sockets packets are of; None: that is not looked for.
        """
        self._open, self._owners = True, owners
        if self._early is not None:
            request, build = self._early
            self._early = None
            try:
                self._requested = self._tap(request, build)
            finally:
                build.close()
            self.changed(points)

    def changed(self, points: ObservationPoints) -> bool:
        """Apply the latest request; returns whether `points` has programs to attach."""
        with self._changes:
            over = self._requested if self._requested is not None and self._requested.over else None
            if over is not None:
                self._requested = None
            if self._requested is self._attached:
                return False
            self._attached = self._requested
            points.accompany(self._attached)
            self._changes.notify_all()
        if over is not None:
            over.finish()  # its thread has ended or is about to, and packets in transit are dropped
        return self._attached is not None

    def finish(self) -> None:
        """All programs are detached and have returned: write the remaining packets. Waits for the disk."""
        with self._changes:
            self._closed = True
            tap, self._requested, self._attached = self._requested, None, None
            self._changes.notify_all()
        if tap is not None:
            tap.finish()
        if self._early is not None:
            self._early[1].close()
