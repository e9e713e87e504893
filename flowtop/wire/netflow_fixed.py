"""NetFlow 1, 5, 6, 7 and 8 datagrams as Messages; a constant Template describes each record layout.

Version 7 is of Catalyst switches, version 8 aggregates flows in the router; nothing else was ever released.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FieldSpecifier, IpfixDecodeError, Template

VERSION = 5
"""The version that is encoded too."""
_FIRST, _CATALYST, _AGGREGATED = 1, 7, 8
"""Versions whose headers or records differ from those of 5."""
HEADER = struct.Struct(">HHIIIIBBH")
"""Version, count, ms since boot, s since 1970 UTC, ns of it, sequence number, engine type, engine id, sampling."""

_HEADER_5 = struct.Struct(">HHIIIIHH")
"""The same with the engine as one number."""
_INTERVAL_BITS, _MODE_SHIFT = 0x3FFF, 14
"""Bits of the sampling field with the interval. The two bits above are the mode, which many sampling exporters leave
0."""


def _template(number: int, layout: Sequence[tuple[int, int]]) -> Template:
    return Template(number, tuple(FieldSpecifier(element, length) for element, length in layout))


_COMMON = ((8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2))
"""Addresses, next hop, interfaces, packets, octets, first and last uptime, ports: all versions but 8 begin so."""
_PAD = 210
_FROM_FLAGS = ((6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (9, 1), (13, 1))
RECORD = _template(VERSION, (*_COMMON, (_PAD, 1), *_FROM_FLAGS, (_PAD, 2)))
"""A flow record of 48 octets, with the corresponding IPFIX elements. No announced Template can have this id."""
_OCTETS_5 = RECORD.min_octets
_RECORDS = {
    1: _template(1, (*_COMMON, (_PAD, 2), (4, 1), (5, 1), (6, 1), (_PAD, 11))),
    VERSION: RECORD,
    6: _template(6, (*_COMMON, (_PAD, 1), *_FROM_FLAGS, (_PAD, 2), (_PAD, 4))),  # encapsulations, peer's next hop
    7: _template(7, (*_COMMON, (_PAD, 1), *_FROM_FLAGS, (_PAD, 2), (43, 4))),  # flags twice, the bypassed router
}
"""By version; each of 52 octets but that of version 5."""

_COUNTS = ((3, 4), (2, 4), (1, 4), (22, 4), (21, 4))
"""Flows, packets, octets, first and last uptime: the router's aggregations begin so."""
_TRAFFIC = _COUNTS[1:]
_CATALYST_END = ((55, 1), (_PAD, 4), (43, 4))
"""Marked TOS, packets beyond the contract, the bypassed router: the switch's aggregations end so."""
_PREFIXES = (*_COUNTS, (44, 4), (45, 4), (13, 1), (9, 1))
_AGGREGATIONS = {
    1: (*_COUNTS, (16, 2), (17, 2), (10, 2), (14, 2)),
    2: (*_COUNTS, (4, 1), (_PAD, 3), (7, 2), (11, 2)),
    3: (*_COUNTS, (44, 4), (9, 1), (_PAD, 1), (16, 2), (10, 2), (_PAD, 2)),
    4: (*_COUNTS, (45, 4), (13, 1), (_PAD, 1), (17, 2), (14, 2), (_PAD, 2)),
    5: (*_PREFIXES, (_PAD, 2), (16, 2), (17, 2), (10, 2), (14, 2)),
    6: ((12, 4), *_TRAFFIC, (14, 2), (5, 1), *_CATALYST_END),
    7: ((12, 4), (8, 4), *_TRAFFIC, (14, 2), (10, 2), (5, 1), (55, 1), (_PAD, 2), *_CATALYST_END[1:]),
    8: ((12, 4), (8, 4), (11, 2), (7, 2), *_TRAFFIC, (14, 2), (10, 2), (5, 1), (4, 1), (55, 1), (_PAD, 1),
        *_CATALYST_END[1:]),
    9: (*_COUNTS, (16, 2), (17, 2), (10, 2), (14, 2), (5, 1), (_PAD, 3)),
    10: (*_COUNTS, (4, 1), (5, 1), (_PAD, 2), (7, 2), (11, 2), (10, 2), (14, 2)),
    11: (*_COUNTS, (44, 4), (9, 1), (5, 1), (16, 2), (10, 2), (_PAD, 2)),
    12: (*_COUNTS, (45, 4), (13, 1), (5, 1), (17, 2), (14, 2), (_PAD, 2)),
    13: (*_PREFIXES, (5, 1), (_PAD, 1), (16, 2), (17, 2), (10, 2), (14, 2)),
    14: (*_PREFIXES, (5, 1), (4, 1), (7, 2), (11, 2), (10, 2), (14, 2)),
}
"""Layouts of version 8 by aggregation scheme: by AS, protocol and port, prefixes, and the same with TOS; 6 to 8 are
the Catalyst's, by destination, by both ends, and full flows."""
_AGGREGATION_RECORDS = {scheme: _template(80 + scheme, layout) for scheme, layout in _AGGREGATIONS.items()}

_HEADER_OCTETS = {1: 16, VERSION: HEADER.size, 6: 24, 7: 24, 8: 28}
VERSIONS = tuple(_HEADER_OCTETS)
_AGGREGATION_OFFSET = 22
"""Of the aggregation scheme in the header of version 8."""

_CATALYST_PADDING = 64
"""Octets that Catalyst switches may add behind the last record."""
MAX_FLOWS = 30
"""In one datagram: more would not fit an Ethernet frame, and collectors count on it."""


def decode_fixed(octets: bytes, *, strict: bool = True) -> Message:
    """Decode one datagram of NetFlow 1, 5, 6, 7 or 8.

    Args:
        strict: refuse a datagram that has fewer records than its header counts; otherwise those are read, unless the
            header counts more than any exporter sends.

    Raises IpfixDecodeError: not such a datagram; NetFlow 8 with an unknown aggregation.
    """
    version = int.from_bytes(octets[:2], "big")
    header = _HEADER_OCTETS.get(version, 0)
    if not header and len(octets) >= 2:
        raise IpfixDecodeError(f"version {version} is not NetFlow {', '.join(map(str, VERSIONS))}", 0, "version")
    if len(octets) < max(header, 2):
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    if version == VERSION:
        _, count, uptime_ms, seconds, nanoseconds, sequence, engine, sampling = _HEADER_5.unpack_from(octets)
        if count and header + count * _OCTETS_5 == len(octets):  # as a rule
            whole = DataSet(RECORD, bytes(octets[header:]), count)
            return Message(seconds, sequence, engine, (), (), (whole,), (), (), version,
                           seconds * 1000 + min(nanoseconds, 999_999_999) // 1_000_000 - uptime_ms,
                           sampling & _INTERVAL_BITS, sampling >> _MODE_SHIFT)
    record = _record(version, octets)
    _, count, uptime_ms, seconds, nanoseconds = struct.unpack_from(">HHIII", octets)
    sequence = engine = sampling = 0
    if version != _FIRST:
        sequence, engine, sampling = struct.unpack_from(">IHH", octets, 16)
    remarks, skipped = [], []
    if not count and not strict and not (len(octets) - header) % record.min_octets:
        count = (len(octets) - header) // record.min_octets
        if count:
            remarks, skipped = [f"the header counts 0 records, not {count}"], [("count", 1)]
    end = header + count * record.min_octets
    if end > len(octets):
        fault = IpfixDecodeError(f"{count} flows need {end} octets, message length {len(octets)}", 2)
        if strict or count > MAX_FLOWS:  # Not cut off: the header cannot be believed.
            raise fault
        remarks, skipped = [str(fault)], [("count", 1)]
        count = (len(octets) - header) // record.min_octets
        end = header + count * record.min_octets
    if end < len(octets):
        remarks.append(f"{len(octets) - end} octets follow the last flow")
        skipped.append(("trailing" if any(octets[end:]) else "padding", 1))  # Catalyst switches pad
    flows = (DataSet(record, bytes(octets[header:end]), count),) if count else ()
    boot_ms = seconds * 1000 + min(nanoseconds, 999_999_999) // 1_000_000 - uptime_ms
    return Message(seconds, sequence, 0 if version == _CATALYST else engine, (), (), flows, (), tuple(remarks), version,
                   boot_ms, sampling & _INTERVAL_BITS if version == VERSION else 0, skipped=tuple(skipped),
                   sampling_mode=sampling >> _MODE_SHIFT if version == VERSION else 0)


def _record(version: int, octets: bytes) -> Template:
    """The layout of the records. Raises IpfixDecodeError: an unknown aggregation."""
    if version != _AGGREGATED:
        return _RECORDS[version]
    scheme = octets[_AGGREGATION_OFFSET]
    if scheme not in _AGGREGATION_RECORDS:
        raise IpfixDecodeError(f"aggregation {scheme} of NetFlow 8 is not known", _AGGREGATION_OFFSET, "template")
    return _AGGREGATION_RECORDS[scheme]


def is_datagram(octets: bytes) -> bool:
    """Whether these can be a whole datagram: version and count agree with its length. For captures of any traffic."""
    version = int.from_bytes(octets[:2], "big")
    if version not in VERSIONS or len(octets) <= HEADER.size:
        return False
    more = len(octets) - datagram_octets(octets, 0)
    return 0 <= more <= (_CATALYST_PADDING if version in (_CATALYST, _AGGREGATED) else 0)


def datagram_octets(octets: bytes, offset: int) -> int:
    """Length of the datagram at `offset` by its record count: for files with several datagrams."""
    version = int.from_bytes(octets[offset:offset + 2], "big")
    header = _HEADER_OCTETS[version]
    if len(octets) - offset < header:
        return len(octets) - offset
    try:
        record = _record(version, octets[offset:offset + header])
    except IpfixDecodeError:
        return len(octets) - offset
    return header + int.from_bytes(octets[offset + 2:offset + 4], "big") * record.min_octets


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
