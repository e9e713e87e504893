"""The list in the exports panel: a line an export, columns as far as there is room, a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from flowtop.tui import theme
from flowtop.tui.export_pace import Pace
from flowtop.tui.export_words import COLUMNS, STATES, ExportColumn
from flowtop.view import units

if TYPE_CHECKING:
    from flowtop.export.exports import Export

STATE_WIDTH = 12
LEAST_URL_WIDTH = 30
EMPTY = ("No exports yet.", "", "A file records flows while you watch (IPFIX, JSON lines or CSV); a collector",
         "gets them over the network. Whatever the list shows, an export gets every",
         "flow that is counted.")


class ExportList(Widget):
    """Header and exports.

    Args:
        pace: their rates.

    Attributes:
        exports: as they stood at the last `show`.
    """

    class Clicked(Message):
        """An export was clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace
        self._number = 1
        self.exports: tuple[Export, ...] = ()

    @property
    def chosen(self) -> Export | None:
        """The export at the cursor, None when there is none."""
        return next((export for export in self.exports if export.number == self._number), None)

    def show(self, exports: tuple[Export, ...]) -> None:
        """Take newer figures."""
        more = len(exports) != len(self.exports)
        self.exports = exports
        self.refresh(layout=more)

    def choose(self, number: int) -> None:
        """Put the cursor on an export, which may yet have to be shown."""
        self._number = number
        self.refresh()

    def move(self, step: int) -> None:
        """Move the cursor."""
        self.choose(max(1, min(self._number + step, len(self.exports))))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """The header and a line an export."""
        del container, viewport, width
        return 1 + len(self.exports) if self.exports else len(EMPTY)

    def render_line(self, y: int) -> Strip:
        """One line."""
        width = self.size.width
        if not self.exports:
            text = EMPTY[y] if y < len(EMPTY) else ""
            return Strip([Segment(f" {text}", theme.PLAIN)]).adjust_cell_length(width, theme.PLAIN)
        columns = _fit(width)
        room = width - STATE_WIDTH - 6 - sum(column.width + 2 for column in columns)
        if y == 0:
            heads = "".join(f"  {column.header:>{column.width}}" for column in columns)
            head = f" {'#':>2} {'STATE':<{STATE_WIDTH}} {self._heading(room):<{max(0, room)}}{heads}"
            return _line([(head, theme.HEADING)], width)
        index = self._first() + y - 1
        if index >= len(self.exports):
            return Strip.blank(width)
        export = self.exports[index]
        return _line(self._cells(export, columns, room), width, cursor=export.number == self._number)

    def _heading(self, room: int) -> str:
        """Of the URLs: with how many exports there are above and below those in view."""
        above = self._first()
        below = max(0, len(self.exports) - above - (self.size.height - 1))
        hidden = f"{f'  ↑ {above} more' if above else ''}{f'  ↓ {below} more' if below else ''}"
        return f"TO{hidden}"[:max(0, room)]

    def _cells(self, export: Export, columns: Sequence[ExportColumn], room: int) -> list[tuple[str, Style]]:
        words = STATES[export.statistics.state]
        url = units.elide(units.printable(export.statistics.url, 1_000), max(0, room))
        return [
            (f" {export.number:>2} ", theme.PLAIN),
            (f"{words.glyph} {words.word:<{STATE_WIDTH - 2}} ", words.style),
            (f"{url:<{max(0, room)}}", theme.PLAIN),
            *((f"  {column.text(export, self._pace):>{column.width}}",
               theme.ALARM if column.alarm(export.statistics) else theme.PLAIN) for column in columns),
        ]

    def _first(self) -> int:
        """Index of the first export in view: so that the cursor's is."""
        lines = max(1, self.size.height - 1)
        return max(0, min(self._number - lines, len(self.exports) - lines))

    def on_click(self, event: events.Click) -> None:
        """Cursor to the export."""
        index = self._first() + event.y - 1
        if event.y > 0 and index < len(self.exports):
            self.post_message(self.Clicked(self.exports[index].number))


def _fit(width: int) -> list[ExportColumn]:
    """The columns there is room for beside the URL."""
    columns = list(COLUMNS)
    while columns and width - STATE_WIDTH - 6 - sum(column.width + 2 for column in columns) < LEAST_URL_WIDTH:
        columns.remove(max(columns, key=lambda column: column.rank))
    return columns


def _line(cells: Sequence[tuple[str, Style]], width: int, *, cursor: bool = False) -> Strip:
    strip = Strip([Segment(text, theme.CURSOR if cursor else style) for text, style in cells])
    return strip.adjust_cell_length(width, theme.CURSOR if cursor else theme.PLAIN)
