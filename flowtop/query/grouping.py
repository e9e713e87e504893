"""Flows put together by what they have in common, each packet once in a sum: groups look like flows to the ranking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowtop.fields.field import GroupField, key_name
from flowtop.fields.groups import group_keys
from flowtop.fields.registry import MEASURES
from flowtop.model.flows import FLOW_COLUMN_DTYPES, Array, FlowColumns, FlowSource, Slots, Subset
from flowtop.query.labels import Labels, conversation_keys, label
from flowtop.query.measures import together
from flowtop.text.lookups import Lookups

Mask = npt.NDArray[np.bool_]


def counted_once(columns: FlowColumns, slots: Slots, groups: Slots) -> Mask:
    """Which flows to add up so that each group has each packet once.

    A duplicate does not count where a flow that stands for its packets is in the same group. Where those are in
    another group (by interface) or were filtered out, the flows of one Observation Point count: the one of lowest
    ifindex, ingress before egress.

    Args:
        columns: of all slots.
        slots: the flows, ascending.
        groups: which group each is in.
    """
    counts = ~columns["duplicate"][slots]
    duplicates = np.flatnonzero(~counts)
    if len(duplicates) == 0:
        return counts
    heads = _heads(columns, slots[duplicates])
    # Nearly always one look is enough: at the conversation's head, which is not a duplicate.
    group_of = np.full(len(columns["duplicate"]), -1, np.int64)
    group_of[slots[counts]] = groups[counts]
    covered = (heads >= 0) & (group_of[heads] == groups[duplicates])
    left, heads = duplicates[~covered], heads[~covered]
    if len(left):
        counts[left] = _at_one_point(columns, slots, groups, left, heads)
    return counts


def _heads(columns: FlowColumns, duplicates: Slots) -> Slots:
    """Slot of the head of each duplicate's conversation; -1 where it is not there any more."""
    conversation = columns["conversation"]
    heads = conversation[duplicates].astype(np.int64)
    known = np.flatnonzero(heads >= 0)
    newer = conversation[heads[known]]  # an ended flow knows the head of then
    heads[known] = np.where(newer >= 0, newer, heads[known])
    ended = known[columns["end_reason"][duplicates[known]] != 0]
    heads[ended[~_same_conversation(columns, duplicates[ended], heads[ended])]] = -1
    return heads


def _same_conversation(columns: FlowColumns, slots: Slots, others: Slots) -> Mask:
    same = np.ones(len(slots), np.bool_)
    for own, other in zip(conversation_keys(_Taken(columns, slots)), conversation_keys(_Taken(columns, others)),
                          strict=True):
        same &= own == other
    return same


def _at_one_point(columns: FlowColumns, slots: Slots, groups: Slots, left: Slots, heads: Slots) -> Mask:
    """Which of the duplicates at positions `left` of `slots` count, as far as their heads do not decide it."""
    conversations = heads.copy()
    lost = np.flatnonzero(heads < 0)
    if len(lost):  # those of one conversation still belong together
        conversations[lost] = -1 - label(conversation_keys(_Taken(columns, slots[left[lost]])), seed=0).of
    wanted = np.zeros(len(columns["duplicate"]), np.bool_)
    wanted[heads[heads >= 0]] = True
    known = columns["conversation"][slots]
    # A primary may have several flows (VLANs): the others than the head.
    standing = np.flatnonzero(~columns["duplicate"][slots] & (known >= 0) & wanted[known])
    sums = label((groups[np.concatenate((left, standing))],
                  np.concatenate((conversations, known[standing].astype(np.int64)))), seed=0)
    stood_for = np.zeros(sums.count, np.bool_)
    stood_for[sums.of[len(left):]] = True
    mine = sums.of[:len(left)]
    taken = _Taken(columns, slots[left])
    point = taken["ifindex"].astype(np.int64) << 2 | taken["direction"]
    lowest = np.full(sums.count, np.iinfo(np.int64).max)
    np.minimum.at(lowest, mine, point)
    counts: Mask = ~stood_for[mine] & (point == lowest[mine])
    return counts


class _Taken:
    """Columns at any slots, in any order, repeated ones too."""

    def __init__(self, columns: FlowColumns, slots: Slots) -> None:
        self._columns = columns
        self._slots = slots

    def __getitem__(self, name: str) -> Array:
        return self._columns[name][self._slots]


class DerivedColumns:
    """Columns that are worked out when they are first asked for."""

    def __init__(self, make: Callable[[str], Array]) -> None:
        self._make = make
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]


class DerivedSource:
    """A FlowSource of other columns than the table's, of the same tick.

    Attributes:
        columns: one element a row; all of them are visible.
        visible: all true.
    """

    def __init__(self, source: FlowSource, columns: FlowColumns, count: int) -> None:
        self.columns = columns
        self.visible: npt.NDArray[np.bool_] = np.ones(count, np.bool_)
        self.tick_s = source.tick_s
        self.window_10s_s = source.window_10s_s
        self.window_60s_s = source.window_60s_s
        self.now_ns = source.now_ns
        self.unix_offset_ns = source.unix_offset_ns
        self.dedupes = source.dedupes


class Groups:
    """The groups of some flows.

    Args:
        source: of the flows.
        slots: of the flows, ascending.
        fields: one or more; flows are together when they agree in all.
        seed: groups keep their ids (column `flow_id`) as long as it stays.
        lookups: texts of codes: those of equal texts may be one group.

    Attributes:
        source: one element a group. What flows of one group differ in, and has no sum, is 0.
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

    def take(self, chosen: Slots) -> DerivedSource:
        """Only the chosen groups, in that order: their columns are made of their flows alone."""
        place = np.full(self._labels.count, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        of = place[self._labels.of]
        members = np.flatnonzero(of >= 0)
        keys = {name: key[self._labels.one[chosen]] for name, key in self._keys.items()}
        labels = Labels(of[members], np.arange(len(chosen)), self._labels.ids[chosen])
        flows = Subset(self._table.columns, self._slots[members])
        return self._source(flows, labels, self._counts[members], keys)

    def _source(self, flows: FlowColumns, labels: Labels, counts: npt.NDArray[np.bool_],
                keys: dict[str, Array]) -> DerivedSource:
        def column(name: str) -> Array:
            if name == "flow_id":
                return labels.ids
            if name == "flows":
                return np.bincount(labels.of[counts], minlength=labels.count)
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

        source = DerivedSource(self._table, DerivedColumns(column), labels.count)
        return source


def summed(values: Array, labels: Labels, counts: npt.NDArray[np.bool_] | None = None) -> Array:
    """Sum of a group's values that count (None: all of them), exact."""
    of = labels.of
    if counts is not None and not counts.all():
        values, of = values[counts], of[counts]
    sums = np.zeros(labels.count, values.dtype)
    np.add.at(sums, of, values)
    return sums


def extreme(least_or_most: np.ufunc, values: Array, labels: Labels) -> Array:
    """Least (np.minimum) or most (np.maximum) of each group's values."""
    worst = values.max(initial=values.dtype.type(0)) if least_or_most is np.minimum else values.min(initial=0)
    found = np.full(labels.count, worst, values.dtype)
    least_or_most.at(found, labels.of, values)
    return found
