"""Which packets of a batch are the same at several Observation Points, from numbers and times.

Each point of a stream (a conversation in one tunnel) had a number of packets in the batch, between a first and a last
time. The points are taken in order, the head's first; each may repeat packets that count at an earlier one:

- Times that do not overlap: different packets. Times are equal if they differ by at most TOLERANCE_NS, which allows for
  forwarding and for the coarse clock; points whose first and last times are equal overlap.
- One within the other's time, or both overlap for at least half of their time: the same packets, as many as both had.
  A point that had fewer lost some; one that had more, more passed there: what exceeds counts.
- Else, a part overlaps: as many as the smaller of both parts, if packets were evenly spaced.

A batch may end while a packet is between two points, so that the first has it in this batch, and the second in the
next. So packets at the beginning of a batch are the same as what the head (or the first point in this batch) had more
than this point before, if it had its last ones at the end of the last batch; and what other points had more than the
head (`ahead`), the head may have at the beginning of the next batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import Slots
from flowtop.metering.store import I8, U8, FlowStore

TOLERANCE_NS = 10_000_000
"""A tick of the coarse clock is 10 ms at most (HZ=100), 4 ms mostly; forwarding takes less."""

Bools = npt.NDArray[np.bool_]
_POINT_BITS = 34
"""Of FlowStore.observation_points."""


class Repeats(NamedTuple):
    """Duplicates in a batch.

    Attributes:
        rows: entries with duplicates, shape (m,).
        packets, octets: how many of each are.
    """

    rows: Slots
    packets: U8
    octets: U8


class Seen(NamedTuple):
    """What was seen of a flow or a point in a batch; shape (n,), or broadcast.

    Attributes:
        packets: their number.
        first_ns, last_ns: times of the first and the last.
    """

    packets: I8
    first_ns: I8
    last_ns: I8

    def take(self, at: Slots) -> Seen:
        """The elements at these positions."""
        return Seen(self.packets[at], self.first_ns[at], self.last_ns[at])


def same_span(one: Seen, other: Seen) -> Bools:
    """Whether both began and ended at the same times."""
    same: Bools = (np.abs(one.first_ns - other.first_ns) <= TOLERANCE_NS) & (
        np.abs(one.last_ns - other.last_ns) <= TOLERANCE_NS)
    return same


def octets_of(repeated: I8, packets: I8, octets: U8) -> U8:
    """Octets of as many of the packets, if all are of equal length."""
    part = np.minimum(octets, (octets * (repeated / np.maximum(packets, 1))).astype(np.uint64))
    found: U8 = np.where(repeated == packets, octets, part)
    return found


def common(one: Seen, other: Seen) -> I8:
    """How many packets may be the same, by the rules above."""
    begin, end = np.maximum(one.first_ns, other.first_ns), np.minimum(one.last_ns, other.last_ns)
    overlap_ns = np.maximum(end - begin, 0)
    shares = [np.where(span_ns > 0, overlap_ns / np.maximum(span_ns, 1), 1.0)
              for span_ns in (one.last_ns - one.first_ns, other.last_ns - other.first_ns)]
    within = [(inner.first_ns >= outer.first_ns - TOLERANCE_NS) & (inner.last_ns <= outer.last_ns + TOLERANCE_NS)
              for inner, outer in ((one, other), (other, one))]
    whole = within[0] | within[1] | ((shares[0] >= 0.5) & (shares[1] >= 0.5))
    parts = np.minimum((one.packets * shares[0]).astype(np.int64), (other.packets * shares[1]).astype(np.int64))
    same = np.where(whole, np.minimum(one.packets, other.packets), parts)
    found: I8 = np.where((end >= begin) | same_span(one, other), same, 0)
    return found


def on_the_way(seen: Seen) -> I8:
    """How many packets can be between two points, if they were evenly spaced."""
    span_ns = np.maximum(seen.last_ns - seen.first_ns, TOLERANCE_NS)
    found: I8 = 1 + np.ceil(seen.packets * (TOLERANCE_NS / span_ns)).astype(np.int64)
    return found


def united(store: FlowStore, stream: Slots, slot: Slots, head: Slots, seen: Seen, since_ns: int) -> I8:
    """How many packets of each entry are duplicates; updates `ahead` of the heads.

    Args:
        store: the flows; the entries have been added.
        stream: number of each entry's stream, ascending; within one, entries are in the order of their points.
        slot: flow of each entry.
        head: slot of the head of its stream; -1 for a stream in another tunnel than its conversation's head.
        seen: the entries.
        since_ns: when the batch began.
    """
    points = _Points(store, stream, slot, head, seen, since_ns)
    for rank in range(points.most):
        points.settle(rank)
    points.note_ahead()
    return points.shared_out(seen.packets)


class _Points:
    """The points of all streams, in order."""

    def __init__(self, store: FlowStore, stream: Slots, slot: Slots, head: Slots, seen: Seen, since_ns: int) -> None:
        self._store = store
        code = stream << _POINT_BITS | store.observation_points(slot)
        _, first, of = np.unique(code, return_index=True, return_inverse=True)
        order = np.argsort(first)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        self._of, first = number[of.reshape(-1)], first[order]
        n = len(first)
        packets, before = np.zeros(n, np.int64), np.zeros(n, np.int64)
        np.add.at(packets, self._of, seen.packets)
        np.add.at(before, self._of, store.packet_total[slot].astype(np.int64) - seen.packets)
        first_ns, last_ns = np.full(n, np.iinfo(np.int64).max), np.zeros(n, np.int64)
        np.minimum.at(first_ns, self._of, seen.first_ns)
        np.maximum.at(last_ns, self._of, seen.last_ns)
        self._seen, self._before = Seen(packets, first_ns, last_ns), before
        self._from_start = first_ns <= since_ns + TOLERANCE_NS
        before_ns = store.before_ns[slot[first]]
        self._just_before = (before_ns == 0) | (before_ns >= since_ns - TOLERANCE_NS)
        self._head, self._leads = head[first], slot[first] == head[first]
        streams = stream[first]
        begins = np.flatnonzero(np.concatenate(([True], streams[1:] != streams[:-1])))
        self._start = np.repeat(begins, np.diff(np.append(begins, n)))
        self._rank = np.arange(n) - self._start
        self._repeated = np.zeros(n, np.int64)
        self.most = int(self._rank.max()) + 1

    def settle(self, rank: int) -> None:
        """Decide about the points of this rank; those of lower ranks are done."""
        at = np.flatnonzero(self._rank == rank)
        seen, leads = self._seen.take(at), self._leads[at]
        owed = np.minimum(np.where(leads | ~self._from_start[at], 0, self._owed(at, rank)), seen.packets)
        if not rank:
            self._repeated[at] = np.where(leads, self._late(at), owed)
            return
        # What is owed came first, so that the rest began with the first point's.
        began_ns = np.minimum(np.maximum(seen.first_ns, self._seen.first_ns[self._start[at]]), seen.last_ns)
        rest = Seen(seen.packets - owed, np.where(owed > 0, began_ns, seen.first_ns), seen.last_ns)
        earlier = self._start[at][:, None] + np.arange(rank)
        others = self._seen.take(earlier)._replace(packets=self._seen.packets[earlier] - self._repeated[earlier])
        same = common(Seen(*(values[:, None] for values in rest)), others).sum(axis=1)
        self._repeated[at] = owed + np.minimum(rest.packets, same)

    def _late(self, at: Slots) -> I8:
        """Packets of heads that other points had in an earlier batch."""
        store, head = self._store, np.maximum(self._head[at], 0)
        recent = self._from_start[at] & (self._seen.first_ns[at] <= store.ahead_ns[head] + TOLERANCE_NS)
        return np.where(recent, np.minimum(self._seen.packets[at], store.ahead[head]), 0)

    def _owed(self, at: Slots, rank: int) -> I8:
        """Packets that the head, or the first point, had more before this batch, and that may come here only now."""
        store, head = self._store, np.maximum(self._head[at], 0)
        seen, before, lead = self._seen.take(at), self._before[at], self._start[at]
        absent = (self._head[at] >= 0) & ~self._leads[lead] & (seen.first_ns <= store.last_ns[head] + TOLERANCE_NS)
        before_it = np.where(absent, store.packet_total[head].astype(np.int64) - before, 0)
        few = np.where(seen.last_ns <= store.last_ns[head] + TOLERANCE_NS, seen.packets, on_the_way(seen))
        owed = np.minimum(before_it, few)
        if rank:
            along = (seen.last_ns <= self._seen.last_ns[lead] + TOLERANCE_NS) & self._just_before[lead]
            owed = np.maximum(owed, np.where(along, self._before[lead] - before, 0))
        return np.maximum(owed, 0)

    def note_ahead(self) -> None:
        """Note at each head how many packets it has not had yet."""
        store = self._store
        first = np.flatnonzero((self._head >= 0) & (self._rank == 0))
        head, leads = self._head[first], self._leads[first]
        store.ahead[head] -= np.where(leads, self._repeated[first], 0).astype(np.uint32)
        recent = self._from_start[first] & (self._seen.first_ns[first] <= store.ahead_ns[head] + TOLERANCE_NS)
        store.ahead[head[~recent]] = 0
        others = np.flatnonzero((self._head >= 0) & ~self._leads)
        new = np.minimum(self._seen.packets - self._repeated, on_the_way(self._seen))[others]
        np.add.at(store.ahead, self._head[others], new.astype(np.uint32))
        np.maximum.at(store.ahead_ns, self._head[others], self._seen.last_ns[others])

    def shared_out(self, packets: I8) -> I8:
        """The duplicates of points as those of their entries, the first ones first."""
        order = np.argsort(self._of, kind="stable")
        of = self._of[order]
        begins = np.flatnonzero(np.concatenate(([True], of[1:] != of[:-1])))
        before = np.cumsum(packets[order]) - packets[order]
        before -= np.repeat(before[begins], np.diff(np.append(begins, len(of))))
        shares = np.empty(len(packets), np.int64)
        shares[order] = np.clip(self._repeated[of] - before, 0, packets[order])
        return shares
