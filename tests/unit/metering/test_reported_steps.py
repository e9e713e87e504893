"""Batches of many steps that have what exporters report: the same table as one batch after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.record import DESCRIBED_DTYPE, FlowBatch, Steps
from flowtop.model.reported import REPORTED_DTYPE
from tests.unit.factories import SECOND, START_NS, batch, counters, key

Row = tuple[int, int, int, int, int]
"""Step, source port, AS, next port of NAT, number of flows."""
ROWS: tuple[Row, ...] = (
    (0, 1, 64_500, 0, 3), (0, 2, 0, 0, 0), (1, 1, 0, 4_000, 4), (2, 3, 64_502, 1, 0), (2, 1, 64_501, 0, 0),
    (5, 2, 64_503, 0, 7), (6, 4, 0, 0, 0))
STEPS = 8


def parts(rows: tuple[Row, ...], *, reported: bool, described: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if reported:
        found["reported"] = np.zeros(len(rows), REPORTED_DTYPE)
        found["reported"]["source_as"] = [row[2] for row in rows]
        found["reported"]["post_nat_source_port"] = [row[3] for row in rows]
    if described:
        found["described"] = np.zeros(len(rows), DESCRIBED_DTYPE)
        found["described"]["flow_count"] = [row[4] for row in rows]
    return found


def made(rows: tuple[Row, ...], now_ns: int, **what: bool) -> FlowBatch:
    entries = [(key(source_port=row[1]), counters(1, 100, START_NS + row[0] * SECOND)) for row in rows]
    return replace(batch(entries, now_ns), **parts(rows, **what))


@pytest.mark.parametrize(("reported", "described"), [(True, False), (False, True), (True, True)])
def test_many_steps_at_once_are_single_steps(reported: bool, described: bool) -> None:
    what = {"reported": reported, "described": described}
    config = TableConfig(idle_timeout_s=1_000, active_timeout_s=1_000)
    one, other = (FlowTable(config, np.random.default_rng(0)) for _ in range(2))
    for table in (one, other):
        table.update(batch([], START_NS))
    times = START_NS + (np.arange(STEPS) + 1) * SECOND
    for step, now_ns in enumerate(times.tolist()):
        one.accumulate(made(tuple(row for row in ROWS if row[0] == step), now_ns, **what))
    rows = tuple(sorted(ROWS, key=lambda row: (row[1], row[0])))  # those of a key together and in order
    steps = Steps(times, np.array([row[0] for row in rows], np.int64))
    other.accumulate(replace(made(rows, int(times[-1]), **what), steps=steps))
    for name in ("packet_total", "octet_total", *(("source_as", "post_nat_source_port") if reported else ()),
                 *(("flow_count",) if described else ())):
        assert values(other, name) == values(one, name), name
    # By hand: port 1 has three packets, the last AS and NAT port that were given, and the sum of flows.
    assert values(other, "packet_total")[1] == 3
    if reported:
        assert values(other, "source_as") == {1: 64_501, 2: 64_503, 3: 64_502, 4: 0}
        assert values(other, "post_nat_source_port") == {1: 4_000, 2: 0, 3: 1, 4: 0}
    if described:
        assert values(other, "flow_count") == {1: 7, 2: 7, 3: 0, 4: 0}


def values(table: FlowTable, name: str) -> dict[int, int]:
    columns = table.columns
    return {int(columns["source_port"][slot]): int(columns[name][slot]) for slot in np.flatnonzero(table.visible)}
