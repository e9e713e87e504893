"""What exporters report of a flow beside its key and counters: routing, NAT, VRF, application, user, sampling.

Captures of packets have none of it, so it is in arrays of its own, which exist only once an exporter has reported such
a value. In all of them 0 means "not reported". Measurements of TCP, which few exporters have, make them wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import IpVersion

REPORTED_DTYPE = np.dtype([
    ("next_hop", "V16"),
    ("bgp_next_hop", "V16"),
    ("post_nat_source", "V16"),
    ("post_nat_destination", "V16"),
    ("source_as", "u4"),
    ("destination_as", "u4"),
    ("mpls_top_label", "u4"),
    ("ingress_vrf", "u4"),
    ("egress_vrf", "u4"),
    ("application", "u4"),
    ("user", "u4"),
    ("sampler", "u4"),
    ("sampling_interval", "u4"),
    ("post_nat_source_port", "u2"),
    ("post_nat_destination_port", "u2"),
    ("firewall_extended_event", "u2"),
    ("source_mask", "u1"),
    ("destination_mask", "u1"),
    ("nat_event", "u1"),
    ("firewall_event", "u1"),
    ("reported_pad", "V2"),
])
"""Reported values of one flow, 112 bytes; 0: not reported.

Addresses are 16 octets on their own, as a flow may have a next hop of the other IP version: IPv4 as `::ffff:a.b.c.d`.
`*_vrf`, `application`, `user`: codes, whose texts and numbers are in Lookups.texts (see TEXTS). `mpls_top_label`: the
three octets of the label stack entry, so that label 0 is not 0. Masks: prefix lengths. `sampling_interval`: the
counters were multiplied by it.
"""

MEASURED_DTYPE = np.dtype([
    *[(name, REPORTED_DTYPE[name]) for name in REPORTED_DTYPE.names or ()],
    ("rtt_us", "u4"),
    ("congestion_window", "u4"),
    ("retransmitted", "u4"),
    ("retransmitted_delta", "u4"),
    ("out_of_order_delta", "u4"),
    ("retransmitted_back", "u4"),
    ("out_of_order_back", "u4"),
    ("measured_pad", "V4"),
])
"""Reported values with measurements of TCP, 144 bytes; 0: not reported, or none.

`rtt_us`: of the connection. `congestion_window` (segments), `retransmitted` (segments since the connection began): of
the socket that sends the flow. `*_delta`: segments of this record, `*_back`: those of the other direction.
"""

REPORTED = tuple(name for name in REPORTED_DTYPE.names or () if name != "reported_pad")
"""Names of the values."""
_WORDS = REPORTED_DTYPE.itemsize // 8
_LATEST = ("rtt_us", "congestion_window", "retransmitted")
_SUMMED = ("retransmitted_delta", "out_of_order_delta", "retransmitted_back", "out_of_order_back")
ADDRESSES = ("next_hop", "bgp_next_hop", "post_nat_source", "post_nat_destination")

APPLICATIONS, APPLICATION_IDS, USERS, VRFS, VRF_IDS, INTERFACE_NUMBERS = (
    "applications", "application ids", "users", "vrfs", "vrf ids", "interface numbers")
TEXTS = (APPLICATIONS, APPLICATION_IDS, USERS, VRFS, VRF_IDS, INTERFACE_NUMBERS)
"""Keys of FlowBatch.texts: text by code; INTERFACE_NUMBERS: the exporter's own number by ifindex."""

OPPOSITE = 1 << 31
"""Bit of an `other_ifindex`: the Observation Point is on the other side than its direction says (an unknown one says
ingress). For example, a flow of unknown direction of which only the egress interface is reported."""

_MAPPED = b"\0" * 10 + b"\xff\xff"
"""The first octets of an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2)."""

Reported = npt.NDArray[np.void]
"""REPORTED_DTYPE or MEASURED_DTYPE, shape (n,)."""


def mapped(addresses: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """IPv4 addresses, V4, as IPv4-mapped addresses, V16, shape (n,); 0.0.0.0, which is none, as 0."""
    full = np.zeros((len(addresses), 16), np.uint8)
    full[:, 12:] = np.frombuffer(addresses.tobytes(), np.uint8).reshape(-1, 4)
    full[full.any(axis=1), 10:12] = 0xFF
    return full.view("V16")[:, 0]


def plain_address(raw: bytes) -> tuple[bytes, int]:
    """Octets and IP version of an address in REPORTED_DTYPE: 4 or 16 octets."""
    return (raw[12:], IpVersion.V4) if raw[:12] == _MAPPED else (raw, IpVersion.V6)


def packed_address(octets: bytes) -> bytes:
    """The reverse of `plain_address`: 4 or 16 octets as 16."""
    return _MAPPED + octets if len(octets) == 4 else octets


def words_of(reported: Reported) -> npt.NDArray[np.uint64]:
    """The same memory as u8, shape (n, words of the dtype): indexing a structured array is 20 times slower."""
    return np.ascontiguousarray(reported).view(np.uint64).reshape(-1, reported.dtype.itemsize // 8)


def of_words(words: npt.NDArray[np.uint64]) -> Reported:
    """The reverse of `words_of`."""
    dtype = REPORTED_DTYPE if words.shape[1] == _WORDS else MEASURED_DTYPE
    found: Reported = np.ascontiguousarray(words).view(dtype)[:, 0]
    return found


def plain(reported: Reported) -> Reported:
    """The values without measurements of TCP: REPORTED_DTYPE."""
    return reported if reported.dtype == REPORTED_DTYPE else of_words(words_of(reported)[:, :_WORDS])


def in_a_row(parts: Sequence[Reported]) -> Reported:
    """One after another, all as the widest; there is at least one part."""
    widest = max(part.dtype.itemsize for part in parts) // 8
    found = np.zeros((sum(map(len, parts)), widest), np.uint64)
    start = 0
    for part in parts:
        words = words_of(part)
        found[start:start + len(part), :words.shape[1]] = words
        start += len(part)
    return of_words(found)


def rows_of(reported: Reported, rows: npt.NDArray[np.intp]) -> Reported:
    """`reported[rows]`."""
    return of_words(words_of(reported).take(rows, axis=0))


def given(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which values of one member are reported: not 0, or not empty. Shape (n,)."""
    if values.dtype.kind == "V":
        halves = np.ascontiguousarray(values).view(np.uint64).reshape(-1, 2)
        values = halves[:, 0] | halves[:, 1]
    found: npt.NDArray[np.bool_] = values != (b"" if values.dtype.kind == "S" else 0)
    return found


def update(old: Reported, new: Reported) -> Reported:
    """The values of `old` with those that `new` reports in their place; both of shape (n,). A new array."""
    if not words_of(old).any():
        return new.copy()
    found = old.copy()
    for name in REPORTED:
        values = new[name]
        which = given(values)
        if which.any():
            found[name] = np.where(which, values, old[name])
    return found


def last_given(reported: Reported, order: npt.NDArray[np.intp], starts: npt.NDArray[np.intp]) -> Reported:
    """Of each group of rows the last value that was reported, member by member; of `*_delta` and `*_back` the sum.

    Args:
        order: the rows, those of a group one after another.
        starts: where each group starts in `order`.

    Returns:
        Shape (groups,).
    """
    ends = np.append(starts[1:], len(order)) - 1
    found = rows_of(reported, order[ends])
    if len(starts) == len(order):
        return found
    places = np.arange(len(order))
    measured = reported.dtype == MEASURED_DTYPE
    for name in _SUMMED if measured else ():
        found[name] = np.add.reduceat(reported[name][order], starts)
    for name in (*REPORTED, *_LATEST) if measured else REPORTED:
        which = given(reported[name])
        if which.all() or not which.any():
            continue  # the last row has it, or none has
        last = np.maximum.reduceat(np.where(which[order], places, -1), starts)
        found[name] = np.where(last >= 0, reported[name][order[last]], found[name])
    return found


def turned(reported: Reported) -> Reported:
    """The values for the flow in the other direction. Next hops, translated addresses and the state of the sending
    socket are the forward flow's alone. A new array."""
    found = reported.copy()
    for one, other in (("source_as", "destination_as"), ("source_mask", "destination_mask"),
                       ("ingress_vrf", "egress_vrf")):
        found[one], found[other] = reported[other], reported[one]
    for name in (*ADDRESSES, "post_nat_source_port", "post_nat_destination_port", "mpls_top_label"):
        found[name] = np.zeros((), REPORTED_DTYPE[name])
    if reported.dtype == MEASURED_DTYPE:
        found["congestion_window"] = found["retransmitted"] = 0
        for name in ("retransmitted", "out_of_order"):
            found[f"{name}_delta"], found[f"{name}_back"] = reported[f"{name}_back"], reported[f"{name}_delta"]
    return found


def absent(name: str, count: int) -> npt.NDArray[Any]:
    """A column of `count` zeros that takes no memory: of flows that no exporter reported anything of. Read-only."""
    return np.broadcast_to(np.zeros(1, REPORTED_DTYPE[name]), count)


def is_absent(column: npt.NDArray[Any]) -> bool:
    """Whether it is a column of `absent`."""
    return column.strides == (0,)
