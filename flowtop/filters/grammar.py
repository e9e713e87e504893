"""The grammar of the filter language, its tokens, and the parser. The only module that uses lark.

The registry (`words.py`) says which words are keys, not the grammar: a new key is a KEY token like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken
from lark.exceptions import UnexpectedInput

from flowtop.fields.registry import KEYS, REGISTRY
from flowtop.filters import words
from flowtop.filters.errors import FilterError
from flowtop.text import quantities
from flowtop.text.suggestions import nearest
from flowtop.text.units import printable


class SpacedUnits:
    """Between lexer and parser (lark's `postlex`): joins the words of one quantity (`50 us`, `1h 30m`) into one WORD,
    after a key that takes numbers. Words after other keys (`port 80`, `host 10.0.0.1 or 10`) stay as they are.
    """

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """The same tokens, or fewer."""
        held: Token | None = None
        measured = False
        for token in stream:
            if held is not None:
                if token.type == "WORD" and quantities.continues(held, token):
                    held = Token.new_borrow_pos("WORD", f"{held}{token}", held)
                    continue
                yield held
                held = None
            if measured and token.type == "WORD" and quantities.begins(token):
                held = token
                continue
            key = KEYS.get(token) if token.type in ("KEY", "OPTIONAL_KEY") else None
            measured = (key is not None and key.kind == "number") or (measured and token.type == "OPERATOR")
            yield token
        if held is not None:
            yield held


LONGEST = 16_384
"""Characters of a filter at most."""

# `and` and `or` have one precedence and go left to right, as in pcap-filter(7); side by side binds closer, `not`
# closest. A protocol before src, dst, host, net, port or proto belongs to it (the parser shifts), as in tcpdump.
# The equals sign at the end of a Community ID, as other tools print it, is no comparison.
GRAMMAR = r"""
start: expression
expression: series ((AND | OR) series)*
series: factor+
?factor: NOT factor -> negated
    | "(" expression ")" -> group
    | primitive
primitive: qualifier -> protocol
    | [qualifier] [direction] ADDRESS_WORD operand [MASK operand] -> address
    | [qualifier] [direction] PORT_WORD [OPERATOR] service -> port
    | [qualifier] direction operand -> either
    | [qualifier] PROTO [OPERATOR] name -> proto
    | ETHER [direction] [ADDRESS_WORD] operand -> ether
    | [direction] PRIVATE -> private
    | [direction] NAME [OPERATOR] name -> named
    | TEXT operand -> anywhere
    | [direction] ENDS [OPERATOR] name -> ends
    | KEY [OPERATOR] name -> key
    | OPTIONAL_KEY [[OPERATOR] operand] -> optional_key
    | NAMED_KEY [[OPERATOR] name] -> optional_key
    | operand -> bare
?qualifier: PROTOCOL | VERSION
direction: (SOURCE | DESTINATION) [(AND | OR) (SOURCE | DESTINATION)]
?operand: WORD | STRING
?name: operand | PROTOCOL | VERSION
?service: name | KEY
AND: "&&"
OR: "||"
NOT: "!"
OPERATOR: "<=" | ">=" | "==" | "!=" | "!~" | "<" | ">" | "=" | "~"
STRING: /"[^"]*"|'[^']*'/
WORD: /\d:[A-Za-z0-9+\/]{27}=(?=[\s()&|]|$)|(\\(?=\w))?(\[[^\s\]()]*\])?[^\s()<>=!~"'&|]+|\[[^\s\]()]+\]/
%declare PROTOCOL VERSION ADDRESS_WORD PORT_WORD PROTO ETHER PRIVATE NAME TEXT ENDS
%declare KEY OPTIONAL_KEY NAMED_KEY SOURCE DESTINATION MASK
%ignore /\s+/
"""

_FIXED = {"and": "AND", "or": "OR", "not": "NOT", "src": "SOURCE", "dst": "DESTINATION", "mask": "MASK",
          "private": "PRIVATE", "ether": "ETHER", "mac": "ETHER", "proto": "PROTO",
          "name": "NAME", "text": "TEXT"}

_IN_WORDS = {
    "AND": "and", "OR": "or", "NOT": "not", "LPAR": "(", "RPAR": ")", "OPERATOR": "a comparison (< <= > >= = !=)",
    "PROTOCOL": "a protocol", "VERSION": "ip or ip6", "ADDRESS_WORD": "host or net", "PORT_WORD": "port",
    "SOURCE": "src or dst", "DESTINATION": "src or dst", "KEY": "a word such as bytes, rate, if, state",
    "OPTIONAL_KEY": "a word such as bytes, rate, if, state", "NAMED_KEY": "a word such as bytes, rate, if, state",
    "PROTO": "a protocol",
    "ETHER": "a word such as bytes, rate, if, state", "ENDS": "a word such as bytes, rate, if, state",
    "PRIVATE": "private", "NAME": "name", "TEXT": "text", "WORD": "a value",
    "STRING": "a value", "MASK": "mask", "$END": "the end",
}
_OF_A_TEST = frozenset({"PROTOCOL", "KEY", "ADDRESS_WORD", "WORD"})
"""Tokens that are accepted where a new test may begin."""


def token_types() -> dict[str, str]:
    """Type of token by word, lower case, of every word the language knows."""
    types = {word: "KEY" if not key.optional else "NAMED_KEY" if key.choices else "OPTIONAL_KEY"
             for word, key in KEYS.items()}
    types |= dict.fromkeys(words.PROTOCOL_WORDS, "PROTOCOL") | dict.fromkeys(words.VERSION_WORDS, "VERSION")
    types |= dict.fromkeys(words.ADDRESS_WORDS, "ADDRESS_WORD") | dict.fromkeys(words.PORT_WORDS, "PORT_WORD")
    types |= dict.fromkeys(words.ENDS, "ENDS")
    return types | _FIXED


def aliases() -> dict[str, str]:
    """Other names of words: the id of a field, by which lists are sorted and grouped, means its word here."""
    types = token_types()
    return {field.id: field.key.word for field in REGISTRY.fields
            if field.key is not None and field.key.word in types and field.id not in types}


def _classify(types: dict[str, str], same: dict[str, str]) -> Callable[[Token], Token]:
    def classify(token: Token) -> Token:
        word = token.lower()
        word = same.get(word, word)
        found = types.get(word)
        return token if found is None else Token.new_borrow_pos(found, word, token)
    return classify


def parser() -> Lark:
    """The parser. Made once for the fields that there are, because that takes some milliseconds."""
    return _parser(REGISTRY.revision)


@lru_cache(maxsize=1)
def _parser(_: int) -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic", lexer_callbacks={"WORD": _classify(token_types(), aliases())},
                postlex=SpacedUnits())


def take_apart(text: str) -> Tree[Any]:
    """The parse tree of a filter.

    Raises:
        FilterError: the text is not a filter.
    """
    if len(text) > LONGEST:
        raise FilterError(text, LONGEST, f"the filter is longer than {LONGEST:,} characters", hint="shorten it")
    try:
        return parser().parse(text)
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        raise _stray(text, position) from error
    except UnexpectedToken as error:
        raise _unexpected(text, error) from error
    except UnexpectedInput as error:
        raise FilterError(text, len(text), "not a filter") from error


def _stray(text: str, position: int) -> FilterError:
    character = text[position]
    if character in "\"'":
        return FilterError(text, position, "a quote is not closed", "the closing quote", unfinished=True)
    asked = re.search(r"\w+\[[^\]]*\]\s*$", text[:position])
    if asked:
        return _bytes_of_packets(text, asked.start(), asked[0].strip())
    double = {"&": "&&, or the word and", "|": "||, or the word or"}.get(character)
    return FilterError(text, position, f'unexpected "{printable(character) or "?"}"', double or "",
                       unfinished=bool(double) and position + 1 >= len(text))


def _bytes_of_packets(text: str, position: int, word: str) -> FilterError:
    return FilterError(text, position, f'packet bytes cannot be tested: "{printable(word)}"',
                       hint="use a word such as flags or icmptype: flags syn")


_TCPDUMPS = {
    "multicast": "use dst net 224.0.0.0/4 or ff00::/8", "broadcast": "use ether dst ff:ff:ff:ff:ff:ff",
    "greater": "use bytes or packets: a filter tests flows, not packets",
    "less": "use bytes or packets: a filter tests flows, not packets",
    "arp": "flows are IP only; other packets are counted as ignored",
    "rarp": "flows are IP only; other packets are counted as ignored",
}
"""Words of pcap-filter(7) that this language does not have, and the hint for each."""


def unknown_word(text: str, position: int, word: str, *, quoted: bool = False) -> FilterError:
    """The error for a word that the language does not have; suggests the nearest one."""
    at_end = position + len(word) >= len(text)
    if printable(word) != word:
        problem = f'"{printable(word)}" has unprintable characters'
        return FilterError(text, position, problem, hint="remove them")
    if quoted and word.lower() in token_types():
        return FilterError(text, position, f'"{word}" in quotes is a value',
                           hint=f"for the word {word.lower()}, remove the quotes")
    if "[" in word[1:]:
        return _bytes_of_packets(text, position, word)
    if word.lower() in _TCPDUMPS:
        return FilterError(text, position, f'unknown word "{word}"', hint=_TCPDUMPS[word.lower()])
    if word[:1].isdigit():
        return FilterError(text, position, f'"{printable(word)}" alone is ambiguous', unknown=word, unfinished=at_end,
                           hint="write a word before it, such as port or bytes >; or between two values: or")
    words = token_types()
    near = nearest(word, words)
    hint = f'did you mean "{near[0]}"?' if near else \
        "expected an address, a protocol, or a word such as host, port, src, if, bytes"
    unfinished = at_end and any(known.startswith(word.lower()) for known in words)
    return FilterError(text, position, f'unknown word "{printable(word)}"', hint=hint, unknown=word,
                       unfinished=unfinished)


def _unexpected(text: str, error: UnexpectedToken) -> FilterError:
    token: Token = error.token
    accepted = error.accepts or error.expected
    expected = in_words(accepted)
    if token.type == "$END":
        end = len(text.rstrip())
        problem = "the filter is incomplete" if end else "the filter is empty"
        return FilterError(text, end + (end < len(text)), problem, expected, unfinished=True)
    position = token.start_pos or 0
    at_end = position + len(token) >= len(text)
    before = re.search(r"([\w.-]+)\s*$", text[:position])
    if token.type == "OPERATOR" and before and before[1].lower() not in token_types() and "$END" in accepted:
        return unknown_word(text, before.start(1), before[1])
    if token.type == "RPAR" and "RPAR" not in accepted and "$END" in accepted:
        return FilterError(text, position, '")" without "("', expected)
    shown = printable(text[position:position + len(token)])
    return FilterError(text, position, f'unexpected "{shown}"', expected,
                       unfinished=at_end and token.type != "RPAR" and _may_grow(token))


def _may_grow(token: Token) -> bool:
    """Whether a longer word begins like this one, which is not accepted where it is."""
    return any(word != token and word.startswith(token) for word in token_types()) or token.type == "WORD"


def in_words(accepted: Iterable[str]) -> str:
    """Types of tokens in words: `host, net, port, ...`."""
    accepted = set(accepted)
    if accepted >= _OF_A_TEST:
        more = [word for word in ("not", "(") if {"not": "NOT", "(": "LPAR"}[word] in accepted]
        joined = [word for kind, word in (("AND", "and"), ("OR", "or"), ("RPAR", ")")) if kind in accepted]
        if joined:
            return f"{', '.join(joined)}, another test, or the end" if "$END" in accepted else \
                f"{', '.join(joined)}, or another test"
        return ", ".join(("an address, a protocol, or a word such as host, port, src, if, bytes", *more))
    if "WORD" in accepted:
        accepted -= {"STRING", "PROTOCOL", "VERSION"} | ({"KEY"} if "ADDRESS_WORD" not in accepted else set())
        accepted -= {"AND", "OR", "PORT_WORD"} if {"ADDRESS_WORD", "OR"} <= accepted else set()
        if {"ADDRESS_WORD"} <= accepted:
            return "host, net, port, or an address"
    return ", or ".join(dict.fromkeys(_IN_WORDS.get(kind, kind.lower()) for kind in sorted(accepted)))
