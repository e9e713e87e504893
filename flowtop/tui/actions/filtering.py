"""Which flows are listed: the filter bar, and terms taken from a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowtop.tui.screens.flow_screen import FlowScreen
from flowtop.tui.status import Hints
from flowtop.view.query import Query

if TYPE_CHECKING:
    from flowtop.tui.filter_bar import FilterBar
    from flowtop.view.filter import Filter

FIRST_CELL = "source"
TYPING_HINTS = (("Enter", "keep"), ("Esc", "back"), ("Tab", "complete"), ("↑ ↓", "typed before"), ("Ctrl-U", "clear"))


class Filtering(FlowScreen):
    """Filters as one types, by the cell under the cursor, and back to all flows."""

    def __init__(self, query: Query, *arguments: Any, **options: Any) -> None:
        super().__init__(query, *arguments, **options)
        self._history: list[str] = []
        self._bar: FilterBar | None = None

    # ---- typing

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, `/` is a character of it (10.0.0.0/8): the key is looked at before the text is."""
        if action == "edit_filter" and self._bar is not None and self._bar.editing:
            return False
        return super().check_action(action, parameters)

    async def action_edit_filter(self) -> None:
        """Type a filter."""
        if self._bar is None:
            from flowtop.tui.filter_bar import FilterBar  # not before the first frame

            self._bar = FilterBar(self._history, self._seen)
            await self.mount(self._bar, self._bar.candidates)
        self._bar.edit(self.questions.filter)
        self.paint()

    def _seen(self) -> Mapping[str, Sequence[str]]:
        """What Tab offers of the flows around the view, from the first to the last."""
        from flowtop.tui.seen import seen_values

        page = self.page
        if page is None:
            return {}
        flows = (row for row in page.rows if not row.group)
        hosts = self.wording().names.hosts
        names = () if hosts is None else hosts.known().names.values()
        return seen_values(flows, page.interfaces, page.attached, names)

    def hints(self) -> Hints:
        """Of the bar, while it is there."""
        return TYPING_HINTS if self._bar is not None and self._bar.editing else super().hints()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        """Show what the text means so far."""
        self._filter_by(message.filter)

    def on_filter_bar_closed(self, message: FilterBar.Closed) -> None:
        """Done, or never mind."""
        self._filter_by(message.filter)

    def action_clear_filter(self) -> None:
        """All flows."""
        if self.questions.filter is not None:
            from flowtop.tui.filter_entry import remember

            remember(self._history, self.questions.filter.text)
        self._filter_by(None)

    # ---- by cell

    def action_choose_cell(self, step: int) -> None:
        """The next cell of the cursor's flow."""
        if self.viewport.cursor is None:
            self.viewport.move(1)
        ids = [column.id for column in self.table.columns]
        if self.cell in ids:
            self.cell = ids[max(0, min(ids.index(self.cell) + step, len(ids) - 1))]
        elif ids:
            self.cell = FIRST_CELL if FIRST_CELL in ids else ids[0]
        self.changed()

    def action_filter_by_cell(self, negate: bool) -> None:
        """Only flows like this one in the chosen cell, or none of them."""
        row = self.viewport.cursor_row
        if row is None or self.cell not in [column.id for column in self.table.columns]:
            self.action_choose_cell(0)
            self.say("← → choose a cell; = keeps its flows, ! hides them")
            return
        from flowtop.view.filter import compile_filter
        from flowtop.view.filter.terms import add_term
        from flowtop.view.layout import columns_of

        page, current = self.page, self.questions.filter
        columns = columns_of(Query() if page is None else page.query)
        interfaces = {} if page is None else page.interfaces
        if not columns[self.cell].term(row, interfaces):
            self.say("no filter asks for that")
            return
        before = current.text if current else ""
        wanted = compile_filter(add_term(before, self.cell, row, negate, interfaces, columns))
        if negate:
            self.viewport.hand_cursor_on()
        self._filter_by(wanted)

    def on_flow_table_right_clicked(self) -> None:
        """Only flows like the one that was clicked, in that cell."""
        self.action_filter_by_cell(False)

    # ---- both

    def _filter_by(self, wanted: Filter | None) -> None:
        self.questions.filter_by(wanted)
        self.changed()

    def paint(self) -> None:
        """The bar's count, too."""
        super().paint()
        if self._bar is not None and self._bar.editing and self.page is not None:
            self._bar.show_count(f"{self.page.matched_flows:,} of {self.page.flows:,} flows")

