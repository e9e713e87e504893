"""netlink: the requests, dumps and attributes that capture needs (RFC 3549, uapi/linux/netlink.h).

pyroute2 decodes every attribute of every interface into objects, which takes hundreds of milliseconds with 400
interfaces; the index, type, flags, name and four counters used here take a few.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ctypes import addressof, create_string_buffer

F_REQUEST = 0x1
F_ACK = 0x4
F_ECHO = 0x8
F_DUMP = 0x300
F_EXCL = 0x200
F_CREATE = 0x400
_F_DUMP_INTR = 0x10

_ERROR = 2
_DONE = 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_RECEIVE_BYTES = 1 << 18
_DUMP_ATTEMPTS = 5
_RECEIVE_BUFFER_FORCE, _ATTACH_FILTER = 33, 26
"""SO_RCVBUFFORCE, SO_ATTACH_FILTER."""
_PROGRAM = struct.Struct("@HP")
"""struct sock_fprog."""
_INSTRUCTION_OCTETS = 8

Message = tuple[int, bytes]
"""(type, body): body without the netlink header."""


def pack_attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute from `offset` on; stops at an invalid length."""
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            return
        yield kind & _TYPE_MASK, body[offset + _ATTRIBUTE.size:offset + length]
        offset += (length + 3) & ~3


def split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            return
        yield kind, flags, sequence, datagram[offset + _HEADER.size:offset + length]
        offset += (length + 3) & ~3


class DumpInterruptedError(InterruptedError):
    """The kernel's lists change faster than they can be read (NLM_F_DUMP_INTR).

    Attributes:
        bodies: result of the last attempt: items are valid, but some may be missing or repeated.
    """

    def __init__(self, bodies: list[bytes]) -> None:
        super().__init__(errno.EINTR, "the list changed while it was read")
        self.bodies = bodies


class NetlinkSocket:
    """Requests to the kernel, in the network namespace of the creating thread.

    Args:
        protocol: of netlink, NETLINK_*.
        begun: a descriptor of such a socket, on which `begin_dump` was called once; None: one is made.
    """

    def __init__(self, protocol: int, begun: int | None = None) -> None:
        if begun is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            self._socket.bind((0, 0))
        else:
            self._socket = socket.socket(fileno=begun)
        self._sequence = 0 if begun is None else 1

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> int:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        return self._sequence

    def _replies(self, sequence: int) -> Iterator[tuple[int, int, bytes]]:
        while True:
            for kind, flags, number, body in split(self._socket.recv(_RECEIVE_BYTES)):
                if number == sequence:
                    yield kind, flags, body

    def request(self, kind: int, flags: int, body: bytes) -> Message | None:
        """Send one request and return the answer: a message, or None if it has no content.

        Raises:
            OSError: with the errno of the answer.
        """
        sequence = self._send(kind, F_REQUEST | F_ACK | flags, body)
        answer: Message | None = None
        for reply, _, content in self._replies(sequence):
            if reply != _ERROR:
                answer = (reply, content)
                continue
            _raise_for(content)
            return answer
        raise AssertionError("unreachable: _replies does not end")

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of a dump; repeated if a change interrupted it.

        Raises:
            DumpInterruptedError: every attempt was interrupted.
            OSError: with the errno of the answer.
        """
        for _ in range(_DUMP_ATTEMPTS):
            bodies, interrupted = self._dump_once(kind, body)
            if not interrupted:
                return bodies
        raise DumpInterruptedError(bodies)

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self.begin_dump(kind, body)
        return self.end_dump()

    def begin_dump(self, kind: int, body: bytes) -> None:
        """Ask for a dump, without reading the answer. Raises OSError."""
        self._send(kind, F_REQUEST | F_DUMP, body)

    def end_dump(self) -> tuple[list[bytes], bool]:
        """The bodies of the dump that was asked for, and whether a change interrupted it. Raises OSError."""
        sequence = self._sequence
        bodies: list[bytes] = []
        interrupted = False
        for reply, flags, content in self._replies(sequence):
            interrupted |= bool(flags & _F_DUMP_INTR)
            if reply == _ERROR:
                _raise_for(content)
            if reply == _DONE:
                break
            bodies.append(content)
        return bodies, interrupted


class RouteSocket(NetlinkSocket):
    """Requests to rtnetlink, in the network namespace of the creating thread."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)


def _raise_for(content: bytes) -> None:
    (code,) = struct.unpack_from("=i", content)
    if code:
        raise OSError(-code, os.strerror(-code))


LINK_GROUPS = 1 | 8
"""RTMGRP_LINK and RTMGRP_TC: changes of interfaces and tc hooks."""


class EventSocket:
    """Multicast notifications of the kernel, read without blocking.

    Args:
        groups: bit mask of groups, such as RTMGRP_* values.
        protocol: of netlink, NETLINK_*.
        octets: room for those that were not read yet.
        select: classic BPF instructions that select notifications; empty: all are wanted.
        bound: a descriptor of such a socket, ready to be read; None: one is made.
    """

    def __init__(self, groups: int, protocol: int = socket.NETLINK_ROUTE, *, octets: int = 1 << 20,
                 select: bytes = b"", bound: int | None = None) -> None:
        if bound is not None:
            self._socket = socket.socket(fileno=bound)
            return
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, octets)
        except OSError:  # it needs CAP_NET_ADMIN; the other is limited by net.core.rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
        if select:
            buffer = create_string_buffer(select, len(select))
            self._socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER,
                                    _PROGRAM.pack(len(select) // _INSTRUCTION_OCTETS, addressof(buffer)))
        self._socket.bind((0, groups))

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self) -> tuple[list[Message], bool]:
        """All notifications that have arrived, and whether the kernel dropped some (ENOBUFS)."""
        messages: list[Message] = []
        dropped = False
        while True:
            try:
                datagram = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return messages, dropped
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                dropped = True
                continue
            messages.extend((kind, body) for kind, _, _, body in split(datagram))
