"""Groups of flows with equal fields, counting each packet once; groups look like flows to the ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from flowtop.fields.field import Beside, GroupField, key_name
from flowtop.fields.groups import group_keys
from flowtop.fields.networks import PASSING, REMOTE_IS_SOURCE
from flowtop.fields.registry import GROUPS, MEASURES
from flowtop.model.flows import (
    FLOW_COLUMN_DTYPES,
    INTO,
    OUT_OF,
    TOGETHER,
    Array,
    ColumnsAt,
    FlowColumns,
    FlowSource,
    Slots,
    Subset,
    all_visible,
)
from flowtop.query.labels import Labels, conversation_keys, label
from flowtop.query.measures import columns_at, together
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


class GroupValues:
    """What the flows of each group have together.

    Args:
        labels: group of each flow.
        counts: which flows are added up.
        inward: which of them came in; the others went out.
        both: most sums will be asked for of each way as well: they are made at once.
    """

    def __init__(self, labels: Labels, counts: Mask, inward: Mask, *, both: bool) -> None:
        self._labels, self._counts, self._inward, self._both = labels, counts, inward, both
        self._sums: dict[str, Array] = {}

    def sum(self, name: str, values: Callable[[], Array], inward: bool | None = None) -> Array:
        """Exact sum of each group.

        Args:
            name: of the values, which are made and added up once.
            inward: only of what came in, or went out; None: all.
        """
        if inward is None and not self._both:
            return self._added(values())
        if name not in self._sums:
            numbers = values()
            sums = np.zeros(3 * self._labels.count, numbers.dtype)
            np.add.at(sums, self._ways, numbers)
            self._sums[name] = sums.reshape(self._labels.count, 3)
        sums = self._sums[name]
        return sums[:, 1] + sums[:, 2] if inward is None else sums[:, 2 if inward else 1]

    def extreme(self, least_or_most: np.ufunc, values: Array) -> Array:
        """Minimum (np.minimum) or maximum (np.maximum) of each group's values; 0 of groups without any."""
        worst = values.max(initial=values.dtype.type(0)) if least_or_most is np.minimum else values.min(initial=0)
        result = np.full(self._labels.count, worst, values.dtype)
        least_or_most.at(result, self._labels.of, values)
        if least_or_most is np.minimum:
            result[self._empty] = 0
        return result

    def _added(self, values: Array) -> Array:
        of = self._labels.of
        if not self._counts.all():
            values, of = values[self._counts], of[self._counts]
        sums = np.zeros(self._labels.count, values.dtype)
        np.add.at(sums, of, values)
        return sums

    @cached_property
    def _ways(self) -> Slots:
        """For each flow three times its group; one more if it is added up and went out, two more if it came in."""
        ways: Slots = self._labels.of * 3
        ways += self._counts
        ways += self._counts & self._inward
        return ways

    @cached_property
    def _empty(self) -> Mask:
        empty: Mask = np.bincount(self._labels.of, minlength=self._labels.count) == 0
        return empty


_TOTALS = frozenset(way + name for way in ("", INTO, OUT_OF) for name in ("octet_total", "packet_total"))
"""What GroupField.passed knows."""


def _counted_twice(flows: FlowColumns, fields: tuple[GroupField, ...]) -> Slots:
    """Positions of the flows that count for both of their ends."""
    ends = [field for field in fields if field.others is not None]
    twice = np.flatnonzero(flows[PASSING]) if ends else np.empty(0, np.int64)
    if not len(twice) or not all(field.apart for field in ends):
        return twice
    differ = np.zeros(len(twice), np.bool_)
    for field in ends:
        assert field.others is not None
        for own, other in zip(field.keys(flows), field.others(flows), strict=True):
            differ |= own[twice] != other[twice]
    return twice[differ]


_LOOKED_AT = 8_192


class Groups:
    """Groups of flows.

    Args:
        source: source of the flows.
        slots: slots of the flows, ascending.
        fields: at least one; flows with equal values of all fields form a group. A field of one end of a flow may have
            it in the groups of both ends.
        seed: ids of groups (column `flow_id`) are stable for the same seed.
        lookups: texts of codes: codes of equal texts may be one group.
        every: all flows are among them: with groups that have no flows, if there is one field and it has such, and
            with what flows had that have left, where that is known.
        label_by: as labels.label.

    Attributes:
        source: one element per group. Columns that differ within a group and have no sum are 0.
        since_start: octets and packets are those of all flows since the start, not only of these flows.
    """

    def __init__(self, source: FlowSource, slots: Slots, fields: tuple[GroupField, ...], seed: int,
                 lookups: Lookups, *, every: bool = False,
                 label_by: Callable[[Sequence[Array], int], Labels] = label) -> None:
        flows: FlowColumns = Subset(source.columns, slots)
        self._twice = _counted_twice(flows, fields)
        members, again = slots, slots[self._twice]
        keys: dict[str, Array] = {}
        for position, field in enumerate(fields):
            of_flows = group_keys(field, flows, lookups)
            if len(again):
                others = [key[self._twice] for key in of_flows] if field.others is None else field.others(
                    ColumnsAt(source.columns, again))
                of_flows = tuple(map(np.concatenate, zip(of_flows, others, strict=True)))
            keys |= {key_name(position, part): key for part, key in enumerate(of_flows)}
        if every and len(fields) == 1 and fields[0].every is not None:
            keys = {name: np.concatenate((key, more.astype(key.dtype))) for (name, key), more in zip(
                keys.items(), fields[0].every(lookups), strict=True)}
        inward = next((field.inward(flows) for field in fields if field.inward), None)
        inward = flows[REMOTE_IS_SOURCE] if inward is None else inward
        if len(again):
            members = np.concatenate((slots, again))
            flows = ColumnsAt(source.columns, members)
            inward = np.concatenate((inward, ~inward[self._twice]))  # what comes from one end goes to the other
        self._table = source
        self._fields = fields
        self._lookups = lookups
        self._passed = fields[0].passed if every and len(fields) == 1 else None
        self._members = members
        self._keys = keys
        labels = label_by(list(keys.values()), seed)
        of = labels.of[:len(members)]  # behind them: keys without flows
        self._labels = replace(labels, of=of)
        self._inward = inward
        self._counts = counted_once(source.columns, slots, of[:len(slots)])
        if len(again):
            self._counts = np.concatenate((self._counts, counted_once(source.columns, again, of[len(slots):])))
        self.source = self._source(flows, GroupValues(self._labels, self._counts, self._inward, both=False), labels.ids,
                                   labels.one)
        self.since_start = self._passed is not None and bool(
            self._passed(tuple(key[labels.one] for key in keys.values()), lookups)[0].any())  # others have had nothing

    def take(self, chosen: Slots) -> FlowSource:
        """The selected groups, in that order; their columns are computed from their flows only."""
        place = np.full(self._labels.count, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        of = place[self._labels.of]
        members = np.flatnonzero(of >= 0)
        labels = Labels(of[members], np.arange(len(chosen)), self._labels.ids[chosen])
        parts = GroupValues(labels, self._counts[members], self._inward[members], both=True)
        flows = columns_at(self._table, self._members[members], ascending=not len(self._twice))
        return self._source(flows, parts, labels.ids, self._labels.one[chosen])

    def beside(self, chosen: Slots) -> list[Beside] | None:
        """What the selected groups have most of, of the field that stands beside theirs; None: there is no such field.
        Of many flows, as many as are looked at quickly."""
        other = GROUPS.get(self._fields[0].beside) if len(self._fields) == 1 else None
        if other is None or not len(chosen):
            return None
        place = np.full(self._labels.count, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        members = np.flatnonzero(place[self._labels.of] >= 0)
        members = members[::max(1, len(members) // _LOOKED_AT)]
        of = place[self._labels.of[members]]
        flows = ColumnsAt(self._table.columns, self._members[members])
        keys = group_keys(other, flows, self._lookups)
        pairs = label([of, *keys], seed=0)
        octets = np.zeros(pairs.count, np.uint64)
        np.add.at(octets, pairs.of, flows["octet_total"])
        groups = of[pairs.one]
        order = np.lexsort((~octets, groups))
        first = np.searchsorted(groups[order], np.arange(len(chosen)))
        counts = np.bincount(groups, minlength=len(chosen)).tolist()
        most = pairs.one[order[np.minimum(first, len(order) - 1)]] if len(order) else first
        of_keys = [key[most].tolist() for key in keys] if len(order) else [[0] * len(chosen) for _ in keys]
        return [Beside(tuple(parts) if count else (0,) * len(keys), max(count - 1, 0))
                for parts, count in zip(zip(*of_keys, strict=True), counts, strict=True)]

    def _source(self, flows: FlowColumns, parts: GroupValues, ids: npt.NDArray[np.uint64],
                one: Slots) -> FlowSource:
        """
        Args:
            flows: columns of the flows of `parts`.
            ids: of groups.
            one: for each group the position of one of its keys.
        """
        facts: dict[str, Array] = {}
        count = len(ids)
        known, passed = (np.zeros(count, np.bool_), {}) if self._passed is None else self._passed(
            tuple(key[one] for key in self._keys.values()), self._lookups)

        def total(name: str) -> Array:
            """What all flows of each group have had, or these ones where that is not known."""
            ways = [name] if name in passed else [way + name for way in (INTO, OUT_OF)]
            return np.where(known, sum(passed[way] for way in ways), summed(name))

        def column(name: str) -> Array:
            return total(name) if name in _TOTALS and passed else summed(name)

        def summed(name: str) -> Array:
            if name == "flow_id":
                return ids
            if name == "flows":
                return parts.sum(name, lambda: np.maximum(flows["flow_count"], np.uint32(1)).astype(np.int64))
            if name in self._keys:
                return self._keys[name][one]
            if name.startswith((INTO, OUT_OF)):
                base = name.removeprefix(INTO).removeprefix(OUT_OF)
                return parts.sum(base, lambda: flows[base], name.startswith(INTO))
            if name not in FLOW_COLUMN_DTYPES and name not in MEASURES and name not in TOGETHER:
                if not facts:
                    facts.update(self._facts({key: values[one] for key, values in self._keys.items()}))
                return facts.get(name, np.zeros(count, np.int64))
            how = together(name)
            if how == "sum":
                return parts.sum(name, lambda: flows[name])
            if how == "formula":
                return MEASURES[name].values(source)
            if how != "none":
                return parts.extreme(np.minimum if how == "min" else np.maximum, flows[name])
            return np.zeros(count, np.int64 if name in MEASURES else FLOW_COLUMN_DTYPES[name])

        source = all_visible(self._table, DerivedColumns(column), count)
        return source

    def _facts(self, keys: dict[str, Array]) -> dict[str, Array]:
        """GroupField.facts of all fields, from the keys of groups."""
        found: dict[str, Array] = {}
        for position, field in enumerate(self._fields):
            if field.facts is not None:
                own = tuple(keys[key_name(position, part)] for part in range(field.parts))
                found |= field.facts(own, self._lookups)
        return found
