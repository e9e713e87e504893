"""NetFlow 5 datagrams as Messages; a constant Template describes the record layout."""

from __future__ import annotations

import struct
from collections.abc import Sequence

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

MAX_FLOWS = 30
"""In one datagram: more would not fit an Ethernet frame, and collectors count on it."""


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
                   sampling & _INTERVAL_BITS, sampling_mode=sampling >> _INTERVAL_BITS.bit_length())


def datagram_octets(octets: bytes, offset: int) -> int:
    """Length of the datagram at `offset` by its record count: for files with several datagrams."""
    if len(octets) - offset < HEADER.size:
        return len(octets) - offset
    return HEADER.size + int.from_bytes(octets[offset + 2:offset + 4], "big") * RECORD.min_octets


def encode_netflow5(flows: Sequence[bytes], *, sequence: int, export_ns: int, uptime_ms: int, engine_type: int = 0,
                    engine_id: int = 0, sampling_interval: int = 0) -> list[bytes]:
    """Datagrams of up to MAX_FLOWS flows each.

    Args:
        flows: records of RECORD, encoded.
        sequence: flows sent before, modulo 2**32.
        export_ns: since 1970 UTC.
        uptime_ms: since the exporter booted: what the flows' times count from.
        sampling_interval: one in this many packets was sampled; 0: no sampling, or not reported. Below 16,384.
    """
    datagrams = []
    seconds, nanoseconds = divmod(export_ns, 1_000_000_000)
    for start in range(0, len(flows), MAX_FLOWS):
        part = flows[start:start + MAX_FLOWS]
        header = HEADER.pack(VERSION, len(part), uptime_ms & 0xFFFF_FFFF, seconds & 0xFFFF_FFFF, nanoseconds,
                             sequence + start & 0xFFFF_FFFF, engine_type, engine_id, sampling_interval)
        datagrams.append(b"".join((header, *part)))
    return datagrams
