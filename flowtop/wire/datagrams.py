"""Decode export datagrams of all supported kinds, distinguished by their version word."""

from __future__ import annotations

from collections.abc import Hashable

from flowtop.wire import ipfix, netflow5, netflow9
from flowtop.wire.ipfix_decoder import Message, decode_message
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.template_store import TemplateStore


def decode_export(octets: bytes, store: TemplateStore, *, session: Hashable, datagram: bool = True) -> Message:
    """Decode a NetFlow 5, NetFlow 9 or IPFIX message and store its Templates; see decode_message.

    Raises IpfixDecodeError: none of these formats. The store is unchanged then.
    """
    version = int.from_bytes(octets[:2], "big")
    if version == ipfix.VERSION:
        return decode_message(octets, store, session=session, datagram=datagram)
    if version == netflow9.VERSION:
        return netflow9.decode_netflow9(octets, store, session=session)
    if version == netflow5.VERSION:
        return netflow5.decode_netflow5(octets)
    if len(octets) < 2:
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    raise IpfixDecodeError(f"version {version} is not NetFlow 5, NetFlow 9 or IPFIX", 0, "version")
