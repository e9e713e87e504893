"""`rtt > 50 us`: a unit that stands apart from its number belongs to it, as on the screen."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lark import Token

from flowtop.view.filter import keys

_NUMBER = re.compile(r"\d+(\.\d+)?")
_UNIT = re.compile(r"(ns|us|µs|ms|s|m|min|h|d)|[kKMmGgTtPp]?i?(bits?|[bB]|[Bb]ytes?)?(/s|ps)?")


class SpacedUnits:
    """Between lexer and parser (lark's `postlex`): makes one WORD of a number and the unit after it, where a word that
    takes numbers stands before them. What no unit belongs to (`port 80`, `host 10.0.0.1 or 10`) stays as it is.
    """

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """The same tokens, or fewer."""
        held: Token | None = None
        measured = False
        for token in stream:
            if held is not None:
                if token.type == "WORD" and _UNIT.fullmatch(token):
                    yield Token.new_borrow_pos("WORD", f"{held}{token}", held)
                    held = None
                    continue
                yield held
                held = None
            if measured and token.type == "WORD" and _NUMBER.fullmatch(token):
                held = token
                continue
            key = keys.KEYS.get(token) if token.type in ("KEY", "OPTIONAL_KEY") else None
            measured = (key is not None and key.kind == "number") or (measured and token.type == "OPERATOR")
            yield token
        if held is not None:
            yield held
