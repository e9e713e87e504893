"""Counting from a mark, through the real flow table: against what each flow was given since, added up by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from tests.unit.factories import SECOND, START_NS, batch, counters, key

PACKETS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), max_size=8)
"""(source port, packets) of one tick."""


def given_to(table: FlowTable, second: int, packets: list[tuple[int, int]]) -> None:
    now_ns = START_NS + second * SECOND
    table.accumulate(batch([(key(source_port=port), counters(n, 100 * n, now_ns)) for port, n in dict(packets).items()],
                           now_ns))
    table.close_tick()


def totals(answerer: Answerer, table: FlowTable, **query: object) -> dict[int, tuple[int, int]]:
    rows = answerer.answer(Query(limit=None, **query), table).rows  # type: ignore[arg-type]
    return {row.source_port: (row.packet_total, row.octet_total) for row in rows}


@settings(deadline=None, max_examples=60)
@given(before=st.lists(PACKETS, max_size=3), after=st.lists(PACKETS, max_size=3))
def test_counts_what_came_since(before: list[list[tuple[int, int]]], after: list[list[tuple[int, int]]]) -> None:
    table, answerer = FlowTable(TableConfig(), np.random.default_rng(1)), Answerer()
    life: dict[int, int] = {}
    since: dict[int, int] = {}
    for second, packets in enumerate(before):
        given_to(table, second, packets)
        for port, n in dict(packets).items():
            life[port] = life.get(port, 0) + n
    given_to(table, len(before), [])
    assert set(totals(answerer, table, mark=7).values()) <= {(0, 0)}, "nothing yet"
    for second, packets in enumerate(after):
        given_to(table, len(before) + 1 + second, packets)
        for port, n in dict(packets).items():
            life[port] = life.get(port, 0) + n
            since[port] = since.get(port, 0) + n
    assert totals(answerer, table, mark=7) == {port: (since.get(port, 0), 100 * since.get(port, 0)) for port in life}
    grouped = answerer.answer(Query(limit=None, mark=7, group=("protocol",)), table).rows
    assert [row.packet_total for row in grouped] == ([sum(since.values())] if life else [])
    assert totals(answerer, table) == {port: (n, 100 * n) for port, n in life.items()}, "the table knows nothing of it"


def test_sorts_by_what_came_since_and_filters_by_life() -> None:
    table, answerer = FlowTable(TableConfig()), Answerer()
    given_to(table, 0, [(1, 900), (2, 5)])
    answerer.answer(Query(mark=1), table)
    given_to(table, 1, [(1, 1), (2, 3), (3, 2)])
    rows = answerer.answer(Query(mark=1, sort="packets"), table).rows
    assert [(row.source_port, row.packet_total) for row in rows] == [(2, 3), (3, 2), (1, 1)]
    rows = answerer.answer(Query(mark=1, filter=compile_filter("packets > 100")), table).rows
    assert [(row.source_port, row.packet_total) for row in rows] == [(1, 1)]


def test_a_new_number_is_a_new_mark_and_a_slot_used_again_is_another_flow() -> None:
    table, answerer = FlowTable(TableConfig(idle_timeout_s=1, linger_s=0)), Answerer()
    given_to(table, 0, [(1, 50)])
    answerer.answer(Query(mark=1), table)
    given_to(table, 10, [])  # flow 1 ends and leaves
    given_to(table, 11, [])
    given_to(table, 12, [(2, 4)])
    assert len(table.columns["flow_id"]) == 1, "port 2 has its slot"
    assert totals(answerer, table, mark=1) == {2: (4, 400)}
    assert totals(answerer, table, mark=2) == {2: (0, 0)}
