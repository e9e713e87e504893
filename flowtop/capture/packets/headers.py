"""What may stand between Ethernet and IP: VLAN tags, MPLS labels, PPPoE, backbone bridges' tags (bpf/link.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.model.kinds import IpVersion, Tunnel

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ETHERTYPE_MINIMUM = 0x0600
"""Smaller values are IEEE 802.3 lengths."""
TAG_TYPES = (0x8100, 0x88A8, 0x9100)
MPLS, MPLS_MULTICAST = 0x8847, 0x8848
_PPPOE_SESSION, _BACKBONE, _VLAN_9200 = 0x8864, 0x88E7, 0x9200
_PPP_IPV4, _PPP_IPV6, _PPP_MPLS, _PPP_MPLS_MULTICAST = 0x0021, 0x0057, 0x0281, 0x0283

ETHERNET, CONTROL_WORD, NOT_IP = 0x10001, 0x10002, 0x10003
"""Types beside EtherTypes: what is behind labels and not IP. A control word (RFC 4385) precedes Ethernet too."""

_TAGS = (*TAG_TYPES, _VLAN_9200)
_PRECEDING = (MPLS, MPLS_MULTICAST, _PPPOE_SESSION, _BACKBONE, *_TAGS)
LEADING_TO_IP = (IPV4, IPV6, *_PRECEDING)
"""EtherTypes of IP and of what may precede it."""
_HEADERS_MAX = 6
LABELS_MAX = 12
"""Limit of a stack of MPLS labels."""
_LABEL_OCTETS, _TYPE_OCTETS = 4, 2
_OCTETS = {ETHERNET: 14, CONTROL_WORD: 18, _BACKBONE: 18, _PPPOE_SESSION: 8, **dict.fromkeys(_TAGS, 4)}
"""Octets of each header; the last two are the type of what follows."""
_VERSION_TYPE_CODE = 0x1100
"""Version 1, type 1 and code 0 of PPPoE: a session's data (RFC 2516)."""
_VLAN_ID = 0x0FFF
_BY_NIBBLE = np.full(16, ETHERNET)
_BY_NIBBLE[[0, 1, IpVersion.V4, IpVersion.V6]] = CONTROL_WORD, NOT_IP, IPV4, IPV6
"""Type of what is behind the bottom of a stack of labels, by its first four bits. 1 is a control channel (RFC 4385)."""
_WORD, _LONG = np.dtype(">u2"), np.dtype(">u4")


class Link(Protocol):
    """The fields of link.Link that are read and changed here."""

    type: Integers
    ip_offset: Integers
    vlan_id: Integers
    customer_vlan_id: Integers
    tunnel: npt.NDArray[np.uint8]
    tunnel_id: npt.NDArray[np.uint32]


@dataclass(slots=True)
class _Walk:
    """Frames whose headers are walked; one element each, shape (n,).

    Attributes:
        begin: start of each frame in the buffer.
        end: captured octets of each.
        type: of what follows.
        offset: in the frame.
        vlan_id, customer_vlan_id, tunnel, tunnel_id: as in Link.
    """

    octets: npt.NDArray[np.uint8]
    begin: Integers
    end: Integers
    type: Integers
    offset: Integers
    vlan_id: Integers
    customer_vlan_id: Integers
    tunnel: npt.NDArray[np.uint8]
    tunnel_id: npt.NDArray[np.uint32]

    def read(self, rows: Integers, at: Integers | int, dtype: np.dtype[np.unsignedinteger]) -> Integers:
        """The numbers `at` octets after each row's offset."""
        found: Integers = gather(self.octets, self.begin[rows] + self.offset[rows] + at, dtype).astype(np.int64)
        return found


def skip_headers(frames: Frames, link: Link, among: Integers | None = None) -> None:
    """Skip what precedes IP in frames that are not IP by their EtherType.

    These are labels and the Ethernet of a pseudowire (RFC 3032, RFC 4448), PPPoE sessions (RFC 2516), I-TAGs
    (IEEE 802.1ah), and VLAN tags among them, whose IDs fill those that are still 0. Frames in which IP does not follow
    stay as they are.

    Args:
        among: the frames to look at; None: all. Once for each frame: a second call would look further.
    """
    strange = np.flatnonzero((link.type != IPV4) & (link.type != IPV6)) if among is None else among
    if not len(strange):
        return
    rows = strange[np.isin(link.type[strange], _PRECEDING)]
    if not len(rows):
        return
    walk = _Walk(frames.octets, frames.offset[rows], frames.captured[rows], link.type[rows], link.ip_offset[rows],
                 link.vlan_id[rows], link.customer_vlan_id[rows], link.tunnel[rows], link.tunnel_id[rows])
    walking = np.arange(len(rows))
    for _ in range(_HEADERS_MAX):
        walking = _step(walk, walking)
        if not len(walking):
            break
    ip = (walk.type == IPV4) | (walk.type == IPV6)
    found = rows[ip]
    link.type[found], link.ip_offset[found] = walk.type[ip], walk.offset[ip]
    link.vlan_id[found], link.customer_vlan_id[found] = walk.vlan_id[ip], walk.customer_vlan_id[ip]
    link.tunnel[found], link.tunnel_id[found] = walk.tunnel[ip], walk.tunnel_id[ip]


def _step(walk: _Walk, rows: Integers) -> Integers:
    """Skip one header of these rows, and labels before it. Returns the rows that had one."""
    labelled = rows[np.isin(walk.type[rows], (MPLS, MPLS_MULTICAST))]
    if len(labelled):
        _labels(walk, labelled)
    octets = np.zeros(len(rows), np.int64)
    for type_, length in _OCTETS.items():
        octets[walk.type[rows] == type_] = length
    more = (octets > 0) & (walk.offset[rows] + octets <= walk.end[rows])
    rows, octets = rows[more], octets[more]
    types = walk.type[rows]
    following = walk.read(rows, octets - _TYPE_OCTETS, _WORD)
    bare = (types == CONTROL_WORD) & ~np.isin(following, LEADING_TO_IP)  # a MAC address begins with zero bits
    octets[bare] = _OCTETS[ETHERNET]
    following[bare] = walk.read(rows[bare], _OCTETS[ETHERNET] - _TYPE_OCTETS, _WORD)
    session = np.flatnonzero(types == _PPPOE_SESSION)
    if len(session):
        following[session], compressed = _session(walk, rows[session], following[session])
        octets[session] -= compressed
    tagged = rows[np.isin(types, _TAGS)]
    vlan_id = walk.read(tagged, 0, _WORD) & _VLAN_ID
    second = (walk.vlan_id[tagged] != 0) & (walk.customer_vlan_id[tagged] == 0)
    walk.customer_vlan_id[tagged[second]] = vlan_id[second]
    first = walk.vlan_id[tagged] == 0
    walk.vlan_id[tagged[first]] = vlan_id[first]
    walk.type[rows] = following
    walk.offset[rows] += octets
    return rows


def _labels(walk: _Walk, rows: Integers) -> None:
    """Skip labels up to the bottom of the stack; without one, the content is not IP."""
    walk.type[rows] = NOT_IP
    for _ in range(LABELS_MAX):
        rows = rows[walk.offset[rows] + _LABEL_OCTETS < walk.end[rows]]
        if not len(rows):
            return
        label = walk.read(rows, 0, _LONG)
        walk.offset[rows] += _LABEL_OCTETS
        walk.tunnel[rows], walk.tunnel_id[rows] = Tunnel.MPLS, label >> 12
        bottom = rows[label >> 8 & 1 == 1]
        walk.type[bottom] = behind_labels(walk.octets, walk.begin[bottom] + walk.offset[bottom])
        rows = rows[label >> 8 & 1 == 0]


def behind_labels(octets: npt.NDArray[np.uint8], at: Integers) -> Integers:
    """The types of what is behind the bottom of label stacks, which is at these places; shape (n,).

    They are IPV4, IPV6, ETHERNET, CONTROL_WORD (which Ethernet follows) and NOT_IP.
    Without a control word, a MAC address that begins like IP is taken for IP, as routers do (RFC 8469).
    """
    found: Integers = _BY_NIBBLE[octets[at] >> 4]
    return found


def _session(walk: _Walk, rows: Integers, protocol: Integers) -> tuple[Integers, Integers]:
    """Types of what PPPoE sessions carry, by PPP's protocol field, and 1 where that is compressed (RFC 1661)."""
    head = walk.read(rows, 0, _LONG)
    walk.tunnel[rows], walk.tunnel_id[rows] = Tunnel.PPPOE, head & 0xFFFF
    compressed = protocol >> 8 & 1
    protocol = protocol >> 8 * compressed
    types = np.full(len(rows), NOT_IP)
    data = head >> 16 == _VERSION_TYPE_CODE
    for number, type_ in ((_PPP_IPV4, IPV4), (_PPP_IPV6, IPV6), (_PPP_MPLS, MPLS), (_PPP_MPLS_MULTICAST, MPLS)):
        types[data & (protocol == number)] = type_
    return types, compressed
