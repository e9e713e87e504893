"""Writes the list on screen to a new file as CSV or JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from flowtop.errors import FlowtopError
from flowtop.fields.records import iso_time
from flowtop.files import open_output, undo_output
from flowtop.output.records import page_cells, page_names, page_record, rows_name
from flowtop.query.query import Page
from flowtop.text.csv_lines import CsvLines


def write_rows(path: Path, page: Page, owner: tuple[int, int] | None = None) -> None:
    """Write the rows of a page, in their order, to a file that must not exist yet.

    Args:
        path: its suffix selects the format: .csv; .json: one object; .jsonl: one object for each flow.
        owner: user and group as whom it is opened, see files.open_output; None: as this process.

    Raises:
        FlowtopError: an unknown suffix, or the file exists or cannot be written.
    """
    make = FORMATS.get(path.suffix)
    if make is None:
        raise FlowtopError(f"{path.name or 'no name'}: which format?", hint="name it .csv, .json or .jsonl")
    try:
        output = open_output(path, time.time, owner, new=True)
    except FileExistsError:
        raise FlowtopError(f"{path} exists already", hint="use another name") from None
    except (OSError, ValueError) as error:
        raise FlowtopError(f"cannot write {path}: {_reason(error)}", hint="type another place") from error
    identity = os.fstat(output.descriptor)
    try:
        with os.fdopen(output.descriptor, "w", encoding="utf-8") as file:
            file.writelines(make(page))
    except OSError as error:
        undo_output(output, identity, path, owner)  # an incomplete file looks like a complete one
        raise FlowtopError(f"cannot write {path}: {_reason(error)}", hint="type another place") from error


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _csv(page: Page) -> Iterable[str]:
    lines = CsvLines(page_names(page))
    yield lines.header()
    for row in page.rows:
        yield lines.line(page_cells(row, page))


def _json(page: Page) -> Iterable[str]:
    query = page.query
    filters = [part.text for part in (query.filter, query.scope) if part is not None]
    filter_text = " and ".join(f"({text})" for text in filters) if len(filters) > 1 else next(iter(filters), None)
    rows = rows_name(query)
    head = {"time": iso_time(page.unix_ms), "sort": query.sort, "descending": query.descending, "filter": filter_text,
            "matched": page.matched, **({} if page.marked_s is None else {"secondsSinceMark": page.marked_s})}
    yield json.dumps(head, separators=(", ", ": "))[:-1] + f', "{rows}": ['
    for index, row in enumerate(page.rows):
        yield (",\n" if index else "\n") + _object(page_record(row, page))
    yield "\n]}\n"


def _json_lines(page: Page) -> Iterable[str]:
    for row in page.rows:
        yield _object(page_record(row, page)) + "\n"


def _object(record: object) -> str:
    return json.dumps(record, separators=(",", ":"))


FORMATS: dict[str, Callable[[Page], Iterable[str]]] = {".csv": _csv, ".json": _json, ".jsonl": _json_lines}
"""Formats by suffix."""
