"""Rows as JSON members or CSV cells: IANA element names and plain values."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flowtop.collecting import point_elements
from flowtop.elements import ELEMENTS, FLAGS, FLOW_ELEMENTS, TCP_MEMBERS, tunnel_values
from flowtop.record import UNKNOWN_DIRECTION, Kind
from flowtop.view.groups import group_fields, member_names
from flowtop.view.query import FlowRow, Page, Query, Ways
from flowtop.view.units import printable

_ICMP, _ICMPV6 = 1, 58
_IPV4 = 4

GROUP_ELEMENTS = ("deltaFlowCount", "flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount",
                  "packetDeltaCount", "octetTotalCount", "packetTotalCount")
"""What a group has after the members of its fields."""

assert all(name in ELEMENTS for name in GROUP_ELEMENTS)


def iso_time(unix_ms: int) -> str:
    """Milliseconds since 1970 UTC as RFC 3339 has it."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page_record(row: FlowRow, page: Page) -> dict[str, Any]:
    """One row of a page. Where it counts from a mark, that is what the delta counts are, and there are no totals."""
    found = record(row, page.query, page.interfaces)
    return found if page.marked_s is None else _since_mark(found)


def page_names(page: Page) -> tuple[str, ...]:
    """Every name that `page_record` may give, in column order of CSV."""
    names = record_names(page.query)
    return names if page.marked_s is None else tuple(name for name in names if name not in _DELTA_OF)


def _since_mark(found: dict[str, Any]) -> dict[str, Any]:
    counts = {_DELTA_OF[name]: count for name, count in found.items() if name in _DELTA_OF}
    return {name: counts.get(name, value) for name, value in found.items() if name not in _DELTA_OF}


def record_names(query: Query) -> tuple[str, ...]:
    """Every name that `record` may give for rows of this query, in column order of CSV."""
    fields = group_fields(query.group)
    if query.biflow:
        return (*FLOW_ELEMENTS, *TCP_MEMBERS, *FLAGS, *BIFLOW_ELEMENTS)
    return (*member_names(fields), *GROUP_ELEMENTS) if fields else (*FLOW_ELEMENTS, *TCP_MEMBERS, *FLAGS)


def record(row: FlowRow, query: Query, interfaces: Mapping[int, str]) -> dict[str, Any]:
    """One row of a page of this query."""
    if row.ways is not None:
        return biflow_record(row.ways, interfaces)
    return group_record(row, query.group, interfaces) if row.group else flow_record(row, interfaces)


def rows_name(query: Query) -> str:
    """What rows of this query are, together."""
    return "groups" if group_fields(query.group) else "biflows" if query.biflow else "flows"


def record_cells(row: FlowRow, query: Query, interfaces: Mapping[int, str]) -> dict[str, Any]:
    """The same for CSV, which has no lists: the hosts of a pair stand side by side."""
    return _cells(record(row, query, interfaces))


def page_cells(row: FlowRow, page: Page) -> dict[str, Any]:
    """`page_record` for CSV."""
    return _cells(page_record(row, page))


def _cells(found: dict[str, Any]) -> dict[str, Any]:
    return {name: " ".join(cell) if isinstance(cell, list) else cell for name, cell in found.items()}


def flow_record(row: FlowRow, interfaces: Mapping[int, str]) -> dict[str, Any]:
    """One flow.

    An aggregate entry (map full) has no addresses and no ports. `duplicate` (not an IANA element) is there, and true,
    only when another Observation Point's flow stands for the same packets, `parent` when the flows it carries do.
    """
    found: dict[str, Any] = {
        "flowId": row.flow_id,
        **point_elements(interfaces.get(row.ifindex, str(row.ifindex)), printable),
        **({} if row.direction == UNKNOWN_DIRECTION else {"flowDirection": row.direction}),
        "ipVersion": row.ip_version,
        "protocolIdentifier": row.protocol,
    }
    if row.kind != Kind.AGGREGATE:
        found |= _of_packets(row)
        found |= _of_tcp(row)
    found |= _sums(row)
    if row.end_reason:
        found["flowEndReason"] = row.end_reason
    if row.tunnel:
        found |= tunnel_values(row.tunnel, row.tunnel_id)
    if row.duplicate:
        found["duplicate"] = True
    if row.kind == Kind.PARENT:
        found["parent"] = True
    return found


def group_record(row: FlowRow, group: tuple[str, ...], interfaces: Mapping[int, str]) -> dict[str, Any]:
    """One group: what its flows have in common, then sums. A group of aggregates has no member for what they hide."""
    found: dict[str, Any] = {}
    for field, key in zip(group_fields(group), row.group, strict=True):
        found |= field.values(key, interfaces)
    return found | {"deltaFlowCount": row.flows} | _sums(row)


def biflow_record(ways: Ways, interfaces: Mapping[int, str]) -> dict[str, Any]:
    """One biflow as RFC 5103 has it: the flow from the initiator, and the reverse elements of the flow to it.

    One of which only one way was seen has none of these: it is a flow as any other.
    """
    found = flow_record(ways.forward, interfaces)
    if ways.reverse is None:
        return found
    back = flow_record(ways.reverse, interfaces)
    found["biflowDirection"] = _INITIATOR if ways.opened else _ARBITRARY
    return found | {_reversed(name): back[name] for name in _REVERSED if name in back}


def _reversed(name: str) -> str:
    return f"reverse{name[0].upper()}{name[1:]}"


_REVERSED = ("ipClassOfService", "ipTTL", "tcpControlBits", *TCP_MEMBERS, "flowStartMilliseconds",
             "flowEndMilliseconds", "octetDeltaCount", "packetDeltaCount", "octetTotalCount", "packetTotalCount",
             "flowEndReason")
_ARBITRARY, _INITIATOR = 0, 1
"""biflowDirection (RFC 5103 section 6.3)."""
BIFLOW_ELEMENTS = ("biflowDirection", *map(_reversed, _REVERSED))
"""What a biflow has after the elements of its flow from the initiator."""
_DELTA_OF = {name: name.replace("Total", "Delta")
             for name in ("octetTotalCount", "packetTotalCount", "reverseOctetTotalCount", "reversePacketTotalCount")}


def _of_packets(row: FlowRow) -> dict[str, Any]:
    """What the packets of a flow had in common."""
    family, ip = (socket.AF_INET, "IPv4") if row.ip_version == _IPV4 else (socket.AF_INET6, "IPv6")
    size = 4 if ip == "IPv4" else 16
    found: dict[str, Any] = {
        f"source{ip}Address": socket.inet_ntop(family, row.source_address[:size]),
        "sourceTransportPort": row.source_port,
        f"destination{ip}Address": socket.inet_ntop(family, row.destination_address[:size]),
        "destinationTransportPort": row.destination_port,
    }
    if row.protocol in (_ICMP, _ICMPV6) and row.kind == Kind.FLOW:
        found["destinationTransportPort"] = 0
        found["icmpTypeCodeIPv4" if row.protocol == _ICMP else "icmpTypeCodeIPv6"] = row.destination_port
    return found | {
        "vlanId": row.vlan_id,
        "dot1qCustomerVlanId": row.customer_vlan_id,
        "sourceMacAddress": row.source_mac.hex(":"),
        "destinationMacAddress": row.destination_mac.hex(":"),
        "ipClassOfService": row.tos,
        "ipTTL": row.ttl,
        "tcpControlBits": row.tcp_control_bits,
    }


def _of_tcp(row: FlowRow) -> dict[str, Any]:
    """What is known of a TCP connection; a member each."""
    values = (row.syn_ms, row.fin_ms, row.rst_ms, row.rtt_us, row.retransmitted, row.out_of_order,
              row.congestion_window)
    return {name: value for name, value in zip(TCP_MEMBERS, values, strict=True) if value}


def _sums(row: FlowRow) -> dict[str, Any]:
    return {
        "flowStartMilliseconds": row.start_ms,
        "flowEndMilliseconds": row.end_ms,
        "octetDeltaCount": row.octet_delta,
        "packetDeltaCount": row.packet_delta,
        "octetTotalCount": row.octet_total,
        "packetTotalCount": row.packet_total,
    }
