"""Markdown as man(7) macros: what groff_man(7) and groff_char(7) ask for."""

from __future__ import annotations

import pytest

from flowtop.docs.man import escaped, part, roff


@pytest.mark.parametrize(("text", "source"), [
    ("-i", "\\-i"),  # a minus that can be copied
    ("a\\b", "a\\eb"),
    ("~/.config", "\\(ti/.config"),
    ("'veth*'", "\\(aqveth*\\(aq"),
    ("↑", "\\[u2191]"),
])
def test_characters_that_roff_would_change_are_escaped(text: str, source: str) -> None:
    assert escaped(text) == source


@pytest.mark.parametrize(("markdown", "lines"), [
    ("plain `code` *emphasis*", ["plain \\fBcode\\fR \\fIemphasis\\fR"]),
    ("one\n\ntwo", ["one", ".PP", "two"]),
    (".TH is no macro", ["\\&.TH is no macro"]),
    ("### Sub", ['.SS "Sub"']),
    ("- a\n- b", [".IP \\(bu 2", "a", ".IP \\(bu 2", "b"]),
    ("1. a\n2. b", [".IP 1. 4", "a", ".IP 2. 4", "b"]),
    ("```\n'x\n```", [".RS 4", ".EX", "\\(aqx", ".EE", ".RE"]),
    ("![a picture](x.svg)", []),
    ("| key | what it does |\n|---|---|\n| `x` | Stop it. |", [".TP", "\\fBx\\fR", "Stop it."]),
    ("| word | value | which flows | example |\n|---|---|---|---|\n| `a` | `V` | Those there are. | `a 1` |",
     [".TP", "\\fBa\\fR \\fBV\\fR", "Those there are.", "Example: \\fBa 1\\fR."]),
])
def test_markdown_becomes_macros(markdown: str, lines: list[str]) -> None:
    assert roff(markdown) == lines


def test_a_comment_in_code_is_no_heading() -> None:
    assert "# ~/.config/flowtop/config.toml\n" in part("options", "Settings")
    assert "over the file." in part("options", "Settings")
