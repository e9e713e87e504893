"""Columns and colours as the reader wants them, kept for the next run."""

from __future__ import annotations

import asyncio
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.fields.arrangement import Arrangement
from flowtop.tui.main.flow_screen import FlowScreen
from flowtop.tui.palettes import ThemedApp
from flowtop.tui.saved import SavedView


class Arranging(FlowScreen):
    """Opens the column chooser, changes colours, keeps both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keeping = asyncio.Lock()

    def action_columns(self) -> None:
        """Choose columns."""
        from flowtop.query.layout import columns_of
        from flowtop.query.query import Query
        from flowtop.tui.panels.columns import ColumnsScreen  # needed only now, and brings numpy

        before = self.arrangement

        def closed(_: None) -> None:
            if self.arrangement != before:
                self._keep()

        there = columns_of(Query(biflow=self.questions.wanted.biflow))  # of groups: those of flows
        self.app.push_screen(ColumnsScreen(self.arrangement, there, self.table.widths, self._arrange), closed)

    def _arrange(self, arrangement: Arrangement) -> None:
        self.arrangement = arrangement
        self.paint()

    def action_next_theme(self) -> None:
        """The next theme."""
        if isinstance(self.app, ThemedApp):
            self.choose_theme(self.app.next_palette())

    def choose_theme(self, name: str) -> None:
        """The theme of that name."""
        if isinstance(self.app, ThemedApp):
            self.app.set_palette(name)
            self.say(self.app.palette_words())
            self._keep()

    def _keep(self) -> None:
        if self.looks.keep is not None:
            self.run_worker(self._keep_now())

    async def _keep_now(self) -> None:
        """One at a time; the last one keeps what is chosen by then."""
        async with self._keeping:
            keep = self.looks.keep
            theme = self.app.palette if isinstance(self.app, ThemedApp) else self.looks.theme
            try:
                if keep is not None:
                    await asyncio.to_thread(keep, SavedView(theme, self.arrangement))
            except FlowtopError as error:
                self.say(error.message)
