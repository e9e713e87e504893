"""Order, pages, anchors and held order; the oracle is Python's own stable sort of all rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.fields.registry import COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.model.flows import FLOW_COLUMN_DTYPES
from flowtop.model.kinds import Kind
from flowtop.model.owners import owner_id
from flowtop.model.rows import State
from flowtop.query.answer import Answerer
from flowtop.query.layout import sort_column
from flowtop.query.measures import measured
from flowtop.query.query import Query
from flowtop.text.lookups import Lookups
from tests.unit.factories import SECOND, START_NS, UNIX_OFFSET_NS, packed

DTYPE = np.dtype(list(FLOW_COLUMN_DTYPES.items()))


@dataclass
class Source:
    """A flow table at rest."""

    columns: npt.NDArray[Any]
    visible: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    tick_s: float = 2.0
    window_10s_s: float = 10.0
    window_60s_s: float = 20.0
    now_ns: int = START_NS + 100 * SECOND
    unix_offset_ns: int = UNIX_OFFSET_NS
    dedupes: bool = True
    then_ns: int | None = None

    def __post_init__(self) -> None:
        if not len(self.visible):
            self.visible = np.ones(len(self.columns), np.bool_)


def source(n: int, **columns: Any) -> Source:
    """n flows with ids from 1 in ascending slots, zero but for `columns`."""
    table = np.zeros(n, DTYPE)
    table["flow_id"] = np.arange(1, n + 1)
    table["ip_version"] = 4
    table["first_ns"] = table["last_ns"] = START_NS
    for name, values in columns.items():
        table[name] = values
    return Source(table)


def ids(answerer: Answerer, table: Source, **query: Any) -> list[int]:
    return [row.flow_id for row in answerer.answer(Query(**query), table).rows]


def in_order(table: Source, column: str, descending: bool) -> list[int]:
    """Every visible flow_id in the order that Query asks for, by Python's sort."""
    slots = np.flatnonzero(table.visible)
    keys = list(zip(*(key(measured(table).columns).tolist() for key in COLUMNS[column].sort), strict=True))
    by_id = sorted(slots.tolist(), key=lambda slot: int(table.columns["flow_id"][slot]))
    ordered = sorted(by_id, key=lambda slot: keys[slot], reverse=descending)
    if descending:  # reverse=True keeps ties in their order of appearance
        assert ordered == sorted(by_id, key=lambda slot: keys[slot], reverse=True)
    parent = (table.columns["kind"] == int(Kind.PARENT)).tolist()
    ordered = [slot for slot in ordered if not parent[slot]] + [slot for slot in ordered if parent[slot]]
    return [int(table.columns["flow_id"][slot]) for slot in ordered]


def scattered(n: int, seed: int, spread: int) -> Source:
    """Flows with random values, many of them equal, in random slots of which a fifth is empty."""
    rng = np.random.default_rng(seed)
    table = source(n)
    for name, dtype in FLOW_COLUMN_DTYPES.items():
        if dtype.kind in "uif" and name not in ("flow_id", "first_ns"):
            table.columns[name] = rng.integers(0, min(spread, 200), n) * (rng.random(n) < 0.5)
    table.columns["last_ns"] += START_NS
    table.columns["duplicate"] = rng.random(n) < 0.2
    table.columns["conversation"] = -1
    table.columns["ip_version"] = rng.choice([4, 6], n)
    hosts = [packed("10.0.0.1"), packed("10.0.0.2"), packed("2001:db8::1"), packed("::1")]
    for name in ("source_address", "destination_address"):
        table.columns[name] = np.array(hosts, "V16")[rng.integers(0, len(hosts), n)]
    table.columns["flow_id"] = rng.permutation(n) + 1
    table.visible = rng.random(n) < 0.8
    return table


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("descending", [True, False])
def test_pages_of_any_column_put_together_are_the_whole_order(column: str, descending: bool) -> None:
    table, answerer = scattered(700, 1, 20), Answerer()
    wanted = in_order(table, column, descending)
    pages = [ids(answerer, table, sort=column, descending=descending, offset=offset, limit=97)
             for offset in range(0, 700, 97)]
    assert [flow_id for page in pages for flow_id in page] == wanted
    assert ids(answerer, table, sort=column, descending=descending, limit=None) == wanted


@pytest.mark.parametrize("spread", [2, 1 << 40])
@pytest.mark.parametrize("offset", [0, 30_000, 79_950])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_of_large_tables_with_and_without_ties(spread: int, offset: int, descending: bool) -> None:
    rng = np.random.default_rng(2)
    table = source(100_000, octet_delta=rng.integers(0, spread, 100_000) * (rng.random(100_000) < 0.1))
    table.visible = rng.random(100_000) < 0.8
    wanted = in_order(table, "rate", descending)[offset:offset + 100]
    assert ids(Answerer(), table, sort="rate", descending=descending, offset=offset, limit=100) == wanted


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 1000), st.sampled_from(list(COLUMNS)), st.booleans(), st.integers(0, 70),
       st.integers(0, 70))
def test_a_page_and_the_anchors_rank_agree_with_the_whole_order(
        n: int, seed: int, column: str, descending: bool, offset: int, limit: int) -> None:
    table = scattered(n, seed, 3)
    wanted = in_order(table, column, descending)
    query = Query(sort=column, descending=descending, offset=offset, limit=limit)
    answer = Answerer().answer(query, table)
    assert [row.flow_id for row in answer.rows] == wanted[offset:offset + limit]
    assert answer.matched == answer.flows == len(wanted)
    for flow_id in table.columns["flow_id"].tolist():
        rank = Answerer().answer(replace(query, anchor=flow_id), table).anchor_rank
        assert rank == (wanted.index(flow_id) if flow_id in wanted else None)


@pytest.mark.parametrize("biflow", [False, True])
def test_what_carries_flows_is_listed_after_them_in_the_order_asked_for(biflow: bool) -> None:
    kinds = np.array([Kind.PARENT, Kind.FLOW, Kind.AGGREGATE, Kind.PARENT, Kind.FRAGMENT])
    table = source(5, kind=kinds, octet_delta=np.array([9, 1, 2, 8, 3]), octet_total=np.array([90, 10, 20, 80, 30]),
                   source_port=np.arange(5), tunnel=np.where(kinds == Kind.PARENT, 4, 0))

    def rates(descending: bool) -> list[int]:
        page = Answerer().answer(Query(biflow=biflow, descending=descending), table)
        return [row.octet_total // 10 for row in page.rows]

    assert rates(True) == [3, 2, 1, 9, 8]
    assert rates(False) == [1, 2, 3, 8, 9]


def test_equal_values_keep_their_places_from_tick_to_tick() -> None:
    table, answerer = source(500), Answerer()
    first = ids(answerer, table, sort="rate", limit=50)
    assert first == list(range(1, 51))
    assert ids(answerer, table, sort="rate", limit=50) == first


def test_a_row_has_the_columns_values_in_the_units_of_flow_row() -> None:
    table = source(1, source_address=packed("10.0.0.1"), destination_address=packed("10.0.0.2"), source_port=5,
                   destination_port=443, protocol=6, tcp_control_bits=0b10001, octet_delta=3000, packet_delta=4,
                   octets_10s=5000, octets_60s=8000, packets_10s=20, packets_60s=60, octet_rate_peak=9e6,
                   octet_total=10_000, packet_total=70, ifindex=3, direction=1, vlan_id=7, tos=8, ttl=63,
                   source_mac=b"\2\0\0\0\0\1", first_ns=START_NS + 10 * SECOND, last_ns=START_NS + 96 * SECOND)
    (row,) = Answerer().answer(Query(), table).rows
    assert (row.source_address, row.destination_address) == (packed("10.0.0.1"), packed("10.0.0.2"))
    assert (row.octet_rate, row.packet_rate) == (1500, 2)
    assert (row.octet_rate_10s, row.octet_rate_60s, row.octet_rate_peak) == (500, 400, 9e6)
    assert (row.packet_rate_10s, row.packet_rate_60s) == (2, 3)
    assert (row.age_s, row.idle_s) == (86, 4)
    assert row.start_ms == (START_NS + 10 * SECOND + UNIX_OFFSET_NS) // 10**6
    assert row.end_ms == (START_NS + 96 * SECOND + UNIX_OFFSET_NS) // 10**6
    assert (row.closing, row.state) == (True, State.CLOSING)
    assert (row.source_port, row.destination_port, row.vlan_id, row.ttl) == (5, 443, 7, 63)
    assert (row.source_mac, row.octet_total, row.packet_total) == (b"\2\0\0\0\0\1", 10_000, 70)
    assert row.ways is None
    assert {type(value) for value in row[:row._fields.index("more")]} == {int, float, bool, bytes, tuple}
    assert row.sides is None and row.shares == (1, 1, 1)
    assert (row.flows, row.group) == (1, ())


def test_ended_flows_are_counted_as_flows_but_not_as_active() -> None:
    answer = Answerer().answer(Query(), source(5, end_reason=[0, 1, 0, 3, 0]))
    assert (answer.flows, answer.active_flows, answer.matched) == (5, 3, 5)


# ---- held order


def test_what_is_silent_now_comes_after_what_is_not_and_the_latest_to_fall_silent_first() -> None:
    table = source(4, octet_delta=[500, 0, 0, 1], octets_10s=[5_000, 4_000, 4_001, 1], end_reason=[0, 3, 0, 0])
    assert ids(Answerer(), table) == [1, 4, 3, 2], "the order is that of the column: an ended flow's rate is 0"
    table.columns["octets_10s"][1:3] = 4_000
    assert ids(Answerer(), table) == [1, 4, 2, 3], "ties in order of birth"


@pytest.mark.parametrize("descending", [False, True])
def test_interfaces_are_in_the_order_of_their_names(descending: bool) -> None:
    names = {2: "eth10", 3: "eth2", 7: "lo", 9: "br-0a", 4_000_000_000: "eth2.30"}
    lookups = Lookups(names)
    table = source(7, ifindex=[7, 2, 3, 9, 4_000_000_000, 12, 3])
    order = [4, 3, 7, 5, 2, 1, 6]
    assert [names.get(int(table.columns["ifindex"][i - 1])) for i in order] == [
        "br-0a", "eth2", "eth2", "eth2.30", "eth10", "lo", None]
    expected = [6, 1, 2, 5, 3, 7, 4] if descending else order
    answer = Answerer().answer(Query(sort="interface", descending=descending), table, lookups)
    assert [row.flow_id for row in answer.rows] == expected
    ranks = [Answerer().answer(Query(sort="interface", descending=descending, anchor=i), table, lookups).anchor_rank
             for i in expected]
    assert ranks == list(range(7))
    grouped = Query(group=("interface",), sort="interface", descending=descending)
    by_name = [2, 3, 7, 9, 12, 4_000_000_000]
    by_name.sort(key=[9, 3, 4_000_000_000, 2, 7, 12].index, reverse=descending)
    assert [row.group[0][0] for row in Answerer().answer(grouped, table, lookups).rows] == by_name


def test_a_held_order_stays_while_rates_change_flows_vanish_and_slots_are_used_again() -> None:
    table, answerer = source(5, octet_delta=[50, 40, 30, 20, 10]), Answerer()
    assert ids(answerer, table, hold=1) == [1, 2, 3, 4, 5]
    table.columns["octet_delta"] = [10, 20, 30, 40, 50]
    assert ids(answerer, table, hold=1) == [1, 2, 3, 4, 5]
    table.visible[1] = False  # flow 2 vanished
    table.columns["flow_id"][3] = 8  # flow 4 vanished, its slot has flow 8
    more = source(7, octet_delta=0)
    more.columns[:5] = table.columns
    more.columns["octet_delta"][5:] = [70, 90]
    more.columns["flow_id"][5:] = [6, 7]
    more.visible[:5] = table.visible
    assert ids(answerer, more, hold=1) == [1, 3, 5, 7, 6, 8]  # those born since: live order, 90, 70, 40
    assert ids(answerer, more, hold=1, offset=2, limit=2) == [5, 7]
    assert [answerer.answer(Query(hold=1, anchor=i), more).anchor_rank for i in (5, 6, 2)] == [2, 4, None]
    assert answerer.answer(Query(hold=1), more).matched == 6


def test_another_number_fixes_the_order_anew_and_none_lets_go() -> None:
    table, answerer = source(3, octet_delta=[1, 2, 3]), Answerer()
    assert ids(answerer, table, hold=1) == [3, 2, 1]
    table.columns["octet_delta"] = [3, 2, 1]
    assert ids(answerer, table, hold=1) == [3, 2, 1]
    assert ids(answerer, table, hold=2) == [1, 2, 3]
    table.columns["octet_delta"] = [0, 2, 0]
    assert ids(answerer, table) == [2, 1, 3]
    assert ids(answerer, table, hold=2) == [2, 1, 3]


# ---- the doors


def test_a_filter_decides_what_matches() -> None:
    table, answerer = source(6, protocol=6, source_port=[1, 2, 1, 2, 1, 2], octet_delta=range(6)), Answerer()
    table.visible[0] = False
    answer = answerer.answer(Query(filter=compile_filter("src port 1"), anchor=3), table)
    assert [row.flow_id for row in answer.rows] == [5, 3]
    assert (answer.matched, answer.flows, answer.anchor_rank) == (2, 5, 1)
    assert ids(answerer, table, hold=1) == [6, 5, 4, 3, 2]
    assert ids(answerer, table, hold=1, filter=compile_filter("src port 2")) == [6, 4, 2]


def test_groups_and_biflows_at_once_are_refused() -> None:
    with pytest.raises(FlowtopError, match="not both") as caught:
        Answerer().answer(Query(biflow=True, group=("source",)), source(1))
    assert caught.value.exit_code == EXIT_USAGE


def test_an_unknown_column_is_a_usage_error_that_names_near_ones() -> None:
    with pytest.raises(FlowtopError) as caught:
        sort_column("packet")
    assert caught.value.exit_code == EXIT_USAGE
    assert "packets" in caught.value.hint
    with pytest.raises(FlowtopError) as caught:
        sort_column("zzz")
    assert all(column in caught.value.hint for column in COLUMNS)


def test_rows_without_the_sorted_column_are_by_rate() -> None:
    table = source(3, octet_delta=[1, 3, 2], octet_total=[9, 8, 7], protocol=[6, 17, 1])
    answerer = Answerer()
    by_rate = ids(answerer, table, group=("protocol",), sort="rate")
    assert ids(answerer, table, group=("protocol",), sort="destination") == by_rate
    assert ids(answerer, table, group=("protocol",), sort="bytes") != by_rate


def test_an_empty_table_gives_an_empty_page() -> None:
    empty = Source(np.zeros(0, DTYPE))
    answer = Answerer().answer(Query(anchor=1, hold=1), empty)
    assert (answer.rows, answer.matched, answer.flows, answer.anchor_rank) == ((), 0, 0, None)


def test_ended_flows_are_left_out_when_they_are_not_wanted_but_the_anchor_is_not() -> None:
    table = source(6, end_reason=[0, 1, 0, 3, 0, 2], octet_delta=[60, 0, 40, 0, 20, 0])
    answer = Answerer().answer(Query(ended=False), table)
    assert [row.flow_id for row in answer.rows] == [1, 3, 5]
    assert (answer.matched, answer.matched_flows, answer.flows, answer.active_flows, answer.hidden) == (3, 3, 6, 3, 3)
    answer = Answerer().answer(Query(ended=False, anchor=4), table)
    assert [row.flow_id for row in answer.rows] == [1, 3, 5, 4], "it has no rate any more"
    assert (answer.matched, answer.hidden, answer.anchor_rank) == (4, 2, 3)
    assert Answerer().answer(Query(), table).hidden == 0


def test_what_came_since_an_order_was_frozen_is_counted() -> None:
    table, answerer = source(5, octet_delta=[1, 2, 3, 4, 5]), Answerer()
    table.visible[3:] = False
    assert answerer.answer(Query(hold=1), table).joined == 0
    table.visible[3:] = True
    assert answerer.answer(Query(hold=1), table).joined == 2
    assert answerer.answer(Query(), table).joined == 0


def test_a_row_says_how_long_ago_its_flow_ended() -> None:
    table = source(2, end_reason=[0, 1], reported_ns=[START_NS, START_NS - 4_500_000_000])
    table.now_ns = START_NS + 500_000_000
    alive, ended = Answerer().answer(Query(sort="source"), table).rows
    assert (alive.ended_s, ended.ended_s) == (0.0, 5.0)


def test_a_group_opened_lists_its_flows_and_no_others_and_a_filter_is_for_what_is_in_it() -> None:
    table = source(6, protocol=[6, 17, 6, 6, 17, 1], octet_total=[10, 20, 40, 80, 160, 320], ip_version=4)
    answerer = Answerer()
    groups = {(row.octet_total, row.flows) for row in answerer.answer(Query(group=("protocol",)), table).rows}
    scope = compile_filter("tcp")
    inside = answerer.answer(Query(scope=scope), table)
    assert sorted(row.flow_id for row in inside.rows) == [1, 3, 4]
    assert (sum(row.octet_total for row in inside.rows), inside.matched) == (10 + 40 + 80, 3)
    assert groups == {(10 + 40 + 80, 3), (20 + 160, 2), (320, 1)}
    narrowed = answerer.answer(Query(scope=scope, filter=compile_filter("bytes > 30")), table)
    assert sorted(row.flow_id for row in narrowed.rows) == [3, 4]
    again = answerer.answer(Query(scope=scope, group=("protocol",)), table)
    assert [(row.octet_total, row.flows) for row in again.rows] == [(130, 3)]


ME = 4_711
OWN = {"owner": [owner_id(pid, START_NS) if pid else 0 for pid in (ME, ME, ME, 12, 0)],
       "source_port": [40_000, 53, 40_001, 40_002, 40_003],
       "destination_port": [53, 40_000, 443, 53, 53], "protocol": [17, 17, 6, 17, 17]}
"""Its DNS request and the answer; its own HTTPS; somebody else's DNS; DNS of nobody known."""


@pytest.mark.parametrize(("query", "listed", "hidden"), [
    ({"own": ME}, [3, 4, 5], 2), ({}, [1, 2, 3, 4, 5], 0), ({"own": 99}, [1, 2, 3, 4, 5], 0),
    ({"own": ME, "filter": "udp"}, [4, 5], 2), ({"own": ME, "filter": "tcp"}, [3], 0),
    ({"own": ME, "filter": "port 53"}, [1, 2, 4, 5], 0), ({"own": ME, "filter": f"pid {ME}"}, [1, 2, 3], 0),
    ({"own": ME, "scope": "udp and dst port 53"}, [1, 4, 5], 0),
])
def test_dns_of_the_monitor_itself_is_left_out_and_counted_unless_it_is_asked_for(
        query: dict[str, Any], listed: list[int], hidden: int) -> None:
    query = {name: compile_filter(value) if isinstance(value, str) else value for name, value in query.items()}
    answer = Answerer().answer(Query(**query), source(5, **OWN))
    assert sorted(row.flow_id for row in answer.rows) == listed
    assert (answer.matched, answer.own_hidden) == (len(listed), hidden)


RESOLVER, SECOND_NS = 53_053, 1_000_000_000
STUB, CLIENT, UPSTREAM = b"\x7f\0\0\x35", b"\x7f\0\0\x01", b"\xc0\0\2\x35"


def upstream_flows(*, others: tuple[int, int] | None = None, answered: bool = True) -> dict[str, list[Any]]:
    """At lo: our question (2 s) and its answer (4 s), each at both hooks, with each end as its owner. Upstream: the
    resolver's question at 3 s and its answer, its question for nobody at 6 s; somebody else's own at 3 s.

    Args:
        others: when another client of the resolver asked, and was answered.
    """
    rows = [(ME, CLIENT, 40_000, STUB, 53, 2, 2, 0), (RESOLVER, CLIENT, 40_000, STUB, 53, 2, 2, 0),
            (RESOLVER, CLIENT, 50_000, UPSTREAM, 53, 3, 3, 2), (RESOLVER, UPSTREAM, 53, CLIENT, 50_000, 3, 3, 3),
            (RESOLVER, CLIENT, 50_001, UPSTREAM, 53, 6, 6, 4), (12, CLIENT, 50_002, UPSTREAM, 53, 3, 3, 5)]
    if answered:
        rows += [(RESOLVER, STUB, 53, CLIENT, 40_000, 4, 4, 6), (ME, STUB, 53, CLIENT, 40_000, 4, 4, 6)]
    if others:
        rows += [(77, CLIENT, 40_009, STUB, 53, others[0], others[0], len(rows)),
                 (77, STUB, 53, CLIENT, 40_009, others[1], others[1], len(rows) + 1)]
    names = "owner", "source_address", "source_port", "destination_address", "destination_port", "first_ns", "last_ns"
    columns: dict[str, list[Any]] = {
        name: [row[at] for row in rows] for at, name in enumerate((*names, "conversation"))}
    columns["owner"] = [owner_id(pid, START_NS) for pid in columns["owner"]]
    for name in ("first_ns", "last_ns"):
        columns[name] = [START_NS + seconds * SECOND_NS for seconds in columns[name]]
    return {**columns, "protocol": [17] * len(rows), "ip_version": [4] * len(rows)}


@pytest.mark.parametrize(("flows", "listed"), [
    (upstream_flows(), [5, 6]),
    (upstream_flows(answered=False), [6]),  # we still wait: what it asks since is for us
    (upstream_flows(others=(1, 2)), [5, 6, 9, 10]),
    (upstream_flows(others=(2, 5)), [3, 4, 5, 6, 9, 10]),  # two wait for it: for whom it asks cannot be known
])
def test_what_a_local_resolver_asks_for_us_alone_is_ours(flows: dict[str, list[Any]], listed: list[int]) -> None:
    table = source(len(flows["owner"]), **flows)
    table.now_ns = START_NS + 9 * SECOND_NS
    answer = Answerer().answer(Query(own=ME), table)
    assert sorted(row.flow_id for row in answer.rows) == listed
    assert answer.own_hidden == len(flows["owner"]) - len(listed)
