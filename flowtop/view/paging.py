"""Pages for one asker: of now, and of the last minutes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowtop.view.answer import Answer, Answerer
from flowtop.view.details import DetailSource, Watch
from flowtop.view.freeze import Freeze, Moment
from flowtop.view.past import Past
from flowtop.view.query import Kept, Page, Query


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
            found = self._answerer.answer(query, table, now.interfaces)
            return _filled(replace(now, details=details, kept=kept, marked_s=self._marked_s(query.mark, now)), query,
                           found)
        page = replace(moment.page, details=details, kept=kept, present=replace(now, kept=kept))
        if moment.whole:
            found = self._answerer.answer(query, moment.source, page.interfaces)
            page = replace(page, flows_kept=found.flows, marked_s=self._marked_s(query.mark, page))
            return _filled(page, query, found)
        found = self._answerer_of_past.answer(replace(query, hold=None, mark=None), moment.source, page.interfaces)
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
