"""Records of other exporters end to end: what they say, what they do not say, and which headers they are of.

Expected values are what the test put into the octets, by RFC 7011, RFC 5103 and the registry of elements.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import flowtop
from flowtop.fields import endpoints
from flowtop.text.names import NUMBERS
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template

SOURCE = ("192.0.2.9", 4739)
NOW_MS = int(NOW_S) * 1000
REVERSE = 29305
TCP, UDP, ICMP, IPIP, IPV6, GRE, ICMPV6 = 6, 17, 1, 4, 41, 47, 58
ANY_LENGTH = 65535

Field = tuple[int, int] | tuple[int, int, int]
COUNTED: list[Field] = [(1, 8), (2, 8)]
FOUR: list[Field] = [(8, 4), (12, 4)]
SIX: list[Field] = [(27, 16), (28, 16)]
PORTS: list[Field] = [(7, 2), (11, 2)]


def octets_of(field: Field, value: object) -> bytes:
    if isinstance(value, str) and field[0] in (82, 83):
        octets = value.encode()
        return bytes([len(octets)]) + octets if field[1] == ANY_LENGTH else octets.ljust(field[1], b"\0")
    if isinstance(value, str) and field[1] == 6:
        return bytes.fromhex(value.replace(":", ""))
    if isinstance(value, str):
        return ipaddress.ip_address(value).packed
    assert isinstance(value, int)
    return value.to_bytes(field[1], "big")


def collected(fields: Sequence[Field], *records: Sequence[object], before: Sequence[bytes] = ()) -> flowtop.Collector:
    """A collector that has received a Template of COUNTED and these fields, and records of them: 100 octets, 1 packet
    times the record's number."""
    collector = flowtop.Collector(clock=lambda: NOW_S)
    body = b"".join(struct.pack(">QQ", 100 * number, number) + b"".join(map(octets_of, fields, record))
                    for number, record in enumerate(records, 1))
    assert collector.receive(ipfix(template(256, [*COUNTED, *fields]), *before, set_of(256, body)), SOURCE)
    return collector


def flows_of(fields: Sequence[Field], *records: Sequence[object]) -> list[Mapping[str, Any]]:
    return [flow.as_dict() for flow in collected(fields, *records).table.query(sort="bytes", descending=False)]


def one(fields: Sequence[Field], *values: object) -> Mapping[str, Any]:
    found = flows_of(fields, values)
    assert len(found) == 1
    return found[0]


def ends(flow: flowtop.Flow) -> tuple[str, str]:
    """As the columns SOURCE and DESTINATION show them."""
    return endpoints.source(flow._row, NUMBERS), endpoints.destination(flow._row, NUMBERS)


# ---- what is not reported

NOT_SAID: list[tuple[Sequence[Field], Sequence[object], Mapping[str, object]]] = [
    ([(4, 1)], [TCP], {"protocolIdentifier": 6}),
    (PORTS, [1000, 443], {"sourceTransportPort": 1000, "destinationTransportPort": 443}),
    ([(11, 2)], [443], {"destinationTransportPort": 443}),
    ([(180, 2), (181, 2)], [53, 54], {"sourceTransportPort": 53, "destinationTransportPort": 54}),
    ([(6, 1)], [0x12], {"tcpControlBits": 0x12}),
    ([(5, 1)], [184], {"ipClassOfService": 184}),
    ([(192, 1)], [64], {"ipTTL": 64}),
    ([(52, 1)], [63], {"ipTTL": 63}),
    ([(58, 2)], [7], {"vlanId": 7}),
    ([(243, 2), (245, 2)], [7, 8], {"vlanId": 7, "dot1qCustomerVlanId": 8}),
    ([(56, 6)], ["02:00:00:00:00:01"], {"sourceMacAddress": "02:00:00:00:00:01"}),
    ([(80, 6)], ["02:00:00:00:00:02"], {"destinationMacAddress": "02:00:00:00:00:02"}),
    # zeros that are said
    ([(192, 1), (5, 1), (6, 2), (58, 2)], [0, 0, 0, 0], {"ipTTL": 0, "ipClassOfService": 0, "tcpControlBits": 0,
                                                          "vlanId": 0}),
]
OPTIONAL = {"protocolIdentifier", "sourceTransportPort", "destinationTransportPort", "tcpControlBits",
            "ipClassOfService", "ipTTL", "vlanId", "dot1qCustomerVlanId", "sourceMacAddress", "destinationMacAddress",
            "icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "deltaFlowCount"}


@pytest.mark.parametrize(("fields", "values", "said"), NOT_SAID)
def test_json_has_the_keys_that_the_template_has(fields: Sequence[Field], values: Sequence[object],
                                                 said: Mapping[str, object]) -> None:
    found = one([*FOUR, *fields], "10.0.0.1", "10.0.0.2", *values)
    assert {name: value for name, value in found.items() if name in OPTIONAL} == said


def test_the_reverse_direction_has_its_own_elements() -> None:
    fields: list[Field] = [*FOUR, *PORTS, (4, 1), (192, 1), (5, 1), (1, 8, REVERSE), (5, 1, REVERSE)]
    forward, back = flows_of(fields, ["10.0.0.1", "10.0.0.2", 1000, 443, TCP, 64, 8, 900, 16])
    assert (forward["ipTTL"], forward["ipClassOfService"]) == (64, 8)
    assert "ipTTL" not in back and back["ipClassOfService"] == 16 and back["sourceTransportPort"] == 443


def test_one_port_that_is_not_said_is_at_the_other_end_of_the_reverse_direction() -> None:
    forward, back = flows_of([*FOUR, (11, 2), (4, 1), (1, 8, REVERSE)], ["10.0.0.1", "10.0.0.2", 443, TCP, 900])
    assert "sourceTransportPort" not in forward and forward["destinationTransportPort"] == 443
    assert "destinationTransportPort" not in back and back["sourceTransportPort"] == 443


@pytest.mark.parametrize(("filter_", "matches"), [
    ("ttl < 5", 0), ("ttl >= 0", 0), ("ttl 0", 0), ("not ttl >= 0", 1), ("tos 0", 0), ("dscp be", 0), ("dscp < 10", 0),
    ("port 0", 0), ("src port < 1024", 0), ("portrange 0-65535", 0), ("proto 0", 0), ("flags syn", 0), ("vlan", 0),
    ("host 10.0.0.1", 1), ("bytes > 1", 1),
])
def test_no_comparison_matches_what_is_not_said(filter_: str, matches: int) -> None:
    collector = collected(FOUR, ["10.0.0.1", "10.0.0.2"])
    assert len(collector.table.query(filter_)) == matches
    said = collected([*FOUR, *PORTS, (4, 1), (5, 1), (192, 1)], ["10.0.0.1", "10.0.0.2", 0, 0, UDP, 0, 0])
    assert len(said.table.query("ttl < 5 and tos 0 and dscp be and port 0")) == 1


def test_ports_and_types_that_are_not_said_are_not_shown() -> None:
    for protocol, fields, values, shown in (
        (TCP, [], [], ("10.0.0.1", "10.0.0.2")), (ICMP, [], [], ("10.0.0.1", "10.0.0.2")),
        (UDP, [(11, 2)], [53], ("10.0.0.1", "10.0.0.2:53")),
        (TCP, PORTS, [0, 0], ("10.0.0.1:0", "10.0.0.2:0")),
    ):
        collector = collected([*FOUR, (4, 1), *fields], ["10.0.0.1", "10.0.0.2", protocol, *values])
        assert ends(collector.table.query()[0]) == shown


@pytest.mark.parametrize(("group", "fields", "values", "members"), [
    ("vlan", [], [], {}), ("vlan", [(58, 2)], [0], {"vlanId": 0, "dot1qCustomerVlanId": 0}),
    ("dscp", [], [], {}), ("dscp", [(5, 1)], [0], {"ipDiffServCodePoint": 0}),
    ("protocol", [], [], {}), ("protocol", [(4, 1)], [0], {"protocolIdentifier": 0}),
    ("service", [(4, 1)], [TCP], {"protocolIdentifier": TCP}),
    ("service", [(4, 1), (11, 2)], [TCP, 443], {"protocolIdentifier": TCP, "servicePort": 443}),
    ("service", [(4, 1), (7, 2)], [TCP, 50000], {"protocolIdentifier": TCP, "servicePort": 50000}),
    ("service", [(4, 1)], [ICMP], {"protocolIdentifier": ICMP}),
])
def test_groups_have_no_value_that_is_not_said(group: str, fields: Sequence[Field], values: Sequence[object],
                                               members: Mapping[str, object]) -> None:
    row = collected([*FOUR, *fields], ["10.0.0.1", "10.0.0.2", *values]).table.query(group=group)[0]
    assert {name: value for name, value in row.as_dict().items() if name in {
        "vlanId", "dot1qCustomerVlanId", "ipDiffServCodePoint", "protocolIdentifier", "servicePort",
        "icmpTypeIPv4"}} == members


# ---- which protocol


@pytest.mark.parametrize(("fields", "values", "protocol"), [
    ([*SIX, (193, 1)], ["2001:db8::1", "2001:db8::2", UDP], UDP),
    ([*SIX, *PORTS, (193, 1)], ["2001:db8::1", "2001:db8::2", 1, 2, TCP], TCP),
    ([*SIX, (4, 1), (193, 1)], ["2001:db8::1", "2001:db8::2", 0, UDP], UDP),
    ([*SIX, (4, 1), (193, 1)], ["2001:db8::1", "2001:db8::2", TCP, 44], TCP),
    ([*FOUR, *SIX, (4, 1), (193, 1)], ["10.0.0.1", "10.0.0.2", "::", "::", TCP, 0], TCP),
    ([*FOUR, *SIX, (4, 1), (193, 1)], ["0.0.0.0", "0.0.0.0", "2001:db8::1", "2001:db8::2", 0, ICMPV6], ICMPV6),
])
def test_the_next_header_is_the_protocol_where_there_is_no_other(fields: Sequence[Field], values: Sequence[object],
                                                                 protocol: int) -> None:
    found = one(fields, *values)
    assert found["protocolIdentifier"] == protocol and "tunnel" not in found


# ---- two headers

INNER4, INNER6 = ("10.0.0.1", "10.0.0.2"), ("2001:db8:a::1", "2001:db8:a::2")
OUTER4, OUTER6 = ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")


@pytest.mark.parametrize(("fields", "values", "inner", "protocol", "tunnel"), [
    # IPv4 in IPv6
    ([*SIX, (4, 1), *FOUR, (4, 1), *PORTS], [*OUTER6, IPIP, *INNER4, UDP, 1000, 53], INNER4, UDP, "ip"),
    ([*SIX, *FOUR, (4, 1), *PORTS], [*OUTER6, *INNER4, TCP, 1000, 443], INNER4, TCP, "ip"),
    ([*FOUR, *PORTS, (4, 1), *SIX, (193, 1)], [*INNER4, 1000, 443, TCP, *OUTER6, IPIP], INNER4, TCP, "ip"),
    ([(4, 1), *SIX, *FOUR, *PORTS, (4, 1)], [IPIP, *OUTER6, *INNER4, 1000, 443, TCP], INNER4, TCP, "ip"),
    ([(60, 1), *SIX, (4, 1), (60, 1), *FOUR, (4, 1), *PORTS], [6, *OUTER6, IPIP, 4, *INNER4, TCP, 1000, 443], INNER4,
     TCP, "ip"),
    ([*SIX, (4, 1), (192, 1), *FOUR, (4, 1), (192, 1), *PORTS], [*OUTER6, IPIP, 64, *INNER4, TCP, 9, 1000, 443], INNER4,
     TCP, "ip"),
    # with the ports of the outer header, 0, before those of the inner one
    ([*SIX, *PORTS, (4, 1), *FOUR, *PORTS, (4, 1)], [*OUTER6, 0, 0, IPIP, *INNER4, 1000, 443, TCP], INNER4, TCP, "ip"),
    # IPv6 in IPv4
    ([*FOUR, (4, 1), *SIX, (4, 1), *PORTS], [*OUTER4, IPV6, *INNER6, TCP, 1000, 443], INNER6, TCP, "ip"),
    ([*FOUR, (4, 1), *SIX, (193, 1), *PORTS], [*OUTER4, IPV6, *INNER6, UDP, 1000, 443], INNER6, UDP, "ip"),
    ([*SIX, (193, 1), *FOUR, (4, 1), *PORTS], [*INNER6, UDP, *OUTER4, IPV6, 1000, 443], INNER6, UDP, "ip"),
    # the same version twice: the second is the inner one
    ([*FOUR, (4, 1), *FOUR, (4, 1), *PORTS], [*OUTER4, IPIP, *INNER4, UDP, 1000, 443], INNER4, UDP, "ip"),
    ([*SIX, (4, 1), *SIX, (4, 1), *PORTS], [*OUTER6, IPV6, *INNER6, UDP, 1000, 443], INNER6, UDP, "ip"),
    ([*FOUR, (4, 1), *FOUR, (4, 1), *PORTS], [*OUTER4, GRE, *INNER4, UDP, 1000, 443], INNER4, UDP, "gre"),
    ([*SIX, (4, 1), *FOUR, (4, 1), *PORTS], [*OUTER6, GRE, *INNER4, UDP, 1000, 443], INNER4, UDP, "gre"),
])
def test_of_two_headers_the_flow_is_the_inner_one(
    fields: Sequence[Field], values: Sequence[object], inner: tuple[str, str], protocol: int, tunnel: str,
) -> None:
    found = one(fields, *values)
    version = ipaddress.ip_address(inner[0]).version
    assert (found[f"sourceIPv{version}Address"], found[f"destinationIPv{version}Address"]) == inner
    assert found["ipVersion"] == version and f"sourceIPv{10 - version}Address" not in found
    assert (found["protocolIdentifier"], found["tunnel"]) == (protocol, tunnel)
    assert (found["sourceTransportPort"], found["destinationTransportPort"]) == (
        1000, 53 if 53 in values else 443)
    if (192, 1) in fields:
        assert found["ipTTL"] == 9


@pytest.mark.parametrize(("fields", "values", "source", "protocol"), [
    # the second header is not there: all zeros
    ([*FOUR, (4, 1), *FOUR, (4, 1)], [*OUTER4, UDP, "0.0.0.0", "0.0.0.0", 0], OUTER4[0], UDP),
    ([*SIX, *FOUR, (4, 1)], [*OUTER6, "0.0.0.0", "0.0.0.0", TCP], OUTER6[0], TCP),
    ([*FOUR, *SIX, (4, 1)], [*OUTER4, "::", "::", TCP], OUTER4[0], TCP),
    # repeated, but no tunnel
    ([*FOUR, (4, 1), *FOUR], [*OUTER4, UDP, *INNER4], OUTER4[0], UDP),
    ([*FOUR, (4, 1), (4, 1)], [*OUTER4, UDP, UDP], OUTER4[0], UDP),
    # a tunnel of which only one header is reported
    ([*FOUR, (4, 1)], [*OUTER4, IPIP], OUTER4[0], IPIP),
])
def test_one_header_stays_what_it_is(fields: Sequence[Field], values: Sequence[object], source: str,
                                     protocol: int) -> None:
    found = one(fields, *values)
    assert source in (found.get("sourceIPv4Address"), found.get("sourceIPv6Address"))
    assert found["protocolIdentifier"] == protocol and "tunnel" not in found


# ---- prefixes and MAC addresses


@pytest.mark.parametrize(("fields", "values", "shown", "members"), [
    ([(44, 4), (9, 1), (45, 4), (13, 1)], ["10.1.2.0", 24, "192.0.2.0", 28], ("10.1.2.0/24", "192.0.2.0/28"),
     {"sourceIPv4Prefix": "10.1.2.0", "destinationIPv4Prefix": "192.0.2.0"}),
    ([(45, 4), (44, 4), (13, 1), (9, 1)], ["0.0.0.0", "10.1.2.0", 0, 24], ("10.1.2.0/24", "0.0.0.0/0"),
     {"sourceIPv4Prefix": "10.1.2.0", "destinationIPv4Prefix": "0.0.0.0"}),
    ([(170, 16), (29, 1), (169, 16), (30, 1)], ["2001:db8::", 32, "2001:db8:1::", 48],
     ("2001:db8::/32", "2001:db8:1::/48"), {"sourceIPv6Prefix": "2001:db8::", "destinationIPv6Prefix": "2001:db8:1::"}),
    ([(44, 4), (45, 4)], ["10.1.2.0", "192.0.2.0"], ("10.1.2.0", "192.0.2.0"),
     {"sourceIPv4Prefix": "10.1.2.0", "destinationIPv4Prefix": "192.0.2.0"}),
    ([(44, 4), (9, 1), (12, 4)], ["10.1.2.0", 24, "192.0.2.5"], ("10.1.2.0/24", "192.0.2.5"),
     {"sourceIPv4Prefix": "10.1.2.0", "destinationIPv4Address": "192.0.2.5"}),
    ([(8, 4), (9, 1), (12, 4), (13, 1)], ["10.1.2.3", 24, "192.0.2.5", 28], ("10.1.2.3", "192.0.2.5"),
     {"sourceIPv4Address": "10.1.2.3", "destinationIPv4Address": "192.0.2.5"}),
    ([(44, 4), (8, 4), (9, 1), (12, 4)], ["10.1.2.0", "10.1.2.3", 24, "192.0.2.5"], ("10.1.2.3", "192.0.2.5"),
     {"sourceIPv4Address": "10.1.2.3", "destinationIPv4Address": "192.0.2.5"}),
    ([(44, 4), (9, 1), (45, 4), (13, 1), (4, 1), *PORTS], ["10.1.2.0", 24, "192.0.2.0", 28, TCP, 1, 443],
     ("10.1.2.0/24:1", "192.0.2.0/28:443"), {"sourceIPv4Prefix": "10.1.2.0", "destinationIPv4Prefix": "192.0.2.0"}),
])
def test_networks_are_shown_with_their_length(fields: Sequence[Field], values: Sequence[object],
                                              shown: tuple[str, str], members: Mapping[str, str]) -> None:
    flow = collected(fields, values).table.query()[0]
    assert ends(flow) == shown
    assert {name: value for name, value in flow.as_dict().items() if name.endswith(("Address", "Prefix"))
            and "IPv" in name and not name.startswith("exporter")} == members
    assert (flow.source, flow.destination) == tuple(members.values())


def test_the_reverse_direction_of_networks_has_the_lengths_turned() -> None:
    fields: list[Field] = [(44, 4), (9, 1), (12, 4), (1, 8, REVERSE)]
    forward, back = collected(fields, ["10.1.2.0", 24, "192.0.2.5", 900]).table.query(sort="bytes", descending=False)
    assert ends(forward) == ("10.1.2.0/24", "192.0.2.5") and ends(back) == ("192.0.2.5", "10.1.2.0/24")


ONE, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.mark.parametrize(("fields", "values"), [
    ([(56, 6), (80, 6)], [ONE, OTHER]),
    ([(56, 6), (57, 6)], [ONE, OTHER]),
    ([(56, 6), (80, 6), (256, 2), (58, 2)], [ONE, OTHER, 0x0806, 7]),
    ([(56, 6), (80, 6), (60, 1)], [ONE, OTHER, 0]),
    ([(56, 6), (80, 6), (60, 1), *FOUR, (4, 1)], [ONE, OTHER, 0, "0.0.0.0", "0.0.0.0", 0]),
    ([(56, 6), (80, 6), *FOUR, *SIX, (4, 1)], [ONE, OTHER, "0.0.0.0", "0.0.0.0", "::", "::", 0]),
])
def test_without_ip_addresses_the_ends_are_mac_addresses(fields: Sequence[Field], values: Sequence[object]) -> None:
    collector = collected(fields, values, [OTHER, ONE, *values[2:]])
    flows = collector.table.query(sort="bytes", descending=False)
    assert [ends(flow) for flow in flows] == [(ONE, OTHER), (OTHER, ONE)]
    assert [(flow.source, flow.destination, flow.bytes) for flow in flows] == [(ONE, OTHER, 100), (OTHER, ONE, 200)]
    assert [flow.as_dict()["sourceMacAddress"] for flow in flows] == [ONE, OTHER]
    assert not any("IPv4Address" in name or "IPv6Address" in name
                   for flow in flows for name in flow.as_dict() if not name.startswith("exporter"))
    groups = collector.table.query(group="source", sort="bytes", descending=False)
    assert [group.as_dict()["sourceMacAddress"] for group in groups] == [ONE, OTHER]
    assert [biflow.bytes for biflow in collector.table.query(biflow=True)] == [300]
    assert len(collector.table.query(f"ether src {ONE}")) == 1 and not collector.table.query("net 0.0.0.0/0")


def test_an_aggregate_of_neither_is_one_still() -> None:
    flow = collected([(10, 4)], [3]).table.query()[0]
    assert ends(flow) == ("(all other flows)", "")


def test_a_packet_without_addresses_but_with_a_protocol_is_of_ip() -> None:
    found = one([(56, 6), (80, 6), *FOUR, (4, 1)], ONE, OTHER, "0.0.0.0", "0.0.0.0", UDP)
    assert found["sourceIPv4Address"] == "0.0.0.0"


# ---- names of interfaces in the records


@pytest.mark.parametrize(("fields", "records", "names"), [
    ([(82, ANY_LENGTH)], [["eth0"], ["br-ex"], ["eth0"]], ["eth0", "br-ex", "eth0"]),  # NetObserv
    ([(82, 16)], [["eth0"], ["br-ex"]], ["eth0", "br-ex"]),
    ([(83, ANY_LENGTH)], [["uplink"]], ["uplink"]),
    ([(82, ANY_LENGTH), (83, ANY_LENGTH)], [["eth0", "uplink"]], ["eth0"]),
    ([(83, ANY_LENGTH), (82, ANY_LENGTH)], [["uplink", "eth0"]], ["eth0"]),
    ([(10, 4), (368, 4), (82, ANY_LENGTH), (83, ANY_LENGTH)], [[3, 6, "port3", "x"], [4, 6, "port4", "x"]],
     ["port3", "port4"]),  # Open vSwitch
    ([(61, 1), (10, 4), (82, ANY_LENGTH), (14, 4), (82, ANY_LENGTH)],
     [[0, 3, "in3", 4, "out4"], [1, 3, "in3", 4, "out4"]], ["in3", "out4"]),
    ([(82, 8), (10, 4)], [["eth0", 3]], ["eth0"]),  # the only interface
    ([(82, ANY_LENGTH)], [[""]], [""]),
])
def test_records_name_their_interfaces(fields: Sequence[Field], records: Sequence[Sequence[object]],
                                       names: Sequence[str]) -> None:
    own = [[f"10.0.0.{number}", "10.9.9.9", *record] for number, record in enumerate(records, 1)]
    found = flows_of([*FOUR, *fields], *own)
    assert [flow["interfaceName"] for flow in found] == list(names)


def test_a_hostile_sender_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.points.MAX_POINTS", 3)
    found = flows_of([*FOUR, (82, ANY_LENGTH)], *([f"10.0.0.{n}", "10.9.9.9", f"eth{n}"] for n in range(1, 7)))
    assert [flow["interfaceName"] for flow in found][-2:] == ["eth5", "eth6"]


# ---- who began


def biflow(fields: Sequence[Field], *records: Sequence[object]) -> Mapping[str, Any]:
    found = collected([*FOUR, *PORTS, (4, 1), *fields], *records).table.query(biflow=True)
    assert len(found) == 1
    return found[0].as_dict()


@pytest.mark.parametrize(("said", "initiator", "arbitrary"), [(0, "10.0.0.9", 0), (1, "10.0.0.1", 1),
                                                             (2, "10.0.0.9", 1), (3, "10.0.0.9", 0)])
def test_an_exporter_says_who_began(said: int, initiator: str, arbitrary: int) -> None:
    """Without that, the end that sends to the lower port began: 10.0.0.9."""
    found = biflow([(239, 1), (1, 8, REVERSE), (2, 8, REVERSE)], ["10.0.0.1", "10.0.0.9", 443, 5000, TCP, said, 900, 9])
    assert found["sourceIPv4Address"] == initiator and found["biflowDirection"] == arbitrary
    assert {found["octetTotalCount"], found["reverseOctetTotalCount"]} == {100, 900}


@pytest.mark.parametrize(("said", "initiator", "arbitrary"), [(0, "10.0.0.9", 0), (1, "10.0.0.1", 1),
                                                             (2, "10.0.0.9", 1), (3, "10.0.0.9", 0)])
def test_options_say_who_began_in_a_domain(said: int, initiator: str, arbitrary: int) -> None:
    """RFC 5103 section 6.3: or applied to all flows of an Observation Domain using options."""
    options = [template(300, [(149, 4), (239, 1)], scope=1), set_of(300, struct.pack(">IB", 7, said))]
    collector = collected([*FOUR, *PORTS, (4, 1), (1, 8, REVERSE), (2, 8, REVERSE)],
                          ["10.0.0.1", "10.0.0.9", 443, 5000, TCP, 900, 9], before=options)
    found = collector.table.query(biflow=True)[0].as_dict()
    assert found["sourceIPv4Address"] == initiator and found["biflowDirection"] == arbitrary


def test_the_source_of_a_bidirectional_record_began() -> None:
    ends = ["10.0.0.1", "10.0.0.9", 443, 5000, TCP]
    assert biflow([(1, 8, REVERSE)], [*ends, 900])["sourceIPv4Address"] == "10.0.0.1"
    assert biflow([(231, 8), (232, 8)], [*ends, 100, 900])["sourceIPv4Address"] == "10.0.0.1"


@pytest.mark.parametrize(("first", "second"), [(1, 2), (0, 2), (1, 0), (2, 1)])
def test_two_records_say_who_began(first: int, second: int) -> None:
    """Of each its own: 1: its source, 2: its destination."""
    found = biflow([(239, 1)], ["10.0.0.1", "10.0.0.9", 443, 5000, TCP, first],
                   ["10.0.0.9", "10.0.0.1", 5000, 443, TCP, second])
    assert found["sourceIPv4Address"] == ("10.0.0.9" if first == 2 else "10.0.0.1")
    assert found["biflowDirection"] == 1


def test_what_is_said_is_right_where_a_syn_says_something_else() -> None:
    found = biflow([(239, 1), (6, 1)], ["10.0.0.1", "10.0.0.9", 5000, 443, TCP, 2, 0x02],
                   ["10.0.0.9", "10.0.0.1", 443, 5000, TCP, 1, 0x12])
    assert found["sourceIPv4Address"] == "10.0.0.9"


@pytest.mark.parametrize(("fields", "values", "start_ms", "end_ms"), [
    ([(152, 8, REVERSE), (153, 8, REVERSE)], [NOW_MS - 800, NOW_MS - 100], NOW_MS - 800, NOW_MS - 100),
    ([(150, 4, REVERSE), (151, 4, REVERSE)], [NOW_MS // 1000 - 2, NOW_MS // 1000], NOW_MS - 2000, NOW_MS),
    ([(21, 4, 6871)], [30], NOW_MS - 970, NOW_MS - 500),  # YAF: reverseFlowDeltaMilliseconds
    ([], [], NOW_MS - 1000, NOW_MS - 500),
    ([(153, 8, REVERSE)], [NOW_MS - 7], NOW_MS - 1000, NOW_MS - 7),
])
def test_the_reverse_direction_has_its_own_times(fields: Sequence[Field], values: Sequence[int], start_ms: int,
                                                 end_ms: int) -> None:
    forward, back = flows_of([*FOUR, (152, 8), (153, 8), (1, 8, REVERSE), *fields],
                             ["10.0.0.1", "10.0.0.2", NOW_MS - 1000, NOW_MS - 500, 900, *values])
    assert (forward["flowStartMilliseconds"], forward["flowEndMilliseconds"]) == (NOW_MS - 1000, NOW_MS - 500)
    assert (back["flowStartMilliseconds"], back["flowEndMilliseconds"]) == (start_ms, end_ms)


# ---- times since the boot, and how many flows


@pytest.mark.parametrize("place", ["before", "after", "earlier", "record"])
def test_the_boot_time_of_the_same_message_counts(place: str) -> None:
    boot_ms = NOW_MS - 3_600_000
    announced = template(300, [(149, 4), (160, 8)], scope=1)
    options = set_of(300, struct.pack(">IQ", 7, boot_ms))
    fields: list[Field] = [*COUNTED, *FOUR, (22, 4), (21, 4), *([(160, 8)] if place == "record" else [])]
    record = struct.pack(">QQ4s4sII", 100, 1, b"\x0a\0\0\1", b"\x0a\0\0\2", 3_590_000, 3_599_000)
    record += struct.pack(">Q", boot_ms) if place == "record" else b""
    sets = [template(256, fields), set_of(256, record)]
    collector = flowtop.Collector(clock=lambda: NOW_S)
    if place == "earlier":
        collector.receive(ipfix(announced, options), SOURCE)
    elif place != "record":
        sets = [announced, options, *sets] if place == "before" else [*sets, announced, options]
    collector.receive(ipfix(*sets), SOURCE)
    flow = collector.table.query()[0]
    assert (flow.start_ms, flow.end_ms) == (NOW_MS - 10_000, NOW_MS - 1_000)


@pytest.mark.parametrize(("counts", "flow", "group"), [
    ([[7]], [7], 7), ([[7], [0]], [7, None], 8), ([[1], [1], [1]], [1, 1, 1], 3), ([[40], [2], [5]], [40, 2, 5], 47),
    ([[0]], [None], 1),
])
def test_a_record_counts_as_many_flows_as_it_says(counts: Sequence[Sequence[int]], flow: Sequence[int | None],
                                                  group: int) -> None:
    records = [[f"10.0.0.{number}", "10.9.9.9", *count] for number, count in enumerate(counts, 1)]
    collector = collected([*FOUR, (3, 4)], *records)
    found = collector.table.query(sort="bytes", descending=False)
    assert [row.as_dict().get("deltaFlowCount") for row in found] == list(flow)
    assert [row.as_dict()["deltaFlowCount"] for row in collector.table.query(group="destination")] == [group]


def test_flows_of_later_records_add_up() -> None:
    collector = collected([*FOUR, (3, 4)], ["10.0.0.1", "10.9.9.9", 7], ["10.0.0.1", "10.9.9.9", 5])
    collector.receive(ipfix(set_of(256, struct.pack(">QQ4s4sI", 1, 1, b"\x0a\0\0\1", b"\x0a\x09\x09\x09", 4))), SOURCE)
    assert collector.table.query()[0].as_dict()["deltaFlowCount"] == 16


# ---- any Template

ELEMENTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 21, 22, 23, 24, 27, 28, 29, 30, 32, 34, 44, 45, 52, 56, 57,
            58, 60, 61, 80, 82, 83, 85, 86, 136, 139, 148, 150, 151, 152, 153, 160, 161, 169, 170, 171, 172, 176, 177,
            178, 180, 192, 193, 230, 231, 232, 233, 239, 243, 245, 296, 298, 299, 323, 351, 352, 353, 401, 402, 430,
            431)


@pytest.mark.parametrize("seed", range(150))
def test_any_template_of_these_elements_is_read(seed: int) -> None:
    """Fields of any length, repeated, of the reverse direction; random values."""
    rng = random.Random(seed)
    fields: list[Field] = []
    for _ in range(rng.randrange(1, 25)):
        element, length = rng.choice(ELEMENTS), rng.choice((0, 1, 2, 3, 4, 4, 6, 8, 8, 16, 16, ANY_LENGTH))
        if rng.random() < 0.7:
            length = {8: 4, 12: 4, 27: 16, 28: 16, 44: 4, 45: 4, 169: 16, 170: 16, 56: 6, 80: 6}.get(element, length)
        fields.append((element, length, REVERSE) if rng.random() < 0.15 else (element, length))
    fields.append((2, 8))
    collector = flowtop.Collector(clock=lambda: NOW_S)
    collector.receive(ipfix(template(256, fields)), SOURCE)
    for _ in range(4):
        body = b""
        for _, length, *_ in (field for _ in range(5) for field in fields):
            size = rng.randrange(9) if length == ANY_LENGTH else length
            value = bytes(size) if rng.random() < 0.3 else bytes(rng.choice((0, 1, 4, 6, 255)) for _ in range(size))
            body += (bytes([size]) if length == ANY_LENGTH else b"") + value
        collector.receive(ipfix(set_of(256, body)), SOURCE)
        for settings in ({}, {"biflow": True}, {"group": "source,service,protocol,vlan,dscp,destination"}):
            for row in collector.table.query("not ttl 3 or port 53", **settings):  # type: ignore[call-overload]
                row.as_dict()
                ends(row) if isinstance(row, flowtop.Flow) else None
    assert collector.statistics.records == 20 or collector.statistics.refused
