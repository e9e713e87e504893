"""flowtop's own IPFIX Templates: Flow Records and what is reported about them (RFC 7011 section 4).

Seven Templates carry FLOW_RECORD_DTYPE, each for IPv4 and for IPv6 but the last: Flows; ICMP, whose type and code have
their own element while ports are 0; later fragments whose first was not seen, without ports; and without addresses too
the aggregates that hold the rest when the kernel's map was full.
ICMP stands apart because nfcapd 1.7.1 takes a type and code of 0 for the destination port of SCTP and its like.

All but the last have variants for flows in tunnels (wire/tunnels.py), which are announced when there is one: in VXLAN,
in GRE with a key, in any other. A collector adds up: Σ over all Templates is everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import Direction, Kind, Tunnel
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords, chosen
from flowtop.wire import tunnels
from flowtop.wire.ipfix import RecordSet, encode_columns, encode_records, template_sets
from flowtop.wire.ipfix_template import Template, field

_ICMP, _ICMPV6 = 1, 58
_MEASURED = ("flowId", "flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount", "packetDeltaCount")
_OBSERVED = ("ingressInterface", "egressInterface", "protocolIdentifier", "ipVersion", "flowDirection", "flowEndReason")
_PACKET = ("sourceMacAddress", "destinationMacAddress", "vlanId", "dot1qCustomerVlanId", "tcpControlBits",
           "ipClassOfService")
_PORTS = ("sourceTransportPort", "destinationTransportPort")
_NOT_KEYS = frozenset((*_MEASURED, "flowEndReason", "sourceMacAddress", "destinationMacAddress", "postVlanId",
                       "tcpControlBits", "ipClassOfService"))
_ADDRESSES = {4: ("sourceIPv4Address", "destinationIPv4Address"), 6: ("sourceIPv6Address", "destinationIPv6Address")}
_ICMP_TYPE_CODE = {4: "icmpTypeCodeIPv4", 6: "icmpTypeCodeIPv6"}

IPV4, IPV6, IPV4_ICMP, IPV6_ICMP, IPV4_FRAGMENT, IPV6_FRAGMENT, AGGREGATE = range(256, 263)
"""Template ids of Flow Records."""
METERING_STATISTICS, METERING_RELIABILITY, EXPORTING_RELIABILITY, FLOW_KEYS, INTERFACES, TUNNELS = range(263, 269)
"""Template ids of Options Data."""
_TUNNELLED = 272
"""The first Template id of Flow Records in tunnels: ids for each of _IN_TUNNELS, in the order of those outside."""
_VARIANT = 8
"""Ids of a variant; the last two are free."""
_IN_TUNNELS = (("observationPointId",), ("observationPointId", "layer2SegmentId"), ("observationPointId", "greKey"))


@dataclass(frozen=True, slots=True)
class Profile:
    """What is said differently because of who listens.

    Attributes:
        name: as in `?profile=`.
        tcp_control_bits_octets: 2, or 1 for collectors that misread 2: the registry allows it, and the four bits above
            CWR are not told then.
        options_apart: Options Data go in Observation Domain 0 and name the domain they are about, for collectors
            that don't count them among the Data Records when they check sequence numbers.
        post_vlan: say the VLAN a second time as postVlanId, for collectors that take it from there at egress.
        doc: for whom it is.
    """

    name: str
    tcp_control_bits_octets: int
    options_apart: bool
    post_vlan: bool
    doc: str

    def options_domain(self, domain: int) -> int:
        """Observation Domain ID of messages with Options Data about `domain`."""
        return 0 if self.options_apart else domain


PROFILES: dict[str, Profile] = {profile.name: profile for profile in (
    Profile("default", 1, True, True, "What nfdump, pmacct, tshark and libfixbuf all read right."),
    Profile("strict", 2, False, False, "Every element at full length; options in the flows' own Observation Domain."),
    Profile("nfdump", 2, True, False, "All 12 TCP control bits; options apart: nfcapd sees no false sequence errors."),
    Profile("pmacct", 1, False, True, "nfacctd reads two octets of TCP control bits as 0, and vlanId only at ingress."),
)}
"""By name; `default` is for any collector."""


@dataclass(frozen=True)
class FlowTemplates:
    """The Templates of a profile.

    Attributes:
        profile: whose.
        flows: by id, of Flow Records outside tunnels.
        tunnelled: by id, of Flow Records in tunnels.
        options: by id, of Options Data.
        tunnel_options: by id, of Options Data about tunnels.
    """

    profile: Profile
    flows: Mapping[int, Template]
    tunnelled: Mapping[int, Template]
    options: Mapping[int, Template]
    tunnel_options: Mapping[int, Template]


def flow_templates(profile: Profile) -> FlowTemplates:
    """The Templates of a profile: the same ids, always."""
    packet = (*_PACKET, "postVlanId") if profile.post_vlan else _PACKET
    shapes = {IPV4: (*_ADDRESSES[4], *_PORTS, *packet), IPV6: (*_ADDRESSES[6], *_PORTS, *packet),
              IPV4_ICMP: (*_ADDRESSES[4], *_PORTS, _ICMP_TYPE_CODE[4], *packet),
              IPV6_ICMP: (*_ADDRESSES[6], *_PORTS, _ICMP_TYPE_CODE[6], *packet),
              IPV4_FRAGMENT: (*_ADDRESSES[4], *packet), IPV6_FRAGMENT: (*_ADDRESSES[6], *packet), AGGREGATE: ()}
    domain = ("observationDomainId",)
    lost_between = ("observationTimeMilliseconds", "observationTimeMilliseconds")
    options = {
        METERING_STATISTICS: (domain, ("exportedMessageTotalCount", "exportedFlowRecordTotalCount",
                                       "exportedOctetTotalCount")),
        METERING_RELIABILITY: (domain, ("ignoredPacketTotalCount", "ignoredOctetTotalCount", *lost_between)),
        EXPORTING_RELIABILITY: (("exportingProcessId",), ("notSentFlowTotalCount", "notSentPacketTotalCount",
                                                          "notSentOctetTotalCount", *lost_between)),
        FLOW_KEYS: ((*(domain if profile.options_apart else ()), "templateId"), ("flowKeyIndicator",)),
        INTERFACES: (("ingressInterface",), ("interfaceName",)),
    }
    tunnelled = {_TUNNELLED + _VARIANT * number + id_ - IPV4: (*names, *more) for number, more in enumerate(_IN_TUNNELS)
                 for id_, names in shapes.items() if id_ != AGGREGATE}
    tunnel_options = {TUNNELS: (("observationPointId",), ("interfaceDescription",))}
    return FlowTemplates(profile, _of_flows(profile, shapes), _of_flows(profile, tunnelled), _of_options(options),
                         _of_options(tunnel_options))


def _of_flows(profile: Profile, shapes: Mapping[int, tuple[str, ...]]) -> dict[int, Template]:
    lengths = {"tcpControlBits": profile.tcp_control_bits_octets}
    return {id_: Template(id_, tuple(field(name, lengths.get(name)) for name in (*_MEASURED, *_OBSERVED, *names)))
            for id_, names in shapes.items()}


def _of_options(options: Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]]) -> dict[int, Template]:
    return {id_: Template(id_, tuple(map(field, (*scope, *names))), len(scope))
            for id_, (scope, names) in options.items()}


def shape(template_id: int) -> int:
    """The id of the Template that differs from this one only in not being for flows in tunnels."""
    return template_id if template_id < _TUNNELLED else IPV4 + (template_id - _TUNNELLED) % _VARIANT


def announcement(templates: FlowTemplates, *, tunnelled: bool = False) -> list[RecordSet]:
    """Sets that announce the Flow Records' Templates, for the flows' Observation Domain.

    Args:
        tunnelled: those of flows in tunnels, in the place of the others; so everywhere below.
    """
    return template_sets((templates.tunnelled if tunnelled else templates.flows).values())


def options_announcement(templates: FlowTemplates, *, tunnelled: bool = False) -> list[RecordSet]:
    """Sets that announce the Options Templates, for Profile.options_domain.

    One each: nfacctd 1.7.7 takes a Set with several of them for malformed.
    """
    options = templates.tunnel_options if tunnelled else templates.options
    return [record_set for template in options.values() for record_set in template_sets([template])]


def flow_sets(records: FlowRecords, templates: FlowTemplates) -> tuple[list[RecordSet], npt.NDArray[np.intp]]:
    """Flow Records as Sets for encode_messages, sorted by Template.

    Gives the Sets, and the order: record `order[i]` is the i-th Data Record of the Sets, shape (n,).
    """
    ids = _template_ids(records)
    present = np.flatnonzero(np.bincount(ids - IPV4, minlength=1)) + IPV4
    if len(present) < 2:
        order = np.arange(len(records))
        return [_flow_set(records, _template(templates, int(id_))) for id_ in present], order
    order = np.argsort(ids, kind="stable")
    edges = np.searchsorted(ids[order], [*present, present[-1] + 1])
    return [_flow_set(chosen(records, order[start:end]), _template(templates, int(id_)))
            for id_, start, end in zip(present, edges[:-1], edges[1:], strict=True)], order


def _template(templates: FlowTemplates, id_: int) -> Template:
    return (templates.flows if id_ < _TUNNELLED else templates.tunnelled)[id_]


def _template_ids(records: FlowRecords) -> npt.NDArray[np.intp]:
    icmp = (records["protocol"] == _ICMP) | (records["protocol"] == _ICMPV6)
    ids = np.where(records["kind"] == Kind.FRAGMENT, IPV4_FRAGMENT, np.where(icmp, IPV4_ICMP, IPV4))
    ids += records["ip_version"] == 6
    tunnel = records["tunnel"]
    if tunnel.any():
        variant = np.where(tunnel == Tunnel.VXLAN, 1, np.where(
            (tunnel == Tunnel.GRE) & (records["tunnel_id"] != 0), 2, 0))
        ids = np.where(tunnel != Tunnel.NONE, ids + (_TUNNELLED - IPV4 + _VARIANT * variant), ids)
    return np.where(records["kind"] == Kind.AGGREGATE, AGGREGATE, ids).astype(np.intp)


def _flow_set(records: FlowRecords, template: Template) -> RecordSet:
    """Flow Records of one Template."""
    form = shape(template.id)
    ingress = records["direction"] != Direction.EGRESS  # what is not known, too: the element knows two values
    columns: dict[str, npt.NDArray[np.generic]] = {
        "flowId": records["flow_id"],
        "flowStartMilliseconds": records["start_ms"],
        "flowEndMilliseconds": records["end_ms"],
        "octetDeltaCount": records["octet_delta"],
        "packetDeltaCount": records["packet_delta"],
        "ingressInterface": records["ifindex"] * ingress,
        "egressInterface": records["ifindex"] * ~ingress,
        "protocolIdentifier": records["protocol"],
        "ipVersion": records["ip_version"],
        "flowDirection": records["direction"] & Direction.EGRESS,
        "flowEndReason": records["end_reason"],
    }
    if form != AGGREGATE:
        columns |= _packet_columns(records, template)
    if form in (IPV4, IPV6):
        columns |= dict(zip(_PORTS, (records["source_port"], records["destination_port"]), strict=True))
    if form in (IPV4_ICMP, IPV6_ICMP):
        columns |= dict.fromkeys(_PORTS, np.zeros(len(records), np.uint16))
        columns[_ICMP_TYPE_CODE[4 if form == IPV4_ICMP else 6]] = records["destination_port"]
    if form != template.id:
        columns |= {"observationPointId": tunnels.observation_points(records), "greKey": records["tunnel_id"],
                    "layer2SegmentId": tunnels.layer2_segments(records)}
    return encode_columns(template, columns)


def _packet_columns(records: FlowRecords, template: Template) -> dict[str, npt.NDArray[np.generic]]:
    """Addresses, and what is told of the first packet."""
    version, octets = (4, 4) if shape(template.id) in (IPV4, IPV4_ICMP, IPV4_FRAGMENT) else (6, 16)
    source, destination = _ADDRESSES[version]
    bits = records["tcp_control_bits"]
    bits_octets = next(specifier.length for name, specifier in template.named_fields if name == "tcpControlBits")
    return {
        source: _leading(records, "source_address", octets),
        destination: _leading(records, "destination_address", octets),
        "sourceMacAddress": records["source_mac"],
        "destinationMacAddress": records["destination_mac"],
        "vlanId": records["vlan_id"],
        "postVlanId": records["vlan_id"],
        "dot1qCustomerVlanId": records["customer_vlan_id"],
        "tcpControlBits": bits if bits_octets == 2 else bits.astype(np.uint8),
        "ipClassOfService": records["tos"],
    }


def _leading(records: FlowRecords, name: str, octets: int) -> npt.NDArray[np.void]:
    """The first octets of a field: a view."""
    assert FLOW_RECORD_DTYPE.fields is not None
    return records.getfield(np.dtype(f"V{octets}"), FLOW_RECORD_DTYPE.fields[name][1])


def metering_statistics(templates: FlowTemplates, *, domain: int, messages: int, flow_records: int,
                        octets: int) -> RecordSet:
    """Metering Process Statistics (RFC 7011 section 4.1): what was exported from a domain in this Transport Session."""
    return _options(templates, METERING_STATISTICS, [(domain, messages, flow_records, octets)])


def metering_reliability(templates: FlowTemplates, *, domain: int, ignored_packets: int, ignored_octets: int,
                         first_ms: int, last_ms: int) -> RecordSet:
    """Metering Process Reliability Statistics (RFC 7011 section 4.2): what was observed and is in no Flow Record.

    Args:
        first_ms, last_ms: when the first and the last of them was ignored, since 1970 UTC; 0 when none was.
    """
    return _options(templates, METERING_RELIABILITY, [(domain, ignored_packets, ignored_octets, first_ms, last_ms)])


def exporting_reliability(templates: FlowTemplates, *, exporting_process_id: int, not_sent_flows: int,
                          not_sent_packets: int, not_sent_octets: int, first_ms: int, last_ms: int) -> RecordSet:
    """Exporting Process Reliability Statistics (RFC 7011 section 4.3): what was given up.

    Args:
        first_ms, last_ms: when the first and the last record was given up, since 1970 UTC; 0 when none was.
    """
    return _options(templates, EXPORTING_RELIABILITY, [
        (exporting_process_id, not_sent_flows, not_sent_packets, not_sent_octets, first_ms, last_ms)])


def flow_keys(templates: FlowTemplates, *, domain: int, tunnelled: bool = False) -> RecordSet:
    """Which fields of each Flow Record Template are Flow Keys (RFC 7011 section 4.4)."""
    about = (domain,) if templates.profile.options_apart else ()
    flows = templates.tunnelled if tunnelled else templates.flows
    return _options(templates, FLOW_KEYS, [(*about, template.id, key_indicator(template))
                                           for template in flows.values()])


def key_indicator(template: Template) -> int:
    """flowKeyIndicator: bit i is set when field i is a Flow Key."""
    return sum(1 << i for i, name in enumerate(template.names) if name not in _NOT_KEYS)


def interface_table(templates: FlowTemplates, interfaces: Mapping[int, str]) -> RecordSet:
    """Name by ifindex: the scope ingressInterface stands for egressInterface too, as they share one numbering."""
    return _options(templates, INTERFACES, sorted(interfaces.items()))


def tunnel_table(templates: FlowTemplates, observation_points: Iterable[int]) -> RecordSet:
    """Which tunnel each of these is the inside of."""
    return encode_records(templates.tunnel_options[TUNNELS],
                          [(point, tunnels.description(point)) for point in sorted(observation_points)])


def _options(templates: FlowTemplates, id_: int, rows: Iterable[tuple[int | str, ...]]) -> RecordSet:
    return encode_records(templates.options[id_], rows)
