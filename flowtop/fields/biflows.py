"""The columns of biflows: each way beside the sum of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from flowtop.fields.columns import COLUMNS, Column, Wording, unfiltered
from flowtop.model.flows import FORWARD, REVERSE
from flowtop.model.rows import FlowRow
from flowtop.text import units

Text = Callable[[FlowRow, Wording], str]

WAYS = ("_forward", "_reverse")
"""What ids of columns of one way end in."""


def _way(row: FlowRow, *, forward: bool) -> FlowRow | None:
    if row.ways is None:
        return None
    return row.ways.forward if forward else row.ways.reverse


def _of_way(column_id: str, priority: int, text: Text, field: str, doc: str, *, forward: bool) -> Column:
    """The column beside the one of that id which shows one way alone; empty where that way was not seen."""
    of = COLUMNS[column_id]
    rate = of.octet_rate

    def cell(row: FlowRow, wording: Wording, _: Mapping[int, str]) -> str:
        way = _way(row, forward=forward)
        return "" if way is None else text(way, wording)

    def octet_rate(row: FlowRow) -> float:
        way = _way(row, forward=forward)
        return 0.0 if way is None or rate is None else rate(way)

    name = f"{FORWARD if forward else REVERSE}{field}"
    return replace(
        unfiltered(of), id=f"{column_id}{WAYS[not forward]}", key=None, doc=doc, text=cell,
        header=f"{of.header}{'→' if forward else '←'}", width=max(of.width, len(of.header) + 2), priority=priority,
        sort=(lambda columns: columns[name],), octet_rate=octet_rate if rate else None)


def _ways(column_id: str, priority: int, text: Text, field: str, what: str) -> tuple[Column, ...]:
    """The sum, then each way."""
    return (unfiltered(COLUMNS[column_id]),
            _of_way(column_id, priority, text, field, f"{what} from the initiator.", forward=True),
            _of_way(column_id, priority, text, field, f"{what} to the initiator.", forward=False))


def _rates(column_id: str, priority: int, field: str, what: str) -> tuple[Column, ...]:
    """The same of a rate."""
    rate = COLUMNS[column_id].octet_rate
    assert rate is not None
    return _ways(column_id, priority, lambda way, wording: units.rate_cell(rate(way), wording.bits), field, what)


def of_both(column_id: str) -> str:
    """The id of the column of both ways beside one of one way; any other id as it is."""
    return next((column_id.removesuffix(way) for way in WAYS if column_id.endswith(way)), column_id)


def _either_end(column_id: str) -> Column:
    """The column with a filter for both ways: what one way has as source, the other has as destination."""
    column = COLUMNS[column_id]

    def term(row: FlowRow, interfaces: Mapping[int, str]) -> str:
        return column.term(row, interfaces).replace("src ", "").replace("dst ", "")

    return replace(column, term=term)


_ALL = (
    replace(COLUMNS["interface"], priority=3),
    replace(unfiltered(COLUMNS["direction"]), priority=3),
    COLUMNS["exporter"], COLUMNS["domain"], COLUMNS["vlan"], COLUMNS["tunnel"], COLUMNS["vni"],
    COLUMNS["protocol"],
    _either_end("source"), _either_end("destination"),
    *_rates("rate", 1, "octet_delta", "Rate over the last tick,"),
    *_rates("rate_10s", 6, "octets_10s", "Rate over the last 10 s,"),
    *_rates("rate_60s", 7, "octets_60s", "Rate over the last 60 s,"),
    *_ways("bytes", 2, lambda way, _: units.octets_cell(way.octet_total), "octet_total", "IP octets"),
    *_ways("packets", 4, lambda way, _: units.count_cell(way.packet_total), "packet_total", "Wire packets"),
    unfiltered(COLUMNS["age"]),
    *(unfiltered(COLUMNS[column_id]) for column_id in ("rtt", "retransmits", "outoforder")), COLUMNS["state"],
)

BIFLOW_COLUMNS: dict[str, Column] = {column.id: column for column in _ALL}
"""Every column of biflows by id, in the order of the screen."""
