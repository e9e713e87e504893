"""Pause, frozen order, follow and flows that end: each holds what it says, in every combination with the others."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.record import EndReason
from flowtop.view.filter import compile_filter
from flowtop.view.query import FlowRow
from tests.tui.fake_filter import passes
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import cursor_line, flow_lines, line, running, shown
from tests.tui.test_viewport import Walk

FLOWS = random_flows(200)
BY_RATE = [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate)]
LINES = 19
SECOND = BY_RATE[1]
"""The flow under the cursor: it falls to the end of the list and, in half of the combinations, it ends."""


def later(ending: bool) -> list[FlowRow]:
    """The order turned round, the cursor's flow last of all."""
    flows = [row._replace(octet_rate=1e6 - row.octet_rate) for row in FLOWS]
    end = int(EndReason.END_OF_FLOW) if ending else 0
    return [row._replace(octet_rate=0.5, end_reason=end) if row.flow_id == SECOND else row for row in flows]


@pytest.mark.parametrize(("pause", "freeze", "follow", "ending"), product([False, True], repeat=4))
async def test_each_of_the_sixteen_combinations(pause: bool, freeze: bool, follow: bool, ending: bool) -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down", "down", *["o"] * freeze, *["F"] * follow, *["space"] * pause)
        before = flow_lines(pilot.app)
        source.tick(later(ending))
        await pilot.pause()
        banner = line(pilot.app, 1)
        assert ("PAUSED" in banner, "ORDER FROZEN" in banner, "FOLLOW" in banner) == (pause, freeze, follow)
        turned = [row.flow_id for row in sorted(later(ending), key=lambda row: -row.octet_rate)]
        if pause:
            assert flow_lines(pilot.app) == before
            assert "1,000 packets since" in banner
        elif freeze:
            assert shown(pilot.app) == BY_RATE[:LINES]
        elif follow:
            assert shown(pilot.app) == turned[-LINES:]
        else:
            assert shown(pilot.app) == turned[:LINES]
        if SECOND in shown(pilot.app):
            assert shown(pilot.app)[cursor_line(pilot.app) or 0] == SECOND
            words = flow_lines(pilot.app)[cursor_line(pilot.app) or 0]
            assert words.endswith("end") == (ending and not pause)
        await pilot.press(*["space"] * pause, *["o"] * freeze)
        source.tick()
        await pilot.pause()
        assert shown(pilot.app) == (turned[-LINES:] if follow else turned[:LINES]), "nothing held any more"
        assert "PAUSED" not in line(pilot.app, 1)
        assert "ORDER FROZEN" not in line(pilot.app, 1)


CHANGE = st.one_of(
    st.tuples(st.just("shuffle"), st.integers(0, 10**6)),
    st.tuples(st.just("filter"), st.sampled_from(["", "tcp", "udp", "port 443", "not port 22", "tcp and port 53"])),
    st.tuples(st.just("shrink"), st.integers(0, 400)),
    st.tuples(st.just("hold"), st.none()),
    st.tuples(st.just("sort"), st.sampled_from(["bytes", "rate", "source"])),
)


@given(st.integers(0, 399), st.lists(CHANGE, max_size=20))
def test_the_cursor_stays_on_its_flow_through_everything_and_is_back_when_the_flow_is(
        rank: int, changes: list[tuple[str, object]]) -> None:
    walk = Walk()
    walk.exchange()
    walk.viewport.go(rank)
    walk.exchange()
    chosen = walk.viewport.cursor
    for name, value in changes:
        if name == "filter":
            walk.questions.filter_by(compile_filter(str(value)) if value else None)
        elif name == "hold":
            walk.questions.toggle_hold()
        elif name == "sort":
            walk.questions.order_by(str(value), descending=True)
        else:
            walk.step(name, value)
        walk.exchange()
        walk.tick()
        wanted = walk.questions.filter
        there = any(row.flow_id == chosen and (wanted is None or passes(row, wanted.text))
                    for row in walk.source.flows)
        assert walk.viewport.cursor == (chosen if there else None)
        assert walk.viewport.anchor == chosen
