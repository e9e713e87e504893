"""How fast exports send and their files grow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtop.export.exports import Export

SPAN_S = 10.0
"""Rates are over this long: records leave in bursts, as flows end."""
SHORTEST_SPAN_S = 1.0


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    records: int
    file_octets: int | None


class Pace:
    """How fast each export sends and its file grows, over the last SPAN_S.

    Args:
        monotonic: seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._samples: dict[int, deque[_Sample]] = {}

    def note(self, exports: Sequence[Export]) -> None:
        """Take note of how they stand now."""
        now_s = self._monotonic()
        for export in exports:
            samples = self._samples.setdefault(export.number, deque())
            if samples and now_s - samples[-1].at_s < SHORTEST_SPAN_S / 4:
                continue
            samples.append(_Sample(now_s, export.statistics.sent_records, export.statistics.file_octets))
            while len(samples) > 2 and now_s - samples[1].at_s >= SPAN_S:
                samples.popleft()

    def records_per_s(self, number: int) -> float | None:
        """Flow Records a second; None when that is not known yet. Records taken back as not delivered give 0."""
        found = self._span(number)
        return None if found is None else max(0.0, (found[1].records - found[0].records) / _seconds(found))

    def file_octets_per_s(self, number: int) -> float | None:
        """Octets a second that the file grows; None when that is not known, or another file was begun."""
        found = self._span(number)
        if found is None or found[0].file_octets is None or found[1].file_octets is None:
            return None
        grown = found[1].file_octets - found[0].file_octets
        return None if grown < 0 else grown / _seconds(found)

    def _span(self, number: int) -> tuple[_Sample, _Sample] | None:
        samples = self._samples.get(number)
        if not samples or samples[-1].at_s - samples[0].at_s < SHORTEST_SPAN_S:
            return None
        return samples[0], samples[-1]


def _seconds(span: tuple[_Sample, _Sample]) -> float:
    return span[1].at_s - span[0].at_s
