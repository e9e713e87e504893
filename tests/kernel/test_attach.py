"""Hooks: nothing of anyone else's is touched, nothing of flowtop's is left, after SIGKILL either."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import struct
import subprocess
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.attach import ATTACH_VARIABLE, NO_ROOM, attach_type
from flowtop.capture.ebpf.check import check_interfaces
from flowtop.capture.ebpf.clsact import EGRESS_UNSEEN, SHARED_BLOCK
from flowtop.capture.ebpf.compiler import kernel_release
from flowtop.errors import EXIT_NO_INPUT, EXIT_NO_PERMISSION, EXIT_UNAVAILABLE, FlowtopError
from flowtop.model.kinds import Direction
from flowtop.query.books import comparison
from flowtop.recording.recorder import Recorder as PacketRecorder
from tests.kernel.netns import Lab, Namespace, Recorder, eventually, process, scaled, tcx_programs
from tests.unit.packets import EVERYTHING

ROOT = Path(__file__).resolve().parents[2]
SOMEONE_ELSES = "u32 match u32 0x01020304 0xffffffff at 12 flowid 1:1"
needs_tcx = pytest.mark.skipif(kernel_release() < (6, 6), reason="TCX links need Linux 6.6")


def capture_process(
    namespace: Namespace, *interfaces: str, method: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    command = namespace.command(sys.executable, "-m", "tests.kernel.capture_process", *interfaces)
    return process(*command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                   env={**os.environ, "FLOWTOP_ATTACH": method, "PYTHONPATH": str(ROOT)})


def await_ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"


def filters(namespace: Namespace, interface: str = "veth0") -> str:
    return "".join(namespace.run("tc", "filter", "show", "dev", interface, way) for way in ("ingress", "egress"))


def has_clsact(namespace: Namespace, interface: str = "veth0") -> bool:
    return "clsact" in namespace.run("tc", "qdisc", "show", "dev", interface)


def tc(namespace: Namespace, command: str) -> None:
    namespace.run("tc", *command.split())


def add_someone_elses_filter(namespace: Namespace, *, priority: int) -> None:
    if not has_clsact(namespace):
        tc(namespace, "qdisc add dev veth0 clsact")
    tc(namespace, f"filter add dev veth0 ingress prio {priority} protocol ip {SOMEONE_ELSES}")


def kill_under_load(namespace: Namespace, flood: Path, method: str) -> None:
    with (
        process(*namespace.command(str(flood), "198.18.0.1", "1000", "0", "18"), stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL),
        capture_process(namespace, "veth0", method=method) as child,
    ):
        await_ready(child)
        if method == "tcx":
            assert tcx_programs(namespace, "veth0") == 2
        else:
            assert filters(namespace).count("flowtop/") == 2
        child.send_signal(signal.SIGKILL)
        child.wait()


@needs_tcx
def test_tcx_leaves_nothing_after_sigkill(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    kill_under_load(near, udp_flood, "tcx")
    eventually(lambda: tcx_programs(near, "veth0") == 0, "the kernel removes the links of a killed process")
    assert filters(near) == ""
    assert not has_clsact(near)


@pytest.mark.core
def test_clsact_of_a_killed_run_is_gone_after_the_next(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    kill_under_load(near, udp_flood, "clsact")
    assert filters(near).count("flowtop/") == 2, "else this test proves nothing"
    with Recorder(near, "veth0", attach="clsact"):
        assert filters(near).count("flowtop/") == 2, "those of the new run only"
    assert filters(near) == ""
    assert not has_clsact(near), "flowtop made the qdisc, so it goes with the last filter"


def test_a_start_on_another_interface_cleans_up_too(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    kill_under_load(near, udp_flood, "clsact")
    with Recorder(near, "lo"):
        assert filters(near) == ""
        assert not has_clsact(near)


@pytest.mark.parametrize("priority", [pytest.param(1, marks=pytest.mark.core), 7])
def test_someone_elses_clsact_filter_survives_everything(lab: Lab, udp_flood: Path, priority: int) -> None:
    near, _ = lab.pair()
    add_someone_elses_filter(near, priority=priority)
    theirs = filters(near)
    assert "u32" in theirs
    kill_under_load(near, udp_flood, "clsact")
    with Recorder(near, "veth0", attach="clsact"):
        assert f"pref {2 if priority == 1 else 1} bpf" in filters(near)
    assert filters(near) == theirs
    assert has_clsact(near)


def test_a_filter_added_later_keeps_the_qdisc_flowtop_made(lab: Lab) -> None:
    near, _ = lab.pair()
    with Recorder(near, "veth0", attach="clsact"):
        add_someone_elses_filter(near, priority=9)
    assert "u32" in filters(near)
    assert "flowtop" not in filters(near)
    assert has_clsact(near)


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_captures_on_one_interface_by_clsact(lab: Lab, first_out: int) -> None:
    """The qdisc goes with the last of them, whoever made it."""
    near, _ = lab.pair()
    with capture_process(near, "veth0", method="clsact") as one, capture_process(near, "veth0", method="clsact") as two:
        both = (one, two)
        for child in both:
            await_ready(child)
        assert filters(near).count("flowtop/") == 4
        both[first_out].communicate("")
        assert filters(near).count("flowtop/") == 2
        both[1 - first_out].communicate("")
    assert filters(near) == ""
    assert not has_clsact(near)


@pytest.mark.core
@pytest.mark.parametrize("method", [pytest.param("tcx", marks=needs_tcx), "clsact"])
def test_two_captures_at_once_are_both_exact(lab: Lab, udp_flood: Path, method: str) -> None:
    near, _ = lab.pair()
    packets = scaled(200_000)
    with capture_process(near, "veth0", method=method) as one, capture_process(near, "veth0", method=method) as two:
        for child in (one, two):
            await_ready(child)
        near.run(str(udp_flood), "198.18.0.1", "1000", str(packets), "18")
        for child in (one, two):
            told = json.loads(child.communicate("")[0])
            assert (told["method"], told["imbalances"]) == (method, [])
            assert told["points"]["veth0 1"] == {"flows": packets, "frames": packets}
    assert filters(near) == ""
    assert not has_clsact(near)


@needs_tcx
def test_tcx_stands_before_a_clsact_filter_that_ends_classification(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    tc(near, "qdisc add dev veth0 clsact")
    tc(near, "filter add dev veth0 egress prio 1 protocol ip u32 match u32 0 0 flowid 1:1")
    with Recorder(near, "veth0") as recorder:
        assert recorder.capture.attach_method == "tcx"
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 100


def test_a_removed_clsact_qdisc_is_noticed_and_replaced(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    with Recorder(near, "veth0", attach="clsact") as recorder:
        tc(near, "qdisc del dev veth0 clsact")
        eventually(lambda: filters(near).count("flowtop/") == 2, "attached again")
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
    assert recorder.books.imbalances == []
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 100
    assert not has_clsact(near)


@pytest.mark.core
@pytest.mark.parametrize("method", [pytest.param("tcx", marks=needs_tcx), "clsact"])
def test_a_failed_open_leaves_nothing_attached(lab: Lab, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtop.capture.ebpf.attach import TcxAttacher
    from flowtop.capture.ebpf.clsact import ClsactAttacher

    near, _ = lab.pair()
    attacher = TcxAttacher if method == "tcx" else ClsactAttacher
    attach = attacher.attach

    def refuse_egress(self: object, ifindex: int, direction: Direction, program_fd: int) -> object:
        if direction is Direction.EGRESS:
            raise PermissionError(1, "Operation not permitted")
        return attach(self, ifindex, direction, program_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(attacher, "attach", refuse_egress)
    with pytest.raises(FlowtopError) as caught, Recorder(near, "veth0", attach=method):
        pass
    assert caught.value.exit_code == EXIT_NO_PERMISSION
    if method == "tcx":
        assert tcx_programs(near, "veth0") == 0
    assert filters(near) == ""
    assert not has_clsact(near)


@pytest.mark.parametrize("method", [pytest.param("tcx", marks=needs_tcx), "clsact"])
def test_a_hook_that_the_kernel_refuses_is_said(lab: Lab, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are observed; where there are none, it is an error."""
    from flowtop.capture.ebpf.attach import TcxAttacher
    from flowtop.capture.ebpf.clsact import ClsactAttacher

    near, _ = lab.pair()
    attacher = TcxAttacher if method == "tcx" else ClsactAttacher
    attach, refused = attacher.attach, int(near.run("cat", "/sys/class/net/veth0/ifindex"))

    def refuse(self: object, ifindex: int, direction: Direction, program_fd: int) -> object:
        if ifindex == refused:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return attach(self, ifindex, direction, program_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(attacher, "attach", refuse)
    text = "veth0 is not observed: cannot attach: Operation not supported"
    with Recorder(near, "veth0", "lo", attach=method, must_observe=True) as recorder:
        near.run("ping", "-q", "-c", "1", "127.0.0.1")
        eventually(lambda: text in recorder.texts, "in every batch")
    assert text in recorder.said
    assert recorder.books.points["lo", Direction.INGRESS].flow_packets == 2
    with pytest.raises(FlowtopError) as caught, Recorder(near, "veth0", attach=method, must_observe=True):
        pass
    assert (caught.value.exit_code, caught.value.message) == (EXIT_UNAVAILABLE, f"nothing to observe: {text}")
    assert filters(near) == "" and not has_clsact(near)


def test_an_unknown_interface_is_refused_with_a_near_name(lab: Lab) -> None:
    near, _ = lab.pair()
    with pytest.raises(FlowtopError) as caught, Recorder(near, "vteh0"):
        pass
    assert caught.value.exit_code == EXIT_NO_INPUT
    assert caught.value.message == "no such interface: vteh0"
    assert "did you mean veth0?" in caught.value.hint


ENDS = 'bpf da bytecode "1,6 0 0 0,"'
"""A filter that ends classification of every packet (TC_ACT_OK), as programs of container networks do."""


def add_ending_filter(namespace: Namespace, place: str) -> None:
    if not has_clsact(namespace):
        tc(namespace, "qdisc add dev veth0 clsact")
    namespace.run("tc", "filter", "add", "dev", "veth0", *place.split(), *shlex.split(ENDS))


def tcx_ending_program() -> int:
    """Load a program that ends the chain (TCX_PASS) and return its descriptor."""
    return bpf.load_program(struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0))


def send_both_ways(near: Namespace, far: Namespace, flood: Path, out: int, into: int) -> None:
    """Datagrams to addresses nobody has, so that nobody answers."""
    far.ip("route replace 198.19.0.0/16 via 10.77.0.1")
    near.run(str(flood), "198.18.0.1", "10", str(out), "18")
    far.run(str(flood), "198.19.0.1", "10", str(into), "18")


@pytest.mark.core
def test_beside_an_ingress_qdisc_nothing_is_counted_twice(lab: Lab, udp_flood: Path) -> None:
    """Its egress parent is its ingress: 1,000 in and 300 out were 2,000 in."""
    near, far = lab.pair()
    tc(near, "qdisc add dev veth0 handle ffff: ingress")
    before = near.link_statistics("veth0")
    with Recorder(near, "veth0", attach="clsact") as recorder:
        assert filters(near).count("flowtop/") == 2, "tc shows the one list for both parents"
        send_both_ways(near, far, udp_flood, 300, 1_000)
        eventually(lambda: recorder.books.batch is not None, "drained")
        assert recorder.books.batch is not None
        (unobserved,) = recorder.books.batch.unobserved
    after = near.link_statistics("veth0")
    assert unobserved.text == f"egress of veth0 is not observed: {EGRESS_UNSEEN}"
    assert unobserved.text in recorder.said
    arrived, left = (recorder.books.points["veth0", direction] for direction in Direction)
    assert arrived.flow_packets == arrived["interface_packets"] == 1_000
    assert after["rx"]["packets"] - before["rx"]["packets"] == 1_000
    assert after["tx"]["packets"] - before["tx"]["packets"] >= 300
    assert left.flow_packets == left["packets"] == left["interface_packets"] == 0
    assert filters(near) == ""
    assert "ingress" in near.run("tc", "qdisc", "show", "dev", "veth0"), "somebody else's stays"


@pytest.mark.parametrize("qdisc", ["tbf rate 100kbit burst 2k latency 10ms", "blackhole", "pfifo limit 1000"])
def test_what_a_queue_drops_is_seen_and_not_sent(lab: Lab, udp_flood: Path, qdisc: str) -> None:
    """It drops after the hook; also where it drops everything, so that the interface counts nothing."""
    near, _ = lab.pair()
    tc(near, f"qdisc replace dev veth0 root {qdisc}")
    with Recorder(near, "veth0") as recorder:
        near.run(str(udp_flood), "198.18.0.1", "10", "300", "18")
        (queue,) = json.loads(near.run("tc", "-s", "-j", "qdisc", "show", "dev", "veth0", "root"))
        eventually(lambda: near.link_statistics("veth0")["tx"]["packets"] == 300 - queue["drops"], "the queue is empty")
    assert (queue["drops"] > 0) == (not qdisc.startswith("pfifo"))
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 300
    assert recorder.books.batch is not None
    assert comparison(recorder.books.batch.observations)[1:] == (0, 0, queue["drops"])


@pytest.mark.core
def test_filters_of_a_killed_run_go_from_an_ingress_qdisc_too(lab: Lab) -> None:
    near, _ = lab.pair()
    tc(near, "qdisc add dev veth0 handle ffff: ingress")
    tc(near, f"filter add dev veth0 ingress prio 7 protocol ip {SOMEONE_ELSES}")
    theirs = filters(near)
    with capture_process(near, "veth0", method="clsact") as child:
        await_ready(child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert "flowtop/" in filters(near), "else this test proves nothing"
    with Recorder(near, "lo"):
        assert filters(near) == theirs
    assert "ingress" in near.run("tc", "qdisc", "show", "dev", "veth0")


@pytest.mark.core
def test_beside_an_ingress_qdisc_the_run_after_a_killed_one_is_exact(lab: Lab, udp_flood: Path) -> None:
    """The filter of the killed run counts on until it goes, into maps that nobody reads."""
    near, far = lab.pair()
    tc(near, "qdisc add dev veth0 handle ffff: ingress")
    with capture_process(near, "veth0", method="clsact") as child:
        await_ready(child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    left = filters(near)
    with Recorder(near, "veth0", attach="clsact") as recorder:
        assert filters(near).count("flowtop/") == left.count("flowtop/") == 2, "tc shows the one list for both parents"
        assert f"flowtop/{child.pid}/" not in filters(near)
        send_both_ways(near, far, udp_flood, 30, 100)
    assert recorder.books.imbalances == []
    arrived, sent = (recorder.books.points["veth0", direction] for direction in Direction)
    assert (arrived.flow_packets, arrived["interface_packets"], sent["packets"]) == (100, 100, 0)
    assert filters(near) == ""
    assert "ingress" in near.run("tc", "qdisc", "show", "dev", "veth0"), "somebody else's stays"


def test_an_ingress_qdisc_that_goes_gives_its_place_to_clsact(lab: Lab, udp_flood: Path) -> None:
    near, far = lab.pair()
    tc(near, "qdisc add dev veth0 handle ffff: ingress")
    with Recorder(near, "veth0", attach="clsact") as recorder:
        tc(near, "qdisc del dev veth0 ingress")
        eventually(lambda: has_clsact(near) and filters(near).count("flowtop/") == 2, "attached again, both ways")
        send_both_ways(near, far, udp_flood, 300, 100)
        eventually(lambda: recorder.books.batch is not None and not recorder.books.batch.unobserved, "all seen")
    assert recorder.books.imbalances == []
    for direction in Direction:
        point = recorder.books.points["veth0", direction]
        assert point.flow_packets == point["interface_packets"] == (300 if direction is Direction.EGRESS else 100)


@pytest.mark.devices
def test_a_filter_for_all_protocols_that_ends_classification_runs_after_flowtops(lab: Lab, udp_flood: Path) -> None:
    """As programs of container networks are: kind bpf, pref 1."""
    near, _ = lab.pair()
    add_ending_filter(near, "egress pref 1 protocol all handle 1")
    theirs = filters(near)
    with Recorder(near, "veth0", attach="clsact") as recorder:
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 100
    assert filters(near) == theirs


@pytest.mark.devices
def test_a_filter_that_ends_classification_and_comes_later_is_passed(lab: Lab, udp_flood: Path) -> None:
    """Its owner replaces what has handle 1, which is not flowtop's. What flowtop did not see is said."""
    near, _ = lab.pair()
    with Recorder(near, "veth0", attach="clsact") as recorder:
        near.run("tc", "filter", "replace", "dev", "veth0", "egress", "pref", "1", "protocol", "all", "handle", "1",
                 *shlex.split(ENDS))
        assert filters(near).count("flowtop/") == 2
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
        eventually(lambda: any("which ran first until now" in text for text in recorder.texts), "said")
        eventually(lambda: filters(near).count("flowtop/") == 2, "moved")
        near.run(str(udp_flood), "198.18.0.1", "10", "50", "18")
        eventually(lambda: recorder.books.batch is not None and not recorder.books.batch.unobserved, "passed")
    point = recorder.books.points["veth0", Direction.EGRESS]
    assert recorder.books.imbalances == []
    assert (point.flow_packets, point["interface_packets"]) == (50, 150)
    assert "pref 1 bpf chain 0 handle 0x1 " in filters(near)


@pytest.mark.devices
def test_a_filter_that_cannot_be_passed_is_said(
        lab: Lab, udp_flood: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A priority belongs to one protocol: there is no place before one of pref 1 for IPv4 alone."""
    near, _ = lab.pair()
    add_ending_filter(near, "egress pref 1 protocol ip handle 1")
    theirs = filters(near)
    monkeypatch.setenv(ATTACH_VARIABLE, "clsact")
    checked = near.call(check_interfaces)
    assert "egress of veth0: what bpf filter of pref 1 ends is not observed" in checked.detail, "--check agrees"
    with Recorder(near, "veth0", attach="clsact") as recorder:
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
        eventually(lambda: "egress of veth0 is not all observed: packets end at bpf filter of pref 1, which "
                           "runs before flowtop's" in recorder.texts, "said")
    point = recorder.books.points["veth0", Direction.EGRESS]
    assert (point.flow_packets, point["interface_packets"]) == (0, 100)
    assert filters(near) == theirs


@pytest.mark.devices
@pytest.mark.parametrize(("priorities", "what"), [
    ((1,), "u32 filter of pref 1, which runs"), ((1, 2), "u32 filter of pref 1, u32 filter of pref 2, which run")])
def test_a_filter_of_several_parts_is_named_once(
        lab: Lab, udp_flood: Path, priorities: tuple[int, ...], what: str) -> None:
    near, _ = lab.pair()
    tc(near, "qdisc add dev veth0 clsact")
    for priority in priorities:
        tc(near, f"filter add dev veth0 egress pref {priority} protocol ip u32 match u32 0 0 flowid 1:1")
    with Recorder(near, "veth0", attach="clsact") as recorder:
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
        eventually(lambda: bool(recorder.texts), "said")
    assert set(recorder.texts) == {f"egress of veth0 is not all observed: packets end at {what} before flowtop's"}


@needs_tcx
def test_a_tcx_program_put_in_front_later_is_passed(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    program = tcx_ending_program()
    with Recorder(near, "veth0") as recorder:
        ifindex = int(near.run("cat", "/sys/class/net/veth0/ifindex"))
        link = near.call(lambda: bpf.link_create_tcx(program, ifindex, bpf.ATTACH_TCX_EGRESS))
        near.run(str(udp_flood), "198.18.0.1", "10", "100", "18")
        eventually(lambda: any("egress of veth0 is not all observed: packets end at program " in text
                               for text in recorder.texts), "said")
        eventually(lambda: recorder.books.batch is not None and not recorder.books.batch.unobserved, "passed")
        near.run(str(udp_flood), "198.18.0.1", "10", "50", "18")
    for descriptor in (link, program):
        os.close(descriptor)
    point = recorder.books.points["veth0", Direction.EGRESS]
    assert recorder.books.imbalances == []
    assert (point.flow_packets, point["interface_packets"]) == (50, 150)


@pytest.mark.devices
@pytest.mark.parametrize(("qdisc", "texts", "egress"), [
    ("ingress_block 21 clsact", [f"ingress of veth0 is not observed: {SHARED_BLOCK}"], 100),
    ("ingress_block 21 egress_block 22 clsact", [f"veth0 is not observed: {SHARED_BLOCK}"], 0),
    ("ingress_block 21 ingress", [f"veth0 is not observed: {SHARED_BLOCK}; {EGRESS_UNSEEN}"], 0),
])
def test_filters_in_a_shared_block_leave_the_other_direction(
        lab: Lab, udp_flood: Path, qdisc: str, texts: list[str], egress: int, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = lab.pair()
    tc(near, f"qdisc add dev veth0 {qdisc}")
    with Recorder(near, "veth0", attach="clsact") as recorder:
        send_both_ways(near, far, udp_flood, 100, 50)
        assert [text for text in recorder.said if "not observed" in text] == texts
    monkeypatch.setenv(ATTACH_VARIABLE, "clsact")
    checked = near.call(check_interfaces)
    assert (checked.ok, checked.detail) == (False, "; ".join(texts)), "--check agrees"
    assert recorder.books.imbalances == []
    assert sum(packets for _, packets, _ in recorder.books.flows()) == egress
    assert sum(point["interface_packets"] for point in recorder.books.by_index.values()) == egress
    assert "block 21" in near.run("tc", "qdisc", "show", "dev", "veth0"), "somebody else's stays"


class Others:
    """Programs of others on the hooks of veth0, which end nothing: a context."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._ifindex = int(namespace.run("cat", "/sys/class/net/veth0/ifindex"))
        self._links: list[int] = []

    def __enter__(self) -> Self:
        return self

    def add(self, count: int, *directions: Direction) -> None:
        for _ in range(count):
            program = bpf.load_pass_program()  # a hook has each once
            self._links += [self._namespace.call(partial(
                bpf.link_create_tcx, program, self._ifindex, attach_type(direction))) for direction in directions]
            os.close(program)

    def remove(self, count: int) -> None:
        """The newest ones."""
        for _ in range(count):
            os.close(self._links.pop())

    def __exit__(self, *_: object) -> None:
        self.remove(len(self._links))


@needs_tcx
@pytest.mark.parametrize("full", [(Direction.INGRESS,), tuple(Direction)])
def test_a_place_that_another_program_leaves_is_taken(lab: Lab, udp_flood: Path, full: tuple[Direction, ...]) -> None:
    near, far = lab.pair()
    with Others(near) as others:
        others.add(bpf.TCX_MOST, *full)
        with Recorder(near, "veth0") as recorder:
            assert [text for text in recorder.said if NO_ROOM in text], "else this test proves nothing"
            send_both_ways(near, far, udp_flood, 30, 20)
            others.remove(len(full))
            eventually(lambda: recorder.books.batch is not None and not recorder.books.batch.unobserved, "taken")
            assert recorder.attached() == ("veth0",)
            before = near.link_statistics("veth0")
            send_both_ways(near, far, udp_flood, 100, 50)
            after = near.link_statistics("veth0")
    assert recorder.books.imbalances == []
    arrived, left = (recorder.books.points["veth0", direction] for direction in Direction)
    assert after["rx"]["packets"] - before["rx"]["packets"] == 50
    assert arrived.flow_packets == arrived["interface_packets"] == 50
    assert left.flow_packets == left["interface_packets"] == (100 if Direction.EGRESS in full else 130)


@needs_tcx
def test_counting_takes_the_last_place_before_writing_and_that_is_said(
        lab: Lab, udp_flood: Path, tmp_path: Path) -> None:
    near, far = lab.pair()
    packets = PacketRecorder(EVERYTHING)
    packets.begin(str(tmp_path / "x.pcapng"), [], new=True)
    with Others(near) as others:
        others.add(bpf.TCX_MOST - 1, Direction.EGRESS)
        recorder = Recorder(near, "veth0")
        packets.connect(recorder.capture)
        with recorder:
            assert [text for text in recorder.said if "veth0" in text] == [
                f"egress packets of veth0 are not written: {NO_ROOM}"]
            send_both_ways(near, far, udp_flood, 100, 50)
            eventually(lambda: sum(recorder.books.packets.values()) == 150, "counted")
            others.remove(1)
            eventually(lambda: recorder.books.batch is not None and not recorder.books.batch.unobserved, "taken")
            send_both_ways(near, far, udp_flood, 7, 3)
    figures = packets.end()
    assert figures is not None and (figures.written, figures.dropped) == (50 + 7 + 3, 0)
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 107


@needs_tcx
def test_writing_that_begins_later_says_where_there_is_no_room(lab: Lab, tmp_path: Path) -> None:
    near, _ = lab.pair()
    packets = PacketRecorder(EVERYTHING)
    with Others(near) as others, Recorder(near, "veth0") as recorder:
        packets.connect(recorder.capture)
        others.add(bpf.TCX_MOST - 1, *Direction)
        packets.begin(str(tmp_path / "x.pcapng"), [], new=True)
        eventually(lambda: f"packets of veth0 are not written: {NO_ROOM}" in recorder.texts, "said")
        packets.end()
        eventually(lambda: recorder.books.batch is not None and not recorder.books.batch.unobserved, "nothing to say")


@needs_tcx
@pytest.mark.parametrize("full", [(Direction.INGRESS,), tuple(Direction)])
def test_no_room_beside_63_other_programs_is_said(lab: Lab, udp_flood: Path, full: tuple[Direction, ...]) -> None:
    near, far = lab.pair()
    ifindex = int(near.run("cat", "/sys/class/net/veth0/ifindex"))
    links: list[int] = []

    def observe() -> list[str]:
        with Recorder(near, "veth0", must_observe=True) as recorder:
            send_both_ways(near, far, udp_flood, 100, 50)
        assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 100, "its other direction is observed"
        return [text for text in recorder.said if "not observed" in text]

    try:
        for _ in range(bpf.TCX_MOST):
            another = bpf.load_pass_program()  # each once
            links.append(another)
            links.extend(near.call(partial(bpf.link_create_tcx, another, ifindex, attach_type(direction)))
                         for direction in full)
        checked = near.call(check_interfaces)
        if full == tuple(Direction):
            with pytest.raises(FlowtopError) as caught:
                observe()
            assert caught.value.exit_code == EXIT_UNAVAILABLE
            said = caught.value.message.removeprefix("nothing to observe: ")
            assert said == f"veth0 is not observed: {NO_ROOM}"
        else:
            (said,) = observe()
            assert said == f"ingress of veth0 is not observed: {NO_ROOM}"
    finally:
        for descriptor in links:
            os.close(descriptor)
    assert (checked.ok, checked.detail) == (False, said), "--check agrees"


def test_what_does_not_end_the_chain_is_not_moved_past(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    with Recorder(near, "veth0", attach="clsact") as recorder:
        near.run("tc", "filter", "replace", "dev", "veth0", "egress", "pref", "1", "protocol", "all", "handle", "1",
                 "bpf", "da", "bytecode", "1,6 0 0 4294967295,")
        mine = [line for line in filters(near).splitlines() if "flowtop/" in line]
        near.run(str(udp_flood), "198.18.0.1", "10", "1000", "18")
        drains = recorder.books.drains
        eventually(lambda: recorder.books.drains > drains + 2, "drained")
        assert [line for line in filters(near).splitlines() if "flowtop/" in line] == mine
    assert not recorder.texts
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 1_000
