"""Decode export datagrams of all supported kinds, distinguished by their version word."""

from __future__ import annotations

from collections.abc import Hashable

from flowtop.wire import ipfix, netflow9, netflow_fixed, sflow
from flowtop.wire.ipfix_decoder import Message, decode_message
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.template_store import TemplateStore


def decode_export(octets: bytes, store: TemplateStore, *, session: Hashable, datagram: bool = True,
                  strict: bool = True) -> Message:
    """Decode a NetFlow 1 and 5 to 9 or IPFIX message and store its Templates; see decode_message.

    Raises IpfixDecodeError: none of these formats; if strict, a malformed message. The store is unchanged then.
    """
    version = int.from_bytes(octets[:2], "big")
    if version == ipfix.VERSION:
        return decode_message(octets, store, session=session, datagram=datagram, strict=strict)
    if version == netflow9.VERSION:
        return netflow9.decode_netflow9(octets, store, session=session, strict=strict)
    if version in netflow_fixed.VERSIONS:
        return netflow_fixed.decode_fixed(octets, strict=strict)
    if len(octets) < 2:
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    if sflow.is_old(octets):
        raise IpfixDecodeError(f"sFlow version {octets[3]} is not read: the agent has to send version 5", 0, "version")
    raise IpfixDecodeError(f"version {version} is not NetFlow 1, 5 to 9 or IPFIX", 0, "version")
