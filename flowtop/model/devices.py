"""What the kernel counts of this host's network devices, beside packets and octets."""

from __future__ import annotations

from typing import NamedTuple


class Device(NamedTuple):
    """Of one device, since it exists, as in `ip -s link` and `tc -s qdisc`."""

    in_errors: int = 0
    out_errors: int = 0
    in_dropped: int = 0
    out_dropped: int = 0
    queue_drops: int = 0
    """Of its root queueing discipline, before the device."""
    queued: int = 0
    """Packets that wait there now."""


class DeviceView(NamedTuple):
    """One device that is observed.

    Attributes:
        now: its counters.
        first: when it was observed first.
        seen: packets that were seen, in the unit in which it counts.
        counted: packets that it has counted meanwhile.
        unseen: of these, in either direction, the ones that were not seen.
    """

    now: Device
    first: Device
    seen: int = 0
    counted: int = 0
    unseen: int = 0

    @property
    def coverage(self) -> float | None:
        """Of what it has counted, the part that was seen, 0..1; None: it has counted nothing."""
        return (self.counted - self.unseen) / self.counted if self.counted else None
