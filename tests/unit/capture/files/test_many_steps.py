"""A stretch of a file with few packets, met at once, leaves what it leaves when it is met step by step."""

from __future__ import annotations

import os
import struct
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtop.capture.files import capture as capturing
from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.capture.files.octets import OctetStream
from flowtop.errors import FlowtopError
from flowtop.export.statistics import MeteringFacts
from flowtop.metering.flows import LATER, TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.flows import FLOW_COLUMN_DTYPES
from flowtop.model.kinds import EndReason
from flowtop.model.record import CARRIED, FLOW_RECORD_DTYPE, FlowRecords, Merge
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.query import Page
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w

MS = 1_000_000
T = 1_700_000_000 * w.SECOND
ROOM = 4096
"""Octets of a file in memory at once: pieces of some 40 packets."""
GAPS_MS = (0, 1, 40, 500, 999, 1000, 1001, 1999, 2000, 2001, 3000, 4000, 13_000, 14_999, 15_000, 15_001, 17_000, 58_000,
           60_000, 61_000, 100_000, 1_000_000)
RECORD_NAMES = tuple(name for name in FLOW_RECORD_DTYPE.names or () if name != "flow_id")
COLUMN_NAMES = tuple(name for name in FLOW_COLUMN_DTYPES if name not in ("flow_id", "conversation"))


def udp(port: int, octets: int = 20) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(octets)), f.UDP))


def rows(columns: Any, names: tuple[str, ...], chosen: Any = slice(None)) -> Counter[tuple[Any, ...]]:
    """As a multiset: order and identity are left to the table."""
    return Counter(zip(*(columns[name][chosen].tolist() for name in names), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pcap"


class Outcome:
    """What a table holds and has told at the end of a file."""

    def __init__(self, path: Path, config: TableConfig, **ticks: Any) -> None:
        capture, table = FileCapture(FileConfig(str(path), **({"tick_s": None} | ticks))), FlowTable(config)
        capture.open(lambda _: None)
        told: list[FlowRecords] = []
        self.batches, ended = 0, False
        while not ended:
            batch = capture.drain()
            assert batch.source is not None
            told.append(table.accumulate(batch))
            ended = batch.source.ended
            if batch.source.closes_tick and not ended:
                told.append(table.close_tick())
            self.batches += 1
        self.ignored_packets = int(batch.observations["ignored_packets"].sum())
        told += [table.accumulate(capture.close()), table.close_tick()]
        visible = np.flatnonzero(table.visible)
        columns = table.columns
        own = columns["conversation"][visible] == visible
        reporting = Counter(table.reporting(slot) for slot in visible.tolist())
        flags = Counter(tuple(table.flags(slot)) for slot in visible.tolist())
        self.books = (rows(columns, COLUMN_NAMES, visible), Counter(own.tolist()), reporting, flags, table.totals,
                      table.live_flows, table.now_ns, table.tick_s)
        told.append(table.end_all(table.now_ns))
        self.records = rows(np.concatenate(told), RECORD_NAMES)


def both(path: Path, config: TableConfig, most: int = 1000) -> tuple[Outcome, Outcome]:
    """Step by step, and at once, `most` steps at most in a batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capturing, "OctetStream", partial(OctetStream, room=ROOM))
        patch.setattr(capturing, "LEAST_STEPS", 10**9)
        single = Outcome(path, config)
        patch.setattr(capturing, "LEAST_STEPS", 2)
        patch.setattr(capturing, "MOST_STEPS", most)
        return single, Outcome(path, config)


def assert_same(single: Outcome, whole: Outcome) -> None:
    assert single.records == whole.records
    for one, other in zip(single.books, whole.books, strict=True):
        assert one == other


def some_config(rng: np.random.Generator) -> TableConfig:
    def one(*values: float) -> float:
        return values[rng.integers(len(values))]

    return TableConfig(
        idle_timeout_s=one(0.5, 1, 2, 3, 15, 15.001, 300), active_timeout_s=one(1, 2, 5, 60, 60),
        end_timeout_s=one(0, 0.5, 2, 20), max_flows=1_000_000 if rng.random() < 0.8 else int(rng.integers(1, 5)),
        dedupe=("mark", "drop", "off")[rng.integers(3)])


def some_times(rng: np.random.Generator) -> list[int]:
    """With pauses of a few kinds, the shorter ones oftener."""
    gaps_ms = rng.choice(GAPS_MS, rng.integers(2, 8))
    shares = 1 / (1 + np.argsort(np.argsort(gaps_ms)))
    chosen = rng.choice(gaps_ms, rng.integers(20, 250), p=shares / shares.sum())
    return (T + np.cumsum(chosen) * MS).tolist()


SEEDS = range(int(os.environ.get("MANY_STEPS_SEEDS", "12")))


@pytest.mark.parametrize("seed", SEEDS)
def test_udp_leaves_the_same(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, config = some_times(rng), some_config(rng)
    ports = rng.integers(1, rng.integers(2, 20), len(times)).tolist()
    path.write_bytes(w.pcap(zip(times, map(udp, ports), strict=True)))
    assert_same(*both(path, config, (3, 10, 1000)[seed % 3]))


ARP = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x08\x06" + bytes(28)


@pytest.mark.parametrize("share", [0, 0.02, 0.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_stretches_without_ip_packets_leave_the_same(path: Path, seed: int, share: float) -> None:
    """Frames that are in no flow, with few flows between them or with none at all."""
    rng = np.random.default_rng(seed)
    times, config = some_times(rng), some_config(rng)
    frames = [udp(int(rng.integers(1, 4))) if rng.random() < share else ARP for _ in times]
    path.write_bytes(w.pcap(zip(times, frames, strict=True)))
    single, whole = both(path, config, (3, 10, 1000)[seed % 3])
    assert_same(single, whole)
    assert sum(frame is ARP for frame in frames) == whole.ignored_packets


@pytest.mark.parametrize("merge", ["last", "max", "min", "sum", "or"])
def test_what_counters_carry_is_merged_the_same(path: Path, monkeypatch: pytest.MonkeyPatch, merge: Merge) -> None:
    monkeypatch.setitem(CARRIED, "ttl", merge)
    monkeypatch.setitem(LATER, "ttl", merge)
    rng = np.random.default_rng((3, sum(merge.encode())))
    times = some_times(rng)
    packets = [f.ethernet(f.IPV4, f.ipv4(f.udp(int(port), 53, b"x"), f.UDP, ttl=int(ttl)))
               for port, ttl in rng.integers(1, 6, (len(times), 2)).tolist()]
    path.write_bytes(w.pcap(zip(times, packets, strict=True)))
    single, whole = both(path, TableConfig(active_timeout_s=2, idle_timeout_s=15))
    assert len(single.records) > 5
    assert_same(single, whole)


def arp() -> bytes:
    return f.ethernet(f.ARP, bytes(28))


def icmp() -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.icmp(8, 0), f.ICMP))


def fragment(offset: int) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(bytes(32), f.UDP, identification=7, offset=offset, more=offset < 64))


def tagged() -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.udp(1, 53, b"x"), f.UDP), tags=((f.VLAN, 5),))


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_what_else_comes_leaves_the_same(path: Path, seed: int) -> None:
    """What is ignored, fragments, a VLAN (flows may repeat each other then), times that fall a little or a lot."""
    rng = np.random.default_rng((1, seed))
    times, config = some_times(rng), some_config(rng)
    kinds = [partial(udp, 1), partial(udp, 2), icmp, arp, partial(fragment, 0), partial(fragment, 32)]
    kinds += [tagged] * (seed % 2)
    chosen = [kinds[number]() for number in rng.integers(0, len(kinds), len(times)).tolist()]
    for late in rng.integers(1, len(times), rng.integers(4)).tolist():
        times[late] -= int(rng.integers(0, rng.choice((5, 2000, 40_000)))) * MS
    path.write_bytes(w.pcap(zip(times, chosen, strict=True)))
    assert_same(*both(path, config))


def test_a_quiet_hour_is_few_batches(path: Path) -> None:
    path.write_bytes(w.pcap((T + number * w.SECOND, udp(number % 50)) for number in range(3600)))
    outcome = Outcome(path, TableConfig())
    assert outcome.batches < 10
    assert sum(outcome.records.values()) == 3600, "each is silent for longer than the idle timeout"


def tcp(port: int, back: bool, bits: int, sequence: int, octets: int) -> bytes:
    ports = (80, port) if back else (port, 80)
    ends = {"source": "10.0.0.2", "destination": "10.0.0.1"} if back else {}
    head = struct.pack(">HHIIHHHH", *ports, sequence % 2**32, 0, 5 << 12 | bits, 1000, 0, 0)
    return f.ethernet(f.IPV4, f.ipv4(head + bytes(octets), f.TCP, **ends))  # type: ignore[arg-type]


class Connections:
    """Both ways of some connections: handshakes and ends that come again or not at all, segments lost and late."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._at: dict[tuple[int, bool], int] = {}
        self._ports = int(rng.integers(1, 8))
        self._shares = rng.dirichlet(np.array((1, 1, 4, 1, 0.5)))

    def segment(self) -> bytes:
        rng = self._rng
        port, back = int(rng.integers(1, 1 + self._ports)), bool(rng.integers(2))
        kind = int(rng.choice(5, p=self._shares))
        way = (port, back)
        if kind in (0, 1):
            if way not in self._at or rng.random() < 0.5:
                self._at[way] = int(rng.integers(0, 2**32))
            sequence, octets = self._at[way], 0
            bits = f.SYN | f.ACK if back and kind else f.SYN
            self._at[way] += rng.random() < 0.8
        else:
            sequence = self._at.setdefault(way, int(rng.integers(0, 2**32)))
            sequence += int(rng.choice((0, 0, 0, 0, 100, -100, -1, 300)))
            octets = int(rng.choice((0, 1, 100)))
            bits = (0, 0, f.ACK, f.ACK | f.FIN, f.RST)[kind]
            self._at[way] = sequence + octets + (kind == 3)
        return tcp(port, back, bits, sequence, octets)


@pytest.mark.parametrize("seed", SEEDS)
def test_tcp_leaves_the_same(path: Path, seed: int) -> None:
    rng = np.random.default_rng((2, seed))
    times, config = some_times(rng), some_config(rng)
    connections = Connections(rng)
    path.write_bytes(w.pcap([(time_ns, connections.segment()) for time_ns in times]))
    assert_same(*both(path, config, (3, 10, 1000)[seed % 3]))


def test_how_long_a_gap_is_waited_for_is_what_was_known_then(path: Path) -> None:
    """40 ms are too long before the handshake, which takes 100 ms, and not after it."""
    there, back = False, True
    segments = [(0, there, f.ACK, 1000, 100), (1, there, f.ACK, 1200, 100), (41, there, f.ACK, 1100, 100)]
    segments += [(5000, there, f.SYN, 7000, 0), (5100, back, f.SYN | f.ACK, 1, 0), (5200, there, f.ACK, 7001, 100)]
    segments += [(9000, there, f.ACK, 7201, 100), (9040, there, f.ACK, 7101, 100), (20_000, there, f.ACK, 7301, 1)]
    frames = [(T + at_ms * MS, tcp(1, *rest)) for at_ms, *rest in segments]
    path.write_bytes(w.pcap(frames))
    single, whole = both(path, TableConfig(idle_timeout_s=300))
    assert_same(single, whole)
    at = COLUMN_NAMES.index("rtt_us")
    found = {(row[at], *row[at + 2:at + 4]) for row in whole.books[0]}
    assert found == {(100_000, 1, 1), (100_000, 0, 0)}, "one retransmitted, one out of order"


@pytest.mark.parametrize("seed", SEEDS)
def test_echoes_leave_the_same(path: Path, seed: int) -> None:
    """Requests and replies of a few hosts and pings, in any order, many of them without the other."""
    rng = np.random.default_rng((4, seed))
    times, config = some_times(rng), some_config(rng)
    frames = []
    for _ in times:
        host, number, back, v6 = (int(rng.integers(n)) for n in (3, 2, 2, 2))
        message = f.icmp((128 + back) if v6 else (0 if back else 8), 0, struct.pack(">HH", 7, number))
        ends = [("2001:db8::", "2001:db8::1:") if v6 else ("10.0.0.", "10.0.1."), (f"{host + 1}", f"{host + 1}")]
        source, destination = (net + end for net, end in zip(*ends, strict=True))
        packed = {"source": destination, "destination": source} if back else {
            "source": source, "destination": destination}
        frames.append(f.ethernet(f.IPV6, f.ipv6(message, f.ICMPV6, **packed)) if v6  # type: ignore[arg-type]
                      else f.ethernet(f.IPV4, f.ipv4(message, f.ICMP, **packed)))  # type: ignore[arg-type]
    path.write_bytes(w.pcap(zip(times, frames, strict=True)))
    single, whole = both(path, config, (3, 10, 1000)[seed % 3])
    assert_same(single, whole)


class Collector:
    """Takes what a pipeline gives to exports and to who looks on."""

    def __init__(self) -> None:
        self.records: list[FlowRecords] = []
        self.facts = MeteringFacts()

    def update(self, facts: MeteringFacts) -> None:
        self.facts = facts

    def consume(self, records: FlowRecords) -> None:
        self.records.append(records.copy())

    def on_progress(self, text: str) -> None: ...

    def on_page(self, page: Page) -> None: ...

    def on_error(self, error: FlowtopError) -> None:
        raise error


def test_exports_are_told_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first and the last packets came that are in no record; and in which order of time flows ended."""
    times = (T + np.arange(0, 600_000, 700) * MS).tolist()
    chosen = [arp() if number in (100, 101, 433) else udp(number * number % 97) for number in range(len(times))]
    path.write_bytes(w.pcap(zip(times, chosen, strict=True)))
    found = []
    for least in (10**9, 2):
        monkeypatch.setattr(capturing, "LEAST_STEPS", least)
        collector = Collector()
        pipeline = Pipeline(PipelineConfig(own_time=True), FileCapture(FileConfig(str(path), None)), (collector,))
        pipeline.start(collector)
        pipeline.join()
        found.append(collector)
    single, whole = found
    assert len(whole.records) < len(single.records)
    assert whole.facts == single.facts
    assert (whole.facts.first_ignored_ms, whole.facts.last_ignored_ms) == (T // MS + 72_000, T // MS + 304_000)
    one, other = (np.concatenate(collector.records) for collector in found)
    assert rows(one, RECORD_NAMES) == rows(other, RECORD_NAMES)
    idle = other[other["end_reason"] == EndReason.IDLE_TIMEOUT]
    steps_to_end = -(-(idle["end_ms"].astype(np.int64) - T // MS + 15_000) // 2000)
    assert (np.diff(steps_to_end) >= 0).all() and steps_to_end[-1] > 200


@pytest.mark.parametrize("tick_s", [1.0, 3.0])
def test_ticks_that_nobody_looks_at_are_combined_where_packets_are_rare(path: Path, tick_s: float) -> None:
    """A packet a day, with a second one shortly after some of them, and then some within seconds."""
    times_s = [day * 86_400 + extra for day in range(60) for extra in ((0, 0.4, 20) if day % 7 == 3 else (0,))]
    times_s += [times_s[-1] + after for after in (500, 501, 501.2, 504, 540, 590, 602)]
    path.write_bytes(w.pcap([(T + round(at * 1_000) * MS, udp(number % 5, 20 + number % 90))
                             for number, at in enumerate(times_s)]))
    config = TableConfig(least_tick_s=tick_s)
    each, combined = (Outcome(path, config, tick_s=tick_s, every_tick=every) for every in (True, False))
    assert each.batches > 130 and combined.batches < 25
    assert combined.records == each.records and sum(combined.records.values()) > 60
    assert combined.books == each.books


def test_ticks_with_packets_are_not_combined(path: Path) -> None:
    path.write_bytes(w.pcap([(T + second * 30_000 * MS, udp(second % 5)) for second in range(60)]))
    each, other = (Outcome(path, TableConfig(), tick_s=1.0, every_tick=every) for every in (True, False))
    assert other.batches == each.batches and other.books == each.books
