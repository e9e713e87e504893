"""Every word of the filter language: those of fields, which are in the registry, and those of the grammar."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from flowtop.fields.field import FilterKey, reported, stored
from flowtop.fields.registry import KEYS
from flowtop.model.flows import Array
from flowtop.model.kinds import LARGEST_PROTOCOL, IpVersion, Kind, RecordBits
from flowtop.text import operands

_MAC_WORD = np.dtype("u8")


def _hidden(word: str, read: operands.ReadInteger, name: str, packet: str,
            missing: RecordBits | None = None) -> FilterKey:
    """A field of the Flow Key that words of the grammar test; with `missing`, one that exporters may not report."""
    flows, records = stored(name) if missing is None else reported(name, missing)
    aggregates = name in ("protocol", "ip_version", "direction")
    return FilterKey(word, "", "", "", read, flows, records, packet=packet, of_aggregates=aggregates)


PROTOCOL = _hidden("proto", operands.ReadInteger(0, LARGEST_PROTOCOL), "protocol", "protocol",
                   RecordBits.NO_PROTOCOL)
VERSION = _hidden("version", operands.ReadInteger(IpVersion.V4, IpVersion.V6), "ip_version", "ip_version")
SOURCE_PORT = _hidden("src port", operands.ReadInteger(0, 65535), "source_port", "source_port",
                      RecordBits.NO_SOURCE_PORT)
KIND = _hidden("kind", operands.ReadInteger(0, max(Kind)), "kind", "kind")
DESTINATION_PORT = _hidden("dst port", operands.ReadInteger(0, 65535), "destination_port", "destination_port",
                           RecordBits.NO_DESTINATION_PORT)


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


CUSTOMER_VLAN = _hidden("inner vlan", operands.ReadInteger(0, 4095), "customer_vlan_id", "customer_vlan_id")

ENDS: Mapping[str, tuple[str, str]] = {"as": ("source_asn", "destination_asn"), "nat": ("nat_src", "nat_dst"),
                                       "vrf": ("in_vrf", "out_vrf")}
"""Words for either end, or for one with src or dst before: the keys of the source (or ingress) and of the other end."""
ADDRESS_WORDS = ("host", "net")
PORT_WORDS = ("port", "portrange")
VERSION_WORDS: Mapping[str, int] = {"ip": IpVersion.V4, "ip6": IpVersion.V6, "ipv4": IpVersion.V4,
                                    "ipv6": IpVersion.V6}
PROTOCOL_WORDS: Mapping[str, int] = operands.PROTOCOL_WORDS
WELL_KNOWN = ("tcp", "udp", "icmp", "icmp6", "sctp", "gre", "esp", "ip", "ip6")
"""The words of these two that completion offers first."""


@dataclass(frozen=True, slots=True)
class Word:
    """A line of the help screen and of the manual's table."""

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
    Word("name", "TEXT", "Either end has this name: seen in packets, or found by `n`; `src name`, `dst name`.",
         "name ~ example"),
    Word("text", "TEXT", "A host name, process, interface, service or other text of the flow has this in it, or an "
                         "address begins with it; typed after `/`, the word alone will do.", "text nginx"),
    Word("as", "NUMBER", "Either end's autonomous system, reported or looked up; `src as`, `dst as`: that end.",
         "as 64500"),
    Word("nat", "ADDRESS | NETWORK", "With -l: either end's address after translation; `src nat`, `dst nat`.",
         "nat 198.51.100.0/24"),
    Word("vrf", "TEXT", "With -l: VRF at either side, by name or number.", "vrf red"),
    Word("mac ether", "[host] MAC", "Either end's MAC address, of the first packet; `ether src`, `ether dst`.",
         "mac 02:00:00:00:00:0a"),
)


def _argument(key: FilterKey) -> str:
    by_choice = " | ".join(key.choices) if 0 < len(key.choices) < 5 else "VALUE"
    operand = {"text": "TEXT", "address": "NETWORK"}.get(key.kind, by_choice)
    return f"[{operand}]" if key.optional else operand


_JOINTS = (
    Word("and or not ( )", "", "Also && || !. Side by side means and. `and` and `or` go left to right, as in tcpdump.",
         "tcp and (port 80 or port 443)"),
    Word("< <= > >= = != ~ !~", "", "Between a word and its value; without one, =. ~ finds a part of a text.",
         "rate >= 1Mbit"),
)


class _Words(Sequence[Word]):
    """All words, in the order of the help screen, with those of fields that are registered later."""

    @overload
    def __getitem__(self, at: int) -> Word: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Word]: ...
    def __getitem__(self, at: int | slice) -> Word | Sequence[Word]:
        return self._all()[at]

    def __len__(self) -> int:
        return len(self._all())

    @staticmethod
    def _all() -> tuple[Word, ...]:
        keys = (Word(key.word, _argument(key), key.doc, key.example) for key in KEYS.values())
        return (*_GRAMMAR_WORDS, *keys, *_JOINTS)


WORDS = _Words()
"""Every word, explained."""
