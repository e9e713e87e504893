"""Transport Sessions and their Observation Domains: what is known of exporters, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.wire.flow_records import big_endian
from flowtop.wire.ipfix import Records

MAX_SAMPLERS = 64
"""Samplers kept of one Observation Domain."""
_SELECTORS = ("samplerId", "selectorId", "selectionSequenceId", "ingressInterface", "egressInterface")
"""What a record may have in common with the Options about its sampler, the most particular first."""
_HIGHEST = 1 << 32


def announced_interval(values: Mapping[str, Any]) -> float | None:
    """One in how many packets was looked at, by one record of Options Data; None: it does not say."""
    def positive(name: str) -> float:
        value = values.get(name)
        return float(value) if isinstance(value, int | float) and 0 < value < _HIGHEST else 0.0

    interval = positive("samplingInterval") or positive("samplerRandomInterval")
    if not interval and (every := positive("samplingPacketInterval")):
        interval = (every + positive("samplingPacketSpace")) / every
    if not interval and (size := positive("samplingSize")):
        interval = positive("samplingPopulation") / size
    if not interval and (probability := positive("samplingProbability")):
        interval = 1 / probability
    return min(interval, float(_HIGHEST)) if interval >= 1 else None


class Samplers:
    """Intervals of one Observation Domain."""

    def __init__(self) -> None:
        self._intervals: dict[tuple[str, int] | None, float] = {}

    def announce(self, values: Mapping[str, Any]) -> None:
        """Take note of one record of Options Data, if it is about sampling."""
        interval = announced_interval(values)
        if interval is None:
            return
        keys: list[tuple[str, int] | None] = [(name, values[name]) for name in _SELECTORS
                                              if isinstance(values.get(name), int)]
        key = keys[0] if keys else None
        if key in self._intervals or len(self._intervals) < MAX_SAMPLERS:
            self._intervals[key] = interval

    def intervals(self, records: Records, header: int) -> npt.NDArray[np.float64] | None:
        """The interval of each record, shape (n,), at least 1; None: nothing was sampled.

        Args:
            header: what the message's header says, 0 when it does not.
        """
        names = records.dtype.names or ()
        default = float(header) if header > 1 else self._intervals.get(None, 1.0)
        found = np.full(len(records), default)
        selectors = {name for key in self._intervals if key for name in key[:1]}
        for selector in reversed(_SELECTORS):
            if selector in names and selector in selectors:
                found = self._by_selector(selector, _numbers(records[selector]), found)
        for own in ("samplerRandomInterval", "samplingInterval"):
            if own in names:
                told = _numbers(records[own])
                found = np.where((told > 0) & (told < _HIGHEST), told, found)
        return found if (found > 1).any() else None

    def _by_selector(self, selector: str, numbers: npt.NDArray[np.uint64],
                     found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        different, inverse = np.unique(numbers, return_inverse=True)
        known = np.array([self._intervals.get((selector, number), 0.0) for number in different.tolist()])[inverse]
        return np.where(known > 0, known, found)


def _numbers(column: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A column as numbers; one that is none counts as 0."""
    if column.dtype.kind == "V" and column.dtype.itemsize <= 8:
        return big_endian(column)
    if column.dtype.kind in "ui":
        return column.astype(np.uint64)
    return np.zeros(len(column), np.uint64)

_MODULUS = 1 << 32
_LARGEST_GAP = 1 << 24
"""A gap beyond this is no loss but another beginning."""
_LATEST = 1 << 16
"""So far back a message may be late; further back the exporter has started anew."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one sequence number says.

    Attributes:
        lost: units missing before this message; negative: a late one gives back what it had been counted for.
        late: it came after a later one.
        reset: the exporter started anew.
    """

    lost: int = 0
    late: bool = False
    reset: bool = False


class SequenceTracker:
    """The sequence of one Observation Domain in one Transport Session."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._export_time_s = 0
        self._boot_ms: int | None = None
        self._lost = 0

    def see(self, sequence: int, units: int | None, export_time_s: int, boot_ms: int | None) -> Verdict:
        """Take note of one message.

        Args:
            sequence: its number: units sent before it (NetFlow 9: before or including it; only steps count).
            units: how many units it is itself; None: unknown, so that the next number says nothing.
            export_time_s: of its header.
            boot_ms: when the exporter booted, where it says so.
        """
        restarted = self._restarted(export_time_s, boot_ms)
        expected = self._expected
        ahead = 0 if expected is None else (sequence - expected) % _MODULUS
        behind = -ahead % _MODULUS
        if not restarted and expected is not None and 0 < behind <= _LATEST and export_time_s <= self._export_time_s:
            back = min(units or 0, self._lost)
            self._lost -= back
            return Verdict(lost=-back, late=True)
        self._export_time_s = export_time_s
        self._boot_ms = boot_ms
        self._expected = None if units is None else (sequence + units) % _MODULUS
        if restarted or ahead > _LARGEST_GAP:
            self._lost = 0
            return Verdict(reset=True)
        self._lost += ahead
        return Verdict(lost=ahead)

    def _restarted(self, export_time_s: int, boot_ms: int | None) -> bool:
        """Whether the exporter booted since: its uptime counts from a later time, by more than clocks wander."""
        if boot_ms is None or self._boot_ms is None or export_time_s < self._export_time_s:
            return False
        return boot_ms - self._boot_ms > 10_000 and (boot_ms - self._boot_ms) < 1 << 31

MAX_SESSIONS = 1_024
MAX_DOMAINS = 256
"""Observation Domains of one session whose sequence and samplers are followed."""
MAX_ALL_DOMAINS = 8_192
"""The same over all sessions."""
MAX_SOURCES = 64
"""sFlow data sources of a domain whose drops are followed."""
NO_BOOT = -1
"""`boot_ms` of a domain that has not told when it booted."""


@dataclass(frozen=True, slots=True)
class Session:
    """A Transport Session.

    Attributes:
        key: tells sessions apart.
        exporter: address, as text.
        datagram: over UDP, where Templates have a lifetime and are not withdrawn.
    """

    key: Hashable
    exporter: str
    datagram: bool


@dataclass(slots=True)
class Domain:
    """What is known of one Observation Domain of a session."""

    sequence: SequenceTracker = field(default_factory=SequenceTracker)
    samplers: Samplers = field(default_factory=Samplers)
    boot_ms: int = NO_BOOT
    dropped: dict[int, int] = field(default_factory=dict)

    def newly_dropped(self, source: int, dropped: int) -> int:
        """What an sFlow data source has dropped since it was heard last, by its counter, which wraps."""
        before = self.dropped.get(source, dropped)
        if source in self.dropped or len(self.dropped) < MAX_SOURCES:
            self.dropped[source] = dropped
        newly = (dropped - before) % (1 << 32)
        return newly if newly < 1 << 31 else 0


@dataclass(slots=True)
class KnownSession:
    """What is known of a session. `announced`: when each Template was last, by domain and id."""

    session: Session
    domains: dict[int, Domain] = field(default_factory=dict)
    announced: dict[tuple[int, int], float] = field(default_factory=dict)


class Sessions:
    """Of every exporter that was heard, the one that has been silent longest first.

    Attributes:
        domains: Observation Domains that are followed, over all sessions.
    """

    def __init__(self) -> None:
        self.domains = 0
        self._known: OrderedDict[Hashable, KnownSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[KnownSession]:
        return iter(self._known.values())

    @property
    def crowded(self) -> bool:
        """There are more than MAX_SESSIONS: the oldest has to go."""
        return len(self._known) > MAX_SESSIONS

    def oldest(self) -> Session:
        """The one that has been silent longest."""
        return next(iter(self._known.values())).session

    def know(self, session: Session) -> KnownSession:
        """What is known of a session, which has just been heard."""
        known = self._known.get(session.key)
        if known is None:
            known = self._known[session.key] = KnownSession(session)
        else:
            self._known.move_to_end(session.key)
        return known

    def forget(self, session: Session) -> None:
        """It is over."""
        known = self._known.pop(session.key, None)
        self.domains -= len(known.domains) if known else 0

    def domain(self, known: KnownSession, number: int) -> Domain:
        """What is known of a domain; for the moment only when there are too many."""
        domain = known.domains.get(number)
        if domain is None:
            domain = Domain()
            if len(known.domains) < MAX_DOMAINS and self.domains < MAX_ALL_DOMAINS:
                known.domains[number] = domain
                self.domains += known.session.key in self._known
        return domain
