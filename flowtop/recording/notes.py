"""What is written to a file beside its packets: who sent or received them, and names of their addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from flowtop.model.kinds import IpVersion
from flowtop.model.packets import PacketBatch
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.recording.pcapng import Integers, comment_option
from flowtop.text.lookups import Lookups
from flowtop.text.names import KnownNames
from flowtop.wire.owner_comments import comment

_MOST = 65_536
"""Flows and addresses to remember."""
_BEFORE = FLOW_KEY_DTYPE.names[:FLOW_KEY_DTYPE.names.index("ip_version")] if FLOW_KEY_DTYPE.names else ()
_VERSION = sum(FLOW_KEY_DTYPE[name].itemsize for name in _BEFORE)
"""Place of the IP version in a Flow Key."""


@dataclass(frozen=True, slots=True)
class Comments:
    """Comments of packets.

    Attributes:
        options: different ones, as options of a pcapng block; the first is empty.
        which: the one of each packet, shape (n,).
    """

    options: tuple[bytes, ...]
    which: Integers

    def octets(self, rows: Integers) -> Integers:
        """Octets of the options of these packets."""
        return np.array([len(option) for option in self.options], np.int64)[self.which[rows]]


def comments(packets: PacketBatch) -> Comments:
    """The owners of packets as comments: `flowtop process=nginx pid=1234 user=www-data`."""
    if packets.owners is None or not packets.owners.any():
        return Comments((b"",), np.zeros(len(packets.keys), np.int64))
    owners, which = np.unique(packets.owners, return_inverse=True)
    lookups = Lookups(texts=packets.texts)
    options = [b"", *(comment_option(comment(owner, lookups)) if owner else b"" for owner in owners.tolist())]
    return Comments(tuple(options), which.reshape(-1) + 1)


class Addresses:
    """The addresses of a file's packets, and which of them it has a name for."""

    def __init__(self) -> None:
        self._flows: set[bytes] = set()
        self._unnamed: dict[bytes, None] = {}
        self._named: dict[bytes, None] = {}

    def of_flows(self, flows: set[bytes], names: KnownNames) -> dict[bytes, str]:
        """There are packets of these flows (FLOW_KEY_DTYPE as octets): the names of their addresses that are not in the
        file yet."""
        new = flows - self._flows
        if len(self._flows) > _MOST:
            self._flows.clear()
        self._flows |= new
        addresses: dict[bytes, None] = {}
        for key in new:
            size = 4 if key[_VERSION] == IpVersion.V4 else 16
            addresses |= dict.fromkeys((key[:size], key[16:16 + size]))
        addresses = {address: None for address in addresses if address not in self._named}
        self._unnamed |= addresses
        return self._take(addresses, names)

    def named(self, names: KnownNames) -> dict[bytes, str]:
        """There are these names: those that are not in the file yet."""
        return self._take(list(self._unnamed), names)

    def _take(self, addresses: Iterable[bytes], names: KnownNames) -> dict[bytes, str]:
        found = {address: names.names[address] for address in addresses if address in names.names}
        for address in found:
            self._unnamed.pop(address, None)
            self._named[address] = None
        for kept in (self._unnamed, self._named):
            while len(kept) > _MOST:
                del kept[next(iter(kept))]
        return found
