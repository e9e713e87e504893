"""Collected rows as a FlowBatch's arrays: every Flow Key once, with the sum of what was told of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE
from flowtop.wire.collected import Collected

_LATEST_MS = (1 << 62) // 1_000_000
"""The year 2116: sums of later times in ns would overflow."""
_WORDS = FLOW_KEY_DTYPE.itemsize // 8


def flow_entries(rows: Collected) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Keys and counters of the rows.

    Returns:
        FLOW_KEY_DTYPE and FLOW_COUNTERS_DTYPE, shape (m,): m different keys. The MACs, TOS and TTL are those of the row
        that begins first. Times are ns since 1970 UTC.
    """
    keys = np.empty(len(rows), FLOW_KEY_DTYPE)
    for name in FLOW_KEY_DTYPE.names or ():
        keys[name] = rows[name]
    if not len(rows):
        return keys, np.zeros(0, FLOW_COUNTERS_DTYPE)
    order = np.lexsort((rows["start_ms"], *np.ascontiguousarray(keys).view(np.uint64).reshape(-1, _WORDS).T))
    words = keys[order].view(np.uint64).reshape(-1, _WORDS)
    starts = np.flatnonzero(np.concatenate(([True], (words[1:] != words[:-1]).any(axis=1))))
    ordered = rows[order]
    counters = np.zeros(len(starts), FLOW_COUNTERS_DTYPE)
    for name in ("source_mac", "destination_mac", "tos", "ttl"):
        counters[name] = ordered[name][starts]
    for name in ("packets", "octets"):
        counters[name] = np.add.reduceat(ordered[name], starts)
    counters["first_ns"] = ordered["start_ms"][starts].clip(0, _LATEST_MS) * 1_000_000
    counters["last_ns"] = np.maximum.reduceat(ordered["end_ms"], starts).clip(0, _LATEST_MS) * 1_000_000
    bits = np.bitwise_or.reduceat(ordered["tcp_control_bits"], starts)
    counters["tcp_bits_hint"] = bits
    counters["tcp_bit_seen"] = bits[:, None] >> np.arange(12, dtype=np.uint16) & np.uint16(1)
    return keys[order][starts], counters
