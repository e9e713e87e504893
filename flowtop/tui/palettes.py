"""Palettes: colours for the 16 of `theme.py`, and an app whose palette can be changed at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from textual.app import App, SystemCommand
from textual.color import Color
from textual.filter import LineFilter

TERMINAL = "terminal"
"""The terminal's own 16 colours, unchanged."""


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
"""Values of `--theme`, in the order of the key."""


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


class ThemedApp(App[None], inherit_bindings=False):
    """Colours by palette.

    Args:
        palette: one of THEMES.

    Attributes:
        palette: the one on screen. Under NO_COLOR always the terminal's own.
    """

    def __init__(self, palette: str = TERMINAL) -> None:
        super().__init__(ansi_color=True)
        self.palette = TERMINAL
        self._palette_filter: PaletteFilter | None = None
        self.set_palette(palette)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Filters of every line on its way to the terminal."""
        filters = super().get_line_filters()
        return filters if self._palette_filter is None else [*filters, self._palette_filter]

    def set_palette(self, name: str) -> None:
        """Show everything in these colours from now on."""
        if self.no_color:
            return
        palette = PALETTES.get(name)
        self.palette = TERMINAL if palette is None else name
        self._palette_filter = None if palette is None else PaletteFilter(palette)
        self.theme = "textual-light" if palette is not None and not palette.dark else "textual-dark"
        for screen in self.screen_stack if self.is_running else ():
            for widget in screen.walk_children(with_self=True):
                widget.refresh()

    def next_palette(self) -> str:
        """The one after the one on screen."""
        return THEMES[(THEMES.index(self.palette) + 1) % len(THEMES)]

    def palette_words(self) -> str:
        """The colours on screen, in words."""
        if self.no_color:
            return "no themes: NO_COLOR is set"
        palette = PALETTES.get(self.palette)
        return f"theme {self.palette}: {'the colours of this terminal' if palette is None else palette.doc}"


def palette_commands(choose: Callable[[str], None]) -> Iterable[SystemCommand]:
    """A command for each theme."""
    for name in THEMES:
        doc = PALETTES[name].doc if name in PALETTES else "the colours of this terminal"
        yield SystemCommand(f"Theme {name}", doc, partial(choose, name))
