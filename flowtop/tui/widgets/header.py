"""The top lines: whose traffic this is and how much, its chart; what is listed, its sum and order; the views."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from flowtop.fields.columns import WINDOWS, Window
from flowtop.output.records import rows_name
from flowtop.query.query import Page
from flowtop.query.trouble import Trouble
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.line import Part, fitting, justify
from flowtop.tui.widgets.chart import BRAILLE, Glyphs, chart_lines
from flowtop.tui.widgets.lines import SteadyLines


@dataclass(frozen=True, slots=True)
class HeaderView:
    """What the header shows.

    Attributes:
        page: the page on view, None before the first.
        bits: rates in bits, else in octets.
        order: header of the sorted column and its arrow.
        first, last: ranks of the flows in view, counted from 1; 0 and 0 when there are none.
        banners: what the reader must know about the display (paused, order frozen), most important first.
        alarm: what went wrong; stands before the banners.
        since: what BYTES and PKTS count from, when that is not the flow's first packet; always shown.
        trail: the open groups, the outermost first.
        tabs: of each view its key, its name, and whether it is on screen.
        window: of the rates that are shown.
        rows: of the chart.
        troubles: what is probably wrong, the most alarming first.
    """

    page: Page | None = None
    bits: bool = True
    order: str = ""
    first: int = 0
    last: int = 0
    banners: tuple[str, ...] = field(default=())
    alarm: str = ""
    since: str = ""
    trail: tuple[str, ...] = ()
    tabs: tuple[tuple[str, str, bool], ...] = ()
    window: Window = "tick"
    rows: int = 0
    troubles: tuple[Trouble, ...] = ()


class Header(SteadyLines):
    """Traffic, its chart, the list, the views; paints lines that changed.

    Args:
        sparks: characters of the sparklines, from low to high.
        glyphs: what the chart is painted with.
    """

    DEFAULT_CSS = "Header { height: 3; width: 1fr; dock: top; }"

    class ViewClicked(Message):
        """The name of a view was clicked: its number, from 1."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class TroubleClicked(Message):
        """What is wrong was clicked: its number, from 0."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, sparks: str = theme.SPARKS, glyphs: Glyphs = BRAILLE) -> None:
        super().__init__()
        self._sparks = sparks
        self._glyphs = glyphs
        self._view = HeaderView()

    def show(self, view: HeaderView) -> None:
        """Paint what differs from the view before."""
        if view.rows != self._view.rows:
            self.styles.height = 3 + view.rows
            self._strips = []
            self.refresh()
        self._view = view
        self.again()

    @property
    def list_line(self) -> int:
        """Which of its lines says what is listed."""
        return 1 + self._view.rows

    def make(self, width: int) -> list[Strip]:
        """See SteadyLines."""
        view = self._view
        return [_traffic_line(view, width, self._sparks), *_chart(view, width, self._glyphs), _list_line(view, width),
                tabs_line(view.tabs, width, view.troubles)]

    def on_click(self, event: events.Click) -> None:
        """Show the view whose name was clicked, or what is wrong."""
        if event.screen_y - self.region.y != self.list_line + 1:
            return
        x, view, width = event.screen_x - self.region.x, self._view, self.size.width
        chips = chip_texts(view.tabs, view.troubles, width)
        at = width - 1 - _chips_width(chips)
        for number, (start, end) in enumerate(tab_places(view.tabs, at if chips else width), 1):
            if start <= x < end:
                self.post_message(self.ViewClicked(number))
        for number, text in enumerate(chips):
            if at <= x < at + len(text) and number < len(view.troubles):
                self.post_message(self.TroubleClicked(number))
            at += len(text) + 1


def _chart(view: HeaderView, width: int, glyphs: Glyphs) -> tuple[Strip, ...]:
    page = view.page
    if not view.rows:
        return ()
    if page is None:
        return (Strip.blank(width),) * view.rows
    now, listed = page.present or page, bool(page.listed_history.ends_ms)
    return chart_lines(page.listed_history if listed else now.history, width, view.rows, now_ms=now.unix_ms,
                       bits=view.bits, glyphs=glyphs, at_ms=page.unix_ms if page.past else None,
                       title="listed" if listed else "all flows")


def tab_places(tabs: Sequence[tuple[str, str, bool]], width: int) -> list[tuple[int, int]]:
    """Where the name of each view begins and ends: those in view, from the first one."""
    places, at = [], 1
    for key, name, _ in tabs:
        end = at + len(f" {key} {name} ".replace("  ", " "))
        if end > width - 1:
            break
        places.append((at, end))
        at = end
    return places


def tabs_line(tabs: Sequence[tuple[str, str, bool]], width: int, troubles: Sequence[Trouble] = ()) -> Strip:
    """The views with their keys; the one on screen stands out. At the right end what is wrong, if anything is."""
    chips = chip_texts(tabs, troubles, width)
    left = width - 1 - _chips_width(chips) if chips else width
    segments = [Segment(" ")]
    for (key, name, chosen), _ in zip(tabs, tab_places(tabs, left), strict=False):
        text = f" {key} {name} ".replace("  ", " ")
        if chosen:
            segments.append(Segment(text, theme.CHIP))
        else:
            cap = f" {key} " if key else " "
            segments += [Segment(cap, theme.KEY_CAP), Segment(text[len(cap):], theme.LABEL)]
    strip = Strip(Segment.simplify(segments)).adjust_cell_length(left)
    ends: list[Segment] = []
    for number, text in enumerate(chips):
        ends.append(Segment(text, theme.TROUBLE if number < len(troubles) else theme.LABEL))
        ends.append(Segment(" "))
    return Strip([*strip, *ends], width) if chips else strip


def chip_texts(tabs: Sequence[tuple[str, str, bool]], troubles: Sequence[Trouble], width: int) -> list[str]:
    """What is wrong; the first one has the key before it. Each has room before any has more: a word for all of them,
    then of whom, then how much. Where there is not even a word's room for each, the others are counted: `+1`."""
    if not troubles:
        return []
    places = tab_places(tabs, width)
    room = min(max(MOST_CELLS, width // 2), width - 2 - (places[-1][1] if places else 1))
    room = room if room >= LEAST_CHIP else min(LEAST_CHIP, width - 2)
    if len(troubles) == 1 and len(troubles[0].short) + len(TROUBLE_KEY) >= room:
        return [units.elide(f"{TROUBLE_KEY} {troubles[0].short}", room)]
    chips = [trouble.word for trouble in troubles]
    chips[0] = f"{TROUBLE_KEY} {chips[0]}"
    if _chips_width(chips) > room:
        return _first_chips(chips, room)
    for texts in ([trouble.short for trouble in troubles], [trouble.text for trouble in troubles]):
        texts[0] = f"{TROUBLE_KEY} {texts[0]}"
        for number, text in enumerate(texts):
            wider = [*chips[:number], text, *chips[number + 1:]]
            chips = wider if _chips_width(wider) <= room else chips
    return chips


def _first_chips(chips: Sequence[str], room: int) -> list[str]:
    """As many as have room, and how many more there are."""
    for count in range(len(chips) - 1, 0, -1):
        some = [*chips[:count], f"+{len(chips) - count}"]
        if _chips_width(some) <= room:
            return some
    return [units.elide(f"{chips[0]} +{len(chips) - 1}", room)]


def _chips_width(chips: Sequence[str]) -> int:
    return sum(len(text) + 1 for text in chips) - 1 if chips else 0


TROUBLE_KEY = "a"
MOST_CELLS = 60
LEAST_CHIP = 20
"""Cells of what is wrong: at most, and what it takes from the names of views where there is no room for both."""


def _traffic_line(view: HeaderView, width: int, sparks: str) -> Strip:
    name = Part("flowtop", theme.NAME)
    page = view.page
    if page is None:
        return justify([name], [], width)
    left = [
        name,
        Part(_observed(page, width >= 100), rank=3),
        Part(f"{page.flows:,}", label_style=theme.PLAIN, rank=4, gap=3),
        Part("flow" if page.flows == 1 else "flows", theme.LABEL, rank=4, gap=1),
        Part(clock(page.uptime_s), label="up ", rank=5, gap=3),
    ]
    ticks = max(0, min(24, (width - 88) // 4))
    right: list[Part] = []
    if len(page.attached) > 1 and page.collecting is None:
        right.append(Part(f"{len(page.attached)} interfaces", theme.LABEL, rank=7))
    for direction, traffic in (("in", page.ingress), ("out", page.egress)):
        right.append(Part(units.rate(traffic.octet_rate, view.bits).rjust(9), label=f"{direction} ", gap=3))
        if ticks and not view.rows:
            right.append(Part(sparkline(traffic.octet_rates, ticks, sparks), rank=6, gap=1))
    return justify(left, right, width)


def _observed(page: Page, roomy: bool) -> str:
    """Interfaces, the file, or the addresses that collect from exporters."""
    if page.collecting is None:
        return shorten_interfaces(page.attached, 28 if roomy else 16)
    first, *more = [units.printable(url if roomy else url.partition("://")[2], 28) for url in page.attached] or [""]
    return f"{first} +{len(more)}" if more else first


def _list_line(view: HeaderView, width: int) -> Strip:
    page = view.page
    banners = _fitting(view, width)
    left = [Part(f" {text} ", theme.CHIP, rank=2 * min(index, 1), gap=1) for index, text in enumerate(banners)]
    if view.since:
        left.insert(0, Part(f" {view.since} ", theme.CHIP, gap=1))
    if view.alarm:
        room = width - 2 - sum(part.width + 1 for part in left if not part.rank) - _least_filter(page)
        left.insert(0, Part(units.elide(view.alarm, max(room, _LEAST_ALARM)), theme.ALARM))
    if page is None:
        return justify(left, [], width)
    shown = page.query.filter
    right = [*_counts(view, page), *_listed(view, page, width), Part(view.order, label="by ", rank=3)]
    if view.trail:
        left.append(Part(trail_text(view.trail, max(_LEAST_TRAIL, width // 2 - len(view.since))), theme.NAME, rank=1))
    if shown is not None:
        staying = sum(part.width + part.gap for part in left if not part.rank)
        room = width - 4 - sum(part.width + part.gap for part in [*left, *right[1:]]) - len(_FILTER)
        room = min(max(room, _LEAST_FILTER), max(width - 2 - staying - len(_FILTER), 1))
        text = units.printable(shown.text, room)
        part = Part(text, label=_FILTER)  # what is listed: it stays whatever else there is to say
        left.append(part)
    if page.capture_filter:  # whatever is filtered now: other flows are not counted at all
        left.append(Part(units.printable(page.capture_filter, max(12, width // 4)), label="in kernel ", rank=4))
    if shown is not None:
        left, right, spare = fitting(left, right, width)
        wider = replace(part, text=units.printable(shown.text, room + max(spare, 0)))  # where others found no room
        left = [wider if one is part else one for one in left]
    return justify(left, right, width)


def _listed(view: HeaderView, page: Page, width: int) -> list[Part]:
    """The sum of what is listed, beside that of all: with a filter, inside a group, and of the past."""
    listed = page.listed
    if listed is None or not (page.past or page.query.filter is not None or page.query.scope is not None):
        return []
    number = WINDOWS.index(view.window)
    into, out_of = (" ".join(units.rate(volume[number], view.bits).split()) for volume in listed.sides)
    share = listed.shares[number]
    parts = [Part(into, label="in ", rank=2), Part(out_of, label="out ", rank=2)]
    if page.query.filter is not None or page.query.scope is not None:
        per_cent = f"{'<1' if 0 < share < 0.005 else f'{100 * share:.0f}'} %"
        parts.append(Part(per_cent if width < _SPACIOUS else f"{per_cent} of all", rank=3))
    return parts


def _fitting(view: HeaderView, width: int) -> tuple[str, ...]:
    """The banners; the first, which always stays, is cut where the filter has no room otherwise."""
    if not view.banners or view.page is None:
        return view.banners
    others = _least_filter(view.page)
    others += len(view.since) + 3 if view.since else 0
    others += _LEAST_ALARM + 2 if view.alarm else 0
    first, *more = view.banners
    return (units.elide(first, max(width - 4 - others, _LEAST_BANNER)), *more)


def _least_filter(page: Page | None) -> int:
    """Cells that the filter needs at least, with a gap before it."""
    shown = None if page is None else page.query.filter
    return 0 if shown is None else len(_FILTER) + min(len(shown.text), _LEAST_FILTER) + 2


def _counts(view: HeaderView, page: Page) -> list[Part]:
    """Which rows of how many are in view; with a filter or inside a group, how many flows of all these are."""
    position = f"{view.first:,}–{view.last:,}" if view.last else ""
    name = rows_name(page.query)
    grouped = name != "flows"
    some = page.query.filter is not None or page.query.scope is not None
    if grouped or not some:
        rows = f"{position} of {page.matched:,}{f' {_counted(page.matched, name)}' if grouped else ''}"
        rows = rows if position else ""
        parts = [Part(rows, theme.LABEL, rank=3)]
    else:
        parts = [Part(position, theme.LABEL, rank=5)]
    if page.query.group:
        parts.append(Part(summed_text(page), theme.LABEL, rank=4, gap=3))
    elif some:
        parts.append(Part(f"{page.matched_flows:,} of {units.things(page.flows, 'flow')}", theme.LABEL,
                          rank=4 if grouped else 3, gap=3))
    return parts


def summed_text(page: Page) -> str:
    """What BYTES, PKTS and the like of groups add up: flows leave some time after their last packet."""
    if page.since_start:
        return "sums since the mark" if page.marked_s is not None else "sums since the start"
    if page.query.filter is not None or page.query.scope is not None:
        return f"sums of {page.matched_flows:,} of {units.things(page.flows, 'kept flow')}"
    return f"sums of {units.things(page.flows, 'kept flow')}"


def _counted(count: int, name: str) -> str:
    """The plural `name`, or the singular for one."""
    return name.removesuffix("s") if count == 1 else name


def trail_text(trail: Sequence[str], width: int) -> str:
    """`all › 10.0.0.5 › tcp 443`; the last steps where there is no room for all."""
    steps = ["all", *trail]
    text = _STEP.join(steps)
    while len(text) > width and len(steps) > 1:
        steps = steps[1:]
        text = _STEP.join([theme.ELLIPSIS, *steps])
    return units.elide(text, width)


_STEP = " › "
_SPACIOUS = 100
"""Cells from which on words stand in full."""
_LEAST_TRAIL = 24
_LEAST_ALARM = 20
_LEAST_BANNER = 10
_FILTER = "filter "
_LEAST_FILTER = 16
"""Cells that the filter gets before others give way."""


def clock(seconds: float) -> str:
    """How long it has been: `00:12:31`, with days `3d 04:05:06`."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02}:{minute:02}:{second:02}" if days else f"{hour:02}:{minute:02}:{second:02}"


def sparkline(values: Sequence[float], ticks: int, sparks: str = theme.SPARKS) -> str:
    """The last `ticks` values as characters of `sparks`, scaled to their maximum; blank where there was no tick yet.

    A value above zero is never painted as zero is, so that a trickle beside a burst is seen.
    """
    shown = list(values[-ticks:]) if ticks else []
    peak = max(shown, default=0.0)
    steps = len(sparks) - 1
    blocks = "".join(sparks[min(steps, -int(-value * steps // peak))] if peak else sparks[0] for value in shown)
    return blocks.rjust(ticks)


def shorten_interfaces(names: Sequence[str], width: int) -> str:
    """Names in at most about `width` cells: three or more that differ in their number only become `veth×12`."""
    stems: dict[str, list[str]] = {}
    for name in names:
        clean = units.printable(name, 16)
        stems.setdefault(re.sub(r"(\d+|[0-9a-f]{6,}|(?<=^veth)[0-9a-f]+)$", "", clean) or clean, []).append(clean)
    shown: list[str] = []
    for stem, members in stems.items():
        shown += [f"{stem}×{len(members)}"] if len(members) > 2 else members
    kept: list[str] = []
    for index, name in enumerate(shown):
        left = len(shown) - index - 1
        if kept and len(" ".join([*kept, name])) + (len(f" +{left}") if left else 0) > width:
            return " ".join([*kept, f"+{left + 1}"])
        kept.append(name)
    return " ".join(kept)
