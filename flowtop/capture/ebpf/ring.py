"""The ring buffer of bpf/packets.bpf.c, read in place: records up to the first that is still being written.

The layout is that of the kernel's ring buffer map (Documentation/bpf/ringbuf.rst): a page with the reader's position, a
page with the writers', then the records, mapped twice in a row so that none is ever in two parts.
"""

from __future__ import annotations

import mmap
import struct
import threading

import numpy as np
import numpy.typing as npt

from flowtop.record import FLOW_KEY_DTYPE

RECORD_DTYPE = np.dtype([("key", FLOW_KEY_DTYPE), ("time_ns", "u8"), ("wire", "u4"), ("captured", "u4")])
"""struct packet_record of bpf/packets.h; the frame follows."""
LOSSES_DTYPE = np.dtype([("dropped", "u8"), ("capped", "u8")])
"""struct packet_losses."""

_HEADER = struct.Struct("=II")
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_LENGTH = _DISCARDED - 1
_MOST_RECORDS = 65_536
"""Taken at once."""


class Ring:
    """Reads the ring buffer. One thread.

    Args:
        map_fd: of a BPF_MAP_TYPE_RINGBUF; not needed any more afterwards.
        size: its octets.
    """

    def __init__(self, map_fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._reader = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._writers = mmap.mmap(map_fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumed = np.frombuffer(self._reader, "u8", 1)
        self._produced = np.frombuffer(self._writers, "u8", 1)
        self._octets = np.frombuffer(self._writers, np.uint8, 2 * size, page)
        self._fence = threading.Lock()

    def take(self) -> tuple[npt.NDArray[np.uint8], list[int]]:
        """Complete records, copied and taken out: their octets, and the offsets of each struct packet_record in them.

        Empty when there is none.
        """
        consumed = int(self._consumed[0])
        start = consumed & (self._size - 1)
        with self._fence:  # an atomic operation: what was written before the position is seen after it
            end = start + int(self._produced[0]) - consumed
        offsets, stop = self._walk(start, end)
        octets = self._octets[start:stop].copy()
        with self._fence:
            self._consumed[0] = consumed + stop - start
        return octets, offsets

    def _walk(self, start: int, end: int) -> tuple[list[int], int]:
        header, view = _HEADER.unpack_from, memoryview(self._octets.data)
        offsets: list[int] = []
        at = start
        while at < end and len(offsets) < _MOST_RECORDS:
            length, _ = header(view, at)
            if length & _BUSY:
                break
            if not length & _DISCARDED:
                offsets.append(at - start + _HEADER.size)
            at += _HEADER.size + (length & _LENGTH) + -(length & _LENGTH) % 8
        return offsets, at

    def close(self) -> None:
        """Unmap it."""
        del self._consumed, self._produced, self._octets
        self._reader.close()
        self._writers.close()
