"""Flow Records that hold the first octets of one packet (PSAMP, RFC 5477; NetFlow 9's layer 2 sections).

The octets are parsed like packets of capture files. What the packet says is the flow's; interface, direction, times and
counters come from the record, as for other records.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.sflow import packet_rows
from flowtop.capture.packets.frames import PAD, FileInterface, Frames
from flowtop.capture.packets.internet import PARSED_IP, Packets, parse
from flowtop.model.kinds import RecordBits
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


def collect_records(template: Template, records: Records, times: ExportTimes,
                    biflow_direction: int | None = None) -> CollectedRows:
    """Convert Flow Records of one Template to rows, also those that hold a packet: see collect_rows."""
    names = frozenset(template.names)
    if not has_section(template) or not (names.isdisjoint(_COUNTERS) or names.isdisjoint(_ADDRESSES)):
        return collect_rows(template, records, times, biflow_direction)
    sections = _sections(records)
    parsed, usable = _parse(sections)
    if names.isdisjoint(_COUNTERS):
        records = _with_counters(records, np.where(usable, parsed.octets, 0), usable)
    collected = collect_rows(template, records, times, biflow_direction)
    _overlay(collected.rows, parsed, usable, collected.sources)
    return collected


def has_section(template: Template) -> bool:
    """Whether its records hold the first octets of a packet."""
    return not _SECTIONS.keys().isdisjoint(template.names)


def section_rows(records: Records) -> tuple[Collected, npt.NDArray[np.intp]]:
    """The packets in records that have a section, as rows without interfaces and times, and the record of each."""
    parsed, usable = _parse(_sections(records))
    which = np.flatnonzero(usable)
    return packet_rows(parsed, which), which


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


def _parse(sections: _Sections) -> tuple[Packets, npt.NDArray[np.bool_]]:
    """The packets of all sections, and which of them are IP."""
    captured = np.array([len(octets) for octets in sections.octets], np.int64)
    known = sections.wire > 0
    wire = np.maximum(np.where(known, sections.wire, captured + _LARGEST_PACKET), captured)
    read = sections.link != _UNREAD
    count = len(captured)
    parsed = parse(Frames(
        np.frombuffer(b"".join(sections.octets) + bytes(PAD), np.uint8), np.cumsum(captured) - captured, captured, wire,
        np.zeros(count, np.int64), np.where(read, sections.link, _ETHERNET), np.zeros(count, np.bool_), _LINKS))
    # A header without a length (segmentation by the network card) would have that of the frame, which is not known.
    parsed.octets = np.where(~known & (parsed.octets > _LARGEST_PACKET), captured, parsed.octets)
    return parsed, read & (captured > 0) & (parsed.outcome == PARSED_IP)


def _with_counters(records: Records, octets: npt.NDArray[np.int64], usable: npt.NDArray[np.bool_]) -> Records:
    """The records, with counters of one packet each where it is usable, else of none."""
    counted: list[tuple[str, Any]] = [(name, records.dtype[name]) for name in records.dtype.names or ()]
    found = np.empty(len(records), np.dtype([*counted, ("octetDeltaCount", "u8"), ("packetDeltaCount", "u8")]))
    for name, _ in counted:
        found[name] = records[name]
    found["octetDeltaCount"], found["packetDeltaCount"] = octets, usable
    return found


def _overlay(rows: Collected, parsed: Packets, usable: npt.NDArray[np.bool_], sources: npt.NDArray[np.intp]) -> None:
    """Write what the packets say into their rows; `sources`: the record of each row."""
    which = np.flatnonzero(usable[sources])
    packets = packet_rows(parsed, sources[which])
    for name in _OVERLAID:
        rows[name][which] = packets[name]
    rows["record_bits"][which] &= np.uint32(_OF_LINK)
    for name in _OWN_IF_SET:
        nothing = np.zeros(1, packets[name].dtype)[0]
        said = packets[name] != nothing
        rows[name][which[said]] = packets[name][said]
        rows["record_bits"][which[said]] &= ~np.uint32(_UNREPORTED[name])
