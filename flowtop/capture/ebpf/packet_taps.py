"""Which packets a capture hands over now: asked for by any thread, attached and taken off by the capture's own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flowtop.capture.ebpf.compiler import Build
from flowtop.capture.ebpf.packet_tap import PacketTap, build_programs
from flowtop.capture.ebpf.points import ObservationPoints
from flowtop.capture.ebpf.totals import possible_cpus
from flowtop.errors import FlowtopError
from flowtop.packets import PacketRequest

_PATIENCE_S = 30.0
"""How long the capture's thread may take to take programs off: it may wait for a burst of new interfaces."""


class PacketTaps:
    """One PacketTap at a time. `ask` is for other threads, the rest for the capture's.

    Args:
        clock_ns: the kernel programs' clock.
        wake: makes the capture's thread call `changed` soon.
        settle: waits until every program that was running has returned.
        decap: packets in tunnels are in the flows of what is inside.
    """

    def __init__(self, clock_ns: Callable[[], int], wake: Callable[[], None], settle: Callable[[], None], *,
                 decap: bool = False) -> None:
        self._clock_ns = clock_ns
        self._wake = wake
        self._settle = settle
        self._decap = decap
        self._asking = threading.Lock()
        self._changes = threading.Condition()
        self._early: tuple[PacketRequest, Build] | None = None
        self._open = False
        self._closed = False
        self._wanted: PacketTap | None = None
        self._attached: PacketTap | None = None

    def ask(self, request: PacketRequest | None) -> None:
        """See recording.PacketCapture."""
        with self._asking:
            if request is None:
                self._end()
            elif self._closed:
                raise FlowtopError("capturing has ended", hint="start flowtop again")
            elif self._open:
                build = build_programs(request, decap=self._decap)
                try:
                    self._want(self._tap(request, build))
                finally:
                    build.close()
            else:  # it compiles while the programs that count do
                self._early = request, build_programs(request, decap=self._decap)

    def _tap(self, request: PacketRequest, build: Build) -> PacketTap:
        tap = PacketTap(request, build.result(), possible_cpus(), self._clock_ns)
        tap.start()
        return tap

    def _want(self, tap: PacketTap) -> None:
        with self._changes:
            closed = self._closed
            self._wanted = None if closed else tap
        if closed:
            tap.finish()
        self._wake()

    def _end(self) -> None:
        """Have the programs taken off, then wait for what is on its way."""
        with self._changes:
            tap, self._wanted = self._wanted, None
            self._wake()
            self._changes.wait_for(lambda: self._attached is None or self._closed, _PATIENCE_S)
        if tap is not None:
            self._settle()
            tap.finish()

    def begin(self, points: ObservationPoints) -> None:
        """The capture opens: what was asked for before attaches with the programs that count, ahead of them."""
        self._open = True
        if self._early is not None:
            request, build = self._early
            self._early = None
            try:
                self._wanted = self._tap(request, build)
            finally:
                build.close()
            self.changed(points)

    def changed(self, points: ObservationPoints) -> bool:
        """Follow what is asked for; whether `points` has something to attach."""
        with self._changes:
            over = self._wanted if self._wanted is not None and self._wanted.over else None
            if over is not None:
                self._wanted = None
            if self._wanted is self._attached:
                return False
            self._attached = self._wanted
            points.accompany(self._attached)
            self._changes.notify_all()
        if over is not None:
            over.finish()  # its thread has ended, or is about to: nobody takes what is on its way
        return self._attached is not None

    def finish(self) -> None:
        """Everything has been taken off and has returned: hand over what is left. Waits for the disk."""
        with self._changes:
            self._closed = True
            tap, self._wanted, self._attached = self._wanted, None, None
            self._changes.notify_all()
        if tap is not None:
            tap.finish()
        if self._early is not None:
            self._early[1].close()
