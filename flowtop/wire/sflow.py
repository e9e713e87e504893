"""sFlow 5 datagrams (sflow.org/sflow_version_5.txt): sampled packet headers, and how many packets were dropped.

Counter samples, and data of flow records other than the header, are skipped by their lengths.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import NamedTuple

from flowtop.model.kinds import Direction
from flowtop.wire.ipfix_template import IpfixDecodeError

VERSION = 5
MARK = struct.pack(">I", VERSION)
"""First four octets of a datagram. The version of NetFlow and IPFIX takes two octets."""
ETHERNET, IPV4, IPV6 = 1, 11, 12
"""Header protocols that are decoded."""

_ADDRESS_OCTETS = {1: 4, 2: 16}
_FLOW_SAMPLE, _EXPANDED_FLOW_SAMPLE = 1, 3
_RAW_HEADER = 1
_NO_INTERFACE = 0x3FFF_FFFF
"""Interface is unknown, the agent itself, or several; the two bits above distinguish these."""


class SampledPacket(NamedTuple):
    """One sampled packet.

    Attributes:
        protocol: of the outermost header: ETHERNET, IPV4, IPV6 or another.
        header: the first octets of the packet.
        frame_octets: length of the whole frame, as reported by the agent.
        interval: 1 of this many packets was sampled.
        ingress, egress: interface numbers; 0 if not reported.
        direction: where it was sampled: 0 at ingress, 1 at egress, None if not reported.
    """

    protocol: int
    header: bytes
    frame_octets: int
    interval: int
    ingress: int
    egress: int
    direction: int | None


@dataclass(frozen=True, slots=True)
class SflowDatagram:
    """One datagram.

    Attributes:
        agent: address, as text.
        sub_agent: identifies a process of the agent.
        sequence: number of datagrams sent before this one.
        uptime_ms: time since the agent booted.
        packets: sampled packets, in order.
        samples: number of flow samples.
        dropped: by data source, packets that could not be sampled for lack of resources, since the agent booted.
    """

    agent: str
    sub_agent: int
    sequence: int
    uptime_ms: int
    packets: tuple[SampledPacket, ...]
    samples: int
    dropped: tuple[tuple[int, int], ...]


class _Reader:
    """Reads big-endian words and checks the end."""

    def __init__(self, octets: bytes, start: int = 0, end: int | None = None) -> None:
        self.octets = octets
        self.offset = start
        self.end = len(octets) if end is None else end

    def words(self, number: int) -> tuple[int, ...]:
        """Read `number` words."""
        return struct.unpack(f">{number}I", self.take(4 * number))

    def take(self, length: int) -> bytes:
        """Read `length` octets."""
        if self.end - self.offset < length:
            raise IpfixDecodeError(f"{length} octets are needed, {self.end - self.offset} are left", self.offset)
        self.offset += length
        return self.octets[self.offset - length:self.offset]

    def part(self, length: int) -> _Reader:
        """A reader of the next `length` octets; this one continues after them and their XDR padding."""
        start = self.offset
        self.take(length)
        self.offset = min(self.offset + -length % 4, self.end)
        return _Reader(self.octets, start, start + length)


def decode_sflow(octets: bytes) -> SflowDatagram:
    """Decode one datagram. Raises IpfixDecodeError: not an sFlow 5 datagram."""
    reader = _Reader(bytes(octets))
    version, kind = reader.words(2)
    if version != VERSION:
        raise IpfixDecodeError(f"sFlow version {version}, not {VERSION}", 0, "version")
    if kind not in _ADDRESS_OCTETS:
        raise IpfixDecodeError(f"agent address of unknown type {kind}", 4, "value")
    agent = str(ipaddress.ip_address(reader.take(_ADDRESS_OCTETS[kind])))
    sub_agent, sequence, uptime_ms, count = reader.words(4)
    packets: list[SampledPacket] = []
    dropped: list[tuple[int, int]] = []
    for _ in range(count):  # each sample takes at least 8 octets, so a count that is too high ends in an error
        sample_type, length = reader.words(2)
        sample = reader.part(length)
        if sample_type in (_FLOW_SAMPLE, _EXPANDED_FLOW_SAMPLE):
            dropped.append(_flow_sample(sample, sample_type == _EXPANDED_FLOW_SAMPLE, packets))
    return SflowDatagram(agent, sub_agent, sequence, uptime_ms, tuple(packets), len(dropped), tuple(dropped))


def _flow_sample(sample: _Reader, expanded: bool, packets: list[SampledPacket]) -> tuple[int, int]:
    """Add the sample's packets; returns its data source and the drop counter of that source."""
    if expanded:
        _, kind, source, interval, _, dropped, _, ingress, _, egress, count = sample.words(11)
    else:
        _, source, interval, _, dropped, ingress, egress, count = sample.words(8)
        kind, source = source >> 24, source & 0xFF_FFFF
        ingress, egress = (0 if number >> 30 else number for number in (ingress, egress))
    ingress, egress = (0 if number >= _NO_INTERFACE else number for number in (ingress, egress))
    # A source of kind 0 is an interface; other kinds are VLANs or hardware, and their number is no interface.
    direction = None if kind or not source else (
        Direction.INGRESS if source == ingress else Direction.EGRESS if source == egress else None)
    for _ in range(count):
        record_type, length = sample.words(2)
        record = sample.part(length)
        if record_type == _RAW_HEADER:
            protocol, frame_octets, _, header_octets = record.words(4)
            packets.append(SampledPacket(protocol, record.take(header_octets), frame_octets, max(interval, 1), ingress,
                                         egress, direction))
    return kind << 32 | source, dropped
