"""The registry of what flows can be grouped by: one entry feeds `--group`, the screen's choice, JSON and the manual.

To add a field, add one entry to `_ALL`; tests/unit/fields/test_groups.py covers it without being edited.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.fields import cell_terms as keys
from flowtop.fields.columns import ARROWS, Column, Wording
from flowtop.model.elements import TUNNEL_MEMBERS, tunnel_values
from flowtop.model.exporters import exporter_of, point_elements
from flowtop.model.flows import FLOW_COLUMN_DTYPES, Array, FlowColumns, address_words
from flowtop.model.kinds import (
    ANY_PROTOCOL,
    HAVE_PORTS,
    ICMP_VERSIONS,
    PORT_PROTOCOLS,
    UNKNOWN_DIRECTION,
    IpVersion,
    Kind,
    Tunnel,
)
from flowtop.model.rows import FlowRow
from flowtop.text import units

Key = tuple[int, ...]
"""One field's values of one group, as its `keys` gave them."""
Names = Mapping[int, str]
"""Interface names by ifindex."""


@dataclass(frozen=True, slots=True)
class GroupField:
    """Something flows have in common.

    Attributes:
        id: what `--group` and Query.group say.
        header: of its column on screen.
        width: least cells of that column.
        doc: one line for help and README.
        keys: integer arrays, one value a flow: flows are together when all are equal. Their order is the column's.
        text: a key -> text of printable single cells.
        term: a key -> the filter that passes this group's flows; "" when there is no such filter (aggregates).
        values: a key -> JSON members, IANA names where there are any.
        members: every name `values` may give.
        named: as `text`, with names in the place of numbers where the wording has them; None: there are none.
        alike: the keys are Observation Points; together are those of whose names this says the same. None: no point is
            like another.
        of_exporters: means something only where flows come from exporters.
        flexible: the column takes a share of the cells that are left.
        choose: the text after `:` in `--group` -> the field as chosen; None: takes none. Raises ValueError.
        argument: what that text is, for help and README.
    """

    id: str
    header: str
    width: int
    doc: str
    keys: Callable[[FlowColumns], tuple[Array, ...]]
    text: Callable[[Key, Names], str]
    term: Callable[[Key, Names], str]
    values: Callable[[Key, Names], dict[str, Any]]
    members: tuple[str, ...]
    named: Callable[[Key, Wording], str] | None = None
    alike: Callable[[str], Hashable] | None = None
    of_exporters: bool = False
    flexible: bool = False
    choose: Callable[[str], GroupField] | None = None
    argument: str = ""

    def column(self, position: int) -> Column:
        """The column that shows this field where it is the query's group field number `position`."""
        def text(row: FlowRow, wording: Wording, interfaces: Names) -> str:
            key = row.group[position]
            return self.named(key, wording) if self.named else self.text(key, interfaces)

        return Column(self.id, self.header, self.width, self.doc, text,
                      tuple(_key_part(position, part) for part in range(self.parts)), 1,
                      lambda row, interfaces: self.term(row.group[position], interfaces), flexible=self.flexible)

    @property
    def parts(self) -> int:
        """How many arrays `keys` gives."""
        return len(self.keys(_NO_FLOWS))


def key_name(position: int, part: int) -> str:
    """Name of the column (of groups) that holds a part of the key of the query's group field `position`."""
    return f"group {position} {part}"


def _key_part(position: int, part: int) -> Callable[[FlowColumns], Array]:
    return lambda columns: columns[key_name(position, part)]


_NO_FLOWS = np.zeros(0, list(FLOW_COLUMN_DTYPES.items()))
"""To learn how many keys a field has."""


def group_keys(field: GroupField, flows: FlowColumns, interfaces: Names) -> tuple[Array, ...]:
    """The field's keys of these flows; points that are alike have one number, that of the first of them."""
    found = field.keys(flows)
    if field.alike is None:
        return found
    (points,) = found
    different, inverse = np.unique(points, return_inverse=True)
    first: dict[Hashable, int] = {}
    numbers = [first.setdefault(field.alike(interfaces.get(number, "")), number) for number in different.tolist()]
    return (np.array(numbers, points.dtype)[inverse],)

OTHERS = "(all other flows)"


@lru_cache(maxsize=64)
def group_fields(ids: tuple[str, ...]) -> tuple[GroupField, ...]:
    """The fields of those ids; `flow` stands for none: each flow by itself.

    Raises:
        FlowtopError: there is no such field, or its argument is no good, or a field stands there twice.
    """
    fields = tuple(_field(text) for text in ids if text != "flow")
    if len({field.id for field in fields}) < len(fields):
        raise FlowtopError(f"a group field stands there twice: {', '.join(ids)}", hint="name each once",
                           exit_code=EXIT_USAGE)
    return fields


def drill_term(group: tuple[str, ...], row: FlowRow, interfaces: Names) -> str:
    """The filter that passes what is in a row of groups: its fields' terms, all of them; "" when one has none."""
    terms = [field.term(key, interfaces) for field, key in zip(group_fields(group), row.group, strict=True)]
    return " and ".join(terms) if all(terms) else ""


def group_text(group: tuple[str, ...], row: FlowRow, interfaces: Names, wording: Wording = Wording()) -> str:
    """What the flows of a row of groups have in common, as its cells have it: its fields' texts, with names."""
    fields = zip(group_fields(group), row.group, strict=True)
    return " ".join(field.named(key, wording) if field.named else field.text(key, interfaces) for field, key in fields)


def _field(text: str) -> GroupField:
    name, colon, argument = text.partition(":")
    field = GROUPS.get(name)
    if field is None:
        near = difflib.get_close_matches(name, [*GROUPS, "flow"], cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"fields: flow, {', '.join(GROUPS)}"
        raise FlowtopError(f"nothing called {name!r} to group by", hint=hint, exit_code=EXIT_USAGE)
    if not colon:
        return field
    if field.choose is None:
        raise FlowtopError(f"{name} takes nothing after a colon", hint=f"write {name}", exit_code=EXIT_USAGE)
    try:
        return field.choose(argument)
    except ValueError as error:
        raise FlowtopError(f"cannot group by {text!r}: {error}", hint=f"write {name}:{field.argument}",
                           exit_code=EXIT_USAGE) from error


# ---- addresses


def _known_version(columns: FlowColumns) -> Array:
    """4 or 6; 0 for aggregates, whose addresses nobody knows."""
    return np.where(columns["kind"] == Kind.AGGREGATE, 0, columns["ip_version"])


def _packed(high: int, low: int) -> bytes:
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def _address(version: int, high: int, low: int) -> str:
    return units.address(_packed(high, low), version) if version else OTHERS


def _named_address(version: int, high: int, low: int, wording: Wording) -> str:
    name = wording.names.host(_packed(high, low), version) if version else None
    return name or _address(version, high, low)


def _host(field_id: str, header: str, side: str, word: str) -> GroupField:
    def values(key: Key, _: Names) -> dict[str, Any]:
        return {f"{side}IPv{key[0]}Address": _address(*key)} if key[0] else {}

    return GroupField(
        field_id, header, 15, f"{side.capitalize()} host.",
        keys=lambda columns: (_known_version(columns), *address_words(columns, f"{side}_address")),
        text=lambda key, _: _address(*key),
        named=lambda key, wording: _named_address(key[0], key[1], key[2], wording),
        term=lambda key, _: f"{word} host {_address(*key)}" if key[0] else "",
        values=values, members=(f"{side}IPv4Address", f"{side}IPv6Address"), flexible=True)


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


def _pair_term(host: str, other: str) -> str:
    return f"host {host} and host {other}" if host != other else f"src host {host} and dst host {host}"


def _prefixed(words: tuple[Array, Array], version: Array, lengths: tuple[int, int]) -> tuple[Array, Array]:
    """The words with the host part cleared: IPv4 after lengths[0] bits, IPv6 after lengths[1]."""
    def kept(bits: int) -> np.uint64:
        bits = min(max(bits, 0), 64)
        return np.uint64((1 << 64) - (1 << 64 - bits))

    six = version == np.uint8(IpVersion.V6)
    high = words[0] & np.where(six, kept(lengths[1]), kept(lengths[0]))
    return high, words[1] & np.where(six, kept(lengths[1] - 64), np.uint64(0))


def _subnet(field_id: str, header: str, side: str, word: str, lengths: tuple[int, int]) -> GroupField:
    def length(key: Key) -> int:
        return lengths[key[0] == IpVersion.V6]

    def keys(columns: FlowColumns) -> tuple[Array, ...]:
        version = _known_version(columns)
        return (version, *_prefixed(address_words(columns, f"{side}_address"), version, lengths))

    def values(key: Key, _: Names) -> dict[str, Any]:
        if not key[0]:
            return {}
        return {f"{side}IPv{key[0]}Prefix": _address(*key), f"{side}IPv{key[0]}PrefixLength": length(key)}

    def choose(argument: str) -> GroupField:
        return _subnet(field_id, header, side, word, _lengths(argument))

    def network(key: Key) -> str:
        return f"{_address(*key)}/{length(key)}"

    return GroupField(
        field_id, header, 18, f"{side.capitalize()} network: /24, IPv6 /64, or a length.",
        keys=keys,
        text=lambda key, _: network(key) if key[0] else OTHERS,
        term=lambda key, _: f"{word} net {network(key)}" if key[0] else "",
        values=values,
        members=tuple(f"{side}IPv{version}{part}" for version in IpVersion for part in ("Prefix", "PrefixLength")),
        flexible=True, choose=choose, argument="16, :48 (IPv6) or :16/48")


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


def _service_keys(columns: FlowColumns) -> tuple[Array, ...]:
    """Kind, protocol and the lower port; of ICMP, its type.

    The lower port, because ports that clients are given begin at 32768 on Linux (at 49152 as IANA has it), above nearly
    every service: it needs no list, and both directions of a conversation come to the same group.
    """
    kind, protocol = columns["kind"], columns["protocol"]
    source, destination = columns["source_port"], columns["destination_port"]
    ports = np.isin(protocol, list(PORT_PROTOCOLS)) & np.isin(kind, HAVE_PORTS)
    icmp = np.isin(protocol, list(ICMP_VERSIONS)) & (kind == Kind.FLOW)
    number = np.where(ports, np.minimum(source, destination), np.where(icmp, destination >> np.uint16(8), np.uint16(0)))
    return kind, protocol, number


def _service_text(key: Key, _: Names) -> str:
    kind, protocol, number = key
    name = units.protocol(protocol)
    if kind == Kind.AGGREGATE:
        return OTHERS if protocol == ANY_PROTOCOL else f"{name} {OTHERS}"
    if kind == Kind.FRAGMENT:
        return f"{name} frag"
    if protocol in PORT_PROTOCOLS:
        return f"{name} {number}"
    return f"{name} {units.icmp(ICMP_VERSIONS[protocol], number << 8)}" if protocol in ICMP_VERSIONS else name


def _named_service(key: Key, wording: Wording) -> str:
    kind, protocol, number = key
    ports = kind in HAVE_PORTS and protocol in PORT_PROTOCOLS
    name = wording.names.service(protocol, number) if ports else None
    return f"{units.protocol(protocol)} {name}" if name else _service_text(key, {})


def _service_term(key: Key, names: Names) -> str:
    kind, protocol, number = key
    if kind in HAVE_PORTS and protocol in PORT_PROTOCOLS:
        return f"{keys.protocol_words(protocol)} and port {number}"
    if kind == Kind.FLOW and protocol in ICMP_VERSIONS:
        return f"{keys.protocol_words(protocol)} and icmptype {number}"
    term = _protocol_term((kind, protocol), names)
    return term if kind == Kind.AGGREGATE else f"{term} and {keys.fragment_words(kind)}"


def _service_values(key: Key, _: Names) -> dict[str, Any]:
    kind, protocol, number = key
    values: dict[str, Any] = {"protocolIdentifier": protocol}
    if kind in HAVE_PORTS and protocol in PORT_PROTOCOLS:
        values["servicePort"] = number
    elif kind == Kind.FLOW and protocol in ICMP_VERSIONS:
        values[f"icmpTypeIPv{ICMP_VERSIONS[protocol]}"] = number
    return values


def _protocol_keys(columns: FlowColumns) -> tuple[Array, ...]:
    any_protocol = (columns["kind"] == Kind.AGGREGATE) & (columns["protocol"] == ANY_PROTOCOL)
    return np.where(any_protocol, np.uint8(Kind.AGGREGATE), np.uint8(Kind.FLOW)), columns["protocol"]


def _protocol_term(key: Key, _: Names) -> str:
    return "" if key[0] == Kind.AGGREGATE else keys.protocol_words(key[1])


def _point(key: Key, names: Names) -> str:
    return names.get(key[0], f"if{key[0]}")


def _point_text(key: Key, names: Names) -> str:
    return units.printable(_point(key, names), _LONGEST_POINT)


_LONGEST_POINT = 80
"""An exporter's address and domain, and an interface."""


def _point_term(key: Key, names: Names) -> str:
    """`if eth0`; of an exporter's interface with the exporter, as others have interfaces of that name too."""
    name = _point(key, names)
    exporter = exporter_of(name)
    if exporter is None:
        return keys.interface_words(name)
    return (f"exporter {exporter.address} and domain {exporter.domain} and {keys.interface_words(exporter.interface)}"
            if exporter.interface else f"exporter {exporter.address} and domain {exporter.domain}")


def _exporter_term(name: str) -> str:
    """`exporter 192.0.2.1`; what no exporter told of is what no exporter's address fits."""
    exporter = exporter_of(name)
    return f"exporter {exporter.address}" if exporter else "not exporter ?*"


def _domain_term(name: str) -> str:
    exporter = exporter_of(name)
    return f"exporter {exporter.address} and domain {exporter.domain}" if exporter else "not exporter ?*"


def _domain_of(name: str) -> tuple[str, int] | None:
    exporter = exporter_of(name)
    return exporter and exporter[:2]


def _exporter_text(name: str) -> str:
    exporter = exporter_of(name)
    return exporter.address if exporter else _NO_EXPORTER


def _domain_text(name: str) -> str:
    exporter = exporter_of(name)
    return f"{exporter.address} {exporter.domain}" if exporter else _NO_EXPORTER


_NO_EXPORTER = "this host"


def _exporter_values(name: str, *left_out: str) -> dict[str, Any]:
    values = point_elements(name, units.printable)
    return {key: value for key, value in values.items() if key not in left_out}


def _vlan_text(key: Key) -> str:
    return f"{key[0]}.{key[1]}" if key[1] else str(key[0])


def _tunnel_text(key: Key) -> str:
    name = Tunnel(key[0]).label
    return f"{name} {key[1]}" if key[1] else name or "none"


def _tunnel_term(key: Key) -> str:
    return f"tunnel {Tunnel(key[0]).label} and vni {key[1]}" if key[0] else "not tunnel"


def _dscp_text(key: Key) -> str:
    return units.dscp(key[0] << 2) or "be"


_ALL = (
    _host("source", "SOURCE", "source", "src"),
    _host("destination", "DESTINATION", "destination", "dst"),
    GroupField("pair", "HOSTS", 33, "Two hosts, whoever sends.", _pair_keys,
               text=lambda key, _: " ↔ ".join(_pair_hosts(key)) if key[0] else OTHERS, named=_named_pair,
               term=lambda key, _: _pair_term(*_pair_hosts(key)) if key[0] else "",
               values=lambda key, _: {"hosts": _pair_hosts(key)} if key[0] else {}, members=("hosts",), flexible=True),
    GroupField("service", "SERVICE", 16, "Protocol and lower port; ICMP by type.", _service_keys,
               _service_text, _service_term, _service_values,
               ("protocolIdentifier", "servicePort", "icmpTypeIPv4", "icmpTypeIPv6"), named=_named_service),
    GroupField("protocol", "PROTO", 5, "IP protocol.", _protocol_keys,
               text=lambda key, _: "any" if key[0] == Kind.AGGREGATE else units.protocol(key[1]),
               term=_protocol_term,
               values=lambda key, _: {"protocolIdentifier": key[1]}, members=("protocolIdentifier",)),
    GroupField("interface", "IF", 4, "Interface of the Observation Point.", lambda columns: (columns["ifindex"],),
               text=_point_text, term=_point_term,
               values=lambda key, names: point_elements(_point(key, names), units.printable),
               members=("interfaceName", "exporterIPv4Address", "exporterIPv6Address", "observationDomainId")),
    GroupField("exporter", "EXPORTER", 15, "With -l: who told of the flow.", lambda columns: (columns["ifindex"],),
               text=lambda key, names: _exporter_text(_point(key, names)),
               term=lambda key, names: _exporter_term(_point(key, names)),
               values=lambda key, names: _exporter_values(_point(key, names), "interfaceName", "observationDomainId"),
               members=("exporterIPv4Address", "exporterIPv6Address"), alike=_exporter_text, of_exporters=True),
    GroupField("domain", "DOMAIN", 17, "With -l: the exporter, and its Observation Domain or Source ID.",
               lambda columns: (columns["ifindex"],), text=lambda key, names: _domain_text(_point(key, names)),
               term=lambda key, names: _domain_term(_point(key, names)),
               values=lambda key, names: _exporter_values(_point(key, names), "interfaceName"),
               members=("exporterIPv4Address", "exporterIPv6Address", "observationDomainId"), alike=_domain_of,
               of_exporters=True),
    GroupField("direction", "D", 1, "← ingress, → egress, at that interface; - the exporter does not say.",
               lambda columns: (columns["direction"],), text=lambda key, _: ARROWS[key[0]],
               term=lambda key, _: keys.direction_words(key[0]),
               values=lambda key, _: {} if key[0] == UNKNOWN_DIRECTION else {"flowDirection": key[0]},
               members=("flowDirection",)),
    _subnet("subnet", "SOURCE NET", "source", "src", _DEFAULT_LENGTHS),
    _subnet("destination_subnet", "DESTINATION NET", "destination", "dst", _DEFAULT_LENGTHS),
    GroupField("vlan", "VLAN", 9, "VLAN ID, with QinQ outer.inner; 0 is untagged.",
               lambda columns: (columns["vlan_id"], columns["customer_vlan_id"]),
               text=lambda key, _: _vlan_text(key), term=lambda key, _: keys.vlan_words(*key),
               values=lambda key, _: {"vlanId": key[0], "dot1qCustomerVlanId": key[1]},
               members=("vlanId", "dot1qCustomerVlanId")),
    GroupField("tunnel", "TUNNEL", 17, "With --decap: what carried the flows, and its VNI, GRE key, session or label.",
               lambda columns: (columns["tunnel"], columns["tunnel_id"]),
               text=lambda key, _: _tunnel_text(key), term=lambda key, _: _tunnel_term(key),
               values=lambda key, _: tunnel_values(*key), members=TUNNEL_MEMBERS),
    GroupField("dscp", "DSCP", 4, "Service code point (DSCP) of the first packet.",
               lambda columns: (columns["tos"] >> np.uint8(2),),
               text=lambda key, _: _dscp_text(key), term=lambda key, _: f"dscp {_dscp_text(key)}",
               values=lambda key, _: {"ipDiffServCodePoint": key[0]}, members=("ipDiffServCodePoint",)),
)

GROUPS: dict[str, GroupField] = {field.id: field for field in _ALL}
"""Every field by id, in the order in which a screen offers them."""


def member_names(fields: Iterable[GroupField]) -> list[str]:
    """JSON members that groups by these fields may have, each once, in order."""
    return list(dict.fromkeys(name for field in fields for name in field.members))
