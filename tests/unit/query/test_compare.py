"""Flows of now against those of a past tick: which appeared, are gone, grew and shrank, counted by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from flowtop.fields.change import TRENDS
from flowtop.fields.columns import Wording
from flowtop.fields.registry import COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import TcpBits
from flowtop.query.pager import Pager
from flowtop.query.past import Past
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text.lookups import NO_LOOKUPS
from tests.unit.factories import SECOND, START_NS, batch, counters, key

PORTS = {"steady": 1, "grower": 2, "shrinker": 3, "quitter": 4, "newcomer": 5}
THEN, NOW = 20, 60
"""Ticks of a second."""


def sizes(second: int) -> Mapping[str, int]:
    """Octets of that second."""
    late = second > THEN + 15
    found = {"steady": 1_000, "grower": 9_000 if late else 1_000, "shrinker": 100 if late else 2_000}
    return found | ({"newcomer": 5_000} if late else {"quitter": 3_000})


class Run:
    """A table and the pager of one client after some seconds."""

    def __init__(self) -> None:
        self.table = FlowTable(TableConfig(idle_timeout_s=15, linger_s=2), np.random.default_rng(3))
        self.pager = Pager(Past(300.0), seed=1)
        self.tick = 0
        for second in range(1, NOW + 1):
            now_ns = START_NS + second * SECOND
            self.table.update(batch([(key(f"10.0.0.{PORTS[name]}", source_port=PORTS[name]),
                                      counters(1, octets, now_ns)) for name, octets in sizes(second).items()], now_ns))
            self.tick = second
            self.pager.remember(self.table, self.now())

    def now(self) -> Page:
        return Page(Query(), self.tick, 1_000 * self.tick, float(self.tick), 1.0, (), 0, 0, 0, None, Books(), Traffic(),
                    Traffic())

    def page(self, **query: Any) -> Page:
        return self.pager.page(Query(limit=None, **query), self.table, self.now())


@pytest.fixture(scope="module")
def run() -> Run:
    return Run()


def of(page: Page) -> dict[str, tuple[str, int]]:
    """Trend and change of each flow by its name."""
    names = {port: name for name, port in PORTS.items()}
    return {names[row.source_port]: (TRENDS.get(row.more["trend"], ""), row.more["change"]) for row in page.rows}


WANTED = {"steady": ("", 0), "grower": ("grew", 8_000), "shrinker": ("shrank", -1_900), "quitter": ("gone", -3_000),
          "newcomer": ("appeared", 5_000)}


def test_flows_of_then_and_now(run: Run) -> None:
    page = run.page(compare=THEN)
    assert of(page) == WANTED
    assert page.compared_ms == 1_000 * THEN
    assert "quitter" not in of(run.page()), "it has left the table: only the comparison lists it"


def test_sorted_by_how_much_changed_either_way(run: Run) -> None:
    page = run.page(compare=THEN, sort="change")
    assert list(of(page)) == ["grower", "newcomer", "quitter", "shrinker", "steady"]


def test_filters_take_the_words(run: Run) -> None:
    for text, wanted in (("trend gone", {"quitter"}), ("trend appeared,grew", {"newcomer", "grower"}),
                         ("change >= 3000B/s", {"grower", "quitter", "newcomer"})):
        assert set(of(run.page(compare=THEN, filter=compile_filter(text)))) == wanted, text


def test_groups_add_up_what_was_then(run: Run) -> None:
    [row] = run.page(compare=THEN, group=("protocol",)).rows
    assert row.more["change"] == sum(sizes(NOW).values()) - sum(sizes(THEN).values())
    assert row.octet_rate_10s == pytest.approx(sum(sizes(NOW).values()))
    assert {row.more["trend"] for row in run.page(compare=THEN, group=("source",)).rows} == {0, 1, 2, 4, 5}


def test_what_has_left_since_is_not_an_open_connection(run: Run) -> None:
    """The quitter's last packet came at 35 s; idle for 15 s, it leaves the table at 52 s. At 48 s it is still there."""
    def states(**query: Any) -> dict[str, str]:
        names = {port: name for name, port in PORTS.items()}
        return {names[row.source_port]: COLUMNS["state"].text(row._replace(tcp_control_bits=int(TcpBits.ACK)),
                                                              Wording(), NO_LOOKUPS)
                for row in run.page(**query).rows}

    assert states(compare=THEN) == dict.fromkeys(("steady", "grower", "shrinker", "newcomer"), "EST") | {
        "quitter": "gone"}
    assert states(compare=THEN, at=48)["quitter"] == "EST"
    assert {row.source_port for row in run.page(compare=THEN, filter=compile_filter("trend gone")).rows} == {
        PORTS["quitter"]}


def test_biflows_and_a_frozen_order_compare_too(run: Run) -> None:
    assert {row.more["change"] for row in run.page(compare=THEN, biflow=True).rows} == {
        change for _, change in WANTED.values()}
    held = run.page(compare=THEN, hold=1, sort="change")
    again = run.page(compare=THEN, hold=1, sort="change")
    assert [row.flow_id for row in held.rows] == [row.flow_id for row in again.rows] and len(held.rows) == len(WANTED)
    run.page(hold=1)  # the same order without those that are gone


def test_the_past_compares_with_what_was_before_it(run: Run) -> None:
    early = of(run.page(compare=12, at=THEN))
    assert early == dict.fromkeys(sizes(THEN), ("", 0)), "nothing changed between"
    assert of(run.page(compare=THEN, at=NOW - 2))["newcomer"] == ("appeared", 5_000)


def test_without_a_moment_the_minute_before_counts(run: Run) -> None:
    rows = {row.source_port: row for row in run.page().rows}
    minute = [sizes(second)["grower"] for second in range(1, NOW + 1)]
    ten = [sizes(second)["grower"] for second in range(NOW - 9, NOW + 1)]
    expected = sum(ten) / 10 - sum(minute) / run.table.window_60s_s
    assert rows[PORTS["grower"]].more["change"] == pytest.approx(expected, abs=1)
    assert TRENDS[rows[PORTS["newcomer"]].more["trend"]] == "appeared"
    began = {row.source_port for row in run.page(filter=compile_filter("new")).rows}
    assert began == set(rows), "all within 60 s"
    assert {row.source_port for row in run.page(filter=compile_filter("new < 30s")).rows} == {PORTS["newcomer"]}


def test_details_of_a_flow_that_is_gone_are_those_of_then(run: Run) -> None:
    gone = next(row for row in run.page(compare=THEN).rows if row.source_port == PORTS["quitter"])
    details = run.page(compare=THEN, details=gone.flow_id).details
    assert details is not None and details.gone and details.row.source_port == PORTS["quitter"]
