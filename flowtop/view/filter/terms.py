"""From what is on screen to a filter: `=` and `!=` on a cell, and a flow handed to another tool."""

from __future__ import annotations

from collections.abc import Mapping

from flowtop.record import Kind
from flowtop.view import column_keys, units
from flowtop.view.columns import COLUMNS, Column
from flowtop.view.filter.language import compile_filter
from flowtop.view.filter.tree import And, Or, Tree, as_text
from flowtop.view.query import FlowRow

_ICMP, _ICMPV6 = 1, 58


def add_term(text: str, column_id: str, row: FlowRow, negate: bool, interfaces: Mapping[int, str],
             columns: Mapping[str, Column] = COLUMNS) -> str:
    """The filter `text`, narrowed to flows that show the same as `row` in that column, or that do not.

    A term that is there already is not added again; its opposite gives way to it. A cell that no filter asks for
    changes nothing.

    Args:
        columns: those of the row: of flows, or of groups.

    Raises:
        FilterError: `text` is no filter.
    """
    said = columns[column_id].term(row, interfaces)
    if not said:
        return text
    wanted, opposite = compile_filter(said), compile_filter(_not(said))
    if negate:
        wanted, opposite = opposite, wanted
    if not text.strip():
        return wanted.text
    tree = compile_filter(text).tree
    parts = [as_text(part) for part in _conjuncts(tree)]
    if set(_texts(wanted.tree)) <= set(parts):
        return text
    gone = set(_texts(opposite.tree))
    kept = [part for part in _conjuncts(tree) if as_text(part) not in gone]
    if len(kept) == len(parts):
        return f"({text}) and {wanted.text}" if isinstance(tree, Or) else f"{text} and {wanted.text}"
    return " and ".join([*map(_inside_and, kept), wanted.text])


def flow_as_filter(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """A filter that only flows of this row's Flow Key pass."""
    parts = [column_keys.interface_term(row, interfaces), column_keys.direction_term(row, interfaces)]
    if row.vlan_id:
        parts.append(column_keys.vlan_term(row, interfaces))
    parts.append(column_keys.protocol_term(row, interfaces))
    if row.kind != Kind.AGGREGATE:
        parts += [column_keys.source_term(row, interfaces), column_keys.destination_term(row, interfaces)]
        if row.protocol in (_ICMP, _ICMPV6) and row.kind == Kind.FLOW:
            parts.append(f"icmptype {row.destination_port >> 8}")
    return " and ".join(parts)


def flow_as_tcpdump(row: FlowRow) -> str:
    """The flow's packets as pcap-filter(7) puts it, for `tcpdump -i INTERFACE '...'`."""
    name = {6: "tcp", 17: "udp", 132: "sctp", _ICMP: "icmp", _ICMPV6: "icmp6"}.get(row.protocol)
    parts = [f"vlan {vlan}" for vlan in (row.vlan_id, row.customer_vlan_id) if vlan]  # first: it moves the headers
    parts.append(name or f"{'ip6' if row.ip_version == 6 else 'ip'} proto {row.protocol}")
    if row.kind != Kind.AGGREGATE:
        ports = row.kind == Kind.FLOW and name in ("tcp", "udp", "sctp")
        for side, raw, port in (("src", row.source_address, row.source_port),
                                ("dst", row.destination_address, row.destination_port)):
            parts.append(f"{side} host {units.address(raw, row.ip_version)}")
            if ports:
                parts.append(f"{side} port {port}")
        if row.protocol == _ICMP and row.kind == Kind.FLOW:
            parts.append(f"icmp[icmptype] == {row.destination_port >> 8}")
    return " and ".join(parts)


def _not(text: str) -> str:
    if text.startswith("not "):
        return text.removeprefix("not ")
    return f"not ({text})" if " and " in text else f"not {text}"


def _conjuncts(tree: Tree) -> tuple[Tree, ...]:
    return tree.parts if isinstance(tree, And) else (tree,)


def _texts(tree: Tree) -> list[str]:
    return [as_text(part) for part in _conjuncts(tree)]


def _inside_and(tree: Tree) -> str:
    return f"({as_text(tree)})" if isinstance(tree, Or) else as_text(tree)
