"""The Query that a command line begins with."""

from __future__ import annotations

from dataclasses import replace

from flowtop.view.query import Query


def first_query(sort: str, filter_text: str, limit: int | None) -> Query:
    """What to show first; the plainest without the columns: they bring numpy, and a first frame should not wait for it.

    Args:
        sort: id of a column.
        filter_text: empty: every flow.
        limit: as in Query.

    Raises:
        FlowtopError: no such column, or no filter.
    """
    query = Query(limit=limit)
    if filter_text.strip():
        from flowtop.view.filter import compile_filter

        query = replace(query, filter=compile_filter(filter_text))
    if sort == query.sort:
        return query
    from flowtop.view.answer import sort_column

    column = sort_column(sort)
    return replace(query, sort=column.id, descending=column.descending_first)
