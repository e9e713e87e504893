"""What captured TCP segments and local sockets say → the TCP columns: retransmissions, reordering, round trips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import KeyIndex, Slots, as_words
from flowtop.metering.store import I8, FlowStore
from flowtop.model.kinds import Direction, Kind

REORDERING_NS = 3_000_000
LONGEST_NS = 1_000_000_000
"""However long the round trip: older gaps are forgotten."""
GAPS = 16_384
"""Remembered at most, of all flows; the oldest go first."""

_SEQUENCES = 1 << 32
_MASK = _SEQUENCES - 1
_LARGEST_WINDOW = 1 << 30
"""RFC 7323. What is farther away is of another connection with these ports, or the capture missed a lot."""
LARGEST_US = _MASK
"""As far as a round trip is told."""
_FIN, _SYN, _ACK = 0x01, 0x02, 0x10
_GAP = np.dtype([("flow_id", "u8"), ("start", "i8"), ("end", "i8"), ("time_ns", "i8")])

Bools = npt.NDArray[np.bool_]


class Late(NamedTuple):
    """Segments that came after others which begin behind them.

    Attributes:
        at: positions among the segments, shape (n,).
        reordered: which of them were out of order; the others were sent again.
    """

    at: Slots
    reordered: Bools


_NONE_LATE = Late(np.zeros(0, np.int64), np.zeros(0, np.bool_))


class Sequences:
    """Adds to the store's TCP columns what segments tell. Positions are sequence numbers that do not wrap.

    Args:
        store: of the flows.
        index: of their keys.
    """

    def __init__(self, store: FlowStore, index: KeyIndex) -> None:
        self._store = store
        self._index = index
        self._gaps = np.zeros(0, _GAP)

    @property
    def nbytes(self) -> int:
        """Octets of memory held."""
        return self._gaps.nbytes

    def note(self, slots: Slots, segments: npt.NDArray[np.void]) -> None:
        """Take the segments of one batch.

        Args:
            slots: of the batch's entries.
            segments: SEGMENT_DTYPE, shape (n,), those of an entry together and in the order in which they came.
        """
        if not len(segments):
            return
        flow = slots[segments["entry"]]
        syn = np.flatnonzero(segments["bits"] & _SYN)
        if len(syn):
            self._shake_hands(flow[syn], segments[syn])
        self.follow(flow, segments)

    def follow(self, flow: Slots, segments: npt.NDArray[np.void], rtt_us: I8 | None = None) -> Late:
        """As `note`, hands shaken; gives what was counted.

        Args:
            flow: of each segment.
            rtt_us: as known at each segment; None: now.
        """
        begins = np.ones(len(flow), np.bool_)
        begins[1:] = flow[1:] != flow[:-1]
        some = self._follow(flow, segments, begins)
        late = _NONE_LATE
        if len(some):
            late = self._place(flow[some], segments[some], begins[some], None if rtt_us is None else rtt_us[some])
            self._gaps = self._gaps[self._gaps["time_ns"] > segments["time_ns"].max() - LONGEST_NS]
            if len(self._gaps) > GAPS:
                self._gaps = self._gaps[np.sort(np.argsort(self._gaps["time_ns"], kind="stable")[-GAPS:])]
        return late._replace(at=some[late.at])

    def _follow(self, flow: Slots, segments: npt.NDArray[np.void], begins: Bools) -> Slots:
        """Take the flows in which each segment begins where the one before ended, as in nearly all; gives the rest's.

        Args:
            flow: of each segment.
            segments: see `note`.
            begins: which are the first of their flow.
        """
        first = np.flatnonzero(begins)
        store, flows = self._store, flow[first]
        known = store.sequence_end[flows]
        sequence, octets = np.ascontiguousarray(segments["sequence"]), np.ascontiguousarray(segments["octets"])
        expected = np.empty_like(sequence)
        np.add(sequence[:-1], octets[:-1], out=expected[1:])  # numbers wrap as TCP's do
        expected[first] = known.astype(np.uint32)
        odd = (sequence != expected) | (octets > _LARGEST_WINDOW) | (segments["bits"] & _SYN != 0)
        odd[first[(known == 0) | (store.segment_end[flows] != known)]] = True
        strange = np.logical_or.reduceat(odd, first)
        gained = np.add.reduceat(octets, first, dtype=np.int64)
        plain = ~strange
        store.sequence_end[flows[plain]] = store.segment_end[flows[plain]] = (known + gained)[plain]
        if not strange.any():
            return first[:0]
        return np.flatnonzero(np.repeat(strange, np.diff(np.append(first, len(flow)))))

    def _place(self, flow: Slots, segments: npt.NDArray[np.void], begins: Bools, rtt_us: I8 | None) -> Late:
        """Find what came late, and remember the gaps. Arguments as of `_follow` and `follow`."""
        known = self._store.sequence_end[flow]
        position, fresh = _positions(segments, begins, self._store.segment_end[flow])
        end = position + segments["octets"]
        before, reached = _reached(end, position, begins, known)
        last = np.append(np.flatnonzero(begins)[1:], len(flow)) - 1
        self._store.sequence_end[flow[last]] = reached[last]
        self._store.segment_end[flow[last]] = end[last]
        ahead = position - before
        ahead[fresh] = 0
        gap = np.flatnonzero(ahead > 0)
        if len(gap):
            self._remember(flow[gap], before[gap], position[gap], segments["time_ns"][gap])
        late = np.flatnonzero(ahead < 0)
        late = late[(ahead[late] < -1) | (segments["bits"][late] & (_SYN | _FIN) != 0)]
        if not len(late):
            return _NONE_LATE
        known_us = self._store.rtt_us[flow[late]].astype(np.int64) if rtt_us is None else rtt_us[late]
        return Late(late, self._count(flow[late], position[late], segments["time_ns"][late], known_us))

    def _remember(self, flow: Slots, start: I8, end: I8, time_ns: I8) -> None:
        gaps = np.empty(len(flow), _GAP)
        gaps["flow_id"], gaps["start"], gaps["end"], gaps["time_ns"] = self._store.flow_id[flow], start, end, time_ns
        self._gaps = np.concatenate((self._gaps, gaps))

    def _count(self, flow: Slots, position: I8, time_ns: I8, rtt_us: I8) -> Bools:
        """Segments that came late; gives which of them were out of order."""
        store = self._store
        opened_ns = self._opened(store.flow_id[flow], position)
        patience_ns = (rtt_us * 1000).clip(REORDERING_NS, LONGEST_NS)
        reordered = (opened_ns >= 0) & (time_ns - opened_ns < patience_ns)
        np.add.at(store.out_of_order, flow[reordered], np.uint32(1))
        np.add.at(store.retransmitted, flow[~reordered], np.uint32(1))
        return reordered

    def _opened(self, flow_ids: npt.NDArray[np.uint64], position: I8) -> I8:
        """When the gap opened that holds the position, ns; -1: there is none."""
        gaps = self._gaps
        gaps = gaps[np.isin(gaps["flow_id"], flow_ids)]
        ids = np.concatenate((gaps["flow_id"], flow_ids))
        asked = np.concatenate((np.zeros(len(gaps), np.bool_), np.ones(len(position), np.bool_)))
        order = np.lexsort((asked, np.concatenate((gaps["start"], position)), ids))
        # Gaps of one flow do not overlap: a position's is the nearest that begins before it, or none.
        nearest = np.maximum.accumulate(np.where(asked[order], -1, np.arange(len(order))))
        opened_ns = np.full(len(order), -1, np.int64)
        candidate = order[np.maximum(nearest, 0)]
        found = np.flatnonzero(asked[order] & (nearest >= 0) & (ids[candidate] == ids[order]))
        gap, wanted = candidate[found], order[found]
        holds = position[wanted - len(gaps)] < gaps["end"][gap]
        opened_ns[wanted[holds]] = gaps["time_ns"][gap[holds]]
        return opened_ns[len(gaps):]

    # ---- SYN to SYN-ACK

    def _shake_hands(self, flow: Slots, segments: npt.NDArray[np.void]) -> None:
        """The round trip of connections whose SYN is answered here: of both ways, once.

        From the last SYN before the answer; where one was repeated although the answer was on its way, from the first.

        Args:
            flow: of each segment.
            segments: those with SYN, in the order of `note`.
        """
        kind = segments["bits"] & (_SYN | _ACK)
        opening = np.flatnonzero(kind == _SYN)
        self._store.opening_ns[flow[opening]] = segments["time_ns"][opening]
        answer = np.flatnonzero(kind == (_SYN | _ACK))
        answer = answer[self._store.rtt_us[flow[answer]] == 0][::-1]  # of several answers the first is written last
        if not len(answer):
            return
        asking = self._way_back(flow[answer])
        found = asking >= 0
        answering, asking, time_ns = flow[answer[found]], asking[found], segments["time_ns"][answer[found]]
        opened_ns = self._store.opening_ns[asking]
        opened_ns = np.where(opened_ns <= time_ns, opened_ns, self._store.syn_ns[asking])
        known = (opened_ns > 0) & (opened_ns <= time_ns)
        round_trip = ((time_ns - opened_ns)[known] // 1000).clip(1, LARGEST_US)
        self._store.rtt_us[answering[known]] = self._store.rtt_us[asking[known]] = round_trip

    def _way_back(self, flow: Slots) -> Slots:
        """The flow of the other way at the same interface, in either direction there; -1: none."""
        keys = self._store.keys[flow]
        back = turned(keys)
        found = self._find(back)
        back["direction"] = np.where(keys["direction"] == Direction.INGRESS, Direction.EGRESS, Direction.INGRESS)
        return np.where(found >= 0, found, self._find(back))

    def _find(self, keys: npt.NDArray[np.void]) -> Slots:
        words = as_words(keys)
        return self._index.find(words, self._index.hash(words), self._store.key_words)


def turned(keys: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The keys of the other way, at the same interface and in the same direction there."""
    back = keys.copy()
    for ours, theirs in (("source_address", "destination_address"), ("source_port", "destination_port")):
        back[ours], back[theirs] = keys[theirs], keys[ours]
    return back


def _positions(segments: npt.NDArray[np.void], begins: Bools, known: I8) -> tuple[I8, Bools]:
    """Where each segment begins, and which begin a connection of their own, far above all before.

    Args:
        segments: see Sequences.note.
        begins: which are the first of their flow.
        known: where the latest segment of the segment's flow ended before the batch; 0: there was none.
    """
    sequence = segments["sequence"].astype(np.int64)
    octets = segments["octets"].astype(np.int64)
    first = np.flatnonzero(begins)
    previous_end, gained = np.empty_like(sequence), np.empty_like(octets)
    previous_end[1:], gained[1:] = sequence[:-1] + octets[:-1], octets[:-1]
    previous_end[first], gained[first] = known[first] & _MASK, 0
    step = (sequence - previous_end + _SEQUENCES // 2 & _MASK) - _SEQUENCES // 2
    fresh = np.abs(step) > _LARGEST_WINDOW
    syn = np.flatnonzero(segments["bits"] & _SYN)
    fresh[syn] |= sequence[syn] + octets[syn] - previous_end[syn] & _MASK != 0
    fresh[first[known[first] == 0]] = True
    anew = np.flatnonzero(fresh)
    step[anew] = (sequence[anew] - previous_end[anew] & _MASK) + _SEQUENCES
    walked = np.cumsum(step + gained)
    start = known[first] + step[first] - walked[first]
    return walked + np.repeat(start, np.diff(np.append(first, len(begins)))), fresh


def _reached(ends: I8, position: I8, begins: Bools, known: I8) -> tuple[I8, I8]:
    """The highest position of the flow before each segment, and with it."""
    group = np.cumsum(begins) - 1
    base = np.where(known > 0, known, position)[begins][group]
    above = np.clip(ends - base, 0, (1 << 62) // (int(group[-1]) + 1) - 1)  # the bound: numbers must not overflow
    stride = int(above.max()) + 1
    reached = np.maximum.accumulate(above + group * stride) - group * stride + base
    before = np.empty_like(reached)
    before[1:] = reached[:-1]
    before[begins] = base[begins]
    return before, reached

_TIMES = ("syn_ns", "fin_ns", "rst_ns")


def note_times(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """The first SYN, FIN and RST of each flow.

    Args:
        slots: of the flows, each once.
        counters: FLOW_COUNTERS_DTYPE, one a slot.
    """
    for name in _TIMES:
        some = np.flatnonzero(counters[name])
        if len(some):
            some = some[store.keys["kind"][slots[some]] == Kind.FLOW]
            kept: npt.NDArray[np.int64] = getattr(store, name)
            at, found = slots[some], counters[name][some].astype(np.int64)
            kept[at] = np.where(kept[at] == 0, found, np.minimum(kept[at], found))


def note_sockets(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """What local sockets say of their connections, in the sockets' life: the latest counts. Arguments as above.

    A socket that has just sent its SYN knows no round trip yet.
    """
    some = np.flatnonzero(counters["congestion_window"])  # no socket has none
    if not len(some):
        return
    some = some[store.keys["kind"][slots[some]] == Kind.FLOW]
    at = slots[some]
    store.congestion_window[at] = counters["congestion_window"][some]
    store.retransmitted[at] = counters["retransmitted"][some]
    round_trip = counters["smoothed_rtt_us"][some]
    store.rtt_us[at] = np.where(round_trip, round_trip, store.rtt_us[at])


def tcp_control_bits(seen: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """tcp_bit_seen, shape (n, 12), as IE 6: bit i set where column i is."""
    columns = np.zeros((len(seen), 16), np.uint8)  # one row of bits after another: five times as fast as by rows
    columns[:, :seen.shape[1]] = seen
    bits: npt.NDArray[np.uint16] = np.packbits(columns, bitorder="little").view("<u2")
    return bits
