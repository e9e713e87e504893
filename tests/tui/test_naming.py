"""Names on the painted screen: they come late, cost no numbers, and harm nothing."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from rich.text import Text

from flowtop.metering.flows import TableConfig
from flowtop.tui.app import FlowtopApp
from flowtop.tui.saved import Looks
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import flow_lines, line, lines, running, shown
from tests.tui.table_source import TableSource

FLOWS = [flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=9e6),
         flow(2, "2001:db8::1", "10.0.0.5", (22, 40000), rate=8e6)]


async def until(pilot: object, words: str, app: FlowtopApp) -> None:
    for _ in range(1_500):
        if any(words in text for text in lines(app)):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(lines(app))


async def test_host_and_service_names_take_the_place_of_numbers_and_give_it_back() -> None:
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        app.main.filter.look_up = {"198.51.100.7": "web.example.org", "2001:db8::1": "six.example.org"}.get
        before = flow_lines(app)[:2]
        await pilot.press("n")
        assert "resolver" in line(app, -1)
        await until(pilot, "web.example.org:443", app)
        await until(pilot, "six.example.org:22", app)
        assert "10.0.0.5:51514" in flow_lines(app)[0], "no name: the number stays"
        await pilot.press("p")
        assert "web.example.org:https" in flow_lines(app)[0]
        assert "six.example.org:ssh" in flow_lines(app)[1]
        assert "10.0.0.5:51514" in flow_lines(app)[0], "a client's port has no name"
        await pilot.press("n", "p")
        assert flow_lines(app)[:2] == before


async def test_names_arrive_while_the_picture_stands_still() -> None:
    gate = threading.Event()

    def look_up(address: str) -> str | None:
        gate.wait(30)
        return "late.example" if address == "198.51.100.7" else None

    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.filter.look_up = look_up
        await pilot.press("space", "n", "down")
        assert "198.51.100.7:443" in flow_lines(pilot.app)[0], "keys work while the resolver hangs"
        gate.set()
        await until(pilot, "late.example:443", pilot.app)


async def test_a_silent_resolver_is_told() -> None:
    def look_up(address: str) -> str | None:
        raise OSError("no answer")

    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.filter.look_up = look_up
        await pilot.press("n")
        await until(pilot, "DNS DOES NOT ANSWER", pilot.app)
        assert "198.51.100.7:443" in flow_lines(pilot.app)[0]


@pytest.mark.parametrize("hostile", [
    "\x1b[31;1mred\x1b[0m", "\x1b]0;title\x07", "\x1b]52;c;ZXZpbA==\x07", "[bold red]markup[/]", "a\u202eb\u2067c",
    "zero\u200bwidth\ufeff", "x" * 300, "שלום", "漢字漢字", "line\nfeed\r\x00", "bad\udcff\udcfeutf", "\x9b2J",
])
async def test_a_hostile_name_is_painted_harmless(hostile: str) -> None:
    app = FlowtopApp(lambda: source, looks=Looks(hosts=True, services=True))
    source = FakeSource(FLOWS)
    answered = threading.Event()

    def look_up(address: str) -> str | None:
        answered.set()
        return hostile if address == "198.51.100.7" else "fine.example"

    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        app.main.filter.look_up = look_up
        source.tick()
        await until(pilot, "fine.example", app)
        await asyncio.sleep(0.2)
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        for strip in strips:
            assert strip.cell_length == 80
            for segment in strip:
                assert all(0x20 <= ord(c) != 0x7F and not 0x80 <= ord(c) < 0xA0 for c in segment.text)
                assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", segment.text)
                assert Text(segment.text).plain == segment.text
                assert segment.style is None or segment.style.color is None or segment.style.color.name != "red"
        assert flow_lines(app)[0].startswith(" eth0"), "the columns still stand where they stood"
        assert ":https" in flow_lines(app)[0]


def odd(address: str) -> str | None:
    """A name for every host; those whose number is odd have another domain."""
    number = int(address.rsplit(".", 1)[1])
    return f"h{number}.{'odd' if number % 2 else 'even'}.example"


async def test_a_filter_asks_the_names_that_are_known_and_says_how_many_these_are() -> None:
    source = TableSource(TableConfig())
    async with running(source, 120, 24) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        app.main.filter.look_up = odd
        source.tick({port: 1_000 - port for port in range(2, 41)})
        await pilot.pause()
        await pilot.press("slash", *"src name ~ odd", "enter")
        await pilot.pause(0.5)
        assert not shown(app)
        assert "no host names are known yet" in "".join(lines(app)) and "0 NAMES KNOWN" in line(app, 1)
        await pilot.press("backslash", "n")
        await until(pilot, "h20.even.example:20", app)
        await pilot.press("slash", *"src name ~ odd", "enter")
        await until(pilot, "NAMES KNOWN", app)
        assert [row.source_port for row in app.main.viewport.rows] == [3, 5, 7, 9, 11, 13, 15, 17, 19], "in view before"
        source.tick({port: 2_000 - port for port in range(2, 41)})
        await pilot.pause()
        assert len(app.main.viewport.rows) == 9


async def test_names_that_come_late_change_what_a_filter_passes_but_no_paused_picture() -> None:
    gates = {number: threading.Event() for number in (3, 5)}

    def look_up(address: str) -> str | None:
        number = int(address.rsplit(".", 1)[1])
        assert number not in gates or gates[number].wait(30)
        return odd(address)

    source = TableSource(TableConfig())
    async with running(source, 120, 24) as pilot:
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        app.main.filter.look_up = look_up
        source.tick({port: 1_000 - port for port in (2, 3, 5, 7)})
        await pilot.pause()
        await pilot.press("n")
        await until(pilot, "h7.odd.example:7", app)
        await pilot.press("slash", *"not src name ~ even", "enter")
        await pilot.press("slash", "ctrl+u", *"src name ~ odd", "enter")
        async with asyncio.timeout(30):
            while [row.source_port for row in app.main.viewport.rows] != [7]:
                await pilot.pause(0.01)
        gates[3].set()
        await until(pilot, "h3.odd.example:3", app)
        await pilot.press("space")
        gates[5].set()
        await asyncio.sleep(0.3)
        await pilot.pause()
        assert [row.source_port for row in app.main.viewport.rows] == [3, 7], "the picture stands still"
        await pilot.press("space")
        await until(pilot, "h5.odd.example:5", app)
