"""sFlow 5 datagrams (sflow.org/sflow_version_5.txt): the packet headers that an agent sampled, and what it left out.

Counter samples, and what flow records say beside the header, are skipped by their lengths.
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
"""How a datagram begins: four octets, where NetFlow's and IPFIX's versions take two."""
ETHERNET, IPV4, IPV6 = 1, 11, 12
"""Header protocols that are read."""

_ADDRESS_OCTETS = {1: 4, 2: 16}
_FLOW_SAMPLE, _EXPANDED_FLOW_SAMPLE = 1, 3
_RAW_HEADER = 1
_NO_INTERFACE = 0x3FFF_FFFF
"""Input or output unknown, or the agent itself, or several; the two bits above say which."""


class SampledPacket(NamedTuple):
    """One sampled packet.

    Attributes:
        protocol: what its header begins with: ETHERNET, IPV4, IPV6 or another.
        header: its first octets.
        frame_octets: of the whole frame, as the agent tells it.
        interval: one in so many packets was sampled.
        ingress, egress: interfaces by number; 0 where the agent does not say.
        direction: of sampling: 0 as it came in, 1 as it left, None: the agent does not say.
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
        sub_agent: which of the agent's processes.
        sequence: datagrams that it sent before.
        uptime_ms: since it booted.
        packets: in order.
        samples: flow samples in it.
        dropped: by data source, packets that could not be sampled for want of resources, since the agent booted.
    """

    agent: str
    sub_agent: int
    sequence: int
    uptime_ms: int
    packets: tuple[SampledPacket, ...]
    samples: int
    dropped: tuple[tuple[int, int], ...]


class _Reader:
    """Big-endian words, none of them past the end."""

    def __init__(self, octets: bytes, start: int = 0, end: int | None = None) -> None:
        self.octets = octets
        self.offset = start
        self.end = len(octets) if end is None else end

    def words(self, number: int) -> tuple[int, ...]:
        """The next `number` words."""
        return struct.unpack(f">{number}I", self.take(4 * number))

    def take(self, length: int) -> bytes:
        """The next octets."""
        if self.end - self.offset < length:
            raise IpfixDecodeError(f"{length} octets are wanted, {self.end - self.offset} are left", self.offset)
        self.offset += length
        return self.octets[self.offset - length:self.offset]

    def part(self, length: int) -> _Reader:
        """A reader of the next octets; this one goes on behind them, where XDR's padding ends."""
        start = self.offset
        self.take(length)
        self.offset = min(self.offset + -length % 4, self.end)
        return _Reader(self.octets, start, start + length)


def decode_sflow(octets: bytes) -> SflowDatagram:
    """Decode one datagram. Raises IpfixDecodeError: not an sFlow 5 datagram."""
    reader = _Reader(bytes(octets))
    version, kind = reader.words(2)
    if version != VERSION:
        raise IpfixDecodeError(f"version {version} of sFlow, not {VERSION}", 0, "version")
    if kind not in _ADDRESS_OCTETS:
        raise IpfixDecodeError(f"agent address of unknown type {kind}", 4, "value")
    agent = str(ipaddress.ip_address(reader.take(_ADDRESS_OCTETS[kind])))
    sub_agent, sequence, uptime_ms, count = reader.words(4)
    packets: list[SampledPacket] = []
    dropped: list[tuple[int, int]] = []
    for _ in range(count):  # each takes 8 octets at least: a count that promises more ends in an error
        sample_type, length = reader.words(2)
        sample = reader.part(length)
        if sample_type in (_FLOW_SAMPLE, _EXPANDED_FLOW_SAMPLE):
            dropped.append(_flow_sample(sample, sample_type == _EXPANDED_FLOW_SAMPLE, packets))
    return SflowDatagram(agent, sub_agent, sequence, uptime_ms, tuple(packets), len(dropped), tuple(dropped))


def _flow_sample(sample: _Reader, expanded: bool, packets: list[SampledPacket]) -> tuple[int, int]:
    """Add its packets; gives its data source and how many packets that has dropped."""
    if expanded:
        _, kind, source, interval, _, dropped, _, ingress, _, egress, count = sample.words(11)
    else:
        _, source, interval, _, dropped, ingress, egress, count = sample.words(8)
        kind, source = source >> 24, source & 0xFF_FFFF
        ingress, egress = (0 if number >> 30 else number for number in (ingress, egress))
    ingress, egress = (0 if number >= _NO_INTERFACE else number for number in (ingress, egress))
    # Of kind 0 the source is an interface; else a VLAN or a piece of hardware, whatever the number.
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
