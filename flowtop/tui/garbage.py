"""The interpreter's garbage collection, run when no keys are pressed.

A full collection looks at every object there is: with a screen, its libraries and a parser these are some 100,000, and
it takes 50 to 90 ms, every two seconds or so, in which nothing is painted. Nearly all of them live as long as the
screen does, so they are excluded from it; the rest is collected when no keys are pressed.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

IDLE_S = 1.0
"""A collection waits until no key has been pressed for so long."""
EVERY_S = 10.0
AT_LEAST_EVERY_S = 60.0
"""Also while keys are pressed: garbage in cycles is bounded, by time and by amount."""
MOST_YOUNG = 100
"""Collections of younger objects, also while keys are pressed: about 700,000 objects that were not freed at once."""


class GarbageCollection:
    """When garbage is collected; from `settle` to `restore`.

    Reference counts free nearly everything at once; young objects are collected as ever.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before: tuple[int, int, int] | None = None
        self._pressed_at = 0.0

    def pressed(self) -> None:
        """A key: no full collection for a while."""
        self._pressed_at = self._clock()

    async def settle(self) -> None:
        """Exclude all objects that exist now; then collect when there is time, until cancelled."""
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(self._before[0], self._before[1], MOST_YOUNG)
        collected_at = self._clock()
        while True:
            await asyncio.sleep(IDLE_S)
            now = self._clock()
            idle = now - self._pressed_at >= IDLE_S
            if now - collected_at >= (EVERY_S if idle else AT_LEAST_EVERY_S):
                gc.collect()
                collected_at = now

    def restore(self) -> None:
        """As it was before `settle`, if that was called."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
            self._before = None
