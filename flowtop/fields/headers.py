"""Fields of packet headers: VLAN, tunnel, protocol, DSCP, TTL, TCP control bits, MAC addresses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields.columns import Column, Wording, plain
from flowtop.fields.field import (
    Detail,
    DetailFormatter,
    Field,
    FilterKey,
    GroupField,
    Key,
    Member,
    or_code,
    reported,
    stored,
    unreported,
)
from flowtop.model.elements import TUNNEL_MEMBERS, tunnel_values
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import ANY_PROTOCOL, TUNNELS_BY_LABEL, Kind, RecordBits, Tunnel
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text import operands, units
from flowtop.text.lookups import Lookups


def _unless(missing: RecordBits,
            value: Callable[[FlowValues], int | str]) -> Callable[[FlowValues, Lookups], int | str | None]:
    """The value of a member, unless the flow's exporter does not report it."""
    return lambda flow, _: None if flow.record_bits & missing else value(flow)


# ---- VLAN and tunnel


def vlan_text(row: FlowRow) -> str:
    """`100`, `100.200`; "" without tags."""
    if row.customer_vlan_id:
        return f"{row.vlan_id}.{row.customer_vlan_id}"
    return str(row.vlan_id) if row.vlan_id else ""


_NO_VLAN = 0xFFFF
"""No VLAN ID: not reported."""


def _vlan_keys(columns: FlowColumns) -> tuple[Array, ...]:
    return or_code(columns, columns["vlan_id"], RecordBits.NO_VLAN_ID, _NO_VLAN), columns["customer_vlan_id"]


_VLAN_COLUMN = Column("vlan", "VLAN", 9, "VLAN ID, with QinQ outer.inner.", lambda row, _, __: vlan_text(row),
                      (plain("vlan_id"), plain("customer_vlan_id")), 8, terms.vlan_term)
VLAN = Field(
    "vlan", "VLAN ID, with QinQ outer.inner.", column=_VLAN_COLUMN, biflow_columns=(_VLAN_COLUMN,),
    key=FilterKey("vlan",
                  "VLAN ID of either tag; 100.200: outer and inner tag, 100.0: no inner tag; alone: any tag.",
                  "vlan 100", "a VLAN ID, 0 to 4095, or outer and inner as in 100.200", operands.vlan,
                  *stored("vlan_id"), packet="vlan_id", optional=True, rank=2),
    group=GroupField(
        "vlan", "VLAN", 9, "VLAN ID, with QinQ outer.inner; 0 is untagged.",
        _vlan_keys, parts=2,
        text=lambda key, _: "-" if key[0] == _NO_VLAN else f"{key[0]}.{key[1]}" if key[1] else str(key[0]),
        term=lambda key, _: "not vlan" if key[0] == _NO_VLAN else terms.vlan_words(*key),
        values=lambda key, _: {} if key[0] == _NO_VLAN else {"vlanId": key[0], "dot1qCustomerVlanId": key[1]},
        members=("vlanId", "dot1qCustomerVlanId"), rank=5),
    members=(Member("vlanId", _unless(RecordBits.NO_VLAN_ID, lambda flow: flow.vlan_id), of_packets=True, rank=14),
             Member("dot1qCustomerVlanId",
                    _unless(RecordBits.NO_CUSTOMER_VLAN_ID, lambda flow: flow.customer_vlan_id), of_packets=True,
                    rank=15)),
    detail=Detail("protocol", lambda row, _: f"vlan {vlan_text(row) or '-'}", of_way=False, rank=4))


def _of_tunnel(name: str, doc: str, rank: int, holds: type[str | int] | None = None) -> Member:
    return Member(name, lambda flow, _: tunnel_values(flow.tunnel, flow.tunnel_id).get(name) if flow.tunnel else None,
                  doc, rank=rank, holds=holds)


_TUNNEL_COLUMN = Column("tunnel", "TUNNEL", 6,
                        "With --decap or -l: kind of the tunnel that carried the flow, or of the tunnel itself.",
                        lambda row, _, __: Tunnel(row.tunnel).label, (plain("tunnel"),), 4, terms.tunnel_term,
                        of_tunnels=True)


def _tunnel_text(key: Key) -> str:
    name = Tunnel(key[0]).label
    return f"{name} {key[1]}" if key[1] else name or "none"


TUNNEL = Field(
    "tunnel", _TUNNEL_COLUMN.doc, column=_TUNNEL_COLUMN, biflow_columns=(_TUNNEL_COLUMN,),
    key=FilterKey(
        "tunnel", "With --decap or -l: carried in a tunnel of this kind, or the tunnel itself; alone: any kind.",
        "tunnel vxlan",
        "a tunnel: " + ", ".join(TUNNELS_BY_LABEL),
        operands.ReadChoice((("none", Tunnel.NONE), *TUNNELS_BY_LABEL.items())),
        *stored("tunnel"), choices=tuple(TUNNELS_BY_LABEL), packet="tunnel", optional=True),
    group=GroupField(
        "tunnel", "TUNNEL", 17,
        "With --decap: the tunnel that carried the flows, with its VNI, GRE key, session or label.",
        lambda columns: (columns["tunnel"], columns["tunnel_id"]), parts=2, text=lambda key, _: _tunnel_text(key),
        term=lambda key, _: f"tunnel {Tunnel(key[0]).label} and vni {key[1]}" if key[0] else "not tunnel",
        values=lambda key, _: tunnel_values(*key), members=TUNNEL_MEMBERS, rank=5),
    members=(_of_tunnel("tunnel", "With --decap or -l: the tunnel that carried the flow.", 50),))


def _tunnel_id(row: FlowRow, _: Wording, __: Lookups) -> str:
    """The id as text. 0 is a valid id for kinds that always have one; for others it means none."""
    return str(row.tunnel_id) if row.tunnel_id or Tunnel(row.tunnel).always_has_id else ""


_ID_COLUMN = Column(
    "vni", "VNI", 8, "With --decap or -l: the tunnel's VNI, GRE key, MPLS label, ERSPAN or PPPoE session; empty: none.",
    _tunnel_id, (plain("tunnel_id"),), 4, terms.tunnel_id_term, "right", of_tunnels=True)
TUNNEL_ID = Field(
    "vni", _ID_COLUMN.doc, column=_ID_COLUMN, biflow_columns=(_ID_COLUMN,),
    key=FilterKey(
        "vni", "With --decap or -l: the tunnel's id: VNI, GRE key, MPLS label, ERSPAN or PPPoE session.", "vni 42",
        "a number such as 42", operands.ReadInteger(0, 2**32 - 1), *stored("tunnel_id"), packet="tunnel_id",
        optional=True),
    members=(_of_tunnel("layer2SegmentId", "", 31),
             _of_tunnel("tunnelId", "Id of that tunnel: VNI, GRE key, MPLS label, ERSPAN or PPPoE session.", 51, int)))

# ---- IP


def _protocol(row: FlowRow) -> str:
    if row.kind == Kind.AGGREGATE and row.protocol == ANY_PROTOCOL:
        return "any"
    return "-" if row.record_bits & RecordBits.NO_PROTOCOL else units.protocol(row.protocol)


def _protocol_keys(columns: FlowColumns) -> tuple[Array, ...]:
    any_protocol = (columns["kind"] == Kind.AGGREGATE) & (columns["protocol"] == ANY_PROTOCOL)
    unknown = unreported(columns, RecordBits.NO_PROTOCOL)
    if unknown is not None:
        any_protocol |= unknown
    return np.where(any_protocol, np.uint8(Kind.AGGREGATE), np.uint8(Kind.FLOW)), columns["protocol"]


def _protocol_member(flow: FlowValues, _: Lookups) -> int | None:
    return None if flow.record_bits & RecordBits.NO_PROTOCOL else flow.protocol


_PROTOCOL_COLUMN = Column("protocol", "PROTO", 5, "IP protocol.", lambda row, _, __: _protocol(row),
                          (plain("protocol"),), 1, terms.protocol_term)
PROTOCOL = Field(
    "protocol", "IP protocol.", column=_PROTOCOL_COLUMN, biflow_columns=(_PROTOCOL_COLUMN,),
    key=FilterKey(
        "proto", "IP protocol, by name or number.", "proto 47", "a protocol's name or number (0 to 255)",
        operands.read_protocol, *reported("protocol", RecordBits.NO_PROTOCOL), packet="protocol",
        choices=tuple(operands.PROTOCOL_WORDS), of_aggregates=True),
    group=GroupField(
        "protocol", "PROTO", 5, "IP protocol.", _protocol_keys, parts=2,
        text=lambda key, _: "any" if key[0] == Kind.AGGREGATE else units.protocol(key[1]),
        term=lambda key, _: "" if key[0] == Kind.AGGREGATE else terms.protocol_words(key[1]),
        values=lambda key, _: {"protocolIdentifier": key[1]} if key[0] != Kind.AGGREGATE or key[1] else {},
        members=("protocolIdentifier",), rank=1),
    members=(Member("ipVersion", lambda flow, _: flow.ip_version, rank=4),
             Member("protocolIdentifier", _protocol_member, rank=5)),
    detail=Detail("protocol", lambda row, _: _protocol(row), of_way=False, rank=0))

def _dscp_keys(columns: FlowColumns) -> tuple[Array, ...]:
    return (or_code(columns, columns["tos"] >> np.uint8(2), RecordBits.NO_TOS, _NO_DSCP),)


_NO_DSCP = 64
"""Above all code points: not reported."""


def _points(numbers: Array) -> Array:
    """DSCP of TOS octets; NaN stays."""
    return numbers // 4


_TOS_OF_FLOWS, _TOS_OF_RECORDS = reported("tos", RecordBits.NO_TOS)
_DSCP_DOC = "Differentiated services code point of the first packet; empty for best effort."


def _dscp_text(key: Key) -> str:
    return units.dscp(key[0] << 2) or "be"


DSCP = Field(
    "dscp", _DSCP_DOC,
    column=Column("dscp", "DSCP", 4, _DSCP_DOC, lambda row, _, __: units.dscp(row.tos),
                  (lambda columns: columns["tos"] >> np.uint8(2),), 9, terms.dscp_term),
    key=FilterKey(
        "dscp", "Differentiated services code point of the first packet.", "dscp ef",
        "a code point: ef, af41, cs1, be, or 0 to 63",
        operands.named({**{name: point for point, name in units.DSCP_NAMES.items() if name}, "be": 0, "cs0": 0}, 0, 63),
        lambda source: _points(_TOS_OF_FLOWS(source)), lambda records: _points(_TOS_OF_RECORDS(records)),
        choices=tuple(filter(None, units.DSCP_NAMES.values()))),
    group=GroupField(
        "dscp", "DSCP", 4, "Service code point (DSCP) of the first packet.",
        _dscp_keys, text=lambda key, _: "-" if key[0] == _NO_DSCP else _dscp_text(key),
        term=lambda key, _: "not dscp >= 0" if key[0] == _NO_DSCP else f"dscp {_dscp_text(key)}",
        values=lambda key, _: {} if key[0] == _NO_DSCP else {"ipDiffServCodePoint": key[0]},
        members=("ipDiffServCodePoint",), rank=5),
    detail=Detail("protocol", lambda row, _: "" if row.record_bits & RecordBits.NO_TOS else
                  f"dscp {units.dscp(row.tos) or 'be'}", of_way=False, rank=3))
_TOS_DOC = "TOS or traffic class octet of the first packet."
TOS = Field(
    "tos", _TOS_DOC,
    key=FilterKey("tos", _TOS_DOC, "tos 0x10", "a number from 0 to 255", operands.ReadInteger(0, 255), _TOS_OF_FLOWS,
                  _TOS_OF_RECORDS,
                  rank=3),
    members=(Member("ipClassOfService", _unless(RecordBits.NO_TOS, lambda flow: flow.tos), of_packets=True,
                    both_ways=True, rank=18),))



def _ttl(row: FlowRow) -> str:
    return "" if row.record_bits & RecordBits.NO_TTL else str(row.ttl)


_TTL_DOC = "TTL or hop limit of the first packet."
TTL = Field(
    "ttl", _TTL_DOC,
    column=Column("ttl", "TTL", 3, _TTL_DOC, lambda row, _, __: _ttl(row), (plain("ttl"),), 12, terms.ttl_term,
                  "right"),
    key=FilterKey("ttl", _TTL_DOC, "ttl < 5", "a number from 0 to 255", operands.ReadInteger(0, 255),
                  *reported("ttl", RecordBits.NO_TTL)),
    members=(Member("ipTTL", _unless(RecordBits.NO_TTL, lambda flow: flow.ttl), of_packets=True, both_ways=True,
                    rank=19),),
    detail=Detail("protocol", lambda row, _: f"ttl {_ttl(row)}" if _ttl(row) else "", of_way=False, rank=2))

# ---- TCP control bits, MAC addresses


def _flags_detail(row: FlowRow, _: DetailFormatter) -> str:
    return f"flags {units.tcp_flags(row.tcp_control_bits) or '-'}"


_FLAGS_DOC = "TCP control bits seen, in tcpdump's letters: F S R P . (ACK) U E W e."
TCP_FLAGS = Field(
    "flags", _FLAGS_DOC,
    column=Column("flags", "FLAGS", 9, _FLAGS_DOC, lambda row, _, __: units.tcp_flags(row.tcp_control_bits),
                  (plain("tcp_control_bits"),), 7, terms.flags_term),
    key=FilterKey(
        "flags", "All these TCP flags were seen: names joined by +, or the letters of the column FLAGS.",
        "flags syn+ack", f"TCP flags such as syn, syn+ack ({', '.join(operands.FLAG_NAMES)})", operands.tcp_flags,
        *stored("tcp_control_bits"), kind="bits", choices=operands.FLAG_NAMES),
    members=(Member("tcpControlBits", _unless(RecordBits.NO_TCP_CONTROL_BITS, lambda flow: flow.tcp_control_bits),
                    of_packets=True, both_ways=True, rank=20),),
    detail=Detail("protocol", _flags_detail, of_way=False, rank=1))


MACS = Field(
    "mac", "MAC addresses of the first packet.",
    members=(Member("sourceMacAddress", _unless(RecordBits.NO_SOURCE_MAC, lambda flow: flow.source_mac.hex(":")),
                    of_packets=True, rank=16),
             Member("destinationMacAddress",
                    _unless(RecordBits.NO_DESTINATION_MAC, lambda flow: flow.destination_mac.hex(":")),
                    of_packets=True, rank=17)))

PATH = (VLAN, TUNNEL, TUNNEL_ID, PROTOCOL)
"""Columns before the addresses on screen."""
CONTENT = (DSCP, TOS, TCP_FLAGS, MACS)
"""Columns after the addresses."""
HOPS = (TTL,)
