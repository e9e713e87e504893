"""The hand-off of a flow or group: to the clipboard as a filter, a tcpdump expression or JSON; to a file of packets, to
an export, and to a directory for a ticket."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.text import units
from flowtop.text.shell import for_shell
from flowtop.tui import theme
from flowtop.tui.keys import HAND_OFF_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.state.subject import Subject
from flowtop.tui.widgets.lines import Lines

LONGEST = 8_000
"""Octets that all terminals accept at once."""
MOST_LINES = 3
"""Lines of one text."""
_NAME = 7


class HandOffScreen(ModalScreen[None]):
    """Shows each text, and what else can be made; a key copies one, or makes it.

    Args:
        subject: what is handed off.
        copy: called with the name of a format and the text; an empty text cannot be copied.
        makers: what makes a thing, by the word of its key's action.
    """

    CSS = """
    HandOffScreen, HandOffScreen:ansi { align: center bottom; background: transparent; }
    HandOffScreen > Vertical {
        width: 100%; height: auto; max-height: 100%; border: round ansi_default; background: ansi_default;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings(HAND_OFF_KEYS)

    def __init__(self, subject: Subject, copy: Callable[[str, str], None],
                 makers: Mapping[str, Callable[[Subject], None]]) -> None:
        super().__init__()
        self._subject = subject
        self._texts = (("filter", for_shell(subject.filter)), ("tcpdump", for_shell(subject.tcpdump)),
                       ("JSON", subject.record))
        self._copy = copy
        self._makers = makers

    def compose(self) -> ComposeResult:
        """Lines of each text and thing."""
        with Vertical() as box:
            name = units.printable(self._subject.name)
            box.border_title = Text(f"hand off this {self._subject.what}{f': {name}' if name else ''}")
            yield Lines(self._lines)

    def action_copy(self, which: int) -> None:
        """Copy one text, and close."""
        if self.is_current and self._texts[which][1]:
            self.dismiss()
            self._copy(*self._texts[which])

    def action_make(self, what: str) -> None:
        """Close, and make it."""
        if self.is_current:
            self.dismiss()
            self._makers[what](self._subject)

    def action_close(self) -> None:
        """Close."""
        if self.is_current:
            self.dismiss()

    def _lines(self, width: int) -> list[Strip]:
        lines = []
        room = max(width - _NAME - 8, 8)
        for key in HAND_OFF_KEYS[:-1]:
            caps = Part(f"{key.caps.split()[0]:<2}", theme.KEY_CAP)
            copied = key.action.startswith("copy")
            if copied:
                name, text = self._texts[int(key.action[5])]
                text = text or ("none: tcpdump has no words for this" if self._subject.whole else
                                "none: the kernel's table was full, only the sum of these flows is known")
            else:
                name, text = key.hint, key.doc
            label, style = Part(f"{name:<{_NAME}}", theme.LABEL), theme.PLAIN if copied else theme.LABEL
            # Whole, so that the mouse can take it where a terminal has no OSC 52.
            for piece in textwrap.wrap(units.printable(text, LONGEST), room, max_lines=MOST_LINES,
                                       placeholder=theme.ELLIPSIS):
                lines.append(justify([caps, label, Part(piece, style)], [], width))
                caps, label = Part("  "), Part(" " * _NAME)
        leave = Part("cancel", label="Esc ", label_style=theme.KEY_CAP, style=theme.LABEL)
        return [*lines, justify([leave], [], width)]
