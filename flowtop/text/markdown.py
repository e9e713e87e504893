"""Markdown laid out for a terminal. Brings rich: import it when there is something to show."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

_WIDEST = 110
"""Cells of a line at most: longer lines are hard to read."""
_STYLES = {"markdown.code": "bold", "markdown.h1": "bold", "markdown.h2": "bold underline", "markdown.h3": "bold",
           "markdown.item.bullet": "bold", "markdown.table.header": "bold underline", "markdown.link": "underline",
           "markdown.link_url": "underline"}
"""No colours: dark and light terminals show these."""
_SHARE = 0.6
"""Of a line, for a table's columns but the longest; with more of them, rows become paragraphs."""


def rendered(markdown: str, width: int, *, styles: bool = True) -> str:
    """Markdown laid out for a terminal, ended by a newline.

    Args:
        width: cells of the terminal; lines are shorter where it is very wide.
        styles: with ANSI sequences: bold, underline, dim. Otherwise plain text.
    """
    out = io.StringIO()
    console = Console(file=out, width=min(width, _WIDEST), force_terminal=styles, no_color=True, legacy_windows=False,
                      color_system="standard" if styles else None, theme=Theme(_STYLES), highlight=False)
    console.print(_Page(markdown, hyperlinks=False))
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


class _LeftHeading(Heading):
    """Not in the middle of the line."""

    LEVEL_ALIGN: ClassVar = {}


class _PlainCode(CodeBlock):
    """Code as it is, a little to the right."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        yield Padding(Text(str(self.text).rstrip()), (0, 0, 0, 2))


class _FittingTable(TableElement):
    """A table whose short columns are not wrapped; where these leave no room for the longest, a paragraph a row."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        header = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in self.body.rows] if self.body else []
        widths = [max(cell.cell_len for cell in column) for column in zip(header, *rows, strict=True)]
        longest = widths.index(max(widths))
        if sum(widths) - widths[longest] + 2 * len(widths) <= options.max_width * _SHARE:
            yield _grid(header, rows, longest)
        else:
            yield from _paragraphs(header, rows, longest)


def _grid(header: Sequence[Text], rows: Sequence[Sequence[Text]], longest: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for at in range(len(header)):
        grid.add_column(no_wrap=at != longest)
    grid.add_row(*(Text(text.plain, "markdown.table.header") for text in header))
    for row in rows:
        grid.add_row(*row)
    return grid


def _paragraphs(header: Sequence[Text], rows: Sequence[Sequence[Text]], longest: int) -> Iterator[Text | Padding]:
    """Of each row: the first cell, then the longest, then what the others are and say."""
    for row in rows:
        yield row[0]
        others = [Text.assemble((f"{header[at].plain}: ", "dim"), cell)
                  for at, cell in enumerate(row) if at not in (0, longest) and cell.plain]
        if longest and row[longest].plain:
            yield Padding(row[longest], (0, 0, 0, 4))
        if others:
            yield Padding(Text("; ").join(others), (0, 0, 0, 4))


class _Page(Markdown):
    """Markdown with these elements."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = Markdown.elements | {
        "heading_open": _LeftHeading, "fence": _PlainCode, "code_block": _PlainCode, "table_open": _FittingTable}
