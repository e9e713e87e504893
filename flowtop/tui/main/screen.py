"""The main screen: header, flow table, status lines, and the controllers that answer its keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.reactive import reactive
from textual.screen import Screen
from textual.timer import Timer

from flowtop.fields.columns import Column, Wording
from flowtop.query.layout import arrangement_of, order_text
from flowtop.query.query import Page, Query
from flowtop.query.views import VIEWS, ListView
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.clock import SYSTEM_CLOCK, Clock
from flowtop.tui.keys import APP_KEYS, KEYS, bindings
from flowtop.tui.main.filter import FilterController
from flowtop.tui.main.groups import GroupsController
from flowtop.tui.main.handoff import HandOffController
from flowtop.tui.main.list import ListController, empty_text
from flowtop.tui.main.trouble import TroubleController
from flowtop.tui.main.views import ViewsController
from flowtop.tui.painting import NarrowCompositor
from flowtop.tui.panels.help import HelpScreen
from flowtop.tui.saved import DEFAULT_LOOKS, Looks
from flowtop.tui.source import ExportControl, PacketControl
from flowtop.tui.splash import STARTING
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import Viewport
from flowtop.tui.widgets.chart import glyphs_for
from flowtop.tui.widgets.filter_bar import FilterBar
from flowtop.tui.widgets.flow_table import FlowTable
from flowtop.tui.widgets.header import Header, HeaderView
from flowtop.tui.widgets.hints import Hints, Situation
from flowtop.tui.widgets.status import StatusLine

TALL = 30
"""Lines of a terminal from which on the header has a chart, unless the reader chose otherwise."""
USUAL_CHART, HIGHEST_CHART = 4, 8
LEAST_LIST = 12
"""Lines of the terminal that a chart leaves to everything else."""
WELCOME: Hints = (("New here?", "try"), ("Esc", "hides this for good"), ("2", "hosts"), ("/", "filter"),
                  ("Enter", "opens"), ("d", "what changed"), ("H", "chart"), ("?", "help"))
"""Instead of the hints, on the first run."""
MESSAGE_S = 4.0
"""How long a message about what was just done takes the place of the key hints."""


class MainScreen(Screen[None]):
    """Composes the controllers: routes keys and widgets' messages to them, and merges what they answer.

    Each `action_...` of a controller is one of the screen, for textual and the key table (`tui/keys.py`).

    Args:
        query: what to show first; its offset, limit, anchor and hold are the screen's own business. None: every flow.
        exports: the exports of this run; None: it has none, and none can be added.
        packets: what writes packets; None: nothing does.
        bits: rates in bits, else in octets.
        sparks: characters of the sparklines, from low to high.
        looks: how it looks to begin with.
        clock: for all times on screen.
        more_views: of the list, beside the usual ones.
        charts: the kind of terminal and its encoding, for what charts are painted with.

    Attributes:
        page: the page on view, None before the first.
        viewport, questions: where the reader looks, and the query for it; shared by the controllers.
        list, filter, groups, views, trouble, handoff: the controllers.
        alarm: what went wrong, in words; "" when nothing did.
        notice: what leaving waits for, "" until then.
    """

    AUTO_FOCUS = None
    DEFAULT_CSS = "MainScreen { layers: default over; }"
    BINDINGS: ClassVar[list[BindingType]] = bindings(key for key in KEYS if key not in APP_KEYS)

    page: reactive[Page | None] = reactive(None, init=False, repaint=False)

    def __init__(self, query: Query | None = None, exports: ExportControl | None = None, *,
                 packets: PacketControl | None = None, bits: bool = True, sparks: str = theme.SPARKS,
                 looks: Looks = DEFAULT_LOOKS, clock: Clock = SYSTEM_CLOCK,
                 more_views: Sequence[ListView] = (), charts: tuple[str, str] = ("", "utf-8")) -> None:
        super().__init__()
        self._compositor = NarrowCompositor()
        glyphs = glyphs_for(*charts)
        self.header = Header(sparks, glyphs)
        self.table = FlowTable(STARTING)
        self.status = StatusLine()
        self.viewport = Viewport()
        self.questions = Questions(replace(query or Query(), own=os.getpid()), self.viewport)
        self.list = ListController(self, self.viewport, self.questions, bits=bits, clock=clock)
        self.filter = FilterController(self, self.viewport, self.questions, self.table, looks)
        self.handoff = HandOffController(self, self.viewport, self.questions, self.table, exports=exports,
                                         picture=self.picture,
                                         packets=packets, looks=looks, clock=clock)
        self.groups = GroupsController(self, self.viewport, self.questions, exports, self.handoff.action_hand_off,
                                       sparks=sparks, glyphs=glyphs, clock=clock)
        if packets is not None:
            packets.names = self.filter.known_hosts
        self.views = ViewsController(self, self.viewport, self.questions, self.groups, (*VIEWS, *more_views),
                                     self.filter.action_clear_filter)
        self.trouble = TroubleController(self, self.questions, self.views, self.filter)
        self._controllers = self.list, self.handoff, self.filter, self.groups, self.views, self.trouble
        for controller in self._controllers:
            for name in dir(controller):
                if name.startswith("action_"):
                    setattr(self, name, getattr(controller, name))
        self._complaint = looks.complaint
        self._chart_rows: int | None = None
        self._books = False
        self._source: Callable[[Query], None] | None = None
        self.alarm = ""
        self.notice = ""
        self._message = ""
        self._message_about: Query | None = None
        self._message_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Header, flow table, status lines; over them the filter bar."""
        yield self.header
        yield self.table
        yield self.status
        yield self.filter.bar
        yield self.filter.bar.candidates

    def on_mount(self) -> None:
        """Report what is wrong with the saved view, if anything is."""
        if self._complaint:
            self.say(self._complaint)

    def on_unmount(self) -> None:
        """Look up no more names."""
        self.filter.close()

    # ---- keys and messages

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, `/` is a character of it (10.0.0.0/8): the key is looked at before the text is."""
        if action == "edit_filter" and self.filter.bar.editing:
            return False
        return super().check_action(action, parameters)

    def action_step_out(self) -> None:
        """One step: the hint of the first run, a cursor that is followed, the filter that was set here, the open group,
        other rows than the view's, the cursor."""
        questions, outside = self.questions, self.groups.outside
        if self.handoff.dismiss_welcome():
            return
        if self.viewport.follow:
            self.list.clear_cursor()
        elif questions.filter is not None and (outside is None or outside.filter != questions.filter):
            self.filter.return_to(None if outside is None else outside.filter)
        elif self.groups.leads_back or self.viewport.anchor is None:
            self.groups.action_back()
        else:
            self.list.clear_cursor()

    def action_help(self) -> None:
        """Keys and words."""
        self.app.push_screen(HelpScreen())

    def on_flow_table_resized(self, message: FlowTable.Resized) -> None:
        """More or fewer lines."""
        self.list.resize(message.lines)

    def on_flow_table_wheeled(self, message: FlowTable.Wheeled) -> None:
        """Scroll."""
        self.list.scroll(message.lines)

    def on_flow_table_header_clicked(self, message: FlowTable.HeaderClicked) -> None:
        """Sort by the column, or reverse."""
        self.list.sort_or_reverse(message.column_id)

    def on_flow_table_line_clicked(self, message: FlowTable.LineClicked) -> None:
        """Cursor to the flow and the cell."""
        self.list.select(message.line, message.column_id)

    def on_flow_table_double_clicked(self) -> None:
        """Details of the flow that was clicked, or its group."""
        self.groups.action_open()

    def on_flow_table_right_clicked(self) -> None:
        """Only flows with the value of the cell that was clicked."""
        self.filter.action_filter_by_cell(False)

    def on_header_view_clicked(self, message: Header.ViewClicked) -> None:
        """Show that view."""
        self.views.action_view(message.number)

    def on_header_trouble_clicked(self, message: Header.TroubleClicked) -> None:
        """Show its flows."""
        self.trouble.show(message.number)

    async def on_status_line_key_clicked(self, message: StatusLine.KeyClicked) -> None:
        """Act as the key does."""
        await self.app.run_action(message.action, self)

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        """Show what the text means so far."""
        self.filter.filter_by(message.filter)

    def on_filter_bar_closed(self, message: FilterBar.Closed) -> None:
        """Keep the filter that typing ended with."""
        self.filter.filter_by(message.filter)

    def on_name_came(self) -> None:
        """Show it soon."""
        self.filter.gather_names()

    # ---- what the app hands over

    def connect(self, source: Callable[[Query], None] | None) -> None:
        """Send queries there from now on; None: send none."""
        self._source = source
        self.ask()

    def show_progress(self, text: str) -> None:
        """Show what the first page waits for."""
        if self.page is None:
            self.table.show_notice(units.printable(text, 500))

    def show_page(self, page: Page) -> None:
        """Show a page. While paused: only how much has gone by since, and the accuracy line, which is always live."""
        if not self.handoff.takes(page):
            if self.questions.accept(page):
                self.page = page
            else:
                self._paint_header()
                self.paint_status()
        self.groups.show_details(page)

    def watch_page(self, before: Page | None, page: Page | None) -> None:
        """Another page is on view."""
        if page is not None:
            self.list.show(before, page)
            self.changed()

    def show_alarm(self, text: str) -> None:
        """Show what went wrong, from now on."""
        self.alarm = units.printable(text, 500)
        self.paint()

    def show_notice(self, text: str) -> None:
        """Show what leaving waits for, in the place of the key hints."""
        self.notice = units.printable(text, 500)
        self.paint_status()

    def say(self, text: str) -> None:
        """Show a message for MESSAGE_S in the place of the key hints."""
        self._message, self._message_about = units.printable(text, 500), _list_of(self.questions)
        if self._message_timer is not None:
            self._message_timer.stop()
        self._message_timer = self.set_timer(MESSAGE_S, self._clear_message)
        self.paint_status()

    def _clear_message(self) -> None:
        self._message = ""
        self.paint_status()

    # ---- asking and painting

    def send(self, query: Query) -> bool:
        """Hand a query to the source; False when there is none."""
        if self._source is None:
            return False
        self._source(query)
        return True

    def ask(self) -> bool:
        """Ask for what is missing in view, if anything is; returns whether that was sent."""
        self.questions.know(self.filter.names_for_filter())
        query = None if self._source is None else self.questions.next()
        return query is not None and self.send(query)

    def changed(self) -> None:
        """Ask for what is missing in view, then paint: after a change of any choice."""
        if self._message and self._message_about != _list_of(self.questions):
            self._message = ""  # it is about another list
        page = self.page
        # Another list that was just asked for is painted with its answer, a moment later.
        awaited = self.ask() and page is not None and _listed(page.query) != _list_of(self.questions)
        self.paint(rows=not awaited)

    def paint(self, *, rows: bool = True) -> None:
        """Paint what differs from what is on screen.

        Args:
            rows: also the list itself.
        """
        if self.page is not None:
            self._paint_header()
            if rows:
                self._paint_rows(self.page)
            self.paint_status()
        self.filter.paint()

    def _paint_rows(self, page: Page) -> None:
        if not page.matched:
            self.table.show_notice(empty_text(page))
            return
        arrangement = self.handoff.arrangement
        columns = self.views.columns(page, self.list.rate_window, arrangement)
        self.table.show(self.list.table_view(page, self.wording(), arrangement, columns))

    def paint_status(self) -> None:
        """Paint the bottom lines: always of the newest page."""
        exports = tuple(export.statistics for export in self.handoff.export_statistics())
        self.status.show(self.questions.newest or self.page, exports, self.notice or self._message,
                         self.filter.hints() or self._welcome(), self.handoff.packet_statistics(),
                         of_now=self.questions.paused, books=self._books, situation=self._situation())

    def _situation(self) -> Situation:
        """What the keys of the list would act on."""
        page, rows = self.page, self.viewport.rows
        if page is None:
            return Situation()
        cursor = self.viewport.cursor_row
        row = cursor or (rows[0] if rows else None)
        return Situation(
            row="" if row is None else "group" if row.group else "flow", inside=self.groups.leads_back,
            filtered=self.questions.filter is not None, whole=self.views.digit, past=self.questions.paused,
            compared=self.questions.choice.compare is not None, trouble=bool(self.trouble.found()))

    def _welcome(self) -> Hints:
        """What to try on the first run, until Escape dismisses it for good."""
        return WELCOME if self.handoff.greets else ()

    def wording(self) -> Wording:
        """Units and names of cells."""
        return Wording(bits=self.list.bits, window=self.list.rate_window, names=self.filter.names())

    def _paint_header(self) -> None:
        rows = len(self.viewport.rows)
        self.header.show(HeaderView(
            page=self.page,
            bits=self.list.bits,
            order="" if self.page is None else order_text(self.page.query),  # of what is on view, not of the query
            first=self.viewport.top + 1 if rows else 0,
            last=self.viewport.top + rows,
            banners=tuple(banner for controller in self._controllers for banner in controller.banners()),
            alarm=self.alarm,
            since=self.list.since(),
            trail=self.groups.trail(),
            tabs=self.views.tabs(),
            window=self.list.rate_window,
            rows=self.chart_rows(),
            troubles=self.trouble.found(),
        ))
        self.filter.bar.place(self.header.list_line)

    def picture(self) -> str:
        """The text that is on screen, without panels over it."""
        return "\n".join(strip.text.rstrip() for strip in self._compositor.render_strips()) + "\n"

    def chart_rows(self) -> int:
        """Rows of the chart: as many as were chosen, while the list keeps enough."""
        height = self.app.size.height
        rows = self._chart_rows
        if rows is None:
            rows = USUAL_CHART if height >= TALL else 0
        return max(0, min(rows, height - LEAST_LIST))

    def action_books(self) -> None:
        """The counters behind the sign of accuracy, or the sign alone."""
        self._books = not self._books
        self.paint_status()

    def columns(self, page: Page) -> Sequence[Column]:
        """The columns of a page's rows, from left to right, also those without room."""
        chosen = self.handoff.arrangement
        return arrangement_of(page.query, chosen).ordered(self.views.columns(page, self.list.rate_window, chosen))

    def action_chart(self) -> None:
        """One row more for the chart; past the highest: none."""
        self._chart_rows = (self.chart_rows() + 1) % (HIGHEST_CHART + 1)
        self.say(f"chart: {self._chart_rows} rows" if self._chart_rows else "chart: off")
        self.paint()


def _list_of(questions: Questions) -> Query:
    """What is listed, as far as keys choose it."""
    return _listed(questions.choice)


def _listed(query: Query) -> Query:
    """The parts of a query that say which rows there are, and of what."""
    return Query(filter=query.filter, scope=query.scope, group=query.group, biflow=query.biflow, compare=query.compare)
