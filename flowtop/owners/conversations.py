"""What is known of conversations: packets pass several interfaces of a host, of which only some show whose they are.

A conversation is both directions of a flow, wherever they were seen: addresses, ports, protocol. On the host's end of a
container's veth packets that come in carry their socket; where they leave again, after routing, they do not, nor do the
answers. With address translation one connection is two conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import ICMP_ECHO
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.model.translations import CONVERSATION_OCTETS, Translation

Words = npt.NDArray[np.uint64]
"""Conversations, shape (n, 5): the octets of model.translations.Flow.conversation. Or values, or Flow Keys."""
Mask = npt.NDArray[np.bool_]

WORDS = CONVERSATION_OCTETS // 8
MOST_CONVERSATIONS = 65_536
_IDLE_S = 300.0
_MARK_BITS = 18
_MARK_SHIFT = np.uint64(64 - _MARK_BITS)
_KEY_WORDS = FLOW_KEY_DTYPE.itemsize // 8
_PORT, _PROTOCOL = np.uint64(16), np.uint64(32)
"""Bits of the last word before the second port, and before the protocol."""
_PORT_MASK, _PORTS_MASK = np.uint64(0xFFFF), np.uint64(0xFFFF_FFFF)
_LAST_MASK = np.uint64(0xFFFF_FFFF_FFFF)
"""Of the last word: without the kind of the key's entry."""


def words_of(keys: npt.NDArray[np.void]) -> Words:
    """FLOW_KEY_DTYPE, shape (n,), as its u64 words, shape (n, 7)."""
    words: Words = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, _KEY_WORDS)
    return words


def conversations_of(keys: npt.NDArray[np.void], rows: npt.NDArray[np.int64] | None = None) -> tuple[Words, Mask]:
    """The conversation of each Flow Key (FLOW_KEY_DTYPE, shape (n,)), or of those in these rows; and for which it has
    the key's ends the other way round."""
    words = words_of(keys)  # taking rows of a structured array is 20 times slower
    words = (words if rows is None else words.take(rows, axis=0))[:, :WORDS].copy()
    last = words[:, 4] & _LAST_MASK
    source, destination = last & _PORT_MASK, last >> _PORT & _PORT_MASK
    for icmp, (request, reply) in ICMP_ECHO.items():
        some = last >> _PROTOCOL & np.uint64(0xFF) == np.uint64(icmp)
        if some.any():
            answers = some & (destination >> np.uint64(8) == np.uint64(reply))
            destination = np.where(answers, destination & np.uint64(0xFF) | np.uint64(request << 8), destination)
            source = np.where(some, destination, source)
    turned = (words[:, 0] > words[:, 2]) | (words[:, 0] == words[:, 2]) & (
        (words[:, 1] > words[:, 3]) | (words[:, 1] == words[:, 3]) & (source > destination))
    words[turned] = words[turned][:, [2, 3, 0, 1, 4]]
    first, second = np.where(turned, destination, source), np.where(turned, source, destination)
    words[:, 4] = last >> _PROTOCOL << _PROTOCOL | second << _PORT | first
    return words, turned


def ends_of(words: Words, turned: Mask, *, source: bool) -> Words:
    """The address of one end of flows, and its port, protocol and IP version, as u64 words, shape (n, 3).

    Args:
        words, turned: conversations_of(keys).
        source: the end that sends; else the one that receives.
    """
    second = turned if source else ~turned
    ends = np.where(second[:, None], words[:, 2:5], words[:, [0, 1, 4]])
    last = words[:, 4]
    ends[:, 2] = last >> _PROTOCOL << _PROTOCOL | np.where(second, last >> _PORT, last) & _PORT_MASK
    return ends


class Conversations:
    """Remembers values by conversation. When there are more than `most`, those that were not seen for the longest time
    are forgotten.

    Args:
        rng: random source of the hash's multipliers: strangers choose addresses and ports.
        clock: seconds, monotonic.
        width: number of values of each, u64.
        most: conversations to keep.
        idle_s: those that were not seen for this time are forgotten too.

    Attributes:
        forgotten: how many were forgotten so far as there were too many.
    """

    def __init__(self, rng: np.random.Generator, clock: Callable[[], float], width: int = 1, *,
                 most: int = MOST_CONVERSATIONS, idle_s: float = _IDLE_S) -> None:
        self._multipliers = rng.integers(0, 1 << 64, WORDS, np.uint64, endpoint=False) | np.uint64(1)
        self._mixer = np.uint64(rng.integers(0, 1 << 64, None, np.uint64, endpoint=False)) | np.uint64(1)
        self._clock = clock
        self._most = most
        self._idle_s = idle_s
        self._marks = np.zeros(1 << _MARK_BITS, np.bool_)
        self._hashes: Words = np.empty(0, np.uint64)
        self._words: Words = np.empty((0, WORDS), np.uint64)
        self._values: Words = np.empty((0, width), np.uint64)
        self._seen_s: npt.NDArray[np.float64] = np.empty(0)
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._hashes)

    def _hash(self, words: Words) -> Words:
        sums = words[:, 0] * self._multipliers[0]
        for number in range(1, WORDS):
            sums += words[:, number] * self._multipliers[number]
        mixed: Words = (sums ^ sums >> np.uint64(32)) * self._mixer
        return mixed ^ mixed >> np.uint64(29)

    def _places(self, words: Words) -> tuple[npt.NDArray[np.int64], Words]:
        """Where each is; -1: it is not there. And the hashes."""
        hashes = self._hash(words)
        places = np.full(len(words), -1)
        if not len(self._hashes):
            return places, hashes
        some = np.flatnonzero(self._marks[hashes >> _MARK_SHIFT])  # most are not there: that is seen without searching
        found = np.searchsorted(self._hashes, hashes[some]).clip(max=len(self._hashes) - 1)
        alike = self._hashes[found] == hashes[some]
        some, found = some[alike], found[alike]
        alike = (self._words[found] == words.take(some, axis=0)).all(axis=1)
        places[some[alike]] = found[alike]
        return places, hashes

    def note(self, words: Words, values: Words) -> None:
        """These conversations have these values now, shape (n, width), each the last ones that are given."""
        if not len(words):
            return
        now_s = self._clock()
        places, hashes = self._places(words)
        known = places >= 0
        self._values[places[known]] = values[known]
        self._seen_s[places[known]] = now_s
        new = np.flatnonzero(~known)[::-1]
        if len(new):
            new = new[np.unique(hashes[new], return_index=True)[1]]
            self._add(hashes[new], words[new], values[new], now_s)

    def _add(self, hashes: Words, words: Words, values: Words, now_s: float) -> None:
        """Add new ones, ascending by hash."""
        kept = np.flatnonzero(self._seen_s > now_s - self._idle_s)
        excess = len(kept) + len(hashes) - self._most
        if excess > 0:
            self.forgotten += excess
            kept = np.sort(kept[np.argsort(self._seen_s[kept], kind="stable")[excess:]])
            hashes, words, values = hashes[:self._most], words[:self._most], values[:self._most]
        order = np.argsort(np.concatenate((self._hashes[kept], hashes)), kind="stable")
        self._hashes = np.concatenate((self._hashes[kept], hashes))[order]
        self._words = np.concatenate((self._words[kept], words))[order]
        self._values = np.concatenate((self._values[kept], values))[order]
        self._seen_s = np.concatenate((self._seen_s[kept], np.full(len(hashes), now_s)))[order]
        self._marks[:] = False
        self._marks[self._hashes >> _MARK_SHIFT] = True

    def find(self, words: Words) -> tuple[Words, Mask]:
        """The values of each conversation, shape (n, width), 0 where it is not known, and whether it is."""
        places, _ = self._places(words)
        known = places >= 0
        found = np.zeros((len(words), self._values.shape[1]), np.uint64)
        rows = np.flatnonzero(known)
        found[rows] = self._values.take(places[rows], axis=0)
        self._seen_s[places[rows]] = self._clock()
        return found, known


class Senders:
    """Remembers who sends in each direction of conversations.

    Args:
        rng, clock, most: see Conversations.
    """

    def __init__(self, rng: np.random.Generator, clock: Callable[[], float], most: int = MOST_CONVERSATIONS) -> None:
        self._known = Conversations(rng, clock, 2, most=most)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def forgotten(self) -> int:
        """How many conversations were forgotten so far as there were too many."""
        return self._known.forgotten

    def note(self, words: Words, turned: Mask, owners: Words) -> None:
        """These flows, as conversations_of gives them, are sent by these owners, not 0."""
        for way in (False, True):
            some = turned == way
            values, _ = self._known.find(words[some])
            values[:, int(way)] = owners[some]
            self._known.note(words[some], values)

    def find(self, words: Words, turned: Mask) -> Words:
        """The owner that sends each flow, else the one that sends in the other direction; 0: none is known."""
        values, _ = self._known.find(words)
        own, other = (np.where(turned == way, values[:, 1], values[:, 0]) for way in (True, False))
        return np.where(own != 0, own, other)


class Sides:
    """The other side of conversations with address translation.

    Args:
        rng, clock: see Conversations.
    """

    def __init__(self, rng: np.random.Generator, clock: Callable[[], float]) -> None:
        self._known = Conversations(rng, clock, WORDS + 1, idle_s=np.inf)

    def __len__(self) -> int:
        return len(self._known)

    def note(self, translations: Sequence[Translation]) -> None:
        """These connections are translated now."""
        words, values = [], []
        for one in translations:
            flip = one.before.is_turned ^ one.after.is_turned
            for here, there, after in ((one.one, one.other, 0), (one.other, one.one, 1)):
                words.append(here)
                values.append(there + (flip << 1 | after).to_bytes(8, "little"))
        self._known.note(np.frombuffer(b"".join(words), np.uint64).reshape(-1, WORDS),
                         np.frombuffer(b"".join(values), np.uint64).reshape(-1, WORDS + 1))

    def other(self, words: Words, turned: Mask) -> tuple[Words, Mask, Mask]:
        """The other side of flows, as conversations_of gives them, and which have one."""
        found, known = self._known.find(words)
        return found[:, :WORDS], turned ^ (found[:, WORDS] & np.uint64(2) != 0), known

    def before(self, keys: Words, words: Words, turned: Mask) -> tuple[Words, npt.NDArray[np.int64]]:
        """Flow Keys as they would be before the translation, shape (m, 7), of flows that are seen after it, and which
        these are, shape (m,).

        Args:
            keys: words_of the Flow Keys, shape (n, 7).
            words, turned: their conversations.
        """
        found, _ = self._known.find(words)
        places = np.flatnonzero(found[:, WORDS] & np.uint64(1))  # these are seen after it
        found = found[places]
        made = keys.take(places, axis=0)
        turn = turned[places] ^ (found[:, WORDS] & np.uint64(2) != 0)
        for some, columns in ((~turn, (0, 1, 2, 3)), (turn, (2, 3, 0, 1))):
            made[some, :4] = found[some][:, columns]
        first, second = found[:, 4] & _PORT_MASK, found[:, 4] >> _PORT & _PORT_MASK
        ports = np.where(turn, first << _PORT | second, second << _PORT | first)
        protocols = made[:, 4] >> _PROTOCOL & np.uint64(0xFF)
        ported = ~np.isin(protocols, np.array(list(ICMP_ECHO), np.uint64))
        made[ported, 4] = made[ported, 4] & ~_PORTS_MASK | ports[ported]
        return made, places
