"""DNS messages (RFC 1035): the question, and the addresses that answer it, at the end of its chain of CNAMEs.

Names are decoded by dnspython, which bounds their length and follows compression pointers backwards only.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from dns.exception import DNSException
from dns.name import from_wire_parser
from dns.wire import Parser

from flowtop.names_seen.errors import MalformedError

_HEADER = struct.Struct("!2xHHHHH")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _OPCODE, _TRUNCATED, _CODE = 0x8000, 0x7800, 0x0200, 0x000F
_A, _CNAME, _AAAA, _ANY = 1, 5, 28, 255
_IN = 1
_ADDRESS_OCTETS = {_A: 4, _AAAA: 16}
_LONGEST_CHAIN = 16
"""CNAMEs that are followed; resolvers give up before."""

Labels = tuple[bytes, ...]


class Question(NamedTuple):
    """What a client asks.

    Attributes:
        labels: of the name, in lower case, without the root.
        type: of the records asked for.
    """

    labels: Labels
    type: int


class Message(NamedTuple):
    """A query, or an answer to one.

    Attributes:
        question: what is asked, or was.
        is_answer: whether it is an answer.
        addresses: those that the name in the question has, 4 or 16 octets each, in order.
        life_s: how long they may be kept, by the shortest life of the records that led to them; 0 without addresses.
        complete: whether it is the whole answer; else the client asks again.
    """

    question: Question
    is_answer: bool
    addresses: tuple[bytes, ...] = ()
    life_s: int = 0
    complete: bool = True


def read_message(octets: bytes, *, cut: bool = False, answers: bool = True) -> Message | None:
    """Read a query or an answer; None: neither is of interest (other operations, other classes or types).

    Args:
        octets: the message; its first two, the id, which the client chose, are not looked at.
        cut: its end is missing: what is left of it is enough.
        answers: whether they are read; else only the question is, which costs little.

    Raises MalformedError.
    """
    return _read(b"\0\0" + octets[2:], cut, answers)


@lru_cache(maxsize=2048)
def _read(octets: bytes, cut: bool, with_answers: bool) -> Message | None:
    """The same. Many messages are equal but for their id. (What was malformed is not kept.)"""
    parser = Parser(octets)
    try:
        flags, questions, answers, _, _ = parser.get_struct(_HEADER.format)
        if flags & _OPCODE or questions != 1:
            return None
        question = Question(_labels(parser), parser.get_uint16())
        class_ = parser.get_uint16()
    except DNSException as error:
        raise MalformedError(str(error)) from error
    if class_ != _IN or question.type not in (*_ADDRESS_OCTETS, _ANY):
        return None
    if not flags & _RESPONSE:
        return Message(question, is_answer=False)
    if flags & _TRUNCATED:
        return Message(question, is_answer=True, complete=False)
    if flags & _CODE or not with_answers:
        return Message(question, is_answer=True)
    addresses, life_s = _answer(parser, question.labels, answers, cut)
    return Message(question, is_answer=True, addresses=addresses, life_s=life_s)


def _labels(parser: Parser) -> Labels:
    """Raises DNSException."""
    return tuple(label.lower() for label in from_wire_parser(parser).labels[:-1])


def _answer(parser: Parser, asked: Labels, count: int, cut: bool) -> tuple[tuple[bytes, ...], int]:
    """Addresses at the end of the chain that begins with the name, and the shortest life of its records."""
    aliases: dict[Labels, tuple[Labels, int]] = {}
    found: dict[Labels, list[tuple[bytes, int]]] = {}
    try:
        for _ in range(count):  # each takes 11 octets at least, so the message's length bounds this
            owner = _labels(parser)
            type_, class_, life_s, octets = parser.get_struct(_RECORD.format)
            with parser.restrict_to(octets):
                if class_ == _IN and type_ == _CNAME:
                    aliases.setdefault(owner, (_labels(parser), life_s))
                elif class_ == _IN and _ADDRESS_OCTETS.get(type_) == octets:
                    found.setdefault(owner, []).append((parser.get_bytes(octets), life_s))
                else:
                    parser.get_bytes(octets)
    except DNSException as error:
        if not cut:
            raise MalformedError(str(error)) from error
    name, lives = asked, []
    for _ in range(_LONGEST_CHAIN):
        if name not in aliases:
            break
        name, life_s = aliases[name]
        lives.append(life_s)
    here = found.get(name, [])
    lives += [life_s for _, life_s in here]
    return tuple(dict.fromkeys(address for address, _ in here)), min(lives) if here else 0


def name_text(labels: Labels) -> str:
    """The name as text, its octets that are not ASCII as `?`; not yet safe to show."""
    return ".".join(label.decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", "?") for label in labels)
