"""The options of `flowtop`: the table that declares them, and `RunOptions`, what they mean together for one run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from flowtop.cli.candidates import fields_to_group_by, sort_columns, words_of_filters
from flowtop.cli.quantities import Count, Duration, Factor, Size
from flowtop.errors import EXIT_USAGE, FlowtopError

if TYPE_CHECKING:
    from flowtop.cli.settings import Kind, Limits, Views
    from flowtop.model.tunnel_ports import TunnelPorts
    from flowtop.output.batch import OutputFormat

COLLECTOR_IDLE_TIMEOUT_S = 90.0
"""Default with -l: exporters report a long flow about once a minute; it must not end between two reports."""
COLLECTOR_SORT = "rate_60s"
"""Default with -l: a report covers a minute of traffic, so only the longest window gives useful rates."""
COLLECTOR_DEDUPE = "off"
"""Default with -l: all records that exporters report are counted."""

NO_DATABASES = ("off",)
"""Value of `--mmdb`: no database of networks, not even one that is in its usual place."""

_COMMAND_LINE_ONLY = {"config", "version", "help", "check", "export_filter"}
"""Options that cannot be set in the settings file."""
_ORDER = "flowtop.order"
_VIEWS = "flowtop.views"
_TROUBLE = "flowtop.trouble"
_CHECKED: dict[str, Any] = {"read": None, "listen": (), "collect": False, "replay": False, "speed": None, "write": None,
                            "export": (), "export_filter": (), "count": None, "top": None, "offset": 0,
                            "reverse": False, "output": "table"}
"""With --check: options that it does not look at."""
_FILE = click.Path(readable=False, allow_dash=True)
"""A path that shells complete; errors are reported when it is opened."""


def _load_settings(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Make the TOML file's values the options' defaults: command line, then FLOWTOP_*, then the file."""
    from flowtop.cli.settings import read_settings, settings_path

    known = {option.name: _kind(option) for option in context.command.params
             if option.name and isinstance(option, click.Option) and option.name not in _COMMAND_LINE_ONLY}
    found = path or settings_path(os.environ, os.geteuid())
    if found is not None:
        settings, views, limits = read_settings(found, known, must_exist=path is not None)
        context.default_map = settings
        context.meta[_VIEWS], context.meta[_TROUBLE] = views, limits
    return path


def _kind(option: click.Option) -> Kind:
    """What kind of value a setting for this option has."""
    if option.is_flag:
        return "flag"
    if option.multiple:
        return "list"
    return "text" if isinstance(option.type, click.types.StringParamType | click.Choice | click.Path) else "number"


class Command(click.Command):
    """A command that records the order of its options: `--export-filter` applies to the `-e` before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


CONTEXT_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FLOWTOP", "max_content_width": 110}

PARAMETERS: tuple[click.Parameter, ...] = (
    click.Option(
        ["-i", "--interface"], multiple=True, metavar="NAME",
        help="Observe this interface; repeatable, globs such as 'veth*' too. Default: every interface that is up."),
    click.Option(
        ["-e", "--export"], multiple=True, metavar="URL",
        help="Export flows while watching: ipfix://HOST, ipfix+tcp://HOST, ipfix+tls://HOST, file:flows.ipfix, "
             "jsonl:flows.jsonl, csv:flows.csv, parquet:flows.parquet or jsonl+tcp://HOST:PORT; repeatable."),
    click.Option(
        ["--export-filter"], multiple=True, metavar="EXPR", allow_from_autoenv=False,
        help="Export only the flows that match; applies to the -e before it. Default: all flows, whatever is listed."),
    click.Option(
        ["-r", "--read"], type=_FILE, metavar="FILE",
        help="Read a pcap, pcapng or IPFIX file, plain or gzipped; - is standard input. Needs no root."),
    click.Option(
        ["-l", "--listen"], multiple=True, metavar="URL",
        help="Collect NetFlow, IPFIX and sFlow 5 instead of observing interfaces: udp://[ADDRESS][:PORT] or "
             "just a port, tcp://, tls://, dtls://, sctp://, sflow://. Listens on loopback unless an address is "
             "given; ?sampling=N for exporters that sample 1 in N packets and do not report it; repeatable. Needs no "
             "root."),
    click.Option(
        ["--collect"], is_flag=True,
        help="With -r: of a capture, show the flows in its NetFlow, IPFIX and sFlow messages, not its packets."),
    click.Option(
        ["--replay"], is_flag=True,
        help="With -r: read at the speed of the recording, not as fast as possible."),
    click.Option(
        ["--speed"], type=Factor(0.001, 1_000_000), metavar="FACTOR",
        help="With -r: replay this many times as fast as it was recorded."),
    click.Option(
        ["-w", "--write"], type=_FILE, metavar="FILE",
        help="Write packets of the flows that match to a pcapng file; - is standard output, with -b."),
    click.Option(
        ["--snaplen"], type=Size(0, 262_144), default=256, show_default=True, metavar="N",
        help="Octets to write of each packet; 0: all. Its full length is recorded too."),
    click.Option(
        ["--write-per-flow"], type=Count(0), default=10_000, show_default=True, metavar="N",
        help="Packets to write of each flow, from its first; 0: all."),
    click.Option(
        ["--write-total"], type=Size(0), default="1Gi", show_default=True, metavar="SIZE",
        help="Maximum size of a file of packets; 0: no limit."),
    click.Option(
        ["-s", "--sort"], metavar="COLUMN", default="rate", show_default=True, shell_complete=sort_columns,
        help="Column to sort by: rate, bytes, packets, age, source, ..."),
    click.Option(
        ["-g", "--group"], metavar="FIELD[,FIELD]", shell_complete=fields_to_group_by,
        help="Group flows by what they have in common: source, destination, pair, service, protocol, interface, "
             "direction, subnet:24, ..."),
    click.Option(
        ["-B", "--biflow"], is_flag=True,
        help="Merge both directions of a conversation in one row, the initiator as source (RFC 5103). Not with -g."),
    click.Option(
        ["-d", "--delay"], type=Duration(0.1, 3600), default=1.0, show_default=True, metavar="TIME",
        help="Time between refreshes; for a file, time in the file. With -b -r FILE and no -d: one round for the "
             "whole file."),
    click.Option(
        ["--names"], type=click.Choice(["none", "hosts", "ports", "all"]), default="none", show_default=True,
        help="Names on the screen: of the hosts in view by reverse DNS, of ports by /etc/services."),
    click.Option(
        ["-n", "--numeric"], is_flag=True,
        help="Start without names, whatever the settings say."),
    click.Option(
        ["--mmdb"], multiple=True, type=_FILE, metavar="FILE",
        help="Database of AS numbers or countries (MMDB: GeoLite2, DB-IP, IPinfo); repeatable; off: none. Default: "
             "those in /usr/share/GeoIP, /var/lib/GeoIP and the like. Nothing is downloaded."),
    click.Option(
        ["--theme"], type=click.Choice(["terminal", "dark", "light", "contrast"]),
        help="Colours of the screen; terminal: the terminal's own 16 colours. Default: the last one chosen, initially "
             "terminal."),
    click.Option(
        ["-b", "--batch"], is_flag=True,
        help="No screen: write rounds to standard output."),
    click.Option(
        ["-c", "--count"], type=Count(1), metavar="N",
        help="With -b: end after N rounds. Default: run until Ctrl-C."),
    click.Option(
        ["-o", "--output"], type=click.Choice(["table", "json", "csv", "none"]), default="table", show_default=True,
        help="With -b: output format. json: one object per round (JSON Lines); none: nothing, for use with -e."),
    click.Option(
        ["--top"], type=Count(1), metavar="N",
        help="With -b: list only the first N flows. Default: all."),
    click.Option(
        ["--offset"], type=Count(0), default=0, show_default=True, metavar="N",
        help="With -b: leave out the first N flows."),
    click.Option(
        ["--reverse"], is_flag=True,
        help="With -b: sort in the other direction: the smallest first, where the largest are usually first."),
    click.Option(
        ["--idle-timeout"], type=Duration(1, 86400), default=15.0, show_default=True, metavar="TIME",
        help="End a flow after this time without packets."),
    click.Option(
        ["--active-timeout"], type=Duration(1, 86400), default=60.0, show_default=True, metavar="TIME",
        help="Export a record of a long flow this often."),
    click.Option(
        ["--linger"], type=Duration(0, 3600), default=10.0, show_default=True, metavar="TIME",
        help="Ended flows stay in the list for this time, fading; 0: until the next refresh. Flows of a file stay."),
    click.Option(
        ["--max-flows"], type=Count(1, 100_000_000), default=1_000_000, show_default=True, metavar="N",
        help="Maximum number of flows; when there are more, the least recently active are ended."),
    click.Option(
        ["--map-entries"], type=Count(1), default=65_536, show_default=True, metavar="N",
        help="Entries of each kernel map: the number of different flows between two drains."),
    click.Option(
        ["--dedupe"], type=click.Choice(["mark", "drop", "off"]), default="mark", show_default=True,
        help="Packets that are seen at several interfaces: mark the repeats, drop them from the list, or count all "
             "(off)."),
    click.Option(
        ["--decap"], is_flag=True,
        help="Count what is inside tunnels: VXLAN, Geneve, GRE, ERSPAN, IP-in-IP, 6in4, MPLS over UDP. The tunnel "
             "itself is listed too, but is in no sum. MPLS labels and PPPoE sessions are told apart. With -l and "
             "--collect: of packets in sFlow and in records that hold some."),
    click.Option(
        ["--tunnel-port"], multiple=True, metavar="TUNNEL=PORT",
        help="With --decap: a UDP port of vxlan, geneve or mpls beside the standard ones, such as vxlan=51234; "
             "repeatable."),
    click.Option(
        ["--owners"], type=click.Choice(["on", "off"]), default="on", show_default=True,
        callback=lambda _, __, value: value == "on",
        help="Find the process, user and unit of each flow; off: nothing is attached to cgroups, /proc is not read."),
    click.Option(
        ["--no-names-seen"], is_flag=True,
        help="Do not read names in packets: DNS answers, TLS and QUIC server names, hosts of HTTP requests."),
    click.Option(
        ["--nat"], type=click.Choice(["on", "off"]), default="on", show_default=True,
        callback=lambda _, __, value: value == "on",
        help="Join both sides of connections with address translation, so that a container's process is known on all "
             "interfaces; off: the kernel's connection tracking is not read."),
    click.Option(
        ["--export-timeout"], type=Duration(0, 3600), default=5.0, show_default=True, metavar="TIME",
        help="At the end, wait this long for collectors; what is left is spooled, or counted as not sent."),
    click.Option(
        ["--state-directory"], type=click.Path(path_type=Path), metavar="DIR",
        help="Where exports are spooled. Default: /var/lib/flowtop as root, else ~/.local/state/flowtop."),
    click.Option(
        ["--config"], type=click.Path(path_type=Path), is_eager=True, callback=_load_settings, metavar="FILE",
        help="Settings file (TOML); options and FLOWTOP_* variables override it. Default: "
             "~/.config/flowtop/config.toml."),
    click.Option(
        ["--check"], is_flag=True, allow_from_autoenv=False,
        help="Check this host and say how to fix what is missing."),
    click.Argument(["filter"], nargs=-1, metavar="[FILTER]...", shell_complete=words_of_filters),
)
"""The options of `flowtop` in the order of `--help`. Each has its attribute in `RunOptions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What one run does: an attribute per option, after the options have been compared with each other.

    Options that do not apply to this run have been cleared: at most one of `read` and `listen` is set, `count` and
    `top` are None without `batch`, and so on. Where a value came from does not matter any more.

    Attributes:
        interface: names and globs; empty: every interface that is up.
        export: URLs in the order given.
        export_filter: for each URL of `export` the text of its filter; None: all flows.
        read: path of a capture file, "-" for standard input; None: no file.
        listen: URLs to collect at; empty: none.
        collect: show the flows in the export messages of the capture `read`, not its packets.
        replay: `read` is read at a speed, not as fast as possible.
        speed: of the replay, a factor; None: no replay.
        write: where packets are written to, "-" for standard output; None: nowhere.
        snaplen: octets of a packet, 0: all.
        write_per_flow: packets of a flow, 0: all.
        write_total: octets of the file, 0: no limit.
        sort: id of a column.
        group: ids of group fields, separated by commas; empty: no grouping.
        biflow: both directions in one row.
        delay: seconds between rounds.
        one_round: the whole file is one round, whatever `delay` is.
        names: which names the screen begins with: none, hosts, ports or all.
        numeric: names were turned off; `names` is none then.
        mmdb: paths of databases of networks; empty: the usual ones; NO_DATABASES: none.
        theme: of the screen; None: the one chosen last.
        batch: no screen.
        count: rounds; None: until the end.
        output: format of rounds; none where standard output belongs to an export or to packets.
        top: rows of a round; None: all.
        offset: rows to leave out before them.
        reverse: sort in the column's other direction.
        idle_timeout, active_timeout, linger: seconds.
        max_flows: bound of the flow table.
        map_entries: of each kernel map.
        dedupe: mark, drop or off.
        decap: count what is inside tunnels.
        tunnel_port: with `decap`, UDP ports of tunnels in addition to the standard ones.
        owners: find the process of each flow.
        no_names_seen: do not read the names in packets.
        nat: join both sides of connections with address translation.
        export_timeout: seconds to wait for collectors at the end.
        state_directory: of spools; None: the user's.
        config: the settings file that was named; None: the user's.
        check: check the host instead of running.
        filter: text; empty: every flow.
        views: of the settings file by name, see cli.settings.
        trouble: limits of the settings file by rule, likewise.
    """

    interface: tuple[str, ...]
    export: tuple[str, ...]
    export_filter: tuple[str | None, ...]
    read: str | None
    listen: tuple[str, ...]
    collect: bool
    replay: bool
    speed: float | None
    write: str | None
    snaplen: int
    write_per_flow: int
    write_total: int
    sort: str
    group: str
    biflow: bool
    delay: float
    one_round: bool
    names: Literal["none", "hosts", "ports", "all"]
    numeric: bool
    mmdb: tuple[str, ...]
    theme: str | None
    batch: bool
    count: int | None
    output: OutputFormat
    top: int | None
    offset: int
    reverse: bool
    idle_timeout: float
    active_timeout: float
    linger: float
    max_flows: int
    map_entries: int
    dedupe: Literal["mark", "drop", "off"]
    decap: bool
    tunnel_port: TunnelPorts
    owners: bool
    no_names_seen: bool
    nat: bool
    export_timeout: float
    state_directory: Path | None
    config: Path | None
    check: bool
    filter: str
    views: Views = field(default_factory=dict)
    trouble: Limits = field(default_factory=dict)


def run_options(context: click.Context) -> RunOptions:
    """The options of a run, from the command line, the environment and the settings file.

    The command line overrides the others, also where options exclude each other: a value from the environment or the
    settings that does not apply to this run is dropped silently.

    Args:
        context: of a `Command` with PARAMETERS, parsed.

    Raises FlowtopError (EXIT_USAGE): options on the command line exclude each other or need another option, or
        an `--export-filter` has no `-e` before it.
    """
    values = dict(context.params)
    if values["check"]:  # reports on the host; only the filter and what it depends on matter
        values.update(_CHECKED)
    origins = {name: context.get_parameter_source(name) for name in values}
    given = {name for name, origin in origins.items() if origin is ParameterSource.COMMANDLINE}
    if values["check"]:
        given -= _CHECKED.keys()
    unset = {name for name, origin in origins.items() if origin is ParameterSource.DEFAULT}
    _settle_mode(values, given)
    _settle_source(values, given)
    _settle_tunnels(values, given)
    _settle_source_defaults(values, unset)
    _settle_packets(values, given)
    _settle_exports(values, () if values["check"] else context.meta.get(_ORDER, ()))
    _settle_output(values, given)
    _settle_list(values, given)
    return RunOptions(**values, views=context.meta.get(_VIEWS, {}), trouble=context.meta.get(_TROUBLE, {}))


def _settle_mode(values: dict[str, Any], given: set[str]) -> None:
    """Options that need batch output."""
    for option, without in (("count", None), ("top", None), ("offset", 0), ("reverse", False)):
        if not values["batch"]:
            if option in given:
                raise FlowtopError(f"--{option} needs -b", exit_code=EXIT_USAGE,
                                   hint="flowtop -b writes rounds instead of showing a screen")
            values[option] = without


def _settle_source(values: dict[str, Any], given: set[str]) -> None:
    """One source: interfaces, a file or a collector."""
    named = [option for option in ("listen", "read", "interface") if option in given]
    if len(named) > 1:
        raise FlowtopError(f"-{named[0][0]} and -{named[1][0]} exclude each other", exit_code=EXIT_USAGE,
                           hint="flowtop observes interfaces, reads a file, or collects from exporters")
    if named and named != ["read"]:
        values["read"] = None
    if values["read"] is not None or (named and named != ["listen"]):
        values["listen"] = ()
    if values["read"] is None:
        for option in ("collect", "replay", "speed"):
            if option in given:
                raise FlowtopError(f"--{option} needs -r", hint="flowtop -r FILE reads a capture", exit_code=EXIT_USAGE)
        values["collect"], values["replay"], values["speed"] = False, False, None
    elif values["replay"] or values["speed"]:
        values["replay"], values["speed"] = True, values["speed"] or 1.0


def _settle_tunnels(values: dict[str, Any], given: set[str]) -> None:
    """Ports of tunnels."""
    from flowtop.model.tunnel_ports import added_ports

    pairs = [str(text).partition("=") for text in values["tunnel_port"]]
    for name, sign, _ in pairs:
        if not sign:
            raise FlowtopError(f'--tunnel-port "{name}" names no port', hint="for example --tunnel-port vxlan=51234",
                               exit_code=EXIT_USAGE)
    ports = added_ports((name.strip().lower(), port.strip()) for name, _, port in pairs)
    if ports and not values["decap"] and "tunnel_port" in given:
        raise FlowtopError("--tunnel-port needs --decap", hint="without it, packets in tunnels are counted as they are",
                           exit_code=EXIT_USAGE)
    values["tunnel_port"] = ports if values["decap"] else {}


def _settle_source_defaults(values: dict[str, Any], unset: set[str]) -> None:
    """Defaults that depend on the source."""
    if values["listen"] or values["collect"]:
        suited = {"idle_timeout": COLLECTOR_IDLE_TIMEOUT_S, "dedupe": COLLECTOR_DEDUPE}
        if values["listen"]:
            suited["sort"] = COLLECTOR_SORT
        values.update({name: value for name, value in suited.items() if name in unset})
    values["one_round"] = (values["batch"] and values["read"] not in (None, "-") and "delay" in unset
                           and values["count"] is None and values["speed"] is None)


def _settle_packets(values: dict[str, Any], given: set[str]) -> None:
    """The file of packets."""
    records_only = values["listen"] or values["collect"]
    if records_only and "write" not in given:
        values["write"] = None
    if values["write"] and records_only:
        raise FlowtopError("-w needs packets: exporters send flow records only", exit_code=EXIT_USAGE,
                           hint="-e records what they send: -e file:flows.ipfix")
    if values["write"] == "-" and not values["batch"]:
        raise FlowtopError("-w -: standard output belongs to the screen", exit_code=EXIT_USAGE,
                           hint="name a file, or run without a screen: flowtop -b -w -")


def _settle_exports(values: dict[str, Any], order: Iterable[str]) -> None:
    """The filter of each URL: the one that follows it on the command line.

    Args:
        order: names of the options in the order of the command line. URLs from other places have no filter.
    """
    filters: list[str | None] = [None] * len(values["export"])
    left: Iterator[str] = iter(values["export_filter"])
    number = 0
    for name in order:
        if name == "export":
            number += 1
        elif name == "export_filter":
            text = next(left)
            if not number or filters[number - 1] is not None:
                raise FlowtopError(f"--export-filter {text!r} follows no -e of its own", exit_code=EXIT_USAGE,
                                   hint="write -e URL --export-filter EXPR; join two filters with and")
            filters[number - 1] = text
    values["export_filter"] = tuple(filters)


def _settle_output(values: dict[str, Any], given: set[str]) -> None:
    """The format of batch output."""
    if values["batch"]:
        chosen = values["output"] if "output" in given else None
        values["output"] = output_format(chosen, values["output"], values["export"], values["write"])


def output_format(chosen: OutputFormat | None, default: OutputFormat, exports: Sequence[str],
                  write: str | None = None) -> OutputFormat:
    """The format of rounds. Standard output carries the rounds, or one export, or the packets.

    Args:
        chosen: the format given on the command line.
        default: the format otherwise.
        exports: URLs.
        write: the file of packets.

    Raises FlowtopError: more than one of them uses standard output, or nothing would be written anywhere.
    """
    others = [f"-e {url}" for url in exports if url.partition(":")[2].partition("?")[0] == "-"]
    others += ["-w -"] if write == "-" else []
    wanting = [*([f"-o {chosen}"] if chosen not in (None, "none") else []), *others]
    if others and len(wanting) > 1:
        first = wanting[0].split()[0] if wanting[0].startswith("-o") else "one of them"
        hint = "-w packets.pcapng" if wanting[1] == "-w -" else f"{wanting[1].partition(':')[0]}:flows"
        raise FlowtopError(f"{wanting[0]} and {wanting[1]} both write to standard output", exit_code=EXIT_USAGE,
                           hint=f"leave out {first}, or write to a file: {hint}")
    if others:
        return "none"
    output = chosen or default
    if output == "none" and not exports and write is None:
        raise FlowtopError("-o none without an export writes nothing", hint="add -e, for example -e file:flows.ipfix",
                           exit_code=EXIT_USAGE)
    return output


def _settle_list(values: dict[str, Any], given: set[str]) -> None:
    """The list: its rows, names and filter."""
    values["group"] = values["group"] or ""
    if values["group"] and values["biflow"] and ("group" in given) != ("biflow" in given):
        if "group" in given:
            values["biflow"] = False
        else:
            values["group"] = ""
    if values["numeric"]:
        values["names"] = "none"
    if "" in values["mmdb"]:
        raise FlowtopError("--mmdb names no file", hint="--mmdb FILE, or --mmdb off for no database",
                           exit_code=EXIT_USAGE)
    if "off" in values["mmdb"]:
        values["mmdb"] = NO_DATABASES
    values["filter"] = " ".join(values["filter"])
