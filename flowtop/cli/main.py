"""The command line: options, settings, signals, exit statuses. The only place that writes stderr or ends the process.

Everything heavy is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowtop import __version__
from flowtop.cli import sources
from flowtop.cli.quantities import Count, Duration, Factor, Size
from flowtop.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_TERMINATED, EXIT_USAGE, FlowtopError
from flowtop.process import SIGNALS, stop_on_signals

if TYPE_CHECKING:
    from flowtop.cli.sources import Listening, Reading
    from flowtop.export.exports import Exports, Keep
    from flowtop.filters.kernel import Narrowing, Split
    from flowtop.pipeline.pipeline import Pipeline
    from flowtop.query.query import Query
    from flowtop.recording.recorder import Recorder
    from flowtop.tui.saved import Looks


SCREEN_FIRST_DELAY_S = 0.25
"""The screen's first tick comes early: nobody should look at an empty list for a whole second."""

_NO_SETTINGS = {"config", "version", "help", "check", "export_filter"}
"""Options that only the command line has."""


def _load_settings(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Make the TOML file's values the options' defaults: command line, then FLOWTOP_*, then the file."""
    from flowtop.cli.settings import read_settings, settings_path

    options = {option.name for option in context.command.params if option.name and isinstance(option, click.Option)}
    context.default_map = read_settings(path or settings_path(os.environ), options - _NO_SETTINGS,
                                        must_exist=path is not None)
    return path


class _Command(click.Command):
    """Remembers in which order options stood: `--export-filter` is about the `-e` before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


_ORDER = "flowtop.order"


@click.command(cls=_Command, context_settings={
    "help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FLOWTOP", "max_content_width": 110})
@click.option("-i", "--interface", multiple=True, metavar="NAME",
              help="Observe this interface; repeatable, globs such as 'veth*'. Default: every interface that is up.")
@click.option("-e", "--export", multiple=True, metavar="URL",
              help="Export flows while watching: ipfix://host, ipfix+tcp://, ipfix+tls://, file:flows.ipfix, "
                   "jsonl:flows.jsonl or csv:flows.csv; repeatable.")
@click.option("--export-filter", multiple=True, metavar="EXPR", allow_from_autoenv=False,
              help="Limit the -e before it to the flows that match. Default: every flow, whatever is shown.")
@click.option("-r", "--read", metavar="FILE",
              help="Read a pcap, pcapng or IPFIX file, gzipped or not; - is standard input. Needs no root.")
@click.option("-l", "--listen", multiple=True, metavar="URL",
              help="Collect NetFlow 5 and 9, IPFIX and sFlow 5, not interfaces: udp://[ADDRESS][:PORT] or just a port, "
                   "tcp://, tls://, sflow://. Loopback unless an address is named; repeatable. Needs no root.")
@click.option("--replay", is_flag=True, help="With -r: at the speed it was recorded, not as fast as it can be read.")
@click.option("--speed", type=Factor(0.001, 1_000_000), metavar="FACTOR",
              help="With -r: replay, so many times as fast as it was recorded.")
@click.option("-w", "--write", metavar="FILE",
              help="Write packets of the flows that match to a pcapng file; - is standard output, with -b.")
@click.option("--snaplen", type=Size(0, 262_144), default=256, show_default=True, metavar="N",
              help="Octets of each packet that are written; 0: all. Its true length is written too.")
@click.option("--write-per-flow", type=Count(0), default=10_000, show_default=True, metavar="N",
              help="Packets of each flow that are written, from the first on; 0: all.")
@click.option("--write-total", type=Size(0), default="1Gi", show_default=True, metavar="SIZE",
              help="Size of a file of packets at most; 0: as much as the disk takes.")
@click.option("-s", "--sort", metavar="COLUMN", default="rate", show_default=True,
              help="Column to sort by: rate, bytes, packets, age, source, ...")
@click.option("-g", "--group", metavar="FIELD[,FIELD]",
              help="Add flows up by what they have in common: source, destination, pair, service, protocol, "
                   "interface, direction, subnet:24, ...")
@click.option("-B", "--biflow", is_flag=True,
              help="Both ways of a conversation in one row, the initiator as source (RFC 5103). Not with -g.")
@click.option("-d", "--delay", type=Duration(0.1, 3600), default=1.0, show_default=True, metavar="TIME",
              help="Time between refreshes; in a file its own time. With -b -r FILE and no -d: one round for all.")
@click.option("--names", type=click.Choice(["none", "hosts", "ports", "all"]), default="none", show_default=True,
              help="Names on the screen: of hosts by reverse DNS of what is in view, of ports by /etc/services.")
@click.option("-n", "--numeric", is_flag=True, help="No names to begin with, whatever the settings say.")
@click.option("--theme", type=click.Choice(["terminal", "dark", "light", "contrast"]),
              help="Colours of the screen. terminal: its own 16 colours. Default: as chosen last, at first terminal.")
@click.option("-b", "--batch", is_flag=True, help="No screen: write rounds to standard output.")
@click.option("-c", "--count", type=Count(1), metavar="N",
              help="With -b: end after N rounds. Default: until Ctrl-C.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "csv", "none"]), default="table", show_default=True,
              help="With -b: the format. json is one object a round (JSON Lines); none leaves it to -e.")
@click.option("--top", type=Count(1), metavar="N", help="With -b: list the first N flows. Default: all.")
@click.option("--idle-timeout", type=Duration(1, 86400), default=15.0, show_default=True, metavar="TIME",
              help="A flow without packets for this long has ended.")
@click.option("--active-timeout", type=Duration(1, 86400), default=60.0, show_default=True, metavar="TIME",
              help="A flow that goes on is reported this often.")
@click.option("--linger", type=Duration(0, 3600), default=10.0, show_default=True, metavar="TIME",
              help="Ended flows stay listed for this long, fading; 0: until the next refresh. Of a file: for good.")
@click.option("--max-flows", type=Count(1, 100_000_000), default=1_000_000, show_default=True, metavar="N",
              help="Flows kept at most; the least recently active are ended first.")
@click.option("--map-entries", type=Count(1), default=65_536, show_default=True, metavar="N",
              help="Entries of each kernel map: different flows between two drains.")
@click.option("--dedupe", type=click.Choice(["mark", "drop", "off"]), default="mark", show_default=True,
              help="The same packet seen at several interfaces: mark repeats, drop them from the list, or count all.")
@click.option("--decap", is_flag=True,
              help="Count what is inside tunnels: VXLAN, Geneve, GRE, ERSPAN, IP-in-IP, 6in4, MPLS over UDP. What "
                   "carries it is a row beside it, in no sum.")
@click.option("--export-timeout", type=Duration(0, 3600), default=5.0, show_default=True, metavar="TIME",
              help="At the end, wait so long for collectors; then what is left is spooled, or counted as not sent.")
@click.option("--state-directory", type=click.Path(path_type=Path), metavar="DIR",
              help="Spools of exports. Default: /var/lib/flowtop as root, else ~/.local/state/flowtop.")
@click.option("--config", type=click.Path(path_type=Path), is_eager=True, callback=_load_settings, metavar="FILE",
              help="Settings (TOML), after options and FLOWTOP_* variables. Default: ~/.config/flowtop/config.toml.")
@click.option("--check", is_flag=True, allow_from_autoenv=False,
              help="Say what this host can do, and the remedy for what it cannot.")
@click.argument("filter", nargs=-1, metavar="[FILTER]...")
@click.version_option(__version__, "--version", prog_name="flowtop", message="%(prog)s %(version)s",
                      allow_from_autoenv=False)
def command(**options: Any) -> int:
    """Show this host's network flows, exactly, as they happen.

    Every packet is in a flow or in a visible counter. Needs root, as tcpdump does. Press ? in the screen for its keys.

    FILTER says which flows to list, in tcpdump's words and more: flowtop tcp and not private, flowtop 'rate > 1M'.
    What of it speaks of packets runs in the kernel, and is counted as filtered.
    """
    if options["check"]:
        return _check(options)
    elsewhere = sources.elsewhere(options, _given, _default)
    if options["batch"]:
        return _batch(options, elsewhere)
    return _screen(options, elsewhere)


def main() -> None:
    """Entry point: run the command, print what went wrong in two lines, exit with the documented status."""
    try:
        status = command.main(standalone_mode=False) or EXIT_OK
    except FlowtopError as error:
        _complain(error.message, error.hint)
        status = error.exit_code
    except click.UsageError as error:
        _complain(_one_line(error.format_message()), _where_it_stands(error) or "see flowtop --help")
        status = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = EXIT_OK
    except OSError as error:  # click's own writing of help and the like
        _complain(f"cannot write: {(error.strerror or str(error)).lower()}", "see to where the output goes")
        status = EXIT_FAILURE
    for number in SIGNALS:  # the status stands: a late signal, while the interpreter ends, must not change it
        signal.signal(number, signal.SIG_IGN)
    sys.exit(_flush(status))


def _complain(message: str, hint: str) -> None:
    click.echo(f"flowtop: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def _where_it_stands(error: click.UsageError) -> str:
    """The place of a value that was not typed; "" when it was."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None or not error.param.name:
        return ""
    source = error.ctx.get_parameter_source(error.param.name)
    if source is ParameterSource.ENVIRONMENT:
        return f"it stands in the environment, as FLOWTOP_{error.param.name.upper()}"
    if source is not ParameterSource.DEFAULT_MAP:
        return ""
    from flowtop.cli.settings import settings_path

    return f"it stands in {error.ctx.params.get('config') or settings_path(os.environ)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _flush(status: int) -> int:
    """Flush standard output here, where a reader that went away can be met quietly."""
    if sys.stdout is None:  # closed by whoever started us
        return status
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit: give it somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _complain(f"cannot write to standard output: {error.strerror}", "")
        return status or EXIT_FAILURE
    return status


def _check(options: dict[str, Any]) -> int:
    from flowtop.capture.ebpf.check import check_host

    split = _split(options, None, _query(options, None))
    findings = check_host()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        click.echo(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name.ljust(width)}  {finding.detail}")
        if not finding.ok and finding.remedy:
            click.echo(f"      {' ' * width}  remedy: {finding.remedy}")
    if options["filter"]:
        click.echo(f"      filter in the kernel: {split.kernel or 'nothing'}")
        click.echo(f"      filter in the flow table: {split.rest or 'nothing'}")
    return EXIT_OK if all(finding.ok for finding in findings) else EXIT_FAILURE


def _given(option: str) -> bool:
    """Whether it stands on the command line; what the environment or the settings file say may not fit every run."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _default(option: str) -> bool:
    """Whether nobody has said anything about it."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.DEFAULT


def _query(options: dict[str, Any], limit: int | None) -> Query:
    from flowtop.cli.query import first_query

    group, biflow = options["group"] or "", options["biflow"]
    if group and biflow and (typed := _given("group")) != _given("biflow"):  # it counts, not what the settings say
        group, biflow = group if typed else "", not typed
    return first_query(options["sort"], " ".join(options["filter"]), limit, group, biflow=biflow)


def _split(options: dict[str, Any], elsewhere: Reading | Listening | None, query: Query) -> Split:
    """Which part of the filter runs in the kernel program. None when there are exports: they are of all flows.

    The screen may be asked for biflows and details, which want the way back.
    """
    from flowtop.filters.kernel import places

    return places(query.filter, in_kernel=not (elsewhere or options["export"]),
                  observation_points=options["dedupe"] == "off", decap=options["decap"],
                  both_ways=query.biflow or not options["batch"])


def _exporting(options: dict[str, Any], narrowing: Narrowing, run: Callable[[Exports], int]) -> int:
    """Run with the exports asked for; gives the exit status."""
    from flowtop.cli.exports import exporting
    from flowtop.export.exports import Exports, default_state_directory

    exports = Exports(options["state_directory"] or default_state_directory(os.environ, os.geteuid()),
                      flush_s=options["export_timeout"], standard_output=options["batch"], scope=narrowing.scope)
    return exporting(exports, _check_exports(options), run, lambda line: click.echo(f"flowtop: {line}", err=True))


def _check_exports(options: dict[str, Any]) -> list[tuple[str, Keep | None]]:
    """URL and filter of each export. What means nothing is said before anything begins."""
    return sources.exports(options, click.get_current_context().meta.get(_ORDER, []))


def _batch(options: dict[str, Any], elsewhere: Reading | Listening | None) -> int:
    _check_exports(options)
    from flowtop.output.batch import BatchConfig, PageQueue, descriptor_writer, output_format, reader_watch, run_batch

    recorder = sources.recorder(options, _given)
    output = output_format(options["output"] if _given("output") else None, options["output"], options["export"],
                           options["write"])
    if sys.stdout is None and output != "none":
        raise FlowtopError("standard output is closed", hint="-b writes there", exit_code=EXIT_USAGE)
    from flowtop.filters.kernel import Narrowing

    pages = PageQueue()
    query = _query(options, options["top"])
    if query.filter is not None and query.filter.of_names:
        raise FlowtopError("names of hosts are only known on the screen", exit_code=EXIT_USAGE,
                           hint="-b looks no names up: filter by address, as in 'net 192.0.2.0/24'")
    split = _split(options, elsewhere, query)
    narrowing = Narrowing(split)
    config = BatchConfig(output=output, query=query, width=_table_width())
    stdout = None if sys.stdout is None else sys.stdout.fileno()
    write = reader_watch(stdout) if stdout is None or output == "none" else descriptor_writer(stdout)

    def run(exports: Exports) -> int:
        pipeline = sources.pipeline(options, elsewhere, open_capture(), exports, recorder, narrowing,
                                    reader=pages.ready)
        caught = stop_on_signals(lambda: recorder.stop_by_signal(pipeline.request_stop), exports.hurry)
        run_batch(config, pipeline, pages, write)
        if pipeline.fault is not None:
            raise pipeline.fault
        if not caught or options["count"] is None or pipeline.completed:
            return EXIT_OK
        return EXIT_INTERRUPTED if caught[0] == signal.SIGINT else EXIT_TERMINATED

    with sources.source(options, elsewhere, split.expression) as open_capture:
        return _exporting(options, narrowing,
                          lambda exports: _recording(options, recorder, query, lambda: run(exports)))


def _recording(options: dict[str, Any], recorder: Recorder, query: Query, run: Callable[[], int]) -> int:
    """Run with packets written if that is asked for; gives the exit status."""
    from flowtop.recording.recorder import recording

    return recording(recorder, options["write"], [query.filter] if query.filter else [], run,
                     lambda line: click.echo(f"flowtop: {line}", err=True))


def _table_width() -> int:
    if "COLUMNS" in os.environ and os.environ["COLUMNS"].isdecimal():
        return int(os.environ["COLUMNS"])
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout and sys.stdout.isatty() else 160


def _screen(options: dict[str, Any], elsewhere: Reading | Listening | None) -> int:
    from flowtop.filters.kernel import Narrowing

    for option in ("count", "top"):  # from the environment or the settings file they wait for -b
        if _given(option):
            raise FlowtopError(f"--{option} needs -b", hint="flowtop -b writes rounds instead of showing a screen",
                               exit_code=EXIT_USAGE)
    recorder = sources.recorder(options, _given)
    # textual paints on standard error.
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output"), (sys.stderr, "error")):
        if stream is sys.stdin and options["read"] == "-":
            continue  # the capture; keys come from the terminal itself
        if stream is None or not stream.isatty():
            raise FlowtopError(f"standard {name} is not a terminal", hint="use -b for output without a screen",
                               exit_code=EXIT_USAGE)
    _check_exports(options)
    query = _query(options, None)
    split = _split(options, elsewhere, query)
    narrowing = Narrowing(split)
    with sources.source(options, elsewhere, split.expression) as open_capture:
        def open_pipeline(exports: Exports) -> Pipeline:
            return sources.pipeline(options, elsewhere, open_capture(), exports, recorder, narrowing,
                                    first_delay_s=SCREEN_FIRST_DELAY_S)

        def run(exports: Exports) -> int:
            from flowtop.tui.runtime import run_screen

            return run_screen(partial(open_pipeline, exports), query, exports, _looks(options), recorder)

        return _exporting(options, narrowing, lambda exports: _recording(
            options, recorder, query, lambda: run(exports)))


def _looks(options: dict[str, Any]) -> Looks:
    from flowtop.tui.saved import opening_looks

    names = "none" if options["numeric"] else options["names"]
    return opening_looks(os.environ, os.geteuid(), hosts=names in ("hosts", "all"), services=names in ("ports", "all"),
                         theme=options["theme"])
