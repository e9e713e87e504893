"""Calls of sums.c: the sums of a batch for the totals."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.native.arrays import address, compact

U8 = npt.NDArray[np.uint64]
_KEY, _COUNTERS = 56, 128


class Sums(NamedTuple):
    """Packets and octets of the entries of a batch, without those of parents: see MeteringTotals."""

    accounted_packets: int
    accounted_octets: int
    aggregated_packets: int
    aggregated_octets: int
    tick_ingress_packets: int
    tick_ingress_octets: int
    tick_egress_packets: int
    tick_egress_octets: int


def sum_entries(library: ctypes.CDLL, keys: npt.NDArray[np.void], counters: npt.NDArray[np.void], packets: U8 | None,
                octets: U8 | None) -> Sums:
    """The sums of a batch's entries, shape (n,). `packets`, `octets`: what counts in the tick, (n,); None: all."""
    n, sums = len(keys), np.empty(len(Sums._fields), np.uint64)
    keys, counters = compact(keys), compact(counters)
    library.sum_entries(
        ctypes.c_void_p(address(keys, _KEY, n)), ctypes.c_void_p(address(counters, _COUNTERS, n)), ctypes.c_int64(n),
        *(ctypes.c_void_p(None if part is None else address(part, 8, n)) for part in (packets, octets)),
        ctypes.c_void_p(address(sums, 8, len(sums))))
    return Sums(*sums.tolist())
