"""Pause, frozen order, follow and ended flows: each holds what it says, in every combination; the cursor stays on its
flow through everything."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.pilot import Pilot

from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.model.rows import FlowRow
from tests.tui.screen import cursor_line, flow_lines, line, lines, running, shown
from tests.tui.table_source import TableSource
from tests.tui.test_viewport import Walk

LINES = 19
LONG = 40
"""Flows 1 to 40 go on; at first the lower the number, the faster."""
SHORT = range(41, 46)
"""Flows that end in the tick after the first: after a second without packets. The fastest of all, 45 first."""
LINGER_S = 30.0
ENDING = TableConfig(idle_timeout_s=1, linger_s=LINGER_S, dedupe="off")
FIRST = [*reversed(SHORT), *range(1, LONG + 1)]
"""The list at first, from the top."""
THEN = [*range(LONG, 0, -1), *SHORT]
"""The list later, were nothing held: turned round, and what has ended has no rate; of equal rates the first is first.
Flows 46 and 47 are born behind those that have a rate."""
THEN = [*THEN[:LONG], 46, 47, *SHORT]


def first() -> dict[int, int]:
    return {port: 10_000 - 100 * FIRST.index(port) for port in FIRST}


def later() -> dict[int, int]:
    return {port: 10_000 - 100 * THEN.index(port) for port in [*range(1, LONG + 1), 46, 47]}


def ports(pilot: Pilot[None]) -> list[int]:
    """Source ports in view, from top to bottom."""
    return [int(text.split(":")[1].split()[0]) for text in flow_lines(pilot.app) if ":" in text]


@pytest.mark.parametrize(("pause", "freeze", "follow", "hide"), product([False, True], repeat=4))
async def test_each_of_the_sixteen_combinations(pause: bool, freeze: bool, follow: bool, hide: bool) -> None:
    """The cursor is on flow 2: the seventh at first, the last but one of those that go on later."""
    source = TableSource(ENDING)
    async with running(source) as pilot:
        source.tick(first())
        await pilot.pause()
        await pilot.press(*["down"] * 7, *["o"] * freeze, *["F"] * follow, *["E"] * hide, *["space"] * pause)
        assert ports(pilot) == FIRST[:LINES], "none has ended yet"
        before = flow_lines(pilot.app)
        for _ in range(2):
            source.tick(later())
            await pilot.pause()
        banner = line(pilot.app, 1)
        assert ("PAUSED" in banner, "FROZEN" in banner, "FOLLOW" in banner, "ENDED HIDDEN" in banner) == (
            pause, freeze, follow, hide)
        gone = set(SHORT) if hide else set[int]()
        held = [port for port in [*FIRST, 46, 47] if port not in gone]
        turned = [port for port in THEN if port not in gone]
        last = turned.index(2) + 1
        if pause:
            assert flow_lines(pilot.app) == before
            assert "PAUSED 00:00:02, 84 packets since" in banner
        elif freeze:
            assert ports(pilot) == held[:LINES]
        elif follow:
            assert ports(pilot) == turned[last - LINES:last]
        else:
            assert ports(pilot) == turned[:LINES]
        assert ("FROZEN, 2 since" in banner) == (freeze and not pause)
        assert ("5 ENDED HIDDEN" in banner) == (hide and not pause)
        if 2 in ports(pilot):
            assert ports(pilot)[cursor_line(pilot.app) or 0] == 2
        await pilot.press(*["space"] * pause, *["o"] * freeze, *["E"] * hide)
        source.tick(later())
        await pilot.pause()
        last = THEN.index(2) + 1
        assert ports(pilot) == (THEN[last - LINES:last] if follow else THEN[:LINES]), "nothing held any more"
        assert not any(word in line(pilot.app, 1) for word in ("PAUSED", "FROZEN", "ENDED"))


async def test_ended_flows_are_hidden_and_listed_again_while_paused() -> None:
    source = TableSource(ENDING)
    async with running(source) as pilot:
        for octets in (first(), later(), later()):
            source.tick(octets)
        await pilot.press("end", "space")
        assert set(SHORT) <= set(ports(pilot))
        await pilot.press("E")
        assert not set(SHORT) & set(ports(pilot))
        assert "PAUSED" in line(pilot.app, 1) and "5 ENDED HIDDEN" in line(pilot.app, 1)
        await pilot.press("E", "end")
        assert set(SHORT) <= set(ports(pilot))


def listed(source: TableSource) -> set[int]:
    """Ports of all flows there are."""
    return set(source.table.columns["source_port"][source.table.visible].tolist())


@pytest.mark.parametrize("keys", [(), ("o",), ("F",), ("E",), ("space",), ("o", "E"), ("F", "E"), ("E", "space")])
async def test_a_flow_that_ends_under_the_cursor_stays_until_the_cursor_moves(keys: tuple[str, ...]) -> None:
    source = TableSource(TableConfig(idle_timeout_s=1, linger_s=3, dedupe="off"))
    async with running(source) as pilot:
        source.tick(first())
        await pilot.pause()
        await pilot.press("down", "down", *keys)
        viewport = pilot.app.main.viewport  # type: ignore[attr-defined]
        assert viewport.cursor_row.source_port == 44
        for _ in range(10):
            source.tick(later())
            await pilot.pause()
        await pilot.press(*["space"] * ("space" in keys))
        assert viewport.cursor_row.source_port == 44 and viewport.cursor_row.end_reason
        assert listed(source) & set(SHORT) == {44}, "the others have left"
        if "F" in keys:
            assert ports(pilot)[cursor_line(pilot.app) or 0] == 44
        await pilot.press("down" if "o" in keys else "up")
        assert viewport.cursor_row.source_port != 44
        source.tick(later())
        await pilot.pause()
        assert not listed(source) & set(SHORT), "now it has left too"


@pytest.mark.parametrize("keys", [("B",), ("B", "o"), ("B", "E"), ("B", "F")])
async def test_a_biflow_that_ends_under_the_cursor_stays_and_so_does_its_flow_without_b(keys: tuple[str, ...]) -> None:
    source = TableSource(TableConfig(idle_timeout_s=1, linger_s=3, dedupe="off"))
    async with running(source) as pilot:
        source.tick(first())
        await pilot.pause()
        await pilot.press("down", "down", *keys)
        viewport = pilot.app.main.viewport  # type: ignore[attr-defined]
        for mode in ("", "B", "B", "B"):  # as a biflow, as a flow, and again
            await pilot.press(*mode)
            for _ in range(6):
                source.tick(later())
                await pilot.pause()
            assert viewport.cursor_row is not None, mode
            assert viewport.cursor_row.source_port == 44 and viewport.cursor_row.end_reason, mode
            assert listed(source) & set(SHORT) == {44}, "the others have left"
        await pilot.press("home")
        for _ in range(2):
            source.tick(later())
            await pilot.pause()
        assert not listed(source) & set(SHORT), "now it has left too"


async def test_an_empty_list_says_that_what_has_ended_is_hidden() -> None:
    source = TableSource(TableConfig(idle_timeout_s=1, linger_s=30, dedupe="off"))
    async with running(source) as pilot:
        pilot.app.main.questions.filter_by(compile_filter("port 80"))  # type: ignore[attr-defined]
        source.tick(dict.fromkeys(SHORT, 100))
        for _ in range(3):
            source.tick({})
        await pilot.press("E")
        await pilot.pause()
        assert any("E lists 5 that have ended" in text for text in lines(pilot.app))


async def test_the_past_says_that_the_mark_does_not_count_there() -> None:
    source = TableSource(TableConfig(dedupe="off"))
    async with running(source) as pilot:
        for octets in (first(), later(), later()):
            source.tick(octets)
        await pilot.pause()
        await pilot.press("m")
        assert "SINCE MARK" in line(pilot.app, 1) and "MARK NOT COUNTED" not in line(pilot.app, 1)
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert "MARK NOT COUNTED" in line(pilot.app, 1) and "SINCE MARK" not in line(pilot.app, 1)
        await pilot.press("space")
        source.tick(later())
        await pilot.pause()
        assert "SINCE MARK" in line(pilot.app, 1) and "MARK NOT COUNTED" not in line(pilot.app, 1)


@pytest.mark.parametrize("seed", range(6))
async def test_the_cursors_flow_stays_under_it_through_re_sorts_filters_and_expiry(seed: int) -> None:
    """Random steps; flows end and leave all the time, the cursor's too. Where it is not, the filter excludes it."""
    dice = random.Random(seed)
    source = TableSource(TableConfig(idle_timeout_s=2, linger_s=dice.choice((0, 1, 4)), dedupe="off"))
    async with running(source) as pilot:
        source.tick(first())
        await pilot.pause()
        await pilot.press(*["down"] * dice.randrange(1, LINES))
        chosen = shown(pilot.app)[cursor_line(pilot.app) or 0]
        port = ports(pilot)[cursor_line(pilot.app) or 0]
        wanted, screen = "", pilot.app.main  # type: ignore[attr-defined]
        for _ in range(25):
            key = dice.choice(("greater_than_sign", "r", "o", "F", "E", "space", "tick", "tick", "tick", "filter"))
            if key == "tick":
                source.tick({number: dice.randrange(1, 9_000) for number in range(1, 80) if dice.random() < 0.4})
                await pilot.pause()
            elif key == "filter":
                wanted = dice.choice(("tcp", "udp", "port 80", ""))
                screen.questions.filter_by(compile_filter(wanted) if wanted else None)
                screen.changed()
                await pilot.pause()
            else:
                await pilot.press(key)
            there = wanted in ("", "port 80") or (wanted == "tcp") == bool(port % 2)
            viewport = screen.viewport
            assert viewport.cursor == (chosen if there else None), key
            row = viewport.cursor_row
            assert row is None or row.source_port == port
            assert viewport.anchor == chosen


@pytest.mark.parametrize("chosen", [True, False])
def test_a_pause_right_after_another_choice_shows_that_choice(chosen: bool) -> None:
    walk = Walk()
    questions = walk.questions
    first_question = questions.next()
    assert first_question is not None
    page = walk.source.page(first_question)
    assert questions.accept(page)
    walk.viewport.show(page)
    if chosen:
        questions.toggle_ended()
        assert questions.next() is not None, "asked, and not answered yet"
    questions.toggle_pause()
    question = questions.next()
    assert question is not None
    assert questions.accept(walk.source.page(question)) == chosen


PASSING: dict[str, Callable[[FlowRow], bool]] = {
    "": lambda _: True, "tcp": lambda row: row.protocol == 6, "udp": lambda row: row.protocol == 17,
    "port 443": lambda row: 443 in (row.source_port, row.destination_port),
    "not port 22": lambda row: 22 not in (row.source_port, row.destination_port),
    "tcp and port 53": lambda row: row.protocol == 6 and 53 in (row.source_port, row.destination_port)}
"""What filters let pass."""
CHANGE = st.one_of(
    st.tuples(st.just("shuffle"), st.integers(0, 10**6)),
    st.tuples(st.just("filter"), st.sampled_from(list(PASSING))),
    st.tuples(st.just("shrink"), st.integers(0, 400)),
    st.tuples(st.just("hold"), st.none()),
    st.tuples(st.just("sort"), st.sampled_from(["bytes", "rate", "source"])),
)


@settings(deadline=None)
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
        there = any(row.flow_id == chosen and PASSING["" if wanted is None else wanted.text](row)
                    for row in walk.source.flows)
        assert walk.viewport.cursor == (chosen if there else None)
        assert walk.viewport.anchor == chosen
