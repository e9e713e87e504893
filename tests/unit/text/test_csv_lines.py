"""CSV that a spreadsheet shows as it is."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.text.csv_lines import CsvLines


@pytest.mark.parametrize("cell", ["=1+1", "=HYPERLINK(\"http://x/\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)",
                                  "\ta", "\ra", "\na", "＝1+1"])
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
    assert [cell.replace("'", "") for cell in row] == [cell.replace("'", "") for cell in cells], "nothing else is added"
    assert not any(cell[:1] in "=@\t\r" for cell in row if cell)


@pytest.mark.parametrize("cell", ["x;=cmd|'/C calc'!A0;y", "x\t@SUM(1)", "x\n+1+cmd|' /C calc'!A0", "a\r-2+3", ";＝1"])
def test_nor_where_semicolons_separate_and_quotes_that_follow_no_separator_are_letters(cell: str) -> None:
    """As spreadsheets read the same file where decimals have commas."""
    line = CsvLines(["first", "name"]).line({"first": "1", "name": cell})
    cells = re.split("[;\t\r\n]", line)
    assert len(cells) > 2 and not any(each.startswith(tuple("=+-@＝")) for each in cells), cells
