"""Which addresses are those of this host, asked for again every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
AGAIN_S = 5.0
_MAPPED = 0xFFFF << 32


class HostAddresses:
    """See text.lookups.Here. For any thread.

    Args:
        read: gives the addresses of this host, 4 or 16 octets each, and those that reach all hosts of a link.
        clock: seconds, monotonic.
    """

    def __init__(self, read: Callable[[], tuple[Iterable[bytes], Iterable[bytes]]],
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._read_s = -np.inf
        self._edition = 0
        self._known = [np.zeros((0, 2), np.uint64)] * 2

    @property
    def edition(self) -> int:
        """See text.lookups.Here."""
        self._newest()
        return self._edition

    def local(self, high: Words, low: Words) -> npt.NDArray[np.bool_]:
        """See text.lookups.Here."""
        return self._among(0, high, low)

    def broadcast(self, high: Words, low: Words) -> npt.NDArray[np.bool_]:
        """See text.lookups.Here."""
        return self._among(1, high, low)

    def _among(self, kind: int, high: Words, low: Words) -> npt.NDArray[np.bool_]:
        known = self._newest()[kind]
        if not len(known):
            return np.zeros(len(high), np.bool_)
        asked = _mixed(high, low)
        at = np.minimum(np.searchsorted(_mixed(*known.T), asked), len(known) - 1)
        found: npt.NDArray[np.bool_] = (known[at, 0] == high) & (known[at, 1] == low)
        return found

    def _newest(self) -> list[Words]:
        with self._lock:
            if self._clock() - self._read_s >= AGAIN_S:
                self._read_s = self._clock()
                words = [_words(sorted(addresses)) for addresses in self._read()]
                known = [each[np.argsort(_mixed(*each.T))] for each in words]
                self._edition += any(not np.array_equal(*pair) for pair in zip(known, self._known, strict=True))
                self._known = known
            return self._known


def _mixed(high: Words, low: Words) -> Words:
    """A number for each address, to sort and search by."""
    return high * np.uint64(0x9E37_79B9_7F4A_7C15) + low


def _words(addresses: Iterable[bytes]) -> npt.NDArray[np.uint64]:
    """Both halves of each address, IPv4 as IPv4-mapped, shape (n, 2)."""
    numbers = [int.from_bytes(raw, "big") | (_MAPPED if len(raw) == 4 else 0) for raw in addresses]
    return np.array([(number >> 64, number & (1 << 64) - 1) for number in numbers], np.uint64).reshape(-1, 2)
