"""Details of the cursor's flow, over the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowtop.model.rows import FlowRow
from flowtop.query.query import Page
from flowtop.tui.main.flow_screen import FlowScreen

if TYPE_CHECKING:
    from flowtop.tui.panels.details import DetailsScreen


class Detailing(FlowScreen):
    """Opens details, and feeds them while they are open."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._details: DetailsScreen | None = None

    def open_flow(self, page: Page, row: FlowRow) -> None:
        """Show all there is to know of it."""
        from flowtop.tui.panels.details import DetailsScreen  # needed only now, and brings numpy

        def closed(_: None) -> None:
            self._details = None
            self.questions.watch(None)
            self.changed()

        self._details = DetailsScreen(self._step, self._copy_row)
        self.app.push_screen(self._details, closed)
        self._show(page, row)

    def _show(self, page: Page, row: FlowRow) -> None:
        """What the list has of it at once, the rest when its answer comes."""
        from flowtop.query.query import Details

        reverse = None
        if row.ways is not None:  # of a biflow: of the flow from its initiator, which the details tell both ways of
            ways = row.ways
            row, reverse = ways.forward, ways.reverse
        self.questions.watch(row.flow_id)
        self._feed(page.present or page, Details(row, reverse=reverse))
        self.changed()

    def _step(self, lines: int) -> None:
        self.viewport.move(lines)
        self.changed()
        page, row = self.page, self.viewport.cursor_row
        if page is not None and row is not None and not row.group:
            self._show(page, row)

    def _copy_row(self) -> None:
        self.run_worker(self.run_action("copy"))

    def show_page(self, page: Page) -> None:
        """The details are live, though the list may stand still."""
        super().show_page(page)
        if page.details is not None:
            self._feed(page.present or page, page.details)

    def _feed(self, page: Page, details: Any) -> None:
        if self._details is None or details.row.flow_id != self.questions.wanted.details:
            return
        from flowtop.tui.panels.details import Telling

        exports = () if self.exports is None else self.exports.statistics()
        list_ms = self.page.unix_ms if self.page is not None and self.questions.paused else None
        self._details.show(details, Telling(page, self.wording(), self.clock.local, self.sparks, exports, list_ms))
