"""What exporters report beside counters: from octets on the wire to JSON, filters and groups."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from flowtop import Collector
from flowtop.capture.collector import names as names_module
from flowtop.capture.collector.names import Names
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.exporters import exporter_of
from flowtop.model.reported import REPORTED_DTYPE
from flowtop.wire.relayed import application_octets, application_text
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template

SET, OPTIONS = 300, 301
BASE = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (2, 8), (1, 8), (153, 8))
"""Addresses, ports, protocol, packets, octets, end."""
Field = tuple[int, int] | tuple[int, int, int]


def base(number: int = 1) -> bytes:
    return struct.pack(">4s4sHHBQQQ", b"\x0a\0\0\1", struct.pack(">I", 0x0A010000 + number), 1000, 443, 6, 2, 300,
                       1_699_999_999_000)


def netflow9(*flowsets: bytes, sequence: int = 0, source: int = 7) -> bytes:
    """A datagram by RFC 3954 section 5.1."""
    return struct.pack(">HHIIII", 9, len(flowsets), 100_000, int(NOW_S), sequence, source) + b"".join(flowsets)


def netflow9_template(number: int, fields: Sequence[Field]) -> bytes:
    return set_of(0, struct.pack(">HH", number, len(fields)) + b"".join(struct.pack(">HH", *each) for each in fields))


def collected(*datagrams: bytes) -> Collector:
    collector = Collector(clock=lambda: NOW_S)
    for datagram in datagrams:
        assert collector.receive(datagram, ("192.0.2.1", 4739))
    return collector


def flows(fields: Sequence[Field], *records: bytes, before: Sequence[bytes] = ()) -> Collector:
    """A collector that has got records of BASE and these fields."""
    data = b"".join(base(number) + octets for number, octets in enumerate(records, 1))
    return collected(*before, ipfix(template(SET, (*BASE, *fields)), set_of(SET, data)))


def one(collector: Collector, filter: str = "") -> dict[str, Any]:  # noqa: A002
    [row] = collector.table.query(filter).as_dicts()
    return row


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


SIMPLE: list[tuple[Sequence[Field], bytes, dict[str, Any], str]] = [
    ([(16, 4), (17, 4)], struct.pack(">II", 64500, 4_200_000_001),
     {"bgpSourceAsNumber": 64500, "bgpDestinationAsNumber": 4_200_000_001}, "src as 64500 and dst as 4200000001"),
    ([(16, 2), (17, 2)], struct.pack(">HH", 64500, 65001),
     {"bgpSourceAsNumber": 64500, "bgpDestinationAsNumber": 65001}, "as 65001"),
    ([(16, 3)], b"\x00\xfb\xf4", {"bgpSourceAsNumber": 64500}, "src_as 64500"),
    ([(16, 4), (17, 4)], struct.pack(">II", 0, 7), {"bgpDestinationAsNumber": 7}, "not src_as >= 0"),
    ([(15, 4)], ip("198.51.100.1"), {"ipNextHopIPv4Address": "198.51.100.1"}, "next_hop 198.51.100.0/24"),
    ([(62, 16)], ip("fe80::1"), {"ipNextHopIPv6Address": "fe80::1"}, "next_hop fe80::/10"),
    ([(18, 4)], ip("198.51.100.2"), {"bgpNextHopIPv4Address": "198.51.100.2"}, "bgp_next_hop 198.51.100.2"),
    ([(63, 16)], ip("2001:db8::9"), {"bgpNextHopIPv6Address": "2001:db8::9"}, "bgp_next_hop 2001:db8::9"),
    ([(15, 4), (18, 4)], bytes(8), {}, "not next_hop 0.0.0.0/0 and not next_hop ::/0"),
    ([(9, 1), (13, 1)], bytes([24, 16]), {"sourceIPv4PrefixLength": 24, "destinationIPv4PrefixLength": 16},
     "src_mask 24 and dst_mask <= 16"),
    ([(70, 3)], bytes([0x05, 0xDC, 0x01]), {"mplsTopLabel": 24000}, "mpls_label 24000"),
    ([(70, 3)], bytes([0, 0, 1]), {"mplsTopLabel": 0}, "mpls_label 0"),
    ([(70, 3)], bytes(3), {}, "not mpls_label >= 0"),
    ([(234, 4), (235, 4)], struct.pack(">II", 12, 1 << 31), {"ingressVRFID": 12, "egressVRFID": 1 << 31}, "vrf 12"),
    ([(225, 4), (227, 2)], ip("203.0.113.5") + struct.pack(">H", 40001),
     {"postNATSourceIPv4Address": "203.0.113.5", "postNAPTSourceTransportPort": 40001},
     "nat 203.0.113.0/24 and nat_src_port 40001"),
    ([(226, 4), (228, 2)], ip("203.0.113.6") + struct.pack(">H", 53),
     {"postNATDestinationIPv4Address": "203.0.113.6", "postNAPTDestinationTransportPort": 53}, "dst nat 203.0.113.6"),
    ([(281, 16), (282, 16)], ip("64:ff9b::1") + ip("64:ff9b::2"),
     {"postNATSourceIPv6Address": "64:ff9b::1", "postNATDestinationIPv6Address": "64:ff9b::2"}, "src nat 64:ff9b::/96"),
    ([(230, 1)], bytes([4]), {"natEvent": 4}, "nat_event nat44-create"),
    ([(230, 1)], bytes([16]), {"natEvent": 16}, "nat_event port-block-allocate"),
    ([(233, 1)], bytes([3]), {"firewallEvent": 3}, "fw_event denied"),
    ([(233, 1)], bytes([5]), {"firewallEvent": 5}, "fw_event updated"),
    ([(371, 16)], b"alice".ljust(16, b"\0"), {"userName": "alice"}, "user ali*"),
    ([(371, 65535)], b"\x05alice", {"userName": "alice"}, "user alice"),
    ([(371, 65535)], b"\x00", {}, "not user ?*"),
    ([(96, 24)], b"webex-meeting".ljust(24, b"\0"), {"applicationName": "webex-meeting"}, "app ~ webex"),
    ([(95, 4)], bytes([3, 0, 0, 80]), {"applicationId": "3:80"}, "app 3:80"),
    ([(95, 9)], bytes([20]) + struct.pack(">II", 9, 77), {"applicationId": "20:9:77"},
     "app 20:9:77"),
    ([(95, 65535)], b"\x04" + bytes([13, 0, 0, 1]), {"applicationId": "13:1"}, "app 13:1"),
    ([(302, 8)], struct.pack(">Q", 42), {"selectorId": 42}, "sampler 42"),
    ([(10, 4), (14, 4)], struct.pack(">II", 3, 4_000_000_000),
     {"ingressInterface": 3, "egressInterface": 4_000_000_000}, "in_if if3 and out_if if4000000000"),
    ([(14, 4)], struct.pack(">I", 9), {"egressInterface": 9}, "out_if if9 and not in_if ?*"),
    ([(10, 4), (14, 4), (61, 1)], struct.pack(">IIB", 3, 9, 1), {"ingressInterface": 3, "egressInterface": 9},
     "out_if if9 and in_if if3"),
    ([(10, 4), (61, 1)], struct.pack(">IB", 3, 1), {"ingressInterface": 3}, "in_if if3 and not out_if ?*"),
]
KEYS = ("bgpSourceAsNumber", "bgpDestinationAsNumber", "ipNextHopIPv4Address", "ipNextHopIPv6Address",
        "bgpNextHopIPv4Address", "bgpNextHopIPv6Address", "sourceIPv4PrefixLength", "destinationIPv4PrefixLength",
        "mplsTopLabel", "ingressVRFID", "egressVRFID", "VRFname", "egressVRFname", "postNATSourceIPv4Address",
        "postNATSourceIPv6Address", "postNATDestinationIPv4Address", "postNATDestinationIPv6Address",
        "postNAPTSourceTransportPort", "postNAPTDestinationTransportPort", "natEvent", "firewallEvent",
        "firewallExtendedEvent", "userName", "applicationName", "applicationId", "selectorId", "samplingInterval",
        "ingressInterface", "egressInterface")


@pytest.mark.parametrize(("fields", "octets", "expected", "passing"), SIMPLE, ids=[case[3] for case in SIMPLE])
def test_elements_become_json_and_filters(fields: Sequence[Field], octets: bytes, expected: dict[str, Any],
                                          passing: str) -> None:
    collector = flows(fields, octets)
    row = one(collector)
    assert {name: row[name] for name in KEYS if name in row} == expected
    assert one(collector, passing) == row
    assert not len(collector.table.query(f"not ({passing})"))


ASA = ((225, 4), (226, 4), (227, 2), (228, 2), (233, 1), (33002, 2), (40000, 20))
OLD_ASA = ((40001, 4), (40002, 4), (40003, 2), (40004, 2), (40005, 1), (33002, 2), (40000, 65))


@pytest.mark.parametrize(("fields", "room"), [(ASA, 20), (OLD_ASA, 65)])
@pytest.mark.parametrize(("event", "extended", "user"), [(1, 0, ""), (2, 2028, "bob"), (3, 1001, "a" * 20),
                                                         (5, 0, "carol"), (3, 1004, "EXAMPLE\\dave")])
def test_cisco_asa_reports_translation_event_and_user(fields: Sequence[Field], room: int, event: int, extended: int,
                                                      user: str) -> None:
    octets = ip("203.0.113.1") + ip("198.51.100.9") + struct.pack(">HHBH", 1024, 443, event, extended)
    collector = collected(netflow9(netflow9_template(SET, (*BASE, *fields)),
                                   set_of(SET, base() + octets + user.encode().ljust(room, b"\0"))))
    row = one(collector)
    assert {name: row[name] for name in KEYS if name in row} == {
        "postNATSourceIPv4Address": "203.0.113.1", "postNATDestinationIPv4Address": "198.51.100.9",
        "postNAPTSourceTransportPort": 1024, "postNAPTDestinationTransportPort": 443, "firewallEvent": event,
        **({"firewallExtendedEvent": extended} if extended else {}), **({"userName": user} if user else {})}


@pytest.mark.parametrize("application", ["ssl", "facebook-base", "ms-office365", "x" * 32, "unknown-tcp"])
@pytest.mark.parametrize("enterprise", [None, 25461])
def test_pan_os_app_id_and_user_id(application: str, enterprise: int | None) -> None:
    values = application.encode().ljust(32, b"\0") + b"corp\\eve".ljust(64, b"\0")
    if enterprise is None:
        collector = collected(netflow9(netflow9_template(SET, (*BASE, (56701, 32), (56702, 64))),
                                       set_of(SET, base() + values)))
    else:
        collector = flows([(56701 & 0x7FFF, 32, enterprise), (56702 & 0x7FFF, 64, enterprise)], values)
    row = one(collector)
    assert (row["applicationName"], row["userName"]) == (application, "corp\\eve")


def application_table(*rows: tuple[bytes, str], length: int = 4, domain: int = 7, sequence: int = 0) -> bytes:
    """Options Data: name and description of applications, as IOS sends them (scope: the exporter)."""
    fields = ((144, 4), (95, length), (96, 24), (94, 55))
    data = b"".join(struct.pack(">I", 1) + id_ + name.encode().ljust(24, b"\0") + bytes(55) for id_, name in rows)
    return ipfix(template(OPTIONS, fields, scope=1), set_of(OPTIONS, data), domain=domain, sequence=sequence)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("domain", [7, 0, 256])
def test_application_names_come_from_the_exporters_table_before_or_after_the_flows(late: bool, domain: int) -> None:
    table = application_table((bytes([3, 0, 0, 80]), "http"), (bytes([13, 0, 0, 1]), "bittorrent"), domain=domain)
    records = [bytes([3, 0, 0, 80]), bytes([13, 0, 0, 1]), bytes([3, 0, 0, 81])]
    collector = flows([(95, 4)], *records, before=() if late else (table,))
    if late:
        assert len(collector.table.query("app 3:80")) == 1
        collector.receive(table, ("192.0.2.1", 4739))
    names = {row["applicationId"]: row.get("applicationName") for row in collector.table.query().as_dicts()}
    assert names == {"3:80": "http", "13:1": "bittorrent", "3:81": None}
    [group] = collector.table.query("app http", group="application").as_dicts()
    assert group["applicationName"] == "http" and group["deltaFlowCount"] == 1


def test_a_table_is_of_its_exporter() -> None:
    collector = flows([(95, 4)], bytes([3, 0, 0, 80]))
    collector.receive(application_table((bytes([3, 0, 0, 80]), "other")), ("192.0.2.99", 4739))
    assert "applicationName" not in one(collector)


@pytest.mark.parametrize("length", [4, 2])
def test_vrf_names_come_from_a_table(length: int) -> None:
    fields = ((234, length), (236, 32))
    data = (12).to_bytes(length, "big") + b"red".ljust(32, b"\0")
    table = ipfix(template(OPTIONS, fields, scope=1), set_of(OPTIONS, data))
    row = one(flows([(234, 4), (235, 4)], struct.pack(">II", 12, 13), before=(table,)))
    assert (row["VRFname"], row["ingressVRFID"], row["egressVRFID"]) == ("red", 12, 13)
    assert "egressVRFname" not in row


@pytest.mark.parametrize(("octets", "text"), [
    (bytes([1, 0, 0, 6]), "1:6"), (bytes([3, 0, 1, 187]), "3:443"), (bytes([13, 0x12]), "13:18"),
    (bytes([20, 0, 0, 0, 9, 0, 0, 5]), "20:9:5"), (bytes([20, 0, 0, 5]), "20:5"), (bytes([6]), "6")])
def test_text_of_an_application_id(octets: bytes, text: str) -> None:
    assert application_text(octets) == text
    assert application_text(application_octets(text.encode())) == (text if ":" in text else f"0:{text}")


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "MAX_CODES", 3)
    names = Names()
    naming = names.naming("192.0.2.1", 7)
    codes = naming.user([b"a", b"b", b"c", b"d", b"e"])
    assert len(set(codes)) == 5 and names.evicted == 2
    assert list(names.texts()["users"].values()) == ["c", "d", "e"]
    assert len(set(naming.application([(bytes([1, i]), b"") for i in range(1, 9)]))) == 8
    assert names.evicted == 2 + 5 and len(names.texts()["applications"]) == 3
    assert codes[2:] == list(names.naming("192.0.2.2", 1).user([b"c", b"d", b"e"]))  # a code is one user's for ever


@pytest.mark.parametrize("interval", [1, 2, 100, 1000, 65_536])
def test_the_sampling_interval_that_was_applied(interval: int) -> None:
    row = one(flows([(34, 4)], struct.pack(">I", interval)))
    assert row.get("samplingInterval") == (interval if interval > 1 else None)
    assert row["packetTotalCount"] == 2 * interval


def netflow5(next_hop: str, source_as: int, destination_as: int, masks: tuple[int, int],
             interfaces: tuple[int, int]) -> bytes:
    header = struct.pack(">HHIIIIBBH", 5, 1, 100_000, int(NOW_S), 0, 0, 0, 0, 0)
    return header + struct.pack(">4s4s4sHHIIIIHHBBBBHHBBH", ip("10.0.0.1"), ip("10.0.0.2"), ip(next_hop), *interfaces,
                                2, 300, 1000, 2000, 1000, 443, 0, 0, 6, 0, source_as, destination_as, *masks, 0)


@pytest.mark.parametrize(("next_hop", "ases", "masks", "interfaces"), [
    ("192.0.2.254", (64500, 64501), (24, 16), (1, 2)), ("0.0.0.0", (0, 0), (0, 0), (0, 0)),
    ("0.0.0.0", (0, 15169), (0, 24), (5, 0)), ("10.9.8.7", (65535, 0), (32, 1), (0, 7)),
    ("1.1.1.1", (1, 1), (8, 8), (65535, 65535))])
def test_netflow5(next_hop: str, ases: tuple[int, int], masks: tuple[int, int], interfaces: tuple[int, int]) -> None:
    row = one(collected(netflow5(next_hop, *ases, masks, interfaces)))
    names = ("ipNextHopIPv4Address", "bgpSourceAsNumber", "bgpDestinationAsNumber", "sourceIPv4PrefixLength",
             "destinationIPv4PrefixLength", "ingressInterface", "egressInterface")
    expected = dict(zip(names, ("" if next_hop == "0.0.0.0" else next_hop, *ases, *masks, *interfaces), strict=True))
    expected = {name: value for name, value in expected.items() if value}
    assert {name: row[name] for name in KEYS if name in row} == expected


def test_a_flow_of_both_directions_has_each_ends_values_on_its_side() -> None:
    octets = struct.pack(">IIBBQQ", 1, 2, 24, 16, 500, 5) + ip("192.0.2.254") + struct.pack(">II", 3, 4)
    collector = flows([(16, 4), (17, 4), (9, 1), (13, 1), (232, 8), (299, 8), (15, 4), (10, 4), (14, 4)], octets)
    there, back = one(collector, "src host 10.0.0.1"), one(collector, "dst host 10.0.0.1")
    names = ("bgpSourceAsNumber", "bgpDestinationAsNumber", "sourceIPv4PrefixLength", "destinationIPv4PrefixLength",
             "ipNextHopIPv4Address", "ingressInterface", "egressInterface")
    assert [there.get(name) for name in names] == [1, 2, 24, 16, "192.0.2.254", 3, 4]
    assert [back.get(name) for name in names] == [2, 1, 16, 24, None, 4, 3]


def test_the_last_value_that_was_reported_stays() -> None:
    process, session = CollectingProcess(), Session(0, "192.0.2.1", True)
    fields = (*BASE, (16, 4), (17, 4))
    records = b"".join(base(1) + struct.pack(">II", *ases) for ases in ((1, 2), (3, 0), (0, 0)))
    process.receive(ipfix(template(SET, fields), set_of(SET, records)), session, NOW_S)
    reported = process.drain_all().reported
    assert reported is not None and reported.dtype == REPORTED_DTYPE
    assert reported[["source_as", "destination_as"]].tolist() == [(3, 2)]
    collector = collected(ipfix(template(SET, fields), set_of(SET, records)))
    assert one(collector)["bgpSourceAsNumber"] == 3
    collector.receive(ipfix(set_of(SET, base(1) + struct.pack(">II", 0, 9)), sequence=3), ("192.0.2.1", 4739))
    assert [one(collector)[f"bgp{end}AsNumber"] for end in ("Source", "Destination")] == [3, 9]


def test_templates_without_such_elements_cost_no_memory() -> None:
    process, session = CollectingProcess(), Session(0, "192.0.2.1", True)
    process.receive(ipfix(template(SET, (*BASE, (10, 4), (14, 4))), set_of(SET, base() + struct.pack(">II", 3, 4))),
                    session, NOW_S)
    assert process.drain_all().reported is None


def test_values_of_random_records_are_those_of_struct() -> None:
    rng = np.random.default_rng(7)
    expected = {}
    data = b""
    for number in range(1, 200):
        ases = [int(value) for value in rng.integers(0, 1 << 32, 2)]
        hop = rng.bytes(4)
        data += base(number) + struct.pack(">II", *ases) + hop
        expected[f"10.1.0.{number}"] = (*ases, socket.inet_ntoa(hop))
    collector = collected(ipfix(template(SET, (*BASE, (16, 4), (17, 4), (15, 4))), set_of(SET, data)))
    assert {row["destinationIPv4Address"]: (row["bgpSourceAsNumber"], row["bgpDestinationAsNumber"],
                                            row["ipNextHopIPv4Address"])
            for row in collector.table.query().as_dicts()} == expected
    several = collector.table.query(group="source_as", limit=None)
    assert several.matched == len({ases[0] for ases in expected.values()})


@pytest.mark.parametrize("exporters", [1, 2, 50, 3000])
def test_a_relay_of_many_exporters_takes_no_longer_than_its_records(exporters: int) -> None:
    fields = (*BASE, (10, 4), (130, 4), (405, 4))
    process, session = CollectingProcess(), Session(0, "192.0.2.1", True)
    expected = set()
    for start in range(0, 6000, 100):
        data = b""
        for number in range(start, start + 100):
            place = number % exporters, number % 5, number % 3
            expected.add((f"10.77.{place[0] >> 8}.{place[0] & 255}", place[1], f"if{place[2]}" if place[2] else ""))
            data += base(number) + struct.pack(">III", place[2], 0x0A4D0000 + place[0], place[1])
        process.receive(ipfix(template(SET, fields), set_of(SET, data), sequence=start), session, NOW_S)
    keys, _, _ = process.drain()
    names = process.points.interfaces()
    found = {tuple(exporter_of(names[number]) or ()) for number in np.unique(keys["ifindex"]).tolist()}
    assert found == expected


@pytest.mark.parametrize("length", [0, 3, 5, 8, 16, 17, 65535])
@pytest.mark.parametrize("element", [130, 131, 403, 404, 405, 15, 62, 70, 95, 96, 225, 234, 236, 302, 335, 371])
def test_elements_of_odd_lengths_do_no_harm(element: int, length: int) -> None:
    octets = b"\x07abcdefg" if length == 65535 else bytes(range(1, length + 1))
    collector = flows([(element, length)], octets)
    assert len(collector.table) == 1
    options = ipfix(template(OPTIONS, ((10, 4), (element, length), (82, 4), (405, 4)), scope=1),
                    set_of(OPTIONS, struct.pack(">I", 3) + octets + b"eth0" + struct.pack(">I", 9)), sequence=1)
    collector.receive(options, ("192.0.2.1", 4739))
    assert collector.statistics.refused_messages == 0 and one(collector)
