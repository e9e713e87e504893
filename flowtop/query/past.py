"""Pages of the last minutes in bounded memory: the most important flows of each tick, for later queries.

The flows are stored compressed, with their state at that tick: half of them are the fastest of the tick, the others
those with the most octets so far. They can be queried like the table.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.devices import DeviceView
from flowtop.model.flows import (
    FLOW_COLUMN_DTYPES,
    Array,
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

_NAMES = tuple(FLOW_COLUMN_DTYPES)
_NAMES_WITHOUT_REPORTS = tuple(name for name in _NAMES if name not in REPORTED)
_NO_COLUMNS: FlowColumns = {name: np.zeros(0, dtype) for name, dtype in FLOW_COLUMN_DTYPES.items()}
_LEVEL = 1
_PAGE_OCTETS = 4_096
"""Approximate size of a page without rows."""
_POINTS = 512
"""Of more interfaces the past does not keep what all their flows have had."""


def _packed(columns: FlowColumns, slots: Slots, names: Sequence[str]) -> bytes:
    """Columns of these flows, compressed. The first octets of all values of a column stand together, then their second
    ones, ...: most of them are equal."""
    parts = []
    for name in names:
        values = np.ascontiguousarray(columns[name][slots])
        if name == "conversation":
            values = _moved(values, slots)
        octets = values.view(np.uint8).reshape(len(slots), FLOW_COLUMN_DTYPES[name].itemsize)
        parts.append(octets.T.tobytes())
    return zlib.compress(b"".join(parts), _LEVEL)


class _Unpacked:
    """The columns that were packed, each made when it is asked for first."""

    def __init__(self, packed: bytes, names: Sequence[str], count: int) -> None:
        self._octets = np.frombuffer(zlib.decompress(packed), np.uint8)
        sizes = [FLOW_COLUMN_DTYPES[name].itemsize * count for name in names]
        self._places = dict(zip(names, np.cumsum([0, *sizes]).tolist(), strict=False))
        self._count = count
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._made:
            dtype, start = FLOW_COLUMN_DTYPES[name], self._places[name]
            octets = self._octets[start:start + dtype.itemsize * self._count].reshape(dtype.itemsize, self._count)
            self._made[name] = np.frombuffer(octets.T.tobytes(), dtype)
        return self._made[name]


_Tables = Mapping[str, Mapping[Any, Any]]


class _Texts:
    """Texts by code of all ticks that are kept, each once: a copy with each tick would take more room than its flows.

    What a code means does not change for another thing, so that the texts of now serve for what was before. A table is
    kept as long as a tick may need it: two spans of the past.

    Args:
        reach_ms: the longest span between two ticks that are kept.
    """

    def __init__(self, reach_ms: float) -> None:
        self._reach_ms = reach_ms
        self._since_ms = 0
        self._before: dict[str, dict[Any, Any]] = {}
        self._now: dict[str, dict[Any, Any]] = {}
        self._newest: _Tables = {}
        self._made: dict[str, dict[Any, Any]] | None = None

    def add(self, tables: _Tables, unix_ms: int) -> None:
        """Those of a tick. Tables keep the order in which their texts came."""
        if unix_ms - self._since_ms > self._reach_ms:
            self._before, self._now, self._since_ms, self._made = self._now, {}, unix_ms, None
        for name, table in tables.items():
            known = self._now.setdefault(name, {})
            if table is not self._newest.get(name) and table != self._newest.get(name):
                self._made = None
            if not known:
                known.update(table)
            elif self._made is None:
                for code in reversed(table):
                    if code in known:
                        break
                    known[code] = table[code]
        self._newest = tables

    def tables(self) -> dict[str, dict[Any, Any]]:
        """All of them, in dictionaries that do not change."""
        if self._made is None:
            names = dict.fromkeys((*self._before, *self._now, *self._newest))
            self._made = {name: {**self._before.get(name, {}), **self._now.get(name, {}), **self._newest.get(name, {})}
                          for name in names}
        return self._made


@dataclass(frozen=True, slots=True)
class _Kept:
    """One tick: its page without rows and texts, its flows compressed, and their source without flows.

    Attributes:
        count: number of flows.
        reports: the flows have the columns of model.reported.
    """

    page: Page
    flows: bytes
    count: int
    source: FlowsAtRest
    reports: bool

    @property
    def octets(self) -> int:
        """Approximate memory."""
        return len(self.flows) + _PAGE_OCTETS


_INTERFACES, _CALLED = "interfaces of lookups", "called of lookups"


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
        self._texts = _Texts(self._reach_ms)

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
        packed = _packed(source.columns, slots, _NAMES if reported else _NAMES_WITHOUT_REPORTS)
        lookups = page.lookups
        self._texts.add({**lookups.texts, _INTERFACES: lookups.interfaces, _CALLED: lookups.called}, page.unix_ms)
        lookups = replace(lookups, texts={}, interfaces={}, called={}, devices=self._same(lookups.devices),
                          passed=lookups.passed if lookups.passed is None or len(lookups.passed) <= _POINTS else None)
        collecting = None if page.collecting is None else replace(page.collecting, interfaces=())
        kept = _Kept(replace(page, rows=(), details=None, history=NO_HISTORY, listed_history=NO_HISTORY,
                             lookups=lookups, collecting=collecting),
                     packed, len(slots), with_columns(source, _NO_COLUMNS, np.zeros(0, np.bool_)), reported)
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
        columns: FlowColumns = _Unpacked(kept.flows, _NAMES if kept.reports else _NAMES_WITHOUT_REPORTS, kept.count)
        columns = columns if kept.reports else WithoutReports(columns, kept.count)
        tables = dict(self._texts.tables())
        lookups = replace(kept.page.lookups, interfaces=tables.pop(_INTERFACES, {}), called=tables.pop(_CALLED, {}),
                          texts=tables)
        return replace(kept.page, lookups=lookups), with_columns(kept.source, columns, np.ones(kept.count, np.bool_))

    def _same(self, devices: Mapping[int, DeviceView]) -> Mapping[int, DeviceView]:
        """The devices; what is as it was a tick before is the same object."""
        before = self._ticks[-1].page.lookups.devices if self._ticks else {}
        return {ifindex: old if (old := before.get(ifindex)) == device else device
                for ifindex, device in devices.items()}


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
