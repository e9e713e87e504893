"""Flow Records of any exporter's Template as Flow Keys and counters: one numpy row per direction.

Fields that a record does not have are 0. Times become ms since 1970 UTC on the exporter's clock, from any of the dozen
time formats of the registry. A bidirectional record (RFC 5103, or initiator and responder counters) gives two rows: the
reverse row is a separate flow with its ends swapped, seen in the other direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import reverse_name
from flowtop.model.kinds import (
    ANY_PROTOCOL,
    ICMP_VERSIONS,
    UNKNOWN_DIRECTION,
    BiflowDirection,
    Direction,
    FirewallEvent,
    IpVersion,
    Kind,
    NatEvent,
    Protocol,
    RecordBits,
)
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.wire import tunnels
from flowtop.wire.biflows import biflow_templates
from flowtop.wire.flow_templates import IPV4_FRAGMENT, IPV6_FRAGMENT, PROFILES, flow_templates, shape
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import Template
from flowtop.wire.owners import without_owners
from flowtop.wire.record_addresses import fill_addresses, fill_inner
from flowtop.wire.record_bits import began, turned, unreported
from flowtop.wire.record_counters import (
    TOTALS_DTYPE,
    Bools,
    Totals,
    event_name,
    firewall_events,
    nat_events,
    read_counters,
)
from flowtop.wire.record_fields import Integers, RecordFields
from flowtop.wire.record_times import ExportTimes, record_times, reverse_times
from flowtop.wire.relayed import Bases
from flowtop.wire.tcp_metrics import without_measurements

COLLECTED_DTYPE = np.dtype([
    *[(name, FLOW_KEY_DTYPE[name]) for name in FLOW_KEY_DTYPE.names or ()],
    ("packets", "u8"),
    ("octets", "u8"),
    ("start_ms", "i8"),
    ("end_ms", "i8"),
    ("source_mac", "V6"),
    ("destination_mac", "V6"),
    ("tcp_control_bits", "u2"),
    ("tos", "u1"),
    ("ttl", "u1"),
    ("other_ifindex", "u4"),
    ("record_bits", "u4"),
    ("flow_count", "u4"),
    ("opposite", "?"),
    ("encapsulation", "u2"),
    ("owner", "u8"),
])
"""A Flow Key (with the exporter's ifindex), counters since the previous report, times, fields of the first packet, and
the exporter's interface on the other side (0 if not reported), RecordBits, and how many flows the record is of
(deltaFlowCount; 0 if not reported).

`opposite`: the Observation Point is not the interface in the flow's direction, but the one on the other side.
`encapsulation`: of Kind.PARENT, octets around the inner packet of each packet.
`owner`: of the local socket at the exporter, see model/owners.py; 0: not reported."""

Collected = npt.NDArray[np.void]
"""COLLECTED_DTYPE, shape (n,)."""

_FLOW_KEY = frozenset(FLOW_KEY_DTYPE.names or ())
_INTERFACES = (("ingressInterface", "ingressPhysicalInterface"), ("egressInterface", "egressPhysicalInterface"))
_PLAIN = {"source_port": ("sourceTransportPort", "udpSourcePort", "tcpSourcePort"),
          "destination_port": ("destinationTransportPort", "udpDestinationPort", "tcpDestinationPort"),
          "protocol": ("protocolIdentifier", "nextHeaderIPv6"), "vlan_id": ("vlanId", "dot1qVlanId"),
          "customer_vlan_id": ("dot1qCustomerVlanId",), "tcp_control_bits": ("tcpControlBits",),
          "tos": ("ipClassOfService",), "ttl": ("ipTTL", "minimumTTL")}
_OURS = tuple(map(flow_templates, PROFILES.values()))
_TUNNELLED = frozenset(template for templates in _OURS for template in (
    *templates.tunnelled.values(), *biflow_templates(templates, tunnelled=True).values()))
_BASES = Bases(template for templates in _OURS
                   for template in (*templates.flows.values(), *templates.tunnelled.values()))
_FRAGMENTS = frozenset(template for templates in _OURS
                       for template in (*templates.flows.values(), *templates.tunnelled.values())
                       if shape(template.id) in (IPV4_FRAGMENT, IPV6_FRAGMENT))


_OWN = frozenset(template for templates in _OURS for template in (
    *templates.flows.values(), *templates.tunnelled.values(), *biflow_templates(templates).values(),
    *biflow_templates(templates, tunnelled=True).values()))


def is_own(template: Template) -> bool:
    """Whether it is a Template of flowtop for the flows of its own host."""
    return without_measurements(without_owners(template)) in _OWN


@dataclass(frozen=True, slots=True)
class CollectedRows:
    """Rows of the Flow Records of one Template.

    Attributes:
        rows: forward halves, then reverse halves.
        sources: index of each row's record, shape (n,).
        totals: each row's counters since its flow began, which are not in `rows`; None: there are none.
        unusable: number of records without counters, or with all counters 0, that are no events.
        events: number of records that report an event of a firewall or of NAT and no traffic, by kind.
        transport_records, layer2_records: number of records whose octets are of the transport layer, and of layer 2.
        forward: number of forward rows; the rest is reverse.
        inner: which rows are of packets that were taken out of a tunnel, shape (n,); None: none.
    """

    rows: Collected
    sources: npt.NDArray[np.intp]
    totals: Totals | None = None
    unusable: int = 0
    events: tuple[tuple[str, int], ...] = ()
    transport_records: int = 0
    layer2_records: int = 0
    forward: int = 0
    inner: Bools | None = None


def collect_rows(template: Template, records: Records, times: ExportTimes,
                 biflow_direction: int | None = None) -> CollectedRows:
    """Convert Flow Records of one Template, shape (n,), to rows.

    A flow that a firewall denied is a row without traffic.

    Args:
        biflow_direction: of records that do not have it, as Options Data say; None: they do not.
    """
    fields = RecordFields(records)
    own = _BASES.of(template) or without_measurements(template)
    forward = 0
    both_ms = record_times(fields, times)
    events = firewall_events(template, fields)
    read = [read_counters(fields, events, reverse) for reverse in (False, True)]
    if biflow_direction is None:  # as a rule, the source of a bidirectional record began the conversation
        biflow_direction = BiflowDirection.ARBITRARY if read[1] is None else BiflowDirection.INITIATOR
    halves: list[tuple[Collected, npt.NDArray[np.intp], Totals | None]] = []
    marked: dict[str, Bools] = {}
    flows = fields.integers(("deltaFlowCount",))
    for reverse, counters in zip((False, True), read, strict=True):
        if counters is None and (reverse or events is None):
            continue
        half = np.zeros(len(records), COLLECTED_DTYPE)
        if counters is None:
            used = np.zeros(len(records), np.bool_)
        else:
            half["octets"], half["packets"], used = counters.octets, counters.packets, counters.used
            for name, where in (("transport", counters.transport), ("layer2", counters.layer2)):
                if where is not None:
                    marked[name] = marked[name] | where if name in marked else where
        if events is not None and not reverse:
            used = used | (events == np.uint64(FirewallEvent.DENIED))
        half["start_ms"], half["end_ms"] = reverse_times(template, fields, times, both_ms) if reverse else both_ms
        if flows is not None:
            half["flow_count"] = np.minimum(flows, np.uint64(0xFFFF_FFFF))
        _fill(half, fields, own, reverse)
        half["record_bits"] |= began(fields, reverse, biflow_direction)
        sources = np.flatnonzero(used)
        forward = forward if reverse else len(sources)
        totals = None if counters is None or counters.totals is None else counters.totals[sources]
        halves.append((half if len(sources) == len(half) else half[sources], sources, totals))
    rows = np.concatenate([half for half, _, _ in halves]) if len(halves) > 1 else (
        halves[0][0] if halves else np.zeros(0, COLLECTED_DTYPE))
    sources = np.concatenate([indices for _, indices, _ in halves]) if halves else np.zeros(0, np.intp)
    idle = np.ones(len(records), np.bool_)
    idle[sources[(rows["octets"] > 0) | (rows["packets"] > 0)]] = False
    totals = _totals([part for _, _, part in halves], [len(half) for half, _, _ in halves])
    if totals is not None:
        idle[sources[(totals["octets"] > 0) | (totals["packets"] > 0)]] = False
    counted = _events(template, fields, events, idle)
    of_kind = {name: int(where.sum()) for name, where in marked.items()}
    return CollectedRows(rows, sources, totals, int(idle.sum()) - sum(count for _, count in counted), counted,
                         of_kind.get("transport", 0), of_kind.get("layer2", 0), forward)


def _totals(parts: list[Totals | None], counts: list[int]) -> Totals | None:
    """Totals of all halves, with zeros for a half that has none."""
    if all(part is None for part in parts):
        return None
    return np.concatenate([np.zeros(count, TOTALS_DTYPE) if part is None else part
                           for part, count in zip(parts, counts, strict=True)])


def _events(template: Template, fields: RecordFields, firewall: Integers | None,
            idle: Bools) -> tuple[tuple[str, int], ...]:
    """Number of events by kind among the records without traffic."""
    found: dict[str, int] = {}
    if not idle.any():
        return ()
    for values, kind, unknown in ((firewall, FirewallEvent, "firewall event"),
                                  (nat_events(template, fields), NatEvent, "NAT event")):
        if values is None:
            continue
        for number, count in zip(*(part.tolist() for part in np.unique(values[idle], return_counts=True)), strict=True):
            if number:
                found[event_name(kind, number) or f"{unknown} {number}"] = count
        idle = idle & (values == 0)
    return tuple(found.items())


def _fill(half: Collected, fields: RecordFields, template: Template, reverse: bool) -> None:
    """Fill the Flow Key and first-packet fields of one direction's rows."""
    for name, elements in _PLAIN.items():
        # Fields of the reverse direction's packets have reverse elements; key fields apply to both directions.
        own = [reverse_name(element) for element in elements] if reverse and name not in _FLOW_KEY else elements
        values = fields.integers(own)
        if values is not None:
            half[name] = values
    for name, elements in (("source_mac", ("sourceMacAddress",)),
                           ("destination_mac", ("destinationMacAddress", "postDestinationMacAddress"))):
        octets = fields.octets(elements, 6)
        if octets is not None:
            half[name] = octets
    half["record_bits"] = unreported(fields, reverse)
    fill_addresses(half, fields)
    header = fields.integers(("nextHeaderIPv6",))
    if header is not None and fields.has("protocolIdentifier"):
        six = (half["ip_version"] == np.uint8(IpVersion.V6)) & (half["protocol"] == np.uint8(Protocol.HOPOPT))
        half["protocol"] = np.where(six, header, half["protocol"])
    _fill_tunnel(half, fields, template)
    fill_inner(half, fields, template)
    _fill_icmp(half, fields, reverse)
    _fill_interface(half, fields)
    if template in _FRAGMENTS:
        half["kind"] = Kind.FRAGMENT
        half["record_bits"] &= ~np.uint32(RecordBits.NO_SOURCE_PORT | RecordBits.NO_DESTINATION_PORT)
    if fields.integers(_PLAIN["protocol"]) is None:
        half["protocol"] = np.where(half["kind"] == Kind.AGGREGATE, np.uint8(ANY_PROTOCOL), half["protocol"])
    if reverse:
        _turn_round(half)
        way = fields.integers((reverse_name("flowDirection"),))  # flowtop's own biflows have it
        if way is not None:
            half["direction"] = np.where(way < UNKNOWN_DIRECTION, way, UNKNOWN_DIRECTION)


def _fill_icmp(half: Collected, fields: RecordFields, reverse: bool) -> None:
    """Fill in ICMP: type * 256 + code is the destination port, as in NetFlow. Answers in a biflow may have another."""
    for protocol, version in ICMP_VERSIONS.items():
        other = IpVersion.V6 if version == IpVersion.V4 else IpVersion.V4
        which = half["protocol"] == np.uint8(protocol)
        if not which.any():
            continue
        both = fields.integers((reverse_name(f"icmpTypeCodeIPv{version}"),)) if reverse else None
        both = fields.integers((f"icmpTypeCodeIPv{version}",)) if both is None else both
        type_, code = fields.integers((f"icmpTypeIPv{version}",)), fields.integers((f"icmpCodeIPv{version}",))
        half["source_port"][which] = 0
        if both is not None:
            half["destination_port"][which] = both[which]
        elif type_ is not None and code is not None:
            half["destination_port"][which] = type_[which].astype(np.uint16) << np.uint16(8) | code[which]
        elif (both := fields.integers((f"icmpTypeCodeIPv{other}",))) is not None:
            # ICMP in IPv6 or ICMPv6 in IPv4 should not occur; if it does, the element is the IP version's.
            which &= half["ip_version"] == np.uint8(other)
            half["destination_port"][which] = both[which]


def _fill_interface(half: Collected, fields: RecordFields) -> None:
    """Fill in the Observation Point.

    It is the interface in the flow's direction, the ingress interface if the direction is not reported, or the only
    interface that is reported.
    """
    into, out = (fields.integers(names) for names in _INTERFACES)
    zeros = np.zeros(len(half), np.uint64)
    into, out = zeros if into is None else into, zeros if out is None else out
    direction = fields.integers(("flowDirection",))
    egress = np.False_ if direction is None else direction == Direction.EGRESS
    first, second = np.where(egress, out, into), np.where(egress, into, out)
    half["direction"] = (UNKNOWN_DIRECTION if direction is None
                         else np.where(direction < UNKNOWN_DIRECTION, direction, UNKNOWN_DIRECTION))
    half["ifindex"] = np.where(first != 0, first, second) & 0xFFFF_FFFF
    half["other_ifindex"] = np.where(first != 0, second, 0) & 0xFFFF_FFFF
    half["opposite"] = (first == 0) & (second != 0)


def _fill_tunnel(half: Collected, fields: RecordFields, template: Template) -> None:
    """Fill in the tunnel: from the Observation Point for Templates of flowtop, else from greKey and layer2SegmentId.

    Other exporters may use observationPointId for anything.
    """
    points = fields.integers(("observationPointId",)) if template in _TUNNELLED else None
    if points is not None:
        half["tunnel"], half["tunnel_id"] = tunnels.of_observation_points(points)
        return
    for name, reading in (("greKey", tunnels.of_gre_keys), ("layer2SegmentId", tunnels.of_layer2_segments)):
        values = fields.integers((name,))
        if values is not None:
            tunnel, id_ = reading(values)
            half["tunnel"] = np.where(tunnel != 0, tunnel, half["tunnel"])
            half["tunnel_id"] = np.where(tunnel != 0, id_, half["tunnel_id"])


def _turn_round(half: Collected) -> None:
    """Swap the ends and the direction of rows."""
    for one, other in (("source_address", "destination_address"), ("source_mac", "destination_mac")):
        half[one], half[other] = half[other].copy(), half[one].copy()
    ported = ~np.isin(half["protocol"], list(ICMP_VERSIONS))
    source, destination = half["source_port"].copy(), half["destination_port"].copy()
    half["source_port"] = np.where(ported, destination, source)
    half["destination_port"] = np.where(ported, source, destination)
    unknown = half["direction"] == UNKNOWN_DIRECTION
    half["direction"] ^= ~unknown
    half["opposite"] ^= unknown
    half["record_bits"] = turned(half["record_bits"])
