"""NetFlow 1, 6, 7 and 8 as Cisco's tables lay them out: octets by struct, values by arithmetic."""

from __future__ import annotations

import struct
from typing import Any

import pytest

import flowtop
from flowtop import netflow
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.messages import is_export
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.netflow_fixed import decode_fixed
from flowtop.wire.recognition import split_exports

NOW_S = 1_700_000_000
ENDS = struct.pack(">4s4s4s", b"\x0a\0\0\1", b"\x0a\0\0\2", b"\x0a\0\0\3")
NUMBERS = struct.pack(">HHIIIIHH", 4, 5, 6, 700, 8_000, 9_000, 1000, 443)
"""Interfaces, packets, octets, first and last uptime, ports."""
COUNTS = struct.pack(">IIIII", 3, 6, 700, 8_000, 9_000)


def header(version: int, count: int, scheme: int = 0) -> bytes:
    begin = struct.pack(">HHIII", version, count, 60_000, NOW_S, 250_000_000)
    if version == 1:
        return begin
    return begin + struct.pack(">I", 42) + (bytes((1, 2, scheme, 2)) + bytes(4) if version == 8 else b"\1\2\0\0")


RECORDS: dict[int, bytes] = {
    1: ENDS + NUMBERS + struct.pack(">HBBB", 0, 6, 16, 0x1B) + bytes(11),
    5: ENDS + NUMBERS + struct.pack(">BBBBHHBBH", 0, 0x1B, 6, 16, 64_500, 64_501, 24, 16, 0),
    6: ENDS + NUMBERS + struct.pack(">BBBBHHBBBBI", 0, 0x1B, 6, 16, 64_500, 64_501, 24, 16, 4, 4, 0),
    7: ENDS + NUMBERS + struct.pack(">BBBBHHBBH4s", 0, 0x1B, 6, 16, 64_500, 64_501, 24, 16, 0, b"\x0a\0\0\x09"),
}
COMMON = {"sourceIPv4Address": "10.0.0.1", "destinationIPv4Address": "10.0.0.2", "ipNextHopIPv4Address": "10.0.0.3",
          "ingressInterface": 4, "egressInterface": 5, "packetDeltaCount": 6, "octetDeltaCount": 700,
          "flowStartSysUpTime": 8_000, "flowEndSysUpTime": 9_000, "sourceTransportPort": 1000,
          "destinationTransportPort": 443, "protocolIdentifier": 6, "ipClassOfService": 16, "tcpControlBits": 0x1B}
ROUTED = {"bgpSourceAsNumber": 64_500, "bgpDestinationAsNumber": 64_501, "sourceIPv4PrefixLength": 24,
          "destinationIPv4PrefixLength": 16}
VALUES: dict[int, dict[str, Any]] = {1: COMMON, 5: COMMON | ROUTED, 6: COMMON | ROUTED,
                                     7: COMMON | ROUTED | {"ipv4RouterSc": "10.0.0.9"}}


@pytest.mark.parametrize("version", RECORDS)
def test_every_field_stands_where_the_format_puts_it(version: int) -> None:
    message = netflow.decode(header(version, 2) + RECORDS[version] * 2)
    assert (message.version, message.export_time_s, message.boot_ms) == (version, NOW_S, NOW_S * 1000 + 250 - 60_000)
    assert message.sequence == (0 if version == 1 else 42)
    assert len(message.records) == 2
    for record in message.records:
        assert {name: value for name, value in record.items() if not name.startswith("padding")} == VALUES[version]


@pytest.mark.parametrize("version", RECORDS)
def test_the_collector_counts_its_flows(version: int) -> None:
    process = CollectingProcess()
    assert process.receive(header(version, 2) + RECORDS[version] * 2, Session("s", "192.0.2.1", True), float(NOW_S))
    (row, other) = process.take_rows()[0]
    assert row == other
    assert (row["packets"], row["octets"], row["protocol"], row["tcp_control_bits"]) == (6, 700, 6, 0x1B)
    assert (row["start_ms"], row["end_ms"]) == (NOW_S * 1000 + 250 - 52_000, NOW_S * 1000 + 250 - 51_000)


@pytest.mark.parametrize(("version", "lost"), [(1, 0), (5, 8), (6, 8), (7, 8)])
def test_gaps_are_of_flows_where_there_are_sequence_numbers(version: int, lost: int) -> None:
    process = CollectingProcess()
    datagram = header(version, 2) + RECORDS[version] * 2
    later = datagram if version == 1 else datagram[:16] + struct.pack(">I", 52) + datagram[20:]
    for octets in (datagram, later):
        process.receive(octets, Session("s", "192.0.2.1", True), float(NOW_S))
    assert process.statistics().lost_flows == lost


FLOW_COUNTS = {"deltaFlowCount": 3, "packetDeltaCount": 6, "octetDeltaCount": 700, "flowStartSysUpTime": 8_000,
               "flowEndSysUpTime": 9_000}
TRAFFIC = {name: value for name, value in FLOW_COUNTS.items() if name != "deltaFlowCount"}
AS = {"bgpSourceAsNumber": 64_500, "bgpDestinationAsNumber": 64_501, "ingressInterface": 4, "egressInterface": 5}
PORTS = {"sourceTransportPort": 1000, "destinationTransportPort": 443}
SOURCE = {"sourceIPv4Prefix": "10.1.0.0", "sourceIPv4PrefixLength": 16, "bgpSourceAsNumber": 64_500,
          "ingressInterface": 4}
DESTINATION = {"destinationIPv4Prefix": "10.2.0.0", "destinationIPv4PrefixLength": 24, "bgpDestinationAsNumber": 64_501,
               "egressInterface": 5}
NETS = b"\x0a\1\0\0\x0a\2\0\0" + bytes((24, 16))
AGGREGATIONS: dict[int, tuple[bytes, dict[str, Any]]] = {
    1: (COUNTS + struct.pack(">HHHH", 64_500, 64_501, 4, 5), FLOW_COUNTS | AS),
    2: (COUNTS + struct.pack(">B3xHH", 6, 1000, 443), FLOW_COUNTS | PORTS | {"protocolIdentifier": 6}),
    3: (COUNTS + b"\x0a\1\0\0" + struct.pack(">BxHH2x", 16, 64_500, 4), FLOW_COUNTS | SOURCE),
    4: (COUNTS + b"\x0a\2\0\0" + struct.pack(">BxHH2x", 24, 64_501, 5), FLOW_COUNTS | DESTINATION),
    5: (COUNTS + NETS + struct.pack(">2xHHHH", 64_500, 64_501, 4, 5), FLOW_COUNTS | SOURCE | DESTINATION),
    6: (ENDS[4:8] + COUNTS[4:] + struct.pack(">HBBI4s", 5, 16, 8, 0, b"\x0a\0\0\x09"), TRAFFIC | {
        "destinationIPv4Address": "10.0.0.2", "egressInterface": 5, "ipClassOfService": 16, "postIpClassOfService": 8,
        "ipv4RouterSc": "10.0.0.9"}),
    8: (ENDS[4:8] + ENDS[:4] + struct.pack(">HH", 443, 1000) + COUNTS[4:] + struct.pack(
        ">HHBBBxI4s", 5, 4, 16, 6, 8, 0, b"\x0a\0\0\x09"), TRAFFIC | PORTS | {
        "destinationIPv4Address": "10.0.0.2", "sourceIPv4Address": "10.0.0.1", "egressInterface": 5,
        "ingressInterface": 4, "ipClassOfService": 16, "protocolIdentifier": 6, "postIpClassOfService": 8,
        "ipv4RouterSc": "10.0.0.9"}),
    9: (COUNTS + struct.pack(">HHHHB3x", 64_500, 64_501, 4, 5, 16), FLOW_COUNTS | AS | {"ipClassOfService": 16}),
    10: (COUNTS + struct.pack(">BB2xHHHH", 6, 16, 1000, 443, 4, 5), FLOW_COUNTS | PORTS | {
        "protocolIdentifier": 6, "ipClassOfService": 16, "ingressInterface": 4, "egressInterface": 5}),
    14: (COUNTS + NETS + struct.pack(">BBHHHH", 16, 6, 1000, 443, 4, 5), FLOW_COUNTS | PORTS | {
        "sourceIPv4Prefix": "10.1.0.0", "sourceIPv4PrefixLength": 16, "destinationIPv4Prefix": "10.2.0.0",
        "destinationIPv4PrefixLength": 24, "protocolIdentifier": 6, "ipClassOfService": 16, "ingressInterface": 4,
        "egressInterface": 5}),
}


@pytest.mark.parametrize("scheme", AGGREGATIONS)
def test_aggregations_of_netflow_8_have_their_own_records(scheme: int) -> None:
    octets, values = AGGREGATIONS[scheme]
    message = netflow.decode(header(8, 2, scheme) + octets * 2)
    assert [{name: value for name, value in record.items() if not name.startswith("padding")}
            for record in message.records] == [values] * 2


@pytest.mark.parametrize("scheme", [0, 15, 255])
def test_an_aggregation_that_does_not_exist_is_refused(scheme: int) -> None:
    with pytest.raises(flowtop.DecodeError, match=f"aggregation {scheme}"):
        netflow.decode(header(8, 1, scheme) + bytes(64))


def test_datagrams_are_told_from_other_traffic_and_from_each_other() -> None:
    datagrams = [header(version, 2) + record * 2 for version, record in RECORDS.items()]
    datagrams += [header(8, 1, scheme) + octets for scheme, (octets, _) in AGGREGATIONS.items()]
    assert all(map(is_export, datagrams)) and split_exports(b"".join(datagrams)) == datagrams
    for octets in datagrams:
        if octets[1] != 5:
            padding = 65 if octets[1] in (7, 8) else 1  # Catalyst switches add some.
            assert is_export(octets + bytes(padding - 1))
            assert not is_export(octets + bytes(padding)) and not is_export(octets[:-1]), "DNS may begin so"
        for cut in range(len(octets)):
            try:
                assert decode_fixed(octets[:cut], strict=False).record_count <= 2
            except IpfixDecodeError as refusal:
                assert refusal.fault in ("length", "version")
