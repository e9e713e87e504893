"""Export messages in a file, whatever it is: datagrams and streams in a capture, an IPFIX file, or raw datagrams."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from flowtop.capture.files.frames import FrameReader, Frames
from flowtop.capture.files.link import read_link
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.capture.files.streams import Piece, Segment, Streams
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.wire import ipfix, netflow5, netflow9, sflow
from flowtop.wire.exports import split_exports

MAX_RAW_OCTETS = 1 << 28
"""Of a file of raw datagrams, which is read whole."""
_VERSIONS = (netflow5.VERSION, netflow9.VERSION, ipfix.VERSION)
_TCP, _UDP = 6, 17
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP_OCTETS, _TCP_OCTETS = 8, 20


class Payload(NamedTuple):
    """One message of an export.

    Attributes:
        octets: all of it.
        sender: who sent it, as text: address and port; "" where the file does not tell.
        receiver: likewise.
        datagram: it was sent over UDP.
        gap: the capture lacks something of its stream before it.
    """

    octets: bytes
    sender: str
    receiver: str
    datagram: bool
    gap: bool = False


def is_export(octets: bytes) -> bool:
    """Whether a message begins so."""
    return int.from_bytes(octets[:2], "big") in _VERSIONS or octets[:4] == sflow.MARK


def read_payloads(stream: OctetStream) -> Iterator[Payload]:
    """The messages of a file, to its end. In a capture: datagrams that begin as one, and IPFIX over TCP.

    Raises:
        FlowtopError: the file is empty or damaged; what is before the damage was given first (EXIT_DAMAGED).
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
        elif is_export(head):
            yield from _raw(stream)
        else:
            raise FlowtopError(f"{stream.name} is no export", exit_code=EXIT_DAMAGED,
                               hint="read are pcap and pcapng files, IPFIX files, and raw datagrams")
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="what is before that was read",
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
        found = _of_ipv4(packet) if kind == _IPV4 else _of_ipv6(packet) if kind == _IPV6 else None
        if isinstance(found, Segment):
            yield from map(_payload, streams.take(found))
        elif found is not None and is_export(found.octets):
            yield found


def _payload(piece: Piece) -> Payload:
    return Payload(piece.octets, *piece.stream, datagram=False, gap=piece.gap)


def _of_ipv4(packet: bytes) -> Payload | Segment | None:
    """The datagram or segment in an IPv4 packet; None: there is none, or not its beginning."""
    if len(packet) < 20 or int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None
    length = int.from_bytes(packet[2:4], "big") or len(packet)
    return _transport(packet[9], packet[(packet[0] & 15) * 4:length], packet[12:16], packet[16:20])


def _of_ipv6(packet: bytes) -> Payload | Segment | None:
    """The same of IPv6, without extension headers: exporters send none."""
    if len(packet) < 40:
        return None
    length = 40 + int.from_bytes(packet[4:6], "big")
    return _transport(packet[6], packet[40:length], packet[8:24], packet[24:40])


def _transport(protocol: int, octets: bytes, source: bytes, destination: bytes) -> Payload | Segment | None:
    if len(octets) < (_TCP_OCTETS if protocol == _TCP else _UDP_OCTETS) or protocol not in (_TCP, _UDP):
        return None
    sender, receiver = _end(source, octets[:2]), _end(destination, octets[2:4])
    if protocol == _TCP:
        return Segment((sender, receiver), int.from_bytes(octets[4:8], "big"), octets[13],
                       octets[octets[12] // 16 * 4:])
    return Payload(octets[_UDP_OCTETS:int.from_bytes(octets[4:6], "big")], sender, receiver, True)


@lru_cache(4096)
def _end(address: bytes, port: bytes) -> str:
    host = str(ipaddress.ip_address(address))
    return f"[{host}]:{int.from_bytes(port, 'big')}" if ":" in host else f"{host}:{int.from_bytes(port, 'big')}"


def _raw(stream: OctetStream) -> Iterator[Payload]:
    """An IPFIX file, or datagrams that were written one after the other."""
    parts: list[bytes] = []
    octets = 0
    while True:
        parts.append(bytes(stream.view[stream.start:stream.end]))
        octets += len(parts[-1])
        stream.start = stream.end
        if octets > MAX_RAW_OCTETS:
            raise FlowtopError(f"{stream.name} is larger than {MAX_RAW_OCTETS >> 20} MiB", exit_code=EXIT_DAMAGED,
                               hint="split it, or name a capture file")
        if not stream.fill() and stream.at_end:
            break
    for message in split_exports(b"".join(parts)):
        yield Payload(message, "", "", datagram=int.from_bytes(message[:2], "big") != ipfix.VERSION)
