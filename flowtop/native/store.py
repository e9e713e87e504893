"""Calls of store.c: slots that are used again."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact


class _Column(ctypes.Structure):
    _fields_ = (("items", ctypes.c_void_p), ("size", ctypes.c_int64))


def clear_items(library: ctypes.CDLL, columns: Sequence[npt.NDArray[Any]], slots: npt.NDArray[np.int64]) -> None:
    """Set the items in these slots of all columns to zero. Raises IndexError, and changes nothing: no such slot."""
    n, capacity, slots = len(slots), min(map(len, columns)), compact(slots)
    each = (_Column * len(columns))(*(_Column(address(column, column.itemsize, capacity), column.itemsize)
                                      for column in columns))
    done: int = library.clear_items(each, ctypes.c_int64(len(columns)), ctypes.c_int64(capacity),
                                    ctypes.c_void_p(address(slots, 8, n)), ctypes.c_int64(n))
    if done != n:
        raise IndexError(f"no slot {slots[done]} below {capacity}")
