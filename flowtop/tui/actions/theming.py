"""The colours of the screen, by key and from the command palette."""

from __future__ import annotations

from flowtop.tui.screens.flow_screen import FlowScreen
from flowtop.tui.themed import ThemedApp


class Theming(FlowScreen):
    """Changes colours, and says which they are."""

    def action_next_theme(self) -> None:
        """The next theme."""
        if isinstance(self.app, ThemedApp):
            self.choose_theme(self.app.next_palette())

    def choose_theme(self, name: str) -> None:
        """The theme of that name."""
        if isinstance(self.app, ThemedApp):
            self.app.set_palette(name)
            self.say(self.app.palette_words())
