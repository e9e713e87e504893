"""Values that Options Data give for an Observation Domain, such as the boot time, and that flows elsewhere need.

As with samplers, a value applies to the domain and session that it came for, and to others of the same exporter that
have none of their own. Sessions over UDP are joined by the exporter's address.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.shares import Shares

MAX_VALUES, MAX_OF_EXPORTER = 8_192, 2_048
"""Limits over all exporters and domains, and per exporter's address; the least recently announced go."""


class Found(NamedTuple):
    """A value, None if there is none, and where it was announced: in another domain, from another source port."""

    value: int | None
    other_domain: bool = False
    other_port: bool = False


@dataclass(slots=True)
class _Exporter:
    """Values of the sessions that are joined, by session and domain, and by domain and session; the latest last.

    Attributes:
        merged: what a session (True, key) and all of them (False, None) agree on, made when it is first used.
    """

    sessions: dict[Hashable, dict[int, int]] = field(default_factory=dict)
    domains: dict[int, dict[Hashable, int]] = field(default_factory=dict)
    merged: dict[tuple[bool, Hashable], int | None] = field(default_factory=dict)


class AnnouncedValues:
    """One value for each domain of each session, in bounded memory.

    Args:
        tolerance: values that differ by no more are the same; the latest counts.

    Attributes:
        shares: which of them are kept.
    """

    def __init__(self, tolerance: int = 0) -> None:
        self._tolerance = tolerance
        self.shares: Shares[tuple[Hashable, Hashable, int]] = Shares(MAX_VALUES, MAX_OF_EXPORTER)
        self._exporters: dict[Hashable, _Exporter] = {}

    def __len__(self) -> int:
        return len(self.shares)

    def announce(self, session: Session, domain: int, value: int) -> bool:
        """Store a value; returns whether it is news."""
        exporter = self._exporters.get(session.group) or _Exporter()
        mine = exporter.sessions.get(session.key, {})
        before = mine.get(domain)
        place = session.group, session.key, domain
        if before is not None:
            self.shares.use(place)
        if before == value:
            return False
        self._exporters[session.group] = exporter
        exporter.sessions[session.key] = mine
        of_domain = exporter.domains.setdefault(domain, {})
        mine.pop(domain, None)
        of_domain.pop(session.key, None)
        mine[domain] = of_domain[session.key] = value
        exporter.merged.clear()
        gone = self.shares.add(place, session.exporter) if before is None else None
        if gone is not None:
            self._remove(*gone)
        return True

    def own(self, session: Session, domain: int) -> int | None:
        """The value announced for a domain in its own session, or None."""
        exporter = self._exporters.get(session.group)
        return None if exporter is None else exporter.sessions.get(session.key, {}).get(domain)

    def find(self, session: Session, domain: int) -> Found:
        """The value for flows of a domain of a session: its own, or the nearest that does not contradict another.

        Domain 0 is about the whole exporter.
        """
        exporter = self._exporters.get(session.group)
        if exporter is None:
            return Found(None)
        mine = exporter.sessions.get(session.key, {})
        if domain in mine:
            return Found(mine[domain])
        if mine:
            return Found(self._merged(exporter, (True, session.key), mine), other_domain=True)
        if domain in exporter.domains:
            return Found(next(reversed(exporter.domains[domain].values())), other_port=True)
        return Found(self._merged(exporter, (False, None)), other_domain=True, other_port=True)

    def _merged(self, exporter: _Exporter, place: tuple[bool, Hashable], values: Mapping[int, int] | None = None,
                ) -> int | None:
        """The value of domain 0, or the latest of the domains' if they are the same; else None.

        Args:
            values: by domain; None: the latest of each domain in all sessions.
        """
        if place not in exporter.merged:
            values = values or {number: next(reversed(of.values())) for number, of in exporter.domains.items()}
            same = max(values.values()) - min(values.values()) <= self._tolerance
            exporter.merged[place] = values.get(0, next(reversed(list(values.values()))) if same else None)
        return exporter.merged[place]

    def has(self, session: Session) -> bool:
        """Whether a session has announced values."""
        exporter = self._exporters.get(session.group)
        return exporter is not None and session.key in exporter.sessions

    def forget(self, session: Session) -> None:
        """Remove the values of a session."""
        exporter = self._exporters.get(session.group)
        for domain in list(exporter.sessions.get(session.key, ())) if exporter else ():
            self.shares.remove((session.group, session.key, domain))
            self._remove(session.group, session.key, domain)

    def _remove(self, group: Hashable, session: Hashable, domain: int) -> None:
        exporter = self._exporters[group]
        mine, of_domain = exporter.sessions[session], exporter.domains[domain]
        del mine[domain], of_domain[session]
        if not mine:
            del exporter.sessions[session]
        if not of_domain:
            del exporter.domains[domain]
        exporter.merged.clear()
        if not exporter.sessions:
            del self._exporters[group]
