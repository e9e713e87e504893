"""One line of text made of parts, the less important of which make room when the terminal is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from flowtop.tui.theme import LABEL, PLAIN


@dataclass(frozen=True, slots=True)
class Part:
    """Some text of a line, characters of one cell each.

    Attributes:
        text: the value or words.
        style: of `text`.
        rank: parts of the highest rank are dropped first, the rightmost first; rank 0 is never dropped.
        label: words before `text` that are styled as a label.
        gap: blank cells before the part when it does not come first.
        label_style: of `label`.
    """

    text: str
    style: Style = PLAIN
    rank: int = 0
    label: str = ""
    gap: int = 2
    label_style: Style = LABEL

    @property
    def width(self) -> int:
        """Cells, without the gap."""
        return len(self.label) + len(self.text)


def justify(left: Sequence[Part], right: Sequence[Part], width: int, *, margin: int = 1) -> Strip:
    """A line with `left` at its left end and `right` at its right end.

    Args:
        left, right: from left to right.
        width: cells of the line; what rank 0 alone does not leave room for is cut off.
        margin: blank cells at both ends.
    """
    left, right, spare = fitting(left, right, width, margin=margin)
    blank = max(spare, 0) + (2 if left and right else 0)
    segments = [Segment(" " * margin), *_segments(left), Segment(" " * blank), *_segments(right)]
    return Strip(Segment.simplify(segments)).adjust_cell_length(width, PLAIN)


def fitting(left: Sequence[Part], right: Sequence[Part], width: int, *,
            margin: int = 1) -> tuple[list[Part], list[Part], int]:
    """What `justify` leaves of both ends in this width, and the cells that are left over; < 0: what it cuts off."""
    left, right = list(left), list(right)
    while True:
        spare = width - 2 * margin - _width(left) - _width(right) - (2 if left and right else 0)
        rank = max((part.rank for part in [*left, *right]), default=0)
        if spare >= 0 or not rank:
            return left, right, spare
        side = right if any(part.rank == rank for part in right) else left
        del side[max(index for index, part in enumerate(side) if part.rank == rank)]


def _width(parts: Sequence[Part]) -> int:
    return sum(part.width + (part.gap if index else 0) for index, part in enumerate(parts))


def _segments(parts: Sequence[Part]) -> list[Segment]:
    segments: list[Segment] = []
    for index, part in enumerate(parts):
        if index:
            segments.append(Segment(" " * part.gap))
        if part.label:
            segments.append(Segment(part.label, part.label_style))
        segments.append(Segment(part.text, part.style))
    return segments
