"""Fields that only exporters report: when their columns are shown, in the table, the past and Flow Records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flowtop.fields.columns import Wording
from flowtop.fields.fitting import NO_DISTINCTIONS, fit
from flowtop.fields.owners import OWNED
from flowtop.fields.registry import COLUMNS, FIELDS, MEASURES
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.flows import egress_ifindex, ingress_ifindex, reports
from flowtop.model.kinds import UNKNOWN_DIRECTION, Direction
from flowtop.model.record import FLOW_RECORD_DTYPE, REPORTED_RECORD_DTYPE
from flowtop.model.reported import OPPOSITE, REPORTED, REPORTED_DTYPE, is_absent, last_given, packed_address, update
from flowtop.query.answer import Answerer
from flowtop.query.pager import Freeze
from flowtop.query.past import Past
from flowtop.query.query import Query
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from tests.unit.factories import SECOND, START_NS, batch, counters, key
from tests.unit.query.test_past import facts

REPORTS = [id_ for id_, column in COLUMNS.items()
           if column.of_reports and not MEASURES[id_].of_networks and "collector" in FIELDS[id_].known
           and (id_ not in {made.id for made in OWNED} or id_ in REPORTED)]


def reported(**values: Any) -> np.ndarray[Any, np.dtype[np.void]]:
    found = np.zeros(1, REPORTED_DTYPE)
    for name, value in values.items():
        found[name] = np.void(value) if isinstance(value, bytes) else value
    return found


def table(*values: dict[str, Any], tick: int = 0, into: FlowTable | None = None) -> FlowTable:
    """A table with a flow for each of the values; None: nothing is reported of it."""
    found = into or FlowTable(TableConfig())
    now = START_NS + (tick + 1) * SECOND
    made = batch([(key(source_port=port), counters(last_ns=now)) for port in range(1, len(values) + 1)], now)
    rows = np.concatenate([reported(**each) for each in values])
    found.update(replace(made, reported=rows, other_ifindexes=np.zeros(len(values), np.uint32)))
    return found


def test_captures_of_packets_take_no_memory_for_reports() -> None:
    live = FlowTable(TableConfig())
    live.update(batch([(key(), counters())], START_NS + SECOND))
    before = live.nbytes
    assert not reports(live.columns) and all(is_absent(live.columns[name]) for name in REPORTED)
    assert live.nbytes == before
    [row] = Answerer().answer(Query(), live).rows
    assert not {name for name, measure in MEASURES.items() if measure.reported} & row.more.keys()
    assert live.end_all(START_NS + 2 * SECOND).dtype == FLOW_RECORD_DTYPE
    moment = Freeze(None).moment(1, live, facts(live, 1))
    assert moment is not None and is_absent(moment.source.columns["source_as"])


@pytest.mark.parametrize("column", REPORTS)
def test_a_column_is_shown_once_a_flow_has_a_value(column: str) -> None:
    values: dict[str, dict[str, Any]] = {"mpls_label": {"mpls_top_label": 0x10}}
    is_address = REPORTED_DTYPE[column].kind == "V" if column in REPORTED else False
    value = values.get(column, {column: packed_address(b"\xc0\0\2\1") if is_address else 3})
    rows = Answerer().answer(Query(), table(value)).rows
    distinctions = NO_DISTINCTIONS.with_rows(rows, tunnels=False)
    assert distinctions.reported == {column}
    ids = {each.id for each, _ in fit(600, names=["udp://127.0.0.1:2055"], distinctions=distinctions)}
    assert ids & set(REPORTS) == {column}
    narrow = fit(80, names=["udp://127.0.0.1:2055"], distinctions=distinctions)
    assert not {each.id for each, _ in narrow} & set(REPORTS)
    later = distinctions.with_rows(Answerer().answer(Query(), table({})).rows, tunnels=False)
    assert later.reported == {column}, "columns do not come and go"


def test_reports_stay_with_their_flow_when_the_table_grows_and_slots_are_used_again() -> None:
    metered = FlowTable(TableConfig(idle_timeout_s=5, linger_s=1))
    table(*({"source_as": port} for port in range(1, 3001)), into=metered)
    columns = metered.columns
    assert (columns["source_as"][metered.visible] == columns["source_port"][metered.visible]).all()
    for tick in (10, 20):
        metered.update(batch([], START_NS + tick * SECOND))
    now = START_NS + 30 * SECOND
    metered.update(batch([(key(source_port=port), counters(first_ns=now)) for port in range(5000, 7000)], now))
    assert not metered.columns["source_as"][metered.visible].any()


def test_the_past_has_reports() -> None:
    past, metered = Past(), FlowTable(TableConfig())
    metered.update(batch([(key(), counters())], START_NS + SECOND))
    past.remember(metered, facts(metered, 1))
    table({"source_as": 7}, {"source_as": 9}, tick=1, into=metered)
    past.remember(metered, facts(metered, 2))
    found = {tick: past.at(tick) for tick in (1, 2)}
    assert found[1] is not None and not reports(found[1][1].columns)
    assert found[2] is not None and sorted(found[2][1].columns["source_as"].tolist()) in ([0, 7, 9], [7, 9])
    for _, source in filter(None, found.values()):
        assert len(Answerer().answer(Query(limit=None), source).rows) == len(source.visible)


@pytest.mark.parametrize(("text", "expected"), [
    ("src as 7", [True, False]), ("not as 7", [False, True]), ("next_hop 192.0.2.0/24", [True, False]),
    ("nat 192.0.2.1", [False, False]), ("fw_event denied", [False, True]), ("app ssh", [False, True]),
    ("mpls_label 1", [False, True]), ("in_if if2", [True, True]), ("src_mask > 8", [True, False]),
])
def test_exports_are_filtered_by_reports(text: str, expected: list[bool]) -> None:
    lookups = Lookups({2: "if2"}, texts={"applications": {4: "ssh"}})
    records = np.zeros(2, REPORTED_RECORD_DTYPE)
    records["ifindex"], records["ip_version"] = 2, 4
    records["source_as"], records["source_mask"] = [7, 0], [24, 0]
    records["next_hop"][0] = np.void(packed_address(b"\xc0\0\2\1"))
    records["firewall_event"], records["application"], records["mpls_top_label"] = [0, 3], [0, 4], [0, 0x11]
    compiled = compile_filter(text, "records")
    assert compiled.record_mask(records, lookups).tolist() == expected
    assert len(compiled.record_mask(np.zeros(2, FLOW_RECORD_DTYPE), lookups)) == 2


@pytest.mark.parametrize(("direction", "other", "ingress", "egress"), [
    (Direction.INGRESS, 0, 5, 0), (Direction.INGRESS, 9, 5, 9), (Direction.EGRESS, 0, 0, 5),
    (Direction.EGRESS, 9, 9, 5), (UNKNOWN_DIRECTION, 0, 5, 0), (UNKNOWN_DIRECTION, 9, 5, 9),
    (UNKNOWN_DIRECTION, OPPOSITE, 0, 5),
    (UNKNOWN_DIRECTION, OPPOSITE | 9, 9, 5), (Direction.EGRESS, OPPOSITE, 5, 0), (Direction.INGRESS, OPPOSITE, 0, 5)])
def test_interfaces_of_both_sides(direction: int, other: int, ingress: int, egress: int) -> None:
    columns = np.zeros(1, REPORTED_RECORD_DTYPE)
    columns["direction"], columns["ifindex"], columns["other_ifindex"] = direction, 5, other
    assert (ingress_ifindex(columns).tolist(), egress_ifindex(columns).tolist()) == ([ingress], [egress])


def test_updates_and_the_last_value_given_against_plain_python() -> None:
    rng = np.random.default_rng(3)
    rows = np.zeros(300, REPORTED_DTYPE)
    for name in REPORTED:
        if rows[name].dtype.kind == "u":
            rows[name] = rng.integers(0, 3, 300)
    rows["next_hop"] = np.array([packed_address(bytes([0, 0, 0, value])) if value else bytes(16)
                                 for value in rng.integers(0, 3, 300).tolist()], "V16")
    groups = rng.integers(0, 40, 300)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    found = last_given(rows, order, starts)
    for name in REPORTED:
        expected = []
        for group in np.unique(groups).tolist():
            values = [value for value in rows[name][groups == group].tolist() if value not in (0, bytes(16))]
            expected.append(values[-1] if values else rows[name].dtype.type(0) if name != "next_hop" else bytes(16))
        if name not in ("bgp_next_hop", "post_nat_source", "post_nat_destination"):
            assert found[name].tolist() == expected, name
    both = update(rows[:150], rows[150:])
    assert both["source_as"].tolist() == [new or old for old, new in zip(
        rows["source_as"][:150].tolist(), rows["source_as"][150:].tolist(), strict=True)]


def test_a_page_of_no_lookups_shows_no_names() -> None:
    [row] = Answerer().answer(Query(), table({"application": 5})).rows
    assert COLUMNS["application"].cell(row, Wording(), NO_LOOKUPS, 11).strip() == ""

