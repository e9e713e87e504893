"""Writes the pcapng format (draft-ietf-opsawg-pcapng): one section, little-endian, times in nanoseconds."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_SECTION_HEADER, _INTERFACE_DESCRIPTION, _NAME_RESOLUTION, _INTERFACE_STATISTICS, _ENHANCED_PACKET = (
    0x0A0D0D0A, 1, 4, 5, 6)
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF
_END_OF_OPTIONS = b"\0\0\0\0"
_SHB_HARDWARE, _SHB_OS, _SHB_USERAPPL = 2, 3, 4
_IF_NAME, _IF_TSRESOL = 2, 9
_ISB_FILTERACCEPT, _ISB_OSDROP, _ISB_USRDELIV = 6, 7, 8
_NANOSECONDS = b"\x09"
_OPT_COMMENT = 1
_NRB_END, _NRB_IPV4, _NRB_IPV6 = 0, 1, 2
_EPB_FLAGS, _FLAGS_OCTETS = 2, 4
_LONGEST_TEXT = 1000
INBOUND, OUTBOUND = 1, 2
"""Directions of a packet (epb_flags)."""

_HEAD = np.dtype([("type", "<u4"), ("length", "<u4"), ("interface", "<u4"), ("time_high", "<u4"), ("time_low", "<u4"),
                  ("captured", "<u4"), ("wire", "<u4")])
_TAIL = np.dtype([("code", "<u2"), ("octets", "<u2"), ("flags", "<u4"), ("end", "<u4"), ("length", "<u4")])
PACKET_OVERHEAD = _HEAD.itemsize + _TAIL.itemsize
"""Octets of an Enhanced Packet Block without its frame, which is padded to 4 octets."""

INTERFACE_STATISTICS_OCTETS = 64
"""Octets of an Interface Statistics Block."""


@dataclass(frozen=True, slots=True)
class PacketBlocks:
    """Content of Enhanced Packet Blocks; one element per packet, shape (n,).

    Attributes:
        octets: uint8: the buffer with the frames.
        offset: start of each frame in it.
        captured: octets of each frame to write.
        wire: octets on the wire.
        time_ns: since 1970 UTC, >= 0.
        interface: number of its Interface Description Block in the section, from 0.
        direction: 0 for unknown, INBOUND, OUTBOUND.
        comments: options of comments, see `comment_option`; b"" for none.
        comment: which of them each packet has.
    """

    octets: npt.NDArray[np.uint8]
    offset: Integers
    captured: Integers
    wire: Integers
    time_ns: Integers
    interface: Integers
    direction: Integers
    comments: Sequence[bytes]
    comment: Integers


def section_header(hardware: str, system: str, application: str) -> bytes:
    """Section Header Block, of unspecified length, as the section is still being written."""
    body = struct.pack("<IHHQ", _BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
    texts = ((_SHB_HARDWARE, hardware), (_SHB_OS, system), (_SHB_USERAPPL, application))
    return _block(_SECTION_HEADER, body, [(code, _text(text)) for code, text in texts if text])


def interface_description(name: str, link_type: int, snap: int) -> bytes:
    """Interface Description Block.

    Args:
        name: untrusted text; "" for none.
        link_type: LINKTYPE_ number (tcpdump.org/linktypes.html).
        snap: maximum octets per frame, 0 for no limit.
    """
    options = [(_IF_NAME, _text(name))] if name else []
    return _block(_INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, snap),
                  [*options, (_IF_TSRESOL, _NANOSECONDS)])


def interface_statistics(interface: int, time_ns: int, *, matched: int, dropped: int, written: int) -> bytes:
    """Interface Statistics Block.

    Args:
        interface: number of its Interface Description Block.
        time_ns: since 1970 UTC.
        matched: packets that matched the filter.
        dropped: matched packets that the kernel had to drop.
        written: matched packets in this file.
    """
    counts = ((_ISB_FILTERACCEPT, matched), (_ISB_OSDROP, dropped), (_ISB_USRDELIV, written))
    return _block(_INTERFACE_STATISTICS, struct.pack("<III", interface, time_ns >> 32, time_ns & 0xFFFFFFFF),
                  [(code, struct.pack("<Q", count)) for code, count in counts])


def name_resolution(names: Mapping[bytes, str]) -> bytes:
    """Name Resolution Block.

    Args:
        names: untrusted text by address of 4 or 16 octets.
    """
    records = [(_NRB_IPV4 if len(address) == 4 else _NRB_IPV6, address + _text(name) + b"\0")
               for address, name in names.items()]
    body = b"".join(struct.pack("<HH", kind, len(value)) + value + bytes(-len(value) % 4)
                    for kind, value in (*records, (_NRB_END, b"")))
    return _block(_NAME_RESOLUTION, body, [])


def comment_option(comment: str) -> bytes:
    """The option of a block with a comment; b"" for none."""
    text = _text(comment)
    return struct.pack("<HH", _OPT_COMMENT, len(text)) + text + bytes(-len(text) % 4) if text else b""


def packet_octets(captured: Integers, comment_octets: Integers | int = 0) -> Integers:
    """Octets of the Enhanced Packet Blocks for frames with this many written octets, shape (n,).

    Args:
        comment_octets: those of their comments.
    """
    padded: Integers = captured + -captured % 4
    return padded + PACKET_OVERHEAD + comment_octets


def enhanced_packets(packets: PacketBlocks) -> memoryview:
    """Enhanced Packet Blocks with directions and comments, one after another."""
    comment_octets = np.array([len(option) for option in packets.comments], np.int64)[packets.comment]
    length = packet_octets(packets.captured, comment_octets)
    ends = np.cumsum(length)
    starts = ends - length
    blocks = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    if len(ends):
        _scatter(blocks, starts, _heads(packets, length))
        _scatter(blocks, ends - _TAIL.itemsize, _tails(packets, length))
    written, frames = memoryview(blocks.data), memoryview(packets.octets.data)
    for to, start, octets in zip((starts + _HEAD.itemsize).tolist(), packets.offset.tolist(),
                                 packets.captured.tolist(), strict=True):
        written[to:to + octets] = frames[start:start + octets]
    some = np.flatnonzero(comment_octets)
    at = ends[some] - _TAIL.itemsize - comment_octets[some]
    for to, number in zip(at.tolist(), packets.comment[some].tolist(), strict=True):
        option = packets.comments[number]
        written[to:to + len(option)] = option
    return written


def _heads(packets: PacketBlocks, length: Integers) -> npt.NDArray[np.void]:
    heads = np.zeros(len(length), _HEAD)
    heads["type"], heads["length"], heads["interface"] = _ENHANCED_PACKET, length, packets.interface
    heads["time_high"], heads["time_low"] = packets.time_ns >> 32, packets.time_ns & 0xFFFFFFFF
    heads["captured"], heads["wire"] = packets.captured, packets.wire
    return heads


def _tails(packets: PacketBlocks, length: Integers) -> npt.NDArray[np.void]:
    tails = np.zeros(len(length), _TAIL)
    tails["code"], tails["octets"], tails["length"] = _EPB_FLAGS, _FLAGS_OCTETS, length
    tails["flags"] = packets.direction
    return tails


def _scatter(blocks: npt.NDArray[np.uint8], at: Integers, items: npt.NDArray[np.void]) -> None:
    """Write the items at these offsets, with any alignment."""
    size = items.itemsize
    windows = np.ndarray((len(blocks) - size + 1,), f"V{size}", blocks, strides=(1,))
    windows[at] = items.view(f"V{size}")


def _block(kind: int, body: bytes, options: list[tuple[int, bytes]]) -> bytes:
    parts = [struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options]
    inside = body + b"".join(parts) + _END_OF_OPTIONS
    length = struct.pack("<I", len(inside) + 12)
    return struct.pack("<I", kind) + length + inside + length


def _text(text: str) -> bytes:
    """Encode in UTF-8, with control characters replaced."""
    return "".join(character if character.isprintable() else "?" for character in text).encode()[:_LONGEST_TEXT]
