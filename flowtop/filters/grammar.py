"""What can be written: the grammar, its tokens, and how a text is taken apart. The only user of lark.

Words are told apart by the registry (`words.py`), not by the grammar: a new key is a KEY token like any other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken
from lark.exceptions import UnexpectedInput

from flowtop.fields.registry import KEYS, REGISTRY
from flowtop.filters import words
from flowtop.filters.errors import FilterError
from flowtop.text.units import printable

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
            key = KEYS.get(token) if token.type in ("KEY", "OPTIONAL_KEY") else None
            measured = (key is not None and key.kind == "number") or (measured and token.type == "OPERATOR")
            yield token
        if held is not None:
            yield held

LONGEST = 16_384
"""Characters of a filter at most."""

# `and` and `or` have one precedence and go left to right, as in pcap-filter(7); side by side binds closer, `not`
# closest. A protocol before src, dst, host, net, port or proto belongs to it (the parser shifts), as in tcpdump.
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
WORD: /(\\(?=\w))?(\[[^\s\]()]*\])?[^\s()<>=!~"'&|]+|\[[^\s\]()]+\]/
%declare PROTOCOL VERSION ADDRESS_WORD PORT_WORD PROTO ETHER PRIVATE NAME
%declare KEY OPTIONAL_KEY NAMED_KEY SOURCE DESTINATION MASK
%ignore /\s+/
"""

_FIXED = {"and": "AND", "or": "OR", "not": "NOT", "src": "SOURCE", "dst": "DESTINATION", "mask": "MASK",
          "private": "PRIVATE", "ether": "ETHER", "mac": "ETHER", "proto": "PROTO",
          "name": "NAME"}

_IN_WORDS = {
    "AND": "and", "OR": "or", "NOT": "not", "LPAR": "(", "RPAR": ")", "OPERATOR": "a comparison (< <= > >= = !=)",
    "PROTOCOL": "a protocol", "VERSION": "ip or ip6", "ADDRESS_WORD": "host or net", "PORT_WORD": "port",
    "SOURCE": "src or dst", "DESTINATION": "src or dst", "KEY": "a word such as bytes, rate, if, state",
    "OPTIONAL_KEY": "a word such as bytes, rate, if, state", "NAMED_KEY": "a word such as bytes, rate, if, state",
    "PROTO": "a protocol",
    "ETHER": "a word such as bytes, rate, if, state",
    "PRIVATE": "private", "NAME": "name", "WORD": "a value", "STRING": "a value", "MASK": "mask", "$END": "the end",
}
_OF_A_TEST = frozenset({"PROTOCOL", "KEY", "ADDRESS_WORD", "WORD"})
"""What may come when a new test may begin."""
_TEST_WORDS = frozenset({"PROTOCOL", "VERSION", "ADDRESS_WORD", "PORT_WORD", "SOURCE", "DESTINATION", "KEY",
                         "OPTIONAL_KEY", "NAMED_KEY", "PROTO", "ETHER", "PRIVATE", "NAME", "WORD", "STRING", "NOT",
                         "LPAR"})


def token_types() -> dict[str, str]:
    """Type of token by word, lower case, of every word the language knows."""
    types = {word: "KEY" if not key.optional else "NAMED_KEY" if key.choices else "OPTIONAL_KEY"
             for word, key in KEYS.items()}
    types |= dict.fromkeys(words.PROTOCOL_WORDS, "PROTOCOL") | dict.fromkeys(words.VERSION_WORDS, "VERSION")
    types |= dict.fromkeys(words.ADDRESS_WORDS, "ADDRESS_WORD") | dict.fromkeys(words.PORT_WORDS, "PORT_WORD")
    return types | _FIXED


def _classify(types: dict[str, str]) -> Callable[[Token], Token]:
    def classify(token: Token) -> Token:
        found = types.get(token.lower())
        return token if found is None else Token.new_borrow_pos(found, token.lower(), token)
    return classify


def parser() -> Lark:
    """The parser; made once as long as no field is added, as that takes some milliseconds."""
    return _parser(REGISTRY.revision)


@lru_cache(maxsize=1)
def _parser(_: int) -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="basic", lexer_callbacks={"WORD": _classify(token_types())},
                postlex=SpacedUnits())


def take_apart(text: str) -> Tree[Any]:
    """The parse tree of a filter.

    Raises:
        FilterError: it is no sentence of the language.
    """
    if len(text) > LONGEST:
        raise FilterError(text, LONGEST, f"a filter of more than {LONGEST:,} characters", "a shorter one")
    try:
        return parser().parse(text)
    except UnexpectedCharacters as error:
        position = error.pos_in_stream or 0
        raise _stray(text, position) from error
    except UnexpectedToken as error:
        raise _unexpected(text, error) from error
    except UnexpectedInput as error:
        raise FilterError(text, len(text), "this is no filter") from error


def _stray(text: str, position: int) -> FilterError:
    character = text[position]
    if character in "\"'":
        return FilterError(text, position, "a quote that is not closed", "the closing quote", unfinished=True)
    asked = re.search(r"\w+\[[^\]]*\]\s*$", text[:position])
    if asked:
        return _bytes_of_packets(text, asked.start(), asked[0].strip())
    double = {"&": "&&, or the word and", "|": "||, or the word or"}.get(character)
    return FilterError(text, position, f"{printable(character) or '?'} means nothing here", double or "",
                       unfinished=bool(double) and position + 1 >= len(text))


def _bytes_of_packets(text: str, position: int, word: str) -> FilterError:
    return FilterError(text, position, f"no bytes of packets can be asked: {printable(word)!r}",
                       "a word for it: flags syn, icmptype 8, ...")


_TCPDUMPS = {
    "multicast": "dst net 224.0.0.0/4 or ff00::/8", "broadcast": "ether dst ff:ff:ff:ff:ff:ff",
    "greater": "bytes or packets: flows are asked, not packets",
    "less": "bytes or packets: flows are asked, not packets",
    "arp": "IP: what is not IP is in no flow, and counted as ignored",
    "rarp": "IP: what is not IP is in no flow, and counted as ignored",
}
"""Words of pcap-filter(7) that this language does not have, and what to say."""


def unknown_word(text: str, position: int, word: str, *, quoted: bool = False) -> FilterError:
    """The error for a word that the language does not have; names the nearest one."""
    at_end = position + len(word) >= len(text)
    if printable(word) != word:
        problem = f"{printable(word)!r} has characters that do not print"
        return FilterError(text, position, problem, "a word without them")
    if quoted and word.lower() in token_types():
        return FilterError(text, position, f"{word!r} in quotes is a value", f"{word.lower()} without the quotes")
    if "[" in word[1:]:
        return _bytes_of_packets(text, position, word)
    if word.lower() in _TCPDUMPS:
        return FilterError(text, position, f"unknown word {word!r}", _TCPDUMPS[word.lower()])
    if word[:1].isdigit():
        return FilterError(text, position, f"{printable(word)!r} by itself says too little",
                           "a word before it, such as port, vlan, bytes > or, after a value, or", unfinished=at_end)
    words = token_types()
    near = difflib.get_close_matches(word.lower()[:64], words, n=1, cutoff=0.6)
    expected = f"{near[0]} (is that what you mean?)" if near else \
        "an address, a protocol, or a word such as host, port, src, if, bytes"
    unfinished = at_end and any(known.startswith(word.lower()) for known in words)
    return FilterError(text, position, f"unknown word {printable(word)!r}", expected, unfinished=unfinished)


def _unexpected(text: str, error: UnexpectedToken) -> FilterError:
    token: Token = error.token
    accepted = error.accepts or error.expected
    expected = in_words(accepted)
    if token.type == "$END":
        end = len(text.rstrip())
        problem = "the filter ends too early" if end else "an empty filter"
        return FilterError(text, end + (end < len(text)), problem, expected, unfinished=True)
    position = token.start_pos or 0
    at_end = position + len(token) >= len(text)
    before = re.search(r"([\w.-]+)\s*$", text[:position])
    if token.type == "OPERATOR" and before and before[1].lower() not in token_types() and "$END" in accepted:
        return unknown_word(text, before.start(1), before[1])
    if token.type == "RPAR" and "RPAR" not in accepted and "$END" in accepted:
        return FilterError(text, position, ") without (", expected)
    shown = printable(text[position:position + len(token)])
    return FilterError(text, position, f"{shown!r} cannot stand here", expected,
                       unfinished=at_end and token.type != "RPAR" and _may_grow(token))


def _may_grow(token: Token) -> bool:
    """Whether a longer word begins like this one, which cannot stand where it does."""
    return any(word != token and word.startswith(token) for word in token_types()) or token.type == "WORD"


def in_words(accepted: Iterable[str]) -> str:
    """Types of tokens as people call what they stand for: `host, net, port, ...`."""
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
