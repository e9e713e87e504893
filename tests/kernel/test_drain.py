"""Draining loses nothing: small buffers, both ways to wait for running programs, early and late drains, both sides."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
from flowtop.capture.ebpf.check import check_host
from flowtop.capture.ebpf.maps import FlowBuffer, Grace
from flowtop.capture.ebpf.start import begin
from flowtop.capture.ebpf.totals import Totals, possible_cpus
from flowtop.model.kinds import Direction, Layer
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FLOW_TOTALS_DTYPE, FlowBatch
from tests.kernel.netns import SCALE, Lab, Recorder, scaled

PERCPU_HASH, PERCPU_ARRAY = 5, 6


@pytest.fixture
def new_map() -> Iterator[Callable[[int, int, int, int], int]]:
    made: list[int] = []

    def make(kind: int, key_size: int, value_size: int, entries: int) -> int:
        made.append(bpf.map_create(kind, key_size, value_size, entries))
        return made[-1]

    yield make
    for descriptor in made:
        os.close(descriptor)


@pytest.mark.parametrize("capacity", [pytest.param(1, marks=pytest.mark.core), 2, 37, 5000])
def test_a_buffer_too_small_for_a_bucket_grows_and_loses_nothing(
    new_map: Callable[[int, int, int, int], int], capacity: int
) -> None:
    map_fd = new_map(bpf.MAP_TYPE_HASH, FLOW_KEY_DTYPE.itemsize, FLOW_COUNTERS_DTYPE.itemsize, 2048)
    written = {}
    for number in range(2048):
        key = struct.pack("=I", number).ljust(FLOW_KEY_DTYPE.itemsize, b"\0")
        written[key] = struct.pack("=QQ", number + 1, 10 * number).ljust(FLOW_COUNTERS_DTYPE.itemsize, b"\0")
        bpf.map_update(map_fd, key, written[key])
    buffer = FlowBuffer(capacity)
    buffer.move_from(map_fd)
    moved = {key.tobytes(): value.tobytes() for key, value in zip(buffer.keys, buffer.counters, strict=True)}
    assert moved == written
    assert buffer.count == len(written), "each key once"
    buffer.move_from(map_fd)
    assert buffer.count == len(written), "the map is empty now"


def test_room_for_no_bucket_moves_nothing_and_deletes_nothing(new_map: Callable[[int, int, int, int], int]) -> None:
    """The kernel's side of the bargain: ENOSPC comes before anything was deleted."""
    map_fd = new_map(bpf.MAP_TYPE_HASH, 4, 4, 1024)
    for number in range(1024):
        bpf.map_update(map_fd, struct.pack("=I", number), struct.pack("=I", number))
    keys, values = np.zeros(2048, "u4"), np.zeros(2048, "u4")
    cursor, found, refusals = bpf.BatchCursor(), [], 0
    while True:
        room = 1 + refusals % 8
        moved, code = bpf.lookup_and_delete_batch(map_fd, cursor, keys.ctypes.data, values.ctypes.data, room)
        found.extend(keys[:moved].tolist())
        if code == errno.ENOENT:
            break
        if code == errno.ENOSPC:
            assert moved == 0
            refusals += 1
    assert refusals > 0, "else this test proves nothing"
    assert sorted(found) == list(range(1024))


def unavailable() -> None:
    raise OSError(errno.EINVAL, "nohz_full")


@pytest.mark.parametrize("make_grace", [
    pytest.param(Grace, id="membarrier"),
    pytest.param(lambda: Grace(membarrier=unavailable), id="membarrier-refused"),
    pytest.param(lambda: Grace(membarrier=unavailable, online_cpus=lambda: 1), id="one-cpu", marks=pytest.mark.core),
])
def test_no_way_to_wait_loses_a_packet(lab: Lab, udp_flood: Path, make_grace: Callable[[], Grace]) -> None:
    near, _ = lab.pair()
    flows, packets = 200, scaled(1_000_000)
    with Recorder(near, "veth0", delay_s=0.005,
                  capture=lambda config: EbpfCapture(config, make_grace=make_grace)) as recorder:
        near.run(str(udp_flood), "198.18.0.1", str(flows), str(packets), "18")
    books = recorder.books
    assert books.imbalances == []
    counts = {int(key["destination_port"]): count for key, count, _ in books.flows()}
    assert counts == {10_000 + number: len(range(number, packets, flows)) for number in range(min(flows, packets))}
    assert books.points["veth0", Direction.EGRESS]["lost_packets"] == 0
    assert books.drains > 10 * min(SCALE, 1)


class Turning(EbpfCapture):
    """Counts what its capture filter wants, and at every other drain begins to count everything."""

    lifted = False

    def drain(self) -> FlowBatch:
        self.lifted = not self.lifted
        self.lift_filter(self.lifted)
        return super().drain()


@pytest.mark.core
def test_a_capture_filter_is_lifted_and_holds_again_while_packets_flow(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    packets = scaled(500_000)
    before = near.link_statistics("veth0")["tx"]["packets"]
    with closing(begin(65536, "((key)->destination_port == 10000)")) as compilation, Recorder(
            near, "veth0", delay_s=0.005, capture=lambda config: Turning(config, compilation)) as recorder:
        near.run(str(udp_flood), "198.18.0.1", "2", str(packets), "18")
    books, point = recorder.books, recorder.books.points["veth0", Direction.EGRESS]
    counts = {int(key["destination_port"]): count for key, count, _ in books.flows() if key["protocol"] == 17}
    assert books.imbalances == []
    assert point["packets"] == near.link_statistics("veth0")["tx"]["packets"] - before
    assert counts[10_000] == packets // 2, "what the filter wants is counted always"
    assert 0 < counts[10_001] < packets // 2
    assert counts[10_001] + point["filtered_packets"] == packets // 2, "the other flow: each packet in one of both"
    assert point["lost_packets"] == 0


def test_the_fallback_waits_for_the_kernel() -> None:
    """With membarrier never called, the map replacement alone must be what returns."""
    called = []
    grace = Grace(membarrier=lambda: called.append(1), online_cpus=lambda: 1)
    grace.wait()
    grace.close()
    assert called == []


def test_wait_returns_early_when_the_map_is_half_full(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    capture = EbpfCapture(EbpfConfig(("veth0",), map_entries=1024))
    returned = threading.Event()

    def use() -> None:
        capture.open(lambda said: None)
        opened.set()
        capture.wait(3600)
        returned.set()
        assert (capture.drain().keys["kind"] == 0).sum() > 512
        capture.close()

    opened = threading.Event()
    thread = threading.Thread(target=lambda: near.call(use))
    thread.start()
    assert opened.wait(60)
    near.run(str(udp_flood), "198.18.0.1", "500", "500", "18")
    assert not returned.wait(0.2), "not yet half full"
    near.run(str(udp_flood), "198.18.0.1", "600", "600", "18")
    assert returned.wait(60)
    thread.join()


def test_wake_ends_a_wait_and_is_harmless_before_and_after(lab: Lab) -> None:
    near, _ = lab.pair()

    def use() -> None:
        capture = EbpfCapture(EbpfConfig(("veth0",)))
        capture.wake()
        capture.open(lambda said: None)
        capture.wait(3600)
        threading.Timer(0.1, capture.wake).start()
        capture.wait(3600)
        capture.close()
        capture.wake()

    near.call(use)


def test_last_times_are_on_the_clock_of_now(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    with Recorder(near, "veth0", delay_s=3600) as recorder:
        before = time.monotonic_ns()
        near.run(str(udp_flood), "198.18.0.1", "1", "1", "18")
        after = time.monotonic_ns()
        recorder.capture.wake()
        while recorder.books.drains == 0:
            time.sleep(0.01)
        batch = recorder.books.batch
        assert batch is not None
        first, last = int(batch.counters["first_ns"][0]), int(batch.counters["last_ns"][0])
        unix = time.time_ns()
    tick = 20_000_000  # the kernel's coarse clock lags by up to a tick
    assert before - tick <= first <= last <= after
    assert last <= batch.now_ns <= time.monotonic_ns()
    assert abs(batch.now_ns + batch.unix_offset_ns - unix) < 60 * 10**9


def test_the_clock_is_the_kernels_in_a_time_namespace_too() -> None:
    unshare = ["unshare", "--time", "--monotonic", "1000000", "--boottime", "5", "--fork", sys.executable, "-c"]
    if subprocess.run([*unshare, ""], capture_output=True, check=False).returncode:
        pytest.skip("cannot make time namespaces here")
    code = "import time; from flowtop.capture.ebpf.capture import kernel_clock as k; print(k()(), time.monotonic_ns())"
    before = time.monotonic_ns()
    inside, shifted = map(int, subprocess.run([*unshare, code], capture_output=True, text=True,
                                              check=True).stdout.split())
    assert before <= inside <= time.monotonic_ns()
    assert shifted > before + 10**15, "the namespace did shift the clock, or this proves nothing"


def test_memory_of_vanished_interfaces_is_bounded_and_their_sums_stay(
    new_map: Callable[[int, int, int, int], int]
) -> None:
    """A host that makes and drops thousands of containers: old books are added up under ifindex 0."""
    cpus = possible_cpus()
    array = new_map(PERCPU_ARRAY, 4, FLOW_TOTALS_DTYPE.itemsize, 2048)
    overflow = new_map(PERCPU_HASH, 16, FLOW_TOTALS_DTYPE.itemsize, 64)
    totals = Totals({"totals": array, "totals_overflow": overflow}, cpus)
    expected = 0
    for ifindex in range(1, 3001):
        totals.claim(ifindex, Layer.ETHERNET)
        totals.baseline(ifindex, Direction.INGRESS, (100, 0, 1000, 0))
        counted = np.zeros(cpus, FLOW_TOTALS_DTYPE)
        counted["ifindex"], counted["packets"] = ifindex, ifindex
        if ifindex % 512:
            bpf.map_update(array, struct.pack("=I", ifindex % 512 * 2), counted.tobytes())
        else:
            bpf.map_update(overflow, struct.pack("=4I", ifindex, 0, 0, 0), counted.tobytes())
        expected += cpus * ifindex
        totals.count_interface(ifindex, Direction.INGRESS, (107, 0, 1000, 0))
        totals.vanish(ifindex)
        totals.read(0, {})
        totals.read(1, {})
    rows = totals.observations()
    assert int(rows["packets"].sum()) == expected
    assert int(rows["interface_packets"].sum()) == 7 * 3000
    assert len(rows) < 2 * 1100
    assert totals.unassigned_counted()


def test_per_cpu_values_are_as_many_as_the_kernel_writes(new_map: Callable[[int, int, int, int], int]) -> None:
    map_fd = new_map(PERCPU_ARRAY, 4, 8, 1)
    words = np.full(possible_cpus() + 1024, 0xFF, "u8")
    assert bpf.map_lookup(map_fd, struct.pack("=I", 0), words.ctypes.data)
    assert possible_cpus() == int((words == 0).sum())


def test_this_host_passes_its_own_check() -> None:
    assert [finding for finding in check_host() if not finding.ok] == []


@pytest.mark.parametrize(("last_word", "expected"), [
    pytest.param((0, 0, 0, 0), (10 + 20, 1000 + 2000), id="a veth whose peer went first says 0"),
    pytest.param((3, 0, 300, 0), (10 + 20, 1000 + 2000), id="started anew"),
    pytest.param(None, (10 + 20, 1000 + 2000), id="gone without a word"),
    pytest.param((35, 0, 3900, 0), (30, 3400), id="a counter that did not fall is believed"),
])
@pytest.mark.parametrize("comes_back", [False, True])
def test_what_a_device_forgot_is_what_the_hook_saw_since_the_last_look(
    new_map: Callable[[int, int, int, int], int], last_word: tuple[int, int, int, int] | None,
    expected: tuple[int, int], comes_back: bool,
) -> None:
    """Baseline 5 packets of 500 octets; 10 more until the last look; then the hook sees 20, of 100 octets each."""
    cpus = possible_cpus()
    array = new_map(PERCPU_ARRAY, 4, FLOW_TOTALS_DTYPE.itemsize, 2048)
    totals = Totals({"totals": array, "totals_overflow": new_map(
        PERCPU_HASH, 16, FLOW_TOTALS_DTYPE.itemsize, 64)}, cpus)

    def hook_sees(side: int, frames: int) -> None:
        counted = np.zeros(cpus, FLOW_TOTALS_DTYPE)
        counted["ifindex"], counted["frames"][0], counted["frame_octets"][0] = 7, frames, 100 * frames
        bpf.map_update(array, struct.pack("=I", side * 1024 + 7 * 2), counted.tobytes())

    totals.claim(7, Layer.ETHERNET)
    totals.baseline(7, Direction.INGRESS, (5, 0, 500, 0))
    hook_sees(0, 10)
    totals.read(0, {7: (15, 0, 1500, 0)})
    hook_sees(1, 14)
    hook_sees(0, 10 + 6)  # after the flip
    totals.count_interface(7, Direction.INGRESS, last_word)
    totals.vanish(7)
    if comes_back:
        totals.claim(7, Layer.ETHERNET)
        totals.baseline(7, Direction.INGRESS, (0, 0, 0, 0))
    totals.read(1, {7: (0, 0, 0, 0)} if comes_back else {})
    totals.read(0, {7: (0, 0, 0, 0)} if comes_back else {})
    [ingress] = [row for row in totals.observations() if row["direction"] == Direction.INGRESS]
    assert int(ingress["frames"]) == 30
    assert (int(ingress["interface_packets"]), int(ingress["interface_octets"])) == expected
