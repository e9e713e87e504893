"""What is wrong with a filter's text, and where."""

from __future__ import annotations

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.text.units import printable

_SHOWN = 72
"""Cells of the text that a message shows around the place."""


class FilterError(FlowtopError):
    """A filter that says nothing flowtop understands.

    Args:
        text: the whole filter.
        position: where in it, counted from 0; `len(text)` when the end came too early.
        problem: what is wrong, in a few words.
        expected: what would do, in the user's words; may be empty.
        unfinished: more text at the end could mend it, so whoever types should not be told off yet.
    """

    def __init__(self, text: str, position: int, problem: str, expected: str = "", *, unfinished: bool = False) -> None:
        self.text = text
        self.position = position
        self.problem = problem
        self.expected = expected
        self.unfinished = unfinished
        shown, caret = _excerpt(text, position)
        super().__init__(f"{problem}\n  {shown}\n  {' ' * caret}^",
                         hint=f"expected {expected}" if expected else "", exit_code=EXIT_USAGE)


def _excerpt(text: str, position: int) -> tuple[str, int]:
    """The part of the text around `position`, of single cells, and the column of the place in it."""
    start = max(0, position - _SHOWN // 2) if len(text) > _SHOWN else 0
    part = text[start:start + _SHOWN]
    shown = "".join(printable(character) or "?" for character in part)
    lead = "…" if start else ""
    return f"{lead}{shown}{'…' if start + _SHOWN < len(text) else ''}", position - start + len(lead)
