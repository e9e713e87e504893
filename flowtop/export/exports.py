"""All exports of one run: opening, supplying with Flow Records, pausing and ending them.

Heavy modules are imported when the first export is added, so that a run without exports does not load them.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.errors import EXIT_USAGE, FlowtopError, host_fault, output_hint
from flowtop.export.statistics import ExportStatistics, MeteringFacts
from flowtop.files import user_directory
from flowtop.model.kinds import Kind
from flowtop.text.lookups import Lookups

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowtop.export.exporter import Exporter
    from flowtop.model.record import FlowRecords
    OpenExporter = Callable[[str, Path | None], Exporter]
    Keep = Callable[[FlowRecords, Lookups], npt.NDArray[np.bool_]]
    'The records an export takes: records and names -> mask, shape (n,).'


FLUSH_S = 5.0
"""How long a stop waits for collectors before remaining records are spooled, or counted as not sent."""

FILE_FLUSH_S = 600.0
"""How long a stop continues to write a file while that makes progress, as a recording should be complete."""
_OF_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES, errno.EINVAL)
HURRY_S = 0.5
"""How long a stop waits if the user asked twice."""


def default_state_directory(environment: Mapping[str, str], user: int) -> Path | None:
    """The default directory of spools: for root the system's, for other users their own (XDG); None: this user has no
    home directory.

    Args:
        user: effective user id.
    """
    if user == 0:
        return Path("/var/lib/flowtop")
    return user_directory("state", environment, user)


@dataclass(frozen=True, slots=True)
class Export:
    """One export of this run at one instant.

    Attributes:
        number: 1, 2, ... in the order of adding.
        statistics: its figures and its state.
        keep: selects the records it takes; None: all.
        duplicates: whether it takes flows that are duplicates of another Observation Point's flow.
        filter: text of the filter that selects its records, "" for none of its own.
    """

    number: int
    statistics: ExportStatistics
    keep: Keep | None = None
    duplicates: bool = True
    filter: str = ""

    def takes(self, record: FlowRecords, lookups: Lookups) -> bool:
        """Whether it takes this record (FLOW_RECORD_DTYPE, shape (1,)), by its filter and `duplicates`."""
        if not self.duplicates and record["duplicate"].any():
            return False
        return self.keep is None or bool(self.keep(record, lookups).all())


@dataclass(slots=True)
class _Running:
    exporter: Exporter
    keep: Keep | None
    file: Path | None
    duplicates: bool
    filter: str = ""
    ended: bool = False


class Exports:
    """All exports of this run, including stopped ones. A `pipeline.FlowRecordConsumer`; thread-safe.

    Args:
        state_directory: parent directory of spools; None: there is none, and exports that need a spool are refused.
        flush_s: default time limit of `stop` for collectors.
        standard_output: whether an export may use it (`jsonl:-`).
        scope: returns the default `keep` of exports that are added without one.
        open_exporter: `opening.open_exporter`; injected for tests.
        monotonic: clock, in seconds.
    """

    def __init__(self, state_directory: Path | None, *, flush_s: float = FLUSH_S, standard_output: bool = False,
                 scope: Callable[[], Keep | None] = lambda: None, open_exporter: OpenExporter | None = None,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self._state_directory = state_directory
        self._flush_s = flush_s
        self._standard_output = standard_output
        self._scope = scope
        self._open_exporter = open_exporter
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._adding = threading.Lock()  # Two at once could both begin the same file.
        self._running: list[_Running] = []
        self._facts = MeteringFacts()
        self._stopped = False
        self._hurried = False
        self._held: list[Exporter] | None = None

    @property
    def flush_s(self) -> float:
        """Default time limit of `stop` for collectors."""
        return self._flush_s

    def add(self, url: str, keep: Keep | None = None, *, filter: str = "") -> int:  # noqa: A002 - the word of the screen
        """Open and start an export, which gets the records from now on. Returns its number.

        May wait for a disk (certificates, a spool), but not for a collector or a resolver.

        Args:
            url: see `export.url`.
            keep: selects its records; None: the run's `scope` decides, by default all records.
            filter: what `keep` is made from, to show.

        Raises:
            FlowtopError: as for `opening.open_exporter`; another export of this run writes the file; standard output
                is not free.
        """
        from flowtop.export.url import parse_export_url

        parsed = parse_export_url(url)
        path = parsed.path
        if path == "-" and not self._standard_output:
            raise FlowtopError(f"export {url!r}: standard output is the screen's", exit_code=EXIT_USAGE,
                               hint="use a file, or run without a screen: flowtop -b")
        try:
            file = _file(path)
        except (OSError, RuntimeError) as error:  # RuntimeError: circular links, before Python 3.13.
            raise _unusable(url, error) from error
        with self._adding:
            self._refuse(url, file)
            try:
                exporter = self._opener()(url, self._state_directory)
            except OSError as error:  # For example a name that is too long.
                raise _unusable(url, error) from error
            keep = self._scope() if keep is None else keep
            with self._lock:
                exporter.update(self._facts)
                self._running.append(_Running(exporter, keep, file, parsed.duplicates, filter))
                number = len(self._running)
                if self._stopped:  # In the meantime: it will get no records.
                    exporter.request_stop(0.0)
            if self._held is not None:
                self._held.append(exporter)
                return number
            try:
                exporter.start()
            except FlowtopError:
                with self._lock:
                    del self._running[number - 1]
                raise
        return number

    def hold(self) -> None:
        """Exports that are added from now on are opened, but their threads start with `release`: before it there is
        only the thread that calls."""
        self._held = []

    def release(self) -> None:
        """Start what was held. Raises FlowtopError: this host refuses a thread."""
        held, self._held = self._held or [], None
        while held:
            exporter = held.pop(0)
            try:
                exporter.start()
            except FlowtopError:
                with self._lock:  # nobody will start the others either
                    self._running = [export for export in self._running if export.exporter not in (exporter, *held)]
                raise

    def consume(self, records: FlowRecords) -> None:
        """Pass records (FLOW_RECORD_DTYPE, not empty) to every export that has not ended. Does not block."""
        from flowtop.export.relays import relayed  # numpy is loaded by now: records are its arrays
        from flowtop.model.record import chosen

        with self._lock:
            running, lookups = tuple(self._running), self._facts.lookups
        if all(export.ended for export in running):
            return
        records = chosen(records, records["kind"] != Kind.PARENT)  # their packets are in inner flows
        records = relayed(records, lookups)
        for export in running:
            if not export.ended:
                kept = records if export.duplicates else chosen(records, ~records["duplicate"])
                if export.keep is not None and len(kept):
                    try:
                        kept = chosen(kept, export.keep(kept, lookups))
                    except Exception as error:  # noqa: BLE001 - one export's fault must not affect metering
                        export.exporter.refuse(kept, f"the filter failed: {type(error).__name__}: {error}")
                        export.exporter.request_stop(self._flush_s)
                        continue
                if len(kept):
                    if not export.duplicates and (sums := int((kept["kind"] == Kind.AGGREGATE).sum())):
                        export.exporter.note_unmarked(sums)
                    export.exporter.consume(kept)

    def crowded(self) -> bool:
        """Whether a working export has so many records waiting that reading a file should pause. Does not block."""
        with self._lock:
            return any(export.exporter.crowded for export in self._running)

    def update(self, facts: MeteringFacts) -> None:
        """Set the facts to report in band; call it before passing the records they are about."""
        with self._lock:
            self._facts = facts
            for export in self._running:
                export.exporter.update(facts)

    def statistics(self) -> tuple[Export, ...]:
        """All exports with their figures, in order of number."""
        with self._lock:
            running = tuple(self._running)
        return tuple(Export(number, export.exporter.statistics(), export.keep, export.duplicates, export.filter)
                     for number, export in enumerate(running, 1))

    def pause(self, number: int) -> None:
        """Stop sending until `resume`: records wait as if the collector were away."""
        self._of(number).exporter.pause()

    def resume(self, number: int) -> None:
        """Continue after `pause`."""
        self._of(number).exporter.resume()

    def end(self, number: int, timeout_s: float | None = None) -> None:
        """Send waiting records, then stop, in the background. The export remains listed as STOPPED."""
        export = self._of(number)
        export.ended = True
        left_s, patience_s = self._patience(export, timeout_s)
        export.exporter.request_stop(left_s, patience_s)

    def stop(self, timeout_s: float | None = None) -> tuple[Export, ...]:
        """Stop all exports; each sends its waiting records at the same time. Returns the last figures.

        Args:
            timeout_s: time limit; None: `flush_s`, and for files FILE_FLUSH_S while they are being written.

        Remaining records are spooled or counted as not sent, which takes as long as the disk makes progress. A second
        call with a shorter limit, also from another thread, shortens the first.
        """
        if self._held:
            with suppress(FlowtopError):
                self.release()
        with self._lock:
            self._stopped = True
            running = tuple(self._running)
        asked_at = self._monotonic()
        for export in running:
            export.exporter.request_stop(*self._patience(export, timeout_s))
        for export in running:
            left_s, patience_s = self._patience(export, timeout_s)
            waited_s = self._monotonic() - asked_at
            export.exporter.stop(max(0.0, left_s - waited_s), max(0.0, patience_s - waited_s))
        return self.statistics()

    def _patience(self, export: _Running, timeout_s: float | None) -> tuple[float, float]:
        """Time limit of an export, and the limit while it makes progress."""
        if self._hurried:
            return min(HURRY_S, self._flush_s if timeout_s is None else timeout_s), 0.0
        if timeout_s is not None:
            return timeout_s, 0.0
        ordinary = export.file is not None and not _special(export.file)
        return self._flush_s, FILE_FLUSH_S if ordinary else 0.0

    def hurry(self) -> None:
        """Limit `stop` to HURRY_S, also if it is already waiting. Thread-safe, and for signal handlers."""
        self._hurried = True  # Before the check: `stop` does both in the other order.
        if self._stopped:
            # In another thread, as a signal handler must not wait for locks that the interrupted code may hold.
            threading.Thread(target=self.stop, name="hurry", daemon=True).start()

    def _of(self, number: int) -> _Running:
        with self._lock:
            if not 1 <= number <= len(self._running):
                raise IndexError(f"no export {number}")
            return self._running[number - 1]

    def _opener(self) -> OpenExporter:
        if self._open_exporter is None:
            from flowtop.export.opening import open_exporter

            self._open_exporter = open_exporter
        return self._open_exporter

    def _refuse(self, url: str, file: Path | None) -> None:
        """Raises FlowtopError if this export must not be started."""
        with self._lock:
            if self._stopped:
                raise FlowtopError(f"cannot start export {url!r}: flowtop is ending", exit_code=EXIT_USAGE)
            for number, export in enumerate(self._running, 1):
                if file is not None and export.file == file and not export.ended and not _special(file):
                    raise FlowtopError(f"export {number} writes to {file} already", exit_code=EXIT_USAGE,
                                       hint="use another file, or end that export first")


def _unusable(url: str, error: OSError | RuntimeError) -> FlowtopError:
    fault = host_fault(f"cannot start export {url!r}", error)
    if fault is not None and not (isinstance(error, OSError) and error.errno in _OF_PATHS):
        return FlowtopError(fault.message, hint=fault.hint, exit_code=EXIT_USAGE)
    problem = getattr(error, "strerror", None) or str(error)
    return FlowtopError(f"cannot start export {url!r}: {problem}", hint=output_hint(problem), exit_code=EXIT_USAGE)


def _special(file: Path) -> bool:
    """Whether it is a device or a pipe, which any number of exports can write."""
    try:
        return file.exists() and not file.is_file()
    except OSError:  # in a directory of root's, after rights were given up: what a device is was seen before
        return False


def _file(path: str) -> Path | None:
    """The resolved path of an export's file; None for a collector."""
    return Path(path).resolve() if path else None
