"""Calls of rates.c: the end of a tick for all flows."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact

Slots = npt.NDArray[np.int64]

_ITEMSIZES = {
    "open_packets": 8, "open_octets": 8, "packet_delta": 8, "octet_delta": 8, "packets_10s": 8, "octets_10s": 8,
    "packets_60s": 8, "octets_60s": 8, "bucket_packets": 8, "bucket_octets": 8, "bucket_listed": 1,
    "octet_rate_peak": 8}


class Columns(ctypes.Structure):
    """Pointers to columns of the store."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _ITEMSIZES)


def close_tick(library: ctypes.CDLL, store: Any, before: Slots, tick_s: float) -> tuple[Slots, Slots]:
    """Move the open tick's traffic of all flows into their sums.

    Args:
        store: a FlowStore.
        before: slots of the last tick, whose traffic is no longer that of the last tick.
        tick_s: for peaks; 0: there are none of this tick.

    Returns:
        Slots with traffic, ascending; and those of them that the open bucket had not listed.
    """
    top, before = store.top, compact(before)
    columns = Columns(*(address(getattr(store, name), size, top) for name, size in _ITEMSIZES.items()))
    tick, unlisted, found = np.empty(top, np.int64), np.empty(top, np.int64), np.zeros(2, np.int64)
    library.close_tick(
        ctypes.byref(columns), ctypes.c_void_p(address(before, 8, 0)), ctypes.c_int64(len(before)), ctypes.c_int64(top),
        ctypes.c_double(tick_s), *(ctypes.c_void_p(address(array, 8, len(array))) for array in (tick, unlisted, found)))
    ticks, unlisteds = found.tolist()
    return tick[:ticks].copy(), unlisted[:unlisteds].copy()
