"""TCP control bits over a flow's life, as text: which were there by when, and a line of marks below the sparkline."""

from __future__ import annotations

from collections.abc import Iterator

from flowtop.view import units
from flowtop.view.query import Details


def flags_over_time(details: Details) -> str:
    """`S . by 0:01, P by 0:03, F by 2:31`: after the first packet. Bits that were there before anybody kept note:
    `earlier`. Empty where there are none."""
    noted = 0
    for _, bits in details.flags:
        noted |= bits
    before = units.tcp_flags(details.row.tcp_control_bits & ~noted)
    steps = [f"{before} earlier"] if before else []
    steps += [f"{units.tcp_flags(bits)} by {units.duration(max(0, at_ms - details.row.start_ms) / 1000)}"
              for at_ms, bits in details.flags if units.tcp_flags(bits)]
    return ", ".join(steps)


def flag_marks(details: Details, now_ms: int, cells: int) -> str:
    """Letters at the places of a sparkline of so many cells where bits were first seen; where several come together,
    each takes the next place. Those from before it are left out."""
    line = [" "] * cells
    for at, letters in _places(details, now_ms, cells):
        for letter in letters:
            free = next((place for place in range(at, cells) if line[place] == " "), None)
            if free is not None:
                line[free] = letter
    return "".join(line).rstrip()


def _places(details: Details, now_ms: int, cells: int) -> Iterator[tuple[int, str]]:
    begin_ms = now_ms - details.rates_s * 1000
    for at_ms, bits in details.flags:
        if details.rates_s and begin_ms < at_ms <= now_ms:
            # The tick that ended then is the cell before.
            yield max(0, int((at_ms - begin_ms) / (details.rates_s * 1000) * cells - 1e-9)), units.tcp_flags(bits)
