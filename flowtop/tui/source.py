"""Where the screen's pages come from. `pipeline.Pipeline` satisfies `PageSource`; tests hand in a fake.

These protocols repeat the pipeline's own so that the screen can be painted before numpy is imported.
"""

from __future__ import annotations

from typing import Protocol

from flowtop.errors import FlowtopError
from flowtop.view.query import Page, Query


class PageListener(Protocol):
    """Who watches a PageSource. Called from its threads."""

    def on_progress(self, text: str) -> None:
        """What is being waited for before the first page, in words."""

    def on_page(self, page: Page) -> None:
        """The newest answer to the newest query: after each tick, and at once after `ask`."""

    def on_error(self, error: FlowtopError) -> None:
        """Capturing failed and has ended; nothing is attached any more."""


class PageSource(Protocol):
    """What the screen needs of the metering pipeline."""

    def start(self, listener: PageListener) -> None:
        """Start capturing; called once.

        Raises:
            FlowtopError: it cannot start.
        """

    def ask(self, query: Query) -> None:
        """Set the query every later page answers, and answer it now. Any thread; the latest wins."""

    def stop(self) -> None:
        """Last drain, detach, flush. Blocks; called once, also after `on_error`."""
