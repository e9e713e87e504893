"""The Query that a command line begins with."""

from __future__ import annotations

from dataclasses import replace

from flowtop.query.query import Query


def first_query(sort: str, filter_text: str, limit: int | None, group: str = "", *,
                biflow: bool = False) -> Query:
    """What to show first; the plainest without the columns: they bring numpy, and a first frame should not wait for it.

    Args:
        sort: id of a column.
        filter_text: empty: every flow.
        limit: as in Query.
        group: fields to group by, separated by commas; empty: none. `flow` and `biflow` stand for themselves.
        biflow: both ways of a conversation in one row.

    Raises:
        FlowtopError: no such column, or no filter, or nothing of that name to group by, or groups and biflows at once.
    """
    fields = [field.strip() for field in group.split(",")] if group else []
    query = Query(limit=limit, group=tuple(field for field in fields if field not in ("flow", "biflow")),
                  biflow=biflow or "biflow" in fields)
    if filter_text.strip():
        from flowtop.filters.filter import compile_filter

        query = replace(query, filter=compile_filter(filter_text))
    if sort == query.sort and not group:  # biflows have that column too
        return query
    from flowtop.query.layout import sort_column

    column = sort_column(sort, query)
    return replace(query, sort=column.id, descending=column.descending_first)
