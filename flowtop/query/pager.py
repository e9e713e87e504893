"""Pages for one asker: of now, of the moment at which its picture stands still, and of the last minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flowtop.model.flows import FLOW_COLUMN_DTYPES, FlowSource, with_columns
from flowtop.query.answer import Answer, Answerer
from flowtop.query.details import DetailSource, Watch
from flowtop.query.past import Past
from flowtop.query.query import Kept, Page, Query

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


class Pager:
    """Answers one asker's Queries.

    Args:
        past: where ticks are kept; None: none are, and Query.at means nothing.
        freeze: where the moment is kept at which the picture stands still.
    """

    def __init__(self, past: Past | None = None, freeze: Freeze | None = None) -> None:
        self._past = past
        self._freeze = freeze or Freeze(past)
        seed = np.random.SeedSequence().entropy  # the same for both: a group keeps its id when one looks back
        self._answerer = Answerer(np.random.default_rng(seed))
        self._answerer_of_past = Answerer(np.random.default_rng(seed))  # orders are held in slots, others there
        self._watch = Watch()
        self._marked: tuple[int, float] | None = None

    def remember(self, table: DetailSource, now: Page) -> None:
        """Keep the tick that has just been closed."""
        if self._past is None:
            return
        flows = int(np.count_nonzero(table.visible))
        ended = int(np.count_nonzero(table.visible & (table.columns["end_reason"] != 0)))
        self._past.remember(table, replace(now, flows=flows, active_flows=flows - ended))

    def page(self, query: Query, table: DetailSource, now: Page) -> Page:
        """The answer to a Query.

        Args:
            query: what is asked.
            table: the flows.
            now: a page with everything that does not come from the flows.

        Raises FlowtopError: see Answerer.answer.
        """
        table.keep(self._answerer.kept(query))
        page = self._page(query, table, now)
        table.keep(self._answerer.kept(query))  # which flows a biflow is made of is known by now
        return page

    def _page(self, query: Query, table: DetailSource, now: Page) -> Page:
        kept = self._kept()
        moment = self._moment(query, table, now)
        details = self._watch.look(query.details, table, None if moment is None else moment.source)
        if moment is None:
            found = self._answerer.answer(query, table, now.lookups)
            return _filled(replace(now, details=details, kept=kept, marked_s=self._marked_s(query.mark, now)), query,
                           found)
        page = replace(moment.page, details=details, kept=kept, present=replace(now, kept=kept))
        if moment.whole:
            found = self._answerer.answer(query, moment.source, page.lookups)
            page = replace(page, flows_kept=found.flows, marked_s=self._marked_s(query.mark, page))
            return _filled(page, query, found)
        found = self._answerer_of_past.answer(replace(query, hold=None, mark=None), moment.source, page.lookups)
        return _filled(replace(page, flows_kept=found.flows), query,
                       replace(found, flows=page.flows, active_flows=page.active_flows))

    def _moment(self, query: Query, table: DetailSource, now: Page) -> Moment | None:
        """Which the answer is of, when not of now."""
        frozen = self._freeze.moment(query.freeze, table, now)
        past = None if self._past is None or query.at is None else self._past.at(query.at)
        return frozen if past is None else Moment(*past, False)

    def _marked_s(self, mark: int | None, now: Page) -> float | None:
        if mark is None:
            self._marked = None
            return None
        if self._marked is None or self._marked[0] != mark:
            self._marked = mark, now.uptime_s
        return now.uptime_s - self._marked[1]

    def _kept(self) -> Kept | None:
        past = self._past
        if past is None or not past.ticks:
            return None
        return Kept(past.ticks.start, past.ticks.stop - 1, past.seconds)


def _filled(page: Page, query: Query, found: Answer) -> Page:
    return replace(page, query=query, rows=found.rows, matched=found.matched, matched_flows=found.matched_flows,
                   flows=found.flows, active_flows=found.active_flows, anchor_rank=found.anchor_rank,
                   hidden=found.hidden, joined=found.joined, anchor_row=found.anchor_row)
