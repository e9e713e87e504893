"""What a controller may use of the main screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from textual.app import App
from textual.message import Message

from flowtop.fields.columns import Column, Wording
from flowtop.query.query import Page, Query


class View(Protocol):
    """The main screen, for its controllers. Queries and the viewport are handed to each that needs them.

    Attributes:
        page: the page on view, None before the first.
    """

    page: Page | None

    @property
    def app(self) -> App[Any]:
        """For panels, the clipboard, workers and timers."""

    def changed(self) -> None:
        """Ask for what is missing in view, then paint: after a change of any choice."""

    def paint(self) -> None:
        """Paint what differs from what is on screen."""

    def show_alarm(self, text: str) -> None:
        """Show what went wrong, from now on."""

    def say(self, text: str) -> None:
        """Show a message for some seconds in the place of the key hints."""

    def wording(self) -> Wording:
        """Units and names of cells."""

    def columns(self, page: Page) -> Sequence[Column]:
        """The columns of a page's rows, from left to right, also those without room."""

    def send(self, query: Query) -> bool:
        """Hand a query to the source; False when there is none."""

    def post_message(self, message: Message) -> bool:
        """Post a message to the screen; any thread."""
