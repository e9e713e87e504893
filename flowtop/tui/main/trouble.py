"""Trouble, named: what is probably wrong, and the key that shows its flows."""

from __future__ import annotations

from flowtop.filters.filter import compile_filter
from flowtop.query.trouble import Trouble
from flowtop.query.views import ListView
from flowtop.tui.main.filter import FilterController
from flowtop.tui.main.view import View
from flowtop.tui.main.views import ViewsController
from flowtop.tui.state.questions import Questions


class TroubleController:
    """Jumps to the view, the filter and the order that show what is wrong.

    Args:
        view: the main screen.
        questions: the query.
        views: show the view.
        filter_: sets the filter.
    """

    def __init__(self, view: View, questions: Questions, views: ViewsController, filter_: FilterController) -> None:
        self._view = view
        self._questions = questions
        self._views = views
        self._filter = filter_
        self._shown = ""

    def banners(self) -> tuple[str, ...]:
        """None: it stands beside the views."""
        return ()

    def found(self) -> tuple[Trouble, ...]:
        """What is wrong now, also while the display is paused."""
        page = self._questions.newest or self._view.page
        return () if page is None else page.troubles

    def action_trouble(self) -> None:
        """Show the flows of the first trouble; while these are shown, of the next."""
        found = self.found()
        if not found:
            self._view.say("nothing looks wrong: no rule of trouble applies (flowtop help trouble)")
            return
        rules = [trouble.rule for trouble in found]
        at = rules.index(self._shown) if self._shown in rules else -1
        self.show((at + 1) % len(found) if at >= 0 and self._lists(found[at]) else 0)

    def show(self, number: int) -> None:
        """Show the flows of one, from 0."""
        found = self.found()
        if not number < len(found):
            return
        trouble = found[number]
        self._shown = trouble.rule
        chosen: ListView = next(view for view in self._views.views if view.id == trouble.view)
        if not (chosen is self._views.current and chosen.lists(self._questions.choice)):
            self._views.show(chosen)
        self._filter.replace(compile_filter(trouble.filter))
        if trouble.sort:
            self._questions.order_by(trouble.sort, descending=True)
        over = "; flows may have left since: ( shows a minute ago" if trouble.within_s else ""
        others = f"; a: the next of {len(found)}" if len(found) > 1 else ""
        self._view.say(f"{trouble.text}{over}; \\ clears the filter{others}")
        self._view.changed()

    def _lists(self, trouble: Trouble) -> bool:
        """Whether its flows are the ones that are listed."""
        shown = self._questions.filter
        return shown is not None and shown.text == compile_filter(trouble.filter).text
