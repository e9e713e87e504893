"""What is known of addresses that were looked up before, for many addresses at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.networks.database import Integers, Words

_LEAST_BITS, _MOST_BITS = 12, 21
"""Of the table's size: 26 octets an entry, so at most 55 MB; a table of 100,000 flows needs 14 MB."""
_EMPTY = np.uint16(0xFFFF)
"""In place of a country: the entry is not in use."""
_SPARSE = 3
"""Entries for each address that is stored."""


class Origins(NamedTuple):
    """Of each address: AS number, code of its name, code of the country; 0: not known. u4, u4 and u2, shape (n,)."""

    asn: npt.NDArray[np.uint32]
    name: npt.NDArray[np.uint32]
    country: npt.NDArray[np.uint16]

    @classmethod
    def none(cls, count: int) -> Origins:
        """Nothing is known of any."""
        return cls(np.zeros(count, np.uint32), np.zeros(count, np.uint32), np.zeros(count, np.uint16))

    def take(self, rows: Integers) -> Origins:
        """Those at these rows."""
        return Origins(self.asn[rows], self.name[rows], self.country[rows])

    def put(self, rows: Integers, others: Origins) -> None:
        """Replace those at these rows."""
        self.asn[rows], self.name[rows], self.country[rows] = others


class AddressCache:
    """A hash table with two places for each address. It grows with what is stored, up to a bound; then what was stored
    before is overwritten.

    Args:
        rng: chooses the hash, so that nobody can choose addresses that collide.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._factors = [np.uint64(int(factor) | 1) for factor in rng.integers(1 << 62, size=4)]
        self._stored = 0
        self._make(_LEAST_BITS)

    def clear(self) -> None:
        """Forget everything."""
        self._make(_LEAST_BITS)

    def find(self, high: Words, low: Words) -> tuple[Integers, Origins]:
        """What is known of these addresses, and the rows of those that are not stored, ascending."""
        first, second = self._places(high, low)
        elsewhere = np.flatnonzero(~self._is_at(first, high, low))
        missing = elsewhere[~self._is_at(second[elsewhere], high[elsewhere], low[elsewhere])]
        first[elsewhere] = second[elsewhere]
        found = self._values.take(first)
        if len(missing):
            found.put(missing, Origins.none(len(missing)))
        return missing, found

    def store(self, high: Words, low: Words, values: Origins) -> None:
        """Store what is known of these addresses."""
        self._stored += len(high)
        bits = self._bits
        while bits < _MOST_BITS and self._stored * _SPARSE > 1 << bits:
            bits += 1
        if bits > self._bits:
            self._grow(bits)
        first, second = self._places(high, low)
        for _ in range(2):  # again those whose place another one of them has taken
            used = self._values.country != _EMPTY
            at = np.where(used[first] & ~used[second], second, first)
            self._high[at], self._low[at] = high, low
            self._values.put(at, values)
            lost = np.flatnonzero(~self._is_at(at, high, low))
            high, low, values, first, second = high[lost], low[lost], values.take(lost), first[lost], second[lost]

    def _grow(self, bits: int) -> None:
        stored: int = self._stored
        high, low, values = self._high, self._low, self._values
        self._make(bits)
        kept = np.flatnonzero(values.country != _EMPTY)
        self.store(high[kept], low[kept], values.take(kept))
        self._stored = stored

    def _make(self, bits: int) -> None:
        size = 1 << bits
        self._bits, self._stored = bits, 0
        self._high: Words = np.zeros(size, np.uint64)
        self._low: Words = np.zeros(size, np.uint64)
        self._values: Origins = Origins.none(size)
        self._values.country.fill(_EMPTY)

    def _is_at(self, at: Integers, high: Words, low: Words) -> npt.NDArray[np.bool_]:
        there: npt.NDArray[np.bool_] = self._low[at] == low
        there &= self._high[at] == high
        there &= self._values.country[at] != _EMPTY
        return there

    def _places(self, high: Words, low: Words) -> tuple[Integers, Integers]:
        one, other, *last = self._factors
        mixed = (high ^ high >> np.uint64(29)) * one ^ (low ^ low >> np.uint64(31)) * other
        mixed ^= mixed >> np.uint64(32)
        shift = np.uint64(64 - self._bits)
        first, second = ((mixed * factor >> shift).astype(np.int64) for factor in last)
        return first, second
