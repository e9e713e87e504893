"""Hooks: nothing of anyone else's is touched, nothing of flowtop's is left, after SIGKILL either."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flowtop.capture.ebpf.compiler import kernel_release
from flowtop.errors import EXIT_NO_INPUT, EXIT_NO_PERMISSION, FlowtopError
from flowtop.model.kinds import Direction
from tests.kernel.netns import Lab, Namespace, Recorder, eventually, process, scaled, tcx_programs

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


def test_an_unknown_interface_is_refused_with_a_near_name(lab: Lab) -> None:
    near, _ = lab.pair()
    with pytest.raises(FlowtopError) as caught, Recorder(near, "vteh0"):
        pass
    assert caught.value.exit_code == EXIT_NO_INPUT
    assert caught.value.message == "no such interface: vteh0"
    assert "did you mean veth0?" in caught.value.hint
