"""Tunnelled packets as what they carry: the innermost IP packet stands for all around it (bpf/decap.h).

Fragments of a packet that carries others, and what carries no whole IP packet (ARP, say), count as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.frames import FileInterface, Frames, Integers
from flowtop.capture.files.internet import NO_FRAGMENT, PARSED_IP, Packets, Places, parse
from flowtop.capture.files.tunnels import DEEPEST, FARTHEST, Carried, Inside, Payload, carried
from flowtop.record import Kind

_INSIDE = (FileInterface(1), FileInterface(228), FileInterface(229))
"""Link types of what is inside, in the order of Inside, from ETHERNET on."""
_OF_THE_FRAME = ("time_ns", "frame_octets")
"""What stays the outer frame's."""
_OF_THE_POINT = ("ifindex", "direction")
"""Likewise, of the Flow Key."""


@dataclass(frozen=True, slots=True)
class Decapsulated:
    """Packets with what they carry in their place.

    Attributes:
        packets: innermost, with the tunnel in their keys; those that carry no IP packet are as they were.
        rows: which of them were carried, ascending, shape (m,).
        parents: the outermost packets of these, shape (m,), as Kind.PARENT, with the outermost tunnel in their keys.
    """

    packets: Packets
    rows: Integers
    parents: Packets


@dataclass(slots=True)
class _Layer:
    """Packets of one depth.

    Attributes:
        rows: which of all packets they are in.
        usable: whole IP packets that may carry another.
        begin: where in the buffer the outermost frame begins.
    """

    rows: Integers
    frames: Frames
    packets: Packets
    places: Places
    usable: npt.NDArray[np.bool_]
    begin: Integers


def decapsulate(frames: Frames) -> Decapsulated:
    """Parse frames, and what is inside them as far as it is IP."""
    n = len(frames.offset)
    places = Places.blank(n)
    found = parse(frames, places)
    around = _Layer(np.arange(n), frames, found, places, found.outcome == PARSED_IP, frames.offset)
    rows, parents = np.zeros(0, np.int64), None
    for _ in range(DEEPEST):
        inside = _look_inside(around)
        if inside is None:
            break
        layer, content = inside
        if parents is None:
            rows = layer.rows[layer.usable]
            parents = found.take(rows)
            _name_tunnel(parents, np.arange(len(rows)), content, layer.usable)
            parents.keys["kind"] = Kind.PARENT
        _replace(found, layer)
        _name_tunnel(found, layer.rows[layer.usable], content, layer.usable)
        around = layer
    return Decapsulated(found, rows, found.take(rows) if parents is None else parents)


def _look_inside(around: _Layer) -> tuple[_Layer, Carried] | None:
    """What these packets carry, one level deep; None: nothing."""
    may = around.usable & (around.places.transport > 0) & (around.packets.fragment == NO_FRAGMENT)
    more = np.flatnonzero(may)
    protocol = around.packets.keys["protocol"][more].astype(np.int64)
    content = carried(Payload(around.frames.octets, around.frames.offset[more], protocol,
                              around.places.transport[more], around.places.end[more]))
    deep = around.frames.offset[more] - around.begin[more] + content.offset
    some = np.flatnonzero((content.inside != Inside.NOTHING) & (deep <= FARTHEST))
    if not len(some):
        return None
    content, more = content.take(some), more[some]
    frames = _frames_inside(around, more, content)
    places = Places.blank(len(more))
    packets = parse(frames, places)
    begin = around.begin[more]
    usable = ((packets.outcome == PARSED_IP) & (packets.octets <= frames.wire - places.ip)
              & (frames.offset - begin + places.ip <= FARTHEST))
    return _Layer(around.rows[more], frames, packets, places, usable, begin), content


def _frames_inside(around: _Layer, rows: Integers, content: Carried) -> Frames:
    """The carried octets as frames: as long on the wire as the IP packet around them says."""
    frames, places = around.frames, around.places
    return Frames(
        octets=frames.octets,
        offset=frames.offset[rows] + content.offset,
        captured=places.end[rows] - content.offset,
        wire=places.ip[rows] + around.packets.octets[rows] - content.offset,
        time_ns=frames.time_ns[rows],
        interface=content.inside.astype(np.int64) - Inside.ETHERNET,
        egress=frames.egress[rows],
        interfaces=_INSIDE)


def _replace(packets: Packets, layer: _Layer) -> None:
    """What was parsed inside takes the outer packets' place; interface and direction stay."""
    rows, usable = layer.rows[layer.usable], layer.usable
    keys = layer.packets.keys[usable]
    for name in _OF_THE_POINT:
        keys[name] = packets.keys[name][rows]
    packets.keys[rows] = keys
    for field in fields(Packets):
        if field.name not in (*_OF_THE_FRAME, "keys"):
            getattr(packets, field.name)[rows] = getattr(layer.packets, field.name)[usable]


def _name_tunnel(packets: Packets, rows: Integers, content: Carried, usable: npt.NDArray[np.bool_]) -> None:
    packets.keys["tunnel"][rows] = content.tunnel[usable]
    packets.keys["tunnel_id"][rows] = content.tunnel_id[usable]
