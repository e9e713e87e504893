"""The error for a text that is not a filter: what is wrong, and where."""

from __future__ import annotations

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.text.units import printable

_SHOWN = 72
"""Cells of the text that a message shows around the position."""


class FilterError(FlowtopError):
    """A text that is not a filter.

    Args:
        text: the whole filter.
        position: of the fault, counted from 0; `len(text)` when the text is incomplete.
        problem: what is wrong, in a few words.
        expected: what may stand there instead; the hint is then "expected" and this.
        hint: what to do, where `expected` does not say it.
        unknown: the word as it is written, where the problem is a word that the language does not have.
        unfinished: more text at the end could make it a filter: do not show it as an error while it is typed.
    """

    def __init__(self, text: str, position: int, problem: str, expected: str = "", *, hint: str = "",
                 unknown: str = "", unfinished: bool = False) -> None:
        self.text = text
        self.unknown = unknown
        self.position = position
        self.problem = problem
        self.unfinished = unfinished
        shown, caret = _excerpt(text, position)
        super().__init__(f"{problem}\n  {shown}\n  {' ' * caret}^",
                         hint=f"expected {expected}" if expected else hint, exit_code=EXIT_USAGE)


def _excerpt(text: str, position: int) -> tuple[str, int]:
    """The part of the text around `position`, in single cells, and the column of the position in it."""
    start = max(0, position - _SHOWN // 2) if len(text) > _SHOWN else 0
    part = text[start:start + _SHOWN]
    shown = "".join(printable(character) or "?" for character in part)
    lead = "…" if start else ""
    return f"{lead}{shown}{'…' if start + _SHOWN < len(text) else ''}", position - start + len(lead)
