"""Calls of entries.c: counters of a batch added to known flows."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact

MERGED = frozenset({"fragments", "owner"})
"""Members of model.record.CARRIED that later packets change, and that this merges."""

_ITEMSIZES = {
    "keys": 56, "packet_total": 8, "octet_total": 8, "open_packets": 8, "open_octets": 8, "first_ns": 8, "last_ns": 8,
    "tcp_control_bits": 2, "opening": 1, "fragments": 4, "owner": 8, "syn_ns": 8, "fin_ns": 8, "rst_ns": 8, "rtt_us": 4,
    "congestion_window": 4, "retransmitted": 4}
_COUNTERS = 128


class Columns(ctypes.Structure):
    """Pointers to columns of the store."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _ITEMSIZES)


def add_entries(library: ctypes.CDLL, store: Any, slots: npt.NDArray[np.int64],
                counters: npt.NDArray[np.void]) -> npt.NDArray[np.uint16]:
    """Add counters to flows, each once; returns the TCP control bits that each had not shown before, shape (n,).

    Args:
        store: a FlowStore.
        slots: of the flows, shape (n,).
        counters: FLOW_COUNTERS_DTYPE, shape (n,).

    Raises IndexError, and changes nothing: there is no such slot.
    """
    n, capacity = len(slots), store.capacity
    slots, counters, news = compact(slots), compact(counters), np.empty(len(slots), np.uint16)
    columns = Columns(*(address(getattr(store, name), size, capacity) for name, size in _ITEMSIZES.items()))
    done: int = library.add_entries(
        ctypes.byref(columns), ctypes.c_int64(capacity), ctypes.c_void_p(address(slots, 8, n)),
        ctypes.c_void_p(address(counters, _COUNTERS, n)), ctypes.c_int64(n), ctypes.c_void_p(address(news, 2, n)))
    if done != n:
        raise IndexError(f"no slot {slots[done]} below {capacity}")
    return news
