"""The screen: asks a PageSource, shows its pages, turns keys into questions.

Threads only post messages; a page sets one reactive, and whatever changed is painted from there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.reactive import reactive
from textual.screen import Screen
from textual.worker import Worker

from flowtop.errors import FlowtopError
from flowtop.tui import theme
from flowtop.tui.flow_table import FlowTable, TableView
from flowtop.tui.header import Header, HeaderView, clock
from flowtop.tui.keys import KEYS
from flowtop.tui.messages import CaptureFailed, Mailbox, PageReady, Progress, QuitRequested
from flowtop.tui.questions import Questions
from flowtop.tui.source import PageSource
from flowtop.tui.status import StatusLine
from flowtop.tui.viewport import Viewport
from flowtop.view.query import Page, Query

if TYPE_CHECKING:
    from flowtop.view.columns import Window

DRAIN_NOTICE_AFTER_S = 0.2
"""A last drain that takes longer is announced."""

class FlowtopApp(App[None], inherit_bindings=False):
    """The flow table on screen.

    Args:
        open_source: makes the PageSource; called in a thread after the first paint, so that the modules it imports
            do not delay that.
        query: what to show first; its offset, limit, anchor and hold are the screen's own business.
        bits: rates in bits, else in octets.
        terminal: kind of terminal, TERM when not given.

    Attributes:
        error: why capturing ended, None when all went well. When `run` has returned: print it and end with its
            exit status.
        page: the page on view.
    """

    TITLE = "flowtop"
    ALLOW_SELECT = False
    AUTO_FOCUS = None
    CSS = "Screen { background: ansi_default; color: ansi_default; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(name, key.action, key.doc, show=False, priority=name == "ctrl+c") for key in KEYS for name in key.names
    ]

    page: reactive[Page | None] = reactive(None, init=False, repaint=False)

    def __init__(self, open_source: Callable[[], PageSource], query: Query | None = None, *, bits: bool = True,
                 terminal: str | None = None) -> None:
        super().__init__(ansi_color=True)
        self._linux_console = (os.environ.get("TERM") if terminal is None else terminal) == "linux"
        self.error: FlowtopError | None = None
        self._open_source = open_source
        self._source: PageSource | None = None
        self._viewport = Viewport()
        self._questions = Questions(query or Query(), self._viewport)
        self._bits = bits
        self._rate_window: Window = "tick"
        self._quitting = False
        self._quit_early = False
        self._draining = False
        self._starting: Worker[None] | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None

    # ---- life

    def get_driver_class(self) -> type[Driver]:
        """The driver of a real terminal, which outlives it."""
        from flowtop.tui.terminal import TerminalDriver  # tests have no terminal

        return TerminalDriver

    def compose(self) -> ComposeResult:
        """Header, flow table, status."""
        yield Header(theme.CONSOLE_SPARKS if self._linux_console else theme.SPARKS)
        yield FlowTable("starting …")
        yield StatusLine()

    def on_mount(self) -> None:
        """Capture starts after the first paint."""
        self._header, self._table = self.query_one(Header), self.query_one(FlowTable)
        self._status = self.query_one(StatusLine)
        self._event_loop = asyncio.get_running_loop()
        if self._quit_early:
            self.post_message(QuitRequested())
        else:
            self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self._starting = self.run_worker(self._start())

    async def _start(self) -> None:
        try:
            self._source = await asyncio.to_thread(self._open_source)
            self._ask()
            await asyncio.to_thread(self._source.start, Mailbox(self))
        except FlowtopError as error:
            self.post_message(CaptureFailed(error))

    def request_quit(self) -> None:
        """Quit as the key does. May be called from any thread and from a signal handler, before `run` too."""
        if self._event_loop is None:
            self._quit_early = True
        else:
            self._event_loop.call_soon_threadsafe(self.post_message, QuitRequested())

    async def on_event(self, event: events.Event) -> None:
        """Keys that are typed ahead, past leaving, find no screen: they mean nothing any more."""
        if self.screen_stack or not isinstance(event, events.InputEvent):
            await super().on_event(event)

    async def action_quit(self) -> None:
        """Last drain, then leave."""
        if not self._quitting:
            self._quitting = True
            self.set_timer(DRAIN_NOTICE_AFTER_S, self._announce_drain)
            self.run_worker(self._finish())

    def _announce_drain(self) -> None:
        self._draining = True
        self._status.show(self._questions.newest, "last drain …")

    async def _finish(self) -> None:
        try:
            if self._starting is not None:
                await self._starting.wait()
            if self._source is not None:
                await asyncio.to_thread(self._source.stop)
        except FlowtopError as error:
            self.error = self.error or error
        self.exit()

    # ---- what the pipeline says

    async def on_quit_requested(self) -> None:
        """A signal."""
        await self.action_quit()

    async def on_capture_failed(self, message: CaptureFailed) -> None:
        """Before the first page there is nothing to look at: leave. After it: say so and stay."""
        self.error = message.error
        if self.page is None:
            await self.action_quit()
        else:
            self._paint()

    def on_progress(self, message: Progress) -> None:
        """Say what is being waited for."""
        if self.page is None:
            self._table.show_notice(message.text)

    def on_page_ready(self, message: PageReady) -> None:
        """Show a page. While paused: only what has gone by since, and the accuracy line, which never stands still."""
        if self._questions.accept(message.page):
            self.page = message.page
        else:
            self._paint_header()
            self._paint_status(message.page)

    def watch_page(self, page: Page | None) -> None:
        """Another page is on view."""
        if page is not None:
            self._viewport.show(page)
            self._ask()
            self._paint()

    # ---- painting

    def _ask(self) -> None:
        if self._source is not None and not self._quitting:
            query = self._questions.next()
            if query is not None:
                self._source.ask(query)

    def _changed(self) -> None:
        """The reader moved or chose something: ask what is missing, paint what there is."""
        self._ask()
        self._paint()

    def _paint(self) -> None:
        page = self.page
        if page is None:
            return
        self._paint_header()
        if page.matched:
            self._paint_table(page)
        else:
            self._table.show_notice(
                "no flows: waiting for packets" if page.attached else "no interface to observe: waiting for one")
        self._paint_status(self._questions.newest or page)

    def _paint_status(self, page: Page) -> None:
        if not self._draining:
            self._status.show(page)

    def _paint_table(self, page: Page) -> None:
        from flowtop.view.columns import Wording  # brings numpy, which must not delay the first frame

        self._table.show(TableView(
            wording=Wording(bits=self._bits, window=self._rate_window),
            rows=self._viewport.rows,
            top=self._viewport.top,
            total=page.matched,
            cursor=self._viewport.cursor,
            interfaces=page.interfaces,
            attached=page.attached,
            sort=page.query.sort,
            descending=page.query.descending,
        ))

    def _paint_header(self) -> None:
        rows = len(self._viewport.rows)
        self._header.show(HeaderView(
            page=self.page,
            bits=self._bits,
            order="" if self.page is None else _order(self.page.query),
            first=self._viewport.top + 1 if rows else 0,
            last=self._viewport.top + rows,
            banners=tuple(self._banners()),
            alarm="" if self.error is None else f"capture ended: {self.error.message}",
        ))

    def _banners(self) -> Iterable[str]:
        pause = self._questions.pause
        if pause is not None:
            yield f"PAUSED {clock(pause.seconds)}, {pause.packets:,} packets since"
        if self._questions.order_held:
            yield "ORDER FROZEN"
        if self._viewport.follow:
            yield "FOLLOW"

    # ---- mouse and size

    def on_flow_table_resized(self, message: FlowTable.Resized) -> None:
        """More or fewer lines."""
        self._viewport.resize(message.lines)
        self._changed()

    def on_flow_table_wheeled(self, message: FlowTable.Wheeled) -> None:
        """Scroll."""
        self._viewport.scroll(message.lines)
        self._changed()

    def on_flow_table_line_clicked(self, message: FlowTable.LineClicked) -> None:
        """Cursor to the flow."""
        self._viewport.select(message.line)
        self._changed()

    def on_flow_table_header_clicked(self, message: FlowTable.HeaderClicked) -> None:
        """Sort by the column, or reverse."""
        if message.column_id == self._questions.sort:
            self.action_reverse()
        else:
            self._sort_by(message.column_id)

    # ---- keys

    def action_move(self, lines: int) -> None:
        """Cursor up or down."""
        self._viewport.move(lines)
        self._changed()

    def action_page_up(self) -> None:
        """A screen up."""
        self._viewport.move_pages(-1)
        self._changed()

    def action_page_down(self) -> None:
        """A screen down."""
        self._viewport.move_pages(1)
        self._changed()

    def action_first(self) -> None:
        """To the first flow."""
        self._viewport.move_to_end(last=False)
        self._changed()

    def action_last(self) -> None:
        """To the last flow."""
        self._viewport.move_to_end(last=True)
        self._changed()

    def action_clear_cursor(self) -> None:
        """No cursor."""
        self._viewport.clear_cursor()
        self._changed()

    def action_sort_next(self) -> None:
        """Sort by the column to the right."""
        self._sort_by_neighbour(1)

    def action_sort_previous(self) -> None:
        """Sort by the column to the left."""
        self._sort_by_neighbour(-1)

    def _sort_by_neighbour(self, step: int) -> None:
        from flowtop.view.columns import COLUMNS  # as above

        ids = list(COLUMNS)  # those too that have no room now: the sorted one gets some
        self._sort_by(ids[(ids.index(self._questions.sort) + step) % len(ids)])

    def _sort_by(self, column_id: str) -> None:
        from flowtop.view.columns import COLUMNS  # as above

        self._questions.order_by(column_id, descending=COLUMNS[column_id].descending_first)
        self._changed()

    def action_reverse(self) -> None:
        """The other way round."""
        self._questions.order_by(self._questions.sort, descending=not self._questions.descending)
        self._changed()

    def action_hold_order(self) -> None:
        """Freeze the order, or let it go."""
        self._questions.toggle_hold()
        self._changed()

    def action_follow(self) -> None:
        """Scroll with the cursor's flow, or stop that."""
        self._viewport.toggle_follow()
        self._changed()

    def action_pause(self) -> None:
        """Stand still, or go on with the newest page."""
        newest = self._questions.toggle_pause()
        if newest is not None:
            self.page = newest
        self._changed()

    def action_window(self, window: Window) -> None:
        """Rates over this window; when sorted by a rate, by this one."""
        from flowtop.view.columns import rate_column  # as above

        rates = [rate_column(name) for name in ("tick", "10s", "60s")]
        self._rate_window = window
        if self._questions.sort in rates and self._questions.sort != rate_column(window):
            self._questions.order_by(rate_column(window), descending=self._questions.descending)
        self._changed()

    def action_bits(self) -> None:
        """Rates in bits or bytes."""
        self._bits = not self._bits
        self._changed()

    def action_help(self) -> None:
        """Keys and words."""
        from flowtop.tui.screens.help import HelpScreen  # needed only now

        self.push_screen(HelpScreen())

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette offers what the keys do."""
        del screen
        for key in KEYS:
            if key.action != "command_palette":
                yield SystemCommand(key.doc, key.caps, partial(self.run_action, key.action))


def _order(query: Query) -> str:
    """The sorted column of a page and its arrow: of what is on view, not of what was asked for since."""
    from flowtop.view.columns import COLUMNS  # brings numpy, which must not delay the first frame

    column = COLUMNS.get(query.sort)
    return f"{column.header if column else query.sort}{theme.DESCENDING if query.descending else theme.ASCENDING}"
