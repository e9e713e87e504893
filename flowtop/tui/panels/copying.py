"""The copy panel: a flow goes to the clipboard as a filter, a tcpdump expression, or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.tui import theme
from flowtop.tui.keys import COPY_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.widgets.lines import Lines

LONGEST = 8_000
"""Octets that all terminals accept at once."""
MOST_LINES = 3
"""Lines of one text."""


class CopyScreen(ModalScreen[None]):
    """Shows each text; a key copies one.

    Args:
        texts: name of the format, and the text, in the order of COPY_KEYS; an empty text cannot be copied.
        copy: called with name and text.
        what: what is copied: "flow", "group".
    """

    CSS = """
    CopyScreen, CopyScreen:ansi { align: center bottom; background: transparent; }
    CopyScreen > Vertical { width: 100%; height: auto; border: round ansi_default; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings(COPY_KEYS)

    def __init__(self, texts: Sequence[tuple[str, str]], copy: Callable[[str, str], None], what: str = "flow") -> None:
        super().__init__()
        self._what = what
        self._texts = texts
        self._copy = copy

    def compose(self) -> ComposeResult:
        """A line a text."""
        with Vertical() as box:
            box.border_title = f"copy this {self._what} as"
            yield Lines(self._lines)

    def action_copy(self, which: int) -> None:
        """Copy one text, and close."""
        if self.is_current and self._texts[which][1]:
            self.dismiss()
            self._copy(*self._texts[which])

    def action_close(self) -> None:
        """Close."""
        if self.is_current:
            self.dismiss()

    def _lines(self, width: int) -> list[Strip]:
        lines = []
        for key, (what, text) in zip(COPY_KEYS, self._texts, strict=False):
            caps, name = Part(f"{key.caps.split()[0]:<2}", theme.KEY_CAP), Part(f"{what:<7}", theme.LABEL)
            # Whole, so that the mouse can take it where a terminal has no OSC 52.
            for piece in textwrap.wrap(text, max(width - 15, 8), max_lines=MOST_LINES, placeholder=theme.ELLIPSIS):
                lines.append(justify([caps, name, Part(piece)], [], width))
                caps, name = Part("  "), Part(" " * 7)
        leave = Part("cancel", label="Esc ", label_style=theme.KEY_CAP, style=theme.LABEL)
        return [*lines, justify([leave], [], width)]
