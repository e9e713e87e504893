"""Details of a flow: everything known of it, live, also after it has ended and left the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.strip import Strip

from flowtop.export.exports import Export
from flowtop.export.statistics import ExportState
from flowtop.fields.columns import Wording
from flowtop.fields.field import Detail
from flowtop.fields.registry import COLUMNS, DETAILS
from flowtop.model.exporters import exporter_of
from flowtop.model.kinds import UNKNOWN_DIRECTION, Direction, EndReason, Kind, RecordBits, Tunnel
from flowtop.model.rows import FlowRow
from flowtop.query.query import Details, Page
from flowtop.text import units
from flowtop.text.lookups import Lookups
from flowtop.text.names import NUMBERS
from flowtop.tui import theme
from flowtop.tui.keys import DETAIL_KEYS, bindings
from flowtop.tui.line import Part, justify
from flowtop.tui.panels.frame import ScrollingBox, scrolling_frame, wrapped
from flowtop.tui.state.exports import STATES
from flowtop.tui.widgets.chart import BRAILLE, Glyphs, chart_lines
from flowtop.tui.widgets.header import sparkline
from flowtop.tui.widgets.lines import Lines


def flags_over_time(details: Details) -> str:
    """`S . by 0:01, P by 0:03, F by 2:31`: after the first packet. Bits from before flags were recorded: `earlier`.
    Empty when there are none."""
    noted = 0
    for _, bits in details.flags:
        noted |= bits
    before = units.tcp_flags(details.row.tcp_control_bits & ~noted)
    steps = [f"{before} earlier"] if before else []
    steps += [f"{units.tcp_flags(bits)} by {units.duration(max(0, at_ms - details.row.start_ms) / 1000)}"
              for at_ms, bits in details.flags if units.tcp_flags(bits)]
    return ", ".join(steps)


def flag_marks(details: Details, now_ms: int, cells: int) -> str:
    """A line of letters for a sparkline: each marks the time when a TCP flag was first seen. When a place is taken, the
    letter is at the next one. Flags seen before the sparkline begins are omitted."""
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


ENDINGS: dict[int, str] = {
    EndReason.IDLE_TIMEOUT: "ended: no packet for the idle timeout",
    EndReason.ACTIVE_TIMEOUT: "ended: active timeout",
    EndReason.END_OF_FLOW: "ended: FIN or RST was seen",
    EndReason.FORCED_END: "ended: flowtop was stopped",
    EndReason.LACK_OF_RESOURCES: "ended early: the flow table was full",
}
"""How a flow ended, by flowEndReason (IE 136)."""
REASONS: dict[int, str] = {
    EndReason.IDLE_TIMEOUT: "idle timeout",
    EndReason.ACTIVE_TIMEOUT: "active timeout",
    EndReason.END_OF_FLOW: "end of flow",
    EndReason.FORCED_END: "forced end",
    EndReason.LACK_OF_RESOURCES: "lack of resources",
}
"""Why a record was made."""
MOST_EXPORTS = 8
"""Exports with a line each."""
CHART_ROWS, CHART_S = 4, 120.0
"""As far as the table remembers a flow's rates."""
CHART_FROM = 36
"""Lines of a terminal from which on the chart has room below all the others."""
_LABEL = 14
_WAY = 31


@dataclass(frozen=True, slots=True)
class DetailsContext:
    """What the details are shown with: their page, the wording of cells, local time, characters of sparklines and
    charts, and the exports of this run."""

    page: Page
    wording: Wording
    local: Callable[[float], time.struct_time]
    sparks: str = theme.SPARKS
    glyphs: Glyphs = BRAILLE
    exports: tuple[Export, ...] = ()
    list_ms: int | None = None
    """The time of the list when it is paused; details stay live."""

    @property
    def lookups(self) -> Lookups:
        """Names of interfaces, and the like."""
        return self.page.lookups

    def cell(self, column_id: str, row: FlowRow, *, numbers: bool = False) -> str:
        """A cell of the list, as text without padding."""
        wording = replace(self.wording, names=NUMBERS) if numbers else self.wording
        return COLUMNS[column_id].text(row, wording, self.lookups).strip()

    def rate(self, octets_per_s: float) -> str:
        """`82.1 Mb/s`."""
        return _words(units.rate(octets_per_s, self.wording.bits))

    def at(self, unix_ms: int) -> str:
        """A time of day with its date, local."""
        return time.strftime("%Y-%m-%d %H:%M:%S", self.local(unix_ms / 1000)) + f".{unix_ms % 1000:03}"

    def ago(self, unix_ms: int) -> str:
        """How long before the page that was."""
        return f"{units.duration((self.page.unix_ms - unix_ms) / 1000)} ago"


def title(row: FlowRow, context: DetailsContext) -> str:
    """`tcp 10.0.0.5:51514 → 198.51.100.7:443`."""
    source, destination = (context.cell(side, row, numbers=True) for side in ("source", "destination"))
    return f"{context.cell('protocol', row)}  {source} → {destination}"


def detail_lines(details: Details, context: DetailsContext, width: int) -> list[Strip]:
    """All of it, each line `width` cells wide; texts that have no room in one line continue in the next."""
    room = max(1, width - _LABEL - 2)
    return [_line(label if not number else "", line, width)
            for label, text in _entries(details, context, room)
            for number, line in enumerate([text] if len(text) <= room else wrapped(text, room))]


def _entries(details: Details, context: DetailsContext, room: int) -> Iterator[tuple[str, str]]:
    row = details.row
    yield "state", _state(details)
    if details.gone:
        yield "", "left the table: this is what was known last" if details.then_ms is None else (
            f"left the table since: as it was at {context.at(details.then_ms)}")
    elif context.list_ms is not None:
        shown = time.strftime("%H:%M:%S", context.local(context.list_ms / 1000))
        yield "", f"this is of now; the list is of {shown}"
    for side, mac, missing in (("source", row.source_mac, RecordBits.NO_SOURCE_MAC),
                               ("destination", row.destination_mac, RecordBits.NO_DESTINATION_MAC)):
        named, number = context.cell(side, row), context.cell(side, row, numbers=True)
        address = "not reported" if row.record_bits & missing else units.mac(mac)
        yield side, f"{number}{f'  ({named})' if named != number else ''}  mac {address}"
    yield from ((label, text) for label, text, _ in _of_fields(row, context, of_way=False) if text)
    if row.tunnel:
        decrypted = row.tunnel == Tunnel.IPSEC
        yield "decrypted from" if decrypted else "carries" if row.kind == Kind.PARENT else "carried in", _tunnel(row)
    yield "first packet", f"{context.at(row.start_ms)}  {context.ago(row.start_ms)}"
    yield "last packet", f"{context.at(row.end_ms)}  {context.ago(row.end_ms)}, lasted {units.duration(row.age_s)}"
    if details.then_ms is None:
        yield from _over_time(details, context, room)
    else:
        yield "", ""
    yield from _both_ways(details, context, room)
    yield "seen at", _point(row, context)
    if details.other_ifindex:
        yield "", _other_interface(details, context)
    for point in details.points:
        yield "", _point(point, context)
    if details.then_ms is None:
        yield from _reported(details, context)
    yield from ((label, text) for label, text, _ in _of_fields(row, context, of_way=False, at_end=True) if text)


def _over_time(details: Details, context: DetailsContext, room: int) -> Iterator[tuple[str, str]]:
    seen = flags_over_time(details)
    yield ("flags seen", seen) if seen else ("", "")
    rates = _squeezed(details.rates, max(room, 8))
    yield "rate", sparkline(rates, len(rates), context.sparks)
    marks = flag_marks(details, context.page.unix_ms, len(rates))
    if marks:
        yield "flags", marks
    high = max([*details.rates, details.row.octet_rate])
    yield "", f"last {units.duration(details.rates_s)}  peak of these {context.rate(high)}"
    if not marks:
        yield "", ""


def history_lines(details: Details, context: DetailsContext, width: int) -> list[Strip]:
    """What came in and went out with the flow and its answers; nothing where that is not known."""
    if details.history is None or not details.history.ends_ms:
        return []
    chart = chart_lines(details.history, width, CHART_ROWS, now_ms=context.page.unix_ms, bits=context.wording.bits,
                        glyphs=context.glyphs, span_s=CHART_S)
    return [Strip.blank(width), *chart, Strip.blank(width)]


def _state(details: Details) -> str:
    row = details.row
    if row.end_reason:
        return ENDINGS.get(row.end_reason, "ended")
    state = "closing: FIN or RST was seen" if row.closing else "active"
    if row.kind == Kind.PARENT and row.tunnel == Tunnel.IPSEC:
        return f"{state}, decrypted by IPsec: its packets count in the flow that carried them"
    if row.kind == Kind.PARENT:
        return f"{state}, a tunnel: its packets count in the flows it carries"
    return f"{state}, duplicate: another interface's flow counts" if row.duplicate else state


def _tunnel(row: FlowRow) -> str:
    """`vxlan, vni 42`."""
    tunnel = Tunnel(row.tunnel)
    return f"{tunnel.label}, {tunnel.id_label} {row.tunnel_id}" if tunnel.id_label else tunnel.label


def _both_ways(details: Details, context: DetailsContext, room: int) -> Iterator[tuple[str, str]]:
    """Both directions side by side, or one below the other where there is no room for that."""
    back = details.reverse
    theirs = {label: text for label, text, _ in _of_fields(back, context, of_way=True)} if back else {}
    lines = [(label, ours, theirs.get(label, "")) for label, ours, optional in _of_fields(
        details.row, context, of_way=True) if ours or theirs.get(label) or not optional]
    heads = "this direction", "reverse direction" if back else "no packets in reverse"
    left = max(min(_WAY, room // 2), 2 + max(len(ours) for _, ours, _ in lines))
    if left + max(len(text) for text in (heads[1], *theirs.values())) <= room:
        yield "", f"{heads[0]:<{left}}{heads[1]}"
        for label, ours, answer in lines:
            yield label, f"{ours or '-':<{left}}{answer or '-' if back else ''}".rstrip()
        return
    yield "", heads[0]
    yield from ((label, ours or "-") for label, ours, _ in lines)
    yield "", heads[1]
    if back:
        yield from ((label, answer or "-") for label, _, answer in lines)


def _of_fields(row: FlowRow, context: DetailsContext, *, of_way: bool,
               at_end: bool = False) -> list[tuple[str, str, bool]]:
    """Lines of the registry's fields: label, text, and whether the line may be omitted."""
    lines: dict[str, list[Detail]] = {}
    for detail in DETAILS.values():
        if detail.of_way == of_way and detail.at_end == at_end:
            lines.setdefault(detail.line, []).append(detail)
    return [(label, line[0].joint.join(filter(None, (detail.text(row, context) for detail in line))), line[0].optional)
            for label, line in lines.items()]


def _words(text: str) -> str:
    """Without the spaces that align units in columns."""
    return " ".join(text.split())


def _point(row: FlowRow, context: DetailsContext) -> str:
    name, arrow = context.cell("interface", row), context.cell("direction", row)
    exporter = exporter_of(context.lookups.interfaces.get(row.ifindex, ""))
    if exporter is not None:
        arrow = "direction not reported" if row.direction == UNKNOWN_DIRECTION else arrow
        name = name if exporter.interface else "interface not reported"
        name = f"{exporter.address} domain {exporter.domain}  {name}"
    return f"{name} {arrow}  {units.things(row.packet_total, 'packet')}{'  duplicate' if row.duplicate else ''}"


def _other_interface(details: Details, context: DetailsContext) -> str:
    """An exporter reports where packets came in and where they left; one of them is the Observation Point."""
    name = context.cell("interface", details.row._replace(ifindex=details.other_ifindex))
    return f"{'came in by' if details.row.direction == Direction.EGRESS else 'left by'} {name}"


def _reported(details: Details, context: DetailsContext) -> Iterator[tuple[str, str]]:
    """Records are made whether an export takes them or not; no export reports which records it has sent."""
    row = details.row
    text = f"{details.reported_packets:,} of {units.things(row.packet_total, 'packet')}"
    words = []
    if details.reported_ms is not None:
        text += f" in {units.things(details.records, 'record')}, last {context.ago(details.reported_ms)}"
        words.append(f"last: {REASONS.get(row.end_reason or EndReason.ACTIVE_TIMEOUT, '')}")
    if details.due_ms is not None and not details.gone:
        words.append(f"next in {units.duration((details.due_ms - context.page.unix_ms) / 1000)}")
    running = [export for export in context.exports if export.statistics.state is not ExportState.STOPPED]
    if not running:
        words.append("no export is running")
    yield "reported", text
    yield "", "; ".join(words)
    for export in running[:MOST_EXPORTS]:
        yield f"export {export.number}", _export(export, details, context)
    if len(running) > MOST_EXPORTS:
        yield "", f"{units.things(len(running) - MOST_EXPORTS, 'more export')}: e shows them"


def _export(export: Export, details: Details, context: DetailsContext) -> str:
    """State of an export, and whether it takes this flow."""
    statistics, words = export.statistics, STATES[export.statistics.state]
    if details.record is None:
        verdict = ""
    elif export.takes(details.record, context.lookups):
        verdict = "has this flow, " if details.row.end_reason else "takes this flow, "
    else:
        verdict = "excludes this flow, "
    waiting = statistics.queued_records + statistics.spooled_records
    backlog = "1 record waits" if waiting == 1 else f"{waiting:,} records wait" if waiting else "none wait"
    return f"{words.glyph} {words.word}, {verdict}{backlog}  {units.printable(statistics.url, 200)}"


def _squeezed(rates: Sequence[float], room: int) -> list[float]:
    """At most `room` values, each the highest of as many as it takes: no burst is lost."""
    step = max(1, -(-len(rates) // room))
    return [max(rates[at:at + step]) for at in range(0, len(rates), step)]


def _line(label: str, text: str, width: int) -> Strip:
    segments = [Segment(f" {label:<{_LABEL}}", theme.LABEL), Segment(text)]
    return Strip(segments).adjust_cell_length(width)


_HINTS = tuple((key.caps.split()[0], key.hint) for key in DETAIL_KEYS if key.hint)


class DetailsScreen(ModalScreen[None]):
    """One flow.

    Args:
        step: moves the cursor of the list down by a number of lines, and shows that flow.
        hand_off: offers to hand off the flow.
    """

    AUTO_FOCUS = None
    CSS = scrolling_frame("DetailsScreen", 100)
    BINDINGS: ClassVar[list[BindingType]] = bindings(DETAIL_KEYS)

    def __init__(self, step: Callable[[int], None], hand_off: Callable[[], None]) -> None:
        super().__init__()
        self._step = step
        self._hand_off = hand_off
        self._shown: tuple[Details, DetailsContext] | None = None
        self._lines = Lines(self._make)

    def compose(self) -> ComposeResult:
        """A box of lines."""
        with ScrollingBox() as box:
            yield self._lines
            self._head(box)

    def show(self, details: Details, context: DetailsContext) -> None:
        """Take newer details, or another flow's."""
        self._shown = details, context
        for box in self.query(VerticalScroll):
            self._head(box)
        self._lines.again()

    def _head(self, box: VerticalScroll) -> None:
        if self._shown is not None:
            details, context = self._shown
            box.border_title = title(details.row, context).replace("[", "\\[")

    def action_step(self, lines: int) -> None:
        """The flow above, or below."""
        self._step(lines)

    def action_scroll(self, pages: int) -> None:
        """Scroll by pages."""
        for box in self.query(VerticalScroll):
            box.scroll_relative(y=pages * (box.size.height - 1), animate=False)

    def action_hand_off(self) -> None:
        """Hand off the flow."""
        self._hand_off()

    def action_close(self) -> None:
        """Back to the list, once."""
        if self.is_current:
            self.dismiss()

    def _make(self, width: int) -> list[Strip]:
        hints = [Part(hint, label=f"{cap} ", label_style=theme.KEY_CAP, style=theme.LABEL) for cap, hint in _HINTS]
        lines = [] if self._shown is None else detail_lines(*self._shown, width)
        chart = () if self._shown is None or self.app.size.height < CHART_FROM else history_lines(*self._shown, width)
        return [*lines, *chart, justify(hints, [], width)]
