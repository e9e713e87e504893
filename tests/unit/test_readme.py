"""The README's tables say what the code says. After a change: `python tests/unit/test_readme.py` rewrites them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import click
import pytest

from flowtop import errors
from flowtop.cli.main import command
from flowtop.export.url import OPTIONS, parse_export_url
from flowtop.fields.records import flow_names, group_names, key_table
from flowtop.fields.registry import COLUMNS, FIELDS, GROUPS
from flowtop.filters.words import WORDS
from flowtop.model.elements import ELEMENTS
from flowtop.output import batch
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.tui.keys import (
    COLUMN_KEYS,
    DETAIL_KEYS,
    EXPORT_KEYS,
    FILTER_KEYS,
    GROUP_KEYS,
    KEYS,
    MOUSE,
    TYPING_KEYS,
    Key,
)
from flowtop.wire.flow_templates import PROFILES

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a vertical bar inside a cell is escaped."""
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    headings = list(headings)
    return "\n".join([line(headings), "|" + "---|" * len(headings), *(line(row) for row in rows)])


def keys_table() -> str:
    """Keys and mouse, in the order of the help screen."""
    return table(("key", "what it does"), [*key_rows(KEYS), *MOUSE])


def export_keys_table() -> str:
    """Keys of the exports panel."""
    return table(("key", "what it does"), [*key_rows(EXPORT_KEYS), *((f"`{cap}`", doc) for cap, doc in TYPING_KEYS)])


def filter_keys_table() -> str:
    """Keys while a filter is typed."""
    return table(("key", "what it does"),
                 [(" ".join(f"`{cap}`" for cap in caps.split()), doc) for caps, doc in FILTER_KEYS])


def key_rows(keys: Iterable[Key]) -> list[tuple[str, str]]:
    """Keys as people know them, and what they do."""
    return [(" ".join(f"`{cap}`" for cap in key.caps.split()), key.doc) for key in keys]


def options_table() -> str:
    """Options as `flowtop --help` words them."""
    context = click.Context(command, info_name="flowtop", **command.context_settings)
    records = filter(None, (parameter.get_help_record(context) for parameter in command.get_params(context)
                           if isinstance(parameter, click.Option)))
    return table(("option", "what it does"), [(f"`{names}`", " ".join(doc.split())) for names, doc in records])


def columns_table() -> str:
    """Columns by id."""
    return table(("column", "header", "what it shows", "known"),
                 [(f"`{column.id}`", column.header, column.doc, FIELDS[column.id].where)
                  for column in COLUMNS.values()])


def statuses_table() -> str:
    """Exit statuses, each worded by the docstring that follows its constant."""
    source = Path(errors.__file__).read_text()
    found = re.findall(r'^EXIT_(\w+) = (\d+)\n(?:"""(.*?)"""\n)?', source, re.M | re.S)
    return table(("status", "meaning"), [
        (number, " ".join(doc.split()) or {"OK": "All went well.", "FAILURE": "Any other failure."}[name])
        for name, number, doc in found
    ])


def elements_table() -> str:
    """Information Elements a flow can have in JSON and CSV."""
    return table(("key", "IE", "what it holds"),
                 [(f"`{name}`", number, doc) for name, number, doc in key_table()])


def column_keys_table() -> str:
    """Keys of the column chooser."""
    return table(("key", "what it does"), key_rows(COLUMN_KEYS))


def detail_keys_table() -> str:
    """Keys of a flow's details."""
    return table(("key", "what it does"), key_rows(DETAIL_KEYS))


def group_keys_table() -> str:
    """Keys of the group chooser."""
    return table(("key", "what it does"), key_rows(GROUP_KEYS))


def words_table() -> str:
    """Words of the filter language."""
    def code(text: str) -> str:
        return f"`{text}`" if text else ""

    return table(("word", "value", "which flows", "example"),
                 [(code(word.words), code(word.argument), word.doc, code(word.example)) for word in WORDS])


def groups_table() -> str:
    """Group fields, and the JSON members of each."""
    fields = [(f"`{field.id}`" + (f" `{field.id}:{field.argument}`" if field.argument else ""), field.doc,
               " ".join(f"`{name}`" for name in field.members)) for field in GROUPS.values()]
    return table(("field", "what is put together", "keys in JSON and CSV"), fields)


def url_table() -> str:
    """Options of export URLs."""
    kinds = {("udp", "tcp", "tls", "file", "jsonl", "csv"): "all", ("udp", "tcp", "tls", "file"): "IPFIX",
             ("file", "jsonl", "csv"): "files", ("tcp", "tls"): "TCP, TLS", ("tls",): "TLS", ("udp",): "UDP"}
    return table(("option", "for", "default", "what it does"), [
        (f"`{option.name}`", kinds[option.kinds], option.default, option.doc) for option in OPTIONS.values()])


def profiles_table() -> str:
    """Profiles of export URLs."""
    return table(("profile", "for"), [(f"`{profile.name}`", profile.doc) for profile in PROFILES.values()])


GENERATED: dict[str, Callable[[], str]] = {
    "keys": keys_table,
    "filter-keys": filter_keys_table,
    "export-keys": export_keys_table,
    "column-keys": column_keys_table,
    "detail-keys": detail_keys_table,
    "group-keys": group_keys_table,
    "options": options_table,
    "columns": columns_table,
    "statuses": statuses_table,
    "elements": elements_table,
    "words": words_table,
    "url": url_table,
    "profiles": profiles_table,
    "groups": groups_table,
}


def generated_part(text: str, name: str) -> re.Match[str]:
    """What stands between <!-- name --> and <!-- /name -->."""
    match = re.search(rf"(?<=<!-- {name} -->\n)(.*?)\n?(?=<!-- /{name} -->)", text, re.S)
    assert match, f"README.md has lost its <!-- {name} --> marks"
    return match


def code_block(name: str) -> str:
    """The fenced block that follows <!-- name -->."""
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", README.read_text(), re.S)
    assert match, f"README.md has lost its {name} block"
    return match[1]


@pytest.mark.parametrize("name", GENERATED)
def test_a_table_says_what_the_code_says(name: str) -> None:
    assert generated_part(README.read_text(), name)[1] == GENERATED[name](), "run python tests/unit/test_readme.py"


def test_every_exit_status_of_the_code_is_listed() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", generated_part(README.read_text(), "statuses")[1], re.M))
    assert listed == {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_the_json_example_has_the_keys_that_json_output_has() -> None:
    example = json.loads(code_block("json"))
    page = Page(Query(), tick=1, unix_ms=0, uptime_s=1, tick_s=1, rows=(), matched=0, flows=0, active_flows=0,
                anchor_rank=None, books=Books(), ingress=Traffic(), egress=Traffic())
    assert set(example) == {"round", "time", "totals", "flows"}
    assert list(example["totals"]) == list(batch.totals_record(page))
    for flow in example["flows"]:
        assert set(flow) <= set(flow_names())
        assert set(flow) <= set(ELEMENTS)


def test_every_key_of_groups_is_an_element_or_said_to_be_none() -> None:
    ours = {name for field in GROUPS.values() for name in field.members} - ELEMENTS.keys()
    text = README.read_text()
    assert [name for name in sorted(ours) if f"`{name}` (not an IANA element)" not in text] == []
    assert [name for name in group_names() if f"`{name}`" not in text] == []


def test_the_json_examples_books_balance() -> None:
    totals = json.loads(code_block("json"))["totals"]
    for unit in ("Packets", "Octets"):
        parts = sum(totals[part + unit] for part in ("accounted", "ignored", "filtered", "lost"))
        assert totals["observed" + unit] == parts


def test_every_benchmark_is_listed_and_there() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", generated_part(README.read_text(), "bench")[1], re.M)
    modules = {path.stem for path in (REPOSITORY / "tests" / "bench").glob("*.py") if not path.stem.startswith("_")}
    with_main = {name for name in modules
                 if re.search(r"^def main\(", (REPOSITORY / "tests" / "bench" / f"{name}.py").read_text(), re.M)}
    assert set(listed) == with_main


def test_every_file_the_readme_names_is_there() -> None:
    text = README.read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"`((?:tests|bpf|flowtop|screenshots|\.ci)/[\w./]*)`", text)
    assert linked and named
    assert [path for path in linked + named if not (REPOSITORY / path).exists()] == []


def test_every_dependency_is_justified() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    text = README.read_text()

    def names(requirements: list[str]) -> list[str]:
        return [re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in requirements]

    rows = re.findall(r"^\| ([\w-]+)[^|]*\|", text[text.index("### Dependencies"):text.index("## Tests")], re.M)
    assert rows == ["package", "bcc", *names(project["dependencies"])]
    tests_only = text[text.index("Only for tests:"):text.index("## Tests")]
    assert [name for name in names(project["optional-dependencies"]["test"]) if name not in tests_only] == []


@pytest.mark.parametrize("name", ["run", "test"])
def test_an_install_command_is_one_command_that_bare_sh_takes(name: str) -> None:
    block = code_block(name)
    subprocess.run(["sh", "-n"], input=block, text=True, check=True)
    lines = block.strip().split("\n")
    assert all(line.endswith(("&&", "\\")) for line in lines[:-1]), "pasted whole, it must stop at the first failure"
    assert "sudo" not in block


def test_the_options_in_examples_exist() -> None:
    known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
    examples = re.findall(r"\bflowtop ((?:-[\w-]+(?: [\w.,*'-]+)? ?)+)", README.read_text())
    used = {word for example in examples for word in example.split() if re.fullmatch(r"--?[a-z][\w-]*", word)}
    assert used and used <= known


def test_the_export_urls_in_examples_mean_something() -> None:
    examples = re.findall(r"-e '?((?:ipfix|file|jsonl|csv)[^\s']+)", code_of(README.read_text()))
    assert len(examples) >= 5
    for example in examples:
        parse_export_url(example)


def test_url_options_have_the_defaults_that_the_table_says() -> None:
    for option in OPTIONS.values():
        if re.fullmatch(r"[0-9]+s?|default|keep", option.default):
            scheme = {"udp": "ipfix://c", "tcp": "ipfix+tcp://c", "tls": "ipfix+tls://c"}[option.kinds[0]]
            said, unsaid = parse_export_url(f"{scheme}?{option.name}={option.default}"), parse_export_url(scheme)
            assert replace(said, text="") == replace(unsaid, text=""), option.name


def code_of(text: str) -> str:
    """What stands in fenced blocks."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M))


def rewrite() -> None:
    """Write the generated tables into README.md."""
    text = README.read_text()
    for name, make in GENERATED.items():
        match = generated_part(text, name)
        text = text[:match.start()] + make() + "\n" + text[match.end():]
    README.write_text(text)


if __name__ == "__main__":
    rewrite()
