"""Columns and colours as the reader wants them, kept for the next run."""

from __future__ import annotations

import asyncio
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.tui.saved import SavedView
from flowtop.tui.screens.flow_screen import FlowScreen
from flowtop.tui.themed import ThemedApp
from flowtop.view.arrangement import Arrangement


class Arranging(FlowScreen):
    """Opens the column chooser, changes colours, keeps both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keeping = asyncio.Lock()

    def action_columns(self) -> None:
        """Choose columns."""
        from flowtop.tui.screens.columns import ColumnsScreen  # needed only now, and brings numpy
        from flowtop.view.layout import columns_of
        from flowtop.view.query import Query

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
