"""Functions that make the two usual kinds of field completely: a number of each flow, and a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields.columns import Column, Wording, plain, unfiltered
from flowtop.fields.field import (
    EVERYWHERE,
    Detail,
    DetailFormatter,
    Field,
    FilterKey,
    GroupField,
    Key,
    Known,
    Measure,
    Member,
    ReadValue,
)
from flowtop.model.flows import Array, FlowColumns, FlowSource, Together
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text import quantities, units
from flowtop.text.lookups import Lookups, Texts

LONGEST_TEXT = 64
"""Characters of a text that are shown. Groups compare whole texts."""


def numeric(field_id: str, header: str, doc: str, *, json: str, values: Callable[[FlowSource], Array],
            records: Callable[[FlowColumns], Array] | None, together: Together = "none",
            text: Callable[[int], str] = units.count, width: int = 6, priority: int = 12,
            word: str = "", read: ReadValue = quantities.count, expected: str = "a number such as 100, 10k, 1.5M",
            example: str = "", unit: str = "", detail: str = "", descending_first: bool = True, group: bool = False,
            of_aggregates: bool = False, zero_unknown: bool = False, unknown: int | None = None,
            known: tuple[Known, ...] = EVERYWHERE) -> Field:
    """A field that is a whole number of each flow: in the list, the filter language, JSON and CSV, details, and, unless
    `together` is "none", in the lists of groups and biflows.

    Args:
        field_id: also its key in `FlowRow.more`, and the name of its column of numbers.
        header: of its column; the column is at least as wide.
        doc: one sentence, ending in a full stop.
        json: its key in JSON and CSV: the Information Element's name where there is one, else camelCase with the unit.
        values: whole numbers, shape (n,), one for each flow of the source's columns.
        records: the same for Flow Records (FLOW_RECORD_DTYPE), for exports; None: they do not have it.
        together: how the numbers of several flows combine in groups and biflows.
        text: formats the number, each character one cell wide.
        width, priority: of the column; see Column.
        word: of the filter language; "": the field's id.
        read, expected: reads an operand; describes a valid operand.
        example: a filter; "": `word > 1`.
        unit: appended to the number when a filter is made from a cell.
        detail: label of its line in details; "": the word.
        group: flows can be grouped by it.
        of_aggregates: aggregate entries (map full) have it, as they have bytes and packets.
        zero_unknown: 0 means not known: nothing is shown, JSON has no key, and no comparison matches.
        unknown: the number that means that, if it is another one.
        known: the sources that provide it.
    """
    word = word or field_id
    if zero_unknown:
        unknown = 0

    def number(row: FlowRow) -> int:
        return int(row.more.get(field_id, unknown or 0))

    def member(flow: FlowValues, _: Lookups) -> int | None:
        value: int | None = flow.more.get(field_id)
        return None if value == unknown else value

    def shown(value: int) -> str:
        return "" if value == unknown else text(value)

    def compared(column: Array) -> Array:
        return column if unknown is None else where_known(column, unknown)

    def cell_term(row: FlowRow, lookups: Lookups) -> str:
        return terms.at_least(word, number, unit)(row, lookups) if shown(number(row)) else ""

    column = Column(field_id, header, max(width, len(header)), doc, lambda row, _, __: shown(number(row)),
                    (plain(field_id),), priority, cell_term, "right", descending_first=descending_first)
    summed = together != "none"
    by_value = GroupField(
        field_id, header, max(width, len(header)), doc, lambda columns: (columns[field_id],),
        text=lambda key, _: shown(key[0]) or "-",
        term=lambda key, _: f"not {word} >= 0" if key[0] == unknown else f"{word} = {key[0]}{unit}",
        values=lambda key, _: {} if key[0] == unknown else {json: key[0]}, members=(json,))
    return Field(
        field_id, doc, column=column,
        biflow_columns=(unfiltered(column),) if summed else (),
        group_column=unfiltered(column) if summed else None,
        key=FilterKey(word, doc, example or f"{word} > 1", expected, read, lambda source: compared(values(source)),
                      None if records is None else lambda columns: compared(records(columns)),
                      of_aggregates=of_aggregates),
        group=by_value if group else None,
        members=(Member(json, member, doc, of_packets=not of_aggregates, of_groups=summed, both_ways=True,
                        holds=int),),
        detail=Detail(detail or word, lambda row, _: shown(number(row))),
        measure=Measure(values, together, records), known=known)


def text(field_id: str, header: str, doc: str, *, json: str, texts: Texts, stored: str = "",
         codes: Callable[[FlowSource], Array] | None = None, records: Callable[[FlowColumns], Array] | None = None,
         width: int = 8, priority: int = 12, word: str = "", expected: str = "a text; * and ? stand for any",
         example: str = "", align: Literal["left", "right"] = "left", of_aggregates: bool = False,
         known: tuple[Known, ...] = EVERYWHERE) -> Field:
    """A field that is a text of each flow: flows have a code, and `texts` gives the text of a code.

    The list can be sorted by it (natural order: `eth2` before `eth10`), grouped by it (codes with equal texts are one
    group) and filtered by it (`=`, `!=` with globs, `~`, `!~`). Completion offers the texts of the flows in view.

    Args:
        field_id, header, doc, json, width, priority, word, expected, known: as for `numeric`.
        texts: the text of a code.
        stored: the column of flows, field of Flow Records and attribute of rows that holds the code; "": see `codes`.
        codes: whole numbers >= 0, shape (n,), one for each flow of the source's columns; when `stored` is "".
        records: the same for Flow Records, for exports; None: they do not have it.
        example: a filter; "": `word a*`.
        align: alignment of the text in its column.
        of_aggregates: aggregate entries (map full) have it.
    """
    word = word or field_id
    name = stored or field_id
    if stored:
        def codes(source: FlowSource) -> Array:
            return source.columns[stored]

        def records(columns: FlowColumns) -> Array:
            return columns[stored]

    assert codes is not None, "neither stored nor codes"

    def code(flow: FlowRow | FlowValues) -> int:
        return int(getattr(flow, stored) if stored else flow.more.get(field_id, 0))

    def shown(number: int, lookups: Lookups) -> str:
        return units.printable(texts.text(number, lookups), LONGEST_TEXT)

    def cell(row: FlowRow, _: Wording, lookups: Lookups) -> str:
        return shown(code(row), lookups)

    def member(flow: FlowValues, lookups: Lookups) -> str | None:
        known_here = stored or field_id in flow.more
        return (shown(code(flow), lookups) or None) if known_here else None

    def detail(row: FlowRow, formatter: DetailFormatter) -> str:
        return cell(row, formatter.wording, formatter.lookups)

    def values(key: Key, lookups: Lookups) -> dict[str, str]:
        value = shown(key[0], lookups)
        return {json: value} if value else {}

    column = Column(field_id, header, max(width, len(header)), doc, cell, (plain(name),), priority,
                    lambda row, lookups: terms.text_words(word, texts.text(code(row), lookups)), align, texts=texts)
    return Field(
        field_id, doc, column=column, biflow_columns=(column,),
        key=FilterKey(word, doc, example or f"{word} a*", expected, quantities.count, codes, records, "text", texts,
                      of_aggregates=of_aggregates),
        group=GroupField(field_id, header, max(width, len(header)), doc, lambda columns: (columns[name],),
                         text=lambda key, lookups: shown(key[0], lookups) or "-",
                         term=lambda key, lookups: terms.text_words(word, texts.text(key[0], lookups)),
                         values=values, members=(json,), alike=texts.text, texts=texts),
        members=(Member(json, member, doc, of_packets=not of_aggregates),),
        detail=Detail(word, detail, of_way=False),
        measure=None if stored else Measure(codes, "none", records), texts=texts, code=code, known=known)


def where_known(column: Array, unknown: int = 0) -> Array:
    """The numbers as float64, with NaN, which no comparison matches, instead of the one that means not known."""
    numbers = column.astype(np.float64)
    numbers[column == unknown] = np.nan
    return numbers
