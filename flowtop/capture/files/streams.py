"""IPFIX over TCP in captures: segments in any order → messages; streams with other content give nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from flowtop.model.kinds import TcpBits
from flowtop.wire.ipfix import MAX_MESSAGE_OCTETS, begins_message
from flowtop.wire.recognition import EXPORT_PORTS, find_message, stream_verdict

MAX_STREAMS = 256
"""Limit of streams with octets that wait."""
MAX_KNOWN = 16_384
"""Limit of streams of which only the state is kept: those with other content."""
MAX_WAITING_OCTETS = 1 << 18
MAX_WAITING = 1_024
"""Limits of waiting segments per stream; beyond them, the missing segments count as lost."""
_MODULUS = 1 << 32
_LENGTH_OCTETS = 4
_SEARCHED_OCTETS = 2 * MAX_MESSAGE_OCTETS
"""Of a stream whose start was not captured: in so many octets a complete message is found, if there is one."""
_SYN, _RST = int(TcpBits.SYN), int(TcpBits.RST)


class Segment(NamedTuple):
    """A TCP segment.

    Attributes:
        stream: identifies the stream: both ends, as text with the port.
        sequence: sequence number of its first octet.
        flags: control bits.
        octets: the payload that was captured.
    """

    stream: tuple[str, str]
    sequence: int
    flags: int
    octets: bytes


class Piece(NamedTuple):
    """A message of a stream.

    Attributes:
        stream: identifies the stream.
        octets: the message; or, if it is not a message, all octets up to the next one.
        gap: octets before it are missing.
        connection: number of the connection between these ends, from 0.
    """

    stream: tuple[str, str]
    octets: bytes
    gap: bool
    connection: int = 0


class Streams:
    """Takes the segments of a capture in order and assembles messages."""

    def __init__(self) -> None:
        self._streams: OrderedDict[tuple[str, str], _Stream] = OrderedDict()
        self._idle: OrderedDict[tuple[str, str], _Stream] = OrderedDict()

    def take(self, segment: Segment) -> Iterator[Piece]:
        """Add a segment; returns the messages that are complete now."""
        key = segment.stream
        stream = self._streams.pop(key, None) or self._idle.pop(key, None) or _Stream(key)
        if segment.flags & _SYN and not stream.opened_by(segment.sequence):
            yield from _pieces(key, stream.connection, stream.end())
            stream = _Stream(key, stream.connection + stream.used)
        yield from _pieces(key, stream.connection, stream.take(segment))
        if segment.flags & _RST:
            yield from _pieces(key, stream.connection, stream.end())
            stream = _Stream(key, stream.connection + stream.used)
        (self._streams if stream.waits else self._idle)[key] = stream
        if len(self._streams) > MAX_STREAMS:
            oldest, stream = self._streams.popitem(last=False)
            yield from _pieces(oldest, stream.connection, stream.end())
        if len(self._idle) > MAX_KNOWN:
            self._idle.popitem(last=False)

    def end(self) -> Iterator[Piece]:
        """The remaining messages at the end of the capture."""
        while self._streams:
            key, stream = self._streams.popitem(last=False)
            yield from _pieces(key, stream.connection, stream.end())


def _pieces(key: tuple[str, str], connection: int, messages: Iterator[tuple[bytes, bool]]) -> Iterator[Piece]:
    for octets, gap in messages:
        yield Piece(key, octets, gap, connection)


class _Stream:
    """One direction of a connection.

    `_next`: sequence number after the octets read so far; None before the first. `_searching`: where messages begin is
    not known. `_accepted`: it is IPFIX; before that is known nothing is returned. `_foreign`: it has other content.
    """

    def __init__(self, key: tuple[str, str], connection: int = 0) -> None:
        self.connection = connection
        self._hinted = any(int(end.rpartition(":")[2] or 0) in EXPORT_PORTS if ":" in end else False for end in key)
        self._opening: int | None = None
        self._next: int | None = None
        self._searching = True
        self._accepted = False
        self._foreign = False
        self._gap = False
        self._waiting: dict[int, bytes] = {}
        self._octets = b""

    @property
    def used(self) -> bool:
        """Whether it is, or was, IPFIX."""
        return self._accepted

    @property
    def waits(self) -> bool:
        """Whether it holds octets, or a position in messages."""
        return self._accepted or bool(self._waiting) or bool(self._octets)

    def opened_by(self, sequence: int) -> bool:
        """Whether a SYN with this sequence number is a repetition of the one that opened this connection."""
        return self._opening == sequence

    def take(self, segment: Segment) -> Iterator[tuple[bytes, bool]]:
        """Add a segment; returns the messages that are complete now."""
        sequence = segment.sequence
        if segment.flags & _SYN:
            sequence = (sequence + 1) % _MODULUS
            if self._opening is None:
                self._opening, self._next, self._searching = segment.sequence, sequence, False
        if not segment.octets or self._foreign:
            return
        if self._next is None:
            if not self._hinted and stream_verdict(segment.octets) is False:
                return
            self._next = sequence
            self._searching = self._hinted
        known = self._waiting.get(sequence, b"")
        self._waiting[sequence] = max(known, segment.octets, key=len)
        yield from self._read_on()
        while len(self._waiting) > MAX_WAITING or sum(map(len, self._waiting.values())) > MAX_WAITING_OCTETS:
            yield from self._skip_gap()

    def end(self) -> Iterator[tuple[bytes, bool]]:
        """What is left, at the end of the connection or the capture."""
        while self._waiting:
            yield from self._skip_gap()
        cut_off = self._hinted and stream_verdict(self._octets) is not False and len(self._octets) >= _LENGTH_OCTETS
        if self._octets and (self._accepted or cut_off):
            yield self._octets, self._gap
        self._octets = b""

    def _read_on(self) -> Iterator[tuple[bytes, bool]]:
        """Append segments as long as the next one is available."""
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
        """Number of missing octets before a sequence number; negative if it was read already."""
        assert self._next is not None
        return (sequence - self._next + _MODULUS // 2) % _MODULUS - _MODULUS // 2

    def _messages(self) -> Iterator[tuple[bytes, bool]]:
        """Remove and return the complete messages."""
        while len(self._octets) >= _LENGTH_OCTETS:
            if self._searching:
                before = self._find()
                if before:
                    yield before, self._gap
                if self._searching:
                    return
            if not self._accepted and not self._accept():
                return
            if not begins_message(self._octets[:_LENGTH_OCTETS]):
                self._searching = True
                continue
            length = int.from_bytes(self._octets[2:4], "big")
            if len(self._octets) < length:
                return
            yield self._octets[:length], self._gap
            self._octets, self._gap = self._octets[length:], False

    def _accept(self) -> bool:
        """Decide whether the stream is IPFIX, if its octets are enough for that."""
        verdict = stream_verdict(self._octets)
        if self._hinted and begins_message(self._octets[:_LENGTH_OCTETS]):
            verdict = True  # damaged messages are shown too
        if verdict is None and len(self._octets) <= MAX_MESSAGE_OCTETS:
            return False
        self._accepted = verdict is not False
        if not self._accepted:
            self._octets = b""
            self._waiting.clear()
            self._foreign = self._opening is not None
            self._next, self._searching = None, True
        return self._accepted

    def _find(self) -> bytes:
        """Look for a complete message and continue there; returns the octets before it that are no message."""
        at = find_message(self._octets)
        if at is None and not self._accepted and self._hinted and stream_verdict(self._octets) is None:
            return b""
        if at is None:
            surplus = len(self._octets) - _SEARCHED_OCTETS
            if surplus <= 0:
                return b""
            at = surplus + MAX_MESSAGE_OCTETS
        else:
            self._searching = False
        before, self._octets = self._octets[:at], self._octets[at:]
        return before if self._accepted and not self._gap else b""

    def _skip_gap(self) -> Iterator[tuple[bytes, bool]]:
        """Give up waiting for missing segments, and continue at the next one."""
        if self._octets and self._accepted and not self._searching:
            yield self._octets, self._gap
        self._octets, self._searching = b"", self._hinted or self._accepted
        self._gap = self._accepted
        base = next(iter(self._waiting))
        for sequence in sorted(self._waiting, key=lambda number: (number - base + _MODULUS // 2) % _MODULUS):
            if self._searching or stream_verdict(self._waiting[sequence]) is not False:
                self._next = sequence
                yield from self._read_on()
                return
            del self._waiting[sequence]
        self._next = None
