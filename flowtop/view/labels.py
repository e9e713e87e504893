"""Which flows have equal keys: exact, in numpy, without sorting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.view.flows import Array, FlowColumns, Slots, address_words

_MULTIPLIER = np.uint64(0x9E37_79B9_7F4A_7C15)


@dataclass(frozen=True, slots=True)
class Labels:
    """n things in groups of equal keys.

    Attributes:
        of: shape (n,): the group of each thing, from 0.
        one: shape (groups,): position of one thing of each group, ascending.
        ids: u64, shape (groups,): what a group is known by as long as the seed stays: made of its key alone.
    """

    of: Slots
    one: Slots
    ids: npt.NDArray[np.uint64]

    @property
    def count(self) -> int:
        """How many groups."""
        return len(self.one)


def label(keys: Sequence[Array], seed: int) -> Labels:
    """Groups of equal keys.

    Args:
        keys: one or more integer arrays of one length; things are together when they are equal in all.
        seed: makes ids that nobody outside can foretell.
    """
    hashes = _mixed(keys, seed)
    leader = _leaders([key for key in keys if key.any()], hashes)  # the lower half of IPv4 addresses, for one
    leads = np.zeros(len(hashes), np.bool_)
    leads[leader] = True
    one = np.flatnonzero(leads)
    return Labels((np.cumsum(leads) - 1)[leader], one, hashes[one])


def _leaders(keys: Sequence[Array], hashes: npt.NDArray[np.uint64]) -> Slots:
    """Position of one thing for each thing, the same for equal ones.

    In each round every thing writes its position to the cell its hash names, and follows whoever it finds there when
    their keys are equal: equal things meet in one cell, so all or none of them do. The others try another cell.
    """
    leader = np.empty(len(hashes), np.int64)
    left = np.arange(len(hashes))
    while len(left):
        cells = np.empty(1 << (2 * len(left)).bit_length(), np.int32)
        cell = (hashes & np.uint64(len(cells) - 1)).view(np.int64)
        cells[cell] = np.arange(len(left), dtype=np.int32)
        found = cells[cell].astype(np.int64)
        same = np.ones(len(left), np.bool_)
        for key in keys:
            same &= key == key[found]
        leader[left[same]] = left[found[same]]
        others = np.flatnonzero(~same)
        left, hashes, keys = left[others], hashes[others], [key[others] for key in keys]
        hashes = hashes * _MULTIPLIER ^ hashes >> np.uint64(32)
    return leader


def conversation_keys(columns: FlowColumns) -> tuple[Array, ...]:
    """What a conversation is known by: CONVERSATION_BYTES of the Flow Key, as integers."""
    return (*address_words(columns, "source_address"), *address_words(columns, "destination_address"),
            columns["source_port"], columns["destination_port"], columns["protocol"], columns["ip_version"],
            columns["kind"])


def _mixed(keys: Sequence[Array], seed: int) -> npt.NDArray[np.uint64]:
    """One well-mixed number for each thing (multiply, xor and shift, as in splitmix64)."""
    mixed = np.full(len(keys[0]), seed & 0xFFFF_FFFF_FFFF_FFFF, np.uint64)
    for key in keys:
        mixed ^= key.astype(np.uint64)
        mixed *= _MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58_476D_1CE4_E5B9)
        mixed ^= mixed >> np.uint64(32)
    return mixed
