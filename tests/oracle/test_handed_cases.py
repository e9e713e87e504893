"""Export datagrams that were read wrongly once: small captures beside the checkout, with the values that their
descriptions give. The datagrams of each source port are one Transport Session."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowtop

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
    ("ipfix-length-and-padding/pad.pcap", None),
    ("options-without-scope/noscope.pcap", [(10, 1_000)]),
    ("out-counters-only/out.pcap", [(10, 1_000)]),
    ("packet-sections/datalink.pcap", [(1, 96)]),
    ("packet-sections/iphead.pcap", [(1, 96)]),
    ("sampling-n-out-of-N/iosxr-old.pcap", [(2_560, 256_000)]),
    ("sampling-n-out-of-N/iosxr-new.pcap", [(2_560, 256_000)]),
    ("sflow-ip-records/ip4.pcap", [(100, 100_000)]),
    ("sflow-ip-records/ip6.pcap", [(100, 100_000)]),
    ("sflow-mpls/mpls.pcap", [(1_000, 100_000)]),
    ("sflow-mpls/pppoe.pcap", [(100, 10_000)]),
    ("total-counters/totals.pcap", [(8, 12_148)]),
])
def test_flows(name: str, flows: list[tuple[int, int]] | None) -> None:
    if not (CASES / name).exists():
        pytest.skip("shared/data: this case is not there")
    collector = collected(name)
    rows = sorted((row.packets, row.bytes) for row in collector.table.query())
    if flows is None:
        assert rows
        assert collector.statistics.refused == ()
    else:
        assert rows == flows


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
