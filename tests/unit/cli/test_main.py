"""The command line without a capture: settings, usage errors, exit statuses. See tests/kernel/test_command.py too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowtop import __version__
from tests.prepared import run_flowtop


def flowtop(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_flowtop(*arguments, text=True, env=os.environ | (env or {}))


def assert_two_lines(done: subprocess.CompletedProcess[str], status: int, message: str, hint: str) -> None:
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("flowtop: ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert done.returncode == status
    assert done.stdout == ""


def test_version() -> None:
    done = flowtop("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"flowtop {__version__}", "")


def test_help_names_every_option_on_stdout() -> None:
    done = flowtop("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--interface", "--batch", "--count", "--delay", "--output", "--sort", "--check", "--map-entries"):
        assert option in done.stdout


@pytest.mark.parametrize(("arguments", "message", "hint"), [
    (["--nonsense"], "--nonsense", "--help"),
    (["-d", "soon"], "soon", "--help"),
    (["-d", "0.001"], "0.001", "--help"),
    (["-d", "nan"], "nan", "--help"),
    (["-b", "--idle-timeout", "nan"], "nan", "--help"),
    (["-b", "--linger", "nan"], "nan", "--help"),
    (["-b", "--no-names-seen", "name", "~", "example"], "no names are known here", "filter by address"),
    (["-b", "-l", "2055", "name", "~", "example"], "no names are known here", "filter by address"),
    (["-b", "-c", "0"], "0", "--help"),
    (["-b", "-o", "xml"], "xml", "--help"),
    (["-b", "--sort", "byts"], "unknown sort column 'byts'", "did you mean bytes"),
    (["-b", "-e", "ipfx://collector"], "unknown scheme 'ipfx'", "did you mean ipfix"),
    (["-b", "-e", "ipfix://collector:99999"], "out of range", "1 to 65535"),
    (["-b", "-e", "ipfix://collector?profile=nfdmp"], "unknown profile 'nfdmp'", "did you mean nfdump"),
    (["-b", "-o", "json", "-e", "jsonl:-"], "both write to standard output", "leave out -o"),
    (["-b", "-o", "none"], "-o none without an export", "-e file:"),
    (["-b", "--export-filter", "tcp"], "'tcp' follows no -e", "-e URL --export-filter EXPR"),
    (["-b", "-e", "csv:x", "--export-filter", "tcp", "--export-filter", "udp"], "'udp' follows no -e", "with and"),
    (["-b", "--export-timeout", "soon"], "soon", "--help"),
    (["-c", "3"], "--count needs -b", "-b"),
    (["-B"], "is not a terminal", "-b"),
    (["-b", "-B", "-g", "source"], "groups or biflows, not both", "omit the biflows"),
    (["-b", "-g", "biflow,source"], "groups or biflows, not both", "omit the biflows"),
    ([], "is not a terminal", "-b"),
])
def test_usage_errors_are_two_lines_and_status_2(arguments: list[str], message: str, hint: str) -> None:
    assert_two_lines(flowtop(*arguments), 2, message, hint)


def test_a_filter_that_means_nothing_is_shown_with_its_place() -> None:
    done = flowtop("-b", "tcp", "and", "prot", "80")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'flowtop: unknown word "prot"', "  tcp and prot 80", "          ^",
        'hint: did you mean "proto"?']


def test_map_size_out_of_range() -> None:
    assert_two_lines(flowtop("-b", "--map-entries", "7"), 2, "map size 7", "1024")


def test_settings_file_gives_defaults_and_environment_goes_before_it(tmp_path: Path) -> None:
    settings = tmp_path / "flowtop.toml"
    settings.write_text('sort = "byts"\n')
    assert "byts" in flowtop("-b", "--config", str(settings)).stderr
    assert "paquets" in flowtop("-b", "--config", str(settings), env={"FLOWTOP_SORT": "paquets"}).stderr
    assert "agee" in flowtop("-b", "--config", str(settings), "-s", "agee", env={"FLOWTOP_SORT": "paquets"}).stderr


def test_settings_are_found_in_the_user_s_configuration_directory(tmp_path: Path) -> None:
    (tmp_path / "flowtop").mkdir()
    (tmp_path / "flowtop" / "config.toml").write_text('sort = "byts"\n')
    assert "byts" in flowtop("-b", env={"XDG_CONFIG_HOME": str(tmp_path)}).stderr


@pytest.mark.parametrize(("text", "message"), [
    ("sort = ", "cannot read settings"),
    ("delay = 1979-05-27", "wrong kind of value for delay"),
    ("count = [1]", "wrong kind of value for count"),
    ("map-entries = {a = 1}", "wrong kind of value for map_entries"),
    ("sorte = 'rate'", "unknown setting"),
])
def test_bad_settings_are_two_lines_and_status_2(tmp_path: Path, text: str, message: str) -> None:
    settings = tmp_path / "flowtop.toml"
    settings.write_text(text)
    done = flowtop("-b", "--config", str(settings))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_value_that_does_not_fit_is_told_with_the_place_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("delay = -1.0")
    assert_two_lines(flowtop("--config", str(path), "--check"), 2, "-1.0", f"set in {path}")
    assert_two_lines(flowtop("--check", env={"FLOWTOP_DELAY": "soon"}), 2, "soon", "environment, as FLOWTOP_DELAY")
    assert_two_lines(flowtop("--check", "-d", "x", env={"FLOWTOP_DELAY": "soon"}), 2, '"x" is not a duration', "--help")


def test_settings_file_that_is_not_there() -> None:
    assert_two_lines(flowtop("-b", "--config", "/nonexistent/flowtop.toml"), 2, "cannot read settings", "--config")


def test_settings_for_batch_output_wait_for_it(tmp_path: Path) -> None:
    settings = tmp_path / "flowtop.toml"
    settings.write_text('top = 20\ninterface = "lo"\n')
    assert "is not a terminal" in flowtop("--config", str(settings), env={"FLOWTOP_COUNT": "3"}).stderr
    both = {"FLOWTOP_BIFLOW": "1", "FLOWTOP_GROUP": "source"}
    assert "is not a terminal" in flowtop("-B", env={"FLOWTOP_GROUP": "source"}).stderr, "what is typed counts"
    assert "no such file" in flowtop("-b", "-g", "source", "-r", "/nothing", env=both).stderr.lower()
    assert "not both" in flowtop("-b", env=both).stderr


def test_variables_named_like_questions_answer_nothing() -> None:
    assert "is not a terminal" in flowtop(env={"FLOWTOP_VERSION": "2.0", "FLOWTOP_CHECK": "1"}).stderr


def test_exports_come_from_the_command_line_the_environment_or_the_settings_one_or_many(tmp_path: Path) -> None:
    settings = tmp_path / "flowtop.toml"
    settings.write_text('export = ["file:/dev/null", "gopher:file"]\n')
    assert "gopher" in flowtop("-b", "--config", str(settings)).stderr
    settings.write_text('export = "gopher:file"\n')
    assert "gopher" in flowtop("-b", "--config", str(settings)).stderr
    environment = {"FLOWTOP_EXPORT": "file:/dev/null fax:5551234"}
    assert "fax" in flowtop("-b", "--config", str(settings), env=environment).stderr
    assert "telex" in flowtop("-b", "--config", str(settings), "-e", "telex:1", env=environment).stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_answers_that_cannot_be_written_are_told_in_two_lines(option: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "flowtop", option], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("flowtop: cannot write")
