"""Where the records of a pcap file begin: each is found through the length of the one before.

Walking from one to the next is the only work that a capture asks for packet by packet, and Python's loop would take a
third of all the time. So a large piece is walked in many lanes at once, one numpy step for all of them: a lane begins
where a record seems to (the upper octets of its time are those of the first one's), and ends where the next one begins.
That is a guess, and a guess can be wrong: a lane counts only when the walk from the piece's true beginning arrives
exactly where it begins. What no lane has is walked by the loop.
"""

from __future__ import annotations

import contextlib
import struct
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.frames import Integers, gather

_HEADER = 16
_CAPTURED = 8
_READABLE = 12
"""Octets of a record's header that a step needs."""
_STRIDE = 16_384
"""Octets of a lane at least."""
_LEAST_LANES = 32
"""With fewer lanes a numpy step costs more than the loop."""


def record_offsets(raw: bytearray, start: int, end: int, order: str, longest: int) -> tuple[Integers, int]:
    """Offsets of the records that lie between `start`, where one begins, and `end` as a whole; and where they end.

    It ends early at a record that claims more than `longest` octets.
    """
    edges = _edges(raw, start, end, order, longest)  # at the last one no header can be read any more
    good = (np.diff(edges) <= longest + _HEADER) & (edges[1:] <= end)
    count = len(good) if good.all() else int(np.argmin(good))
    return edges[:count], int(edges[count])


def _edges(raw: bytearray, start: int, end: int, order: str, longest: int) -> Integers:
    begins = _lane_begins(raw, start, end, order, longest)
    if len(begins) < _LEAST_LANES:
        return np.array(_walk(raw, start, end, order, {}), np.int64)
    found, counts, ends = _walk_lanes(raw, begins, end, order)
    bounds = np.concatenate(([0], np.cumsum(counts)))
    breaks = np.append(np.flatnonzero(ends[:-1] != begins[1:]), len(begins) - 1)
    lane_at = {begin: lane for lane, begin in enumerate(begins.tolist())}
    parts: list[Integers] = []
    lane: int | None = 0
    while lane is not None:
        last = int(breaks[np.searchsorted(breaks, lane)])
        parts.append(found[bounds[lane]:bounds[last + 1]])
        between = _walk(raw, int(ends[last]), end, order, lane_at)
        lane = lane_at.get(between[-1])
        parts.append(np.array(between[:-1] if lane is not None else between, np.int64))
    return np.concatenate(parts)


def _walk(raw: bytearray, start: int, end: int, order: str, lane_at: dict[int, int]) -> list[int]:
    """From `start` record by record to the beginning of a lane, or to where no header can be read."""
    captured_at = struct.Struct(f"{order}{_CAPTURED}xI").unpack_from
    found: list[int] = []
    add = found.append
    following = start
    with memoryview(raw) as whole, whole[:end] as view, contextlib.suppress(struct.error):  # the view's end
        if not lane_at:
            while True:  # nothing in this loop that can be found out later
                add(following)
                following += captured_at(view, following)[0] + _HEADER
        while True:
            add(following)
            if following in lane_at:
                break
            following += captured_at(view, following)[0] + _HEADER
    return found


def _lane_begins(raw: bytearray, start: int, end: int, order: str, longest: int) -> Integers:
    """`start`, and offsets behind it where records seem to begin, about _STRIDE apart."""
    if end - start < _LEAST_LANES * _STRIDE:
        return np.array([start], np.int64)
    upper = 2 if order == "<" else 0
    sign = bytes(raw[start + upper:start + upper + 2])
    find, found = raw.find, []
    for at, following in pairwise(range(start + _STRIDE, end - _HEADER, _STRIDE)):
        if (hit := find(sign, at, following)) >= 0:
            found.append(hit - upper)
    candidates = np.array(found, np.int64)
    octets = np.frombuffer(raw, np.uint8)
    header = gather(octets, candidates, np.dtype((f"{order}u4", (4,)))).astype(np.int64)
    captured, wire = header[:, 2], header[:, 3]
    good = (captured <= longest) & (captured <= wire) & (candidates + captured + 2 * _HEADER <= end)
    candidates, captured = candidates[good], captured[good]
    signs = gather(octets, candidates + captured + _HEADER + upper, np.dtype("V2"))
    return np.concatenate(([start], candidates[signs == np.void(sign)]))


def _walk_lanes(raw: bytearray, begins: Integers, end: int, order: str,
                ) -> tuple[Integers, npt.NDArray[np.intp], Integers]:
    """Walk from each beginning to the next one; the last to `end`.

    Returns:
        The records' offsets, lane by lane; how many each lane has; and where each arrived. A lane much longer than the
        others stops before its end.
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
