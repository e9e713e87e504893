"""Packets of a capture file: frames found, parsed, joined."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.decap import decapsulate
from flowtop.capture.files.entries import Observations
from flowtop.capture.files.fragments import FragmentJoiner
from flowtop.capture.files.frames import FrameReader
from flowtop.capture.files.internet import parse
from flowtop.capture.files.link import LINK_TYPES
from flowtop.capture.files.octets import OctetStream
from flowtop.capture.files.pieces import CarriedPiece, PacketPiece, Piece, rising
from flowtop.collecting import CollectingStatistics


class PacketReader:
    """Reads a capture file.

    Args:
        frames: finds its frames.
        decap: packets in tunnels stand for what carries them.
    """

    statistics: CollectingStatistics | None = None

    def __init__(self, frames: FrameReader, *, decap: bool = False) -> None:
        self._frames = frames
        self._decap = decap
        self._joiner = FragmentJoiner()
        self._observations = Observations()
        self._names: dict[int, str] = {}
        self._unread_link_types: set[int] = set()

    def read(self, stream: OctetStream, latest_ns: int) -> Piece | None:
        """The complete frames in the stream's buffer, which are taken; None: there is none before more is read.

        Raises DamagedError: no record can begin where the next one should. Packets before it were given first.
        """
        frames = self._frames.read(stream)
        if frames is None:
            return None
        self._names = {number + 1: interface.name for number, interface in enumerate(frames.interfaces)}
        several = len(frames.interfaces) > 1
        for number in np.unique(frames.interface).tolist() if several else (0,):
            if (link_type := frames.interfaces[number].link_type) not in LINK_TYPES:
                self._unread_link_types.add(link_type)
        clock_ns = rising(frames.time_ns, latest_ns)
        if not self._decap:
            packets = parse(frames)
            return PacketPiece(packets, self._joiner.join(packets), clock_ns, self._observations, frames)
        found = decapsulate(frames)
        return CarriedPiece(PacketPiece(found.packets, self._joiner.join(found.packets), clock_ns, self._observations,
                                        frames), found)

    @property
    def fault(self) -> str:
        """What was in the file and could not be read, in words that follow its name; "" for nothing."""
        numbers = ", ".join(map(str, sorted(self._unread_link_types)))
        return f"has frames of link type {numbers}, which count as ignored" if numbers else ""

    def observations(self) -> npt.NDArray[np.void]:
        """OBSERVATION_DTYPE: cumulative."""
        return self._observations.rows()

    def names(self) -> dict[int, str]:
        """Interfaces by number."""
        return self._names
