"""Texts on their way through a shell."""

from __future__ import annotations

import shlex


def for_shell(text: str) -> str:
    """The text as words that a shell gives on as they are: in quotes if one of them, or an end of a line, means
    something to it."""
    return text if all(shlex.quote(word) == word for word in text.split(" ") if word) else shlex.quote(text)


def from_shell(text: str) -> str:
    """A text without the quotes of `for_shell`; any other text as it is."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is not closed
        return text
    return words[0] if len(words) == 1 and shlex.quote(words[0]) == text and for_shell(words[0]) == text else text
