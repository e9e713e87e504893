"""The first minute: a row is selected, hints fit what one looks at and can be clicked, the palette has things to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from textual.pilot import Pilot

from flowtop.model.rows import FlowRow
from flowtop.tui import theme
from flowtop.tui.app import FlowtopApp
from flowtop.tui.panels.details import DetailsScreen
from flowtop.tui.saved import Looks, SavedView, opening_looks
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import cursor_line, flow_lines, line, lines, running, screen_strips

FLOWS: list[FlowRow] = [flow(number, f"198.51.100.{number}", "10.0.0.5", (443, 51514 + number), rate=9e6 - number)
                        for number in range(1, 6)]


def underlined(pilot: Pilot[None]) -> list[int]:
    """Lines of the list whose first cell is underlined."""
    strips = screen_strips(pilot.app)[3:-2]
    return [number for number, strip in enumerate(strips)
            if any(segment.style is not None and segment.style.underline and segment.text.strip()
                   for segment in strip)]


async def test_the_first_row_is_selected_whichever_it_is_until_there_is_a_cursor() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 100) as pilot:
        assert underlined(pilot) == [0] and "198.51.100.1:" in flow_lines(pilot.app)[0]
        faster = [FLOWS[0], FLOWS[1]._replace(octet_rate=1e8, octet_rate_10s=1e8, octet_delta=100_000_000)]
        source.tick(faster)
        await pilot.pause()
        assert underlined(pilot) == [0] and "198.51.100.2:" in flow_lines(pilot.app)[0]
        await pilot.press("down")
        assert cursor_line(pilot.app) == 0 and underlined(pilot) == []


async def test_enter_does_something_at_once() -> None:
    async with running(FakeSource(FLOWS), 100) as pilot:
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, DetailsScreen)
        await pilot.press("escape", "2", "enter")
        await pilot.pause()
        assert "all › 10.0.0.5" in line(pilot.app, 1), "the only host at the remote end"


async def test_hints_are_of_what_one_looks_at() -> None:
    async with running(FakeSource(FLOWS), 120) as pilot:
        assert line(pilot.app, -1).startswith(" Enter details ") and " g group " in line(pilot.app, -1)
        await pilot.press("2")
        assert line(pilot.app, -1).startswith(" Enter open ")
        await pilot.press("enter")
        assert "Backspace back" in line(pilot.app, -1)
        await pilot.press("f")
        assert "Esc clear filter" in line(pilot.app, -1) and "2 whole list" in line(pilot.app, -1)
        await pilot.press("space")
        assert "Space now" in line(pilot.app, -1)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
async def test_g_is_always_among_the_hints(width: int) -> None:
    async with running(FakeSource(FLOWS), width) as pilot:
        for keys in ((), ("2",), ("enter",), ("f",), ("space",)):
            await pilot.press(*keys)
            await pilot.pause()
            assert " g group" in line(pilot.app, -1), keys
            assert "? help" in line(pilot.app, -1) and "q quit" in line(pilot.app, -1)


async def test_a_click_on_a_hint_is_its_key() -> None:
    async with running(FakeSource(FLOWS), 120) as pilot:
        status = pilot.app.screen.query_one("StatusLine")
        await pilot.click(status, offset=(line(pilot.app, -1).index("pause"), 1))
        await pilot.pause()
        assert "PAUSED" in line(pilot.app, 1)
        await pilot.click(status, offset=(line(pilot.app, -1).index("details"), 1))
        await pilot.pause()
        assert isinstance(pilot.app.screen, DetailsScreen)


async def test_the_palette_has_things_to_do() -> None:
    async with running(FakeSource(FLOWS), 160) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        offered = {command.title: command.callback for command in app.get_system_commands(app.screen)}
        assert {"Sort by BYTES", "Group by subnet", "View Hosts", "Record to file", "Show column VLAN"} <= set(offered)
        offered["Sort by BYTES"]()
        await pilot.pause()
        assert "BYTES↓" in line(pilot.app, 2)
        offered["Show column VLAN"]()
        await pilot.pause()
        assert " VLAN " in line(pilot.app, 2)
        offered = {command.title: command.callback for command in app.get_system_commands(app.screen)}
        offered["Hide column VLAN"]()
        await pilot.pause()
        assert " VLAN " not in line(pilot.app, 2)
        offered["Group by subnet"]()
        await pilot.pause()
        assert "198.51.100.0/24" in flow_lines(pilot.app)[0]


async def test_the_hint_of_the_first_run_is_dismissed_for_good() -> None:
    kept: list[SavedView] = []
    source = FakeSource(FLOWS)
    app = FlowtopApp(lambda: source, looks=Looks(greet=True, keep=kept.append))
    async with app.run_test(size=(80, 25)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        source.tick()
        await pilot.pause()
        assert "New here? try" in line(app, -1) and "Esc hides this for good" in line(app, -1)
        await pilot.press("down", "2")
        assert "New here?" in line(app, -1), "until Escape"
        await pilot.press("escape")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "New here?" not in line(app, -1) and " g group" in line(app, -1)
        assert [view.greeted for view in kept] == [True]


def test_it_is_shown_until_it_was_dismissed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    environment = {"XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}

    def looks() -> Looks:
        return opening_looks(environment, os.geteuid(), hosts=False, services=False, theme=None)

    first = looks()
    if first.keep is None:
        pytest.fail("this user has no state directory")
    assert first.greet
    first.keep(SavedView(greeted=True))
    assert not looks().greet


async def test_greater_and_less_follow_the_columns_of_the_view() -> None:
    async with running(FakeSource(FLOWS), 160) as pilot:
        await pilot.press("2")
        head = line(pilot.app, 2).split()
        before = next(word for word in head if word.endswith("↓"))
        await pilot.press("greater_than_sign")
        await pilot.pause()
        after = next(word for word in line(pilot.app, 2).split() if word[-1] in "↓↑")
        assert head[head.index(before) + 1] == after[:-1]
        await pilot.press("less_than_sign", "less_than_sign")
        await pilot.pause()
        after = next(word for word in line(pilot.app, 2).split() if word[-1] in "↓↑")
        assert head[head.index(before) - 1] == after[:-1]


def test_severities_have_styles() -> None:
    assert len(theme.SEVERITIES) == 4


@pytest.mark.parametrize("key", ["s", "g", "C"])
async def test_a_list_that_scrolls_says_how_much_is_beyond(key: str) -> None:
    async with running(FakeSource(FLOWS), 80, 24) as pilot:
        await pilot.press(key)
        await pilot.pause()
        marks = []
        for jump in ("home", "end"):
            await pilot.press(jump)
            await pilot.pause()
            found = [match for text in lines(pilot.app) if (match := re.search(r"([↑↓]) (\d+) more", text))]
            assert len(found) == 1
            marks.append((found[0][1], int(found[0][2])))
        assert [arrow for arrow, _ in marks] == ["↓", "↑"] and marks[0][1] == marks[1][1] > 0


async def test_details_say_that_more_is_below() -> None:
    async with running(FakeSource(FLOWS), 80, 14) as pilot:
        await pilot.press("enter")
        await pilot.pause()
        await pilot.pause()
        assert "PgDn: more below" in lines(pilot.app)[-1]
        for _ in range(3):
            await pilot.press("pagedown")
        await pilot.pause()
        assert "PgDn: more below" not in lines(pilot.app)[-1]
