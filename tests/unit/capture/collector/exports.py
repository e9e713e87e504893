"""Messages as exporters send them, made by struct alone."""

from __future__ import annotations

import struct
from collections.abc import Sequence

NOW_S = 1_700_000_000.0


def ipfix(*sets: bytes, sequence: int = 0, domain: int = 7, at: int = int(NOW_S)) -> bytes:
    """A message by RFC 7011 section 3.1."""
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), at, sequence, domain) + body


def set_of(number: int, octets: bytes) -> bytes:
    """A Set by RFC 7011 section 3.3."""
    return struct.pack(">HH", number, 4 + len(octets)) + octets


def template(number: int, fields: Sequence[tuple[int, int] | tuple[int, int, int]], scope: int = 0) -> bytes:
    """A (Options) Template Set; a field is (element, length), or (element, length, enterprise)."""
    body = struct.pack(">HH", number, len(fields)) + (struct.pack(">H", scope) if scope else b"")
    for element, length, *enterprise in fields:
        body += struct.pack(">HH", element | (0x8000 if enterprise else 0), length)
        body += struct.pack(">I", *enterprise) if enterprise else b""
    return set_of(3 if scope else 2, body)


FLOW = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (2, 8), (1, 8), (152, 8), (153, 8))
"""Addresses, ports, protocol, ingress interface, packets, octets, start, end."""


def flow(number: int, packets: int = 2, octets: int = 300, interface: int = 3, start_ms: int = 1_699_999_990_000,
         end_ms: int = 1_699_999_999_000) -> bytes:
    """A record of FLOW; `number` makes its key."""
    return struct.pack(">4s4sHHBIQQQQ", b"\x0a\0\0\1", struct.pack(">I", 0x0A010000 + number), 1000, 443, 6, interface,
                       packets, octets, start_ms, end_ms)
