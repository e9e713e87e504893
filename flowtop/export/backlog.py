"""The unsent Flow Records of one export: in the queue, in the spool, or being sent; each of them is counted.

Order is kept: first records that a broken connection may have lost, then the spool, then the queue.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from flowtop.errors import FlowtopError
from flowtop.export.context import in_words
from flowtop.export.spool import Spool
from flowtop.export.statistics import Counters, GivenUp
from flowtop.model.record import FlowRecords, joined


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """Limits of a queue; the defaults hold a full flow table of default size at exit.

    Attributes:
        records: Flow Records.
        octets: memory.
        spill_records: while the collector is away, more records than this go to the spool.
    """

    records: int = 2_000_000
    octets: int = 384 * 1024 * 1024
    spill_records: int = 50_000


class RecordQueue:
    """Flow Records in order, with limits. Thread-safe.

    Args:
        bounds: records beyond these limits are refused, the newest first.
    """

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._parts: deque[FlowRecords] = deque()
        self._records = 0
        self._octets = 0

    def __len__(self) -> int:
        """Number of waiting Flow Records."""
        return self._records

    @property
    def half_full(self) -> bool:
        """Whether more than half of a limit is used."""
        return self._records * 2 > self._bounds.records or self._octets * 2 > self._bounds.octets

    def put(self, records: FlowRecords) -> FlowRecords:
        """Add records; returns those refused. Waits only for the lock of another put or take."""
        with self._lock:
            size = records.itemsize
            room = max(0, min(self._bounds.records - self._records, (self._bounds.octets - self._octets) // size))
            taken, refused = records[:room], records[room:]
            if len(taken):
                # A slice keeps the whole array in memory: copy it if it is not all of it.
                self._parts.append(taken.copy() if len(refused) else taken)
                self._records += len(taken)
                self._octets += len(taken) * size
        return refused

    def put_back(self, records: FlowRecords) -> None:
        """Put records that were just taken back to the front, regardless of the limits."""
        with self._lock:
            self._parts.appendleft(records)
            self._records += len(records)
            self._octets += len(records) * records.itemsize

    def take(self, limit: int) -> FlowRecords | None:
        """Remove and return the oldest records, at most `limit`; None if there are none."""
        with self._lock:
            if not self._parts:
                return None
            parts: list[FlowRecords] = []
            while self._parts and limit:
                part = self._parts.popleft()
                if len(part) > limit:
                    if parts:  # a part is split at even places only: biflows stay together
                        self._parts.appendleft(part)
                        break
                    self._parts.appendleft(part[limit:])
                    part = part[:limit]
                limit -= len(part)
                parts.append(part)
            taken = parts[0] if len(parts) == 1 else joined(parts)
            self._records -= len(taken)
            self._octets -= len(taken) * taken.itemsize
            return taken


_CHUNK_RECORDS = 8_192
"""Records encoded at once; pause, stop and the spool are checked in between."""
SPILL_S = 10.0
"""When a collector has been away for this long, records go to disk, which limits what kill -9 would lose."""


class Backlog:
    """Takes records from any thread, and gives them to the exporter's thread in chunks.

    Args:
        counters: counters of records; protected by `lock`.
        spool: for records that should not wait in memory while the transport is away; None: no spool.
        bounds: limits of the queue.
        monotonic, wall: clocks, in seconds.
    """

    def __init__(self, counters: Counters, spool: Spool | None, bounds: QueueBounds,
                 monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self.lock = threading.Lock()
        self._counters = counters
        self._spool = spool
        self._bounds = bounds
        self._monotonic = monotonic
        self._wall = wall
        self._queue = RecordQueue(bounds)
        self._returned: list[FlowRecords] = []
        self._in_hand = 0
        self._replaying = False
        self._spilled_at = monotonic()
        self._spool_again_at = 0.0
        self._closed = False
        self.spool_error = ""
        """Why the spool cannot store records; "" if it can."""

    # ---- any thread

    def put(self, records: FlowRecords) -> None:
        """Add records; those that do not fit are counted as not sent. Does not block."""
        with self.lock:
            self._give_up(records if self._closed else self._queue.put(records))

    def refuse(self, records: FlowRecords, reason: str) -> None:
        """Count records as not sent, for a reason other than the transport. Does not block."""
        with self.lock:
            self._counters.last_error = reason
            self._give_up(records)

    @property
    def waiting(self) -> int:
        """Number of Flow Records in memory. The lock must be held."""
        return len(self._queue) + self._counters.held

    @property
    def spools(self) -> bool:
        """Whether there is a working spool."""
        return self._spool is not None and not self.spool_error

    @property
    def half_full(self) -> bool:
        """Whether the queue is half full and not closed."""
        return not self._closed and self._queue.half_full

    # ---- the exporter's thread

    def next(self) -> FlowRecords | None:
        """The records to send next, until `sent` or `give_back` is called; None if there are none."""
        if self._returned:
            records: FlowRecords | None = self._returned.pop(0)
        else:
            while (records := self._oldest_spooled()) is not None and not len(records):
                self._forget_replayed()
            if records is None:
                records = self._take()
        self._in_hand = 0 if records is None else len(records)
        return records

    def sent(self) -> None:
        """The current records have been sent."""
        self.rested()
        with self.lock:
            self._counters.sent += self._in_hand
            self._counters.held -= self._in_hand
            self._in_hand = 0
        self._forget_replayed()

    def give_back(self, records: FlowRecords, repeated: int) -> None:
        """The transport was closed: put these records back to the front.

        Args:
            records: the current records that were not sent, and sent ones that may not have arrived.
            repeated: how many of them may arrive twice.
        """
        with self.lock:
            self._counters.sent -= len(records) - self._in_hand
            self._counters.held += len(records) - self._in_hand
            self._counters.repeated += repeated
            self._in_hand = 0
        if len(records) and not self._spooled_again(records):
            self._returned.insert(0, records)
        self._forget_replayed()

    def rested(self) -> None:
        """Note that no records wait for long, as the transport takes them."""
        self._spilled_at = self._monotonic()

    def spill(self) -> None:
        """Move records from memory to the spool: those beyond the limit at once, the others every SPILL_S.

        Records that do not fit in the spool remain in memory, up to its limits.
        """
        if self._spool is None or self._monotonic() < self._spool_again_at:
            return
        keep, limit = len(self._queue), self._bounds.spill_records
        if keep > limit:
            keep = limit // 2  # Half of it, to write few large files instead of many small ones.
        if self._monotonic() - self._spilled_at >= SPILL_S:
            keep = 0
            self.rested()
            while self._returned and not len(refused := self._to_spool(self._returned[-1], first=True)):
                self._returned.pop()
            if self._returned:
                self._returned[-1] = refused
                return
        while len(self._queue) > keep and (records := self._take()) is not None:
            refused = self._to_spool(records)
            if len(refused):
                with self.lock:
                    self._queue.put_back(refused)
                    self._counters.held -= len(refused)
                return

    def close(self) -> None:
        """Stop taking records; spool waiting ones, and give up those that do not fit."""
        for records in reversed(self._returned):
            self._store(records, first=True)
        self._returned.clear()
        with self.lock:
            self._closed = True
        while (queued := self._take()) is not None:
            self._store(queued)

    def abandon(self) -> None:
        """Stop taking records, and give up those in the queue. For any thread, if the exporter's thread hangs."""
        with self.lock:
            self._closed = True
            while (records := self._queue.take(_CHUNK_RECORDS)) is not None:
                self._give_up(records)

    # ---- the rest

    def _take(self) -> FlowRecords | None:
        """Take the oldest records from the queue; they count as held."""
        with self.lock:
            records = self._queue.take(_CHUNK_RECORDS)
            self._counters.held += 0 if records is None else len(records)
        return records

    def _oldest_spooled(self) -> FlowRecords | None:
        """The records of the spool's oldest file, which count as held; None if there is none."""
        spool = self._spool
        if spool is None or not spool.records:
            return None
        self._replaying = True
        count = spool.oldest_records
        with self.lock:
            self._counters.spooled -= count
            self._counters.held += count
        try:
            replay = spool.oldest()
        except FlowtopError as error:
            self._counters.last_error = in_words(error)
            self._forget_replayed()
            with self.lock:
                self._counters.held -= count
                self._count_given_up(count, 0, 0)  # Their packets and octets cannot be read either.
            return self._oldest_spooled()
        sent_before = spool.begin()
        with self.lock:  # The content counts, not the number in the file name.
            self._counters.repeated += min(sent_before, len(replay))
            self._counters.held += len(replay) - count
            if len(replay) < count:
                self._counters.last_error = f"a spool file was truncated: {count - len(replay)} of its records are lost"
                self._count_given_up(count - len(replay), 0, 0)
        return replay

    def _forget_replayed(self) -> None:
        """Delete the file being replayed: it was sent, or is in memory again."""
        if self._replaying and self._spool is not None:
            self._replaying = False
            self._spool.forget()

    def _spooled_again(self, records: FlowRecords) -> bool:
        """Spool the replayed records again before their file is deleted, so that kill -9 cannot lose them."""
        if not self._replaying or self._spool is None or len(self._to_spool(records, first=True)):
            return False
        self._replaying = False
        self._spool.forget(1)
        return True

    def _to_spool(self, records: FlowRecords, *, first: bool = False) -> FlowRecords:
        """Move held records to the spool; returns those that did not fit, which remain held."""
        refused, error = (records, "") if self._spool is None else self._spool.store(records, first=first)
        self.spool_error = error
        if error:
            self._spool_again_at = self._monotonic() + SPILL_S
        with self.lock:
            self._counters.held -= len(records) - len(refused)
            self._counters.spooled += len(records) - len(refused)
        return refused

    def _store(self, records: FlowRecords, *, first: bool = False) -> None:
        """Move held records to the spool at the end; those that do not fit are given up."""
        refused = self._to_spool(records, first=first)
        with self.lock:
            self._counters.held -= len(refused)
            self._give_up(refused)

    def _give_up(self, records: FlowRecords) -> None:
        """Count records as not sent. The lock must be held."""
        if len(records):
            self._count_given_up(len(records), int(records["packet_delta"].sum()), int(records["octet_delta"].sum()))

    def _count_given_up(self, records: int, packets: int, octets: int) -> None:
        """Count records as not sent. The lock must be held."""
        self._counters.given_up = self._counters.given_up.plus(records, packets, octets, int(self._wall() * 1000))

    def given_up(self) -> GivenUp:
        """Totals of records given up. Thread-safe."""
        with self.lock:
            return self._counters.given_up
