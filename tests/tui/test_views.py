"""Views: each lists what it says, keeps its own order and place, and leads back to where one was."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtop.errors import FlowtopError
from flowtop.model.devices import Device, DeviceView
from flowtop.query.query import Query
from flowtop.query.views import VIEWS, in_window, user_views
from flowtop.tui.app import FlowtopApp
from tests.tui.fake_source import FakeSource, flow, random_flows
from tests.tui.screen import cursor_line, flow_lines, line, lines, running, shown, terminal_lines
from tests.unit.cli.command_line import options

FLOWS = random_flows(200)


def tabs(app: object) -> str:
    assert isinstance(app, FlowtopApp)
    return terminal_lines(app)[app.main.header.list_line + 1]


async def test_views_are_named_along_the_top_and_a_click_shows_one() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        assert tabs(pilot.app).split() == ["1", "Flows", "2", "Hosts", "3", "Services", "4", "Processes", "5",
                                           "Interfaces"]
        x = tabs(pilot.app).index("Services")
        await pilot.click(offset=(x, pilot.app.main.header.list_line + 1))  # type: ignore[attr-defined]
        assert source.asked[-1].group == ("service",) and "SERVICE" in line(pilot.app, 2)


async def test_a_sort_never_leaks_from_one_view_into_another_and_the_place_is_kept() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("greater_than_sign", "down", "down", "down")  # flows by the 10 s rate
        flows = flow_lines(pilot.app)
        await pilot.press("2")
        assert (source.asked[-1].sort, source.asked[-1].descending) == ("share", True)
        await pilot.press("less_than_sign", "down", "down")
        assert (source.asked[-1].sort, cursor_line(pilot.app)) == ("rate_out", 1)
        hosts = flow_lines(pilot.app)
        await pilot.press("3")
        assert source.asked[-1].sort == "share"
        await pilot.press("1")
        assert (source.asked[-1].sort, cursor_line(pilot.app)) == ("rate_10s", 2)
        assert flow_lines(pilot.app) == flows
        await pilot.press("2")
        assert (source.asked[-1].sort, cursor_line(pilot.app)) == ("rate_out", 1)
        assert flow_lines(pilot.app) == hosts


async def test_the_filter_is_for_all_views() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("slash", *"port 443", "enter", "3")
        assert source.asked[-1].filter is not None and source.asked[-1].filter.text == "port 443"
        assert {text.split()[1] for text in flow_lines(pilot.app) if text} == {"443"}
        assert "filter port 443" in line(pilot.app, 1)


async def test_enter_opens_a_row_and_backspace_leads_to_the_same_line_order_and_filter() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("2", "down", "down", "down")
        before, host = flow_lines(pilot.app), flow_lines(pilot.app)[2].split()[0]
        await pilot.press("enter")
        assert f"all › {host}" in line(pilot.app, 1) and all(host in text for text in flow_lines(pilot.app) if text)
        await pilot.press("greater_than_sign", "slash", *"tcp", "enter", "3")
        assert "all ›" not in line(pilot.app, 1), "the services of all"
        await pilot.press("2")
        assert f"all › {host}" in line(pilot.app, 1), "where one was"
        await pilot.press("backspace")
        assert flow_lines(pilot.app) == before and cursor_line(pilot.app) == 2
        assert source.asked[-1].filter is None and source.asked[-1].sort == "share"
        await pilot.press("backspace")
        assert "this is the whole list of Hosts" in line(pilot.app, -1)


async def test_the_digit_of_the_view_on_screen_shows_its_whole_list() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("2", "down", "enter", "2")
        assert (source.asked[-1].group, source.asked[-1].scope, source.asked[-1].sort) == (("host",), None, "share")
        await pilot.press(*["g"] * 2, "enter", "2")
        assert source.asked[-1].group == ("host",)
        await pilot.press("less_than_sign", "end", "enter", "slash", *"tcp", "enter", "down", "2")
        assert (source.asked[-1].group, source.asked[-1].scope, source.asked[-1].filter) == (("host",), None, None)
        assert source.asked[-1].sort == "rate_out", "the order that was chosen there"
        assert cursor_line(pilot.app) is None and source.asked[-1].offset == 0
        await pilot.press("down", "down", "2")
        assert cursor_line(pilot.app) is None, "from its top"
        await pilot.press("slash", "up", "enter")
        assert "filter tcp" in line(pilot.app, 1), "it is in the history"


async def test_escape_leads_out_step_by_step() -> None:
    source = FakeSource(FLOWS)
    async with running(source, 120) as pilot:
        def listed() -> tuple[object, ...]:
            query = source.asked[-1]
            return query.group, query.scope is not None, query.filter and query.filter.text

        await pilot.press("slash", *"tcp", "enter", "2", "down", "down", "enter")
        await pilot.press("slash", *" and port 443", "enter", "down")
        assert listed() == ((), True, "tcp and port 443")
        for expected in (((), True, "tcp"), (("host",), False, "tcp")):
            await pilot.press("escape")
            assert listed() == expected
        assert cursor_line(pilot.app) == 1, "where it was opened"
        await pilot.press("escape")
        assert listed() == (("host",), False, None) and cursor_line(pilot.app) is not None
        await pilot.press("g", "up", "up", "enter", "escape")
        assert listed() == (("host",), False, None)
        await pilot.press("escape")
        assert cursor_line(pilot.app) is None
        await pilot.press("escape")
        assert "this is the whole list of Hosts" in line(pilot.app, -1)


async def test_other_groups_of_a_view_and_back() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("2", "down", "down")
        hosts = flow_lines(pilot.app)
        await pilot.press("g", "up", "up", "enter", "less_than_sign")
        assert source.asked[-1].group == ("pair",)
        await pilot.press("backspace")
        assert (source.asked[-1].group, source.asked[-1].sort) == (("host",), "share")
        assert flow_lines(pilot.app) == hosts and cursor_line(pilot.app) == 1


async def test_a_run_grouped_from_the_start_begins_in_the_view_of_that_group() -> None:
    async with running(FakeSource(FLOWS), query=Query(group=("host",), sort="share")) as pilot:
        await pilot.press("down", "enter", "backspace")
        assert "HOST" in line(pilot.app, 2)
        await pilot.press("1")
        assert shown(pilot.app)[:5] == [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate)][:5]


@pytest.mark.parametrize("width", [80, 120, 200])
async def test_hosts_show_in_out_share_flows_rtt_and_retransmissions(width: int) -> None:
    rows = [flow(1, "203.0.113.5", "10.0.0.1", (51_000, 443), rate=1_000.0, octets=9_000),
            flow(2, "10.0.0.1", "203.0.113.5", (443, 51_000), direction=1, rate=7_000.0, octets=80_000, rtt_us=42_000,
                 retransmitted=17),
            flow(3, "10.0.0.1", "203.0.113.6", (443, 51_001), direction=1, rate=2_000.0, octets=20_000)]
    async with running(FakeSource(rows), width) as pilot:
        await pilot.press("2")
        header = line(pilot.app, 2).split()
        assert header[:7] == ["HOST", "IN", "OUT", "SHARE↓", "FLOWS", "RTT", "RETR"]
        first = next(text for text in flow_lines(pilot.app) if text.split()[0] == "203.0.113.5")
        assert first.split()[1:5] == ["8.0", "kb/s", "56.0", "kb/s"], "in is what comes from it"
        assert {"80", "%", "42.0", "17"} <= set(first.split()), "8,000 of 10,000 octets"


async def test_interfaces_show_what_device_and_queue_dropped() -> None:
    source = FakeSource(FLOWS)
    source.devices = {2: DeviceView(Device(3, 0, 11, 0, 250, 0), Device(3, 0, 11, 0, 50, 0), 999, 1_000, 1),
                      9: DeviceView(Device(), Device())}
    source.interfaces[9] = "idle9"
    async with running(source, 120) as pilot:
        await pilot.press("5")
        header, rows = line(pilot.app, 2), flow_lines(pilot.app)
        assert {"IF", "IN", "OUT", "PPS↓", "ERRORS", "DROPS", "Q-DROPS", "SEEN", "FLOWS"} <= set(header.split())
        eth0 = next(text for text in rows if text.split()[0] == "eth0")
        assert "250 +200" in eth0 and " 99.90 % " in eth0 and {"3", "11"} <= set(eth0.split())
        assert any(text.split()[0] == "idle9" for text in rows if text), "also one without flows"


async def test_processes_say_why_there_are_none() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press("4")
        assert "PROCESS" in line(pilot.app, 2) and "owners of flows are not known here" in line(pilot.app, -1)


# ---- what is listed


async def test_the_sum_of_what_is_listed_stands_beside_the_filter() -> None:
    rows = [flow(1, "203.0.113.5", "10.0.0.1", (51_000, 443), rate=1_000.0),
            flow(2, "10.0.0.1", "203.0.113.5", (443, 51_000), direction=1, rate=7_000.0),
            flow(3, "10.0.0.1", "203.0.113.6", (22, 51_001), direction=1, rate=2_000.0)]
    source = FakeSource(rows)
    async with running(source, 120) as pilot:
        assert "in 80" not in line(pilot.app, 1), "of all it is in the line above"
        await pilot.press("slash", *"port 443", "enter")
        assert "2 of 3 flows  in 8.00 kb/s  out 56.0 kb/s  80 %" in line(pilot.app, 1)
        source.tick([row._replace(octet_rate=row.octet_rate * 2) for row in rows])
        await pilot.press("3")
        assert "in 16.0 kb/s" in line(pilot.app, 1) and "out 112 kb/s" in line(pilot.app, 1), "in groups too"
        await pilot.press("1", "left_square_bracket")
        await pilot.pause()
        assert "in 8.00 kb/s" in line(pilot.app, 1), "and of the past"


# ---- the settings file


SETTINGS = """
[views.db]
filter = "port 443"
group = "source"

[views.slow]
title = "Slow"
sort = "rtt"
columns = ["rtt", "retransmits"]
"""


def views_of(tmp_path: Path, text: str) -> object:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return options("--config", str(path)).views


async def test_views_of_the_settings_file_have_the_next_digits(tmp_path: Path) -> None:
    more = user_views(views_of(tmp_path, SETTINGS))  # type: ignore[arg-type]
    source = FakeSource(FLOWS)
    async with running(source, 120, more_views=more) as pilot:
        assert tabs(pilot.app).split()[-4:] == ["6", "db", "7", "Slow"]
        await pilot.press("6")
        sources = {text.split()[0] for text in flow_lines(pilot.app) if text}
        expected = {".".join(map(str, row.source_address[:4])) for row in FLOWS if row.source_port == 443}
        assert sources <= expected and "SOURCE" in line(pilot.app, 2)
        total = len(expected)
        assert f"of {total} groups" in line(pilot.app, 1)
        await pilot.press("down", "enter", "backspace")
        assert f"of {total} groups" in line(pilot.app, 1)
        await pilot.press("7")
        assert "RTT↓" in line(pilot.app, 2) and source.asked[-1].scope is None
        await pilot.press("8")
        assert "no view has the digit 8" in line(pilot.app, -1)


@pytest.mark.parametrize(("text", "words"), [
    ('[views.db]\nfilter = "port x"', "port"), ('[views.db]\ngroup = "sauce"', "unknown group field"),
    ('[views.db]\nsort = "nothing"', "unknown sort column"), ('[views.db]\nfiltr = "x"', "unknown setting of view db"),
    ('[views.db]\ncolumns = [1]', "wrong kind of value for columns"), ('views = "x"', "are tables"),
    ('[views.db]\ncolumns = ["nope"]', "unknown sort column")])
def test_what_is_wrong_with_a_view_is_said_before_anything_begins(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FlowtopError, match=words):
        user_views(views_of(tmp_path, text))  # type: ignore[arg-type]


@pytest.mark.parametrize(("before", "window", "after"), [
    ("rate", "60s", "rate_60s"), ("rate_in", "10s", "rate_10s_in"), ("rate_10s_out", "tick", "rate_out"),
    ("share_60s", "10s", "share_10s"), ("bytes_in", "10s", "bytes_in"), ("rtt", "60s", "rtt")])
def test_a_column_over_another_window(before: str, window: str, after: str) -> None:
    assert in_window(before, window) == after  # type: ignore[arg-type]


def test_every_view_has_columns_that_there_are() -> None:
    from flowtop.query.layout import columns_of

    for view in VIEWS:
        assert set(view.columns) <= set(columns_of(view.query)), view.id


async def test_biflows_mark_a_client_that_is_a_guess() -> None:
    rows = [flow(1, "10.0.0.5", "198.51.100.7", (51_514, 443), direction=1, rate=10.0),
            flow(2, "198.51.100.7", "10.0.0.5", (443, 51_514), rate=90.0, start_ms=1_767_225_500_000),
            flow(3, "10.0.0.5", "198.51.100.8", (51_515, 443), direction=1, rate=5.0)]
    source = FakeSource(rows)
    source.openers = {3}
    async with running(source, 120, query=Query(biflow=True)) as pilot:
        assert {"CLIENT", "SERVER", "IN", "OUT"} <= set(line(pilot.app, 2).split())
        text = "\n".join(lines(pilot.app))
        assert "?10.0.0.5:51514" in text, "open before the start: the lower port is the server's, whoever came first"
        assert " 10.0.0.5:51515" in text
