"""Exports without threads: they stand as the test says, on a clock that stands."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowtop.errors import FlowtopError
from flowtop.export.exports import Export
from flowtop.export.statistics import ExportState, ExportStatistics
from flowtop.tui.clock import Clock

if TYPE_CHECKING:
    from flowtop.export.exports import Keep

NOW_S = 1_767_268_800.0
"""2026-01-01 12:00:00 UTC."""


class Now:
    """A clock that a test sets; local time is UTC."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.clock = Clock(wall=lambda: NOW_S + self.passed_s, monotonic=lambda: self.passed_s, local=time.gmtime)


def statistics(url: str, state: ExportState = ExportState.EXPORTING, **figures: Any) -> ExportStatistics:
    """An export a minute old; `figures` as in ExportStatistics, 0 and "" unless given."""
    values: dict[str, Any] = {
        "sent_records": 0, "sent_messages": 0, "sent_octets": 0, "repeated_records": 0, "queued_records": 0,
        "spooled_records": 0, "not_sent_records": 0, "not_sent_packets": 0, "not_sent_octets": 0, "last_error": "",
        "last_template_unix_s": None, "since_unix_s": NOW_S - 60, "file_octets": None,
    }
    return ExportStatistics(url=url, state=state, **{**values, **figures})


class FakeExports:
    """An `ExportControl` that writes down what it is asked.

    Args:
        exports: those there are at first.

    Attributes:
        refuse: raised by the next `add`.
        slow: `add` and `stop` wait for it.
        asked: every call that changes something: its name and its argument.
    """

    def __init__(self, exports: Iterable[ExportStatistics] = ()) -> None:
        self.exports = list(exports)
        self.filters: dict[int, str] = {}
        self.refuse: FlowtopError | None = None
        self.slow: threading.Event | None = None
        self.asked: list[tuple[str, object]] = []

    def add(self, url: str, keep: Keep | None = None, *, filter: str = "") -> int:  # noqa: A002 - as Exports has it
        """A new one, or an error."""
        assert threading.current_thread() is not threading.main_thread(), "it reads files and certificates"
        self.asked.append(("add", (url, filter) if filter else url))
        assert (keep is None) == (not filter)
        if self.slow is not None:
            assert self.slow.wait(60)
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error
        self.exports.append(statistics(url, since_unix_s=NOW_S))
        self.filters[len(self.exports)] = filter
        return len(self.exports)

    def statistics(self) -> tuple[Export, ...]:
        """All of them."""
        return tuple(Export(number, export, filter=self.filters.get(number, ""))
                     for number, export in enumerate(self.exports, 1))

    def change(self, number: int, **figures: Any) -> None:
        """Let one stand otherwise."""
        self.exports[number - 1] = replace(self.exports[number - 1], **figures)

    def pause(self, number: int) -> None:
        """Paused at once."""
        self.asked.append(("pause", number))
        self.change(number, state=ExportState.PAUSED)

    def resume(self, number: int) -> None:
        """Exporting at once."""
        self.asked.append(("resume", number))
        self.change(number, state=ExportState.EXPORTING)

    def end(self, number: int) -> None:
        """Stopped at once."""
        self.asked.append(("end", number))
        self.change(number, state=ExportState.STOPPED)

    @property
    def flush_s(self) -> float:
        """As Exports has it."""
        return 5.0

    def hurry(self) -> None:
        """Let `slow` go."""
        self.asked.append(("hurry", None))
        if self.slow is not None:
            self.slow.set()

    def stop(self) -> None:
        """All stopped, when `slow` lets it."""
        self.asked.append(("stop", None))
        if self.slow is not None:
            assert self.slow.wait(60)
        for number in range(1, len(self.exports) + 1):
            self.change(number, state=ExportState.STOPPED)
