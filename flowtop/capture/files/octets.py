"""A buffer with the data of a capture file: from disk, standard input or a pipe, decompressed if gzipped."""

from __future__ import annotations

import math
import os
import select
import stat
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowtop.capture.packets.frames import PAD, Octets
from flowtop.errors import EXIT_NO_INPUT, FlowtopError, limit_hint

ROOM = 8 << 20
"""Size of the buffer, which also limits the length of a frame, and of a block that is not skipped."""
_GZIP = b"\x1f\x8b"
_READ = 1 << 20
_COMPRESSORS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}
"""Programs by the first octets of what they compress, which flowtop does not read."""


def compressor_of(head: bytes) -> str:
    """The program that compressed a file which begins with these octets; "" for none, or gzip."""
    return next((name for start, name in _COMPRESSORS.items() if head.startswith(start)), "")


def readable(descriptors: Sequence[int], timeout_s: float) -> set[int]:
    """The descriptors that are readable or at their end within the timeout; unlike select, above 1,023 too."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(math.ceil(timeout_s * 1000))}


class DamagedError(Exception):
    """The file is damaged; str() is text that follows the file's name."""


def open_capture(path: str) -> int:
    """A descriptor to read the file from; "-": that of standard input. Raises FlowtopError."""
    if path == "-":
        if sys.stdin is None:
            raise FlowtopError("standard input is closed", hint="-r - reads from it", exit_code=EXIT_NO_INPUT)
        return sys.stdin.fileno()
    try:
        # Without O_NONBLOCK, opening a named pipe without a writer would block, also for signals.
        descriptor = os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        return descriptor
    except OSError as error:
        raise FlowtopError(f"cannot read {path}: {(error.strerror or str(error)).lower()}",
                           hint=limit_hint(str(error)) or "specify a readable capture file",
                           exit_code=EXIT_NO_INPUT) from error
    except ValueError as error:  # a NUL in the name
        raise FlowtopError(f"cannot read {path!r}: {error}", exit_code=EXIT_NO_INPUT) from error


class OctetStream:
    """Reads a file in large pieces, with bounded memory.

    Args:
        path: path of the file, or "-" for standard input.
        descriptor: of the file, if it is open already; the caller closes it.
        room: size of the buffer in octets.

    Attributes:
        name: name of the file for messages.
        buffer: uint8, shape (room + PAD,): octets `start` to `end` are read and not taken yet.
        raw, view: the same memory.
        at_end: nothing follows the buffer's content.
        octets_read: of the file, compressed if it is.
        octets_total: size of the file; None if unknown (a pipe).
    """

    def __init__(self, path: str, descriptor: int | None = None, room: int = ROOM) -> None:
        self.name = "standard input" if path == "-" else path
        self.raw = bytearray(room + PAD)
        self.buffer: Octets = np.frombuffer(self.raw, np.uint8)
        self.view = memoryview(self.raw)
        self.start = self.end = 0
        self.at_end = False
        self.octets_read = 0
        self._room = room
        self._unzip: _Unzip | None = None
        self._damage: DamagedError | None = None
        self._owned = descriptor is None and path != "-"
        self._descriptor = open_capture(path) if descriptor is None else descriptor
        status = os.fstat(self._descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise FlowtopError(f"cannot read {self.name}: it is a directory", hint="specify a capture file",
                               exit_code=EXIT_NO_INPUT)
        self.octets_total = status.st_size if stat.S_ISREG(status.st_mode) else None

    def fileno(self) -> int:
        """File descriptor to wait on: a pipe may have no data for long."""
        return self._descriptor

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if self._owned:
            self._owned = False
            os.close(self._descriptor)

    @property
    def ready(self) -> bool:
        """Whether `fill` does not block."""
        if self.at_end or self.octets_total is not None or (self._unzip and self._unzip.pending):
            return True
        return bool(readable((self._descriptor,), 0.0))

    def fill(self) -> bool:
        """Read to the end of the buffer, or what a pipe has; returns whether there was any data.

        Raises:
            DamagedError: a read error, or damaged gzip data.
        """
        if self._damage:
            raise self._damage
        self._compact()
        before = self.end
        try:
            while self.end < self._room and not self.at_end:
                self._read(self._room - self.end)
                if self.octets_total is None and self.end > before:
                    break
        except DamagedError as error:
            if self.end == before:
                raise
            self._damage = error  # the data before it is processed first
        self.buffer[self.end:self.end + PAD] = 0
        return self.end > before

    def _compact(self) -> None:
        """Move the remaining data to the front."""
        left = self.end - self.start
        self.buffer[:left] = self.buffer[self.start:self.end]
        self.start, self.end = 0, left

    def _read(self, room: int) -> None:
        first = not self.octets_read
        if self._unzip is None and not first:
            self._read_plain()
            return
        piece = b""
        if self._unzip is None or not self._unzip.pending:
            piece = self._piece(room)
            while first and len(piece) == 1 and (more := self._piece(room)):
                piece += more  # two octets are needed to detect gzip
            if first and piece.startswith(_GZIP):
                self._unzip = _Unzip()
        if self._unzip is None:
            self.at_end = not piece
        else:
            piece, self.at_end = self._unzip.more(piece, room)
        self.buffer[self.end:self.end + len(piece)] = np.frombuffer(piece, np.uint8)
        self.end += len(piece)

    def _read_plain(self) -> None:
        try:
            count = os.readv(self._descriptor, [self.view[self.end:self._room]])
        except OSError as error:
            raise DamagedError(f"cannot be read any further: {(error.strerror or str(error)).lower()}") from error
        self.octets_read += count
        self.end += count
        self.at_end = not count

    def _piece(self, room: int) -> bytes:
        try:
            piece = os.read(self._descriptor, min(room, _READ))
        except OSError as error:
            raise DamagedError(f"cannot be read any further: {(error.strerror or str(error)).lower()}") from error
        self.octets_read += len(piece)
        return piece


class _Unzip:
    """Decompresses gzip (RFC 1952), also with several members; returns at most the requested number of octets."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._left = b""
        self._damage: DamagedError | None = None

    @property
    def pending(self) -> bool:
        """Whether `more` has output without further input."""
        return bool(self._left) or self._damage is not None

    def more(self, piece: bytes, room: int) -> tuple[bytes, bool]:
        """Decompressed octets, at most `room`, and whether the end was reached.

        Args:
            piece: the next data of the file; empty at its end, or while `pending`.
        """
        if self._damage:
            raise self._damage
        ended = not piece and not self._left
        octets = self._left + piece
        if ended and not self._member.eof:
            raise DamagedError("is cut off: its gzip stream does not end")
        if self._member.eof and octets:
            octets = octets.lstrip(b"\0")  # padding after the last member (tape blocks)
            if octets and not _GZIP.startswith(octets[:2]):
                raise DamagedError("has other data after its gzip stream")
            if octets:
                self._member = zlib.decompressobj(wbits=31)
        if not octets:
            self._left = b""
            return b"", ended
        before = self._member.copy()
        try:
            output = self._member.decompress(octets, room)
        except zlib.error as error:
            self._damage = DamagedError("is damaged: its gzip stream cannot be decompressed")
            output = _salvaged(before, octets, room)
            if not output:
                raise self._damage from error
            return output, False
        self._left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return output, False


def _salvaged(member: Any, octets: bytes, room: int) -> bytes:
    """Decompress up to the damage in these octets: zlib returns nothing for input with damage in it."""
    output = b""
    for step in (1024, 1):
        while octets and len(output) < room:
            trial = member.copy()
            try:
                output += trial.decompress(octets[:step], room - len(output))
            except zlib.error:
                break
            member, octets = trial, octets[step:]
    return output
