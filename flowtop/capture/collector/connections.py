"""Which connections of exporters are kept when there are too many: those that have proved to be exporters' first.

Anybody can open connections to an open port. Newcomers, which have sent no valid message yet, therefore have places of
their own, and handshakes a deadline. Who needs a place takes it from the source address that has most of them.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

MAX_CONNECTIONS = 256
"""Limit of connections of a capture, over all its addresses."""
HANDSHAKE_S = 10.0
"""A handshake of TLS that takes longer is given up."""
_RESERVED = 16
"""Descriptors left to the rest of the process: exports, names, files that are opened later."""
_LEAST = 4


class Standing(IntEnum):
    """What is known of the other end of a connection; the higher, the later it is given up."""

    NEW = 0
    EXPORTER = 1
    """It has sent a valid message."""
    AUTHENTICATED = 2
    """It has shown a certificate that was verified."""


class _Place:
    """A connection's place; see Places.add."""

    __slots__ = ("deadline_s", "give_up", "source", "standing")

    def __init__(self, source: Hashable, give_up: Callable[[], None], deadline_s: float) -> None:
        self.source = source
        self.give_up = give_up
        self.deadline_s = deadline_s
        self.standing = Standing.NEW


_NEVER = float("inf")


class Places:
    """Places of connections, at most `limit`; a quarter is for newcomers. Keys are the callers' own.

    Args:
        limit: of connections, 2 or more.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS) -> None:
        self._newcomers = max(1, limit // 4)
        self._known = limit - self._newcomers
        self._places: OrderedDict[Hashable, _Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, key: Hashable, source: Hashable, give_up: Callable[[], None], deadline_s: float = _NEVER) -> None:
        """Give a new connection a place; another newcomer is given up if there is none.

        Args:
            key: of the connection, new.
            source: the address it comes from.
            give_up: ends the connection and counts it; it has to call `remove`.
            deadline_s: when to give it up if `greeted` was not called; on the clock of `give_up_overdue`.
        """
        newcomers = [place for place in self._places.values() if place.standing == Standing.NEW]
        if len(newcomers) >= self._newcomers:
            _first_of_the_most(newcomers).give_up()
        self._places[key] = _Place(source, give_up, deadline_s)

    def greeted(self, key: Hashable) -> None:
        """A handshake is done: there is no deadline any more."""
        if key in self._places:
            self._places[key].deadline_s = _NEVER

    def prove(self, key: Hashable, standing: Standing) -> None:
        """Note what is known of the other end. Another connection is given up if there are too many of that kind."""
        place = self._places.get(key)
        if place is None or place.standing >= standing:
            return
        promoted, place.standing = place.standing == Standing.NEW, standing
        others = [other for other in self._places.values() if other is not place and other.standing != Standing.NEW]
        if promoted and len(others) >= self._known:
            lowest = min(other.standing for other in others)
            if standing < lowest:  # it takes no place from those that have shown who they are
                place.give_up()
                return
            _first_of_the_most([other for other in others if other.standing == lowest]).give_up()

    def use(self, key: Hashable) -> None:
        """Mark a connection as most recently used."""
        if key in self._places:
            self._places.move_to_end(key)

    def remove(self, key: Hashable) -> None:
        """A connection has ended."""
        self._places.pop(key, None)

    def give_up_overdue(self, now_s: float) -> None:
        """Give up the connections whose handshake takes too long."""
        for place in [place for place in self._places.values() if place.deadline_s <= now_s]:
            place.give_up()

    def give_up_newcomer(self) -> bool:
        """Give up one that is new, for its descriptor; returns whether there was one."""
        newcomers = [place for place in self._places.values() if place.standing == Standing.NEW]
        if newcomers:
            _first_of_the_most(newcomers).give_up()
        return bool(newcomers)


def _first_of_the_most(places: Collection[_Place]) -> _Place:
    """Of the source with the most of these places the one that was not used for the longest time."""
    counts = Counter(place.source for place in places)
    most = max(counts.values())
    return next(place for place in places if counts[place.source] == most)


def descriptor_budget(wanted: int = MAX_CONNECTIONS) -> int:
    """How many connections the limit of open files leaves room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    with suppress(OSError):
        return max(_LEAST, min(wanted, limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - _RESERVED))
    return max(_LEAST, min(wanted, limit // 2))


class SpareDescriptor:
    """A descriptor kept for when there is no other: with it, a connection can be accepted and closed.

    One that is left waiting would wake up the collector all the time.
    """

    def __init__(self) -> None:
        self._spare = _opened()

    def refuse(self, listening: socket.socket) -> bool:
        """Close the connection that waits; returns whether there was one."""
        self.close()
        try:
            connection, _ = listening.accept()
            connection.close()
        except OSError:
            return False
        finally:
            self._spare = _opened()
        return True

    def close(self) -> None:
        """Close it."""
        for descriptor in self._spare:
            os.close(descriptor)
        self._spare = []


def _opened() -> list[int]:
    with suppress(OSError):
        return [os.open("/", os.O_PATH | os.O_CLOEXEC)]
    return []
