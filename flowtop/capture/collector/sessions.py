"""Transport Sessions: the state kept for each exporter, in bounded memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

MAX_SESSIONS = 1_024
MAX_OF_EXPORTER = 128
"""Limit of sessions of one exporter's address."""
SETTLED_S = 60.0
"""A session in which messages came over so long a time is removed after all others: forged addresses come and go."""
MAX_AGENTS = 4_096
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
        agent_names: the octets that name the sFlow sub-agents.
        announced: over UDP, when each Template was announced last, in s: by Observation Domain, id and protocol
            version, the one announced the longest time ago first.
        first_s, heard_s: when the first and the last message arrived, s since 1970 UTC.
        weight: of its Templates, see TemplateStore.weight.
        settled: messages came over SETTLED_S.
        group: see Session.group.
    """

    session: Session
    agents: OrderedDict[tuple[str, int], SubAgent] = field(default_factory=OrderedDict)
    agent_names: set[bytes] = field(default_factory=set)
    announced: OrderedDict[tuple[int, int, int], float] = field(default_factory=OrderedDict)
    first_s: float = 0.0
    heard_s: float = 0.0
    weight: int = 0
    settled: bool = False
    group: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self.group = self.session.group


class Sessions:
    """All known sessions.

    Attributes:
        evicted_agents: number of sFlow sub-agents whose state was removed because there were too many.
        weight: of the Templates of all sessions.
    """

    def __init__(self) -> None:
        self.evicted_agents = 0
        self.weight = 0
        self._known: dict[Hashable, KnownSession] = {}
        self._new: OrderedDict[Hashable, None] = OrderedDict()
        self._settled: OrderedDict[Hashable, None] = OrderedDict()
        self._of_exporter: dict[str, OrderedDict[Hashable, None]] = {}
        self._settled_of: Counter[str] = Counter()
        self._weights: Counter[str] = Counter()
        self._agents: OrderedDict[tuple[Hashable, tuple[str, int]], None] = OrderedDict()
        self._latest: KnownSession | None = None

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[KnownSession]:
        return iter(self._known.values())

    def touch(self, session: Session, now_s: float) -> KnownSession:
        """The state of a session; marks it as most recently used."""
        key = session.key
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = KnownSession(session, first_s=now_s)
            self._new[key] = None
            self._of_exporter.setdefault(session.exporter, OrderedDict())[key] = None
        elif known is not self._latest:
            self._of_exporter[session.exporter].move_to_end(key)
            (self._settled if known.settled else self._new).move_to_end(key)
        if not known.settled and now_s - known.first_s >= SETTLED_S:
            known.settled = True
            del self._new[key]
            self._settled[key] = None
            self._settled_of[session.exporter] += 1
        known.heard_s = now_s
        self._latest = known
        return known

    def surplus(self, known: KnownSession) -> Session | None:
        """A session that has to be removed, as there are too many since this one was added; None: there are not.

        It is the least recently used one of an exporter with too many, else of those that are not settled yet.
        """
        mine = self._of_exporter[known.session.exporter]
        if len(mine) > MAX_OF_EXPORTER or (
                len(self._known) > MAX_SESSIONS and len(mine) > MAX_SESSIONS // len(self._of_exporter) > 0):
            return self._known[next(iter(mine))].session
        if len(self._known) <= MAX_SESSIONS:
            return None
        unsettled = next(iter(self._new))
        key = unsettled if unsettled != known.session.key or not self._settled else next(iter(self._settled))
        return self._known[key].session

    def heaviest(self, known: KnownSession, limit: int) -> KnownSession | None:
        """A session that has to lose Templates, as they weigh more than `limit` since this one has announced some.

        It is one of the same exporter if this has more than an equal share; else the least recently used.
        """
        if self.weight <= limit:
            return None
        exporter = known.session.exporter
        if self._weights[exporter] * len(self._of_exporter) >= limit:
            return next((mine for key in self._of_exporter[exporter] if (mine := self._known[key]).weight), None)
        return next((mine for order in (self._new, self._settled) for key in order
                     if (mine := self._known[key]).weight and mine is not known), None)

    def weigh(self, known: KnownSession, weight: int) -> None:
        """Note what the Templates of a session weigh."""
        added, known.weight = weight - known.weight, weight
        self.weight += added
        self._weights[known.session.exporter] += added

    def is_stranger(self, exporter: str) -> bool:
        """Whether no session of this address is settled."""
        return exporter not in self._settled_of

    def get(self, key: Hashable) -> KnownSession | None:
        """The state of the session of that key, or None."""
        return self._known.get(key)

    def forget(self, session: Session) -> None:
        """Remove the state of a session."""
        known = self._known.pop(session.key, None)
        if known is None:
            return
        self.weigh(known, 0)
        self._latest = None
        if known.settled:
            del self._settled[session.key]
            self._settled_of[known.session.exporter] -= 1
            if not self._settled_of[known.session.exporter]:
                del self._settled_of[known.session.exporter]
        else:
            del self._new[session.key]
        mine = self._of_exporter[known.session.exporter]
        del mine[session.key]
        if not mine:
            del self._of_exporter[known.session.exporter], self._weights[known.session.exporter]
        for place in known.agents:
            del self._agents[session.key, place]

    def agent(self, known: KnownSession, address: str, sub_agent: int) -> SubAgent:
        """The state of an sFlow sub-agent; of too many, the least recently used of its session or of all is removed."""
        key, place = known.session.key, (address, sub_agent)
        agent = known.agents.get(place)
        if agent is not None:
            known.agents.move_to_end(place)
            self._agents.move_to_end((key, place))
            return agent
        agent = known.agents[place] = SubAgent()
        self._agents[key, place] = None
        if len(known.agents) > MAX_AGENTS:
            self._forget_agent(key, next(iter(known.agents)))
        elif len(self._agents) > MAX_ALL_AGENTS:
            self._forget_agent(*next(iter(self._agents)))
        return agent

    def _forget_agent(self, key: Hashable, place: tuple[str, int]) -> None:
        del self._known[key].agents[place], self._agents[key, place]
        self.evicted_agents += 1
