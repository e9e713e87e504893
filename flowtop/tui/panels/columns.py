"""The column chooser: which columns the list has, in which order, how wide. Changes are shown at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.fields.arrangement import AUTOMATIC, WIDEST, Arrangement
from flowtop.fields.columns import Column
from flowtop.query.layout import arranged
from flowtop.tui import theme
from flowtop.tui.keys import COLUMN_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.panels.frame import FullTexts, beyond, choosing_frame
from flowtop.tui.widgets.lines import Lines

LEAST_FLEXIBLE = 7
"""Minimum width of an address."""
_BEFORE_DOC = len("if room   DESTINATION    auto   ")
AUTO, ALWAYS, NEVER = "if room", "always", "never"
_HINTS = tuple((key.caps.split()[0], key.hint) for key in COLUMN_KEYS if key.hint)


class ColumnsScreen(ModalScreen[None]):
    """The chooser.

    Args:
        arrangement: the current one.
        columns: ids of the columns that the list can have.
        shown: gives the width of each column on view, by id.
        change: called with each change.
    """

    CSS = choosing_frame("ColumnsScreen")
    BINDINGS: ClassVar[list[BindingType]] = bindings(COLUMN_KEYS)

    def __init__(self, arrangement: Arrangement, columns: Collection[str], shown: Callable[[], Mapping[str, int]],
                 change: Callable[[Arrangement], None]) -> None:
        super().__init__()
        self.arrangement = arrangement
        self._there = columns
        self._shown = shown
        self._change = change
        self._at = 0
        self._lines = Lines(self._list)
        self._full = Lines(self._full_text)
        self._hints = Lines(self._hint_lines)

    def compose(self) -> ComposeResult:
        """A line a column, what the chosen one shows, and the keys."""
        with Vertical() as box:
            box.border_title = "flowtop: columns"
            yield self._lines
            yield self._full
            yield self._hints

    @property
    def columns(self) -> list[Column]:
        """All columns in the order of the arrangement; those of exporters and tunnels only where there are some."""
        shown = self._shown()
        return [column for column in self.arrangement.ordered(arranged())
                if column.id in self._there
                and (not (column.of_exporters or column.of_tunnels) or column.id in shown)]

    # ---- keys

    def action_move(self, lines: int) -> None:
        """Cursor."""
        self._at = max(0, min(self._at + lines, len(self.columns) - 1))
        for part in (self._lines, self._full, self._hints):
            part.again()

    def action_page(self, pages: int) -> None:
        """Cursor by as many columns as are in view."""
        self.action_move(pages * self._room())

    def action_show(self) -> None:
        """Show the column if there is room, always, never."""
        column_id, chosen = self.columns[self._at].id, self.arrangement
        mode = _mode(chosen, column_id)
        self._take(replace(chosen, shown=chosen.shown - {column_id} | ({column_id} if mode == AUTO else set()),
                           hidden=chosen.hidden - {column_id} | ({column_id} if mode == ALWAYS else set())))

    def action_shift(self, places: int) -> None:
        """Move the column to the left or right in the list, the cursor with it."""
        columns = self.columns
        to = max(0, min(self._at + places, len(columns) - 1))
        moved, neighbour = columns[self._at].id, columns[to].id
        ids = [column.id for column in self.arrangement.ordered(arranged())]  # of other lists too: each keeps its place
        at = ids.index(neighbour)
        ids.remove(moved)
        ids.insert(at, moved)
        self._at = to
        self._take(replace(self.arrangement, order=tuple(ids)))

    def action_widen(self, cells: int) -> None:
        """The column wider, or narrower."""
        column, widths = self.columns[self._at], dict(self.arrangement.widths)
        now = widths.get(column.id) or self._shown().get(column.id, column.width)
        least = LEAST_FLEXIBLE if column.flexible else len(column.header)
        widths[column.id] = max(least, min(now + cells, WIDEST))
        self._take(replace(self.arrangement, widths=tuple(sorted(widths.items()))))

    def action_reset(self) -> None:
        """Reset all columns."""
        self._take(AUTOMATIC)

    def action_close(self) -> None:
        """Back to the flows, once."""
        if self.is_current:
            self.dismiss()

    def on_click(self, event: events.Click) -> None:
        """Cursor to the column; again: toggle."""
        line = event.screen_y - self._lines.region.y - 1 + self._first()
        if 0 <= line < len(self.columns) and self._lines.region.contains(event.screen_x, event.screen_y):
            if line == self._at:
                self.action_show()
            self.action_move(line - self._at)

    def _take(self, arrangement: Arrangement) -> None:
        self.arrangement = arrangement
        self._change(arrangement)
        for part in (self._lines, self._full, self._hints):
            part.again()

    # ---- painting

    def _room(self) -> int:
        """Columns in view, at most."""
        return max(1, self.app.size.height - 4 - self._full_height())

    def _full_height(self) -> int:
        width, height = self.app.size
        room = min(width, 120) - 4 - _BEFORE_DOC
        return FullTexts(column.doc for column in self.columns).height(min(width, 120), height, room)

    def _full_text(self, width: int) -> list[Strip]:
        return FullTexts.lines(self.columns[self._at].doc, width, self._full_height())

    def _first(self) -> int:
        """The first column in view, where there is not room for all."""
        room = self._room()
        return max(0, min(self._at - room // 2, len(self.columns) - room))

    def _list(self, width: int) -> list[Strip]:
        head = Part("show      column        width   what it shows", theme.HEADING)
        room, first, shown = self._room(), self._first(), self._shown()
        lines = [justify([head], [], width)]
        for at, column in enumerate(self.columns[first:first + room], first):
            mode, cells = _mode(self.arrangement, column.id), dict(self.arrangement.widths).get(column.id)
            style = theme.CURSOR if at == self._at else theme.PLAIN if column.id in shown else theme.LABEL
            text = f"{mode:<9} {column.header:<13} {cells or 'auto':>5}   {column.doc}"
            text = text if len(text) <= width - 2 else text[:width - 3] + theme.ELLIPSIS
            lines.append(justify([Part(text.ljust(width - 2), style)], [], width))
        return lines

    def _hint_lines(self, width: int) -> list[Strip]:
        parts = [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL,
                      rank=0 if hint == "close" else index + 1) for index, (cap, hint) in enumerate(_HINTS)]
        return [justify(parts, [beyond(self._first(), self._room(), len(self.columns))], width)]


def _mode(chosen: Arrangement, column_id: str) -> str:
    return NEVER if column_id in chosen.hidden else ALWAYS if column_id in chosen.shown else AUTO
