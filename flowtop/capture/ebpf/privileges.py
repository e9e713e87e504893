"""What this process may do: capabilities and the memory lock limit, looked at before anything is compiled."""

from __future__ import annotations

import resource
from pathlib import Path

from flowtop.errors import EXIT_NO_PERMISSION, FlowtopError

HINT = ("run with sudo, or give python CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; "
        "a locked-down kernel or a container may refuse")
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39
_NAMES = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_PERFMON: "CAP_PERFMON", CAP_BPF: "CAP_BPF"}
_UNCHARGED_RELEASE = (5, 11)
"""First Linux that charges maps to the memory cgroup instead of RLIMIT_MEMLOCK."""


def missing_capabilities(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """Names of the capabilities capture needs and this process lacks; CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.

    Args:
        status: proc_pid_status(5).
    """
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    administrator = bool(effective >> CAP_SYS_ADMIN & 1)
    return tuple(name for number, name in _NAMES.items()
                 if not (effective >> number & 1 or (administrator and number != CAP_NET_ADMIN)))


def require(status: Path = Path("/proc/self/status")) -> None:
    """Check the capabilities.

    Raises:
        FlowtopError: some are missing (EXIT_NO_PERMISSION).
    """
    missing = missing_capabilities(status)
    if missing:
        raise FlowtopError(f"no permission to capture: {', '.join(missing)} missing", hint=HINT,
                           exit_code=EXIT_NO_PERMISSION)


def raise_memory_lock(release: tuple[int, int]) -> bool:
    """Lift RLIMIT_MEMLOCK where the kernel charges maps to it. Returns whether the limit is now no obstacle."""
    if release >= _UNCHARGED_RELEASE:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, PermissionError):
        return False  # without CAP_SYS_RESOURCE: a small map may still fit, and the kernel says when it does not
    return True
