"""A capture that makes its flows up: each of them brings packets in every drain, in an order that does not change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch

PACKET_OCTETS = 1_000


class SyntheticCapture:
    """Flow k of n brings about n - k packets of 1,000 octets a drain: rates change, ranks do not.

    Args:
        flows: how many.
        clock_ns: time of a drain.
        active: how many of them bring packets after the second drain, the first ones; None: all.
    """

    def __init__(self, flows: int, clock_ns: Callable[[], int] = time.monotonic_ns,
                 active: int | None = None) -> None:
        self._clock_ns = clock_ns
        self._wake = threading.Event()
        self._drains = 0
        self._active = active
        self._keys = _keys(flows)
        self._packets = 4 * np.arange(flows, 0, -1, dtype=np.uint64)
        self._seen = np.zeros(1, OBSERVATION_DTYPE)
        self._seen["ifindex"] = 2

    def open(self, progress: Callable[[str], None]) -> None:
        """Nothing to open."""
        progress("making flows up")

    def wait(self, timeout_s: float) -> None:
        """Sleep, or return early after `wake`."""
        self._wake.wait(timeout_s)

    def wake(self) -> None:
        """End the wait."""
        self._wake.set()

    def lift_filter(self, lifted: bool) -> None:
        """Nothing is filtered."""

    def drain(self) -> FlowBatch:
        """Packets in every flow."""
        now = self._clock_ns()
        self._drains += 1
        keys = self._keys[:self._active if self._drains > 2 else None]
        counters = np.zeros(len(keys), FLOW_COUNTERS_DTYPE)
        counters["packets"] = self._packets[:len(keys)] + np.uint64(self._drains % 3)
        counters["octets"] = counters["packets"] * np.uint64(PACKET_OCTETS)
        counters["first_ns"] = counters["last_ns"] = now
        for field, amount in (("packets", counters["packets"]), ("frames", counters["packets"]),
                              ("interface_packets", counters["packets"]), ("octets", counters["octets"])):
            self._seen[field] += amount.sum()
        return FlowBatch(keys, counters, self._seen.copy(), now, time.time_ns() - now, {2: "eth0"}, ("eth0",))

    def close(self) -> FlowBatch:
        """The last packets."""
        return self.drain()


def _keys(flows: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    keys = np.zeros(flows, FLOW_KEY_DTYPE)
    number = np.arange(flows, dtype=np.uint32)
    addresses = np.zeros((flows, 16), np.uint8)
    addresses[:, 0], addresses[:, 1] = 10, 20
    addresses[:, 2], addresses[:, 3] = number >> 8 & 0xFF, number & 0xFF
    keys["source_address"] = addresses.view("V16").ravel()
    addresses[:, 0], addresses[:, 2] = 192, number >> 16
    keys["destination_address"] = addresses.view("V16").ravel()
    keys["source_port"], keys["destination_port"] = 1024 + number % 60_000, 443
    keys["protocol"], keys["ip_version"], keys["ifindex"], keys["direction"] = 6, 4, 2, number % 2
    return keys
