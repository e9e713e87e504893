"""A direction that an exporter has not told is told as that: on the screen, in filters, JSON, lines and sums."""

from __future__ import annotations

import numpy as np

from flowtop.fields.columns import Wording
from flowtop.fields.records import flow_record, plain_records
from flowtop.fields.registry import COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from tests.unit.factories import START_NS, batch, counters, key

UNKNOWN = 2
NAMES = Lookups({2: "192.0.2.1/7 if2"})


def table() -> FlowTable:
    found = FlowTable(TableConfig(dedupe="off"))
    found.update(batch([(key(ifindex=2, direction=direction), counters(1, 100 * 10**direction, START_NS))
                        for direction in (0, 1, UNKNOWN)], START_NS + 1))
    return found


def test_on_the_screen_in_filters_and_in_json() -> None:
    rows = {row.direction: row for row in Answerer().answer(Query(limit=None), table(), NAMES).rows}
    cells = {direction: COLUMNS["direction"].text(row, Wording(), NAMES) for direction, row in rows.items()}
    assert cells == {0: "←", 1: "→", UNKNOWN: "-"}
    assert [flow_record(rows[direction], NAMES).get("flowDirection") for direction in (0, 1, UNKNOWN)] == [0, 1, None]
    for direction, row in rows.items():
        term = COLUMNS["direction"].term(row, NAMES)
        passing = Answerer().answer(Query(limit=None, filter=compile_filter(term)), table(), NAMES).rows
        assert (term, [one.direction for one in passing]) == (
            f"dir {['in', 'out', 'unknown'][direction]}", [direction])


def test_it_counts_as_in() -> None:
    totals = table().totals
    assert (totals.tick_ingress_octets, totals.tick_egress_octets) == (100 + 10_000, 1000)


def test_lines_do_not_tell_it() -> None:
    records = np.zeros(3, FLOW_RECORD_DTYPE)
    records["direction"], records["ip_version"] = [0, 1, UNKNOWN], 4
    assert [record.get("flowDirection") for record in plain_records(records, NO_LOOKUPS)] == [0, 1, None]


def test_points_of_neighbouring_numbers_are_not_confused() -> None:
    """An interface in no known direction is not the next one, coming in."""
    mark = FlowTable(TableConfig(dedupe="mark"))
    mark.update(batch([(key(ifindex=2, direction=UNKNOWN), counters(1, 100, START_NS)),
                       (key(ifindex=3, direction=0), counters(1, 100, START_NS + 5))], START_NS + 9))
    assert mark.totals.duplicate_packets == 1
