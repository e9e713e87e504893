"""Capture backends: each turns a source of packets into `FlowBatch`es."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flowtop.record import FlowBatch


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
