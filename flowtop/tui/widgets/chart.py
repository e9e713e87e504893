"""Charts of rates over the last minutes, in characters: braille, blocks, or plain ASCII.

Our own: plotext and textual-plotext paint a whole figure anew each time (10 ms and more), with axes that need 5 lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from flowtop.query.query import TrafficHistory
from flowtop.text import units
from flowtop.tui import theme

SPAN_S = 300.0
"""Time that a chart shows."""
_LABEL = 10
"""Cells of the scale's labels."""
_TITLE_FROM = 3
"""Rows of the plot from which on the second one says what it is of."""
_AXIS_FROM = 4
"""Rows from which on the last one has the times."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a column of a chart is painted with.

    Attributes:
        columns: values side by side in one cell.
        levels: of one cell, without the empty one.
        texts: by level of each column, 0 is empty: for two columns `levels + 1` times as many.
    """

    columns: int
    levels: int
    texts: str

    def cell(self, levels: Sequence[int]) -> str:
        """The character of a cell, from the level of each column."""
        place = 0
        for level in levels:
            place = place * (self.levels + 1) + level
        return self.texts[place]


_LEFT, _RIGHT = (0x00, 0x40, 0x44, 0x46, 0x47), (0x00, 0x80, 0xA0, 0xB0, 0xB8)
"""Dots of a braille cell (U+2800 ff.), filled from below to each of its levels."""
BRAILLE = Glyphs(2, 4, "".join(chr(0x2800 + left + right) if left + right else " "
                              for left in _LEFT for right in _RIGHT))
BLOCKS = Glyphs(1, 2, " ▄█")
"""For Linux's own console, whose fonts have no others."""
ASCII = Glyphs(1, 3, " .:#")


def glyphs_for(terminal: str, encoding: str) -> Glyphs:
    """The best that a terminal can show.

    Args:
        terminal: TERM.
        encoding: of what is written to it.
    """
    if encoding.lower().replace("-", "").replace("_", "") not in ("utf8", "utf8mb4"):
        return ASCII
    return ASCII if terminal in ("dumb", "vt100", "vt220") else BLOCKS if terminal == "linux" else BRAILLE


def nice_scale(octets_per_s: float, bits: bool) -> float:
    """The end of the scale for a highest rate, in octets/s: 1, 2 or 5 times a power of ten, of bits or octets."""
    unit = 8.0 if bits else 1.0
    value = max(octets_per_s * unit, 1_000.0)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9)) * power / unit


def binned(ends_ms: Sequence[int], lengths_s: Sequence[float], rates: Sequence[float], bins: int,
           now_ms: int, span_s: float = SPAN_S) -> list[float]:
    """The highest rate of each bin of the last `span_s`, oldest first. Bins keep their place in time, so that only the
    last one changes with most ticks."""
    bin_ms = span_s * 1_000 / bins
    last = now_ms // bin_ms
    highest = [0.0] * bins
    for end_ms, length_s, rate in zip(ends_ms, lengths_s, rates, strict=True):
        first = int(max(0, bins - 1 - (last - (end_ms - length_s * 1_000 + 1) // bin_ms)))
        for place in range(first, min(bins, int(bins - (last - end_ms // bin_ms)))):
            highest[place] = max(highest[place], rate)
    return highest


def plot(values: Sequence[float], scale: float, rows: int, glyphs: Glyphs) -> list[str]:
    """The area below values, from top to bottom; what is more than 0 is seen."""
    top = rows * glyphs.levels
    heights = [min(top, math.ceil(value * top / scale)) if scale else 0 for value in values]
    lines = []
    for row in range(rows):
        floor = (rows - 1 - row) * glyphs.levels
        levels = [max(0, min(glyphs.levels, height - floor)) for height in heights]
        lines.append("".join(glyphs.cell(levels[at:at + glyphs.columns])
                             for at in range(0, len(levels), glyphs.columns)))
    return lines


@lru_cache(maxsize=4)  # each key paints it again, and what it shows changes with a tick
def chart_lines(history: TrafficHistory, width: int, rows: int, *, now_ms: int, bits: bool, glyphs: Glyphs,
                at_ms: int | None = None, names: tuple[str, str] = ("in", "out"),
                span_s: float = SPAN_S, title: str = "") -> tuple[Strip, ...]:
    """What came in at the left, what went out at the right, each with its scale.

    Args:
        width, rows: of all, in cells.
        now_ms: time at the right end, ms since 1970 UTC.
        at_ms: the time one looks at, if it is not now: marked by a cursor.
        names: of both sides.
        span_s: time from end to end, whole minutes.
        title: what it is of; where there is a row for it.
    """
    half = (width - 2) // 2
    sides = [_side(name, rates, history, half, rows, now_ms, bits, glyphs, at_ms, span_s, title)
             for name, rates in zip(names, (history.into, history.out_of), strict=True)]
    return tuple(Strip([Segment(" "), *left, Segment(" "), *right]).adjust_cell_length(width)
                 for left, right in zip(*sides, strict=True))


def _side(name: str, rates: Sequence[float], history: TrafficHistory, width: int, rows: int, now_ms: int, bits: bool,
          glyphs: Glyphs, at_ms: int | None, span_s: float, title: str) -> list[list[Segment]]:
    cells = max(8, width - _LABEL - 1)
    bins = cells * glyphs.columns
    values = binned(history.ends_ms, history.lengths_s, rates, bins, now_ms, span_s)
    scale = nice_scale(max(values, default=0.0), bits)
    area = rows - 1 if rows >= _AXIS_FROM else rows
    labels = [""] * area
    labels[-1] = name if area > 1 else f"{name} {units.rate(scale, bits).strip()}"[:_LABEL]
    if area > 1:
        labels[0] = " ".join(units.rate(scale, bits).split())
        labels[-1] = f"{name} 0"
    if area >= _TITLE_FROM:
        labels[1] = title
    cursor = None if at_ms is None else _cell_of(at_ms, now_ms, bins, glyphs.columns, span_s)
    lines = []
    for label, text in zip(labels, plot(values, scale, area, glyphs), strict=True):
        lines.append([Segment(f"{label:>{_LABEL}} ", theme.LABEL), *_with_cursor(text, cursor)])
    if rows >= _AXIS_FROM:
        lines.append([Segment(" " * (_LABEL + 1)), *_with_cursor(_axis(cells, span_s), cursor, theme.LABEL)])
    return lines


def _cell_of(at_ms: int, now_ms: int, bins: int, columns: int, span_s: float) -> int | None:
    bin_ms = span_s * 1_000 / bins
    place = int(bins - 1 - (now_ms // bin_ms - at_ms // bin_ms))
    return place // columns if 0 <= place < bins else None


def _with_cursor(text: str, cell: int | None, style: Style = theme.PLAIN) -> list[Segment]:
    if cell is None:
        return [Segment(text, style)]
    return [Segment(text[:cell], style), Segment(text[cell], theme.CURSOR), Segment(text[cell + 1:], style)]


def _axis(cells: int, span_s: float = SPAN_S) -> str:
    """The times below a plot: `-5m` at the left end, `now` at the right, and minutes between them where there is
    room."""
    line = [" "] * cells
    for minutes in range(int(span_s // 60) + 1):
        text = f"-{minutes}m" if minutes else "now"
        end = round(cells * (1 - minutes * 60 / span_s))
        start = max(0, end if end == 0 else end - len(text) if not minutes else end - len(text) // 2)
        if all(character == " " for character in line[max(0, start - 1):start + len(text) + 1]):
            line[start:start + len(text)] = text
    return "".join(line)[:cells]
