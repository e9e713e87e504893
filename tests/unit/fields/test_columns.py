"""The registry's contract: holds for every column, also ones added later."""

from __future__ import annotations

import ipaddress
import itertools
import unicodedata
from typing import Any

import numpy as np
import pytest

from flowtop.fields.columns import Column, Wording
from flowtop.fields.registry import COLUMNS, MEASURES
from flowtop.model.flows import FLOW_COLUMN_DTYPES
from flowtop.model.kinds import Kind, Tunnel
from flowtop.query.measures import measured
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import Names, ServiceNames
from tests.unit.factories import flow_row, packed
from tests.unit.query.test_answer import source

INTERFACES = Lookups({2: "eth0", 3: "\x1b[31mevil\u202e\n"})
BIG = 2**64 - 1
V6 = {"ip_version": 6, "source_address": packed("2001:db8::1"),
      "destination_address": packed("2001:db8:1111:2222:3333:4444:5555:6666")}

ROWS = {
    "tcp": flow_row(),
    "udp6": flow_row(protocol=17, **V6),
    "icmp": flow_row(protocol=1, source_port=0, destination_port=8 << 8),
    "icmp6": flow_row(protocol=58, source_port=0, destination_port=200 << 8 | 7, **V6),
    "esp": flow_row(protocol=50, source_port=0, destination_port=0),
    "unknown protocol": flow_row(protocol=253),
    "aggregate": flow_row(kind=Kind.AGGREGATE, source_address=bytes(16), destination_address=bytes(16), source_port=0,
                          destination_port=0),
    "fragment": flow_row(kind=Kind.FRAGMENT, protocol=17, source_port=0, destination_port=0),
    "huge": flow_row(packet_total=BIG, octet_total=BIG, octet_rate=1e18, octet_rate_10s=1e18, octet_rate_60s=1e18,
                     octet_rate_peak=1e18, packet_rate=1e18, age_s=86_400 * 999.0, tcp_control_bits=0xFFF,
                     vlan_id=4094, customer_vlan_id=4094, tos=255, closing=True),
    "ended": flow_row(end_reason=1),
    "closing": flow_row(closing=True, tcp_control_bits=1),
    "duplicate": flow_row(duplicate=True),
    "hostile interface": flow_row(ifindex=3),
    "interface gone": flow_row(ifindex=4_000_000_000),
}
every_column = pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)


@every_column
def test_a_column_is_whole(column: Column) -> None:
    assert COLUMNS[column.id] is column
    assert column.id.isidentifier() and column.id.islower()
    assert 0 < len(column.header) <= column.width
    assert column.doc.endswith(".")
    assert column.priority >= 1
    assert column.sort


@every_column
def test_text_is_of_printable_single_cells_and_fits(column: Column) -> None:
    for (name, row), bits in itertools.product(ROWS.items(), (True, False)):
        wording = Wording(bits=bits)
        text = column.text(row, wording, INTERFACES)
        assert all(unicodedata.category(c)[0] not in "CM" and unicodedata.east_asian_width(c) not in "WF"
                   for c in text), name
        if not column.flexible and column.id not in ("interface", "community"):  # these grow
            assert len(text) <= column.width, name
        for width in (column.width, column.width + 30):
            assert len(column.cell(row, wording, INTERFACES, width)) == width, name


@every_column
@pytest.mark.parametrize("n", [0, 1, 5])
def test_sort_keys_are_numbers_one_a_flow(column: Column, n: int) -> None:
    columns = measured(source(n)).columns
    for key in column.sort:
        values = key(columns)
        assert values.shape == (n,)
        assert values.dtype.kind in "uifb"


@every_column
def test_sorting_reads_only_columns_that_a_table_has(column: Column) -> None:
    class Recording(dict[str, object]):
        def __missing__(self, asked: str) -> object:
            assert asked in FLOW_COLUMN_DTYPES or asked in MEASURES
            return np.zeros(3, FLOW_COLUMN_DTYPES.get(asked, np.int64))

    for key in column.sort:
        key(Recording())  # type: ignore[arg-type]


def test_numeric_order_of_address_keys_is_address_order() -> None:
    addresses = ["9.255.255.255", "10.0.0.1", "10.0.0.2", "192.168.0.1", "2001:db8::", "2001:db8::1", "2001:db8:0:1::"]
    columns = np.zeros(len(addresses), np.dtype(list(FLOW_COLUMN_DTYPES.items())))
    for position, address in enumerate(addresses):
        columns[position]["source_address"] = packed(address)
        columns[position]["ip_version"] = ipaddress.ip_address(address).version
    keys = list(zip(*(key(columns).tolist() for key in COLUMNS["source"].sort), strict=True))
    assert keys == sorted(keys)
    assert len(set(keys)) == len(addresses)


@pytest.mark.parametrize(("row", "source", "destination"), [
    ("tcp", "10.0.0.1:1000", "10.0.0.2:80"),
    ("udp6", "[2001:db8::1]:1000", "[2001:db8:1111:2222:3333:4444:5555:6666]:80"),
    ("icmp", "10.0.0.1", "10.0.0.2 echo-req"),
    ("icmp6", "2001:db8::1", "2001:db8:1111:2222:3333:4444:5555:6666 type 200/7"),
    ("esp", "10.0.0.1", "10.0.0.2"),
    ("aggregate", "(all other flows)", ""),
    ("fragment", "10.0.0.1", "10.0.0.2 frag"),
])
def test_endpoints_by_kind(row: str, source: str, destination: str) -> None:
    assert COLUMNS["source"].text(ROWS[row], Wording(), NO_LOOKUPS) == source
    assert COLUMNS["destination"].text(ROWS[row], Wording(), NO_LOOKUPS) == destination


def test_states_and_interfaces() -> None:
    def state(row: str) -> str:
        return COLUMNS["state"].text(ROWS[row], Wording(), NO_LOOKUPS)

    assert [state(row) for row in ("tcp", "closing", "ended", "duplicate")] == ["·", "FIN", "end", "dup"]
    interface = COLUMNS["interface"].text
    assert interface(ROWS["tcp"], Wording(), INTERFACES) == "eth0"
    assert interface(ROWS["hostile interface"], Wording(), INTERFACES) == "evil"
    assert interface(ROWS["interface gone"], Wording(), INTERFACES) == "if4000000000"


def test_an_aggregate_of_any_protocol_says_so() -> None:
    text = COLUMNS["protocol"].text
    assert text(ROWS["aggregate"]._replace(protocol=255), Wording(), NO_LOOKUPS) == "any"
    assert text(ROWS["tcp"]._replace(protocol=255), Wording(), NO_LOOKUPS) == "255"


def test_flows_of_exporters_say_who_told_of_them() -> None:
    row = flow_row(ifindex=7)
    for point, texts in (("192.0.2.1/8 Gi0/1", ["192.0.2.1", "8", "Gi0/1"]), ("eth0", ["", "", "eth0"])):
        lookups = Lookups({7: point})
        assert [COLUMNS[name].text(row, Wording(), lookups) for name in ("exporter", "domain", "interface")] == texts


@pytest.mark.parametrize(("kind", "number", "text"), [
    (Tunnel.NONE, 0, ""), (Tunnel.IP, 0, ""), (Tunnel.GRE, 0, ""), (Tunnel.GRE, 2**32 - 1, "4294967295"),
    (Tunnel.ERSPAN, 0, ""), (Tunnel.ERSPAN, 5, "5"), (Tunnel.VXLAN, 0, "0"), (Tunnel.GENEVE, 0, "0"),
    (Tunnel.MPLS, 0, "0")])
def test_a_tunnel_without_an_id_has_none_and_not_0(kind: int, number: int, text: str) -> None:
    row = flow_row(tunnel=kind, tunnel_id=number)
    assert COLUMNS["vni"].cell(row, Wording(), INTERFACES, 10).strip() == text


@pytest.mark.parametrize(("row", "width", "text"), [
    (dict(protocol=58, destination="2001:db8::4:22", destination_port=1 << 8 | 4), 40, "2001:db8::4:22 unreachable/4"),
    (dict(protocol=58, destination="2001:db8::4:22", destination_port=1 << 8 | 4), 24, "2001:db8::4:22 unreach/4"),
    (dict(protocol=58, destination="2001:db8::4:22", destination_port=1 << 8 | 4), 20, "2001:db8::4:22 1/4"),
    (dict(protocol=58, destination="2001:db8::4:22", destination_port=1 << 8 | 4), 15, "2001:…:4:22 1/4"),
    (dict(protocol=1, destination="192.168.100.200", destination_port=3 << 8 | 3), 20, "192.168.100.200 3/3"),
    (dict(protocol=1, destination="10.0.0.2", destination_port=3 << 8 | 3), 20, "10.0.0.2 unreach/3"),
    (dict(protocol=1, destination="10.0.0.2", destination_port=8 << 8), 20, "10.0.0.2 echo-req"),
    (dict(protocol=6, destination="2001:db8::4:22", destination_port=40960), 19, "[2001:…:4:22]:40960"),
    (dict(protocol=6, destination="198.51.100.233", destination_port=443), 15, "198.5…0.233:443"),
    (dict(protocol=17, kind=Kind.FRAGMENT, destination="198.51.100.233"), 15, "198.5….233 frag"),
])
def test_where_there_is_little_room_the_port_or_type_stays_legible_and_as_much_of_the_address_as_can_be(
        row: dict[str, Any], width: int, text: str) -> None:
    row = dict(row)
    address = row.pop("destination")
    flow = flow_row(ip_version=6 if ":" in address else 4, destination_address=packed(address), **row)
    shown = COLUMNS["destination"].cell(flow, Wording(), INTERFACES, width)
    assert shown.rstrip() == text and len(shown) == width


def test_a_port_has_its_number_where_its_name_has_no_room() -> None:
    wording = Wording(names=Names(services=ServiceNames("http-alt 8080/tcp")))
    row = flow_row(source_address=packed("198.51.100.233"), source_port=8080)
    for width, text in ((25, "198.51.100.233:http-alt"), (21, "198.51.100.233:8080"), (17, "198.51…0.233:8080")):
        assert COLUMNS["source"].cell(row, wording, INTERFACES, width).strip() == text
