"""The flow table: lines of cells, only those in view, and of those only what changed is painted.

A widget of the line API in two panes side by side: what names a flow at the left, what changes every tick at the
right. Only the cells that changed are sent (tui.painting). Textual's own scrolling (`ScrollView`) is not used: it
repaints a widget whole when its virtual size changes, and a flow table's does every tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from flowtop.fields.arrangement import AUTOMATIC, Arrangement
from flowtop.fields.columns import Column, Wording
from flowtop.fields.fitting import NO_DISTINCTIONS, Distinctions, fit
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.tui import theme
from flowtop.tui.painting import Span, merged

IDENTITY = "identity"
MARGIN = 1
"""Blank cells at the left edge."""


@dataclass(frozen=True, slots=True)
class TableView:
    """What the table shows.

    Attributes:
        rows: flows in view, in order; no more than the table has lines.
        top: rank of the first of them in the list of `total`.
        cursor: flow_id of the cursor's flow, or None.
        selected: flow_id of the row that keys act on while there is no cursor, or None; what names it is underlined.
        cell: id of the column whose cell of that flow is chosen; "" when none is.
        lookups: names of interfaces, and the like.
        attached: names of the interfaces observed now; their column is made for the longest.
        distinctions: what distinguishes the rows.
        sort, descending: for the arrow in the header.
        wording: units and names of the cells.
        columns: that there are, from left to right; not all have room.
        arrangement: of columns.
        needed: ids of columns that the list is filtered by: they are shown.
        linger_s: how long flows are listed after their end: they fade over this time.
    """

    wording: Wording
    rows: tuple[FlowRow, ...] = ()
    top: int = 0
    total: int = 0
    cursor: int | None = None
    selected: int | None = None
    cell: str = ""
    lookups: Lookups = NO_LOOKUPS
    attached: tuple[str, ...] = ()
    distinctions: Distinctions = NO_DISTINCTIONS
    sort: str = "rate"
    descending: bool = True
    columns: tuple[Column, ...] = ()
    arrangement: Arrangement = AUTOMATIC
    needed: frozenset[str] = frozenset()
    linger_s: float = 10.0


@dataclass(frozen=True, slots=True)
class _Line:
    """A painted line of a pane: its cells without gaps, each with its style, which the gap after it has too."""

    cells: tuple[str, ...]
    styles: tuple[Style, ...]


class _Pane(Widget):
    """Some columns of the table, or its scroll bar: strips by line, line 0 is the header."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self.columns: list[tuple[Column, int]] = []
        self.margin_left = 0
        self.notice = ""
        self._head: Strip = Strip([])
        self._lines: list[_Line | None] = []
        self._strips: dict[int, tuple[_Line, int, Strip]] = {}
        self._wording: Wording | None = None
        self._cells: dict[int, tuple[FlowRow, tuple[str, ...], tuple[Style, ...]]] = {}

    def render_lines(self, crop: Region) -> list[Strip]:
        """Lines of the pane. Textual's own way lays CSS styles over each line first, which costs more than all else."""
        width = self.size.width
        strips = [self._line(y, width) for y in crop.line_range]
        for line_filter in self.app.get_line_filters():
            strips = [strip.apply_filter(line_filter, self.app.styles.background) for strip in strips]
        first, last = crop.column_span
        return strips if (first, last) == (0, width) else [strip.crop(first, last) for strip in strips]

    def _line(self, y: int, width: int) -> Strip:
        """One line, header included."""
        if self.notice:
            text = self.notice if y == self.size.height // 2 else ""
            return Strip([Segment(text[:width].center(width))], width)
        if y == 0:
            return self._head.adjust_cell_length(width, theme.PLAIN)
        line = self._lines[y - 1] if y <= len(self._lines) else None
        if line is None or not line.cells:
            return Strip.blank(width)
        known = self._strips.get(y)
        if known is None or known[0] is not line or known[1] != width:
            known = self._strips[y] = line, width, Strip(_segments(line, self.margin_left, width), width)
        return known[2]

    def set_columns(self, columns: list[tuple[Column, int]], margin_left: int, notice: str = "") -> None:
        """Take other columns, or text in their place: everything is painted again."""
        self.columns, self.margin_left, self.notice = columns, margin_left, notice
        self._lines, self._strips, self._cells = [], {}, {}
        self.refresh()

    def set_head(self, head: Strip) -> None:
        """Take another header line."""
        if head != self._head:
            self._head = head
            self.refresh(Region(0, 0, self.size.width, 1))

    def show(self, rows: Sequence[FlowRow], view: TableView) -> None:
        """Take other flows; cells of a row that was shown already are not made again."""
        if view.wording != self._wording:
            self._wording, self._cells = view.wording, {}
        cells_by_id: dict[int, tuple[FlowRow, tuple[str, ...], tuple[Style, ...]]] = {}
        cursor = tuple(theme.CELL if column.id == view.cell else theme.CURSOR for column, _ in self.columns)
        lines: list[_Line | None] = []
        for row in rows:
            known = self._cells.get(row.flow_id)
            if known is None or known[0] is not row:
                cells = tuple(column.cell(row, view.wording, view.lookups, width) for column, width in self.columns)
                known = row, cells, self._styles(row, view)
            cells_by_id[row.flow_id] = known
            styles = cursor if row.flow_id == view.cursor else known[2]
            if row.flow_id == view.selected and self.id == IDENTITY:
                styles = tuple(style + theme.SELECTED for style in styles)
            lines.append(_Line(known[1], styles))
        self._cells = cells_by_id
        self.set_lines(lines)

    def _styles(self, row: FlowRow, view: TableView) -> tuple[Style, ...]:
        """Lines that stand out have one style; in others rates have the colour of their magnitude, and what is out of
        the usual that of its severity."""
        faded = _faded(row, view.linger_s)
        style = theme.FADED if faded == _ALL else theme.AGGREGATE if row.kind == Kind.AGGREGATE else theme.PLAIN
        if style is not theme.PLAIN:
            return (style,) * len(self.columns)
        if row.end_reason:
            return tuple(theme.FADED if faded and column.descending_first else style for column, _ in self.columns)
        return tuple(_style(column, row, view.wording.bits) for column, _ in self.columns)

    def set_lines(self, lines: list[_Line | None]) -> None:
        """Take other lines; paints of each the cells that changed."""
        width = self.size.width
        for y in range(max(len(lines), len(self._lines))):
            before = self._lines[y] if y < len(self._lines) else None
            after = lines[y] if y < len(lines) else None
            if before == after and before is not None:
                lines[y] = before  # the same object: it is painted as it was
            elif before != after:
                for start, end in self._changed(before, after, width):
                    self.refresh(Region(start, y + 1, end - start, 1))
        self._lines = lines

    def _changed(self, before: _Line | None, after: _Line | None, width: int) -> list[Span]:
        """Where two lines differ; a cell's gap has its style."""
        if before is None or after is None or len(before.cells) != len(after.cells):
            return [(0, width)]
        spans, at = list[Span](), self.margin_left
        for cell, style, old, style_before in zip(after.cells, after.styles, before.cells, before.styles, strict=True):
            if style != style_before:
                spans.append((at, at + len(cell) + 1))
            elif cell != old:
                spans.append((at, at + len(cell)))
            at += len(cell) + 1
        if after.styles and (after.styles[0] != before.styles[0] or after.styles[-1] != before.styles[-1]):
            spans = [(0, width)]  # the margins too
        return merged(spans)

    def column_at(self, x: int) -> str | None:
        """Id of the column at a cell of the header; the gap after a column counts to it."""
        edge = self.margin_left
        for column, width in self.columns:
            edge += width + 1
            if x < edge:
                return column.id
        return None


class FlowTable(Widget):
    """Header line and flows. Give it a `TableView`; it posts what was done with the mouse.

    Args:
        notice: text in the place of flows, before there are any.
    """

    DEFAULT_CSS = """
    FlowTable { layout: horizontal; height: 1fr; width: 1fr; }
    FlowTable > _Pane { height: 100%; width: 1fr; }
    FlowTable > #measures, FlowTable > #scroll { width: 0; }
    """

    class HeaderClicked(Message):
        """A column's header was clicked."""

        def __init__(self, column_id: str) -> None:
            super().__init__()
            self.column_id = column_id

    class LineClicked(Message):
        """A cell was clicked, with any button: line 0 is the first below the header; the id of the column."""

        def __init__(self, line: int, column_id: str) -> None:
            super().__init__()
            self.line = line
            self.column_id = column_id

    class DoubleClicked(Message):
        """The line of the click before this was clicked twice."""

    class RightClicked(Message):
        """The click before this was made with the right button."""

    class Wheeled(Message):
        """The wheel was turned: lines to scroll, positive is down."""

        def __init__(self, lines: int) -> None:
            super().__init__()
            self.lines = lines

    class Resized(Message):
        """The table has room for another number of lines."""

        def __init__(self, lines: int) -> None:
            super().__init__()
            self.lines = lines

    def __init__(self, notice: str) -> None:
        super().__init__()
        self._identity = _Pane(id=IDENTITY)
        self._identity.notice = notice
        self._measures = _Pane(id="measures")
        self._scroll = _Pane(id="scroll")

    def compose(self) -> ComposeResult:
        """The panes, from left to right."""
        yield self._identity
        yield self._measures
        yield self._scroll

    @property
    def lines(self) -> int:
        """Number of flows that fit."""
        return max(1, self.size.height - 1)

    @property
    def columns(self) -> list[Column]:
        """The columns on view, from left to right; empty before the first `show`."""
        return [column for column, _ in [*self._identity.columns, *self._measures.columns]]

    def widths(self) -> dict[str, int]:
        """Cells of each column on view, by id."""
        return {column.id: width for column, width in [*self._identity.columns, *self._measures.columns]}

    def show(self, view: TableView) -> None:
        """Paint what differs from the view before."""
        self._lay_out(view)
        rows = view.rows[: self.lines]
        for pane in (self._identity, self._measures):
            pane.set_head(_head(pane, view))
            pane.show(rows, view)
        self._scroll.set_lines(_scroll_bar(view.top, view.total, self.lines))

    def show_notice(self, notice: str) -> None:
        """Show text in the place of the flows, while there are none."""
        if notice != self._identity.notice:
            self._identity.set_columns([], 0, notice)
            self._measures.set_columns([], 0)
            self._measures.styles.width = self._scroll.styles.width = 0

    def _lay_out(self, view: TableView) -> None:
        chosen = fit(self.size.width - MARGIN - 1, view.wording.window, view.attached, view.sort,
                     columns=view.columns, arrangement=view.arrangement, distinctions=view.distinctions,
                     needed=view.needed)
        split = next((index for index, (column, _) in enumerate(chosen) if column.descending_first), 0) or len(chosen)
        identity, measures = chosen[:split], chosen[split:]
        used = MARGIN + sum(width + 1 for _, width in chosen)
        if (identity, measures) == (self._identity.columns, self._measures.columns):
            return
        self._identity.set_columns(identity, MARGIN)
        self._measures.set_columns(measures, 1)
        # What no column needs of a very wide line stays behind the last one.
        spare = max(0, self.size.width - 1 - used) if measures else 0
        self._measures.styles.width = sum(width + 1 for _, width in measures) + spare
        self._scroll.styles.width = 1

    def on_resize(self) -> None:
        """Post the new number of lines."""
        self.post_message(self.Resized(self.lines))

    def on_click(self, event: events.Click) -> None:
        """Header: sort. Line: cursor."""
        x, y = event.screen_x - self.region.x, event.screen_y - self.region.y
        left = self._identity.size.width
        column_id = self._identity.column_at(x) if x < left else self._measures.column_at(x - left)
        if y > 0:
            self.post_message(self.LineClicked(y - 1, column_id or ""))
            if event.button == _RIGHT:
                self.post_message(self.RightClicked())
            elif event.chain == _DOUBLE:
                self.post_message(self.DoubleClicked())
        elif column_id is not None:
            self.post_message(self.HeaderClicked(column_id))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll down."""
        event.stop()
        self.post_message(self.Wheeled(3))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll up."""
        event.stop()
        self.post_message(self.Wheeled(-3))


def _style(column: Column, row: FlowRow, bits: bool) -> Style:
    """Of a cell of a line that does not stand out."""
    if column.octet_rate is not None:
        return theme.MAGNITUDES[units.magnitude(column.octet_rate(row), bits)]
    return theme.PLAIN if column.severity is None else theme.SEVERITIES[column.severity(row)]


def _segments(line: _Line, margin_left: int, width: int) -> list[Segment]:
    """So many cells of a line. Cells of one style are one segment: each change of style costs octets on the way to the
    terminal. Every character is one cell (`units.printable`), so nothing has to be measured.
    """
    segments: list[Segment] = []
    text, style, room = " " * margin_left, line.styles[0], width
    for cell, own in zip(line.cells, line.styles, strict=True):
        if own is not style and own != style:
            segments.append(Segment(text[:room], style))
            room = max(0, room - len(text))
            text, style = "", own
        text += cell + " "
    segments.append(Segment(text[:room], style))
    if len(text) < room:
        segments.append(Segment(" " * (room - len(text)), style))
    return segments


_DOUBLE = 2
_RIGHT = 3
"""Textual's number of the right mouse button."""


_ALL = 2
"""All parts of a line are dim; 1: only those that change every tick; 0: none."""


def _faded(row: FlowRow, linger_s: float) -> int:
    """How much of a line is dim: of an ended flow more with each third of the time that it is listed. No shades of
    grey: on some terminals they are the background."""
    if not row.end_reason:
        return _ALL if row.duplicate or row.kind == Kind.PARENT else 0
    return min(_ALL, int((_ALL + 1) * row.ended_s / linger_s)) if linger_s > 0 else _ALL


def _head(pane: _Pane, view: TableView) -> Strip:
    """The header line of a pane. The arrow takes the gap after a header that fills its column."""
    segments = [Segment(" " * pane.margin_left)]
    for column, width in pane.columns:
        chosen = column.id == view.sort
        arrow = units.order_arrow(view.descending) if chosen else ""
        text = column.header + arrow
        room = max(width, len(text))
        text = text.rjust(room) if column.align == "right" else text.ljust(room)
        segments.append(Segment(text.ljust(width + 1), theme.SORTED if chosen else theme.HEADING))
    return Strip(Segment.simplify(segments))


def _scroll_bar(top: int, total: int, lines: int) -> list[_Line | None]:
    """The thumb of the scroll bar; nothing when all flows are in view."""
    if total <= lines:
        return []
    length = max(1, lines * lines // total)
    start = round((lines - length) * top / (total - lines))
    thumb, track = _Line((theme.THUMB,), (theme.LABEL,)), _Line((theme.TRACK,), (theme.PLAIN,))
    return [thumb if start <= line < start + length else track for line in range(lines)]
