"""What gaps in sequence numbers say was lost, in each protocol's own unit."""

from __future__ import annotations

from dataclasses import dataclass

_MODULUS = 1 << 32
_LARGEST_GAP = 1 << 24
"""A gap beyond this is no loss but another beginning."""
_LATEST = 1 << 16
"""So far back a message may be late; further back the exporter has started anew."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one sequence number says.

    Attributes:
        lost: units missing before this message; negative: a late one gives back what it had been counted for.
        late: it came after a later one.
        reset: the exporter started anew.
    """

    lost: int = 0
    late: bool = False
    reset: bool = False


class SequenceTracker:
    """The sequence of one Observation Domain in one Transport Session."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._export_time_s = 0
        self._boot_ms: int | None = None
        self._lost = 0

    def see(self, sequence: int, units: int | None, export_time_s: int, boot_ms: int | None) -> Verdict:
        """Take note of one message.

        Args:
            sequence: its number: units sent before it (NetFlow 9: before or including it; only steps count).
            units: how many units it is itself; None: unknown, so that the next number says nothing.
            export_time_s: of its header.
            boot_ms: when the exporter booted, where it says so.
        """
        restarted = self._restarted(export_time_s, boot_ms)
        expected = self._expected
        ahead = 0 if expected is None else (sequence - expected) % _MODULUS
        behind = -ahead % _MODULUS
        if not restarted and expected is not None and 0 < behind <= _LATEST and export_time_s <= self._export_time_s:
            back = min(units or 0, self._lost)
            self._lost -= back
            return Verdict(lost=-back, late=True)
        self._export_time_s = export_time_s
        self._boot_ms = boot_ms
        self._expected = None if units is None else (sequence + units) % _MODULUS
        if restarted or ahead > _LARGEST_GAP:
            self._lost = 0
            return Verdict(reset=True)
        self._lost += ahead
        return Verdict(lost=ahead)

    def _restarted(self, export_time_s: int, boot_ms: int | None) -> bool:
        """Whether the exporter booted since: its uptime counts from a later time, by more than clocks wander."""
        if boot_ms is None or self._boot_ms is None or export_time_s < self._export_time_s:
            return False
        return boot_ms - self._boot_ms > 10_000 and (boot_ms - self._boot_ms) < 1 << 31
