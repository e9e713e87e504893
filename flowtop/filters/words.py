"""Every word of the filter language: of columns, of fields without a column, and of the grammar."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowtop.fields.columns import COLUMNS
from flowtop.fields.field import FilterKey, stored
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import ICMP_VERSIONS, LARGEST_PROTOCOL, IpVersion, Kind
from flowtop.text import operands, quantities

_MAC_WORD = np.dtype("u8")


def _hidden(word: str, read: operands.ReadInteger, name: str, packet: str) -> FilterKey:
    """A field of the Flow Key that words of the grammar test."""
    flows, records = stored(name)
    aggregates = name in ("protocol", "ip_version", "direction")
    return FilterKey(word, "", "", "", read, flows, records, packet=packet, of_aggregates=aggregates)


PROTOCOL = _hidden("proto", operands.ReadInteger(0, LARGEST_PROTOCOL), "protocol", "protocol")
VERSION = _hidden("version", operands.ReadInteger(IpVersion.V4, IpVersion.V6), "ip_version", "ip_version")
SOURCE_PORT = _hidden("src port", operands.ReadInteger(0, 65535), "source_port", "source_port")
KIND = _hidden("kind", operands.ReadInteger(0, max(Kind)), "kind", "kind")
DESTINATION_PORT = _hidden("dst port", operands.ReadInteger(0, 65535), "destination_port", "destination_port")


def _mac_numbers(macs: Array) -> Array:
    """MACs, V6, as one number each: six octets and two zeros, read in this machine's byte order."""
    numbers = np.zeros(len(macs), _MAC_WORD)
    numbers.view(np.uint8).reshape(-1, 8)[:, :6] = np.ascontiguousarray(macs).view(np.uint8).reshape(-1, 6)
    return numbers


def _read_mac(text: str) -> int:
    return int.from_bytes(operands.mac(text) + b"\0\0", sys.byteorder)


SOURCE_MAC = FilterKey(
    "src mac", "", "", "", _read_mac, lambda source: _mac_numbers(source.columns["source_mac"]),
    lambda records: _mac_numbers(records["source_mac"]))
DESTINATION_MAC = FilterKey(
    "dst mac", "", "", "", _read_mac, lambda source: _mac_numbers(source.columns["destination_mac"]),
    lambda records: _mac_numbers(records["destination_mac"]))


def _number(word: str, name: str, high: int, doc: str, example: str) -> FilterKey:
    flows, records = stored(name)
    return FilterKey(word, doc, example, f"a number from 0 to {high}", operands.ReadInteger(0, high), flows, records)


def _icmp_type(columns: FlowColumns) -> Array:
    """ICMP type; for other protocols 65535, which is not a type."""
    icmp = np.isin(columns["protocol"], list(ICMP_VERSIONS))
    return np.where(icmp, columns["destination_port"] >> np.uint16(8), np.uint16(65535))


def _icmp_code(columns: FlowColumns) -> Array:
    """ICMP code; meaningless for other protocols, which filters exclude."""
    return columns["destination_port"] & np.uint16(255)


def _is_fragment(columns: FlowColumns) -> Array:
    found: Array = columns["kind"] == Kind.FRAGMENT
    return found


_MORE = (
    FilterKey("idle", "Time since the last packet.", "idle > 10s", "a time such as 5s, 500ms, 2m, 1h",
              quantities.seconds, lambda source: (source.now_ns - source.columns["last_ns"]) / 1e9, of_aggregates=True),
    FilterKey("vlan", "VLAN ID of either tag; 100.200: outer and inner tag, 100.0: no inner one; alone: tagged at all.",
              "vlan 100", "a VLAN ID, 0 to 4095, or outer and inner as in 100.200", operands.vlan, *stored("vlan_id"),
              packet="vlan_id", optional=True),
    _number("tos", "tos", 255, "TOS or traffic class octet of the first packet.", "tos 0x10"),
    FilterKey("icmptype", "ICMP or ICMPv6 type.", "icmptype 8",
              "an ICMP type, 0 to 255", operands.ReadInteger(0, 255),
              lambda source: _icmp_type(source.columns), _icmp_type),
    FilterKey("icmpcode", "ICMP or ICMPv6 code.", "icmpcode 1",
              "an ICMP code, 0 to 255", operands.ReadInteger(0, 255),
              lambda source: _icmp_code(source.columns), _icmp_code),
    FilterKey("fragment", "Later fragments whose first was not seen: of what port they are nobody knows.",
              "fragment", "0 or 1", operands.ReadInteger(0, 1),
              lambda source: _is_fragment(source.columns), _is_fragment, optional=True),
    FilterKey("duplicate", "Counted at another Observation Point already (dup).", "not duplicate", "0 or 1",
              operands.ReadInteger(0, 1), *stored("duplicate"), optional=True, of_aggregates=True),
    FilterKey("parent", "With --decap: a tunnel that carries flows, whose packets are in them.", "not parent", "0 or 1",
              operands.ReadInteger(0, 1), lambda source: source.columns["kind"] == Kind.PARENT,
              lambda records: records["kind"] == Kind.PARENT, optional=True, of_aggregates=True),
)

KEYS: dict[str, FilterKey] = {
    key.word: key for key in (*(column.key for column in COLUMNS.values() if column.key), *_MORE)
}
"""Every key by its word."""

CUSTOMER_VLAN = _hidden("inner vlan", operands.ReadInteger(0, 4095), "customer_vlan_id", "customer_vlan_id")

ADDRESS_WORDS = ("host", "net")
PORT_WORDS = ("port", "portrange")
VERSION_WORDS: Mapping[str, int] = {"ip": IpVersion.V4, "ip6": IpVersion.V6, "ipv4": IpVersion.V4,
                                    "ipv6": IpVersion.V6}
PROTOCOL_WORDS: Mapping[str, int] = operands.PROTOCOL_WORDS
WELL_KNOWN = ("tcp", "udp", "icmp", "icmp6", "sctp", "gre", "esp", "ip", "ip6")
"""The words of these two that completion offers first."""


@dataclass(frozen=True, slots=True)
class Word:
    """A line of the help screen and the README's table."""

    words: str
    argument: str
    doc: str
    example: str


_GRAMMAR_WORDS = (
    Word("host", "ADDRESS", "Either end has this address.", "host 10.0.0.1"),
    Word("net", "NETWORK", "Either end is in this network.", "net 10/8"),
    Word("port", "PORT", "Either end has this port; several with commas, names too, `port ~ http`.", "port 80,443"),
    Word("portrange", "LOW-HIGH", "Either end's port is in this range.", "portrange 1-1024"),
    Word("src dst", "ADDRESS | host ... | port ...", "Only that end; `src or dst`, `src and dst` too.",
         "src host 10.0.0.1"),
    Word("ADDRESS", "", "An address, network, or endpoint by itself: either end.", "10.0.0.5:443"),
    Word("tcp udp icmp icmp6 sctp gre ...", "", "That protocol; also before src, dst, host, net, port.",
         "tcp port 443"),
    Word("ip ip6", "", "That version; also before src, dst, host, net, proto.", "ip6"),
    Word("private", "", "Both ends private, link-local, loopback or multicast; `src private`: that end.",
         "not private"),
    Word("name", "TEXT", "Either end's host has this name, as far as `n` has found names; `src name`, `dst name`.",
         "name ~ example"),
    Word("mac ether", "[host] MAC", "Either end's MAC address, of the first packet; `ether src`, `ether dst`.",
         "mac 02:00:00:00:00:0a"),
)


def _argument(key: FilterKey) -> str:
    operand = "TEXT" if key.kind == "text" else (" | ".join(key.choices) if 0 < len(key.choices) < 5 else "VALUE")
    return f"[{operand}]" if key.optional else operand


WORDS: tuple[Word, ...] = (
    *_GRAMMAR_WORDS,
    *(Word(key.word, _argument(key), key.doc, key.example) for key in KEYS.values()),
    Word("and or not ( )", "", "Also && || !. Side by side means and. `and` and `or` go left to right, as in tcpdump.",
         "tcp and (port 80 or port 443)"),
    Word("< <= > >= = != ~ !~", "", "Between a word and its value; without one, =. ~ finds a part of a text.",
         "rate >= 1Mbit"),
)
"""All words, in the order of the help screen."""
