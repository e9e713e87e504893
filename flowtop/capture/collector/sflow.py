"""Sampled packets of sFlow agents as rows; headers are parsed like packets of capture files."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.packets import read_packets
from flowtop.capture.packets.frames import PAD, FileInterface, Frames
from flowtop.model.kinds import ANY_PROTOCOL, UNKNOWN_DIRECTION, Direction, IpVersion, Kind, RecordBits, Tunnel
from flowtop.model.reported import MEASURED_DTYPE, REPORTED_DTYPE, Reported, packed_address, rows_of, words_of
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire import sflow
from flowtop.wire.flow_records import COLLECTED_DTYPE, Collected
from flowtop.wire.sflow import SampledPacket
from flowtop.wire.sflow_records import Extended, Record, extended

_LINK_TYPE_OF = {
    sflow.ETHERNET: 1, sflow.TOKEN_RING: 6, sflow.FDDI: 10, sflow.FRAME_RELAY: 107, sflow.PPP: 9, sflow.AAL5: 100,
    sflow.AAL5_IP: 101, sflow.IPV4: 101, sflow.IPV6: 101, sflow.MPLS: 219, sflow.POS: 50, sflow.IEEE80211: 105,
    sflow.AMSDU_SUBFRAME: 1}
"""LINKTYPE_ numbers by header protocol. A subframe of an A-MSDU begins as an IEEE 802.3 frame does."""
_LINKS = tuple(FileInterface(number) for number in sorted(set(_LINK_TYPE_OF.values())))
_LINK_OF = {protocol: _LINKS.index(FileInterface(number)) for protocol, number in _LINK_TYPE_OF.items()}
_VERSIONS = {0x0800: IpVersion.V4, 0x86DD: IpVersion.V6}
_MACS_OCTETS, _ETHERNET_OCTETS, _CHECK_OCTETS = 12, 14, 4
_OF_TAGS = RecordBits.NO_VLAN_ID | RecordBits.NO_CUSTOMER_VLAN_ID
_OF_LINK = {"source_mac": RecordBits.NO_SOURCE_MAC, "destination_mac": RecordBits.NO_DESTINATION_MAC}


class SampledRows(NamedTuple):
    """Sampled packets as rows.

    Attributes:
        rows: one per packet, and one per tunnel that packets were taken out of (Kind.PARENT).
        intervals: sampling intervals, shape (n,).
        extended: what the agent reports of packets beside their headers, each only once.
        extended_of: index into `extended` for each row, shape (n,).
        unusable: number of packets that are not IP.
        origins: what was given to `add` with each row's packet, shape (n,).
    """

    rows: Collected
    intervals: npt.NDArray[np.float64]
    extended: list[Extended]
    extended_of: npt.NDArray[np.int64]
    unusable: int
    origins: npt.NDArray[np.int64]


_ADDRESSES = ("next_hop", "bgp_next_hop", "post_nat_source", "post_nat_destination")
_NUMBERS = ("source_mask", "destination_mask", "source_as", "destination_as", "mpls_top_label", "post_nat_source_port",
            "post_nat_destination_port")
_MEASURED = ("rtt_us", "congestion_window", "retransmitted")


def reported_of(sampled: SampledRows, users: Callable[[list[bytes]], list[int]]) -> Reported | None:
    """What agents report of packets beside their headers, shape (n,); None if they report nothing.

    Args:
        users: gives codes to names of users; see capture/collector/names.py.
    """
    if len(sampled.extended) < 2:  # the first one is that of packets without any
        return None
    measured = any(values.rtt_us is not None for values in sampled.extended)
    found = np.zeros(len(sampled.extended), MEASURED_DTYPE if measured else REPORTED_DTYPE)
    for name in _MEASURED if measured else ():
        found[name] = [getattr(values, name) or 0 for values in sampled.extended]
    for place, values in enumerate(sampled.extended):
        for name in _ADDRESSES:
            if (octets := getattr(values, name)) and any(octets):
                found[name][place] = packed_address(octets)
        for name in _NUMBERS:
            number = getattr(values, name) or 0
            found[name][place] = number if number <= np.iinfo(REPORTED_DTYPE[name]).max else 0
    found["user"] = users([(values.source_user or values.destination_user or "").encode()
                           for values in sampled.extended])
    return rows_of(found, sampled.extended_of) if words_of(found).any() else None


class SampledPackets:
    """Sampled packets that wait for the drain.

    Attributes:
        lying: packets whose header's length is larger than their frame; known after `rows`.
    """

    def __init__(self) -> None:
        self.lying = 0
        self._packets: list[SampledPacket] = []
        self._times_ms: list[int] = []
        self._origins: list[int] = []

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, packets: tuple[SampledPacket, ...], now_ms: int, origin: int = 0) -> None:
        """Add the packets of a datagram; `origin` stands for its agent."""
        self._packets += packets
        self._times_ms += [now_ms] * len(packets)
        self._origins += [origin] * len(packets)

    def rows(self, tunnel_ports: TunnelPorts | None = None) -> SampledRows:
        """The packets that can be read; frames of which only the Ethernet header was described come after them, and
        then the tunnels that packets were taken out of.

        Args:
            tunnel_ports: take packets out of tunnels; see `packets.read_packets`.
        """
        read: list[int] = []
        bare: list[int] = []
        for place, packet in enumerate(self._packets):
            if packet.protocol in _LINK_OF:
                (bare if packet.described and packet.protocol == sflow.ETHERNET else read).append(place)
        parts = [np.zeros(0, COLLECTED_DTYPE)]
        places, inner, tunnels = np.zeros(0, np.int64), np.zeros(0, np.bool_), 0
        if read:
            found = read_packets(frames_of([self._packets[place] for place in read],
                                           np.array(self._times_ms, np.int64)[read] * 1_000_000), tunnel_ports)
            self.lying, tunnels = found.lying, len(found.rows) - found.packets
            parts, places, inner = [found.rows], np.array(read, np.int64)[found.frames], found.inner
        if bare:
            described, taken = self._ethernet_rows(bare)
            parts, end = [described, *parts], len(described)
            places, inner = np.concatenate((taken, places)), np.concatenate((np.zeros(end, np.bool_), inner))
        rows = np.concatenate(parts)
        chosen = [self._packets[place] for place in places.tolist()]
        points = np.array([_point(packet) for packet in chosen], np.int64).reshape(-1, 3)
        rows["ifindex"], rows["direction"], rows["other_ifindex"] = points.T
        rows["opposite"] = [not packet.ingress and packet.direction is None for packet in chosen]
        rows["opposite"] &= rows["ifindex"] != 0
        # IP data without a header has all but the TTL.
        rows["record_bits"] |= np.array([packet.described for packet in chosen], np.uint32) * np.uint32(
            RecordBits.NO_TTL)
        kinds: dict[tuple[Record, ...], int] = {(): 0}  # most packets have the records of another one
        numbers = np.array([kinds.setdefault(packet.records, len(kinds)) for packet in chosen], np.int64)
        numbers[inner] = 0  # they are about the packet around it
        reported = list(map(extended, kinds))
        if len(kinds) > 1:
            _note_extended(rows, reported, numbers)
        _note_missing(rows, np.array([packet.protocol == sflow.ETHERNET and not packet.described for packet in chosen],
                                     np.bool_) | inner)
        intervals = np.array([packet.interval for packet in chosen], np.float64)
        return SampledRows(rows, intervals, reported, numbers, len(self._packets) - len(rows) + tunnels,
                           np.array(self._origins, np.int64)[places])

    def _ethernet_rows(self, bare: list[int]) -> tuple[Collected, npt.NDArray[np.int64]]:
        """Rows of IP packets of which only the Ethernet header is known, as aggregates; and which packets they are."""
        places = [place for place in bare if _ethertype(self._packets[place]) in _VERSIONS]
        rows = np.zeros(len(places), COLLECTED_DTYPE)
        for row, place in enumerate(places):
            packet = self._packets[place]
            rows["ip_version"][row] = _VERSIONS[_ethertype(packet)]
            rows["octets"][row] = max(packet.frame_octets - _ETHERNET_OCTETS - _CHECK_OCTETS, 0)
            rows["destination_mac"][row], rows["source_mac"][row] = packet.header[:6], packet.header[6:_MACS_OCTETS]
            rows["start_ms"][row] = rows["end_ms"][row] = self._times_ms[place]
        rows["packets"], rows["kind"], rows["protocol"] = 1, Kind.AGGREGATE, ANY_PROTOCOL
        rows["record_bits"] = int(RecordBits.NO_TOS | RecordBits.NO_TCP_CONTROL_BITS | RecordBits.NO_PROTOCOL
                                  | RecordBits.NO_SOURCE_PORT | RecordBits.NO_DESTINATION_PORT)
        return rows, np.array(places, np.int64)


def _ethertype(packet: SampledPacket) -> int:
    return int.from_bytes(packet.header[_MACS_OCTETS:_ETHERNET_OCTETS], "big")


def _note_extended(rows: Collected, reported: list[Extended], numbers: npt.NDArray[np.int64]) -> None:
    """Write VLANs that the header does not have, and the tunnel that a packet came in; see SampledRows."""
    into, out, stripped = (np.array([(*getattr(found, name), 0, 0)[:2] for found in reported], np.uint16)[numbers]
                           for name in ("vlans_in", "vlans_out", "stripped_vlans"))
    egress = (rows["direction"] == np.uint8(Direction.EGRESS))[:, np.newaxis]
    first, second = np.where(egress, out, into), np.where(egress, into, out)
    vlans = np.where(first[:, :1] > 0, first, second)
    vlans = np.where(stripped[:, :1] > 0, stripped, vlans)
    own = np.stack((rows["vlan_id"], rows["customer_vlan_id"]), axis=1)
    tagged = own[:, 0] > 0
    vlans[:, 1] = np.where(tagged & (vlans[:, 1] == 0), own[:, 0], vlans[:, 1])  # the tag behind one that was stripped
    whole = tagged & (stripped[:, 0] == 0)
    rows["vlan_id"], rows["customer_vlan_id"] = np.where(whole[:, np.newaxis], own, vlans).T
    tunnels = np.array([(found.tunnel, found.tunnel_id) for found in reported], np.uint32)[numbers]
    outer = (tunnels[:, 0] > 0) & (rows["tunnel"] == np.uint8(Tunnel.NONE))
    rows["tunnel"][outer], rows["tunnel_id"][outer] = tunnels[outer].T


def _note_missing(rows: Collected, tagged: npt.NDArray[np.bool_]) -> None:
    """Note what the link layer of packets does not say.

    Args:
        tagged: which packets have a link layer that would have a VLAN's tag, shape (n,).
    """
    own = np.where(tagged, np.uint32(0), np.uint32(_OF_TAGS))
    for name, bit in _OF_LINK.items():
        own |= np.where(rows[name] == np.zeros((), rows.dtype[name]), np.uint32(bit), np.uint32(0))
    said = np.where(rows["vlan_id"] > 0, np.uint32(RecordBits.NO_VLAN_ID), np.uint32(0))
    said |= np.where(rows["customer_vlan_id"] > 0, np.uint32(RecordBits.NO_CUSTOMER_VLAN_ID), np.uint32(0))
    rows["record_bits"] |= own & ~said


def _point(packet: SampledPacket) -> tuple[int, int, int]:
    """Interface and direction of a packet, and the interface on the other side."""
    if packet.direction is None:
        first, other = packet.ingress, packet.egress
        return first or other, UNKNOWN_DIRECTION, other if first else 0
    both = packet.ingress, packet.egress
    first, other = both[::-1] if packet.direction == Direction.EGRESS else both
    return first, packet.direction, other


def frames_of(packets: list[SampledPacket], times_ns: npt.NDArray[np.int64]) -> Frames:
    """The headers as frames, by header protocol; all of them must be known."""
    captured = np.array([len(packet.header) for packet in packets], np.int64)
    wire = np.maximum(np.array([packet.frame_octets for packet in packets], np.int64), captured)
    octets = np.frombuffer(b"".join([packet.header for packet in packets]) + bytes(PAD), np.uint8)
    return Frames(octets, np.cumsum(captured) - captured, captured, wire, times_ns,
                  np.array([_LINK_OF[packet.protocol] for packet in packets], np.int64),
                  np.zeros(len(packets), np.bool_), _LINKS)
