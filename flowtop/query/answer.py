"""`Query` → `Answer`: the rows of one page from a flow table, in the metering thread; counters may start at a mark."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.fields.columns import Column
from flowtop.fields.networks import REMOTE_IS_SOURCE, RemoteEnds, networked
from flowtop.model.flows import PASSED_DTYPE, Array, FlowColumns, FlowSource, Slots, with_columns
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow, Sides, Volume
from flowtop.query.biflows import Biflows, Pairing
from flowtop.query.grouping import Groups, counted_once
from flowtop.query.labels import KnownLabels
from flowtop.query.layout import row_fields, sorted_column
from flowtop.query.measures import measured
from flowtop.query.own_dns import own_dns
from flowtop.query.query import Listed, Query
from flowtop.query.ranking import Ranking
from flowtop.query.rows import Totals, biflow_rows, flow_rows, group_rows
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import NO_NAMES

_TABLE = 1 << 16
"""Smaller codes are looked up in an array; larger ones (exporters' interfaces, mostly) by search."""


class TextOrder:
    """The natural order of texts, and the place of each code in it; codes without a text come last, by number.

    Args:
        names: full text by code.
        part: gives the part of a text that is compared first.
    """

    def __init__(self, names: Mapping[int, str], part: Callable[[str], str]) -> None:
        self.names = names
        ordered = sorted(names, key=lambda code: (_natural(part(names[code])), _natural(names[code])))
        ranks = {code: rank for rank, code in enumerate(ordered)}
        small = [code for code in ordered if code < _TABLE]
        self._count = len(ordered)
        self._table = len(ordered) + np.arange(max(small, default=-1) + 2)
        self._table[small] = [ranks[code] for code in small]
        self._large = np.array(sorted(code for code in ordered if code >= _TABLE), np.int64)
        self._of_large = np.array([ranks[code] for code in self._large.tolist()], np.int64)

    def ranks(self, codes: Array) -> Array:
        """The place of each code."""
        codes, table, large = codes.astype(np.uint32), self._table, self._large
        result: Array = table[np.minimum(codes, np.uint32(len(table) - 1))]
        beyond = np.flatnonzero(codes >= len(table) - 1)
        if len(beyond):
            others = codes[beyond].astype(np.int64)
            result[beyond] = self._count + others
            if len(large):
                at = np.minimum(np.searchsorted(large, others), len(large) - 1)
                named = large[at] == others
                result[beyond[named]] = self._of_large[at[named]]
        return result


MakeOrder = Callable[[Mapping[int, str], Callable[[str], str]], TextOrder]


def in_text_order(column: Column, lookups: Lookups, make: MakeOrder = TextOrder) -> Column:
    """A column of codes, sorted by their texts; any other column unchanged.

    Args:
        lookups: has the texts; codes without a text come last, by number.
        make: makes the order, when it is used for the first time.
    """
    texts = column.texts
    if texts is None:
        return column
    [number] = column.sort
    orders: list[TextOrder] = []

    def rank(columns: FlowColumns) -> Array:
        codes = number(columns)
        if not orders:  # after the codes: what looks them up may learn texts
            orders.append(make(texts.names(lookups), texts.part))
        return orders[0].ranks(codes)

    return replace(column, sort=(rank,))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts `eth10` after `eth2`: text and numbers, alternating."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


COUNTED = ("packet_total", "octet_total")
"""The columns that are counted from the mark."""


@dataclass(frozen=True, slots=True)
class _Base:
    """The counters of all slots at the mark: 16 octets per slot, and 8 for the flow's id."""

    number: int
    flow_ids: npt.NDArray[np.uint64]
    counts: dict[str, Array]


class Mark:
    """The most recent mark of one client."""

    def __init__(self) -> None:
        self._base: _Base | None = None
        self._passed: tuple[int, npt.NDArray[np.void]] | None = None

    def since(self, number: int | None, source: FlowSource) -> FlowSource:
        """The source, with total counters counted from the mark of that number.

        A new number sets the mark at the source's last tick. Flows that began later count from their start. None
        removes the mark.
        """
        if number is None:
            self._base = self._passed = None
            return source
        columns = source.columns
        if self._base is None or self._base.number != number:
            self._base = _Base(number, columns["flow_id"].copy(), {name: columns[name].copy() for name in COUNTED})
        return with_columns(source, _Since(columns, self._base), source.visible)


    def passed_since(self, number: int | None, passed: npt.NDArray[np.void] | None) -> npt.NDArray[np.void] | None:
        """What flows of each interface have had since the mark of that number: `Lookups.passed`."""
        if number is None or passed is None:
            return passed
        if self._passed is None or self._passed[0] != number:
            self._passed = number, passed
        base, found = self._passed[1], passed.copy()
        at = np.flatnonzero(np.isin(found["ifindex"], base["ifindex"]))
        before = np.searchsorted(base["ifindex"], found["ifindex"][at])
        for name in (PASSED_DTYPE.names or ())[1:]:
            found[name][at] -= base[name][before]
        return found


class _Since:
    """Columns in which COUNTED count from the mark."""

    def __init__(self, columns: FlowColumns, base: _Base) -> None:
        self._columns = columns
        self._base = base
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in COUNTED:
            return self._columns[name]
        if name not in self._made:
            self._made[name] = self._since(name)
        return self._made[name]

    def _since(self, name: str) -> Array:
        counts, base = self._columns[name].copy(), self._base
        known = min(len(counts), len(base.flow_ids))  # the table may have grown
        same = self._columns["flow_id"][:known] == base.flow_ids[:known]
        counts[:known][same] -= base.counts[name][:known][same]
        return counts


BIFLOWS = ("biflow",)
"""`_Rows.kind` of biflows, instead of the fields of groups."""
COMPARED = ("compared",)
"""That of flows beside those of a past moment, whose slots change with each query, too."""


_NO_WAYS: tuple[Slots, Slots] = (np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of a Page that depends on the flows; fields as in Page."""

    rows: tuple[FlowRow, ...]
    matched: int
    matched_flows: int
    flows: int
    active_flows: int
    anchor_rank: int | None
    hidden: int = 0
    joined: int = 0
    anchor_row: int | None = None
    listed: Listed | None = None
    own_hidden: int = 0
    since_start: bool = False
    ways: tuple[Slots, Slots] = field(default=_NO_WAYS, compare=False)
    """Slots of the flows that are listed, each packet once: which came in, and which went out."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows to rank and page: flows, groups or biflows.

    Attributes:
        shown: mask of the source's visible elements to show; the same array if all are shown.
        take: returns the rows of slots, in their order.
        kind: fields of groups, BIFLOWS or COMPARED, whose slots change with each query; () for flows.
        row_of: flow_id of the row that contains a flow; None if there is none, or if rows are flows or groups.
        since_start: as in Page.
    """

    source: FlowSource
    shown: npt.NDArray[np.bool_]
    take: Callable[[Slots], tuple[FlowRow, ...]]
    kind: tuple[str, ...] = ()
    row_of: Callable[[int], int | None] = lambda _: None
    since_start: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """A fixed order: slots and their flow_ids. Slots of groups and biflows change, so they are looked up by id."""

    number: int
    kind: tuple[str, ...]
    slots: Slots
    ids: npt.NDArray[np.uint64]

    def find(self, columns: FlowColumns) -> Slots:
        """Slots of rows that still exist, in the fixed order."""
        ids, slots = columns["flow_id"], self.slots
        if self.kind:
            if not len(ids):
                return slots[:0]
            order = np.argsort(ids)
            slots = order[np.minimum(np.searchsorted(ids, self.ids, sorter=order), len(ids) - 1)]
        remaining: Slots = slots[ids[slots] == self.ids]
        return remaining


class Answerer:
    """Answers the Queries of one client; stores its held order and its mark.

    Args:
        rng: source of group ids; unpredictable by default.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self._held: _Held | None = None
        self._mark = Mark()
        self._pairing: Pairing | None = None
        self._around: tuple[int, tuple[int, ...]] | None = None  # the anchor's biflow and its flows
        self._anchor_flow: int | None = None  # the flow that was the anchor before its biflow
        self._order: TextOrder | None = None
        self._label = KnownLabels()
        self._ends = RemoteEnds()
        rng = np.random.default_rng() if rng is None else rng
        self._seed = int(rng.integers(1 << 62))

    def answer(self, query: Query, source: FlowSource, lookups: Lookups = NO_LOOKUPS) -> Answer:
        """Rows, counts and the anchor's rank at the source's last tick.

        Args:
            query: the query.
            source: the flows.
            lookups: names of interfaces and texts of other codes, for filters, orders and groups.

        Raises:
            FlowtopError: unknown group field, or groups and biflows together.
        """
        query = self._as_flow(query, source)
        columns_of_flows = self._ends.fill(networked(source.columns, lookups.networks, lookups.here))
        source = with_columns(source, columns_of_flows, source.visible)
        visible = source.visible
        passing = visible & self._passes(query, source, lookups)
        own = passing & own_dns(query, source)
        passing = passing & ~own
        ended = visible & (source.columns["end_reason"] != 0)
        hidden, matching = 0, passing
        if not query.ended:
            left_out = passing & ended & (source.columns["flow_id"] != np.uint64(query.anchor or 0))
            passing, hidden = passing & ~left_out, int(np.count_nonzero(left_out))
        whole = measured(self._mark.since(query.mark, source), lookups, self._ends)
        lookups = replace(lookups, passed=self._mark.passed_since(query.mark, lookups.passed))
        sums = _sums(whole, _sums_of(whole, passing))
        some = query.filter is not None or query.scope is not None or hidden
        everything = _octets(whole, visible) if some else sums.totals
        rows = self._rows(query, whole, passing, matching, lookups, sums.totals)
        columns = rows.source.columns
        ranking = Ranking.by(self._in_order(sorted_column(query), lookups), query.descending,
                             parents_last=rows.kind in ((), BIFLOWS, COMPARED))  # groups never mix parents and flows
        start = max(0, query.offset)
        lead, rest = self._hold(query, ranking, rows)
        stop = len(lead) + len(rest) if query.limit is None else start + query.limit
        after = ranking.span(columns, rest, max(0, start - len(lead)), max(0, stop - len(lead)))
        chosen = np.concatenate((lead[start:stop], after))
        flows = int(np.count_nonzero(visible))
        anchor = query.anchor
        rank = _anchor_rank(anchor, ranking, columns, lead, rest)
        if rank is None and anchor is not None and (anchor := rows.row_of(anchor)) is not None:
            rank = _anchor_rank(anchor, ranking, columns, lead, rest)
        return Answer(rows.take(chosen), len(lead) + len(rest), int(np.count_nonzero(passing)), flows,
                      flows - int(np.count_nonzero(ended)), rank, hidden, 0 if query.hold is None else len(rest),
                      None if rank is None else anchor, _listed(sums, everything, source), int(np.count_nonzero(own)),
                      rows.since_start, sums.ways)

    def _in_order(self, column: Column, lookups: Lookups) -> Column:
        """`in_text_order`; the order of names of AS, which may be thousands and never change, is kept."""
        def make(names: Mapping[int, str], part: Callable[[str], str]) -> TextOrder:
            if lookups.networks is None or names is not lookups.networks.names:
                return TextOrder(names, part)
            if self._order is None or self._order.names is not names:
                self._order = TextOrder(names, part)
            return self._order

        return in_text_order(column, lookups, make)

    def kept(self, query: Query) -> frozenset[int]:
        """flow_ids that must remain in the table for the cursor: the anchor, or the flows of its biflow."""
        if query.anchor is None or query.group:
            return frozenset()
        if self._around is not None:
            biflow, flows = self._around
            if query.anchor == biflow or (query.biflow and query.anchor in flows):
                return frozenset(flows)
        return frozenset({query.anchor})

    def _as_flow(self, query: Query, source: FlowSource) -> Query:
        """Replace an anchor that is a biflow while rows are flows: by its flow that was it before, or its first."""
        if query.biflow or query.group or query.anchor is None:
            return query
        if self._pairing is not None:
            self._around = self._pairing.around(query.anchor)
        if self._around is None or self._around[0] != query.anchor:
            return query
        columns = source.columns
        flows = np.flatnonzero(source.visible & np.isin(columns["flow_id"], np.array(self._around[1], np.uint64)))
        if not len(flows):
            return query
        ids = columns["flow_id"][flows]
        first = np.lexsort((ids, columns["duplicate"][flows], ids != np.uint64(self._anchor_flow or 0)))[0]
        return replace(query, anchor=int(ids[first]))

    def _rows(self, query: Query, source: FlowSource, passing: npt.NDArray[np.bool_],
              matching: npt.NDArray[np.bool_], lookups: Lookups, totals: Totals) -> _Rows:
        fields = row_fields(query)
        if query.biflow:
            return self._biflows(source, passing, matching, query.anchor, totals)
        self._pairing = None
        if not fields:
            return _Rows(source, passing, lambda chosen: flow_rows(source, chosen, totals),
                         () if source.then_ns is None else COMPARED)
        seed = self._seed ^ zlib.crc32(",".join(query.group).encode())  # other fields give other ids
        groups = Groups(source, np.flatnonzero(_sums_of(source, passing)), fields, seed, lookups,
                        every=query.filter is None and query.scope is None, label_by=self._label)
        return _Rows(groups.source, groups.source.visible,
                     lambda chosen: group_rows(groups.take(chosen), fields, lookups, totals, groups.beside(chosen)),
                     query.group,
                     since_start=groups.since_start)

    def _biflows(self, source: FlowSource, passing: npt.NDArray[np.bool_], matching: npt.NDArray[np.bool_],
                 anchor: int | None, totals: Totals) -> _Rows:
        """Biflows with a passing flow; for the anchor's biflow, a flow that passes but has ended is enough."""
        slots = np.flatnonzero(source.visible)
        biflows = Biflows(source, slots, self._seed, self._pairing)
        self._pairing = biflows.pairing
        self._around = None if anchor is None else self._pairing.around(anchor)
        if self._around is not None and anchor != self._around[0]:
            self._anchor_flow = anchor
        shown = np.zeros(len(biflows.source.visible), np.bool_)
        shown[biflows.of[passing[slots]]] = True
        if passing is not matching and anchor is not None:
            here = np.flatnonzero(biflows.source.columns["flow_id"] == np.uint64(anchor))
            shown[here] |= np.isin(here, biflows.of[matching[slots]])

        def row_of(flow_id: int) -> int | None:
            around = biflows.pairing.around(flow_id)
            return around and around[0]

        return _Rows(biflows.source, shown, lambda chosen: biflow_rows(biflows.take(chosen), totals), BIFLOWS,
                     row_of)

    @staticmethod
    def _passes(query: Query, source: FlowSource,
                lookups: Lookups) -> npt.NDArray[np.bool_] | np.bool_:
        passing: npt.NDArray[np.bool_] | np.bool_ = np.True_
        lookups = replace(lookups, hosts=query.names or NO_NAMES)
        for condition in (query.filter, query.scope):
            if condition is not None:
                passing = passing & condition.mask(source, lookups)
        return passing

    def _hold(self, query: Query, ranking: Ranking, rows: _Rows) -> tuple[Slots, Slots]:
        """Shown slots in the held order, and shown slots that are not in it, ascending."""
        if query.hold is None:
            self._held = None
            return np.empty(0, np.int64), np.flatnonzero(rows.shown)
        columns = rows.source.columns
        held = self._held
        if held is None or (held.number, held.kind) != (query.hold, rows.kind):
            slots = ranking.ordered(columns, np.flatnonzero(rows.source.visible))
            held = self._held = _Held(query.hold, rows.kind, slots, columns["flow_id"][slots].copy())
        slots = held.find(columns)
        known = np.zeros(len(rows.shown), np.bool_)
        known[slots] = True
        return slots[rows.shown[slots]], np.flatnonzero(rows.shown & ~known)


class _Sums(NamedTuple):
    """Octets in the last tick, over 10 s and 60 s, packets in the last tick, and octets and packets in all, of what
    came in and of what went out; each packet once."""

    into: tuple[int, ...]
    out_of: tuple[int, ...]
    ways: tuple[Slots, Slots] = _NO_WAYS

    @property
    def totals(self) -> Totals:
        """Octets in the last tick, over 10 s and 60 s, both ways."""
        tick, ten, sixty = (one + other for one, other in zip(self.into[:3], self.out_of[:3], strict=True))
        return tick, ten, sixty


_NO_SLOTS: Slots = np.empty(0, np.int64)
_SUMMED = ("octet_delta", "octets_10s", "octets_60s", "packet_delta", "octet_total", "packet_total")


def _counted(source: FlowSource, flows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of these flows, those to add up so that each packet counts once."""
    columns = source.columns
    counted: npt.NDArray[np.bool_] = flows & (columns["kind"] != Kind.PARENT)
    if (counted & columns["duplicate"]).any():
        slots = np.flatnonzero(counted)
        counted[slots[~counted_once(columns, slots, np.zeros(len(slots), np.int64))]] = False
    return counted


def _sums(source: FlowSource, flows: npt.NDArray[np.bool_]) -> _Sums:
    """Of these flows of a `measured` source, without parents."""
    if not flows.any():
        nothing = (0,) * len(_SUMMED)
        return _Sums(nothing, nothing, (_NO_SLOTS, _NO_SLOTS))
    columns, counted = source.columns, _counted(source, flows)
    inward = columns[REMOTE_IS_SOURCE]
    ways = np.flatnonzero(counted & inward), np.flatnonzero(counted & ~inward)
    into, out_of = (tuple(int(columns[name].take(slots).sum()) for name in _SUMMED) for slots in ways)
    return _Sums(into, out_of, ways)


def _octets(source: FlowSource, flows: npt.NDArray[np.bool_]) -> Totals:
    """As `_Sums.totals`."""
    counted = np.flatnonzero(_counted(source, flows))
    tick, ten, sixty = (int(source.columns[name].take(counted).sum()) for name in _SUMMED[:3])
    return tick, ten, sixty


def both_ways(source: FlowSource, lookups: Lookups, ends: RemoteEnds) -> Sides:
    """The traffic of all visible flows that came in, and that went out; each packet once.

    Args:
        ends: kept from call to call.
    """
    columns = ends.fill(networked(source.columns, lookups.networks, lookups.here))
    return _sides(_sums(with_columns(source, columns, source.visible), source.visible), source)


def _sides(sums: _Sums, source: FlowSource) -> Sides:
    spans = source.tick_s, source.window_10s_s, source.window_60s_s, source.tick_s
    return Sides(*(Volume._make((*(value / span for value, span in zip(ways, spans, strict=False)), *ways[4:]))
                   for ways in (sums.into, sums.out_of)))


def _listed(sums: _Sums, everything: Totals, source: FlowSource) -> Listed:
    shares = [part / whole if whole else 0.0 for part, whole in zip(sums.totals, everything, strict=True)]
    return Listed(_sides(sums, source), (shares[0], shares[1], shares[2]))


def _sums_of(source: FlowSource, passing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Flows to group: without parents, whose packets are in inner flows, unless there are only parents."""
    own = passing & (source.columns["kind"] != Kind.PARENT)
    return own if own.any() else passing


def _anchor_rank(anchor: int | None, ranking: Ranking, columns: FlowColumns, lead: Slots, rest: Slots) -> int | None:
    if anchor is None:
        return None
    flow_ids = columns["flow_id"]
    for offset, slots in ((0, lead), (len(lead), rest)):
        at = np.flatnonzero(flow_ids[slots] == np.uint64(anchor))
        if len(at):
            return offset + (int(at[0]) if slots is lead else ranking.rank(columns, slots, int(slots[at[0]])))
    return None
