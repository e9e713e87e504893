"""Selected flows, groups or biflows as plain Python values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowtop.fields.field import BESIDE, Beside, GroupField, Key, key_name
from flowtop.model.flows import INTO, OUT_OF, FlowSource, Slots, event_ms
from flowtop.model.kinds import TCP_CLOSING_BITS
from flowtop.model.rows import NO_MORE, FlowRow, Sides, Volume, Ways
from flowtop.query.biflows import ChosenBiflows
from flowtop.query.measures import measures_at
from flowtop.text.lookups import Lookups

_CLOSING_BITS = np.uint16(TCP_CLOSING_BITS)

_COPIED = frozenset(FlowRow._fields) - {
    "closing", "octet_rate", "octet_rate_10s", "octet_rate_60s", "packet_rate", "packet_rate_10s", "packet_rate_60s",
    "start_ms", "end_ms", "age_s", "idle_s", "ended_s", "syn_ms", "fin_ms", "rst_ms",
    "flows", "group", "ways", "sides", "shares", "more"}


Totals = tuple[int, int, int]
"""Octets that rows have their share of: in the last tick, over 10 s and 60 s."""
_NONE: Totals = (0, 0, 0)


def flow_rows(source: FlowSource, slots: Slots, totals: Totals = _NONE) -> tuple[FlowRow, ...]:
    """The flows in these slots, in order.

    Args:
        source: `measures.measured`.
        totals: for FlowRow.shares.
    """
    if not len(slots):
        return ()
    fields = _values(source, slots, totals)
    fields["flows"], fields["group"], fields["ways"] = [1] * len(slots), [()] * len(slots), [None] * len(slots)
    fields["sides"] = [None] * len(slots)
    return _rows(fields)


def group_rows(source: FlowSource, group: tuple[GroupField, ...], lookups: Lookups,
               totals: Totals = _NONE, beside: Sequence[Beside] | None = None) -> tuple[FlowRow, ...]:
    """All groups of the source of a `grouping.Groups` with these fields, in its order; `beside` as from there."""
    slots = np.arange(len(source.visible))
    fields = _values(source, slots, totals)
    fields["flows"] = source.columns["flows"].tolist()
    keys = [_keys(source, position, field.parts) for position, field in enumerate(group)]
    fields["group"] = list(zip(*keys, strict=True))
    fields["ways"], fields["sides"] = [None] * len(slots), _sides(source)
    facts: dict[str, list[Any]] = {}
    for position, field in enumerate(group):
        if field.facts is not None:
            arrays = tuple(source.columns[key_name(position, part)] for part in range(field.parts))
            facts |= {name: values.tolist() for name, values in field.facts(arrays, lookups).items()}
    if facts:
        fields["more"] = [{**more, **dict(zip(facts, values, strict=True))} for more, values in zip(
            fields["more"], zip(*facts.values(), strict=True), strict=True)]
    if beside is not None:
        fields["more"] = [{**more, BESIDE: one} for more, one in zip(fields["more"], beside, strict=True)]
    return _rows(fields)


def biflow_rows(chosen: ChosenBiflows, totals: Totals = _NONE) -> tuple[FlowRow, ...]:
    """All of these biflows, in order."""
    slots = np.arange(len(chosen.source.visible))
    fields = _values(chosen.source, slots, totals)
    fields["flows"], fields["group"] = chosen.source.columns["flows"].tolist(), [()] * len(slots)
    ways = flow_rows(chosen.ways, np.arange(2 * len(slots)))
    fields["ways"] = [Ways(forward, reverse if seen else None, *known) for forward, reverse, seen, *known in zip(
        ways[::2], ways[1::2], chosen.seen[:, 1].tolist(), chosen.opened.tolist(), chosen.tags_differ.tolist(),
        chosen.guessed.tolist(), strict=True)]
    fields["sides"] = _sides(chosen.source)
    return _rows(fields)


def _sides(source: FlowSource) -> list[Sides]:
    """What came in and what went out of each group or biflow."""
    ways = []
    for prefix in (INTO, OUT_OF):
        columns = [source.columns[prefix + name] for name in (
            "octet_delta", "octets_10s", "octets_60s", "packet_delta", "octet_total", "packet_total")]
        spans = source.tick_s, source.window_10s_s, source.window_60s_s, source.tick_s
        rates = [column / span for column, span in zip(columns, spans, strict=False)]
        ways.append(map(Volume._make, zip(*(column.tolist() for column in (*rates, *columns[4:])), strict=True)))
    return list(map(Sides._make, zip(*ways, strict=True)))


def _keys(source: FlowSource, position: int, parts: int) -> list[Key]:
    columns = [source.columns[key_name(position, part)].tolist() for part in range(parts)]
    return list(zip(*columns, strict=True))


def _rows(fields: dict[str, list[Any]]) -> tuple[FlowRow, ...]:
    return tuple(map(FlowRow._make, zip(*(fields[name] for name in FlowRow._fields), strict=True)))


def _values(source: FlowSource, slots: Slots, totals: Totals) -> dict[str, list[Any]]:
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
    shares = (columns[name][slots] / max(total, 1) for name, total in zip(
        ("octet_delta", "octets_10s", "octets_60s"), totals, strict=True))
    plain["shares"] = list(zip(*(share.tolist() for share in shares), strict=True))
    return plain


def _more(source: FlowSource, slots: Slots) -> list[Any]:
    """What fields measure, a mapping a row."""
    values = {name: column.tolist() for name, column in measures_at(source, slots).items()}
    if not values:
        return [NO_MORE] * len(slots)
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
