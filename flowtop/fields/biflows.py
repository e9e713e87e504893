"""Columns of biflows: the sum of both directions, and each direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flowtop.fields.columns import Column, Wording, unfiltered
from flowtop.model.flows import FORWARD, REVERSE
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import Lookups

WAYS = ("_forward", "_reverse")
"""Suffixes of the ids of columns that show one direction."""


def ways(column: Column, priority: int, name: str, what: str,
         text: Callable[[FlowRow, bool], str]) -> tuple[Column, ...]:
    """The column of the sum, then one for each direction.

    Args:
        priority: of the columns of one direction.
        name: the column of flows that they are sorted by.
        what: what they show, as the beginning of a sentence.
        text: formats the flow of one direction; the second argument: rates in bits.
    """
    return (unfiltered(column), _of_way(column, priority, name, f"{what} from the initiator.", text, forward=True),
            _of_way(column, priority, name, f"{what} to the initiator.", text, forward=False))


def of_both(column_id: str) -> str:
    """Of a column of one direction: the id of the column of both. Any other id is returned as it is."""
    return next((column_id.removesuffix(way) for way in WAYS if column_id.endswith(way)), column_id)


def _way(row: FlowRow, *, forward: bool) -> FlowRow | None:
    if row.ways is None:
        return None
    return row.ways.forward if forward else row.ways.reverse


def _of_way(of: Column, priority: int, name: str, doc: str, text: Callable[[FlowRow, bool], str], *,
            forward: bool) -> Column:
    """The column that shows one direction of what `of` shows; empty when that direction was not seen."""
    rate = of.octet_rate

    def cell(row: FlowRow, wording: Wording, _: Lookups) -> str:
        way = _way(row, forward=forward)
        return "" if way is None else text(way, wording.bits)

    def octet_rate(row: FlowRow) -> float:
        way = _way(row, forward=forward)
        return 0.0 if way is None or rate is None else rate(way)

    column = f"{FORWARD if forward else REVERSE}{name}"
    return replace(
        unfiltered(of), id=f"{of.id}{WAYS[not forward]}", doc=doc, text=cell,
        header=f"{of.header}{'→' if forward else '←'}", width=max(of.width, len(of.header) + 2), priority=priority,
        sort=(lambda columns: columns[column],), octet_rate=octet_rate if rate else None)
