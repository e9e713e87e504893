"""Columns of groups and biflows that show what came in and what went out, as this host sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flowtop.fields.columns import Column, Wording, unfiltered
from flowtop.model.flows import INTO, OUT_OF
from flowtop.model.rows import FlowRow, Volume
from flowtop.text.lookups import Lookups

WAYS = ("_in", "_out")
"""Suffixes of the ids of columns that show what came in, or what went out."""


def ways(column: Column, priority: int, name: str, what: str, heads: tuple[str, str],
         text: Callable[[Volume, bool], str],
         octet_rate: Callable[[Volume], float] | None = None) -> tuple[Column, ...]:
    """The column of the sum, then one of what came in, and one of what went out.

    Args:
        priority: of these two.
        name: the column of flows that they are sorted by.
        what: what they show, as the beginning of a sentence.
        heads: their headers.
        text: formats it; the second argument: rates in bits.
        octet_rate: of a rate: in octets/s, for its colour.
    """
    return (unfiltered(column), *(_of_way(column, priority, name, what, head, text, octet_rate, into=head is heads[0])
                                  for head in heads))


def of_both(column_id: str) -> str:
    """Of a column of one way: the id of the column of both. Any other id is returned as it is."""
    return next((column_id.removesuffix(way) for way in WAYS if column_id.endswith(way)), column_id)


def both_ways(column_id: str) -> tuple[str, ...]:
    """Of a column of one way: the ids of those of the two ways. Of any other column: its own id."""
    both = of_both(column_id)
    return (column_id,) if both == column_id else tuple(both + way for way in WAYS)


def _of_way(of: Column, priority: int, name: str, what: str, head: str, text: Callable[[Volume, bool], str],
            octet_rate: Callable[[Volume], float] | None, *, into: bool) -> Column:
    def volume(row: FlowRow) -> Volume | None:
        return None if row.sides is None else row.sides.into if into else row.sides.out_of

    def cell(row: FlowRow, wording: Wording, _: Lookups) -> str:
        found = volume(row)
        return text(found, wording.bits) if found is not None and any(found) else ""

    def rate(row: FlowRow) -> float:
        found = volume(row)
        return 0.0 if found is None or octet_rate is None else octet_rate(found)

    column = f"{INTO if into else OUT_OF}{name}"
    return replace(
        unfiltered(of), id=f"{of.id}{WAYS[not into]}", text=cell, header=head, width=max(of.width, len(head) + 1),
        doc=f"{what} {'received' if into else 'sent'}, as this host sees it.", priority=priority,
        sort=(lambda columns: columns[column],), octet_rate=rate if octet_rate else None)
