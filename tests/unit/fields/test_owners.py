"""Fields of processes: shown where a flow has one, filtered, grouped and in JSON; their texts are strangers'."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flowtop.fields.columns import Wording
from flowtop.fields.fitting import NO_DISTINCTIONS, fit
from flowtop.fields.registry import COLUMNS, DETAILS
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.owners import (
    COMMANDS,
    CONTAINER_IDS,
    CONTAINERS,
    FORWARDED,
    IMAGES,
    KERNEL,
    LISTED_BIT,
    MARKS,
    NAMESPACES,
    PODS,
    PROCESSES,
    STARTS,
    UNITS,
    USERS,
    owner_id,
)
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.model.translations import TRANSLATIONS, Flow, Translation, TranslationTexts
from flowtop.output.records import record
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from flowtop.text.lookups import Lookups
from tests.unit.factories import SECOND, START_NS, batch, counters, key, packed

NGINX, OTHER_NGINX, HOSTILE, UNNAMED = (owner_id(pid, pid * SECOND) for pid in (100, 200, 300, 400))
LOOKUPS = Lookups(texts={
    PROCESSES: {**MARKS, NGINX: "nginx", OTHER_NGINX: "nginx", HOSTILE: "\x1b[31mred\n\u202eevil"},
    USERS: {NGINX: "www-data", OTHER_NGINX: "www-data", HOSTILE: "root"},
    UNITS: {NGINX: "nginx.service"}, COMMANDS: {NGINX: "nginx: worker"}})
OWNERS = (NGINX, OTHER_NGINX, HOSTILE, UNNAMED, KERNEL, FORWARDED, 0)


def table(*owners: int) -> FlowTable:
    """A flow for each owner, with source ports from 1."""
    found = FlowTable(TableConfig())
    entries = []
    for port, owner in enumerate(owners, 1):
        made = counters(octets=100 * port)
        made["owner"] = owner
        entries.append((key(source_port=port), made))
    found.update(batch(entries, START_NS + SECOND))
    return found


def rows(query: Query, of: FlowTable | None = None) -> list[Any]:
    return list(Answerer().answer(query, of or table(*OWNERS), LOOKUPS).rows)


@pytest.mark.parametrize(("text", "expected"), [
    ("process nginx", {1, 2}), ("process ng*", {1, 2}), ("process kernel", {5}), ("process forwarded", {6}),
    ("process ~ evil", {3}), ("not process ?*", {7}), ("pid 100", {1}), ("pid > 150", {2, 3, 4}),
    ("pid >= 0", {1, 2, 3, 4}),
    ("user www-data", {1, 2}), ("unit nginx.service", {1}), ("command ~ worker", {1}),
    ("process nginx and pid 200", {2})])
def test_filters(text: str, expected: set[int]) -> None:
    assert {row.source_port for row in rows(Query(filter=compile_filter(text)))} == expected


def test_records_are_filtered_alike() -> None:
    records = np.zeros(len(OWNERS), FLOW_RECORD_DTYPE)
    records["owner"] = OWNERS
    for text, expected in (("process nginx", [number < 2 for number in range(7)]),
                           ("pid 300", [number == 2 for number in range(7)]),
                           ("user root", [number == 2 for number in range(7)])):
        assert compile_filter(text, "records").record_mask(records, LOOKUPS).tolist() == expected


def test_processes_of_one_name_are_one_group() -> None:
    groups = {row.group[0]: row.octet_total
              for row in rows(Query(group=("process",)))}
    assert sorted(groups.values()) == [300, 300, 400, 500, 600, 700]
    by_pid = {row.group[0]: row.octet_total for row in rows(Query(group=("pid",)))}
    assert by_pid == {(100,): 100, (200,): 200, (300,): 300, (400,): 400, (0,): 1800}
    assert len(rows(Query(group=("user",)))) == 3


def test_names_are_harmless_wherever_they_are_shown() -> None:
    [row] = rows(Query(filter=compile_filter("pid 300")))
    assert COLUMNS["process"].text(row, Wording(), LOOKUPS) == "redevil"
    assert record(row, Query(), LOOKUPS)["processName"] == "redevil"


def test_json_has_what_is_known() -> None:
    found = {row.source_port: record(row, Query(), LOOKUPS) for row in rows(Query())}
    names = ("processName", "processId", "userName", "systemdUnit", "processCommand")
    assert [found[1].get(name) for name in names] == ["nginx", 100, "www-data", "nginx.service", "nginx: worker"]
    assert [found[4].get(name) for name in names] == ["pid 400", 400, None, None, None]
    assert [found[6].get(name) for name in names] == ["forwarded", None, None, None, None]
    assert [found[7].get(name) for name in names] == [None] * 5


def test_the_start_is_in_json_and_details() -> None:
    started = "2026-11-30T10:00:00.12Z"
    lookups = Lookups(texts={**LOOKUPS.texts, STARTS: {NGINX: started}})
    formatter: Any = SimpleNamespace(lookups=lookups)
    found = {row.source_port: row for row in rows(Query())}
    assert [record(found[port], Query(), lookups).get("processStart") for port in (1, 2, 7)] == [started, None, None]
    assert [DETAILS["started"].text(found[port], formatter) for port in (1, 2, 7)] == [started, "", ""]


def test_the_column_is_shown_once_a_flow_has_a_process() -> None:
    with_none, with_one = (NO_DISTINCTIONS.with_rows(rows(Query(), table(owner)), tunnels=False)
                           for owner in (0, NGINX))
    assert "process" not in {column.id for column, _ in fit(120, distinctions=with_none)}
    shown = {column.id for column, _ in fit(120, distinctions=with_one)}
    assert "process" in shown
    assert "command" not in shown


def test_the_latest_process_is_the_owner_and_marks_never_replace_one() -> None:
    metered = table(0, KERNEL, NGINX, NGINX)
    for tick, owners in enumerate(((NGINX, NGINX, KERNEL, OTHER_NGINX), (0, 0, 0, 0)), 2):
        now = START_NS + tick * SECOND
        entries = []
        for port, owner in enumerate(owners, 1):
            made = counters(first_ns=now, last_ns=now)
            made["owner"] = owner
            entries.append((key(source_port=port), made))
        metered.update(batch(entries, now))
    columns = metered.columns
    assert columns["owner"][metered.visible].tolist() == [NGINX, NGINX, NGINX, OTHER_NGINX]
    assert set(metered.end_all(START_NS + 9 * SECOND)["owner"].tolist()) == {NGINX, OTHER_NGINX}


def test_a_list_of_sockets_only_names_who_has_no_process_yet() -> None:
    """It may be older than the process that the kernel reported: the port may have been another one's then."""
    metered = table(NGINX, 0, KERNEL, OTHER_NGINX | LISTED_BIT)
    now = START_NS + 2 * SECOND
    entries = []
    for port in range(1, 5):
        made = counters(first_ns=now, last_ns=now)
        made["owner"] = HOSTILE | LISTED_BIT
        entries.append((key(source_port=port), made))
    metered.update(batch(entries, now))
    assert metered.columns["owner"][metered.visible].tolist() == [NGINX, HOSTILE, HOSTILE, OTHER_NGINX]


# ---- containers


IN_POD = {CONTAINERS: {NGINX: "web", OTHER_NGINX: "web-2", HOSTILE: "\x1b[31mred"},
          CONTAINER_IDS: {NGINX: "4f5e" * 16, OTHER_NGINX: "c3d4" * 16}, IMAGES: {NGINX: "registry.example/nginx:1.27"},
          PODS: {NGINX: "api-6d4cf"}, NAMESPACES: {NGINX: "shop"}}
CONTAINED = Lookups(texts={**LOOKUPS.texts, **IN_POD})


@pytest.mark.parametrize(("text", "expected"), [
    ("container web", {1}), ("container web*", {1, 2}), ("not container ?*", {4, 5, 6, 7}), ("image *nginx*", {1}),
    ("container_id 4f5e*", {1}), ("pod ~ api", {1}), ("namespace shop", {1}), ("container web* and not pod ?*", {2})])
def test_filters_of_containers(text: str, expected: set[int]) -> None:
    found = Answerer().answer(Query(filter=compile_filter(text)), table(*OWNERS), CONTAINED).rows
    assert {row.source_port for row in found} == expected


def test_containers_are_groups_and_in_json() -> None:
    of = table(*OWNERS)
    groups = Answerer().answer(Query(group=("container", "pod")), of, CONTAINED).rows
    assert {(record(row, Query(group=("container", "pod")), CONTAINED).get("containerName"), row.octet_total)
            for row in groups} == {("web", 100), ("web-2", 200), ("red", 300), (None, 2200)}
    [row] = Answerer().answer(Query(filter=compile_filter("pod ?*")), of, CONTAINED).rows
    found = record(row, Query(), CONTAINED)
    assert [found[name] for name in ("containerName", "containerId", "containerImage", "podName", "podNamespace")] == [
        "web", "4f5e" * 16, "registry.example/nginx:1.27", "api-6d4cf", "shop"]


def test_both_sides_of_a_translation_are_in_json_and_details() -> None:
    row = next(row for row in rows(Query()) if row.source_port == 1)
    here = Flow(row.source_address, row.destination_address, 1, row.destination_port, row.protocol, row.ip_version)
    there = here._replace(source_address=packed("192.0.2.1"), source_port=61000)
    one = Translation.of(here, there)
    lookups = Lookups(texts={TRANSLATIONS: TranslationTexts({one.one: one, one.other: one})})
    assert record(row, Query(), lookups)["translatedFlow"] == "192.0.2.1:61000 > 10.0.0.2:80"
    assert "translatedFlow" not in record(row._replace(source_port=2), Query(), lookups)
    assert "translatedFlow" not in record(row, Query(), LOOKUPS)
    detail = DETAILS["translation"]
    assert detail.text(row, SimpleNamespace(lookups=lookups)) == "192.0.2.1:61000 > 10.0.0.2:80"  # type: ignore[arg-type]
