"""Round-trip times from SYN to SYN-ACK, and of ICMP echoes, in a batch of many steps, in which several flows may have
the same key."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.bulk.lives import Lives
from flowtop.metering.echoes import replies, round_trips
from flowtop.metering.flows import Flows
from flowtop.metering.key_index import Slots, as_words
from flowtop.metering.store import I8
from flowtop.metering.tcp import EARLIEST_NS, LARGEST_US, turned
from flowtop.model.kinds import TcpBits

_SYN, _SYN_ACK = int(TcpBits.SYN), int(TcpBits.SYN | TcpBits.ACK)


class Spans(NamedTuple):
    """Lifetimes of flows in the table, as steps of a batch; shape (m,), grouped by key.

    Attributes:
        slot: slot of each flow.
        begin: step of its first packet; -1 if it existed before.
        end: the step after which it ends; the number of steps if it continues.
    """

    slot: Slots
    begin: I8
    end: I8


class Known(NamedTuple):
    """Round-trip times, each with the step in which it became known.

    Attributes:
        slot, step, rtt_us: the flow, the first step of this value, and the value; sorted by step.
    """

    slot: Slots
    step: I8
    rtt_us: I8


def spans_of(lives: Lives, slot: Slots, first_step: I8, ends: I8, steps: int) -> Spans:
    """Lifetimes as steps.

    Args:
        first_step: first step of each life; -1 if it is older.
        ends: the steps after which flows may end.
    """
    return Spans(slot, first_step, np.append(ends, steps)[lives.end])


def shake_hands(flows: Flows, segments: npt.NDArray[np.void], slot: Slots, step: I8, spans: Spans) -> Known:
    """Compute and store round-trip times, with the same result as Sequences step by step.

    Args:
        segments: the segments with SYN.
        slot, step: of each segment.
        spans: lifetimes of all flows that begin, end, or have packets in the batch.
    """
    store = flows.store
    kind = segments["bits"] & _SYN_ACK
    answers = kind == _SYN_ACK
    if not answers.any():
        opening = kind == _SYN
        order = np.argsort(step[opening], kind="stable")
        store.opening_ns[slot[opening][order]] = segments["time_ns"][opening][order].clip(EARLIEST_NS)
        return Known(*(np.zeros(0, np.int64) for _ in range(3)))
    answering = np.unique(slot[answers])
    back = _ways_back(flows, answering, turned(flows.store.keys[answering]), spans)
    order = np.argsort(step, kind="stable")
    rows = list(zip(step[order].tolist(), slot[order].tolist(), kind[order].tolist(),
                    segments["time_ns"][order].tolist(), strict=True))
    shaking = _Shaking(flows, back)
    first = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at][0] != rows[first][0]:
            shaking.take(rows[first:at])
            first = at
    return shaking.done()


def answer_echoes(flows: Flows, born: Slots, step: I8, spans: Spans) -> Known:
    """Set round-trip times of ICMP echoes, with the same result as metering/echoes.py step by step.

    Args:
        born: new flows, by the step of their first packet.
        step: that step.
        spans: as for `shake_hands`.
    """
    store = flows.store
    answering, reverse = replies(store, born)
    if not len(answering):
        return Known(*(np.zeros(0, np.int64) for _ in range(3)))
    back = _ways_back(flows, answering, reverse, spans)
    step_of = dict(zip(born.tolist(), step.tolist(), strict=True))
    pairs = [(flow, other, step_of[flow]) for flow in answering.tolist()
             for begin, end, other in back[flow] if begin <= step_of[flow] <= end]
    answers, requests, steps = np.array(pairs, np.int64).reshape(-1, 3).T
    trips_us = round_trips(store, answers, requests)
    some = np.flatnonzero(trips_us)
    store.rtt_us[answers[some]] = store.rtt_us[requests[some]] = trips_us[some]
    known = Known(np.concatenate((answers[some], requests[some])), np.tile(steps[some], 2), np.tile(trips_us[some], 2))
    order = np.argsort(known.step, kind="stable")
    return Known(known.slot[order], known.step[order], known.rtt_us[order])


def _ways_back(flows: Flows, answering: Slots, reverse: npt.NDArray[np.void],
               spans: Spans) -> dict[int, list[tuple[int, int, int]]]:
    """The flows with the reverse keys, as (begin, end, slot), by answering flow."""
    store = flows.store
    words = as_words(reverse)
    hashes = flows.index.hash(words)
    some = np.flatnonzero(np.isin(flows.index.hash(store.key_words[spans.slot]), hashes))
    by_key: dict[bytes, list[tuple[int, int, int]]] = {}
    for row in some.tolist():
        slot = int(spans.slot[row])
        by_key.setdefault(store.keys[slot].tobytes(), []).append((int(spans.begin[row]), int(spans.end[row]), slot))
    others = flows.index.find(words, hashes, store.key_words).tolist()
    by_flow = {}
    for number, flow in enumerate(answering.tolist()):
        ways = by_key.get(reverse[number].tobytes())
        if ways is None:  # not in this batch, but perhaps in the table
            ways = [(-1, 1 << 62, others[number])] if others[number] >= 0 else []
        by_flow[flow] = ways
    return by_flow


class _Shaking:
    """Processes the segments with SYN, step by step."""

    def __init__(self, flows: Flows, back: dict[int, list[tuple[int, int, int]]]) -> None:
        self._store = flows.store
        self._back = back
        self._opening: dict[int, int] = {}
        self._rtt: dict[int, int] = {}
        self._known: list[tuple[int, int, int]] = []

    def take(self, rows: list[tuple[int, int, int, int]]) -> None:
        """Take the rows (step, slot, SYN with or without ACK, time in ns) of one step."""
        for _, slot, kind, time_ns in rows:
            if kind == _SYN:
                self._opening[slot] = max(time_ns, EARLIEST_NS)
        answers = [row for row in rows if row[2] == _SYN_ACK and not self._rtt_of(row[1])]
        trips = [(slot, asking, rtt_us) for step, slot, _, time_ns in reversed(answers)
                 if (asking := self._asking(slot, step)) is not None
                 and (rtt_us := self._round_trip(asking, time_ns))]
        step = rows[0][0]
        for who in (0, 1):
            for trip in trips:
                self._rtt[trip[who]] = trip[2]
                self._known.append((trip[who], step, trip[2]))

    def _rtt_of(self, slot: int) -> int:
        return self._rtt[slot] if slot in self._rtt else int(self._store.rtt_us[slot])

    def _asking(self, slot: int, step: int) -> int | None:
        """The flow of the reverse direction that existed in that step, or None."""
        for begin, end, other in self._back[slot]:
            if begin <= step <= end:
                return other
        return None

    def _round_trip(self, asking: int, time_ns: int) -> int:
        """The round-trip time in us; 0 if unknown."""
        store, time_ns = self._store, max(time_ns, EARLIEST_NS)
        opened_ns = self._opening.get(asking, int(store.opening_ns[asking]))
        if opened_ns > time_ns:
            opened_ns = int(store.syn_ns[asking])
        if not 0 < opened_ns <= time_ns:
            return 0
        waited_ns = time_ns - opened_ns + (opened_ns == EARLIEST_NS)
        return min(max(waited_ns // 1000, 1), LARGEST_US)

    def done(self) -> Known:
        """Store the results."""
        store = self._store
        for slot, opened_ns in self._opening.items():
            store.opening_ns[slot] = opened_ns
        for slot, rtt_us in self._rtt.items():
            store.rtt_us[slot] = rtt_us
        return Known(*np.array(self._known, np.int64).reshape(-1, 3).T)
