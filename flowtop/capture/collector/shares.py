"""Which entries go when there are too many: the least recently used of who has more than a fair share, else of all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Shares(Generic[Key]):
    """Keys of entries by who they are of; the entries are the caller's. Every call takes constant time.

    Args:
        most: limit of entries, 1 or more.
        each: limit of those of one source; None: the same.

    Attributes:
        evicted: number of entries that had to go so far.
    """

    def __init__(self, most: int, each: int | None = None) -> None:
        self.evicted = 0
        self._most = most
        self._each = most if each is None else each
        self._order: OrderedDict[Key, Hashable] = OrderedDict()
        self._of_source: dict[Hashable, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def use(self, key: Key) -> None:
        """Mark an entry as most recently used; it has to be there."""
        self._order.move_to_end(key)
        self._of_source[self._order[key]].move_to_end(key)

    def add(self, key: Key, source: Hashable) -> Key | None:
        """Add an entry, which must be new; returns one that has to go, and is not here any more."""
        mine = self._of_source.setdefault(source, OrderedDict())
        mine[key] = None
        self._order[key] = source
        gone: Key | None = None
        if len(mine) > self._each or (len(self._order) > self._most and len(mine) * len(self._of_source) > self._most):
            gone = next(iter(mine))
        elif len(self._order) > self._most:
            gone = next(iter(self._order))
        if gone is not None:
            self.remove(gone)
            self.evicted += 1
        return gone

    def remove(self, key: Key) -> None:
        """Remove an entry, if it is there."""
        if key not in self._order:
            return
        source = self._order.pop(key)
        mine = self._of_source[source]
        del mine[key]
        if not mine:
            del self._of_source[source]
