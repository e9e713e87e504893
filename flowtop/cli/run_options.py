"""`RunOptions`: what the options of `flowtop` mean together for one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource

from flowtop.cli.options import ORDER, TROUBLE, VIEWS
from flowtop.errors import EXIT_USAGE, FlowtopError

if TYPE_CHECKING:
    from flowtop.cli.settings import Limits, Views
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
_CHECKED: dict[str, Any] = {"read": None, "listen": (), "allow_from": (), "collect": False, "replay": False,
                            "speed": None, "write": None, "export": (), "export_filter": (), "count": None,
                            "top": None, "offset": 0, "reverse": False, "output": "table"}
"""With --check: options that it does not look at."""


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
        allow_from: for each of these networks that exporters may send from, beside those in the URL; empty: all.
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
        allow_special: see files.allow_special.
        user: account that a run of root's becomes; None: the usual one.
        confine: on, strict or off.
        no_confine: it was turned off; `confine` is off then.
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
    allow_from: tuple[tuple[str, ...], ...]
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
    allow_special: bool
    user: str | None
    confine: Literal["on", "strict", "off"]
    no_confine: bool
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
    _settle_listeners(values, () if values["check"] else context.meta.get(ORDER, ()))
    _settle_exports(values, () if values["check"] else context.meta.get(ORDER, ()))
    _settle_output(values, given)
    _settle_list(values, given)
    _settle_confinement(values, given)
    return RunOptions(**values, views=context.meta.get(VIEWS, {}), trouble=context.meta.get(TROUBLE, {}))


def _settle_confinement(values: dict[str, Any], given: set[str]) -> None:
    """Whether rights are given up."""
    if {"confine", "no_confine"} <= given and values["confine"] != "off":
        raise FlowtopError(f"--confine {values['confine']} and --no-confine exclude each other", exit_code=EXIT_USAGE,
                           hint="leave one of them out")
    if values["no_confine"] and "confine" not in given:
        values["confine"] = "off"
    if "user" in given and values["confine"] == "off":
        raise FlowtopError("--user needs confinement", hint="leave out --no-confine", exit_code=EXIT_USAGE)


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


def _settle_listeners(values: dict[str, Any], order: Iterable[str]) -> None:
    """The networks that each address is for: those that follow it on the command line.

    Args:
        order: as for `_settle_exports`.
    """
    networks: list[tuple[str, ...]] = [()] * len(values["listen"])
    left: Iterator[str] = iter(values["allow_from"])
    number = 0
    for name in order:
        if name == "listen":
            number += 1
        elif name == "allow_from":
            text = next(left)
            if not number:
                raise FlowtopError(f"--allow-from {text!r} follows no -l", exit_code=EXIT_USAGE,
                                   hint="write -l URL --allow-from NET; in the settings file: ?allow=NET in the URL")
            networks[number - 1] += (text,)
    values["allow_from"] = tuple(networks)


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
