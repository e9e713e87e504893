"""Templates known to the collector (RFC 7011 section 8), by Transport Session, Observation Domain and id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

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
_MAX_FORMER, _MAX_ALL_FORMER = 4_096, 65_536
"""Limits of Templates that are gone and still known, per session and in all."""
_MOST_FIELDS, _ANY_NUMBER = 1_024, 65_535
"""Limit of fields of one Template where Templates are removed for others: no datagram on an Ethernet has as many."""
_MAX_RECORDS, _MAX_RECORD_FIELDS = 512, 256
"""Limits of Template Records that are decoded once for all sessions, and of the fields of each."""


def layout_of(template: Template) -> int:
    """A number that Templates with the same fields have in common."""
    return hash((template.fields, template.scope_count)) or 1


_NOTHING = Described()
_OVERHEAD = 16
"""What a Template takes beside its Field Specifiers, in the memory of one of them."""


class DomainTemplates:
    """Templates of one Transport Session and Observation Domain, by id: Data Templates and Options Templates.

    Attributes:
        lent: something decoded refers to them, so that they must not change any more.
    """

    __slots__ = ("data", "lent", "options")

    def __init__(self, data: dict[int, Template], options: dict[int, Template]) -> None:
        self.data = data
        self.options = options
        self.lent = False

    def get(self, template_id: int) -> Template | None:
        """The Template of that id, of either kind, or None."""
        return self.data.get(template_id) or self.options.get(template_id)

    def described(self, elements: Mapping[tuple[int, int], Element]) -> DomainTemplates:
        """The same Templates with descriptions of enterprises' elements."""
        return DomainTemplates({id_: with_descriptions(template, elements) for id_, template in self.data.items()},
                               {id_: with_descriptions(template, elements) for id_, template in self.options.items()})


_NONE = DomainTemplates({}, {})
_NONE.lent = True


class ChangedTemplates:
    """Templates of an Observation Domain with the changes of a message; the store takes these if it is valid.

    Attributes:
        changes: Templates that are new or different, by id; None: there is none any more.
    """

    __slots__ = ("_base", "_cleared", "_defined", "changes")

    def __init__(self, base: DomainTemplates) -> None:
        self.changes: dict[int, Template | None] = {}
        self._base = base
        self._cleared = [False, False]
        self._defined: tuple[dict[int, None], dict[int, None]] = {}, {}

    def get(self, template_id: int) -> Template | None:
        """As DomainTemplates.get."""
        if template_id in self.changes:
            return self.changes[template_id]
        return self._base.get(template_id)

    def lend(self) -> None:
        """Something decoded refers to these."""
        self._base.lent = True

    def define(self, template: Template) -> None:
        """Add a Template in place of any with its id."""
        self.forget(template.id)
        self.changes[template.id] = template
        self._defined[template.scope_count > 0][template.id] = None

    def forget(self, template_id: int) -> None:
        """Remove a Template."""
        for defined in self._defined:
            defined.pop(template_id, None)
        self.changes[template_id] = None

    def take_all(self, options: bool) -> list[int]:
        """Ids of all (Options) Templates, which are to be forgotten."""
        base = () if self._cleared[options] else self._base.options if options else self._base.data
        self._cleared[options] = True
        return [id_ for id_ in base if id_ not in self.changes] + list(self._defined[options])


class _Session:
    """Templates of one Transport Session.

    Attributes:
        order: Observation Domain and id of each, the least recently used first.
        fields: number of Field Specifiers.
    """

    __slots__ = ("domains", "fields", "order")

    def __init__(self) -> None:
        self.domains: dict[int, DomainTemplates] = {}
        self.order: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.fields = 0

    @property
    def weight(self) -> int:
        return self.fields + _OVERHEAD * len(self.order)


class TemplateStore:
    """Templates received, by Transport Session and Observation Domain. Not thread-safe.

    Args:
        max_fields: limit of Field Specifiers of one session over all domains; a message that exceeds it is refused.
        max_templates: limit of Templates of one session. With it, the least recently used Templates are removed where
            there are too many of them or of their fields; None: no limit, and messages are refused.

    Attributes:
        evicted: session, Observation Domain and id of Templates that were removed so; the owner clears it.
        changed: number of Templates that were new or different; the owner sets it to 0.
        closed: messages that are not decoded strictly announce nothing: their Template Sets are skipped.
    """

    def __init__(self, max_fields: int = 32_768, max_templates: int | None = None) -> None:
        self.evicted: list[tuple[Hashable, int, int]] = []
        self.changed = 0
        self.closed = False
        self._max_fields = max_fields
        self._max_templates = max_templates
        self._sessions: dict[Hashable, _Session] = {}
        self._former: dict[Hashable, dict[tuple[int, int], int]] = {}
        self._formers = 0
        self._described: dict[Hashable, Described] = {}
        self._weight = 0
        self._records: dict[tuple[str, bytes], Template] = {}

    def get(self, session: Hashable, domain: int, template_id: int) -> Template | None:
        """The Template, or None."""
        return self.domain(session, domain).get(template_id)

    def domain(self, session: Hashable, domain: int) -> DomainTemplates:
        """All Templates of an Observation Domain; must not be modified."""
        mine = self._sessions.get(session)
        return (mine and mine.domains.get(domain)) or _NONE

    def change(self, session: Hashable, domain: int, changes: Mapping[int, Template | None]) -> None:
        """Apply the changes of a message, see ChangedTemplates.

        Raises IpfixDecodeError: more than max_fields; nothing has changed.
        """
        mine = self._sessions.get(session) or _Session()
        known = mine.domains.get(domain) or DomainTemplates({}, {})
        added, fields = 0, mine.fields
        for id_, template in changes.items():
            old = known.get(id_)
            if old is not None:
                fields -= len(old.fields)
            if template is not None:
                added += len(template.fields)
        fields += added
        if added > self._max_fields or (self._max_templates is None and fields > self._max_fields):
            raise IpfixDecodeError(f"templates of more than {self._max_fields} fields in one session", 0, "bound")
        self._sessions[session] = mine
        self.changed += len(changes)
        before = mine.weight
        if known.lent:
            known = DomainTemplates(dict(known.data), dict(known.options))
        mine.domains[domain] = known
        for id_, template in changes.items():
            known.data.pop(id_, None)
            known.options.pop(id_, None)
            mine.order.pop((domain, id_), None)
            if template is not None:
                (known.options if template.scope_count else known.data)[id_] = template
                mine.order[domain, id_] = None
        mine.fields = fields
        self._drop_empty(session, mine, domain)
        self._weight += mine.weight - before
        while self._max_templates is not None and (
                len(mine.order) > self._max_templates or mine.fields > self._max_fields):
            self.evict(session)

    def use(self, session: Hashable, domain: int, template_id: int) -> None:
        """Mark a Template as most recently used."""
        mine = self._sessions.get(session)
        if mine is not None and (domain, template_id) in mine.order:
            mine.order.move_to_end((domain, template_id))

    def evict(self, session: Hashable) -> bool:
        """Remove the least recently used Template of a session; returns whether there was one."""
        mine = self._sessions.get(session)
        if mine is None or not mine.order:
            return False
        domain, template_id = next(iter(mine.order))
        self._remove(session, domain, template_id)
        self.evicted.append((session, domain, template_id))
        return True

    def _remove(self, session: Hashable, domain: int, template_id: int) -> Template | None:
        mine = self._sessions.get(session)
        known = mine.domains.get(domain) if mine else None
        gone = known.get(template_id) if known else None
        if mine is None or known is None or gone is None:
            return None
        before = mine.weight
        if known.lent:
            known = mine.domains[domain] = DomainTemplates(dict(known.data), dict(known.options))
        known.data.pop(template_id, None)
        known.options.pop(template_id, None)
        mine.order.pop((domain, template_id), None)
        mine.fields -= len(gone.fields)
        self._drop_empty(session, mine, domain)
        self._weight += mine.weight - before
        return gone

    def _drop_empty(self, session: Hashable, mine: _Session, domain: int) -> None:
        known = mine.domains[domain]
        if not known.data and not known.options:
            del mine.domains[domain]
            if not mine.domains:
                self._sessions.pop(session, None)

    @property
    def most_fields(self) -> int:
        """Limit of Field Specifiers of one Template."""
        return _ANY_NUMBER if self._max_templates is None else _MOST_FIELDS

    def record(self, kind: str, octets: bytes, make: Callable[[], Template]) -> Template:
        """The Template of a Template Record, one object for all sessions that announce the same octets.

        Args:
            kind: what the octets mean: the protocol, and whether they are of an Options Template.
            make: decodes them.
        """
        key = kind, octets
        template = self._records.get(key)
        if template is None:
            while len(self._records) >= _MAX_RECORDS:
                del self._records[next(iter(self._records))]
            template = make()
            if len(template.fields) <= _MAX_RECORD_FIELDS:
                self._records[key] = template
        return template

    def former(self, session: Hashable) -> Mapping[tuple[int, int], int]:
        """Layouts of Templates of a session that are gone, by Observation Domain and id.

        They were withdrawn, have expired, or were replaced by one that could not be read (UNREADABLE). Data Sets that
        wait for such an id are of that Template.
        """
        return self._former.get(session, {})

    def note_former(self, session: Hashable, domain: int, layouts: Mapping[int, int | None]) -> None:
        """Remember Templates that are gone by their layouts; None: the id has a Template again."""
        former = self._former.setdefault(session, {})
        before = len(former)
        for template_id, layout in layouts.items():
            former.pop((domain, template_id), None)
            if layout is not None:
                former[domain, template_id] = layout
        self._formers += len(former) - before
        most = _MAX_FORMER if self._formers <= _MAX_ALL_FORMER else max(_MAX_ALL_FORMER // len(self._former), 1)
        while len(former) > most:
            del former[next(iter(former))]
            self._formers -= 1

    def expire(self, session: Hashable, domain: int, template_id: int) -> None:
        """Remove a Template that was not announced again within its lifetime over UDP (RFC 7011 section 8.4)."""
        gone = self._remove(session, domain, template_id)
        if gone:
            self.note_former(session, domain, {template_id: layout_of(gone)})

    @property
    def fields(self) -> int:
        """Number of Field Specifiers over all sessions."""
        return sum(mine.fields for mine in self._sessions.values())

    @property
    def weight(self) -> int:
        """The same, with what is worth as much memory: of each Template, and of what Options Data have described."""
        return self._weight

    def weight_of(self, session: Hashable) -> int:
        """The same of one session."""
        mine, described = self._sessions.get(session), self._described.get(session)
        return (mine.weight if mine else 0) + (described.fields if described else 0)

    def described(self, session: Hashable) -> Described:
        """What Options Data of a session have described; not to be modified."""
        return self._described.get(session) or _NOTHING

    def describe(self, session: Hashable, elements: Mapping[tuple[int, int], Element],
                 properties: Mapping[tuple[int, int], Properties]) -> None:
        """Learn what Options Data of a session describe."""
        if not elements and not properties:
            return
        described = self._described.setdefault(session, Described())
        before = described.fields
        changed = described.learn(elements, properties)
        self._weight += described.fields - before
        mine = self._sessions.get(session)
        if changed and mine is not None:
            for number, known in list(mine.domains.items()):
                mine.domains[number] = known.described(described.elements)

    def withdraw_properties(self, session: Hashable, domain: int, template_id: int) -> None:
        """Forget the common properties that an Options Template has defined, which is withdrawn."""
        described = self._described.get(session)
        if described is not None:
            before = described.fields
            described.withdraw(domain, template_id)
            self._weight += described.fields - before

    def complete(self, session: Hashable, domain: int, data_set: DataSet) -> tuple[list[DataSet], int]:
        """Complete Data Records that waited for their Template: see flowtop/wire/completion.py."""
        if data_set.template.plain:
            return [data_set], 0
        self.describe(session, described_elements(data_set), defined_properties(data_set, domain))
        known = self.domain(session, domain)
        known.lent = True
        return completed(data_set, known, domain, self.described(session).properties)

    def forget(self, session: Hashable) -> None:
        """Remove the Templates of a Transport Session that has ended."""
        self._weight -= self.weight_of(session)
        self._sessions.pop(session, None)
        self._formers -= len(self._former.pop(session, ()))
        self._described.pop(session, None)
