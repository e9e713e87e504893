"""Which flows are listed: the filter bar, terms from a cell, and the names of hosts and ports that filters ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from textual.message import Message

from flowtop.fields.groups import drill_term
from flowtop.fields.seen import seen_texts
from flowtop.filters.filter import Filter, compile_filter
from flowtop.filters.terms import add_term, conversation_as_filter, widened
from flowtop.model.kinds import PORT_PROTOCOLS, Kind
from flowtop.model.names_seen import NAMES
from flowtop.model.rows import FlowRow
from flowtop.query.layout import columns_of
from flowtop.query.query import Query
from flowtop.text import units
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import NO_NAMES, HostNames, KnownNames, LookUp, Names, ServiceNames, system_look_up
from flowtop.tui.main.view import View
from flowtop.tui.saved import Looks
from flowtop.tui.state.filter_entry import remember
from flowtop.tui.state.questions import Questions
from flowtop.tui.state.viewport import Viewport
from flowtop.tui.widgets.filter_bar import FilterBar
from flowtop.tui.widgets.flow_table import FlowTable
from flowtop.tui.widgets.hints import Hints

FIRST_CELL = "source"
_MOST_NAMES = 2_000
"""Names that are offered, of those seen in packets: the latest."""
GATHER_S = 0.1
"""Names that come within this time are painted together."""
TYPING_HINTS = (("Enter", "keep"), ("Esc", "back"), ("Tab", "complete"), ("↑ ↓", "history"), ("Ctrl-U", "clear"))


class NameCame(Message):
    """A host's name came, or the resolver stopped answering. Posted by the threads that look names up."""

    def can_replace(self, message: Message) -> bool:
        """One is as good as many."""
        return isinstance(message, NameCame)


class FilterController:
    """Filters as one types, and by the cell under the cursor; looks up names of what is in view, and of nothing else:
    a monitor should cause little traffic of its own.

    Args:
        view: the main screen.
        viewport: the cursor.
        questions: the query.
        table: for the columns on view.
        looks: which names are shown at first.

    Attributes:
        bar: the line to type in; the screen mounts it.
        look_up: gives the name of an address; None: the host's own resolver.
    """

    def __init__(self, view: View, viewport: Viewport, questions: Questions, table: FlowTable, looks: Looks) -> None:
        self._view = view
        self._viewport = viewport
        self._questions = questions
        self._table = table
        self._history: list[str] = []
        self.bar = FilterBar(self._history, self._seen)
        self.look_up: LookUp | None = None
        self._hosts: HostNames | None = None
        self._services: ServiceNames | None = None
        self._hosts_shown = looks.hosts
        self._services_shown = looks.services
        self._gathering = False
        self._named_view: tuple[object, ...] = ()

    # ---- typing

    def action_edit_filter(self) -> None:
        """Type a filter."""
        self.bar.edit(self._questions.filter)
        self._view.paint()

    def action_clear_filter(self) -> None:
        """List all flows; the filter stays in the history."""
        self.return_to(None)

    def return_to(self, before: Filter | None) -> None:
        """List what was listed before the filter was set, which stays in the history."""
        if self._questions.filter is not None:
            remember(self._history, self._questions.filter.text)
        self.filter_by(before)

    def replace(self, new: Filter) -> None:
        """List other flows; the filter of before stays in the history."""
        if self._questions.filter is not None:
            remember(self._history, self._questions.filter.text)
        self.filter_by(new)

    def filter_by(self, new: Filter | None) -> None:
        """List the flows that pass a filter; None: all."""
        self._questions.filter_by(new)
        self._view.changed()

    def hints(self) -> Hints:
        """Keys of the bar while a filter is typed; else none."""
        return TYPING_HINTS if self.bar.editing else ()

    def paint(self) -> None:
        """Show how many flows the filter leaves, while it is typed."""
        page = self._view.page
        if self.bar.editing and page is not None:
            self.bar.show_count(f"{page.matched_flows:,} of {units.things(page.flows, 'flow')}")

    def _seen(self) -> Mapping[str, Sequence[str]]:
        """Values that Tab offers: those of the flows around the view."""
        page = self._view.page
        if page is None:
            return {}
        flows = (row for row in page.rows if not row.group)
        hosts = self.names().hosts
        names = () if hosts is None else hosts.known().names.values()
        return seen_values(flows, page.lookups, page.attached, names)

    # ---- by cell

    def action_choose_cell(self, step: int) -> None:
        """The next cell of the cursor's flow."""
        if self._viewport.cursor is None:
            self._viewport.move(1)
        ids = [column.id for column in self._table.columns]
        cell = self._viewport.cell
        if cell in ids:
            self._viewport.cell = ids[max(0, min(ids.index(cell) + step, len(ids) - 1))]
        elif ids:
            self._viewport.cell = FIRST_CELL if FIRST_CELL in ids else ids[0]
        self._view.changed()

    def action_filter_by_cell(self, negate: bool) -> None:
        """Only flows with the value of the chosen cell, or all but those."""
        row, cell = self._viewport.cursor_row, self._viewport.cell
        if row is None or cell not in [column.id for column in self._table.columns]:
            self.action_choose_cell(0)
            self._view.say("← → select a cell; = keeps flows with its value, ! hides them")
            return
        page, current = self._view.page, self._questions.filter
        columns = columns_of(Query() if page is None else page.query)
        lookups = NO_LOOKUPS if page is None else page.lookups
        if not columns[cell].term(row, lookups):
            self._view.say("flows cannot be filtered by this cell")
            return
        text = current.text if current else ""
        if negate:
            self._viewport.hand_cursor_on()
            text = add_term(text, cell, row, negate, lookups, columns)
        else:
            text = widened(text, cell, row, lookups, columns)
        self.filter_by(compile_filter(text) if text else None)

    def action_filter_conversation(self) -> None:
        """Only flows of the cursor's conversation, in both directions; of a group only its flows."""
        row, page, current = self._viewport.take_selected(), self._view.page, self._questions.filter
        if row is None or page is None:
            self._view.say("no flow under the cursor: put it on one, then f lists only its conversation")
            return
        if row.group:
            text = drill_term(page.query.group, row, page.lookups)
        else:
            text = conversation_as_filter(row if row.ways is None else row.ways.forward, page.lookups)
        if not text:
            self._view.say("the kernel's table was full: only the sum of these flows is known")
            return
        if current is not None:
            remember(self._history, current.text)
        self.filter_by(compile_filter(text))

    # ---- names

    def names(self) -> Names:
        """The names that are shown, as far as they are known."""
        if self._hosts_shown and self._hosts is None:
            self._hosts = HostNames(self.look_up or system_look_up, on_change=self._name_came)
        page = self._view.page
        lookups = NO_LOOKUPS if page is None else page.lookups
        if self._hosts is not None:
            self._hosts.called = lookups.called
        if self._services_shown and self._services is None:
            self._services = ServiceNames()
        hosts = self._hosts if self._hosts_shown else None
        in_view = self._questions.choice.scope, self._questions.choice.group, self._viewport.top
        if hosts is not None and in_view != self._named_view:
            self._named_view = in_view
            hosts.leave_view()
        services = self._services if self._services_shown else None
        return Names(hosts, services, hosts.edition if hosts else 0, lookups.named(NAMES))

    def names_for_filter(self) -> KnownNames | None:
        """Names of hosts, when the filter asks for any; flows without a known name do not pass it."""
        current = self._questions.filter
        if current is None or not current.of_names:
            return None
        return NO_NAMES if self._hosts is None else self._hosts.known()

    def known_hosts(self) -> KnownNames:
        """The names of hosts that are known now. For any thread."""
        hosts = self._hosts
        return NO_NAMES if hosts is None else hosts.known()

    def action_hosts(self) -> None:
        """Names of hosts, or addresses."""
        self._hosts_shown = not self._hosts_shown
        self._view.say("host names: asking the resolver about the addresses in view" if self._hosts_shown
                       else "addresses: the resolver is no longer asked")
        self._view.changed()

    def action_services(self) -> None:
        """Names of ports, or their numbers."""
        self._services_shown = not self._services_shown
        self._view.say("service names, from /etc/services" if self._services_shown else "port numbers")
        self._view.changed()

    def close(self) -> None:
        """Look up no more names."""
        if self._hosts is not None:
            self._hosts.close()

    def _name_came(self) -> None:
        """Any thread."""
        self._view.post_message(NameCame())

    def gather_names(self) -> None:
        """Paint soon, with the names that come until then."""
        if not self._gathering:
            self._gathering = True
            self._view.app.set_timer(GATHER_S, self._paint_names)

    def _paint_names(self) -> None:
        self._gathering = False
        self._view.changed()

    # ---- the header

    def banners(self) -> Iterator[str]:
        """How many names a filter knows, and that the resolver does not answer: worth knowing in an outage."""
        page = self._view.page
        if page is not None and page.query.filter is not None and page.query.names is not None and (
                page.query.filter.needs_names):
            known = len(page.query.names.names) + len(page.lookups.named(NAMES))
            yield units.things(known, "name").upper() + " KNOWN"
        if self._hosts_shown and self._hosts is not None and self._hosts.silent:
            yield "DNS DOES NOT ANSWER"


def seen_values(rows: Iterable[FlowRow], lookups: Lookups,
                attached: Iterable[str], host_names: Iterable[str] = ()) -> dict[str, Sequence[str]]:
    """Values by the filter word that they go with: "host", "port", "proto", "mac", "name", and the words of text fields
    ("if", ...); each once, in the order of the rows."""
    rows = tuple(rows)
    hosts: dict[str, None] = {}
    ports: dict[str, None] = {}
    protocols: dict[str, None] = {}
    macs: dict[str, None] = {}
    for row in rows:
        protocols[units.protocol(row.protocol)] = None
        if row.kind != Kind.FLOW:
            continue
        for address in (row.source_address, row.destination_address) if row.ip_version else ():
            hosts[units.address(address, row.ip_version)] = None
        if row.protocol in PORT_PROTOCOLS:
            for port in (row.source_port, row.destination_port):
                ports[str(port)] = None
        for address in (row.source_mac, row.destination_mac):
            macs[units.mac(address)] = None
    texts = seen_texts(rows, lookups)
    seen = [*lookups.named(NAMES).values()][-_MOST_NAMES:]  # not only of these rows, which a filter has chosen
    names = dict.fromkeys((*texts.get("if", ()), *(name for name in attached if name == units.printable(name))))
    return {**texts, "host": [*hosts], "port": [*ports], "proto": [*protocols], "mac": [*macs], "if": [*names],
            "name": sorted({*host_names, *seen})}
