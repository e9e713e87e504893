"""The classic pcap format (draft-ietf-opsawg-pcap): records, micro- and nanoseconds, both byte orders."""

from __future__ import annotations

import contextlib
import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.packets.frames import LONGEST_FRAME, FileInterface, Frames, Integers, gather

_HEADER = 16
_CAPTURED = 8
_READABLE = 12
"""Octets of a record's header needed to find the next record."""
_STRIDE = 16_384
"""Minimum length of a lane in octets."""
_LEAST_LANES = 32
"""With fewer lanes, a numpy step is slower than the loop."""


def record_offsets(raw: bytearray, start: int, end: int, order: str, longest: int) -> tuple[Integers, int]:
    """Return the offsets of the complete records from `start`, where one begins, to `end`; and the end of the last.

    Stops at a record longer than `longest` octets.
    """
    edges = _edges(raw, start, end, order, longest)  # the last edge has no readable header
    good = (np.diff(edges) <= longest + _HEADER) & (edges[1:] <= end)
    count = len(good) if good.all() else int(np.argmin(good))
    return edges[:count], int(edges[count])


def _edges(raw: bytearray, start: int, end: int, order: str, longest: int) -> Integers:
    begins = _lane_begins(raw, start, end, order, longest)
    if len(begins) < _LEAST_LANES:
        return np.array(_walk(raw, start, end, order, {}), np.int64)
    offsets, counts, ends = _walk_lanes(raw, begins, end, order)
    bounds = np.concatenate(([0], np.cumsum(counts)))
    breaks = np.append(np.flatnonzero(ends[:-1] != begins[1:]), len(begins) - 1)
    lane_at = {begin: lane for lane, begin in enumerate(begins.tolist())}
    parts: list[Integers] = []
    lane: int | None = 0
    while lane is not None:
        last = int(breaks[np.searchsorted(breaks, lane)])
        parts.append(offsets[bounds[lane]:bounds[last + 1]])
        between = _walk(raw, int(ends[last]), end, order, lane_at)
        lane = lane_at.get(between[-1])
        parts.append(np.array(between[:-1] if lane is not None else between, np.int64))
    return np.concatenate(parts)


def _walk(raw: bytearray, start: int, end: int, order: str, lane_at: dict[int, int]) -> list[int]:
    """Follow records from `start` to the beginning of a lane, or until no header can be read."""
    captured_at = struct.Struct(f"{order}{_CAPTURED}xI").unpack_from
    offsets: list[int] = []
    add = offsets.append
    following = start
    with memoryview(raw) as whole, whole[:end] as view, contextlib.suppress(struct.error):  # raised at the view's end
        if not lane_at:
            while True:  # the hot loop
                add(following)
                following += captured_at(view, following)[0] + _HEADER
        while True:
            add(following)
            if following in lane_at:
                break
            following += captured_at(view, following)[0] + _HEADER
    return offsets


def _lane_begins(raw: bytearray, start: int, end: int, order: str, longest: int) -> Integers:
    """`start`, and offsets after it where records probably begin, about _STRIDE apart."""
    if end - start < _LEAST_LANES * _STRIDE:
        return np.array([start], np.int64)
    upper = 2 if order == "<" else 0
    sign = bytes(raw[start + upper:start + upper + 2])
    find, hits = raw.find, []
    for at, following in pairwise(range(start + _STRIDE, end - _HEADER, _STRIDE)):
        if (hit := find(sign, at, following)) >= 0:
            hits.append(hit - upper)
    candidates = np.array(hits, np.int64)
    octets = np.frombuffer(raw, np.uint8)
    header = gather(octets, candidates, np.dtype((f"{order}u4", (4,)))).astype(np.int64)
    captured, wire = header[:, 2], header[:, 3]
    good = (captured <= longest) & (captured <= wire) & (candidates + captured + 2 * _HEADER <= end)
    candidates, captured = candidates[good], captured[good]
    signs = gather(octets, candidates + captured + _HEADER + upper, np.dtype("V2"))
    return np.concatenate(([start], candidates[signs == np.void(sign)]))


def _walk_lanes(raw: bytearray, begins: Integers, end: int, order: str,
                ) -> tuple[Integers, npt.NDArray[np.intp], Integers]:
    """Follow records from each beginning to the next one; from the last to `end`.

    Returns:
        Offsets of the records, lane by lane; the number of each lane's records; and each lane's end. A lane much longer
        than the others stops early.
    """
    octets = np.frombuffer(raw, np.uint8)
    length = np.dtype(f"{order}u4")
    at, lanes = begins.copy(), np.arange(len(begins))
    limits = np.append(begins[1:], end - _READABLE + 1)
    ends = begins.copy()
    offsets: list[Integers] = []
    owners: list[npt.NDArray[np.intp]] = []
    while len(at) >= _LEAST_LANES:
        offsets.append(at)
        owners.append(lanes)
        at = at + gather(octets, at + _CAPTURED, length) + _HEADER
        ends[lanes] = at
        going = at < limits
        if not going.all():
            at, lanes, limits = at[going], lanes[going], limits[going]
    owner = np.concatenate(owners)
    order_of_lanes = np.argsort(owner, kind="stable")
    return np.concatenate(offsets)[order_of_lanes], np.bincount(owner, minlength=len(begins)), ends


HEADER_OCTETS = 24
RECORD_OCTETS = 16
_LINK_TYPE = 0xFFFF
"""The bits above are the length of the frame check sequence."""
_MAGIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
"""By magic number: unit of the time's fraction in ns."""


def pcap_order(octets: bytes) -> str | None:
    """"<" or ">" if these octets begin a pcap file, else None."""
    for order in "<>":
        if len(octets) >= 4 and struct.unpack_from(f"{order}I", octets)[0] in _MAGIC:
            return order
    return None


class PcapReader:
    """Finds the frames of a pcap file.

    Args:
        stream: its buffer begins with the file header, which is taken.
        name: name of the file's only interface.
    """

    def __init__(self, stream: OctetStream, name: str) -> None:
        header = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        order = pcap_order(header)
        if order is None or len(header) < HEADER_OCTETS:
            raise DamagedError("is cut off in its header")
        magic, link_type = struct.unpack(f"{order}I16xI", header)
        self._order = order
        self._fraction_ns = _MAGIC[magic]
        self.interfaces = (FileInterface(link_type & _LINK_TYPE, name),)
        self._record = np.dtype([(field, f"{order}u4") for field in ("s", "fraction", "captured", "wire")])
        stream.start += HEADER_OCTETS

    def read(self, stream: OctetStream) -> Frames | None:
        """See FrameReader."""
        at, following = record_offsets(stream.raw, stream.start, stream.end, self._order, LONGEST_FRAME)
        if not len(at):
            self._refuse_damage(stream)
            return None
        stream.start = following
        records = gather(stream.buffer, at, self._record)
        captured = records["captured"].astype(np.int64)
        return Frames(
            octets=stream.buffer,
            offset=at + RECORD_OCTETS,
            captured=captured,
            wire=np.maximum(records["wire"], captured),
            time_ns=records["s"].astype(np.int64) * 1_000_000_000
            + records["fraction"].astype(np.int64) * self._fraction_ns,
            interface=np.zeros(len(at), np.int64),
            egress=np.zeros(len(at), np.bool_),
            interfaces=self.interfaces,
        )

    def _refuse_damage(self, stream: OctetStream) -> None:
        left = stream.end - stream.start
        if left >= RECORD_OCTETS:
            (captured,) = struct.unpack_from(f"{self._order}I", stream.view, stream.start + 8)
            if captured > LONGEST_FRAME:
                raise DamagedError(f"is damaged: a record of {captured:,} octets")
        if left and stream.at_end:
            raise DamagedError("is cut off in the middle of a record")
