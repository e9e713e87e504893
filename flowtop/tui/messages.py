"""What other threads tell the app, as messages: a thread posts, the app's event loop handles."""

from __future__ import annotations

from textual.app import App
from textual.message import Message

from flowtop.errors import FlowtopError
from flowtop.view.query import Page


class PageReady(Message):
    """A page came; only the newest is worth painting."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page

    def can_replace(self, message: Message) -> bool:
        """A newer page takes the place of one still in the queue."""
        return isinstance(message, PageReady)


class Progress(Message):
    """What is being waited for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class CaptureFailed(Message):
    """Capturing has ended with an error."""

    def __init__(self, error: FlowtopError) -> None:
        super().__init__()
        self.error = error


class QuitRequested(Message):
    """A signal asked to quit."""


class Mailbox:
    """A `PageListener` that posts to an app whatever the pipeline's threads say."""

    def __init__(self, app: App[None]) -> None:
        self._app = app

    def on_progress(self, text: str) -> None:
        """Post a Progress."""
        self._app.post_message(Progress(text))

    def on_page(self, page: Page) -> None:
        """Post a PageReady."""
        self._app.post_message(PageReady(page))

    def on_error(self, error: FlowtopError) -> None:
        """Post a CaptureFailed."""
        self._app.post_message(CaptureFailed(error))
