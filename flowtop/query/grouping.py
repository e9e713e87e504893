"""Groups of flows with equal fields, counting each packet once; groups look like flows to the ranking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowtop.fields.field import GroupField, key_name
from flowtop.fields.groups import group_keys
from flowtop.fields.registry import MEASURES
from flowtop.model.flows import (
    FLOW_COLUMN_DTYPES,
    Array,
    ColumnsAt,
    FlowColumns,
    FlowSource,
    Slots,
    Subset,
    all_visible,
)
from flowtop.query.labels import Labels, conversation_keys, label
from flowtop.query.measures import together
from flowtop.text.lookups import Lookups

Mask = npt.NDArray[np.bool_]


def counted_once(columns: FlowColumns, slots: Slots, groups: Slots) -> Mask:
    """Which flows to add up so that each group counts each packet once.

    A duplicate is not counted if a counted flow of the same packets is in the same group. If those are in another group
    (by interface) or were filtered out, the flows of one Observation Point are counted: the one of lowest ifindex,
    ingress before egress.

    Args:
        columns: columns of all slots.
        slots: the flows, ascending.
        groups: group of each flow.
    """
    counts = ~columns["duplicate"][slots]
    duplicates = np.flatnonzero(~counts)
    if len(duplicates) == 0:
        return counts
    heads = _heads(columns, slots[duplicates])
    # Usually the conversation's head, which is not a duplicate, decides.
    group_of = np.full(len(columns["duplicate"]), -1, np.int64)
    group_of[slots[counts]] = groups[counts]
    covered = (heads >= 0) & (group_of[heads] == groups[duplicates])
    left, heads = duplicates[~covered], heads[~covered]
    if len(left):
        counts[left] = _at_one_point(columns, slots, groups, left, heads)
    return counts


def _heads(columns: FlowColumns, duplicates: Slots) -> Slots:
    """Slot of the head of each duplicate's conversation; -1 if it has left."""
    conversation = columns["conversation"]
    heads = conversation[duplicates].astype(np.int64)
    known = np.flatnonzero(heads >= 0)
    newer = conversation[heads[known]]  # an ended flow has the head at its end
    heads[known] = np.where(newer >= 0, newer, heads[known])
    ended = known[columns["end_reason"][duplicates[known]] != 0]
    heads[ended[~_same_conversation(columns, duplicates[ended], heads[ended])]] = -1
    return heads


def _same_conversation(columns: FlowColumns, slots: Slots, others: Slots) -> Mask:
    same = np.ones(len(slots), np.bool_)
    for own, other in zip(conversation_keys(ColumnsAt(columns, slots)), conversation_keys(ColumnsAt(columns, others)),
                          strict=True):
        same &= own == other
    return same


def _at_one_point(columns: FlowColumns, slots: Slots, groups: Slots, left: Slots, heads: Slots) -> Mask:
    """Which of the duplicates at positions `left` of `slots` are counted, if their heads do not decide it."""
    conversations = heads.copy()
    lost = np.flatnonzero(heads < 0)
    if len(lost):  # group those of one conversation
        conversations[lost] = -1 - label(conversation_keys(ColumnsAt(columns, slots[left[lost]])), seed=0).of
    heads_here = np.zeros(len(columns["duplicate"]), np.bool_)
    heads_here[heads[heads >= 0]] = True
    known = columns["conversation"][slots]
    # A primary may have several flows (VLANs): the ones other than the head.
    standing = np.flatnonzero(~columns["duplicate"][slots] & (known >= 0) & heads_here[known])
    sums = label((groups[np.concatenate((left, standing))],
                  np.concatenate((conversations, known[standing].astype(np.int64)))), seed=0)
    stood_for = np.zeros(sums.count, np.bool_)
    stood_for[sums.of[len(left):]] = True
    mine = sums.of[:len(left)]
    taken = ColumnsAt(columns, slots[left])
    point = taken["ifindex"].astype(np.int64) << 2 | taken["direction"]
    lowest = np.full(sums.count, np.iinfo(np.int64).max)
    np.minimum.at(lowest, mine, point)
    counts: Mask = ~stood_for[mine] & (point == lowest[mine])
    return counts


class DerivedColumns:
    """Columns that are computed on first access."""

    def __init__(self, make: Callable[[str], Array]) -> None:
        self._make = make
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]


class Groups:
    """Groups of flows.

    Args:
        source: source of the flows.
        slots: slots of the flows, ascending.
        fields: at least one; flows with equal values of all fields form a group.
        seed: ids of groups (column `flow_id`) are stable for the same seed.
        lookups: texts of codes: codes of equal texts may be one group.

    Attributes:
        source: one element per group. Columns that differ within a group and have no sum are 0.
    """

    def __init__(self, source: FlowSource, slots: Slots, fields: tuple[GroupField, ...], seed: int,
                 lookups: Lookups) -> None:
        flows = Subset(source.columns, slots)
        keys = {key_name(position, part): key for position, field in enumerate(fields)
                for part, key in enumerate(group_keys(field, flows, lookups))}
        self._table = source
        self._slots = slots
        self._keys = keys
        self._labels = label(list(keys.values()), seed)
        self._counts = counted_once(source.columns, slots, self._labels.of)
        self.source = self._source(flows, self._labels, self._counts, keys)

    def take(self, chosen: Slots) -> FlowSource:
        """The selected groups, in that order; their columns are computed from their flows only."""
        place = np.full(self._labels.count, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        of = place[self._labels.of]
        members = np.flatnonzero(of >= 0)
        keys = {name: key[self._labels.one[chosen]] for name, key in self._keys.items()}
        labels = Labels(of[members], np.arange(len(chosen)), self._labels.ids[chosen])
        flows = Subset(self._table.columns, self._slots[members])
        return self._source(flows, labels, self._counts[members], keys)

    def _source(self, flows: FlowColumns, labels: Labels, counts: npt.NDArray[np.bool_],
                keys: dict[str, Array]) -> FlowSource:
        def column(name: str) -> Array:
            if name == "flow_id":
                return labels.ids
            if name == "flows":
                return summed(np.maximum(flows["flow_count"], np.uint32(1)).astype(np.int64), labels, counts)
            if name in keys:
                return keys[name][labels.one]
            how = together(name)
            if how == "sum":
                return summed(flows[name], labels, counts)
            if how == "formula":
                return MEASURES[name].values(source)
            if how != "none":
                return extreme(np.minimum if how == "min" else np.maximum, flows[name], labels)
            return np.zeros(labels.count, np.int64 if name in MEASURES else FLOW_COLUMN_DTYPES[name])

        source = all_visible(self._table, DerivedColumns(column), labels.count)
        return source


def summed(values: Array, labels: Labels, counts: npt.NDArray[np.bool_] | None = None) -> Array:
    """Exact sum per group of the values that count (None: all)."""
    of = labels.of
    if counts is not None and not counts.all():
        values, of = values[counts], of[counts]
    sums = np.zeros(labels.count, values.dtype)
    np.add.at(sums, of, values)
    return sums


def extreme(least_or_most: np.ufunc, values: Array, labels: Labels) -> Array:
    """Minimum (np.minimum) or maximum (np.maximum) of each group's values."""
    worst = values.max(initial=values.dtype.type(0)) if least_or_most is np.minimum else values.min(initial=0)
    result = np.full(labels.count, worst, values.dtype)
    least_or_most.at(result, labels.of, values)
    return result
