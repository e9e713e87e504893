"""Where the records of a pcap file begin: each is found through the length of the one before."""

from __future__ import annotations

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
    captured_at = struct.Struct(f"{order}I").unpack_from
    view = memoryview(octets.data)
    found: list[int] = []
    add = found.append
    last = end - _HEADER
    while start <= last:
        (captured,) = captured_at(view, start + _CAPTURED)
        following = start + _HEADER + captured
        if captured > longest or following > end:
            break
        add(start)
        start = following
    return np.array(found, np.int64), start
