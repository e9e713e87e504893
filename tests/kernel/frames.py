"""Builds frames, octet by octet as the RFCs draw them. Nothing here is shared with the code under test."""

from __future__ import annotations

import ipaddress
import struct

SOURCE_MAC = bytes.fromhex("02000000000a")
DESTINATION_MAC = bytes.fromhex("02000000000b")
ICMP, TCP, UDP, DCCP, ESP, AH, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 50, 51, 58, 132, 136
HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT_HEADER, DESTINATION_OPTIONS = 0, 43, 44, 59, 60
IPIP, IN_IPV6, GRE = 4, 41, 47
IPV4, IPV6, ARP, VLAN, SERVICE_VLAN, OLD_QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x9100
MPLS, MPLS_MULTICAST, PPPOE_DISCOVERY, PPPOE, PBB, VLAN_9200 = 0x8847, 0x8848, 0x8863, 0x8864, 0x88E7, 0x9200
PPP_IPV4, PPP_IPV6, PPP_LCP, PPP_MPLS = 0x0021, 0x0057, 0xC021, 0x0281
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))


def ethernet(ethertype: int, payload: bytes, *, tags: tuple[tuple[int, int], ...] = (), pad: int = 0) -> bytes:
    """A frame; `tags` outermost first as (TPID, TCI); padded with 0xEE up to `pad` octets."""
    head = DESTINATION_MAC + SOURCE_MAC + b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in tags)
    frame = head + struct.pack(">H", ethertype) + payload
    return frame + b"\xee" * (pad - len(frame))


def ipv4(payload: bytes, protocol: int, *, source: str = "10.0.0.1", destination: str = "10.0.0.2", tos: int = 0,
         ttl: int = 64, options: bytes = b"", identification: int = 0, offset: int = 0, more: bool = False,
         total_length: int | None = None, version: int = 4, ihl: int | None = None) -> bytes:
    """An IPv4 packet (RFC 791); `offset` in octets."""
    header_octets = 20 + len(options)
    if total_length is None:
        total_length = header_octets + len(payload)
    first = version << 4 | (header_octets // 4 if ihl is None else ihl)
    header = struct.pack(">BBHHHBBH", first, tos, total_length, identification, offset // 8 | (0x2000 if more else 0),
                         ttl, protocol, 0)
    return header + _packed(source) + _packed(destination) + options + payload


def ipv6(payload: bytes, next_header: int, *, source: str = "2001:db8::1", destination: str = "2001:db8::2",
         traffic_class: int = 0, hop_limit: int = 64, flow_label: int = 0, payload_length: int | None = None,
         version: int = 6) -> bytes:
    """An IPv6 packet (RFC 8200); extension headers are part of `payload`."""
    word = version << 28 | traffic_class << 20 | flow_label
    length = len(payload) if payload_length is None else payload_length
    return struct.pack(">IHBB", word, length, next_header, hop_limit) + _packed(source) + _packed(destination) + payload


def extension(next_header: int, octets: int = 8) -> bytes:
    """An options or routing header of `octets` octets (a multiple of 8), filled with Pad1 options."""
    return struct.pack(">BB", next_header, octets // 8 - 1) + bytes(octets - 2)


def authentication(next_header: int, octets: int = 24) -> bytes:
    """An Authentication Header (RFC 4302); its length field counts words less two."""
    return struct.pack(">BB", next_header, octets // 4 - 2) + b"\xaa" * (octets - 2)


def fragment_header(next_header: int, identification: int, *, offset: int, more: bool) -> bytes:
    """An IPv6 Fragment header; `offset` in octets."""
    return struct.pack(">BBHI", next_header, 0, offset | more, identification)


def tcp(source_port: int, destination_port: int, bits: int, payload: bytes = b"", *, options: bytes = b"") -> bytes:
    """A TCP segment (RFC 9293)."""
    offset = (20 + len(options)) // 4
    header = struct.pack(">HHIIHHHH", source_port, destination_port, 0x01020304, 0x05060708, offset << 12 | bits,
                         0xFFFF, 0, 0)
    return header + options + payload


def udp(source_port: int, destination_port: int, payload: bytes = b"") -> bytes:
    """A UDP datagram (RFC 768)."""
    return struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int, payload: bytes = bytes(4)) -> bytes:
    """An ICMP or ICMPv6 message."""
    return struct.pack(">BBH", kind, code, 0) + payload


def gre(ethertype: int, payload: bytes, *, key: int | None = None, sequence: int | None = None, checksum: bool = False,
        version: int = 0) -> bytes:
    """A GRE packet (RFC 2784, RFC 2890)."""
    flags = (0x8000 if checksum else 0) | (0x2000 if key is not None else 0) | (0x1000 if sequence is not None else 0)
    options = [bytes(4)] if checksum else []
    options += [struct.pack(">I", number) for number in (key, sequence) if number is not None]
    return struct.pack(">HH", flags | version, ethertype) + b"".join(options) + payload


def vxlan(vni: int, frame: bytes, *, flags: int = 0x08) -> bytes:
    """What a VXLAN datagram holds (RFC 7348)."""
    return struct.pack(">II", flags << 24, vni << 8) + frame


def geneve(vni: int, ethertype: int, payload: bytes, *, options: bytes = b"", version: int = 0) -> bytes:
    """What a Geneve datagram holds (RFC 8926)."""
    return struct.pack(">BBHI", version << 6 | len(options) // 4, 0, ethertype, vni << 8) + options + payload


def mpls(labels: tuple[int, ...], payload: bytes) -> bytes:
    """A label stack (RFC 3032), the outermost first."""
    return b"".join(struct.pack(">I", label << 12 | (position == len(labels) - 1) << 8 | 64)
                    for position, label in enumerate(labels)) + payload


def pppoe(session: int, protocol: int, payload: bytes, *, code: int = 0, compressed: bool = False,
          version_type: int = 0x11) -> bytes:
    """What a PPPoE frame holds (RFC 2516); `compressed`: PPP's protocol field in one octet (RFC 1661)."""
    content = protocol.to_bytes(1 if compressed else 2, "big") + payload
    return struct.pack(">BBHH", version_type, code, session, len(content)) + content


def pbb(service: int, ethertype: int, payload: bytes, *, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """What follows an I-TAG's EtherType (IEEE 802.1ah): flags and service, then the customer's frame."""
    return struct.pack(">I", service) + ethernet(ethertype, payload, tags=tags)


def erspan2(session: int, frame: bytes) -> bytes:
    """What GRE of type 0x88BE with a sequence number holds (draft-foschiano-erspan)."""
    return struct.pack(">HHI", 1 << 12, session, 0) + frame


def erspan3(session: int, frame: bytes, *, platform: bool = False) -> bytes:
    """What GRE of type 0x22EB holds."""
    return struct.pack(">HHIHH", 2 << 12, session, 0, 0, int(platform)) + bytes(8 * platform) + frame


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
