"""Flow Records of any exporter's Template as Flow Keys and counters: one numpy row per direction.

Fields that a record does not have are 0. Times become ms since 1970 UTC on the exporter's clock, from any of the dozen
time formats of the registry. A bidirectional record (RFC 5103, or initiator and responder counters) gives two rows: the
reverse row is a separate flow with its ends swapped, seen in the other direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import reverse_name
from flowtop.model.kinds import ANY_PROTOCOL, ICMP_VERSIONS, UNKNOWN_DIRECTION, Direction, IpVersion, Kind
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.wire import tunnels
from flowtop.wire.flow_templates import IPV4_FRAGMENT, IPV6_FRAGMENT, PROFILES, flow_templates, shape
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import Template
from flowtop.wire.relayed import base_of, by_fields

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
    ("opposite", "?"),
])
"""A Flow Key (with the exporter's ifindex), counters since the previous report, times, fields of the first packet, and
the exporter's interface on the other side (0 if not reported).

`opposite`: the Observation Point is not the interface in the flow's direction, but the one on the other side."""

Collected = npt.NDArray[np.void]
"""COLLECTED_DTYPE, shape (n,)."""
Integers = npt.NDArray[np.int64] | npt.NDArray[np.uint64]

_FLOW_KEY = frozenset(FLOW_KEY_DTYPE.names or ())
_NTP_EPOCH_S = 2_208_988_800
"""1970 on NTP's clock, in seconds since 1900."""
_OCTETS = ("octetDeltaCount", "octetTotalCount", "postOctetDeltaCount", "postOctetTotalCount")
_PACKETS = ("packetDeltaCount", "packetTotalCount", "postPacketDeltaCount", "postPacketTotalCount")
_ADDRESSES = {IpVersion.V4: ("sourceIPv4Address", "destinationIPv4Address"),
              IpVersion.V6: ("sourceIPv6Address", "destinationIPv6Address")}
_INTERFACES = (("ingressInterface", "ingressPhysicalInterface"), ("egressInterface", "egressPhysicalInterface"))
_PLAIN = {"source_port": ("sourceTransportPort", "udpSourcePort", "tcpSourcePort"),
          "destination_port": ("destinationTransportPort", "udpDestinationPort", "tcpDestinationPort"),
          "protocol": ("protocolIdentifier",), "vlan_id": ("vlanId", "dot1qVlanId"),
          "customer_vlan_id": ("dot1qCustomerVlanId",), "tcp_control_bits": ("tcpControlBits",),
          "tos": ("ipClassOfService",), "ttl": ("ipTTL", "minimumTTL")}
_OURS = tuple(map(flow_templates, PROFILES.values()))
_TUNNELLED = frozenset(template for templates in _OURS for template in templates.tunnelled.values())
_BASES = by_fields(template for templates in _OURS
                   for template in (*templates.flows.values(), *templates.tunnelled.values()))
_FRAGMENTS = frozenset(template for templates in _OURS
                       for template in (*templates.flows.values(), *templates.tunnelled.values())
                       if shape(template.id) in (IPV4_FRAGMENT, IPV6_FRAGMENT))


_OWN = frozenset(template for templates in _OURS for template in (*templates.flows.values(),
                                                                  *templates.tunnelled.values()))


def is_own(template: Template) -> bool:
    """Whether it is a Template of flowtop for the flows of its own host."""
    return template in _OWN


@dataclass(frozen=True, slots=True)
class ExportTimes:
    """Export time and boot time of the messages of some records: one item per record, int64, shape (n,).

    Attributes:
        export_ms: time in the message header, ms since 1970 UTC.
        boot_ms: when the exporter booted, ms since 1970 UTC; negative if unknown.
    """

    export_ms: npt.NDArray[np.int64]
    boot_ms: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CollectedRows:
    """Rows of the Flow Records of one Template.

    Attributes:
        rows: forward halves, then reverse halves.
        sources: index of each row's record, shape (n,).
        unusable: number of records without counters, or with all counters 0.
        forward: number of forward rows; the rest is reverse.
    """

    rows: Collected
    sources: npt.NDArray[np.intp]
    unusable: int
    forward: int = 0


def collect_rows(template: Template, records: Records, times: ExportTimes) -> CollectedRows:
    """Convert Flow Records of one Template, shape (n,), to rows."""
    fields = _Fields(records)
    template = base_of(template, _BASES) or template
    start_ms, end_ms = _times(fields, times)
    halves, backward = [], 0
    for reverse in (False, True):
        octets, packets = _counter(fields, _OCTETS, "Octets", reverse), _counter(fields, _PACKETS, "Packets", reverse)
        if octets is None and packets is None:
            continue
        half = np.zeros(len(records), COLLECTED_DTYPE)
        half["octets"], half["packets"] = 0 if octets is None else octets, 0 if packets is None else packets
        half["start_ms"], half["end_ms"] = start_ms, end_ms
        _fill(half, fields, template, reverse)
        sources = np.flatnonzero((half["octets"] > 0) | (half["packets"] > 0))
        halves.append((half[sources], sources))
        backward = len(sources) if reverse else 0
    if not halves:
        return CollectedRows(np.zeros(0, COLLECTED_DTYPE), np.zeros(0, np.intp), len(records))
    sources = np.concatenate([indices for _, indices in halves])
    forward = sum(len(half) for half, _ in halves) - backward
    return CollectedRows(np.concatenate([half for half, _ in halves]), sources, len(records) - len(np.unique(sources)),
                         forward)


class _Fields:
    """Columns of records by element name, for elements whose length can be read."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._names = frozenset(records.dtype.names or ())
        self.count = len(records)

    def integers(self, names: Sequence[str]) -> Integers | None:
        """The first of the elements that is present, as integers, shape (n,); also with odd lengths up to 8 octets."""
        for name in names:
            if name not in self._names:
                continue
            column = self._records[name]
            if column.dtype.kind in "ui":
                return column
            if column.dtype.kind == "V" and column.dtype.itemsize <= 8:
                return big_endian(column)
        return None

    def octets(self, names: Sequence[str], length: int) -> npt.NDArray[np.void] | None:
        """The first of the elements that is present with this length, as octets, shape (n,)."""
        for name in names:
            if name in self._names and self._records[name].dtype == np.dtype(f"V{length}"):
                return self._records[name]
        return None


def big_endian(column: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Octets in network order, up to 8 each, shape (n,), as integers."""
    length = column.dtype.itemsize
    full = np.zeros((len(column), 8), np.uint8)
    full[:, 8 - length:] = np.frombuffer(column.tobytes(), np.uint8).reshape(-1, length)
    return full.view(">u8").ravel().astype(np.uint64)


def _counter(fields: _Fields, names: Sequence[str], unit: str, reverse: bool) -> Integers | None:
    if reverse:
        return fields.integers([*map(reverse_name, names), f"responder{unit}"])
    return fields.integers([*names, f"initiator{unit}"])


def _fill(half: Collected, fields: _Fields, template: Template, reverse: bool) -> None:
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
    _fill_addresses(half, fields)
    _fill_icmp(half, fields)
    _fill_interface(half, fields)
    _fill_tunnel(half, fields, template)
    if template in _FRAGMENTS:
        half["kind"] = Kind.FRAGMENT
    if fields.integers(("protocolIdentifier",)) is None:
        half["protocol"] = np.where(half["kind"] == Kind.AGGREGATE, np.uint8(ANY_PROTOCOL), half["protocol"])
    if reverse:
        _turn_round(half)


def _fill_addresses(half: Collected, fields: _Fields) -> None:
    """Fill addresses and IP version; a record without addresses is an aggregate of many flows."""
    version_field = fields.integers(("ipVersion",))
    known = np.zeros(len(half), np.bool_)
    for version, length in ((IpVersion.V4, 4), (IpVersion.V6, 16)):
        pair = [fields.octets((name, name.replace("Address", "Prefix")), length) for name in _ADDRESSES[version]]
        if pair[0] is None and pair[1] is None:
            continue
        mine = ~known
        if version_field is not None and np.isin(version_field, list(IpVersion)).all():
            mine = version_field == int(version)
        elif version == IpVersion.V4 and fields.octets(_ADDRESSES[IpVersion.V6], 16) is not None:
            # The record has both: take the nonzero one.
            mine = np.zeros(len(half), np.bool_)
            for octets in pair:
                if octets is not None:
                    mine |= octets != np.zeros(1, "V4")[0]
        for name, octets in zip(("source_address", "destination_address"), pair, strict=True):
            if octets is not None:
                full = np.zeros(len(half), f"V{length}")
                full[mine] = octets[mine]
                half[name] = np.where(mine, full.astype("V16"), half[name])
        half["ip_version"] = np.where(mine, np.uint8(version), half["ip_version"])
        known |= mine
    if version_field is not None:
        half["ip_version"] = np.where(known, half["ip_version"], version_field & 0xFF)
    half["kind"] = np.where(known, Kind.FLOW, Kind.AGGREGATE)


def _fill_icmp(half: Collected, fields: _Fields) -> None:
    """Fill in ICMP: type * 256 + code is the destination port, as in NetFlow."""
    for protocol, version in ICMP_VERSIONS.items():
        other = IpVersion.V6 if version == IpVersion.V4 else IpVersion.V4
        which = half["protocol"] == np.uint8(protocol)
        if not which.any():
            continue
        both = fields.integers((f"icmpTypeCodeIPv{version}",))
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


def _fill_interface(half: Collected, fields: _Fields) -> None:
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


def _fill_tunnel(half: Collected, fields: _Fields, template: Template) -> None:
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


def _times(fields: _Fields, times: ExportTimes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and end of each record's flow; a missing one equals the other, or the export time if both are missing."""
    start, end = (_time(fields, word, times) for word in ("Start", "End"))
    lasted = fields.integers(("flowDurationMilliseconds",))
    if lasted is None and (us := fields.integers(("flowDurationMicroseconds",))) is not None:
        lasted = us // np.uint64(1000)
    if lasted is not None:
        length = lasted.astype(np.int64)
        if start is None and end is not None:
            start = end - length
        elif end is None and start is not None:
            end = start + length
    if start is None and end is None:
        start = _observed(fields, times)
    end = start if end is None else end
    start = end if start is None else start
    assert start is not None and end is not None
    return np.minimum(start, end), end


def _seconds(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    del times
    return values.astype(np.int64) * 1000


def _milliseconds(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    del times
    return (values & np.uint64(0x7FFF_FFFF_FFFF)).astype(np.int64)  # up to year 6429: no later overflow


def _ntp(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    del times
    stamps = values.astype(np.uint64)
    fraction = (stamps & np.uint64(0xFFFF_FFFF)) * np.uint64(1000) >> np.uint64(32)
    return ((stamps >> np.uint64(32)).astype(np.int64) - _NTP_EPOCH_S) * 1000 + fraction.astype(np.int64)


def _delta_us(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    return times.export_ms - values.astype(np.int64) // 1000


def _uptime(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    """Uptimes in ms, which wrap after 49 days; a time far after the export is one before the wrap."""
    at: npt.NDArray[np.int64] = times.boot_ms + values.astype(np.int64)
    at = np.where(at - times.export_ms > 1 << 31, at - (1 << 32), at)
    return np.where(times.boot_ms < 0, times.export_ms, at)


_Reading = Callable[[Integers, ExportTimes], npt.NDArray[np.int64]]
_STAMPS: tuple[tuple[str, _Reading], ...] = (
    ("flow{}Milliseconds", _milliseconds), ("flow{}Nanoseconds", _ntp), ("flow{}Microseconds", _ntp),
    ("flow{}Seconds", _seconds), ("flow{}DeltaMicroseconds", _delta_us), ("flow{}SysUpTime", _uptime),
)


def _time(fields: _Fields, word: str, times: ExportTimes) -> npt.NDArray[np.int64] | None:
    for name, reading in _STAMPS:
        values = fields.integers((name.format(word),))
        if values is not None:
            if reading is _uptime and (booted := fields.integers(("systemInitTimeMilliseconds",))) is not None:
                times = ExportTimes(times.export_ms, _milliseconds(booted, times))
            return reading(values, times)
    return None


def _observed(fields: _Fields, times: ExportTimes) -> npt.NDArray[np.int64]:
    """Observation time of an event, or the export time if there is none."""
    for unit, reading in (("Milliseconds", _milliseconds), ("Seconds", _seconds), ("Microseconds", _ntp)):
        values = fields.integers((f"observationTime{unit}",))
        if values is not None:
            return reading(values, times)
    return times.export_ms
