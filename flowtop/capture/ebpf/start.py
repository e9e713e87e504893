"""Start of a capture without numpy: checks permissions and starts the compiler's child process."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, Compilation, kernel_release
from flowtop.capture.ebpf.loader import (
    MAPS,
    NAME_MAPS,
    OWNER_MAPS,
    OWNER_PROGRAMS,
    PACKET_PROGRAMS,
    PROGRAMS,
)
from flowtop.errors import EXIT_NO_PERMISSION, EXIT_USAGE, FlowtopError, host_fault
from flowtop.model.tunnel_ports import TunnelPorts

HINT = ("run with sudo, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (not on python: all use it); "
        "a locked-down kernel or a container may refuse")
PROC_HINT = "mount -t proc proc /proc"
CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF = 12, 19, 21, 24, 38, 39
_NAMES = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_PERFMON: "CAP_PERFMON", CAP_BPF: "CAP_BPF"}
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
UNCHARGED_RELEASE = (5, 11)
"""First Linux that charges maps to the memory cgroup instead of RLIMIT_MEMLOCK."""


def effective_capabilities(status: Path = Path("/proc/self/status")) -> frozenset[int]:
    """Numbers of the effective capabilities (capabilities(7)).

    Args:
        status: proc_pid_status(5).
    """
    try:
        text = status.read_text(encoding="utf-8")
    except OSError:  # no /proc
        return _own_capabilities()
    line = next(line for line in text.splitlines() if line.startswith("CapEff:"))
    mask = int(line.split()[1], 16)
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)


def _own_capabilities() -> frozenset[int]:
    """The same from capget(2); none if the kernel refuses."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    if ctypes.CDLL(None).capget(header, data):
        return frozenset()
    low, _, _, high, _, _ = struct.unpack("=6I", data.raw)
    return frozenset(number for number in range(64) if (high << 32 | low) >> number & 1)


def missing_capabilities(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Names of the missing capabilities that capture needs; CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON."""
    effective = effective_capabilities(status)
    if CAP_SYS_ADMIN in effective:
        effective |= {CAP_BPF, CAP_PERFMON}
    return tuple(name for number, name in _NAMES.items() if number not in effective)


def require(status: Path = Path("/proc/self/status")) -> None:
    """Check the capabilities of this process.

    Raises:
        FlowtopError: some are missing (EXIT_NO_PERMISSION).
    """
    missing = missing_capabilities(status)
    if missing:
        raise FlowtopError(f"no permission to capture: {', '.join(missing)} missing", hint=HINT,
                           exit_code=EXIT_NO_PERMISSION)


def may_raise_memory_lock() -> bool:
    """Whether RLIMIT_MEMLOCK is unlimited, or this process may raise it (CAP_SYS_RESOURCE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return hard == resource.RLIM_INFINITY or CAP_SYS_RESOURCE in effective_capabilities()


def raise_memory_lock(release: tuple[int, int]) -> None:
    """Raise RLIMIT_MEMLOCK if the kernel charges maps to it. Without permission nothing changes; small maps may fit."""
    if release >= UNCHARGED_RELEASE or not may_raise_memory_lock():
        return
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def raise_open_files() -> None:
    """Raise RLIMIT_NOFILE as far as this process may: TCX takes two links an interface, and 1,024 is a usual limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a hard limit above fs.nr_open, which was lowered since
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def limits_raised(release: tuple[int, int]) -> Iterator[None]:
    """A context in which resource limits are as in a capture; afterwards they are as before."""
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_NOFILE)}
    raise_memory_lock(release)
    raise_open_files()
    try:
        yield
    finally:
        for kind, limits in before.items():
            if resource.getrlimit(kind) != limits:
                resource.setrlimit(kind, limits)


SPARE_FILES = 10
"""Files that are open for a moment while flowtop runs: of /proc, pipes to a child, netlink, an export's connection."""
_OTHER_FILES = 13
"""Two sockets of netlink, two of helpers, one eventfd, two maps to wait with, the pipe from a list of sockets, mappings
of a ring buffer, and what a screen has open: also without one, so that the limit is one number."""
_OWNER_FILES = 4
"""The root of cgroup v2, where it is not mounted; mappings of a ring buffer, and what ends waiting for it."""
_PACKET_FILES = 8
"""Maps, mappings of the ring buffer, and what is written."""
_EXPORT_FILES = 3
"""What is written, its lock, and the spool."""
HOOKS = 2
"""Links of one interface: those of TCX."""


def most_files(*, owners: bool, names: bool, packets: bool = False, exports: int = 0) -> int:
    """How many more files a capture of one interface has open at most.

    Args:
        owners, names, packets, exports: as for `begin`.
    """
    return (len(PROGRAMS) + len(MAPS) + HOOKS + _OTHER_FILES + SPARE_FILES
            + (2 * len(OWNER_PROGRAMS) + len(OWNER_MAPS) + _OWNER_FILES if owners else 0)
            + (1 + len(NAME_MAPS) if names else 0)
            + (len(PACKET_PROGRAMS) + _PACKET_FILES + HOOKS if packets else 0)
            + _EXPORT_FILES * exports)


def try_files(count: int) -> None:
    """Open so many files, and close them again. Raises OSError: the limit is lower."""
    with ExitStack() as opened:
        try:
            for _ in range(count):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:  # it is not about that file
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error


def spare_files(count: int) -> bool:
    """Whether so many more files may stay open. SPARE_FILES are left for what is opened for a moment."""
    try:
        try_files(count + SPARE_FILES)
    except OSError:
        return False
    return True


MIN_MAP_ENTRIES, MAX_MAP_ENTRIES = 1024, 16_777_216


def check_map_entries(map_entries: int) -> None:
    """Check the map capacity.

    Raises:
        FlowtopError: out of range (EXIT_USAGE).
    """
    if not MIN_MAP_ENTRIES <= map_entries <= MAX_MAP_ENTRIES:
        raise FlowtopError(f"map size {map_entries} is out of range",
                           hint=f"--map-entries takes {MIN_MAP_ENTRIES} to {MAX_MAP_ENTRIES}", exit_code=EXIT_USAGE)


def prepare(map_entries: int, *, owners: bool, names: bool, packets: bool = False, exports: int = 0) -> None:
    """Check what capturing needs, and raise limits of this process, which children inherit.

    Args:
        map_entries, owners, names: as for `begin`.
        packets: some are written from the start.
        exports: how many begin with the capture.

    Raises:
        FlowtopError: no permission to capture (EXIT_NO_PERMISSION), invalid capacity (EXIT_USAGE), or too low a limit
            of open files.
    """
    check_map_entries(map_entries)
    require()
    raise_memory_lock(kernel_release())
    raise_open_files()
    try:  # now: later it would be a matter of chance who of several threads meets the limit
        try_files(most_files(owners=owners, names=names, packets=packets, exports=exports))
    except OSError as error:
        raise host_fault("cannot capture", error) or error from error


def begin(map_entries: int, expression: str = "", *, decap: bool = False,
          tunnel_ports: TunnelPorts | None = None, owners: bool = False, names: bool = False,
          packets: bool = False, exports: int = 0) -> Compilation:
    """Start compiling with the capture filter `expression`, `decap`, `tunnel_ports`, `owners` and `names` (see
    Compilation). The caller has to close it.

    Args:
        packets, exports: see `prepare`.

    Raises:
        FlowtopError: as `prepare`.
    """
    prepare(map_entries, owners=owners, names=names, packets=packets, exports=exports)
    return Compilation(map_entries=map_entries, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL,
                       expression=expression, decap=decap, tunnel_ports=tunnel_ports, owners=owners, names=names)
