"""Collected flows, exported: the next collector and tshark see what the first exporter sent."""

from __future__ import annotations

import csv
import ipaddress
import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import flowtop
from flowtop import Collector
from flowtop.capture.collector.capture import collected_batch
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.export.exports import Exports
from flowtop.export.pairing import Hold
from flowtop.export.relays import relayed
from flowtop.export.session import TransportSession
from flowtop.export.spool import Spool
from flowtop.export.statistics import MeteringFacts
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Kind
from flowtop.model.record import RELAYED_RECORD_DTYPE, FlowRecords, joined
from flowtop.text.lookups import Lookups
from flowtop.wire.flow_templates import PROFILES, flow_sets, flow_templates
from flowtop.wire.relayed import MAX_TEMPLATES, RelayedTemplates
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template
from tests.unit.export.flows import flows as own_flows

SET, NAMES = 300, 301
BASE = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (2, 8), (1, 8), (153, 8), (10, 4), (14, 4), (61, 1), (192, 1), (5, 1))
"""Addresses, ports, protocol, packets, octets, end, interfaces, direction, TTL, TOS."""
BASE6 = ((27, 16), (28, 16), *BASE[2:])
RELAY = ("198.51.100.7", 4739)


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def base(number: int, *, version: int = 4, ingress: int = 70_001, egress: int = 12, direction: int = 0,
         ttl: int = 57) -> bytes:
    ends = ip("10.0.0.1") + ip(f"10.1.0.{number}") if version == 4 else ip("2001:db8::1") + ip(f"2001:db8:1::{number}")
    return ends + struct.pack(">HHBQQQIIBBB", 1000, 443, 6, 2, 300, 1_699_999_999_000, ingress, egress, direction, ttl,
                              0xB8)


def names(*rows: tuple[int, str], domain: int = 7) -> bytes:
    data = b"".join(struct.pack(">I", number) + name.encode().ljust(16, b"\0") for number, name in rows)
    return ipfix(template(NAMES, ((10, 4), (82, 16)), scope=1), set_of(NAMES, data), domain=domain)


class Run:
    """A collector that exports: metering, and exports to files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.process = CollectingProcess()
        self.table = FlowTable(TableConfig(), np.random.default_rng(1))
        self.directory = directory

    def receive(self, datagram: bytes, exporter: str = "192.0.2.1") -> None:
        assert self.process.receive(datagram, Session(exporter, exporter, True), NOW_S)

    def records(self) -> tuple[FlowRecords, Lookups]:
        batch = collected_batch(self.process, round(NOW_S * 1e9))
        records = joined((self.table.accumulate(batch), self.table.close_tick(),
                          self.table.end_all(round(NOW_S * 1e9))))
        return records, Lookups(dict(batch.interfaces), texts=batch.texts)

    def export(self, *urls: str) -> None:
        records, lookups = self.records()
        exports = Exports(self.directory / "state")
        for url in urls:
            exports.add(url.format(self.directory))
        exports.update(MeteringFacts(lookups))
        exports.consume(records)
        for export in exports.stop():
            assert (export.statistics.sent_records, export.statistics.last_error) == (len(records), "")


def next_collector(path: Path) -> Collector:
    """A collector that reads a file as from a relay."""
    collector = Collector(clock=lambda: NOW_S)
    assert collector.connection(RELAY).receive(path.read_bytes())
    assert not collector.statistics.refused_messages
    return collector


def rows_of(collector: Collector) -> list[dict[str, Any]]:
    return sorted(collector.table.query().as_dicts(),
                  key=lambda row: str(row.get("destinationIPv4Address") or row["destinationIPv6Address"]))


EXTRA: tuple[tuple[int, int], ...] = (
    (16, 4), (17, 4), (15, 4), (18, 4), (9, 1), (13, 1), (70, 3), (234, 4), (235, 4), (95, 4), (96, 24), (225, 4),
    (226, 4), (227, 2), (228, 2), (230, 1), (233, 1), (371, 16), (302, 4), (236, 8))
VALUES = (struct.pack(">II", 64500, 4_200_000_000) + ip("192.0.2.254") + ip("192.0.2.253") + bytes([24, 17])
          + bytes([0x05, 0xDC, 0x01]) + struct.pack(">II", 12, 13) + bytes([3, 0, 0, 80]) + b"http".ljust(24, b"\0")
          + ip("203.0.113.5") + ip("203.0.113.6") + struct.pack(">HHBB", 40001, 8443, 4, 2) + b"alice".ljust(16, b"\0")
          + struct.pack(">I", 5) + b"red".ljust(8, b"\0"))
SAME = ("sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
        "protocolIdentifier", "packetTotalCount", "octetTotalCount", "ipTTL", "ipClassOfService",
        "exporterIPv4Address", "exporterIPv6Address", "observationDomainId", "interfaceName", "flowDirection",
        "ingressInterface", "egressInterface", "bgpSourceAsNumber", "bgpDestinationAsNumber", "ipNextHopIPv4Address",
        "bgpNextHopIPv4Address", "ipNextHopIPv6Address", "bgpNextHopIPv6Address", "sourceIPv4PrefixLength",
        "destinationIPv4PrefixLength", "sourceIPv6PrefixLength", "destinationIPv6PrefixLength", "mplsTopLabel",
        "ingressVRFID", "egressVRFID", "VRFname", "applicationId", "applicationName", "userName",
        "postNATSourceIPv4Address", "postNATDestinationIPv4Address", "postNATSourceIPv6Address",
        "postNATDestinationIPv6Address", "postNAPTSourceTransportPort", "postNAPTDestinationTransportPort", "natEvent",
        "firewallEvent", "selectorId", "samplingInterval")


def same(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SAME if name in row}


def everything(run: Run) -> None:
    run.receive(names((70_001, "Gi0/0/1"), (12, "Te1/1")))
    run.receive(ipfix(template(SET, (*BASE, *EXTRA)), set_of(SET, base(1) + VALUES)))


def direct(datagrams: Sequence[bytes], exporter: str = "192.0.2.1") -> Collector:
    """A collector that hears the exporter itself."""
    collector = Collector(clock=lambda: NOW_S)
    for datagram in datagrams:
        assert collector.receive(datagram, (exporter, 4739))
    return collector


@pytest.mark.parametrize("profile", ["default", "strict", "nfdump", "pmacct"])
def test_a_chain_keeps_every_value_and_who_reported_it(tmp_path: Path, profile: str) -> None:
    run = Run(tmp_path)
    everything(run)
    run.export(f"file:{{}}/relay.ipfix?profile={profile}")
    [row] = rows_of(next_collector(tmp_path / "relay.ipfix"))
    assert same(row) == {
        "sourceIPv4Address": "10.0.0.1", "destinationIPv4Address": "10.1.0.1", "sourceTransportPort": 1000,
        "destinationTransportPort": 443, "protocolIdentifier": 6, "packetTotalCount": 2, "octetTotalCount": 300,
        "ipTTL": 57, "ipClassOfService": 0xB8, "exporterIPv4Address": "192.0.2.1", "observationDomainId": 7,
        "interfaceName": "Gi0/0/1", "flowDirection": 0, "ingressInterface": 70_001, "egressInterface": 12,
        "bgpSourceAsNumber": 64500, "bgpDestinationAsNumber": 4_200_000_000, "ipNextHopIPv4Address": "192.0.2.254",
        "bgpNextHopIPv4Address": "192.0.2.253", "sourceIPv4PrefixLength": 24, "destinationIPv4PrefixLength": 17,
        "mplsTopLabel": 24000, "ingressVRFID": 12, "egressVRFID": 13, "VRFname": "red", "applicationId": "3:80",
        "applicationName": "http", "userName": "alice", "postNATSourceIPv4Address": "203.0.113.5",
        "postNATDestinationIPv4Address": "203.0.113.6", "postNAPTSourceTransportPort": 40001,
        "postNAPTDestinationTransportPort": 8443, "natEvent": 4, "firewallEvent": 2, "selectorId": 5}


CASES: list[tuple[Sequence[tuple[int, int]], bytes]] = [
    ((), b""), (((16, 4),), struct.pack(">I", 1)), (((17, 4),), struct.pack(">I", 2)),
    (((62, 16),), ip("fe80::1")), (((63, 16), (15, 4)), ip("fe80::2") + ip("192.0.2.9")),
    (((281, 16), (226, 4)), ip("64:ff9b::1") + ip("203.0.113.9")), (((70, 3),), bytes([0, 0, 1])),
    (((371, 65535),), b"\x08" + "übergro".encode()), (((95, 9),), bytes([20]) + struct.pack(">II", 9, 7)),
    (((95, 4),), bytes([13, 0, 1, 0])), (((96, 12),), b"dns".ljust(12, b"\0")), (((233, 1),), bytes([3])),
    (((234, 4),), struct.pack(">I", 9)), (((302, 8),), struct.pack(">Q", 77)), (((13, 1),), bytes([8])),
]


@pytest.mark.parametrize(("fields", "octets"), CASES)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("exporter", ["192.0.2.1", "2001:db8:f::1"])
def test_what_was_not_reported_is_not_made_up(tmp_path: Path, fields: Sequence[tuple[int, int]], octets: bytes,
                                              version: int, exporter: str) -> None:
    datagram = ipfix(template(SET, (*(BASE if version == 4 else BASE6), *fields)),
                     set_of(SET, base(1, version=version) + octets), domain=4_000_000_000)
    run = Run(tmp_path)
    run.receive(datagram, exporter)
    run.export("file:{}/relay.ipfix")
    [row] = rows_of(next_collector(tmp_path / "relay.ipfix"))
    [expected] = rows_of(direct([datagram], exporter))
    assert same(row) == same(expected)


def messages_of(path: Path) -> list[bytes]:
    octets, found = path.read_bytes(), []
    while octets:
        length = struct.unpack_from(">H", octets, 2)[0]
        found.append(octets[:length])
        octets = octets[length:]
    return found


def chained(directory: Path, received: Sequence[tuple[str, bytes]], hops: int, options: str = "") -> Collector:
    """The last collector of a chain of so many relays; the first one receives (exporter, datagram)."""
    for hop in range(hops):
        run = Run(directory)
        for exporter, datagram in received:
            run.receive(datagram, exporter)
        path = directory / f"hop{hop}.ipfix"
        run.export(f"file:{path}{options}")
        received = [(RELAY[0], message) for message in messages_of(path)]
    return next_collector(path)


def kinds_in(messages: Sequence[bytes]) -> list[int]:
    """The kinds of the flows that a collector finds in messages of a relay."""
    process = CollectingProcess()
    for message in messages:
        assert process.receive(message, Session(RELAY[0], RELAY[0], True), NOW_S)
    return process.drain()[0]["kind"].tolist()


def selector(*rows: tuple[int, int], domain: int = 7) -> bytes:
    """Selectors of 1 in n as RFC 5477 has them: (id, n)."""
    data = b"".join(struct.pack(">QHII", id_, 1, 1, interval - 1) for id_, interval in rows)
    return ipfix(template(302, ((302, 8), (304, 2), (305, 4), (306, 4)), scope=1), set_of(302, data), domain=domain)


def netflow5(header: int) -> bytes:
    """A NetFlow 5 datagram of one flow of 2 packets and 300 octets, with sampling in its header."""
    row = ip("10.0.0.1") + ip("10.1.0.1") + ip("192.0.2.254") + struct.pack(
        ">HHIIIIHHBBBBHHBBH", 7, 12, 2, 300, 1000, 2000, 1000, 443, 0, 0x18, 6, 0, 64500, 64501, 24, 16, 0)
    return struct.pack(">HHIIIIBBH", 5, 1, 3000, int(NOW_S), 0, 0, 0, 0, header) + row


SAMPLED = {
    "in the record": [ipfix(template(SET, (*BASE, (34, 4), (302, 8))), set_of(SET, base(1) + struct.pack(
        ">IQ", 100, 3)))],
    "by its selector": [selector((3, 100)), ipfix(template(SET, (*BASE, (302, 8))), set_of(
        SET, base(1) + struct.pack(">Q", 3)))],
    "of its domain": [ipfix(template(302, ((149, 4), (34, 4)), scope=1), set_of(302, struct.pack(">II", 7, 100))),
                      ipfix(template(SET, BASE), set_of(SET, base(1)))],
    "NetFlow 5": [netflow5(1 << 14 | 100)],
}


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("options", ["", "?profile=strict", "?profile=go-ipfix"])
@pytest.mark.parametrize("how", SAMPLED)
def test_counters_are_multiplied_once_in_a_chain(tmp_path: Path, how: str, options: str, hops: int) -> None:
    collector = chained(tmp_path, [("192.0.2.1", datagram) for datagram in SAMPLED[how]], hops, options)
    [row] = rows_of(collector)
    assert (row["packetTotalCount"], row["octetTotalCount"], row["samplingInterval"]) == (200, 30_000, 100)
    assert row.get("selectorId") == (3 if how in ("in the record", "by its selector") else None)
    assert (row["exporterIPv4Address"], collector.statistics.unknown_sampling) == ("192.0.2.1", 0)
    as_sampled = 0 if "go-ipfix" in options else 2
    assert collector.statistics.sampled_packets == as_sampled, "go-ipfix has no options: counters are complete there"


@pytest.mark.parametrize("hops", [1, 2])
def test_samplers_of_several_exporters_stay_apart(tmp_path: Path, hops: int) -> None:
    chosen = template(SET, (*BASE, (302, 8)))
    received: list[tuple[str, bytes]] = []
    for number, interval in enumerate((10, 100, 10, 1000), 1):
        exporter = f"192.0.2.{number}"
        received += [(exporter, selector((3, interval))),
                     (exporter, ipfix(chosen, set_of(SET, base(number) + struct.pack(">Q", 3))))]
    received += [("192.0.2.5", ipfix(template(SET, BASE), set_of(SET, base(5)))),  # does not sample
                 ("192.0.2.6", ipfix(chosen, set_of(SET, base(6) + struct.pack(">Q", 3)))),  # does not say how
                 ("192.0.2.7", ipfix(template(SET, (*BASE, (34, 4))), set_of(SET, base(7) + struct.pack(">I", 50))))]
    collector = chained(tmp_path, received, hops)
    assert [(row["packetTotalCount"], row["octetTotalCount"], row.get("samplingInterval"), row.get("selectorId"))
            for row in rows_of(collector)] == [
        (20, 3000, 10, 3), (200, 30_000, 100, 3), (20, 3000, 10, 3), (2000, 300_000, 1000, 3), (2, 300, None, None),
        (2, 300, None, 3), (100, 15_000, 50, None)]
    assert collector.statistics.unknown_sampling == 1


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("intervals", [(100, 1000), (3, 7), (1000, 100), (2, 1)])
def test_an_interval_that_changes_within_a_flow(tmp_path: Path, hops: int, intervals: tuple[int, int]) -> None:
    received = [("192.0.2.1", ipfix(template(SET, (*BASE, (34, 4), (302, 8))), set_of(
        SET, base(1) + struct.pack(">IQ", interval, 3)))) for interval in intervals]
    [row] = rows_of(chained(tmp_path, received, hops))
    assert (row["packetTotalCount"], row["octetTotalCount"]) == (2 * sum(intervals), 300 * sum(intervals))
    assert row["selectorId"] == 3


def test_beyond_the_limit_of_selectors_counters_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.wire.selectors.MAX_SELECTORS", 2)
    received = [("192.0.2.1", ipfix(template(SET, (*BASE, (34, 4))), set_of(SET, base(number) + struct.pack(
        ">I", 10 * number)))) for number in range(1, 6)]
    rows = rows_of(chained(tmp_path, received, 1))
    assert [(row["packetTotalCount"], row["samplingInterval"]) for row in rows] == [
        (20 * number, 10 * number) for number in range(1, 6)]


@pytest.mark.parametrize("max_octets", [268, 512, 1400])
def test_small_datagrams_have_counters_that_count_once(max_octets: int) -> None:
    records = longest(4)[3:4]
    records["packet_delta"], records["octet_delta"], records["sampling_interval"] = 2000, 300_000, 1000
    session = TransportSession(flow_templates(PROFILES["default"]), 1)
    context = SimpleNamespace(metering=MeteringFacts, wall=lambda: NOW_S, owners=lambda: None)
    messages = session.announcement(context, max_octets)
    flows = session.flows(records, context, max_octets)
    assert flows.records["packet_delta"].tolist() == [2000], "the record itself is as before"
    for message in (*messages, *flows.preceding, *flows.messages, *session.announcement(context, max_octets)):
        assert len(message) <= max_octets
    rows = direct([*messages, *flows.preceding, *flows.messages]).table.query().as_dicts()
    assert [(row["packetTotalCount"], row["octetTotalCount"]) for row in rows] == [(2000, 300_000)]


@pytest.mark.parametrize("profile", ["default", "strict"])
@pytest.mark.parametrize(("fields", "octets", "text"), [
    ((), b"", {}), (((32, 2), (4, 1)), struct.pack(">HB", 0x0800, 1), {"icmpTypeCodeIPv4": 0x0800}),
    (((296, 4),), struct.pack(">I", 77), {"tunnel": "gre", "tunnelId": 77}),
    (((351, 8),), struct.pack(">Q", 1 << 56 | 42),
     {"tunnel": "vxlan", "tunnelId": 42, "layer2SegmentId": 1 << 56 | 42}),
    (((58, 2), (56, 6)), struct.pack(">H", 100) + b"\2\0\0\0\0\7",
     {"vlanId": 100, "sourceMacAddress": "02:00:00:00:00:07"}),
])
@pytest.mark.parametrize("direction", [None, 0, 1])
def test_kinds_of_flows_and_unknown_directions_stay(tmp_path: Path, profile: str, fields: Sequence[tuple[int, int]],
                                                    octets: bytes, text: dict[str, Any], direction: int | None) -> None:
    icmp = (4, 1) in fields
    shape = [(8, 4), (12, 4), *([] if icmp else [(7, 2), (11, 2), (4, 1)]), (2, 8), (1, 8), (153, 8), (10, 4), (14, 4)]
    data = ip("10.0.0.1") + ip("10.0.0.2") + (b"" if icmp else struct.pack(">HHB", 1000, 443, 17))
    data += struct.pack(">QQQII", 2, 300, 1_699_999_999_000, 3, 4)
    if direction is not None:
        shape, data = [*shape, (61, 1)], data + bytes([direction])
    datagram = ipfix(template(SET, (*shape, *fields)), set_of(SET, data + octets))
    run = Run(tmp_path)
    run.receive(datagram)
    run.export(f"file:{{}}/relay.ipfix?profile={profile}")
    [row], [expected] = rows_of(next_collector(tmp_path / "relay.ipfix")), rows_of(direct([datagram]))
    names = (*SAME, "tunnel", "tunnelId", "layer2SegmentId", "vlanId", "sourceMacAddress", "icmpTypeCodeIPv4")
    assert {name: row.get(name) for name in names} == {name: expected.get(name) for name in names}
    assert text.items() <= row.items() and row.get("flowDirection") == direction
    assert (row["ingressInterface"], row["egressInterface"]) == (3, 4)


@pytest.mark.parametrize("exporter", ["192.0.2.1", "2001:db8:f::1"])
def test_a_file_of_a_relay_names_the_exporters(tmp_path: Path, exporter: str) -> None:
    run = Run(tmp_path)
    run.receive(names((70_001, "Gi0/0/1")), exporter)
    run.receive(ipfix(template(SET, BASE), set_of(SET, base(1))), exporter)
    run.export("file:{}/relay.ipfix")
    [row] = flowtop.read(tmp_path / "relay.ipfix").query().as_dicts()
    assert (row.get("exporterIPv4Address") or row.get("exporterIPv6Address"), row["observationDomainId"],
            row["interfaceName"]) == (exporter, 7, "Gi0/0/1")


def test_exporters_with_the_same_interface_numbers_stay_apart(tmp_path: Path) -> None:
    run = Run(tmp_path)
    exporters = [("192.0.2.1", 7, "Gi1"), ("192.0.2.2", 7, "eth0"), ("192.0.2.2", 8, "xe-0/0/0"),
                 ("2001:db8:f::1", 7, "ge-1"), ("192.0.2.3", 0, "")]
    for number, (exporter, domain, name) in enumerate(exporters, 1):
        if name:
            run.receive(names((3, name), domain=domain), exporter)
        run.receive(ipfix(template(SET, BASE), set_of(SET, base(number, ingress=3)), domain=domain), exporter)
    run.export("file:{}/relay.ipfix", "jsonl:{}/relay.jsonl", "csv:{}/relay.csv")
    found = [(row.get("exporterIPv4Address") or row.get("exporterIPv6Address"), row["observationDomainId"],
              row["interfaceName"], row["ingressInterface"])
             for row in rows_of(next_collector(tmp_path / "relay.ipfix"))]
    assert found == [(exporter, domain, name or "if3", 3) for exporter, domain, name in exporters]
    lines = [json.loads(line) for line in (tmp_path / "relay.jsonl").read_text().splitlines()]
    assert {(row.get("exporterIPv4Address") or row.get("exporterIPv6Address"), row["observationDomainId"],
             row["interfaceName"], row["ingressInterface"], row["egressInterface"]) for row in lines} == {
        (exporter, domain, name or "if3", 3, 12) for exporter, domain, name in exporters}
    with (tmp_path / "relay.csv").open() as file:
        assert {row["egressInterface"] for row in csv.DictReader(file)} == {"12"}


def test_a_chain_of_three(tmp_path: Path) -> None:
    run = Run(tmp_path)
    everything(run)
    run.export("file:{}/first.ipfix")
    second = Run(tmp_path)
    for message in messages_of(tmp_path / "first.ipfix"):
        second.receive(message, RELAY[0])
    second.export("file:{}/second.ipfix")
    [once], [twice] = (rows_of(next_collector(tmp_path / f"{name}.ipfix")) for name in ("first", "second"))
    assert same(twice) == same(once) and twice["exporterIPv4Address"] == "192.0.2.1"


def test_the_spool_keeps_relayed_records_whole(tmp_path: Path) -> None:
    run = Run(tmp_path)
    everything(run)
    for number, (fields, octets) in enumerate(CASES, 1):
        run.receive(ipfix(template(400 + number, (*BASE, *fields)), set_of(400 + number, base(number + 1) + octets)))
    found = relayed(*run.records())
    assert found.dtype == RELAYED_RECORD_DTYPE and len(found) == 1 + len(CASES)
    spool = Spool(tmp_path / "spool", domain=1, wall=lambda: NOW_S)
    refused, error = spool.store(found)
    assert not len(refused) and not error
    back = spool.oldest()
    assert back.dtype == RELAYED_RECORD_DTYPE
    names = [name for name in (RELAYED_RECORD_DTYPE.names or ()) if name not in (
        "ifindex", "other_ifindex", "ingress_vrf", "egress_vrf", "application", "user", "firewall_extended_event",
        "packet_total", "octet_total", "duplicate", "application_id")]
    order, other = np.argsort(back["flow_id"]), np.argsort(found["flow_id"])
    for name in names:
        assert back[name][order].tolist() == found[name][other].tolist(), name
    spool.close()


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("profile", ["default", "strict"])
@pytest.mark.parametrize("ports", [(), (7,), (11,), (7, 11)])
def test_ports_that_were_not_reported_are_not_0(tmp_path: Path, profile: str, ports: Sequence[int], hops: int) -> None:
    shape = (*BASE[:2], *((port, 2) for port in ports), *BASE[4:])
    record = base(1)
    record = record[:8] + b"".join({7: record[8:10], 11: record[10:12]}[port] for port in ports) + record[12:]
    [row] = rows_of(chained(tmp_path, [("192.0.2.1", ipfix(template(SET, shape), set_of(SET, record)))], hops,
                            f"?profile={profile}"))
    assert (row.get("sourceTransportPort"), row.get("destinationTransportPort")) == (
        1000 if 7 in ports else None, 443 if 11 in ports else None)
    assert kinds_in(messages_of(tmp_path / f"hop{hops - 1}.ipfix")) == [Kind.FLOW]


def test_later_fragments_stay_fragments() -> None:
    session = TransportSession(flow_templates(PROFILES["strict"]), 1)
    context = SimpleNamespace(metering=MeteringFacts, wall=lambda: NOW_S, owners=lambda: None)
    records = np.zeros(1, RELAYED_RECORD_DTYPE)
    records["ip_version"], records["protocol"], records["kind"], records["packet_delta"] = 4, 17, Kind.FRAGMENT, 3
    records["exporter"] = np.void(bytes(10) + b"\xff\xff" + ip("192.0.2.1"))
    messages, flows = session.announcement(context), session.flows(records, context)
    assert kinds_in([*messages, *flows.preceding, *flows.messages]) == [Kind.FRAGMENT]


@pytest.mark.parametrize("hops", [1, 2])
def test_names_of_vrfs_on_both_sides(tmp_path: Path, hops: int) -> None:
    received = []
    for number in (1, 2):  # both exporters call VRF 13 differently
        table = ipfix(template(400, ((234, 4), (236, 8)), scope=1), set_of(400, b"".join(
            struct.pack(">I8s", id_, f"{name}{number}".encode()) for id_, name in ((12, "red"), (13, "blue")))))
        flow = ipfix(template(SET, (*BASE, (234, 4), (235, 4))), set_of(SET, base(number) + struct.pack(">II", 12, 13)))
        received += [(f"192.0.2.{number}", table), (f"192.0.2.{number}", flow)]
    unnamed = ipfix(template(SET, (*BASE, (235, 4))), set_of(SET, base(3) + struct.pack(">I", 14)))
    received.append(("192.0.2.3", unnamed))
    found = [(row.get("ingressVRFID"), row.get("VRFname"), row.get("egressVRFID"), row.get("egressVRFname"))
             for row in rows_of(chained(tmp_path, received, hops))]
    assert found == [(12, "red1", 13, "blue1"), (12, "red2", 13, "blue2"), (None, None, 14, None)]


def test_the_extended_event_of_a_firewall(tmp_path: Path) -> None:
    fields = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (33002, 2))  # NetFlow 9 has no enterprises
    record = ip("10.0.0.1") + ip("10.1.0.1") + struct.pack(">HHBIIH", 1000, 443, 6, 300, 2, 2014)
    announced = struct.pack(">HH", SET, len(fields)) + b"".join(struct.pack(">HH", *each) for each in fields)
    datagram = struct.pack(">HHIIII", 9, 2, 1000, int(NOW_S), 0, 7) + set_of(0, announced) + set_of(SET, record)
    [row] = rows_of(chained(tmp_path, [("192.0.2.1", datagram)], 2))
    assert row["firewallExtendedEvent"] == 2014


def test_relayed_flows_do_not_wait_for_their_other_direction(tmp_path: Path) -> None:
    ways = [ip("10.0.0.1") + ip("10.0.0.2") + struct.pack(">HH", 1000, 443), ip("10.0.0.2") + ip("10.0.0.1")
            + struct.pack(">HH", 443, 1000)]
    received = [("192.0.2.1", ipfix(template(SET, BASE), set_of(SET, way + base(1)[12:]))) for way in ways]
    run = Run(tmp_path)
    for exporter, datagram in received:
        run.receive(datagram, exporter)
    records = relayed(*run.records())
    assert len(Hold().put(records, 0.0)) == 2, "they cannot be one biflow: what was reported is of one direction"
    rows = rows_of(chained(tmp_path, received, 1, "?biflow=on"))
    assert {(row["sourceTransportPort"], row["packetTotalCount"], row["exporterIPv4Address"]) for row in rows} == {
        (1000, 2, "192.0.2.1"), (443, 2, "192.0.2.1")}


@pytest.mark.parametrize("max_octets", [512, 1400])
def test_templates_are_limited_also_where_records_lack_much(monkeypatch: pytest.MonkeyPatch, max_octets: int) -> None:
    monkeypatch.setattr("flowtop.wire.relayed.MAX_TEMPLATES", 20)
    records = np.concatenate([longest(4)[:1]] * 512)
    records["record_bits"], records["protocol"] = np.arange(512), 6  # every combination of elements that are missing
    session = TransportSession(flow_templates(PROFILES["default"]), 1)
    context = SimpleNamespace(metering=MeteringFacts, wall=lambda: NOW_S, owners=lambda: None)
    messages = session.announcement(context, max_octets)
    flows = session.flows(records, context, max_octets)
    assert max(map(len, [*messages, *flows.preceding, *flows.messages])) <= max_octets
    assert len(session._relayed) <= 22
    collector = direct([*messages, *flows.preceding, *flows.messages])
    assert collector.statistics.records == 512 and not collector.statistics.skipped


def test_the_number_of_templates_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtop.wire import relayed as module
    from flowtop.wire.flow_templates import IPV4

    monkeypatch.setattr(module, "MAX_TEMPLATES", 5)
    templates, base_template = RelayedTemplates(), flow_templates(PROFILES["strict"]).flows[IPV4]
    ids = {templates.template(base_template, signature)[0].id for signature in range(256, 12_800, 256)}
    assert len(ids) == 6 and MAX_TEMPLATES >= 100


def longest(version: int) -> FlowRecords:
    """A relayed record of each kind with every value there is, all names as long as they may be."""
    records = np.zeros(8, RELAYED_RECORD_DTYPE)
    for name in RELAYED_RECORD_DTYPE.names or ():
        kind = RELAYED_RECORD_DTYPE[name].kind
        if kind in "u":
            records[name] = 1
        elif kind == "S":
            records[name] = b"x" * RELAYED_RECORD_DTYPE[name].itemsize
    records["ip_version"], records["protocol"] = version, [6, 1, 58, 6, 6, 6, 6, 6]
    records["kind"], records["tunnel"] = [0, 0, 0, 2, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 3, 4]
    records["application_id"], records["sampling_interval"] = b"20:4294967295:4294967295", 0xFFFF_FFFF
    for name in ("exporter", "next_hop", "bgp_next_hop", "post_nat_source", "post_nat_destination"):
        records[name] = np.void(ip("2001:db8::1"))
    return records


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("max_octets", [268, 484, 512, 640, 1400, 65_535])
@pytest.mark.parametrize("limit", [0, 256])
def test_records_fit_every_datagram(monkeypatch: pytest.MonkeyPatch, version: int, max_octets: int, limit: int) -> None:
    monkeypatch.setattr("flowtop.wire.relayed.MAX_TEMPLATES", limit)
    session = TransportSession(flow_templates(PROFILES["default"]), 1)
    context = SimpleNamespace(metering=MeteringFacts, wall=lambda: NOW_S, owners=lambda: None)
    messages = session.announcement(context, max_octets)
    flows = session.flows(longest(version), context, max_octets)
    messages += flows.preceding
    assert max(map(len, [*messages, *flows.messages])) <= max_octets
    collector = Collector(clock=lambda: NOW_S)
    for message in (*messages, *flows.messages):
        assert collector.receive(message, RELAY)
    rows = collector.table.query().as_dicts()
    assert {row.get("exporterIPv6Address") for row in rows} == {"2001:db8::1"}
    assert {row["bgpSourceAsNumber"] for row in rows if "bgpSourceAsNumber" in row} == {1}
    assert any("userName" in row for row in rows) == (max_octets >= 640)


def test_templates_have_only_what_a_record_has(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.receive(ipfix(template(SET, (*BASE, (16, 4))), set_of(SET, base(1) + struct.pack(">I", 1))))
    templates = RelayedTemplates()
    flow_sets(relayed(*run.records()), flow_templates(PROFILES["strict"]), templates)
    [names] = [each.names for each in templates.templates]
    assert names[names.index("originalObservationDomainId"):] == (
        "originalObservationDomainId", "originalExporterIPv4Address", "exporterIPv4Address", "ipTTL",
        "bgpSourceAsNumber", "bgpDestinationAsNumber", "samplingInterval")


def test_flows_of_this_host_are_exported_as_before(tmp_path: Path) -> None:
    records = own_flows(5)
    assert relayed(records, Lookups()) is records


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_reads_every_value(tmp_path: Path) -> None:
    run = Run(tmp_path)
    everything(run)
    run.receive(ipfix(template(SET, (*BASE, (34, 4))), set_of(SET, base(2) + struct.pack(">I", 1000)), sequence=1))
    run.export("file:{}/relay.ipfix")
    text = subprocess.run(["tshark", "-r", str(tmp_path / "relay.ipfix"), "-V"], capture_output=True, text=True,
                          check=True, timeout=60).stdout
    for expected in (
            "Original_Exporter_Ipv4_Address: 192.0.2.1", "ExporterAddr: 192.0.2.1", "Original_Observation_Domain_Id: 7",
            "InputInt: 70001", "OutputInt: 12", "SrcAS: 64500", "DstAS: 4200000000", "NextHop: 192.0.2.254",
            "BGPNextHop: 192.0.2.253", "SrcMask: 24", "DstMask: 17", "IP TTL: 57", "IP ToS: 0xb8", "Ingress VRFID: 12",
            "Egress VRFID: 13", "VRFname: red", "ApplicationName: http", "Classification Engine ID: IANA-L4 (3)",
            "Selector ID: 000050", "User Name: alice", "MPLS label: 24000", "Selector Id: 5",
            "Post NAT Source IPv4 Address: 203.0.113.5", "Post NAT Destination IPv4 Address: 203.0.113.6",
            "Post NAPT Source Transport Port: 40001", "Post NAPT Destination Transport Port: 8443",
            "Nat Event: NAT44 session create (4)", "Firewall Event: Flow deleted (2)",
            "Sampling interval: 1000", "Selector Algorithm: Systematic count-based Sampling (1)",
            "Sampling Packet Interval: 1", "Sampling Packet Space: 999", "Selector Name: sampler 5",
            "IfName: Gi0/0/1", "Packets: 2"):
        assert f" {expected}\n" in text, expected
    assert "Malformed" not in text and "[Expert Info" not in text
