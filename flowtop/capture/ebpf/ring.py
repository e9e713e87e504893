"""The kernel's ring buffer (BPF_MAP_TYPE_RINGBUF), read by mapping it into memory."""

from __future__ import annotations

import mmap
import struct
import threading

import numpy as np
import numpy.typing as npt

ONE_PAGE = 4096
"""Octets of the smallest ring buffer, which only wakes its reader."""
_HEADER = struct.Struct("=II")
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_LENGTH = _DISCARDED - 1
_MOST_RECORDS = 65_536
"""Limit of records per read."""


class Ring:
    """Reader of the ring buffer. Not thread-safe.

    Args:
        map_fd: of a BPF_MAP_TYPE_RINGBUF; may be closed afterwards.
        size: of the ring buffer, in octets.
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

    @property
    def empty(self) -> bool:
        """Whether nothing was written since the last `take` of all that there was."""
        return bool(self._produced[0] == self._consumed[0])

    def take(self, most: int = _MOST_RECORDS) -> tuple[npt.NDArray[np.uint8], list[int]]:
        """Copy complete records, at most so many, and remove them from the ring.

        Returns their octets, and the offset of each record in them; empty if there is none.
        """
        consumed = int(self._consumed[0])
        start = consumed & (self._size - 1)
        with self._fence:  # a memory barrier: data written before the position is visible after it
            end = start + int(self._produced[0]) - consumed
        offsets, stop = self._walk(start, end, most)
        octets = self._octets[start:stop].copy()
        with self._fence:
            self._consumed[0] = consumed + stop - start
        return octets, offsets

    def _walk(self, start: int, end: int, most: int) -> tuple[list[int], int]:
        header, view = _HEADER.unpack_from, memoryview(self._octets.data)
        offsets: list[int] = []
        at = start
        while at < end and len(offsets) < most:
            length, _ = header(view, at)
            if length & _BUSY:
                break
            if not length & _DISCARDED:
                offsets.append(at - start + _HEADER.size)
            at += _HEADER.size + (length & _LENGTH) + -(length & _LENGTH) % 8
        return offsets, at

    def close(self) -> None:
        """Unmap the ring buffer."""
        del self._consumed, self._produced, self._octets
        self._reader.close()
        self._writers.close()
