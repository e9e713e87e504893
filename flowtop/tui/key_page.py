"""All keys of the main view in two columns, short enough for one page of an 80x24 terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.text import Text

from flowtop.tui import theme
from flowtop.tui.keys import KEYS, Key
from flowtop.view import units

WIDTH = 76
"""Cells of the page."""
_GAP = "  "
_COLUMN = (WIDTH - len(_GAP)) // 2

TOGETHER: dict[tuple[str, ...], str] = {
    ("move(-1)", "move(1)"): "Cursor up, down",
    ("page_up", "page_down"): "A screen up, down",
    ("first", "last"): "First, last flow",
    ("clear_cursor",): "No cursor",
    ("edit_filter",): "Filter as you type",
    ("choose_cell(-1)", "choose_cell(1)"): "Choose a cell of the flow",
    ("filter_by_cell(False)",): "Only flows like the cell",
    ("filter_by_cell(True)",): "All but flows like the cell",
    ("sort_next", "sort_previous"): "Sort by next, previous",
    ("hold_order",): "Freeze the order",
    ("follow",): "Follow the cursor's flow",
    ("step(-1)", "step(1)", "step(-10)", "step(10)"): "Past: 1, 10 back, on",
    ("mark", "unmark"): "Count from now, no more",
    ("window('tick')", "window('10s')", "window('60s')"): "Rate of tick, 10 s, 60 s",
    ("hosts",): "Names of hosts (DNS)",
    ("services",): "Names of ports",
    ("biflow",): "Both ways in one row",
    ("open",): "Details, or into the group",
    ("columns",): "Choose columns",
    ("copy",): "Copy the flow",
    ("write",): "Write the list",
    ("packets",): "Write packets, stop",
    ("next_theme",): "Next theme",
    ("app.command_palette",): "Search commands",
    ("app.suspend_process",): "To the shell (fg)",
    ("app.quit",): "Leave",
}
"""Actions whose keys share a line, or whose doc is long to say. A key that is not here is put by how its doc begins."""


def key_lines() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Sections in the order of the table: heading, and caps with what they do, in few words."""
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
    """Of one key all its caps; of several the first each: the others go on working, and the README has them."""
    return keys[0].caps if len(keys) == 1 else " ".join(key.caps.split()[0] for key in keys)


def key_page() -> Text:
    """The page: sections fill the left column to half of all lines, then the right one."""
    sections = list(key_lines())
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
