"""Frames → Flow Keys and counters: the same as bpf/parse.h, for many frames at once.

Lengths are those of the headers, even if not all of the frame was captured, but not larger than the frame on the wire.
Impossible headers are malformed. An IPv4 length of 0 means the frame's length: captures have it for large buffers that
the network card segments.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.headers import ARP, ETHERTYPE_MINIMUM, IPV4, IPV6
from flowtop.capture.packets.link import Link
from flowtop.capture.packets.link_types import read_link
from flowtop.model.kinds import (
    ICMP_ECHO,
    IGNORED_KINDS,
    PORT_PROTOCOLS,
    TCP_CONTROL_BITS,
    Direction,
    IpVersion,
    Protocol,
    TcpBits,
)
from flowtop.model.record import FLOW_KEY_DTYPE, with_opening

PARSED_IP = -1
"""`Packets.outcome` of packets with a Flow Key; other values are indexes into IGNORED_KINDS."""
NO_FRAGMENT, FIRST_FRAGMENT, LATER_FRAGMENT = range(3)

_ARP, _LLC, _OTHER, _MALFORMED = (IGNORED_KINDS.index(kind) for kind in ("arp", "llc", "other", "malformed"))
_EXTENSIONS_MAX = 10
_V4, _V6 = np.uint8(IpVersion.V4), np.uint8(IpVersion.V6)
_FIN, _SYN = int(TcpBits.FIN), int(TcpBits.SYN)
_TCP, _ICMP, _ICMPV6, _FRAGMENT, _AH = (np.uint8(protocol) for protocol in (
    Protocol.TCP, Protocol.ICMP, Protocol.ICMPV6, Protocol.IPV6_FRAGMENT, Protocol.AH))
_WITH_PORTS = np.zeros(256, np.bool_)
_WITH_PORTS[list(PORT_PROTOCOLS)] = True
_EXTENSION = np.zeros(256, np.bool_)
_EXTENSION[[Protocol.HOPOPT, Protocol.IPV6_ROUTE, Protocol.IPV6_FRAGMENT, Protocol.AH, Protocol.IPV6_OPTIONS,
            Protocol.MOBILITY, Protocol.HIP, Protocol.SHIM6]] = True

_IPV4_HEADER = np.dtype([
    ("version_ihl", "u1"), ("tos", "u1"), ("total_length", ">u2"), ("id", "<u2"), ("fragment", ">u2"), ("ttl", "u1"),
    ("protocol", "u1"), ("checksum", "V2"), ("source", "V4"), ("destination", "V4")])
_IPV6_HEADER = np.dtype([
    ("version_class", ">u2"), ("label", "V2"), ("payload_length", ">u2"), ("next_header", "u1"), ("hop_limit", "u1"),
    ("source", "V16"), ("destination", "V16")])
_JUMBO = np.dtype([("header", "V2"), ("option", ">u2"), ("length", ">u4")])
_JUMBO_OPTION, _JUMBO_MINIMUM = 0xC204, 65_536
"""Type and length of the option; its smallest value: shorter packets have a payload length."""
_EXTENSION_HEADER = np.dtype([("next_header", "u1"), ("length", "u1"), ("fragment", ">u2"), ("id", "<u4")])
_TRANSPORT = np.dtype([("source_port", ">u2"), ("destination_port", ">u2"), ("sequence", ">u4"),
                       ("acknowledgement", "V4"), ("bits", ">u2"), ("window", "V2")])
_ECHO_OCTETS = 8
"""Of an ICMP header with identifier and sequence number."""
_ECHO = np.zeros((256, 256), np.bool_)
for _protocol, _types in ICMP_ECHO.items():
    _ECHO[_protocol, _types] = True
_TCP_CONTROL_BITS = np.uint16(TCP_CONTROL_BITS)
_IPV4_KEY: np.dtype[Any] = np.dtype({"names": ["source", "destination"], "formats": ["V4", "V4"], "offsets": [0, 16],
                                     "itemsize": FLOW_KEY_DTYPE.itemsize})

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Packets:
    """Parsed frames in the file's order; one element per frame, shape (n,).

    Attributes:
        keys: FLOW_KEY_DTYPE; of ignored frames, only ifindex and direction are valid.
        outcome: PARSED_IP, or an index into IGNORED_KINDS.
        lying: the length in the IP header is larger than what was on the wire, which is what `octets` says.
        octets: IP octets; of ignored frames, those above the link header.
        frame_octets: octets of the whole frame.
        time_ns: since 1970 UTC, from the file.
        tcp_bits, tos, ttl, source_mac, destination_mac: as in FLOW_RECORD_DTYPE.
        fragment: NO_FRAGMENT, FIRST_FRAGMENT or LATER_FRAGMENT.
        fragment_id: identifies the fragmented packet, together with addresses, version and fragment_protocol.
        fragment_protocol: IPv4's protocol. 0 for IPv6, where it may differ between fragments of one packet.
        sequence: TCP sequence number; of an ICMP echo, its identifier and sequence number.
        echo: whether it is an ICMP echo request or reply.
        segment_octets: sequence numbers used by a complete TCP segment; 0 if it uses none, or if unknown.
    """

    keys: npt.NDArray[np.void]
    outcome: npt.NDArray[np.int8]
    lying: npt.NDArray[np.bool_]
    octets: Integers
    frame_octets: Integers
    time_ns: Integers
    tcp_bits: npt.NDArray[np.uint16]
    tos: npt.NDArray[np.uint8]
    ttl: npt.NDArray[np.uint8]
    source_mac: npt.NDArray[np.void]
    destination_mac: npt.NDArray[np.void]
    fragment: npt.NDArray[np.uint8]
    fragment_id: npt.NDArray[np.uint32]
    fragment_protocol: npt.NDArray[np.uint8]
    sequence: npt.NDArray[np.uint32]
    segment_octets: Integers
    echo: Bools

    def take(self, rows: Integers) -> Packets:
        """Copy these rows."""
        return Packets(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(slots=True)
class Places:
    """Positions of packets, in octets from the start of their frames; shape (n,).

    Attributes:
        ip: the IP header.
        transport: the transport header; 0 if there is none.
        end: end of the captured IP packet, if there is a transport header.
    """

    ip: Integers
    transport: Integers
    end: Integers

    @classmethod
    def blank(cls, n: int) -> Places:
        """Positions of 0 for `n` packets."""
        return cls(*(np.zeros(n, np.int64) for _ in range(3)))


@dataclass(slots=True)
class _Cursor:
    """Positions of the transport headers of the packets `rows`.

    Attributes:
        offset: position in the frame.
        end: end of the IP packet, or of its captured part.
    """

    rows: Integers
    offset: Integers
    end: Integers


def parse(frames: Frames, places: Places | None = None, *, tunnels: bool = False) -> Packets:
    """Parse frames. Fragments are not joined; `fragments.FragmentJoiner` does that.

    Args:
        places: filled in if given.
        tunnels: MPLS labels and PPPoE sessions of the link layer are part of the keys.
    """
    n = len(frames.offset)
    link = read_link(frames)
    packets = Packets(
        keys=np.zeros(n, FLOW_KEY_DTYPE),
        outcome=_outcome_of_type(link.type),
        lying=np.zeros(n, np.bool_),
        octets=np.maximum(frames.wire - link.ip_offset, 0),
        frame_octets=frames.wire if frames.ordinal is None else np.where(frames.ordinal > 0, 0, frames.wire),
        time_ns=frames.time_ns,
        tcp_bits=np.zeros(n, np.uint16), tos=np.zeros(n, np.uint8), ttl=np.zeros(n, np.uint8),
        source_mac=link.source_mac, destination_mac=link.destination_mac,
        fragment=np.zeros(n, np.uint8), fragment_id=np.zeros(n, np.uint32), fragment_protocol=np.zeros(n, np.uint8),
        sequence=np.zeros(n, np.uint32), segment_octets=np.zeros(n, np.int64), echo=np.zeros(n, np.bool_))
    if places is not None:
        places.ip = link.ip_offset
    packets.keys["ifindex"] = frames.interface + 1
    packets.keys["vlan_id"] = link.vlan_id
    packets.keys["customer_vlan_id"] = link.customer_vlan_id
    if tunnels:
        packets.keys["tunnel"], packets.keys["tunnel_id"] = link.tunnel, link.tunnel_id
    packets.keys["direction"][frames.egress | link.egress] = Direction.EGRESS
    for version, parse_ip in ((IPV4, _parse_ipv4), (IPV6, _parse_ipv6)):
        rows = np.flatnonzero(link.type == version)
        if len(rows):
            cursor = parse_ip(frames, link, packets, rows)
            if places is not None:
                places.transport[cursor.rows], places.end[cursor.rows] = cursor.offset, cursor.end
            _parse_transport(frames, link, packets, cursor)
    return packets


def _outcome_of_type(types: Integers) -> npt.NDArray[np.int8]:
    """The outcome for each EtherType, before IP headers are parsed."""
    outcome = np.full(len(types), PARSED_IP, np.int8)
    strange = (types != IPV4) & (types != IPV6)
    if strange.any():
        outcome[strange] = _OTHER
        outcome[types == ARP] = _ARP
        outcome[types < ETHERTYPE_MINIMUM] = _LLC
    return outcome


def _parse_ipv4(frames: Frames, link: Link, packets: Packets, rows: Integers) -> _Cursor:
    ip_offset = link.ip_offset[rows]
    header = gather(frames.octets, frames.offset[rows] + ip_offset, _IPV4_HEADER)
    header_octets = (header["version_ihl"] & 15).astype(np.int64) * 4
    octets = header["total_length"].astype(np.int64)
    available = frames.wire[rows] - ip_offset
    octets = np.where(octets == 0, available, octets)
    lying = octets > available
    if lying.any():
        octets = np.minimum(octets, available)
        packets.lying[rows] = lying
    good = ((header["version_ihl"] >> 4 == _V4) & (header_octets >= _IPV4_HEADER.itemsize) & (octets >= header_octets)
            & (frames.captured[rows] >= ip_offset + _IPV4_HEADER.itemsize))
    if not good.all():
        packets.outcome[rows[~good]] = _MALFORMED
        packets.lying[rows[~good]] = False
        rows, ip_offset, header, header_octets, octets = (
            part[good] for part in (rows, ip_offset, header, header_octets, octets))
    addresses = packets.keys.view(_IPV4_KEY)
    addresses["source"][rows] = header["source"]
    addresses["destination"][rows] = header["destination"]
    _note_header(packets, rows, _V4, header["protocol"], header["tos"], header["ttl"], octets)
    fragment = header["fragment"]
    later = fragment & 0x1FFF != 0
    if (fragment & 0x3FFF).any():
        packets.fragment[rows] = np.where(later, LATER_FRAGMENT, np.where(fragment & 0x2000, FIRST_FRAGMENT, 0))
        packets.fragment_id[rows] = header["id"]
        packets.fragment_protocol[rows] = header["protocol"]
    cursor = _Cursor(rows, ip_offset + header_octets, np.minimum(ip_offset + octets, frames.captured[rows]))
    return _chosen(cursor, ~later) if later.any() else cursor


def _parse_ipv6(frames: Frames, link: Link, packets: Packets, rows: Integers) -> _Cursor:
    ip_offset = link.ip_offset[rows]
    header = gather(frames.octets, frames.offset[rows] + ip_offset, _IPV6_HEADER)
    octets = header["payload_length"].astype(np.int64) + _IPV6_HEADER.itemsize
    available = frames.wire[rows] - ip_offset
    jumbo = (header["payload_length"] == 0) & (header["next_header"] == np.uint8(Protocol.HOPOPT))
    if jumbo.any():
        octets[jumbo] = _jumbo_octets(frames, rows[jumbo], ip_offset[jumbo] + _IPV6_HEADER.itemsize, available[jumbo])
    lying = octets > available
    if lying.any():
        octets = np.minimum(octets, available)
        packets.lying[rows] = lying
    good = (header["version_class"] >> 12 == _V6) & (frames.captured[rows] >= ip_offset + _IPV6_HEADER.itemsize)
    if not good.all():
        packets.outcome[rows[~good]] = _MALFORMED
        packets.lying[rows[~good]] = False
        rows, ip_offset, header, octets = (part[good] for part in (rows, ip_offset, header, octets))
    packets.keys["source_address"][rows] = header["source"]
    packets.keys["destination_address"][rows] = header["destination"]
    tos = (header["version_class"] >> 4 & 0xFF).astype(np.uint8)
    _note_header(packets, rows, _V6, header["next_header"], tos, header["hop_limit"], octets)
    cursor = _Cursor(rows, ip_offset + _IPV6_HEADER.itemsize, ip_offset + octets)
    return _skip_extensions(frames, packets, cursor)


def _jumbo_octets(frames: Frames, rows: Integers, at: Integers, available: Integers) -> Integers:
    """Octets of packets that say no length, but have a Hop-by-Hop header at the offsets `at`.

    Those of its jumbo option (RFC 2675), which all writers put first; else those available.
    """
    there = at + _JUMBO.itemsize <= frames.captured[rows]
    jumbo = gather(frames.octets, frames.offset[rows] + np.where(there, at, 0), _JUMBO)
    octets = jumbo["length"].astype(np.int64)
    good = there & (jumbo["option"] == _JUMBO_OPTION) & (octets >= _JUMBO_MINIMUM)
    return np.where(good, octets + _IPV6_HEADER.itemsize, available)


def _note_header(packets: Packets, rows: Integers, version: np.uint8, protocol: npt.NDArray[np.uint8],
                 tos: npt.NDArray[np.uint8], ttl: npt.NDArray[np.uint8], octets: Integers) -> None:
    packets.keys["ip_version"][rows] = version
    packets.keys["protocol"][rows] = protocol
    packets.tos[rows] = tos
    packets.ttl[rows] = ttl
    packets.octets[rows] = octets


def _skip_extensions(frames: Frames, packets: Packets, start: _Cursor) -> _Cursor:
    """Walk IPv6 extension headers.

    Packets without a transport header in this frame are removed; their protocol is the last header type that could be
    read.
    """
    protocol = packets.keys["protocol"]
    start.end = np.minimum(start.end, frames.captured[start.rows])
    more = _EXTENSION[protocol[start.rows]]
    if not more.any():
        return start
    arrived, walking = [_chosen(start, ~more)], _chosen(start, more)
    for last in (False,) * (_EXTENSIONS_MAX - 1) + (True,):
        walking = _chosen(walking, walking.offset + _EXTENSION_HEADER.itemsize <= walking.end)
        header = gather(frames.octets, frames.offset[walking.rows] + walking.offset, _EXTENSION_HEADER)
        kind = protocol[walking.rows]
        fragments = kind == _FRAGMENT
        _note_fragments(packets, walking.rows[fragments], header[fragments])
        length = header["length"].astype(np.int64)
        octets = np.where(fragments, 8, np.where(kind == _AH, (length + 2) * 4, (length + 1) * 8))
        fits = walking.offset + octets <= walking.end
        protocol[walking.rows[fits]] = header["next_header"][fits]
        walking.offset = walking.offset + octets
        walking = _chosen(walking, fits & (packets.fragment[walking.rows] != LATER_FRAGMENT))
        more = _EXTENSION[protocol[walking.rows]]
        if last or not len(walking.rows):
            break
        arrived.append(_chosen(walking, ~more))
        walking = _chosen(walking, more)
    return _Cursor(*(np.concatenate([getattr(part, name) for part in arrived]) for name in _Cursor.__slots__))


def _note_fragments(packets: Packets, rows: Integers, header: npt.NDArray[np.void]) -> None:
    """Read fragment headers; an atomic fragment (RFC 6946) is a whole packet."""
    part = header["fragment"] & 0xFFF9 != 0
    rows, header = rows[part], header[part]
    packets.fragment_id[rows] = header["id"]
    packets.fragment[rows] = np.where(header["fragment"] & 0xFFF8, LATER_FRAGMENT, FIRST_FRAGMENT)


def _parse_transport(frames: Frames, link: Link, packets: Packets, at: _Cursor) -> None:
    """Read ports, ICMP type and code, and TCP fields."""
    header = gather(frames.octets, frames.offset[at.rows] + at.offset, _TRANSPORT)
    room = at.end - at.offset
    protocol = packets.keys["protocol"][at.rows]
    ported = _WITH_PORTS[protocol] & (room >= 4)
    icmp = ((protocol == _ICMP) | (protocol == _ICMPV6)) & (room >= 2)
    packets.keys["source_port"][at.rows] = np.where(ported, header["source_port"], 0)
    packets.keys["destination_port"][at.rows] = np.where(
        ported, header["destination_port"], np.where(icmp, header["source_port"], 0))  # ICMP: type and code
    if icmp.any():
        some = np.flatnonzero(icmp & (room >= _ECHO_OCTETS) & _ECHO[protocol, header["source_port"] >> 8])
        packets.echo[at.rows[some]] = True
        packets.sequence[at.rows[some]] = header["sequence"][some]
    tcp = (protocol == _TCP) & (room >= _TRANSPORT.itemsize)
    packets.tcp_bits[at.rows] = np.where(
        tcp, with_opening(header["bits"].astype(np.uint16) & _TCP_CONTROL_BITS), 0)
    whole = np.flatnonzero(tcp & (packets.fragment[at.rows] == NO_FRAGMENT))
    if len(whole):
        rows = at.rows[whole]
        _note_segments(packets, rows, header[whole], link.ip_offset[rows] + packets.octets[rows] - at.offset[whole])


def _note_segments(packets: Packets, rows: Integers, header: npt.NDArray[Any], octets: Integers) -> None:
    """Read sequence numbers of TCP segments; `octets` includes the TCP header."""
    bits = header["bits"].astype(np.int64)
    header_octets = (bits >> 12) * 4
    good = (header_octets >= _TRANSPORT.itemsize) & (octets >= header_octets)
    packets.sequence[rows] = header["sequence"]
    packets.segment_octets[rows] = np.where(good, octets - header_octets + (bits & _FIN > 0) + (bits & _SYN > 0), 0)


def _chosen(cursor: _Cursor, which: Bools) -> _Cursor:
    return _Cursor(cursor.rows[which], cursor.offset[which], cursor.end[which])
