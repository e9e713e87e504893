"""The endpoints of a flow as text: complete, or shortened to fit a narrow column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowtop.model.kinds import (
    DESTINATION_LENGTH_SHIFT,
    HAVE_PORTS,
    ICMP_VERSIONS,
    PORT_PROTOCOLS,
    SOURCE_LENGTH_SHIFT,
    Kind,
    RecordBits,
)
from flowtop.model.names_seen import OF_SOURCE
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.names import Names, shorten_name

if TYPE_CHECKING:
    from collections.abc import Sequence


def source(row: FlowRow, names: Names, width: int | None = None) -> str:
    """Source address and port, or their names; at most `width` cells, None: no limit."""
    if row.kind == Kind.AGGREGATE:
        return "(all other flows)"
    has_port = row.kind in HAVE_PORTS and row.protocol in PORT_PROTOCOLS
    tails: Sequence[str] = ()
    if has_port and not row.record_bits & RecordBits.NO_SOURCE_PORT:
        tails = _ports(row, row.source_port, names)
    if row.record_bits & RecordBits.SOURCE_PREFIX:
        tails = _after_prefix(row.record_bits >> SOURCE_LENGTH_SHIFT, tails)
    return _joined(row, row.source_address, names, tails, width, of_source=True)


def destination(row: FlowRow, names: Names, width: int | None = None) -> str:
    """The same for the destination; ICMP: address and type; later fragments: the address."""
    if row.kind == Kind.AGGREGATE:
        return ""
    tails: Sequence[str] = ()
    if row.kind == Kind.FRAGMENT:
        tails = (" frag",)
    elif row.protocol in PORT_PROTOCOLS:
        tails = () if row.record_bits & RecordBits.NO_DESTINATION_PORT else _ports(row, row.destination_port, names)
    elif row.protocol in ICMP_VERSIONS and not row.record_bits & RecordBits.NO_ICMP_TYPE:
        tails = tuple(f" {text}" for text in units.icmp_texts(row.ip_version, row.destination_port))
    if row.record_bits & RecordBits.DESTINATION_PREFIX:
        tails = _after_prefix(row.record_bits >> DESTINATION_LENGTH_SHIFT, tails)
    return _joined(row, row.destination_address, names, tails, width, of_source=False)


def _after_prefix(length_bits: int, tails: Sequence[str]) -> tuple[str, ...]:
    """The tails after the length of a network's prefix, if it is known: `/24`, `/24:443`."""
    length = (length_bits & 0xFF) - 1
    return tuple(f"/{length}{tail}" for tail in tails or ("",)) if length >= 0 else tuple(tails)


def _ports(row: FlowRow, port: int, names: Names) -> tuple[str, ...]:
    """The port as text: first its name, if it has one, then its number."""
    service = names.service(row.protocol, port)
    return (f":{port}",) if service is None else (f":{service}", f":{port}")


def _peer(row: FlowRow, names: Names, *, of_source: bool) -> str | None:
    """What the flow's client called that end; None: not known."""
    origin = row.more.get("name_origin", 0)
    return names.peer(row.more["name"]) if origin and bool(origin & OF_SOURCE) == of_source else None


def _joined(row: FlowRow, raw: bytes, names: Names, tails: Sequence[str], width: int | None, *,
            of_source: bool) -> str:
    """The host and the first tail that fits. If none fits, the last tail, and the host with its middle elided."""
    name = host = _peer(row, names, of_source=of_source) or names.host(raw, row.ip_version)
    if host is None:
        with_port = tails and tails[0][0] == ":"
        host = units.bracketed(raw, row.ip_version) if with_port else units.address(raw, row.ip_version)
    if width is None:
        return host + (tails[0] if tails else "")
    for tail in tails:
        if len(host) + len(tail) <= width:
            return host + tail
    last = tails[-1] if tails else ""
    if name is not None:  # part of a name is enough to recognise it
        last = next((tail for tail in tails if width - len(tail) >= _SOME_NAME), last)
        if width - len(last) >= _LEAST_HOST:
            return shorten_name(name, width - len(last)) + last
    return units.elide(host, width - len(last)) + last if width - len(last) >= _LEAST_HOST else units.elide(
        host + last, width)


def shortened_pair(ends: Sequence[tuple[str, bool]], joint: str, width: int) -> str:
    """Two hosts in at most `width` cells, each cut by itself; what one does not need is for the other.

    Args:
        ends: text of each host, and whether it is a name.
    """
    room = max(0, width - len(joint))
    half = room // 2
    (one, _), (other, _) = ends
    first = min(len(one), max(half + room % 2, room - len(other)))
    rooms = first, room - first
    return joint.join(shorten_name(text, cells) if named else units.elide(text, cells)
                      for (text, named), cells in zip(ends, rooms, strict=True))[:width]


_LEAST_HOST = 7
_SOME_NAME = 12
"""Minimum cells for a host, or a host name, to be readable."""
