"""Flow Records that hold the first octets of one packet (PSAMP, RFC 5477; NetFlow 9's layer 2 sections).

The octets are parsed like packets of capture files. What the packet says is the flow's; interface, direction, times and
counters come from the record, as for other records.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.packets import PacketRows, read_packets
from flowtop.capture.packets.frames import PAD, FileInterface, Frames
from flowtop.model.kinds import RecordBits
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire.flow_records import Collected, CollectedRows, collect_rows
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import Template
from flowtop.wire.record_times import ExportTimes

_LINKS = tuple(map(FileInterface, (1, 101, 105, 219)))
_ETHERNET, _IP, _IEEE80211, _MPLS, _UNREAD = range(5)
"""Indexes of _LINKS, and one more."""
_SECTIONS = {"dataLinkFrameSection": _ETHERNET, "layer2packetSectionData": _ETHERNET, "ipHeaderPacketSection": _IP,
             "mplsPayloadPacketSection": _IP, "mplsLabelStackSection": _MPLS}
"""Elements with the first octets of a packet, in order of what they tell, and how these are read."""
_FRAME_TYPES = {0: _ETHERNET, 1: _ETHERNET, 2: _IEEE80211}
"""Values of dataLinkFrameType."""
_EXPORTED = ("sectionExportedOctets", "layer2packetSectionSize")
_OFFSETS = ("sectionOffset", "layer2packetSectionOffset")
_COUNTERS = frozenset(f"{what}{kind}Count" for what in (
    "octet", "packet", "postOctet", "postPacket", "layer2Octet") for kind in ("Delta", "Total")) | {
        "initiatorOctets", "initiatorPackets", "responderOctets", "responderPackets"}
_ADDRESSES = frozenset(f"{end}IPv{version}{kind}" for end in ("source", "destination") for version in (4, 6)
                       for kind in ("Address", "Prefix"))
_LARGEST_PACKET = 40 + 0xFFFF
"""Octets of the longest IP packet but for jumbograms."""
_OVERLAID = ("source_address", "destination_address", "source_port", "destination_port", "protocol", "ip_version",
             "kind", "tcp_control_bits", "tos", "ttl", "tunnel", "tunnel_id")
_OWN_IF_SET = ("vlan_id", "customer_vlan_id", "source_mac", "destination_mac")
"""Fields of the packet that the record may have instead."""
_UNREPORTED = {"vlan_id": RecordBits.NO_VLAN_ID, "customer_vlan_id": RecordBits.NO_CUSTOMER_VLAN_ID,
               "source_mac": RecordBits.NO_SOURCE_MAC, "destination_mac": RecordBits.NO_DESTINATION_MAC}
_OF_LINK = sum(_UNREPORTED.values())


class _Sections(NamedTuple):
    """The octets of packets, one element a record.

    Attributes:
        octets: those exported; b"" for none.
        link: index of _LINKS, or _UNREAD.
        wire: length of the packet or frame; 0 if not reported.
    """

    octets: list[bytes]
    link: npt.NDArray[np.int64]
    wire: npt.NDArray[np.int64]


def collect_records(template: Template, records: Records, times: ExportTimes, biflow_direction: int | None = None,
                    tunnel_ports: TunnelPorts | None = None) -> CollectedRows:
    """Convert Flow Records of one Template to rows, also those that hold a packet: see collect_rows.

    Args:
        tunnel_ports: take packets out of tunnels, see `packets.read_packets`; but not where the record has counters,
            which are of packets of the tunnel.
    """
    names = frozenset(template.names)
    if not has_section(template) or not (names.isdisjoint(_COUNTERS) or names.isdisjoint(_ADDRESSES)):
        return collect_rows(template, records, times, biflow_direction)
    counted = not names.isdisjoint(_COUNTERS)
    both_ways = any(name.startswith("reverse") for name in names)
    found = _parse(_sections(records), None if counted or both_ways else tunnel_ports)
    row_of = np.full(len(records), -1)
    row_of[found.frames[:found.packets]] = np.arange(found.packets)
    usable = row_of >= 0
    if not counted:
        octets = found.rows["octets"][:found.packets]
        records = _with_counters(records, np.where(usable, np.append(octets, 0)[row_of], 0), usable)
    collected = collect_rows(template, records, times, biflow_direction)
    rows, sources = collected.rows, collected.sources
    tunnels, of_tunnels = _tunnels(collected, found)
    which = np.flatnonzero(usable[sources])
    taken = row_of[sources[which]]
    _overlay(rows, which, found.rows[taken], found.inner[taken])
    if not len(tunnels):
        return collected
    inner = np.zeros(len(rows), np.bool_)
    inner[which] = found.inner[taken]
    end = collected.forward
    return replace(collected, rows=np.concatenate((rows[:end], tunnels, rows[end:])),
                   sources=np.concatenate((sources[:end], of_tunnels, sources[end:])), forward=end + len(tunnels),
                   inner=np.insert(inner, end, np.zeros(len(tunnels), np.bool_)))


def has_section(template: Template) -> bool:
    """Whether its records hold the first octets of a packet."""
    return not _SECTIONS.keys().isdisjoint(template.names)


def section_rows(records: Records) -> tuple[Collected, npt.NDArray[np.intp]]:
    """The packets in records that have a section, as rows without interfaces and times, and the record of each."""
    found = _parse(_sections(records), None)
    return found.rows, found.frames


def _sections(records: Records) -> _Sections:
    """The first section of each record that has octets."""
    names = records.dtype.names or ()
    count = len(records)
    found, link = [b""] * count, np.full(count, _UNREAD)
    offset = _first_of(records, _OFFSETS)
    exported = _first_of(records, _EXPORTED)
    types = _first_of(records, ("dataLinkFrameType",))
    for name, kind in _SECTIONS.items():
        if name not in names:
            continue
        for place, value in enumerate(records[name].tolist()):
            if found[place] or not value:
                continue
            limit = int(exported[place])
            found[place] = bytes(value)[:limit] if limit else bytes(value)
            link[place] = _FRAME_TYPES.get(int(types[place]), _UNREAD) if kind == _ETHERNET else kind
            if offset[place]:  # the start is missing: IP may still be what begins the rest of a frame
                link[place] = _IP if kind == _ETHERNET else _UNREAD
    wire = _first_of(records, ("dataLinkFrameSize", "ipTotalLength"))
    return _Sections(found, link, wire)


def _first_of(records: Records, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Numbers of the first of these elements that the records have, else 0; shape (n,)."""
    for name in names:
        if name in (records.dtype.names or ()) and records[name].dtype.kind in "ui":
            return records[name].astype(np.int64)
    return np.zeros(len(records), np.int64)


def _parse(sections: _Sections, tunnel_ports: TunnelPorts | None) -> PacketRows:
    """The IP packets of all sections; `frames` are indexes of records."""
    captured = np.array([len(octets) for octets in sections.octets], np.int64)
    known = sections.wire > 0
    wire = np.maximum(np.where(known, sections.wire, captured + _LARGEST_PACKET), captured)
    some = np.flatnonzero((sections.link != _UNREAD) & (captured > 0))
    found = read_packets(Frames(
        np.frombuffer(b"".join(sections.octets) + bytes(PAD), np.uint8), (np.cumsum(captured) - captured)[some],
        captured[some], wire[some], np.zeros(len(some), np.int64), sections.link[some], np.zeros(len(some), np.bool_),
        _LINKS), tunnel_ports)
    frames = some[found.frames]
    # A header without a length (segmentation by the network card) would have that of the frame, which is not known.
    octets = found.rows["octets"]
    unknown = ~known[frames] & (octets > _LARGEST_PACKET)
    octets[unknown] = captured[frames[unknown]]
    return found._replace(frames=frames)


def _with_counters(records: Records, octets: npt.NDArray[np.int64], usable: npt.NDArray[np.bool_]) -> Records:
    """The records, with counters of one packet each where it is usable, else of none."""
    counted: list[tuple[str, Any]] = [(name, records.dtype[name]) for name in records.dtype.names or ()]
    found = np.empty(len(records), np.dtype([*counted, ("octetDeltaCount", "u8"), ("packetDeltaCount", "u8")]))
    for name, _ in counted:
        found[name] = records[name]
    found["octetDeltaCount"], found["packetDeltaCount"] = octets, usable
    return found


def _tunnels(collected: CollectedRows, found: PacketRows) -> tuple[Collected, npt.NDArray[np.intp]]:
    """Rows of tunnels that packets were taken out of, with what their records say, and the records."""
    row_of = np.full(int(found.frames.max(initial=-1)) + 1, -1)
    in_range = collected.sources < len(row_of)
    row_of[collected.sources[in_range]] = np.flatnonzero(in_range)
    packets, frames = found.rows[found.packets:], found.frames[found.packets:]
    kept = np.flatnonzero(row_of[frames] >= 0)
    rows = collected.rows[row_of[frames[kept]]]
    _overlay(rows, np.arange(len(kept)), packets[kept], np.zeros(len(kept), np.bool_))
    for name in ("octets", "encapsulation"):
        rows[name] = packets[name][kept]
    return rows, frames[kept]


def _overlay(rows: Collected, which: npt.NDArray[np.intp], packets: Collected, inner: npt.NDArray[np.bool_]) -> None:
    """Write what packets say into the rows `which`; of `inner` ones, the record says nothing of the link layer."""
    for name in _OVERLAID:
        rows[name][which] = packets[name]
    rows["record_bits"][which] = np.where(inner, np.uint32(0), rows["record_bits"][which] & np.uint32(_OF_LINK))
    for name in _OWN_IF_SET:
        nothing = np.zeros(1, packets[name].dtype)[0]
        said = packets[name] != nothing
        rows[name][which[said | inner]] = packets[name][said | inner]
        rows["record_bits"][which[said]] &= ~np.uint32(_UNREPORTED[name])
    rows["record_bits"][which] |= packets["record_bits"]
