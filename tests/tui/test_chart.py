"""Charts: which values stand where, on which scale, in which characters. Expected: arithmetic on the test's values."""

from __future__ import annotations

import pytest

from flowtop.query.query import TrafficHistory
from flowtop.tui.widgets.chart import (
    ASCII,
    BLOCKS,
    BRAILLE,
    SPAN_S,
    Glyphs,
    binned,
    chart_lines,
    glyphs_for,
    nice_scale,
    plot,
)
from tests.tui.fake_source import START_MS, FakeSource, random_flows
from tests.tui.screen import running, screen_strips, terminal_lines

NOW_MS = 1_000_000_000


def test_the_scale_ends_at_one_two_or_five_of_the_unit_that_is_shown() -> None:
    for octets, bits, end in ((0, True, 1_000), (125, True, 1_000), (126, True, 2_000), (1.1e6, True, 10e6),
                              (1.1e6, False, 2e6), (5e9, False, 5e9), (5.01e9, False, 10e9)):
        assert nice_scale(octets, bits) * (8 if bits else 1) == pytest.approx(end)


def test_braille_counts_dots_from_below() -> None:
    """Unicode's braille: dots 7 3 2 1 of the left column and 8 6 5 4 of the right one, bit n - 1 for dot n."""
    dots = ((7, 3, 2, 1), (8, 6, 5, 4))
    for left in range(5):
        for right in range(5):
            bits = sum(1 << dot - 1 for side, level in zip(dots, (left, right), strict=True) for dot in side[:level])
            assert BRAILLE.cell((left, right)) == (chr(0x2800 + bits) if bits else " ")


@pytest.mark.parametrize(("glyphs", "lines"), [
    (ASCII, [" #", ".#"]), (BLOCKS, [" █", "▄█"]), (BRAILLE, ["⢸", "⣸"])])
def test_the_area_below_the_values(glyphs: Glyphs, lines: list[str]) -> None:
    assert plot([1.0, 100.0], 100.0, 2, glyphs) == lines, "what is more than nothing is seen"


def test_a_value_stands_where_its_time_is_and_bins_do_not_move_with_every_tick() -> None:
    seconds = range(300)
    ends = [NOW_MS - 1_000 * (299 - second) for second in seconds]
    rates = [float(second) for second in seconds]
    values = binned(ends, [1.0] * 300, rates, 60, NOW_MS)
    assert len(values) == 60 and values[-1] == 299 and values == sorted(values)
    later = binned([*ends[1:], NOW_MS + 1_000], [1.0] * 300, [*rates[1:], 300.0], 60, NOW_MS + 1_000)
    moved = (NOW_MS + 1_000) // 5_000 - NOW_MS // 5_000
    assert later[:-1 - moved] == values[moved:-1], "only the newest bin is another"


def test_a_long_span_fills_all_its_bins() -> None:
    values = binned([NOW_MS - 100_000], [50.0], [7.0], 30, NOW_MS)
    assert [bool(value) for value in values] == [NOW_MS - 300_000 + 10_000 * (place + 1) > NOW_MS - 150_000
                                                 and NOW_MS - 300_000 + 10_000 * place <= NOW_MS - 100_000
                                                 for place in range(1, 31)]


@pytest.mark.parametrize(("terminal", "encoding", "glyphs"), [
    ("xterm-256color", "utf-8", BRAILLE), ("xterm", "UTF8", BRAILLE), ("linux", "utf-8", BLOCKS),
    ("vt100", "utf-8", ASCII), ("dumb", "utf-8", ASCII), ("xterm", "iso8859-1", ASCII), ("xterm", "ascii", ASCII)])
def test_the_characters_are_those_that_the_terminal_has(terminal: str, encoding: str, glyphs: Glyphs) -> None:
    assert glyphs_for(terminal, encoding) is glyphs


def test_plain_ascii_has_nothing_else() -> None:
    history = TrafficHistory((NOW_MS,), (1.0,), (1e6,), (5e5,))
    for strip in chart_lines(history, 80, 4, now_ms=NOW_MS, bits=True, glyphs=ASCII):
        assert strip.text.isascii() and strip.cell_length == 80


@pytest.mark.parametrize("width", [40, 80, 160, 200])
@pytest.mark.parametrize("rows", range(1, 9))
def test_every_size_has_both_sides_their_units_and_no_other_width(width: int, rows: int) -> None:
    history = TrafficHistory((NOW_MS,), (1.0,), (1.1e6,), (3e3,))
    lines = chart_lines(history, width, rows, now_ms=NOW_MS, bits=True, glyphs=BRAILLE)
    assert len(lines) == rows and {strip.cell_length for strip in lines} == {width}
    text = "\n".join(strip.text for strip in lines)
    assert "in " in text and "out" in text
    if rows > 1:
        assert "10.0 Mb/s" in text and "50.0 kb/s" in text, "each side has its own scale"
    if rows >= 4 and width >= 80:
        assert "now" in text and "-5m" in text


def history(ticks: int) -> TrafficHistory:
    ends = tuple(START_MS + 1_000 * (tick + 1) for tick in range(ticks))
    return TrafficHistory(ends, (1.0,) * ticks, (1e6,) * ticks, (2e5,) * ticks)


async def test_a_tall_terminal_has_a_chart_and_its_cursor_moves_while_one_looks_back() -> None:
    source = FakeSource(random_flows(30))
    source.history = history(120)
    async with running(source, 120, 40) as pilot:
        for _ in range(119):
            source.tick()
        await pilot.pause()
        chart = terminal_lines(pilot.app)[1:5]
        assert "10.0 Mb/s" in chart[0] and "2.00 Mb/s" in chart[0]
        assert "now" in chart[-1] and "⣿" in chart[2]
        assert not [segment for strip in screen_strips(pilot.app)[:2] for segment in strip if "⣿" in segment.text]
        places = []
        for key in ("left_square_bracket", "left_parenthesis"):
            await pilot.press(key)
            await pilot.pause()
            places.append(marked(pilot.app))
        assert len(places[0]) == len(places[1]) == 2, "one in each side"
        cells = places[0][0] - places[1][0]
        per_cell_s = SPAN_S / len(chart[-1].split("now")[0][12:] + "now")
        assert cells == pytest.approx(60 / per_cell_s, abs=2), "a minute's way"


async def test_the_chart_is_of_what_is_listed_and_says_so() -> None:
    source = FakeSource(random_flows(20))
    async with running(source, 120, 40) as pilot:
        assert terminal_lines(pilot.app)[2].split()[:2] == ["all", "flows"]
        await pilot.press("slash", *"tcp", "enter")
        source.tick()
        await pilot.pause()
        assert terminal_lines(pilot.app)[2].split()[0] == "listed"
        await pilot.press("backslash")
        assert terminal_lines(pilot.app)[2].split()[:2] == ["all", "flows"]


def marked(app: object) -> list[int]:
    """Where the third line of the chart is in reverse video."""
    found, at = [], 0
    for segment in app.screen._compositor.render_strips()[3]:  # type: ignore[attr-defined]
        if segment.style is not None and segment.style.reverse:
            found.append(at)
        at += len(segment.text)
    return found
