"""The classic pcap format (draft-ietf-opsawg-pcap): records, micro- and nanoseconds, both byte orders.

Patched versions of libpcap wrote longer record headers, some of them under the usual magic number; see _FORMS.
"""

from __future__ import annotations

import contextlib
import struct
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.packets.frames import LONGEST_FRAME, FileInterface, Frames, Integers, gather
from flowtop.wire.owner_comments import CommentOwners

USUAL_HEADER = 16
_CAPTURED = 8
_READABLE = 12
"""Octets of a record's header needed to find the next record."""
_STRIDE = 16_384
"""Minimum length of a lane in octets."""
_LEAST_LANES = 32
"""With fewer lanes, a numpy step is slower than the loop."""


class Layout(NamedTuple):
    """How the records of a file are written.

    Attributes:
        order: byte order, "<" or ">".
        header: octets of a record's header.
    """

    order: str
    header: int


def record_offsets(raw: bytearray, start: int, end: int, order: str, longest: int, header: int = USUAL_HEADER,
                   ) -> tuple[Integers, int]:
    """Return the offsets of the complete records from `start`, where one begins, to `end`; and the end of the last.

    Stops at a record longer than `longest` octets. `header`: octets of a record's header.
    """
    layout = Layout(order, header)
    edges = _edges(raw, start, end, layout, longest)  # the last edge has no readable header
    good = (np.diff(edges) <= longest + layout.header) & (edges[1:] <= end)
    count = len(good) if good.all() else int(np.argmin(good))
    return edges[:count], int(edges[count])


def _edges(raw: bytearray, start: int, end: int, layout: Layout, longest: int) -> Integers:
    begins = _lane_begins(raw, start, end, layout, longest)
    if len(begins) < _LEAST_LANES:
        return np.array(_walk(raw, start, end, layout, {}), np.int64)
    offsets, counts, ends = _walk_lanes(raw, begins, end, layout)
    bounds = np.concatenate(([0], np.cumsum(counts)))
    breaks = np.append(np.flatnonzero(ends[:-1] != begins[1:]), len(begins) - 1)
    lane_at = {begin: lane for lane, begin in enumerate(begins.tolist())}
    parts: list[Integers] = []
    lane: int | None = 0
    while lane is not None:
        last = int(breaks[np.searchsorted(breaks, lane)])
        parts.append(offsets[bounds[lane]:bounds[last + 1]])
        between = _walk(raw, int(ends[last]), end, layout, lane_at)
        lane = lane_at.get(between[-1])
        parts.append(np.array(between[:-1] if lane is not None else between, np.int64))
    return np.concatenate(parts)


def _walk(raw: bytearray, start: int, end: int, layout: Layout, lane_at: dict[int, int]) -> list[int]:
    """Follow records from `start` to the beginning of a lane, or until no header can be read."""
    order, header = layout
    captured_at = struct.Struct(f"{order}{_CAPTURED}xI").unpack_from
    offsets: list[int] = []
    add = offsets.append
    following = start
    with memoryview(raw) as whole, whole[:end] as view, contextlib.suppress(struct.error):  # raised at the view's end
        if not lane_at:
            while True:  # the hot loop
                add(following)
                following += captured_at(view, following)[0] + header
        while True:
            add(following)
            if following in lane_at:
                break
            following += captured_at(view, following)[0] + header
    return offsets


def _lane_begins(raw: bytearray, start: int, end: int, layout: Layout, longest: int) -> Integers:
    """`start`, and offsets after it where records probably begin, about _STRIDE apart."""
    order, size = layout
    if end - start < _LEAST_LANES * _STRIDE:
        return np.array([start], np.int64)
    upper = 2 if order == "<" else 0
    sign = bytes(raw[start + upper:start + upper + 2])
    find, hits = raw.find, []
    for at, following in pairwise(range(start + _STRIDE, end - size, _STRIDE)):
        if (hit := find(sign, at, following)) >= 0:
            hits.append(hit - upper)
    candidates = np.array(hits, np.int64)
    octets = np.frombuffer(raw, np.uint8)
    header = gather(octets, candidates, np.dtype((f"{order}u4", (4,)))).astype(np.int64)
    captured, wire = header[:, 2], header[:, 3]
    good = (captured <= longest) & (captured <= wire) & (candidates + captured + 2 * size <= end)
    candidates, captured = candidates[good], captured[good]
    signs = gather(octets, candidates + captured + size + upper, np.dtype("V2"))
    return np.concatenate(([start], candidates[signs == np.void(sign)]))


def _walk_lanes(raw: bytearray, begins: Integers, end: int, layout: Layout,
                ) -> tuple[Integers, npt.NDArray[np.intp], Integers]:
    """Follow records from each beginning to the next one; from the last to `end`.

    Returns:
        Offsets of the records, lane by lane; the number of each lane's records; and each lane's end. A lane much longer
        than the others stops early.
    """
    octets = np.frombuffer(raw, np.uint8)
    length = np.dtype(f"{layout.order}u4")
    at, lanes = begins.copy(), np.arange(len(begins))
    limits = np.append(begins[1:], end - _READABLE + 1)
    ends = begins.copy()
    offsets: list[Integers] = []
    owners: list[npt.NDArray[np.intp]] = []
    while len(at) >= _LEAST_LANES:
        offsets.append(at)
        owners.append(lanes)
        at = at + gather(octets, at + _CAPTURED, length) + layout.header
        ends[lanes] = at
        going = at < limits
        if not going.all():
            at, lanes, limits = at[going], lanes[going], limits[going]
    owner = np.concatenate(owners)
    order_of_lanes = np.argsort(owner, kind="stable")
    return np.concatenate(offsets)[order_of_lanes], np.bincount(owner, minlength=len(begins)), ends


HEADER_OCTETS = 24
_LINK_TYPE = 0xFFFF
"""The bits above are the length of the frame check sequence."""
_MICROSECONDS, _NANOSECONDS, _PATCHED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_MAGIC = {_MICROSECONDS: 1000, _NANOSECONDS: 1, _PATCHED: 1000}
"""By magic number: unit of the time's fraction in ns."""
_FOREIGN = {0xA12B3C4D: "Navtel's", 0x1C0001AC: "Ixia's hardware", 0x1C0001AB: "Ixia's software"}
"""By magic number: whose variants of pcap are not read."""
_FORMS = {_MICROSECONDS: (USUAL_HEADER, 24, 20), _NANOSECONDS: (USUAL_HEADER,), _PATCHED: (24, 28)}
"""By magic number: octets of a record's header, the usual one first.

A. Kuznetsov's libpcap added interface, protocol and packet type (24 octets), first under the usual magic number (Red
Hat 6.1); SuSE 6.3 also the processor (28). Nokia's added 4 octets.
"""
_PACKET_TYPE, _OUTGOING = 22, 4
"""Place of the packet type in the headers of 24 and 28 octets; that of packets that were sent (linux/if_packet.h)."""
_TRIED = 64
"""Records that are looked at to find the length of their headers."""


def pcap_order(octets: bytes) -> str | None:
    """"<" or ">" if these octets begin a pcap file, else None."""
    for order in "<>":
        if len(octets) >= 4 and struct.unpack_from(f"{order}I", octets)[0] in _MAGIC:
            return order
    return None


def foreign_pcap(octets: bytes) -> str:
    """Whose variant of pcap these octets begin, if it is one that is not read, else ""."""
    magics = [struct.unpack_from(f"{order}I", octets)[0] for order in "<>"] if len(octets) >= 4 else []
    return next((_FOREIGN[magic] for magic in magics if magic in _FOREIGN), "")


def _header_octets(view: memoryview, order: str, magic: int, *, at_end: bool) -> int:
    """Length of the headers of the records in `view`: the usual one, unless only another gives valid records."""
    sizes = _FORMS[magic]
    for size in sizes:
        if _valid_records(view, Layout(order, size), 1_000_000_000 // _MAGIC[magic], at_end=at_end):
            return size
    return sizes[0]


def _valid_records(view: memoryview, layout: Layout, fractions: int, *, at_end: bool) -> bool:
    """Whether all of the first records are valid, with a fraction of a second below `fractions`."""
    at = 0
    for _ in range(_TRIED):
        if len(view) - at < layout.header:
            return not at_end or at == len(view)
        _, fraction, captured, wire = struct.unpack_from(f"{layout.order}IIII", view, at)
        if fraction >= fractions or captured > min(wire, LONGEST_FRAME):
            return False
        at += layout.header + captured
    return at <= len(view) or not at_end


class PcapReader:
    """Finds the frames of a pcap file.

    Args:
        stream: its buffer begins with the file header, which is taken.
        name: name of the file's only interface.

    Attributes:
        owners: none.
    """

    def __init__(self, stream: OctetStream, name: str) -> None:
        self.owners: CommentOwners | None = None
        header = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        order = pcap_order(header)
        if order is None or len(header) < HEADER_OCTETS:
            raise DamagedError("is cut off in its header")
        magic, link_type = struct.unpack(f"{order}I16xI", header)
        stream.start += HEADER_OCTETS
        self._layout = Layout(order, _header_octets(stream.view[stream.start:stream.end], order, magic,
                                                    at_end=stream.at_end))
        self._fraction_ns = _MAGIC[magic]
        self.interfaces = (FileInterface(link_type & _LINK_TYPE, name),)
        self._record = np.dtype([(field, f"{order}u4") for field in ("s", "fraction", "captured", "wire")])

    def read(self, stream: OctetStream) -> Frames | None:
        """See FrameReader."""
        order, header = self._layout
        at, following = record_offsets(stream.raw, stream.start, stream.end, order, LONGEST_FRAME, header)
        if not len(at):
            self._refuse_damage(stream)
            return None
        stream.start = following
        records = gather(stream.buffer, at, self._record)
        captured = records["captured"].astype(np.int64)
        return Frames(
            octets=stream.buffer,
            offset=at + self._layout.header,
            captured=captured,
            wire=np.maximum(records["wire"], captured),
            time_ns=records["s"].astype(np.int64) * 1_000_000_000
            + records["fraction"].astype(np.int64) * self._fraction_ns,
            interface=np.zeros(len(at), np.int64),
            egress=self._egress(stream, at),
            interfaces=self.interfaces,
        )

    def _egress(self, stream: OctetStream, at: Integers) -> npt.NDArray[np.bool_]:
        """Which of the records at these offsets say that the packet was sent."""
        if self._layout.header < _PACKET_TYPE + 2:
            return np.zeros(len(at), np.bool_)
        sent: npt.NDArray[np.bool_] = stream.buffer[at + _PACKET_TYPE] == _OUTGOING
        return sent

    def _refuse_damage(self, stream: OctetStream) -> None:
        left = stream.end - stream.start
        if left >= self._layout.header:
            (captured,) = struct.unpack_from(f"{self._layout.order}I", stream.view, stream.start + _CAPTURED)
            if captured > LONGEST_FRAME:
                raise DamagedError(f"is damaged: a record of {captured:,} octets")
        if left and stream.at_end:
            raise DamagedError("is cut off in the middle of a record")
