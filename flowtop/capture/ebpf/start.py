"""Start of a capture without numpy: checks permissions and starts the compiler's child process."""

from __future__ import annotations

import ctypes
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, Compilation, kernel_release
from flowtop.errors import EXIT_NO_PERMISSION, EXIT_USAGE, FlowtopError
from flowtop.model.tunnel_ports import TunnelPorts

HINT = ("run with sudo, or give python CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; "
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


@contextmanager
def memory_lock_raised(release: tuple[int, int]) -> Iterator[None]:
    """A context in which RLIMIT_MEMLOCK is as in a capture; afterwards it is as before."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    raise_memory_lock(release)
    try:
        yield
    finally:
        if resource.getrlimit(resource.RLIMIT_MEMLOCK) != before:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


MIN_MAP_ENTRIES, MAX_MAP_ENTRIES = 1024, 16_777_216


def check_map_entries(map_entries: int) -> None:
    """Check the map capacity.

    Raises:
        FlowtopError: out of range (EXIT_USAGE).
    """
    if not MIN_MAP_ENTRIES <= map_entries <= MAX_MAP_ENTRIES:
        raise FlowtopError(f"map size {map_entries} is out of range",
                           hint=f"--map-entries takes {MIN_MAP_ENTRIES} to {MAX_MAP_ENTRIES}", exit_code=EXIT_USAGE)


def begin(map_entries: int, expression: str = "", *, decap: bool = False,
          tunnel_ports: TunnelPorts | None = None, owners: bool = False, names: bool = False) -> Compilation:
    """Start compiling with the capture filter `expression`, `decap`, `tunnel_ports`, `owners` and `names` (see
    Compilation). The caller has to close it.

    Raises:
        FlowtopError: no permission to capture (EXIT_NO_PERMISSION), or invalid capacity (EXIT_USAGE).
    """
    check_map_entries(map_entries)
    require()
    release = kernel_release()
    raise_memory_lock(release)  # the child inherits it
    return Compilation(map_entries=map_entries, coarse_clock=release >= COARSE_CLOCK_KERNEL, expression=expression,
                       decap=decap, tunnel_ports=tunnel_ports, owners=owners, names=names)
