"""Export messages in any file: datagrams and streams in a capture, an IPFIX file, or raw datagrams."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from flowtop.capture.files.frame_reader import FrameReader
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.capture.packets.frames import Frames
from flowtop.capture.packets.link_types import read_link
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.model.kinds import Protocol, TcpBits
from flowtop.wire import ipfix, netflow9, netflow_fixed, sflow
from flowtop.wire.datagrams import split_exports
from flowtop.wire.ipfix import begins_message

MAX_STREAMS = 256
MAX_WAITING_OCTETS = 1 << 18
MAX_WAITING = 1_024
"""Limits of waiting segments per stream; beyond them, the missing segments count as lost."""
_MODULUS = 1 << 32
_LENGTH_OCTETS = 4
_SYN, _RST = int(TcpBits.SYN), int(TcpBits.RST)


class Segment(NamedTuple):
    """A TCP segment.

    Attributes:
        stream: identifies the stream: both ends.
        sequence: sequence number of its first octet.
        flags: control bits.
        octets: the payload that was captured.
    """

    stream: tuple[str, str]
    sequence: int
    flags: int
    octets: bytes


class Piece(NamedTuple):
    """A message of a stream.

    Attributes:
        stream: identifies the stream.
        octets: the message; or, if it is not a message, all octets up to the next one.
        gap: octets before it are missing.
    """

    stream: tuple[str, str]
    octets: bytes
    gap: bool


class Streams:
    """Takes the segments of a capture in order and assembles messages."""

    def __init__(self) -> None:
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()

    def take(self, segment: Segment) -> Iterator[Piece]:
        """Add a segment; returns the messages that are complete now."""
        key = segment.stream
        if segment.flags & _SYN:
            yield from self._end(key)
        stream = self._streams.setdefault(key, _Stream())
        self._streams.move_to_end(key)
        for octets, gap in stream.take(segment):
            yield Piece(key, octets, gap)
        if segment.flags & _RST:
            yield from self._end(key)
        elif len(self._streams) > MAX_STREAMS:
            yield from self._end(next(iter(self._streams)))

    def end(self) -> Iterator[Piece]:
        """The remaining messages at the end of the capture."""
        for key in list(self._streams):
            yield from self._end(key)

    def _end(self, key: tuple[str, str]) -> Iterator[Piece]:
        stream = self._streams.pop(key, None)
        if stream is not None:
            for octets, gap in stream.end():
                yield Piece(key, octets, gap)


class _Stream:
    """One direction of a connection.

    `_next`: sequence number after the octets read so far; None while searching for the start of a message. `_foreign`:
    the stream has other content.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        self._begun = False
        self._foreign = False
        self._gap = False
        self._waiting: dict[int, bytes] = {}
        self._octets = b""

    def take(self, segment: Segment) -> Iterator[tuple[bytes, bool]]:
        sequence = segment.sequence
        if segment.flags & _SYN:
            sequence = self._next = (sequence + 1) % _MODULUS
        if not segment.octets or self._foreign:
            return
        if self._next is None:
            if not begins_message(segment.octets):
                return
            self._next = sequence
        known = self._waiting.get(sequence, b"")
        self._waiting[sequence] = max(known, segment.octets, key=len)
        yield from self._read_on()
        while len(self._waiting) > MAX_WAITING or sum(map(len, self._waiting.values())) > MAX_WAITING_OCTETS:
            yield from self._skip_gap()

    def end(self) -> Iterator[tuple[bytes, bool]]:
        while self._waiting:
            yield from self._skip_gap()
        if self._octets:
            yield self._octets, self._gap

    def _read_on(self) -> Iterator[tuple[bytes, bool]]:
        """Append segments as long as the next one is available."""
        while self._next is not None:
            for sequence in sorted(self._waiting, key=self._ahead):
                ahead = self._ahead(sequence)
                if ahead > 0:
                    return
                octets = self._waiting.pop(sequence)[-ahead:]
                self._octets += octets
                self._next = (self._next + len(octets)) % _MODULUS
                yield from self._messages()
                break
            else:
                return

    def _ahead(self, sequence: int) -> int:
        """Number of missing octets before a sequence number; negative if it was read already."""
        assert self._next is not None
        return (sequence - self._next + _MODULUS // 2) % _MODULUS - _MODULUS // 2

    def _messages(self) -> Iterator[tuple[bytes, bool]]:
        """Remove and return the complete messages."""
        while len(self._octets) >= _LENGTH_OCTETS:
            if not begins_message(self._octets):
                octets, self._octets = self._octets, b""
                if not self._begun:
                    self._foreign = True
                    self._waiting.clear()
                    return
                yield octets, self._gap  # not a message: the next one is somewhere after it
                self._lose_track()
                return
            self._begun = True
            length = int.from_bytes(self._octets[2:4], "big")
            if len(self._octets) < length:
                return
            yield self._octets[:length], self._gap
            self._octets, self._gap = self._octets[length:], False

    def _skip_gap(self) -> Iterator[tuple[bytes, bool]]:
        """Give up waiting for missing segments: continue at the next segment that begins with a message."""
        if self._octets:
            yield self._octets, self._gap
            self._octets = b""
        self._lose_track(gap=True)
        base = next(iter(self._waiting))
        for sequence in sorted(self._waiting, key=lambda number: (number - base + _MODULUS // 2) % _MODULUS):
            if begins_message(self._waiting[sequence]):
                self._next = sequence
                yield from self._read_on()
                return
            del self._waiting[sequence]

    def _lose_track(self, gap: bool = False) -> None:
        self._next = None
        self._gap = self._gap or gap


MAX_RAW_OCTETS = 1 << 28
"""Limit of a file of raw datagrams, which is read completely into memory."""
_VERSIONS = (netflow_fixed.VERSION, netflow9.VERSION, ipfix.VERSION)
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP_OCTETS = 8
_LEAST_OCTETS: dict[int, int] = {Protocol.TCP: 20, Protocol.UDP: _UDP_OCTETS}


class Payload(NamedTuple):
    """One message of an export.

    Attributes:
        octets: the complete message.
        sender: address and port as text; "" if unknown.
        receiver: the same of the receiver.
        datagram: sent over UDP.
        gap: octets of the stream before it were not captured.
    """

    octets: bytes
    sender: str
    receiver: str
    datagram: bool
    gap: bool = False


def is_export(octets: bytes) -> bool:
    """Whether these octets can start an export message; the rare versions of NetFlow have to be whole datagrams."""
    return (int.from_bytes(octets[:2], "big") in _VERSIONS or octets[:4] == sflow.MARK
            or netflow_fixed.is_datagram(octets))


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
        elif is_export(head) or int.from_bytes(head[:2], "big") in netflow_fixed.VERSIONS:
            yield from _raw(stream)
        else:
            raise FlowtopError(f"{stream.name} is not an export file", exit_code=EXIT_DAMAGED,
                               hint="supported: pcap, pcapng and IPFIX files, and raw datagrams")
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="everything before it was read",
                           exit_code=EXIT_DAMAGED) from error


def _captured(stream: OctetStream, reader: FrameReader) -> Iterator[Payload]:
    streams = Streams()
    try:
        while True:
            frames = reader.read(stream)
            if frames is not None:
                yield from _messages(frames, streams)
            elif not stream.fill() and stream.at_end:
                break
    except DamagedError:
        yield from map(_payload, streams.end())
        raise
    yield from map(_payload, streams.end())


def _messages(frames: Frames, streams: Streams) -> Iterator[Payload]:
    link = read_link(frames)
    octets = memoryview(frames.octets.data)
    for start, captured, kind, ip in zip(frames.offset.tolist(), frames.captured.tolist(), link.type.tolist(),
                                         link.ip_offset.tolist(), strict=True):
        packet = bytes(octets[start + ip:start + captured])
        content = _of_ipv4(packet) if kind == _IPV4 else _of_ipv6(packet) if kind == _IPV6 else None
        if isinstance(content, Segment):
            yield from map(_payload, streams.take(content))
        elif content is not None and is_export(content.octets):
            yield content


def _payload(piece: Piece) -> Payload:
    return Payload(piece.octets, *piece.stream, datagram=False, gap=piece.gap)


def _of_ipv4(packet: bytes) -> Payload | Segment | None:
    """The datagram or segment in an IPv4 packet; None if there is none, or for a later fragment."""
    if len(packet) < 20 or int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None
    length = int.from_bytes(packet[2:4], "big") or len(packet)
    return _transport(packet[9], packet[(packet[0] & 15) * 4:length], packet[12:16], packet[16:20])


def _of_ipv6(packet: bytes) -> Payload | Segment | None:
    """The same for IPv6; without extension headers, which exporters do not send."""
    if len(packet) < 40:
        return None
    length = 40 + int.from_bytes(packet[4:6], "big")
    return _transport(packet[6], packet[40:length], packet[8:24], packet[24:40])


def _transport(protocol: int, octets: bytes, source: bytes, destination: bytes) -> Payload | Segment | None:
    least = _LEAST_OCTETS.get(protocol)
    if least is None or len(octets) < least:
        return None
    sender, receiver = _end(source, octets[:2]), _end(destination, octets[2:4])
    if protocol == Protocol.TCP:
        return Segment((sender, receiver), int.from_bytes(octets[4:8], "big"), octets[13],
                       octets[octets[12] // 16 * 4:])
    return Payload(octets[_UDP_OCTETS:int.from_bytes(octets[4:6], "big")], sender, receiver, True)


@lru_cache(4096)
def _end(address: bytes, port: bytes) -> str:
    host = str(ipaddress.ip_address(address))
    return f"[{host}]:{int.from_bytes(port, 'big')}" if ":" in host else f"{host}:{int.from_bytes(port, 'big')}"


def _raw(stream: OctetStream) -> Iterator[Payload]:
    """Read an IPFIX file, or a file of datagrams written one after the other."""
    parts: list[bytes] = []
    octets = 0
    while True:
        parts.append(bytes(stream.view[stream.start:stream.end]))
        octets += len(parts[-1])
        stream.start = stream.end
        if octets > MAX_RAW_OCTETS:
            raise FlowtopError(f"{stream.name} is larger than {MAX_RAW_OCTETS >> 20} MiB", exit_code=EXIT_DAMAGED,
                               hint="split it, or use a capture file")
        if not stream.fill() and stream.at_end:
            break
    for message in split_exports(b"".join(parts)):
        yield Payload(message, "", "", datagram=int.from_bytes(message[:2], "big") != ipfix.VERSION)
