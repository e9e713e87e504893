"""What a run may do once it has begun: its user, files and ports, from its options."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.cli.networks import chosen_databases
from flowtop.cli.run_options import RunOptions
from flowtop.confine.account import Account, choose_account, rights_of, unreadable
from flowtop.confine.confinement import Confinement, Plan, confine, usable
from flowtop.confine.landlock import Access
from flowtop.confine.seccomp import Calls
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.exports import default_state_directory
from flowtop.export.ports import IPFIX_PORT, IPFIX_TLS_PORT, LINES_PORT
from flowtop.files import VIEW, delegate_to, state_folder, user_directory
from flowtop.native import library

if TYPE_CHECKING:
    from flowtop.confine.writer import Writer
    from flowtop.export.url import ExportUrl

_DNS_PORT = 53
_BPF = (1, 2, 3, 15, 25)
"""Commands of bpf(2) on maps and links that are open: look up, update and delete an element, tell about a link, take
elements. Not: load, make, attach, get by number."""
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
_DRAINS_WITHOUT, _BPF_CAPABILITY = (5, 19), (5, 8)
_UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_SPOOL = "spool-"
_MOST_GIVEN = 100_000
"""Files of a spool that are given to another user."""


class Confining:
    """Confines one run: as much as can be decided from its options, then `apply`.

    Args:
        options: of the run.

    Attributes:
        account: to become; None: the user stays.
        state_directory: of spools; None: there is none.

    Raises FlowtopError (EXIT_USAGE): the user that is named does not exist, or must not be used.
    """

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._screen = not options.batch
        chosen = choose_account(options.user, os.environ, os.geteuid()) if options.confine != "off" else None
        self.account, fault = usable(chosen)
        self._faults: tuple[str, ...] = (fault,) if fault else ()
        self._writer = self.account is not None and not self.account.behind_sudo
        self._here: Path | None = None
        with suppress(OSError):  # it is gone
            self._here = Path.cwd() if self._screen else None
        self.state_directory = options.state_directory or self._state()
        self._given: int | None = None
        self._view: Path | None = None
        self._opens: Writer | None = None

    @property
    def late(self) -> bool:
        """Whether exports are opened with the rights of the user that the run becomes, not with root's: else a link in
        that user's directories would lead anywhere."""
        return not self._writer

    def _state(self) -> Path | None:
        if self.account is not None and self.account.behind_sudo:
            return user_directory("state", {}, self.account.uid)
        return default_state_directory(os.environ, os.geteuid())

    def hides(self, paths: Sequence[Path]) -> bool:
        """Whether the user that the run becomes cannot reach all of these files."""
        return self.account is not None and bool(paths) and unreadable(
            self.account, (path.parent for path in paths)) is not None

    def prepare(self) -> Path | None:
        """Make the directory of spools, for the user that the run becomes; what a run as root left there is given to
        that user. Returns a path that leads there: by a descriptor, if that user cannot reach it by its name.

        Raises FlowtopError: it is another user's, or cannot be given.
        """
        if self._options.confine == "off":
            return self.state_directory
        self._view = self._saved()
        self._opens = self._start_writer()  # now: this process is still small
        directory, account = self.state_directory, self.account
        spools = self._screen or any(url.kind in ("tcp", "tls") for url in self._urls())
        if not spools or directory is None:
            return directory
        with nullcontext() if account is None or self._writer else rights_of(account), suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is None or not self._writer:
            return directory
        try:
            self._given = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # who opens a spool there says it
            return directory
        try:
            owner = os.fstat(self._given).st_uid
            if owner not in (0, account.uid):
                raise FlowtopError(f"the state directory {directory} is another user's", exit_code=EXIT_USAGE,
                                   hint="name one of root's with --state-directory, or its owner with --user")
            if owner == 0 and not _has_only_ours(self._given):
                raise FlowtopError(f"the state directory {directory} has other files: it would be given to user "
                                   f"{account.uid}", exit_code=EXIT_USAGE,
                                   hint="name a directory of its own with --state-directory")
            _give(self._given, account)
        except OSError as error:
            raise FlowtopError(f"cannot use the spool directory {directory}: {error.strerror}",
                               hint="choose a directory that can be written", exit_code=EXIT_USAGE) from error
        if unreadable(account, (directory,)) is not None:
            self.state_directory = Path("/proc/self/fd", str(self._given))
        return self.state_directory

    def apply(self) -> Confinement:
        """Confine this process. Raises FlowtopError."""
        options = self._options
        library.choice()  # it reads files
        if options.confine == "off":
            return confine(Plan(mode="off"))
        urls = self._urls()
        if self._given is not None and self.account is not None:
            _give(self._given, self.account)  # with the spools that were made since
        if self._opens is not None:
            delegate_to(self._opens)
        keep = self._kept()
        faults = (*self._faults, "maps are drained with a capability, which Linux 5.19 does without") if keep else (
            self._faults)
        return confine(Plan(options.confine, self.account, self._access(urls), self._calls(urls), faults, keep))

    def _urls(self) -> list[ExportUrl]:
        if not self._options.export:
            return []
        from flowtop.export.url import parse_export_url

        return [parse_export_url(url) for url in self._options.export]

    def _named(self, urls: Sequence[ExportUrl]) -> list[str]:
        """Files to write, as they were named."""
        write = self._options.write
        return [name for name in (*(url.path for url in urls), write) if name and name != "-"]

    def _saved(self) -> Path | None:
        """The file of the screen's view."""
        if not self._screen:
            return None
        behind = None if self.account is None or self._writer else (self.account.uid, self.account.gid)
        folder = state_folder(os.environ, os.geteuid(), behind)
        if folder is None:
            return None
        with nullcontext() if self.account is None or self._writer else rights_of(self.account), suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / VIEW

    def _start_writer(self) -> Writer | None:
        """The process that opens files for this one: root's where root started it, else those of the user that it
        becomes or is; None: it needs none."""
        named = self._named(self._urls())
        if not (named or self._screen):
            return None
        from flowtop.confine.writer import Permitted, start_writer

        try:
            return start_writer(Permitted(frozenset(named), self._places_of_screen(), self._view),
                                None if self._writer else self.account, other_user=self._writer)
        except OSError as error:  # no process, or no socket
            if self._writer:  # then files are root's only if this process is
                self.account = None
                self._faults += (f"it stays user 0, without capabilities: no process to open files: {error.strerror}",)
            else:
                self._faults += (f"it writes to whole directories: no process to open files: {error.strerror}",)
            return None

    def _places_of_screen(self) -> tuple[Path, ...]:
        """Directories, by their real paths, for files that are named on the screen."""
        if not self._screen:
            return ()
        home = Path("~").expanduser() if self._writer else None  # a user's own has what runs at that user's next login
        found = []
        for directory in (self._here, home, *_TEMPORARY):
            with suppress(OSError, RuntimeError):
                found += [] if directory is None or directory == Path("/") else [directory.resolve()]
        return tuple(dict.fromkeys(found))

    def _access(self, urls: Sequence[ExportUrl]) -> Access:
        read: list[Path] = []
        with suppress(OSError):
            read += [path.absolute().parent for path in chosen_databases(self._options)]
        read += [path for url in urls for path in (url.ca, url.cert, url.key) if path is not None]
        read += self._groups()
        write: list[Path] = []
        write += [] if self.state_directory is None else [self.state_directory]
        if self._opens is None:
            for name in self._named(urls):
                write += _places(name)
            write += [] if self._view is None else [self._view.parent]
            write += self._places_of_screen()
        return Access(tuple(read), tuple(write), (), self._ports(urls))

    @property
    def _live(self) -> bool:
        return self._options.read is None and not self._options.listen

    def _kept(self) -> int:
        """Mask of the capability that an old kernel wants for each call of bpf(2): CAP_BPF, before Linux 5.8
        CAP_SYS_ADMIN."""
        if not self._live:
            return 0
        from flowtop.capture.ebpf.compiler import kernel_release
        from flowtop.capture.ebpf.start import CAP_BPF, CAP_SYS_ADMIN

        return kept_capability(kernel_release(), CAP_BPF, CAP_SYS_ADMIN)

    def _groups(self) -> list[Path]:
        """The root of cgroup v2, which may be a mount without a place in the file system."""
        if not (self._live and self._options.owners):
            return []
        from flowtop.owners.cgroups import cgroup2_root, detached_root

        root = cgroup2_root() or detached_root()
        return [] if root is None else [root]

    def _ports(self, urls: Sequence[ExportUrl]) -> tuple[int, ...]:
        """TCP ports to connect to."""
        ports = [url.port for url in urls if url.port]
        if self._screen:
            ports += [IPFIX_PORT, IPFIX_TLS_PORT, LINES_PORT]
        return (*ports, _DNS_PORT) if ports else ()

    def _calls(self, urls: Sequence[ExportUrl]) -> Calls:
        quiet = self._options.read is not None and not self._screen and not any(url.port for url in urls)
        return Calls(sockets=not quiet, bpf=_BPF if self._live else ())


def kept_capability(release: tuple[int, int], bpf: int, admin: int, setting: Path = _UNPRIVILEGED) -> int:
    """Mask of the capability that calls of bpf(2) need, also for maps that are open; 0: none.

    Args:
        release: of Linux.
        bpf, admin: numbers of the capabilities.
        setting: of the kernel, whether users without capabilities may use bpf(2).
    """
    if release >= _DRAINS_WITHOUT:
        return 0
    with suppress(OSError):
        if setting.read_text().strip() == "0":
            return 0
    return 1 << (bpf if release >= _BPF_CAPABILITY else admin)


def _places(name: str) -> list[Path]:
    """The directory of a file that is written, and of what a link of that name leads to; or itself, if it is there and
    no regular file."""
    found = []
    for way in (Path.absolute, Path.resolve):
        with suppress(OSError, ValueError, RuntimeError):
            path = way(Path(name))
            found.append(path if path.exists() and not path.is_file() else path.parent)
    return found


def _has_only_ours(directory: int) -> bool:
    """Whether there is nothing but what flowtop makes in a state directory, and not everybody may add to it."""
    return not os.fstat(directory).st_mode & stat.S_IWOTH and all(
        name.startswith(_SPOOL) or VIEW in name for name in os.listdir(directory))


def _give(directory: int, account: Account) -> None:
    """Give root's spools in this directory, and itself, to the account. Follows no links. Raises OSError."""
    for name in os.listdir(directory):
        if not name.startswith(_SPOOL):
            continue
        with suppress(NotADirectoryError, FileNotFoundError), _opened(name, directory, os.O_DIRECTORY) as spool:
            if os.fstat(spool).st_uid:
                continue
            for inner in os.listdir(spool)[:_MOST_GIVEN]:  # noqa: PTH208
                with suppress(OSError), _opened(inner, spool, os.O_NONBLOCK) as file:
                    found = os.fstat(file)
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:  # nothing that is also elsewhere
                        os.fchown(file, account.uid, account.gid)
            os.fchown(spool, account.uid, account.gid)
    os.fchown(directory, account.uid, account.gid)


@contextmanager
def _opened(name: str, directory: int, flags: int) -> Iterator[int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
