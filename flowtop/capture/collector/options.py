"""What exporters announce in Options Data, and flows need: samplers, boot times, who began biflows, tables of names."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from flowtop.capture.collector.announced import AnnouncedValues
from flowtop.capture.collector.intervals import QUANTITIES, intervals_of
from flowtop.capture.collector.names import NAME_ELEMENTS, TABLES, Names
from flowtop.capture.collector.sampling import Announcement, SamplerDirectory
from flowtop.capture.collector.sessions import CLOCK_DRIFT_MS, Session
from flowtop.model.kinds import IpVersion
from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix_template import FieldSpecifier

MAX_RECORDS = 4_096
"""Limit of records that are read from one set."""
_MAX_CHANGES = 16
_MAX_CHANGE_COST = 65_536
"""Limits of changes of sampling between two drains that leave earlier flows as they are: their number, and the samplers
that have to be looked through again for them."""
_DOMAIN = "observationDomainId"
_INTEGERS = ("unsigned", "signed", "dateTime")


class Announcements:
    """What all exporters have announced, in bounded memory.

    Args:
        counts: counters of CollectingStatistics, which are added to.

    Attributes:
        samplers: of flows.
        boots: systemInitTimeMilliseconds, by Observation Domain.
        initiators: biflowDirection of records that do not have it, by Observation Domain.
        names: of interfaces, applications, VRFs and samplers.
        changes: changes of sampling since the last `begin`.
        news: records that had something new; the owner sets it to 0.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.samplers = SamplerDirectory()
        self.boots = AnnouncedValues(CLOCK_DRIFT_MS)
        self.initiators = AnnouncedValues()
        self.names = Names()
        self.changes = self._change_cost = 0
        self.news = 0
        self._counts = counts

    def begin(self) -> None:
        """Begin to count changes anew: all flows were drained."""
        self.changes = self._change_cost = 0

    def read(self, session: Session, domain: int, data_set: DataSet, before_change: Callable[[], None]) -> None:
        """Read one set of Options Data.

        Args:
            domain: Observation Domain of the message.
            before_change: called before a sampler changes, as flows that were received before keep the interval that
                they were sampled with.
        """
        template = data_set.template
        records = data_set.records[:MAX_RECORDS]
        self._counts["options_records"] += data_set.count
        self._counts["dropped_options"] += data_set.count - len(records)
        intervals = intervals_of(records)
        quantities, named = (not elements.isdisjoint(template.names) for elements in (QUANTITIES, NAME_ELEMENTS))
        samplers = intervals is not None or "selectionSequenceId" in template.names
        for number, row in enumerate(records.tolist()):
            values = {name: _number_or_octets(value, specifier)
                      for (name, specifier), value in zip(template.named_fields, row, strict=True)}
            about = values.get(_DOMAIN) if _DOMAIN in template.names[:template.scope_count] else 0
            about = about if isinstance(about, int) and about else domain
            if samplers:
                interval = None if intervals is None else float(intervals[number])
                self._announce(session, about, values, interval if interval or quantities else None, before_change)
            for announced, name in ((self.initiators, "biflowDirection"), (self.boots, "systemInitTimeMilliseconds")):
                value = values.get(name)
                if isinstance(value, int):
                    self.news += announced.announce(session, about, value & 0x7FFF_FFFF_FFFF)
            if named:
                place = session.exporter, about
                places = dict.fromkeys(TABLES, place) | {"interface": _original(values, *place)}
                self.news += self.names.learn(places, values)

    def _announce(self, session: Session, domain: int, values: dict[str, Any], interval: float | None,
                  before_change: Callable[[], None]) -> None:
        """Store a sampler."""
        def before() -> None:
            self.changes += 1
            self._change_cost += self.samplers.number(session)
            if self.changes <= _MAX_CHANGES and self._change_cost <= _MAX_CHANGE_COST:
                before_change()

        self.news += self.samplers.announce(session, domain, values, interval, before) in (
            Announcement.NEW, Announcement.CHANGED)

    @property
    def evicted(self) -> int:
        """Number of samplers, values and names that were removed because there were too many."""
        return (self.samplers.shares.evicted + self.boots.shares.evicted + self.initiators.shares.evicted
                + self.names.evicted)

    def has(self, session: Session) -> bool:
        """Whether a session has announced what ends with it."""
        return any(part.has(session) for part in (self.samplers, self.boots, self.initiators))

    def forget(self, session: Session) -> None:
        """Remove what ends with a session. Names stay."""
        for part in (self.samplers, self.boots, self.initiators):
            part.forget(session)


def _number_or_octets(value: Any, specifier: FieldSpecifier) -> Any:
    """A value of Options Data; integers as int, even if the length differs from the type's (samplerId of 2 octets)."""
    if isinstance(value, bytes) and specifier.format[0] == "V" and specifier.length <= 8:
        type_ = specifier.element.type if specifier.element else ""
        return int.from_bytes(value, "big") if type_.startswith(_INTEGERS) else value
    return value


def _original(values: Mapping[str, Any], exporter: str, domain: int) -> tuple[str, int]:
    """Exporter and Observation Domain that a record of Options Data from a mediator is about (RFC 7119)."""
    for version in IpVersion:
        address, number = values.get(f"originalExporterIPv{version}Address"), values.get("originalObservationDomainId")
        if isinstance(address, bytes) and len(address) in (4, 16) and any(address) and isinstance(number, int):
            return str(ipaddress.ip_address(address)), number
    return exporter, domain
