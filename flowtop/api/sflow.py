"""sFlow 5 for programs: decode datagrams. `flowtop.sflow`."""

from __future__ import annotations

from typing import Any

from flowtop.api.errors import decoding
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.sflow import CounterSample, Discard, SampledPacket, SflowDatagram, decode_sflow
from flowtop.wire.sflow_records import (
    COUNTER_STRUCTURES,
    FLOW_STRUCTURES,
    Extended,
    Record,
    ShortRecordError,
    Structures,
    extended,
    record_values,
)

__all__ = ["CounterSample", "Discard", "Extended", "SampledPacket", "SflowDatagram", "counter_values", "decode",
           "extended", "values"]


def decode(octets: bytes) -> SflowDatagram:
    """Decode one datagram: its sampled packet headers, counters, and the figures of the agent's sampling.

    Raises DecodeError: not an sFlow 5 datagram.
    """
    with decoding():
        return decode_sflow(octets)


def values(record: Record) -> tuple[str, dict[str, Any]]:
    """Name and values of a flow record; of an unknown format, its number and its length.

    Raises DecodeError: the record is too short.
    """
    return _values(FLOW_STRUCTURES, record)


def counter_values(record: Record) -> tuple[str, dict[str, Any]]:
    """The same of a record in a counter sample."""
    return _values(COUNTER_STRUCTURES, record)


def _values(structures: Structures, record: Record) -> tuple[str, dict[str, Any]]:
    with decoding():
        try:
            return record_values(structures, record)
        except ShortRecordError as error:
            raise IpfixDecodeError("the record is too short", len(record[1]), "length") from error
