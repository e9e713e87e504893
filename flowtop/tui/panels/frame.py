"""The boxes that panels are in, and texts laid out for their width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from functools import lru_cache

from textual.containers import VerticalScroll
from textual.strip import Strip

from flowtop.tui import theme
from flowtop.tui.line import Part, justify


def scrolling_frame(screen: str, width: int) -> str:
    """Style sheet of a screen that is one scrolling box over the list.

    Args:
        screen: name of the screen's class.
        width: cells of the box, where the terminal has them.
    """
    return f"""
    {screen}, {screen}:ansi {{ align: center middle; background: transparent; }}
    {screen} > VerticalScroll {{
        width: {width}; max-width: 100%; height: auto; max-height: 100%; border: round ansi_default;
        background: ansi_default; scrollbar-size-vertical: 1;
        scrollbar-color: ansi_default; scrollbar-background: ansi_default;
    }}
    """


class ScrollingBox(VerticalScroll):
    """A box whose border says that more is below, where there is."""

    can_focus = False

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Another part is in view."""
        super().watch_scroll_y(old_value, new_value)
        self._say_more()

    def watch_virtual_size(self) -> None:
        """There is more or less text, or room for it."""
        self.call_after_refresh(self._say_more)

    def _say_more(self) -> None:
        text = "PgDn: more below" if self.scroll_y < self.max_scroll_y else ""
        if self.border_subtitle != text:
            self.border_subtitle = text


def choosing_frame(screen: str) -> str:
    """Style sheet of a screen that is a box at the bottom, for a list to choose from."""
    return f"""
    {screen}, {screen}:ansi {{ align: center bottom; background: transparent; }}
    {screen} > Vertical {{
        width: 120; max-width: 100%; height: auto; max-height: 100%; border: round ansi_default;
        background: ansi_default;
    }}
    """


def beyond(first: int, room: int, count: int) -> Part:
    """How many lines of a list are above and below those in view: `↑ 3 ↓ 12 more`; empty when all are in view."""
    below = count - first - room
    parts = [f"↑ {first}"] * (first > 0) + [f"↓ {below}"] * (below > 0)
    return Part(f"{' '.join(parts)} more" if parts else "", theme.NAME)


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most so many cells; nothing of it is lost. One line at least."""
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=False, drop_whitespace=True) or [""]


@lru_cache(maxsize=16)
def _height(texts: tuple[str, ...], width: int, height: int, room: int) -> int:
    """`FullTexts.height`: asked for with each line that is painted."""
    if max(map(len, texts), default=0) <= room:
        return 0
    return min(max(len(wrapped(text, width - 4)) for text in texts), max(1, height // 3))


class FullTexts:
    """The whole text of a list's chosen line, below a list whose lines may be cut.

    Args:
        texts: of all lines: the place below the list is as high as the longest one needs, so that nothing moves.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(texts)

    def height(self, width: int, height: int, room: int) -> int:
        """Lines of the place: none where every text is whole in its line.

        Args:
            width, height: of the terminal.
            room: cells that a text has in its line.
        """
        return _height(self._texts, width, height, room)

    @staticmethod
    def lines(text: str, width: int, height: int) -> list[Strip]:
        """One text, in so many lines; what has no room ends in a mark."""
        lines: Sequence[str] = wrapped(text, width - 2)
        if len(lines) > height:
            lines = [*lines[:height - 1], lines[height - 1][:width - 3] + theme.ELLIPSIS] if height else []
        padded = [*lines, *[""] * (height - len(lines))]
        return [justify([Part(line, theme.LABEL)], [], width) for line in padded]
