"""An sFlow datagram as it is shown: what was sampled, and what the sampled headers say."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from flowtop.capture.listener.sflow import SampledPackets
from flowtop.wire.collected import Collected
from flowtop.wire.sflow import SampledPacket, SflowDatagram

_HEADERS = {1: "Ethernet", 11: "IPv4", 12: "IPv6"}
_MAC_OCTETS = 6


def sflow_record(datagram: SflowDatagram) -> dict[str, Any]:
    """As JSON members: IANA names where there are any."""
    found: dict[str, Any] = {"agent": datagram.agent, "subAgent": datagram.sub_agent, "sequence": datagram.sequence,
                             "uptimeMilliseconds": datagram.uptime_ms, "flowSamples": datagram.samples}
    dropped = {str(source): number for source, number in datagram.dropped if number}
    return found | ({"dropped": dropped} if dropped else {}) | {"records": [
        {"values": _values(packet)} for packet in datagram.packets]}


def sflow_lines(datagram: SflowDatagram) -> list[str]:
    """As lines of text, the first one behind the message's number."""
    lines = [f"agent {datagram.agent}  sub-agent {datagram.sub_agent}  sequence {datagram.sequence}  "
             f"up {datagram.uptime_ms / 1000:g} s  {datagram.samples} flow samples"]
    lines += [f"  source {source} has dropped {number} packets" for source, number in datagram.dropped if number]
    for number, packet in enumerate(datagram.packets, 1):
        lines.append(f"    {number}: {' '.join(f'{name}={value}' for name, value in _values(packet).items())}")
    return lines


def _values(packet: SampledPacket) -> dict[str, Any]:
    found: dict[str, Any] = {
        "samplingInterval": packet.interval, "ingressInterface": packet.ingress, "egressInterface": packet.egress,
        "headerProtocol": _HEADERS.get(packet.protocol, packet.protocol), "frameOctets": packet.frame_octets,
        "headerOctets": len(packet.header)}
    waiting = SampledPackets()
    waiting.add((packet,), 0)
    rows, _, _ = waiting.rows()
    return found | (_of_ip(rows) if len(rows) else {})


def _of_ip(rows: Collected) -> dict[str, Any]:
    """What the header says, if it is an IP packet's."""
    row = rows[0]
    version = int(row["ip_version"])
    found: dict[str, Any] = {}
    for end in ("source", "destination"):
        address = bytes(row[f"{end}_address"])[:4 if version == 4 else 16]
        found[f"{end}IPv{version}Address"] = str(ipaddress.ip_address(address))
    found["protocolIdentifier"] = int(row["protocol"])
    if row["source_port"] or row["protocol"] not in (1, 58):
        found |= {"sourceTransportPort": int(row["source_port"]),
                  "destinationTransportPort": int(row["destination_port"])}
    else:
        found[f"icmpTypeCodeIPv{4 if row['protocol'] == 1 else 6}"] = int(row["destination_port"])
    for name, column in (("vlanId", "vlan_id"), ("tcpControlBits", "tcp_control_bits")):
        if row[column]:
            found[name] = int(row[column])
    found |= {"ipClassOfService": int(row["tos"]), "ipTTL": int(row["ttl"]), "ipTotalLength": int(row["octets"])}
    for name, column in (("sourceMacAddress", "source_mac"), ("destinationMacAddress", "destination_mac")):
        if row[column] != np.void(bytes(_MAC_OCTETS)):
            found[name] = bytes(row[column]).hex(":")
    return found
