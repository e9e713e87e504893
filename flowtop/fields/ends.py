"""Fields of a flow's endpoints: addresses, ports, host pairs, networks, services, ICMP types."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields import endpoints
from flowtop.fields.columns import Column, SortKey, Wording, plain
from flowtop.fields.field import Field, FilterKey, GroupField, Key, Member, or_code
from flowtop.fields.networks import AS_NAMES, COUNTRIES, LONGEST_AS_NAME, remote_is_source
from flowtop.model.flows import Array, FlowColumns, address_words
from flowtop.model.kinds import (
    ANY_PROTOCOL,
    CLIENT_PORTS,
    HAVE_PORTS,
    ICMP_VERSIONS,
    PORT_PROTOCOLS,
    IpVersion,
    Kind,
    RecordBits,
)
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text import operands, units
from flowtop.text.lookups import NO_LOOKUPS, Lookups, Texts
from flowtop.text.names import Names, shorten_name

Side = Literal["source", "destination"]

OTHERS = "(all other flows)"

# ---- addresses


_LAYER2 = 2
"""In place of an IP version: the ends are MAC addresses."""


def _known_version(columns: FlowColumns) -> Array:
    """4 or 6, or _LAYER2; 0 for aggregates, whose addresses are not known."""
    version = columns["ip_version"].copy()
    version[version == 0] = _LAYER2
    version[columns["kind"] == Kind.AGGREGATE] = 0
    return version


def _packed(high: int, low: int) -> bytes:
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def _address(version: int, high: int, low: int) -> str:
    return units.address(_packed(high, low), 0 if version == _LAYER2 else version) if version else OTHERS


def _named_address(version: int, high: int, low: int, wording: Wording) -> str:
    name = wording.names.host(_packed(high, low), version) if version > _LAYER2 else None
    return name or _address(version, high, low)


def _host(field_id: str, header: str, side: str, word: str) -> GroupField:
    def values(key: Key, _: Lookups) -> dict[str, Any]:
        name = "Mac" if key[0] == _LAYER2 else f"IPv{key[0]}"
        return {f"{side}{name}Address": _address(*key)} if key[0] else {}

    return GroupField(
        field_id, header, 15, f"{side.capitalize()} host.",
        keys=lambda columns: (_known_version(columns), *address_words(columns, f"{side}_address")),
        text=lambda key, _: _address(*key),
        named=lambda key, wording: _named_address(key[0], key[1], key[2], wording),
        term=lambda key, _: _end_term(word, key),
        wider=lambda key, _: terms.wider_terms(word, _packed(*key[1:]), key[0])[1:] if key[0] > _LAYER2 else (),
        shorten=_short_host,
        parts=3, values=values, members=(f"{side}IPv4Address", f"{side}IPv6Address", f"{side}MacAddress"),
        flexible=True, rank=0)


def _end_term(word: str, key: Key) -> str:
    """The filter for an address on that side, "" for none."""
    if key[0] == _LAYER2:
        return f"ether {word} {_address(*key)}"
    return f"{word} host {_address(*key)}" if key[0] else ""


def _end_keys(columns: FlowColumns, at_source: Array) -> tuple[Array, ...]:
    """Keys of the source where `at_source`, else of the destination."""
    source, destination = address_words(columns, "source_address"), address_words(columns, "destination_address")
    ends = [np.where(at_source, ours, theirs) for ours, theirs in zip(source, destination, strict=True)]
    return (_known_version(columns), *ends)


def _host_term(key: Key) -> str:
    if key[0] == _LAYER2:
        return f"mac {_address(*key)}"
    return f"host {_address(*key)}" if key[0] else ""


def _host_facts(keys: tuple[Array, ...], lookups: Lookups) -> dict[str, Array]:
    """AS and country of hosts."""
    version, high, low = keys
    if lookups.networks is None:
        return {}
    four = version == np.uint8(IpVersion.V4)
    lengths = np.where(version > _LAYER2, np.uint8(128), np.uint8(0))
    _, name, country = lookups.networks.origins(
        np.where(four, np.uint64(0), high), np.where(four, _MAPPED | high >> np.uint64(32), low), lengths)
    return {_HOST_AS: name, _HOST_COUNTRY: country}


_MAPPED = np.uint64(0xFFFF << 32)
_HOST_AS, _HOST_COUNTRY = "host_as_name", "host_country"


def _host_column(fact: str, header: str, doc: str, texts: Texts, width: int, longest: int, priority: int) -> Column:
    return Column(fact, header, width, doc, lambda row, _, lookups: texts.text(row.more.get(fact, 0), lookups),
                  (plain(fact),), priority, lambda _, __: "", texts=texts, longest=longest, of_networks=True,
                  rank=3)


def _host_field() -> Field:
    doc = "Host at the remote end; of flows that pass through, the hosts at both ends."
    return Field("host", doc, group=GroupField(
        "host", "HOST", 15, doc, keys=lambda columns: _end_keys(columns, remote_is_source(columns)),
        others=lambda columns: _end_keys(columns, ~remote_is_source(columns)), parts=3,
        text=lambda key, _: _address(*key), named=lambda key, wording: _named_address(key[0], key[1], key[2], wording),
        term=lambda key, _: _host_term(key), values=lambda key, _: {"host": _address(*key)} if key[0] else {},
        members=("host",), flexible=True, facts=_host_facts, rank=0, columns=(
            _host_column(_HOST_AS, "AS NAME", "The host's AS by name, looked up.", AS_NAMES, 10, LONGEST_AS_NAME, 6),
            _host_column(_HOST_COUNTRY, "CC", "The host's country, looked up: two letters (ISO 3166).", COUNTRIES, 2, 0,
                         5))))


def _pair_keys(columns: FlowColumns) -> tuple[Array, ...]:
    source, destination = address_words(columns, "source_address"), address_words(columns, "destination_address")
    swapped = (source[0] > destination[0]) | ((source[0] == destination[0]) & (source[1] > destination[1]))
    lower = [np.where(swapped, theirs, ours) for ours, theirs in zip(source, destination, strict=True)]
    upper = [np.where(swapped, ours, theirs) for ours, theirs in zip(source, destination, strict=True)]
    return (_known_version(columns), *lower, *upper)


def _pair_hosts(key: Key) -> list[str]:
    version, high, low, other_high, other_low = key
    return [_address(version, high, low), _address(version, other_high, other_low)]


def _named_pair(key: Key, wording: Wording) -> str:
    version, high, low, other_high, other_low = key
    ends = (_named_address(version, high, low, wording), _named_address(version, other_high, other_low, wording))
    return " ↔ ".join(ends) if version else OTHERS


def _short_host(key: Key, names: Names, width: int) -> str:
    version, high, low = key
    name = names.host(_packed(high, low), version) if version > _LAYER2 else None
    return units.elide(_address(version, high, low), width) if name is None else shorten_name(name, width)


def _short_pair(key: Key, names: Names, width: int) -> str:
    version, *words = key
    if not version:
        return units.elide(OTHERS, width)
    ends = []
    for high, low in (words[:2], words[2:]):
        name = names.host(_packed(high, low), version) if version > _LAYER2 else None
        ends.append((name or _address(version, high, low), name is not None))
    return endpoints.shortened_pair(ends, " ↔ ", width)


def _pair_term(version: int, host: str, other: str) -> str:
    if version == _LAYER2:
        return f"mac {host} and mac {other}" if host != other else f"ether src {host} and ether dst {host}"
    return f"host {host} and host {other}" if host != other else f"src host {host} and dst host {host}"


def _prefixed(words: tuple[Array, Array], version: Array, lengths: tuple[int, int]) -> tuple[Array, Array]:
    """The words with the host part cleared: IPv4 after lengths[0] bits, IPv6 after lengths[1]."""
    def kept(bits: int) -> np.uint64:
        bits = min(max(bits, 0), 64)
        return np.uint64((1 << 64) - (1 << 64 - bits))

    six = version == np.uint8(IpVersion.V6)
    high = words[0] & np.where(six, kept(lengths[1]), kept(lengths[0]))
    return high, words[1] & np.where(six, kept(lengths[1] - 64), np.uint64(0))


def _remote_subnet(lengths: tuple[int, int]) -> GroupField:
    """The network of the remote end; a flow that passes through counts for those of both ends."""
    made = _subnet("remote_subnet", "NET", "remote", "", lengths)

    def keys(columns: FlowColumns, at_source: Array) -> tuple[Array, ...]:
        version, *words = _end_keys(columns, at_source)
        version = np.where(version == _LAYER2, 0, version)
        return (version, *_prefixed((words[0], words[1]), version, lengths))

    return replace(
        made, doc="Network of the remote host: /24, IPv6 /64, or a length; of flows that pass through, of both hosts.",
        keys=lambda columns: keys(columns, remote_is_source(columns)),
        others=lambda columns: keys(columns, ~remote_is_source(columns)), apart=True,
        term=lambda key, lookups: made.term(key, lookups).strip(),
        values=lambda key, lookups: {"network": made.text(key, lookups)} if key[0] else {}, members=("network",),
        choose=lambda argument: _remote_subnet(_lengths(argument)))


def _subnet(field_id: str, header: str, side: str, word: str, lengths: tuple[int, int]) -> GroupField:
    def length(key: Key) -> int:
        return lengths[key[0] == IpVersion.V6]

    def keys(columns: FlowColumns) -> tuple[Array, ...]:
        version = _known_version(columns)
        version = np.where(version == _LAYER2, 0, version)
        return (version, *_prefixed(address_words(columns, f"{side}_address"), version, lengths))

    def values(key: Key, _: Lookups) -> dict[str, Any]:
        if not key[0]:
            return {}
        return {f"{side}IPv{key[0]}Prefix": _address(*key), f"{side}IPv{key[0]}PrefixLength": length(key)}

    def choose(argument: str) -> GroupField:
        return _subnet(field_id, header, side, word, _lengths(argument))

    def network(key: Key) -> str:
        return f"{_address(*key)}/{length(key)}"

    return GroupField(
        field_id, header, 18, f"{side.capitalize()} network: /24, IPv6 /64, or a length.",
        keys=keys, parts=3,
        text=lambda key, _: network(key) if key[0] else OTHERS,
        term=lambda key, _: f"{word} net {network(key)}" if key[0] else "",
        values=values,
        members=tuple(f"{side}IPv{version}{part}" for version in IpVersion for part in ("Prefix", "PrefixLength")),
        rank=4, flexible=True, choose=choose, argument="16, :48 (IPv6) or :16/48")


_DEFAULT_LENGTHS = (24, 64)


def _lengths(text: str) -> tuple[int, int]:
    """Prefix lengths: `16` (IPv4), `48` (above 32: IPv6), `16/48` (both)."""
    parts = text.split("/")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError("not a prefix length")
    numbers = [int(part[:4]) for part in parts]
    if len(numbers) == 1:
        numbers = [numbers[0], _DEFAULT_LENGTHS[1]] if numbers[0] <= 32 else [_DEFAULT_LENGTHS[0], numbers[0]]
    if numbers[0] > 32 or numbers[1] > 128:
        raise ValueError("an IPv4 prefix has at most 32 bits, an IPv6 prefix 128")
    return numbers[0], numbers[1]


# ---- services and the rest


_NO_NUMBER = 1 << 16
"""In place of a port or an ICMP type: not reported."""


def _service_keys(columns: FlowColumns) -> tuple[Array, ...]:
    """Kind, protocol and the lower port; of ICMP, its type.

    The lower port is taken as the service: client ports begin at 32768 on Linux (49152 at IANA), above nearly every
    service. This needs no list of ports, and both directions of a conversation are in the same group.
    """
    kind, protocol = columns["kind"], columns["protocol"]
    source = or_code(columns, columns["source_port"], RecordBits.NO_SOURCE_PORT, _NO_NUMBER)
    destination = or_code(columns, columns["destination_port"], RecordBits.NO_DESTINATION_PORT, _NO_NUMBER)
    ports = np.isin(protocol, list(PORT_PROTOCOLS)) & np.isin(kind, HAVE_PORTS)
    icmp = np.isin(protocol, list(ICMP_VERSIONS)) & (kind == Kind.FLOW)
    icmp_type = or_code(columns, columns["destination_port"] >> np.uint16(8), RecordBits.NO_ICMP_TYPE, _NO_NUMBER)
    number = np.where(ports, np.minimum(source, destination), np.where(icmp, icmp_type, np.uint16(0)))
    return kind, protocol, number


def _service_text(key: Key, _: Lookups) -> str:
    kind, protocol, number = key
    name = units.protocol(protocol)
    if kind == Kind.AGGREGATE:
        return OTHERS if protocol == ANY_PROTOCOL else f"{name} {OTHERS}"
    if kind == Kind.FRAGMENT:
        return f"{name} frag"
    if number == _NO_NUMBER:
        return name
    if protocol in PORT_PROTOCOLS:
        return f"{name} {number}"
    return f"{name} {units.icmp(ICMP_VERSIONS[protocol], number << 8)}" if protocol in ICMP_VERSIONS else name


def _named_service(key: Key, wording: Wording) -> str:
    kind, protocol, number = key
    ports = kind in HAVE_PORTS and protocol in PORT_PROTOCOLS and number != _NO_NUMBER
    name = wording.names.service(protocol, number) if ports else None
    return f"{units.protocol(protocol)} {name}" if name else _service_text(key, NO_LOOKUPS)


def _service_term(key: Key, _: Lookups) -> str:
    kind, protocol, number = key
    if number == _NO_NUMBER:
        return terms.protocol_words(protocol)
    if kind in HAVE_PORTS and protocol in PORT_PROTOCOLS:
        return f"{terms.protocol_words(protocol)} and port {number}"
    if kind == Kind.FLOW and protocol in ICMP_VERSIONS:
        return f"{terms.protocol_words(protocol)} and icmptype {number}"
    if kind == Kind.AGGREGATE:
        return ""
    return f"{terms.protocol_words(protocol)} and {terms.fragment_words(kind)}"


def _service_values(key: Key, _: Lookups) -> dict[str, Any]:
    kind, protocol, number = key
    values: dict[str, Any] = {"protocolIdentifier": protocol}
    if number == _NO_NUMBER:
        return values
    if kind in HAVE_PORTS and protocol in PORT_PROTOCOLS:
        values["servicePort"] = number
    elif kind == Kind.FLOW and protocol in ICMP_VERSIONS:
        values[f"icmpTypeIPv{ICMP_VERSIONS[protocol]}"] = number
    return values


# ---- JSON


def _address_member(side: Side, version: int, *, prefix: bool = False) -> Member:
    """The address; with `prefix`, that of a network, if an exporter reports no more."""
    family, octets = (socket.AF_INET, 4) if version == IpVersion.V4 else (socket.AF_INET6, 16)

    def of_source(flow: FlowValues, _: Lookups) -> str | None:
        known = flow.ip_version == version and bool(flow.record_bits & RecordBits.SOURCE_PREFIX) == prefix
        return socket.inet_ntop(family, flow.source_address[:octets]) if known else None

    def of_destination(flow: FlowValues, _: Lookups) -> str | None:
        known = flow.ip_version == version and bool(flow.record_bits & RecordBits.DESTINATION_PREFIX) == prefix
        return socket.inet_ntop(family, flow.destination_address[:octets]) if known else None

    return Member(f"{side}IPv{version}{'Prefix' if prefix else 'Address'}",
                  of_source if side == "source" else of_destination, of_packets=True)


def _is_icmp(flow: FlowValues) -> bool:
    return flow.protocol in ICMP_VERSIONS and flow.kind == Kind.FLOW


def _source_port(flow: FlowValues, _: Lookups) -> int | None:
    return None if flow.record_bits & RecordBits.NO_SOURCE_PORT else flow.source_port


def _destination_port(flow: FlowValues, _: Lookups) -> int | None:
    """The port; 0 for ICMP, whose type and code are in this number and have their own key."""
    if flow.record_bits & RecordBits.NO_DESTINATION_PORT:
        return None
    return 0 if _is_icmp(flow) else flow.destination_port


def _icmp_member(protocol: int, version: int) -> Member:
    return Member(f"icmpTypeCodeIPv{version}",
                  lambda flow, _: flow.destination_port if flow.protocol == protocol and _is_icmp(flow)
                  and not flow.record_bits & RecordBits.NO_ICMP_TYPE else None, of_packets=True)


# ---- columns


def _order(side: Side) -> tuple[SortKey, ...]:
    name = f"{side}_address"
    return (plain("ip_version"), lambda columns: address_words(columns, name)[0],
            lambda columns: address_words(columns, name)[1], plain(f"{side}_port"))


def _answers_alone(row: FlowRow) -> bool:
    """Of a biflow only the server's way was seen, as far as the ports tell: its destination is the client."""
    return (row.ways is not None and row.ways.reverse is None and row.ways.guessed and row.kind == Kind.FLOW
            and row.protocol in PORT_PROTOCOLS and row.source_port < CLIENT_PORTS <= row.destination_port)


def _either_end(column: Column, other: Column, header: str, doc: str) -> Column:
    """The column of biflows, with filters that match both directions: the source of one is the destination of the
    other.

    Args:
        other: the column of the other end.
    """
    def end(row: FlowRow) -> Column:
        return other if _answers_alone(row) else column

    def either(term: str) -> str:
        return term.replace("src ", "").replace("dst ", "")

    def shortened(row: FlowRow, names: Names, width: int) -> str:
        one = end(row).shortened
        assert one is not None
        return one(row, names, width)

    return replace(column, header=header, doc=doc, shortened=shortened,
                   text=lambda row, wording, lookups: end(row).text(row, wording, lookups),
                   term=lambda row, lookups: either(end(row).term(row, lookups)),
                   wider=lambda row, lookups: tuple(map(either, end(row).wider(row, lookups))))


def _with_guess(column: Column) -> Column:
    """With `?` before the client of a biflow where it is a guess which end it is."""
    shorten = column.shortened
    assert shorten is not None

    def guess(row: FlowRow) -> str:
        return "?" if row.ways is not None and row.ways.guessed else ""

    return replace(
        column, text=lambda row, wording, lookups: guess(row) + column.text(row, wording, lookups),
        shortened=lambda row, names, width: (mark := guess(row)) + shorten(row, names, max(width - len(mark), 1)))


_SOURCE_COLUMN = Column(
    "source", "SOURCE", 15, "Source address and port.",
    lambda row, wording, _: endpoints.source(row, wording.names), _order("source"), 1, terms.source_term,
    flexible=True, shortened=endpoints.source, wider=terms.source_wider)
_DESTINATION_COLUMN = Column(
    "destination", "DESTINATION", 15, "Destination address and port, or ICMP type.",
    lambda row, wording, _: endpoints.destination(row, wording.names), _order("destination"), 1,
    terms.destination_term, flexible=True, shortened=endpoints.destination, wider=terms.destination_wider)


def _icmp_type(columns: FlowColumns) -> Array:
    """ICMP type; 65535, which no filter value equals, for other protocols."""
    icmp = np.isin(columns["protocol"], list(ICMP_VERSIONS))
    return np.where(icmp, columns["destination_port"] >> np.uint16(8), np.uint16(65535))


def _icmp_code(columns: FlowColumns) -> Array:
    """ICMP code; of other protocols a part of the port, without meaning."""
    return columns["destination_port"] & np.uint16(255)


FIELDS = (
    Field("source", _SOURCE_COLUMN.doc, column=_SOURCE_COLUMN,
          biflow_columns=(_with_guess(_either_end(
              _SOURCE_COLUMN, _DESTINATION_COLUMN, "CLIENT",
              "Address and port of the client: who began; ? before it: a guess.")),),
          group=_host("source", "SOURCE", "source", "src"),
          members=(replace(_address_member("source", 4), rank=6), replace(_address_member("source", 6), rank=7),
                   Member("sourceTransportPort", _source_port, of_packets=True, rank=8),
                   *(replace(_address_member("source", version, prefix=True), rank=52) for version in IpVersion))),
    Field("destination", _DESTINATION_COLUMN.doc, column=_DESTINATION_COLUMN,
          biflow_columns=(_either_end(
              _DESTINATION_COLUMN, _SOURCE_COLUMN, "SERVER", "Address and port of the server, or ICMP type."),),
          group=_host("destination", "DESTINATION", "destination", "dst"),
          members=(replace(_address_member("destination", 4), rank=9),
                   replace(_address_member("destination", 6), rank=10),
                   Member("destinationTransportPort", _destination_port, of_packets=True, rank=11),
                   *(replace(_address_member("destination", version, prefix=True), rank=53) for version in IpVersion))),
    Field("pair", "Both hosts, in either direction.", group=GroupField(
        "pair", "HOSTS", 33, "Both hosts, in either direction.", _pair_keys, parts=5,
        text=lambda key, _: " ↔ ".join(_pair_hosts(key)) if key[0] else OTHERS, named=_named_pair,
        term=lambda key, _: _pair_term(key[0], *_pair_hosts(key)) if key[0] else "",
        values=lambda key, _: {"hosts": _pair_hosts(key)} if key[0] else {}, members=("hosts",), flexible=True,
        shorten=_short_pair, rank=0)),
    Field("service", "Protocol and lower port; for ICMP the type.", group=GroupField(
        "service", "SERVICE", 16, "Protocol and lower port; for ICMP the type.", _service_keys, parts=3,
        text=_service_text, term=_service_term, values=_service_values,
        members=("protocolIdentifier", "servicePort", "icmpTypeIPv4", "icmpTypeIPv6"), named=_named_service,
        beside="process", rank=0)),
    _host_field(),
    Field("subnet", "Source network.", group=_subnet("subnet", "SOURCE NET", "source", "src", _DEFAULT_LENGTHS)),
    Field("destination_subnet", "Destination network.",
          group=_subnet("destination_subnet", "DESTINATION NET", "destination", "dst", _DEFAULT_LENGTHS)),
    Field("remote_subnet", "Network at the remote end.", group=_remote_subnet(_DEFAULT_LENGTHS)),
    Field("icmptype", "ICMP or ICMPv6 type.", members=(
        replace(_icmp_member(1, 4), rank=12), replace(_icmp_member(58, 6), rank=13)),
        key=FilterKey("icmptype", "ICMP or ICMPv6 type.", "icmptype 8", "an ICMP type, 0 to 255",
                      operands.ReadInteger(0, 255), lambda source: _icmp_type(source.columns), _icmp_type, rank=4)),
    Field("icmpcode", "ICMP or ICMPv6 code.",
          key=FilterKey("icmpcode", "ICMP or ICMPv6 code.", "icmpcode 1", "an ICMP code, 0 to 255",
                        operands.ReadInteger(0, 255), lambda source: _icmp_code(source.columns), _icmp_code, rank=4)),
)
