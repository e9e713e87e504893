"""Where export messages begin and end: in raw files, in TCP streams, and among other datagrams of a capture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from flowtop.wire import ipfix, netflow9, netflow_fixed, sflow
from flowtop.wire.ipfix import HEADER_OCTETS, SET_HEADER, SET_HEADER_OCTETS, begins_message
from flowtop.wire.ipfix_template import FIRST_TEMPLATE_ID, OPTIONS_TEMPLATE_SET, TEMPLATE_SET

EXPORT_PORTS = frozenset((2055, 2056, 4432, 4739, 4740, 6343, 9025, 9555, 9985, 9991, 9995, 9996))
"""Ports that collectors usually listen on: what is sent there counts as an export even if it is damaged."""
_COMMON_VERSIONS = frozenset((netflow_fixed.VERSION, netflow9.VERSION, ipfix.VERSION))
_AFTER_FLOWSETS = frozenset((5, 6, 7, 8, netflow9.VERSION, ipfix.VERSION))
"""Versions that cannot be taken for a FlowSet: ids from 2 to 255 are reserved (RFC 3954 section 5.2)."""
_SFLOW_STARTS = tuple(sflow.MARK + address_type.to_bytes(4, "big") for address_type in (1, 2))
_FLOWSETS = (0, 1)
_HEAD = 24
"""Octets that are enough to see which kind a datagram is of."""
_MOST_RECORDS = 64
"""In a datagram of NetFlow 1 to 8."""
_START = re.compile(rb"(?=\x00[\x01\x05-\x0a]|\x00\x00\x00\x05)")
_SECONDS = {1: 8, 5: 8, 6: 8, 7: 8, 8: 8, 9: 8, 10: 4}
"""Offset of the export time in the header, by version."""
_NEAR_S = 86_400
_LONGEST = 65_535
"""Octets of a datagram."""
_MOST_CANDIDATES = 2_000
"""Limit of places that are looked at after damage, so that no file takes long."""


def is_export(octets: bytes) -> bool:
    """Whether a datagram has the version of an export; the rare versions of NetFlow have to be whole datagrams. Also
    those of sFlow that are not read, which have to be refused and not overlooked."""
    return (_version(octets, 0) in _COMMON_VERSIONS or octets[:4] == sflow.MARK or sflow.is_old(octets)
            or netflow_fixed.is_datagram(octets))


def begins_raw_file(head: bytes) -> bool:
    """Whether a file that begins with these octets may be one of raw datagrams."""
    return is_export(head) or (_version(head, 0) in netflow_fixed.VERSIONS
                               and 0 < int.from_bytes(head[2:4], "big") <= _MOST_RECORDS)


def is_whole_datagram(octets: bytes) -> bool:
    """Whether a datagram is an export, by its version and all lengths in it. False for a damaged one."""
    if octets.startswith(_SFLOW_STARTS):
        return _sflow_octets(octets, 0) == len(octets)
    version = _version(octets, 0)
    if version == ipfix.VERSION:
        return len(octets) > 3 and int.from_bytes(octets[2:4], "big") == len(octets) and bool(stream_verdict(octets))
    if version == netflow9.VERSION:
        return len(octets) > netflow9.HEADER.size + SET_HEADER_OCTETS and _whole_flowsets(octets)
    return netflow_fixed.is_datagram(octets)


# ---- streams

def stream_verdict(octets: bytes) -> bool | None:
    """Whether a stream that begins with these octets is one of IPFIX messages; None if they are too few to tell.

    It is if the first message that has Sets ends where its last Set ends.
    """
    start = 0
    while True:
        left = len(octets) - start
        if left < SET_HEADER_OCTETS:
            head = ipfix.VERSION.to_bytes(2, "big")
            return None if octets[start:start + 2] == head[:left] else False
        if not begins_message(octets[start:start + 4]):
            return False
        length = int.from_bytes(octets[start + 2:start + 4], "big")
        if length == HEADER_OCTETS:
            start += length
            continue
        return _sets_fit(octets, start, length)


def _sets_fit(octets: bytes, start: int, length: int) -> bool | None:
    """Whether the Sets of the message add up to its length; None if the octets end before that is known."""
    at, end = start + HEADER_OCTETS, start + length
    while at < end:
        if end - at < SET_HEADER_OCTETS:
            return False
        if len(octets) - at < SET_HEADER_OCTETS:
            return None
        set_id, set_octets = SET_HEADER.unpack_from(octets, at)
        known = set_id >= FIRST_TEMPLATE_ID or set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET)
        if not known or not SET_HEADER_OCTETS <= set_octets <= end - at:
            return False
        at += set_octets
    return True if len(octets) >= end else None


def find_message(octets: bytes) -> int | None:
    """Offset of the first complete IPFIX message in a part of a stream; None if there is none."""
    head, at = ipfix.VERSION.to_bytes(2, "big"), -1
    while (at := octets.find(head, at + 1)) >= 0:
        if stream_verdict(octets[at:at + ipfix.MAX_MESSAGE_OCTETS]):
            return at
    return None


# ---- raw files

def split_exports(octets: bytes) -> list[bytes]:
    """Split the content of a file that has messages one after the other, of one kind or several.

    IPFIX has a length; the number of records gives that of NetFlow 1 to 7, and the samples that of sFlow. The FlowSets
    of NetFlow 9 end where a reserved FlowSet id stands, which is the next datagram's version. After damage, splitting
    continues at the next complete message. An incomplete rest is the last item.
    """
    messages: list[bytes] = []
    offset = 0
    while offset < len(octets):
        length = _octets_at(octets, offset)
        if length is None or length > len(octets) - offset:
            length = _next_whole(octets, offset) - offset
        messages.append(octets[offset:offset + length])
        offset += length
    return messages


def _octets_at(octets: bytes, offset: int) -> int | None:
    """Length of the message at an offset, which may be more than there is; None: no message, or it is damaged."""
    left = len(octets) - offset
    if octets.startswith(_SFLOW_STARTS, offset):
        return _sflow_octets(octets, offset)
    version = _version(octets, offset)
    if version == netflow9.VERSION:
        return _netflow9_octets(octets, offset)
    if version == ipfix.VERSION and left >= HEADER_OCTETS:
        length = int.from_bytes(octets[offset + 2:offset + 4], "big")
        return length if length >= HEADER_OCTETS else None
    return netflow_fixed.datagram_octets(octets, offset) if version in netflow_fixed.VERSIONS else None


def _next_whole(octets: bytes, offset: int) -> int:
    """Where the next complete message begins after the damaged one at `offset`; the end if there is none.

    It is one only if it ends where the file or another message does, and was exported within a day of the damaged one.
    """
    around_s = export_seconds(octets, offset)
    for match in islice(_START.finditer(octets, offset + 2), _MOST_CANDIDATES):
        at = match.start()
        length = _octets_at(octets, at)
        if length is None or length <= SET_HEADER_OCTETS or at + length > len(octets):
            continue
        seconds = export_seconds(octets, at)
        if around_s is not None and seconds is not None and abs(seconds - around_s) > _NEAR_S:
            continue
        if is_whole_datagram(octets[at:at + length]) and (at + length == len(octets)
                                                         or begins_raw_file(octets[at + length:at + length + _HEAD])):
            return at
    return len(octets)


def _netflow9_octets(octets: bytes, offset: int) -> int | None:
    """Length of the NetFlow 9 datagram at an offset; None if its FlowSets cannot be followed."""
    at = offset + netflow9.HEADER.size
    for set_id, length, start in _flowsets(octets, at):
        if set_id in _AFTER_FLOWSETS or octets.startswith(_SFLOW_STARTS, start):
            return start - offset
        if not set_id and not length:
            return _after_zeros(octets, start) - offset
        if not SET_HEADER_OCTETS <= length <= min(len(octets), offset + _LONGEST) - start:
            return None
    return len(octets) - offset


def _flowsets(octets: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Id, length and offset of each FlowSet; the caller stops where they are not right."""
    while len(octets) - at >= SET_HEADER_OCTETS:
        set_id, length = SET_HEADER.unpack_from(octets, at)
        yield set_id, length, at
        at += length


def _whole_flowsets(octets: bytes) -> bool:
    """Whether the FlowSets of a datagram add up to its length, or zeros follow."""
    end = netflow9.HEADER.size
    for set_id, length, start in _flowsets(octets, end):
        if not set_id and not length:
            return start > netflow9.HEADER.size and not any(octets[start:])
        if (set_id not in _FLOWSETS and set_id < FIRST_TEMPLATE_ID) or length < SET_HEADER_OCTETS:
            return False
        end = start + length
    return end <= len(octets) and not any(octets[end:])


def _after_zeros(octets: bytes, start: int) -> int:
    """Where the datagram that is padded with zeros from `start` on ends: versions begin with zeros too."""
    rest = octets[start:].lstrip(b"\0")
    first = len(octets) - len(rest)
    if not rest:
        return first
    return first - 3 if octets.startswith(_SFLOW_STARTS, first - 3) else first - 1


def _sflow_octets(octets: bytes, offset: int) -> int | None:
    """Length of the sFlow datagram at an offset by its samples; None if they are more than there is."""
    address = 4 if octets[offset + 7:offset + 8] == b"\x01" else 16
    at = offset + 8 + address + 16
    if at > len(octets):
        return None
    for _ in range(int.from_bytes(octets[at - 4:at], "big")):
        if min(len(octets), offset + _LONGEST) - at < 8:
            return None
        at += 8 + int.from_bytes(octets[at + 4:at + 8], "big")
    return at - offset if at <= len(octets) else None


def _version(octets: bytes, offset: int) -> int:
    return int.from_bytes(octets[offset:offset + 2], "big")


def export_seconds(octets: bytes, offset: int = 0) -> int | None:
    """The export time of a message, s since 1970 UTC; None if it has none (sFlow)."""
    place = _SECONDS.get(_version(octets, offset))
    return None if place is None else int.from_bytes(octets[offset + place:offset + place + 4], "big")
