"""Export datagrams that were read wrongly once: small captures beside the checkout, with the values that their
descriptions give. The datagrams of each source port are one Transport Session."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowtop
from tests.kernel import frames as f
from tests.oracle.collectors import ENVIRONMENT, needs
from tests.unit.capture.collector.exports import ipfix, set_of, template
from tests.unit.capture.collector.test_sflow import datagram, raw_header, sample
from tests.unit.capture.collector.test_sflow_records import ip_data

CASES = Path(__file__).parents[2].parent / "shared" / "data" / "cases"
NOW_S = 1_700_000_000.0

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="shared/data: no cases beside this checkout")


def datagrams(name: str) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Source and payload of each UDP datagram in a little-endian Ethernet capture."""
    octets = (CASES / name).read_bytes()
    offset = 24
    while offset + 16 <= len(octets):
        captured, = struct.unpack_from("<I", octets, offset + 8)
        frame = octets[offset + 16:offset + 16 + captured]
        offset += 16 + captured
        udp = 14 + (frame[14] & 15) * 4
        port, _, length = struct.unpack_from(">HHH", frame, udp)
        yield (".".join(map(str, frame[26:30])), port), frame[udp + 8:udp + length]


def collected(name: str) -> flowtop.Collector:
    collector = flowtop.Collector(clock=lambda: NOW_S)
    for source, octets in datagrams(name):
        collector.receive(octets, source)
    return collector


def sums(collector: flowtop.Collector) -> tuple[int, int]:
    rows = collector.table.query()
    return sum(row.packets for row in rows), sum(row.bytes for row in rows)


@needs_cases
@pytest.mark.parametrize(("name", "flows"), [
    ("asa-nsel-teardown-counted-twice/nsel.pcap", [(16, 3_000), (17, 7_000)]),
    ("options-without-scope/noscope.pcap", [(10, 1_000)]),
    ("out-counters-only/out.pcap", [(10, 1_000)]),
    ("packet-sections/datalink.pcap", [(1, 96)]),
    ("sampling-n-out-of-N/iosxr-old.pcap", [(2_560, 256_000)]),
    ("sflow-ip-records/ip4.pcap", [(100, 100_000)]),
    ("sflow-mpls/mpls.pcap", [(1_000, 100_000)]),
    ("total-counters/totals.pcap", [(8, 12_148)]),
])
def test_flows(name: str, flows: list[tuple[int, int]]) -> None:
    assert sorted((row.packets, row.bytes) for row in collected(name).table.query()) == flows


PACKET = f.ipv4(f.udp(1_000, 2_000, bytes(72)), f.UDP, source="192.0.2.3", destination="198.51.100.1")
OPTIONS = ((302, 8), (304, 2), (305, 4), (309, 4), (310, 4))
"""selectorId, selectorAlgorithm, samplingPacketInterval, samplingSize, samplingPopulation."""
FLOW = ((8, 4), (12, 4), (2, 8), (1, 8), (302, 8))
TOLD: dict[str, tuple[bytes, list[tuple[int, int]]]] = {
    "packet-sections: ipHeaderPacketSection": (
        ipfix(template(256, ((10, 4), (313, 65_535))), set_of(256, struct.pack(">IB", 582, 96) + PACKET[:96])),
        [(1, 100)]),
    "sampling-n-out-of-N: a newer IOS XR": (
        ipfix(template(257, OPTIONS, scope=1), set_of(257, struct.pack(">QHIII", 1, 3, 256, 1, 256)),
              template(256, FLOW), set_of(256, struct.pack(">IIQQQ", 1, 2, 10, 1_000, 1))), [(2_560, 256_000)]),
    "sflow-ip-records: IPv6": (
        datagram(sample(ip_data(1_000, f.TCP, "2001:db8::1", "2001:db8::2", (1_234, 443)), interval=100)),
        [(100, 100_000)]),
    "sflow-mpls: PPPoE": (
        datagram(sample(raw_header(f.ethernet(0x8864, f.pppoe(7, 0x0021, PACKET))), interval=100)), [(100, 10_000)]),
}
"""Cases that their descriptions tell of without a capture, with the values that they give."""


@pytest.mark.parametrize("name", TOLD)
def test_what_the_descriptions_tell_of(name: str) -> None:
    octets, flows = TOLD[name]
    collector = flowtop.Collector(clock=lambda: NOW_S)
    assert collector.receive(octets, ("192.0.2.1", 40_000))
    assert sorted((row.packets, row.bytes) for row in collector.table.query()) == flows
    assert collector.statistics.unusable_records == 0 and collector.statistics.unknown_sampling == 0


@needs_cases
def test_padding_costs_nothing_as_tshark_reads_it() -> None:
    name = "ipfix-length-and-padding/pad.pcap"
    fields = ("cflow.srcaddr", "cflow.srcport", "cflow.dstaddr", "cflow.dstport", "cflow.protocol", "cflow.packets",
              "cflow.octets")
    run = subprocess.run([needs("tshark"), "-r", CASES / name, "-d", "udp.port==2055,cflow", "-T", "fields",
                          *(word for field in fields for word in ("-e", field))],
                         capture_output=True, text=True, check=True, env=ENVIRONMENT)
    collector = collected(name)
    row, = collector.table.query()
    assert [str(value) for value in (row.source, row.source_port, row.destination, row.destination_port, row.protocol,
                                     row.packets, row.bytes)] == run.stdout.split()
    assert collector.statistics.refused == () and collector.statistics.skipped == (("padding", 1),)


@needs_cases
def test_what_is_told_from_another_source_port_holds() -> None:
    collector = collected("two-source-ports/ports.pcap")
    assert sums(collector)[0] == 2 * 1_000
    assert collector.statistics.waiting_sets == 0


@needs_cases
def test_the_vlan_of_extended_switch_data() -> None:
    row, = collected("sflow-vlan/switch.pcap").table.query("vlan 100")
    assert row.as_dict()["vlanId"] == 100


@needs_cases
def test_the_vlan_and_macs_of_a_data_link_frame_section() -> None:
    row, = collected("packet-sections/datalink.pcap").table.query("vlan 231")
    assert (row.source, row.destination, row.source_port, row.destination_port) == (
        "192.0.2.1", "198.51.100.1", 1_000, 2_000)
    assert "sourceMacAddress" in row.as_dict()


@needs_cases
def test_the_interfaces_of_a_sample_and_what_its_data_do_not_have() -> None:
    row, = collected("sflow-ip-records/ip4.pcap").table.query()
    found = row.as_dict()
    assert (found["ingressInterface"], found["egressInterface"]) == (386, 759)  # as tshark has them
    assert found.keys().isdisjoint({"vlanId", "dot1qCustomerVlanId", "sourceMacAddress", "destinationMacAddress",
                                    "ipTTL"})
