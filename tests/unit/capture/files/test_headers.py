"""IP behind labels, PPPoE sessions, backbone tags and stacks of VLAN tags, in capture files; and lengths that lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from flowtop.capture.files.capture import FileConfig
from flowtop.model.kinds import Tunnel
from flowtop.model.tunnel_ports import TunnelPorts
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import Read, read

T = 1_700_000_000 * w.SECOND
V4 = f.ipv4(f.tcp(443, 50_000, f.ACK, b"x" * 10), f.TCP, source="192.168.0.1", destination="192.168.0.2", ttl=9)
V6 = f.ipv6(f.udp(5, 6, b"y" * 11), f.UDP, source="2001:db8:1::1", destination="2001:db8:1::2")
FLOW4, OCTETS4 = ("192.168.0.1", "192.168.0.2", 6, 443, 50_000), 20 + 20 + 10
FLOW6, OCTETS6 = ("2001:db8:1::1", "2001:db8:1::2", 17, 5, 6), 40 + 8 + 11
INNER4, INNER6 = f.ethernet(f.IPV4, V4), f.ethernet(f.IPV6, V6)
ZEROS = bytes.fromhex("00005e005301")


class Case(NamedTuple):
    """A frame with the packet V4 or V6 in it; what it adds to the key, with and without --decap."""

    frame: bytes
    vlan_ids: tuple[int, int] = (0, 0)
    tunnel: Tunnel = Tunnel.NONE
    tunnel_id: int = 0

    @property
    def flow(self) -> tuple[str, str, int, int, int]:
        """The flow of the packet."""
        return FLOW4 if V4 in self.frame else FLOW6

    @property
    def octets(self) -> int:
        """Its IP octets."""
        return OCTETS4 if V4 in self.frame else OCTETS6


def frame_of(packet: bytes, pad: int = 0) -> bytes:
    return f.ethernet(f.IPV6 if packet[0] >> 4 == 6 else f.IPV4, packet, pad=pad)


def tag(vlan_id: int, ethertype: int, payload: bytes) -> bytes:
    return vlan_id.to_bytes(2, "big") + ethertype.to_bytes(2, "big") + payload


CASES = {
    "label": Case(f.ethernet(f.MPLS, f.mpls((100,), V4)), tunnel=Tunnel.MPLS, tunnel_id=100),
    "label, padded": Case(f.ethernet(f.MPLS, f.mpls((100,), V4), pad=90), tunnel=Tunnel.MPLS, tunnel_id=100),
    "label 0": Case(f.ethernet(f.MPLS, f.mpls((0,), V4)), tunnel=Tunnel.MPLS),
    "label, IPv6": Case(f.ethernet(f.MPLS, f.mpls((2**20 - 1,), V6)), tunnel=Tunnel.MPLS, tunnel_id=2**20 - 1),
    "three labels": Case(f.ethernet(f.MPLS, f.mpls((16, 17, 18), V6)), tunnel=Tunnel.MPLS, tunnel_id=18),
    "twelve labels": Case(f.ethernet(f.MPLS, f.mpls(tuple(range(16, 28)), V4)), tunnel=Tunnel.MPLS, tunnel_id=27),
    "multicast": Case(f.ethernet(f.MPLS_MULTICAST, f.mpls((5000,), V4)), tunnel=Tunnel.MPLS, tunnel_id=5000),
    "VLAN, label": Case(f.ethernet(f.MPLS, f.mpls((7,), V4), tags=((f.VLAN, 42),)), (42, 0), Tunnel.MPLS, 7),
    "QinQ, labels": Case(f.ethernet(f.MPLS, f.mpls((7, 8), V6), tags=((f.SERVICE_VLAN, 10), (f.VLAN, 20))), (10, 20),
                         Tunnel.MPLS, 8),
    "pseudowire": Case(f.ethernet(f.MPLS, f.mpls((29, 30), INNER4)), tunnel=Tunnel.MPLS, tunnel_id=30),
    "pseudowire with control word": Case(f.ethernet(f.MPLS, f.mpls((31,), bytes(4) + INNER6)), tunnel=Tunnel.MPLS,
                                         tunnel_id=31),
    "pseudowire with sequence number": Case(f.ethernet(f.MPLS, f.mpls((31,), b"\0\0\x12\x34" + INNER4)),
                                            tunnel=Tunnel.MPLS, tunnel_id=31),
    "pseudowire, MAC of zero bits": Case(f.ethernet(f.MPLS, f.mpls((32,), ZEROS + INNER4[6:])), tunnel=Tunnel.MPLS,
                                         tunnel_id=32),
    "pseudowire, control word, tags": Case(
        f.ethernet(f.MPLS, f.mpls((33,), bytes(4) + f.ethernet(f.IPV4, V4, tags=((f.VLAN, 5), (f.VLAN, 6)))),
                   tags=((f.VLAN, 4),)), (4, 5), Tunnel.MPLS, 33),
    "label in a pseudowire": Case(
        f.ethernet(f.MPLS, f.mpls((34,), bytes(4) + f.ethernet(f.MPLS, f.mpls((35, 36), V4)))), tunnel=Tunnel.MPLS,
        tunnel_id=36),
    "PPPoE": Case(f.ethernet(f.PPPOE, f.pppoe(0x1234, f.PPP_IPV4, V4)), tunnel=Tunnel.PPPOE, tunnel_id=0x1234),
    "PPPoE, padded": Case(f.ethernet(f.PPPOE, f.pppoe(1, f.PPP_IPV4, V4), pad=100), tunnel=Tunnel.PPPOE, tunnel_id=1),
    "PPPoE, IPv6": Case(f.ethernet(f.PPPOE, f.pppoe(65535, f.PPP_IPV6, V6)), tunnel=Tunnel.PPPOE, tunnel_id=65535),
    "PPPoE, compressed": Case(f.ethernet(f.PPPOE, f.pppoe(2, f.PPP_IPV4, V4, compressed=True)), tunnel=Tunnel.PPPOE,
                              tunnel_id=2),
    "PPPoE, IPv6 compressed": Case(f.ethernet(f.PPPOE, f.pppoe(2, f.PPP_IPV6, V6, compressed=True)),
                                   tunnel=Tunnel.PPPOE, tunnel_id=2),
    "VLAN, PPPoE": Case(f.ethernet(f.PPPOE, f.pppoe(3, f.PPP_IPV4, V4), tags=((f.VLAN, 7),)), (7, 0), Tunnel.PPPOE, 3),
    "QinQ, PPPoE": Case(f.ethernet(f.PPPOE, f.pppoe(3, f.PPP_IPV6, V6), tags=((f.SERVICE_VLAN, 7), (f.VLAN, 35))),
                        (7, 35), Tunnel.PPPOE, 3),
    "MPLS over PPPoE": Case(f.ethernet(f.PPPOE, f.pppoe(4, f.PPP_MPLS, f.mpls((40, 41), V4))), tunnel=Tunnel.MPLS,
                            tunnel_id=41),
    "PPPoE in a pseudowire": Case(
        f.ethernet(f.MPLS, f.mpls((50,), bytes(4) + f.ethernet(f.PPPOE, f.pppoe(6, f.PPP_IPV4, V4)))),
        tunnel=Tunnel.PPPOE, tunnel_id=6),
    "backbone": Case(f.ethernet(f.PBB, f.pbb(0x1234, f.IPV4, V4))),
    "backbone tag": Case(f.ethernet(f.PBB, f.pbb(0x1234, f.IPV6, V6), tags=((f.SERVICE_VLAN, 100),)), (100, 0)),
    "backbone and customer's tags": Case(
        f.ethernet(f.PBB, f.pbb(1, f.IPV4, V4, tags=((f.SERVICE_VLAN, 8), (f.VLAN, 9))), tags=((f.SERVICE_VLAN, 100),)),
        (100, 8)),
    "backbone, four customer's tags": Case(f.ethernet(f.PBB, f.pbb(1, f.IPV4, V4, tags=((f.VLAN, 8),) * 4)), (8, 8)),
    "backbone, label": Case(f.ethernet(f.PBB, f.pbb(1, f.MPLS, f.mpls((60,), V4))), tunnel=Tunnel.MPLS, tunnel_id=60),
    "backbone, PPPoE": Case(f.ethernet(f.PBB, f.pbb(1, f.PPPOE, f.pppoe(5, f.PPP_IPV6, V6), tags=((f.VLAN, 8),))),
                            (8, 0), Tunnel.PPPOE, 5),
    "four tags": Case(f.ethernet(f.IPV4, V4, tags=((f.SERVICE_VLAN, 1), (f.SERVICE_VLAN, 2), (f.VLAN, 3), (f.VLAN, 4))),
                      (1, 2)),
    "eight tags": Case(f.ethernet(f.IPV6, V6, tags=tuple(
        ((f.SERVICE_VLAN, f.VLAN, f.OLD_QINQ)[number % 3], number) for number in range(1, 9))), (1, 2)),
    "ten tags": Case(f.ethernet(f.IPV4, V4, tags=((f.VLAN, 5),) * 10), (5, 5)),
    "five tags, label": Case(f.ethernet(f.MPLS, f.mpls((9,), V4), tags=((f.VLAN, 5),) * 5), (5, 5), Tunnel.MPLS, 9),
    "four tags, PPPoE": Case(f.ethernet(f.PPPOE, f.pppoe(9, f.PPP_IPV4, V4), tags=((f.VLAN, 1),) * 4), (1, 1),
                             Tunnel.PPPOE, 9),
    "four tags, labels": Case(f.ethernet(f.MPLS, f.mpls((9, 10), V6), tags=((f.VLAN, 1),) * 4), (1, 1), Tunnel.MPLS,
                              10),
    "tags of other makers": Case(f.ethernet(f.VLAN_9200, tag(11, f.VLAN_9200, tag(12, f.IPV4, V4))), (11, 12)),
}
"""Frames by what they are."""

NOT_IP = {
    "labels without a bottom": (f.ethernet(f.MPLS, f.mpls(tuple(range(13)), V4)), 13 * 4 + OCTETS4),
    "cut label": (f.ethernet(f.MPLS, b"\0\x01"), 2),
    "control channel": (f.ethernet(f.MPLS, f.mpls((13,), b"\x10\0\0\x07" + V4)), 8 + OCTETS4),
    "ARP in a pseudowire": (f.ethernet(f.MPLS, f.mpls((1,), bytes(4) + f.ethernet(f.ARP, bytes(46)))), 4 + 4 + 60),
    "LCP": (f.ethernet(f.PPPOE, f.pppoe(1, f.PPP_LCP, bytes(10))), 18),
    "IPCP": (f.ethernet(f.PPPOE, f.pppoe(1, 0x8021, bytes(10)), tags=((f.VLAN, 5),)), 18),
    "discovery": (f.ethernet(f.PPPOE_DISCOVERY, f.pppoe(0, 0x0101, bytes(20), code=9)), 28),
    "session's end": (f.ethernet(f.PPPOE, f.pppoe(1, f.PPP_IPV4, V4, code=0xA7)), 8 + OCTETS4),
    "another version of PPPoE": (f.ethernet(f.PPPOE, f.pppoe(1, f.PPP_IPV4, V4, version_type=0x21)), 8 + OCTETS4),
    "ARP behind a backbone tag": (f.ethernet(f.PBB, f.pbb(1, f.ARP, bytes(46)), tags=((f.VLAN, 5),)), 4 + 14 + 46),
    "cut backbone tag": (f.ethernet(f.PBB, bytes(17)), 17),
    "too many tags": (f.ethernet(f.IPV4, V4, tags=((f.VLAN, 5),) * 11), 7 * 4 + OCTETS4),
}
"""Frames without IP, and their octets above the link header and VLAN tags."""


def read_frames(path: Path, *frames: bytes, decap: bool = False, snap: int = 262_144,
                ports: TunnelPorts | None = None) -> Read:
    path.write_bytes(w.pcap([(T, frame) for frame in frames], snap=snap))
    return read(path, FileConfig(str(path), decap=decap, tunnel_ports=ports or {}))


@pytest.mark.parametrize("decap", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_ip_behind_other_headers_is_counted_as_ip(tmp_path: Path, name: str, decap: bool) -> None:
    case = CASES[name]
    found = read_frames(tmp_path / "x.pcap", case.frame, decap=decap)
    assert (dict(found.flows), found.ignored()) == ({case.flow: (1, case.octets)}, {})
    facts = found.facts[case.flow]
    assert (facts["vlan_id"], facts["customer_vlan_id"]) == case.vlan_ids
    assert (facts["tunnel"], facts["tunnel_id"]) == ((case.tunnel, case.tunnel_id) if decap else (Tunnel.NONE, 0))
    assert facts["macs"] == f.SOURCE_MAC + f.DESTINATION_MAC
    assert (dict(found.parents), found.total("encapsulation_octets"), found.total("lying_lengths")) == ({}, 0, 0)


@pytest.mark.parametrize("decap", [False, True])
@pytest.mark.parametrize("name", NOT_IP)
def test_what_is_not_ip_behind_them_is_ignored(tmp_path: Path, name: str, decap: bool) -> None:
    frame, octets = NOT_IP[name]
    found = read_frames(tmp_path / "x.pcap", frame, decap=decap)
    assert (dict(found.flows), found.ignored()) == ({}, {"other": (1, octets)})


def test_all_of_them_in_one_file(tmp_path: Path) -> None:
    found = read_frames(tmp_path / "x.pcap", *(case.frame for case in CASES.values()),
                        *(frame for frame, _ in NOT_IP.values()))
    fours = sum(case.flow == FLOW4 for case in CASES.values())
    sixes = len(CASES) - fours
    assert dict(found.flows) == {FLOW4: (fours, fours * OCTETS4), FLOW6: (sixes, sixes * OCTETS6)}
    assert found.ignored() == {"other": (len(NOT_IP), sum(octets for _, octets in NOT_IP.values()))}


def snap(ethertype: int, payload: bytes) -> bytes:
    """An IEEE 802.3 frame with LLC and SNAP (RFC 1042)."""
    content = bytes.fromhex("aaaa03000000") + ethertype.to_bytes(2, "big") + payload
    return f.ethernet(len(content), content)


@pytest.mark.parametrize(("ethertype", "payload", "vlan_ids"), [
    (f.IPV4, V4, (0, 0)), (f.MPLS, f.mpls((5,), V4), (0, 0)), (f.PPPOE, f.pppoe(5, f.PPP_IPV4, V4), (0, 0)),
    (f.VLAN, tag(3, f.IPV4, V4), (3, 0)), (f.VLAN, tag(3, f.VLAN, tag(4, f.IPV4, V4)), (3, 4))])
def test_behind_snap(tmp_path: Path, ethertype: int, payload: bytes, vlan_ids: tuple[int, int]) -> None:
    found = read_frames(tmp_path / "x.pcap", snap(ethertype, payload))
    assert dict(found.flows) == {FLOW4: (1, OCTETS4)}
    assert (found.facts[FLOW4]["vlan_id"], found.facts[FLOW4]["customer_vlan_id"]) == vlan_ids


@pytest.mark.parametrize("name", [*NOT_IP, "ten tags", "four tags, labels"])
@pytest.mark.parametrize(("link_type", "head"), [(1, b""), (113, bytes.fromhex("0000 0001 0006 020000000001 0000"))])
def test_a_frame_is_read_the_same_whatever_stands_beside_it(tmp_path: Path, name: str, link_type: int, head: bytes,
                                                            ) -> None:
    """Frames with LLC take another way through the reader; the others must not follow them."""
    frame = CASES[name].frame if name in CASES else NOT_IP[name][0]
    beside = snap(f.IPV4, f.ipv4(f.udp(1, 2), f.UDP))
    if link_type == 113:
        frame, beside = head + frame[12:], head + b"\0\4" + beside[14:]
    path = tmp_path / "x.pcap"
    counted = []
    for frames in ([frame], [frame, beside], [beside]):
        path.write_bytes(w.pcap([(T, content) for content in frames], link_type=link_type))
        found = read(path)
        counted.append((found.flows, found.ignored()))
    assert dict(counted[2][0]) == {("10.0.0.1", "10.0.0.2", 17, 1, 2): (1, 28)}
    assert counted[1] == ({**counted[0][0], **counted[2][0]}, counted[0][1])


@pytest.mark.parametrize("name", ["label", "PPPoE", "backbone and customer's tags", "pseudowire with control word"])
def test_snapped_frames_count_as_they_were_on_the_wire(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    found = read_frames(tmp_path / "x.pcap", case.frame, snap=len(case.frame) - 8)
    assert (dict(found.flows), found.total("lying_lengths")) == ({case.flow: (1, case.octets)}, 0)


@pytest.mark.parametrize(("link_type", "head"), [
    (113, bytes(6) + bytes(8)),              # cooked: packet type, device, address
    (276, None),                             # cooked, version 2: EtherType first
])
@pytest.mark.parametrize(("ethertype", "payload"), [
    (f.MPLS, f.mpls((1, 2), V4)), (f.PPPOE, f.pppoe(7, f.PPP_IPV4, V4)), (f.PBB, f.pbb(1, f.IPV4, V4))])
def test_cooked_frames(tmp_path: Path, link_type: int, head: bytes | None, ethertype: int, payload: bytes) -> None:
    type_ = ethertype.to_bytes(2, "big")
    frame = (head + type_ if head else type_ + bytes(18)) + payload
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([(T, frame)], link_type=link_type))
    assert dict(read(path).flows) == {FLOW4: (1, OCTETS4)}


@pytest.mark.parametrize(("name", "tunnel", "tunnel_id"), [
    ("label", Tunnel.MPLS, 100), ("PPPoE", Tunnel.PPPOE, 0x1234), ("backbone", Tunnel.VXLAN, 77)])
def test_inside_another_tunnel(tmp_path: Path, name: str, tunnel: Tunnel, tunnel_id: int) -> None:
    """The innermost tunnel is the flow's; the outermost packet stays visible, with the tunnel that it carries."""
    outer = f.ipv4(f.udp(9, 4789, f.vxlan(77, CASES[name].frame)), f.UDP)
    found = read_frames(tmp_path / "x.pcap", f.ethernet(f.IPV4, outer), decap=True)
    assert dict(found.flows) == {FLOW4: (1, OCTETS4)}
    assert (found.facts[FLOW4]["tunnel"], found.facts[FLOW4]["tunnel_id"]) == (tunnel, tunnel_id)
    [(parent, counted)] = found.parents.items()
    assert (parent[0], counted) == ("10.0.0.1", (1, len(outer)))
    assert (found.facts[parent]["tunnel"], found.facts[parent]["tunnel_id"]) == (Tunnel.VXLAN, 77)


def test_a_tunnel_behind_a_label_is_the_innermost(tmp_path: Path) -> None:
    outer = f.ipv4(f.udp(9, 4789, f.vxlan(78, INNER4)), f.UDP)
    found = read_frames(tmp_path / "x.pcap", f.ethernet(f.MPLS, f.mpls((3,), outer)), decap=True)
    assert (found.facts[FLOW4]["tunnel"], found.facts[FLOW4]["tunnel_id"]) == (Tunnel.VXLAN, 78)
    assert found.total("encapsulation_octets") == len(outer) - OCTETS4


# ---- UDP ports of tunnels

ADDED = {51234: Tunnel.VXLAN, 6082: Tunnel.GENEVE, 6636: Tunnel.MPLS, 8472: Tunnel.GENEVE}
"""Linux's port of VXLAN is given to another one."""
BY_PORT = [
    (51234, f.vxlan(42, INNER4), Tunnel.VXLAN, 42),
    (51234, f.vxlan(42, f.ethernet(f.MPLS, f.mpls((7,), V4))), Tunnel.MPLS, 7),
    (6082, f.geneve(43, f.IPV4, V4, options=bytes(8)), Tunnel.GENEVE, 43),
    (6636, f.mpls((1, 2), V4), Tunnel.MPLS, 2),
    (8472, f.geneve(44, 0x6558, INNER4), Tunnel.GENEVE, 44),
    (4789, f.vxlan(45, INNER4), Tunnel.VXLAN, 45),
    (6081, f.geneve(46, f.IPV4, V4), Tunnel.GENEVE, 46),
    (6635, f.mpls((3,), V4), Tunnel.MPLS, 3),
    (6635, f.mpls(tuple(range(1, 13)), V4), Tunnel.MPLS, 12),
    (6635, f.mpls((4,), INNER4), Tunnel.MPLS, 4),
    (6635, f.mpls((5,), bytes(4) + INNER4), Tunnel.MPLS, 5),
    (6635, f.mpls((6,), b"\0\0\x12\x34" + f.ethernet(f.IPV4, V4, tags=((f.VLAN, 0),))), Tunnel.MPLS, 6),
    (6635, f.mpls((7,), ZEROS + INNER4[6:]), Tunnel.MPLS, 7),
]
"""With the ports of ADDED: destination port, what the datagram holds, tunnel and id."""


CHANNEL = f.mpls((13,), b"\x10\0\0\x07" + INNER4[4:])
"""A control channel (RFC 5586) whose message looks like Ethernet and IP."""
CHANNELS = [
    f.ethernet(f.IPV4, f.ipv4(f.udp(9, 6635, CHANNEL), f.UDP)),
    f.ethernet(f.IPV4, f.ipv4(f.gre(f.MPLS, CHANNEL), f.GRE)),
    f.ethernet(f.IPV6, f.ipv6(f.udp(9, 6081, f.geneve(1, f.MPLS, CHANNEL)), f.UDP)),
]


@pytest.mark.parametrize("frame", CHANNELS)
def test_a_control_channel_in_a_tunnel_holds_no_packet(tmp_path: Path, frame: bytes) -> None:
    found = read_frames(tmp_path / "x.pcap", frame, decap=True)
    assert (list(found.flows.values()), dict(found.parents)) == ([(1, len(frame) - 14)], {})


@pytest.mark.parametrize(("port", "payload", "tunnel", "tunnel_id"), BY_PORT)
@pytest.mark.parametrize("carry", [f.ipv4, f.ipv6])
def test_added_ports_beside_the_standard_ones(tmp_path: Path, port: int, payload: bytes, tunnel: Tunnel, tunnel_id: int,
                                              carry: Callable[[bytes, int], bytes]) -> None:
    outer = carry(f.udp(9, port, payload), f.UDP)
    found = read_frames(tmp_path / "x.pcap", frame_of(outer), decap=True, ports=ADDED)
    assert dict(found.flows) == {FLOW4: (1, OCTETS4)}
    assert (found.facts[FLOW4]["tunnel"], found.facts[FLOW4]["tunnel_id"]) == (tunnel, tunnel_id)
    assert list(found.parents.values()) == [(1, len(outer))]


@pytest.mark.parametrize("port", [51234, 6082, 6636])
def test_without_being_added_they_are_plain_udp(tmp_path: Path, port: int) -> None:
    payload = next(payload for number, payload, _, _ in BY_PORT if number == port)
    outer = f.ipv4(f.udp(9, port, payload), f.UDP)
    found = read_frames(tmp_path / "x.pcap", frame_of(outer), decap=True)
    assert dict(found.flows) == {("10.0.0.1", "10.0.0.2", 17, 9, port): (1, len(outer))}


def test_a_source_port_is_no_tunnel(tmp_path: Path) -> None:
    outer = f.ipv4(f.udp(51234, 9, f.vxlan(42, INNER4)), f.UDP)
    found = read_frames(tmp_path / "x.pcap", frame_of(outer), decap=True, ports=ADDED)
    assert list(found.flows.values()) == [(1, len(outer))]


# ---- lengths larger than the frame

JUMBO = f.ipv6(b"\x11\0\xc2\x04" + (100_000).to_bytes(4, "big") + f.udp(1, 2), f.HOP_BY_HOP, payload_length=0)
"""Its jumbo option (RFC 2675) says 100,000 octets."""
LIES = {
    "jumbo option": (frame_of(JUMBO), 40 + 8 + 8),
    "jumbo option behind a label": (f.ethernet(f.MPLS, f.mpls((1,), JUMBO)), 40 + 8 + 8),
    "65,000 octets in a frame of 60": (frame_of(f.ipv4(f.udp(1, 2), f.UDP, total_length=65_000), 60), 60 - 14),
    "one octet too many": (frame_of(f.ipv4(f.udp(1, 2, bytes(20)), f.UDP, total_length=49)), 48),
    "IPv4 with options": (frame_of(f.ipv4(f.udp(1, 2), f.UDP, options=bytes(8), total_length=999)), 36),
    "IPv6": (frame_of(f.ipv6(f.udp(1, 2), f.UDP, payload_length=65_535), 70), 70 - 14),
    "IPv6 with options": (frame_of(f.ipv6(f.extension(f.UDP) + f.udp(1, 2), 60, payload_length=17)), 40 + 16),
    "behind a label": (f.ethernet(f.MPLS, f.mpls((1,), f.ipv4(f.udp(1, 2), f.UDP, total_length=1500))), 28),
    "in a session": (f.ethernet(f.PPPOE, f.pppoe(1, f.PPP_IPV4, f.ipv4(f.udp(1, 2), f.UDP, total_length=1500))), 28),
    "with a tag": (f.ethernet(f.IPV4, f.ipv4(f.udp(1, 2), f.UDP, total_length=1500), tags=((f.VLAN, 3),)), 28),
}
"""Frames, and the octets above their link headers."""
OUTER_LIES = frame_of(f.ipv4(f.udp(9, 4789, f.vxlan(1, INNER4)), f.UDP, total_length=2000))


@pytest.mark.parametrize("decap", [False, True])
@pytest.mark.parametrize("name", LIES)
def test_a_length_larger_than_the_frame_is_not_believed(tmp_path: Path, name: str, decap: bool) -> None:
    frame, octets = LIES[name]
    found = read_frames(tmp_path / "x.pcap", *[frame] * 5, decap=decap)
    [(flow, counted)] = found.flows.items()
    assert (flow[3:], counted, found.total("lying_lengths")) == ((1, 2), (5, 5 * octets), 5)


def test_the_length_of_an_outer_packet_lies_and_what_it_carries_is_counted(tmp_path: Path) -> None:
    frame = OUTER_LIES
    found = read_frames(tmp_path / "x.pcap", frame, decap=True)
    assert (dict(found.flows), found.total("lying_lengths")) == ({FLOW4: (1, OCTETS4)}, 1)
    assert (list(found.parents.values()), found.total("encapsulation_octets")) == (
        [(1, len(frame) - 14)], len(frame) - 14 - OCTETS4)


@pytest.mark.parametrize("snap", [34, 42, 60])
def test_snapped_captures_are_no_lies(tmp_path: Path, snap: int) -> None:
    packet = f.ipv4(f.udp(1, 2, bytes(1400)), f.UDP)
    found = read_frames(tmp_path / "x.pcap", f.ethernet(f.IPV4, packet), snap=snap)
    assert (list(found.flows.values()), found.total("lying_lengths")) == ([(1, 1428)], 0)


def test_what_the_frame_says_bounds_a_snapped_capture(tmp_path: Path) -> None:
    packet = f.ipv4(f.udp(1, 2, bytes(1400)), f.UDP, total_length=9000)
    found = read_frames(tmp_path / "x.pcap", f.ethernet(f.IPV4, packet), snap=60)
    assert (list(found.flows.values()), found.total("lying_lengths")) == ([(1, 1428)], 1)


@pytest.mark.parametrize(("said", "there", "counted", "lies"), [
    (100_000, 100_000, 100_000, 0), (100_000, 100_001, 100_000, 0), (100_001, 100_000, 100_000, 1),
    (2**32 - 1, 70_000, 70_000, 1), (65_536, 70_000, 65_536, 0),
    (65_535, 70_000, 70_000, 0), (0, 70_000, 70_000, 0),  # not allowed: such packets have a payload length
])
def test_jumbograms(tmp_path: Path, said: int, there: int, counted: int, lies: int) -> None:
    """`said`, `there`, `counted`: octets after the IPv6 header."""
    packet = f.ipv6(b"\x11\0\xc2\x04" + said.to_bytes(4, "big") + f.udp(1, 2) + bytes(there - 16), f.HOP_BY_HOP,
                    payload_length=0)
    found = read_frames(tmp_path / "x.pcap", frame_of(packet), snap=90)
    assert (list(found.flows.values()), found.total("lying_lengths")) == ([(1, 40 + counted)], lies)


def test_headers_that_do_not_fit_are_malformed_not_lies(tmp_path: Path) -> None:
    packet = f.ipv4(bytes(8), f.UDP, ihl=15, total_length=60)
    found = read_frames(tmp_path / "x.pcap", f.ethernet(f.IPV4, packet))
    assert (found.ignored(), found.total("lying_lengths")) == ({"malformed": (1, 28)}, 0)


@pytest.mark.parametrize("carry", [
    lambda inner: f.ipv4(f.udp(9, 4789, f.vxlan(1, f.ethernet(f.IPV4, inner))), f.UDP),
    lambda inner: f.ipv4(f.udp(9, 6081, f.geneve(1, f.IPV4, inner)), f.UDP),
    lambda inner: f.ipv4(f.gre(f.IPV4, inner), f.GRE),
    lambda inner: f.ipv4(inner, f.IPIP),
    lambda inner: f.ipv6(f.gre(f.IPV4, inner), f.GRE),
])
def test_a_packet_in_a_tunnel_is_not_larger_than_its_outer_one(tmp_path: Path, carry: Callable[[bytes], bytes]) -> None:
    """It stays the outer flow, which counts what was on the wire."""
    packet = carry(f.ipv4(f.udp(1, 2), f.UDP, total_length=65_000))
    found = read_frames(tmp_path / "x.pcap", frame_of(packet), decap=True)
    [(flow, counted)] = found.flows.items()
    assert (flow[0] in ("10.0.0.1", "2001:db8::1"), counted) == (True, (1, len(packet)))
    assert dict(found.parents) == {}
