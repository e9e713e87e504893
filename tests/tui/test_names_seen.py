"""Names that were seen in packets, on the painted screen: in place of addresses, and nobody is asked for them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from flowtop.model.names_seen import NAMES, NameStatistics, Origin, peer_name
from flowtop.query.query import Page, Query
from flowtop.text.lookups import Lookups
from flowtop.tui.app import FlowtopApp
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import flow_lines, line, lines, running
from tests.tui.test_hostile import assert_harmless
from tests.tui.test_naming import until

TEXTS = {1: "www.example.com", 2: "api.example.net"}
FLOWS = [
    flow(1, "10.0.0.5", "198.51.100.7", (51514, 443), rate=9e6),
    flow(2, "198.51.100.7", "10.0.0.5", (443, 51515), rate=8e6),
    flow(3, "10.0.0.6", "198.51.100.8", (51516, 443), rate=7e6),
    flow(4, "10.0.0.6", "203.0.113.9", (51517, 443), rate=6e6),
]
NAMED = {1: peer_name(1, Origin.DNS, of_source=False), 2: peer_name(2, Origin.TLS, of_source=True)}
"""By flow_id. Both are names of one address."""


class NamingSource(FakeSource):
    """Flows with names; 198.51.100.8 was looked up by another client."""

    texts = TEXTS
    statistics = NameStatistics()

    def _show(self) -> None:
        super()._show()
        for flow_id, value in NAMED.items():
            self._table.columns["peer_name"][self._table._slots[flow_id]] = value

    def _now(self) -> Page:
        page = super()._now()
        called = {ipaddress.ip_address("198.51.100.8").packed: "other.example.org",
                  ipaddress.ip_address("198.51.100.7").packed: "api.example.net"}
        return replace(page, names=self.statistics,
                       lookups=Lookups(page.lookups.interfaces, texts={NAMES: self.texts}, called=called))


async def test_names_take_the_place_of_addresses_and_nobody_is_asked_for_them() -> None:
    asked: list[str] = []

    def look_up(address: str) -> str | None:
        asked.append(address)
        return "reverse.example" if address == "203.0.113.9" else None

    async with running(NamingSource(FLOWS), 140, 24) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        app.main.filter.look_up = look_up
        assert "www.example.com" in flow_lines(app)[0], "the column NAME has it without n too"
        assert "198.51.100.7:443" in flow_lines(app)[0]
        await pilot.press("n")
        await until(pilot, "reverse.example:443", app)
        shown = flow_lines(app)
        assert "www.example.com:443" in shown[0] and "198.51.100.7" not in shown[0]
        assert "api.example.net:443" in shown[1], "the same address has another name in another flow"
        assert "other.example.org:443" in shown[2], "better than to ask"
        assert {"198.51.100.7", "198.51.100.8"}.isdisjoint(asked)
        assert "203.0.113.9" in asked
        await pilot.press("n")
        assert "198.51.100.7:443" in flow_lines(app)[0]


async def test_filter_completion_group_and_details() -> None:
    async with running(NamingSource(FLOWS), 140, 40) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        await pilot.press("slash", *"name ww", "tab", "enter")
        assert [row.flow_id for row in app.main.viewport.rows] == [1]
        await pilot.press("slash", "ctrl+u", *"src name ~ EXAMPLE", "enter")
        assert [row.flow_id for row in app.main.viewport.rows] == [2]
        await pilot.press("down", "enter")
        assert any({"name", "api.example.net", "tls"} <= set(text.split()) for text in lines(app))
    async with running(NamingSource(FLOWS), 120, query=Query(group=("name",))) as pilot:
        assert sorted(row.split()[0] for row in flow_lines(pilot.app) if row.strip()) == [
            "-", "api.example.net", "www.example.com"]


async def test_what_is_missing_is_said_on_the_last_line() -> None:
    source = NamingSource(FLOWS)
    source.statistics = NameStatistics(dropped=1_234)
    async with running(source, 200, 24) as pilot:
        assert "names dropped: 1,234 packets" in "\n".join(lines(pilot.app)), line(pilot.app, -1)


async def test_hostile_texts_are_painted_harmless() -> None:
    source = NamingSource(FLOWS)
    source.texts = {1: "\x1b[31;1mred\x1b[0m", 2: "[bold red]markup[/]\n"}
    async with running(source, 140, 24) as pilot:
        assert_harmless(pilot.app)
        await pilot.press("down", "enter")
        assert_harmless(pilot.app)
