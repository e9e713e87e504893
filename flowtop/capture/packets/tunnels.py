"""Packets inside tunnels: IP-in-IP, 6in4, GRE, ERSPAN, VXLAN, Geneve, MPLS over UDP (bpf/decap.h).

MPLS and PPPoE of the link itself are read by headers.py, with and without decapsulation; here they get a name.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import FileInterface, Frames, Integers, Octets, gather
from flowtop.capture.packets.headers import (
    CONTROL_WORD,
    ETHERNET,
    IPV4,
    IPV6,
    LABELS_MAX,
    LEADING_TO_IP,
    MPLS,
    MPLS_MULTICAST,
    behind_labels,
)
from flowtop.capture.packets.internet import NO_FRAGMENT, PARSED_IP, Packets, Places, parse
from flowtop.model.kinds import Kind, Protocol, Tunnel
from flowtop.model.tunnel_ports import STANDARD_PORTS, TunnelPorts

DEEPEST = 4
"""Maximum number of nested tunnels."""
FARTHEST = 0x2FFF
"""Maximum offset of an inner packet in the outermost frame (CARRIED_OFFSET_MAX in bpf/decap.h)."""
_ETHERNET_TYPE, _MPLS_TYPES = 0x6558, (MPLS, MPLS_MULTICAST)
_ERSPAN_TYPE, _ERSPAN3_TYPE = 0x88BE, 0x22EB
_UDP_OCTETS = 8
_CONTROL_WORD_OCTETS, _ETHERNET_OCTETS = 4, 14

_UDP_HEADER = np.dtype([("source_port", ">u2"), ("destination_port", ">u2"), ("length", ">u2"), ("checksum", "V2")])
_GRE_HEADER = np.dtype([("flags", ">u2"), ("type", ">u2")])
_VNI_HEADER = np.dtype([("flags", "u1"), ("more", "u1"), ("type", ">u2"), ("vni", ">u4")])
"""Common to VXLAN (RFC 7348) and Geneve (RFC 8926): flags, and the VNI in the upper 24 bits of the last word."""


class Inside(enum.IntEnum):
    """Type of the outermost header inside the tunnel."""

    NOTHING = 0
    ETHERNET = 1
    IPV4 = 2
    IPV6 = 3


@dataclass(slots=True)
class Payload:
    """Positions of packets' payloads; one element per packet, shape (n,).

    Attributes:
        octets: the buffer.
        frame: start of each frame in it.
        protocol: protocol after all IP headers.
        offset: position of the payload in the frame.
        end: end of the captured IP packet in the frame.
    """

    octets: Octets
    frame: Integers
    protocol: Integers
    offset: Integers
    end: Integers


@dataclass(slots=True)
class Carried:
    """Content of tunnels, shape (n,).

    Attributes:
        inside: a value of Inside.
        tunnel: a value of Tunnel.
        tunnel_id: GRE key, ERSPAN session, VNI or lowest MPLS label; 0 if there is none.
        offset: position of the content in the frame.
    """

    inside: npt.NDArray[np.uint8]
    tunnel: npt.NDArray[np.uint8]
    tunnel_id: npt.NDArray[np.uint32]
    offset: Integers

    def take(self, rows: Integers) -> Carried:
        """Copy these rows."""
        return Carried(self.inside[rows], self.tunnel[rows], self.tunnel_id[rows], self.offset[rows])


def carried(payload: Payload, ports: TunnelPorts) -> Carried:
    """Detect tunnels in the packets' payloads; `ports`: in addition to the standard ones."""
    n = len(payload.frame)
    content = Carried(np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint32), payload.offset.copy())
    for protocol, inside in ((Protocol.IPIP, Inside.IPV4), (Protocol.IPV6, Inside.IPV6)):
        rows = np.flatnonzero(payload.protocol == protocol)
        content.inside[rows], content.tunnel[rows] = inside, Tunnel.IP
    rows = np.flatnonzero((payload.protocol == Protocol.GRE) & (payload.end - payload.offset >= _GRE_HEADER.itemsize))
    if len(rows):
        _gre(payload, content, rows)
    rows = np.flatnonzero((payload.protocol == Protocol.UDP) & (payload.end - payload.offset >= 2 * _UDP_OCTETS))
    if len(rows):
        _udp(payload, content, rows, {**STANDARD_PORTS, **ports})
    content.inside[content.offset >= payload.end] = Inside.NOTHING
    content.tunnel[content.inside == Inside.NOTHING] = Tunnel.NONE
    return content


def _gre(payload: Payload, content: Carried, rows: Integers) -> None:
    """GRE (RFC 2784) with keys and sequence numbers (RFC 2890); versions above 0 (PPTP) are not decapsulated."""
    header = gather(payload.octets, payload.frame[rows] + payload.offset[rows], _GRE_HEADER)
    plain = header["flags"] & 0x4007 == 0  # no source routes (RFC 1701), version 0
    rows, header = rows[plain], header[plain]
    flags, type_ = header["flags"].astype(np.int64), header["type"].astype(np.int64)
    checksum, key, sequence = ((flags & bit != 0).astype(np.int64) * 4 for bit in (0x8000, 0x2000, 0x1000))
    offset = payload.offset[rows] + _GRE_HEADER.itemsize
    keyed = (key > 0) & (offset + checksum + 4 <= payload.end[rows])
    keys = gather(payload.octets, payload.frame[rows] + offset + checksum, np.dtype(">u4"))
    content.tunnel[rows] = Tunnel.GRE
    content.tunnel_id[rows[keyed]] = keys[keyed]
    content.offset[rows] = offset + checksum + key + sequence
    _by_type(payload, content, rows, type_)
    erspan = type_ == _ERSPAN_TYPE
    if erspan.any():
        _erspan(payload, content, rows[erspan], sequence[erspan] > 0, 8)
    third = type_ == _ERSPAN3_TYPE
    if third.any():
        _erspan(payload, content, rows[third], np.ones(int(third.sum()), np.bool_), 12)


def _erspan(payload: Payload, content: Carried, rows: Integers, headed: npt.NDArray[np.bool_], octets: int) -> None:
    """ERSPAN: type I has no header and no sequence number; II has 8 octets, III 12 or 20 (draft-foschiano)."""
    at = payload.frame[rows] + content.offset[rows]
    whole = headed & (content.offset[rows] + octets <= payload.end[rows])
    session = gather(payload.octets, at + 2, np.dtype(">u2")) & 0x03FF
    content.tunnel[rows] = Tunnel.ERSPAN
    content.tunnel_id[rows[whole]] = session[whole]
    more = np.zeros(len(rows), np.int64)
    if octets == 12:  # the last bit is set if a platform header follows
        more = (payload.octets[at + 11] & 1).astype(np.int64) * 8
    content.offset[rows] += np.where(headed, octets + more, 0)
    content.inside[rows] = np.where(headed & ~whole, Inside.NOTHING, Inside.ETHERNET)


def _udp(payload: Payload, content: Carried, rows: Integers, tunnels: TunnelPorts) -> None:
    """VXLAN, Geneve and MPLS (RFC 7510), by port."""
    at = payload.frame[rows] + payload.offset[rows]
    ports = gather(payload.octets, at, _UDP_HEADER)["destination_port"].astype(np.int64)
    used = [port for port in tunnels if (ports == port).any()]
    if not used:
        return
    kinds = np.zeros(len(rows), np.uint8)
    for port in used:
        kinds[ports == port] = tunnels[port]
    header = gather(payload.octets, at + _UDP_OCTETS, _VNI_HEADER)
    inner = payload.offset[rows] + _UDP_OCTETS + _VNI_HEADER.itemsize
    vxlan = (kinds == Tunnel.VXLAN) & (header["flags"] & 0x08 != 0)
    content.tunnel[rows[vxlan]], content.inside[rows[vxlan]] = Tunnel.VXLAN, Inside.ETHERNET
    geneve = (kinds == Tunnel.GENEVE) & (header["flags"] >> 6 == 0)
    content.tunnel[rows[geneve]] = Tunnel.GENEVE
    for which in (vxlan, geneve):
        content.tunnel_id[rows[which]] = header["vni"][which] >> 8
        content.offset[rows[which]] = inner[which]
    content.offset[rows[geneve]] += (header["flags"][geneve] & 0x3F).astype(np.int64) * 4
    _by_type(payload, content, rows[geneve], header["type"][geneve].astype(np.int64))
    mpls = rows[kinds == Tunnel.MPLS]
    content.offset[mpls] = payload.offset[mpls] + _UDP_OCTETS
    _mpls(payload, content, mpls)


def _by_type(payload: Payload, content: Carried, rows: Integers, types: Integers) -> None:
    """Set the content's type by EtherType."""
    for type_, inside in ((IPV4, Inside.IPV4), (IPV6, Inside.IPV6), (_ETHERNET_TYPE, Inside.ETHERNET)):
        content.inside[rows[types == type_]] = inside
    mpls = rows[np.isin(types, _MPLS_TYPES)]
    if len(mpls):
        _mpls(payload, content, mpls)


def _mpls(payload: Payload, content: Carried, rows: Integers) -> None:
    """Walk labels to the bottom of the stack (RFC 3032); what follows is as in headers.behind_labels.

    Ethernet is behind a control word, or none, by the EtherType that then is one.
    """
    for _ in range(LABELS_MAX):
        rows = rows[content.offset[rows] + 4 < payload.end[rows]]
        if not len(rows):
            return
        label = gather(payload.octets, payload.frame[rows] + content.offset[rows], np.dtype(">u4"))
        content.offset[rows] += 4
        content.tunnel[rows], content.tunnel_id[rows] = Tunnel.MPLS, label >> 12
        bottom = rows[label >> 8 & 1 == 1]
        at, offset = payload.frame[bottom] + content.offset[bottom], content.offset[bottom]
        types = behind_labels(payload.octets, at)
        for type_, inside in ((IPV4, Inside.IPV4), (IPV6, Inside.IPV6), (ETHERNET, Inside.ETHERNET)):
            content.inside[bottom[types == type_]] = inside
        following = _CONTROL_WORD_OCTETS + _ETHERNET_OCTETS
        word = bottom[(types == CONTROL_WORD) & (offset + following <= payload.end[bottom])]
        content.inside[word] = Inside.ETHERNET
        place = payload.frame[word] + content.offset[word] + following - 2
        there = np.isin(gather(payload.octets, place, np.dtype(">u2")), LEADING_TO_IP)
        content.offset[word[there]] += _CONTROL_WORD_OCTETS
        rows = rows[label >> 8 & 1 == 0]


_INSIDE = (FileInterface(1), FileInterface(228), FileInterface(229))
"""Link types of the content, in the order of Inside, from ETHERNET on."""
_OF_THE_FRAME = ("time_ns", "frame_octets", "lying")
"""Fields that keep the outer frame's values."""
_OF_THE_POINT = ("ifindex", "direction")
"""Fields of the Flow Key that keep the outer frame's values."""


@dataclass(frozen=True, slots=True)
class Decapsulated:
    """Packets, with inner packets in place of the outer ones.

    Attributes:
        packets: innermost packets, with the tunnel in their keys; packets without an inner IP packet are unchanged.
        rows: indexes of the replaced packets, ascending, shape (m,).
        parents: their outermost packets, shape (m,), as Kind.PARENT, with the outermost tunnel in their keys.
        transport_octets: of each of `packets`, captured octets from the transport header on, shape (n,).
        ip_at, transport_at: where their IP and transport headers are in the buffer, shape (n,).
    """

    packets: Packets
    rows: Integers
    parents: Packets
    transport_octets: Integers
    ip_at: Integers
    transport_at: Integers


@dataclass(slots=True)
class _Layer:
    """Packets at one depth.

    Attributes:
        rows: indexes into all packets.
        usable: complete IP packets that may contain another.
        begin: start of the outermost frame in the buffer.
    """

    rows: Integers
    frames: Frames
    packets: Packets
    places: Places
    usable: npt.NDArray[np.bool_]
    begin: Integers


def decapsulate(frames: Frames, ports: TunnelPorts | None = None) -> Decapsulated:
    """Parse frames, and the IP packets inside them; `ports`: of tunnels, in addition to the standard ones."""
    n = len(frames.offset)
    places = Places.blank(n)
    packets = parse(frames, places, tunnels=True)
    around = _Layer(np.arange(n), frames, packets, places, packets.outcome == PARSED_IP, frames.offset)
    transport_octets = places.end - places.transport
    ip_at, transport_at = frames.offset + places.ip, frames.offset + places.transport
    rows, parents = np.zeros(0, np.int64), None
    for _ in range(DEEPEST):
        inside = _look_inside(around, ports or {})
        if inside is None:
            break
        layer, content = inside
        if parents is None:
            rows = layer.rows[layer.usable]
            parents = packets.take(rows)
            _name_tunnel(parents, np.arange(len(rows)), content, np.flatnonzero(layer.usable))
            parents.keys["kind"] = Kind.PARENT
        _replace(packets, layer)
        transport_octets[layer.rows[layer.usable]] = (layer.places.end - layer.places.transport)[layer.usable]
        ip_at[layer.rows[layer.usable]] = (layer.frames.offset + layer.places.ip)[layer.usable]
        transport_at[layer.rows[layer.usable]] = (layer.frames.offset + layer.places.transport)[layer.usable]
        outside = packets.keys["tunnel"][layer.rows[layer.usable]] == Tunnel.NONE  # else a label or a session inside
        _name_tunnel(packets, layer.rows[layer.usable][outside], content, np.flatnonzero(layer.usable)[outside])
        around = layer
    return Decapsulated(packets, rows, packets.take(rows) if parents is None else parents, transport_octets,
                        ip_at, transport_at)


def inside(frames: Frames) -> Iterator[tuple[Integers, Frames]]:
    """The packets in the tunnels of frames, at their standard ports: for each depth, the outermost frames' indexes,
    shape (m,), and the packets as frames."""
    n = len(frames.offset)
    places = Places.blank(n)
    packets = parse(frames, places)
    around = _Layer(np.arange(n), frames, packets, places, packets.outcome == PARSED_IP, frames.offset)
    for _ in range(DEEPEST):
        found = _look_inside(around, {})
        if found is None:
            return
        around = found[0]
        rows = np.flatnonzero(around.usable)
        yield around.rows[rows], around.frames.take(rows)


def _look_inside(around: _Layer, ports: TunnelPorts) -> tuple[_Layer, Carried] | None:
    """Parse the content of these packets, one level deep; None if there is none."""
    may = around.usable & (around.places.transport > 0) & (around.packets.fragment == NO_FRAGMENT)
    more = np.flatnonzero(may)
    protocol = around.packets.keys["protocol"][more].astype(np.int64)
    content = carried(Payload(around.frames.octets, around.frames.offset[more], protocol,
                              around.places.transport[more], around.places.end[more]), ports)
    deep = around.frames.offset[more] - around.begin[more] + content.offset
    some = np.flatnonzero((content.inside != Inside.NOTHING) & (deep <= FARTHEST))
    if not len(some):
        return None
    content, more = content.take(some), more[some]
    frames = _frames_inside(around, more, content)
    places = Places.blank(len(more))
    packets = parse(frames, places, tunnels=True)
    begin = around.begin[more]
    usable = ((packets.outcome == PARSED_IP) & ~packets.lying
              & (frames.offset - begin + places.ip <= FARTHEST))
    return _Layer(around.rows[more], frames, packets, places, usable, begin), content


def _frames_inside(around: _Layer, rows: Integers, content: Carried) -> Frames:
    """The content as frames; its length on the wire is derived from the IP packet around it."""
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
    """Replace outer packets by inner ones; interface and direction stay."""
    rows, usable = layer.rows[layer.usable], layer.usable
    keys = layer.packets.keys[usable]
    for name in _OF_THE_POINT:
        keys[name] = packets.keys[name][rows]
    packets.keys[rows] = keys
    for field in fields(Packets):
        if field.name not in (*_OF_THE_FRAME, "keys"):
            getattr(packets, field.name)[rows] = getattr(layer.packets, field.name)[usable]


def _name_tunnel(packets: Packets, rows: Integers, content: Carried, chosen: Integers) -> None:
    packets.keys["tunnel"][rows] = content.tunnel[chosen]
    packets.keys["tunnel_id"][rows] = content.tunnel_id[chosen]
