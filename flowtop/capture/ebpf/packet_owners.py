"""Owners of packets that are being written: those of their flows, as soon as the kernel knows them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.model.owners import ANY_ADDRESS_BIT, LISTED_BIT, NO_OWNER, Ids
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE

_MOST_FLOWS = 65_536
_KEY = f"V{FLOW_KEY_DTYPE.itemsize}"
_DESTINATION = slice(16, 32)
"""Octets of a Flow Key."""

Texts = Mapping[str, Mapping[int, str]]
"""For each of model.owners.TEXTS: text by owner id."""


class PacketOwners:
    """One thread asks for the owners of packets, while another one drains the flows that they are in.

    An owner that is not in the flow's entry is known after the next drain: packets until then have none.

    Args:
        maps: file descriptors of the maps of flows. Not used after `close`.
        texts: what is known of some owners.
        is_local: whether an address, 16 octets, is known as one of this host.

    Attributes:
        closed: the maps of the kernel must not be used any more.
    """

    def __init__(self, maps: tuple[int, ...], texts: Callable[[set[int]], Texts],
                 is_local: Callable[[bytes], bool]) -> None:
        self._maps = maps
        self._texts = texts
        self._is_local = is_local
        self._entry = np.zeros(1, FLOW_COUNTERS_DTYPE)
        self._open = threading.Lock()
        self._known: dict[bytes, int] = {}
        self.closed = False

    def find(self, keys: npt.NDArray[np.void]) -> tuple[Ids, Texts]:
        """Owners of packets, shape (n,), and what is known of them.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
        """
        octets: list[bytes] = np.ascontiguousarray(keys).view(_KEY).tolist()
        known = self._known
        with self._open:
            found = {key: known[key] if key in known else self._look_up(key) for key in set(octets)}
            texts = self._texts(set(found.values()))
        return np.fromiter((found[key] for key in octets), np.uint64, len(octets)), texts

    def _look_up(self, key: bytes) -> int:
        """The owner in the entry of a flow. Whether a socket for any address receives it is known after the drain where
        its address is not known as local yet."""
        owner = NO_OWNER
        for map_fd in self._maps:
            if bpf.map_lookup(map_fd, key, self._entry.ctypes.data):
                owner = int(self._entry["owner"][0]) or owner
        if owner & ANY_ADDRESS_BIT:
            owner = owner & ~ANY_ADDRESS_BIT if self._is_local(key[_DESTINATION]) else NO_OWNER
        while len(self._known) >= _MOST_FLOWS:
            del self._known[next(iter(self._known))]
        self._known[key] = owner
        return owner

    def note(self, keys: npt.NDArray[np.void], owners: Ids) -> None:
        """The owners of drained flows: those of flows whose packets are written are kept."""
        if not self._known:
            return
        some = np.flatnonzero(owners)
        octets = np.ascontiguousarray(keys[some]).view(_KEY).tolist()
        for key, owner in zip(octets, (owners[some] & ~np.uint64(LISTED_BIT)).tolist(), strict=True):
            if key in self._known:
                self._known[key] = owner

    def forget(self) -> None:
        """No packets are written any more."""
        self._known.clear()

    def close(self) -> None:
        """The maps are about to be closed: only owners that are known already are found from now on."""
        with self._open:
            self._maps, self.closed = (), True
