"""Lines of CSV (RFC 4180) that a spreadsheet shows and does not run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping

_RUN = tuple("=+-@\t\r\n＝＋－＠")
"""First characters that make a cell a formula for spreadsheets."""
_WITHIN = re.compile(r"([;\t\r\n])(?=[=+\-@＝＋－＠])")
"""Where a cell of a formula begins for a spreadsheet that separates by semicolons, as those of many languages do: it
takes a quote that does not follow one for a letter."""
_END = "\r\n"
_HARMLESS = re.compile(r"[+-]?[0-9.,]*")


class CsvLines:
    """Makes lines of the same columns.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, which makes it text: names of
    processes, hosts and interfaces come from strangers.

    Args:
        names: of the columns.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._out = io.StringIO()
        self._writer = csv.DictWriter(self._out, self._names, lineterminator=_END)  # it quotes what is in the end

    def header(self) -> str:
        """The line of names."""
        self._writer.writeheader()
        return self._taken()

    def line(self, cells: Mapping[str, object]) -> str:
        """A line of cells by column; those that are not there are empty."""
        self._writer.writerow({name: as_text(cell) for name, cell in cells.items()})
        return self._taken()

    def _taken(self) -> str:
        text = self._out.getvalue().removesuffix(_END) + "\n"
        self._out.seek(0)
        self._out.truncate()
        return text


def as_text(cell: object) -> object:
    """The cell, as a text that is not run."""
    if not isinstance(cell, str):
        return cell
    cell = _WITHIN.sub(r"\1'", cell)
    return f"'{cell}" if cell.startswith(_RUN) and not _HARMLESS.fullmatch(cell) else cell
