"""The help screen: keys, columns and the words of the accuracy line, from the tables that define them."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from flowtop.tui import theme
from flowtop.tui.keys import KEYS, MOUSE

ACCURACY: tuple[tuple[str, str], ...] = (
    ("exact", "share of the packets seen that are in a flow or in a counter of this line"),
    ("coverage", "packets seen, against the interfaces' own counters"),
    ("ignored", "not IP (ARP, LLC, other) or malformed: counted, in no flow"),
    ("lost", "seen but in no flow for want of memory in the kernel; 0 when all is well"),
    ("dup", "the same packet at a second interface or direction; once in the totals"),
    ("aggregated", "in the rows \"(all other flows)\": the kernel's table was full"),
    ("fragments", "later fragments whose first one was not seen; rows with \"frag\""),
    ("evicted", "flows ended early because the flow table was full"),
)
"""Words of the accuracy line and what they mean."""


class HelpScreen(ModalScreen[None]):
    """Keys and words; the usual keys scroll, any of help, Esc and quit close it."""

    CSS = """
    HelpScreen { align: center middle; background: ansi_default; }
    HelpScreen > VerticalScroll {
        width: 78; max-width: 100%; height: auto; max-height: 100%; padding: 0 1; border: round ansi_default;
        background: ansi_default; scrollbar-size-vertical: 1;
        scrollbar-color: ansi_default; scrollbar-background: ansi_default;
    }
    HelpScreen Static { height: auto; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,h,f1,f10", "dismiss", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One scrolling text."""
        with VerticalScroll() as scroll:
            scroll.border_title = "flowtop: keys and words"
            scroll.border_subtitle = "Esc closes"
            yield Static(help_text())

    def action_scroll(self, lines: int) -> None:
        """Scroll by lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


def help_text() -> Text:
    """Everything the help screen says."""
    from flowtop.view.columns import COLUMNS  # brings numpy: not before it is asked for

    text = Text()
    for section, keys in groupby(KEYS, key=lambda key: key.section):
        _section(text, section, [(key.caps, key.doc) for key in keys])
    _section(text, "Mouse", MOUSE)
    _section(text, "Columns", [(column.header, column.doc) for column in COLUMNS.values()])
    _section(text, "Accuracy, in packets", ACCURACY)
    text.rstrip()
    return text


def _section(text: Text, title: str, entries: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> None:
    text.append(f"{title}\n", theme.HEADING)
    width = 13
    for term, meaning in entries:
        gap = "\n" + " " * (width + 2) if len(term) > width else " " * (width - len(term))
        text.append(f"  {term}", theme.SORTED)
        text.append(f"{gap}{meaning}\n")
    text.append("\n")
