"""`Query` → `Page`: the only interface of screens and batch output to the flow table.

A Query is made in one thread and answered in the metering thread; a Page is small, immutable and safe to keep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowtop.model.exporters import CollectingStatistics
from flowtop.model.names_seen import NameStatistics
from flowtop.model.owners import OwnerStatistics
from flowtop.model.rows import FlowRow, Sides
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import KnownNames

if TYPE_CHECKING:
    from flowtop.filters.filter import Filter
    from flowtop.model.record import FlowRecords, SourceState, Unobserved
    from flowtop.query.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Query:
    """Which flows to show, and in which order.

    Attributes:
        sort: column id of `query.layout.columns_of` this query; rows without such a column are sorted by rate.
        descending: largest first.
        offset: rows to skip.
        limit: maximum number of rows; None for all.
        anchor: flow_id of the row whose rank is requested (the cursor's), or None. If rows are biflows, the flow_id of
            a flow means its biflow.
        hold: None for live order. A number freezes the order: the first Query with a new number fixes the current
            order, later ones with the same number keep it, and new flows are appended.
        filter: which flows to show; None for all.
        scope: which of these: flows of the groups that were opened, one within the other; None for all.
        group: ids of `fields.registry.GROUPS`: rows are groups of flows with equal values of all fields. Filters apply
            to flows, before grouping. () (or only "flow"): rows are flows.
        mark: None for totals. A number counts packets and octets from a mark: the first Query with a new number sets
            it. Filters still use totals.
        freeze: None for the newest tick. A number freezes the flows: the first Query with a new number stores the
            current state, and all Queries with that number are answered from it.
        at: number of a past tick to answer from, if it is in Page.kept; None for now. There, orders are not held, and
            counters are totals.
        compare: number of a past tick that the flows are compared with (`change`, `trend`): flows that were there
            only then are listed too; None: they are not compared. Without that tick, with the nearest that is kept.
        names: names of hosts, for filters that use them.
        ended: list ended flows too; the anchor is always listed.
        details: flow_id of the flow for Page.details, or None.
        own: a process id: DNS traffic of that process is not listed, unless a filter asks for it; 0: it is.
        biflow: rows are biflows (both directions of a conversation); not together with `group`. A biflow passes a
            filter if one of its flows does, and is then shown with all flows.
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
    compare: int | None = None
    ended: bool = True
    names: KnownNames | None = None
    own: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    """Details of one flow.

    Attributes:
        row: the flow; its last state if it is gone.
        gone: whether it has left the table.
        record: FLOW_RECORD_DTYPE, shape (1,): the next record as it would be now; of an ended flow its only record;
            None if unknown, as it had several.
        rates: octets/s of each second or so, oldest first; up to two minutes.
        rates_s: time covered by rates, in s.
        history: what came in and went out with the flow and its reverse flow, over the same time; None: not known.
        reverse: the reverse flow; None if none was seen.
        points: flows of the same packets at other Observation Points.
        other_ifindex: the exporter's interface on the other side, 0 if not reported.
        flags: new TCP control bits by time: (ms since 1970 UTC, bits), oldest first. Bits of the row that are in none
            of them came before the log begins.
        records: number of Flow Records that were made of it, for exports.
        reported_packets: wire packets in these records.
        reported_ms: time of the last record; None if there was none.
        due_ms: time of the next record if packets continue; None if the flow has ended.
        then_ms: set if the flow left the table before details were requested, so that they are those of a past page at
            this time; without data about records, and without rates except the row's.
    """

    row: FlowRow
    rates: tuple[float, ...] = ()
    rates_s: float = 0.0
    history: TrafficHistory | None = None
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

    Packets are wire packets. Octets are IP octets; for ignored frames, the octets above the link header.
    `duplicate_*` is the part of accounted that another Observation Point's flow counts too, so
    accounted - duplicate counts each packet once. `aggregated_*` is the part of accounted in aggregate entries.
    """

    observed_packets: int = 0
    observed_octets: int = 0
    encapsulation_octets: int = 0
    """Not part of observed: encapsulation of packets in tunnels, with --decap."""
    accounted_packets: int = 0
    accounted_octets: int = 0
    ignored_packets: int = 0
    ignored_octets: int = 0
    lost_packets: int = 0
    lost_octets: int = 0
    filtered_packets: int = 0
    """In no flow because the capture filter, which runs in the kernel program, did not match."""
    filtered_octets: int = 0
    aggregated_packets: int = 0
    aggregated_octets: int = 0
    duplicate_packets: int = 0
    duplicate_octets: int = 0
    unjoined_fragments: int = 0
    lying_lengths: int = 0
    """Packets whose header's length is larger than the frame: counted by what there is."""
    decrypted_packets: int = 0
    """Not part of observed: decrypted by IPsec, after the packets that carried them were observed."""
    decrypted_octets: int = 0
    ignored_by_kind: tuple[int, ...] = (0, 0, 0, 0)
    """Packets, in the order of record.IGNORED_KINDS."""
    evicted_flows: int = 0
    """Flows that were ended for lack of resources."""
    unlisted_packets: int = 0
    """Part of accounted: in flows that began and ended between two pages, too many to keep until the second."""
    unlisted_octets: int = 0
    interface_packets: int = 0
    """The interfaces' own counters for the same time."""
    coverage: float | None = None
    """Of the packets that the interfaces have counted, the part that was seen, 0..1; None while the counters are 0."""
    unseen_packets: int = 0
    """Counted by interfaces and not seen."""
    excess_ingress_packets: int = 0
    """Seen and not counted by the interface, or seen twice. There is no honest reason for it."""
    excess_egress_packets: int = 0
    """Seen and not counted as sent by the interface: a queue has dropped them."""

    @property
    def unexplained_packets(self) -> int:
        """observed - accounted - ignored - filtered - lost; if it is not 0, flowtop has a bug."""
        return (self.observed_packets - self.accounted_packets - self.ignored_packets - self.filtered_packets
                - self.lost_packets)

    @property
    def unexplained_octets(self) -> int:
        """See unexplained_packets."""
        return (self.observed_octets - self.accounted_octets - self.ignored_octets - self.filtered_octets
                - self.lost_octets)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Deduplicated traffic of one direction: now, and recent values for a sparkline (oldest first, one per tick)."""

    octet_rate: float = 0.0
    packet_rate: float = 0.0
    octet_rates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TrafficHistory:
    """Deduplicated traffic of the last minutes, oldest first.

    Attributes:
        ends_ms: when each span ended, ms since 1970 UTC.
        lengths_s: of each span.
        into, out_of: octets/s that came in and went out.
    """

    ends_ms: tuple[int, ...] = ()
    lengths_s: tuple[float, ...] = ()
    into: tuple[float, ...] = ()
    out_of: tuple[float, ...] = ()


NO_HISTORY = TrafficHistory()


@dataclass(frozen=True, slots=True)
class Listed:
    """The sum of the flows that pass the filter and are in the open groups; each packet once.

    Attributes:
        sides: what came in and went out.
        shares: of the octets of all flows: 0..1, over the last tick, 10 s and 60 s.
    """

    sides: Sides
    shares: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SelfUsage:
    """flowtop's own resource usage: CPU time over the last tick (1.0 is one core), resident octets."""

    cpu: float = 0.0
    resident_octets: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The past ticks that can be queried.

    Attributes:
        first_tick, last_tick: numbers of the oldest and the newest stored tick; all between them are stored.
        seconds: time between these.
    """

    first_tick: int
    last_tick: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to one Query at one tick.

    Attributes:
        query: the query.
        tick: number of the drain it shows; several Pages may show the same tick.
        unix_ms: time of that drain.
        uptime_s: time since capture started; for a file, since its first packet, in file time.
        tick_s: length of the last tick.
        rows: at most `limit` flows, groups or biflows, in order.
        matched: total number of rows.
        matched_flows: number of flows that pass the filter, of `flows` in the table (including ended ones that are
            still visible); equal to `matched` if rows are flows.
        anchor_rank: position of the anchor in the whole order; None if it is gone or was not requested.
        anchor_row: flow_id of the row at that position: the anchor, or the biflow that contains it; None likewise.
        lookups: names of interfaces (including Observation Points that are gone) and the like.
        attached: names of the interfaces observed now, sorted.
        unobserved: what of the selected interfaces is not observed now.
        capture_filter: the part of the command line's filter that runs in the kernel program; empty for none.
        last: capturing has ended, and this is after the last drain; no Page of a later tick follows.
        details: details requested by the query; None if none were, or if the flow is unknown.
        kept: the past that can be queried with Query.at; None if there is none.
        present: for a page of the past (Query.at, Query.freeze): the page of now, without the parts that depend on the
            flows. None: this page is of now.
        flows_kept: for a page of the past: how many of its `flows` were stored; `rows` and `matched` refer to these.
        hidden: number of ended flows that pass the filter but are not listed, as the query excludes them.
        own_hidden: number of flows that pass the filter but are not listed, as they are DNS traffic of Query.own.
        joined: number of rows that are not in the held order, as they are newer; they come after all others.
        compared_ms: the moment that the flows are compared with, ms since 1970 UTC; None: with none.
        linger_s: how long flows are listed after they end.
        marked_s: time since the mark, up to this tick; None: counters are totals.
        source: progress of reading a file; None for a live capture.
        collecting: statistics of the collector; None for any other capture.
        owners: how the owners of flows are found; None: they are not looked for.
        names: what was seen of names in packets; None: they are not looked for.
        troubles: what is probably wrong, the most alarming first.
        tunnels: whether there have been flows in tunnels.
        listed: sums of what is listed.
        since_start: octets and packets of the groups are those of all their flows since the start, or since the mark;
            else those of the flows that are kept.
        history: traffic of the last minutes; of a past page none, `present` has it.
        listed_history: that of what is listed, where that is a part of all (an open group, a filter): of its flows in
            the table and of those that left it since they were listed first; else none. That of a past page is of now,
            as far as `present` is.
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
    unobserved: tuple[Unobserved, ...] = ()
    capture_filter: str = ""
    usage: SelfUsage = SelfUsage()
    delay_s: float = 1.0
    last: bool = False
    source: SourceState | None = None
    collecting: CollectingStatistics | None = None
    owners: OwnerStatistics | None = None
    names: NameStatistics | None = None
    tunnels: bool = False
    troubles: tuple[Trouble, ...] = ()
    matched_flows: int = 0
    details: Details | None = None
    kept: Kept | None = None
    present: Page | None = None
    flows_kept: int = 0
    marked_s: float | None = None
    hidden: int = 0
    own_hidden: int = 0
    joined: int = 0
    compared_ms: int | None = None
    linger_s: float = 10.0
    anchor_row: int | None = None
    listed: Listed | None = None
    since_start: bool = False
    history: TrafficHistory = NO_HISTORY
    listed_history: TrafficHistory = NO_HISTORY

    @property
    def past(self) -> bool:
        """Whether it was answered from the past."""
        return self.present is not None
