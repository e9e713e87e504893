"""What this process may do: capabilities and the memory lock limit, looked at before anything is compiled."""

from __future__ import annotations

import resource
from pathlib import Path

from flowtop.errors import EXIT_NO_PERMISSION, FlowtopError

HINT = ("run with sudo, or give python CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; "
        "a locked-down kernel or a container may refuse")
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF = 12, 21, 24, 38, 39
_NAMES = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_PERFMON: "CAP_PERFMON", CAP_BPF: "CAP_BPF"}
UNCHARGED_RELEASE = (5, 11)
"""First Linux that charges maps to the memory cgroup instead of RLIMIT_MEMLOCK."""


def effective_capabilities(status: Path = Path("/proc/self/status")) -> frozenset[int]:
    """Numbers of the effective capabilities (capabilities(7)).

    Args:
        status: proc_pid_status(5).
    """
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("CapEff:"))
    mask = int(line.split()[1], 16)
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)


def missing_capabilities(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Names of the capabilities capture needs and this process lacks; CAP_SYS_ADMIN includes CAP_BPF, CAP_PERFMON."""
    effective = effective_capabilities(status)
    if CAP_SYS_ADMIN in effective:
        effective |= {CAP_BPF, CAP_PERFMON}
    return tuple(name for number, name in _NAMES.items() if number not in effective)


def require(status: Path = Path("/proc/self/status")) -> None:
    """Check the capabilities.

    Raises:
        FlowtopError: some are missing (EXIT_NO_PERMISSION).
    """
    missing = missing_capabilities(status)
    if missing:
        raise FlowtopError(f"no permission to capture: {', '.join(missing)} missing", hint=HINT,
                           exit_code=EXIT_NO_PERMISSION)


def may_raise_memory_lock() -> bool:
    """Whether RLIMIT_MEMLOCK is unlimited, or this process may lift it (CAP_SYS_RESOURCE)."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return hard == resource.RLIM_INFINITY or CAP_SYS_RESOURCE in effective_capabilities()


def raise_memory_lock(release: tuple[int, int]) -> None:
    """Lift RLIMIT_MEMLOCK where the kernel charges maps to it. Where that is refused a small map may still fit."""
    if release >= UNCHARGED_RELEASE or not may_raise_memory_lock():
        return
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
