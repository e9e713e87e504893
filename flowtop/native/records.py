"""Calls of records.c: Flow Records of slots."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact

_COLUMNS = {
    "packet_total": 8, "octet_total": 8, "packet_reported": 8, "octet_reported": 8, "packet_duplicate": 8,
    "octet_duplicate": 8, "first_ns": 8, "last_ns": 8, "reported_ns": 8, "record_count": 4, "duplicate": 1}
_MEMBERS = {"packet_delta": 8, "octet_delta": 8, "start_ms": 8, "end_ms": 8, "end_reason": 1, "duplicate": 1}


class _Member(ctypes.Structure):
    _fields_ = (("items", ctypes.c_void_p), ("size", ctypes.c_int64), ("offset", ctypes.c_int64))


class Books(ctypes.Structure):
    """Pointers to columns of the store, and offsets of members of a record."""

    _fields_ = (*((name, ctypes.c_void_p) for name in _COLUMNS),
                *((f"{name}_at", ctypes.c_int64) for name in _MEMBERS))


class Mixed(NamedTuple):
    """Records of which a part is duplicate.

    Attributes:
        at: which, ascending.
        packets, octets: of the duplicates.
    """

    at: npt.NDArray[np.int64]
    packets: npt.NDArray[np.uint64]
    octets: npt.NDArray[np.uint64]


def make_records(library: ctypes.CDLL, store: Any, slots: npt.NDArray[np.int64], records: npt.NDArray[np.void],
                 names: Iterable[str], reason: int, now_ns: int | npt.NDArray[np.int64], unix_offset_ns: int) -> Mixed:
    """Fill the records of slots, and note in the store what they report.

    Args:
        store: a FlowStore.
        slots: shape (n,).
        records: zeros, shape (n,).
        names: columns that are copied; the keys are, too.
        reason, now_ns, unix_offset_ns: see metering.flows.report.

    Raises IndexError, and changes nothing: there is no such slot.
    """
    n, capacity, slots, fields = len(slots), store.capacity, compact(slots), records.dtype.fields
    assert fields is not None
    size = records.dtype.itemsize
    members = [(store.keys, store.keys.itemsize, fields["source_address"][1])]  # its members follow each other in both
    for name in names:
        column = getattr(store, name)
        if fields[name][0].itemsize != column.itemsize:
            raise ValueError(f"{name}: {fields[name][0]}, {column.dtype}")
        members.append((column, column.itemsize, fields[name][1]))
    each = (_Member * len(members))(*(_Member(address(column, itemsize, capacity), itemsize, at)
                                      for column, itemsize, at in members))
    books = Books(*(address(getattr(store, name), itemsize, capacity) for name, itemsize in _COLUMNS.items()),
                  *(fields[name][1] for name in _MEMBERS))
    times = np.ascontiguousarray(now_ns, np.int64).reshape(-1)
    if len(times) not in (1, n) or any(fields[name][0].itemsize != itemsize for name, itemsize in _MEMBERS.items()):
        raise ValueError(f"{len(times)} times of {n} records: {records.dtype}")
    mixed = Mixed(np.empty(n, np.int64), np.empty(n, np.uint64), np.empty(n, np.uint64))
    found: int = library.make_records(
        each, ctypes.c_int64(len(members)), ctypes.byref(books), ctypes.c_int64(capacity),
        ctypes.c_void_p(address(slots, 8, n)), ctypes.c_int64(n), ctypes.c_void_p(address(records, size, n)),
        ctypes.c_int64(size), ctypes.c_int64(reason), ctypes.c_void_p(address(times, 8, 0)),
        ctypes.c_int64(len(times) == n), ctypes.c_int64(unix_offset_ns),
        *(ctypes.c_void_p(address(part, 8, n)) for part in mixed))
    if found < 0:
        raise IndexError(f"no such slot below {capacity}")
    return Mixed(mixed.at[:found], mixed.packets[:found], mixed.octets[:found])
