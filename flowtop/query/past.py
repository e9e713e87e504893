"""Pages of the last minutes in bounded memory: the most important flows of each tick, for later queries.

The flows are stored compressed, with their state at that tick: half of them are the fastest of the tick, the others
those with the most octets so far. They can be queried like the table.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.flows import (
    FLOW_COLUMN_DTYPES,
    FlowColumns,
    FlowsAtRest,
    FlowSource,
    Slots,
    WithoutReports,
    reports,
    with_columns,
)
from flowtop.model.reported import REPORTED
from flowtop.query.query import NO_HISTORY, Page

SECONDS = 300.0
FLOWS = 1_000
OCTETS = 32 * 1024 * 1024

_ROW = np.dtype(list(FLOW_COLUMN_DTYPES.items()))
_ROW_WITHOUT_REPORTS = np.dtype([(name, dtype) for name, dtype in FLOW_COLUMN_DTYPES.items() if name not in REPORTED])
_LEVEL = 1
_PAGE_OCTETS = 4_096
"""Approximate size of a page without rows."""
_NO_FLOWS = np.zeros(0, _ROW)


@dataclass(frozen=True, slots=True)
class _Kept:
    """One tick: its page without rows, its flows compressed, and their source without flows.

    Attributes:
        reports: the flows have the columns of model.reported.
    """

    page: Page
    flows: bytes
    source: FlowsAtRest
    reports: bool

    @property
    def octets(self) -> int:
        """Approximate memory."""
        return len(self.flows) + _PAGE_OCTETS


class Past:
    """The last ticks.

    Args:
        seconds: maximum age.
        flows: maximum number of flows per tick.
        octets: limit of memory; the oldest ticks are dropped.
    """

    def __init__(self, seconds: float = SECONDS, flows: int = FLOWS, octets: int = OCTETS) -> None:
        self._reach_ms = seconds * 1e3
        self._flows = flows
        self._bound = octets
        self._ticks: deque[_Kept] = deque()
        self._octets = 0

    @property
    def octets(self) -> int:
        """Approximate memory; never more than the limit."""
        return self._octets

    @property
    def ticks(self) -> range:
        """Numbers of the stored ticks."""
        return range(self._ticks[0].page.tick, self._ticks[-1].page.tick + 1) if self._ticks else range(0)

    @property
    def seconds(self) -> float:
        """Time from the oldest to the newest stored tick."""
        return (self._ticks[-1].page.unix_ms - self._ticks[0].page.unix_ms) / 1e3 if self._ticks else 0.0

    def remember(self, source: FlowSource, page: Page) -> None:
        """Store a tick that has just been closed.

        Args:
            source: the flows.
            page: page of this tick, which follows the tick stored last; its rows are not stored.
        """
        slots = _important(source, self._flows)
        reported = reports(source.columns)
        rows = np.empty(len(slots), _ROW if reported else _ROW_WITHOUT_REPORTS)
        for name in rows.dtype.names or ():
            rows[name] = source.columns[name][slots]
        rows["conversation"] = _moved(rows["conversation"], slots)
        kept = _Kept(replace(page, rows=(), details=None, history=NO_HISTORY), zlib.compress(rows.tobytes(), _LEVEL),
                     with_columns(source, _NO_FLOWS, np.zeros(0, np.bool_)), reported)
        self._ticks.append(kept)
        self._octets += kept.octets
        while self._ticks and (self._octets > self._bound
                               or page.unix_ms - self._ticks[0].page.unix_ms > self._reach_ms):
            self._octets -= self._ticks.popleft().octets

    def at(self, tick: int) -> tuple[Page, FlowSource] | None:
        """The tick of that number, or the nearest stored one: its page without rows, and its flows.

        None if nothing is stored.
        """
        if not self._ticks:
            return None
        numbers = self.ticks
        kept = self._ticks[min(max(tick, numbers.start), numbers.stop - 1) - numbers.start]
        rows = np.frombuffer(zlib.decompress(kept.flows), _ROW if kept.reports else _ROW_WITHOUT_REPORTS)
        columns: FlowColumns = rows if kept.reports else WithoutReports(rows, len(rows))
        return kept.page, with_columns(kept.source, columns, np.ones(len(rows), np.bool_))


def _important(source: FlowSource, count: int) -> Slots:
    """Slots of the `count` most important visible flows, ascending; all of them if there are fewer."""
    slots = np.flatnonzero(source.visible)
    if len(slots) <= count:
        return slots
    fast = _largest(source.columns["octet_delta"][slots], count // 2)
    rest = np.ones(len(slots), np.bool_)
    rest[fast] = False
    others = np.flatnonzero(rest)
    large = others[_largest(source.columns["octet_total"][slots[others]], count - len(fast))]
    return np.sort(slots[np.concatenate((fast, large))])


def _largest(values: npt.NDArray[Any], count: int) -> Slots:
    """Positions of the `count` largest values, unordered; zeros are excluded, so there may be fewer."""
    some = np.flatnonzero(values)  # most are 0 in a large table, and partition is slow with equal values
    if len(some) <= count:
        return some
    return some[np.argpartition(values[some], len(some) - count)[len(some) - count:]]


def _moved(conversation: npt.NDArray[np.int32], slots: Slots) -> npt.NDArray[np.int32]:
    """Slots of conversations' heads as positions among `slots`, ascending; -1 if the head is not among them."""
    if not len(slots):
        return conversation
    at = np.minimum(np.searchsorted(slots, conversation), len(slots) - 1)
    return np.where((conversation >= 0) & (slots[at] == conversation), at, -1).astype(np.int32)
