"""Biflows: which flows belong together, who began, sums by way; the oracle is plain Python over the flows."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.fields.columns import Wording
from flowtop.fields.fitting import fit
from flowtop.fields.registry import BIFLOW_COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.filters.terms import flow_as_filter, flow_as_tcpdump
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.elements import ELEMENTS
from flowtop.model.kinds import Direction, Kind, Tunnel
from flowtop.model.rows import FlowRow
from flowtop.output.records import record, record_names
from flowtop.query.answer import Answerer
from flowtop.query.pager import Pager
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.wire.iana import REVERSE_ENTERPRISE, registered
from tests.kernel import frames
from tests.kernel.frames import ethernet, ipv4, udp
from tests.unit.capture.files.writers import pcap
from tests.unit.factories import ACK, FIN, SECOND, START_NS, SYN, batch, counters, key

IN, OUT = Direction.INGRESS, Direction.EGRESS
A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
A6, B6 = "2001:db8::1", "2001:db8::2"
NAMES = Lookups({2: "eth0"})
QUERY = Query(biflow=True, limit=None)
Entry = tuple[Any, Any]


def table_of(*entries: Entry, dedupe: Any = "mark") -> FlowTable:
    """A table after one tick of a second."""
    table = FlowTable(TableConfig(dedupe=dedupe), np.random.default_rng(1))
    table.update(batch(list(entries), START_NS + SECOND))
    return table


def biflows(table: FlowTable, **query: Any) -> list[FlowRow]:
    query = {"biflow": True, "limit": None} | query
    return list(Answerer(np.random.default_rng(1)).answer(Query(**query), table).rows)


def brief(row: FlowRow) -> tuple[Any, ...]:
    """Initiator's address and port, octets each way (None: not seen)."""
    assert row.ways is not None
    reverse = row.ways.reverse
    return (bytes(row.source_address)[:4], row.source_port, row.ways.forward.octet_total,
            None if reverse is None else reverse.octet_total)


def at(milliseconds: int) -> int:
    return START_NS + milliseconds * 1_000_000


def four(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


# ---- who began


def test_the_one_that_sent_a_syn_without_ack_began_though_the_other_was_seen_first() -> None:
    table = table_of((key(B, A, 80, 1000, direction=IN), counters(3, 300, at(0), tcp_bits=SYN | ACK)),
                     (key(A, B, 1000, 80, direction=OUT), counters(2, 50, at(7), tcp_bits=SYN | ACK, opening=True)))
    [row] = biflows(table)
    assert brief(row) == (four(A), 1000, 50, 300)
    assert row.ways is not None and row.ways.opened
    assert (row.octet_total, row.packet_total, row.octet_rate) == (350, 5, 350.0)
    assert (row.direction, row.destination_port, row.flows) == (OUT, 80, 2)


@pytest.mark.parametrize(("opening", "began"), [(False, (four(A), 9, 50, 300)), (True, (four(B), 8, 300, 50))])
def test_without_a_syn_the_lower_port_is_the_servers_and_with_two_of_them_the_one_seen_first_began(
        opening: bool, began: tuple[Any, ...]) -> None:
    table = table_of((key(A, B, 9, 8), counters(1, 50, at(7), opening=opening)),
                     (key(B, A, 8, 9, direction=OUT), counters(1, 300, at(6), opening=opening)))
    [row] = biflows(table)
    assert brief(row) == began
    assert row.ways is not None and not row.ways.opened and row.ways.guessed


@pytest.mark.parametrize(("protocol", "ports", "first", "client", "guessed"), [
    (6, (51000, 443), "server", "client", True), (6, (51000, 443), "client", "client", True),
    (17, (51000, 53), "client", "client", False), (17, (51000, 53), "server", "client", True),
    (17, (5353, 5354), "client", "client", True), (17, (5353, 5354), "server", "server", True),
    (17, (40000, 50000), "server", "server", True)])
def test_which_end_is_the_client_and_when_that_is_a_guess(protocol: int, ports: tuple[int, int], first: str,
                                                         client: str, guessed: bool) -> None:
    """A connection open before the start; a server whose clients' ports are well above; and what nothing tells."""
    asks, answers = ports
    table = table_of((key(A, B, asks, answers, protocol), counters(1, 50, at(7 if first == "server" else 6))),
                     (key(B, A, answers, asks, protocol, direction=OUT), counters(1, 300, at(6 if first == "server"
                                                                                            else 7))))
    [row] = biflows(table)
    assert brief(row)[:2] == ((four(A), asks) if client == "client" else (four(B), answers))
    assert row.ways is not None and row.ways.guessed == guessed


def test_a_syn_makes_it_no_guess() -> None:
    [row] = biflows(table_of((key(A, B, 51000, 443), counters(1, 50, at(7), opening=True)),
                             (key(B, A, 443, 51000, direction=OUT), counters(1, 300, at(6)))))
    assert brief(row)[:2] == (four(A), 51000) and row.ways is not None and not row.ways.guessed


@pytest.mark.parametrize("turned", [False, True])
def test_at_the_same_time_the_one_that_sends_to_the_lower_port_began(turned: bool) -> None:
    client, server = (B, A) if turned else (A, B)
    table = table_of((key(server, client, 53, 40000, 17), counters(1, 200)),
                     (key(client, server, 40000, 53, 17, direction=OUT), counters(1, 60)))
    assert [brief(row) for row in biflows(table)] == [(four(client), 40000, 60, 200)]


def test_a_way_alone_is_a_biflow_of_one_way() -> None:
    [row] = biflows(table_of((key(B, A, 80, 1000), counters(1, 70))))
    assert brief(row) == (four(B), 80, 70, None)
    assert (row.octet_total, row.flows) == (70, 1)


def test_the_initiator_stays_when_the_syn_comes_to_light_and_the_id_with_it() -> None:
    table = table_of((key(A, B, 9, 8), counters()), (key(B, A, 8, 9, direction=OUT), counters()))
    answerer = Answerer()
    [before] = answerer.answer(QUERY, table).rows
    table.update(batch([(key(B, A, 8, 9, direction=OUT), counters(first_ns=at(1500), opening=True))],
                       START_NS + 2 * SECOND))
    [after] = answerer.answer(QUERY, table).rows
    assert before.flow_id == after.flow_id
    assert (before.source_port, after.source_port) == (9, 8)


# ---- ICMP


@pytest.mark.parametrize(("hosts", "protocol", "request_type", "reply"), [
    ((A, B), 1, 8, 0), ((B, A), 1, 13, 14), ((A, B), 1, 17, 18), ((A6, B6), 58, 128, 129), ((B6, A6), 58, 128, 129)])
def test_icmp_answers_belong_to_their_requests(hosts: tuple[str, str], protocol: int, request_type: int,
                                               reply: int) -> None:
    one, other = hosts
    table = table_of((key(other, one, 0, reply << 8, protocol, direction=OUT), counters(1, 84)),
                     (key(one, other, 0, request_type << 8, protocol), counters(2, 168)))
    [row] = biflows(table)
    assert row.ways is not None and row.ways.reverse is not None and row.ways.opened
    assert (row.destination_port, row.octet_total) == (request_type << 8, 252)
    assert (row.ways.forward.octet_total, row.ways.reverse.octet_total) == (168, 84)


def test_two_hosts_that_ping_each_other_are_two_biflows() -> None:
    table = table_of((key(A, B, 0, 8 << 8, 1), counters(1, 1)), (key(B, A, 0, 0, 1), counters(1, 2)),
                     (key(B, A, 0, 8 << 8, 1), counters(1, 4)), (key(A, B, 0, 0, 1), counters(1, 8)))
    assert sorted(brief(row) for row in biflows(table)) == [(four(A), 0, 1, 2), (four(B), 0, 4, 8)]


def test_other_icmp_stays_alone() -> None:
    table = table_of((key(A, B, 0, 3 << 8 | 3, 1), counters()), (key(B, A, 0, 3 << 8 | 3, 1), counters()))
    assert [row.flows for row in biflows(table)] == [1, 1]


# ---- Observation Points


def test_ways_over_different_interfaces_and_vlans_are_one_biflow_where_duplicates_are_looked_for() -> None:
    entries = ((key(A, B, 9000, 80, ifindex=2, direction=OUT, vlan_id=20), counters(1, 10)),
               (key(B, A, 80, 9000, ifindex=3, direction=IN), counters(1, 20)))
    assert [brief(row)[2:] for row in biflows(table_of(*entries))] == [(10, 20)]
    assert sorted(str(brief(row)[2:]) for row in biflows(table_of(*entries, dedupe="off"))) == [
        "(10, None)", "(20, None)"]


@pytest.mark.parametrize("dedupe", ["mark", "drop", "off"])
def test_loopback_shows_the_totals_once_and_the_other_observation_points_apart(dedupe: str) -> None:
    there = [(key(A, B, 9000, 80, ifindex=1, direction=way), counters(1, 10)) for way in (OUT, IN)]
    back = [(key(B, A, 80, 9000, ifindex=1, direction=way), counters(1, 20)) for way in (OUT, IN)]
    rows = biflows(table_of(*there, *back, dedupe=dedupe))
    whole = [brief(row)[2:] for row in rows if not row.duplicate]
    assert whole == [(10, 20)] * (2 if dedupe == "off" else 1)
    # Both ways of duplicates come in here: no one direction has a way back.
    halves = sorted(row.octet_total for row in rows if row.duplicate)
    assert halves == ([10, 20] if dedupe == "mark" else [])


def test_a_vlan_subinterface_and_its_parent_count_once() -> None:
    table = table_of(*((key(*ends, direction=way, ifindex=point, vlan_id=vlan), counters(1, octets))
                       for ends, way, octets in (((A, B, 9000, 80), OUT, 10), ((B, A, 80, 9000), IN, 20))
                       for point, vlan in ((4, 0), (2, 20))))
    rows = biflows(table)
    assert [brief(row)[2:] for row in rows if not row.duplicate] == [(10, 20)]
    assert [brief(row)[2:] for row in rows if row.duplicate] == [(10, 20)]


@pytest.mark.parametrize("dedupe", ["mark", "off"])
def test_equal_addresses_in_different_tunnels_are_different_conversations(dedupe: str) -> None:
    ways = ((A, B, 1000, 80, 6, IN), 1), ((B, A, 80, 1000, 6, OUT), 2)
    table = table_of(*((key(*ends, tunnel=Tunnel.VXLAN if vni else Tunnel.NONE, tunnel_id=vni),
                        counters(1, vni + octets, at(octets))) for vni in (0, 10, 20, 30) for ends, octets in ways),
                     dedupe=dedupe)
    assert sorted(brief(row)[2:] for row in biflows(table)) == [(1, 2), (11, 12), (21, 22), (31, 32)]


def test_parents_of_different_tunnels_stay_apart() -> None:
    table = table_of(*((key(A, B, 50_000, 4789, 17, kind=Kind.PARENT, tunnel=Tunnel.VXLAN, tunnel_id=vni),
                        counters(1, vni)) for vni in (10, 20)))
    assert sorted(brief(row)[2:] for row in biflows(table)) == [(10, None), (20, None)]


@pytest.mark.parametrize(("device", "expected"), [(7, [(40, 60)]), (2, [(40, None), (60, None)])])
def test_one_way_on_the_tunnels_device_and_the_other_on_the_uplink_are_one(device: int, expected: Any) -> None:
    table = table_of((key(A, B, 1000, 80, ifindex=device, direction=OUT), counters(1, 40, at(0))),
                     (key(B, A, 80, 1000, ifindex=2, direction=IN, tunnel=Tunnel.VXLAN, tunnel_id=10),
                      counters(1, 60, at(1))))
    assert sorted(brief(row)[2:] for row in biflows(table)) == expected


def test_aggregates_and_fragments_stay_alone() -> None:
    nobody = dict(source="0.0.0.0", destination="0.0.0.0", source_port=0, destination_port=0)
    entries = [(key(**nobody, direction=way, kind=Kind.AGGREGATE), counters()) for way in (IN, OUT)]  # type: ignore[arg-type]
    entries += [(key(one, other, 0, 0, 17, direction=way, kind=Kind.FRAGMENT), counters())
                for one, other, way in ((A, B, IN), (B, A, OUT))]
    rows = biflows(table_of(*entries))
    assert [row.flows for row in rows] == [1] * 4
    assert all(row.ways is not None and row.ways.reverse is None for row in rows)


def test_a_host_that_speaks_to_itself_through_one_port_is_one_way() -> None:
    [row] = biflows(table_of((key(A, A, 123, 123, 17), counters(1, 10))))
    assert brief(row)[2:] == (10, None)


# ---- the rest of a query


def test_a_filter_of_one_way_passes_the_whole_biflow() -> None:
    table = table_of((key(A, B, 9000, 80), counters(1, 10)), (key(B, A, 80, 9000, direction=OUT), counters(1, 20)),
                     (key(A, C, 9000, 80), counters(1, 40)))
    for text in ("src host 10.0.0.2", "dst port 80 and dst host 10.0.0.2"):
        answer = Answerer().answer(Query(biflow=True, filter=compile_filter(text)), table)
        assert [brief(row)[2:] for row in answer.rows] == [(10, 20)]
        assert (answer.matched, answer.matched_flows, answer.flows) == (1, 1, 3)


@pytest.mark.parametrize("column", ["source", "destination", "protocol", "interface"])
def test_without_what_a_cell_shows_the_biflow_is_away(column: str) -> None:
    table = table_of((key(A, B, 9000, 80), counters()), (key(B, A, 80, 9000, direction=OUT), counters()))
    [row] = biflows(table)
    term = BIFLOW_COLUMNS[column].term(row, NAMES)
    assert Answerer().answer(Query(biflow=True, filter=compile_filter(term)), table, NAMES).matched == 1
    assert Answerer().answer(Query(biflow=True, filter=compile_filter(f"not ({term})")), table,
                             NAMES).matched == 0


def test_an_anchor_that_is_a_flow_finds_its_biflow() -> None:
    table = table_of((key(A, B, 9000, 80), counters(1, 10)), (key(B, A, 80, 9000, direction=OUT), counters(1, 20)),
                     (key(A, C, 9000, 80), counters(1, 40)))
    answerer = Answerer()
    flows = {row.octet_total: row.flow_id for row in answerer.answer(Query(), table).rows}
    rows = answerer.answer(Query(biflow=True), table).rows
    assert [row.octet_total for row in rows] == [40, 30]
    for octets, rank in ((10, 1), (20, 1), (40, 0)):
        answer = answerer.answer(Query(biflow=True, anchor=flows[octets]), table)
        assert (answer.anchor_rank, answer.anchor_row) == (rank, rows[rank].flow_id)
    away = answerer.answer(Query(biflow=True, anchor=flows[40], filter=compile_filter("host 10.0.0.2")), table)
    assert (away.anchor_rank, away.anchor_row) == (None, None)
    assert answerer.answer(Query(biflow=True, anchor=max(flows.values()) + 1), table).anchor_row is None


def test_a_later_look_is_as_a_first_one_whatever_became_of_the_flows() -> None:
    table = table_of((key(A, B, 9000, 80, ifindex=2), counters(1, 10)), (key(A, C, 9000, 80), counters(1, 40)))
    answerer = Answerer(np.random.default_rng(1))

    def look(**query: Any) -> int:
        found = answerer.answer(Query(**{"biflow": True, "limit": None} | query), table).rows
        assert list(found) == biflows(table, **query)
        return len(found)

    assert look() == look(sort="bytes_in") == 2
    ticks = [
        [(key(B, A, 80, 9000, direction=OUT), counters(1, 99, at(1500), opening=True))],  # a way back is born
        [(key(A, B, 9000, 80, ifindex=2), counters(7, 70, at(2500)))],  # no flow is
        [(key(A, B, 9000, 80, ifindex=3), counters(7, 70, at(3500)))],  # one that may be a duplicate
        [(key(A6, B6, 9000, 80), counters(1, 5, at(4500)))],
    ]
    for number, entries in enumerate(ticks, 2):
        table.update(batch(entries, START_NS + number * SECOND))
        look()
        look(sort="bytes_out")
    for number in range(8, 60, 4):  # one after the other ends and leaves
        table.update(batch([], START_NS + number * SECOND))
        look()
    assert look() == 0
    table.update(batch([(key(C, A, 80, 9000), counters(1, 1, at(61_000)))], START_NS + 62 * SECOND))
    assert look() == 1


def test_ended_biflows_can_be_left_out_but_for_the_anchor() -> None:
    table = table_of((key(A, B, 9000, 80), counters(1, 10)), (key(B, A, 80, 9000, direction=OUT), counters(1, 20)),
                     (key(A, C, 9000, 80), counters(1, 40)))
    table.update(batch([(key(A, C, 9000, 80), counters(1, 1, at(14_000)))], START_NS + 16 * SECOND))
    [alive, ended] = biflows(table, sort="bytes")
    assert (bool(alive.end_reason), bool(ended.end_reason)) == (False, True)
    def left(**query: Any) -> list[FlowRow]:
        """Shares are of what is listed, and so others."""
        return [row._replace(shares=alive.shares) for row in biflows(table, ended=False, **query)]

    ended = ended._replace(shares=alive.shares)
    assert left() == [alive]
    assert left(anchor=ended.flow_id, sort="bytes") == [alive, ended]
    other = compile_filter("host 10.0.0.3")
    assert left(anchor=ended.flow_id, filter=other) == [alive], "it does not pass at all"


def test_a_biflow_that_is_looked_at_stays_with_both_its_ways_after_it_has_ended() -> None:
    table = FlowTable(TableConfig(idle_timeout_s=1, linger_s=2), np.random.default_rng(1))
    table.update(batch([(key(A, B, 9000, 80), counters(1, 10)), (key(B, A, 80, 9000, direction=OUT), counters(1, 20)),
                        (key(A, C, 9000, 80), counters(1, 40))], START_NS + SECOND))
    pager = Pager()
    now = Page(QUERY, tick=1, unix_ms=0, uptime_s=1, tick_s=1, rows=(), matched=0, flows=0, active_flows=0,
               anchor_rank=None, books=Books(), ingress=Traffic(), egress=Traffic(), attached=())
    [row] = [row for row in pager.page(QUERY, table, now).rows if row.octet_total == 30]
    asked = replace(QUERY, anchor=row.flow_id)
    for second in range(2, 20):
        pager.page(asked, table, now)
        table.update(batch([], START_NS + second * SECOND))
    [kept] = pager.page(asked, table, now).rows
    assert (kept.flow_id, brief(kept)[2:]) == (row.flow_id, (10, 20))
    as_flows = pager.page(Query(limit=None, anchor=row.flow_id, ended=False), table, now)
    assert [flow.octet_total for flow in as_flows.rows] == [10], "the first of the two"
    assert as_flows.anchor_row == as_flows.rows[0].flow_id
    assert pager.page(replace(QUERY, anchor=None), table, now).rows == ()


def test_held_order_and_anchor_know_a_biflow_by_its_id() -> None:
    table = table_of((key(A, B, 9000, 80), counters(1, 10)), (key(A, C, 9000, 80), counters(1, 20)))
    answerer = Answerer()
    held = [row.flow_id for row in answerer.answer(Query(biflow=True, hold=1, sort="bytes"), table).rows]
    table.update(batch([(key(B, A, 80, 9000, direction=OUT), counters(1, 99, at(1500)))], START_NS + 2 * SECOND))
    again = answerer.answer(Query(biflow=True, hold=1, sort="bytes", anchor=held[1]), table)
    assert [row.flow_id for row in again.rows] == held
    assert [row.octet_total for row in again.rows] == [20, 109]
    assert again.anchor_rank == 1
    assert [row.octet_total for row in answerer.answer(Query(biflow=True, sort="bytes"), table).rows] == [109, 20]


def test_state_is_of_both_ways() -> None:
    table = table_of((key(A, B, 9000, 80), counters()),
                     (key(B, A, 80, 9000, direction=OUT), counters(tcp_bits=FIN | ACK)))
    [row] = biflows(table)
    assert row.closing and not row.end_reason
    assert row.ways is not None and row.ways.reverse is not None
    assert (row.ways.forward.tcp_control_bits, row.ways.reverse.tcp_control_bits) == (0, FIN | ACK)


# ---- a biflow handed on

KINDS: tuple[Entry, ...] = (
    (key(A, B, 1000, 80), counters()), (key(B, A, 80, 1000, direction=OUT), counters()),
    (key(A, B, 80, 1000), counters()), (key(A, B, 1000, 80, 17), counters()), (key(A, A, 5, 80), counters()),
    (key(A, B, 0, 8 << 8, 1), counters()), (key(B, A, 0, 0, 1, direction=OUT), counters()),
    (key(B, A, 0, 8 << 8, 1), counters()), (key(A, B, 0, 3 << 8, 1), counters()),
    (key(A, B, 0, 3 << 8 | 1, 1), counters()), (key(A, B, 0, 0, 47), counters()),
    (key(B, A, 0, 0, 47, direction=OUT), counters()), (key(A6, B6, 1000, 80), counters()),
    (key(B6, A6, 80, 1000, direction=OUT), counters()), (key(A6, B6, 0, 128 << 8, 58), counters()),
    (key(A, B, 0, 0, 17, kind=Kind.FRAGMENT), counters()), (key(A, C, 1000, 80, vlan_id=7), counters()),
    (key(C, A, 80, 1000, direction=OUT, vlan_id=7), counters()))


def test_as_a_filter_a_biflow_is_its_own_flows_both_ways() -> None:
    table = table_of(*KINDS)
    rows = biflows(table)
    assert len(rows) == 13
    for row in rows:
        if row.kind == Kind.FRAGMENT:
            continue  # the language has no word for fragments
        answer = Answerer().answer(Query(filter=compile_filter(flow_as_filter(row, NAMES))), table, NAMES)
        assert row.ways is not None
        ways = {way.flow_id for way in (row.ways.forward, row.ways.reverse) if way is not None}
        assert {flow.flow_id for flow in answer.rows} == ways, flow_as_filter(row, NAMES)


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
def test_as_a_tcpdump_expression_a_biflow_is_its_own_packets_both_ways(tmp_path: Path) -> None:
    """One frame a flow; which of them tcpdump takes."""
    sent = [(A, B, udp(1000, 80), 17, ()), (B, A, udp(80, 1000), 17, ()), (A, B, udp(80, 1000), 17, ()),
            (A, B, frames.icmp(8, 0), 1, ()), (B, A, frames.icmp(0, 0), 1, ()), (B, A, frames.icmp(8, 0), 1, ()),
            (A, C, udp(1000, 80), 17, ((0x8100, 7),)), (C, A, udp(80, 1000), 17, ((0x8100, 7),)),
            (C, B, udp(1000, 80), 17, ()), (B, C, udp(80, 1000), 17, ((0x8100, 8),))]
    sent_frames = [(number * SECOND, ethernet(0x0800, ipv4(payload, protocol, source=source, destination=destination),
                                         tags=tags))
              for number, (source, destination, payload, protocol, tags) in enumerate(sent)]
    path = tmp_path / "frames.pcap"
    path.write_bytes(pcap(sent_frames))

    def taken(row: FlowRow) -> list[int]:
        done = subprocess.run(["tcpdump", "-n", "-tt", "-r", str(path), flow_as_tcpdump(row)], capture_output=True,
                              text=True, check=True)
        return [int(float(text.split()[0])) for text in done.stdout.splitlines()]

    def one(*entries: Entry) -> FlowRow:
        [row] = biflows(table_of(*entries))
        return row

    assert taken(one((key(A, B, 1000, 80, 17), counters()), (key(B, A, 80, 1000, 17), counters()))) == [0, 1]
    assert taken(one((key(A, B, 1000, 80, 17), counters()))) == [0, 1], "an answer that was not seen yet, too"
    assert taken(one((key(A, B, 80, 1000, 17), counters()))) == [2]
    assert taken(one((key(A, B, 0, 8 << 8, 1), counters()), (key(B, A, 0, 0, 1), counters()))) == [3, 4]
    assert taken(one((key(A, C, 1000, 80, 17, vlan_id=7), counters()),
                     (key(C, A, 80, 1000, 17, vlan_id=7), counters()))) == [6, 7]
    assert taken(one((key(C, B, 1000, 80, 17), counters()),
                     (key(B, C, 80, 1000, 17, vlan_id=8), counters()))) == [8, 9]


# ---- columns and records


@pytest.mark.parametrize("column", BIFLOW_COLUMNS.values(), ids=BIFLOW_COLUMNS)
def test_a_column_sorts_and_is_printable(column: Any) -> None:
    table = table_of((key(A, B, 9000, 80), counters(3, 10)), (key(B, A, 80, 9000, direction=OUT), counters(1, 20)),
                     (key(C, B, 9000, 80), counters(1, 40)), (key(A6, B6, 9000, 80, 17), counters(1, 30)))
    rows = biflows(table, sort=column.id, descending=True)
    assert {row.flow_id for row in rows} == {row.flow_id for row in biflows(table)} and len(rows) == 3
    for row in rows:
        text = column.cell(row, Wording(), NO_LOOKUPS, 20)
        assert len(text) == 20 and all(unicodedata.category(c)[0] not in "CM" for c in text)
    field = column.id.rpartition("_")
    if field[2] in ("in", "out"):
        way = "octet_total" if field[0] == "bytes" else "packet_total" if field[0] == "packets" else "octet_rate"
        values = [getattr(row.sides[field[2] == "out"], way) for row in rows if row.sides is not None]
        assert values == sorted(values, reverse=True) and len(set(values)) > 1


@pytest.mark.parametrize("width", [80, 120, 200])
def test_both_ways_of_the_rate_are_there_however_narrow(width: int) -> None:
    chosen = fit(width, columns=BIFLOW_COLUMNS.values(), names=["enp0s31f6"])
    assert {"rate", "rate_in", "rate_out", "source", "destination"} <= {column.id for column, _ in chosen}
    assert sum(cells for _, cells in chosen) + len(chosen) - 1 <= width


def test_json_has_the_reverse_elements_of_rfc_5103() -> None:
    table = table_of((key(A, B, 1000, 80, direction=OUT), counters(2, 50, at(0), at(100), SYN, opening=True)),
                     (key(B, A, 80, 1000), counters(3, 300, at(40), at(90), SYN | ACK, ttl=57)),
                     (key(A, C, 7, 8), counters(1, 1)))
    found, alone = (record(row, QUERY, NAMES) for row in biflows(table, sort="bytes"))
    assert found["sourceIPv4Address"] == A and found["destinationTransportPort"] == 80
    assert (found["octetTotalCount"], found["packetTotalCount"], found["tcpControlBits"]) == (50, 2, SYN)
    assert (found["reverseOctetTotalCount"], found["reversePacketTotalCount"]) == (300, 3)
    assert (found["reverseOctetDeltaCount"], found["reversePacketDeltaCount"]) == (300, 3)
    assert (found["reverseTcpControlBits"], found["reverseIpTTL"], found["biflowDirection"]) == (SYN | ACK, 57, 1)
    assert found["reverseFlowStartMilliseconds"] - found["flowStartMilliseconds"] == 40
    assert set(found) <= set(record_names(QUERY))
    names = [name for name in found if name.startswith("reverse") and f"{name[7].lower()}{name[8:]}" in ELEMENTS]
    assert len(names) == 9
    for name in names:  # each is the reverse of an element of that name in the registry
        number = ELEMENTS[f"{name[7].lower()}{name[8:]}"].number
        assert (element := registered(number, REVERSE_ENTERPRISE)) is not None and element.name == name
    assert "biflowDirection" not in alone and not any(name.startswith("reverse") for name in alone)


# ---- any flows at all

ICMP_ANSWER = {0: 8, 14: 13, 18: 17}
ends = st.tuples(st.sampled_from([A, B]), st.sampled_from([A, B]), st.sampled_from([5, 80]), st.sampled_from([5, 80]))


def ports_of(flow: Any) -> tuple[int, int]:
    (_, _, source, destination), protocol, _, _, _, kind, icmp, *_ = flow
    return (0, 0) if kind else (0, icmp << 8) if protocol == 1 else (source, destination)


flows = st.lists(st.tuples(ends, st.sampled_from([6, 17, 1]), st.sampled_from([IN, OUT]), st.sampled_from([2, 3]),
                           st.sampled_from([0, 7]), st.sampled_from([0, 0, 0, 2]), st.sampled_from([0, 3, 8, 14, 13]),
                           st.integers(0, 3), st.booleans(), st.integers(1, 1 << 40)),
                 max_size=30, unique_by=lambda flow: (flow[0][:2], ports_of(flow), flow[1:6]))


def conversation(row: FlowRow, dedupes: bool) -> tuple[Hashable, Hashable]:
    """What the row belongs to, and which way it is of it."""
    one, other = (row.source_address, row.source_port), (row.destination_address, row.destination_port)
    turned = False
    if row.kind == 0 and row.protocol == 1:
        kind = row.destination_port >> 8
        turned = kind in ICMP_ANSWER
        hosts = (row.destination_address, row.source_address) if turned else (row.source_address,
                                                                              row.destination_address)
        who: Hashable = (hosts, ICMP_ANSWER.get(kind, kind))
    elif row.kind == 0:
        turned = one > other
        who = (min(one, other), max(one, other))
    else:
        who = (one, other)
    point = None
    if not dedupes or row.duplicate or row.kind:
        point = (row.ifindex, row.vlan_id, row.customer_vlan_id, row.direction if not turned else 1 - row.direction,
                 row.duplicate)
    return (who, row.protocol, row.ip_version, row.kind, point), turned


@settings(deadline=None, max_examples=80)
@given(flows, st.sampled_from(["mark", "off"]))
def test_biflows_are_what_plain_python_makes_of_the_flows(some: list[Any], dedupe: str) -> None:
    entries = []
    for flow in some:
        (source, destination, *_), protocol, way, point, vlan, kind, _, first, opening, octets = flow
        entries.append((key(source, destination, *ports_of(flow), protocol, way, point, vlan, kind=kind),
                        counters(1, octets, at(first), opening=opening and protocol == 6)))
    table = table_of(*entries, dedupe=dedupe)
    opened = {int(flow_id): bool(is_opening) for flow_id, is_opening in zip(
        table.columns["flow_id"], table.columns["opening"], strict=True)}
    together: dict[Hashable, dict[Hashable, list[FlowRow]]] = defaultdict(lambda: defaultdict(list))
    for row in Answerer().answer(Query(limit=None), table).rows:
        who, turned = conversation(row, dedupe != "off")
        together[who][turned].append(row)

    def begins(rows: list[FlowRow]) -> bool:
        return any(opened[row.flow_id] or (row.protocol == 1 and not row.kind and row.destination_port >> 8 in (8, 13))
                   for row in rows)

    expected = []
    for by_way in together.values():
        ways = list(by_way.values())
        if len(ways) == 2:
            if begins(ways[0]) != begins(ways[1]):
                ways.sort(key=begins, reverse=True)
            else:  # a TCP connection without a SYN was open before: its server has the lower port
                ways.sort(key=lambda rows: (
                    rows[0].destination_port if rows[0].protocol == 6 and not begins(rows) else 0,
                    min(row.start_ms for row in rows), rows[0].destination_port, rows[0].source_address))
        expected.append((tuple(ways[0][0][1:5]), *(sum(row.octet_total for row in rows) for rows in ways),
                         *([None] if len(ways) == 1 else []), sum(map(len, ways))))
    found = []
    for row in biflows(table):
        assert row.ways is not None
        reverse = row.ways.reverse
        found.append((tuple(row[1:5]), row.ways.forward.octet_total, None if reverse is None else reverse.octet_total,
                      row.flows))
        assert row.octet_total == row.ways.forward.octet_total + (reverse.octet_total if reverse else 0)
    assert sorted(found, key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize(("source", "ports", "opening", "client", "server"), [
    (B, (443, 51000), False, f"?{A}:51000", f"{B}:443"),  # the server's way alone
    (A, (51000, 443), False, f"?{A}:51000", f"{B}:443"),
    (B, (443, 51000), True, f"{B}:443", f"{A}:51000"),  # it sent a SYN: it is the client
    (B, (443, 500), False, f"?{B}:443", f"{A}:500"),  # nothing tells
])
def test_of_a_way_alone_the_ports_tell_who_is_the_client(source: str, ports: tuple[int, int], opening: bool,
                                                         client: str, server: str) -> None:
    other = A if source == B else B
    [row] = biflows(table_of((key(source, other, *ports), counters(1, 50, at(7), opening=opening))))
    shown = [BIFLOW_COLUMNS[name] for name in ("source", "destination")]
    assert [column.text(row, Wording(), NO_LOOKUPS) for column in shown] == [client, server]
    assert [column.cell(row, Wording(), NO_LOOKUPS, 60).strip() for column in shown] == [client, server]
    for column, text in zip(shown, (client, server), strict=True):
        address, port = text.strip("?").split(":")
        assert column.term(row, NO_LOOKUPS) in (f"{address}:{port}", f"host {address} and port {port}")
