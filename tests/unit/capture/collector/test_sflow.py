"""sFlow 5: headers that agents sampled, as flows multiplied by the interval; all else is refused or skipped."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.exporters import faults
from flowtop.model.kinds import UNKNOWN_DIRECTION
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.sflow import decode_sflow
from tests.kernel import frames as f
from tests.unit.wire.patience import patient

NOW_S = 1_700_000_000.0
UDP = Session("s", "198.51.100.1", True)
PACKET = f.ipv4(f.udp(5000, 53, bytes(72)), f.UDP)
PACKET6 = f.ipv6(f.udp(5000, 53, bytes(52)), f.UDP)
"""Packets of 100 octets."""


def frame(payload: int = 500, vlan: int | None = None) -> bytes:
    """An Ethernet frame of TCP 10.0.0.1:1000 > 10.0.0.2:443, its IP packet 40 octets longer than `payload`."""
    tcp = struct.pack(">HHIIBBHHH", 1000, 443, 1, 2, 0x50, 0x12, 1000, 0, 0) + bytes(payload)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 8, 20 + len(tcp), 1, 0, 61, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2") + tcp
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return b"\2\0\0\0\0\2" + b"\2\0\0\0\0\1" + tag + b"\x08\0" + ip


def raw_header(octets: bytes, protocol: int = 1, length: int = 128) -> bytes:
    """A flow record: sampled header, of which the agent kept the first octets."""
    kept = octets[:length]
    body = struct.pack(">IIII", protocol, len(octets) + 4, 4, len(kept)) + kept + bytes(-len(kept) % 4)
    return struct.pack(">II", 1, 16 + len(kept) + -len(kept) % 4) + body


def sample(*records: bytes, interval: int = 100, source: int = 3, ingress: int = 3, egress: int = 7, drops: int = 0,
           expanded: bool = False) -> bytes:
    if expanded:
        body = struct.pack(">11I", 1, 0, source, interval, 1000, drops, 0, ingress, 0, egress, len(records))
    else:
        body = struct.pack(">8I", 1, source, interval, 1000, drops, ingress, egress, len(records))
    body += b"".join(records)
    return struct.pack(">II", 3 if expanded else 1, len(body)) + body


def of_kind(kind: int, source: int, *, expanded: bool, drops: int = 0) -> bytes:
    """A sample of another kind of data source: 1 a VLAN, 2 a physical entity."""
    if not expanded:
        return sample(raw_header(frame()), source=kind << 24 | source, drops=drops)
    octets = sample(raw_header(frame()), source=source, drops=drops, expanded=True)
    return octets[:12] + struct.pack(">I", kind) + octets[16:]


def datagram(*samples: bytes, sequence: int = 1, agent: bytes = b"\xc0\0\2\x05", uptime_ms: int = 1000) -> bytes:
    return struct.pack(">II", 5, 1 if len(agent) == 4 else 2) + agent + struct.pack(
        ">IIII", 9, sequence, uptime_ms, len(samples)) + b"".join(samples)


COUNTERS = struct.pack(">II", 2, 12) + bytes(12)
OTHER_RECORD = struct.pack(">II", 1001, 16) + bytes(16)


@pytest.mark.parametrize("expanded", [False, True])
def test_a_sampled_header_is_a_flow_times_the_interval(expanded: bool) -> None:
    process = CollectingProcess()
    octets = datagram(COUNTERS, sample(OTHER_RECORD, raw_header(frame(vlan=12)), expanded=expanded))
    assert process.receive(octets, UDP, NOW_S)
    keys, counters, _ = process.drain()
    (key,), (counter,) = keys, counters
    assert [int(key[name]) for name in ("source_port", "destination_port", "protocol", "ip_version", "vlan_id",
                                        "direction")] == [1000, 443, 6, 4, 12, 0]
    assert (int(counter["packets"]), int(counter["octets"])) == (100, 54_000)
    assert (int(counter["tos"]), int(counter["ttl"]), bytes(counter["source_mac"])) == (8, 61, b"\2\0\0\0\0\1")
    assert process.points.interfaces()[int(key["ifindex"])] == "192.0.2.5/9 if3"
    statistics = process.statistics()
    assert (statistics.records, statistics.sampled_packets, statistics.sampling_interval) == (1, 1, 100)
    books = process.points.observations()
    assert (int(books["packets"].sum()), int(books["octets"].sum())) == (100, 54_000)


def test_what_was_sampled_as_it_left_is_egress() -> None:
    process = CollectingProcess()
    process.receive(datagram(sample(raw_header(frame()), source=7), agent=bytes(15) + b"\1"), UDP, NOW_S)
    (key,), _, _ = process.drain()
    assert int(key["direction"]) == 1 and process.points.interfaces()[int(key["ifindex"])] == "::1/9 if7"


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize(("kind", "source", "direction"), [
    (0, 3, 0), (0, 7, 1), (0, 9, UNKNOWN_DIRECTION), (1, 7, UNKNOWN_DIRECTION), (2, 3, UNKNOWN_DIRECTION)])
def test_only_a_source_that_is_an_interface_tells_the_direction(
        expanded: bool, kind: int, source: int, direction: int) -> None:
    process = CollectingProcess()
    process.receive(datagram(of_kind(kind, source, expanded=expanded)), UDP, NOW_S)
    (key,), _, _ = process.drain()
    assert int(key["direction"]) == direction


@pytest.mark.parametrize("expanded", [False, True])
def test_sources_of_several_kinds_drop_each_for_itself(expanded: bool) -> None:
    process = CollectingProcess()
    for sequence, drops in ((1, 10), (2, 13)):
        process.receive(datagram(of_kind(0, 3, expanded=expanded, drops=drops),
                                 of_kind(1, 3, expanded=expanded, drops=drops * 100), sequence=sequence), UDP, NOW_S)
    assert process.statistics().dropped_by_exporter == 3 + 300


def test_bare_ip_headers_are_read_and_what_is_no_ip_is_counted() -> None:
    process = CollectingProcess()
    arp = b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x08\x06" + bytes(28)
    six = struct.pack(">IHBB", 6 << 28, 8, 17, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
    six += struct.pack(">HHHH", 5, 6, 8, 0)
    process.receive(datagram(sample(raw_header(frame()[14:], 11), raw_header(six, 12), raw_header(arp),
                                    raw_header(b"?" * 40, 4))), UDP, NOW_S)
    keys, counters, _ = process.drain()
    assert sorted(keys["ip_version"].tolist()) == [4, 6] and sorted(counters["octets"].tolist()) == [4800, 54_000]
    assert process.statistics().unusable_records == 2


def test_lost_datagrams_and_dropped_samples_are_counted() -> None:
    process = CollectingProcess()
    for sequence, drops in ((1, 10), (2, 10), (5, 25)):
        process.receive(datagram(sample(raw_header(frame()), drops=drops), sequence=sequence), UDP, NOW_S + sequence)
    statistics = process.statistics()
    assert (statistics.lost_messages, statistics.dropped_by_exporter) == (2, 15)


@pytest.mark.parametrize("octets", [
    datagram()[:20], struct.pack(">II", 5, 3) + bytes(24), datagram(sample(raw_header(frame())))[:-9],
    datagram(struct.pack(">II", 1, 8) + bytes(8)), struct.pack(">II", 5, 1) + bytes(16) + b"\xff" * 4,
])
def test_what_is_cut_or_lies_is_refused(octets: bytes) -> None:
    process = CollectingProcess()
    with pytest.raises(IpfixDecodeError):
        decode_sflow(octets)
    assert not process.receive(octets, UDP, NOW_S) and process.statistics().refused_messages == 1


@patient
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8), st.integers(0, 700))
def test_a_hostile_agent_ends_in_flows_or_refusals(changes: list[tuple[int, int]], length: int) -> None:
    octets = bytearray(datagram(COUNTERS, sample(raw_header(frame()), raw_header(frame(), 11)), sample(expanded=True)))
    for place, value in changes:
        octets[place % len(octets)] = value
    process = CollectingProcess()
    process.receive(bytes(octets[:length]), UDP, NOW_S)
    _, counters, _ = process.drain()
    assert int(counters["octets"].sum()) == int(process.points.observations()["octets"].sum())


SAMPLED = {
    "label": (f.ethernet(f.MPLS, f.mpls((100,), PACKET)), 0),
    "three labels, IPv6": (f.ethernet(f.MPLS, f.mpls((16, 17, 18), PACKET6)), 0),
    "pseudowire": (f.ethernet(f.MPLS, f.mpls((19,), bytes(4) + f.ethernet(f.IPV4, PACKET))), 0),
    "PPPoE": (f.ethernet(f.PPPOE, f.pppoe(7, f.PPP_IPV4, PACKET)), 0),
    "VLAN, PPPoE, IPv6": (f.ethernet(f.PPPOE, f.pppoe(7, f.PPP_IPV6, PACKET6), tags=((f.VLAN, 42),)), 42),
    "QinQ, label": (f.ethernet(f.MPLS, f.mpls((20,), PACKET), tags=((f.SERVICE_VLAN, 42), (f.VLAN, 43))), 42),
    "backbone": (f.ethernet(f.PBB, f.pbb(9, f.IPV4, PACKET), tags=((f.SERVICE_VLAN, 42),)), 42),
    "four tags": (f.ethernet(f.IPV4, PACKET, tags=((f.VLAN, 42),) * 4), 42),
}
"""Frames with one of two packets of 100 octets, and their outer VLAN ID."""


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("kept", [128, 256])
def test_ip_behind_other_headers_in_samples(name: str, kept: int) -> None:
    octets, vlan_id = SAMPLED[name]
    process = CollectingProcess()
    process.receive(datagram(sample(raw_header(octets, length=kept), interval=10)), UDP, NOW_S)
    (key,), (counter,), _ = process.drain()
    assert (int(counter["packets"]), int(counter["octets"])) == (10, 10 * 100)
    assert [int(key[name]) for name in ("protocol", "source_port", "destination_port", "vlan_id", "tunnel")] == [
        17, 5000, 53, vlan_id, 0]
    assert process.statistics().unusable_records == 0


def test_a_sampled_length_larger_than_the_frame_is_not_believed_and_counted() -> None:
    process = CollectingProcess()
    lie = f.ethernet(f.IPV4, f.ipv4(f.udp(1, 2, bytes(18)), f.UDP, total_length=65_000))
    process.receive(datagram(sample(raw_header(lie), raw_header(frame()), interval=10)), UDP, NOW_S)
    _, counters, _ = process.drain()
    with_checksum = 46 + 4  # the agent's frame length includes it
    assert sorted(counters["octets"].tolist()) == [10 * with_checksum, 10 * 540]
    assert process.statistics().lying_lengths == 1
    assert ("length lies", 1) in faults(process.statistics())
