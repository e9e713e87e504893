"""States of connections in engineers' words, and what is coloured: expected by hand for each set of flags."""

from __future__ import annotations

import pytest

from flowtop.fields.columns import Wording
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS
from flowtop.model.rows import FlowRow, Ways
from flowtop.text.lookups import NO_LOOKUPS
from tests.unit.factories import ACK, FIN, PSH, RST, SYN, flow_row

STATE = COLUMNS["state"]


def text(row: FlowRow) -> str:
    return STATE.text(row, Wording(), NO_LOOKUPS)


@pytest.mark.parametrize(("bits", "age_s", "idle_s", "wanted"), [
    (SYN, 0.0, 0.0, "SYN"), (SYN, 0.0, 2.9, "SYN"), (SYN, 0.0, 3.0, "NO REPLY"), (SYN, 3.0, 0.0, "NO REPLY"),
    (SYN | ACK, 0.0, 60.0, "EST"), (SYN | ACK | PSH, 60.0, 0.0, "EST"), (ACK, 0.0, 0.0, "EST"),
    (SYN | ACK | FIN, 1.0, 0.0, "FIN"), (FIN | ACK | RST, 1.0, 0.0, "RST"), (RST, 0.0, 0.0, "RST"),
    (SYN | RST, 0.0, 9.0, "RST"), (0, 0.0, 9.0, "·"),
])
def test_of_tcp(bits: int, age_s: float, idle_s: float, wanted: str) -> None:
    assert text(flow_row(tcp_control_bits=bits, age_s=age_s, idle_s=idle_s)) == wanted


def test_of_what_has_ended_how_it_ended_where_that_is_worth_a_word() -> None:
    ended = {"end_reason": 1, "idle_s": 15.0}
    assert [text(flow_row(tcp_control_bits=bits, **ended)) for bits in (SYN, RST | ACK, FIN | ACK, ACK, 0)] == [
        "NO REPLY", "RST", "end", "end", "end"]


def test_other_protocols_have_none_but_a_ping_without_an_answer() -> None:
    assert text(flow_row(protocol=17, idle_s=9.0)) == "·"
    ping = flow_row(protocol=1, destination_port=8 << 8, idle_s=4.0)
    alone, answered = Ways(ping, None, opened=True), Ways(ping, ping, opened=True)
    assert text(ping._replace(ways=alone)) == "NO REPLY"
    assert text(ping._replace(ways=answered)) == text(ping._replace(ways=alone, idle_s=1.0)) == "·"
    udp = ping._replace(protocol=17, ways=Ways(ping, None, opened=False))
    assert text(udp) == "·", "who does not have to answer is not blamed"


def test_where_it_is_narrow() -> None:
    row = flow_row(tcp_control_bits=SYN, idle_s=5.0)
    assert STATE.cell(row, Wording(), NO_LOOKUPS, 3) == "N/R"
    assert STATE.cell(row, Wording(), NO_LOOKUPS, 8) == "NO REPLY"
    assert BIFLOW_COLUMNS["state"] is STATE


def severity(column: str, row: FlowRow) -> int:
    of = COLUMNS[column].severity
    assert of is not None
    return of(row)


def test_what_is_bad_has_a_colour() -> None:
    states = {"EST": 0, "·": 0, "FIN": 1, "SYN": 2, "RST": 3, "NO REPLY": 3}
    for bits, idle_s in ((ACK, 0.0), (0, 0.0), (FIN, 0.0), (SYN, 0.0), (RST, 0.0), (SYN, 5.0)):
        row = flow_row(tcp_control_bits=bits, idle_s=idle_s)
        assert severity("state", row) == states[text(row)]


@pytest.mark.parametrize(("rtt_ms", "wanted"), [(0, 0), (99, 0), (100, 2), (299, 2), (300, 3), (4_000, 3)])
def test_round_trips_by_length(rtt_ms: int, wanted: int) -> None:
    assert severity("rtt", flow_row(rtt_us=1_000 * rtt_ms)) == wanted


@pytest.mark.parametrize(("again", "packets", "wanted"), [
    (0, 100, 0), (2, 3, 0), (3, 1_000, 0), (10, 1_000, 2), (49, 1_000, 2), (50, 1_000, 3), (900, 1_000, 3)])
def test_retransmits_by_their_part_of_the_packets(again: int, packets: int, wanted: int) -> None:
    assert severity("retransmits", flow_row(retransmitted=again, packet_total=packets)) == wanted
