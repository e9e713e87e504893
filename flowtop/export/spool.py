"""Flow Records on disk while their collector is away: RFC 5655 files, bounded, in order, kept over a restart."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.from_ipfix import flow_records
from flowtop.record import FlowRecords
from flowtop.wire.flow_templates import PROFILES, announcement, flow_sets, flow_templates
from flowtop.wire.ipfix import encode_messages
from flowtop.wire.ipfix_decoder import split_messages

MAX_OCTETS = 1 << 30
_FIRST_NUMBER = 10**9
"""Names count up from here, and down for what has to be sent before everything else."""


class SpoolInUse(FlowtopError):  # noqa: N818 - a FlowtopError that a caller may step around
    """Another export has the directory."""


Write = Callable[[int, bytes], int]


@dataclass(slots=True)
class _File:
    number: int
    records: int
    octets: int


class Spool:
    """A directory of files, each complete by itself: what one `store` was given, in the `strict` profile.

    For one thread, but for `records`. One export owns the directory.

    Args:
        directory: made with mode 0700 when it is not there; its files are 0600.
        domain: Observation Domain ID said in the files.
        wall: seconds since 1970 UTC.
        max_octets: of all files together.
        write: os.write; injected for tests.

    Raises FlowtopError: the directory cannot be made or read. Raises SpoolInUse.
    """

    def __init__(self, directory: Path, *, domain: int, wall: Callable[[], float], max_octets: int = MAX_OCTETS,
                 write: Write = os.write) -> None:
        self._directory = directory
        self._domain = domain
        self._wall = wall
        self._max_octets = max_octets
        self._write = write
        self._templates = flow_templates(PROFILES["strict"])
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._files = self._found()
            except OSError:
                os.close(self._lock)
                raise
        except BlockingIOError as error:
            raise SpoolInUse(f"another flowtop spools to {directory}",
                             hint="stop it, or export to the collector from one of them") from error
        except OSError as error:
            raise FlowtopError(f"cannot use the spool directory {directory}: {error.strerror}",
                               hint="choose a directory that can be written", exit_code=EXIT_USAGE) from error
        self._records = sum(file.records for file in self._files)
        self._octets = sum(file.octets for file in self._files)

    @property
    def records(self) -> int:
        """Flow Records on disk."""
        return self._records

    @property
    def oldest_records(self) -> int:
        """Flow Records in the first file."""
        return self._files[0].records

    @property
    def octets(self) -> int:
        """Octets on disk."""
        return self._octets

    def store(self, records: FlowRecords, *, first: bool = False) -> tuple[FlowRecords, str]:
        """Put records after all others, or before them; gives those that could not be stored, and why in words."""
        messages = self._messages(records)
        octets = sum(map(len, messages))
        if self.octets + octets > self._max_octets:
            return records, f"the spool is full: {self._max_octets} octets in {self._directory}"
        file = _File(self._number(first), len(records), octets)
        try:
            self._write_file(self._path(file), b"".join(messages))
        except OSError as error:
            return records, f"cannot spool to {self._directory}: {error.strerror}"
        self._add(file, first=first)
        return records[:0], ""

    def oldest(self) -> FlowRecords:
        """Records of the first file: fewer than `oldest_records` when it was cut off.

        Raises FlowtopError: it cannot be read, and is put aside as `.damaged`. Call only when `records` is not 0.
        """
        path = self._path(self._files[0])
        try:
            return flow_records(_whole_messages(path.read_bytes()))
        except (OSError, ValueError) as error:  # ValueError: no messages, or not those of flowtop.
            with suppress(FileNotFoundError):
                path.rename(path.with_suffix(".damaged"))
            raise FlowtopError(f"cannot replay {path.name}: {error}",
                               hint=f"it is kept as {path.with_suffix('.damaged')}") from error

    def forget(self, place: int = 0) -> None:
        """A file has been taken care of: the first, or the one at that place."""
        file = self._files[place]
        del self._files[place]
        self._records -= file.records
        self._octets -= file.octets
        self._path(file).unlink(missing_ok=True)

    def adopt(self, other: Spool) -> None:
        """Take over another spool's files, after those there are, and close it. Raises OSError: not all of them."""
        try:
            while other._files:
                theirs = other._files[0]
                ours = _File(self._number(first=False), theirs.records, theirs.octets)
                other._path(theirs).rename(self._path(ours))
                self._add(ours)
                other.forget()
        finally:
            other.close()

    def close(self) -> None:
        """Leave what is there for the next run; nothing otherwise."""
        os.close(self._lock)
        if not self._files:
            with suppress(OSError):  # Not empty: damaged files are kept for who wants to look.
                self._directory.rmdir()

    def _add(self, file: _File, *, first: bool = False) -> None:
        if first:
            self._files.appendleft(file)
        else:
            self._files.append(file)
        self._records += file.records
        self._octets += file.octets

    def _messages(self, records: FlowRecords) -> list[bytes]:
        sets, _ = flow_sets(records, self._templates)
        templates = announcement(self._templates)
        if records["tunnel"].any():
            templates += announcement(self._templates, tunnelled=True)
        return encode_messages([*templates, *sets], domain=self._domain, sequence=0,
                               export_time_s=int(self._wall())).messages

    def _number(self, first: bool) -> int:
        if not self._files:
            return _FIRST_NUMBER
        return self._files[0].number - 1 if first else self._files[-1].number + 1

    def _path(self, file: _File) -> Path:
        return self._directory / f"{file.number:010d}-{file.records}.ipfix"

    def _write_file(self, path: Path, octets: bytes) -> None:
        """Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            left = memoryview(octets)
            while left:
                count = self._write(descriptor, left)  # type: ignore[arg-type]
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                left = left[count:]
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        partial.rename(path)

    def _found(self) -> deque[_File]:
        """Files that an earlier run left, in order; what it did not finish goes. Raises OSError."""
        for path in self._directory.glob("*.partial"):
            if path.is_file():
                path.unlink()
        found = ((re.fullmatch(r"([0-9]{10})-([0-9]{1,9})\.ipfix", path.name), path)
                 for path in self._directory.iterdir() if path.is_file())
        files = [_File(int(name[1]), int(name[2]), path.stat().st_size) for name, path in found if name]
        return deque(sorted(files, key=lambda file: file.number))


def _whole_messages(octets: bytes) -> list[bytes]:
    return split_messages(octets)[0]
