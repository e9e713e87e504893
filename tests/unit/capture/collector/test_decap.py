"""Sampled packets taken out of tunnels: by arithmetic, and as the same packets in a capture file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowtop
from flowtop.capture.files.capture import FileConfig
from flowtop.model.tunnel_ports import added_ports
from tests.kernel import frames as f
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template
from tests.unit.capture.collector.test_sections import EXPORTED, FRAME_SECTION, IP_SECTION, VARIABLE, variable
from tests.unit.capture.collector.test_sflow import datagram, raw_header, sample
from tests.unit.capture.collector.test_sflow_records import record, switch, words
from tests.unit.capture.files.reading import read
from tests.unit.capture.files.writers import pcap

SOURCE = ("192.0.2.9", 4739)
INTERVAL = 1_000
INNER = f.ipv4(f.tcp(443, 50_000, f.ACK, bytes(60)), f.TCP, source="192.168.0.1", destination="192.168.0.2")
INNER6 = f.ipv6(f.udp(1_000, 53, bytes(52)), f.UDP)
INNER_OCTETS = 100
FRAME = f.ethernet(f.IPV4, INNER)


def around(payload: bytes, port: int = 4789) -> bytes:
    """IPv4 and UDP around a tunnel's header."""
    return f.ipv4(f.udp(50_000, port, payload), f.UDP)


TUNNELS: dict[str, tuple[bytes, str, int]] = {
    "vxlan": (around(f.vxlan(42, FRAME)), "vxlan", 42),
    "vxlan of IPv6": (around(f.vxlan(43, f.ethernet(f.IPV6, INNER6))), "vxlan", 43),
    "vxlan of a tagged frame": (around(f.vxlan(44, f.ethernet(f.IPV4, INNER, tags=((f.VLAN, 9),)))), "vxlan", 44),
    "geneve": (around(f.geneve(7, 0x6558, FRAME, options=bytes(8)), 6081), "geneve", 7),
    "gre": (f.ipv4(f.gre(f.IPV4, INNER, key=5), f.GRE), "gre", 5),
    "ip": (f.ipv4(INNER, f.IPIP), "ip", 0),
    "6in4": (f.ipv4(INNER6, 41), "ip", 0),
    "mpls over udp": (around(f.mpls((16_001,), INNER), 6635), "mpls", 16_001),
    "port": (around(f.vxlan(45, FRAME), 51_234), "vxlan", 45),
    "vxlan in gre": (f.ipv4(f.gre(f.IPV4, around(f.vxlan(46, FRAME))), f.GRE), "vxlan", 46),
}
ON_THE_LINK: dict[str, tuple[bytes, str, int]] = {
    "mpls": (f.ethernet(0x8847, f.mpls((16_002, 16_003), INNER)), "mpls", 16_003),
    "pppoe": (f.ethernet(0x8864, f.pppoe(77, 0x21, INNER)), "pppoe", 77),
}


def collected(*samples: bytes, decap: bool = True) -> flowtop.Collector:
    collector = flowtop.Collector(clock=lambda: NOW_S, decap=decap, tunnel_ports={51_234: "vxlan"})
    assert collector.receive(datagram(*samples), SOURCE)
    return collector


def both(collector: flowtop.Collector) -> tuple[flowtop.Flow, flowtop.Flow]:
    """The inner flow and the tunnel."""
    inner, outer = sorted(collector.table.query(), key=lambda flow: flow.parent)
    assert not inner.parent and outer.parent
    return inner, outer


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("name", TUNNELS)
def test_a_sampled_packet_is_counted_by_what_the_tunnel_carries(name: str, expanded: bool) -> None:
    packet, tunnel, number = TUNNELS[name]
    collector = collected(sample(raw_header(f.ethernet(f.IPV4, packet), length=256), interval=INTERVAL,
                                 expanded=expanded))
    inner, outer = both(collector)
    assert (inner.packets, inner.bytes, inner.tunnel, inner.tunnel_id) == (
        INTERVAL, INTERVAL * INNER_OCTETS, tunnel, number)
    assert (outer.packets, outer.bytes) == (INTERVAL, INTERVAL * len(packet))
    assert (inner.source_port, inner.destination_port) == ((1_000, 53) if "6" in name else (443, 50_000))
    books = collector.table.books
    assert (books.observed_packets, books.observed_octets, books.encapsulation_octets) == (
        INTERVAL, INTERVAL * INNER_OCTETS, INTERVAL * (len(packet) - INNER_OCTETS))
    assert collector.statistics.sampled_packets == 1 and collector.statistics.unusable_records == 0
    for flow in (inner, outer):
        assert {key: flow.as_dict().get(key) for key in ("ingressInterface", "egressInterface")} == {
            "ingressInterface": 3, "egressInterface": 7}


@pytest.mark.parametrize("name", ON_THE_LINK)
def test_labels_and_sessions_have_a_name(name: str) -> None:
    frame, tunnel, number = ON_THE_LINK[name]
    inner, = collected(sample(raw_header(frame, length=256))).table.query()
    assert (inner.bytes, inner.tunnel, inner.tunnel_id) == (100 * INNER_OCTETS, tunnel, number)
    inner, = collected(sample(raw_header(frame, length=256)), decap=False).table.query()
    assert (inner.bytes, inner.tunnel) == (100 * INNER_OCTETS, "")


def test_without_it_tunnels_are_flows() -> None:
    flows = collected(*[sample(raw_header(f.ethernet(f.IPV4, packet), length=256))
                        for packet, _, _ in TUNNELS.values()], decap=False).table.query()
    assert not any(flow.parent or flow.tunnel for flow in flows)
    assert sum(flow.bytes for flow in flows) == 100 * sum(len(packet) for packet, _, _ in TUNNELS.values())


@pytest.mark.parametrize("kept", [20, 40, 60, 62, 70, 76, 83, 84, 95, 128])
def test_a_header_that_ends_before_the_inner_packet_stays_with_the_tunnel(kept: int) -> None:
    """The inner IP header ends 34 + 8 + 8 + 14 + 20 octets after the frame's start."""
    collector = collected(sample(raw_header(f.ethernet(f.IPV4, TUNNELS["vxlan"][0]), length=kept)))
    flows = [flow for flow in collector.table.query() if not flow.parent]
    assert [flow.tunnel for flow in flows] == [] if kept < 34 else ["vxlan" if kept >= 84 else ""]
    assert collector.statistics.unusable_records == (kept < 34)
    if kept == 84:
        assert "sourceTransportPort" not in flows[0].as_dict()


def test_what_an_agent_reports_is_about_the_outer_packet() -> None:
    router = record(1002, words(1) + bytes([192, 0, 2, 254]) + words(24, 16))
    inner, outer = both(collected(sample(
        raw_header(f.ethernet(f.IPV4, TUNNELS["vxlan"][0]), length=256), switch(100, 200), router)))
    assert (outer.as_dict()["vlanId"], outer.as_dict()["ipNextHopIPv4Address"]) == (100, "192.0.2.254")
    assert inner.as_dict()["vlanId"] == 0 and "ipNextHopIPv4Address" not in inner.as_dict()
    assert inner.as_dict()["samplingInterval"] == 100


def test_frames_in_samples_and_in_a_file_are_the_same_flows(tmp_path: Path) -> None:
    frames = [f.ethernet(f.IPV4, packet) for packet, _, _ in TUNNELS.values()]
    frames += [frame for frame, _, _ in ON_THE_LINK.values()] + [FRAME, f.ethernet(f.IPV6, INNER6), f.ethernet(
        f.IPV4, TUNNELS["vxlan"][0], tags=((f.VLAN, 5),))]
    (tmp_path / "x").write_bytes(pcap([(1, frame) for frame in frames]))
    ports = added_ports([("vxlan", 51_234)])
    file = read(tmp_path / "x", FileConfig(str(tmp_path / "x"), decap=True, tunnel_ports=ports)).table()
    samples = [sample(raw_header(frame, length=512), interval=1) for frame in frames]
    (tmp_path / "y").write_bytes(datagram(*samples))
    found = read(tmp_path / "y", FileConfig(str(tmp_path / "y"), decap=True, tunnel_ports=ports))
    assert {key: value[:2] for key, value in found.table().items()} == {key: value[:2] for key, value in file.items()}
    found.assert_balanced()


def section(element: int, octets: bytes, *more: tuple[int, int, int]) -> bytes:
    fields = [(10, 4), *((number, length) for number, length, _ in more), (element, VARIABLE)]
    body = struct.pack(">I", 582) + b"".join(value.to_bytes(length, "big") for _, length, value in more)
    return ipfix(template(300, fields), set_of(300, body + variable(octets)))


@pytest.mark.parametrize("name", TUNNELS)
def test_a_packet_in_a_record_is_taken_out_too(name: str) -> None:
    packet, tunnel, number = TUNNELS[name]
    for message in (section(IP_SECTION, packet), section(FRAME_SECTION, f.ethernet(f.IPV4, packet)),
                    section(FRAME_SECTION, f.ethernet(f.IPV4, packet), (EXPORTED, 2, 0), (243, 2, 55), (9, 1, 24))):
        collector = flowtop.Collector(clock=lambda: NOW_S, decap=True, tunnel_ports={51_234: "vxlan"})
        assert collector.receive(message, SOURCE)
        inner, outer = both(collector)
        assert (inner.packets, inner.bytes, inner.tunnel, inner.tunnel_id) == (1, INNER_OCTETS, tunnel, number)
        assert (outer.packets, outer.bytes) == (1, len(packet))
        assert collector.table.books.encapsulation_octets == len(packet) - INNER_OCTETS
        facts: list[dict[str, Any]] = [dict(flow.as_dict()) for flow in (inner, outer)]
        assert [row["ingressInterface"] for row in facts] == [582, 582]
        if len(message) > len(section(FRAME_SECTION, f.ethernet(f.IPV4, packet))):
            assert facts[1]["vlanId"] == 55 and facts[1]["sourceIPv4PrefixLength"] == 24
            assert facts[0].get("vlanId") != 55 and "sourceIPv4PrefixLength" not in facts[0]


def test_records_with_counters_of_their_own_stay_with_the_tunnel() -> None:
    """The counters are of packets of the tunnel, of which the first may be one of many inner flows."""
    collector = flowtop.Collector(clock=lambda: NOW_S, decap=True)
    assert collector.receive(section(IP_SECTION, TUNNELS["vxlan"][0], (2, 4, 7), (1, 4, 7_000)), SOURCE)
    flow, = collector.table.query()
    assert (flow.packets, flow.bytes, flow.parent, flow.tunnel) == (7, 7_000, False, "")


def test_many_samples_of_many_tunnels_add_up() -> None:
    random = np.random.default_rng(11)
    chosen = [list(TUNNELS.values())[place][0] for place in random.integers(0, len(TUNNELS), 300).tolist()]
    collector = flowtop.Collector(clock=lambda: NOW_S, decap=True, tunnel_ports={51_234: "vxlan"})
    for number, packet in enumerate(chosen):
        collector.receive(datagram(sample(raw_header(f.ethernet(f.IPV4, packet), length=256)), sequence=number), SOURCE)
    books = collector.table.books
    assert (books.observed_packets, books.observed_octets) == (300 * 100, 300 * 100 * INNER_OCTETS)
    assert books.encapsulation_octets == 100 * sum(len(packet) - INNER_OCTETS for packet in chosen)
    flows = collector.table.query()
    assert sum(flow.bytes for flow in flows if not flow.parent) == books.observed_octets
