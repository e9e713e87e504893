"""The user's directories, and files that flowtop writes: their owner, and how existing files are kept."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

_XDG = {"config": ("XDG_CONFIG_HOME", ".config"), "state": ("XDG_STATE_HOME", ".local/state")}

VIEW = "view.toml"
"""In the state directory: how the screen looks."""
FILE_MODE = 0o600
"""Only the owner may read: flows are private data."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of file systems without hard links: vfat, many FUSE and SMB mounts."""
_OPEN_ATTEMPTS = 16
_LOCK_ATTEMPTS, _LOCK_AGAIN_S = 10, 0.01
_MOST_LINKS = 40
_OWN_DESCRIPTOR = re.compile(r"/proc/(?:self|thread-self|([0-9]+))/fd/([0-9]+)")


FILE_IN_USE = "something else is writing it"


class FileInUse(OSError):  # noqa: N818 - an OSError that has its own words
    """Another process, or another part of this one, is writing the file."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EBUSY, f"cannot write {path}: {FILE_IN_USE}")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that was opened for writing.

    Attributes:
        descriptor: for writing, at the start of a regular file. A regular file is locked until it is closed.
        regular: whether it is a regular file that this process may truncate.
        made: it did not exist before.
        aside: where the file is that had its name; None: there was none.
    """

    descriptor: int
    regular: bool
    made: bool = False
    aside: Path | None = None


class Delegate(Protocol):
    """Opens files for a process that gave up its rights: another one, which has them. Raises what the functions of
    these names raise."""

    def open_output(self, path: Path, wall_s: float, *, new: bool) -> OutputFile:
        """See open_output."""

    def check_output(self, path: Path) -> None:
        """See check_output."""

    def undo_output(self, output: OutputFile, identity: os.stat_result, path: Path) -> None:
        """See undo_output."""

    def replace_saved(self, path: Path, text: str) -> None:
        """See replace_file."""

    def make_directory(self, path: Path) -> int:
        """See make_directory."""

    def release_directory(self, descriptor: int) -> None:
        """See release_directory."""


_delegates: list[Delegate] = []
"""At most one: as the user id, it is the process's."""


def delegate_to(other: Delegate) -> None:
    """From now on have files opened by another process. Paths in /proc/self are still opened here."""
    _delegates[:] = [other]


def _delegate(path: Path) -> Delegate | None:
    return _delegates[0] if _delegates and not str(path).startswith("/proc/self/") else None


def delegated(path: Path) -> bool:
    """Whether another process opens this file."""
    return _delegate(path) is not None


def open_output(path: Path, wall: Callable[[], float], owner: tuple[int, int] | None = None, *,
                new: bool = False) -> OutputFile:
    """Open a file for a writer of its own. An existing file is renamed, an empty one is written.

    The lock (flock) is on the open file: a process that is killed leaves nothing behind. Where a file system has no
    locks, O_EXCL still decides who makes the file.

    Args:
        path: a link to a descriptor of this process (/dev/stdout) gives that descriptor once more.
        wall: clock, seconds since 1970 UTC.
        owner: user and group that a new file is given to; None: unchanged.
        new: fail if the file exists; links are not followed.

    Raises OSError; FileInUse: something writes it already.
    """
    other = _delegate(path)
    if other is not None and own_descriptor(path) is None:
        return other.open_output(path, wall(), new=new)
    if new:
        return _given(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE),
                      path, owner, None)
    own = own_descriptor(path)
    if own is not None:
        return OutputFile(os.dup(own), regular=False)
    aside = None
    for _ in range(_OPEN_ATTEMPTS):  # others may take, rename or remove the file in between
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return _given(os.open(path, flags, FILE_MODE), path, owner, aside)
        except FileExistsError:
            pass
        try:
            # A named pipe without a reader is an error to be retried; opening must not block.
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if path.is_symlink():
                path = Path(os.path.realpath(path))  # where the link points to, a file can be made
            continue
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return OutputFile(descriptor, regular=False)
        try:
            _lock(descriptor, path)
            if not _is_at(descriptor, path):
                os.close(descriptor)
                continue
            if not os.fstat(descriptor).st_size:  # write it, and leave its owner
                return OutputFile(descriptor, regular=True, aside=aside)
            aside = put_aside(path, wall())
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise FileInUse(path)


def check_output(path: Path) -> None:
    """Raises FileInUse if something writes this regular file now, OSError if it cannot be written."""
    other = _delegate(path)
    if own_descriptor(path) is not None or (other is None and not path.is_file()):
        return
    if other is not None:
        other.check_output(path)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _lock(descriptor, path, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that a link like /dev/stdout or /dev/fd/3 leads to; None: it is an ordinary path.

    Opening it would open its file once more, at its start, and renaming the link would break it for everybody.
    """
    at = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    for _ in range(_MOST_LINKS):
        parent, name = os.path.split(at)
        at = os.path.join(parent if _OWN_DESCRIPTOR.fullmatch(at) else _real_parent(parent), name)  # noqa: PTH118
        match = _OWN_DESCRIPTOR.fullmatch(at)
        if match:
            return int(match[2]) if match[1] in (None, str(os.getpid())) else None
        try:
            at = os.path.normpath(os.path.join(os.path.dirname(at), os.readlink(at)))  # noqa: PTH115, PTH118, PTH120
        except OSError:  # not a link
            return None
    return None


def _real_parent(parent: str) -> str:
    """The folder without links, but with /proc/self as it is."""
    real = os.path.realpath(parent)
    return re.sub(rf"^/proc/{os.getpid()}(/task/[0-9]+)?/fd$", "/proc/self/fd", real)


def _given(descriptor: int, path: Path, owner: tuple[int, int] | None, aside: Path | None) -> OutputFile:
    """A new file, locked and given to its owner. Raises FileInUse if another process was faster with the lock."""
    try:
        _lock(descriptor, path)
        if owner is not None:
            os.fchown(descriptor, *owner)
    except BaseException:
        os.close(descriptor)
        raise
    return OutputFile(descriptor, regular=True, made=True, aside=aside)


def _lock(descriptor: int, path: Path, kind: int = fcntl.LOCK_EX) -> None:
    """Raises FileInUse. Where the file system has no locks nothing happens."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:  # a look at the lock (check_output) takes it too, for a moment
            if attempt == _LOCK_ATTEMPTS - 1:
                raise FileInUse(path) from None
            time.sleep(_LOCK_AGAIN_S)
        except OSError:  # ENOLCK, ENOSYS, EOPNOTSUPP: some NFS, FUSE and SMB mounts
            return
        else:
            return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def undo_output(output: OutputFile, identity: os.stat_result, path: Path) -> None:
    """Undo `open_output` after the file was closed: nothing was written. What is another's by now stays as it is.

    Args:
        output: as `open_output` gave it; its descriptor is not used.
        identity: fstat of the file.
        path: as given to `open_output`.
    """
    if not output.regular:
        return
    other = _delegate(path)
    if other is not None:
        other.undo_output(output, identity, path)
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _lock(descriptor, path)
            if os.path.samestat(os.fstat(descriptor), identity) and _is_at(descriptor, path):
                if output.made:
                    path.unlink()
                else:
                    os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
    with suppress(OSError):  # a file that was renamed is complete under its other name
        if output.aside is not None:
            put_back(output.aside, path)


def home_directory(environment: Mapping[str, str], user: int) -> Path | None:
    """HOME, else what passwd(5) says; None: neither is there, as for a bare uid in a container.

    Args:
        user: effective user id.
    """
    if environment.get("HOME"):
        return Path(environment["HOME"])
    try:
        return Path(pwd.getpwuid(user).pw_dir)
    except KeyError:
        return None


def user_directory(kind: Literal["config", "state"], environment: Mapping[str, str], user: int) -> Path | None:
    """flowtop's directory of the user (XDG Base Directory Specification), there or not; None: no home directory.

    Args:
        kind: for settings, or for what one run leaves to the next.
        user: effective user id.
    """
    variable, below_home = _XDG[kind]
    if environment.get(variable):
        return Path(environment[variable]) / "flowtop"
    home = home_directory(environment, user)
    return None if home is None else home / below_home / "flowtop"


def state_folder(environment: Mapping[str, str], user: int, behind: tuple[int, int] | None) -> Path | None:
    """flowtop's state directory of the person at the screen; None when no place certainly belongs to that user.

    Args:
        environment: for XDG_STATE_HOME and HOME.
        user: effective user id.
        behind: user and group who ran sudo; None: without sudo.
    """
    owner = user if behind is None else behind[0]
    variables = environment if behind is None else {}  # behind sudo they are not that user's
    home, folder = home_directory(variables, owner), user_directory("state", variables, owner)
    try:
        if home is None or folder is None or home.stat().st_uid != owner:
            return None  # su -m, or no home at all: as root, no place to write to
    except OSError:
        return None
    return folder


def recording_owner(environment: Mapping[str, str], user: int) -> tuple[int, int] | None:
    """User and group id that own recordings: those of sudo's caller. None without sudo.

    Args:
        user: effective user id.
    """
    numbers = [environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if user != 0 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def put_aside(path: Path, wall_s: float) -> Path:
    """Rename flows.ipfix to flows-20261121T023000Z.ipfix (or ...Z-2.ipfix) and return the new path.

    Raises OSError.

    Args:
        path: an existing file.
        wall_s: current time, seconds since 1970 UTC.
    """
    stamp = datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    stem, dot, suffixes = path.name.partition(".")
    number = 1
    while True:
        end = f"-{number}" if number > 1 else ""
        target = path.with_name(f"{stem}-{stamp}{end}{dot}{suffixes}")
        try:
            os.link(path, target)  # Unlike rename, link does not replace an existing file.
        except FileExistsError:
            number += 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not os.path.lexists(target):
                path.rename(target)
                return target
            number += 1
        else:
            path.unlink()
            return target


def put_back(target: Path, path: Path) -> None:
    """Undo `put_aside`, unless another file has the name by now. Raises OSError."""
    if not os.path.lexists(path):
        target.rename(path)


def replace_file(path: Path, text: str) -> None:
    """Write a file anew, for its owner alone; its directory is made if there is none. Whoever reads it meanwhile has
    the old or the new one. Raises OSError."""
    other = _delegate(path)
    if other is not None:
        other.replace_saved(path, text)
        return
    for folder in reversed((path.parent, *path.parent.parents)):  # mkdir's mode is not for parents
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):  # of a process that was killed
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def make_directory(path: Path) -> int:
    """Make a directory that only this process' user may enter, and open it. Raises OSError: it exists already."""
    other = _delegate(path)
    if other is not None:
        return other.make_directory(path)
    path.mkdir(0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def release_directory(descriptor: int, owner: tuple[int, int] | None) -> None:
    """Give a directory of `make_directory` to whom it is for, and close it.

    Args:
        owner: user and group; None: this process', or whose the process is that made it.
    """
    with suppress(OSError):  # a file system without owners: it is readable as it is
        if owner is not None:
            os.fchown(descriptor, *owner)
        elif _delegates:
            _delegates[0].release_directory(descriptor)
    os.close(descriptor)
