"""Palettes: what the 16 colours of `theme.py` look like, when the terminal's own are not wanted.

Every style on screen is made of default and named colours; a line filter gives each of them a colour of the palette,
on its way to the terminal. So nobody who paints knows of palettes. Colours are those of xterm's 256, which most
terminals have and which take half the octets of 24-bit ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

TERMINAL = "terminal"
"""The terminal's own 16 colours: nothing is filtered."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as numbers of xterm's 256.

    Attributes:
        doc: for whom.
        foreground, background: of plain text.
        dim: text that is less important.
        dark: light text on a dark background.
        colors: red (1), green (2), yellow (3), blue (4), magenta (5), cyan (6); also for their bright ones (9 to 14).
    """

    doc: str
    foreground: int
    background: int
    dim: int
    dark: bool
    colors: Mapping[int, int] = field(hash=False)

    def color(self, color: RichColor | None, default: int) -> RichColor:
        """A colour of the palette for one of a style; `default` where the style has the terminal's own."""
        if color is None or color.type is ColorType.DEFAULT:
            return _xterm(default)
        if color.type is not ColorType.STANDARD or color.number is None:
            return color
        if color.number in (0, 8):
            return _xterm(self.background if self.dark else self.foreground)
        if color.number in (7, 15):
            return _xterm(self.foreground if self.dark else self.background)
        return _xterm(self.colors[color.number % 8])


PALETTES: dict[str, Palette] = {
    "dark": Palette("light text on dark grey", 252, 234, 246, True, {1: 203, 2: 114, 3: 221, 4: 75, 5: 177, 6: 80}),
    "light": Palette("dark text on light grey", 235, 255, 241, False, {1: 160, 2: 22, 3: 94, 4: 25, 5: 90, 6: 24}),
    "contrast": Palette("white on black, nothing dimmed", 231, 16, 231, True,
                        {1: 210, 2: 120, 3: 227, 4: 117, 5: 219, 6: 123}),
}
"""Every palette by name."""

THEMES = (TERMINAL, *PALETTES)
"""What `--theme` takes, in the order in which the key goes through them."""


class PaletteFilter(LineFilter):
    """Gives every segment the colours of a palette."""

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self._palette = palette
        self._style = lru_cache(1024)(self._make)

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """See LineFilter."""
        del background
        return [Segment(text, self._style(style), control) for text, style, control in segments]

    def _make(self, style: Style | None) -> Style:
        style = Style.null() if style is None else style
        palette = self._palette
        plain = style.color is None or style.color.type is ColorType.DEFAULT
        color = palette.color(style.color, palette.dim if style.dim else palette.foreground)
        return style + Style(color=color, bgcolor=palette.color(style.bgcolor, palette.background),
                             dim=bool(style.dim) and not plain and palette.dim != palette.foreground)


def _xterm(number: int) -> RichColor:
    return RichColor.from_ansi(number)
