"""Whether others may change the code that root runs: files of flowtop, directories of modules, all that lead there."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence

import flowtop
from flowtop.text.units import printable

REMEDY = "install it as in the README: in /opt/flowtop, owned by root and writable by nobody else"

_LONGEST = 200
"""Cells of a path that is shown."""


def writable_code(package: str = flowtop.__path__[0], others: Sequence[str] | None = None) -> str | None:
    """The first path of this process's code that somebody but root may change, printable; None: there is none.

    Args:
        package: directory of flowtop: each of its files and directories is looked at. Its kernel programs are in it, or
            beside it in a checkout.
        others: directories of other modules, and programs, that are looked at by themselves; None: those of this
            interpreter and its environment.

    Not looked at: access control lists beyond what modes show of them, each file of other packages.
    As everybody may make files in /tmp but not rename those of others, a directory with the sticky bit is good enough
    on the way to root's, but not as a place of modules.
    """
    if others is None:
        others = (*filter(None, sys.path), sys.prefix, sys.executable, sys.argv[0])
    kernel_programs = os.path.join(os.path.dirname(package), "bpf")  # noqa: PTH118, PTH120 - paths as text: it is early
    roots = [os.path.abspath(path) for path in (package, kernel_programs, *others)]  # noqa: PTH100
    seen: set[str] = set()
    for root in dict.fromkeys((*roots, *map(os.path.realpath, roots))):
        for path in _leading(root):
            if path not in seen and _loose(path, sticky=True):
                return printable(path, _LONGEST)
            seen.add(path)
        if _loose(root):
            return printable(root, _LONGEST)
    for root in dict.fromkeys(map(os.path.realpath, (package, kernel_programs))):
        for path in _below(root):
            if _loose(path):
                return printable(path, _LONGEST)
    return None


def _leading(path: str) -> Iterator[str]:
    """Directories above a path, from / on."""
    for end, letter in enumerate(path):
        if letter == os.sep:
            yield path[:end] or os.sep


def _below(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.path
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)
    except OSError:  # it is not there
        return


def _loose(path: str, *, sticky: bool = False) -> bool:
    """Whether somebody but root may change it. A link is its target's matter, but for who may replace the link."""
    try:
        own, status = os.lstat(path), os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    if own.st_uid or status.st_uid:
        return True
    if sticky and status.st_mode & stat.S_ISVTX:
        return False
    return bool(status.st_mode & stat.S_IWOTH
                or (status.st_mode & stat.S_IWGRP and status.st_gid and _has_members(status.st_gid)))


def _has_members(group: int) -> bool:
    """Whether anybody but root is in a group. Debian gives /usr/local to the group staff, in which nobody is."""
    import grp  # seldom needed
    import pwd

    try:
        if set(grp.getgrgid(group).gr_mem) - {"root"}:
            return True
    except KeyError:
        return True
    return any(entry.pw_gid == group and entry.pw_uid for entry in pwd.getpwall())
