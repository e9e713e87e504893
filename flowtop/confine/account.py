"""The user that a process started by root becomes, and giving up root's rights for good."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flowtop import libc
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.files import recording_owner

ACCOUNT = "flowtop"
"""Of the system, which packages make."""
NOBODY = 65534
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Account:
    """A user and a group by number.

    Attributes:
        behind_sudo: it is who ran sudo, so that files are that user's.
    """

    uid: int
    gid: int
    behind_sudo: bool = False


def choose_account(name: str | None, environment: Mapping[str, str], user: int) -> Account | None:
    """The account to become: the one that is named, else sudo's caller, else `flowtop`, else 65534; None: stay.

    Args:
        name: of an account, or its number; None: none is named.
        environment: for SUDO_UID and SUDO_GID.
        user: effective user id. Only root can become another user.

    Raises FlowtopError (EXIT_USAGE): there is no such account, it is root's, or this user is not root.
    """
    if name is not None:
        if user != 0:
            raise FlowtopError("--user needs root", hint="only root can become another user", exit_code=EXIT_USAGE)
        return _named(name)
    if user != 0:
        return None
    behind = recording_owner(environment, user)
    if behind is not None and behind[0] != 0:
        return Account(*behind, behind_sudo=True)
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return Account(NOBODY, NOBODY)
    return Account(entry.pw_uid, entry.pw_gid) if entry.pw_uid else Account(NOBODY, NOBODY)


def _named(name: str) -> Account:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise FlowtopError(f"--user {name}: there is no such account", hint="getent passwd lists them",
                           exit_code=EXIT_USAGE) from None
    if not entry.pw_uid:
        raise FlowtopError(f"--user {name}: that is root", hint="name an account without rights, or use --no-confine",
                           exit_code=EXIT_USAGE)
    return Account(entry.pw_uid, entry.pw_gid)


@contextmanager
def rights_of(account: Account) -> Iterator[None]:
    """A context in which root has this user's rights to files. For a process without further threads."""
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    try:
        os.setgroups([])
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def unreadable(account: Account, paths: Iterable[Path]) -> Path | None:
    """The first of these directories, if they exist, that the account cannot read; None: it can read all. As root, and
    for a process without further threads."""
    with rights_of(account):
        return next((path for path in paths if not os.access(path, os.R_OK | os.X_OK, effective_ids=True)
                     and not _missing(path)), None)


def _missing(path: Path) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - Path.exists takes what may not be looked at for missing
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def give_up_privileges(account: Account | None, keep: int = 0) -> None:
    """Become this user, without other groups; no capabilities but those of `keep`, none to be gained, no core file,
    and no other process may look inside.

    Args:
        account: None: the user stays.
        keep: mask of capabilities that stay effective, of those that it has.

    Raises OSError. For a process without further threads.
    """
    for number in range(_LAST_CAPABILITY + 1):
        if not keep >> number & 1:
            with suppress(OSError):  # no such capability, or no right to: then it has none
                libc.prctl(libc.PR_CAPBSET_DROP, number)
    if account is not None:
        if keep:
            libc.prctl(libc.PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    with suppress(OSError):  # Linux before 4.3
        libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(keep, inherited=account is None)
    for number in range(_LAST_CAPABILITY + 1):  # for the programs that it starts, if it is not root
        if account is None and keep >> number & 1:
            with suppress(OSError):  # it has not got it
                libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, number)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _set_capabilities(mask: int, *, inherited: bool) -> None:
    """Have at most these: those of them that it has."""
    library = libc.library()
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if not mask or library.capget(header, data):
        low = high = 0
    else:
        _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    low, high = low & mask & 0xFFFFFFFF, high & mask >> 32
    if library.capset(header, struct.pack("=6I", low, low, low * inherited, high, high, high * inherited)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
