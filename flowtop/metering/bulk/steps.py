"""A batch of many steps in the flow table, at the cost of its entries: the same flows and records as step by step.

That can be where flows do not depend on each other: all of one Observation Point, VLAN and tunnel (so that none
repeats another's packets), and room for all of them. Else the steps are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.bulk.handshakes import Known, shake_hands, spans_of
from flowtop.metering.bulk.lives import Links, Lives, Portion, cut, portions
from flowtop.metering.expiry import TCP_END_BITS
from flowtop.metering.flows import LATER, UFUNCS, Flows, no_records
from flowtop.metering.key_index import KEY_WORDS, Slots, Words, as_words
from flowtop.metering.store import I8
from flowtop.metering.tcp import GAPS
from flowtop.model.kinds import TCP_OPENING_BIT, EndReason, Kind
from flowtop.model.record import (
    CONVERSATION_BYTES,
    FLOW_COUNTERS_DTYPE,
    FlowBatch,
    FlowRecords,
    Steps,
    chosen,
    joined,
    seen_bits,
)

_WORDS = FLOW_COUNTERS_DTYPE.itemsize // 8
_LATEST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

Counters = npt.NDArray[np.void]
"""FLOW_COUNTERS_DTYPE, shape (n,)."""


def rows_of(counters: Counters, rows: Slots) -> Counters:
    """These rows: a structured array's own way takes 20 times as long."""
    words = np.ascontiguousarray(counters).view(np.uint64).reshape(-1, _WORDS)
    return words.take(rows, axis=0).view(FLOW_COUNTERS_DTYPE)[:, 0]


def gains(counters: Counters, entry: Slots) -> Callable[[Slots, Slots], Counters]:
    """What runs of links gained together.

    Args:
        counters: of entries, those of packets.
        entry: of each link; -1: none, which is in no run.

    Returns:
        A function of where runs begin and end, each at least one link long, which gives the counters of each.
    """
    links = rows_of(np.append(counters, np.zeros(1, FLOW_COUNTERS_DTYPE)), entry)  # the last is that of none
    packets, octets = (np.concatenate(([np.uint64(0)], np.cumsum(links[name]))) for name in ("packets", "octets"))

    tcp = bool(links["tcp_bits_hint"].any())

    def gained(first: Slots, stop: Slots) -> Counters:
        found = rows_of(links, first)
        found["packets"], found["octets"] = packets[stop] - packets[first], octets[stop] - octets[first]
        found["last_ns"] = links["last_ns"][stop - 1]
        long = np.flatnonzero(stop - first > 1)
        if LATER and len(long):
            _join_carried(found, long, links, first[long], stop[long])
        if tcp and len(long):
            _join_tcp(found, long, links, np.stack((first[long], stop[long]), axis=1).reshape(-1))
        return found

    return gained


def _join_carried(found: Counters, rows: Slots, links: Counters, first: Slots, stop: Slots) -> None:
    """What CARRIED says of values that packets after the first change.

    Args:
        rows: of `found`, to be written.
        first, stop: where the run of each begins and ends.
    """
    edges = np.stack((first, stop), axis=1).reshape(-1)
    for name, merge in LATER.items():
        values = links[name]
        found[name][rows] = values[stop - 1] if merge == "last" else UFUNCS[merge].reduceat(
            np.append(values, values[:1]), edges)[::2]


def _join_tcp(found: Counters, rows: Slots, links: Counters, edges: Slots) -> None:
    """TCP control bits, and when the first SYN, FIN and RST came.

    Args:
        rows: of `found`, to be written.
        edges: where the run of each begins and ends, by turns.
    """
    bits = np.bitwise_or.reduceat(np.append(links["tcp_bits_hint"], np.uint16(0)), edges)[::2]
    found["tcp_bits_hint"][rows] = bits
    found["tcp_bit_seen"][rows] = seen_bits(bits)
    for name in ("syn_ns", "fin_ns", "rst_ns"):
        times = np.append(links[name], np.uint64(0))
        first_ns = np.minimum.reduceat(np.where(times, times, _LATEST), edges)[::2]
        found[name][rows] = np.where(first_ns == _LATEST, 0, first_ns)

_SYN = 0x02
_MOST_SEGMENTS = GAPS // 4
"""In a step: then no gap in TCP's sequence numbers that still matters is ever forgotten for want of room."""
_INDEPENDENT = (Kind.FLOW, Kind.FRAGMENT)
_POINT = slice(CONVERSATION_BYTES // 8 + 1, KEY_WORDS)
"""The words of a key that hold nothing of the conversation; beside them there is the direction."""


class Plan(NamedTuple):
    """What becomes of a batch.

    Attributes:
        links, lives: see lives.py.
        entry: the entry of each link; -1: a flow of the table's.
        slot: of each life, -1: it is born in this batch.
        hashes: of each chain's key, for the index; of the table's flows that have no entry 0.
        ends: after which steps flows may end.
        moments_ns: when that is.
    """

    links: Links
    lives: Lives
    entry: I8
    slot: Slots
    hashes: Words
    ends: I8
    moments_ns: I8

    @property
    def births(self) -> int:
        """How many flows there will be more."""
        return int(np.count_nonzero(self.slot < 0))

    @property
    def deaths(self) -> int:
        """How many of all end."""
        return int(np.count_nonzero(self.lives.end < len(self.moments_ns)))


def independent(flows: Flows, batch: FlowBatch, steps: Steps) -> bool:
    """Whether no flow of the batch or the table has to do with another, but for TCP's handshakes."""
    if not np.isin(batch.keys["kind"], _INDEPENDENT).all() or batch.other_ifindexes is not None:
        return False
    segments = batch.segments
    if segments is not None and np.bincount(steps.entry[segments["entry"]], minlength=1).max() > _MOST_SEGMENTS:
        return False
    words = np.concatenate((as_words(batch.keys), flows.store.key_words[np.flatnonzero(flows.store.live)]))
    if not len(words):
        return True
    direction = words.view(np.uint8).reshape(len(words), -1)[:, CONVERSATION_BYTES]
    point = words[:, _POINT]
    return bool((direction == direction[0]).all() and (point == point[0]).all())


def single_steps(batch: FlowBatch, steps: Steps) -> Iterator[FlowBatch]:
    """The batches that it stands for."""
    order = np.argsort(steps.entry, kind="stable")
    edges = np.searchsorted(steps.entry[order], np.arange(len(steps.now_ns) + 1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    segments = batch.segments
    if segments is not None:
        at = place[segments["entry"]]
        by_entry = np.argsort(at, kind="stable")
        segments, at = segments[by_entry], at[by_entry]
        cuts = np.searchsorted(at, edges)
    for step, now_ns in enumerate(steps.now_ns.tolist()):
        first, stop = edges[step:step + 2]
        some = order[first:stop]
        part = None
        if segments is not None:
            part = segments[cuts[step]:cuts[step + 1]]
            part["entry"] = at[cuts[step]:cuts[step + 1]] - first
        yield replace(batch, keys=batch.keys[some], counters=batch.counters[some], now_ns=now_ns, segments=part,
                      steps=None)


def plan(flows: Flows, batch: FlowBatch, steps: Steps, ends: I8) -> Plan:
    """What becomes of the batch; nothing is changed yet.

    Args:
        ends: after which steps flows may end.
    """
    store, moments_ns = flows.store, steps.now_ns[ends]
    words = as_words(batch.keys)
    begin = _begins(words)
    keys = words.take(begin, axis=0)
    hashes = flows.index.hash(keys)
    slots = flows.index.find(keys, hashes, store.key_words)
    known = slots >= 0
    quiet = _perhaps_due(flows, moments_ns, slots[known])
    entry = np.insert(np.arange(len(words)), begin[known], -1)
    entry = np.append(entry, np.full(len(quiet), -1))
    slot_of = np.concatenate((slots[known], quiet))
    old, new = np.flatnonzero(entry < 0), np.flatnonzero(entry >= 0)
    counters = batch.counters[["last_ns", "tcp_bits_hint"]]
    begins = entry < 0
    begins[(begin + np.cumsum(known))[~known]] = True
    moment, last_ns = np.zeros(len(entry), np.int64), np.empty(len(entry), np.int64)
    closing = np.empty(len(entry), np.bool_)
    moment[new] = np.searchsorted(ends, steps.entry)
    last_ns[new], last_ns[old] = counters["last_ns"], store.last_ns[slot_of]
    closing[new] = counters["tcp_bits_hint"] & np.uint16(TCP_END_BITS) != 0
    closing[old] = store.tcp_control_bits[slot_of] & np.uint16(TCP_END_BITS) != 0
    links = Links(begins, moment, last_ns, closing)
    lives = cut(links, moments_ns, flows.timeouts)
    slot = np.full(len(lives.start), -1)
    slot[entry[lives.start] < 0] = slot_of
    return Plan(links, lives, entry, slot, np.append(hashes, np.zeros(len(quiet), np.uint64)), ends,
                moments_ns)


def _begins(words: Words) -> I8:
    """Where keys differ from those before."""
    begins = np.ones(len(words), np.bool_)
    begins[1:] = (words[1:] != words[:-1]).any(axis=1)
    return np.flatnonzero(begins)


def _perhaps_due(flows: Flows, moments_ns: I8, but: Slots) -> Slots:
    """Flows that may have to be reported at one of these moments, `but` for some."""
    store, timeouts = flows.store, flows.timeouts
    if not len(moments_ns):
        return np.empty(0, np.int64)
    latest_ns, top = moments_ns[-1], store.top
    some = (store.last_ns[:top] <= latest_ns - min(timeouts.end_ns, timeouts.idle_ns)) | (
        store.reported_ns[:top] <= latest_ns - timeouts.active_ns)
    some &= store.live
    some[but] = False
    return np.flatnonzero(some)


def carry_out(flows: Flows, batch: FlowBatch, steps: Steps, found: Plan) -> tuple[Slots, FlowRecords]:
    """Let it happen.

    Returns:
        The slot of each entry, and the records, in order of time.
    """
    lives, entry, slot = found.lives, found.entry, found.slot.copy()
    born = np.flatnonzero(slot < 0)
    born = born[np.argsort(steps.entry[entry[lives.start[born]]], kind="stable")]
    firsts = entry[lives.start[born]]
    slot[born] = flows.give_birth(as_words(batch.keys).take(firsts, axis=0), rows_of(batch.counters, firsts))
    before = flows.store.tcp_control_bits[slot]
    news = np.zeros(len(lives.start), np.bool_)
    news[born] = True
    records = _Told()
    gained = gains(batch.counters, entry)
    reported_ns, active_ns = flows.store.reported_ns[slot], flows.timeouts.active_ns
    for portion in portions(found.links, lives, found.moments_ns, reported_ns, active_ns):
        first = portion.first + (entry[np.minimum(portion.first, len(entry) - 1)] < 0)
        some = np.flatnonzero(portion.stop > first)
        flows.add(slot[portion.lives[some]], gained(first[some], portion.stop[some]))
        _tell(flows, records, portion, slot, found)
    _note_flags(flows, batch, steps, found, slot, before)
    _settle(flows, found, slot, news)
    slots = slot[lives.owner[entry >= 0]]
    if batch.segments is not None and len(batch.segments):
        records.amend(_follow(flows, batch.segments, slots, steps, found, slot), found.ends, len(steps.now_ns))
    return slots, records.sorted()


class _Noted(NamedTuple):
    """What TCP segments of a batch told, and in which step.

    Attributes:
        known: round trips.
        retransmitted, out_of_order: of late segments (flow's slot, step), shape (n, 2).
    """

    known: Known
    retransmitted: I8
    out_of_order: I8


def _follow(flows: Flows, segments: npt.NDArray[np.void], slots: Slots, steps: Steps, found: Plan,
            slot: Slots) -> _Noted:
    """Take the batch's TCP segments, all entries added and all records made.

    Args:
        slots: of each entry.
        slot: of each life.
    """
    flow, step = slots[segments["entry"]], steps.entry[segments["entry"]]
    before_us = flows.store.rtt_us[flow].astype(np.int64)
    syn = np.flatnonzero(segments["bits"] & _SYN)
    first = found.entry[found.lives.start]
    first_step = np.full(len(first), -1)
    first_step[first >= 0] = steps.entry[first[first >= 0]]
    spans = spans_of(found.lives, slot, first_step, found.ends, len(steps.now_ns))
    known = shake_hands(flows, segments[syn], flow[syn], step[syn], spans)
    late = flows.sequences.follow(flow, segments, rtt_at(flow, step, before_us, known, len(steps.now_ns)))
    places = np.stack((flow[late.at], step[late.at]), axis=1)
    return _Noted(known, places[~late.reordered], places[late.reordered])


def rtt_at(flow: Slots, step: I8, before_us: I8, known: Known, steps: int) -> I8:
    """The round trip that each of these flows is known to have in each of these steps.

    Args:
        before_us: what it was before the batch.
    """
    if not len(known.slot):
        return before_us
    order = np.argsort(known.slot * steps + known.step, kind="stable")
    moments = (known.slot * steps + known.step)[order]
    at = np.searchsorted(moments, flow * steps + step, "right") - 1
    last = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (known.slot[last] == flow), known.rtt_us[last], before_us)


def _note_flags(flows: Flows, batch: FlowBatch, steps: Steps, found: Plan, slot: Slots,
                before: npt.NDArray[np.uint16]) -> None:
    """When flows showed TCP control bits for the first time, step by step.

    Args:
        before: what each life had shown before the batch.
    """
    hints = np.append(batch.counters["tcp_bits_hint"], np.uint16(0))[found.entry]
    news = np.zeros(len(hints), np.uint16)
    for bit in range(TCP_OPENING_BIT):
        links = np.flatnonzero(hints >> np.uint16(bit) & np.uint16(1))
        links = links[np.unique(found.lives.owner[links], return_index=True)[1]]
        links = links[before[found.lives.owner[links]] >> np.uint16(bit) & np.uint16(1) == 0]
        news[links] |= np.uint16(1 << bit)
    some = np.flatnonzero(news)
    step = steps.entry[found.entry[some]]
    order = np.argsort(step, kind="stable")
    some, step = some[order], step[order]
    for part in np.split(np.arange(len(some)), np.flatnonzero(np.diff(step)) + 1):
        if len(part):
            flows.note_flags(int(steps.now_ns[step[part[0]]]), slot[found.lives.owner[some[part]]], news[some[part]])


class _Told:
    """Records, and when each was made."""

    def __init__(self) -> None:
        self._records: list[FlowRecords] = []
        self._order: list[I8] = []
        self._places: list[tuple[Slots, I8]] = []

    def add(self, records: FlowRecords, slots: Slots, moment: I8, rank: int) -> None:
        """Records of these flows and moments; of one moment, those of lower rank come first."""
        self._records.append(records)
        self._places.append((slots, moment))
        self._order.append(moment * len(EndReason) + rank)

    def amend(self, noted: _Noted, ends: I8, steps: int) -> None:
        """Records were made before TCP's segments were looked at: add what these had told by then.

        Args:
            ends: the step of each moment.
            steps: how many there are.
        """
        if not len(noted.known.slot) and not len(noted.retransmitted) and not len(noted.out_of_order):
            return
        for records, (slots, moment) in zip(self._records, self._places, strict=True):
            step = ends[moment]
            records["rtt_us"] = rtt_at(slots, step, records["rtt_us"].astype(np.int64), noted.known, steps)
            for name, places in (("retransmitted", noted.retransmitted), ("out_of_order", noted.out_of_order)):
                moments = np.sort(places[:, 0] * steps + places[:, 1])
                records[name] += (np.searchsorted(moments, slots * steps + step, "right")
                                  - np.searchsorted(moments, slots * steps)).astype(np.uint32)

    def sorted(self) -> FlowRecords:
        """All of them."""
        if not self._records:
            return no_records()
        return chosen(joined(self._records), np.argsort(np.concatenate(self._order), kind="stable"))


def _tell(flows: Flows, told: _Told, portion: Portion, slot: Slots, found: Plan) -> None:
    """Report what is due at the end of portions."""
    due = portion.moment < len(found.moments_ns)
    closed = found.lives.closed[portion.lives]
    for rank, (reason, wanted) in enumerate(((EndReason.END_OF_FLOW, portion.ends & closed),
                                             (EndReason.IDLE_TIMEOUT, portion.ends & ~closed),
                                             (EndReason.ACTIVE_TIMEOUT, ~portion.ends))):
        some = np.flatnonzero(due & wanted)
        if not len(some):
            continue
        slots, moment = slot[portion.lives[some]], portion.moment[some]
        now_ns = found.moments_ns[moment]
        if reason == EndReason.ACTIVE_TIMEOUT:
            news = flows.store.packet_total[slots] != flows.store.packet_reported[slots]
            told.add(flows.report_active(slots, now_ns), slots[news], moment[news], rank)
        else:
            told.add(flows.finish(slots, reason, now_ns), slots, moment, rank)


def _settle(flows: Flows, found: Plan, slot: Slots, born: npt.NDArray[np.bool_]) -> None:
    """Flows that have ended leave the index, those born that go on enter it."""
    lives, n = found.lives, len(found.moments_ns)
    over = lives.end < n
    flows.forget(slot[over & ~born])
    lasting = np.flatnonzero(born & ~over)
    chain = np.cumsum(found.links.begins)[lives.start[lasting]] - 1
    flows.index.insert(found.hashes[chain], slot[lasting])
    if flows.dedupe:
        flows.dedupe.join([slot[lasting]])
        flows.dedupe.pass_by(slot[over & born])
    ended = np.flatnonzero(over)
    ended = ended[np.argsort(lives.end[ended], kind="stable")]
    moment = lives.end[ended]
    for part in np.split(ended, np.flatnonzero(np.diff(moment)) + 1):
        if len(part):
            flows.lingering.add(int(found.moments_ns[lives.end[part[0]]]), slot[part])
