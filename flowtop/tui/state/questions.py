"""Which Query to send, from the reader's choices and what is in view; and which pages to show while paused.

Pure state, no widget. A Query costs the metering thread a look at every flow, so none is sent without need: moving
the cursor sends none, scrolling sends one when the fetched rows run out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowtop.filters.filter import Filter
from flowtop.query.layout import sorted_column
from flowtop.query.query import Page, Query
from flowtop.text.names import KnownNames
from flowtop.tui.state.viewport import START, Place, Viewport


@dataclass(frozen=True, slots=True)
class Pause:
    """Time and packets since the display was paused."""

    seconds: float
    packets: int


class Questions:
    """The reader's choices and the queries sent for them.

    Args:
        query: sort, filter and grouping to begin with.
        viewport: what is in view.

    Attributes:
        order_held: the reader froze the order.
    """

    def __init__(self, query: Query, viewport: Viewport) -> None:
        self._choice = query
        self._viewport = viewport
        self._asked: Query | None = None
        self._holds = 0
        self._marks = 0
        self._freezes = 0
        self._paused_at: Page | None = None
        self._latest: Page | None = None
        self._awaited: Query | None = None
        self._returning = False
        self._orders: dict[tuple[str, ...], tuple[str, bool]] = {}  # of whole lists, by what they are grouped by
        self.order_held = False

    @property
    def sort(self) -> str:
        """Id of the sorted column."""
        return self._choice.sort

    @property
    def descending(self) -> bool:
        """Largest first."""
        return self._choice.descending

    @property
    def asked(self) -> Query | None:
        """The query sent last, None before the first."""
        return self._asked

    @property
    def newest(self) -> Page | None:
        """The newest page of now, shown or not; without rows while a past tick is shown."""
        return self._latest if self._latest is None or self._latest.present is None else self._latest.present

    @property
    def paused(self) -> bool:
        """The display is paused."""
        return self._paused_at is not None

    @property
    def pause(self) -> Pause | None:
        """Time and packets since the pause began, None when not paused."""
        begin, end = self._paused_at, self.newest
        if begin is None or end is None:
            return None
        return Pause(
            seconds=end.uptime_s - begin.uptime_s,
            packets=end.books.observed_packets - begin.books.observed_packets,
        )

    def order_by(self, sort: str, *, descending: bool) -> None:
        """Set the sort order. A frozen order is frozen again in it; without a cursor, view the top."""
        self._choice = replace(self._choice, sort=sort, descending=descending)
        if self._choice.hold is not None:
            self._hold_again()
        if self._viewport.cursor is None:
            self._viewport.scroll(-self._viewport.top)

    @property
    def choice(self) -> Query:
        """The reader's choices; offset, limit and anchor have no meaning in it."""
        return self._choice

    def show_list(self, group: tuple[str, ...], scope: Filter | None, place: Place = START, *,
                  biflow: bool = False) -> None:
        """Show another list: other groups, biflows, or the flows of a group.

        It has the order that it had before: an order that was chosen in a list of groups, or inside a group, is for
        that list alone. A list that is new is sorted by the same column if it has that; so are flows and biflows.
        """
        before = self._choice
        choice = replace(before, group=group, scope=scope, biflow=biflow)
        if choice == before:
            return
        if before.scope is None:
            self._orders[before.group] = before.sort, before.descending
        self._choice = choice
        if (group, scope) != (before.group, before.scope) and group in self._orders:
            sort, descending = self._orders[group]
            self._choice = replace(choice, sort=sort, descending=descending)
        column = sorted_column(self._choice)
        if column.id != self._choice.sort:
            self._choice = replace(self._choice, sort=column.id, descending=column.descending_first)
        if self._choice.hold is not None:
            self._hold_again()
        self._viewport.turn_to(place)

    def watch(self, flow_id: int | None) -> None:
        """Ask for the details of a flow, or of none."""
        self._choice = replace(self._choice, details=flow_id)

    def turn_to(self, other: Query, place: Place) -> None:
        """Show another list, in its own order: groups, biflows, scope and order of `other`. The filter stays."""
        before = self._choice
        self._choice = replace(before, group=other.group, scope=other.scope, biflow=other.biflow, sort=other.sort,
                               descending=other.descending)
        if self._choice == before:
            return
        if self._choice.hold is not None:
            self._hold_again()
        if (before.group, before.scope, before.biflow) != (other.group, other.scope, other.biflow):
            self._viewport.turn_to(place)

    def return_to(self, before: Query, place: Place) -> None:
        """Show a list as it was before: its groups, order and filter."""
        self.turn_to(before, place)
        self._choice = replace(self._choice, filter=before.filter)

    @property
    def filter(self) -> Filter | None:
        """Which flows are listed; None: all."""
        return self._choice.filter

    def filter_by(self, new: Filter | None) -> None:
        """List other flows. Without a cursor, view the top."""
        if new == self._choice.filter:
            return
        self._choice = replace(self._choice, filter=new)
        if self._viewport.anchor is None:
            self._viewport.scroll(-self._viewport.top)

    def know(self, names: KnownNames | None) -> None:
        """Set the host names for the filter; None when it asks for none. A paused display keeps those it has."""
        held = self.paused and self._asked is not None and self._asked.filter == self._choice.filter
        if not held:
            self._choice = replace(self._choice, names=names)

    def toggle_ended(self) -> None:
        """List flows that have ended, or hide them."""
        self._choice = replace(self._choice, ended=not self._choice.ended)

    def toggle_hold(self) -> None:
        """Freeze the order, or unfreeze it."""
        self.order_held = not self.order_held
        self._update_hold()

    def mark(self) -> None:
        """Count from now on; replaces a mark set before."""
        self._marks += 1
        self._choice = replace(self._choice, mark=self._marks)

    def compare(self, tick: int | None) -> None:
        """Compare with that past tick, or with none."""
        self._choice = replace(self._choice, compare=tick)
        if self._choice.hold is not None:
            self._hold_again()

    def unmark(self) -> None:
        """Count from the flows' first packets again."""
        self._choice = replace(self._choice, mark=None)

    def step(self, ticks: int) -> bool:
        """Show a later tick of those kept, an earlier one when negative, as far as they reach; pauses the display.

        Gives False when there is no such tick.
        """
        newest, view = self.newest, self._paused_at or self.newest
        if newest is None or view is None or newest.kept is None:
            return False
        first, last = newest.kept.first_tick, newest.kept.last_tick
        begin = max(first, min(view.tick if self._choice.at is None else self._choice.at, last))
        goal = max(first, min(begin + ticks, last))
        if goal == begin:
            return False
        if not self.paused:
            self.toggle_pause()
        self._choice = replace(self._choice, at=goal)
        return True

    def toggle_pause(self) -> Page | None:
        """Pause, or resume, also from the past; gives the newest page when it resumes and there is one."""
        if self._paused_at is None:
            self._paused_at = self.newest
            self._freezes += 1
            self._choice = replace(self._choice, freeze=self._freezes)
            if self._returning or self._unanswered:  # the display still shows the past, or another list
                self._awaited = self._asked
            self._update_hold()
            return None
        self._paused_at = self._awaited = None
        self._choice = replace(self._choice, freeze=None, at=None)
        self._update_hold()
        self._returning = self._latest is not None and self._latest.past
        return None if self._returning else self._latest

    @property
    def _unanswered(self) -> bool:
        """The last page does not answer the last query."""
        if self._latest is None or self._asked is None:
            return False
        return _list_of(self._latest.query) != _list_of(self._asked)

    def accept(self, page: Page) -> bool:
        """Take a page; True when it is to be shown. While paused: only one that answers a query sent since."""
        self._latest = page
        if self._paused_at is None:
            self._returning = self._returning and page.past
            return not page.past  # a late one of the past may come after the return to now
        if self._awaited is None or page.query != self._awaited:
            return False
        self._awaited = None
        self._returning = False
        self._paused_at = page  # time and packets since the pause count from its tick
        return True

    def next(self) -> Query | None:
        """The Query to send now, None when the last one is still right."""
        before = self._asked
        offset, limit = self._viewport.window(0, None) if before is None else self._viewport.window(
            before.offset, before.limit)
        query = replace(self._choice, offset=offset, limit=limit, anchor=None if before is None else before.anchor)
        if query == before and (before.anchor == self._viewport.anchor or not self._anchor_matters):
            return None
        query = replace(query, anchor=self._viewport.anchor)
        moved = before is None or _list_of(query) != _list_of(before)
        if self.paused and (moved or self._returning or self._awaited is not None):
            self._awaited = query
        self._asked = query
        return query

    @property
    def _anchor_matters(self) -> bool:
        """Whether the source must know where the cursor is. It keeps a flow that ends under the cursor; where the page
        on view would not show that, it must know in advance."""
        unseen = self._viewport.anchor is not None and (self.paused or not self._choice.ended)
        return unseen or self._viewport.needs_anchor

    def _update_hold(self) -> None:
        if not (self.order_held or self.paused):
            self._choice = replace(self._choice, hold=None)
        elif self._choice.hold is None:
            self._hold_again()

    def _hold_again(self) -> None:
        self._holds += 1
        self._choice = replace(self._choice, hold=self._holds)


def _list_of(query: Query) -> Query:
    """The part of a query that determines which rows come."""
    return replace(query, anchor=None, hold=None, freeze=None, details=None)
