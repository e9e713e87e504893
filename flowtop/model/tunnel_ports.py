"""UDP ports of tunnels: those registered, and those that the user adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.model.kinds import TUNNELS_BY_LABEL, Tunnel

TunnelPorts = Mapping[int, Tunnel]
"""The kind of tunnel by UDP destination port."""

STANDARD_PORTS: TunnelPorts = {port: tunnel for tunnel in Tunnel for port in tunnel.ports}
BY_PORT = tuple(tunnel.label for tunnel in Tunnel if tunnel.ports)
"""Names of the tunnels that a UDP port tells apart."""
MOST_PORTS = 32
"""Limit of ports that a user adds: each is a comparison in the kernel program."""
_LARGEST = 65_535


def replaced_ports(ports: TunnelPorts) -> list[str]:
    """What is to be said of added ports that are standard ports of another tunnel: a line each."""
    return [f"tunnels: UDP port {port} is {tunnel.label} here, not {STANDARD_PORTS[port].label}, whose port it is"
            for port, tunnel in ports.items() if STANDARD_PORTS.get(port, tunnel) != tunnel]


def added_ports(pairs: Iterable[tuple[str, str | int]]) -> dict[int, Tunnel]:
    """Ports that are added to the standard ones, or replace them.

    Args:
        pairs: name of a tunnel and its port.

    Raises FlowtopError (EXIT_USAGE): no such tunnel or port, a port of two tunnels, or too many of them.
    """
    found: dict[int, Tunnel] = {}
    for label, text in pairs:
        if label not in BY_PORT:
            known = f'"{label}" has no UDP port' if label in TUNNELS_BY_LABEL else f'unknown tunnel "{label}"'
            raise FlowtopError(known, hint=f"tunnels with a port: {', '.join(BY_PORT)}", exit_code=EXIT_USAGE)
        port = int(text) if str(text).isascii() and str(text).isdecimal() else 0
        if not 0 < port <= _LARGEST:
            raise FlowtopError(f'"{text}" is not a UDP port', exit_code=EXIT_USAGE,
                               hint=f"a number from 1 to {_LARGEST}, as in {label}=51234")
        tunnel = TUNNELS_BY_LABEL[label]
        if found.setdefault(port, tunnel) != tunnel:
            raise FlowtopError(f"UDP port {port} is given to {found[port].label} and to {label}",
                               hint="a port is of one kind of tunnel", exit_code=EXIT_USAGE)
    if len(found) > MOST_PORTS:
        raise FlowtopError(f"{len(found)} ports of tunnels, at most {MOST_PORTS} can be added",
                           hint="leave out those that are not used", exit_code=EXIT_USAGE)
    return found
