"""What a column of the list is, and how its values are formatted. The columns themselves are in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from flowtop.fields.cell_terms import TermOf, TermsOf
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import UNKNOWN_DIRECTION, Direction
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.lookups import Lookups, Texts
from flowtop.text.names import NUMBERS, Names

Window = Literal["tick", "10s", "60s"]
WINDOWS: tuple[Window, ...] = ("tick", "10s", "60s")


ARROWS = {Direction.INGRESS: "←", Direction.EGRESS: "→", UNKNOWN_DIRECTION: "-"}


@dataclass(frozen=True, slots=True)
class Wording:
    """How values are formatted.

    Attributes:
        bits: rates in bits, otherwise in octets.
        window: of the rate that the screen shows first.
        names: names of hosts and services to show.
    """

    bits: bool = True
    window: Window = "tick"
    names: Names = NUMBERS


TextOf = Callable[[FlowRow, Wording, Lookups], str]
SortKey = Callable[[FlowColumns], Array]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        id: the name in `--sort` and Query.sort.
        header: not longer than `width`.
        width: minimum width in cells; a flexible column may be wider.
        flexible: takes a share of the cells that are left.
        align: alignment of the text.
        doc: one line for help and README.
        priority: 1 is always shown; in a narrow terminal the columns with the largest numbers are left out first.
        text: row, wording and names -> printable text of any length, each character one cell wide.
        sort: numeric keys, most significant first, ascending; each gives one value for each flow. A key is computed
            only for the flows that are equal in the keys before it. Empty: nothing is sorted by it.
        descending_first: sorting by this column starts with the largest value.
        term: a filter made from the cell of a row, which the row matches; "": there is none.
        wider: filters that more flows match than `term`, each wider than the one before.
        octet_rate: for columns that show a rate: the rate of a row in octets/s; its magnitude sets the colour.
        severity: how much a value is out of the usual: an index of `theme.SEVERITIES`, which colours the cell; the text
            says it too. None: nothing is.
        shortened: gives the text in at most so many cells; None: the middle of the text is elided.
        texts: for a column whose only sort key is a code: rows are sorted by these texts. None: by the keys.
        of_exporters: shown only when flows come from exporters.
        of_tunnels: shown only when there were flows in tunnels.
        of_addresses: grows to the length of an IPv4 address where there is room.
        longest: grows to this many cells where there is room; 0: it does not grow.
        of_reports: shown only when a row had a value in `FlowRow.more` under the column's id.
        of_networks: the list is sorted by it only with databases of networks.
        on_request: shown only when the list is sorted by it, or it was chosen in the columns.
        ranked: its priority is that of a view: the window of rates does not change it.
        rank: columns of lower rank come first; those of equal rank are in the order of the registry.
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
    wider: TermsOf = lambda _, __: ()
    octet_rate: Callable[[FlowRow], float] | None = None
    severity: Callable[[FlowRow], int] | None = None
    shortened: Callable[[FlowRow, Names, int], str] | None = None
    texts: Texts | None = None
    of_exporters: bool = False
    of_tunnels: bool = False
    of_reports: bool = False
    of_addresses: bool = False
    longest: int = 0
    of_networks: bool = False
    on_request: bool = False
    ranked: bool = False
    rank: int = 0

    def cell(self, row: FlowRow, wording: Wording, lookups: Lookups, width: int) -> str:
        """The text in exactly `width` cells: shortened when too long, else padded."""
        text = self.text(row, wording, lookups)
        if len(text) > width and self.shortened is not None:
            text = self.shortened(row, wording.names, width)
        text = units.elide(text, width)
        return text.rjust(width) if self.align == "right" else text.ljust(width)


def plain(name: str) -> SortKey:
    """A sort key: the values of the column of flows with this name."""
    return lambda columns: columns[name]


def unfiltered(column: Column) -> Column:
    """The column without `term`, for sums of several flows: a filter compares single flows, not sums."""
    return replace(column, term=lambda _, __: "", wider=lambda _, __: ())


_RATES: dict[Window, str] = {"tick": "rate", "10s": "rate_10s", "60s": "rate_60s"}


def rate_column(window: Window) -> str:
    """Id of the column that shows (and sorts by) the rate over `window`."""
    return _RATES[window]
