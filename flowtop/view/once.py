"""Each packet once in a sum, whichever Observation Points the flows that are summed were seen at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.view.flows import Array, FlowColumns, Slots
from flowtop.view.labels import conversation_keys, label

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
