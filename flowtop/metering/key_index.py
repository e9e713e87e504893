"""A hash index from Flow Keys to slots, vectorized over batches of keys.

Open addressing in one numpy array of u64: 32 bits of the hash and the slot, so that a probe compares keys only if the
hashes are equal. Measured against `dict[bytes, int]` at 1,000,000 keys (tests/bench/table.py): at most 48 octets per
key while growing (34 at that size) instead of about 200, 0.18 us instead of 0.7 us to insert, 0.11 us instead of 0.33
us to look up.

The hash is multilinear over 32-bit words with random 64-bit multipliers (strongly universal: Carter and Wegman 1979,
Lemire and Kaser 2014), because senders choose their keys: without the multipliers nobody can construct collisions. But
a sum of products is linear, and counters produce keys in equal steps (consecutive ports), whose hashes would be in
equal steps too and cluster. Therefore the sum is mixed before its bits are used.

flowtop/native/keys.c does the same, several times as fast; what is here is for where it was not built.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.native import library
from flowtop.native.keys import Keys

KEY_WORDS = FLOW_KEY_DTYPE.itemsize // 8
"""u64 words of a Flow Key."""

_LEAST = 1 << 12
_EMPTY = np.uint64(0)
_DELETED = np.uint64(0xFFFF_FFFF)
"""As the slot part of a cell; larger than any slot + 1."""
_SLOT = np.uint64(0xFFFF_FFFF)
_SHIFT = np.uint64(32)
_NOT_THERE = "a key to rewrite is not in the index"

Words = npt.NDArray[np.uint64]
"""Flow Keys as u64 words, shape (n, KEY_WORDS)."""
Slots = npt.NDArray[np.int64]
"""Slots, shape (n,)."""


def as_words(keys: npt.NDArray[np.void]) -> Words:
    """FLOW_KEY_DTYPE, shape (n,), as its u64 words, shape (n, KEY_WORDS); a view when `keys` is contiguous."""
    return np.ascontiguousarray(keys).view(np.uint64).reshape(-1, KEY_WORDS)


class KeyIndex:
    """Slots by key, where the key is the first `octets` octets of a Flow Key.

    Args:
        rng: random source of the hash's multipliers.
        octets: number of leading octets that form the key.
    """

    def __init__(self, rng: np.random.Generator, octets: int = FLOW_KEY_DTYPE.itemsize) -> None:
        self._words = -(-octets // 8)
        self._mask = np.full(self._words, 0xFFFF_FFFF_FFFF_FFFF, np.uint64)
        if octets % 8:
            self._mask.view(np.uint8)[octets:] = 0
        self._whole = octets % 8 == 0
        self._multipliers = rng.integers(0, 1 << 64, 2 * self._words, np.uint64, endpoint=False)
        self._offset = np.uint64(rng.integers(0, 1 << 64, None, np.uint64, endpoint=False))
        self._mixers = rng.integers(0, 1 << 64, 2, np.uint64, endpoint=False) | np.uint64(1)
        self._cells = np.zeros(_LEAST, np.uint64)
        self._used = 0
        self._deleted = 0
        self._crowded = False
        native = library.loaded()
        self._native = None if native is None else Keys(
            native, self._multipliers, int(self._offset), (int(self._mixers[0]), int(self._mixers[1])),
            int(self._mask[-1]))

    @property
    def nbytes(self) -> int:
        """Octets of memory."""
        return self._cells.nbytes

    def __len__(self) -> int:
        return self._used - self._deleted

    def _masked(self, keys: Words) -> Words:
        part = keys[:, : self._words]
        return part if self._whole else part & self._mask

    def hash(self, keys: Words) -> Words:
        """The 32-bit hash of each key as u64, shape (n,); depends on the state of `rng`."""
        return self._hash(self._masked(keys)) if self._native is None else self._native.hash(keys)

    def _hash(self, part: Words) -> Words:
        halves = np.ascontiguousarray(part).view(np.uint32)
        total = np.full(len(part), self._offset, np.uint64)
        for position, multiplier in enumerate(self._multipliers):
            total += halves[:, position] * multiplier
        for multiplier in self._mixers:
            total ^= total >> _SHIFT
            total *= multiplier
        return total >> _SHIFT

    def _step(self, hashes: Words) -> Words:
        """Odd strides: as the number of cells is a power of two, a probe sequence visits all of them."""
        return (hashes >> np.uint64(15)) | np.uint64(1)

    def find(self, keys: Words, hashes: Words, stored: Words) -> Slots:
        """The slot of each key, -1 if it has none.

        Args:
            keys: shape (n, KEY_WORDS).
            hashes: result of `hash` for these keys.
            stored: the key of each slot, shape (capacity, KEY_WORDS).
        """
        if self._native is not None:
            return self._native.find(self._cells, keys, hashes, stored)
        part = self._masked(keys)
        result = np.full(len(keys), -1, np.int64)
        where = np.arange(len(keys))
        at, step = hashes, self._step(hashes)
        last = np.uint64(len(self._cells) - 1)
        while len(where):
            cells = self._cells[at & last]
            hit = np.flatnonzero(cells >> _SHIFT == hashes)
            hit = hit[self._taken(cells[hit])]
            slots = (cells[hit] & _SLOT).astype(np.int64) - 1
            same = self._equal(stored, slots, part.take(where[hit], axis=0))
            result[where[hit[same]]] = slots[same]
            going = cells != _EMPTY
            going[hit[same]] = False
            where, hashes, step, at = where[going], hashes[going], step[going], at[going] + step[going]
        return result

    @staticmethod
    def _taken(cells: Words) -> npt.NDArray[np.bool_]:
        low: Words = cells & _SLOT
        taken: npt.NDArray[np.bool_] = (low != _EMPTY) & (low != _DELETED)
        return taken

    def _equal(self, stored: Words, slots: Slots, part: Words) -> npt.NDArray[np.bool_]:
        """Whether each of these slots holds the key in `part`."""
        kept = self._masked(stored.take(slots, axis=0))
        if np.array_equal(kept, part):  # nearly always, as the hashes are equal
            return np.ones(len(slots), np.bool_)
        equal: npt.NDArray[np.bool_] = (kept == part).all(axis=1)
        return equal

    def insert(self, hashes: Words, slots: Slots) -> None:
        """Add keys by their hashes; they must not be in the index, and must differ from each other."""
        self._reserve(len(hashes))
        self._place(hashes << _SHIFT | (slots + 1).astype(np.uint64))
        self._used += len(hashes)

    def _place(self, entries: Words) -> None:
        """Put packed entries into the first empty cell of their probe sequences."""
        if self._native is not None:
            self._note(self._native.place(self._cells, entries), len(entries))
            return
        at = entries >> _SHIFT
        step = self._step(at)
        last = np.uint64(len(self._cells) - 1)
        probes, count = 0, len(entries)
        while len(entries):
            probes += 1
            position = at & last
            free = self._cells[position] == _EMPTY
            self._cells[position[free]] = entries[free]
            going = self._cells[position] != entries
            entries, step, at = entries[going], step[going], at[going] + step[going]
        self._note(probes, count)

    def find_or_insert(self, keys: Words, slots: Slots, stored: Words) -> Slots:
        """The slot of each key; a key without one gets its item of `slots`. Equal keys in one call get the same slot.

        Args:
            keys: shape (n, KEY_WORDS).
            slots: slots to insert; `stored[slots]` must hold these keys already.
            stored: as in `find`.
        """
        self._reserve(len(keys))
        if self._native is not None:
            owners, added, probes = self._native.find_or_insert(self._cells, keys, slots, stored)
            self._used += added
            self._note(probes, len(keys))
            return owners
        part = self._masked(keys)
        at = hashes = self._hash(part)
        entries = hashes << _SHIFT | (slots + 1).astype(np.uint64)
        owners = slots.copy()
        where = np.arange(len(keys))
        step = self._step(hashes)
        last = np.uint64(len(self._cells) - 1)
        probes = 0
        while len(where):
            probes += 1
            position = at & last
            free = self._cells[position] == _EMPTY
            self._cells[position[free]] = entries[free]
            cells = self._cells[position]
            own = cells == entries
            self._used += int(np.count_nonzero(own & free))
            hit = np.flatnonzero((cells >> _SHIFT == entries >> _SHIFT) & ~own)
            hit = hit[self._taken(cells[hit])]
            candidates = (cells[hit] & _SLOT).astype(np.int64) - 1
            same = self._equal(stored, candidates, part.take(where[hit], axis=0))
            owners[where[hit[same]]] = candidates[same]
            going = ~own
            going[hit[same]] = False
            where, entries, step, at = where[going], entries[going], step[going], at[going] + step[going]
        self._note(probes, len(keys))
        return owners

    def replace(self, keys: Words, old: Slots, new: Slots) -> None:
        """Change the slots of keys in the index from `old` to `new`."""
        self._rewrite(keys, old, (new + 1).astype(np.uint64))

    def remove(self, keys: Words, slots: Slots) -> None:
        """Remove keys that are in the index at these slots."""
        self._rewrite(keys, slots, np.full(len(slots), _DELETED))
        self._deleted += len(slots)

    def _rewrite(self, keys: Words, slots: Slots, low: Words) -> None:
        """Find entries by hash and slot (slots are unique, so keys are not compared) and set their low half."""
        if self._native is not None:
            if not self._native.rewrite(self._cells, keys, slots, low):
                raise KeyError(_NOT_THERE)
            return
        hashes = self.hash(keys)
        entries = hashes << _SHIFT | (slots + 1).astype(np.uint64)
        at, step = hashes, self._step(hashes)
        last = np.uint64(len(self._cells) - 1)
        while len(entries):
            position = at & last
            cells = self._cells[position]
            if (cells == _EMPTY).any():
                raise KeyError(_NOT_THERE)
            here = cells == entries
            self._cells[position[here]] = (entries[here] & ~_SLOT) | low[here]
            going = ~here
            entries, low, step, at = entries[going], low[going], step[going], at[going] + step[going]

    def _note(self, probes: int, keys: int) -> None:
        """Note so many probes of so many keys. More than chance gives at a load of one half are of deleted cells with
        the same hash, as of a flow that comes and goes with the same ports all day: the next insertion removes them."""
        self._crowded |= self._deleted > 0 and probes > 12 + 2 * keys.bit_length()

    def _reserve(self, n: int) -> None:
        """Make room for n more keys at a load of one half; rebuilding removes deleted cells."""
        if 2 * (self._used + n) <= len(self._cells) and not self._crowded:
            return
        self._crowded = False
        live = self._cells[self._taken(self._cells)]
        size = _LEAST
        while 3 * (len(live) + n) > size:  # a third: so the next rebuild is as many insertions away as this one costs
            size *= 2
        self._cells = np.zeros(size, np.uint64)
        self._place(live)
        self._used = len(live)
        self._deleted = 0
