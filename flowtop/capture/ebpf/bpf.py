"""bpf(2) and membarrier(2) through ctypes: only the commands flowtop needs, without one object per map entry.

Layouts are those of `union bpf_attr` in the kernel's include/uapi/linux/bpf.h. Functions raise OSError with the
kernel's errno unless stated otherwise. ctypes releases the GIL during the call.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

MAP_TYPE_ARRAY = 2
MAP_TYPE_HASH = 1
MAP_TYPE_ARRAY_OF_MAPS = 12
MAP_TYPE_RINGBUF = 27
PROG_TYPE_SCHED_CLS = 3
ATTACH_TCX_INGRESS = 46
ATTACH_TCX_EGRESS = 47
F_BEFORE = 1 << 3
"""TCX: insert the program before all others."""
TCX_MOST = 63
"""Programs that one hook can have (BPF_MPROG_MAX - 1)."""

END, NO_ROOM = errno.ENOENT, errno.ENOSPC
"""What `lookup_and_delete_batch` says at the end of the map, and when a bucket has more entries than there is room."""

_MAP_CREATE = 0
_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_PROG_LOAD = 5
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_BTF_LOAD = 18
_PROG_QUERY = 16
_MAP_LOOKUP_AND_DELETE_BATCH = 25
_LINK_CREATE = 28
_NAME_OCTETS = 16
"""BPF_OBJ_NAME_LEN, the final 0 included."""

_MEMBARRIER_CMD_QUERY = 0
_MEMBARRIER_CMD_GLOBAL = 1

_SYSCALL_NUMBERS = {  # machine: (bpf, membarrier)
    "x86_64": (321, 324),
    "aarch64": (280, 283),
    "riscv64": (280, 283),
    "loongarch64": (280, 283),
    "s390x": (351, 356),
    "ppc64le": (361, 365),
    "armv7l": (386, 389),
    "i686": (357, 375),
}


_ALLOW_MULTI, _CGROUP_MOST = 2, 64
"""BPF_F_ALLOW_MULTI; BPF_CGROUP_MAX_PROGS."""


@functools.cache
def _system_call() -> tuple[Callable[..., int], int, int]:
    """libc's syscall(2), and the numbers of bpf and membarrier on this machine."""
    machine = os.uname().machine
    if machine not in _SYSCALL_NUMBERS:
        raise OSError(errno.ENOSYS, f"the system call number of bpf(2) is not known on {machine}")
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function, *_SYSCALL_NUMBERS[machine]


def _call_bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Call bpf(2); returns a negative errno instead of raising."""
    function, number, _ = _system_call()
    result = function(ctypes.c_long(number), ctypes.c_long(command), attributes, ctypes.c_long(len(attributes)))
    return result if result >= 0 else -ctypes.get_errno()


def _bpf(command: int, attributes: bytes) -> int:
    result = _call_bpf(command, ctypes.create_string_buffer(attributes, len(attributes)))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def map_create(map_type: int, key_size: int, value_size: int, max_entries: int, inner_map_fd: int = 0, *,
               flags: int = 0, name: str = "", types: tuple[int, int, int] = (0, 0, 0)) -> int:
    """Create a map and return its file descriptor.

    Args:
        types: descriptor of type information (see `load_types`), and the numbers of the key's and value's types in it.
    """
    return _bpf(_MAP_CREATE, struct.pack("=6I4x16s4x3I", map_type, key_size, value_size, max_entries, flags,
                                         inner_map_fd, _object_name(name), *types))


def _object_name(name: str) -> bytes:
    return name.encode()[:_NAME_OCTETS - 1]


def grace_maps() -> tuple[int, int]:
    """Descriptors of an inner map and of the map of maps that has it, see maps.Grace."""
    inner = map_create(MAP_TYPE_ARRAY, 4, 4, 1)
    try:
        return inner, map_create(MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, inner)
    except OSError:
        os.close(inner)
        raise


def load_types(octets: bytes) -> int:
    """Load type information (BTF); returns its descriptor."""
    buffer = ctypes.create_string_buffer(octets, len(octets))
    return _bpf(_BTF_LOAD, struct.pack("=QQII", ctypes.addressof(buffer), 0, len(buffer), 0))


def map_lookup(map_fd: int, key: bytes, value_address: int) -> bool:
    """Copy the value of `key` to `value_address` (per-CPU maps: 8-aligned values of all possible CPUs).

    Returns False if the key does not exist.
    """
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(_MAP_LOOKUP_ELEM, struct.pack("=I4xQQQ", map_fd, ctypes.addressof(key_buffer), value_address, 0))
    except FileNotFoundError:
        return False
    return True


class RepeatedLookup:
    """Copies the value of one key to `value_address`, again and again; for little more than the system call costs.

    Args:
        map_fd, key, value_address: see `map_lookup`.
    """

    def __init__(self, map_fd: int, key: bytes, value_address: int) -> None:
        self._key = ctypes.create_string_buffer(key, len(key))
        octets = struct.pack("=I4xQQQ", map_fd, ctypes.addressof(self._key), value_address, 0)
        self._function, number, _ = _system_call()
        self._arguments = (ctypes.c_long(number), ctypes.c_long(_MAP_LOOKUP_ELEM),
                           ctypes.create_string_buffer(octets, len(octets)), ctypes.c_long(len(octets)))

    def read(self) -> None:
        """Copy it. Raises OSError."""
        if self._function(*self._arguments) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def map_update(map_fd: int, key: bytes, value: bytes) -> None:
    """Write the value of `key` (per-CPU maps: of all possible CPUs); the key is created if absent."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE_ELEM, struct.pack(
        "=I4xQQQ", map_fd, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), 0))


def map_delete(map_fd: int, key: bytes) -> None:
    """Delete `key`; no error if it is absent."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(_MAP_DELETE_ELEM, struct.pack("=I4xQQQ", map_fd, ctypes.addressof(key_buffer), 0, 0))
    except FileNotFoundError:
        return


class MapReader:
    """Looks up keys of one map, with one reusable call buffer.

    Args:
        map_fd: the map.
        key_size: octets per key.
    """

    def __init__(self, map_fd: int, key_size: int) -> None:
        self._key = ctypes.create_string_buffer(key_size)
        self._attributes = ctypes.create_string_buffer(
            struct.pack("=I4xQQQ", map_fd, ctypes.addressof(self._key), 0, 0), 32)

    def read(self, key: bytes, value_address: int) -> bool:
        """See `map_lookup`."""
        self._key.raw = key
        struct.pack_into("=Q", self._attributes, 16, value_address)
        result = _call_bpf(_MAP_LOOKUP_ELEM, self._attributes)
        if result < 0 and result != -errno.ENOENT:
            raise OSError(-result, os.strerror(-result))
        return result >= 0


@dataclass
class BatchCursor:
    """Position of a batch walk over a hash map: its bucket, None before the first."""

    bucket: int | None = None


def lookup_and_delete_batch(
    map_fd: int, cursor: BatchCursor, keys_address: int, values_address: int, room: int
) -> tuple[int, int]:
    """Move up to `room` entries of a hash map to the two addresses and advance `cursor`.

    Returns (entries moved, errno): errno is 0 if there may be more, ENOENT at the end of the map, and ENOSPC if the
    next bucket holds more than `room` entries; then nothing was moved or deleted.
    Raises OSError for any other errno.
    """
    bucket = ctypes.c_uint32(cursor.bucket or 0)
    attributes = ctypes.create_string_buffer(struct.pack(
        "=QQQQIIQQ", ctypes.addressof(bucket) if cursor.bucket is not None else 0, ctypes.addressof(bucket),
        keys_address, values_address, room, map_fd, 0, 0), 56)
    result = -_call_bpf(_MAP_LOOKUP_AND_DELETE_BATCH, attributes)
    if result not in (0, errno.ENOENT, errno.ENOSPC):
        raise OSError(result, os.strerror(result))
    cursor.bucket = bucket.value
    (moved,) = struct.unpack_from("=I", attributes, 32)
    return moved, result


def load_pass_program() -> int:
    """Load a minimal tc program that returns TCX_NEXT / TC_ACT_UNSPEC, to test the host; returns its descriptor."""
    return load_program(struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0))  # r0 = -1; exit


def xfrm_supported() -> bool:
    """Whether the kernel has IPsec (CONFIG_XFRM), so that programs may ask for a packet's security association."""
    move, add, call = 0xB7, 0x07, 0x85
    code = b"".join(struct.pack("=BBhi", *words) for words in (
        (move, 2, 0, 0),                       # r2 = 0: index
        (0xBF, 3 | 10 << 4, 0, 0),             # r3 = r10
        (add, 3, 0, -32),                      # r3 -= 32: where to
        (move, 4, 0, 28), (move, 5, 0, 0),     # r4 = octets, r5 = flags
        (call, 0, 0, 66),                      # bpf_skb_get_xfrm_state
        (move, 0, 0, -1), (0x95, 0, 0, 0)))
    try:
        os.close(load_program(code))
    except OSError:
        return False
    return True


def load_program(code: bytes, kind: int = PROG_TYPE_SCHED_CLS, *, name: str = "", attach_type: int = 0) -> int:
    """Load a program of these instructions, of 8 octets each; returns its descriptor."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    return _bpf(_PROG_LOAD, struct.pack(
        "=IIQQ24x16s4xI", kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
        _object_name(name), attach_type))


def link_create_tcx(program_fd: int, ifindex: int, attach_type: int) -> int:
    """Create a TCX link in front of the interface's programs (Linux 6.6); returns its file descriptor."""
    return _bpf(_LINK_CREATE, struct.pack("=6IQ", program_fd, ifindex, attach_type, F_BEFORE, 0, 0, 0))


def link_create_cgroup(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attach a program to a cgroup, beside other programs (Linux 5.7); returns the link's file descriptor."""
    return _bpf(_LINK_CREATE, struct.pack("=6IQ", program_fd, cgroup_fd, attach_type, 0, 0, 0, 0))


def tcx_link_ifindex(link_fd: int) -> int:
    """ifindex of the interface a TCX link is attached to; 0 if that is gone."""
    information = ctypes.create_string_buffer(64)
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", link_fd, len(information), ctypes.addressof(information)))
    (ifindex,) = struct.unpack_from("=I", information, 16)
    return int(ifindex)


def link_program_id(link_fd: int) -> int:
    """Id of a link's program."""
    information = ctypes.create_string_buffer(64)
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", link_fd, len(information), ctypes.addressof(information)))
    (program_id,) = struct.unpack_from("=I", information, 8)
    return int(program_id)


def tcx_programs(ifindex: int, attach_type: int) -> list[int]:
    """Ids of the programs of a TCX hook (Linux 6.6), in the order in which they run; none if the interface is gone."""
    ids = (ctypes.c_uint32 * (TCX_MOST + 1))()
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", ifindex, attach_type, 0, 0, ctypes.addressof(ids), len(ids)), 64)
    result = _call_bpf(_PROG_QUERY, attributes)
    if result in (-errno.ENODEV, -errno.ENOENT):
        return []
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    (count,) = struct.unpack_from("=I", attributes, 24)
    return ids[:count]


def cgroup_programs(cgroup_fd: int, attach_type: int) -> tuple[list[int], bool]:
    """Ids of the programs that are attached to a cgroup itself, and whether others may be attached beside them.

    Raises OSError: the kernel does not say, for example as it is no cgroup, or for lack of rights.
    """
    ids = (ctypes.c_uint32 * _CGROUP_MOST)()
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", cgroup_fd, attach_type, 0, 0, ctypes.addressof(ids), len(ids)), 64)
    result = _call_bpf(_PROG_QUERY, attributes)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    (flags,) = struct.unpack_from("=I", attributes, 12)
    (count,) = struct.unpack_from("=I", attributes, 24)
    return ids[:count], not count or bool(flags & _ALLOW_MULTI)


def program_name(program_id: int) -> str:
    """Name of a loaded program, at most 15 characters; empty if it is gone, or may not be asked for."""
    try:
        program_fd = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))
    except OSError:
        return ""
    try:
        information = ctypes.create_string_buffer(128)
        _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program_fd, len(information), ctypes.addressof(information)))
    finally:
        os.close(program_fd)
    return information.raw[64:80].split(b"\0", 1)[0].decode("ascii", "replace")


def tcx_supported(program_fd: int, link_create: Callable[[int, int, int], int] | None = None) -> bool:
    """Whether the kernel supports TCX links. Changes nothing: it tries an ifindex that does not exist.

    Args:
        link_create: `link_create_tcx`, or a helper's.
    """
    try:
        os.close((link_create or link_create_tcx)(program_fd, 0x7FFFFFFF, ATTACH_TCX_INGRESS))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return True
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def membarrier_supported() -> bool:
    """Whether the kernel supports MEMBARRIER_CMD_GLOBAL (not with nohz_full)."""
    function, _, number = _system_call()
    commands = function(ctypes.c_long(number), ctypes.c_long(_MEMBARRIER_CMD_QUERY), ctypes.c_long(0), ctypes.c_long(0))
    return commands > 0 and bool(commands & _MEMBARRIER_CMD_GLOBAL)


def membarrier_global() -> None:
    """Wait for an RCU grace period (with more than one CPU online): programs running before have returned."""
    function, _, number = _system_call()
    if function(ctypes.c_long(number), ctypes.c_long(_MEMBARRIER_CMD_GLOBAL), ctypes.c_long(0), ctypes.c_long(0)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
