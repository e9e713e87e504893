"""What people type after `/`, made a filter: words alone, ports alone, flags by name, numbers without their unit.

The language itself stays strict: a slip on the command line is an error, as is one in a filter of exports.
"""

from __future__ import annotations

import re

from flowtop.fields.registry import KEYS
from flowtop.filters.build import with_unit
from flowtop.filters.errors import FilterError
from flowtop.filters.filter import Filter, compile_filter
from flowtop.filters.grammar import token_types
from flowtop.text.operands import FLAG_NAMES, beginning
from flowtop.text.suggestions import nearest

_BEFORE = re.compile(r"(^|[(!&|]|\b(and|or|not))\s*$", re.I)
_BEHIND = re.compile(r"\s*($|[)&|]|(and|or)\b)", re.I)
"""What may be around a word alone: beside other values it is a slip."""
_MOST_WORDS = 20


def compile_loosely(text: str, *, finished: bool = True, settled: bool = True) -> Filter:
    """The filter that is meant; `Filter.text` has it in the words of the language.

    A word alone that the language does not have becomes `flags syn`, `state ended`, `port 443` or `text nginx`.

    Args:
        finished: False: a word at the end that could still become another one is an error.
        settled: False: a word that is near one of the language is an error.

    Raises:
        FilterError: the text is no filter.
    """
    for _ in range(_MOST_WORDS):
        try:
            return compile_filter(_with_units(text))
        except FilterError as error:
            at = error.position
            word, length = _word_at(text, error)
            if not word or not _alone(text, at, length):
                raise
            lead = _lead(word)
            near = lead == "text" and bool(meant(word))
            if not lead or (error.unfinished and not finished) or (near and not settled):
                raise
            text = f"{text[:at]}{lead} {text[at:]}"
    return compile_filter(text)


def _word_at(text: str, error: FilterError) -> tuple[str, int]:
    """The word that the language does not have, or the beginning of an address, and how long it is as written."""
    if error.unknown:
        return error.unknown, len(error.unknown) + 2 * (text[error.position:error.position + 1] in ("'", '"'))
    start = re.match(r"[0-9a-fA-F:.]+", text[error.position:])
    return (start[0], len(start[0])) if start and beginning(start[0]) else ("", 0)


def meant(word: str) -> list[str]:
    """Words of the language that are near."""
    return nearest(word, token_types())


def _alone(text: str, at: int, length: int) -> bool:
    return bool(_BEFORE.search(text[:at]) and _BEHIND.match(text, at + length))


def _lead(word: str) -> str:
    """The word of the language that belongs before this one; "": there is none."""
    lower = word.lower()
    if lower in FLAG_NAMES:
        return "flags"
    if lower in KEYS["state"].choices:
        return "state"
    if word.isdecimal():
        return "port" if word.isascii() and int(word) <= 65_535 else ""
    return "text"


def _with_units(text: str) -> str:
    """With the units of numbers that have none, where these are not obvious."""
    for key in KEYS.values():
        if key.unit and key.word in text:
            text = re.sub(rf"\b({key.word}\s*[<>=!]*\s*)([\d.]+)(?=$|[\s)&|])(?!\s*[a-zµμ]+\b(?<!and)(?<!or))",
                          lambda found, key=key: found[1] + with_unit(key, found[2]), text)  # type: ignore[misc]
    return text
