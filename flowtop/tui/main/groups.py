"""What rows are: flows, biflows or groups of flows; into a group and out of it; the details of one flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from flowtop.fields.columns import Wording
from flowtop.fields.groups import drill_term, group_text
from flowtop.fields.registry import GROUPS
from flowtop.filters.filter import Filter, compile_filter
from flowtop.model.rows import FlowRow
from flowtop.query.query import Details, Page, Query
from flowtop.tui import theme
from flowtop.tui.clock import Clock
from flowtop.tui.main.view import View
from flowtop.tui.panels.details import DetailsContext, DetailsScreen
from flowtop.tui.panels.groups import BIFLOWS, GroupsScreen
from flowtop.tui.source import ExportControl
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import START, Place, Viewport
from flowtop.tui.widgets.chart import BRAILLE, Glyphs


@dataclass(frozen=True, slots=True)
class Step:
    """A group that was opened.

    Attributes:
        title: what its flows have in common, with names or numbers.
        before: the query then; its grouping, order, filter and scope come back when the group is left.
        place: where the reader was.
    """

    title: Callable[[Wording], str]
    before: Query
    place: Place


@dataclass(frozen=True, slots=True)
class OpenGroups:
    """The way into the list of a view.

    Attributes:
        biflow: rows are biflows when they are no groups.
        steps: the groups that were opened, the outermost first.
        before: the view's own list, before its flows were grouped otherwise; None: they were not.
    """

    biflow: bool = False
    steps: tuple[Step, ...] = ()
    before: tuple[Query, Place] | None = None


class Home(Protocol):
    """The view on screen."""

    @property
    def name(self) -> str:
        """Along the top."""

    @property
    def query(self) -> Query:
        """Its list."""


class GroupsController:
    """Groups flows, opens groups and goes back; merges both directions of a conversation; opens details.

    Args:
        view: the main screen.
        viewport: the cursor.
        questions: the query.
        exports: whose states the details show; None: there are none.
        hand_off: offers to hand off the cursor's flow.
        sparks: characters of the sparklines, from low to high.
        glyphs: what charts are painted with.
        clock: for times of day.

    Attributes:
        home: gives the view on screen: the way out of the outermost list leads to its own rows.
    """

    def __init__(self, view: View, viewport: Viewport, questions: Questions, exports: ExportControl | None,
                 hand_off: Callable[[], None], *, sparks: str = theme.SPARKS, glyphs: Glyphs = BRAILLE,
                 clock: Clock) -> None:
        self._view = view
        self._viewport = viewport
        self._questions = questions
        self._exports = exports
        self._hand_off = hand_off
        self._sparks = sparks
        self._glyphs = glyphs
        self._clock = clock
        self.home: Callable[[], Home] | None = None
        self._steps: list[Step] = []
        self._before: tuple[Query, Place] | None = None
        self._biflow = questions.choice.biflow  # what rows are when they are no groups
        self._details: DetailsScreen | None = None

    def banners(self) -> tuple[str, ...]:
        """None: the trail and the columns show what rows are."""
        return ()

    def trail(self) -> tuple[str, ...]:
        """The open groups, the outermost first."""
        wording = self._view.wording() if self._steps else None
        return tuple(step.title(wording) for step in self._steps if wording is not None)

    def leave(self) -> OpenGroups:
        """The way into this list, for `enter`."""
        return OpenGroups(self._biflow, tuple(self._steps), self._before)

    def enter(self, groups: OpenGroups) -> None:
        """Another view comes on screen, with these groups open."""
        self._biflow, self._steps, self._before = groups.biflow, list(groups.steps), groups.before

    @property
    def outside(self) -> Query | None:
        """The list that the innermost open group was opened in; None: no group is open."""
        return self._steps[-1].before if self._steps else None

    @property
    def whole(self) -> Query:
        """The view's own list, as it was before its groups were opened or its flows grouped otherwise."""
        choice = self._questions.choice
        if self._before is not None:
            return self._before[0]
        return self._steps[0].before if self._steps else choice

    def _remember(self) -> None:
        """The view's own list, before its rows become others."""
        if not self._steps and self._at_home:
            self._before = self._questions.choice, self._viewport.place

    @property
    def _at_home(self) -> bool:
        """Whether rows are of the view's own list: of flows, also merged in biflows."""
        own, choice = None if self.home is None else self.home().query, self._questions.choice
        return own is not None and (own.group, own.scope) == (choice.group, choice.scope)

    @property
    def leads_back(self) -> bool:
        """Whether Backspace leads anywhere."""
        return bool(self._steps) or not self._at_home

    # ---- groups

    def offered(self) -> dict[str, str]:
        """Fields to group by here, and what each means."""
        page = self._view.page
        collecting = page is not None and page.collecting is not None
        networks = page is not None and page.lookups.networks is not None
        return {id_: field.doc for id_, field in GROUPS.items()
                if (collecting or not field.of_exporters) and (networks or not field.of_networks)}

    def group_by(self, group: tuple[str, ...]) -> None:
        """Group flows by these fields."""
        self._remember()
        self._questions.show_list(group, self._questions.choice.scope)
        self._view.changed()

    def action_group(self) -> None:
        """Choose what to group by."""
        choice = self._questions.choice

        def chosen(group: tuple[str, ...] | None) -> None:
            if group is None:
                return
            if group in ((), (BIFLOWS,)):
                self._show_rows(biflow=group == (BIFLOWS,))
                return
            self.group_by(group)

        page = self._view.page
        offered = GroupsScreen((BIFLOWS,) if choice.biflow else choice.group,
                               collecting=page is not None and page.collecting is not None,
                               networks=page is not None and page.lookups.networks is not None)
        self._view.app.push_screen(offered, chosen)

    def action_biflow(self) -> None:
        """Merge both directions of a conversation, or list each flow; in a list of groups: list their biflows."""
        choice = self._questions.choice
        self._show_rows(biflow=choice.group != () or not choice.biflow)

    def _show_rows(self, *, biflow: bool) -> None:
        """No groups. The cursor goes along: from a flow to its biflow, from a biflow to its initiator's flow."""
        self._remember()
        self._biflow = biflow
        row, place = self._viewport.cursor_row, START
        if row is not None and not row.group:
            flow = row if row.ways is None else row.ways.forward
            place = Place(cursor=flow.flow_id)  # from the top, where the fastest are, as far as it reaches the cursor
        self._questions.show_list((), self._questions.choice.scope, place, biflow=biflow)
        self._view.changed()

    def action_open(self) -> None:
        """Open the cursor's group, or the details of its flow; without a cursor those of the first row."""
        page, row = self._view.page, self._viewport.take_selected()
        if page is None or row is None:
            self._viewport.move(1)
            self._view.changed()
        elif row.group:
            self._open_group(page, row)
        else:
            self._open_details(page, row)

    def _open_group(self, page: Page, row: FlowRow) -> None:
        term = drill_term(page.query.group, row, page.lookups)
        if not term:
            self._view.say("the kernel's table was full: only the sum of these flows is known")
            return
        choice = self._questions.choice
        title = partial(group_text, page.query.group, row, page.lookups)
        self._steps.append(Step(title, choice, self._viewport.place))
        self._questions.show_list((), _within(choice.scope, term), biflow=self._biflow)
        self._view.changed()

    def action_back(self) -> None:
        """Leave the innermost group; in the whole list: flows or biflows instead of groups."""
        if self._steps:
            step = self._steps.pop()
            self._questions.return_to(step.before, step.place)
        elif self.home is not None:
            own, place = self._before or (self.home().query, START)
            if self._at_home:
                self._view.say(f"this is the whole list of {self.home().name}: digits show other views")
            else:
                self._questions.turn_to(own if own.group else replace(own, biflow=self._biflow), place)
            self._before = None
        self._view.changed()

    # ---- details of a flow

    def _open_details(self, page: Page, row: FlowRow) -> None:
        def closed(_: None) -> None:
            self._details = None
            self._questions.watch(None)
            self._view.changed()

        self._details = DetailsScreen(self._step, self._hand_off)
        self._view.app.push_screen(self._details, closed)
        self._show_details(page, row)

    def _show_details(self, page: Page, row: FlowRow) -> None:
        """What the list has of it at once, the rest when the answer comes."""
        reverse = None
        if row.ways is not None:  # of a biflow: the initiator's flow, whose details show both directions
            ways = row.ways
            row, reverse = ways.forward, ways.reverse
        self._questions.watch(row.flow_id)
        self._feed(page.present or page, Details(row, reverse=reverse))
        self._view.changed()

    def _step(self, lines: int) -> None:
        self._viewport.move(lines)
        self._view.changed()
        page, row = self._view.page, self._viewport.cursor_row
        if page is not None and row is not None and not row.group:
            self._show_details(page, row)

    def show_details(self, page: Page) -> None:
        """Take the details of a page; they are live, also while the list is paused."""
        if page.details is not None:
            self._feed(page.present or page, page.details)

    def _feed(self, page: Page, details: Details) -> None:
        if self._details is None or details.row.flow_id != self._questions.choice.details:
            return
        exports = () if self._exports is None else self._exports.statistics()
        shown = self._view.page
        list_ms = shown.unix_ms if shown is not None and self._questions.paused else None
        context = DetailsContext(page, self._view.wording(), self._clock.local, self._sparks, self._glyphs,
                                 exports, list_ms)
        self._details.show(details, context)


def _within(scope: Filter | None, term: str) -> Filter:
    return compile_filter(term if scope is None else f"{scope.text} and {term}")
