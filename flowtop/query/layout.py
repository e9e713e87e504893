"""Columns of a Query's rows: those of flows, groups or biflows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.fields.arrangement import Arrangement
from flowtop.fields.biflows import WAYS, of_both
from flowtop.fields.columns import Column
from flowtop.fields.field import GroupField, Known
from flowtop.fields.groups import group_fields
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS, GROUP_COLUMNS, GROUPS, OF_COLUMNS, REGISTRY, field_id
from flowtop.filters.filter import Filter
from flowtop.filters.tree import tested_keys
from flowtop.query.query import Page, Query
from flowtop.text import units
from flowtop.text.suggestions import nearest


def arranged() -> tuple[Column, ...]:
    """The columns of flows and of biflows, each id once: those that users arrange."""
    return _arranged(REGISTRY.revision)


@lru_cache(maxsize=1)
def _arranged(_: int) -> tuple[Column, ...]:
    return tuple(column for id_, one in COLUMNS.items() for column in (
        one, *(BIFLOW_COLUMNS[id_ + way] for way in WAYS if id_ + way in BIFLOW_COLUMNS)))


def columns_of(query: Query) -> Mapping[str, Column]:
    """The columns of this query's rows, by id, in screen order.

    Raises:
        FlowtopError: as in row_fields.
    """
    if row_fields(query):
        return _columns_of_groups(query.group, REGISTRY.revision)
    return BIFLOW_COLUMNS if query.biflow else COLUMNS


def row_fields(query: Query) -> tuple[GroupField, ...]:
    """The group fields of the query's rows; () for flows and biflows.

    Raises:
        FlowtopError: Query.group has an unknown field, or groups and biflows are combined.
    """
    fields = group_fields(query.group)
    if fields and query.biflow:
        raise FlowtopError("rows are groups or biflows, not both at once", exit_code=EXIT_USAGE,
                           hint=f"omit the biflows, or the grouping by {', '.join(query.group)}")
    return fields


@lru_cache(maxsize=64)
def _columns_of_groups(group: tuple[str, ...], _: int) -> Mapping[str, Column]:
    keys = {field.id: field.column(position) for position, field in enumerate(group_fields(group))}
    own = [column for field in group_fields(group) for column in field.columns]
    fields = group_fields(group)
    if len(fields) == 1 and fields[0].beside in GROUPS:
        own.append(GROUPS[fields[0].beside].column_beside())
    others = sorted((*GROUP_COLUMNS.values(), *own), key=lambda column: column.rank)
    return keys | {column.id: column for column in others if column.id not in keys}


def offered_columns(page: Page) -> dict[str, Column]:
    """The columns of this page's rows that can have a value there, by id, in screen order: to sort by, and to show.

    Others belong to other sources of flows (`Field.known`), or to tunnels and databases that there are none of.
    """
    source: Known = "collector" if page.collecting is not None else "live" if page.source is None else "file"
    return {id_: column for id_, column in columns_of(page.query).items()
            if (id_ not in OF_COLUMNS or source in OF_COLUMNS[id_].known)
            and (page.tunnels or not column.of_tunnels)
            and (page.lookups.networks is not None or not column.of_networks)}


def filtered_columns(query: Query) -> frozenset[str]:
    """Ids of the columns of the query's rows that show what its filter tests."""
    if query.filter is None:
        return frozenset()
    return _filtered(query.filter, REGISTRY.revision) & columns_of(query).keys()


@lru_cache(maxsize=64)
def _filtered(condition: Filter, _: int) -> frozenset[str]:
    keys = tested_keys(condition.tree)  # those of the grammar's own words are no fields'
    return frozenset(column.id for field in REGISTRY.fields if any(field.key is key for key in keys)
                     for column in (field.column, field.group_column, *field.biflow_columns[:1]) if column is not None)


def arrangement_of(query: Query, chosen: Arrangement) -> Arrangement:
    """The part of a user's arrangement that applies to rows of this query.

    The columns that identify a group are always shown, on the left.
    """
    fields = group_fields(query.group)
    if not fields:
        return chosen
    keys = {field.id for field in fields}
    return replace(chosen, order=(), hidden=chosen.hidden - keys,
                   widths=tuple((column_id, width) for column_id, width in chosen.widths if column_id not in keys))


def sorted_column(query: Query) -> Column:
    """The column a query is sorted by. If its rows have no such column, the one of both directions, or the rate.

    So a screen keeps its order while grouping changes; `sort_column` is for text from users.
    """
    columns = columns_of(query)
    found = columns.get(query.sort) or columns.get(of_both(query.sort))
    return found if found is not None and found.sort else columns["rate"]


def order_text(query: Query) -> str:
    """The sort column and direction: `RATE↓`."""
    return f"{sorted_column(query).header}{units.order_arrow(query.descending)}"


def sort_column(column_id: str, query: Query | None = None) -> Column:
    """The column with that id among the columns of the query's rows.

    Raises:
        FlowtopError: unknown column; the hint has similar ones.
    """
    columns = columns_of(query or Query())
    columns = {id_: column for id_, column in columns.items() if column.sort}
    column = columns.get(column_id) or columns.get(field_id(column_id))
    if column is None:
        near = nearest(column_id, columns, 2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(columns)}"
        raise FlowtopError(f"unknown sort column {column_id!r}", hint=hint, exit_code=EXIT_USAGE)
    return column
