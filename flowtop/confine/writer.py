"""Files for a flowtop that has given up its rights: a process that opens them, and nothing else.

Where plain root started flowtop, they are root's; else those of the user whom it becomes, or is, whose directories have
more than exports: what a shell runs at the next login. What may be opened is fixed before: the files that were named on
the command line, and on the screen new files of flowtop's own kinds in a few directories.
"""

from __future__ import annotations

import errno
import os
import re
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
from flowtop.confine.messages import ProtocolError, member
from flowtop.files import FileInUse, OutputFile

SUFFIXES = frozenset((".ipfix", ".jsonl", ".json", ".csv", ".parquet", ".pcapng", ".pcap", ".gz", ".zst"))
"""Of files that are named on the screen."""


_SETTINGS = ".json"
"""Programs read their settings from such files: one that is there is not replaced."""
_MOST_MADE = 64
"""Directories that are made and not released, and those of files that are not named."""
_MOST_ASIDE = 1024
"""Files whose former ones could be put back."""
_IN_OPEN_DIRECTORY = re.compile(r"/proc/self/fd/([0-9]{1,9})/([^/]+)")


@dataclass(frozen=True, slots=True)
class Permitted:
    """Which files may be opened.

    Attributes:
        named: paths of the command line.
        directories: where new files may be made too, and in what is in them but hidden: their real paths.
        saved: a file of settings that may be replaced; None: none.
    """

    named: frozenset[str]
    directories: tuple[Path, ...] = ()
    saved: Path | None = None

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

    def permits(self, place: Path) -> bool:
        """Whether files and directories may be made at a place, whose directory is a real path."""
        return any(_is_below(place, directory) for directory in self.directories)


def _is_plain(path: Path) -> bool:
    """Whether it is a file of this user's that has no other name: then `open_output` renames it, and spoils nothing."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()


def _is_below(place: Path, directory: Path) -> bool:
    """Whether it is in the directory, and not in a hidden one there, nor hidden itself."""
    return place.is_relative_to(directory) and not any(
        part.startswith(".") for part in place.relative_to(directory).parts)


class Writer:
    """The confined process' end: see `files.Delegate`. For any thread.

    Args:
        helper: that opens.
        own: names that lead to descriptors of this process, such as /dev/stdout, seen while they could be followed.
        other_user: it is of another user than this process will be.
    """

    def __init__(self, helper: Helper, own: Mapping[str, int], *, other_user: bool) -> None:
        self._helper = helper
        self._own = own
        self._made: dict[int, list[int]] = {}
        self.other_user = other_user

    def holds(self, path: Path) -> bool:
        """See files.Delegate."""
        found = _IN_OPEN_DIRECTORY.fullmatch(str(path))
        return found is not None and int(found[1]) in self._made

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
        status = os.fstat(descriptor)
        self._made[descriptor] = [status.st_dev, status.st_ino]
        return descriptor

    def release_directory(self, descriptor: int) -> None:
        """See files.release_directory."""
        with suppress(OSError):
            self._ask(Path(), op="release", made=self._made.pop(descriptor, [0, 0]))

    def _ask(self, path: Path, *, op: str, **members: object) -> tuple[dict[str, Any], list[int]]:
        found, place = _IN_OPEN_DIRECTORY.fullmatch(str(path)), str(path)
        if found is not None and int(found[1]) in self._made:
            place, members["within"] = found[2], self._made[int(found[1])]
        try:
            return self._helper.ask(op, (), path=place, **members)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise FileInUse(path) from error
            raise OSError(error.errno, error.strerror, str(path)) from error


def start_writer(permitted: Permitted, account: Account | None = None, *, other_user: bool = False) -> Writer:
    """Start the process: it has files of a user, as far as they are permitted, but no sockets and programs. For a
    process without further threads. Raises OSError.

    Args:
        permitted: files.
        account: user whose they are; None: this one's.
        other_user: see Writer.
    """
    own = {name: number for name in permitted.named if (number := files.own_descriptor(Path(name))) is not None}
    permitted = replace(permitted, named=permitted.named - own.keys())
    return Writer(start_helper((), _Opening(permitted), seccomp.Calls(sockets=False), Access(write=permitted.places),
                               account), own, other_user=other_user)


class _Opening(Operations):
    """What it does, for files that are permitted.

    A file that was not named is opened by the descriptor of its directory, whose real path is looked at once that is
    open: what leads there may be another one's, and be replaced at any time.
    """

    def __init__(self, permitted: Permitted) -> None:
        self._permitted = permitted
        self._opened: set[tuple[int, int]] = set()
        self._asides: dict[str, Path] = {}
        self._made: dict[tuple[int, int], int] = {}
        self._directories: dict[str, int] = {}
        self._operations: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "open": self._open, "check": self._check, "undo": self._undo, "save": self._save, "folder": self._folder,
            "release": self._release}

    def at_once(self, op: str) -> Operation | None:
        """See Operations."""
        operation = self._operations.get(op)
        return None if operation is None else lambda message, _: operation(message)

    def _place(self, message: Mapping[str, Any]) -> tuple[Path, bool]:
        """A path to open, and whether it must be a new file's. Raises OSError: it is not permitted."""
        path = text(message, "path")
        if "within" in message:
            descriptor = self._made.get(_pair(message, "within"))
            if descriptor is None or "/" in path or path in ("", ".", ".."):
                raise _refused(path)
            return Path("/proc/self/fd", str(descriptor), path), True
        if path in self._permitted.named:
            return Path(path), False
        place, real = self._beneath(path)
        if real.suffix not in SUFFIXES:
            raise _refused(path)
        there = os.path.lexists(real)
        if there and (real.suffix == _SETTINGS or not _is_plain(real)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) if message.get("new") is True else (
                _refused(path))
        return place, not there

    def _beneath(self, path: str) -> tuple[Path, Path]:
        """A path by the descriptor of its directory, which is in a permitted one, and the real one."""
        parent, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - ".." must not lead elsewhere
        directory = self._directories.get(parent)
        if directory is not None and not os.fstat(directory).st_nlink:  # it was removed; there may be another one
            os.close(self._directories.pop(parent))
            directory = None
        if directory is None:
            directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if len(self._directories) >= _MOST_MADE:
                os.close(self._directories.pop(next(iter(self._directories))))
            self._directories[parent] = directory
        real = Path(os.readlink(f"/proc/self/fd/{directory}"), name)  # noqa: PTH115
        if name in ("", ".", "..") or not self._permitted.permits(real):
            raise _refused(path)
        return Path("/proc/self/fd", str(directory), name), real

    def _open(self, message: Mapping[str, Any]) -> Answer:
        new, wall_s = member(message, "new", bool), member(message, "wall_s", float)
        asked = text(message, "path")
        place, only_new = self._place(message)
        output = files.open_output(place, lambda: wall_s, new=new or only_new)
        status = os.fstat(output.descriptor)
        self._opened.add((status.st_dev, status.st_ino))
        aside = None
        if output.aside is not None:
            if len(self._asides) >= _MOST_ASIDE:
                self._asides.clear()
            aside = str(Path(asked).with_name(output.aside.name))
            self._asides[asked] = output.aside
        return {"regular": output.regular, "made": output.made, "aside": aside}, [output.descriptor]

    def _check(self, message: Mapping[str, Any]) -> Answer:
        files.check_output(self._place(message)[0])
        return {}, []

    def _undo(self, message: Mapping[str, Any]) -> Answer:
        asked, identity = text(message, "path"), (member(message, "device", int), member(message, "inode", int))
        aside = self._asides.pop(asked, None) if message.get("aside") is not None else None
        place = Path(asked) if asked in self._permitted.named else (
            self._place(message)[0] if "within" in message else self._beneath(asked)[0])
        if identity not in self._opened:
            raise _refused(asked)
        if aside is not None and asked not in self._permitted.named:  # its directory may have another descriptor by now
            aside = place.with_name(aside.name)
        status: Any = SimpleNamespace(st_dev=identity[0], st_ino=identity[1])
        files.undo_output(OutputFile(-1, member(message, "regular", bool), member(message, "made", bool),
                                     aside), status, place)
        return {}, []

    def _save(self, message: Mapping[str, Any]) -> Answer:
        path = Path(text(message, "path"))
        if path != self._permitted.saved:
            raise _refused(str(path))
        files.replace_file(path, member(message, "text", str))
        return {}, []

    def _folder(self, message: Mapping[str, Any]) -> Answer:
        path = text(message, "path")
        if len(self._made) >= _MOST_MADE:
            raise _refused(path)
        descriptor = files.make_directory(self._beneath(path)[0])
        status = os.fstat(descriptor)
        self._made[status.st_dev, status.st_ino] = descriptor
        return {}, [os.dup(descriptor)]

    def _release(self, message: Mapping[str, Any]) -> Answer:
        descriptor = self._made.pop(_pair(message, "made"), None)
        if descriptor is not None:
            os.close(descriptor)
        return {}, []


def _pair(message: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Device and inode. Raises ProtocolError."""
    found: list[Any] = member(message, name, list)
    if len(found) != 2 or any(type(one) is not int for one in found):
        raise ProtocolError(f"{name} is no directory")
    return found[0], found[1]


def _refused(path: str) -> PermissionError:
    return PermissionError(errno.EACCES, "not one of the files that were named at the start", path)
