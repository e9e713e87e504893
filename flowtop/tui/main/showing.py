"""How flows are put: pause, rate windows, units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowtop.tui.main.flow_screen import FlowScreen

if TYPE_CHECKING:
    from flowtop.fields.columns import Window


class Showing(FlowScreen):
    """Pauses the picture, and words the numbers in it."""

    def action_pause(self) -> None:
        """Stand still, or go on with the newest page."""
        newest = self.questions.toggle_pause()
        if newest is not None:
            self.page = newest
        self.changed()

    def action_ended(self) -> None:
        """List flows that have ended for as long as they linger, or not at all."""
        self.questions.toggle_ended()
        self.changed()

    def action_window(self, window: Window) -> None:
        """Rates over this window; when sorted by a rate, by this one."""
        from flowtop.fields.biflows import of_both  # bring numpy, which must not delay the first frame
        from flowtop.fields.columns import rate_column

        rates = [rate_column(name) for name in ("tick", "10s", "60s")]
        self.rate_window = window
        before = self.questions.sort
        rate = of_both(before)
        if rate in rates and rate != rate_column(window):
            self.questions.order_by(rate_column(window) + before.removeprefix(rate),
                                    descending=self.questions.descending)
        self.changed()

    def action_bits(self) -> None:
        """Rates in bits or bytes."""
        self.bits = not self.bits
        self.changed()
