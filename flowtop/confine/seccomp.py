"""An allow-list of system calls (seccomp(2)), as a program for the kernel's classic BPF; for x86-64 and arm64.

What is not listed fails with EPERM, so that the caller says what it could not do; nothing is killed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from flowtop import libc
from flowtop.confine.calls import EXAMINED, FILES, NEW_SOCKETS, NEWEST, OF_SOCKETS, PROCESS, PROGRAMS, Numbers

MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""By uname(2): column in `calls`, AUDIT_ARCH_*, number of seccomp(2)."""
_SET_MODE_FILTER, _TSYNC, _SPEC_ALLOW = 1, 1, 4
"""SPEC_ALLOW: without it, kernels before 5.16 turn a speculation of the processor off, which slows everything down."""
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_INSTRUCTION = struct.Struct("=HBBI")
_FURTHEST = 255
"""Instructions that a conditional jump can pass over."""

_FAMILIES, _UNIX = (2, 10, 16), 1
"""AF_INET, AF_INET6, AF_NETLINK. Not AF_UNIX: behind such sockets are services that start programs, as a user's own
systemd does. libc does without those of name services."""
_TYPE, _TYPES = 0xF, (1, 2, 3)
"""Bits of a socket's type; SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, which is netlink's. Not SOCK_SEQPACKET: that is SCTP."""
_PROTOCOLS = (0, 6, 17, 4, 12)
"""IPPROTO_IP and NETLINK_ROUTE, TCP, UDP; NETLINK_SOCK_DIAG, NETLINK_NETFILTER. Landlock limits connections of TCP
alone: not those of MPTCP, which reach any TCP port, and of SCTP."""
_FAST_OPEN = 0x20000000
"""MSG_FASTOPEN, which connects without connect(2), where Landlock would look."""
_THREAD, _NAMESPACES = 0x00010000, 0x7E020080
"""CLONE_THREAD; CLONE_NEW*."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into the terminal for its user."""
_PRCTL = (3, 15, 16, 21, 23, 38, 39, 0x53564D41)
"""PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_{SET,GET}_NO_NEW_PRIVS, PR_SET_VMA."""
_SET_ID_BITS = 0o6000

Instruction = tuple[int, int, int, int]


class Calls(NamedTuple):
    """What a process may call, beside what every one may.

    Attributes:
        sockets: make and connect sockets; those that are there can be used anyway.
        bpf: commands of bpf(2).
        programs: start programs, and use all of bpf(2): for helpers, not for what parses.
    """

    sockets: bool = True
    bpf: tuple[int, ...] = ()
    programs: bool = False


def _error(number: int) -> Instruction:
    return _RETURN, 0, 0, _ERROR | number


_GRANTED: Instruction = (_RETURN, 0, 0, _ALLOW)
_REFUSED = _error(errno.EPERM)


def _argument(index: int) -> Instruction:
    """Its low 32 bits: those that look here are of type int."""
    return _LOAD, 0, 0, _ARGUMENTS + 8 * index


def _one_of(index: int, values: Sequence[int]) -> list[Instruction]:
    """Granted if the argument is one of these."""
    tests = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(index), *tests, _REFUSED, _GRANTED]


def _no_bit(index: int, bits: int) -> list[Instruction]:
    """Granted if the argument has none of these."""
    return [_argument(index), (_ANY_BIT, 1, 0, bits), _GRANTED, _REFUSED]


_SOCKET = [
    *_one_of(0, _FAMILIES)[:-1], _argument(1), (_AND, 0, 0, _TYPE), *_one_of(1, _TYPES)[1:-1], *_one_of(2, _PROTOCOLS)]
"""Granted if family, type and protocol are of the lists: each test goes on behind its refusal."""


def _examined(calls: Calls, pid: int) -> dict[str, list[Instruction]]:
    """The looks at arguments, by name of the call; each ends with its verdict."""
    terminal = [(_EQUAL, len(_TERMINAL_INPUT) - place, 0, value) for place, value in enumerate(_TERMINAL_INPUT)]
    looks = {
        "bpf": _one_of(0, calls.bpf) if calls.bpf else [_REFUSED],
        "socket": _SOCKET if calls.sockets else [_REFUSED],
        "ioctl": [_argument(1), *terminal, _GRANTED, _REFUSED],
        "prctl": _one_of(0, _PRCTL),
        "prlimit64": _one_of(0, (0, pid)),
        "kill": _one_of(0, (0, pid)),
        "tgkill": _one_of(0, (pid,)),
        "clone": [_argument(0), (_ANY_BIT, 2, 0, _NAMESPACES), (_ANY_BIT, 0, 1, _THREAD), _GRANTED, _REFUSED],
        "clone3": [_error(errno.ENOSYS)],  # its flags cannot be seen; libc calls clone then
        "fchmod": _no_bit(1, _SET_ID_BITS), "openat": _no_bit(3, _SET_ID_BITS), "open": _no_bit(2, _SET_ID_BITS),
        "sendto": _no_bit(3, _FAST_OPEN), "sendmsg": _no_bit(2, _FAST_OPEN), "sendmmsg": _no_bit(3, _FAST_OPEN),
    }
    if calls.programs:
        looks |= {"bpf": [_GRANTED], "socket": _one_of(0, (_UNIX, *_FAMILIES)), "prctl": [_GRANTED],
                  "prlimit64": [_GRANTED], "kill": [_GRANTED], "tgkill": [_GRANTED], "fchmod": [_GRANTED],
                  "clone": [_argument(0), (_ANY_BIT, 0, 1, _NAMESPACES), _REFUSED, _GRANTED]}
    return {name: looks[name] for name in EXAMINED}


def _ranges(numbers: Iterable[int]) -> list[tuple[int, Instruction]]:
    """Where verdicts begin, in ascending order of call numbers."""
    starts: list[tuple[int, Instruction]] = [(0, _REFUSED)]
    allowed = set(numbers)
    for number in range(NEWEST + 1):
        verdict = _GRANTED if number in allowed else _REFUSED
        if starts[-1][1] == verdict:
            continue
        if starts[-1][0] == number:
            starts[-1] = number, verdict
        else:
            starts.append((number, verdict))
    return [*starts, (NEWEST + 1, _error(errno.ENOSYS)), (0x40000000, _REFUSED)]  # the last ones are those of x32


def _tree(starts: Sequence[tuple[int, Instruction]]) -> list[Instruction]:
    """A search for the verdict on the number in the accumulator, in halves."""
    if len(starts) == 1:
        return [starts[0][1]]
    half = len(starts) // 2
    below, above = _tree(starts[:half]), _tree(starts[half:])
    assert len(below) <= _FURTHEST
    return [(_AT_LEAST, len(below), 0, starts[half][0]), *below, *above]


def program(calls: Calls, machine: str, pid: int) -> bytes:
    """The program, as instructions of 8 octets.

    Args:
        calls: what is allowed.
        machine: a key of MACHINES.
        pid: of this process, which it may send signals to.
    """
    column, architecture, _ = MACHINES[machine]

    def numbers(table: Numbers) -> list[int]:
        return [number for pair in table.values() if (number := pair[column]) is not None]

    instructions: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, architecture), _REFUSED, (_LOAD, 0, 0, _NR)]
    for name, look in _examined(calls, pid).items():
        number = EXAMINED[name][column]
        if number is not None:
            instructions += [(_EQUAL, 0, len(look), number), *look]
    allowed = [*numbers(FILES), *numbers(PROCESS), *numbers(OF_SOCKETS),
               *(numbers(NEW_SOCKETS) if calls.sockets else ()), *(numbers(PROGRAMS) if calls.programs else ())]
    instructions += _tree(_ranges(allowed))
    return b"".join(_INSTRUCTION.pack(*one) for one in instructions)


def install(calls: Calls) -> None:
    """Apply it to all threads of this process, for good. They must have no_new_privs, or the filter is refused.

    Raises OSError: the kernel has no seccomp, or no filters for this machine.
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"there is no list of system calls for {machine}")
    octets = program(calls, machine, os.getpid())
    code = ctypes.create_string_buffer(octets, len(octets))
    head = struct.pack("@HP", len(octets) // _INSTRUCTION.size, ctypes.addressof(code))
    _, _, number = MACHINES[machine]
    if libc.syscall(number, _SET_MODE_FILTER, _TSYNC | _SPEC_ALLOW, ctypes.create_string_buffer(head, len(head))):
        raise OSError(errno.EBUSY, "a thread has other filters")
