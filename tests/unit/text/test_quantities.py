"""One grammar of quantities: the same text is the same value wherever one is taken."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.cli.main import command
from flowtop.cli.settings import read_settings
from flowtop.errors import FlowtopError
from flowtop.export.url import parse_export_url
from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.tree import Compare, leaves
from flowtop.text import quantities
from flowtop.text.quantities import QuantityError

DURATIONS = [
    ("5", 5), ("0.5", 0.5), ("500ms", 0.5), ("90s", 90), ("2m", 120), ("2min", 120), ("1h", 3600), ("1h30m", 5400),
    ("1h 30m", 5400), ("1 h 30 min", 5400), ("1.5h", 5400), ("1d", 86_400), ("90 sec", 90), ("2 minutes", 120),
    ("250000us", 0.25), ("250000 µs", 0.25), ("250000μs", 0.25), ("1e9ns", 1), (".5s", 0.5), ("1m500ms", 60.5),
]
SIZES = [
    ("4096", 4096), ("5k", 5000), ("5K", 5000), ("5Ki", 5120), ("5ki", 5120), ("100M", 100 * 10**6),
    ("100 MB", 100 * 10**6), ("1.5Gi", 1_610_612_736), ("1.5 GiB", 1_610_612_736), ("1T", 10**12), ("1Ti", 1 << 40),
    ("2P", 2 * 10**15), ("1E", 10**18), ("8192bytes", 8192), ("8kB", 8000), ("8kb", 8000), ("1e6", 10**6),
]
RATES = [
    ("8", 1), ("1M", 125_000), ("1Mbit", 125_000), ("1 Mb/s", 125_000), ("1Mbps", 125_000), ("1 Mbit/s", 125_000),
    ("125kB/s", 125_000), ("125kBps", 125_000), ("1.5GiB/s", 1_610_612_736),
]
COUNTS = [("1", 1), ("42", 42), ("10k", 10_000), ("1.5M", 1_500_000), ("2 Ki", 2048)]

NOT_DURATIONS = ["", "5 parsecs", "5s6", "1h30", "soon", "nan", "inf", "-1", "5 MB", "1.2.3s", "5mi", "h", "10:30",
                 "1e999", "9" * 400, "5\x1b[31m"]
NOT_SIZES = ["", "much", "5 parsecs", "1Xi", "1GBit", "nan", "-5", "99999P", "1e999", "5h", "M", "1 2"]


def of_filter(key: str, text: str) -> float:
    """What a filter compares with."""
    (test,) = leaves(compile_filter(f"{key} > {text}").tree)
    assert isinstance(test, Compare)
    return test.value


def of_option(option: str, text: str) -> float:
    """What the command line makes of an option's text."""
    with command.make_context("flowtop", [f"{option}={text}"]) as context:
        value = context.params[option.strip("-").replace("-", "_")]
    assert isinstance(value, int | float)
    return value


def of_setting(directory: Path, option: str, text: str) -> float:
    """The same of a settings file's."""
    path = directory / "config.toml"
    path.write_text(f'{option} = "{text}"\n')
    with command.make_context("flowtop", ["--config", str(path)]) as context:
        value = context.params[option.replace("-", "_")]
    assert isinstance(value, int | float)
    return value


def of_environment(monkeypatch: pytest.MonkeyPatch, option: str, text: str) -> float:
    """The same of a variable's."""
    monkeypatch.setenv(f"FLOWTOP_{option.upper().replace('-', '_')}", text)
    with command.make_context("flowtop", []) as context:
        value = context.params[option.replace("-", "_")]
    assert isinstance(value, int | float)
    return value


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_the_same_in_filters_options_settings_and_urls(
        text: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = pytest.approx(seconds)
    assert quantities.seconds(text) == close
    assert [of_filter(key, text) for key in ("age", "idle")] == [close] * 2
    assert of_filter("rtt", text) == (pytest.approx(seconds / 1000) if text.replace(".", "").isdecimal() else close), (
        "a number alone is in ms, as in the column")
    within = {"--delay": (0.1, 3600), "--idle-timeout": (1, 86_400), "--active-timeout": (1, 86_400),
              "--linger": (0, 3600), "--export-timeout": (0, 3600)}
    for option, (least, most) in within.items():
        if least <= seconds <= most:
            assert of_option(option, text) == close, option
            assert of_setting(tmp_path, option.strip("-"), text) == close
            with monkeypatch.context() as patch:
                assert of_environment(patch, option.strip("-"), text) == close
        else:
            with pytest.raises(click.BadParameter, match="is not in the range"):
                of_option(option, text)
    assert parse_export_url(f"jsonl:x?rotate-time={quote(text)}").rotate_s == close
    assert parse_export_url(f"ipfix+tcp://c?reconnect={quote(text)}").reconnect_s == close
    assert parse_export_url(f"ipfix://c?refresh={quote(text)}").refresh_s == close


@pytest.mark.parametrize(("text", "octets"), SIZES)
def test_a_size_is_the_same_in_filters_options_settings_and_urls(
        text: str, octets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quantities.octets(text) == of_filter("bytes", text) == octets
    assert of_option("--write-total", text) == octets
    assert of_setting(tmp_path, "write-total", text) == octets
    assert of_environment(monkeypatch, "write-total", text) == octets
    assert parse_export_url(f"file:x?rotate-size={quote(text)}").rotate_octets == octets
    if octets <= 262_144:
        assert of_option("--snaplen", text) == octets


@pytest.mark.parametrize(("text", "octets_per_s"), RATES)
def test_a_rate_is_in_bits_unless_it_says_bytes(text: str, octets_per_s: float) -> None:
    assert quantities.rate(text) == octets_per_s
    assert [of_filter(key, text) for key in ("rate", "rate_60s", "peak")] == [octets_per_s] * 3


@pytest.mark.parametrize(("text", "number"), COUNTS)
def test_a_count_is_the_same_in_filters_options_and_urls(text: str, number: int) -> None:
    assert quantities.count(text) == of_filter("packets", text) == of_filter("pps", text) == number
    for option in ("--max-flows", "--write-per-flow", "--map-entries", "--count", "--top"):
        assert of_option(option, text) == number
    assert parse_export_url(f"ipfix://c?refresh-packets={quote(text)}").refresh_packets == number


@pytest.mark.parametrize("text", NOT_DURATIONS)
def test_what_is_not_a_duration_is_refused_everywhere(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        quantities.seconds(text)
    assert str(caught.value).isprintable() and "for example 500ms, 90s, 1h30m" in str(caught.value)
    with pytest.raises(FilterError):
        compile_filter(f"age > {text}")
    with pytest.raises(click.BadParameter, match="for example 500ms, 90s, 1h30m"):
        of_option("--linger", text)
    with pytest.raises(FlowtopError):
        parse_export_url(f"jsonl:x?rotate-time={quote(text)}")


@pytest.mark.parametrize("text", NOT_SIZES)
def test_what_is_not_a_size_is_refused_everywhere(text: str) -> None:
    with pytest.raises(QuantityError):
        quantities.octets(text)
    with pytest.raises(FilterError):
        compile_filter(f"bytes > {text}")
    with pytest.raises(click.BadParameter):
        of_option("--write-total", text)
    with pytest.raises(FlowtopError):
        parse_export_url(f"file:x?rotate-size={quote(text)}")


def test_messages_say_what_is_wrong_and_what_would_do() -> None:
    with pytest.raises(QuantityError) as caught:
        quantities.seconds("5 parsecs")
    assert str(caught.value) == '"5 parsecs" is not a duration; for example 500ms, 90s, 1h30m'
    with pytest.raises(FlowtopError) as of_url:
        parse_export_url("jsonl:x?rotate-time=5%20parsecs")
    assert (of_url.value.message, of_url.value.hint) == (
        'rotate-time: "5 parsecs" is not a duration', "for example 500ms, 90s, 1h30m")
    with pytest.raises(click.BadParameter) as of_count:
        of_option("--top", "1.5")
    assert "is not a whole number" in of_count.value.message
    with pytest.raises(QuantityError, match="at most 18,446,744,073,709,551,615"):
        quantities.octets("99999P")


def test_numbers_in_the_settings_file_are_seconds_and_octets(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("delay = 2\nlinger = 0.25\nwrite-total = 4096\nidle-timeout = 1e2\n")
    names = ("delay", "linger", "write_total", "idle_timeout")
    assert read_settings(path, dict.fromkeys(names, "number"), must_exist=True)
    with command.make_context("flowtop", ["--config", str(path)]) as context:
        found = {name: context.params[name] for name in names}
    assert found == {"delay": 2.0, "linger": 0.25, "write_total": 4096, "idle_timeout": 100.0}


@given(st.floats(0, 1e9), st.sampled_from(["ns", "us", "ms", "s", "m", "h", "d"]))
def test_a_number_and_a_unit_are_their_product(number: float, unit: str) -> None:
    unit_s = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]
    assert quantities.seconds(f"{number:.6f}{unit}") == pytest.approx(number * unit_s, abs=1e-6 * unit_s)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_an_error_in_words(text: str) -> None:
    for read in (quantities.count, quantities.octets, quantities.rate, quantities.seconds):
        try:
            assert math.isfinite(read(text))
        except QuantityError as error:
            assert str(error).isprintable()
