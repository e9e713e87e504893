"""Rights of another user to files, for one thread of root's process."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flowtop import libc

_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159}
"""Numbers of setgroups(2): libc's function is for all threads of the process."""
_UNCHANGED = 0xFFFFFFFF
"""No user id: a call that gives the present one and changes nothing."""


def _set_groups(groups: list[int]) -> None:
    number = _SETGROUPS.get(platform.machine())
    if number is None:
        os.setgroups(groups)
    else:
        libc.syscall(number, len(groups), (ctypes.c_uint32 * max(1, len(groups)))(*groups))


_acting = threading.local()


def acting_user() -> int:
    """The user as whom this thread opens files."""
    return int(getattr(_acting, "user", os.geteuid()))


@contextmanager
def files_as(owner: tuple[int, int] | None) -> Iterator[bool]:
    """A context in which the calling thread has a user's rights to files (setfsuid(2)), without further groups.

    Args:
        owner: user and group; None: nothing changes.

    Yields whether it has: only root's process can give them to itself, and one in a container may not be able to.
    """
    if owner is None or os.geteuid() != 0:
        yield False
        return
    groups, (uid, gid) = os.getgroups(), owner
    try:
        _set_groups([])
    except OSError:
        yield False
        return
    group_before = libc.set_file_group(gid)
    user_before = libc.set_file_user(uid)
    try:
        _acting.user = libc.set_file_user(_UNCHANGED)
        yield bool(_acting.user == uid and libc.set_file_group(_UNCHANGED) == gid)
    finally:
        del _acting.user
        libc.set_file_user(user_before)
        libc.set_file_group(group_before)
        _set_groups(groups)
