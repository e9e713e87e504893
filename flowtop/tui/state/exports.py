"""Exports as text: states and rates, parts of the accuracy line, columns and details of the panel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.style import Style

from flowtop.export.exports import Export
from flowtop.export.statistics import ExportState, ExportStatistics
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.clock import Clock
from flowtop.tui.line import Part

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
        """Take a sample of each."""
        now_s = self._monotonic()
        for export in exports:
            samples = self._samples.setdefault(export.number, deque())
            if samples and now_s - samples[-1].at_s < SHORTEST_SPAN_S / 4:
                continue
            samples.append(_Sample(now_s, export.statistics.sent_records, export.statistics.file_octets))
            while len(samples) > 2 and now_s - samples[1].at_s >= SPAN_S:
                samples.popleft()

    def records_per_s(self, number: int) -> float | None:
        """Flow Records a second; None when not known yet. Records taken back as not delivered give 0."""
        span = self._span(number)
        return None if span is None else max(0.0, (span[1].records - span[0].records) / _seconds(span))

    def file_octets_per_s(self, number: int) -> float | None:
        """Octets a second that the file grows; None when not known, or another file was started."""
        span = self._span(number)
        if span is None or span[0].file_octets is None or span[1].file_octets is None:
            return None
        growth = span[1].file_octets - span[0].file_octets
        return None if growth < 0 else growth / _seconds(span)

    def _span(self, number: int) -> tuple[_Sample, _Sample] | None:
        samples = self._samples.get(number)
        if not samples or samples[-1].at_s - samples[0].at_s < SHORTEST_SPAN_S:
            return None
        return samples[0], samples[-1]


def _seconds(span: tuple[_Sample, _Sample]) -> float:
    return span[1].at_s - span[0].at_s


@dataclass(frozen=True, slots=True)
class StateWords:
    """A state on screen: a glyph and a word, so that it is clear without colour."""

    glyph: str
    word: str
    style: Style = theme.PLAIN


STATES: dict[ExportState, StateWords] = {
    ExportState.STOPPED: StateWords("■", "stopped"),
    ExportState.EXPORTING: StateWords("●", "exporting", theme.GOOD),
    ExportState.STARTING: StateWords("◌", "starting"),
    ExportState.CONNECTING: StateWords("◌", "connecting"),
    ExportState.PAUSED: StateWords("‖", "paused", theme.WARNING),
    ExportState.BLOCKED: StateWords("◐", "blocked", theme.WARNING),
    ExportState.WAITING: StateWords("○", "waiting", theme.ALARM),
}
"""Every state, from the best to the worst; stopped on request is no worse than running."""

_ORDER = list(STATES)


# ---- the accuracy line

GLYPHS = 8
"""Exports whose states are shown one by one on the accuracy line; of more, the worst states."""


def accuracy_parts(exports: Sequence[ExportStatistics]) -> list[Part]:
    """Parts of the accuracy line: the state of each export, the worst as a word, the sums of their records.

    Exports that have stopped count in the sums; their state is shown only when none runs.
    """
    if not exports:
        return []
    running = [export for export in exports if export.state is not ExportState.STOPPED] or list(exports[:1])
    worst = max((export.state for export in running), key=_ORDER.index)
    if len(running) > GLYPHS:
        running = sorted(running, key=lambda export: -_ORDER.index(export.state))[:GLYPHS]
    glyphs = "".join(STATES[export.state].glyph for export in running)
    word = "" if worst is ExportState.EXPORTING else f" {STATES[worst].word}"
    not_sent = sum(export.not_sent_records for export in exports)
    return [
        Part(glyphs + word, STATES[worst].style, label="export "),
        Part(_amount(sum(export.sent_records for export in exports)), label="sent ", rank=2),
        _waiting("queued ", sum(export.queued_records for export in exports), rank=3),
        _waiting("spooled ", sum(export.spooled_records for export in exports), rank=5),
        Part(f"not sent {not_sent:,}", theme.ALARM) if not_sent else Part("0", label="not sent ", rank=4),
    ]


def _waiting(label: str, records: int, rank: int) -> Part:
    return Part(units.count(records), label=label, rank=1 if records else rank)


def _amount(records: int) -> str:
    return f"{records:,}" if records < 1_000_000 else units.count(records)


def records_left(exports: Sequence[ExportStatistics]) -> int:
    """Flow Records that wait to be sent, in memory and on disk."""
    return sum(export.queued_records + export.spooled_records for export in exports
               if export.state is not ExportState.STOPPED)


# ---- the panel

@dataclass(frozen=True, slots=True)
class ExportColumn:
    """A column of the panel's list.

    Attributes:
        header: at its top; right-aligned, as all its cells.
        width: cells.
        text: its cell for an export.
        alarm: is the cell to be seen first?
        rank: columns of the highest rank go first when there is no room.
    """

    header: str
    width: int
    text: Callable[[Export, Pace], str]
    alarm: Callable[[ExportStatistics], bool] = field(default=lambda _: False)
    rank: int = 0


def _rate(export: Export, pace: Pace) -> str:
    rate = pace.records_per_s(export.number)
    return "–" if rate is None or export.statistics.state is ExportState.STOPPED else f"{units.packet_rate(rate)}/s"


def _file(export: Export, _: Pace) -> str:
    octets = export.statistics.file_octets
    return "" if octets is None else units.octets(octets)


COLUMNS: tuple[ExportColumn, ...] = (
    ExportColumn("SENT", 7, lambda export, _: _amount(export.statistics.sent_records)),
    ExportColumn("RATE", 7, _rate, rank=1),
    ExportColumn("QUEUED", 6, lambda export, _: units.count(export.statistics.queued_records)),
    ExportColumn("SPOOLED", 7, lambda export, _: units.count(export.statistics.spooled_records), rank=2),
    ExportColumn("NOT SENT", 8, lambda export, _: _amount(export.statistics.not_sent_records),
                 lambda statistics: statistics.not_sent_records > 0),
    ExportColumn("FILE", 7, _file, rank=3),
)
"""Columns of numbers in the list."""

ENDS_FIRST = "records are sent when flows end, are idle, or pass the active timeout"


def details(export: Export, pace: Pace, clock: Clock) -> list[Part]:
    """Everything known of one export, a line each: label and text."""
    statistics = export.statistics
    words = STATES[statistics.state]
    lines = [
        Part(units.printable(statistics.url, 1_000), label=_label("to")),
        Part(units.printable(export.filter, 1_000) or "every flow that is counted", label=_label("of")),
        Part(f"{words.glyph} {words.word} since {_ago(statistics.since_unix_s, clock)}", words.style,
             label=_label("state")),
        Part(_sent(export, pace), label=_label("sent")),
        Part(f"{units.things(statistics.queued_records, 'record')} in memory, "
             f"{statistics.spooled_records:,} in the spool on disk",
             label=_label("waiting")),
        Part(_not_sent(statistics), theme.ALARM if statistics.not_sent_records else theme.PLAIN,
             label=_label("not sent")),
    ]
    if statistics.refused_messages:
        lines.append(Part(f"{statistics.refused_messages:,} datagrams: {statistics.refusal or 'not any more'}",
                          theme.ALARM, label=_label("refused")))
    if statistics.file_octets is not None:
        lines.append(Part(_growth(export, pace), label=_label("file")))
    if statistics.last_template_unix_s is not None:
        lines.append(Part(f"sent at {_ago(statistics.last_template_unix_s, clock)}", label=_label("templates")))
    error = units.printable(statistics.last_error, 1_000)
    failing = statistics.state is ExportState.WAITING
    lines.append(Part(error or "none", theme.ALARM if error and failing else theme.PLAIN, label=_label("last error")))
    return lines


def _label(text: str) -> str:
    return f"{text:>10}  "


def _sent(export: Export, pace: Pace) -> str:
    statistics = export.statistics
    if not statistics.sent_records and statistics.state is ExportState.EXPORTING:
        return f"nothing yet: {ENDS_FIRST}"
    rate = pace.records_per_s(export.number)
    stopped = statistics.state is ExportState.STOPPED
    words = units.things(statistics.sent_records, "record")
    if rate is not None and not stopped:
        words += f", {units.packet_rate(rate)}/s"
    words += f"; {units.things(statistics.sent_messages, 'message')}, {_octets(statistics.sent_octets)}"
    if statistics.repeated_records:
        words += f"; {units.things(statistics.repeated_records, 'record')} may have arrived twice"
    if statistics.unmarked_records:
        words += f"; {statistics.unmarked_records:,} aggregates, whose packets may be in other records too"
    if statistics.cut_owners:
        words += f"; {statistics.cut_owners:,} lack texts about their process, for lack of room"
    return words


def _not_sent(statistics: ExportStatistics) -> str:
    if not statistics.not_sent_records:
        return "0 records"
    return (f"{units.things(statistics.not_sent_records, 'record')} discarded: "
            f"{units.things(statistics.not_sent_packets, 'packet')}, "
            f"{_octets(statistics.not_sent_octets)}")


def _growth(export: Export, pace: Pace) -> str:
    words = _octets(export.statistics.file_octets or 0)
    rate = pace.file_octets_per_s(export.number)
    if rate is None or export.statistics.state is ExportState.STOPPED:
        return words
    return f"{words}, growing {' '.join(units.rate(rate, bits=False).split())}" if rate else f"{words}, not growing now"


def _octets(amount: int) -> str:
    """In a sentence, where units need not line up."""
    return " ".join(units.octets(amount).split())


def _ago(unix_s: float, clock: Clock) -> str:
    at = time.strftime("%H:%M:%S", clock.local(unix_s))
    return f"{at}, {units.duration(clock.wall() - unix_s)} ago"
