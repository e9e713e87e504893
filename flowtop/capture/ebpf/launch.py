"""Start the helpers of a confined capture, and the compiler by one of them. Imports little: the screen waits for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.start import (
    CAP_BPF,
    CAP_NET_ADMIN,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    CAP_SYS_RESOURCE,
)
from flowtop.confine.helper import Helper, Operation, Operations, Pending, start_helper
from flowtop.owners.cgroups import cgroup2_root, detached_root

if TYPE_CHECKING:
    from flowtop.capture.ebpf.attaching import Attaching

CAP_DAC_READ_SEARCH = 2
LOADER_KEEPS = (CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF)
"""DAC_READ_SEARCH: flowtop may be installed in a user's directory. SYS_ADMIN: names of other programs, and what is now
CAP_BPF on older kernels."""
LOOKER_KEEPS = (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_NET_ADMIN)
"""SYS_ADMIN: entering network namespaces, to list their sockets."""


@dataclass(frozen=True, slots=True)
class Helpers:
    """Two processes that keep rights: see `compiling`, `attaching` and `looking` for what they do, and `rights` for how
    it is asked for.

    Attributes:
        loader: loads and attaches.
        looker: looks at processes and containers.
        grace_maps: of bpf.grace_maps; None: the kernel refused them.
        cgroup_root: of cgroup v2; None: it is not mounted.
    """

    loader: Helper
    looker: Helper
    grace_maps: tuple[int, int] | None
    cgroup_root: Path | None

    def close(self) -> None:
        """End them."""
        self.loader.close()
        self.looker.close()

    def check(self) -> str:
        """What this host can do, as `flowtop --check` says it. Takes a second. Raises OSError, FlowtopError."""
        with closing(self.loader.begin("check")) as pending:
            return "\n".join(pending.result()[0]["lines"]) + "\n"

    def compile_flows(self, *, map_entries: int, expression: str, decap: bool, tunnel_ports: Mapping[int, int] | None,
                      owners: bool, names: bool) -> Pending:
        """Start compiling, see compiler.Compilation. Raises OSError."""
        return self.loader.begin("flows", map_entries=map_entries, expression=expression, decap=decap,
                                 tunnel_ports=ports_message(tunnel_ports), owners=owners, names=names)


def ports_message(ports: Mapping[int, int] | None) -> list[list[int]]:
    """Ports of tunnels, for a request."""
    return [[int(port), int(tunnel)] for port, tunnel in (ports or {}).items()]


def start_helpers(*, owners: bool, check: Callable[[], list[str]]) -> Helpers:
    """Start both. For a process without further threads, that has what capture needs. Raises OSError.

    Args:
        owners: the root of cgroup v2 is needed.
        check: makes the lines of a check of the host.
    """
    root = (cgroup2_root() or detached_root()) if owners else None
    grace: tuple[int, int] | None = None
    with suppress(OSError):  # loading says what is refused, and why
        grace = bpf.grace_maps()
    loader = start_helper(LOADER_KEEPS, _Loader(check))
    return Helpers(loader, start_helper(LOOKER_KEEPS, _Looker()), grace, root)


class _Loader(Operations):
    """What it needs is imported in its process, when it is needed: the one that shows a screen has no time for it."""

    def __init__(self, check: Callable[[], list[str]]) -> None:
        self._check = check
        self._attaching: Attaching | None = None

    def at_once(self, op: str) -> Operation | None:
        """See Operations."""
        if self._attaching is None:
            from flowtop.capture.ebpf.attaching import Attaching

            self._attaching = Attaching()
        return self._attaching.operations.get(op)

    def apart(self, op: str) -> Operation | None:
        """See Operations."""
        if op == "check":
            return lambda *_: ({"lines": self._check()}, [])
        if op not in ("flows", "packets"):
            return None
        from flowtop.capture.ebpf import compiling

        return compiling.flows if op == "flows" else compiling.packets

    def close(self) -> None:
        """See Operations."""
        if self._attaching is not None:
            self._attaching.close()


class _Looker(Operations):
    death = signal.SIGKILL  # what it reads of a process may be in a file system that never answers

    def at_once(self, op: str) -> Operation | None:
        """See Operations."""
        from flowtop.capture.ebpf import looking

        return {"life": looking.life, "scan": looking.sockets, "user": looking.user}.get(op)

    def apart(self, op: str) -> Operation | None:
        """See Operations."""
        if op != "container":
            return None
        from flowtop.capture.ebpf import looking

        return looking.container
