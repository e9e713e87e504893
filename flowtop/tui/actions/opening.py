"""Screens over the main view."""

from __future__ import annotations

from flowtop.tui.screens.flow_screen import FlowScreen


class Opening(FlowScreen):
    """Opens other screens."""

    def action_help(self) -> None:
        """Keys and words."""
        from flowtop.tui.screens.help import HelpScreen  # needed only now

        self.app.push_screen(HelpScreen())
