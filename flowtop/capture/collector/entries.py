"""Collected rows as a FlowBatch's arrays: one entry per Flow Key, with summed counters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import TCP_CONTROL_BITS, TCP_OPENING_BIT
from flowtop.model.record import DESCRIBED_DTYPE, FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, with_opening
from flowtop.model.reported import Reported, last_given, rows_of
from flowtop.wire.flow_records import Collected

_LATEST_MS = (1 << 62) // 1_000_000
"""The year 2116: sums of later times in ns could overflow."""
_WORDS = FLOW_KEY_DTYPE.itemsize // 8
_MULTIPLIERS = np.random.default_rng().integers(1, 1 << 63, _WORDS, np.uint64) << np.uint64(1) | np.uint64(1)
"""Random multipliers of the hash that groups rows by key, so that no sender can choose colliding keys."""


CollectedEntries = tuple[npt.NDArray[np.void], npt.NDArray[np.void], npt.NDArray[np.uint32]]
"""FlowBatch.keys, counters, other_ifindexes."""


class MergedRows(NamedTuple):
    """Arrays of a FlowBatch; see `merge_rows`."""

    keys: npt.NDArray[np.void]
    counters: npt.NDArray[np.void]
    other_ifindexes: npt.NDArray[np.uint32]
    described: npt.NDArray[np.void]
    reported: Reported | None


def flow_entries(rows: Collected) -> CollectedEntries:
    """Merge rows by Flow Key.

    Returns:
        FLOW_KEY_DTYPE, FLOW_COUNTERS_DTYPE and u4 (interface on the exporter's other side), shape (m,): m
        distinct keys in the order of their first row. MACs, TOS, TTL and the other interface are those of the first
        row. Times are ns since 1970 UTC.
    """
    merged = merge_rows(rows)
    return merged.keys, merged.counters, merged.other_ifindexes


def merge_rows(rows: Collected, reported: Reported | None = None) -> MergedRows:
    """As `flow_entries`, and what else the records say: RecordBits of the first row, the sum of flow counts, and of the
    reported values of each key the last one that was given.

    Args:
        reported: of each row, shape (n,).
    """
    keys = np.empty(len(rows), FLOW_KEY_DTYPE)
    for name in FLOW_KEY_DTYPE.names or ():
        keys[name] = rows[name]
    if not len(rows):
        return MergedRows(keys, np.zeros(0, FLOW_COUNTERS_DTYPE), np.zeros(0, np.uint32), np.zeros(0, DESCRIBED_DTYPE),
                          reported)
    order, starts = _by_key(keys.view(np.uint64).reshape(-1, _WORDS))
    if len(starts) == len(rows):
        return _each_alone(rows, keys, reported)
    firsts = order[starts]
    counters = np.zeros(len(starts), FLOW_COUNTERS_DTYPE)
    for name in ("source_mac", "destination_mac", "tos", "ttl"):
        counters[name] = rows[name][firsts]
    for name in ("packets", "octets"):
        counters[name] = np.add.reduceat(rows[name][order], starts)
    counters["first_ns"] = np.minimum.reduceat(rows["start_ms"][order], starts).clip(0, _LATEST_MS) * 1_000_000
    counters["last_ns"] = np.maximum.reduceat(rows["end_ms"][order], starts).clip(0, _LATEST_MS) * 1_000_000
    # A record with both SYN and ACK does not say whether one packet had both.
    bits = np.bitwise_or.reduceat(with_opening(rows["tcp_control_bits"][order] & np.uint16(TCP_CONTROL_BITS)), starts)
    _note_bits(counters, bits)
    arrival = np.argsort(firsts)  # deterministic order, independent of the hash
    described = np.zeros(len(starts), DESCRIBED_DTYPE)
    described["record_bits"] = rows["record_bits"][firsts]
    if rows["flow_count"].any():
        described["flow_count"] = np.add.reduceat(rows["flow_count"][order], starts)
    if rows["owner"].any():
        counters["owner"] = _last_owners(rows["owner"][order], starts)
    if reported is not None:
        reported = rows_of(last_given(reported, order, starts), arrival)
    firsts = firsts[arrival]
    return MergedRows(keys[firsts], counters[arrival], rows["other_ifindex"][firsts], described[arrival], reported)


def _each_alone(rows: Collected, keys: npt.NDArray[np.void], reported: Reported | None) -> MergedRows:
    """The same of rows with a key each, as most often."""
    counters = np.zeros(len(rows), FLOW_COUNTERS_DTYPE)
    for name in ("source_mac", "destination_mac", "tos", "ttl", "packets", "octets", "owner"):
        counters[name] = rows[name]
    counters["first_ns"] = rows["start_ms"].clip(0, _LATEST_MS) * 1_000_000
    counters["last_ns"] = rows["end_ms"].clip(0, _LATEST_MS) * 1_000_000
    _note_bits(counters, with_opening(rows["tcp_control_bits"] & np.uint16(TCP_CONTROL_BITS)))
    described = np.zeros(len(rows), DESCRIBED_DTYPE)
    for name in ("record_bits", "flow_count"):
        described[name] = rows[name]
    return MergedRows(keys, counters, rows["other_ifindex"].copy(), described, reported)


def _note_bits(counters: npt.NDArray[np.void], bits: npt.NDArray[np.uint16]) -> None:
    counters["tcp_bits_hint"] = bits
    octets = np.ascontiguousarray(bits, "<u2").view(np.uint8).reshape(-1, 2)
    counters["tcp_bit_seen"] = np.unpackbits(octets, axis=1, count=TCP_OPENING_BIT + 1, bitorder="little")


def _last_owners(owners: npt.NDArray[np.uint64], starts: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
    """The last owner in each group of rows that is known."""
    last = np.maximum.reduceat(np.where(owners != 0, np.arange(len(owners)), -1), starts)
    return np.where(last >= 0, owners[last], np.uint64(0))


def _by_key(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return an order that groups rows by key and keeps their order within a key, and each group's start in it."""
    hashes = (words * _MULTIPLIERS).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    different = np.count_nonzero(_changes(hashes[order, None]))
    if different == len(words):  # every row is a key of its own, as most often: the order of arrival groups them
        order = np.arange(len(words))
        return order, order
    starts = np.flatnonzero(_changes(words[order]))
    if len(starts) != different:  # two keys with one hash
        order = np.lexsort(words.T)
        starts = np.flatnonzero(_changes(words[order]))
    return order, starts


def _changes(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether each row differs from the previous one; True for the first."""
    changes = np.ones(len(ordered), np.bool_)
    changes[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return changes
