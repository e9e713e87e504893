"""BPF_PROG_TEST_RUN: hand a frame to a loaded program without a network interface."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

_PROG_TEST_RUN = 10
_SK_BUFF_OCTETS = 192
"""struct __sk_buff as Linux 6.x has it; shorter ones of older kernels are fine, what they lack is zero here."""

_OFFSETS = {"ifindex": 40, "wire_len": 160, "gso_segs": 164, "gso_size": 176}


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN says: the program's return value and the mean time of one run in ns."""

    __test__ = False

    verdict: int
    ns: int
    frame: bytes
    """The frame after the program."""


def test_run(program_fd: int, frame: bytes, *, repeat: int = 1, ifindex: int = 0, gso_size: int = 0,
             gso_segs: int = 0, wire_len: int = 0) -> TestRun:
    """Run a SCHED_CLS program over `frame`, `repeat` times.

    Raises:
        OSError: the kernel refuses: EINVAL for less than an Ethernet header, a context field it cannot set and so on.
    """
    context = ctypes.create_string_buffer(_SK_BUFF_OCTETS)
    for name, value in (("ifindex", ifindex), ("wire_len", wire_len), ("gso_segs", gso_segs), ("gso_size", gso_size)):
        struct.pack_into("=I", context, _OFFSETS[name], value)
    data = ctypes.create_string_buffer(frame, len(frame))
    room = ctypes.create_string_buffer(len(frame) + 256)
    attributes = ctypes.create_string_buffer(struct.pack(
        "=IIIIQQIIIIQQIIII", program_fd, 0, len(frame), len(room), ctypes.addressof(data), ctypes.addressof(room),
        repeat, 0, len(context), 0, ctypes.addressof(context), 0, 0, 0, 0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    if libc.syscall(number, _PROG_TEST_RUN, attributes, len(attributes)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _, verdict, _, out, _, _, _, duration = struct.unpack_from("=IiIIQQII", attributes)
    return TestRun(verdict, duration, room.raw[:out])


test_run.__test__ = False  # type: ignore[attr-defined]  # a helper whose name pytest would collect
