"""Rows of a page as JSON members or CSV cells: flows, biflows or groups; counts since the start or since a mark."""

from __future__ import annotations

from typing import Any

from flowtop.fields.groups import group_fields, member_names
from flowtop.fields.records import biflow_names, biflow_record, flow_names, flow_record, group_names, group_record
from flowtop.model.rows import FlowRow
from flowtop.query.query import Page, Query
from flowtop.text.lookups import Lookups


def page_record(row: FlowRow, page: Page) -> dict[str, Any]:
    """One row of a page. With a mark, the delta counts are those since the mark, and there are no totals."""
    members = record(row, page.query, page.lookups)
    return members if page.marked_s is None else _since_mark(members)


def page_names(page: Page) -> tuple[str, ...]:
    """Every name that `page_record` may give, in column order of CSV."""
    names = record_names(page.query)
    return names if page.marked_s is None else tuple(name for name in names if name not in _DELTA_OF)


def _since_mark(members: dict[str, Any]) -> dict[str, Any]:
    counts = {_DELTA_OF[name]: count for name, count in members.items() if name in _DELTA_OF}
    return {name: counts.get(name, value) for name, value in members.items() if name not in _DELTA_OF}


def record_names(query: Query) -> tuple[str, ...]:
    """Every name that `record` may give for rows of this query, in column order of CSV."""
    fields = group_fields(query.group)
    if query.biflow:
        return (*flow_names(), *biflow_names())
    return tuple(dict.fromkeys((*member_names(fields), *group_names()))) if fields else flow_names()


def record(row: FlowRow, query: Query, lookups: Lookups) -> dict[str, Any]:
    """One row of a page of this query."""
    if row.ways is not None:
        return biflow_record(row.ways, lookups)
    return group_record(row, query.group, lookups) if row.group else flow_record(row, lookups)


def rows_name(query: Query) -> str:
    """The name of a list of rows of this query."""
    return "groups" if group_fields(query.group) else "biflows" if query.biflow else "flows"


def record_cells(row: FlowRow, query: Query, lookups: Lookups) -> dict[str, Any]:
    """`record` for CSV, which has no lists: the hosts of a pair are in one cell."""
    return _cells(record(row, query, lookups))


def page_cells(row: FlowRow, page: Page) -> dict[str, Any]:
    """`page_record` for CSV."""
    return _cells(page_record(row, page))


def _cells(members: dict[str, Any]) -> dict[str, Any]:
    return {name: " ".join(cell) if isinstance(cell, list) else cell for name, cell in members.items()}


_DELTA_OF = {name: name.replace("Total", "Delta")
             for name in ("octetTotalCount", "packetTotalCount", "reverseOctetTotalCount", "reversePacketTotalCount")}
