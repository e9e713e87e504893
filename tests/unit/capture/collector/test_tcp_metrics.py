"""What exporters have measured of TCP: from octets on the wire to JSON, filters and totals."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from flowtop import Collector
from flowtop.capture.files.messages import Payload
from flowtop.output.dump import entries, entry_text
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template
from tests.unit.capture.collector.test_reported import BASE, SET, base, flows, netflow9, netflow9_template, one
from tests.unit.capture.collector.test_sflow import datagram, frame, raw_header, sample
from tests.unit.capture.collector.test_sflow_records import record, words

NTOP, IXIA, NETOBSERV = 35632, 3054, 2
RTT, RETRANSMITTED, OUT_OF_ORDER, WINDOW = (
    "tcpRoundTripMicroseconds", "tcpRetransmittedSegments", "tcpOutOfOrderSegments", "tcpCongestionWindowSegments")
UNKNOWN, RECEIVED, SENT = range(3)
"""packet_direction of sFlow."""


def measured(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (RTT, RETRANSMITTED, OUT_OF_ORDER, WINDOW) if name in row}


IPFIX: list[tuple[Sequence[tuple[int, int, int]], bytes, dict[str, Any], str]] = [
    # Halves of the two parts of the way: 2 * (40 ms + 12 ms).
    ([(123, 4, NTOP), (124, 4, NTOP)], struct.pack(">II", 40, 12), {RTT: 104_000}, "rtt > 100ms"),
    ([(123, 4, NTOP), (124, 4, NTOP)], struct.pack(">II", 0, 50), {RTT: 100_000}, "rtt >= 100ms and rtt < 101ms"),
    ([(123, 4, NTOP), (124, 4, NTOP)], bytes(8), {}, "not rtt >= 0s"),
    ([(123, 4, NTOP)], struct.pack(">I", 40), {}, "not rtt >= 0s"),
    ([(109, 4, NTOP), (110, 4, NTOP)], struct.pack(">II", 7, 9), {RETRANSMITTED: 7}, "retransmits 7"),
    ([(111, 4, NTOP), (112, 4, NTOP)], struct.pack(">II", 3, 5), {OUT_OF_ORDER: 3}, "outoforder"),
    ([(111, 2, NTOP)], struct.pack(">H", 3), {OUT_OF_ORDER: 3}, "outoforder = 3"),
    ([(283, 4, IXIA), (282, 4, IXIA)], struct.pack(">II", 1234, 6), {RTT: 1234, RETRANSMITTED: 6},
     "rtt > 1.2ms and retransmits 6"),
    ([(7740, 8, NETOBSERV)], struct.pack(">Q", 7_114_000), {RTT: 7_114}, "rtt > 7ms"),
    ([(7740, 8, NETOBSERV)], struct.pack(">Q", 999), {RTT: 1}, "rtt > 0s"),
    ([(7740, 8, NETOBSERV)], struct.pack(">Q", 5_000_000_000_000), {RTT: 0xFFFF_FFFF}, "rtt > 1h"),
    ([(7740, 8, NETOBSERV)], bytes(8), {}, "not rtt >= 0s"),
    # Numbers of other enterprises, and of IANA, are other elements.
    ([(109, 4, 9), (7740, 8, 3), (283, 4, 29305)], struct.pack(">IQI", 7, 7_000_000, 7), {}, "not retransmits"),
]


@pytest.mark.parametrize(("fields", "octets", "values", "filter_"), IPFIX)
def test_elements_of_ipfix(fields: Sequence[tuple[int, int, int]], octets: bytes, values: dict[str, Any],
                           filter_: str) -> None:
    collector = flows(fields, octets)
    assert measured(one(collector)) == values
    assert measured(one(collector, filter_)) == values


def test_elements_of_ntop_in_netflow_9() -> None:
    """Field types 57472 + n, as nProbe documents them: 57595 is 35632.123."""
    fields = (*BASE, (57_581, 4), (57_582, 4), (57_583, 4), (57_584, 4), (57_595, 4), (57_596, 4))
    data = base() + struct.pack(">6I", 2, 3, 4, 5, 20, 60)
    collector = Collector(clock=lambda: NOW_S)
    assert collector.receive(netflow9(netflow9_template(SET, fields), set_of(SET, data)), ("192.0.2.1", 2055))
    assert measured(one(collector)) == {RTT: 160_000, RETRANSMITTED: 2, OUT_OF_ORDER: 4}


def test_counts_of_records_add_up_and_times_are_the_latest() -> None:
    """Each record has the segments of its own time, as its packets are."""
    fields = (*BASE, (109, 4, NTOP), (111, 4, NTOP), (283, 4, IXIA))
    collector = Collector(clock=lambda: NOW_S)
    for counts in ((2, 1, 900), (5, 0, 700), (0, 4, 0)):
        message = ipfix(template(SET, fields), set_of(SET, base() + struct.pack(">III", *counts)))
        assert collector.receive(message, ("192.0.2.1", 4739))
    both = set_of(SET, b"".join(base() + struct.pack(">III", 1, 1, rtt) for rtt in (650, 600)))
    assert collector.receive(ipfix(both), ("192.0.2.1", 4739))
    assert measured(one(collector)) == {RTT: 600, RETRANSMITTED: 2 + 5 + 2, OUT_OF_ORDER: 1 + 4 + 2}


def test_a_bidirectional_record_has_counts_of_both_directions() -> None:
    """initiatorPackets and responderPackets (298, 299): OUT is the way back."""
    fields = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (298, 8), (299, 8), (231, 8), (232, 8), (109, 4, NTOP),
              (110, 4, NTOP), (111, 4, NTOP), (112, 4, NTOP), (123, 4, NTOP), (124, 4, NTOP))
    data = b"\x0a\0\0\1\x0a\0\0\2" + struct.pack(">HHBQQQQ6I", 1000, 443, 6, 5, 6, 700, 800, 1, 2, 3, 4, 10, 20)
    collector = Collector(clock=lambda: NOW_S)
    assert collector.receive(ipfix(template(SET, fields), set_of(SET, data)), ("192.0.2.1", 4739))
    assert measured(one(collector, "src port 1000")) == {RTT: 60_000, RETRANSMITTED: 1, OUT_OF_ORDER: 3}
    assert measured(one(collector, "src port 443")) == {RTT: 60_000, RETRANSMITTED: 2, OUT_OF_ORDER: 4}


def test_records_with_and_without_measurements_come_together() -> None:
    """Templates of one exporter may differ; nothing of one is in flows of the other."""
    collector = Collector(clock=lambda: NOW_S)
    for number, fields, octets in ((300, ((16, 4),), struct.pack(">I", 64500)),
                                   (301, ((283, 4, IXIA),), struct.pack(">I", 5_000)), (302, (), b"")):
        message = ipfix(template(number, (*BASE, *fields)), set_of(number, base(number - 299) + octets))
        assert collector.receive(message, ("192.0.2.1", 4739))
    rows = {row["destinationIPv4Address"]: row for row in collector.table.query().as_dicts()}
    assert [measured(rows[f"10.1.0.{number}"]) for number in (1, 2, 3)] == [{}, {RTT: 5_000}, {}]
    assert [rows[f"10.1.0.{number}"].get("bgpSourceAsNumber") for number in (1, 2, 3)] == [64500, None, None]


# ---- sFlow


def tcp_info(direction: int, *, rtt: int = 25_300, window: int = 10, retransmitted: int = 3) -> bytes:
    """extended_tcp_info, format 2209 (host-sflow): direction, both segment sizes, unacknowledged, lost, retransmitted,
    path MTU, round-trip time and its variance in us, congestion window, reordering, least round-trip time."""
    return record(2209, words(direction, 1448, 536, 2, 1, retransmitted, 1500, rtt, 4_000, window, 3, 20_000))


SFLOW: list[tuple[int, dict[str, Any]]] = [
    (SENT, {RTT: 25_300, RETRANSMITTED: 3, WINDOW: 10}),
    # The socket's window and what it has sent again are about the other direction.
    (RECEIVED, {RTT: 25_300}), (UNKNOWN, {RTT: 25_300}),
]


@pytest.mark.parametrize(("direction", "values"), SFLOW)
def test_tcp_info_of_sflow(direction: int, values: dict[str, Any]) -> None:
    collector = Collector(clock=lambda: NOW_S)
    packet = raw_header(frame())
    assert collector.receive(datagram(sample(tcp_info(direction), packet)), ("192.0.2.1", 6343))
    assert measured(one(collector)) == values
    assert measured(one(collector, "rtt > 25ms and rtt < 26ms")) == values


def test_flowtop_dump_shows_all_of_tcp_info() -> None:
    octets = datagram(sample(tcp_info(SENT), raw_header(frame())))
    [entry] = entries([Payload(octets, "a", "b", True)])
    text = entry_text(entry, "text")
    for value in ("sendMaxSegment", "1448", "rttMicroseconds", "25300", "leastRttMicroseconds", "20000"):
        assert value in text


def test_a_tcp_info_that_is_cut_off_says_nothing() -> None:
    collector = Collector(clock=lambda: NOW_S)
    short = record(2209, words(SENT, 1448, 536, 2, 1, 3))
    assert collector.receive(datagram(sample(short, raw_header(frame()))), ("192.0.2.1", 6343))
    assert measured(one(collector)) == {}


def test_the_latest_tcp_info_counts_and_its_retransmissions_are_a_total() -> None:
    collector = Collector(clock=lambda: NOW_S)
    for rtt, window, retransmitted in ((30_000, 10, 3), (20_000, 5, 8)):
        info = tcp_info(SENT, rtt=rtt, window=window, retransmitted=retransmitted)
        assert collector.receive(datagram(sample(info, raw_header(frame()))), ("192.0.2.1", 6343))
    assert measured(one(collector)) == {RTT: 20_000, RETRANSMITTED: 8, WINDOW: 5}
