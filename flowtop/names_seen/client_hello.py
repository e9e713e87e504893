"""The server's name in a TLS ClientHello (RFC 8446, RFC 6066)."""

from __future__ import annotations

from flowtop.names_seen.errors import IncompleteError, MalformedError

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_MAJOR = 3
"""High octet of a record's version, from SSL 3.0 to TLS 1.3."""
_RECORD_HEADER = 5
_LONGEST_RECORD = (1 << 14) + 256
_VERSION_AND_RANDOM = 34
_SERVER_NAME, _HOST_NAME = 0, 0
LONGEST_HELLO = 1 << 15
"""Octets of a ClientHello that are looked at: a bound for what is kept until it is complete."""


class _Octets:
    """Reads one part after another.

    Args:
        octets: the message, or its beginning.
        whole: whether that is all of it.
    """

    def __init__(self, octets: bytes, *, whole: bool = True) -> None:
        self._octets = octets
        self._at = 0
        self.whole = whole

    @property
    def left(self) -> int:
        return len(self._octets) - self._at

    def take(self, count: int) -> bytes:
        """Raises MalformedError, IncompleteError: there are no more."""
        if self.left < count:
            raise MalformedError("too short") if self.whole else IncompleteError
        self._at += count
        return self._octets[self._at - count:self._at]

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def vector(self, octets: int) -> bytes:
        """A part with its length, in so many octets, before it."""
        return self.take(self.number(octets))


def name_in_records(octets: bytes) -> bytes | None:
    """The name in a ClientHello in TLS records, as on TCP; None: it has none.

    Raises:
        MalformedError: it is no ClientHello.
        IncompleteError: more octets are needed.
    """
    message = bytearray()
    reader = _Octets(octets, whole=False)
    while True:
        try:
            kind, major, _, length = reader.number(1), reader.number(1), reader.number(1), reader.number(2)
        except IncompleteError:
            break
        if kind != _HANDSHAKE or major != _MAJOR or not 0 < length <= _LONGEST_RECORD:
            if not message:
                raise MalformedError("no handshake")
            break  # what follows the ClientHello
        part = reader.take(min(length, reader.left))
        message += part
        if len(part) < length:
            break
    return name_in_message(bytes(message))


def name_in_message(octets: bytes) -> bytes | None:
    """As `name_in_records`, of the message without records, as in QUIC."""
    head = _Octets(octets, whole=False)
    kind, length = head.number(1), head.number(3)
    if kind != _CLIENT_HELLO or length > LONGEST_HELLO:
        raise MalformedError("no ClientHello")
    hello = _Octets(octets[4:4 + length], whole=len(octets) >= 4 + length)
    hello.take(_VERSION_AND_RANDOM)
    hello.vector(1)  # the session's id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression
    if not hello.left and hello.whole:  # before TLS 1.3 there may be no extensions
        return None
    length = hello.number(2)
    there = min(length, hello.left)
    extensions = _Octets(hello.take(there), whole=hello.whole or there == length)
    while extensions.left or there < length:
        extension, content = extensions.number(2), extensions.vector(2)
        if extension == _SERVER_NAME:
            return _host_name(content)
    return None


def _host_name(content: bytes) -> bytes | None:
    names = _Octets(_Octets(content).vector(2))
    while names.left:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            return name
    return None
