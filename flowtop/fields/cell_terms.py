"""The filter keys of columns, and the filter term that a cell stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from flowtop.fields.field import FilterKey, stored
from flowtop.model.exporters import exporter_of, interface_of
from flowtop.model.flows import Array, FlowColumns, FlowSource
from flowtop.model.kinds import (
    HAVE_PORTS,
    PORT_PROTOCOLS,
    TCP_CLOSING_BITS,
    TUNNELS_BY_LABEL,
    UNKNOWN_DIRECTION,
    Direction,
    EndReason,
    Kind,
    Tunnel,
)
from flowtop.model.rows import FlowRow
from flowtop.text import operands, quantities, units

_SIZE = "a size such as 1500, 10M, 1Gi"
_RATE = "a rate such as 1Mbit, 500k, 10MB/s"
_COUNT = "a number such as 100, 10k, 1.5M"
_SPAN = "a time such as 5s, 500ms, 2m, 1h"
_CLOSING_BITS = np.uint16(TCP_CLOSING_BITS)

TermOf = Callable[[FlowRow, Mapping[int, str]], str]
"""A flow and interface names by ifindex → a filter that this flow passes, after what its cell shows."""


def _state(columns: FlowColumns, ended: Array) -> Array:
    """0 active, 1 closing, 2 ended."""
    closing = (columns["tcp_control_bits"] & _CLOSING_BITS != 0).view(np.uint8)
    return np.where(ended, np.uint8(2), closing)


def _where_known(column: Array) -> Array:
    """As numbers, and what no comparison finds where there is 0."""
    numbers = column.astype(np.float64)
    numbers[column == 0] = np.nan
    return numbers


def _ended(records: FlowColumns) -> Array:
    reasons = records["end_reason"]
    ended: Array = (reasons != EndReason.NONE) & (reasons != EndReason.ACTIVE_TIMEOUT)
    return ended


def _rate(word: str, doc: str, field: str, span: Callable[[FlowSource], float]) -> FilterKey:
    return FilterKey(word, doc, f"{word} >= 1Mbit", _RATE, quantities.rate,
                     lambda source: source.columns[field] / span(source), of_aggregates=True)


INTERFACE = FilterKey(
    "if", "Interface; * and ? stand for any text, [ab] for one of these.", "if veth*",
    "an interface's name, such as eth0 or veth*", quantities.count, *stored("ifindex"), kind="text", of_aggregates=True,
    part=interface_of)
EXPORTER = FilterKey(
    "exporter", "With -l: the exporter that told of the flow; * and ? stand for any text.", "exporter 192.0.2.*",
    "an exporter's address, such as 192.0.2.1", quantities.count, *stored("ifindex"), kind="text", of_aggregates=True,
    part=lambda name: exporter.address if (exporter := exporter_of(name)) else "")
DOMAIN = FilterKey(
    "domain", "With -l: the exporter's Observation Domain or Source ID.", "domain 7",
    "an Observation Domain, such as 7", quantities.count, *stored("ifindex"), kind="text", of_aggregates=True,
    part=lambda name: str(exporter.domain) if (exporter := exporter_of(name)) else "")
DIRECTION = FilterKey(
    "dir", "Direction at the interface; unknown where an exporter does not say.", "dir out", "in, out or unknown",
    operands.ReadChoice((("in", Direction.INGRESS), ("out", Direction.EGRESS), ("ingress", Direction.INGRESS),
                         ("egress", Direction.EGRESS), ("unknown", UNKNOWN_DIRECTION))),
    *stored("direction"), choices=("in", "out", "unknown"), packet="direction", of_aggregates=True)
PROTOCOL = FilterKey(
    "proto", "IP protocol, by name or number.", "proto 47", "a protocol's name or number (0 to 255)",
    operands.read_protocol, *stored("protocol"), choices=tuple(operands.PROTOCOL_WORDS), packet="protocol",
    of_aggregates=True)
DSCP = FilterKey(
    "dscp", "Differentiated services code point of the first packet.", "dscp ef",
    "a code point: ef, af41, cs1, be, or 0 to 63",
    operands.named({**{name: point for point, name in units.DSCP_NAMES.items() if name}, "be": 0, "cs0": 0}, 0, 63),
    lambda source: source.columns["tos"] >> np.uint8(2), lambda records: records["tos"] >> np.uint8(2),
    choices=tuple(filter(None, units.DSCP_NAMES.values())))
FLAGS = FilterKey(
    "flags", "All these TCP flags were seen in the flow: names with +, or the letters of the FLAGS column.",
    "flags syn+ack", f"TCP flags such as syn, syn+ack ({', '.join(operands.FLAG_NAMES)})", operands.tcp_flags,
    *stored("tcp_control_bits"), kind="bits", choices=operands.FLAG_NAMES)
RATE = _rate("rate", "Rate over the last tick; bits a second unless it says bytes.", "octet_delta", lambda s: s.tick_s)
RATE_10S = _rate("rate_10s", "Rate over the last 10 s.", "octets_10s", lambda s: s.window_10s_s)
RATE_60S = _rate("rate_60s", "Rate over the last 60 s.", "octets_60s", lambda s: s.window_60s_s)
PEAK = _rate("peak", "Highest rate of any tick so far.", "octet_rate_peak", lambda _: 1.0)
PPS = FilterKey(
    "pps", "Packets a second over the last tick.", "pps > 1000", _COUNT, quantities.count,
    lambda source: source.columns["packet_delta"] / source.tick_s, of_aggregates=True)
BYTES = FilterKey(
    "bytes", "IP octets over the flow's life; of exported records: since the previous one.", "bytes > 10M", _SIZE,
    quantities.octets, lambda source: source.columns["octet_total"], lambda records: records["octet_delta"],
    of_aggregates=True)
PACKETS = FilterKey(
    "packets", "Wire packets over the flow's life; of exported records: since the previous one.", "packets = 1",
    _COUNT, quantities.count, lambda source: source.columns["packet_total"], lambda records: records["packet_delta"],
    of_aggregates=True)
AGE = FilterKey(
    "age", "Time from first to last packet.", "age < 5s", _SPAN, quantities.seconds,
    lambda source: (source.columns["last_ns"] - source.columns["first_ns"]) / 1e9,
    lambda records: (records["end_ms"].astype(np.int64) - records["start_ms"].astype(np.int64)) / 1e3,
    of_aggregates=True)
TTL = FilterKey(
    "ttl", "TTL or hop limit of the first packet.", "ttl < 5", "a number from 0 to 255", operands.ReadInteger(0, 255),
    *stored("ttl"))
RTT = FilterKey(
    "rtt", "TCP round-trip time, where it is known.", "rtt > 50ms", _SPAN, quantities.seconds,
    lambda source: _where_known(source.columns["rtt_us"]) * 1e-6)
RETRANSMITS = FilterKey(
    "retransmits", "TCP segments that were sent again; alone: any.", "retransmits > 10", _COUNT, quantities.count,
    lambda source: source.columns["retransmitted"], optional=True)
OUT_OF_ORDER = FilterKey(
    "outoforder", "TCP segments that came out of order (-r); alone: any.", "outoforder", _COUNT, quantities.count,
    lambda source: source.columns["out_of_order"], optional=True)
CWND = FilterKey(
    "cwnd", "TCP congestion window in segments, where it is known.", "cwnd < 10", _COUNT, quantities.count,
    lambda source: _where_known(source.columns["congestion_window"]))
STATE = FilterKey(
    "state", "Where the flow is in its life: active, closing (FIN or RST seen), ended.", "state ended",
    "active, closing or ended", operands.ReadChoice((("active", 0), ("closing", 1), ("ended", 2), ("end", 2))),
    lambda source: _state(source.columns, source.columns["end_reason"] != 0),
    lambda records: _state(records, _ended(records)), choices=("active", "closing", "ended"), of_aggregates=True)


TUNNEL = FilterKey(
    "tunnel", "With --decap or -l: carried in such a tunnel, or carrying it; alone: in any.", "tunnel vxlan",
    "a tunnel: " + ", ".join(TUNNELS_BY_LABEL),
    operands.ReadChoice((("none", Tunnel.NONE), *TUNNELS_BY_LABEL.items())), *stored("tunnel"),
    choices=tuple(TUNNELS_BY_LABEL), packet="tunnel", optional=True)
TUNNEL_ID = FilterKey(
    "vni", "With --decap or -l: the tunnel's id, which is a VNI, GRE key, ERSPAN session or MPLS label.", "vni 42",
    "a number such as 42", operands.ReadInteger(0, 2**32 - 1), *stored("tunnel_id"), packet="tunnel_id", optional=True)


def exporter_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`exporter 192.0.2.1`; of a flow that no exporter told of, its interface."""
    exporter = exporter_of(interfaces.get(row.ifindex, ""))
    return f"exporter {exporter.address}" if exporter else interface_term(row, interfaces)


def domain_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`exporter 192.0.2.1 and domain 7`: domains mean something at one exporter only."""
    exporter = exporter_of(interfaces.get(row.ifindex, ""))
    return f"exporter {exporter.address} and domain {exporter.domain}" if exporter else interface_term(row, interfaces)


def interface_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`if eth0`, as `interface_words` has it."""
    return interface_words(interface_of(interfaces.get(row.ifindex, f"if{row.ifindex}")))


def interface_words(name: str) -> str:
    """`if eth0`; names with odd characters are quoted, globs in them disarmed; what does not print matches as `?`."""
    plain = name.isascii() and all(character.isalnum() or character in "._-@" for character in name)
    escaped = "".join(f"[{character}]" if character in "*?[" else character if character.isprintable() else "?"
                      for character in name)
    quote = "'" if '"' in escaped else '"'
    return f"if {escaped}" if plain else f"if {quote}{escaped}{quote}"


def protocol_words(protocol: int) -> str:
    """`tcp`, or `proto 253`."""
    name = units.protocol(protocol)
    return name if operands.PROTOCOL_WORDS.get(name) == protocol else f"proto {protocol}"


def _end(side: str, raw: bytes, row: FlowRow, port: int) -> str:
    if row.kind == Kind.AGGREGATE:
        return protocol_term(row, {})
    host = f"{side} host {units.address(raw, row.ip_version)}"
    with_port = row.kind in HAVE_PORTS and row.protocol in PORT_PROTOCOLS
    return f"{host} and {side} port {port}" if with_port else host


def source_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`src host 10.0.0.5 and src port 443`."""
    del interfaces
    return _end("src", row.source_address, row, row.source_port)


def destination_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`dst host 10.0.0.5 and dst port 443`."""
    del interfaces
    return _end("dst", row.destination_address, row, row.destination_port)


def protocol_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`tcp`, or `proto 253`."""
    del interfaces
    return protocol_words(row.protocol)


def vlan_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`vlan 100`, `vlan 100.200`, or `not vlan`."""
    del interfaces
    return vlan_words(row.vlan_id, row.customer_vlan_id) if row.customer_vlan_id or not row.vlan_id else \
        f"vlan {row.vlan_id}"


def vlan_words(outer: int, inner: int) -> str:
    """These tags and no others: `vlan 100.0`, `vlan 100.200`, or `not vlan`."""
    return f"vlan {outer}.{inner}" if outer or inner else "not vlan"


def fragment_words(kind: int) -> str:
    """What tells flows of a protocol without ports from later fragments of it."""
    return "fragment" if kind == Kind.FRAGMENT else "not fragment"


def tunnel_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`tunnel vxlan`, or `not tunnel`."""
    del interfaces
    return f"tunnel {Tunnel(row.tunnel).label}" if row.tunnel else "not tunnel"


def tunnel_id_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`tunnel vxlan and vni 42`: the ids of other tunnels are other numbers."""
    of_tunnel = tunnel_term(row, interfaces)
    return f"{of_tunnel} and vni {row.tunnel_id}" if row.tunnel else of_tunnel


def flags_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`flags fin+syn`: at least those of the row."""
    del interfaces
    letters = units.tcp_flags(row.tcp_control_bits)
    return f"flags {letters}" if letters else "flags none"


def at_least(word: str, value: Callable[[FlowRow], float], unit: str = "") -> TermOf:
    """`bytes >= 17300`: as much as this flow has, or more; whole numbers, rounded down."""
    return lambda row, _: f"{word} >= {int(value(row))}{unit}"


def rtt_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`rtt >= 12300us`; where it is not known, none."""
    del interfaces
    return f"rtt >= {row.rtt_us}us" if row.rtt_us else ""


def cwnd_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`cwnd <= 10`: as small, or smaller; where it is not known, none."""
    del interfaces
    return f"cwnd <= {row.congestion_window}" if row.congestion_window else ""


def ttl_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`ttl 64`."""
    del interfaces
    return f"ttl {row.ttl}"


def direction_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`dir in`."""
    del interfaces
    return direction_words(row.direction)


def direction_words(direction: int) -> str:
    """`dir in`."""
    return f"dir {('in', 'out', 'unknown')[direction]}"


def state_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """What the ST column shows: `duplicate`, `parent`, or `state active`."""
    del interfaces
    if row.kind == Kind.PARENT and not row.end_reason:
        return "parent"
    return "duplicate" if row.duplicate and not row.end_reason else f"state {row.state.name.lower()}"


def dscp_term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
    """`dscp ef`."""
    del interfaces
    return f"dscp {units.dscp(row.tos) or 'be'}"
