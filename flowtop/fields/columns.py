"""What a column of the list is, and how values are put into words. The columns themselves are in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from flowtop.fields.cell_terms import TermOf
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import UNKNOWN_DIRECTION, Direction
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.lookups import Lookups, Texts
from flowtop.text.names import NUMBERS, Names

Window = Literal["tick", "10s", "60s"]


ARROWS = {Direction.INGRESS: "←", Direction.EGRESS: "→", UNKNOWN_DIRECTION: "-"}


@dataclass(frozen=True, slots=True)
class Wording:
    """How values are put: rates in bits (or octets), over which window the screen's first rate is, which names."""

    bits: bool = True
    window: Window = "tick"
    names: Names = NUMBERS


TextOf = Callable[[FlowRow, Wording, Lookups], str]
SortKey = Callable[[FlowColumns], Array]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        id: what `--sort` and Query.sort say.
        header: fits `width`.
        width: least cells; a flexible column grows past it.
        flexible: takes a share of the cells that are left.
        align: side on which the text stands.
        doc: one line for help and README.
        priority: 1 stays when the terminal is narrow, larger ones go first.
        text: row, wording and names -> text of printable single cells, any length.
        sort: numeric keys, most significant first, ascending; each gives one value a flow. A key is only asked for
            the flows that the keys before it leave tied.
        descending_first: the order that a first press gives.
        term: a filter after the cell of a row: one that this row passes; "": there is none.
        octet_rate: of columns that show a rate: octets/s of a row, which its colour tells the magnitude of.
        shortened: the text in so many cells; None: its middle gives way.
        texts: the only key of `sort` is a code, and the order is that of these texts. None: it is that of the keys.
        of_exporters: has something to show only where flows come from exporters.
        of_tunnels: likewise only where there have been flows in tunnels.
        rank: columns of lower rank stand before others, those of equal rank in the order of the registry.
    """

    id: str
    header: str
    width: int
    doc: str
    text: TextOf
    sort: tuple[SortKey, ...]
    priority: int
    term: TermOf
    align: Literal["left", "right"] = "left"
    flexible: bool = False
    descending_first: bool = False
    octet_rate: Callable[[FlowRow], float] | None = None
    shortened: Callable[[FlowRow, Names, int], str] | None = None
    texts: Texts | None = None
    of_exporters: bool = False
    of_tunnels: bool = False
    rank: int = 0

    def cell(self, row: FlowRow, wording: Wording, lookups: Lookups, width: int) -> str:
        """The text in exactly `width` cells: shortened when too long, else padded."""
        text = self.text(row, wording, lookups)
        if len(text) > width and self.shortened is not None:
            text = self.shortened(row, wording.names, width)
        text = units.elide(text, width)
        return text.rjust(width) if self.align == "right" else text.ljust(width)


def plain(name: str) -> SortKey:
    """The order of the flows' column of that name."""
    return lambda columns: columns[name]


def unfiltered(column: Column) -> Column:
    """The column of a sum of several flows: filters are for flows, and none of them has as much."""
    return replace(column, term=lambda _, __: "")


_RATES: dict[Window, str] = {"tick": "rate", "10s": "rate_10s", "60s": "rate_60s"}


def rate_column(window: Window) -> str:
    """Id of the column that shows (and sorts by) the rate over `window`."""
    return _RATES[window]
