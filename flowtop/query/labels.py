"""Group flows by equal keys: exactly, in numpy, without sorting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.flows import Array, FlowColumns, Slots, address_words

_MULTIPLIER = np.uint64(0x9E37_79B9_7F4A_7C15)


@dataclass(frozen=True, slots=True)
class Labels:
    """n things in groups of equal keys.

    Attributes:
        of: shape (n,): group of each thing, from 0.
        one: shape (groups,): position of one thing per group, ascending.
        ids: u64, shape (groups,): id of a group, computed from its key and the seed.
    """

    of: Slots
    one: Slots
    ids: npt.NDArray[np.uint64]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.one)


def label(keys: Sequence[Array], seed: int) -> Labels:
    """Group things by equal keys.

    Args:
        keys: integer arrays of one length; things with equal values in all of them form a group.
        seed: makes ids unpredictable for others.
    """
    codes = _codes(keys)
    if codes is not None:
        return _numbered(codes, keys, seed)
    hashes = _mixed(keys, seed)
    leader = _leaders([key for key in keys if key.any()], hashes)  # some are all 0: the lower half of IPv4 addresses
    leads = leader == np.arange(len(leader))
    one = np.flatnonzero(leads)
    if len(one) == len(leader):
        return Labels(leader, one, hashes)
    return Labels((np.cumsum(leads) - 1)[leader], one, hashes[one])


class KnownLabels:
    """`label`, which gives what it gave last where the keys are the same: flows keep theirs from tick to tick, and to
    tell which of 100,000 hosts are equal takes longer than to see that they are those of before."""

    _LEAST, _MOST = 4_096, 300_000
    """Things: of fewer it is not worth it, of more they would take too much room."""
    _LISTS = 2

    def __init__(self) -> None:
        self._known: dict[int, tuple[list[Array], Labels]] = {}

    def __call__(self, keys: Sequence[Array], seed: int) -> Labels:
        """See `label`."""
        known = self._known.pop(seed, None)
        if known is None or len(known[0]) != len(keys) or not all(map(np.array_equal, known[0], keys)):
            known = None
            labels = label(keys, seed)
            if self._LEAST <= len(labels.of) <= self._MOST:
                known = [key.copy() for key in keys], labels
        if known is None:
            return labels
        self._known[seed] = known
        while len(self._known) > self._LISTS:
            del self._known[next(iter(self._known))]
        return known[1]


def _codes(keys: Sequence[Array]) -> Slots | None:
    """One number for each thing, equal for equal keys, below four times the number of things; None: keys differ by too
    much for that."""
    size, parts = 1, []
    for key in sorted(keys, key=lambda key: -key.dtype.itemsize):  # what differs by too much is found first
        least = int(key.min(initial=key[0])) if len(key) else 0
        span = int(key.max(initial=key[0])) - least + 1 if len(key) else 1
        size *= span
        if size > 4 * len(key) + 1:
            return None
        if span > 1:
            parts.append((key, least, span))
    codes = np.zeros(len(keys[0]), np.int64)
    for key, least, span in parts:
        codes *= span
        if key.dtype.kind == "u":  # differences fit, the values may not
            codes += (key - key.dtype.type(least)).astype(np.int64)
        else:
            codes += key.astype(np.int64) - least
    return codes


def _numbered(codes: Slots, keys: Sequence[Array], seed: int) -> Labels:
    """Labels by small numbers: a table has a place for each of them."""
    place = np.full(int(codes.max(initial=-1)) + 1, -1, np.int64)
    place[codes] = np.arange(len(codes))
    one = place[place >= 0]
    one.sort()
    place[codes[one]] = np.arange(len(one))
    return Labels(place[codes], one, _mixed([key[one] for key in keys], seed))


def _leaders(keys: Sequence[Array], hashes: npt.NDArray[np.uint64]) -> Slots:
    """The leader of each thing: the position of one thing, the same for equal things.

    In each round every thing writes its position to the cell of its hash, and follows the thing it reads there if their
    keys are equal. Equal things share a cell, so either all or none of them follow. The others try another cell.
    """
    leader = left = np.arange(len(hashes))  # one array at first: leaders are not written to
    while len(left):
        cells = np.empty(1 << (2 * len(left)).bit_length(), np.int32)
        mask = np.uint64(len(cells) - 1)
        for piece in pieces(len(left)):
            cells[(hashes[piece] & mask).view(np.int64)] = _places(piece)
        unlike = []
        for piece in pieces(len(left)):
            leaders = cells[(hashes[piece] & mask).view(np.int64)]
            met = np.flatnonzero(leaders != _places(piece))  # who reads itself is a leader
            leaders, met = leaders[met].astype(np.int64), met + piece.start
            same = np.ones(len(met), np.bool_)
            for key in keys:
                same &= key[met] == key[leaders]
            leader[left[met[same]]] = left[leaders[same]]
            unlike.append(met[~same])
        others = np.concatenate(unlike)
        left, hashes, keys = left[others], hashes[others], [key[others] for key in keys]
        hashes = hashes * _MULTIPLIER ^ hashes >> np.uint64(32)
    return leader


def pieces(count: int) -> Iterator[slice]:
    """Slices of a range, so that intermediate results stay in the CPU cache and need no new memory."""
    return (slice(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE))


_PIECE = 32_768


def _places(piece: slice) -> npt.NDArray[np.int32]:
    return np.arange(piece.start, piece.stop, dtype=np.int32)


def conversation_keys(columns: FlowColumns) -> tuple[Array, ...]:
    """Keys of a conversation: CONVERSATION_BYTES of the Flow Key, as integers."""
    return (*address_words(columns, "source_address"), *address_words(columns, "destination_address"),
            columns["source_port"], columns["destination_port"], columns["protocol"], columns["ip_version"],
            columns["kind"])


def _mixed(keys: Sequence[Array], seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each thing (multiply, xor and shift, as in splitmix64)."""
    every = np.full(len(keys[0]), seed & 0xFFFF_FFFF_FFFF_FFFF, np.uint64)
    for piece in pieces(len(every)):
        mixed = every[piece]
        for key in keys:
            mixed ^= key[piece].astype(np.uint64)
            mixed *= _MULTIPLIER
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58_476D_1CE4_E5B9)
            mixed ^= mixed >> np.uint64(32)
    return every
