"""The registry of group fields, and groups against sums worked out in plain Python."""

from __future__ import annotations

import ipaddress
import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.fields.columns import Wording
from flowtop.fields.field import GroupField
from flowtop.fields.fitting import fit
from flowtop.fields.groups import drill_term, group_fields
from flowtop.fields.registry import GROUPS
from flowtop.filters.filter import Filter, compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, Kind
from flowtop.model.rows import FlowRow
from flowtop.query.answer import Answerer
from flowtop.query.layout import columns_of
from flowtop.query.query import Query
from flowtop.query.ranking import Ranking
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from tests.unit.factories import SECOND, START_NS, batch, counters, key, packed
from tests.unit.query.test_answer import Source, source

INTERFACES = Lookups({1: "lo", 2: "eth0", 3: "e\x1b[31mvil\u202e\n", 4: "veth9"})
every_field = pytest.mark.parametrize("field", GROUPS.values(), ids=GROUPS)


def everything() -> Source:
    """One flow of each kind there is."""
    table = source(8, protocol=[6, 17, 1, 58, 50, 255, 6, 253], ip_version=[4, 6, 4, 6, 4, 4, 6, 4], source_port=65535,
                   destination_port=2048, kind=[0, 0, 0, 0, 0, 1, 2, 0], ifindex=[1, 2, 3, 4, 5, 2, 2, 2**32 - 1],
                   direction=[0, 1] * 4, vlan_id=4094, customer_vlan_id=[0, 4094] * 4, tos=[0, 255, 184, 1, 2, 3, 4, 5])
    table.columns["source_address"] = table.columns["destination_address"] = packed("10.0.0.1")
    six = packed("2001:db8:1111:2222:3333:4444:5555:6666")
    table.columns["source_address"][table.columns["ip_version"] == 6] = six
    return table


# ---- the registry's contract


@every_field
def test_a_field_is_whole(field: GroupField) -> None:
    assert GROUPS[field.id] is field
    assert field.id.isidentifier() and field.id.islower()
    assert 0 < len(field.header) <= field.width
    assert field.doc.endswith(".")
    assert field.members
    assert (field.choose is None) == (field.argument == "")
    assert group_fields((field.id,)) == (field,)


@every_field
def test_keys_are_integers_one_a_flow(field: GroupField) -> None:
    table = everything()
    keys = field.keys(table.columns)
    assert keys and all(part.shape == (8,) and part.dtype.kind in "ui" for part in keys)
    assert field.parts == len(keys)


@every_field
def test_texts_terms_and_values_of_everything_there_is(field: GroupField) -> None:
    rows = Answerer().answer(Query(group=(field.id,), limit=None), everything()).rows
    assert rows
    column = field.column(0)
    for row in rows:
        text = field.text(row.group[0], INTERFACES)
        assert text and all(unicodedata.category(c)[0] not in "CM" for c in text)
        assert column.text(row, Wording(), INTERFACES) == text
        assert len(column.cell(row, Wording(), INTERFACES, column.width + 7)) == column.width + 7
        assert set(field.values(row.group[0], INTERFACES)) <= set(field.members)
        term = drill_term((field.id,), row, INTERFACES)
        assert "\x1b" not in term and "\n" not in term


@every_field
def test_groups_are_in_the_order_of_their_keys(field: GroupField) -> None:
    answerer = Answerer()
    for descending in (False, True):
        query = Query(group=(field.id,), sort=field.id, descending=descending, limit=None)
        keys = [row.group for row in answerer.answer(query, everything()).rows]
        assert keys == sorted(keys, reverse=descending)
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@every_field
def test_columns_of_groups_fit(field: GroupField, width: int) -> None:
    columns = columns_of(Query(group=(field.id,)))
    chosen = fit(width, columns=columns.values(), names=["enp0s31f6"])
    ids = [column.id for column, _ in chosen]
    assert {field.id, "rate", "bytes", "flows"} <= set(ids)
    assert sum(cells for _, cells in chosen) + len(chosen) - 1 <= width
    assert all(cells >= min(column.width, 6) for column, cells in chosen)


@pytest.mark.parametrize(("ids", "said"), [
    (("hosts",), "hosts"), (("protocol", "protocol"), "twice"), (("subnet:33/64",), "32 bits"),
    (("subnet:-1",), "prefix length"), (("subnet:1/2/3",), "prefix length"), (("subnet:129",), "128"),
    (("subnet:" + "9" * 5000,), "128"), (("protocol:6",), "colon"), (("subnet:²",), "prefix length"), (("",), "''"),
])
def test_what_cannot_be_grouped_by_is_a_usage_error(ids: tuple[str, ...], said: str) -> None:
    with pytest.raises(FlowtopError, match=said) as caught:
        group_fields(ids)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.hint


def test_flow_stands_for_no_groups() -> None:
    assert group_fields(("flow",)) == group_fields(()) == ()
    table = source(3)
    assert Answerer().answer(Query(group=("flow",)), table) == Answerer().answer(Query(), table)


# ---- what is put together

FLOWS: dict[str, dict[str, Any]] = {
    "web": dict(source_address="10.1.2.3", destination_address="192.0.2.9", source_port=40000, destination_port=443),
    "back": dict(source_address="192.0.2.9", destination_address="10.1.2.3", source_port=443, destination_port=40000),
    "dns6": dict(source_address="2001:db8:1:2::3", destination_address="2001:db8:9::9", protocol=17, source_port=50000,
                 destination_port=53, ip_version=6),
    "ping": dict(source_address="10.1.2.4", destination_address="10.9.9.9", protocol=1, destination_port=8 << 8),
    "rest": dict(kind=1, protocol=6),
    "frag": dict(source_address="10.1.2.4", destination_address="10.9.9.9", protocol=17, kind=2),
}


def some(*names: str) -> Source:
    table = source(len(names), protocol=6)
    for slot, name in enumerate(names):
        for column, value in FLOWS[name].items():
            table.columns[column][slot] = packed(value) if column.endswith("_address") else value
    return table


@pytest.mark.parametrize(("group", "text", "term", "values"), [
    ("source", "10.1.2.3", "src host 10.1.2.3", {"sourceIPv4Address": "10.1.2.3"}),
    ("destination", "192.0.2.9", "dst host 192.0.2.9", {"destinationIPv4Address": "192.0.2.9"}),
    ("pair", "10.1.2.3 ↔ 192.0.2.9", "host 10.1.2.3 and host 192.0.2.9", {"hosts": ["10.1.2.3", "192.0.2.9"]}),
    ("service", "tcp 443", "tcp and port 443", {"protocolIdentifier": 6, "servicePort": 443}),
    ("subnet", "10.1.2.0/24", "src net 10.1.2.0/24", {"sourceIPv4Prefix": "10.1.2.0", "sourceIPv4PrefixLength": 24}),
    ("subnet:9", "10.0.0.0/9", "src net 10.0.0.0/9", {"sourceIPv4Prefix": "10.0.0.0", "sourceIPv4PrefixLength": 9}),
    ("subnet:0/0", "0.0.0.0/0", "src net 0.0.0.0/0", {"sourceIPv4Prefix": "0.0.0.0", "sourceIPv4PrefixLength": 0}),
    ("destination_subnet:32", "192.0.2.9/32", "dst net 192.0.2.9/32",
     {"destinationIPv4Prefix": "192.0.2.9", "destinationIPv4PrefixLength": 32}),
    ("protocol", "tcp", "tcp", {"protocolIdentifier": 6}),
])
def test_words_of_a_group(group: str, text: str, term: str, values: dict[str, Any]) -> None:
    [row] = Answerer().answer(Query(group=(group,)), some("web")).rows
    [field] = group_fields((group,))
    assert field.text(row.group[0], NO_LOOKUPS) == text
    assert drill_term((group,), row, NO_LOOKUPS) == term
    assert field.values(row.group[0], NO_LOOKUPS) == values


@pytest.mark.parametrize(("group", "texts"), [
    ("service", ["tcp 443", "udp 53", "icmp echo-req", "udp frag", "tcp (all other flows)"]),
    ("pair", ["10.1.2.3 ↔ 192.0.2.9", "2001:db8:1:2::3 ↔ 2001:db8:9::9", "10.1.2.4 ↔ 10.9.9.9", "(all other flows)"]),
    ("subnet:48", ["10.1.2.0/24", "192.0.2.0/24", "2001:db8:1::/48", "(all other flows)"]),
])
def test_both_directions_of_a_conversation_are_one_service_and_one_pair(group: str, texts: list[str]) -> None:
    rows = Answerer().answer(Query(group=(group,), limit=None), some(*FLOWS)).rows
    [field] = group_fields((group,))
    assert sorted(field.text(row.group[0], NO_LOOKUPS) for row in rows) == sorted(texts)
    assert sum(row.flows for row in rows) == len(FLOWS)


def test_the_last_bits_of_a_prefix_count() -> None:
    table = source(4, ip_version=6)
    addresses = ["2001:db8:0:1::", "2001:db8::ffff", "2001:db8::8000:0:0:0", "2001:db8:0:2::1"]
    table.columns["source_address"] = np.array([packed(address) for address in addresses], "V16")
    for length in (0, 1, 62, 63, 64, 65, 127, 128):
        [field] = group_fields((f"subnet:24/{length}",))
        rows = Answerer().answer(Query(group=(f"subnet:24/{length}",), limit=None), table).rows
        networks = {str(ipaddress.ip_network(f"{address}/{length}", strict=False)) for address in addresses}
        assert {field.text(row.group[0], NO_LOOKUPS) for row in rows} == networks


# ---- sums against plain Python

Keys = Callable[[FlowRow], Hashable]
PLAIN_KEYS: dict[str, Keys] = {
    "source": lambda row: (row.ip_version, row.source_address),
    "destination": lambda row: (row.ip_version, row.destination_address),
    "pair": lambda row: (row.ip_version, frozenset((row.source_address, row.destination_address))),
    "service": lambda row: (row.protocol, min(row.source_port, row.destination_port)),
    "protocol": lambda row: row.protocol,
    "host": lambda row: [(row.ip_version, row.source_address), (row.ip_version, row.destination_address)],
    "interface": lambda row: row.ifindex,
    "exporter": lambda row: "no exporter",
    "domain": lambda row: "no exporter",
    "direction": lambda row: row.direction,
    "subnet": lambda row: (row.ip_version, row.source_address[:3 if row.ip_version == 4 else 8]),
    "destination_subnet": lambda row: (row.ip_version, row.destination_address[:3 if row.ip_version == 4 else 8]),
    "remote_subnet": lambda row: [*{(row.ip_version, end[:3 if row.ip_version == 4 else 8])
                                    for end in (row.source_address, row.destination_address)}],
    "vlan": lambda row: (row.vlan_id, row.customer_vlan_id),
    "tunnel": lambda row: (row.tunnel, row.tunnel_id),
    "dscp": lambda row: row.tos // 4,
    "ingress": lambda row: 0 if row.direction == Direction.EGRESS else row.ifindex,
    "egress": lambda row: row.ifindex if row.direction == Direction.EGRESS else 0,
    **{name: lambda row, name=name: row.more.get(name, 0) for name in (  # type: ignore[misc]
        "source_as", "destination_as", "application", "user", "firewall_event", "post_nat_source",
        "post_nat_destination", "nat_event", "next_hop", "bgp_next_hop", "ingress_vrf", "egress_vrf", "mpls_label",
        "sampler", "sampling_interval",
        *(f"{side}{name}" for side in ("", "source_", "destination_") for name in ("asn", "as_name", "country")))},
    **{name: lambda row, name=name: row.more[name] for name in (  # type: ignore[misc]
        "process", "pid", "unit", "cgroup", "container", "image", "container_id", "pod", "namespace", "name",
        "name_origin")},
    "icmp_id": lambda row: row.more["icmp_id"],
    "community": lambda row: (row.protocol, frozenset({(row.source_address, row.source_port),
                                                       (row.destination_address, row.destination_port)})),
}


def conversation(row: FlowRow) -> Hashable:
    return (row.source_address, row.destination_address, row.source_port, row.destination_port, row.protocol,
            row.ip_version, row.kind)


def once(rows: Sequence[FlowRow]) -> list[FlowRow]:
    """Of the rows of one group, those that count: not the duplicates, but where there are only such, one point's."""
    seen = defaultdict(list)
    for row in rows:
        seen[conversation(row)].append(row)
    counting: list[FlowRow] = []
    for same in seen.values():
        standing = [row for row in same if not row.duplicate]
        if not standing:
            point = min((row.ifindex, row.direction) for row in same)
            standing = [row for row in same if (row.ifindex, row.direction) == point]
        counting += standing
    return counting


SUMS = ("packet_delta", "octet_delta", "packet_total", "octet_total")


def check_groups(table: Any, group: tuple[str, ...], filtered: Filter | None = None) -> None:
    """Groups of the table's flows are what Python makes of its rows."""
    answerer = Answerer(np.random.default_rng(1))
    names = Lookups({number: f"eth{number}" for number in range(2, 5)})
    flows = answerer.answer(Query(limit=None, filter=filtered), table, names)
    wanted: dict[Hashable, list[FlowRow]] = defaultdict(list)
    for row in flows.rows:
        keys = [PLAIN_KEYS[name](row) for name in group]
        for parts in itertools.product(*(part if isinstance(part, list) else [part] for part in keys)):
            wanted[parts].append(row)  # without addresses of this host, both ends are hosts
    answer = answerer.answer(Query(group=group, limit=None, filter=filtered), table, names)
    assert answer.matched == len(answer.rows) == len(wanted)
    assert (answer.matched_flows, answer.flows) == (flows.matched, flows.flows)

    def facts(rows: Sequence[FlowRow], flow_count: int, members: Sequence[FlowRow]) -> tuple[Any, ...]:
        return (flow_count, *(sum(getattr(row, name) for row in rows) for name in SUMS),
                min(row.start_ms for row in members), max(row.end_ms for row in members),
                all(row.end_reason for row in members))

    found = sorted((row.flows, *(getattr(row, name) for name in SUMS), row.start_ms, row.end_ms, bool(row.end_reason))
                   for row in answer.rows)
    assert found == sorted(facts(once(rows), len(once(rows)), rows) for rows in wanted.values())


def test_every_field_has_an_oracle() -> None:
    assert PLAIN_KEYS.keys() == GROUPS.keys()


entries = st.lists(st.tuples(
    st.sampled_from([("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"), ("10.0.1.1", "10.0.0.2"),
                     ("2001:db8::1", "2001:db8::2")]),
    st.sampled_from([(1000, 80), (80, 1000), (53, 2000)]), st.sampled_from([6, 17]), st.integers(2, 4),
    st.sampled_from(Direction), st.sampled_from([0, 7]), st.integers(1, 9), st.integers(40, 1500),
    st.sampled_from([0, 184])), max_size=25)


def metered(ticks: Sequence[Sequence[tuple[Any, ...]]], mode: str = "mark", idle_timeout_s: float = 60) -> FlowTable:
    """A real table after those ticks, two seconds apart."""
    table = FlowTable(TableConfig(idle_timeout_s=idle_timeout_s, dedupe=mode))  # type: ignore[arg-type]
    for tick, listed in enumerate(ticks):
        now = START_NS + 2 * tick * SECOND
        merged = {}
        for addresses, ports, protocol, ifindex, direction, vlan, packets, size, tos in listed:
            made = key(*addresses, *ports, protocol, direction, ifindex, vlan)
            merged[made.tobytes()] = (made, counters(packets, packets * size, now - SECOND // 2, tos=tos))
        table.update(batch(list(merged.values()), now))
    return table


@settings(deadline=None, max_examples=80)
@given(st.lists(entries, min_size=1, max_size=4), st.sampled_from(["mark", "drop", "off"]),
       st.lists(st.sampled_from(list(PLAIN_KEYS)), min_size=1, max_size=3, unique=True))
def test_sums_of_groups_have_each_packet_once(ticks: list[Any], mode: str, group: list[str]) -> None:
    # When flows have ended, which of them stood for which packets is not to be seen from the rows alone, where a
    # group has not all Observation Points.
    at_points = {"interface", "direction", "vlan", "dscp", "ingress", "egress"} & set(group)
    check_groups(metered(ticks, mode, 60 if at_points else 3), tuple(group))


@settings(deadline=None, max_examples=80)
@given(st.lists(entries, min_size=1, max_size=4), st.sampled_from(list(PLAIN_KEYS)))
def test_what_a_filter_leaves_counts_even_when_all_of_it_are_duplicates(ticks: list[Any], group: str) -> None:
    check_groups(metered(ticks), (group,), compile_filter("if eth3"))


BOTH_ENDS = ("host", "remote_subnet")


@pytest.mark.parametrize("group", [*GROUPS, "subnet:9", "subnet:0/0", "destination_subnet:25/1"])
def test_the_drill_term_of_a_group_passes_its_flows_and_no_others(group: str) -> None:
    listed = [(*pair, *ports, protocol, direction, ifindex, vlan, customer) for pair, ports, protocol in (
        (("10.0.0.1", "10.0.0.2"), (1000, 80), 6), (("10.0.0.2", "10.0.0.1"), (80, 1000), 6),
        (("10.128.0.1", "10.0.0.2"), (0, 0), 50), (("2001:db8::1", "2001:db8::2"), (53, 2000), 17),
        (("10.0.0.2", "10.0.0.2"), (0, 8 << 8), 1), (("10.0.0.2", "10.0.0.9"), (0, 0), 1),
        (("2001:db8::1", "2001:db8:1::2"), (0, 128 << 8), 58)) for direction, ifindex, vlan, customer in (
        (0, 2, 0, 0), (1, 3, 7, 0), (1, 5, 9, 8), (0, 9, 11, 0), (0, 2, 8, 9), (0, 2, 9, 0), (0, 2, 9, 9))]
    listed += [("10.0.0.1", "10.0.0.2", 0, 0, protocol, 0, 2, 0, 0, Kind.FRAGMENT) for protocol in (6, 17, 50, 1)]
    table = FlowTable(TableConfig(dedupe="off"))
    table.update(batch([(key(*fields), counters(2, 80, tos=4 * (n % 3))) for n, fields in enumerate(listed)],
                       START_NS + SECOND))
    names = Lookups({2: "eth0", 3: "e'*\x1b", 5: "x[y]"})
    answerer = Answerer()
    rows = answerer.answer(Query(group=(group,), limit=None), table, names).rows
    both = sum(1 for fields in listed if fields[0][:4] != fields[1][:4] or (
        ":" in fields[0] and fields[1] == "2001:db8:1::2")) if group == "remote_subnet" else len(listed)
    assert sum(row.flows for row in rows) == len(listed) + both * (group in BOTH_ENDS)
    for row in rows:
        term = compile_filter(drill_term((group,), row, names))
        found = answerer.answer(Query(group=(group,), filter=term), table, names).rows
        found = tuple(one._replace(shares=row.shares) for one in found
                      if group not in BOTH_ENDS or one.group == row.group)
        assert found == (row,)


def test_a_forwarded_packet_counts_in_each_interface_and_once_in_its_host() -> None:
    """10 packets in at eth0 and out at veth9."""
    seen = [(key(ifindex=2, direction=0), counters(10, 1000)), (key(ifindex=4, direction=1), counters(10, 1000))]
    table = FlowTable(TableConfig())
    table.update(batch(seen, START_NS + SECOND))
    answerer = Answerer()
    by_interface = answerer.answer(Query(group=("interface",), sort="interface", descending=False), table).rows
    assert [(row.group, row.packet_total, row.flows) for row in by_interface] == [(((2,),), 10, 1), (((4,),), 10, 1)]
    [by_host] = answerer.answer(Query(group=("source",)), table).rows
    assert (by_host.packet_total, by_host.octet_total, by_host.flows) == (10, 1000, 1)


def test_sums_past_what_a_double_can_hold_are_exact() -> None:
    table = source(3, octet_total=[2**53, 1, 1])
    [row] = Answerer().answer(Query(group=("protocol",)), table).rows
    assert row.octet_total == 2**53 + 2


def test_rates_of_a_group_are_the_sums_over_the_windows() -> None:
    table = source(2, octet_delta=[100, 20], octets_10s=[1000, 500], octets_60s=[4000, 2000], packet_delta=[3, 1])
    [row] = Answerer().answer(Query(group=("protocol",)), table).rows
    assert (row.octet_rate, row.octet_rate_10s, row.octet_rate_60s, row.packet_rate) == (60, 150, 300, 2)


# ---- order, pages, anchor, hold


def hosts(*rates: int) -> Source:
    """A flow each from 10.0.0.1, 10.0.0.2 ... with these rates."""
    table = source(len(rates), octet_delta=rates)
    table.columns["source_address"] = np.array([packed(f"10.0.0.{n + 1}") for n in range(len(rates))], "V16")
    return table


def host_numbers(rows: Sequence[FlowRow]) -> list[int]:
    return [row.group[0][1] >> 32 & 0xFF for row in rows]


def test_pages_of_groups_are_slices_of_one_order() -> None:
    table, answerer = hosts(5, 9, 1, 7, 3), Answerer()
    pages = [answerer.answer(Query(group=("source",), offset=at, limit=2), table).rows for at in (0, 2, 4, 6)]
    assert [host_numbers(page) for page in pages] == [[2, 4], [1, 5], [3], []]


def test_a_groups_id_survives_other_flows_and_its_own_changes() -> None:
    answerer = Answerer()
    first = answerer.answer(Query(group=("source",)), hosts(5, 9, 1)).rows
    anchor = first[1].flow_id  # 10.0.0.1
    assert host_numbers(first)[1] == 1
    later = answerer.answer(Query(group=("source",), anchor=anchor), hosts(1, 9, 3, 8))
    assert (later.anchor_rank, later.rows[3].flow_id) == (3, anchor)
    gone = hosts(1, 9, 3)
    gone.visible[0] = False
    assert answerer.answer(Query(group=("source",), anchor=anchor), gone).anchor_rank is None


def test_ids_of_other_fields_are_others() -> None:
    table, answerer = hosts(1, 2), Answerer()
    table.columns["destination_address"] = table.columns["source_address"]
    one, two = (answerer.answer(Query(group=(name,)), table).rows for name in ("source", "destination"))
    assert not {row.flow_id for row in one} & {row.flow_id for row in two}


def test_a_held_order_of_groups_stays_and_new_groups_follow() -> None:
    answerer = Answerer()

    def held(table: Source, number: int | None = 1, **query: Any) -> list[int]:
        return host_numbers(answerer.answer(Query(group=("source",), hold=number, **query), table).rows)

    assert held(hosts(5, 9, 1)) == [2, 1, 3]
    assert held(hosts(1, 2, 3)) == [2, 1, 3]
    assert held(hosts(1, 2, 3, 90, 91)) == [2, 1, 3, 5, 4]
    assert held(hosts(1, 2, 3, 90, 91), offset=2, limit=2) == [3, 5]
    fewer = hosts(1, 2, 3)
    fewer.visible[1] = False
    assert held(fewer) == [1, 3]
    assert held(hosts(1, 2, 3), 2) == [3, 2, 1]
    assert held(hosts(3, 2, 1), None) == [1, 2, 3]


def test_holding_one_grouping_does_not_hold_another() -> None:
    table, answerer = hosts(1, 2, 3), Answerer()
    answerer.answer(Query(hold=1), table)
    assert host_numbers(answerer.answer(Query(group=("source",), hold=1), hosts(3, 2, 1)).rows) == [1, 2, 3]
    assert [row.flow_id for row in answerer.answer(Query(hold=1), hosts(3, 2, 1)).rows] == [1, 2, 3]


def test_no_flows_make_no_groups() -> None:
    empty = source(2)
    empty.visible[:] = False
    answer = Answerer().answer(Query(group=("pair", "vlan"), hold=1, anchor=5), empty)
    assert (answer.rows, answer.matched, answer.anchor_rank) == ((), 0, None)


def test_every_column_of_groups_sorts() -> None:
    table = hosts(5, 9, 1)
    for column in columns_of(Query(group=("source",))).values():
        answer = Answerer().answer(Query(group=("source",), sort=column.id, limit=2), table)
        assert len(answer.rows) == 2
    assert Ranking.by(columns_of(Query(group=("source",)))["flows"], True).keys


def test_kinds_that_have_no_addresses_cannot_be_drilled_into() -> None:
    [row] = Answerer().answer(Query(group=("source", "protocol")), some("rest")).rows
    assert drill_term(("source", "protocol"), row, NO_LOOKUPS) == ""
    assert row.group[1] == (Kind.FLOW, 6)


def test_sums_count_no_flow_twice_when_the_route_changes() -> None:
    """The primary goes quiet, the other Observation Point takes over, then ends; one packet stays one packet."""
    table = FlowTable(TableConfig(idle_timeout_s=5))
    points = [key(ifindex=2), key(ifindex=3)]
    for second in range(1, 12):
        now = START_NS + second * SECOND
        alive = points if second < 3 else points[1:] if second < 6 else []
        table.update(batch([(point, counters(1, 100, now - 1000)) for point in alive], now))
        check_groups(table, ("source",))
        check_groups(table, ("interface",))


EXPORTERS = Lookups(
    {1: "192.0.2.1/7 eth0", 2: "192.0.2.1/7 if9", 3: "192.0.2.1/8 ", 4: "2001:db8::1/7 eth0", 5: "eth0"})


@pytest.mark.parametrize(("field", "expected"), [
    ("exporter", {"192.0.2.1": (3, {"exporterIPv4Address": "192.0.2.1"}),
                  "2001:db8::1": (1, {"exporterIPv6Address": "2001:db8::1"}), "this host": (1, {})}),
    ("domain", {"192.0.2.1 7": (2, {"exporterIPv4Address": "192.0.2.1", "observationDomainId": 7}),
                "192.0.2.1 8": (1, {"exporterIPv4Address": "192.0.2.1", "observationDomainId": 8}),
                "2001:db8::1 7": (1, {"exporterIPv6Address": "2001:db8::1", "observationDomainId": 7}),
                "this host": (1, {})}),
])
def test_points_of_one_exporter_are_together_and_their_term_passes_them(
        field: str, expected: dict[str, tuple[int, dict[str, Any]]]) -> None:
    table = source(5, ifindex=[1, 2, 3, 4, 5])
    rows = Answerer().answer(Query(group=(field,), limit=None), table, EXPORTERS).rows
    found = GROUPS[field]
    assert {found.text(row.group[0], EXPORTERS): (row.flows, found.values(row.group[0], EXPORTERS))
            for row in rows} == expected
    for row in rows:
        only = compile_filter(drill_term((field,), row, EXPORTERS))
        answer = Answerer().answer(Query(group=(field,), filter=only, limit=None), table, EXPORTERS)
        assert [(one.group, one.flows) for one in answer.rows] == [(row.group, row.flows)]
