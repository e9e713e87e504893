"""The flows of a table: creating, updating, reporting and ending them."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.dedupe import Deduplicator
from flowtop.metering.echoes import answer_echoes, note_echoes
from flowtop.metering.expiry import Lingering, Timeouts
from flowtop.metering.key_index import KeyIndex, Slots, Words, as_words
from flowtop.metering.rates import Rates
from flowtop.metering.store import I8, U8, FlowStore
from flowtop.metering.tcp import Sequences, note_measured, note_sockets, note_times, tcp_control_bits
from flowtop.model.flows import event_ms
from flowtop.model.kinds import TCP_OPENING_BIT, EndReason
from flowtop.model.names_seen import PeerNames
from flowtop.model.owners import latest
from flowtop.model.record import (
    CARRIED,
    FLOW_KEY_DTYPE,
    FLOW_RECORD_DTYPE,
    REPORTED_RECORD_DTYPE,
    SELDOM,
    FlowBatch,
    FlowRecords,
    Merge,
    chosen,
    joined,
)
from flowtop.model.reported import REPORTED, rows_of
from flowtop.native.entries import MERGED, add_entries
from flowtop.native.records import Mixed, make_records


@dataclass(frozen=True, slots=True)
class TableConfig:
    """Timeouts and limits of the flow table.

    Attributes:
        idle_timeout_s: time without a packet until a flow ends.
        active_timeout_s: time between two records of a flow that continues.
        end_timeout_s: time without a packet after FIN or RST until a flow ends.
        linger_s: how long an ended flow remains visible; at least until the end of the next tick, and as long as it is
            kept: see FlowTable.keep.
        least_tick_s: minimum time for rates. The last tick of a file may end with its last packet, and one packet
            within microseconds is no rate of megabits per second.
        max_flows: maximum number of live flows; beyond it the least recently active ones end. In addition, a quarter as
            many may linger, and those that ended in a tick until it is shown.
        dedupe: flows whose packets were counted already at another Observation Point are marked; dropped (not shown and
            not in records, but in the totals); or not detected.
    """

    idle_timeout_s: float = 15
    active_timeout_s: float = 60
    end_timeout_s: float = 2
    linger_s: float = 10
    least_tick_s: float = 0.001
    max_flows: int = 1_000_000
    dedupe: Literal["mark", "drop", "off"] = "mark"


_COPIED = ("flow_id", "record_bits", *CARRIED, "tcp_control_bits", "packet_total", "octet_total", "peer_name", "rtt_us",
           "retransmitted", "out_of_order", "congestion_window")
_SELDOM_COPIED = SELDOM | {"peer_name"}
COUNTS_OF_TCP = ("retransmitted", "out_of_order")
"""Those that grow: records have `*_delta`, too."""
_TIMES_OF_TCP = ("syn", "fin", "rst")

LATER = {name: merge for name, merge in CARRIED.items() if merge != "first"}
"""Values that packets after the first may change."""
Values = npt.NDArray[Any]
UFUNCS: dict[str, np.ufunc] = {"max": np.maximum, "min": np.minimum, "sum": np.add, "or": np.bitwise_or}


def merged(merge: Merge, old: Values, new: Values, newer: npt.NDArray[np.bool_]) -> Values:
    """Combine values of flows with those of later packets: see Merge.

    Args:
        old, new: one value for each flow.
        newer: whether the last packet of `new` is not before the last one so far.
    """
    if merge == "first":
        return old
    if merge == "known":
        return latest(old, new)  # batches of this host come in the order of time
    return np.where(newer, new, old) if merge == "last" else UFUNCS[merge](old, new)


def changes_nothing(merge: Merge, new: Values) -> bool:
    """Whether merging these values would leave all old ones as they are: seldom seen things are added cheaply."""
    return merge in ("sum", "or", "known") and not new.any()


class Reporting(NamedTuple):
    """What the Flow Records of one flow have reported so far.

    Attributes:
        records: number of records.
        packets, octets: sums of the records.
        at_ns: time of the last record, or of the first packet if there was none.
        due_ns: time of the next record if packets continue; None if the flow has ended.
    """

    records: int
    packets: int
    octets: int
    at_ns: int
    due_ns: int | None


def no_records() -> FlowRecords:
    """An empty array of Flow Records, shape (0,)."""
    return np.empty(0, FLOW_RECORD_DTYPE)


def report(store: FlowStore, slots: Slots, reason: EndReason, now_ns: int | I8, unix_offset_ns: int) -> FlowRecords:
    """Make a Flow Record for each slot, with what was not reported yet, and note it as reported.

    A flow that changed from counted to duplicate or back since its last record gets two records: one with the counted
    part, one with the duplicate part.

    Args:
        now_ns: as in FlowBatch; one for all, or one for each.
        unix_offset_ns: as in FlowBatch.
    """
    records = np.zeros(len(slots), REPORTED_RECORD_DTYPE if store.collected else FLOW_RECORD_DTYPE)
    mixed = _fill(records, store, slots, reason, now_ns, unix_offset_ns) if store.native is None else make_records(
        store.native, store, slots, records, _COPIED, reason, now_ns, unix_offset_ns)
    _report_tcp(records, store, slots, unix_offset_ns)
    if store.collected:
        records["flow_count"] = store.flow_count[slots] - store.flow_count_reported[slots]
        store.flow_count_reported[slots] = store.flow_count[slots]
        records["other_ifindex"] = store.other_ifindex[slots]
    if store.reported is not None:
        reported = rows_of(store.reported, slots)
        for name in REPORTED:
            records[name] = reported[name]
    if not len(mixed.at):
        return records
    counted = chosen(records, mixed.at)
    counted["duplicate"] = False
    counted["packet_delta"] -= mixed.packets
    counted["octet_delta"] -= mixed.octets
    counted["flow_count"] = counted["retransmitted_delta"] = counted["out_of_order_delta"] = 0
    records["packet_delta"][mixed.at] = mixed.packets
    records["octet_delta"][mixed.at] = mixed.octets
    return joined((records, counted))


def _fill(records: FlowRecords, store: FlowStore, slots: Slots, reason: EndReason, now_ns: int | I8,
          unix_offset_ns: int) -> Mixed:
    """See native.records.make_records, which does the same."""
    keys = store.key_words.take(slots, axis=0).view(FLOW_KEY_DTYPE)[:, 0]  # a structured array is 20 times slower
    for name in FLOW_KEY_DTYPE.names or ():
        records[name] = keys[name]
    for name in _COPIED:
        values = getattr(store, name)[slots]
        if name not in _SELDOM_COPIED or values.any():
            records[name] = values
    records["end_reason"] = reason
    records["packet_delta"] = store.packet_total[slots] - store.packet_reported[slots]
    records["octet_delta"] = store.octet_total[slots] - store.octet_reported[slots]
    records["start_ms"] = (store.first_ns[slots] + unix_offset_ns) // 1_000_000
    records["end_ms"] = (store.last_ns[slots] + unix_offset_ns) // 1_000_000
    duplicate_packets, duplicate_octets = store.packet_duplicate[slots], store.octet_duplicate[slots]
    duplicate = (duplicate_packets > 0) | (duplicate_octets > 0)
    empty = (records["packet_delta"] == 0) & (records["octet_delta"] == 0)
    records["duplicate"] = duplicate | (store.duplicate[slots] & empty)
    store.packet_duplicate[slots] = 0
    store.octet_duplicate[slots] = 0
    store.packet_reported[slots] = store.packet_total[slots]
    store.octet_reported[slots] = store.octet_total[slots]
    store.reported_ns[slots] = now_ns
    store.record_count[slots] += np.uint32(1)
    counting = (duplicate_packets < records["packet_delta"]) | (duplicate_octets < records["octet_delta"])
    both = np.flatnonzero(duplicate & counting)
    return Mixed(both, duplicate_packets[both], duplicate_octets[both])


def _report_tcp(records: FlowRecords, store: FlowStore, slots: Slots, unix_offset_ns: int) -> None:
    """Deltas and times of TCP connections; all are zero in most flows of other protocols."""
    for name in COUNTS_OF_TCP:
        counts, before = getattr(store, name)[slots], getattr(store, f"{name}_reported")
        if counts.any():  # of the next connection with these ports, a socket has counted less
            records[f"{name}_delta"] = counts - np.where(counts < before[slots], np.uint32(0), before[slots])
            before[slots] = counts
    for name in _TIMES_OF_TCP:
        at_ns = getattr(store, f"{name}_ns")[slots]
        if at_ns.any():
            records[f"{name}_ms"] = event_ms(at_ns, unix_offset_ns)


EVENTS = 262_144
"""Maximum number of events, about 10 octets each; a TCP flow has three to five."""


class FlagLog:
    """Log of when flows showed TCP control bits for the first time.

    Args:
        events: maximum number of events; the oldest are dropped.
    """

    def __init__(self, events: int = EVENTS) -> None:
        self._most = events
        self._count = 0
        self._events: deque[tuple[int, U8, npt.NDArray[np.uint16]]] = deque()

    @property
    def nbytes(self) -> int:
        """Octets of memory."""
        return sum(ids.nbytes + bits.nbytes for _, ids, bits in self._events)

    def add(self, now_ns: int, flow_ids: U8, bits: npt.NDArray[np.uint16]) -> None:
        """Log new bits of flows. More flows than `events` in one call are not kept."""
        if not len(flow_ids):
            return
        self._events.append((now_ns, flow_ids, bits))
        self._count += len(flow_ids)
        while self._count > self._most:
            self._count -= len(self._events.popleft()[1])

    def of(self, flow_id: int) -> list[tuple[int, int]]:
        """The events of a flow, oldest first: (time in ns at which the bits were noticed, bits)."""
        number = np.uint64(flow_id)
        return [(at_ns, int(np.bitwise_or.reduce(bits[ids == number])))
                for at_ns, ids, bits in self._events if (ids == number).any()]


CHUNK = 16_384
"""Entries processed at once: limits how long other threads wait, and fits the CPU caches."""


class Flows:
    """The flows of a FlowTable.

    Args:
        config: timeouts and limits.
        rng: seeds the hash.

    Attributes:
        unix_offset_ns: that of the latest FlowBatch.
    """

    def __init__(self, config: TableConfig, rng: np.random.Generator) -> None:
        self.unix_offset_ns = 0
        self.store = FlowStore()
        self.index = KeyIndex(rng)
        self.rates = Rates(self.store, round(config.least_tick_s * 1e9))
        self.dedupe = None if config.dedupe == "off" else Deduplicator(self.store, rng)
        self.timeouts = Timeouts(*(round(s * 1e9) for s in (
            config.idle_timeout_s, config.active_timeout_s, config.end_timeout_s)))
        self.lingering = Lingering(round(config.linger_s * 1e9), config.max_flows // 4)
        self.flags = FlagLog()
        self.sequences = Sequences(self.store, self.index)
        self._dropping = config.dedupe == "drop"
        self._next_id = 1

    @property
    def nbytes(self) -> int:
        """Octets of memory."""
        dedupe = self.dedupe.nbytes if self.dedupe else 0
        kept = self.flags.nbytes + self.sequences.nbytes
        return self.store.nbytes + self.index.nbytes + self.rates.nbytes + dedupe + kept

    def add_entries(self, batch: FlowBatch, now_ns: int) -> Slots:
        """Add counters to flows, creating new ones; returns each entry's slot."""
        self.name_known(batch.names)
        parts: list[Slots] = [np.empty(0, np.int64)]
        born: list[Slots] = []
        words = as_words(batch.keys)
        for start in range(0, len(words), CHUNK):
            keys, counters = words[start:start + CHUNK], batch.counters[start:start + CHUNK]
            hashes = self.index.hash(keys)
            slots = self.index.find(keys, hashes, self.store.key_words)
            missing = np.flatnonzero(slots < 0)
            if len(missing):
                before = None if batch.conversations is None else batch.conversations[start + missing]
                slots[missing] = self.give_birth(keys[missing], chosen(counters, missing), before, batch.names)
                if batch.described is not None:  # as other values of CARRIED, the bits are of the first record
                    self.store.record_bits[slots[missing]] = batch.described["record_bits"][start + missing]
                self.index.insert(hashes[missing], slots[missing])
                born.append(slots[missing])
            self.note_flags(now_ns, slots, self.add(slots, counters))
            parts.append(slots)
        for part in born:
            answer_echoes(self.store, self.index, part)
        if self.dedupe:
            self.dedupe.join(born)
        slots = np.concatenate(parts)
        if batch.described is not None:
            self.store.flow_count[slots] += batch.described["flow_count"]
        if batch.other_ifindexes is not None:
            self.store.collected = True
            known = batch.other_ifindexes != 0
            self.store.other_ifindex[slots[known]] = batch.other_ifindexes[known]
        if batch.reported is not None:
            self.store.report(slots, batch.reported)
            note_measured(self.store, slots, batch.reported)
        return slots

    def name_known(self, names: PeerNames | None) -> None:
        """Give flows of the table the names that they themselves have shown since the last call."""
        news = None if names is None else names.take_news()
        if news is not None:
            keys = as_words(news[0])
            slots = self.index.find(keys, self.index.hash(keys), self.store.key_words)
            there = slots >= 0
            self.store.peer_name[slots[there]] = news[1][there]

    def give_birth(self, keys: Words, counters: npt.NDArray[np.void], conversations: Words | None = None,
                   names: PeerNames | None = None) -> Slots:
        """Create flows with the values of their first packet. They are not in the index yet.

        Args:
            conversations: see FlowBatch.
            names: gives them the names of their peers.
        """
        store = self.store
        slots = store.allocate(len(keys))
        store.place(slots, keys, conversations)
        store.flow_id[slots] = np.arange(self._next_id, self._next_id + len(slots), dtype=np.uint64)
        self._next_id += len(slots)
        for name, merge in CARRIED.items():
            if merge != "sum" and not (name in SELDOM and not counters[name].any()):  # `add` comes after this
                getattr(store, name)[slots] = latest(np.zeros(len(slots), np.uint64), counters[name]) if (
                    merge == "known") else counters[name]
        note_echoes(store, slots, counters)
        store.first_ns[slots] = store.reported_ns[slots] = counters["first_ns"]
        store.born_bucket[slots] = self.rates.bucket_number
        found = None if names is None else names.of_new(keys.view(FLOW_KEY_DTYPE)[:, 0], counters["first_ns"])
        if found is not None:
            store.peer_name[slots] = found
        return slots

    def add(self, slots: Slots, counters: npt.NDArray[np.void]) -> npt.NDArray[np.uint16]:
        """Add counters to flows, each once; returns the TCP control bits that each had not shown before."""
        store = self.store
        if store.native is not None:
            self._merge(slots, counters, LATER.keys() - MERGED)
            return add_entries(store.native, store, slots, counters)
        packets, octets = np.ascontiguousarray(counters["packets"]), np.ascontiguousarray(counters["octets"])
        store.packet_total[slots] += packets
        store.octet_total[slots] += octets
        self._merge(slots, counters, LATER.keys())
        store.last_ns[slots] = np.maximum(store.last_ns[slots], counters["last_ns"].astype(np.int64))
        # These seldom change: write only where they do.
        first_ns = counters["first_ns"].astype(np.int64)
        earlier = first_ns < store.first_ns[slots]
        if earlier.any():
            store.first_ns[slots[earlier]] = first_ns[earlier]
        old_bits = store.tcp_control_bits[slots]
        bits = old_bits | tcp_control_bits(counters["tcp_bit_seen"][:, :TCP_OPENING_BIT])
        changed = bits != old_bits
        store.tcp_control_bits[slots[changed]] = bits[changed]
        store.opening[slots[counters["tcp_bit_seen"][:, TCP_OPENING_BIT] != 0]] = True
        note_times(store, slots, counters)
        note_sockets(store, slots, counters)
        self.rates.add(slots, packets, octets)
        return bits & ~old_bits

    def _merge(self, slots: Slots, counters: npt.NDArray[np.void], names: Set[str]) -> None:
        """Merge these values of CARRIED, before `last_ns` is that of these counters."""
        for name in names:
            if changes_nothing(LATER[name], counters[name]):
                continue
            column = getattr(self.store, name)
            newer = counters["last_ns"].astype(np.int64) >= self.store.last_ns[slots]
            column[slots] = merged(LATER[name], column[slots], counters[name], newer)

    def note_flags(self, now_ns: int, slots: Slots, bits: npt.NDArray[np.uint16]) -> None:
        """Log bits that these flows had not shown before."""
        some = np.flatnonzero(bits)
        self.flags.add(now_ns, self.store.flow_id[slots[some]], bits[some])

    def report_active(self, slots: Slots, now_ns: int | I8) -> FlowRecords:
        """Records of flows that continue. A flow without new packets waits another active timeout.

        Args:
            now_ns: one for all, or one for each.
        """
        store = self.store
        store.reported_ns[slots] = now_ns
        news = slots[self._unreported(slots)]
        return self.report(news, EndReason.ACTIVE_TIMEOUT, store.reported_ns[news])

    def finish(self, slots: Slots, reason: EndReason, now_ns: int | I8) -> FlowRecords:
        """End flows, which remain in the index. Arguments as in `report_active`."""
        self.store.end_reason[slots] = reason
        records = self.report(slots, reason, now_ns)
        self.store.reported_ns[slots] = now_ns
        return records

    def _unreported(self, slots: Slots) -> npt.NDArray[np.bool_]:
        """Which flows have traffic that is in no record; some exporters report octets only."""
        store = self.store
        unreported: npt.NDArray[np.bool_] = (store.packet_total[slots] != store.packet_reported[slots]) | (
            store.octet_total[slots] != store.octet_reported[slots])
        return unreported

    def forget(self, slots: Slots) -> None:
        """Remove ended flows from the index, so that the next packet of the key starts another flow."""
        for start in range(0, len(slots), CHUNK):
            part = slots[start:start + CHUNK]
            self.index.remove(self.store.key_words[part], part)
        if self.dedupe:
            self.dedupe.leave(slots)

    def end(self, slots: Slots, reason: EndReason, now_ns: int) -> FlowRecords:
        """End flows, which remain visible for a while."""
        records = self.finish(slots, reason, now_ns)
        self.forget(slots)
        self.lingering.add(now_ns, slots)
        return records

    def report(self, slots: Slots, reason: EndReason, now_ns: int | I8) -> FlowRecords:
        """Make the records. If duplicates are dropped, only those of duplicates with unreported traffic."""
        store = self.store
        if self._dropping:
            chosen = ~store.duplicate[slots] | self._unreported(slots)
            slots, now_ns = slots[chosen], now_ns[chosen] if isinstance(now_ns, np.ndarray) else now_ns
        records = report(store, slots, reason, now_ns, self.unix_offset_ns)
        if self._dropping:  # a former primary: its packets are in no other record
            records["duplicate"] = False
        return records
