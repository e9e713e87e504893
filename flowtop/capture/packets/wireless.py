"""IEEE 802.11 data frames, and the headers that capture software puts before them: radiotap, Prism, AVS.

Frames that are encrypted, management and control frames, and later fragments of a frame are not IP. Of an A-MSDU the
subframe `Frames.ordinal` is read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.headers import ETHERTYPE_MINIMUM
from flowtop.capture.packets.link import Link, follow_type
from flowtop.capture.packets.llc import read_llc
from flowtop.capture.packets.nested import frames_from, read_nested

_HEADER = np.dtype([("control", "<u2"), ("duration", "V2"), ("first", "V6"), ("second", "V6"), ("third", "V6"),
                    ("sequence", "<u2")])
_TYPE, _DATA = 0x000C, 0x0008
_NO_DATA, _QOS = 0x0040, 0x0080
_TO_DS, _FROM_DS, _PROTECTED, _ORDER = 0x0100, 0x0200, 0x4000, 0x8000
_FRAGMENT_NUMBER = 0x000F
_ADDRESS_OCTETS, _QOS_OCTETS, _HT_OCTETS = 6, 2, 4
_AGGREGATE = 0x80
"""In the first octet of QoS Control: the body is an A-MSDU."""
_SUBFRAME = np.dtype([("destination", "V6"), ("source", "V6"), ("length", ">u2")])

_RADIOTAP = np.dtype([("version", "u1"), ("pad", "u1"), ("length", "<u2"), ("present", "<u4")])
_TSFT, _FLAGS, _MORE_WORDS = 1 << 0, 1 << 1, 1 << 31
_MOST_WORDS = 8
"""Limit of words that say which fields a radiotap header has."""
_CHECKED, _PADDED = 0x10, 0x20
"""Radiotap flags: a frame check sequence at the end; the body is aligned to 4 octets."""
_CHECK_OCTETS = 4

_PRISM_OCTETS = 144
_AVS = np.dtype([("magic", ">u4"), ("length", ">u4")])
_AVS_MAGICS = (0x80211001, 0x80211002)


def ieee80211(frames: Frames) -> Link:
    """LINKTYPE_IEEE802_11."""
    return _ieee80211(frames, np.zeros(len(frames.offset), np.bool_))


def _ieee80211(frames: Frames, padded: npt.NDArray[np.bool_]) -> Link:
    """802.11 frames; `padded`: where the header is followed by octets that align the body."""
    link = Link.blank(len(frames.offset))
    link.type[:] = ETHERTYPE_MINIMUM
    header = gather(frames.octets, frames.offset, _HEADER)
    control = header["control"].astype(np.int64)
    data = (control & (_TYPE | _NO_DATA) == _DATA) & (control & _PROTECTED == 0)
    data &= (header["sequence"] & _FRAGMENT_NUMBER == 0) & (frames.captured >= _HEADER.itemsize)
    rows = np.flatnonzero(data)
    if not len(rows):
        return link
    control = control[rows]
    to_ds, from_ds, qos = control & _TO_DS > 0, control & _FROM_DS > 0, control & _QOS > 0
    addresses = _HEADER.itemsize + np.where(to_ds & from_ds, _ADDRESS_OCTETS, 0)
    at = addresses + np.where(qos, _QOS_OCTETS, 0) + np.where(qos & (control & _ORDER > 0), _HT_OCTETS, 0)
    at += np.where(padded[rows], -at % 4, 0)
    fits = at <= frames.captured[rows]
    rows, at, addresses = rows[fits], at[fits], addresses[fits]
    header, to_ds, from_ds, qos = header[rows], to_ds[fits], from_ds[fits], qos[fits]
    fourth = gather(frames.octets, frames.offset[rows] + _HEADER.itemsize, np.dtype("V6"))
    link.destination_mac[rows] = np.where(to_ds, header["third"], header["first"])
    link.source_mac[rows] = np.where(from_ds, np.where(to_ds, fourth, header["third"]), header["second"])
    aggregate = qos & (frames.octets[frames.offset[rows] + addresses] & _AGGREGATE > 0)
    ordinal = np.zeros(len(rows), np.int64) if frames.ordinal is None else frames.ordinal[rows]
    if aggregate.any():
        at[aggregate], following = _subframes(frames, rows[aggregate], at[aggregate], ordinal[aggregate])
        link.more[rows[aggregate]] = _subframe_octets(frames, rows[aggregate], following) > 0
        subframe = gather(frames.octets, frames.offset[rows[aggregate]] + at[aggregate], _SUBFRAME)
        link.destination_mac[rows[aggregate]] = subframe["destination"]
        link.source_mac[rows[aggregate]] = subframe["source"]
        at[aggregate] += _SUBFRAME.itemsize
    there = at <= frames.captured[rows]
    read_llc(frames, link, rows[there], at[there])
    follow_type(frames, link)
    return link


def _subframes(frames: Frames, rows: Integers, at: Integers, ordinal: Integers) -> tuple[Integers, Integers]:
    """Where the subframes `ordinal` begin, and those after them; `at`: the first ones.

    Each takes a header, its length, and octets that align the next one to 4. A header of zeros is padding.
    """
    following = at
    for step in range(int(ordinal.max()) + 1):
        at = np.where(ordinal >= step, following, at)
        octets = _subframe_octets(frames, rows, at)
        following = np.minimum(at + octets + -octets % 4, frames.captured[rows])
    return at, following


def _subframe_octets(frames: Frames, rows: Integers, at: Integers) -> Integers:
    """Octets of the subframes that begin at these offsets, with their headers; 0 where there is none."""
    length = gather(frames.octets, frames.offset[rows] + at, _SUBFRAME)["length"].astype(np.int64)
    there = (length > 0) & (at + _SUBFRAME.itemsize <= frames.captured[rows])
    return np.where(there, length + _SUBFRAME.itemsize, 0)


def radiotap(frames: Frames) -> Link:
    """LINKTYPE_IEEE802_11_RADIOTAP (radiotap.org): its length and flags are used."""
    link = Link.blank(len(frames.offset))
    header = gather(frames.octets, frames.offset, _RADIOTAP)
    length = header["length"].astype(np.int64)
    rows = np.flatnonzero((length >= _RADIOTAP.itemsize) & (length <= frames.captured))
    flags = _radiotap_flags(frames, rows, header["present"][rows].astype(np.int64), length[rows])
    inner = frames_from(frames, rows, length[rows])
    checked = (flags & _CHECKED > 0) & (inner.wire >= _CHECK_OCTETS)
    wire = inner.wire - np.where(checked, _CHECK_OCTETS, 0)
    inner = replace(inner, captured=np.minimum(inner.captured, wire), wire=wire)
    part = _ieee80211(inner, flags & _PADDED > 0)
    for name in Link.__slots__:
        getattr(link, name)[rows] = getattr(part, name)
    link.ip_offset[rows] += length[rows]
    return link


def _radiotap_flags(frames: Frames, rows: Integers, present: Integers, length: Integers) -> Integers:
    """The flags field of the frames `rows`, 0 where there is none.

    It is preceded by the time, if that is present, which is aligned to 8 octets from the start of the header.
    """
    words = np.ones(len(rows), np.int64)
    more = present & _MORE_WORDS > 0
    for word in range(1, _MOST_WORDS):
        if not more.any():
            break
        at = np.minimum(4 + 4 * word, frames.captured[rows])
        words += more
        more &= gather(frames.octets, frames.offset[rows] + at, np.dtype("<u4")) & np.uint32(_MORE_WORDS) > 0
    at = 4 + 4 * words
    at = np.where(present & _TSFT > 0, at + -at % 8 + 8, at)
    there = (present & _FLAGS > 0) & (at < length)
    flags = frames.octets[frames.offset[rows] + np.where(there, at, 0)].astype(np.int64)
    return np.where(there, flags, 0)


def prism(frames: Frames) -> Link:
    """LINKTYPE_IEEE802_11_PRISM: 144 octets before the frame; some drivers write AVS headers instead."""
    return _after_header(frames, np.full(len(frames.offset), _PRISM_OCTETS))


def avs(frames: Frames) -> Link:
    """LINKTYPE_IEEE802_11_AVS: a header with its length in its second word."""
    return _after_header(frames, frames.captured + 1)


def _after_header(frames: Frames, octets: Integers) -> Link:
    """802.11 frames after an AVS header, or after `octets` octets where there is none; more than captured: not read."""
    link = Link.blank(len(frames.offset))
    link.type[:] = ETHERTYPE_MINIMUM
    header = gather(frames.octets, frames.offset, _AVS)
    length = np.where(np.isin(header["magic"], _AVS_MAGICS), header["length"], octets).astype(np.int64)
    read_nested(frames, link, np.arange(len(length)), length, ieee80211)
    return link
