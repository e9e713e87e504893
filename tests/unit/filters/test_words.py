"""The registry's contract: holds for every word, also ones added later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flowtop.fields.columns import Column, Wording
from flowtop.fields.field import Field, FilterKey
from flowtop.fields.registry import COLUMNS, FIELDS, KEYS, register, unregister
from flowtop.filters import grammar
from flowtop.filters.filter import compile_filter
from flowtop.filters.words import WORDS, Word
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from tests.unit.fields.test_columns import ROWS
from tests.unit.filters.flows import INTERFACES, Source, records, table

every_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.words)
def test_a_word_is_explained_and_its_example_is_a_filter(word: Word) -> None:
    assert word.words and word.doc.endswith(".")
    assert compile_filter(word.example).mask(table([{}, {}]), INTERFACES).shape == (2,)


@every_key
def test_a_key_is_whole(key: FilterKey) -> None:
    assert KEYS[key.word] is key
    assert key.word.isidentifier() and key.word == key.word.lower()
    assert key.expected and not key.expected.endswith(".")
    assert key.example.split()[0] in (key.word, "not")
    numbers = key.flows(table([{}] * 3))
    assert numbers.shape == (3,) and numbers.dtype.kind in ("V" if key.kind == "address" else "uifb")
    if key.records is not None:
        assert key.records(records([{}] * 3)).shape == (3,)
    for choice in key.choices:
        compile_filter(f"{key.word} {choice}")


@every_key
def test_every_comparison_of_a_number_is_understood(key: FilterKey) -> None:
    if key.kind == "number":
        operand = key.choices[0] if key.choices else "1"
        flows = table([{}] * 4)
        masks = {sign: compile_filter(f"{key.word} {sign} {operand}").mask(flows, NO_LOOKUPS)
                 for sign in ("<", "<=", ">", ">=", "=", "!=")}
        assert np.array_equal(masks["="], ~masks["!="])
        assert np.array_equal(masks["<"] | masks["="], masks["<="])
        assert np.array_equal(masks[">"] | masks["="], masks[">="])


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_a_columns_field_is_filterable(column: Column) -> None:
    key = FIELDS[column.id].key
    if key is not None:
        assert KEYS[key.word] is key


def test_a_new_key_needs_no_change_of_the_grammar() -> None:
    hops = replace(KEYS["ttl"], word="hops", flows=lambda source: 64 - source.columns["ttl"].astype(np.int16))
    register(Field("hops", "Hops so far.", key=hops))
    try:
        mask = compile_filter("tcp and hops > 3").mask(table([dict(ttl=60), dict(ttl=62), dict(ttl=1)]), NO_LOOKUPS)
        assert mask.tolist() == [True, False, True]
    finally:
        unregister("hops")


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_a_cells_term_is_passed_by_its_row_and_not_by_its_opposite(column: Column) -> None:
    interfaces = Lookups({2: "eth0", 3: "a b*[\"x"})
    for row in ROWS.values():
        text = column.term(row, interfaces)
        if not text:
            assert not column.text(row, Wording(), interfaces).strip(), "a cell that says nothing"
            continue
        flows = the_flow_of(row)
        assert compile_filter(text).mask(flows, interfaces).all(), text
        if row.kind == 0:  # of an aggregate too little is known to exclude it
            assert not compile_filter(f"not ({text})").mask(flows, interfaces).any(), text


def the_flow_of(row: FlowRow) -> Source:
    """A table with this flow alone."""
    flows = table([{}])
    for name in set(row._fields) & set(flows.columns.dtype.names or ()):
        value = getattr(row, name)
        flows.columns[name] = np.void(value) if isinstance(value, bytes) else value
    flows.tick_s = flows.window_10s_s = flows.window_60s_s = 1.0
    for name, per_s in (("octet_delta", row.octet_rate), ("octets_10s", row.octet_rate_10s),
                        ("octets_60s", row.octet_rate_60s), ("packet_delta", row.packet_rate)):
        flows.columns[name] = int(per_s)
    flows.columns["first_ns"] = 0
    flows.columns["last_ns"] = int(row.age_s * 1e9)
    flows.now_ns = int((row.age_s + row.idle_s) * 1e9)
    return flows


def test_fields_of_the_flow_key_are_named_as_the_kernels() -> None:
    from flowtop.model.record import FLOW_KEY_DTYPE

    for key in KEYS.values():
        assert not key.packet or key.packet in (FLOW_KEY_DTYPE.names or ())


def test_no_word_is_two_things() -> None:
    types = grammar.token_types()
    assert not set(KEYS) & {"host", "net", "port", "and", "or", "not", "src", "dst"}
    assert all(word == word.lower() for word in types)
