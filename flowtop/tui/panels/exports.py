"""The exports panel: each export with its state, figures and last error; add, pause, stop."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.message import Message
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Label

from flowtop.errors import FlowtopError
from flowtop.export.exports import Export
from flowtop.export.statistics import ExportState
from flowtop.filters.completion import complete
from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.clock import Clock
from flowtop.tui.keys import EXPORT_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.source import ExportControl
from flowtop.tui.state.exports import COLUMNS, STATES, ExportColumn, Pace, details
from flowtop.tui.widgets.line_input import LineInput, TakesTyping
from flowtop.tui.widgets.lines import Lines

STATE_WIDTH = 12
LEAST_URL_WIDTH = 30
EMPTY = ("No exports yet.", "", "Record flows to a file (IPFIX, JSON lines, CSV or Parquet), or send them to a",
         "collector. An export gets every flow that is counted, whatever the list",
         "shows, or those that pass a filter of its own: ↓ there.")


class ExportList(Widget):
    """Header and exports.

    Args:
        pace: their rates.

    Attributes:
        exports: of the last `show`.
    """

    class Clicked(Message):
        """An export was clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace
        self._number = 1
        self.exports: tuple[Export, ...] = ()

    @property
    def chosen(self) -> Export | None:
        """The export at the cursor, None when there is none."""
        return next((export for export in self.exports if export.number == self._number), None)

    def show(self, exports: tuple[Export, ...]) -> None:
        """Show newer figures."""
        more = len(exports) != len(self.exports)
        self.exports = exports
        self.refresh(layout=more)

    def choose(self, number: int) -> None:
        """Put the cursor on an export, which may not be shown yet."""
        self._number = number
        self.refresh()

    def move(self, step: int) -> None:
        """Move the cursor."""
        self.choose(max(1, min(self._number + step, len(self.exports))))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """The header and a line an export."""
        del container, viewport, width
        return 1 + len(self.exports) if self.exports else len(EMPTY)

    def render_line(self, y: int) -> Strip:
        """One line."""
        width = self.size.width
        if not self.exports:
            text = EMPTY[y] if y < len(EMPTY) else ""
            return Strip([Segment(f" {text}", theme.PLAIN)]).adjust_cell_length(width, theme.PLAIN)
        columns = _fit(width)
        room = width - STATE_WIDTH - 6 - sum(column.width + 2 for column in columns)
        if y == 0:
            heads = "".join(f"  {column.header:>{column.width}}" for column in columns)
            head = f" {'#':>2} {'STATE':<{STATE_WIDTH}} {self._heading(room):<{max(0, room)}}{heads}"
            return _line([(head, theme.HEADING)], width)
        index = self._first() + y - 1
        if index >= len(self.exports):
            return Strip.blank(width)
        export = self.exports[index]
        return _line(self._cells(export, columns, room), width, cursor=export.number == self._number)

    def _heading(self, room: int) -> str:
        """Header of the URLs, with the number of exports above and below those in view."""
        above = self._first()
        below = max(0, len(self.exports) - above - (self.size.height - 1))
        hidden = f"{f'  ↑ {above} more' if above else ''}{f'  ↓ {below} more' if below else ''}"
        return f"TO{hidden}"[:max(0, room)]

    def _cells(self, export: Export, columns: Sequence[ExportColumn], room: int) -> list[tuple[str, Style]]:
        words = STATES[export.statistics.state]
        url = units.elide(units.printable(export.statistics.url, 1_000), max(0, room))
        return [
            (f" {export.number:>2} ", theme.PLAIN),
            (f"{words.glyph} {words.word:<{STATE_WIDTH - 2}} ", words.style),
            (f"{url:<{max(0, room)}}", theme.PLAIN),
            *((f"  {column.text(export, self._pace):>{column.width}}",
               theme.ALARM if column.alarm(export.statistics) else theme.PLAIN) for column in columns),
        ]

    def _first(self) -> int:
        """Index of the first export in view; the cursor's one is in view."""
        lines = max(1, self.size.height - 1)
        return max(0, min(self._number - lines, len(self.exports) - lines))

    def on_click(self, event: events.Click) -> None:
        """Cursor to the export."""
        index = self._first() + event.y - 1
        if event.y > 0 and index < len(self.exports):
            self.post_message(self.Clicked(self.exports[index].number))


def _fit(width: int) -> list[ExportColumn]:
    """The columns there is room for beside the URL."""
    columns = list(COLUMNS)
    while columns and width - STATE_WIDTH - 6 - sum(column.width + 2 for column in columns) < LEAST_URL_WIDTH:
        columns.remove(max(columns, key=lambda column: column.rank))
    return columns


def _line(cells: Sequence[tuple[str, Style]], width: int, *, cursor: bool = False) -> Strip:
    strip = Strip([Segment(text, theme.CURSOR if cursor else style) for text, style in cells])
    return strip.adjust_cell_length(width, theme.CURSOR if cursor else theme.PLAIN)


REFRESH_S = 0.5
SCHEMES = ("file:", "ipfix+tcp://", "ipfix+tls://", "ipfix+udp://", "ipfix://", "jsonl:", "csv:", "parquet:",
           "jsonl+tcp://", "jsonl+udp://")
"""URL schemes that Tab offers, in this order; a test compares them with the transports."""
HINTS = tuple((key.caps.split()[0], key.hint) for key in EXPORT_KEYS if key.hint)
TYPING_HINTS = (("Enter", "start"), ("Tab", "complete"), ("↑", "history"), ("↓", "filter"), ("Esc", "cancel"))
FILTER_HINTS = (("Enter", "start"), ("Tab", "complete"), ("↑", "back"), ("Esc", "cancel"))
DETAIL_LINES = 3
"""Lines of a long URL or error, at most."""


class ExportsScreen(ModalScreen[None], TakesTyping):
    """The panel. Opens with the line to type in when there is no export yet: Enter alone starts a recording.

    Args:
        exports: the exports of this run.
        pace: how fast they send; kept by the caller, so that rates are known when the panel opens.
        history: URLs that were typed before; added to.
        alarm: called with the error of an export that could not be added, if the panel is closed by then.
        clock: for times of day.
        filter_text: of the export that is to be added; "": none, and typing begins when there is no export yet.
    """

    AUTO_FOCUS = None
    CSS = """
    ExportsScreen { background: ansi_default; }
    ExportsScreen > Vertical { height: 100%; border: round ansi_default; background: ansi_default; }
    ExportsScreen ExportList { height: auto; max-height: 40%; }
    ExportsScreen #details { height: 1fr; margin: 1 0 0 0; }
    ExportsScreen Horizontal { height: 1; padding: 0 1; }
    ExportsScreen Label { width: auto; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings(EXPORT_KEYS)

    def __init__(self, exports: ExportControl, pace: Pace, history: list[str], alarm: Callable[[str], None],
                 clock: Clock, filter_text: str = "") -> None:
        super().__init__()
        self._exports = exports
        self._pace = pace
        self._history = history
        self._alarm = alarm
        self._clock = clock
        self._typing = bool(filter_text) or not exports.statistics()
        self._ahead = ""
        self._ready = False
        self._opening = ""
        self._doomed: int | None = None
        self._message_parts: tuple[Part, ...] = ()
        self._list = ExportList(pace)
        self._details = Lines(self._detail_lines, id="details")
        self._input = LineInput(self._completions, history)
        self._filter = LineInput(_filter_completions, ())
        self._filter.value = filter_text
        self._filter.placeholder = "every flow that is counted"
        self._input.below = lambda: self.set_focus(self._filter)
        self._filter.above = lambda: self.set_focus(self._input)
        self._message = Lines(self._message_lines)
        self._hints = Lines(self._hint_lines)

    def compose(self) -> ComposeResult:
        """List, details of the export at the cursor, the line to type in, a message, keys."""
        with Vertical() as box:
            box.border_title = "flowtop: exports"
            yield self._list
            yield self._details
            with Horizontal():
                yield Label("add ", markup=False)
                yield self._input
            with Horizontal():
                yield Label(" of ", markup=False)
                yield self._filter
            yield self._message
            yield self._hints

    def on_mount(self) -> None:
        """Start typing when there is no export yet."""
        self._again()
        self.set_interval(REFRESH_S, self._again)
        if self._typing:
            self.action_add()
            self._input.show_text(self._ahead)
        self._ready = True

    # ---- painting

    def _again(self) -> None:
        exports = self._exports.statistics()
        self._pace.note(exports)
        self._list.show(exports)
        if not self._input.value and not self._opening:
            self._input.placeholder = self._recording()
        self._details.again()
        self._message.again()

    def _recording(self) -> str:
        """URL of a new recording, named by the time of its start."""
        return time.strftime("file:flowtop-%Y%m%d-%H%M%S.ipfix", self._clock.local(self._clock.wall()))

    def _detail_lines(self, width: int) -> list[Strip]:
        export = self._list.chosen
        lines = [] if export is None else details(export, self._pace, self._clock)
        return [strip for line in lines for strip in _wrapped(line, width)]

    def _message_lines(self, width: int) -> list[Strip]:
        if self._doomed is not None:
            parts = _question(self._doomed, self._list.exports)
        elif self._opening:
            parts = (Part(f"opening {units.printable(self._opening, width)} …"),)
        elif self._message_parts:
            parts = self._message_parts
        else:
            parts = ()
        strips = [strip for part in parts for strip in _wrapped(part, width)][:DETAIL_LINES]
        return strips + [Strip.blank(width)] * (2 - len(strips))

    def _hint_lines(self, width: int) -> list[Strip]:
        hints = HINTS if not self._typing else FILTER_HINTS if self._filter.has_focus else TYPING_HINTS
        return [justify([Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL, gap=3)
                         for cap, hint in hints], [], width)]

    def on_descendant_focus(self) -> None:
        """Other keys now; also after a click."""
        self._typing = True
        self._hints.again()

    def on_descendant_blur(self) -> None:
        """Other keys now."""
        self._hints.again()

    def _say(self, *parts: Part) -> None:
        self._message_parts = parts
        self._message.again()

    # ---- adding

    def action_add(self) -> None:
        """Type a URL."""
        self._typing = True
        self._say()
        self.set_focus(self._input)

    def typed_ahead(self, event: events.Key) -> bool:
        """Letters that come while the line should have the focus were typed before it had; a question is answered."""
        if self._doomed is not None:
            self._answer(event.key, self._doomed)
            return True
        if not self._typing or not event.is_printable or not event.character:
            return False
        if self._ready:
            self._input.insert_text_at_cursor(event.character)
        else:
            self._ahead += event.character
        return True

    def action_enter(self) -> None:
        """Start a recording, if Enter comes before there is a line to type in; else type."""
        if self._typing:
            self._begin(self._input.value or self._ahead)
        else:
            self.action_add()

    def on_input_changed(self) -> None:
        """Remove the error of the text before."""
        if self._message_parts:
            self._say()

    def on_input_submitted(self) -> None:
        """Start the export that was typed, from either line."""
        self._begin(self._input.value)

    def _begin(self, typed: str) -> None:
        """Open it, in a thread: certificates, files and spools are read."""
        if not self._opening:
            self._opening = typed.strip() or self._recording()
            self._message.again()
            self.app.run_worker(self._add(self._opening))

    async def _add(self, url: str) -> None:
        text = self._filter.value.strip()
        try:
            number = await asyncio.to_thread(self._open, url, text)
        except FlowtopError as error:
            self._opening = ""
            self._refused(error)
            return
        self._opening = ""
        if url in self._history:
            self._history.remove(url)
        self._history.append(url)
        if self.is_attached:
            self._stop_typing()
            self._list.choose(number)
            self._again()

    def _open(self, url: str, text: str) -> int:
        """In a thread."""
        if not text:
            return self._exports.add(url)
        return self._exports.add(url, compile_filter(text, "records").record_mask, filter=text)

    def _stop_typing(self) -> None:
        self._typing = False
        self._input.clear()
        self._filter.clear()
        self.set_focus(None)

    def _refused(self, error: FlowtopError) -> None:
        words = f"filter: {error.problem}" if isinstance(error, FilterError) else error.message
        message = units.printable(words, 1_000)
        if self.is_attached:
            hint = units.printable(error.hint, 1_000)
            self._say(Part(message, theme.ALARM), *([Part(f"hint: {hint}")] if hint else []))
        else:
            self._alarm(f"export not started: {message}")

    def _completions(self, text: str) -> list[str]:
        """Completions: of the scheme; a recording when nothing is typed."""
        schemes = [scheme for scheme in SCHEMES if scheme.startswith(text.lower()) and scheme != text]
        return schemes if text else [self._recording(), *schemes]

    # ---- the export at the cursor

    def on_export_list_clicked(self, message: ExportList.Clicked) -> None:
        """Cursor to it."""
        self._typing = False
        self.set_focus(None)
        self._list.choose(message.number)
        self._again()

    def action_move(self, step: int) -> None:
        """Cursor to another export."""
        self._say()
        self._list.move(step)
        self._again()

    def action_pause(self) -> None:
        """Pause or resume."""
        export = self._chosen_alive()
        if export is not None:
            if export.statistics.state is ExportState.PAUSED:
                self._exports.resume(export.number)
            else:
                self._exports.pause(export.number)
            self._again()

    def action_stop(self) -> None:
        """Ask whether to stop it."""
        export = self._chosen_alive()
        if export is not None:
            self._doomed = export.number
            self._again()

    def _answer(self, key: str, doomed: int) -> None:
        """The next key after a question answers it."""
        self._doomed = None
        if key in ("x", "y", "delete"):
            self._exports.end(doomed)
        else:
            self._say(Part(f"export {doomed} continues", theme.LABEL))
        self._again()

    def _chosen_alive(self) -> Export | None:
        """The export at the cursor; None and a message when it has stopped, or there is none."""
        export = self._list.chosen
        if export is None:
            self._say(Part("no export yet: a adds one", theme.LABEL))
        elif export.statistics.state is ExportState.STOPPED:
            self._say(Part(f"export {export.number} has stopped: a adds another", theme.LABEL))
        else:
            self._say()
            return export
        return None

    def action_close(self) -> None:
        """Leave the line that is typed in; else close, once: keys typed ahead may come while the panel is removed."""
        if self._typing and self._list.exports:
            self._stop_typing()
            self._say()
        elif self.is_current:
            self.dismiss()


def _filter_completions(text: str) -> list[str]:
    found = complete(text, len(text))
    return [text[:found.start] + candidate for candidate in found.candidates]


def _question(number: int, exports: tuple[Export, ...]) -> tuple[Part, ...]:
    export = next(export for export in exports if export.number == number)
    left = export.statistics.queued_records + export.statistics.spooled_records
    waiting = f" {left:,} queued records are sent first, if that takes only seconds." if left else ""
    return (Part(f"Stop export {number}?{waiting} x or y stops it, any other key keeps it.", theme.HEADING),)


def _wrapped(part: Part, width: int) -> list[Strip]:
    """A part in as many lines as it needs, at most DETAIL_LINES, its label on the first."""
    room = max(1, width - 2 - len(part.label))
    texts = textwrap.wrap(part.text, room, break_on_hyphens=False) or [""]
    if len(texts) > DETAIL_LINES:
        texts = [*texts[:DETAIL_LINES - 1], units.elide(texts[DETAIL_LINES - 1] + theme.ELLIPSIS, room)]
    return [justify([Part(text, part.style, label=part.label if not index else " " * len(part.label))], [], width)
            for index, text in enumerate(texts)]
