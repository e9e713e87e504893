"""Details of a flow: everything there is to know, live, and still when it has ended and left."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.tui import theme
from flowtop.tui.flow_words import Telling, detail_lines, title
from flowtop.tui.keys import DETAIL_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.lines import Lines
from flowtop.view.query import Details

_HINTS = tuple((key.caps.split()[0], key.hint) for key in DETAIL_KEYS if key.hint)


class DetailsScreen(ModalScreen[None]):
    """One flow.

    Args:
        step: puts the cursor of the list on the flow so many lines down, and shows that one.
        copy: offers to copy the flow.
    """

    AUTO_FOCUS = None
    CSS = """
    DetailsScreen, DetailsScreen:ansi { align: center middle; background: transparent; }
    DetailsScreen > VerticalScroll {
        width: 100; max-width: 100%; height: auto; max-height: 100%; border: round ansi_default;
        background: ansi_default; scrollbar-size-vertical: 1;
        scrollbar-color: ansi_default; scrollbar-background: ansi_default;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings(DETAIL_KEYS)

    def __init__(self, step: Callable[[int], None], copy: Callable[[], None]) -> None:
        super().__init__()
        self._step = step
        self._copy = copy
        self._shown: tuple[Details, Telling] | None = None
        self._lines = Lines(self._make)

    def compose(self) -> ComposeResult:
        """A box of lines."""
        with VerticalScroll() as box:
            box.can_focus = False
            yield self._lines
            self._head(box)

    def show(self, details: Details, telling: Telling) -> None:
        """Take newer details, or another flow's."""
        self._shown = details, telling
        for box in self.query(VerticalScroll):
            self._head(box)
        self._lines.again()

    def _head(self, box: VerticalScroll) -> None:
        if self._shown is not None:
            details, telling = self._shown
            box.border_title = title(details.row, telling).replace("[", "\\[")

    def action_step(self, lines: int) -> None:
        """The flow above, or below."""
        self._step(lines)

    def action_scroll(self, pages: int) -> None:
        """Where there is not room for all."""
        for box in self.query(VerticalScroll):
            box.scroll_relative(y=pages * (box.size.height - 1), animate=False)

    def action_copy(self) -> None:
        """Copy the flow."""
        self._copy()

    def action_close(self) -> None:
        """Back to the list, once."""
        if self.is_current:
            self.dismiss()

    def _make(self, width: int) -> list[Strip]:
        hints = [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL) for cap, hint in _HINTS]
        lines = [] if self._shown is None else detail_lines(*self._shown, width)
        return [*lines, justify(hints, [], width)]
