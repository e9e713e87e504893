"""sFlow 5 for programs: decode datagrams. `flowtop.sflow`."""

from __future__ import annotations

from flowtop.api.errors import decoding
from flowtop.wire.sflow import SampledPacket, SflowDatagram, decode_sflow

__all__ = ["SampledPacket", "SflowDatagram", "decode"]


def decode(octets: bytes) -> SflowDatagram:
    """Decode one datagram: its sampled packet headers, and the figures of the agent's sampling.

    Raises DecodeError: not an sFlow 5 datagram.
    """
    with decoding():
        return decode_sflow(octets)
