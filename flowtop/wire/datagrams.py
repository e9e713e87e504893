"""Export datagrams of every kind flowtop reads, told apart by their version word."""

from __future__ import annotations

from collections.abc import Hashable

from flowtop.wire import ipfix, netflow5, netflow9
from flowtop.wire.ipfix_decoder import Message, decode_message
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.template_store import TemplateStore


def decode_export(octets: bytes, store: TemplateStore, *, session: Hashable, datagram: bool = True) -> Message:
    """Decode one message of NetFlow 5, NetFlow 9 or IPFIX, and keep the Templates it announces: see decode_message.

    Raises IpfixDecodeError: none of them. The store is as before then.
    """
    version = int.from_bytes(octets[:2], "big")
    if version == ipfix.VERSION:
        return decode_message(octets, store, session=session, datagram=datagram)
    if version == netflow9.VERSION:
        return netflow9.decode_netflow9(octets, store, session=session)
    if version == netflow5.VERSION:
        return netflow5.decode_netflow5(octets)
    if len(octets) < 2:
        raise IpfixDecodeError(f"{len(octets)} octets are no message", 0)
    raise IpfixDecodeError(f"version {version} is none of NetFlow 5, NetFlow 9 and IPFIX", 0, "version")


def split_exports(octets: bytes) -> list[bytes]:
    """Messages that were written to a file one after the other.

    IPFIX says its length and NetFlow 5 its count; a datagram of NetFlow 9 or sFlow, which says neither, takes the rest.
    What is left over, and is no message, is the last.
    """
    messages: list[bytes] = []
    offset = 0
    while offset < len(octets):
        version = int.from_bytes(octets[offset:offset + 2], "big")
        length = len(octets) - offset
        if version == ipfix.VERSION and length >= ipfix.HEADER_OCTETS:
            length = min(length, max(int.from_bytes(octets[offset + 2:offset + 4], "big"), ipfix.HEADER_OCTETS))
        elif version == netflow5.VERSION:
            length = min(length, netflow5.datagram_octets(octets, offset))
        messages.append(octets[offset:offset + length])
        offset += length
    return messages
