"""The group chooser: flows, biflows, and the fields that flows can be grouped by."""

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

from flowtop.errors import FlowtopError
from flowtop.fields.groups import group_fields
from flowtop.fields.registry import GROUPS
from flowtop.tui import theme
from flowtop.tui.keys import GROUP_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.panels.frame import FullTexts, beyond, choosing_frame
from flowtop.tui.widgets.lines import Lines

FLOWS, BIFLOWS = "flow", "biflow"
"""No grouping."""
_ROWS = {FLOWS: "No grouping: one row per flow.", BIFLOWS: "No grouping: both directions of a conversation in one row."}
_HINTS = tuple((key.caps.split()[0], key.hint) for key in GROUP_KEYS if key.hint)
_BEFORE_DOC = len("+x ") + 25
_LONGEST_LENGTH = len("32/128")


class GroupsScreen(ModalScreen[tuple[str, ...] | None]):
    """The chooser; gives ids of fields, () for flows, (BIFLOWS,) for biflows, None to change nothing.

    Args:
        group: what the list is grouped by now, in the same form.
        collecting: flows come from exporters: they can be grouped by these too.
        networks: there are databases of networks, likewise.
    """

    CSS = choosing_frame("GroupsScreen")
    BINDINGS: ClassVar[list[BindingType]] = bindings(GROUP_KEYS)

    def __init__(self, group: tuple[str, ...], collecting: bool = False, networks: bool = False) -> None:
        super().__init__()
        self._lengths = dict(text.split(":") for text in group if ":" in text)
        current = [text.partition(":")[0] for text in group] or [FLOWS]
        self._ids = [*_ROWS, *(id_ for id_, field in GROUPS.items()
                              if ((collecting or not field.of_exporters) and (networks or not field.of_networks))
                              or id_ in current)]
        self._letters = letters(self._ids, {name for key in GROUP_KEYS for name in key.names})
        self._marked = current if len(current) > 1 else []
        self._current = current
        self._at = self._ids.index(current[0])
        self._fault = ""
        self._lines = Lines(self._list)
        self._full = Lines(self._full_text)
        self._hints = Lines(self._hint_line)

    def compose(self) -> ComposeResult:
        """A line a field, what the chosen one means, and the keys."""
        with Vertical() as box:
            box.border_title = "flowtop: group flows by"
            yield self._lines
            yield self._full
            yield self._hints

    # ---- keys

    def action_move(self, lines: int) -> None:
        """Move the cursor; after the last field comes the first."""
        self._at = (self._at + lines) % len(self._ids)
        self._paint()

    def action_jump(self, lines: int) -> None:
        """Move the cursor, to the first or last field at most."""
        self._at = max(0, min(self._at + lines, len(self._ids) - 1))
        self._paint()

    def action_page(self, pages: int) -> None:
        """Move the cursor by as many fields as are in view."""
        self.action_jump(pages * self._room())

    def action_mark(self) -> None:
        """Mark this field, or unmark it."""
        field = self._ids[self._at]
        if field in _ROWS:
            self._marked = []
        elif field in self._marked:
            self._marked.remove(field)
        else:
            self._marked.append(field)
        self._paint()

    def action_take(self) -> None:
        """Apply, once."""
        ids = tuple(map(self._with_length, self._marked or [self._ids[self._at]]))
        try:
            group_fields(() if ids == (BIFLOWS,) else ids)
        except FlowtopError as error:
            self._fault = error.message
            self._paint()
            return
        if self.is_current:
            self.dismiss(() if ids == (FLOWS,) else ids)

    def action_erase(self) -> None:
        """Erase the last digit of the prefix length."""
        field = self._ids[self._at]
        if not self._lengths.get(field):
            self._fault = "nothing to erase: Backspace erases a digit of a prefix length"
        self._lengths[field] = self._lengths.get(field, "")[:-1]
        self._paint()

    def action_close(self) -> None:
        """Close and change nothing, once."""
        if self.is_current:
            self.dismiss(None)

    def on_key(self, event: events.Key) -> None:
        """The letter of a field applies it; digits and / are a prefix length, at a field that has one."""
        field = self._ids[self._at]
        character = event.character or ""
        if character in self._letters and character.strip():
            self._at, self._marked = self._letters.index(character), []
            self.action_take()
            return
        if not character or character not in "0123456789/":
            return
        if field in _ROWS or GROUPS[field].choose is None:
            self._fault = f"{field} takes no number: digits are a prefix length, for networks"
            self._paint()
            return
        self._lengths[field] = (self._lengths.get(field, "") + character)[:_LONGEST_LENGTH]
        self._paint()

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the field; again: apply."""
        line = event.screen_y - self._lines.region.y + self._first()
        if 0 <= line < len(self._ids) and self._lines.region.contains(event.screen_x, event.screen_y):
            if line == self._at:
                self.action_take()
            else:
                self.action_move(line - self._at)

    def _with_length(self, field: str) -> str:
        length = self._lengths.get(field, "")
        return f"{field}:{length}" if length else field

    # ---- painting

    def _paint(self) -> None:
        self._lines.again()
        self._full.again()
        self._hints.again()
        self._fault = ""

    def _room(self) -> int:
        """Fields in view, at most."""
        return max(1, self.app.size.height - 3 - self._full_height())

    def _full_height(self) -> int:
        width, height = self.app.size
        room = min(width, 120) - 4 - _BEFORE_DOC
        return FullTexts(map(_doc, self._ids)).height(min(width, 120), height, room)

    def _full_text(self, width: int) -> list[Strip]:
        return FullTexts.lines(_doc(self._ids[self._at]), width, self._full_height())

    def _first(self) -> int:
        """The first field in view, where there is not room for all."""
        room = self._room()
        return max(0, min(self._at - room // 2, len(self._ids) - room))

    def _list(self, width: int) -> list[Strip]:
        room, first = self._room(), self._first()
        lines = []
        for at, field in enumerate(self._ids[first:first + room], first):
            mark = "+" if field in self._marked else "•" if field in self._current else " "
            style = theme.CURSOR if at == self._at else theme.SORTED if mark != " " else theme.PLAIN
            name = self._with_length(field).replace(":", " /")
            text = f"{mark}{self._letters[at]} {name:<24} {_doc(field)}"
            text = text if len(text) <= width - 2 else text[:width - 3] + theme.ELLIPSIS
            lines.append(justify([Part(text.ljust(width - 2), style)], [], width))
        return lines

    def _hint_line(self, width: int) -> list[Strip]:
        if self._fault:
            return [justify([Part(self._fault, theme.ALARM)], [], width)]
        hints = [Part("applies", label="a letter ", label_style=theme.KEY_CAP, style=theme.LABEL, rank=len(_HINTS) + 1)]
        hints += [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL,
                      rank=0 if hint == "close" else index + 1) for index, (cap, hint) in enumerate(_HINTS)]
        field = self._ids[self._at]
        if field not in _ROWS and GROUPS[field].choose is not None:
            hints.insert(0, Part("prefix length", label="0–9 / ", label_style=theme.KEY_CAP, style=theme.LABEL))
        return [justify(hints, [beyond(self._first(), self._room(), len(self._ids))], width)]


def letters(names: Sequence[str], taken: set[str]) -> list[str]:
    """A letter for each name, all different: of the name where one is free; none of `taken`, which are keys."""
    found: list[str] = []
    for name in names:
        own = [letter for letter in name if letter in string.ascii_lowercase]
        choices = [*own, *(letter.upper() for letter in own), *string.ascii_letters]
        found.append(next((letter for letter in choices if letter not in taken and letter not in found), " "))
    return found


def _doc(field: str) -> str:
    return _ROWS[field] if field in _ROWS else GROUPS[field].doc
