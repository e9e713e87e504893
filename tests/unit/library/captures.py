"""A capture made by struct alone: two HTTPS conversations, DNS, and a ping; who sent how much is known by adding up."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from tests.unit.capture.files.writers import SECOND, pcap

START_S = 1_700_000_000
CLIENT, SERVER, OTHER = "10.0.0.1", "192.0.2.80", "2001:db8::7"
MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


@dataclass(frozen=True)
class Packet:
    """One packet: seconds after START_S, its ends, and what is in it."""

    at_s: float
    source: str
    destination: str
    protocol: int
    payload: bytes

    @property
    def octets(self) -> int:
        """Of the IP packet."""
        return len(self.payload) + (20 if "." in self.source else 40)

    def frame(self) -> bytes:
        """In Ethernet."""
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        if source.version == 4:
            head = struct.pack(">BBHHHBBH", 0x45, 0, self.octets, 1, 0, 64, self.protocol, 0)
        else:
            head = struct.pack(">IHBB", 6 << 28, len(self.payload), self.protocol, 64)
        kind = b"\x08\x00" if source.version == 4 else b"\x86\xdd"
        return MAC_B + MAC_A + kind + head + source.packed + destination.packed + self.payload


def tcp(source: int, destination: int, flags: int, sequence: int, octets: int = 0) -> bytes:
    """A TCP segment with so many octets in it."""
    return struct.pack(">HHIIBBHHH", source, destination, sequence, 0, 5 << 4, flags, 1000, 0, 0) + bytes(octets)


def udp(source: int, destination: int, payload: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


PACKETS = (
    Packet(0.0, CLIENT, SERVER, 6, tcp(40_000, 443, 0x02, 100)),
    Packet(0.010, SERVER, CLIENT, 6, tcp(443, 40_000, 0x12, 500)),
    Packet(0.020, CLIENT, SERVER, 6, tcp(40_000, 443, 0x18, 101, 300)),
    Packet(0.5, SERVER, CLIENT, 6, tcp(443, 40_000, 0x18, 501, 1_400)),
    Packet(1.0, SERVER, CLIENT, 6, tcp(443, 40_000, 0x18, 1_901, 1_400)),
    Packet(1.5, CLIENT, SERVER, 6, tcp(40_000, 443, 0x11, 401)),
    Packet(2.0, "10.0.0.9", SERVER, 6, tcp(40_001, 443, 0x02, 7)),
    Packet(2.5, CLIENT, "192.0.2.53", 17, udp(5_353, 53, bytes(40))),
    Packet(2.6, "2001:db8::1", OTHER, 17, udp(1_000, 2_000, bytes(100))),
    Packet(3.0, CLIENT, SERVER, 1, struct.pack(">BBHHH", 8, 0, 0, 1, 1) + bytes(56)),
)
FLOWS: dict[tuple[str, str, int], tuple[int, int]] = {}
"""(packets, octets) by source, destination and protocol."""
for _packet in PACKETS:
    _key = _packet.source, _packet.destination, _packet.protocol
    _packets, _octets = FLOWS.get(_key, (0, 0))
    FLOWS[_key] = _packets + 1, _octets + _packet.octets
TRACE = pcap((START_S * SECOND + round(packet.at_s * SECOND), packet.frame()) for packet in PACKETS)
