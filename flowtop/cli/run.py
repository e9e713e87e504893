"""One run, as batch output or on the screen: its exports, its recording of packets, its signals and its exit status.

Each of the two imports what only it needs; the screen after the compiler has started, because that takes longest.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.cli.run_options import RunOptions
from flowtop.cli.sources import OpenCapture, Source, choose_source
from flowtop.errors import (
    EXIT_INTERRUPTED,
    EXIT_NOT_SENT,
    EXIT_OK,
    EXIT_TERMINATED,
    EXIT_USAGE,
    FlowtopError,
)
from flowtop.export.exports import Exports, default_state_directory
from flowtop.export.statistics import ExportStatistics
from flowtop.files import allow_special
from flowtop.filters.filter import Filter, compile_filter
from flowtop.filters.kernel import Narrowing
from flowtop.model.packets import WHOLE_PACKET
from flowtop.model.tunnel_ports import replaced_ports
from flowtop.process import agent, stop_on_signals
from flowtop.query.query import Query
from flowtop.recording.recorder import Recorder, RecordingLimits, recording

if TYPE_CHECKING:
    from flowtop.capture.protocol import Capture
    from flowtop.cli.confining import Confining
    from flowtop.confine.confinement import Confinement
    from flowtop.networks.networks import NetworkDatabases
    from flowtop.pipeline.pipeline import Pipeline
    from flowtop.query.views import ListView
    from flowtop.tui.saved import Looks

Narrate = Callable[[str], None]
"""Shows the user one line of text, when there is no screen."""
TABLE_WIDTH = 160
"""Of a table in terminal columns, when standard output is no terminal."""


def batch(options: RunOptions, narrate: Narrate) -> int:
    """Write rounds to standard output until the run ends; returns the exit status.

    Raises FlowtopError: an option is not valid, capturing or writing failed, or the file is damaged.
    """
    from flowtop.cli.notices import Notices
    from flowtop.output.batch import BatchConfig, PageQueue, descriptor_writer, reader_watch, run_batch

    if sys.stdout is None and options.output != "none":
        raise FlowtopError("standard output is closed", hint="-b writes there", exit_code=EXIT_USAGE)
    run = Run(options, narrate)
    if run.query.filter is not None and run.query.filter.of_names and (options.no_names_seen or options.listen):
        raise FlowtopError("no names are known here", exit_code=EXIT_USAGE,
                           hint="-b does not look up names: filter by address, as in 'net 192.0.2.0/24'")
    pages = PageQueue()
    config = BatchConfig(output=options.output, query=run.query, width=_table_width(), agent=agent())
    stdout = None if sys.stdout is None else sys.stdout.fileno()
    write = reader_watch(stdout) if stdout is None or options.output == "none" else descriptor_writer(stdout)

    def rounds(exports: Exports, open_capture: OpenCapture) -> int:
        pipeline = run.pipeline(open_capture(), exports, reader=pages.ready)
        caught = stop_on_signals(lambda: run.recorder.stop_by_signal(pipeline.request_stop), exports.hurry)
        figures = replace(config, exports=lambda: [export.statistics.record for export in exports.statistics()],
                          confinement=None if run.confinement is None else run.confinement.record)
        run_batch(figures, pipeline, pages, notices.after(write), narrate)
        notices.stopping()
        if pipeline.fault is not None:
            raise pipeline.fault
        if not caught or options.count is None or pipeline.completed:
            return EXIT_OK
        return EXIT_INTERRUPTED if caught[0] == signal.SIGINT else EXIT_TERMINATED

    with Notices(os.environ, options.delay) as notices:
        return run.run(rounds, confine=True)


def screen(options: RunOptions, narrate: Narrate) -> int:
    """Show the screen until the user quits; returns the exit status.

    Raises FlowtopError: there is no terminal, an option is not valid, or capturing failed.
    """
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if name == "input" and options.read == "-":
            continue  # the capture; keys come from /dev/tty
        if stream is None or not stream.isatty():
            raise FlowtopError(f"standard {name} is not a terminal", hint="use -b for output without a screen",
                               exit_code=EXIT_USAGE)
    run = Run(options, narrate)
    views: tuple[ListView, ...] = ()
    if options.views:
        from flowtop.query.views import user_views

        views = user_views(options.views)

    def show(exports: Exports, open_capture: OpenCapture) -> int:
        from flowtop.tui.runtime import run_screen

        return run_screen(lambda: run.pipeline(open_capture(), exports), run.query, exports,
                          run.looks or _looks(options), run.recorder, views)

    return run.run(show, confine=True)


class Run:
    """The parts that batch output and the screen share. Making it checks all options and starts nothing.

    Args:
        options: of this run.
        narrate: called at the end with a line about each export and recording.

    Raises FlowtopError (EXIT_USAGE): a column, filter or URL is not valid, or an output file is the input file.
    """

    def __init__(self, options: RunOptions, narrate: Narrate) -> None:
        self._options = options
        self._narrate = narrate
        self._exports = planned_exports(options)
        for line in replaced_ports(options.tunnel_port):
            narrate(line)
        if options.write is not None:
            _require_another_file(options, f"-w {options.write}", options.write)
            _require_unexported(options, options.write)
        self._source: Source = choose_source(options)
        self.recorder = Recorder(RecordingLimits(options.snaplen or WHOLE_PACKET, options.write_per_flow,
                                                 options.write_total))
        """Writes packets, from the start or on request."""
        self.query = first_query(options)
        """The first query."""
        self._split = self._source.kernel_filter(self.query)
        self._narrowing = Narrowing(self._split)
        self._networks: NetworkDatabases | None = None
        self.looks: Looks | None = None
        """Of the screen, as far as they had to be read before rights were given up."""
        self.confinement: Confinement | None = None
        """What holds; None: nothing was given up yet."""

    def pipeline(self, capture: Capture, exports: Exports, *, reader: Callable[[], bool] = lambda: True) -> Pipeline:
        """A pipeline from the capture to exports and recorder, not started.

        Args:
            capture: owned by the pipeline from here on.
            exports: receive every Flow Record.
            reader: whether the reader of the rounds is ready for the next one.
        """
        from flowtop.cli.networks import open_databases, this_host
        from flowtop.pipeline.pipeline import Pipeline

        self.recorder.connect(capture)
        networks = self._networks or open_databases(self._options)
        if networks is not None and self._options.batch:
            for fault in networks.faults:
                self._narrate(f"AS and country: {fault}")
        ready = (lambda: reader() and not exports.crowded()) if self._source.waits else reader
        return Pipeline(self._source.pipeline_config(), capture, [exports], watcher=self.recorder, networks=networks,
                        here=this_host(self._options), narrowing=self._narrowing, ready=ready)

    def run(self, show: Callable[[Exports, OpenCapture], int], *, confine: bool = False) -> int:
        """Call `show` with the source, exports and recording of the options, and end them afterwards.

        Args:
            show: returns an exit status.
            confine: this process is for this run alone, and gives up its rights before `show`.

        Returns:
            That status, or EXIT_NOT_SENT instead of EXIT_OK when records or packets could not be sent or written.

        Raises FlowtopError: as Source.capture, Exports.add, Recorder.begin and `show`.
        """
        options, query = self._options, self.query
        if options.allow_special:
            allow_special()
        confining = self._confining() if confine else None
        confined = confine and options.confine != "off"
        with self._source.capture(self._split, confined=confined) as open_capture:
            directory = options.state_directory or default_state_directory(os.environ, os.geteuid())
            if confining is not None:
                directory = confining.prepare()
            exports = Exports(directory, flush_s=options.export_timeout, standard_output=options.batch,
                              scope=self._narrowing.scope)
            return exporting(exports, self._exports, lambda exports: recording(
                self.recorder, options.write, [query.filter] if query.filter else [],
                lambda: show(exports, open_capture), self._narrate), self._narrate,
                confine=lambda: self._confine(confining), confined_first=confining is not None and confining.late)

    def _confining(self) -> Confining:
        from flowtop.cli.confining import Confining

        return Confining(self._options)

    def _confine(self, confining: Confining | None) -> None:
        if confining is None:
            return
        from flowtop.cli.networks import chosen_databases, open_databases

        if confining.hides(chosen_databases(self._options)):
            self._networks = open_databases(self._options)
        if not self._options.batch:
            self.looks = _looks(self._options)
        self.confinement = confining.apply()


def first_query(options: RunOptions) -> Query:
    """The query that a run starts with. With the default sort and no group it is made without importing numpy.

    Raises FlowtopError: an unknown column or group field, a filter that is not valid, or both groups and biflows.
    """
    fields = [field.strip() for field in options.group.split(",")] if options.group else []
    query = Query(limit=options.top, offset=options.offset, descending=not options.reverse,
                  group=tuple(field for field in fields if field not in ("flow", "biflow")),
                  biflow=options.biflow or "biflow" in fields)
    if options.filter.strip():
        query = replace(query, filter=compile_filter(options.filter))
    if options.sort == query.sort and not options.group:  # biflows have that column too
        return query
    from flowtop.query.layout import sort_column

    column = sort_column(options.sort, query)
    return replace(query, sort=column.id, descending=column.descending_first != options.reverse)


def planned_exports(options: RunOptions) -> list[tuple[str, Filter | None]]:
    """The URL of each export and the filter of its records (None: all). Opens nothing.

    Raises FlowtopError (EXIT_USAGE): a URL or filter is not valid, or a file is the one that -r reads.
    """
    if not options.export:
        return []
    from flowtop.export.url import parse_export_url

    paths = [parse_export_url(url).path for url in options.export]
    filters = [None if text is None else compile_filter(text, "records") for text in options.export_filter]
    for url, path in zip(options.export, paths, strict=True):
        _require_another_file(options, f"-e {url}", path)
    return list(zip(options.export, filters, strict=True))


def _require_unexported(options: RunOptions, path: str) -> None:
    """Raise FlowtopError when an export writes the file `path` of packets as well.

    Each is locked while it is written, but opened by a thread of its own: whichever came second would be refused later,
    or wait until the first has ended.
    """
    from flowtop.export.url import parse_export_url

    def place(path: str) -> Path | None:
        with suppress(OSError, RuntimeError, ValueError):  # circular links, or a NUL: reported where it is opened
            if path != "-" and (Path(path).is_file() or not Path(path).exists()):  # a device is for all
                return Path(path).resolve()
        return None

    for url in options.export:
        written = parse_export_url(url).path
        if written and place(written) is not None and place(written) == place(path):
            raise FlowtopError(f"-w {path}: -e {url} writes this file", hint="name another file", exit_code=EXIT_USAGE)


def _require_another_file(options: RunOptions, option: str, path: str) -> None:
    """Raise FlowtopError when the output file `path` is the file that -r reads.

    It would be renamed, and the new, empty file be read.
    """
    try:
        same = bool(options.read and path) and Path(path).is_file() and Path(path).samefile(options.read or "")
    except (OSError, ValueError):  # not there, or a NUL in the name: reported where it is opened
        return
    if same:
        raise FlowtopError(f"{option}: this is the file that -r reads", hint="name another file", exit_code=EXIT_USAGE)


def exporting(exports: Exports, begin: Iterable[tuple[str, Filter | None]], run: Callable[[Exports], int],
              narrate: Narrate, *, confine: Callable[[], None] = lambda: None, confined_first: bool = False) -> int:
    """Open exports, call `run`, flush the exports and print a line about each, as tcpdump does.

    Args:
        exports: stopped when this returns.
        begin: the exports to open: URL and filter of records (None: all).
        run: returns an exit status.
        narrate: called with a line about each export; after a failed run only about those that had records.
        confine: gives up rights, before there are threads.
        confined_first: that is done before exports are opened.

    Returns:
        The status of `run`, or EXIT_NOT_SENT instead of EXIT_OK when records were lost.

    Raises FlowtopError: as `Exports.add`, and as `run`.
    """
    failed = True
    try:
        if confined_first:
            confine()
        exports.hold()
        for url, chosen in begin:
            if chosen is None:
                exports.add(url)
            else:
                exports.add(url, chosen.record_mask, filter=chosen.text)
        if not confined_first:
            confine()
        exports.release()
        status = run(exports)
        failed = False
    finally:
        last: Sequence[ExportStatistics] = [export.statistics for export in exports.stop()]
        for figures in last:
            if not failed or _records(figures):
                narrate(_closing_line(figures))
    return status or (EXIT_NOT_SENT if any(_lost(figures) or figures.refused_messages for figures in last) else EXIT_OK)


def _records(figures: ExportStatistics) -> int:
    """Flow Records that the export has received."""
    return figures.sent_records + figures.spooled_records + _lost(figures)


def _lost(figures: ExportStatistics) -> int:
    """Flow Records neither sent nor spooled: dropped, or still in memory because the disk did not answer in time."""
    return figures.not_sent_records + figures.queued_records


def _closing_line(figures: ExportStatistics) -> str:
    """One line, without control characters: what was sent, what was not, and why."""
    parts = [f"{figures.sent_records} flow records sent"]
    if figures.repeated_records:
        parts.append(f"{figures.repeated_records} may arrive twice")
    if figures.spooled_records:
        parts.append(f"{figures.spooled_records} spooled for the next run")
    if _lost(figures):
        parts.append(f"{_lost(figures)} NOT SENT")
    failing = figures.spooled_records or _lost(figures) or not figures.sent_records
    if failing and figures.last_error and figures.last_error != figures.refusal:
        parts.append(figures.last_error)
    if figures.refused_messages:
        blocked = f"blocked: {figures.refusal}, " if figures.refusal else ""
        parts.append(f"{blocked}{figures.refused_messages} datagrams REFUSED")
    if figures.unmarked_records:
        parts.append(f"{figures.unmarked_records} of them are aggregates, whose packets may be in others too")
    if figures.cut_owners:
        parts.append(f"{figures.cut_owners} lack texts about their process, for lack of room")
    line = f"export {figures.url}: {', '.join(parts)}"
    return "".join(character if character.isprintable() else "?" for character in line)


def _table_width() -> int:
    if "COLUMNS" in os.environ and os.environ["COLUMNS"].isdecimal():
        return int(os.environ["COLUMNS"])
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout and sys.stdout.isatty() else TABLE_WIDTH


def _looks(options: RunOptions) -> Looks:
    from flowtop.tui.saved import opening_looks

    looks = opening_looks(os.environ, os.geteuid(), hosts=options.names in ("hosts", "all"),
                          services=options.names in ("ports", "all"), theme=options.theme)
    complaints = [*filter(None, [looks.complaint]), *replaced_ports(options.tunnel_port)]
    return replace(looks, complaint="; ".join(complaints))
