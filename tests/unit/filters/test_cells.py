"""Filters from cells: each press of `=` is wider, `f` is the conversation; the flow itself always passes."""

from __future__ import annotations

import pytest

from flowtop.fields.groups import group_fields
from flowtop.fields.registry import COLUMNS, FIELDS, GROUPS
from flowtop.filters.filter import compile_filter
from flowtop.filters.terms import conversation_as_filter, widened
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow
from flowtop.query.layout import sort_column
from flowtop.query.query import Query
from flowtop.text.lookups import NO_LOOKUPS
from tests.tui.fake_source import ICMP, FakeSource, answered, flow

V4 = flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=1e6)
V6 = flow(2, "2001:db8:1:2::7", "2001:db8:9::5", (22, 40000), rate=1e5)
PING = flow(3, "192.0.2.33", "10.0.0.5", (0, 8 * 256), protocol=ICMP)


def presses(row: FlowRow, column: str, start: str = "") -> list[str]:
    """The filter after each press, until it is what it was."""
    texts, text = [], start
    for _ in range(6):
        text = widened(text, column, row, NO_LOOKUPS)
        texts.append(text)
        if text == start:
            return texts
    raise AssertionError(texts)


@pytest.mark.parametrize(("row", "column", "texts"), [
    (V4, "source", ["src host 198.51.100.7 and src port 443", "src host 198.51.100.7", "src net 198.51.100.0/24", ""]),
    (V6, "destination", ["dst host 2001:db8:9::5 and dst port 40000", "dst host 2001:db8:9::5",
                         "dst net 2001:db8:9::/64", ""]),
    (PING, "source", ["src host 192.0.2.33", "src net 192.0.2.0/24", ""]),
    (V4, "protocol", ["tcp", ""]),
])
def test_each_press_is_wider_and_the_last_is_any(row: FlowRow, column: str, texts: list[str]) -> None:
    assert presses(row, column) == texts
    assert presses(row, column, "bytes >= 0") == [
        " and ".join(filter(None, ["bytes >= 0", text])) for text in texts]
    source = FakeSource([V4, V6, PING])
    for text in filter(None, texts):
        assert row.flow_id in {one.flow_id for one in source.look(Query(filter=compile_filter(text))).rows}


@pytest.mark.parametrize("column", ["rate", "rate_10s", "rate_60s", "peak", "pps"])
def test_a_rate_is_filtered_so_that_its_own_flow_stays_when_it_goes_down_a_little(column: str) -> None:
    text = widened("", column, V4, NO_LOOKUPS)
    slower = V4._replace(octet_rate=V4.octet_rate * 0.6, octet_rate_10s=V4.octet_rate_10s * 0.6,
                         octet_rate_60s=V4.octet_rate_60s * 0.6, packet_delta=int(V4.packet_delta * 0.6),
                         packet_rate=V4.packet_rate * 0.6)
    assert [row.flow_id for row in FakeSource([slower, V6]).look(Query(filter=compile_filter(text))).rows] == [1]


def test_a_conversation_is_both_directions_and_nothing_else() -> None:
    others = [flow(7, "198.51.100.7", "10.0.0.5", (443, 51515)), flow(8, "198.51.100.7", "10.0.0.6", (443, 51514))]
    source = FakeSource([*answered([V4, V6], every=99), *others, PING])
    for row in (V4, V6):
        text = conversation_as_filter(row, NO_LOOKUPS)
        assert {one.flow_id % 5_000 for one in source.look(Query(filter=compile_filter(text))).rows} == {row.flow_id}
    assert conversation_as_filter(PING, NO_LOOKUPS) == "icmp and host 192.0.2.33 and host 10.0.0.5"
    assert conversation_as_filter(V4._replace(kind=Kind.AGGREGATE), NO_LOOKUPS) == ""


@pytest.mark.parametrize("field", [field for field in FIELDS.values() if field.key is not None],
                         ids=lambda field: field.id)
def test_a_field_is_filtered_sorted_and_grouped_by_the_same_names(field: object) -> None:
    assert hasattr(field, "key")
    for name in (field.id, field.key.word):  # type: ignore[attr-defined]
        if field.id in GROUPS:  # type: ignore[attr-defined]
            assert [one.id for one in group_fields((name,))] == [field.id]  # type: ignore[attr-defined]
        if field.id in COLUMNS:  # type: ignore[attr-defined]
            assert sort_column(name).id == field.id  # type: ignore[attr-defined]
            example = field.key.example.replace(field.key.word, name, 1)  # type: ignore[attr-defined]
            assert compile_filter(example).tree is not None
