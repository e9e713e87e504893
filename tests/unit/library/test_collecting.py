"""flowtop.Collector: messages made by struct, streams cut anywhere, time that is given, and whatever strangers send."""

from __future__ import annotations

import random
import struct

import pytest

import flowtop
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template
from tests.unit.library.captures import PACKETS

SOURCE = ("192.0.2.9", 2055)
MESSAGE = ipfix(template(256, FLOW), set_of(256, flow(1) + flow(2, packets=5)))
NETFLOW5 = struct.pack(">HHIIIIBBH", 5, 1, 60_000, int(NOW_S), 0, 10, 0, 0, 0) + struct.pack(
    ">4s4s4sHHIIIIHHBBBBHHBBH", bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes(4), 3, 4, 7, 700, 50_000, 59_000,
    1_000, 53, 0, 0, 17, 0, 0, 0, 0, 0, 0)


def collector(**settings: object) -> flowtop.Collector:
    return flowtop.Collector(clock=lambda: NOW_S, **settings)  # type: ignore[arg-type]


def test_ipfix_over_udp_is_a_table_to_ask() -> None:
    collecting = collector()
    assert collecting.receive(MESSAGE, SOURCE)
    assert {flow.destination: flow.packets for flow in collecting.table.query("tcp and dst port 443")} == {
        "10.1.0.1": 2, "10.1.0.2": 5}
    first = collecting.table.query(sort="packets", limit=1)[0]
    assert (first.exporter, first.interface, first.source_port) == ("192.0.2.9", "if3", 1_000)
    assert first.as_dict()["observationDomainId"] == 7
    assert (first.start_ms, first.end_ms) == (1_699_999_990_000, 1_699_999_999_000)
    assert collecting.table.books.accounted_packets == 7
    assert collecting.statistics == collecting.table.collecting
    assert (collecting.statistics.messages, collecting.statistics.records, collecting.statistics.exporters) == (1, 2, 1)


def test_netflow_5_and_sflow_are_told_apart() -> None:
    collecting = collector()
    assert collecting.receive(NETFLOW5, SOURCE)
    frame = PACKETS[0].frame()
    header = struct.pack(">IIII", 1, len(frame) + 4, 4, len(frame)) + frame + bytes(-len(frame) % 4)
    record = struct.pack(">II", 1, len(header)) + header
    sample = struct.pack(">IIIIIIII", 1, 3, 100, 100, 0, 3, 4, 1) + record
    sflow = struct.pack(">II4sIIII", 5, 1, bytes([192, 0, 2, 77]), 0, 1, 5_000, 1) + struct.pack(
        ">II", 1, len(sample)) + sample
    assert collecting.receive(sflow, ("192.0.2.10", 6343))
    udp, = collecting.table.query("udp")
    assert (udp.source, udp.destination, udp.packets, udp.bytes) == ("10.0.0.1", "10.0.0.2", 7, 700)
    assert (udp.end_ms - udp.start_ms, udp.end_ms) == (9_000, int(NOW_S) * 1000 - 1_000)
    tcp, = collecting.table.query("tcp")
    assert (tcp.exporter, tcp.packets, tcp.bytes) == ("192.0.2.77", 100, 100 * PACKETS[0].octets)
    assert collecting.statistics.sampling_interval == 100


def test_the_sampling_of_exporters_that_do_not_report_it() -> None:
    collecting = collector(sampling=100)
    assert collecting.receive(MESSAGE, SOURCE) and collecting.receive(NETFLOW5, ("192.0.2.10", 2055))
    assert collecting.connection(("192.0.2.11", 4739)).receive(MESSAGE)
    assert sorted(flow.packets for flow in collecting.table.query("")) == [200, 200, 500, 500, 700]
    reported = struct.pack(">IIII", 1, 2, 3, 400)
    assert collecting.receive(ipfix(template(256, ((8, 4), (12, 4), (2, 4), (34, 4))), set_of(256, reported[:12]
                                    + struct.pack(">I", 7))), ("192.0.2.12", 2055))
    assert [flow.packets for flow in collecting.table.query("exporter 192.0.2.12")] == [21]
    assert collecting.statistics.unknown_sampling == 0


@pytest.mark.parametrize("sampling", [-1, float("nan"), float("inf"), 1 << 25])
def test_a_sampling_interval_out_of_range_is_refused(sampling: float) -> None:
    with pytest.raises(flowtop.FlowtopError, match="sampling"):
        collector(sampling=sampling)


def test_reports_of_a_flow_add_up_and_gaps_are_counted() -> None:
    collecting = collector()
    collecting.receive(MESSAGE, SOURCE)
    assert len(collecting.table) == 2
    collecting.receive(ipfix(set_of(256, flow(1, packets=10)), sequence=7), SOURCE)
    one, = collecting.table.query("dst 10.1.0.1")
    assert (one.packets, one.as_dict()["packetDeltaCount"]) == (12, 10)
    assert collecting.statistics.lost_records == 5


@pytest.mark.parametrize("size", [1, 3, 16, 50, 1_000])
def test_a_stream_may_be_cut_anywhere(size: int) -> None:
    collecting = collector()
    connection = collecting.connection(("2001:db8::1", 40_000))
    stream = MESSAGE + ipfix(set_of(256, flow(3)), sequence=2)
    for start in range(0, len(stream), size):
        assert connection.receive(stream[start:start + size])
    connection.close()
    assert {flow.destination for flow in collecting.table.query()} == {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
    assert {flow.exporter for flow in collecting.table.query()} == {"2001:db8::1"}
    assert (collecting.statistics.refused_messages, collecting.statistics.exporters) == (0, 0)


def test_a_stream_that_is_none_is_over_and_half_a_message_is_counted() -> None:
    collecting = collector()
    connection = collecting.connection(SOURCE)
    assert not connection.receive(b"GET / HTTP/1.1\r\n")
    assert not connection.receive(MESSAGE), "whatever follows"
    half = collecting.connection(SOURCE)
    assert half.receive(MESSAGE[:-1])
    half.close()
    half.close()
    assert not half.receive(MESSAGE)
    assert dict(collecting.statistics.refused) == {"version": 1, "length": 1}
    assert len(collecting.table) == 0


def test_what_was_sent_long_ago_has_its_own_time() -> None:
    collecting = flowtop.Collector()
    assert len(collecting.table) == 0
    collecting.receive(MESSAGE, SOURCE, at=NOW_S)
    rows = collecting.table.query()
    assert rows.time_ms == NOW_S * 1000
    assert {flow.end_reason for flow in rows} == {0}, "it is a second after their last packet"
    collecting.receive(ipfix(sequence=2, at=int(NOW_S) + 200), SOURCE, at=NOW_S + 200)
    assert {flow.end_reason for flow in collecting.table.query()} == {1}, "idle for 90 seconds and more"
    assert collecting.statistics.corrected_clocks == 0


def test_clocks_that_are_far_off_are_moved_unless_not_wanted() -> None:
    for wanted in (True, False):
        collecting = flowtop.Collector(clock=lambda: NOW_S + 86_400, correct_clocks=wanted)
        collecting.receive(MESSAGE, SOURCE)
        start_ms = 1_699_999_990_000 + (86_400_000 if wanted else 0)
        assert {flow.start_ms for flow in collecting.table.query()} == {start_ms}
        assert collecting.statistics.corrected_clocks == wanted


def test_flows_that_have_ended_leave_after_a_while() -> None:
    now = [NOW_S]
    collecting = flowtop.Collector(clock=lambda: now[0], linger=30)
    collecting.receive(MESSAGE, SOURCE)
    seen = []
    for now[0] in (NOW_S, NOW_S + 100, NOW_S + 120, NOW_S + 131, NOW_S + 132):
        seen.append((len(collecting.table), {flow.end_reason for flow in collecting.table.query()}))
    assert seen == [(2, {0}), (2, {1}), (2, {1}), (0, set()), (0, set())]


def test_a_clock_that_goes_back_stands_still() -> None:
    now = [NOW_S]
    collecting = flowtop.Collector(clock=lambda: now[0])
    collecting.receive(MESSAGE, SOURCE)
    now[0] -= 3_600
    collecting.receive(ipfix(set_of(256, flow(4)), sequence=2), SOURCE)
    rows = collecting.table.query()
    assert (len(rows), rows.time_ms) == (3, NOW_S * 1000)


@pytest.mark.parametrize(("source", "exporter"), [
    (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"), (("fe80::1%eth0", 1, 0, 2), "fe80::1"),
    (("2001:DB8::1", 1), "2001:db8::1"),
])
def test_an_address_is_an_address_however_it_came(source: tuple[str, int], exporter: str) -> None:
    collecting = collector()
    collecting.receive(MESSAGE, source)
    assert {flow.exporter for flow in collecting.table.query()} == {exporter}


def test_a_source_that_is_no_address_is_refused() -> None:
    with pytest.raises(flowtop.FlowtopError, match="'router' is not an IP address"):
        collector().receive(MESSAGE, ("router", 2055))


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1.0, 1e12])
def test_a_time_that_is_none_is_refused(at: float) -> None:
    collecting = collector()
    with pytest.raises(flowtop.FlowtopError, match="is not a valid time"):
        collecting.receive(MESSAGE, SOURCE, at=at)
    assert (len(collecting.table), collecting.statistics.messages) == (0, 0)


def test_nothing_that_arrives_raises_and_all_of_it_is_counted() -> None:
    rng = random.Random(7)
    collecting = collector()
    seeds = [MESSAGE, NETFLOW5, ipfix(template(300, ((82, 65_535), (1, 8)), scope=1), set_of(300, b"\3abc" + bytes(8)))]
    for received in range(1, 3_001):
        octets = bytearray(rng.choice(seeds) if rng.random() < 0.9 else rng.randbytes(rng.randrange(80)))
        for _ in range(rng.randrange(4)):
            if octets:
                octets[rng.randrange(len(octets))] = rng.randrange(256)
        octets = octets[:rng.randrange(len(octets) + 1)] if rng.random() < 0.3 else octets
        accepted = collecting.receive(bytes(octets), ("192.0.2.1", rng.randrange(50)))
        figures = collecting.statistics
        assert figures.messages + figures.refused_messages == received
        assert accepted or figures.refused_messages
        if rng.random() < 0.02:
            books = collecting.table.books
            assert books.observed_packets == books.accounted_packets
            collecting.table.query("tcp", biflow=True).as_dicts()
