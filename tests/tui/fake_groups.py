"""Groups of flows in plain Python, for the screen's tests; no code of flowtop's."""

from __future__ import annotations

import ipaddress
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence

from flowtop.model.rows import FlowRow

Key = tuple[int, ...]
AGGREGATE = 1


def _words(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")


def _host(row: FlowRow, raw: bytes) -> Key:
    return (0 if row.kind == AGGREGATE else row.ip_version), *_words(raw)


def _network(row: FlowRow, raw: bytes, lengths: str) -> Key:
    if row.kind == AGGREGATE:
        return 0, 0, 0
    four, _, six = (lengths or "24/64").partition("/")
    bits = int(four if row.ip_version == 4 else six or 64)
    size = 4 if row.ip_version == 4 else 16
    network = ipaddress.ip_network((raw[:size], bits), strict=False)
    return row.ip_version, *_words(network.network_address.packed.ljust(16, b"\0"))


def _pair(row: FlowRow) -> Key:
    if row.kind == AGGREGATE:
        return 0, 0, 0, 0, 0
    low, high = sorted((_words(row.source_address), _words(row.destination_address)))
    return row.ip_version, *low, *high


def _service(row: FlowRow) -> Key:
    number = min(row.source_port, row.destination_port) if row.protocol in (6, 17) else row.destination_port >> 8
    return row.kind, row.protocol, number


KEYS: dict[str, Callable[[FlowRow, str], Key]] = {
    "source": lambda row, _: _host(row, row.source_address),
    "destination": lambda row, _: _host(row, row.destination_address),
    "pair": lambda row, _: _pair(row),
    "service": lambda row, _: _service(row),
    "protocol": lambda row, _: (0, row.protocol),
    "interface": lambda row, _: (row.ifindex,),
    "exporter": lambda row, _: (1,),
    "domain": lambda row, _: (1,),
    "direction": lambda row, _: (row.direction,),
    "subnet": lambda row, lengths: _network(row, row.source_address, lengths),
    "destination_subnet": lambda row, lengths: _network(row, row.destination_address, lengths),
    "vlan": lambda row, _: (row.vlan_id, row.customer_vlan_id),
    "tunnel": lambda row, _: (row.tunnel, row.tunnel_id),
    "dscp": lambda row, _: (row.tos >> 2,),
}
"""What the registry's `keys` make of a flow, by id of the field."""

SUMS = ("packet_delta", "octet_delta", "packet_total", "octet_total", "octet_rate", "octet_rate_10s", "octet_rate_60s",
        "packet_rate", "packet_rate_10s", "packet_rate_60s")


def grouped(rows: Sequence[FlowRow], group: tuple[str, ...]) -> list[FlowRow]:
    """Rows of groups. Their ids are made of their keys."""
    members: dict[tuple[Key, ...], list[FlowRow]] = defaultdict(list)
    for row in rows:
        members[tuple(KEYS[field.partition(":")[0]](row, field.partition(":")[2]) for field in group)].append(row)
    return [_sum(key, flows, zlib.crc32(repr((group, key)).encode()) | 1 << 40) for key, flows in members.items()]


def _sum(key: tuple[Key, ...], flows: list[FlowRow], flow_id: int) -> FlowRow:
    once = [row for row in flows if not row.duplicate] or flows
    nothing = {name: type(value)() for name, value in flows[0]._asdict().items() if name != "more"}
    sums = {name: sum(getattr(row, name) for row in once) for name in SUMS}
    first, last = min(row.start_ms for row in flows), max(row.end_ms for row in flows)
    return FlowRow(**nothing | sums | {
        "flow_id": flow_id, "group": key, "flows": len(once), "start_ms": first, "end_ms": last,
        "age_s": (last - first) / 1000, "end_reason": int(all(row.end_reason for row in flows)),
        "octet_rate_peak": max(row.octet_rate_peak for row in flows)})
