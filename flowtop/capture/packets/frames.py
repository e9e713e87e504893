"""Where the frames of a capture file lie, and which interface each came by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]

PAD = 128
"""Zeros after the octets of a buffer: headers are fetched whole, though less of them may be left."""

LONGEST_FRAME = 2 << 20
"""Octets of one captured frame; what claims more is damage. (tcpdump's largest snap length is 256 KiB.)"""
LATEST_NS = 1 << 62
"""Times past this (the year 2116) are taken for this: sums of times must not overflow."""


@dataclass(frozen=True, slots=True)
class FileInterface:
    """One interface as the file describes it.

    Attributes:
        link_type: LINKTYPE_ number of its frames (tcpdump.org/linktypes.html).
        name: untrusted text, "" when the file has none.
    """

    link_type: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Frames:
    """Some frames, in the file's order; one element a frame, shape (n,).

    Attributes:
        octets: the buffer they lie in, PAD octets longer than the last one's end.
        offset: where each begins in it.
        captured: octets of it that are in the file.
        wire: octets it had.
        time_ns: since 1970 UTC, 0 to LATEST_NS.
        interface: index into `interfaces`.
        egress: the file says that it was sent (pcapng's epb_flags).
        interfaces: those known by now.
        ingress: the file says that it was received; None: of none.
    """

    octets: Octets
    offset: Integers
    captured: Integers
    wire: Integers
    time_ns: Integers
    interface: Integers
    egress: npt.NDArray[np.bool_]
    interfaces: tuple[FileInterface, ...]
    ingress: npt.NDArray[np.bool_] | None = None


def gather(octets: Octets, offset: Integers, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The items of `dtype` at these offsets, any alignment, shape (n,). All of each must lie in the buffer."""
    size = dtype.itemsize
    windows = np.ndarray((len(octets) - size + 1,), f"V{size}", octets, strides=(1,))
    return windows[offset].view(dtype)
