"""Columns on a line: what fits, what stays, and what the reader arranged."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.fields.arrangement import AUTOMATIC, Arrangement
from flowtop.fields.columns import Column, Window, Wording, rate_column
from flowtop.fields.fitting import Distinctions, fit
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS, GROUP_COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.model.rows import FlowRow
from flowtop.query.layout import filtered_columns
from flowtop.query.query import Page, Query
from flowtop.query.views import VIEWS, shown_columns
from flowtop.text.lookups import NO_LOOKUPS
from tests.tui.fake_source import FakeSource, flow


def test_80_columns_have_what_a_reader_needs_and_room_for_ipv4_endpoints() -> None:
    chosen = {column.id: width for column, width in fit(80)}
    assert list(chosen) == ["interface", "direction", "protocol", "source", "destination", "rate", "bytes", "state"]
    assert min(chosen["source"], chosen["destination"]) >= len("198.51.100.123:51514")
    assert min(width for column, width in fit(80, names=["eth0"]) if column.flexible) >= len("255.255.255.255:65535")


def test_120_columns_are_those_of_the_design_and_240_all() -> None:
    chosen = [column.id for column, _ in fit(120)]
    assert chosen == ["interface", "direction", "protocol", "source", "destination", "rate", "rate_10s", "bytes",
                      "packets", "age", "state"]
    assert [column.id for column, _ in fit(240)] == [id_ for id_, column in COLUMNS.items()
                                                     if not (column.of_exporters or column.of_tunnels
                                                             or column.of_reports or column.on_request)]


def test_flows_of_exporters_show_their_exporter() -> None:
    listening = ("udp://127.0.0.1:2055",)
    reported = frozenset(id_ for id_, column in COLUMNS.items() if column.of_reports)
    every = fit(600, names=listening, distinctions=Distinctions(tunnels=True, reported=reported))
    assert {column.id for column, _ in every} == {id_ for id_, column in COLUMNS.items() if not column.on_request}
    assert "exporter" in [column.id for column, _ in fit(120, names=listening)]
    widths = {column.id: cells for column, cells in fit(160, names=listening)}
    assert widths["exporter"] >= len("255.255.255.255") and widths["interface"] <= len("enp0s3")


@pytest.mark.parametrize("column", [column for column in COLUMNS.values() if column.on_request], ids=lambda it: it.id)
def test_columns_on_request_are_shown_when_chosen_or_sorted_by(column: Column) -> None:
    for shown in (fit(200, keep=column.id), fit(200, arrangement=Arrangement(shown=frozenset({column.id})))):
        assert column in [found for found, _ in shown]
    assert column not in [found for found, _ in fit(400)]


def test_a_community_id_is_whole_where_there_is_room() -> None:
    widths = {width: {column.id: cells for column, cells in fit(width, keep="community")} for width in (80, 240)}
    assert widths[80]["community"] < widths[240]["community"] == len("1:wCb3OG7yAFWelaUydu0D+125CLM=")


@pytest.mark.parametrize("window", ["tick", "10s", "60s"])
@pytest.mark.parametrize("width", [20, 72, 80, 81, 100, 120, 159, 160, 200, 300])
def test_columns_fill_a_line_and_never_overflow_one_that_is_wide_enough(width: int, window: Window) -> None:
    chosen = fit(width, window)
    used = sum(cells for _, cells in chosen) + len(chosen) - 1
    assert used <= max(width, 31)
    assert rate_column(window) in [column.id for column, _ in chosen]
    assert all(cells >= column.width for column, cells in chosen if not column.flexible)


def test_long_interface_names_are_shown_whole_where_addresses_leave_room() -> None:
    names = ["lo", "enp0s31f6", "br-1234567890ab"]
    widths = {width: {column.id: cells for column, cells in fit(width, names=names)} for width in (80, 120, 200)}
    assert widths[120]["interface"] == widths[200]["interface"] == 15
    for width, columns in widths.items():
        assert sum(columns.values()) + len(columns) - 1 <= width
        assert min(columns["source"], columns["destination"]) >= 21 - (width == 80)


def test_short_interface_names_leave_the_layout_alone() -> None:
    assert fit(100, names=["lo", "enp0s3"]) == fit(100)


@pytest.mark.parametrize("column", list(COLUMNS))
def test_the_sorted_column_has_room_at_80_cells(column: str) -> None:
    chosen = {found.id: cells for found, cells in fit(80, keep=column)}
    assert column in chosen
    assert {"interface", "direction", "protocol", "source", "destination", "rate", "bytes"} <= chosen.keys()
    assert sum(chosen.values()) + len(chosen) - 1 <= 80
    assert min(chosen["source"], chosen["destination"]) >= 15


@pytest.mark.parametrize("width", range(40, 80))
def test_on_narrow_lines_columns_go_before_addresses_become_illegible(width: int) -> None:
    chosen = {column.id: cells for column, cells in fit(width, names=["eth0"])}
    assert sum(chosen.values()) + len(chosen) - 1 <= width
    assert {"direction", "source", "destination", "rate"} <= chosen.keys()
    if width >= 49:
        assert min(chosen["source"], chosen["destination"]) >= len("10.0.0.50:51514")


def widths(width: int, **options: Any) -> dict[str, int]:
    return {column.id: cells for column, cells in fit(width, **options)}


ONE_FILE = ("trunk.pcap",)


@pytest.mark.parametrize("names", [ONE_FILE, ("eth0", "eth1")])
@pytest.mark.parametrize("biflow", [False, True])
def test_tunnel_ids_stay_where_a_line_is_narrow_and_the_interface_gives_way(
        names: tuple[str, ...], biflow: bool) -> None:
    columns = BIFLOW_COLUMNS.values() if biflow else COLUMNS.values()
    chosen = widths(78, names=names, columns=columns, distinctions=Distinctions(tunnels=True, digits=5))
    assert chosen["vni"] == 5 and "interface" not in chosen and "tunnel" not in chosen
    assert min(chosen["source"], chosen["destination"]) >= len("10.0.0.50:51514")
    kinds = widths(78, names=names, columns=columns, distinctions=Distinctions(tunnels=True, digits=3, kinds=True))
    assert {"tunnel", "vni"} <= kinds.keys() and "interface" not in kinds
    assert min(kinds["source"], kinds["destination"]) >= len("10.0.0.50:51514")
    assert {"interface", "vni", "tunnel"} <= widths(140, names=names, distinctions=Distinctions(True, 5)).keys()
    assert widths(140, names=names, distinctions=Distinctions(True, 10))["vni"] == len(str(2**32 - 1)), "a GRE key"


def test_vlans_take_the_interfaces_place_where_it_is_the_same_or_they_alone_tell_rows_apart() -> None:
    assert "vlan" not in widths(78, names=ONE_FILE), "none was seen"
    assert widths(78, names=ONE_FILE, distinctions=Distinctions(tags=1))["vlan"] == len("4094")
    assert widths(78, names=ONE_FILE, distinctions=Distinctions(tags=2))["vlan"] == len("4094.4094")
    two = ("eth0", "veth1")
    assert "interface" in widths(78, names=two, distinctions=Distinctions(tags=1)), "it says more than the VLAN"
    alike = widths(78, names=two, distinctions=Distinctions(tags=1, vlans=True))
    assert "vlan" in alike and "interface" not in alike
    assert min(alike["source"], alike["destination"]) >= 20
    assert "interface" in widths(78, names=ONE_FILE, keep="interface", distinctions=Distinctions(tags=1))
    hidden = Arrangement(hidden=frozenset({"vlan", "vni"}))
    chosen = widths(78, names=ONE_FILE, arrangement=hidden, distinctions=Distinctions(True, 5, 1))
    assert chosen == widths(78, names=ONE_FILE)


@pytest.mark.parametrize("width", [40, 60, 78, 100, 120, 160, 200, 300])
@pytest.mark.parametrize("distinctions", [
    Distinctions(True, 8, 2, True, True), Distinctions(True), Distinctions(tags=2)])
def test_a_line_is_never_overflown_by_what_tells_rows_apart(width: int, distinctions: Distinctions) -> None:
    chosen = widths(width, names=ONE_FILE, distinctions=distinctions)
    assert sum(chosen.values()) + len(chosen) - 1 <= max(width, 49)
    assert {"source", "destination", "rate"} <= chosen.keys()


def test_what_was_seen_is_not_forgotten() -> None:
    def page(*rows: FlowRow) -> Page:
        return FakeSource(rows).page(Query())

    numbers = count(1)

    def tagged(vlan: int, **other: Any) -> FlowRow:
        return flow(next(numbers), "10.0.0.1", "10.0.0.2", (1, 2), vlan_id=vlan, **other)

    distinctions = Distinctions()
    for expected, rows in (
            (Distinctions(), [tagged(0)]), (Distinctions(tags=1), [tagged(7)]), (Distinctions(tags=1), [tagged(0)]),
            (Distinctions(tags=1), [tagged(7), tagged(8, direction=1)]),
            (Distinctions(tags=1, vlans=True), [tagged(0), tagged(8)]),
            (Distinctions(tags=2, vlans=True), [tagged(7, customer_vlan_id=3)]),
            (Distinctions(True, 3, 2, True), [tagged(0, tunnel=4, tunnel_id=123)]),
            (Distinctions(True, 3, 2, True), []),
            (Distinctions(True, 3, 2, True), [tagged(0, tunnel=4, tunnel_id=7), tagged(0, tunnel=4, tunnel_id=8)]),
            (Distinctions(True, 3, 2, True, True), [tagged(0, tunnel=1), tagged(0, tunnel=2)])):
        distinctions = distinctions.with_rows(rows, tunnels=page(*rows).tunnels)
        assert distinctions == expected
    assert Distinctions().with_rows((), tunnels=True) == Distinctions(tunnels=True)
    first = page(tagged(0, tunnel=1), tagged(0, tunnel=2))  # all that the batch table ever sees
    assert Distinctions().with_rows(first.rows, tunnels=True).kinds


def test_a_reader_hides_moves_widens_and_keeps_columns() -> None:
    arrangement = Arrangement(order=("rate", "destination", "source"), hidden=frozenset({"bytes", "vlan"}),
                              shown=frozenset({"flags"}), widths=(("source", 30),))
    chosen = fit(100, arrangement=arrangement)
    ids = [column.id for column, _ in chosen]
    assert [column_id for column_id in ids if column_id in ("rate", "destination", "source")] == [
        "rate", "destination", "source"]
    assert "flags" in ids and not {"bytes", "vlan"} & set(ids)
    assert {column.id: cells for column, cells in chosen}["source"] == 30
    assert sum(cells for _, cells in chosen) + len(chosen) - 1 <= 100


def test_a_hidden_column_is_shown_while_the_list_is_sorted_by_it() -> None:
    hidden = Arrangement(hidden=frozenset({"rate", "bytes"}))
    assert "rate" in [column.id for column, _ in fit(100, keep="rate", arrangement=hidden)]
    assert "bytes" not in [column.id for column, _ in fit(100, keep="rate", arrangement=hidden)]


@pytest.mark.parametrize("vlans", [False, True])
def test_vlans_that_distinguish_no_rows_are_left_out_before_the_protocol(vlans: bool) -> None:
    distinctions = Distinctions(tunnels=True, digits=3, tags=1, vlans=vlans, kinds=True)
    ids = [column.id for column, _ in fit(77, "10s", ("veth0",), "rate", distinctions=distinctions)]
    assert ids == ["direction", *["vlan"] * vlans, "tunnel", "vni", *["protocol"] * (not vlans), "source",
                   "destination", "rate", "rate_10s"]


def test_columns_that_an_order_does_not_name_stand_behind_their_neighbours() -> None:
    ids = [column.id for column in Arrangement(order=("bytes", "gone", "interface", "bytes")).ordered(COLUMNS.values())]
    assert sorted(ids) == sorted(COLUMNS)
    assert ids[:2] == ["bytes", "packets"], "packets stands behind bytes in the registry"
    assert ids[ids.index("interface") + 1] == "direction"


_ids = st.sampled_from([*COLUMNS, "gone"])


@given(st.builds(Arrangement, st.lists(_ids).map(tuple), st.frozensets(_ids), st.frozensets(_ids),
                 st.lists(st.tuples(_ids, st.integers(1, 60)), max_size=4).map(tuple)),
       st.integers(1, 250), st.sampled_from(list(COLUMNS)))
def test_whatever_was_chosen_the_sorted_column_is_there_and_none_is_there_twice(
        arrangement: Arrangement, width: int, keep: str) -> None:
    ids = [column.id for column, _ in fit(width, keep=keep, arrangement=arrangement)]
    assert keep in ids
    assert len(ids) == len(set(ids))
    assert not (arrangement.hidden - {keep}) & set(ids)


PROCESSES = Distinctions(reported=frozenset({"process"}), filled=frozenset(COLUMNS))


def test_a_process_has_room_at_80_columns_where_processes_are_known() -> None:
    chosen = widths(78, names=["eth0"], distinctions=PROCESSES)
    assert chosen["process"] >= len("PROCESS")
    assert {"rate", "bytes", "state"} <= set(chosen) and "interface" not in chosen, "it is the same in all rows"
    assert min(chosen["source"], chosen["destination"]) >= len("198.51.100.7:51514")
    assert "process" not in widths(78, names=["eth0"])


def test_the_protocol_gives_way_to_names_of_processes_that_would_be_cut() -> None:
    """Two interfaces: 4 + 1 + 5 + 2 x 18 + 8 + 10 + 8 cells and 7 gaps are 79 of 78."""
    seen = replace(PROCESSES, interfaces=True, endpoint=len("198.51.100.10:443"))
    assert "protocol" in widths(78, names=["eth0", "eth1"], distinctions=replace(seen, process=len("nginx")))
    chosen = widths(78, names=["eth0", "eth1"], distinctions=replace(seen, process=10))
    assert chosen["process"] >= len("fluent-bit") and "protocol" not in chosen
    assert {"interface", "rate", "bytes"} <= set(chosen) and chosen["source"] >= len("198.51.100.10:443")


def test_beside_groups_a_process_has_room_after_what_the_view_is_for() -> None:
    query = VIEWS[2].query
    columns = shown_columns(VIEWS[2], query, "tick", AUTOMATIC)
    seen = replace(PROCESSES, filled=None)
    at_80, at_120 = (widths(width, columns=columns, distinctions=seen) for width in (78, 118))
    assert "retransmits" in at_80 and "process" not in at_80 and "process" in at_120


def test_short_addresses_keep_no_room_that_others_need() -> None:
    short = replace(PROCESSES, endpoint=len("10.0.0.5:443"))
    assert "interface" not in widths(78, names=["eth0"], distinctions=PROCESSES)
    chosen = widths(78, names=["eth0"], distinctions=short)
    assert {"process", "bytes", "state", "interface"} <= set(chosen)
    assert min(chosen["source"], chosen["destination"]) >= len("10.0.0.5:443")


@pytest.mark.parametrize("interfaces", [False, True])
@pytest.mark.parametrize("endpoint", [12, 16, 18, 21, 39])
def test_how_much_never_gives_way_to_who(endpoint: int, interfaces: bool) -> None:
    seen = replace(PROCESSES, endpoint=endpoint, interfaces=interfaces)
    for width in range(40, 121):
        chosen = widths(width, names=["eth0", "lo"], distinctions=seen)
        assert "rate" in chosen and ("bytes" in chosen or "process" not in chosen), width
        assert interfaces or "bytes" in chosen or "interface" not in chosen or width < 60, width


def test_addresses_of_biflows_are_legible_at_80_columns_also_while_one_compares() -> None:
    chosen = widths(78, names=["eth0"], columns=BIFLOW_COLUMNS.values(), distinctions=PROCESSES, keep="change",
                    needed=frozenset({"change", "trend"}))
    assert {"rate", "change", "trend"} <= set(chosen) and not {"rate_in", "rate_out"} & set(chosen)
    assert min(chosen["source"], chosen["destination"]) >= len("198.51.100.7:51514")


def test_endpoints_are_measured_in_the_rows_as_they_are_shown() -> None:
    rows = [flow(1, "10.0.0.5", "10.0.0.66", (443, 51514)), flow(2, "10.0.0.7", "10.0.0.5", (80, 1))]
    seen = Distinctions().with_texts(rows, COLUMNS.values(), Wording(), NO_LOOKUPS)
    assert seen.endpoint == len("10.0.0.66:51514")
    assert seen.with_texts(rows[1:], COLUMNS.values(), Wording(), NO_LOOKUPS) == seen, "it only grows"


def test_the_interface_stays_beside_a_tunnels_id_where_rows_are_of_several() -> None:
    both = Distinctions(tunnels=True, digits=5, interfaces=True)
    assert {"interface", "vni"} <= widths(78, names=["a", "b"], distinctions=both).keys()


@pytest.mark.parametrize("width", [100, 118, 160])
def test_vlans_are_shown_as_soon_as_there_are_some(width: int) -> None:
    assert "vlan" in widths(width, names=["eth0", "eth1"], distinctions=Distinctions(tags=1))
    assert "vlan" not in widths(118, names=["eth0", "eth1"])


def test_columns_without_any_text_make_room_for_the_others() -> None:
    rows = [flow(number, "198.51.100.7", "10.0.0.5", (443, number), rate=1e3) for number in range(1, 9)]
    empty = {"rtt", "retransmits", "cwnd", "vlan"}
    known = Distinctions().with_rows(rows, tunnels=False).with_texts(rows, COLUMNS.values(), Wording(), NO_LOOKUPS)
    before, after = widths(240), widths(240, distinctions=known)
    assert empty <= before.keys() and not empty & after.keys()
    assert after["source"] > before["source"]
    assert "rtt" in widths(240, distinctions=known, keep="rtt"), "sorted by"
    assert "rtt" in widths(240, distinctions=known, needed=frozenset({"rtt"})), "filtered by"
    assert "rtt" in widths(240, distinctions=known, arrangement=Arrangement(shown=frozenset({"rtt"})))
    answered_now = [row._replace(rtt_us=900) if row.flow_id == 5 else row for row in rows]
    then = known.with_texts(answered_now, COLUMNS.values(), Wording(), NO_LOOKUPS)
    assert "rtt" in widths(240, distinctions=then)
    assert then.with_texts(rows, COLUMNS.values(), Wording(), NO_LOOKUPS) is then, "columns do not come and go"


@pytest.mark.parametrize(("filled", "there"), [
    ({"rate_in"}, {"rate_in", "rate_out"}),
    ({"rate_out", "bytes_in"}, {"rate_in", "rate_out", "bytes_in", "bytes_out"}),
    ({"rate", "bytes"}, set())])
def test_what_came_in_and_what_went_out_stand_together_also_where_one_is_empty(filled: set[str],
                                                                               there: set[str]) -> None:
    chosen = widths(240, columns=GROUP_COLUMNS.values(), distinctions=Distinctions(filled=frozenset(filled)))
    assert {id_ for id_ in chosen if id_.endswith(("_in", "_out"))} == there


@pytest.mark.parametrize(("text", "columns"), [
    ("retransmits", {"retransmits"}), ("tcp and (rtt > 5ms or cwnd < 3)", {"rtt", "cwnd"}), ("ttl < 5", {"ttl"}),
    ("not process nginx", {"process"}), ("vlan 7", {"vlan"}), ("tcp and port 80", set()), ("tos 0x10", set()),
])
def test_what_one_filters_by_is_a_column(text: str, columns: set[str]) -> None:
    shown = filtered_columns(Query(filter=compile_filter(text)))
    assert shown == columns
    assert shown <= widths(78, needed=shown).keys()
    assert filtered_columns(Query(filter=compile_filter(text), group=("source",))) == columns & {"retransmits", "rtt"}


def test_a_text_that_is_looked_for_everywhere_asks_for_no_column() -> None:
    assert filtered_columns(Query(filter=compile_filter("text nginx and bytes > 5"))) == {"bytes"}
