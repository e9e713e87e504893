"""Files in root's directories for a flowtop that is not root any more: a process that opens them, and nothing else.

Only where plain root started flowtop; behind sudo, files are written with the rights of who ran it. What may be opened
is fixed before: the files that were named on the command line, and on the screen new files of flowtop's own kinds in a
few directories.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flowtop import files
from flowtop.confine import seccomp
from flowtop.confine.account import Account
from flowtop.confine.checks import text
from flowtop.confine.helper import Answer, Helper, Operation, Operations, start_helper
from flowtop.confine.landlock import Access
from flowtop.confine.messages import member
from flowtop.files import FileInUse, OutputFile

SUFFIXES = frozenset((".ipfix", ".jsonl", ".json", ".csv", ".parquet", ".pcapng", ".gz", ".zst"))
"""Of files that are named on the screen."""


_SETTINGS = ".json"
"""Programs read their settings from such files: one that is there is not replaced."""
_CAP_CHOWN = 0
_MOST_MADE = 64
"""Directories that are made and not released."""

@dataclass(frozen=True, slots=True)
class Permitted:
    """Which files may be opened.

    Attributes:
        named: paths of the command line.
        directories: where new files may be made too, and in what is in them but hidden: their real paths.
        saved: a file of settings that may be replaced; None: none.
        account: who writes to directories that are made.
    """

    named: frozenset[str]
    directories: tuple[Path, ...] = ()
    saved: Path | None = None
    account: Account | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        """What Landlock has to allow: directories, and files that are no regular ones."""
        found = []
        for name in self.named:
            with suppress(OSError, ValueError):
                for path in (Path(name).absolute(), Path(os.path.realpath(name))):
                    special = path.exists() and not path.is_file() and not path.is_dir()
                    found.append(path if special else path.parent)
        return (*found, *self.directories, *([self.saved.parent] if self.saved else ()))

    def permits(self, path: str, *, new: bool) -> bool:
        """Whether this file may be opened; `new`: it must not exist yet."""
        if path in self.named:
            return True
        return self.permits_directory(path) and Path(path).suffix in SUFFIXES and (
            new or not os.path.lexists(path) or (Path(path).suffix != _SETTINGS and _is_plain(path)))

    def permits_directory(self, path: str) -> bool:
        """Whether a directory may be made there."""
        parent, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - ".." must not lead elsewhere
        place = Path(os.path.realpath(parent), name)
        return any(_is_below(place, directory) for directory in self.directories)


def _is_plain(path: str) -> bool:
    """Whether it is a file of root's that has no other name: then `open_output` renames it, and spoils nothing."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and not status.st_uid


def _is_below(place: Path, directory: Path) -> bool:
    """Whether it is in the directory, and not in a hidden one there, nor hidden itself."""
    return place.is_relative_to(directory) and not any(
        part.startswith(".") for part in place.relative_to(directory).parts)


class RootWriter:
    """The confined process' end: see `files.Delegate`. For any thread.

    Args:
        helper: that opens.
        own: names that lead to descriptors of this process, such as /dev/stdout, seen while they could be followed.
    """

    def __init__(self, helper: Helper, own: Mapping[str, int]) -> None:
        self._helper = helper
        self._own = own

    def open_output(self, path: Path, wall_s: float, *, new: bool) -> OutputFile:
        """See files.open_output."""
        if str(path) in self._own:
            return OutputFile(os.dup(self._own[str(path)]), regular=False)
        answer, (descriptor,) = self._ask(path, op="open", wall_s=wall_s, new=new)
        aside = answer.get("aside")
        return OutputFile(descriptor, regular=answer["regular"], made=answer["made"],
                          aside=None if aside is None else Path(aside))

    def check_output(self, path: Path) -> None:
        """See files.check_output."""
        if str(path) not in self._own:
            self._ask(path, op="check")

    def undo_output(self, output: OutputFile, identity: os.stat_result, path: Path) -> None:
        """See files.undo_output."""
        with suppress(OSError):
            self._ask(path, op="undo", regular=output.regular, made=output.made, device=identity.st_dev,
                      inode=identity.st_ino, aside=None if output.aside is None else str(output.aside))

    def replace_saved(self, path: Path, text: str) -> None:
        """Write the saved file anew. Raises OSError."""
        self._ask(path, op="save", text=text)

    def make_directory(self, path: Path) -> int:
        """See files.make_directory."""
        _, (descriptor,) = self._ask(path, op="folder")
        return descriptor

    def release_directory(self, descriptor: int) -> None:
        """See files.release_directory."""
        status = os.fstat(descriptor)
        self._ask(Path(), op="release", device=status.st_dev, inode=status.st_ino)

    def _ask(self, path: Path, *, op: str, **members: object) -> tuple[dict[str, Any], list[int]]:
        try:
            return self._helper.ask(op, (), path=str(path), **members)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise FileInUse(path) from error
            raise OSError(error.errno, error.strerror, str(path)) from error


def start_writer(permitted: Permitted) -> RootWriter:
    """Start the process: it has root's files, as far as they are permitted, but no sockets and programs. For a process
    without further threads. Raises OSError."""
    own = {name: number for name in permitted.named if (number := files.own_descriptor(Path(name))) is not None}
    permitted = replace(permitted, named=permitted.named - own.keys())
    keeps = () if permitted.account is None else (_CAP_CHOWN,)
    return RootWriter(start_helper(keeps, _Opening(permitted), seccomp.Calls(sockets=False),
                                   Access(write=permitted.places)), own)


class _Opening(Operations):
    """What it does, for files that are permitted."""

    def __init__(self, permitted: Permitted) -> None:
        self._permitted = permitted
        self._opened: set[tuple[int, int]] = set()
        self._made: dict[tuple[int, int], int] = {}
        self._operations: Mapping[str, Callable[[Mapping[str, Any], Path], Answer]] = {
            "open": self._open, "check": self._check, "undo": self._undo, "save": self._save, "folder": self._folder,
            "release": self._release}

    def at_once(self, op: str) -> Operation | None:
        """See Operations."""
        operation = self._operations.get(op)
        return None if operation is None else lambda message, _: operation(message, Path(text(message, "path")))

    def _require(self, path: Path, *, new: bool) -> None:
        if not self._permitted.permits(str(path), new=new):
            raise PermissionError(errno.EACCES, "not one of the files that were named at the start", str(path))

    def _open(self, message: Mapping[str, Any], path: Path) -> Answer:
        new, wall_s = member(message, "new", bool), member(message, "wall_s", float)
        self._require(path, new=new)
        anew = str(path) not in self._permitted.named and not _is_plain(str(path))
        output = files.open_output(path, lambda: wall_s, new=new or anew)
        status = os.fstat(output.descriptor)
        self._opened.add((status.st_dev, status.st_ino))
        return {"regular": output.regular, "made": output.made,
                "aside": None if output.aside is None else str(output.aside)}, [output.descriptor]

    def _check(self, _: Mapping[str, Any], path: Path) -> Answer:
        self._require(path, new=False)
        files.check_output(path)
        return {}, []

    def _undo(self, message: Mapping[str, Any], path: Path) -> Answer:
        aside, place = message.get("aside"), (member(message, "device", int), member(message, "inode", int))
        self._require(path, new=True)
        if place not in self._opened or not (aside is None or _is_aside(aside, path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        identity: Any = SimpleNamespace(st_dev=place[0], st_ino=place[1])
        files.undo_output(OutputFile(-1, member(message, "regular", bool), member(message, "made", bool),
                                     None if aside is None else Path(aside)), identity, path)
        return {}, []

    def _save(self, message: Mapping[str, Any], path: Path) -> Answer:
        if path != self._permitted.saved:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        files.replace_file(path, member(message, "text", str))
        return {}, []

    def _folder(self, _: Mapping[str, Any], path: Path) -> Answer:
        account = self._permitted.account
        if account is None or not self._permitted.permits_directory(str(path)) or len(self._made) >= _MOST_MADE:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        descriptor = files.make_directory(path)
        status = os.fstat(descriptor)
        os.fchown(descriptor, account.uid, account.gid)
        self._made[status.st_dev, status.st_ino] = descriptor
        return {}, [os.dup(descriptor)]

    def _release(self, message: Mapping[str, Any], _: Path) -> Answer:
        """What was written there is root's from now on."""
        descriptor = self._made.pop((member(message, "device", int), member(message, "inode", int)), None)
        if descriptor is not None:
            os.fchown(descriptor, 0, 0)  # first: nobody changes it meanwhile
            for name in os.listdir(descriptor):  # noqa: PTH208 - of a descriptor
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:  # nothing that is also elsewhere
                    os.chown(name, 0, 0, dir_fd=descriptor, follow_symlinks=False)
            os.close(descriptor)
        return {}, []


def _is_aside(aside: object, path: Path) -> bool:
    """Whether it is a name that files.put_aside gives."""
    return (isinstance(aside, str) and Path(aside).parent in (path.parent, Path(os.path.realpath(path)).parent)
            and Path(aside).name.startswith(f"{path.name.partition('.')[0]}-"))
