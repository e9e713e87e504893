"""Calls of expiry.c: which flows are due."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address

Slots = npt.NDArray[np.int64]

_ITEMSIZES = {"occupied": 1, "end_reason": 1, "tcp_control_bits": 2, "last_ns": 8, "reported_ns": 8}
_EARLIEST_NS = -1 << 63


class Columns(ctypes.Structure):
    """Pointers to columns of the store."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in _ITEMSIZES)


class _Limits(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("end_ns", "idle_ns", "active_ns", "closing_bits"))


def due_flows(library: ctypes.CDLL, store: Any, end_ns: int, idle_ns: int, active_ns: int,
              closing_bits: int) -> tuple[Slots, Slots, Slots]:
    """Live flows, ascending: those with closing bits and no packet since `end_ns`, others with none since `idle_ns`,
    and of the rest those without a record since `active_ns`.

    Args:
        store: a FlowStore.
    """
    top = store.top
    columns = Columns(*(address(getattr(store, name), size, top) for name, size in _ITEMSIZES.items()))
    limits = _Limits(*(max(limit, _EARLIEST_NS) for limit in (end_ns, idle_ns, active_ns)), closing_bits)
    ended, idle, active = (np.empty(top, np.int64) for _ in range(3))
    found = np.zeros(3, np.int64)
    library.due_flows(ctypes.byref(columns), ctypes.byref(limits), ctypes.c_int64(top), *(
        ctypes.c_void_p(address(array, 8, len(array))) for array in (ended, idle, active, found)))
    ends, idles, actives = found.tolist()
    return ended[:ends].copy(), idle[:idles].copy(), active[:actives].copy()
