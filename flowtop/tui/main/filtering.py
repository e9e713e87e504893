"""Which flows are listed: the filter bar, and terms taken from a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowtop.model.rows import FlowRow
from flowtop.query.query import Query
from flowtop.text import units
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.tui.main.flow_screen import FlowScreen
from flowtop.tui.widgets.status import Hints

if TYPE_CHECKING:
    from flowtop.filters.filter import Filter
    from flowtop.tui.widgets.filter_bar import FilterBar


_FLOW = 0
"""record.Kind.FLOW, without numpy; a test compares them."""


def seen_values(rows: Iterable[FlowRow], lookups: Lookups,
                attached: Iterable[str], host_names: Iterable[str] = ()) -> dict[str, Sequence[str]]:
    """Values by the word they go with: "host", "port", "proto", "mac", "name", and the words of text fields ("if",
    ...); each once, in the order of the rows."""
    from flowtop.fields.seen import seen_texts  # brings numpy: not before it is asked for

    rows = tuple(rows)
    hosts: dict[str, None] = {}
    ports: dict[str, None] = {}
    protocols: dict[str, None] = {}
    macs: dict[str, None] = {}
    for row in rows:
        protocols[units.protocol(row.protocol)] = None
        if row.kind != _FLOW:
            continue
        for address in (row.source_address, row.destination_address):
            hosts[units.address(address, row.ip_version)] = None
        if row.protocol in units.PORT_PROTOCOLS:
            for port in (row.source_port, row.destination_port):
                ports[str(port)] = None
        for address in (row.source_mac, row.destination_mac):
            macs[units.mac(address)] = None
    texts = seen_texts(rows, lookups)
    names = dict.fromkeys((*texts.get("if", ()), *(name for name in attached if name == units.printable(name))))
    return {**texts, "host": [*hosts], "port": [*ports], "proto": [*protocols], "mac": [*macs], "if": [*names],
            "name": sorted(set(host_names))}

FIRST_CELL = "source"
TYPING_HINTS = (("Enter", "keep"), ("Esc", "back"), ("Tab", "complete"), ("↑ ↓", "typed before"), ("Ctrl-U", "clear"))


class Filtering(FlowScreen):
    """Filters as one types, by the cell under the cursor, and back to all flows."""

    def __init__(self, query: Query, *arguments: Any, **options: Any) -> None:
        super().__init__(query, *arguments, **options)
        self._history: list[str] = []
        self._bar: FilterBar | None = None

    # ---- typing

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, `/` is a character of it (10.0.0.0/8): the key is looked at before the text is."""
        if action == "edit_filter" and self._bar is not None and self._bar.editing:
            return False
        return super().check_action(action, parameters)

    async def action_edit_filter(self) -> None:
        """Type a filter."""
        if self._bar is None:
            from flowtop.tui.widgets.filter_bar import FilterBar  # not before the first frame

            self._bar = FilterBar(self._history, self._seen)
            await self.mount(self._bar, self._bar.candidates)
        self._bar.edit(self.questions.filter)
        self.paint()

    def _seen(self) -> Mapping[str, Sequence[str]]:
        """What Tab offers of the flows around the view, from the first to the last."""

        page = self.page
        if page is None:
            return {}
        flows = (row for row in page.rows if not row.group)
        hosts = self.wording().names.hosts
        names = () if hosts is None else hosts.known().names.values()
        return seen_values(flows, page.lookups, page.attached, names)

    def hints(self) -> Hints:
        """Of the bar, while it is there."""
        return TYPING_HINTS if self._bar is not None and self._bar.editing else super().hints()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        """Show what the text means so far."""
        self._filter_by(message.filter)

    def on_filter_bar_closed(self, message: FilterBar.Closed) -> None:
        """Done, or never mind."""
        self._filter_by(message.filter)

    def action_clear_filter(self) -> None:
        """All flows."""
        if self.questions.filter is not None:
            from flowtop.tui.state.filter_entry import remember

            remember(self._history, self.questions.filter.text)
        self._filter_by(None)

    # ---- by cell

    def action_choose_cell(self, step: int) -> None:
        """The next cell of the cursor's flow."""
        if self.viewport.cursor is None:
            self.viewport.move(1)
        ids = [column.id for column in self.table.columns]
        if self.cell in ids:
            self.cell = ids[max(0, min(ids.index(self.cell) + step, len(ids) - 1))]
        elif ids:
            self.cell = FIRST_CELL if FIRST_CELL in ids else ids[0]
        self.changed()

    def action_filter_by_cell(self, negate: bool) -> None:
        """Only flows like this one in the chosen cell, or none of them."""
        row = self.viewport.cursor_row
        if row is None or self.cell not in [column.id for column in self.table.columns]:
            self.action_choose_cell(0)
            self.say("← → choose a cell; = keeps its flows, ! hides them")
            return
        from flowtop.filters.filter import compile_filter
        from flowtop.filters.terms import add_term
        from flowtop.query.layout import columns_of

        page, current = self.page, self.questions.filter
        columns = columns_of(Query() if page is None else page.query)
        lookups = NO_LOOKUPS if page is None else page.lookups
        if not columns[self.cell].term(row, lookups):
            self.say("no filter asks for that")
            return
        before = current.text if current else ""
        wanted = compile_filter(add_term(before, self.cell, row, negate, lookups, columns))
        if negate:
            self.viewport.hand_cursor_on()
        self._filter_by(wanted)

    def on_flow_table_right_clicked(self) -> None:
        """Only flows like the one that was clicked, in that cell."""
        self.action_filter_by_cell(False)

    # ---- both

    def _filter_by(self, wanted: Filter | None) -> None:
        self.questions.filter_by(wanted)
        self.changed()

    def paint(self) -> None:
        """The bar's count, too."""
        super().paint()
        if self._bar is not None and self._bar.editing and self.page is not None:
            self._bar.show_count(f"{self.page.matched_flows:,} of {self.page.flows:,} flows")
