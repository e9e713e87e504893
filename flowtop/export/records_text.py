"""Flow Records as IANA element names and plain values: the keys of `flowtop -b -o json`, for jsonl and csv."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any

from flowtop.collecting import point_elements
from flowtop.elements import FLAGS, FLOW_ELEMENTS, tunnel_values
from flowtop.record import UNKNOWN_DIRECTION, FlowRecords, Kind

CSV_COLUMNS = (*FLOW_ELEMENTS, *FLAGS)
"""Every key a record may have, in column order of CSV."""

_COMMON = {"octetDeltaCount": "octet_delta", "packetDeltaCount": "packet_delta", "octetTotalCount": "octet_total",
           "packetTotalCount": "packet_total", "flowEndReason": "end_reason"}
_ICMP = {1: "icmpTypeCodeIPv4", 58: "icmpTypeCodeIPv6"}


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
    v4 = row["ip_version"] == 4
    family, ip, octets = (socket.AF_INET, "IPv4", 4) if v4 else (socket.AF_INET6, "IPv6", 16)
    icmp = row["protocol"] in _ICMP and row["kind"] == Kind.FLOW
    packet: dict[str, Any] = {
        f"source{ip}Address": socket.inet_ntop(family, row["source_address"][:octets]),
        "sourceTransportPort": row["source_port"],
        f"destination{ip}Address": socket.inet_ntop(family, row["destination_address"][:octets]),
        "destinationTransportPort": 0 if icmp else row["destination_port"],
    }
    if icmp:
        packet[_ICMP[row["protocol"]]] = row["destination_port"]
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
