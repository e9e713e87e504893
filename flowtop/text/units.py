"""Writes numbers, times, addresses and names for people, in single-cell characters only. quantities.py reads them."""

from __future__ import annotations

import socket
import unicodedata
from collections.abc import Iterator

from flowtop.model.kinds import IpVersion, Protocol, TcpBits

_PREFIXES = (" ", "k", "M", "G", "T", "P", "E", "Z", "Y")

PROTOCOL_NAMES: dict[int, str] = {
    Protocol.ICMP: "icmp", Protocol.IGMP: "igmp", Protocol.IPIP: "ipip", Protocol.TCP: "tcp", Protocol.EGP: "egp",
    Protocol.IGP: "igp", Protocol.UDP: "udp", Protocol.RDP: "rdp", Protocol.DCCP: "dccp", Protocol.IPV6: "ipv6",
    Protocol.RSVP: "rsvp", Protocol.GRE: "gre", Protocol.ESP: "esp", Protocol.AH: "ah", Protocol.ICMPV6: "icmp6",
    Protocol.IPV6_NO_NEXT: "nonxt", Protocol.EIGRP: "eigrp", Protocol.OSPF: "ospf", Protocol.NOS_IPIP: "ipip",
    Protocol.ETHERIP: "ethip", Protocol.PIM: "pim", Protocol.IPCOMP: "comp", Protocol.VRRP: "vrrp",
    Protocol.L2TP: "l2tp", Protocol.ISIS: "isis", Protocol.SCTP: "sctp", Protocol.FC: "fc", Protocol.MOBILITY: "mh",
    Protocol.UDPLITE: "udpl", Protocol.MPLS: "mpls", Protocol.HIP: "hip", Protocol.SHIM6: "shim6",
    Protocol.ETHERNET: "eth",
}
"""Short names of IP protocol numbers, as in /etc/protocols where that is short enough for a column."""

ICMP_TYPES: dict[int, str] = {
    0: "echo-rep", 3: "unreachable", 4: "quench", 5: "redirect", 8: "echo-req", 9: "router-adv",
    10: "router-sol", 11: "time-exceeded", 12: "param-problem", 13: "timestamp", 14: "timestamp-reply",
}
ICMP6_TYPES: dict[int, str] = {
    1: "unreachable", 2: "too-big", 3: "time-exceeded", 4: "param-problem", 128: "echo-req", 129: "echo-rep",
    130: "mld-query", 131: "mld-report", 132: "mld-done", 133: "router-sol", 134: "router-adv", 135: "neighbor-sol",
    136: "neighbor-adv", 137: "redirect", 143: "mld2-report",
}

DSCP_NAMES: dict[int, str] = {
    0: "", 1: "le", 8: "cs1", 10: "af11", 12: "af12", 14: "af13", 16: "cs2", 18: "af21", 20: "af22", 22: "af23",
    24: "cs3", 26: "af31", 28: "af32", 30: "af33", 32: "cs4", 34: "af41", 36: "af42", 38: "af43", 40: "cs5",
    44: "va", 46: "ef", 48: "cs6", 56: "cs7",
}

TCP_LETTERS = "FSRP.UEWe"
"""tcpdump's letter of each of TcpBits, in their order; ACK is a dot."""
_BITS_AND_LETTERS = tuple(zip(map(int, TcpBits), TCP_LETTERS, strict=True))


def _three_digits(value: float) -> tuple[str, str]:
    """`value` >= 0 to three significant digits (two decimals at most) and its SI prefix (a space for none)."""
    for prefix in _PREFIXES:
        if value < 9.995:
            return ("0" if value == 0 else f"{value:.2f}"), prefix
        if value < 99.95:
            return f"{value:.1f}", prefix
        if value < 999.5:
            return f"{value:.0f}", prefix
        value /= 1000
    return f"{value * 1000:.0f}", _PREFIXES[-1]


def rate(octets_per_s: float, bits: bool = True) -> str:
    """A rate with SI prefix: `82.1 Mb/s`, `10.3 MB/s`, `250  b/s`. At most 9 cells; right-aligned, units line up."""
    digits, prefix = _three_digits(octets_per_s * 8 if bits else octets_per_s)
    return f"{digits} {prefix}{'b' if bits else 'B'}/s"


def packet_rate(packets_per_s: float) -> str:
    """Packets a second: `0.10`, `12.5`, `884k`. At most 5 cells."""
    digits, prefix = _three_digits(packets_per_s)
    return f"{digits}{prefix.strip()}"


def octets(n: int) -> str:
    """An amount of octets: `1.21 GB`, `512  B`. At most 7 cells; right-aligned, units line up."""
    if n < 1000:
        return f"{n}  B"
    digits, prefix = _three_digits(n)
    return f"{digits} {prefix}B"


def count(n: int) -> str:
    """A number of things: `12`, `884k`, `1.25M`. At most 5 cells."""
    if n < 1000:
        return str(n)
    digits, prefix = _three_digits(n)
    return f"{digits}{prefix}"


def things(n: int, noun: str) -> str:
    """A whole number of things in words: `1 flow`, `2,235 flows`; a noun of several words gets its `s` at the end."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _aligned(value: float) -> tuple[str, str]:
    """`value` >= 0 in 5 cells at most, with one decimal where it has a prefix, and its SI prefix (a space for none)."""
    power = 0
    while value >= (999.95 if power else 999.5) and power < len(_PREFIXES) - 1:
        value /= 1000
        power += 1
    if power or (0 < value < 9.95 and value != int(value)):
        return f"{value:.1f}", _PREFIXES[power]
    return f"{value:.0f}", _PREFIXES[0]


def rate_cell(octets_per_s: float, bits: bool = True) -> str:
    """A rate for a column: `82.1 Mb/s`, `250  b/s`. At most 10 cells; right-aligned, units line up."""
    digits, prefix = _aligned(octets_per_s * 8 if bits else octets_per_s)
    return f"{digits} {prefix}{'b' if bits else 'B'}/s"


def octets_cell(n: int) -> str:
    """An amount of octets for a column: `1.2 GB`, `512  B`. At most 8 cells; right-aligned, units line up."""
    digits, prefix = _aligned(n)
    return f"{digits} {prefix}B"


def count_cell(n: float) -> str:
    """A number of things for a column: `884.4k`, `12`. At most 6 cells; right-aligned, they end together."""
    return "".join(_aligned(n)).rstrip()


def magnitude(octets_per_s: float, bits: bool = True) -> int:
    """Magnitude of a rate: 0 nothing, 1 below a thousand, 2 thousands, 3 millions, 4 thousand millions and above."""
    value = octets_per_s * 8 if bits else octets_per_s
    return 0 if not value else 1 + sum(value >= edge for edge in (999.5, 999_950.0, 999_950_000.0))


def span(microseconds: int) -> str:
    """A short time: `250 µs`, `12.3 ms`, `1.20  s`. At most 7 cells up to 2**32 - 1; right-aligned, units line up."""
    value: float = microseconds
    for prefix in "µm":
        if value < 999.5:
            return f"{_three_digits(value)[0] if prefix == 'm' else int(value)} {prefix}s"
        value /= 1000
    return f"{_three_digits(value)[0] if value < 999.5 else int(value)}  s"


def duration(seconds: float) -> str:
    """A span of time, rounded down: `2:31`, `1:02:03`, `2d03h`. Less than 7 cells below 1,000 days."""
    whole = max(0, int(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}"


def order_arrow(descending: bool) -> str:
    """Arrow for a sort order."""
    return "↓" if descending else "↑"


def protocol(number: int) -> str:
    """Name of an IP protocol, its number when it has no short one. At most 5 cells."""
    return PROTOCOL_NAMES.get(number) or str(number)


def icmp(ip_version: int, type_code: int) -> str:
    """ICMP or ICMPv6 type and code, packed type * 256 + code: `echo-req`, `unreachable/3`, `type 42/0`."""
    number, code = divmod(type_code, 256)
    name = (ICMP6_TYPES if ip_version == IpVersion.V6 else ICMP_TYPES).get(number)
    if name is None:
        return f"type {number}/{code}"
    return f"{name}/{code}" if code else name


_SHORTER_ICMP = (("unreachable", "unreach"), ("time-exceeded", "exceeded"), ("param-problem", "param"),
                 ("neighbor-", "nbr-"), ("router-", "rtr-"), ("timestamp-reply", "timestamp-rep"))


def icmp_texts(ip_version: int, type_code: int) -> tuple[str, str, str]:
    """The same in three lengths, the longest first: `unreachable/3`, `unreach/3`, `3/3`."""
    shorter = whole = icmp(ip_version, type_code)
    for word, short in _SHORTER_ICMP:
        shorter = shorter.replace(word, short)
    return whole, shorter, f"{type_code // 256}/{type_code % 256}"


def dscp(tos: int) -> str:
    """Differentiated services code point of a TOS or traffic class octet: `ef`, `af41`, `7`; empty for best effort."""
    point = tos >> 2
    return DSCP_NAMES.get(point, str(point))


def tcp_flags(bits: int) -> str:
    """TCP control bits in tcpdump's letters, a dot for ACK: `FSP.`; reserved bits above AE are left out."""
    return "".join(letter for bit, letter in _BITS_AND_LETTERS if bits & bit)


def mac(address: bytes) -> str:
    """A MAC address of 6 bytes: `02:00:00:00:00:01`."""
    return address.hex(":")


def address(raw: bytes, ip_version: int) -> str:
    """An address of 16 bytes (IPv4: the first 4) in RFC 5952 or dotted form; without IP, the MAC address in it."""
    if ip_version == IpVersion.V6:
        return socket.inet_ntop(socket.AF_INET6, raw)
    if not ip_version:
        return mac(raw[:6])
    return socket.inet_ntop(socket.AF_INET, raw[:4])


def bracketed(raw: bytes, ip_version: int) -> str:
    """An address as it stands before a port: IPv6 in brackets."""
    text = address(raw, ip_version)
    return f"[{text}]" if ip_version == IpVersion.V6 else text


def endpoint(raw: bytes, ip_version: int, port: int) -> str:
    """Address and port: `10.0.0.5:443`, `[2001:db8::1]:53`."""
    return f"{bracketed(raw, ip_version)}:{port}"


_NOT_ONE_CELL = (
    ("\u1160", "\u11ff"), ("\ud7b0", "\ud7ff"), ("\uffa0", "\uffa0"),  # Hangul vowels and finals: on the one before
    ("\u2630", "\u2637"), ("\u268a", "\u268f"), ("\u4dc0", "\u4dff"), ("\U0001d300", "\U0001d376"),
)
"""What terminals give no cell or, since Unicode 16, two."""


def _keeps(character: str) -> bool:
    """One printable cell: no control, format (bidi, zero width), surrogate, private or combining character, and none
    written from right to left: terminals turn round what stands beside these, too."""
    category = unicodedata.category(character)
    if category[0] in "CMZ":
        return character == " "
    if any(first <= character <= last for first, last in _NOT_ONE_CELL):
        return False
    return (unicodedata.east_asian_width(character) not in "WF"
            and unicodedata.bidirectional(character) not in ("R", "AL", "AN"))


def printable(text: str, limit: int = 64) -> str:
    """Untrusted text made safe to show: escape sequences, control characters and bidi marks are removed.

    Args:
        text: anything: a name from the network, a process name, an interface name.
        limit: longest result, in cells; a longer text ends in `…`.

    Returns:
        Characters of one cell each; wide and combining ones become `?`.
    """
    if text.isascii() and text.isprintable():
        clean = text
    else:
        clean = "".join(_harmless(character) for character in _without_escapes(text[: 8 * limit]))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _harmless(character: str) -> str:
    if _keeps(character):
        return character
    return "" if unicodedata.category(character)[0] == "C" else "?"


def _without_escapes(text: str) -> str:
    """`text` without ECMA-48 control sequences, their parameters included."""
    kept: list[str] = []
    rest = iter(text)
    for character in rest:
        if character == "\x1b":
            if next(rest, "") == "[":
                _skip_sequence(rest)
        elif character == "\x9b":
            _skip_sequence(rest)
        else:
            kept.append(character)
    return "".join(kept)


def _skip_sequence(rest: Iterator[str]) -> None:
    """Move the iterator past parameters and the final byte of a control sequence."""
    for character in rest:
        if "\x40" <= character <= "\x7e":
            return


def elide(text: str, width: int) -> str:
    """`text` in at most `width` cells; `…` replaces the middle, because the end of an endpoint (the port) matters."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail:]
