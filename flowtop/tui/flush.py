"""Leaving: exports send what waits, for a stated time, and the reader sees how much is left."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from flowtop.tui.source import ExportControl

LOOK_EVERY_S = 0.1


class Flush:
    """Stops exports in a thread, and says how it goes.

    Args:
        exports: what to stop.
        say: shows words.
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
        """Wait no longer: what has not been sent stays in the spool, or is given up."""
        self._cut = True
        self._exports.hurry()

    def _words(self, seconds: float) -> str:
        from flowtop.tui.export_words import records_left  # a run that exports nothing does without

        left = records_left([export.statistics for export in self._exports.statistics()])
        if self._cut:
            return f"leaving: {left:,} records stay in the spool, or are not sent where there is none"
        return f"flushing exports … {left:,} records left, up to {math.ceil(seconds)} s; q leaves now"
