"""The write panel: a file name to type, with a default, for the list or for packets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Input, Label

from flowtop.errors import FlowtopError
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.line import Part, justify
from flowtop.tui.widgets.line_input import LineInput, TakesTyping
from flowtop.tui.widgets.lines import Lines

SUFFIXES = (".csv", ".json", ".jsonl")
QUIT = ("q", "f10")
"""Keys that quit while a file is begun: there is nothing to type any more."""


class WriteScreen(ModalScreen[None], TakesTyping):
    """The line. While the file is begun, which may take seconds, its name stays as it is; Esc goes back to the flows
    meanwhile, and the usual keys quit.

    Args:
        name: the default.
        write: writes to a path, raises FlowtopError; gives a message, shown when the panel has closed.
        say: shows it.
        title: what is written.
        suffixes: suffixes of names that Tab offers, one after the other.
        verb: what Enter does, for the hint.
    """

    AUTO_FOCUS = "LineInput"
    CSS = """
    WriteScreen, WriteScreen:ansi { align: center bottom; background: transparent; }
    WriteScreen > Vertical { width: 100%; height: auto; border: round ansi_default; background: ansi_default; }
    WriteScreen Horizontal { height: 1; padding: 0 1; }
    WriteScreen Label { width: auto; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", show=False)]

    def __init__(self, name: str, write: Callable[[Path], Awaitable[str]], say: Callable[[str], None], *,
                 title: str = "write this list to a new file", suffixes: tuple[str, ...] = SUFFIXES,
                 verb: str = "write") -> None:
        super().__init__()
        self._title = units.printable(title, 300)
        self._suffixes = suffixes
        self._verb = verb
        self._write = write
        self._say = say
        self._words = Part(f"in {units.printable(str(Path.cwd()), 200)}", theme.LABEL)
        self._busy = False
        self._input = LineInput(self._completions, ())
        self._input.value = name
        self._message = Lines(lambda width: [justify([self._words], [], width)])

    def compose(self) -> ComposeResult:
        """The line, a message, keys."""
        with Vertical() as box:
            box.border_title = Text(self._title)
            with Horizontal():
                yield Label("to ", markup=False)
                yield self._input
            yield self._message
            yield Lines(self._hint_lines)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Write, one file at a time."""
        message.stop()
        if not self._busy:
            self._set_busy(True)
            self._show(Part(self._doing))
            self.app.run_worker(self._try(message.value.strip()))  # also when this screen is left

    @property
    def _doing(self) -> str:
        return "writing …" if self._verb == "write" else "starting …"

    def typed_ahead(self, event: events.Key) -> bool:
        """Keys while the file is begun."""
        if not self._busy or event.key in ("escape", "ctrl+c", "ctrl+z"):
            return False
        if event.key in QUIT:
            self.app.call_later(self.app.action_quit)
        return True

    async def _try(self, text: str) -> None:
        try:
            message = await self._write(Path(text).expanduser())
        except (FlowtopError, RuntimeError) as error:  # RuntimeError: ~nobody
            hint = error.hint if isinstance(error, FlowtopError) else ""
            words = "; ".join(filter(None, (units.printable(str(error), 300), hint)))
            self._set_busy(False)
            if self.is_attached:
                self._show(Part(words, theme.ALARM))
            else:
                self._say(words)
            return
        self._set_busy(False)
        self.action_close()
        self._say(message)

    def _set_busy(self, busy: bool) -> None:
        self._busy = self._input.locked = busy

    def action_close(self) -> None:
        """Back to the flows, once."""
        if self.is_current:
            if self._busy:
                self._say(self._doing)
            self.dismiss()

    def _show(self, words: Part) -> None:
        self._words = words
        self._message.again()

    def _completions(self, text: str) -> Sequence[str]:
        """The same name in each format."""
        suffixes = self._suffixes
        stem = next((text[: -len(suffix)] for suffix in reversed(suffixes) if text.endswith(suffix)), text)
        now = text[len(stem):]
        at = suffixes.index(now) + 1 if now else 0
        return [stem + suffixes[(at + step) % len(suffixes)] for step in range(len(suffixes))]

    def _hint_lines(self, width: int) -> list[Strip]:
        formats = ", ".join(suffix[1:] for suffix in self._suffixes)
        offered = (("Tab", formats),) if formats else ()
        hints = (("Enter", self._verb), *offered, ("Esc", "cancel"))
        return [justify([Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL, gap=3)
                         for cap, hint in hints], [], width)]
