"""Detect a file's format by its first octets; read the packets of capture files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.frame_reader import FrameReader
from flowtop.capture.files.names import FileNames
from flowtop.capture.files.octets import DamagedError, OctetStream, compressor_of
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, foreign_pcap, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.capture.files.pieces import CarriedPiece, PacketPiece, Piece, rising
from flowtop.capture.packets.entries import Observations
from flowtop.capture.packets.fragments import FragmentJoiner
from flowtop.capture.packets.internet import Places, parse
from flowtop.capture.packets.link_types import UnreadLinks, split_aggregates
from flowtop.capture.packets.tunnels import decapsulate
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.owners import OwnerStatistics
from flowtop.model.tunnel_ports import TunnelPorts


class PacketReader:
    """Reads a capture file.

    Args:
        frames: finds the frames.
        decap: replace packets in tunnels by their inner packets.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
        names: reads the names in packets; None: they are not read.
    """

    statistics: CollectingStatistics | None = None

    def __init__(self, frames: FrameReader, *, decap: bool = False, tunnel_ports: TunnelPorts | None = None,
                 names: FileNames | None = None) -> None:
        self._frames = frames
        self._decap = decap
        self._tunnel_ports = tunnel_ports
        self._seen = names
        self._joiner = FragmentJoiner()
        self._observations = Observations()
        self._names: dict[int, str] = {}
        self._unread = UnreadLinks()

    def read(self, stream: OctetStream, latest_ns: int) -> Piece | None:
        """Take the complete frames from the stream's buffer; None if more has to be read first.

        Raises DamagedError: no valid record where the next one should be. Packets before it were returned first.
        """
        frames = self._frames.read(stream)
        if frames is None:
            return None
        self._names = {number + 1: interface.name for number, interface in enumerate(frames.interfaces)}
        self._unread.count(frames)
        frames = split_aggregates(frames)
        clock_ns = rising(frames.time_ns, latest_ns)
        if not self._decap:
            places = None if self._seen is None else Places.blank(len(frames.offset))
            packets = parse(frames, places)
            unjoined = self._joiner.join(packets)
            if self._seen is not None and places is not None:
                self._seen.look(packets, frames, frames.offset + places.ip, frames.offset + places.transport)
            return PacketPiece(packets, unjoined, clock_ns, self._observations, frames, self.texts())
        decapsulated = decapsulate(frames, self._tunnel_ports)
        unjoined = self._joiner.join(decapsulated.packets)
        if self._seen is not None:
            self._seen.look(decapsulated.packets, frames, decapsulated.ip_at, decapsulated.transport_at)
        return CarriedPiece(
            PacketPiece(decapsulated.packets, unjoined, clock_ns, self._observations, frames,
                        self.texts()), decapsulated)

    def rest(self, latest_ns: int) -> None:
        """See Reader: nothing."""

    @property
    def fault(self) -> str:
        """What could not be read, as text that follows the file's name; "" for nothing."""
        return f"{self._unread.text}: counted as ignored" if self._unread.text else ""

    def observations(self) -> npt.NDArray[np.void]:
        """Cumulative totals: OBSERVATION_DTYPE."""
        return self._observations.rows()

    def names(self) -> dict[int, str]:
        """Names of interfaces by number."""
        return self._names

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """See FlowBatch.texts: of owners that the file names."""
        return {} if self._frames.owners is None else self._frames.owners.published()

    def owners(self) -> OwnerStatistics | None:
        """Owners that the file names and that there was no room for; None: there was."""
        refused = 0 if self._frames.owners is None else self._frames.owners.refused
        return OwnerStatistics(missed=refused) if refused else None


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

    def rest(self, latest_ns: int) -> Piece | None:
        """What was held back until the end of the file, which cannot be reached; None for nothing, or when returned."""

    def observations(self) -> npt.NDArray[np.void]:
        """Cumulative totals of what was returned: OBSERVATION_DTYPE."""

    def names(self) -> dict[int, str]:
        """Names of interfaces by number."""

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """See FlowBatch.texts."""


def identify(stream: OctetStream, *, decap: bool = False, tunnel_ports: TunnelPorts | None = None,
             collect: bool = False, names: FileNames | None = None) -> Reader | None:
    """Return the reader for a file's format; None if too little was read to detect it.

    Args:
        decap: replace packets in tunnels by their inner packets.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
        collect: of a capture read the flows in export messages, not the packets.
        names: reads the names in packets; None: they are not read.

    Raises FlowtopError: the file is empty or of an unknown format.
    """
    try:
        stream.fill()
        head = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        if len(head) < HEADER_OCTETS and not stream.at_end:
            return None
        name = "stdin" if stream.name == "standard input" else Path(stream.name).name
        if pcap_order(head):
            return _capture_reader(PcapReader(stream, name), name, decap, tunnel_ports, collect, names)
        if is_pcapng(head):
            return _capture_reader(PcapngReader(name, names), name, decap, tunnel_ports, collect, names)
        from flowtop.wire.ipfix import begins_message  # registry and collector: not needed for packets
        from flowtop.wire.recognition import begins_raw_file

        if begins_message(head):
            from flowtop.capture.files.records import RecordReader

            return RecordReader(name, (tunnel_ports or {}) if decap else None)
        if begins_raw_file(head):
            from flowtop.capture.files.exports import ExportReader

            return ExportReader(None, name, (tunnel_ports or {}) if decap else None)
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="no data could be read",
                           exit_code=EXIT_DAMAGED) from error
    if compressor := compressor_of(head):
        raise FlowtopError(f"{stream.name} is compressed with {compressor}, which is not read",
                           hint=f"{compressor} -dc FILE | flowtop -r -", exit_code=EXIT_DAMAGED)
    if whose := foreign_pcap(head):
        raise FlowtopError(f"{stream.name} is in {whose} variant of pcap, which is not supported",
                           hint="Wireshark's editcap converts it: editcap FILE OUT.pcapng", exit_code=EXIT_DAMAGED)
    raise FlowtopError(f"{stream.name} {'is not a capture file' if head else 'is empty'}",
                       hint="-r reads pcap, pcapng and IPFIX files and raw export datagrams, also gzipped",
                       exit_code=EXIT_DAMAGED)


def _capture_reader(frames: FrameReader, name: str, decap: bool, tunnel_ports: TunnelPorts | None,
                    collect: bool, names: FileNames | None) -> Reader:
    if not collect:
        return PacketReader(frames, decap=decap, tunnel_ports=tunnel_ports, names=names)
    from flowtop.capture.files.exports import ExportReader  # the collector: not needed for packets

    return ExportReader(frames, name, (tunnel_ports or {}) if decap else None)

