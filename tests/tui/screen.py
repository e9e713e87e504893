"""What is on screen, as a person reads it: for assertions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from textual.app import App
from textual.pilot import Pilot

from flowtop.query.query import Query
from flowtop.tui.app import FlowtopApp
from tests.tui.fake_exports import FakeExports, Now
from tests.tui.fake_packets import FakePackets
from tests.tui.fake_source import FakeSource
from tests.tui.table_source import TableSource


@asynccontextmanager
async def running(source: FakeSource | TableSource, width: int = 80, height: int = 24, query: Query | None = None,
                  *, tick: bool = True, exports: FakeExports | None = None,
                  packets: FakePackets | None = None, now: Now | None = None) -> AsyncIterator[Pilot[None]]:
    """A running app of this size, once it has started its source and shows the first page."""
    app = FlowtopApp(lambda: source, query, exports=FakeExports() if exports is None else exports,
                     packets=packets, clock=(now or Now()).clock)
    async with app.run_test(size=(width, height)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        if tick and isinstance(source, FakeSource):
            source.tick()
            await pilot.pause()
        yield pilot


def lines(app: App[None]) -> list[str]:
    """All lines of the screen as text."""
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def line(app: App[None], y: int) -> str:
    """One line of the screen as text."""
    return lines(app)[y]


def flow_lines(app: App[None]) -> list[str]:
    """The lines that show flows, without the scroll bar."""
    return [text[:-1].rstrip() for text in lines(app)[3:-2]]


def cursor_line(app: App[None]) -> int | None:
    """Which flow's line is in reverse video, 0 is the first; None when none is."""
    strips = app.screen._compositor.render_strips()[3:-2]
    reversed_lines = [
        index for index, strip in enumerate(strips)
        if any(segment.style is not None and segment.style.reverse for segment in strip)
    ]
    assert len(reversed_lines) <= 1
    return reversed_lines[0] if reversed_lines else None


def shown(app: App[None]) -> list[int]:
    """flow_ids in view, from top to bottom."""
    assert isinstance(app, FlowtopApp)
    return [row.flow_id for row in app.main.viewport.rows]


def background(app: App[None]) -> str:
    """The background colour that every cell of the screen has, by name."""
    found = {segment.style.bgcolor.name if segment.style and segment.style.bgcolor else "default"
             for strip in app.screen._compositor.render_strips() for segment in strip}
    assert len(found) == 1, found
    return found.pop()
