"""Every export of one run: opened, fed with Flow Records, paused, ended; each with its own queue, thread and figures.

Nothing heavy is imported before the first export is added: a run without any pays nothing for this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.statistics import ExportStatistics, MeteringFacts
from flowtop.text.lookups import Lookups

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowtop.export.exporter import Exporter
    from flowtop.model.record import FlowRecords
    OpenExporter = Callable[[str, Path], Exporter]
    Keep = Callable[[FlowRecords, Lookups], npt.NDArray[np.bool_]]
    'Which records an export is for: records and interface names by ifindex -> shape (n,).'


_PARENT = 3
"""record.Kind.PARENT, without numpy; a test compares them."""
FLUSH_S = 5.0
"""How long an end waits for collectors before what is left goes to the spool, or is counted as not sent."""

FILE_FLUSH_S = 600.0
"""How long it goes on writing a file, while the disk takes it: whoever records wants all of it."""
HURRY_S = 0.5
"""How long it waits when the user asked twice."""


def default_state_directory(environment: Mapping[str, str], user: int) -> Path:
    """Where spools are unless something else is said: root's is the system's, others have their own (XDG).

    Args:
        user: effective user id.
    """
    if user == 0:
        return Path("/var/lib/flowtop")
    return Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "flowtop"


@dataclass(frozen=True, slots=True)
class Export:
    """One export of this run, as it stands.

    Attributes:
        number: 1, 2, ... in the order in which they were added.
        statistics: its figures and its state.
        keep: which records it is for; None: all.
        duplicates: flows that another Observation Point's flow stands for, too.
    """

    number: int
    statistics: ExportStatistics
    keep: Keep | None = None
    duplicates: bool = True

    def takes(self, record: FlowRecords, lookups: Lookups) -> bool:
        """Whether it is for this record (FLOW_RECORD_DTYPE, shape (1,)): neither its filter nor `duplicates=drop`
        leaves it out."""
        if not self.duplicates and record["duplicate"].any():
            return False
        return self.keep is None or bool(self.keep(record, lookups).all())


@dataclass(slots=True)
class _Running:
    exporter: Exporter
    keep: Keep | None
    file: Path | None
    duplicates: bool
    ended: bool = False


class Exports:
    """Every export of this run, stopped ones too. A `pipeline.FlowRecordConsumer`; any thread.

    Args:
        state_directory: spools are made below it.
        flush_s: how long `stop` waits for collectors, unless it is told otherwise.
        standard_output: whether an export may have it (`jsonl:-`).
        scope: asked which records an export is for that is added without a word of that.
        open_exporter: `opening.open_exporter`; injected for tests.
        monotonic: seconds.
    """

    def __init__(self, state_directory: Path, *, flush_s: float = FLUSH_S, standard_output: bool = False,
                 scope: Callable[[], Keep | None] = lambda: None, open_exporter: OpenExporter | None = None,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self._state_directory = state_directory
        self._flush_s = flush_s
        self._standard_output = standard_output
        self._scope = scope
        self._open_exporter = open_exporter
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._adding = threading.Lock()  # One at a time: two at once could both begin the same file.
        self._running: list[_Running] = []
        self._facts = MeteringFacts()
        self._stopped = False
        self._hurried = False

    @property
    def flush_s(self) -> float:
        """How long `stop` waits for collectors, unless it is told otherwise."""
        return self._flush_s

    def add(self, url: str, keep: Keep | None = None) -> int:
        """Open an export and start it; it gets the records that are handed over from now on. Gives its number.

        May wait for a disk (certificates, a spool), never for a collector or its name.

        Args:
            url: see `export.url`.
            keep: which records it is for; None: as the run's `scope` says, all of them unless it has one.

        Raises FlowtopError: as `opening.open_exporter`; a file that another export of this run writes; standard output
            when it is not free.
        """
        from flowtop.export.url import parse_export_url

        parsed = parse_export_url(url)
        path = parsed.path
        if path == "-" and not self._standard_output:
            raise FlowtopError(f"export {url!r}: standard output is the screen's", exit_code=EXIT_USAGE,
                               hint="name a file, or run without a screen: flowtop -b")
        try:
            file = _file(path)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13.
            raise _unusable(url, error) from error
        with self._adding:
            self._refuse(url, file)
            try:
                exporter = self._opener()(url, self._state_directory)
            except OSError as error:  # A name that is too long, a path through a file, ...
                raise _unusable(url, error) from error
            keep = self._scope() if keep is None else keep
            with self._lock:
                exporter.tell(self._facts)
                self._running.append(_Running(exporter, keep, file, parsed.duplicates))
                number = len(self._running)
                if self._stopped:  # Meanwhile: nothing will be handed to it any more.
                    exporter.request_stop(0.0)
            exporter.start()
        return number

    def consume(self, records: FlowRecords) -> None:
        """Hand records (FLOW_RECORD_DTYPE, never empty) to every export that has not been ended. Never waits."""
        from flowtop.model.record import chosen  # numpy is there by now: records are its arrays

        with self._lock:
            running, lookups = tuple(self._running), self._facts.lookups
        records = chosen(records, records["kind"] != _PARENT)  # their packets are in the flows they carry
        for export in running:
            if not export.ended:
                kept = records if export.duplicates else chosen(records, ~records["duplicate"])
                if export.keep is not None and len(kept):
                    try:
                        kept = chosen(kept, export.keep(kept, lookups))
                    except Exception as error:  # noqa: BLE001 - one export's fault: metering and the others go on
                        export.exporter.refuse(kept, f"the filter failed: {type(error).__name__}: {error}")
                        export.exporter.request_stop(self._flush_s)
                        continue
                if len(kept):
                    export.exporter.consume(kept)

    def crowded(self) -> bool:
        """Whether an export that gets on has so many records waiting that a file should not be read on. Never waits."""
        with self._lock:
            return any(export.exporter.crowded for export in self._running)

    def tell(self, facts: MeteringFacts) -> None:
        """Facts that exports report in band from now on; before the records they are about."""
        with self._lock:
            self._facts = facts
            for export in self._running:
                export.exporter.tell(facts)

    def statistics(self) -> tuple[Export, ...]:
        """How each stands, in order of number."""
        with self._lock:
            running = tuple(self._running)
        return tuple(Export(number, export.exporter.statistics(), export.keep, export.duplicates)
                     for number, export in enumerate(running, 1))

    def pause(self, number: int) -> None:
        """Send nothing until `resume`: records wait as if the collector were away."""
        self._of(number).exporter.pause()

    def resume(self, number: int) -> None:
        """Go on after `pause`."""
        self._of(number).exporter.resume()

    def end(self, number: int, timeout_s: float | None = None) -> None:
        """Take no more records, send what waits, stop: in the background. It stays listed, as STOPPED."""
        export = self._of(number)
        export.ended = True
        left_s, patience_s = self._patience(export, timeout_s)
        export.exporter.request_stop(left_s, patience_s)

    def stop(self, timeout_s: float | None = None) -> tuple[Export, ...]:
        """Stop all: each sends what waits, at the same time. Gives the last figures.

        Args:
            timeout_s: at most so long; None: `flush_s`, and for files FILE_FLUSH_S as long as they are being written.

        What is left then is spooled or counted as not sent, which takes as long as the disk gets on. A second call,
        from another thread perhaps, with a shorter time cuts the first one short.
        """
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
        """How long an export may try, and how long it may take while it gets on."""
        if self._hurried:
            return min(HURRY_S, self._flush_s if timeout_s is None else timeout_s), 0.0
        if timeout_s is not None:
            return timeout_s, 0.0
        ordinary = export.file is not None and (export.file.is_file() or not export.file.exists())
        return self._flush_s, FILE_FLUSH_S if ordinary else 0.0

    def hurry(self) -> None:
        """Let `stop` wait for HURRY_S only, also when it waits already. Any thread, and signal handlers."""
        self._hurried = True  # Before looking whether it waits: `stop` does both in the other order.
        if self._stopped:
            # Not here: a signal handler must not wait for locks that the code it interrupts may hold.
            threading.Thread(target=self.stop, name="hurry", daemon=True).start()

    def _of(self, number: int) -> _Running:
        with self._lock:
            if not 1 <= number <= len(self._running):
                raise IndexError(f"there is no export {number}")
            return self._running[number - 1]

    def _opener(self) -> OpenExporter:
        if self._open_exporter is None:
            from flowtop.export.opening import open_exporter

            self._open_exporter = open_exporter
        return self._open_exporter

    def _refuse(self, url: str, file: Path | None) -> None:
        """Raises FlowtopError: this export must not be."""
        with self._lock:
            if self._stopped:
                raise FlowtopError(f"cannot begin export {url!r}: flowtop is ending", exit_code=EXIT_USAGE)
            for number, export in enumerate(self._running, 1):
                if file is not None and export.file == file and not export.ended:
                    raise FlowtopError(f"export {number} writes to {file} already", exit_code=EXIT_USAGE,
                                       hint="name another file, or end that export first")


def _unusable(url: str, error: OSError | RuntimeError) -> FlowtopError:
    return FlowtopError(f"cannot begin export {url!r}: {getattr(error, 'strerror', None) or error}",
                        hint="name a file in a directory this user may write", exit_code=EXIT_USAGE)


def _file(path: str) -> Path | None:
    """The file that an export's path means, whichever way it is spelled; None for a collector."""
    return Path(path).resolve() if path else None
