"""Every key of the screen, once: the bindings, the help screen, the hint line and the manual read this table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True, slots=True)
class Key:
    """What one or more keys do.

    Attributes:
        names: textual's names of the keys.
        caps: the keys as people know them, separated by spaces.
        action: as textual writes it; of the main view, with `app.` before it the app's own, which works everywhere.
        doc: what it does, a sentence without its full stop.
        section: heading in the help screen.
        hint: words for the hint line, "" when the key is not on it.
    """

    names: tuple[str, ...]
    caps: str
    action: str
    doc: str
    section: str = ""
    hint: str = ""


KEYS: tuple[Key, ...] = (
    Key(("up", "k"), "↑ k", "move(-1)", "Cursor up one flow; the first press places it", "Move"),
    Key(("down", "j"), "↓ j", "move(1)", "Cursor down one flow; the first press places it", "Move"),
    Key(("pageup",), "PgUp", "page_up", "One screen up", "Move"),
    Key(("pagedown",), "PgDn", "page_down", "One screen down", "Move"),
    Key(("home",), "Home", "first", "First flow of the list", "Move"),
    Key(("end",), "End", "last", "Last flow of the list", "Move"),
    Key(("escape",), "Esc", "clear_cursor", "Take the cursor off the list", "Move"),
    Key(("slash",), "/", "edit_filter", "Filter: the list follows as you type; Enter keeps it, Esc does not", "Filter",
        "filter"),
    Key(("left",), "←", "choose_cell(-1)", "Choose the cell to the left in the cursor's flow", "Filter"),
    Key(("right",), "→", "choose_cell(1)", "Choose the cell to the right in the cursor's flow", "Filter"),
    Key(("equals_sign",), "=", "filter_by_cell(False)", "Only flows that are like the chosen cell", "Filter"),
    Key(("exclamation_mark",), "!", "filter_by_cell(True)", "Not those (!=): all but flows like the chosen cell",
        "Filter"),
    Key(("backslash",), "\\", "clear_filter", "All flows again", "Filter"),
    Key(("s", "greater_than_sign"), "s >", "sort_next", "Sort by the next column to the right", "Order", "sort"),
    Key(("S", "less_than_sign"), "S <", "sort_previous", "Sort by the next column to the left", "Order"),
    Key(("r",), "r", "reverse", "Reverse the order", "Order", "reverse"),
    Key(("o",), "o", "hold_order", "Freeze the order of the list, or let it go", "Order",
        "freeze order"),
    Key(("F",), "F", "follow", "Follow: the view scrolls with the cursor's flow", "Order", "follow"),
    Key(("g",), "g", "group", "Group flows: by host, service, subnet, ...; g again, ↓ ↑ choose, Enter takes", "Group",
        "group"),
    Key(("B",), "B", "biflow", "Biflows: both ways of a conversation in one row, the initiator first; or each flow",
        "Group"),
    Key(("enter",), "Enter", "open", "Details of the cursor's flow, or the flows of its group", "Group"),
    Key(("backspace",), "Backspace", "back", "Out of the group, to where you were", "Group"),
    Key(("space", "P"), "Space P", "pause", "Pause the picture, or resume; metering goes on", "Show", "pause"),
    Key(("E",), "E", "ended", "Ended flows: hide them, or list them for a while", "Show"),
    Key(("left_square_bracket",), "[", "step(-1)", "Back: pauses, shows the list as it was a tick before", "Show"),
    Key(("right_square_bracket",), "]", "step(1)", "A tick on again", "Show"),
    Key(("left_curly_bracket",), "{", "step(-10)", "Ten ticks back, as far as five minutes", "Show"),
    Key(("right_curly_bracket",), "}", "step(10)", "Ten ticks on again", "Show"),
    Key(("m",), "m", "mark", "Mark: BYTES and PKTS count from now on; again: a new mark", "Show"),
    Key(("M",), "M", "unmark", "No mark: they count from the flows' first packets", "Show"),
    Key(("1",), "1", "window('tick')", "Rate over the last tick; sorts by it when a rate is sorted", "Show"),
    Key(("2",), "2", "window('10s')", "Rate over the last 10 seconds, likewise", "Show"),
    Key(("3",), "3", "window('60s')", "Rate over the last 60 seconds, likewise", "Show"),
    Key(("b",), "b", "bits", "Rates in bits or bytes", "Show", "bits/bytes"),
    Key(("n",), "n", "hosts", "Names of hosts (reverse DNS of what is in view) or addresses", "Show"),
    Key(("p",), "p", "services", "Names of ports (/etc/services) or their numbers", "Show"),
    Key(("C",), "C", "columns", "Columns: which, in which order, how wide; kept for the next run", "Show"),
    Key(("T",), "T", "next_theme", "Next theme: the terminal's colours, dark, light, high contrast", "Show"),
    Key(("e",), "e", "exports", "Exports: record to a file, feed a collector; pause, stop", "More", "exports"),
    Key(("c",), "c", "copy", "Copy the cursor's flow: as filter, tcpdump expression or JSON (OSC 52)", "More"),
    Key(("w",), "w", "write", "Write the list to a file: CSV or JSON, in the order on view", "More"),
    Key(("W",), "W", "packets", "Packets of the flows that match to a pcapng file; again: stop", "More"),
    Key(("question_mark", "h", "f1"), "? h F1", "help", "This help", "More", "help"),
    Key(("colon", "ctrl+p"), ": Ctrl-P", "app.command_palette", "Search these commands by name", "More"),
    Key(("ctrl+z",), "Ctrl-Z", "app.suspend_process", "To the shell; fg comes back. Hooks go on counting", "More"),
    Key(("q", "f10", "ctrl+c"), "q F10 Ctrl-C", "app.quit", "Last drain, detach, leave", "More", "quit"),
)

EXPORT_KEYS: tuple[Key, ...] = (
    Key(("a", "insert"), "a Ins", "add", "Type where to; Enter without a word records to a new file", hint="add"),
    Key(("enter",), "Enter", "enter", "The first export: record to a new file; later: as a"),
    Key(("space", "p"), "Space p", "pause", "Pause the export, or resume; meanwhile its records wait", hint="pause"),
    Key(("x", "delete"), "x Del", "stop", "Stop it, after a second press; what waits is sent first", hint="stop"),
    Key(("up", "k"), "↑ k", "move(-1)", "Cursor up one export; while typing: what was typed before"),
    Key(("down", "j"), "↓ j", "move(1)", "Cursor down one export"),
    Key(("escape", "e", "q", "f10"), "Esc e q F10", "close", "Back to the flows; while typing: Esc back to the list",
        hint="close"),
)
"""Keys of the exports panel, when nothing is being typed."""

GROUP_KEYS: tuple[Key, ...] = (
    Key(("g", "down", "j"), "g ↓ j", "move(1)", "Next field", hint="next"),
    Key(("up", "k"), "↑ k", "move(-1)", "Previous field"),
    Key(("space",), "Space", "mark", "Group by this field and others: marked ones go together", hint="several"),
    Key(("enter",), "Enter", "take", "Group by the marked fields, or by the cursor's", hint="take"),
    Key(("backspace", "delete"), "Backspace", "erase", "Erase a digit of a prefix length"),
    Key(("escape", "q", "f10"), "Esc q F10", "close", "Leave it as it was", hint="close"),
)
"""Keys of the group chooser, beside digits and /, which are a prefix length."""

DETAIL_KEYS: tuple[Key, ...] = (
    Key(("up", "k"), "↑ k", "step(-1)", "The flow above in the list", hint="previous"),
    Key(("down", "j"), "↓ j", "step(1)", "The flow below in the list", hint="next"),
    Key(("pageup",), "PgUp", "scroll(-1)", "Scroll up, where there is not room for all"),
    Key(("pagedown",), "PgDn", "scroll(1)", "Scroll down"),
    Key(("c",), "c", "copy", "Copy the flow", hint="copy"),
    Key(("escape", "enter", "backspace", "q", "f10"), "Esc Enter Backspace q F10", "close", "Back to the list",
        hint="close"),
)
"""Keys of a flow's details."""

FILTER_KEYS: tuple[tuple[str, str], ...] = (
    ("Tab", "Complete the word; again, or ↓ ↑: the next choice, which Enter takes and Esc leaves"),
    ("↑ ↓", "Filters typed before"),
    ("Ctrl-A Ctrl-E", "To the start, to the end"),
    ("Ctrl-W Ctrl-U Ctrl-K", "Delete the word before, all before, all after"),
    ("Enter", "Keep the filter"),
    ("Esc", "Back to the filter there was"),
)
"""Keys while a filter is typed."""
COLUMN_KEYS: tuple[Key, ...] = (
    Key(("space", "enter"), "Space Enter", "show", "Show the column if there is room, always, or never", hint="show"),
    Key(("J", "shift+down"), "J Shift-↓", "shift(1)", "Move the column to the right in the list", hint="right"),
    Key(("K", "shift+up"), "K Shift-↑", "shift(-1)", "Move the column to the left in the list", hint="left"),
    Key(("plus", "right"), "+ →", "widen(1)", "Wider", hint="wider"),
    Key(("minus", "left"), "- ←", "widen(-1)", "Narrower", hint="narrower"),
    Key(("R",), "R", "reset", "All columns as they were at first", hint="reset"),
    Key(("up", "k"), "↑ k", "move(-1)", "Cursor up one column"),
    Key(("down", "j"), "↓ j", "move(1)", "Cursor down one column"),
    Key(("escape", "C", "q", "f10"), "Esc C q F10", "close", "Back to the flows", hint="close"),
)
"""Keys of the column chooser."""

COPY_KEYS: tuple[Key, ...] = (
    Key(("f", "enter"), "f Enter", "copy(0)", "As a filter of flowtop's"),
    Key(("t",), "t", "copy(1)", "As a tcpdump expression"),
    Key(("j",), "j", "copy(2)", "As JSON, with IANA element names"),
    Key(("escape", "q", "c"), "Esc q c", "close", "Copy nothing"),
)
"""Keys once a flow is to be copied."""

HELP_KEYS: tuple[Key, ...] = (
    Key(("tab", "right"), "Tab →", "turn(1)", "Next page of help"),
    Key(("shift+tab", "left"), "Shift-Tab ←", "turn(-1)", "Previous page of help"),
    Key(("down", "j"), "↓ j", "scroll(1)", "Scroll down"),
    Key(("up", "k"), "↑ k", "scroll(-1)", "Scroll up"),
    Key(("pagedown",), "PgDn", "page(1)", "Scroll a screen down"),
    Key(("pageup",), "PgUp", "page(-1)", "Scroll a screen up"),
    Key(("home",), "Home", "top", "Scroll to the first line"),
    Key(("end",), "End", "bottom", "Scroll to the last line"),
    Key(("m", "enter"), "m Enter", "manual", "The manual: a list of its pages"),
    Key(("escape", "q", "question_mark", "h", "f1", "f10"), "Esc q ? h F1 F10", "close", "Close help"),
)
"""Keys of the help screen."""

MANUAL_KEYS: tuple[Key, ...] = (
    Key(("down", "j"), "↓ j", "move(1)", "Next page of the list; in a page: scroll down"),
    Key(("up", "k"), "↑ k", "move(-1)", "Previous page of the list; in a page: scroll up"),
    Key(("pagedown",), "PgDn", "page(1)", "Ten pages on in the list; in a page: a screen down"),
    Key(("pageup",), "PgUp", "page(-1)", "Ten pages back in the list; in a page: a screen up"),
    Key(("home",), "Home", "top", "First page of the list; in a page: first line"),
    Key(("end",), "End", "bottom", "Last page of the list; in a page: last line"),
    Key(("enter", "right"), "Enter →", "open", "Show the page"),
    Key(("escape", "q", "left", "backspace"), "Esc q ← Backspace", "close",
        "Back: from a page to the list, then to help"),
)
"""Keys of the manual."""

TYPING_KEYS: tuple[tuple[str, str], ...] = (
    ("Tab", "While typing: complete it; again: the next choice"),
)
"""Keys of a line of text, beside those of any line editor."""


def bindings(keys: Iterable[Key], *, first: bool = False) -> list[BindingType]:
    """Entries of a table as textual's bindings; `first`: they go before those of the focused widget."""
    return [Binding(name, key.action, key.doc, show=False, priority=first or name in AT_ONCE)
            for key in keys for name in key.names]


APP_KEYS = tuple(key for key in KEYS if key.action.startswith("app."))
"""Those that work wherever no other screen is on top."""


AT_ONCE = ("ctrl+c", "ctrl+z", "slash")
"""Keys that act before the ones typed after them go anywhere: what follows `/` is text."""

MOUSE: tuple[tuple[str, str], ...] = (
    ("Click a header", "Sort by its column; click again to reverse"),
    ("Click a flow", "Cursor to it, and to the cell"),
    ("Right click", "Only flows that are like the cell"),
    ("Wheel", "Scroll the list"),
)
"""What the mouse does: gesture and sentence."""
