"""The part of a capture's start that needs no numpy: checks, and the compiler's child process set going.

A command begins here, and imports the rest while the programs compile.
"""

from __future__ import annotations

from flowtop.capture.ebpf import privileges
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, Compilation, kernel_release
from flowtop.errors import EXIT_USAGE, FlowtopError

MIN_MAP_ENTRIES, MAX_MAP_ENTRIES = 1024, 16_777_216


def check_map_entries(map_entries: int) -> None:
    """Check the capacity asked for.

    Raises:
        FlowtopError: out of range (EXIT_USAGE).
    """
    if not MIN_MAP_ENTRIES <= map_entries <= MAX_MAP_ENTRIES:
        raise FlowtopError(f"map size {map_entries} is out of range",
                           hint=f"--map-entries takes {MIN_MAP_ENTRIES} to {MAX_MAP_ENTRIES}", exit_code=EXIT_USAGE)


def begin(map_entries: int, wanted: str = "", *, decap: bool = False) -> Compilation:
    """Start compiling, with the capture filter `wanted` and `decap` (see Compilation). Whoever calls this closes it.

    Raises:
        FlowtopError: no permission to capture (EXIT_NO_PERMISSION), or no such capacity (EXIT_USAGE).
    """
    check_map_entries(map_entries)
    privileges.require()
    release = kernel_release()
    privileges.raise_memory_lock(release)  # the child inherits it
    return Compilation(map_entries=map_entries, coarse_clock=release >= COARSE_CLOCK_KERNEL, wanted=wanted,
                       decap=decap)
