"""Templates that an exporter has announced from another source port than its flows come from.

RFC 7011 section 8.4 ties Templates over UDP to the source port. Exporters with a socket for each kind of message, or
for each of their processes, don't keep to it, so that Data Sets without a Template in their own session use one of the
same address, protocol version, Observation Domain and id.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from flowtop.capture.collector.sessions import KnownSession
from flowtop.wire.data_set import DataSet, decode_data_set
from flowtop.wire.ipfix_template import IpfixDecodeError, Template
from flowtop.wire.template_store import TemplateStore

MAX_PORTS = 4
"""Limit of source ports per exporter, domain and id whose Templates are compared: those that announced it last."""
SILENT_S = 60.0
"""A port that has sent nothing for so long may have been given up: a newer Template of another port wins."""
_RECHECK_S = 10.0
_LONGEST_PADDING = 7

Place = tuple[str, int, int, int]
"""Exporter's address, protocol version, Observation Domain, Template id."""


@dataclass(slots=True)
class _Ports:
    """Sessions that have announced a Template of one place, the latest last.

    Attributes:
        template: the result of the last comparison.
        of: the session that it belongs to.
        next_s: when to compare again; s since 1970 UTC.
    """

    sessions: dict[Hashable, KnownSession] = field(default_factory=dict)
    template: Template | None = None
    of: Hashable = None
    next_s: float = 0.0


class SharedTemplates:
    """Finds Templates by exporter instead of session; over UDP only.

    Args:
        store: the Templates by session.
    """

    def __init__(self, store: TemplateStore) -> None:
        self._store = store
        self._places: dict[Place, _Ports] = {}

    def announced(self, known: KnownSession, version: int, domain: int, id_: int, now_s: float) -> Place:
        """Note that a session has announced a Template; returns where others look for it."""
        place = known.session.exporter, version, domain, id_
        known.announced[domain, id_, version] = now_s
        known.announced.move_to_end((domain, id_, version))
        ports = self._places.setdefault(place, _Ports())
        ports.sessions.pop(known.session.key, None)
        ports.sessions[known.session.key] = known
        if len(ports.sessions) > MAX_PORTS:
            del ports.sessions[next(iter(ports.sessions))]
        if self._store.get(known.session.key, domain, id_) is not ports.template:
            ports.next_s = 0.0
        return place

    def forget(self, known: KnownSession, version: int, domain: int, id_: int) -> None:
        """Note that a session's Template has expired, or that the session has ended."""
        known.announced.pop((domain, id_, version), None)
        place = known.session.exporter, version, domain, id_
        ports = self._places.get(place)
        if ports is not None and ports.sessions.pop(known.session.key, None) is not None:
            ports.next_s = 0.0
            if not ports.sessions:
                del self._places[place]

    def find(self, place: Place, now_s: float) -> Template | None:
        """The Template there; None if there is none, or if ports that are in use announce different ones."""
        ports = self._places.get(place)
        if ports is None:
            return None
        known = ports.template is not None and self._store.get(ports.of, *place[2:]) is ports.template
        if not ports.next_s or (not known and now_s >= ports.next_s):
            ports.template, ports.of = self._compare(ports, place, now_s)
            ports.next_s = now_s + _RECHECK_S
            return ports.template
        return ports.template if known else None

    def _compare(self, ports: _Ports, place: Place, now_s: float) -> tuple[Template | None, Hashable]:
        """Compare the Templates of all ports, which is costly: they may have thousands of fields."""
        found = [(key, known, template) for key, known in ports.sessions.items()
                 if (template := self._store.get(key, *place[2:])) is not None]
        if not found:
            return None, None
        newest, _, template = found[-1]
        in_use = (other for _, known, other in found if now_s - known.heard_s <= SILENT_S)
        return (template, newest) if all(other == template for other in in_use) else (None, None)


def fitting(template: Template, octets: bytes) -> DataSet | None:
    """The Data Set, if its length is what the Template of another port makes it; else None."""
    if template.fixed_length:
        count, rest = divmod(len(octets), template.min_octets)
        if not count or rest > _LONGEST_PADDING or any(octets[len(octets) - rest:]):
            return None
    try:
        data_set = decode_data_set(template, octets)
    except IpfixDecodeError:
        return None
    return data_set if data_set.count else None
