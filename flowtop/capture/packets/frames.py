"""Positions of frames in a buffer, and their interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]

PAD = 128
"""Zeros after the octets of a buffer, so that a whole header can be read even if fewer octets are left."""

LONGEST_FRAME = 2 << 20
"""Limit of octets per captured frame; longer ones are damage. (tcpdump's largest snap length is 256 KiB.)"""
LATEST_NS = 1 << 62
"""Later times (after 2116) are replaced by this, so that sums of times do not overflow."""


@dataclass(frozen=True, slots=True)
class FileInterface:
    """An interface as described in the file.

    Attributes:
        link_type: LINKTYPE_ number of its frames (tcpdump.org/linktypes.html).
        name: untrusted text, "" if the file has none.
    """

    link_type: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames in the file's order; one element per frame, shape (n,).

    Attributes:
        octets: the buffer, with PAD octets after the last frame.
        offset: start of each frame in it.
        captured: octets in the file.
        wire: octets on the wire.
        time_ns: since 1970 UTC, 0 to LATEST_NS.
        interface: index into `interfaces`.
        egress: marked as sent in the file (pcapng's epb_flags).
        interfaces: those known so far.
        ingress: marked as received in the file; None: no frame is.
        owner: u8, see model/owners.py: whose socket it is, by its comment in the file; None: no frame has one.
        ordinal: which of its packets is meant, from 0; None: 0 for all. The other attributes are the whole frame's.
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
    owner: npt.NDArray[np.uint64] | None = None
    ordinal: Integers | None = None

    def take(self, rows: Integers) -> Frames:
        """These frames."""
        return Frames(self.octets, self.offset[rows], self.captured[rows], self.wire[rows], self.time_ns[rows],
                      self.interface[rows], self.egress[rows], self.interfaces,
                      None if self.ingress is None else self.ingress[rows],
                      None if self.owner is None else self.owner[rows],
                      None if self.ordinal is None else self.ordinal[rows])


def gather(octets: Octets, offset: Integers, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The items of `dtype` at these offsets, with any alignment, shape (n,). They must lie within the buffer."""
    size = dtype.itemsize
    windows = np.ndarray((len(octets) - size + 1,), f"V{size}", octets, strides=(1,))
    return windows[offset].view(dtype)
