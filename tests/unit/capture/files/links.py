"""Link headers, octet by octet as tcpdump.org/linktypes.html and the standards draw them. Nothing of flowtop is in it.

Each head is a function of the EtherType of what follows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.kernel import frames as f

IPV4, IPV6 = f.IPV4, f.IPV6
SA, DA, BSS, RA = (bytes.fromhex(f"0200000000{number:02x}") for number in (10, 11, 12, 13))
PPP_PROTOCOLS = {IPV4: 0x0021, IPV6: 0x0057}
LENGTHS = {IPV4: 58, IPV6: 69}
"""Octets of the packets that follow."""
NLPIDS = {IPV4: 0xCC, IPV6: 0x8E}
MACS, NO_MACS = SA + DA, bytes(12)

Head = Callable[[int], bytes]


@dataclass(frozen=True)
class Case:
    """A link type.

    Attributes:
        name: of the test.
        link_type: LINKTYPE_ number.
        head: octets before an IP packet of this EtherType.
        macs: source and destination that flows have.
        tail: octets after the packet.
        egress: frames are known to have been sent.
        tshark: whether tshark 4.0 finds the packet.
        other: frames that hold no IP packet, with the kind that they are counted as.
    """

    name: str
    link_type: int
    head: Head
    macs: bytes = NO_MACS
    tail: bytes = b""
    egress: bool = False
    tshark: bool = True
    other: tuple[tuple[bytes, str], ...] = field(default=())


def snap(type_: int, organisation: bytes = bytes(3)) -> bytes:
    return b"\xaa\xaa\x03" + organisation + struct.pack(">H", type_)


def ppp(type_: int) -> bytes:
    return struct.pack(">H", PPP_PROTOCOLS[type_])


def dot11(flags: int = 0, subtype: int = 0, *, qos: bytes = b"", sequence: int = 0, kind: int = 2,
          addresses: tuple[bytes, ...] = (DA, SA, BSS), more: bytes = b"") -> bytes:
    """An 802.11 header: frame control, duration, three addresses, sequence, a fourth address, QoS, HT control."""
    control = bytes([kind << 2 | subtype << 4, flags])
    return (control + bytes(2) + b"".join(addresses[:3]) + struct.pack("<H", sequence) + b"".join(addresses[3:]) + qos
            + more)


def subframe(type_: int, octets: int = 60) -> bytes:
    return DA + SA + struct.pack(">H", 8 + octets) + snap(type_)


def radiotap(fields: bytes = b"", present: int = 0, more_words: tuple[int, ...] = ()) -> bytes:
    words = struct.pack(f"<{1 + len(more_words)}I", present, *more_words)
    return struct.pack("<BBH", 0, 0, 4 + len(words) + len(fields)) + words + fields


def prism() -> bytes:
    """A header of 144 octets: message code 0x44, length, device, ten items of 12 octets."""
    items = b"".join(struct.pack("<IHHI", (number + 1) << 12 | 0x44, 0, 4, 0) for number in range(10))
    return struct.pack("<II16s", 0x44, 144, b"wlan0") + items


def avs(length: int = 64) -> bytes:
    return struct.pack(">II", 0x80211001, length) + bytes(length - 8)


def ppi(inner: int, extra: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(extra), inner) + extra


def pktap(inner: int, flags: int = 1) -> bytes:
    """darwin's struct pktap_header, 108 octets."""
    head = struct.pack("<III24sI", 108, 1, inner, b"en0", flags)
    return head + bytes(108 - len(head))


def attribute(kind: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nflog(order: str = "<", *, family: int | None = None, hook: int = 1, in_device: bool = True, mac: bool = True,
          header: bool = False, prefix: bytes = b"in: \0", length: int = 60) -> Head:
    """All attributes up to the payload's value, of `length` octets."""
    def head(type_: int) -> bytes:
        out = struct.pack(">BBH", family if family is not None else {IPV4: 2, IPV6: 10}[type_], 0, 30)
        out += attribute(1, struct.pack(">HBx", type_, hook), order) + attribute(10, prefix, order)
        out += attribute(4 if in_device else 5, struct.pack(">I", 2), order)
        if mac:
            out += attribute(8, struct.pack(">HH", 6, 0) + SA + bytes(2), order)
        if header:
            out += attribute(16, DA + SA + struct.pack(">H", type_), order)
        return out + struct.pack(f"{order}HH", 4 + length, 9)
    return head


def pflog(length: int = 61, direction: int = 1) -> Head:
    """OpenBSD's struct pfloghdr: length, family, action, reason, names, numbers, direction, padding."""
    def head(type_: int) -> bytes:
        out = bytes([length, {IPV4: 2, IPV6: 24}[type_], 0, 0]) + b"em0".ljust(16, b"\0") + bytes(16) + bytes(24)
        out += bytes([direction])
        return out.ljust(length + -length % 4, b"\0")
    return head


def cooked(type_: int, *, device: int = 1, packet_type: int = 0, octets: int = 6) -> bytes:
    return struct.pack(">HHH8sH", packet_type, device, octets, SA + bytes(2), type_)


def cooked2(type_: int, *, device: int = 1, packet_type: int = 0) -> bytes:
    return struct.pack(">HHIHBB8s", type_, 0, 7, device, packet_type, 6, SA + bytes(2))


def erf(kind: int, *, extensions: int = 0) -> bytes:
    """A record header of Endace: time, type, flags, record length, loss counter, wire length."""
    out = bytes(8) + bytes([kind | (0x80 if extensions else 0), 4]) + struct.pack(">HHH", 16 + 100, 0, 100)
    return out + b"".join(bytes([0x80 if more else 0]) + bytes(7) for more in range(extensions - 1, -1, -1))


def _ethernet(type_: int) -> bytes:
    return DA + SA + struct.pack(">H", type_)


LCP = b"\xc0\x21\x01\x01\x00\x04"
ARP = f.ARP
EAPOL = 0x888E
TO_DS, FROM_DS, PROTECTED, ORDER = 1, 2, 0x40, 0x80
DOT11 = (
    (dot11(subtype=8, kind=0) + bytes(40), "other"), (dot11(kind=1, subtype=11)[:16], "other"),
    (dot11(PROTECTED) + bytes(60), "other"), (dot11(subtype=4), "other"),
    (dot11(FROM_DS) + snap(ARP) + bytes(28), "arp"), (dot11(FROM_DS) + snap(EAPOL) + bytes(20), "other"))
"""A beacon, an RTS, an encrypted frame, one without data, ARP, a key handshake."""

CASES = [
    Case("ppp", 9, ppp, other=((LCP, "other"),)),
    Case("ppp framed", 9, lambda type_: b"\xff\x03" + ppp(type_), other=((b"\xff\x03" + LCP, "other"),)),
    Case("ppp compressed", 9, lambda type_: ppp(type_)[1:]),
    Case("ppp framed and compressed", 9, lambda type_: b"\xff\x03" + ppp(type_)[1:]),
    Case("ppp hdlc", 50, lambda type_: b"\xff\x03" + ppp(type_), other=((b"\xff\x03" + LCP, "other"),)),
    Case("ppp hdlc of cisco", 50, lambda type_: b"\x0f\x00" + struct.pack(">H", type_),
         other=((b"\x8f\x00\x80\x35" + bytes(14), "other"),)),
    Case("pppoe session", 51, lambda type_: struct.pack(">BBHH", 0x11, 0, 7, 62) + ppp(type_),
         other=((struct.pack(">BBHH", 0x11, 9, 0, 4) + b"\x01\x01\0\0", "other"),)),
    Case("cisco hdlc", 104, lambda type_: b"\x0f\x00" + struct.pack(">H", type_),
         other=((b"\x8f\x00\x80\x35" + bytes(14), "other"),)),
    Case("pppd received", 166, lambda type_: b"\x00\x03" + ppp(type_), tshark=False),
    Case("pppd sent", 166, lambda type_: b"\x01\x03" + ppp(type_), egress=True, tshark=False),
    Case("ppp with direction", 204, lambda type_: b"\x01\xff\x03" + ppp(type_), egress=True),
    Case("cisco hdlc with direction", 205, lambda type_: b"\x00\x0f\x00" + struct.pack(">H", type_), tshark=False),
    Case("frame relay", 107, lambda type_: b"\x18\x41\x03" + bytes([NLPIDS[type_]])),
    Case("frame relay padded", 107, lambda type_: b"\x18\x41\x03\x00\x80" + bytes(3) + struct.pack(">H", type_)),
    Case("frame relay of cisco", 107, lambda type_: b"\x18\x41" + struct.pack(">H", type_)),
    Case("frame relay, four octets", 107, lambda type_: b"\x18\x40\x40\x41\x03" + bytes([NLPIDS[type_]])),
    Case("frame relay with ppp", 107, lambda type_: b"\x18\x41\x03\xcf" + ppp(type_)),
    Case("frame relay with direction", 206, lambda type_: b"\x01\x18\x41\x03" + bytes([NLPIDS[type_]]), egress=True,
         tshark=False),

    Case("ppp with mpls", 9, lambda type_: b"\xff\x03\x02\x81" + struct.pack(">I", 16_001 << 12 | 0x140)),
    Case("cisco hdlc with mpls", 104, lambda type_: b"\x0f\x00\x88\x47" + struct.pack(">I", 16_001 << 12 | 0x140)),
    Case("mpls", 219, lambda type_: struct.pack(">II", 16_001 << 12 | 0x40, 7 << 12 | 0x140), tshark=False),
    Case("snap with mpls", 100, lambda type_: snap(0x8847) + struct.pack(">I", 16_001 << 12 | 0x140), tshark=False),
    Case("cooked with mpls", 113, lambda type_: cooked(0x8847) + struct.pack(">I", 16_001 << 12 | 0x140),
         SA + bytes(6)),

    Case("802.11 ad hoc", 105, lambda type_: dot11() + snap(type_), MACS, other=DOT11),
    Case("802.11 to the access point", 105,
         lambda type_: dot11(TO_DS, addresses=(BSS, SA, DA)) + snap(type_), MACS),
    Case("802.11 from the access point", 105,
         lambda type_: dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),
    Case("802.11 between access points", 105,
         lambda type_: dot11(TO_DS | FROM_DS, addresses=(RA, BSS, DA, SA)) + snap(type_), MACS),
    Case("802.11 qos", 105,
         lambda type_: dot11(FROM_DS, 8, addresses=(DA, BSS, SA), qos=b"\0\0") + snap(type_), MACS),
    Case("802.11 qos between access points", 105,
         lambda type_: dot11(TO_DS | FROM_DS, 8, addresses=(RA, BSS, DA, SA), qos=b"\0\0") + snap(type_), MACS),
    Case("802.11 qos with ht control", 105,
         lambda type_: dot11(FROM_DS | ORDER, 8, addresses=(DA, BSS, SA), qos=b"\0\0", more=bytes(4)) + snap(type_),
         MACS),
    Case("802.11 retried, tunnel organisation", 105,
         lambda type_: dot11(FROM_DS | 8, addresses=(DA, BSS, SA)) + snap(type_, b"\0\0\xf8"), MACS),
    Case("802.11 a-msdu", 105,
         lambda type_: dot11(FROM_DS, 8, addresses=(DA, BSS, SA), qos=b"\x80\0") + subframe(
             type_, LENGTHS[type_]), MACS),
    Case("radiotap", 127, lambda type_: radiotap() + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS,
         other=tuple((radiotap() + frame, kind) for frame, kind in DOT11)),
    Case("radiotap with check sequence", 127,
         lambda type_: radiotap(b"\x10", 1 << 1) + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS,
         bytes(4)),
    Case("radiotap with time and padding", 127,
         lambda type_: radiotap(bytes(8) + b"\x20\0", 3) + dot11(FROM_DS, 8, addresses=(DA, BSS, SA), qos=b"\0\0")
         + bytes(2) + snap(type_), MACS),
    Case("radiotap of several words", 127,
         lambda type_: radiotap(bytes(4) + bytes(8) + b"\x20", 1 << 31 | 3, (1 << 29,))
         + dot11(FROM_DS, 8, addresses=(DA, BSS, SA), qos=b"\0\0") + bytes(2) + snap(type_), MACS, tshark=False),
    Case("radiotap of more words", 127,
         lambda type_: radiotap(bytes(8) + b"\x20", 1 << 31 | 3, (1 << 29 | 1 << 31, 0))
         + dot11(FROM_DS, 8, addresses=(DA, BSS, SA), qos=b"\0\0") + bytes(2) + snap(type_), MACS, tshark=False),
    Case("prism", 119, lambda type_: prism() + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),
    Case("avs under prism's number", 119,
         lambda type_: avs() + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),
    Case("avs", 163, lambda type_: avs() + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),
    Case("ppi with 802.11", 192, lambda type_: ppi(105) + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),
    Case("ppi with ethernet and fields", 192,
         lambda type_: ppi(1, struct.pack("<HH", 2, 4) + bytes(4)) + _ethernet(type_), MACS),

    Case("nflog", 239, nflog(), SA + bytes(6), tshark=False),
    Case("nflog, other byte order", 239, nflog(">"), SA + bytes(6), tshark=False),
    Case("nflog sent", 239, nflog(in_device=False, hook=3, mac=False), egress=True, tshark=False),
    Case("nflog with a link header", 239, nflog(header=True), MACS, tshark=False),
    Case("nflog of a bridge", 239, nflog(family=7, prefix=b"b\0"), SA + bytes(6), tshark=False),
    Case("nflog of a long packet", 239, nflog(length=0x201), SA + bytes(6), tail=bytes(450), tshark=False),
    Case("pflog", 117, pflog()),
    Case("pflog sent, longer header", 117, pflog(100, 2), egress=True),
    Case("enc", 109, lambda type_: struct.pack("<III", {IPV4: 2, IPV6: 24}[type_], 1, 0)),
    Case("enc, other byte order", 109, lambda type_: struct.pack(">III", {IPV4: 2, IPV6: 24}[type_], 1, 0),
         tshark=False),
    Case("ipnet", 226, lambda type_: struct.pack(">BBHI", 1, {IPV4: 2, IPV6: 26}[type_], 0, LENGTHS[type_])
         + bytes(16)),
    Case("pktap with ethernet", 258, lambda type_: pktap(1) + _ethernet(type_), MACS),
    Case("pktap sent, raw ip", 258, lambda type_: pktap(12, 2), egress=True, tshark=False),

    Case("cooked, gre", 113, lambda type_: cooked(type_, device=778, octets=4)),
    Case("cooked, loopback", 113, lambda type_: cooked(type_, device=772), SA + bytes(6)),
    Case("cooked, llc", 113, lambda type_: cooked(4) + snap(type_), SA + bytes(6),
         other=((cooked(16, device=824, packet_type=4) + bytes(60), "other"),)),
    Case("cooked, radiotap", 113, lambda type_: cooked(4, device=803) + radiotap()
         + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),
    Case("cooked, ppp", 113, lambda type_: cooked(7, device=512, octets=0) + b"\xff\x03" + ppp(type_)),
    Case("cooked, ethernet over gre", 113, lambda type_: cooked(0x6558, device=778) + _ethernet(type_), MACS,
         tshark=False),
    Case("cooked 2, llc", 276, lambda type_: cooked2(4) + snap(type_), SA + bytes(6),
         other=((cooked2(0x0800, device=824) + bytes(60), "other"),)),
    Case("cooked 2, radiotap", 276, lambda type_: cooked2(4, device=803) + radiotap()
         + dot11(FROM_DS, addresses=(DA, BSS, SA)) + snap(type_), MACS),

    Case("802.3 with snap", 1, lambda type_: DA + SA + struct.pack(">H", 68) + snap(type_), MACS,
         other=((DA + SA + struct.pack(">H", 43) + b"\x42\x42\x03" + bytes(40), "llc"),
                (DA + SA + struct.pack(">H", 60) + snap(0x2000, b"\0\0\x0c") + bytes(60), "llc"))),
    Case("802.3 with snap, tagged", 1,
         lambda type_: DA + SA + struct.pack(">HHH", 0x8100, 5, 68) + snap(type_), MACS),
    Case("token ring", 6, lambda type_: b"\x10\x40" + DA + SA + snap(type_), MACS),
    Case("fddi", 10, lambda type_: b"\x50" + DA + SA + snap(type_), MACS),
    Case("atm", 100, snap),
    Case("atm, bridged", 11, lambda type_: snap(7, b"\0\x80\xc2") + bytes(2) + _ethernet(type_), MACS, tshark=False),
    Case("ip over 1394", 138, lambda type_: bytes(8) + bytes(8) + struct.pack(">H", type_)),
    Case("ethernet with preamble", 274, lambda type_: b"\x55" * 7 + b"\xd5" + _ethernet(type_), MACS, tshark=False),
    Case("broadcom tag", 281, lambda type_: DA + SA + b"\x00\x00\x00\x02" + struct.pack(">H", type_), MACS,
         tshark=False),
    Case("broadcom tag in front", 282, lambda type_: b"\x00\x00\x00\x02" + _ethernet(type_), MACS, tshark=False),
    Case("marvell tag", 283, lambda type_: DA + SA + b"\xc0\x18\x00\x00" + struct.pack(">H", type_), MACS,
         tshark=False),
    Case("marvell tag with ethertype", 284,
         lambda type_: DA + SA + b"\xda\xda\x00\x00\xc0\x18\x00\x00" + struct.pack(">H", type_), MACS, tshark=False),
    Case("erf with ethernet", 197, lambda type_: erf(2) + bytes(2) + _ethernet(type_), MACS, tshark=False),
    Case("erf with extension headers", 197, lambda type_: erf(2, extensions=2) + bytes(2) + _ethernet(type_), MACS,
         tshark=False),
    Case("erf with ppp", 197, lambda type_: erf(1) + b"\xff\x03" + ppp(type_), tshark=False),
]
