"""What a client's QUIC Initial packets carry of the ClientHello (RFC 9000, 9001; version 2: RFC 9369).

Initial packets are encrypted with keys that anybody can derive from the packet itself. The ciphers are those of the
package cryptography, which is imported when the first one comes.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from flowtop.names_seen.client_hello import LONGEST_HELLO, name_in_message
from flowtop.names_seen.errors import IncompleteError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MISSING = "names in QUIC need the package cryptography"
"""What to say where it is not installed."""

_LONG, _FIXED, _TYPE = 0x80, 0x40, 0x30
_SAMPLE, _TAG = 16, 16
_LONGEST_ID = 20
_PADDING, _PING, _ACK, _ACK_ECN, _CRYPTO = 0x00, 0x01, 0x02, 0x03, 0x06
_MOST_FRAGMENTS = 256


class _Version(NamedTuple):
    salt: bytes
    prefix: bytes
    """Of the labels of keys."""
    initial: int
    """The type of an Initial packet."""


_VERSIONS = {
    0x00000001: _Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), b"quic ", 0x00),
    0x6B3343CF: _Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2 ", 0x10),
}


class UnreadableError(Exception):
    """It cannot be decrypted: its keys are not those that a client's first packets have."""


class _Keys(NamedTuple):
    key: bytes
    iv: bytes
    header: bytes


def _expand(secret: bytes, label: bytes, octets: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1), of at most 32 octets."""
    label = b"tls13 " + label
    info = octets.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return hmac.digest(secret, info + b"\1", hashlib.sha256)[:octets]


def _client_keys(version: _Version, connection_id: bytes) -> _Keys:
    initial = hmac.digest(version.salt, connection_id, hashlib.sha256)
    secret = _expand(initial, b"client in", 32)
    return _Keys(_expand(secret, version.prefix + b"key", 16), _expand(secret, version.prefix + b"iv", 12),
                 _expand(secret, version.prefix + b"hp", 16))


@cache
def _ciphers() -> tuple[Any, Any, type[Exception]]:
    """AES-GCM by key, AES of single blocks by key, and what the first raises.

    Raises ImportError: cryptography is not installed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM, lambda key: Cipher(algorithms.AES(key), modes.ECB()), InvalidTag


class _Reader:
    """Reads numbers and parts of a packet. Raises MalformedError at its end."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.octets) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise MalformedError("too short")
        self.at += count
        return self.octets[self.at - count:self.at]

    def number(self) -> int:
        """A variable-length integer (RFC 9000, section 16)."""
        first = self.take(1)[0]
        value = first & 0x3F
        for octet in self.take((1 << (first >> 6)) - 1):
            value = value << 8 | octet
        return value


def _packets(datagram: bytes) -> Iterator[bytes]:
    """The contents of the Initial packets at the beginning of a datagram, decrypted.

    Raises MalformedError, UnreadableError, ImportError.
    """
    while len(datagram) > 6 and datagram[0] & (_LONG | _FIXED) == _LONG | _FIXED:
        reader = _Reader(datagram)
        first = reader.take(1)[0]
        version = _VERSIONS.get(int.from_bytes(reader.take(4), "big"))
        if version is None or first & _TYPE != version.initial:
            return
        to = reader.take(reader.take(1)[0])
        reader.take(reader.take(1)[0])
        reader.take(reader.number())  # a token
        length = reader.number()
        start = reader.at
        if len(to) > _LONGEST_ID or length < 4 + _SAMPLE or length > reader.left:
            raise MalformedError("not an Initial packet")
        yield _decrypted(datagram[:start + length], start, _client_keys(version, to))
        datagram = datagram[start + length:]


def _decrypted(packet: bytes, start: int, keys: _Keys) -> bytes:
    """The content of a packet whose number begins at `start`."""
    gcm, ecb, invalid = _ciphers()
    mask = ecb(keys.header).encryptor().update(packet[start + 4:start + 4 + _SAMPLE])
    first = packet[0] ^ mask[0] & 0x0F
    octets = (first & 0x03) + 1
    number = bytes(a ^ b for a, b in zip(packet[start:start + octets], mask[1:], strict=False))
    header = bytes([first]) + packet[1:start] + number
    nonce = (int.from_bytes(keys.iv, "big") ^ int.from_bytes(number, "big")).to_bytes(len(keys.iv), "big")
    try:
        content: bytes = gcm(keys.key).decrypt(nonce, packet[start + octets:], header)
    except invalid as error:
        raise UnreadableError from error
    return content


class InitialHello:
    """Puts a ClientHello together from the packets of one connection, in any order.

    Attributes:
        datagrams: how many were added.
    """

    def __init__(self) -> None:
        self.datagrams = 0
        self._parts: dict[int, bytes] = {}

    def add(self, datagram: bytes) -> bytes | None:
        """The server's name, with what this datagram adds; None: the ClientHello has none.

        Raises:
            MalformedError: what was decrypted is no ClientHello, or the packet none of QUIC.
            UnreadableError: it cannot be decrypted.
            IncompleteError: more is needed.
            ImportError: cryptography is not installed.
        """
        self.datagrams += 1
        for content in _packets(datagram):
            self._read_frames(content)
        whole, at = bytearray(), 0
        for offset in sorted(self._parts):
            part = self._parts[offset]
            if offset > at:
                break
            whole += part[at - offset:]
            at = max(at, offset + len(part))
        if not whole:
            raise IncompleteError
        return name_in_message(bytes(whole))

    def _read_frames(self, content: bytes) -> None:
        reader = _Reader(content)
        while reader.left:
            kind = reader.number()
            if kind == _PADDING:  # most of the packet
                reader.at = len(content) - len(content[reader.at:].lstrip(b"\0"))
                continue
            if kind == _PING:
                continue
            if kind in (_ACK, _ACK_ECN):
                self._skip_acknowledgement(reader, kind)
            elif kind == _CRYPTO:
                offset = reader.number()
                part = reader.take(reader.number())
                if offset + len(part) > LONGEST_HELLO or len(self._parts) >= _MOST_FRAGMENTS:
                    raise MalformedError("too long")
                if len(part) > len(self._parts.get(offset, b"")):
                    self._parts[offset] = part
            else:
                return  # the end of the connection: nothing else belongs in an Initial packet

    @staticmethod
    def _skip_acknowledgement(reader: _Reader, kind: int) -> None:
        reader.number()  # the largest acknowledged
        reader.number()  # delay
        ranges = reader.number()
        reader.number()
        for _ in range(ranges):  # two octets at least each, so the packet's length bounds this
            reader.number()
            reader.number()
        if kind == _ACK_ECN:
            for _ in range(3):
                reader.number()
