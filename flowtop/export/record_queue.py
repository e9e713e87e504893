"""The bounded queue between the metering thread and an exporter's thread: putting never waits."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from flowtop.record import FlowRecords


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What a queue may hold; the defaults hold a whole default flow table at exit.

    Attributes:
        records: Flow Records.
        octets: of memory.
        spill_records: what is more than this goes to the spool while the collector is away.
    """

    records: int = 2_000_000
    octets: int = 384 * 1024 * 1024
    spill_records: int = 50_000


class RecordQueue:
    """Flow Records in order, bounded. Any thread.

    Args:
        bounds: past them records are refused, the newest first.
    """

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._parts: deque[FlowRecords] = deque()
        self._records = 0
        self._octets = 0

    def __len__(self) -> int:
        """Flow Records waiting."""
        return self._records

    @property
    def half_full(self) -> bool:
        """Whether more than half of its bounds is taken."""
        return self._records * 2 > self._bounds.records or self._octets * 2 > self._bounds.octets

    def put(self, records: FlowRecords) -> FlowRecords:
        """Take records; gives those refused. Never waits for more than the lock of another put or take."""
        with self._lock:
            size = records.itemsize
            room = max(0, min(self._bounds.records - self._records, (self._bounds.octets - self._octets) // size))
            taken, refused = records[:room], records[room:]
            if len(taken):
                # A part of an array keeps all of it alive: copy what is much less than the whole.
                self._parts.append(taken.copy() if len(refused) else taken)
                self._records += len(taken)
                self._octets += len(taken) * size
        return refused

    def put_back(self, records: FlowRecords) -> None:
        """What was taken last comes first again; whatever the bounds, as it had its room a moment ago."""
        with self._lock:
            self._parts.appendleft(records)
            self._records += len(records)
            self._octets += len(records) * records.itemsize

    def take(self, limit: int) -> FlowRecords | None:
        """The oldest records, `limit` of them at most; None when there are none."""
        with self._lock:
            if not self._parts:
                return None
            parts: list[FlowRecords] = []
            while self._parts and limit:
                part = self._parts.popleft()
                if len(part) > limit:
                    self._parts.appendleft(part[limit:])
                    part = part[:limit]
                limit -= len(part)
                parts.append(part)
            taken = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._records -= len(taken)
            self._octets -= len(taken) * taken.itemsize
            return taken
