"""The addresses of this host: of the network namespace in which they are asked for."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf.netlink import DumpInterruptedError, RouteSocket, attributes
from flowtop.model.kinds import IpVersion

_RTM_GETADDR = 22
_REQUEST = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
"""struct ifaddrmsg: of all families and interfaces."""
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_OCTETS = (4, 16)
_AGAIN_S = 1.0
_MULTICAST_V4, _MULTICAST_V6, _LOOPBACK_V4 = 224, 255, 127


class Addresses(NamedTuple):
    """Of all interfaces, 4 or 16 octets each.

    Attributes:
        own: those of this host.
        broadcast: those of all hosts of a link.
    """

    own: frozenset[bytes]
    broadcast: frozenset[bytes]


def read_addresses(route: RouteSocket) -> Addresses:
    """The addresses in the network namespace of `route`. Needs no privileges. Raises OSError.

    On a point-to-point link IFA_ADDRESS is that of the peer, and IFA_LOCAL the own one.
    """
    try:
        bodies = route.dump(_RTM_GETADDR, _REQUEST)
    except DumpInterruptedError as error:
        bodies = error.bodies
    given = [dict(attributes(body, len(_REQUEST))) for body in bodies]
    own = (one.get(_IFA_LOCAL) or one.get(_IFA_ADDRESS, b"") for one in given)
    broadcast = (one.get(_IFA_BROADCAST, b"") for one in given)
    return Addresses(*(frozenset(address for address in some if len(address) in _OCTETS) for some in (own, broadcast)))


def host_addresses() -> Addresses:
    """The addresses in this thread's network namespace; none where the kernel cannot be asked."""
    try:
        with closing(RouteSocket()) as route:
            return read_addresses(route)
    except OSError:
        return Addresses(frozenset(), frozenset())


class LocalAddresses:
    """Addresses of this host, and those of many hosts. Reads them again, at most once a second, for one not known.

    Args:
        route: rtnetlink in the capture's network namespace.
        clock: seconds, monotonic.
    """

    def __init__(self, route: RouteSocket, clock: Callable[[], float]) -> None:
        self._route = route
        self._clock = clock
        self._read_s = -_AGAIN_S
        self._known: npt.NDArray[np.bytes_] = np.empty(0, "S16")

    def are_local(self, addresses: npt.NDArray[np.void], versions: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Which addresses are ones of this host, multicast or broadcast ones.

        Args:
            addresses: V16, shape (n,), as in FLOW_KEY_DTYPE.
            versions: IP versions, shape (n,).
        """
        octets = np.ascontiguousarray(addresses).view(np.uint8).reshape(-1, 16)
        first = octets[:, 0]
        of_many = np.where(versions == np.uint8(IpVersion.V4), (first >= _MULTICAST_V4) | (first == _LOOPBACK_V4),
                           first == _MULTICAST_V6)
        # Byte strings of one length: that numpy ignores zeros at their end makes no difference.
        texts = octets.view("S16")[:, 0]
        found: npt.NDArray[np.bool_] = of_many | np.isin(texts, self._known)
        if not found.all() and self._clock() - self._read_s >= _AGAIN_S:
            self._read()
            found = of_many | np.isin(texts, self._known)
        return found

    def knew(self, address: bytes) -> bool:
        """Whether this address, 16 octets, was one of this host's when they were read last. Any thread."""
        return bool((self._known == address.rstrip(b"\0")).any())

    def _read(self) -> None:
        try:
            addresses = read_addresses(self._route)
        except OSError:
            return  # the ones known before stay
        self._known = np.array([value.ljust(16, b"\0") for value in addresses.own | addresses.broadcast], "S16")
        self._read_s = self._clock()
