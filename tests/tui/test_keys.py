"""Every key of the key table does what its doc says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from ipaddress import ip_address as address

import pytest
from textual.pilot import Pilot

from flowtop.fields.registry import COLUMNS, FIELDS
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.rows import FlowRow
from flowtop.query.trouble import Trouble
from flowtop.query.views import VIEWS
from flowtop.tui.app import FlowtopApp
from flowtop.tui.keys import KEYS
from flowtop.tui.palettes import THEMES
from flowtop.tui.panels.columns import ColumnsScreen
from flowtop.tui.panels.exports import ExportsScreen
from flowtop.tui.panels.groups import GroupsScreen
from flowtop.tui.panels.handing import HandOffScreen
from flowtop.tui.panels.help import HelpScreen
from flowtop.tui.panels.interfaces import InterfacesScreen
from flowtop.tui.panels.sorting import SortScreen
from flowtop.tui.panels.writing import WriteScreen
from flowtop.tui.widgets.flow_table import FlowTable
from tests.tui.fake_source import FakeSource, answered, random_flows
from tests.tui.screen import (
    background,
    cursor_line,
    flow_lines,
    line,
    lines,
    running,
    screen_strips,
    shown,
    terminal_lines,
)

FLOWS = random_flows(200)
BY_RATE = [row.flow_id for row in sorted(FLOWS, key=lambda row: -row.octet_rate)]
LINES = 19
"""Flows in view at 80x24: two lines above, the header, two lines below."""

Check = Callable[["Pilot[None]", FakeSource, str], Awaitable[None]]


async def check_up(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("down", "down", "down", key)
    assert cursor_line(pilot.app) == 1


async def check_down(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert cursor_line(pilot.app) == 0
    await pilot.press(key)
    assert cursor_line(pilot.app) == 1


async def check_page_up(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("pagedown", "pagedown", key)
    assert shown(pilot.app) == BY_RATE[LINES - 1:2 * LINES - 1]


async def check_page_down(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert shown(pilot.app) == BY_RATE[LINES - 1:2 * LINES - 1]
    assert cursor_line(pilot.app) is None


async def check_first(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("pagedown", "pagedown", "down", key)
    assert shown(pilot.app) == BY_RATE[:LINES]
    assert cursor_line(pilot.app) == 0


async def check_last(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert shown(pilot.app) == BY_RATE[-LINES:]
    await pilot.press("up", key)
    assert cursor_line(pilot.app) == LINES - 1


def check_half_page(halves: int) -> Check:
    async def check(pilot: Pilot[None], _: FakeSource, key: str) -> None:
        await pilot.press("pagedown", "pagedown", key)
        top = 2 * (LINES - 1) + halves * (LINES // 2)
        assert shown(pilot.app) == BY_RATE[top:top + LINES]
        await pilot.press("down", key)
        assert cursor_line(pilot.app) == (LINES // 2 if halves > 0 else 0)

    return check


async def check_trouble(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert "nothing looks wrong" in line(pilot.app, -1)
    source.troubles = (Trouble("scan", "scan? 192.0.2.1", "200 ports", "flows", "port 443"),)
    source.tick()
    await pilot.pause()
    await pilot.press(key)
    assert "filter port 443" in line(pilot.app, 1)


async def check_compare(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    for _ in range(3):
        source.tick()
        await pilot.pause()
    await pilot.press(key)
    assert "AGAINST" in line(pilot.app, 1) and "TREND" in line(pilot.app, 2) and "Δ↓" in line(pilot.app, 2)
    await pilot.press(key)
    assert "AGAINST" not in line(pilot.app, 1) and "RATE↓" in line(pilot.app, 2)


async def check_books(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    assert "✓ every packet counted" in line(pilot.app, -2) and "seen" not in line(pilot.app, -2)
    await pilot.press(key)
    assert "exact 100.000 %" in line(pilot.app, -2) and "seen" in line(pilot.app, -2)
    await pilot.press(key)
    assert "✓ every packet counted" in line(pilot.app, -2)


async def check_step_out(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("down", "down", key)
    assert cursor_line(pilot.app) is None
    await pilot.press("down")
    assert cursor_line(pilot.app) == 0


async def check_edit_filter(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key, *"port 443", "enter")
    assert "filter port 443" in line(pilot.app, 1)
    with_443 = [row.flow_id for row in FLOWS if 443 in (row.source_port, row.destination_port)]
    assert shown(pilot.app) == [flow_id for flow_id in BY_RATE if flow_id in with_443][:LINES]


def chosen_cell(pilot: Pilot[None]) -> str:
    strips = screen_strips(pilot.app)[3:-2]
    return "".join(segment.text for strip in strips for segment in strip
                   if segment.style is not None and segment.style.underline).strip()


async def check_choose_cell_left(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("down", key, key)
    assert chosen_cell(pilot) == flow_lines(pilot.app)[0].split()[2]


async def check_choose_cell_right(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("down", key)
    assert chosen_cell(pilot) == flow_lines(pilot.app)[0].split()[3]
    await pilot.press(key)
    assert chosen_cell(pilot) == flow_lines(pilot.app)[0].split()[4]


def check_filter_by_cell(*, keeps: bool) -> Check:
    async def check(pilot: Pilot[None], _: FakeSource, key: str) -> None:
        first = FLOWS[BY_RATE[0] - 1]
        await pilot.press("down", "right", "left", key)
        alike = {row.flow_id for row in FLOWS if (row.protocol == first.protocol) == keeps}
        assert shown(pilot.app) == [flow_id for flow_id in BY_RATE if flow_id in alike][:LINES]
        assert f"{len(alike)} of 200 flows" in line(pilot.app, 1)
    return check


async def check_clear_filter(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("slash", *"port 443", "enter", key)
    assert "filter" not in line(pilot.app, 1)
    assert shown(pilot.app) == BY_RATE[:LINES]
    await pilot.press("slash", "up")
    assert "port 443" in line(pilot.app, 1), "it can be had again"


async def check_sort_next(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)  # right of RATE; at 80 columns it gets room because it is sorted by
    assert (source.asked[-1].sort, source.asked[-1].descending) == ("rate_10s", True)
    assert "10 s↓" in line(pilot.app, 2)
    assert shown(pilot.app)[0] == max(FLOWS, key=lambda row: row.octet_rate_10s).flow_id
    for _ in range(len(COLUMNS)):
        await pilot.press(key)
    there = {id_ for id_, column in COLUMNS.items() if "live" in FIELDS[id_].known and not (
        column.of_exporters or column.of_tunnels or column.of_networks)}
    assert {query.sort for query in source.asked} == there, "every column that can have a value can be reached"
    assert "outoforder" not in there, "which only files and exporters have"


async def check_sort_previous(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert (source.asked[-1].sort, source.asked[-1].descending) == ("flags", False)
    assert "FLAGS↑" in line(pilot.app, 2)


async def check_sort_menu(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert isinstance(pilot.app.screen, SortScreen)
    entry = next(text for text in lines(pilot.app) if " BYTES " in text)
    await pilot.press(entry.split()[1])
    assert (source.asked[-1].sort, source.asked[-1].descending) == ("bytes", True)
    assert shown(pilot.app)[0] == max(FLOWS, key=lambda row: row.octet_total).flow_id
    await pilot.press(key, "enter")
    assert (source.asked[-1].sort, source.asked[-1].descending) == ("bytes", False), "the cursor is on it: reversed"
    await pilot.press(key, "down", "escape")
    assert source.asked[-1].sort == "bytes"


async def check_filter_conversation(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    source.tick(answered(FLOWS, every=200))
    await pilot.pause()
    await pilot.press("slash", *"tcp", "enter", "down", key)
    page = source.look(source.asked[-1])
    assert sorted({row.flow_id % 5_000 for row in page.rows}) == [shown(pilot.app)[0] % 5_000]
    assert page.matched == 2, "there and back"
    await pilot.press("slash", "up")
    assert "/ tcp " in line(pilot.app, 1), "the filter of before can be had again"


async def check_reverse(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert "RATE↑" in line(pilot.app, 2)
    assert shown(pilot.app) == BY_RATE[::-1][:LINES]
    await pilot.press(key)
    assert shown(pilot.app) == BY_RATE[:LINES]


async def check_hold_order(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    source.tick([row._replace(octet_rate=5000.0 * row.flow_id) for row in FLOWS])
    await pilot.pause()
    assert "ORDER FROZEN" in line(pilot.app, 1)
    assert shown(pilot.app) == BY_RATE[:LINES]
    first = BY_RATE[0]
    assert f"{5000 * first * 8 / 1e6:.3g}"[:3] in flow_lines(pilot.app)[0], "numbers go on changing"
    await pilot.press(key)
    assert shown(pilot.app) == list(range(200, 200 - LINES, -1))


async def check_follow(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", "down", key)
    assert "FOLLOW" in line(pilot.app, 1)
    second = BY_RATE[1]
    source.tick([row._replace(octet_rate=1.0 if row.flow_id == second else row.octet_rate) for row in FLOWS])
    await pilot.pause()
    assert shown(pilot.app)[-1] == second
    assert cursor_line(pilot.app) == LINES - 1
    await pilot.press(key)
    source.tick(FLOWS)
    await pilot.pause()
    assert second not in shown(pilot.app)


async def check_pause(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    before = flow_lines(pilot.app)
    for _ in range(3):
        source.tick([row._replace(octet_rate=5000.0 * row.flow_id) for row in FLOWS])
        await pilot.pause()
    assert flow_lines(pilot.app) == before
    assert "PAUSED 00:00:03, 3,000 packets since" in line(pilot.app, 1)
    await pilot.press(key)
    assert shown(pilot.app) == list(range(200, 200 - LINES, -1))
    assert "PAUSED" not in line(pilot.app, 1)


async def check_ended(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    source.tick([row._replace(end_reason=1) if row.flow_id % 2 else row for row in FLOWS])
    await pilot.pause()
    await pilot.press(key)
    assert shown(pilot.app) == [flow_id for flow_id in BY_RATE if not flow_id % 2][:LINES]
    assert "100 ENDED HIDDEN" in line(pilot.app, 1)
    await pilot.press(key)
    assert shown(pilot.app) == BY_RATE[:LINES]
    assert "ENDED" not in line(pilot.app, 1)


def turned() -> list[FlowRow]:
    """The order by rate is by number now, and each flow has had 40,000 octets in 40 packets more."""
    return [row._replace(octet_rate=5000.0 * row.flow_id, octet_total=row.octet_total + 40_000,
                         packet_total=row.packet_total + 40) for row in FLOWS]


async def check_mark(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert "SINCE MARK 0:00" in line(pilot.app, 1)
    for _ in range(83):
        source.tick(turned())
    await pilot.pause()
    assert "SINCE MARK 1:23" in line(pilot.app, 1)
    assert all("40.0 kB" in text for text in flow_lines(pilot.app))
    await pilot.press(key)
    assert "SINCE MARK 0:00" in line(pilot.app, 1)
    assert not any("40.0 kB" in text for text in flow_lines(pilot.app)), "a new mark counts from itself"


async def check_unmark(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("m")
    source.tick(turned())
    await pilot.pause()
    assert all("40.0 kB" in text for text in flow_lines(pilot.app))
    await pilot.press(key)
    assert "SINCE MARK" not in line(pilot.app, 1)
    assert not any("40.0 kB" in text for text in flow_lines(pilot.app)), "of life again"


def check_step(keys: tuple[str, ...], ticks: int) -> Check:
    """`keys`, then the key itself: `ticks` before the newest of forty, each with one flow ahead of all others."""
    async def check(pilot: Pilot[None], source: FakeSource, key: str) -> None:
        for tick in range(2, 41):
            source.tick([row._replace(octet_rate=1e9) if row.flow_id == tick else row for row in FLOWS])
        await pilot.pause()
        await pilot.press(*keys, key)
        assert shown(pilot.app)[0] == 40 - ticks
        assert f" −0:{ticks:02} of 0:39 kept, 00:00:{40 - ticks:02} " in line(pilot.app, 1)
        before = flow_lines(pilot.app)
        source.tick(FLOWS)
        await pilot.pause()
        assert flow_lines(pilot.app) == before, "it stands still"
        assert f" −0:{ticks + 1:02} of 0:40 kept, 00:00:{40 - ticks:02} " in line(pilot.app, 1)
        await pilot.press("space")
        assert shown(pilot.app) == BY_RATE[:LINES], "now"
        assert "kept" not in line(pilot.app, 1)
    return check


async def check_next_window(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    for column, header in (("rate_10s", "10 s"), ("rate_60s", "60 s"), ("rate", "RATE")):
        await pilot.press(key)
        assert source.asked[-1].sort == column
        assert f"{header}↓" in line(pilot.app, 2)
    await pilot.press("2", key)
    assert source.asked[-1].sort == "share_10s" and "SHARE 10s↓" in line(pilot.app, 2)


def check_view(number: int) -> Check:
    async def check(pilot: Pilot[None], source: FakeSource, key: str) -> None:
        await pilot.press("2" if number == 1 else "1", key)
        if number > len(VIEWS):
            assert f"no view has the digit {number}" in line(pilot.app, -1)
            return
        view = VIEWS[number - 1]
        assert (source.asked[-1].group, source.asked[-1].sort) == (view.group, view.sort)
        tab = terminal_lines(pilot.app)[pilot.app.main.header.list_line + 1]  # type: ignore[attr-defined]
        assert f" {number} {view.name} " in tab
        first, *_ = [segment for segment in pilot.app.screen._compositor.render_strips()[2]
                     if segment.style is not None and segment.style.reverse]
        assert first.text.strip() == f"{number} {view.name}", "it stands out"
    return check


def check_step_minutes(keys: tuple[str, ...], seconds: int) -> Check:
    async def check(pilot: Pilot[None], source: FakeSource, key: str) -> None:
        for _ in range(150):
            source.tick()
        await pilot.pause()
        await pilot.press(*keys, key)
        assert f" −{seconds // 60}:{seconds % 60:02} of 2:30 kept" in line(pilot.app, 1)
    return check


async def check_chart(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    before = len(flow_lines(pilot.app))
    for rows in (1, 2, 3):
        await pilot.press(key)
        await pilot.pause()
        assert len(flow_lines(pilot.app)) == before - rows and "2 Hosts" in terminal_lines(pilot.app)[rows + 2]
    for _ in range(6):
        await pilot.press(key)
    await pilot.pause()
    assert len(flow_lines(pilot.app)) == before, "past the highest: none"


async def check_bits(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    rate = max(row.octet_rate for row in FLOWS)
    assert f" {rate * 8 / 1000:.1f} kb/s" in flow_lines(pilot.app)[0]
    await pilot.press(key)
    assert f" {rate / 1000:.1f} kB/s" in flow_lines(pilot.app)[0]
    assert "51.5 MB/s" in line(pilot.app, 0)


async def check_hosts(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    assert isinstance(pilot.app, FlowtopApp)
    pilot.app.main.filter.look_up = lambda address: f"host-{address.replace('.', '-')}.example"
    first = max(FLOWS, key=lambda row: row.octet_rate)
    await pilot.press(key)
    while "host-" not in flow_lines(pilot.app)[0]:
        await pilot.pause(0.05)
    assert f":{first.source_port} " in flow_lines(pilot.app)[0]
    await pilot.press(key)
    assert "host-" not in flow_lines(pilot.app)[0]


async def check_services(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    tcp = [index for index, flow_id in enumerate(BY_RATE[:LINES])
           if FLOWS[flow_id - 1].source_port in (22, 80, 443) and FLOWS[flow_id - 1].protocol == 6]
    names = {22: ":ssh ", 80: ":http ", 443: ":https "}
    numbers = [flow_lines(pilot.app)[index].split()[3] for index in tcp]
    await pilot.press(key)
    named = [flow_lines(pilot.app)[index] for index in tcp]
    assert sum(names[FLOWS[BY_RATE[at] - 1].source_port] in text for at, text in zip(tcp, named, strict=True)) >= 3
    assert all(number.rpartition(":")[0] in text for number, text in zip(numbers, named, strict=True)), (
        "where a name has no room beside the address, the number stays")
    await pilot.press(key)
    assert all(f":{FLOWS[BY_RATE[index] - 1].source_port} " in flow_lines(pilot.app)[index] for index in tcp)


async def check_next_theme(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    seen = [background(pilot.app)]
    for name in THEMES[1:]:
        await pilot.press(key)
        await pilot.pause()
        assert f"theme {name}" in line(pilot.app, -1)
        seen.append(background(pilot.app))
    assert len(set(seen)) == len(THEMES)
    await pilot.press(key)
    await pilot.pause()
    assert background(pilot.app) == seen[0]


def sums_by(number: Callable[[FlowRow], object]) -> list[tuple[object, float]]:
    """Rate of each group, largest first."""
    sums: dict[object, float] = {}
    for row in FLOWS:
        sums[number(row)] = sums.get(number(row), 0.0) + row.octet_rate
    return sorted(sums.items(), key=lambda item: -item[1])


def source_text(row: FlowRow) -> str:
    return str(address(row.source_address[:4]))


async def check_group(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert isinstance(pilot.app.screen, GroupsScreen)
    await pilot.press(key, key, "enter")
    hosts = [host for host, _ in sums_by(source_text)]
    assert [text.split()[0] for text in flow_lines(pilot.app)] == hosts[:LINES]
    assert f"1–{LINES} of {len(hosts)} groups" in line(pilot.app, 1)


async def check_biflow(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", "down")
    source.tick(answered(FLOWS))
    await pilot.pause()
    destination = line(pilot.app, 4).split()[4]
    await pilot.press(key)
    assert cursor_line(pilot.app) == 1 and destination in line(pilot.app, 4), "the cursor's conversation"
    assert f"1–{LINES} of 200 biflows" in line(pilot.app, 1)
    assert {"RATE↓", "IN", "OUT"} <= set(line(pilot.app, 2).split())
    by_both = sorted(FLOWS, key=lambda row: -row.octet_rate * (4 / 3 if (row.flow_id - 1) % 3 else 1))
    assert shown(pilot.app) == [source.biflow(row.flow_id) for row in by_both[:LINES]]
    await pilot.press(key)
    assert "biflows" not in line(pilot.app, 1)


async def check_open(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("g", "g", "g", "enter", "down", "down", key)
    second = sums_by(source_text)[1][0]
    assert f" all › {second} " in line(pilot.app, 1)
    assert set(shown(pilot.app)) == {row.flow_id for row in FLOWS if source_text(row) == second}


async def check_back(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("g", "g", "g", "enter", "down", "down")
    before = flow_lines(pilot.app)
    await pilot.press("enter", "greater_than_sign", key)
    assert flow_lines(pilot.app) == before
    assert cursor_line(pilot.app) == 1
    assert "all ›" not in line(pilot.app, 1)
    assert "RATE↓" in line(pilot.app, 1)
    await pilot.press(key)
    assert shown(pilot.app) == BY_RATE[:LINES]


async def check_columns(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    assert "VLAN" not in line(pilot.app, 2)
    await pilot.press(key)
    assert isinstance(pilot.app.screen, ColumnsScreen)
    await pilot.press(*["down"] * 2, "space", "escape")
    assert "VLAN" in line(pilot.app, 2)


async def check_hand_off(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press("down", key)
    assert isinstance(pilot.app.screen, HandOffScreen)
    await pilot.press("f")
    first = next(row for row in FLOWS if row.flow_id == BY_RATE[0])
    assert str(address(first.source_address[:4])) in pilot.app.clipboard
    assert "copied as filter" in line(pilot.app, -1)


async def check_write(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert isinstance(pilot.app.screen, WriteScreen)
    await pilot.press("escape")
    assert not isinstance(pilot.app.screen, WriteScreen)


async def check_help(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert isinstance(pilot.app.screen, HelpScreen)
    await pilot.press(key)
    assert not isinstance(pilot.app.screen, HelpScreen)


async def check_palette(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    await pilot.press(*"reverse the")
    await pilot.pause(0.5)
    await pilot.press("enter")
    await pilot.pause(0.1)
    assert "RATE↑" in line(pilot.app, 2)


async def check_exports(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert isinstance(pilot.app.screen, ExportsScreen)
    await pilot.press("escape")
    assert len(flow_lines(pilot.app)) == LINES


async def check_interfaces(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    source.collecting = CollectingStatistics(messages=1)
    source.tick()
    await pilot.pause()
    await pilot.press(key)
    assert isinstance(pilot.app.screen, InterfacesScreen)
    await pilot.press("escape")
    assert len(flow_lines(pilot.app)) == LINES


async def check_suspend(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    stopped: list[str] = []
    pilot.app.action_suspend_process = lambda: stopped.append(key)  # type: ignore[method-assign]
    await pilot.press(key)
    assert stopped == [key], "a real terminal is stopped in test_terminal.py"


async def check_quit(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key, key)
    await pilot.app.workers.wait_for_complete()
    assert source.stopped == 1
    assert pilot.app.return_code == 0


async def check_packets(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert "packets cannot be written here" in line(pilot.app, -1), "this screen has nothing to write any with"


CHECKS: dict[str, Check] = {
    "move(-1)": check_up,
    "move(1)": check_down,
    "page_up": check_page_up,
    "page_down": check_page_down,
    "first": check_first,
    "last": check_last,
    "half_page(-1)": check_half_page(-1),
    "half_page(1)": check_half_page(1),
    "trouble": check_trouble,
    "compare": check_compare,
    "books": check_books,
    "step_out": check_step_out,
    "edit_filter": check_edit_filter,
    "choose_cell(-1)": check_choose_cell_left,
    "choose_cell(1)": check_choose_cell_right,
    "filter_by_cell(False)": check_filter_by_cell(keeps=True),
    "filter_by_cell(True)": check_filter_by_cell(keeps=False),
    "clear_filter": check_clear_filter,
    "sort_menu": check_sort_menu,
    "filter_conversation": check_filter_conversation,
    "sort_next": check_sort_next,
    "sort_previous": check_sort_previous,
    "reverse": check_reverse,
    "hold_order": check_hold_order,
    "follow": check_follow,
    "pause": check_pause,
    "ended": check_ended,
    "mark": check_mark,
    "unmark": check_unmark,
    "step(-1)": check_step((), 1),
    "step(1)": check_step(("left_square_bracket",) * 3, 2),
    "step(-10)": check_step((), 10),
    "step(10)": check_step(("left_square_bracket",) * 5 + ("left_curly_bracket",) * 2, 15),
    "step_minutes(-1)": check_step_minutes(("left_parenthesis",), 120),
    "step_minutes(1)": check_step_minutes(("left_parenthesis",) * 2, 60),
    "next_window": check_next_window,
    "chart": check_chart,
    **{f"view({number})": check_view(number) for number in range(1, 10)},
    "bits": check_bits,
    "hosts": check_hosts,
    "services": check_services,
    "exports": check_exports,
    "interfaces": check_interfaces,
    "next_theme": check_next_theme,
    "group": check_group,
    "biflow": check_biflow,
    "open": check_open,
    "back": check_back,
    "columns": check_columns,
    "hand_off": check_hand_off,
    "write": check_write,
    "packets": check_packets,
    "help": check_help,
    "app.command_palette": check_palette,
    "app.suspend_process": check_suspend,
    "app.quit": check_quit,
}
"""A check of every action of the key table: a new key fails here until it has one."""


@pytest.mark.parametrize(("name", "action"), [(name, key.action) for key in KEYS for name in key.names])
async def test_key_does_what_its_entry_says(name: str, action: str) -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        assert pilot.app.main.query_one(FlowTable).lines == LINES
        await CHECKS[action](pilot, source, name)


def test_no_key_is_bound_twice() -> None:
    names = [name for key in KEYS for name in key.names]
    assert len(names) == len(set(names))


async def test_every_action_of_the_main_screen_is_one_controllers() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        main = pilot.app.main
        own = [name for controller in (main.list, main.filter, main.groups, main.handoff, main.views,
                                      main.trouble)
               for name in dir(controller) if name.startswith("action_")]
    assert len(own) == len(set(own))
    actions = {f"action_{key.action.partition('(')[0]}" for key in KEYS if not key.action.startswith("app.")}
    assert actions == {*own, "action_help", "action_chart", "action_books", "action_step_out"}


@pytest.mark.parametrize("opening", ["s", "g"])
async def test_the_letter_of_a_choice_is_no_key_of_the_list_below(opening: str) -> None:
    """`q` of a column would quit, `T` of a field change the theme, and so on: all letters there are."""
    source = FakeSource(random_flows(20))
    async with running(source, 120, 40) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        theme = app.theme
        await pilot.press(opening)
        letters = [letter for letter in app.screen._letters if letter.strip()]  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert {"q", "e", "r", "x", "E"} & set(letters)
        for letter in letters:
            before = source.asked[-1]
            await pilot.press(opening, letter)
            await pilot.pause()
            assert app.is_running and app.screen is app.main and app.theme == theme, letter
            after = source.asked[-1]
            changed = {one.name for one in fields(after) if getattr(after, one.name) != getattr(before, one.name)}
            allowed = {"sort", "descending", "group", "biflow", "columns", "anchor", "offset", "limit"}
            assert changed <= allowed, (letter, changed)
