"""Flow Records of files, decoded by the collector; IPFIX files (RFC 5655)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.entries import merge_rows
from flowtop.capture.collector.points import ObservationPoints
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.pieces import rising
from flowtop.capture.packets.entries import Entries
from flowtop.capture.packets.frames import LATEST_NS, Integers
from flowtop.model.exporters import CollectingStatistics, exporter_of
from flowtop.model.reported import Reported, rows_of
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire.flow_records import Collected
from flowtop.wire.ipfix import HEADER_OCTETS, MESSAGE_HEADER, VERSION, begins_message


@dataclass(frozen=True, slots=True)
class RecordPiece:
    """Flow Records sorted by end time, which is about the order of export."""

    rows: Collected
    reported: Reported | None
    clock_ns: Integers
    points: ObservationPoints

    def entries(self, start: int, stop: int) -> Entries:
        """See Piece."""
        rows = self.rows[start:stop]
        self.points.book(rows)
        merged = merge_rows(rows, None if self.reported is None else self.reported[start:stop])
        return Entries(merged.keys, merged.counters, merged.other_ifindexes, described=merged.described,
                       reported=merged.reported)

    def packets_between(self, start: int, stop: int) -> None:
        """See Piece."""


def record_piece(process: CollectingProcess, latest_ns: int) -> RecordPiece | None:
    """What was collected since the last call; None for no Flow Record.

    Args:
        latest_ns: minimum of the piece's clock.
    """
    rows, reported = process.take_rows()
    if not len(rows):
        return None
    order = np.argsort(rows["end_ms"], kind="stable")
    rows, reported = rows[order], None if reported is None else rows_of(reported, order)
    ends_ns = rows["end_ms"].clip(0, LATEST_NS // 1_000_000) * 1_000_000
    return RecordPiece(rows, reported, rising(ends_ns, latest_ns), process.points)


class CollectingReader:
    """What readers of Flow Records share: the collector, whose clock corrections are off, and what it knows.

    Args:
        name: name of interfaces without one in the file.
        tunnel_ports: take sampled packets out of tunnels; see CollectingProcess.
    """

    def __init__(self, name: str, tunnel_ports: TunnelPorts | None) -> None:
        self._name = name
        self._process = CollectingProcess(correct_clocks=False, tunnel_ports=tunnel_ports)

    @property
    def statistics(self) -> CollectingStatistics:
        """Statistics of all messages so far."""
        return self._process.statistics()

    def observations(self) -> npt.NDArray[np.void]:
        """Cumulative totals: OBSERVATION_DTYPE."""
        return self._process.points.observations()

    def rest(self, latest_ns: int) -> RecordPiece | None:
        """See Reader: nothing."""

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """See FlowBatch.texts."""
        return self._process.texts()

    def names(self) -> dict[int, str]:
        """Names of interfaces by number, with their exporter if it is known."""
        return {number: text if exporter_of(text) else text.partition(" ")[2] or self._name
                for number, text in self._process.points.interfaces().items()}


class RecordReader(CollectingReader):
    """Reads an IPFIX file.

    Args:
        name: name of interfaces without one in the file.
        tunnel_ports: see CollectingReader.
    """

    def __init__(self, name: str, tunnel_ports: TunnelPorts | None = None) -> None:
        super().__init__(name, tunnel_ports)
        self._session = Session(key=None, exporter="", datagram=False)

    def read(self, stream: OctetStream, latest_ns: int) -> RecordPiece | None:
        """Take the complete messages from the stream's buffer; None if they had no Flow Record.

        Raises DamagedError: no message where the next one should be. Records before it were returned first.
        """
        while stream.end - stream.start >= HEADER_OCTETS and not self._process.full:
            version, length, export_s, *_ = MESSAGE_HEADER.unpack_from(stream.view, stream.start)
            if version != VERSION or length < HEADER_OCTETS:
                break
            if stream.end - stream.start < length:
                break
            octets = stream.buffer[stream.start:stream.start + length].tobytes()
            self._process.receive(octets, self._session, export_s)
            stream.start += length
        piece = record_piece(self._process, latest_ns)
        if piece is None:
            self._refuse_damage(stream)
        return piece

    @staticmethod
    def _refuse_damage(stream: OctetStream) -> None:
        left = stream.end - stream.start
        if left >= HEADER_OCTETS and not begins_message(stream.view[stream.start:stream.end]):
            raise DamagedError("is damaged: data that is not an IPFIX message")
        if left and stream.at_end:
            raise DamagedError("is cut off in the middle of a message")

    @property
    def fault(self) -> str:
        """What could not be used, as text that follows the file's name; "" for nothing."""
        statistics = self.statistics
        faults = [f"{number:,} {what}" for number, what in (
            (statistics.refused_messages, "messages that cannot be read"),
            (statistics.waiting_sets + statistics.dropped_sets, "sets without template"),
            (statistics.wrong_checksums, "messages with a wrong checksum")) if number]
        return f"has {' and '.join(faults)}" if faults else ""

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """See FlowBatch.texts. What flowtop exported of its own host reads as there, without numbers of interfaces."""
        return super().texts() if self._process.foreign else self._process.names.texts()
