"""What leaves the screen: a flow to the clipboard, the list and packets to files, flows to exports, and columns and
colours kept for the next run."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from flowtop.errors import FlowtopError
from flowtop.export.exports import Export
from flowtop.fields.arrangement import Arrangement
from flowtop.fields.columns import Column
from flowtop.fields.groups import drill_term
from flowtop.files import recording_owner
from flowtop.filters.filter import Filter, all_of_texts
from flowtop.filters.terms import flow_as_filter, flow_as_tcpdump
from flowtop.output.records import page_record, rows_name
from flowtop.output.row_files import write_rows
from flowtop.query.layout import columns_of, offered_columns
from flowtop.query.query import Page, Query
from flowtop.recording.recorder import closing_line
from flowtop.recording.recording import RecordingStatistics
from flowtop.text import units
from flowtop.tui.clock import Clock
from flowtop.tui.main.view import View
from flowtop.tui.palettes import ThemedApp
from flowtop.tui.panels.columns import ColumnsScreen
from flowtop.tui.panels.copying import LONGEST, CopyScreen
from flowtop.tui.panels.exports import ExportsScreen
from flowtop.tui.panels.writing import WriteScreen
from flowtop.tui.saved import Looks, SavedView
from flowtop.tui.source import ExportControl, PacketControl
from flowtop.tui.state.exports import Pace
from flowtop.tui.state.questions import Questions
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
        looks: columns and theme to begin with, and what keeps them.
        clock: times of exports and of file names.

    Attributes:
        arrangement: of the columns.
        greets: shows what to try, as on the first run.
    """

    def __init__(self, view: View, viewport: Viewport, questions: Questions, table: FlowTable, *,
                 exports: ExportControl | None, packets: PacketControl | None, looks: Looks, clock: Clock) -> None:
        self._view = view
        self._viewport = viewport
        self._questions = questions
        self._table = table
        self._exports = exports
        self._packets = packets
        self._looks = looks
        self._clock = clock
        self.arrangement = looks.columns
        self.greets = looks.greet
        self._keeping = asyncio.Lock()
        self._pace = Pace(clock.monotonic)
        self._export_urls: list[str] = []
        self._awaited: tuple[Query, asyncio.Future[Page]] | None = None
        self._beginning = False  # packets: the hooks that copy them are compiled

    # ---- the clipboard

    def action_copy(self) -> None:
        """Choose a format, then copy the cursor's flow."""
        row, page = self._viewport.take_selected(), self._view.page
        if row is None or page is None:
            self._view.say("no flow to copy: put the cursor on one first")
            return
        if row.group:
            as_filter, as_tcpdump = drill_term(page.query.group, row, page.lookups), ""
        else:
            as_filter, as_tcpdump = flow_as_filter(row, page.lookups), flow_as_tcpdump(row)
        self._view.app.push_screen(CopyScreen((
            ("filter", as_filter),
            ("tcpdump", as_tcpdump),
            ("JSON", json.dumps(page_record(row, page))),
        ), self.copy, rows_name(page.query).removesuffix("s")))

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
        name = time.strftime("flowtop-%Y%m%d-%H%M%S.csv", self._clock.local(self._clock.wall()))
        self._view.app.push_screen(WriteScreen(name, self._write, self._view.say))

    async def _write(self, path: Path) -> str:
        page = await self._all_rows()
        await asyncio.to_thread(write_rows, path, page, recording_owner(os.environ, os.geteuid()))
        rows, matched = len(page.rows), page.matched
        part = "" if rows >= matched else f", the first of {matched:,}"
        if page.marked_s is not None:
            part += ", counted since the mark,"
        written = units.things(rows, rows_name(page.query).removesuffix("s"))
        return f"{written}{part} written to {units.printable(str(path.absolute()), 200)}"

    async def _all_rows(self) -> Page:
        """The list as it is now, in the order on view, beyond what is in view."""
        asked = self._questions.asked
        if asked is None:
            raise FlowtopError("no flows yet", hint="wait for the first ones")
        query = replace(asked, offset=0, limit=MOST_ROWS, anchor=None)
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
        if self._packets is None:
            self._view.say("packets cannot be written here")
        elif self._beginning:
            self._view.say("packets: starting …")
        elif self._packets.running:
            self._view.app.run_worker(self._end_packets(), exclusive=True, group="packets")
        elif self._file_has_ended:
            self._view.say("the whole file has been read: start again with -r FILE -w OTHER.pcapng")
        else:
            name = time.strftime("flowtop-%Y%m%d-%H%M%S.pcapng", self._clock.local(self._clock.wall()))
            filters, texts = self._filters()
            which = f"flows that match {texts}" if texts else "all flows"

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
                name, begin, self._view.say, title=f"write packets of {which}", suffixes=(".pcapng",),
                verb="start"))

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
        if self._exports is not None:
            self._view.app.push_screen(
                ExportsScreen(self._exports, self._pace, self._export_urls, self._view.show_alarm, self._clock))

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
