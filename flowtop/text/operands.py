"""Operands of the filter language, quantities apart (quantities.py): text → number, address, network.

Each function raises ValueError for a text that it cannot read; an OperandError says what it expects.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from flowtop.model.kinds import LARGEST_PROTOCOL, IpVersion, Protocol, TcpBits
from flowtop.text import units


class OperandError(ValueError):
    """The text cannot be read; the message says what is expected."""


MOST_PORTS = 32
"""Ports that one part of a name may match."""


def integer(low: int, high: int) -> ReadInteger:
    """Reads whole numbers of a range, decimal or 0x."""
    return ReadInteger(low, high)


@dataclass(frozen=True, slots=True)
class ReadInteger:
    """See `integer`."""

    low: int
    high: int

    def __call__(self, text: str) -> int:
        """The number."""
        if not re.fullmatch(r"\d{1,10}|0[xX][0-9a-fA-F]{1,8}", text):
            raise ValueError
        value = int(text, 0) if text[:2] in ("0x", "0X") else int(text)
        if not self.low <= value <= self.high:
            raise OperandError(f"{self.low} to {self.high}")
        return value


_VLANS = ReadInteger(0, 4095)
_BOTH_TAGS = 1 << 24
"""Added to a number that holds two VLAN IDs; above every VLAN ID."""


def vlan(text: str) -> int:
    """A VLAN ID; or both tags, `100.200`, as one number that `vlan_tags` splits."""
    outer, dot, inner = text.partition(".")
    return _BOTH_TAGS + 4096 * _VLANS(outer) + _VLANS(inner) if dot else _VLANS(text)


def vlan_tags(number: int) -> tuple[int, int] | None:
    """Outer and inner VLAN ID of a number from `vlan`; None if it is one ID."""
    return divmod(number - _BOTH_TAGS, 4096) if number >= _BOTH_TAGS else None


def named(names: dict[str, int], low: int, high: int) -> ReadNamed:
    """Reads a name, or a number of a range."""
    return ReadNamed(tuple(names.items()), ReadInteger(low, high))


@dataclass(frozen=True, slots=True)
class ReadNamed:
    """See `named`."""

    names: tuple[tuple[str, int], ...]
    integer: ReadInteger

    def __call__(self, text: str) -> int:
        """The number."""
        found = dict(self.names).get(text.lower())
        return self.integer(text) if found is None else found


@dataclass(frozen=True, slots=True)
class ReadChoice:
    """Reads one of these names."""

    names: tuple[tuple[str, int], ...]

    def __call__(self, text: str) -> int:
        """The number."""
        found = dict(self.names).get(text.lower())
        if found is None:
            raise ValueError
        return found


_EVERY_PROTOCOL = {
    **{name: number for number, name in units.PROTOCOL_NAMES.items() if number != Protocol.NOS_IPIP},
    "icmpv6": Protocol.ICMPV6, "ipv6-icmp": Protocol.ICMPV6, "udplite": Protocol.UDPLITE, "udp-lite": Protocol.UDPLITE,
}
read_protocol = named(_EVERY_PROTOCOL, 0, LARGEST_PROTOCOL)
"""An IP protocol's name or number."""
PROTOCOL_WORDS: dict[str, int] = {name: number for name, number in _EVERY_PROTOCOL.items() if name != "ipv6"}
"""Protocols that are words of the filter language. The word `ipv6` is the IP version, not protocol 41."""

_FLAG_BITS: dict[str, int] = {**{bit.name.lower(): int(bit) for bit in TcpBits if bit.name}, "push": int(TcpBits.PSH)}
_BITS_OF_LETTERS = dict(zip(units.TCP_LETTERS, map(int, TcpBits), strict=True))
FLAG_NAMES = ("syn", "ack", "fin", "rst", "psh", "urg", "ece", "cwr", "ae")


def tcp_flags(text: str) -> int:
    """`syn`, `syn+ack`, `tcp-syn,tcp-ack`, or the letters of the FLAGS column: `S.`, `FSP.`. `none`: 0."""
    bits = 0
    if text.lower() == "none":
        return 0
    for part in re.split(r"[+,]", text):
        name = part.lower().removeprefix("tcp-")
        if name in _FLAG_BITS:
            bits |= _FLAG_BITS[name]
        elif part and all(letter in _BITS_OF_LETTERS for letter in part):
            bits |= sum({_BITS_OF_LETTERS[letter] for letter in part})
        else:
            raise ValueError
    return bits


def mac(text: str) -> bytes:
    """A MAC address, 6 bytes: `02:00:00:00:00:0a`, with dashes or dots."""
    parts = re.split(r"[:-]", text)
    if len(parts) == 6 and all(re.fullmatch(r"[0-9a-fA-F]{1,2}", part) for part in parts):
        return bytes(int(part, 16) for part in parts)
    if re.fullmatch(r"(?:[0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}", text):
        return bytes.fromhex(text.replace(".", ""))
    raise ValueError


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses of one IP version that begin with the same `prefix` bits of `packed` (4 or 16 bytes, rest zero)."""

    packed: bytes
    prefix: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return IpVersion.V4 if len(self.packed) == 4 else IpVersion.V6

    @property
    def mask(self) -> bytes:
        """The netmask, as long as `packed`."""
        octets = len(self.packed)
        return ((1 << 8 * octets) - (1 << 8 * octets - self.prefix)).to_bytes(octets, "big")


def network(text: str) -> Network:
    """`10.0.0.0/8`, `10/8`, `192.168` (as tcpdump: the octets given), `2001:db8::/32`, or one address.

    Raises:
        ValueError: none of these, or bits are set past the prefix (the message then names the network).
    """
    base, slash, length = text.partition("/")
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", base):
        given = base.count(".") + 1
        base += ".0" * (4 - given)
        length, slash = (length if slash else str(8 * given)), "/"
    packed = ipaddress.ip_address(_plain(base)).packed
    bits = 8 * len(packed)
    prefix = ReadInteger(0, bits)(length) if slash else bits
    found = Network(packed, prefix)
    base_bytes = bytes(a & b for a, b in zip(packed, found.mask, strict=True))
    if base_bytes != packed:
        raise OperandError(f"{ipaddress.ip_address(base_bytes)}/{prefix}, for {text} has bits set past its prefix")
    return found


def network_around(address: str) -> str:
    """The network of an address as people write it: /24 of IPv4, /64 of IPv6."""
    version: int = ipaddress.ip_address(address).version
    return str(ipaddress.ip_network((address, 64 if version == IpVersion.V6 else 24), strict=False))


def beginning(text: str) -> Network | None:
    """The addresses that begin with this: `10.1`, `192.0.2.`, `2001:db8:`, `fe80:`; None if it begins none."""
    octets = text.rstrip(".").split(".")
    if re.fullmatch(r"(\d{1,3}\.){1,3}\d{0,3}", text) and all(int(octet) < 256 for octet in octets):
        return Network(bytes([*map(int, octets), *[0] * (4 - len(octets))]), 8 * len(octets))
    groups = text.rstrip(":").split(":")
    if re.fullmatch(r"([0-9a-fA-F]{1,4}:){1,7}([0-9a-fA-F]{1,4})?", text):
        return Network(bytes.fromhex("".join(group.zfill(4) for group in groups).ljust(32, "0")), 16 * len(groups))
    return None


def masked(address: str, mask: str) -> Network:
    """tcpdump's `net ADDRESS mask MASK` (IPv4)."""
    ones = int(ipaddress.IPv4Address(mask))
    prefix = ones.bit_count()
    if ones != (1 << 32) - (1 << 32 - prefix):
        raise OperandError("a mask of leading ones")
    return network(f"{address}/{prefix}")


def host(text: str) -> Network:
    """One address; a prefix of its full length may follow."""
    if "/" in text:
        found = network(text)
        if found.prefix != 8 * len(found.packed):
            raise OperandError("one address; for networks there is net")
        return found
    packed = ipaddress.ip_address(_plain(text)).packed
    return Network(packed, 8 * len(packed))


def _plain(address: str) -> str:
    if "%" in address:
        raise OperandError("an address without a zone; test the interface apart: and if eth0")
    return address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address


def endpoint(text: str) -> tuple[Network, int] | None:
    """Address and port as the screen writes them, `10.0.0.5:443` or `[2001:db8::1]:53`; None if it is not one."""
    address, colon, digits = text.rpartition(":")
    if not colon or not digits.isdecimal() or not (address.count(".") == 3 or address[-1:] == "]"):
        return None
    return host(address), port(digits)


def port(text: str) -> int:
    """A number, or a service's name from this host's list (/etc/services)."""
    if text[:1].isdigit():
        return ReadInteger(0, 65535)(text)
    try:
        return socket.getservbyname(text.lower())
    except (OSError, UnicodeError) as error:
        raise ValueError from error


def ports_named(text: str) -> list[int]:
    """Ports of the services in this host's list (/etc/services) that have this text in their names."""
    from flowtop.text.names import ServiceNames

    found = ServiceNames().ports(text)
    if not found:
        raise OperandError("a part of a service's name in /etc/services")
    if len(found) > MOST_PORTS:
        raise OperandError(f"a longer part of a name: {len(found)} ports match this one")
    return found


def port_range(text: str) -> tuple[int, int]:
    """`1-1024`, `http-https`; one port is a range too."""
    dashes = [at for at, character in enumerate(text[:_LONGEST_SPAN]) if character == "-"]
    for at in dashes if text[:1].isdigit() else [len(text), *dashes]:  # there are names with dashes, too
        try:
            span = port(text[:at]), port(text[at + 1:] or text[:at])
        except OperandError:
            raise
        except ValueError:
            continue
        if span[0] > span[1]:
            raise OperandError("the lower port first")
        return span
    return port(text), port(text)


_LONGEST_SPAN = 64
"""Characters of a text in which the dash between two service names is searched."""
