"""The screen as a whole: pages, cursor, mouse, sizes, errors, leaving."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace

import pytest
from textual import events
from textual.pilot import Pilot

from flowtop.errors import EXIT_NO_PERMISSION, FlowtopError
from flowtop.filters.filter import compile_filter
from flowtop.model.kinds import Direction
from flowtop.model.record import Unobserved
from flowtop.model.rows import FlowRow
from flowtop.query.query import Query
from flowtop.tui.app import FlowtopApp, PageReady
from flowtop.tui.panels.details import DetailsScreen
from flowtop.tui.panels.help import HelpScreen
from tests.tui.fake_source import FakeSource, flow, random_flows
from tests.tui.screen import (
    cursor_line,
    flow_lines,
    line,
    lines,
    list_height,
    place,
    running,
    shown,
    terminal_height,
    terminal_lines,
)

FLOWS = random_flows(200)
BY_RATE = [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate)]


def with_rates(rates: dict[int, float]) -> list[FlowRow]:
    return [row._replace(octet_rate=rates.get(row.flow_id, row.octet_rate)) for row in FLOWS]


def x_of(pilot: Pilot[None], header: str) -> int:
    return line(pilot.app, 2).index(header)


# ---- before the first page

async def test_first_frame_comes_before_the_source_is_opened() -> None:
    frame: list[str] = []
    source = FakeSource(FLOWS)

    class Watched(FlowtopApp):
        def on_splash_painted(self) -> None:
            frame.extend(lines(self))

    def open_source() -> FakeSource:
        assert frame
        return source

    app = Watched(open_source)
    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
    assert "flowtop" in frame[0]
    assert any("starting" in text for text in frame)
    assert "quit" in frame[-1]


async def test_says_what_it_waits_for_until_the_first_page() -> None:
    source = FakeSource(FLOWS)
    async with running(source, tick=False) as pilot:
        assert source.listener is not None
        for words in ("compiling the eBPF program", "attaching to 3 interfaces", "waiting for the first packets"):
            source.listener.on_progress(words)
            await pilot.pause()
            assert any(words in text for text in lines(pilot.app))
        source.tick()
        await pilot.pause()
        assert not any("waiting" in text for text in lines(pilot.app))
        assert shown(pilot.app) == BY_RATE[:19]


async def test_no_flows_is_said_and_flows_appear_later() -> None:
    source = FakeSource()
    async with running(source) as pilot:
        assert any("no flows" in text for text in lines(pilot.app))
        source.tick(FLOWS)
        await pilot.pause()
        assert "RATE↓" in line(pilot.app, 2)
        assert len(flow_lines(pilot.app)) == 19
        source.tick([])
        await pilot.pause()
        assert any("no flows" in text for text in lines(pilot.app))


@pytest.mark.parametrize("width", [80, 120, 240])
async def test_the_filter_is_in_the_header_and_how_many_flows_pass(width: int) -> None:
    text = "tcp and port 443"
    source = FakeSource(random_flows(1_248))
    passing = sum(row.protocol == 6 and 443 in (row.source_port, row.destination_port) for row in source.flows)
    async with running(source, width, query=Query(filter=compile_filter(text))) as pilot:
        assert f"filter {text}" in line(pilot.app, 1)
        assert f"{passing} of 1,248 flows" in line(pilot.app, 1)


async def test_what_the_kernel_leaves_out_is_said_whatever_is_filtered_now() -> None:
    source = FakeSource(random_flows(30))
    source.capture_filter = "tcp"
    async with running(source, 120) as pilot:
        assert "in kernel tcp" in line(pilot.app, 1)
        source.capture_filter = ""
        source.tick()
        await pilot.pause()
        assert "in kernel" not in line(pilot.app, 1)
        assert "the kernel now counts every flow" in line(pilot.app, -1)


async def test_no_interface_to_observe_is_said() -> None:
    source = FakeSource()
    source.attached = ()
    async with running(source) as pilot:
        assert any("no interface to observe" in text for text in lines(pilot.app))


async def test_what_is_not_observed_is_said_instead_of_waiting_for_an_interface() -> None:
    source = FakeSource()
    source.attached = ()
    source.unobserved = (Unobserved("nl0", "link type 824 is not supported: it carries netlink messages"),)
    async with running(source, 160, 24) as pilot:
        screen = lines(pilot.app)
        assert sum("nl0 is not observed: link type 824" in text for text in screen) == 2, "a banner and the empty list"
        assert not any("waiting for one" in text for text in screen)


async def test_what_is_not_observed_beside_flows_is_a_banner_until_it_is() -> None:
    source = FakeSource(FLOWS)
    source.unobserved = (Unobserved("eth0", "its ingress qdisc leaves no room", Direction.EGRESS),
                         Unobserved("wg0", "packets end at program 7", Direction.INGRESS, in_part=True))
    async with running(source, 160, 24) as pilot:
        assert any("egress of eth0 is not observed: its ingress qdisc leaves no room (+1)" in text
                   for text in lines(pilot.app))
        source.unobserved = source.unobserved[1:]
        source.tick()
        await pilot.pause()
        assert any("ingress of wg0 is not all observed: packets end at program 7" in text for text in lines(pilot.app))
        source.unobserved = ()
        source.tick()
        await pilot.pause()
        assert not any("observed:" in text for text in lines(pilot.app))


# ---- pages

async def test_only_the_newest_page_is_painted_when_several_wait() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        painted: list[int] = []
        app.watch(app.main, "page", lambda page: painted.append(page.tick), init=False)
        for _ in range(50):
            source.tick()
        await pilot.pause()
        assert painted[-1] == 51
        assert len(painted) < 50


def test_a_page_replaces_only_pages() -> None:
    page = FakeSource(FLOWS).page(Query())
    assert PageReady(page).can_replace(PageReady(page))


async def test_no_question_is_asked_that_brings_nothing() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down", "down", "b")
        source.tick()
        await pilot.pause()
        assert len(source.asked) == 1


async def test_scrolling_asks_for_rows_before_they_run_out() -> None:
    source = FakeSource(random_flows(2_000))
    async with running(source) as pilot:
        for _ in range(12):
            await pilot.press("pagedown")
        by_rate = [row.flow_id for row in sorted(source.flows, key=lambda row: -row.octet_rate)]
        assert shown(pilot.app) == by_rate[12 * 18:12 * 18 + 19]
        assert all(query.limit is not None and query.limit <= 3 * 19 for query in source.asked)


async def test_what_is_there_stays_until_the_rows_scrolled_to_arrive() -> None:
    source = FakeSource(random_flows(2_000))
    async with running(source) as pilot:
        source.silent = True
        before = flow_lines(pilot.app)
        await pilot.press("end")
        now = flow_lines(pilot.app)
        assert all(now), "no blank lines"
        assert now != before, "as near as the rows at hand allow"
        source.silent = False
        source.tick()
        await pilot.pause()
        assert shown(pilot.app)[-1] == min(source.flows, key=lambda row: row.octet_rate).flow_id


# ---- cursor

async def test_cursor_stays_on_its_flow_when_the_order_changes() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down", "down", "down")
        third = BY_RATE[2]
        source.tick(with_rates({third: 1e9}))
        await pilot.pause()
        assert cursor_line(pilot.app) == 0
        assert shown(pilot.app)[0] == third
        await pilot.press("down")
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == BY_RATE[0]


async def test_view_does_not_move_when_the_cursors_flow_leaves_it() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down")
        source.tick(with_rates({BY_RATE[0]: 1.0}))
        await pilot.pause()
        assert cursor_line(pilot.app) is None
        assert shown(pilot.app) == BY_RATE[1:20]
        source.tick(FLOWS)
        await pilot.pause()
        assert cursor_line(pilot.app) == 0


async def test_cursor_key_goes_on_from_where_the_flow_went() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down")
        source.tick(with_rates({BY_RATE[0]: 1.0}))
        await pilot.pause()
        await pilot.press("up")
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == BY_RATE[-1]


async def test_cursor_goes_when_its_flow_does_and_comes_back_at_its_place() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down", "down", "down", "down")
        source.tick([row for row in FLOWS if row.flow_id != BY_RATE[3]])
        await pilot.pause()
        assert cursor_line(pilot.app) is None
        await pilot.press("up")
        assert cursor_line(pilot.app) == 2


async def test_follow_scrolls_to_a_flow_far_outside_the_fetched_rows() -> None:
    source = FakeSource(random_flows(5_000))
    async with running(source) as pilot:
        await pilot.press("F")
        followed = shown(pilot.app)[0]
        source.tick([row._replace(octet_rate=1.0) if row.flow_id == followed else row for row in source.flows])
        await pilot.pause()
        assert shown(pilot.app)[-1] == followed
        assert cursor_line(pilot.app) == 18


# ---- pause

async def test_paused_picture_changes_only_for_what_is_asked() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("space")
        source.tick(with_rates({BY_RATE[150]: 1e9}))
        await pilot.pause()
        assert shown(pilot.app) == BY_RATE[:19]
        await pilot.press("greater_than_sign")
        by_10s = [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate_10s)]
        assert shown(pilot.app) == by_10s[:19]
        source.tick([row._replace(octet_rate_10s=row.flow_id) for row in FLOWS])
        await pilot.pause()
        assert shown(pilot.app) == by_10s[:19]


@pytest.mark.parametrize("keys", [("less_than_sign", "greater_than_sign"), ("end", "home"),
                                  ("slash", *"tcp", "ctrl+u", "enter"), ("o", "o"), ("E", "E"),
                                  ("g", "g", "g", "enter", "backspace"), ("B", "B"), ("enter", "escape"), ("1",)])
async def test_whatever_is_asked_while_paused_the_picture_is_of_the_moment_it_was_paused_at(
        keys: tuple[str, ...]) -> None:
    source = FakeSource(FLOWS)
    async with running(source, 120) as pilot:
        await pilot.press("space")
        before = flow_lines(pilot.app)
        source.tick(with_rates({BY_RATE[150]: 1e9}))
        await pilot.press(*keys)
        source.tick(with_rates({BY_RATE[160]: 1e9}))
        await pilot.pause(0.3)  # a filter is asked for when typing has paused
        assert flow_lines(pilot.app) == before
        assert "PAUSED 00:00:02, 2,000 packets since" in line(pilot.app, 1)
        await pilot.press("space")
        assert shown(pilot.app)[0] == BY_RATE[160]


async def test_a_late_answer_to_an_older_question_does_not_move_a_paused_picture() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("space")
        older = source.asked[-1]
        source.silent = True
        await pilot.press("greater_than_sign")
        source.flows = with_rates({BY_RATE[150]: 1e9})
        assert source.listener is not None
        source.listener.on_page(source.page(older))
        await pilot.pause()
        assert shown(pilot.app) == BY_RATE[:19]
        source.listener.on_page(source.page(source.asked[-1]))
        await pilot.pause()
        assert shown(pilot.app)[0] == max(FLOWS, key=lambda row: row.octet_rate_10s).flow_id


async def test_losses_are_said_while_paused() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("space")
        source.books = replace(source.books, lost_packets=7, accounted_packets=source.books.accounted_packets - 7)
        source.tick()
        await pilot.pause()
        assert "lost 7" in line(pilot.app, -2)


# ---- mouse

async def test_header_click_sorts_and_again_reverses() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 120, 40) as pilot:
        await pilot.click(offset=place(pilot.app, x_of(pilot, "BYTES"), 2))
        assert (source.asked[-1].sort, source.asked[-1].descending) == ("bytes", True)
        await pilot.click(offset=place(pilot.app, x_of(pilot, "BYTES"), 2))
        assert (source.asked[-1].sort, source.asked[-1].descending) == ("bytes", False)
        await pilot.click(offset=place(pilot.app, x_of(pilot, "SOURCE") + 3, 2))
        assert (source.asked[-1].sort, source.asked[-1].descending) == ("source", False)
        assert "SOURCE↑" in line(pilot.app, 2)


@pytest.mark.parametrize("width", [80, 120, 240])
async def test_every_header_sorts_by_its_own_column(width: int) -> None:
    source = FakeSource(FLOWS)
    async with running(source, width, 24) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        for column in app.main.table.columns:
            head = line(app, 2).replace("↓", " ").replace("↑", " ")
            await pilot.click(offset=place(pilot.app, f" {head} ".index(f" {column.header} "), 2))
            assert source.asked[-1].sort == column.id


async def test_a_double_click_shows_details() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.click(offset=(30, 3 + 5), times=2)
        await pilot.pause()
        assert isinstance(pilot.app.screen, DetailsScreen)
        row = next(row for row in FLOWS if row.flow_id == BY_RATE[5])
        assert f":{row.source_port} → " in "".join(lines(pilot.app))


async def test_click_puts_the_cursor_and_wheel_scrolls_the_view() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.click(offset=place(pilot.app, 30, 3 + 5))
        assert cursor_line(pilot.app) == 5
        await pilot._post_mouse_events([_wheel_down()], offset=(30, 10))
        await pilot.pause()
        assert shown(pilot.app) == BY_RATE[3:22]
        assert cursor_line(pilot.app) == 2


def _wheel_down() -> type:
    from textual.events import MouseScrollDown

    return MouseScrollDown


# ---- size and terminal

@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (160, 50), (200, 60), (40, 10), (20, 6), (1, 1)])
async def test_every_size_paints_whole_lines(width: int, height: int) -> None:
    source = FakeSource(FLOWS)
    async with running(source, width, list_height(height)) as pilot:
        assert [len(text) for text in terminal_lines(pilot.app)] == [width] * height


async def test_resizing_fills_the_new_size_and_keeps_the_cursor_in_view() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press(*["down"] * 19)
        await pilot.resize_terminal(120, terminal_height(15))
        await pilot.pause()
        assert len(flow_lines(pilot.app)) == 10
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == BY_RATE[18]
        assert "PKTS" in line(pilot.app, 2)
        await pilot.resize_terminal(200, terminal_height(60))
        await pilot.pause()
        assert all(flow_lines(pilot.app))
        assert len(flow_lines(pilot.app)) == 55


async def test_columns_line_up_with_their_headers() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 120, 40) as pilot:
        right_edge = line(pilot.app, 2).index("10 s") + len("10 s")
        assert all(text[:right_edge].endswith("b/s") for text in flow_lines(pilot.app))
        left_edge = line(pilot.app, 2).index("DESTINATION")
        assert all(text[left_edge - 1:].startswith(" 10.0.") for text in flow_lines(pilot.app))


async def test_long_ipv6_endpoints_keep_both_ends_when_narrow() -> None:
    address = "2001:db8:1111:2222:3333:4444:5555:6666"
    source = FakeSource([flow(1, address, address, (65535, 443))])
    async with running(source) as pilot:
        text = flow_lines(pilot.app)[0]
        assert "[2001:" in text
        assert ":65535 " in text
        assert "]:443 " in text
        assert text.count("…") == 2


async def test_no_color_uses_no_colour_and_the_cursor_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down")
        assert cursor_line(pilot.app) == 0
        app = pilot.app
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                assert segment.style is None or segment.style.color is None or segment.style.color.is_default


async def test_only_the_terminals_own_colours_are_used() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down")
        colours = {segment.style.color for strip in pilot.app.screen._compositor.render_strips() for segment in strip
                   if segment.style is not None and segment.style.color is not None}
        assert colours
        assert all(colour.triplet is None and (colour.number or 0) < 16 for colour in colours)


async def test_untrusted_interface_name_reaches_the_screen_harmless() -> None:
    source = FakeSource(FLOWS)
    source.interfaces[2] = "\x1b[31m[b]x\x07"
    source.attached = ["\x1b[31m[b]x\x07"]
    async with running(source) as pilot:
        assert "[b]x" in line(pilot.app, 0)
        assert flow_lines(pilot.app)[0].startswith(" [b]x ")
        assert not any("\x1b" in text or "\x07" in text for text in lines(pilot.app))


# ---- errors and leaving

async def test_error_at_start_ends_the_screen_with_it() -> None:
    error = FlowtopError("cannot load the eBPF program", hint="run with sudo", exit_code=EXIT_NO_PERMISSION)
    source = FakeSource(fail=error)
    app = FlowtopApp(lambda: source)
    async with app.run_test():
        await asyncio.wait_for(_exited(app), 10)
    assert app.error is error
    assert source.stopped == 1


async def test_error_of_the_capture_before_the_first_page_ends_the_screen() -> None:
    error = FlowtopError("no such interface: eth9")
    source = FakeSource()
    async with running(source, tick=False) as pilot:
        assert source.listener is not None
        source.listener.on_error(error)
        await asyncio.wait_for(_exited(pilot.app), 10)
        assert isinstance(pilot.app, FlowtopApp)
        assert pilot.app.error is error


async def test_error_later_is_said_and_the_flows_stay() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        assert source.listener is not None
        source.listener.on_error(FlowtopError("reading the map failed", hint="x"))
        await pilot.pause()
        assert "reading the map failed" in line(pilot.app, 1)
        assert shown(pilot.app) == BY_RATE[:19]
        await pilot.press("q")
        await asyncio.wait_for(_exited(pilot.app), 10)
        assert source.stopped == 1


async def test_slow_last_drain_is_announced() -> None:
    drained = threading.Event()

    class SlowSource(FakeSource):
        def stop(self) -> None:
            drained.wait(30)
            super().stop()

    source = SlowSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("q")
        while "last drain" not in line(pilot.app, -1):
            await pilot.pause(0.05)
        source.tick()
        await pilot.pause()
        assert "last drain" in line(pilot.app, -1)
        drained.set()
        await asyncio.wait_for(_exited(pilot.app), 10)
        assert (source.stopped, pilot.app.return_code) == (1, 0)


async def test_quit_may_be_requested_from_another_thread() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        thread = threading.Thread(target=app.request_quit)
        thread.start()
        await asyncio.wait_for(_exited(app), 10)
        thread.join()
        assert source.stopped == 1


async def test_quit_requested_before_the_screen_runs_opens_nothing() -> None:
    def open_source() -> FakeSource:
        raise AssertionError("opened")

    app = FlowtopApp(open_source)
    app.request_quit()
    async with app.run_test():
        await asyncio.wait_for(_exited(app), 10)
    assert app.return_code == 0


async def _exited(app: object) -> None:
    assert isinstance(app, FlowtopApp)
    while app.return_code is None:
        await asyncio.sleep(0.01)


# ---- keys typed faster than screens come and go

async def test_scrolling_help_before_it_is_composed_and_closing_it_twice_do_no_harm() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        help_screen = HelpScreen()
        mounted = pilot.app.push_screen(help_screen)
        help_screen.action_scroll(1)
        await mounted
        help_screen.action_close()
        help_screen.action_close()
        await pilot.pause()
        await pilot.pause()
        help_screen.action_close()
        assert pilot.app.screen is not help_screen
        assert len(flow_lines(pilot.app)) > 10


async def test_a_key_that_finds_no_screen_any_more_does_no_harm() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        app = pilot.app
    assert not app.screen_stack
    await app.on_event(events.Key("j", "j"))


@pytest.mark.parametrize("key", ["q", "f10", "h", "question_mark", "escape"])
async def test_keys_that_close_help_close_only_help(key: str) -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press("h")
        await pilot.pause()
        assert isinstance(pilot.app.screen, HelpScreen)
        await pilot.press(key)
        await pilot.pause()
        assert not isinstance(pilot.app.screen, HelpScreen)
        assert pilot.app.return_code is None, "still running"
        assert len(flow_lines(pilot.app)) > 10


@pytest.mark.parametrize("width", [200, 300, 400])
async def test_what_no_column_needs_of_a_wide_line_stays_behind_the_last_one(width: int) -> None:
    async with running(FakeSource(FLOWS), width, 24) as pilot:
        head = line(pilot.app, 2)
        between = re.search("FLAGS( +)RATE", head)
        assert between and len(between[1]) <= 4 + 2 + 5, "FLAGS has 9 cells, RATE and its arrow 10"
        assert all(len(text) == width for text in lines(pilot.app))
        before = lines(pilot.app)
        await pilot.press("down", "C", "escape", "up", "escape")
        assert lines(pilot.app)[2:-2] == before[2:-2]
