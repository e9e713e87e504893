"""Widgets of a few lines of text, made when they are painted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from flowtop.tui.painting import changed_spans


class Lines(Widget):
    """Lines of text; as high as their number.

    Args:
        make: gives the lines for a width in cells.
        id: for style sheets.
    """

    DEFAULT_CSS = "Lines { height: auto; width: 1fr; }"

    def __init__(self, make: Callable[[int], Sequence[Strip]], *,
                 id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self._make = make
        self._strips: Sequence[Strip] = ()

    def again(self) -> None:
        """Paint what differs, if anything does."""
        before, self._strips = self._strips, self._make(self.size.width)
        if list(before) != list(self._strips):
            self.refresh(layout=len(before) != len(self._strips))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """One per line."""
        del container, viewport
        strips = self._make(width)
        self._strips = self._strips or strips
        return len(strips)

    def render_line(self, y: int) -> Strip:
        """One line, made for the current width."""
        if not self._strips or self._strips[0].cell_length != self.size.width:
            self._strips = self._make(self.size.width)
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)


class SteadyLines(Widget):
    """A fixed number of lines; paints the cells that changed. A subclass makes them."""

    def __init__(self) -> None:
        super().__init__()
        self._strips: list[Strip] = []

    def make(self, width: int) -> list[Strip]:
        """The lines for a width in cells."""
        raise NotImplementedError

    def again(self) -> None:
        """Paint what differs, if anything does."""
        before, self._strips = self._strips, self.make(self.size.width)
        for y, strip in enumerate(self._strips):
            if y >= len(before):
                self.refresh(Region(0, y, self.size.width, 1))
            elif strip != before[y]:
                for start, end in changed_spans(before[y], strip):
                    self.refresh(Region(start, y, end - start, 1))

    def render_line(self, y: int) -> Strip:
        """One line; all are made again when the width has changed."""
        if not self._strips or self._strips[0].cell_length != self.size.width:
            self._strips = self.make(self.size.width)
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)
