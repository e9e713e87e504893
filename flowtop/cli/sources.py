"""Where flows come from, and how the pipeline runs for it: what the command line chose, as objects.

Everything heavy is imported when it is made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtop.errors import EXIT_USAGE, FlowtopError

if TYPE_CHECKING:
    from flowtop.capture.collector.url import ListenUrl
    from flowtop.capture.ebpf.compiler import Compilation
    from flowtop.capture.protocol import Capture
    from flowtop.export.exports import Exports, Keep
    from flowtop.filters.kernel import Narrowing
    from flowtop.pipeline.drive import PipelineConfig
    from flowtop.pipeline.pipeline import Pipeline
    from flowtop.recording.recorder import Recorder


_STAY_S = 1e9
"""On screen, flows of a file that have ended do not fade away: who reads it wants to see what was in it."""
_PAGE_S = 0.1
"""Between two pages of a file that is read faster than anybody could look."""


@dataclass(frozen=True)
class Reading:
    """A file to be read.

    Attributes:
        path: of the file, "-" for standard input.
        screen: for the screen, not for batch output.
        tick_s: length of a tick in the file's time; None: all of it is one.
        speed: replay so many times as fast as it was recorded; None: as fast as it can be read.
        decap: packets in tunnels stand for what carries them.
    """

    path: str
    screen: bool
    tick_s: float | None
    speed: float | None
    decap: bool = False

    def capture(self) -> Capture:
        """What reads it. Raises FlowtopError: keys and capture cannot both come from standard input."""
        from flowtop.capture.files.capture import FileCapture, FileConfig

        descriptor = _take_standard_input() if self.screen and self.path == "-" else None
        return FileCapture(FileConfig(self.path, self.tick_s, self.speed, descriptor, self.decap))

    def pipeline_config(self, config: PipelineConfig) -> PipelineConfig:
        """How the pipeline follows it, otherwise as given."""
        table = replace(config.table, least_tick_s=self.tick_s or config.delay_s)
        if self.screen:
            table = replace(table, linger_s=_STAY_S)
        return replace(config, own_time=True, stay=self.screen, page_s=_PAGE_S if self.screen else 0.0, table=table)


def _take_standard_input() -> int:
    """A descriptor of what comes in there; keys come from the terminal itself from now on."""
    if sys.stdin is None or sys.stdin.isatty():
        raise FlowtopError("standard input is not a capture but the terminal", hint="tcpdump -U -w - | flowtop -r -",
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

IDLE_TIMEOUT_S = 90.0
"""Exporters report a flow that goes on each minute or so: it must not end, here, between two reports."""
SORT = "rate_60s"
"""A report brings a minute's traffic at once: only the longest window tells rates that mean something."""


@dataclass(frozen=True)
class Listening:
    """Places to listen at.

    Attributes:
        urls: at least one.
        own_idle_timeout: the user has said when flows end.
        own_dedupe: the user has said what becomes of duplicates.
    """

    urls: tuple[ListenUrl, ...]
    own_idle_timeout: bool
    own_dedupe: bool

    def capture(self) -> Capture:
        """What listens."""
        from flowtop.capture.collector.capture import CollectorCapture

        return CollectorCapture(self.urls)

    def pipeline_config(self, config: PipelineConfig) -> PipelineConfig:
        """As given, but for what the user left open: exporters' records are summed as they say, none is a duplicate."""
        table = config.table
        if not self.own_idle_timeout:
            table = replace(table, idle_timeout_s=IDLE_TIMEOUT_S)
        if not self.own_dedupe:
            table = replace(table, dedupe="off")
        return replace(config, table=table)


def parse_urls(texts: Sequence[str]) -> tuple[ListenUrl, ...]:
    """Read what `-l` says. Raises FlowtopError: no place to listen at."""
    from flowtop.capture.collector.url import parse_listen_url

    return tuple(map(parse_listen_url, texts))

SCREEN_PAST_S = 300.0
"""How far back [ goes while paused; flowtop.query.past bounds what it takes."""


Said = Callable[[str], bool]
"""Of an option: whether it was said where the name says."""


def elsewhere(options: dict[str, Any], given: Said, default: Said) -> Reading | Listening | None:
    """Where flows come from, if not from this host's interfaces; the command line goes before other settings.

    Args:
        options: by name; what does not hold for this run is changed in place.
        given: on the command line.
        default: nowhere.

    Raises FlowtopError: they exclude each other, or mean nothing.
    """
    named = [option for option in ("listen", "read", "interface") if given(option)]
    if len(named) > 1:
        raise FlowtopError(f"-{named[0][0]} and -{named[1][0]} exclude each other", exit_code=EXIT_USAGE,
                           hint="flowtop observes interfaces, or reads a file, or listens to exporters")
    for option in {"read", "listen"} - set(named) if named else ():
        options[option] = None
    reading = _reading(options, given, default)
    if reading is not None or not options["listen"]:
        return reading
    if given("decap"):
        raise FlowtopError("--decap needs packets", hint="-l collects flows that others have counted",
                           exit_code=EXIT_USAGE)

    if default("sort"):
        options["sort"] = SORT
    return Listening(parse_urls(options["listen"]), own_idle_timeout=not default("idle_timeout"),
                     own_dedupe=not default("dedupe"))


def _reading(options: dict[str, Any], given: Said, default: Said) -> Reading | None:
    """The file to read, if any."""
    if options["read"] is None:
        for option in ("replay", "speed"):
            if given(option):
                raise FlowtopError(f"--{option} needs -r", hint="flowtop -r FILE reads a capture", exit_code=EXIT_USAGE)
        return None

    speed = options["speed"] or (1.0 if options["replay"] else None)
    tick_s: float | None = options["delay"] * (speed or 1.0)
    if options["batch"] and default("delay") and options["count"] is None and options["read"] != "-" and speed is None:
        tick_s = None
    return Reading(options["read"], screen=not options["batch"], tick_s=tick_s, speed=speed, decap=options["decap"])


def pipeline_config(options: dict[str, Any], elsewhere: Reading | Listening | None, *,
                    first_delay_s: float | None = None) -> PipelineConfig:
    """Delays, timeouts and bounds."""
    from flowtop.metering.flows import TableConfig
    from flowtop.pipeline.drive import PipelineConfig

    table = TableConfig(idle_timeout_s=options["idle_timeout"], active_timeout_s=options["active_timeout"],
                        linger_s=options["linger"], max_flows=options["max_flows"], dedupe=options["dedupe"])
    config = PipelineConfig(delay_s=options["delay"], first_delay_s=first_delay_s,
                            ticks=options["count"] if options["batch"] else None, table=table,
                            past_s=0.0 if options["batch"] or elsewhere else SCREEN_PAST_S)
    return elsewhere.pipeline_config(config) if elsewhere else config


def recorder(options: dict[str, Any], given: Said) -> Recorder:
    """What writes packets, with the limits that were chosen.

    Raises FlowtopError: a size that is none; packets are to be written where there are none, over the screen, or over
        what is read.
    """
    from flowtop.model.packets import WHOLE_PACKET
    from flowtop.recording.recorder import Recorder, RecordingLimits
    from flowtop.text.operands import octets

    if options["listen"] and not given("write"):
        options["write"] = None
    if options["write"] and options["listen"]:
        raise FlowtopError("-w needs packets: exporters tell of flows only", exit_code=EXIT_USAGE,
                           hint="-e records what they tell: -e file:flows.ipfix")
    if options["write"] == "-" and not options["batch"]:
        raise FlowtopError("-w -: standard output is the screen's", exit_code=EXIT_USAGE,
                           hint="name a file, or run without a screen: flowtop -b -w -")
    if options["write"]:
        require_another_file(options, f"-w {options['write']}", options["write"])
    try:
        most_octets = int(octets(options["write_total"]))
    except ValueError:
        raise FlowtopError(f"--write-total {options['write_total']!r} is no size", exit_code=EXIT_USAGE,
                           hint="for example 100M or 1Gi; 0 for as much as the disk takes") from None
    return Recorder(RecordingLimits(options["snaplen"] or WHOLE_PACKET, options["write_per_flow"], most_octets))


def exports(options: dict[str, Any], order: Iterable[str]) -> list[tuple[str, Keep | None]]:
    """URL and filter of each export.

    Args:
        options: as the command line has them.
        order: names of the options, as they were given.

    Raises FlowtopError: one means nothing, or is the file that is read.
    """
    if not options["export"] and not options["export_filter"]:
        return []
    from flowtop.cli.exports import planned
    from flowtop.export.url import parse_export_url

    def keep(text: str) -> Keep:
        from flowtop.filters.filter import compile_filter

        return compile_filter(text, "records").record_mask

    found = planned(options["export"], options["export_filter"], order, keep)
    for url, _ in found:
        require_another_file(options, f"-e {url}", parse_export_url(url).path)
    return found


def require_another_file(options: dict[str, Any], said: str, path: str) -> None:
    """What is written at `path`, as the user said, is not what -r reads.

    It would be put aside, and what is new there be read in its place. Raises FlowtopError: it is.
    """
    try:
        same = bool(options["read"] and path) and Path(path).is_file() and Path(path).samefile(options["read"])
    except (OSError, ValueError):  # not there, or a NUL in the name: told where it is opened
        return
    if same:
        raise FlowtopError(f"{said}: that is the file which -r reads", hint="name another file", exit_code=EXIT_USAGE)


def pipeline(options: dict[str, Any], elsewhere: Reading | Listening | None, capture: Capture, exports: Exports,
             recorder: Recorder, narrowing: Narrowing, *, reader: Callable[[], bool] = lambda: True,
             first_delay_s: float | None = None) -> Pipeline:
    """One capture into one flow table, for exports and a recorder of packets; not started yet.

    Args:
        reader: whether who reads the rounds takes the next. A file waits for exports too, packets on a wire do not.
    """
    from flowtop.pipeline.pipeline import Pipeline

    recorder.connect(capture)
    waits = isinstance(elsewhere, Reading)
    return Pipeline(pipeline_config(options, elsewhere, first_delay_s=first_delay_s), capture, [exports],
                    watcher=recorder, narrowing=narrowing,
                    ready=(lambda: reader() and not exports.crowded()) if waits else reader)


@contextmanager
def source(options: dict[str, Any], elsewhere: Reading | Listening | None,
           wanted: str) -> Iterator[Callable[[], Capture]]:
    """What makes the capture; the eBPF programs' compilation has begun and goes on while the screen is imported."""
    if elsewhere:
        capture = elsewhere.capture()
        yield lambda: capture
        return
    from flowtop.capture.ebpf.start import begin

    with closing(begin(options["map_entries"], wanted, decap=options["decap"])) as compilation:
        yield lambda: _ebpf_capture(options, compilation)


def _ebpf_capture(options: dict[str, Any], compilation: Compilation) -> Capture:
    from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig

    config = EbpfConfig(interfaces=tuple(options["interface"]), map_entries=options["map_entries"],
                        decap=options["decap"])
    return EbpfCapture(config, compilation)
