"""Messages for tests, written from the RFCs, without the code under test or the library that it uses."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from contextlib import suppress

from flowtop.model.kinds import Direction, IpVersion, Protocol

A, CNAME, AAAA, HTTPS = 1, 5, 28, 65
HEADER_OCTETS = 12


def encoded(name: str) -> bytes:
    """A domain name without compression (RFC 1035, section 3.1)."""
    labels = [label.encode("latin-1") for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def query(name: str, type_: int = A, number: int = 0x1234) -> bytes:
    """A question, recursion desired."""
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + encoded(name) + struct.pack("!HH", type_, 1)


def record(owner: bytes, type_: int, data: bytes, life_s: int = 300, class_: int = 1) -> bytes:
    """A resource record; `owner` in wire format."""
    return owner + struct.pack("!HHIH", type_, class_, life_s, len(data)) + data


def pointer(offset: int) -> bytes:
    """A compression pointer (section 4.1.4)."""
    return struct.pack("!H", 0xC000 | offset)


QUESTION = pointer(HEADER_OCTETS)
"""The name in the question, as nearly every server writes it."""


def answer(name: str, records: Sequence[bytes], type_: int = A, number: int = 0x1234, flags: int = 0x8180) -> bytes:
    """A response with these records."""
    return (struct.pack("!HHHHHH", number, flags, 1, len(records), 0, 0) + encoded(name)
            + struct.pack("!HH", type_, 1) + b"".join(records))


def address_record(address: str, owner: bytes = QUESTION, life_s: int = 300) -> bytes:
    """An A or AAAA record."""
    six = ":" in address
    data = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, address)
    return record(owner, AAAA if six else A, data, life_s)


def client_hello(name: str | None) -> bytes:
    """The first flight of OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def flow_key(source: str, destination: str, ports: tuple[int, int], protocol: Protocol = Protocol.UDP,
             direction: Direction = Direction.EGRESS, ifindex: int = 2) -> bytes:
    """struct flow_key of bpf/flow.h."""
    six = ":" in source
    family = socket.AF_INET6 if six else socket.AF_INET
    ends = [socket.inet_pton(family, address).ljust(16, b"\0") for address in (source, destination)]
    return b"".join(ends) + struct.pack("=HHBBBBHHIII", *ports, protocol, IpVersion.V6 if six else IpVersion.V4, 0,
                                        direction, 0, 0, ifindex, 0, 0)

