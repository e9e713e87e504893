"""The octets of a capture file in one buffer: from disk, standard input or a pipe, unzipped where they are gzipped."""

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
from flowtop.errors import EXIT_NO_INPUT, FlowtopError

ROOM = 8 << 20
"""Octets of a file in memory at once; no frame and no block of a capture that is kept may be longer."""
_GZIP = b"\x1f\x8b"
_READ = 1 << 20


def readable(descriptors: Sequence[int], timeout_s: float) -> set[int]:
    """Which of them can be read, or have ended, within so long; whatever their numbers (select stops at 1,024)."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(math.ceil(timeout_s * 1000))}


class DamagedError(Exception):
    """The file goes on with something that cannot be read. Says what, in words that follow the file's name."""


class OctetStream:
    """Reads a file in large pieces. Memory is bounded whatever the file says.

    Args:
        path: of the file, "-" for standard input.
        descriptor: of "-", where it is not standard input's; to be closed by the caller.
        room: octets kept at once.

    Attributes:
        name: of the file, for people.
        buffer: uint8, shape (room + PAD,): `start` to `end` are read and not yet taken.
        raw, view: the same octets.
        at_end: nothing follows what is in the buffer.
        octets_read: of the file itself, compressed as it is.
        octets_total: of the file; None where that is not known (a pipe).
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
        self._descriptor, self._owned = self._open(path) if descriptor is None else (descriptor, False)
        status = os.fstat(self._descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise FlowtopError(f"cannot read {self.name}: it is a directory", hint="name a capture file",
                               exit_code=EXIT_NO_INPUT)
        self.octets_total = status.st_size if stat.S_ISREG(status.st_mode) else None

    def _open(self, path: str) -> tuple[int, bool]:
        if path == "-":
            if sys.stdin is None:
                raise FlowtopError("standard input is closed", hint="-r - reads from there", exit_code=EXIT_NO_INPUT)
            return sys.stdin.fileno(), False
        try:
            # A named pipe that nobody writes to yet would not let anybody in, nor a signal end that.
            descriptor = os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(descriptor, True)
            return descriptor, True
        except OSError as error:
            raise FlowtopError(f"cannot read {path}: {(error.strerror or str(error)).lower()}",
                               hint="name a capture file that you may read", exit_code=EXIT_NO_INPUT) from error
        except ValueError as error:  # a NUL in the name
            raise FlowtopError(f"cannot read {path!r}: {error}", exit_code=EXIT_NO_INPUT) from error

    def fileno(self) -> int:
        """To wait for: a pipe may have nothing to read for long."""
        return self._descriptor

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if self._owned:
            self._owned = False
            os.close(self._descriptor)

    @property
    def ready(self) -> bool:
        """Whether `fill` will not have to wait."""
        if self.at_end or self.octets_total is not None or (self._unzip and self._unzip.pending):
            return True
        return bool(readable((self._descriptor,), 0.0))

    def fill(self) -> bool:
        """Read on, to the end of the buffer or (a pipe) as far as there is something. Whether anything came.

        Raises:
            DamagedError: reading fails, or what was gzipped is damaged.
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
            self._damage = error  # what came before it is read first
        self.buffer[self.end:self.end + PAD] = 0
        return self.end > before

    def _compact(self) -> None:
        """Move what is left to the front."""
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
                piece += more  # two octets tell whether it is gzipped
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
            raise DamagedError(f"cannot be read on: {(error.strerror or str(error)).lower()}") from error
        self.octets_read += count
        self.end += count
        self.at_end = not count

    def _piece(self, room: int) -> bytes:
        try:
            piece = os.read(self._descriptor, min(room, _READ))
        except OSError as error:
            raise DamagedError(f"cannot be read on: {(error.strerror or str(error)).lower()}") from error
        self.octets_read += len(piece)
        return piece


class _Unzip:
    """gzip (RFC 1952), several members one after another too; never more octets at once than asked for."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._left = b""
        self._damage: DamagedError | None = None

    @property
    def pending(self) -> bool:
        """Whether `more` has something to give without more input."""
        return bool(self._left) or self._damage is not None

    def more(self, piece: bytes, room: int) -> tuple[bytes, bool]:
        """Decompressed octets, at most `room`, and whether that was all.

        Args:
            piece: what follows in the file; empty when the file has ended, or while `pending`.
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
                raise DamagedError("has something behind its gzip stream that is none")
            if octets:
                self._member = zlib.decompressobj(wbits=31)
        if not octets:
            self._left = b""
            return b"", ended
        before = self._member.copy()
        try:
            found = self._member.decompress(octets, room)
        except zlib.error as error:
            self._damage = DamagedError("is damaged: its gzip stream cannot be decompressed")
            found = _salvaged(before, octets, room)
            if not found:
                raise self._damage from error
            return found, False
        self._left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return found, False


def _salvaged(member: Any, octets: bytes, room: int) -> bytes:
    """What decompresses before the damage that is somewhere in these octets: zlib gives nothing of a piece with any."""
    found = b""
    for step in (1024, 1):
        while octets and len(found) < room:
            trial = member.copy()
            try:
                found += trial.decompress(octets[:step], room - len(found))
            except zlib.error:
                break
            member, octets = trial, octets[step:]
    return found
