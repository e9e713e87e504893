"""Templates a Collecting Process knows (RFC 7011 section 8): by Transport Session, Observation Domain and id."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from flowtop.wire.ipfix_template import IpfixDecodeError, Template


@dataclass(slots=True)
class DomainTemplates:
    """Templates of one Transport Session and Observation Domain, by id: Data Templates and Options Templates."""

    data: dict[int, Template]
    options: dict[int, Template]

    def get(self, template_id: int) -> Template | None:
        """The Template of that id, of either kind."""
        return self.data.get(template_id) or self.options.get(template_id)

    def fields(self) -> int:
        """Field Specifiers held: what the memory goes into."""
        return sum(len(template.fields) for kind in (self.data, self.options) for template in kind.values())


class TemplateStore:
    """Templates received, by Transport Session and Observation Domain. Not for several threads at once.

    Args:
        max_fields: Field Specifiers kept for one session, over all its domains; a message that brings more is refused.
    """

    def __init__(self, max_fields: int = 32_768) -> None:
        self._max_fields = max_fields
        self._sessions: dict[Hashable, dict[int, DomainTemplates]] = {}
        self._fields: dict[Hashable, int] = {}

    def get(self, session: Hashable, domain: int, template_id: int) -> Template | None:
        """The Template, None when it is not known."""
        return self.domain(session, domain).get(template_id)

    def domain(self, session: Hashable, domain: int) -> DomainTemplates:
        """Everything known of an Observation Domain: not to be changed."""
        return self._sessions.get(session, {}).get(domain) or DomainTemplates({}, {})

    def replace(self, session: Hashable, domain: int, templates: DomainTemplates) -> None:
        """Take these for all that is known of an Observation Domain. Raises IpfixDecodeError: more than max_fields."""
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
            self.forget(session)

    def expire(self, session: Hashable, domain: int, template_id: int) -> None:
        """Forget a Template that was not announced again in time: over UDP they live so long (RFC 7011 section 8.4)."""
        known = self.domain(session, domain)
        if known.get(template_id):
            self.replace(session, domain, DomainTemplates(
                {id_: template for id_, template in known.data.items() if id_ != template_id},
                {id_: template for id_, template in known.options.items() if id_ != template_id}))

    @property
    def fields(self) -> int:
        """Field Specifiers held, over all sessions."""
        return sum(self._fields.values())

    def forget(self, session: Hashable) -> None:
        """The Transport Session has ended, and its Templates with it."""
        self._sessions.pop(session, None)
        self._fields.pop(session, None)
