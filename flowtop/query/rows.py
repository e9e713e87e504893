"""Selected flows, groups or biflows as plain Python values."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowtop.fields.field import GroupField, Key, key_name
from flowtop.model.flows import FlowSource, Slots, event_ms
from flowtop.model.kinds import TCP_CLOSING_BITS
from flowtop.model.rows import NO_MORE, FlowRow, Ways
from flowtop.query.biflows import ChosenBiflows
from flowtop.query.measures import measures_at

_CLOSING_BITS = np.uint16(TCP_CLOSING_BITS)

_COPIED = frozenset(FlowRow._fields) - {
    "closing", "octet_rate", "octet_rate_10s", "octet_rate_60s", "packet_rate", "packet_rate_10s", "packet_rate_60s",
    "start_ms", "end_ms", "age_s", "idle_s", "ended_s", "syn_ms", "fin_ms", "rst_ms",
    "flows", "group", "ways", "more"}


def flow_rows(source: FlowSource, slots: Slots) -> tuple[FlowRow, ...]:
    """The flows in these slots, in order.

    Args:
        source: `measures.measured`.
    """
    fields = _values(source, slots)
    fields["flows"], fields["group"], fields["ways"] = [1] * len(slots), [()] * len(slots), [None] * len(slots)
    return _rows(fields)


def group_rows(source: FlowSource, group: tuple[GroupField, ...]) -> tuple[FlowRow, ...]:
    """All groups of the source of a `grouping.Groups` with these fields, in its order."""
    slots = np.arange(len(source.visible))
    fields = _values(source, slots)
    fields["flows"] = source.columns["flows"].tolist()
    keys = [_keys(source, position, field.parts) for position, field in enumerate(group)]
    fields["group"] = list(zip(*keys, strict=True))
    fields["ways"] = [None] * len(slots)
    return _rows(fields)


def biflow_rows(chosen: ChosenBiflows) -> tuple[FlowRow, ...]:
    """All of these biflows, in order."""
    slots = np.arange(len(chosen.source.visible))
    fields = _values(chosen.source, slots)
    fields["flows"], fields["group"] = chosen.source.columns["flows"].tolist(), [()] * len(slots)
    ways = flow_rows(chosen.ways, np.arange(2 * len(slots)))
    fields["ways"] = [Ways(forward, reverse if seen else None, *known) for forward, reverse, seen, *known in zip(
        ways[::2], ways[1::2], chosen.seen[:, 1].tolist(), chosen.opened.tolist(), chosen.tags_differ.tolist(),
        strict=True)]
    return _rows(fields)


def _keys(source: FlowSource, position: int, parts: int) -> list[Key]:
    columns = [source.columns[key_name(position, part)].tolist() for part in range(parts)]
    return list(zip(*columns, strict=True))


def _rows(fields: dict[str, list[Any]]) -> tuple[FlowRow, ...]:
    return tuple(map(FlowRow._make, zip(*(fields[name] for name in FlowRow._fields), strict=True)))


def _values(source: FlowSource, slots: Slots) -> dict[str, list[Any]]:
    columns = source.columns
    fields = {name: columns[name][slots] for name in _COPIED}
    first_ns, last_ns = columns["first_ns"][slots], columns["last_ns"][slots]
    fields["closing"] = fields["tcp_control_bits"] & _CLOSING_BITS != 0
    fields["octet_rate"] = fields["octet_delta"] / source.tick_s
    fields["octet_rate_10s"] = columns["octets_10s"][slots] / source.window_10s_s
    fields["octet_rate_60s"] = columns["octets_60s"][slots] / source.window_60s_s
    fields["packet_rate"] = fields["packet_delta"] / source.tick_s
    fields["packet_rate_10s"] = columns["packets_10s"][slots] / source.window_10s_s
    fields["packet_rate_60s"] = columns["packets_60s"][slots] / source.window_60s_s
    fields["start_ms"] = (first_ns + source.unix_offset_ns) // 1_000_000
    fields["end_ms"] = (last_ns + source.unix_offset_ns) // 1_000_000
    for name in ("syn", "fin", "rst"):
        fields[f"{name}_ms"] = event_ms(columns[f"{name}_ns"][slots], source.unix_offset_ns)
    fields["age_s"] = (last_ns - first_ns) / 1e9
    fields["idle_s"] = (source.now_ns - last_ns) / 1e9
    since_report_s = (source.now_ns - columns["reported_ns"][slots]) / 1e9
    fields["ended_s"] = np.where(fields["end_reason"] != 0, since_report_s, 0.0)
    plain = {name: values.tolist() for name, values in fields.items()}
    plain["more"] = _more(source, slots)
    return plain


def _more(source: FlowSource, slots: Slots) -> list[Any]:
    """What fields measure, a mapping a row."""
    values = {name: column.tolist() for name, column in measures_at(source, slots).items()}
    if not values:
        return [NO_MORE] * len(slots)
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
