"""Collected rows as a FlowBatch's arrays: every Flow Key once, with the sum of what was told of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import TCP_CONTROL_BITS, TCP_OPENING_BIT
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, with_opening
from flowtop.wire.flow_records import Collected

_LATEST_MS = (1 << 62) // 1_000_000
"""The year 2116: sums of later times in ns would overflow."""
_WORDS = FLOW_KEY_DTYPE.itemsize // 8
_MULTIPLIERS = np.random.default_rng().integers(1, 1 << 63, _WORDS, np.uint64) << np.uint64(1) | np.uint64(1)
"""Of the hash that brings rows of one key together: nobody can choose keys that collide."""


CollectedEntries = tuple[npt.NDArray[np.void], npt.NDArray[np.void], npt.NDArray[np.uint32]]
"""FlowBatch.keys, counters, other_ifindexes."""


def flow_entries(rows: Collected) -> CollectedEntries:
    """Keys and counters of the rows, and the interfaces at the exporter's other side.

    Returns:
        FLOW_KEY_DTYPE, FLOW_COUNTERS_DTYPE and u4, shape (m,): m different keys, in the order in which they came first.
        MACs, TOS, TTL and the other interface are those of the row that came first. Times are ns since 1970 UTC.
    """
    keys = np.empty(len(rows), FLOW_KEY_DTYPE)
    for name in FLOW_KEY_DTYPE.names or ():
        keys[name] = rows[name]
    if not len(rows):
        return keys, np.zeros(0, FLOW_COUNTERS_DTYPE), np.zeros(0, np.uint32)
    order, starts = _by_key(keys.view(np.uint64).reshape(-1, _WORDS))
    firsts = order[starts]
    counters = np.zeros(len(starts), FLOW_COUNTERS_DTYPE)
    for name in ("source_mac", "destination_mac", "tos", "ttl"):
        counters[name] = rows[name][firsts]
    for name in ("packets", "octets"):
        counters[name] = np.add.reduceat(rows[name][order], starts)
    counters["first_ns"] = np.minimum.reduceat(rows["start_ms"][order], starts).clip(0, _LATEST_MS) * 1_000_000
    counters["last_ns"] = np.maximum.reduceat(rows["end_ms"][order], starts).clip(0, _LATEST_MS) * 1_000_000
    # Of a record with both bits nobody knows whether they came together.
    bits = np.bitwise_or.reduceat(with_opening(rows["tcp_control_bits"][order] & np.uint16(TCP_CONTROL_BITS)), starts)
    counters["tcp_bits_hint"] = bits
    counters["tcp_bit_seen"] = bits[:, None] >> np.arange(TCP_OPENING_BIT + 1, dtype=np.uint16) & np.uint16(1)
    arrival = np.argsort(firsts)  # whatever the hash: the same input gives the same flows in the same order
    return keys[firsts[arrival]], counters[arrival], rows["other_ifindex"][firsts[arrival]]


def _by_key(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """An order in which rows of one key stand together, as they came; and where each key begins in it."""
    hashes = (words * _MULTIPLIERS).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(_changes(words[order]))
    if len(starts) != np.count_nonzero(_changes(hashes[order, None])):  # two keys with one hash
        order = np.lexsort(words.T)
        starts = np.flatnonzero(_changes(words[order]))
    return order, starts


def _changes(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which rows differ from the one before; the first does."""
    changes = np.ones(len(ordered), np.bool_)
    changes[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return changes
