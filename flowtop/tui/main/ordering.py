"""The order of the list: by which column, which way, and whether it stands still."""

from __future__ import annotations

from flowtop.tui.main.flow_screen import FlowScreen
from flowtop.tui.widgets.flow_table import FlowTable


class Ordering(FlowScreen):
    """Sorts, reverses, holds the order."""

    def action_sort_next(self) -> None:
        """Sort by the column to the right."""
        self._sort_by_neighbour(1)

    def action_sort_previous(self) -> None:
        """Sort by the column to the left."""
        self._sort_by_neighbour(-1)

    def action_reverse(self) -> None:
        """The other way round."""
        self.questions.order_by(self.questions.sort, descending=not self.questions.descending)
        self.changed()

    def action_hold_order(self) -> None:
        """Freeze the order, or let it go."""
        self.questions.toggle_hold()
        self.changed()

    def on_flow_table_header_clicked(self, message: FlowTable.HeaderClicked) -> None:
        """Sort by the column, or reverse."""
        if message.column_id == self.questions.sort:
            self.action_reverse()
        else:
            self._sort_by(message.column_id)

    def _sort_by_neighbour(self, step: int) -> None:
        from flowtop.query.layout import columns_of  # brings numpy, which must not delay the first frame

        newest = self.questions.newest
        listening = newest is not None and newest.collecting is not None
        tunnels = newest is not None and newest.tunnels
        columns = columns_of(self.questions.wanted)
        ids = [id_ for id_, column in columns.items()  # those too that have no room now: the sorted one gets some
               if ((listening or not column.of_exporters) and (tunnels or not column.of_tunnels))
               or id_ == self.questions.sort]
        self._sort_by(ids[(ids.index(self.questions.sort) + step) % len(ids)])

    def _sort_by(self, column_id: str) -> None:
        from flowtop.query.layout import columns_of  # as above

        column = columns_of(self.questions.wanted).get(column_id)
        if column is not None:
            self.questions.order_by(column_id, descending=column.descending_first)
        self.changed()
