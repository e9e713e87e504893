"""An app whose colours are the terminal's own, or those of a palette, and whose reader may change them at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from textual.app import App, SystemCommand
from textual.filter import LineFilter

from flowtop.tui.palettes import PALETTES, TERMINAL, THEMES, PaletteFilter


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
        """What every line goes through on its way to the terminal."""
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
