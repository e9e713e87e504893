"""Data Sets received before their Template: kept for a limited time, in limited memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from flowtop.capture.collector.sessions import NO_BOOT, has_rebooted
from flowtop.wire.ipfix_template import OPTIONS_TEMPLATE_SET, TEMPLATE_SET

MAX_OCTETS = 8_000_000
MAX_SETS = 20_000
OF_SOURCE = 2
"""One source may have the half of these."""
MAX_AGE_S = 1_800.0
"""Lifetime of a Template over UDP; an exporter that has not announced it by then will not."""

_Key = tuple[Hashable, int, int]
"""Session, Observation Domain, Set ID."""


class MessageTimes(NamedTuple):
    """Times of one message, in ms.

    Attributes:
        export_ms, boot_ms: as in ExportTimes.
        shift_ms: correction of the exporter's clock, to be added to its times.
    """

    export_ms: int
    boot_ms: int
    shift_ms: int


class HeldSet(NamedTuple):
    """One Data Set without its Template.

    Attributes:
        octets: the content after the Set Header.
        times: those of its message.
        since_s: when it was received.
        place: where a Template of another session would be announced; None if only its own session's will do.
    """

    octets: bytes
    times: MessageTimes
    since_s: float
    place: Hashable = None


class HeldSets:
    """Waiting Data Sets; the oldest are dropped when a limit is exceeded."""

    def __init__(self) -> None:
        self._sets: OrderedDict[int, tuple[_Key, HeldSet, Hashable]] = OrderedDict()
        self._of_source: dict[Hashable, OrderedDict[int, None]] = {}
        self._octets_of: dict[Hashable, int] = {}
        self._by_key: dict[_Key, dict[int, None]] = {}
        self._by_place: dict[Hashable, dict[int, None]] = {}
        self._by_session: dict[Hashable, set[_Key]] = {}
        self._next = 0
        self._octets = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._sets)

    def hold(self, key: _Key, held: HeldSet, source: Hashable = None) -> None:
        """Add a Data Set.

        Args:
            source: who sent it.
        """
        number = self._next
        self._next += 1
        self._sets[number] = key, held, source
        same = self._by_key.get(key)
        if same is None:
            same = self._by_key[key] = {}
            mine_by_key = self._by_session.get(key[0])
            if mine_by_key is None:
                mine_by_key = self._by_session[key[0]] = set()
            mine_by_key.add(key)
        same[number] = None
        if held.place is not None:
            self._by_place.setdefault(held.place, {})[number] = None
        mine = self._of_source.get(source)
        if mine is None:
            mine = self._of_source[source] = OrderedDict()
        mine[number] = None
        octets = self._octets_of[source] = self._octets_of.get(source, 0) + len(held.octets)
        self._octets += len(held.octets)
        while mine and source is not None and (
                octets > MAX_OCTETS // OF_SOURCE or len(mine) > MAX_SETS // OF_SOURCE):
            octets -= len(self._remove(next(iter(mine)))[1].octets)
            self.dropped += 1
        while self._octets > MAX_OCTETS or len(self._sets) > MAX_SETS:
            self._drop_oldest()

    def take(self, key: _Key, boot_ms: int = NO_BOOT) -> list[HeldSet]:
        """Remove and return the Data Sets of a Template, in order.

        Args:
            boot_ms: when the exporter booted. Data Sets from before are dropped: template ids are assigned anew then.
        """
        numbers = self._by_key.get(key)
        return [held for _, held in self._remove_all(numbers, boot_ms)] if numbers else []

    def wait_at(self, place: Hashable) -> bool:
        """Whether Data Sets wait for a Template of that place."""
        return place in self._by_place

    def take_at(self, place: Hashable, boot_ms: int = NO_BOOT) -> list[tuple[_Key, HeldSet]]:
        """Remove and return the Data Sets of all sessions that wait for a Template of that place, in order."""
        return self._remove_all(self._by_place.get(place, ()), boot_ms)

    def _remove_all(self, numbers: Iterable[int], boot_ms: int) -> list[tuple[_Key, HeldSet]]:
        removed = [self._remove(number) for number in list(numbers)]
        current = [found for found in removed if not has_rebooted(found[1].times.boot_ms, boot_ms)]
        self.dropped += len(removed) - len(current)
        return current

    def drop(self, session: Hashable, domain: int, template_id: int) -> None:
        """Drop the Data Sets of a Template that was withdrawn or replaced; of all if it is no Template's id."""
        keys = [(session, domain, template_id)]
        if template_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
            keys = [key for key in self._by_session.get(session, ()) if key[1] == domain]
        for key in keys:
            self.dropped += len(self.take(key))

    def expire(self, now_s: float) -> None:
        """Drop Data Sets that have waited for too long."""
        while self._sets and now_s - next(iter(self._sets.values()))[1].since_s > MAX_AGE_S:
            self._drop_oldest()

    def forget(self, session: Hashable) -> None:
        """Drop the Data Sets of a session that has ended."""
        for key in list(self._by_session.get(session, ())):
            self.dropped += len(self.take(key))

    def _drop_oldest(self) -> None:
        self._remove(next(iter(self._sets)))
        self.dropped += 1

    def _remove(self, number: int) -> tuple[_Key, HeldSet]:
        key, held, source = self._sets.pop(number)
        self._octets -= len(held.octets)
        self._octets_of[source] -= len(held.octets)
        of_source = self._of_source[source]
        del of_source[number]
        if not of_source:
            del self._of_source[source], self._octets_of[source]
        same = self._by_key[key]
        del same[number]
        if not same:
            del self._by_key[key]
            mine = self._by_session[key[0]]
            mine.discard(key)
            if not mine:
                del self._by_session[key[0]]
        if held.place is not None:
            there = self._by_place[held.place]
            del there[number]
            if not there:
                del self._by_place[held.place]
        return key, held
