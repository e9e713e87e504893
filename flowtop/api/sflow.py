"""sFlow 5 for programs: decode datagrams. `flowtop.sflow`."""

from __future__ import annotations

from flowtop.api.errors import decoding
from flowtop.wire.sflow import SampledPacket, SflowDatagram, decode_sflow

__all__ = ["SampledPacket", "SflowDatagram", "decode"]


def decode(octets: bytes) -> SflowDatagram:
    """Decode one datagram: the packet headers in it, and what the agent says of its sampling.

    Raises DecodeError: it is no sFlow 5 datagram.
    """
    with decoding():
        return decode_sflow(octets)
