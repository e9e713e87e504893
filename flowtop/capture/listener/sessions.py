"""Transport Sessions and their Observation Domains: what is known of exporters, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from flowtop.capture.listener.sampling import Samplers
from flowtop.capture.listener.sequence import SequenceTracker

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
