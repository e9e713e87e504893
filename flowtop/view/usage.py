"""What flowtop itself costs."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from flowtop.view.query import SelfUsage

_WORTH_TELLING = 0.01


class UsageMeter:
    """flowtop's own CPU and memory, once a tick.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._cpu_s = time.process_time()
        self._statm = Path("/proc/self/statm")
        self._usage = self._told = SelfUsage()

    @property
    def usage(self) -> SelfUsage:
        """Over the last tick; asked for to be shown."""
        self._told = self._usage
        return self._told

    def settle(self) -> bool:
        """Measure again though no tick has ended; whether the CPU is so much less than was told that it should be told.

        Only less: to tell costs CPU itself, and telling of that would never end.
        """
        self.tick()
        return self._told.cpu - self._usage.cpu >= _WORTH_TELLING

    def tick(self) -> None:
        """A tick is over."""
        at, cpu_s = self._clock(), time.process_time()
        resident_pages = int(self._statm.read_text().split()[1])
        self._usage = SelfUsage(
            cpu=(cpu_s - self._cpu_s) / max(at - self._at, 1e-9),
            resident_octets=resident_pages * resource.getpagesize(),
        )
        self._at, self._cpu_s = at, cpu_s
