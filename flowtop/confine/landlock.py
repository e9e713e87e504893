"""Landlock (landlock(7)): which files a process may open, and where it may connect to, whatever its user may.

What a kernel does not know yet is left out: see `version`. File descriptors that are open already are not affected.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowtop import libc

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_BENEATH, _PORT = 1, 2
"""enum landlock_rule_type."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_FILES_BY_VERSION = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, _IOCTL))
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
"""Rights that a file may have; the others are a directory's."""
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _REMOVE_DIR | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL
_BIND, _CONNECT, _NETWORK_VERSION = 1, 2, 4
_SCOPES, _SCOPE_VERSION = 1 | 2, 6
"""Abstract UNIX sockets and signals stay within the process."""


@dataclass(frozen=True, slots=True)
class Access:
    """What may be opened. A path that does not exist is left out; one of a directory includes all that is in it.

    Attributes:
        read: paths to read.
        write: directories in which files may be made, written, renamed and removed, and files that may be written.
        devices: devices to read and write.
        connect: TCP ports to connect to; None: all.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    connect: tuple[int, ...] | None = ()


def version() -> int:
    """The version of Landlock that the kernel has; 0: none, or it is turned off."""
    try:
        return libc.syscall(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


class Ruleset:
    """What `access` allows, as it is now: made while the paths can be looked up, applied later.

    Raises OSError: the kernel has no Landlock, or refuses.

    Attributes:
        version: that is used.
    """

    def __init__(self, access: Access) -> None:
        self.version = version()
        handled = 0
        for since, rights in _FILES_BY_VERSION:
            handled |= rights if self.version >= since else 0
        network = 0 if self.version < _NETWORK_VERSION else _BIND if access.connect is None else _BIND | _CONNECT
        attributes = struct.pack("=QQQ", handled, network, _SCOPES)
        size = 24 if self.version >= _SCOPE_VERSION else 16 if self.version >= _NETWORK_VERSION else 8
        self._descriptor = libc.syscall(_CREATE, ctypes.create_string_buffer(attributes, len(attributes)), size, 0)
        try:
            for paths, rights in ((access.read, _READ), (access.write, _WRITE), (access.devices, _DEVICE)):
                _allow(self._descriptor, paths, rights & handled)
            if network & _CONNECT:
                for port in dict.fromkeys(access.connect or ()):
                    _rule(self._descriptor, _PORT, struct.pack("=QQ", _CONNECT, port))
        except BaseException:
            os.close(self._descriptor)
            raise

    def apply(self) -> None:
        """Allow this thread, and those that it starts, nothing else. It must have no_new_privs. Once.

        Raises OSError: the kernel refuses.
        """
        try:
            libc.syscall(_RESTRICT, self._descriptor, 0)
        finally:
            os.close(self._descriptor)


def _allow(ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in dict.fromkeys(paths):
        with suppress(OSError, ValueError):  # not there, or not for this user: nothing to allow
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
                _rule(ruleset, _BENEATH, struct.pack("=Qi", rights if directory else rights & _OF_FILES, descriptor))
            finally:
                os.close(descriptor)


def _rule(ruleset: int, kind: int, octets: bytes) -> None:
    libc.syscall(_ADD_RULE, ruleset, kind, ctypes.create_string_buffer(octets, len(octets)), 0)
