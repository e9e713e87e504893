"""Packets as captures hand them over to be written, and who takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    Integers = npt.NDArray[np.int64]


WHOLE_PACKET = 262_144
"""Octets of a packet that is not cut: tcpdump's own largest snap length."""


@dataclass(frozen=True, slots=True)
class PacketInterface:
    """Where packets came by.

    Attributes:
        name: untrusted text.
        link_type: LINKTYPE_ number of their frames.
    """

    name: str
    link_type: int


@dataclass(frozen=True, slots=True)
class PacketBatch:
    """Packets that are in flows, in the order in which they came; one element a packet, shape (n,).

    Attributes:
        keys: FLOW_KEY_DTYPE.
        octets: uint8: the buffer in which the frames lie, VLAN tags among them.
        offset: where each frame begins in it.
        captured: octets of each frame that are there.
        wire: octets it had; of a super-packet (GSO, GRO) that was not yet, or not any more, in segments: all of it.
        time_ns: since 1970 UTC.
        received: they are known to have been, bool; others were sent, or nobody says.
        interfaces: by ifindex.

    The arrays may be views of buffers that are used again: take what you keep before you return.
    """

    keys: npt.NDArray[np.void]
    octets: npt.NDArray[np.uint8]
    offset: Integers
    captured: Integers
    wire: Integers
    time_ns: Integers
    received: npt.NDArray[np.bool_]
    interfaces: Mapping[int, PacketInterface]


@dataclass(frozen=True, slots=True)
class PacketLosses:
    """What of the wanted packets of one interface never came to a PacketSink, since it was begun.

    Attributes:
        dropped: there was no room for them in the kernel.
        capped: their flow had had its share.
    """

    dropped: int = 0
    capped: int = 0


class PacketSink(Protocol):
    """Who writes packets. Called from one thread of the capture."""

    def write(self, packets: PacketBatch) -> None:
        """Write those that are wanted; count them, when it is full. May wait for a disk; never raises."""

    def note_losses(self, losses: Mapping[int, PacketLosses]) -> None:
        """What did not come, by ifindex, since the beginning."""

    def finish(self) -> None:
        """Nothing will come any more. Calling it again does nothing."""

    @property
    def over(self) -> bool:
        """It takes no more: full, failed, or ended."""


@dataclass(frozen=True, slots=True)
class PacketRequest:
    """What a capture is to hand over.

    Attributes:
        sink: to whom.
        snap: octets of a frame that are wanted at most, > 0.
        per_flow: packets of each flow that are wanted at most, from the first on; 0: all.
        expression: what the kernel may leave out by itself: see flowtop.filters.kernel.Split; "": nothing.
    """

    sink: PacketSink
    snap: int = WHOLE_PACKET
    per_flow: int = 0
    expression: str = ""
