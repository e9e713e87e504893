"""What is sent to the terminal: of a line that changed only the cells that did. Textual begins at the widget's edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.control import Control
from rich.style import Style
from textual._compositor import ChopsUpdate, Compositor
from textual.strip import Strip

_NEAR = 12
"""Cells that did not change are sent too if they are so few: going past them takes about as many octets."""

Span = tuple[int, int]
"""First cell, and the one after the last."""


class NarrowUpdate(ChopsUpdate):
    """An update that is cut at both ends of each span."""

    def render_segments(self, console: Console) -> str:
        """See ChopsUpdate."""
        sequences = []
        for y, first, last in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(first, x), min(last, end)
                if strip is not None and start < stop:
                    sequences.append(Control.move_to(start, y).segment.text)
                    sequences.append(strip.crop(start - x, stop - x).render(console))
        return "".join(sequences)


class NarrowCompositor(Compositor):
    """Of the main screen, which is painted each tick."""

    def render_partial_update(self) -> ChopsUpdate | None:
        """See Compositor."""
        update = super().render_partial_update()
        return None if update is None else NarrowUpdate(update.chops, update.spans, update.chop_ends)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Ascending spans, those that are near each other together."""
    found: list[Span] = []
    for start, end in spans:
        if found and start - found[-1][1] <= _NEAR:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def changed_spans(before: Strip, after: Strip) -> list[Span]:
    """Where two lines of a width differ."""
    old, new = list(_cells(before)), list(_cells(after))
    if not len(old) == len(new) == before.cell_length == after.cell_length:  # characters of two cells, or of none
        return [(0, max(before.cell_length, after.cell_length))]
    return merged((at, at + 1) for at, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])


def _cells(strip: Strip) -> Iterator[tuple[str, Style | None]]:
    for segment in strip:
        for character in segment.text:
            yield character, segment.style
