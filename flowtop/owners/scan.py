"""The sockets of this host and the processes that have them, as a program: `flowtop.owners.sockets` runs it.

It is a process of its own, so that a walk over 100,000 open files delays nothing, and so that it may enter network
namespaces. It reads only: netlink (sock_diag(7)), and /proc/PID. What the kernel says of sockets is handed on as it is:
`flowtop.owners.socket_list` takes it apart. Standard library only, without flowtop.

Argument: what is added to its nice value. Standard output: see `scan`.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import struct
import sys
from array import array
from collections.abc import Iterator
from ctypes import CDLL, get_errno
from pathlib import Path
from typing import NamedTuple

SIZE = struct.Struct("=Q")
"""The length of the JSON object in front."""
RECORD = struct.Struct("=16xBB2x2s2s16s16s4x8s16xI")
"""A socket: what a message of sock_diag begins with. Struct nlmsghdr; of struct inet_diag_msg: family, state, ports,
local and remote address (IPv4: the first 4 octets), cookie (0: not known), inode."""

_PROC = Path("/proc")
_CLONE_NEWNET = 0x40000000
_SOCK_DIAG_BY_FAMILY, _DUMP, _DONE, _ERROR = 20, 0x301, 3, 2
_HEADER = struct.Struct("=IHHII")
_INET_REQUEST = struct.Struct("=BBBxI48x")
_PACKET_REQUEST = struct.Struct("=BBHIIII")
_PACKET_ANSWER = struct.Struct("=BBHI8s")
_TIME_WAIT, _NEW_SYN_RECEIVED = 6, 12
_SOCK_DIAG, _ROUTE = 4, 0
"""Families of netlink."""
_RTM_GETADDR = 22
_ADDRESS_MESSAGE = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_STATES = 0xFFFFFFFF & ~(1 << _TIME_WAIT | 1 << _NEW_SYN_RECEIVED)
_RAW = 255
_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE, socket.IPPROTO_SCTP, _RAW)
_WITHOUT_FILES = 0x00200004
"""Flags of processes, PF_KTHREAD and PF_EXITING."""
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of linux/proc_ns.h."""

Address = tuple[bytes, int]
"""16 octets (IPv4: the first 4), and the IP version."""
Process = tuple[int, int, str, int, int]
"""Pid, start in ticks of /proc, name, user, pid of the parent."""


class Dump(NamedTuple):
    """Sockets of one protocol (0: packet sockets) and of the lists of one IP version (0: of packet sockets), each
    `stride` octets after the one before: a RECORD, and more."""

    protocol: int
    version: int
    stride: int
    octets: bytes


class Group(NamedTuple):
    """The sockets of a network namespace, whether they are all there, and its addresses."""

    dumps: list[Dump]
    whole: bool
    addresses: set[Address]


def _buffers(request: bytes, kind: int = _SOCK_DIAG_BY_FAMILY, family: int = _SOCK_DIAG) -> Iterator[bytes]:
    """Messages that answer a dump request, many at a time. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0) + request)
        while True:
            data, place = netlink.recv(1 << 18), 0
            if _alike(data):
                yield data
                continue
            while place + _HEADER.size <= len(data):
                length, answer, _, _, _ = _HEADER.unpack_from(data, place)
                if answer == _ERROR:
                    (number,) = struct.unpack_from("=i", data, place + _HEADER.size)
                    raise OSError(-number, os.strerror(-number))
                if answer == _DONE or length < _HEADER.size:
                    yield data[:place]
                    return
                place += length + 3 & ~3
            yield data


def _alike(data: bytes) -> int:
    """The length of each of these messages; 0: they are not of one length, or not of one type, or the end is there."""
    if len(data) < _HEADER.size:
        return 0
    length, answer, _, _, _ = _HEADER.unpack_from(data)
    if answer in (_DONE, _ERROR) or length < _HEADER.size or length & 3 or len(data) % length:
        return 0
    count = len(data) // length
    return length if all(data[place::length] == data[place:place + 1] * count for place in range(6)) else 0


def _messages(data: bytes) -> Iterator[bytes]:
    """Each one, with its header."""
    place = 0
    while place + _HEADER.size <= len(data):
        (length,) = struct.unpack_from("=I", data, place)
        yield data[place:place + length]
        place += length + 3 & ~3


_V4, _V6 = 4, 6


def inet_dumps(family: int, protocol: int) -> list[Dump]:
    """The sockets of this network namespace. Raises OSError: the kernel cannot list them."""
    parts: dict[int, list[bytes]] = {}
    for data in _buffers(_INET_REQUEST.pack(family, protocol, 0, _STATES)):
        stride = _alike(data)
        if stride < RECORD.size:  # a socket of IPv6 has more attributes in some states
            stride = RECORD.size
            data = b"".join(message[:stride] for message in _messages(data) if len(message) >= stride)
        parts.setdefault(stride, []).append(data)
    version = _V4 if family == socket.AF_INET else _V6
    return [Dump(protocol, version, stride, b"".join(found)) for stride, found in parts.items()]


def packet_sockets() -> Dump:
    """Packet sockets of this network namespace; only cookie and inode are set. Raises OSError."""
    found = []
    for data in _buffers(_PACKET_REQUEST.pack(socket.AF_PACKET, 0, 0, 0, 0, 0, 0)):
        for message in _messages(data):
            _, _, _, inode, cookie = _PACKET_ANSWER.unpack_from(message, _HEADER.size)
            found.append(RECORD.pack(0, 0, b"", b"", b"", b"", cookie, inode))
    return Dump(0, 0, RECORD.size, b"".join(found))


def table_dumps(directory: Path) -> list[Dump]:
    """The same from the tables in /proc/PID/net, for a namespace that cannot be entered: without cookies."""
    dumps = []
    for name, protocol, version in (
            ("tcp", socket.IPPROTO_TCP, _V4), ("tcp6", socket.IPPROTO_TCP, _V6), ("udp", socket.IPPROTO_UDP, _V4),
            ("udp6", socket.IPPROTO_UDP, _V6)):
        try:
            lines = (directory / name).read_text().splitlines()[1:]
        except OSError:
            continue
        found = []
        for line in lines:
            words = line.split()
            ends = []
            for end in words[1:3]:
                address, _, port = end.partition(":")
                ends.append((struct.pack(f"={len(address) // 8}I", *(
                    int(address[place:place + 8], 16) for place in range(0, len(address), 8))),
                    int(port, 16).to_bytes(2, "big")))
            (local, local_port), (remote, remote_port) = ends
            state = int(words[3], 16)
            if state not in (_TIME_WAIT, _NEW_SYN_RECEIVED):
                found.append(RECORD.pack(0, state, local_port, remote_port, local, remote, b"", int(words[9])))
        dumps.append(Dump(protocol, version, RECORD.size, b"".join(found)))
    return dumps


def addresses() -> set[Address]:
    """The addresses of the current network namespace that others may send to."""
    found: set[Address] = set()
    request = _ADDRESS_MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    try:
        answers = [message for data in _buffers(request, _RTM_GETADDR, _ROUTE) for message in _messages(data)]
    except OSError:
        return found
    for message in answers:
        place, values = _HEADER.size + _ADDRESS_MESSAGE.size, {}
        while place + _ATTRIBUTE.size <= len(message):
            size, kind = _ATTRIBUTE.unpack_from(message, place)
            if size < _ATTRIBUTE.size:
                break
            values[kind] = message[place + _ATTRIBUTE.size:place + size]
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


def holders() -> tuple[list[Process], array[int], array[int], int]:
    """One walk of /proc: processes with sockets; inodes of sockets, and the index of the process that has each; and of
    how many processes the open files could not be read."""
    processes: list[Process] = []
    having, indexes, denied = array("Q"), array("Q"), 0
    for pid in _pids():
        try:
            inodes = _sockets_of(f"/proc/{pid}/fd")
        except PermissionError:  # it is not ours, or it has just ended
            denied += _has_files(pid)
            continue
        except OSError:
            continue
        if not inodes:
            continue
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            user = Path(f"/proc/{pid}").stat().st_uid
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        having.extend(inodes)
        indexes.extend([len(processes)] * len(inodes))
        processes.append((pid, int(fields[19]), name, user, int(fields[1])))
    return processes, having, indexes, denied


def _sockets_of(path: str) -> set[int]:
    """Inodes of the sockets among open files. Raises OSError."""
    inodes = set()
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(directory):  # noqa: PTH208 - 100,000 of them would be objects, here and below
            try:
                target = os.readlink(name, dir_fd=directory)
            except PermissionError:
                raise
            except OSError:
                continue
            if target[:8] == "socket:[":
                inodes.add(int(target[8:-1]))
    finally:
        os.close(directory)
    return inodes


def _has_files(pid: int) -> bool:
    """Whether it is a process that may have open files: alive, and no thread of the kernel."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    fields = text.rpartition(")")[2].split()
    return fields[0] not in "ZX" and not int(fields[6]) & _WITHOUT_FILES


def _here() -> tuple[list[Dump], list[int]]:
    """Sockets of the current network namespace, and the protocols that could be listed (0: packet sockets)."""
    found: list[Dump] = []
    listed = []
    for protocol in _PROTOCOLS:
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                found += inet_dumps(family, protocol)
            listed.append(protocol)
        except OSError:
            continue
    try:
        found.append(packet_sockets())
        listed.append(0)
    except OSError:
        pass
    return found, listed


def _elsewhere() -> Iterator[Group]:
    """Each other network namespace that processes are in."""
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
            yield Group(table_dumps(_PROC / str(pid) / "net"), False, set())
            continue
        try:
            if setns(entered, _CLONE_NEWNET) == 0:
                found, listed = _here()
                yield Group(found, len(listed) > len(_PROTOCOLS), addresses())
                if setns(home, _CLONE_NEWNET) != 0:
                    raise OSError(get_errno(), "setns")
            else:
                yield Group(table_dumps(_PROC / str(pid) / "net"), False, set())
        finally:
            os.close(entered)


def _shows_all(mountinfo: Path = _PROC / "self/mountinfo") -> bool:
    """Whether /proc has all processes: it is that of the first PID namespace, and hides none (hidepid)."""
    try:
        mounts = [line.split(" ") for line in mountinfo.read_text(errors="replace").splitlines()]
        shown = [mount for mount in mounts if mount[4] == str(_PROC)]
        return (_PROC / "self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE and bool(shown) and (
            "hidepid=" not in shown[-1][-1])
    except (OSError, IndexError):
        return False


def packed(groups: list[Group], processes: list[Process], having: array[int], indexes: array[int], *,
           listed: list[int], denied: int, complete: bool) -> bytes:
    """What `scan` returns."""
    head = {"processes": processes, "listed": listed, "denied": denied, "complete": complete, "holders": len(having),
            "groups": [[group.whole, [[address.hex(), version] for address, version in sorted(group.addresses)]]
                       for group in groups],
            "dumps": [[number, *dump[:3], len(dump.octets)] for number, group in enumerate(groups)
                      for dump in group.dumps]}
    text = json.dumps(head).encode()
    return b"".join((SIZE.pack(len(text)), text, having.tobytes(), indexes.tobytes(),
                     *(dump.octets for group in groups for dump in group.dumps)))


def scan() -> bytes:
    """All sockets, before the processes that have them.

    Returns:
        SIZE, the length of a JSON object; the object: {"processes": [pid, start in ticks of /proc, name, user, parent]
        of each; "listed": protocols whose sockets of this namespace are all there (0: packet sockets); "denied": of how
        many processes the open files could not be read; "complete": whether those of all others were, and /proc has
        them all; "holders": how many times a process has a socket; "groups": of each network namespace, this one first,
        whether all sockets are there, and [address in digits, IP version] of each address; "dumps": number of the
        group, protocol, IP version, stride and number of octets of each Dump}.
        Then inodes of sockets, and the indexes of the processes that have them, u64; and the octets of all dumps.
    """
    mine, listed = _here()
    groups = [Group(mine, True, addresses()), *_elsewhere()]
    processes, having, indexes, denied = holders()
    return packed(groups, processes, having, indexes, listed=listed, denied=denied,
                  complete=not denied and _shows_all())


def main() -> None:
    """Scan and write."""
    os.nice(int(sys.argv[1]))
    gc.disable()  # nothing here is circular, and it ends soon
    sys.stdout.buffer.write(scan())


if __name__ == "__main__":
    main()
