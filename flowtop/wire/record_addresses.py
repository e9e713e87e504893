"""The ends of Flow Records' flows: addresses, prefixes, or MAC addresses; of two headers, the inner one.

A record may describe both headers of packets in a tunnel, such as IPv4 in IPv6: it has addresses of both versions, or
elements that are repeated (RFC 7011 section 8: the first is of the outer header). Its flow is the inner one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import (
    DESTINATION_LENGTH_SHIFT,
    SOURCE_LENGTH_SHIFT,
    IpVersion,
    Kind,
    Protocol,
    RecordBits,
    Tunnel,
)
from flowtop.wire.ipfix_template import Template
from flowtop.wire.record_fields import Integers, RecordFields

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.void]
"""COLLECTED_DTYPE, shape (n,): written to."""

_LENGTHS = {IpVersion.V4: 4, IpVersion.V6: 16}
_ADDRESSES = {IpVersion.V4: ("sourceIPv4Address", "destinationIPv4Address"),
              IpVersion.V6: ("sourceIPv6Address", "destinationIPv6Address")}
_ENDS = ("source_address", "destination_address")
_PREFIXES = ((RecordBits.SOURCE_PREFIX, SOURCE_LENGTH_SHIFT), (RecordBits.DESTINATION_PREFIX, DESTINATION_LENGTH_SHIFT))
_CARRIERS = {IpVersion.V4: Protocol.IPIP, IpVersion.V6: Protocol.IPV6}
"""By IP version: the protocol of a header that is before one of that version."""
_ICMP = {IpVersion.V4: Protocol.ICMP, IpVersion.V6: Protocol.ICMPV6}
_TUNNELS = frozenset({Protocol.IPIP, Protocol.IPV6, Protocol.GRE, Protocol.ETHERIP, Protocol.MPLS})
_PORTS = {"source_port": ("sourceTransportPort", "udpSourcePort", "tcpSourcePort"),
          "destination_port": ("destinationTransportPort", "udpDestinationPort", "tcpDestinationPort")}
_OF_PACKETS = {"tos": "ipClassOfService", "ttl": "ipTTL", "tcp_control_bits": "tcpControlBits"}


def fill_addresses(rows: Rows, fields: RecordFields) -> None:
    """Fill addresses, IP version and kind. A record without addresses is of MAC addresses, which stand in their place
    with IP version 0, or else an aggregate of many flows."""
    version_field = fields.integers(("ipVersion",))
    known = np.zeros(len(rows), np.bool_)
    for version, length in _LENGTHS.items():
        pair = [fields.octets((name, name.replace("Address", "Prefix")), length) for name in _ADDRESSES[version]]
        if pair[0] is None and pair[1] is None:
            continue
        mine = ~known
        if version_field is not None and np.isin(version_field, list(IpVersion)).all():
            mine = version_field == int(version)
        elif version == IpVersion.V4 and _has_any(fields, IpVersion.V6):
            # The record has both: take the nonzero one.
            mine = np.zeros(len(rows), np.bool_)
            for octets in pair:
                if octets is not None:
                    mine |= octets != np.zeros(1, "V4")[0]
        for name, octets in zip(_ENDS, pair, strict=True):
            if octets is not None:
                full = np.zeros(len(rows), f"V{length}")
                full[mine] = octets[mine]
                rows[name] = np.where(mine, full.astype("V16"), rows[name])
        rows["ip_version"] = np.where(mine, np.uint8(version), rows["ip_version"])
        _fill_prefixes(rows, fields, version, mine)
        known |= mine
    if version_field is not None:
        rows["ip_version"] = np.where(known, rows["ip_version"], version_field & 0xFF)
    rows["kind"] = np.where(known, Kind.FLOW, Kind.AGGREGATE)
    _fill_macs(rows, fields, known, version_field)


def _has_any(fields: RecordFields, version: IpVersion) -> bool:
    return any(fields.octets((name, name.replace("Address", "Prefix")), _LENGTHS[version]) is not None
               for name in _ADDRESSES[version])


def _fill_prefixes(rows: Rows, fields: RecordFields, version: IpVersion, mine: Bools) -> None:
    """Note which addresses are of networks, as the Template has a prefix and no address; and their lengths."""
    for name, (bit, shift) in zip(_ADDRESSES[version], _PREFIXES, strict=True):
        prefix = name.replace("Address", "Prefix")
        if fields.has(name) or fields.octets((prefix,), _LENGTHS[version]) is None:
            continue
        bits = np.full(len(rows), bit, np.uint32)
        length = fields.integers((f"{prefix}Length",))
        if length is not None:
            value = np.minimum(length, np.uint64(8 * _LENGTHS[version]))
            # No network but the default route has length 0: there it means that the length is not known.
            some = (value > 0) | (rows[_ENDS[bit == RecordBits.DESTINATION_PREFIX]] == np.zeros(1, "V16")[0])
            bits |= np.where(some, value + np.uint64(1), 0).astype(np.uint32) << np.uint32(shift)
        rows["record_bits"] |= np.where(mine, bits, np.uint32(0))


def _fill_macs(rows: Rows, fields: RecordFields, known: Bools, version_field: Integers | None) -> None:
    """Let MAC addresses be the ends of records that have no IP addresses."""
    if not (fields.has("sourceMacAddress") or fields.has("destinationMacAddress")
            or fields.has("postDestinationMacAddress")):
        return
    empty = np.ones(len(rows), np.bool_)
    if version_field is not None:
        empty = ~(known & np.isin(version_field, list(IpVersion)))
    if not empty.any():
        return
    empty = empty & _zero(rows["source_address"]) & _zero(rows["destination_address"])
    if not empty.any():
        return
    some = (rows["source_mac"] != np.zeros(1, "V6")[0]) | (rows["destination_mac"] != np.zeros(1, "V6")[0])
    # An IP packet from 0.0.0.0 to 0.0.0.0 has a protocol.
    layer2 = some & empty & (~known | (rows["protocol"] == np.uint8(Protocol.HOPOPT)))
    if layer2.any():
        for name, mac in zip(_ENDS, ("source_mac", "destination_mac"), strict=True):
            rows[name] = np.where(layer2, rows[mac].astype("V16"), rows[name])
        rows["ip_version"] = np.where(layer2, np.uint8(0), rows["ip_version"])
        rows["kind"] = np.where(layer2, np.uint8(Kind.FLOW), rows["kind"])


def _zero(addresses: npt.NDArray[np.void]) -> Bools:
    """Which addresses of 16 octets are all zeros."""
    words = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    zero: Bools = np.equal(words[:, 0] | words[:, 1], np.uint64(0))
    return zero


class _Layer(NamedTuple):
    """One IP header that a Template describes: its version, and the names of its addresses, "" for none."""

    version: IpVersion
    names: tuple[str, str]


def _layers(template: Template) -> list[_Layer]:
    """The IP headers that the Template describes, in the order of its fields."""
    names = [name for name, _ in template.named_fields]
    found: list[tuple[int, _Layer]] = []
    for version, pair in _ADDRESSES.items():
        for count in range(1, len(names) + 1):
            own = tuple(name if count == 1 else f"{name}#{count}" for name in pair)
            places = [names.index(name) for name in own if name in names]
            if not places:
                break
            source, destination = (name if name in names else "" for name in own)
            found.append((min(places), _Layer(version, (source, destination))))
    return [layer for _, layer in sorted(found)]


def fill_inner(rows: Rows, fields: RecordFields, template: Template) -> None:
    """Replace the outer header by the inner one in records that have both; others keep what they have."""
    layers = _layers(template)
    if len(layers) < 2:
        return
    pairs = [[fields.octets((name,), _LENGTHS[layer.version]) if name else None for name in layer.names]
             for layer in layers]
    present = [_not_zero(pair, len(rows)) for pair in pairs]
    names = [name for name, _ in template.named_fields if name.partition("#")[0] in ("protocolIdentifier",
                                                                                    "nextHeaderIPv6")]
    protocols = [values for name in names if (values := fields.integers((name,))) is not None]
    wanted, carried = _evidence(protocols, len(rows))
    families = {layer.version for layer in layers}
    two = sum((part.astype(np.uint8) for part in present), np.zeros(len(rows), np.uint8)) > 1
    if len(families) == 1:  # a repeated address alone is no tunnel
        two &= carried
    if not two.any():
        return
    version = np.where(wanted > 0, wanted, rows["ip_version"] if len(families) > 1 else 0)
    inner = np.full(len(rows), -1)
    for number, (layer, there) in enumerate(zip(layers, present, strict=True)):
        inner = np.where(two & there & ((version == layer.version) | (len(families) == 1)), number, inner)
    for number, (layer, pair) in enumerate(zip(layers, pairs, strict=True)):
        mine = inner == number
        for name, octets in zip(_ENDS, pair, strict=True):
            full = np.zeros(len(rows), "V16") if octets is None else octets.astype("V16")
            rows[name] = np.where(mine, full, rows[name])
        rows["ip_version"] = np.where(mine, np.uint8(layer.version), rows["ip_version"])
    nested = inner >= 0
    _fill_inner_packets(rows, fields, template, protocols, nested)


def _not_zero(pair: list[npt.NDArray[np.void] | None], count: int) -> Bools:
    found = np.zeros(count, np.bool_)
    for octets in pair:
        if octets is not None:
            found |= octets != np.zeros(1, octets.dtype)[0]
    return found


def _evidence(protocols: list[Integers], count: int) -> tuple[npt.NDArray[np.uint8], Bools]:
    """The IP version of the inner header by the protocols of the headers, 0 if they do not tell; and which records
    have the protocol of a tunnel."""
    wanted, carried = np.zeros(count, np.uint8), np.zeros(count, np.bool_)
    for version in IpVersion:
        for values in protocols:
            wanted = np.where((values == int(_ICMP[version])) & (wanted == 0), np.uint8(version), wanted)
    for version in IpVersion:
        for values in protocols:
            wanted = np.where(values == int(_CARRIERS[version]), np.uint8(version), wanted)
    for values in protocols:
        carried |= np.isin(values, list(_TUNNELS))
    return wanted, carried


def _fill_inner_packets(rows: Rows, fields: RecordFields, template: Template, protocols: list[Integers],
                        nested: Bools) -> None:
    """Protocol, ports and the like of the inner header, and what carried it."""
    gre = np.zeros(len(rows), np.bool_)
    inner = np.zeros(len(rows), np.uint8)
    for values in protocols:
        gre |= values == int(Protocol.GRE)
        inner = np.where((values > 0) & ~np.isin(values, list(_TUNNELS)), values, inner).astype(np.uint8)
    rows["protocol"] = np.where(nested & (inner > 0), inner, rows["protocol"])
    tunnel = np.where(gre, np.uint32(Tunnel.GRE), np.uint32(Tunnel.IP))
    rows["tunnel"] = np.where(nested & (rows["tunnel"] == 0), tunnel, rows["tunnel"])
    present = [name for name, _ in template.named_fields]
    for member, elements in (*_PORTS.items(), *((member, (name,)) for member, name in _OF_PACKETS.items())):
        repeated = [name for name in present if "#" in name and name.partition("#")[0] in elements]
        for name in repeated:
            values_of = fields.integers((name,))
            if values_of is not None:
                some = nested & ((values_of > 0) | (member not in _PORTS))
                rows[member] = np.where(some, values_of, rows[member])
