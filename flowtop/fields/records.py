"""A flow as JSON members: IANA element names and plain values, the same of rows on view and of Flow Records."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from flowtop.fields.groups import group_fields
from flowtop.fields.registry import MEASURES, MEMBERS
from flowtop.model.elements import ELEMENTS
from flowtop.model.kinds import Kind
from flowtop.model.record import FlowRecords
from flowtop.model.rows import NO_MORE, FlowRow, FlowValues, Ways
from flowtop.text.lookups import Lookups

_FLOWS = "deltaFlowCount"
_ARBITRARY, _INITIATOR = 0, 1
"""biflowDirection (RFC 5103 section 6.3)."""


def iso_time(unix_ms: int) -> str:
    """Milliseconds since 1970 UTC as RFC 3339 has it."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flow_names() -> tuple[str, ...]:
    """Every key that a flow may have, in column order of CSV."""
    return tuple(MEMBERS)


def group_names() -> tuple[str, ...]:
    """What a group has behind the members of its fields."""
    return (_FLOWS, *(name for name, member in MEMBERS.items() if member.of_groups))


def biflow_names() -> tuple[str, ...]:
    """What a biflow has behind the keys of its flow from the initiator."""
    return ("biflowDirection", *(_reversed(name) for name, member in MEMBERS.items() if member.both_ways))


def key_table() -> list[tuple[str, str, str]]:
    """Of every key of a flow: name, number of the Information Element ("-": IANA has none), and one sentence."""
    found = []
    for name, member in MEMBERS.items():
        element = ELEMENTS.get(name)
        found.append((name, str(element.number) if element else "-", member.doc or (element.doc if element else "")))
    return found


def flow_record(flow: FlowValues, lookups: Lookups) -> dict[str, Any]:
    """One flow, of a row or of a Flow Record.

    An aggregate entry (map full) has no addresses and no ports. What is not known of a flow has no key.
    """
    aggregate = flow.kind == Kind.AGGREGATE
    found: dict[str, Any] = {}
    for name, member in MEMBERS.items():
        if aggregate and member.of_packets:
            continue
        value = member.value(flow, lookups)
        if value is not None:
            found[name] = value
    return found


def group_record(row: FlowRow, group: tuple[str, ...], lookups: Lookups) -> dict[str, Any]:
    """One group: what its flows have in common, then sums. A group of aggregates has no member for what they hide."""
    found: dict[str, Any] = {}
    for field, key in zip(group_fields(group), row.group, strict=True):
        found |= field.values(key, lookups)
    found[_FLOWS] = row.flows
    for name, member in MEMBERS.items():
        if member.of_groups:
            value = member.value(row, lookups)
            if value is not None:
                found[name] = value
    return found


def biflow_record(ways: Ways, lookups: Lookups) -> dict[str, Any]:
    """One biflow as RFC 5103 has it: the flow from the initiator, and the reverse elements of the flow to it.

    One of which only one way was seen has none of these: it is a flow as any other.
    """
    found = flow_record(ways.forward, lookups)
    if ways.reverse is None:
        return found
    back = flow_record(ways.reverse, lookups)
    found["biflowDirection"] = _INITIATOR if ways.opened else _ARBITRARY
    return found | {_reversed(name): value for name, value in back.items() if MEMBERS[name].both_ways}


def _reversed(name: str) -> str:
    return f"reverse{name[0].upper()}{name[1:]}"


@lru_cache(maxsize=4)
def _values_of(names: tuple[str, ...]) -> Callable[..., FlowValues]:
    """A tuple with these attributes."""
    return cast(Callable[..., FlowValues], namedtuple("values", names))


def plain_records(records: FlowRecords, lookups: Lookups) -> Iterator[dict[str, Any]]:
    """Each Flow Record (FLOW_RECORD_DTYPE) as `flow_record` has it; a number takes the place of a name that is not
    known."""
    names = records.dtype.names or ()
    make = _values_of((*names, "more"))
    measures = {field_id: measure.records(records).tolist() for field_id, measure in MEASURES.items()
                if measure.records is not None}
    more = [dict(zip(measures, values, strict=True)) for values in zip(*measures.values(), strict=True)] if measures \
        else [NO_MORE] * len(records)
    for values in zip(*(records[name].tolist() for name in names), more, strict=True):
        yield flow_record(make(*values), lookups)
