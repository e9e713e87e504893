"""The manual says what the code says, and what it names is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import click
import pytest

from flowtop import errors
from flowtop.capture.collector.url import parse_listen_url
from flowtop.cli.dump import command as dump_command
from flowtop.cli.main import command
from flowtop.docs import generate
from flowtop.docs.tables import TABLES, table
from flowtop.export.url import OPTIONS, parse_export_url
from flowtop.fields.groups import group_fields
from flowtop.fields.records import flow_names, group_names, key_table
from flowtop.fields.registry import GROUPS
from flowtop.filters.filter import compile_filter
from flowtop.model.elements import ELEMENTS
from flowtop.output import batch
from flowtop.query.layout import sort_column
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text import manual
from flowtop.tui import keys
from tests.unit.pages import PAGES, README, REPOSITORY, commands, marked, page

EVERYWHERE = [README, *PAGES]
NOT_GENERATED = {"example", "json", "run", "test", "ten-keys"}
"""Marks for tests and CI."""


def named(path: Path) -> str:
    return path.stem


# ---- generated tables

def test_the_tables_are_what_the_code_says() -> None:
    assert [path.name for path, _ in generate.stale()] == [], "run python -m flowtop.docs.generate"


def test_every_table_stands_in_one_place_and_no_mark_is_of_none() -> None:
    marks = [mark for path in EVERYWHERE for mark in re.findall(r"^<!-- ([\w-]+) -->$", path.read_text(), re.M)]
    assert sorted(set(marks) - NOT_GENERATED) == sorted(TABLES)
    assert len(marks) == len(set(marks))


def test_a_table_that_was_changed_by_hand_is_made_again() -> None:
    text = page("keys").read_text()
    assert "| `q` `F10` `Ctrl-C` |" in text
    assert generate.generated(text.replace("| `q` `F10` `Ctrl-C` |", "| `x` |")) == text


def test_check_writes_nothing_and_says_so_by_its_status() -> None:
    done = subprocess.run([sys.executable, "-m", "flowtop.docs.generate", "--check"], cwd=REPOSITORY, check=False,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_vertical_bar_in_a_cell_does_not_end_it() -> None:
    assert table(("a", "b"), [("x|y", "z")]) == "| a | b |\n|---|---|\n| x\\|y | z |"


def test_every_exit_status_of_the_code_is_listed() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", marked(page("options"), "statuses"), re.M))
    assert listed == {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}


# ---- links, files, pages

def test_every_page_has_a_title_and_a_place_in_the_order() -> None:
    assert [path.name for path in PAGES if not path.read_text().startswith("# ")] == []
    assert [path.stem for path in PAGES if path.stem not in manual.ORDER] == []


def anchors(path: Path) -> set[str]:
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", path.read_text(), re.M)}


@pytest.mark.parametrize("path", EVERYWHERE, ids=named)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", path.read_text(), flags=re.S | re.M)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        there = (path.parent / target).resolve() if target else path
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there), (target, anchor)


@pytest.mark.parametrize("path", EVERYWHERE, ids=named)
def test_every_file_that_is_named_is_there(path: Path) -> None:
    found = re.findall(r"`((?:tests|bpf|flowtop|screenshots|\.ci)/[\w./]*)`", path.read_text())
    assert [name for name in found if not (REPOSITORY / name).exists()] == []


def test_the_pages_show_at_most_a_dozen_scenes() -> None:
    pictures = {name for path in EVERYWHERE for name in re.findall(r"screenshots/([\w-]+)\.svg", path.read_text())}
    assert 0 < len(pictures) <= 12


# ---- commands, options, keys

@pytest.mark.parametrize("path", EVERYWHERE, ids=named)
def test_commands_mean_something_to_the_real_parser(path: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for program, *arguments in commands(path.read_text()):
        if program.endswith("flowtop-dump"):
            dump_command.make_context("flowtop-dump", arguments)
        elif arguments[:1] == ["help"]:
            assert set(arguments[1:]) <= set(manual.topics())
        else:
            check_options(command.make_context("flowtop", arguments).params)


def check_options(options: dict[str, object]) -> None:
    """Values that click does not look into. Raises FlowtopError."""
    def texts(name: str) -> tuple[str, ...]:
        value = options[name]
        assert value is None or isinstance(value, (str, tuple))
        return (value,) if isinstance(value, str) else tuple(map(str, value or ()))

    for text in texts("export"):
        parse_export_url(text)
    for text in texts("listen"):
        parse_listen_url(text)
    for text in (" ".join(texts("filter")), *texts("export_filter")):
        if text:
            compile_filter(text)
    group = tuple(",".join(texts("group")).split(",")) if options["group"] else ()
    assert len(group_fields(group)) == len(group)
    sort_column(str(options["sort"]), Query(group=group))


def test_there_are_commands_in_the_pages() -> None:
    assert sum(len(commands(path.read_text())) for path in EVERYWHERE) >= 40


FOREIGN = {"-a"}
"""Options of other programs' that the text names alone."""


@pytest.mark.parametrize("path", EVERYWHERE, ids=named)
def test_every_option_that_is_named_exists(path: Path) -> None:
    known = {option for of in (command, dump_command) for parameter in of.get_params(click.Context(of))
             for option in parameter.opts}
    found = set(re.findall(r"`(?:flowtop )?(--?[a-z][\w-]*)", path.read_text()))
    assert found - known - FOREIGN == set()


FOR_PROGRAMMERS = {"library", "adding-a-field", "design"}
"""Pages in which a letter may be a variable."""


@pytest.mark.parametrize("path", [path for path in EVERYWHERE if path.stem not in FOR_PROGRAMMERS], ids=named)
def test_every_key_that_is_named_exists(path: Path) -> None:
    tables = [table for table in vars(keys).values() if isinstance(table, tuple)]
    caps = {cap for table in tables for key in table if isinstance(key, keys.Key) for cap in key.caps.split()}
    caps |= {cap for table in (keys.FILTER_KEYS, keys.TYPING_KEYS) for many, _ in table for cap in many.split()}
    # Letters alone, and names of keys; in tables of other things a letter may be a value.
    prose = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("|"))
    found = set(re.findall(r"`([A-Za-z?\[\]{}\\]|Esc|Enter|Space|Tab|Backspace|Ctrl-\w|F\d+)`", prose))
    assert found - caps - {"D"} == set()


# ---- JSON

def example() -> dict[str, object]:
    match = re.search(r"<!-- json -->\n```json\n(.*?)```", page("json").read_text(), re.S)
    assert match
    parsed = json.loads(match[1])
    assert isinstance(parsed, dict)
    return parsed


def totals() -> list[str]:
    empty = Page(Query(), tick=1, unix_ms=0, uptime_s=1, tick_s=1, rows=(), matched=0, flows=0, active_flows=0,
                 anchor_rank=None, books=Books(), ingress=Traffic(), egress=Traffic())
    return list(batch.totals_record(empty))


def test_the_json_example_has_the_keys_that_json_output_has() -> None:
    found = example()
    assert set(found) == {"round", "time", "agent", "totals", "flows"}
    assert list(found["totals"]) == totals()  # type: ignore[call-overload]
    for flow in found["flows"]:  # type: ignore[attr-defined]
        assert set(flow) <= set(flow_names())
        assert set(flow) - {"communityId"} <= set(ELEMENTS)


def test_every_key_of_totals_is_explained() -> None:
    section = page("json").read_text().split("## totals")[1].split("## flows")[0]
    explained = re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in section.splitlines()
                                                 if line.startswith("| `")))
    assert sorted(explained) == sorted(totals())


def test_the_json_examples_books_balance() -> None:
    found = example()["totals"]
    assert isinstance(found, dict)
    for unit in ("Packets", "Octets"):
        parts = sum(found[part + unit] for part in ("accounted", "ignored", "filtered", "lost"))
        assert found["observed" + unit] == parts


def test_every_key_of_groups_is_an_element_or_said_to_be_none() -> None:
    of_flows = {name for name, number, _ in key_table() if number == "-"}  # the table of keys says it of these
    ours = {name for field in GROUPS.values() for name in field.members} - ELEMENTS.keys() - of_flows
    text = " ".join(page("json").read_text().split())
    assert [name for name in sorted(ours) if f"`{name}` (not an IANA element)" not in text] == []
    assert [name for name in group_names() if f"`{name}`" not in text] == []


# ---- export URLs, benchmarks, dependencies

def test_url_options_have_the_defaults_that_the_table_says() -> None:
    for option in OPTIONS.values():
        if re.fullmatch(r"[0-9]+s?|default|keep", option.default):
            scheme = {"udp": "ipfix://c", "tcp": "ipfix+tcp://c", "tls": "ipfix+tls://c"}[option.kinds[0]]
            said, unsaid = parse_export_url(f"{scheme}?{option.name}={option.default}"), parse_export_url(scheme)
            assert replace(said, text="") == replace(unsaid, text=""), option.name


def test_every_benchmark_is_listed_has_its_figures_and_is_there() -> None:
    text = page("benchmarks").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", marked(page("benchmarks"), "benchmarks"), re.M)
    measured = re.findall(r"^\| `(\w+)` \|", text.split("## Measured")[1], re.M)
    modules = REPOSITORY.joinpath("tests", "bench").glob("[a-z]*.py")
    with_main = {path.stem for path in modules if re.search(r"^def main\(", path.read_text(), re.M)}
    assert set(listed) == set(measured) == with_main


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    text = page("design").read_text()
    dependencies = text[text.index("## Dependencies"):text.index("## Tests")]

    def names(requirements: list[str]) -> list[str]:
        return [re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in requirements]

    rows = re.findall(r"^\| ([\w-]+)[^|]*\|", dependencies, re.M)
    assert rows == ["package", "bcc", *names(project["project"]["dependencies"])]
    tests_only = dependencies[dependencies.index("Only for tests:"):]
    assert [name for name in names(project["project"]["optional-dependencies"]["test"]) if name not in tests_only] == []
    building = dependencies[dependencies.index("To build:"):]
    assert [name for name in names(project["build-system"]["requires"]) if name not in building] == []
