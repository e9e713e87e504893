"""Transport Sessions: the state kept for each exporter, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

MAX_SESSIONS = 1_024
MAX_AGENTS = 256
"""Limit of sFlow sub-agents per session with state."""
MAX_ALL_AGENTS = 8_192
"""Limit of sFlow sub-agents with state over all sessions."""
MAX_SOURCES = 64
"""Limit of data sources per sub-agent whose drop counters are tracked."""
NO_BOOT = -1
"""Boot time of an exporter that has not reported it."""
CLOCK_DRIFT_MS = 10_000
"""Boot times that are computed from messages differ by less, as clocks drift and times are rounded."""


def has_rebooted(before_ms: int, boot_ms: int) -> bool:
    """Whether an exporter has booted between two messages: by its boot time in both, in ms since 1970 UTC or NO_BOOT.

    An uptime that wraps after 49 days is no boot.
    """
    return before_ms >= 0 and boot_ms >= 0 and CLOCK_DRIFT_MS < boot_ms - before_ms < 1 << 31


@dataclass(frozen=True, slots=True)
class Session:
    """A Transport Session.

    Attributes:
        key: identifies the session.
        exporter: its address, as text.
        datagram: over UDP, where Templates expire and are not withdrawn.
        sampling: sampling interval of exporters that report none; 0: they don't sample.
    """

    key: Hashable
    exporter: str
    datagram: bool
    sampling: float = 0.0

    @property
    def group(self) -> tuple[bool, Hashable]:
        """What sessions that share Options have in common: over UDP the exporter's address; others share none."""
        return self.datagram, self.exporter if self.datagram else self.key


@dataclass(slots=True)
class SubAgent:
    """State of one sFlow sub-agent of a session."""

    dropped: dict[int, int] = field(default_factory=dict)

    def newly_dropped(self, source: int, dropped: int) -> int:
        """Packets dropped by an sFlow data source since its last sample; the counter wraps."""
        before = self.dropped.get(source, dropped)
        if source in self.dropped or len(self.dropped) < MAX_SOURCES:
            self.dropped[source] = dropped
        newly = (dropped - before) % (1 << 32)
        return newly if newly < 1 << 31 else 0


@dataclass(slots=True)
class KnownSession:
    """State of a session.

    Attributes:
        announced: over UDP, when each Template was announced last, in s: by protocol version, domain and id.
        heard_s: when the last message arrived, s since 1970 UTC.
        group: see Session.group.
    """

    session: Session
    agents: dict[tuple[str, int], SubAgent] = field(default_factory=dict)
    announced: dict[tuple[int, int, int], float] = field(default_factory=dict)
    heard_s: float = 0.0
    group: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self.group = self.session.group


class Sessions:
    """All known sessions, the least recently used first.

    Attributes:
        agents: number of sFlow sub-agents with state, over all sessions.
    """

    def __init__(self) -> None:
        self.agents = 0
        self._known: OrderedDict[Hashable, KnownSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[KnownSession]:
        return iter(self._known.values())

    @property
    def over_limit(self) -> bool:
        """Whether there are more than MAX_SESSIONS, so that the oldest has to be removed."""
        return len(self._known) > MAX_SESSIONS

    def oldest(self) -> Session:
        """The least recently used session."""
        return next(iter(self._known.values())).session

    def touch(self, session: Session, now_s: float) -> KnownSession:
        """The state of a session; marks it as most recently used."""
        known = self._known.get(session.key)
        if known is None:
            known = self._known[session.key] = KnownSession(session)
        else:
            self._known.move_to_end(session.key)
        known.heard_s = now_s
        return known

    def get(self, key: Hashable) -> KnownSession | None:
        """The state of the session of that key, or None."""
        return self._known.get(key)

    def forget(self, session: Session) -> None:
        """Remove the state of a session."""
        known = self._known.pop(session.key, None)
        self.agents -= len(known.agents) if known else 0

    def agent(self, known: KnownSession, address: str, sub_agent: int) -> SubAgent:
        """The state of an sFlow sub-agent. It is not stored if there are too many."""
        agent = known.agents.get((address, sub_agent))
        if agent is None:
            agent = SubAgent()
            if len(known.agents) < MAX_AGENTS and self.agents < MAX_ALL_AGENTS:
                known.agents[address, sub_agent] = agent
                self.agents += known.session.key in self._known
        return agent
