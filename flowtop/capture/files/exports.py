"""Flow Records of the export messages in a capture, or in a file of raw datagrams, decoded by the collector."""

from __future__ import annotations

from collections.abc import Iterator

from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.frame_reader import FrameReader
from flowtop.capture.files.messages import CapturedMessages, Payload, RawFile
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.records import CollectingReader, RecordPiece, record_piece
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire.recognition import export_seconds


class ExportReader(CollectingReader):
    """Reads the Flow Records of export messages, as a collector that received them at the time of the capture.

    Exporters are the senders of the messages; their clocks are not corrected, as a collector of old flows would.

    Args:
        source: a capture; None for a file of raw datagrams, whose exporters are not known (sFlow names its agent).
        name: name of interfaces without one, in a file of raw datagrams.
        tunnel_ports: see CollectingReader.
    """

    def __init__(self, source: FrameReader | None, name: str, tunnel_ports: TunnelPorts | None = None) -> None:
        super().__init__(name, tunnel_ports)
        self._frames = source
        self._messages = CapturedMessages()
        self._raw = RawFile()
        self._ended = False
        self._waiting: Iterator[Payload] = iter(())
        self._connections: dict[tuple[str, str], Session] = {}

    def read(self, stream: OctetStream, latest_ns: int) -> RecordPiece | None:
        """See Reader. Raises DamagedError after everything before the damage was returned."""
        damage: DamagedError | None = None
        while not self._take() and damage is None:
            try:
                more = self._more(stream)
            except DamagedError as error:
                damage, more = error, self._messages.end()
            if more is None:
                break
            self._waiting = more
        piece = record_piece(self._process, latest_ns)
        if piece is None and damage is not None:
            raise damage
        return piece

    def rest(self, latest_ns: int) -> RecordPiece | None:
        """See Reader: raw datagrams, which begin where the whole file says, and what waited for its other parts."""
        if not self._ended:
            self._ended = True
            self._waiting = self._raw.end() if self._frames is None else self._messages.end()
        self._take()
        return record_piece(self._process, latest_ns)

    def _more(self, stream: OctetStream) -> Iterator[Payload] | None:
        """The next messages; None if more has to be read first, or at the end."""
        if self._frames is None:
            return self._raw.take(stream)
        frames = self._frames.read(stream)
        if frames is not None:
            return self._messages.take(frames)
        rest = list(self._messages.end()) if stream.at_end else []
        return iter(rest) if rest else None

    def _take(self) -> bool:
        """Take waiting messages; returns whether records have to be returned before the rest."""
        for payload in self._waiting:
            self._receive(payload)
            if self._process.full:
                return True
        return False

    def _receive(self, payload: Payload) -> None:
        if payload.damage:
            self._process.count("incomplete_messages")
        address = payload.sender.rpartition(":")[0].strip("[]")
        session = Session(payload.session, address, payload.datagram)
        if not payload.datagram:
            before = self._connections.setdefault((payload.sender, payload.receiver), session)
            if before != session:  # Templates end with their connection
                self._process.end(before)
                self._connections[payload.sender, payload.receiver] = session
        now_s = payload.time_ns / 1e9 if self._frames else float(export_seconds(payload.octets) or 0)
        self._process.receive(payload.octets, session, now_s)

    @property
    def fault(self) -> str:
        """What could not be used, as text that follows the file's name; "" for nothing."""
        statistics, unread = self.statistics, self._messages.unread.text
        refused = f"{statistics.refused_messages:,} export messages that cannot be read"
        if statistics.refused_messages:
            return f"{unread}, and {refused}" if unread else f"has {refused}"
        if not statistics.messages:
            return f"contains no flow export, and {unread}" if unread else "contains no flow export"
        return unread
