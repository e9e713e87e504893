"""Filter terms made from the cells of a row."""

from __future__ import annotations

from collections.abc import Callable

from flowtop.model.exporters import exporter_of, interface_of
from flowtop.model.kinds import HAVE_PORTS, PORT_PROTOCOLS, Kind, RecordBits, Tunnel
from flowtop.model.rows import FlowRow
from flowtop.text import operands, units
from flowtop.text.lookups import NO_LOOKUPS, Lookups

TermOf = Callable[[FlowRow, Lookups], str]
"""A flow and names → a filter on the value of a cell, which this flow matches."""
TermsOf = Callable[[FlowRow, Lookups], tuple[str, ...]]
"""A flow and names → filters, each of which more flows match than the one before; this flow matches them all."""


def exporter_term(row: FlowRow, lookups: Lookups) -> str:
    """`exporter 192.0.2.1`; for a flow that no exporter reported, its interface."""
    exporter = exporter_of(lookups.interfaces.get(row.ifindex, ""))
    return f"exporter {exporter.address}" if exporter else interface_term(row, lookups)


def domain_term(row: FlowRow, lookups: Lookups) -> str:
    """`exporter 192.0.2.1 and domain 7`: a domain is unique only within its exporter."""
    exporter = exporter_of(lookups.interfaces.get(row.ifindex, ""))
    return f"exporter {exporter.address} and domain {exporter.domain}" if exporter else interface_term(row, lookups)


def interface_term(row: FlowRow, lookups: Lookups) -> str:
    """`if eth0`: see `interface_words`."""
    return interface_words(interface_of(lookups.interfaces.get(row.ifindex, f"if{row.ifindex}")))


def interface_words(name: str) -> str:
    """`if eth0`; names with special characters are quoted by `text_words`; "" for an empty name."""
    plain = name.isascii() and all(character.isalnum() or character in "._-@" for character in name)
    return f"if {name}" if plain and name else text_words("if", name)


def text_words(word: str, text: str) -> str:
    """`process "nginx"`: flows with this text. Glob characters in it are escaped, characters that are not printable are
    replaced by `?`. "" for an empty text: no filter can match that."""
    if not text:
        return ""
    escaped = "".join(f"[{character}]" if character in "*?[" else character if character.isprintable() else "?"
                      for character in text)
    quote = "'" if '"' in escaped else '"'
    return f"{word} {quote}{escaped}{quote}"


def protocol_words(protocol: int) -> str:
    """`tcp`, or `proto 253`."""
    name = units.protocol(protocol)
    return name if operands.PROTOCOL_WORDS.get(name) == protocol else f"proto {protocol}"


def _end(side: str, raw: bytes, row: FlowRow, port: int) -> str:
    if row.kind == Kind.AGGREGATE:
        return protocol_term(row, NO_LOOKUPS)
    host = f"{side} host" if row.ip_version else f"ether {side}"
    host += f" {units.address(raw, row.ip_version)}"
    no_port = RecordBits.NO_SOURCE_PORT if side == "src" else RecordBits.NO_DESTINATION_PORT
    with_port = row.kind in HAVE_PORTS and row.protocol in PORT_PROTOCOLS and not row.record_bits & no_port
    return f"{host} and {side} port {port}" if with_port else host


def source_term(row: FlowRow, lookups: Lookups) -> str:
    """`src host 10.0.0.5 and src port 443`."""
    del lookups
    return _end("src", row.source_address, row, row.source_port)


def destination_term(row: FlowRow, lookups: Lookups) -> str:
    """`dst host 10.0.0.5 and dst port 443`."""
    del lookups
    return _end("dst", row.destination_address, row, row.destination_port)


def wider_terms(side: str, raw: bytes, ip_version: int, *, network: bool = True) -> tuple[str, ...]:
    """`src host 10.0.0.5`, then `src net 10.0.0.0/24` (IPv6: /64); without IP only the first, as a MAC address.

    Args:
        side: "src" or "dst".
        raw: the address, 16 bytes.
        network: with the second.
    """
    text = units.address(raw, ip_version)
    if not ip_version:
        return (f"ether {side} {text}",)
    return f"{side} host {text}", *((f"{side} net {operands.network_around(text)}",) if network else ())


def source_wider(row: FlowRow, lookups: Lookups) -> tuple[str, ...]:
    """What is wider than the source: its host, its network."""
    return _wider("src", row.source_address, row, source_term(row, lookups))


def destination_wider(row: FlowRow, lookups: Lookups) -> tuple[str, ...]:
    """What is wider than the destination: its host, its network."""
    return _wider("dst", row.destination_address, row, destination_term(row, lookups))


def _wider(side: str, raw: bytes, row: FlowRow, narrow: str) -> tuple[str, ...]:
    if row.kind == Kind.AGGREGATE:
        return ()
    return tuple(term for term in wider_terms(side, raw, row.ip_version) if term != narrow)


def protocol_term(row: FlowRow, lookups: Lookups) -> str:
    """`tcp`, or `proto 253`; "" if the exporter does not report it."""
    del lookups
    unknown = row.record_bits & RecordBits.NO_PROTOCOL and row.kind != Kind.AGGREGATE
    return "" if unknown else protocol_words(row.protocol)


def vlan_term(row: FlowRow, lookups: Lookups) -> str:
    """`vlan 100`, `vlan 100.200`, or `not vlan`."""
    del lookups
    return vlan_words(row.vlan_id, row.customer_vlan_id) if row.customer_vlan_id or not row.vlan_id else \
        f"vlan {row.vlan_id}"


def vlan_words(outer: int, inner: int) -> str:
    """These tags and no others: `vlan 100.0`, `vlan 100.200`, or `not vlan`."""
    return f"vlan {outer}.{inner}" if outer or inner else "not vlan"


def fragment_words(kind: int) -> str:
    """`fragment` or `not fragment`: separates later fragments from flows of a protocol without ports."""
    return "fragment" if kind == Kind.FRAGMENT else "not fragment"


def tunnel_term(row: FlowRow, lookups: Lookups) -> str:
    """`tunnel vxlan`, or `not tunnel`."""
    del lookups
    return f"tunnel {Tunnel(row.tunnel).label}" if row.tunnel else "not tunnel"


def tunnel_id_term(row: FlowRow, lookups: Lookups) -> str:
    """`tunnel vxlan and vni 42`: an id is unique only within its kind of tunnel."""
    of_tunnel = tunnel_term(row, lookups)
    return f"{of_tunnel} and vni {row.tunnel_id}" if row.tunnel else of_tunnel


def flags_term(row: FlowRow, lookups: Lookups) -> str:
    """`flags fin+syn`: at least the flags of the row."""
    del lookups
    letters = units.tcp_flags(row.tcp_control_bits)
    return f"flags {letters}" if letters else "flags none"


def at_least(word: str, value: Callable[[FlowRow], float], unit: str = "") -> TermOf:
    """`bytes >= 17300`: at least this flow's value, rounded down to a whole number."""
    return lambda row, _: f"{word} >= {int(value(row))}{unit}"


def about(word: str, value: Callable[[FlowRow], float], unit: str = "") -> TermOf:
    """`rate >= 1200000B/s`: at least half of this flow's value, which goes up and down: it still passes at the next
    tick. Two digits, rounded down."""
    def term(row: FlowRow, _: Lookups) -> str:
        half = int(value(row) / 2)
        scale = 10 ** max(0, len(str(half)) - 2)
        return f"{word} >= {half // scale * scale}{unit}"

    return term


def rtt_term(row: FlowRow, lookups: Lookups) -> str:
    """`rtt >= 12300us`; "" when it is not known."""
    del lookups
    return f"rtt >= {row.rtt_us}us" if row.rtt_us else ""


def cwnd_term(row: FlowRow, lookups: Lookups) -> str:
    """`cwnd <= 10`; "" when it is not known."""
    del lookups
    return f"cwnd <= {row.congestion_window}" if row.congestion_window else ""


def ttl_term(row: FlowRow, lookups: Lookups) -> str:
    """`ttl 64`."""
    del lookups
    return "" if row.record_bits & RecordBits.NO_TTL else f"ttl {row.ttl}"


def direction_term(row: FlowRow, lookups: Lookups) -> str:
    """`dir in`."""
    del lookups
    return direction_words(row.direction)


def direction_words(direction: int) -> str:
    """`dir in`."""
    return f"dir {('in', 'out', 'unknown')[direction]}"


def state_term(row: FlowRow, lookups: Lookups) -> str:
    """`duplicate`, `parent`, or `state active`, like the column ST."""
    del lookups
    if row.kind == Kind.PARENT and not row.end_reason:
        return "parent"
    return "duplicate" if row.duplicate and not row.end_reason else f"state {row.state.name.lower()}"


def dscp_term(row: FlowRow, lookups: Lookups) -> str:
    """`dscp ef`."""
    del lookups
    return "" if row.record_bits & RecordBits.NO_TOS else f"dscp {units.dscp(row.tos) or 'be'}"
