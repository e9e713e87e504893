"""Parts of the screen as text: the list's cells by the header above them, and the box of a panel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

LEFT = {"IF", "D", "PROTO", "SOURCE", "DESTINATION", "ST", "VLAN", "TUNNEL", "DSCP", "FLAGS", "EXPORTER", "SERVICE",
        "CLIENT", "SERVER", "HOST", "SHARE"}
"""Headers above the start of their cells; all others are above the end."""


def titles(header: str) -> list[tuple[str, int, int]]:
    """Every header of a line of headers, without the arrow of the order: (words, first place, place behind)."""
    return [(found.group().rstrip("↓↑"), found.start(), found.end())
            for found in re.finditer(r"(?:10 s|60 s|(?:IN|OUT) [16]0s|(?:BYTES|PKTS) (?:IN|OUT)|\S+)[↓↑→←]*", header)]


def table(lines: Sequence[str]) -> list[dict[str, str]]:
    """The cells of the list, a dict a row, by header. Fails where a cell does not stay in its column.

    Args:
        lines: of the whole screen.
    """
    header, rows = lines[2][:-1], [line[:-1] for line in lines[3:-2] if line[:-1].strip()]
    heads = titles(header)
    gaps = [_gap(left, right, [header, *rows]) for left, right in pairwise(heads)]
    for row in rows:
        assert not row[0].strip(), f"nothing stands before the first column: {row}"
        assert all(not row[gap].strip() for gap in gaps), f"a cell runs into the next: {row}"
    bounds = list(zip([0, *gaps], [*gaps, None], strict=True))
    return [{head: row[first:behind].strip() for (head, _, _), (first, behind) in zip(heads, bounds, strict=True)}
            for row in rows]


def _gap(left: tuple[str, int, int], right: tuple[str, int, int], lines: list[str]) -> int:
    """The place between two columns."""
    if right[0] in LEFT:
        return right[1] - 1
    if left[0] not in LEFT:
        return left[2]
    free = [place for place in range(left[2], right[1]) if not any(line[place].strip() for line in lines)]
    assert free, f"{left[0]} and {right[0]} overlap"
    return free[0]


def panel(lines: Sequence[str]) -> list[str]:
    """What the box of a panel has, title first, without its border. Fails where the border has a hole."""
    [top] = [index for index, line in enumerate(lines) if "╭" in line]
    left, right = lines[top].index("╭"), lines[top].index("╮") + 1
    title, *inside = [line[left:right] for line in lines[top:]]
    bottom = next(index for index, line in enumerate(inside) if line[0] != "│")
    assert re.fullmatch("╰─.*─╯", inside[bottom]), inside[bottom]
    for text in inside[:bottom]:
        assert text[-1] == "│", f"a hole in the border: {text}"
    return [title.strip("╭─╮ "), *(text[2:-1].rstrip() for text in inside[:bottom]), inside[bottom].strip("╰─╯ ")]
