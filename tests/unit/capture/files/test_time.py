"""The clock of a replay is the file's: where ticks end, when flows do, and how fast it goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import Read, read, read_table

S = w.SECOND
T = 1_700_000_000 * S


def frame(port: int = 1) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.udp(port, 2, bytes(50)), f.UDP))


def read_times(path: Path, *times_s: float, tick_s: float | None = 1.0) -> Read:
    path.write_bytes(w.pcap([(T + round(time_s * 1000) * (S // 1000), frame()) for time_s in times_s]))
    return read(path, FileConfig(str(path), tick_s))


def ticks(found: Read) -> list[tuple[float, int]]:
    """(seconds since the first packet, packets) of each tick."""
    out, packets = [], 0
    for batch in found.batches:
        packets += int(batch.counters["packets"].sum())
        if batch.source and batch.source.closes_tick:
            out.append(((batch.now_ns - T) / S, packets))
            packets = 0
    return out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x"


def test_ticks_end_by_the_time_of_the_file(path: Path) -> None:
    assert ticks(read_times(path, 0, 0.5, 0.999, 1.0, 1.5, 2.5)) == [(1.0, 3), (2.0, 2), (2.5, 1)]


def test_progress_goes_on_within_what_was_read_at_once(path: Path) -> None:
    found = read_times(path, *range(0, 100, 10))
    told = [batch.source.octets_read for batch in found.batches if batch.source and len(batch.counters)]
    assert told[-1] == path.stat().st_size
    assert told == sorted(set(told)) and len(told) == 10, "ten packets, each another step"


def test_a_stretch_without_packets_is_one_tick(path: Path) -> None:
    assert ticks(read_times(path, 0, 100_000.5)) == [(1.0, 1), (100_000.0, 0), (100_000.5, 1)]


def test_a_whole_file_can_be_one_tick(path: Path) -> None:
    assert ticks(read_times(path, 0, 5, 100_000.5, tick_s=None)) == [(100_000.5, 3)]


def test_long_ticks_are_handed_over_in_parts(path: Path) -> None:
    found = read_times(path, *range(61), tick_s=30)
    assert ticks(found) == [(30.0, 30), (60.0, 30), (60.0, 1)]
    assert len(found.batches) > 30


def test_times_that_go_back_are_part_of_the_open_tick(path: Path) -> None:
    found = read_times(path, 10, 3, 10.5, 11.5, -5000, 12.5)
    assert [packets for _, packets in ticks(found)] == [3, 2, 1]
    assert all(batch.now_ns >= batch.counters["last_ns"].max(initial=0) for batch in found.batches)
    assert all((batch.counters["last_ns"] >= batch.counters["first_ns"]).all() for batch in found.batches)


def test_flows_end_by_the_time_of_the_file(path: Path) -> None:
    table = FlowTable(TableConfig(idle_timeout_s=15, active_timeout_s=60))
    records = [record for batch in read_times(path, 0, 5, 30, 31, tick_s=None).batches
               for record in table.accumulate(batch).tolist()]
    assert len(records) == 1, "the flow before the pause"
    assert table.live_flows == 1


def test_a_replay_waits_until_a_tick_is_over(path: Path) -> None:
    path.write_bytes(w.pcap([(T, frame()), (T + 3 * S, frame())]))
    now = 0
    capture = FileCapture(FileConfig(str(path), tick_s=1, speed=2.0), clock_ns=lambda: now)
    capture.open(lambda _: None)
    closed = []
    capture.drain()  # reads; the first step is over half a second after it began
    for now in range(0, 2 * S, S // 8):
        while capture._due_s() == 0:
            batch = capture.drain()
            if batch.source and batch.source.closes_tick:
                closed.append(now / S)
            if batch.source and batch.source.ended:
                break
    capture.close()
    assert closed[:3] == [0.5, 1.0, 1.5]


def test_the_time_of_a_pipe_goes_on_and_never_back_when_packets_come_late() -> None:
    """At 0 s a packet; silence; at 3.5 s two that were held back since 0.6 s and 3.2 s."""
    now = 0.0
    incoming, outgoing = os.pipe()
    capture = FileCapture(FileConfig("-", tick_s=1, descriptor=incoming), clock_ns=lambda: round(now * S),
                          unix_ns=lambda: T + round(now * S))
    octets = w.pcap([(T, frame()), (T + 6 * S // 10, frame()), (T + 32 * S // 10, frame())])
    second, third = len(octets) - 2 * (16 + len(frame())), len(octets) - (16 + len(frame()))
    capture.open(lambda _: None)
    times = []

    def drain(*, until: float) -> None:
        for _ in range(20):
            batch = capture.drain()
            times.append((batch.now_ns - T) / S)
            if times[-1] >= until:
                return

    os.write(outgoing, octets[:second])
    drain(until=0)
    now = 2.5
    drain(until=2)
    os.write(outgoing, octets[second:third])
    drain(until=2)
    now = 3.5
    os.write(outgoing, octets[third:])
    os.close(outgoing)
    drain(until=3.2)
    capture.close()
    assert times == sorted(times)
    assert {0.0, 2.0, 3.2} <= set(times)


def test_waiting_ends_when_woken(path: Path) -> None:
    path.write_bytes(w.pcap([(T, frame()), (T + 3000 * S, frame())]))
    capture = FileCapture(FileConfig(str(path), tick_s=1, speed=1.0))
    capture.open(lambda _: None)
    capture.drain()
    capture.wake()
    capture.wait(3600)
    capture.close()


def test_time_that_has_passed_does_not_come_back_with_packets_that_come_late() -> None:
    inlet, outlet = os.pipe()
    now = 0
    capture = FileCapture(FileConfig("-", tick_s=1, descriptor=inlet), clock_ns=lambda: now, unix_ns=lambda: T + now)
    capture.open(lambda _: None)
    found = []
    for at_s, sent in ((0, [0.0]), (1.5, []), (2.5, []), (3.5, []), (3.5, [0.5]), (3.75, [3.75]), (4.5, [4.5])):
        now = round(at_s * S)
        os.write(outlet, w.pcap([(T + round(time_s * S), frame()) for time_s in sent])[24 if now else 0:])
        capture.wait(0)
        found.append(capture.drain())
    os.close(outlet)
    capture.close()
    assert [(batch.now_ns - T) / S for batch in found] == [0, 1, 2, 3, 3, 3.75, 4]
    assert [(batch.counters["first_ns"] - T).tolist() for batch in found] == [
        [0], [], [], [], [S // 2], [15 * S // 4], []], "packets keep their own times"


@pytest.mark.parametrize("tick_s", [None, 0.5])
@pytest.mark.parametrize(("syn_ns", "answer_ns"), [
    (0, 5_000), (0, 41_000_000), (1_000, 31_000), (999_000, 2_000_000), (0, 0)])
def test_a_syn_in_1970_is_a_syn(path: Path, tick_s: float | None, syn_ns: int, answer_ns: int) -> None:
    """Round trip: from SYN to SYN-ACK in us, at least 1; both directions have it."""
    there = f.ethernet(f.IPV4, f.ipv4(f.tcp(4000, 80, f.SYN), f.TCP))
    back = f.ethernet(f.IPV4, f.ipv4(f.tcp(80, 4000, f.SYN | f.ACK), f.TCP, source="10.0.0.2", destination="10.0.0.1"))
    path.write_bytes(w.pcap([(syn_ns, there), (answer_ns, back), *((number * S, frame()) for number in range(1, 9))]))
    table = read_table(path, FileConfig(str(path), tick_s), TableConfig(
        idle_timeout_s=15, active_timeout_s=60, linger_s=1e9))
    columns = table.columns
    tcp = table.visible & (columns["protocol"] == f.TCP)
    assert columns["rtt_us"][tcp].tolist() == [max((answer_ns - syn_ns) // 1000, 1)] * 2
    assert columns["syn_ns"][tcp].all()
