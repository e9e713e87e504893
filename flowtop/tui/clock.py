"""Where the screen gets times from, as a value: tests hand in their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Where times come from.

    Attributes:
        wall: seconds since 1970 UTC.
        monotonic: seconds that only go forward.
        local: a wall time as local time.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    local: Callable[[float], time.struct_time] = time.localtime


SYSTEM_CLOCK = Clock()
