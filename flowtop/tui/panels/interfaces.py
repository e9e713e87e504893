"""The interfaces panel: what agents count at their interfaces (sFlow counter samples), as they reported it last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.model.exporters import InterfaceCounters
from flowtop.text import units
from flowtop.tui import theme
from flowtop.tui.keys import INTERFACE_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.panels.frame import ScrollingBox, scrolling_frame
from flowtop.tui.widgets.lines import Lines

MOST = 1_000
"""Interfaces with a line each, those with the highest rate."""
EMPTY = ("No counters of interfaces yet.", "", "sFlow agents report them in counter samples, as a rule every 20 to 30",
         "seconds; NetFlow and IPFIX exporters do not.")
_REFRESH_S = 1.0
_COLUMNS: tuple[tuple[str, int], ...] = (
    ("IN", 10), ("USED", 5), ("ERRORS", 8), ("DISCARDS", 8), ("OUT", 10),
    ("USED", 5), ("ERRORS", 8), ("DISCARDS", 8))
_JOINED: tuple[tuple[str, int], ...] = (("IN", 10), ("USED", 5), ("OUT", 10), ("USED", 5), ("FAULTS", 7))
"""Where there is less room: errors and discards of both directions as one number."""
_SPEED, _STATE, _NAME = 9, 6, 24
"""Cells of two columns, and those that a name needs: below, columns are joined, then the speed is left out."""
_HINTS = tuple((key.caps.split()[0], key.hint) for key in INTERFACE_KEYS if key.hint)


def interface_lines(interfaces: Sequence[InterfaceCounters], width: int, *, bits: bool = True) -> list[Strip]:
    """A header and a line for each, the fastest first; each line `width` cells wide."""
    columns: tuple[tuple[str, int], ...] = _COLUMNS
    speed, joined = _SPEED, False
    if _room(width, columns, speed) < _NAME:
        columns, joined = _JOINED, True
    if _room(width, columns, speed) < _NAME:
        speed = 0
    room = max(_room(width, columns, speed), 12)
    heads = "".join(f" {head:>{cells}}" for head, cells in columns)
    head = f"{'SPEED':>{speed}}" if speed else ""
    lines = [_line([(f" {'INTERFACE':<{room}} {'STATE':<{_STATE}}{head}{heads}", theme.HEADING)], width)]
    ordered = sorted(interfaces, key=lambda one: -((one.in_rate_bps or 0) + (one.out_rate_bps or 0)))
    for one in ordered[:MOST]:
        name = f"{one.exporter}/{one.domain} {units.printable(one.name) or f'if{one.interface}'}"
        state, style = _state(one)
        cells: list[tuple[str, Style]] = [
            (f" {units.elide(name, room):<{room}} ", theme.PLAIN), (f"{state:<{_STATE}}", style)]
        if speed:
            cells.append((f"{_rate(one.speed_bps, True) if one.speed_bps else '':>{speed}}", theme.PLAIN))
        shown = _cells(one, bits, joined=joined)
        cells += [(f" {text:>{wide}}", theme.ALARM if fault and text not in ("0", "-") else theme.PLAIN)
                  for (text, fault), (_, wide) in zip(shown, columns, strict=True)]
        lines.append(_line(cells, width))
    if len(ordered) > MOST:
        lines.append(_line([(f" {len(ordered) - MOST:,} more", theme.LABEL)], width))
    return lines


def _room(width: int, columns: Sequence[tuple[str, int]], speed: int) -> int:
    """Cells that are left for the name."""
    return width - _STATE - speed - sum(cells + 1 for _, cells in columns) - 3


def _cells(one: InterfaceCounters, bits: bool, *, joined: bool) -> list[tuple[str, bool]]:
    """Text of each column after the speed, and whether it counts faults."""
    rates = [[(_rate(rate, bits), False), (_used(rate, one.speed_bps), False)]
             for rate in (one.in_rate_bps, one.out_rate_bps)]
    faults = (one.in_errors, one.in_discards), (one.out_errors, one.out_discards)
    if joined:
        known = [number for pair in faults for number in pair if number is not None]
        return [*rates[0], *rates[1], (_count(sum(known) if known else None), True)]
    return [cell for way, pair in zip(rates, faults, strict=True)
            for cell in (*way, *((_count(number), True) for number in pair))]


def _state(one: InterfaceCounters) -> tuple[str, Style]:
    if not one.admin_up:
        return "off", theme.LABEL
    return ("up", theme.GOOD) if one.oper_up else ("down", theme.ALARM)


def _rate(bits_per_s: float | None, bits: bool) -> str:
    return "-" if bits_per_s is None else " ".join(units.rate(bits_per_s / 8, bits).split())


def _used(bits_per_s: float | None, speed_bps: int) -> str:
    return "-" if bits_per_s is None or not speed_bps else f"{min(100 * bits_per_s / speed_bps, 999):.0f} %"


def _count(number: int | None) -> str:
    return "-" if number is None else units.count(number).strip()


def _line(parts: Sequence[tuple[str, Style]], width: int) -> Strip:
    return Strip([Segment(text, style) for text, style in parts]).adjust_cell_length(width)


class InterfacesScreen(ModalScreen[None]):
    """The interfaces of all agents, kept up to date.

    Args:
        interfaces: gives their newest counters.
        bits: rates in bits; False: in bytes.
    """

    AUTO_FOCUS = None
    CSS = scrolling_frame("InterfacesScreen", 120)
    BINDINGS: ClassVar[list[BindingType]] = bindings(INTERFACE_KEYS)

    def __init__(self, interfaces: Callable[[], tuple[InterfaceCounters, ...]], *, bits: bool = True) -> None:
        super().__init__()
        self._interfaces = interfaces
        self._bits = bits
        self._lines = Lines(self._make)

    def compose(self) -> ComposeResult:
        """A box of lines."""
        with ScrollingBox() as box:
            box.border_title = "interfaces, as their agents count"
            yield self._lines

    def on_mount(self) -> None:
        """Keep it up to date."""
        self.set_interval(_REFRESH_S, self._lines.again)

    def action_scroll(self, lines: int) -> None:
        """Scroll by lines."""
        for box in self.query(VerticalScroll):
            box.scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        """Scroll by pages."""
        for box in self.query(VerticalScroll):
            box.scroll_relative(y=pages * (box.size.height - 1), animate=False)

    def action_close(self) -> None:
        """Back to the list, once."""
        if self.is_current:
            self.dismiss()

    def _make(self, width: int) -> list[Strip]:
        hints = [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL) for cap, hint in _HINTS]
        interfaces = self._interfaces()
        lines = (interface_lines(interfaces, width, bits=self._bits) if interfaces else
                 [_line([(f" {text}", theme.PLAIN)], width) for text in EMPTY])
        return [*lines, justify(hints, [], width)]
