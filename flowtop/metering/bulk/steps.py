"""Process a batch of many steps in the flow table at once, with the same flows and records as step by step.

This is possible if flows are independent: all of one Observation Point, VLAN and tunnel (so there are no duplicates),
and there is room for all of them. Otherwise the steps are processed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.bulk.handshakes import Known, Spans, answer_echoes, shake_hands, spans_of
from flowtop.metering.bulk.lives import Links, Lives, Portion, cut, portions
from flowtop.metering.flows import LATER, UFUNCS, Flows, changes_nothing, no_records
from flowtop.metering.key_index import KEY_WORDS, Slots, Words, as_words
from flowtop.metering.store import I8, FlowStore
from flowtop.metering.tcp import GAPS
from flowtop.model.kinds import TCP_CLOSING_BITS, TCP_OPENING_BIT, EndReason, Kind, TcpBits
from flowtop.model.owners import latest_of_runs
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
from flowtop.model.reported import rows_of as reported_rows

_WORDS = FLOW_COUNTERS_DTYPE.itemsize // 8
_LATEST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

Counters = npt.NDArray[np.void]
"""FLOW_COUNTERS_DTYPE, shape (n,)."""


def rows_of(counters: Counters, rows: Slots) -> Counters:
    """Take rows; 20 times faster than indexing the structured array."""
    words = np.ascontiguousarray(counters).view(np.uint64).reshape(-1, _WORDS)
    return words.take(rows, axis=0).view(FLOW_COUNTERS_DTYPE)[:, 0]


def gains(counters: Counters, entry: Slots) -> Callable[[Slots, Slots], Counters]:
    """Prepare summing counters over runs of links.

    Args:
        counters: counters of the entries, from packets.
        entry: index of each link's entry; -1 for links without one, which are in no run.

    Returns:
        A function of the runs' starts and ends, each at least one link long, which returns the counters of each run.
    """
    links = rows_of(np.append(counters, np.zeros(1, FLOW_COUNTERS_DTYPE)), entry)  # the last row: links without entry
    packets, octets = (np.concatenate(([np.uint64(0)], np.cumsum(links[name]))) for name in ("packets", "octets"))

    tcp = bool(links["tcp_bits_hint"].any())

    def gained(first: Slots, stop: Slots) -> Counters:
        totals = rows_of(links, first)
        totals["packets"], totals["octets"] = packets[stop] - packets[first], octets[stop] - octets[first]
        totals["last_ns"] = links["last_ns"][stop - 1]
        long = np.flatnonzero(stop - first > 1)
        if LATER and len(long):
            _join_carried(totals, long, links, first[long], stop[long])
        if tcp and len(long):
            _join_tcp(totals, long, links, np.stack((first[long], stop[long]), axis=1).reshape(-1))
        return totals

    return gained


def _join_carried(totals: Counters, rows: Slots, links: Counters, first: Slots, stop: Slots) -> None:
    """Combine the values of CARRIED that packets after the first change.

    Args:
        rows: of `totals`, to be written.
        first, stop: where the run of each begins and ends.
    """
    edges = np.stack((first, stop), axis=1).reshape(-1)
    for name, merge in LATER.items():
        values = links[name]
        if changes_nothing(merge, values):
            continue
        if merge == "known":
            totals[name][rows] = latest_of_runs(values, first, stop)
            continue
        totals[name][rows] = values[stop - 1] if merge == "last" else UFUNCS[merge].reduceat(
            np.append(values, values[:1]), edges)[::2]


def _join_tcp(totals: Counters, rows: Slots, links: Counters, edges: Slots) -> None:
    """Combine TCP control bits, and the times of the first SYN, FIN and RST.

    Args:
        rows: rows of `totals` to write.
        edges: start and end of each run, alternating.
    """
    bits = np.bitwise_or.reduceat(np.append(links["tcp_bits_hint"], np.uint16(0)), edges)[::2]
    totals["tcp_bits_hint"][rows] = bits
    totals["tcp_bit_seen"][rows] = seen_bits(bits)
    for name in ("syn_ns", "fin_ns", "rst_ns"):
        times = np.append(links[name], np.uint64(0))
        first_ns = np.minimum.reduceat(np.where(times, times, _LATEST), edges)[::2]
        totals[name][rows] = np.where(first_ns == _LATEST, 0, first_ns)


_SYN, _CLOSING_BITS = np.uint16(TcpBits.SYN), np.uint16(TCP_CLOSING_BITS)
_MOST_SEGMENTS = GAPS // 4
"""Maximum of segments in a step; then TCP gaps that are still relevant are never dropped for lack of room."""
_INDEPENDENT = (Kind.FLOW, Kind.FRAGMENT)
_POINT = slice(CONVERSATION_BYTES // 8 + 1, KEY_WORDS)
"""The words of a key that have nothing of the conversation; the direction is outside them too."""


class Plan(NamedTuple):
    """The result of planning a batch.

    Attributes:
        links, lives: see lives.py.
        entry: index of each link's entry; -1 for existing flows.
        slot: slot of each life; -1 for new flows.
        hashes: hash of each chain's key, for the index; 0 for existing flows without an entry.
        ends: the steps after which flows may end.
        moments_ns: the times of these.
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
        """Number of new flows."""
        return int(np.count_nonzero(self.slot < 0))

    @property
    def deaths(self) -> int:
        """Number of flows that end."""
        return int(np.count_nonzero(self.lives.end < len(self.moments_ns)))


def independent(flows: Flows, batch: FlowBatch, steps: Steps) -> bool:
    """Whether flows of the batch and the table are independent, except for TCP handshakes."""
    if not np.isin(batch.keys["kind"], _INDEPENDENT).all():
        return False
    if any(part is not None for part in (batch.other_ifindexes, batch.described, batch.reported)):
        return False  # of exporters
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
    """Split the batch into one batch per step."""
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
        others, described, reported = batch.other_ifindexes, batch.described, batch.reported
        yield replace(batch, keys=batch.keys[some], counters=batch.counters[some], now_ns=now_ns, segments=part,
                      steps=None, other_ifindexes=None if others is None else others[some],
                      described=None if described is None else described[some],
                      reported=None if reported is None else reported_rows(reported, some))


def plan(flows: Flows, batch: FlowBatch, steps: Steps, ends: I8) -> Plan:
    """Plan the changes; nothing is modified yet.

    Args:
        ends: the steps after which flows may end.
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
    closing[new] = counters["tcp_bits_hint"] & _CLOSING_BITS != 0
    closing[old] = store.tcp_control_bits[slot_of] & _CLOSING_BITS != 0
    links = Links(begins, moment, last_ns, closing)
    lives = cut(links, moments_ns, flows.timeouts)
    slot = np.full(len(lives.start), -1)
    slot[entry[lives.start] < 0] = slot_of
    return Plan(links, lives, entry, slot, np.append(hashes, np.zeros(len(quiet), np.uint64)), ends,
                moments_ns)


def _begins(words: Words) -> I8:
    """Indexes of keys that differ from the previous one."""
    begins = np.ones(len(words), np.bool_)
    begins[1:] = (words[1:] != words[:-1]).any(axis=1)
    return np.flatnonzero(begins)


def _perhaps_due(flows: Flows, moments_ns: I8, but: Slots) -> Slots:
    """Flows, except `but`, that may be due for a report at one of these moments."""
    store, timeouts = flows.store, flows.timeouts
    if not len(moments_ns):
        return np.empty(0, np.int64)
    latest_ns, top = moments_ns[-1], store.top
    some = (store.last_ns[:top] <= latest_ns - min(timeouts.end_ns, timeouts.idle_ns)) | (
        store.reported_ns[:top] <= latest_ns - timeouts.active_ns)
    some &= store.live
    some[but] = False
    return np.flatnonzero(some)


def carry_out(flows: Flows, batch: FlowBatch, steps: Steps, planned: Plan) -> tuple[Slots, FlowRecords]:
    """Apply the plan.

    Returns:
        The slot of each entry, and the records in order of time.
    """
    lives, entry, slot = planned.lives, planned.entry, planned.slot.copy()
    born = np.flatnonzero(slot < 0)
    born = born[np.argsort(steps.entry[entry[lives.start[born]]], kind="stable")]
    firsts = entry[lives.start[born]]
    flows.name_known(batch.names)
    slot[born] = flows.give_birth(as_words(batch.keys).take(firsts, axis=0), rows_of(batch.counters, firsts),
                                  names=batch.names)
    before = flows.store.tcp_control_bits[slot]
    news = np.zeros(len(lives.start), np.bool_)
    news[born] = True
    records = _Records()
    gained = gains(batch.counters, entry)
    reported_ns, active_ns = flows.store.reported_ns[slot], flows.timeouts.active_ns
    for portion in portions(planned.links, lives, planned.moments_ns, reported_ns, active_ns):
        first = portion.first + (entry[np.minimum(portion.first, len(entry) - 1)] < 0)
        some = np.flatnonzero(portion.stop > first)
        flows.add(slot[portion.lives[some]], gained(first[some], portion.stop[some]))
        _report(flows, records, portion, slot, planned)
    _note_flags(flows, batch, steps, planned, slot, before)
    _settle(flows, planned, slot, news)
    slots = slot[lives.owner[entry >= 0]]
    if batch.segments is not None and len(batch.segments):
        spans = _spans(steps, planned, slot)
        records.amend(flows.store, _follow(flows, batch.segments, slots, steps, spans), planned.ends, len(steps.now_ns))
    if flows.store.echo_ns[slot[born]].any():
        known = answer_echoes(flows, slot[born], steps.entry[firsts], _spans(steps, planned, slot))
        records.amend(flows.store, _Noted(known, _NONE_LATE, _NONE_LATE), planned.ends, len(steps.now_ns))
    return slots, records.sorted()


def _spans(steps: Steps, planned: Plan, slot: Slots) -> Spans:
    """The lifetimes of all flows of the plan; `slot` of each life."""
    first = planned.entry[planned.lives.start]
    first_step = np.full(len(first), -1)
    first_step[first >= 0] = steps.entry[first[first >= 0]]
    return spans_of(planned.lives, slot, first_step, planned.ends, len(steps.now_ns))


class _Noted(NamedTuple):
    """What the TCP segments of a batch showed, and in which step.

    Attributes:
        known: round trips.
        retransmitted, out_of_order: of late segments (flow's slot, step), shape (n, 2).
    """

    known: Known
    retransmitted: I8
    out_of_order: I8


_NONE_LATE = np.zeros((0, 2), np.int64)


def _follow(flows: Flows, segments: npt.NDArray[np.void], slots: Slots, steps: Steps, spans: Spans) -> _Noted:
    """Process the batch's TCP segments, after all entries were added and all records made.

    Args:
        slots: slot of each entry.
        spans: lifetimes of all flows.
    """
    flow, step = slots[segments["entry"]], steps.entry[segments["entry"]]
    before_us = flows.store.rtt_us[flow].astype(np.int64)
    syn = np.flatnonzero(segments["bits"] & _SYN)
    known = shake_hands(flows, segments[syn], flow[syn], step[syn], spans)
    late = flows.sequences.follow(flow, segments, rtt_at(flow, step, before_us, known, len(steps.now_ns)))
    places = np.stack((flow[late.at], step[late.at]), axis=1)
    return _Noted(known, places[~late.reordered], places[late.reordered])


def rtt_at(flow: Slots, step: I8, before_us: I8, known: Known, steps: int) -> I8:
    """The known round-trip time of each flow in each step.

    Args:
        before_us: the values before the batch.
    """
    if not len(known.slot):
        return before_us
    order = np.argsort(known.slot * steps + known.step, kind="stable")
    moments = (known.slot * steps + known.step)[order]
    at = np.searchsorted(moments, flow * steps + step, "right") - 1
    last = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (known.slot[last] == flow), known.rtt_us[last], before_us)


def _note_flags(flows: Flows, batch: FlowBatch, steps: Steps, planned: Plan, slot: Slots,
                before: npt.NDArray[np.uint16]) -> None:
    """Log the first time that flows showed each TCP control bit, step by step.

    Args:
        before: bits of each life before the batch.
    """
    hints = np.append(batch.counters["tcp_bits_hint"], np.uint16(0))[planned.entry]
    news = np.zeros(len(hints), np.uint16)
    for bit in range(TCP_OPENING_BIT):
        links = np.flatnonzero(hints >> np.uint16(bit) & np.uint16(1))
        links = links[np.unique(planned.lives.owner[links], return_index=True)[1]]
        links = links[before[planned.lives.owner[links]] >> np.uint16(bit) & np.uint16(1) == 0]
        news[links] |= np.uint16(1 << bit)
    some = np.flatnonzero(news)
    step = steps.entry[planned.entry[some]]
    order = np.argsort(step, kind="stable")
    some, step = some[order], step[order]
    for part in np.split(np.arange(len(some)), np.flatnonzero(np.diff(step)) + 1):
        if len(part):
            flows.note_flags(int(steps.now_ns[step[part[0]]]), slot[planned.lives.owner[some[part]]], news[some[part]])


class _Records:
    """Records with their times."""

    def __init__(self) -> None:
        self._records: list[FlowRecords] = []
        self._order: list[I8] = []
        self._places: list[tuple[Slots, I8]] = []

    def add(self, records: FlowRecords, slots: Slots, moment: I8, rank: int) -> None:
        """Add records of these flows and moments; records of the same moment are sorted by rank."""
        self._records.append(records)
        self._places.append((slots, moment))
        self._order.append(moment * len(EndReason) + rank)

    def amend(self, store: FlowStore, noted: _Noted, ends: I8, steps: int) -> None:
        """Add the TCP values known at each record: records are made before the segments are processed.

        Args:
            store: gets what records have reported.
            ends: the step of each moment.
            steps: number of steps.
        """
        if not len(noted.known.slot) and not len(noted.retransmitted) and not len(noted.out_of_order):
            return
        for records, (slots, moment) in zip(self._records, self._places, strict=True):
            step = ends[moment]
            records["rtt_us"] = rtt_at(slots, step, records["rtt_us"].astype(np.int64), noted.known, steps)
        for name, places in (("retransmitted", noted.retransmitted), ("out_of_order", noted.out_of_order)):
            if len(places) and self._records:
                self._amend_counts(store, name, np.sort(places[:, 0] * steps + places[:, 1]), ends, steps)

    def _amend_counts(self, store: FlowStore, name: str, late: I8, ends: I8, steps: int) -> None:
        """Add late segments, each slot * steps + step, to the records at or after their step."""
        slots = np.concatenate([slots for slots, _ in self._places])
        at = slots * steps + ends[np.concatenate([moment for _, moment in self._places])]
        counts = np.searchsorted(late, at, "right") - np.searchsorted(late, slots * steps)
        order = np.argsort(at, kind="stable")
        follows = slots[order[1:]] == slots[order[:-1]]
        deltas = counts.copy()
        deltas[order[1:]] -= counts[order[:-1]] * follows
        for records, start in zip(self._records, np.cumsum([0, *map(len, self._records)]).tolist(), strict=False):
            records[name] += counts[start:start + len(records)].astype(np.uint32)
            records[f"{name}_delta"] += deltas[start:start + len(records)].astype(np.uint32)
        last = order[np.append(~follows, True)]
        reported: npt.NDArray[np.uint32] = getattr(store, f"{name}_reported")
        reported[slots[last]] += counts[last].astype(np.uint32)

    def sorted(self) -> FlowRecords:
        """All records, in order of time."""
        if not self._records:
            return no_records()
        return chosen(joined(self._records), np.argsort(np.concatenate(self._order), kind="stable"))


def _report(flows: Flows, records: _Records, portion: Portion, slot: Slots, planned: Plan) -> None:
    """Report what is due at the end of portions."""
    due = portion.moment < len(planned.moments_ns)
    closed = planned.lives.closed[portion.lives]
    for rank, (reason, mask) in enumerate(((EndReason.END_OF_FLOW, portion.ends & closed),
                                           (EndReason.IDLE_TIMEOUT, portion.ends & ~closed),
                                           (EndReason.ACTIVE_TIMEOUT, ~portion.ends))):
        some = np.flatnonzero(due & mask)
        if not len(some):
            continue
        slots, moment = slot[portion.lives[some]], portion.moment[some]
        now_ns = planned.moments_ns[moment]
        if reason == EndReason.ACTIVE_TIMEOUT:
            news = flows.store.packet_total[slots] != flows.store.packet_reported[slots]
            records.add(flows.report_active(slots, now_ns), slots[news], moment[news], rank)
        else:
            records.add(flows.finish(slots, reason, now_ns), slots, moment, rank)


def _settle(flows: Flows, planned: Plan, slot: Slots, born: npt.NDArray[np.bool_]) -> None:
    """Remove ended flows from the index, insert new ones that continue."""
    lives, n = planned.lives, len(planned.moments_ns)
    over = lives.end < n
    flows.forget(slot[over & ~born])
    lasting = np.flatnonzero(born & ~over)
    chain = np.cumsum(planned.links.begins)[lives.start[lasting]] - 1
    flows.index.insert(planned.hashes[chain], slot[lasting])
    if flows.dedupe:
        flows.dedupe.join([slot[lasting]])
        flows.dedupe.pass_by(slot[over & born])
    ended = np.flatnonzero(over)
    ended = ended[np.argsort(lives.end[ended], kind="stable")]
    moment = lives.end[ended]
    for part in np.split(ended, np.flatnonzero(np.diff(moment)) + 1):
        if len(part):
            flows.lingering.add(int(planned.moments_ns[lives.end[part[0]]]), slot[part])
