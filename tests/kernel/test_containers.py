"""Containers made by hand, with a bridge and address translation: the same process is named wherever its packets pass,
and each packet counts once."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowtop.capture.ebpf.capture import EbpfConfig
from flowtop.model.kinds import Direction, Protocol
from flowtop.model.translations import TRANSLATIONS, Flow
from flowtop.owners.cgroups import cgroup2_root
from tests.kernel import container_actor, nat
from tests.kernel.netns import Lab, Namespace, Recorder, compile_c, eventually, process, scaled
from tests.kernel.test_owners import OwningCapture, Seen

IDS = ("a1b2" * 16, "c3d4" * 16)
UPLINK, BRIDGE = "veth0", "br0"
OUTSIDE = "10.79.0.2"


class MarkingCapture(OwningCapture):
    """As flowtop does by default."""

    dedupe = "mark"


class Container:
    """A process in its own network namespace and control group."""

    def __init__(self, child: subprocess.Popen[str], namespace: Namespace, address: str, name: str, port: str) -> None:
        self._child = child
        self.namespace = namespace
        self.address = address
        self.name = name
        self.port = port
        assert child.stdout
        self.pid = int(child.stdout.readline())

    def do(self, task: str) -> int:
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(task + "\n")
        self._child.stdin.flush()
        return int(self._child.stdout.readline())


@dataclass(frozen=True)
class Site:
    """A host with two containers, and what is outside."""

    host: Namespace
    outside: Namespace
    containers: tuple[Container, Container]

    @property
    def interfaces(self) -> tuple[str, ...]:
        return UPLINK, BRIDGE, *(each.port for each in self.containers)


@contextmanager
def site(lab: Lab, *, translate: bool = True) -> Iterator[Site]:
    """Bridge 10.88.0.1/24 with containers .2 and .3 at c0 and c1; uplink 10.77.0.1 by veth0 to a router, behind which
    OUTSIDE is: what was routed does not carry its socket, as if it came from another host. Neighbours are known: no
    ARP, which interfaces would count."""
    root = cgroup2_root()
    if root is None:
        pytest.skip("needs cgroup v2")
    host, router = lab.pair(offload=False)
    outside = lab.namespace()
    for namespace in (host, router):
        namespace.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    outside.ip(f"link add veth0 type veth peer name veth1 netns {router.name}")
    outside.ip(f"addr add {OUTSIDE}/24 dev veth0")
    outside.ip("link set veth0 up")
    outside.ip("route add default via 10.79.0.1")
    router.ip("addr add 10.79.0.1/24 dev veth1")
    router.ip("link set veth1 up")
    outside.await_up("veth0")
    host.ip("route add default via 10.77.0.2")
    host.ip("link add br0 address 02:00:00:00:88:01 type bridge forward_delay 0 mcast_snooping 0")
    host.ip("addr add 10.88.0.1/24 dev br0")
    host.ip("link set br0 up")
    if translate:
        host.call(lambda: nat.masquerade(UPLINK))
    else:
        router.ip("route add 10.88.0.0/24 via 10.77.0.1")
        router.ip("route add 10.128.0.0/9 via 10.77.0.1")
    with ExitStack() as opened:
        made = []
        for number, container_id in enumerate(IDS):
            inside, address, mac = lab.namespace(), f"10.88.0.{number + 2}", f"02:00:00:00:88:0{number + 2}"
            host.ip(f"link add c{number} type veth peer name eth0 netns {inside.name}")
            host.ip(f"link set c{number} master br0 up")
            inside.ip(f"link set eth0 address {mac} up")
            inside.ip(f"addr add {address}/24 dev eth0")
            inside.ip("route add default via 10.88.0.1")
            inside.ip("neigh add 10.88.0.1 lladdr 02:00:00:00:88:01 dev eth0")
            inside.ip(f"neigh add 10.88.0.{3 - number} lladdr 02:00:00:00:88:0{3 - number} dev eth0")
            host.ip(f"neigh add {address} lladdr {mac} dev br0")
            host.run("bridge", "fdb", "replace", mac, "dev", f"c{number}", "master", "static")
            for namespace, interface in ((host, f"c{number}"), (inside, "eth0")):
                namespace.run("ethtool", "-K", interface, "gso", "off", "tso", "off", "gro", "off")
            group = root / f"flowtop-test-{os.getpid()}-{number}" / f"docker-{container_id}.scope"
            group.mkdir(parents=True)
            opened.callback(group.parent.rmdir)
            opened.callback(_remove, group)
            name = f"c{number}-app"
            child = opened.enter_context(process(
                "nsenter", f"--net=/run/netns/{inside.name}", "unshare", "--uts", "--ipc", sys.executable,
                container_actor.__file__, str(group), name, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            inside.await_up("eth0")
            made.append(Container(child, inside, address, name, f"c{number}"))
        host.await_up("br0")
        yield Site(host, outside, (made[0], made[1]))


def _remove(group: Path) -> None:
    def empty() -> bool:
        try:
            group.rmdir()
        except OSError:
            return False
        return True

    eventually(empty, f"{group} is empty")


@contextmanager
def outside_server(place: Site, port: int) -> Iterator[None]:
    with place.outside.call(lambda: socket.create_server((OUTSIDE, port))) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield


def _serve(server: socket.socket) -> None:
    try:
        container_actor.serve(server)
    except OSError:
        return


def recorder(place: Site, *interfaces: str, **config: object) -> Recorder:
    def capture(options: EbpfConfig) -> MarkingCapture:
        return MarkingCapture(options)

    return Recorder(place.host, *(interfaces or place.interfaces), capture=capture, owners=True, **config)


def flows_of(made: Recorder, protocol: Protocol) -> list[Seen]:
    assert isinstance(made.capture, MarkingCapture)
    return [flow for flow in made.capture.seen() if flow.protocol == protocol]


def points_of(made: Recorder, flows: list[Seen]) -> set[tuple[str, Direction]]:
    assert made.books.batch is not None
    return {(made.books.batch.interfaces[flow.ifindex], flow.direction) for flow in flows}


def everywhere(port: str) -> set[tuple[str, Direction]]:
    """Where the packets of a container's conversation with the outside pass, both ways."""
    both = {Direction.INGRESS, Direction.EGRESS}
    return {(interface, direction) for interface in (port, BRIDGE, UPLINK) for direction in both}


def check_owned(made: Recorder, flows: list[Seen], container: Container, container_id: str) -> None:
    assert points_of(made, flows) == everywhere(container.port)
    for flow in flows:
        assert (flow.process, flow.pid) == (container.name, container.pid), flow
        assert flow.container == container_id[:12], flow


@pytest.mark.parametrize("translate", [True, False], ids=["masquerade", "routed"])
def test_a_container_is_named_on_veth_bridge_and_uplink_and_counts_once(lab: Lab, *, translate: bool) -> None:
    with site(lab, translate=translate) as place, outside_server(place, 7000), \
            place.outside.call(lambda: _receiver(7001)):
        before = [place.host.link_statistics(each.port) for each in place.containers]
        with recorder(place) as recording:
            ports = [each.do(f"talk {OUTSIDE} 7000 20") for each in place.containers]
            sent = [each.do(f"send {OUTSIDE} 7001") for each in place.containers]
            time.sleep(0.3)
        after = [place.host.link_statistics(each.port) for each in place.containers]
    for container, container_id, port, datagram in zip(place.containers, IDS, ports, sent, strict=True):
        mine = [flow for flow in flows_of(recording, Protocol.TCP)
                if port in (flow.source_port, flow.destination_port)]
        check_owned(recording, mine, container, container_id)
        asked = [flow for flow in flows_of(recording, Protocol.UDP) if flow.source_port == datagram]
        assert points_of(recording, asked) == {(container.port, Direction.INGRESS), (BRIDGE, Direction.INGRESS),
                                               (UPLINK, Direction.EGRESS)}
        assert {(flow.process, flow.pid) for flow in asked} == {(container.name, container.pid)}
    uplinks = {address for flow in recording.capture.seen()  # type: ignore[attr-defined]
               if points_of(recording, [flow]) == {(UPLINK, Direction.EGRESS)} for address in flow.hosts}
    assert uplinks == ({"10.77.0.1", OUTSIDE} if translate else {"10.88.0.2", "10.88.0.3", OUTSIDE})
    totals = recording.capture.table.totals  # type: ignore[attr-defined]
    passed = sum(new[way]["packets"] - old[way]["packets"] for old, new in zip(before, after, strict=True)
                 for way in ("rx", "tx"))
    assert passed > 80
    assert totals.accounted_packets == 3 * passed
    assert totals.accounted_packets - totals.duplicate_packets == passed


def test_both_sides_of_a_translation_are_told(lab: Lab) -> None:
    with site(lab) as place, outside_server(place, 7000), recorder(place) as recording:
        port = place.containers[0].do(f"talk {OUTSIDE} 7000 2")
        time.sleep(0.3)
        assert isinstance(recording.capture, MarkingCapture)
        texts = recording.capture.texts[TRANSLATIONS]

    def code(source: str, source_port: int, destination: str, destination_port: int) -> int:
        ends = [socket.inet_aton(address).ljust(16, b"\0") for address in (source, destination)]
        return Flow(ends[0], ends[1], source_port, destination_port, Protocol.TCP, 4).code

    # Masquerading keeps the port if it is free.
    inner, outer = ("10.88.0.2", port, OUTSIDE, 7000), ("10.77.0.1", port, OUTSIDE, 7000)
    assert texts[code(*inner)] == f"10.77.0.1:{port} > {OUTSIDE}:7000"
    assert texts[code(*outer)] == f"10.88.0.2:{port} > {OUTSIDE}:7000"
    assert texts[code(*inner[2:], *inner[:2])] == f"{OUTSIDE}:7000 > 10.77.0.1:{port}"
    assert texts[code(*outer[2:], *outer[:2])] == f"{OUTSIDE}:7000 > 10.88.0.2:{port}"
    assert texts.get(code("10.88.0.2", port, OUTSIDE, 7001)) is None


def test_without_nat_the_translated_side_is_forwarded(lab: Lab) -> None:
    with site(lab) as place, outside_server(place, 7000), recorder(place, nat=False) as recording:
        port = place.containers[0].do(f"talk {OUTSIDE} 7000 5")
        time.sleep(0.3)
    flows = [flow for flow in flows_of(recording, Protocol.TCP) if port in (flow.source_port, flow.destination_port)]
    sides = {name: {flow.process for flow in flows if points_of(recording, [flow]) <= {
        (name, Direction.INGRESS), (name, Direction.EGRESS)}} for name in (UPLINK, BRIDGE, "c0")}
    assert sides == {UPLINK: {"forwarded", ""}, BRIDGE: {"c0-app"}, "c0": {"c0-app"}}


def test_a_published_port_is_the_servers_in_the_container(lab: Lab) -> None:
    with site(lab) as place:
        place.host.call(lambda: nat.publish(UPLINK, "10.88.0.2"))
        place.containers[0].do("serve 8080")
        with recorder(place) as recording:
            for _ in range(3):
                with place.outside.call(lambda: socket.create_connection(("10.77.0.1", 8080))) as client:
                    client.sendall(bytes(container_actor.SIZE))
                    container_actor.exactly(client)
            time.sleep(0.3)
    check_owned(recording, flows_of(recording, Protocol.TCP), place.containers[0], IDS[0])


@pytest.mark.parametrize("published", [False, True], ids=["routed", "published"])
def test_a_container_that_only_receives_is_named(lab: Lab, *, published: bool) -> None:
    """Datagrams from outside to a service that was there before flowtop, and to one that comes after it."""
    with site(lab, translate=published) as place:
        container, other = place.containers
        address = own_address(place, container)
        if published:
            place.host.call(lambda: nat.publish(UPLINK, address))
        container.do("receive 8080")
        target = "10.77.0.1" if published else address
        with recorder(place) as recording:
            assert isinstance(recording.capture, MarkingCapture)
            capture = recording.capture
            passed = {(UPLINK, Direction.INGRESS), (BRIDGE, Direction.EGRESS), ("c0", Direction.EGRESS)}

            def named(port: int) -> bool:
                place.outside.call(lambda: _send(target, port))
                if recording.books.batch is None:
                    return False
                flows = [flow for flow in capture.seen() if flow.destination_port == port]
                return points_of(recording, flows) == passed and {(flow.process, flow.pid) for flow in flows} == {
                    (container.name, container.pid)}

            eventually(lambda: named(8080), "the older service has its flows")
            if not published:
                other.do("receive 8081")
                container.do("receive 8081")
                eventually(lambda: named(8081), "the newer service has its flows, and not the one of the other")
    for flow in flows_of(recording, Protocol.UDP):
        assert flow.container == IDS[0][:12]


def test_who_is_behind_an_address_of_two_containers_is_not_guessed(lab: Lab) -> None:
    """A service receives in one of them, the packets go to the other one."""
    with site(lab, translate=False) as place:
        first, second = place.containers
        shared, alone = own_address(place, first), own_address(place, second)
        second.namespace.ip(f"addr add {shared}/32 dev lo")
        second.do("receive 8080")
        with recorder(place) as recording:
            assert isinstance(recording.capture, MarkingCapture)
            capture = recording.capture

            def listed() -> bool:
                place.outside.call(lambda: _send(shared, 8080))
                place.outside.call(lambda: _send(alone, 8080))
                return recording.books.batch is not None and any(
                    alone in flow.hosts and flow.pid == second.pid for flow in capture.seen())

            eventually(listed, "sockets are listed")
    flows = [flow for flow in flows_of(recording, Protocol.UDP) if shared in flow.hosts]
    assert flows and {flow.process for flow in flows} <= {"forwarded", ""}


_NUMBERS = itertools.count(os.getpid() << 3)


def own_address(place: Site, container: Container) -> str:
    """Give a container an address that no other network namespace of this machine has, also not of other tests."""
    number = next(_NUMBERS)
    address = f"10.{128 | number >> 16 & 127}.{number >> 8 & 255}.{number & 255}"
    container.namespace.ip(f"addr add {address}/32 dev eth0")
    place.host.ip(f"route add {address} via {container.address}")
    return address


def _send(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("0.0.0.0", 30_000))
        sender.sendto(bytes(container_actor.SIZE), (host, port))
    time.sleep(0.05)


def test_connections_that_are_older_than_flowtop_are_named(lab: Lab) -> None:
    with site(lab) as place, outside_server(place, 7000):
        container = place.containers[0]
        port = container.do(f"hold {OUTSIDE} 7000")
        with recorder(place) as recording:
            assert isinstance(recording.capture, MarkingCapture)
            capture = recording.capture

            def named() -> bool:
                container.do("use")
                flows = capture.seen() if hasattr(capture, "texts") else []  # after the first drain
                mine = [flow for flow in flows if port in (flow.source_port, flow.destination_port)]
                return len(mine) == 6 and {flow.pid for flow in mine} == {container.pid}

            eventually(named, "all have the process")
    check_owned(recording, [flow for flow in flows_of(recording, Protocol.TCP)
                            if port in (flow.source_port, flow.destination_port)], container, IDS[0])


def test_of_two_containers_each_is_named_for_what_it_sends(lab: Lab) -> None:
    with site(lab) as place:
        place.containers[1].do("serve 8080")
        with recorder(place) as recording:
            port = place.containers[0].do("talk 10.88.0.3 8080 5")
            time.sleep(0.3)
    flows = [flow for flow in flows_of(recording, Protocol.TCP) if port in (flow.source_port, flow.destination_port)]
    assert points_of(recording, flows) == {(name, way) for name in ("c0", "c1") for way in Direction}
    assert {(flow.source_port == port, flow.process) for flow in flows} == {(True, "c0-app"), (False, "c1-app")}


def test_what_a_container_sends_to_the_host_is_the_hosts_service(lab: Lab) -> None:
    """By TCP and UDP, to sockets for any address, which were there before and after flowtop's start."""
    with site(lab) as place, place.host.call(lambda: socket.create_server(("0.0.0.0", 5000))) as old, \
            place.host.call(lambda: _receiver(5001)):
        threading.Thread(target=_serve, args=(old,), daemon=True).start()
        with recorder(place) as recording:
            assert isinstance(recording.capture, MarkingCapture)
            capture = recording.capture
            ports = {place.containers[0].do("talk 10.88.0.1 5000 5")}

            def named() -> bool:
                ports.add(place.containers[0].do("send 10.88.0.1 5001"))
                return hasattr(capture, "texts") and any(
                    flow.destination_port == 5001 and flow.pid == os.getpid() for flow in capture.seen())

            eventually(named, "the service is named")
    for flow in flows_of(recording, Protocol.TCP):
        assert flow.pid == os.getpid(), flow


def test_what_passes_an_address_of_the_host_to_another_container_is_its_senders(lab: Lab) -> None:
    """A port that is published on the bridge: what comes in is for this host, what leaves is not."""
    with site(lab) as place:
        sender, receiver = place.containers
        place.host.call(lambda: nat.publish(BRIDGE, receiver.address))
        receiver.do("receive 8080")
        with recorder(place) as recording:
            for _ in range(3):
                sender.do("send 10.88.0.1 8080")
                time.sleep(0.2)
    flows = [flow for flow in flows_of(recording, Protocol.UDP) if flow.destination_port == 8080]
    assert (receiver.port, Direction.EGRESS) in points_of(recording, flows)
    assert {(flow.process, flow.pid) for flow in flows} == {(sender.name, sender.pid)}


BRIEF_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 8080)) as connection:
    connection.sendall(bytes(100))
    print(connection.getsockname()[1])
"""


@pytest.mark.parametrize("tick_s", [0.1, 60.0])
def test_a_process_that_has_ended_keeps_its_connection_to_a_container(lab: Lab, tick_s: float) -> None:
    """The container closes when no socket here is there to receive that: ticks later, or in the same one."""
    near, far = lab.pair()
    with far.call(lambda: socket.create_server(("10.77.0.2", 8080))) as server:
        recording = Recorder(near, "veth0", delay_s=tick_s, capture=OwningCapture, owners=True)
        with recording:
            with process(*near.command(sys.executable, "-c", BRIEF_CLIENT, "10.77.0.2"),
                         stdout=subprocess.PIPE) as client, server.accept()[0] as connection:
                while connection.recv(100):
                    pass
                client.wait()
                assert client.stdout
                port = int(client.stdout.read())
                time.sleep(0.5)
            time.sleep(0.3)
    assert isinstance(recording.capture, OwningCapture)
    flows = [flow for flow in recording.capture.seen() if port in (flow.source_port, flow.destination_port)]
    assert {(flow.direction, flow.pid) for flow in flows} == {(way, client.pid) for way in Direction}


def _receiver(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", port))
    return made


def test_a_ping_from_a_container_is_the_pings(lab: Lab) -> None:
    with site(lab) as place, recorder(place) as recording:
        place.containers[0].do(f"ping {OUTSIDE}")
        time.sleep(0.3)
    flows = flows_of(recording, Protocol.ICMP)
    assert points_of(recording, flows) == everywhere("c0")
    assert {(flow.process, flow.container) for flow in flows} == {("ping", IDS[0][:12])}


def test_processes_that_live_50_ms_in_a_container_are_known_at_the_uplink(lab: Lab, tmp_path: Path) -> None:
    program, number = compile_c(Path(__file__).with_name("short_lived.c"), tmp_path / "short_lived"), scaled(300)
    with site(lab) as place, place.outside.call(lambda: _receiver(7001)), recorder(place) as recording:
        said = place.containers[0].namespace.run(str(program), str(number), "udp", OUTSIDE, "7001")
        time.sleep(0.3)
    expected = {int(port): (int(pid), name) for pid, name, port in map(str.split, said.splitlines())}
    assert len(expected) == number
    flows = flows_of(recording, Protocol.UDP)
    for interface, direction in (("c0", Direction.INGRESS), (BRIDGE, Direction.INGRESS), (UPLINK, Direction.EGRESS)):
        found = {flow.source_port: (flow.pid, flow.process) for flow in flows
                 if points_of(recording, [flow]) == {(interface, direction)}}
        assert found == expected
