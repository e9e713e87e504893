"""The options of `flowtop`: the table that declares them, and how the settings file becomes their defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowtop.cli.candidates import fields_to_group_by, sort_columns, words_of_filters
from flowtop.cli.quantities import Count, Duration, Factor, Size

if TYPE_CHECKING:
    from flowtop.cli.settings import Kind

_COMMAND_LINE_ONLY = {"config", "version", "help", "check", "export_filter",
                      "allow_from"}
"""Options that cannot be set in the settings file."""
ORDER = "flowtop.order"
VIEWS = "flowtop.views"
TROUBLE = "flowtop.trouble"
"""Keys of a context's `meta`: options in the order of the command line; views and limits of the settings file."""
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
        context.meta[VIEWS], context.meta[TROUBLE] = views, limits
    return path


def _kind(option: click.Option) -> Kind:
    """What kind of value a setting for this option has."""
    if option.is_flag:
        return "flag"
    if option.multiple:
        return "list"
    return "text" if isinstance(option.type, click.types.StringParamType | click.Choice | click.Path) else "number"


class Command(click.Command):
    """A command that records the order of its options: `--export-filter` applies to the `-e` before it, `--allow-from`
    to the `-l`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in order]
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
        ["--allow-from"], multiple=True, metavar="NET", allow_from_autoenv=False,
        help="Collect only from exporters in this network, such as 192.0.2.0/24, and count what others send; applies "
             "to the -l before it; repeatable. In a URL: ?allow=NET,NET."),
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
        help="Where exports are spooled. Default: /var/lib/flowtop as root, else ~/.local/state/flowtop of the user, "
             "behind sudo of who ran it."),
    click.Option(
        ["--allow-special"], is_flag=True,
        help="Let -e and -w write to devices, named pipes and other users' files, and follow links."),
    click.Option(
        ["--user"], metavar="NAME",
        help="As root: the account that a run becomes once rights are not needed any more. Default: who ran sudo, else "
             "flowtop, else 65534."),
    click.Option(
        ["--confine"], type=click.Choice(["on", "strict", "off"]), default="on", show_default=True,
        help="Give up rights before anything is parsed: user, capabilities, system calls, files and TCP ports; strict: "
             "do not run where a part of it is missing."),
    click.Option(
        ["--no-confine"], is_flag=True,
        help="The same as --confine off."),
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
