"""Templates that an exporter has announced from another source port than its flows come from.

RFC 7011 section 8.4 ties Templates over UDP to the source port. Exporters with a socket for each kind of message, or
for each of their processes, don't keep to it, so that Data Sets without a Template in their own session use one of the
same address, protocol version, Observation Domain and id.
"""

from __future__ import annotations

from collections.abc import Hashable

from flowtop.capture.collector.sessions import KnownSession
from flowtop.wire.data_set import DataSet, decode_data_set
from flowtop.wire.ipfix_template import IpfixDecodeError, Template
from flowtop.wire.template_store import TemplateStore

MAX_PORTS = 16
"""Limit of source ports per exporter, domain and id whose Templates are compared."""
SILENT_S = 60.0
"""A port that has sent nothing for so long may have been given up: a newer Template of another port wins."""
_LONGEST_PADDING = 7

Place = tuple[str, int, int, int]
"""Exporter's address, protocol version, Observation Domain, Template id."""


class SharedTemplates:
    """Finds Templates by exporter instead of session; over UDP only.

    Args:
        store: the Templates by session.
    """

    def __init__(self, store: TemplateStore) -> None:
        self._store = store
        self._ports: dict[Place, dict[Hashable, KnownSession]] = {}

    def announced(self, known: KnownSession, version: int, domain: int, id_: int, now_s: float) -> Place:
        """Note that a session has announced a Template; returns where others look for it."""
        place = known.session.exporter, version, domain, id_
        known.announced[version, domain, id_] = now_s
        ports = self._ports.setdefault(place, {})
        ports.pop(known.session.key, None)
        ports[known.session.key] = known
        if len(ports) > MAX_PORTS:
            del ports[next(iter(ports))]
        return place

    def forget(self, known: KnownSession, version: int, domain: int, id_: int) -> None:
        """Note that a session's Template has expired, or that the session has ended."""
        place = known.session.exporter, version, domain, id_
        ports = self._ports.get(place, {})
        ports.pop(known.session.key, None)
        if not ports:
            self._ports.pop(place, None)

    def find(self, place: Place, now_s: float) -> Template | None:
        """The Template there; None if there is none, or if ports that are in use announce different ones."""
        found: list[tuple[float, KnownSession, Template]] = []
        for key, known in self._ports.get(place, {}).items():
            template = self._store.get(key, place[2], place[3])
            if template is not None:
                found.append((known.announced.get(place[1:], 0.0), known, template))
        if not found:
            return None
        _, _, template = max(found, key=lambda item: item[0])
        different = [known for _, known, other in found if other != template]
        in_use = any(now_s - known.heard_s <= SILENT_S for known in different)
        return None if in_use else template


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
