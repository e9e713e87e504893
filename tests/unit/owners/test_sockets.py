"""Sockets and their processes, as `ss` and this test know them; and their join with flows."""

from __future__ import annotations

import json
import os
import socket
import struct

import numpy as np
import pytest

from flowtop.model.kinds import Direction, IpVersion, Protocol
from flowtop.model.owners import KERNEL, owner_id
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.owners import scan
from flowtop.owners.proc import OFFSET_TICKS, TICK_NS, read_stat
from flowtop.owners.sockets import SOCKET_DTYPE, Scan, SocketTable

Made = tuple[str, int, str, int, int, int, int, int, int]
"""Local and remote address and port, protocol, own namespace, of the kernel, cookie, number of the process."""


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address).ljust(16, b"\0")


def output(*sockets: Made, listed: tuple[int, ...] = (0, 6, 17, 132, 136, 255), denied: int = 0,
           partly: int = 0) -> bytes:
    """What scan.py writes; process number n has pid 1000 + n and started at tick n."""
    head = json.dumps({"processes": [[1000 + n, n + OFFSET_TICKS, f"p{n}", 0, 1] for n in range(1, 6)],
                       "listed": list(listed), "denied": denied, "partly": partly}).encode()
    body = b"".join(scan.SOCKET.pack(
        packed(local), packed(remote), local_port, remote_port, protocol, 6 if ":" in local else 4, own, kernel, cookie,
        0, holder) for local, local_port, remote, remote_port, protocol, own, kernel, cookie, holder in sockets)
    return struct.pack("=Q", len(head)) + head + body


def table(*sockets: Made, **options: object) -> SocketTable:
    return SocketTable(output(*sockets, **options), lambda pid, ticks: None)  # type: ignore[arg-type]


def process(number: int) -> int:
    return owner_id(1000 + number, number * TICK_NS)


def key(source: str, source_port: int, destination: str, destination_port: int, direction: Direction,
        protocol: int = Protocol.TCP) -> np.void:
    made = np.zeros((), FLOW_KEY_DTYPE)
    made["source_address"], made["destination_address"] = packed(source), packed(destination)
    made["source_port"], made["destination_port"] = source_port, destination_port
    made["protocol"], made["direction"] = protocol, direction
    made["ip_version"] = IpVersion.V6 if ":" in source else IpVersion.V4
    return made[()]


def owners(of: SocketTable, *keys: np.void, local: bool = True) -> list[int]:
    return of.of_flows(np.array(list(keys), FLOW_KEY_DTYPE), np.full(len(keys), local)).tolist()


CONNECTED: Made = ("192.0.2.1", 4000, "192.0.2.2", 80, 6, 1, 0, 11, 1)
LISTENING: Made = ("0.0.0.0", 80, "0.0.0.0", 0, 6, 1, 0, 12, 2)
BOUND: Made = ("192.0.2.1", 53, "0.0.0.0", 0, 17, 1, 0, 13, 3)
DUAL: Made = ("::", 443, "::", 0, 6, 1, 0, 14, 4)


def test_the_layout_is_that_of_the_scan() -> None:
    assert SOCKET_DTYPE.itemsize == scan.SOCKET.size
    table_of_one = np.frombuffer(scan.SOCKET.pack(packed("10.0.0.1"), packed("10.0.0.2"), 3, 4, 5, 6, 7, 8, 9, 10, 11),
                                 SOCKET_DTYPE)
    assert table_of_one[0].item()[2:] == (3, 4, 5, 6, 7, 8, 9, 10, 11)


def test_both_directions_of_a_connection_are_its_processs() -> None:
    assert owners(table(CONNECTED, LISTENING),
                  key("192.0.2.1", 4000, "192.0.2.2", 80, Direction.EGRESS),
                  key("192.0.2.2", 80, "192.0.2.1", 4000, Direction.INGRESS),
                  key("192.0.2.2", 81, "192.0.2.1", 4000, Direction.INGRESS)) == [process(1), process(1), 0]


def test_a_listening_socket_has_what_no_connected_one_has() -> None:
    sockets = table(CONNECTED, LISTENING, BOUND, DUAL)
    assert owners(sockets, key("198.51.100.1", 9, "192.0.2.1", 80, Direction.INGRESS),
                  key("198.51.100.1", 9, "192.0.2.1", 53, Direction.INGRESS, Protocol.UDP),
                  key("198.51.100.1", 9, "192.0.2.9", 53, Direction.INGRESS, Protocol.UDP),
                  key("198.51.100.1", 9, "192.0.2.1", 53, Direction.INGRESS),
                  key("198.51.100.1", 9, "192.0.2.1", 443, Direction.INGRESS),
                  key("2001:db8::1", 9, "2001:db8::2", 443, Direction.INGRESS),
                  ) == [process(2), process(3), 0, 0, process(4), process(4)]


def test_what_is_not_for_this_host_is_for_no_socket_without_address() -> None:
    assert owners(table(LISTENING, DUAL), key("198.51.100.1", 9, "203.0.113.5", 80, Direction.INGRESS),
                  key("198.51.100.1", 9, "203.0.113.5", 443, Direction.INGRESS), local=False) == [0, 0]


def test_sockets_of_other_namespaces_only_count_when_they_are_distinct() -> None:
    here = ("192.0.2.1", 4000, "192.0.2.2", 80, 6, 0, 0, 21, 5)
    loopback = ("127.0.0.1", 5000, "127.0.0.1", 6000, 6, 0, 0, 22, 5)
    waiting = ("0.0.0.0", 22, "0.0.0.0", 0, 6, 0, 0, 23, 5)
    away = ("10.0.0.1", 7000, "10.0.0.2", 80, 6, 0, 0, 24, 5)
    twins = [("10.0.0.3", 7000, "10.0.0.2", 80, 6, 0, 0, 25 + n, n) for n in (1, 2)]
    sockets = table(CONNECTED, here, loopback, waiting, away, *twins)
    assert owners(sockets, key("192.0.2.1", 4000, "192.0.2.2", 80, Direction.EGRESS),
                  key("127.0.0.1", 5000, "127.0.0.1", 6000, Direction.EGRESS),
                  key("198.51.100.1", 9, "192.0.2.1", 22, Direction.INGRESS),
                  key("10.0.0.1", 7000, "10.0.0.2", 80, Direction.EGRESS),
                  key("10.0.0.3", 7000, "10.0.0.2", 80, Direction.EGRESS)) == [process(1), 0, 0, process(5), 0]


def test_cookies() -> None:
    sockets = table(CONNECTED, ("0.0.0.0", 2049, "0.0.0.0", 0, 6, 1, 1, 77, 0))
    found, known = sockets.of_cookies(np.array([11, 77, 99, 0], np.uint64))
    assert found.tolist() == [process(1), KERNEL, 0, 0]
    assert known.tolist() == [True, True, False, False]
    assert table().of_cookies(np.array([5], np.uint64))[1].tolist() == [False]


@pytest.mark.parametrize(("protocol", "port", "listed", "expected"), [
    (Protocol.TCP, 80, (0, 6, 255), True), (Protocol.TCP, 80, (0, 17, 255), False),
    (Protocol.TCP, 80, (6, 255), False), (Protocol.ICMP, 3 << 8, (0, 255), True),
    (Protocol.ICMP, 8 << 8, (0, 255), False), (Protocol.ICMPV6, 128 << 8, (0, 255), False),
    (Protocol.ICMPV6, 135 << 8, (0, 255), True), (Protocol.DCCP, 80, (0, 6, 255), False),
    (Protocol.IGMP, 0, (0, 255), True)])
def test_only_where_all_sockets_are_listed_the_rest_is_the_kernels(
        protocol: Protocol, port: int, listed: tuple[int, ...], expected: bool) -> None:
    keys = np.array([key("192.0.2.1", 0, "192.0.2.2", port, Direction.EGRESS, protocol)], FLOW_KEY_DTYPE)
    here, apart = np.array([False]), np.array([True])
    assert table(listed=listed).lists(keys, here).tolist() == [expected]
    assert table(listed=listed).lists(keys, apart).tolist() == [expected]
    assert table(listed=listed, partly=1).lists(keys, here).tolist() == [expected]
    assert table(listed=listed, partly=1).lists(keys, apart).tolist() == [False]


def test_a_scan_finds_the_sockets_of_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, \
            socket.create_connection(server.getsockname()) as client, \
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("::1", 0))
        found = Scan().result()
        stat = read_stat(os.getpid())
        assert found is not None
        assert stat is not None
        sockets = SocketTable(found, lambda pid, ticks: 5 if (pid, ticks) == (os.getpid(), stat.start_ticks) else None)
        cookies = [struct.unpack("=Q", each.getsockopt(socket.SOL_SOCKET, 57, 8))[0]  # SO_COOKIE
                   for each in (server, client, datagrams)]
        assert sockets.of_cookies(np.array(cookies, np.uint64))[0].tolist() == [5, 5, 5]
        assert owners(sockets, key("127.0.0.1", client.getsockname()[1], "127.0.0.1", server.getsockname()[1],
                                   Direction.EGRESS),
                      key("127.0.0.1", 1, "127.0.0.1", server.getsockname()[1], Direction.INGRESS),
                      key("::1", 1, "::1", datagrams.getsockname()[1], Direction.INGRESS, Protocol.UDP)) == [5, 5, 5]
        assert sockets.holders[5].comm == stat.comm


def test_tables_in_proc_say_the_same_as_netlink() -> None:
    """What is used where a namespace cannot be entered."""
    with socket.create_server(("127.0.0.1", 0)) as server, \
            socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        ports = {server.getsockname()[1], six.getsockname()[1]}
        netlink = {each[:7] + each[8:] for family in (socket.AF_INET, socket.AF_INET6)
                   for each in scan.inet_sockets(family, socket.IPPROTO_TCP) if each[2] in ports}
        tables = {each[:7] + each[8:] for each in scan.table_sockets(scan._PROC / "self/net") if each[2] in ports}
        assert len(netlink) == 2
        assert tables == netlink


def test_of_several_processes_the_listener_is_the_first_ones_and_a_connection_the_last_ones() -> None:
    processes = [(10, 300, "b", 0, 1), (11, 100, "a", 0, 1), (12, 200, "c", 0, 1)]
    assert scan._holder([0, 1, 2], processes, shared=True) == 1
    assert scan._holder([0, 1, 2], processes, shared=False) == 0
    assert scan._holder([], processes, shared=True) == -1
