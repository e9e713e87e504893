"""The parts of the eBPF backend that need no kernel: names, netlink text, privileges, merging."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from flowtop.capture.ebpf import check, netlink, start
from flowtop.capture.ebpf.attach import TcxAttacher
from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig, kernel_clock, monotonic_offset_ns
from flowtop.capture.ebpf.check import check_kernel, check_lockdown, check_packets, check_privileges
from flowtop.capture.ebpf.clsact import Owner, parse_filter_name, start_time
from flowtop.capture.ebpf.interfaces import Interface, LinkChanges, Links, Selection
from flowtop.capture.ebpf.maps import merge_duplicates
from flowtop.capture.ebpf.points import ObservationPoints, _Observed
from flowtop.capture.ebpf.totals import possible_cpus
from flowtop.errors import EXIT_NO_INPUT, EXIT_NO_PERMISSION, EXIT_USAGE, FlowtopError
from flowtop.model.kinds import Direction, Layer
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE


def interface(name: str, *, up: bool = True, link_type: int = 1) -> Interface:
    return Interface(1, name, link_type, up)


class TestSelection:
    def test_default_wants_what_is_up(self) -> None:
        assert Selection().selects(interface("eth0"))
        assert not Selection().selects(interface("eth0", up=False))

    @pytest.mark.parametrize(("pattern", "name", "wanted"), [
        ("eth0", "eth0", True), ("eth0", "eth01", False), ("eth*", "eth01", True), ("eth?", "eth01", False),
        ("[ew]*", "wlan0", True), ("[ew]*", "lo", False), ("ETH0", "eth0", False),
    ])
    def test_names_and_globs(self, pattern: str, name: str, wanted: bool) -> None:
        assert Selection((pattern,)).selects(interface(name, up=False)) is wanted

    def test_a_missing_name_is_an_error_that_suggests(self) -> None:
        with pytest.raises(FlowtopError) as caught:
            Selection(("eth0", "eht1")).require([interface("lo"), interface("eth0"), interface("eth1")])
        assert caught.value.exit_code == EXIT_NO_INPUT
        assert caught.value.message == "no such interface: eht1"
        assert "did you mean eth1?" in caught.value.hint
        assert "eth0, eth1, lo" in caught.value.hint

    def test_a_glob_may_wait(self) -> None:
        Selection(("wg*", "lo")).require([interface("lo")])


@pytest.mark.parametrize(("link_type", "layer"), [
    (1, Layer.ETHERNET), (772, Layer.ETHERNET), (65534, Layer.IP), (512, Layer.IP), (776, Layer.IP), (280, None),
])
def test_link_types(link_type: int, layer: Layer | None) -> None:
    assert interface("x", link_type=link_type).layer is layer


@pytest.mark.parametrize("entries", [0, 1023, 16_777_217])
def test_map_size_out_of_range(entries: int) -> None:
    with pytest.raises(FlowtopError) as caught:
        EbpfConfig(map_entries=entries)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("entries", [1024, 16_777_216])
def test_map_size_at_its_limits(entries: int) -> None:
    assert EbpfConfig(map_entries=entries).map_entries == entries


def test_changes_add_up() -> None:
    one = LinkChanges(any=True, suspect=frozenset({1}), final={1: (1, 1, 1, 1)})
    two = LinkChanges(suspect=frozenset({2}), all_suspect=True, final={1: (2, 2, 2, 2), 2: (3, 3, 3, 3)})
    assert one.then(two) == LinkChanges(True, frozenset({1, 2}), True, {1: (2, 2, 2, 2), 2: (3, 3, 3, 3)})


class TestFilterNames:
    def test_round_trip(self) -> None:
        owner = Owner(12, 3456, 4026531836)
        assert parse_filter_name("flowtop/12/3456/4026531836/q") == (owner, True)
        assert parse_filter_name(owner.filter_name(False)) == (owner, False)

    @pytest.mark.parametrize("name", [
        "", "flowtop", "flowtop/1/2/3", "flowtop/1/2/3/x", "flowtop/-1/2/3/q", "flowtop/1/2/3/q/", "flowtop/a/2/3/q",
        "cilium/1/2/3/q", "flowtop/1//3/q", "flow.o:[classifier]",
    ])
    def test_names_of_others(self, name: str) -> None:
        assert parse_filter_name(name) is None

    def test_start_time_of_a_process_with_an_odd_name(self, tmp_path: Path) -> None:
        (tmp_path / "7").mkdir()
        fields = ["R", *map(str, range(4, 53))]  # field 3 is the state, field N has the value N
        (tmp_path / "7/stat").write_text("7 (a) b) 9) " + " ".join(fields))
        assert start_time(7, tmp_path) == 22
        assert start_time(8, tmp_path) is None


class TestNetlink:
    def test_attributes_are_padded_and_found_again(self) -> None:
        body = b"head" + netlink.pack_attribute(3, b"eth0\0") + netlink.pack_attribute(4 | 0x8000, b"x")
        assert len(body) == 4 + 12 + 8
        assert list(netlink.attributes(body, 4)) == [(3, b"eth0\0"), (4, b"x")]

    @pytest.mark.parametrize("body", [b"\x03", b"\x03\0\x01\0", b"\0\0\0\0", b"\xff\xff\x01\0abcd"])
    def test_impossible_lengths_end_the_walk(self, body: bytes) -> None:
        assert list(netlink.attributes(body, 0)) == []

    def test_a_datagram_is_cut_into_messages(self) -> None:
        message = struct.pack("=IHHII", 19, 16, 2, 7, 0) + b"abc\0"
        assert list(netlink.split(message * 2)) == [(16, 2, 7, b"abc")] * 2
        assert list(netlink.split(message[:18])) == []


class TestInterruptedDumps:
    """A socket that plays the kernel: `interruptions` answers are marked NLM_F_DUMP_INTR (16)."""

    @staticmethod
    def links(monkeypatch: pytest.MonkeyPatch, interruptions: int, names: list[str]) -> Links:
        route = netlink.RouteSocket()
        sent: list[int] = []

        def message(kind: int, body: bytes) -> bytes:
            flags = 16 if len(sent) <= interruptions else 0
            return struct.pack("=IHHII", 16 + len(body), kind, flags, sent[-1], 0) + body

        class Kernel:
            def send(self, request: bytes) -> None:
                sent.append(struct.unpack_from("=I", request, 8)[0])

            def recv(self, octets: int) -> bytes:
                links = [struct.pack("=BxHiII", 0, 1, number, 1, 0) + netlink.pack_attribute(3, name.encode() + b"\0")
                         for number, name in enumerate(names, 1)]
                return b"".join(message(16, link) for link in links) + message(3, bytes(4))

        route.close()
        monkeypatch.setattr(route, "_socket", Kernel())
        return Links(route)

    def test_a_few_are_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [found.name for found in self.links(monkeypatch, 4, ["lo", "eth0"]).list()] == ["lo", "eth0"]

    def test_nothing_is_detached_on_the_word_of_an_incomplete_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        links = self.links(monkeypatch, 5, [])
        with pytest.raises(netlink.DumpInterruptedError):
            links.list()
        assert links.list() == []

        class Attached:
            def alive(self) -> bool:
                return True

            def close(self) -> None:
                closed.append(self)

        class Books:
            def count_interface(self, *_: object) -> None: ...
            def vanish(self, ifindex: int) -> None: ...

        closed: list[Attached] = []
        points = ObservationPoints(Selection(), self.links(monkeypatch, 5, []), TcxAttacher(), {},
                                   Books(), lambda: 0)  # type: ignore[arg-type]
        points._observed[1] = _Observed("eth0", Layer.ETHERNET, {Direction.EGRESS: Attached()})
        gone = LinkChanges(any=True, final={1: (1, 1, 1, 1)})
        assert points.reconcile(gone, 10**9) is False
        assert (points.attached(), closed) == (("eth0",), [])
        assert points.reconcile(LinkChanges(), 10**9) is True, "now the list is complete, and eth0 is not in it"
        assert (points.attached(), len(closed)) == ((), 1)


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-1,4-7,9\n", 7)])
def test_possible_cpus(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "possible").write_text(text)
    assert possible_cpus(tmp_path / "possible") == count


def test_possible_cpus_where_sys_is_not_mounted(tmp_path: Path) -> None:
    listed = subprocess.run(["getconf", "_NPROCESSORS_CONF"], capture_output=True, text=True, check=True).stdout
    assert possible_cpus(tmp_path / "possible") == int(listed)


class TestClock:
    @pytest.mark.parametrize(("text", "offset_ns"), [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic      864000 500000000\nboottime            7         0\n", 864_000_500_000_000),
        ("monotonic          -2 999999999\nboottime            0         0\n", -1_000_000_001),
        ("1 5 6\n7 8 9\n", 5_000_000_006),
    ])
    def test_the_offset_of_a_time_namespace_is_taken_off(self, tmp_path: Path, text: str, offset_ns: int) -> None:
        (tmp_path / "timens_offsets").write_text(text)
        assert monotonic_offset_ns(tmp_path / "timens_offsets") == offset_ns
        assert kernel_clock(offset_ns, lambda: 10**18)() == 10**18 - offset_ns

    def test_a_kernel_without_time_namespaces(self, tmp_path: Path) -> None:
        assert monotonic_offset_ns(tmp_path / "timens_offsets") == 0


class TestPrivileges:
    @staticmethod
    def status(tmp_path: Path, *capabilities: int) -> Path:
        path = tmp_path / "status"
        path.write_text(f"Name:\tx\nCapEff:\t{sum(1 << number for number in capabilities):016x}\nSeccomp:\t0\n")
        return path

    def test_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(FlowtopError) as caught:
            start.require(self.status(tmp_path))
        assert caught.value.exit_code == EXIT_NO_PERMISSION
        assert "sudo" in caught.value.hint
        assert not check_privileges(self.status(tmp_path)).ok

    def test_the_three_suffice(self, tmp_path: Path) -> None:
        start.require(self.status(tmp_path, 12, 38, 39))

    def test_sys_admin_is_not_net_admin(self, tmp_path: Path) -> None:
        assert start.missing_capabilities(self.status(tmp_path, 21)) == ("CAP_NET_ADMIN",)
        assert start.missing_capabilities(self.status(tmp_path, 12, 21)) == ()


class TestCheck:
    def test_kernel_release(self) -> None:
        assert check_kernel((6, 1)).ok
        assert "5.7" in check_kernel((4, 19)).remedy

    @pytest.mark.parametrize(("text", "ok", "level"), [
        ("[none] integrity confidentiality\n", True, "none"), ("none [integrity] confidentiality\n", True, "integrity"),
        ("none integrity [confidentiality]\n", False, "confidentiality"),
    ])
    def test_lockdown(self, tmp_path: Path, text: str, ok: bool, level: str) -> None:
        (tmp_path / "lockdown").write_text(text)
        finding = check_lockdown(tmp_path / "lockdown")
        assert (finding.ok, finding.detail, bool(finding.remedy)) == (ok, level, not ok)

    def test_a_kernel_without_ring_buffers_is_fine_but_for_packets(self) -> None:
        def refuse() -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        finding = check_packets(refuse)
        assert (finding.ok, finding.detail) == (True, "not available: ring buffers need Linux 5.8")


    def test_maps_are_tried_under_the_memory_lock_limit_of_a_capture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Linux 5.10 charges maps to it: with `ulimit -l 64` a capture of root raises it and can write packets."""
        limit, tried = [(65_536, 65_536)], []
        monkeypatch.setattr(start.resource, "getrlimit", lambda kind: limit[0])
        monkeypatch.setattr(start.resource, "setrlimit", lambda kind, pair: limit.__setitem__(0, pair))
        monkeypatch.setattr(start, "may_raise_memory_lock", lambda: True)
        monkeypatch.setattr(check, "kernel_release", lambda: (5, 10))
        monkeypatch.setattr(check, "try_ring_buffer", lambda *octets: tried.append(limit[0]))
        check.check_host()
        assert set(tried) == {(-1, -1)}, "RLIM_INFINITY, for packets and for names"
        assert limit == [(65_536, 65_536)], "nothing is changed"

    @pytest.mark.parametrize(("most", "works"), [(0, False), (7, False), (8, True)])
    def test_a_limit_of_threads_that_a_capture_would_meet_is_found(
            self, monkeypatch: pytest.MonkeyPatch, most: int, works: bool) -> None:
        """A capture of owners has four threads, a child process, two helpers and a process that opens files: with the
        first thread 9."""
        begin, alive = threading.Thread.start, []

        def start_thread(thread: threading.Thread) -> None:
            if len(alive) == most:
                raise RuntimeError("can't start new thread")
            alive.append(thread)
            begin(thread)

        monkeypatch.setattr(threading.Thread, "start", start_thread)
        found = check._tried("threads", check.try_threads, "")
        assert (found.ok, "ulimit -u" in found.remedy) == (works, not works)
        assert not any(thread.is_alive() for thread in alive)

    def test_where_the_limit_stays_the_remedy_is_to_raise_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse() -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(start, "may_raise_memory_lock", lambda: False)
        finding = check_packets(refuse)
        assert (finding.ok, finding.remedy.partition(",")[0]) == (False, "ulimit -l unlimited")


class TestMergeDuplicates:
    @staticmethod
    def entries(*rows: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(source port, packets, first_ns, last_ns) each."""
        keys, counters = np.zeros(len(rows), FLOW_KEY_DTYPE), np.zeros(len(rows), FLOW_COUNTERS_DTYPE)
        for number, (port, packets, first, last) in enumerate(rows):
            keys[number]["source_port"] = port
            counters[number]["packets"], counters[number]["octets"] = packets, 100 * packets
            counters[number]["first_ns"], counters[number]["last_ns"] = first, last
            counters[number]["ttl"] = number + 1
            counters[number]["tcp_bit_seen"][number] = 1
            counters[number]["tcp_bits_hint"] = 1 << number
        return keys, counters

    def test_without_duplicates_nothing_changes(self) -> None:
        keys, counters = self.entries((2, 1, 5, 6), (1, 1, 3, 9))
        merged = merge_duplicates(keys, counters)
        assert np.array_equal(merged[0], keys)
        assert np.array_equal(merged[1], counters)

    def test_the_first_packets_fields_come_from_the_earlier_entry(self) -> None:
        keys, counters = merge_duplicates(*self.entries((7, 10, 50, 60), (8, 1, 1, 1), (7, 5, 20, 55)))
        row = {int(key["source_port"]): counter for key, counter in zip(keys, counters, strict=True)}
        assert sorted(row) == [7, 8]
        seven = row[7]
        assert (seven["packets"], seven["octets"], seven["first_ns"], seven["last_ns"]) == (15, 1500, 20, 60)
        assert seven["ttl"] == 3
        assert seven["tcp_bit_seen"].tolist() == [1, 0, 1] + [0] * 10
        assert seven["tcp_bits_hint"] == 0b101
        assert row[8]["packets"] == 1

    def test_keys_that_differ_in_the_last_byte_only_stay_apart(self) -> None:
        keys, counters = self.entries((1, 1, 1, 1), (1, 1, 1, 1))
        keys["ifindex"] = (1, 1 | 1 << 24)
        assert len(merge_duplicates(keys, counters)[0]) == 2

    def test_nothing_at_all(self) -> None:
        assert len(merge_duplicates(*self.entries())[0]) == 0


def test_importing_the_capture_loads_neither_bcc_nor_textual() -> None:
    code = ("import sys, flowtop.capture.ebpf.capture;"
            "print([name for name in ('bcc', 'textual', 'pyroute2') if name in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_an_unknown_way_to_attach_is_refused() -> None:
    capture = EbpfCapture(EbpfConfig(), environ={"FLOWTOP_ATTACH": "xdp"})
    with pytest.raises(FlowtopError) as caught:
        capture.open(lambda said: None)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_kernel_error_keeps_its_number() -> None:
    route = netlink.RouteSocket()
    try:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            route.request(94, 0, bytes(12))  # RTM_GETSTATS of no interface and no statistics
    finally:
        route.close()
    assert caught.value.errno == errno.EINVAL


def test_waking_from_signal_handlers_that_interrupt_one_another() -> None:
    """A lock here would be taken again by the handler that interrupts its holder: the process would hang."""
    code = ("import signal\n"
            "from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig\n"
            "capture, depth, wakes = EbpfCapture(EbpfConfig()), 0, 0\n"
            "def nest(number, frame):\n"
            "    global depth, wakes\n"
            "    depth += 1\n"
            "    if depth < 50: signal.raise_signal(signal.SIGTERM)\n"
            "    capture.wake(); wakes += 1; depth -= 1\n"
            "signal.signal(signal.SIGTERM, nest)\n"
            "signal.signal(signal.SIGALRM, lambda *_: capture.wake())\n"
            "signal.setitimer(signal.ITIMER_REAL, 5e-4, 5e-4)\n"  # falls into the middle of the others
            "for _ in range(1000): signal.raise_signal(signal.SIGTERM); capture.wake()\n"
            "signal.setitimer(signal.ITIMER_REAL, 0)\n"
            "print(wakes)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{1000 * 50}\n", "")


def test_waiting_for_the_kernel_while_attaching_does_not_delay_the_next_attaching(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Attaching took 5 s, 10 ms of them CPU time: four times those 10 ms is the rest, so a storm costs a fifth."""
    clock = iter([0, 5_000_000_000])
    cpu = iter([70_000_000, 80_000_000])

    class Points:
        def reconcile(self, changes: LinkChanges, budget_ns: int) -> bool:
            assert next(clock) == 0
            return True

    capture = EbpfCapture(EbpfConfig(), clock_ns=lambda: next(clock), cpu_ns=lambda: next(cpu))
    monkeypatch.setattr(capture, "_points", Points(), raising=False)
    capture._follow(1_000_000_000)
    assert capture._rest_until_ns == 5_000_000_000 + 4 * 10_000_000
