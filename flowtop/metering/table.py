"""The flow table: FlowBatches in, Flow Records out, columns to look at in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.dedupe import Deduplicator, heads_of
from flowtop.metering.expiry import Lingering, Timeouts, due, least_recent
from flowtop.metering.flag_log import FlagLog
from flowtop.metering.key_index import KeyIndex, Slots, as_words
from flowtop.metering.rates import Rates
from flowtop.metering.records import Reporting, no_records, report
from flowtop.metering.sequences import Sequences
from flowtop.metering.store import U8, FlowStore
from flowtop.metering.tcp import note_sockets, note_times
from flowtop.metering.totals import MeteringTotals, with_observed
from flowtop.record import FLOW_KEY_DTYPE, TCP_OPENING_BIT, Direction, EndReason, FlowBatch, FlowRecords, Kind

CHUNK = 16_384
"""Entries worked on at once: bounds how long other threads wait, and fits the caches."""


LONG_TICK_NS = 2_000_000_000
"""In a tick that has gone on for this long flows end between batches too."""

LINGER_ROOM = 131_072
"""Flows past max_flows that may have ended in an open tick and wait to be shown: two full maps."""

_KEY_FIELDS = frozenset(FLOW_KEY_DTYPE.names or ())


@dataclass(frozen=True, slots=True)
class TableConfig:
    """How flows end and what is kept.

    Attributes:
        idle_timeout_s: without a packet, until a flow ends.
        active_timeout_s: between two records of a flow that goes on.
        end_timeout_s: without a packet after FIN or RST, until a flow ends.
        linger_s: how long an ended flow stays visible; always until the end of the next tick, and one that is kept for
            as long as that: see FlowTable.keep.
        least_tick_s: rates are of this time at least: the last tick of a file may end with its last packet, and no
            packet came at a megabit a second because there was one in the file's last microseconds.
        max_flows: live flows; past it the least recently active end. A quarter more may linger, and those that end
            in a tick until it is shown.
        dedupe: what becomes of flows whose packets another Observation Point's flow counts already: marked; dropped
            (neither shown nor in records, though in the books); or nothing is looked for.
    """

    idle_timeout_s: float = 15
    active_timeout_s: float = 60
    end_timeout_s: float = 2
    linger_s: float = 10
    least_tick_s: float = 0.001
    max_flows: int = 1_000_000
    dedupe: Literal["mark", "drop", "off"] = "mark"


class TableColumns:
    """The store's fields by name, one element a slot below top. Names: view.flows.FLOW_COLUMN_DTYPES."""

    def __init__(self, store: FlowStore) -> None:
        self._store = store

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        store = self._store
        if name == "conversation":
            return heads_of(store)
        column: npt.NDArray[Any] = store.keys[name] if name in _KEY_FIELDS else getattr(store, name)
        return column[:store.top]


class FlowTable:
    """All flows of one run. Used by one thread; time is what batches say it is.

    Args:
        config: timeouts and bounds.
        rng: seeds the hash against chosen keys; unpredictable when not given.
    """

    def __init__(self, config: TableConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng() if rng is None else rng
        self.config = config
        self.now_ns = 0
        self.unix_offset_ns = 0
        self.totals = MeteringTotals()
        self._store = FlowStore()
        self._index = KeyIndex(rng)
        self._rates = Rates(self._store, round(config.least_tick_s * 1e9))
        self._dedupe = None if config.dedupe == "off" else Deduplicator(self._store, rng)
        self._timeouts = Timeouts(*(round(s * 1e9) for s in (
            config.idle_timeout_s, config.active_timeout_s, config.end_timeout_s)))
        self._lingering = Lingering(round(config.linger_s * 1e9), config.max_flows // 4)
        self._next_id = 1
        self._flags = FlagLog()
        self._sequences = Sequences(self._store, self._index)
        self._kept: frozenset[int] = frozenset()
        self._overdue: Slots = np.empty(0, np.int64)
        self._open_tick = _TickSums()
        self._expired_ns = 0

    @property
    def columns(self) -> TableColumns:
        """Every column over all slots; `visible` says which hold a flow."""
        return TableColumns(self._store)

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """Slots to show: live and lingering flows, without duplicates when they are dropped."""
        store = self._store
        occupied = store.occupied[:store.top]
        return occupied & ~store.duplicate[:store.top] if self.config.dedupe == "drop" else occupied

    @property
    def dedupes(self) -> bool:
        """Whether duplicates are looked for."""
        return self._dedupe is not None

    @property
    def live_flows(self) -> int:
        """Flows that have not ended, duplicates included."""
        return self._store.occupied_count - self._lingering.count - len(self._overdue)

    @property
    def tick_s(self) -> float:
        """Length of the last tick, in s, > 0."""
        return self._rates.tick_s

    @property
    def window_10s_s(self) -> float:
        """What the 10 s sums cover, in s, > 0."""
        return self._rates.window_10s_s

    @property
    def window_60s_s(self) -> float:
        """What the 60 s sums cover, in s, > 0."""
        return self._rates.window_60s_s

    def keep(self, flow_ids: frozenset[int]) -> None:
        """Somebody looks at these flows: when they have ended they stay visible until others are kept, or none."""
        if flow_ids != self._kept:
            self._kept = flow_ids
            overdue, self._overdue = self._overdue, self._overdue[:0]
            self._release(overdue)

    def history(self, slot: int) -> list[tuple[int, int]]:
        """Of the flow in that slot: (length in ns, octets) of each second or so, oldest first; see Rates.history."""
        return self._rates.history(slot)

    def flags(self, slot: int) -> list[tuple[int, int]]:
        """Of the flow in that slot: (time in ns by which they had been seen, TCP control bits), as far as is known."""
        return self._flags.of(int(self._store.flow_id[slot]))

    def reporting(self, slot: int) -> Reporting:
        """Of the flow in that slot: what its Flow Records have told."""
        store = self._store
        at_ns = int(store.reported_ns[slot])
        due_ns = None if store.end_reason[slot] else at_ns + self._timeouts.active_ns
        return Reporting(int(store.record_count[slot]), int(store.packet_reported[slot]),
                         int(store.octet_reported[slot]), at_ns, due_ns)

    @property
    def nbytes(self) -> int:
        """Octets of memory held."""
        dedupe = self._dedupe.nbytes if self._dedupe else 0
        kept = self._flags.nbytes + self._sequences.nbytes
        return self._store.nbytes + self._index.nbytes + self._rates.nbytes + dedupe + kept

    def update(self, batch: FlowBatch) -> FlowRecords:
        """A tick of one batch: `accumulate`, then `close_tick`."""
        return np.concatenate((self.accumulate(batch), self.close_tick()))

    def accumulate(self, batch: FlowBatch) -> FlowRecords:
        """Add a batch to flows and books, find duplicates. A tick may have several batches, or none.

        Returns:
            Records of flows that ended: past `max_flows`, and by their timeouts where the tick goes on for long.
        """
        self._rates.start(int(batch.counters["first_ns"].min(initial=batch.now_ns)))
        self.now_ns = max(batch.now_ns, self.now_ns)
        self.unix_offset_ns = batch.unix_offset_ns
        slots = self._add_entries(batch)
        if batch.segments is not None:
            self._sequences.note(slots, batch.segments)
        if self._dedupe:
            self._dedupe.take_over(slots)
        self._book(batch, slots)
        if self.live_flows <= self.config.max_flows and self.now_ns - self._expired_ns < LONG_TICK_NS:
            return no_records()
        records = self._expire()
        self._give_up()
        return records

    def close_tick(self) -> FlowRecords:
        """End the tick at the last batch's time: rates, then expiry.

        Returns:
            Records of flows that ended or whose active timeout came.
        """
        self.totals = replace(self.totals, **self._open_tick._asdict())
        self._open_tick = _TickSums()
        self._rates.close_tick(self.now_ns)
        self._release(self._lingering.leave(self.now_ns))
        self._release(self._lingering.overflow())
        records = self._expire()
        self._lingering.mark()
        return records

    def end_all(self, now_ns: int) -> FlowRecords:
        """End every live flow by FORCED_END: the last records of a run."""
        self.now_ns = max(now_ns, self.now_ns)
        return self._end(np.flatnonzero(self._store.live), EndReason.FORCED_END)

    def _add_entries(self, batch: FlowBatch) -> Slots:
        """Add the counters to flows, new ones are born; gives each entry's slot."""
        parts: list[Slots] = [np.empty(0, np.int64)]
        born: list[Slots] = []
        words = as_words(batch.keys)
        for start in range(0, len(words), CHUNK):
            keys, counters = words[start:start + CHUNK], batch.counters[start:start + CHUNK]
            hashes = self._index.hash(keys)
            slots = self._index.find(keys, hashes, self._store.key_words)
            missing = np.flatnonzero(slots < 0)
            if len(missing):
                slots[missing] = self._give_birth(keys[missing], counters[missing])
                self._index.insert(hashes[missing], slots[missing])
                born.append(slots[missing])
            self._add(slots, counters)
            parts.append(slots)
        if self._dedupe:
            self._dedupe.join(born)
        slots = np.concatenate(parts)
        if batch.other_ifindexes is not None:
            told = batch.other_ifindexes != 0
            self._store.other_ifindex[slots[told]] = batch.other_ifindexes[told]
        return slots

    def _give_birth(self, keys: npt.NDArray[np.uint64], counters: npt.NDArray[np.void]) -> Slots:
        """New flows, with what they have from their first packet."""
        store = self._store
        slots = store.allocate(len(keys))
        store.key_words[slots] = keys
        store.flow_id[slots] = np.arange(self._next_id, self._next_id + len(slots), dtype=np.uint64)
        self._next_id += len(slots)
        for name in ("source_mac", "destination_mac", "tos", "ttl", "socket_cookie"):
            getattr(store, name)[slots] = counters[name]
        store.first_ns[slots] = store.reported_ns[slots] = counters["first_ns"]
        store.born_bucket[slots] = self._rates.bucket_number
        return slots

    def _add(self, slots: Slots, counters: npt.NDArray[np.void]) -> None:
        store = self._store
        packets, octets = np.ascontiguousarray(counters["packets"]), np.ascontiguousarray(counters["octets"])
        store.packet_total[slots] += packets
        store.octet_total[slots] += octets
        store.last_ns[slots] = np.maximum(store.last_ns[slots], counters["last_ns"].astype(np.int64))
        # Known flows seldom change in these: write only where they do.
        first_ns = counters["first_ns"].astype(np.int64)
        earlier = first_ns < store.first_ns[slots]
        if earlier.any():
            store.first_ns[slots[earlier]] = first_ns[earlier]
        old_bits = store.tcp_control_bits[slots]
        bits = old_bits | _tcp_control_bits(counters["tcp_bit_seen"][:, :TCP_OPENING_BIT])
        changed = bits != old_bits
        self._flags.add(self.now_ns, store.flow_id[slots[changed]], (bits & ~old_bits)[changed])
        store.tcp_control_bits[slots[changed]] = bits[changed]
        store.opening[slots[counters["tcp_bit_seen"][:, TCP_OPENING_BIT] != 0]] = True
        note_times(store, slots, counters)
        note_sockets(store, slots, counters)
        self._rates.add(slots, packets, octets)

    def _book(self, batch: FlowBatch, slots: Slots) -> None:
        """Bring the totals up to this batch."""
        store, old = self._store, with_observed(self.totals, batch.observations)
        packets, octets = batch.counters["packets"], batch.counters["octets"]
        aggregate = batch.keys["kind"] == Kind.AGGREGATE
        own = batch.keys["kind"] != Kind.PARENT  # a parent's packets are those of the flows it carries
        duplicate = store.duplicate[slots]
        # In drop mode no record tells the duplicates' packets: the primary's do.
        told = ((store.packet_reported, store.octet_reported) if self.config.dedupe == "drop"
                else (store.packet_duplicate, store.octet_duplicate))
        for sums, gained in zip(told, (packets, octets), strict=True):
            sums[slots[duplicate]] += gained[duplicate]
        self._open_tick = self._open_tick.plus(batch.keys["direction"], packets, octets, own & ~duplicate)
        duplicate &= own
        self.totals = replace(
            old,
            accounted_packets=old.accounted_packets + int(packets[own].sum()),
            accounted_octets=old.accounted_octets + int(octets[own].sum()),
            aggregated_packets=old.aggregated_packets + int(packets[aggregate].sum()),
            aggregated_octets=old.aggregated_octets + int(octets[aggregate].sum()),
            duplicate_packets=old.duplicate_packets + int(packets[duplicate].sum()),
            duplicate_octets=old.duplicate_octets + int(octets[duplicate].sum()))

    def _expire(self) -> FlowRecords:
        records: list[FlowRecords] = []
        for reason, slots in due(self._store, self.now_ns, self._timeouts):
            if reason == EndReason.ACTIVE_TIMEOUT:
                records.append(self._report_active(slots))
            else:
                records.append(self._end(slots, reason))
        surplus = self.live_flows - self.config.max_flows
        if surplus > 0:
            self.totals = replace(self.totals, evicted_flows=self.totals.evicted_flows + surplus)
            records.append(self._end(least_recent(self._store, surplus), EndReason.LACK_OF_RESOURCES))
        self._expired_ns = self.now_ns
        return np.concatenate(records) if records else no_records()

    def _give_up(self) -> None:
        """Bound what ended in an open tick: what no page will show is at least counted."""
        slots = self._lingering.give_up(self.config.max_flows + LINGER_ROOM)
        if len(slots):
            store = self._store
            own = slots[store.keys["kind"][slots] != Kind.PARENT]
            self.totals = replace(
                self.totals,
                unlisted_packets=self.totals.unlisted_packets + int(store.open_packets[own].sum()),
                unlisted_octets=self.totals.unlisted_octets + int(store.open_octets[own].sum()))
            self._release(slots)

    def _report_active(self, slots: Slots) -> FlowRecords:
        """Records of flows that go on; one that has nothing new to tell waits another active timeout."""
        store = self._store
        store.reported_ns[slots] = self.now_ns
        news = slots[store.packet_total[slots] != store.packet_reported[slots]]
        return self._report(news, EndReason.ACTIVE_TIMEOUT)

    def _end(self, slots: Slots, reason: EndReason) -> FlowRecords:
        """Flows end: out of the index, so that the next packet of that key starts another flow; still visible."""
        store = self._store
        store.end_reason[slots] = reason
        records = self._report(slots, reason)
        store.reported_ns[slots] = self.now_ns
        for start in range(0, len(slots), CHUNK):
            part = slots[start:start + CHUNK]
            self._index.remove(store.key_words[part], part)
        if self._dedupe:
            self._dedupe.leave(slots)
        self._lingering.add(self.now_ns, slots)
        return records

    def _report(self, slots: Slots, reason: EndReason) -> FlowRecords:
        store = self._store
        dropping = self.config.dedupe == "drop"
        if dropping:
            slots = slots[~store.duplicate[slots] | (store.packet_total[slots] != store.packet_reported[slots])]
        records = report(store, slots, reason, self.now_ns, self.unix_offset_ns)
        if dropping:  # a former primary's: what it tells, nobody else does
            records["duplicate"] = False
        return records

    def _release(self, slots: Slots) -> None:
        """Forget flows, but for those that are kept."""
        if self._kept:
            kept = np.isin(self._store.flow_id[slots], np.array(list(self._kept), np.uint64))
            self._overdue = np.concatenate((self._overdue, slots[kept]))
            slots = slots[~kept]
        if len(slots):
            self._store.release(slots)


class _TickSums(NamedTuple):
    """MeteringTotals' tick_* of a tick that is not over."""

    tick_ingress_packets: int = 0
    tick_ingress_octets: int = 0
    tick_egress_packets: int = 0
    tick_egress_octets: int = 0

    def plus(self, direction: npt.NDArray[np.uint8], packets: U8, octets: U8,
             counts: npt.NDArray[np.bool_]) -> _TickSums:
        """With the traffic of those entries that count."""
        egress = counts & (direction == Direction.EGRESS)
        ingress = counts & ~egress
        return _TickSums(*(old + int(sums[chosen].sum()) for old, sums, chosen in zip(
            self, (packets, octets, packets, octets), (ingress, ingress, egress, egress), strict=True)))


def _tcp_control_bits(seen: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """tcp_bit_seen, shape (n, 12), as IE 6: bit i set where column i is."""
    columns = np.zeros((len(seen), 16), np.uint8)  # one row of bits after another: five times as fast as by rows
    columns[:, :seen.shape[1]] = seen
    bits: npt.NDArray[np.uint16] = np.packbits(columns, bitorder="little").view("<u2")
    return bits
