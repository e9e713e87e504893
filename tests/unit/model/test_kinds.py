"""Protocols, TCP control bits, directions and kinds have names, and the names are used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowtop.model.kinds import (
    ANY_PROTOCOL,
    ICMP_VERSIONS,
    PORT_PROTOCOLS,
    TCP_NAMED_BITS,
    IpVersion,
    Protocol,
    TcpBits,
)

PACKAGE = Path(__file__).parents[3] / "flowtop"
NAMED = {PACKAGE / "model" / "kinds.py", PACKAGE / "wire" / "iana.py"}
"""Modules whose numbers are the definitions: of kinds, and of Information Elements."""

_SUBJECT = re.compile(r"(protocol|ip_version|next_header|tcp_(control_)?bits|\bbits|direction|\bversion)\b['\"\])]*$"
                      r"|(\.kind|\['kind'\])$")
"""Ends of expressions that hold a number of kinds.py."""
_COLLECTION = re.compile(r"protocol|flag_bits", re.I)
_COMMON = {1, 6, 17, 47, 58, 132, 136, 255}
"""Protocols that a collection of protocols would hardly be without."""
_NUMBERS = {**Protocol.__members__, **TcpBits.__members__, "ANY_PROTOCOL": ANY_PROTOCOL}


def literals(node: ast.AST) -> Iterator[int]:
    """Integers that are written in an expression, subscripts and calls apart."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.BinOp | ast.UnaryOp | ast.BoolOp):
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


def is_subject(node: ast.AST) -> bool:
    """Whether an expression holds a protocol, a version, TCP control bits, a direction or a kind."""
    if isinstance(node, ast.BinOp):
        return is_subject(node.left)
    return isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and bool(_SUBJECT.search(ast.unparse(node)))


def suspects(tree: ast.AST) -> Iterator[str]:
    """Expressions in which a number stands where kinds.py has a name."""
    for node in ast.walk(tree):
        found = False
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = any(map(is_subject, sides)) and any(set(literals(side)) - {0} for side in sides)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            found = is_subject(node.left) and any(literals(node.right)) and "bits" in ast.unparse(node.left)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("isin"):
            found = is_subject(node.args[0]) and any(literals(node.args[1]))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            found = _assigns_number(node)
        if found:
            yield ast.unparse(node)


def _assigns_number(node: ast.Assign | ast.AnnAssign) -> bool:
    """`_ICMP, _UDP = 1, 17`; `PORT_PROTOCOLS = frozenset({6, 17})`; `PROTOCOL_NAMES = {6: "tcp"}`."""
    assert node.value is not None
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        names = [ast.unparse(part) for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for name, value in zip(names, values, strict=False):
            number = _NUMBERS.get(name.strip("_"))
            if number is not None and isinstance(value, ast.Constant) and value.value == number:
                return True
        if any(_COLLECTION.search(name) or name.strip("_") in _NUMBERS for name in names):
            for part in ast.walk(node.value):
                keys = part.keys if isinstance(part, ast.Dict) else part.elts if isinstance(part, ast.Set) else []
                if any(key is not None and _COMMON & set(literals(key)) for key in keys):
                    return True
    return False


@pytest.mark.parametrize("text", [
    "row.protocol == 6", "17 == header['protocol']", "row.protocol in (1, 58)", "protocol not in (6, 17)",
    "row.ip_version == 6", "version == 4", "packet.tcp_bits & 0x12", "bits & 2 != 0", "columns['kind'] == 3",
    "row.direction == 1", "np.isin(flows['protocol'], (1, 58))", "_ICMP, _ICMPV6 = 1, 58", "_SYN = 0x02",
    "PORT_PROTOCOLS = frozenset({6, 17})", "PROTOCOL_NAMES: dict[int, str] = {6: 'tcp'}", "ANY_PROTOCOL = 255",
    "_ICMP = {1: 'icmpTypeCodeIPv4', 58: 'icmpTypeCodeIPv6'}",
    "header['version_class'] if header['version'] == 6 else None",
])
def test_a_number_in_place_of_a_name_is_found(text: str) -> None:
    assert [*suspects(ast.parse(text))]


@pytest.mark.parametrize("text", [
    "row.protocol == Protocol.TCP", "row.protocol == 0", "kind == 2", "version == VERSION", "len(protocols) == 1",
    "ICMP_TYPES = {136: 'neighbor-adv'}", "header['flags'] & 0x08", "_UDP_OCTETS = 8", "x[6] == protocol",
])
def test_other_numbers_are_left_alone(text: str) -> None:
    assert not [*suspects(ast.parse(text))]


def test_no_module_writes_numbers_that_have_names() -> None:
    found = [f"{path.relative_to(PACKAGE)}: {text}" for path in sorted(PACKAGE.rglob("*.py")) if path not in NAMED
             for text in suspects(ast.parse(path.read_text()))]
    assert not found, "\n".join(found)


def test_the_numbers_are_those_of_the_standards() -> None:
    import socket

    for name, number in (("ICMP", socket.IPPROTO_ICMP), ("TCP", socket.IPPROTO_TCP), ("UDP", socket.IPPROTO_UDP),
                         ("IPV6", socket.IPPROTO_IPV6), ("GRE", socket.IPPROTO_GRE), ("ESP", socket.IPPROTO_ESP),
                         ("AH", socket.IPPROTO_AH), ("ICMPV6", socket.IPPROTO_ICMPV6), ("SCTP", socket.IPPROTO_SCTP),
                         ("UDPLITE", socket.IPPROTO_UDPLITE), ("IPIP", socket.IPPROTO_IPIP),
                         ("HOPOPT", socket.IPPROTO_HOPOPTS), ("IPV6_ROUTE", socket.IPPROTO_ROUTING),
                         ("IPV6_FRAGMENT", socket.IPPROTO_FRAGMENT), ("IPV6_OPTIONS", socket.IPPROTO_DSTOPTS)):
        assert Protocol[name] == number
    assert sorted(PORT_PROTOCOLS) == [6, 17, 33, 132, 136]
    assert ICMP_VERSIONS == {1: IpVersion.V4, 58: IpVersion.V6}
    assert [bit.name for bit in TcpBits] == ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"]
    assert TCP_NAMED_BITS == 0x1FF, "all of RFC 9293's and AE of RFC 9768"
