"""Which of very many addresses are among some: those of hosts whose names fit a pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from flowtop.view.flows import Array

_BITS = 20
_FOUR = np.uint32(0x9E3779B1)
_SIXTEEN = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
"""Odd numbers without a pattern: a product's upper bits depend on all bits of the factor."""


def among_four(first: Array, wanted: Iterable[bytes]) -> npt.NDArray[np.bool_]:
    """Which of these IPv4 addresses are wanted.

    Args:
        first: u4, shape (n,): the four bytes of the wire as this machine's integers.
        wanted: of 4 bytes each.
    """
    numbers = np.frombuffer(b"".join(wanted), np.uint32)
    return _exact(_places(first, numbers, _hash_four), first, numbers)


def among_sixteen(words: Array, wanted: Iterable[bytes]) -> npt.NDArray[np.bool_]:
    """The same of IPv6 addresses.

    Args:
        words: u8, shape (n, 2), C-contiguous: the sixteen bytes.
        wanted: of 16 bytes each.
    """
    numbers = np.frombuffer(b"".join(wanted), np.uint64).reshape(-1, 2)
    # As text of a fixed length, which differs where a byte does: zeros at its end are those that all others have too.
    return _exact(_places(words, numbers, _hash_sixteen), words.view("S16")[:, 0], numbers.view("S16")[:, 0])


def _places(values: Array, wanted: Array, place: Callable[[Array], Array]) -> npt.NDArray[np.int64]:
    """Positions of all that are wanted, and of few others: those that share a place in a small table with one."""
    table = np.zeros(1 << _BITS, np.bool_)
    table[place(wanted)] = True
    return np.flatnonzero(table[place(values)])


def _hash_four(numbers: Array) -> Array:
    place: Array = numbers * _FOUR >> np.uint32(32 - _BITS)
    return place


def _hash_sixteen(words: Array) -> Array:
    mixed = (words[:, 0] * _SIXTEEN[0]) ^ (words[:, 1] * _SIXTEEN[1])
    place: Array = mixed * _SIXTEEN[0] >> np.uint64(64 - _BITS)
    return place


def _exact(rows: npt.NDArray[np.int64], values: Array, wanted: Array) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(values), np.bool_)
    found[rows] = np.isin(values[rows], wanted)
    return found
