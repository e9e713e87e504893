"""Samplers of exporters, and the sampling interval of each Flow Record.

Options about sampling apply to the Observation Domain and session they came in, and to others of the same exporter
that have none of their own: many exporters send Options with another Source ID or from another port than flows.
Sessions over TCP and TLS are not joined (RFC 7011 section 8.1); those over UDP are, by address.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.intervals import Intervals, intervals_of, numbers
from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.shares import Shares
from flowtop.model.kinds import Direction
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import Template

MAX_SAMPLERS = 16_384
"""Limit of samplers per exporter's address: some routers announce one per interface."""
MAX_ALL_SAMPLERS = 65_536
"""Limit of samplers over all exporters; the least recently announced go."""
_MAX_SEQUENCE = 16
"""Limit of selectors in a Selection Sequence."""

Selector = tuple[str, int] | None
"""The flows that a sampler is for: an element and its value; None: all of the domain."""

_SAMPLER, _SEQUENCE, _TEMPLATE = "selectorId", "selectionSequenceId", "templateId"
_INTO, _OUT = "ingressInterface", "egressInterface"
_ALIASES = {"samplerId": _SAMPLER}
"""selectorId has replaced samplerId in the registry: some exporters announce one and have the other in flows."""
_SELECTORS = ("samplerId", _SAMPLER, _SEQUENCE, _TEMPLATE, _INTO, _OUT, "lineCardId")
"""Elements that select the sampler of a record, the most specific first."""
_IDS = ("samplerId", _SAMPLER, _SEQUENCE)
"""Elements that say that a flow was sampled, unless they are 0."""


class Announcement(IntEnum):
    """What a record of Options Data was for the samplers of its domain."""

    NOTHING = 0
    KNOWN = 1
    NEW = 2
    CHANGED = 3


class Samplers:
    """Samplers that one Observation Domain has announced in one session."""

    def __init__(self) -> None:
        self._intervals: dict[Selector, float] = {}
        self._sequences: dict[int, tuple[int, ...]] = {}
        self._table: SamplerTable | None = None

    def __len__(self) -> int:
        return len(self._intervals) + len(self._sequences)

    def announce(self, values: Mapping[str, Any], interval: float | None,
                 before_change: Callable[[], None]) -> tuple[Announcement, Selector | int]:
        """Store what a record of Options Data says about sampling.

        Args:
            values: of the record, by element name; integers as int.
            interval: in the record, see intervals_of; None if there is no element of sampling in it.
            before_change: called before an earlier announcement is replaced.

        Returns:
            What it was, and of which sampler: its selector, or the number of its Selection Sequence.
        """
        if interval is None:
            return self._announce_sequence(values, before_change)
        selector = _selector(values)
        before = self._intervals.get(selector)
        if before is not None:
            # An algorithm that comes without its parameters doesn't take back those that came apart from it.
            if before == interval or np.isnan(interval):
                return Announcement.KNOWN, selector
            before_change()
        self._intervals[selector] = interval
        self._table = None
        return Announcement.NEW if before is None else Announcement.CHANGED, selector

    def remove(self, which: Selector | int) -> None:
        """Remove a sampler: by its selector, or by the number of its Selection Sequence."""
        if isinstance(which, int):
            del self._sequences[which]
        else:
            del self._intervals[which]
        self._table = None

    @property
    def all(self) -> list[Selector | int]:
        """Every sampler, as for `remove`."""
        return [*self._intervals, *self._sequences]

    def _announce_sequence(self, values: Mapping[str, Any],
                           before_change: Callable[[], None]) -> tuple[Announcement, Selector | int]:
        """Store a Selection Sequence Report (RFC 5476 section 6.5.1): the selectors that packets passed in turn."""
        sequence = values.get(_SEQUENCE)
        selectors = tuple(value for name, value in values.items() if name.partition("#")[0] == _SAMPLER)
        if not isinstance(sequence, int) or not selectors:
            return Announcement.NOTHING, None
        if len(selectors) > _MAX_SEQUENCE:
            selectors = (-1,)  # nobody's selector: the interval is not known
        before = self._sequences.get(sequence)
        if before == selectors:
            return Announcement.KNOWN, sequence
        if before is not None:
            before_change()
        self._sequences[sequence] = selectors
        self._table = None
        return Announcement.NEW if before is None else Announcement.CHANGED, sequence

    def table(self) -> SamplerTable:
        """All samplers; the interval of a Selection Sequence is the product of its selectors' intervals."""
        if self._table is None:
            intervals = dict(self._intervals)
            for sequence, selectors in self._sequences.items():
                product = np.prod([self._intervals.get((_SAMPLER, id_), np.nan) or 1.0 for id_ in selectors])
                intervals.setdefault((_SEQUENCE, sequence), float(product))
            self._table = SamplerTable.of(intervals)
        return self._table


def _selector(values: Mapping[str, Any]) -> Selector:
    """What the sampler in a record of Options Data is for. Interface 0 is not an interface."""
    for name in _SELECTORS:
        value = values.get(name)
        if isinstance(value, int) and (value or name not in (_INTO, _OUT)):
            return _ALIASES.get(name, name), value
    return None


@dataclass(frozen=True, slots=True)
class SamplerTable:
    """Intervals by selector; NaN where it is not known, also because announcements contradict each other.

    Attributes:
        intervals: of each selector.
        common: by the selector's element, the interval that all its values have; NaN if they differ.
    """

    intervals: Mapping[Selector, float]
    common: Mapping[str, float]

    @classmethod
    def of(cls, intervals: Mapping[Selector, float]) -> SamplerTable:
        """The table of these intervals."""
        common: dict[str, float] = {}
        for selector, interval in intervals.items():
            if selector is not None:
                common[selector[0]] = _agreed(common.get(selector[0], interval), interval)
        return cls(intervals, common)

    def default(self, template: int, columns: frozenset[str]) -> float | None:
        """The interval of flows that no selector in them is for; None if there is none.

        Where flows do not have the element that selects a sampler, the only sampler is for all of them.

        Args:
            template: id of the flows' Template.
            columns: elements in the flows, by the names of the table.
        """
        for selector in ((_TEMPLATE, template), None):
            if selector in self.intervals:
                return self.intervals[selector]
        different = {interval for name, interval in self.common.items() if name not in columns and name != _TEMPLATE}
        if not different:
            return None
        return different.pop() if len(different) == 1 else np.nan


def _agreed(one: float, other: float) -> float:
    return one if one == other else np.nan


def _of_domains(tables: Mapping[int, SamplerTable]) -> SamplerTable:
    """One table of several domains: domain 0 is about the whole exporter; the others have to agree."""
    merged: dict[Selector, float] = {}
    for domain, table in tables.items():
        for selector, interval in table.intervals.items() if domain else ():
            merged[selector] = _agreed(merged.get(selector, interval), interval)
    if 0 in tables:
        merged.update(tables[0].intervals)
    return SamplerTable.of(merged)


# ---- all exporters

class Origin(NamedTuple):
    """Where a sampler was announced: in another Observation Domain, from another source port."""

    other_domain: bool
    other_port: bool


@dataclass(slots=True)
class _Exporter:
    """Samplers of the sessions that are joined.

    Attributes:
        domains: by domain and session, the session with the latest change last.
        sessions: the same by session and domain.
        number: of samplers.
        merged: tables of a session (True, key) and of a domain in all sessions (False, domain), and of all (None), made
            when they are first used after a change.
    """

    domains: dict[int, dict[Hashable, Samplers]] = field(default_factory=dict)
    sessions: dict[Hashable, dict[int, Samplers]] = field(default_factory=dict)
    number: int = 0
    merged: dict[tuple[bool, Hashable] | None, SamplerTable] = field(default_factory=dict)

    def of_session(self, session: Hashable) -> SamplerTable:
        return self._cached((True, session), lambda: _of_domains(
            {domain: samplers.table() for domain, samplers in self.sessions.get(session, {}).items()}))

    def of_domain(self, domain: int) -> SamplerTable:
        """The latest announcement of a sampler wins: an exporter may have another port after a restart."""
        return self._cached((False, domain), lambda: SamplerTable.of(
            {selector: interval for samplers in self.domains.get(domain, {}).values()
             for selector, interval in samplers.table().intervals.items()}))

    def of_all(self) -> SamplerTable:
        return self._cached(None, lambda: _of_domains({domain: self.of_domain(domain) for domain in self.domains}))

    def _cached(self, key: tuple[bool, Hashable] | None, make: Callable[[], SamplerTable]) -> SamplerTable:
        table = self.merged.get(key)
        if table is None:
            table = self.merged[key] = make()
        return table


_Place = tuple[Hashable, Hashable, int, Selector | int]
"""Session.group, session, Observation Domain, sampler."""


class SamplerDirectory:
    """Samplers of all exporters, in bounded memory.

    Attributes:
        shares: which of them are kept.
    """

    def __init__(self) -> None:
        self.shares: Shares[_Place] = Shares(MAX_ALL_SAMPLERS, MAX_SAMPLERS)
        self._exporters: dict[Hashable, _Exporter] = {}

    def has(self, session: Session) -> bool:
        """Whether a session has announced samplers."""
        exporter = self._exporters.get(session.group)
        return exporter is not None and session.key in exporter.sessions

    def number(self, session: Session) -> int:
        """Number of samplers of the sessions that are joined with a session."""
        exporter = self._exporters.get(session.group)
        return exporter.number if exporter else 0

    def announce(self, session: Session, domain: int, values: Mapping[str, Any], interval: float | None,
                 before_change: Callable[[], None]) -> Announcement:
        """Store what a record of Options Data says about sampling; see Samplers.announce."""
        group = session.group
        exporter = self._exporters.get(group) or _Exporter()
        samplers = exporter.sessions.get(session.key, {}).get(domain) or Samplers()
        result, which = samplers.announce(values, interval, before_change)
        place = group, session.key, domain, which
        if result in (Announcement.KNOWN, Announcement.CHANGED):
            self.shares.use(place)
        if result in (Announcement.NEW, Announcement.CHANGED):
            exporter.number += result == Announcement.NEW
            self._exporters[group] = exporter
            exporter.sessions.setdefault(session.key, {})[domain] = samplers
            of_domain = exporter.domains.setdefault(domain, {})
            of_domain.pop(session.key, None)
            of_domain[session.key] = samplers
            exporter.merged.clear()
        gone = self.shares.add(place, session.exporter) if result == Announcement.NEW else None
        if gone is not None:
            self._remove(*gone)
        return result

    def _remove(self, group: Hashable, session: Hashable, domain: int, which: Selector | int) -> None:
        exporter = self._exporters[group]
        samplers = exporter.sessions[session][domain]
        samplers.remove(which)
        exporter.number -= 1
        exporter.merged.clear()
        if samplers:
            return
        del exporter.sessions[session][domain], exporter.domains[domain][session]
        if not exporter.domains[domain]:
            del exporter.domains[domain]
        if not exporter.sessions[session]:
            del exporter.sessions[session]
        if not exporter.sessions:
            del self._exporters[group]

    def forget(self, session: Session) -> None:
        """Remove the samplers of a session."""
        group = session.group
        exporter = self._exporters.get(group)
        for domain, samplers in list(exporter.sessions.get(session.key, {}).items()) if exporter else ():
            for which in samplers.all:
                self.shares.remove((group, session.key, domain, which))
                self._remove(group, session.key, domain, which)

    def tables(self, session: Session, domain: int) -> Iterator[tuple[Origin, SamplerTable]]:
        """Samplers for flows of a domain of a session, in the order in which they are asked."""
        exporter = self._exporters.get(session.group)
        if exporter is None:
            return
        samplers = exporter.sessions.get(session.key, {}).get(domain)
        if samplers is not None:
            yield Origin(other_domain=False, other_port=False), samplers.table()
            if len(samplers) == exporter.number:
                return
        yield Origin(other_domain=True, other_port=False), exporter.of_session(session.key)
        if session.datagram:
            yield Origin(other_domain=False, other_port=True), exporter.of_domain(domain)
            yield Origin(other_domain=True, other_port=True), exporter.of_all()


# ---- the interval of each record

class Header(NamedTuple):
    """Sampling in the message header of NetFlow 5.

    Attributes:
        interval: 0 if not reported.
        sampled: the header says that packets were sampled, even if it has no interval.
    """

    interval: int = 0
    sampled: bool = False


NO_HEADER = Header()


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling of some records.

    Attributes:
        intervals: of each record, shape (n,), at least 1; None if no record was sampled.
        unknown: number of records that were sampled with an interval that is not known.
        other_domain, other_port: number of records whose sampler another domain or source port has announced.
    """

    intervals: Intervals | None
    unknown: int
    other_domain: int
    other_port: int


_UNSET = -1.0


def sampling_of_headers(headers: Sequence[tuple[Header, float]], which: npt.NDArray[np.intp]) -> Sampling:
    """The sampling of records of NetFlow versions without Options, which have only their message's header.

    Args:
        headers: of messages, and the interval where they report none; 0: no sampling.
        which: index of these for each record, shape (n,).
    """
    reported = np.array([header.interval for header, _ in headers], np.float64)
    sampled = np.array([header.sampled for header, _ in headers], np.bool_)
    otherwise = np.array([sampling for _, sampling in headers], np.float64)
    missing = (reported == 0) & (otherwise == 0)
    intervals = np.maximum(np.where(reported > 0, reported, otherwise), 1)
    return Sampling(intervals[which] if (intervals > 1).any() else None,
                    int(np.count_nonzero((missing & sampled)[which])), 0, 0)


def sampling_of(template: Template, records: Records, tables: Iterable[tuple[Origin, SamplerTable]],
                otherwise: float) -> Sampling:
    """The sampling of records of one Template. What the records themselves say goes before what was announced.

    Args:
        template: of the records, announced by an exporter.
        records: shape (n,).
        tables: samplers that may apply, the nearest first.
        otherwise: interval where the exporter reports none; 0: no sampling.
    """
    selectors = _Selectors(records)
    intervals = np.full(len(records), _UNSET)
    sampled = np.zeros(len(records), np.bool_)
    own = intervals_of(records)
    if own is not None:
        intervals = np.where(own > 0, own, intervals)
        sampled |= np.isnan(own)
    joined = [0, 0]
    for origin, table in tables:
        missing = intervals == _UNSET
        if not missing.any():
            break
        found = _look_up(table, template.id, selectors)
        sampled |= missing & np.isnan(found)
        missing &= found >= 0
        intervals = np.where(missing, found, intervals)
        for place, other in enumerate(origin):
            joined[place] += int(missing.sum()) if other else 0
    missing = intervals == _UNSET
    if otherwise:
        intervals = np.where(intervals <= 0, otherwise, intervals)
        missing[:] = False
    elif missing.any():
        for name in selectors.names.intersection(_IDS):
            sampled |= numbers(records[name]) > 0
    return Sampling(np.maximum(intervals, 1) if (intervals > 1).any() else None, int((missing & sampled).sum()),
                    *joined)


class _Selectors:
    """Columns of records that may select a sampler.

    Attributes:
        names: elements in the records.
        elements: the same by the names of a SamplerTable.
    """

    def __init__(self, records: Records) -> None:
        self.names = frozenset(records.dtype.names or ())
        self.elements = frozenset(_ALIASES.get(name, name) for name in self.names) | (
            {_INTO} if _OUT in self.names else set())
        self.count = len(records)
        self._records = records
        self._different: dict[str, tuple[list[int], npt.NDArray[np.intp]]] = {}

    def different(self, name: str) -> tuple[list[int], npt.NDArray[np.intp]]:
        """The different values of an element, and for each record which of them it has."""
        if name not in self._different:
            different, inverse = np.unique(numbers(self._records[name]), return_inverse=True)
            self._different[name] = different.tolist(), inverse
        return self._different[name]

    @property
    def egress(self) -> npt.NDArray[np.bool_]:
        """Whether the Observation Point is where the flow leaves, shape (n,)."""
        if "flowDirection" in self.names:
            egress: npt.NDArray[np.bool_] = numbers(self._records["flowDirection"]) == np.uint64(Direction.EGRESS)
            return egress
        return np.full(self.count, _INTO not in self.names)


def _look_up(table: SamplerTable, template: int, selectors: _Selectors) -> Intervals:
    """Intervals by a table, shape (n,); _UNSET where it has none."""
    default = table.default(template, selectors.elements)
    intervals = np.full(selectors.count, _UNSET if default is None else default)
    for name in reversed(_SELECTORS):
        element = _ALIASES.get(name, name)
        if element not in table.common:
            continue
        if name in selectors.names:
            known = _known(table, element, *selectors.different(name))
            intervals = np.where(known == _UNSET, intervals, known)
        if name == _INTO and _OUT in selectors.names:
            # The interface of a sampler is the Observation Point: at egress, where the flow leaves.
            known = _known(table, _INTO, *selectors.different(_OUT))
            intervals = np.where((known == _UNSET) | ~selectors.egress, intervals, known)
    return intervals


def _known(table: SamplerTable, element: str, different: list[int], inverse: npt.NDArray[np.intp]) -> Intervals:
    """The interval of each record by one of its selectors; _UNSET where the table has none."""
    known: Intervals = np.array([table.intervals.get((element, value), _UNSET) for value in different])[inverse]
    return known
