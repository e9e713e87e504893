"""Frames of a link type → position of the IP header, VLANs and MACs (parse_ethernet in bpf/parse.h).

Other link types than Ethernet are those of Linux's "any" device, of tunnels, and of loopback on the BSDs. The table of
all link types is in `link_types`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.headers import ARP, ETHERTYPE_MINIMUM, IPV4, IPV6, TAG_TYPES, skip_headers
from flowtop.model.kinds import IpVersion

_TAGS_MAX = 4
_VLAN_ID = 0x0FFF
_ETHERNET = np.dtype([("destination", "V6"), ("source", "V6"), ("type", ">u2")])
_COOKED = np.dtype([("packet_type", ">u2"), ("device", ">u2"), ("length", ">u2"), ("address", "V6"), ("pad", "V2"),
                    ("type", ">u2")])
_COOKED2 = np.dtype([("type", ">u2"), ("pad", "V2"), ("ifindex", ">u4"), ("device", ">u2"), ("packet_type", "u1"),
                     ("length", "u1"), ("address", "V6"), ("pad2", "V2")])
_BARE_IP = np.dtype((">u2", (10,)))
_VERSION_4_NO_OPTIONS = 0x45
_TAG = np.dtype([("control", ">u2"), ("type", ">u2")])
_OUTGOING = 4
"""Packet type of packets sent by the host (PACKET_OUTGOING)."""
BSD_IPV4, BSD_IPV6 = 2, (10, 23, 24, 28, 30)
"""Address families of LINKTYPE_NULL; that of IPv6 depends on the system (Linux, Windows, BSDs, macOS)."""


@dataclass(slots=True)
class Link:
    """Link layer fields of frames; one element per frame, shape (n,).

    Attributes:
        type: EtherType after all VLAN tags, and behind other headers if that is IP (see headers.py); 0 if the frame is
            too short.
        ip_offset: offset of the IP header.
        vlan_id, customer_vlan_id: of the outer two tags, 0 for none.
        source_mac, destination_mac: V6, zeros if there is none.
        egress: the frame was sent, not received.
        more: another packet follows in the frame; see Frames.ordinal.
        tunnel, tunnel_id: a value of Tunnel, and the lowest MPLS label or the PPPoE session; 0 for none.
    """

    type: Integers
    ip_offset: Integers
    vlan_id: Integers
    customer_vlan_id: Integers
    source_mac: npt.NDArray[np.void]
    destination_mac: npt.NDArray[np.void]
    egress: npt.NDArray[np.bool_]
    more: npt.NDArray[np.bool_]
    tunnel: npt.NDArray[np.uint8]
    tunnel_id: npt.NDArray[np.uint32]

    @classmethod
    def blank(cls, n: int) -> Link:
        """`n` frames with all fields 0."""
        zeros = np.zeros(n, np.int64)
        return cls(zeros, zeros.copy(), zeros.copy(), zeros.copy(), np.zeros(n, "V6"), np.zeros(n, "V6"),
                   np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.uint8), np.zeros(n, np.uint32))


def ethernet(frames: Frames) -> Link:
    """LINKTYPE_ETHERNET."""
    link = Link.blank(len(frames.offset))
    whole = frames.captured >= _ETHERNET.itemsize
    header = gather(frames.octets, frames.offset, _ETHERNET)
    link.type = header["type"].astype(np.int64)
    link.ip_offset = np.full(len(whole), _ETHERNET.itemsize)
    link.source_mac, link.destination_mac = header["source"], header["destination"]
    if not whole.all():
        link.type[~whole] = 0
        link.ip_offset[~whole] = 0
        link.source_mac[~whole] = link.destination_mac[~whole] = b""
    _skip_tags(frames, link)
    _find_bare_ip(frames, link)
    skip_headers(frames, link)
    return link


def _find_bare_ip(frames: Frames, link: Link) -> None:
    """Detect IPv4 without a link header: some writers declare devices without one (tunnels) as Ethernet.

    A frame counts as such only if its EtherType is unknown, and version, lengths and header checksum are all correct.
    """
    strange = (link.type != IPV4) & (link.type != IPV6) & (link.type != ARP) & (frames.captured >= _BARE_IP.itemsize)
    rows = np.flatnonzero(strange & (frames.octets[frames.offset] == _VERSION_4_NO_OPTIONS))
    if not len(rows):
        return
    words = gather(frames.octets, frames.offset[rows], _BARE_IP).reshape(-1, _BARE_IP.itemsize // 2).astype(np.int64)
    total = words.sum(axis=1)
    fits = ((total & 0xFFFF) + (total >> 16) == 0xFFFF) & (words[:, 1] >= frames.wire[rows])
    link.type[rows[fits]] = IPV4
    link.ip_offset[rows[fits]] = link.vlan_id[rows[fits]] = link.customer_vlan_id[rows[fits]] = 0
    link.source_mac[rows[fits]] = link.destination_mac[rows[fits]] = b""


def cooked(frames: Frames) -> Link:
    """LINKTYPE_LINUX_SLL."""
    return _cooked(frames, _COOKED)


def cooked2(frames: Frames) -> Link:
    """LINKTYPE_LINUX_SLL2."""
    return _cooked(frames, _COOKED2)


def _cooked(frames: Frames, dtype: np.dtype[np.void]) -> Link:
    link = Link.blank(len(frames.offset))
    whole = frames.captured >= dtype.itemsize
    header = gather(frames.octets, frames.offset, dtype)
    link.type = np.where(whole, header["type"], 0).astype(np.int64)
    link.ip_offset = np.where(whole, dtype.itemsize, 0)
    mac = whole & (header["length"] == 6)
    link.source_mac[mac] = header["address"][mac]
    link.egress = whole & (header["packet_type"] == _OUTGOING)
    _skip_tags(frames, link)
    skip_headers(frames, link)
    return link


def _skip_tags(frames: Frames, link: Link) -> None:
    """Walk the VLAN tags in the frame, at most four; skip_headers walks some more."""
    if not _tagged(link.type).any():
        return
    rows = np.flatnonzero(_tagged(link.type))
    for number in range(_TAGS_MAX):
        rows = rows[frames.captured[rows] >= link.ip_offset[rows] + _TAG.itemsize]
        tag = gather(frames.octets, frames.offset[rows] + link.ip_offset[rows], _TAG)
        if number < 2:
            (link.vlan_id, link.customer_vlan_id)[number][rows] = tag["control"] & _VLAN_ID
        link.type[rows] = tag["type"]
        link.ip_offset[rows] += _TAG.itemsize
        rows = rows[_tagged(link.type[rows])]
        if not len(rows):
            return


def _tagged(types: Integers) -> npt.NDArray[np.bool_]:
    tagged: npt.NDArray[np.bool_] = (types == TAG_TYPES[0]) | (types == TAG_TYPES[1]) | (types == TAG_TYPES[2])
    return tagged


def raw_ip(frames: Frames) -> Link:
    """LINKTYPE_RAW: the version is in the IP header."""
    version = np.where(frames.captured > 0, frames.octets[frames.offset] >> 4, 0)
    return _bare(frames, version == np.uint8(IpVersion.V4), version == np.uint8(IpVersion.V6), 0)


def raw_ipv4(frames: Frames) -> Link:
    """LINKTYPE_IPV4."""
    every = np.ones(len(frames.offset), np.bool_)
    return _bare(frames, every, ~every, 0)


def raw_ipv6(frames: Frames) -> Link:
    """LINKTYPE_IPV6."""
    every = np.ones(len(frames.offset), np.bool_)
    return _bare(frames, ~every, every, 0)


def loopback(frames: Frames) -> Link:
    """LINKTYPE_NULL and LINKTYPE_LOOP: an address family, a small number, in the capturing host's byte order."""
    family = gather(frames.octets, frames.offset, np.dtype("<u4")).astype(np.int64)
    swapped = gather(frames.octets, frames.offset, np.dtype(">u4")).astype(np.int64)
    family = np.where(frames.captured >= 4, np.minimum(family, swapped), 0)
    return _bare(frames, family == BSD_IPV4, np.isin(family, BSD_IPV6), 4)


def _bare(frames: Frames, ipv4: npt.NDArray[np.bool_], ipv6: npt.NDArray[np.bool_], ip_offset: int) -> Link:
    link = Link.blank(len(frames.offset))
    link.type = np.where(ipv4, IPV4, np.where(ipv6, IPV6, ETHERTYPE_MINIMUM))
    link.ip_offset = np.where(frames.captured >= ip_offset, ip_offset, 0)
    return link


def follow_type(frames: Frames, link: Link) -> None:
    """Skip what may stand between an EtherType and the IP header (tags, labels), for links that are read elsewhere.

    Once for each frame: a second call would look further.
    """
    _skip_tags(frames, link)
    skip_headers(frames, link)
