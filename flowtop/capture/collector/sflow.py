"""Sampled packets of sFlow agents as rows; headers are parsed like packets of capture files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import PAD, FileInterface, Frames
from flowtop.capture.packets.internet import LATER_FRAGMENT, PARSED_IP, parse
from flowtop.model.kinds import UNKNOWN_DIRECTION, Direction, Kind
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.wire.flow_records import COLLECTED_DTYPE, Collected
from flowtop.wire.sflow import ETHERNET, IPV4, IPV6, SampledPacket

_LINK_TYPES = (FileInterface(1), FileInterface(101))
"""LINKTYPE_ETHERNET, LINKTYPE_RAW."""
_LINK_OF = {ETHERNET: 0, IPV4: 1, IPV6: 1}


class SampledPackets:
    """Sampled packets of one agent that wait for the drain.

    Attributes:
        lying: packets whose header's length is larger than their frame; known after `rows`.
    """

    def __init__(self) -> None:
        self.lying = 0
        self._packets: list[SampledPacket] = []
        self._times_ms: list[int] = []

    def add(self, packets: tuple[SampledPacket, ...], now_ms: int) -> None:
        """Add the packets of a datagram."""
        self._packets += packets
        self._times_ms += [now_ms] * len(packets)

    def rows(self) -> tuple[Collected, npt.NDArray[np.float64], int]:
        """One row per packet, the sampling intervals, shape (n,), and the number of headers that are not IP."""
        read = [place for place, packet in enumerate(self._packets) if packet.protocol in _LINK_OF]
        if not read:
            return np.zeros(0, COLLECTED_DTYPE), np.zeros(0), len(self._packets)
        chosen = [self._packets[place] for place in read]
        parsed = parse(_frames(chosen, np.array(self._times_ms, np.int64)[read] * 1_000_000))
        usable = np.flatnonzero(parsed.outcome == PARSED_IP)
        self.lying = int(np.count_nonzero(parsed.lying))
        rows = np.zeros(len(usable), COLLECTED_DTYPE)
        for name in FLOW_KEY_DTYPE.names or ():
            rows[name] = parsed.keys[name][usable]
        later = parsed.fragment[usable] == LATER_FRAGMENT
        rows["kind"][later] = Kind.FRAGMENT
        for name in ("source_port", "destination_port"):
            rows[name][later] = 0
        for name, values in (("tcp_control_bits", parsed.tcp_bits), ("octets", parsed.octets), ("tos", parsed.tos),
                             ("ttl", parsed.ttl), ("source_mac", parsed.source_mac),
                             ("destination_mac", parsed.destination_mac)):
            rows[name] = values[usable]
        rows["packets"] = 1
        rows["start_ms"] = rows["end_ms"] = parsed.time_ns[usable] // 1_000_000
        points = np.array([_point(packet) for packet in chosen], np.int64)[usable]
        rows["ifindex"], rows["direction"] = points[:, 0], points[:, 1]
        intervals = np.array([packet.interval for packet in chosen], np.float64)[usable]
        return rows, intervals, len(self._packets) - len(usable)


def _point(packet: SampledPacket) -> tuple[int, int]:
    """Interface and direction of a packet."""
    if packet.direction is None:
        return packet.ingress or packet.egress, UNKNOWN_DIRECTION
    return (packet.egress if packet.direction == Direction.EGRESS else packet.ingress), packet.direction


def _frames(packets: list[SampledPacket], times_ns: npt.NDArray[np.int64]) -> Frames:
    captured = np.array([len(packet.header) for packet in packets], np.int64)
    wire = np.maximum(np.array([packet.frame_octets for packet in packets], np.int64), captured)
    octets = np.frombuffer(b"".join([packet.header for packet in packets]) + bytes(PAD), np.uint8)
    return Frames(octets, np.cumsum(captured) - captured, captured, wire, times_ns,
                  np.array([_LINK_OF[packet.protocol] for packet in packets], np.int64),
                  np.zeros(len(packets), np.bool_), _LINK_TYPES)
