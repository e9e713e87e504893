"""The manual on the screen: from help to a list of its pages, to a page, and back."""

from __future__ import annotations

from textual.pilot import Pilot

from flowtop.text import manual
from flowtop.tui.keys import HELP_KEYS, MANUAL_KEYS
from flowtop.tui.panels.help import HelpScreen
from flowtop.tui.panels.manual import ManualScreen
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import lines, running

FLOWS = random_flows(5)


async def shown(pilot: Pilot[None], *keys: str) -> list[str]:
    """Lines of the screen after some keys, without the box around them."""
    await pilot.press(*keys)
    await pilot.pause()
    await pilot.pause()
    return [text.strip().strip("│╭╰").rstrip(" ▁▂▃▄▅▆▇█").strip() for text in lines(pilot.app)]


async def test_help_says_how_to_come_to_the_manual() -> None:
    async with running(FakeSource(FLOWS), 80, 24) as pilot:
        assert any("m manual" in text for text in await shown(pilot, "question_mark"))


async def test_the_list_has_every_page_with_its_title() -> None:
    async with running(FakeSource(FLOWS), 80, 30) as pilot:
        screen = await shown(pilot, "question_mark", "m")
        assert "flowtop manual: pages" in screen[0]
        listed = [text.split(maxsplit=1) for text in screen[1:1 + len(manual.topics())]]
        assert listed == [[topic, manual.title(topic)] for topic in manual.topics()]


async def test_enter_shows_the_page_and_escape_goes_back_a_step_each() -> None:
    async with running(FakeSource(FLOWS), 80, 24) as pilot:
        screen = await shown(pilot, "question_mark", "enter", "down", "j", "k", "down", "enter")
        assert "flowtop manual: filters" in screen[0]
        assert screen[1] == "Filters"
        assert any("flowtop -i eth0 tcp and not private" in text for text in screen)
        assert "flowtop manual: pages" in (await shown(pilot, "escape"))[0]
        await shown(pilot, "escape")
        assert isinstance(pilot.app.screen, HelpScreen)
        await shown(pilot, "escape")
        assert not isinstance(pilot.app.screen, HelpScreen)


async def test_a_page_scrolls_by_lines_and_screens() -> None:
    async with running(FakeSource(FLOWS), 80, 24) as pilot:
        first = await shown(pilot, "question_mark", "m", "down", "enter")
        one_on = await shown(pilot, "j")
        assert one_on[1:-2] == first[2:-1]
        assert await shown(pilot, "up") == first
        assert await shown(pilot, "pagedown") != first
        assert "Colours" in await shown(pilot, "end"), "the last heading of the page"
        assert await shown(pilot, "home") == first


async def test_a_page_is_laid_out_again_when_the_terminal_changes() -> None:
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        wide = await shown(pilot, "question_mark", "m", "enter")
        await pilot.resize_terminal(60, 24)
        narrow = await shown(pilot)
        assert wide[1] == narrow[1] == "Quick start"
        assert max(map(len, narrow)) <= 60 and wide != narrow


async def test_the_cursor_of_a_long_list_stays_in_view() -> None:
    async with running(FakeSource(FLOWS), 80, 10) as pilot:
        screen = await shown(pilot, "question_mark", "m", *["down"] * 40)
        assert any(text.startswith(manual.topics()[-1]) for text in screen)
        screen = await shown(pilot, *["up"] * 40)
        assert any(text.startswith(manual.topics()[0]) for text in screen)


async def test_pages_and_ends_of_the_list() -> None:
    async with running(FakeSource(FLOWS), 80, 24) as pilot:
        await shown(pilot, "question_mark", "m", "pagedown")
        assert manual.topics()[10] in (await shown(pilot, "enter"))[0]
        assert manual.topics()[-1] in (await shown(pilot, "escape", "end", "enter"))[0]
        assert manual.topics()[0] in (await shown(pilot, "escape", "home", "enter"))[0]


async def test_keys_typed_ahead_of_the_screen_do_no_harm() -> None:
    async with running(FakeSource(FLOWS), 80, 24) as pilot:
        screen = ManualScreen()
        mounted = pilot.app.push_screen(screen)
        screen.action_move(1)
        screen.action_open()
        await mounted
        screen.action_close()
        screen.action_close()
        screen.action_close()
        await pilot.pause()
        assert pilot.app.screen is not screen


def test_no_key_is_bound_twice() -> None:
    for keys in (HELP_KEYS, MANUAL_KEYS):
        names = [name for key in keys for name in key.names]
        assert len(names) == len(set(names))
