"""The Flow Records of one export that are not sent yet: in memory, in the spool, in hand; every one of them counted.

Order is kept: records a broken connection may have lost come first, then the spool, then the queue.
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
            taken = parts[0] if len(parts) == 1 else joined(parts)
            self._records -= len(taken)
            self._octets -= len(taken) * taken.itemsize
            return taken

_CHUNK_RECORDS = 8_192
"""Records encoded at once: a pause, a stop and the spool are looked at between two of them."""
SPILL_S = 10.0
"""A collector that has been away for so long costs disk, not memory: what kill -9 would take is bounded."""


class Backlog:
    """Takes records from any thread, and hands them to the exporter's thread one chunk after another.

    Args:
        counters: where records are counted as they move; guarded by `lock`.
        spool: where records go that the queue should not hold while the transport is away; None: nowhere.
        bounds: of the queue.
        monotonic, wall: seconds.
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
        """Why the spool takes nothing; "" while it does."""

    # ---- any thread

    def put(self, records: FlowRecords) -> None:
        """Take records; what the queue has no room for is counted as not sent. Never waits."""
        with self.lock:
            self._give_up(records if self._closed else self._queue.put(records))

    def refuse(self, records: FlowRecords, reason: str) -> None:
        """Count records as not sent, for a reason that is not the transport's. Never waits."""
        with self.lock:
            self._counters.last_error = reason
            self._give_up(records)

    @property
    def waiting(self) -> int:
        """Flow Records in memory. The lock is held."""
        return len(self._queue) + self._counters.held

    @property
    def spools(self) -> bool:
        """There is a spool, and it takes records."""
        return self._spool is not None and not self.spool_error

    @property
    def half_full(self) -> bool:
        """Half of the queue is taken, and it is not closed."""
        return not self._closed and self._queue.half_full

    # ---- the exporter's thread

    def next(self) -> FlowRecords | None:
        """The records to be sent next, in hand until `sent` or `give_back`; None when there are none."""
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
        """What is in hand has been sent."""
        self.rested()
        with self.lock:
            self._counters.sent += self._in_hand
            self._counters.held -= self._in_hand
            self._in_hand = 0
        self._forget_replayed()

    def give_back(self, records: FlowRecords, repeated: int) -> None:
        """The transport was given up: these come first again.

        Args:
            records: what is in hand and was not sent, and what was and may not have arrived.
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
        """The transport takes what there is: nothing waits for long."""
        self._spilled_at = self._monotonic()

    def spill(self) -> None:
        """What memory should not hold goes to the spool: what is too much at once, the rest every SPILL_S.

        What the spool has no room for stays in memory, as long as that has.
        """
        if self._spool is None or self._monotonic() < self._spool_again_at:
            return
        keep, limit = len(self._queue), self._bounds.spill_records
        if keep > limit:
            keep = limit // 2  # Half of it, so that there are few large files, not many small ones.
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
        """Take nothing any more; what waits is spooled, and what does not fit there given up."""
        for records in reversed(self._returned):
            self._store(records, first=True)
        self._returned.clear()
        with self.lock:
            self._closed = True
        while (queued := self._take()) is not None:
            self._store(queued)

    def abandon(self) -> None:
        """Take nothing any more, and give up what waits in the queue: any thread, when the exporter's hangs."""
        with self.lock:
            self._closed = True
            while (records := self._queue.take(_CHUNK_RECORDS)) is not None:
                self._give_up(records)

    # ---- the rest

    def _take(self) -> FlowRecords | None:
        """The oldest records of the queue, held from now on."""
        with self.lock:
            records = self._queue.take(_CHUNK_RECORDS)
            self._counters.held += 0 if records is None else len(records)
        return records

    def _oldest_spooled(self) -> FlowRecords | None:
        """The records of the oldest file of the spool, held from now on; None when there is none."""
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
                self._count_given_up(count, 0, 0)  # What they had counted is as unreadable as they are.
            return self._oldest_spooled()
        with self.lock:  # What is in the file counts, not what its name says.
            self._counters.held += len(replay) - count
            if len(replay) < count:
                self._counters.last_error = f"a spool file was cut off: {count - len(replay)} records of it are lost"
                self._count_given_up(count - len(replay), 0, 0)
        return replay

    def _forget_replayed(self) -> None:
        """The file being replayed has been sent, or is in memory again."""
        if self._replaying and self._spool is not None:
            self._replaying = False
            self._spool.forget()

    def _spooled_again(self, records: FlowRecords) -> bool:
        """What was being replayed is on disk again before its file goes: at no moment would kill -9 take it."""
        if not self._replaying or self._spool is None or len(self._to_spool(records, first=True)):
            return False
        self._replaying = False
        self._spool.forget(1)
        return True

    def _to_spool(self, records: FlowRecords, *, first: bool = False) -> FlowRecords:
        """Records that are held go into the spool; gives those it has no room for, which are still held."""
        refused, error = (records, "") if self._spool is None else self._spool.store(records, first=first)
        self.spool_error = error
        if error:
            self._spool_again_at = self._monotonic() + SPILL_S
        with self.lock:
            self._counters.held -= len(records) - len(refused)
            self._counters.spooled += len(records) - len(refused)
        return refused

    def _store(self, records: FlowRecords, *, first: bool = False) -> None:
        """Records that are held go into the spool at the end; what does not fit is given up."""
        refused = self._to_spool(records, first=first)
        with self.lock:
            self._counters.held -= len(refused)
            self._give_up(refused)

    def _give_up(self, records: FlowRecords) -> None:
        """Count records as not sent. The lock is held."""
        if len(records):
            self._count_given_up(len(records), int(records["packet_delta"].sum()), int(records["octet_delta"].sum()))

    def _count_given_up(self, records: int, packets: int, octets: int) -> None:
        """The lock is held."""
        self._counters.given_up = self._counters.given_up.plus(records, packets, octets, int(self._wall() * 1000))

    def given_up(self) -> GivenUp:
        """What has been given up so far. Any thread."""
        with self.lock:
            return self._counters.given_up
