"""Trouble on screen: chips beside the views, that fit and never blink, and the key that shows their flows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowtop.cli.sources import choose_source
from flowtop.errors import FlowtopError
from flowtop.pipeline.drive import PipelineConfig
from flowtop.query.trouble import DEFAULTS, Trouble
from flowtop.query.views import VIEWS
from flowtop.tui import theme
from flowtop.tui.app import FlowtopApp
from flowtop.tui.widgets.header import LEAST_CHIP, MOST_CELLS, chip_texts, tabs_line
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import line, running, terminal_lines
from tests.unit.cli.command_line import options

SCAN = Trouble("scan", "scan? 203.0.113.66", "1,620 ports", "flows", "src host 203.0.113.66")
FLOOD = Trouble("flood", "SYN flood? 2001:db8:1111:2222:3333:4444:5555:6666", "30,000 half-open to port 443", "flows",
                "dst port 443")
RETRANSMITS = Trouble("retransmits", "retransmits 12 %", "64 of 533 segments in 10 s", "flows", "retransmits",
                      "retransmits")
TABS = tuple((str(number), view.name, number == 1) for number, view in enumerate(VIEWS, 1))
FLOWS = [flow(1, "203.0.113.66", "10.0.0.5", (55555, 443), rate=9e6),
         flow(2, "198.51.100.8", "10.0.0.5", (80, 51515), rate=8e6)]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("troubles", [(), (SCAN,), (FLOOD,), (SCAN, RETRANSMITS), (FLOOD, SCAN, RETRANSMITS)])
def test_the_line_of_views_fits_with_any_of_it(width: int, troubles: tuple[Trouble, ...]) -> None:
    strip = tabs_line(TABS, width, troubles)
    assert strip.cell_length == len(strip.text) == width
    chips = chip_texts(TABS, troubles, width)
    assert sum(map(len, chips)) + max(0, len(chips) - 1) <= max(MOST_CELLS, width // 2)
    assert bool(chips) == bool(troubles)
    if width >= 80:
        assert all(f" {number} {view.name}" in strip.text for number, view in enumerate(VIEWS, 1)), "views stay"
    if not troubles:
        assert strip.text == tabs_line(TABS, width).text
    elif width >= LEAST_CHIP + 2:
        assert strip.text.rstrip().endswith(chips[-1])


def test_who_it_is_stays_where_there_is_little_room() -> None:
    assert chip_texts(TABS, (SCAN,), 80) == ["a scan? 203.0.113.66"]
    assert chip_texts(TABS, (SCAN,), 120) == ["a scan? 203.0.113.66: 1,620 ports"]
    assert chip_texts(TABS, (SCAN, RETRANSMITS), 120) == ["a scan? 203.0.113.66: 1,620 ports", "retransmits 12 %"]
    assert "…" in chip_texts(TABS, (FLOOD,), 100)[0], "what is cut has a mark"


TALKER = Trouble("talker", "new talker 203.0.113.9", "+60.0 Mb/s", "flows", "host 203.0.113.9")


@pytest.mark.parametrize(("width", "troubles", "expected"), [
    (80, (SCAN, TALKER), ["a scan? talker"]),
    (80, (SCAN, RETRANSMITS), ["a scan? retransmits"]),
    (80, (SCAN, replace(TALKER, within_s=10)), ["a scan? (talker)"]),
    (80, (SCAN, RETRANSMITS, TALKER), ["a scan? +2"]),
    (90, (SCAN, TALKER), ["a scan? 203.0.113.66 talker"]),
    (120, (SCAN, TALKER), ["a scan? 203.0.113.66: 1,620 ports new talker 203.0.113.9"]),
    (120, (SCAN, RETRANSMITS, TALKER), ["a scan? 203.0.113.66 retransmits 12 % new talker 203.0.113.9"]),
    (200, (SCAN, RETRANSMITS, TALKER), [
        "a scan? 203.0.113.66: 1,620 ports retransmits 12 % new talker 203.0.113.9: +60.0 Mb/s"]),
])
def test_none_hides_behind_another(width: int, troubles: tuple[Trouble, ...], expected: list[str]) -> None:
    """Of 80 columns the names of the views take 57: 22 are left, of 120 they leave 60."""
    assert [" ".join(chip_texts(TABS, troubles, width))] == expected


def test_it_stands_out() -> None:
    strip = tabs_line(TABS, 120, (SCAN,))
    assert next(segment.style for segment in strip if "scan?" in segment.text) == theme.TROUBLE


async def test_the_key_shows_its_flows_and_the_next_one_after_it() -> None:
    source = FakeSource(FLOWS)
    source.troubles = (SCAN, RETRANSMITS)
    async with running(source, 120) as pilot:
        views = next(text for text in terminal_lines(pilot.app) if " 2 Hosts " in text)
        assert "a scan? 203.0.113.66: 1,620 ports" in views
        await pilot.press("2", "slash", *"port 80", "enter", "a")
        assert "filter src host 203.0.113.66" in line(pilot.app, 1) and "1 of 2 flows" in line(pilot.app, 1)
        assert "scan? 203.0.113.66: 1,620 ports" in line(pilot.app, -1)
        await pilot.press("a")
        assert "filter retransmits" in line(pilot.app, 1) and "by RETR↓" in line(pilot.app, 1)
        await pilot.press("a")
        assert "filter src host 203.0.113.66" in line(pilot.app, 1), "around"
        assert "clears the filter" in line(pilot.app, -1)
        await pilot.press("backslash")
        assert "filter" not in line(pilot.app, 1) and "quit" in line(pilot.app, -1), "the message is about another list"
        await pilot.press("slash", "up", "up")
        assert "port 80" in line(pilot.app, 1) or "retransmits" in line(pilot.app, 1), "filters of before are kept"


async def test_a_click_shows_it_too_and_views_can_still_be_clicked() -> None:
    source = FakeSource(FLOWS)
    source.troubles = (SCAN, RETRANSMITS)
    async with running(source, 120) as pilot:
        header = pilot.app.screen.query_one("Header")
        row = next(y for y, text in enumerate(terminal_lines(pilot.app)) if " 2 Hosts " in text)
        text = terminal_lines(pilot.app)[row]
        await pilot.click(header, offset=(text.index("retransmits") + 3, row))
        await pilot.pause()
        assert "filter retransmits" in line(pilot.app, 1)
        await pilot.click(header, offset=(text.index("2 Hosts") + 3, row))
        await pilot.pause()
        assert isinstance(pilot.app, FlowtopApp) and pilot.app.main.views.current.id == "hosts"


async def test_there_is_nothing_when_nothing_is_wrong() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 80) as pilot:
        before = terminal_lines(pilot.app)
        source.troubles = (SCAN,)
        source.tick()
        await pilot.pause()
        assert any("a scan?" in text for text in terminal_lines(pilot.app))
        source.troubles = ()
        source.tick()
        await pilot.pause()
        views = next(text for text in terminal_lines(pilot.app) if " 2 Hosts " in text)
        assert views in before


async def test_it_is_of_now_while_the_display_is_paused() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 120) as pilot:
        await pilot.press("space")
        source.troubles = (SCAN,)
        source.tick()
        await pilot.pause()
        assert any("a scan?" in text for text in terminal_lines(pilot.app))


def pipeline_config(tmp_path: Path, text: str) -> PipelineConfig:
    """What the settings file makes of the screen's pipeline."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    return choose_source(options("--config", str(path))).pipeline_config()


def test_the_settings_file_has_thresholds(tmp_path: Path) -> None:
    limits = pipeline_config(tmp_path, '[trouble]\nscan = 7\ntalker = "8Mbit"\nflood = 0\n').trouble
    assert limits is not None
    assert (limits["scan"], limits["talker"], limits["flood"]) == (7, 1_000_000, 0)
    assert limits["unanswered"] == DEFAULTS["unanswered"]


@pytest.mark.parametrize(("text", "words"), [
    ("[trouble]\nscans = 7", "scans"), ('[trouble]\nscan = "lots"', "scan"), ("[trouble]\nscan = [1]", "thresholds"),
    ("trouble = 3", "thresholds"), ("[trouble]\nscan = true", "thresholds")])
def test_what_is_wrong_with_thresholds_is_said_before_anything_begins(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FlowtopError, match=words):
        pipeline_config(tmp_path, text)


def test_batch_output_looks_for_no_trouble() -> None:
    assert choose_source(options("-b")).pipeline_config().trouble is None
