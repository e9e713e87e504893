"""Filters made from what is on screen: `=` and `!=` on a cell, and a flow for tcpdump."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flowtop.fields import cell_terms
from flowtop.fields.columns import Column
from flowtop.fields.registry import COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.filters.tree import And, Or, Tree, as_text
from flowtop.model.kinds import HAVE_PORTS, ICMP_VERSIONS, PORT_PROTOCOLS, IpVersion, Kind, Protocol, RecordBits
from flowtop.model.rows import FlowRow, Ways
from flowtop.text import units
from flowtop.text.lookups import NO_LOOKUPS, Lookups

_NO_PORTS = RecordBits.NO_SOURCE_PORT | RecordBits.NO_DESTINATION_PORT
_TCPDUMP_PROTOCOLS: dict[int, str] = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.SCTP: "sctp",
                                      Protocol.ICMP: "icmp", Protocol.ICMPV6: "icmp6"}
"""Protocols that are words of pcap-filter(7)."""


def add_term(text: str, column_id: str, row: FlowRow, negate: bool, lookups: Lookups,
             columns: Mapping[str, Column] = COLUMNS) -> str:
    """The filter `text`, narrowed to flows that show the same as `row` in that column, or that do not.

    A term that is there already is not added again, and its opposite is removed. A cell that has no filter changes
    nothing.

    Args:
        columns: those of the row: of flows, or of groups.

    Raises:
        FilterError: `text` is not a filter.
    """
    term = columns[column_id].term(row, lookups)
    if not term:
        return text
    positive, opposite = compile_filter(term), compile_filter(_not(term))
    if negate:
        positive, opposite = opposite, positive
    if not text.strip():
        return positive.text
    tree = compile_filter(text).tree
    parts = [as_text(part) for part in _conjuncts(tree)]
    if set(_texts(positive.tree)) <= set(parts):
        return text
    gone = set(_texts(opposite.tree))
    kept = [part for part in _conjuncts(tree) if as_text(part) not in gone]
    if len(kept) == len(parts):
        return f"({text}) and {positive.text}" if isinstance(tree, Or) else f"{text} and {positive.text}"
    return " and ".join([*map(_inside_and, kept), positive.text])


def widened(text: str, column_id: str, row: FlowRow, lookups: Lookups,
            columns: Mapping[str, Column] = COLUMNS) -> str:
    """`add_term`; where the filter has that term already, a wider one in its place, and in the end none.

    For the cell of an endpoint: the endpoint, its host, the host's network, any. For other cells: the value, any.

    Args, Raises: as for `add_term`.
    """
    column = columns[column_id]
    ladder = [term for term in (column.term(row, lookups), *column.wider(row, lookups)) if term]
    if not ladder or not text.strip():
        return add_term(text, column_id, row, False, lookups, columns)
    tree = compile_filter(text).tree
    parts = [as_text(part) for part in _conjuncts(tree)]
    for term, wider in zip(ladder, (*ladder[1:], ""), strict=True):
        there = _texts(compile_filter(term).tree)
        if set(there) <= set(parts):
            kept = [_inside_and(part) for part in _conjuncts(tree) if as_text(part) not in there]
            return " and ".join([*kept, *filter(None, [wider])])
    return add_term(text, column_id, row, False, lookups, columns)


def conversation_as_filter(row: FlowRow, lookups: Lookups) -> str:
    """A filter that both directions of the flow's conversation pass, and no other flow; "" if its ends are not known.

    Of ICMP: everything of that protocol between the two hosts, as answers have another type.
    """
    if row.kind == Kind.AGGREGATE:
        return ""
    protocol = cell_terms.protocol_term(row, lookups)
    if row.ip_version and row.protocol in PORT_PROTOCOLS and row.kind in HAVE_PORTS and not row.record_bits & _NO_PORTS:
        ends = [units.endpoint(raw, row.ip_version, port) for raw, port in (
            (row.source_address, row.source_port), (row.destination_address, row.destination_port))]
    else:
        word = "host" if row.ip_version else "mac"
        ends = [f"{word} {units.address(raw, row.ip_version)}" for raw in (row.source_address, row.destination_address)]
    return " and ".join(filter(None, [protocol, *ends]))


def flow_as_filter(row: FlowRow, lookups: Lookups) -> str:
    """A filter that only flows with this row's Flow Key pass; for a biflow, flows between its ends, both directions."""
    if row.ways is not None and row.kind == Kind.FLOW:
        return _ways_as_filter(row, row.ways)
    parts = [cell_terms.interface_term(row, lookups), cell_terms.direction_term(row, lookups)]
    if row.kind != Kind.AGGREGATE:
        parts.append(cell_terms.vlan_words(row.vlan_id, row.customer_vlan_id))
    if row.tunnel or row.kind == Kind.PARENT:
        parts += ["parent" if row.kind == Kind.PARENT else "not parent", cell_terms.tunnel_id_term(row, lookups)]
    parts.append(cell_terms.protocol_term(row, lookups))
    if row.kind != Kind.AGGREGATE:
        parts += [cell_terms.source_term(row, lookups), cell_terms.destination_term(row, lookups)]
        if row.protocol in ICMP_VERSIONS and row.kind == Kind.FLOW:
            parts.append(_icmp_words(row))
        elif row.kind == Kind.FRAGMENT or row.protocol not in PORT_PROTOCOLS:
            parts.append(cell_terms.fragment_words(row.kind))
    return " and ".join(filter(None, parts))


def _ways_as_filter(row: FlowRow, ways: Ways) -> str:
    """Without interfaces and directions, which may differ between the two directions."""
    protocol = cell_terms.protocol_term(row, NO_LOOKUPS)
    if row.protocol in ICMP_VERSIONS:  # an answer has another type
        ends = cell_terms.source_term, cell_terms.destination_term
        each = [" and ".join([*(end(way, NO_LOOKUPS) for end in ends), _icmp_words(way)])
                for way in (ways.forward, ways.reverse) if way is not None]
        return f"{protocol} and ({' or '.join(f'({one})' for one in each)})" if len(each) > 1 else (
            f"{protocol} and {each[0]}")
    hosts = [units.address(raw, row.ip_version) for raw in (row.source_address, row.destination_address)]
    if not row.ip_version:
        hosts = [f"mac {host}" for host in hosts]
    elif row.protocol in PORT_PROTOCOLS and not row.record_bits & _NO_PORTS:
        hosts = [units.endpoint(raw, row.ip_version, port) for raw, port in (
            (row.source_address, row.source_port), (row.destination_address, row.destination_port))]
    return " and ".join(filter(None, [protocol, *hosts]))


def _icmp_words(row: FlowRow) -> str:
    return f"icmptype {row.destination_port >> 8} and icmpcode {row.destination_port & 255}"


def flow_as_tcpdump(row: FlowRow) -> str:
    """The flow's packets as a pcap-filter(7) expression, for `tcpdump -i INTERFACE '...'`; a biflow's both directions.

    Empty if there is no such expression: tcpdump does not look into tunnels.
    """
    if row.tunnel and row.kind != Kind.PARENT:
        return ""
    if not row.ip_version and row.kind != Kind.AGGREGATE:
        ends = (("src", row.source_address), ("dst", row.destination_address))
        return " and ".join(f"ether {side} {units.address(raw, row.ip_version)}" for side, raw in ends)
    back = None if row.ways is None else row.ways.reverse or _answer(row)
    if row.ways is None or back is None:
        packets = _packets(row)
    else:
        packets = f"({_packets(row.ways.forward)}) or ({_packets(back)})"
    if row.ways is not None and row.ways.tags_differ:
        return _whatever_tags(packets)
    tags = [f"vlan {vlan}" for vlan in (row.vlan_id, row.customer_vlan_id) if vlan]  # first: it moves the headers
    return " and ".join([*tags, f"({packets})"]) if tags and " or " in packets else " and ".join([*tags, packets])


_SAME_WORDS = re.compile(
    r"(tcp|udp|sctp|icmp|icmp6|ip|ip6|((src|dst) )?(host [0-9a-f.:]+|net [0-9a-f.:]+/[0-9]+|port [0-9]+))")
"""Terms that pcap-filter(7) writes as we do."""


def words_as_tcpdump(text: str) -> str:
    """A filter as a pcap-filter(7) expression; "" where it tests what tcpdump does not know, such as processes."""
    if not text.strip():
        return ""
    terms = _texts(compile_filter(text).tree)
    return " and ".join(terms) if all(_SAME_WORDS.fullmatch(term) for term in terms) else ""


def _whatever_tags(packets: str) -> str:
    """With no VLAN tag, one, or two: each `vlan` moves the headers for all that comes after it."""
    return f"({packets}) or (vlan and (({packets}) or (vlan and ({packets}))))"


def _answer(row: FlowRow) -> FlowRow | None:
    """The opposite direction of a flow of which it was not seen; None if it cannot be known."""
    if row.kind != Kind.FLOW or row.protocol in ICMP_VERSIONS:
        return None
    return row._replace(source_address=row.destination_address, source_port=row.destination_port,
                        destination_address=row.source_address, destination_port=row.source_port)


def _packets(row: FlowRow) -> str:
    """The packets of one direction, without VLAN tags."""
    name = _TCPDUMP_PROTOCOLS.get(row.protocol)
    parts = [name or f"{'ip6' if row.ip_version == IpVersion.V6 else 'ip'} proto {row.protocol}"]
    if row.kind != Kind.AGGREGATE:
        ports = row.kind in HAVE_PORTS and name in ("tcp", "udp", "sctp")
        for side, raw, port in (("src", row.source_address, row.source_port),
                                ("dst", row.destination_address, row.destination_port)):
            parts.append(f"{side} host {units.address(raw, row.ip_version)}")
            if ports:
                parts.append(f"{side} port {port}")
        if row.kind == Kind.FRAGMENT:
            parts.append("ip6[6] == 44 and ip6[42:2] & 0xfff8 != 0" if row.ip_version == IpVersion.V6
                         else "ip[6:2] & 0x1fff != 0")
        elif row.protocol in ICMP_VERSIONS:
            parts.append(_icmp_of(row))
    return " and ".join(parts)


def _icmp_of(row: FlowRow) -> str:
    """Type and code; of ICMPv6 by offset, which old versions of libpcap know too."""
    kind, code = divmod(row.destination_port, 256)
    if row.protocol == Protocol.ICMPV6:
        return f"ip6[40] == {kind} and ip6[41] == {code}"
    return f"icmp[icmptype] == {kind} and icmp[icmpcode] == {code}"


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
