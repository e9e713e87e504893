"""Records that hold the first octets of a packet: one packet each, with the octets of its IP header."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.messages import Payload
from flowtop.model.kinds import Kind
from flowtop.output.dump import entries, entry_text
from tests.kernel import frames as f
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template
from tests.unit.capture.files import links
from tests.unit.wire.patience import patient

UDP = Session("udp", "192.0.2.1", True)
SET = 300
UNKNOWN = 2
VARIABLE = 0xFFFF
(INGRESS, EGRESS, DIRECTION, FRAME_SIZE, IP_SECTION, PAYLOAD, FRAME_SECTION, LABELS, MPLS_PAYLOAD, FRAME_TYPE, OFFSET,
 EXPORTED, OLD_OFFSET, OLD_SIZE, OLD_SECTION) = (10, 14, 61, 312, 313, 314, 315, 316, 317, 408, 409, 410, 102, 103, 104)
V4 = f.ipv4(f.udp(1_000, 2_000, bytes(68)), f.UDP, source="192.0.2.1", destination="198.51.100.1", tos=8, ttl=61)
V6 = f.ipv6(f.tcp(443, 50_000, f.SYN, bytes(200)), f.TCP)
TAGGED = f.ethernet(f.IPV4, V4, tags=((f.VLAN, 231),))


def variable(octets: bytes) -> bytes:
    """A value of variable length (RFC 7011 section 7)."""
    return (bytes([len(octets)]) if len(octets) < 255 else b"\xff" + struct.pack(">H", len(octets))) + octets


Element = tuple[int, int, int | bytes]
"""Number, length and value."""


def collected(*records: Sequence[Element], options: bytes = b"") -> tuple[list[dict[str, Any]], CollectingProcess]:
    """The flows of records that have the same elements."""
    body = b"".join(value.to_bytes(length, "big") if isinstance(value, int) else
                    variable(value) if length == VARIABLE else value.ljust(length, b"\0")
                    for record in records for _, length, value in record)
    process = CollectingProcess()
    if options:
        process.receive(options, UDP, NOW_S)
    fields = [(number, length) for number, length, _ in records[0]]
    assert process.receive(ipfix(template(SET, fields), set_of(SET, body)), UDP, NOW_S)
    keys, counters, _ = process.drain()
    names = process.points.interfaces()
    return [{
        "ends": (bytes(key["source_address"])[:4 if key["ip_version"] == 4 else 16].hex(),
                 int(key["source_port"]), int(key["destination_port"]), int(key["protocol"])),
        "vlan": (int(key["vlan_id"]), int(key["customer_vlan_id"])), "kind": int(key["kind"]),
        "point": (names[int(key["ifindex"])].rpartition(" ")[2], int(key["direction"])),
        "counts": (int(counter["packets"]), int(counter["octets"])),
        "macs": bytes(counter["source_mac"]) + bytes(counter["destination_mac"]),
        "header": (int(counter["tos"]), int(counter["ttl"])), "first_ms": int(counter["first_ns"]) // 1_000_000,
    } for key, counter in zip(keys, counters, strict=True)], process


UDP_ENDS = ("c0000201", 1_000, 2_000, f.UDP)
TCP_ENDS = ("20010db8" + "0" * 23 + "1", 443, 50_000, f.TCP)
MACS = f.SOURCE_MAC + f.DESTINATION_MAC
IN = (INGRESS, 4, 582)
CASES: dict[str, tuple[tuple[Element, ...], dict[str, Any]]] = {
    "frame": ((IN, (FRAME_SIZE, 2, len(TAGGED)), (FRAME_SECTION, VARIABLE, TAGGED)),
              {"vlan": (231, 0), "macs": MACS, "header": (8, 61)}),
    "frame, cut": ((IN, (FRAME_SIZE, 2, len(TAGGED)), (FRAME_SECTION, VARIABLE, TAGGED[:50])), {"vlan": (231, 0)}),
    "frame, cut, length not reported": ((IN, (FRAME_SECTION, VARIABLE, TAGGED[:50])), {"vlan": (231, 0)}),
    "frame of fixed length": ((IN, (FRAME_SECTION, 64, TAGGED[:64])), {"vlan": (231, 0), "macs": MACS}),
    "frame, padded": ((IN, (FRAME_SECTION, 160, TAGGED), (EXPORTED, 2, 60)), {"vlan": (231, 0), "macs": MACS}),
    "frame of two tags": (
        (IN, (FRAME_SECTION, VARIABLE, f.ethernet(f.IPV4, V4, tags=((f.SERVICE_VLAN, 7), (f.VLAN, 8))))),
        {"vlan": (7, 8)}),
    "frame, VLAN in the record": ((IN, (243, 2, 55), (FRAME_SECTION, VARIABLE, f.ethernet(f.IPV4, V4))),
                                  {"vlan": (55, 0)}),
    "frame of 802.3": ((IN, (FRAME_TYPE, 2, 1), (FRAME_SECTION, VARIABLE, f.ethernet(
        len(V4) + 8, links.snap(f.IPV4) + V4))), {"macs": MACS}),
    "frame of 802.11": ((IN, (FRAME_TYPE, 2, 2), (FRAME_SECTION, VARIABLE, links.dot11(
        links.FROM_DS, addresses=(links.DA, links.BSS, links.SA)) + links.snap(f.IPV4) + V4)), {"macs": links.MACS}),
    "frame without its link header": ((IN, (OFFSET, 2, 14), (FRAME_SECTION, VARIABLE, V4)), {"macs": bytes(12)}),
    "header of IP": ((IN, (IP_SECTION, VARIABLE, V4[:28])), {"macs": bytes(12), "header": (8, 61)}),
    "header of IP, whole": ((IN, (IP_SECTION, VARIABLE, V4)), {}),
    "header of IP, fixed": ((IN, (IP_SECTION, 96, V4)), {}),
    "header of IP and payload": ((IN, (IP_SECTION, VARIABLE, V4[:28]), (PAYLOAD, VARIABLE, V4[28:])), {}),
    "header of IP, MACs in the record": (
        (IN, (56, 6, b"\2\0\0\0\0\x63"), (IP_SECTION, VARIABLE, V4)), {"macs": b"\2\0\0\0\0\x63" + bytes(6)}),
    "both, the frame empty": ((IN, (FRAME_SECTION, VARIABLE, b""), (IP_SECTION, VARIABLE, V4)), {"macs": bytes(12)}),
    "labels and header": ((IN, (LABELS, VARIABLE, struct.pack(">I", 16_001 << 12 | 0x140) + V4)), {}),
    "labels and header, fixed": ((IN, (LABELS, 64, struct.pack(">II", 16_001 << 12 | 0x40, 7 << 12 | 0x140) + V4)), {}),
    "frame with labels": ((IN, (FRAME_SECTION, VARIABLE, f.ethernet(
        0x8847, struct.pack(">I", 16_001 << 12 | 0x140) + V4))), {"macs": MACS}),
    "payload of MPLS": ((IN, (MPLS_PAYLOAD, VARIABLE, V4)), {}),
    "layer 2 section of NetFlow 9": (
        (IN, (OLD_OFFSET, 2, 0), (OLD_SIZE, 2, len(TAGGED)), (OLD_SECTION, 128, TAGGED)), {"vlan": (231, 0)}),
    "sent": ((IN, (EGRESS, 4, 9), (DIRECTION, 1, 1), (FRAME_SECTION, VARIABLE, TAGGED)),
             {"vlan": (231, 0), "point": ("if9", 1)}),
    "observed": ((IN, (323, 8, 1_699_999_990_123), (IP_SECTION, VARIABLE, V4)), {"first_ms": 1_699_999_990_123}),
    "own counters": ((IN, (2, 4, 7), (1, 4, 7_000), (IP_SECTION, VARIABLE, V4)), {"counts": (7, 7_000)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_packet_in_a_record(name: str) -> None:
    elements, different = CASES[name]
    (flow,), process = collected(elements)
    expected = {"ends": UDP_ENDS, "counts": (1, 96), "vlan": (0, 0), "point": ("if582", UNKNOWN), "kind": Kind.FLOW,
                **different}
    assert {key: flow[key] for key in expected} == expected
    statistics = process.statistics()
    assert (statistics.records, statistics.unusable_records) == (1, 0)


def test_ipv6_and_long_sections() -> None:
    (flow,), _ = collected((IN, (FRAME_SECTION, VARIABLE, f.ethernet(f.IPV6, V6))))
    assert (flow["ends"], flow["counts"]) == (TCP_ENDS, (1, len(V6)))


def test_packets_of_a_flow_add_up_and_others_stay_apart() -> None:
    flows, process = collected(*[(IN, (IP_SECTION, VARIABLE, packet)) for packet in (V4, V6, V4, V4)])
    assert {flow["ends"]: flow["counts"] for flow in flows} == {UDP_ENDS: (3, 3 * 96), TCP_ENDS: (1, len(V6))}
    assert int(process.points.observations()["octets"].sum()) == 3 * 96 + len(V6)


@pytest.mark.parametrize("interval", [10, 100, 1_000, 4_096, 65_535])
def test_a_sampled_packet_stands_for_the_interval(interval: int) -> None:
    """samplerId of the record, samplingInterval in options by samplerId."""
    options = ipfix(template(400, ((48, 1), (34, 4)), scope=1), set_of(400, struct.pack(">BI", 5, interval)))
    (flow,), process = collected((IN, (48, 1, 5), (FRAME_SECTION, VARIABLE, TAGGED[:64])), options=options)
    assert flow["counts"] == (interval, 96 * interval)
    assert process.statistics().sampling_interval == interval


@pytest.mark.parametrize("element", [
    (FRAME_SECTION, VARIABLE, f.ethernet(f.ARP, bytes(28))), (FRAME_SECTION, VARIABLE, TAGGED[:20]),
    (FRAME_SECTION, VARIABLE, b""), (IP_SECTION, VARIABLE, b"\x45" + bytes(10)), (PAYLOAD, VARIABLE, V4),
    (IP_SECTION, VARIABLE, b"\x75" + V4[1:])])
def test_what_holds_no_packet_is_counted(element: Element) -> None:
    flows, process = collected((IN, element))
    assert (flows, process.statistics().unusable_records) == ([], 1)


@pytest.mark.parametrize("element", [(OFFSET, 2, 8), (FRAME_TYPE, 2, 9)])
def test_a_section_that_begins_elsewhere_or_is_of_an_unknown_type_is_counted(element: Element) -> None:
    kind = IP_SECTION if element[0] == OFFSET else FRAME_SECTION
    flows, process = collected((IN, element, (kind, VARIABLE, V4 if kind == IP_SECTION else TAGGED)))
    assert (flows, process.statistics().unusable_records) == ([], 1)


def test_a_record_with_key_and_counters_keeps_them() -> None:
    """A flow record that has a section as well is about the flow, not about one packet."""
    (flow,), _ = collected(((8, 4, b"\x0a\0\0\1"), (12, 4, b"\x0a\0\0\2"), (7, 2, 5), (11, 2, 6), (4, 1, f.UDP),
                            (2, 4, 11), (1, 4, 999), IN, (IP_SECTION, VARIABLE, V4)))
    assert (flow["ends"], flow["counts"]) == (("0a000001", 5, 6, f.UDP), (11, 999))


@pytest.mark.parametrize("name", [name for name in CASES if "own counters" not in name])
def test_flowtop_dump_shows_the_packet(name: str) -> None:
    elements, _ = CASES[name]
    body = b"".join(value.to_bytes(length, "big") if isinstance(value, int) else
                    variable(value) if length == VARIABLE else value.ljust(length, b"\0")
                    for _, length, value in elements)
    message = ipfix(template(SET, [(number, length) for number, length, _ in elements]), set_of(SET, body))
    (entry,) = entries([Payload(message, "a", "b", True)])
    packet = json.loads(entry_text(entry, "json"))["records"][0]["values"]["packet"]
    assert (packet["sourceIPv4Address"], packet["destinationTransportPort"], packet["ipTotalLength"]) == (
        "192.0.2.1", 2_000, 96)
    assert "        packet: sourceIPv4Address=192.0.2.1 destinationIPv4Address=" in entry_text(entry, "text")


@patient
@given(octets=st.binary(max_size=120), fixed=st.booleans(), size=st.integers(0, 200), kind=st.sampled_from(
    [FRAME_SECTION, IP_SECTION, LABELS, MPLS_PAYLOAD]))
def test_any_octets_are_a_flow_or_counted(octets: bytes, fixed: bool, size: int, kind: int) -> None:
    flows, process = collected((IN, (FRAME_SIZE, 2, size), (kind, 121 if fixed else VARIABLE, octets)))
    assert len(flows) + process.statistics().unusable_records == 1
