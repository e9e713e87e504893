"""Flow Records out of flowtop's own IPFIX Messages: what the spool replays."""

from __future__ import annotations

import numpy as np

from flowtop.record import FLOW_RECORD_DTYPE, Direction, FlowRecords, Kind
from flowtop.wire import flow_templates as ft
from flowtop.wire import tunnels
from flowtop.wire.ipfix_decoder import DataSet, TemplateStore, decode_message

_COPIED = {"flow_id": "flowId", "start_ms": "flowStartMilliseconds", "end_ms": "flowEndMilliseconds",
           "octet_delta": "octetDeltaCount", "packet_delta": "packetDeltaCount", "protocol": "protocolIdentifier",
           "ip_version": "ipVersion", "direction": "flowDirection", "end_reason": "flowEndReason",
           "source_mac": "sourceMacAddress", "destination_mac": "destinationMacAddress", "vlan_id": "vlanId",
           "customer_vlan_id": "dot1qCustomerVlanId", "tcp_control_bits": "tcpControlBits", "tos": "ipClassOfService",
           "source_port": "sourceTransportPort", "destination_port": "destinationTransportPort"}
_KINDS = {ft.IPV4_FRAGMENT: Kind.FRAGMENT, ft.IPV6_FRAGMENT: Kind.FRAGMENT, ft.AGGREGATE: Kind.AGGREGATE}
_ICMP = {ft.IPV4_ICMP: "icmpTypeCodeIPv4", ft.IPV6_ICMP: "icmpTypeCodeIPv6"}
_ADDRESSES = {"source_address": ("sourceIPv4Address", "sourceIPv6Address"),
              "destination_address": ("destinationIPv4Address", "destinationIPv6Address")}


def flow_records(messages: list[bytes]) -> FlowRecords:
    """Flow Records of the messages of one file, in their order: what the `strict` profile tells of each; the rest is 0.

    Raises IpfixDecodeError: a message that is none.
    """
    store = TemplateStore()
    parts = [np.empty(0, FLOW_RECORD_DTYPE)]
    for octets in messages:
        message = decode_message(octets, store, session=None, datagram=False)
        parts += [_records(data_set) for data_set in message.data_sets if not data_set.template.scope_count]
    return np.concatenate(parts)


def _records(data_set: DataSet) -> FlowRecords:
    wire, template = data_set.records, data_set.template
    form = ft.shape(template.id)
    records = np.zeros(len(wire), FLOW_RECORD_DTYPE)
    for column, name in _COPIED.items():
        if name in template.names:
            records[column] = wire[name]
    for column, names in _ADDRESSES.items():
        for name in names:
            if name in template.names:  # A V4 into a V16: numpy fills up with zeros.
                records[column] = wire[name]
    if form in _ICMP:
        records["destination_port"] = wire[_ICMP[form]]
    if form != template.id:
        records["tunnel"], records["tunnel_id"] = tunnels.of_observation_points(wire["observationPointId"])
    ingress = records["direction"] == Direction.INGRESS
    records["ifindex"] = np.where(ingress, wire["ingressInterface"], wire["egressInterface"])
    records["kind"] = _KINDS.get(form, Kind.FLOW)
    return records
