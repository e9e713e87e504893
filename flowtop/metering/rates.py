"""Rates of flows: last tick, sliding windows of 10 s and 60 s, peak. Sums are exact integers and do not drift.

Traffic is kept in buckets of about a second (or a tick, if ticks are longer), each a sparse list of slots with traffic.
A window's sum per flow increases with each tick and decreases when a bucket leaves the window: a bucket remains while
its end is younger than the window. So a window covers its length and at most one more bucket, or the time since capture
started if that is shorter. Rates divide by the covered time, so they are true means, and the rates of all flows add up
to the rate of all traffic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import Slots
from flowtop.metering.store import U8, FlowStore
from flowtop.native.rates import close_tick

BUCKET_NS = 950_000_000
"""A bucket closes with the first tick that makes it this long: slightly less than 1 s, so that ticks of 1 s with some
jitter have one bucket each."""
WINDOW_10S_NS = 10_000_000_000
WINDOW_60S_NS = 60_000_000_000
HISTORY_NS = 120_000_000_000
"""Length of a flow's history. Beyond the 60 s of the windows, it is shortened to stay within HISTORY_OCTETS."""
HISTORY_OCTETS = 16 << 20
LEAST_PEAK_NS = 10_000_000
"""Shorter ticks set no peak: a burst within a very short time is no meaningful rate."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    number: int
    start_ns: int
    end_ns: int
    slots: npt.NDArray[np.int32]
    packets: npt.NDArray[np.unsignedinteger[npt.NBitBase]]
    octets: npt.NDArray[np.unsignedinteger[npt.NBitBase]]
    ascending: bool = False
    """Slots are, as those of one tick."""

    @property
    def nbytes(self) -> int:
        return self.slots.nbytes + self.packets.nbytes + self.octets.nbytes


class Rates:
    """Maintains the rate fields of a FlowStore. Per tick: `add` for each part of its batches, then `close_tick`.

    Args:
        store: the store.
        least_ns: minimum time for rates, > 0.
    """

    def __init__(self, store: FlowStore, least_ns: int) -> None:
        self._store = store
        self._least_ns = least_ns
        self._in_10s: deque[_Bucket] = deque()
        self._in_60s: deque[_Bucket] = deque()
        self._past: deque[_Bucket] = deque()
        self._past_octets = 0
        self._tick: Slots = np.empty(0, np.int64)
        self._listed: list[Slots] = []
        self._bucket_start_ns = 0
        self._now_ns = 0
        self._tick_ns = self._least_ns
        self._started = False
        self.bucket_number = 0
        """Number of the open bucket, for born_bucket of new flows."""

    @property
    def nbytes(self) -> int:
        """Octets of history, without the store's fields."""
        open_bucket = sum(slots.nbytes for slots in self._listed)
        return self._tick.nbytes + open_bucket + sum(bucket.nbytes for bucket in self._in_60s) + self._past_octets

    @property
    def tick_s(self) -> float:
        """Length of the last tick in s, at least the minimum."""
        return self._tick_ns / 1e9

    @property
    def window_10s_s(self) -> float:
        """Time covered by the 10 s sums, in s."""
        return self._covered_s(self._in_10s)

    @property
    def window_60s_s(self) -> float:
        """Time covered by the 60 s sums, in s."""
        return self._covered_s(self._in_60s)

    def _covered_s(self, window: deque[_Bucket]) -> float:
        start_ns = window[0].start_ns if window else self._bucket_start_ns
        return max(self._now_ns - start_ns, self._least_ns) / 1e9

    def start(self, start_ns: int) -> None:
        """Set the start time of capture; only the first call counts."""
        if not self._started:
            self._started = True
            self._now_ns = self._bucket_start_ns = start_ns

    def add(self, slots: Slots, packets: U8, octets: U8) -> None:
        """Add traffic of the open tick, each slot at most once per call.

        It is not visible before `close_tick`, so rates within a tick are those of complete ticks.
        """
        self._store.open_packets[slots] += packets
        self._store.open_octets[slots] += octets

    def close_tick(self, now_ns: int) -> None:
        """End the open tick at `now_ns`: compute rates, and remove old traffic from the windows."""
        store = self._store
        self._tick_ns = max(now_ns - self._now_ns, self._least_ns)
        self._now_ns = max(now_ns, self._now_ns)
        peaks = self._tick_ns >= LEAST_PEAK_NS
        if store.native is not None:
            self._tick, unlisted = close_tick(store.native, store, self._tick, self.tick_s if peaks else 0)
            self._listed.append(unlisted)
            self._slide()
            return
        store.packet_delta[self._tick] = 0
        store.octet_delta[self._tick] = 0
        # Exporters may report octets only (NSEL), or packets only.
        slots = self._tick = np.flatnonzero(store.open_packets[:store.top] | store.open_octets[:store.top])
        self._gain(slots)
        if peaks:
            rates = store.octet_delta[slots] / self.tick_s
            store.octet_rate_peak[slots] = np.maximum(store.octet_rate_peak[slots], rates)
        self._slide()

    def _gain(self, slots: Slots) -> None:
        store = self._store
        # If most slots have traffic, process all: adding 0 to the others is faster than skipping them.
        some: Slots | slice = slice(store.top) if 2 * len(slots) > store.top else slots
        packets, octets = store.open_packets[some], store.open_octets[some]
        for sums in (store.packet_delta, store.packets_10s, store.packets_60s, store.bucket_packets):
            sums[some] += packets
        for sums in (store.octet_delta, store.octets_10s, store.octets_60s, store.bucket_octets):
            sums[some] += octets
        store.open_packets[some] = 0
        store.open_octets[some] = 0
        unlisted = slots[~store.bucket_listed[slots]]
        store.bucket_listed[unlisted] = True
        self._listed.append(unlisted)

    def _slide(self) -> None:
        """Close the bucket if it is long enough, and remove old ones from the windows."""
        if self._now_ns - self._bucket_start_ns >= BUCKET_NS:
            self._close_bucket()
        store = self._store
        while self._in_10s and self._in_10s[0].end_ns <= self._now_ns - WINDOW_10S_NS:
            self._leave(self._in_10s.popleft(), store.packets_10s, store.octets_10s)
        while self._in_60s and self._in_60s[0].end_ns <= self._now_ns - WINDOW_60S_NS:
            bucket = self._in_60s.popleft()
            self._leave(bucket, store.packets_60s, store.octets_60s)
            self._keep(bucket)

    def _close_bucket(self) -> None:
        store = self._store
        slots = np.concatenate(self._listed) if self._listed else np.empty(0, np.int64)
        bucket = _Bucket(self.bucket_number, self._bucket_start_ns, self._now_ns, slots.astype(np.int32),
                         _compact(store.bucket_packets[slots]), _compact(store.bucket_octets[slots]),
                         sum(map(bool, map(len, self._listed))) <= 1)
        store.bucket_packets[slots] = 0
        store.bucket_octets[slots] = 0
        store.bucket_listed[slots] = False
        self._listed.clear()
        self._in_10s.append(bucket)
        self._in_60s.append(bucket)
        self._bucket_start_ns = self._now_ns
        self.bucket_number += 1

    def _keep(self, bucket: _Bucket) -> None:
        """Move a bucket that left the windows to the history, within its limit."""
        self._past.append(replace(bucket, packets=bucket.packets[:0]))
        self._past_octets += self._past[-1].nbytes
        while self._past and (self._past[0].end_ns <= self._now_ns - HISTORY_NS or self._past_octets > HISTORY_OCTETS):
            self._past_octets -= self._past.popleft().nbytes

    def history(self, slot: int) -> list[tuple[int, int]]:
        """Traffic of the flow in a slot, oldest first: (length in ns, octets) per bucket.

        It begins with the flow, and covers at most HISTORY_NS, but at least the windows' length. The last item is the
        time since the last bucket, at least the minimum for rates.
        """
        return [(length_ns, octets) for length_ns, [octets] in self.histories((np.array([slot]),))]

    def histories(self, groups: Sequence[Slots]) -> list[tuple[int, list[int]]]:
        """Traffic of groups of flows, of each group together: (length in ns, octets of each) per bucket, as `history`;
        it begins with the first flow of them all.

        Args:
            groups: slots; none in two groups.
        """
        store, buckets = self._store, list[tuple[int, list[int]]]()
        if not sum(map(len, groups)):
            return []
        members = _Members(groups, store.born_bucket)
        for bucket in (*self._past, *self._in_60s):
            if bucket.number >= members.first:
                buckets.append((bucket.end_ns - bucket.start_ns, [
                    int(bucket.octets.take(at, mode="clip").sum(dtype=np.uint64)) for at in members.places(bucket)]))
        if self._now_ns > self._bucket_start_ns:
            length_ns = max(self._now_ns - self._bucket_start_ns, self._least_ns)
            buckets.append((length_ns, [int(store.bucket_octets[slots].sum()) for slots in groups]))
        return buckets

    def _leave(self, bucket: _Bucket, packets: U8, octets: U8) -> None:
        """Subtract a bucket from the sums of flows that existed then; a later flow in the slot is unaffected."""
        slots = bucket.slots.astype(np.int64)  # numpy indexes faster with its own integer type
        same = self._store.born_bucket[slots] <= bucket.number
        if same.all():
            packets[slots] -= bucket.packets
            octets[slots] -= bucket.octets
        else:
            packets[slots[same]] -= bucket.packets[same]
            octets[slots[same]] -= bucket.octets[same]


class _Members:
    """Finds groups of flows in one bucket after another, in order of their numbers.

    Args:
        groups: their slots; none in two groups.
        born_bucket: of each slot.

    Attributes:
        first: number of the first bucket that has traffic of one of them.
    """

    def __init__(self, groups: Sequence[Slots], born_bucket: npt.NDArray[np.int32]) -> None:
        self._groups = groups
        self._slots = np.concatenate(groups)
        self._born = born_bucket[self._slots]
        self._ends = np.cumsum([len(slots) for slots in groups])
        self._codes = np.repeat(np.arange(len(groups), dtype=np.uint8), [len(slots) for slots in groups])
        self.first, self._last = int(self._born.min()), int(self._born.max())
        self._group_of: npt.NDArray[np.uint8] | None = None  # by slot, of flows that are born; small groups need none
        self._size = len(born_bucket)
        self._joined = self.first - 1
        self._among: npt.NDArray[np.int32] | None = None
        self._places: list[Slots] = []

    def places(self, bucket: _Bucket) -> list[Slots]:
        """Where each group's flows are in the bucket."""
        few = len(self._slots) * 8 < len(bucket.slots)
        return self._by_search(bucket) if few and bucket.ascending else self._by_slot(bucket)

    def _by_search(self, bucket: _Bucket) -> list[Slots]:
        there = np.minimum(np.searchsorted(bucket.slots, self._slots.astype(np.int32)), len(bucket.slots) - 1)
        found = (bucket.slots[there] == self._slots) & (self._born <= bucket.number)
        bounds = zip((0, *self._ends), self._ends, strict=False)
        return [there[start:end][found[start:end]] for start, end in bounds]

    def _by_slot(self, bucket: _Bucket) -> list[Slots]:
        same = self._among is not None and np.array_equal(self._among, bucket.slots)  # many flows talk all the time
        if self._joined < self._last:
            born = (self._born > self._joined) & (self._born <= bucket.number)
            self._joined = bucket.number
            same = same and not born.any()
            self._put(born)
        if not same:
            assert self._group_of is not None
            of = self._group_of.take(bucket.slots, mode="clip")
            self._among, self._places = bucket.slots, [np.flatnonzero(of == code) for code in range(len(self._groups))]
        return self._places

    def _put(self, born: npt.NDArray[np.bool_]) -> None:
        if self._group_of is None:
            self._group_of = np.full(self._size, len(self._groups), np.uint8)
        self._group_of[self._slots[born]] = self._codes[born]


def _compact(sums: U8) -> npt.NDArray[np.unsignedinteger[npt.NBitBase]]:
    """The numbers in the narrowest type that holds them: history is the largest part of a busy table."""
    return sums.astype(np.min_scalar_type(int(sums.max(initial=0))))
