"""IP packets → UDP datagrams and TCP segments, with fragments put together (RFC 791, RFC 8200)."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from flowtop.capture.files.streams import Segment
from flowtop.model.kinds import IpVersion, Protocol

LIFE_NS = 30_000_000_000
"""How long fragments wait for the others of their packet: identifications are reused."""
MAX_PACKETS = 1_024
MAX_OCTETS = 16 << 20
"""Limits of packets that wait for fragments, and of their octets."""
_UDP_OCTETS = 8
_LEAST_OCTETS: dict[int, int] = {Protocol.TCP: 20, Protocol.UDP: _UDP_OCTETS}
_EXTENSIONS = frozenset((Protocol.HOPOPT, Protocol.IPV6_ROUTE, Protocol.IPV6_OPTIONS, Protocol.AH))
_MOST_EXTENSIONS = 10
_MORE_FRAGMENTS = 0x2000
_FRAGMENT_OCTETS = 8
"""Unit of fragment offsets; also the length of IPv6's Fragment header."""

MISSING, OVERLAPPING = "fragments of this datagram are missing", "fragments of this datagram overlap"


class Datagram(NamedTuple):
    """A UDP datagram.

    Attributes:
        sender, receiver: address and port as text.
        octets: the payload, as far as it was captured.
        port: the receiver's.
        damage: what is wrong with it; "" for nothing.
    """

    sender: str
    receiver: str
    octets: bytes
    port: int
    damage: str = ""


class _Fragment(NamedTuple):
    """`key` identifies the packet, with interface, addresses and version; `more`: it is not the last one."""

    key: tuple[object, ...]
    protocol: int
    offset: int
    more: bool
    octets: bytes


class _Packet:
    """Fragments of one packet, without overlap; `total` is None before the last one was seen."""

    def __init__(self, first: _Fragment, source: bytes, destination: bytes, time_ns: int) -> None:
        self.version = first.key[1]
        self.source, self.destination = source, destination
        self.time_ns = time_ns
        self.protocol = first.protocol
        self.parts: dict[int, bytes] = {}
        self.octets = 0
        self.total: int | None = None
        self.damage = MISSING

    def add(self, fragment: _Fragment) -> None:
        """Add a fragment. Where it overlaps others: in IPv4 the first one counts; IPv6 gives the packet up (RFC 5722).

        A repetition of a fragment is not an overlap.
        """
        if self.damage == OVERLAPPING or self.parts.get(fragment.offset) == fragment.octets:
            return
        if not fragment.offset:
            self.protocol = fragment.protocol
        free = self._free(fragment.offset, fragment.offset + len(fragment.octets))
        if self.version == IpVersion.V6 and sum(high - low for low, high in free) < len(fragment.octets):
            self.damage, self.octets = OVERLAPPING, 0
            self.parts = {0: self.parts[0]} if 0 in self.parts else {}
            self.total = None
            return
        if not fragment.more and self.total is None:
            self.total = fragment.offset + len(fragment.octets)
        for low, high in free:
            self.parts[low] = fragment.octets[low - fragment.offset:high - fragment.offset]
            self.octets += high - low

    def _free(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges between `start` and `end` that no fragment has filled."""
        free, at = [], start
        for offset in sorted(self.parts):
            stop = offset + len(self.parts[offset])
            if stop <= at or offset >= end:
                continue
            if offset > at:
                free.append((at, offset))
            at = max(at, stop)
        return [*free, (at, end)] if at < end else free

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.total is not None and self.octets >= self.total

    def content(self) -> bytes:
        """All octets up to the first that is missing."""
        octets = b""
        for offset in sorted(self.parts):
            if offset > len(octets):
                break
            octets += self.parts[offset]
        return octets if self.total is None else octets[:self.total]


class Packets:
    """Takes the IP packets of one capture in order."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[object, ...], _Packet] = OrderedDict()
        self._octets = 0

    def take(self, packet: bytes, version: int, interface: int, time_ns: int) -> Iterator[Datagram | Segment]:
        """Add a packet; returns what is complete now, or is given up.

        Args:
            packet: from the IP header on, as far as captured.
            version: 4 or 6, by the link layer.
            interface: where it was seen: fragments are put together only with those of the same interface.
            time_ns: since 1970 UTC.
        """
        found = _of_ipv4(packet) if version == IpVersion.V4 else _of_ipv6(packet)
        if found is None:
            return
        source, destination, content = found
        if isinstance(content, _Fragment):
            content = content._replace(key=(interface, version, source, destination, *content.key))
            yield from self._join(content, source, destination, time_ns)
        else:
            yield from _transport(*content, source, destination)

    def end(self) -> Iterator[Datagram | Segment]:
        """Datagrams of which only some fragments were captured."""
        while self._waiting:
            yield from self._give_up()

    def _join(self, fragment: _Fragment, source: bytes, destination: bytes,
              time_ns: int) -> Iterator[Datagram | Segment]:
        while self._waiting and time_ns - next(iter(self._waiting.values())).time_ns > LIFE_NS:
            yield from self._give_up()
        packet = self._waiting.get(fragment.key)
        if packet is None:
            packet = self._waiting[fragment.key] = _Packet(fragment, source, destination, time_ns)
        self._octets -= packet.octets
        packet.add(fragment)
        self._octets += packet.octets
        if packet.whole:
            del self._waiting[fragment.key]
            self._octets -= packet.octets
            yield from _transport(packet.protocol, packet.content(), source, destination)
        while self._octets > MAX_OCTETS or len(self._waiting) > MAX_PACKETS:
            yield from self._give_up()

    def _give_up(self) -> Iterator[Datagram | Segment]:
        """Give up the packet that has waited longest; of a datagram, the part up to the first gap is returned."""
        _, packet = self._waiting.popitem(last=False)
        self._octets -= packet.octets
        if packet.protocol == Protocol.UDP and 0 in packet.parts:
            for content in _transport(packet.protocol, packet.content(), packet.source, packet.destination):
                if isinstance(content, Datagram):
                    yield content._replace(damage=packet.damage)


_Content = tuple[int, bytes]
"""Protocol, and the octets from its header on."""


def _of_ipv4(packet: bytes) -> tuple[bytes, bytes, _Content | _Fragment] | None:
    """Source, destination and content; None if the header is not whole."""
    header = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < 20 or header < 20:
        return None
    octets = packet[header:int.from_bytes(packet[2:4], "big") or len(packet)]
    source, destination, protocol = packet[12:16], packet[16:20], packet[9]
    place = int.from_bytes(packet[6:8], "big")
    if not place & 0x3FFF:
        return source, destination, (protocol, octets)
    offset, more = (place & 0x1FFF) * _FRAGMENT_OCTETS, bool(place & _MORE_FRAGMENTS)
    return source, destination, _Fragment((protocol, packet[4:6]), protocol, offset, more, octets)


def _of_ipv6(packet: bytes) -> tuple[bytes, bytes, _Content | _Fragment] | None:
    """The same, after extension headers; None also for those that hide the content."""
    if len(packet) < 40:
        return None
    octets = packet[40:40 + (int.from_bytes(packet[4:6], "big") or len(packet))]
    source, destination, protocol = packet[8:24], packet[24:40], packet[6]
    for _ in range(_MOST_EXTENSIONS):
        if protocol == Protocol.IPV6_FRAGMENT and len(octets) >= _FRAGMENT_OCTETS:
            place = int.from_bytes(octets[2:4], "big")
            protocol, identification, octets = octets[0], octets[4:8], octets[_FRAGMENT_OCTETS:]
            if place & 0xFFF9:
                return source, destination, _Fragment((identification,), protocol, place & 0xFFF8, bool(place & 1),
                                                      octets)
        elif protocol in _EXTENSIONS and len(octets) >= _FRAGMENT_OCTETS:
            length = (octets[1] + 2) * 4 if protocol == Protocol.AH else (octets[1] + 1) * 8
            protocol, octets = octets[0], octets[length:]
        else:
            break
    return source, destination, (protocol, octets)


def _transport(protocol: int, octets: bytes, source: bytes, destination: bytes) -> Iterator[Datagram | Segment]:
    """The datagram or segment, if it is one."""
    least = _LEAST_OCTETS.get(protocol)
    if least is None or len(octets) < least:
        return
    sender, receiver = _end(source, octets[:2]), _end(destination, octets[2:4])
    if protocol == Protocol.TCP:
        yield Segment((sender, receiver), int.from_bytes(octets[4:8], "big"), octets[13], octets[octets[12] // 16 * 4:])
        return
    length = int.from_bytes(octets[4:6], "big")
    if length < _UDP_OCTETS:  # 0 in the large buffers that the network card segments
        length = len(octets)
    cut = f"{len(octets) - _UDP_OCTETS} of {length - _UDP_OCTETS} octets of this datagram were captured"
    yield Datagram(sender, receiver, octets[_UDP_OCTETS:length], int.from_bytes(octets[2:4], "big"),
                   cut if len(octets) < length else "")


@lru_cache(4096)
def _end(address: bytes, port: bytes) -> str:
    host = str(ipaddress.ip_address(address))
    return f"[{host}]:{int.from_bytes(port, 'big')}" if ":" in host else f"{host}:{int.from_bytes(port, 'big')}"
