"""Makes a `tree.Tree` of a parse tree: what each test means, in terms of the fields of a flow.

The rules are tcpdump's: a value alone after `and`, `or`, `not` takes the words of the test before it (`port 80 or
443`), `port` is about protocols that have ports, `icmp` about IPv4 and `icmp6` about IPv6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

from lark import Token
from lark import Tree as ParseTree

from flowtop.fields.field import FilterKey
from flowtop.fields.registry import KEYS
from flowtop.filters import tree, words
from flowtop.filters.errors import FilterError
from flowtop.filters.grammar import take_apart, unknown_word
from flowtop.filters.tree import And, Compare, Match, Named, Not, Operator, Side, Term, Tree, Within, all_of, any_of
from flowtop.model.kinds import HAVE_PORTS, ICMP_VERSIONS, PORT_PROTOCOLS, IpVersion, Kind, Protocol, Tunnel
from flowtop.text import operands
from flowtop.text.quantities import QuantityError
from flowtop.text.units import printable


def in_span(key: FilterKey, low: int, high: int) -> Tree:
    """From `low` to `high`, both included."""
    if low == high:
        return Compare(key, "=", low)
    return And((Compare(key, ">=", low), Compare(key, "<=", high)))


def compared(key: FilterKey, sign: Operator, number: float) -> Tree:
    """Compares the key's number with this one.

    Raises:
        OperandError: they cannot be compared that way.
    """
    if key is KEYS["vlan"]:
        return _vlan(key, sign, number)
    if key is KEYS["vni"]:
        return all_of(Compare(key, sign, number), Not(Compare(KEYS["tunnel"], "=", 0)))
    if key is KEYS["icmptype"]:
        low, high = 256 * int(number), 256 * int(number) + 255
        spans = {"<": (0, low - 1), "<=": (0, high), ">": (high + 1, 65535), ">=": (low, 65535), "=": (low, high)}
        return _of_icmp(in_span(words.DESTINATION_PORT, *spans[sign]))
    if key is KEYS["icmpcode"]:
        return _of_icmp(Compare(key, sign, number))
    return Compare(key, sign, number)


def _of_icmp(test: Tree) -> Tree:
    """The test, for flows of ICMP and ICMPv6 only, later fragments left out."""
    kind = any_of(*(Compare(words.PROTOCOL, "=", protocol) for protocol in ICMP_VERSIONS))
    return all_of(test, kind, Compare(words.KIND, "=", Kind.FLOW))


def _vlan(key: FilterKey, sign: Operator, number: float) -> Tree:
    tags = operands.vlan_tags(int(number))
    if tags is not None:
        if sign != "=":
            raise operands.OperandError(f"one VLAN ID after {sign}")
        return And((Compare(key, "=", tags[0]), Compare(words.CUSTOMER_VLAN, "=", tags[1])))
    if not number:
        return Compare(key, sign, 0)
    return any_of(*(And((Compare(tag, sign, number), Not(Compare(tag, "=", 0)))) for tag in (key, words.CUSTOMER_VLAN)))


MOST_NESTED = 50
"""Maximum of nested parentheses and `not`."""

_SIDES: dict[str, tuple[Side, FilterKey, FilterKey]] = {
    "src": ("source", words.SOURCE_PORT, words.SOURCE_MAC),
    "dst": ("destination", words.DESTINATION_PORT, words.DESTINATION_MAC),
}

PRIVATE = tuple(operands.network(text) for text in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8", "0.0.0.0/32",
    "224.0.0.0/4", "255.255.255.255/32", "fc00::/7", "fe80::/10", "ff00::/8", "::1/128", "::/128"))
"""Networks that are not global: private use, shared (RFC 6598), link-local, loopback, multicast, unspecified."""


@dataclass(frozen=True, slots=True)
class _Direction:
    """`src`, `dst`, `src or dst`, `src and dst`; if none is given, `src or dst` without words."""

    words: str = ""
    sides: tuple[str, ...] = ("src", "dst")
    both: bool = False

    def join(self, of_side: Callable[[str], Tree]) -> Tree:
        """The test of each side, joined by and or or."""
        return (all_of if self.both else any_of)(*map(of_side, self.sides))


_EITHER = _Direction()
_VERSIONS: dict[int, IpVersion] = {**ICMP_VERSIONS, Protocol.IGMP: IpVersion.V4}
"""Protocols whose word asks for an IP version too."""
_Maker = Callable[[Token], Tree]
"""Makes the test of an operand, with the words that were before it."""


def build(text: str, use: Literal["flows", "records"]) -> Tree:
    """The meaning of a filter.

    Raises:
        FilterError: see compile_filter.
    """
    parsed = take_apart(text)
    _check_nesting(text, parsed)
    built = _Builder(text, use).expression(_tree(parsed.children[0]))
    if tree.depth(built) > tree.DEEPEST:
        raise FilterError(text, 0, "and, or and not are nested too deeply", hint="simplify the filter")
    return built


def _check_nesting(text: str, parsed: ParseTree[Any]) -> None:
    waiting = [(parsed, 0)]
    while waiting:
        node, level = waiting.pop()
        if level > MOST_NESTED:
            raise FilterError(text, 0, f"more than {MOST_NESTED} nested parentheses and nots",
                              hint="simplify the filter")
        level += node.data in ("group", "negated")
        waiting.extend((child, level) for child in node.children if isinstance(child, ParseTree))


class _Builder:
    """Walks one parse tree from left to right."""

    def __init__(self, text: str, use: Literal["flows", "records"]) -> None:
        self._text = text
        self._use = use
        self._last: _Maker | None = None
        self._last_takes_addresses = True

    # ---- and, or, not

    def expression(self, node: ParseTree[Any]) -> Tree:
        """`a and b or c`: from left to right, with equal precedence."""
        built = self._series(_tree(node.children[0]))
        for joint, series in zip(node.children[1::2], node.children[2::2], strict=True):
            built = (all_of if _token(joint).type == "AND" else any_of)(built, self._series(_tree(series)))
        return built

    def _series(self, node: ParseTree[Any]) -> Tree:
        built = [self._factor(_tree(node.children[0]))]
        for factor in map(_tree, node.children[1:]):
            if factor.data == "bare" and not _looks_like_address(_plain(_token(factor.children[0]))):
                raise self._unknown(_token(factor.children[0]))  # `port 80 443` hardly means and
            built.append(self._factor(factor))
        return all_of(*built)

    def _factor(self, node: ParseTree[Any]) -> Tree:
        if node.data == "negated":
            return Not(self._factor(_tree(node.children[1])))
        if node.data == "group":
            return self.expression(_tree(node.children[0]))
        made: Tree = getattr(self, f"_{node.data}")(*node.children)
        return made

    # ---- tests

    def _protocol(self, qualifier: Token) -> Tree:
        return self._qualified(qualifier)[1]

    @staticmethod
    def _qualified(word: Token | None) -> tuple[str, Tree]:
        """Words and meaning of `tcp`, `ip6`; of None: everything."""
        return ("", tree.EVERYTHING) if word is None else (f"{word} ", Term(str(word), protocol(word)))

    def _address(self, qualifier: Token | None, direction: ParseTree[Any] | None, word: Token,
                 operand: Token, _: Token | None, mask: Token | None) -> Tree:
        words, limits = self._qualified(qualifier)
        way = _direction(direction)

        def make(value: Token) -> Tree:
            return self._at_address(f"{words}{way.words}{word} ", limits, way, value, mask,
                                    one=word == "host")

        return self._remember(make, addresses=True)(operand)

    def _either(self, qualifier: Token | None, direction: ParseTree[Any], operand: Token) -> Tree:
        """`src 10.0.0.1`, `src 10/8`, `src 10.0.0.1:80`."""
        words, limits = self._qualified(qualifier)
        way = _direction(direction)

        def make(value: Token) -> Tree:
            return self._at_anything(f"{words}{way.words}", limits, way, value)

        return self._remember(make, addresses=True)(operand)

    def _bare(self, value: Token) -> Tree:
        """A value alone: it belongs to the words before it, else it is an address."""
        if self._last is not None and (self._last_takes_addresses or not _looks_like_address(_plain(value))):
            try:
                return self._last(value)
            except FilterError:
                if not _looks_like_address(_plain(value)) and _plain(value)[:1].isdigit():
                    raise
        if _looks_like_address(_plain(value)):
            return self._at_anything("", tree.EVERYTHING, _EITHER, value)
        raise self._unknown(value)

    def _at_address(self, words: str, limits: Tree, way: _Direction, value: Token, mask: Token | None, *,
                    one: bool) -> Tree:
        text = _plain(value)
        try:
            if mask is not None:
                where = operands.masked(text, _plain(mask))
            else:
                where = operands.host(text) if one else operands.network(text)
        except ValueError as error:
            expected = "an address such as 10.0.0.1 or 2001:db8::1" if one else \
                "a network such as 10.0.0.0/8, 10/8 or 2001:db8::/32"
            raise self._wrong(value, error, expected) from error
        ending = f" mask {_plain(mask)}" if mask is not None else ""
        meaning = all_of(limits, way.join(lambda side: Within(_SIDES[side][0], (where,))))
        return Term(f"{words}{text}{ending}", meaning)

    def _at_anything(self, words: str, limits: Tree, way: _Direction, value: Token) -> Tree:
        try:
            endpoint = operands.endpoint(_plain(value))
        except ValueError as error:
            raise self._wrong(value, error, "an address and port such as 10.0.0.5:443") from error
        if endpoint is None:
            return self._at_address(words, limits, way, value, None, one="/" not in value)
        where, port = endpoint

        def end(side: str) -> Tree:
            return And((Within(_SIDES[side][0], (where,)), Compare(_SIDES[side][1], "=", port)))

        return Term(f"{words}{_plain(value)}", all_of(limits, way.join(end), *_has_ports()))

    def _port(self, qualifier: Token | None, direction: ParseTree[Any] | None, word: Token,
              operator: Token | None, operand: Token) -> Tree:
        words, limits = self._qualified(qualifier)
        way, sign = _direction(direction), _operator(operator)

        def make(value: Token) -> Tree:
            spans = [span for part in _plain(value).split(",") for span in self._ports(value, part, sign)]
            found = any_of(*(way.join(partial(_port_in, span)) for span in spans))
            comparison = "" if sign in ("=", "!=") else f"{sign.removeprefix('!')} "
            term = Term(f"{words}{way.words}{word} {comparison}{_plain(value)}", all_of(found, limits, *_has_ports()))
            return Not(term) if sign.startswith("!") else term

        return self._remember(make)(operand)

    def _ports(self, value: Token, part: str, sign: Operator) -> list[tuple[int, int]]:
        """The ranges of ports that `sign part` means."""
        try:
            if "~" in sign:
                return [(port, port) for port in operands.ports_named(part)]
            low, high = operands.port_range(part)
        except ValueError as error:
            expected = "a port, 0 to 65535, its name in /etc/services, or a range such as 1-1024"
            raise self._wrong(value, error, expected) from error
        if sign not in ("=", "!=") and (low != high or part != _plain(value)):
            raise self._wrong(value, ValueError(), "a port after a comparison such as >=")
        return [{"<": (0, low - 1), "<=": (0, low), ">": (low + 1, 65535), ">=": (low, 65535)}.get(sign, (low, high))]

    def _proto(self, qualifier: Token | None, _: Token, operator: Token | None, name: Token) -> Tree:
        side, limits = self._qualified(qualifier)
        return self._keyed(KEYS["proto"], _operator(operator), name, side, limits)

    def _ether(self, _: Token, direction: ParseTree[Any] | None, __: Token | None, operand: Token) -> Tree:
        way = _direction(direction)

        def make(value: Token) -> Tree:
            try:
                mac = words.SOURCE_MAC.read(_plain(value))
            except ValueError as error:
                raise self._wrong(value, error, "a MAC address such as 02:00:00:00:00:0a") from error
            return Term(f"ether {way.words}host {_plain(value)}",
                        way.join(lambda side: Compare(_SIDES[side][2], "=", mac)))

        return self._remember(make)(operand)

    def _private(self, direction: ParseTree[Any] | None, word: Token) -> Tree:
        way = replace(_EITHER, both=True) if direction is None else _direction(direction)
        return Term(f"{way.words}{word}",
                    way.join(lambda side: Within(_SIDES[side][0], PRIVATE)))

    def _named(self, direction: ParseTree[Any] | None, word: Token, operator: Token | None, operand: Token) -> Tree:
        way, sign = _direction(direction), _operator(operator)

        def make(value: Token) -> Tree:
            self._check_text(str(word), sign, value)
            meaning = way.join(lambda side: Named(_SIDES[side][0], _plain(value), "~" not in sign))
            term = Term(f"{way.words}{word} {'~ ' * ('~' in sign)}{value}", meaning)
            return Not(term) if sign.startswith("!") else term

        return self._remember(make)(operand)

    def _anywhere(self, word: Token, operand: Token) -> Tree:
        def make(value: Token) -> Tree:
            return Term(f"{word} {value}", any_of(*self._places(_plain(value))))

        return self._remember(make)(operand)

    def _places(self, text: str) -> Iterator[Tree]:
        """Tests of a text wherever one is: names of hosts, texts of fields, services, beginnings of addresses."""
        if self._use == "flows":
            yield from (Named(side, text, False, among_others=True) for side, *_ in _SIDES.values())
        for key in KEYS.values():
            if key.kind == "text" and (self._use == "flows" or key.records is not None):
                yield Match(key, "~", text)
        try:
            ports = any_of(*(_port_in((port, port), side) for port in operands.ports_named(text) for side in _SIDES))
            yield all_of(ports, *_has_ports())
        except operands.OperandError:
            pass  # no service, or too many
        network = operands.beginning(text)
        if network is not None:
            yield from (Within(side, (network,)) for side, *_ in _SIDES.values())

    def _key(self, word: Token, operator: Token | None, name: Token) -> Tree:
        return self._keyed(KEYS[word], _operator(operator), name)

    def _ends(self, direction: ParseTree[Any] | None, word: Token, operator: Token | None, name: Token) -> Tree:
        """`as 64500`, `src as 64500`: a key of each end."""
        way, sign = _direction(direction), _operator(operator)
        keys = dict(zip(_SIDES, words.ENDS[word], strict=True))
        for key_word in keys.values():
            self._check_use(name, KEYS[key_word])
        positive = cast(Operator, "~" if "~" in sign else "=" if sign == "!=" else sign)

        def make(value: Token) -> Tree:
            found = way.join(lambda side: self._keyed(KEYS[keys[side]], positive, value))
            shown = "" if positive == "=" else f"{positive} "
            term = Term(f"{way.words}{word} {shown}{value}", found)
            return Not(term) if sign.startswith("!") else term

        made = make(name)
        if sign in ("=", "~"):
            self._remember(make)
        return made

    def _optional_key(self, word: Token, operator: Token | None, operand: Token | None) -> Tree:
        key = KEYS[word]
        self._check_use(word, key)
        if operand is None:
            return Term(key.word, Compare(key, ">", 0) if key.positive else Not(Compare(key, "=", 0)))
        return self._keyed(key, _operator(operator), operand)

    def _keyed(self, key: FilterKey, sign: Operator, operand: Token, words: str = "",
               limits: Tree = tree.EVERYTHING) -> Tree:
        self._check_use(operand, key)

        def make(value: Token) -> Tree:
            test = {"text": self._text_test, "address": self._address_test}.get(key.kind, self._number_test)
            meaning = test(key, sign, value)
            shown = "" if sign == "=" else f"{sign} "
            return Term(f"{words}{key.word} {shown}{with_unit(key, str(value))}", all_of(limits, meaning))

        if sign in ("=", "~"):
            self._remember(make)
        return make(operand)

    def _text_test(self, key: FilterKey, sign: Operator, value: Token) -> Tree:
        self._check_text(key.word, sign, value)
        patterns = [_plain(value)] if value.type == "STRING" or sign in ("~", "!~") else value.split(",")
        positive: Operator = "~" if "~" in sign else "="
        found = any_of(*(Match(key, positive, pattern) for pattern in patterns))
        return Not(found) if sign.startswith("!") else found

    def _address_test(self, key: FilterKey, sign: Operator, value: Token) -> Tree:
        if sign not in ("=", "!="):
            raise FilterError(self._text, _position(value), f'{key.word} does not take "{sign}"', "= or !=")
        parts = _plain(value).split(",")
        try:
            for part in parts:
                operands.network(part)
        except ValueError as error:
            raise self._wrong(value, error, key.expected) from error
        found = any_of(*(Match(key, "=", part) for part in parts))
        return Not(found) if sign == "!=" else found

    def _number_test(self, key: FilterKey, sign: Operator, value: Token) -> Tree:
        if sign in ("~", "!~") or (key.kind == "bits" and sign not in ("=", "!=")):
            raise FilterError(self._text, _position(value), f'{key.word} does not take "{sign}"',
                              f"{key.expected} after {key.word}" + ("" if key.kind == "bits" else ", or a comparison"))
        text = _plain(value)
        parts = text.split(",") if sign in ("=", "!=") and key.kind == "number" else [text]
        positive: Operator = "=" if sign == "!=" else sign
        try:
            found = any_of(*(compared(key, positive, key.read(part)) for part in parts))
        except ValueError as error:
            raise self._wrong(value, error, key.expected) from error
        return Not(found) if sign == "!=" else found

    # ---- help

    def _remember(self, make: _Maker, *, addresses: bool = False) -> _Maker:
        """Use this maker for values that follow alone."""
        self._last, self._last_takes_addresses = make, addresses
        return make

    def _check_text(self, word: str, sign: Operator, value: Token) -> None:
        if sign not in ("=", "!=", "~", "!~"):
            raise FilterError(self._text, _position(value), f'{word} is text and cannot be compared by "{sign}"',
                              "=, !=, ~ or !~")

    def _check_use(self, place: Token, key: FilterKey) -> None:
        if self._use == "records" and key.records is None:
            raise FilterError(self._text, _position(place), f"exported records have no {key.word}",
                              hint="Flow Records have addresses, ports, bytes, packets, age, state, ...")

    def _wrong(self, value: Token, error: ValueError, expected: str) -> FilterError:
        """The error for an operand that cannot be read; an OperandError says more exactly what is expected."""
        position, at_end = _position(value), _position(value) + len(value) >= len(self._text)
        if isinstance(error, QuantityError):
            return FilterError(self._text, position, printable(error.problem), hint=error.hint, unfinished=at_end)
        exact = str(error) if isinstance(error, operands.OperandError) else ""
        return FilterError(self._text, position, f'"{printable(_plain(value))}" is not valid here', exact or expected,
                           unfinished=at_end)

    def _unknown(self, value: Token) -> FilterError:
        return unknown_word(self._text, _position(value), _plain(value), quoted=value.type == "STRING")


def with_unit(key: FilterKey, value: str) -> str:
    """The value with the unit that it is read in, where it has none and that is not obvious."""
    return f"{value}{key.unit}" if key.unit and re.fullmatch(r"[\d.]+", value) else value


def protocol(word: str) -> Tree:
    """The meaning of `tcp`, `icmp6`, `ip`."""
    if word in words.VERSION_WORDS:
        return Compare(words.VERSION, "=", words.VERSION_WORDS[word])
    number = words.PROTOCOL_WORDS[word]
    found = Compare(words.PROTOCOL, "=", number)
    if number == Protocol.GRE:  # also what it carries
        return any_of(found, *(Compare(KEYS["tunnel"], "=", tunnel) for tunnel in (Tunnel.GRE, Tunnel.ERSPAN)))
    version = _VERSIONS.get(number)
    return And((found, Compare(words.VERSION, "=", version))) if version else found


def _has_ports() -> tuple[Tree, Tree]:
    """The flow has ports, and they are known."""
    return (any_of(*(Compare(words.PROTOCOL, "=", number) for number in sorted(PORT_PROTOCOLS))),
            any_of(*(Compare(words.KIND, "=", kind) for kind in HAVE_PORTS)))


def _port_in(span: tuple[int, int], side: str) -> Tree:
    return in_span(_SIDES[side][1], *span)


def _direction(node: ParseTree[Any] | None) -> _Direction:
    if node is None:
        return _EITHER
    first, joint, second = node.children
    if joint is None or second == first:
        return _Direction(f"{first} ", (str(first),))
    both = _token(joint).type == "AND"
    return _Direction(f"src {'and' if both else 'or'} dst ", both=both)


def _operator(token: Token | None) -> Operator:
    return "=" if token is None or token == "==" else cast(Operator, str(token))


def _plain(value: Token) -> str:
    """The operand without quotes, or tcpdump's backslash before a name."""
    return str(value[1:-1]) if value.type == "STRING" else str(value).removeprefix("\\")


def _looks_like_address(text: str) -> bool:
    digits = text.lstrip("[")
    return (digits.count(".") == 3 or "/" in text or digits.count(":") >= 2) and \
        all(character in "0123456789abcdefABCDEF.:/[]" for character in text)


def _tree(node: object) -> ParseTree[Any]:
    return cast(ParseTree[Any], node)


def _token(node: object) -> Token:
    return cast(Token, node)


def _position(value: Token) -> int:
    return value.start_pos or 0
