"""Where the records of a pcap file begin: each is found through the length of the one before."""

from __future__ import annotations

import contextlib
import struct

import numpy as np

from flowtop.capture.files.frames import Integers
from flowtop.capture.files.octets import Octets

_HEADER = 16
_CAPTURED = 8


def record_offsets(octets: Octets, start: int, end: int, order: str, longest: int) -> tuple[Integers, int]:
    """Offsets of the records that lie between `start`, where one begins, and `end` as a whole; and where they end.

    It ends early at a record that claims more than `longest` octets.
    """
    captured_at = struct.Struct(f"{order}{_CAPTURED}xI").unpack_from
    view = memoryview(octets.data)[:end]
    found: list[int] = []
    add = found.append
    following = start
    with contextlib.suppress(struct.error):  # the view's end
        while True:  # the one loop that Python walks for every packet: nothing in it that can be found out later
            add(following)
            following += captured_at(view, following)[0] + _HEADER
    edges = np.array(found, np.int64)  # at the last one no header can be read any more
    good = (np.diff(edges) <= longest + _HEADER) & (edges[1:] <= end)
    count = len(good) if good.all() else int(np.argmin(good))
    return edges[:count], int(edges[count])
