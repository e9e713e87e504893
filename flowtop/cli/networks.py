"""The databases of AS and country that a run uses, and the addresses of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.cli.run_options import NO_DATABASES, RunOptions

if TYPE_CHECKING:
    from flowtop.networks.here import HostAddresses
    from flowtop.networks.networks import NetworkDatabases


def chosen_databases(options: RunOptions) -> tuple[Path, ...]:
    """Paths of the databases: those that were named, else those in the usual places. Opens nothing."""
    if options.mmdb == NO_DATABASES:
        return ()
    if options.mmdb:
        return tuple(map(Path, options.mmdb))
    from flowtop.networks.places import usual_databases

    return usual_databases()


def open_databases(options: RunOptions) -> NetworkDatabases | None:
    """The databases, open; None: there are none. One that cannot be used is a fault of what is returned.

    A screen is answered in time, and new addresses follow; rounds of batch output are complete.
    """
    paths = chosen_databases(options)
    if not paths:
        return None
    from flowtop.networks.networks import SCREEN_BUDGET_S, NetworkDatabases

    return NetworkDatabases(paths, budget_s=None if options.batch else SCREEN_BUDGET_S)


def this_host(options: RunOptions) -> HostAddresses | None:
    """The addresses of this host; None: the flows of the run are not its own."""
    if options.read is not None or options.listen:
        return None
    from flowtop.capture.ebpf.addresses import host_addresses
    from flowtop.networks.here import HostAddresses

    return HostAddresses(host_addresses)
