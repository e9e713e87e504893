"""What is on screen, as a person reads it: for assertions.

Most tests are about the list. So their lines are those without the line of views and without the chart, which
test_views.py and test_chart.py look at: a terminal of 24 lines has 25, and a tall one 4 more for the chart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from textual.app import App
from textual.pilot import Pilot
from textual.strip import Strip

from flowtop.query.query import Query
from flowtop.query.views import ListView
from flowtop.tui.app import FlowtopApp
from flowtop.tui.main.screen import TALL, USUAL_CHART
from tests.tui.fake_exports import FakeExports, Now
from tests.tui.fake_packets import FakePackets
from tests.tui.fake_source import FakeSource
from tests.tui.table_source import TableSource


@asynccontextmanager
async def running(source: FakeSource | TableSource, width: int = 80, height: int = 24, query: Query | None = None,
                  *, tick: bool = True, exports: FakeExports | None = None,
                  packets: FakePackets | None = None, now: Now | None = None,
                  more_views: Sequence[ListView] = ()) -> AsyncIterator[Pilot[None]]:
    """A running app of this size (see above), once it has started its source and shows the first page."""
    app = FlowtopApp(lambda: source, query, exports=FakeExports() if exports is None else exports,
                     packets=packets, clock=(now or Now()).clock, more_views=more_views)
    async with app.run_test(size=(width, terminal_height(height))) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        if tick and isinstance(source, FakeSource):
            source.tick()
            await pilot.pause()
        yield pilot


def terminal_height(height: int) -> int:
    """Lines of a terminal whose list has as many as on one of `height` lines without views and chart."""
    return height + 1 + (USUAL_CHART if height + 1 >= TALL else 0)


def screen_strips(app: App[None]) -> list[Strip]:
    """All lines of the screen, but those of the chart and of views."""
    strips = app.screen._compositor.render_strips()
    if isinstance(app, FlowtopApp) and app._main is not None and app.screen is app.main:
        header = app.main.header
        del strips[header.list_line + 1]
        del strips[1:header.list_line]
    return strips


def lines(app: App[None]) -> list[str]:
    """All lines of the screen as text, but those of the chart and of views."""
    return ["".join(segment.text for segment in strip) for strip in screen_strips(app)]


def terminal_lines(app: App[None]) -> list[str]:
    """All lines of the terminal as text."""
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def place(app: App[None], x: int, y: int) -> tuple[int, int]:
    """Where on the terminal cell x of line y of `lines` is."""
    if not isinstance(app, FlowtopApp) or app.screen is not app.main or not y:
        return x, y
    more = app.main.header.list_line - 1
    return x, y + more + (y > 1)


def line(app: App[None], y: int) -> str:
    """One line of the screen as text."""
    return lines(app)[y]


def flow_lines(app: App[None]) -> list[str]:
    """The lines that show flows, without the scroll bar."""
    return [text[:-1].rstrip() for text in lines(app)[3:-2]]


def cursor_line(app: App[None]) -> int | None:
    """Which flow's line is in reverse video, 0 is the first; None when none is."""
    strips = screen_strips(app)[3:-2]
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
