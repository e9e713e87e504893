"""Pages for one client: of now, of a frozen moment, or of the last minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flowtop.model.flows import FLOW_COLUMN_DTYPES, FlowSource, kept_column, with_columns
from flowtop.query.answer import Answer, Answerer
from flowtop.query.compare import compared
from flowtop.query.details import DetailSource, Watch
from flowtop.query.history import ListLog
from flowtop.query.past import Past
from flowtop.query.query import Kept, Page, Query, TrafficHistory

SLOTS = 262_144
"""Larger tables (this is about 50 MB) are not copied when frozen; the past's copy of the tick is used."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The flows that a query is answered from.

    Attributes:
        page: the page at that time, without rows.
        source: the flows at that time.
        whole: a copy of the whole table with its slots; False: the flows that the past keeps of a tick.
    """

    page: Page
    source: FlowSource
    whole: bool


class Freeze:
    """Stores the frozen moment of one client.

    Args:
        past: past ticks, for tables that are too large to copy; None: there are none.
        slots: size of the largest table that is copied.
    """

    def __init__(self, past: Past | None, slots: int = SLOTS) -> None:
        self._past = past
        self._slots = slots
        self._held: tuple[int, Moment | None] | None = None

    def moment(self, number: int | None, table: FlowSource, now: Page) -> Moment | None:
        """The moment at which `number` was first used; None if number is None, or if it could not be stored."""
        if number is None:
            self._held = None
            return None
        if self._held is None or self._held[0] != number:
            self._held = number, self._now(table, now)
        return self._held[1]

    def _now(self, table: FlowSource, now: Page) -> Moment | None:
        if len(table.visible) <= self._slots:
            columns = {name: kept_column(table.columns, name) for name in FLOW_COLUMN_DTYPES}
            return Moment(now, with_columns(table, columns, table.visible.copy()), True)
        kept = None if self._past is None else self._past.at(now.tick)
        return None if kept is None else Moment(*kept, False)


class Pager:
    """Answers one client's Queries.

    Args:
        past: past ticks; None: there are none, and Query.at is ignored.
        freeze: stores the frozen moment.
        seed: of the ids of groups and biflows, which decide among equal ones; unpredictable when not given.
    """

    def __init__(self, past: Past | None = None, freeze: Freeze | None = None, seed: int | None = None) -> None:
        self._past = past
        self._freeze = freeze or Freeze(past)
        entropy = np.random.SeedSequence(seed).entropy  # the same for both: a group keeps its id in the past
        self._answerer = Answerer(np.random.default_rng(entropy))
        self._answerer_of_past = Answerer(np.random.default_rng(entropy))  # held orders are slots, which differ there
        self._answerer_of_sums = Answerer(np.random.default_rng(entropy))
        self._watch = Watch()
        self._log = ListLog()
        self._marked: tuple[int, float] | None = None

    def remember(self, table: DetailSource, now: Page) -> None:
        """Store the tick that has just been closed."""
        if self._past is None:
            return
        flows = int(np.count_nonzero(table.visible))
        ended = int(np.count_nonzero(table.visible & (table.columns["end_reason"] != 0)))
        self._past.remember(table, replace(now, flows=flows, active_flows=flows - ended))

    def page(self, query: Query, table: DetailSource, now: Page) -> Page:
        """Answer a Query.

        Args:
            query: the query.
            table: the flows.
            now: a page with everything that does not depend on the flows.

        Raises FlowtopError: see Answerer.answer.
        """
        table.keep(self._answerer.kept(query))
        page = self._page(query, table, now)
        table.keep(self._answerer.kept(query))  # now the flows of a biflow are known
        return page

    def _page(self, query: Query, table: DetailSource, now: Page) -> Page:
        kept = self._kept()
        moment = self._moment(query, table, now)
        before = None if self._past is None or query.compare is None else self._past.at(query.compare)
        then = None if before is None else before[1]
        details = self._watch.look(query.details, table, then if moment is None else moment.source, now.lookups)
        if before is not None:
            now = replace(now, compared_ms=before[0].unix_ms)
        if moment is None:
            answer = self._answerer.answer(query, table if then is None else compared(table, then), now.lookups)
            group = self._history_of_now(query, table, now) if then is not None else self._log.tick(
                query, table, answer.ways, answer.listed, now.tick)
            return _filled(replace(now, details=details, kept=kept, marked_s=self._marked_s(query.mark, now),
                                   listed_history=group), query, answer)
        page = replace(moment.page, details=details, kept=kept, present=replace(now, kept=kept),
                       compared_ms=now.compared_ms, listed_history=self._history_of_now(query, table, now))
        if then is not None:
            moment = replace(moment, source=compared(moment.source, then))
        if moment.whole:
            answer = self._answerer.answer(query, moment.source, page.lookups)
            page = replace(page, flows_kept=answer.flows, marked_s=self._marked_s(query.mark, page))
            return _filled(page, query, answer)
        answer = self._answerer_of_past.answer(replace(query, hold=None, mark=None), moment.source, page.lookups)
        return _filled(replace(page, flows_kept=answer.flows), query,
                       replace(answer, flows=page.flows, active_flows=page.active_flows))

    def _history_of_now(self, query: Query, table: DetailSource, now: Page) -> TrafficHistory:
        """That of what is listed, while one looks at another moment or compares with one."""
        if self._log.needs(query, now.tick):
            sums = Query(scope=query.scope, filter=query.filter, names=query.names, ended=query.ended, limit=0)
            answer = self._answerer_of_sums.answer(sums, table, now.lookups)
            self._log.tick(query, table, answer.ways, answer.listed, now.tick)
        return self._log.history

    def _moment(self, query: Query, table: DetailSource, now: Page) -> Moment | None:
        """The moment to answer from; None for now."""
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


def _filled(page: Page, query: Query, answer: Answer) -> Page:
    return replace(page, query=query, rows=answer.rows, matched=answer.matched, matched_flows=answer.matched_flows,
                   flows=answer.flows, active_flows=answer.active_flows, anchor_rank=answer.anchor_rank,
                   hidden=answer.hidden, own_hidden=answer.own_hidden, joined=answer.joined,
                   anchor_row=answer.anchor_row, listed=answer.listed, since_start=answer.since_start)
