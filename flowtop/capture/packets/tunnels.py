"""Tunnelled packets as what they carry: IP-in-IP, 6in4, GRE, ERSPAN, VXLAN, Geneve, MPLS over UDP (bpf/decap.h)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import FileInterface, Frames, Integers, Octets, gather
from flowtop.capture.packets.internet import NO_FRAGMENT, PARSED_IP, Packets, Places, parse
from flowtop.model.kinds import IpVersion, Kind, Protocol, Tunnel

DEEPEST = 4
"""Tunnels in tunnels that are looked into."""
FARTHEST = 0x2FFF
"""How far into the outermost frame what is looked into may begin (bpf/decap.h, CARRIED_OFFSET_MAX)."""
_V4, _V6 = np.uint8(IpVersion.V4), np.uint8(IpVersion.V6)
_VXLAN_PORTS, _GENEVE_PORT, _MPLS_PORT = (4789, 8472), 6081, 6635
_IPV4_TYPE, _IPV6_TYPE, _ETHERNET_TYPE, _MPLS_TYPES = 0x0800, 0x86DD, 0x6558, (0x8847, 0x8848)
_ERSPAN_TYPE, _ERSPAN3_TYPE = 0x88BE, 0x22EB
_LABELS_MAX = 8
_UDP_OCTETS = 8

_UDP_HEADER = np.dtype([("source_port", ">u2"), ("destination_port", ">u2"), ("length", ">u2"), ("checksum", "V2")])
_GRE_HEADER = np.dtype([("flags", ">u2"), ("type", ">u2")])
_VNI_HEADER = np.dtype([("flags", "u1"), ("more", "u1"), ("type", ">u2"), ("vni", ">u4")])
"""VXLAN (RFC 7348) and Geneve (RFC 8926) both: flags, and the VNI in the upper 24 bits of the last word."""


class Inside(enum.IntEnum):
    """What the carried octets begin with."""

    NOTHING = 0
    ETHERNET = 1
    IPV4 = 2
    IPV6 = 3


@dataclass(slots=True)
class Payload:
    """Where packets' payloads lie; one element a packet, shape (n,).

    Attributes:
        octets: the buffer.
        frame: where each frame begins in it.
        protocol: after all IP headers.
        offset: of the payload in the frame.
        end: of what was captured of the IP packet, in the frame.
    """

    octets: Octets
    frame: Integers
    protocol: Integers
    offset: Integers
    end: Integers


@dataclass(slots=True)
class Carried:
    """What is inside, shape (n,).

    Attributes:
        inside: Inside.
        tunnel: Tunnel.
        tunnel_id: GRE key, ERSPAN session, VNI or lowest MPLS label; 0 where there is none.
        offset: of the carried octets in the frame.
    """

    inside: npt.NDArray[np.uint8]
    tunnel: npt.NDArray[np.uint8]
    tunnel_id: npt.NDArray[np.uint32]
    offset: Integers

    def take(self, rows: Integers) -> Carried:
        """These rows only."""
        return Carried(self.inside[rows], self.tunnel[rows], self.tunnel_id[rows], self.offset[rows])


def carried(payload: Payload) -> Carried:
    """Look into the packets' payloads."""
    n = len(payload.frame)
    found = Carried(np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint32), payload.offset.copy())
    for protocol, inside in ((Protocol.IPIP, Inside.IPV4), (Protocol.IPV6, Inside.IPV6)):
        rows = np.flatnonzero(payload.protocol == protocol)
        found.inside[rows], found.tunnel[rows] = inside, Tunnel.IP
    rows = np.flatnonzero((payload.protocol == Protocol.GRE) & (payload.end - payload.offset >= _GRE_HEADER.itemsize))
    if len(rows):
        _gre(payload, found, rows)
    rows = np.flatnonzero((payload.protocol == Protocol.UDP) & (payload.end - payload.offset >= 2 * _UDP_OCTETS))
    if len(rows):
        _udp(payload, found, rows)
    found.inside[found.offset >= payload.end] = Inside.NOTHING
    found.tunnel[found.inside == Inside.NOTHING] = Tunnel.NONE
    return found


def _gre(payload: Payload, found: Carried, rows: Integers) -> None:
    """RFC 2784, keys and sequence numbers of RFC 2890; versions above 0 (PPTP) are left alone."""
    header = gather(payload.octets, payload.frame[rows] + payload.offset[rows], _GRE_HEADER)
    plain = header["flags"] & 0x4007 == 0  # no source routes (RFC 1701), version 0
    rows, header = rows[plain], header[plain]
    flags, type_ = header["flags"].astype(np.int64), header["type"].astype(np.int64)
    checksum, key, sequence = ((flags & bit != 0).astype(np.int64) * 4 for bit in (0x8000, 0x2000, 0x1000))
    offset = payload.offset[rows] + _GRE_HEADER.itemsize
    keyed = (key > 0) & (offset + checksum + 4 <= payload.end[rows])
    keys = gather(payload.octets, payload.frame[rows] + offset + checksum, np.dtype(">u4"))
    found.tunnel[rows] = Tunnel.GRE
    found.tunnel_id[rows[keyed]] = keys[keyed]
    found.offset[rows] = offset + checksum + key + sequence
    _by_type(payload, found, rows, type_)
    erspan = type_ == _ERSPAN_TYPE
    if erspan.any():
        _erspan(payload, found, rows[erspan], sequence[erspan] > 0, 8)
    third = type_ == _ERSPAN3_TYPE
    if third.any():
        _erspan(payload, found, rows[third], np.ones(int(third.sum()), np.bool_), 12)


def _erspan(payload: Payload, found: Carried, rows: Integers, headed: npt.NDArray[np.bool_], octets: int) -> None:
    """Type I has no header and no sequence number; II has 8 octets, III 12 and perhaps 8 more (draft-foschiano)."""
    at = payload.frame[rows] + found.offset[rows]
    whole = headed & (found.offset[rows] + octets <= payload.end[rows])
    session = gather(payload.octets, at + 2, np.dtype(">u2")) & 0x03FF
    found.tunnel[rows] = Tunnel.ERSPAN
    found.tunnel_id[rows[whole]] = session[whole]
    more = np.zeros(len(rows), np.int64)
    if octets == 12:  # the last bit says that a platform header follows
        more = (payload.octets[at + 11] & 1).astype(np.int64) * 8
    found.offset[rows] += np.where(headed, octets + more, 0)
    found.inside[rows] = np.where(headed & ~whole, Inside.NOTHING, Inside.ETHERNET)


def _udp(payload: Payload, found: Carried, rows: Integers) -> None:
    """VXLAN, Geneve and MPLS (RFC 7510) by their ports."""
    at = payload.frame[rows] + payload.offset[rows]
    ports = gather(payload.octets, at, _UDP_HEADER)["destination_port"].astype(np.int64)
    header = gather(payload.octets, at + _UDP_OCTETS, _VNI_HEADER)
    inner = payload.offset[rows] + _UDP_OCTETS + _VNI_HEADER.itemsize
    vxlan = np.isin(ports, _VXLAN_PORTS) & (header["flags"] & 0x08 != 0)
    found.tunnel[rows[vxlan]], found.inside[rows[vxlan]] = Tunnel.VXLAN, Inside.ETHERNET
    geneve = (ports == _GENEVE_PORT) & (header["flags"] >> 6 == 0)
    found.tunnel[rows[geneve]] = Tunnel.GENEVE
    for which in (vxlan, geneve):
        found.tunnel_id[rows[which]] = header["vni"][which] >> 8
        found.offset[rows[which]] = inner[which]
    found.offset[rows[geneve]] += (header["flags"][geneve] & 0x3F).astype(np.int64) * 4
    _by_type(payload, found, rows[geneve], header["type"][geneve].astype(np.int64))
    mpls = rows[ports == _MPLS_PORT]
    found.offset[mpls] = payload.offset[mpls] + _UDP_OCTETS
    _mpls(payload, found, mpls)


def _by_type(payload: Payload, found: Carried, rows: Integers, types: Integers) -> None:
    """What an EtherType says is inside."""
    for type_, inside in ((_IPV4_TYPE, Inside.IPV4), (_IPV6_TYPE, Inside.IPV6), (_ETHERNET_TYPE, Inside.ETHERNET)):
        found.inside[rows[types == type_]] = inside
    mpls = rows[np.isin(types, _MPLS_TYPES)]
    if len(mpls):
        _mpls(payload, found, mpls)


def _mpls(payload: Payload, found: Carried, rows: Integers) -> None:
    """Labels to the bottom of the stack (RFC 3032); what follows is IP by its version, else Ethernet.

    A pseudowire's control word (RFC 4385) begins with four zero bits; without one a MAC that does too cannot be told
    from it, and is taken for it, as routers do.
    """
    for _ in range(_LABELS_MAX):
        rows = rows[found.offset[rows] + 4 < payload.end[rows]]
        if not len(rows):
            return
        label = gather(payload.octets, payload.frame[rows] + found.offset[rows], np.dtype(">u4"))
        found.offset[rows] += 4
        found.tunnel[rows], found.tunnel_id[rows] = Tunnel.MPLS, label >> 12
        bottom = rows[label >> 8 & 1 == 1]
        first = payload.octets[payload.frame[bottom] + found.offset[bottom]] >> 4
        found.inside[bottom] = np.where(
            first == _V4, Inside.IPV4, np.where(first == _V6, Inside.IPV6, Inside.ETHERNET))
        found.offset[bottom[first == 0]] += 4
        rows = rows[label >> 8 & 1 == 0]

_INSIDE = (FileInterface(1), FileInterface(228), FileInterface(229))
"""Link types of what is inside, in the order of Inside, from ETHERNET on."""
_OF_THE_FRAME = ("time_ns", "frame_octets")
"""What stays the outer frame's."""
_OF_THE_POINT = ("ifindex", "direction")
"""Likewise, of the Flow Key."""


@dataclass(frozen=True, slots=True)
class Decapsulated:
    """Packets with what they carry in their place.

    Attributes:
        packets: innermost, with the tunnel in their keys; those that carry no IP packet are as they were.
        rows: which of them were carried, ascending, shape (m,).
        parents: the outermost packets of these, shape (m,), as Kind.PARENT, with the outermost tunnel in their keys.
    """

    packets: Packets
    rows: Integers
    parents: Packets


@dataclass(slots=True)
class _Layer:
    """Packets of one depth.

    Attributes:
        rows: which of all packets they are in.
        usable: whole IP packets that may carry another.
        begin: where in the buffer the outermost frame begins.
    """

    rows: Integers
    frames: Frames
    packets: Packets
    places: Places
    usable: npt.NDArray[np.bool_]
    begin: Integers


def decapsulate(frames: Frames) -> Decapsulated:
    """Parse frames, and what is inside them as far as it is IP."""
    n = len(frames.offset)
    places = Places.blank(n)
    found = parse(frames, places)
    around = _Layer(np.arange(n), frames, found, places, found.outcome == PARSED_IP, frames.offset)
    rows, parents = np.zeros(0, np.int64), None
    for _ in range(DEEPEST):
        inside = _look_inside(around)
        if inside is None:
            break
        layer, content = inside
        if parents is None:
            rows = layer.rows[layer.usable]
            parents = found.take(rows)
            _name_tunnel(parents, np.arange(len(rows)), content, layer.usable)
            parents.keys["kind"] = Kind.PARENT
        _replace(found, layer)
        _name_tunnel(found, layer.rows[layer.usable], content, layer.usable)
        around = layer
    return Decapsulated(found, rows, found.take(rows) if parents is None else parents)


def _look_inside(around: _Layer) -> tuple[_Layer, Carried] | None:
    """What these packets carry, one level deep; None: nothing."""
    may = around.usable & (around.places.transport > 0) & (around.packets.fragment == NO_FRAGMENT)
    more = np.flatnonzero(may)
    protocol = around.packets.keys["protocol"][more].astype(np.int64)
    content = carried(Payload(around.frames.octets, around.frames.offset[more], protocol,
                              around.places.transport[more], around.places.end[more]))
    deep = around.frames.offset[more] - around.begin[more] + content.offset
    some = np.flatnonzero((content.inside != Inside.NOTHING) & (deep <= FARTHEST))
    if not len(some):
        return None
    content, more = content.take(some), more[some]
    frames = _frames_inside(around, more, content)
    places = Places.blank(len(more))
    packets = parse(frames, places)
    begin = around.begin[more]
    usable = ((packets.outcome == PARSED_IP) & (packets.octets <= frames.wire - places.ip)
              & (frames.offset - begin + places.ip <= FARTHEST))
    return _Layer(around.rows[more], frames, packets, places, usable, begin), content


def _frames_inside(around: _Layer, rows: Integers, content: Carried) -> Frames:
    """The carried octets as frames: as long on the wire as the IP packet around them says."""
    frames, places = around.frames, around.places
    return Frames(
        octets=frames.octets,
        offset=frames.offset[rows] + content.offset,
        captured=places.end[rows] - content.offset,
        wire=places.ip[rows] + around.packets.octets[rows] - content.offset,
        time_ns=frames.time_ns[rows],
        interface=content.inside.astype(np.int64) - Inside.ETHERNET,
        egress=frames.egress[rows],
        interfaces=_INSIDE)


def _replace(packets: Packets, layer: _Layer) -> None:
    """What was parsed inside takes the outer packets' place; interface and direction stay."""
    rows, usable = layer.rows[layer.usable], layer.usable
    keys = layer.packets.keys[usable]
    for name in _OF_THE_POINT:
        keys[name] = packets.keys[name][rows]
    packets.keys[rows] = keys
    for field in fields(Packets):
        if field.name not in (*_OF_THE_FRAME, "keys"):
            getattr(packets, field.name)[rows] = getattr(layer.packets, field.name)[usable]


def _name_tunnel(packets: Packets, rows: Integers, content: Carried, usable: npt.NDArray[np.bool_]) -> None:
    packets.keys["tunnel"][rows] = content.tunnel[usable]
    packets.keys["tunnel_id"][rows] = content.tunnel_id[usable]
