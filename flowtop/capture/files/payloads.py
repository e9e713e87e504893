"""Export messages in a file, whatever it is: UDP payloads of a capture, an IPFIX file, or raw datagrams one by one."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from flowtop.capture.files.frames import FrameReader, Frames
from flowtop.capture.files.link import read_link
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.wire import ipfix, netflow5, netflow9
from flowtop.wire.exports import split_exports

MAX_RAW_OCTETS = 1 << 28
"""Of a file of raw datagrams, which is read whole."""
_VERSIONS = (netflow5.VERSION, netflow9.VERSION, ipfix.VERSION)
_UDP = 17
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP_OCTETS = 8


class Payload(NamedTuple):
    """One message of an export.

    Attributes:
        octets: all of it.
        sender: who sent it, as text: address and port; "" where the file does not tell.
        receiver: likewise.
        datagram: it was sent over UDP.
    """

    octets: bytes
    sender: str
    receiver: str
    datagram: bool


def read_payloads(stream: OctetStream) -> Iterator[Payload]:
    """The messages of a file, to its end. In a capture, UDP datagrams that begin with a version flowtop reads.

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
        elif int.from_bytes(head[:2], "big") in _VERSIONS:
            yield from _raw(stream)
        else:
            raise FlowtopError(f"{stream.name} is no export", exit_code=EXIT_DAMAGED,
                               hint="read are pcap and pcapng files, IPFIX files, and raw datagrams")
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="what is before that was read",
                           exit_code=EXIT_DAMAGED) from error


def _captured(stream: OctetStream, reader: FrameReader) -> Iterator[Payload]:
    while True:
        frames = reader.read(stream)
        if frames is not None:
            yield from _datagrams(frames)
        elif not stream.fill() and stream.at_end:
            return


def _datagrams(frames: Frames) -> Iterator[Payload]:
    link = read_link(frames)
    octets = memoryview(frames.octets.data)
    for start, captured, kind, ip in zip(frames.offset.tolist(), frames.captured.tolist(), link.type.tolist(),
                                         link.ip_offset.tolist(), strict=True):
        packet = bytes(octets[start + ip:start + captured])
        payload = _udp_of_ipv4(packet) if kind == _IPV4 else _udp_of_ipv6(packet) if kind == _IPV6 else None
        if payload is not None and int.from_bytes(payload.octets[:2], "big") in _VERSIONS:
            yield payload


def _udp_of_ipv4(packet: bytes) -> Payload | None:
    """The datagram in an IPv4 packet; None: there is none, or not its beginning."""
    if len(packet) < 20 or packet[9] != _UDP or int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None
    return _udp(packet[(packet[0] & 15) * 4:], packet[12:16], packet[16:20])


def _udp_of_ipv6(packet: bytes) -> Payload | None:
    """The same of IPv6, without extension headers: exporters send none."""
    return _udp(packet[40:], packet[8:24], packet[24:40]) if len(packet) > 40 and packet[6] == _UDP else None


def _udp(segment: bytes, source: bytes, destination: bytes) -> Payload | None:
    if len(segment) < _UDP_OCTETS:
        return None
    length = int.from_bytes(segment[4:6], "big")
    return Payload(segment[_UDP_OCTETS:length], _end(source, segment[:2]), _end(destination, segment[2:4]), True)


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
