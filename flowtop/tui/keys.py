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
        action: as textual writes it: of the main screen's controllers, or with `app.` before it the app's own, which
            works everywhere.
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
    Key(("pageup", "ctrl+b"), "PgUp Ctrl-B", "page_up", "One screen up", "Move"),
    Key(("pagedown", "ctrl+f"), "PgDn Ctrl-F", "page_down", "One screen down", "Move"),
    Key(("ctrl+u",), "Ctrl-U", "half_page(-1)", "Half a screen up", "Move"),
    Key(("ctrl+d",), "Ctrl-D", "half_page(1)", "Half a screen down", "Move"),
    Key(("home",), "Home", "first", "First flow of the list", "Move"),
    Key(("end", "G"), "End G", "last", "Last flow of the list", "Move"),
    Key(("escape",), "Esc", "step_out",
        "One step out: the filter, the open group, another grouping; then remove the cursor", "Move"),
    Key(("slash", "f3", "f4"), "/ F3 F4", "edit_filter",
        "Filter: the list changes as you type; Enter keeps the filter, Esc discards it",
        "Filter", "filter"),
    Key(("1",), "1", "view(1)", "Flows: every flow by itself", "Views"),
    Key(("2",), "2", "view(2)", "Hosts: the remote ends, with what comes from each and what goes there", "Views"),
    Key(("3",), "3", "view(3)", "Services: protocols and ports of servers", "Views"),
    Key(("4",), "4", "view(4)", "Processes; g then groups by user, unit, ...", "Views"),
    Key(("5",), "5", "view(5)", "Interfaces: traffic, errors, drops of device and queue", "Views"),
    Key(("i",), "i", "interfaces", "Interfaces: the view; with sFlow, what the agents count at theirs", "Views"),
    Key(("a",), "a", "trouble", "Trouble: what is probably wrong, the chip at the right of the views; again: the next",
        "Views"),
    *(Key((str(number),), str(number), f"view({number})", f"View {number} of the settings file ([views.NAME])", "Views")
      for number in range(6, 10)),
    Key(("left",), "←", "choose_cell(-1)", "Select the cell to the left in the cursor's flow", "Filter"),
    Key(("right",), "→", "choose_cell(1)", "Select the cell to the right in the cursor's flow", "Filter"),
    Key(("equals_sign",), "=", "filter_by_cell(False)",
        "Only flows with the value of the selected cell; again: wider (endpoint, host, network, any)", "Filter"),
    Key(("exclamation_mark",), "!", "filter_by_cell(True)", "Exclude flows with the value of the selected cell (!=)",
        "Filter"),
    Key(("f",), "f", "filter_conversation", "Only this conversation: both directions of the cursor's flow", "Filter"),
    Key(("backslash",), "\\", "clear_filter", "Clear filter", "Filter"),
    Key(("s", "f6"), "s F6", "sort_menu",
        "Sort: choose the column from a list, by its letter or with ↓ ↑", "Order", "sort"),
    Key(("greater_than_sign",), ">", "sort_next", "Sort by the next column to the right", "Order"),
    Key(("less_than_sign",), "<", "sort_previous", "Sort by the next column to the left", "Order"),
    Key(("S", "r"), "S r", "reverse", "Reverse the order", "Order", "reverse"),
    Key(("o",), "o", "hold_order", "Freeze the order of the list, or unfreeze it", "Order",
        "freeze order"),
    Key(("F",), "F", "follow", "Follow: the view scrolls with the cursor's flow", "Order", "follow"),
    Key(("g",), "g", "group", "Group flows: by host, service, subnet, ...; g or ↓ ↑ select, Enter applies", "Group",
        "group"),
    Key(("B",), "B", "biflow", "Merge both directions of a conversation in one row (biflow), or list each flow",
        "Group"),
    Key(("enter",), "Enter", "open", "Show details of the cursor's flow, or open its group", "Group"),
    Key(("backspace",), "Backspace", "back", "Leave the group, back to where you were", "Group"),
    Key(("space", "P"), "Space P", "pause", "Pause the display, or resume; metering continues", "Show", "pause"),
    Key(("E",), "E", "ended", "Hide ended flows, or list them for a while", "Show"),
    Key(("left_square_bracket",), "[", "step(-1)", "Back one tick: pause, and show the list as it was then", "Show"),
    Key(("right_square_bracket",), "]", "step(1)", "Forward one tick", "Show"),
    Key(("left_curly_bracket",), "{", "step(-10)", "Back ten ticks, up to five minutes", "Show"),
    Key(("right_curly_bracket",), "}", "step(10)", "Forward ten ticks", "Show"),
    Key(("left_parenthesis",), "(", "step_minutes(-1)", "Back one minute", "Show"),
    Key(("right_parenthesis",), ")", "step_minutes(1)", "Forward one minute", "Show"),
    Key(("m",), "m", "mark", "Mark: count BYTES and PKTS from now; again: a new mark", "Show"),
    Key(("M",), "M", "unmark", "Clear mark: count from the flows' first packets", "Show"),
    Key(("d",), "d", "compare",
        "Difference: compare with the mark, or two minutes ago: appeared, gone, grew, shrank; again: off", "Show"),
    Key(("t",), "t", "next_window", "Rates over the last tick, 10 seconds, 60 seconds; the order follows", "Show"),
    Key(("H",), "H", "chart", "Chart of in and out over five minutes: a row more, up to 8; then none", "Show"),
    Key(("A",), "A", "books", "Accuracy: the counters behind the sign ✓, or the sign alone", "Show"),
    Key(("b",), "b", "bits", "Rates in bits or bytes", "Show", "bits/bytes"),
    Key(("n",), "n", "hosts", "Host names (reverse DNS of the addresses in view), or addresses", "Show"),
    Key(("p",), "p", "services", "Service names (/etc/services), or port numbers", "Show"),
    Key(("C",), "C", "columns", "Columns: choose, move, resize; saved for the next run", "Show"),
    Key(("T",), "T", "next_theme", "Next theme: the terminal's colours, dark, light, high contrast", "Show"),
    Key(("e",), "e", "exports", "Exports: record to a file, send to a collector; pause, stop", "More", "exports"),
    Key(("x", "c"), "x c", "hand_off",
        "Hand off exactly this row: its filter, tcpdump expression, JSON; packets, an export, a bundle", "More",
        "hand off"),
    Key(("w",), "w", "write", "Write the list to a file: CSV or JSON, in the order on screen", "More"),
    Key(("W",), "W", "packets", "Write packets of matching flows to a pcapng file; again: stop", "More"),
    Key(("question_mark", "h", "f1"), "? h F1", "help", "This help", "More", "help"),
    Key(("colon", "ctrl+p"), ": Ctrl-P", "app.command_palette", "Search these commands by name", "More"),
    Key(("ctrl+z",), "Ctrl-Z", "app.suspend_process", "Suspend to the shell; fg returns. Hooks keep counting", "More"),
    Key(("q", "f10", "ctrl+c"), "q F10 Ctrl-C", "app.quit", "Quit: last drain, detach", "More", "quit"),
)

EXPORT_KEYS: tuple[Key, ...] = (
    Key(("a", "insert"), "a Ins", "add", "Type a URL; Enter on an empty line records to a new file", hint="add"),
    Key(("enter",), "Enter", "enter", "First export: record to a new file; later: same as a"),
    Key(("space", "p"), "Space p", "pause", "Pause the export, or resume; meanwhile its records wait", hint="pause"),
    Key(("x", "delete"), "x Del", "stop", "Stop it, after a second press; queued records are sent first", hint="stop"),
    Key(("up", "k"), "↑ k", "move(-1)", "Cursor up one export; while typing: history"),
    Key(("down", "j"), "↓ j", "move(1)", "Cursor down one export"),
    Key(("escape", "e", "q", "f10"), "Esc e q F10", "close", "Back to the flows; while typing: Esc back to the exports",
        hint="close"),
)
"""Keys of the exports panel, when nothing is being typed."""

GROUP_KEYS: tuple[Key, ...] = (
    Key(("g", "down", "j"), "g ↓ j", "move(1)", "Next field", hint="next"),
    Key(("up", "k"), "↑ k", "move(-1)", "Previous field"),
    Key(("pagedown",), "PgDn", "page(1)", "A screen of fields down"),
    Key(("pageup",), "PgUp", "page(-1)", "A screen of fields up"),
    Key(("home",), "Home", "jump(-1000)", "First field"),
    Key(("end",), "End", "jump(1000)", "Last field"),
    Key(("space",), "Space", "mark", "Mark this field: flows are grouped by all marked fields", hint="mark"),
    Key(("enter",), "Enter", "take", "Group by the marked fields, or by the cursor's", hint="apply"),
    Key(("backspace", "delete"), "Backspace", "erase", "Erase a digit of a prefix length"),
    Key(("escape", "q", "f10"), "Esc q F10", "close", "Close, change nothing", hint="close"),
)
"""Keys of the group chooser, besides the letter of each field, and digits and /, which are a prefix length."""

SORT_KEYS: tuple[Key, ...] = (
    Key(("down",), "↓", "move(1)", "Next column", hint="next"),
    Key(("up",), "↑", "move(-1)", "Previous column"),
    Key(("pagedown",), "PgDn", "page(1)", "A screen of columns down"),
    Key(("pageup",), "PgUp", "page(-1)", "A screen of columns up"),
    Key(("home",), "Home", "move(-1000)", "First column"),
    Key(("end",), "End", "move(1000)", "Last column"),
    Key(("enter",), "Enter", "take", "Sort by the cursor's column; by the sorted one: reverse", hint="sort"),
    Key(("escape", "f10"), "Esc F10", "close", "Close, change nothing", hint="close"),
)
"""Keys of the list of columns to sort by, besides the letter of each column."""

DETAIL_KEYS: tuple[Key, ...] = (
    Key(("up", "k"), "↑ k", "step(-1)", "The flow above in the list", hint="previous"),
    Key(("down", "j"), "↓ j", "step(1)", "The flow below in the list", hint="next"),
    Key(("pageup",), "PgUp", "scroll(-1)", "Scroll up"),
    Key(("pagedown",), "PgDn", "scroll(1)", "Scroll down"),
    Key(("x", "c"), "x c", "hand_off", "Hand off the flow", hint="hand off"),
    Key(("escape", "enter", "backspace", "q", "f10"), "Esc Enter Backspace q F10", "close", "Back to the list",
        hint="close"),
)
"""Keys of a flow's details."""

INTERFACE_KEYS: tuple[Key, ...] = (
    Key(("up", "k"), "↑ k", "scroll(-1)", "Scroll up"),
    Key(("down", "j"), "↓ j", "scroll(1)", "Scroll down"),
    Key(("pageup",), "PgUp", "page(-1)", "Scroll a screen up"),
    Key(("pagedown",), "PgDn", "page(1)", "Scroll a screen down"),
    Key(("escape", "i", "q", "f10"), "Esc i q F10", "close", "Back to the list", hint="close"),
)
"""Keys of the interfaces panel."""

FILTER_KEYS: tuple[tuple[str, str], ...] = (
    ("Tab", "Complete the word; again, or ↓ ↑: the next choice; Enter accepts it, Esc rejects it"),
    ("↑ ↓", "History of filters"),
    ("Ctrl-A Ctrl-E", "Start, end of the line"),
    ("Ctrl-W Ctrl-U Ctrl-K", "Delete the word before the cursor, all before it, all after it"),
    ("Enter", "Keep the filter"),
    ("Esc", "Restore the previous filter"),
)
"""Keys while a filter is typed."""
COLUMN_KEYS: tuple[Key, ...] = (
    Key(("space", "enter"), "Space Enter", "show", "Show the column if there is room, always, or never", hint="show"),
    Key(("J", "shift+down"), "J Shift-↓", "shift(1)", "Move the column to the right in the list", hint="right"),
    Key(("K", "shift+up"), "K Shift-↑", "shift(-1)", "Move the column to the left in the list", hint="left"),
    Key(("plus", "right"), "+ →", "widen(1)", "Wider", hint="wider"),
    Key(("minus", "left"), "- ←", "widen(-1)", "Narrower", hint="narrower"),
    Key(("R",), "R", "reset", "Reset all columns", hint="reset"),
    Key(("up", "k"), "↑ k", "move(-1)", "Cursor up one column"),
    Key(("down", "j"), "↓ j", "move(1)", "Cursor down one column"),
    Key(("pagedown",), "PgDn", "page(1)", "A screen of columns down"),
    Key(("pageup",), "PgUp", "page(-1)", "A screen of columns up"),
    Key(("home",), "Home", "move(-1000)", "First column"),
    Key(("end",), "End", "move(1000)", "Last column"),
    Key(("escape", "C", "q", "f10"), "Esc C q F10", "close", "Back to the flows", hint="close"),
)
"""Keys of the column chooser."""

HAND_OFF_KEYS: tuple[Key, ...] = (
    Key(("f", "enter"), "f Enter", "copy(0)", "Copy it as a flowtop filter"),
    Key(("t",), "t", "copy(1)", "Copy it as a tcpdump expression"),
    Key(("j",), "j", "copy(2)", "Copy it as JSON, with IANA element names"),
    Key(("p", "W"), "p W", "make('packets')", "Its packets from now on, to a pcapng file; W stops", hint="packets"),
    Key(("e",), "e", "make('export')", "Its flow records: IPFIX, JSON lines, CSV, Parquet; or to a collector",
        hint="export"),
    Key(("b",), "b", "make('bundle')", "A directory for a ticket: packets, flows, screen, --check", hint="bundle"),
    Key(("escape", "q", "x", "c", "f10"), "Esc q x c F10", "close", "Cancel"),
)
"""Keys of the hand-off; the last one closes it."""

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
    ("Tab", "While typing: complete the word; again: the next choice"),
)
"""Keys of a line of text, besides those of any line editor."""


def bindings(keys: Iterable[Key], *, first: bool = False) -> list[BindingType]:
    """Entries of a table as textual's bindings; `first`: they go before those of the focused widget."""
    return [Binding(name, key.action, key.doc, show=False, priority=first or name in AT_ONCE)
            for key in keys for name in key.names]


APP_KEYS = tuple(key for key in KEYS if key.action.startswith("app."))
"""Keys that work wherever no other screen is on top."""


AT_ONCE = ("ctrl+c", "ctrl+z", "slash")
"""Keys that act before the ones typed after them go anywhere: what follows `/` is text."""

MOUSE: tuple[tuple[str, str], ...] = (
    ("Click a view's name", "Show it"),
    ("Click what is wrong", "Show its flows"),
    ("Click a header", "Sort by its column; click again to reverse"),
    ("Click a flow", "Move the cursor to it, and select the cell"),
    ("Double click", "Show details of the flow, or open the group"),
    ("Right click", "Only flows with the value of the cell"),
    ("Wheel", "Scroll the list"),
)
"""What the mouse does: gesture and sentence."""
