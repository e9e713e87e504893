"""Keys and what they do, in one line; each can be clicked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from textual.strip import Strip

from flowtop.tui import theme
from flowtop.tui.keys import KEYS
from flowtop.tui.line import Part, fitting, justify

Hints = tuple[tuple[str, str], ...]
"""Keys and what they do."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the keys of the list would act on now.

    Attributes:
        row: what Enter opens: "group", "flow", or "" for nothing.
        inside: a group is open, or rows are others than the view's own: Backspace leads back.
        filtered: a filter is set.
        whole: the key that shows the view's whole list, "" for none.
        past: the list is of another time, or paused.
        compared: it is compared with another time.
        trouble: something is probably wrong.
    """

    row: str = ""
    inside: bool = False
    filtered: bool = False
    whole: str = ""
    past: bool = False
    compared: bool = False
    trouble: bool = False

    def hints(self) -> Iterator[tuple[str, str, int]]:
        """Keys in the order of the line, what they do, and a rank: the highest goes first when there is no room."""
        opens = {"group": "open", "flow": "details"}.get(self.row)
        if opens:
            yield "Enter", opens, 3
        if self.inside:
            yield "Backspace", "back", 2
        yield "/", "filter", 1
        if self.filtered:
            yield "Esc", "clear filter", 3
        if self.whole and (self.filtered or self.inside):
            yield self.whole, "whole list", 5
        yield "g", "group", 1
        yield "s", "sort", 2
        if self.trouble:
            yield "a", "trouble", 4
        yield "d", "end comparison" if self.compared else "what changed", 3 if self.compared else 7
        yield "Space", "now" if self.past else "pause", 2 if self.past else 5
        if opens:
            yield "x", "hand off", 8
        yield "e", "exports", 6
        yield "?", "help", 0
        yield "q", "quit", 0


NOTHING = Situation()
"""There are no rows."""


@lru_cache(maxsize=4)
def key_hints(width: int, hints: Hints = (), situation: Situation = NOTHING) -> Strip:
    """A line of hints, `width` cells wide.

    Args:
        width: cells.
        hints: from the one that stays longest to the one that goes first when there is no room for all; none: those
            of the list.
        situation: for the hints of the list.
    """
    return justify(_parts(hints, situation), [], width)


def hint_at(x: int, width: int, hints: Hints, situation: Situation) -> str:
    """The action of the key whose hint is at a cell of that line, as in the table of keys; "" for none."""
    left, _, _ = fitting(_parts(hints, situation), [], width)
    at = 1
    for number, part in enumerate(left):
        at += part.gap if number else 0
        if at <= x < at + part.width:
            cap = part.label.strip()
            return next((key.action for key in KEYS if cap in key.caps.split()), "") if not hints else ""
        at += part.width
    return ""


def _parts(hints: Hints, situation: Situation) -> list[Part]:
    ranked = [(cap, hint, rank) for rank, (cap, hint) in enumerate(hints)] if hints else list(situation.hints())
    return [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL, gap=3, rank=rank)
            for cap, hint, rank in ranked]
