"""The interface of captures, which turn a source of packets into `FlowBatch`es, and a way to interrupt their wait."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol

from flowtop.model.record import FlowBatch


class Wake:
    """An event file descriptor that stays open as long as this object exists.

    So `call` needs no lock: it may run in nested signal handlers, before a capture is open and after it was closed.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        """The descriptor is readable from `call` to `clear`."""
        return self._descriptor

    def call(self) -> None:
        """End the current wait, or the next one. May be called from any thread and from signal handlers."""
        try:
            os.eventfd_write(self._descriptor, 1)
        except BlockingIOError:
            return  # 2**64 - 2 calls are pending: one more changes nothing

    def clear(self) -> None:
        """Reset the descriptor after a wait."""
        os.eventfd_read(self._descriptor)


class Capture(Protocol):
    """A source of flows. The metering thread calls all methods except `wake`."""

    def open(self, progress: Callable[[str], None]) -> None:
        """Start capturing; `progress` gets one line of text per step.

        Raises:
            FlowtopError: capture cannot start; nothing is left attached.
        """

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s` seconds, or earlier when a drain should not wait (map half full)."""

    def wake(self) -> None:
        """Make a `wait` in another thread return soon. May be called from any thread and from signal handlers."""

    def drain(self) -> FlowBatch:
        """Return what was captured since the last call."""

    def lift_filter(self, lifted: bool) -> None:
        """Count all flows from the next drain on; False: only those that match the capture filter, as at the start.

        No packet is counted twice or missed at the change: packets in no flow are in the totals. Without a capture
        filter this does nothing.
        """

    def close(self) -> FlowBatch:
        """Stop capturing, detach everything and return the last drain. Called once."""
