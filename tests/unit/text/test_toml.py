"""TOML that is damaged or of strangers ends soon, in values or in a ValueError."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.text.toml import MOST_OCTETS, MOST_PARTS, parse_toml


@pytest.mark.parametrize("text", [
    "x = " + "[" * 100_000, "[trouble]\nscan=" + "{a=" * 3_000, ".".join(["a"] * 50_000) + " = 1",
    "[" + " . ".join(['"a"'] * 50_000) + "]", "x = {" + ".".join(["'a'"] * 40_000) + " = 1}", "x = 1" + "0" * 5_000,
    "a" * (MOST_OCTETS + 1), '"' + '\\"' * (MOST_OCTETS // 2 - 1), "a" * MOST_OCTETS, "\0", "x = 1\nx = 2"],
    ids=lambda text: f"{text[:12]!r} of {len(text)}")
def test_what_would_end_or_hold_up_a_run_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_toml(text)


@pytest.mark.parametrize("text", [
    'x = "a.b.c.d' + ".e" * 100 + '"', "y = '" + ". " * 100 + "'", ".".join(["a"] * MOST_PARTS) + " = 1.5",
    "[views.db]\nfilter = 'port 5432' # " + "it's." * 9, "x = [" + "[" * 50 + "]" * 50 + "]"])
def test_other_toml_is_what_it_says(text: str) -> None:
    assert parse_toml(text) == tomllib.loads(text)


@given(st.text(alphabet='ab.="\'[]{}#\n\\ 1e', max_size=60))
def test_any_text_is_values_or_a_value_error(text: str) -> None:
    try:
        found = parse_toml(text)
    except ValueError:
        return
    assert found == tomllib.loads(text)
