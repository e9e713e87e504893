"""Templates known to the collector (RFC 7011 section 8), by Transport Session, Observation Domain and id."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from flowtop.model.elements import Element
from flowtop.wire.completion import (
    Described,
    Properties,
    completed,
    defined_properties,
    described_elements,
    with_descriptions,
)
from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix_template import IpfixDecodeError, Template

UNREADABLE = 0
"""Layout of a Template that could not be read: no other is equal to it."""
_MAX_FORMER = 4_096
"""Limit of Templates per session that are gone and still known."""


def layout_of(template: Template) -> int:
    """A number that Templates with the same fields have in common."""
    return hash((template.fields, template.scope_count)) or 1


_NOTHING = Described()


@dataclass(slots=True)
class DomainTemplates:
    """Templates of one Transport Session and Observation Domain, by id: Data Templates and Options Templates."""

    data: dict[int, Template]
    options: dict[int, Template]

    def get(self, template_id: int) -> Template | None:
        """The Template of that id, of either kind, or None."""
        return self.data.get(template_id) or self.options.get(template_id)

    def described(self, elements: Mapping[tuple[int, int], Element]) -> DomainTemplates:
        """The same Templates with descriptions of enterprises' elements."""
        return DomainTemplates({id_: with_descriptions(template, elements) for id_, template in self.data.items()},
                               {id_: with_descriptions(template, elements) for id_, template in self.options.items()})

    def fields(self) -> int:
        """Number of Field Specifiers, which bounds memory."""
        return sum(len(template.fields) for kind in (self.data, self.options) for template in kind.values())


class TemplateStore:
    """Templates received, by Transport Session and Observation Domain. Not thread-safe.

    Args:
        max_fields: limit of Field Specifiers of one session over all domains; a message that exceeds it is refused.
    """

    def __init__(self, max_fields: int = 32_768) -> None:
        self._max_fields = max_fields
        self._sessions: dict[Hashable, dict[int, DomainTemplates]] = {}
        self._fields: dict[Hashable, int] = {}
        self._former: dict[Hashable, dict[tuple[int, int], int]] = {}
        self._described: dict[Hashable, Described] = {}

    def get(self, session: Hashable, domain: int, template_id: int) -> Template | None:
        """The Template, or None."""
        return self.domain(session, domain).get(template_id)

    def domain(self, session: Hashable, domain: int) -> DomainTemplates:
        """All Templates of an Observation Domain; must not be modified."""
        return self._sessions.get(session, {}).get(domain) or DomainTemplates({}, {})

    def replace(self, session: Hashable, domain: int, templates: DomainTemplates) -> None:
        """Replace all Templates of an Observation Domain. Raises IpfixDecodeError: more than max_fields."""
        added = templates.fields()
        total = self._fields.get(session, 0) - self.domain(session, domain).fields() + added
        if total > self._max_fields:
            raise IpfixDecodeError(f"templates of more than {self._max_fields} fields in one session", 0, "bound")
        domains = self._sessions.setdefault(session, {})
        domains.pop(domain, None)
        if added:
            domains[domain] = templates
        self._fields[session] = total
        if not domains:
            self._sessions.pop(session, None)
            self._fields.pop(session, None)

    def former(self, session: Hashable) -> Mapping[tuple[int, int], int]:
        """Layouts of Templates of a session that are gone, by Observation Domain and id.

        They were withdrawn, have expired, or were replaced by one that could not be read (UNREADABLE). Data Sets that
        wait for such an id are of that Template.
        """
        return self._former.get(session, {})

    def note_former(self, session: Hashable, domain: int, layouts: Mapping[int, int | None]) -> None:
        """Remember Templates that are gone by their layouts; None: the id has a Template again."""
        former = self._former.setdefault(session, {})
        for template_id, layout in layouts.items():
            former.pop((domain, template_id), None)
            if layout is not None:
                former[domain, template_id] = layout
        while len(former) > _MAX_FORMER:
            del former[next(iter(former))]

    def expire(self, session: Hashable, domain: int, template_id: int) -> None:
        """Remove a Template that was not announced again within its lifetime over UDP (RFC 7011 section 8.4)."""
        known = self.domain(session, domain)
        gone = known.get(template_id)
        if gone:
            self.note_former(session, domain, {template_id: layout_of(gone)})
            self.replace(session, domain, DomainTemplates(
                {id_: template for id_, template in known.data.items() if id_ != template_id},
                {id_: template for id_, template in known.options.items() if id_ != template_id}))

    @property
    def fields(self) -> int:
        """Number of Field Specifiers over all sessions, and of what is worth as much memory."""
        return sum(self._fields.values()) + sum(described.fields for described in self._described.values())

    def described(self, session: Hashable) -> Described:
        """What Options Data of a session have described; not to be modified."""
        return self._described.get(session) or _NOTHING

    def describe(self, session: Hashable, elements: Mapping[tuple[int, int], Element],
                 properties: Mapping[tuple[int, int], Properties]) -> None:
        """Learn what Options Data of a session describe."""
        if not elements and not properties:
            return
        described = self._described.setdefault(session, Described())
        if described.learn(elements, properties):
            for number, known in list(self._sessions.get(session, {}).items()):
                self._sessions[session][number] = known.described(described.elements)

    def withdraw_properties(self, session: Hashable, domain: int, template_id: int) -> None:
        """Forget the common properties that an Options Template has defined, which is withdrawn."""
        if session in self._described:
            self._described[session].withdraw(domain, template_id)

    def complete(self, session: Hashable, domain: int, data_set: DataSet) -> tuple[list[DataSet], int]:
        """Complete Data Records that waited for their Template: see flowtop/wire/completion.py."""
        if data_set.template.plain:
            return [data_set], 0
        self.describe(session, described_elements(data_set), defined_properties(data_set, domain))
        return completed(data_set, self.domain(session, domain), domain, self.described(session).properties)

    def forget(self, session: Hashable) -> None:
        """Remove the Templates of a Transport Session that has ended."""
        self._sessions.pop(session, None)
        self._fields.pop(session, None)
        self._former.pop(session, None)
        self._described.pop(session, None)
