"""The cursor and what is in view of the list, by key, wheel and click."""

from __future__ import annotations

from flowtop.tui.main.flow_screen import FlowScreen
from flowtop.tui.widgets.flow_table import FlowTable


class Moving(FlowScreen):
    """Moves the cursor and the view."""

    def action_move(self, lines: int) -> None:
        """Cursor up or down."""
        self.viewport.move(lines)
        self.changed()

    def action_page_up(self) -> None:
        """A screen up."""
        self.viewport.move_pages(-1)
        self.changed()

    def action_page_down(self) -> None:
        """A screen down."""
        self.viewport.move_pages(1)
        self.changed()

    def action_first(self) -> None:
        """To the first flow."""
        self.viewport.move_to_end(last=False)
        self.changed()

    def action_last(self) -> None:
        """To the last flow."""
        self.viewport.move_to_end(last=True)
        self.changed()

    def action_clear_cursor(self) -> None:
        """No cursor."""
        self.viewport.clear_cursor()
        self.changed()

    def action_follow(self) -> None:
        """Scroll with the cursor's flow, or stop that."""
        self.viewport.toggle_follow()
        self.changed()

    def on_flow_table_resized(self, message: FlowTable.Resized) -> None:
        """More or fewer lines."""
        self.viewport.resize(message.lines)
        self.changed()

    def on_flow_table_wheeled(self, message: FlowTable.Wheeled) -> None:
        """Scroll."""
        self.viewport.scroll(message.lines)
        self.changed()

    def on_flow_table_line_clicked(self, message: FlowTable.LineClicked) -> None:
        """Cursor to the flow, and to the cell."""
        self.viewport.select(message.line)
        self.cell = message.column_id
        self.changed()
