"""Detect a file's format by its first octets; read the packets of capture files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.frame_reader import FrameReader
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.capture.files.pieces import CarriedPiece, PacketPiece, Piece, rising
from flowtop.capture.packets.entries import Observations
from flowtop.capture.packets.fragments import FragmentJoiner
from flowtop.capture.packets.internet import parse
from flowtop.capture.packets.link import LINK_TYPES
from flowtop.capture.packets.tunnels import decapsulate
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.model.exporters import CollectingStatistics


class PacketReader:
    """Reads a capture file.

    Args:
        frames: finds the frames.
        decap: replace packets in tunnels by their inner packets.
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
        """Take the complete frames from the stream's buffer; None if more has to be read first.

        Raises DamagedError: no valid record where the next one should be. Packets before it were returned first.
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
        decapsulated = decapsulate(frames)
        return CarriedPiece(
            PacketPiece(decapsulated.packets, self._joiner.join(decapsulated.packets), clock_ns, self._observations,
                        frames), decapsulated)

    @property
    def fault(self) -> str:
        """What could not be read, as text that follows the file's name; "" for nothing."""
        numbers = ", ".join(map(str, sorted(self._unread_link_types)))
        return f"has frames of link type {numbers}, counted as ignored" if numbers else ""

    def observations(self) -> npt.NDArray[np.void]:
        """Cumulative totals: OBSERVATION_DTYPE."""
        return self._observations.rows()

    def names(self) -> dict[int, str]:
        """Names of interfaces by number."""
        return self._names

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """See FlowBatch.texts; none."""
        return {}


_LINK_TYPES_HINT = "supported: Ethernet, Linux cooked v1 and v2, raw IP, null and loopback"


class Reader(Protocol):
    """Reads one file to its end."""

    @property
    def statistics(self) -> CollectingStatistics | None:
        """Statistics of the collector, or None for packets."""

    @property
    def fault(self) -> str:
        """What could not be read in an undamaged file, as text that follows the file's name; "" for nothing."""

    def read(self, stream: OctetStream, latest_ns: int) -> Piece | None:
        """Take the complete content of the stream's buffer; None if more has to be read first.

        Args:
            latest_ns: minimum of the piece's clock.

        Raises DamagedError: the next part is invalid. Everything before it was returned first.
        """

    def observations(self) -> npt.NDArray[np.void]:
        """Cumulative totals of what was returned: OBSERVATION_DTYPE."""

    def names(self) -> dict[int, str]:
        """Names of interfaces by number."""

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """See FlowBatch.texts."""


def identify(stream: OctetStream, *, decap: bool = False) -> Reader | None:
    """Return the reader for a file's format; None if too little was read to detect it.

    Args:
        decap: replace packets in tunnels by their inner packets.

    Raises FlowtopError: the file is empty or of an unknown format.
    """
    try:
        stream.fill()
        head = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        if len(head) < HEADER_OCTETS and not stream.at_end:
            return None
        name = "stdin" if stream.name == "standard input" else Path(stream.name).name
        if pcap_order(head):
            frames = PcapReader(stream, name)
            _require(stream, frames.interfaces[0].link_type)
            return PacketReader(frames, decap=decap)
        if is_pcapng(head):
            return PacketReader(PcapngReader(name), decap=decap)
        from flowtop.wire.ipfix import begins_message  # registry and collector: not needed for packets

        if begins_message(head):
            from flowtop.capture.files.records import RecordReader

            return RecordReader(name)
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="no data could be read",
                           exit_code=EXIT_DAMAGED) from error
    raise FlowtopError(f"{stream.name} {'is not a capture file' if head else 'is empty'}",
                       hint="-r reads pcap, pcapng and IPFIX files, also gzipped", exit_code=EXIT_DAMAGED)


def _require(stream: OctetStream, link_type: int) -> None:
    if link_type not in LINK_TYPES:
        raise FlowtopError(f"{stream.name} has link type {link_type}, which is not supported", hint=_LINK_TYPES_HINT,
                           exit_code=EXIT_DAMAGED)
