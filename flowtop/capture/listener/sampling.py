"""Packet sampling as exporters announce it in Options Data or tell it in each record: whose interval is which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.wire.collected import big_endian
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
