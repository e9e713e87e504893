"""Rows as JSON members or CSV cells: IANA element names and plain values."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flowtop.collecting import point_elements
from flowtop.elements import FLOW_ELEMENTS
from flowtop.record import Kind
from flowtop.view.query import FlowRow
from flowtop.view.units import printable

_ICMP, _ICMPV6 = 1, 58
_IPV4 = 4

CSV_NAMES = (*FLOW_ELEMENTS, "duplicate")
"""Every name that `flow_record` may give, in column order of CSV."""


def iso_time(unix_ms: int) -> str:
    """Milliseconds since 1970 UTC as RFC 3339 has it."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flow_record(row: FlowRow, interfaces: Mapping[int, str]) -> dict[str, Any]:
    """One flow as IANA element names and plain values.

    An aggregate entry (map full) has no addresses and no ports. `duplicate` (not an IANA element) is there, and true,
    only when another Observation Point's flow stands for the same packets.
    """
    family, ip = (socket.AF_INET, "IPv4") if row.ip_version == _IPV4 else (socket.AF_INET6, "IPv6")
    record: dict[str, Any] = {
        "flowId": row.flow_id,
        **point_elements(interfaces.get(row.ifindex, str(row.ifindex)), printable),
        "flowDirection": row.direction,
        "ipVersion": row.ip_version,
        "protocolIdentifier": row.protocol,
    }
    if row.kind != Kind.AGGREGATE:
        size = 4 if ip == "IPv4" else 16
        record[f"source{ip}Address"] = socket.inet_ntop(family, row.source_address[:size])
        record["sourceTransportPort"] = row.source_port
        record[f"destination{ip}Address"] = socket.inet_ntop(family, row.destination_address[:size])
        record["destinationTransportPort"] = row.destination_port
        if row.protocol in (_ICMP, _ICMPV6) and row.kind == Kind.FLOW:
            record["destinationTransportPort"] = 0
            record["icmpTypeCodeIPv4" if row.protocol == _ICMP else "icmpTypeCodeIPv6"] = row.destination_port
        record |= {
            "vlanId": row.vlan_id,
            "dot1qCustomerVlanId": row.customer_vlan_id,
            "sourceMacAddress": row.source_mac.hex(":"),
            "destinationMacAddress": row.destination_mac.hex(":"),
            "ipClassOfService": row.tos,
            "ipTTL": row.ttl,
            "tcpControlBits": row.tcp_control_bits,
        }
    record |= {
        "flowStartMilliseconds": row.start_ms,
        "flowEndMilliseconds": row.end_ms,
        "octetDeltaCount": row.octet_delta,
        "packetDeltaCount": row.packet_delta,
        "octetTotalCount": row.octet_total,
        "packetTotalCount": row.packet_total,
    }
    if row.end_reason:
        record["flowEndReason"] = row.end_reason
    if row.duplicate:
        record["duplicate"] = True
    return record
