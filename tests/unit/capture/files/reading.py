"""Reads a capture file to its end and puts what came out into plain values."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import IGNORED_KINDS, Kind
from flowtop.model.record import FlowBatch

Key = tuple[str, str, int, int, int]
"""Source, destination, protocol, ports."""


@dataclass
class Read:
    """All batches of a file added up: (packets, octets) by Key; what else is known of each flow by name."""

    batches: list[FlowBatch] = field(default_factory=list)
    flows: defaultdict[Key, tuple[int, int]] = field(default_factory=lambda: defaultdict(lambda: (0, 0)))
    facts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    parents: defaultdict[Key, tuple[int, int]] = field(default_factory=lambda: defaultdict(lambda: (0, 0)))
    """Of Kind.PARENT, which are not in `flows`."""

    @property
    def last(self) -> FlowBatch:
        """The batch that said the file has ended."""
        return self.batches[-1]

    @property
    def fault(self) -> str:
        """Why it ended early, "" when it did not."""
        fault = self.last.source and self.last.source.fault
        return fault.message if fault else ""

    def total(self, name: str) -> int:
        """One of the books, over all Observation Points."""
        return int(self.last.observations[name].sum())

    def ignored(self) -> dict[str, tuple[int, int]]:
        """(packets, octets) of each kind that ignored anything."""
        packets = self.last.observations["ignored_packets"].sum(axis=0).tolist()
        octets = self.last.observations["ignored_octets"].sum(axis=0).tolist()
        return {name: (p, o) for name, p, o in zip(IGNORED_KINDS, packets, octets, strict=True) if p or o}

    def table(self) -> dict[tuple[Any, ...], list[Any]]:
        """What the one batch that had packets holds: (packets, octets, TCP bits, TOS, TTL, MACs, fragments, echo) by
        all of the key."""
        [batch] = [batch for batch in self.batches if len(batch.keys)] or [self.last]
        table = {}
        for key, counters in zip(batch.keys, batch.counters, strict=True):
            conversation, facts = _plain(key), _facts(key, counters)
            table[(*conversation, facts["vlan_id"], facts["customer_vlan_id"], facts["kind"], facts["tunnel"],
                   facts["tunnel_id"])] = [
                int(counters["packets"]), int(counters["octets"]), facts["tcp_bits"] | facts["opening"] << 12,
                facts["tos"], facts["ttl"], facts["macs"], facts["fragments"], facts["echo"]]
        return table

    def assert_balanced(self) -> None:
        """observed = accounted + ignored, at the end of every batch."""
        packets = octets = 0
        for batch in self.batches:
            summed = batch.counters[batch.keys["kind"] != Kind.PARENT]
            packets += int(summed["packets"].sum())
            octets += int(summed["octets"].sum())
        books = self.last.observations
        assert packets + int(books["ignored_packets"].sum()) == int(books["packets"].sum())
        assert octets + int(books["ignored_octets"].sum()) == int(books["octets"].sum())


def read(path: Path | str, config: FileConfig | None = None) -> Read:
    """Read the file; each batch, or step of one, holds each key once."""
    capture = FileCapture(config or FileConfig(str(path)))
    capture.open(lambda _: None)
    found = Read()
    try:
        while not found.batches or not (found.last.source and found.last.source.ended):
            capture.wait(1)
            batch = capture.drain()
            words = np.ascontiguousarray(batch.keys).view(np.uint64).reshape(-1, batch.keys.dtype.itemsize // 8)
            if batch.steps is not None:
                words = np.column_stack((words, batch.steps.entry.astype(np.uint64)))
            assert len(np.unique(words, axis=0)) == len(words), "a key twice in one step"
            found.batches.append(FlowBatch(batch.keys, batch.counters, batch.observations.copy(), batch.now_ns, 0,
                                           dict(batch.interfaces), batch.attached, batch.source))
            _add(found, batch)
    finally:
        capture.close()
    found.assert_balanced()
    return found


def read_table(path: Path | str, config: FileConfig | None = None, table: TableConfig | None = None) -> FlowTable:
    """The flow table after the whole file; by default a single tick, in which no flow ends."""
    capture = FileCapture(config or FileConfig(str(path), None))
    found = FlowTable(table or TableConfig(idle_timeout_s=86_400, active_timeout_s=86_400, end_timeout_s=86_400))
    capture.open(lambda _: None)
    ended = False
    while not ended:
        batch = capture.drain()
        assert batch.source is not None
        found.accumulate(batch)
        ended = batch.source.ended
    capture.close()
    return found


def _add(found: Read, batch: FlowBatch) -> None:
    for key, counters in zip(batch.keys, batch.counters, strict=True):
        plain = _plain(key)
        flows = found.parents if key["kind"] == Kind.PARENT else found.flows
        packets, octets = flows[plain]
        flows[plain] = packets + int(counters["packets"]), octets + int(counters["octets"])
        found.facts.setdefault(plain, _facts(key, counters))


def _plain(key: np.void) -> Key:
    size = 4 if key["ip_version"] == 4 else 16
    source, destination = (str(ipaddress.ip_address(bytes(key[name])[:size]))
                           for name in ("source_address", "destination_address"))
    return source, destination, int(key["protocol"]), int(key["source_port"]), int(key["destination_port"])


def _facts(key: np.void, counters: np.void) -> dict[str, Any]:
    facts: dict[str, Any] = {name: int(key[name]) for name in (
        "vlan_id", "customer_vlan_id", "ifindex", "direction", "tunnel", "tunnel_id")}
    facts |= {name: int(counters[name]) for name in ("tos", "ttl", "first_ns", "last_ns", "fragments")}
    facts["echo"] = (int(counters["echo_identifier"]), int(counters["echo_sequence"])) if counters["echo"] else None
    facts["kind"] = Kind(int(key["kind"]))
    bits = sum(1 << bit for bit, seen in enumerate(counters["tcp_bit_seen"].tolist()) if seen)
    facts["tcp_bits"], facts["opening"] = bits & 0xFFF, bool(bits >> 12)
    facts["macs"] = bytes(counters["source_mac"]) + bytes(counters["destination_mac"])
    return facts
