"""Which flows of the list are in view, where the cursor is, and which part of the list has to be fetched.

Pure state, no widget: ranks are positions in the whole ordered list, lines are positions in the view. The cursor is a
flow, not a line: it stays on its flow when the order changes. The view shows only rows of the page it has; where it
should go but has no rows for yet is remembered, and reached when a page brings them.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowtop.model.rows import FlowRow
from flowtop.query.query import Page


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader is in a list.

    Attributes:
        top: rank of the first row in view.
        cursor: flow_id of the cursor's row, or None.
        rank: of that row.
        line: of the view that it is on, None when it is out of view.
    """

    top: int = 0
    cursor: int | None = None
    rank: int | None = None
    line: int | None = None


START = Place()
"""The top of the list, without a cursor."""


class Viewport:
    """A window of `height` lines on a list of flows.

    Attributes:
        height: lines in view, at least 1.
        top: rank of the first flow in view.
        cursor: flow_id of the cursor's flow, or None.
        cell: id of the column in which the cursor's cell is; "" when none is chosen.
        follow: the view scrolls with the cursor's flow.
        page: the page on view.
    """

    def __init__(self, height: int = 1) -> None:
        self.height = height
        self.top = 0
        self.cursor: int | None = None
        self.cell = ""
        self.follow = False
        self.page: Page | None = None
        self._cursor_rank: int | None = None
        self._absent: int | None = None
        self._line: int | None = None
        self._hand_on = False
        self._goal_top: int | None = None
        self._goal_rank: int | None = None
        self._turn: Place | None = None
        self._steps_ahead = 0

    @property
    def place(self) -> Place:
        """Where the reader is, to return to."""
        return Place(self.top, self.cursor, self._cursor_rank, self.cursor_line)

    def turn_to(self, place: Place = START) -> None:
        """The next query is for another list: when its page comes, show it from that place."""
        self.clear_cursor()
        self._turn, self._steps_ahead = place, 0

    @property
    def rows(self) -> tuple[FlowRow, ...]:
        """The flows in view, `height` at most."""
        if self.page is None:
            return ()
        first = self.top - self.page.query.offset
        return self.page.rows[max(first, 0):max(first + self.height, 0)]

    @property
    def cursor_line(self) -> int | None:
        """The line the cursor is on, None when it is out of view or nowhere."""
        return next((line for line, row in enumerate(self.rows) if row.flow_id == self.cursor), None)

    @property
    def cursor_row(self) -> FlowRow | None:
        """The cursor's flow when the page holds it."""
        rows = () if self.page is None else self.page.rows
        return next((row for row in rows if row.flow_id == self.cursor), None)

    @property
    def selected(self) -> int | None:
        """flow_id of the row that keys act on while there is no cursor: the first in view, whichever it is."""
        if self.cursor is not None or self._goal_rank is not None or self._turn is not None or self.follow:
            return None
        rows = self.rows
        return rows[0].flow_id if rows and self._absent is None else None

    def take_selected(self) -> FlowRow | None:
        """The row that keys act on, with the cursor on it from now on; None: there is none."""
        if self.selected is not None:
            self.go(self.top)
        return self.cursor_row

    def hand_cursor_on(self) -> None:
        """The next filter hides the cursor's flow: the flow that takes its place gets the cursor."""
        self._hand_on = True

    @property
    def anchor(self) -> int | None:
        """The flow whose rank to ask for: the cursor's, or the one that gets the cursor when it is back."""
        if self._turn is not None:
            return self._turn.cursor
        return self._absent if self.cursor is None else self.cursor

    @property
    def needs_anchor(self) -> bool:
        """Ask with the cursor's flow as the anchor: the page does not show where it is, or it has ended and is kept
        only as long as it is the anchor; or the anchor of before has ended, and need not be kept."""
        if self.page is None or self.page.query.anchor == self.anchor:
            return False
        before = next((row for row in self.page.rows if row.flow_id == self.page.query.anchor), None)
        row = self.cursor_row
        missing = self.anchor is not None and (row is None or row.end_reason > 0)
        return missing or (before is not None and before.end_reason > 0)

    def window(self, offset: int, limit: int | None) -> tuple[int, int]:
        """Which rows to ask for: `offset`, `limit`, given those asked for last, which are kept while they do.

        One screen above and one below are fetched too, and again when half a screen of that is left.
        """
        goal = self._goal() if self._turn is None else self._turn.top
        total = 0 if self.page is None else self.page.matched
        margin = (self.height + 1) // 2
        enough_above = offset == 0 or goal - offset >= margin
        end = offset + (limit or 0)
        enough_below = end >= total or end - (goal + self.height) >= margin
        if limit is not None and limit >= 2 * self.height and goal >= offset and enough_above and enough_below:
            return offset, limit
        return max(0, goal - self.height), 3 * self.height

    def show(self, page: Page) -> None:
        """Take a newer page. When the filter has changed, the cursor's flow stays on its line if possible."""
        filtered = self.page is not None and page.query.filter != self.page.query.filter
        turned = self.page is not None and _list_of(page) != _list_of(self.page)
        absent = self.cursor is None
        if not absent:
            self._line = self.cursor_line
        self.page = page
        if turned:
            self._begin(self._turn or START)
            absent, filtered = False, True
        if self._goal_rank is not None:
            self._settle_cursor()
        elif self.anchor is not None:
            self._find_cursor(page)
            self._keep_line(filtered=filtered, absent=absent)
            if turned and self._line is None and self.cursor is not None and self._cursor_rank is not None:
                self._reveal(self._cursor_rank)
        self._hand_on = self._hand_on and not filtered
        if self.follow and self._cursor_rank is not None and self.cursor is not None:
            self._reveal(self._cursor_rank)
        self._settle_top()
        if turned:
            steps, self._steps_ahead = self._steps_ahead, 0
            for _ in range(abs(steps)):
                self.move(1 if steps > 0 else -1)

    def _begin(self, place: Place) -> None:
        """The page on view is of another list."""
        self._turn = self._goal_rank = self._absent = None
        self.cursor, self._cursor_rank, self._line = place.cursor, place.rank, place.line
        self._goal_top = place.top

    def resize(self, height: int) -> None:
        """Take a new number of lines; the cursor stays in view when it was."""
        in_view = self.cursor_line is not None
        self.height = max(1, height)
        if in_view and self._cursor_rank is not None:
            self._reveal(self._cursor_rank)
        self._settle_top()

    def move(self, lines: int) -> None:
        """Move the cursor; without one, place it at the view's edge it would enter from."""
        if self._turn is not None:  # typed for the list to come
            self._steps_ahead += lines
            return
        if self._cursor_rank is None and self._goal_rank is None:
            shown = max(len(self.rows), 1)
            self.go(self.top if lines > 0 else self.top + shown - 1)
        else:
            self.go(self._rank() + lines)

    def move_pages(self, pages: int) -> None:
        """Scroll by whole views less one line, the cursor along with it when there is one."""
        lines = pages * max(self.height - 1, 1)
        if self.cursor is None and self._goal_rank is None:
            self.scroll(lines)
        else:
            self._goal_top = self._clamp_top(self._goal() + lines)
            self.go(self._rank() + lines)

    def move_to_end(self, *, last: bool) -> None:
        """To the first or last flow: the cursor when there is one, or was before its flow was hidden; else the view."""
        total = 0 if self.page is None else self.page.matched
        if self.cursor is None and self._goal_rank is None and self._absent is None:
            self.scroll(total if last else -total)
        else:
            self.go(total - 1 if last else 0)

    def scroll(self, lines: int) -> None:
        """Move the view, not the cursor. Ends following, which would move it back."""
        self.follow = False
        self._line = None
        self._goal_top = self._clamp_top(self._goal() + lines)
        self._settle_top()

    def select(self, line: int) -> None:
        """Put the cursor on a line of the view; ignore an empty line."""
        if 0 <= line < len(self.rows):
            self.go(self.top + line)

    def go(self, rank: int) -> None:
        """Put the cursor on the flow at `rank` (the nearest there is), and bring it into view."""
        if self.page is None or not self.page.matched:
            return
        self._absent = None
        self._goal_rank = max(0, min(rank, self.page.matched - 1))
        self._reveal(self._goal_rank)
        self._settle_cursor()
        self._settle_top()

    def clear_cursor(self) -> None:
        """Remove the cursor, and follow nothing."""
        self.cursor = self._cursor_rank = self._goal_rank = self._absent = None
        self.follow = False

    def toggle_follow(self) -> None:
        """Follow the cursor's flow, the first one in view when there is no cursor; or stop following."""
        self.follow = not self.follow
        if not self.follow:
            return
        if self.cursor is None:
            self.move(1)
        elif self._cursor_rank is not None:
            self._reveal(self._cursor_rank)
            self._settle_top()

    def _rank(self) -> int:
        return next((rank for rank in (self._goal_rank, self._cursor_rank) if rank is not None), self.top)

    def _goal(self) -> int:
        return self.top if self._goal_top is None else self._goal_top

    def _clamp_top(self, top: int) -> int:
        total = 0 if self.page is None else self.page.matched
        return max(0, min(top, total - self.height))

    def _reveal(self, rank: int) -> None:
        goal = self._goal()
        self._goal_top = self._clamp_top(min(max(goal, rank - self.height + 1), rank))

    def _find_cursor(self, page: Page) -> None:
        anchor = self.anchor
        rank = next((page.query.offset + index for index, row in enumerate(page.rows) if row.flow_id == anchor), None)
        if rank is None and page.query.anchor == anchor:
            rank = page.anchor_rank
            if rank is None:  # gone, or the filter hides it; the next key press continues from where it was
                self.cursor, self._absent = None, anchor
            else:
                anchor = page.anchor_row
        if rank is not None:
            self.cursor, self._absent, self._cursor_rank = anchor, None, rank

    def _keep_line(self, *, filtered: bool, absent: bool) -> None:
        """After a filter or a return, keep the cursor's flow on its line, or hand the cursor on."""
        if self._cursor_rank is None or not (filtered or absent):
            return
        if self.cursor is not None and self._line is not None:
            self._goal_top = self._clamp_top(self._cursor_rank - self._line)
        elif self.cursor is None and filtered and self._hand_on:
            self.go(self._cursor_rank)

    def _settle_cursor(self) -> None:
        """Put the cursor on the flow at the goal's rank if the page holds it."""
        if self.page is None or self._goal_rank is None:
            return
        if not self.page.matched:
            self.clear_cursor()
            return
        rank = min(self._goal_rank, self.page.matched - 1)
        index = rank - self.page.query.offset
        if 0 <= index < len(self.page.rows):
            self.cursor, self._cursor_rank, self._goal_rank = self.page.rows[index].flow_id, rank, None

    def _settle_top(self) -> None:
        """Bring the view as near to where it should be as the page's rows allow."""
        if self.page is None:
            return
        goal = self._clamp_top(self._goal())
        first = self.page.query.offset
        last_top = max(first, first + len(self.page.rows) - self.height)
        self.top = max(first, min(goal, last_top))
        self._goal_top = None if self.top == goal else goal


def _list_of(page: Page) -> tuple[object, ...]:
    """What identifies a list with rows of its own."""
    query = page.query
    return query.group, query.scope, query.biflow
