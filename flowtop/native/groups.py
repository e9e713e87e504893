"""Calls of groups.c: packets put together by flow."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact

Integers = npt.NDArray[np.int64]

_ITEMSIZES = {"octets": 8, "time_ns": 8, "tcp_bits": 2, "tos": 1, "ttl": 1, "source_mac": 6, "destination_mac": 6,
              "fragment": 1, "sequence": 4, "segment_octets": 8, "echo": 1}
_KEY_WORDS, _COUNTERS, _SEGMENT, _RADIX = 7, 128, 22, 1 << 10


class Columns(ctypes.Structure):
    """Pointers to columns of packets."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _ITEMSIZES)


def group_keys(library: ctypes.CDLL, words: npt.NDArray[np.uint64],
               multipliers: npt.NDArray[np.uint64]) -> tuple[Integers, Integers] | None:
    """An order of packets by flow, and where in it each begins; None: two flows have one hash.

    Args:
        words: the packets' keys, shape (n, 7).
        multipliers: of the hash, shape (7,).
    """
    n, words = len(words), compact(words)
    if words.shape[1:] != (_KEY_WORDS,):
        raise ValueError(f"not keys: {words.shape}")
    hashes, starts = np.empty(n, np.uint64), np.empty(_RADIX, np.int64)
    order, other, begins = (np.empty(n, np.int64) for _ in range(3))
    found: int = library.group_keys(
        ctypes.c_void_p(address(words, 8, n)), ctypes.c_int64(n),
        ctypes.c_void_p(address(multipliers, 8, _KEY_WORDS)),
        *(ctypes.c_void_p(address(part, 8, 0)) for part in (hashes, order, other, starts, begins)))
    return None if found < 0 else (order, begins[:found])


def sum_groups(library: ctypes.CDLL, packets: Any, rows: Integers, begins: Integers, counters: npt.NDArray[np.void],
               segments: npt.NDArray[np.void]) -> int:
    """Sum the packets of each group into its counters, but for their owners; returns how many segments they have.

    Args:
        packets: of capture.packets.internet.
        rows: which, group by group, shape (n,).
        begins: where in `rows` each group begins, shape (m,).
        counters: FLOW_COUNTERS_DTYPE, shape (m,), zeros.
        segments: SEGMENT_DTYPE, shape (n,); the first ones become those of these packets.

    Raises IndexError: there is no such packet, or a group has none.
    """
    n, groups, rows, begins = len(rows), len(begins), compact(rows), compact(begins)
    count = len(packets.time_ns)
    kept = {name: compact(getattr(packets, name)) for name in _ITEMSIZES}
    columns = Columns(*(address(kept[name], size, count) for name, size in _ITEMSIZES.items()))
    found: int = library.sum_groups(
        ctypes.byref(columns), ctypes.c_int64(count), ctypes.c_void_p(address(rows, 8, n)), ctypes.c_int64(n),
        ctypes.c_void_p(address(begins, 8, groups)), ctypes.c_int64(groups),
        ctypes.c_void_p(address(counters, _COUNTERS, groups)), ctypes.c_void_p(address(segments, _SEGMENT, n)))
    if found < 0:
        raise IndexError(f"no such packet of {count}, or a group without any")
    return found
