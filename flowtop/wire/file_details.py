"""What RFC 5655 section 8.1 adds to files: checksums of messages, the export session, and the time window of flows."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

from flowtop.wire.ipfix import HEADER_OCTETS, MESSAGE_HEADER, SET_HEADER, RecordSet, encode_records, template_sets
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import OPTIONS_TEMPLATE_SET, Template, field

_CHECKSUM, SESSION_V4, SESSION_V6, TIME_WINDOW = range(768, 772)
_DIGEST = "messageMD5Checksum"
_DIGEST_OCTETS = 16
CHECKSUM = Template(_CHECKSUM, (field("messageScope"), field(_DIGEST, _DIGEST_OCTETS)), 1)
_SESSION = {version: Template(id_, tuple(map(field, (
    "sessionScope", f"exporterIPv{version}Address", "exportProtocolVersion", "minExportSeconds"))), 1)
    for version, id_ in ((4, SESSION_V4), (6, SESSION_V6))}
_WINDOW = Template(TIME_WINDOW, tuple(map(field, (
    "sessionScope", "minFlowStartMilliseconds", "maxFlowEndMilliseconds", "minExportSeconds", "maxExportSeconds"))), 1)
_THIS, _IPFIX = 0, 10
_CHECKSUM_SET = SET_HEADER.size + 1 + _DIGEST_OCTETS + 3
"""Octets of the Set with the checksum, which is padded."""
_ANNOUNCEMENT = SET_HEADER.pack(OPTIONS_TEMPLATE_SET, 20) + CHECKSUM.octets().ljust(16, b"\0")
ROOM_OCTETS = _CHECKSUM_SET + len(_ANNOUNCEMENT)
"""What Checksums adds to a message."""


class Checksums:
    """Adds its checksum to each message of one file, as an Options Data Record that belongs to the sequence numbers."""

    def __init__(self) -> None:
        self._added: dict[int, int] = {}

    def add(self, messages: Iterable[bytes]) -> list[bytes]:
        """The messages with checksums; the first one of each Observation Domain also has the Options Template."""
        return [self._with_checksum(message) for message in messages]

    def _with_checksum(self, message: bytes) -> bytes:
        version, length, export_time_s, sequence, domain = MESSAGE_HEADER.unpack_from(message)
        added = self._added.get(domain)
        announcement = _ANNOUNCEMENT if added is None else b""
        self._added[domain] = (added or 0) + 1
        header = MESSAGE_HEADER.pack(version, length + len(announcement) + _CHECKSUM_SET, export_time_s,
                                     sequence + (added or 0) & 0xFFFF_FFFF, domain)
        start = b"".join((header, message[HEADER_OCTETS:], announcement, SET_HEADER.pack(_CHECKSUM, _CHECKSUM_SET),
                          b"\0"))
        return start + _md5(start + bytes(_DIGEST_OCTETS + 3)) + bytes(3)


def checksum_holds(octets: bytes, message: Message) -> bool | None:
    """Whether a message has the checksum that a record in it says; None if there is none."""
    for data_set in message.data_sets:
        if data_set.template.scope_count and _DIGEST in data_set.template.names:
            for value in data_set.records[_DIGEST].tolist():
                digest = bytes(value)
                # The record is found by its octets, as decoding does not keep its place.
                at = octets.find(digest)
                if at < 0 or _md5(octets[:at] + bytes(len(digest)) + octets[at + len(digest):]) != digest:
                    return False
            return True
    return None


def session_details(address: str, started_s: int) -> list[RecordSet]:
    """Announcement and record of the export session: the exporter's address, IPFIX, and since when it exports.

    The collector's address, ports and transport protocol are left out: the exporter writes the file itself.
    """
    host = ipaddress.ip_address(address)
    template = _SESSION[host.version]
    return [*template_sets([template]), encode_records(template, [(_THIS, host.packed, _IPFIX, started_s)])]


def time_window(first_ms: int, last_ms: int, started_s: int, ended_s: int) -> list[RecordSet]:
    """Announcement and record of the file's time window.

    Args:
        first_ms, last_ms: the earliest start and the latest end of its flows.
        started_s, ended_s: when its first and last messages were exported.
    """
    return [*template_sets([_WINDOW]), encode_records(_WINDOW, [(_THIS, first_ms, last_ms, started_s, ended_s)])]


def _md5(octets: bytes) -> bytes:
    return hashlib.md5(octets, usedforsecurity=False).digest()

