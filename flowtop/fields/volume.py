"""Fields of volume and time: rates, octets, packets, age, idle time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields import make
from flowtop.fields.biflows import ways
from flowtop.fields.columns import Column, SortKey, Wording, plain, unfiltered
from flowtop.fields.field import Detail, Field, FilterKey, Member
from flowtop.model.flows import Array, FlowColumns, FlowSource
from flowtop.model.rows import FlowRow, Volume
from flowtop.text import quantities, units
from flowtop.text.lookups import Lookups

_SIZE = "a size such as 1500, 10M, 1Gi"
_RATE = "a rate such as 1Mbit, 500k, 10MB/s"
_COUNT = "a number such as 100, 10k, 1.5M"
_SPAN = "a time such as 5s, 500ms, 2m, 1h"


def _rate(field_id: str, header: str, doc: str, row_field: str, sort: tuple[str, ...], priority: int,
          span: Callable[[FlowSource], float], detail: Detail, key_doc: str = "") -> Field:
    def octet_rate(row: FlowRow) -> float:
        return getattr(row, row_field)  # type: ignore[no-any-return]

    order: tuple[SortKey, ...] = tuple(plain(name) for name in sort)
    column = Column(field_id, header, 10, doc, lambda row, wording, _: units.rate_cell(octet_rate(row), wording.bits),
                    order, priority, terms.about(field_id, octet_rate, "B/s"), "right", descending_first=True,
                    octet_rate=octet_rate)
    key = FilterKey(field_id, key_doc or doc, f"{field_id} >= 1Mbit", _RATE, quantities.rate,
                    lambda source: source.columns[sort[0]] / span(source), of_aggregates=True)
    return Field(field_id, doc, column=column, key=key, group_column=unfiltered(column), detail=detail)


def _with_ways(made: Field, priority: int, name: str, what: str, heads: tuple[str, str],
               text: Callable[[Volume, bool], str], octet_rate: Callable[[Volume], float] | None = None) -> Field:
    """The field with columns of groups and biflows: the sum, what came in, and what went out."""
    assert made.column is not None
    columns = ways(made.column, priority, name, what, heads, text, octet_rate)
    return made.but(biflow_columns=columns, group_ways=tuple(
        replace(column, priority=max(priority, 2), ranked=priority == 1) for column in columns[1:]))


def _rate_ways(made: Field, priority: int, name: str, what: str, row_field: str, window: str = "") -> Field:
    def octet_rate(volume: Volume) -> float:
        return getattr(volume, row_field)  # type: ignore[no-any-return]

    return _with_ways(made, priority, name, what, (f"IN{window}", f"OUT{window}"),
                      lambda volume, bits: units.rate_cell(octet_rate(volume), bits), octet_rate)


BAR = "█▉▊▋▌▍▎▏"
"""Eighths of a cell, from whole to one."""
PLAIN_BAR = "#"
_BAR_CELLS = 8


def bar(share: float, cells: int) -> str:
    """A bar of so many cells; what is more than nothing has at least an eighth."""
    eighths = min(8 * cells, -int(-share * 8 * cells // 1))
    return BAR[0] * (eighths // 8) + (BAR[8 - eighths % 8] if eighths % 8 else "")


def _share(window: str, number: int, name: str, what: str) -> Field:
    """The part of all listed traffic, as a bar and per cent."""
    field_id, doc = f"share{window}", f"Part of all that is listed, {what}."

    def text(row: FlowRow, _: Wording, __: Lookups) -> str:
        share = row.shares[number]
        per_cent = f"{100 * share:.0f} %" if share >= 0.005 or not share else "<1 %"
        return f"{bar(share, _BAR_CELLS):<{_BAR_CELLS}}{per_cent:>6}"

    header = f"SHARE{window.replace('_', ' ')}"
    column = Column(field_id, header, _BAR_CELLS + 6, doc, text, (plain(name),), 4 + 3 * number, lambda _, __: "",
                    descending_first=True)
    return Field(field_id, doc, group_column=column)


# Flows with no rate in this tick are sorted by their rate over 10 s: one that has just stopped stays in view.
_TICK = _rate("rate", "RATE", "Rate over the last tick (IP octets).", "octet_rate", ("octet_delta", "octets_10s"), 1,
              lambda source: source.tick_s,
              Detail("rate", lambda row, formatter: formatter.rate(row.octet_rate), rank=0),
              "Rate over the last tick; in bits per second unless a value says bytes.")
_10S = _rate("rate_10s", "10 s", "Rate over the last 10 s.", "octet_rate_10s", ("octets_10s",), 3,
             lambda source: source.window_10s_s,
             Detail("10 s, 60 s", lambda row, formatter: formatter.rate(row.octet_rate_10s), joint=", ", rank=1))
_60S = _rate("rate_60s", "60 s", "Rate over the last 60 s.", "octet_rate_60s", ("octets_60s",), 5,
             lambda source: source.window_60s_s,
             Detail("10 s, 60 s", lambda row, formatter: formatter.rate(row.octet_rate_60s), rank=1))
_PEAK = _rate("peak", "PEAK", "Highest rate of any tick so far.", "octet_rate_peak", ("octet_rate_peak",), 6,
              lambda _: 1.0, Detail("peak", lambda row, formatter: formatter.rate(row.octet_rate_peak), rank=2))

_PPS_COLUMN = Column("pps", "PPS", 6, "Wire packets per second over the last tick.",
                     lambda row, _, __: units.count_cell(row.packet_rate), (plain("packet_delta"),), 6,
                     terms.about("pps", lambda row: row.packet_rate), "right", descending_first=True)
_PPS = Field(
    "pps", _PPS_COLUMN.doc, column=_PPS_COLUMN, group_column=unfiltered(_PPS_COLUMN),
    key=FilterKey("pps", "Packets per second over the last tick.", "pps > 1000", _COUNT, quantities.count,
                  lambda source: source.columns["packet_delta"] / source.tick_s, of_aggregates=True),
    detail=Detail("packets", lambda row, _: f"{units.packet_rate(row.packet_rate).strip()}/s", rank=5))

OF_GROUPS = "the flows that are kept; of all interfaces since the start."
"""What groups add up: `GroupField.passed` has the latter."""

_BYTES_COLUMN = Column("bytes", "BYTES", 8, "IP octets over the flow's life.",
                       lambda row, _, __: units.octets_cell(row.octet_total), (plain("octet_total"),), 1,
                       terms.at_least("bytes", lambda row: row.octet_total), "right", descending_first=True)
_BYTES = Field(
    "bytes", _BYTES_COLUMN.doc, column=_BYTES_COLUMN,
    group_column=replace(unfiltered(_BYTES_COLUMN), doc=f"IP octets of {OF_GROUPS}"),
    key=FilterKey(
        "bytes", "IP octets over the flow's life; for exported records: since the previous record.", "bytes > 10M",
        _SIZE, quantities.octets, lambda source: source.columns["octet_total"], lambda records: records["octet_delta"],
        of_aggregates=True),
    members=(Member("octetDeltaCount", lambda flow, _: flow.octet_delta, of_groups=True, both_ways=True, rank=23),
             Member("octetTotalCount", lambda flow, _: flow.octet_total, of_groups=True, both_ways=True, rank=25)),
    detail=Detail("bytes", lambda row, _: f"{row.octet_total:,}", joint=", ", rank=3))

_PACKETS_COLUMN = Column("packets", "PKTS", 6, "Wire packets over the flow's life.",
                         lambda row, _, __: units.count_cell(row.packet_total), (plain("packet_total"),), 2,
                         terms.at_least("packets", lambda row: row.packet_total), "right", descending_first=True)
_PACKETS = Field(
    "packets", _PACKETS_COLUMN.doc, column=_PACKETS_COLUMN,
    group_column=replace(unfiltered(_PACKETS_COLUMN), doc=f"Wire packets of {OF_GROUPS}"),
    key=FilterKey(
        "packets", "Wire packets over the flow's life; for exported records: since the previous record.", "packets = 1",
        _COUNT, quantities.count, lambda source: source.columns["packet_total"],
        lambda records: records["packet_delta"], of_aggregates=True),
    members=(Member("packetDeltaCount", lambda flow, _: flow.packet_delta, of_groups=True, both_ways=True, rank=24),
             Member("packetTotalCount", lambda flow, _: flow.packet_total, of_groups=True, both_ways=True, rank=26)),
    detail=Detail("packets", lambda row, _: f"{row.packet_total:,}", joint=", ", rank=4))


def _age(columns: FlowColumns) -> Array:
    return columns["last_ns"] - columns["first_ns"]


_AGE_COLUMN = Column("age", "AGE", 7, "Time from first to last packet.", lambda row, _, __: units.duration(row.age_s),
                     (_age,), 4, terms.at_least("age", lambda row: row.age_s, "s"), "right", descending_first=True)
_AGE = Field(
    "age", _AGE_COLUMN.doc, column=_AGE_COLUMN, biflow_columns=(unfiltered(_AGE_COLUMN),),
    group_column=replace(unfiltered(_AGE_COLUMN), rank=2),
    key=FilterKey(
        "age", "Time from first to last packet.", "age < 5s", _SPAN, quantities.seconds,
        lambda source: _age(source.columns) / 1e9,
        lambda records: (records["end_ms"].astype(np.int64) - records["start_ms"].astype(np.int64)) / 1e3,
        of_aggregates=True),
    members=(Member("flowStartMilliseconds", lambda flow, _: flow.start_ms, of_groups=True, both_ways=True, rank=21),
             Member("flowEndMilliseconds", lambda flow, _: flow.end_ms, of_groups=True, both_ways=True, rank=22)))


def _mean_size(octets: Array, packets: Array) -> Array:
    """Octets per packet, rounded down; 0 without packets."""
    return np.where(packets > 0, octets // np.maximum(packets, np.uint64(1)), np.uint64(0))


_MEAN_SIZE = make.numeric(
    "size", "SIZE", "Average size of the packets, in IP octets.", json="meanPacketOctets",
    values=lambda source: _mean_size(source.columns["octet_total"], source.columns["packet_total"]),
    records=lambda records: _mean_size(records["octet_total"], records["packet_total"]), together="formula",
    text=str, width=5, priority=13, read=quantities.octets, expected=_SIZE, example="size < 100", of_aggregates=True,
).but(detail=Detail("bytes", lambda row, _: f"{row.more['size']} a packet" if row.more.get("size") else ""))

_IDLE = Field(
    "idle", "Time since the last packet.",
    key=FilterKey("idle", "Time since the last packet.", "idle > 10s", _SPAN, quantities.seconds,
                  lambda source: (source.now_ns - source.columns["last_ns"]) / 1e9, of_aggregates=True, rank=1))

_FLOWS_DOC = "Flows in the group; a flow seen at several interfaces counts once."
_FLOWS = Field(
    "flows", _FLOWS_DOC,
    group_column=Column("flows", "FLOWS", 5, _FLOWS_DOC, lambda row, _, __: units.count(row.flows), (plain("flows"),),
                        1, lambda _, __: "", "right", descending_first=True, rank=1))

def _fragments() -> Field:
    made = make.numeric(
        "fragments", "FRAGS", "Packets that are IP fragments: first and later ones; alone: any.",
        json="fragmentPackets", values=lambda source: source.columns["fragments"],
        records=lambda records: records["fragments"], together="sum", width=5, priority=14, zero_unknown=True,
        known=("live", "file"))
    assert made.column is not None and made.key is not None
    column = replace(made.column, on_request=True)
    return made.but(
        column=column, biflow_columns=(unfiltered(column),), group_column=unfiltered(column),
        key=replace(made.key, optional=True, flows=lambda source: source.columns["fragments"],
                    records=lambda records: records["fragments"]),
        detail=Detail("packets", lambda row, _: f"{row.more['fragments']:,} fragments"
                      if row.more.get("fragments") else "", rank=6))


FIELDS = (
    _rate_ways(_TICK, 1, "octet_delta", "Rate over the last tick,", "octet_rate"),
    _rate_ways(_10S, 6, "octets_10s", "Rate over the last 10 s,", "octet_rate_10s", " 10s"),
    _rate_ways(_60S, 7, "octets_60s", "Rate over the last 60 s,", "octet_rate_60s", " 60s"),
    _share("", 0, "octet_delta", "by rate"), _share("_10s", 1, "octets_10s", "by rate over 10 s"),
    _share("_60s", 2, "octets_60s", "by rate over 60 s"),
    _PEAK.but(group_column=None), _PPS,
    _with_ways(_BYTES, 2, "octet_total", "IP octets", ("BYTES IN", "BYTES OUT"),
               lambda volume, _: units.octets_cell(volume.octet_total)),
    _with_ways(_PACKETS, 4, "packet_total", "Wire packets", ("PKTS IN", "PKTS OUT"),
               lambda volume, _: units.count_cell(volume.packet_total)),
    _AGE, _IDLE, _FLOWS, _MEAN_SIZE, _fragments(),
)
