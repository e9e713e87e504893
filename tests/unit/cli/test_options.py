"""Options settled into `RunOptions`: command line, environment and settings file, and what excludes what."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import pytest

from flowtop.cli.main import command
from flowtop.cli.run_options import RunOptions
from flowtop.cli.sources import CollectorSource, FileSource, LiveSource, choose_source
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.filters.filter import compile_filter
from flowtop.model.kinds import Tunnel
from flowtop.model.tunnel_ports import replaced_ports
from flowtop.query.query import Query
from tests.unit.cli.command_line import options


@pytest.fixture(autouse=True)
def nobody_s_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor the settings of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for option in command.params:
        monkeypatch.delenv(f"FLOWTOP_{(option.name or '').upper()}", raising=False)


def settings(tmp_path: Path, text: str) -> None:
    """Write the settings file of this user."""
    (tmp_path / "flowtop").mkdir(exist_ok=True)
    (tmp_path / "flowtop" / "config.toml").write_text(text)


def test_every_option_of_the_command_is_an_attribute() -> None:
    named = {parameter.name for parameter in command.params} - {"version"}  # answers by itself: no run sees it
    attributes = {field.name for field in dataclasses.fields(RunOptions)}
    assert named <= attributes
    assert attributes - named == {"one_round", "views", "trouble"}, (
        "what follows from others, and what only the settings file has")


@pytest.mark.parametrize("text", [
    "delay = nan", "speed = inf\nread = 'x'", "[trouble]\nscan = nan", "[trouble]\ntalker = -inf", "x = " + "[" * 9_999,
    ".".join(["a"] * 9_999) + " = 1"])
def test_settings_that_are_no_settings_are_one_clear_line(tmp_path: Path, text: str) -> None:
    settings(tmp_path, text)
    with pytest.raises(FlowtopError) as refusal:
        options("-b")
    assert refusal.value.exit_code == EXIT_USAGE and len(refusal.value.message.splitlines()) == 1


def test_options_cannot_be_changed() -> None:
    run = options("-b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.batch = False  # type: ignore[misc]
    assert not hasattr(run, "__dict__")


def test_a_plain_run() -> None:
    run = options()
    assert (run.interface, run.read, run.listen, run.write, run.export) == ((), None, (), None, ())
    assert (run.batch, run.count, run.top, run.filter, run.group, run.sort) == (False, None, None, "", "", "rate")
    assert (run.delay, run.idle_timeout, run.active_timeout, run.linger) == (1.0, 15.0, 60.0, 10.0)
    assert (run.dedupe, run.names, run.write_total, run.snaplen) == ("mark", "none", 1024 ** 3, 256)


def test_the_command_line_goes_before_the_environment_and_that_before_the_settings(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(tmp_path, 'sort = "age"\nlinger = 1\nmax-flows = 10\n')
    assert (options().sort, options().linger, options().max_flows) == ("age", 1.0, 10)
    monkeypatch.setenv("FLOWTOP_SORT", "bytes")
    monkeypatch.setenv("FLOWTOP_LINGER", "2")
    run = options("-s", "packets")
    assert (run.sort, run.linger, run.max_flows) == ("packets", 2.0, 10)


@pytest.mark.parametrize(("arguments", "message"), [
    (("-l", "2055", "-r", "x"), "-l and -r exclude each other"),
    (("-r", "x", "-i", "lo"), "-r and -i exclude each other"),
    (("-l", "2055", "-i", "lo"), "-l and -i exclude each other"),
    (("--replay",), "--replay needs -r"),
    (("--speed", "2"), "--speed needs -r"),
    (("--tunnel-port", "vxlan=51234"), "--tunnel-port needs --decap"),
    (("-l", "2055", "--tunnel-port", "vxlan=51234"), "--tunnel-port needs --decap"),
    (("-l", "2055", "-b", "-w", "x"), "-w needs packets"),
    (("-w", "-"), "standard output belongs to the screen"),
    (("--count", "1"), "--count needs -b"),
    (("--top", "1"), "--top needs -b"),
    (("--offset", "1"), "--offset needs -b"),
    (("--reverse",), "--reverse needs -b"),
    (("-b", "-o", "none"), "-o none without an export writes nothing"),
    (("-b", "-w", "-", "-o", "json"), "both write to standard output"),
    (("-b", "-w", "-", "-e", "jsonl:-"), "both write to standard output"),
    (("--export-filter", "tcp", "-e", "csv:x"), "follows no -e of its own"),
    (("--allow-from", "192.0.2.0/24", "-l", "2055"), "follows no -l"),
])
def test_what_excludes_each_other_on_the_command_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(FlowtopError, match=message) as caught:
        options(*arguments)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(("ports", "message"), [
    (("vxlan",), '"vxlan" names no port'),
    (("vxlan=",), '"" is not a UDP port'),
    (("=51234",), 'unknown tunnel ""'),
    (("vxlam=51234",), 'unknown tunnel "vxlam"'),
    (("gre=51234",), '"gre" has no UDP port'),
    (("pppoe=1",), '"pppoe" has no UDP port'),
    (("vxlan=0",), '"0" is not a UDP port'),
    (("vxlan=65536",), '"65536" is not a UDP port'),
    (("vxlan=-1",), '"-1" is not a UDP port'),
    (("vxlan=0x10",), '"0x10" is not a UDP port'),
    (("vxlan=4789=1",), '"4789=1" is not a UDP port'),
    (("vxlan=7", "geneve=7"), "UDP port 7 is given to vxlan and to geneve"),
    (tuple(f"vxlan={port}" for port in range(1, 34)), "33 ports of tunnels, at most 32"),
])
def test_ports_of_tunnels_that_are_none(ports: tuple[str, ...], message: str) -> None:
    with pytest.raises(FlowtopError, match=message) as caught:
        options("--decap", *(word for port in ports for word in ("--tunnel-port", port)))
    assert (caught.value.exit_code, bool(caught.value.hint)) == (EXIT_USAGE, True)


def test_a_port_that_is_another_tunnels_is_taken_and_said() -> None:
    ports = options("--decap", "--tunnel-port", "geneve=4789", "--tunnel-port", "vxlan=8472").tunnel_port
    assert replaced_ports(ports) == ["tunnels: UDP port 4789 is geneve here, not vxlan, whose port it is"]


@pytest.mark.parametrize("words", [("-b", "--offset", "-5"), ("--idle-timeout", "-1"), ("--write-total", "-1M")])
def test_a_negative_number_is_called_negative(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError, match=f'"{words[-1]}" is negative'):
        options(*words)


def test_an_empty_name_of_a_database_is_no_database() -> None:
    with pytest.raises(FlowtopError, match="--mmdb names no file") as caught:
        options("--mmdb", "")
    assert "--mmdb off" in caught.value.hint


def test_ports_of_tunnels_come_from_command_line_environment_and_settings(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert options("--decap").tunnel_port == {}
    settings(tmp_path, 'decap = true\ntunnel-port = ["mpls=1", "vxlan=2"]\n')
    assert options().tunnel_port == {1: Tunnel.MPLS, 2: Tunnel.VXLAN}
    monkeypatch.setenv("FLOWTOP_TUNNEL_PORT", "geneve=6082 vxlan=51234")
    assert options().tunnel_port == {6082: Tunnel.GENEVE, 51234: Tunnel.VXLAN}
    given = options("--tunnel-port", "VXLAN=51234", "--tunnel-port", "geneve=4789", "--tunnel-port", "vxlan=51234")
    assert given.tunnel_port == {51234: Tunnel.VXLAN, 4789: Tunnel.GENEVE}
    assert options("-l", "2055").tunnel_port == {6082: Tunnel.GENEVE, 51234: Tunnel.VXLAN}
    monkeypatch.setenv("FLOWTOP_DECAP", "false")
    assert options().tunnel_port == {}


def test_settings_that_do_not_fit_this_run_are_dropped(tmp_path: Path) -> None:
    settings(tmp_path, 'offset = 5\nreverse = true\nread = "x.pcap"\nreplay = true\ncount = 3\ntop = 4\n'
                       'write = "y.pcapng"\ndecap = true\n')
    run = options("-l", "2055")
    assert (run.listen, run.read, run.replay, run.speed, run.write, run.decap) == (
        ("2055",), None, False, None, None, True)
    assert (run.count, run.top, run.offset, run.reverse) == (None, None, 0, False)
    run = options("-b", "-i", "lo")
    assert (run.interface, run.read, run.count, run.top, run.write, run.decap) == (
        ("lo",), None, 3, 4, "y.pcapng", True)
    assert (run.offset, run.reverse) == (5, True)
    assert options("-b").read == "x.pcap"


def test_a_file_and_a_collector_from_the_settings_are_the_file(tmp_path: Path) -> None:
    settings(tmp_path, 'read = "x.pcap"\nlisten = "2055"\nwrite = "y.pcapng"\n')
    run = options("-b")
    assert (run.read, run.listen, run.write) == ("x.pcap", (), "y.pcapng")


def test_of_groups_and_biflows_what_is_typed_counts(tmp_path: Path) -> None:
    settings(tmp_path, 'group = "source"\nbiflow = true\n')
    run = options("-B")
    assert (run.group, run.biflow) == ("", True)
    run = options("-g", "pair")
    assert (run.group, run.biflow) == ("pair", False)


def test_collectors_have_defaults_of_their_own_which_the_settings_override(tmp_path: Path) -> None:
    run = options("-l", "2055")
    assert (run.sort, run.idle_timeout, run.dedupe) == ("rate_60s", 90.0, "off")
    settings(tmp_path, 'sort = "rate"\nidle-timeout = 15\ndedupe = "mark"\n')
    run = options("-l", "2055")
    assert (run.sort, run.idle_timeout, run.dedupe) == ("rate", 15.0, "mark")


def test_each_export_has_the_filter_that_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = options("-b", "-l", "2055", "-l", "9995", "--allow-from", "192.0.2.0/24", "--allow-from", "2001:db8::/32",
                  "-l", "tcp://", "--allow-from", "198.51.100.7")
    assert run.allow_from == ((), ("192.0.2.0/24", "2001:db8::/32"), ("198.51.100.7",))
    run = options("-b", "-e", "csv:a", "-e", "csv:b", "--export-filter", "tcp", "-e", "csv:c", "--export-filter", "udp")
    assert (run.export, run.export_filter) == (("csv:a", "csv:b", "csv:c"), (None, "tcp", "udp"))
    monkeypatch.setenv("FLOWTOP_EXPORT", "csv:a csv:b")
    assert options("-b").export_filter == (None, None)


@pytest.mark.parametrize(("arguments", "tick_s"), [
    (("-b", "-r", "x"), None),
    (("-b", "-r", "x", "-d", "1"), 1.0),
    (("-b", "-r", "x", "-c", "3"), 1.0),
    (("-b", "-r", "-"), 1.0),
    (("-b", "-r", "x", "--replay"), 1.0),
    (("-r", "x"), 1.0),
    (("-b", "-r", "x", "--speed", "4", "-d", "2"), 8.0),
])
def test_ticks_of_a_file(arguments: tuple[str, ...], tick_s: float | None) -> None:
    source = choose_source(options(*arguments))
    assert isinstance(source, FileSource)
    assert source.tick_s == tick_s


def test_a_replay_has_a_speed() -> None:
    assert [(run.replay, run.speed) for run in (
        options("-r", "x"), options("-r", "x", "--replay"), options("-r", "x", "--speed", "3"))] == [
        (False, None), (True, 1.0), (True, 3.0)]


def test_numbers_go_before_names(tmp_path: Path) -> None:
    settings(tmp_path, 'names = "all"\n')
    assert (options().names, options("-n").names) == ("all", "none")


def test_output_belongs_to_one() -> None:
    assert options("-b").output == "table"
    assert options("-b", "-o", "json", "-e", "csv:x").output == "json"
    assert options("-b", "-e", "jsonl:-").output == "none"
    assert options("-b", "-w", "-").output == "none"


def test_a_check_is_of_this_host_whatever_the_settings_read(tmp_path: Path) -> None:
    settings(tmp_path, 'read = "x.pcap"\nwrite = "-"\n')
    run = options("--check", "tcp")
    assert (run.check, run.read, run.listen, run.write, run.filter) == (True, None, (), None, "tcp")


def test_sources() -> None:
    live, file, collector = (choose_source(options("-b", *source)) for source in ((), ("-r", "x"), ("-l", "2055")))
    assert (type(live), type(file), type(collector)) == (LiveSource, FileSource, CollectorSource)
    assert [source.waits for source in (live, file, collector)] == [False, True, False]
    assert [source.pipeline_config().own_time for source in (live, file, collector)] == [False, True, False]
    query = Query(filter=compile_filter("tcp and rate > 1M"))
    places = [source.kernel_filter(query) for source in (live, file, collector)]
    assert [(split.kernel, split.rest) for split in places] == [
        ("tcp", "rate > 1M"), ("", "tcp and rate > 1M"), ("", "tcp and rate > 1M")]


def test_exports_are_of_all_flows_so_that_nothing_is_filtered_in_the_kernel() -> None:
    query = Query(filter=compile_filter("tcp"))
    assert choose_source(options("-b", "-e", "csv:x")).kernel_filter(query).kernel == ""


def test_the_screen_begins_early_and_keeps_the_past_of_interfaces_only() -> None:
    configs = [choose_source(options(*arguments)).pipeline_config() for arguments in (
        (), ("-b",), ("-r", "x"), ("-l", "2055"))]
    assert [config.past_s > 0 for config in configs] == [True, False, False, False]
    assert [config.first_delay_s for config in configs] == [0.25, None, 0.25, 0.25]
    assert [config.stay for config in configs] == [False, False, True, False]


@pytest.mark.parametrize("setting", [
    "biflow = 1", "decap = 0", "replay = 1.5", 'numeric = "yes"', "write = true", "write = 1", "state_directory = true",
    "read = 7", "delay = true", "linger = false", "snaplen = true", "sort = 1", "theme = 2", "interface = true",
    "export = 1",
])
def test_a_setting_of_the_wrong_kind_is_refused(tmp_path: Path, setting: str) -> None:
    settings(tmp_path, setting)
    with pytest.raises(FlowtopError, match=f"wrong kind of value for {setting.split()[0]}") as caught:
        options("-b")
    assert caught.value.exit_code == EXIT_USAGE
    written = caught.value.hint.removeprefix("write it as in ")
    settings(tmp_path, written)  # what the hint shows is of the right kind
    options("-b")


def test_less_than_an_octet_is_not_no_limit() -> None:
    for option in ("--snaplen", "--write-total"):
        with pytest.raises(click.UsageError, match="less than one octet"):
            options("-b", option, "0.5")
        assert options("-b", option, "0") is not None


def test_check_looks_at_nothing_but_the_host_and_the_filter() -> None:
    """What it does not need is ignored, fitting or not."""
    run = options("--check", "--top", "3", "-i", "lo", "-r", "x", "--replay", "--export-filter", "tcp", "-b", "-o",
                  "none", "port", "53")
    assert (run.check, run.read, run.listen, run.export, run.top, run.filter) == (True, None, (), (), None, "port 53")
