"""Export messages in any file: datagrams and streams in a capture, an IPFIX file, or raw datagrams."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from flowtop.capture.files.datagrams import Datagram, Packets
from flowtop.capture.files.frame_reader import FrameReader
from flowtop.capture.files.octets import DamagedError, OctetStream, compressor_of
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.capture.files.streams import Piece, Segment, Streams
from flowtop.capture.packets.frames import Frames, Integers
from flowtop.capture.packets.headers import IPV4, IPV6
from flowtop.capture.packets.link_types import UnreadLinks, read_link, split_aggregates
from flowtop.capture.packets.tunnels import inside
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.model.kinds import IpVersion
from flowtop.wire import ipfix
from flowtop.wire.recognition import (
    EXPORT_PORTS,
    begins_raw_file,
    is_export,
    is_whole_datagram,
    split_exports,
)

MAX_RECEIVERS = 4_096
"""Limit of receivers of exports at other than the usual ports."""
MAX_RAW_OCTETS = 1 << 28
"""Limit of a file of raw datagrams, which is read completely into memory."""
_GAP = "octets are missing in the stream before this message"


class Payload(NamedTuple):
    """One message of an export.

    Attributes:
        octets: the message, as far as it was captured.
        sender: address and port as text; "" if unknown.
        receiver: the same of the receiver.
        datagram: sent over UDP.
        damage: what is wrong with it or before it, as text; "" for nothing.
        time_ns: when it was captured, since 1970 UTC; 0 in files that are no captures.
        connection: number of the TCP connection between these ends.
    """

    octets: bytes
    sender: str
    receiver: str
    datagram: bool
    damage: str = ""
    time_ns: int = 0
    connection: int = 0

    @property
    def session(self) -> tuple[str, str, int]:
        """Identifies the Transport Session in its file."""
        return self.sender, self.receiver, self.connection


def read_payloads(stream: OctetStream) -> Iterator[Payload]:
    """Read all messages of a file. In captures: datagrams that look like one, and IPFIX over TCP.

    Raises:
        FlowtopError: the file is empty or damaged (EXIT_DAMAGED); messages before the damage are returned first.
    """
    try:
        stream.fill()
        head = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        if not head:
            raise FlowtopError(f"{stream.name} is empty", exit_code=EXIT_DAMAGED)
        if pcap_order(head):
            yield from _captured(stream, PcapReader(stream, stream.name))
        elif is_pcapng(head):
            yield from _captured(stream, PcapngReader(stream.name))
        elif begins_raw_file(head):
            raw = RawFile()
            while (messages := raw.take(stream)) is None:
                try:
                    stream.fill()
                except DamagedError:
                    yield from raw.end()
                    raise
            yield from messages
        elif compressor := compressor_of(head):
            raise FlowtopError(f"{stream.name} is compressed with {compressor}, which is not read",
                               hint=f"{compressor} -dc FILE | flowtop-dump -", exit_code=EXIT_DAMAGED)
        else:
            raise FlowtopError(f"{stream.name} is not an export file", exit_code=EXIT_DAMAGED,
                               hint="supported: pcap, pcapng and IPFIX files, and raw datagrams")
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="everything before it was read",
                           exit_code=EXIT_DAMAGED) from error


def _captured(stream: OctetStream, reader: FrameReader) -> Iterator[Payload]:
    messages = CapturedMessages()
    try:
        while True:
            frames = reader.read(stream)
            if frames is not None:
                yield from messages.take(frames)
            elif not stream.fill() and stream.at_end:
                break
    except DamagedError:
        yield from messages.end()
        raise
    yield from messages.end()
    if messages.unread.text:
        raise FlowtopError(f"{stream.name} {messages.unread.text}", hint="the rest was read", exit_code=EXIT_DAMAGED)


class CapturedMessages:
    """Finds the messages in the frames of one capture: in datagrams, also in fragments, and in TCP streams; also those
    that are in tunnels.

    At the usual ports of collectors, damaged datagrams count as messages too; elsewhere only datagrams whose lengths
    are right, and whatever has an export's version at a receiver of such a datagram.

    Attributes:
        unread: frames of link types that are not read.
    """

    def __init__(self) -> None:
        self.unread = UnreadLinks()
        self._packets = Packets()
        self._streams = Streams()
        self._receivers: OrderedDict[str, None] = OrderedDict()
        self._time_ns = 0

    def take(self, frames: Frames) -> Iterator[Payload]:
        """The messages that are complete with these frames."""
        self.unread.count(frames)
        frames = split_aggregates(frames)
        octets = memoryview(frames.octets.data)
        layers = [_packets(np.arange(len(frames.offset)), frames), *(_packets(*layer) for layer in inside(frames))]
        places = np.concatenate(layers, axis=1)
        if len(layers) > 1:  # in the order of the capture
            places = places[:, np.argsort(places[0], kind="stable")]
        interfaces, times_ns = frames.interface.tolist(), frames.time_ns.tolist()
        for frame, start, end, kind in places.T.tolist():
            self._time_ns = times_ns[frame]
            version = IpVersion.V4 if kind == IPV4 else IpVersion.V6
            for content in self._packets.take(bytes(octets[start:end]), version, interfaces[frame], self._time_ns):
                yield from self._content(content)

    def end(self) -> Iterator[Payload]:
        """The rest, at the end of the capture: incomplete messages."""
        for content in self._packets.end():
            yield from self._content(content)
        yield from map(self._piece, self._streams.end())

    def _content(self, content: Datagram | Segment) -> Iterator[Payload]:
        if isinstance(content, Segment):
            yield from map(self._piece, self._streams.take(content))
        elif is_export(content.octets) and self._is_message(content):
            yield Payload(content.octets, content.sender, content.receiver, True, content.damage, self._time_ns)

    def _is_message(self, datagram: Datagram) -> bool:
        if datagram.port in EXPORT_PORTS or datagram.receiver in self._receivers:
            return True
        if not is_whole_datagram(datagram.octets):
            return False
        self._receivers[datagram.receiver] = None
        if len(self._receivers) > MAX_RECEIVERS:
            self._receivers.popitem(last=False)
        return True

    def _piece(self, piece: Piece) -> Payload:
        return Payload(piece.octets, *piece.stream, datagram=False, damage=_GAP if piece.gap else "",
                       time_ns=self._time_ns, connection=piece.connection)


def _packets(rows: Integers, frames: Frames) -> Integers:
    """The IP packets of one layer, shape (4, n): outermost frame (of `rows`), start, end and EtherType."""
    link = read_link(frames)
    some = np.flatnonzero((link.type == IPV4) | (link.type == IPV6))
    return np.stack((rows[some], (frames.offset + link.ip_offset)[some], (frames.offset + frames.captured)[some],
                     link.type[some]))


class RawFile:
    """A file of datagrams written one after the other. Where they begin is known when all of it was read."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._octets = 0

    def take(self, stream: OctetStream) -> Iterator[Payload] | None:
        """Take the content of the stream's buffer; returns the messages, once, at its end, None before and after.

        Raises FlowtopError: the file is larger than MAX_RAW_OCTETS.
        """
        self._parts.append(bytes(stream.view[stream.start:stream.end]))
        self._octets += len(self._parts[-1])
        stream.start = stream.end
        if self._octets > MAX_RAW_OCTETS:
            raise FlowtopError(f"{stream.name} is larger than {MAX_RAW_OCTETS >> 20} MiB", exit_code=EXIT_DAMAGED,
                               hint="split it, or use a capture file")
        return self.end() if stream.at_end and self._octets else None

    def end(self) -> Iterator[Payload]:
        """The messages in what was taken."""
        parts, self._parts, self._octets = self._parts, [], 0
        return (Payload(message, "", "", datagram=int.from_bytes(message[:2], "big") != ipfix.VERSION)
                for message in split_exports(b"".join(parts)))
