"""Sockets and their processes, as `ss` and this test know them; and their join with flows."""

from __future__ import annotations

import os
import socket
import struct
from array import array
from pathlib import Path

import numpy as np
import pytest

from flowtop.model.kinds import Direction, IpVersion, Protocol
from flowtop.model.owners import KERNEL, owner_id
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.owners import scan
from flowtop.owners.proc import OFFSET_TICKS, TICK_NS, read_stat
from flowtop.owners.socket_list import SOCKET_DTYPE, SocketList
from flowtop.owners.sockets import NOBODY_YET, Scan, SocketTable

Made = tuple[str, int, str, int, int, int, int, int, int]
"""Local and remote address and port, protocol, own namespace, of the kernel, cookie, number of the process."""


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address).ljust(16, b"\0")


def table(*sockets: Made, listed: tuple[int, ...] = (0, 6, 17, 132, 136, 255), partly: int = 0) -> SocketTable:
    """Process number n has pid 1000 + n and started at tick n."""
    rows = np.array([(
        np.void(packed(local)), np.void(packed(remote)), local_port, remote_port, protocol, 6 if ":" in local else 4,
        own, kernel, cookie, 0, holder)
        for local, local_port, remote, remote_port, protocol, own, kernel, cookie, holder in sockets], SOCKET_DTYPE)
    processes = [[1000 + n, n + OFFSET_TICKS, f"p{n}", 0, 1] for n in range(1, 6)]
    return SocketTable(SocketList(rows, processes, list(listed), 0, partly), lambda pid, ticks: None)


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
        me = os.getpid(), stat.start_ticks
        sockets = SocketTable(SocketList.of(found), lambda pid, ticks: 5 if (pid, ticks) == me else None)
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
        ports = [server.getsockname()[1], six.getsockname()[1]]
        dumps = [dump for family in (socket.AF_INET, socket.AF_INET6)
                 for dump in scan.inet_dumps(family, socket.IPPROTO_TCP)]
        found = []
        for each in (dumps, scan.table_dumps(scan._PROC / "self/net")):
            sockets = listed(each).sockets
            mine = sockets[np.isin(sockets["local_port"], ports) & (sockets["protocol"] == 6)]
            found.append(set(mine[["local_address", "remote_address", "local_port", "remote_port", "ip_version",
                                   "of_kernel", "inode"]].tolist()))
        assert len(found[0]) == 2
        assert found[0] == found[1]


# ---- what the kernel says, taken apart


def message(local: str, port: int, remote: str, remote_port: int, *, state: int, inode: int = 0,
            more: int = 0) -> bytes:
    """As netlink(7) and uapi/linux/inet_diag.h describe it: struct nlmsghdr, struct inet_diag_msg, attributes."""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    body = struct.pack("=BBBB", family, state, 0, 0) + struct.pack(">HH", port, remote_port)
    body += packed(local) + packed(remote) + struct.pack("=III", 0, port, 7) + struct.pack("=IIIII", 0, 0, 0, 0, inode)
    return struct.pack("=IHHII", 16 + len(body) + more, 20, 2, 1, 0) + body + bytes(more)


ESTABLISHED, CLOSED, LISTEN = 1, 7, 10
"""As ss and net/tcp_states.h number them."""


def listed(dumps: list[scan.Dump], processes: list[scan.Process] | None = None, having: tuple[int, ...] = (),
           indexes: tuple[int, ...] = (), *, complete: bool = True) -> SocketList:
    return SocketList.of(scan.packed([scan.Group(dumps, True, set())], processes or [], array("Q", having),
                                     array("Q", indexes), listed=[], denied=0, complete=complete))


def test_what_the_kernel_says_of_a_socket() -> None:
    messages = [message("192.0.2.1", 4000, "192.0.2.2", 80, state=ESTABLISHED, inode=9, more=8),
                message("192.0.2.1", 4001, "192.0.2.2", 80, state=ESTABLISHED, inode=10, more=8)]
    sockets = listed([scan.Dump(6, 4, len(messages[0]), b"".join(messages))]).sockets
    assert [(bytes(row["local_address"]), bytes(row["remote_address"])) for row in sockets] == [
        (packed("192.0.2.1"), packed("192.0.2.2"))] * 2
    assert sockets[["local_port", "remote_port", "protocol", "ip_version", "own", "cookie", "inode"]].tolist() == [
        (4000, 80, 6, 4, 1, 7 << 32 | 4000, 9), (4001, 80, 6, 4, 1, 7 << 32 | 4001, 10)]


@pytest.mark.parametrize(("local", "remote", "version", "plain"), [
    ("2001:db8::1", "2001:db8::2", 6, "2001:db8::1"), ("::ffff:192.0.2.1", "::ffff:192.0.2.2", 4, "192.0.2.1"),
    ("::", "::ffff:192.0.2.2", 4, "0.0.0.0"), ("::", "::", 6, "::"), ("::ffff:192.0.2.1", "::", 4, "192.0.2.1")])
def test_a_socket_of_ipv6_that_talks_ipv4_is_one_of_ipv4(local: str, remote: str, version: int, plain: str) -> None:
    octets = message(local, 1, remote, 2, state=ESTABLISHED)
    (row,) = listed([scan.Dump(6, 6, len(octets), octets)]).sockets
    assert (row["ip_version"], bytes(row["local_address"])) == (version, packed(plain))


def test_messages_of_many_lengths_are_the_same_sockets_as_those_of_one() -> None:
    """A listening socket of IPv6 has an attribute more."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six, \
            socket.create_connection(six.getsockname()[:2]) as client, six.accept()[0] as accepted:
        ports = {each.getsockname()[1] for each in (six, client, accepted)}
        strides = scan.inet_dumps(socket.AF_INET6, socket.IPPROTO_TCP)
        sockets = listed(strides).sockets
    inodes = {int(row["inode"]) for row in sockets if row["local_port"] in ports}
    assert len(inodes) == 3 and 0 not in inodes


def test_of_several_processes_the_listener_is_the_first_ones_and_a_connection_the_last_ones() -> None:
    processes = [(10, 300, "b", 0, 1), (11, 100, "a", 0, 1), (12, 200, "c", 0, 1)]
    octets = b"".join(message("192.0.2.1", 80, "0.0.0.0", 0, state=state, inode=inode) for state, inode in (
        (LISTEN, 5), (ESTABLISHED, 6), (LISTEN, 7), (ESTABLISHED, 8), (LISTEN, 99)))
    found = listed([scan.Dump(6, 4, scan.RECORD.size, octets)], processes,
                   (5, 6, 7, 5, 6, 8, 5, 6), (0, 0, 2, 1, 1, 1, 2, 2))
    assert found.sockets["holder"].tolist() == [2, 1, 3, 2, 0]


def test_connections_that_are_not_accepted_yet_are_not_the_kernels_own() -> None:
    """No file has them, as none has the kernel's own: what somebody listens for is not the kernel's."""
    octets = b"".join((message("192.0.2.1", 80, "0.0.0.0", 0, state=LISTEN, inode=5),
                       message("192.0.2.1", 80, "192.0.2.2", 9, state=ESTABLISHED),
                       message("192.0.2.1", 700, "192.0.2.2", 2049, state=ESTABLISHED),
                       message("192.0.2.1", 701, "192.0.2.2", 2049, state=CLOSED),
                       message("192.0.2.1", 2049, "0.0.0.0", 0, state=LISTEN)))
    datagrams = message("0.0.0.0", 51820, "0.0.0.0", 0, state=CLOSED)
    found = listed([scan.Dump(6, 4, scan.RECORD.size, octets), scan.Dump(17, 4, scan.RECORD.size, datagrams)],
                   [(10, 300, "b", 0, 1)], (5,), (0,))
    assert found.sockets["of_kernel"].tolist() == [0, 0, 1, 0, 1, 1]


def test_a_socket_that_no_process_has_twice_is_the_kernels_own() -> None:
    """WireGuard's has an inode too. One that a process had, which has ended between the lists of sockets and of files,
    is not in the next list."""
    octets = b"".join(message("0.0.0.0", port, "0.0.0.0", 0, state=CLOSED, inode=port) for port in (51820, 53, 54))
    incoming = np.array([key("192.0.2.2", 51820, "192.0.2.1", port, Direction.INGRESS, Protocol.UDP)
                         for port in (51820, 53)], FLOW_KEY_DTYPE)

    def scanned(port: int, before: SocketTable | None, *, complete: bool = True) -> SocketTable:
        dump = scan.Dump(17, 4, scan.RECORD.size, octets[:scan.RECORD.size] if port else octets)
        return SocketTable(listed([dump], [(10, 300, "b", 0, 1)], (54,), (0,), complete=complete),
                           lambda pid, ticks: 5, None if before is None else before.unheld)

    local = np.array([True, True])
    first = scanned(0, None)
    assert first.of_flows(incoming, local).tolist() == [NOBODY_YET, NOBODY_YET]
    assert scanned(51820, first).of_flows(incoming, local).tolist() == [KERNEL, 0]
    assert scanned(51820, None).of_flows(incoming, local).tolist() == [NOBODY_YET, 0]
    assert scanned(0, scanned(51820, first)).of_flows(incoming, local).tolist() == [KERNEL, NOBODY_YET]
    hidden = scanned(0, None, complete=False)
    assert scanned(0, hidden, complete=False).of_flows(incoming, local).tolist() == [0, 0]


@pytest.mark.parametrize(("options", "expected"), [("rw", True), ("rw,hidepid=invisible", False), ("", False)])
def test_where_processes_are_hidden_nothing_is_the_kernels_for_lack_of_one(
        tmp_path: Path, options: str, *, expected: bool) -> None:
    mounts = tmp_path / "mountinfo"
    line = f"22 1 0:21 / /proc rw,nosuid - proc proc {options}\n" if options else ""
    mounts.write_text("21 1 0:20 / / rw - ext4 /dev/x rw\n" + line)
    first = (Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC)  # PROC_PID_INIT_INO
    assert scan._shows_all(mounts) == (expected and first)


def test_who_receives_in_another_namespace() -> None:
    """At each address that only one namespace has, unless a socket of IPv4 has the port of one for both."""
    def datagrams(version: int, *places: tuple[str, int, int]) -> scan.Dump:
        return scan.Dump(17, version, scan.RECORD.size, b"".join(
            message(local, port, "::" if version == 6 else "0.0.0.0", 0, state=CLOSED, inode=inode)
            for local, port, inode in places))

    def group(*dumps: scan.Dump, addresses: tuple[str, ...] = (), whole: bool = True) -> scan.Group:
        return scan.Group(list(dumps), whole, {(packed(each), 6 if ":" in each else 4) for each in addresses})

    here = group(datagrams(4, ("0.0.0.0", 53, 1)), addresses=("192.0.2.9",))
    one = group(datagrams(4, ("0.0.0.0", 53, 2), ("192.0.2.1", 54, 3), ("192.0.2.9", 55, 4), ("127.0.0.1", 56, 5)),
                datagrams(6, ("::", 57, 6), ("::", 53, 7)), addresses=("192.0.2.1", "192.0.2.9", "2001:db8::1"))

    def receiving(*groups: scan.Group) -> set[tuple[bytes, int, int]]:
        sockets = SocketList.of(scan.packed(list(groups), [], array("Q"), array("Q"), listed=[], denied=0,
                                            complete=True)).sockets
        return {(bytes(row["local_address"]), int(row["local_port"]), int(row["inode"]))
                for row in sockets if row["own"] == 2}

    assert receiving(here, one) == {
        (packed("192.0.2.1"), 53, 2), (packed("192.0.2.1"), 54, 3), (packed("192.0.2.1"), 57, 6),
        (packed("2001:db8::1"), 57, 6), (packed("2001:db8::1"), 53, 7)}
    assert receiving(here, one, group(whole=False)) == set()
