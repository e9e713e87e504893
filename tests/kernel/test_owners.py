"""Every flow of a local socket has the process that uses the socket: real processes, which say themselves who they are."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.ebpf.capture import EbpfCapture
from flowtop.fields.registry import FIELDS
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, IpVersion, Protocol
from flowtop.model.owners import COMMANDS, PARENTS, PROCESSES, USERS, pid_of
from flowtop.model.record import FlowBatch
from flowtop.owners.cgroups import cgroup2_root
from tests.kernel.netns import Lab, Namespace, Recorder, compile_c, eventually, process, run, scaled

BRIEF = scaled(1000)
IP_UDP = {IpVersion.V4: 28, IpVersion.V6: 48}
"""Octets of the headers of IP and UDP."""


@dataclass(frozen=True)
class Seen:
    """A flow, as the table has it."""

    direction: Direction
    protocol: int
    ip_version: int
    source_port: int
    destination_port: int
    packets: int
    octets: int
    owner: int
    pid: int
    process: str
    user: str
    command: str
    parents: str


class OwningCapture(EbpfCapture):
    """A capture whose batches are also in a flow table, which keeps every flow."""

    table: FlowTable
    texts: Mapping[str, Mapping[int, str]]

    def _metered(self, batch: FlowBatch) -> FlowBatch:
        if not hasattr(self, "table"):
            self.table = FlowTable(TableConfig(idle_timeout_s=3600, active_timeout_s=3600, end_timeout_s=3600,
                                               dedupe="off"))
        self.table.update(batch)
        self.texts = batch.texts
        return batch

    def drain(self) -> FlowBatch:
        return self._metered(super().drain())

    def close(self) -> FlowBatch:
        return self._metered(super().close())

    def seen(self) -> list[Seen]:
        """Every flow so far; call it when the recording has ended."""
        columns, visible = self.table.columns, self.table.visible.nonzero()[0]
        found = []
        for slot in visible.tolist():
            owner = int(columns["owner"][slot])
            texts = [self.texts[name].get(owner, "") for name in (PROCESSES, USERS, COMMANDS, PARENTS)]
            found.append(Seen(
                Direction(int(columns["direction"][slot])), *(int(columns[name][slot]) for name in (
                    "protocol", "ip_version", "source_port", "destination_port", "packet_total", "octet_total")),
                owner, pid_of(owner), *texts))
        return found


def recorder(namespace: Namespace, *interfaces: str) -> Recorder:
    made = Recorder(namespace, *interfaces, capture=OwningCapture, owners=True)
    assert isinstance(made.capture, OwningCapture)
    return made


def flows_of(made: Recorder) -> list[Seen]:
    assert isinstance(made.capture, OwningCapture)
    return made.capture.seen()


# ---- processes that live 50 ms


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_processes_that_live_50_ms_are_all_known(lab: Lab, tmp_path: Path, kind: str) -> None:
    program = compile_c(Path(__file__).with_name("short_lived.c"), tmp_path / "short_lived")
    near, far = lab.pair()
    server = far.call(lambda: socket.create_server(("10.77.0.2", 4000), backlog=1024))
    with server, recorder(near, "veth0") as recording:
        said = near.run(str(program), str(BRIEF), kind, "10.77.0.2", "4000")
    expected = {int(port): (int(pid), name) for pid, name, port in map(str.split, said.splitlines())}
    assert len(expected) == BRIEF
    protocol = Protocol.UDP if kind == "udp" else Protocol.TCP
    sent = {flow.source_port: (flow.pid, flow.process) for flow in flows_of(recording)
            if flow.direction == Direction.EGRESS and flow.protocol == protocol}
    assert sent == expected
    if kind == "tcp":
        received = {flow.destination_port: (flow.pid, flow.process) for flow in flows_of(recording)
                    if flow.direction == Direction.INGRESS}
        assert received == expected


# ---- ways to use sockets


ACTORS: dict[str, tuple[str, ...]] = {
    "udp": (), "udp ::1": (), "udp_connected": (), "server": (), "server ::1": (), "prefork": (), "threaded": (),
    "reuseport": (), "passed": (), "activated": ("PYTHON",), "executing": ("PYTHON",), "forking": (), "renamed": ()}
NAMES = {
    "udp": {"a-udp"}, "udp ::1": {"a-udp"}, "udp_connected": {"a-connected"}, "server": {"a-server", "a-client"},
    "server ::1": {"a-server", "a-client"}, "prefork": {"a-worker-1", "a-worker-2", "a-client"},
    "threaded": {"a-threaded", "a-client"}, "reuseport": {"a-first", "a-second", "a-many"},
    "passed": {"a-taker", "a-client"}, "activated": {"a-service", "a-client"}, "executing": {"a-service"},
    "forking": {"a-forking", "a-peer"}, "renamed": {"a-new-name"}}
"""Names of the processes that the actors use sockets in; not among them: a-master, a-giver, a-manager, a-before."""


@dataclass(frozen=True)
class Play:
    """What all actors said, and what was seen."""

    claims: dict[str, list[dict[str, Any]]]
    flows: list[Seen]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    python = tmp_path_factory.mktemp("bin") / "a-service"
    python.symlink_to(sys.executable)
    with Lab() as lab:
        stage = lab.namespace()
        stage.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        eventually(lambda: "::1" in stage.ip("addr show dev lo"), "::1 is there")
        with recorder(stage, "lo") as recording:
            claims = {actor: _act(stage, actor, words, python) for actor, words in ACTORS.items()}
            time.sleep(0.3)  # the last tick, with its names
        yield Play(claims, flows_of(recording))


def _act(stage: Namespace, actor: str, words: tuple[str, ...], python: Path) -> list[dict[str, Any]]:
    """Run an actor; what it and its children say until all are silent."""
    arguments = [str(python) if word == "PYTHON" else word for word in words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with process(*stage.command(sys.executable, "-m", "tests.kernel.owner_actors", *actor.split(), *arguments),
                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdin
        assert child.stdout
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(child.stdout))  # type: ignore[arg-type]
        reader.start()
        before = -1
        while not lines or before < len(lines):
            before = len(lines)
            time.sleep(2.5)
            assert lines or child.poll() is None, f"{actor} ended with {child.returncode}"
        child.stdin.close()
        reader.join()
        child.stdin = None
    return [json.loads(line) for line in lines]


def _of_claim(flows: list[Seen], claim: Mapping[str, Any]) -> list[Seen]:
    """The flows of a socket, as its user describes it."""
    port, peer = claim["port"], claim["peer"]
    return [flow for flow in flows if flow.protocol == claim["protocol"] and (
        (flow.direction == Direction.EGRESS and flow.source_port == port and peer in (0, flow.destination_port))
        or (flow.direction == Direction.INGRESS and flow.destination_port == port and peer in (0, flow.source_port)))]


@pytest.mark.parametrize("actor", ACTORS)
def test_flows_have_the_process_that_uses_the_socket(play: Play, actor: str) -> None:
    claims = play.claims[actor]
    assert {claim["name"] for claim in claims} == NAMES[actor]
    for claim in claims:
        flows = _of_claim(play.flows, claim)
        assert flows, claim
        for flow in flows:
            assert flow.process == claim["name"], (claim, flow)
            if actor != "forking":  # who of the two sends can not be told: the connection is of the one that made it
                assert flow.pid == claim["pid"], (claim, flow)
            assert flow.user == "root"


@pytest.mark.parametrize("actor", [actor for actor in ACTORS if actor.startswith(("udp", "executing", "renamed"))])
def test_octets_of_datagrams_are_those_that_the_process_sent(play: Play, actor: str) -> None:
    pids = {claim["pid"] for claim in play.claims[actor]}
    sent = [flow for flow in play.flows if flow.direction == Direction.EGRESS and flow.protocol == Protocol.UDP
            and flow.pid in pids]
    version = IpVersion.V6 if "::1" in actor else IpVersion.V4
    payload = sum(claim["payload"] for claim in play.claims[actor])
    datagrams = sum(claim["datagrams"] for claim in play.claims[actor])
    if actor == "renamed":
        payload, datagrams = payload + 100, datagrams + 1  # sent under the old name, by the same process
    assert sum(flow.octets for flow in sent) == payload + datagrams * IP_UDP[version]
    assert sum(flow.packets for flow in sent) == datagrams


def test_octets_of_a_connection_are_its_processes(play: Play) -> None:
    """Both ends are in one host, so each packet is sent by one of them and received by the other."""
    for actor in ("server", "server ::1"):
        claim = next(claim for claim in play.claims[actor] if claim["name"] == "a-client")
        whole = sum(flow.octets for flow in play.flows if flow.protocol == Protocol.TCP
                    and {flow.source_port, flow.destination_port} == {claim["port"], claim["peer"]})
        by_process = {name: sum(flow.octets for flow in play.flows if flow.protocol == Protocol.TCP
                                and flow.process == name and {flow.source_port, flow.destination_port} == {
                                    claim["port"], claim["peer"]}) for name in ("a-client", "a-server")}
        assert by_process == {"a-client": whole // 2, "a-server": whole // 2}
        assert whole // 2 > 10_000


def test_command_lines_and_parents_are_known_after_the_end(play: Play) -> None:
    flow = next(flow for flow in play.flows if flow.process == "a-udp" and flow.ip_version == IpVersion.V4)
    assert flow.command.endswith("-m tests.kernel.owner_actors udp")
    assert f"({os.getpid()})" in flow.parents.split(" < ")[0]


def test_answers_of_the_kernel_say_so(play: Play) -> None:
    """Nobody listens on the ports that datagrams were sent to: the kernel answers with ICMP errors."""
    answers = {flow.process for flow in play.flows if flow.protocol == Protocol.ICMP
               and flow.direction == Direction.EGRESS}
    assert answers == {"kernel"}
