"""Tables of the manual, made from the code. Only this module reads the registries for the manual."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path

from flowtop import errors
from flowtop.capture.collector.url import SCHEMES
from flowtop.cli.dump import command as dump_command
from flowtop.cli.help import option_rows
from flowtop.cli.main import command
from flowtop.export.url import OPTIONS
from flowtop.fields.records import key_table
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS, FIELDS, GROUP_COLUMNS, GROUPS
from flowtop.filters.words import WORDS
from flowtop.query.trouble import RULES
from flowtop.query.views import VIEWS
from flowtop.text import manual
from flowtop.tui import keys
from flowtop.wire.flow_templates import PROFILES

Row = tuple[str, ...]

REPOSITORY = Path(errors.__file__).parents[1]
"""Root of the checkout. README and benchmarks exist only there, not in the wheel."""


def table(headings: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; vertical bars in cells are escaped."""
    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headings), "|" + "---|" * len(headings), *(line(row) for row in rows)])


def code(text: str) -> str:
    """The text as Markdown code; "" for ""."""
    return f"`{text}`" if text else ""


def caps(text: str) -> str:
    """Key caps, separated by spaces, as Markdown code."""
    return " ".join(map(code, text.split()))


def _keys(*of: Iterable[keys.Key], beside: Iterable[tuple[str, str]] = (), mouse: Iterable[Row] = ()) -> str:
    rows = [(caps(key.caps), key.doc) for table_ in of for key in table_]
    return table(("key", "what it does"), [*rows, *((caps(cap), doc) for cap, doc in beside), *mouse])


def _options() -> str:
    return table(("option", "what it does"), [(code(names), doc) for names, doc in option_rows(command)])


def _dump_options() -> str:
    return table(("option", "what it does"), [(code(names), doc) for names, doc in option_rows(dump_command)])


def _statuses() -> str:
    """Exit statuses; the meaning is the docstring after each constant."""
    source = Path(errors.__file__).read_text(encoding="utf-8")
    statuses = re.findall(r'^EXIT_(\w+) = (\d+)\n(?:"""(.*?)"""\n)?', source, re.M | re.S)
    plain = {"OK": "All went well.", "FAILURE": "Any other failure."}
    return table(("status", "meaning"),
                 [(number, " ".join(doc.split()) or plain[name]) for name, number, doc in statuses])


def _words() -> str:
    return table(("word", "value", "which flows", "example"),
                 [(code(word.words), code(word.argument), word.doc, code(word.example)) for word in WORDS])


def _columns() -> str:
    return table(("column", "header", "what it shows", "known"),
                 [(code(column.id), column.header, column.doc, FIELDS[column.id].where) for column in COLUMNS.values()])


def _biflow_columns() -> str:
    return table(("column", "header", "what it shows"),
                 [(code(column.id), column.header, column.doc) for column in BIFLOW_COLUMNS.values()
                  if column.id not in COLUMNS])


def _group_columns() -> str:
    """Columns of groups that flows do not have; those of one kind of group are after those of all."""
    own = [(column, f"`{group.id}`") for group in GROUPS.values() for column in group.columns]
    columns = [(column, "all") for column in GROUP_COLUMNS.values() if column.id not in COLUMNS]
    return table(("column", "header", "what it shows", "groups"), [
        (code(column.id), column.header, column.doc, which) for column, which in (*columns, *own)])


def _views() -> str:
    return table(("key", "view", "what it lists", "grouped by"), [
        (code(str(number)), view.name, view.doc, code(",".join(view.group))) for number, view in enumerate(VIEWS, 1)])


def _trouble() -> str:
    return table(("setting", "shown when", "from", "unit"), [
        (code(rule.id), rule.doc, code(rule.example.strip('"')), rule.unit) for rule in RULES])


def _groups() -> str:
    return table(("field", "what is put together", "keys in JSON and CSV"), [
        (code(field.id) + (f" `{field.id}:{field.argument}`" if field.argument else ""), field.doc,
         " ".join(map(code, field.members))) for field in GROUPS.values()])


def _elements() -> str:
    return table(("key", "IE", "what it holds"), [(code(name), number, doc) for name, number, doc in key_table()])


_KINDS = {("udp", "tcp", "tls", "file", "jsonl", "csv", "parquet", "jsonl+tcp", "jsonl+udp"): "all",
          ("udp", "tcp", "tls", "file"): "IPFIX", ("file", "jsonl", "csv", "parquet"): "files",
          ("file", "jsonl", "csv"): "files but Parquet",
          ("tcp", "tls", "jsonl+tcp"): "TCP, TLS", ("tls",): "TLS", ("udp",): "UDP"}
"""Short names for the transports that have an option."""


def _url() -> str:
    return table(("option", "for", "default", "what it does"), [
        (code(option.name), _KINDS[option.kinds], option.default, option.doc) for option in OPTIONS.values()])


def _profiles() -> str:
    return table(("profile", "for"), [(code(profile.name), profile.doc) for profile in PROFILES.values()])


def _listen() -> str:
    return table(("URL", "default port", "takes"), [
        (code(f"{scheme}://[ADDRESS][:PORT]"), str(port), doc) for scheme, (_, port, doc) in SCHEMES.items()])


def _benchmarks() -> str:
    """Benchmarks; each is described by the first sentence of its module."""
    rows = []
    for path in sorted((REPOSITORY / "tests" / "bench").glob("[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append((code(path.stem), " ".join(doc.partition("\n\n")[0].split())))
    return table(("name", "what it measures"), rows)


def _devices() -> str:
    """Kinds of devices that the tests make, with what their counters count otherwise."""
    tried = runpy.run_path(str(REPOSITORY / "tests" / "kernel" / "devices.py"))
    rows = [(device.kind, ", ".join(device.compared) or "not yet", device.received_note, device.sent_note)
            for device in tried["DEVICES"]]
    return table(("kind", "compared on Linux", "received", "sent"), rows)


def _pages() -> str:
    """Links for the README, three in a line."""
    links = [f"[{manual.title(topic)}](flowtop/docs/{topic}.md)" for topic in manual.topics()]
    return " ·\n".join(" · ".join(links[at:at + 3]) for at in range(0, len(links), 3))


TABLES: dict[str, Callable[[], str]] = {
    "keys": lambda: _keys(keys.KEYS, mouse=keys.MOUSE),
    "filter-keys": lambda: _keys(beside=keys.FILTER_KEYS),
    "group-keys": lambda: _keys(keys.GROUP_KEYS, beside=[("letter", "Group by the field that it stands before")]),
    "sort-keys": lambda: _keys(keys.SORT_KEYS, beside=[("letter", "Sort by the column that it stands before")]),
    "column-keys": lambda: _keys(keys.COLUMN_KEYS),
    "detail-keys": lambda: _keys(keys.DETAIL_KEYS),
    "interface-keys": lambda: _keys(keys.INTERFACE_KEYS),
    "hand-off-keys": lambda: _keys(keys.HAND_OFF_KEYS),
    "help-keys": lambda: _keys(keys.HELP_KEYS),
    "manual-keys": lambda: _keys(keys.MANUAL_KEYS),
    "export-keys": lambda: _keys(keys.EXPORT_KEYS, beside=keys.TYPING_KEYS),
    "devices": _devices,
    "options": _options,
    "dump-options": _dump_options,
    "statuses": _statuses,
    "words": _words,
    "columns": _columns,
    "biflow-columns": _biflow_columns,
    "group-columns": _group_columns,
    "groups": _groups,
    "views": _views,
    "trouble": _trouble,
    "elements": _elements,
    "url": _url,
    "profiles": _profiles,
    "listen": _listen,
    "benchmarks": _benchmarks,
    "pages": _pages,
}
"""By name, the content between `<!-- NAME -->` and `<!-- /NAME -->` in a page or the README."""
