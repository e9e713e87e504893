"""Other times than now: back through the ticks that were kept, and counting from a mark."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flowtop.text import units
from flowtop.tui.main.flow_screen import FlowScreen


class Scrubbing(FlowScreen):
    """Steps through the past while paused; sets and takes away the mark."""

    def action_step(self, ticks: int) -> None:
        """So many ticks on, or back when negative."""
        if ticks > 0 and not self.questions.paused:
            self.say("this is now: [ goes back")
        elif not self.questions.step(ticks):
            self.say(self._no_further(ticks))
        self.changed()

    def action_mark(self) -> None:
        """Count from now on."""
        if self.questions.wanted.at is not None:
            self.say("this is the past: Space goes back to now, where a mark can be set")
            return
        self.questions.mark()
        self.changed()

    def action_unmark(self) -> None:
        """Count from the flows' first packets."""
        if self.questions.wanted.mark is None:
            self.say("there is no mark: m sets one")
        self.questions.unmark()
        self.changed()

    def banners(self) -> Iterator[str]:
        """Which time the numbers are of."""
        page = self.page
        if page is not None and page.past:
            if page.query.at is not None:
                yield self._back()
            if page.flows_kept < page.flows:
                yield f"of {page.flows:,} flows, {page.flows_kept:,} kept"
        yield from super().banners()

    def since(self) -> str:
        """The mark; of the past nothing is known of it: flows have all their bytes again."""
        page = self.page
        if page is not None and page.marked_s is not None:
            return f"SINCE MARK {units.duration(page.marked_s)}"
        return "MARK NOT COUNTED" if page is not None and page.query.mark is not None \
            and page.query.at is not None else ""

    def _back(self) -> str:
        """How far back of how much, and which time that was."""
        page, newest, pause = self.page, self.questions.newest, self.questions.pause
        assert page is not None
        then = time.strftime("%H:%M:%S", self.clock.local(page.unix_ms / 1e3))
        if pause is None or newest is None or newest.kept is None:  # on the way back to now
            return then
        kept_s = max(newest.kept.seconds, pause.seconds)  # at the border they differ by how they are measured
        return f"−{units.duration(pause.seconds)} of {units.duration(kept_s)} kept, {then}"

    def _no_further(self, ticks: int) -> str:
        newest = self.questions.newest
        if newest is None or newest.kept is None:
            return "nothing is kept of the past"
        if ticks > 0:
            return "nothing newer yet: Space goes back to now"
        return f"no further back: {units.duration(newest.kept.seconds)} are kept"
