"""Files in root's directories for a flowtop that is not root any more: a process that opens them, and nothing else.

Only where plain root started flowtop; behind sudo, files are written with the rights of who ran it. What may be opened
is fixed before: the files that were named on the command line, and on the screen new files of flowtop's own kinds in a
few directories.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flowtop import files
from flowtop.confine import account, libc, seccomp
from flowtop.confine.landlock import Access, Ruleset
from flowtop.confine.messages import ProtocolError, member, receive, send
from flowtop.files import FileInUse, OutputFile

SUFFIXES = frozenset((".ipfix", ".jsonl", ".json", ".csv", ".parquet", ".pcapng", ".gz", ".zst"))
"""Of files that are named on the screen."""


_CAP_CHOWN = 0
_MOST_MADE = 64
"""Directories that are made and not released."""

Answer = tuple[dict[str, object], int | None]
"""A message, and the descriptor that goes with it."""


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
    account: account.Account | None = None

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
        return self.permits_directory(path) and Path(path).suffix in SUFFIXES and (new or not os.path.lexists(path))

    def permits_directory(self, path: str) -> bool:
        """Whether a directory may be made there."""
        parent, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - ".." must not lead elsewhere
        place = Path(os.path.realpath(parent), name)
        return any(_is_below(place, directory) for directory in self.directories)


def _is_below(place: Path, directory: Path) -> bool:
    """Whether it is in the directory, and not in a hidden one there, nor hidden itself."""
    return place.is_relative_to(directory) and not any(
        part.startswith(".") for part in place.relative_to(directory).parts)


class RootWriter:
    """The confined process' end: see `files.Delegate`. For any thread.

    Args:
        end: of the socketpair.
        own: names that lead to descriptors of this process, such as /dev/stdout, seen while they could be followed.
    """

    def __init__(self, end: socket.socket, own: Mapping[str, int]) -> None:
        self._end = end
        self._own = own
        self._lock = threading.Lock()

    def open_output(self, path: Path, wall_s: float, *, new: bool) -> OutputFile:
        """See files.open_output."""
        if str(path) in self._own:
            return OutputFile(os.dup(self._own[str(path)]), regular=False)
        answer, descriptors = self._ask(path, op="open", wall_s=wall_s, new=new)
        if len(descriptors) != 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        aside = answer.get("aside")
        return OutputFile(descriptors[0], regular=answer["regular"], made=answer["made"],
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
        _, descriptors = self._ask(path, op="folder")
        if len(descriptors) != 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return descriptors[0]

    def release_directory(self, descriptor: int) -> None:
        """See files.release_directory."""
        status = os.fstat(descriptor)
        self._ask(Path(), op="release", device=status.st_dev, inode=status.st_ino)

    def _ask(self, path: Path, **members: object) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            try:
                send(self._end, {"path": str(path), **members})
                answered = receive(self._end)
            except ProtocolError as error:
                raise OSError(errno.EPROTO, str(error)) from error
        if answered is None:
            raise OSError(errno.EPIPE, "the process that opens files has ended")
        answer, descriptors = answered
        if "errno" in answer:
            if answer.get("in_use"):
                raise FileInUse(path)
            raise OSError(answer["errno"], answer["text"], str(path))
        return answer, descriptors


def start_writer(permitted: Permitted) -> RootWriter:
    """Start the process. For a process without threads. Raises OSError."""
    own = {name: number for name in permitted.named if (number := files.own_descriptor(Path(name))) is not None}
    permitted = replace(permitted, named=permitted.named - own.keys())
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if child:
        theirs.close()
        return RootWriter(ours, own)
    try:
        ours.close()
        _begin(parent, theirs.fileno())
        _confine(permitted)
        _Server(theirs, permitted).run()
    finally:
        os._exit(0)
    raise AssertionError("unreachable")


def _begin(parent: int, keep: int) -> None:
    """A child that ends with its parent, has no terminal and no open file of it."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.closerange(3, keep)
    os.closerange(keep + 1, 65_536)


def _confine(permitted: Permitted) -> None:
    """Root's files, as far as they are permitted, but no capabilities, sockets or programs."""
    rules: Ruleset | None = None
    with suppress(OSError):
        rules = Ruleset(Access(write=permitted.places))
    account.give_up_privileges(None, 1 << _CAP_CHOWN if permitted.account is not None else 0)
    with suppress(OSError):
        if rules is not None:
            rules.apply()
    with suppress(OSError):
        seccomp.install(seccomp.Calls(sockets=False))


class _Server:
    """Answers until the other end is closed or breaks the rules.

    Args:
        end: of the socketpair.
        permitted: which files it opens.
    """

    def __init__(self, end: socket.socket, permitted: Permitted) -> None:
        self._end = end
        self._permitted = permitted
        self._opened: set[tuple[int, int]] = set()
        self._made: dict[tuple[int, int], int] = {}
        self._operations = {"open": self._open, "check": self._check, "undo": self._undo, "save": self._save,
                            "folder": self._folder, "release": self._release}

    def run(self) -> None:
        """Until it is over."""
        with suppress(ProtocolError, OSError):
            while (asked := receive(self._end)) is not None and not asked[1]:
                descriptor = None
                try:
                    answer, descriptor = self._answer(asked[0])
                except OSError as error:
                    answer = {"errno": error.errno or errno.EIO, "text": error.strerror or str(error),
                              "in_use": isinstance(error, FileInUse)}
                send(self._end, answer, [] if descriptor is None else [descriptor])
                if descriptor is not None:
                    os.close(descriptor)

    def _answer(self, message: Mapping[str, Any]) -> Answer:
        """Raises OSError; ProtocolError: not a request."""
        operation = self._operations.get(member(message, "op", str))
        name = member(message, "path", str)
        if operation is None or "\0" in name:
            raise ProtocolError("no such request")
        return operation(message, Path(name))

    def _require(self, path: Path, *, new: bool) -> None:
        if not self._permitted.permits(str(path), new=new):
            raise PermissionError(errno.EACCES, "not one of the files that were named at the start", str(path))

    def _open(self, message: Mapping[str, Any], path: Path) -> Answer:
        new, wall_s = member(message, "new", bool), member(message, "wall_s", float)
        self._require(path, new=new)
        output = files.open_output(path, lambda: wall_s, new=new or str(path) not in self._permitted.named)
        status = os.fstat(output.descriptor)
        self._opened.add((status.st_dev, status.st_ino))
        return {"regular": output.regular, "made": output.made,
                "aside": None if output.aside is None else str(output.aside)}, output.descriptor

    def _check(self, _: Mapping[str, Any], path: Path) -> Answer:
        self._require(path, new=False)
        files.check_output(path)
        return {}, None

    def _undo(self, message: Mapping[str, Any], path: Path) -> Answer:
        aside, place = message.get("aside"), (member(message, "device", int), member(message, "inode", int))
        self._require(path, new=True)
        if place not in self._opened or not (aside is None or _is_aside(aside, path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        identity: Any = SimpleNamespace(st_dev=place[0], st_ino=place[1])
        files.undo_output(OutputFile(-1, member(message, "regular", bool), member(message, "made", bool),
                                     None if aside is None else Path(aside)), identity, path)
        return {}, None

    def _save(self, message: Mapping[str, Any], path: Path) -> Answer:
        if path != self._permitted.saved:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        files.replace_file(path, member(message, "text", str))
        return {}, None


    def _folder(self, _: Mapping[str, Any], path: Path) -> Answer:
        account_ = self._permitted.account
        if account_ is None or not self._permitted.permits_directory(str(path)) or len(self._made) >= _MOST_MADE:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        descriptor = files.make_directory(path)
        status = os.fstat(descriptor)
        os.fchown(descriptor, account_.uid, account_.gid)
        self._made[status.st_dev, status.st_ino] = descriptor
        return {}, os.dup(descriptor)

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
        return {}, None


def _is_aside(aside: object, path: Path) -> bool:
    """Whether it is a name that files.put_aside gives."""
    return (isinstance(aside, str) and Path(aside).parent in (path.parent, Path(os.path.realpath(path)).parent)
            and Path(aside).name.startswith(f"{path.name.partition('.')[0]}-"))
