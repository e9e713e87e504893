"""The metering pipeline: capture → flow table → pages for a listener, Flow Records for consumers.

Two threads. The *capture thread* opens the capture, waits, drains; a drain spends most of its time in the kernel.
The *metering thread* owns the flow table: it adds batches, closes ticks and answers queries. So a key press is answered
while a drain waits for its grace period, and no other thread ever touches the table.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from flowtop.capture.protocol import Capture
from flowtop.errors import FlowtopError, host_fault, limit_hint
from flowtop.export.statistics import MeteringFacts
from flowtop.fields.networks import RemoteEnds, networked
from flowtop.filters.kernel import Narrowing
from flowtop.metering.table import FlowTable
from flowtop.model.flows import FlowSource, with_columns
from flowtop.model.record import FlowRecords, Steps
from flowtop.model.rows import Sides, Volume
from flowtop.pipeline.drive import Driving, Handover
from flowtop.pipeline.drive import PipelineConfig as PipelineConfig
from flowtop.query.answer import both_ways
from flowtop.query.books import close_books, passed, with_coverage
from flowtop.query.history import TrafficLog
from flowtop.query.pager import Pager
from flowtop.query.past import Past
from flowtop.query.query import Page, Query, SelfUsage
from flowtop.query.trouble import Trouble, TroubleWatch
from flowtop.text.lookups import Here, Lookups, Networks


class PipelineListener(Protocol):
    """Receives pages. Called from the threads of the pipeline, never from two at once."""

    def on_progress(self, text: str) -> None:
        """A text that says what the pipeline waits for before the first page."""

    def on_page(self, page: Page) -> None:
        """The current answer to the current query: after each tick, and at once after `ask`."""

    def on_error(self, error: FlowtopError) -> None:
        """Capturing failed and has ended; nothing is attached any more."""


class FlowRecordConsumer(Protocol):
    """Receives every expired Flow Record. Called from the metering thread: must not block."""

    def update(self, facts: MeteringFacts) -> None:
        """The state of the Metering Process: each tick before its records, and before the last records."""

    def consume(self, records: FlowRecords) -> None:
        """Receive records (FLOW_RECORD_DTYPE, never empty). The consumer may keep the array."""


class FlowWatcher(Protocol):
    """Sees the flow table after each update. Called from the metering thread."""

    def follow(self, source: FlowSource, lookups: Lookups) -> None:
        """The table, unchanged during the call, and names of interfaces and the like. Neither may be kept."""


_WORTH_SHOWING = 0.01
"""CPU, as a fraction of one core."""


class UsageMeter:
    """CPU time and memory of flowtop itself, measured each tick.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._cpu_s = time.process_time()
        self._statm = Path("/proc/self/statm")
        self._usage = self._shown = SelfUsage()

    @property
    def usage(self) -> SelfUsage:
        """Over the last tick. Reading it means that it is shown."""
        self._shown = self._usage
        return self._shown

    def settle(self) -> bool:
        """Measure again although no tick has ended; returns whether the CPU is so far below what is shown that it
        should be shown again.

        Only when below: to show it costs CPU too, and to show that would never end.
        """
        self.tick()
        return self._shown.cpu - self._usage.cpu >= _WORTH_SHOWING

    def tick(self) -> None:
        """Measure: a tick has ended."""
        at, cpu_s = self._clock(), time.process_time()
        self._usage = SelfUsage(cpu=(cpu_s - self._cpu_s) / max(at - self._at, 1e-9),
                                resident_octets=self._resident_octets())
        self._at, self._cpu_s = at, cpu_s

    def _resident_octets(self) -> int:
        try:
            return int(self._statm.read_text().split()[1]) * resource.getpagesize()
        except OSError:  # no /proc, or no descriptor left: the most there ever was
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _always_ready() -> bool:
    return True


class Pipeline:
    """Runs one capture into one flow table.

    Args:
        config: delays, timeouts, bounds.
        capture: the source of flows; owned by the pipeline from here on.
        consumers: receive every expired Flow Record, including those that the end of the run forces.
        watcher: sees the flow table after each batch.
        networks: databases of AS and country; None: there are none.
        here: addresses of this host; None: the flows are not its own.
        narrowing: whether the capture filter applies.
        ready: asked before a tick is closed; while it is false, drains continue and the tick grows. So a slow reader
            of batch output makes rounds longer, and none of their packets is lost. A capture with its own clock waits.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        config: PipelineConfig,
        capture: Capture,
        consumers: Sequence[FlowRecordConsumer] = (),
        *,
        watcher: FlowWatcher | None = None,
        networks: Networks | None = None,
        here: Here | None = None,
        narrowing: Narrowing | None = None,
        ready: Callable[[], bool] = _always_ready,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._capture = capture
        self._consumers = tuple(consumers)
        self._watcher = watcher
        self._networks = networks
        self._here = here
        self._narrowing = narrowing or Narrowing()
        self._clock = clock
        self._drives = Driving(config, capture, self._hand_over, self._narrowing, ready, self._settle, clock)
        self._table = FlowTable(config.table)
        self._pager = Pager(Past(config.past_s) if config.past_s else None)
        self._traffic = TrafficLog()
        self._ends = RemoteEnds()
        self._trouble = None if config.trouble is None else TroubleWatch(config.trouble)
        self._found: tuple[Trouble, ...] = ()
        self._usage = UsageMeter(clock)
        self._changed = threading.Condition()
        self._handover: Handover | None = None
        self._query = Query()
        self._asked = False
        self._over = False
        self._failure: FlowtopError | None = None
        self._last = False
        self._tick = 0
        self._tick_closed_at = 0.0
        self._started_at = 0.0
        self._first_ns: int | None = None
        self._tunnels = False
        self._facts = MeteringFacts()
        self._threads: tuple[threading.Thread, ...] = ()

    def start(self, listener: PipelineListener) -> None:
        """Start capturing; returns at once. Called once. Raises FlowtopError: this host refuses its threads."""
        self._listener = listener
        self._threads = (
            threading.Thread(target=self._run_metering, name="metering"),
            threading.Thread(target=self._run_capture, name="capture"),
        )
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError as error:  # the other one must not wait for it
                self._threads = self._threads[:number]
                with self._changed:
                    self._over = True
                    self._changed.notify_all()
                raise host_fault("cannot run", error) or error from error

    def ask(self, query: Query) -> None:
        """Set the query that pages answer from now on, and answer it at once. Any thread; the latest query wins."""
        with self._changed:
            self._query = query
            turned = self._narrowing.follow(query.filter, query.scope)
            self._asked = True
            self._changed.notify_all()
        if turned:  # a drain applies it
            self._capture.wake()

    def request_stop(self) -> None:
        """Request the last drain without waiting for it. Any thread, and signal handlers."""
        self._drives.stop()
        self._capture.wake()

    def stop(self) -> None:
        """Detach, drain once more, pass the rest to consumers and the listener; returns when that is done."""
        self.request_stop()
        self.join()

    def join(self) -> None:
        """Wait until the pipeline has ended, with its capture or by `stop`."""
        for thread in self._threads:
            thread.join()

    @property
    def failure(self) -> FlowtopError | None:
        """The error that ended the pipeline; None: there was none."""
        return self._failure

    @property
    def completed(self) -> bool:
        """All `ticks` of the configuration were complete: the pipeline was not stopped."""
        return self._drives.completed

    @property
    def fault(self) -> FlowtopError | None:
        """Why a capture with its own clock stopped before its end: a damaged file. The pages have all that it gave."""
        return self._drives.fault

    # ---- capture thread

    def _run_capture(self) -> None:
        try:
            self._capture.open(self._listener.on_progress)
            self._listener.on_progress("waiting for the first packets")
            self._started_at = self._tick_closed_at = self._clock()
            try:
                self._drives.run()
            finally:
                last = self._capture.close()
            self._hand_over(Handover(last, close_tick=True, last=True))
        except FlowtopError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the last resort of a thread: the user must see the error
            self._fail(_unexpected("capturing", error))
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _settle(self, fault: FlowtopError | None) -> None:
        """The capture has ended but stays on the screen: show that reading no longer costs CPU."""
        if fault is not None:
            self._listener.on_error(fault)
        if self._usage.settle():
            with self._changed:
                self._asked = True
                self._changed.notify_all()

    def _hand_over(self, handover: Handover) -> None:
        """Pass a batch to the metering thread and wait until it is in the table; then its arrays may be reused."""
        with self._changed:
            self._handover = handover
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._handover is None)

    def _fail(self, error: FlowtopError) -> None:
        if self._failure is None:
            self._failure = error
            self._listener.on_error(error)

    # ---- metering thread

    def _run_metering(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._handover or (self._asked and self._tick) or self._over)
                handover = self._handover
                if handover is None and self._over:
                    return
                if self._failure is not None:
                    self._asked = False
            try:
                if self._failure is None:
                    self._meter(handover)
            except FlowtopError as error:
                self._fail(error)
                self.request_stop()
            except Exception as error:  # noqa: BLE001 - as in the capture thread; the hooks must be detached all the same
                self._fail(_unexpected("metering", error))
                self.request_stop()
            finally:
                with self._changed:
                    if handover is not None:
                        self._handover = None
                        self._changed.notify_all()

    def _meter(self, handover: Handover | None) -> None:
        if handover is None:
            self._listener.on_page(self._page())
            return
        ended = self._table.accumulate(handover.batch)
        self._batch_time = handover.batch.now_ns, handover.batch.unix_offset_ns
        self._lookups = Lookups(dict(handover.batch.interfaces), texts=handover.batch.texts,
                                called=handover.batch.named_addresses, networks=self._networks, here=self._here,
                                devices=with_coverage(handover.batch.devices, handover.batch.observations),
                                passed=passed(handover.batch.observations))
        self._attached, self._unobserved = handover.batch.attached, handover.batch.unobserved
        self._observations = handover.batch.observations.copy()
        self._tell(handover.batch.steps)
        self._export(ended)
        if self._first_ns is None and len(handover.batch.counters):
            self._first_ns = int(handover.batch.counters["first_ns"].min())
        self._tunnels = self._tunnels or bool(handover.batch.keys["tunnel"].any())
        self._source, self._collecting = handover.batch.source, handover.batch.collecting
        self._owners, self._names = handover.batch.owners, handover.batch.name_statistics
        if handover.close_tick:
            self._close_tick()
        if self._watcher is not None:
            self._watcher.follow(self._table, self._lookups)
        if not handover.close_tick:
            return
        if handover.last:
            self._last = True
            self._export(self._table.end_all(self._batch_time[0]))
        if self._trouble is not None and handover.show:
            columns = self._ends.fill(networked(self._table.columns, None, self._here))
            self._found = self._trouble.tick(with_columns(self._table, columns, self._table.visible))
        if self._config.past_s:
            self._pager.remember(self._table, self._now())
        if handover.show:
            self._listener.on_page(self._page())

    def _close_tick(self) -> None:
        self._export(self._table.close_tick())
        self._tick += 1
        self._tick_closed_at = self._clock()
        self._usage.tick()
        self._traffic.close(self._tick_sides(), sum(self._batch_time) // 1_000_000, self._table.tick_s)

    def _tick_sides(self) -> Sides:
        """What came in and went out in this tick, each packet once; what is in no listed flow as it came by."""
        totals, table = self._table.totals, self._table
        into, out_of = (Volume(octets / table.tick_s, 0.0, 0.0, packets / table.tick_s, 0, 0) for octets, packets in (
            (totals.tick_ingress_octets, totals.tick_ingress_packets),
            (totals.tick_egress_octets, totals.tick_egress_packets)))
        if not self._config.by_remote_end:
            return Sides(into, out_of)
        sides = both_ways(table, self._lookups, self._ends)
        unlisted = [max(0.0, getattr(into, name) + getattr(out_of, name) - getattr(sides.into, name)
                        - getattr(sides.out_of, name)) for name in ("octet_rate", "packet_rate")]
        return Sides(sides.into._replace(octet_rate=sides.into.octet_rate + unlisted[0],
                                         packet_rate=sides.into.packet_rate + unlisted[1]), sides.out_of)

    def _tell(self, steps: Steps | None) -> None:
        """Pass on what is in no Flow Record: what was ignored, filtered and lost."""
        totals, now_ms = self._table.totals, sum(self._batch_time) // 1_000_000
        since_ms = None
        if steps is not None and steps.ignored_ns[1]:
            since_ms, now_ms = ((at_ns + self._batch_time[1]) // 1_000_000 for at_ns in steps.ignored_ns)
        self._facts = self._facts.updated(self._lookups,
                                          totals.ignored_packets + totals.filtered_packets + totals.lost_packets,
                                          totals.ignored_octets + totals.filtered_octets + totals.lost_octets, now_ms,
                                          since_ms)
        for consumer in self._consumers:
            consumer.update(self._facts)

    def _export(self, records: FlowRecords) -> None:
        if len(records):
            for consumer in self._consumers:
                consumer.consume(records)

    def _page(self) -> Page:
        with self._changed:
            query, self._asked = self._query, False
        return self._pager.page(query, self._table, self._now())

    def _now(self) -> Page:
        """A page of this tick, without the parts that the query answers."""
        totals, tick_s = self._table.totals, self._table.tick_s
        now_ns, unix_offset_ns = self._batch_time
        return Page(
            query=Query(),
            tick=self._tick,
            unix_ms=(now_ns + unix_offset_ns) // 1_000_000,
            uptime_s=self._uptime_s(now_ns),
            tick_s=tick_s,
            rows=(),
            matched=0,
            flows=0,
            active_flows=0,
            anchor_rank=None,
            books=close_books(totals, self._observations),
            ingress=self._traffic.into,
            egress=self._traffic.out_of,
            history=self._traffic.history,
            lookups=self._lookups,
            attached=self._attached,
            unobserved=self._unobserved,
            capture_filter=self._narrowing.text,
            usage=self._usage.usage,
            delay_s=self._config.delay_s,
            linger_s=self._config.table.linger_s,
            last=self._last,
            source=self._source,
            collecting=self._collecting,
            owners=self._owners,
            names=self._names,
            tunnels=self._tunnels,
            troubles=self._found,
        )

    def _uptime_s(self, now_ns: int) -> float:
        if not self._config.own_time:
            return self._tick_closed_at - self._started_at
        return 0.0 if self._first_ns is None else (now_ns - self._first_ns) / 1e9


def _unexpected(activity: str, error: Exception) -> FlowtopError:
    failure = host_fault(f"{activity} failed", error) if limit_hint(str(error)) else None
    failure = failure or FlowtopError(
        f"{activity} failed unexpectedly: {type(error).__name__}: {error}",
        hint="please report this, with what you ran and the output of flowtop --check",
    )
    failure.__cause__ = error
    return failure
