"""The flows on view: which page is shown, what the reader chose, and painting both. Keys come from `tui/main/`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.message import Message
from textual.reactive import reactive
from textual.screen import Screen
from textual.timer import Timer

from flowtop.fields.telling import NOTHING
from flowtop.model.rows import FlowRow
from flowtop.query.query import Page, Query
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.clock import SYSTEM_CLOCK, Clock
from flowtop.tui.saved import Looks
from flowtop.tui.source import ExportControl, PacketControl
from flowtop.tui.state.exports import Pace
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import Viewport
from flowtop.tui.widgets.flow_table import FlowTable, TableView
from flowtop.tui.widgets.header import Header, HeaderView, clock
from flowtop.tui.widgets.status import Hints, StatusLine

if TYPE_CHECKING:
    from flowtop.fields.columns import Window, Wording
    from flowtop.model.exporters import CollectingStatistics
    from flowtop.model.record import SourceState


SAID_S = 4.0
"""How long words about what was just done take the place of the key hints."""


DEFAULT_LOOKS = Looks()


class FlowScreen(Screen[None]):
    """Header, flow table, status; what groups of actions build on.

    Args:
        query: what to show first; its offset, limit, anchor and hold are the screen's own business.
        exports: the exports of this run; None: it has none, and none can be added.
        packets: what writes packets; None: nothing does.
        bits: rates in bits, else in octets.
        sparks: characters of the sparklines, from low to high.
        looks: how it looks to begin with.
        clock: the times that exports are told in.

    Attributes:
        page: the page on view, None before the first.
        viewport, questions: where the reader looks, and what was asked for it.
        telling: what tells rows apart, as far as they have been seen.
        cell: id of the column in which the cursor's cell is; "" when none is chosen.
        bits, rate_window: how rates are put.
        arrangement: of columns.
        packets: what writes packets.
        exports, pace, clock: the exports, how fast they send, and their times.
        alarm: what went wrong, in words; "" when nothing did.
        notice: what leaving waits for, "" until then.
    """

    AUTO_FOCUS = None
    DEFAULT_CSS = "FlowScreen { layers: default over; }"

    page: reactive[Page | None] = reactive(None, init=False, repaint=False)

    class FirstPaint(Message):
        """The empty screen has been painted."""

    def __init__(self, query: Query, exports: ExportControl | None = None, *, packets: PacketControl | None = None,
                 bits: bool = True,
                 sparks: str = theme.SPARKS, looks: Looks = DEFAULT_LOOKS, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__()
        self.looks = looks
        self.arrangement = looks.columns
        self.exports = exports
        self.packets = packets
        self.clock = clock
        self.pace = Pace(clock.monotonic)
        self._ask_source: Callable[[Query], None] | None = None
        self.viewport = Viewport()
        self.questions = Questions(query, self.viewport)
        self.telling = NOTHING
        self.cell = ""
        self.bits = bits
        self.rate_window: Window = "tick"
        self.alarm = ""
        self.notice = ""
        self._said = ""
        self._forget_said: Timer | None = None
        self.sparks = sparks
        self.header = Header(sparks)
        self.table = FlowTable("starting …")
        self.status = StatusLine()

    def compose(self) -> ComposeResult:
        """Header, flow table, status."""
        yield self.header
        yield self.table
        yield self.status

    def on_mount(self) -> None:
        """Say when there is something to look at: capture starts after that."""
        self.call_after_refresh(self.post_message, self.FirstPaint())
        if self.looks.complaint:
            self.say(self.looks.complaint)

    # ---- what the app hands over

    def connect(self, ask_source: Callable[[Query], None] | None) -> None:
        """From now on questions go there; nowhere any more when None."""
        self._ask_source = ask_source
        self.ask()

    def show_progress(self, text: str) -> None:
        """Say what is being waited for, until there is a page."""
        if self.page is None:
            self.table.show_notice(units.printable(text, 500))

    def show_page(self, page: Page) -> None:
        """Show a page. While paused: only what has gone by since, and the accuracy line, which never stands still."""
        if self.questions.accept(page):
            self.page = page
        else:
            self._paint_header()
            self.paint_status()

    def watch_page(self, before: Page | None, page: Page | None) -> None:
        """Another page is on view."""
        if page is not None:
            if before is not None and before.capture_filter and not page.capture_filter:
                self.say("the kernel counts every flow from now on: of others it had counted nothing")
            self.viewport.show(page)
            self.telling = self.telling.and_of(page.rows, tunnels=page.tunnels)
            self.changed()

    def show_alarm(self, text: str) -> None:
        """Say what went wrong, from now on."""
        self.alarm = units.printable(text, 500)
        self.paint()

    def show_notice(self, text: str) -> None:
        """Say what leaving waits for, in the place of the key hints."""
        self.notice = units.printable(text, 500)
        self.paint_status()

    def say(self, text: str) -> None:
        """Say what was just done, for a few seconds in the place of the key hints."""
        self._said = units.printable(text, 500)
        if self._forget_said is not None:
            self._forget_said.stop()
        self._forget_said = self.set_timer(SAID_S, self._forget)
        self.paint_status()

    def _forget(self) -> None:
        self._said = ""
        self.paint_status()

    # ---- asking and painting

    def ask(self) -> None:
        """Ask for what is missing in view, if anything is."""
        if self._ask_source is not None:
            query = self.questions.next()
            if query is not None:
                self._ask_source(query)

    def changed(self) -> None:
        """The reader moved or chose something: ask what is missing, paint what there is."""
        self.ask()
        self.paint()

    def paint(self) -> None:
        """Paint what differs from what is on screen."""
        page = self.page
        if page is None:
            return
        self._paint_header()
        if page.matched:
            self._paint_table(page)
        else:
            self.table.show_notice(_why_empty(page))
        self.paint_status()

    def paint_status(self) -> None:
        """The bottom lines: always of the newest page."""
        exports = () if self.exports is None else self.exports.statistics()
        self.pace.note(exports)
        self.status.show(self.questions.newest or self.page, tuple(export.statistics for export in exports),
                         self.notice or self._said, self.hints(),
                         None if self.packets is None else self.packets.statistics())

    def hints(self) -> Hints:
        """Keys that count now, when they are not those of the list. Groups of actions say it."""
        return ()

    def wording(self) -> Wording:
        """How cells are put. Groups of actions add theirs to it."""
        from flowtop.fields.columns import Wording  # brings numpy, which must not delay the first frame

        return Wording(bits=self.bits, window=self.rate_window)

    def _paint_table(self, page: Page) -> None:
        from flowtop.query.layout import arrangement_of, columns_of, sorted_column  # as above

        self.table.show(TableView(
            wording=self.wording(),
            rows=self.viewport.rows,
            top=self.viewport.top,
            total=page.matched,
            cursor=self.viewport.cursor,
            cell=self.cell,
            lookups=page.lookups,
            attached=page.attached,
            telling=self.telling,
            sort=sorted_column(page.query).id,
            descending=page.query.descending,
            arrangement=arrangement_of(page.query, self.arrangement),
            columns=tuple(columns_of(page.query).values()),
            linger_s=page.linger_s,
        ))

    def _paint_header(self) -> None:
        rows = len(self.viewport.rows)
        self.header.show(HeaderView(
            page=self.page,
            bits=self.bits,
            order="" if self.page is None else _order(self.page.query),
            first=self.viewport.top + 1 if rows else 0,
            last=self.viewport.top + rows,
            banners=tuple(self.banners()),
            alarm=self.alarm,
            since=self.since(),
            trail=self.trail(),
        ))

    def open_flow(self, page: Page, row: FlowRow) -> None:
        """Show more of a flow. Groups of actions do."""

    def trail(self) -> tuple[str, ...]:
        """The groups that were opened one after the other. Groups of actions say it."""
        return ()

    def since(self) -> str:
        """What bytes and packets count from. Groups of actions say it."""
        return ""

    def banners(self) -> Iterator[str]:
        """What the reader has to know about the picture, most important first. Groups of actions add theirs to it."""
        newest = self.questions.newest or self.page
        if newest is not None and newest.source is not None:
            yield reading(newest.source)
        pause = self.questions.pause
        if pause is not None and not (self.page is not None and self.page.past and self.page.query.at is not None):
            yield f"PAUSED {clock(pause.seconds)}, {pause.packets:,} packets since"
        if self.questions.order_held:
            yield f"ORDER FROZEN{_joined(self.page)}"
        if self.viewport.follow:
            yield "FOLLOW"
        if self.page is not None and not self.page.query.ended:
            yield f"{self.page.hidden:,} ENDED HIDDEN" if self.page.hidden else "ENDED HIDDEN"


def _joined(page: Page | None) -> str:
    """What came since the order was frozen."""
    return f", {page.joined:,} since" if page is not None and page.joined else ""


def reading(source: SourceState) -> str:
    """How far a file was read."""
    if source.ended:
        return "END OF FILE"
    if not source.octets_total:
        return f"READING, {units.octets(source.octets_read)}"
    return f"READING {100 * source.octets_read // source.octets_total} % of {units.octets(source.octets_total)}"


def _order(query: Query) -> str:
    """The sorted column of a page and its arrow: of what is on view, not of what was asked for since."""
    from flowtop.query.layout import order_text  # brings numpy, which must not delay the first frame

    return order_text(query)


def _why_empty(page: Page) -> str:
    if page.past and not page.flows_kept:
        return "no flows then"
    if page.query.scope is not None:
        return "no flow left here: Backspace goes back"
    if page.query.names is not None and not page.query.names.names:
        return "no names are known yet: \\ clears the filter, n finds the names of what is in view"
    if page.hidden:
        return f"only ended ones here: E lists {page.hidden:,} that have ended"
    if page.query.filter is not None and page.flows:
        return "no flow matches: / edits the filter, \\ clears it"
    if page.source is not None:
        return "no flows in this file" if page.source.ended else "no flows yet"
    if page.collecting is not None:
        return _why_nobody_told(page.collecting)
    return "no flows: waiting for packets" if page.attached else "no interface to observe: waiting for one"


def _why_nobody_told(collecting: CollectingStatistics) -> str:
    """Why exporters have told of no flow so far: what is wrong is on the accuracy line."""
    if collecting.waiting_sets:
        return f"no flows yet: {collecting.waiting_sets:,} data sets wait for their template"
    if collecting.refused_messages and not collecting.messages:
        return "no flows: what has come is no export that can be read"
    return "no flows in what has come so far" if collecting.messages else "no flows: no exporter has sent anything yet"
