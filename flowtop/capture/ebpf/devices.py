"""Errors and drops of the devices that are observed, and of their queues, read from the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from flowtop.model.devices import Device, DeviceView

_EVERY_NS = 1_000_000_000


class _Links(Protocol):
    @property
    def faults(self) -> Mapping[int, tuple[int, int, int, int]]:
        """See interfaces.Links."""

    def queues(self) -> Mapping[int, tuple[int, int]]:
        """See interfaces.Links."""


class Devices:
    """Reads queues at most once a second; the rest comes with the interfaces' counters.

    Args:
        links: of the capture's network namespace.
    """

    def __init__(self, links: _Links) -> None:
        self._links = links
        self._read_ns: int | None = None
        self._now: dict[int, Device] = {}
        self._first: dict[int, Device] = {}

    def read(self, now_ns: int) -> None:
        """Read what is due. What the kernel refuses stays as it was."""
        if self._read_ns is not None and now_ns - self._read_ns < _EVERY_NS:
            return
        self._read_ns = now_ns
        try:
            queues = self._links.queues()
        except OSError:
            queues = {}
        self._now = {ifindex: Device(*faults, *queues.get(ifindex, (0, 0)))
                     for ifindex, faults in self._links.faults.items()}

    def of(self, ifindexes: Iterable[int]) -> dict[int, DeviceView]:
        """Those of these interfaces that exist."""
        found = {}
        for ifindex in ifindexes:
            now = self._now.get(ifindex)
            if now is None:
                self._first.pop(ifindex, None)
            else:
                found[ifindex] = DeviceView(now, self._first.setdefault(ifindex, now))
        return found
