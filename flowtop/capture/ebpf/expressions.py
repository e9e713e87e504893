"""The only C that a helper compiles for a process that may be an attacker's by now: what filters/kernel.py makes."""

from __future__ import annotations

import re

LONGEST = 16_384
DEEPEST = 150
"""Nested parentheses: a compiler has an end of them, too. MOST_TESTS of filters need fewer."""
_TOKEN = re.compile(
    r"\(key\)->[a-z_]{1,32} (?:==|!=|<=|>=|<|>) -?[0-9]{1,20}"
    r"|\(\(\(flow_word \*\)\(key\)->(?:source|destination)_address\)\[[0-3]\] & 0x[0-9a-f]{1,8}u\) == 0x[0-9a-f]{1,8}u"
    r"| && | \|\| |!|\(|\)|[01]")


def is_kernel_filter(text: str) -> bool:
    """Whether it is an expression of comparisons of the Flow Key with numbers, and nothing else. Empty: it is one."""
    if len(text) > LONGEST:
        return False
    place = depth = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            return False
        place = found.end()
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if not 0 <= depth <= DEEPEST:
            return False
    return not depth
