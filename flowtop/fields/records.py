"""A flow as JSON members: IANA element names and plain values, of rows on view and of Flow Records."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from flowtop.fields.groups import group_fields
from flowtop.model.elements import ELEMENTS, FLAGS, FLOW_ELEMENTS, TCP_MEMBERS, tunnel_values
from flowtop.model.exporters import point_elements
from flowtop.model.kinds import ICMP_VERSIONS, UNKNOWN_DIRECTION, IpVersion, Kind
from flowtop.model.record import FlowRecords
from flowtop.model.rows import FlowRow, Ways
from flowtop.text.units import printable

GROUP_ELEMENTS = ("deltaFlowCount", "flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount",
                  "packetDeltaCount", "octetTotalCount", "packetTotalCount")
"""What a group has after the members of its fields."""

assert all(name in ELEMENTS for name in GROUP_ELEMENTS)


def iso_time(unix_ms: int) -> str:
    """Milliseconds since 1970 UTC as RFC 3339 has it."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


def _of_packets(row: FlowRow) -> dict[str, Any]:
    """What the packets of a flow had in common."""
    family, ip = (socket.AF_INET, "IPv4") if row.ip_version == IpVersion.V4 else (socket.AF_INET6, "IPv6")
    size = 4 if ip == "IPv4" else 16
    found: dict[str, Any] = {
        f"source{ip}Address": socket.inet_ntop(family, row.source_address[:size]),
        "sourceTransportPort": row.source_port,
        f"destination{ip}Address": socket.inet_ntop(family, row.destination_address[:size]),
        "destinationTransportPort": row.destination_port,
    }
    if row.protocol in ICMP_VERSIONS and row.kind == Kind.FLOW:
        found["destinationTransportPort"] = 0
        found[_ICMP_ELEMENTS[row.protocol]] = row.destination_port
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

CSV_COLUMNS = (*FLOW_ELEMENTS, *FLAGS)
"""Every key a record may have, in column order of CSV."""

_COMMON = {"octetDeltaCount": "octet_delta", "packetDeltaCount": "packet_delta", "octetTotalCount": "octet_total",
           "packetTotalCount": "packet_total", "flowEndReason": "end_reason"}
_ICMP_ELEMENTS = {protocol: f"icmpTypeCodeIPv{version}" for protocol, version in ICMP_VERSIONS.items()}


def plain_records(records: FlowRecords, interfaces: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    """Each record as a dict. An aggregate has no addresses and no ports.

    Args:
        interfaces: name by ifindex; a number stands for a name that is not there.
    """
    names = records.dtype.names or ()
    columns = {name: records[name].tolist() for name in names}
    for values in zip(*columns.values(), strict=True):
        yield _plain(dict(zip(names, values, strict=True)), interfaces)


def _plain(row: dict[str, Any], interfaces: Mapping[int, str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "flowId": row["flow_id"],
        **point_elements(interfaces.get(row["ifindex"], str(row["ifindex"])), _harmless),
        **({} if row["direction"] == UNKNOWN_DIRECTION else {"flowDirection": row["direction"]}),
        "ipVersion": row["ip_version"],
        "protocolIdentifier": row["protocol"],
    }
    if row["kind"] != Kind.AGGREGATE:
        record |= _packet(row)
    record |= {"flowStartMilliseconds": row["start_ms"], "flowEndMilliseconds": row["end_ms"]}
    record |= {name: row[column] for name, column in _COMMON.items() if name != "flowEndReason" or row[column]}
    if row["tunnel"]:
        record |= tunnel_values(row["tunnel"], row["tunnel_id"])
    if row["duplicate"]:
        record["duplicate"] = True
    return record


def _packet(row: dict[str, Any]) -> dict[str, Any]:
    """Addresses, ports, and what is told of the first packet."""
    v4 = row["ip_version"] == IpVersion.V4
    family, ip, octets = (socket.AF_INET, "IPv4", 4) if v4 else (socket.AF_INET6, "IPv6", 16)
    icmp = row["protocol"] in ICMP_VERSIONS and row["kind"] == Kind.FLOW
    packet: dict[str, Any] = {
        f"source{ip}Address": socket.inet_ntop(family, row["source_address"][:octets]),
        "sourceTransportPort": row["source_port"],
        f"destination{ip}Address": socket.inet_ntop(family, row["destination_address"][:octets]),
        "destinationTransportPort": 0 if icmp else row["destination_port"],
    }
    if icmp:
        packet[_ICMP_ELEMENTS[row["protocol"]]] = row["destination_port"]
    return packet | {
        "vlanId": row["vlan_id"],
        "dot1qCustomerVlanId": row["customer_vlan_id"],
        "sourceMacAddress": row["source_mac"].hex(":"),
        "destinationMacAddress": row["destination_mac"].hex(":"),
        "ipClassOfService": row["tos"],
        "ipTTL": row["ttl"],
        "tcpControlBits": row["tcp_control_bits"],
    }


def _harmless(name: str) -> str:
    """An interface's name without control characters: the kernel allows them, a terminal obeys them."""
    return name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)
