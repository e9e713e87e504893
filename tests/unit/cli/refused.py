"""Runs a command for which the kernel refuses some system calls: python refused.py ERRNO NUMBER[,NUMBER] COMMAND...

seccomp(2) by two calls of prctl: no new privileges, then a filter that answers with the error number.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x0005_0000, 0x7FFF_0000


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def refuse(numbers: list[int], error: int) -> None:
    """Let these system calls of this process and its children fail."""
    code = [(LOAD, 0, 0, 0)]  # seccomp_data.nr
    for number in numbers:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, SECCOMP_RET_ERRNO | error)]
    code.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
    octets = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    program = Program(len(code), ctypes.addressof(octets))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                  (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse([int(number) for number in sys.argv[2].split(",")], int(sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])
