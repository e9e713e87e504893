"""What a scan of sockets found, as columns: 100,000 sockets are joined with their processes in a few steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import IpVersion, Protocol
from flowtop.owners.scan import RECORD, SIZE

OWN, RECEIVES = 1, 2
OF_KERNEL, UNHELD = 1, 2
SOCKET_DTYPE = np.dtype([
    ("local_address", "V16"),
    ("remote_address", "V16"),
    ("local_port", "u2"),
    ("remote_port", "u2"),
    ("protocol", "u1"),
    ("ip_version", "u1"),
    ("own", "u1"),
    ("of_kernel", "u1"),
    ("cookie", "u8"),
    ("inode", "u8"),
    ("holder", "u8"),
])
"""A socket, 64 bytes. Local and remote address (IPv4: the first 4 octets), IP version (0: a packet socket), where it
is, whether it is the kernel's own, cookie (0: not known), index of the process + 1 (0: none). Where: in another network
namespace (0), in flowtop's (OWN); or RECEIVES: in another one, and receives at an address that no other one has; such
a socket is listed a second time. Kernel's own: OF_KERNEL; or UNHELD: it is if no process has it later either, as in
this moment."""

_RECORD_DTYPE = np.dtype({
    "names": ["state", "local_port", "remote_port", "local_address", "remote_address", "cookie", "inode"],
    "formats": ["u1", ">u2", ">u2", ("u1", 16), ("u1", 16), ("u4", 2), "u4"],
    "offsets": [17, 20, 22, 24, 40, 60, 84], "itemsize": RECORD.size})
_MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
_ESTABLISHED, _LISTEN = 1, 10
_MOST_ADDRESSES = 64
"""Of another namespace; one with more is no container."""
_PORT, _GROUP = 8, 16
"""Bits behind the port, and behind the group."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SocketList:
    """All sockets of a scan.

    Attributes:
        sockets: SOCKET_DTYPE, shape (n,).
        processes: pid, start in ticks of /proc, name, user, pid of the parent of each.
        listed: protocols whose sockets of this network namespace are all there; 0: packet sockets.
        denied: of how many processes the open files could not be read.
        partly: of how many other network namespaces not all sockets are there.
    """

    sockets: npt.NDArray[np.void]
    processes: list[list[Any]]
    listed: list[int]
    denied: int
    partly: int

    @classmethod
    def of(cls, output: bytes) -> SocketList:
        """What scan.py wrote."""
        (size,) = SIZE.unpack_from(output)
        place = SIZE.size + size
        head = json.loads(output[SIZE.size:place])
        processes, count = head["processes"], head["holders"]
        inodes = np.frombuffer(output, np.uint64, count, place)
        indexes = np.frombuffer(output, np.uint64, count, place + 8 * count).astype(np.int64)
        place += 16 * count
        parts, groups, states = [], [], []
        for number, protocol, version, stride, octets in head["dumps"]:
            records = np.ndarray((octets // stride,), _RECORD_DTYPE, output, place, (stride,))
            parts.append(_sockets(records, protocol, version))
            groups.append(np.full(len(records), number))
            states.append(records["state"])
            place += octets
        sockets = np.concatenate([np.empty(0, SOCKET_DTYPE), *parts])
        group = np.concatenate([np.empty(0, np.int64), *groups])
        state = np.concatenate([np.empty(0, np.uint8), *states])
        sockets["own"] = np.where(group == 0, OWN, 0)
        sockets["holder"] = _holders(sockets["inode"], state, inodes, indexes, processes) + 1
        sockets["of_kernel"] = np.where(_of_kernel(sockets, group, state), OF_KERNEL, np.where(
            head["complete"] & (sockets["inode"] != 0) & (sockets["holder"] == 0), UNHELD, 0))
        whole = [each for each, _ in head["groups"]]
        addresses = [{(bytes.fromhex(text), version) for text, version in each} for _, each in head["groups"]]
        if all(whole[1:]):
            sockets = np.concatenate([sockets, *_receiving(sockets, group, state, addresses)])
        return cls(sockets, processes, head["listed"], head["denied"], sum(not each for each in whole[1:]))


def _sockets(records: npt.NDArray[np.void], protocol: int, version: int) -> npt.NDArray[np.void]:
    """Of one dump: addresses, ports, protocol, version, cookies and inodes. An IPv6 socket that talks IPv4 is one of
    IPv4."""
    found = np.zeros(len(records), SOCKET_DTYPE)
    versions = []
    for end in ("local", "remote"):
        address = records[f"{end}_address"].copy()
        mapped = np.zeros(len(records), np.bool_)
        if version == IpVersion.V6:
            mapped = (address[:, :12] == _MAPPED).all(axis=1)
        address[mapped, :4] = address[mapped, 12:]
        versions.append(np.where(mapped, np.uint8(IpVersion.V4), np.uint8(version)))
        address[versions[-1] != np.uint8(IpVersion.V6), 4:] = 0
        found[f"{end}_address"] = address.view("V16")[:, 0]
        found[f"{end}_port"] = records[f"{end}_port"]
    local, remote = versions
    unspecified = _unspecified(found["local_address"])  # then one of IPv6 may have a remote end of IPv4
    found["ip_version"] = np.where(unspecified, remote, local)
    found["protocol"] = protocol
    cookies = records["cookie"].astype(np.uint64)
    found["cookie"] = cookies[:, 1] << np.uint64(32) | cookies[:, 0]
    found["inode"] = records["inode"]
    return found


def _unspecified(addresses: npt.NDArray[np.void]) -> Mask:
    words = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    none: Mask = (words[:, 0] | words[:, 1]) == 0
    return none


def _holders(sockets: npt.NDArray[np.uint64], state: npt.NDArray[np.uint8], inodes: npt.NDArray[np.uint64],
             indexes: npt.NDArray[np.int64], processes: list[list[Any]]) -> npt.NDArray[np.int64]:
    """Which of the processes that have a socket is named: for a listening one the one that started first, as its
    children inherited it; for others the one that started last, as it was handed to it. -1: there is none.

    Args:
        sockets: inode of each, shape (n,).
        state: of each, shape (n,).
        inodes, indexes: who has which.
        processes: see SocketList.
    """
    if not len(inodes):
        return np.full(len(sockets), -1)
    rank = np.empty(len(processes), np.int64)
    rank[sorted(range(len(processes)), key=lambda index: (processes[index][1], processes[index][0]))] = np.arange(
        len(processes))
    order = np.lexsort((rank[indexes], inodes))
    inodes, indexes = inodes[order], indexes[order]
    first = np.searchsorted(inodes, sockets).clip(max=len(inodes) - 1)
    last = np.searchsorted(inodes, sockets, side="right") - 1
    found = np.where(state == _LISTEN, indexes[first], indexes[last])
    found[inodes[first] != sockets] = -1
    return found


def _of_kernel(sockets: npt.NDArray[np.void], group: npt.NDArray[np.int64], state: npt.NDArray[np.uint8]) -> Mask:
    """Which sockets no file has, though none of a process could be so: a connection without one is being accepted, or
    was closed, but for an established one whose port nobody listens at."""
    tcp = sockets["protocol"] == np.uint8(Protocol.TCP)
    ports = group << _GROUP | sockets["local_port"]
    listening = tcp & (state == _LISTEN)
    none: Mask = sockets["inode"] == 0
    alone = (state == _ESTABLISHED) & none & tcp
    alone[alone] = ~np.isin(ports[alone], ports[listening])
    mine: Mask = none & (~tcp | listening | alone)
    return mine


def _receiving(sockets: npt.NDArray[np.void], group: npt.NDArray[np.int64], state: npt.NDArray[np.uint8],
               addresses: list[set[tuple[bytes, int]]]) -> Iterator[npt.NDArray[np.void]]:
    """The sockets of other network namespaces that anybody may send to, once for each address that they receive at.
    Only addresses that no other namespace has: who is behind others cannot be told. As a namespace that cannot be
    entered may have any address, it is not asked for then.

    Args:
        sockets, group, state: SOCKET_DTYPE, of which group, and in which state, shape (n,).
        addresses: of each group; the first is this namespace.
    """
    counts = Counter(address for theirs in addresses for address in theirs)
    bound = (group > 0) & (sockets["local_port"] != 0) & (sockets["remote_port"] == 0)
    bound &= (sockets["ip_version"] != 0) & ((sockets["protocol"] != np.uint8(Protocol.TCP)) | (state == _LISTEN))
    for number in np.unique(group[bound]).tolist():
        alone = [address for address in sorted(addresses[number]) if counts[address] == 1]
        if len(addresses[number]) > _MOST_ADDRESSES:
            continue
        some = sockets[bound & (group == number)]
        versions, of_any = some["ip_version"], _unspecified(some["local_address"])
        for address, version in alone:
            its = versions == np.uint8(version)
            both = (versions == np.uint8(IpVersion.V6)) & ~np.isin(_places(some), _places(some[its]))
            found = some[its & (of_any | (some["local_address"] == np.void(address))) | of_any & both]
            found["local_address"], found["ip_version"], found["own"] = np.void(address), version, RECEIVES
            yield found


def _places(sockets: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """Port and protocol of each socket in one number."""
    places: npt.NDArray[np.int64] = sockets["local_port"].astype(np.int64) << _PORT | sockets["protocol"]
    return places
