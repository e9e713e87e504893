"""Biflows in plain Python, for the screen's tests; no code of flowtop's."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence

from flowtop.model.rows import FlowRow, Ways
from tests.tui.fake_groups import SUMS

WAY_FIELDS: dict[str, Callable[[FlowRow], float]] = {
    "rate": lambda row: row.octet_rate, "rate_10s": lambda row: row.octet_rate_10s,
    "rate_60s": lambda row: row.octet_rate_60s, "bytes": lambda row: row.octet_total,
    "packets": lambda row: row.packet_total}
"""What each way has a column of, by id of the column of both."""


def _ends(row: FlowRow) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    return (row.source_address, row.source_port), (row.destination_address, row.destination_port)


def conversation(row: FlowRow) -> Hashable:
    """What both ways have in common; duplicates, ICMP and sums stay alone or among themselves."""
    alone = row.flow_id if row.kind or row.protocol in (1, 58) else 0
    return tuple(sorted(_ends(row))), row.protocol, row.kind, row.duplicate, alone


def biflow_id(row: FlowRow) -> int:
    """The flow_id of the biflow that a flow is in."""
    return zlib.crc32(repr(conversation(row)).encode()) | 1 << 41


def biflows(flows: Sequence[FlowRow], passing: Sequence[FlowRow], openers: Collection[int] = ()) -> list[FlowRow]:
    """Rows of the biflows of which a flow passes. Who is in `openers` began; else who was seen first, else who sends
    to the lower port."""
    together: dict[Hashable, list[FlowRow]] = defaultdict(list)
    for row in flows:
        together[conversation(row)].append(row)
    wanted = {conversation(row) for row in passing}
    return [_biflow(rows, openers) for key, rows in together.items() if key in wanted]


def _biflow(rows: list[FlowRow], openers: Collection[int]) -> FlowRow:
    ways = sorted(rows, key=lambda row: (row.flow_id not in openers, row.start_ms, row.destination_port))
    forward, reverse = ways[0], next((row for row in ways if _ends(row) != _ends(ways[0])), None)
    both = [forward] if reverse is None else [forward, reverse]
    sums = {name: sum(getattr(row, name) for row in both) for name in SUMS}
    first, last = min(row.start_ms for row in both), max(row.end_ms for row in both)
    return forward._replace(**sums | {
        "flow_id": biflow_id(forward), "flows": len(both), "start_ms": first, "end_ms": last,
        "age_s": (last - first) / 1000, "end_reason": min(row.end_reason for row in both),
        "closing": any(row.closing for row in both),
        "ways": Ways(forward, reverse, forward.flow_id in openers)})


def way_value(row: FlowRow, column_id: str) -> float:
    """What a column of one way (`bytes_forward`) sorts by; 0 of a way that was not seen."""
    field, _, way = column_id.rpartition("_")
    assert row.ways is not None
    one = row.ways.forward if way == "forward" else row.ways.reverse
    return 0 if one is None else WAY_FIELDS[field](one)


def answered(flows: Sequence[FlowRow], every: int = 3, later_ms: int = 1) -> list[FlowRow]:
    """The flows, and the other way of all but each `every`-th: a third of their rate, so much later."""
    answers = [row._replace(
        flow_id=row.flow_id + 5_000, source_address=row.destination_address, source_port=row.destination_port,
        destination_address=row.source_address, destination_port=row.source_port, direction=1 - row.direction,
        start_ms=row.start_ms + later_ms, **{name: getattr(row, name) / 3 for name in SUMS if "rate" in name},
        **{name: getattr(row, name) // 3 for name in SUMS if "rate" not in name})
        for number, row in enumerate(flows) if number % every]
    return [*flows, *answers]
