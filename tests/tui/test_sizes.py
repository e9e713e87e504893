"""Small terminals: addresses, help and choosers are whole, or what is missing has a mark; nothing is pushed out."""

from __future__ import annotations

import re

import pytest

from flowtop.fields.columns import Wording
from flowtop.fields.registry import COLUMNS, GROUPS, OF_COLUMNS
from flowtop.query.query import Query
from flowtop.text.lookups import NO_LOOKUPS
from flowtop.tui.keys import GROUP_KEYS, HELP_KEYS, KEYS
from flowtop.tui.panels.help import PAGES
from tests.tui.fake_source import IN, OUT, FakeSource, flow, random_flows
from tests.tui.regions import panel
from tests.tui.screen import flow_lines, line, lines, running
from tests.tui.test_regions import SMALL

FLOWS = random_flows(40)
LIVE = [column.doc for id_, column in COLUMNS.items() if "live" in OF_COLUMNS[id_].known and not (
    column.of_exporters or column.of_tunnels or column.of_networks)]
"""Of the columns that a live capture without tunnels and databases has."""


@pytest.mark.parametrize(("width", "height"), [*SMALL, (80, 24)])
async def test_an_address_is_whole_or_has_a_mark(width: int, height: int) -> None:
    whole = {COLUMNS[side].text(row, Wording(), NO_LOOKUPS) for row in FLOWS for side in ("source", "destination")}
    async with running(FakeSource(FLOWS), width, height) as pilot:
        rows = flow_lines(pilot.app)
        assert rows
        for row in rows:
            ends = [word for word in row.split() if re.search(r"\d\.|…", word) and "/s" not in word][:2]
            assert len(ends) == 2, row
            assert all(word in whole or "…" in word for word in ends), row


@pytest.mark.parametrize("width", [40, 60, 79])
async def test_every_text_of_help_is_there_whole_at_any_width(width: int) -> None:
    async with running(FakeSource(FLOWS), width, 700) as pilot:
        await pilot.press("question_mark")
        for page in PAGES:
            await pilot.pause()
            inside = panel(lines(pilot.app))
            text = " ".join(" ".join(inside).split())
            assert "…" not in text.replace("(all", ""), "nothing is cut"
            if page == "keys":
                assert [key.caps for key in KEYS if key.caps.split()[0] not in text.split()] == []
            if page == "words":
                assert [doc for doc in (*(column.doc for column in COLUMNS.values()),
                                        *(key.doc for key in (*HELP_KEYS, *GROUP_KEYS))) if doc not in text] == []
            await pilot.press("tab")


@pytest.mark.parametrize(("key", "docs"), [
    ("g", [field.doc for field in GROUPS.values() if not field.of_exporters and not field.of_networks]),
    ("s", LIVE), ("C", LIVE),
])
@pytest.mark.parametrize(("width", "height"), [(60, 20), (120, 40)])
async def test_a_chooser_shows_the_whole_text_of_its_line(key: str, docs: list[str], width: int, height: int) -> None:
    async with running(FakeSource(FLOWS), width, height) as pilot:
        await pilot.press(key)
        await pilot.press(*["home"])
        seen = ""
        for _ in range(2 * len(docs)):
            seen += " ".join(" ".join(panel(lines(pilot.app))).split()) + "\n"
            await pilot.press("down")
            if all(doc in seen for doc in docs):
                return
    raise AssertionError([doc for doc in docs if doc not in seen])


@pytest.mark.parametrize("width", [40, 60, 80])
async def test_details_show_both_directions_whole_at_any_width(width: int) -> None:
    there = flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=9e6, octets=1_210_000_000, direction=IN)
    back = flow(2, "10.0.0.5", "198.51.100.7", (51514, 443), rate=3e5, octets=17_300_000, direction=OUT,
                packet_total=19_222)
    async with running(FakeSource([there, back]), width, 80) as pilot:
        await pilot.press("down", "enter")
        await pilot.pause()
        text = "\n".join(panel(lines(pilot.app)))
        for words in ("this direction", "reverse direction", "1,210,000,000", "17,300,000", "19,222", "72.0 Mb/s",
                      "2.40 Mb/s"):
            assert words in text
        assert text.index("this direction") < text.index("1,210,000,000")
        assert text.index("reverse direction") < text.index("17,300,000")


@pytest.mark.parametrize("keys", [("o", "F", "E", "space"), ("m", "o", "space"),
                                  (*["left_square_bracket"] * 2, "o", "F")])
async def test_the_filter_stays_in_sight_whatever_else_there_is_to_say(keys: tuple[str, ...]) -> None:
    source = FakeSource(FLOWS)
    async with running(source, 80, 24) as pilot:
        for _ in range(3):
            source.tick()
        await pilot.pause()
        await pilot.press("slash", *"tcp and port 443", "enter", "down", *keys)
        await pilot.pause()
        assert re.search(r"filter tcp an", line(pilot.app, 1)), line(pilot.app, 1)


async def test_columns_that_one_filters_by_are_on_screen() -> None:
    rows = [row._replace(retransmitted=row.flow_id, rtt_us=1_000 * row.flow_id) for row in FLOWS]
    async with running(FakeSource(rows), 80, 24, Query()) as pilot:
        assert "RETR" not in line(pilot.app, 2)
        await pilot.press("slash", *"retransmits", "enter")
        assert "RETR" in line(pilot.app, 2)
        await pilot.press("slash", "ctrl+u", *"rtt > 10", "enter")
        assert "RTT" in line(pilot.app, 2) and "RETR" not in line(pilot.app, 2)
        assert "filter rtt > 10ms" in line(pilot.app, 1), "it says in which unit"
