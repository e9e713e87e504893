"""What a half-typed filter means, and how its fault is put within a line."""

from __future__ import annotations

import pytest

from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.tui.line import justify
from flowtop.tui.state.filter_entry import MOST_REMEMBERED, FilterEntry, error_lines, remember


def put(error: FilterError, place: int, width: int = 80, *, gently: bool = False) -> list[str]:
    """The lines as text."""
    return [justify(parts, [], width, margin=0).text for parts in error_lines(error, place, width, gently=gently)]


def test_text_that_means_nothing_yet_leaves_the_filter() -> None:
    entry = FilterEntry(compile_filter("udp"))
    for text, meant in (("", None), ("t", None), ("tcp", "tcp"), ("tcp a", "tcp"),
                        ("tcp and port 80", "tcp and port 80"),
                        ("tcp and port 80000", "tcp and port 80"), ("   ", None)):
        entry.type(text)
        assert (entry.filter.text if entry.filter else None) == meant
    assert entry.before == compile_filter("udp")


def test_words_alone_are_looked_for_as_soon_as_they_cannot_become_others() -> None:
    entry = FilterEntry(None)
    for typed, meant in (("n", None), ("ng", "text ng"), ("nginx", "text nginx"), ("4", "text nginx"),
                         ("tcp and rs", "text nginx"), ("tcp and rst", "tcp and flags rst"),
                         ("retr", "tcp and flags rst")):
        entry.type(typed)
        assert (entry.filter.text if entry.filter else None) == meant
    assert entry.error is not None and entry.error.hint == 'did you mean "retransmits"?' and entry.could_be_text("retr")
    entry.type("443", finished=True)
    assert entry.filter is not None and entry.filter.text == entry.meaning == "port 443"
    entry.type("retr", finished=True)
    assert entry.error is not None, "a slip, until it is insisted on"
    entry.type("retr", finished=True, settled=True)
    assert entry.error is None and entry.filter is not None and entry.filter.text == "text retr"


def test_history_is_bounded_and_holds_each_text_once() -> None:
    history: list[str] = []
    for number in range(3 * MOST_REMEMBERED):
        remember(history, f"port {number}")
    remember(history, "port 500")
    remember(history, "  ")
    assert len(history) == MOST_REMEMBERED
    assert len(set(history)) == MOST_REMEMBERED
    assert history[-2:] == ["port 599", "port 500"]


@pytest.mark.parametrize("width", [80, 120, 200, 40, 10, 3])
@pytest.mark.parametrize("place", [0, 1, 5, 39, 60, 79, 500, -7])
@pytest.mark.parametrize("gently", [False, True])
def test_a_fault_is_put_within_the_line_its_caret_in_place(width: int, place: int, gently: bool) -> None:
    error = FilterError("x" * 600, 300, "unknown word 'xxxxxxx'", "one of " + ", ".join(["something"] * 30))
    found = put(error, place, width, gently=gently)
    assert 1 <= len(found) <= 2
    assert all(len(text) == width for text in found)
    assert found[0].index("^") == max(0, min(place, width - 1))


def test_a_short_fault_is_one_line_and_a_long_one_two() -> None:
    error = FilterError("tpc", 0, 'unknown word "tpc"', hint='did you mean "tcp"?')
    assert put(error, 3) == ['   ^ unknown word "tpc"; did you mean "tcp"?'.ljust(80)]
    assert put(error, 70) == ['unknown word "tpc"; did you mean "tcp"? ^'.rjust(71).ljust(80)]
    long = FilterError("tpc", 0, "unknown word 'tpc'", "x" * 70)
    assert put(long, 3) == ["   ^ unknown word 'tpc'".ljust(80), " expected " + "x" * 68 + "… "]
    assert put(long, 3, gently=True)[0].startswith("   ^ expected xxx")
