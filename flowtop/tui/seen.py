"""Values of flows on view, as a filter takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flowtop.view import units
from flowtop.view.query import FlowRow

_FLOW = 0
"""record.Kind.FLOW, without numpy; a test compares them."""


def seen_values(rows: Iterable[FlowRow], interfaces: Mapping[int, str],
                attached: Iterable[str], host_names: Iterable[str] = ()) -> dict[str, Sequence[str]]:
    """Values by the word they go with: "host", "port", "proto", "mac", "if", "name"; each once, in the order of the
    rows."""
    hosts: dict[str, None] = {}
    ports: dict[str, None] = {}
    protocols: dict[str, None] = {}
    macs: dict[str, None] = {}
    names: dict[str, None] = {}
    for row in rows:
        protocols[units.protocol(row.protocol)] = None
        if row.ifindex in interfaces:
            names[interfaces[row.ifindex]] = None
        if row.kind != _FLOW:
            continue
        for address in (row.source_address, row.destination_address):
            hosts[units.address(address, row.ip_version)] = None
        if row.protocol in units.PORT_PROTOCOLS:
            for port in (row.source_port, row.destination_port):
                ports[str(port)] = None
        for address in (row.source_mac, row.destination_mac):
            macs[units.mac(address)] = None
    names |= dict.fromkeys(attached)
    clean = [name for name in names if name == units.printable(name)]
    return {"host": [*hosts], "port": [*ports], "proto": [*protocols], "mac": [*macs], "if": clean,
            "name": sorted(set(host_names))}
