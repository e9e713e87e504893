"""Ranking of flows: exact top-N by several keys without sorting all flows, and not slowed down by equal values.

The order is total: the keys of a column, then flow_id ascending. So flows with equal values do not change places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowtop.fields.columns import Column, SortKey
from flowtop.model.flows import Array, FlowColumns, Slots, Subset
from flowtop.model.kinds import Kind

_FEW = 16_384
"""Up to this number, values are sorted."""
_SAMPLE = 4_096


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order of flows: keys, each with its own direction (True: largest first)."""

    keys: tuple[tuple[SortKey, bool], ...]

    @classmethod
    def by(cls, column: Column, descending: bool, *, parents_last: bool = False) -> Ranking:
        """The column's order; flows with equal values are sorted by flow_id in both directions.

        Args:
            parents_last: put parents (outer flows of tunnels) after all other flows, in the same order.
        """
        first = ((_is_parent, False),) if parents_last else ()
        return cls((*first, *((key, descending) for key in column.sort), (_flow_id, False)))

    def _reversed(self) -> Ranking:
        return Ranking(tuple((key, not descending) for key, descending in self.keys))

    def first(self, columns: FlowColumns, slots: Slots, k: int) -> Slots:
        """The k first of these slots, as a set without order.

        Args:
            slots: ascending, without repetitions.
        """
        chosen: list[Slots] = []
        for key, descending in self.keys:
            if k >= len(slots):
                break
            # Flow Key fields are 56 octets apart: copy them once instead of reading them repeatedly.
            values = np.ascontiguousarray(key(Subset(columns, slots)))
            if values.min() == values.max():
                continue
            edge = _value_at(values, k, descending)
            better = np.flatnonzero(values > edge if descending else values < edge)
            chosen.append(slots[better])
            k -= len(better)
            slots = slots[values == edge]
        return np.concatenate((*chosen, slots[:k]))

    def ordered(self, columns: FlowColumns, slots: Slots) -> Slots:
        """These slots, sorted."""
        subset = Subset(columns, slots)
        keys = [_flipped(key(subset)) if descending else key(subset) for key, descending in self.keys]
        return slots[np.lexsort(keys[::-1])]

    def span(self, columns: FlowColumns, slots: Slots, start: int, stop: int) -> Slots:
        """Ranks `start` to `stop` (excluded) of these slots, in order; fewer if there are fewer slots."""
        stop = min(stop, len(slots))
        if start >= stop:
            return slots[:0]
        chosen = np.sort(self.first(columns, slots, stop))
        if start:
            chosen = np.sort(self._reversed().first(columns, chosen, stop - start))
        return self.ordered(columns, chosen)

    def rank(self, columns: FlowColumns, slots: Slots, slot: int) -> int:
        """Number of these slots that come before `slot`, which is one of them."""
        before = 0
        one = Subset(columns, np.array([slot]))
        for key, descending in self.keys:
            values, own = key(Subset(columns, slots)), key(one)[0]
            before += int(np.count_nonzero(values > own if descending else values < own))
            slots = slots[values == own]
            if len(slots) == 1:
                break
        return before


def _is_parent(columns: FlowColumns) -> Array:
    return np.equal(columns["kind"], Kind.PARENT).view(np.uint8)


def _flow_id(columns: FlowColumns) -> Array:
    return columns["flow_id"]


def _flipped(values: Array) -> Array:
    """Values in reversed order."""
    if values.dtype.kind == "f":
        return -values
    return ~values


def _value_at(values: Array, k: int, descending: bool) -> Array:
    """The value of rank k (from 1), from the largest or the smallest.

    Quickselect with pivots from a sorted sample. numpy's partition is 20 times slower if most values are equal, as the
    rates of idle flows are.
    """
    while len(values) > _FEW:
        sample = np.sort(values[:: len(values) // _SAMPLE])
        expected = k * len(sample) // len(values)
        aim = min(expected + 4 * int(expected ** 0.5) + 4, len(sample) - 1)
        pivot = sample[-1 - aim] if descending else sample[aim]
        better = values[values > pivot if descending else values < pivot]
        if len(better) >= k:
            values = better
            continue
        k -= len(better) + int(np.count_nonzero(values == pivot))
        if k <= 0:
            return pivot  # type: ignore[no-any-return]
        values = values[values < pivot if descending else values > pivot]
    values = np.sort(values)
    return values[-k] if descending else values[k - 1]  # type: ignore[no-any-return]
