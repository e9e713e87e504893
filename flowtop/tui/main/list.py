"""The list: cursor and view, order, pause, past ticks, the mark, and units."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from flowtop.fields.arrangement import Arrangement
from flowtop.fields.columns import WINDOWS, Column, Window, Wording
from flowtop.fields.fitting import NO_DISTINCTIONS
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.names_seen import NAMES
from flowtop.model.record import SourceState
from flowtop.query.layout import arrangement_of, columns_of, filtered_columns, offered_columns, sorted_column
from flowtop.query.query import Page
from flowtop.query.views import in_window
from flowtop.text import units
from flowtop.tui.clock import Clock
from flowtop.tui.main.view import View
from flowtop.tui.panels.sorting import SortScreen
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import Viewport
from flowtop.tui.widgets.flow_table import TableView
from flowtop.tui.widgets.header import clock as clock_text

_WINDOW_WORDS: dict[Window, str] = {"tick": "the last tick", "10s": "the last 10 seconds", "60s": "the last 60 seconds"}


COMPARE_S = 120.0
"""How far back the moment is that one compares with, unless there is a mark."""
WINDOW_S = 10.0
"""Of the rates that are compared."""
CHANGE = "change"
COMPARED = frozenset({CHANGE, "trend"})
"""Columns that say what a comparison found."""


class ListController:
    """What is in view of the list, in which order, and of which time.

    Args:
        view: the main screen.
        viewport: the rows in view and the cursor.
        questions: the query.
        bits: rates in bits, else in octets.
        clock: for times of day.

    Attributes:
        bits, rate_window: how rates are shown.
        distinctions: what distinguishes the rows that were shown so far.
    """

    def __init__(self, view: View, viewport: Viewport, questions: Questions, *, bits: bool, clock: Clock) -> None:
        self._view = view
        self._viewport = viewport
        self._questions = questions
        self._clock = clock
        self.bits = bits
        self.rate_window: Window = "tick"
        self.distinctions = NO_DISTINCTIONS
        self._network_faults: tuple[str, ...] = ()
        self._mark_tick: int | None = None
        self._order_before: tuple[str, bool] | None = None

    def show(self, before: Page | None, page: Page) -> None:
        """Take another page to show."""
        if before is not None and before.capture_filter and not page.capture_filter:
            self._view.say("the kernel now counts every flow; flows outside the filter were not counted before")
        networks = page.lookups.networks
        faults = () if networks is None else networks.faults
        if new := [fault for fault in faults if fault not in self._network_faults]:
            self._view.say(f"AS and country: {new[0]}")
        self._network_faults = faults
        self._viewport.show(page)
        self.distinctions = self.distinctions.with_rows(page.rows, tunnels=page.tunnels).with_texts(
            page.rows, columns_of(page.query).values(), self._view.wording(), page.lookups)

    def table_view(self, page: Page, wording: Wording, arrangement: Arrangement,
                   columns: tuple[Column, ...]) -> TableView:
        """What the table shows of a page."""
        viewport = self._viewport
        return TableView(
            wording=wording,
            rows=viewport.rows,
            top=viewport.top,
            total=page.matched,
            cursor=viewport.cursor,
            selected=viewport.selected,
            cell=viewport.cell,
            lookups=page.lookups,
            attached=page.attached,
            distinctions=self.distinctions,
            sort=sorted_column(page.query).id,
            descending=page.query.descending,
            arrangement=arrangement_of(page.query, arrangement),
            columns=columns,
            needed=filtered_columns(page.query) | (frozenset() if page.query.compare is None else COMPARED),
            linger_s=page.linger_s,
        )

    # ---- cursor and view

    def action_move(self, lines: int) -> None:
        """Cursor up or down."""
        self._viewport.move(lines)
        self._view.changed()

    def action_page_up(self) -> None:
        """One screen up."""
        self._viewport.move_pages(-1)
        self._view.changed()

    def action_page_down(self) -> None:
        """One screen down."""
        self._viewport.move_pages(1)
        self._view.changed()

    def action_first(self) -> None:
        """First flow."""
        self._viewport.move_to_end(last=False)
        self._view.changed()

    def action_last(self) -> None:
        """Last flow."""
        self._viewport.move_to_end(last=True)
        self._view.changed()

    def clear_cursor(self) -> None:
        """No cursor."""
        self._viewport.clear_cursor()
        self._view.changed()

    def action_half_page(self, halves: int) -> None:
        """Half a screen down, or up when negative."""
        lines = max(1, self._viewport.height // 2) * halves
        if self._viewport.cursor is None:
            self._viewport.scroll(lines)
        else:
            self._viewport.move(lines)
        self._view.changed()

    def action_follow(self) -> None:
        """Scroll with the cursor's flow, or stop that."""
        self._viewport.toggle_follow()
        self._view.changed()

    def resize(self, lines: int) -> None:
        """Take another number of lines."""
        self._viewport.resize(lines)
        self._view.changed()

    def scroll(self, lines: int) -> None:
        """Scroll the view, not the cursor."""
        self._viewport.scroll(lines)
        self._view.changed()

    def select(self, line: int, column_id: str) -> None:
        """Cursor to a line of the view and to a cell of it."""
        self._viewport.select(line)
        self._viewport.cell = column_id
        self._view.changed()

    # ---- order

    def action_sort_menu(self) -> None:
        """Choose the column to sort by from a list."""
        def chosen(column_id: str | None) -> None:
            if column_id is not None:
                self.sort_or_reverse(column_id)

        questions = self._questions
        screen = SortScreen(tuple(self.sortable().values()), questions.sort, descending=questions.descending)
        self._view.app.push_screen(screen, chosen)

    def action_sort_next(self) -> None:
        """Sort by the next column to the right."""
        self._sort_by_neighbour(1)

    def action_sort_previous(self) -> None:
        """Sort by the next column to the left."""
        self._sort_by_neighbour(-1)

    def action_reverse(self) -> None:
        """Reverse the order."""
        self._questions.order_by(self._questions.sort, descending=not self._questions.descending)
        self._view.changed()

    def action_hold_order(self) -> None:
        """Freeze the order, or unfreeze it."""
        self._questions.toggle_hold()
        self._view.changed()

    def sort_or_reverse(self, column_id: str) -> None:
        """Sort by a column; reverse when it is the sorted one."""
        if column_id == self._questions.sort:
            self.action_reverse()
        else:
            self.sort_by(column_id)

    def _sort_by_neighbour(self, step: int) -> None:
        there = self.sortable()
        page = self._view.page
        shown = () if page is None else self._view.columns(page)
        ids = [column.id for column in shown if column.id in there]  # as they stand on screen, also those without room
        ids += [column_id for column_id in there if column_id not in ids]
        self.sort_by(ids[(ids.index(self._questions.sort) + step) % len(ids)])

    def sortable(self) -> dict[str, Column]:
        """Columns to sort by, also those without room now: the sorted column gets some."""
        newest, choice = self._questions.newest, self._questions.choice
        columns = {id_: column for id_, column in columns_of(choice).items() if column.sort}
        if newest is None:
            return columns
        offered = offered_columns(replace(newest, query=choice))
        return {id_: column for id_, column in columns.items() if id_ in offered or id_ == self._questions.sort}

    def sort_by(self, column_id: str) -> None:
        """Sort by the column with this id, in its usual direction."""
        column = columns_of(self._questions.choice).get(column_id)
        if column is not None and column.sort:
            self._questions.order_by(column_id, descending=column.descending_first)
        self._view.changed()

    # ---- time

    def action_pause(self) -> None:
        """Pause, or resume with the newest page."""
        newest = self._questions.toggle_pause()
        if newest is not None:
            self._view.page = newest
        self._view.changed()

    def action_step(self, ticks: int) -> None:
        """So many ticks forward, or back when negative."""
        if ticks > 0 and not self._questions.paused:
            self._view.say("this is the newest tick: [ goes back")
        elif not self._questions.step(ticks):
            self._view.say(self._step_limit(ticks))
        else:
            self._compare_earlier()
        self._view.changed()

    def action_step_minutes(self, minutes: int) -> None:
        """So many minutes forward, or back when negative."""
        kept = None if self._questions.newest is None else self._questions.newest.kept
        ticks = 0 if kept is None else kept.last_tick - kept.first_tick
        per_minute = 60 * ticks / kept.seconds if kept is not None and kept.seconds else 1
        self.action_step(max(1, round(per_minute)) * minutes)

    def action_mark(self) -> None:
        """Count from now on."""
        if self._questions.choice.at is not None:
            self._view.say("no mark can be set in the past: Space returns to now")
            return
        self._questions.mark()
        self._mark_tick = None if self._questions.newest is None else self._questions.newest.tick
        self._view.changed()

    def action_unmark(self) -> None:
        """Count from the flows' first packets."""
        if self._questions.choice.mark is None:
            self._view.say("no mark is set: m sets one")
        self._questions.unmark()
        self._mark_tick = None
        self._view.changed()

    def action_compare(self) -> None:
        """Compare with the mark, or with two minutes ago: what appeared, is gone, grew, shrank; or no longer."""
        questions = self._questions
        if questions.choice.compare is not None:
            self._end_comparison()
            self._view.changed()
            return
        moment = self._moment()
        if isinstance(moment, str):
            self._view.say(moment)
            return
        self._order_before = questions.sort, questions.descending
        questions.compare(moment)
        questions.order_by(CHANGE, descending=True)
        self._view.say("compared: appeared, gone, grew, shrank since then; d ends it")
        self._view.changed()

    def _end_comparison(self) -> None:
        questions = self._questions
        questions.compare(None)
        if questions.sort == CHANGE and self._order_before is not None:
            questions.order_by(self._order_before[0], descending=self._order_before[1])

    def _moment(self) -> int | str:
        """The tick to compare with, before the one on view; or why there is none."""
        newest, at = self._questions.newest, self._questions.choice.at
        if newest is None or newest.kept is None:
            return "there is no past yet to compare with"
        shown = self._view.page if self._questions.paused else newest
        tick = at if at is not None else newest.tick if shown is None else shown.tick
        return moment_before(tick, newest, self._mark_tick)

    def _compare_earlier(self) -> None:
        """What is on view is compared with a moment before it, also after a step back."""
        choice = self._questions.choice
        if choice.compare is None or choice.at is None or choice.compare < choice.at:
            return
        moment = self._moment()
        if isinstance(moment, str):
            self._end_comparison()
            self._view.say(f"no longer compared: {moment}")
        else:
            self._questions.compare(moment)

    def _step_limit(self, ticks: int) -> str:
        newest = self._questions.newest
        if newest is None or newest.kept is None:
            return "no past ticks are kept"
        if ticks > 0:
            return "no newer tick yet: Space returns to now"
        return f"this is the oldest tick: {units.duration(newest.kept.seconds)} of the past is kept"

    # ---- what is listed, and units

    def action_ended(self) -> None:
        """List flows that have ended for a while, or hide them."""
        self._questions.toggle_ended()
        self._view.changed()

    def action_next_window(self) -> None:
        """Show rates over the next window; when sorted by a rate, sort by this one."""
        self.rate_window = WINDOWS[(WINDOWS.index(self.rate_window) + 1) % len(WINDOWS)]
        before, there = self._questions.sort, columns_of(self._questions.choice)
        after = in_window(before, self.rate_window)
        if after != before and after in there:
            self._questions.order_by(after, descending=self._questions.descending)
        self._view.say(f"rates over {_WINDOW_WORDS[self.rate_window]}")
        self._view.changed()

    def action_bits(self) -> None:
        """Show rates in bits or bytes."""
        self.bits = not self.bits
        self._view.changed()

    # ---- the header

    def banners(self) -> Iterator[str]:
        """What is not observed, which time the numbers are of, and what of the list does not change; most important
        first."""
        page, questions = self._view.page, self._questions
        if page is not None and page.unobserved:
            first, *more = page.unobserved
            yield units.printable(f"{first.text} (+{len(more)})" if more else first.text, 160)
        in_past = page is not None and page.past and page.query.at is not None
        if page is not None and page.past:
            if in_past:
                yield self._past_text(page)
            if page.flows_kept < page.flows:
                yield f"of {units.things(page.flows, 'flow')}, {page.flows_kept:,} kept"
        if page is not None and page.query.compare is not None and page.compared_ms is not None:
            yield f"AGAINST {time.strftime('%H:%M:%S', self._clock.local(page.compared_ms / 1e3))}"
        newest = questions.newest or page
        if newest is not None and newest.source is not None:
            yield reading_text(newest.source)
        pause = questions.pause
        if pause is not None and not in_past:
            yield f"PAUSED {clock_text(pause.seconds)}, {units.things(pause.packets, 'packet')} since"
        if questions.order_held:
            yield f"ORDER FROZEN, {page.joined:,} since" if page is not None and page.joined else "ORDER FROZEN"
        if self._viewport.follow:
            yield "FOLLOW"
        if page is not None and not page.query.ended:
            yield f"{page.hidden:,} ENDED HIDDEN" if page.hidden else "ENDED HIDDEN"

    def since(self) -> str:
        """What bytes and packets count from: the mark. A past tick has none: there flows have all their bytes."""
        page = self._view.page
        if page is not None and page.marked_s is not None:
            return f"SINCE MARK {units.duration(page.marked_s)}"
        return "MARK NOT COUNTED" if page is not None and page.query.mark is not None \
            and page.query.at is not None else ""

    def _past_text(self, page: Page) -> str:
        """How far back of how much, and the time of day then."""
        newest, pause = self._questions.newest, self._questions.pause
        then = time.strftime("%H:%M:%S", self._clock.local(page.unix_ms / 1e3))
        if pause is None or newest is None or newest.kept is None:  # on the way back to now
            return then
        kept_s = max(newest.kept.seconds, pause.seconds)  # at the border they differ by how they are measured
        return f"−{units.duration(pause.seconds)} of {units.duration(kept_s)} kept, {then}"


def moment_before(tick: int, newest: Page, mark: int | None = None) -> int | str:
    """The tick to compare a tick with; or why there is none.

    It is that of the mark, else the one COMPARE_S before; as far as the past reaches, and no sooner after the start
    than rates over 10 s are over 10 s: what came in the first moments would look like much.

    Args:
        newest: the page of now.
        mark: when the mark was set, if it is.
    """
    kept = newest.kept
    if kept is None or kept.first_tick == kept.last_tick:
        return "there is no past yet to compare with"
    tick_s = max(kept.seconds / (kept.last_tick - kept.first_tick), 1e-3)
    settled = kept.last_tick - int((newest.uptime_s - WINDOW_S) / tick_s + 1e-6)
    if settled >= tick:
        return f"too early to compare: rates over 10 s need {WINDOW_S:.0f} s"
    found = tick - max(1, round(COMPARE_S / tick_s)) if mark is None or mark >= tick else mark
    found = max(found, settled, kept.first_tick)
    return found if found < tick else "nothing before this moment is kept"


def reading_text(source: SourceState) -> str:
    """How far a file has been read."""
    if source.ended:
        return "END OF FILE"
    if not source.octets_total:
        return f"READING, {units.octets(source.octets_read)}"
    return f"READING {100 * source.octets_read // source.octets_total} % of {units.octets(source.octets_total)}"


def empty_text(page: Page) -> str:
    """Why a page has no rows, and what to do about it."""
    if page.past and not page.flows_kept:
        return "no flows at that time"
    if page.query.scope is not None:
        return "no flows left in this group: Backspace goes back"
    if page.query.names is not None and not page.query.names.names and not page.lookups.named(NAMES) and (
            page.query.filter is not None and page.query.filter.needs_names):
        return "no host names are known yet: \\ clears the filter, n looks up the names in view"
    if page.hidden:
        return f"all flows here have ended: E lists {page.hidden:,} that have ended"
    if page.query.filter is not None and page.flows:
        return "no flows match: / edits the filter, \\ clears it"
    if page.source is not None:
        return "no flows in this file" if page.source.ended else "no flows yet"
    if page.collecting is not None:
        return _nothing_collected(page.collecting)
    if page.unobserved and not page.attached:
        return units.printable(page.unobserved[0].text, 160)
    return "no flows: waiting for packets" if page.attached else "no interface to observe: waiting for one"


def _nothing_collected(collecting: CollectingStatistics) -> str:
    """Why exporters have reported no flows so far: what is wrong is on the accuracy line."""
    if collecting.waiting_sets:
        waiting = "waits for its" if collecting.waiting_sets == 1 else "wait for their"
        return f"no flows yet: {units.things(collecting.waiting_sets, 'data set')} {waiting} template"
    if collecting.refused_messages and not collecting.messages:
        return "no flows: no message so far could be decoded"
    return "no flows in the messages so far" if collecting.messages else "no flows: no exporter has sent anything yet"
