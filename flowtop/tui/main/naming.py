"""Names in the place of numbers, by toggles: hosts by reverse DNS, ports by /etc/services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.message import Message

from flowtop.text.names import NO_NAMES
from flowtop.tui.main.flow_screen import FlowScreen

if TYPE_CHECKING:
    from flowtop.fields.columns import Wording
    from flowtop.text.names import HostNames, LookUp, ServiceNames


GATHER_S = 0.1
"""Names that come within this time are painted together."""


class Naming(FlowScreen):
    """Asks for names of what is in view, and of nothing else: a monitor should cause little traffic of its own.

    Attributes:
        look_up: what is asked for the name of an address; None: the host's own resolver.
    """

    class NameCame(Message):
        """A host's name came, or the resolver fell silent."""

        def can_replace(self, message: Message) -> bool:
            """One is as good as many."""
            return isinstance(message, Naming.NameCame)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.look_up: LookUp | None = None
        self._hosts: HostNames | None = None
        self._services: ServiceNames | None = None
        self._hosts_shown = self.looks.hosts
        self._services_shown = self.looks.services
        self._gathering = False

    def wording(self) -> Wording:
        """With the names there are by now."""
        from flowtop.text.names import HostNames, Names, ServiceNames, system_look_up

        if self._hosts_shown and self._hosts is None:
            self._hosts = HostNames(self.look_up or system_look_up, on_change=self._name_came)
        if self._services_shown and self._services is None:
            self._services = ServiceNames()
        hosts = self._hosts if self._hosts_shown else None
        return replace(super().wording(), names=Names(
            hosts, self._services if self._services_shown else None, hosts.edition if hosts else 0))

    def ask(self) -> None:
        """With the names that a filter asks for. Flows without a known name pass no such filter."""
        wanted = self.questions.filter
        names = None
        if wanted is not None and wanted.of_names:
            names = NO_NAMES if self._hosts is None else self._hosts.known()
        self.questions.know(names)
        super().ask()

    def banners(self) -> Iterator[str]:
        """A resolver that does not answer is worth knowing, in an outage above all; and what a filter knows."""
        yield from super().banners()
        if self.page is not None and self.page.query.names is not None:
            yield f"{len(self.page.query.names.names):,} NAMES KNOWN"
        if self._hosts_shown and self._hosts is not None and self._hosts.silent:
            yield "DNS DOES NOT ANSWER"

    def action_hosts(self) -> None:
        """Names of hosts, or addresses."""
        self._hosts_shown = not self._hosts_shown
        self.say("host names: asking the resolver about the addresses in view" if self._hosts_shown
                 else "addresses: the resolver is not asked any more")
        self.changed()

    def action_services(self) -> None:
        """Names of ports, or their numbers."""
        self._services_shown = not self._services_shown
        self.say("service names, from /etc/services" if self._services_shown else "port numbers")
        self.changed()

    def on_unmount(self) -> None:
        """Nobody is there to read names any more."""
        if self._hosts is not None:
            self._hosts.close()

    def _name_came(self) -> None:
        """Called from the threads that look names up."""
        self.post_message(self.NameCame())

    def on_naming_name_came(self) -> None:
        """Paint soon, with what else comes until then."""
        if not self._gathering:
            self._gathering = True
            self.set_timer(GATHER_S, self._paint_names)

    def _paint_names(self) -> None:
        self._gathering = False
        self.changed()
