"""The line that `/` opens over the header's second line: the list is filtered as one types.

Below it, over the table's head, is what is wrong with the text, with `^` under the place; nothing else moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Label

from flowtop.filters.completion import complete
from flowtop.filters.filter import Filter
from flowtop.text.shell import from_shell
from flowtop.tui import theme
from flowtop.tui.line import Part, justify
from flowtop.tui.state.filter_entry import FilterEntry, error_lines, remember
from flowtop.tui.widgets.candidates import Candidates
from flowtop.tui.widgets.line_input import LineInput
from flowtop.tui.widgets.lines import Lines

PROMPT = " / "
GATHER_S = 0.03
"""Characters typed within this time make one query: a paste, keys that repeat."""


class FilterInput(LineInput):
    """The text, with the keys of readline; it hands each key to its bar first."""

    def __init__(self, bar: FilterBar, history: Sequence[str]) -> None:
        super().__init__(lambda _: (), history)
        self._bar = bar

    async def _on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        if not self._bar.editing:  # typed ahead, past the end of editing: a key of the list
            self.app.post_message(events.Key(event.key, event.character))
            return
        before = self.value
        by_hand = not self._bar.press(event.key, text=event.is_printable)
        if by_hand:
            await self.edit(event)
        if self.value != before:
            self._bar.typed(by_hand=by_hand)

    def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        if self._bar.editing:
            self.insert_text_at_cursor(from_shell(" ".join(event.text.split())))
            self._bar.typed(by_hand=True)


class FilterBar(Widget):
    """Edits a filter; posts it whenever it changes, and in the end.

    Args:
        history: texts of filters, the newest last; added to.
        seen: gives the values on view, by the filter word that they go with.

    Attributes:
        candidates: the list that Tab opens; its place is beside the bar, over all else.
        editing: a text is being typed.
    """

    DEFAULT_CSS = """
    FilterBar { layer: over; offset: 0 1; width: 100%; height: auto; display: none; background: ansi_default; }
    FilterBar Horizontal { height: 1; background: ansi_default; }
    FilterBar Label { width: auto; background: ansi_default; }
    FilterBar LineInput { width: 1fr; }
    """

    class Changed(Message):
        """The text means another filter."""

        def __init__(self, meaning: Filter | None) -> None:
            super().__init__()
            self.filter = meaning

        def can_replace(self, message: Message) -> bool:
            """Only the newest is worth asking about."""
            return isinstance(message, FilterBar.Changed)

    class Closed(Message):
        """Editing has ended, with this filter."""

        def __init__(self, meaning: Filter | None) -> None:
            super().__init__()
            self.filter = meaning

    def __init__(self, history: list[str], seen: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        super().__init__()
        self._history = history
        self._seen = seen
        self.candidates = Candidates()
        self._entry = FilterEntry(None)
        self._posted: Filter | None = None
        self._timer: Timer | None = None
        self._refused = False
        self._parser_ready = False
        self._word = 0
        self._completed = ""
        self.editing = False
        self._input = FilterInput(self, history)
        self._count = Label("", markup=False)
        self._counted = ""
        self._words = Lines(self._error_strips)

    def compose(self) -> ComposeResult:
        """Prompt, text, count; below them the error."""
        with Horizontal():
            yield Label(PROMPT, markup=False)
            yield self._input
            yield self._count
        yield self._words

    def on_mount(self) -> None:
        """The caret goes along when a long text scrolls."""
        self.watch(self._input, "scroll_x", self._words.again, init=False)

    def edit(self, current: Filter | None) -> None:
        """Start typing, with the current filter."""
        self._entry = FilterEntry(current)
        self._posted = current
        self._refused = False
        self.editing = self.display = True
        self._input.clear()
        self._input.show_text(current.text if current else "")
        self.screen.set_focus(self._input)  # at once: `focus` would let keys typed ahead pass
        self._words.again()
        if not self._parser_ready:
            self.run_worker(self._load_parser())

    def place(self, line: int) -> None:
        """Stand on this line of the screen."""
        self.styles.offset = (0, line)
        self.candidates.place(line + 1)

    def show_count(self, words: str) -> None:
        """Show how many flows the filter leaves."""
        if words != self._counted:  # a label that gets the same text again is painted again
            self._counted = words
            self._count.update(f"  {words} ")

    def press(self, key: str, *, text: bool) -> bool:
        """A key that completes or ends editing; False for one of the text. `text`: it brings a character."""
        if self._completes(key, text=text):
            return True
        if key == "enter":
            self._accept()
        elif key == "escape":
            self._close(self._entry.before)
        else:
            return False
        return True

    def typed(self, *, by_hand: bool) -> None:
        """The text is another one; by hand: not because Tab completed it."""
        self._refused = False
        if self._parser_ready:
            if self.candidates.display and by_hand:
                self._offer()
            self._read()

    # ---- completing

    def _completes(self, key: str, *, text: bool) -> bool:
        """Tab opens the list, and goes through it as the arrows do; Enter takes the choice, Esc the text from before.

        Any other key continues with the text as it is.
        """
        steps = {"tab": 1, "down": 1, "shift+tab": -1, "up": -1}
        if not self.candidates.display:
            if key == "tab" and self._parser_ready:
                self._offer(begin=True)
            return key in ("tab", "shift+tab")
        if key in steps:
            self._put(self.candidates.step(steps[key]))
            return True
        chosen = self.candidates.choosing
        if key == "escape":
            self._put(self._completed)
        elif chosen and key == "enter":
            self._input.insert_text_at_cursor(" ")
        if chosen or not (text or key == "backspace"):
            self.candidates.hide()
            self._words.again()
        return key == "escape" or (key == "enter" and chosen)

    def _offer(self, *, begin: bool = False) -> None:
        """List what the word at the cursor could become; when Tab asks: complete as far as that is certain."""
        text, cursor = self._input.value, self._input.cursor_position
        completion = complete(text, cursor, self._seen())
        self._word = completion.start
        self._completed = text[completion.start:cursor]
        if begin and completion.candidates:
            certain = _common_start(completion.candidates)
            if len(completion.candidates) == 1:
                self._put(completion.candidates[0] + " ")
                return
            if len(certain) > len(self._completed):
                self._put(certain)
                self._completed = certain
        self.candidates.offer(completion.candidates, len(PROMPT) + completion.start - int(self._input.scroll_x))
        self._words.again()

    def _put(self, word: str) -> None:
        """Another word in the place of the one that ends at the cursor."""
        text, cursor = self._input.value, self._input.cursor_position
        self._input.value = text[:self._word] + word + text[cursor:]
        self._input.cursor_position = self._word + len(word)

    # ---- reading

    async def _load_parser(self) -> None:
        """The parser takes some 100 ms to be made: not before the line is on screen."""
        await asyncio.to_thread(FilterEntry(None).type, "tcp")
        self._parser_ready = True
        if self.editing:
            self._read()

    def _read(self) -> None:
        self._entry.type(self._input.value)
        self._words.again()
        if self._entry.filter != self._posted and self._timer is None:
            self._timer = self.set_timer(GATHER_S, self._post)

    def _post(self) -> None:
        self._timer = None
        if self.editing and self._entry.filter != self._posted:
            self._posted = self._entry.filter
            self.post_message(self.Changed(self._posted))

    def _accept(self) -> None:
        text = self._input.value
        self._entry.type(text, finished=True, settled=self._refused and self._entry.could_be_text(text))
        self._refused = self._entry.error is not None
        if self._entry.error is not None and self._entry.could_be_text(text):
            self._entry.error.hint += "; Enter again: flows with this text"
        self._words.again()
        if not self._refused:
            remember(self._history, self._input.value.strip())
            self._close(self._entry.filter)

    def _close(self, meaning: Filter | None) -> None:
        self.editing = self.display = False
        self.candidates.hide()
        self.screen.set_focus(None)
        self.post_message(self.Closed(meaning))

    def _error_strips(self, width: int) -> list[Strip]:
        error = self._entry.error
        if self.candidates.display:
            return []
        if error is None:
            words = f"{' ' * len(PROMPT)}means {self._entry.meaning}"
            return [justify([Part(words[:width], theme.LABEL)], [], width, margin=0)] if self._entry.meaning else []
        place = len(PROMPT) + error.position - int(self._input.scroll_x)
        lines = error_lines(error, place, width, gently=error.unfinished and not self._refused)
        return [justify(parts, [], width, margin=0) for parts in lines]


def _common_start(words: Sequence[str]) -> str:
    """The longest common prefix, ignoring case."""
    first, last = min(words, key=str.lower), max(words, key=str.lower)
    return next((first[:index] for index, character in enumerate(first)
                 if character.lower() != last[index:index + 1].lower()), first)
