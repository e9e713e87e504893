"""What leaves the screen: a flow to the clipboard, the list and packets to files, flows to exports, and columns and
colours kept for the next run."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flowtop.errors import FlowtopError
from flowtop.export.exports import Export
from flowtop.fields.arrangement import Arrangement
from flowtop.fields.columns import Column
from flowtop.files import recording_owner
from flowtop.filters.filter import Filter, all_of_texts, compile_filter
from flowtop.output.records import rows_name
from flowtop.output.row_files import write_rows
from flowtop.query.layout import columns_of, offered_columns, sorted_column
from flowtop.query.query import Page, Query
from flowtop.recording.recorder import closing_line
from flowtop.recording.recording import RecordingStatistics
from flowtop.text import units
from flowtop.tui.clock import Clock
from flowtop.tui.main.bundle import BundleMaker
from flowtop.tui.main.view import View
from flowtop.tui.palettes import ThemedApp
from flowtop.tui.panels.columns import ColumnsScreen
from flowtop.tui.panels.exports import ExportsScreen
from flowtop.tui.panels.handing import LONGEST, HandOffScreen
from flowtop.tui.panels.writing import WriteScreen
from flowtop.tui.saved import Looks, SavedView
from flowtop.tui.source import ExportControl, PacketControl
from flowtop.tui.state.exports import Pace
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.subject import Subject, subject_of
from flowtop.tui.state.viewport import Viewport
from flowtop.tui.widgets.flow_table import FlowTable

MOST_ROWS = 100_000
"""Rows of one file: the metering thread makes them between two ticks."""
PATIENCE_S = 10.0
"""How long the rows may take to come."""
_NAME_LENGTH = 30
_FILTER_LENGTH = 40


class HandOffController:
    """Copies, writes, records, exports; keeps columns and colours.

    Args:
        view: the main screen.
        viewport: the cursor.
        questions: the query.
        table: for the columns on view.
        exports: the exports of this run; None: it has none, and none can be added.
        packets: what writes packets; None: nothing does.
        picture: gives the text that is on screen.
        looks: columns and theme to begin with, and what keeps them.
        clock: times of exports and of file names.

    Attributes:
        arrangement: of the columns.
        greets: shows what to try, as on the first run.
    """

    def __init__(self, view: View, viewport: Viewport, questions: Questions, table: FlowTable, *,
                 exports: ExportControl | None, packets: PacketControl | None, picture: Callable[[], str],
                 looks: Looks, clock: Clock) -> None:
        self._view = view
        self._viewport = viewport
        self._questions = questions
        self._table = table
        self._exports = exports
        self._packets = packets
        self._picture = picture
        self._bundles = BundleMaker(view, packets, lambda: self._file_has_ended)
        self._looks = looks
        self._clock = clock
        self.arrangement = looks.columns
        self.greets = looks.greet
        self._keeping, self._asking = asyncio.Lock(), asyncio.Lock()
        self._pace = Pace(clock.monotonic)
        self._export_urls: list[str] = []
        self._awaited: tuple[Query, asyncio.Future[Page]] | None = None
        self._beginning = False  # packets: the hooks that copy them are compiled

    # ---- one row

    def action_hand_off(self) -> None:
        """Choose how the cursor's row is handed off."""
        row, page = self._viewport.take_selected(), self._view.page
        if row is None or page is None:
            self._view.say("no flow to hand off: put the cursor on one first")
            return
        self._view.app.push_screen(HandOffScreen(subject_of(row, page), self.copy, {
            "packets": self._packets_of, "export": self._export_of, "bundle": self._bundle_of}))

    def _known(self, subject: Subject) -> bool:
        """Whether the flows of the subject can be told from others; if not, it is said."""
        if not subject.whole:
            self._view.say("the kernel's table was full: only the sum of these flows is known")
        return bool(subject.whole)

    def _packets_of(self, subject: Subject) -> None:
        if self._known(subject):
            self._start_packets((compile_filter(subject.whole),), f"this {subject.what}: {subject.whole}")

    def _export_of(self, subject: Subject) -> None:
        if self._exports is None:
            self._view.say("there are no exports here")
        elif self._known(subject):
            self._open_exports(subject.whole)

    def _bundle_of(self, subject: Subject) -> None:
        if self._bundles.busy:
            self._view.say(f"one bundle at a time: {self._bundles.busy} is being filled")
        elif self._known(subject):
            picture, name = self._picture(), self._file_name("")
            flows = asyncio.ensure_future(self._flows_of(compile_filter(subject.whole)))  # some end meanwhile
            flows.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # nobody may ask

            async def begin(path: Path) -> str:
                return await self._bundles.begin(path, subject, flows, picture)

            self._view.app.push_screen(WriteScreen(
                name, begin, self._view.say, title=f"a bundle of this {subject.what}, in a new directory", suffixes=(),
                verb="start"))

    def _file_name(self, suffix: str) -> str:
        return time.strftime("flowtop-%Y%m%d-%H%M%S", self._clock.local(self._clock.wall())) + suffix

    def copy(self, what: str, text: str) -> None:
        """Hand a text to the terminal's clipboard (OSC 52)."""
        if len(text.encode()) > LONGEST:
            self._view.say(f"too long for the terminal's clipboard: {len(text):,} characters")
            return
        self._view.app.copy_to_clipboard(text)
        self._view.say(f"copied as {what}, if this terminal supports OSC 52: {text}")

    # ---- the list

    def action_write(self) -> None:
        """Ask for a file name, then write the list."""
        self._view.app.push_screen(WriteScreen(self._file_name(".csv"), self._write, self._view.say))

    async def _write(self, path: Path) -> str:
        page = await self._all_rows(lambda listed: listed)
        await asyncio.to_thread(write_rows, path, page, recording_owner(os.environ, os.geteuid()))
        rows, matched = len(page.rows), page.matched
        part = "" if rows >= matched else f", the first of {matched:,}"
        if page.marked_s is not None:
            part += ", counted since the mark,"
        written = units.things(rows, rows_name(page.query).removesuffix("s"))
        return f"{written}{part} written to {units.printable(str(path.absolute()), 200)}"

    async def _flows_of(self, chosen: Filter) -> Page:
        """All flows that pass a filter, whatever the list shows."""
        def flows(listed: Query) -> Query:
            query = replace(listed, group=(), biflow=False, filter=chosen, scope=None, hold=None, compare=None,
                            details=None, own=0)
            return replace(query, sort=sorted_column(query).id)

        return await self._all_rows(flows)

    async def _all_rows(self, of: Callable[[Query], Query]) -> Page:
        """All rows of a query, made from that of the list as it is now: the order on view, beyond what is in view."""
        async with self._asking:
            return await self._all_rows_now(of)

    async def _all_rows_now(self, of: Callable[[Query], Query]) -> Page:
        asked = self._questions.asked
        if asked is None:
            raise FlowtopError("no flows yet", hint="wait for the first ones")
        query = of(replace(asked, offset=0, limit=MOST_ROWS, anchor=None))
        answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._awaited = query, answer
        try:
            if not self._view.send(query):
                raise FlowtopError("no flows yet", hint="wait for the first ones")
            return await asyncio.wait_for(answer, PATIENCE_S)
        except TimeoutError:
            raise FlowtopError("the flow table does not answer", hint="has capturing ended?") from None
        finally:
            self._awaited = None
            if self._questions.asked is not None:
                self._view.send(self._questions.asked)

    def takes(self, page: Page) -> bool:
        """Whether a page was asked for to be written: it is not for the screen."""
        if self._awaited is None or page.query != self._awaited[0]:
            return False
        if not self._awaited[1].done():
            self._awaited[1].set_result(page)
        return True

    # ---- packets

    def action_packets(self) -> None:
        """Ask for a file name, then write packets; or stop writing them."""
        if self._packets is not None and self._packets.running and not self._beginning:
            self._view.app.run_worker(self._end_packets(), exclusive=True, group="packets")
            return
        filters, texts = self._filters()
        self._start_packets(filters, f"flows that match {texts}" if texts else "all flows")

    def _start_packets(self, filters: Sequence[Filter], which: str) -> None:
        """Ask for a file name, then write packets of the flows that pass these filters."""
        if self._packets is None:
            self._view.say("packets cannot be written here")
        elif self._beginning:
            self._view.say("packets: starting …")
        elif self._packets.running:
            self._view.say("packets are being written already: W stops that")
        elif self._file_has_ended:
            self._view.say("the whole file has been read: start again with -r FILE -w OTHER.pcapng")
        else:
            async def begin(path: Path) -> str:
                self._beginning = True
                try:
                    if self._packets is not None:
                        await asyncio.to_thread(self._packets.begin, str(path), filters, new=True)
                finally:
                    self._beginning = False
                self._view.paint()
                return f"writing packets to {units.printable(str(path.absolute()), 200)}: W stops"

            self._view.app.push_screen(WriteScreen(
                self._file_name(".pcapng"), begin, self._view.say, title=f"write packets of {which}",
                suffixes=(".pcapng",), verb="start"))

    @property
    def _file_has_ended(self) -> bool:
        newest = self._questions.newest
        return newest is not None and newest.source is not None and newest.source.ended

    def _filters(self) -> tuple[tuple[Filter, ...], str]:
        """The filters of the list, and one text for all of them."""
        query = self._questions.asked
        filters = () if query is None else tuple(one for one in (query.filter, query.scope) if one is not None)
        return filters, all_of_texts([one.text for one in filters])

    async def _end_packets(self) -> None:
        if self._packets is not None:
            self._view.say("packets: writing the last ones …")
            figures = await asyncio.to_thread(self._packets.end)
            if figures is not None:
                self._view.say(closing_line(figures))
            self._view.paint()

    def packet_statistics(self) -> RecordingStatistics | None:
        """Figures of the packets that are written, or were last."""
        return None if self._packets is None else self._packets.statistics()

    # ---- exports

    def action_exports(self) -> None:
        """Open the exports panel."""
        self._open_exports("")

    def _open_exports(self, filter_text: str) -> None:
        if self._exports is not None:
            self._view.app.push_screen(ExportsScreen(
                self._exports, self._pace, self._export_urls, self._view.show_alarm, self._clock, filter_text))

    def export_statistics(self) -> tuple[Export, ...]:
        """The exports as they are now; their rates are measured by the calls."""
        exports = () if self._exports is None else self._exports.statistics()
        self._pace.note(exports)
        return exports

    # ---- columns and colours

    def action_columns(self) -> None:
        """Choose columns."""
        before = self.arrangement

        def closed(_: None) -> None:
            if self.arrangement != before:
                self._keep()

        self._view.app.push_screen(
            ColumnsScreen(self.arrangement, self._columns(), self._table.widths, self._arrange), closed)

    def _columns(self) -> Mapping[str, Column]:
        """Those that can be arranged."""
        of_rows = Query(biflow=self._questions.choice.biflow)  # of groups: those of flows
        page = self._questions.newest or self._view.page
        return columns_of(of_rows) if page is None else offered_columns(replace(page, query=of_rows))

    def offered(self) -> Iterator[tuple[Column, bool]]:
        """Those, and whether each is on view."""
        there = self._table.widths()
        for column in self._columns().values():
            yield column, column.id in there

    def show_column(self, column_id: str, *, shown: bool) -> None:
        """Show a column always, or never; saved as the chooser does."""
        chosen, one = self.arrangement, frozenset({column_id})
        self._arrange(replace(chosen, shown=chosen.shown | one if shown else chosen.shown - one,
                              hidden=chosen.hidden - one if shown else chosen.hidden | one))
        self._keep()

    def dismiss_welcome(self) -> bool:
        """Show no longer, in no run, what to try; False when it is not shown."""
        shown, self.greets = self.greets, False
        if shown:
            self._keep()
            self._view.paint()
        return shown

    def _arrange(self, arrangement: Arrangement) -> None:
        self.arrangement = arrangement
        self._view.paint()

    def action_next_theme(self) -> None:
        """The next theme."""
        if isinstance(self._view.app, ThemedApp):
            self.choose_theme(self._view.app.next_palette())

    def choose_theme(self, name: str) -> None:
        """The theme of that name."""
        app = self._view.app
        if isinstance(app, ThemedApp):
            app.set_palette(name)
            self._view.say(app.palette_words())
            self._keep()

    def _keep(self) -> None:
        if self._looks.keep is not None:
            self._view.app.run_worker(self._keep_now())

    async def _keep_now(self) -> None:
        """One at a time; the last one keeps what is chosen by then."""
        async with self._keeping:
            keep, app = self._looks.keep, self._view.app
            theme = app.palette if isinstance(app, ThemedApp) else self._looks.theme
            try:
                if keep is not None:
                    await asyncio.to_thread(keep, SavedView(theme, self.arrangement, not self.greets))
            except FlowtopError as error:
                self._view.say(error.message)

    # ---- the header

    def banners(self) -> Iterator[str]:
        """Packets that are written, or that stopped being written by themselves."""
        figures = self.packet_statistics()
        if figures is None or figures.state == "ended":
            return
        name = units.printable(Path(figures.path).name, _NAME_LENGTH)
        if figures.state == "writing":
            yield f"PACKETS TO {name}"
            if figures.filter != self._filters()[1]:  # else it stands beside it
                yield f"OF {units.printable(figures.filter, _FILTER_LENGTH) or 'ALL FLOWS'}"
        else:
            yield f"PACKETS: {'FILE FULL' if figures.state == 'full' else 'CANNOT WRITE'}, {name}"
