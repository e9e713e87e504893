"""The sockets of this host at one moment, and whose each is; joined with flows.

For flows whose socket the kernel programs know nothing of: it is older than they are, or the kernel has no such hooks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import ICMP_ECHO, Direction, IpVersion, Protocol
from flowtop.model.owners import KERNEL, NO_OWNER, Ids, owner_id
from flowtop.owners.conversations import Words
from flowtop.owners.proc import OFFSET_TICKS, TICK_NS
from flowtop.owners.socket_list import OF_KERNEL, OWN, RECEIVES, SOCKET_DTYPE, UNHELD, SocketList

_NAME_DTYPE = np.dtype([("local_address", "V16"), ("remote_address", "V16"), ("local_port", "u2"),
                        ("remote_port", "u2"), ("protocol", "u1"), ("ip_version", "u1"), ("pad", "V2")])
NOBODY_YET = 3
"""Instead of an owner: no process has the socket. If that is so in the next scan too, it is the kernel's own."""
_LOOPBACK_V4, _LOOPBACK_V6 = 127, bytes(15) + b"\x01"
_RAW_SOCKETS, _PACKET_SOCKETS = 255, 0
_OWN_LISTS = (Protocol.TCP, Protocol.UDP, Protocol.UDPLITE, Protocol.SCTP)
"""Protocols whose sockets are listed apart."""
_PROTOCOL, _VERSION = np.uint64(32), np.uint64(40)
"""Bits before protocol and IP version in the last word of an end."""
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a socket, as /proc says."""

    pid: int
    start_ticks: int
    comm: str
    uid: int
    parent_pid: int


class Scan:
    """A running scan.py; takes half a second for 100,000 sockets.

    Args:
        python: interpreter.
        nice: what is added to the nice value.
    """

    def __init__(self, python: str = sys.executable, nice: int = 0) -> None:
        script = Path(__file__).with_name("scan.py")
        self._process = subprocess.Popen(
            [python, "-I", str(script), str(nice)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=script.parent, env=_ENVIRONMENT, start_new_session=True)

    def result(self) -> bytes | None:
        """Wait for the output; None: it failed or was ended."""
        output, _ = self._process.communicate()
        return output if self._process.returncode == 0 else None

    def stop(self) -> None:
        """End it: `result`, in another thread, returns. Any thread."""
        self._process.kill()

    def close(self) -> None:
        """End it, also if nobody has asked for its result, and nobody does now."""
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


class SocketTable:
    """The sockets of one scan.

    Args:
        found: what scan.py found.
        known_as: the owner id of a process by pid and start in ticks, if it has one already.
        unheld: that of the scan before; None: it is the first one.

    Attributes:
        holders: processes by owner id.
        denied: of how many processes the open files could not be read.
        count: number of sockets.
        unheld: cookies of those that no process has, ascending.
    """

    def __init__(self, found: SocketList, known_as: Callable[[int, int], int | None],
                 unheld: Ids | None = None) -> None:
        sockets = found.sockets
        self.count = len(sockets)
        self.denied = found.denied
        self._partly = found.partly
        self._listed = np.zeros(256, np.bool_)
        self._listed[found.listed] = True
        self._raw_listed = {_RAW_SOCKETS, _PACKET_SOCKETS} <= set(found.listed)
        self.holders: dict[int, Holder] = {}
        ids = np.zeros(len(found.processes) + 1, np.uint64)
        for index, values in enumerate(found.processes):
            holder = Holder(values[0], values[1] - OFFSET_TICKS, *values[2:])
            known = known_as(holder.pid, holder.start_ticks)
            ids[index + 1] = owner_id(holder.pid, holder.start_ticks * TICK_NS) if known is None else known
            self.holders[int(ids[index + 1])] = holder
        owners = ids[sockets["holder"]]
        nobodys = (sockets["of_kernel"] == UNHELD) & (sockets["cookie"] != 0)
        self.unheld: Ids = np.unique(sockets["cookie"][nobodys])
        owners[nobodys] = NOBODY_YET
        if unheld is not None:
            owners[nobodys & np.isin(sockets["cookie"], unheld)] = KERNEL
        owners[sockets["of_kernel"] == OF_KERNEL] = KERNEL
        own = sockets["own"] == OWN
        self._cookies, self._of_cookie = _unique(sockets["cookie"], owners)
        names = _names(sockets)
        self._names, self._of_name = _unique(names[own], owners[own])
        distant = (sockets["own"] == 0) & _distinct(sockets)
        self._distant, self._of_distant = _unique(names[distant], owners[distant])
        some = sockets["own"] == RECEIVES
        ends = _ends(sockets["local_address"][some], sockets["local_port"][some], sockets["protocol"][some],
                     sockets["ip_version"][some])
        self._ends, self._of_end = _unique(_rows(ends), owners[some])
        self._mixed = np.unique(_mix(ends))

    def of_cookies(self, cookies: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Owners of sockets by cookie, NO_OWNER where it is not known, or NOBODY_YET, and whether there was such a
        socket."""
        owners, found = _look_up(self._cookies, self._of_cookie, cookies)
        found &= cookies != 0
        return np.where(found, owners, np.uint64(NO_OWNER)), found

    def of_flows(self, keys: npt.NDArray[np.void], local: npt.NDArray[np.bool_]) -> Ids:
        """Owners by addresses and ports, or NOBODY_YET, of the local end's socket: a connected one, else one that
        listens there, else a connected one in another network namespace.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            local: of which flows the local end's address is one of this host, or of many hosts: only these are for
                sockets of this namespace.
        """
        owners = np.zeros(len(keys), np.uint64)
        here = np.flatnonzero(local)
        if len(here):
            owners[here] = self._of_local(_names_of_flows(keys[here]))
        left = np.flatnonzero(owners == NO_OWNER)
        if len(left) and len(self._distant):
            found, known = _look_up(self._distant, self._of_distant, _packed(_names_of_flows(keys[left])))
            owners[left[known]] = found[known]
        return owners

    def _of_local(self, names: npt.NDArray[np.void]) -> Ids:
        owners = np.zeros(len(names), np.uint64)
        _fill(owners, self._names, self._of_name, _packed(names))
        names["remote_address"], names["remote_port"] = bytes(16), 0
        _fill(owners, self._names, self._of_name, _packed(names))
        names["local_address"] = bytes(16)
        _fill(owners, self._names, self._of_name, _packed(names))
        names["ip_version"] = int(IpVersion.V6)  # such sockets are for both
        _fill(owners, self._names, self._of_name, _packed(names))
        return owners

    @property
    def receives(self) -> bool:
        """Whether there are sockets in other network namespaces that `of_ends` knows."""
        return len(self._ends) > 0

    def of_ends(self, ends: Words) -> Ids:
        """Owners of the sockets in other network namespaces that receive at these ends of flows; NO_OWNER: none.

        Args:
            ends: address, port, protocol and IP version as conversations.ends_of gives them, shape (n, 3).
        """
        owners = np.zeros(len(ends), np.uint64)
        mixed = _mix(ends)  # of most flows no end is in a container: that is seen without comparing texts
        places = np.searchsorted(self._mixed, mixed).clip(max=len(self._mixed) - 1)
        some = np.flatnonzero(self._mixed[places] == mixed)
        if len(some):
            owners[some] = _look_up(self._ends, self._of_end, _rows(ends[some]))[0]
        owners[owners == NOBODY_YET] = NO_OWNER
        return owners

    def lists(self, keys: npt.NDArray[np.void], apart: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which flows could only have been sent by a listed socket, or by the kernel: not DCCP's, nor echo requests, as
        the kernel does not list the sockets of ping.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            apart: which of them were sent in another network namespace.
        """
        protocols = keys["protocol"]
        found = np.full(len(keys), self._raw_listed) & ~(apart & (self._partly > 0))
        for protocol in _OWN_LISTS:
            found &= (protocols != np.uint8(protocol)) | self._listed[int(protocol)]
        for icmp, (request, _) in ICMP_ECHO.items():
            found &= (protocols != np.uint8(icmp)) | (keys["destination_port"] >> 8 != np.uint16(request))
        found &= protocols != np.uint8(Protocol.DCCP)
        return found


def _names_of_flows(keys: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The names that connected sockets of these flows have: _NAME_DTYPE, shape (n,)."""
    names = np.zeros(len(keys), _NAME_DTYPE)
    sends = keys["direction"] == np.uint8(Direction.EGRESS)
    for end, other, here in (("source", "destination", sends), ("destination", "source", ~sends)):
        for what in ("address", "port"):
            names[f"local_{what}"][here] = keys[f"{end}_{what}"][here]
            names[f"remote_{what}"][here] = keys[f"{other}_{what}"][here]
    names["protocol"], names["ip_version"] = keys["protocol"], keys["ip_version"]
    return names


def _ends(addresses: npt.NDArray[np.void], ports: npt.NDArray[np.uint16], protocols: npt.NDArray[np.uint8],
          versions: npt.NDArray[np.uint8]) -> Words:
    """As conversations.ends_of gives them, shape (n, 3)."""
    ends = np.zeros((len(addresses), 3), np.uint64)
    ends[:, :2] = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    ends[:, 2] = ports.astype(np.uint64) | protocols.astype(np.uint64) << _PROTOCOL | (
        versions.astype(np.uint64) << _VERSION)
    return ends


def _rows(ends: Words) -> npt.NDArray[Any]:
    """Each row as one byte string: that numpy ignores zeros at their end makes no difference."""
    rows: npt.NDArray[Any] = np.ascontiguousarray(ends).view(f"S{ends.itemsize * 3}").reshape(-1)
    return rows


def _mix(ends: Words) -> Words:
    """A number of each end; ends that differ may have the same."""
    mixed: Words = (ends[:, 0] * _MIX[0] + ends[:, 1] * _MIX[1] + ends[:, 2]) * _MIX[0]
    return mixed


def _unique(values: npt.NDArray[Any], owners: Ids) -> tuple[npt.NDArray[Any], Ids]:
    """Each value once, ascending, and its owner; NO_OWNER: several."""
    unique, first, place = np.unique(values, return_index=True, return_inverse=True)
    found = owners[first]
    found[place[owners != found[place]]] = NO_OWNER
    return unique, found


def _look_up(values: npt.NDArray[Any], owners: Ids, wanted: npt.NDArray[Any]) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """The owner of each wanted value, where it is among the values, and whether it is."""
    if not len(values):
        return np.zeros(len(wanted), np.uint64), np.zeros(len(wanted), np.bool_)
    place = np.searchsorted(values, wanted).clip(max=len(values) - 1)
    return owners[place], values[place] == wanted


def _fill(owners: Ids, names: npt.NDArray[Any], of_names: Ids, wanted: npt.NDArray[Any]) -> None:
    """Write the owners that are found by name where there is none yet."""
    left = np.flatnonzero(owners == 0)
    if len(left):
        candidates, found = _look_up(names, of_names, wanted[left])
        owners[left[found]] = candidates[found]


def _names(sockets: npt.NDArray[np.void]) -> npt.NDArray[Any]:
    names = np.zeros(len(sockets), _NAME_DTYPE)
    for name in SOCKET_DTYPE.names or ():
        if name in (_NAME_DTYPE.names or ()):
            names[name] = sockets[name]
    return _packed(names)


def _packed(names: npt.NDArray[np.void]) -> npt.NDArray[Any]:
    """As byte strings of one length: that numpy ignores zeros at their end makes no difference."""
    packed: npt.NDArray[Any] = names.copy().view(f"S{_NAME_DTYPE.itemsize}")
    return packed


def _distinct(sockets: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which sockets of other network namespaces can be told apart by their addresses: connected, but not to the same
    host, as every namespace has the same loopback addresses."""
    local = sockets["local_address"].copy().view(np.uint8).reshape(-1, 16)
    loopback = (sockets["ip_version"] == np.uint8(IpVersion.V4)) & (local[:, 0] == _LOOPBACK_V4)
    loopback |= sockets["local_address"] == np.void(_LOOPBACK_V6)
    distinct: npt.NDArray[np.bool_] = ~loopback & (sockets["remote_port"] != 0)
    return distinct
