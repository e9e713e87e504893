"""Keys and what they do, in one line."""

from __future__ import annotations

from textual.strip import Strip

from flowtop.tui import theme
from flowtop.tui.keys import KEYS
from flowtop.tui.line import Part, justify

Hints = tuple[tuple[str, str], ...]
"""Keys and what they do."""

_STAY = {"quit": 0, "help": 0, "sort": 1, "pause": 1, "exports": 2}
"""Hints of the main screen that go last when there is no room for all: the lowest number stays longest."""


def key_hints(width: int, hints: Hints = ()) -> Strip:
    """A line of hints, `width` cells wide.

    Args:
        width: cells.
        hints: from the one that stays longest to the one that goes first when there is no room for all; none: those
            of the main screen.
    """
    if hints:
        ranked = [(cap, hint, rank) for rank, (cap, hint) in enumerate(hints)]
    else:
        keys = [key for key in KEYS if key.hint]
        ranked = [(key.caps.split()[0], key.hint, _STAY.get(key.hint, place + 2)) for place, key in enumerate(keys)]
    return justify([Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL, gap=3, rank=rank)
                    for cap, hint, rank in ranked], [], width)
