"""The history of a group: from the table when it is opened, then tick by tick, with flows that leave."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from flowtop.filters.filter import compile_filter
from flowtop.model.flows import Slots
from flowtop.model.rows import Sides, Volume
from flowtop.query.history import HistorySource, ListLog, flows_history
from flowtop.query.query import NO_HISTORY, Listed, Query

SECOND = 1_000_000_000
HOST = Query(scope=compile_filter("host 192.0.2.1"))


class Table:
    """Octets of each second by slot, oldest first; the clock says one more second at each tick."""

    def __init__(self, octets: dict[int, list[int]]) -> None:
        self.octets = octets
        self.now_ns, self.unix_offset_ns, self.tick_s = 100 * SECOND, 0, 1.0

    def histories(self, groups: Sequence[Slots]) -> Sequence[tuple[int, Sequence[int]]]:
        longest = max(len(self.octets[int(slot)]) for slots in groups for slot in slots)
        return [(SECOND, [sum(self.octets[int(slot)][-back] for slot in slots if back <= len(self.octets[int(slot)]))
                          for slots in groups]) for back in range(longest, 0, -1)]


def ways(into: list[int], out_of: list[int]) -> tuple[Slots, Slots]:
    return np.array(into, np.int64), np.array(out_of, np.int64)


def listed(into: float, out_of: float) -> Listed:
    sides = [Volume(rate, 0, 0, 0, 0, 0) for rate in (into, out_of)]
    return Listed(Sides(sides[0], sides[1]), (0, 0, 0))


def source(octets: dict[int, list[int]]) -> HistorySource:
    return cast(HistorySource, Table(octets))


def test_both_ways_end_now_and_the_shorter_one_has_nothing_before() -> None:
    history = flows_history(source({0: [10, 20, 30], 1: [5], 2: [1, 2]}), *ways([1], [0, 2]))
    assert history.ends_ms == (98_000, 99_000, 100_000) and history.lengths_s == (1.0, 1.0, 1.0)
    assert (history.into, history.out_of) == ((0, 0, 5), (10, 21, 32))


def test_a_group_keeps_what_flows_had_that_have_left() -> None:
    log, table = ListLog(), source({0: [10, 20], 1: [7, 8]})
    first = log.tick(HOST, table, ways([0, 1], []), listed(28, 0), 5)
    assert first.into == (17, 28)
    again = log.tick(HOST, table, ways([0, 1], []), listed(28, 0), 5)
    assert again == first, "another query at the same tick"
    later = source({1: [9]})
    later.__dict__["now_ns"] = 101 * SECOND
    assert log.tick(HOST, later, ways([1], []), listed(9, 3), 6) == type(first)(
        (99_000, 100_000, 101_000), (1.0, 1.0, 1.0), (17, 28, 9), (0, 0, 3))


@pytest.mark.parametrize(("query", "tick"), [
    (Query(scope=compile_filter("host 192.0.2.2")), 6), (Query(scope=HOST.scope, filter=compile_filter("tcp")), 6),
    (HOST, 60)])
def test_another_group_or_a_return_from_the_past_begins_with_what_the_table_has(query: Query, tick: int) -> None:
    log = ListLog()
    log.tick(HOST, source({0: [10, 20]}), ways([0], []), listed(20, 0), 5)
    assert log.tick(query, source({0: [1, 2, 3]}), ways([0], []), listed(3, 0), tick).into == (1, 2, 3)


def test_that_of_a_filter_comes_with_the_next_tick_not_with_each_letter_that_is_typed() -> None:
    log, table = ListLog(), source({0: [1, 2, 3], 1: [10, 20, 30]})
    log.tick(Query(), table, ways([0, 1], []), listed(33, 0), 5)
    for text in ("port 4", "port 44", "port 443"):
        assert log.tick(Query(filter=compile_filter(text)), table, ways([0], []), listed(3, 0), 5) is NO_HISTORY
    narrow = Query(filter=compile_filter("port 443"))
    assert log.needs(narrow, 6) and not log.needs(Query(), 6)
    assert log.tick(narrow, table, ways([0], []), listed(3, 0), 6).into == (1, 2, 3)
    assert not log.needs(narrow, 6)
    later = source({0: [4]})
    later.__dict__["now_ns"] = 101 * SECOND
    assert log.tick(narrow, later, ways([0], []), listed(4, 0), 7).into == (1, 2, 3, 4)


def test_no_group_has_no_history() -> None:
    assert ListLog().tick(Query(), SimpleNamespace(), ways([0], []), listed(1, 1), 1) is NO_HISTORY
