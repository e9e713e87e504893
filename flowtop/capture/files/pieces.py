"""What was read of a file and not yet handed over, packet by packet or record by record."""

from __future__ import annotations

from dataclasses import dataclass
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
        """At each packet or record, the latest time so far: never falls, whatever the order in the file."""

    def entries(self, start: int, stop: int) -> Entries:
        """The packets or records `start` to `stop`; from now on they are in the books."""

    def packets_between(self, start: int, stop: int) -> PacketBatch | None:
        """Those packets of `start` to `stop` that are in flows; None: these are records."""


@dataclass(frozen=True, slots=True)
class PacketPiece:
    """Parsed packets.

    Attributes:
        unjoined: which are fragments whose first was not seen.
        observations: the books of the whole file.
        frames: what they were parsed from.
    """

    packets: Packets
    unjoined: npt.NDArray[np.bool_]
    clock_ns: Integers
    observations: Observations
    frames: Frames

    def entries(self, start: int, stop: int, steps: Integers | None = None) -> Entries:
        """See Piece. With the step of each packet, if there are several."""
        self.observations.add(self.packets, self.unjoined, start, stop)
        return flow_entries(self.packets, start, stop, steps)

    def orderly(self, start: int, stop: int, start_ns: int, step_ns: int) -> bool:
        """Whether each of the packets `start` to `stop` came in the step in which it stands, whatever its place there.

        Args:
            start_ns: where steps begin.
            step_ns: how long they are.
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
        return PacketBatch(
            keys=self.packets.keys[rows], octets=frames.octets, offset=frames.offset[rows],
            captured=frames.captured[rows], wire=frames.wire[rows], time_ns=frames.time_ns[rows],
            received=np.zeros(len(rows), np.bool_) if frames.ingress is None else frames.ingress[rows],
            interfaces={number: PacketInterface(interface.name, interface.link_type)
                        for number, interface in enumerate(frames.interfaces, 1)})


@dataclass(frozen=True, slots=True)
class CarriedPiece:
    """Parsed packets, those in tunnels as what they are, and what carried them beside them.

    Attributes:
        piece: of the innermost packets.
        found: where they come from.
    """

    piece: PacketPiece
    found: Decapsulated

    @property
    def clock_ns(self) -> Integers:
        """See Piece."""
        return self.piece.clock_ns

    def entries(self, start: int, stop: int) -> Entries:
        """See Piece. What carried the packets is in no books but encapsulation_octets."""
        rows, parents = self.found.rows, self.found.parents
        first, end = np.searchsorted(rows, (start, stop)).tolist()
        inner = self.piece.entries(start, stop)
        self.piece.observations.add_encapsulation(
            parents.keys[first:end], parents.octets[first:end] - self.piece.packets.octets[rows[first:end]])
        around = flow_entries(parents, first, end)
        return inner._replace(keys=np.concatenate((inner.keys, around.keys)),
                              counters=np.concatenate((inner.counters, around.counters)))

    def packets_between(self, start: int, stop: int) -> PacketBatch:
        """See Piece: whole frames, under the keys of what they carry."""
        return self.piece.packets_between(start, stop)


def rising(times_ns: Integers, latest_ns: int) -> Integers:
    """Times that never fall, nor below `latest_ns`."""
    return np.maximum(np.maximum.accumulate(times_ns), latest_ns)
