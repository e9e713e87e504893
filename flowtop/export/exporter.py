"""One export: a backlog of records, a thread, a transport, and counters that account for every record."""

from __future__ import annotations

import math
import os
import select
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

from flowtop.errors import FlowtopError, host_fault
from flowtop.export.backlog import SPILL_S, Backlog, QueueBounds
from flowtop.export.context import Abandoned, Transport, Waitable, in_words
from flowtop.export.owners import OwnerTexts
from flowtop.export.pairing import Hold
from flowtop.export.spool import Spool
from flowtop.export.statistics import Counters, ExportState, ExportStatistics, GivenUp, MeteringFacts
from flowtop.model.record import FlowRecords
from flowtop.wire.owners import Texts


class Alarm:
    """A wake-up call: one thread waits, any thread rings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._event)

    def ring(self) -> None:
        """End the current wait, or the next one."""
        with self._lock:
            if self._event >= 0:
                with suppress(BlockingIOError):  # many calls are pending already
                    os.eventfd_write(self._event, 1)

    def wait(self, timeout_s: float, connection: Waitable | None = None, *, write: bool = False) -> bool:
        """Wait until it rings, a descriptor is ready, or time is over; returns whether the descriptor is ready.

        It uses poll, since select supports only the first 1,024 descriptors, and hooks need two per interface.
        """
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        if connection is not None:
            poll.register(connection.fileno(), select.POLLOUT if write else select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(math.ceil(max(0.0, timeout_s) * 1000))}
        if self._event in ready:
            os.eventfd_read(self._event)
        return connection is not None and connection.fileno() in ready

    def close(self) -> None:
        """Ringing does nothing from now on."""
        with self._lock:
            self._event = -1
            self._close()


OUT_OF_TIME = "the time limit for the end was over"
"""Why records were not sent, if nothing else has failed."""
_GETS_ON = (ExportState.STARTING, ExportState.CONNECTING, ExportState.EXPORTING)
_JOIN_GRACE_S = 2.0
_POLL_S = 0.25
_WORKING_NS = 20_000_000
"""Processor time that a thread which only waits and polls does not take within a grace period."""
PAUSE_S = 1.0
"""How long a pause waits for a blocked collector; then the connection is closed, and its records are kept."""


class _PausedError(Abandoned):
    """A pause was requested, and the collector is blocked."""


class Exporter:
    """Sends the Flow Records it is given, without blocking the caller. A `pipeline.FlowRecordConsumer`.

    Args:
        url: as given, for statistics.
        transport: owned by this object.
        spool: for records that should not wait in memory while the transport is away; None: no spool.
        bounds: limits of the queue.
        monotonic, wall: clocks, in seconds.
        hold: where records wait for those of the other direction; None: they do not wait.
        owners: the texts of the records' owners, to be exported with them; None: they are not.
    """

    def __init__(self, url: str, transport: Transport, spool: Spool | None = None, *,
                 bounds: QueueBounds = QueueBounds(), monotonic: Callable[[], float] = time.monotonic,  # noqa: B008
                 wall: Callable[[], float] = time.time, hold: Hold | None = None,
                 owners: OwnerTexts | None = None) -> None:
        self._url = url
        self._hold = hold
        self._owners = owners
        self._transport = transport
        self._spool = spool
        self._monotonic = monotonic
        self._wall = wall
        self._counters = Counters(spooled=spool.records if spool else 0)
        self._backlog = Backlog(self._counters, spool, bounds, monotonic, wall)
        self._facts = MeteringFacts()
        self._state = ExportState.STARTING
        self._since = wall()
        self._open = False
        self._paused = False
        self._paused_at = 0.0
        self._stop_by: float | None = None
        self._retry_by = math.inf
        self._alarm = Alarm()
        self._cpu_clock: int | None = None
        # A daemon thread, so that a hanging disk or resolver does not keep flowtop from ending after the time limit.
        self._thread = threading.Thread(target=self._run, name=f"export {url}", daemon=True)

    # ---- any thread

    def start(self) -> None:
        """Start exporting. Called once. Raises FlowtopError: this host refuses the thread; then it is closed."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self._backlog.abandon()
            self._alarm.close()
            if self._spool is not None:
                self._spool.close()
            raise host_fault(f"cannot start export {self._url!r}", error) or error from error

    def consume(self, records: FlowRecords) -> None:
        """Add records; those that do not fit are counted as not sent. Does not block."""
        if self._owners is not None:
            self._owners.note(records, self._facts.lookups)
        if self._hold is not None:
            records = self._hold.put(records, self._monotonic())
        self._backlog.put(records)
        self._alarm.ring()

    @property
    def crowded(self) -> bool:
        """Whether the queue is half full and being sent, so that a file reader should wait."""
        return self._backlog.half_full and (self._state in _GETS_ON or self._backlog.spools)

    def note_unmarked(self, records: int) -> None:
        """Count records that may contain packets which other records have too. Does not block."""
        with self._backlog.lock:
            self._counters.unmarked += records

    def refuse(self, records: FlowRecords, reason: str) -> None:
        """Count records as not sent, for a reason other than the transport. Does not block."""
        self._backlog.refuse(records, reason)

    def update(self, facts: MeteringFacts) -> None:
        """Set the facts to report in band; once per tick is enough."""
        self._facts = facts
        if self._hold is not None and len(self._hold) and len(records := self._hold.release(self._monotonic())):
            self._backlog.put(records)
            self._alarm.ring()

    def pause(self) -> None:
        """Stop sending until `resume`: records wait as if the collector were away."""
        self._paused_at = self._monotonic()
        self._paused = True
        self._alarm.ring()

    def resume(self) -> None:
        """Continue after `pause`."""
        self._paused = False
        self._alarm.ring()

    def request_stop(self, timeout_s: float, patience_s: float = 0.0) -> None:
        """Request to flush and end within a time limit. Does not wait, so several exports can flush at once.

        While records are being sent, `patience_s` is the limit, if it is longer; failures are retried for `timeout_s`
        only. If called again, the shortest limits apply.
        """
        if self._hold is not None and len(records := self._hold.end()):
            self._backlog.put(records)
        now = self._monotonic()
        stop_by = now + max(timeout_s, patience_s)
        with self._backlog.lock:
            self._retry_by = min(self._retry_by, now + timeout_s)
            self._stop_by = stop_by if self._stop_by is None else min(self._stop_by, stop_by)
        self._alarm.ring()

    def stop(self, timeout_s: float = 5.0, patience_s: float = 0.0) -> ExportStatistics:
        """Send waiting records within the time limit; the rest is spooled, or counted as not sent.

        Returns the last figures.
        """
        self.request_stop(timeout_s, patience_s)
        if self._thread.ident is None:  # Never started: it may still send or spool its records.
            self._thread.start()
        before = None
        while self._thread.is_alive() and before != (before := self._progress()):
            # The limit may be shortened meanwhile. After it, work may continue that makes progress: encoding, spooling.
            while self._thread.is_alive() and self._stop_by is not None and self._monotonic() < self._stop_by:
                self._thread.join(min(_POLL_S, self._stop_by - self._monotonic()))
            self._thread.join(_JOIN_GRACE_S)
        if self._thread.is_alive():
            self._backlog.abandon()
        else:
            self._alarm.close()
        return self.statistics()

    def _progress(self) -> tuple[ExportStatistics, int]:
        """What changes while the exporter's thread does something: also its processor time, as on a busy machine a
        chunk may take longer than a grace period."""
        used_ns = 0
        if self._cpu_clock is not None:
            with suppress(OSError):  # the thread has ended
                used_ns = time.clock_gettime_ns(self._cpu_clock)
        return self.statistics(), used_ns // _WORKING_NS

    def statistics(self) -> ExportStatistics:
        """The current figures."""
        with self._backlog.lock:
            counters, lost = self._counters, self._counters.given_up
            errors = "; ".join(filter(None, (self._backlog.spool_error, counters.last_error)))
            return ExportStatistics(
                self._url, self._state, counters.sent, counters.messages, counters.octets, counters.repeated,
                self._backlog.waiting + (len(self._hold) if self._hold is not None else 0), counters.spooled,
                lost.records, lost.packets, lost.octets,
                errors, counters.announced_at, self._since, self._transport.file_octets, counters.refused,
                counters.refusal, counters.unmarked, counters.cut_owners)

    # ---- ExportContext, for the transport

    def monotonic(self) -> float:
        """Monotonic clock, in seconds."""
        return self._monotonic()

    def wall(self) -> float:
        """Seconds since 1970 UTC."""
        return self._wall()

    def metering(self) -> MeteringFacts:
        """The latest facts of the Metering Process."""
        return self._facts

    def given_up(self) -> GivenUp:
        """Totals of records that this export has given up."""
        return self._backlog.given_up()

    def owners(self) -> Texts | None:
        """The texts of the records' owners; None: they are not exported."""
        return None if self._owners is None else self._owners.texts

    def cut_owners(self, records: int) -> None:
        """Count records whose owner's texts were cut or left out; negative: they were not sent after all."""
        with self._backlog.lock:
            self._counters.cut_owners += records

    def wait(self, connection: Waitable | None, *, write: bool, timeout_s: float) -> bool:
        """Wait for a socket or pipe, and keep the queue short meanwhile. Raises Abandoned."""
        deadline = self._monotonic() + timeout_s
        while True:
            left = min(deadline, self._stop_by or deadline) - self._monotonic()
            if self._alarm.wait(min(left, _POLL_S), connection, write=write):
                return True
            self._backlog.spill()
            if self._stop_by is not None and self._monotonic() >= self._stop_by:
                raise Abandoned
            if self._must_pause() and self._monotonic() - self._paused_at >= PAUSE_S:
                raise _PausedError
            if self._monotonic() >= deadline:
                return False

    def blocked(self, blocked: bool) -> None:
        """Set whether the collector has stopped reading."""
        self._become(ExportState.BLOCKED if blocked else ExportState.EXPORTING)

    def refused(self, reason: str, messages: int = 0) -> None:
        """Set why sent data is refused; "" if it no longer is; and count the refused messages."""
        with self._backlog.lock:
            self._counters.refusal = reason
            self._counters.refused += messages
            self._counters.last_error = reason or self._counters.last_error
        self.blocked(bool(reason))

    def wrote(self, messages: int, octets: int) -> None:
        """Count written messages and octets."""
        self._counters.messages += messages
        self._counters.octets += octets

    def announced(self) -> None:
        """Note that Templates have been written."""
        self._counters.announced_at = self._wall()

    # ---- the exporter's thread

    def _run(self) -> None:
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            while True:
                try:
                    if self._round():
                        break
                except _PausedError:
                    self._take_back()
                except Abandoned:
                    self._counters.last_error = self._counters.last_error or OUT_OF_TIME
                    break
                except (OSError, FlowtopError) as error:
                    if self._fail(in_words(error)):
                        break
        except Exception as error:  # noqa: BLE001 - a thread's last resort: records are accounted for, the user sees it
            self._counters.last_error = f"unexpected: {type(error).__name__}: {error}"
        finally:
            self._end()

    def _round(self) -> bool:
        """Open, send, or wait once; returns whether everything is done."""
        if self._must_pause():
            self._pause_once()
            return False
        if not self._open:
            self._become(ExportState.CONNECTING)
            self._transport.open(self)
            self._open = True
        self._become(ExportState.BLOCKED if self._counters.refusal else ExportState.EXPORTING)
        if self._send_some():
            if self._stop_by is not None and self._monotonic() >= self._stop_by:
                raise Abandoned
            return False
        if self._stop_by is not None:
            self._transport.finish(self)
            self._open = False
            return True
        self._backlog.rested()
        self._rest(self._transport.tick(self))
        return False

    def _must_pause(self) -> bool:
        return self._paused and self._stop_by is None

    def _pause_once(self) -> None:
        if self._open:
            self._transport.finish(self)
            self._take_back()
        self._become(ExportState.PAUSED)
        self._backlog.spill()
        self._rest(SPILL_S)

    def _send_some(self) -> bool:
        """Send the next records; returns whether there were any. If it raises, `_take_back` gets them."""
        records = self._backlog.next()
        if records is None:
            return False
        self._transport.send(records, self)
        self._backlog.sent()
        return True

    def _fail(self, reason: str) -> bool:
        """Handle a failed transport: take records back, wait; returns whether it is time to end."""
        self._counters.last_error = reason
        self._take_back()
        self._become(ExportState.WAITING)
        again_at = self._monotonic() + self._transport.retry_s
        while not self._must_pause():
            self._backlog.spill()
            left = again_at - self._monotonic()
            if left <= 0:
                return False
            if again_at >= self._retry_by:
                return True
            self._rest(min(left, SPILL_S))
        return False

    def _take_back(self) -> None:
        """Close the transport and put back records that were not sent or may not have arrived."""
        records, written = self._transport.abandon()
        self._open = False
        self._backlog.give_back(records, written)

    def _rest(self, timeout_s: float) -> None:
        """Wait until the alarm rings, or for this time."""
        left = timeout_s if self._stop_by is None else min(timeout_s, self._stop_by - self._monotonic())
        self._alarm.wait(left)

    def _end(self) -> None:
        self._take_back()
        self._backlog.close()
        self._become(ExportState.STOPPED)
        if self._spool is not None:
            self._spool.close()

    def _become(self, state: ExportState) -> None:
        if state is not self._state:
            with self._backlog.lock:
                self._state, self._since = state, self._wall()
