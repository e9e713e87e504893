"""Which columns a Query's rows have: those of flows, of groups, of biflows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.fields.arrangement import Arrangement
from flowtop.fields.biflows import WAYS, of_both
from flowtop.fields.columns import Column
from flowtop.fields.field import GroupField
from flowtop.fields.groups import group_fields
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS, GROUP_COLUMNS, REGISTRY
from flowtop.query.query import Query
from flowtop.text import units


def arranged() -> tuple[Column, ...]:
    """The columns of flows and of biflows, each id once: what a reader arranges."""
    return tuple(column for id_, one in COLUMNS.items() for column in (
        one, *(BIFLOW_COLUMNS[id_ + way] for way in WAYS if id_ + way in BIFLOW_COLUMNS)))


def columns_of(query: Query) -> Mapping[str, Column]:
    """The columns that rows of this query have, by id, in the order of the screen.

    Raises:
        FlowtopError: as row_fields.
    """
    if row_fields(query):
        return _columns_of_groups(query.group, REGISTRY.revision)
    return BIFLOW_COLUMNS if query.biflow else COLUMNS


def row_fields(query: Query) -> tuple[GroupField, ...]:
    """What the query's rows are grouped by; () when they are flows or biflows.

    Raises:
        FlowtopError: Query.group names something that is not there; or there are groups and biflows at once.
    """
    fields = group_fields(query.group)
    if fields and query.biflow:
        raise FlowtopError("rows are groups or biflows, not both at once", exit_code=EXIT_USAGE,
                           hint=f"leave out the biflows, or the grouping by {', '.join(query.group)}")
    return fields


@lru_cache(maxsize=64)
def _columns_of_groups(group: tuple[str, ...], _: int) -> Mapping[str, Column]:
    keys = {field.id: field.column(position) for position, field in enumerate(group_fields(group))}
    return keys | {column_id: column for column_id, column in GROUP_COLUMNS.items() if column_id not in keys}


def arrangement_of(query: Query, chosen: Arrangement) -> Arrangement:
    """What of a reader's arrangement of flows' columns holds for rows of this query.

    The columns that name a group are always there, at the left.
    """
    fields = group_fields(query.group)
    if not fields:
        return chosen
    keys = {field.id for field in fields}
    return replace(chosen, order=(), hidden=chosen.hidden - keys,
                   widths=tuple((column_id, width) for column_id, width in chosen.widths if column_id not in keys))


def sorted_column(query: Query) -> Column:
    """The column a query is sorted by: where its rows have no such column, but others have, the one of both ways, or
    the rate.

    So a screen may keep its order while it groups and ungroups; `sort_column` is for people's words.
    """
    columns = columns_of(query)
    return columns.get(query.sort) or columns.get(of_both(query.sort)) or columns["rate"]


def order_text(query: Query) -> str:
    """By what rows are sorted, and which way: `RATE↓`."""
    return f"{sorted_column(query).header}{units.order_arrow(query.descending)}"


def sort_column(column_id: str, query: Query | None = None) -> Column:
    """The column of that id among those that rows of the query have.

    Raises:
        FlowtopError: there is none; the hint names near ones.
    """
    columns = columns_of(query or Query())
    column = columns.get(column_id)
    if column is None:
        near = difflib.get_close_matches(column_id, columns, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(columns)}"
        raise FlowtopError(f"no column {column_id!r} to sort by", hint=hint, exit_code=EXIT_USAGE)
    return column
