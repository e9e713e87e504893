"""Times of Flow Records as ms since 1970 UTC on the exporter's clock, from any of the dozen formats of the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import reverse_name
from flowtop.wire.ipfix_template import Template
from flowtop.wire.record_fields import Integers, RecordFields

Stamps = npt.NDArray[np.int64]
_REVERSE_DELAY = 6871, 21
"""CERT's reverseFlowDeltaMilliseconds (YAF): from the first packet to the first one of the reverse direction."""
_BOOT = "systemInitTimeMilliseconds"
_UPTIMES = tuple(name for element in ("flowStartSysUpTime", "flowEndSysUpTime")
                 for name in (element, reverse_name(element)))
_NTP_EPOCH_S = 2_208_988_800
"""1970 on NTP's clock, in seconds since 1900."""


@dataclass(frozen=True, slots=True)
class ExportTimes:
    """Export time and boot time of the messages of some records: one item per record, int64, shape (n,).

    Attributes:
        export_ms: time in the message header, ms since 1970 UTC.
        boot_ms: when the exporter booted, ms since 1970 UTC; negative if unknown.
    """

    export_ms: npt.NDArray[np.int64]
    boot_ms: npt.NDArray[np.int64]


def counts_from_boot(template: Template) -> bool:
    """Whether times of its records may count from the exporter's boot, and it does not have the boot time itself."""
    return _BOOT not in template.names and any(name in template.names for name in _UPTIMES)


def record_times(fields: RecordFields, times: ExportTimes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and end of each record's flow; a missing one equals the other, or the export time if both are missing."""
    start, end = (_time(fields, word, times) for word in ("Start", "End"))
    lasted = fields.integers(("flowDurationMilliseconds",))
    if lasted is None and (us := fields.integers(("flowDurationMicroseconds",))) is not None:
        lasted = us // np.uint64(1000)
    if lasted is not None:
        length = lasted.astype(np.int64)
        if start is None and end is not None:
            start = end - length
        elif end is None and start is not None:
            end = start + length
    if end is None and (observed := _observed(fields, times)) is not None:  # an event: of the end of what it reports
        end = observed if start is None else np.maximum(start, observed)
    if start is None and end is None:
        start = times.export_ms
    end = start if end is None else end
    start = end if start is None else start
    assert start is not None and end is not None
    return np.minimum(start, end), end


def reverse_times(template: Template, fields: RecordFields, times: ExportTimes,
                  both: tuple[Stamps, Stamps]) -> tuple[Stamps, Stamps]:
    """Start and end of the reverse direction (RFC 5103), where the Template has them; else those of both directions.

    Args:
        both: what `record_times` gives.
    """
    start, end = (_time(fields, word, times, reverse=True) for word in ("Start", "End"))
    if start is None:
        delay = next((name for name, specifier in template.named_fields
                      if (specifier.enterprise, specifier.element_id) == _REVERSE_DELAY), "")
        after = fields.integers((delay,)) if delay else None
        start = both[0] if after is None else both[0] + after.astype(np.int64)
    end = both[1] if end is None else end
    return np.minimum(start, end), end


def _seconds(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    del times
    return values.astype(np.int64) * 1000


def _milliseconds(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    del times
    return (values & np.uint64(0x7FFF_FFFF_FFFF)).astype(np.int64)  # up to year 6429: no later overflow


def _ntp(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    del times
    stamps = values.astype(np.uint64)
    fraction = (stamps & np.uint64(0xFFFF_FFFF)) * np.uint64(1000) >> np.uint64(32)
    return ((stamps >> np.uint64(32)).astype(np.int64) - _NTP_EPOCH_S) * 1000 + fraction.astype(np.int64)


def _delta_us(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    return times.export_ms - values.astype(np.int64) // 1000


def _uptime(values: Integers, times: ExportTimes) -> npt.NDArray[np.int64]:
    """Uptimes in ms, which wrap after 49 days; a time far after the export is one before the wrap."""
    at: npt.NDArray[np.int64] = times.boot_ms + values.astype(np.int64)
    at = np.where(at - times.export_ms > 1 << 31, at - (1 << 32), at)
    return np.where(times.boot_ms < 0, times.export_ms, at)


_Reading = Callable[[Integers, ExportTimes], npt.NDArray[np.int64]]
_STAMPS: tuple[tuple[str, _Reading], ...] = (
    ("flow{}Milliseconds", _milliseconds), ("flow{}Nanoseconds", _ntp), ("flow{}Microseconds", _ntp),
    ("flow{}Seconds", _seconds), ("flow{}DeltaMicroseconds", _delta_us), ("flow{}SysUpTime", _uptime),
)


def _time(fields: RecordFields, word: str, times: ExportTimes, *, reverse: bool = False) -> Stamps | None:
    for pattern, reading in _STAMPS:
        name = pattern.format(word)
        values = fields.integers((reverse_name(name) if reverse else name,))
        if values is not None:
            if reading is _uptime and (booted := fields.integers((_BOOT,))) is not None:
                times = ExportTimes(times.export_ms, _milliseconds(booted, times))
            return reading(values, times)
    return None


def _observed(fields: RecordFields, times: ExportTimes) -> npt.NDArray[np.int64] | None:
    """Observation time of an event."""
    for unit, reading in (("Milliseconds", _milliseconds), ("Seconds", _seconds), ("Microseconds", _ntp)):
        values = fields.integers((f"observationTime{unit}",))
        if values is not None:
            return reading(values, times)
    return None
