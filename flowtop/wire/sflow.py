"""sFlow 5 datagrams (sflow.org/sflow_version_5.txt): sampled packets, counters of interfaces and hosts, discards.

What is in the records of samples is in `sflow_records`.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import NamedTuple

from flowtop.model.kinds import Direction
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.sflow_records import (
    ETHERNET_DATA,
    IPV4_DATA,
    IPV6_DATA,
    RAW_HEADER,
    Record,
    ShortRecordError,
    described_packet,
    ethernet_header,
)

VERSION = 5
MARK = struct.pack(">I", VERSION)
"""First four octets of a datagram. The version of NetFlow and IPFIX takes two octets."""
ETHERNET, TOKEN_RING, FDDI, FRAME_RELAY, PPP, AAL5, AAL5_IP, IPV4, IPV6, MPLS, POS, IEEE80211, AMSDU_SUBFRAME = (
    1, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 17)
"""Header protocols that are read."""

_ADDRESS_OCTETS = {1: 4, 2: 16}
_OLD_STARTS = tuple(struct.pack(">II", version, kind) for version in (2, 4) for kind in _ADDRESS_OCTETS)
_FLOW_SAMPLE, _COUNTER_SAMPLE, _EXPANDED_FLOW_SAMPLE, _EXPANDED_COUNTER_SAMPLE, _DISCARD = 1, 2, 3, 4, 5
_NO_INTERFACE = 0x3FFF_FFFF
"""Interface is unknown, the agent itself, or several; the two bits above distinguish these."""
_KIND_SHIFT = 32


class SampledPacket(NamedTuple):
    """One sampled packet.

    Attributes:
        protocol: of the outermost header: ETHERNET, IPV4, IPV6 or another.
        header: the first octets of the packet.
        frame_octets: length of the whole frame, as reported by the agent.
        interval: 1 of this many packets was sampled.
        ingress, egress: interface numbers; 0 if not reported.
        direction: where it was sampled: 0 at ingress, 1 at egress, None if not reported.
        records: the sample's other records, undecoded; see sflow_records.
        described: the agent sent fields (IPv4 or IPv6 data, Ethernet data); the header was made from them.
    """

    protocol: int
    header: bytes
    frame_octets: int
    interval: int
    ingress: int
    egress: int
    direction: int | None
    records: tuple[Record, ...] = ()
    described: bool = False


class CounterSample(NamedTuple):
    """Counters of one data source.

    Attributes:
        source: kind << 32 | number; an interface's number if the kind is 0.
        records: undecoded; see sflow_records.
    """

    source: int
    records: tuple[Record, ...]


class Discard(NamedTuple):
    """A packet that the agent did not forward (sflow.org/sflow_drops.txt).

    Attributes:
        source: kind << 32 | number of the data source.
        ingress, egress: interface numbers; 0 if not reported.
        reason: why, as the specification numbers reasons: those below 256 are codes of ICMP's destination unreachable.
        records: undecoded; see sflow_records.
    """

    source: int
    ingress: int
    egress: int
    reason: int
    records: tuple[Record, ...]


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
        counters: counter samples.
        discards: discarded packets.
        empty: records of each flow sample without a header and without data of a packet.
        unknown_samples: samples of other types.
        short_records: records that are shorter than their content.
    """

    agent: str
    sub_agent: int
    sequence: int
    uptime_ms: int
    packets: tuple[SampledPacket, ...]
    samples: int
    dropped: tuple[tuple[int, int], ...]
    counters: tuple[CounterSample, ...] = ()
    discards: tuple[Discard, ...] = ()
    empty: tuple[tuple[Record, ...], ...] = ()
    unknown_samples: int = 0
    short_records: int = 0


_WORDS = tuple(struct.Struct(f">{number}I") for number in range(12))


class _Reader:
    """Reads big-endian words and checks the end."""

    def __init__(self, octets: bytes, start: int = 0, end: int | None = None) -> None:
        self.octets = octets
        self.offset = start
        self.end = len(octets) if end is None else end

    def words(self, number: int) -> tuple[int, ...]:
        """Read `number` words, at most 11."""
        start = self._skip(4 * number)
        return _WORDS[number].unpack_from(self.octets, start)

    def take(self, length: int) -> bytes:
        """Read `length` octets."""
        start = self._skip(length)
        return self.octets[start:self.offset]

    def _skip(self, length: int) -> int:
        """Go on by `length` octets; returns where they begin."""
        start = self.offset
        if self.end - start < length:
            raise IpfixDecodeError(f"{length} octets are needed, {self.end - start} are left", start)
        self.offset = start + length
        return start

    def opaque(self, length: int) -> bytes:
        """Read `length` octets and their XDR padding."""
        octets = self.take(length)
        self.offset = min(self.offset + -length % 4, self.end)
        return octets

    def part(self, length: int) -> _Reader:
        """A reader of the next `length` octets; this one continues after them and their XDR padding."""
        start = self._skip(length)
        self.offset = min(self.offset + -length % 4, self.end)
        return _Reader(self.octets, start, start + length)


def is_old(octets: bytes) -> bool:
    """Whether a datagram begins as one of sFlow 2 or 4 does, which are not read (RFC 3176)."""
    return octets.startswith(_OLD_STARTS)


class _Samples:
    """What the samples of a datagram hold, as it is read."""

    def __init__(self) -> None:
        self.packets: list[SampledPacket] = []
        self.dropped: list[tuple[int, int]] = []
        self.counters: list[CounterSample] = []
        self.discards: list[Discard] = []
        self.empty: list[tuple[Record, ...]] = []
        self.unknown = self.short = 0


def agent_octets(octets: bytes) -> int:
    """How many octets of a datagram name its sub-agent."""
    return 12 + _ADDRESS_OCTETS.get(int.from_bytes(octets[4:8], "big"), 0)


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
    found = _Samples()
    for _ in range(count):  # each sample takes at least 8 octets, so a count that is too high ends in an error
        sample_type, length = reader.words(2)
        sample = reader.part(length)
        if sample_type in (_FLOW_SAMPLE, _EXPANDED_FLOW_SAMPLE):
            _flow_sample(sample, sample_type == _EXPANDED_FLOW_SAMPLE, found)
        elif sample_type in (_COUNTER_SAMPLE, _EXPANDED_COUNTER_SAMPLE):
            _counter_sample(sample, sample_type == _EXPANDED_COUNTER_SAMPLE, found)
        elif sample_type == _DISCARD:
            _discard(sample, found)
        else:
            found.unknown += 1
    return SflowDatagram(agent, sub_agent, sequence, uptime_ms, tuple(found.packets), len(found.dropped),
                         tuple(found.dropped), tuple(found.counters), tuple(found.discards), tuple(found.empty),
                         found.unknown, found.short)


def _flow_sample(sample: _Reader, expanded: bool, found: _Samples) -> None:
    """Add the sample's packets, its data source and the drop counter of that source."""
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
    headers: list[tuple[int, bytes, int]] = []
    others: list[Record] = []
    for _ in range(count):
        record_type, length = sample.words(2)
        if record_type != RAW_HEADER:
            others.append((record_type, sample.opaque(length)))
            continue
        record = sample.part(length)
        if length >= _RAW_OCTETS:
            protocol, frame_octets, _, header_octets = record.words(4)
            found.short += header_octets > length - _RAW_OCTETS
            headers.append((protocol, record.take(min(header_octets, length - _RAW_OCTETS)), frame_octets))
        else:
            found.short += 1
    found.dropped.append((kind << _KIND_SHIFT | source, dropped))
    described = False
    records = tuple(others)
    if records and not any(protocol in READ_PROTOCOLS for protocol, _, _ in headers):
        made = _described(records, found)
        headers, described = ([made], True) if made else (headers, False)
    for protocol, header, frame_octets in headers:
        found.packets.append(SampledPacket(protocol, header, frame_octets, max(interval, 1), ingress, egress, direction,
                                           records, described))
    if not headers:
        found.empty.append(records)


_RAW_OCTETS = 16
READ_PROTOCOLS = frozenset((ETHERNET, TOKEN_RING, FDDI, FRAME_RELAY, PPP, AAL5, AAL5_IP, IPV4, IPV6, MPLS, POS,
                            IEEE80211, AMSDU_SUBFRAME))


def _described(records: tuple[Record, ...], found: _Samples) -> tuple[int, bytes, int] | None:
    """Header protocol, header and octets from data of an IP packet, or of an Ethernet frame; None without either."""
    for format_, protocol, make in ((IPV4_DATA, IPV4, described_packet), (IPV6_DATA, IPV6, described_packet),
                                    (ETHERNET_DATA, ETHERNET, ethernet_header)):
        for record in records:
            if record[0] == format_:
                try:
                    return protocol, *make(record)
                except ShortRecordError:
                    found.short += 1
    return None


def _source(sample: _Reader, expanded: bool) -> int:
    """The data source of a sample, after its sequence number."""
    _, source = sample.words(2)
    if expanded:
        (number,) = sample.words(1)
        return source << _KIND_SHIFT | number
    return source >> 24 << _KIND_SHIFT | source & 0xFF_FFFF


def _records(sample: _Reader, count: int) -> tuple[Record, ...]:
    found: list[Record] = []
    for _ in range(count):
        record_type, length = sample.words(2)
        found.append((record_type, sample.opaque(length)))
    return tuple(found)


def _counter_sample(sample: _Reader, expanded: bool, found: _Samples) -> None:
    """Add a counter sample; one whose records do not fit is a short record."""
    try:
        source = _source(sample, expanded)
        found.counters.append(CounterSample(source, _records(sample, *sample.words(1))))
    except IpfixDecodeError:
        found.short += 1


def _discard(sample: _Reader, found: _Samples) -> None:
    """Add a discarded packet; one whose records do not fit is a short record."""
    try:
        source = _source(sample, expanded=True)
        _, ingress, egress, reason, count = sample.words(5)
        found.discards.append(Discard(source, ingress, egress, reason, _records(sample, count)))
    except IpfixDecodeError:
        found.short += 1
