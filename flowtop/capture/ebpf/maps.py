"""Drain the flow maps without loss: two sides, a flip, an RCU grace period, batch moves into numpy arrays."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.ring import ONE_PAGE, Ring
from flowtop.model.owners import are_processes
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE

SIDES = 2
CONTROL_SIDE, CONTROL_EVERYTHING = 1, 2
"""Bits of the control word: enum flow_control."""
_U32 = struct.Struct("=I")


class FlowBuffer:
    """Keys and counters of drained entries: two arrays that are reused by every drain and grow as needed.

    Attributes:
        count: entries in use, at the front of both arrays.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._keys = np.empty(capacity, FLOW_KEY_DTYPE)
        self._counters = np.empty(capacity, FLOW_COUNTERS_DTYPE)
        self.count = 0

    @property
    def capacity(self) -> int:
        """Number of entries that fit."""
        return len(self._keys)

    @property
    def keys(self) -> npt.NDArray[np.void]:
        """FLOW_KEY_DTYPE, shape (count,): a view."""
        return self._keys[:self.count]

    @property
    def counters(self) -> npt.NDArray[np.void]:
        """FLOW_COUNTERS_DTYPE, shape (count,): a view."""
        return self._counters[:self.count]

    def reserve(self, capacity: int) -> None:
        """Make room for at least `capacity` entries; entries in use are kept."""
        if capacity <= self.capacity:
            return
        keys, counters = np.empty(capacity, FLOW_KEY_DTYPE), np.empty(capacity, FLOW_COUNTERS_DTYPE)
        keys[:self.count], counters[:self.count] = self.keys, self.counters
        self._keys, self._counters = keys, counters

    def move_from(self, map_fd: int) -> None:
        """Append all entries of a hash map and delete them there. No program may write to the map meanwhile."""
        cursor = bpf.BatchCursor()
        code = 0
        while code != errno.ENOENT:
            if code == errno.ENOSPC or self.count == self.capacity:
                self.reserve(2 * self.capacity)
            moved, code = bpf.lookup_and_delete_batch(
                map_fd, cursor, self._keys.ctypes.data + self.count * FLOW_KEY_DTYPE.itemsize,
                self._counters.ctypes.data + self.count * FLOW_COUNTERS_DTYPE.itemsize, self.capacity - self.count)
            self.count += moved


class Grace:
    """Waits until all running eBPF programs have returned (an RCU grace period).

    It uses membarrier(2), except with nohz_full (EINVAL) and with one CPU online (returns at once). Then it replaces an
    element of an ARRAY_OF_MAPS, after which the kernel calls synchronize_rcu() (maybe_wait_bpf_programs).

    Args:
        membarrier: waits, or raises OSError.
        online_cpus: returns the number of CPUs online.
        maps: of bpf.grace_maps, which this owns from here on; None: they are made.
    """

    def __init__(
        self,
        membarrier: Callable[[], None] = bpf.membarrier_global,
        online_cpus: Callable[[], int] = lambda: os.sysconf("SC_NPROCESSORS_ONLN"),
        maps: tuple[int, int] | None = None,
    ) -> None:
        self._membarrier = membarrier
        self._online_cpus = online_cpus
        # Created now, while privileges are available.
        self._inner_fd, self._outer_fd = maps or bpf.grace_maps()

    def wait(self) -> None:
        """Wait for a grace period: 8 to 40 ms."""
        if self._online_cpus() > 1:
            try:
                self._membarrier()
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                    raise
            else:
                return
        bpf.map_update(self._outer_fd, _U32.pack(0), _U32.pack(self._inner_fd))

    def close(self) -> None:
        """Close the maps."""
        os.close(self._outer_fd)
        os.close(self._inner_fd)


class FlowMaps:
    """The two sides of the flow maps and of the aggregate maps. A key is in at most one map of a side.

    Args:
        maps: file descriptors by name: control, inserted, and per side flows, aggregates, rest (flows_a...); half_full
            if the program was compiled with it.
        grace: waits for running programs.
        buffer: receives the drained entries.

    Attributes:
        active: the side that packets are counted on.
        everything: lift the capture filter from the next flip on.
    """

    def __init__(self, maps: Mapping[str, int], grace: Grace, buffer: FlowBuffer | None = None) -> None:
        self._control_fd = maps["control"]
        self._inserted_fd = maps["inserted"]
        self._sides = (("flows_a", "aggregates_a", "rest_a"), ("flows_b", "aggregates_b", "rest_b"))
        self._maps = maps
        self._grace = grace
        self._half_full = Ring(maps["half_full"], ONE_PAGE) if "half_full" in maps else None
        self._word = np.zeros(1, "u4")
        self._entries = np.zeros(1, "u4")
        self._insertions = [bpf.RepeatedLookup(self._inserted_fd, _U32.pack(side), self._entries.ctypes.data)
                            for side in (0, 1)]
        self.buffer = buffer if buffer is not None else FlowBuffer()
        self.everything = False
        self.active = self._read(self._control_fd, 0) & CONTROL_SIDE

    def _read(self, map_fd: int, index: int) -> int:
        bpf.map_lookup(map_fd, _U32.pack(index), self._word.ctypes.data)
        return int(self._word[0])

    def inserted(self) -> int:
        """Number of entries added to the active side since its last drain."""
        self._insertions[self.active].read()
        return int(self._entries[0])

    @property
    def wakes(self) -> int | None:
        """Descriptor that becomes readable when a side is more than half full; None: this kernel cannot tell."""
        return None if self._half_full is None else self._maps["half_full"]

    def awaken(self) -> None:
        """Have `wakes` be readable again only when a side gets half full after this."""
        if self._half_full is not None and not self._half_full.empty:
            self._half_full.take()

    def flip(self) -> int:
        """Make the other side active. Returns the previous side, which is idle after `settle`."""
        idle, self.active = self.active, 1 - self.active
        bpf.map_update(self._control_fd, _U32.pack(0),
                       _U32.pack(self.active | (CONTROL_EVERYTHING if self.everything else 0)))
        return idle

    def settle(self) -> None:
        """Wait until no program writes to the idle side."""
        self._grace.wait()

    def drain(self, side: int) -> None:
        """Append the idle side's flows and aggregates to `buffer` and empty the side."""
        expected = self._read(self._inserted_fd, side)
        self.buffer.reserve(self.buffer.count + expected + expected // 64 + 64)
        for name in self._sides[side]:
            self.buffer.move_from(self._maps[name])
        bpf.map_update(self._inserted_fd, _U32.pack(side), _U32.pack(0))

    def close(self) -> None:
        """Unmap what is mapped."""
        if self._half_full is not None:
            self._half_full.close()


def merge_duplicates(
    keys: npt.NDArray[np.void], counters: npt.NDArray[np.void]
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Merge entries of the same key: sums added, first and last times and TCP bits merged, the rest of the first entry.

    Args:
        keys: FLOW_KEY_DTYPE, shape (n,).
        counters: FLOW_COUNTERS_DTYPE, shape (n,).

    Returns:
        The two arrays with m <= n entries; new arrays if anything was merged.
    """
    order = np.argsort(counters["first_ns"], kind="stable")
    # Comparing as bytes ignores only trailing zeros, so for keys of fixed width it is byte equality.
    identity = np.ascontiguousarray(keys[order]).view(f"S{FLOW_KEY_DTYPE.itemsize}")
    _, first, group = np.unique(identity, return_index=True, return_inverse=True)
    if len(first) == len(keys):
        return keys, counters
    entries = counters[order]
    merged = entries[first]
    for name in ("packets", "octets", "fragments"):
        merged[name] = 0
        np.add.at(merged[name], group, entries[name])
    np.maximum.at(merged["last_ns"], group, entries["last_ns"])
    _merge_sockets(merged, group, entries)
    np.maximum.at(merged["tcp_bit_seen"], group, entries["tcp_bit_seen"])
    np.bitwise_or.at(merged["tcp_bits_hint"], group, entries["tcp_bits_hint"])
    return keys[order][first], merged


def _merge_sockets(merged: npt.NDArray[np.void], group: npt.NDArray[np.int64], entries: npt.NDArray[np.void]) -> None:
    """Merge first times, owners and the last values from the socket. Entries ascend by first_ns."""
    for name in ("syn_ns", "fin_ns", "rst_ns"):
        some = np.flatnonzero(entries[name])[::-1]  # the last assignment wins: the earliest
        merged[name][group[some]] = entries[name][some]
    some = np.flatnonzero(entries["owner"])
    some = some[np.argsort(are_processes(entries["owner"][some]), kind="stable")]  # the last assignment wins
    merged["owner"][group[some]] = entries["owner"][some]
    some = np.flatnonzero(entries["congestion_window"])
    for name in ("smoothed_rtt_us", "congestion_window", "retransmitted"):
        merged[name][group[some]] = entries[name][some]
