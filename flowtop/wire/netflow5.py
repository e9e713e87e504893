"""NetFlow 5 datagrams as Messages; a constant Template describes the record layout."""

from __future__ import annotations

import struct

from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FieldSpecifier, IpfixDecodeError, Template

VERSION = 5
HEADER = struct.Struct(">HHIIIIBBH")
"""Version, count, ms since boot, s since 1970 UTC, ns of it, sequence number, engine type, engine id, sampling."""

_INTERVAL_BITS = 0x3FFF
"""Bits of the sampling field with the interval. The two bits above are the mode, which many sampling exporters leave
0."""

_LAYOUT = ((8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (210, 1),
           (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1), (210, 2))
RECORD = Template(5, tuple(FieldSpecifier(number, length) for number, length in _LAYOUT))
"""A flow record of 48 octets, with the corresponding IPFIX elements. No announced Template can have this id."""


def decode_netflow5(octets: bytes) -> Message:
    """Decode one datagram. Raises IpfixDecodeError: not a NetFlow 5 datagram."""
    if len(octets) < HEADER.size:
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    version, count, uptime_ms, seconds, nanoseconds, sequence, engine_type, engine_id, sampling = (
        HEADER.unpack_from(octets))
    if version != VERSION:
        raise IpfixDecodeError(f"version {version}, not {VERSION}", 0, "version")
    end = HEADER.size + count * RECORD.min_octets
    if end > len(octets):
        raise IpfixDecodeError(f"{count} flows need {end} octets, message length {len(octets)}", 2)
    remarks = (f"{len(octets) - end} octets follow the last flow",) if len(octets) > end else ()
    flows = (DataSet(RECORD, bytes(octets[HEADER.size:end]), count),) if count else ()
    boot_ms = seconds * 1000 + min(nanoseconds, 999_999_999) // 1_000_000 - uptime_ms
    return Message(seconds, sequence, engine_type << 8 | engine_id, (), (), flows, (), remarks, VERSION, boot_ms,
                   sampling & _INTERVAL_BITS)


def datagram_octets(octets: bytes, offset: int) -> int:
    """Length of the datagram at `offset` by its record count: for files with several datagrams."""
    if len(octets) - offset < HEADER.size:
        return len(octets) - offset
    return HEADER.size + int.from_bytes(octets[offset + 2:offset + 4], "big") * RECORD.min_octets
