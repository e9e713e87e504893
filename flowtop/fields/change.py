"""Fields of what changed: the rate of now against that of before, in words, and how long ago a flow began."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields import make
from flowtop.fields.columns import Column, Wording, unfiltered
from flowtop.fields.field import Detail, Field, FilterKey
from flowtop.model.flows import Array, FlowColumns, FlowSource
from flowtop.model.rows import FlowRow
from flowtop.text import quantities, units
from flowtop.text.lookups import Lookups, Texts

NEW_S = 60.0
"""A flow is new for so long after its first packet."""
TURN = 0.1
"""A rate has grown or shrunk when it differs by this part of the one before."""
SHRANK, GREW, GONE, LEFT, APPEARED = 1, 2, 3, 4, 5
"""Gone: nothing comes any more; left: and it is no longer in the table either."""
TRENDS = {APPEARED: "appeared", GONE: "gone", LEFT: "gone", GREW: "grew", SHRANK: "shrank"}
_HEADER = "Δ"


def _rates(source: FlowSource) -> tuple[Array, Array]:
    """Octets/s over the last 10 s, and of before: at the moment of comparison, else over the last 60 s."""
    columns = source.columns
    now = columns["octets_10s"] / source.window_10s_s
    if source.then_ns is not None:
        return now, columns["octets_then"] / source.window_10s_s
    return now, columns["octets_60s"] / source.window_60s_s


def _change(source: FlowSource) -> Array:
    """Octets/s, rounded; negative: it shrank."""
    now, before = _rates(source)
    difference: Array = np.rint(now - before).astype(np.int64)
    return difference


def _trend(source: FlowSource) -> Array:
    """Codes of TRENDS; 0: about as before, or nothing at all."""
    now, before = _rates(source)
    since_ns = source.now_ns - int(NEW_S * 1e9) if source.then_ns is None else source.then_ns
    began = source.columns["first_ns"] > since_ns
    codes = np.zeros(len(now), np.uint8)
    codes[now > before * (1 + TURN)] = GREW
    codes[now < before * (1 - TURN)] = SHRANK
    codes[began & (now > 0) & ((before == 0) | (source.then_ns is None))] = APPEARED
    codes[(now == 0) & (before > 0)] = GONE
    if source.then_ns is not None:
        codes[source.columns["left"].astype(np.bool_, copy=False)] = LEFT
    return codes


def _signed(octets_per_s: int, bits: bool) -> str:
    """`+1.2 Mb/s`; its sign stands before the padding, so that figures line up."""
    if not octets_per_s:
        return ""
    return f"{'+' if octets_per_s > 0 else '−'}{units.rate_cell(abs(octets_per_s), bits).strip()}"


_CHANGE_DOC = ("What changed: the rate over 10 s less that over 60 s; while comparing (d), less that of then. Sorted "
               "by how much, either way.")


def _change_field() -> Field:
    made = make.numeric(
        "change", _HEADER, _CHANGE_DOC, json="octetRateChange", values=_change, records=None, together="formula",
        width=11, priority=8, of_aggregates=True)
    assert made.column is not None and made.key is not None

    def text(row: FlowRow, wording: Wording, _: Lookups) -> str:
        return _signed(int(row.more.get("change", 0)), wording.bits)

    column = replace(
        made.column, text=text, sort=(lambda columns: np.abs(columns["change"]),), on_request=True,
        term=terms.about("change", lambda row: abs(row.more.get("change", 0)), "B/s"))
    key = FilterKey(
        "change",
        "Difference of the rate over 10 s from that over 60 s, either way; while comparing, from that of then.",
        "change > 1Mbit", "a rate such as 1Mbit, 500k, 10MB/s", quantities.rate,
        lambda source: np.abs(_change(source)), of_aggregates=True)
    return made.but(column=column, biflow_columns=(unfiltered(column),), group_column=unfiltered(column), key=key,
                    members=(),  # the rates of other rounds say it better
                    detail=Detail("change", lambda row, formatter: " ".join(_signed(
                        int(row.more.get("change", 0)), formatter.wording.bits).split()), optional=True, rank=2))


_TREND_DOC = ("What changed, in words: appeared (began within 60 s), gone (nothing for 10 s), grew, shrank; while "
              "comparing (d), against then.")


def _trend_field() -> Field:
    texts = Texts(lambda _: TRENDS, lambda _: "")
    made = make.text(
        "trend", "TREND", _TREND_DOC, json="octetRateTrend", texts=texts, codes=_trend, width=8, priority=9,
        expected="appeared, gone, grew or shrank", example="trend appeared", of_aggregates=True)
    assert made.column is not None and made.measure is not None and made.key is not None
    column = replace(made.column, on_request=True, texts=None, descending_first=True)
    return made.but(
        column=column, biflow_columns=(unfiltered(column),), group_column=unfiltered(column), detail=None, members=(),
        group=None,  # it is a group's too, and changes from tick to tick
        key=replace(made.key, choices=tuple(dict.fromkeys(TRENDS.values()))),
        measure=replace(made.measure, together="formula"))


def _since_start(source: FlowSource) -> Array:
    """Seconds since the first packet; NaN for flows that are no longer new: no comparison matches it."""
    seconds: Array = (source.now_ns - source.columns["first_ns"]) / 1e9
    return np.where(seconds <= NEW_S, np.maximum(seconds, 1e-9), np.nan)


def _first(columns: FlowColumns) -> Array:
    return columns["first_ns"]


_NEW_COLUMN = Column(
    "new", "NEW", 7, "Time since the first packet; sorted by it, what began last comes first.",
    lambda row, _, __: units.duration(row.age_s + row.idle_s), (_first,), 9,
    lambda row, _: "new" if row.age_s + row.idle_s <= NEW_S else "not new", "right", descending_first=True,
    on_request=True)
_NEW = Field(
    "new", _NEW_COLUMN.doc, column=_NEW_COLUMN, biflow_columns=(unfiltered(_NEW_COLUMN),),
    group_column=unfiltered(_NEW_COLUMN),
    key=FilterKey("new", "Flows whose first packet came in the last 60 s; with a time, so long ago.", "new < 10s",
                  "a time up to 60s, such as 5s", quantities.seconds, _since_start, optional=True,
                  positive=True, of_aggregates=True))

FIELDS = (_change_field(), _trend_field(), _NEW)
