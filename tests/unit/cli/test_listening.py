"""`-l` on the command line: what it takes, what excludes it, what it changes when nobody says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowtop.cli.sources import CollectorSource, choose_source
from tests.unit.cli.command_line import options


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "flowtop", "-b", *options], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=os.environ | environment, check=False)


@pytest.mark.parametrize(("options", "message", "status"), [
    (("-l", "2055", "-i", "lo"), "-l and -i exclude each other", 2),
    (("-l", "2055", "-r", "x"), "-l and -r exclude each other", 2),
    (("-l", "eth0"), "cannot listen on 'eth0'", 2),
    (("-l", "udp://192.0.2.77:2055"), "cannot listen on udp://192.0.2.77:2055: no such address on this host", 2),
    (("-l", "2055", "--replay"), "--replay needs -r", 2),
])
def test_what_cannot_be_listened_to_is_told_in_two_lines(options: tuple[str, ...], message: str, status: int) -> None:
    done = run(*options)
    assert (done.stdout, done.returncode) == ("", status)
    assert done.stderr.splitlines()[0] == f"flowtop: {message}" and len(done.stderr.splitlines()) == 2


def test_help_and_manual_name_each_option_of_a_url() -> None:
    """Those that URLs are refused for are told on the spot."""
    help_text = run("--help").stdout
    assert "?sampling=N" in help_text[help_text.index("--listen"):help_text.index("--collect")]
    page = (Path(__file__).parents[3] / "flowtop/docs/collector.md").read_text(encoding="utf-8")
    listed = page[page.index("<!-- listen -->"):page.index("## Sampling")]
    for option in ("?sampling=", "?cert=", "key=", "ca="):
        assert option in listed


def test_the_command_line_goes_before_places_from_elsewhere(tmp_path: Path) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text('listen = ["udp://192.0.2.77:1"]\n')
    assert "192.0.2.77:1:" in run("--config", str(settings)).stderr
    assert "192.0.2.78:1:" in run("--config", str(settings), FLOWTOP_LISTEN="udp://192.0.2.78:1").stderr
    assert "cannot read /nowhere/x" in run("--config", str(settings), "-r", "/nowhere/x").stderr


def test_defaults_suit_reports_of_a_minute_and_the_user_goes_before_them() -> None:
    source = choose_source(options("-b", "-l", "2055"))
    assert isinstance(source, CollectorSource)
    table = source.pipeline_config().table
    assert (table.idle_timeout_s, table.dedupe, source.options.sort) == (90, "off", "rate_60s")
    source = choose_source(options("-b", "-l", "2055", "--idle-timeout", "15", "--dedupe", "mark", "-s", "rate"))
    assert isinstance(source, CollectorSource)
    table = source.pipeline_config().table
    assert (table.idle_timeout_s, table.dedupe, source.options.sort) == (15, "mark", "rate")
