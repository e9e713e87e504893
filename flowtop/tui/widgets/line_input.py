"""One line of text to type, with history and completion; control characters are removed.

Keys are handled where they arrive, in order, not through the app as textual's bindings are: in a burst (a slow line, a
paste, a script) they would overtake each other there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input

from flowtop.text import units


class TakesTyping:
    """A screen with a line to type in. The app hands it each key before it looks up the key's action."""

    @abstractmethod
    def typed_ahead(self, event: events.Key) -> bool:
        """Take a key that is for the line, or that answers a question of the screen; False for others."""


LONGEST = 2_000
"""Characters of the text, at most."""


class LineInput(Input):
    """Posts textual's `Input.Changed` and `Input.Submitted`.

    Args:
        complete: gives completions of the text, the likeliest first, for Tab.
        history: earlier texts, the newest last; read at each key, so that its owner may add to it.

    Attributes:
        locked: the text stays as it is; keys are for others.
        above, below: called for ↑ and ↓ where the history has no more; None: nothing is there.
    """

    DEFAULT_CSS = """
    LineInput, LineInput:focus { height: 1; padding: 0; border: none; background: ansi_default; color: ansi_default; }
    LineInput > .input--cursor, LineInput:ansi > .input--cursor {
        background: ansi_default; color: ansi_default; text-style: reverse;
    }
    LineInput > .input--selection, LineInput:ansi > .input--selection {
        background: ansi_default; color: ansi_default; text-style: reverse;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete(1)", show=False),
        Binding("shift+tab", "complete(-1)", show=False),
        Binding("up", "recall(-1)", show=False),
        Binding("down", "recall(1)", show=False),
    ]

    def __init__(self, complete: Callable[[str], Sequence[str]], history: Sequence[str]) -> None:
        super().__init__(compact=True, select_on_focus=False, max_length=LONGEST)
        self.cursor_blink = False  # it would send octets to the terminal all the time
        self.locked = False
        self.above: Callable[[], object] | None = None
        self.below: Callable[[], object] | None = None
        self._complete = complete
        self._history = history
        self._draft = ""
        self._back = 0
        self._candidates: Sequence[str] = ()
        self._chosen = 0

    async def _on_key(self, event: events.Key) -> None:
        if self.locked:
            event.prevent_default()  # not textual's own way either; the screen gets it
        elif await self.edit(event):
            event.stop()
            event.prevent_default()

    def _on_paste(self, event: events.Paste) -> None:
        if self.locked:
            event.stop()
            event.prevent_default()

    async def edit(self, event: events.Key) -> bool:
        """Handle a key of the text; False when it is none."""
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            await self.run_action(binding.action)
            return True
        if event.is_printable and event.character:
            self.replace(event.character, *self.selection)
            return True
        return False

    def validate_value(self, value: str) -> str:
        """Pasted text may contain anything."""
        return units.printable(value, LONGEST)

    def show_text(self, text: str) -> None:
        """Set the text, the cursor behind it."""
        self.value = text
        self.cursor_position = len(self.value)

    def action_complete(self, step: int) -> None:
        """The next completion of the text as far as it was typed."""
        if not self._candidates or self.value != self._candidates[self._chosen]:
            self._candidates = self._complete(self.value)
            self._chosen = 0 if step > 0 else len(self._candidates) - 1
        else:
            self._chosen = (self._chosen + step) % len(self._candidates)
        if self._candidates:
            self.show_text(self._candidates[self._chosen])

    def action_recall(self, step: int) -> None:
        """An earlier text of the history, or back to what was being typed."""
        if step > 0 and self._back == 0 and self.below is not None:
            self.below()
            return
        if step < 0 and self._back == len(self._history) and self.above is not None:
            self.above()
            return
        if self._back == 0:
            self._draft = self.value
        self._back = max(0, min(self._back - step, len(self._history)))
        self.show_text(self._history[-self._back] if self._back else self._draft)

    def clear(self) -> None:
        """Remove the text; the history starts from its end again."""
        super().clear()
        self._back, self._draft, self._candidates = 0, "", ()
