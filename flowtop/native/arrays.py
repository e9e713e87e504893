"""Addresses of arrays for the library, once it is certain that it may use them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def address(array: Array, itemsize: int, n: int) -> int:
    """Where an array's items are, one after another.

    Raises ValueError: its items have another size, it has fewer than n, has gaps between them, or does not begin where
    its items may: then the library must not be called.
    """
    found, alignment = array.ctypes.data, min(itemsize & -itemsize, 8)
    if array.itemsize != itemsize or len(array) < n or not array.flags.c_contiguous or found % alignment:
        raise ValueError(f"not {n} items of {itemsize} octets in one place: {array.dtype}, {array.shape}, {found % 8}")
    return found


def compact(array: Array) -> Array:
    """The array itself if the library can read it, else a copy."""
    if array.flags.c_contiguous and not array.ctypes.data % 8:
        return array
    return np.array(array, order="C")


