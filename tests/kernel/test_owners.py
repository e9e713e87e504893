"""Every flow of a local socket has the process that uses it: real processes, which say themselves who they are."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.capture import EbpfCapture
from flowtop.capture.ebpf.check import check_owners
from flowtop.capture.ebpf.compiler import compile_program
from flowtop.capture.ebpf.loader import OWNER_PROGRAMS
from flowtop.capture.ebpf.netlink import RouteSocket
from flowtop.capture.ebpf.owners import FlowOwners
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, IpVersion, Protocol
from flowtop.model.owners import COMMANDS, CONTAINERS, PARENTS, PROCESSES, USERS, pid_of
from flowtop.model.record import FlowBatch
from flowtop.owners.cgroups import cgroup2_root
from flowtop.owners.proc import TICK_NS, read_stat
from tests.kernel.netns import PATIENCE_S, Lab, Namespace, Recorder, compile_c, eventually, process, run, scaled

BRIEF = scaled(1000)
SENDER = """
import socket, time
open("/proc/self/comm", "w").write("a-sender")
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    sender.sendto(b"x", ("127.0.0.1", 7001))
    time.sleep(0.1)
"""
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
    hosts: frozenset[str]
    ifindex: int
    container: str


class OwningCapture(EbpfCapture):
    """A capture whose batches are also in a flow table, which keeps every flow."""

    dedupe: ClassVar[Literal["mark", "off"]] = "off"
    table: FlowTable
    texts: Mapping[str, Mapping[int, str]]

    def _metered(self, batch: FlowBatch) -> FlowBatch:
        if not hasattr(self, "table"):
            self.table = FlowTable(TableConfig(idle_timeout_s=3600, active_timeout_s=3600, end_timeout_s=3600,
                                               dedupe=self.dedupe))
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
                owner, pid_of(owner), *texts, _hosts(columns, slot), int(columns["ifindex"][slot]),
                self.texts[CONTAINERS].get(owner, "")))
        return found


def _hosts(columns: Any, slot: int) -> frozenset[str]:
    size = 4 if columns["ip_version"][slot] == IpVersion.V4 else 16
    return frozenset(str(ipaddress.ip_address(bytes(columns[f"{end}_address"][slot])[:size]))
                     for end in ("source", "destination"))


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


def test_what_proc_says_of_a_new_process_is_read_at_once_and_not_with_the_next_tick(lab: Lab) -> None:
    stage = lab.namespace()
    with Recorder(stage, "lo", delay_s=3600, capture=OwningCapture, owners=True) as recording, \
            process(*stage.command(sys.executable, "-c", SENDER)) as sender:
        owners = recording.capture._owners
        assert owners is not None

        def is_read() -> bool:
            stat = read_stat(sender.pid)
            found = stat and owners._book.owner(owners._book.known_as(sender.pid, stat.start_ticks) or 0)
            noted = found is not None and found.start_ns % TICK_NS  # a list of sockets has it from /proc: rounded
            return bool(noted and found.command.startswith(sys.executable))

        eventually(is_read, "its command line is read")
        assert recording.books.drains == 0


# ---- ways to use sockets


ACTORS: dict[str, tuple[str, ...]] = {
    "udp": (), "udp ::1": (), "udp_connected": (), "server": (), "server ::1": (), "prefork": (), "threaded": (),
    "reuseport": (), "passed": (), "activated": ("PYTHON",), "executing": ("PYTHON",), "forking": (), "renamed": ()}
NAMES = {
    "udp": {"a-udp"}, "udp ::1": {"a-udp"}, "udp_connected": {"a-connected"}, "server": {"a-server", "a-client"},
    "server ::1": {"a-server", "a-client"}, "prefork": {"a-worker-1", "a-worker-2", "a-client"},
    "threaded": {"a-threaded", "a-client"}, "reuseport": {"a-first", "a-second", "a-many", "a-client"},
    "passed": {"a-taker", "a-client"}, "activated": {"a-service", "a-client"}, "executing": {"a-service"},
    "forking": {"a-forking", "a-peer"}, "renamed": {"a-new-name"}}
"""Names of the processes that the actors use sockets in; not among them: a-master, a-giver, a-manager, a-before."""


@dataclass(frozen=True)
class Play:
    """What all actors said, and what was seen."""

    claims: dict[str, list[dict[str, Any]]]
    flows: list[Seen]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    python = tmp_path_factory.mktemp("bin") / "a-service"
    python.symlink_to(sys.executable)
    with Lab() as lab:
        stage = lab.namespace()
        stage.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        eventually(lambda: "::1" in stage.ip("addr show dev lo"), "::1 is there")
        with recorder(stage, "lo") as recording, ThreadPoolExecutor(3) as actors:  # they wait more than they work
            claims = dict(zip(ACTORS, actors.map(lambda actor: _act(stage, actor, ACTORS[actor], python), ACTORS),
                              strict=True))
            time.sleep(0.3)  # the last tick, with its names
    return Play(claims, flows_of(recording))


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


@pytest.mark.parametrize("actor", [actor for actor in ACTORS if actor.startswith((
    "udp", "executing", "renamed", "passed", "reuseport"))])
def test_octets_of_datagrams_are_those_that_the_process_sent(play: Play, actor: str) -> None:
    claims = [claim for claim in play.claims[actor] if claim["protocol"] == Protocol.UDP]
    pids = {claim["pid"] for claim in claims}
    sent = [flow for flow in play.flows if flow.direction == Direction.EGRESS and flow.protocol == Protocol.UDP
            and flow.pid in pids]
    version = IpVersion.V6 if "::1" in actor else IpVersion.V4
    payload = sum(claim["payload"] for claim in claims)
    datagrams = sum(claim["datagrams"] for claim in claims)
    if actor == "renamed":
        payload, datagrams = payload + 100, datagrams + 1  # sent under the old name, by the same process
    assert sum(flow.octets for flow in sent) == payload + datagrams * IP_UDP[version]
    assert sum(flow.packets for flow in sent) == datagrams


def test_octets_of_datagrams_are_those_that_the_process_received(play: Play) -> None:
    """Of two processes with one port each has what it got, by its own count; and of a connected socket's peer."""
    for actor, payload, names in (("reuseport", 10, {"a-first", "a-second"}), ("udp_connected", 200, {"a-connected"})):
        claims = [claim for claim in play.claims[actor] if claim["protocol"] == Protocol.UDP and claim["name"] in names]
        for pid in {claim["pid"] for claim in claims}:
            got = sum(claim["pid"] == pid for claim in claims) if actor == "reuseport" else claims[0]["datagrams"]
            assert sum(flow.octets for flow in play.flows if flow.direction == Direction.INGRESS and flow.pid == pid
                       and flow.protocol == Protocol.UDP) == got * (payload + IP_UDP[IpVersion.V4])


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


@pytest.mark.parametrize("actor", ["server", "server ::1", "prefork", "threaded", "passed", "activated", "forking",
                                   "reuseport"])
def test_octets_of_connections_are_what_the_process_sent_and_received(play: Play, actor: str) -> None:
    """By its own count, and the headers of each packet: IP, and TCP with timestamps; a SYN's has 8 octets more."""
    claims = {(claim["port"], claim["peer"]): claim for claim in play.claims[actor]
              if claim["protocol"] == Protocol.TCP}
    headers, syn = (72 if "::1" in actor else 52), 8
    assert claims
    for (port, peer), claim in claims.items():
        payload = {Direction.EGRESS: claim["payload"], Direction.INGRESS: claims[peer, port]["payload"]}
        assert sorted(payload.values()) == [2, 10_000]
        for direction, octets in payload.items():
            flows = [flow for flow in _of_claim(play.flows, claim) if flow.direction == direction
                     and flow.process == claim["name"] and (actor == "forking" or flow.pid == claim["pid"])]
            assert sum(flow.octets for flow in flows) == octets + syn + headers * sum(flow.packets for flow in flows)


def test_command_lines_and_parents_are_known_after_the_end(play: Play) -> None:
    flow = next(flow for flow in play.flows if flow.process == "a-udp" and flow.ip_version == IpVersion.V4)
    assert flow.command.endswith("-m tests.kernel.owner_actors udp")
    assert f"({os.getpid()})" in flow.parents.split(" < ")[0]


def test_answers_of_the_kernel_say_so(play: Play) -> None:
    """Nobody listens on the ports that datagrams were sent to: the kernel answers with ICMP errors."""
    answers = {flow.process for flow in play.flows if flow.protocol == Protocol.ICMP
               and flow.direction == Direction.EGRESS}
    assert answers == {"kernel"}


AS_LISTS_ARE_MADE_S = 10 * PATIENCE_S
"""That a socket is the kernel's own shows when a list without it is complete. The pause between two lists is 20 times
as long as one takes: in an emulated machine minutes."""


# ---- sockets that were there before


def test_sockets_opened_before_are_named_within_a_tick(lab: Lab) -> None:
    """Flowtop's screen first shows flows after a tick; here the whole conversation is older than the capture."""
    stage = lab.namespace()
    ends = stage.call(_old_sockets)
    with ends.listening, ends.client, ends.accepted, ends.sender, recorder(stage, "lo") as recording:
        assert isinstance(recording.capture, OwningCapture)
        capture = recording.capture

        def talk() -> None:
            ends.client.sendall(b"request")
            ends.accepted.sendall(b"answer")
            ends.sender.sendto(b"x", ("127.0.0.1", 7001))

        talk()
        began_s = time.monotonic()
        eventually(lambda: talk() is None and _owned(capture, 3), "the flows have owners")
        assert time.monotonic() - began_s < 2
        later = stage.call(lambda: socket.create_connection(ends.listening.getsockname()))  # a new one, to the old
        later.sendall(b"request")
        time.sleep(0.5)
        later.close()
        local = {end.getsockname()[1] for end in (ends.listening, ends.client, ends.sender)}
    flows = [flow for flow in flows_of(recording) if flow.protocol != Protocol.ICMP]
    for flow in flows:
        if (flow.source_port if flow.direction == Direction.EGRESS else flow.destination_port) in local:
            assert flow.pid == os.getpid(), flow
    assert len({(flow.source_port, flow.destination_port) for flow in flows}) == 5


@dataclass(frozen=True)
class _OldSockets:
    listening: socket.socket
    client: socket.socket
    accepted: socket.socket
    sender: socket.socket


def _old_sockets() -> _OldSockets:
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.0.1", 0))
    return _OldSockets(listening, client, listening.accept()[0], sender)


def _owned(capture: OwningCapture, count: int) -> bool:
    """Whether at least so many conversations' directions have this process as their owner at the sending end."""
    table = getattr(capture, "table", None)
    if table is None:
        return False
    columns, visible = table.columns, table.visible.nonzero()[0]
    mine = [slot for slot in visible.tolist() if pid_of(int(columns["owner"][slot])) == os.getpid()
            and columns["direction"][slot] == Direction.EGRESS]
    return len(mine) >= count


# ---- who is not a process of this host


def _router_between(lab: Lab, one: Namespace, other: Namespace, subnets: tuple[str, str]) -> Namespace:
    """Join two namespaces by a third one, which routes: .1 and .2 in each subnet, the router is .2 of the first and .1
    of the second. As from another host, packets do not carry their sockets any more."""
    middle = lab.namespace()
    middle.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    for end, subnet, number, name in ((one, subnets[0], 1, "right"), (other, subnets[1], 2, "left")):
        end.ip(f"link add {name} type veth peer name {subnet} netns {middle.name}")
        end.ip(f"addr add {subnet}.{number}/24 dev {name}")
        middle.ip(f"addr add {subnet}.{3 - number}/24 dev {subnet}")
        end.ip(f"link set {name} up")
        middle.ip(f"link set {subnet} up")
        end.await_up(name)
    return middle


def test_forwarded_packets_are_no_local_process(lab: Lab) -> None:
    """A router that listens on the port of what it forwards, for any address: that is not its own traffic."""
    client, router, server = lab.namespace(), lab.namespace(), lab.namespace()
    _router_between(lab, client, router, ("10.71.0", "10.72.0")).ip("route add default via 10.72.0.2")
    _router_between(lab, router, server, ("10.73.0", "10.74.0")).ip("route add default via 10.73.0.1")
    client.ip("route add default via 10.71.0.2")
    server.ip("route add default via 10.74.0.1")
    router.ip("route add 10.71.0.0/24 via 10.72.0.1")
    router.ip("route add 10.74.0.0/24 via 10.73.0.2")
    router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    with recorder(router, "left", "right") as recording, \
            router.call(lambda: socket.create_server(("0.0.0.0", 8080))), \
            server.call(lambda: socket.create_server(("10.74.0.2", 8080))):
        with client.call(lambda: socket.create_connection(("10.74.0.2", 8080))) as connection:
            connection.sendall(b"x")
        with client.call(lambda: socket.create_connection(("10.72.0.2", 8080))) as connection:
            connection.sendall(b"x")
        time.sleep(0.5)
    flows = [flow for flow in flows_of(recording) if flow.protocol == Protocol.TCP]
    through = {(flow.direction, flow.process) for flow in flows if "10.74.0.2" in flow.hosts
               and (flow.direction == Direction.EGRESS or flow.destination_port == 8080)}
    assert through == {(Direction.EGRESS, "forwarded"), (Direction.INGRESS, "forwarded")}
    assert {flow.pid for flow in flows if "10.72.0.2" in flow.hosts and flow.direction == Direction.INGRESS} == {
        os.getpid()}


# ---- one pid, two processes


def test_a_pid_that_is_used_again_is_another_process(lab: Lab) -> None:
    stage = lab.namespace()
    with recorder(stage, "lo") as recording:
        stage.call(_twins)
        time.sleep(0.3)
    sent = {flow.source_port: flow for flow in flows_of(recording)
            if flow.direction == Direction.EGRESS and flow.protocol == Protocol.UDP}
    assert sent[9001].pid == sent[9002].pid
    assert sent[9001].owner != sent[9002].owner
    assert (sent[9001].process, sent[9002].process) == ("first-twin", "second-twin")


def _twins() -> None:
    """Two processes, one after the other, that get the same pid."""
    pid = 0
    for _ in range(200):
        first = _twin("first-twin", 9001)
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first - 1))
        pid = _twin("second-twin", 9002)
        if pid == first:
            return
    pytest.fail("no pid was used twice")


def _twin(name: str, port: int) -> int:
    """A process that sends one datagram and ends; returns its pid."""
    pid = os.fork()
    if pid == 0:
        Path("/proc/self/comm").write_text(name)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.bind(("127.0.0.1", port))
        sender.sendto(b"x", ("127.0.0.1", 7001))
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


# ---- hooks come and go


def _flowtop(stage: Namespace, *words: str) -> list[str]:
    """The argument list that runs flowtop on the loopback there; unlike `ip netns exec`, with the mounts of here."""
    return ["nsenter", f"--net=/run/netns/{stage.name}", sys.executable, "-m", "flowtop", "-b", "-i", "lo",
            "-o", "json", *words]


def _on_root() -> set[int]:
    """Ids of the programs on cgroups' root, as bpftool says: of any process, so of tests beside this one too."""
    root = cgroup2_root()
    assert root is not None
    lines = run("bpftool", "cgroup", "show", str(root)).splitlines()[1:]
    return {int(line.split()[0]) for line in lines if line.strip()}


def _hooks(process_id: int) -> set[int]:
    """Those of them that this process has open, as programs or as links."""
    held = set()
    for entry in Path(f"/proc/{process_id}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held |= {int(word) for word in re.findall(r"^prog_id:\s*([0-9]+)", entry.read_text(), re.MULTILINE)}
    return _on_root() & held


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs bpftool")
def test_hooks_are_gone_after_sigkill(lab: Lab) -> None:
    stage = lab.namespace()
    with process(*_flowtop(stage), stdout=subprocess.DEVNULL) as child:
        eventually(lambda: len(_hooks(child.pid)) == 7, "seven hooks are attached")
        hooks = _hooks(child.pid)
        child.kill()
        child.wait()
    eventually(lambda: not _on_root() & hooks, "the hooks are gone")


ONE_DATAGRAM = SENDER.split("while", maxsplit=1)[0].replace("a-sender", "brief") + """
sender.sendto(b"x", ("127.0.0.1", 7001))
"""


def test_where_the_mount_of_cgroups_is_hidden_short_processes_are_known_all_the_same(lab: Lab) -> None:
    """`ip netns exec` hides the mounts below /sys."""
    stage = lab.namespace()
    words = _flowtop(stage, "process brief")[2:]
    assert "cgroup" not in stage.run("cat", "/proc/self/mountinfo"), "else this test proves nothing"
    with process(*stage.command(*words), stdout=subprocess.PIPE) as child:
        assert child.stdout
        json.loads(child.stdout.readline())
        with process(*stage.command(sys.executable, "-c", ONE_DATAGRAM)) as sender:
            sender.wait()
        flows: list[dict[str, Any]] = []
        while not flows:
            line = json.loads(child.stdout.readline())
            flows = line["flows"]
    assert {(flow["processName"], flow["processId"]) for flow in flows} == {("brief", sender.pid)}
    assert (line["owners"]["hooksRefused"], line["owners"]["hooksPartial"]) == ("", False)


def test_where_cgroups_cannot_be_mounted_sockets_are_found_in_proc(lab: Lab) -> None:
    """It is said, and processes that live a while are named."""
    stage = lab.namespace()
    words = _flowtop(stage, "process a-sender")[2:]
    without = "setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"
    with process(*stage.command(*without, *words), stdout=subprocess.PIPE) as child, \
            process(*stage.command(sys.executable, "-c", SENDER)) as sender:
        assert child.stdout
        flows: list[dict[str, Any]] = []
        while not flows:
            line = json.loads(child.stdout.readline())
            flows = line["flows"]
    assert {(flow["processName"], flow["processId"]) for flow in flows} == {("a-sender", sender.pid)}
    assert line["owners"]["hooksRefused"] == "cgroup v2 is not mounted, and cannot be"


NO_RIGHTS = "-sys_ptrace,-dac_override,-dac_read_search"
SOMEBODY = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")


def test_without_rights_to_the_processes_of_others_the_hooks_name_them(lab: Lab) -> None:
    """Who sends by address after flowtop's start, also from an older socket. It is said how many processes cannot be
    read; `--check` says it too."""
    stage = lab.namespace()
    words = _flowtop(stage, "udp dst port 7001 or udp dst port 7002")
    without = ["setpriv", "--bounding-set", NO_RIGHTS, "--inh-caps", NO_RIGHTS, *words[2:]]
    sender = SENDER.replace('open("/proc/self/comm", "w").write("a-sender")', "")
    older = ["nsenter", f"--net=/run/netns/{stage.name}", *SOMEBODY, sys.executable, "-c",
             sender.replace("7001", "7002")]
    with process(*older) as before, process(*words[:2], *without, stdout=subprocess.PIPE) as child:
        assert child.stdout
        json.loads(child.stdout.readline())
        with process("nsenter", f"--net=/run/netns/{stage.name}", *SOMEBODY, sys.executable, "-c", sender) as later:
            line: dict[str, Any] = {}
            while not any(flow.get("processId") == later.pid for flow in line.get("flows", ())) or not line["owners"][
                    "unreadableProcesses"]:
                line = json.loads(child.stdout.readline())
        named = {flow["destinationTransportPort"]: flow.get("processId") for flow in line["flows"]
                 if flow["flowDirection"] == Direction.EGRESS}
        assert named == {7001: later.pid, 7002: before.pid}
        assert not line["owners"]["hooksRefused"]
        said = run(*without[:without.index(sys.executable)], sys.executable, "-m", "flowtop", "--check", check=False)
    assert re.search(r"processes +the open files of .* cannot be read; root, or CAP_SYS_PTRACE, may", said), said


@pytest.mark.parametrize("hide", ["hidepid", "pid namespace"])
def test_where_proc_shows_only_some_processes_the_hooks_name_them(lab: Lab, hide: str) -> None:
    """As in a container without the host's /proc: the name is the kernel's, without a command line."""
    stage = lab.namespace()
    words = _flowtop(stage, "udp dst port 7001")
    if hide == "hidepid":
        prefix = ["unshare", "-m", "sh", "-c",
                  'mount -t proc -o hidepid=invisible,gid=54322 proc /proc && exec "$@"', "sh",
                  "setpriv", "--bounding-set", NO_RIGHTS, "--inh-caps", NO_RIGHTS]
        expected = "those of other users are hidden (hidepid)"
    else:
        prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
        expected = "only those of this PID namespace are known"
    with process(*words[:2], *prefix, *words[2:], stdout=subprocess.PIPE) as child:
        assert child.stdout
        json.loads(child.stdout.readline())
        with process("nsenter", f"--net=/run/netns/{stage.name}", *SOMEBODY, sys.executable, "-c",
                     SENDER.replace('open("/proc/self/comm", "w").write("a-sender")', "")) as sender:
            flows: list[dict[str, Any]] = []
            while not any("processId" in flow for flow in flows):
                flows = [flow for flow in json.loads(child.stdout.readline())["flows"]
                         if flow["flowDirection"] == Direction.EGRESS]
            assert {flow["processId"] for flow in flows} == {sender.pid}
        child.terminate()
    assert expected in run(*prefix, sys.executable, "-m", "flowtop", "--check", check=False)


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs bpftool")
def test_without_owners_nothing_is_attached_to_cgroups(lab: Lab) -> None:
    stage = lab.namespace()
    with process(*_flowtop(stage, "--owners", "off"),
                 stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()  # a round: all is attached
        assert not _hooks(child.pid)
        stage.run("ping", "-c", "1", "127.0.0.1")
        rounds = [json.loads(child.stdout.readline()) for _ in range(2)]
    flows = [flow for each in rounds for flow in each["flows"]]
    assert flows
    assert not [flow for flow in flows if "processName" in flow]


def test_every_field_of_owners_is_in_json(lab: Lab) -> None:
    """As a user sees it: what `id -un`, /proc and the process itself say."""
    stage = lab.namespace()
    with process(*_flowtop(stage, "process a-sender"),
                 stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        with process(*stage.command(sys.executable, "-c", SENDER)) as sender:
            flows: list[dict[str, Any]] = []
            while not flows or "processCommand" not in flows[0]:
                flows = json.loads(child.stdout.readline())["flows"]
            executable = str(Path(f"/proc/{sender.pid}/exe").readlink())
            cgroup = Path(f"/proc/{sender.pid}/cgroup").read_text().splitlines()[-1].removeprefix("0::")
    flow = flows[0]
    assert (flow["processName"], flow["processId"]) == ("a-sender", sender.pid)
    assert flow["userName"] == run("id", "-un").strip()
    assert flow["processExecutable"] == executable
    assert flow["processCgroup"] == cgroup
    assert flow["processCommand"].startswith(sys.executable)
    assert f"({os.getpid()})" in flow["processParents"]


# ---- other programs on the same hooks


def _attach(program_fd: int, group: int, attach_type: int, flags: int) -> None:
    """BPF_PROG_ATTACH, as the program of another tool: without a link."""
    bpf._bpf(8, struct.pack("=4I", group, program_fd, attach_type, flags))


@pytest.mark.parametrize("exclusive", [False, True])
def test_programs_of_others_on_the_same_hooks(lab: Lab, tmp_path: Path, *, exclusive: bool) -> None:
    """Beside one that allows others flowtop's are attached; one that does not is named, on screen and by --check, and
    processes are found in /proc: in a control group of the test's own, with BPF_F_ALLOW_MULTI and without."""
    root = cgroup2_root()
    assert root is not None
    group = root / f"flowtop-test-hooks-{os.getpid()}"
    group.mkdir()
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"30 25 0:26 / {group} rw - cgroup2 none rw\n")
    stage = lab.namespace()
    with ExitStack() as opened:
        opened.callback(group.rmdir)
        program = opened.enter_context(closing(compile_program(map_entries=1024, coarse_clock=True, owners=True)))
        _, attach_type = OWNER_PROGRAMS["owner_connect4"]
        directory = os.open(group, os.O_RDONLY)
        opened.callback(os.close, directory)
        _attach(program.programs["owner_connect4"], directory, attach_type, 0 if exclusive else 2)
        route = opened.enter_context(closing(stage.call(RouteSocket)))
        owners = opened.enter_context(closing(FlowOwners(program, route, root=group)))
        found, faults = check_owners(mountinfo=mountinfo), owners.statistics.faults
    if exclusive:
        assert owners.refused == f"{group}: owner_connect4 allows no other program"
        assert found.detail.endswith(f"missed: owner_connect4 at {group} allows no other program")
        assert faults[0] == f"owners only from /proc: {owners.refused}"
    else:
        assert owners.refused == ""
        assert faults[0] == "owners outside of this container only from /proc"  # as such a mount shows one's group only
        assert found.detail.startswith(f"hooks of cgroups at {group}, beside ")
        assert found.detail.endswith("it needs --cgroupns=host")
        assert "owner_connect4" in found.detail
