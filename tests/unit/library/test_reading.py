"""flowtop.read: what can be read, what a table answers, and what is said of damage."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flowtop
from tests.prepared import run_flowtop
from tests.unit.capture.collector.exports import FLOW, flow, ipfix, set_of, template
from tests.unit.capture.files.writers import SECOND, enhanced, interface, pcap, section
from tests.unit.library.captures import CLIENT, FLOWS, PACKETS, SERVER, START_S, TRACE, udp


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.pcap"
    path.write_bytes(TRACE)
    return path


def flows_of(table: flowtop.Table) -> dict[tuple[str, str, int], tuple[int, int]]:
    return {(flow.source, flow.destination, flow.protocol): (flow.packets, flow.bytes) for flow in table.query()}


def test_every_way_of_naming_a_file_gives_the_same_flows(trace: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "trace.pcap.gz"
    zipped.write_bytes(gzip.compress(TRACE))
    assert flows_of(flowtop.read(trace)) == flows_of(flowtop.read(str(zipped))) == FLOWS
    with trace.open("rb") as opened:
        assert flows_of(flowtop.read(opened)) == FLOWS
    with gzip.open(zipped) as unzipped:
        assert flows_of(flowtop.read(unzipped)) == FLOWS


def test_a_file_object_is_read_from_where_it_stands_and_whatever_it_is() -> None:
    ahead = io.BytesIO(b"a header of mine" + TRACE)
    ahead.seek(16)
    assert flows_of(flowtop.read(ahead)) == FLOWS
    with bz2.open(io.BytesIO(bz2.compress(TRACE))) as unzipped:
        assert flows_of(flowtop.read(unzipped)) == FLOWS


def test_a_file_object_that_cannot_be_read_raises_flowtops_error() -> None:
    with gzip.open(io.BytesIO(gzip.compress(TRACE)[:-30])) as cut, bz2.open(io.BytesIO(b"BZh9" + bytes(40))) as damaged:
        for source in (cut, damaged):
            with pytest.raises(flowtop.FlowtopError, match="cannot read the file object"):
                flowtop.read(source)


def test_standard_input_is_a_dash() -> None:
    program = "import flowtop; print([flow.bytes for flow in flowtop.read('-').query()])"
    run = subprocess.run([sys.executable, "-c", program], input=TRACE, capture_output=True, check=True)
    assert json.loads(run.stdout) == sorted((octets for _, octets in FLOWS.values()), reverse=True)


def test_attributes_are_what_the_packets_said(trace: Path) -> None:
    table = flowtop.read(trace)
    to_server, = table.query(f"src {CLIENT} and tcp")
    assert (to_server.source_port, to_server.destination_port, to_server.ip_version) == (40_000, 443, 4)
    assert (to_server.start_ms, to_server.end_ms) == (START_S * 1000, START_S * 1000 + 1_500)
    assert to_server.duration_s == pytest.approx(1.5)
    assert to_server.tcp_flags == 0x02 | 0x18 | 0x11
    assert to_server.rtt_us == 10_000
    assert (to_server.interface, to_server.exporter, to_server.direction) == ("trace.pcap", "", "ingress")
    assert (to_server.vlan, to_server.dscp, to_server.ttl, to_server.tunnel, to_server.tunnel_id) == (0, 0, 64, "", 0)
    assert (to_server.duplicate, to_server.icmp, to_server.retransmits, to_server.out_of_order) == (False, None, 0, 0)
    assert to_server.bytes_per_s == pytest.approx(to_server.bytes / 3.0), "of the file's three seconds"
    ping, = table.query("icmp")
    assert (ping.icmp, ping.source_port, ping.destination_port) == ((8, 0), 0, 0)
    six, = table.query("ip6")
    assert (six.source, six.destination, six.ip_version) == ("2001:db8::1", "2001:db8::7", 6)
    assert repr(six) == "<Flow 17 [2001:db8::1]:1000 > [2001:db8::7]:2000 1 packets 148 bytes>"


def without_numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what is numbered anew in each run."""
    return [{name: value for name, value in row.items() if name != "flowId"} for row in rows]


@pytest.mark.parametrize(("options", "kind", "query"), [
    ([], "flows", {}), (["-g", "source,protocol"], "groups", {"group": "source,protocol"}),
    (["-B"], "biflows", {"biflow": True}),
])
def test_dicts_are_those_of_json_output(trace: Path, options: list[str], kind: str, query: dict[str, Any]) -> None:
    run = run_flowtop("-b", "-o", "json", "-r", trace, "-s", "bytes", *options)
    rows = flowtop.read(trace).query(**query).as_dicts()
    assert without_numbers(rows) == without_numbers(json.loads(run.stdout)[kind])
    assert rows


def test_a_query_sorts_limits_and_counts_what_it_left_out(trace: Path) -> None:
    table = flowtop.read(trace)
    sizes = sorted((octets for _, octets in FLOWS.values()), reverse=True)
    rows = table.query(limit=2, offset=1)
    assert [row.bytes for row in rows] == sizes[1:3]
    assert (rows.matched, rows.matched_flows, len(rows), len(table)) == (len(FLOWS), len(FLOWS), 2, len(FLOWS))
    assert rows.time_ms == START_S * 1000 + 3_000
    assert [row.bytes for row in table.query(descending=False)] == sizes[::-1]
    assert [row.packets for row in table.query(sort="packets", limit=1)] == [3]
    assert rows[-1].bytes == sizes[2]
    assert [row.bytes for row in rows[:1]] == sizes[1:2]
    assert table.query("tcp and udp")[:] == ()


def test_groups_and_biflows_are_sums_of_their_flows(trace: Path) -> None:
    table = flowtop.read(trace)
    by_protocol = {group.key["protocolIdentifier"]: (group.flows, group.packets, group.bytes)
                   for group in table.query(group="protocol")}
    assert by_protocol == {
        protocol: (sum(key[2] == protocol for key in FLOWS), sum(packet.protocol == protocol for packet in PACKETS),
                   sum(packet.octets for packet in PACKETS if packet.protocol == protocol)) for protocol in (1, 6, 17)}
    assert {tuple(group.key) for group in table.query(group=["source", "protocol"])} == {
        ("sourceIPv4Address", "protocolIdentifier"), ("sourceIPv6Address", "protocolIdentifier")}
    biflow, = table.query("tcp and port 40000", biflow=True)
    assert biflow.reverse is not None
    assert (biflow.forward.source, biflow.reverse.source, biflow.initiator_known) == (CLIENT, SERVER, True)
    assert (biflow.forward.bytes, biflow.reverse.bytes) == (FLOWS[CLIENT, SERVER, 6][1], FLOWS[SERVER, CLIENT, 6][1])
    assert biflow.bytes == biflow.forward.bytes + biflow.reverse.bytes
    alone, = table.query("udp and ip6", biflow=True)
    assert alone.reverse is None


@pytest.mark.parametrize(("arguments", "words"), [
    ({"filter": "tcp adn udp"}, "adn"), ({"sort": "bites"}, "bites"), ({"group": "colour"}, "colour"),
    ({"group": "source", "biflow": True}, "not both"), ({"limit": -1}, "limit"), ({"offset": -1}, "offset"),
    ({"filter": "(" * 5_000}, ""),
])
def test_a_question_that_means_nothing_raises_flowtops_error(trace: Path, arguments: dict[str, Any],
                                                                 words: str) -> None:
    with pytest.raises(flowtop.FlowtopError) as caught:
        flowtop.read(trace).query(**arguments)
    assert words in caught.value.message
    assert isinstance(caught.value, flowtop.FilterError) == ("filter" in arguments)


def test_the_books_balance_and_name_what_is_in_no_flow(tmp_path: Path) -> None:
    arp = b"\xff" * 6 + bytes(6) + b"\x08\x06" + bytes(28)
    path = tmp_path / "arp.pcap"
    path.write_bytes(pcap([(START_S * SECOND, PACKETS[0].frame()), (START_S * SECOND, arp)]))
    books = flowtop.read(path).books
    assert (books.observed_packets, books.accounted_packets, books.ignored_packets) == (2, 1, 1)


def test_damage_is_told_and_what_came_before_it_is_there(trace: Path) -> None:
    trace.write_bytes(TRACE[:-10])
    table = flowtop.read(trace)
    assert table.books.observed_packets == len(PACKETS) - 1
    assert table.fault is not None
    assert "cut off" in table.fault.message
    with pytest.raises(flowtop.FlowtopError, match="cut off"):
        flowtop.read(trace, strict=True)
    trace.write_bytes(TRACE)
    assert flowtop.read(trace, strict=True).fault is None


@pytest.mark.parametrize("octets", [b"", b"\0" * 100, b"GIF89a" + bytes(60), TRACE[:10]])
def test_what_is_no_capture_raises_flowtops_error(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(octets)
    for source in (path, io.BytesIO(octets)):
        with pytest.raises(flowtop.FlowtopError):
            flowtop.read(source)
    for missing in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(flowtop.FlowtopError, match="cannot read"):
            flowtop.read(missing)


def test_decap_looks_into_tunnels(tmp_path: Path) -> None:
    outer = PACKETS[0].__class__(0.0, "192.0.2.1", "192.0.2.2", 17,
                                 udp(1, 4789, struct.pack(">BxxxI", 8, 100 << 8) + PACKETS[0].frame()))
    path = tmp_path / "vxlan.pcap"
    path.write_bytes(pcap([(START_S * SECOND, outer.frame())]))
    inner, = flowtop.read(path, decap=True).query("tcp")
    assert (inner.source, inner.tunnel, inner.tunnel_id, inner.bytes) == (CLIENT, "vxlan", 100, 40)
    carrier, = flowtop.read(path, decap=True).query("udp")
    assert (carrier.source, carrier.parent, inner.parent) == ("192.0.2.1", True, False)
    plain, = flowtop.read(path).query()
    assert (plain.source, plain.tunnel, plain.bytes) == ("192.0.2.1", "", outer.octets)


def test_ports_of_tunnels_are_added(tmp_path: Path) -> None:
    outer = PACKETS[0].__class__(0.0, "192.0.2.1", "192.0.2.2", 17,
                                 udp(1, 51234, struct.pack(">BxxxI", 8, 100 << 8) + PACKETS[0].frame()))
    path = tmp_path / "vxlan.pcap"
    path.write_bytes(pcap([(START_S * SECOND, outer.frame())]))
    inner, = flowtop.read(path, decap=True, tunnel_ports={51234: "vxlan"}).query("tcp")
    assert (inner.source, inner.tunnel, inner.tunnel_id, inner.bytes) == (CLIENT, "vxlan", 100, 40)
    assert [flow.tunnel for flow in flowtop.read(path, decap=True).query()] == [""]
    with pytest.raises(flowtop.FlowtopError, match="has no UDP port"):
        flowtop.read(path, decap=True, tunnel_ports={51234: "gre"})


def test_flows_past_max_flows_end_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "many.pcap"
    frames = [(START_S * SECOND + port, PACKETS[0].__class__(0, CLIENT, SERVER, 17, udp(port, 53, b"")).frame())
              for port in range(1, 101)]
    path.write_bytes(pcap(frames, nano=True))
    table = flowtop.read(path, max_flows=10)
    assert (len(table), table.books.evicted_flows, table.books.accounted_packets) == (100, 90, 100)
    assert {flow.end_reason for flow in table.query()} == {4, 5}


def test_time_outs_cut_flows_where_they_are_set(tmp_path: Path) -> None:
    path = tmp_path / "pause.pcap"
    path.write_bytes(pcap([(at * SECOND, PACKETS[0].frame()) for at in (START_S, START_S + 20)]))
    assert [flow.packets for flow in flowtop.read(path).query()] == [1, 1]
    assert [flow.packets for flow in flowtop.read(path, idle_timeout=30).query()] == [2]


def test_duplicates_of_two_interfaces_are_marked_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "two.pcapng"
    frame = PACKETS[0].frame()
    path.write_bytes(section() + interface(name="eth0") + interface(name="br0")
                     + b"".join(enhanced(START_S * 1_000_000 + at, frame, number=number)
                                for at in (0, 1_000_000) for number in (0, 1)))
    table = flowtop.read(path)
    assert sorted(flow.interface for flow in table.query()) == ["br0", "eth0"]
    assert [flow.duplicate for flow in table.query()].count(True) == 1
    assert table.books.duplicate_packets == 2
    assert len(flowtop.read(path, dedupe="drop")) == 1


def test_an_ipfix_file_is_read_and_says_what_was_refused(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix"
    path.write_bytes(ipfix(template(256, FLOW), set_of(256, flow(1) + flow(2, packets=9)))
                     + ipfix(set_of(257, bytes(40)), sequence=2))
    table = flowtop.read(path)
    assert sorted(flow.packets for flow in table.query()) == [2, 9]
    assert table.collecting is not None
    assert (table.collecting.messages, table.collecting.records, table.collecting.waiting_sets) == (2, 2, 1)
    assert table.fault is not None
    assert "1 sets without template" in table.fault.message


def test_export_messages_are_found_in_captures_and_in_files(tmp_path: Path) -> None:
    message = ipfix(template(256, FLOW), set_of(256, flow(1)))
    carried = PACKETS[0].__class__(0.0, "192.0.2.9", "192.0.2.10", 17, udp(3_000, 4739, message))
    path = tmp_path / "export.pcap"
    path.write_bytes(pcap([(START_S * SECOND, carried.frame())]))
    found, = flowtop.read_exports(path)
    assert found == (message, ("192.0.2.9", 3_000), ("192.0.2.10", 4739), True, False)
    first, second = flowtop.read_exports(io.BytesIO(message + message))
    assert first == second == (message, None, None, False, False)
    six = PACKETS[0].__class__(0.0, "2001:db8::9", "2001:db8::10", 17, udp(3_000, 4739, message))
    path.write_bytes(pcap([(START_S * SECOND, six.frame())]))
    assert [message.sender for message in flowtop.read_exports(path)] == [("2001:db8::9", 3_000)]
    with pytest.raises(flowtop.FlowtopError):
        list(flowtop.read_exports(io.BytesIO(b"")))


@pytest.mark.parametrize("arguments", [{"idle_timeout": 0}, {"idle_timeout": float("nan")}, {"active_timeout": -1},
                                       {"active_timeout": float("inf")}, {"max_flows": 0}, {"dedupe": "maybe"}])
def test_a_bound_that_cannot_be_raises_flowtops_error(trace: Path, arguments: dict[str, Any]) -> None:
    for use in (lambda: flowtop.read(trace, **arguments), lambda: flowtop.Collector(**arguments)):
        with pytest.raises(flowtop.FlowtopError, match=next(iter(arguments))):
            use()


def test_damaged_files_are_read_as_far_as_they_go_or_refused(tmp_path: Path) -> None:
    rng = random.Random(11)
    frames = b"".join(enhanced(START_S * 1_000_000, packet.frame()) for packet in PACKETS)
    seeds = [TRACE, section() + interface(name="eth0") + frames, gzip.compress(TRACE),
             ipfix(template(256, FLOW), set_of(256, flow(1) + flow(2)))]
    path = tmp_path / "damaged"
    refused = 0
    for _ in range(150):
        octets = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        path.write_bytes(octets[:rng.randrange(len(octets) + 1)] if rng.random() < 0.3 else octets)
        try:
            table = flowtop.read(path, decap=rng.random() < 0.5)
            rows = table.query(biflow=rng.random() < 0.5)  # type: ignore[call-overload]
            list(flowtop.read_exports(path))
        except flowtop.FlowtopError:
            refused += 1
            continue
        assert table.books.observed_packets == table.books.accounted_packets + table.books.ignored_packets
        assert len(rows.as_dicts()) == rows.matched
    assert 0 < refused < 150


def test_a_capture_without_ip_packets_is_an_empty_table(tmp_path: Path) -> None:
    """Thirty ARP requests, one a second."""
    arp = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x08\x06" + bytes(28)
    path = tmp_path / "arp.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(
        struct.pack("<IIII", 1_700_000_000 + second, 0, len(arp), len(arp)) + arp for second in range(30)))
    table = flowtop.read(path)
    assert (len(table), table.fault) == (0, None)
    assert (table.books.observed_packets, table.books.ignored_packets) == (30, 30)


def test_what_cannot_be_asked_is_a_flowtop_error(tmp_path: Path) -> None:
    closed = (tmp_path / "x").open("wb+")
    closed.close()
    with pytest.raises(flowtop.FlowtopError, match="cannot read the file object"):
        flowtop.read(closed)
    with pytest.raises(flowtop.FlowtopError, match="cannot read the file object"):
        next(flowtop.read_exports(closed))
    with pytest.raises(flowtop.FlowtopError, match="max_flows"):
        flowtop.read("x", max_flows=1.5)  # type: ignore[arg-type]
    table = flowtop.Collector().table
    with pytest.raises(flowtop.FlowtopError, match=r"limit is 1\.5"):
        table.query(limit=1.5)  # type: ignore[call-overload]
    with pytest.raises(flowtop.FlowtopError, match="names of hosts"):
        table.query("name ~ example")
