"""A filter being typed: what its text means so far, and what is wrong with it.

Pure state, no widget.
"""

from __future__ import annotations

from dataclasses import replace

from rich.style import Style

from flowtop.filters.errors import FilterError
from flowtop.filters.filter import Filter
from flowtop.filters.loose import compile_loosely
from flowtop.tui import theme
from flowtop.tui.line import Part

MOST_REMEMBERED = 200
"""Filters of the history, at most."""


class FilterEntry:
    """The text typed after `/`.

    Args:
        before: the filter when typing began.

    Attributes:
        before: as given.
        filter: of the last text without an error; None: all flows.
        error: of the current text; None when it has none.
        meaning: the current text in the words of the language, where it is another one; else "".
    """

    def __init__(self, before: Filter | None) -> None:
        self.before = before
        self.filter = before
        self.error: FilterError | None = None
        self.meaning = ""

    def type(self, text: str, *, finished: bool = False, settled: bool = False) -> None:
        """Take the current text. An unfinished or wrong one leaves the filter as it was.

        Args:
            finished: no more is typed.
            settled: a word alone that is near one of the language is a text to look for, and no slip.
        """
        self.error, self.meaning = None, ""
        try:
            self.filter = compile_loosely(
                text.rstrip(), finished=finished, settled=settled) if text.strip() else None
        except FilterError as error:
            self.error = error
        else:
            if self.filter is not None and self.filter.text != text.rstrip():
                self.meaning = self.filter.text

    def could_be_text(self, text: str) -> bool:
        """The error is about a word alone, which can be looked for as a text."""
        if self.error is None:
            return False
        try:
            compile_loosely(text.rstrip())
        except FilterError:
            return False
        return True


def remember(history: list[str], text: str) -> None:
    """Put a text at the end of a history, once; the oldest texts are dropped."""
    if not text.strip():
        return
    if text in history:
        history.remove(text)
    history.append(text)
    del history[:-MOST_REMEMBERED]


def error_lines(error: FilterError, place: int, width: int, *, gently: bool) -> list[list[Part]]:
    """What is wrong, below the text: `^` under the place, and the words beside it or, where they are long, below.

    Args:
        error: of the text.
        place: cell of the line under which the fault is.
        width: cells of the line.
        gently: the text is not finished: say what may follow, not what is wrong.
    """
    style = theme.LABEL if gently else theme.ALARM
    place = max(0, min(place, width - 1))
    if gently and error.hint:
        return [_beside(error.hint, place, width, theme.LABEL)]
    together = "; ".join(filter(None, (error.problem, error.hint)))
    if not error.hint or _fits(together, place, width):
        return [_beside(together, place, width, style)]
    return [_beside(error.problem, place, width, style),
            [Part(" " + _cut(error.hint, width - 2), theme.LABEL, gap=0)]]


def _fits(words: str, place: int, width: int) -> bool:
    return len(words) <= max(width - place - 3, place - 2)


def _cut(words: str, width: int) -> str:
    return words if len(words) <= width else words[:max(width - 1, 0)] + "…"[:max(width, 0)]


def _beside(words: str, place: int, width: int, style: Style) -> list[Part]:
    """The caret and words at its right, or at its left when there is more room."""
    right, left = width - place - 3, place - 2
    caret = Part("^", theme.PLAIN if style is theme.LABEL else theme.ALARM, gap=0)
    if len(words) <= right or right >= left:
        return [Part(" " * place, gap=0), caret, Part(_cut(words, right), style, gap=1)]
    words = _cut(words, left)
    return [Part(" " * (place - len(words) - 1), gap=0), Part(words, style, gap=0), replace(caret, gap=1)]
