"""`Query` → `Page`: the only way in which screens and batch output see the flow table.

A Query is asked in one thread and answered in the metering thread; a Page is small, immutable and safe to keep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowtop.model.exporters import CollectingStatistics
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import KnownNames

if TYPE_CHECKING:
    from flowtop.filters.filter import Filter
    from flowtop.model.record import FlowRecords, SourceState


@dataclass(frozen=True, slots=True)
class Query:
    """Which flows to show, in which order.

    Attributes:
        sort: id of a column of `query.layout.columns_of` this query; where rows have no such column, they are by rate.
        descending: largest first.
        offset: rows to skip.
        limit: rows to give at most; None for all.
        anchor: flow_id of the row whose rank is asked for (the cursor's), or None. Where rows are biflows it may be
            that of a flow: its biflow is meant.
        hold: None for live order. A number freezes the order: the first Query with a new number fixes the order of
            that moment, later ones with the same number keep it, and flows born since follow after it.
        filter: which flows to show; None for all.
        scope: which of these: the flows of the groups that were opened one after the other; None for all.
        group: ids of fields of `fields.registry.GROUPS`: rows are groups of flows that agree in all of them. Filters
            are for flows and apply before. () (or only "flow"): rows are flows.
        mark: None for counters of the flows' life. A number counts packets and octets from a mark: the first Query with
            a new number sets it at that moment. Filters go on seeing what flows had in their life.
        freeze: None for the newest tick. A number makes the picture stand still: the first Query with a new number
            takes that moment, later ones with the same number are answered from it, whatever they ask.
        at: number of a past tick to answer from, if Page.kept has it; None for now. Orders are not held there, and
            counters are of life.
        names: of hosts, for filters that ask for them.
        ended: flows that have ended are listed too; the anchor is in any case.
        details: flow_id of a flow of which Page.details are wanted, or None.
        biflow: rows are biflows, both ways of a conversation; not together with `group`. A filter passes a biflow
            when a flow of either way passes, and it is whole then.
    """

    sort: str = "rate"
    descending: bool = True
    offset: int = 0
    limit: int | None = 100
    anchor: int | None = None
    hold: int | None = None
    filter: Filter | None = None
    scope: Filter | None = None
    group: tuple[str, ...] = ()
    biflow: bool = False
    details: int | None = None
    mark: int | None = None
    freeze: int | None = None
    at: int | None = None
    ended: bool = True
    names: KnownNames | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """Everything that is known of one flow.

    Attributes:
        row: the flow; as it was last, once it is gone.
        gone: it has left the table.
        record: FLOW_RECORD_DTYPE, shape (1,): the next one as it would be now; of an ended flow its only one; None: not
            known, as it had several.
        rates: octets/s of each second or so, the oldest first; up to two minutes.
        rates_s: how long they are together.
        reverse: the flow of the answers; None: none was seen.
        points: the same packets at other Observation Points.
        other_ifindex: the interface at the exporter's other side, 0: not told.
        flags: TCP control bits by when they had first been seen: (ms since 1970 UTC, bits), the oldest first. Bits of
            the row that are in none of them came before anybody kept note.
        records: Flow Records that were made of it; exports get these.
        reported_packets: wire packets that they have told of.
        reported_ms: when the last record was made; None: none yet.
        due_ms: when the next one is due if packets go on coming; None once the flow has ended.
        then_ms: it had left before anybody looked, and this is of that moment, which a page of the past is of: there is
            nothing of its records, and no rates but those of the row.
    """

    row: FlowRow
    rates: tuple[float, ...] = ()
    rates_s: float = 0.0
    reverse: FlowRow | None = None
    points: tuple[FlowRow, ...] = ()
    flags: tuple[tuple[int, int], ...] = ()
    records: int = 0
    reported_packets: int = 0
    reported_ms: int | None = None
    due_ms: int | None = None
    record: FlowRecords | None = field(default=None, compare=False, repr=False)
    gone: bool = False
    then_ms: int | None = None
    other_ifindex: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    """The accounts since start, summed over Observation Points.

    observed = accounted + ignored + filtered + lost, always.

    Packets are wire packets; octets are IP octets, for ignored frames the octets above the link header.
    `duplicate_*` is the part of accounted that another Observation Point's flow stands for already, so
    accounted - duplicate counts each packet once. `aggregated_*` is the part of accounted that is in aggregate entries.
    """

    observed_packets: int = 0
    observed_octets: int = 0
    encapsulation_octets: int = 0
    """Beside the observed: what stood around packets in tunnels, with --decap."""
    accounted_packets: int = 0
    accounted_octets: int = 0
    ignored_packets: int = 0
    ignored_octets: int = 0
    lost_packets: int = 0
    lost_octets: int = 0
    filtered_packets: int = 0
    """In no flow because the capture filter, which runs in the kernel program, did not want them."""
    filtered_octets: int = 0
    aggregated_packets: int = 0
    aggregated_octets: int = 0
    duplicate_packets: int = 0
    duplicate_octets: int = 0
    unjoined_fragments: int = 0
    ignored_by_kind: tuple[int, ...] = (0, 0, 0, 0)
    """Packets, in the order of record.IGNORED_KINDS."""
    evicted_flows: int = 0
    """Flows ended for lack of resources."""
    unlisted_packets: int = 0
    """Of accounted: in flows that came and went between two pages, too many to keep until the second."""
    unlisted_octets: int = 0
    interface_packets: int = 0
    """What the interfaces' own counters say of the same time."""
    coverage: float | None = None
    """Seen / interface counters, 0..1; None before the counters moved."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Deduplicated traffic of one direction: now, and lately for a sparkline (oldest first, one value a tick)."""

    octet_rate: float = 0.0
    packet_rate: float = 0.0
    octet_rates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SelfUsage:
    """flowtop's own cost: CPU of one core over the last tick (0..1 a core), resident octets."""

    cpu: float = 0.0
    resident_octets: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What of the past can be asked for.

    Attributes:
        first_tick, last_tick: numbers of the oldest and the newest kept tick, all between them are kept.
        seconds: from the one to the other.
    """

    first_tick: int
    last_tick: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to one Query at one tick.

    Attributes:
        query: what was asked.
        tick: number of the drain it shows; several Pages may show one tick.
        unix_ms: time of that drain.
        uptime_s: since capture started; of a file, from its first packet on, in its own time.
        tick_s: length of the last tick.
        rows: `limit` flows, or groups, at most, in order.
        matched: rows there are in all.
        matched_flows: flows that pass the filter, of `flows` in the table (ended ones that are still shown included):
            the same number as `matched` while rows are flows.
        anchor_rank: position of the anchor in the whole order, None when it is gone or was not asked for.
        anchor_row: flow_id of the row there: the anchor, or the biflow that the anchor is a flow of; None likewise.
        lookups: names of interfaces, and the like.
        attached: names of the interfaces observed now, sorted.
        capture_filter: what of the command line's filter runs in the kernel program; empty: nothing.
        last: capturing has ended and this is after the last drain; no Page of a later tick follows.
        details: of the flow that the query wants them of; None: of none, or it was gone before.
        kept: the past that can be asked for, with Query.at; None: none.
        present: of a page of the past (Query.at, Query.freeze): the page of now, without what comes from the flows.
            None: this is of now.
        flows_kept: of a page of the past: of its `flows`, those that were kept; `rows` and `matched` are of these.
        hidden: ended flows that are not listed as the query does not want them, of those that pass the filter.
        joined: rows that a held order does not know, as they came since; they are behind all others.
        linger_s: how long flows are listed after their end.
        marked_s: counters are of that many seconds, up to this tick; None: they are of life.
        source: how far a file was read; None of a live capture.
        collecting: what a Collecting Process says of its exporters; None of any other capture.
        tunnels: there have been flows in tunnels.
    """

    query: Query
    tick: int
    unix_ms: int
    uptime_s: float
    tick_s: float
    rows: tuple[FlowRow, ...]
    matched: int
    flows: int
    active_flows: int
    anchor_rank: int | None
    books: Books
    ingress: Traffic
    egress: Traffic
    lookups: Lookups = NO_LOOKUPS
    attached: tuple[str, ...] = ()
    capture_filter: str = ""
    usage: SelfUsage = SelfUsage()
    delay_s: float = 1.0
    last: bool = False
    source: SourceState | None = None
    collecting: CollectingStatistics | None = None
    tunnels: bool = False
    matched_flows: int = 0
    details: Details | None = None
    kept: Kept | None = None
    present: Page | None = None
    flows_kept: int = 0
    marked_s: float | None = None
    hidden: int = 0
    joined: int = 0
    linger_s: float = 10.0
    anchor_row: int | None = None

    @property
    def past(self) -> bool:
        """It answers from what was kept of the past."""
        return self.present is not None
