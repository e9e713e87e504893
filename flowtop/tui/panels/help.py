"""The help screen: all keys on one page at 80x24; the words on screen; the words of filters. All of it is made from
the tables that define them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS
from flowtop.filters.words import WORDS
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.keys import (
    COLUMN_KEYS,
    DETAIL_KEYS,
    EXPORT_KEYS,
    FILTER_KEYS,
    GROUP_KEYS,
    HAND_OFF_KEYS,
    HELP_KEYS,
    KEYS,
    MANUAL_KEYS,
    MOUSE,
    SORT_KEYS,
    TYPING_KEYS,
    Key,
    bindings,
)
from flowtop.tui.panels.frame import wrapped
from flowtop.tui.panels.manual import ManualScreen

WIDTH = 76
"""Cells of the page."""
_BORDER = 4
"""Cells of border and margin."""
_SUBTITLE = "Tab next page · ↑ ↓ PgUp PgDn scroll · m manual · Esc closes"
_SHORT_SUBTITLE = "Tab page · Esc closes"
_GAP = "  "
_COLUMN = (WIDTH - len(_GAP)) // 2

TOGETHER: dict[tuple[str, ...], str] = {
    ("move(-1)", "move(1)"): "Cursor up, down",
    ("page_up", "page_down"): "One screen up, down",
    ("half_page(-1)", "half_page(1)"): "Half a screen up, down",
    ("first", "last"): "First, last flow",
    ("step_out",): "One step out",
    ("edit_filter",): "Filter as you type",
    ("choose_cell(-1)", "choose_cell(1)"): "Select a cell",
    ("filter_by_cell(False)", "filter_by_cell(True)"): "Only, or without, its value",
    ("sort_menu", "sort_next", "sort_previous"): "Sort: list, next, previous",
    ("filter_conversation", "clear_filter"): "Only this talk; clear filter",
    ("hold_order", "follow"): "Freeze the order; follow flow",
    ("step(-1)", "step(1)", "step(-10)", "step(10)", "step_minutes(-1)", "step_minutes(1)"): "Past: 1, 10 ticks, 1 min",
    ("mark", "unmark"): "Count from now; clear",
    ("view(1)", "view(2)", "view(3)", "view(4)", "view(5)", "interfaces"): "As named along the top",
    ("view(6)", "view(7)", "view(8)", "view(9)"): "Views of your own",
    ("next_window",): "Rates: tick, 10, 60 s",
    ("chart", "books"): "Chart; counters",
    ("hosts", "services"): "Names of hosts, services",
    ("group", "biflow"): "Group; both ways",
    ("open", "back"): "Open; back",
    ("pause", "ended"): "Pause; hide ended flows",
    ("trouble",): "What is wrong: its flows",
    ("compare",): "What changed since then",
    ("columns",): "Choose columns",
    ("hand_off",): "Hand off this row",
    ("write", "packets"): "Write the list; packets",
    ("next_theme",): "Next theme",
    ("app.command_palette",): "Search commands",
    ("app.suspend_process",): "Suspend (fg returns)",
    ("app.quit",): "Quit",
}
"""Actions whose keys share a line, or whose doc is long. Other keys are described by how their doc begins."""


def key_lines() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Sections in the order of the table: heading, and keys with what they do, in few words."""
    by_section: dict[str, list[Key]] = {}
    for key in KEYS:
        by_section.setdefault(key.section, []).append(key)
    for section, keys in by_section.items():
        yield section, [
            (_caps(list(group)), words) for words, group in groupby(keys, key=_words)
        ]


def _words(key: Key) -> str:
    together = next((words for actions, words in TOGETHER.items() if key.action in actions), "")
    return together or re.split(r"[;:,(]", key.doc)[0].strip()


def _caps(keys: Sequence[Key]) -> str:
    """Of one key all its caps; of several the first each: the others work too, and are in the manual."""
    return keys[0].caps if len(keys) == 1 else " ".join(key.caps.split()[0] for key in keys)


def key_page(width: int = WIDTH) -> Text:
    """The page: in two columns where there is room (sections fill the left one to half of all lines), else in one."""
    sections = list(key_lines())
    if width < WIDTH:
        return laid_out(sections, width)
    total = sum(1 + len(entries) for _, entries in sections)
    columns: tuple[list[Text], list[Text]] = [], []
    for section, entries in sections:
        side = columns[1] if columns[1] or 2 * (len(columns[0]) + len(entries)) > total + len(entries) else columns[0]
        side.append(Text(section.ljust(_COLUMN), theme.HEADING))
        widest = max(len(caps) for caps, _ in entries)
        side += [_line(caps, words, widest) for caps, words in entries]
    page = Text(no_wrap=True)
    for row in range(max(map(len, columns))):
        for at, side in enumerate(columns):
            page.append(_GAP * at)
            page.append_text(side[row] if row < len(side) else Text(" " * _COLUMN))
        page.append("\n")
    page.right_crop(1)
    return page


def _line(caps: str, words: str, widest: int) -> Text:
    room = _COLUMN - widest - 2
    return Text.assemble((f" {caps.ljust(widest)} ", theme.SORTED), units.elide(words, room).ljust(room))


ACCURACY: tuple[tuple[str, str], ...] = (
    ("✓", "every packet seen is in a flow or in a counter; A shows the counters"),
    ("exact", "share of the observed packets that are in a flow or in a counter on this line"),
    ("coverage", "observed packets, compared with the interfaces' own counters"),
    ("ignored", "not IP (ARP, LLC, other) or malformed: counted, in no flow"),
    ("lost", "observed, but in no flow: the kernel had no memory left; normally 0"),
    ("dup", "the same packet at a second interface or direction; counted once in the totals"),
    ("aggregated", "in the rows \"(all other flows)\": the kernel's table was full"),
    ("fragments", "later fragments whose first one was not seen; rows with \"frag\""),
    ("length lies", "packets whose header claims more octets than the frame has; the frame counts"),
    ("evicted", "flows ended early because the flow table was full"),
    ("export", "● exporting, ○ waiting, ◐ blocked, ◌ connecting, ‖ paused, ■ stopped: one each"),
    ("sent", "Flow Records sent to collectors and files, all exports together"),
    ("queued, spooled", "Flow Records waiting to be sent, in memory and on disk"),
    ("not sent", "Flow Records that were discarded; normally 0"),
    ("written", "packets in the file of W or -w; capped: beyond the limit of their flow"),
    ("dropped", "packets missing in that file: the kernel had no room for them"),
)
"""Words of the accuracy line and what they mean."""


PAGES = ("keys", "words", "filters")


class HelpScreen(ModalScreen[None]):
    """Three pages: Tab shows the next one, the usual keys scroll, the keys of help, Esc and quit close it."""

    AUTO_FOCUS = "VerticalScroll"

    CSS = """
    HelpScreen { align: center middle; background: ansi_default; }
    HelpScreen > VerticalScroll {
        width: 80; max-width: 100%; height: auto; max-height: 100%; padding: 0 1; border: round ansi_default;
        background: ansi_default; scrollbar-size-vertical: 1;
        scrollbar-color: ansi_default; scrollbar-background: ansi_default;
    }
    HelpScreen Static { height: auto; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings(HELP_KEYS, first=True)

    def __init__(self) -> None:
        super().__init__()
        self._page = 0
        self._laid_out: tuple[int, int] | None = None

    def compose(self) -> ComposeResult:
        """One scrolling text."""
        with VerticalScroll():
            yield Static()

    def on_mount(self) -> None:
        """The keys first."""
        self._show()

    def on_resize(self) -> None:
        """Lay the page out for the width there is now."""
        self._show()

    def action_turn(self, pages: int) -> None:
        """To another page."""
        self._page = (self._page + pages) % len(PAGES)
        self._show()
        self.action_top()

    def _show(self) -> None:
        make: tuple[Callable[[int], Text], ...] = (
            key_page, lambda width: laid_out(help_sections(), width - 1), lambda width: filter_page(width - 1))
        width = min(WIDTH, self.app.size.width - _BORDER)
        for scroll in self.query(VerticalScroll):
            scroll.border_title = ("flowtop help: " if width == WIDTH else "") + "  ".join(
                f"[b]{page.upper()}[/b]" if at == self._page else page for at, page in enumerate(PAGES))
            scroll.border_subtitle = _SUBTITLE if len(_SUBTITLE) < width else _SHORT_SUBTITLE
        if self._laid_out == (self._page, width):  # the first size is no other one
            return
        self._laid_out = self._page, width
        for text in self.query(Static):
            text.update(make[self._page](width))

    def action_scroll(self, lines: int) -> None:
        """Scroll by lines. Keys typed ahead may come before there is anything to scroll."""
        for scroll in self.query(VerticalScroll):
            scroll.scroll_relative(y=lines, animate=False)

    def action_page(self, screens: int) -> None:
        """Scroll by screens."""
        for scroll in self.query(VerticalScroll):
            scroll.scroll_relative(y=screens * scroll.scrollable_content_region.height, animate=False)

    def action_top(self) -> None:
        """Scroll to the first line."""
        for scroll in self.query(VerticalScroll):
            scroll.scroll_home(animate=False)

    def action_bottom(self) -> None:
        """Scroll to the last line."""
        for scroll in self.query(VerticalScroll):
            scroll.scroll_end(animate=False)

    def action_manual(self) -> None:
        """On to the manual."""
        if self.is_current:
            self.app.push_screen(ManualScreen())

    def action_close(self) -> None:
        """Close, once: keys typed ahead may come while the screen is being removed."""
        if self.is_current:
            self.dismiss()


def help_sections() -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """The page of words: headings, each with terms and their meanings."""
    yield "Columns", [(column.header, column.doc) for column in COLUMNS.values()]
    yield "Columns of biflows only", [(column.header, column.doc) for id_, column in BIFLOW_COLUMNS.items()
                                      if id_ not in COLUMNS]
    yield "Accuracy line", ACCURACY
    yield "Mouse", MOUSE
    yield "Exports panel", [*((key.caps, key.doc) for key in EXPORT_KEYS), *TYPING_KEYS]
    yield "Handing off a row", [(key.caps, key.doc) for key in HAND_OFF_KEYS]
    yield "Details of a flow", [(key.caps, key.doc) for key in DETAIL_KEYS]
    yield "Help and the manual", [(key.caps, key.doc) for key in (*HELP_KEYS, *MANUAL_KEYS)]
    yield "Sorting", [("a letter", "Sort by the column that it stands before"),
                      *((key.caps, key.doc) for key in SORT_KEYS)]
    yield "Group chooser", [(key.caps, key.doc) for key in GROUP_KEYS]
    yield "Column chooser", [(key.caps, key.doc) for key in COLUMN_KEYS]


def filter_page(width: int = WIDTH) -> Text:
    """Every word of the filter language, with an example."""
    return laid_out([("Typing a filter", FILTER_KEYS), ("Filter words, with examples",
                     [(word.words, f"{word.doc}  {word.example}") for word in WORDS])], width)


_TERM = 15
"""Cells of a term and the gap behind it."""


def laid_out(sections: Iterable[tuple[str, Sequence[tuple[str, str]]]], width: int) -> Text:
    """Headings, and terms with their meanings beside them: below where a term is long, or the width small. No text is
    cut."""
    page = Text(no_wrap=True)
    for number, (title, entries) in enumerate(sections):
        page.append("\n" * bool(number) + title, theme.HEADING)
        page.append("\n")
        for term, meaning in entries:
            beside = len(term) < _TERM and width >= 3 * _TERM
            indent = _TERM + 2 if beside else 4
            lines = wrapped(meaning, width - indent)
            if beside:
                page.append(f"  {term.ljust(_TERM)}", theme.SORTED)
                page.append(lines.pop(0) + "\n")
            else:
                for line in wrapped(term, width - 2):
                    page.append(f"  {line}\n", theme.SORTED)
            page.append("".join(f"{' ' * indent}{line}\n" for line in lines))
    page.right_crop(1)
    return page
