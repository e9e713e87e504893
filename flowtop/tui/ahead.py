"""What keys will need, imported while nobody presses one: else the first press of each would wait for its modules."""

from __future__ import annotations

import asyncio
import importlib

MODULES = (
    "flowtop.tui.filter_bar", "flowtop.view.filter.terms", "flowtop.view.filter.complete",
    "flowtop.tui.screens.details", "flowtop.tui.screens.groups", "flowtop.tui.screens.copying",
    "flowtop.tui.screens.columns", "flowtop.tui.screens.help", "flowtop.tui.screens.writing",
    "flowtop.tui.screens.exports", "flowtop.view.biflow_columns", "flowtop.tui.flow_words", "flowtop.tui.row_files",
)
_PAUSE_S = 0.02
"""Between two of them: the screen paints and answers meanwhile."""


async def import_ahead(delay_s: float) -> None:
    """Import `MODULES` in threads, one after another, after so many seconds; the filter's parser is made too."""
    await asyncio.sleep(delay_s)
    for name in MODULES:
        await asyncio.to_thread(importlib.import_module, name)
        await asyncio.sleep(_PAUSE_S)
    from flowtop.view.filter.grammar import parser

    await asyncio.to_thread(parser)
