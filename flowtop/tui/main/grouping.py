"""What rows are: flows, biflows or groups of flows; into a group and out of it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flowtop.model.rows import FlowRow
from flowtop.query.query import Page, Query
from flowtop.tui.main.flow_screen import FlowScreen
from flowtop.tui.state.viewport import START, Place

if TYPE_CHECKING:
    from flowtop.fields.columns import Wording
    from flowtop.filters.filter import Filter


@dataclass(frozen=True, slots=True)
class Step:
    """A group that was opened.

    Attributes:
        title: what its flows have in common, in names or numbers.
        before: what was asked then: its grouping, order, filter and scope are for coming back.
        place: where the reader was.
    """

    title: Callable[[Wording], str]
    before: Query
    place: Place


class Grouping(FlowScreen):
    """Groups, goes into groups and comes back; both ways of a conversation in one row, or each by itself."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._steps: list[Step] = []
        self._biflow = self.questions.wanted.biflow  # what rows are that are no groups

    def trail(self) -> tuple[str, ...]:
        """What the opened groups are."""
        wording = self.wording() if self._steps else None
        return tuple(step.title(wording) for step in self._steps if wording is not None)

    def action_group(self) -> None:
        """Choose what to group by."""
        from flowtop.tui.panels.groups import BIFLOWS, GroupsScreen  # needed only now, and brings numpy

        wanted = self.questions.wanted

        def chosen(group: tuple[str, ...] | None) -> None:
            if group is None:
                return
            if group in ((), (BIFLOWS,)):
                self._show_rows(biflow=group == (BIFLOWS,))
                return
            self.questions.show_list(group, self.questions.wanted.scope)
            self.changed()

        listening = self.page is not None and self.page.collecting is not None
        self.app.push_screen(GroupsScreen((BIFLOWS,) if wanted.biflow else wanted.group, listening), chosen)

    def action_biflow(self) -> None:
        """Both ways of a conversation in one row, or each by itself; of groups, the biflows in them."""
        wanted = self.questions.wanted
        self._show_rows(biflow=wanted.group != () or not wanted.biflow)

    def _show_rows(self, *, biflow: bool) -> None:
        """No groups. The cursor goes along: from a flow to its biflow, from a biflow to its initiator's flow."""
        self._biflow = biflow
        row, place = self.viewport.cursor_row, START
        if row is not None and not row.group:
            flow = row if row.ways is None else row.ways.forward
            place = replace(self.viewport.place, cursor=flow.flow_id)
        self.questions.show_list((), self.questions.wanted.scope, place, biflow=biflow)
        self.changed()

    def action_open(self) -> None:
        """Into the cursor's group, or the details of its flow."""
        page, row = self.page, self.viewport.cursor_row
        if page is None or row is None:
            self.viewport.move(1)
            self.changed()
        elif row.group:
            self._open_group(page, row)
        else:
            self.open_flow(page, row)

    def _open_group(self, page: Page, row: FlowRow) -> None:
        from flowtop.fields.groups import drill_term, group_text

        term = drill_term(page.query.group, row, page.lookups)
        if not term:
            self.say("the kernel's table was full: of these flows only the sum is known")
            return
        wanted = self.questions.wanted
        title = partial(group_text, page.query.group, row, page.lookups)
        self._steps.append(Step(title, wanted, self.viewport.place))
        self.questions.show_list((), _within(wanted.scope, term), biflow=self._biflow)
        self.changed()

    def action_back(self) -> None:
        """Out of the group that was opened last; in the whole list: flows or biflows again, not groups."""
        if self._steps:
            step = self._steps.pop()
            self.questions.return_to(step.before, step.place)
        else:
            self.questions.show_list((), None, biflow=self._biflow)
        self.changed()


def _within(scope: Filter | None, term: str) -> Filter:
    from flowtop.filters.filter import compile_filter

    return compile_filter(term if scope is None else f"{scope.text} and {term}")
