"""Completion of a filter while it is typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lark import Token, UnexpectedInput

from flowtop.fields.registry import KEYS
from flowtop.filters import words
from flowtop.filters.grammar import aliases, parser, token_types

_WORD_AT_END = re.compile(r"[^\s()!&|<>=~,]*$")
_BEGINS_A_TEST = frozenset({"KEY", "ADDRESS_WORD"})
_OWNERS = frozenset({"KEY", "OPTIONAL_KEY", "NAMED_KEY", "ADDRESS_WORD", "PORT_WORD", "ETHER", "PROTO", "NAME", "TEXT",
                     "ENDS", "SOURCE", "DESTINATION"})
_TAKE_VALUES = ("KEY", "OPERATOR", "PROTO", "PORT_WORD", "NAME", "TEXT", "ENDS")
_SEEN_UNDER = {"host": "host", "net": "net", "port": "port", "portrange": "port", "src": "host", "dst": "host",
               "ether": "mac", "mac": "mac", "proto": "proto",
               "name": "name"}


@dataclass(frozen=True, slots=True)
class Completion:
    """Candidates for the word that ends at the cursor.

    Attributes:
        start: where that word begins; a candidate replaces text[start:cursor].
        candidates: whole words and values, the most likely first.
    """

    start: int
    candidates: tuple[str, ...]


def complete(text: str, cursor: int, seen: Mapping[str, Sequence[str]] | None = None) -> Completion:
    """Candidates for the word before the cursor.

    Args:
        text: the filter so far; may be incomplete.
        cursor: characters before the cursor.
        seen: values to offer, by the word they belong to: "host", "net", "port", "mac", "if", ...

    Returns:
        No candidates if no word fits, or if there is an error before it.
    """
    before = text[:cursor]
    match = _WORD_AT_END.search(before)
    start = match.start() if match else cursor
    partial = before[start:]
    state = parser().parse_interactive(before[:start])
    try:
        tokens = list(state.exhaust_lexer())
    except UnexpectedInput:
        return Completion(cursor, ())
    accepted = set(state.accepts())  # type: ignore[no-untyped-call]  # lark's own annotations
    last = tokens[-1] if tokens else None
    found = [*_values(tokens, accepted, seen or {}, bool(partial)), *_words(accepted, bool(partial))]
    if last is not None and last.type in _TAKE_VALUES and "WORD" in accepted:
        found = [word for word in found if token_types().get(word) not in ("PROTOCOL", "VERSION", "KEY")
                 or _is_value(tokens, word)]
    lead = partial.lower()
    return Completion(start, tuple(dict.fromkeys(word for word in found if word.lower().startswith(lead)
                                                 and word != partial)))


def _words(accepted: set[str], typed: bool) -> Iterable[str]:
    """Words of the language that are accepted there; rare protocols only once a letter is typed."""
    order = [word for line in words.WORDS for word in line.words.split()]
    types = token_types()
    for word in sorted(types, key=lambda word: order.index(word) if word in order else len(order)):
        if types[word] in accepted and (typed or types[word] != "PROTOCOL" or word in words.WELL_KNOWN):
            yield word


def _values(tokens: list[Token], accepted: set[str], seen: Mapping[str, Sequence[str]], typed: bool) -> Iterable[str]:
    """Values of the word that takes one there."""
    if "WORD" not in accepted:
        return
    if accepted >= _BEGINS_A_TEST and not typed:
        return  # a new test: words; values only once a character is typed
    word = _owner(tokens)
    if word is None:
        yield from seen.get("host", ())
        return
    key = KEYS.get(word)
    yield from map(operand, seen.get(_SEEN_UNDER.get(word, word), ()))
    if key is not None:
        yield from key.choices


def _owner(tokens: list[Token]) -> str | None:
    """The last word that takes a value."""
    for token in reversed(tokens):
        if token.type in _OWNERS:
            return str(token)
    return None


def _is_value(tokens: list[Token], word: str) -> bool:
    owner = KEYS.get(_owner(tokens) or "")
    return owner is not None and word in owner.choices


def operand(text: str) -> str:
    """The text as one operand, in quotes if it needs them."""
    if re.fullmatch(r"[\w.:/*?@%+-]+", text) and text.lower() not in token_types() | aliases():
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'
