"""Counters of Flow Records by their meaning: deltas, totals since the flow began, counters of other layers, events.

Exporters report the same traffic in several ways. What a record counts is taken from the first of these that is not 0:

1. deltas of the packets that came in (IE 1, 2, and of the initiator or the responder);
2. deltas of the packets that went out (IE 23, 24). Copies of multicast (IE 19, 20) are not added;
3. totals since the flow began (IE 85, 86, 171, 172), from which whoever keeps the flows makes deltas;
4. octets of the transport layer (IE 401), then of layer 2 (IE 352, 353, 417, 420), which are not IP octets: marked.

A firewall reports events. Of one connection, it reports updates with what came since the previous one, and at the end
how much it was in all (Cisco ASA): that record's counters are a total, too, of which the updates are a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import reverse_name
from flowtop.model.kinds import EndReason, FirewallEvent, NatEvent
from flowtop.wire.ipfix_template import Template
from flowtop.wire.record_fields import Integers, RecordFields

U8 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

TOTALS_DTYPE = np.dtype([
    ("octets", "u8"),
    ("packets", "u8"),
    ("flow", "u8"),
    ("started", "?"),
    ("deltas", "?"),
    ("connection", "?"),
    ("final", "?"),
])
"""What a row's record reports of its flow since it began; all 0 if it has no totals.

`deltas`: the Template has deltas, too. `flow`: what tells flows of one key apart: flowId and start, mixed; `started`:
there is a start in it. `final`: the last report of the flow.
`connection`: a firewall's event, whose row has a delta; the final one has the total of all deltas instead.
"""

Totals = npt.NDArray[np.void]
"""TOTALS_DTYPE, shape (n,)."""

_OCTET_DELTAS, _PACKET_DELTAS = ("octetDeltaCount", "postOctetDeltaCount"), ("packetDeltaCount", "postPacketDeltaCount")
_OCTET_TOTALS, _PACKET_TOTALS = ("octetTotalCount", "postOctetTotalCount"), ("packetTotalCount", "postPacketTotalCount")
_TRANSPORT = ("transportOctetDeltaCount",)
_TRANSPORT_PACKETS = ("transportPacketDeltaCount",)
_LAYER2_DELTAS = ("layer2OctetDeltaCount", "postLayer2OctetDeltaCount")
_LAYER2_TOTALS = ("layer2OctetTotalCount", "postLayer2OctetTotalCount")
_FRAME_DELTAS, _FRAME_TOTALS = ("layer2FrameDeltaCount",), ("layer2FrameTotalCount",)
_STARTS = ("flowStartMilliseconds", "flowStartNanoseconds", "flowStartMicroseconds", "flowStartSeconds",
           "flowStartSysUpTime")
"""Starts that are the same in every record of a flow, as they are not relative to the export."""
_EVENT, _NAT_EVENT, OLD_EVENT = 233, 230, 40005
"""firewallEvent, natEvent, and Cisco's NF_F_FW_EVENT of before it was registered."""
_ENDED = [int(reason) for reason in EndReason if reason not in (EndReason.NONE, EndReason.ACTIVE_TIMEOUT)]
_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
"""Odd: multiplying by it loses nothing."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of one direction of records, shape (n,) each.

    Attributes:
        octets, packets: deltas; 0 for what has totals alone.
        totals: None: no record has any.
        transport, layer2: which records' octets are of that layer; None: none are.
    """

    octets: Integers
    packets: Integers
    totals: Totals | None
    transport: Bools | None
    layer2: Bools | None

    @property
    def used(self) -> Bools:
        """Which records count anything."""
        used: Bools = (self.octets > 0) | (self.packets > 0)
        if self.totals is not None:
            used |= (self.totals["octets"] > 0) | (self.totals["packets"] > 0)
        return used


def read_counters(fields: RecordFields, events: Integers | None, reverse: bool) -> Counters | None:
    """The counters of one direction; None: the Template has none of it.

    Args:
        events: firewallEvent of each record; None: the Template does not have it.
        reverse: of the reverse direction: reverse elements (RFC 5103), and those of the responder.
    """
    side = "responder" if reverse else "initiator"

    def read(names: Sequence[str], unit: str = "") -> Integers | None:
        named = [reverse_name(name) for name in names] if reverse else list(names)
        return _first(fields, [*named[:1], f"{side}{unit}", *named[1:]] if unit else named)

    octets, packets = read(_OCTET_DELTAS, "Octets"), read(_PACKET_DELTAS, "Packets")
    octet_totals, packet_totals = read(_OCTET_TOTALS), read(_PACKET_TOTALS)
    octets, transport = _else(octets, octet_totals, read(_TRANSPORT))
    octets, layer2 = _else(octets, octet_totals, read(_LAYER2_DELTAS))
    octet_totals, layer2_totals = _else(octet_totals, octets, read(_LAYER2_TOTALS))
    for names in (_TRANSPORT_PACKETS, _FRAME_DELTAS):
        packets, _ = _else(packets, packet_totals, read(names))
    packet_totals, _ = _else(packet_totals, packets, read(_FRAME_TOTALS))
    if octets is None and packets is None and octet_totals is None and packet_totals is None:
        return None
    deltas = octets is not None or packets is not None
    nothing = np.zeros(fields.count, np.uint64)
    octets, packets = nothing if octets is None else octets, nothing if packets is None else packets
    totals = None
    if events is not None and any(fields.has(f"{side}{unit}") for unit in ("Octets", "Packets")):
        totals = np.zeros(fields.count, TOTALS_DTYPE)
        octets, packets = _connections(totals, octets, packets, events)
        totals["flow"] = _flows(fields, with_start=False)
    elif octet_totals is not None or packet_totals is not None:
        totals = np.zeros(fields.count, TOTALS_DTYPE)
        totals["octets"] = 0 if octet_totals is None else octet_totals
        totals["packets"] = 0 if packet_totals is None else packet_totals
        totals["deltas"] = deltas
        totals["flow"] = _flows(fields, with_start=True)
        totals["started"] = any(map(fields.has, _STARTS))
        reason = fields.integers(("flowEndReason",))
        if reason is not None:
            totals["final"] = np.isin(reason, _ENDED)
    if layer2 is not None and layer2_totals is not None:
        layer2 = layer2 | layer2_totals
    elif layer2 is None:
        layer2 = layer2_totals
    return Counters(octets, packets, totals, transport, layer2)


def _first(fields: RecordFields, names: Sequence[str]) -> Integers | None:
    """Of each record the first of the elements that is not 0; None: the Template has none of them."""
    found: Integers | None = None
    for name in names:
        values = fields.integers((name,))
        if values is not None:
            found = values if found is None else np.where(found == 0, values, found)
    return found


def _else(values: Integers | None, others: Integers | None,
          instead: Integers | None) -> tuple[Integers | None, Bools | None]:
    """The values, with those of `instead` where both the values and `others` are 0; and where that is."""
    if instead is None:
        return values, None
    where: Bools = instead > 0
    for known in (values, others):
        if known is not None:
            where &= known == 0
    return (np.where(where, instead, 0) if values is None else np.where(where, instead, values)), where


def _flows(fields: RecordFields, with_start: bool) -> U8:
    """Mix flowId and, if wanted, the start of each flow."""
    mixed = np.zeros(fields.count, np.uint64)
    for names in (("flowId",), _STARTS if with_start else ()):
        values = fields.integers(names)
        if values is not None:
            mixed = (mixed ^ values.astype(np.uint64)) * _GOLDEN
    return mixed


def _connections(totals: Totals, octets: Integers, packets: Integers, events: Integers) -> tuple[U8, U8]:
    """Move the counters of records that end a connection to the totals; returns what is left: deltas."""
    final = events == np.uint64(FirewallEvent.DELETED)
    totals["connection"], totals["final"] = True, final
    totals["octets"], totals["packets"] = np.where(final, octets, 0), np.where(final, packets, 0)
    return (np.where(final, 0, octets).astype(np.uint64, copy=False),
            np.where(final, 0, packets).astype(np.uint64, copy=False))


# ---- events


def firewall_events(template: Template, fields: RecordFields) -> Integers | None:
    """firewallEvent of each record; None: the Template does not have it."""
    names = [name for number in (_EVENT, OLD_EVENT) for name in _named(template, number)]
    return fields.integers(names) if names else None


def nat_events(template: Template, fields: RecordFields) -> Integers | None:
    """natEvent of each record; None: the Template does not have it."""
    names = _named(template, _NAT_EVENT)
    return fields.integers(names) if names else None


def _named(template: Template, number: int) -> list[str]:
    """Names of the Template's fields with this number, of no enterprise."""
    return [name for name, specifier in template.named_fields
            if specifier.element_id == number and not specifier.enterprise]


def event_name(kind: type[FirewallEvent] | type[NatEvent], number: int) -> str:
    """`denied`, `nat44 session create`; "" for a number that is not registered."""
    return kind(number).name.lower().replace("_", " ") if number in set(kind) else ""
