"""Parts of a file that were read but not returned yet, as packets or records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.entries import Entries, Observations, flow_entries
from flowtop.capture.packets.frames import Frames, Integers
from flowtop.capture.packets.internet import PARSED_IP, Packets
from flowtop.capture.packets.tunnels import Decapsulated
from flowtop.model.packets import PacketBatch, PacketInterface


class Piece(Protocol):
    """Part of a file."""

    @property
    def clock_ns(self) -> Integers:
        """For each packet or record, the latest time so far; never decreases, whatever the order in the file."""

    def entries(self, start: int, stop: int) -> Entries:
        """Entries of the packets or records `start` to `stop`; also adds them to the totals."""

    def packets_between(self, start: int, stop: int) -> PacketBatch | None:
        """The packets among `start` to `stop` that are in flows; None for records."""


@dataclass(frozen=True, slots=True)
class PacketPiece:
    """Parsed packets.

    Attributes:
        unjoined: which are later fragments whose first fragment was not seen.
        observations: totals of the whole file.
        frames: the frames of the packets.
        texts: of their owners, see model.owners.TEXTS.
    """

    packets: Packets
    unjoined: npt.NDArray[np.bool_]
    clock_ns: Integers
    observations: Observations
    frames: Frames
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def entries(self, start: int, stop: int, steps: Integers | None = None) -> Entries:
        """See Piece. `steps`: the step of each packet, if there are several."""
        self.observations.add(self.packets, self.unjoined, start, stop)
        return flow_entries(self.packets, start, stop, steps, self.frames.owner)

    def orderly(self, start: int, stop: int, start_ns: int, step_ns: int) -> bool:
        """Whether the time of each packet from `start` to `stop` is within the step that it is assigned to.

        Args:
            start_ns: start of the first step.
            step_ns: length of a step.
        """
        times_ns, clock_ns = self.packets.time_ns[start:stop], self.clock_ns[start:stop]
        late = np.flatnonzero(times_ns != clock_ns)
        return bool(((times_ns[late] - start_ns) // step_ns == (clock_ns[late] - start_ns) // step_ns).all())

    def ignored(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which of the packets `start` to `stop` are in no flow."""
        ignored: npt.NDArray[np.bool_] = self.packets.outcome[start:stop] != PARSED_IP
        return ignored

    def packets_between(self, start: int, stop: int) -> PacketBatch:
        """See Piece."""
        rows = np.flatnonzero(self.packets.outcome[start:stop] == PARSED_IP) + start
        frames = self.frames
        if frames.ordinal is not None:  # several packets of one frame, which is written once
            rows = rows[np.diff(frames.offset[rows], prepend=-1) != 0]
        return PacketBatch(
            keys=self.packets.keys[rows], octets=frames.octets, offset=frames.offset[rows],
            captured=frames.captured[rows], wire=frames.wire[rows], time_ns=frames.time_ns[rows],
            received=np.zeros(len(rows), np.bool_) if frames.ingress is None else frames.ingress[rows],
            interfaces={number: PacketInterface(interface.name, interface.link_type)
                        for number, interface in enumerate(frames.interfaces, 1)},
            owners=None if frames.owner is None else frames.owner[rows], texts=self.texts)


@dataclass(frozen=True, slots=True)
class CarriedPiece:
    """Decapsulated packets, and their outer packets.

    Attributes:
        piece: the innermost packets.
        decapsulated: rows and outer packets.
    """

    piece: PacketPiece
    decapsulated: Decapsulated

    @property
    def clock_ns(self) -> Integers:
        """See Piece."""
        return self.piece.clock_ns

    def entries(self, start: int, stop: int) -> Entries:
        """See Piece. Of the outer packets, only encapsulation_octets are in the totals."""
        rows, parents = self.decapsulated.rows, self.decapsulated.parents
        first, end = np.searchsorted(rows, (start, stop)).tolist()
        inner = self.piece.entries(start, stop)
        self.piece.observations.add_encapsulation(
            parents.keys[first:end], parents.octets[first:end] - self.piece.packets.octets[rows[first:end]])
        around = flow_entries(parents, first, end)
        return inner._replace(keys=np.concatenate((inner.keys, around.keys)),
                              counters=np.concatenate((inner.counters, around.counters)))

    def packets_between(self, start: int, stop: int) -> PacketBatch:
        """See Piece: whole frames, with the keys of the inner packets."""
        return self.piece.packets_between(start, stop)


def rising(times_ns: Integers, latest_ns: int) -> Integers:
    """The running maximum of times, at least `latest_ns`."""
    return np.maximum(np.maximum.accumulate(times_ns), latest_ns)
