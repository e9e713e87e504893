"""The app: paints the splash, imports the rest of flowtop, starts and stops a PageSource, and shows its pages.

`load_main` is the only place where the screen imports anything late: what it needs brings numpy, and the first frame
does not wait for that. Threads only post messages; a page sets one reactive of the main screen, and whatever changed
is painted from there.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.driver import Driver
from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker

from flowtop.errors import FlowtopError
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.clock import SYSTEM_CLOCK, Clock
from flowtop.tui.garbage import GarbageCollection
from flowtop.tui.keys import APP_KEYS, KEYS, bindings
from flowtop.tui.palettes import ThemedApp, palette_commands
from flowtop.tui.saved import DEFAULT_LOOKS, Looks
from flowtop.tui.source import ExportControl, PacketControl, PageSource
from flowtop.tui.splash import Splash
from flowtop.tui.state.exports import records_left
from flowtop.tui.terminal import TerminalDriver
from flowtop.tui.widgets.line_input import TakesTyping

if TYPE_CHECKING:
    from flowtop.query.query import Page, Query
    from flowtop.query.views import ListView
    from flowtop.tui.main.screen import MainScreen


class PageReady(Message):
    """A page came; only the newest is worth painting."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def can_replace(self, message: Message) -> bool:
        """A newer page takes the place of one still in the queue."""
        return isinstance(message, PageReady)


class Progress(Message):
    """What the first page waits for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class CaptureFailed(Message):
    """Capturing has ended with an error."""

    def __init__(self, error: FlowtopError) -> None:
        super().__init__()
        self.error = error


class QuitRequested(Message):
    """A signal asked to quit."""


class Mailbox:
    """A `PageListener` that posts to an app what the pipeline's threads report."""

    def __init__(self, app: App[None]) -> None:
        self._app = app

    def on_progress(self, text: str) -> None:
        """Post a Progress."""
        self._app.post_message(Progress(text))

    def on_page(self, page: Page) -> None:
        """Post a PageReady."""
        self._app.post_message(PageReady(page))

    def on_error(self, error: FlowtopError) -> None:
        """Post a CaptureFailed."""
        self._app.post_message(CaptureFailed(error))


LOOK_EVERY_S = 0.1


class Flush:
    """Stops exports in a thread, and shows how many records are left.

    Args:
        exports: what to stop.
        say: shows a message.
    """

    def __init__(self, exports: ExportControl, say: Callable[[str], None]) -> None:
        self._exports = exports
        self._say = say
        self._cut = False

    async def run(self) -> None:
        """Return when all have stopped."""
        if not self._exports.statistics():
            return
        until_s = time.monotonic() + self._exports.flush_s
        stopping = asyncio.create_task(asyncio.to_thread(self._exports.stop))
        while not (await asyncio.wait([stopping], timeout=LOOK_EVERY_S))[0]:
            self._say(self._words(max(0.0, until_s - time.monotonic())))
        await stopping

    def cut_short(self) -> None:
        """Wait no longer: records not sent yet stay in the spool, or are discarded."""
        self._cut = True
        self._exports.hurry()

    def _words(self, seconds: float) -> str:
        left = records_left([export.statistics for export in self._exports.statistics()])
        if self._cut:
            return f"quitting: {units.things(left, 'record')} for the spool, or not sent where there is none"
        up_to = f"up to {math.ceil(seconds)} s; q quits now"
        return f"flushing exports … {units.things(left, 'record')} left, {up_to}"


PARSER_AFTER_S = 0.5
"""After the first page: the parser of filters is made then, so that the first `/` does not wait for it."""
DRAIN_NOTICE_AFTER_S = 0.2
"""A last drain that takes longer is announced."""
LEAVING = ("ctrl+c", "ctrl+z", "q", "f10")
"""Keys that act while the splash is on screen; the others wait for the main screen."""


def load_main() -> type[MainScreen]:
    """Import the main screen and all that its keys need, numpy too. Takes some 100 ms; called in a thread."""
    from flowtop.tui.main.screen import MainScreen

    return MainScreen


def commands(main: MainScreen) -> Iterable[SystemCommand]:
    """Things to do that have no key of their own: one for each view, order, group and column."""
    for number, view in enumerate(main.views.views, 1):
        yield SystemCommand(f"View {view.name}", view.doc, partial(main.views.action_view, number))
    for column_id, column in main.list.sortable().items():
        yield SystemCommand(f"Sort by {column.header}", column.doc, partial(main.list.sort_by, column_id))
    for field_id, doc in main.groups.offered().items():
        yield SystemCommand(f"Group by {field_id}", doc, partial(main.groups.group_by, (field_id,)))
    for column, shown in main.handoff.offered():
        yield SystemCommand(f"{'Hide' if shown else 'Show'} column {column.header}", column.doc,
                            partial(main.handoff.show_column, column.id, shown=not shown))
    yield SystemCommand("Record to file", "The exports: Enter there records to a new file", main.handoff.action_exports)
    yield SystemCommand("Record packets to file", "pcapng of the flows that pass the filter",
                        main.handoff.action_packets)


def load_parser() -> None:
    """Make the parser of filters. Takes some 100 ms; called in a thread."""
    from flowtop.filters.grammar import parser

    parser()


class FlowtopApp(ThemedApp, inherit_bindings=False):
    """The life of the screen, from the first paint to the last drain. What it shows is in `main/`.

    Args:
        open_source: makes the PageSource; called in a thread after the first paint, so that the modules it imports
            do not delay it.
        query: what to show first; its offset, limit, anchor and hold are the screen's own business.
        bits: rates in bits, else in octets.
        terminal: kind of terminal, TERM when not given.
        looks: how it looks to begin with.
        exports: the exports of this run, stopped after the last drain; None: there are none, and none can be added.
            Stopped by the caller if the screen breaks.
        packets: what writes packets; None: nothing does. Ended by the caller.
        clock: for all times on screen.
        more_views: of the list, beside the usual ones.

    Attributes:
        error: why capturing ended, None when all went well. When `run` has returned: print it and end with its
            exit status.
        main: the main screen, once it is on screen.
    """

    TITLE = "flowtop"
    ALLOW_SELECT = False
    AUTO_FOCUS = None
    CSS = "Screen { background: ansi_default; color: ansi_default; }"
    BINDINGS: ClassVar[list[BindingType]] = bindings(APP_KEYS)

    def __init__(self, open_source: Callable[[], PageSource], query: Query | None = None, *, bits: bool = True,
                 terminal: str | None = None, exports: ExportControl | None = None,
                 packets: PacketControl | None = None, looks: Looks = DEFAULT_LOOKS,
                 clock: Clock = SYSTEM_CLOCK, more_views: Sequence[ListView] = ()) -> None:
        super().__init__(looks.theme)
        kind_of_terminal = (os.environ.get("TERM", "") if terminal is None else terminal)
        linux_console = kind_of_terminal == "linux"
        encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
        self.error: FlowtopError | None = None

        def make_main(kind: type[MainScreen]) -> MainScreen:
            return kind(query, exports, packets=packets, bits=bits, clock=clock, looks=looks, more_views=more_views,
                        charts=(kind_of_terminal, encoding),
                        sparks=theme.CONSOLE_SPARKS if linux_console else theme.SPARKS)

        self._make_main = make_main
        self._main: MainScreen | None = None
        self._exports = exports
        self._leaving: Flush | None = None
        self._open_source = open_source
        self._source: PageSource | None = None
        self._quitting = False
        self._quit_early = False
        self._starting: Worker[None] | None = None
        self._ahead: asyncio.Task[None] | None = None
        self._garbage = GarbageCollection()
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._on_its_way: tuple[Screen[object], events.Key | events.Paste] | None = None
        self._taken: events.Key | events.Paste | None = None
        self._behind: deque[events.Key | events.Paste] = deque()

    def get_driver_class(self) -> type[Driver]:
        """The driver of a real terminal, which outlives it."""
        return TerminalDriver

    def get_default_screen(self) -> Screen[None]:
        """The first frame."""
        return Splash()

    @property
    def main(self) -> MainScreen:
        """The main screen, under all others; not before it is on screen."""
        assert self._main is not None
        return self._main

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette offers what the keys do, views, orders, groups, columns and themes: things to do."""
        del screen
        yield from commands(self.main)
        for key in KEYS:
            if key.action != "app.command_palette":
                yield SystemCommand(key.doc, key.caps, partial(self.run_action, key.action, self.main))
        yield from palette_commands(self.main.handoff.choose_theme)

    async def on_event(self, event: events.Event) -> None:
        """Keys that are typed ahead of quitting find no screen; they are ignored."""
        if not self.screen_stack and isinstance(event, events.InputEvent):
            return
        if isinstance(event, events.InputEvent):
            self._garbage.pressed()
        if not isinstance(event, events.Key | events.Paste):
            await super().on_event(event)
        elif event.is_forwarded:  # it has come back from the screen
            self._note_left()
            if event is not self._taken:
                await super().on_event(event)
            if self._on_its_way is not None and self._on_its_way[1] is event:
                self._on_its_way = None
                await self._next_keys()
        elif self._main is None and isinstance(event, events.Key) and event.key in LEAVING and not self._behind:
            await super().on_event(event)
        else:
            self._behind.append(event)
            await self._next_keys()

    def _note_left(self) -> None:
        """A key whose screen has been left was taken by it: should it come back, it is no key of the next screen."""
        if self._on_its_way is not None and self._on_its_way[0] not in self.screen_stack:
            self._taken = self._on_its_way[1]

    async def _next_keys(self) -> None:
        """Handle each key, or paste, when the one before is done: in `e` and a URL, `/` is for the panel that `e`
        opens.

        A key that goes to a screen, as nothing has the focus, comes back from it, unless the screen has been left.
        All wait for the main screen.
        """
        if self._main is None:
            return
        self._note_left()
        if self._on_its_way is not None and self._on_its_way[1] is self._taken:
            self._on_its_way = None  # it may come back, or not
        while self._behind and self._on_its_way is None and self.screen_stack:
            key = self._behind.popleft()
            to = None if self.focused is not None or isinstance(key, events.Paste) else self.screen
            await super().on_event(key)
            if to is not None and key.is_forwarded:
                self._on_its_way = to, key

    @on(Driver.SignalResume)
    def repaint(self) -> None:
        """After Ctrl-Z and fg the terminal is blank."""
        self.refresh(layout=True)

    def on_key(self, event: events.Key) -> None:
        """Before the keys' own actions."""
        if self.screen_stack and isinstance(self.screen, TakesTyping) and self.screen.typed_ahead(event):
            event.prevent_default()

    # ---- starting

    def on_mount(self) -> None:
        """From now on signals find an event loop."""
        self._event_loop = asyncio.get_running_loop()
        if self._quit_early:
            self.post_message(QuitRequested())

    def on_splash_painted(self) -> None:
        """The rest is imported, and capture starts, after the first paint."""
        if not self._quitting and not self._quit_early:
            self._starting = self.run_worker(self._start())

    async def _start(self) -> None:
        """Open the source and import the main screen at the same time; start the source when both are there."""
        opening = asyncio.create_task(asyncio.to_thread(self._open_source))
        try:
            await self._show_main()
            self._source = await opening
            self.main.connect(None if self._quitting else self._source.ask)
            await asyncio.to_thread(self._source.start, Mailbox(self))
        except FlowtopError as error:
            self.post_message(CaptureFailed(error))

    async def _show_main(self) -> None:
        """Cover the splash, and wait until the size of the main screen is known: the first query depends on it."""
        main = self._make_main(await asyncio.to_thread(load_main))
        await self.push_screen(main)
        sized = asyncio.Event()
        main.call_after_refresh(sized.set)
        await sized.wait()
        self._main = main
        self.call_later(self._next_keys)

    # ---- leaving

    def request_quit(self) -> None:
        """Quit as the key does. May be called from any thread and from a signal handler, also before `run`."""
        if self._event_loop is None:
            self._quit_early = True
        else:
            self._event_loop.call_soon_threadsafe(self.post_message, QuitRequested())

    async def on_quit_requested(self) -> None:
        """A signal."""
        await self.action_quit()

    async def action_quit(self) -> None:
        """Last drain, then quit. Again, while exports are flushed: wait for them no longer."""
        if not self._quitting:
            self._quitting = True
            if self._main is not None:
                self._main.connect(None)
            self.set_timer(DRAIN_NOTICE_AFTER_S, self._announce_drain)
            self.run_worker(self._finish())
        elif self._leaving is not None:
            self._leaving.cut_short()

    def _announce_drain(self) -> None:
        if self._main is None:  # it is still being imported
            self.set_timer(DRAIN_NOTICE_AFTER_S, self._announce_drain)
            return
        while self.screen is not self._main:
            self.pop_screen()
        if self._leaving is None:
            self._main.show_notice("last drain …")

    async def _finish(self) -> None:
        try:
            if self._starting is not None:
                await self._starting.wait()
            if self._source is not None:
                await asyncio.to_thread(self._source.stop)
        except FlowtopError as error:
            self.error = self.error or error
        if self._exports is not None:
            self._leaving = Flush(self._exports, self._show_notice)
            await self._leaving.run()
        self.exit()

    def _show_notice(self, words: str) -> None:
        if self._main is not None:
            self._main.show_notice(words)

    def on_unmount(self) -> None:
        """No more keys."""
        if self._ahead is not None:
            self._ahead.cancel()
        self._garbage.restore()

    async def _prepare(self) -> None:
        """Do what the first keys would have to wait for."""
        await asyncio.sleep(PARSER_AFTER_S)
        await asyncio.to_thread(load_parser)
        await self._garbage.settle()

    # ---- what the pipeline reports

    async def on_capture_failed(self, message: CaptureFailed) -> None:
        """Before the first page there is nothing to look at: quit. After it: show the error and stay."""
        self.error = message.error
        if self._main is None or self._main.page is None:
            await self.action_quit()
        else:
            self._main.show_alarm(f"capture ended: {message.error.message}")

    def on_progress(self, message: Progress) -> None:
        """Show what the first page waits for."""
        self.main.show_progress(message.text)

    def on_page_ready(self, message: PageReady) -> None:
        """Show it."""
        if self.main.page is None:
            self._ahead = asyncio.create_task(self._prepare())
        self.main.show_page(message.page)
