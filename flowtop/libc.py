"""System calls that Python has no functions for, through libc. They raise OSError."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = (
    1, 4, 8, 24, 38, 47)
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4


@functools.cache
def library() -> ctypes.CDLL:
    """libc itself, for what is called in one place."""
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: Any) -> int:
    """syscall(2). Each argument is an integer, None or an array of ctypes."""
    function = library().syscall
    function.restype = ctypes.c_long
    return _checked(function(ctypes.c_long(number), *(
        ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)))


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    return _checked(library().prctl(option, *(ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4])))


def set_file_user(user: int) -> int:
    """setfsuid(2), of the calling thread. Returns the former one; raises nothing."""
    return int(library().setfsuid(ctypes.c_uint(user)))


def set_file_group(group: int) -> int:
    """setfsgid(2), of the calling thread. Returns the former one; raises nothing."""
    return int(library().setfsgid(ctypes.c_uint(group)))
