"""A flow's details on screen: its keys, what is told, what stays when the flow has ended and left."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from flowtop.export.exports import Export
from flowtop.export.statistics import ExportState
from flowtop.fields.columns import Wording
from flowtop.filters.filter import compile_filter
from flowtop.model.kinds import EndReason, RecordBits
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.query.query import Books, Details, Page, Query, Traffic
from flowtop.text.lookups import Lookups
from flowtop.tui.keys import DETAIL_KEYS
from flowtop.tui.panels.details import (
    ENDINGS,
    REASONS,
    DetailsContext,
    DetailsScreen,
    _squeezed,
    detail_lines,
    flag_marks,
    flags_over_time,
)
from flowtop.tui.panels.handing import HandOffScreen
from tests.tui.fake_exports import statistics
from tests.tui.fake_source import OUT, FakeSource, flow, random_flows
from tests.tui.screen import cursor_line, flow_lines, lines, running

FLOWS = [
    flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=9e9, octets=1_210_000_000, age_s=151, ttl=57, tos=184),
    flow(2, "10.0.0.5", "198.51.100.7", (51514, 443), direction=OUT, rate=8e9, octets=17_300_000, age_s=151),
    flow(3, "198.51.100.7", "10.0.0.5", (443, 51514), rate=7e9, octets=1_210_000_000, ifindex=4, duplicate=True),
    *[row._replace(flow_id=row.flow_id + 10) for row in random_flows(40)],
]
Check = Callable[["Pilot[None]", FakeSource, str], Awaitable[None]]


@asynccontextmanager
async def opened(width: int = 80, height: int = 24) -> AsyncIterator[tuple[Pilot[None], FakeSource]]:
    """The app with the details of the first flow open."""
    source = FakeSource(FLOWS)
    async with running(source, width, height) as pilot:
        await pilot.press("down", "enter")
        await pilot.pause()
        yield pilot, source


def text(pilot: Pilot[None]) -> str:
    return "\n".join(lines(pilot.app))


async def check_above(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", "down", key)
    assert source.asked[-1].details == 2


async def check_below(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    await pilot.pause()
    assert source.asked[-1].details == 2
    assert "10.0.0.5:51514 → 198.51.100.7:443" in text(pilot)
    await pilot.press("escape")
    assert cursor_line(pilot.app) == 1, "the cursor went along"


async def check_scroll_up(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    before = text(pilot)
    await pilot.press("pagedown", key)
    await pilot.pause()
    assert text(pilot) == before


async def check_scroll_down(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    await pilot.pause()
    assert "Esc close" in text(pilot)


async def check_hand_off(pilot: Pilot[None], _: FakeSource, key: str) -> None:
    await pilot.press(key)
    await pilot.app.workers.wait_for_complete()
    assert isinstance(pilot.app.screen, HandOffScreen)


async def check_close(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key)
    assert not isinstance(pilot.app.screen, DetailsScreen)
    assert pilot.app.return_code is None
    assert source.asked[-1].details is None, "nobody looks any more"
    assert len(flow_lines(pilot.app)) == 19


CHECKS: dict[str, Check] = {"step(-1)": check_above, "step(1)": check_below, "scroll(-1)": check_scroll_up,
                            "scroll(1)": check_scroll_down, "hand_off": check_hand_off, "close": check_close}


@pytest.mark.parametrize(("name", "action"), [(name, key.action) for key in DETAIL_KEYS for name in key.names])
async def test_key_does_what_its_entry_says(name: str, action: str) -> None:
    async with opened() as (pilot, source):
        await CHECKS[action](pilot, source, name)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
async def test_everything_known_is_told(width: int, height: int) -> None:
    async with opened(width, height) as (pilot, _):
        screen = text(pilot)
        for words in ("tcp  198.51.100.7:443 → 10.0.0.5:51514", "active", "mac 02:00:00:00:00:0a",
                      "mac 02:00:00:00:00:0b", "ttl 57", "dscp ef", "last 2:00", "this direction", "reverse direction",
                      "1,210,000,000", "17,300,000", "72.0 Gb/s", "64.0 Gb/s", "eth0 ←", "eth0.20 ←", "duplicate",
                      "2026-01-01 00:00:00.000", "lasted 2:31",
                      "1,209,999 of 1,344,444 packets in 3 records, last 0:12 ago",
                      "last: active timeout; next in 0:48; no export is running", "rtt 16.7 ms cwnd 12 retr 0"):
            assert words in screen, words
        assert any(spark in screen for spark in "▃▄▅▆")


async def test_a_mac_address_that_the_exporter_does_not_report_is_not_zeros() -> None:
    async with opened() as (pilot, source):
        missing = int(RecordBits.NO_DESTINATION_MAC)
        source.flows[0] = source.flows[0]._replace(destination_mac=bytes(6), record_bits=missing)
        source.tick()
        await pilot.pause(0.3)
        screen = text(pilot)
        assert "mac 02:00:00:00:00:0a" in screen and "mac not reported" in screen and "00:00:00:00:00:00" not in screen


async def test_details_are_live_and_so_while_the_list_stands_still() -> None:
    async with opened() as (pilot, source):
        await pilot.press("escape", "space", "enter")
        await pilot.pause()
        held = source.asked[-1].details
        assert held == 1
        source.tick([FLOWS[0]._replace(octet_total=1_999_999_999), *FLOWS[1:]])
        await pilot.pause()
        assert "1,999,999,999" in text(pilot)
        assert "this is of now; the list is of " in text(pilot)
        await pilot.press("escape")
        assert "PAUSED" in text(pilot)
        await pilot.press("space", "enter")
        assert "this is of now" not in text(pilot)


@pytest.mark.parametrize("reason", list(ENDINGS))
async def test_a_flow_that_ended_and_left_is_still_told_of_and_how_it_ended(reason: int) -> None:
    async with opened() as (pilot, source):
        source.tick([FLOWS[0]._replace(end_reason=reason, octet_rate=0.0), *FLOWS[1:]])
        await pilot.pause()
        assert ENDINGS[reason] in text(pilot)
        assert "left the table" not in text(pilot)
        source.tick(FLOWS[1:])
        await pilot.pause()
        assert ENDINGS[reason] in text(pilot) and "left the table" in text(pilot)
        assert "1,210,000,000" in text(pilot)
        assert "next in" not in text(pilot)
        assert f"last: {REASONS[reason]}" in text(pilot)


def test_every_way_to_end_has_words() -> None:
    assert set(ENDINGS) == set(REASONS) == set(EndReason) - {EndReason.NONE}


async def test_names_stand_beside_numbers_and_are_no_markup() -> None:
    async with opened(120, 40) as (pilot, _):
        await pilot.press("escape")
        pilot.app.main.filter.look_up = lambda address: "[red]x[/red].example"  # type: ignore[attr-defined]
        await pilot.press("n")
        while "mple#" not in flow_lines(pilot.app)[0]:  # the end of names that are cut
            await pilot.pause(0.05)
        await pilot.press("enter")
        while "?red?x??red?.example" not in text(pilot):
            await pilot.pause(0.05)
        assert re.search(r"198\.51\.100\.7:443  \(\?red\?x\?\?red\?\.example#\d+:443\)", text(pilot)), "one of several"


async def test_a_flow_that_was_gone_before_anybody_looked_is_told_of_as_the_list_has_it() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("down", "space")
        source.tick(FLOWS[1:])
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        assert "198.51.100.7:443 → 10.0.0.5:51514" in text(pilot)
        assert "1,210,000,000" in text(pilot)


@pytest.mark.parametrize("width", [80, 120])
def test_details_of_a_flow_that_left_say_so_and_omit_what_was_not_kept(width: int) -> None:
    row = random_flows(1)[0]
    now = FakeSource().page(Query())
    context = DetailsContext(replace(now, unix_ms=row.end_ms + 180_000), Wording(), time.gmtime)
    texts = [strip.text for strip in detail_lines(Details(row, gone=True, then_ms=row.end_ms + 1_000), context, width)]
    assert all(len(text) == width for text in texts)
    assert any(f"left the table since: as it was at {context.at(row.end_ms + 1_000)}" in text for text in texts)
    assert any("last packet" in text and "3:00 ago" in text for text in texts)
    assert not any("reported" in text or "export" in text or "peak of these" in text for text in texts)


async def test_brackets_of_ipv6_stay_in_the_title() -> None:
    source = FakeSource([flow(1, "2001:db8::1", "2001:db8::2", (443, 50000), rate=10.0)])
    async with running(source) as pilot:
        await pilot.press("down", "enter")
        await pilot.pause()
        assert "[2001:db8::1]:443 → [2001:db8::2]:50000" in text(pilot)


def test_a_sparkline_that_is_squeezed_keeps_its_bursts() -> None:
    rates = [1.0] * 120
    rates[77] = 900.0
    assert _squeezed(rates, 62) == [900.0 if at == 38 else 1.0 for at in range(60)]
    assert _squeezed(rates, 120) == rates
    assert _squeezed([], 62) == []


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
async def test_flags_are_told_by_when_they_came_and_marked_below_the_rate(width: int, height: int) -> None:
    async with opened(width, height) as (pilot, source):
        source.tick([FLOWS[0]._replace(tcp_control_bits=0b11011), *FLOWS[1:]], seconds=71)
        await pilot.pause()
        # The flow began 151 s before the 72 that have passed; half of the sparkline's two minutes are a minute.
        assert "S. by 2:43, P by 2:45, F by 3:43" in text(pilot)
        [rate] = [row for row in lines(pilot.app) if re.search("rate +[▁▂▃▄▅▆▇█]+", row)]
        [marks] = [row for row in lines(pilot.app) if re.search("flags +S", row)]
        first, last = (re.search("[▁▂▃▄▅▆▇█]+", rate) or pytest.fail()).span()
        assert marks[last - 1] == "F", "now"
        assert marks.index("S") in range(first + (last - first) // 2 - 2, first + (last - first) // 2 + 1)
        assert marks[marks.index("S"):].split()[0] in ("S.", "S.P")


def test_marks_keep_their_order_and_never_leave_the_line() -> None:
    row = flow(1, "10.0.0.1", "10.0.0.2", (1, 2), age_s=30.0, tcp_control_bits=0b111011)
    now = row.start_ms + 30_000
    told = Details(row, (1.0,) * 10, 10.0, flags=((now - 25_000, 0b10), (now - 5_000, 0b10000), (now, 0b1001)))
    assert flag_marks(told, now, 10) == "    .    F"
    assert flags_over_time(told) == "U earlier, S by 0:05, . by 0:25, FP by 0:30"
    assert flag_marks(told, now, 0) == ""
    assert flags_over_time(Details(row._replace(tcp_control_bits=0))) == ""


NEXT = np.zeros(1, FLOW_RECORD_DTYPE)
NEXT["protocol"], NEXT["ip_version"], NEXT["destination_port"], NEXT["octet_delta"] = 6, 4, 443, 5_000


def test_each_export_says_where_it_stands_and_whether_it_takes_the_flow() -> None:
    def context(*exports: Export) -> DetailsContext:
        page = Page(Query(), 1, 0, 0.0, 1.0, (), 0, 0, 0, None, Books(), Traffic(), Traffic())
        return DetailsContext(page, Wording(), time.gmtime, exports=exports)

    def words(details: Details, *exports: Export) -> list[str]:
        found = ["".join(segment.text for segment in strip).rstrip()
                 for strip in detail_lines(details, context(*exports), 118)]
        after = found[next(at for at, words in enumerate(found) if "reported" in words) + 1:]
        return [words for words in after if words and not words.startswith(" community ")]

    def export(number: int, keep: str = "", *, duplicates: bool = True, **figures: Any) -> Export:
        mask = compile_filter(keep, "records").record_mask if keep else None
        return Export(number, statistics("ipfix://collector", **figures), mask, duplicates)

    row = flow(1, "10.0.0.1", "10.0.0.2", (1, 443))
    alive = Details(row, record=NEXT)
    ended = Details(row._replace(end_reason=3), record=NEXT)
    assert words(alive) == [" " * 15 + "no export is running"]
    said = words(alive, export(1), export(2, "tcp port 443 and bytes > 4000", queued_records=3, spooled_records=1_000),
                 export(3, "udp or bytes > 6000", state=ExportState.WAITING), export(4, state=ExportState.STOPPED))
    assert said == [" export 1      ● exporting, takes this flow, none wait  ipfix://collector",
                    " export 2      ● exporting, takes this flow, 1,003 records wait  ipfix://collector",
                    " export 3      ○ waiting, excludes this flow, none wait  ipfix://collector"]
    assert words(ended, export(1)) == [" export 1      ● exporting, has this flow, none wait  ipfix://collector"]
    assert words(Details(row), export(1, "udp")) == [" export 1      ● exporting, none wait  ipfix://collector"]
    twin = NEXT.copy()
    twin["duplicate"] = True
    assert "excludes this flow" in words(Details(row, record=twin), export(1, duplicates=False))[0]
    many = words(alive, *map(export, range(1, 12)))
    assert len(many) == 9 and "3 more exports: e shows them" in many[-1]


@pytest.mark.parametrize(("direction", "said"), [(0, "left by wan0"), (1, "came in by wan0"), (2, "left by wan0")])
def test_the_interface_at_an_exporters_other_side_is_told(direction: int, said: str) -> None:
    page = Page(Query(), 1, 0, 0.0, 1.0, (), 0, 0, 0, None, Books(), Traffic(), Traffic(),
                lookups=Lookups({2: "192.0.2.1/7 lan0", 7: "192.0.2.1/7 wan0"}))
    row = flow(1, "10.0.0.1", "10.0.0.2", (1, 443), direction=direction)

    def words(details: Details) -> list[str]:
        strips = detail_lines(details, DetailsContext(page, Wording(), time.gmtime), 100)
        return [" ".join("".join(segment.text for segment in strip).split()) for strip in strips]

    found = words(Details(row, other_ifindex=7))
    assert found[found.index(said) - 1].startswith(
        f"seen at 192.0.2.1 domain 7 lan0 {('←', '→', 'direction not reported')[direction]} ")
    assert not any("wan0" in line for line in words(Details(row)))
