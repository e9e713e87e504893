"""The column chooser: each of its keys, what the list shows then, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from flowtop.errors import FlowtopError
from flowtop.fields.arrangement import AUTOMATIC, Arrangement
from flowtop.fields.registry import COLUMNS, OF_COLUMNS
from flowtop.tui.app import FlowtopApp
from flowtop.tui.keys import COLUMN_KEYS
from flowtop.tui.panels.columns import ColumnsScreen
from flowtop.tui.saved import Looks, SavedView
from flowtop.tui.widgets.flow_table import FlowTable
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import flow_lines, line, lines

IDS = [id_ for id_, column in COLUMNS.items() if "live" in OF_COLUMNS[id_].known
       and not (column.of_exporters or column.of_tunnels or column.of_networks)]
"""Of a live capture, without tunnels and databases."""


@asynccontextmanager
async def choosing(looks: Looks = Looks(), width: int = 80, height: int = 24) -> AsyncIterator[Pilot[None]]:  # noqa: B008
    """The app with the chooser open."""
    source = FakeSource(random_flows(50))
    app = FlowtopApp(lambda: source, looks=looks)
    async with app.run_test(size=(width, height)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        source.tick()
        await pilot.pause()
        await pilot.press("C")
        await pilot.pause()
        yield pilot


def chosen(pilot: Pilot[None]) -> Arrangement:
    assert isinstance(pilot.app, FlowtopApp)
    return pilot.app.main.handoff.arrangement


def order(pilot: Pilot[None]) -> list[str]:
    return [column.id for column in chosen(pilot).ordered(COLUMNS.values()) if column.id in IDS]


def list_lines(pilot: Pilot[None]) -> list[str]:
    return boxed(pilot)[1:-1]


def boxed(pilot: Pilot[None]) -> list[str]:
    """Lines of the chooser, heading and hints included."""
    found = [text.partition("╭")[2].partition("╮")[0] for text in lines(pilot.app) if "╭" in text]
    left = next(text.index("╭") for text in lines(pilot.app) if "╭" in text)
    inside = [text[left + 1:left + 1 + len(found[0])] for text in lines(pilot.app) if text[left] == "│"]
    return [text.strip() for text in inside]


Check = Callable[["Pilot[None]", str], Awaitable[None]]


async def check_show(pilot: Pilot[None], key: str) -> None:
    for hidden, shown, word in (((), {"interface"}, "always"), ({"interface"}, (), "never"), ((), (), "if room")):
        await pilot.press(key)
        assert (chosen(pilot).hidden, chosen(pilot).shown) == (frozenset(hidden), frozenset(shown))
        assert list_lines(pilot)[0].startswith(word)


async def check_right(pilot: Pilot[None], key: str) -> None:
    await pilot.press(key, key)
    assert order(pilot) == [*IDS[1:3], IDS[0], *IDS[3:]]
    await pilot.press(*[key] * len(IDS))
    assert [id_ for id_ in chosen(pilot).order if id_ in IDS][-1] == IDS[0], "no further than the end"


async def check_left(pilot: Pilot[None], key: str) -> None:
    await pilot.press("down", "down", key)
    assert order(pilot) == [IDS[0], IDS[2], IDS[1], *IDS[3:]]


async def check_wider(pilot: Pilot[None], key: str) -> None:
    assert pilot.app.main.table.widths()["interface"] == 56
    await pilot.press(key, key)
    assert dict(chosen(pilot).widths) == {"interface": 58}
    await pilot.press(*[key] * 5)
    assert dict(chosen(pilot).widths) == {"interface": 60}


async def check_narrower(pilot: Pilot[None], key: str) -> None:
    await pilot.press(*["down"] * IDS.index("source"), key)
    now = dict(chosen(pilot).widths)["source"]
    await pilot.press("escape")
    assert line(pilot.app, 2).index("DESTINATION") - line(pilot.app, 2).index("SOURCE") == now + 1
    await pilot.press("C", *["down"] * IDS.index("source"), *[key] * 8)
    assert dict(chosen(pilot).widths)["source"] == 7, "an address keeps some cells"


async def check_reset(pilot: Pilot[None], key: str) -> None:
    await pilot.press("space", "J", "plus", key)
    assert chosen(pilot) == AUTOMATIC


async def check_up(pilot: Pilot[None], key: str) -> None:
    await pilot.press("down", "down", key, "space")
    assert chosen(pilot).shown == {IDS[1]}


async def check_down(pilot: Pilot[None], key: str) -> None:
    await pilot.press(key, key, "space")
    assert chosen(pilot).shown == {IDS[2]}


async def check_close(pilot: Pilot[None], key: str) -> None:
    await pilot.press(key)
    assert not isinstance(pilot.app.screen, ColumnsScreen)
    assert pilot.app.return_code is None
    assert len(flow_lines(pilot.app)) == 24 - 3 - 1 - 2, "all but header, head and foot"


async def check_page(pilot: Pilot[None], key: str) -> None:
    await pilot.press(*["down"] * 4, *["pagedown"] * 2)
    at = cursor(pilot)
    await pilot.press(key)
    assert abs(IDS.index(cursor(pilot)) - IDS.index(at)) > 10 or cursor(pilot) == IDS[-1]
    assert (IDS.index(cursor(pilot)) < IDS.index(at)) == (key == "pageup")


async def check_end(pilot: Pilot[None], key: str) -> None:
    await pilot.press(*["down"] * 3, key)
    assert cursor(pilot) == IDS[-1 if key == "end" else 0]


def cursor(pilot: Pilot[None]) -> str:
    screen = pilot.app.screen
    assert isinstance(screen, ColumnsScreen)
    return screen.columns[screen._at].id


CHECKS: dict[str, Check] = {
    "show": check_show, "shift(1)": check_right, "shift(-1)": check_left, "widen(1)": check_wider,
    "page(1)": check_page, "page(-1)": check_page, "move(1000)": check_end, "move(-1000)": check_end,
    "widen(-1)": check_narrower, "reset": check_reset, "move(-1)": check_up, "move(1)": check_down,
    "close": check_close,
}


@pytest.mark.parametrize(("name", "action"), [(name, key.action) for key in COLUMN_KEYS for name in key.names])
async def test_key_does_what_its_entry_says(name: str, action: str) -> None:
    near_the_limit = {"widen(1)": (("interface", 56),), "widen(-1)": (("source", 12),)}.get(action, ())
    looks = Looks(columns=Arrangement(widths=near_the_limit))
    async with choosing(looks, width=160 if near_the_limit else 80) as pilot:
        await CHECKS[action](pilot, name)


async def test_what_was_changed_is_seen_and_kept_once_when_the_chooser_closes() -> None:
    kept: list[SavedView] = []
    async with choosing(Looks(theme="dark", keep=kept.append)) as pilot:
        await pilot.press(*["down"] * IDS.index("direction"), "space", "space", "J")
        assert not kept
        await pilot.press("escape")
        await pilot.app.workers.wait_for_complete()
        assert [view.theme for view in kept] == ["dark"]
        assert kept[0].columns.hidden == {"direction"}
        assert " D " not in line(pilot.app, 2)
        await pilot.press("C", "escape")
        await pilot.app.workers.wait_for_complete()
        assert len(kept) == 1, "nothing was changed"
        await pilot.press("T")
        await pilot.app.workers.wait_for_complete()
        assert kept[-1] == replace(kept[0], theme="light")


async def test_what_cannot_be_kept_is_said() -> None:
    def keep(view: SavedView) -> None:
        raise FlowtopError("cannot keep /x/view.toml: No space left on device")

    async with choosing(Looks(keep=keep)) as pilot:
        await pilot.press("space", "escape")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert "No space left" in line(pilot.app, -1)


async def test_a_complaint_about_what_was_kept_is_said_at_the_start() -> None:
    async with choosing(Looks(complaint="cannot read view.toml: odd")) as pilot:
        await pilot.press("escape")
        assert "cannot read view.toml: odd" in line(pilot.app, -1)


async def test_rates_first_and_addresses_last_is_a_table_too() -> None:
    order = ("rate", "bytes", *(column_id for column_id in IDS if column_id not in ("rate", "bytes")))
    async with choosing(Looks(columns=Arrangement(order=order))) as pilot:
        await pilot.press("escape", "down")
        assert line(pilot.app, 2).split()[:2] == ["RATE↓", "BYTES"]
        rate = max(row.octet_rate for row in random_flows(50)) * 8 / 1000
        assert flow_lines(pilot.app)[0].split()[:2] == [f"{rate:.1f}", "kb/s"]
        await pilot.click(FlowTable, offset=(15, 0))
        assert "BYTES↓" in line(pilot.app, 2)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 12), (200, 60)])
async def test_every_column_can_be_reached_on_any_screen(width: int, height: int) -> None:
    async with choosing(width=width, height=height) as pilot:
        for column in map(COLUMNS.__getitem__, IDS):
            assert any(column.header in text for text in list_lines(pilot))
            await pilot.press("down")
        assert "close" in boxed(pilot)[-1]


async def test_a_click_moves_the_cursor_and_a_second_one_toggles() -> None:
    async with choosing() as pilot:
        y = next(index for index, text in enumerate(lines(pilot.app)) if "PROTO" in text and "│" in text)
        await pilot.click(offset=(20, y))
        assert chosen(pilot) == AUTOMATIC
        await pilot.click(offset=(20, y))
        assert chosen(pilot).shown == {"protocol"}
        await asyncio.sleep(0)
