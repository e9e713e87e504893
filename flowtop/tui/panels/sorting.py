"""The list of columns to sort by: a letter picks one, or the cursor."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.fields.columns import Column
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.keys import SORT_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.panels.frame import FullTexts, beyond, choosing_frame
from flowtop.tui.widgets.lines import Lines

_HINTS = tuple((key.caps.split()[0], key.hint) for key in SORT_KEYS if key.hint)
_BEFORE_DOC = len(" s  DESTINATION   ")


class SortScreen(ModalScreen[str | None]):
    """Gives the id of the column that was picked; None: nothing changes.

    Args:
        columns: to choose from, in screen order.
        sort, descending: the order there is.
    """

    CSS = choosing_frame("SortScreen")
    BINDINGS: ClassVar[list[BindingType]] = bindings(SORT_KEYS)

    def __init__(self, columns: Sequence[Column], sort: str, *, descending: bool) -> None:
        super().__init__()
        self._columns = columns
        self._letters = letters(columns)
        self._sort, self._descending = sort, descending
        self._at = next((at for at, column in enumerate(columns) if column.id == sort), 0)
        self._lines = Lines(self._list)
        self._full = Lines(self._full_text)
        self._hints = Lines(self._hint_lines)

    def compose(self) -> ComposeResult:
        """A line a column, what the cursor's one shows, and the keys."""
        with Vertical() as box:
            box.border_title = "flowtop: sort by"
            yield self._lines
            yield self._full
            yield self._hints

    # ---- keys

    def action_move(self, lines: int) -> None:
        """Cursor."""
        self._at = max(0, min(self._at + lines, len(self._columns) - 1))
        for part in (self._lines, self._full, self._hints):
            part.again()

    def action_page(self, pages: int) -> None:
        """Cursor by as many columns as are in view."""
        self.action_move(pages * self._room())

    def action_take(self) -> None:
        """Sort by the cursor's column, once."""
        if self.is_current:
            self.dismiss(self._columns[self._at].id)

    def action_close(self) -> None:
        """Close and change nothing, once."""
        if self.is_current:
            self.dismiss(None)

    def on_key(self, event: events.Key) -> None:
        """The letter of a column."""
        if event.character in self._letters and self.is_current:
            self._at = self._letters.index(event.character)
            self.action_take()

    def on_click(self, event: events.Click) -> None:
        """The column that was clicked."""
        line = event.screen_y - self._lines.region.y + self._first()
        if 0 <= line < len(self._columns) and self._lines.region.contains(event.screen_x, event.screen_y):
            self._at = line
            self.action_take()

    # ---- painting

    def _room(self) -> int:
        """Columns in view, at most."""
        return max(1, self.app.size.height - 3 - self._full_height())

    def _full_height(self) -> int:
        width, height = self.app.size
        room = min(width, 120) - 4 - _BEFORE_DOC
        return FullTexts(column.doc for column in self._columns).height(min(width, 120), height, room)

    def _full_text(self, width: int) -> list[Strip]:
        return FullTexts.lines(self._columns[self._at].doc, width, self._full_height())

    def _first(self) -> int:
        """The first column in view, where there is not room for all."""
        room = self._room()
        return max(0, min(self._at - room // 2, len(self._columns) - room))

    def _list(self, width: int) -> list[Strip]:
        first = self._first()
        lines = []
        for at, column in enumerate(self._columns[first:first + self._room()], first):
            arrow = units.order_arrow(self._descending) if column.id == self._sort else " "
            style = theme.CURSOR if at == self._at else theme.SORTED if arrow != " " else theme.PLAIN
            text = f"{self._letters[at]}  {column.header + arrow:<14} {column.doc}"
            text = text if len(text) <= width - 2 else text[:width - 3] + theme.ELLIPSIS
            lines.append(justify([Part(text.ljust(width - 2), style)], [], width))
        return lines

    def _hint_lines(self, width: int) -> list[Strip]:
        hints = [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL,
                      rank=0 if hint == "close" else number + 1) for number, (cap, hint) in enumerate(_HINTS)]
        picks = Part("picks", label="a letter ", label_style=theme.KEY_CAP, style=theme.LABEL, rank=1)
        return [justify([picks, *hints], [beyond(self._first(), self._room(), len(self._columns))], width)]


def letters(columns: Sequence[Column]) -> list[str]:
    """A letter for each column, all different: of its header where one is free, small ones first; what is shown first
    where there is little room chooses first."""
    taken: dict[int, str] = {}
    for at in sorted(range(len(columns)), key=lambda at: columns[at].priority):
        small = [letter for letter in columns[at].header.lower() if letter in string.ascii_lowercase]
        choices = [*small, *(letter.upper() for letter in small), *string.ascii_letters, *string.digits, *"+-*/.,;"]
        taken[at] = next((letter for letter in choices if letter not in taken.values()), " ")
    return [taken[at] for at in range(len(columns))]
