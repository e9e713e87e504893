"""The addresses of this host, in the network namespace of the capture."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf.netlink import DumpInterruptedError, RouteSocket, attributes
from flowtop.model.kinds import IpVersion

_RTM_GETADDR = 22
_IFADDRMSG = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_AGAIN_S = 1.0
_MULTICAST_V4, _MULTICAST_V6, _LOOPBACK_V4 = 224, 255, 127


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

    def _read(self) -> None:
        try:
            bodies = self._route.dump(_RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0))
        except DumpInterruptedError as error:
            bodies = error.bodies
        except OSError:
            return  # the ones known before stay
        found = {value for body in bodies for kind, value in attributes(body, _IFADDRMSG.size)
                 if kind in (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST)}
        self._known = np.array([value.ljust(16, b"\0") for value in found], "S16")
        self._read_s = self._clock()
