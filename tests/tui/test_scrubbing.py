"""Looking back: the past says what was shown then, everything else goes on working in it, and now is one key away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from textual.pilot import Pilot

from flowtop.model.record import FlowBatch
from flowtop.model.rows import FlowRow
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.query import Kept, Page, Query
from flowtop.tui.app import FlowtopApp
from flowtop.tui.main.list import moment_before
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import cursor_line, flow_lines, line, lines, running, shown
from tests.unit.pipeline.test_pipeline import ScriptedCapture

FLOWS = random_flows(200)
LINES = 19
BACK, ON, FAR_BACK, FAR_ON = "left_square_bracket", "right_square_bracket", "left_curly_bracket", "right_curly_bracket"


def at_tick(tick: int) -> list[FlowRow]:
    """Other rates each tick."""
    return [row._replace(octet_rate=float(row.flow_id * 7_919 * tick % 100_003)) for row in FLOWS]


def by_rate(tick: int) -> list[int]:
    return [row.flow_id for row in sorted(at_tick(tick), key=lambda row: -row.octet_rate)]


async def pass_ticks(pilot: Pilot[None], source: FakeSource, count: int) -> None:
    for _ in range(count):
        source.tick(at_tick(source.ticks + 1))
    await pilot.pause()


async def test_sort_filter_group_and_cursor_go_on_working_in_the_past() -> None:
    source = FakeSource(at_tick(1))
    async with running(source) as pilot:
        await pass_ticks(pilot, source, 39)
        await pilot.press("down", "down", "down", BACK, BACK)
        cursor = by_rate(40)[2]
        assert shown(pilot.app) == by_rate(38)[:LINES]
        line_then = by_rate(38).index(cursor)
        assert cursor_line(pilot.app) == (line_then if line_then < LINES else None), "it went with its flow"
        await pilot.press("r")
        assert shown(pilot.app) == by_rate(38)[::-1][:LINES]
        await pilot.press("r", "slash", *"tcp", "enter")
        tcp = {row.flow_id for row in FLOWS if row.protocol == 6}
        await pilot.pause(0.2)
        assert shown(pilot.app) == [flow_id for flow_id in by_rate(38) if flow_id in tcp][:LINES]
        await pass_ticks(pilot, source, 3)
        assert shown(pilot.app) == [flow_id for flow_id in by_rate(38) if flow_id in tcp][:LINES]
        await pilot.press("backslash", "g", *["g"] * 5, "enter")
        assert " groups" in line(pilot.app, 1)
        await pilot.press("space", "backspace")
        assert shown(pilot.app)[0] == by_rate(43)[0]


async def test_the_list_of_then_may_be_short_and_says_so() -> None:
    source = FakeSource(at_tick(1), keep_flows=60)
    async with running(source, 120) as pilot:
        await pass_ticks(pilot, source, 5)
        await pilot.press(BACK)
        assert "of 200 flows, 60 kept" in line(pilot.app, 1)
        assert "1–19 of 60" in line(pilot.app, 1)
        await pilot.press("space")
        assert "kept" not in line(pilot.app, 1)
        assert "1–19 of 200" in line(pilot.app, 1)


async def test_a_tick_that_was_forgotten_meanwhile_is_the_nearest_that_is_kept() -> None:
    source = FakeSource(at_tick(1), keep_ticks=10)
    async with running(source) as pilot:
        await pass_ticks(pilot, source, 11)
        await pilot.press(BACK, BACK, BACK)
        assert shown(pilot.app) == by_rate(9)[:LINES]
        await pass_ticks(pilot, source, 20)
        assert shown(pilot.app) == by_rate(9)[:LINES], "it stands still though 9 is not kept any more"
        await pilot.press("r", "r")
        assert shown(pilot.app) == by_rate(23)[:LINES], "of 23 to 32"
        await pilot.press(BACK)
        assert "this is the oldest tick: 0:09 of the past is kept" in line(pilot.app, -1)
        await pilot.press(ON)
        assert shown(pilot.app) == by_rate(24)[:LINES]


async def test_both_ends_are_said_and_ten_steps_end_there() -> None:
    source = FakeSource(at_tick(1))
    async with running(source) as pilot:
        await pilot.press(ON)
        assert "this is the newest tick" in line(pilot.app, -1)
        assert "PAUSED" not in line(pilot.app, 1)
        await pilot.press(BACK)
        assert "this is the oldest tick" in line(pilot.app, -1)
        await pass_ticks(pilot, source, 14)
        await pilot.press(FAR_BACK, FAR_BACK)
        assert shown(pilot.app) == by_rate(1)[:LINES]
        await pilot.press(FAR_BACK)
        assert "this is the oldest tick: 0:14 of the past is kept" in line(pilot.app, -1)
        await pilot.press(FAR_ON, FAR_ON)
        assert shown(pilot.app) == by_rate(15)[:LINES]
        await pilot.press(ON)
        assert "no newer tick yet" in line(pilot.app, -1)


async def test_a_pause_can_be_stepped_on_from() -> None:
    source = FakeSource(at_tick(1))
    async with running(source) as pilot:
        await pass_ticks(pilot, source, 4)
        await pilot.press("space")
        await pass_ticks(pilot, source, 4)
        assert shown(pilot.app) == by_rate(5)[:LINES]
        await pilot.press(ON, ON)
        assert shown(pilot.app) == by_rate(7)[:LINES]
        assert "−0:02 of 0:08 kept" in line(pilot.app, 1)


async def test_the_accuracy_line_is_of_now() -> None:
    source = FakeSource(at_tick(1))
    async with running(source, 120) as pilot:
        await pass_ticks(pilot, source, 9)
        await pilot.press(FAR_BACK)
        await pass_ticks(pilot, source, 1)
        await pilot.press("A")
        assert f"seen {12_345_678 + 11 * 1_000:,}" in line(pilot.app, -2)


async def test_marks_are_of_now_and_outlast_a_look_back() -> None:
    source = FakeSource(at_tick(1))
    async with running(source, 120) as pilot:
        await pilot.press("M")
        assert "no mark is set" in line(pilot.app, -1)
        await pass_ticks(pilot, source, 3)
        await pilot.press("m")
        await pass_ticks(pilot, source, 3)
        await pilot.press(BACK)
        assert "SINCE MARK" not in line(pilot.app, 1), "what is kept counts from the first packets"
        asked = len(source.asked)
        await pilot.press("m")
        assert len(source.asked) == asked
        assert "no mark can be set in the past" in line(pilot.app, -1)
        await pilot.press("space")
        assert "SINCE MARK 0:03" in line(pilot.app, 1)


async def test_back_to_now_and_paused_again_before_the_answer_came() -> None:
    source = FakeSource(at_tick(1))
    async with running(source) as pilot:
        await pass_ticks(pilot, source, 9)
        await pilot.press(BACK)
        source.silent = True
        await pilot.press("space", "space")
        assert shown(pilot.app) == by_rate(9)[:LINES], "nothing else is there yet"
        source.silent = False
        await pass_ticks(pilot, source, 1)
        assert shown(pilot.app) == by_rate(11)[:LINES]
        await pass_ticks(pilot, source, 1)
        assert shown(pilot.app) == by_rate(11)[:LINES]
        assert "PAUSED" in line(pilot.app, 1)


@pytest.mark.parametrize("width", [80, 120])
async def test_an_alarm_leaves_the_time_that_is_looked_at_in_view(width: int) -> None:
    source = FakeSource(at_tick(1))
    async with running(source, width) as pilot:
        await pass_ticks(pilot, source, 9)
        await pilot.press(FAR_BACK)
        pilot.app.main.show_alarm("capture ended: the interfaces come and go too fast to be listed, and more")  # type: ignore[attr-defined]
        assert line(pilot.app, 1).startswith(" capture ended: ")
        assert "−0:09 of 0:09 kept" in line(pilot.app, 1)


async def test_no_flows_at_that_time_is_said() -> None:
    source = FakeSource()
    async with running(source) as pilot:
        await pass_ticks(pilot, source, 2)
        await pilot.press(FAR_BACK)
        assert any("no flows at that time" in text for text in lines(pilot.app))


class Uneven(ScriptedCapture):
    """Other packets in each drain."""

    seen = 0

    def _batch(self) -> FlowBatch:
        batch = super()._batch()
        packets = 1 + np.arange(self.flows) * 7 * self.drains % 11
        self.seen += int(packets.sum())
        batch.counters["packets"], batch.counters["octets"] = packets, packets * 100
        batch.observations["packets"] = batch.observations["frames"] = self.seen
        batch.observations["octets"] = self.seen * 100
        return batch


async def until(pilot: Pilot[None], shown: Callable[[Page], bool]) -> Page:
    """The first such page on view."""
    assert isinstance(pilot.app, FlowtopApp)
    async with asyncio.timeout(60):
        while (page := pilot.app.main.page) is None or not shown(page):
            await pilot.pause(0.01)
    return page


@pytest.mark.parametrize("keys", [(), ("g", "g", "g", "g", "enter", "down")])
async def test_what_the_real_pipeline_shows_of_the_past_was_on_screen_then(keys: tuple[str, ...]) -> None:
    config = PipelineConfig(delay_s=0.15, first_delay_s=0.01, past_s=300)
    app = FlowtopApp(lambda: Pipeline(config, Uneven(flows=15)), Query(sort="source", descending=False))
    async with app.run_test(size=(120, 30)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        await until(pilot, lambda page: page.tick >= 2)
        seen: dict[int, tuple[list[str], int | None, tuple[FlowRow, ...]]] = {}
        await pilot.press(*keys)
        while len(seen) < 6:
            await asyncio.sleep(0.02)
            page = app.main.page
            assert page is not None and not page.past
            if page.tick > 4 and page.query == app.main.questions.asked:
                seen[page.tick] = flow_lines(app), cursor_line(app), page.rows
        await pilot.press("space")
        assert app.main.page is not None
        for tick in range(app.main.page.tick - 1, min(seen) - 1, -1):
            await pilot.press(BACK)
            page = await until(pilot, lambda page, tick=tick: page.past and page.tick == tick)  # type: ignore[misc]
            if tick in seen:
                assert (flow_lines(app), cursor_line(app), page.rows) == seen[tick]
        await pilot.press("q")


async def test_counters_beside_a_list_of_the_past_say_that_they_are_of_now() -> None:
    source = FakeSource(at_tick(1))
    async with running(source, 120) as pilot:
        await pass_ticks(pilot, source, 5)
        assert "now:" not in line(pilot.app, -2)
        await pilot.press(BACK)
        assert line(pilot.app, -2).split()[0] == "now:"
        await pilot.press("space")
        assert "now:" not in line(pilot.app, -2)


@pytest.mark.parametrize(("tick", "kept", "uptime_s", "mark", "expected"), [
    (300, Kept(1, 300, 299.0), 300.0, None, 180),
    (100, Kept(1, 300, 299.0), 300.0, None, 10),  # two minutes before is before the start
    (30, Kept(1, 30, 29.0), 30.0, None, 10),  # the first one whose rates are over 10 s
    (600, Kept(1, 600, 299.5), 300.0, None, 360),  # two ticks a second
    (10, Kept(1, 10, 9.0), 10.0, None, "too early to compare: rates over 10 s need 10 s"),
    (700, Kept(700, 1000, 300.0), 1000.0, None, "nothing before this moment is kept"),
    (800, Kept(700, 1000, 300.0), 1000.0, None, 700),
    (300, Kept(1, 300, 299.0), 300.0, 250, 250),
    (200, Kept(1, 300, 299.0), 300.0, 250, 80),  # the mark came later
    (300, Kept(1, 300, 299.0), 300.0, 3, 10),
    (1, Kept(1, 1, 0.0), 1.0, None, "there is no past yet to compare with"),
])
def test_what_is_compared_is_later_than_what_it_is_compared_with(
        tick: int, kept: Kept, uptime_s: float, mark: int | None, expected: int | str) -> None:
    now = FakeSource(FLOWS[:1]).page(Query())
    assert moment_before(tick, replace(now, kept=kept, uptime_s=uptime_s), mark) == expected


async def test_a_comparison_in_the_past_is_with_what_was_before_and_stays_so_further_back() -> None:
    source = FakeSource(at_tick(1))
    async with running(source, 120) as pilot:
        await pass_ticks(pilot, source, 200)
        await pilot.press(*[FAR_BACK] * 5, "d")
        assert source.asked[-1].at == 151 and source.asked[-1].compare == 31
        await pilot.press(*[FAR_BACK] * 13)
        assert source.asked[-1].at == 21 and source.asked[-1].compare == 1
        await pilot.press(*[FAR_BACK] * 2)
        assert source.asked[-1].at == 1 and source.asked[-1].compare is None
        assert "no longer compared: nothing before this moment is kept" in line(pilot.app, -1)
