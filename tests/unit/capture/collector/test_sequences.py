"""Sequence numbers: gaps in the unit of each protocol, late messages, restarts, and exporters with several ports.

Expected values are what the simulated network has dropped.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sequences import SequenceTracker, Verdict
from flowtop.capture.collector.sessions import Session
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template

UDP = Session("udp", "192.0.2.1", True)
PORTS = tuple(Session(("192.0.2.1", port), "192.0.2.1", True) for port in (40_001, 40_002, 40_003))
SET = 256


def test_gaps_are_what_the_protocol_counts() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1) * 3)), UDP, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1) * 2), sequence=10), UDP, NOW_S)
    v9 = Session("v9", "192.0.2.9", True)
    for sequence in (5, 6, 9):
        process.receive(struct.pack(">HHIIII", 9, 0, 1000, int(NOW_S), sequence, 1), v9, NOW_S)
    v5 = Session("v5", "192.0.2.5", True)
    for sequence in (100, 102, 109):
        process.receive(struct.pack(">HHIIIIHH", 5, 2, 1000, int(NOW_S), 0, sequence, 0, 0) + bytes(96), v5, NOW_S)
    statistics = process.statistics()
    assert (statistics.lost_records, statistics.lost_messages, statistics.lost_flows) == (7, 2, 5)


def test_a_late_message_gives_back_what_it_was_counted_for() -> None:
    tracker = SequenceTracker()
    assert [tracker.see(sequence, 2, 100, None) for sequence in (0, 4, 2, 6)] == [
        Verdict(), Verdict(lost=2), Verdict(lost=-2, late=True), Verdict()]


def test_a_restart_is_no_loss() -> None:
    tracker = SequenceTracker()
    tracker.see(5_000, 1, 100, None)
    assert tracker.see(0, 1, 200, None).reset
    assert tracker.see(1 << 31, 1, 201, None).reset
    booted = SequenceTracker()
    booted.see(10, 1, 100, 1_000_000)
    assert booted.see(500, 1, 200, 1_190_000) == Verdict(reset=True)
    assert booted.see(501, 1, 201, 1_190_002) == Verdict()


def test_sequence_numbers_wrap() -> None:
    tracker = SequenceTracker()
    tracker.see((1 << 32) - 1, 3, 100, None)
    assert tracker.see(2, 1, 101, None) == Verdict()
    assert tracker.see(4, 1, 101, None) == Verdict(lost=1)


def test_after_a_set_nobody_could_count_the_next_number_says_nothing() -> None:
    tracker = SequenceTracker()
    tracker.see(0, None, 100, None)
    assert tracker.see(70, 1, 101, None) == Verdict()


@given(st.lists(st.tuples(st.integers(0, 1 << 32), st.one_of(st.none(), st.integers(0, 70_000)),
                          st.integers(0, 1 << 32), st.one_of(st.none(), st.integers(-(1 << 40), 1 << 42)))))
def test_no_sequence_gives_back_more_than_it_took(numbers: list[Any]) -> None:
    tracker, lost = SequenceTracker(), 0
    for sequence, units, export_time_s, boot_ms in numbers:
        lost += tracker.see(sequence % (1 << 32), units, export_time_s, boot_ms).lost
        assert lost >= 0


# ---- several ports

def message(version: int, sequence: int, records: int) -> bytes:
    data = set_of(SET, b"".join(flow(number) for number in range(records)))
    if version == 10:
        return ipfix(template(SET, FLOW), data, sequence=sequence)
    return struct.pack(">HHIIII", 9, 1 + records, 1_000, int(NOW_S), sequence, 7) + set_of(
        0, template(SET, FLOW)[4:]) + data


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize("one_sequence", [True, False])
@pytest.mark.parametrize("starts", [(0, 0, 0), (5, 70_000, 1 << 31)])
@pytest.mark.parametrize("ports", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_lost_between_several_ports_and_the_collector(version: int, one_sequence: bool,
                                                             starts: tuple[int, int, int], ports: int,
                                                             seed: int) -> None:
    """NetFlow 9 counts messages and IPFIX records: of each port, or over all ports."""
    rng = random.Random(seed)
    process = CollectingProcess()
    numbers = [starts[0]] if one_sequence else list(starts[:ports])
    gone, lost = [0] * len(numbers), 0
    seen = [False] * len(numbers)
    for _ in range(200):
        port = rng.randrange(ports)
        at = 0 if one_sequence else port
        records = rng.randrange(1, 4)
        units = records if version == 10 else 1
        if rng.random() < 0.1:
            gone[at] += units
        else:
            process.receive(message(version, numbers[at] % (1 << 32), records), PORTS[port], NOW_S)
            lost += gone[at] if seen[at] else 0
            gone[at], seen[at] = 0, True
        numbers[at] += units
    statistics = process.statistics()
    assert (statistics.lost_records, statistics.lost_messages) == ((lost, 0) if version == 10 else (0, lost))
    assert (statistics.late_messages, statistics.sequence_resets) == (0, 0)


@pytest.mark.parametrize("one_sequence", [True, False])
def test_messages_of_several_ports_overtake_each_other(one_sequence: bool) -> None:
    """Neighbours are swapped; each number arrives, so that nothing is lost."""
    process = CollectingProcess()
    sent = [(number % 2, number if one_sequence else 10_000 * (number % 2) + number // 2) for number in range(100)]
    for at in range(9, 90, 10):
        sent[at], sent[at + 2] = sent[at + 2], sent[at]  # of the same port
    for port, sequence in sent:
        process.receive(message(9, sequence, 1), PORTS[port], NOW_S)
    statistics = process.statistics()
    assert statistics.lost_messages == 0 and statistics.late_messages >= 9


@pytest.mark.parametrize("start", [0, 50, 100_000])
def test_an_exporter_that_goes_on_from_another_port_has_lost_nothing(start: int) -> None:
    """Restarted, or with the same sequence: the old port stays silent."""
    process = CollectingProcess()
    for sequence in range(50):
        process.receive(message(9, sequence, 1), PORTS[0], NOW_S)
    for sequence in range(start, start + 50):
        process.receive(message(9, sequence, 1), PORTS[1], NOW_S)
    statistics = process.statistics()
    assert statistics.lost_messages == 0
    process.receive(message(9, start + 53, 1), PORTS[1], NOW_S)
    assert process.statistics().lost_messages == 3


def test_exporters_protocols_and_domains_have_sequences_of_their_own() -> None:
    process = CollectingProcess()
    stranger = Session(("192.0.2.2", 40_001), "192.0.2.2", True)
    for step in range(20):
        process.receive(message(9, step, 1), PORTS[0], NOW_S)
        process.receive(message(10, 3 * step, 3), PORTS[0], NOW_S)
        process.receive(message(9, 1_000 + step, 1), stranger, NOW_S)
        process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1)), sequence=50_000 + step, domain=8), PORTS[0],
                        NOW_S)
    statistics = process.statistics()
    assert (statistics.lost_messages, statistics.lost_records, statistics.late_messages,
            statistics.sequence_resets) == (0, 0, 0, 0)


def test_sequences_of_a_session_end_with_it() -> None:
    process = CollectingProcess()
    for sequence in range(4):
        for port in PORTS[:2]:
            process.receive(message(9, sequence, 1), port, NOW_S)
    for port in PORTS:
        process.end(port)
    assert not len(process._sequences) and not process._sequences._numberings and not process._sequences._by_session


def sflow(agent: int, sequence: int, drops: int) -> bytes:
    """A datagram of a sub-agent 0 with one flow sample, of data source 5, without records."""
    sample = struct.pack(">IIIIIIII", sequence, 5, 100, 100 * sequence, drops, 1, 2, 0)
    return struct.pack(">IIIIIIII", 5, 1, agent, 0, sequence, 1_000 * sequence, 1, 1) + struct.pack(
        ">I", len(sample)) + sample


def test_agents_behind_one_proxy_are_told_apart() -> None:
    """sFlow counts datagrams and drops of a sub-agent: two agents, of which one has lost 2 datagrams and 30 packets."""
    process = CollectingProcess()
    for step in range(10):
        if step not in (4, 7):
            process.receive(sflow(1, 100 + step, 500 + (30 if step > 5 else 0)), UDP, NOW_S + step)
        process.receive(sflow(2, 90_000 + step, 7_000), UDP, NOW_S + step)
    statistics = process.statistics()
    assert (statistics.lost_messages, statistics.dropped_by_exporter) == (2, 30)
    assert (statistics.late_messages, statistics.sequence_resets) == (0, 0)


# ---- restarts (RFC 3954 section 9: a new Template overrides the one of before)

def rebooted(sequence: int, at_s: int, uptime_ms: int, *sets: bytes) -> bytes:
    return struct.pack(">HHIIII", 9, 1, uptime_ms, at_s, sequence, 7) + b"".join(sets)


OTHER = ((12, 4), (8, 4), *FLOW[2:])
"""The fields of FLOW with the addresses the other way round."""


def test_templates_outlive_a_reboot_until_the_exporter_sends_them_again() -> None:
    """RFC 3954 section 7: it has to do so before its first Data FlowSet. Sequence and uptime begin anew: no loss."""
    process = CollectingProcess()
    now = int(NOW_S)
    process.receive(rebooted(5_000, now, 90_000_000, set_of(0, template(SET, FLOW)[4:]), set_of(SET, flow(1))), UDP,
                    now)
    process.receive(rebooted(0, now + 60, 20_000, set_of(SET, flow(2))), UDP, now + 60)
    process.receive(rebooted(1, now + 61, 21_000, set_of(0, template(SET, OTHER)[4:]), set_of(SET, flow(3))), UDP,
                    now + 61)
    keys, _, _ = process.drain()
    assert [bytes(key["source_address"])[:4].hex() for key in keys] == ["0a000001", "0a000001", "0a010003"]
    statistics = process.statistics()
    assert (statistics.lost_messages, statistics.sequence_resets, statistics.waiting_sets) == (0, 1, 0)


@pytest.mark.parametrize("announced", [FLOW, OTHER])
def test_what_waited_at_a_reboot_is_not_read_with_the_next_template(announced: tuple[tuple[int, int], ...]) -> None:
    """Template ids are assigned anew; what waits since before is dropped, and counted."""
    process = CollectingProcess()
    now = int(NOW_S)
    process.receive(rebooted(5_000, now, 90_000_000, set_of(SET, flow(1))), UDP, now)
    assert process.statistics().waiting_sets == 1
    process.receive(rebooted(0, now + 60, 20_000, set_of(SET, flow(2))), UDP, now + 60)
    process.receive(rebooted(1, now + 61, 21_000, set_of(0, template(SET, announced)[4:])), UDP, now + 61)
    keys, _, _ = process.drain()
    assert len(keys) == 1, "what was sent after the reboot alone"
    statistics = process.statistics()
    assert (statistics.waiting_sets, statistics.dropped_sets, statistics.sequence_resets) == (0, 1, 1)
