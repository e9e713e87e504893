"""The registry of columns: one entry feeds header, sort, screen, batch table and documentation.

To add a column, add one entry to `_ALL`; tests/unit/fields/test_columns.py covers it without being edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flowtop.fields import cell_terms as keys
from flowtop.fields import endpoints
from flowtop.fields.field import FilterKey
from flowtop.model.exporters import exporter_of, interface_of
from flowtop.model.flows import Array, FlowColumns, address_words
from flowtop.model.kinds import ANY_PROTOCOL, TCP_CLOSING_BITS, UNKNOWN_DIRECTION, Direction, Kind, Tunnel
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.names import NUMBERS, Names

Window = Literal["tick", "10s", "60s"]


ARROWS = {Direction.INGRESS: "←", Direction.EGRESS: "→", UNKNOWN_DIRECTION: "-"}


@dataclass(frozen=True, slots=True)
class Wording:
    """How values are put: rates in bits (or octets), over which window the screen's first rate is, which names."""

    bits: bool = True
    window: Window = "tick"
    names: Names = NUMBERS


TextOf = Callable[[FlowRow, Wording, Mapping[int, str]], str]
SortKey = Callable[[FlowColumns], Array]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        id: what `--sort` and Query.sort say.
        header: fits `width`.
        width: least cells; a flexible column grows past it.
        flexible: takes a share of the cells that are left.
        align: side on which the text stands.
        doc: one line for help and README.
        priority: 1 stays when the terminal is narrow, larger ones go first.
        text: row, wording and interface names by ifindex -> text of printable single cells, any length.
        sort: numeric keys, most significant first, ascending; each gives one value a flow. A key is only asked for
            the flows that the keys before it leave tied.
        descending_first: the order that a first press gives.
        term: a filter after the cell of a row: one that this row passes.
        key: the filter word of the column, where it has one of its own.
        octet_rate: of columns that show a rate: octets/s of a row, which its colour tells the magnitude of.
        shortened: the text in so many cells; None: its middle gives way.
        of_exporters: has something to show only where flows come from exporters.
        of_tunnels: likewise only where there have been flows in tunnels.
    """

    id: str
    header: str
    width: int
    doc: str
    text: TextOf
    sort: tuple[SortKey, ...]
    priority: int
    term: keys.TermOf
    key: FilterKey | None = None
    align: Literal["left", "right"] = "left"
    flexible: bool = False
    descending_first: bool = False
    octet_rate: Callable[[FlowRow], float] | None = None
    shortened: Callable[[FlowRow, Names, int], str] | None = None
    of_exporters: bool = False
    of_tunnels: bool = False

    def cell(self, row: FlowRow, wording: Wording, interfaces: Mapping[int, str], width: int) -> str:
        """The text in exactly `width` cells: shortened when too long, else padded."""
        text = self.text(row, wording, interfaces)
        if len(text) > width and self.shortened is not None:
            text = self.shortened(row, wording.names, width)
        text = units.elide(text, width)
        return text.rjust(width) if self.align == "right" else text.ljust(width)


def _plain(name: str) -> SortKey:
    return lambda columns: columns[name]


def _address_words(name: str) -> tuple[SortKey, SortKey]:
    return (lambda columns: address_words(columns, name)[0]), (lambda columns: address_words(columns, name)[1])


def _age(columns: FlowColumns) -> Array:
    return columns["last_ns"] - columns["first_ns"]


def _state(columns: FlowColumns) -> Array:
    """0 active, 1 closing, 2 duplicate or parent, 3 ended."""
    rank = (columns["tcp_control_bits"] & np.uint16(TCP_CLOSING_BITS) != 0).view(np.uint8)
    rank = np.where(columns["duplicate"] | (columns["kind"] == Kind.PARENT), np.uint8(2), rank)
    return np.where(columns["end_reason"] != 0, np.uint8(3), rank)


def _dscp(columns: FlowColumns) -> Array:
    return columns["tos"] >> np.uint8(2)


def _interface(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del wording
    name = interfaces.get(row.ifindex)
    return f"if{row.ifindex}" if name is None else units.printable(interface_of(name), 16) or "-"


def _exporter(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del wording
    exporter = exporter_of(interfaces.get(row.ifindex, ""))
    return exporter.address if exporter else ""


def _domain(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del wording
    exporter = exporter_of(interfaces.get(row.ifindex, ""))
    return str(exporter.domain) if exporter else ""


def _source(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del interfaces
    return endpoints.source(row, wording.names)


def _destination(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del interfaces
    return endpoints.destination(row, wording.names)


def _protocol(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del wording, interfaces
    if row.kind == Kind.AGGREGATE and row.protocol == ANY_PROTOCOL:
        return "any"
    return units.protocol(row.protocol)


def _vlan(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del wording, interfaces
    if row.customer_vlan_id:
        return f"{row.vlan_id}.{row.customer_vlan_id}"
    return str(row.vlan_id) if row.vlan_id else ""


def _tunnel_id(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    """0 is an id of those that always have one, and none of the others."""
    del wording, interfaces
    return str(row.tunnel_id) if row.tunnel_id or Tunnel(row.tunnel).always_has_id else ""


def _state_text(row: FlowRow, wording: Wording, interfaces: Mapping[int, str]) -> str:
    del wording, interfaces
    if row.kind == Kind.PARENT and not row.end_reason:
        return "tun"
    return "dup" if row.duplicate and not row.end_reason else row.state.value


def _rate_column(header: str, field: str, sort: tuple[SortKey, ...], priority: int, key: FilterKey, doc: str) -> Column:
    def octet_rate(row: FlowRow) -> float:
        return getattr(row, field)  # type: ignore[no-any-return]

    return Column(key.word, header, 10, doc, lambda row, wording, _: units.rate_cell(octet_rate(row), wording.bits),
                  sort, priority, keys.at_least(key.word, octet_rate, "B/s"), key, "right",
                  descending_first=True, octet_rate=octet_rate)


_ALL = (
    Column("interface", "IF", 4, "Interface of the Observation Point.", _interface, (_plain("ifindex"),), 1,
           keys.interface_term, keys.INTERFACE),
    Column("direction", "D", 1, "← ingress, → egress, at that interface; - the exporter does not say.",
           lambda row, _, __: ARROWS[row.direction], (_plain("direction"),), 1,
           keys.direction_term, keys.DIRECTION),
    Column("exporter", "EXPORTER", 9, "With -l: who told of the flow.", _exporter, (_plain("ifindex"),), 2,
           keys.exporter_term, keys.EXPORTER, of_exporters=True),
    Column("domain", "DOMAIN", 8, "With -l: the exporter's Observation Domain or Source ID.", _domain,
           (_plain("ifindex"),), 9, keys.domain_term, keys.DOMAIN, "right", of_exporters=True),
    Column("vlan", "VLAN", 9, "VLAN ID, with QinQ outer.inner.", _vlan,
           (_plain("vlan_id"), _plain("customer_vlan_id")), 8, keys.vlan_term),
    Column("tunnel", "TUNNEL", 6, "With --decap or -l: what carried the flow; of a parent, what it carries.",
           lambda row, _, __: Tunnel(row.tunnel).label, (_plain("tunnel"),), 4, keys.tunnel_term, keys.TUNNEL,
           of_tunnels=True),
    Column("vni", "VNI", 8,
           "With --decap or -l: the tunnel's VNI, GRE key, ERSPAN session, MPLS label; empty: it has none.",
           _tunnel_id, (_plain("tunnel_id"),), 4, keys.tunnel_id_term, keys.TUNNEL_ID, "right", of_tunnels=True),
    Column("protocol", "PROTO", 5, "IP protocol.", _protocol,
           (_plain("protocol"),), 1, keys.protocol_term, keys.PROTOCOL),
    Column("source", "SOURCE", 15, "Source address and port.", _source,
           (_plain("ip_version"), *_address_words("source_address"), _plain("source_port")), 1, keys.source_term,
           flexible=True, shortened=endpoints.source),
    Column("destination", "DESTINATION", 15, "Destination address and port, or ICMP type.", _destination,
           (_plain("ip_version"), *_address_words("destination_address"), _plain("destination_port")), 1,
           keys.destination_term, flexible=True, shortened=endpoints.destination),
    Column("dscp", "DSCP", 4, "Differentiated services code point of the first packet; empty for best effort.",
           lambda row, _, __: units.dscp(row.tos), (_dscp,), 9, keys.dscp_term, keys.DSCP),
    Column("flags", "FLAGS", 9, "TCP control bits seen, in tcpdump's letters: F S R P . (ACK) U E W e.",
           lambda row, _, __: units.tcp_flags(row.tcp_control_bits), (_plain("tcp_control_bits"),), 7,
           keys.flags_term, keys.FLAGS),
    # Of those that are silent the ones that were not come first: what has just ended is not out of sight at once.
    _rate_column("RATE", "octet_rate", (_plain("octet_delta"), _plain("octets_10s")), 1, keys.RATE,
                 "Rate over the last tick (IP octets)."),
    _rate_column("10 s", "octet_rate_10s", (_plain("octets_10s"),), 3, keys.RATE_10S, "Rate over the last 10 s."),
    _rate_column("60 s", "octet_rate_60s", (_plain("octets_60s"),), 5, keys.RATE_60S, "Rate over the last 60 s."),
    _rate_column("PEAK", "octet_rate_peak", (_plain("octet_rate_peak"),), 6, keys.PEAK,
                 "Highest rate of any tick so far."),
    Column("pps", "PPS", 6, "Wire packets a second over the last tick.",
           lambda row, _, __: units.count_cell(row.packet_rate), (_plain("packet_delta"),), 6,
           keys.at_least("pps", lambda row: row.packet_rate), keys.PPS, "right", descending_first=True),
    Column("bytes", "BYTES", 8, "IP octets over the flow's life.",
           lambda row, _, __: units.octets_cell(row.octet_total), (_plain("octet_total"),), 1,
           keys.at_least("bytes", lambda row: row.octet_total), keys.BYTES, "right", descending_first=True),
    Column("packets", "PKTS", 6, "Wire packets over the flow's life.",
           lambda row, _, __: units.count_cell(row.packet_total), (_plain("packet_total"),), 2,
           keys.at_least("packets", lambda row: row.packet_total), keys.PACKETS, "right", descending_first=True),
    Column("age", "AGE", 7, "Time from first to last packet.", lambda row, _, __: units.duration(row.age_s), (_age,), 4,
           keys.at_least("age", lambda row: row.age_s, "s"), keys.AGE, "right", descending_first=True),
    Column("rtt", "RTT", 7,
           "TCP round-trip time: of what sockets of this host send, smoothed; with -r the handshake's.",
           lambda row, _, __: units.span(row.rtt_us) if row.rtt_us else "", (_plain("rtt_us"),), 10, keys.rtt_term,
           keys.RTT, "right", descending_first=True),
    Column("retransmits", "RETR", 5,
           "TCP segments sent again: by a socket of this host, in its life; with -r in the file.",
           lambda row, _, __: units.count(row.retransmitted) if row.retransmitted else "", (_plain("retransmitted"),),
           10, keys.at_least("retransmits", lambda row: row.retransmitted), keys.RETRANSMITS, "right",
           descending_first=True),
    Column("outoforder", "OOO", 5, "With -r: TCP segments that came out of order.",
           lambda row, _, __: units.count(row.out_of_order) if row.out_of_order else "", (_plain("out_of_order"),),
           11, keys.at_least("outoforder", lambda row: row.out_of_order), keys.OUT_OF_ORDER, "right",
           descending_first=True),
    Column("cwnd", "CWND", 5, "TCP congestion window in segments: of flows that a socket of this host sends.",
           lambda row, _, __: units.count(row.congestion_window) if row.congestion_window else "",
           (_plain("congestion_window"),), 11, keys.cwnd_term, keys.CWND, "right", descending_first=True),
    Column("ttl", "TTL", 3, "TTL or hop limit of the first packet.", lambda row, _, __: str(row.ttl), (_plain("ttl"),),
           12, keys.ttl_term, keys.TTL, "right"),
    Column("state", "ST", 3, "· active, fin closing, dup counted at another Observation Point, tun a tunnel whose "
           "packets count in the flows it carries, end ended.", _state_text, (_state,), 1, keys.state_term, keys.STATE),
)

def unfiltered(column: Column) -> Column:
    """The column of a sum of several flows: filters are for flows, and none of them has as much."""
    return replace(column, term=lambda _, __: "")


COLUMNS: dict[str, Column] = {column.id: column for column in _ALL}
"""Every column by id, in the order of the screen."""

_RATES: dict[Window, str] = {"tick": "rate", "10s": "rate_10s", "60s": "rate_60s"}


def rate_column(window: Window) -> str:
    """Id of the column that shows (and sorts by) the rate over `window`."""
    return _RATES[window]
