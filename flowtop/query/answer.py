"""`Query` → `Answer`: the rows of one page out of a flow table, in the metering thread; from a mark on if asked."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowtop.fields.columns import Column
from flowtop.model.flows import Array, FlowColumns, FlowSource, Slots, with_columns
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow
from flowtop.query.biflows import Biflows, Pairing
from flowtop.query.grouping import Groups
from flowtop.query.layout import row_fields, sorted_column
from flowtop.query.measures import measured
from flowtop.query.query import Query
from flowtop.query.ranking import Ranking
from flowtop.query.rows import biflow_rows, flow_rows, group_rows
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import NO_NAMES

_TABLE = 1 << 16
"""Codes below are looked up in an array: all interfaces, but exporters' and those of hosts that made very many."""


def in_text_order(column: Column, lookups: Lookups) -> Column:
    """A column of codes with the order of their texts; any other column as it is.

    Args:
        lookups: has the texts; codes without one come after all others, by number.
    """
    names = {} if column.texts is None else column.texts.names(lookups)
    if column.texts is None or not names:
        return column
    part, [number] = column.texts.part, column.sort
    ordered = sorted(names, key=lambda code: (_natural(part(names[code])), _natural(names[code])))
    ranks = {code: rank for rank, code in enumerate(ordered)}
    small, large = [i for i in ordered if i < _TABLE], np.array(sorted(i for i in ordered if i >= _TABLE), np.int64)
    table = len(ordered) + np.arange(max(small, default=-1) + 2)
    table[small] = [ranks[code] for code in small]
    of_large = np.array([ranks[code] for code in large.tolist()], np.int64)

    def rank(columns: FlowColumns) -> Array:
        codes = number(columns).astype(np.uint32)
        found = table[np.minimum(codes, np.uint32(len(table) - 1))]
        beyond = np.flatnonzero(codes >= len(table) - 1)
        if len(beyond):
            others = codes[beyond].astype(np.int64)
            found[beyond] = len(ordered) + others
            if len(large):
                at = np.minimum(np.searchsorted(large, others), len(large) - 1)
                named = large[at] == others
                found[beyond[named]] = of_large[at[named]]
        return found

    return replace(column, sort=(rank,))


def _natural(name: str) -> list[tuple[int, str]]:
    """`eth10` after `eth2`: text and numbers in turn."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]

COUNTED = ("packet_total", "octet_total")
"""The columns that count from the mark."""


@dataclass(frozen=True, slots=True)
class _Base:
    """What every slot's flow had at the mark: 16 octets a slot, and 8 to tell whose they are."""

    number: int
    flow_ids: npt.NDArray[np.uint64]
    counts: dict[str, Array]


class Mark:
    """The mark of one asker, the newest only."""

    def __init__(self) -> None:
        self._base: _Base | None = None

    def since(self, number: int | None, source: FlowSource) -> FlowSource:
        """The source, with counters of life taken since the mark of that number.

        A number seen for the first time marks the source's last tick. Flows born since count from their birth. None
        forgets the mark.
        """
        if number is None:
            self._base = None
            return source
        columns = source.columns
        if self._base is None or self._base.number != number:
            self._base = _Base(number, columns["flow_id"].copy(), {name: columns[name].copy() for name in COUNTED})
        return with_columns(source, _Since(columns, self._base), source.visible)


class _Since:
    """Columns in which COUNTED are what has come since."""

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
        known = min(len(counts), len(base.flow_ids))  # the table may have grown since
        same = self._columns["flow_id"][:known] == base.flow_ids[:known]
        counts[:known][same] -= base.counts[name][:known][same]
        return counts

BIFLOWS = ("biflow",)
"""What rows are, in the place of fields that groups have in common."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of a Page that comes from the flows; fields as in Page."""

    rows: tuple[FlowRow, ...]
    matched: int
    matched_flows: int
    flows: int
    active_flows: int
    anchor_rank: int | None
    hidden: int = 0
    joined: int = 0
    anchor_row: int | None = None


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is ranked and paged: flows, or groups of them.

    Attributes:
        shown: which of the source's visible elements; the same array when all.
        take: the rows of chosen slots, in their order.
        kind: what rows are, where slots are other rows' at each look: fields of groups, or biflows; () for flows.
        row_of: flow_id of the row that the flow of a flow_id is in; None: of no row, or rows are what was asked for.
    """

    source: FlowSource
    shown: npt.NDArray[np.bool_]
    take: Callable[[Slots], tuple[FlowRow, ...]]
    kind: tuple[str, ...] = ()
    row_of: Callable[[int], int | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _Held:
    """An order that was fixed: slots, and who was in them. Groups have other slots each time: they are looked for."""

    number: int
    kind: tuple[str, ...]
    slots: Slots
    ids: npt.NDArray[np.uint64]

    def find(self, columns: FlowColumns) -> Slots:
        """Slots of those that are still there, in held order."""
        ids, slots = columns["flow_id"], self.slots
        if self.kind:
            if not len(ids):
                return slots[:0]
            order = np.argsort(ids)
            slots = order[np.minimum(np.searchsorted(ids, self.ids, sorter=order), len(ids) - 1)]
        found: Slots = slots[ids[slots] == self.ids]
        return found


class Answerer:
    """Answers the Queries of one asker; it keeps the order that this asker holds.

    Args:
        rng: makes the ids of groups; unpredictable when not given.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self._held: _Held | None = None
        self._mark = Mark()
        self._pairing: Pairing | None = None
        self._around: tuple[int, tuple[int, ...]] | None = None  # the anchor's biflow
        self._came_by: int | None = None  # the flow that was the anchor before its biflow was
        rng = np.random.default_rng() if rng is None else rng
        self._seed = int(rng.integers(1 << 62))

    def answer(self, query: Query, source: FlowSource, lookups: Lookups = NO_LOOKUPS) -> Answer:
        """Rows, counts and the anchor's rank, as of the source's last tick.

        Args:
            query: what is asked.
            source: the flows.
            lookups: names of interfaces and texts of other codes, for filters, orders and groups.

        Raises:
            FlowtopError: nothing of that name to group by; or groups and biflows at once.
        """
        query = self._as_flow(query, source)
        visible = source.visible
        passing = visible & self._passes(query, source, lookups)
        ended = visible & (source.columns["end_reason"] != 0)
        hidden, wanted = 0, passing
        if not query.ended:
            unwanted = passing & ended & (source.columns["flow_id"] != np.uint64(query.anchor or 0))
            passing, hidden = passing & ~unwanted, int(np.count_nonzero(unwanted))
        rows = self._rows(query, measured(self._mark.since(query.mark, source)), passing, wanted, lookups)
        columns = rows.source.columns
        ranking = Ranking.by(in_text_order(sorted_column(query), lookups), query.descending,
                             parents_last=rows.kind in ((), BIFLOWS))  # groups have none beside flows
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
                      None if rank is None else anchor)

    def kept(self, query: Query) -> frozenset[int]:
        """flow_ids of what must not leave while the cursor is on it: the anchor, or the flows of its biflow."""
        if query.anchor is None or query.group:
            return frozenset()
        if self._around is not None:
            biflow, flows = self._around
            if query.anchor == biflow or (query.biflow and query.anchor in flows):
                return frozenset(flows)
        return frozenset({query.anchor})

    def _as_flow(self, query: Query, source: FlowSource) -> Query:
        """Rows are flows and the anchor is a biflow still: the flow it was before, or else the first of the biflow."""
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
        first = np.lexsort((ids, columns["duplicate"][flows], ids != np.uint64(self._came_by or 0)))[0]
        return replace(query, anchor=int(ids[first]))

    def _rows(self, query: Query, source: FlowSource, passing: npt.NDArray[np.bool_],
              wanted: npt.NDArray[np.bool_], lookups: Lookups) -> _Rows:
        fields = row_fields(query)
        if query.biflow:
            return self._biflows(source, passing, wanted, query.anchor)
        self._pairing = None
        if not fields:
            return _Rows(source, passing, lambda chosen: flow_rows(source, chosen))
        seed = self._seed ^ zlib.crc32(",".join(query.group).encode())  # other fields, other ids
        groups = Groups(source, np.flatnonzero(_sums_of(source, passing)), fields, seed, lookups)
        return _Rows(groups.source, groups.source.visible, lambda chosen: group_rows(groups.take(chosen), fields),
                     query.group)

    def _biflows(self, source: FlowSource, passing: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_],
                 anchor: int | None) -> _Rows:
        """Those of which a flow passes; of the anchor one of the `wanted` is enough, ended or not."""
        slots = np.flatnonzero(source.visible)
        biflows = Biflows(source, slots, self._seed, self._pairing)
        self._pairing = biflows.pairing
        self._around = None if anchor is None else self._pairing.around(anchor)
        if self._around is not None and anchor != self._around[0]:
            self._came_by = anchor
        shown = np.zeros(len(biflows.source.visible), np.bool_)
        shown[biflows.of[passing[slots]]] = True
        if passing is not wanted and anchor is not None:
            here = np.flatnonzero(biflows.source.columns["flow_id"] == np.uint64(anchor))
            shown[here] |= np.isin(here, biflows.of[wanted[slots]])

        def row_of(flow_id: int) -> int | None:
            around = biflows.pairing.around(flow_id)
            return around and around[0]

        return _Rows(biflows.source, shown, lambda chosen: biflow_rows(biflows.take(chosen)), BIFLOWS, row_of)

    @staticmethod
    def _passes(query: Query, source: FlowSource,
                lookups: Lookups) -> npt.NDArray[np.bool_] | np.bool_:
        passing: npt.NDArray[np.bool_] | np.bool_ = np.True_
        lookups = replace(lookups, hosts=query.names or NO_NAMES)
        for wanted in (query.filter, query.scope):
            if wanted is not None:
                passing = passing & wanted.mask(source, lookups)
        return passing

    def _hold(self, query: Query, ranking: Ranking, rows: _Rows) -> tuple[Slots, Slots]:
        """Shown slots in held order, and shown slots that the order does not know, ascending."""
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


def _sums_of(source: FlowSource, passing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What groups are made of: parents' packets are in the flows they carry, so they are only grouped by themselves."""
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
