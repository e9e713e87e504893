"""The addresses of this host."""

from __future__ import annotations

import socket
import struct

from flowtop.capture.ebpf.netlink import DumpInterruptedError, RouteSocket, attributes

_RTM_GETADDR = 22
_REQUEST = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
"""struct ifaddrmsg: of all families and interfaces."""
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


def local_addresses() -> frozenset[bytes]:
    """The addresses of all interfaces in this network namespace, 4 or 16 octets each. Needs no privileges.

    On a point-to-point link IFA_ADDRESS is that of the peer, and IFA_LOCAL the own one. Where the kernel cannot be
    asked there are none.
    """
    try:
        route = RouteSocket()
    except OSError:
        return frozenset()
    try:
        bodies = route.dump(_RTM_GETADDR, _REQUEST)
    except DumpInterruptedError as error:
        bodies = error.bodies
    except OSError:
        return frozenset()
    finally:
        route.close()
    found = set()
    for body in bodies:
        given = dict(attributes(body, len(_REQUEST)))
        found.add(given.get(_IFA_LOCAL) or given.get(_IFA_ADDRESS, b""))
    return frozenset(address for address in found if len(address) in (4, 16))
