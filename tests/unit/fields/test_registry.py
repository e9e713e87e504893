"""A field that is registered while flowtop runs is everywhere where fields are: nothing else has to be touched."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from flowtop.docs.tables import TABLES
from flowtop.export.statistics import MeteringFacts
from flowtop.export.transports.files import Csv, JsonLines
from flowtop.fields import make
from flowtop.fields.columns import Wording
from flowtop.fields.field import Field
from flowtop.fields.fitting import fit
from flowtop.fields.records import flow_types
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS, FIELDS, GROUPS, register, unregister
from flowtop.fields.seen import seen_texts
from flowtop.filters.completion import complete
from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.grammar import token_types
from flowtop.filters.terms import add_term
from flowtop.filters.words import WORDS
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.record import FlowRecords
from flowtop.model.rows import FlowRow
from flowtop.output.batch import BatchConfig, round_format
from flowtop.output.records import page_record
from flowtop.query.layout import arranged, columns_of, sort_column
from flowtop.query.pager import Pager
from flowtop.query.past import Past
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text.lookups import Lookups, Texts
from flowtop.tui.main.filter import seen_values
from flowtop.tui.panels.details import DetailsContext, detail_lines
from flowtop.tui.panels.help import help_sections
from tests.unit.factories import SECOND, START_NS, UNIX_OFFSET_NS, batch, counters, key

ZONES = {1: "web-10", 2: "web-9", 3: "db", 4: "web-9"}
LOOKUPS = Lookups({2: "eth0"}, texts={"zones": ZONES})
TTLS = {1: 60, 2: 64, 3: 50, 4: 63, 5: 61}
"""By source port; the DSCP octet, which is the code of the zone here, is the port: 5 has no name."""

HOPS = make.numeric(
    "hops", "HOPS", "Routers that the packet has passed.", json="hopCount", together="max", group=True,
    values=lambda source: 64 - source.columns["ttl"].astype(np.int64),
    records=lambda records: 64 - records["ttl"].astype(np.int64))
ZONE = make.text(
    "zone", "ZONE", "Zone of the host.", json="zoneName", texts=Texts(lambda lookups: lookups.named("zones")),
    stored="tos", expected="a zone's name")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = [*FIELDS]
    for field in (HOPS, ZONE):
        register(field)
    yield
    for field in (HOPS, ZONE):
        unregister(field.id)
    assert [*FIELDS] == before and "hops" not in COLUMNS


class Table:
    """Five flows, one packet each, seen through a pager."""

    def __init__(self) -> None:
        self.flows = FlowTable(TableConfig(idle_timeout_s=60))
        self.pager = Pager(Past())
        self.flows.update(batch([(key("10.0.0.1", "10.0.0.2", port), counters(1, 100 * port, ttl=ttl, tos=port))
                                 for port, ttl in TTLS.items()], START_NS + SECOND))
        self.pager.remember(self.flows, self._now())

    def _now(self) -> Page:
        return Page(query=Query(), tick=1, unix_ms=(START_NS + UNIX_OFFSET_NS) // 10**6, uptime_s=1.0, tick_s=1.0,
                    rows=(), matched=0, flows=0, active_flows=0, anchor_rank=None, books=Books(), ingress=Traffic(),
                    egress=Traffic(), lookups=LOOKUPS, attached=("eth0",))

    def page(self, **query: Any) -> Page:
        return self.pager.page(Query(**{"limit": None} | query), self.flows, self._now())

    def ports(self, **query: Any) -> list[int]:
        return [row.source_port for row in self.page(**query).rows]

    def passing(self, text: str) -> set[int]:
        return set(self.ports(filter=compile_filter(text)))

    def records(self) -> FlowRecords:
        return self.flows.end_all(self.flows.now_ns)


@pytest.fixture
def table() -> Table:
    return Table()


def test_the_list_has_its_column(table: Table) -> None:
    [row] = [row for row in table.page().rows if row.source_port == 2]
    assert COLUMNS["hops"].cell(row, Wording(), LOOKUPS, 6) == "     0"
    assert COLUMNS["zone"].cell(row, Wording(), LOOKUPS, 8) == "web-9   "
    assert {"hops", "zone"} <= {column.id for column, _ in fit(300)}
    text = round_format(BatchConfig(width=300)).text(1, table.page(sort="hops"))
    head, *flows = text.splitlines()[2:]
    assert "HOPS" in head and "ZONE" in head
    assert next(line for line in flows if ":3 " in line).split()[-1] == "db"


@pytest.mark.parametrize("at", [None, 1], ids=["now", "past"])
def test_the_list_is_sorted_by_it(table: Table, at: int | None) -> None:
    assert table.ports(sort="hops", descending=True, at=at) == [3, 1, 5, 4, 2]
    assert table.ports(sort="hops", descending=False, limit=2, at=at) == [2, 4]
    assert table.ports(sort="hops", descending=True, offset=1, limit=2, at=at) == [1, 5]
    # db, web-9 (twice, in the order of the code), web-10, and 5, which has no name.
    assert table.ports(sort="zone", descending=False, at=at) == [3, 2, 4, 1, 5]
    assert sort_column("hops").descending_first and not sort_column("zone").descending_first


@pytest.mark.parametrize(("text", "ports"), [
    ("hops > 1", {1, 3, 5}), ("hops = 4", {1}), ("hops != 4", {2, 3, 4, 5}), ("hops <= 0", {2}), ("hops 1,14", {3, 4}),
    ("not hops > 1", {2, 4}),
    ("zone db", {3}), ("zone = web-9", {2, 4}), ("zone web*", {1, 2, 4}), ("zone != web*", {3, 5}),
    ("zone ~ EB-1", {1}), ("zone !~ web", {3, 5}), ("zone db,web-10", {1, 3}), ("zone '*-9'", {2, 4}), ("zone 5", {5}),
    ("zone web* and hops > 1", {1}),
])
def test_filters_have_its_word(table: Table, text: str, ports: set[int]) -> None:
    assert table.passing(text) == ports


def test_filters_of_exports_have_its_word(table: Table) -> None:
    records = table.records()
    for text, ports in (("hops > 1", {1, 3, 5}), ("zone web*", {1, 2, 4})):
        mask = compile_filter(text, "records").record_mask(records, LOOKUPS)
        assert set(records["source_port"][mask].tolist()) == ports


def test_text_is_not_compared_and_a_number_is_no_text() -> None:
    for text, said in (("zone > db", "zone is text"), ("hops ~ 4", 'hops does not take "~"'),
                       ("hops many", '"many" is not a number')):
        with pytest.raises(FilterError, match=said):
            compile_filter(text)


def test_a_cell_makes_a_filter(table: Table) -> None:
    for row in table.page().rows:
        for column, negate, ports in (("zone", False, {port for port in TTLS if ZONES.get(port, "5")
                                                       == ZONES.get(row.source_port, "5")}),
                                      ("hops", False, {port for port, ttl in TTLS.items() if ttl <= row.ttl})):
            text = add_term("", column, row, negate, LOOKUPS)
            assert table.passing(text) == ports, text


def test_a_text_with_anything_in_it_makes_a_filter(table: Table) -> None:
    names = {1: "a b", 2: "*", 3: "host", 4: 'say "hi"', 5: "and"}
    lookups = Lookups(texts={"zones": names})
    for row in table.page().rows:
        wanted = compile_filter(COLUMNS["zone"].term(row, lookups))
        mask = wanted.mask(table.flows, lookups)
        assert table.flows.columns["source_port"][mask].tolist() == [row.source_port]


def test_completion_offers_the_word_and_texts_that_were_seen(table: Table) -> None:
    assert "hops" in complete("ho", 2).candidates and "zone" in complete("tcp and z", 9).candidates
    rows = table.page(sort="zone", descending=False).rows
    seen = seen_values(rows, LOOKUPS, ("eth0",))
    assert complete("zone w", 6, seen).candidates == ("web-9", "web-10")
    assert complete("zone ", 5, seen).candidates[:3] == ("db", "web-9", "web-10")
    assert seen_texts(rows, LOOKUPS)["if"] == ("eth0",)


def test_flows_are_grouped_by_it(table: Table) -> None:
    page = table.page(group=("zone",), sort="zone", descending=False)
    columns = columns_of(page.query)
    assert [columns["zone"].text(row, Wording(), LOOKUPS) for row in page.rows] == ["db", "web-9", "web-10", "5"]
    assert [row.flows for row in page.rows] == [1, 2, 1, 1]
    assert [columns["hops"].text(row, Wording(), LOOKUPS).strip() for row in page.rows] == ["14", "1", "4", "3"]
    assert [row.octet_total for row in table.page(group=("zone",), sort="hops").rows] == [300, 100, 500, 600]
    page = table.page(group=("hops",), sort="hops", descending=False)
    assert [row.group for row in page.rows] == [((0,),), ((1,),), ((3,),), ((4,),), ((14,),)]
    for field in ("zone", "hops"):
        for row in table.page(group=(field,)).rows:
            term = GROUPS[field].term(row.group[0], LOOKUPS)
            assert len(table.passing(term)) == row.flows, term


def test_biflows_have_it(table: Table) -> None:
    answers = [(key("10.0.0.2", "10.0.0.1", 80, port), counters(1, 10, START_NS + SECOND, ttl=ttl, tos=9))
               for port, ttl in ((3, 44), (1, 64))]
    opened = [(key("10.0.0.1", "10.0.0.2", port, 80), counters(1, 40, START_NS + SECOND, opening=True))
              for port in (3, 1)]
    table.flows.update(batch([*opened, *answers], START_NS + 2 * SECOND))
    page = table.page(biflow=True, sort="hops")
    assert [(row.source_port, row.more["hops"]) for row in page.rows] == [(3, 20), (1, 4), (5, 3), (4, 1), (2, 0)]
    assert BIFLOW_COLUMNS["zone"].text(page.rows[0], Wording(), LOOKUPS) == "db"
    [line] = json.loads(round_format(BatchConfig("json")).text(1, replace(page, rows=page.rows[:1])))["biflows"]
    assert (line["hopCount"], line["reverseHopCount"], line["zoneName"]) == (14, 20, "db")


def test_json_and_csv_have_its_key(table: Table) -> None:
    page = table.page(sort="bytes", descending=False)
    flows = json.loads(round_format(BatchConfig("json")).text(1, page))["flows"]
    assert [flow["hopCount"] for flow in flows] == [4, 0, 14, 1, 3]
    assert [flow["zoneName"] for flow in flows] == ["web-10", "web-9", "db", "web-9", "5"]
    rows = list(csv.DictReader(io.StringIO(round_format(BatchConfig("csv")).text(1, page))))
    assert [(row["hopCount"], row["zoneName"]) for row in rows][:2] == [("4", "web-10"), ("0", "web-9")]
    page = table.page(group=("zone",), sort="hops")
    groups = json.loads(round_format(BatchConfig("json")).text(1, page))["groups"]
    assert [(group["zoneName"], group["hopCount"]) for group in groups] == [
        ("db", 14), ("web-10", 4), ("5", 3), ("web-9", 1)]


def test_exported_lines_say_what_json_output_says_of_the_same_flows(table: Table) -> None:
    page = table.page(sort="bytes", descending=False)
    said = json.loads(round_format(BatchConfig("json")).text(1, page))["flows"]
    records = table.records()
    records = records[np.argsort(records["octet_total"])]
    facts = MeteringFacts(LOOKUPS)

    class Context:
        @staticmethod
        def metering() -> MeteringFacts:
            return facts

    lines = [json.loads(line) for line in JsonLines().records(records, Context())]  # type: ignore[arg-type]
    deltas = {"octetDeltaCount", "packetDeltaCount", "flowEndReason"}
    assert [{name: value for name, value in line.items() if name not in deltas} for line in lines] == [
        {name: value for name, value in flow.items() if name not in deltas} for flow in said]
    form = Csv()
    text = b"".join([*form.begin(Context()), *form.records(records, Context())]).decode()  # type: ignore[arg-type]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["hopCount"], row["zoneName"]) for row in rows] == [
        ("4", "web-10"), ("0", "web-9"), ("14", "db"), ("1", "web-9"), ("3", "5")]
    kinds = flow_types()
    assert (kinds["hopCount"], kinds["zoneName"]) == (int, str)
    for line in lines:  # times are numbers in JSON, and timestamps where there are types
        assert {name: int if kinds[name] is datetime else kinds[name] for name in line} == {
            name: type(value) for name, value in line.items()}


def test_details_have_its_line(table: Table) -> None:
    flow_id = next(row.flow_id for row in table.page().rows if row.source_port == 3)
    page = table.page(details=flow_id)
    assert page.details is not None
    strips = detail_lines(page.details, DetailsContext(page, Wording(), time.gmtime), 100)
    lines = [" ".join("".join(segment.text for segment in strip).split()) for strip in strips]
    assert "zone db" in lines and "hops 14" in lines


def test_the_column_chooser_the_help_and_the_manual_have_it() -> None:
    assert {"hops", "zone"} <= {column.id for column in arranged()}
    assert ("HOPS", HOPS.doc) in dict(help_sections())["Columns"]
    words = {word.words: word for word in WORDS}
    assert (words["zone"].argument, words["zone"].doc) == ("TEXT", "Zone of the host.")
    assert compile_filter(words["hops"].example) and compile_filter(words["zone"].example)
    tables: Mapping[str, str] = {name: make_table() for name, make_table in TABLES.items()}
    for name, said in (("columns", "| `hops` | HOPS | Routers that the packet has passed. | everywhere |"),
                       ("words", "| `zone` | `TEXT` | Zone of the host. | `zone a*` |"),
                       ("groups", "| `zone` | Zone of the host. | `zoneName` |"),
                       ("elements", "| `hopCount` | - | Routers that the packet has passed. |")):
        assert said in tables[name].splitlines()


def test_a_field_cannot_take_what_another_is_called() -> None:
    for field, what in ((HOPS, "id"), (replace(HOPS, id="other"), "filter word hops"),
                        (Field("other", "Other.", members=HOPS.members), "JSON key hopCount")):
        with pytest.raises(ValueError, match=what):
            register(field)
    assert "other" not in FIELDS


def test_a_flow_that_no_field_knows_more_of_has_no_keys_for_it(table: Table) -> None:
    row: FlowRow = table.page().rows[0]._replace(more={})
    record = json.loads(round_format(BatchConfig("json")).text(1, replace(table.page(), rows=(row,))))["flows"][0]
    assert "hopCount" not in record


def test_a_number_whose_0_means_that_it_is_not_known_is_left_out(table: Table) -> None:
    """Ports 2, 4 and 5 have TTLs of 4, 3 and 1 above 60; of 1 and 3 nothing is known."""
    above = make.numeric(
        "above", "ABOVE", "TTL above 60.", json="ttlAbove60", group=True, zero_unknown=True,
        values=lambda source: np.maximum(source.columns["ttl"].astype(np.int64) - 60, 0),
        records=lambda records: np.maximum(records["ttl"].astype(np.int64) - 60, 0))
    register(above)
    try:
        records = table.records()
        for text, ports in (("above >= 0", {2, 4, 5}), ("above < 4", {4, 5}), ("above = 0", set()),
                            ("not above >= 0", {1, 3})):
            assert set(table.ports(filter=compile_filter(text))) == ports, text
            mask = compile_filter(text, "records").record_mask(records, LOOKUPS)
            assert set(records["source_port"][mask].tolist()) == ports, text
        page = table.page()
        known = {row.source_port: page_record(row, page).get("ttlAbove60") for row in page.rows}
        assert known == {1: None, 2: 4, 3: None, 4: 3, 5: 1}
        cells = {row.source_port: COLUMNS["above"].text(row, Wording(), LOOKUPS) for row in page.rows}
        assert cells == {1: "", 2: "4", 3: "", 4: "3", 5: "1"}
        groups = table.page(group=("above",), sort="above", descending=False)
        assert [GROUPS["above"].text(row.group[0], LOOKUPS) for row in groups.rows] == ["-", "1", "3", "4"]
        for row in groups.rows:
            passing = table.ports(filter=compile_filter(GROUPS["above"].term(row.group[0], LOOKUPS)))
            assert len(passing) == row.flows
    finally:
        unregister("above")


def refused(field_id: str, word: str = "", json: str = "newKey") -> bool:
    """Whether a field of these names cannot be registered."""
    try:
        field = make.numeric(field_id, "X", "A number.", json=json, word=word, values=HOPS.measure.values, records=None)
        register(field)
    except ValueError:
        return True
    unregister(field_id)
    return False


def test_names_that_mean_something_already_are_refused() -> None:
    assert not refused("fresh")
    for field_id in ("bytes", "flow", "biflow", "rate_in", "x,y", "x:y", "", "A", "a b"):
        assert refused(field_id, word="fresh"), field_id
    for word in {*token_types()} - {""}:  # every word of the grammar and of fields
        assert refused("fresh", word=word), word
    for name in ("octetTotalCount", "deltaFlowCount", "biflowDirection", "hosts", "servicePort", "sourceIPv4Prefix",
                 "time", "a b", ""):
        assert refused("fresh", json=name), name
