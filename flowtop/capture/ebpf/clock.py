"""The kernel programs' clock, from inside a time namespace too."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def monotonic_offset_ns(path: Path = Path("/proc/self/timens_offsets")) -> int:
    """What this process's time namespace adds to CLOCK_MONOTONIC (time_namespaces(7)); 0 where there are none."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0
    for line in lines:
        clock, seconds, ns = line.split()
        if clock in ("monotonic", "1"):  # a number before Linux 5.7
            return int(seconds) * 1_000_000_000 + int(ns)
    return 0


def kernel_clock(
    offset_ns: int | None = None, monotonic_ns: Callable[[], int] = time.monotonic_ns
) -> Callable[[], int]:
    """CLOCK_MONOTONIC as eBPF programs read it: without the offset of the time namespace this process is in."""
    offset = monotonic_offset_ns() if offset_ns is None else offset_ns
    return monotonic_ns if offset == 0 else lambda: monotonic_ns() - offset
