"""sFlow beside sampled Ethernet headers: other header protocols, data of packets, extended data, counters, discards."""

from __future__ import annotations

import ipaddress
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowtop
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sflow import SampledPackets
from flowtop.capture.files.messages import Payload
from flowtop.model.exporters import collecting_record, facts, faults
from flowtop.model.kinds import ANY_PROTOCOL, Kind, Tunnel
from flowtop.output.dump import entries, entry_text
from flowtop.wire.sflow import decode_sflow
from flowtop.wire.sflow_records import Extended
from tests.kernel import frames as f
from tests.unit.capture.collector.test_sflow import NOW_S, UDP, datagram, frame, raw_header, sample
from tests.unit.capture.files import links
from tests.unit.wire.patience import patient

V4 = f.ipv4(f.udp(1_000, 2_000, bytes(68)), f.UDP)
V6 = f.ipv6(f.tcp(443, 50_000, f.SYN, bytes(30)), f.TCP)


def record(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", kind, len(body)) + body


def text(value: str) -> bytes:
    octets = value.encode()
    return struct.pack(">I", len(octets)) + octets + bytes(-len(octets) % 4)


def address(value: str) -> bytes:
    packed = ipaddress.ip_address(value).packed
    return struct.pack(">I", 1 if len(packed) == 4 else 2) + packed


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def ip_data(octets: int, protocol: int, source: str, destination: str, ports: tuple[int, int], bits: int = 0,
            tos: int = 0) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    body = words(octets, protocol) + ends + words(*ports, bits, tos)
    return record(3 if "." in source else 4, body)


def ethernet_data(octets: int, type_: int) -> bytes:
    return record(2, words(octets) + f.SOURCE_MAC + bytes(2) + f.DESTINATION_MAC + bytes(2) + words(type_))


def switch(source: int, destination: int) -> bytes:
    return record(1001, words(source, 0, destination, 0))


def stack(kind: int, *vlans: int) -> bytes:
    return record(kind, words(len(vlans), *(0x8100 << 16 | vlan for vlan in vlans)))


def received(*samples: bytes, **facts: Any) -> tuple[list[dict[str, Any]], CollectingProcess]:
    process = CollectingProcess()
    assert process.receive(datagram(*samples, **facts), UDP, NOW_S)
    return flows(process), process


def flows(process: CollectingProcess) -> list[dict[str, Any]]:
    keys, counters, _ = process.drain()
    return [{
        "ends": tuple(str(ipaddress.ip_address(bytes(key[f"{end}_address"])[:4 if key["ip_version"] == 4 else 16]))
                      for end in ("source", "destination")),
        "ports": (int(key["source_port"]), int(key["destination_port"])), "protocol": int(key["protocol"]),
        "vlan": (int(key["vlan_id"]), int(key["customer_vlan_id"])), "kind": int(key["kind"]),
        "tunnel": (int(key["tunnel"]), int(key["tunnel_id"])),
        "counts": (int(counter["packets"]), int(counter["octets"])), "tos": int(counter["tos"]),
        "bits": sum(1 << bit for bit, seen in enumerate(counter["tcp_bit_seen"][:9].tolist()) if seen),
        "macs": bytes(counter["source_mac"]) + bytes(counter["destination_mac"]),
    } for key, counter in zip(keys, counters, strict=True)]


# ---- headers

HEADERS: dict[str, tuple[int, bytes, bytes]] = {
    "Token Ring": (3, b"\x10\x40" + links.DA + links.SA + links.snap(f.IPV4) + V4, links.MACS),
    "FDDI": (4, b"\x50" + links.DA + links.SA + links.snap(f.IPV4) + V4, links.MACS),
    "Frame Relay": (5, b"\x18\x41\x03\xcc" + V4, bytes(12)),
    "PPP": (7, b"\x00\x21" + V4, bytes(12)),
    "PPP framed": (7, b"\xff\x03\x00\x21" + V4, bytes(12)),
    "AAL5": (9, links.snap(f.IPV4) + V4, bytes(12)),
    "AAL5 IP": (10, V4, bytes(12)),
    "IPv4": (11, V4, bytes(12)),
    "POS": (14, b"\xff\x03\x00\x21" + V4, bytes(12)),
    "POS of Cisco": (14, b"\x0f\x00\x08\x00" + V4, bytes(12)),
    "802.11": (15, links.dot11(links.FROM_DS, addresses=(links.DA, links.BSS, links.SA)) + links.snap(f.IPV4) + V4,
               links.MACS),
    "802.11 qos": (15, links.dot11(links.TO_DS, 8, addresses=(links.BSS, links.SA, links.DA), qos=bytes(2))
                   + links.snap(f.IPV4) + V4, links.MACS),
    "A-MSDU subframe": (17, links.subframe(f.IPV4, len(V4)) + V4, links.MACS),
    "MPLS": (13, words(16_001 << 12 | 0x140) + V4, bytes(12)),
    "MPLS, two labels": (13, words(16_001 << 12 | 0x40, 7 << 12 | 0x140) + V4, bytes(12)),
    "MPLS with an Ethernet pseudowire": (
        13, words(16_001 << 12 | 0x140, 0) + f.ethernet(f.IPV4, V4), bytes(12)),
    "PPP with MPLS": (7, b"\x02\x81" + words(16_001 << 12 | 0x140) + V4, bytes(12)),
    "POS of Cisco with MPLS": (14, b"\x0f\x00\x88\x47" + words(16_001 << 12 | 0x140) + V4, bytes(12)),
    "Ethernet with MPLS": (1, f.ethernet(0x8847, words(16_001 << 12 | 0x140) + V4), f.SOURCE_MAC + f.DESTINATION_MAC),
    "Ethernet with PPPoE": (1, f.ethernet(0x8864, b"\x11\x00\x00\x07" + struct.pack(">HH", len(V4) + 2, 0x21) + V4),
                            f.SOURCE_MAC + f.DESTINATION_MAC),
    "802.3": (1, f.ethernet(len(V4) + 8, links.snap(f.IPV4) + V4), f.SOURCE_MAC + f.DESTINATION_MAC),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_every_protocol(name: str) -> None:
    protocol, octets, macs = HEADERS[name]
    (flow,), process = received(sample(raw_header(octets, protocol)))
    assert (flow["ends"], flow["ports"], flow["counts"], flow["macs"]) == (
        ("10.0.0.1", "10.0.0.2"), (1_000, 2_000), (100, 9_600), macs)
    assert process.statistics().unusable_records == 0


# ---- data in place of a header

DATA: dict[str, tuple[bytes, dict[str, Any]]] = {
    "tcp": (ip_data(1_000, f.TCP, "192.0.2.9", "198.51.100.9", (1_234, 443), f.ACK | f.PSH, 0x28),
            {"ends": ("192.0.2.9", "198.51.100.9"), "ports": (1_234, 443), "protocol": f.TCP, "counts": (100, 100_000),
             "bits": f.ACK | f.PSH, "tos": 0x28}),
    "udp": (ip_data(1_500, f.UDP, "192.0.2.9", "198.51.100.9", (53, 40_000)),
            {"ports": (53, 40_000), "protocol": f.UDP, "counts": (100, 150_000), "bits": 0}),
    "icmp, type and code": (ip_data(84, f.ICMP, "192.0.2.9", "198.51.100.9", (3, 1)),
                            {"ports": (0, 0x0301), "protocol": f.ICMP, "counts": (100, 8_400)}),
    "icmp as NetFlow": (ip_data(84, f.ICMP, "192.0.2.9", "198.51.100.9", (0, 0x0800)), {"ports": (0, 0x0800)}),
    "gre": (ip_data(500, f.GRE, "192.0.2.9", "198.51.100.9", (0, 0)), {"ports": (0, 0), "protocol": f.GRE}),
    "shortest": (ip_data(0, f.UDP, "192.0.2.9", "198.51.100.9", (1, 2)), {"counts": (100, 2_000)}),
    "tcp 6": (ip_data(1_000, f.TCP, "2001:db8::9", "2001:db8::8", (1_234, 443), f.SYN, 0xB8),
              {"ends": ("2001:db8::9", "2001:db8::8"), "ports": (1_234, 443), "protocol": f.TCP, "bits": f.SYN,
               "counts": (100, 100_000), "tos": 0xB8}),
    "udp 6": (ip_data(1_280, f.UDP, "2001:db8::9", "2001:db8::8", (53, 40_000)),
              {"ports": (53, 40_000), "counts": (100, 128_000)}),
    "icmp 6": (ip_data(104, f.ICMPV6, "fe80::1", "ff02::1", (134, 0)), {"ports": (0, 134 << 8), "protocol": f.ICMPV6}),
}


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("name", DATA)
def test_data_of_a_packet_without_its_header(name: str, expanded: bool) -> None:
    octets, expected = DATA[name]
    (flow,), process = received(sample(octets, expanded=expanded))
    assert {key: flow[key] for key in expected} == expected
    assert flow["kind"] == Kind.FLOW
    statistics = process.statistics()
    assert (statistics.records, statistics.unusable_records, statistics.sampled_packets) == (1, 0, 1)


def test_a_sample_is_one_packet_whatever_it_says_of_it() -> None:
    (flow,), _ = received(sample(DATA["udp"][0], raw_header(f.ethernet(f.IPV4, V4))))
    assert (flow["ports"], flow["counts"]) == ((1_000, 2_000), (100, 9_600)), "more exact"
    (flow,), process = received(sample(raw_header(b"?" * 60, 6), DATA["tcp"][0], ethernet_data(1_518, f.IPV4)))
    assert (flow["ports"], flow["counts"]) == ((1_234, 443), (100, 100_000)), "the header is not read"
    assert process.statistics().records == 1


@pytest.mark.parametrize(("octets", "type_", "version", "expected"), [
    (1_518, f.IPV4, 4, 1_500), (64, f.IPV4, 4, 46), (1_018, f.IPV6, 6, 1_000), (9_018, f.IPV6, 6, 9_000),
    (100, f.IPV4, 4, 82)])
def test_frames_of_which_only_the_ethernet_header_is_known_are_an_aggregate(
        octets: int, type_: int, version: int, expected: int) -> None:
    process = CollectingProcess()
    process.receive(datagram(sample(ethernet_data(octets, type_))), UDP, NOW_S)
    (key,), (counter,), _ = process.drain()
    assert (int(key["kind"]), int(key["ip_version"]), int(key["protocol"])) == (Kind.AGGREGATE, version, ANY_PROTOCOL)
    assert (int(counter["packets"]), int(counter["octets"])) == (100, expected * 100)
    assert bytes(counter["source_mac"]) + bytes(counter["destination_mac"]) == f.SOURCE_MAC + f.DESTINATION_MAC


# ---- every sample is counted

COUNTED: dict[str, tuple[bytes, dict[str, int]]] = {
    "no record": (sample(), {"records": 1, "unusable_records": 1}),
    "extended data only": (sample(switch(1, 2)), {"records": 1, "unusable_records": 1}),
    "a record of a vendor only": (sample(record(8800 << 12 | 1, bytes(8))), {"records": 1, "unusable_records": 1}),
    "arp only": (sample(ethernet_data(64, f.ARP)), {"records": 1, "unusable_records": 1}),
    "a header that is not read": (sample(raw_header(b"?" * 60, 6)), {"records": 1, "unusable_records": 1}),
    "IP data cut": (sample(record(3, bytes(20))), {"records": 1, "unusable_records": 1, "short_records": 1}),
    "IPv6 data cut": (sample(record(4, bytes(40))), {"records": 1, "unusable_records": 1, "short_records": 1}),
    "Ethernet data cut": (sample(record(2, bytes(20))), {"records": 1, "unusable_records": 1, "short_records": 1}),
    "header cut": (sample(record(1, bytes(12))), {"records": 1, "unusable_records": 1, "short_records": 1}),
    "header shorter than it says": (
        sample(record(1, words(1, 114, 0, 200) + f.ethernet(f.IPV4, V4)[:60])), {"records": 1, "short_records": 1}),
    "unknown sample": (record(6, bytes(16)), {"unknown_samples": 1}),
    "a vendor's sample": (record(4413 << 12 | 1, bytes(16)), {"unknown_samples": 1}),
    "counters": (record(2, words(1, 3, 0)), {"counter_samples": 1}),
    "counters cut": (record(2, words(1, 3, 9)), {"short_records": 1}),
    "interface counters cut": (record(2, words(1, 3, 1) + record(1, bytes(40))),
                               {"counter_samples": 1, "short_records": 1}),
    "discard": (record(5, words(1, 0, 3, 0, 3, 4, 258, 0)), {"discarded_packets": 1}),
    "discard cut": (record(5, words(1, 0, 3)), {"short_records": 1}),
}
AT_REST = {"messages": 1, "exporters": 1, "sampling_interval": 1}


@pytest.mark.parametrize("name", COUNTED)
def test_every_sample_is_counted(name: str) -> None:
    """Where a part of a datagram cannot be read, its other samples are."""
    octets, expected = COUNTED[name]
    found, process = received(octets)
    statistics = process.statistics()
    shown = {key: value for key in statistics.__dataclass_fields__
             if key not in AT_REST and "sampled" not in key and (value := getattr(statistics, key))}
    assert shown == expected
    others, process = received(sample(raw_header(frame())), octets)
    assert len(others) == len(found) + 1
    shown_words = dict(faults(process.statistics()))
    for key, word in (("unknown_samples", "unknown samples"), ("short_records", "records cut"),
                      ("unusable_records", "no flows")):
        assert shown_words.get(word, 0) == expected.get(key, 0)
    assert collecting_record(statistics)["shortRecords"] == expected.get("short_records", 0)


# ---- VLANs and tunnels that the agent reports

VLANS: dict[str, tuple[tuple[bytes, ...], int, tuple[int, int]]] = {
    "in": ((switch(100, 200),), 3, (100, 0)),
    "out, sampled as it left": ((switch(100, 200),), 7, (200, 0)),
    "only in known": ((switch(100, 0),), 7, (100, 0)),
    "only out known": ((switch(0, 200),), 3, (200, 0)),
    "unknown": ((switch(0xFFFFFFFF, 4_095),), 3, (0, 0)),
    "largest": ((switch(4_094, 1),), 3, (4_094, 0)),
    "source is no interface": ((switch(100, 200),), 9, (100, 0)),
    "two stripped tags": ((stack(1012, 7, 8),), 3, (7, 8)),
    "stripped tag with priority": ((stack(1012, 0xA000 | 300),), 3, (300, 0)),
    "stripped tags are more exact": ((stack(1012, 7), switch(100, 200)), 3, (7, 0)),
    "tags in": ((stack(1034, 30, 31), stack(1035, 40)), 3, (30, 31)),
    "tags out": ((stack(1034, 30, 31), stack(1035, 40)), 7, (40, 0)),
}
"""Records, the sample's data source (3 came in, 7 left), VLANs."""


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("name", VLANS)
def test_vlans_that_the_header_does_not_have(name: str, expanded: bool) -> None:
    records, source, expected = VLANS[name]
    (flow,), _ = received(sample(raw_header(frame()), *records, source=source, expanded=expanded))
    assert flow["vlan"] == expected


@pytest.mark.parametrize(("octets", "expected"), [
    (switch(100, 200), (12, 0)), (stack(1012, 7), (7, 12)), (stack(1012, 7, 8), (7, 8)), (stack(1012), (12, 0)),
    (stack(1034, 30), (12, 0))])
def test_a_tag_in_the_header_stays_and_stripped_ones_are_around_it(octets: bytes, expected: tuple[int, int]) -> None:
    (flow,), _ = received(sample(raw_header(frame(vlan=12)), octets))
    assert flow["vlan"] == expected


def outer(protocol: int, port: int = 0, kind: int = 1024) -> bytes:
    ends = ("192.0.2.1", "192.0.2.2") if kind < 1025 else ("2001:db8::1", "2001:db8::2")
    return record(kind, ip_data(150, protocol, *ends, (50_000, port))[8:])


@pytest.mark.parametrize(("octets", "expected"), [
    ((outer(f.UDP, 4_789), record(1030, words(5_000))), (Tunnel.VXLAN, 5_000)),
    ((record(1030, words(0xFFFFFF)),), (Tunnel.VXLAN, 0xFFFFFF)),
    ((record(1030, words(70)), outer(f.UDP, 6_081)), (Tunnel.GENEVE, 70)),
    ((outer(f.UDP, 4_789, 1026), record(1030, words(9))), (Tunnel.VXLAN, 9)),
    ((outer(f.GRE),), (Tunnel.GRE, 0)),
    ((outer(f.IPIP),), (Tunnel.IP, 0)),
    ((outer(f.TCP, 443),), (Tunnel.NONE, 0)),
    ((record(1029, words(5_000)),), (Tunnel.NONE, 0)),
    ((record(1030, words(1 << 24)),), (Tunnel.NONE, 0)),
])
def test_the_tunnel_that_a_packet_came_in(octets: tuple[bytes, ...], expected: tuple[int, int]) -> None:
    (flow,), _ = received(sample(raw_header(frame()), *octets))
    assert flow["tunnel"] == expected


# ---- what else is reported of a packet

PATH = words(2, 2, 3, 64_500, 64_501, 64_502, 1, 1, 4_200_000_001)
EXTENDED: dict[str, tuple[tuple[bytes, ...], dict[str, Any]]] = {
    "router": ((record(1002, address("192.0.2.254") + words(24, 16)),),
               {"next_hop": b"\xc0\0\2\xfe", "source_mask": 24, "destination_mask": 16}),
    "router 6": ((record(1002, address("2001:db8::fe") + words(64, 48)),),
                 {"next_hop": ipaddress.ip_address("2001:db8::fe").packed, "source_mask": 64, "destination_mask": 48}),
    "router, unknown next hop": ((record(1002, words(0, 24, 0)),), {"source_mask": 24, "destination_mask": 0}),
    "gateway": ((record(1003, address("192.0.2.253") + words(64_496, 64_497, 64_498) + PATH + words(1, 65_000 << 16 | 7,
                                                                                                  100)),),
                {"bgp_next_hop": b"\xc0\0\2\xfd", "source_as": 64_497, "destination_as": 4_200_000_001}),
    "gateway, empty path": ((record(1003, address("192.0.2.253") + words(64_496, 64_497, 64_498, 0, 0, 100)),),
                            {"bgp_next_hop": b"\xc0\0\2\xfd", "source_as": 64_497}),
    "user": ((record(1004, words(106) + text("alice") + words(106) + text("bob@example")),),
             {"source_user": "alice", "destination_user": "bob@example"}),
    "mpls": ((record(1006, address("192.0.2.9") + words(2, 16_001 << 12 | 0x140, 500 << 12 | 0x1FF, 1, 7 << 12)),),
             {"next_hop": b"\xc0\0\2\x09", "mpls_top_label": (16_001 << 12 | 0x140) >> 8}),
    "mpls, pushed": ((record(1006, address("192.0.2.9") + words(0, 1, 7 << 12 | 0x140)),),
                     {"next_hop": b"\xc0\0\2\x09", "mpls_top_label": 7 << 4 | 1}),
    "nat": ((record(1007, address("203.0.113.1") + address("10.9.9.9")), record(1020, words(40_000, 8_080))),
            {"post_nat_source": b"\xcb\0\x71\1", "post_nat_destination": b"\x0a\x09\x09\x09",
             "post_nat_source_port": 40_000, "post_nat_destination_port": 8_080}),
    "cut": ((record(1002, address("192.0.2.254")), record(1003, words(1)), record(1004, words(1, 999))), {}),
    "a path longer than its record": ((record(1003, address("192.0.2.253") + words(1, 2, 3, 0xFFFFFFFF)),), {}),
    "others": ((record(1005, words(1) + text("/x") + text("h")), record(1027, words(50)), record(1036, words(2))), {}),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_extended_data_of_a_packet(name: str) -> None:
    records, expected = EXTENDED[name]
    packets = SampledPackets()
    packets.add(decode_sflow(datagram(sample(raw_header(frame()), *records))).packets, 0)
    found = packets.rows()
    assert [found.extended[number] for number in found.extended_of] == [Extended(**expected)]


# ---- counters

def test_what_an_agent_reports_of_a_packet_is_the_flows() -> None:
    """Router data: next hop, prefix lengths. A mask that no prefix length can be says nothing."""
    collector = flowtop.Collector(clock=lambda: NOW_S)
    router = words(1) + bytes([10, 9, 8, 7]) + words(24, 0xFFFF_FFFF)
    collector.receive(datagram(sample(raw_header(frame()), record(1002, router))), ("192.0.2.1", 6343))
    [row] = collector.table.query()
    found = row.as_dict()
    assert (found["ipNextHopIPv4Address"], found["sourceIPv4PrefixLength"]) == ("10.9.8.7", 24)
    assert "destinationIPv4PrefixLength" not in found


def interface(index: int = 3, *, octets: tuple[int, int] = (1_000, 2_000), status: int = 3, speed: int = 10**10,
              duplex: int = 1, errors: int = 4) -> bytes:
    return record(1, struct.pack(">IIQIIQ6IQ6I", index, 6, speed, duplex, status, octets[0], 10, 20, 30, 5, errors, 6,
                                 octets[1], 40, 50, 0xFFFFFFFF, 7, 8, 0))


def counters(*records: bytes, source: int = 3, expanded: bool = False) -> bytes:
    head = words(1, 0, source, len(records)) if expanded else words(1, source, len(records))
    return record(4 if expanded else 2, head + b"".join(records))


@pytest.mark.parametrize("expanded", [False, True])
def test_interface_counters_are_kept_with_their_rates(expanded: bool) -> None:
    process = CollectingProcess()
    name = record(1005, text("xe-0/0/3"))
    for sequence, octets, uptime_ms in ((1, (1_000, 2_000), 10_000), (2, (126_000, 2_000), 20_000)):
        process.receive(datagram(counters(interface(octets=octets), name, expanded=expanded), sequence=sequence,
                                 uptime_ms=uptime_ms), UDP, NOW_S + sequence)
    statistics = process.statistics()
    (found,) = statistics.interfaces
    assert (found.exporter, found.domain, found.interface, found.name) == ("192.0.2.5", 9, 3, "xe-0/0/3")
    assert (found.speed_bps, found.duplex, found.admin_up, found.oper_up, found.type) == (10**10, "full", True, True, 6)
    assert (found.in_octets, found.in_packets, found.in_discards, found.in_errors) == (126_000, 60, 5, 4)
    assert (found.out_octets, found.out_packets, found.out_discards, found.out_errors) == (2_000, 90, 7, 8)
    assert (found.in_rate_bps, found.out_rate_bps) == (125_000 * 8 / 10, 0)
    record_ = json.loads(json.dumps(collecting_record(statistics)))["interfaces"][0]
    assert (record_["speedBps"], record_["inRateBps"], record_["operUp"]) == (10**10, 100_000, True)


@pytest.mark.parametrize(("octets", "uptime_ms"), [
    ((500, 2_000), 20_000), ((1_000_000, 2_000), 10_000), ((1_000_000, 2_000), 5_000), ((2**64 - 1, 2_000), 20_000),
    ((0, 0), 20_000)])
def test_there_is_no_rate_after_a_restart_or_of_unknown_counters(octets: tuple[int, int], uptime_ms: int) -> None:
    process = CollectingProcess()
    process.receive(datagram(counters(interface()), uptime_ms=10_000), UDP, NOW_S)
    process.receive(datagram(counters(interface(octets=octets)), sequence=2, uptime_ms=uptime_ms), UDP, NOW_S)
    assert process.statistics().interfaces[0].in_rate_bps is None


@pytest.mark.parametrize(("status", "admin", "oper"), [
    (0, False, False), (1, True, False), (2, False, True), (3, True, True)])
def test_the_status_of_interfaces(status: int, admin: bool, oper: bool) -> None:
    process = received(counters(interface(status=status)), counters(interface(4, errors=0xFFFFFFFF), source=4))[1]
    first, second = process.statistics().interfaces
    assert (first.admin_up, first.oper_up, second.interface, second.in_errors) == (admin, oper, 4, None)
    assert "inErrors" not in collecting_record(process.statistics())["interfaces"][1]


def test_names_of_ports_name_the_points_of_flows() -> None:
    process = CollectingProcess()
    process.receive(datagram(counters(record(1005, text("ge-1/0/3")), interface()), sample(raw_header(frame()))), UDP,
                    NOW_S)
    (key,), _, _ = process.drain()
    assert process.points.interfaces()[int(key["ifindex"])] == "192.0.2.5/9 ge-1/0/3"


def test_discards_are_a_figure_and_no_flow() -> None:
    dropped = record(5, words(1, 0, 3, 0, 3, 4, 258, 1) + raw_header(frame()))
    found, process = received(dropped, dropped)
    assert (found, dict(facts(process.statistics()))["discards"]) == ([], "2")


# ---- flowtop-dump

DUMPED: dict[str, tuple[bytes, str]] = {
    "switch": (sample(raw_header(frame()), switch(100, 200)),
               "switch: sourceVlan=100 sourcePriority=0 destinationVlan=200 destinationPriority=0"),
    "gateway": (sample(raw_header(frame()), *EXTENDED["gateway"][0]),
                "gateway: bgpNextHop=192.0.2.253 as=64496 sourceAs=64497 sourcePeerAs=64498 "
                "destinationAsPath=[[64500,64501,64502],[4200000001]] communities=[4259840007] localPreference=100"),
    "user": (sample(raw_header(frame()), *EXTENDED["user"][0]), "sourceUser=alice destinationCharset=106"),
    "data": (sample(DATA["udp 6"][0]), "ipv6: length=1280 protocolIdentifier=17 sourceIPv6Address=2001:db8::9"),
    "unknown record": (sample(raw_header(frame()), record(8_800 << 12 | 5, bytes(8))), "format 8800.5: octets=8"),
    "cut record": (sample(raw_header(frame()), record(1001, bytes(8))), "switch: tooShort=8"),
    "interface": (counters(interface()),
                  "interface: ifIndex=3 ifType=6 speed=10000000000 direction=1 status=3 inOctets=1000"),
    "processor": (counters(record(1001, words(1, 2, 3) + struct.pack(">QQ", 4, 5))),
                  "processor: cpu5s=1 cpu1m=2 cpu5m=3 totalMemory=4 freeMemory=5"),
    "host": (counters(record(2000, text("web 1") + bytes(16) + words(3, 2) + text("6.1"))),
             'host: hostname="web 1" uuid=00000000000000000000000000000000 machineType=3 osName=2 osRelease=6.1'),
    "host cpu": (counters(record(2003, struct.pack(">3f", 0.5, 0.25, 1.5) + words(*range(14)))),
                 "hostCpu: load1m=0.5 load5m=0.25 load15m=1.5 processesRunning=0"),
    "discard": (record(5, words(1, 0, 3, 0, 3, 4, 258, 2) + raw_header(frame()) + record(1038, text("nf_hook"))),
                "discarded at source 3: ingressInterface=3 egressInterface=4 reason=ACL headerProtocol=Ethernet"),
    "function": (record(5, words(1, 0, 3, 0, 3, 4, 300, 1) + record(1038, text("nf_hook"))),
                 "function: symbol=nf_hook"),
    "empty": (sample(), "a flow sample without a packet"),
    "unknown sample": (record(9, bytes(8)), "1 samples of unknown types"),
}


@pytest.mark.parametrize("name", DUMPED)
def test_flowtop_dump_shows_every_record(name: str) -> None:
    octets, expected = DUMPED[name]
    (entry,) = entries([Payload(datagram(octets), "a", "b", True)])
    assert expected in entry_text(entry, "text")
    assert json.loads(entry_text(entry, "json"))["protocol"] == "sFlow 5"


@patient
@given(kind=st.sampled_from([1, 2, 3, 4, 1001, 1002, 1003, 1004, 1006, 1007, 1012, 1020, 1024, 1030]),
       sample_kind=st.integers(1, 6), octets=st.binary(max_size=90))
def test_any_octets_in_a_record_are_read_or_counted(kind: int, sample_kind: int, octets: bytes) -> None:
    octets += bytes(-len(octets) % 4)
    inner = sample(raw_header(frame()), record(kind, octets))
    hostile = struct.pack(">I", sample_kind) + inner[4:]
    process = CollectingProcess()
    process.receive(datagram(inner, hostile), UDP, NOW_S)
    flows(process)
    for entry in entries([Payload(datagram(inner, hostile), "a", "b", True)]):
        entry_text(entry, "json")
        entry_text(entry, "text")


# ---- what a sample does not say is not 0

LINK_KEYS = {"vlanId", "dot1qCustomerVlanId", "sourceMacAddress", "destinationMacAddress"}
PORT_KEYS = {"sourceTransportPort", "destinationTransportPort"}


def said(*samples: bytes) -> dict[str, Any]:
    collector = flowtop.Collector(clock=lambda: NOW_S)
    assert collector.receive(datagram(*samples), ("192.0.2.9", 6343))
    flow, = collector.table.query()
    return dict(flow.as_dict())


@pytest.mark.parametrize("name", HEADERS)
def test_headers_without_macs_or_tags_leave_them_out(name: str) -> None:
    protocol, octets, macs = HEADERS[name]
    found = said(sample(raw_header(octets, protocol, 512)))
    keys = {"vlanId", "dot1qCustomerVlanId"} if protocol != 1 else set()
    if not any(macs):
        keys |= {"sourceMacAddress", "destinationMacAddress"}
    assert found.keys() & LINK_KEYS == LINK_KEYS - keys
    assert said(sample(raw_header(octets, protocol, 512), switch(100, 200)))["vlanId"] == 100


@pytest.mark.parametrize("name", DATA)
def test_data_in_place_of_a_header_leave_out_what_they_do_not_have(name: str) -> None:
    found = said(sample(DATA[name][0]))
    assert found.keys().isdisjoint({*LINK_KEYS, "ipTTL"})


@pytest.mark.parametrize(("kept", "missing"), [
    (34, {*PORT_KEYS, "tcpControlBits"}), (37, {*PORT_KEYS, "tcpControlBits"}), (38, {"tcpControlBits"}),
    (47, {"tcpControlBits"}), (48, set()), (54, set())])
def test_a_header_that_ends_early_leaves_out_what_is_not_there(kept: int, missing: set[str]) -> None:
    """Ethernet 14, IPv4 20, ports 4; the flags of TCP are its 13th and 14th octet."""
    found = said(sample(raw_header(frame(), length=kept)))
    assert {*PORT_KEYS, "tcpControlBits"} - found.keys() == missing
    assert found["octetDeltaCount"] == 100 * 540 and found["ipTTL"] == 61


@pytest.mark.parametrize(("kept", "typed"), [(34, False), (35, False), (36, True)])
def test_icmp_that_ends_early_has_no_type(kept: int, typed: bool) -> None:
    found = said(sample(raw_header(f.ethernet(f.IPV4, f.ipv4(f.icmp(8, 0, bytes(20)), 1)), length=kept)))
    assert ("icmpTypeCodeIPv4" in found) is typed


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize(("source", "ingress", "egress", "expected"), [
    (3, 3, 7, (3, 7, 0)), (7, 3, 7, (3, 7, 1)), (9, 3, 7, (3, 7, None)), (3, 3, 0, (3, None, 0)),
    (7, 0, 7, (None, 7, 1)), (9, 0, 7, (None, 7, None)), (9, 0, 0, (None, None, None)),
    (3, 3, 0x3FFF_FFFF, (3, None, 0))])
def test_both_interfaces_of_a_sample(source: int, ingress: int, egress: int, expanded: bool,
                                     expected: tuple[int | None, ...]) -> None:
    found = said(sample(raw_header(frame()), source=source, ingress=ingress, egress=egress, expanded=expanded))
    assert tuple(found.get(key) for key in ("ingressInterface", "egressInterface", "flowDirection")) == expected


@pytest.mark.parametrize("payload", [
    bytes.fromhex("10000021") + V4, bytes.fromhex("10000004") + bytes(20), bytes.fromhex("20000000") + V4])
@pytest.mark.parametrize("labels", [(16_001,), (16_001, 13), (16_001, 7)])
def test_control_channels_of_mpls_are_no_ip_and_counted(labels: tuple[int, ...], payload: bytes) -> None:
    """Behind the last label stands 1 for an associated channel (RFC 4385, RFC 5586), whatever follows its header."""
    for octets, protocol in ((f.ethernet(0x8847, f.mpls(labels, payload)), 1), (f.mpls(labels, payload), 13)):
        found, process = received(sample(raw_header(octets, protocol, 256)))
        assert found == [] and process.statistics().unusable_records == 1
