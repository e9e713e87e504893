"""What flowtop itself costs."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from flowtop.view.query import SelfUsage


class UsageMeter:
    """flowtop's own CPU and memory, once a tick.

    Args:
        clock: seconds, monotonic.

    Attributes:
        usage: over the last tick.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._cpu_s = time.process_time()
        self._statm = Path("/proc/self/statm")
        self.usage = SelfUsage()

    def tick(self) -> None:
        """A tick is over."""
        at, cpu_s = self._clock(), time.process_time()
        resident_pages = int(self._statm.read_text().split()[1])
        self.usage = SelfUsage(
            cpu=(cpu_s - self._cpu_s) / max(at - self._at, 1e-9),
            resident_octets=resident_pages * resource.getpagesize(),
        )
        self._at, self._cpu_s = at, cpu_s
