"""Sizes, rates, durations and counts as people write them: one grammar for filters, options, settings and URLs.

A quantity is a number and a unit, with a space between them or without: `1.5Gi`, `10 Mbit/s`, `500ms`, `1h30m`.
Prefixes are powers of 1000 (`k M G T P E`) or, followed by `i`, of 1024. units.py writes what this module reads.
"""

from __future__ import annotations

import math
import re

_NUMBER = r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?"
_LARGEST = 2**64 - 1
"""What a counter can hold."""

_SCALES = {"": 1, **{prefix: 1000 ** (n + 1) for n, prefix in enumerate("kmgtpe")},
           **{f"{prefix}i": 1024 ** (n + 1) for n, prefix in enumerate("kmgtpe")}}
_LONGEST_SHOWN = 40
"""Characters of a text that a message repeats."""
_PREFIX = "(?:[kKmMgGtTpPE][iI]?)?"
_SCALED = rf"(?s:({_NUMBER})\s*({_PREFIX})(.*))"
_BITS = ("b", "bit", "bits")
_OCTETS = ("B", "byte", "bytes", "Byte", "Bytes")
_SECONDS = {
    **dict.fromkeys(("d", "day", "days"), 86_400.0), **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0), **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    "ms": 1e-3, **dict.fromkeys(("us", "µs", "μs"), 1e-6), "ns": 1e-9}
"""The two letters before `s` are the micro sign and the Greek letter: keyboards have one or the other."""

_LONGEST_FIRST = "|".join(sorted(_SECONDS, key=len, reverse=True))
_TIME = rf"{_NUMBER}(?:{_LONGEST_FIRST})"
_TIME_PART = rf"\s*({_NUMBER})\s*({_LONGEST_FIRST})(?![^\W\d])"
_UNFINISHED = rf"(?:{_TIME})*{_NUMBER}"
_TIMES = rf"(?:{_TIME})+"
_NEXT_TIME = rf"{_NUMBER}(?:{_LONGEST_FIRST})?"
_UNIT = rf"{_LONGEST_FIRST}|(?!$){_PREFIX}(?:{'|'.join(_BITS + _OCTETS)})?(?:/s|ps)?"
"""Compiled when they are first used, and kept by `re`: `--help` needs none."""


class QuantityError(ValueError):
    """The text is not such a quantity.

    Attributes:
        problem: what is wrong, in a few words.
        hint: what would do.
    """

    def __init__(self, problem: str, hint: str) -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}; {hint}")


def _not(text: str, what: str, examples: str) -> QuantityError:
    return QuantityError(f'"{_shown(text)}" is not {what}', f"for example {examples}")


def _shown(text: str) -> str:
    """The text, or its beginning, without control characters."""
    short = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN - 1]}…"
    return "".join(character if character.isprintable() else "?" for character in short)


def _scaled(text: str) -> tuple[float, str] | None:
    """A number with its prefix applied, and the unit that follows; None: it begins otherwise.

    Raises:
        QuantityError: no counter could hold it.
    """
    match = re.fullmatch(_SCALED, text.strip())
    if match is None:
        return None
    scale = _SCALES[match[2].lower()]
    value = int(match[1]) * scale if match[1].isdecimal() else float(match[1]) * scale
    if value > _LARGEST:
        raise QuantityError(f'"{_shown(text)}" is too large', f"at most {_LARGEST:,}")
    return (int(value) if value == int(value) else value), match[3].strip()


def count(text: str) -> float:
    """A number of things: `42`, `10k`, `1.5M`. Raises QuantityError."""
    found = _scaled(text)
    if found is None or found[1]:
        raise _not(text, "a number", "500, 10k, 1.5M")
    return found[0]


def octets(text: str) -> float:
    """A size in octets: `1500`, `10M`, `10 MB`, `1.5Gi`, `1GiB`. Raises QuantityError."""
    found = _scaled(text)
    if found is None or found[1] not in ("", "b", *_OCTETS):
        raise _not(text, "a size", "4096, 100M, 1.5Gi")
    return found[0]


def rate(text: str) -> float:
    """A rate in octets a second: `1M`, `1 Mbit/s`, `1Mbps` are bits, `125kB/s`, `125kBps` are octets.

    Raises QuantityError.
    """
    found = _scaled(text)
    if found is not None:
        value, unit = found
        for ending in ("/s", "ps"):
            unit = unit.removesuffix(ending)
        if unit in ("", *_BITS):
            return value / 8
        if unit in _OCTETS:
            return value
    raise _not(text, "a rate", "500k, 10 Mbit/s, 125kB/s")


def seconds(text: str) -> float:
    """A duration in seconds: `5`, `5s`, `500ms`, `2min`, `1h30m`. A number without a unit is seconds.

    Raises QuantityError.
    """
    plain, part = text.strip(), re.compile(_TIME_PART)
    total, position = 0.0, 0
    if re.fullmatch(_NUMBER, plain):
        total, position = float(plain), len(plain)
    while match := part.match(plain, position):
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not position or position != len(plain):
        raise _not(text, "a duration", "500ms, 90s, 1h30m")
    if math.isinf(total):
        raise QuantityError(f'"{_shown(text)}" is too long', "for example 500ms, 90s, 1h30m")
    return total


def milliseconds(text: str) -> float:
    """As `seconds`, but a number without a unit is milliseconds. Raises QuantityError."""
    found = seconds(text)
    return found / 1e3 if re.fullmatch(_NUMBER, text.strip()) else found


def begins(word: str) -> bool:
    """Whether more words may belong to the quantity that this word begins: `50` (us), `1h` (30m)."""
    return bool(re.fullmatch(_UNFINISHED, word) or re.fullmatch(_TIMES, word))


def continues(text: str, word: str) -> bool:
    """Whether `word` belongs to the quantity that `text` begins, as `us` to `50`, and `30m` to `1h`."""
    if re.fullmatch(_UNFINISHED, text):
        return bool(re.fullmatch(_UNIT, word))
    return bool(re.fullmatch(_TIMES, text) and re.fullmatch(_NEXT_TIME, word))
