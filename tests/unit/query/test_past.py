"""Pages of the last minutes: what a page said then is what the past says of it later, within its bounds."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.query.pager import Freeze, Pager
from flowtop.query.past import Past
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text.lookups import Lookups
from tests.unit.factories import SECOND, START_NS, UNIX_OFFSET_NS, batch, counters, key

QUERIES = (Query(limit=None), Query(sort="bytes", descending=False, limit=3), Query(group=("source",), limit=None),
           Query(filter=compile_filter("port 1003 or port 1004")), Query(sort="source", offset=2, limit=4))


def facts(table: FlowTable, tick: int) -> Page:
    unix_ms = (table.now_ns + UNIX_OFFSET_NS) // 1_000_000
    return Page(Query(), tick, unix_ms, float(tick), table.tick_s, (), 0, 0, 0, None,
                Books(observed_packets=tick), Traffic(), Traffic(), Lookups({2: "eth0"}))


def run(ticks: int, past: Past, flows: int = 8) -> tuple[Pager, FlowTable, list[list[Page]]]:
    """So many ticks; and the pages of each, as they were then, for QUERIES."""
    rng = np.random.default_rng(3)
    table, pager, pages = FlowTable(TableConfig(idle_timeout_s=3, linger_s=2)), Pager(past), []
    for tick in range(1, ticks + 1):
        now_ns = START_NS + tick * SECOND
        table.accumulate(batch([
            (key(source=f"10.0.0.{port % 3}", source_port=1000 + port), counters(n, 100 * n, now_ns))
            for port, n in enumerate(rng.integers(0, 9, flows).tolist()) if n], now_ns))
        table.close_tick()
        pager.remember(table, facts(table, tick))
        pages.append([pager.page(query, table, facts(table, tick)) for query in QUERIES])
    return pager, table, pages


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_the_past_answers_as_it_did_then(number: int) -> None:
    pager, table, pages = run(20, Past())
    for tick, then in enumerate(pages, 1):
        found = pager.page(replace(QUERIES[number], at=tick), table, facts(table, 20))
        page = then[number]
        assert found.past and (found.tick, found.books.observed_packets, found.unix_ms) == (tick, tick, page.unix_ms)
        assert found.rows == page.rows, "ids of groups, too: the cursor stays on its group"
        assert found.flows_kept == page.flows, "8 flows are all kept"
        assert found.present is not None and (found.present.tick, found.present.kept) == (20, found.kept)
        assert (found.matched, found.matched_flows, found.flows, found.active_flows) == (
            page.matched, page.matched_flows, page.flows, page.active_flows)


def test_it_reaches_so_far_back_and_says_so() -> None:
    pager, table, _ = run(30, Past(seconds=10))
    kept = pager.page(Query(), table, facts(table, 30)).kept
    assert kept is not None and (kept.first_tick, kept.last_tick, kept.seconds) == (20, 30, 10.0)
    assert pager.page(Query(at=1), table, facts(table, 30)).tick == 20, "the nearest"
    assert pager.page(Query(at=99), table, facts(table, 30)).tick == 30
    live = pager.page(Query(), table, facts(table, 30))
    assert not live.past and live.tick == 30


def test_memory_is_bounded() -> None:
    past = Past(octets=60_000, flows=50)
    _, _, pages = run(60, past, flows=200)
    assert past.octets <= 60_000
    assert 2 <= len(past.ticks) < 60
    assert past.ticks.stop - 1 == 60, "the newest stay"
    assert pages


def test_of_many_flows_the_fastest_and_the_largest_are_kept() -> None:
    table, past = FlowTable(TableConfig(dedupe="off")), Past(flows=10)
    totals = {port: 1 + port * 7 % 100 for port in range(100)}
    table.accumulate(batch([(key(source_port=port), counters(1, 1000 * n, START_NS)) for port, n in totals.items()],
                           START_NS))
    table.close_tick()
    deltas = {port: 1 + port * 31 % 100 for port in range(100)}
    now_ns = START_NS + SECOND
    table.accumulate(batch([(key(source_port=port), counters(1, n, now_ns)) for port, n in deltas.items()], now_ns))
    table.close_tick()
    past.remember(table, facts(table, 1))
    kept = past.at(1)
    assert kept is not None
    fastest = sorted(deltas, key=lambda port: -deltas[port])[:5]
    others = [port for port in totals if port not in fastest]
    largest = sorted(others, key=lambda port: -(totals[port] * 1000 + deltas[port]))[:5]
    assert set(kept[1].columns["source_port"].tolist()) == {*fastest, *largest}


def test_a_mark_tells_since_when_it_counts_and_outlasts_a_look_back() -> None:
    pager, table, _ = run(5, Past())

    def marked_s(mark: int | None, tick: int, at: int | None = None) -> float | None:
        return pager.page(Query(mark=mark, at=at), table, facts(table, tick)).marked_s

    assert [marked_s(None, 5), marked_s(1, 5), marked_s(1, 8), marked_s(1, 9, at=2), marked_s(1, 12)] == [
        None, 0.0, 3.0, None, 7.0]
    assert [marked_s(2, 13), marked_s(2, 14), marked_s(None, 15), marked_s(2, 16)] == [0.0, 1.0, None, 0.0]


def test_details_of_a_flow_that_has_left_are_of_the_moment_that_is_looked_at() -> None:
    table, past = FlowTable(TableConfig(idle_timeout_s=1, linger_s=1)), Past()
    pager = Pager(past)
    there, back = key("10.0.0.1", "10.0.0.2", 5000, 53, 17), key("10.0.0.2", "10.0.0.1", 53, 5000, 17, direction=1)
    for tick in range(1, 9):
        now_ns = START_NS + tick * SECOND
        some = [(there, counters(2, 200, now_ns)), (back, counters(3, 900, now_ns))] if tick < 3 else []
        table.accumulate(batch(some, now_ns))
        table.close_tick()
        pager.remember(table, facts(table, tick))
    rows = pager.page(Query(at=2), table, facts(table, 8)).rows
    flow_id = next(row.flow_id for row in rows if row.source_port == 5000)
    assert pager.page(Query(details=flow_id), table, facts(table, 8)).details is None, "it has left"
    found = pager.page(Query(at=2, details=flow_id), table, facts(table, 8)).details
    assert found is not None and found.gone and found.reverse is not None
    assert (found.row.packet_total, found.row.octet_total, found.reverse.octet_total) == (4, 400, 1800)
    assert found.then_ms == (START_NS + 2 * SECOND + UNIX_OFFSET_NS) // 1_000_000
    assert pager.page(Query(at=8, details=flow_id), table, facts(table, 8)).details is None


FROZEN = (*QUERIES, Query(group=("protocol", "destination"), limit=None), Query(hold=3), Query(anchor=2, limit=2))


def test_the_moment_that_was_frozen_first_stays_for_every_question() -> None:
    pager, table, _ = run(9, Past())
    live = [pager.page(query, table, facts(table, 9)) for query in FROZEN]
    pager.page(Query(sort="age", freeze=7), table, facts(table, 9))
    turn(table, 5)
    for query, then in zip(FROZEN, live, strict=True):
        found = pager.page(replace(query, freeze=7), table, facts(table, 14))
        assert (found.rows, found.matched, found.flows, found.anchor_rank, found.tick, found.books) == (
            then.rows, then.matched, then.flows, then.anchor_rank, 9, then.books)
        assert found.present is not None and found.present.tick == 14
        assert found.flows_kept == found.flows


def test_a_mark_goes_on_counting_up_to_the_frozen_moment() -> None:
    pager, table, _ = run(5, Past())
    pager.page(Query(mark=1), table, facts(table, 5))
    turn(table, 2)
    then = pager.page(Query(mark=1), table, facts(table, 7))
    pager.page(Query(mark=1, freeze=1), table, facts(table, 7))
    turn(table, 2)
    found = pager.page(Query(mark=1, freeze=1, sort="bytes"), table, facts(table, 9))
    assert found.marked_s == 2.0
    assert {row.flow_id: row.octet_total for row in found.rows} == {row.flow_id: row.octet_total for row in then.rows}


def test_of_a_table_too_large_to_hold_the_kept_flows_of_the_tick_stand_still() -> None:
    past = Past(flows=4)
    table = FlowTable(TableConfig())
    pager = Pager(past, Freeze(past, slots=3))
    turn(table, 3)
    pager.remember(table, facts(table, 3))
    first = pager.page(Query(freeze=1), table, facts(table, 3))
    assert (len(first.rows), first.flows_kept, first.flows) == (4, 4, 8)
    turn(table, 3)
    pager.remember(table, facts(table, 6))
    again = pager.page(Query(freeze=1), table, facts(table, 6))
    assert again.rows == first.rows and again.tick == 3
    assert not Pager(None, Freeze(None, slots=3)).page(Query(freeze=1), table, facts(table, 6)).past


def turn(table: FlowTable, ticks: int) -> None:
    """So many seconds of 8 flows, other octets each."""
    for _ in range(ticks):
        now_ns = (table.now_ns or START_NS) + SECOND
        table.accumulate(batch([(key(source=f"10.0.0.{port % 3}", source_port=1000 + port),
                                 counters(port + 1, 100 * (now_ns // SECOND * (port + 3) % 17 + 1), now_ns))
                                for port in range(8)], now_ns))
        table.close_tick()


def test_nothing_kept_is_now() -> None:
    pager, table, _ = run(3, Past())
    without = Pager()
    page = without.page(Query(at=1), table, facts(table, 3))
    assert page.tick == 3 and page.kept is None and not page.past
    assert Past().at(1) is None
    assert pager.page(Query(at=1), table, facts(table, 3)).past


def test_texts_are_kept_once_and_as_long_as_a_tick_needs_them() -> None:
    """A text more each second, and only the newest 500 are in the table: in copies of all of them with each of 60 ticks
    they would take 60 x 500 places of 8 octets and more. The past has those of its ticks, not of the ticks before."""
    table, past = FlowTable(TableConfig()), Past(seconds=60)
    table.accumulate(batch([(key(), counters())], START_NS))
    table.close_tick()

    def tick(number: int) -> None:
        texts = {"name": {code: f"name {code}" for code in range(max(0, number - 500), number + 1)}}
        lookups = Lookups({2: "eth0"}, texts=texts, called={bytes([number % 256]): "x"})
        past.remember(table, replace(facts(table, number), unix_ms=1_000 * number, lookups=lookups))

    for number in range(1, 600):
        tick(number)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(600, 660):
        tick(number)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 60 * 500 * 8
    kept = past.at(605)
    assert kept is not None
    lookups = kept[0].lookups
    assert lookups.texts["name"][605] == "name 605" and lookups.interfaces == {2: "eth0"}
    assert lookups.texts["name"][105] == "name 105", "forgotten since, but not then"
    for number in range(660, 1_300):
        tick(number)
    later = past.at(1_299)
    assert later is not None and 605 not in later[0].lookups.texts["name"]
