"""Screens over the main view."""

from __future__ import annotations

from typing import Any

from flowtop.tui.main.flow_screen import FlowScreen


class Opening(FlowScreen):
    """Opens other screens."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._export_urls: list[str] = []

    def action_help(self) -> None:
        """Keys and words."""
        from flowtop.tui.panels.help import HelpScreen  # needed only now

        self.app.push_screen(HelpScreen())

    def action_exports(self) -> None:
        """Exports, to watch and to change."""
        from flowtop.tui.panels.exports import ExportsScreen  # needed only now

        if self.exports is not None:
            self.app.push_screen(ExportsScreen(self.exports, self.pace, self._export_urls, self.show_alarm, self.clock))
