"""What is on view, handed on: a flow to the clipboard, the list to a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.files import recording_owner
from flowtop.query.query import Page, Query
from flowtop.text import units
from flowtop.tui.main.flow_screen import FlowScreen

MOST_ROWS = 100_000
"""Rows of one file: the metering thread makes them between two ticks."""
PATIENCE_S = 10.0
"""How long the rows may take to come."""


class Handing(FlowScreen):
    """Copies and writes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._awaited: tuple[Query, asyncio.Future[Page]] | None = None

    def action_copy(self) -> None:
        """Choose as what the cursor's flow is copied."""
        row, page = self.viewport.cursor_row, self.page
        if row is None or page is None:
            self.say("no flow to copy: put the cursor on one first")
            return
        from flowtop.fields.groups import drill_term
        from flowtop.filters.terms import flow_as_filter, flow_as_tcpdump
        from flowtop.output.records import page_record, rows_name
        from flowtop.tui.panels.copying import CopyScreen  # needed only now, and brings numpy

        if row.group:
            as_filter, as_tcpdump = drill_term(page.query.group, row, page.lookups), ""
        else:
            as_filter, as_tcpdump = flow_as_filter(row, page.lookups), flow_as_tcpdump(row)
        self.app.push_screen(CopyScreen((
            ("filter", as_filter),
            ("tcpdump", as_tcpdump),
            ("JSON", json.dumps(page_record(row, page))),
        ), self._copy, rows_name(page.query).removesuffix("s")))

    def _copy(self, what: str, text: str) -> None:
        from flowtop.tui.panels.copying import LONGEST

        if len(text.encode()) > LONGEST:
            self.say(f"too long for a terminal's clipboard: {len(text):,} characters")
            return
        self.app.copy_to_clipboard(text)
        self.say(f"copied as {what}, if this terminal takes OSC 52: {text}")

    def action_write(self) -> None:
        """Ask where to, then write."""
        from flowtop.tui.panels.writing import WriteScreen  # needed only now

        name = time.strftime("flowtop-%Y%m%d-%H%M%S.csv", self.clock.local(self.clock.wall()))
        self.app.push_screen(WriteScreen(name, self._write, self.say))

    async def _write(self, path: Path) -> str:
        from flowtop.output.records import rows_name  # needed only now, and brings numpy
        from flowtop.output.row_files import write_rows

        page = await self._all_rows()
        await asyncio.to_thread(write_rows, path, page, recording_owner(os.environ, os.geteuid()))
        rows, matched = len(page.rows), page.matched
        part = "" if rows >= matched else f", the first of {matched:,}"
        if page.marked_s is not None:
            part += ", counted since the mark,"
        return f"{rows:,} {rows_name(page.query)}{part} written to {units.printable(str(path.absolute()), 200)}"

    async def _all_rows(self) -> Page:
        """The list as it is now, in the order on view, beyond what is in view."""
        asked = self.questions.asked
        if self._ask_source is None or asked is None:
            raise FlowtopError("no flows yet", hint="wait for the first ones")
        query = replace(asked, offset=0, limit=MOST_ROWS, anchor=None)
        answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._awaited = query, answer
        self._ask_source(query)
        try:
            return await asyncio.wait_for(answer, PATIENCE_S)
        except TimeoutError:
            raise FlowtopError("the flow table does not answer", hint="has capturing ended?") from None
        finally:
            self._awaited = None
            if self._ask_source is not None and self.questions.asked is not None:
                self._ask_source(self.questions.asked)

    def show_page(self, page: Page) -> None:
        """A page that was asked for to be written is not for the screen."""
        if self._awaited is None or page.query != self._awaited[0]:
            super().show_page(page)
        elif not self._awaited[1].done():
            self._awaited[1].set_result(page)
