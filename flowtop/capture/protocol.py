"""Capture backends: each turns a source of packets into `FlowBatch`es, and a wait in it can be ended from elsewhere."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol

from flowtop.model.record import FlowBatch


class Wake:
    """An event file descriptor that is open as long as this object lives.

    So `call` needs no lock: signal handlers interrupt one another, and may come before a capture is open and after it
    has been closed.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        """Readable from `call` to `heard`."""
        return self._descriptor

    def call(self) -> None:
        """End a wait, now or the next one. Any thread, and signal handlers."""
        try:
            os.eventfd_write(self._descriptor, 1)
        except BlockingIOError:
            return  # 2**64 - 2 calls that nobody has heard yet: one more says nothing new

    def heard(self) -> None:
        """The wait has ended."""
        os.eventfd_read(self._descriptor)


class Capture(Protocol):
    """A source of flows. All methods are called from one thread, the metering thread's drain."""

    def open(self, progress: Callable[[str], None]) -> None:
        """Start capturing; `progress` is told in words what is being waited for.

        Raises:
            FlowtopError: capture cannot start; nothing is left attached.
        """

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s` seconds, or earlier when a drain should not wait (map half full)."""

    def wake(self) -> None:
        """Make a `wait` in another thread return soon. The only method for any thread, and for signal handlers."""

    def drain(self) -> FlowBatch:
        """What was captured since the last call."""

    def lift_filter(self, lifted: bool) -> None:
        """Count every flow from the next drain on, or (False, as at first) those that the capture filter wants.

        No packet is counted twice or missed for it: what is not in a flow is in the books. Where there is no capture
        filter this changes nothing.
        """

    def close(self) -> FlowBatch:
        """Stop capturing, then drain: what was still there. Leaves nothing attached. Called once."""
