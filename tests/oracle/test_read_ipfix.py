"""IPFIX files read back: a capture's flows survive the way through `-e file:` and `-r`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowtop.fields.records import flow_names
from flowtop.model.elements import ELEMENTS
from tests.kernel import frames as f
from tests.oracle.collectors import ENVIRONMENT, tshark_file
from tests.oracle.test_read import CAPTURES, EXPECTED, names
from tests.prepared import run_flowtop
from tests.unit.capture.files import writers as w
from tests.unit.cli.test_reading import CAPTURE

_MEASURED = ("tcpRoundTripMicroseconds", "tcpRetransmittedSegments", "tcpOutOfOrderSegments")
_NOT_EXPORTED = ("flowId", "ipTTL", "fragmentPackets", "icmpEchoIdentifier", "icmpRoundTripMicroseconds",
                 "peerName", "peerNameOrigin",
                 *(name for name in flow_names() if name.startswith("tcp") and name not in (*ELEMENTS, *_MEASURED)))


def flows(*options: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Flows in an order of their own, without what IPFIX does not tell, and the totals."""
    done = run_flowtop("-b", "-o", "json", *options, timeout=120)
    assert done.returncode == 0, done.stderr
    [only] = map(json.loads, done.stdout.splitlines())
    kept = [{name: value for name, value in flow.items() if name not in _NOT_EXPORTED} for flow in only["flows"]]
    return sorted(kept, key=lambda flow: json.dumps(flow, sort_keys=True)), only["totals"]


def round_trip(capture: Path, ipfix: Path, *options: str) -> None:
    before, books = flows("-r", str(capture), "-e", f"file:{ipfix}?profile=strict", *options)
    after, again = flows("-r", str(ipfix))
    assert after == [flow for flow in before if "parent" not in flow]
    assert (again["observedPackets"], again["observedOctets"]) == (books["accountedPackets"], books["accountedOctets"])


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("name", names())
def test_round_trip_of_captures(tmp_path: Path, name: str) -> None:
    round_trip(CAPTURES / name, tmp_path / "flows.ipfix")


def test_round_trip_of_a_flow_that_comes_back_after_its_timeout(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(CAPTURE)
    round_trip(tmp_path / "x.pcap", tmp_path / "flows.ipfix")


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    capture, ipfix = tmp_path / "x.pcap", tmp_path / "flows.ipfix"
    capture.write_bytes(CAPTURE)
    flows("-r", str(capture), "-e", f"file:{ipfix}")
    whole = ipfix.read_bytes()
    ipfix.write_bytes(whole[:-5])
    done = run_flowtop("-b", "-o", "json", "-r", ipfix)
    assert done.returncode == 65
    assert done.stderr.decode().splitlines()[0] == "flowtop: flows.ipfix is cut off in the middle of a message"
    assert json.loads(done.stdout)["totals"]["observedPackets"] == 4, "reports stand at the end"
    ipfix.write_bytes(whole + b"\0" * 40)
    done = run_flowtop("-b", "-o", "json", "-r", ipfix)
    assert "data that is not an IPFIX message" in done.stderr.decode()
    assert json.loads(done.stdout)["totals"]["observedPackets"] == 4


def test_times_of_the_file_end_flows(tmp_path: Path) -> None:
    """Two packets of one flow an hour apart, exported, are two flows when read back."""
    frame = CAPTURE[24 + 16:24 + 16 + 74]
    capture, ipfix = tmp_path / "x.pcap", tmp_path / "flows.ipfix"
    capture.write_bytes(w.pcap([(1_700_000_000 * w.SECOND, frame), (1_700_003_600 * w.SECOND, frame)]))
    flows("-r", str(capture), "-e", f"file:{ipfix}")
    found, _ = flows("-r", str(ipfix))
    assert [flow["packetTotalCount"] for flow in found] == [1, 1]


INNER = f.ipv4(f.udp(1000, 53, bytes(9)), f.UDP, source="10.1.0.1", destination="10.1.0.2")
FRAME = f.ethernet(f.IPV4, INNER)
OTHERS = (
    f.ethernet(f.IPV6, f.ipv6(f.tcp(1000, 443, f.SYN), f.TCP)), f.ethernet(f.IPV6, f.ipv6(f.icmp(128, 0), f.ICMPV6)),
    f.ethernet(f.IPV4, f.ipv4(f.icmp(8, 0), f.ICMP), tags=((f.VLAN, 9),)),
    f.ethernet(f.IPV4, f.ipv4(bytes(16), f.UDP, offset=24, identification=7)),
)


def by_udp(port: int, payload: bytes) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.udp(50_000, port, payload), f.UDP))


def by_gre(packet: bytes) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(packet, f.GRE))


CARRIED = {
    (0, 0): FRAME, (4, 100): by_udp(4789, f.vxlan(100, FRAME)), (4, 200): by_udp(4789, f.vxlan(200, FRAME)),
    (4, 300): by_udp(8472, f.vxlan(300, FRAME)), (5, 100): by_udp(6081, f.geneve(100, 0x6558, FRAME)),
    (2, 100): by_gre(f.gre(f.IPV4, INNER, key=100)), (2, 2**32 - 1): by_gre(f.gre(f.IPV4, INNER, key=2**32 - 1)),
    (2, 0): by_gre(f.gre(f.IPV4, INNER)), (1, 0): f.ethernet(f.IPV4, f.ipv4(INNER, f.IPIP)),
    (3, 100): by_gre(f.gre(0x88BE, f.erspan2(100, FRAME), sequence=3)),
    (6, 100): by_udp(6635, f.mpls((5, 100), INNER)),
}
"""One conversation, in tunnels (record.Tunnel and id; the first in none) that nothing else tells apart."""


def tunnelled(path: Path) -> None:
    """The first of CARRIED once, the second twice, ...; and other kinds of flows in one tunnel."""
    frames = [frame for times, frame in enumerate(CARRIED.values(), 1) for _ in range(times)]
    frames += [by_udp(4789, f.vxlan(400, frame)) for frame in OTHERS]
    path.write_bytes(w.pcap([(1_700_000_000 * w.SECOND, frame) for frame in frames]))


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_flows_in_tunnels_leave_with_keys_of_their_own(profile: str, tmp_path: Path) -> None:
    tunnelled(tmp_path / "x.pcap")
    ipfix = tmp_path / "flows.ipfix"
    flows("-r", str(tmp_path / "x.pcap"), "--decap", "-e", f"file:{ipfix}?profile={profile}")
    records, complaints = tshark_file(ipfix)
    assert complaints == []
    packets, keyless = {}, ("flow_id", "abstimestart", "abstimeend", "octets", "packets")
    for set_id, fields in records:
        values = {name.removeprefix("cflow."): int.from_bytes(octets, "big") for name, octets in fields}
        if set_id <= 262 or 272 <= set_id < 768:  # from 768 on: details of the file
            key = tuple(pair for pair in values.items() if pair[0] not in keyless)
            assert key not in packets, "two records of one flow at the same time"
            packets[key] = values["packets"]
    assert len(packets) == len(CARRIED) + len(OTHERS)
    points = {dict(key).get("observation_point_id", 0): count for key, count in packets.items()
              if dict(key).get("dstport") == 53}
    assert points == {tunnel * 2**32 + id_: times for times, (tunnel, id_) in enumerate(CARRIED, 1)}
    segments = {dict(key).get("layer2_segment_id", 0) for key in packets} - {0}
    assert segments == {0x01 << 56 | vni for vni in (100, 200, 300, 400)}
    assert {dict(key).get("gre_key", 0) for key in packets} == {0, 100, 2**32 - 1}
    assert sum(packets.values()) == sum(range(1, len(CARRIED) + 1)) + len(OTHERS), "no packet twice: no parents"


def test_round_trip_of_flows_in_tunnels(tmp_path: Path) -> None:
    tunnelled(tmp_path / "x.pcap")
    round_trip(tmp_path / "x.pcap", tmp_path / "flows.ipfix", "--decap")
    found, _ = flows("-r", str(tmp_path / "flows.ipfix"), "vni 100")
    assert {(flow["tunnel"], flow["packetTotalCount"], flow["octetTotalCount"]) for flow in found} == {
        ("vxlan", 2, 2 * len(INNER)), ("geneve", 5, 5 * len(INNER)), ("gre", 6, 6 * len(INNER)),
        ("erspan", 10, 10 * len(INNER)), ("mpls", 11, 11 * len(INNER))}


def test_an_export_filter_asks_for_a_vni_and_lines_tell_it(tmp_path: Path) -> None:
    tunnelled(tmp_path / "x.pcap")
    ipfix, lines = tmp_path / "flows.ipfix", tmp_path / "flows.jsonl"
    flows("-r", str(tmp_path / "x.pcap"), "--decap",
          "-e", f"file:{ipfix}", "--export-filter", "tunnel vxlan and vni 100",
          "-e", f"jsonl:{lines}", "--export-filter", "vni 100 and not tunnel vxlan")
    [kept], _ = flows("-r", str(ipfix))
    assert (kept["tunnel"], kept["tunnelId"], kept["packetTotalCount"]) == ("vxlan", 100, 2)
    table = run_flowtop("-b", "-r", ipfix, text=True, env=ENVIRONMENT | {"COLUMNS": "200"})
    assert table.returncode == 0, table.stderr
    header, flow = table.stdout.splitlines()[-2:]
    assert flow[header.index("TUNNEL"):].split()[0] == "vxlan" and flow[:header.index("VNI") + 3].split()[-1] == "100"
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {(flow["tunnel"], flow["tunnelId"]) for flow in told} == {(name, 100) for name in (
        "geneve", "gre", "erspan", "mpls")}
