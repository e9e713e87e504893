"""Builds keys, counters, batches and rows for tests; every value can be given, time too."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import Direction, Kind, Tunnel
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch
from flowtop.model.rows import FlowRow

SECOND = 1_000_000_000
START_NS = 5_000 * SECOND
"""Some time on the capture's clock."""
UNIX_OFFSET_NS = 1_700_000_000 * SECOND

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@functools.cache
def packed(address: str) -> bytes:
    """An address as in a Flow Key: 16 bytes, IPv4 in the first 4."""
    return ipaddress.ip_address(address).packed.ljust(16, b"\0")


def key(source: str = "10.0.0.1", destination: str = "10.0.0.2", source_port: int = 1000, destination_port: int = 80,
        protocol: int = 6, direction: int = Direction.INGRESS, ifindex: int = 2, vlan_id: int = 0,
        customer_vlan_id: int = 0, kind: int = Kind.FLOW, tunnel_id: int = 0, tunnel: int = Tunnel.NONE,
        ) -> npt.NDArray[np.void]:
    """FLOW_KEY_DTYPE, shape (1,)."""
    version = ipaddress.ip_address(source).version
    return np.array([(packed(source), packed(destination), source_port, destination_port, protocol, version, kind,
                      direction, vlan_id, customer_vlan_id, ifindex, tunnel_id, tunnel)], FLOW_KEY_DTYPE)


def counters(packets: int = 1, octets: int = 100, first_ns: int = START_NS, last_ns: int | None = None,
             tcp_bits: int = 0, tos: int = 0, ttl: int = 64, source_mac: bytes = b"\2\0\0\0\0\1",
             destination_mac: bytes = b"\2\0\0\0\0\2", socket_cookie: int = 0, opening: bool = False,
             **tcp: int) -> npt.NDArray[np.void]:
    """FLOW_COUNTERS_DTYPE, shape (1,); `tcp`: its fields after the padding."""
    seen = [*(tcp_bits >> bit & 1 for bit in range(12)), opening]
    last_ns = first_ns if last_ns is None else last_ns
    found = np.zeros(1, FLOW_COUNTERS_DTYPE)
    found[list(FLOW_COUNTERS_DTYPE.names or ())[:11]] = (
        packets, octets, first_ns, last_ns, socket_cookie, source_mac, destination_mac, tcp_bits, tos, ttl, seen)
    for name, value in tcp.items():
        found[name] = value
    return found


def batch(entries: Sequence[tuple[npt.NDArray[np.void], npt.NDArray[np.void]]], now_ns: int,
          observations: npt.NDArray[np.void] | None = None) -> FlowBatch:
    """A FlowBatch of (key, counters) pairs."""
    keys = [k for k, _ in entries]
    added = [c for _, c in entries]
    return FlowBatch(
        np.concatenate(keys) if keys else np.zeros(0, FLOW_KEY_DTYPE),
        np.concatenate(added) if added else np.zeros(0, FLOW_COUNTERS_DTYPE),
        np.zeros(0, OBSERVATION_DTYPE) if observations is None else observations,
        now_ns, UNIX_OFFSET_NS)


def observation(**fields: Any) -> npt.NDArray[np.void]:
    """OBSERVATION_DTYPE, shape (1,), zero but for `fields`."""
    row = np.zeros(1, OBSERVATION_DTYPE)
    for name, value in fields.items():
        row[name] = value
    return row


def flow_row(**fields: Any) -> FlowRow:
    """A FlowRow of a quiet TCP flow, but for `fields`."""
    values: dict[str, Any] = {
        "flow_id": 1, "source_address": packed("10.0.0.1"), "destination_address": packed("10.0.0.2"),
        "source_port": 1000, "destination_port": 80, "protocol": 6, "ip_version": 4, "kind": 0, "direction": 0,
        "vlan_id": 0, "customer_vlan_id": 0, "ifindex": 2, "source_mac": bytes(6), "destination_mac": bytes(6),
        "tcp_control_bits": 0, "tos": 0, "ttl": 64, "end_reason": 0, "closing": False, "duplicate": False,
        "packet_delta": 0, "octet_delta": 0, "packet_total": 1, "octet_total": 100, "octet_rate": 0.0,
        "octet_rate_10s": 0.0, "octet_rate_60s": 0.0, "octet_rate_peak": 0.0, "packet_rate": 0.0,
        "packet_rate_10s": 0.0, "packet_rate_60s": 0.0, "start_ms": 0, "end_ms": 0, "age_s": 0.0, "idle_s": 0.0,
        "syn_ms": 0, "fin_ms": 0, "rst_ms": 0, "rtt_us": 0, "congestion_window": 0, "retransmitted": 0,
        "out_of_order": 0, "tunnel": 0, "tunnel_id": 0, "record_bits": 0, "flow_count": 0,
    }
    unknown = fields.keys() - values.keys()
    if unknown:
        raise TypeError(f"FlowRow has no {', '.join(sorted(unknown))}")
    return FlowRow(**(values | fields))
