"""Calls of keys.c: the hash index."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact

Words = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.int64]

_LEAST_CELLS = 2


class _Hasher(ctypes.Structure):
    _fields_ = (("multipliers", ctypes.c_void_p), ("offset", ctypes.c_uint64), ("mixers", ctypes.c_uint64 * 2),
                ("last_mask", ctypes.c_uint64), ("words", ctypes.c_int64))


class _Cells(ctypes.Structure):
    _fields_ = (("cells", ctypes.c_void_p), ("count", ctypes.c_uint64), ("stored", ctypes.c_void_p),
                ("capacity", ctypes.c_int64), ("stride", ctypes.c_int64))


class Keys:
    """The functions of one index. Arguments and results are as in metering/key_index.py.

    Args:
        multipliers: shape (2 * words,).
        last_mask: which bits of a key's last word count.
    """

    def __init__(self, library: ctypes.CDLL, multipliers: Words, offset: int, mixers: tuple[int, int],
                 last_mask: int) -> None:
        self._library = library
        self._multipliers = multipliers.copy()
        self._words = len(multipliers) // 2
        self._hasher = _Hasher(address(self._multipliers, 8, 2 * self._words), offset, mixers, last_mask, self._words)

    def _rows(self, keys: Words) -> Words:
        keys = compact(keys)
        if keys.ndim != 2 or keys.shape[1] < self._words or keys.dtype != np.uint64:
            raise ValueError(f"not keys of {self._words} words: {keys.dtype}, {keys.shape}")
        return keys

    def hash(self, keys: Words) -> Words:
        """The hashes of keys, shape (n, at least the words of a key)."""
        keys = self._rows(keys)
        hashes = np.empty(len(keys), np.uint64)
        self._library.hash_keys(ctypes.byref(self._hasher), ctypes.c_void_p(address(keys, 8, 0)),
                                ctypes.c_int64(keys.shape[1]), ctypes.c_int64(len(keys)),
                                ctypes.c_void_p(address(hashes, 8, len(keys))))
        return hashes

    def _cells(self, cells: Words, stored: Words, stride: int) -> _Cells:
        if len(cells) < _LEAST_CELLS or len(cells) & len(cells) - 1 or stored.shape[1] != stride:
            raise ValueError(f"not an index: {len(cells)} cells, keys {stored.shape}, {stride}")
        return _Cells(address(cells, 8, 0), len(cells), address(stored, 8, 0), len(stored), stride)

    def find(self, cells: Words, keys: Words, hashes: Words, stored: Words) -> Slots:
        """The slot of each key, -1 if it has none."""
        keys, hashes, n = self._rows(keys), compact(hashes), len(keys)
        index = self._cells(cells, self._rows(stored), keys.shape[1])
        slots = np.empty(n, np.int64)
        self._library.find_keys(ctypes.byref(self._hasher), ctypes.byref(index), ctypes.c_void_p(address(keys, 8, 0)),
                                ctypes.c_void_p(address(hashes, 8, n)), ctypes.c_int64(n),
                                ctypes.c_void_p(address(slots, 8, n)))
        return slots

    def place(self, cells: Words, entries: Words) -> int:
        """Put packed entries into empty cells; returns the longest probe."""
        entries = compact(entries)
        if len(cells) < _LEAST_CELLS or len(cells) & len(cells) - 1:
            raise ValueError(f"not an index: {len(cells)} cells")
        probes: int = self._library.place_entries(
            ctypes.c_void_p(address(cells, 8, 0)), ctypes.c_uint64(len(cells)), ctypes.c_void_p(address(entries, 8, 0)),
            ctypes.c_int64(len(entries)))
        return _checked(probes)

    def find_or_insert(self, cells: Words, keys: Words, slots: Slots, stored: Words) -> tuple[Slots, int, int]:
        """The slot of each key, how many are new, and the longest probe."""
        keys, slots, n = self._rows(keys), compact(slots), len(keys)
        hashes, owners, added = self.hash(keys), np.empty(n, np.int64), ctypes.c_int64()
        index = self._cells(cells, self._rows(stored), keys.shape[1])
        probes: int = self._library.find_or_insert_keys(
            ctypes.byref(self._hasher), ctypes.byref(index), ctypes.c_void_p(address(keys, 8, 0)),
            ctypes.c_void_p(address(hashes, 8, n)), ctypes.c_void_p(address(slots, 8, n)), ctypes.c_int64(n),
            ctypes.c_void_p(address(owners, 8, n)), ctypes.byref(added))
        return owners, added.value, _checked(probes)

    def rewrite(self, cells: Words, keys: Words, slots: Slots, low: Words) -> bool:
        """Set the low halves of entries; False: one is not there."""
        hashes, slots, low, n = self.hash(keys), compact(slots), compact(low), len(keys)
        done: int = self._library.rewrite_entries(
            ctypes.c_void_p(address(cells, 8, 0)), ctypes.c_uint64(len(cells)), ctypes.c_void_p(address(hashes, 8, n)),
            ctypes.c_void_p(address(slots, 8, n)), ctypes.c_void_p(address(low, 8, n)), ctypes.c_int64(n))
        return done == n


def _checked(probes: int) -> int:
    if probes < 0:
        raise MemoryError("the index has no empty cell")  # numpy would look for one for ever
    return probes
