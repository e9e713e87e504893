"""Traffic in and out over the last minutes, for the header."""

from __future__ import annotations

from collections import deque

from flowtop.model.rows import Sides
from flowtop.query.query import Traffic, TrafficHistory

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
        rates = sides.into.octet_rate, sides.out_of.octet_rate
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
