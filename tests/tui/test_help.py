"""Help: every key on one page of the smallest screen, every word behind it."""

from __future__ import annotations

import re

import pytest

from flowtop.fields.registry import COLUMNS
from flowtop.filters.words import WORDS
from flowtop.tui.keys import COLUMN_KEYS, EXPORT_KEYS, GROUP_KEYS, KEYS, MOUSE
from flowtop.tui.panels.help import ACCURACY, TOGETHER, WIDTH, HelpScreen, key_lines, key_page
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import lines, running


async def test_every_key_is_on_one_page_of_the_smallest_screen() -> None:
    async with running(FakeSource(random_flows(5)), 80, 24) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        screen = "\n".join(lines(pilot.app))
        assert "flowtop help" in screen and "Esc closes" in screen, "the whole box is in view"
        assert "…" not in screen, "nothing is cut off"
        for key in KEYS:
            assert any(cap in re.split(r"\s+|│", screen) for cap in key.caps.split()), key.caps
        for _, entries in key_lines():
            for _, words in entries:
                assert words in screen


def test_no_key_is_left_out_and_none_is_there_twice() -> None:
    caps = [cap for _, entries in key_lines() for found, _ in entries for cap in found.split()]
    assert len(caps) == len(set(caps))
    assert {key.caps.split()[0] for key in KEYS} <= set(caps)


def test_lines_of_the_page_are_of_one_width_and_fit() -> None:
    assert {len(line) for line in key_page().plain.split("\n")} == {WIDTH}


def test_what_stands_together_is_there() -> None:
    assert {action for actions in TOGETHER for action in actions} <= {key.action for key in KEYS}


@pytest.mark.parametrize("keys", [("tab",), ("right",), ("left", "left"), ("shift+tab", "shift+tab")])
async def test_the_second_page_has_the_words_on_screen(keys: tuple[str, ...]) -> None:
    async with running(FakeSource(random_flows(5)), 80, 260) as pilot:
        await pilot.press("question_mark", *keys)
        await pilot.pause()
        screen = " ".join(" ".join(text.strip("│ ") for text in lines(pilot.app)).split())
        for doc in [*(column.doc for column in COLUMNS.values()), *(doc for _, doc in (*ACCURACY, *MOUSE)),
                    *(key.doc for key in (*EXPORT_KEYS, *COLUMN_KEYS, *GROUP_KEYS))]:
            assert doc in screen


async def test_the_third_page_has_the_words_of_filters_and_a_fourth_tab_is_the_first_page_again() -> None:
    async with running(FakeSource(random_flows(5)), 80, 260) as pilot:
        await pilot.press("question_mark", "tab", "tab")
        await pilot.pause()
        screen = " ".join(" ".join(text.strip("│ ") for text in lines(pilot.app)).split())
        for word in WORDS:
            assert " ".join(word.doc.split()) in screen
            assert word.example in screen
        await pilot.press("tab")
        await pilot.pause()
        assert any("Freeze the order" in text for text in lines(pilot.app))


async def test_a_page_that_is_longer_than_the_screen_scrolls() -> None:
    async with running(FakeSource(random_flows(5)), 80, 24) as pilot:
        await pilot.press("question_mark", "tab")
        await pilot.pause()
        before = lines(pilot.app)
        await pilot.press("j", "j")
        await pilot.pause()
        assert lines(pilot.app) != before
        await pilot.press("end")
        await pilot.pause()
        assert any(COLUMN_KEYS[-1].doc in text for text in lines(pilot.app))
        assert isinstance(pilot.app.screen, HelpScreen)
