"""Names in packets of this host: reads what the kernel program copied (bpf/names.h). Not thread-safe."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import numpy as np

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import NAMES_OCTETS, FlowProgram
from flowtop.capture.ebpf.loader import NAME_PROGRAM
from flowtop.capture.ebpf.ring import Ring
from flowtop.model.names_seen import NameStatistics
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.names_seen.book import AreLocal, NameBook
from flowtop.names_seen.reader import NameReader

RECORD_DTYPE = np.dtype([("key", FLOW_KEY_DTYPE), ("time_ns", "u8"), ("octets", "u4"), ("captured", "u4"),
                         ("segment", "u4"), ("pad", "u4")])
"""struct name_record; the payload follows it."""

_AFTER_KEY = struct.Struct("=QIII4x")
_ZERO = struct.pack("=I", 0)
_SHARE = 0.2
"""Of one CPU that reading names may take. What comes beyond it stays in the ring buffer, which drops more, counted."""
_SAVED_S = 0.5
"""CPU time that may be saved up for a burst, and for importing the parsers."""
_AT_ONCE = 64
"""Packets that are read between two looks at the time."""


class SeenNames:
    """Reads the ring buffer of a loaded program, which is switched on by this.

    Args:
        program: with NAME_PROGRAM; or with the reason why without.
        are_local: which addresses are this host's.
        clock: seconds, monotonic.
        cpu: seconds of CPU that the calling thread took.

    Attributes:
        book: what was read.
    """

    def __init__(self, program: FlowProgram, are_local: AreLocal, *, clock: Callable[[], float] = time.monotonic,
                 cpu: Callable[[], float] = time.thread_time) -> None:
        self.book = NameBook(are_local)
        self._reader = NameReader(self.book)
        self._clock, self._cpu = clock, cpu
        self._refused = program.names_refused
        self._saved_s, self._saved_at = _SAVED_S, clock()
        self._lost = np.zeros(1, np.uint64)
        self._ring: Ring | None = None
        if self._refused:
            return
        self._lost_fd = program.maps["names_lost"]
        self._ring = Ring(program.maps["names"], NAMES_OCTETS)
        bpf.map_update(program.maps["names_programs"], _ZERO, struct.pack("=I", program.programs[NAME_PROGRAM]))

    @property
    def statistics(self) -> NameStatistics:
        """What was seen so far; valid until the program is closed."""
        if not self._refused:
            bpf.map_lookup(self._lost_fd, _ZERO, self._lost.ctypes.data)
        return self._reader.statistics(refused=self._refused, dropped=int(self._lost[0]))

    @property
    def behind(self) -> bool:
        """Whether packets wait to be read, as a `take` had no time left."""
        return self._ring is not None and self._saved_s <= 0 and not self._ring.empty

    def take(self) -> None:
        """Read what has come, as far as the time for it allows."""
        if self._ring is None or self._ring.empty:
            return
        now = self._clock()
        self._saved_s = min(self._saved_s + (now - self._saved_at) * _SHARE, _SAVED_S)
        self._saved_at = now
        began = self._cpu()
        while (spent_s := self._cpu() - began) < self._saved_s:
            taken, offsets = self._ring.take(_AT_ONCE)
            if not offsets:
                break
            octets = taken.tobytes()
            for at in offsets:
                self._read(octets, at)
        self._saved_s -= spent_s

    def _read(self, octets: bytes, at: int) -> None:
        behind_key = at + FLOW_KEY_DTYPE.itemsize
        time_ns, length, captured, segment = _AFTER_KEY.unpack_from(octets, behind_key)
        payload = at + RECORD_DTYPE.itemsize
        self._reader.read(octets[at:behind_key], time_ns, octets[payload:payload + captured], length, segment)

    def close(self) -> None:
        """Unmap the ring buffer."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
