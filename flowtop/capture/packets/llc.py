"""IEEE 802.2 LLC with SNAP (RFC 1042), and links whose frames have it: 802.3, Token Ring, FDDI, ATM (RFC 2684)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets import link as ethernet_ii
from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.headers import ARP, ETHERTYPE_MINIMUM, IPV4, skip_headers
from flowtop.capture.packets.link import Link, follow_type
from flowtop.capture.packets.nested import read_nested

_LLC = np.dtype([("dsap", "u1"), ("ssap", "u1"), ("control", "u1"), ("organisation", "V3"), ("type", ">u2")])
_LLC_OCTETS = 3
_SNAP_SAP, _IP_SAP, _UNNUMBERED = 0xAA, 0x06, 0x03
_ENCAPSULATED, _BRIDGED = (np.void(b"\0\0\0"), np.void(b"\0\0\xf8")), np.void(b"\0\x80\xc2")
"""Organisations whose type is an EtherType (RFC 1042, IEEE 802.1H); and that of bridged frames (RFC 2684)."""
_BRIDGED_ETHERNET = (0x0001, 0x0007)
"""Types of a bridged Ethernet frame, with and without its frame check sequence."""
_BRIDGED_PAD = 2
_TOKEN_RING = np.dtype([("access", "u1"), ("control", "u1"), ("destination", "V6"), ("source", "V6")])
_FDDI = np.dtype([("control", "u1"), ("destination", "V6"), ("source", "V6")])
_SOURCE, _SOURCE_ROUTED = 8, 0x80
"""Place of a Token Ring frame's source address; its first bit: a route follows."""
_ROUTE_OCTETS = 0x1F


def read_llc(frames: Frames, link: Link, rows: Integers, at: Integers) -> None:
    """Write EtherType and IP position of the frames `rows`, whose LLC headers are at the offsets `at`.

    Frames without SNAP and without IP's own SAP become LLC (type 0).
    """
    header = gather(frames.octets, frames.offset[rows] + np.minimum(at, frames.captured[rows]), _LLC)
    unnumbered = header["control"] == _UNNUMBERED
    whole = at + _LLC.itemsize <= frames.captured[rows]
    organisation = header["organisation"]
    snap = (whole & unnumbered & (header["dsap"] == _SNAP_SAP) & (header["ssap"] == _SNAP_SAP)
            & ((organisation == _ENCAPSULATED[0]) | (organisation == _ENCAPSULATED[1])))
    bare = unnumbered & (header["dsap"] == _IP_SAP) & (header["ssap"] == _IP_SAP)
    bare &= at + _LLC_OCTETS <= frames.captured[rows]
    link.type[rows] = np.where(snap, header["type"], np.where(bare, IPV4, 0))
    link.ip_offset[rows] = np.where(snap, at + _LLC.itemsize, np.where(bare, at + _LLC_OCTETS, at))


def ethernet(frames: Frames) -> Link:
    """LINKTYPE_ETHERNET: Ethernet II, and IEEE 802.3 with IP in LLC. Other LLC frames count as such."""
    link = ethernet_ii.ethernet(frames)
    lengths = link.type < ETHERTYPE_MINIMUM
    if lengths.any():
        rows = np.flatnonzero(lengths & (link.ip_offset > 0))
        trial = Link.blank(len(lengths))
        read_llc(frames, trial, rows, link.ip_offset[rows])
        rows = rows[_is_ip(trial.type[rows])]
        link.type[rows], link.ip_offset[rows] = trial.type[rows], trial.ip_offset[rows]
        skip_headers(frames, link, rows)
    return link


def _is_ip(types: Integers) -> npt.NDArray[np.bool_]:
    """Whether IP may follow: not ARP, which counts as LLC here as it does in the kernel."""
    found: npt.NDArray[np.bool_] = (types >= ETHERTYPE_MINIMUM) & (types != ARP)
    return found


def token_ring(frames: Frames) -> Link:
    """LINKTYPE_IEEE802_5, with or without source routing."""
    link, whole = _begin(frames, _TOKEN_RING)
    routed = whole & (frames.octets[frames.offset + np.where(whole, _SOURCE, 0)] & _SOURCE_ROUTED > 0)
    route = frames.octets[frames.offset + np.where(routed, _TOKEN_RING.itemsize, 0)] & _ROUTE_OCTETS
    return _finish(frames, link, whole, _TOKEN_RING.itemsize + np.where(routed, route, 0).astype(np.int64))


def fddi(frames: Frames) -> Link:
    """LINKTYPE_FDDI."""
    link, whole = _begin(frames, _FDDI)
    return _finish(frames, link, whole, np.full(len(whole), _FDDI.itemsize))


def atm(frames: Frames) -> Link:
    """LINKTYPE_ATM_RFC1483: routed protocols, and bridged Ethernet frames."""
    link = Link.blank(len(frames.offset))
    every = np.arange(len(frames.offset))
    _finish(frames, link, np.ones(len(every), np.bool_), np.zeros(len(every), np.int64))
    header = gather(frames.octets, frames.offset, _LLC)
    bridged = ((header["dsap"] == _SNAP_SAP) & (header["organisation"] == _BRIDGED)
               & np.isin(header["type"], _BRIDGED_ETHERNET))
    rows = np.flatnonzero(bridged)
    read_nested(frames, link, rows, np.full(len(rows), _LLC.itemsize + _BRIDGED_PAD), ethernet)
    return link


def _begin(frames: Frames, dtype: np.dtype[np.void]) -> tuple[Link, npt.NDArray[np.bool_]]:
    """A link with the MACs of these headers, and which headers are complete."""
    link = Link.blank(len(frames.offset))
    whole = frames.captured >= dtype.itemsize
    header = gather(frames.octets, frames.offset, dtype)
    link.source_mac[whole], link.destination_mac[whole] = header["source"][whole], header["destination"][whole]
    return link, whole


def _finish(frames: Frames, link: Link, whole: npt.NDArray[np.bool_], at: Integers) -> Link:
    """Read the LLC headers at `at`."""
    rows = np.flatnonzero(whole)
    read_llc(frames, link, rows, at[rows])
    follow_type(frames, link)
    return link


