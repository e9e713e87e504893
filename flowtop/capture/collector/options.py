"""What exporters announce in Options Data, and flows need: samplers, boot times, who began biflows, tables of names."""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flowtop.capture.collector.announced import AnnouncedValues
from flowtop.capture.collector.intervals import QUANTITIES, has_parameters, interval_of, intervals_of
from flowtop.capture.collector.names import Names, Table, tables_of
from flowtop.capture.collector.sampling import Announcement, SamplerDirectory
from flowtop.capture.collector.sessions import CLOCK_DRIFT_MS, Session
from flowtop.model.kinds import IpVersion
from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix_template import FieldSpecifier, Template

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
        plan = _plan_of(data_set.template)
        self._counts["options_records"] += data_set.count
        self._counts["dropped_options"] += max(data_set.count - MAX_RECORDS, 0)
        intervals = None
        for number, values in enumerate(islice(plan.values(data_set), MAX_RECORDS)):
            about = values.get(_DOMAIN) if plan.domain else 0
            about = about if isinstance(about, int) and about else domain
            if plan.samplers:
                interval = None
                if plan.parameters and (interval := interval_of(values)) is None:
                    intervals = intervals_of(data_set.records) if intervals is None else intervals
                    interval = None if intervals is None else float(intervals[number])
                self._announce(session, about, values, interval if interval or plan.quantities else None, before_change)
            for announced, name in ((self.initiators, "biflowDirection"), (self.boots, "systemInitTimeMilliseconds")):
                value = values.get(name)
                if isinstance(value, int):
                    self.news += announced.announce(session, about, value & 0x7FFF_FFFF_FFFF)
            if plan.tables:
                place = session.exporter, about
                interfaces = _original(values, *place) if plan.relayed else place
                self.news += self.names.learn(plan.tables, place, interfaces, values)

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


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be read of the records of an Options Template.

    Attributes:
        parameters, quantities: there are elements of sampling, and of its intervals.
        samplers: records may be about samplers.
        domain: the scope has the Observation Domain.
        tables: which names are announced.
        relayed: the original exporter of what is announced may be in them.
    """

    template: Template
    parameters: bool
    quantities: bool
    samplers: bool
    domain: bool
    tables: tuple[Table, ...]
    relayed: bool
    _layout: struct.Struct | None
    _readings: tuple[Callable[[bytes], Any] | None, ...]

    @classmethod
    def of(cls, template: Template) -> _Plan:
        """The plan for an Options Template."""
        names = frozenset(template.names)
        parameters = has_parameters(names)
        readings: list[Callable[[bytes], Any] | None] = []
        codes = []
        for _, specifier in template.named_fields if template.fixed_length else ():
            code, reading = _reading_of(specifier)
            codes.append(code)
            readings.append(reading)
        return cls(template, parameters, not QUANTITIES.isdisjoint(names),
                   parameters or "selectionSequenceId" in names, _DOMAIN in template.names[:template.scope_count],
                   tables_of(names), any(name.startswith("originalExporter") for name in names),
                   struct.Struct(">" + "".join(codes)) if template.fixed_length else None, tuple(readings))

    def values(self, data_set: DataSet) -> Iterator[dict[str, Any]]:
        """The values of each record by name, integers as int."""
        fields = self.template.named_fields
        if self._layout is None or "records" in data_set.__dict__:
            for row in data_set.records.tolist():
                yield {name: _number_or_octets(value, specifier)
                       for (name, specifier), value in zip(fields, row, strict=True)}
            return
        for row in self._layout.iter_unpack(data_set.octets):
            yield {name: value if reading is None else reading(value)
                   for (name, _), reading, value in zip(fields, self._readings, row, strict=True)}


def _plan_of(template: Template) -> _Plan:
    plan: _Plan | None = template.__dict__.get("_plan")
    if plan is None:
        plan = template.__dict__["_plan"] = _Plan.of(template)
    return plan


_CODES = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f4": "f", "f8": "d"}


def _reading_of(specifier: FieldSpecifier) -> tuple[str, Callable[[bytes], Any] | None]:
    """How `struct` reads a value of fixed length, and what is to be done with that: for the same as in DataSet.records
    by `_number_or_octets`."""
    kind, length = specifier.format[0], specifier.length
    code = _CODES.get(f"{kind}{length}")
    if code is not None:
        return code, None
    octets = f"{length}s"
    if kind in "ui":
        return octets, _signed if kind == "i" else _unsigned
    if kind == "S":
        return octets, _without_zeros
    return octets, lambda value: _number_or_octets(value, specifier)


def _unsigned(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _signed(octets: bytes) -> int:
    return int.from_bytes(octets, "big", signed=True)


def _without_zeros(octets: bytes) -> bytes:
    return octets.rstrip(b"\0")


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
