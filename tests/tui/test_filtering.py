"""The filter bar and filtering by cell: what is asked, what is shown, what is taken back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widget import Widget

from flowtop.filters.filter import compile_filter
from flowtop.model.rows import FlowRow
from flowtop.query.query import Query
from flowtop.tui.app import FlowtopApp
from flowtop.tui.widgets.candidates import Candidates
from tests.tui.fake_source import FakeSource, flow, random_flows
from tests.tui.screen import cursor_line, flow_lines, line, lines, place, running, screen_strips, shown, terminal_lines

FLOWS = random_flows(200)
BY_RATE = [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate)]
LINES = 19


PASSING: dict[str, Callable[[FlowRow], bool]] = {
    "tcp": lambda row: row.protocol == 6, "udp": lambda row: row.protocol == 17,
    "port 22": lambda row: 22 in (row.source_port, row.destination_port),
    "port 443": lambda row: 443 in (row.source_port, row.destination_port),
    **dict.fromkeys(("tcp and port 22", "port 22 and tcp"),
                    lambda row: row.protocol == 6 and 22 in (row.source_port, row.destination_port)),
    "port 22 and udp": lambda row: row.protocol == 17 and 22 in (row.source_port, row.destination_port)}
"""What filters let pass."""


def ids(text: str) -> list[int]:
    """The flows that pass, by rate."""
    return [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate) if PASSING[text](row)]


async def settle(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait until it holds; a test that waits for ever fails by pytest's patience."""
    async with asyncio.timeout(10):
        while not condition():
            await pilot.pause(0.01)
    await pilot.pause()


async def type_filter(pilot: Pilot[None], source: FakeSource, text: str) -> None:
    """`/`, the text, and the list that it means."""
    await pilot.press("slash", *text)
    await settle(pilot, lambda: str(getattr(source.asked[-1].filter, "text", "")) == text)


def typed(pilot: Pilot[None]) -> str:
    """What stands in the bar, without the prompt and the count."""
    return line(pilot.app, 1).removeprefix(" / ").split("  ")[0].rstrip()


def main(pilot: Pilot[None]) -> FlowtopApp:
    assert isinstance(pilot.app, FlowtopApp)
    return pilot.app


# ---- typing

async def test_the_list_follows_the_text_and_says_how_many_of_how_many() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await type_filter(pilot, source, "port 443")
        assert shown(pilot.app) == ids("port 443")[:LINES]
        assert f"{len(ids('port 443'))} of 200 flows" in line(pilot.app, 1)
        assert "Enter keep   Esc back" in line(pilot.app, -1) and "quit" not in line(pilot.app, -1)
        await pilot.press("enter")
        assert "q quit" in line(pilot.app, -1)
        assert "filter port 443" in line(pilot.app, 1)
        assert f"{len(ids('port 443'))} of 200 flows" in line(pilot.app, 1)
        source.tick()
        await pilot.pause()
        assert shown(pilot.app) == ids("port 443")[:LINES]


async def test_unfinished_and_wrong_text_keeps_the_last_good_filter_and_says_where_and_what() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await type_filter(pilot, source, "tcp")
        for text, place, words in ((" and", len("tcp and"), "expected"), (" porrt", len("tcp and "), "porrt")):
            await pilot.press(*text)
            await settle(pilot, lambda words=words: words in line(pilot.app, 2))  # type: ignore[misc]
            assert line(pilot.app, 2).index("^") == len(" / ") + place
            assert shown(pilot.app) == ids("tcp")[:LINES]
            assert f"{len(ids('tcp'))} of 200 flows" in line(pilot.app, 1)
        assert typed(pilot) == "tcp and porrt"


async def test_enter_on_a_wrong_text_stays_and_mending_it_goes_on() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await type_filter(pilot, source, "tcp")
        await pilot.press(*" and", "enter")
        await settle(pilot, lambda: "is incomplete" in line(pilot.app, 2))
        assert typed(pilot) == "tcp and"
        await pilot.press(*" port 22", "enter")
        await settle(pilot, lambda: "filter tcp and port 22" in line(pilot.app, 1))
        assert shown(pilot.app) == ids("tcp and port 22")[:LINES]
        assert "RATE" in line(pilot.app, 2)


async def test_escape_restores_the_filter_from_before() -> None:
    source = FakeSource(FLOWS)
    async with running(source, query=Query(filter=compile_filter("udp"))) as pilot:
        assert shown(pilot.app) == ids("udp")[:LINES]
        await pilot.press("slash", "ctrl+u", *"port 22")
        await settle(pilot, lambda: shown(pilot.app) == ids("port 22")[:LINES])
        await pilot.press("escape")
        await pilot.pause()
        assert shown(pilot.app) == ids("udp")[:LINES]
        assert "filter udp" in line(pilot.app, 1)


async def test_an_emptied_line_means_all_flows() -> None:
    source = FakeSource(FLOWS)
    async with running(source, query=Query(filter=compile_filter("udp"))) as pilot:
        await pilot.press("slash", "ctrl+u", "enter")
        await settle(pilot, lambda: shown(pilot.app) == BY_RATE[:LINES])
        assert "filter" not in line(pilot.app, 1)
        assert "1–19 of 200" in line(pilot.app, 1)


async def test_a_filter_that_no_flow_passes_says_how_to_get_out() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await type_filter(pilot, source, "port 9")
        await pilot.press("enter")
        await settle(pilot, lambda: any("no flows match" in text for text in lines(pilot.app)))
        words = next(text for text in lines(pilot.app) if "no flows match" in text)
        assert "/" in words
        assert "\\" in words
        assert "0 of 200 flows" in line(pilot.app, 1)
        await pilot.press("backslash")
        assert shown(pilot.app) == BY_RATE[:LINES]


async def test_line_editing_as_in_readline() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press("slash", *"port 22 or port 443", "ctrl+w", *"80", "ctrl+a", *"udp or ")
        assert typed(pilot) == "udp or port 22 or port 80"
        await pilot.press("ctrl+e", "backspace", "0", "home", "ctrl+right", "ctrl+k")
        assert typed(pilot) == "udp"
        await pilot.press("ctrl+u", *"port 10/8")
        assert typed(pilot) == "port 10/8"


async def test_history_comes_back_with_up_and_down() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        for text in ("port 22", "port 53", "port 22", "port 80"):
            await pilot.press("slash", "ctrl+u", *text, "enter")
            await settle(pilot, lambda text=text: f"filter {text}" in line(pilot.app, 1))  # type: ignore[misc]
        await pilot.press("slash", "ctrl+u", "t", "up")
        assert typed(pilot) == "port 80"
        await pilot.press("up")
        assert typed(pilot) == "port 22"
        await pilot.press("up")
        assert typed(pilot) == "port 53"
        await pilot.press("up")
        assert typed(pilot) == "port 53", "each once"
        await pilot.press("down", "down", "down")
        assert typed(pilot) == "t"


async def test_keys_typed_in_one_burst_act_in_order() -> None:
    """As a slow line or a script brings them: all at once, before anything of it is handled."""
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await type_filter(pilot, source, "tcp")
        await pilot.press("escape")
        keys = ["slash", "p", "o", "x", "backspace", "r", "t", "space", "2", "2", "enter", "r"]
        for key in keys:
            pilot.app.post_message(events.Key(key, {"space": " "}.get(key, key if len(key) == 1 else None)))
        await settle(pilot, lambda: "RATE↑" in line(pilot.app, 2))
        assert "filter port 22" in line(pilot.app, 1)
        assert shown(pilot.app) == ids("port 22")[::-1][:LINES]


async def test_pasted_escape_sequences_and_new_lines_are_harmless() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash")
        pilot.app.post_message(events.Paste("port\n\x1b[31m4\u202e43\x07\r\n\x9b2J"))
        await settle(pilot, lambda: shown(pilot.app) == ids("port 443")[:LINES])
        assert typed(pilot) == "port 443"
        pilot.app.post_message(events.Paste(" and [red]漢\u0301\x1b]52;c;QUJD\x07" + "x" * 1_500))
        await settle(pilot, lambda: "^" in line(pilot.app, 2))
        assert not any("\x1b" in text or "\x07" in text for text in lines(pilot.app))
        assert all(len(text) == 80 for text in lines(pilot.app))
        assert shown(pilot.app) == ids("port 443")[:LINES]


async def test_a_fault_in_a_long_text_is_under_its_caret_when_the_text_has_scrolled() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash")
        pilot.app.post_message(events.Paste("port 22 or " * 10 + "port 99999 or port 8"))
        await pilot.press("0")
        await settle(pilot, lambda: "not valid here" in line(pilot.app, 2))
        assert line(pilot.app, 2).index("^") == line(pilot.app, 1).index("99999")
        await pilot.press("home")
        await settle(pilot, lambda: line(pilot.app, 1).startswith(" / port 22"))
        assert line(pilot.app, 2).rstrip().endswith("^"), "out of view at the right"


async def test_filtering_while_paused_filters_the_picture_and_stays_paused() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("space")
        await type_filter(pilot, source, "port 443")
        await pilot.press("enter")
        assert shown(pilot.app) == ids("port 443")[:LINES]
        assert "PAUSED" in line(pilot.app, 1)
        source.tick([row._replace(octet_rate=5000.0 * row.flow_id) for row in FLOWS])
        await pilot.pause()
        assert shown(pilot.app) == ids("port 443")[:LINES]


async def test_a_filter_in_the_header_is_harmless_and_leaves_room() -> None:
    text = " or ".join([f"port {number}" for number in range(1, 100)] + ["if '[red]\x1b[31mx\u202e'"])
    source = FakeSource(FLOWS)
    source.page = _page_without_filtering(source)  # type: ignore[method-assign]
    for width in (80, 120, 200):
        async with running(source, width, query=Query(filter=compile_filter(text))) as pilot:
            assert "filter port 1 or port 2" in line(pilot.app, 1)
            assert "of 200 flows" in line(pilot.app, 1)
            if width > 80:
                assert line(pilot.app, 1).rstrip().endswith("by RATE↓")
            else:
                assert re.search(r"  in [0-9.]+ .b/s  out [0-9.]+ k?b/s  100 %$", line(pilot.app, 1).rstrip())
                assert "RATE↓" in line(pilot.app, 2), "the order is seen here: the sums have its room above"
            assert not any("\x1b" in row or "\u202e" in row for row in lines(pilot.app))


def _page_without_filtering(source: FakeSource) -> Callable[[Query], object]:
    from dataclasses import replace

    answer = source.page
    return lambda query: replace(answer(replace(query, filter=None)), query=query)


async def test_the_parser_comes_after_the_line_is_there_and_the_text_is_read_then(
        monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtop.tui.widgets.filter_bar import FilterBar

    come = asyncio.Event()
    bring = FilterBar._load_parser

    async def late(bar: FilterBar) -> None:
        await come.wait()
        await bring(bar)

    monkeypatch.setattr(FilterBar, "_load_parser", late)
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash", *"port 443")
        assert typed(pilot) == "port 443"
        assert shown(pilot.app) == BY_RATE[:LINES]
        come.set()
        await settle(pilot, lambda: shown(pilot.app) == ids("port 443")[:LINES])


# ---- completing

def offered(pilot: Pilot[None]) -> list[str]:
    """The words of the list, from top to bottom."""
    bar = main(pilot).main.query_one(Candidates)
    x, y, width, height = bar.region
    return [text[x:x + width].strip() for text in terminal_lines(pilot.app)[y:y + height]] if bar.display else []


async def test_tab_completes_what_is_certain_and_lists_the_rest() -> None:
    source = FakeSource([flow(1, "10.0.0.1", "192.0.2.7", (443, 40000), rate=2.0),
                         flow(2, "10.0.0.1", "192.0.2.9", (80, 40000), rate=1.0)])
    async with running(source) as pilot:
        await pilot.press("slash", *"hos")
        await settle(pilot, lambda: "^" in line(pilot.app, 2))
        await pilot.press("tab")
        assert typed(pilot) == "host"
        assert offered(pilot) == []
        await pilot.press("tab")
        assert offered(pilot) == ["10.0.0.1", "192.0.2.7", "192.0.2.9"]
        assert typed(pilot) == "host 1", "so far all agree"
        await pilot.press("9")
        assert offered(pilot) == ["192.0.2.7", "192.0.2.9"]
        await pilot.press("backspace")
        assert len(offered(pilot)) == 3
        await pilot.press("9", "escape", "tab")
        assert typed(pilot) == "host 192.0.2."
        await pilot.press("tab", "tab")
        assert typed(pilot) == "host 192.0.2.9"
        await settle(pilot, lambda: shown(pilot.app) == [2])
        await pilot.press("enter")
        assert offered(pilot) == []
        await pilot.press("enter")
        await settle(pilot, lambda: "filter host 192.0.2.9" in line(pilot.app, 1))


async def test_escape_closes_the_list_and_then_the_bar() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash", *"po")
        await settle(pilot, lambda: "^" in line(pilot.app, 2))
        await pilot.press("tab")
        assert offered(pilot) == ["port", "portrange", "pod"]
        await pilot.press("down", "down")
        assert typed(pilot) == "portrange"
        await pilot.press("up")
        assert typed(pilot) == "port"
        await pilot.press("escape")
        assert offered(pilot) == []
        assert typed(pilot) == "po", "what was there before the list"
        await pilot.press("escape")
        await settle(pilot, lambda: "1–19 of 200" in line(pilot.app, 1))


async def test_a_long_list_shows_the_chosen_word_and_how_many_there_are() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash", *"port ")
        await settle(pilot, lambda: "^" in line(pilot.app, 2))
        await pilot.press("tab", *["tab"] * 30)
        chosen = typed(pilot).removeprefix("port ")
        assert chosen in offered(pilot)
        assert len(offered(pilot)) == 9
        assert "in all" in offered(pilot)[-1]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 8)])
async def test_the_list_stays_on_the_screen(width: int, height: int) -> None:
    address = "2001:db8:1111:2222:3333:4444:5555:6666"
    source = FakeSource([flow(1, address, "2001:db8::1", (443, 40000), rate=2.0)])
    async with running(source, width, height) as pilot:
        await pilot.press("slash")
        pilot.app.post_message(events.Paste("tcp " * 20 + "host"))
        await pilot.press("space")
        await settle(pilot, lambda: "^" in line(pilot.app, 2))
        await pilot.press("tab")
        region = main(pilot).main.query_one(Candidates).region
        assert 0 < region.width <= width
        assert 0 <= region.x <= width - region.width
        assert all(len(text) == width for text in lines(pilot.app))


# ---- the cursor

async def test_the_cursors_flow_stays_on_its_line_through_filters_or_as_near_as_can_be() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        flow_id = ids("port 443")[12]
        main(pilot).main.viewport.go(BY_RATE.index(flow_id))
        main(pilot).main.changed()
        await pilot.pause()
        before = cursor_line(pilot.app)
        await type_filter(pilot, source, "port 443")
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == flow_id
        await pilot.press("escape")
        await pilot.pause()
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == flow_id
        assert before is not None


async def test_the_cursor_comes_back_with_its_flow_when_a_filter_hid_it() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        flow_id = ids("tcp")[3]
        main(pilot).main.viewport.go(BY_RATE.index(flow_id))
        main(pilot).main.changed()
        await type_filter(pilot, source, "udp")
        assert cursor_line(pilot.app) is None
        source.tick()
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == flow_id


# ---- by cell

def reversed_text(pilot: Pilot[None], y: int) -> list[bool]:
    """Which cells of a line are in reverse video."""
    strip = screen_strips(pilot.app)[y]
    return [bool(segment.style and segment.style.reverse) for segment in strip for _ in segment.text]


def cell_text(pilot: Pilot[None]) -> str:
    """The chosen cell: the underlined part of the cursor's line."""
    strip = screen_strips(pilot.app)[3 + (cursor_line(pilot.app) or 0)]
    return "".join(segment.text for segment in strip if segment.style and segment.style.underline).strip()


async def test_left_and_right_choose_a_cell_and_it_is_seen() -> None:
    source = FakeSource([flow(1, "10.0.0.1", "10.0.0.2", (443, 40000), rate=10.0)])
    async with running(source) as pilot:
        await pilot.press("right")
        assert cell_text(pilot) == "10.0.0.1:443"
        await pilot.press("right")
        assert cell_text(pilot) == "10.0.0.2:40000"
        await pilot.press("left", "left")
        assert cell_text(pilot) == "tcp"
        await pilot.press(*["left"] * 9)
        assert cell_text(pilot) == "eth0"
        await pilot.press(*["right"] * 30)
        assert cell_text(pilot) == "EST"
        await pilot.press("escape")
        assert cursor_line(pilot.app) is None
        assert "10.0.0.2:40000" in cell_text(pilot) and cell_text(pilot) != "10.0.0.2:40000", "the first row"


async def test_a_cell_adds_to_a_filter_that_has_an_or() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash", *"port 22", "enter", "down", "right", "left")
        assert cell_text(pilot) in ("tcp", "udp")
        protocol = cell_text(pilot)
        await pilot.press("equals_sign")
        assert source.asked[-1].filter == compile_filter(f"port 22 and {protocol}")
        assert shown(pilot.app) == ids(f"port 22 and {protocol}")[:LINES]


async def test_excluding_hands_the_cursor_on_so_that_the_next_can_go_too() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down", "down", "down", "right")
        third, fourth = BY_RATE[2], BY_RATE[3]
        await pilot.press("exclamation_mark")
        assert third not in shown(pilot.app)
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == fourth
        await pilot.press("exclamation_mark")
        assert fourth not in shown(pilot.app)
        assert cursor_line(pilot.app) == 2


@pytest.mark.parametrize("key", ["equals_sign", "exclamation_mark"])
async def test_without_a_cell_the_first_press_only_chooses_one(key: str) -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press(key)
        assert cursor_line(pilot.app) == 0
        assert cell_text(pilot)
        assert "select a cell" in line(pilot.app, -1)
        assert source.asked[-1].filter is None


async def test_click_chooses_the_cell_and_right_click_filters_by_it() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        protocol = flow_lines(pilot.app)[4].split()[2]
        x = line(pilot.app, 2).index("PROTO")
        await pilot.click(offset=place(pilot.app, x, 3 + 4))
        assert cell_text(pilot) == protocol
        assert source.asked[-1].filter is None
        await pilot.click(Widget, offset=place(pilot.app, x, 3 + 4), button=3)
        await settle(pilot, lambda: f"filter {protocol}" in line(pilot.app, 1))

