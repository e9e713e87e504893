"""TOML from files that may be damaged or of strangers: whatever is in them, it ends soon, in values or a ValueError."""

from __future__ import annotations

import re
import tomllib
from typing import Any

MOST_OCTETS = 1 << 18
MOST_PARTS = 32
_STRINGS = re.compile(r'"(?:\\.|[^"\\\n])*+"?|' r"'[^'\n]*+'?")
_BLANKS = re.compile(r"[ \t]+")
_OTHER = re.compile(r"[^\w.-]+")


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a TOML document.

    Raises ValueError: not TOML, longer than MOST_OCTETS, nested too deeply, or a number that is too long.
    """
    if len(text) > MOST_OCTETS:
        raise ValueError(f"it has more than {MOST_OCTETS} characters")
    words = _OTHER.split(_BLANKS.sub("", _STRINGS.sub("", text)))
    if any(word.count(".") >= MOST_PARTS for word in words):  # tomllib would take quadratic time
        raise ValueError(f"a key has more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
