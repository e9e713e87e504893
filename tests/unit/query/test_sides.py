"""In and out: of hosts, groups, biflows and of what is listed. Expectations are added up by hand from the entries."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from flowtop.errors import FlowtopError
from flowtop.fields.columns import Wording
from flowtop.fields.networks import RemoteEnds
from flowtop.fields.registry import GROUPS
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.devices import Device, DeviceView
from flowtop.model.kinds import Direction, Kind, Tunnel
from flowtop.model.owners import PROCESSES, owner_id
from flowtop.model.rows import FlowRow
from flowtop.networks.here import AGAIN_S, HostAddresses
from flowtop.query.answer import Answer, Answerer, both_ways
from flowtop.query.books import passed, with_coverage
from flowtop.query.layout import columns_of, sort_column
from flowtop.query.query import Query
from flowtop.text.lookups import Lookups
from tests.unit.factories import SECOND, START_NS, batch, counters, key, observation, packed

IN, OUT = Direction.INGRESS, Direction.EGRESS
SERVER, SERVER6 = "198.51.100.1", "2001:db8::1"
ALICE, BOB, LAN = "203.0.113.5", "203.0.113.6", "10.0.0.7"
ALICE6 = "2001:db8:7::5"
BROADCAST, MULTICAST = "198.51.100.255", "224.0.0.251"


def here(*own: str, broadcast: str = BROADCAST) -> HostAddresses:
    return HostAddresses(lambda: ([ipaddress.ip_address(text).packed for text in own or (SERVER, SERVER6)],
                                  [ipaddress.ip_address(broadcast).packed]))


LOCAL = Lookups({2: "eth0", 3: "eth1"}, here=here())
ENTRIES = [  # source, destination, ports, direction, octets
    (ALICE, SERVER, 51000, 443, IN, 100), (SERVER, ALICE, 443, 51000, OUT, 5_000),
    (BOB, SERVER, 52000, 443, IN, 70), (SERVER, BOB, 443, 52000, OUT, 900),
    (SERVER, BOB, 33000, 22, OUT, 11), (BOB, SERVER, 22, 33000, IN, 13),
    (ALICE6, SERVER6, 51000, 443, IN, 3), (SERVER6, ALICE6, 443, 51000, OUT, 17),
    (LAN, BROADCAST, 137, 137, IN, 19), (LAN, MULTICAST, 5353, 5353, IN, 23), (SERVER, MULTICAST, 5353, 5353, OUT, 29)]
IN_SUM, OUT_SUM = 100 + 70 + 13 + 3 + 19 + 23, 5_000 + 900 + 11 + 17 + 29


def table(entries: Any = ENTRIES, *, dedupe: Any = "mark", **of: Any) -> FlowTable:
    flows = FlowTable(TableConfig(dedupe=dedupe), np.random.default_rng(1))
    flows.update(batch([(key(source, destination, *ports, direction=direction, **of), counters(1, octets))
                        for source, destination, *ports, direction, octets in entries], START_NS + SECOND))
    return flows


def answer(flows: FlowTable, lookups: Lookups = LOCAL, **query: Any) -> Answer:
    return Answerer(np.random.default_rng(1)).answer(Query(**{"limit": None} | query), flows, lookups)


def host(row: FlowRow) -> str:
    return GROUPS["host"].text(row.group[0], LOCAL)


def octets(row: FlowRow) -> tuple[int, int]:
    assert row.sides is not None
    return row.sides.into.octet_total, row.sides.out_of.octet_total


def sides(row: FlowRow) -> tuple[int, int]:
    assert row.sides is not None
    assert [side.octet_rate for side in row.sides] == pytest.approx([side.octet_total for side in row.sides]), "1 s"
    assert sum(side.octet_total for side in row.sides) == row.octet_total
    return row.sides.into.octet_total, row.sides.out_of.octet_total


def test_hosts_are_the_remote_ends_with_what_came_from_them_and_what_went_there() -> None:
    found = {host(row): (*sides(row), row.flows) for row in answer(table(), group=("host",)).rows}
    assert found == {ALICE: (100, 5_000, 2), BOB: (83, 911, 4), ALICE6: (3, 17, 2), LAN: (42, 0, 2),
                     MULTICAST: (0, 29, 1)}


@pytest.mark.parametrize(("sort", "first"), [("rate_in", ALICE), ("rate_out", ALICE), ("share", ALICE), ("flows", BOB),
                                             ("bytes_in", ALICE)])
def test_hosts_are_sorted_by_either_way(sort: str, first: str) -> None:
    rows = answer(table(), group=("host",), sort=sort).rows
    assert host(rows[0]) == first
    column = {"rate_in": 0, "bytes_in": 0, "rate_out": 1}.get(sort)
    if column is not None:
        values = [sides(row)[column] for row in rows]
        assert values == sorted(values, reverse=True)


def test_without_addresses_of_this_host_both_ends_are_hosts() -> None:
    """Of a file or of exporters; every octet counts at each end, in at one and out at the other."""
    expected: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for source, destination, _, _, _, octets in ENTRIES:
        expected[source][0] += octets
        if destination not in (BROADCAST, MULTICAST):
            expected[destination][1] += octets
    found = {host(row): list(sides(row)) for row in answer(table(), Lookups(), group=("host",)).rows}
    multicast = found.pop(MULTICAST, None), found.pop(BROADCAST, None)
    assert {name: found[name] for name in expected} == dict(expected)
    assert multicast == ([0, 52], [0, 19])


def test_forwarded_flows_count_for_both_ends_and_once_at_each() -> None:
    """At both interfaces of a router: the second one is a duplicate."""
    flows = FlowTable(TableConfig(dedupe="mark"), np.random.default_rng(1))
    flows.update(batch([(key(ALICE, LAN, 443, 50000, direction=IN, ifindex=2), counters(4, 4_000, START_NS + 1)),
                        (key(ALICE, LAN, 443, 50000, direction=OUT, ifindex=3), counters(4, 4_000, START_NS + 2)),
                        (key(LAN, ALICE, 50000, 443, direction=IN, ifindex=3), counters(2, 80, START_NS + 3)),
                        (key(LAN, ALICE, 50000, 443, direction=OUT, ifindex=2), counters(2, 80, START_NS + 4))],
                       START_NS + SECOND))
    result = answer(flows, group=("host",))
    assert {host(row): sides(row) for row in result.rows} == {ALICE: (4_000, 80), LAN: (80, 4_000)}
    assert result.listed is not None
    assert [side.octet_total for side in result.listed.sides] == [4_000, 80], "what goes to the public end is out"
    by_interface = {row.group[0][0]: sides(row) for row in answer(flows, group=("interface",)).rows}
    assert by_interface == {2: (4_000, 80), 3: (80, 4_000)}, "of an interface: as it received and sent"


@pytest.mark.parametrize("biflow", [False, True])
def test_what_is_listed_is_added_up_and_is_a_part_of_all(biflow: bool) -> None:
    everything = answer(table(), biflow=biflow).listed
    some = answer(table(), biflow=biflow, filter=compile_filter(f"host {BOB} and port 443")).listed
    assert everything is not None and some is not None
    assert [side.octet_total for side in everything.sides] == [IN_SUM, OUT_SUM]
    assert [side.octet_rate for side in some.sides] == pytest.approx([70, 900])
    assert everything.shares == (1, 1, 1)
    assert some.shares == pytest.approx((970 / (IN_SUM + OUT_SUM),) * 3)


def test_tunnels_are_added_up_once() -> None:
    flows = FlowTable(TableConfig(dedupe="mark"), np.random.default_rng(1))
    flows.update(batch([
        (key(ALICE, SERVER, 5, 4789, 17, kind=Kind.PARENT, tunnel=Tunnel.VXLAN), counters(1, 150)),
        (key("10.1.0.1", "10.1.0.2", 50000, 80, tunnel=Tunnel.VXLAN, tunnel_id=7), counters(1, 100))],
        START_NS + SECOND))
    listed = answer(flows).listed
    assert listed is not None and sum(side.octet_total for side in listed.sides) == 100


def test_shares_of_rows_add_up_to_what_is_listed() -> None:
    rows = answer(table(), group=("service",), filter=compile_filter("port 443")).rows
    assert sum(row.shares[0] for row in rows) == pytest.approx(1)
    [row] = rows
    assert row.shares == pytest.approx((1, 1, 1))


def test_the_header_counts_what_is_in_no_flow_of_the_list_by_the_same_rule() -> None:
    traffic = both_ways(table(), LOCAL, RemoteEnds())
    assert [side.octet_rate for side in traffic] == pytest.approx([IN_SUM, OUT_SUM])


def test_biflows_have_in_and_out_whoever_began() -> None:
    flows = FlowTable(TableConfig(), np.random.default_rng(1))
    flows.update(batch([(key(ALICE, SERVER, 51000, 443), counters(1, 100, opening=True)),
                        (key(SERVER, ALICE, 443, 51000, direction=OUT), counters(1, 5_000)),
                        (key(SERVER, BOB, 33000, 22, direction=OUT), counters(1, 11, opening=True)),
                        (key(BOB, SERVER, 22, 33000), counters(1, 13))], START_NS + SECOND))
    found = {bytes(row.source_address): sides(row) for row in answer(flows, biflow=True, sort="rate_in").rows}
    assert found == {packed(ALICE): (100, 5_000), packed(SERVER): (13, 11)}


def test_addresses_are_asked_for_again_after_a_while() -> None:
    given, now = [[SERVER]], [0.0]
    found = HostAddresses(lambda: ([ipaddress.ip_address(text).packed for text in given[-1]], ()), lambda: now[0])

    def local(text: str) -> bool:
        raw = ipaddress.ip_address(text).packed
        number = int.from_bytes(raw, "big") | 0xFFFF << 32
        return bool(found.local(np.array([0], np.uint64), np.array([number], np.uint64))[0])

    assert local(SERVER) and not local(BOB)
    given.append([BOB])
    assert local(SERVER)
    now[0] = AGAIN_S
    assert local(BOB) and not local(SERVER)


# ---- interfaces


DEVICES = {2: DeviceView(Device(3, 1, 5, 2, 7, 0), Device(1, 0, 5, 2, 0, 0)), 9: DeviceView(Device(), Device())}


def test_interfaces_without_flows_are_listed_unless_something_is_filtered() -> None:
    lookups = Lookups({2: "eth0", 9: "idle0"}, here=here(), devices=DEVICES)
    rows = {row.group[0][0]: row for row in answer(table(), lookups, group=("interface",)).rows}
    assert set(rows) == {2, 9}
    assert (rows[9].octet_total, rows[9].flows, rows[9].end_reason, sides(rows[9])) == (0, 0, 0, (0, 0))
    assert sides(rows[2]) == (IN_SUM, OUT_SUM)
    assert {name: rows[2].more[name] for name in ("errors", "errors new", "drops", "drops new", "queue_drops",
                                                  "queue_drops new")} == {
        "errors": 4, "errors new": 3, "drops": 7, "drops new": 0, "queue_drops": 7, "queue_drops new": 7}
    assert [row.group[0][0] for row in answer(table(), lookups, group=("interface",), sort="errors").rows] == [2, 9]
    assert {row.group[0][0] for row in answer(table(), lookups, group=("interface",),
                                              filter=compile_filter("port 443")).rows} == {2}


def test_coverage_of_each_interface_is_the_part_that_was_seen() -> None:
    observations = np.concatenate([
        observation(ifindex=2, direction=0, packets=90, frames=90, interface_packets=100),
        observation(ifindex=2, direction=1, packets=100, frames=100, interface_packets=100)])
    found = with_coverage(DEVICES, observations)
    assert found[2].coverage == 190 / 200 and found[9].coverage is None


def test_octets_of_interfaces_are_those_of_all_their_flows_also_of_those_that_have_left() -> None:
    """eth0 counted 1,000,000 octets in, 600 of them in no flow; the two flows that are kept have 100 and 5,000."""
    points = np.concatenate([
        observation(ifindex=2, direction=0, packets=900, octets=1_000_000, filtered_packets=2, filtered_octets=200),
        observation(ifindex=2, direction=1, packets=700, octets=50_000)])
    points["ignored_packets"][0][:2], points["ignored_octets"][0][:2] = (1, 2), (100, 300)
    flows, lookups = table(ENTRIES[:2]), Lookups({2: "eth0"}, here=here(), passed=passed(points))
    found = answer(flows, lookups, group=("interface",))
    (row,) = found.rows
    assert found.since_start and octets(row) == (1_000_000 - 200 - 400, 50_000)
    assert (row.octet_total, row.packet_total) == (1_000_000 - 600 + 50_000, 900 - 2 - 3 + 700)
    for part in ({"filter": compile_filter("port 443")}, {"scope": compile_filter("port 443")},
                 {"group": ("interface", "host")}):
        some = answer(flows, lookups, **{"group": ("interface",)} | part)
        assert not some.since_start and octets(some.rows[0]) == (100, 5_000)


def test_octets_of_interfaces_count_from_the_mark() -> None:
    points = observation(ifindex=3, direction=0, packets=10, octets=1_000)
    more = np.concatenate([observation(ifindex=2, direction=0, packets=7, octets=70), points])
    answerer, flows = Answerer(np.random.default_rng(1)), table(ENTRIES[:1], ifindex=3)
    for counted, expected in ((points, 0), (more, 40)):
        more["octets"][1] = 1_040
        found = answerer.answer(Query(group=("interface",), mark=1), flows, Lookups({3: "x"}, passed=passed(counted)))
        assert [row.octet_total for row in found.rows] == [expected]


def test_beside_a_service_stands_its_process_and_beside_a_process_its_service() -> None:
    """tcp 443: 5,100 and 900 octets of two processes nginx, 70 of curl; tcp 22: nobody knows whose."""
    nginx, worker, curl = (owner_id(pid, pid * SECOND) for pid in (100, 101, 200))
    flows = FlowTable(TableConfig(dedupe="off"), np.random.default_rng(1))
    flows.update(batch([
        (key(SERVER, ALICE, 443, 51000), counters(1, 5_000, owner=nginx)),
        (key(ALICE, SERVER, 51000, 443), counters(1, 100, owner=nginx)),
        (key(SERVER, BOB, 443, 52000), counters(1, 900, owner=worker)),
        (key(BOB, SERVER, 33000, 443), counters(1, 70, owner=curl)),
        (key(BOB, SERVER, 33000, 22), counters(1, 13))], START_NS + SECOND))
    lookups = Lookups({2: "eth0"}, here=here(), texts={PROCESSES: {nginx: "nginx", worker: "nginx", curl: "curl"}})

    def beside(group: str, other: str) -> list[tuple[str, str]]:
        columns = [columns_of(Query(group=(group,)))[name] for name in (group, other)]
        return [tuple(column.text(row, Wording(), lookups) for column in columns)  # type: ignore[misc]
                for row in answer(flows, lookups, group=(group,), sort="bytes").rows]

    assert beside("service", "process") == [("tcp 443", "nginx +1"), ("tcp 22", "")]
    assert beside("process", "service")[:2] == [("nginx", "tcp 443"), ("curl", "tcp 443")]
    assert beside("process", "service")[2][1] == "tcp 22"
    with pytest.raises(FlowtopError, match="unknown sort column"):
        sort_column("process", Query(group=("service",)))
