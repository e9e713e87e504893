"""What somebody may have meant by a word that is not known: words that begin with it, and those with a slip or two."""

from __future__ import annotations

from collections.abc import Iterable

_LEAST_BEGINNING = 2
"""Letters that are enough for the beginning of a word."""
_LONGEST = 64


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Known words that are near, the nearest first; case does not matter.

    Words that begin with this one come before others, the shortest first; then those that this one becomes by few
    slips: a letter too many, too few, another one, or two that changed places.

    Args:
        most: limit of words.
    """
    word = word.casefold()[:_LONGEST]
    found: list[tuple[bool, int, str]] = []
    for candidate in dict.fromkeys(known):
        folded = candidate.casefold()
        if len(word) >= _LEAST_BEGINNING and folded.startswith(word):
            found.append((False, len(folded), candidate))
        elif (slips := _slips(word, folded)) <= _allowed(word):
            found.append((True, slips, candidate))
    return [candidate for *_, candidate in sorted(found, key=lambda entry: entry[:2])][:most]


def _allowed(word: str) -> int:
    """How many slips still let the word be recognised."""
    return 0 if len(word) < 3 else 1 if len(word) < 6 else 2 if len(word) < 12 else 3


def _slips(word: str, other: str) -> int:
    """Letters to insert, remove, replace or swap with their neighbour to make one word of the other."""
    if abs(len(word) - len(other)) > _allowed(word):
        return len(word) + len(other)
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        before, above, row = row, before, [i] + [0] * len(other)
        for j, theirs in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != theirs))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == theirs:
                row[j] = min(row[j], above[j - 2] + 1)
    return row[-1]
