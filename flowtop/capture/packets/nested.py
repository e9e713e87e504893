"""A part of the frames, read again from a later octet on by the function of another link type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flowtop.capture.packets.frames import Frames, Integers
from flowtop.capture.packets.link import Link


def frames_from(frames: Frames, rows: Integers, skip: Integers) -> Frames:
    """The frames `rows` without their first octets.

    Args:
        skip: octets that are left out, shape (m,); at most those captured.
    """
    chosen = frames.take(rows)
    return replace(chosen, offset=chosen.offset + skip, captured=chosen.captured - skip,
                   wire=np.maximum(chosen.wire - skip, 0))


def read_nested(frames: Frames, link: Link, rows: Integers, skip: Integers, read: Callable[[Frames], Link]) -> None:
    """Write what `read` finds after `skip` octets into the elements `rows`; a direction that is known stays.

    Frames whose captured octets end before `skip` stay as they are.
    """
    fits = skip <= frames.captured[rows]
    rows, skip = rows[fits], skip[fits]
    if not len(rows):
        return
    inner = read(frames_from(frames, rows, skip))
    egress = link.egress[rows] | inner.egress
    for name in Link.__slots__:
        getattr(link, name)[rows] = getattr(inner, name)
    link.ip_offset[rows] += skip
    link.egress[rows] = egress
