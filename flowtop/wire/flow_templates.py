"""flowtop's own IPFIX Templates: Flow Records and Options Data about them (RFC 7011 section 4).

Seven Templates carry FLOW_RECORD_DTYPE: flows, ICMP and later fragments, each for IPv4 and IPv6, and aggregates. ICMP
Templates have an element for type and code, and ports are 0. Templates of later fragments, whose first fragment was not
seen, have no ports. The aggregate Template has no addresses either: it holds the traffic that did not fit in the
kernel's map. ICMP has Templates of its own because nfcapd 1.7.1 takes a type and code of 0 for the destination port of
SCTP and other protocols.

All but the aggregate have variants for flows in tunnels (wire/tunnels.py): VXLAN, GRE with a key, other tunnels. These
are announced when the first flow in a tunnel is exported. The sum over all Templates is the total traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import Direction, IpVersion, Kind, Protocol, Tunnel
from flowtop.model.record import RELAYED_RECORD_DTYPE, FlowRecords, chosen
from flowtop.wire import tcp_metrics, tunnels
from flowtop.wire.ipfix import RecordSet, encode_columns, encode_records, template_sets
from flowtop.wire.ipfix_template import Template, field
from flowtop.wire.owners import without_owners
from flowtop.wire.relayed import DOMAIN as RELAYED_DOMAIN
from flowtop.wire.relayed import RelayedTemplates, relayed_set
from flowtop.wire.relayed import signatures as relayed_signatures

_ICMP, _ICMPV6 = np.uint8(Protocol.ICMP), np.uint8(Protocol.ICMPV6)
_MEASURED = ("flowId", "flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount", "packetDeltaCount")
_OBSERVED = ("ingressInterface", "egressInterface", "protocolIdentifier", "ipVersion", "flowDirection", "flowEndReason")
_PACKET = ("sourceMacAddress", "destinationMacAddress", "vlanId", "dot1qCustomerVlanId", "tcpControlBits",
           "ipClassOfService")
_PORTS = ("sourceTransportPort", "destinationTransportPort")
_RELAYED_INTERFACES = {"ingressInterface": "ingress_interface", "egressInterface": "egress_interface"}
"""In relayed records: the exporter's own numbers, both sides."""
_NOT_KEYS = frozenset((*_MEASURED, "flowEndReason", "sourceMacAddress", "destinationMacAddress", "postVlanId",
                       "tcpControlBits", "ipClassOfService", *tcp_metrics.ELEMENTS))
_ADDRESSES = {IpVersion.V4: ("sourceIPv4Address", "destinationIPv4Address"),
              IpVersion.V6: ("sourceIPv6Address", "destinationIPv6Address")}
_ICMP_TYPE_CODE = {IpVersion.V4: "icmpTypeCodeIPv4", IpVersion.V6: "icmpTypeCodeIPv6"}

IPV4, IPV6, IPV4_ICMP, IPV6_ICMP, IPV4_FRAGMENT, IPV6_FRAGMENT, AGGREGATE = range(256, 263)
"""Template ids of Flow Records."""
METERING_STATISTICS, METERING_RELIABILITY, EXPORTING_RELIABILITY, FLOW_KEYS, INTERFACES, TUNNELS = range(263, 269)
"""Template ids of Options Data."""
_TUNNELLED = 272
"""First Template id of Flow Records in tunnels. Each item of _IN_TUNNELS has _VARIANT ids, in the order of those
above."""
_VARIANT = 8
"""Template ids per variant; the last two are unused."""
_IN_TUNNELS = (("observationPointId",), ("observationPointId", "layer2SegmentId"), ("observationPointId", "greKey"))


@dataclass(frozen=True, slots=True)
class Profile:
    """Differences between Templates for different collectors.

    Attributes:
        name: the value of `?profile=`.
        tcp_control_bits_octets: 2, or 1 for collectors that misread 2: the registry allows 1, without the four bits
            above CWR.
        options_apart: send Options Data in Observation Domain 0 and name the domain that they are about, for collectors
            that don't count Options Data as Data Records when they check sequence numbers.
        post_vlan: repeat the VLAN as postVlanId, for collectors that read it from there at egress.
        doc: which collectors it is for.
        measured: records have measurements of TCP, where there are any (wire/tcp_metrics.py); not for collectors that
            refuse Templates with elements that they do not know.
        one_set: a message has one Set without padding, a Template Set has one Template, and there are no Options, for
            collectors that assume this.
    """

    name: str
    tcp_control_bits_octets: int
    options_apart: bool
    post_vlan: bool
    doc: str
    measured: bool = True
    one_set: bool = False

    def options_domain(self, domain: int) -> int:
        """Observation Domain ID of messages with Options Data about `domain`."""
        return 0 if self.options_apart else domain


PROFILES: dict[str, Profile] = {profile.name: profile for profile in (
    Profile("default", 1, True, True, "Read correctly by nfdump, pmacct, tshark and libfixbuf."),
    Profile("strict", 2, False, False, "Every element at full length; options in the flows' own Observation Domain."),
    Profile("nfdump", 2, True, False, "All 12 TCP control bits; options apart: nfcapd sees no false sequence errors."),
    Profile("pmacct", 1, False, True, "nfacctd reads two octets of TCP control bits as 0, and vlanId only at ingress."),
    Profile("go-ipfix", 2, False, False, "One Set a message, not padded; no options, so no interface names; no "
            "measurements of TCP: for the collectors of go-ipfix and Antrea.", measured=False, one_set=True),
)}
"""By name; `default` is for any collector."""


@dataclass(frozen=True)
class FlowTemplates:
    """The Templates of a profile.

    Attributes:
        profile: the profile.
        flows: Flow Records outside tunnels, by id.
        tunnelled: Flow Records in tunnels, by id.
        options: Options Data, by id.
        tunnel_options: Options Data about tunnels, by id.
    """

    profile: Profile
    flows: Mapping[int, Template]
    tunnelled: Mapping[int, Template]
    options: Mapping[int, Template]
    tunnel_options: Mapping[int, Template]


def flow_templates(profile: Profile) -> FlowTemplates:
    """Make the Templates of a profile; ids do not depend on the profile."""
    packet = (*_PACKET, "postVlanId") if profile.post_vlan else _PACKET
    shapes = {IPV4: (*_ADDRESSES[IpVersion.V4], *_PORTS, *packet), IPV6: (*_ADDRESSES[IpVersion.V6], *_PORTS, *packet),
              IPV4_ICMP: (*_ADDRESSES[IpVersion.V4], *_PORTS, _ICMP_TYPE_CODE[IpVersion.V4], *packet),
              IPV6_ICMP: (*_ADDRESSES[IpVersion.V6], *_PORTS, _ICMP_TYPE_CODE[IpVersion.V6], *packet),
              IPV4_FRAGMENT: (*_ADDRESSES[IpVersion.V4], *packet),
              IPV6_FRAGMENT: (*_ADDRESSES[IpVersion.V6], *packet), AGGREGATE: ()}
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
    """The id of the corresponding Template for flows outside tunnels."""
    return template_id if template_id < _TUNNELLED else IPV4 + (template_id - _TUNNELLED) % _VARIANT


def announcement(templates: FlowTemplates, *, tunnelled: bool = False) -> list[RecordSet]:
    """Sets that announce the Templates of Flow Records, for the flows' Observation Domain.

    Args:
        tunnelled: Templates of flows in tunnels instead of the others; the same in the functions below.
    """
    return template_sets((templates.tunnelled if tunnelled else templates.flows).values())


def options_announcement(templates: FlowTemplates, *, tunnelled: bool = False) -> list[RecordSet]:
    """Sets that announce the Options Templates, for Profile.options_domain.

    One Set per Template: nfacctd 1.7.7 rejects a Set with several of them as malformed.
    """
    options = templates.tunnel_options if tunnelled else templates.options
    return [record_set for template in options.values() for record_set in template_sets([template])]


def flow_sets(records: FlowRecords, templates: FlowTemplates,
              relayed: RelayedTemplates | None = None,
              measured: dict[int, Template] | None = None) -> tuple[list[RecordSet], npt.NDArray[np.intp]]:
    """Flow Records as Sets for encode_messages, sorted by Template.

    Args:
        relayed: the Transport Session's Templates of relayed records (RELAYED_RECORD_DTYPE). It gets those that are
            new, which have to be announced before the Sets.
        measured: the same for those of own records with measurements of TCP, by id; None: leave measurements out.

    Returns the Sets, and the order: record `order[i]` is the i-th Data Record of the Sets, shape (n,).
    """
    ids = template_id(records)
    if relayed is not None and records.dtype == RELAYED_RECORD_DTYPE:
        return _relayed_sets(records, ids, templates, relayed)
    kinds = tcp_metrics.kinds(records) if templates.profile.measured and measured is not None else None
    if kinds is not None and measured is not None:
        return _measured_sets(records, ids << _KIND_BITS | kinds, templates, measured)
    present = np.flatnonzero(np.bincount(ids - IPV4, minlength=1)) + IPV4
    if len(present) < 2:
        order = np.arange(len(records))
        return [_flow_set(records, _template(templates, int(id_))) for id_ in present], order
    order = np.argsort(ids, kind="stable")
    edges = np.searchsorted(ids[order], [*present, present[-1] + 1])
    return [_flow_set(chosen(records, order[start:end]), _template(templates, int(id_)))
            for id_, start, end in zip(present, edges[:-1], edges[1:], strict=True)], order


_KIND_BITS = len(tcp_metrics.SENT)


def _measured_sets(records: FlowRecords, keys: npt.NDArray[np.intp], templates: FlowTemplates,
                   measured: dict[int, Template]) -> tuple[list[RecordSet], npt.NDArray[np.intp]]:
    """Sets of records of which some have measurements; `keys`: Template id and kind of tcp_metrics.kinds."""
    order = np.argsort(keys, kind="stable")
    present, starts = np.unique(keys[order], return_index=True)
    sets = []
    for key, start, end in zip(present.tolist(), starts, [*starts[1:], len(keys)], strict=True):
        template, kind = _template(templates, key >> _KIND_BITS), key & (1 << _KIND_BITS) - 1
        part = chosen(records, order[start:end])
        if not kind:
            sets.append(_flow_set(part, template))
            continue
        columns = {**flow_columns(part, template), **tcp_metrics.columns(part)}
        template = tcp_metrics.with_measurements(template, kind)
        measured.setdefault(template.id, template)
        sets.append(encode_columns(template, columns))
    return sets, order


def _relayed_sets(records: FlowRecords, ids: npt.NDArray[np.intp], templates: FlowTemplates,
                  relayed: RelayedTemplates) -> tuple[list[RecordSet], npt.NDArray[np.intp]]:
    signatures = relayed_signatures(records, measured=templates.profile.measured)
    kinds, inverse = np.unique(ids << np.int64(_SIGNATURE_BITS) | signatures, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    edges = [0, *np.cumsum(np.bincount(inverse, minlength=len(kinds))).tolist()]
    sets = []
    for kind, start, end in zip(kinds.tolist(), edges[:-1], edges[1:], strict=True):
        base = _template(templates, kind >> _SIGNATURE_BITS)
        template, signature = relayed.template(base, kind & (1 << _SIGNATURE_BITS) - 1)
        part = chosen(records, order[start:end])
        sets.append(relayed_set(part, template, signature, flow_columns(part, base)))
    return sets, order


_SIGNATURE_BITS = 48


def _template(templates: FlowTemplates, id_: int) -> Template:
    return (templates.flows if id_ < _TUNNELLED else templates.tunnelled)[id_]


def template_id(records: FlowRecords) -> npt.NDArray[np.intp]:
    """The id of each record's Template, shape (n,)."""
    icmp = (records["protocol"] == _ICMP) | (records["protocol"] == _ICMPV6)
    ids = np.where(records["kind"] == Kind.FRAGMENT, IPV4_FRAGMENT, np.where(icmp, IPV4_ICMP, IPV4))
    ids += records["ip_version"] == np.uint8(IpVersion.V6)
    tunnel = records["tunnel"]
    if tunnel.any():
        variant = np.where(tunnel == Tunnel.VXLAN, 1, np.where(
            (tunnel == Tunnel.GRE) & (records["tunnel_id"] != 0), 2, 0))
        ids = np.where(tunnel != Tunnel.NONE, ids + (_TUNNELLED - IPV4 + _VARIANT * variant), ids)
    no_addresses = (records["kind"] == Kind.AGGREGATE) | (records["ip_version"] == 0)  # 0: ends are MAC addresses
    return np.where(no_addresses, AGGREGATE, ids).astype(np.intp)


def _flow_set(records: FlowRecords, template: Template) -> RecordSet:
    """Encode Flow Records of one Template."""
    return encode_columns(template, flow_columns(records, template))


def flow_columns(records: FlowRecords, template: Template) -> dict[str, npt.NDArray[np.generic]]:
    """The fields of Flow Records of one Template by element, each of shape (n,)."""
    form = shape(template.id)
    ingress = records["direction"] != Direction.EGRESS  # unknown, too: the element has two values
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
        columns[_ICMP_TYPE_CODE[IpVersion.V4 if form == IPV4_ICMP else IpVersion.V6]] = records["destination_port"]
    if form != template.id:
        columns |= {"observationPointId": tunnels.observation_points(records), "greKey": records["tunnel_id"],
                    "layer2SegmentId": tunnels.layer2_segments(records)}
    if records.dtype == RELAYED_RECORD_DTYPE:
        columns |= {name: records[member] for name, member in _RELAYED_INTERFACES.items()}
    return columns


def _packet_columns(records: FlowRecords, template: Template) -> dict[str, npt.NDArray[np.generic]]:
    """Columns of addresses and of first-packet fields."""
    version, octets = ((IpVersion.V4, 4) if shape(template.id) in (IPV4, IPV4_ICMP, IPV4_FRAGMENT)
                       else (IpVersion.V6, 16))
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
    """The first octets of a field, as a view."""
    assert records.dtype.fields is not None
    return records.getfield(np.dtype(f"V{octets}"), records.dtype.fields[name][1])


def metering_statistics(templates: FlowTemplates, *, domain: int, messages: int, flow_records: int,
                        octets: int) -> RecordSet:
    """Metering Process Statistics (RFC 7011 section 4.1): exports of a domain in this Transport Session."""
    return _options(templates, METERING_STATISTICS, [(domain, messages, flow_records, octets)])


def metering_reliability(templates: FlowTemplates, *, domain: int, ignored_packets: int, ignored_octets: int,
                         first_ms: int, last_ms: int) -> RecordSet:
    """Metering Process Reliability Statistics (RFC 7011 section 4.2): packets observed that are in no Flow Record.

    Args:
        first_ms, last_ms: when the first and the last packet was ignored, since 1970 UTC; 0 if none was.
    """
    return _options(templates, METERING_RELIABILITY, [(domain, ignored_packets, ignored_octets, first_ms, last_ms)])


def exporting_reliability(templates: FlowTemplates, *, exporting_process_id: int, not_sent_flows: int,
                          not_sent_packets: int, not_sent_octets: int, first_ms: int, last_ms: int) -> RecordSet:
    """Exporting Process Reliability Statistics (RFC 7011 section 4.3): records that were given up.

    Args:
        first_ms, last_ms: when the first and the last record was given up, since 1970 UTC; 0 if none was.
    """
    return _options(templates, EXPORTING_RELIABILITY, [
        (exporting_process_id, not_sent_flows, not_sent_packets, not_sent_octets, first_ms, last_ms)])


def flow_keys(templates: FlowTemplates, *, domain: int, tunnelled: bool = False) -> RecordSet:
    """The Flow Keys of each Flow Record Template (RFC 7011 section 4.4)."""
    about = (domain,) if templates.profile.options_apart else ()
    flows = templates.tunnelled if tunnelled else templates.flows
    return _options(templates, FLOW_KEYS, [(*about, template.id, key_indicator(template))
                                           for template in flows.values()])


def more_keys(templates: FlowTemplates, more: Iterable[Template], *, domain: int) -> RecordSet:
    """The Flow Keys of Templates of measured and of relayed records, also with owners: as those of others, and for
    relayed ones the exporter's Observation Domain."""
    about = (domain,) if templates.profile.options_apart else ()
    beginnings = [Template(template.id, template.fields[:template.names.index(RELAYED_DOMAIN) + 1])
                  if RELAYED_DOMAIN in template.names else
                  Template(template.id, without_owners(template).fields) for template in more]
    return _options(templates, FLOW_KEYS, [(*about, each.id, key_indicator(each)) for each in beginnings])


def key_indicator(template: Template) -> int:
    """flowKeyIndicator: bit i is set when field i is a Flow Key."""
    return sum(1 << i for i, name in enumerate(template.names) if name not in _NOT_KEYS)


def interface_table(templates: FlowTemplates, interfaces: Mapping[int, str]) -> RecordSet:
    """Name by ifindex. The scope ingressInterface applies to egressInterface too, as they share one numbering."""
    return _options(templates, INTERFACES, sorted(interfaces.items()))


def tunnel_table(templates: FlowTemplates, observation_points: Iterable[int]) -> RecordSet:
    """Description of the tunnel of each Observation Point."""
    return encode_records(templates.tunnel_options[TUNNELS],
                          [(point, tunnels.description(point)) for point in sorted(observation_points)])


def _options(templates: FlowTemplates, id_: int, rows: Iterable[tuple[int | str, ...]]) -> RecordSet:
    return encode_records(templates.options[id_], rows)
