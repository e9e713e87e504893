"""Flow Records of other exporters, passed on: Templates made for what they have, so that nothing is lost and nothing
that was not reported becomes 0.

A relayed record has the elements of flowtop's own Templates (flow_templates.py), then the Observation Domain and the
exporter that reported it first (RFC 7119), then what that exporter reported (model/reported.py). Each combination that
occurs has a Template of its own, announced before its first record.

Counters are to be multiplied by `samplingInterval`: by 1 where they are complete, so that the next collector does not
apply a sampler of another exporter to them. Sampled flows are passed on as they were sampled, see wire/selectors.py;
where that is not possible, the interval that was applied is in `selectorName`, as `1 in 1000`.

VRFname stands for the ingress VRF; a second one (RFC 7011 section 8 allows that) for the egress VRF.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import UNKNOWN_DIRECTION, IpVersion, RecordBits
from flowtop.model.record import FLOW_RECORD_DTYPE, RELAYED_RECORD_DTYPE, FlowRecords
from flowtop.model.reported import given, mapped
from flowtop.wire import tcp_metrics
from flowtop.wire.ipfix import Records, RecordSet, Value, encode_columns, encode_records
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, FieldSpecifier, Template, field

FIRST_ID = 1_024
"""First id of Templates of relayed records."""
MAX_TEMPLATES = 256
"""Limit of Templates per Transport Session. Further combinations share two Templates for each kind of record: with all
elements, and with those that fit any datagram."""
INTERFACES = {IpVersion.V4: 269, IpVersion.V6: 270}
"""Ids of the Options Templates of interface names, by IP version of the exporter."""
DOMAIN = "originalObservationDomainId"
"""The first element after those of flowtop's own Template."""
_PANA_L7_PEN = 20
"""The classification engine whose selectors begin with a private enterprise number."""
_MAPPED_WORD = 0xFFFF
_APPLIED = re.compile(rb"1 in (\d{1,10})")

Column = npt.NDArray[Any]
_Encode = Callable[[FlowRecords], Column]


@dataclass(frozen=True, slots=True)
class _Part:
    """Elements that a Template has or has not together.

    Attributes:
        given: which records have a value.
        fields: element, length (None: of its type) and the column of each.
        texts: elements of variable length, and the octets of each record's value.
    """

    given: _Encode
    fields: tuple[tuple[str, int | None, _Encode], ...] = ()
    texts: tuple[tuple[str, Callable[[FlowRecords], list[bytes]]], ...] = ()


def _words(records: FlowRecords, name: str) -> Column:
    return np.ascontiguousarray(records[name]).view(">u4").reshape(-1, 4)


def _is_ipv4(records: FlowRecords, name: str) -> Column:
    words = _words(records, name)
    found: Column = (words[:, 0] == 0) & (words[:, 1] == 0) & (words[:, 2] == _MAPPED_WORD)
    return found


def _ipv4(name: str) -> _Encode:
    """The last four octets of mapped addresses; 0.0.0.0 for others."""
    def column(records: FlowRecords) -> Column:
        last = np.where(_is_ipv4(records, name), _words(records, name)[:, 3], np.uint32(0)).astype(">u4")
        return last.view("V4")
    return column


def _ipv6(name: str) -> _Encode:
    def column(records: FlowRecords) -> Column:
        return np.where(_is_ipv4(records, name), np.zeros((), "V16"), records[name])
    return column


def _has(name: str, version: IpVersion) -> _Encode:
    if version == IpVersion.V4:
        return lambda records: _is_ipv4(records, name)
    return lambda records: given(records[name]) & ~_is_ipv4(records, name)


def _any(*members: str) -> _Encode:
    def found(records: FlowRecords) -> Column:
        some = given(records[members[0]])
        for name in members[1:]:
            some |= given(records[name])
        return some
    return found


def _plain(*pairs: tuple[str, str]) -> tuple[tuple[str, int | None, _Encode], ...]:
    return tuple((element, None, _member(member)) for element, member in pairs)


def _member(name: str) -> _Encode:
    return lambda records: records[name]


def _text(name: str) -> Callable[[FlowRecords], list[bytes]]:
    return lambda records: records[name].tolist()


def _masks(version: int) -> _Part:
    ends = _any("source_mask", "destination_mask")
    return _Part(lambda records: ends(records) & (records["ip_version"] == np.uint8(version)),
                 _plain((f"sourceIPv{version}PrefixLength", "source_mask"),
                        (f"destinationIPv{version}PrefixLength", "destination_mask")))


def _label_octets(records: FlowRecords) -> Column:
    octets = records["mpls_top_label"].astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    return np.ascontiguousarray(octets).view("V3")[:, 0]


def _application_ids(records: FlowRecords) -> list[bytes]:
    return [application_octets(text) for text in records["application_id"].tolist()]


def application_text(octets: bytes) -> str:
    """An applicationId (RFC 6759 section 4): `3:80`, the classification engine and its selector, which for engine 20
    begins with an enterprise number: `20:9:80`."""
    if len(octets) < 2:
        return str(int.from_bytes(octets, "big"))
    engine, selector = octets[0], octets[1:]
    if engine == _PANA_L7_PEN and len(selector) > 4:
        return f"{engine}:{int.from_bytes(selector[:4], 'big')}:{int.from_bytes(selector[4:], 'big')}"
    return f"{engine}:{int.from_bytes(selector, 'big')}"


def application_octets(text: bytes) -> bytes:
    """The reverse of `application_text`, in the shortest form: a selector of three octets."""
    numbers = [int(part) for part in text.split(b":") if part.isdigit()]
    if not numbers:
        return b""
    if len(numbers) == 1:
        return numbers[0].to_bytes(4, "big")
    engine, *middle, selector = numbers
    octets = b"".join(number.to_bytes(4, "big") for number in middle)
    return bytes([engine & 0xFF]) + octets + selector.to_bytes(3 if selector < 1 << 24 else 8, "big")


def _applied(records: FlowRecords) -> list[bytes]:
    return [b"1 in %d" % interval for interval in records["sampling_interval"].tolist()]


def _says_interval(records: FlowRecords) -> Column:
    """Whether it is known what the counters have to be multiplied by: not if only the sampler is."""
    found: Column = (records["sampler"] == 0) | (
        (records["sampling_interval"] | records["unscaled_interval"]) != 0)
    return found


def _interval(records: FlowRecords) -> Column:
    """What the counters have to be multiplied by; 0: not known."""
    found: Column = np.maximum(records["unscaled_interval"], _says_interval(records).astype(np.uint32))
    return found


_EXTENDED_EVENT, _EXTENDED_EVENT_NAME = FieldSpecifier(33002 & 0x7FFF, 2, 9), "fwExtEvent"
"""Cisco ASA's NF_F_FW_EXT_EVENT: NetFlow 9 has no enterprises, so that Cisco's number 234 is 33002 there. Its
name stands here, as looking it up reads the enterprises' registry."""


def _elements(part: _Part) -> list[tuple[FieldSpecifier, _Encode]]:
    """The fields of fixed length of a part."""
    return [(_EXTENDED_EVENT if name == _EXTENDED_EVENT_NAME else field(name, length), encode)
            for name, length, encode in part.fields]


_PARTS = (
    *(_Part(_has("exporter", version), (
        (f"originalExporterIPv{version}Address", None, octets("exporter")),
        (f"exporterIPv{version}Address", None, octets("exporter"))))
      for version, octets in ((IpVersion.V4, _ipv4), (IpVersion.V6, _ipv6))),
    _Part(_any("ttl"), _plain(("ipTTL", "ttl"))),
    _Part(_any("source_as", "destination_as"),
          _plain(("bgpSourceAsNumber", "source_as"), ("bgpDestinationAsNumber", "destination_as"))),
    _Part(_says_interval, (("samplingInterval", None, _interval),)),
    *(_Part(_any(member), _plain((element, member))) for element, member in tcp_metrics.SENT.items()),
    _masks(IpVersion.V4), _masks(IpVersion.V6),
    *(_Part(_has(member, version), ((f"{element}IPv{version}Address", None, octets(member)),))
      for member, element in (("next_hop", "ipNextHop"), ("bgp_next_hop", "bgpNextHop"),
                              ("post_nat_source", "postNATSource"), ("post_nat_destination", "postNATDestination"))
      for version, octets in ((IpVersion.V4, _ipv4), (IpVersion.V6, _ipv6))),
    _Part(_any("post_nat_source_port", "post_nat_destination_port"),
          _plain(("postNAPTSourceTransportPort", "post_nat_source_port"),
                 ("postNAPTDestinationTransportPort", "post_nat_destination_port"))),
    _Part(_any("mpls_top_label"), (("mplsTopLabelStackSection", 3, _label_octets),)),
    _Part(_any("ingress_vrf_id"), _plain(("ingressVRFID", "ingress_vrf_id"))),
    _Part(_any("egress_vrf_id"), _plain(("egressVRFID", "egress_vrf_id"))),
    _Part(_any("nat_event"), _plain(("natEvent", "nat_event"))),
    _Part(_any("firewall_event"), _plain(("firewallEvent", "firewall_event"))),
    _Part(_any("sampler"), _plain(("selectorId", "sampler"))),
    _Part(_any("firewall_extended_event"), _plain((_EXTENDED_EVENT_NAME, "firewall_extended_event"))),
    _Part(_any("sampling_interval"), texts=(("selectorName", _applied),)),
    _Part(_any("application_id"), texts=(("applicationId", _application_ids),)),
    _Part(_any("application_name"), texts=(("applicationName", _text("application_name")),)),
    _Part(_any("vrf_name", "egress_vrf_name"), texts=(("VRFname", _text("vrf_name")),)),
    _Part(_any("egress_vrf_name"), texts=(("VRFname", _text("egress_vrf_name")),)),
    _Part(_any("user_name"), texts=(("userName", _text("user_name")),)),
)
_UNMEASURED_PARTS = 5
_LEAN_PARTS = _UNMEASURED_PARTS + len(tcp_metrics.SENT)
"""The first of them: exporter, TTL, AS, sampling, measurements of TCP. They fit any datagram."""
_MEASURED_BITS = (1 << _LEAN_PARTS) - (1 << _UNMEASURED_PARTS)
LEAST_OCTETS = 640
"""Messages of this size have room for any relayed record. In smaller ones, records have only the first parts."""
_DIRECTION = 1 << len(_PARTS)
"""Of a signature: the direction is known."""
_EVERYTHING = 2 * _DIRECTION - 1
_LEAN_EVERYTHING = _DIRECTION | (1 << _LEAN_PARTS) - 1
_FLOW_DIRECTION = field("flowDirection")
_UNREPORTED = {
    RecordBits.NO_TOS: ("ipClassOfService",), RecordBits.NO_TCP_CONTROL_BITS: ("tcpControlBits",),
    RecordBits.NO_VLAN_ID: ("vlanId", "postVlanId"), RecordBits.NO_CUSTOMER_VLAN_ID: ("dot1qCustomerVlanId",),
    RecordBits.NO_SOURCE_MAC: ("sourceMacAddress",), RecordBits.NO_DESTINATION_MAC: ("destinationMacAddress",),
    RecordBits.NO_PROTOCOL: ("protocolIdentifier",), RecordBits.NO_SOURCE_PORT: ("sourceTransportPort",),
    RecordBits.NO_DESTINATION_PORT: ("destinationTransportPort",),
}
"""Elements of flowtop's own Templates that relayed records leave out where their exporter does not report them. Types
of ICMP stay as 0: without them the kind of record would not be known."""
_PORTS = frozenset({"sourceTransportPort", "destinationTransportPort"})
_OPTIONAL = frozenset({_FLOW_DIRECTION.name, *(name for names in _UNREPORTED.values() for name in names)})
_PADDING = field("paddingOctets", 1)
"""In place of both ports of a flow: a record without it and without ports is of a later fragment."""


def _of_flows(names: Iterable[str]) -> bool:
    """Whether these elements of a Template are those of flows with ports, which may be left out, or of ICMP."""
    return any(name in _PORTS or name == _PADDING.name or name.startswith("icmpTypeCode") for name in names)


def signatures(records: FlowRecords, *, measured: bool = True) -> npt.NDArray[np.int64]:
    """Which of the parts each relayed record has: bit i for _PARTS[i], and _DIRECTION, shape (n,).

    Args:
        measured: with the parts that are measurements of TCP.
    """
    found = np.where(records["direction"] != np.uint8(UNKNOWN_DIRECTION), np.int64(_DIRECTION), np.int64(0))
    for bit, part in enumerate(_PARTS):
        if _MEASURED_BITS >> bit & 1 and not measured:
            continue
        found |= part.given(records).astype(np.int64) << bit
    bits = records["record_bits"]
    if bits.any():
        for place, unreported in enumerate(_UNREPORTED, 1):
            found |= (bits & np.uint32(unreported) != 0).astype(np.int64) * (_DIRECTION << place)
    return found


def _chosen(signature: int) -> list[_Part]:
    return [part for bit, part in enumerate(_PARTS) if signature >> bit & 1]


def is_lean(signature: int) -> bool:
    """Whether records with these parts have only those of `lean`."""
    return not signature & (_DIRECTION - 1) >> _LEAN_PARTS << _LEAN_PARTS


def lean(records: FlowRecords, max_octets: int) -> FlowRecords:
    """Relayed records that fit a message of this size: all of it, or without what few collectors need.

    What remains in small messages: flowtop's own elements, exporter, domain, interfaces, TTL, AS, measurements of TCP.
    """
    if max_octets >= LEAST_OCTETS or records.dtype != RELAYED_RECORD_DTYPE:
        return records
    found = records.copy()
    for name in RELAYED_RECORD_DTYPE.names or ():
        if name not in _IN_LEAN and name not in (FLOW_RECORD_DTYPE.names or ()):
            found[name] = np.zeros((), RELAYED_RECORD_DTYPE[name])
    return found


_IN_LEAN = frozenset({"exporter", "domain", "ingress_interface", "egress_interface", "other_ifindex", "source_as",
                      "destination_as"})


def _kept(base: Template, signature: int) -> tuple[FieldSpecifier, ...]:
    """The fields of flowtop's own Template that records with this signature have."""
    dropped = {name for place, names in enumerate(_UNREPORTED.values(), 1) if signature & _DIRECTION << place
               for name in names}
    if not signature & _DIRECTION:
        dropped.add(_FLOW_DIRECTION.name)
    kept = tuple(each for each in base.fields if each.name not in dropped)
    return kept if _of_flows(each.name for each in kept) or not _of_flows(base.names) else (*kept, _PADDING)


class RelayedTemplates:
    """The Templates of relayed records of one Transport Session, by kind of record and parts."""

    def __init__(self) -> None:
        self._templates: dict[tuple[int, int], Template] = {}

    def __len__(self) -> int:
        return len(self._templates)

    @property
    def templates(self) -> list[Template]:
        """All of them, in the order of their ids."""
        return list(self._templates.values())

    def template(self, base: Template, signature: int) -> tuple[Template, int]:
        """The Template of records of the kind `base` with these parts, and the parts that it has."""
        key = base.id, signature
        if key not in self._templates and len(self._templates) >= MAX_TEMPLATES:
            key = base.id, _LEAN_EVERYTHING if is_lean(signature) else _EVERYTHING
        if key not in self._templates:
            parts = _chosen(key[1])
            fields = [specifier for part in parts for specifier, _ in _elements(part)]
            texts = [field(name) for part in parts for name, _ in part.texts]
            self._templates[key] = Template(FIRST_ID + len(self._templates), (
                *_kept(base, key[1]), field(DOMAIN), *fields, *texts))
        return self._templates[key], key[1]


def relayed_set(records: FlowRecords, template: Template, signature: int,
                columns: Mapping[str, npt.NDArray[np.generic]]) -> RecordSet:
    """Encode relayed records of one Template.

    Args:
        columns: those of the elements of flowtop's own Template.
    """
    parts = _chosen(signature)
    every = {**columns, DOMAIN: records["domain"]}
    every |= {specifier.name: encode(records) for part in parts for specifier, encode in _elements(part)}
    every[_PADDING.name] = np.zeros(len(records), "V1")
    fixed = Template(template.id, tuple(each for each in template.fields if each.length != VARIABLE_LENGTH))
    encoded = encode_columns(fixed, every)
    texts = [read(records) for part in parts for _, read in part.texts]
    if not texts:
        return encoded
    octets, size = np.asarray(encoded.records).tobytes(), fixed.min_octets
    ends = [b"".join(map(_prefixed, row)) for row in zip(*texts, strict=True)]
    return RecordSet(template.id, [octets[at * size:(at + 1) * size] + end for at, end in enumerate(ends)],
                     template.min_octets)


def _prefixed(octets: bytes) -> bytes:
    """A value of variable length, shorter than 255 octets (RFC 7011 section 7)."""
    return bytes([len(octets)]) + octets


# ---- reading back


class Bases:
    """Finds the own Template of flowtop that Templates of relayed records begin with.

    Args:
        templates: flowtop's own.
    """

    def __init__(self, templates: Iterable[Template]) -> None:
        self._by_needed: dict[tuple[FieldSpecifier, ...], list[Template]] = {}
        for template in templates:
            self._by_needed.setdefault(_needed(template.fields), []).append(template)

    def of(self, template: Template) -> Template | None:
        """The own Template; None: these are not relayed records of flowtop."""
        if template.id < FIRST_ID or template.scope_count or DOMAIN not in template.names:
            return None
        fields = template.fields[:template.names.index(DOMAIN)]
        of_flows = _of_flows(each.name for each in fields)
        return next((base for base in self._by_needed.get(_needed(fields), ())
                     if set(fields) - {_PADDING} <= set(base.fields) and _of_flows(base.names) == of_flows), None)


def _needed(fields: Sequence[FieldSpecifier]) -> tuple[FieldSpecifier, ...]:
    return tuple(each for each in fields if each.name not in _OPTIONAL and each != _PADDING)


_BACK = {
    "domain": DOMAIN, "ingress_interface": "ingressInterface", "egress_interface": "egressInterface", "ttl": "ipTTL",
    "source_as": "bgpSourceAsNumber", "destination_as": "bgpDestinationAsNumber",
    "post_nat_source_port": "postNAPTSourceTransportPort",
    "post_nat_destination_port": "postNAPTDestinationTransportPort", "ingress_vrf_id": "ingressVRFID",
    "egress_vrf_id": "egressVRFID", "nat_event": "natEvent", "firewall_event": "firewallEvent", "sampler": "selectorId",
    "firewall_extended_event": _EXTENDED_EVENT_NAME,
}
_BACK_ADDRESSES = {"exporter": "originalExporterIPv{}Address", "next_hop": "ipNextHopIPv{}Address",
                   "bgp_next_hop": "bgpNextHopIPv{}Address", "post_nat_source": "postNATSourceIPv{}Address",
                   "post_nat_destination": "postNATDestinationIPv{}Address"}
_BACK_TEXTS = {"application_name": "applicationName", "vrf_name": "VRFname", "egress_vrf_name": "VRFname#2",
               "user_name": "userName"}


def fill_back(found: FlowRecords, wire: Records, base: Template) -> None:
    """Fill the members of RELAYED_RECORD_DTYPE from decoded relayed records; the reverse of `relayed_set`.

    Args:
        base: the own Template that theirs begins with.
    """
    names = frozenset(wire.dtype.names or ())
    for member, element in _BACK.items():
        if element in names:
            found[member] = wire[element]
    for version in IpVersion:
        for end in ("source", "destination"):
            if f"{end}IPv{version}PrefixLength" in names:
                found[f"{end}_mask"] |= wire[f"{end}IPv{version}PrefixLength"]
        for member, form in _BACK_ADDRESSES.items():
            if form.format(version) in names:
                octets = wire[form.format(version)]
                octets = mapped(octets) if version == IpVersion.V4 else octets
                found[member] = np.where(found[member] != np.zeros((), "V16"), found[member], octets)
    for member, element in _BACK_TEXTS.items():
        if element in names:
            found[member] = wire[element]
    of_base = frozenset(base.names)
    found["record_bits"] = sum(bit for bit, elements in _UNREPORTED.items()
                               if elements[0] in of_base and elements[0] not in names)
    if _FLOW_DIRECTION.name not in names:
        found["direction"] = UNKNOWN_DIRECTION
    if "mplsTopLabelStackSection" in names:
        octets = np.frombuffer(wire["mplsTopLabelStackSection"].tobytes(), np.uint8).reshape(-1, 3).astype(np.uint32)
        found["mpls_top_label"] = octets[:, 0] << np.uint32(16) | octets[:, 1] << np.uint32(8) | octets[:, 2]
    if "applicationId" in names:
        found["application_id"] = [application_text(octets).encode() if octets else b""
                                   for octets in wire["applicationId"].tolist()]
    if "selectorName" in names:
        found["sampling_interval"] = applied_intervals(wire["selectorName"].tolist())


def applied_intervals(names: Iterable[object]) -> npt.NDArray[np.uint32]:
    """The sampling intervals in selector names of relayed records; 0: none."""
    matches = [_APPLIED.fullmatch(bytes(name)) if isinstance(name, bytes) else None for name in names]
    return np.array([min(int(match[1]), 0xFFFF_FFFF) if match else 0 for match in matches], np.uint32)


# ---- interface names


def interface_templates() -> list[Template]:
    """Options Templates of interface names, for exporters with IPv4 and with IPv6 addresses."""
    return [Template(id_, (field(f"originalExporterIPv{version}Address"), field(DOMAIN), field("ingressInterface"),
                           field("interfaceName")), 3) for version, id_ in INTERFACES.items()]


def interface_sets(rows: Sequence[tuple[bytes, int, int, str]]) -> list[RecordSet]:
    """The names of interfaces: (exporter of 4 or 16 octets, domain, the exporter's number, name)."""
    found = []
    for template, octets in zip(interface_templates(), (4, 16), strict=True):
        values: list[Sequence[Value]] = [row for row in rows if len(row[0]) == octets]
        if values:
            found.append(encode_records(template, values))
    return found

