"""TCP columns from captured segments, local sockets and exporters: retransmissions, reordering, round-trip times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import KeyIndex, Slots, as_words
from flowtop.metering.store import I8, FlowStore
from flowtop.model.kinds import Direction, Kind, TcpBits
from flowtop.model.reported import MEASURED_DTYPE, Reported

REORDERING_NS = 3_000_000
LONGEST_NS = 1_000_000_000
"""Older gaps are dropped, also with a longer round-trip time."""
GAPS = 16_384
"""Maximum number of gaps over all flows; the oldest are dropped."""

_SEQUENCES = 1 << 32
_MASK = _SEQUENCES - 1
_LARGEST_WINDOW = 1 << 30
"""RFC 7323. A larger distance means another connection with the same ports, or many missing packets."""
LARGEST_US = _MASK
"""Maximum round-trip time that can be stored."""
EARLIEST_NS = 1
"""Stored for a time of 0, in a file that begins in 1970: 0 stands for "none"."""
_SYN, _SYN_FIN, _SYN_ACK = (np.uint16(bits) for bits in (
    TcpBits.SYN, TcpBits.SYN | TcpBits.FIN, TcpBits.SYN | TcpBits.ACK))
_GAP = np.dtype([("flow_id", "u8"), ("start", "i8"), ("end", "i8"), ("time_ns", "i8")])

Bools = npt.NDArray[np.bool_]


class Late(NamedTuple):
    """Segments that arrived after segments with higher sequence numbers.

    Attributes:
        at: positions among the segments, shape (n,).
        reordered: which of them were out of order; the others were retransmitted.
    """

    at: Slots
    reordered: Bools


_NONE_LATE = Late(np.zeros(0, np.int64), np.zeros(0, np.bool_))


class Sequences:
    """Updates the store's TCP columns from segments. Positions are sequence numbers that do not wrap.

    Args:
        store: the flows.
        index: index of their keys.
    """

    def __init__(self, store: FlowStore, index: KeyIndex) -> None:
        self._store = store
        self._index = index
        self._gaps = np.zeros(0, _GAP)

    @property
    def nbytes(self) -> int:
        """Octets of memory."""
        return self._gaps.nbytes

    def note(self, slots: Slots, segments: npt.NDArray[np.void]) -> None:
        """Process the segments of one batch.

        Args:
            slots: slot of each entry of the batch.
            segments: SEGMENT_DTYPE, shape (n,), grouped by entry, in order of arrival.
        """
        if not len(segments):
            return
        flow = slots[segments["entry"]]
        syn = np.flatnonzero(segments["bits"] & _SYN)
        if len(syn):
            self._shake_hands(flow[syn], segments[syn])
        self.follow(flow, segments)

    def follow(self, flow: Slots, segments: npt.NDArray[np.void], rtt_us: I8 | None = None) -> Late:
        """Like `note`, without handshakes; gives what was counted.

        Args:
            flow: slot of each segment.
            rtt_us: round-trip time known at each segment; None: the current one.
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
        """Process flows whose segments are all in sequence (nearly all flows); returns the other segments.

        Args:
            flow: slot of each segment.
            segments: see `note`.
            begins: whether a segment is the first of its flow.
        """
        first = np.flatnonzero(begins)
        store, flows = self._store, flow[first]
        known = store.sequence_end[flows]
        sequence, octets = np.ascontiguousarray(segments["sequence"]), np.ascontiguousarray(segments["octets"])
        expected = np.empty_like(sequence)
        np.add(sequence[:-1], octets[:-1], out=expected[1:])  # wraps as sequence numbers do
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
        """Detect late segments and store gaps. Arguments as in `_follow` and `follow`."""
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
        late = late[(ahead[late] < -1) | (segments["bits"][late] & _SYN_FIN != 0)]
        if not len(late):
            return _NONE_LATE
        known_us = self._store.rtt_us[flow[late]].astype(np.int64) if rtt_us is None else rtt_us[late]
        return Late(late, self._count(flow[late], position[late], segments["time_ns"][late], known_us))

    def _remember(self, flow: Slots, start: I8, end: I8, time_ns: I8) -> None:
        gaps = np.empty(len(flow), _GAP)
        gaps["flow_id"], gaps["start"], gaps["end"], gaps["time_ns"] = self._store.flow_id[flow], start, end, time_ns
        self._gaps = np.concatenate((self._gaps, gaps))

    def _count(self, flow: Slots, position: I8, time_ns: I8, rtt_us: I8) -> Bools:
        """Count late segments as reordered or retransmitted; gives which of them were out of order."""
        store = self._store
        opened_ns = self._opened(store.flow_id[flow], position)
        patience_ns = (rtt_us * 1000).clip(REORDERING_NS, LONGEST_NS)
        reordered = (opened_ns >= 0) & (time_ns - opened_ns < patience_ns)
        np.add.at(store.out_of_order, flow[reordered], np.uint32(1))
        np.add.at(store.retransmitted, flow[~reordered], np.uint32(1))
        return reordered

    def _opened(self, flow_ids: npt.NDArray[np.uint64], position: I8) -> I8:
        """When the gap that contains the position opened, ns; -1 if there is none."""
        gaps = self._gaps
        gaps = gaps[np.isin(gaps["flow_id"], flow_ids)]
        ids = np.concatenate((gaps["flow_id"], flow_ids))
        queried = np.concatenate((np.zeros(len(gaps), np.bool_), np.ones(len(position), np.bool_)))
        order = np.lexsort((queried, np.concatenate((gaps["start"], position)), ids))
        # Gaps of one flow do not overlap: only the nearest that begins before a position can contain it.
        nearest = np.maximum.accumulate(np.where(queried[order], -1, np.arange(len(order))))
        opened_ns = np.full(len(order), -1, np.int64)
        candidate = order[np.maximum(nearest, 0)]
        hits = np.flatnonzero(queried[order] & (nearest >= 0) & (ids[candidate] == ids[order]))
        gap, queries = candidate[hits], order[hits]
        holds = position[queries - len(gaps)] < gaps["end"][gap]
        opened_ns[queries[holds]] = gaps["time_ns"][gap[holds]]
        return opened_ns[len(gaps):]

    # ---- SYN to SYN-ACK

    def _shake_hands(self, flow: Slots, segments: npt.NDArray[np.void]) -> None:
        """Set the round-trip time of connections whose SYN is answered here, once, in both directions.

        It counts from the last SYN before the answer; or from the first, if a SYN was repeated after the answer was
        sent.

        Args:
            flow: of each segment.
            segments: those with SYN, in the order of `note`.
        """
        kind = segments["bits"] & _SYN_ACK
        opening = np.flatnonzero(kind == _SYN)
        self._store.opening_ns[flow[opening]] = segments["time_ns"][opening].clip(EARLIEST_NS)
        answer = np.flatnonzero(kind == _SYN_ACK)
        answer = answer[self._store.rtt_us[flow[answer]] == 0][::-1]  # of several answers, the first is written last
        if not len(answer):
            return
        asking = self._way_back(flow[answer])
        answered = asking >= 0
        answering, asking = flow[answer[answered]], asking[answered]
        time_ns = segments["time_ns"][answer[answered]].clip(EARLIEST_NS)
        opened_ns = self._store.opening_ns[asking]
        opened_ns = np.where(opened_ns <= time_ns, opened_ns, self._store.syn_ns[asking])
        known = (opened_ns > 0) & (opened_ns <= time_ns)
        round_trip = (since(opened_ns, time_ns)[known] // 1000).clip(1, LARGEST_US)
        self._store.rtt_us[answering[known]] = self._store.rtt_us[asking[known]] = round_trip

    def _way_back(self, flow: Slots) -> Slots:
        """The reverse flow at the same interface, in either direction; -1 if there is none."""
        keys = self._store.keys[flow]
        back = turned(keys)
        same = self._find(back)
        back["direction"] = np.where(keys["direction"] == Direction.INGRESS, Direction.EGRESS, Direction.INGRESS)
        return np.where(same >= 0, same, self._find(back))

    def _find(self, keys: npt.NDArray[np.void]) -> Slots:
        words = as_words(keys)
        return self._index.find(words, self._index.hash(words), self._store.key_words)


def since(opened_ns: I8, time_ns: I8) -> I8:
    """Time from a stored time on, which may be EARLIEST_NS."""
    waited: I8 = time_ns - opened_ns + (opened_ns == EARLIEST_NS)
    return waited


def turned(keys: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The keys of the reverse flows, at the same interface and in the same direction there."""
    back = keys.copy()
    for ours, theirs in (("source_address", "destination_address"), ("source_port", "destination_port")):
        back[ours], back[theirs] = keys[theirs], keys[ours]
    return back


def _positions(segments: npt.NDArray[np.void], begins: Bools, known: I8) -> tuple[I8, Bools]:
    """Position of each segment, and whether it begins another connection, far above all earlier positions.

    Args:
        segments: see Sequences.note.
        begins: whether a segment is the first of its flow.
        known: end of the flow's latest segment before the batch; 0 if there was none.
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
    """The highest position of the flow before each segment, and including it."""
    group = np.cumsum(begins) - 1
    base = np.where(known > 0, known, position)[begins][group]
    above = np.clip(ends - base, 0, (1 << 62) // (int(group[-1]) + 1) - 1)  # bounded, to prevent overflow
    stride = int(above.max()) + 1
    reached = np.maximum.accumulate(above + group * stride) - group * stride + base
    before = np.empty_like(reached)
    before[1:] = reached[:-1]
    before[begins] = base[begins]
    return before, reached


_TIMES = ("syn_ns", "fin_ns", "rst_ns")


def note_times(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """Store the times of the first SYN, FIN and RST of each flow.

    Args:
        slots: slots of the flows, each once.
        counters: FLOW_COUNTERS_DTYPE, one per slot.
    """
    for name in _TIMES:
        some = np.flatnonzero(counters[name])
        if len(some):
            some = some[store.keys["kind"][slots[some]] == Kind.FLOW]
            kept: npt.NDArray[np.int64] = getattr(store, name)
            at, times = slots[some], counters[name][some].astype(np.int64)
            kept[at] = np.where(kept[at] == 0, times, np.minimum(kept[at], times))


def note_sockets(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """Store the state of local sockets since they exist; the latest values count. Arguments as in `note_times`.

    A socket that has just sent its SYN has no round-trip time yet. What it has retransmitted is of the flow it sends.
    """
    some = np.flatnonzero(counters["congestion_window"])  # every socket has one
    if not len(some):
        return
    some = some[store.keys["kind"][slots[some]] == Kind.FLOW]
    at = slots[some]
    store.congestion_window[at] = counters["congestion_window"][some]
    sends = store.keys["direction"][at] == np.uint8(Direction.EGRESS)
    store.retransmitted[at[sends]] = counters["retransmitted"][some][sends]
    round_trip = counters["smoothed_rtt_us"][some]
    store.rtt_us[at] = np.where(round_trip, round_trip, store.rtt_us[at])


def note_measured(store: FlowStore, slots: Slots, reported: Reported) -> None:
    """Store what exporters have measured: their latest values, and the sums of their counts of each record.

    Args:
        slots: slots of the flows, each once.
        reported: one per slot; without measurements nothing changes.
    """
    if reported.dtype != MEASURED_DTYPE:
        return
    of_flows = store.keys["kind"][slots] == Kind.FLOW
    for name in ("rtt_us", "congestion_window", "retransmitted"):
        some = np.flatnonzero((reported[name] != 0) & of_flows)
        getattr(store, name)[slots[some]] = reported[name][some]
    for name in ("retransmitted", "out_of_order"):
        some = np.flatnonzero((reported[f"{name}_delta"] != 0) & of_flows)
        getattr(store, name)[slots[some]] += reported[f"{name}_delta"][some]


def tcp_control_bits(seen: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Convert tcp_bit_seen, shape (n, 12), to IE 6: bit i is set if column i is."""
    columns = np.zeros((len(seen), 16), np.uint8)  # contiguous rows of bits: five times as fast
    columns[:, :seen.shape[1]] = seen
    bits: npt.NDArray[np.uint16] = np.packbits(columns, bitorder="little").view("<u2")
    return bits
