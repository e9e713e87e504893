"""`Query` → `Answer`: the rows of one page out of a flow table, in the metering thread."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.view.columns import COLUMNS, Column
from flowtop.view.flows import Array, FlowColumns, FlowSource
from flowtop.view.query import FlowRow, Query
from flowtop.view.ranking import Ranking, Slots

_CLOSING_BITS = np.uint16(0b101)
"""FIN and RST."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of a Page that comes from the flows; fields as in Page."""

    rows: tuple[FlowRow, ...]
    matched: int
    flows: int
    active_flows: int
    anchor_rank: int | None


@dataclass(frozen=True, slots=True)
class _Held:
    """An order that was fixed: slots, and who was in them."""

    number: int
    slots: Slots
    flow_ids: npt.NDArray[np.uint64]


class Answerer:
    """Answers the Queries of one asker; it keeps the order that this asker holds."""

    def __init__(self) -> None:
        self._held: _Held | None = None

    def answer(self, query: Query, source: FlowSource, interfaces: Mapping[int, str] | None = None) -> Answer:
        """Rows, counts and the anchor's rank, as of the source's last tick.

        Args:
            query: what is asked.
            source: the flows.
            interfaces: name by ifindex, for filters.

        Raises:
            FlowtopError: no such column to sort by; or grouping or biflow.
        """
        column = sort_column(query.sort)
        if query.group or query.biflow:
            raise FlowtopError("grouping and biflow are not there yet", hint="ask without them", exit_code=EXIT_USAGE)
        columns, visible = source.columns, source.visible
        shown = visible & self._passes(query, source, interfaces or {})
        ranking = Ranking.by(column, query.descending)
        start = max(0, query.offset)
        if query.hold is None:
            self._held = None
            lead, rest = np.empty(0, np.int64), np.flatnonzero(shown)
        else:
            lead, rest = self._hold(query.hold, ranking, columns, visible, shown)
        stop = len(lead) + len(rest) if query.limit is None else start + query.limit
        after = ranking.span(columns, rest, max(0, start - len(lead)), max(0, stop - len(lead)))
        chosen = np.concatenate((lead[start:stop], after))
        flows = int(np.count_nonzero(visible))
        ended = int(np.count_nonzero(visible & (columns["end_reason"] != 0)))
        return Answer(flow_rows(source, chosen), len(lead) + len(rest), flows, flows - ended,
                      _anchor_rank(query.anchor, ranking, columns, lead, rest))

    @staticmethod
    def _passes(query: Query, source: FlowSource,
                interfaces: Mapping[int, str]) -> npt.NDArray[np.bool_] | np.bool_:
        return np.True_ if query.filter is None else query.filter.mask(source, interfaces)

    def _hold(self, number: int, ranking: Ranking, columns: FlowColumns, visible: npt.NDArray[np.bool_],
              shown: npt.NDArray[np.bool_]) -> tuple[Slots, Slots]:
        """Shown slots in held order, and shown slots that the order does not know, ascending."""
        if self._held is None or self._held.number != number:
            slots = ranking.ordered(columns, np.flatnonzero(visible))
            self._held = _Held(number, slots, columns["flow_id"][slots].copy())
        held = self._held
        same = columns["flow_id"][held.slots] == held.flow_ids
        known = np.zeros(len(shown), np.bool_)
        known[held.slots[same]] = True
        lead = held.slots[same & shown[held.slots]]
        return lead, np.flatnonzero(shown & ~known)


def sort_column(column_id: str) -> Column:
    """The column of that id.

    Raises:
        FlowtopError: there is none; the hint names near ones.
    """
    column = COLUMNS.get(column_id)
    if column is None:
        near = difflib.get_close_matches(column_id, COLUMNS, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(COLUMNS)}"
        raise FlowtopError(f"no column {column_id!r} to sort by", hint=hint, exit_code=EXIT_USAGE)
    return column


def _anchor_rank(anchor: int | None, ranking: Ranking, columns: FlowColumns, lead: Slots, rest: Slots) -> int | None:
    if anchor is None:
        return None
    flow_ids = columns["flow_id"]
    for offset, slots in ((0, lead), (len(lead), rest)):
        at = np.flatnonzero(flow_ids[slots] == np.uint64(anchor))
        if len(at):
            return offset + (int(at[0]) if slots is lead else ranking.rank(columns, slots, int(slots[at[0]])))
    return None


_COPIED = frozenset(FlowRow._fields) - {
    "closing", "octet_rate", "octet_rate_10s", "octet_rate_60s", "packet_rate", "packet_rate_10s", "packet_rate_60s",
    "start_ms", "end_ms", "age_s", "idle_s"}


def flow_rows(source: FlowSource, slots: Slots) -> tuple[FlowRow, ...]:
    """The flows in these slots, in this order, as plain Python values."""
    columns = source.columns

    def take(name: str) -> Array:
        return columns[name][slots]

    first_ns, last_ns = take("first_ns"), take("last_ns")
    fields: dict[str, Array] = {name: take(name) for name in _COPIED}
    fields["closing"] = take("tcp_control_bits") & _CLOSING_BITS != 0
    fields["octet_rate"] = fields["octet_delta"] / source.tick_s
    fields["octet_rate_10s"] = take("octets_10s") / source.window_10s_s
    fields["octet_rate_60s"] = take("octets_60s") / source.window_60s_s
    fields["packet_rate"] = fields["packet_delta"] / source.tick_s
    fields["packet_rate_10s"] = take("packets_10s") / source.window_10s_s
    fields["packet_rate_60s"] = take("packets_60s") / source.window_60s_s
    fields["start_ms"] = (first_ns + source.unix_offset_ns) // 1_000_000
    fields["end_ms"] = (last_ns + source.unix_offset_ns) // 1_000_000
    fields["age_s"] = (last_ns - first_ns) / 1e9
    fields["idle_s"] = (source.now_ns - last_ns) / 1e9
    return tuple(map(FlowRow._make, zip(*(fields[name].tolist() for name in FlowRow._fields), strict=True)))
