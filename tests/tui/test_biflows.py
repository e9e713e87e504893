"""Biflows on screen: both ways in one row, and everything that lists do goes on in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot

from flowtop.fields.registry import BIFLOW_COLUMNS, OF_COLUMNS
from flowtop.model.rows import FlowRow, Volume
from flowtop.query.query import Query
from flowtop.tui.app import FlowtopApp
from flowtop.tui.panels.details import DetailsScreen
from flowtop.tui.panels.groups import GroupsScreen
from tests.tui.fake_source import OUT, START_MS, FakeSource, answered, flow, random_flows
from tests.tui.screen import cursor_line, flow_lines, line, lines, place, running, shown

BIFLOWS = Query(biflow=True)
ASKED = flow(1, "10.0.0.5", "198.51.100.7", (51514, 443), direction=OUT, rate=1e6, octets=90_000,
             start_ms=START_MS - 900)
GIVEN = flow(2, "198.51.100.7", "10.0.0.5", (443, 51514), rate=8e6, octets=800_000,
             start_ms=START_MS - 880)
LONE = flow(3, "192.0.2.33", "10.0.0.5", (39022, 22), rate=2e6, octets=70_000)
PAIR = [ASKED, GIVEN, LONE]
FLOWS = answered(random_flows(120))
OF_WAY: dict[str, Callable[[Volume], float]] = {
    "rate": lambda row: row.octet_rate, "bytes": lambda row: row.octet_total, "packets": lambda row: row.packet_total}
"""What each way has a column of."""
TICKED = [row._replace(octet_rate=7000.0 * (row.flow_id % 5_000), octet_total=row.octet_total + 40_000)
          for row in FLOWS]


def conversing(rows: Sequence[FlowRow]) -> FakeSource:
    """The flows, of which those that began sent a SYN."""
    source = FakeSource(rows)
    source.openers = {row.flow_id for row in rows if row.flow_id in (ASKED.flow_id, LONE.flow_id) or (
        len(rows) > len(PAIR) and row.flow_id < 5_000)}
    return source


def first_way(flow_id: int) -> int:
    """flow_id of the flow that began; the answer to one is numbered 5,000 higher."""
    return flow_id % 5_000


def listed(pilot: Pilot[None]) -> list[int]:
    """The flows that began the biflows in view, from top to bottom."""
    assert isinstance(pilot.app, FlowtopApp)
    return [row.ways.forward.flow_id for row in pilot.app.main.viewport.rows if row.ways is not None]


def by_rate(rows: Sequence[FlowRow]) -> list[int]:
    """The flows that began, by the rate of both ways, largest first."""
    sums: dict[int, float] = {}
    for row in rows:
        sums[first_way(row.flow_id)] = sums.get(first_way(row.flow_id), 0.0) + round(row.octet_rate)
    return sorted(sums, key=lambda found: -sums[found])


async def tick(pilot: Pilot[None], source: FakeSource, rows: Sequence[FlowRow]) -> None:
    source.tick(rows)
    await pilot.pause()


def cells(pilot: Pilot[None], header: str) -> list[str]:
    """What a column at the right has, from top to bottom."""
    heads = line(pilot.app, 2)
    end = heads.index(f" {header} ") + 1 + len(header)
    return [text[end - 9:end].strip() for text in flow_lines(pilot.app) if text]


async def test_each_way_has_its_own_cells_and_a_way_that_was_not_seen_has_empty_ones() -> None:
    async with running(conversing(PAIR), 120, 24, BIFLOWS) as pilot:
        assert "1–2 of 2 biflows" in line(pilot.app, 1)
        assert [text.split()[1:3] for text in flow_lines(pilot.app)[:2]] == [
            ["10.0.0.5:51514", "198.51.100.7:443"], ["192.0.2.33:39022", "10.0.0.5:22"]]
        assert cells(pilot, "IN") == ["64.0 Mb/s", "16.0 Mb/s"]
        assert cells(pilot, "OUT") == ["8.0 Mb/s", ""]
        assert (cells(pilot, "BYTES IN"), cells(pilot, "BYTES OUT")) == (["800.0 kB", "70.0 kB"], ["90.0 kB", ""])


@pytest.mark.parametrize(("presses", "window", "factor"), [(3, "", 1.0), (1, " 10s", 0.9), (2, " 60s", 0.7)])
async def test_each_ways_rate_is_of_the_window_chosen_and_sorting_by_it_goes_along(presses: int, window: str,
                                                                                  factor: float) -> None:
    source = conversing(PAIR)
    async with running(source, 80, 24, Query(biflow=True, sort="rate_in", descending=False)) as pilot:
        await pilot.press(*["t"] * presses)
        assert [word in line(pilot.app, 2) for word in (f"IN{window}↑", f"OUT{window} ")] == [True, True]
        assert "192.0.2.33:39022" in flow_lines(pilot.app)[0], "less than the other's"
        assert f" {2e6 * factor * 8 / 1e6:.1f} Mb/s " in flow_lines(pilot.app)[0]


# ---- order


async def test_every_column_can_be_sorted_by_with_keys() -> None:
    source = conversing(FLOWS)
    async with running(source, 200, 24, BIFLOWS) as pilot:
        for _ in BIFLOW_COLUMNS:
            await pilot.press("greater_than_sign")
            query = source.asked[-1]
            assert shown(pilot.app) == [row.flow_id for row in source.look(query).rows][:len(shown(pilot.app))]
            assert BIFLOW_COLUMNS[query.sort].header in line(pilot.app, 2)
        there = {id_ for id_, column in BIFLOW_COLUMNS.items() if "live" in OF_COLUMNS[id_].known
                 and not (column.of_exporters or column.of_tunnels or column.of_networks)}
        assert {query.sort for query in source.asked} == there
        before = source.asked[-1].sort
        await pilot.press("greater_than_sign", "less_than_sign")
        assert source.asked[-1].sort == before


@pytest.mark.parametrize("column_id", [f"{name}_{way}" for name in ("rate", "bytes", "packets")
                                       for way in ("in", "out")])
async def test_a_click_on_a_ways_header_sorts_by_that_way(column_id: str) -> None:
    source = conversing(FLOWS)
    async with running(source, 200, 24, BIFLOWS) as pilot:
        await pilot.click(offset=place(pilot.app, line(pilot.app, 2).index(BIFLOW_COLUMNS[column_id].header), 2))
        await pilot.pause()
        field, _, way = column_id.rpartition("_")
        values = []
        for row in source.look(source.asked[-1]).rows[:19]:
            assert row.sides is not None
            values.append(OF_WAY[field](row.sides.into if way == "in" else row.sides.out_of))
        assert values == sorted(values, reverse=True) and values[0] > values[-1]
        assert BIFLOW_COLUMNS[column_id].header + "↓" in line(pilot.app, 2)


async def test_the_cursor_stays_on_its_biflow_when_others_overtake_it() -> None:
    source = conversing(FLOWS)
    async with running(source, query=BIFLOWS) as pilot:
        await pilot.press("down", "down", "down")
        mine = shown(pilot.app)[2]
        await tick(pilot, source, TICKED)
        await pilot.press("down", "up")
        assert shown(pilot.app)[cursor_line(pilot.app) or 0] == mine


async def test_the_cursor_stays_when_the_initiator_comes_to_light() -> None:
    source = FakeSource(PAIR)
    async with running(source, 120, 24, BIFLOWS) as pilot:
        await pilot.press("down")
        assert "?10.0.0.5:51514  " in flow_lines(pilot.app)[0], "the one with the higher port, as a guess"
        source.openers = {GIVEN.flow_id}
        await tick(pilot, source, PAIR)
        assert flow_lines(pilot.app)[0].split()[1] == "198.51.100.7:443", "turned"
        assert (cells(pilot, "IN")[0], cells(pilot, "OUT")[0]) == ("64.0 Mb/s", "8.0 Mb/s"), "whoever began"
        assert cursor_line(pilot.app) == 0


async def test_an_order_by_one_way_becomes_one_by_both_where_rows_have_no_ways() -> None:
    source = conversing(FLOWS)
    async with running(source, query=Query(biflow=True, sort="bytes_in")) as pilot:
        await pilot.press("B")
        assert (source.asked[-1].sort, source.asked[-1].descending) == ("bytes", True)
        await pilot.press("B")
        assert source.asked[-1].sort == "bytes"


# ---- there and back


async def test_the_cursor_goes_along_to_a_biflow_far_away_and_back() -> None:
    source = conversing(FLOWS)
    async with running(source) as pilot:
        await pilot.press("end", "up", "up")
        chosen = shown(pilot.app)[cursor_line(pilot.app) or 0]
        for key in ("B", "B", "B"):
            await pilot.press(key)
            await pilot.pause()
        assert listed(pilot)[cursor_line(pilot.app) or 0] == first_way(chosen)


async def test_without_a_cursor_the_other_list_begins_at_its_top() -> None:
    async with running(conversing(FLOWS)) as pilot:
        await pilot.press("pagedown", "B")
        assert listed(pilot) == by_rate(FLOWS)[:19]
        assert cursor_line(pilot.app) is None


async def test_the_group_chooser_offers_flows_and_biflows() -> None:
    source = conversing(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", "g", "enter")
        assert (source.asked[-1].group, source.asked[-1].biflow) == ((), True)
        await pilot.press("g")
        assert any("•b biflow " in text for text in lines(pilot.app)), "it begins at what there is"
        await pilot.press("space", "g", "enter")
        assert (source.asked[-1].group, source.asked[-1].biflow) == (("source",), False), "groups are of flows"
        await pilot.press("g", "up", "up", "enter")
        assert (source.asked[-1].group, source.asked[-1].biflow) == ((), False)


async def test_a_group_opened_has_biflows_when_the_list_had_and_so_has_the_way_back() -> None:
    source = conversing(FLOWS)
    async with running(source, query=BIFLOWS) as pilot:
        await pilot.press("g", "g", "enter", "down", "enter")
        host = flow_lines(pilot.app)[0]
        assert source.asked[-1].biflow and "all › " in line(pilot.app, 1) and host
        await pilot.press("backspace")
        assert source.asked[-1].group == ("source",)
        await pilot.press("backspace")
        assert (source.asked[-1].group, source.asked[-1].biflow) == ((), True)
        await pilot.press("g", "g", "enter", "B")
        assert (source.asked[-1].group, source.asked[-1].biflow) == ((), True), "of groups, the biflows in them"
        await pilot.press("B", "g", *["g"] * 2, "enter", "down", "enter")
        assert not source.asked[-1].biflow


async def test_keys_before_the_biflows_come_are_for_them() -> None:
    source = conversing(FLOWS)
    async with running(source) as pilot:
        source.silent = True
        await pilot.press("B", "down", "down")
        source.silent = False
        await tick(pilot, source, FLOWS)
        assert cursor_line(pilot.app) == 1 and "biflows" in line(pilot.app, 1)


# ---- calm


async def test_frozen_paused_and_followed() -> None:
    source = conversing(FLOWS)
    async with running(source, query=BIFLOWS) as pilot:
        first = listed(pilot)
        await pilot.press("o")
        await tick(pilot, source, TICKED)
        assert listed(pilot) == first and first != by_rate(TICKED)[:19], "frozen"
        await pilot.press("o", "space")
        before = flow_lines(pilot.app)
        assert listed(pilot) == by_rate(TICKED)[:19]
        await tick(pilot, source, FLOWS)
        assert flow_lines(pilot.app) == before and "PAUSED" in line(pilot.app, 1)
        await pilot.press("B")
        assert "PAUSED" in line(pilot.app, 1) and "biflows" not in line(pilot.app, 1), "looked at otherwise, as it was"
        await pilot.press("B", "space", "home", "down", "F")
        mine = by_rate(FLOWS)[0]
        slow = [row._replace(octet_rate=1.0) if first_way(row.flow_id) == mine else row for row in FLOWS]
        await tick(pilot, source, slow)
        await pilot.pause()
        assert listed(pilot)[cursor_line(pilot.app) or 0] == mine, "followed to the end of the list"


async def test_the_past_has_biflows_and_the_mark_counts_each_way() -> None:
    source = conversing(PAIR)
    async with running(source, 120, 24, BIFLOWS) as pilot:
        await pilot.press("m")
        more = [row._replace(octet_total=row.octet_total + 1_000 * row.flow_id) for row in PAIR]
        await tick(pilot, source, more)
        assert "SINCE MARK" in line(pilot.app, 1)
        assert (cells(pilot, "BYTES OUT"), cells(pilot, "BYTES IN")) == (["1.0 kB", ""], ["2.0 kB", "3.0 kB"])
        await pilot.press("left_square_bracket")
        assert " −0:01 of 0:01 kept" in line(pilot.app, 1) and "2 biflows" in line(pilot.app, 1)
        assert cells(pilot, "BYTES IN") == ["800.0 kB", "70.0 kB"]


# ---- filters, details, handing on


@pytest.mark.parametrize(("column", "left", "text"), [
    ("source", 1, "host 10.0.0.5 and port 51514"), ("destination", 1, "host 198.51.100.7 and port 443"),
    ("protocol", 2, "tcp")])
async def test_a_cell_keeps_its_biflows_or_hides_them(column: str, left: int, text: str) -> None:
    source = conversing([*PAIR, flow(4, "192.0.2.9", "10.0.0.9", (5353, 5353), protocol=17, rate=1.0)])
    async with running(source, 120, 24, BIFLOWS) as pilot:
        await pilot.press("down", "right")
        while pilot.app.main.viewport.cell != column:  # type: ignore[attr-defined]
            await pilot.press("right" if column != "protocol" else "left")
        await pilot.press("equals_sign")
        assert source.asked[-1].filter is not None and source.asked[-1].filter.text == text
        assert len(listed(pilot)) == left and listed(pilot)[0] == ASKED.flow_id
        await pilot.press("backslash", "exclamation_mark")
        assert len(listed(pilot)) == 3 - left and ASKED.flow_id not in listed(pilot)


async def test_no_filter_asks_for_what_one_way_has() -> None:
    source = conversing(PAIR)
    async with running(source, 120, 24, BIFLOWS) as pilot:
        await pilot.press("down", "right")
        while pilot.app.main.viewport.cell != "rate_in":  # type: ignore[attr-defined]
            await pilot.press("right")
        await pilot.press("equals_sign")
        assert source.asked[-1].filter is None and "flows cannot be filtered by this cell" in line(pilot.app, -1)


async def test_details_are_of_both_ways_and_go_from_biflow_to_biflow() -> None:
    source = conversing(PAIR)
    async with running(source, 120, 40, BIFLOWS) as pilot:
        await pilot.press("down", "enter")
        assert source.asked[-1].details == ASKED.flow_id
        screen = "\n".join(lines(pilot.app))
        assert "10.0.0.5:51514 → 198.51.100.7:443" in screen
        [octets] = [text for text in lines(pilot.app) if " bytes " in text]
        sizes = [row.octet_total // row.packet_total for row in (ASKED, GIVEN)]
        assert " ".join(octets.split()[2:10]) == f"90,000, {sizes[0]} a packet 800,000, {sizes[1]} a packet"
        source.openers = {GIVEN.flow_id}
        await tick(pilot, source, PAIR)
        assert "10.0.0.5:51514 → 198.51.100.7:443" in "\n".join(lines(pilot.app)), "the same flow, whoever began"
        await pilot.press("down")
        assert source.asked[-1].details == LONE.flow_id
        assert "no packets in reverse" in "\n".join(lines(pilot.app))
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, DetailsScreen) and cursor_line(pilot.app) == 1


async def test_a_biflow_is_copied_as_words_for_both_ways_and_as_json() -> None:
    async with running(conversing(PAIR), 200, 24, BIFLOWS) as pilot:
        await pilot.press("down", "c")
        assert any("hand off this biflow" in text for text in lines(pilot.app))
        await pilot.press("f")
        assert pilot.app.clipboard == "tcp and 10.0.0.5:51514 and 198.51.100.7:443"
        await pilot.press("c", "t")
        assert pilot.app.clipboard == (
            "'(tcp and src host 10.0.0.5 and src port 51514 and dst host 198.51.100.7 and dst port 443) or "
            "(tcp and src host 198.51.100.7 and src port 443 and dst host 10.0.0.5 and dst port 51514)'")
        await pilot.press("c", "j")
        copied = json.loads(pilot.app.clipboard)
        assert (copied["octetTotalCount"], copied["reverseOctetTotalCount"]) == (90_000, 800_000)


async def test_the_list_is_written_with_both_ways(tmp_path: Path) -> None:
    async with running(conversing(PAIR), 120, 24, BIFLOWS) as pilot:
        path = tmp_path / "biflows.csv"
        await pilot.press("w", "ctrl+u", *str(path), "enter")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert "2 biflows written" in line(pilot.app, -1)
        names = ("sourceTransportPort", "octetTotalCount", "reverseOctetTotalCount")
        rows = [tuple(row[name] for name in names) for row in csv.DictReader(path.read_text().splitlines())]
        assert rows == [("51514", "90000", "800000"), ("39022", "70000", "")]


# ---- columns


async def test_columns_of_ways_are_chosen_beside_those_of_flows() -> None:
    async with running(conversing(FLOWS), 120, 40) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        await pilot.press("C", *["down"] * 5, *"JJJJ", "escape", "B", "C")  # behind PROCESS, NAME, NAMED BY, DSCP
        text = "\n".join(lines(pilot.app))
        assert "BYTES IN" in text and "PEAK" not in text, "those that this list can have"
        there = [id_ for id_, column in BIFLOW_COLUMNS.items() if not column.of_exporters and not column.of_tunnels]
        await pilot.press(*["down"] * there.index("bytes_out"), "K", "escape")
        assert line(pilot.app, 2).index("BYTES OUT") < line(pilot.app, 2).index("BYTES IN")
        await pilot.press("B")
        order = pilot.app.main.handoff.arrangement.order
        assert order.index("dscp") < order.index("destination") < order.index("flags"), "what flows had stays"


async def test_the_chooser_says_what_biflows_are() -> None:
    async with running(conversing(PAIR)) as pilot:
        await pilot.press("g")
        assert isinstance(pilot.app.screen, GroupsScreen)
        assert any("biflow" in text and "both directions" in text for text in lines(pilot.app))


@pytest.mark.parametrize(("downs", "line_after"), [(1, 6), (31, 18)])
async def test_the_fastest_conversations_stay_in_sight_when_both_directions_are_merged(
        downs: int, line_after: int) -> None:
    """The cursor's conversation is at another place then; the view moves only as far as it takes to show it."""
    one_way = [flow(number, "198.51.100.7", f"10.0.0.{number}", (443, 50_000),
                    rate=1e6 if number == 1 else 1e4 - number) for number in range(1, 61)]
    both_ways = [row for number in range(61, 67) for row in (
        flow(number, "198.51.100.7", f"10.0.0.{number}", (443, 50_000), rate=5e5),
        flow(number + 100, f"10.0.0.{number}", "198.51.100.7", (50_000, 443), direction=OUT, rate=6e5 + number))]
    source = FakeSource([*one_way, *both_ways])
    async with running(source, 120, 24) as pilot:
        await pilot.press(*["down"] * downs, "B")
        await pilot.pause()
        assert cursor_line(pilot.app) == line_after
        fastest = source.look(Query(biflow=True)).rows[0].flow_id
        assert (shown(pilot.app)[0] == fastest) == (downs == 1)
