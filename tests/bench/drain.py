"""Entries a second from a full kernel map into the flow table: new flows, and known flows.

A drain is measured from the first bpf(2) call to the end of the tick: read and delete, find or add each flow, find
duplicates, rates, expiry; in CPU time of its thread, which never sleeps. Needs root; the map is this process's own
and no program writes to it. With flowtop's own library and with numpy alone, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import time

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.maps import FlowBuffer
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch
from tests.bench._flows import SECOND, counters_of, keys_of
from tests.bench._native import WAYS, way

AIM = 700_000
_MAP_UPDATE_BATCH = 26


def fill(map_fd: int, keys: npt.NDArray[np.void], counters: npt.NDArray[np.void]) -> None:
    """Write all entries into a hash map by BPF_MAP_UPDATE_BATCH."""
    bpf._bpf(_MAP_UPDATE_BATCH, struct.pack(
        "=QQQQIIQQ", 0, 0, keys.ctypes.data, counters.ctypes.data, len(keys), map_fd, 0, 0))


class Drains:
    """One map and one table, drained again and again."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._map_fd = bpf.map_create(bpf.MAP_TYPE_HASH, FLOW_KEY_DTYPE.itemsize, FLOW_COUNTERS_DTYPE.itemsize, entries)
        self._buffer = FlowBuffer(entries + entries // 64 + 64)
        self._table = FlowTable(TableConfig())
        self._rng = np.random.default_rng(1)
        self._now_ns = 1_000 * SECOND

    def drain(self, first: int) -> tuple[float, float]:
        """Seconds of reading the map and of the table's tick, for flows numbered from `first`."""
        self._now_ns += SECOND
        fill(self._map_fd, keys_of(np.arange(first, first + self._entries)),
             counters_of(self._entries, self._now_ns, self._rng))
        self._buffer.count = 0
        start = time.thread_time()
        self._buffer.move_from(self._map_fd)
        read = time.thread_time()
        self._table.update(FlowBatch(self._buffer.keys, self._buffer.counters, np.zeros(0, OBSERVATION_DTYPE),
                                     self._now_ns, 0))
        end = time.thread_time()
        if self._buffer.count != self._entries:
            raise RuntimeError(f"{self._buffer.count} entries drained of {self._entries}")
        return read - start, end - read

    def close(self) -> None:
        """Give the map back."""
        os.close(self._map_fd)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench drain", description=__doc__)
    parser.add_argument("--entries", type=int, default=65_536, help="capacity of the map")
    parser.add_argument("--rounds", type=int, default=10, help="drains of each kind; the median counts")
    arguments = parser.parse_args()
    drains = {}
    for name in WAYS:
        with way(name):
            drains[name] = Drains(arguments.entries)
            drains[name].drain(0)  # the table's first arrays
    samples: dict[str, dict[str, list[tuple[float, float]]]] = {"new": {}, "known": {}}
    for kind, firsts in (("new", range(1, arguments.rounds + 1)), ("known", [arguments.rounds] * arguments.rounds)):
        for first in firsts:
            for name, each in drains.items():
                samples[kind].setdefault(name, []).append(each.drain(first * arguments.entries))
    for each in drains.values():
        each.close()
    rates: dict[str, dict[str, float]] = {name: {} for name in WAYS}
    for kind, by_way in samples.items():
        for name, times in by_way.items():
            read, tick = (1e6 / arguments.entries * statistics.median(part) for part in zip(*times, strict=True))
            rates[name][kind] = arguments.entries / statistics.median(sum(pair) for pair in times)
            print(f"{kind:<6} flows {rates[name][kind]:>10,.0f} entries/s   map {read:.2f} us, "
                  f"table {tick:.2f} us an entry ({name})")
    print(json.dumps({"benchmark": "drain", "entries": arguments.entries,
                      "entries_per_s": {kind: round(rate) for kind, rate in rates[WAYS[0]].items()},
                      "numpy_entries_per_s": {kind: round(rate) for kind, rate in rates["numpy"].items()}, "aim": AIM,
                      "met": min(rates[WAYS[0]].values()) >= AIM}))
