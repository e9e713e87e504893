"""Packets inside records as rows: headers that agents sampled, and sections of packets in Flow Records.

They are parsed like packets of capture files, and are taken out of tunnels the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames
from flowtop.capture.packets.internet import LATER_FRAGMENT, PARSED_IP, Packets, Places, parse
from flowtop.capture.packets.tunnels import decapsulate
from flowtop.model.kinds import ICMP_VERSIONS, PORT_PROTOCOLS, Kind, Protocol, RecordBits
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire.flow_records import COLLECTED_DTYPE, Collected

_PORTS_OCTETS, _FLAGS_OCTETS, _TYPE_OCTETS = 4, 14, 2
"""Octets of a transport header up to the end of its ports, of TCP's flags, and of the type and code of ICMP."""


class PacketRows(NamedTuple):
    """IP packets as rows, without interfaces and directions.

    Attributes:
        rows: one of each packet, in order, then one of each tunnel that packets were taken out of (Kind.PARENT).
        frames: index of each row's frame, shape (n,).
        packets: number of rows of packets; the rest is of tunnels.
        inner: which rows are of packets that were taken out of a tunnel, shape (n,).
        lying: number of packets whose header has a length larger than what was on the wire.
    """

    rows: Collected
    frames: npt.NDArray[np.intp]
    packets: int
    inner: npt.NDArray[np.bool_]
    lying: int


def read_packets(frames: Frames, tunnel_ports: TunnelPorts | None) -> PacketRows:
    """The IP packets in frames.

    Args:
        tunnel_ports: take packets out of tunnels, which have these UDP ports too; None: leave them there.
    """
    if tunnel_ports is None:
        places = Places.blank(len(frames.offset))
        parsed = parse(frames, places)
        usable = np.flatnonzero(parsed.outcome == PARSED_IP)
        rows = _rows(parsed, usable)
        rows["record_bits"] = _cut_off(parsed, places.end - places.transport)[usable]
        return PacketRows(rows, usable, len(rows), np.zeros(len(rows), np.bool_), int(np.count_nonzero(parsed.lying)))
    found = decapsulate(frames, tunnel_ports)
    usable = np.flatnonzero(found.packets.outcome == PARSED_IP)
    rows, tunnels = _rows(found.packets, usable), _rows(found.parents, np.arange(len(found.rows)))
    rows["record_bits"] = _cut_off(found.packets, found.transport_octets)[usable]
    tunnels["encapsulation"] = found.parents.octets - found.packets.octets[found.rows]
    inner = np.concatenate((np.isin(usable, found.rows), np.zeros(len(tunnels), np.bool_)))
    return PacketRows(np.concatenate((rows, tunnels)), np.concatenate((usable, found.rows)), len(rows), inner,
                      int(np.count_nonzero(found.packets.lying)))


def _rows(parsed: Packets, usable: npt.NDArray[np.intp]) -> Collected:
    """Rows of the packets `usable`, one packet each."""
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
    return rows


def _cut_off(parsed: Packets, octets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """RecordBits of what is not in the captured `octets` from the transport header on: shape (n,)."""
    protocol, whole = parsed.keys["protocol"], parsed.fragment != LATER_FRAGMENT
    bits = np.zeros(len(octets), np.uint32)
    for protocols, least, missing in (
            (tuple(PORT_PROTOCOLS), _PORTS_OCTETS, RecordBits.NO_SOURCE_PORT | RecordBits.NO_DESTINATION_PORT),
            ((Protocol.TCP,), _FLAGS_OCTETS, RecordBits.NO_TCP_CONTROL_BITS),
            (tuple(ICMP_VERSIONS), _TYPE_OCTETS, RecordBits.NO_ICMP_TYPE)):
        bits |= np.where(whole & np.isin(protocol, protocols) & (octets < least), np.uint32(missing), np.uint32(0))
    return bits
