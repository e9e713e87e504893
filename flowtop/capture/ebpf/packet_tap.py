"""Packets of wanted flows from the kernel: programs of their own, a ring buffer, and a thread that empties it.

The thread looks many times a second and waits for the disk, so that neither metering nor the kernel does: what finds
the ring buffer full is dropped there, and counted.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.check import try_ring_buffer
from flowtop.capture.ebpf.compiler import Build
from flowtop.capture.ebpf.loader import PACKET_MAPS, PACKET_PROGRAMS
from flowtop.capture.ebpf.ring import LOSSES_DTYPE, RECORD_DTYPE, Ring
from flowtop.capture.files.frames import gather
from flowtop.errors import EXIT_UNAVAILABLE, FlowtopError
from flowtop.packets import PacketBatch, PacketInterface, PacketLosses, PacketRequest
from flowtop.record import Direction, Layer

RING_OCTETS = 16 << 20
_RING_PAGE = 4096
_POLL_S = 0.02
_LOSSES_EVERY = 25
"""Looks at the ring buffer between two at what was lost."""
_LINK_TYPES = {Layer.ETHERNET: 1, Layer.IP: 101}
"""LINKTYPE_ETHERNET, LINKTYPE_RAW."""


def require_ring_buffers() -> None:
    """Raises FlowtopError (EXIT_UNAVAILABLE): this kernel has none."""
    try:
        try_ring_buffer()
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            return  # permissions and the like are told by what comes next
        raise FlowtopError("this kernel has no ring buffers, which packets come through",
                           hint="Linux 5.8 or later is needed to write packets", exit_code=EXIT_UNAVAILABLE) from error


def build_programs(request: PacketRequest, *, decap: bool = False) -> Build:
    """The programs for a request, being compiled. Raises FlowtopError as `require_ring_buffers`.

    Args:
        request: to whom packets go.
        decap: packets in tunnels are in the flows of what is inside.
    """
    require_ring_buffers()
    cflags = [f"-DFLOW_SNAP={request.snap}", f"-DFLOW_RING_PAGES={RING_OCTETS // _RING_PAGE}"]
    if decap:
        cflags.append("-DFLOW_DECAP")
    if request.per_flow:
        cflags.append(f"-DFLOW_SHARE={request.per_flow}ULL")
    if request.expression:
        cflags.append(f"-DFLOW_WANTED(key)={request.expression}")
    return Build("packets.bpf.c", cflags, PACKET_PROGRAMS, PACKET_MAPS,
                 (f"a ring buffer of {RING_OCTETS >> 20} MiB", "raise the memory limit"))


class PacketTap:
    """The programs, loaded, and what they bring. `describe` and `programs` are for the thread that attaches them.

    Args:
        request: to whom packets go.
        built: as Build.result: owned from here on.
        cpus: that per-CPU maps have values for.
        clock_ns: the kernel programs' clock.
        unix_ns: ns since 1970 UTC.
    """

    def __init__(self, request: PacketRequest, built: tuple[dict[str, int], dict[str, int]], cpus: int,
                 clock_ns: Callable[[], int], unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._sink = request.sink
        self._programs, self._maps = built
        self._clock_ns = clock_ns
        self._unix_ns = unix_ns
        self._ring = Ring(self._maps["packets"], RING_OCTETS)
        self._losses = np.zeros(cpus, LOSSES_DTYPE)
        self._interfaces: Mapping[int, PacketInterface] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="packets")

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def over(self) -> bool:
        """Nobody wants packets any more: take the programs off, then `finish`."""
        return self._sink.over

    def programs(self, layer: Layer) -> Mapping[Direction, int]:
        """What to attach to an interface of this layer."""
        return {direction: self._programs[f"packets_{direction.name.lower()}_{layer.name.lower()}"]
                for direction in Direction}

    def describe(self, ifindex: int, name: str, layer: Layer) -> None:
        """What an interface is, before anything is attached to it."""
        self._interfaces = {**self._interfaces, ifindex: PacketInterface(name, _LINK_TYPES[layer])}

    def finish(self) -> None:
        """Every program has been taken off and has returned: hand over what is left, end the sink, give all back.

        Waits for the disk. Calling it again does nothing.
        """
        if self._ending.is_set():
            return
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
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
        """Hand over what is there; gives the number of packets."""
        octets, offsets = self._ring.take()
        if offsets:
            at = np.array(offsets, np.int64)
            records = gather(octets, at, RECORD_DTYPE)
            self._sink.write(PacketBatch(
                keys=np.ascontiguousarray(records["key"]), octets=octets, offset=at + RECORD_DTYPE.itemsize,
                captured=records["captured"].astype(np.int64), wire=records["wire"].astype(np.int64),
                time_ns=records["time_ns"].astype(np.int64) + (self._unix_ns() - self._clock_ns()),
                received=records["key"]["direction"] == Direction.INGRESS, interfaces=self._interfaces))
        return len(offsets)

    def _note_losses(self) -> None:
        found = {}
        for ifindex in self._interfaces:
            if bpf.map_lookup(self._maps["losses"], struct.pack("=I", ifindex), self._losses.ctypes.data):
                found[ifindex] = PacketLosses(int(self._losses["dropped"].sum()), int(self._losses["capped"].sum()))
        self._sink.note_losses(found)
