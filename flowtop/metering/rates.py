"""Rates of flows: last tick, sliding windows of 10 s and 60 s, peak. Sums are exact integers: nothing drifts.

Traffic is kept in buckets of about a second (or a tick, when ticks are longer), each a sparse list of the slots that
had any. A window's sum per flow gains what each tick brings and loses each bucket as it leaves the window: a bucket
stays while its end is younger than the window, so a window covers its length and at most one bucket more, or all the
time since capture started when that is less. Rates divide by what is covered: that is the true mean of that time, and
the rates of all flows add up to the rate of all traffic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import Slots
from flowtop.metering.store import U8, FlowStore

BUCKET_NS = 950_000_000
"""A bucket closes with the first tick that makes it this long: a little under 1 s, so that ticks of 1 s with some
jitter have a bucket each."""
WINDOW_10S_NS = 10_000_000_000
WINDOW_60S_NS = 60_000_000_000
HISTORY_NS = 120_000_000_000
"""How far back a flow's history goes; past the 60 s that windows need it is cut short before it takes more than
HISTORY_OCTETS."""
HISTORY_OCTETS = 16 << 20
LEAST_PEAK_NS = 10_000_000
"""Ticks shorter than this make no peak: a burst over next to no time says nothing."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    number: int
    start_ns: int
    end_ns: int
    slots: npt.NDArray[np.int32]
    packets: npt.NDArray[np.unsignedinteger[npt.NBitBase]]
    octets: npt.NDArray[np.unsignedinteger[npt.NBitBase]]

    @property
    def nbytes(self) -> int:
        return self.slots.nbytes + self.packets.nbytes + self.octets.nbytes


class Rates:
    """Keeps the rate fields of a FlowStore. One tick: begin, add for each part of its batches, finish.

    Args:
        store: whose fields.
        least_ns: the time that rates are of at least, > 0.
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
        """Number of the open bucket: what a new flow's born_bucket must be."""

    @property
    def nbytes(self) -> int:
        """Octets of history held, the store's fields not included."""
        open_bucket = sum(slots.nbytes for slots in self._listed)
        return self._tick.nbytes + open_bucket + sum(bucket.nbytes for bucket in self._in_60s) + self._past_octets

    @property
    def tick_s(self) -> float:
        """Length of the last tick, or what it is taken for."""
        return self._tick_ns / 1e9

    @property
    def window_10s_s(self) -> float:
        """What the 10 s sums cover."""
        return self._covered_s(self._in_10s)

    @property
    def window_60s_s(self) -> float:
        """What the 60 s sums cover."""
        return self._covered_s(self._in_60s)

    def _covered_s(self, window: deque[_Bucket]) -> float:
        start_ns = window[0].start_ns if window else self._bucket_start_ns
        return max(self._now_ns - start_ns, self._least_ns) / 1e9

    def start(self, start_ns: int) -> None:
        """Say when capture started; only the first call counts."""
        if not self._started:
            self._started = True
            self._now_ns = self._bucket_start_ns = start_ns

    def add(self, slots: Slots, packets: U8, octets: U8) -> None:
        """Traffic of the open tick, each slot at most once a call. Nothing to see before `close_tick`: so rates asked
        for in mid-tick are those of whole ticks."""
        self._store.open_packets[slots] += packets
        self._store.open_octets[slots] += octets

    def close_tick(self, now_ns: int) -> None:
        """The open tick ended at `now_ns`: its traffic becomes rates, and old traffic leaves the windows."""
        store = self._store
        self._tick_ns = max(now_ns - self._now_ns, self._least_ns)
        self._now_ns = max(now_ns, self._now_ns)
        store.packet_delta[self._tick] = 0
        store.octet_delta[self._tick] = 0
        slots = self._tick = np.flatnonzero(store.open_packets[:store.top])
        self._gain(slots)
        if self._tick_ns >= LEAST_PEAK_NS:
            rates = store.octet_delta[slots] / self.tick_s
            store.octet_rate_peak[slots] = np.maximum(store.octet_rate_peak[slots], rates)
        self._slide()

    def _gain(self, slots: Slots) -> None:
        store = self._store
        # Where most have traffic, all at once: adding nothing to the rest takes less than leaving it out.
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
        """Close the bucket when it is long enough, let old ones leave the windows."""
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
        self._listed.clear()
        bucket = _Bucket(self.bucket_number, self._bucket_start_ns, self._now_ns, slots.astype(np.int32),
                         _compact(store.bucket_packets[slots]), _compact(store.bucket_octets[slots]))
        store.bucket_packets[slots] = 0
        store.bucket_octets[slots] = 0
        store.bucket_listed[slots] = False
        self._in_10s.append(bucket)
        self._in_60s.append(bucket)
        self._bucket_start_ns = self._now_ns
        self.bucket_number += 1

    def _keep(self, bucket: _Bucket) -> None:
        """A bucket that no window needs any more is history, while there is room."""
        self._past.append(replace(bucket, packets=bucket.packets[:0]))
        self._past_octets += self._past[-1].nbytes
        while self._past and (self._past[0].end_ns <= self._now_ns - HISTORY_NS or self._past_octets > HISTORY_OCTETS):
            self._past_octets -= self._past.popleft().nbytes

    def history(self, slot: int) -> list[tuple[int, int]]:
        """What the flow in that slot sent of late: (length in ns, octets) of each bucket since it was born, and of the
        time since the last one closed, which is taken for the least length of a tick at least. The oldest first;
        HISTORY_NS at most, the windows' length at least."""
        store, found = self._store, []
        for bucket in (*self._past, *self._in_60s):
            if bucket.number >= store.born_bucket[slot]:
                at = np.flatnonzero(bucket.slots == slot)
                found.append((bucket.end_ns - bucket.start_ns, int(bucket.octets[at[0]]) if len(at) else 0))
        if self._now_ns > self._bucket_start_ns:
            length_ns = max(self._now_ns - self._bucket_start_ns, self._least_ns)
            found.append((length_ns, int(store.bucket_octets[slot])))
        return found

    def _leave(self, bucket: _Bucket, packets: U8, octets: U8) -> None:
        """Take a bucket out of the sums of the flows that were there; a slot's later flow has nothing of it."""
        slots = bucket.slots.astype(np.int64)  # numpy indexes faster by its own kind of integer
        same = self._store.born_bucket[slots] <= bucket.number
        if same.all():
            packets[slots] -= bucket.packets
            octets[slots] -= bucket.octets
        else:
            packets[slots[same]] -= bucket.packets[same]
            octets[slots[same]] -= bucket.octets[same]


def _compact(sums: U8) -> npt.NDArray[np.unsignedinteger[npt.NBitBase]]:
    """The same numbers in the narrowest type that holds them: history is the largest thing a busy table keeps."""
    return sums.astype(np.min_scalar_type(int(sums.max(initial=0))))
