"""What keys will need, imported while nobody presses one: else the first press of each would wait for its modules."""

from __future__ import annotations

import asyncio
import importlib

MODULES = (
    "flowtop.tui.widgets.filter_bar", "flowtop.filters.terms", "flowtop.filters.completion",
    "flowtop.tui.panels.details", "flowtop.tui.panels.groups", "flowtop.tui.panels.copying",
    "flowtop.tui.panels.columns", "flowtop.tui.panels.help", "flowtop.tui.panels.writing",
    "flowtop.tui.panels.exports", "flowtop.fields.biflows", "flowtop.output.row_files",
)
_PAUSE_S = 0.02
"""Between two of them: the screen paints and answers meanwhile."""


async def import_ahead(delay_s: float) -> None:
    """Import `MODULES` in threads, one after another, after so many seconds; the filter's parser is made too."""
    await asyncio.sleep(delay_s)
    for name in MODULES:
        await asyncio.to_thread(importlib.import_module, name)
        await asyncio.sleep(_PAUSE_S)
    from flowtop.filters.grammar import parser

    await asyncio.to_thread(parser)
