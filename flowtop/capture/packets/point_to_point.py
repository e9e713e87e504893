"""Serial links: PPP in its framings (RFC 1661, RFC 1662, RFC 2516), Cisco HDLC, Frame Relay (RFC 2427), MPLS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.headers import ETHERTYPE_MINIMUM, IPV4, IPV6, skip_headers
from flowtop.capture.packets.link import Link, follow_type
from flowtop.capture.packets.nested import read_nested

MPLS, MPLS_UPSTREAM = 0x8847, 0x8848
_ETHERTYPES = {0x0021: IPV4, 0x0057: IPV6, 0x0281: MPLS, 0x0283: MPLS_UPSTREAM}
"""By PPP protocol. Compressed headers and control protocols are not IP."""
_ADDRESS, _UNICAST, _MULTICAST = 0xFF, 0x0F, 0x8F
"""First octet of PPP in HDLC-like framing; of Cisco HDLC."""
_CONTROL = 0x03
_HDLC = np.dtype([("address", "u1"), ("control", "u1"), ("type", ">u2")])
_PPPOE = np.dtype([("version", "u1"), ("code", "u1"), ("session", ">u2"), ("length", ">u2")])
_NLPIDS = {0xCC: IPV4, 0x8E: IPV6, 0x83: MPLS}
"""EtherTypes by network layer protocol identifier."""
_NLPID_SNAP, _NLPID_PPP = 0x80, 0xCF
_PAIR = np.dtype(">u2")


def _looked_up(values: Integers, types: dict[int, int]) -> Integers:
    """EtherTypes of protocol numbers; ETHERTYPE_MINIMUM for those that are not in the table."""
    found = np.full(len(values), ETHERTYPE_MINIMUM)
    for value, type_ in types.items():
        found[values == value] = type_
    return found


def _ppp(frames: Frames, at: Integers) -> Link:
    """PPP whose protocol field, of 1 or 2 octets, is at the offsets `at`."""
    link = Link.blank(len(frames.offset))
    pair = gather(frames.octets, frames.offset + np.minimum(at, frames.captured), _PAIR).astype(np.int64)
    short = pair >> 8 & 1 == 1
    ip_offset = at + np.where(short, 1, 2)
    whole = ip_offset <= frames.captured
    link.type = np.where(whole, _looked_up(np.where(short, pair >> 8, pair), _ETHERTYPES), 0)
    link.ip_offset = np.where(whole, ip_offset, 0)
    follow_type(frames, link)
    return link


def ppp(frames: Frames) -> Link:
    """LINKTYPE_PPP: with or without address and control octets."""
    header = gather(frames.octets, frames.offset, _HDLC)
    framed = (header["address"] == _ADDRESS) & (header["control"] == _CONTROL)
    return _ppp(frames, np.where(framed, 2, 0))


def ppp_hdlc(frames: Frames) -> Link:
    """LINKTYPE_PPP_HDLC: PPP in HDLC-like framing, or Cisco HDLC on the same line."""
    link = ppp(frames)
    first = frames.octets[frames.offset]
    rows = np.flatnonzero((first == _UNICAST) | (first == _MULTICAST))
    read_nested(frames, link, rows, np.zeros(len(rows), np.int64), cisco_hdlc)
    return link


def ppp_over_ethernet(frames: Frames) -> Link:
    """LINKTYPE_PPP_ETHER: a PPPoE header without Ethernet; discovery is not IP."""
    link = Link.blank(len(frames.offset))
    header = gather(frames.octets, frames.offset, _PPPOE)
    link.type[frames.captured >= _PPPOE.itemsize] = ETHERTYPE_MINIMUM
    rows = np.flatnonzero((header["code"] == 0) & (frames.captured >= _PPPOE.itemsize))
    read_nested(frames, link, rows, np.full(len(rows), _PPPOE.itemsize), ppp)
    return link


def pppd(frames: Frames) -> Link:
    """LINKTYPE_PPP_PPPD: the direction stands in place of the address octet; a control octet follows."""
    control = frames.octets[frames.offset + np.minimum(1, frames.captured)] == _CONTROL
    link = _ppp(frames, np.where(control, 2, 1))
    link.egress = _sent(frames)
    return link


def _sent(frames: Frames) -> npt.NDArray[np.bool_]:
    """Whether the first octet, the direction, says that the frame was sent."""
    sent: npt.NDArray[np.bool_] = (frames.captured > 0) & (frames.octets[frames.offset] != 0)
    return sent


def with_direction(read: Callable[[Frames], Link]) -> Callable[[Frames], Link]:
    """The function of a link type whose frames have an octet with the direction in front."""
    def read_after_direction(frames: Frames) -> Link:
        link = Link.blank(len(frames.offset))
        every = np.arange(len(frames.offset))
        read_nested(frames, link, every, np.ones(len(every), np.int64), read)
        link.egress = _sent(frames)
        return link
    return read_after_direction


def cisco_hdlc(frames: Frames) -> Link:
    """LINKTYPE_C_HDLC: address, control, EtherType."""
    link = Link.blank(len(frames.offset))
    whole = frames.captured >= _HDLC.itemsize
    link.type = np.where(whole, gather(frames.octets, frames.offset, _HDLC)["type"], 0).astype(np.int64)
    link.ip_offset = np.where(whole, _HDLC.itemsize, 0)
    follow_type(frames, link)
    return link


def frame_relay(frames: Frames) -> Link:
    """LINKTYPE_FRELAY: an address of 2 to 4 octets; then RFC 2427's control octet and NLPID, or Cisco's EtherType."""
    link = Link.blank(len(frames.offset))
    octets = frames.octets
    second, third = (octets[frames.offset + np.minimum(place, frames.captured)] & 1 == 1 for place in (1, 2))
    at = np.where(second, 2, np.where(third, 3, 4))
    limit = np.minimum(at, frames.captured)
    pair = gather(octets, frames.offset + limit, _PAIR).astype(np.int64)
    standard = pair >> 8 == _CONTROL
    padded = standard & (pair & 0xFF == 0)
    at = at + np.where(padded, 2, np.where(standard, 1, 0))
    nlpid = octets[frames.offset + np.minimum(at, frames.captured)].astype(np.int64)
    type_ = np.where(standard, _looked_up(nlpid, _NLPIDS), pair)
    ip_offset = at + np.where(standard, 1, 2)
    whole = ip_offset <= frames.captured
    link.type, link.ip_offset = np.where(whole, type_, 0), np.where(whole, ip_offset, 0)
    follow_type(frames, link)
    rows = np.flatnonzero(whole & standard & (nlpid == _NLPID_SNAP))
    if len(rows):
        _read_snap(frames, link, rows, ip_offset[rows])
    rows = np.flatnonzero(whole & standard & (nlpid == _NLPID_PPP))
    read_nested(frames, link, rows, ip_offset[rows], ppp)
    return link


_SNAP = np.dtype([("organisation", "V3"), ("type", ">u2")])


def _read_snap(frames: Frames, link: Link, rows: Integers, at: Integers) -> None:
    header = gather(frames.octets, frames.offset[rows] + at, _SNAP)
    fits = (header["organisation"] == np.void(bytes(3))) & (at + _SNAP.itemsize <= frames.captured[rows])
    link.type[rows[fits]] = header["type"][fits]
    link.ip_offset[rows[fits]] = at[fits] + _SNAP.itemsize
    skip_headers(frames, link, rows[fits])


def mpls(frames: Frames) -> Link:
    """LINKTYPE_MPLS: a label stack without anything before it."""
    link = Link.blank(len(frames.offset))
    link.type[:] = MPLS
    follow_type(frames, link)
    return link
