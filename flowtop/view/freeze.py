"""The moment at which one asker's picture stands still: the flows as they were then, all of them."""

from __future__ import annotations

from dataclasses import dataclass

from flowtop.view.flows import FLOW_COLUMN_DTYPES, FlowSource, with_columns
from flowtop.view.past import Past
from flowtop.view.query import Page

SLOTS = 262_144
"""Of a larger table (this is about 50 MB) only what the past keeps of the tick is held."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is answered from.

    Attributes:
        page: of then, without rows.
        source: the flows of then.
        whole: in the slots of the table; otherwise they are those that the past keeps of a tick.
    """

    page: Page
    source: FlowSource
    whole: bool


class Freeze:
    """Keeps the newest moment of one asker.

    Args:
        past: what is kept of ticks, for tables that are too large; None: nothing is.
        slots: of the largest table that is held whole.
    """

    def __init__(self, past: Past | None, slots: int = SLOTS) -> None:
        self._past = past
        self._slots = slots
        self._held: tuple[int, Moment | None] | None = None

    def moment(self, number: int | None, table: FlowSource, now: Page) -> Moment | None:
        """The moment at which `number` was seen first; None: number is None, or there was no way to hold it."""
        if number is None:
            self._held = None
            return None
        if self._held is None or self._held[0] != number:
            self._held = number, self._now(table, now)
        return self._held[1]

    def _now(self, table: FlowSource, now: Page) -> Moment | None:
        if len(table.visible) <= self._slots:
            columns = {name: table.columns[name].copy() for name in FLOW_COLUMN_DTYPES}
            return Moment(now, with_columns(table, columns, table.visible.copy()), True)
        kept = None if self._past is None else self._past.at(now.tick)
        return None if kept is None else Moment(*kept, False)
