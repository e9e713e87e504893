"""The views of the list, by digits and by click: each keeps its order, its open groups and where the reader was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowtop.fields.arrangement import Arrangement
from flowtop.fields.columns import Column, Window
from flowtop.model.exporters import InterfaceCounters
from flowtop.query.query import Page, Query
from flowtop.query.views import ListView, shown_columns, view_of
from flowtop.tui.main.groups import GroupsController, OpenGroups
from flowtop.tui.main.view import View
from flowtop.tui.panels.interfaces import InterfacesScreen
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import START, Place, Viewport

MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class _Left:
    """How a view was left."""

    choice: Query
    place: Place
    groups: OpenGroups


class ViewsController:
    """Shows another view, and each as it was left.

    Args:
        view: the main screen.
        viewport: the cursor.
        questions: the query.
        groups: what rows are; its way out of the outermost list leads to the view's own rows.
        views: in the order of their digits.
        clear_filter: lists all flows; the filter stays in the history.

    Attributes:
        current: the view on screen.
    """

    def __init__(self, view: View, viewport: Viewport, questions: Questions, groups: GroupsController,
                 views: Sequence[ListView], clear_filter: Callable[[], None]) -> None:
        self._view = view
        self._viewport = viewport
        self._questions = questions
        self._groups = groups
        self._clear_filter = clear_filter
        self.views = tuple(views)
        self.current = view_of(questions.choice, views) or views[0]
        self._left: dict[str, _Left] = {}
        groups.home = lambda: self.current

    def banners(self) -> tuple[str, ...]:
        """None: its name along the top stands out."""
        return ()

    def tabs(self) -> tuple[tuple[str, str, bool], ...]:
        """Key, name, and whether it is on screen, of each view."""
        return tuple((str(number) if number <= MOST_DIGITS else "", view.name, view is self.current)
                     for number, view in enumerate(self.views, 1))

    def action_view(self, number: int) -> None:
        """The view with this digit; the one on screen: its whole list again, from the top, without a filter."""
        if not 1 <= number <= len(self.views):
            self._view.say(f"no view has the digit {number}: [views.NAME] in the settings file adds one")
            return
        self.show(self.views[number - 1])

    def show(self, chosen: ListView) -> None:
        """Show a view; the one on screen: its whole list, from the top."""
        if chosen is self.current:
            whole = self._groups.whole
            self._groups.enter(OpenGroups(chosen.biflow))
            self._questions.turn_to(whole if chosen.lists(whole) else chosen.query, START)
            self._viewport.clear_cursor()
            self._viewport.scroll(-self._viewport.top)
            self._clear_filter()
        else:
            self._left[self.current.id] = _Left(self._questions.choice, self._viewport.place, self._groups.leave())
            self.current = chosen
            left = self._left.get(chosen.id) or _Left(chosen.query, START, OpenGroups(chosen.biflow))
            self._groups.enter(left.groups)
            self._questions.turn_to(left.choice, left.place)
        page = self._questions.newest or self._view.page
        if chosen.of_owners and page is not None and page.owners is None:
            self._view.say("owners of flows are not known here: they are those of this host, with --owners on")
        self._view.changed()

    @property
    def digit(self) -> str:
        """The key of the view on screen; "" when it has none."""
        number = self.views.index(self.current) + 1
        return str(number) if number <= MOST_DIGITS else ""

    def action_interfaces(self) -> None:
        """What sFlow agents count at their interfaces; of this host, the view of interfaces."""
        page = self._view.page
        if page is not None and page.collecting is not None:
            self._view.app.push_screen(InterfacesScreen(self._counted_interfaces, bits=self._view.wording().bits))
        else:
            self.show(next(view for view in self.views if view.id == "interfaces"))

    def _counted_interfaces(self) -> tuple[InterfaceCounters, ...]:
        page = self._questions.newest or self._view.page
        return () if page is None or page.collecting is None else page.collecting.interfaces

    def columns(self, page: Page, window: Window, arrangement: Arrangement) -> tuple[Column, ...]:
        """The columns of a page's rows, from left to right."""
        columns = shown_columns(self.current, page.query, window, arrangement)
        if page.lookups.networks is not None:
            return columns
        return tuple(column for column in columns if not column.of_networks)
