"""Sources of flows: the interfaces of this host, a file, or exporters.

Each imports its capture when it makes one: a run loads only the capture that it uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from flowtop.errors import EXIT_USAGE, FlowtopError, host_fault
from flowtop.filters.kernel import Split, places

if TYPE_CHECKING:
    from flowtop.capture.collector.url import ListenUrl
    from flowtop.capture.ebpf.launch import Helpers
    from flowtop.capture.protocol import Capture
    from flowtop.cli.run_options import RunOptions
    from flowtop.confine.helper import Pending
    from flowtop.pipeline.drive import PipelineConfig
    from flowtop.query.query import Query

OpenCapture = Callable[[], "Capture"]
"""Makes the capture of a run; called once."""

SCREEN_FIRST_DELAY_S = 0.25
"""Before the first tick on the screen: short, so that the list is not empty for a whole second."""
SCREEN_PAST_S = 300.0
"""How far back the screen can show; flowtop.query.past bounds the memory."""
_STAY_S = 1e9
"""On the screen, ended flows of a file stay: the user wants to see all of the file."""
_PAGE_S = 0.1
"""Minimum between two pages of a file, which is read faster than anyone can look."""


class Source(Protocol):
    """A source of flows, with what is special about it."""

    waits: ClassVar[bool]
    """Whether reading can wait until the reader of the rounds and all exports have kept up, as for a file. Packets and
    datagrams cannot wait: with a slow reader rounds get longer, and a slow export spools or drops records."""


    def capture(self, kernel_filter: Split, *, confined: bool = False) -> AbstractContextManager[OpenCapture]:
        """A context that gives a function that makes the capture; entered before the run, left after it.

        Args:
            kernel_filter: the result of `kernel_filter`.
            confined: once it is entered, this process gives up its rights.

        Raises FlowtopError: this source cannot be captured from.
        """

    def pipeline_config(self) -> PipelineConfig:
        """Delays, timeouts and bounds of the run."""

    def kernel_filter(self, query: Query) -> Split:
        """The parts of the query's filter that run in the kernel program and in the flow table.

        Only the interfaces of this host have a kernel program.
        """


def choose_source(options: RunOptions) -> Source:
    """The source that the options name. Raises FlowtopError: a URL of `-l` is not valid."""
    if options.read is not None:
        return FileSource(options)
    if options.listen:
        from flowtop.capture.collector.url import parse_listen_url, parse_network

        urls = map(parse_listen_url, options.listen)
        return CollectorSource(options, tuple(
            replace(url, allow=(*url.allow, *map(parse_network, networks)))
            for url, networks in zip(urls, options.allow_from, strict=True)))
    return LiveSource(options)


@dataclass(frozen=True, slots=True)
class LiveSource:
    """The interfaces of this host."""

    options: RunOptions
    waits: ClassVar[bool] = False

    @contextmanager
    def capture(self, kernel_filter: Split, *, confined: bool = False) -> Iterator[OpenCapture]:
        """See Source. Starts the compiler, which runs while the rest is imported; leaving the context ends it. If
        `confined`, helpers keep the rights that capturing goes on to need.

        Raises FlowtopError: there is no permission to capture, or the map size is out of range.
        """
        from flowtop.capture.ebpf.compiler import Compilation
        from flowtop.capture.ebpf.start import begin, prepare

        options = self.options
        names, packets, exports = not options.no_names_seen, options.write is not None, len(options.export)
        with ExitStack() as opened:
            helpers: Helpers | None = None
            begun: Compilation | Pending
            if confined:
                prepare(options.map_entries, owners=options.owners, names=names, packets=packets, exports=exports)
                helpers = opened.enter_context(closing(_helpers(options)))
                if not options.batch:
                    from flowtop.output.bundle import check_with

                    check_with(helpers.check)
                begun = helpers.compile_flows(
                    map_entries=options.map_entries, expression=kernel_filter.expression, decap=options.decap,
                    tunnel_ports=options.tunnel_port, owners=options.owners, names=names)
            else:
                begun = begin(options.map_entries, kernel_filter.expression, decap=options.decap,
                              tunnel_ports=options.tunnel_port, owners=options.owners, names=names,
                              packets=packets, exports=exports)
            opened.enter_context(closing(begun))

            def open_capture() -> Capture:
                from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
                from flowtop.capture.ebpf.rights import HelpersCompilation, Rights

                config = EbpfConfig(interfaces=options.interface, map_entries=options.map_entries, decap=options.decap,
                                    tunnel_ports=options.tunnel_port, owners=options.owners,
                                    nat=options.nat, names_seen=not options.no_names_seen, must_observe=options.batch)
                rights = None if helpers is None else Rights(helpers)
                compilation = begun if isinstance(begun, Compilation) else HelpersCompilation(
                    begun, options.map_entries)
                return EbpfCapture(config, compilation, rights=rights)

            yield open_capture

    def pipeline_config(self) -> PipelineConfig:
        """See Source. The screen keeps some of the past."""
        config = _pipeline_config(self.options)
        return config if self.options.batch else replace(config, past_s=SCREEN_PAST_S)

    def kernel_filter(self, query: Query) -> Split:
        """See Source. With exports nothing is filtered in the kernel: exports are of all flows. The screen can show
        biflows and details, which need the packets of the other direction too."""
        options = self.options
        return places(query.filter, in_kernel=not options.export, observation_points=options.dedupe == "off",
                      decap=options.decap, both_ways=query.biflow or not options.batch)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A capture file or an IPFIX file."""

    options: RunOptions
    waits: ClassVar[bool] = True

    @contextmanager
    def capture(self, kernel_filter: Split, *,  # noqa: ARG002 - there is none
                confined: bool = False) -> Iterator[OpenCapture]:  # noqa: ARG002 - what needs rights is done here
        """See Source. Opens the file. When the screen reads the capture from standard input, keys come from /dev/tty
        from now on.

        Raises FlowtopError: the file cannot be read, standard input is a terminal, or there is no terminal for the
            keys.
        """
        from flowtop.capture.files.capture import FileCapture, FileConfig
        from flowtop.capture.files.octets import open_capture

        options = self.options
        assert options.read is not None
        if options.read == "-":
            descriptor = None if options.batch else _take_standard_input()
        else:
            descriptor = open_capture(options.read)
        capture = FileCapture(FileConfig(options.read, self.tick_s, options.speed, descriptor, options.decap,
                                         options.tunnel_port, options.collect, not options.no_names_seen,
                                         every_tick=options.batch))
        try:
            yield lambda: capture
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @property
    def tick_s(self) -> float | None:
        """Length of a tick in seconds of the file; None: the whole file is one tick."""
        return None if self.options.one_round else self.options.delay * (self.options.speed or 1.0)

    def pipeline_config(self) -> PipelineConfig:
        """See Source. A file has its own clock; on the screen it stays after its end."""
        config, screen = _pipeline_config(self.options), not self.options.batch
        table = replace(config.table, least_tick_s=self.tick_s or config.delay_s)
        if screen:
            table = replace(table, linger_s=_STAY_S)
        return replace(config, own_time=True, stay=screen, page_s=_PAGE_S if screen else 0.0, table=table)

    def kernel_filter(self, query: Query) -> Split:
        """See Source: nothing in the kernel."""
        return places(query.filter, in_kernel=False, observation_points=False)


@dataclass(frozen=True, slots=True)
class CollectorSource:
    """NetFlow, IPFIX and sFlow exporters.

    Attributes:
        options: of the run.
        urls: where to listen; at least one.
    """

    options: RunOptions
    urls: tuple[ListenUrl, ...]
    waits: ClassVar[bool] = False

    @contextmanager
    def capture(self, kernel_filter: Split, *,  # noqa: ARG002 - there is none
                confined: bool = False) -> Iterator[OpenCapture]:  # noqa: ARG002 - what needs rights is done here
        """See Source. Listens already. Raises FlowtopError."""
        from flowtop.capture.collector.capture import CollectorCapture

        options = self.options
        capture = CollectorCapture(self.urls, tunnel_ports=options.tunnel_port if options.decap else None)
        capture.bind()
        try:
            yield lambda: capture
        finally:
            capture.unbind()

    def pipeline_config(self) -> PipelineConfig:
        """See Source."""
        return _pipeline_config(self.options)

    def kernel_filter(self, query: Query) -> Split:
        """See Source: nothing in the kernel."""
        return places(query.filter, in_kernel=False, observation_points=False)


def _helpers(options: RunOptions) -> Helpers:
    """Started. Raises FlowtopError: this host refuses a process, a socket or a map."""
    from flowtop.capture.ebpf.launch import start_helpers

    try:
        return start_helpers(owners=options.owners, check=_check_lines)
    except OSError as error:
        raise host_fault("cannot start a helper", error) or error from error


def _check_lines() -> list[str]:
    from flowtop.capture.ebpf.check import check_host, report

    return report(check_host())


def _pipeline_config(options: RunOptions) -> PipelineConfig:
    """The options that all sources share."""
    from flowtop.metering.flows import TableConfig
    from flowtop.pipeline.drive import PipelineConfig

    table = TableConfig(idle_timeout_s=options.idle_timeout, active_timeout_s=options.active_timeout,
                        linger_s=options.linger, max_flows=options.max_flows, dedupe=options.dedupe)
    return PipelineConfig(delay_s=options.delay, first_delay_s=None if options.batch else SCREEN_FIRST_DELAY_S,
                          by_remote_end=not options.batch,
                          ticks=options.count, table=table, trouble=None if options.batch else _limits(options))


def _limits(options: RunOptions) -> dict[str, float]:
    """From which on trouble is shown."""
    from flowtop.query.trouble import RULES, thresholds

    try:
        return thresholds(options.trouble)
    except ValueError as error:
        raise FlowtopError(f"not a limit of trouble in the settings file: {error}", exit_code=EXIT_USAGE,
                           hint=", ".join(f"{rule.id} = {rule.example}" for rule in RULES)) from error


def _take_standard_input() -> int:
    """The descriptor of the capture on standard input, which is replaced by /dev/tty."""
    if sys.stdin is None or sys.stdin.isatty():
        raise FlowtopError("standard input is a terminal, not a capture", hint="tcpdump -U -w - | flowtop -r -",
                           exit_code=EXIT_USAGE)
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise FlowtopError("there is no terminal to read keys from", hint="use -b for output without a screen",
                           exit_code=EXIT_USAGE) from error
    capture = os.dup(sys.stdin.fileno())
    os.dup2(terminal, sys.stdin.fileno())
    os.close(terminal)
    return capture
