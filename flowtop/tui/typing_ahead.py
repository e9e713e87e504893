"""Keys that were typed before the line they are meant for has its focus.

Textual sends a key to what has the focus when the key comes, and does what earlier keys ask for only afterwards. So of
`/tcp` typed at once (pasted, or sent over a slow line), or of `e` and a URL, the letters pass by the line to type in,
and come to the app, which would take them for keys of the screen that is there by then.
"""

from __future__ import annotations

from abc import abstractmethod

from textual import events


class TakesTyping:
    """A screen with a line to type in. The app asks it about each key before it looks for what the key does."""

    @abstractmethod
    def typed_ahead(self, event: events.Key) -> bool:
        """Whether the key was meant for the line, and has been put there, or has answered a question of the screen."""
