"""The flow table: FlowBatches in, Flow Records out, columns for queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.bulk.steps import carry_out, independent, plan, single_steps
from flowtop.metering.dedupe import heads_of
from flowtop.metering.expiry import due, least_recent
from flowtop.metering.flows import Flows, Reporting, no_records
from flowtop.metering.flows import TableConfig as TableConfig
from flowtop.metering.key_index import Slots
from flowtop.metering.repeats import Repeats
from flowtop.metering.store import U8, FlowStore
from flowtop.model.kinds import IGNORED_KINDS, Direction, EndReason, Kind
from flowtop.model.record import FLOW_KEY_DTYPE, FlowBatch, FlowRecords, Steps, joined
from flowtop.model.reported import REPORTED, absent
from flowtop.native.sums import Sums, sum_entries


@dataclass(frozen=True, slots=True)
class MeteringTotals:
    """Sums since the start and of the last tick. Packets are wire packets, octets IP octets.

    Counted by the table: `accounted_*`, `aggregated_*` (in AGGREGATE entries), `duplicate_*`, `evicted_flows`, and
    `unlisted_*` (flows that began and ended between two pages, too many to keep until the second). From the capture,
    summed over Observation Points: observed, encapsulation (octets around inner packets, in no other sum), ignored,
    filtered (by the capture filter), lost, unjoined, lying (packets whose header's length is larger than the frame, and
    was not believed), decrypted (by IPsec, in no other sum) and interface figures. `tick_*`: the last tick by
    direction, without duplicates; an unknown direction counts as ingress.
    """

    accounted_packets: int = 0
    accounted_octets: int = 0
    aggregated_packets: int = 0
    aggregated_octets: int = 0
    duplicate_packets: int = 0
    duplicate_octets: int = 0
    evicted_flows: int = 0
    unlisted_packets: int = 0
    unlisted_octets: int = 0
    observed_packets: int = 0
    observed_octets: int = 0
    encapsulation_octets: int = 0
    ignored_packets: int = 0
    ignored_octets: int = 0
    ignored_by_kind: tuple[int, ...] = (0,) * len(IGNORED_KINDS)
    lost_packets: int = 0
    lost_octets: int = 0
    filtered_packets: int = 0
    filtered_octets: int = 0
    unjoined_fragments: int = 0
    lying_lengths: int = 0
    decrypted_packets: int = 0
    decrypted_octets: int = 0
    interface_packets: int = 0
    tick_ingress_packets: int = 0
    tick_ingress_octets: int = 0
    tick_egress_packets: int = 0
    tick_egress_octets: int = 0


def with_observed(totals: MeteringTotals, observations: npt.NDArray[np.void]) -> MeteringTotals:
    """The totals with the capture's figures replaced by those of OBSERVATION_DTYPE, shape (m,)."""
    by_kind = tuple(int(n) for n in observations["ignored_packets"].sum(axis=0))
    return replace(
        totals,
        observed_packets=int(observations["packets"].sum()),
        observed_octets=int(observations["octets"].sum()),
        encapsulation_octets=int(observations["encapsulation_octets"].sum()),
        ignored_packets=sum(by_kind),
        ignored_octets=int(observations["ignored_octets"].sum()),
        ignored_by_kind=by_kind,
        lost_packets=int(observations["lost_packets"].sum()),
        lost_octets=int(observations["lost_octets"].sum()),
        filtered_packets=int(observations["filtered_packets"].sum()),
        filtered_octets=int(observations["filtered_octets"].sum()),
        unjoined_fragments=int(observations["unjoined_fragments"].sum()),
        lying_lengths=int(observations["lying_lengths"].sum()),
        decrypted_packets=int(observations["decrypted_packets"].sum()),
        decrypted_octets=int(observations["decrypted_octets"].sum()),
        interface_packets=int(observations["interface_packets"].sum()),
    )


LONG_TICK_NS = 2_000_000_000
"""In a tick longer than this, flows also end between batches."""

LINGER_ROOM = 131_072
"""Limit, beyond max_flows, of flows that ended in an open tick and wait to be shown: two full maps."""

_KEY_FIELDS = frozenset(FLOW_KEY_DTYPE.names or ())
_REPORTED = frozenset(REPORTED)


class TableColumns:
    """The store's fields by name, one item per slot below top. Names: model.flows.FLOW_COLUMN_DTYPES."""

    def __init__(self, store: FlowStore) -> None:
        self._store = store

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        store = self._store
        if name == "conversation":
            return heads_of(store)
        if name in _REPORTED:
            return absent(name, store.top) if store.reported is None else store.reported[name][:store.top]
        column: npt.NDArray[Any] = store.keys[name] if name in _KEY_FIELDS else getattr(store, name)
        return column[:store.top]


class FlowTable:
    """All flows of one run. Not thread-safe; the time is that of the batches.

    Args:
        config: timeouts and limits.
        rng: seeds the hash, so that keys cannot be chosen to collide; unpredictable by default.
    """

    def __init__(self, config: TableConfig, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng() if rng is None else rng
        self.config = config
        self.now_ns = 0
        self.unix_offset_ns = 0
        self.then_ns: int | None = None
        self.totals = MeteringTotals()
        self._flows = flows = Flows(config, rng)
        self._store, self._rates, self._lingering = flows.store, flows.rates, flows.lingering
        self._dedupe = flows.dedupe
        self._kept: frozenset[int] = frozenset()
        self._overdue: Slots = np.empty(0, np.int64)
        self._open_tick = _TickSums()
        self._expired_ns = 0

    @property
    def columns(self) -> TableColumns:
        """All columns; `visible` marks the slots that hold a flow."""
        return TableColumns(self._store)

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """Mask of slots to show: live and lingering flows; without duplicates if they are dropped."""
        store = self._store
        occupied = store.occupied[:store.top]
        return occupied & ~store.duplicate[:store.top] if self.config.dedupe == "drop" else occupied

    @property
    def dedupes(self) -> bool:
        """Whether duplicates are detected."""
        return self._dedupe is not None

    @property
    def live_flows(self) -> int:
        """Number of flows that have not ended, including duplicates."""
        return self._store.occupied_count - self._lingering.count - len(self._overdue)

    @property
    def tick_s(self) -> float:
        """Length of the last tick, in s, > 0."""
        return self._rates.tick_s

    @property
    def window_10s_s(self) -> float:
        """Time covered by the 10 s sums, in s, > 0."""
        return self._rates.window_10s_s

    @property
    def window_60s_s(self) -> float:
        """Time covered by the 60 s sums, in s, > 0."""
        return self._rates.window_60s_s

    def keep(self, flow_ids: frozenset[int]) -> None:
        """Keep these flows visible after they end, until the next call; used for flows on display."""
        if flow_ids != self._kept:
            self._kept = flow_ids
            overdue, self._overdue = self._overdue, self._overdue[:0]
            self._release(overdue)

    def history(self, slot: int) -> list[tuple[int, int]]:
        """Traffic of the flow in that slot: (length in ns, octets) per second, oldest first; see Rates.history."""
        return self._rates.history(slot)

    def histories(self, groups: Sequence[Slots]) -> list[tuple[int, list[int]]]:
        """Traffic of groups of flows, of each together, as `history`; see Rates.histories."""
        return self._rates.histories(groups)

    def flags(self, slot: int) -> list[tuple[int, int]]:
        """TCP flags of the flow in that slot: (time in ns when noticed, TCP control bits), as far as known."""
        return self._flows.flags.of(int(self._store.flow_id[slot]))

    def reporting(self, slot: int) -> Reporting:
        """What the Flow Records of the flow in that slot have reported."""
        store = self._store
        at_ns = int(store.reported_ns[slot])
        due_ns = None if store.end_reason[slot] else at_ns + self._flows.timeouts.active_ns
        return Reporting(int(store.record_count[slot]), int(store.packet_reported[slot]),
                         int(store.octet_reported[slot]), at_ns, due_ns)

    @property
    def nbytes(self) -> int:
        """Octets of memory."""
        return self._flows.nbytes

    def update(self, batch: FlowBatch) -> FlowRecords:
        """Process a tick of one batch: `accumulate`, then `close_tick`."""
        return joined((self.accumulate(batch), self.close_tick()))

    def accumulate(self, batch: FlowBatch) -> FlowRecords:
        """Add a batch to flows and totals, and detect duplicates. A tick may have several batches, or none.

        Returns:
            Records of flows that ended: beyond `max_flows`, and by timeouts if the tick is long.
        """
        if batch.names is not None:
            batch.names.forget_but(lambda: self._store.peer_name[:self._store.top])
        if batch.steps is not None:
            return self._accumulate_steps(batch, batch.steps)
        self._rates.start(int(batch.counters["first_ns"].min(initial=batch.now_ns)))
        since_ns, self.now_ns = self.now_ns, max(batch.now_ns, self.now_ns)
        self.unix_offset_ns = self._flows.unix_offset_ns = batch.unix_offset_ns
        slots = self._flows.add_entries(batch, self.now_ns)
        if batch.segments is not None:
            self._flows.sequences.note(slots, batch.segments)
        repeats = self._dedupe.match(slots, batch.counters, since_ns) if self._dedupe else None
        self._book(batch, slots, repeats)
        if self.live_flows <= self.config.max_flows and self.now_ns - self._expired_ns < LONG_TICK_NS:
            return no_records()
        records = self._expire()
        self._give_up()
        return records

    def _accumulate_steps(self, batch: FlowBatch, steps: Steps) -> FlowRecords:
        """Process all steps at once if the result is the same, else one by one."""
        ends = self._ends(steps)
        planned = plan(self._flows, batch, steps, ends) if independent(self._flows, batch, steps) else None
        if (planned is None or self.live_flows + planned.births > self.config.max_flows
                or self._lingering.count + planned.deaths > self.config.max_flows + LINGER_ROOM):
            return joined([self.accumulate(part) for part in single_steps(batch, steps)])
        self._rates.start(int(batch.counters["first_ns"].min(initial=steps.now_ns[0])))
        self.now_ns = int(steps.now_ns[-1])
        self.unix_offset_ns = self._flows.unix_offset_ns = batch.unix_offset_ns
        slots, records = carry_out(self._flows, batch, steps, planned)
        self._book(batch, slots)
        if len(ends):
            self._expired_ns = int(steps.now_ns[ends[-1]])
        return records

    def _ends(self, steps: Steps) -> npt.NDArray[np.int64]:
        """The steps after which flows may end."""
        ends, expired_ns = [], self._expired_ns
        for step, now_ns in enumerate(steps.now_ns.tolist()):
            if now_ns - expired_ns >= LONG_TICK_NS:
                ends.append(step)
                expired_ns = now_ns
        return np.array(ends, np.int64)

    def close_tick(self) -> FlowRecords:
        """End the tick at the last batch's time: update rates, then expire flows.

        Returns:
            Records of flows that ended or whose active timeout was reached.
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
        """End every live flow by FORCED_END; returns the last records of a run."""
        self.now_ns = max(now_ns, self.now_ns)
        return self._flows.end(np.flatnonzero(self._store.live), EndReason.FORCED_END, self.now_ns)

    def _book(self, batch: FlowBatch, slots: Slots, repeats: Repeats | None = None) -> None:
        """Add this batch to the totals."""
        store, old = self._store, with_observed(self.totals, batch.observations)
        once_packets = once_octets = None
        duplicate_packets = duplicate_octets = 0
        if repeats is not None:
            rows = repeats.rows
            # In drop mode no record reports duplicates: other records do.
            counters = ((store.packet_reported, store.octet_reported) if self.config.dedupe == "drop"
                        else (store.packet_duplicate, store.octet_duplicate))
            for sums, gained in zip(counters, (repeats.packets, repeats.octets), strict=True):
                sums[slots[rows]] += gained
            own = batch.keys["kind"][rows] != Kind.PARENT
            once_packets, once_octets = batch.counters["packets"].copy(), batch.counters["octets"].copy()
            once_packets[rows] -= repeats.packets
            once_octets[rows] -= repeats.octets
            duplicate_packets = int(repeats.packets[own].sum())
            duplicate_octets = int(repeats.octets[own].sum())
        of_batch = (_sums(batch.keys, batch.counters, once_packets, once_octets) if store.native is None else
                    sum_entries(store.native, batch.keys, batch.counters, once_packets, once_octets))
        self._open_tick = self._open_tick.plus(of_batch)
        self.totals = replace(
            old,
            accounted_packets=old.accounted_packets + of_batch.accounted_packets,
            accounted_octets=old.accounted_octets + of_batch.accounted_octets,
            aggregated_packets=old.aggregated_packets + of_batch.aggregated_packets,
            aggregated_octets=old.aggregated_octets + of_batch.aggregated_octets,
            duplicate_packets=old.duplicate_packets + duplicate_packets,
            duplicate_octets=old.duplicate_octets + duplicate_octets)

    def _expire(self) -> FlowRecords:
        records: list[FlowRecords] = []
        for reason, slots in due(self._store, self.now_ns, self._flows.timeouts):
            if reason == EndReason.ACTIVE_TIMEOUT:
                records.append(self._flows.report_active(slots, self.now_ns))
            else:
                records.append(self._flows.end(slots, reason, self.now_ns))
        surplus = self.live_flows - self.config.max_flows
        if surplus > 0:
            self.totals = replace(self.totals, evicted_flows=self.totals.evicted_flows + surplus)
            slots = least_recent(self._store, surplus)
            records.append(self._flows.end(slots, EndReason.LACK_OF_RESOURCES, self.now_ns))
        self._expired_ns = self.now_ns
        return (records[0] if len(records) == 1 else joined(records)) if records else no_records()

    def _give_up(self) -> None:
        """Limit the flows that ended in an open tick; what no page will show is counted as unlisted."""
        slots = self._lingering.give_up(self.config.max_flows + LINGER_ROOM)
        if len(slots):
            store = self._store
            own = slots[store.keys["kind"][slots] != Kind.PARENT]
            self.totals = replace(
                self.totals,
                unlisted_packets=self.totals.unlisted_packets + int(store.open_packets[own].sum()),
                unlisted_octets=self.totals.unlisted_octets + int(store.open_octets[own].sum()))
            self._release(slots)

    def _release(self, slots: Slots) -> None:
        """Release the slots of flows, except those being kept."""
        if self._kept:
            kept = np.isin(self._store.flow_id[slots], np.array(list(self._kept), np.uint64))
            self._overdue = np.concatenate((self._overdue, slots[kept]))
            slots = slots[~kept]
        if len(slots):
            self._store.release(slots)


class _TickSums(NamedTuple):
    """tick_* of MeteringTotals for the open tick."""

    tick_ingress_packets: int = 0
    tick_ingress_octets: int = 0
    tick_egress_packets: int = 0
    tick_egress_octets: int = 0

    def plus(self, of_batch: Sums) -> _TickSums:
        """Add the traffic of a batch."""
        return _TickSums(*(old + getattr(of_batch, name) for name, old in self._asdict().items()))


def _sums(keys: npt.NDArray[np.void], counters: npt.NDArray[np.void], once_packets: U8 | None,
          once_octets: U8 | None) -> Sums:
    """See native.sums.sum_entries, which does the same."""
    packets, octets = counters["packets"], counters["octets"]
    aggregate = keys["kind"] == Kind.AGGREGATE
    own = keys["kind"] != Kind.PARENT  # a parent's packets are counted in its inner flows
    egress = own & (keys["direction"] == Direction.EGRESS)
    ingress = own & ~egress
    once = (packets if once_packets is None else once_packets, octets if once_octets is None else once_octets)
    return Sums(*(int(sums[chosen].sum()) for chosen, pair in (
        (own, (packets, octets)), (aggregate, (packets, octets)), (ingress, once), (egress, once)) for sums in pair))
