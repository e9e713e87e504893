"""Details of one flow, which remain available when it has left the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from flowtop.fields.networks import REMOTE_IS_SOURCE, networked
from flowtop.model.flows import (
    FLOW_COLUMN_DTYPES,
    ColumnsAt,
    FlowColumns,
    FlowSource,
    Slots,
    address_words,
    event_ms,
    reports,
)
from flowtop.model.kinds import ICMP_ANSWERS, EndReason, Kind
from flowtop.model.record import FLOW_RECORD_DTYPE, REPORTED_RECORD_DTYPE, FlowRecords
from flowtop.model.reported import OPPOSITE
from flowtop.query.history import HistorySource, flows_history
from flowtop.query.measures import measured
from flowtop.query.query import Details, TrafficHistory
from flowtop.query.rows import flow_rows
from flowtop.text.lookups import NO_LOOKUPS, Lookups

MOST_POINTS = 16
"""Limit of other Observation Points that are listed."""
_ICMP_REPLIES = {protocol: answers | {answer: request for request, answer in answers.items()}
                 for protocol, answers in ICMP_ANSWERS.items()}
"""By protocol: the answering type of each type."""
_TIMES = {"start": "first_ns", "end": "last_ns"}


class DetailSource(HistorySource, Protocol):
    """A flow table that also has recent history."""

    def keep(self, flow_ids: frozenset[int]) -> None:
        """Keep these flows visible after they end, until the next call."""

    def history(self, slot: int) -> Sequence[tuple[int, int]]:
        """Traffic of the flow in that slot: (length in ns, octets) of each second or so, oldest first."""

    def flags(self, slot: int) -> Sequence[tuple[int, int]]:
        """TCP flags of the flow in that slot: (time in ns when noticed, TCP control bits), oldest first."""

    def reporting(self, slot: int) -> Reporting:
        """What the Flow Records of the flow in that slot have reported."""


class Reporting(Protocol):
    """What the Flow Records of a flow have reported: see metering.flows.Reporting."""

    @property
    def records(self) -> int:
        """Number of records."""

    @property
    def packets(self) -> int:
        """Sum of wire packets."""

    @property
    def octets(self) -> int:
        """Sum of IP octets."""

    @property
    def at_ns(self) -> int:
        """Time of the last record."""

    @property
    def due_ns(self) -> int | None:
        """Time of the next record if packets continue; None if the flow has ended."""


class Watch:
    """Stores the last details of the flow on display."""

    def __init__(self) -> None:
        self._last: Details | None = None

    def look(self, flow_id: int | None, source: DetailSource, then: FlowSource | None = None,
             lookups: Lookups = NO_LOOKUPS) -> Details | None:
        """The flow's details, or its last ones if it has left; None if none are requested or it was never there.

        Args:
            then: the flows at the page's time, if that is not now; used for a flow without stored details.
            lookups: what is known about addresses.
        """
        if flow_id is None:
            self._last = None
            return None
        columns = source.columns
        slots = np.flatnonzero((columns["flow_id"] == np.uint64(flow_id)) & source.visible)
        if len(slots):
            self._last = _details(int(slots[0]), source, lookups)
        elif self._last is not None and self._last.row.flow_id == flow_id:
            self._last = replace(self._last, gone=True)
        else:
            self._last = None
        return self._last or (None if then is None else _of_then(flow_id, then, lookups))


def _of_then(flow_id: int, then: FlowSource, lookups: Lookups) -> Details | None:
    slots = np.flatnonzero((then.columns["flow_id"] == np.uint64(flow_id)) & then.visible)
    if not len(slots):
        return None
    then_ms = (then.now_ns + then.unix_offset_ns) // 1_000_000
    return replace(_with_others(int(slots[0]), then, lookups), gone=True, then_ms=then_ms)


def _with_others(slot: int, source: FlowSource, lookups: Lookups) -> Details:
    """The flow, its reverse flow, and its packets at other Observation Points."""
    columns = source.columns
    whole = measured(source, lookups)
    points = [other for other in _same_packets(columns, slot) if source.visible[other]]
    reverse = _reverse(columns, slot, source)
    [row] = flow_rows(whole, np.array([slot]))
    return Details(
        row=row,
        reverse=next(iter(flow_rows(whole, np.array([reverse], np.int64))), None) if reverse is not None else None,
        points=flow_rows(whole, np.array(points[:MOST_POINTS], np.int64)),
        other_ifindex=int(columns["other_ifindex"][slot]) & OPPOSITE - 1,
    )


def _details(slot: int, source: DetailSource, lookups: Lookups) -> Details:
    offset_ns = source.unix_offset_ns
    history, reporting = source.history(slot), source.reporting(slot)
    return replace(
        _with_others(slot, source, lookups),
        rates=tuple(octets / max(length_ns, 1) * 1e9 for length_ns, octets in history),
        history=_history(slot, source, lookups),
        rates_s=sum(length_ns for length_ns, _ in history) / 1e9,
        flags=tuple(((at_ns + offset_ns) // 1_000_000, bits) for at_ns, bits in source.flags(slot)),
        records=reporting.records,
        reported_packets=reporting.packets,
        reported_ms=(reporting.at_ns + offset_ns) // 1_000_000 if reporting.records else None,
        due_ms=None if reporting.due_ns is None else (reporting.due_ns + offset_ns) // 1_000_000,
        record=_record(slot, source, reporting),
    )


def _history(slot: int, source: DetailSource, lookups: Lookups) -> TrafficHistory:
    """What came in and went out, of the flow and its reverse flow."""
    columns, reverse = source.columns, _reverse(source.columns, slot, source)
    one = np.array([slot])
    comes_in = bool(networked(ColumnsAt(columns, one), lookups.networks, lookups.here)[REMOTE_IS_SOURCE][0])
    other = one[:0] if reverse is None else np.array([reverse])
    return flows_history(source, *((one, other) if comes_in else (other, one)))


def _record(slot: int, source: DetailSource, reporting: Reporting) -> FlowRecords | None:
    """The Flow Record as it would be now; of an ended flow its record, if it was the only one."""
    columns = source.columns
    record = np.zeros(1, REPORTED_RECORD_DTYPE if reports(columns) else FLOW_RECORD_DTYPE)
    ended = columns["end_reason"][slot] != 0
    if ended and reporting.records > 1:
        return None  # The values of the last record are not stored.
    for name in (record.dtype.names or ()):
        if name in FLOW_COLUMN_DTYPES:
            record[name] = columns[name][slot]
    record["end_reason"] = columns["end_reason"][slot] or EndReason.ACTIVE_TIMEOUT
    for name, reported in (("packet", reporting.packets), ("octet", reporting.octets)):
        record[f"{name}_delta"] = int(columns[f"{name}_total"][slot]) - (0 if ended else reported)
    for name, column in _TIMES.items():
        record[f"{name}_ms"] = (int(columns[column][slot]) + source.unix_offset_ns) // 1_000_000
    for name in ("syn", "fin", "rst"):
        record[f"{name}_ms"] = event_ms(columns[f"{name}_ns"][slot], source.unix_offset_ns)
    return record


def _like(columns: FlowColumns, values: dict[str, int], source: tuple[int, int], destination: tuple[int, int]) -> Slots:
    """Slots of flows with these values and addresses."""
    same = np.ones(len(columns["flow_id"]), np.bool_)
    for name, value in values.items():
        same &= columns[name] == value
    slots = np.flatnonzero(same)
    for name, words in (("source_address", source), ("destination_address", destination)):
        high, low = address_words(ColumnsAt(columns, slots), name)
        slots = slots[(high == np.uint64(words[0])) & (low == np.uint64(words[1]))]
    return slots


def _words(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big")


def _same_packets(columns: FlowColumns, slot: int) -> list[int]:
    """Flows of the same conversation and direction at other Observation Points."""
    values = {name: int(columns[name][slot])
              for name in ("source_port", "destination_port", "protocol", "ip_version", "kind")}
    ends = (_words(bytes(columns[name][slot])) for name in ("source_address", "destination_address"))
    return [int(other) for other in _like(columns, values, *ends)
            if _point(columns, other) != _point(columns, slot) and _may_share_packets(columns, slot, other)]


def _point(columns: FlowColumns, slot: int) -> tuple[int, int]:
    return int(columns["ifindex"][slot]), int(columns["direction"][slot])


def _tunnel(columns: FlowColumns, slot: int) -> tuple[int, int]:
    return int(columns["tunnel"][slot]), int(columns["tunnel_id"][slot])


def _may_share_packets(columns: FlowColumns, slot: int, other: int) -> bool:
    """Whether they are in the same tunnel, or one is outside, on another interface (the tunnel's device)."""
    tunnel, theirs = _tunnel(columns, slot), _tunnel(columns, other)
    apart = bool(columns["ifindex"][slot] != columns["ifindex"][other])
    return tunnel == theirs or (apart and (not tunnel[0] or not theirs[0]))


def _reverse(columns: FlowColumns, slot: int, source: FlowSource) -> int | None:
    """The reverse flow: preferably in the same tunnel, live, at the same interface and VLAN, and no duplicate."""
    key = {name: int(columns[name][slot]) for name in (
        "source_port", "destination_port", "protocol", "ip_version", "kind")}
    if key["kind"] == Kind.AGGREGATE:
        return None
    icmp = _ICMP_REPLIES.get(key["protocol"])
    if icmp is None:
        key["source_port"], key["destination_port"] = key["destination_port"], key["source_port"]
    else:
        answer = icmp.get(key["destination_port"] >> 8)
        if answer is None:
            return None
        key["destination_port"] = answer << 8
    ends = [_words(bytes(columns[name][slot])) for name in ("destination_address", "source_address")]
    candidates = [int(other) for other in _like(columns, key, ends[0], ends[1])
                  if other != slot and source.visible[other] and _may_share_packets(columns, slot, int(other))]

    def merit(other: int) -> tuple[bool, bool, bool, bool, bool, int]:
        here = bool(columns["ifindex"][other] == columns["ifindex"][slot])
        vlan = all(columns[name][other] == columns[name][slot] for name in ("vlan_id", "customer_vlan_id"))
        return (_tunnel(columns, other) == _tunnel(columns, slot), columns["end_reason"][other] == 0, here,
                here and vlan, not columns["duplicate"][other], int(columns["flow_id"][other]))

    return max(candidates, key=merit, default=None)
