"""CSV that a spreadsheet shows as it is."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.text.csv_lines import CsvLines


@pytest.mark.parametrize("cell", ["=1+1", "=HYPERLINK(\"http://x/\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)",
                                  "\t=1", "\r=1", "＝1+1"])
def test_what_a_spreadsheet_would_run_is_text(cell: str) -> None:
    lines = CsvLines(("name", "octets"))
    [row] = csv.DictReader(io.StringIO(lines.header() + lines.line({"name": cell, "octets": -5}), newline=""))
    assert row == {"name": f"'{cell}", "octets": "-5"}


@pytest.mark.parametrize("cell", ["nginx", "-", "-3", "+4.5", "2001:db8::1", "a=b", "", "'quoted'"])
def test_other_texts_are_as_they_are(cell: str) -> None:
    assert next(csv.reader([CsvLines(["name", "more"]).line({"name": cell, "more": None})])) == [cell, ""]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2, max_size=2))
def test_no_cell_begins_like_a_formula_and_none_is_lost(cells: list[str]) -> None:
    text = CsvLines(("a", "b")).line(dict(zip("ab", cells, strict=True)))
    [row] = csv.reader(io.StringIO(text, newline=""))
    assert [cell if plain == cell else cell.removeprefix("'") for cell, plain in zip(row, cells, strict=True)] == cells
    assert not any(cell[:1] in "=@\t\r" for cell in row if cell)
