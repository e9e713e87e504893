"""Headers that capture facilities write in place of a link's or before it: packet filters, switches, capture cards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets import link as plain
from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.headers import ETHERTYPE_MINIMUM, IPV4, IPV6, skip_headers
from flowtop.capture.packets.link import BSD_IPV4, BSD_IPV6, Link, follow_type, raw_ipv4, raw_ipv6
from flowtop.capture.packets.llc import ethernet, read_llc
from flowtop.capture.packets.nested import frames_from, read_nested
from flowtop.capture.packets.point_to_point import ppp_hdlc
from flowtop.capture.packets.wireless import ieee80211, prism, radiotap

# ---- Linux cooked frames whose protocol is no EtherType, or whose device has headers of its own

_COOKED = np.dtype([("packet_type", ">u2"), ("device", ">u2"), ("address", "V10"), ("type", ">u2")])
_COOKED2 = np.dtype([("type", ">u2"), ("pad", "V2"), ("ifindex", ">u4"), ("device", ">u2"), ("address", "V10")])
_NETLINK, _IEEE80211, _PRISM, _RADIOTAP = 824, 801, 802, 803
"""Device types (ARPHRD_ in linux/if_arp.h) with other headers than IP."""
_ETHERNET, _LLC, _PPP, _BRIDGED_ETHERNET = 0x0003, 0x0004, 0x0007, 0x6558
"""Protocols (ETH_P_ in linux/if_ether.h), and GRE's of Ethernet frames."""


def cooked(frames: Frames) -> Link:
    """LINKTYPE_LINUX_SLL."""
    return _cooked(frames, plain.cooked(frames), _COOKED)


def cooked2(frames: Frames) -> Link:
    """LINKTYPE_LINUX_SLL2."""
    return _cooked(frames, plain.cooked2(frames), _COOKED2)


def _cooked(frames: Frames, link: Link, dtype: np.dtype[np.void]) -> Link:
    header = gather(frames.octets, frames.offset, dtype)
    device, protocol = header["device"], header["type"]
    whole = frames.captured >= dtype.itemsize
    odd = whole & ((device >= _IEEE80211) | (protocol < ETHERTYPE_MINIMUM) | (protocol == _BRIDGED_ETHERNET))
    if not odd.any():
        return link
    inner: tuple[tuple[Integers, Callable[[Frames], Link]], ...] = (
        (device == _RADIOTAP, radiotap), (device == _IEEE80211, ieee80211), (device == _PRISM, prism),
        (protocol == _ETHERNET, ethernet), (protocol == _BRIDGED_ETHERNET, ethernet), (protocol == _PPP, ppp_hdlc))
    left = odd & (device != _NETLINK)
    for which, read in inner:
        rows = np.flatnonzero(left & which)
        read_nested(frames, link, rows, np.full(len(rows), dtype.itemsize), read)
        left[rows] = False
    rows = np.flatnonzero(left & (protocol == _LLC))
    if len(rows):
        read_llc(frames, link, rows, np.full(len(rows), dtype.itemsize))
        skip_headers(frames, link, rows)
    link.type[whole & (device == _NETLINK)] = ETHERTYPE_MINIMUM
    return link


# ---- packet filters

_NFLOG = np.dtype([("family", "u1"), ("version", "u1"), ("resource", ">u2")])
_NFLOG_FAMILIES = {2: IPV4, 10: IPV6}
_ATTRIBUTE = np.dtype([("length", "<u2"), ("type", "<u2")])
_PACKET_HEADER, _IN_DEVICE, _OUT_DEVICE, _HARDWARE_ADDRESS, _PAYLOAD, _HARDWARE_HEADER = 1, 4, 5, 8, 9, 16
"""Attributes (NFULA_ in linux/netfilter/nfnetlink_log.h)."""
_MOST_ATTRIBUTES = 32
_MAC = np.dtype([("length", ">u2"), ("pad", "V2"), ("address", "V6")])
_MAC_OCTETS = 6
_MACS = np.dtype([("destination", "V6"), ("source", "V6")])
_ETHERNET_OCTETS = 14


def nflog(frames: Frames) -> Link:
    """LINKTYPE_NFLOG: attributes in the byte order of the host that wrote them; one is the packet."""
    link = Link.blank(len(frames.offset))
    header = gather(frames.octets, frames.offset, _NFLOG)
    link.type[:] = ETHERTYPE_MINIMUM
    for family, version in _NFLOG_FAMILIES.items():
        link.type[header["family"] == family] = version
    received, sent = np.zeros(len(link.type), np.bool_), np.zeros(len(link.type), np.bool_)
    rows = np.flatnonzero(frames.captured >= _NFLOG.itemsize + _ATTRIBUTE.itemsize)
    at = np.full(len(rows), _NFLOG.itemsize)
    first = gather(frames.octets, frames.offset[rows] + at, _ATTRIBUTE)
    swapped = first["type"] > first["type"].byteswap()  # types are small numbers
    for _ in range(_MOST_ATTRIBUTES):
        if not len(rows):
            break
        attribute = gather(frames.octets, frames.offset[rows] + at, _ATTRIBUTE)
        length, type_ = (np.where(swapped, attribute[name].byteswap(), attribute[name]).astype(np.int64)
                         for name in ("length", "type"))
        value = at + _ATTRIBUTE.itemsize
        fits = (length >= _ATTRIBUTE.itemsize) & (value <= frames.captured[rows])
        _note_attributes(frames, link, rows[fits], type_[fits], value[fits], length[fits] - _ATTRIBUTE.itemsize)
        received[rows[type_ == _IN_DEVICE]] = True
        sent[rows[type_ == _OUT_DEVICE]] = True
        following = at + length + -length % 4
        more = fits & (type_ != _PAYLOAD) & (following + _ATTRIBUTE.itemsize <= frames.captured[rows])
        rows, at, swapped = rows[more], following[more], swapped[more]
    link.type[link.ip_offset == 0] = ETHERTYPE_MINIMUM
    link.egress = sent & ~received
    return link


def _note_attributes(frames: Frames, link: Link, rows: Integers, type_: Integers, at: Integers, octets: Integers,
                     ) -> None:
    """Read one attribute of each of the frames `rows`: its value begins at `at`."""
    head = rows[type_ == _PACKET_HEADER]
    if len(head):  # what a bridge logs has no family that says what it is
        protocol = gather(frames.octets, frames.offset[head] + at[type_ == _PACKET_HEADER], np.dtype(">u2"))
        link.type[head] = np.where(np.isin(protocol, (IPV4, IPV6)), protocol, link.type[head])
    which = (type_ == _HARDWARE_ADDRESS) & (octets >= _MAC.itemsize)
    macs = gather(frames.octets, frames.offset[rows[which]] + at[which], _MAC)
    good = macs["length"] == _MAC_OCTETS
    link.source_mac[rows[which][good]] = macs["address"][good]
    which = (type_ == _HARDWARE_HEADER) & (octets == _ETHERNET_OCTETS)
    macs = gather(frames.octets, frames.offset[rows[which]] + at[which], _MACS)
    link.source_mac[rows[which]], link.destination_mac[rows[which]] = macs["source"], macs["destination"]
    which = type_ == _PAYLOAD
    link.ip_offset[rows[which]] = at[which]


_PFLOG = np.dtype([("length", "u1"), ("family", "u1")])
_PFLOG_DIRECTION, _PFLOG_OUT = 60, 2
_ENC = np.dtype([("family", "<u4"), ("spi", "V4"), ("flags", "V4")])
_IPNET = np.dtype([("version", "u1"), ("family", "u1"), ("rest", "V22")])
_SOLARIS_IPV6 = 26


def pflog(frames: Frames) -> Link:
    """LINKTYPE_PFLOG of the BSDs' packet filter: its first octet is the header's length without padding."""
    header = gather(frames.octets, frames.offset, _PFLOG)
    length = header["length"].astype(np.int64)
    link = _of_family(frames, header["family"].astype(np.int64), length + -length % 4)
    long = (length > _PFLOG_DIRECTION) & (frames.captured > _PFLOG_DIRECTION)
    link.egress = long & (frames.octets[frames.offset + np.where(long, _PFLOG_DIRECTION, 0)] == _PFLOG_OUT)
    return link


def enc(frames: Frames) -> Link:
    """LINKTYPE_ENC of the BSDs' IPsec: the address family, in the capturing host's byte order, SPI and flags."""
    family = gather(frames.octets, frames.offset, _ENC)["family"]
    return _of_family(frames, np.minimum(family, family.byteswap()).astype(np.int64),
                      np.full(len(family), _ENC.itemsize))


def ipnet(frames: Frames) -> Link:
    """LINKTYPE_IPNET of Solaris."""
    family = gather(frames.octets, frames.offset, _IPNET)["family"].astype(np.int64)
    return _of_family(frames, np.where(family == _SOLARIS_IPV6, BSD_IPV6[0], np.where(family == BSD_IPV4, BSD_IPV4, 0)),
                      np.full(len(family), _IPNET.itemsize))


def _of_family(frames: Frames, family: Integers, at: Integers) -> Link:
    """Packets at the offsets `at` by address family, as the BSDs number them."""
    link = Link.blank(len(frames.offset))
    whole = (at > 0) & (at <= frames.captured)
    type_ = np.where(family == BSD_IPV4, IPV4, np.where(np.isin(family, BSD_IPV6), IPV6, ETHERTYPE_MINIMUM))
    link.type, link.ip_offset = np.where(whole, type_, 0), np.where(whole, at, 0)
    return link


# ---- Ethernet frames with more octets than on the wire

def ethernet_after(octets: int) -> Callable[[Frames], Link]:
    """The function of a link type with `octets` octets before the Ethernet frame."""
    def read(frames: Frames) -> Link:
        link = Link.blank(len(frames.offset))
        every = np.arange(len(frames.offset))
        read_nested(frames, link, every, np.full(len(every), octets), ethernet)
        return link
    return read


def ethernet_with_tag(octets: int) -> Callable[[Frames], Link]:
    """The function of a link type with a switch's tag of `octets` octets between the MACs and the EtherType."""
    def read(frames: Frames) -> Link:
        link = Link.blank(len(frames.offset))
        rows = np.flatnonzero(frames.captured >= _ETHERNET_OCTETS + octets)
        macs = gather(frames.octets, frames.offset[rows], _MACS)
        link.source_mac[rows], link.destination_mac[rows] = macs["source"], macs["destination"]
        at = frames.offset[rows] + _MACS.itemsize + octets
        link.type[rows] = gather(frames.octets, at, np.dtype(">u2"))
        link.ip_offset[rows] = _ETHERNET_OCTETS + octets
        follow_type(frames, link)
        return link
    return read


_1394 = np.dtype([("destination", "V8"), ("source", "V8"), ("type", ">u2")])


def ip_over_1394(frames: Frames) -> Link:
    """LINKTYPE_APPLE_IP_OVER_IEEE1394: addresses of 8 octets, which are no MACs."""
    link = Link.blank(len(frames.offset))
    whole = frames.captured >= _1394.itemsize
    link.type = np.where(whole, gather(frames.octets, frames.offset, _1394)["type"], 0).astype(np.int64)
    link.ip_offset = np.where(whole, _1394.itemsize, 0)
    return link


# ---- capture cards

_ERF_OCTETS, _ERF_TYPE, _ERF_EXTENSION_OCTETS, _ERF_MORE = 16, 8, 8, 0x80
_ERF_PAD = 2
_ERF: tuple[tuple[tuple[int, ...], int, Callable[[Frames], Link]], ...] = (
    ((1, 10, 15), 0, ppp_hdlc), ((2, 11, 16, 20), _ERF_PAD, ethernet), ((22,), 0, raw_ipv4), ((23,), 0, raw_ipv6))
"""Types of records, octets before the frame, and how it is read."""
_MOST_EXTENSIONS = 8


def erf(frames: Frames) -> Link:
    """LINKTYPE_ERF: records of Endace cards, with extension headers."""
    link = Link.blank(len(frames.offset))
    link.type[:] = ETHERTYPE_MINIMUM
    rows = np.flatnonzero(frames.captured >= _ERF_OCTETS)
    kind = frames.octets[frames.offset[rows] + _ERF_TYPE]
    at, more = np.full(len(rows), _ERF_OCTETS), kind & _ERF_MORE > 0
    for _ in range(_MOST_EXTENSIONS):
        if not more.any():
            break
        flag = frames.octets[frames.offset[rows] + np.minimum(at, frames.captured[rows])]
        at = np.where(more, at + _ERF_EXTENSION_OCTETS, at)
        more &= flag & _ERF_MORE > 0
    kind = kind & np.uint8(_ERF_MORE - 1)
    for types, pad, read in _ERF:
        which = np.isin(kind, types)
        read_nested(frames, link, rows[which], at[which] + pad, read)
    return link


# ---- headers that name the link type of what follows

_PPI = np.dtype([("version", "u1"), ("flags", "u1"), ("length", "<u2"), ("link_type", "<u4")])
_PKTAP = np.dtype([("length", "<u4"), ("next", "<u4"), ("link_type", "<u4"), ("interface", "V24"), ("flags", "<u4")])
_PKTAP_OUT = 2


def ppi(frames: Frames, read: Callable[[Frames, int], Link]) -> Link:
    """LINKTYPE_PPI; `read` reads frames of a link type."""
    header = gather(frames.octets, frames.offset, _PPI)
    return _by_named_type(frames, header, _PPI.itemsize, read)


def pktap(frames: Frames, read: Callable[[Frames, int], Link]) -> Link:
    """LINKTYPE_PKTAP of macOS, and its older number; `read` reads frames of a link type."""
    header = gather(frames.octets, frames.offset, _PKTAP)
    link = _by_named_type(frames, header, _PKTAP.itemsize, read)
    link.egress |= (frames.captured >= _PKTAP.itemsize) & (header["flags"] & _PKTAP_OUT > 0)
    return link


def _by_named_type(frames: Frames, header: npt.NDArray[np.void], least: int,
                   read: Callable[[Frames, int], Link]) -> Link:
    link = Link.blank(len(frames.offset))
    link.type[:] = ETHERTYPE_MINIMUM
    length = header["length"].astype(np.int64)
    good = (length >= least) & (length <= frames.captured)
    for number in np.unique(header["link_type"][good]).tolist():
        rows = np.flatnonzero(good & (header["link_type"] == number))
        part = read(frames_from(frames, rows, length[rows]), number)
        for name in Link.__slots__:
            getattr(link, name)[rows] = getattr(part, name)
        link.ip_offset[rows] += length[rows]
    return link
