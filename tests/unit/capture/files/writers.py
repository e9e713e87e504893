"""Writes capture files octet by octet, as the formats' drafts draw them. Nothing here is shared with the reader."""

from __future__ import annotations

import struct
from collections.abc import Iterable

SECOND = 1_000_000_000


def pcap(frames: Iterable[tuple[int, bytes]], *, link_type: int = 1, order: str = "<", nano: bool = False,
         snap: int = 262_144) -> bytes:
    """A pcap file of (time in ns, frame), frames cut at `snap` octets."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap, link_type)]
    for time_ns, frame in frames:
        fraction = time_ns % SECOND // (1 if nano else 1000)
        out.append(struct.pack(f"{order}IIII", time_ns // SECOND, fraction, len(frame[:snap]), len(frame)))
        out.append(frame[:snap])
    return b"".join(out)


def option(order: str, code: int, value: bytes) -> bytes:
    """A pcapng option."""
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(order: str, kind: int, body: bytes) -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A section header, of a length not known."""
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str = "<", *, link_type: int = 1, name: str = "", resolution: int | None = None, snap: int = 0,
              offset_s: int | None = None) -> bytes:
    """An interface description."""
    options = option(order, 2, name.encode()) if name else b""
    if resolution is not None:
        options += option(order, 9, bytes([resolution]))
    if offset_s is not None:
        options += option(order, 14, struct.pack(f"{order}q", offset_s))
    if options:
        options += bytes(4)
    return block(order, 1, struct.pack(f"{order}HHI", link_type, 0, snap) + options)


def enhanced(ticks: int, frame: bytes, order: str = "<", *, number: int = 0, wire: int | None = None,
             flags: int | None = None, comments: Iterable[bytes] = ()) -> bytes:
    """An enhanced packet block."""
    options = b"".join(option(order, 1, comment) for comment in comments)
    if flags is not None:
        options += option(order, 2, struct.pack(f"{order}I", flags))
    if options:
        options += bytes(4)
    head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire or len(frame))
    return block(order, 6, head + frame + bytes(-len(frame) % 4) + options)


def simple(frame: bytes, order: str = "<") -> bytes:
    """A simple packet block."""
    return block(order, 3, struct.pack(f"{order}I", len(frame)) + frame)
