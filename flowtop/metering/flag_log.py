"""When TCP control bits were first seen, of the flows in which that happened last: kept for all, as nobody knows which
flow will be looked at."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from flowtop.metering.store import U8

EVENTS = 262_144
"""Remembered at most, some 10 octets each; a TCP flow has three to five of them."""


class FlagLog:
    """The last times that flows showed bits they had not shown before.

    Args:
        events: remembered at most; the oldest go first.
    """

    def __init__(self, events: int = EVENTS) -> None:
        self._most = events
        self._count = 0
        self._events: deque[tuple[int, U8, npt.NDArray[np.uint16]]] = deque()

    @property
    def nbytes(self) -> int:
        """Octets of memory held."""
        return sum(ids.nbytes + bits.nbytes for _, ids, bits in self._events)

    def add(self, now_ns: int, flow_ids: U8, bits: npt.NDArray[np.uint16]) -> None:
        """These flows have shown these bits by now, and had not before. Bits of more flows than `events` are forgotten
        at once."""
        if not len(flow_ids):
            return
        self._events.append((now_ns, flow_ids, bits))
        self._count += len(flow_ids)
        while self._count > self._most:
            self._count -= len(self._events.popleft()[1])

    def of(self, flow_id: int) -> list[tuple[int, int]]:
        """Of a flow: (time in ns by which they had been seen, bits), the oldest first."""
        wanted = np.uint64(flow_id)
        return [(at_ns, int(np.bitwise_or.reduce(bits[ids == wanted])))
                for at_ns, ids, bits in self._events if (ids == wanted).any()]
