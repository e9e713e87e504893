"""Packets that captures hand over for writing, and the protocol of the writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    Integers = npt.NDArray[np.int64]


WHOLE_PACKET = 262_144
"""Octets of a packet that is not cut: tcpdump's own largest snap length."""


@dataclass(frozen=True, slots=True)
class PacketInterface:
    """The interface of packets.

    Attributes:
        name: untrusted text.
        link_type: LINKTYPE_ number of its frames.
    """

    name: str
    link_type: int


@dataclass(frozen=True, slots=True)
class PacketBatch:
    """Packets that are in flows, in order of arrival; one element a packet, shape (n,).

    Attributes:
        keys: FLOW_KEY_DTYPE.
        octets: uint8: the buffer that holds the frames, with VLAN tags.
        offset: of each frame in it.
        captured: octets of each frame in it.
        wire: original length of each frame; for a super-packet (GSO, GRO) its whole length.
        time_ns: since 1970 UTC.
        received: bool, known to have been received; others were sent, or it is not known.
        interfaces: by ifindex.
        owners: u8, see model/owners.py: whose socket it is; None: it is not looked for.
        texts: of the owners, see model.owners.TEXTS.

    The arrays may be views of buffers that are reused: copy what you keep before you return.
    """

    keys: npt.NDArray[np.void]
    octets: npt.NDArray[np.uint8]
    offset: Integers
    captured: Integers
    wire: Integers
    time_ns: Integers
    received: npt.NDArray[np.bool_]
    interfaces: Mapping[int, PacketInterface]
    owners: npt.NDArray[np.uint64] | None = None
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PacketLosses:
    """Packets of one interface that a PacketSink should have got and did not, since its beginning.

    Attributes:
        dropped: there was no room for them in the kernel.
        capped: over the limit of packets of a flow.
    """

    dropped: int = 0
    capped: int = 0


class PacketSink(Protocol):
    """Writes packets. Called from one thread of the capture."""

    def write(self, packets: PacketBatch) -> None:
        """Write the selected packets; when full, only count them. May wait for a disk; never raises."""

    def note_losses(self, losses: Mapping[int, PacketLosses]) -> None:
        """Losses by ifindex, since the beginning."""

    def finish(self) -> None:
        """End of packets. Calling it again does nothing."""

    @property
    def over(self) -> bool:
        """Whether it takes no more packets: full, failed, or finished."""


@dataclass(frozen=True, slots=True)
class PacketRequest:
    """Which packets a capture hands over.

    Attributes:
        sink: takes them.
        snap: maximum of octets of a frame, > 0.
        per_flow: maximum of packets of each flow, from the first on; 0: all.
        expression: which packets the kernel selects: see flowtop.filters.kernel.Split; "": all.
    """

    sink: PacketSink
    snap: int = WHOLE_PACKET
    per_flow: int = 0
    expression: str = ""
