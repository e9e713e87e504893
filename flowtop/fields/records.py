"""A flow as JSON members: IANA element names and plain values. Rows and Flow Records give the same members."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from flowtop.fields.groups import group_fields
from flowtop.fields.networks import networked
from flowtop.fields.registry import KNOWN_MEMBERS, MEASURES, MEMBERS
from flowtop.model.elements import ELEMENTS, reverse_name
from flowtop.model.kinds import Kind
from flowtop.model.record import FlowRecords
from flowtop.model.reported import REPORTED
from flowtop.model.rows import NO_MORE, FlowRow, FlowValues, Ways
from flowtop.text.lookups import Lookups

_FLOWS = "deltaFlowCount"
_ARBITRARY, _INITIATOR = 0, 1
"""biflowDirection (RFC 5103 section 6.3)."""


def iso_time(unix_ms: int) -> str:
    """Milliseconds since 1970 UTC in the format of RFC 3339."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flow_names() -> tuple[str, ...]:
    """Every key that a flow may have, in the column order of CSV."""
    return (*MEMBERS, _FLOWS)


def flow_types() -> dict[str, type]:
    """What each key of `flow_names` holds: int, str, bool, or datetime (milliseconds since 1970 UTC)."""
    return {name: (MEMBERS[name].holds if name in MEMBERS else None) or _type_of_element(name) for name in flow_names()}


def _type_of_element(name: str) -> type:
    kind = ELEMENTS[name].type if name in ELEMENTS else "string"
    return datetime if kind == "dateTimeMilliseconds" else int if kind.startswith("unsigned") else str


def group_names() -> tuple[str, ...]:
    """Keys of a group, after the members of its group fields."""
    return (_FLOWS, *(name for name, member in MEMBERS.items() if member.of_groups))


def biflow_names() -> tuple[str, ...]:
    """Keys of a biflow, after those of its flow from the initiator."""
    return ("biflowDirection", *(reverse_name(name) for name, member in MEMBERS.items() if member.both_ways))


def key_table() -> list[tuple[str, str, str]]:
    """For every key of a flow: name, number of the Information Element ("-": not an IANA element), and one sentence."""
    rows = []
    for name, member in MEMBERS.items():
        element = ELEMENTS.get(name)
        rows.append((name, str(element.number) if element else "-", member.doc or (element.doc if element else "")))
    element = ELEMENTS[_FLOWS]
    return [*rows, (_FLOWS, str(element.number), "With -l: how many flows the exporter reports in this one.")]


def flow_record(flow: FlowValues, lookups: Lookups) -> dict[str, Any]:
    """The members of one flow, from a row or a Flow Record.

    An aggregate entry (map full) has no addresses and no ports. Values that are not known have no key.
    """
    aggregate = flow.kind == Kind.AGGREGATE
    record: dict[str, Any] = {}
    for name, member in KNOWN_MEMBERS[bool(lookups.texts), lookups.networks is not None].items():
        if aggregate and member.of_packets:
            continue
        value = member.value(flow, lookups)
        if value is not None:
            record[name] = value
    if flow.flow_count:
        record[_FLOWS] = flow.flow_count
    return record


def group_record(row: FlowRow, group: tuple[str, ...], lookups: Lookups) -> dict[str, Any]:
    """The members of one group: its key, then sums. Aggregates have no member for a field that they do not keep."""
    record: dict[str, Any] = {}
    for field, key in zip(group_fields(group), row.group, strict=True):
        record |= field.values(key, lookups)
    record[_FLOWS] = row.flows
    for name, member in MEMBERS.items():
        if member.of_groups:
            value = member.value(row, lookups)
            if value is not None:
                record[name] = value
    return record


def biflow_record(ways: Ways, lookups: Lookups) -> dict[str, Any]:
    """The members of one biflow (RFC 5103): those of the flow from the initiator, then reverse elements.

    When only one direction was seen there are no reverse elements and no biflowDirection.
    """
    record = flow_record(ways.forward, lookups)
    if ways.reverse is None:
        return record
    back = flow_record(ways.reverse, lookups)
    record["biflowDirection"] = _INITIATOR if ways.opened else _ARBITRARY
    return record | {reverse_name(name): value for name, value in back.items()
                     if name in MEMBERS and MEMBERS[name].both_ways}


@lru_cache(maxsize=4)
def _values_of(names: tuple[str, ...]) -> Callable[..., FlowValues]:
    """A named tuple class with these attributes."""
    return cast(Callable[..., FlowValues], namedtuple("values", names))


def plain_records(records: FlowRecords, lookups: Lookups) -> Iterator[dict[str, Any]]:
    """Each Flow Record (FLOW_RECORD_DTYPE) as `flow_record` gives it; names that are not known are shown as numbers."""
    names = records.dtype.names or ()
    make = _values_of((*names, "more"))
    reported = REPORTED[0] in names
    columns = networked(records, lookups.networks, lookups.here)
    measures = {field_id: measure.records(columns if measure.of_networks else records).tolist()
                for field_id, measure in MEASURES.items()
                if measure.records is not None and (reported or not measure.reported)
                and (lookups.networks is not None or not measure.of_networks)}
    more = [dict(zip(measures, values, strict=True)) for values in zip(*measures.values(), strict=True)] if measures \
        else [NO_MORE] * len(records)
    for values in zip(*(records[name].tolist() for name in names), more, strict=True):
        yield flow_record(make(*values), lookups)
