"""What is sent to the terminal: exactly what changed, so that a terminal that got only that shows the whole truth."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from rich.style import Style

from flowtop.model.rows import FlowRow
from flowtop.query.query import TrafficHistory
from flowtop.tui.app import FlowtopApp
from flowtop.tui.widgets import flow_table
from tests.tui.fake_source import START_MS, FakeSource, flow, random_flows
from tests.tui.screen import list_height, running, screen_strips, terminal_lines

FLOWS = random_flows(500)


class Terminal:
    """The little of a terminal that textual's updates need: cursor addressing, text, line feeds, SGR ignored."""

    def __init__(self, app: FlowtopApp, width: int, height: int) -> None:
        self.cells = [[" "] * width for _ in range(height)]
        self.octets = 0
        display = app._display

        def hook(screen: Any, renderable: Any) -> None:
            if renderable is not None:
                self.write(renderable.render_segments(app.console))
            display(screen, renderable)

        app._display = hook  # type: ignore[method-assign]

    def write(self, output: str) -> None:
        """Do what a terminal does."""
        self.octets += len(output.encode())
        x = y = 0
        for move_y, move_x, feed, text in re.findall(r"\x1b\[(\d+);(\d+)H|(\n)|([^\x1b\n]+)|\x1b\[[\d;]*m", output):
            if move_y:
                x, y = int(move_x) - 1, int(move_y) - 1
            elif feed:
                x, y = 0, y + 1
            else:
                self.cells[y][x:x + len(text)] = text
                x += len(text)

    @property
    def lines(self) -> list[str]:
        """What the terminal shows."""
        return ["".join(row) for row in self.cells]


def grown(flows: list[FlowRow], tick: int) -> list[FlowRow]:
    """The same order, other rates and counts."""
    return [row._replace(octet_rate=row.octet_rate * (1 + tick / 50), octet_rate_10s=row.octet_rate * (1 + tick / 70),
                         octet_total=row.octet_total * (10 + tick) // 10, packet_total=row.packet_total + 37 * tick,
                         age_s=row.age_s + tick) for row in flows]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
async def test_terminal_shows_the_truth_after_any_keys_and_ticks(width: int, height: int) -> None:
    source = FakeSource(FLOWS)
    async with running(source, width, list_height(height)) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        terminal = Terminal(app, width, height)
        app.screen.refresh()
        await pilot.pause()
        keys = "down down pagedown s r F end home b o 2 S space up space escape question_mark escape 1"
        for tick, key in enumerate(keys.split()):
            source.tick(grown(FLOWS, tick) if tick % 3 else random_flows(500 - tick, seed=tick))
            await pilot.pause()
            await pilot.press(key)
            await pilot.pause(0.05)
            assert terminal.lines == terminal_lines(app), key


async def test_a_tick_that_changes_only_rates_sends_under_3_kb_at_160x50_with_a_chart() -> None:
    source = FakeSource(FLOWS)
    source.history = TrafficHistory(tuple(START_MS + 1_000 * second for second in range(-300, 10)), (1.0,) * 310,
                                    tuple(1e6 + 9e5 * math.sin(second / 5) for second in range(310)), (3e5,) * 310)
    async with running(source, 160, list_height(50)) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        terminal = Terminal(app, 160, 50)
        for tick in range(1, 6):
            before = terminal.octets
            source.tick(grown(FLOWS, tick))
            await pilot.pause(0.05)
            assert 1_000 < terminal.octets - before < 3_000
        assert sum(text.count("⣿") for text in terminal_lines(app)) > 100, "a full chart"


async def test_a_tick_that_changes_nothing_sends_no_flows() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 160, list_height(50)) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        terminal = Terminal(app, 160, 50)
        source.tick()
        await pilot.pause(0.05)
        assert terminal.octets < 1_000, "the clock and the packets seen"


@pytest.mark.parametrize(("ended_s", "linger_s", "dim"), [
    (0.0, 9.0, (False, False)), (2.9, 9.0, (False, False)), (3.1, 9.0, (False, True)), (6.1, 9.0, (True, True)),
    (500.0, 9.0, (True, True)), (0.0, 0.0, (True, True)), (500.0, 1e9, (False, False)),
])
async def test_an_ended_flow_fades_over_the_time_it_stays(
        ended_s: float, linger_s: float, dim: tuple[bool, bool]) -> None:
    source = FakeSource([flow(1, "10.0.0.1", "10.0.0.2", (5000, 80), octets=123_000_000, end_reason=1,
                              ended_s=ended_s)])
    source.linger_s = linger_s
    async with running(source) as pilot:
        strip = screen_strips(pilot.app)[3]
        found = {words: bool(segment.style and segment.style.dim)
                 for segment in strip for words in segment.text.split()}
        assert (found["10.0.0.1:5000"], found["MB"]) == dim
        assert "end" in found, "no colour is needed to tell it"


@pytest.mark.parametrize("room", range(14))
def test_a_line_is_cut_or_filled_to_its_room_in_whatever_style(room: int) -> None:
    bold, dim = Style(bold=True), Style(dim=True)
    segments = flow_table._segments(flow_table._Line(("abc", "de", "f"), (bold, dim, bold)), 1, room)
    text = "".join(segment.text for segment in segments)
    assert text == " abc de f".ljust(room)[:room]
    assert {segment.style for segment in segments if "d" in segment.text} <= {dim}
