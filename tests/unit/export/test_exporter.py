"""The exporter: never makes its giver wait, keeps order, and accounts for every record."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import struct
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.errors import FlowtopError
from flowtop.export import exporter as exporter_module
from flowtop.export.backlog import SPILL_S, QueueBounds, RecordQueue
from flowtop.export.exporter import Exporter
from flowtop.export.opening import open_exporter
from flowtop.export.spool import Spool
from flowtop.export.statistics import ExportState, ExportStatistics
from flowtop.model.record import FlowRecords
from tests.unit.export.flows import RecordingTransport, flows, until


def wall() -> float:
    return 1_700_000_100.0


def spool(directory: Path, max_octets: int = 1 << 24) -> Spool:
    return Spool(directory, domain=1, wall=wall, max_octets=max_octets)


def accounted(figures: ExportStatistics) -> int:
    return (figures.sent_records + figures.queued_records + figures.spooled_records + figures.not_sent_records)


def test_everything_is_sent_in_order_and_the_end_waits_for_it() -> None:
    transport = RecordingTransport()
    exporter = Exporter("test:", transport)
    exporter.start()
    for start in range(1, 100_000, 10_000):
        exporter.consume(flows(10_000, start))
    figures = exporter.stop(20.0)
    assert transport.received == list(range(1, 100_001))
    assert transport.finished
    assert (figures.state, figures.sent_records, figures.not_sent_records) == (ExportState.STOPPED, 100_000, 0)


def test_what_the_queue_has_no_room_for_is_counted_with_its_packets_and_octets() -> None:
    transport = RecordingTransport()
    transport.hang.set()
    exporter = Exporter("test:", transport, bounds=QueueBounds(records=100), wall=wall)
    exporter.consume(flows(130))
    figures = exporter.statistics()
    assert (figures.queued_records, figures.not_sent_records) == (100, 30)
    assert figures.not_sent_packets == sum(range(101, 131))
    assert figures.not_sent_octets == 100 * sum(range(101, 131))
    lost = exporter.given_up()
    assert (lost.first_ms, lost.last_ms) == (1_700_000_100_000, 1_700_000_100_000)
    exporter.start()
    assert accounted(exporter.stop(0.1)) == 130


def test_the_queue_is_bounded_in_octets_too() -> None:
    size = flows(1).itemsize
    queue = RecordQueue(QueueBounds(records=1_000, octets=10 * size))
    assert len(queue.put(flows(11))) == 1
    assert len(queue.put(flows(1))) == 1
    taken = queue.take(4)
    assert taken is not None and taken["flow_id"].tolist() == [1, 2, 3, 4]
    assert len(queue.put(flows(5))) == 1


def test_records_of_a_broken_connection_come_first_and_order_is_kept() -> None:
    transport = RecordingTransport()
    transport.fail_after, transport.lose = 8_200, 5
    exporter = Exporter("test:", transport)
    exporter.consume(flows(8_195))
    exporter.consume(flows(100, 8_196))
    exporter.start()
    figures = exporter.stop(20.0)
    assert transport.received == list(range(1, 8_296))
    assert (figures.sent_records, figures.repeated_records) == (8_295, 5)
    assert figures.last_error == "Connection reset by peer"


def test_a_transport_that_hangs_does_not_hold_up_the_stop_and_its_records_are_spooled(tmp_path: Path) -> None:
    transport = RecordingTransport()
    transport.hang.set()
    exporter = Exporter("test:", transport, spool(tmp_path / "s"))
    exporter.start()
    exporter.consume(flows(20_000))
    figures = exporter.stop(0.2)
    assert transport.received == []
    assert figures.spooled_records == 20_000
    assert figures.not_sent_records == 0
    assert figures.last_error == exporter_module.OUT_OF_TIME


def test_what_is_encoded_slowly_after_the_limit_is_spooled_too(tmp_path: Path) -> None:
    """On a busy machine a chunk may take seconds, in which no figure changes; a thread that hangs uses no processor."""
    class Slow(RecordingTransport):
        def send(self, records: FlowRecords, context: object) -> None:
            self._unsent = records
            while not done.is_set():
                sum(range(10_000))
            raise OSError(104, "Connection reset by peer")

    done = threading.Event()
    exporter = Exporter("test:", Slow(), spool(tmp_path / "s"))
    exporter.start()
    exporter.consume(flows(20_000))
    threading.Timer(3 * exporter_module._JOIN_GRACE_S, done.set).start()
    figures = exporter.stop(0.0)
    assert done.is_set()
    assert (figures.spooled_records, figures.not_sent_records) == (20_000, 0)


def test_a_collector_that_is_away_costs_disk_not_memory_and_gets_everything_later(tmp_path: Path) -> None:
    transport = RecordingTransport()
    transport.fail_open = True
    exporter = Exporter("test:", transport, spool(tmp_path / "s"), bounds=QueueBounds(spill_records=1_000))
    exporter.start()
    for start in range(1, 50_000, 5_000):
        exporter.consume(flows(5_000, start))
    until(lambda: exporter.statistics().spooled_records >= 49_000, exporter.statistics)
    figures = exporter.statistics()
    assert figures.queued_records <= 1_000
    assert figures.last_error == "Connection refused"
    assert accounted(figures) == 50_000
    files = sorted((tmp_path / "s").iterdir())
    assert files and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    transport.fail_open = False
    until(lambda: exporter.statistics().sent_records == 50_000, exporter.statistics)
    # Up to 8,192 that were spooled together are replayed by Template, as messages are; from one to the next in order.
    assert sorted(transport.received) == list(range(1, 50_001))
    assert all(abs(identity - place) <= 8_192 for place, identity in enumerate(transport.received))
    exporter.stop(5.0)
    assert not (tmp_path / "s").exists()


def test_after_some_seconds_of_outage_everything_is_on_disk_in_order(tmp_path: Path) -> None:
    now = [0.0]
    transport = RecordingTransport()
    transport.fail_after, transport.lose = 5, 3
    exporter = Exporter("test:", transport, spool(tmp_path / "s"), monotonic=lambda: now[0])
    exporter.start()
    exporter.consume(flows(5))
    until(lambda: exporter.statistics().sent_records == 5, exporter.statistics)
    transport.fail_open = True
    exporter.consume(flows(5, 6))
    until(lambda: exporter.statistics().last_error == "Connection reset by peer", exporter.statistics)
    assert (exporter.statistics().queued_records, exporter.statistics().spooled_records) == (8, 0), "3 may be lost"
    now[0] = SPILL_S - 0.1
    exporter.consume(flows(5, 11))
    assert exporter.statistics().spooled_records == 0
    now[0] = SPILL_S + 0.1
    exporter.consume(flows(5, 16))
    until(lambda: exporter.statistics().spooled_records >= 13, exporter.statistics)
    now[0] = 3 * SPILL_S
    exporter.consume(flows(1, 21))
    until(lambda: exporter.statistics().spooled_records == 19, exporter.statistics)
    assert accounted(exporter.statistics()) == 21
    transport.fail_open = False
    now[0] += 1
    exporter.consume(flows(1, 22))
    until(lambda: exporter.statistics().sent_records == 22, exporter.statistics)
    exporter.stop(5.0)
    assert sorted(transport.received) == list(range(1, 23))
    assert set(transport.received[:10]) == set(range(1, 11)) and transport.received[-2:] == [21, 22]


def test_what_waits_survives_a_restart_in_order(tmp_path: Path) -> None:
    away = RecordingTransport()
    away.fail_open = True
    first = Exporter("test:", away, spool(tmp_path / "s"))
    first.start()
    first.consume(flows(100))
    assert first.stop(0.05).spooled_records == 100
    back = RecordingTransport()
    second = Exporter("test:", back, spool(tmp_path / "s"))
    assert second.statistics().spooled_records == 100
    second.consume(flows(50, 101))
    second.start()
    second.stop(20.0)
    assert sorted(back.received[:100]) == list(range(1, 101))
    assert back.received[100:] == list(range(101, 151))


def test_a_paused_export_sends_nothing_and_loses_nothing() -> None:
    transport = RecordingTransport()
    exporter = Exporter("test:", transport)
    exporter.pause()
    exporter.start()
    exporter.consume(flows(10))
    until(lambda: exporter.statistics().state is ExportState.PAUSED, exporter.statistics)
    assert (transport.received, exporter.statistics().queued_records) == ([], 10)
    exporter.resume()
    until(lambda: exporter.statistics().sent_records == 10, exporter.statistics)
    exporter.stop(5.0)


def test_records_after_the_stop_are_counted_as_not_sent() -> None:
    exporter = Exporter("test:", RecordingTransport())
    exporter.start()
    exporter.stop(5.0)
    exporter.consume(flows(3))
    assert exporter.statistics().not_sent_records == 3


def test_an_unexpected_fault_is_told_and_the_records_are_accounted_for() -> None:
    class Broken(RecordingTransport):
        def tick(self, context: object) -> float:
            raise ZeroDivisionError("a bug")

    exporter = Exporter("test:", Broken())
    exporter.start()
    until(lambda: exporter.statistics().state is ExportState.STOPPED, exporter.statistics)
    exporter.consume(flows(2))
    figures = exporter.stop(1.0)
    assert "ZeroDivisionError" in figures.last_error
    assert figures.not_sent_records == 2


def test_the_spool_is_bounded_and_says_so(tmp_path: Path) -> None:
    store = spool(tmp_path / "s", 40_000)
    refused, reason = store.store(flows(100))
    assert (len(refused), reason) == (0, "")
    refused, reason = store.store(flows(1_000, 101))
    assert len(refused) == 1_000 and "full" in reason
    assert store.records == 100
    store.close()


def test_a_full_disk_is_counted_and_leaves_no_half_file(tmp_path: Path) -> None:
    def full(descriptor: int, octets: bytes) -> int:
        if os.fstat(descriptor).st_size:
            raise OSError(28, "No space left on device")
        return os.write(descriptor, octets[:100])

    store = Spool(tmp_path / "s", domain=1, wall=wall, write=full)
    words = store.store(flows(10))[1]
    transport = RecordingTransport()
    transport.fail_open = True
    exporter = Exporter("test:", transport, store, bounds=QueueBounds(spill_records=0))
    exporter.start()
    exporter.consume(flows(10))
    until(lambda: "No space left on device" in exporter.statistics().last_error, exporter.statistics)
    until(lambda: exporter.statistics().queued_records == 10, exporter.statistics)
    assert exporter.statistics().not_sent_records == 0, "memory has room"
    assert list((tmp_path / "s").iterdir()) == []
    assert "No space left on device" in words
    assert exporter.stop(0.05).not_sent_octets == 100 * sum(range(1, 11))


def test_a_spool_gives_back_every_kind_of_flow_as_it_was(tmp_path: Path) -> None:
    records = flows(8)
    records["kind"] = [0, 0, 0, 0, 1, 2, 2, 0]
    records["ip_version"] = [4, 6, 4, 6, 4, 4, 6, 4]
    records["protocol"] = [6, 17, 1, 58, 17, 6, 6, 132]
    for name in ("packet_total", "octet_total"):
        records[name] = 0
    icmp = [2, 3]
    records["source_port"][icmp], records["destination_port"][icmp] = 0, [8 * 256, 128 * 256]
    records["source_port"][[4, 5, 6]] = records["destination_port"][[4, 5, 6]] = 0
    aggregate = records[4:5]
    for name in ("source_address", "destination_address", "source_mac", "destination_mac"):
        aggregate[name] = b""
    for name in ("vlan_id", "customer_vlan_id", "tcp_control_bits", "tos"):
        aggregate[name] = 0
    v6 = bytes(range(16))
    records["source_address"][[1, 3, 6]] = v6
    carried = records[records["kind"] != 1]
    carried["tunnel"], carried["tunnel_id"] = [1, 2, 2, 3, 4, 5, 6], [0, 0, 2**32 - 1, 9, 2**24 - 1, 7, 16]
    records = np.concatenate((records, carried))
    store = spool(tmp_path / "s")
    store.store(records)
    found = store.oldest()
    assert sorted(map(bytes, found)) == sorted(map(bytes, records))
    store.close()


def test_a_damaged_spool_file_is_put_aside_and_its_records_counted(tmp_path: Path) -> None:
    store = spool(tmp_path / "s")
    store.store(flows(5))
    store.store(flows(5, 6))
    first = min((tmp_path / "s").iterdir())
    first.write_bytes(b"\0\1not a message")
    transport = RecordingTransport()
    exporter = Exporter("test:", transport, store)
    exporter.start()
    figures = exporter.stop(10.0)
    assert sorted(transport.received) == [6, 7, 8, 9, 10]
    assert (figures.not_sent_records, figures.sent_records) == (5, 5)
    assert "cannot replay" in figures.last_error
    assert [path.suffix for path in (tmp_path / "s").iterdir()] == [".damaged"]


SOUND = flows(6)
SOUND["tunnel"], SOUND["tunnel_id"] = [0, 0, 0, 1, 2, 2], [0, 0, 0, 0, 7, 9]


@given(st.lists(st.tuples(st.sampled_from(["set", "flip", "cut", "insert", "delete"]), st.integers(0, 1 << 20),
                          st.integers(0, 255)), min_size=1, max_size=6))
def test_a_spool_file_with_any_damage_is_replayed_or_put_aside(damage: list[tuple[str, int, int]]) -> None:
    with TemporaryDirectory() as directory:
        store = spool(Path(directory) / "s")
        store.store(SOUND)
        path, = (Path(directory) / "s").iterdir()
        octets = bytearray(path.read_bytes())
        for kind, place, value in damage:
            place %= len(octets) or 1
            if kind == "cut":
                del octets[place:]
            elif kind == "insert":
                octets[place:place] = bytes([value])
            elif kind == "delete":
                del octets[place:place + value % 8]
            elif octets:
                octets[place] = value if kind == "set" else octets[place] ^ 1 << value % 8
        path.write_bytes(octets)
        try:
            assert store.oldest().dtype.names is not None
        except FlowtopError as error:
            assert "cannot replay" in error.message and path.with_suffix(".damaged").read_bytes() == octets
        finally:
            store.close()


@pytest.mark.parametrize("element", [10, 14])
def test_a_field_with_another_length_in_a_spool_file_is_damage(tmp_path: Path, element: int) -> None:
    """numpy has no common type for numbers and octets: that ended the export, at each start again."""
    store = spool(tmp_path / "s")
    store.store(flows(5))
    path, = (tmp_path / "s").iterdir()
    octets = path.read_bytes()
    path.write_bytes(octets.replace(struct.pack(">HH", element, 4), struct.pack(">HH", element, 260), 1))
    with pytest.raises(FlowtopError, match="cannot replay"):
        store.oldest()
    assert path.with_suffix(".damaged").exists()
    store.close()


def test_what_a_collector_refuses_while_it_is_replayed_is_on_disk_all_the_time(tmp_path: Path) -> None:
    transport = RecordingTransport()
    store = spool(tmp_path / "s")
    store.store(flows(5))
    store.store(flows(5, 6))
    now = [0.0]  # stands still: nothing is spilled for its age
    exporter = Exporter("test:", transport, store, monotonic=lambda: now[0])
    transport.fail_after, transport.lose = 5, 2  # the second file fails, and so do two records of the first
    exporter.start()
    until(lambda: exporter.statistics().last_error == "Connection reset by peer", exporter.statistics)
    until(lambda: exporter.statistics().state is ExportState.WAITING, exporter.statistics)
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "s", killed)
    left = spool(killed)
    assert {*transport.received, *left.oldest()["flow_id"].tolist()} == set(range(1, 11)) and left.records == 7
    left.close()
    now[0] = SPILL_S / 2
    figures = exporter.stop(10.0)
    assert sorted(transport.received) == list(range(1, 11))
    assert (figures.sent_records, figures.repeated_records, accounted(figures)) == (10, 2, 10)


def test_a_spool_file_that_was_cut_off_is_replayed_as_far_as_it_goes(tmp_path: Path) -> None:
    store = spool(tmp_path / "s")
    store.store(flows(2_000))
    store.close()
    path, = (tmp_path / "s").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    transport = RecordingTransport()
    exporter = Exporter("test:", transport, spool(tmp_path / "s"))
    assert exporter.statistics().spooled_records == 2_000
    exporter.start()
    figures = exporter.stop(10.0)
    assert 0 < len(transport.received) == figures.sent_records == 2_000 - figures.not_sent_records < 2_000
    assert (figures.queued_records, figures.spooled_records) == (0, 0)
    assert f"{figures.not_sent_records} of its records are lost" in figures.last_error


def test_a_spool_file_counts_as_what_is_in_it_not_as_what_its_name_says(tmp_path: Path) -> None:
    store = spool(tmp_path / "s")
    store.store(flows(9))
    store.close()
    path, = (tmp_path / "s").iterdir()
    path.rename(path.with_name("1000000000-5.ipfix"))
    (tmp_path / "s" / "x.partial").mkdir()
    transport = RecordingTransport()
    exporter = Exporter("test:", transport, spool(tmp_path / "s"))
    exporter.start()
    figures = exporter.stop(10.0)
    assert sorted(transport.received) == list(range(1, 10))
    assert (figures.sent_records, figures.queued_records, figures.spooled_records) == (9, 0, 0)


def test_what_two_exports_to_one_collector_spooled_is_sent_by_the_one_that_comes_next(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unanswering:  # Never accepts a handshake.
        url = f"ipfix+tls://127.0.0.1:{unanswering.getsockname()[1]}"
        both = [open_exporter(url, tmp_path) for _ in range(2)]
        for start, exporter in zip((1, 101), both, strict=True):
            exporter.consume(flows(100, start))
            exporter.start()
        assert [exporter.stop(0.05).spooled_records for exporter in both] == [100, 100]
        assert len(list(tmp_path.iterdir())) == 2
        following = open_exporter(url, tmp_path)
        assert following.statistics().spooled_records == 200
        assert len(list(tmp_path.iterdir())) == 1, "the other's directory is gone"
        beside = open_exporter(url, tmp_path)
        assert beside.statistics().spooled_records == 0, "what an export that runs has is its own"
        assert following.stop(0.05).spooled_records == 200
        beside.stop(0.05)


def test_two_exports_do_not_share_a_spool(tmp_path: Path) -> None:
    first = spool(tmp_path / "s")
    with pytest.raises(Exception, match="another flowtop"):
        spool(tmp_path / "s")
    first.close()


def test_a_pause_does_not_wait_for_a_collector_that_never_reads() -> None:
    transport = RecordingTransport()
    transport.hang.set()
    exporter = Exporter("test:", transport)
    exporter.start()
    exporter.consume(flows(10))
    until(lambda: exporter.statistics().state is ExportState.EXPORTING, exporter.statistics)
    exporter.pause()
    until(lambda: exporter.statistics().state is ExportState.PAUSED, exporter.statistics)
    assert (transport.received, exporter.statistics().queued_records) == ([], 10)
    transport.hang.clear()
    exporter.resume()
    until(lambda: transport.received == list(range(1, 11)), exporter.statistics)
    assert exporter.stop(5.0).not_sent_records == 0


def test_an_export_works_where_a_thousand_descriptors_are_open_already(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_048:
        pytest.skip("this user may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2_048, hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1_100)]
    try:
        exporter = open_exporter(f"jsonl:{tmp_path}/flows.jsonl", tmp_path)
        exporter.start()
        exporter.consume(flows(3))
        assert (exporter.stop(10.0).sent_records, exporter.statistics().last_error) == (3, "")
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_a_full_spool_refuses_waits_in_memory(tmp_path: Path) -> None:
    """Records are given up only when memory is full as well, or at the end."""
    now = [0.0]
    transport = RecordingTransport()
    transport.fail_open = True
    exporter = Exporter("test:", transport, spool(tmp_path / "s", 60_000), monotonic=lambda: now[0],
                        bounds=QueueBounds(records=3_000))
    exporter.start()
    for step in range(1, 6):
        exporter.consume(flows(400, 400 * step - 399))
        now[0] += SPILL_S + 1
        exporter.resume()  # wakes it
        until(lambda step=step: accounted(exporter.statistics()) == 400 * step, exporter.statistics)
        if step == 1:
            until(lambda: exporter.statistics().spooled_records == 400, exporter.statistics)
    until(lambda: "full" in exporter.statistics().last_error, exporter.statistics)
    assert (exporter.statistics().not_sent_records, accounted(exporter.statistics())) == (0, 2_000)
    exporter.consume(flows(3_000, 2_001))
    refused = exporter.statistics().not_sent_records
    assert 0 < refused < 3_000, "memory has room for 3,000 and no more"
    transport.fail_open = False
    now[0] += 60
    exporter.resume()
    until(lambda: exporter.statistics().sent_records == 5_000 - refused, exporter.statistics)
    exporter.stop(5.0)
    # What was spooled together comes by Template; before what waited in memory.
    assert sorted(transport.received[:400]) == list(range(1, 401))
    assert transport.received[400:] == list(range(401, 5_001 - refused))


def test_half_a_queue_is_a_crowd_while_the_export_gets_on(tmp_path: Path) -> None:
    """A file need not be read faster than its flows leave; but one that is away, with no spool, stops nothing."""
    away, hanging = RecordingTransport(), RecordingTransport()
    away.fail_open = True
    hanging.hang.set()
    bounds = QueueBounds(records=100, spill_records=1_000)
    without, slow = Exporter("test:", away, bounds=bounds), Exporter("test:", hanging, bounds=bounds)
    kept = Exporter("test:", away, spool(tmp_path), bounds=bounds)
    for exporter in (without, kept, slow):
        exporter.start()
    until(lambda: without.statistics().state is ExportState.WAITING and kept.statistics().state is ExportState.WAITING
          and slow.statistics().state is ExportState.EXPORTING, slow.statistics)
    slow.consume(flows(1))
    until(lambda: hanging.sending, slow.statistics)
    for exporter in (without, kept, slow):
        exporter.consume(flows(50))
        assert not exporter.crowded
        exporter.consume(flows(1))
    assert (without.crowded, kept.crowded, slow.crowded) == (False, True, True)
    hanging.hang.clear()
    until(lambda: not slow.crowded, slow.statistics)
    for exporter in (without, kept, slow):
        exporter.stop(0.1)
        assert not exporter.crowded
