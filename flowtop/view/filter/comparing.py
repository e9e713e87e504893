"""Comparisons of a word with a number; of words that stand for more than one field, all of it."""

from __future__ import annotations

from flowtop.record import Kind
from flowtop.view.filter import keys, values
from flowtop.view.filter.tree import And, Compare, Not, Operator, Tree, all_of, any_of
from flowtop.view.filter_key import FilterKey


def in_span(key: FilterKey, low: int, high: int) -> Tree:
    """From `low` to `high`, both included."""
    if low == high:
        return Compare(key, "=", low)
    return And((Compare(key, ">=", low), Compare(key, "<=", high)))


def compared(key: FilterKey, sign: Operator, number: float) -> Tree:
    """The key's number stands so to this one.

    Raises:
        values.OperandError: they cannot be compared that way.
    """
    if key is keys.KEYS["vlan"]:
        return _vlan(key, sign, number)
    if key is keys.KEYS["vni"]:
        return all_of(Compare(key, sign, number), Not(Compare(keys.KEYS["tunnel"], "=", 0)))
    if key is keys.KEYS["icmptype"]:
        low, high = 256 * int(number), 256 * int(number) + 255
        spans = {"<": (0, low - 1), "<=": (0, high), ">": (high + 1, 65535), ">=": (low, 65535), "=": (low, high)}
        return _of_icmp(in_span(keys.DESTINATION_PORT, *spans[sign]))
    if key is keys.KEYS["icmpcode"]:
        return _of_icmp(Compare(key, sign, number))
    return Compare(key, sign, number)


def _of_icmp(test: Tree) -> Tree:
    """The test, of flows of ICMP or ICMPv6 that are no later fragments."""
    kind = any_of(Compare(keys.PROTOCOL, "=", 1), Compare(keys.PROTOCOL, "=", 58))
    return all_of(test, kind, Compare(keys.KIND, "=", Kind.FLOW))


def _vlan(key: FilterKey, sign: Operator, number: float) -> Tree:
    tags = values.vlan_tags(int(number))
    if tags is not None:
        if sign != "=":
            raise values.OperandError(f"one VLAN ID after {sign}")
        return And((Compare(key, "=", tags[0]), Compare(keys.CUSTOMER_VLAN, "=", tags[1])))
    if not number:
        return Compare(key, sign, 0)
    return any_of(*(And((Compare(tag, sign, number), Not(Compare(tag, "=", 0)))) for tag in (key, keys.CUSTOMER_VLAN)))
