"""The user's directories, and files that flowtop writes: their owner, and how existing files are kept."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from flowtop.acting import acting_user, files_as

_T = TypeVar("_T")

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


class FileRefused(OSError):  # noqa: N818 - an OSError that has its own words
    """It is no file to write to."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EACCES, why, str(path))


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
    these names raise.

    Attributes:
        other_user: it has another user's rights than this process.
    """

    other_user: bool

    def holds(self, path: Path) -> bool:
        """Whether a path in /proc/self is in a directory of `make_directory`."""

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
    """From now on have files opened by another process. Paths in /proc/self are still opened here, but for those in
    directories that it made."""
    _delegates[:] = [other]


def _delegate(path: Path) -> Delegate | None:
    if not _delegates or (str(path).startswith("/proc/self/") and not _delegates[0].holds(path)):
        return None
    return _delegates[0]


def delegated(path: Path) -> bool:
    """Whether another user's process opens this file."""
    other = _delegate(path)
    return other is not None and other.other_user


def open_output(path: Path, wall: Callable[[], float], owner: tuple[int, int] | None = None, *,
                new: bool = False) -> OutputFile:
    """Open a file for a writer of its own. An existing file is renamed; an empty one is replaced, so that nobody has it
    open who could not open what is written.

    The lock (flock) is on the open file: a process that is killed leaves nothing behind. Where a file system has no
    locks, O_EXCL still decides who makes the file.

    Args:
        path: a link to a descriptor of this process (/dev/stdout) gives that descriptor once more; other links, and
            what else `allow_special` is for, are refused.
        wall: clock, seconds since 1970 UTC.
        owner: user and group as whom root opens it. In a directory in which that user may not write it is root's.
        new: fail if the file exists.

    Raises OSError; FileInUse: something writes it already; FileRefused.
    """
    if path.name in ("", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    other = _delegate(path)
    own = None if new else own_descriptor(path)
    if own is not None:
        return OutputFile(os.dup(own), regular=False)
    if other is not None:
        return other.open_output(path, wall(), new=new)
    return as_owner(path, owner, lambda: _open(path, wall, new=new))


def as_owner(path: Path, owner: tuple[int, int] | None, use: Callable[[], _T]) -> _T:
    """The result of `use`, with the owner's rights in directories in which the owner may write, else with root's."""
    with files_as(owner) as acts:
        if acts and os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
            return use()
    return use()


def _open(path: Path, wall: Callable[[], float], *, new: bool) -> OutputFile:
    """See open_output; with the rights that this thread has."""
    path = _followed(path)
    aside, replaced = None, False
    for _ in range(_OPEN_ATTEMPTS):  # others may take, rename or remove the file in between
        with _place(path, keep=not new) as place:
            try:
                return _begun(place.open(os.O_CREAT | os.O_EXCL), path, aside, made=not replaced)
            except FileExistsError:
                if new:
                    raise
            descriptor = place.open_existing()
            if descriptor is None:
                continue
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return OutputFile(descriptor, regular=False)
            try:
                _lock(descriptor, path)
                if not place.leads_to(descriptor):
                    pass
                elif os.fstat(descriptor).st_size:
                    aside = _put_aside(place, wall())
                elif place.remove():
                    replaced = True
                else:  # a mount point: it is written as it is
                    os.fchmod(descriptor, FILE_MODE)
                    return OutputFile(descriptor, regular=True, aside=aside)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    raise FileInUse(path)


def _followed(path: Path) -> Path:
    """What a link leads to, if links may be followed: not where the directory is open already, so that all is there."""
    follow = _special and not _OWN_DESCRIPTOR.fullmatch(str(path.parent)) and path.is_symlink()
    return Path(os.path.realpath(path)) if follow else path


def check_output(path: Path, owner: tuple[int, int] | None = None) -> None:
    """Raises FileInUse if something writes this file now, FileRefused, or OSError if it cannot be written.

    Args:
        path, owner: see open_output.
    """
    other = _delegate(path)
    if own_descriptor(path) is not None:
        return
    if other is not None:
        other.check_output(path)
        return
    as_owner(path, owner, lambda: _check(path))


def _check(path: Path) -> None:
    path = _followed(path)
    with _place(path) as place:
        status = place.status()
        if status is None:
            return
        _require(path, status)
        descriptor = None if stat.S_ISFIFO(status.st_mode) else place.open_existing()  # it may have no reader yet
        if descriptor is not None:
            try:
                _lock(descriptor, path, fcntl.LOCK_SH)
            finally:
                os.close(descriptor)


_PATH_ONLY = os.O_PATH | os.O_CLOEXEC


def _open_directory(path: Path) -> int:
    """Open a directory (O_PATH), step by step: each link on the way must be root's or of whom this thread acts as, as
    another user's would choose where this one writes. Raises OSError, FileRefused."""
    if _special or path.is_relative_to("/proc"):
        return os.open(path, _PATH_ONLY | os.O_DIRECTORY)
    steps, links = [*reversed(path.parts)], 0
    # Not from where flowtop was started, if the path does not begin there: it may be no directory of this user.
    directory = os.open("/" if path.is_absolute() else ".", _PATH_ONLY | os.O_DIRECTORY)
    try:
        while steps:
            name = steps.pop()
            try:
                found = os.open(name, _PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
                steps += reversed(Path(_link(directory, name, path)).parts)
            else:
                os.close(directory)
                directory = found
    except BaseException:
        os.close(directory)
        raise
    return directory


def _link(directory: int, name: str, path: Path) -> str:
    """What a link leads to. Raises NotADirectoryError: it is none; FileRefused: it is another user's."""
    found = os.open(name, _PATH_ONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        status = os.fstat(found)
        if not stat.S_ISLNK(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        if status.st_uid not in (0, acting_user()):
            raise FileRefused(path, f"a link of user {status.st_uid} is on its way; --allow-special allows that")
        return os.readlink("", dir_fd=found)
    finally:
        os.close(found)


_kept: dict[tuple[int, str], int] = {}
"""Directories of files that are written one after another: the next one is made in the same, whatever its name leads to
by then. By process, as a child may close its parent's descriptors, and by name."""


@contextmanager
def _place(path: Path, *, keep: bool = False) -> Iterator[_Place]:
    """A name in its directory, open meanwhile. Raises OSError: there is no such directory.

    Args:
        path: of a file, there or not.
        keep: for the rest of the process.
    """
    own = _OWN_DESCRIPTOR.fullmatch(str(path.parent))
    if own and own[1] is None:  # it is open already, and its number may mean another one later
        yield _Place(path, int(own[2]))
        return
    key = os.getpid(), os.path.abspath(path.parent)  # noqa: PTH100 - Path.absolute keeps ".."
    directory = _kept.get(key)
    if directory is not None and not os.fstat(directory).st_nlink:  # it was removed; there may be another one
        os.close(_kept.pop(key))
        directory = None
    if directory is None:
        directory = _open_directory(path.parent)
        if keep:
            _kept[key] = directory
    try:
        yield _Place(path, directory)
    finally:
        if key not in _kept:
            os.close(directory)


class _Place:
    """A name in an open directory.

    Args:
        path: of a file, there or not.
        directory: descriptor of its directory.
    """

    def __init__(self, path: Path, directory: int) -> None:
        self.path = path
        self.name = path.name
        self.directory = directory

    def open(self, flags: int) -> int:
        """A descriptor for writing. Never follows a link, never waits for a reader of a pipe. Raises OSError."""
        return os.open(self.name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | flags, FILE_MODE,
                       dir_fd=self.directory)

    def open_existing(self) -> int | None:
        """A descriptor of the file that is there; None: it was replaced or removed meanwhile.

        Raises FileRefused, or OSError: a named pipe without a reader (ENXIO) among others.
        """
        status = self.status()
        if status is None:
            return None
        _require(self.path, status)
        try:
            descriptor = self.open(0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise
        if not os.path.samestat(status, os.fstat(descriptor)):
            os.close(descriptor)
            return None
        return descriptor

    def status(self) -> os.stat_result | None:
        """Of what has the name, be it a link; None: nothing has."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def leads_to(self, descriptor: int) -> bool:
        """Whether the name is still the open file's."""
        status = self.status()
        return status is not None and os.path.samestat(os.fstat(descriptor), status)

    def remove(self) -> bool:
        """Remove the name. Returns whether that was possible."""
        try:
            os.unlink(self.name, dir_fd=self.directory)
        except OSError:
            return False
        return True


def allow_special() -> None:
    """From now on follow links, and write to devices, named pipes and other users' files, as far as rights go."""
    global _special
    _special = True


_special = False
"""As the user id, it is the process's."""
_HARMLESS = {os.makedev(1, 3), os.makedev(1, 7)}
"""/dev/null and /dev/full."""


def _require(path: Path, status: os.stat_result) -> None:
    """Raises FileRefused, unless it is a regular file of whom this thread acts as, or `allow_special` was called."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise FileRefused(path, "it is a directory")
    if _special or (kind == stat.S_IFCHR and status.st_rdev in _HARMLESS):
        return
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a named pipe", stat.S_IFBLK: "a device",
             stat.S_IFCHR: "a device", stat.S_IFSOCK: "a socket"}
    if kind in kinds:
        raise FileRefused(path, f"it is {kinds[kind]}; --allow-special allows that")
    if status.st_uid != acting_user():
        raise FileRefused(path, f"it is user {status.st_uid}'s; --allow-special allows that")


def own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that a link like /dev/stdout or /dev/fd/3 leads to; None: it is an ordinary path,
    or another user's link is on its way, which would have packets of strangers written to the terminal.

    Opening it would open its file once more, at its start, and renaming the link would break it for everybody.
    """
    at = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
    for _ in range(_MOST_LINKS):
        parent, name = os.path.split(at)
        if not _trusted(Path(parent)):
            return None
        at = os.path.join(parent if _OWN_DESCRIPTOR.fullmatch(at) else _real_parent(parent), name)  # noqa: PTH118
        match = _OWN_DESCRIPTOR.fullmatch(at)
        if match:
            return int(match[2]) if match[1] in (None, str(os.getpid())) else None
        try:
            if not _special and os.lstat(at).st_uid not in (0, acting_user()):
                return None
            at = os.path.normpath(os.path.join(os.path.dirname(at), os.readlink(at)))  # noqa: PTH115, PTH118, PTH120
        except OSError:  # not a link
            return None
    return None


def _trusted(directory: Path) -> bool:
    """Whether no link of another user leads to a directory, as far as it is there."""
    try:
        os.close(_open_directory(directory))
    except FileRefused:
        return False
    except OSError:
        pass
    return True


def _real_parent(parent: str) -> str:
    """The folder without links, but with /proc/self as it is."""
    real = os.path.realpath(parent)
    return re.sub(rf"^/proc/{os.getpid()}(/task/[0-9]+)?/fd$", "/proc/self/fd", real)


def _begun(descriptor: int, path: Path, aside: Path | None, *, made: bool) -> OutputFile:
    """A new file, locked. Raises FileInUse if another process was faster with the lock."""
    try:
        _lock(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return OutputFile(descriptor, regular=True, made=made, aside=aside)


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


def undo_output(output: OutputFile, identity: os.stat_result, path: Path,
                owner: tuple[int, int] | None = None) -> None:
    """Undo `open_output` after the file was closed: nothing was written. What is another's by now stays as it is.

    Args:
        output: as `open_output` gave it; its descriptor is not used.
        identity: fstat of the file.
        path, owner: as given to `open_output`.
    """
    if not output.regular:
        return
    other = _delegate(path)
    if other is not None:
        other.undo_output(output, identity, path)
        return
    with suppress(OSError):
        as_owner(path, owner, lambda: _undo(output, identity, path))


def _undo(output: OutputFile, identity: os.stat_result, path: Path) -> None:
    path = _followed(path)
    with _place(path) as place:
        descriptor = None
        with suppress(OSError):
            descriptor = place.open_existing()
        if descriptor is not None:
            try:
                _lock(descriptor, path)
                if os.path.samestat(os.fstat(descriptor), identity) and place.leads_to(descriptor):
                    if output.made:
                        place.remove()
                    else:
                        os.ftruncate(descriptor, 0)
            except FileInUse:
                pass
            finally:
                os.close(descriptor)
    if output.aside is not None:  # a file that was renamed is complete under its other name
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
        path: an existing file; of a link, the link.
        wall_s: current time, seconds since 1970 UTC.
    """
    with _place(path) as place:
        return _put_aside(place, wall_s)


def _put_aside(place: _Place, wall_s: float) -> Path:
    stamp = datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    stem, dot, suffixes = place.name.partition(".")
    number = 1
    while True:
        end = f"-{number}" if number > 1 else ""
        target = place.path.with_name(f"{stem}-{stamp}{end}{dot}{suffixes}")
        if _moved(place, target.name):
            return target
        number += 1


def _moved(place: _Place, name: str) -> bool:
    """Rename within the directory, unless something has the new name. Raises OSError."""
    both = {"src_dir_fd": place.directory, "dst_dir_fd": place.directory}
    try:
        os.link(place.name, name, **both, follow_symlinks=False)  # unlike rename, it does not replace an existing file
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=place.directory, follow_symlinks=False)
            return False
        os.rename(place.name, name, **both)  # noqa: PTH104 - Path knows no directories
    else:
        os.unlink(place.name, dir_fd=place.directory)
    return True


def put_back(target: Path, path: Path) -> None:
    """Undo `put_aside`, unless another file has the name by now. Raises OSError."""
    with _place(target) as place:
        _moved(place, path.name)


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


def make_directory(path: Path, owner: tuple[int, int] | None = None) -> int:
    """Make a directory that only its user may enter, and open it. Raises OSError: it exists already; FileRefused:
    somebody replaced it meanwhile.

    Args:
        owner: see open_output.
    """
    other = _delegate(path)
    if other is not None:
        return other.make_directory(path)
    return as_owner(path, owner, lambda: _make_directory(path))


def _make_directory(path: Path) -> int:
    with _place(path) as place:
        os.mkdir(place.name, 0o700, dir_fd=place.directory)
        descriptor = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                             dir_fd=place.directory)
    found = os.fstat(descriptor)
    if found.st_uid != acting_user() or stat.S_IMODE(found.st_mode) & 0o077 or os.listdir(descriptor):  # noqa: PTH208
        os.close(descriptor)
        raise FileRefused(path, "it was replaced by another directory")
    return descriptor


def release_directory(descriptor: int) -> None:
    """Close a directory of `make_directory`."""
    if _delegates:
        _delegates[0].release_directory(descriptor)
    os.close(descriptor)
