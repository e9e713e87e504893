"""The sockets of this host and the processes that have them, as a program: `flowtop.owners.sockets` runs it.

It is a process of its own, so that a walk over 100,000 open files delays nothing, and so that it may enter network
namespaces. It reads only: netlink (sock_diag(7)), and /proc/PID. Standard library only, without flowtop.

Standard output: 8 octets, the length of a JSON object; the object (see `scan`); then a struct SOCKET for each socket.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from ctypes import CDLL, get_errno
from pathlib import Path

SOCKET = struct.Struct("=16s16sHHBBBBQQQ")
"""Local and remote address (IPv4: the first 4 octets), ports, protocol, IP version (0: a packet socket), where it is,
whether it is the kernel's own, cookie (0: not known), inode, index of the process + 1 (0: none). Where: in another
network namespace (0), in this process's (1); or RECEIVES: in another one, and receives at an address that no other one
has; such a socket is listed a second time."""
RECEIVES = 2

_PROC = Path("/proc")
_CLONE_NEWNET = 0x40000000
_SOCK_DIAG_BY_FAMILY, _DUMP, _DONE, _ERROR = 20, 0x301, 3, 2
_HEADER = struct.Struct("=IHHII")
_INET_REQUEST = struct.Struct("=BBBxI48x")
_PACKET_REQUEST = struct.Struct("=BBHIIII")
_INET_ANSWER = struct.Struct("=BBBB2s2s16s16sI8sIIIII")
_PACKET_ANSWER = struct.Struct("=BBHI8s")
_ESTABLISHED, _TIME_WAIT, _LISTEN, _NEW_SYN_RECEIVED = 1, 6, 10, 12
_SOCK_DIAG, _ROUTE = 4, 0
"""Families of netlink."""
_RTM_GETADDR = 22
_ADDRESS_MESSAGE = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_MOST_ADDRESSES = 64
"""Of another namespace; one with more is no container."""
_STATES = 0xFFFFFFFF & ~(1 << _TIME_WAIT | 1 << _NEW_SYN_RECEIVED)
_RAW = 255
_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE, socket.IPPROTO_SCTP, _RAW)
_MAPPED = bytes(10) + b"\xff\xff"
_WITHOUT_FILES = 0x00200004
"""Flags of processes, PF_KTHREAD and PF_EXITING."""

Found = tuple[bytes, bytes, int, int, int, int, int, int, int]
"""Local and remote address, ports, protocol, IP version, state, cookie, inode."""
Address = tuple[bytes, int]
"""16 octets (IPv4: the first 4), and the IP version."""
Process = tuple[int, int, str, int, int]
"""Pid, start in ticks of /proc, name, user, pid of the parent."""


def _answers(request: bytes, kind: int = _SOCK_DIAG_BY_FAMILY, family: int = _SOCK_DIAG) -> Iterator[tuple[bytes, int]]:
    """Messages that answer a dump request, each with the offset of its payload. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0) + request)
        while True:
            data = netlink.recv(1 << 18)
            place = 0
            while place + _HEADER.size <= len(data):
                length, answer, _, _, _ = _HEADER.unpack_from(data, place)
                if answer == _DONE or length < _HEADER.size:
                    return
                if answer == _ERROR:
                    (number,) = struct.unpack_from("=i", data, place + _HEADER.size)
                    raise OSError(-number, os.strerror(-number))
                yield data, place + _HEADER.size
                place += length + 3 & ~3


_V4, _V6 = 4, 6


def _plain(address: bytes, version: int) -> tuple[bytes, int]:
    """The address and its IP version; an IPv6 socket that talks IPv4 is one of IPv4."""
    if version == _V4:
        return address[:4] + bytes(12), _V4
    if address.startswith(_MAPPED):
        return address[12:] + bytes(12), _V4
    return address, _V6


def inet_sockets(family: int, protocol: int) -> Iterator[Found]:
    """The sockets of this network namespace. Raises OSError: the kernel cannot list them."""
    version = _V4 if family == socket.AF_INET else _V6
    for data, at in _answers(_INET_REQUEST.pack(family, protocol, 0, _STATES)):
        (_, state, _, _, local_port, remote_port, local, remote, _, cookie, _, _, _, _, inode) = \
            _INET_ANSWER.unpack_from(data, at)
        remote, own = _plain(remote, version)
        local, plain = _plain(local, version)
        if own != plain:  # one of them is the unspecified IPv6 address
            own = plain if any(local) else own
        low, high = struct.unpack("=II", cookie)
        yield (local, remote, int.from_bytes(local_port, "big"), int.from_bytes(remote_port, "big"), protocol, own,
               state, high << 32 | low, inode)


def packet_sockets() -> Iterator[Found]:
    """Packet sockets of this network namespace; only cookie and inode are set. Raises OSError."""
    for data, at in _answers(_PACKET_REQUEST.pack(socket.AF_PACKET, 0, 0, 0, 0, 0, 0)):
        _, _, _, inode, cookie = _PACKET_ANSWER.unpack_from(data, at)
        low, high = struct.unpack("=II", cookie)
        yield bytes(16), bytes(16), 0, 0, 0, 0, 0, high << 32 | low, inode


def table_sockets(directory: Path) -> Iterator[Found]:
    """The same from the tables in /proc/PID/net, for a namespace that cannot be entered: without cookies."""
    for name, protocol, version in (
            ("tcp", socket.IPPROTO_TCP, _V4), ("tcp6", socket.IPPROTO_TCP, _V6), ("udp", socket.IPPROTO_UDP, _V4),
            ("udp6", socket.IPPROTO_UDP, _V6)):
        try:
            lines = (directory / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            ends = []
            for end in words[1:3]:
                address, _, port = end.partition(":")
                octets = struct.pack(f"={len(address) // 8}I", *(
                    int(address[place:place + 8], 16) for place in range(0, len(address), 8)))
                ends.append((*_plain(octets.ljust(16, b"\0"), version), int(port, 16)))
            (local, own, local_port), (remote, _, remote_port) = ends
            if int(words[3], 16) not in (_TIME_WAIT, _NEW_SYN_RECEIVED):
                yield local, remote, local_port, remote_port, protocol, own, int(words[3], 16), 0, int(words[9])


def addresses() -> set[Address]:
    """The addresses of the current network namespace that others may send to."""
    found: set[Address] = set()
    try:
        answers = list(_answers(_ADDRESS_MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0), _RTM_GETADDR, _ROUTE))
    except OSError:
        return found
    for data, at in answers:
        (length,) = struct.unpack_from("=I", data, at - _HEADER.size)
        end, place, values = at - _HEADER.size + length, at + _ADDRESS_MESSAGE.size, {}
        while place + _ATTRIBUTE.size <= end:
            size, kind = _ATTRIBUTE.unpack_from(data, place)
            if size < _ATTRIBUTE.size:
                break
            values[kind] = data[place + _ATTRIBUTE.size:place + size]
            place += size + 3 & ~3
        address = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS, b"")
        if len(address) == 4 and address[0] != 127:
            found.add((address + bytes(12), _V4))
        elif len(address) == 16 and address != bytes(15) + b"\1" and not address.startswith(b"\xfe\x80"):
            found.add((address, _V6))
    return found


def _pids() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdecimal()]


def _namespace(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def holders() -> tuple[list[Process], dict[int, list[int]], int]:
    """One walk of /proc: processes with sockets, the indexes of those that have the socket with each inode, and of how
    many processes the open files could not be read."""
    processes: list[Process] = []
    having: dict[int, list[int]] = {}
    denied = 0
    for pid in _pids():
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)  # noqa: PTH208 - as below
        except PermissionError:
            denied += _has_files(pid)
            continue
        except OSError:
            continue
        inodes = set()
        for name in names:
            try:
                target = os.readlink(f"{directory}/{name}")  # noqa: PTH115 - 100,000 of them would be objects
            except PermissionError:  # for all files of this process, or it has just ended
                denied += _has_files(pid)
                break
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
        if not inodes:
            continue
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            user = Path(f"/proc/{pid}").stat().st_uid
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        for inode in inodes:
            having.setdefault(inode, []).append(len(processes))
        processes.append((pid, int(fields[19]), name, user, int(fields[1])))
    return processes, having, denied


def _has_files(pid: int) -> bool:
    """Whether it is a process that may have open files: alive, and no thread of the kernel."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    fields = text.rpartition(")")[2].split()
    return fields[0] not in "ZX" and not int(fields[6]) & _WITHOUT_FILES


def _here() -> tuple[list[Found], list[int]]:
    """Sockets of the current network namespace, and the protocols that could be listed."""
    found: list[Found] = []
    listed = []
    for protocol in _PROTOCOLS:
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                found += inet_sockets(family, protocol)
            listed.append(protocol)
        except OSError:
            continue
    return found, listed


def _elsewhere() -> Iterator[tuple[list[Found], bool, set[Address]]]:
    """Sockets of each other network namespace that processes are in, whether they are all there, and its addresses."""
    own = _namespace(_PROC / "self/ns/net")
    seen = {own, 0}
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    setns = CDLL(None, use_errno=True).setns
    for pid in _pids():
        inode = _namespace(_PROC / str(pid) / "ns/net")
        if inode in seen:
            continue
        seen.add(inode)
        try:
            entered = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError:
            yield list(table_sockets(_PROC / str(pid) / "net")), False, set()
            continue
        try:
            if setns(entered, _CLONE_NEWNET) == 0:
                found, listed = _here()
                try:
                    found += packet_sockets()
                    listed.append(0)
                except OSError:
                    pass
                yield found, len(listed) > len(_PROTOCOLS), addresses()
                if setns(home, _CLONE_NEWNET) != 0:
                    raise OSError(get_errno(), "setns")
            else:
                yield list(table_sockets(_PROC / str(pid) / "net")), False, set()
        finally:
            os.close(entered)


def _receiving(apart: Sequence[tuple[list[Found], bool, set[Address]]], own: set[Address]) -> Iterator[Found]:
    """The sockets of other network namespaces that anybody may send to, once for each address that they receive at.
    Only addresses that no other namespace has: who is behind others cannot be told. As a namespace that cannot be
    entered may have any address, there are none then.

    Args:
        own: addresses of this namespace.
    """
    if not all(whole for _, whole, _ in apart):
        return
    counts = Counter(own)
    for _, _, theirs in apart:
        counts.update(theirs)
    for found, _, theirs in apart:
        alone = {address for address in theirs if counts[address] == 1} if len(theirs) <= _MOST_ADDRESSES else set()
        bound = [one for one in found if alone and one[2] and not one[3] and one[5] and (
            one[4] != socket.IPPROTO_TCP or one[6] == _LISTEN)]
        taken = {(one[5], one[2], one[4]) for one in bound}
        for one in bound:
            local, remote, port, _, protocol, version, state, cookie, inode = one
            for address, its in alone:
                of_any = not any(local) and (its == version or (version == _V6 and (its, port, protocol) not in taken))
                if of_any or (address, its) == (local, version):
                    yield address, remote, port, 0, protocol, its, state, cookie, inode


def scan() -> tuple[dict[str, object], bytes]:
    """All sockets.

    Returns:
        {"processes": [pid, start in ticks of /proc, name, user, parent] of each; "listed": protocols whose sockets of
        this namespace are all there (0: packet sockets); "denied": of how many processes the open files could not be
        read; "partly": of how many other network namespaces not all sockets are there}, and the sockets.
    """
    mine, listed = _here()
    try:
        mine += packet_sockets()
        listed.append(0)
    except OSError:
        pass
    ours = addresses()
    apart = list(_elsewhere())
    groups = [(1, mine), *((0, found) for found, _, _ in apart)]
    groups.append((RECEIVES, list(_receiving(apart, ours))))
    processes, having, denied = holders()
    packed = []
    for own, found in groups:
        listening = {(version, port) for _, _, port, _, protocol, version, state, _, _ in found
                     if state == _LISTEN and protocol == socket.IPPROTO_TCP}
        for local, remote, local_port, remote_port, protocol, version, state, cookie, inode in found:
            holder = _holder(having.get(inode, ()), processes, shared=state == _LISTEN)
            of_kernel = not inode and (protocol != socket.IPPROTO_TCP or state == _LISTEN or (
                state == _ESTABLISHED and not {(_V4, local_port), (_V6, local_port)} & listening))
            packed.append(SOCKET.pack(local, remote, local_port, remote_port, protocol, version, own, of_kernel, cookie,
                                      inode, holder + 1))
    return {"processes": processes, "listed": listed, "denied": denied,
            "partly": sum(not whole for _, whole, _ in apart)}, b"".join(packed)


def _holder(indexes: Sequence[int], processes: list[Process], *, shared: bool) -> int:
    """Which of the processes that have a socket is named: for a listening one the one that started first, as its
    children inherited it; for others the one that started last, as it was handed to it. -1: there is none."""
    if len(indexes) < 2:
        return indexes[0] if indexes else -1
    ordered = sorted(indexes, key=lambda index: (processes[index][1], processes[index][0]))
    return ordered[0 if shared else -1]


def main() -> None:
    """Scan and write."""
    head, sockets = scan()
    text = json.dumps(head).encode()
    sys.stdout.buffer.write(struct.pack("=Q", len(text)) + text + sockets)


if __name__ == "__main__":
    main()
