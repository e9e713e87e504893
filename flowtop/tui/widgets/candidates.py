"""A short list of words below the one that is being typed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from flowtop.tui import theme

LINES = 8
"""Words in view, at most."""
LONGEST = 46
"""Cells of a word, at most: an IPv6 address with its prefix length."""


class Candidates(Widget):
    """Shown while there is something to choose from.

    Attributes:
        choosing: one of the words has been chosen.
    """

    DEFAULT_CSS = "Candidates { layer: over; position: absolute; display: none; background: ansi_default; }"

    def __init__(self) -> None:
        super().__init__()
        self._words: Sequence[str] = ()
        self._chosen: int | None = None
        self._x, self._top = 0, 2

    @property
    def choosing(self) -> bool:
        """One of the words has been chosen."""
        return self._chosen is not None

    def offer(self, words: Sequence[str], x: int) -> None:
        """Show other words, none of them chosen.

        Args:
            words: the choices; the list is hidden when there are none.
            x: cell of the screen under which it begins, if there is room.
        """
        self._words, self._chosen = words, None
        self.display = bool(words)
        if not words:
            return
        self._x = x
        self._arrange()
        self.refresh()

    def place(self, line: int) -> None:
        """Begin at this line of the screen, which may be another or have another size now."""
        self._top = line
        if self.display:
            self._arrange()

    def _arrange(self) -> None:
        words = self._words
        width = max(map(len, [*words, self._more().strip()])) if len(words) > LINES else max(map(len, words))
        width = min(width, LONGEST, self.screen.size.width - 2) + 2
        self.styles.width, self.styles.height = width, min(len(words), LINES) + (len(words) > LINES)
        self.styles.offset = (max(0, min(self._x - 1, self.screen.size.width - width)), self._top)

    def hide(self) -> None:
        """Hide the list."""
        self._chosen = None
        self.display = False

    def step(self, step: int) -> str:
        """The next word, or the one before; after the last comes the first. Gives it."""
        if self._chosen is None:
            self._chosen = 0 if step > 0 else len(self._words) - 1
        else:
            self._chosen = (self._chosen + step) % len(self._words)
        self.refresh()
        return self._words[self._chosen]

    def render_line(self, y: int) -> Strip:
        """A word; below the last one in view, their number."""
        width = self.size.width
        if y == LINES:
            return Strip([Segment(self._more()[:width].ljust(width), theme.HINT)], width)
        first = max(0, min((self._chosen or 0) - LINES // 2, len(self._words) - LINES))
        if first + y >= len(self._words):
            return Strip.blank(width)
        word = self._words[first + y]
        style = theme.CURSOR if first + y == self._chosen else theme.HINT
        return Strip([Segment(f" {word[:width - 2]} ".ljust(width), style)], width)

    def _more(self) -> str:
        return f" {len(self._words):,} in all "
