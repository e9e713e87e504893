"""Traffic in and out over the last minutes, for charts: of all flows, of those that are listed, of one flow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from flowtop.model.flows import FlowSource, Slots
from flowtop.model.rows import Sides
from flowtop.query.query import NO_HISTORY, Listed, Query, Traffic, TrafficHistory

SPARKLINE_TICKS = 60
HISTORY_S = 300.0
_LEAST_S = 1.0
"""Shorter ticks share an entry of the history."""


class TrafficLog:
    """Rates in and out by tick."""

    def __init__(self) -> None:
        self._ticks = deque[Sides](maxlen=SPARKLINE_TICKS)
        self._history = deque[tuple[int, float, float, float]]()  # end in ms, length in s, octets/s in and out
        self._length_s = 0.0

    def close(self, sides: Sides, end_ms: int, tick_s: float) -> None:
        """A tick has ended."""
        self._ticks.append(sides)
        self.add((sides.into.octet_rate, sides.out_of.octet_rate), end_ms, tick_s)

    def add(self, rates: tuple[float, float], end_ms: int, tick_s: float) -> None:
        """A span of the history, octets/s in and out."""
        if self._history and self._history[-1][1] + tick_s <= _LEAST_S:
            _, length_s, *before = self._history.pop()
            whole_s = length_s + tick_s
            rates = tuple((old * length_s + new * tick_s) / whole_s  # type: ignore[assignment]
                          for old, new in zip(before, rates, strict=True))
            self._length_s -= length_s
            tick_s = whole_s
        self._history.append((end_ms, tick_s, *rates))
        self._length_s += tick_s
        while self._length_s - self._history[0][1] > HISTORY_S:
            self._length_s -= self._history.popleft()[1]

    @property
    def into(self) -> Traffic:
        """What came in."""
        now = self._ticks[-1].into
        return Traffic(now.octet_rate, now.packet_rate, tuple(sides.into.octet_rate for sides in self._ticks))

    @property
    def out_of(self) -> Traffic:
        """What went out."""
        now = self._ticks[-1].out_of
        return Traffic(now.octet_rate, now.packet_rate, tuple(sides.out_of.octet_rate for sides in self._ticks))

    @property
    def history(self) -> TrafficHistory:
        """The last HISTORY_S."""
        return TrafficHistory(*map(tuple, zip(*self._history, strict=True))) if self._history else TrafficHistory()


class HistorySource(FlowSource, Protocol):
    """A flow table that also has recent history."""

    def histories(self, groups: Sequence[Slots]) -> Sequence[tuple[int, Sequence[int]]]:
        """Traffic of groups of flows: (length in ns, octets of each group) of each second or so, oldest first; it
        begins with the first flow of them all. No flow is in two groups."""


def flows_history(source: HistorySource, into: Slots, out_of: Slots) -> TrafficHistory:
    """What these flows had, which came in and which went out, as far as the table remembers."""
    now_ms = (source.now_ns + source.unix_offset_ns) // 1_000_000
    spans = source.histories((into, out_of))
    rates = [[octets[way] / max(length_ns, 1) * 1e9 for length_ns, octets in spans] for way in range(2)]
    ends_ns, end_ns = [], 0
    for length_ns, _ in reversed(spans):
        ends_ns.append(end_ns)
        end_ns += length_ns
    return TrafficHistory(tuple(now_ms - end_ns // 1_000_000 for end_ns in reversed(ends_ns)),
                          tuple(length_ns / 1e9 for length_ns, _ in spans), tuple(rates[0]), tuple(rates[1]))


class ListLog:
    """The traffic of what is listed, in an open group or with a filter: from the table what its flows had, then what is
    listed at each tick, with flows that leave."""

    def __init__(self) -> None:
        self._of: Query | None = None
        self._log = TrafficLog()
        self._tick = -1

    def needs(self, query: Query, number: int) -> bool:
        """Whether `tick` would look at the flows: of a list that is a part of all, not yet at the tick of that number,
        or of a group that has just been opened."""
        return _part(query) and (number != self._tick or (query.scope is not None and _list_of(query) != self._of))

    def tick(self, query: Query, source: HistorySource, ways: tuple[Slots, Slots], listed: Listed | None,
             number: int) -> TrafficHistory:
        """The history of what a query of now lists; none when it lists all.

        That of a filter comes with the first tick after it was set: while one types there are many.

        Args:
            ways: slots of flows that came in, and that went out.
            number: of the tick.
        """
        passed, self._tick = number - self._tick, number
        if not _part(query) or listed is None:
            self._of = None
            return NO_HISTORY
        of = _list_of(query)
        if of != self._of and query.scope is None and not passed:
            self._of = None
            return NO_HISTORY
        now_ms = (source.now_ns + source.unix_offset_ns) // 1_000_000
        if of != self._of or passed > 1:  # another list, or one has looked at the past meanwhile
            self._of, self._log = of, TrafficLog()
            before = flows_history(source, *ways)
            for end_ms, length_s, *rates in zip(before.ends_ms, before.lengths_s, before.into, before.out_of,
                                                strict=True):
                self._log.add((rates[0], rates[1]), end_ms, length_s)
        elif passed:
            self._log.add((listed.sides.into.octet_rate, listed.sides.out_of.octet_rate), now_ms, source.tick_s)
        return self._log.history

    @property
    def history(self) -> TrafficHistory:
        """What the last `tick` gave."""
        return NO_HISTORY if self._of is None else self._log.history


def _part(query: Query) -> bool:
    """Whether it lists a part of the flows."""
    return query.scope is not None or query.filter is not None


def _list_of(query: Query) -> Query:
    """What decides which flows are listed."""
    return Query(scope=query.scope, filter=query.filter, names=query.names, ended=query.ended)
