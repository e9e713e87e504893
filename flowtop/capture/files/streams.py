"""IPFIX over TCP in a capture: streams put together by sequence number, and cut into messages.

What a capture lost, or never had (it began in the middle), leaves a gap: reading goes on at the next segment that
begins with a message. Bounded are the streams followed, and what of a stream waits for the segments before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from flowtop.wire.ipfix import begins_message

MAX_STREAMS = 256
MAX_WAITING_OCTETS = 1 << 18
MAX_WAITING = 1_024
"""Octets and number of the segments of a stream that wait; past these, what they wait for is missing."""
_MODULUS = 1 << 32
_LENGTH_OCTETS = 4
_SYN, _RST = 0x02, 0x04


class Segment(NamedTuple):
    """A TCP segment.

    Attributes:
        stream: tells streams apart: both ends.
        sequence: number of its first octet.
        flags: control bits.
        octets: its payload, as far as it was captured.
    """

    stream: tuple[str, str]
    sequence: int
    flags: int
    octets: bytes


class Piece(NamedTuple):
    """A message of a stream.

    Attributes:
        stream: of the segment.
        octets: of the message; of something that is none, all that can be told to belong to it.
        gap: something is missing before it.
    """

    stream: tuple[str, str]
    octets: bytes
    gap: bool


class Streams:
    """Takes the segments of a capture in its order."""

    def __init__(self) -> None:
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()

    def take(self, segment: Segment) -> Iterator[Piece]:
        """The messages that are complete with it."""
        key = segment.stream
        if segment.flags & _SYN:
            yield from self._end(key)
        stream = self._streams.setdefault(key, _Stream())
        self._streams.move_to_end(key)
        for octets, gap in stream.take(segment):
            yield Piece(key, octets, gap)
        if segment.flags & _RST:
            yield from self._end(key)
        elif len(self._streams) > MAX_STREAMS:
            yield from self._end(next(iter(self._streams)))

    def end(self) -> Iterator[Piece]:
        """What is left when the capture ends."""
        for key in list(self._streams):
            yield from self._end(key)

    def _end(self, key: tuple[str, str]) -> Iterator[Piece]:
        stream = self._streams.pop(key, None)
        if stream is not None:
            for octets, gap in stream.end():
                yield Piece(key, octets, gap)


class _Stream:
    """One direction of a connection.

    `_next`: the sequence number that follows what was read, None: the beginning of a message is looked for. `_foreign`:
    it carries something else.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        self._begun = False
        self._foreign = False
        self._gap = False
        self._waiting: dict[int, bytes] = {}
        self._octets = b""

    def take(self, segment: Segment) -> Iterator[tuple[bytes, bool]]:
        sequence = segment.sequence
        if segment.flags & _SYN:
            sequence = self._next = (sequence + 1) % _MODULUS
        if not segment.octets or self._foreign:
            return
        if self._next is None:
            if not begins_message(segment.octets):
                return
            self._next = sequence
        known = self._waiting.get(sequence, b"")
        self._waiting[sequence] = max(known, segment.octets, key=len)
        yield from self._read_on()
        while len(self._waiting) > MAX_WAITING or sum(map(len, self._waiting.values())) > MAX_WAITING_OCTETS:
            yield from self._skip_gap()

    def end(self) -> Iterator[tuple[bytes, bool]]:
        while self._waiting:
            yield from self._skip_gap()
        if self._octets:
            yield self._octets, self._gap

    def _read_on(self) -> Iterator[tuple[bytes, bool]]:
        """Append what follows, as long as something does."""
        while self._next is not None:
            for sequence in sorted(self._waiting, key=self._ahead):
                ahead = self._ahead(sequence)
                if ahead > 0:
                    return
                octets = self._waiting.pop(sequence)[-ahead:]
                self._octets += octets
                self._next = (self._next + len(octets)) % _MODULUS
                yield from self._messages()
                break
            else:
                return

    def _ahead(self, sequence: int) -> int:
        """How many octets are missing before that one; negative: it was read already."""
        assert self._next is not None
        return (sequence - self._next + _MODULUS // 2) % _MODULUS - _MODULUS // 2

    def _messages(self) -> Iterator[tuple[bytes, bool]]:
        """Cut the complete messages off what was read."""
        while len(self._octets) >= _LENGTH_OCTETS:
            if not begins_message(self._octets):
                octets, self._octets = self._octets, b""
                if not self._begun:
                    self._foreign = True
                    self._waiting.clear()
                    return
                yield octets, self._gap  # whatever it is, the next message is somewhere behind it
                self._lose_track()
                return
            self._begun = True
            length = int.from_bytes(self._octets[2:4], "big")
            if len(self._octets) < length:
                return
            yield self._octets[:length], self._gap
            self._octets, self._gap = self._octets[length:], False

    def _skip_gap(self) -> Iterator[tuple[bytes, bool]]:
        """What is missing will not come: go on at the first segment behind it that begins with a message."""
        if self._octets:
            yield self._octets, self._gap
            self._octets = b""
        self._lose_track(tell=True)
        base = next(iter(self._waiting))
        for sequence in sorted(self._waiting, key=lambda number: (number - base + _MODULUS // 2) % _MODULUS):
            if begins_message(self._waiting[sequence]):
                self._next = sequence
                yield from self._read_on()
                return
            del self._waiting[sequence]

    def _lose_track(self, tell: bool = False) -> None:
        self._next = None
        self._gap = self._gap or tell
