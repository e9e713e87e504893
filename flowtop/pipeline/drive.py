"""The loop of the capture thread: wait, drain, and decide where ticks end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flowtop.capture.protocol import Capture
from flowtop.errors import FlowtopError
from flowtop.filters.kernel import Narrowing
from flowtop.metering.flows import TableConfig
from flowtop.model.record import FlowBatch

_READY_POLL_S = 0.05
_READER_POLL_S = 0.001
_SOURCE_WAIT_S = 1.0
MATCHING_S = 1.0
"""Longest batch while duplicates are looked for: a conversation that leaves an interface and comes back within a batch
seems to have been there all the time (metering/repeats.py)."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How the pipeline runs.

    Attributes:
        delay_s: seconds between ticks.
        first_delay_s: seconds from attaching to the first tick, so that a screen shows flows early; None: delay_s.
        ticks: end after this number of ticks, the last of them made by the last drain; None: run until `stop`.
        own_time: the capture has its own clock (a file): its batches say where ticks and the capture end.
        stay: when such a capture has ended, keep answering queries until `stop`.
        page_s: minimum seconds between two pages of such a capture, which can have thousands of ticks per second.
        by_remote_end: traffic in and out is told apart by the remote end of each flow, as on the screen; else by the
            direction at the Observation Point.
        past_s: seconds of the past that a query can ask for (Query.at); 0: none is kept.
        trouble: from which on trouble is shown, by rule (query.trouble); None: none is looked for.
        table: timeouts and bounds of the flow table.
    """

    delay_s: float = 1.0
    first_delay_s: float | None = None
    ticks: int | None = None
    own_time: bool = False
    stay: bool = False
    page_s: float = 0.0
    by_remote_end: bool = False
    past_s: float = 0.0
    trouble: Mapping[str, float] | None = None
    table: TableConfig = TableConfig()


@dataclass(slots=True)
class Handover:
    """One batch, passed from the capture thread to the metering thread."""

    batch: FlowBatch
    close_tick: bool
    last: bool = False
    show: bool = True


class Driving:
    """Drains one capture by the clock of this host or of the capture, until it is stopped or the capture ends.

    Args:
        config: delays and ticks.
        capture: open when `run` is called.
        hand_over: called with each batch; returns when its arrays may be reused.
        narrowing: whether the capture filter applies.
        ready: see Pipeline.
        settle: called while a capture that has ended stays on the screen; first with its error, if any, then with None.
        clock: seconds, monotonic.
    """

    def __init__(self, config: PipelineConfig, capture: Capture, hand_over: Callable[[Handover], None],
                 narrowing: Narrowing, ready: Callable[[], bool], settle: Callable[[FlowtopError | None], None],
                 clock: Callable[[], float]) -> None:
        self._config = config
        self._capture = capture
        self._hand_over = hand_over
        self._narrowing = narrowing
        self._ready = ready
        self._settle = settle
        self._clock = clock
        self._stopping = False
        self.completed = False
        """All `ticks` of the configuration were complete."""
        self.fault: FlowtopError | None = None
        """Why a capture with its own clock stopped before its end."""

    def run(self) -> None:
        """Drain until stopped, or until the capture or the number of ticks ends."""
        if self._config.own_time:
            self._follow_source()
        else:
            # Nearly empty; from it the table knows when capturing began, which is where rates start.
            self._hand_over(Handover(self._capture.drain(), close_tick=False))
            self._drain_until_stopped()

    def stop(self) -> None:
        """Request the end; the caller also has to wake the capture. Any thread, and signal handlers."""
        self._stopping = True

    def _drain_until_stopped(self) -> None:
        config = self._config
        first = config.delay_s if config.first_delay_s is None else config.first_delay_s
        due_at = self._clock() + first
        longest_s = math.inf if config.table.dedupe == "off" else MATCHING_S
        ticks = 0
        while not self._stopping:
            self._capture.wait(min(max(0.0, due_at - self._clock()), longest_s))
            if self._stopping:
                return
            due = self._clock() >= due_at
            if due and config.ticks is not None and ticks + 1 >= config.ticks:
                self.completed = True
                return
            close_tick = due and self._await_ready(config.delay_s)
            self._capture.lift_filter(self._narrowing.lifted)
            self._hand_over(Handover(self._capture.drain(), close_tick))
            if close_tick:
                ticks += 1
                due_at = max(due_at + config.delay_s, self._clock() + config.delay_s / 2)

    def _await_ready(self, patience_s: float) -> bool:
        """Whether the reader is ready, or becomes ready before the next drain is due."""
        until = self._clock() + patience_s
        while not self._ready():
            begin = self._clock()
            self._capture.wait(_READY_POLL_S)
            if self._stopping or self._clock() >= until or self._clock() - begin < _READY_POLL_S / 2:
                return False  # stopped, or waited long enough, or the map is half full
        return True

    def _follow_source(self) -> None:
        """Close ticks where the batches say so; at the end of the capture return, or stay until stopped."""
        config = self._config
        ticks, shown_at = 0, -math.inf
        while not self._stopping:
            self._capture.wait(_SOURCE_WAIT_S)
            if self._stopping:
                return
            batch = self._capture.drain()
            source = batch.source
            assert source is not None, "a capture with its own clock has a source in its batches"
            ticks += source.closes_tick
            self.completed = ticks == config.ticks
            self._await_ready_source()
            if self.completed or (source.ended and not config.stay):
                self.fault = source.fault
                self._hand_over(Handover(batch, close_tick=False))
                return
            show = source.ended or self._clock() - shown_at >= config.page_s
            self._hand_over(Handover(batch, source.closes_tick, show=show))
            if source.closes_tick and show:
                shown_at = self._clock()
            if source.ended:
                self._stay(source.fault)

    def _stay(self, fault: FlowtopError | None) -> None:
        """The capture has ended; its flows stay on the screen."""
        self._settle(fault)
        while not self._stopping:
            self._capture.wait(_SOURCE_WAIT_S)
            self._settle(None)

    def _await_ready_source(self) -> None:
        """A file can wait for its reader and for exports without limit."""
        while not self._ready() and not self._stopping:
            time.sleep(_READER_POLL_S)
