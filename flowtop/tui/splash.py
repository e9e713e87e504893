"""The first frame, on screen while the rest of flowtop is imported: textual is all that it needs."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.message import Message
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from flowtop.tui import theme
from flowtop.tui.line import Part, justify
from flowtop.tui.widgets.hints import key_hints

STARTING = "starting …"


class Splash(Screen[None]):
    """Looks like the main screen before its first page."""

    AUTO_FOCUS = None

    class Painted(Message):
        """The first frame has been painted."""

    def compose(self) -> ComposeResult:
        """One widget that fills the screen."""
        yield _Frame()

    def on_mount(self) -> None:
        """Report the first frame when it has been painted."""
        self.call_after_refresh(self.post_message, self.Painted())


class _Frame(Widget):
    """Name, `starting …`, keys."""

    DEFAULT_CSS = "_Frame { width: 100%; height: 100%; }"

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        if y == 0:
            return justify([Part("flowtop", theme.NAME)], [], width)
        if y == height - 1:
            return key_hints(width)
        if y == 2 + (height - 4) // 2:
            return justify([Part(STARTING[:width].center(width))], [], width, margin=0)
        return Strip.blank(width)
