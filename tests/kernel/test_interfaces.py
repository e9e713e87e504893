"""Interfaces come and go while a capture runs; the books stay exact from attach to detach."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable

import pytest

from flowtop.capture.ebpf.interfaces import Links
from flowtop.capture.ebpf.netlink import RouteSocket
from flowtop.model.kinds import Direction
from tests.descriptors import open_descriptors
from tests.kernel.netns import Lab, Namespace, Recorder, eventually, hooks, process, scaled


def send_datagrams(namespace: Namespace, address: str, count: int) -> None:
    """`count` datagrams of 46 octets."""
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(count):
                sender.sendto(bytes(18), (address, 9))

    namespace.call(send)


def ask_links(namespace: Namespace, question: Callable[[Links], object]) -> object:
    def ask() -> object:
        route = RouteSocket()
        try:
            return question(Links(route))
        finally:
            route.close()

    return namespace.call(ask)


def test_the_list_agrees_with_iproute2(lab: Lab) -> None:
    near, _ = lab.pair()
    near.ip("link add veth1 type veth peer name veth2")
    listed = ask_links(near, lambda links: [
        (interface.index, interface.name, interface.link_type, interface.up) for interface in links.list()])
    expected = []
    for name in near.run("ls", "/sys/class/net").split():
        index, link_type, flags = (int(near.run("cat", f"/sys/class/net/{name}/{what}"), 0)
                                   for what in ("ifindex", "type", "flags"))
        expected.append((index, name, link_type, bool(flags & 1)))
    assert listed == sorted(expected)


def test_errors_drops_and_drops_of_queues_agree_with_iproute2(lab: Lab) -> None:
    """A queue that lets hardly anything pass, as `tc -s qdisc` counts it."""
    near, _ = lab.pair()
    near.run("tc", "qdisc", "replace", "dev", "veth0", "root", "tbf", "rate", "8kbit", "burst", "1600", "limit", "1600")
    send_datagrams(near, "198.18.0.1", 300)
    index = int(near.run("cat", "/sys/class/net/veth0/ifindex"))

    def read(links: Links) -> tuple[object, object]:
        links.counters()
        return links.faults[index], links.queues()[index]

    faults, (dropped, waiting) = ask_links(near, read)  # type: ignore[misc]
    [queue] = [one for one in json.loads(near.run("tc", "-s", "-j", "qdisc", "show", "dev", "veth0"))
               if one.get("root")]
    statistics = near.link_statistics("veth0")
    assert dropped == queue["drops"] > 100 and waiting <= 300 - dropped
    assert faults == tuple(statistics[way][what] for what in ("errors", "dropped") for way in ("rx", "tx"))


def test_counters_agree_with_iproute2(lab: Lab) -> None:
    near, _ = lab.pair()
    send_datagrams(near, "198.18.0.1", 7)
    (index,) = [int(near.run("cat", "/sys/class/net/veth0/ifindex"))]
    counters, one = ask_links(near, lambda links: (links.counters()[index], links.counters_of(index)))  # type: ignore[misc]
    statistics = near.link_statistics("veth0")
    expected = (statistics["rx"]["packets"], statistics["tx"]["packets"],
                statistics["rx"]["bytes"], statistics["tx"]["bytes"])
    assert counters == one == expected
    assert expected[1] == 7
    assert ask_links(near, lambda links: links.counters_of(99_999)) is None


@pytest.mark.parametrize("method", ["auto", "clsact"])
def test_an_interface_deleted_and_created_again(lab: Lab, method: str) -> None:
    """Same name, new ifindex, then the same ifindex too: each time exact, to the last packet before the deletion."""
    near, far = lab.namespace(), lab.namespace()
    index = 700
    total = 0
    with Recorder(near, "come[0-9]", attach=method) as recorder:
        for generation, forced in enumerate((index, index + 1, index)):
            near.ip(f"link add come0 index {forced} type veth peer name veth0 netns {far.name}")
            near.ip("addr add 10.79.0.1/24 dev come0")
            near.ip("link set come0 up")
            far.ip("link set veth0 up")
            near.ip("neigh add 10.79.0.2 lladdr 02:00:00:00:79:02 dev come0")
            near.await_up("come0")
            eventually(lambda: hooks(near, "come0") == 2, "attached")
            count = 100 + generation
            send_datagrams(near, "10.79.0.2", count)
            total += count
            near.ip("link del come0")
            if generation != 1:  # the second change falls between two looks
                eventually(lambda: "come0" not in recorder.attached(), "detached")
    books = recorder.books
    assert books.imbalances == []
    for ifindex, count in ((index, 100 + 102), (index + 1, 101)):
        point = books.by_index[ifindex, Direction.EGRESS]
        assert point.flow_packets == point["frames"] == count
        assert point["interface_packets"] == count, "what the interface itself had counted when it went"
    assert sum(packets for _, packets, _ in books.flows()) == total


def test_by_default_what_is_up_is_observed_and_down_does_no_harm(lab: Lab) -> None:
    near, far = lab.pair()
    near.ip("link add idle0 type veth peer name idle1")
    with Recorder(near) as recorder:
        eventually(lambda: recorder.attached() == ("lo", "veth0"), "what is up is observed")
        send_datagrams(near, "198.18.0.1", 10)
        near.ip("link set idle0 up")
        eventually(lambda: "idle0" in recorder.attached(), "what comes up is observed")
        assert "idle1" not in recorder.attached()
        near.ip("link set veth0 down")
        far.ip("link set veth0 down")
        near.ip("link set veth0 up")
        far.ip("link set veth0 up")
        near.await_up("veth0")
        near.ip("route add 198.18.0.0/15 via 10.77.0.2")
        near.ip("neigh replace 10.77.0.2 lladdr 02:00:00:00:77:02 dev veth0")
        send_datagrams(near, "198.18.0.1", 10)
    point = recorder.books.points["veth0", Direction.EGRESS]
    assert recorder.books.imbalances == []
    assert point.flow_packets == point["interface_packets"] == 20


def test_one_asked_for_by_name_is_observed_though_down(lab: Lab) -> None:
    near, _ = lab.pair()
    near.ip("link set veth0 down")
    with Recorder(near, "veth0") as recorder:
        eventually(lambda: recorder.attached() == ("veth0",), "attached")


def test_a_renamed_interface_keeps_its_books(lab: Lab) -> None:
    near, _ = lab.pair()
    with Recorder(near, "veth0") as recorder:
        eventually(lambda: recorder.attached() == ("veth0",), "attached")
        send_datagrams(near, "198.18.0.1", 10)
        near.ip("link set veth0 name wan0")
        eventually(lambda: recorder.attached() == ("wan0",), "the new name shows")
        send_datagrams(near, "198.18.0.1", 10)
    books = recorder.books
    assert books.imbalances == []
    point = books.points["wan0", Direction.EGRESS]
    assert point.flow_packets == point["interface_packets"] == 20


def test_an_interface_moved_to_another_namespace_is_let_go(lab: Lab) -> None:
    near, far = lab.pair()
    near.ip("link add moving0 type veth peer name moving1")
    near.ip("link set moving0 up")
    with Recorder(near, "moving0", "veth0") as recorder:
        eventually(lambda: recorder.attached() == ("moving0", "veth0"), "attached")
        near.ip(f"link set moving0 netns {far.name}")
        eventually(lambda: recorder.attached() == ("veth0",), "detached")
        send_datagrams(near, "198.18.0.1", 10)
    assert recorder.books.imbalances == []
    assert recorder.books.points["veth0", Direction.EGRESS].flow_packets == 10


def test_200_veths_within_two_seconds(lab: Lab) -> None:
    """All are attached, and every packet from then on is in the books of its interface."""
    near = lab.namespace()
    pairs = 100
    with Recorder(near, "[mn]any*") as recorder:
        batch = "".join(f"link add many{number} type veth peer name nany{number}\nlink set many{number} up\n"
                        f"link set nany{number} up\naddr add 10.80.{number}.1/24 dev many{number}\n"
                        f"neigh add 10.80.{number}.2 lladdr 02:00:00:00:80:02 dev many{number}\n"
                        for number in range(pairs))
        with process(*near.command("ip", "-batch", "-"), stdin=subprocess.PIPE) as child:
            child.communicate(batch)
            assert child.returncode == 0
        eventually(lambda: len(recorder.attached()) == 2 * pairs, "all are attached")
        near.await_up(*(f"many{number}" for number in range(pairs)))

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for number in range(pairs):
                    for _ in range(number + 1):
                        sender.sendto(bytes(18), (f"10.80.{number}.2", 9))

        near.call(send)
        near.ip("link del many7")
        eventually(lambda: len(recorder.attached()) == 2 * pairs - 2, "a pair is gone")
    books = recorder.books
    assert books.imbalances == []
    for number in range(pairs):
        assert books.points[f"many{number}", Direction.EGRESS].flow_packets == number + 1
        assert books.points[f"nany{number}", Direction.INGRESS].flow_packets == number + 1
    for (name, direction), point in books.points.items():
        assert point["frames"] == point["interface_packets"], (name, direction)


def test_interfaces_whose_slots_collide_have_books_of_their_own(lab: Lab) -> None:
    """512 slots: 1000 and 1512 share one, 1024 has the slot of nobody; all three are exact."""
    near, far = lab.namespace(), lab.namespace()
    indexes = (1000, 1512, 1024)
    for number, index in enumerate(indexes):
        near.ip(f"link add slot{number} index {index} type veth peer name peer{number} netns {far.name}")
        near.ip(f"addr add 10.81.{number}.1/24 dev slot{number}")
        near.ip(f"link set slot{number} up")
        far.ip(f"link set peer{number} up")
        near.ip(f"neigh add 10.81.{number}.2 lladdr 02:00:00:00:81:02 dev slot{number}")
    near.await_up(*(f"slot{number}" for number in range(3)))
    with Recorder(near, "slot*") as recorder:
        for number in range(3):
            send_datagrams(near, f"10.81.{number}.2", scaled(100) + number)
        near.ip("link del slot0")
        eventually(lambda: "slot1" in recorder.attached() and "slot0" not in recorder.attached(), "detached")
        send_datagrams(near, "10.81.1.2", 5)
    books = recorder.books
    assert books.imbalances == []
    for number, more in ((0, 0), (1, 5), (2, 0)):
        point = books.points[f"slot{number}", Direction.EGRESS]
        expected = scaled(100) + number + more
        assert (point.flow_packets, point["frames"], point["interface_packets"]) == (expected,) * 3


def test_an_interface_deleted_just_before_the_end_is_counted(lab: Lab) -> None:
    near, _ = lab.pair()
    with Recorder(near, "veth0", delay_s=3600) as recorder:
        send_datagrams(near, "198.18.0.1", 10)
        recorder.capture.wake()
        eventually(lambda: recorder.books.drains > 0, "drained")
        send_datagrams(near, "198.18.0.1", 10)
        near.ip("link del veth0")
    point = recorder.books.points["veth0", Direction.EGRESS]
    assert recorder.books.imbalances == []
    assert (point.flow_packets, point["frames"], point["interface_packets"]) == (20, 20, 20)


def test_a_bridge_port_leaving_its_bridge_stays_observed(lab: Lab) -> None:
    near, _ = lab.pair()
    try:
        near.ip("link add bridge0 type bridge")
    except AssertionError:
        pytest.skip("this kernel has no bridge")
    near.ip("link set veth0 master bridge0")
    with Recorder(near, "veth0") as recorder:
        near.ip("link set veth0 nomaster")
        near.ip("route replace 198.18.0.0/15 via 10.77.0.2")
        send_datagrams(near, "198.18.0.1", 10)
    assert recorder.attached() == ("veth0",)
    point = recorder.books.points["veth0", Direction.EGRESS]
    assert point.flow_packets == point["interface_packets"] == 10


def test_events_do_not_leak_descriptors(lab: Lab) -> None:
    near, _ = lab.pair()
    before = open_descriptors()
    with Recorder(near, "veth0"):
        pass
    assert not open_descriptors() - before
