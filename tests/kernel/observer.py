"""Shows frames to the loaded programs and reads back the books: a test's view of one Observation Point."""

from __future__ import annotations

import ctypes
import ipaddress
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import FlowProgram
from flowtop.model.kinds import IGNORED_KINDS, Direction, Kind, Layer, Tunnel
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FLOW_TOTALS_DTYPE
from tests.kernel.progrun import test_run

LOOPBACK_IFINDEX = 1
"""Test runs say the packet came by loopback."""
SLOTS = 512
MAP_ROOM = 70_000


@dataclass(frozen=True, slots=True)
class SeenFlow:
    """One entry of a flow or aggregate map, in plain values."""

    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    packets: int
    octets: int
    kind: Kind = Kind.FLOW
    direction: Direction = Direction.INGRESS
    vlan_id: int = 0
    customer_vlan_id: int = 0
    ifindex: int = LOOPBACK_IFINDEX
    tunnel: Tunnel = Tunnel.NONE
    tunnel_id: int = 0
    ip_version: int = field(default=4, compare=False)
    tos: int = field(default=0, compare=False)
    ttl: int = field(default=0, compare=False)
    tcp_bits: int = field(default=0, compare=False)
    opening: bool = field(default=False, compare=False)
    source_mac: bytes = field(default=b"", compare=False)
    destination_mac: bytes = field(default=b"", compare=False)
    first_ns: int = field(default=0, compare=False)
    last_ns: int = field(default=0, compare=False)
    socket_cookie: int = field(default=0, compare=False)
    fragments: int = field(default=0, compare=False)
    echo: tuple[int, int] | None = field(default=None, compare=False)
    """Identifier and sequence number of the first packet."""
    echo_after_ns: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Books:
    """Everything counted since the last `take`: flows, aggregates, parents, and totals summed over CPUs."""

    flows: list[SeenFlow]
    aggregates: list[SeenFlow]
    totals: npt.NDArray[np.void]
    inserted: int
    parents: list[SeenFlow] = field(default_factory=list)

    def total(self, name: str) -> int:
        """One field of the totals."""
        return int(self.totals[name])

    def ignored(self) -> dict[str, tuple[int, int]]:
        """(packets, octets) of each kind that ignored anything."""
        pairs = zip(self.totals["ignored_packets"].tolist(), self.totals["ignored_octets"].tolist(), strict=True)
        return {name: pair for name, pair in zip(IGNORED_KINDS, pairs, strict=True) if pair != (0, 0)}

    def assert_balanced(self) -> None:
        """observed = accounted + ignored + filtered + lost, in packets and in octets."""
        for unit in ("packets", "octets"):
            accounted = sum(getattr(flow, unit) for flow in self.flows + self.aggregates)
            ignored = int(self.totals[f"ignored_{unit}"].sum())
            named = ignored + self.total(f"filtered_{unit}") + self.total(f"lost_{unit}")
            assert self.total(unit) == accounted + named, unit
            assert sum(getattr(flow, unit) for flow in self.aggregates) == self.total(f"aggregated_{unit}"), unit


class Observer:
    """The programs of one FlowProgram, their maps emptied at every `take`."""

    def __init__(self, program: FlowProgram) -> None:
        self.program = program
        self.cpus = possible_cpus()
        self.side = 0
        self.layer3 = False
        self.flip(0)
        self.own_slot(LOOPBACK_IFINDEX)
        self._empty("fragments", 40, 16)

    def own_slot(self, ifindex: int, owner: int | None = None, sides: tuple[int, ...] = (0, 1)) -> None:
        """Write an owner (default: ifindex) into the totals slots of `ifindex`, as attaching does, all else zero."""
        value = np.zeros(self.cpus, FLOW_TOTALS_DTYPE)
        value["ifindex"] = ifindex if owner is None else owner
        value["layer"] = Layer.IP if self.layer3 else Layer.ETHERNET
        for side in sides:
            for direction in Direction:
                bpf.map_update(self.program.maps["totals"], _slot(side, ifindex, direction), value.tobytes())

    def flip(self, side: int) -> None:
        """Make `side` the active one."""
        self.side = side
        bpf.map_update(self.program.maps["control"], struct.pack("=I", 0), struct.pack("=I", side))

    def see(self, frame: bytes, *, direction: Direction = Direction.INGRESS, layer3: bool = False, repeat: int = 1,
            gso_size: int = 0, gso_segs: int = 0, wire_len: int = 0) -> None:
        """Run the program of that direction and link type over `frame`; it must let the frame pass unchanged."""
        if layer3 != self.layer3:
            self.layer3 = layer3
            self.own_slot(LOOPBACK_IFINDEX)
        program = self.program.programs[f"flow_{direction.name.lower()}"]
        run = test_run(program, frame, repeat=repeat, gso_size=gso_size, gso_segs=gso_segs,
                       wire_len=wire_len)
        assert run.verdict == -1
        assert run.frame == frame

    def take(self, direction: Direction = Direction.INGRESS, *, ifindex: int = LOOPBACK_IFINDEX) -> Books:
        """What was counted on the active side since the last `take`."""
        letter = "ab"[self.side]
        inserted_key = struct.pack("=I", self.side)
        inserted = ctypes.c_uint32()
        bpf.map_lookup(self.program.maps["inserted"], inserted_key, ctypes.addressof(inserted))
        bpf.map_update(self.program.maps["inserted"], inserted_key, bytes(4))
        aggregates = self._flows(f"aggregates_{letter}") + self._flows(f"rest_{letter}")
        entries = self._flows(f"flows_{letter}")
        books = Books([flow for flow in entries if flow.kind is not Kind.PARENT], aggregates,
                      self.totals(direction, ifindex=ifindex), inserted.value,
                      [flow for flow in entries if flow.kind is Kind.PARENT])
        self.own_slot(ifindex, int(books.totals["ifindex"]), (self.side,))
        return books

    def totals(self, direction: Direction, *, ifindex: int = LOOPBACK_IFINDEX, side: int | None = None,
               ) -> npt.NDArray[np.void]:
        """The slot of `ifindex`, summed over CPUs; its owner as it stands there."""
        per_cpu = np.zeros(self.cpus, FLOW_TOTALS_DTYPE)
        key = _slot(self.side if side is None else side, ifindex, direction)
        assert bpf.map_lookup(self.program.maps["totals"], key, per_cpu.ctypes.data)
        return sum_over_cpus(per_cpu)

    def _flows(self, name: str) -> list[SeenFlow]:
        keys, counters = self._empty(name, FLOW_KEY_DTYPE.itemsize, FLOW_COUNTERS_DTYPE.itemsize)
        pairs = zip(keys.view(FLOW_KEY_DTYPE), counters.view(FLOW_COUNTERS_DTYPE), strict=True)
        return sorted((_seen(key, value) for key, value in pairs),
                      key=lambda flow: (flow.source, flow.destination, flow.protocol, flow.source_port,
                                        flow.destination_port, flow.kind, flow.vlan_id, flow.tunnel, flow.tunnel_id))

    def _empty(self, name: str, key_octets: int, value_octets: int) -> tuple[npt.NDArray[np.uint8], ...]:
        keys = np.zeros(MAP_ROOM * key_octets, np.uint8)
        values = np.zeros(MAP_ROOM * value_octets, np.uint8)
        moved, _ = bpf.lookup_and_delete_batch(self.program.maps[name], bpf.BatchCursor(), keys.ctypes.data,
                                               values.ctypes.data, MAP_ROOM)
        return keys[:moved * key_octets], values[:moved * value_octets]


def possible_cpus() -> int:
    """CPUs a per-CPU map has a value for."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def sum_over_cpus(per_cpu: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Add up every field but the owner."""
    total = np.zeros((), FLOW_TOTALS_DTYPE)
    for name in FLOW_TOTALS_DTYPE.names or ():
        total[name] = per_cpu[name].sum(axis=0)
    total["ifindex"] = per_cpu["ifindex"][0]
    total["layer"] = per_cpu["layer"][0]
    return total


def _slot(side: int, ifindex: int, direction: int) -> bytes:
    return struct.pack("=I", side * SLOTS * 2 + ifindex % SLOTS * 2 + direction)


def _seen(key: np.void, counters: np.void) -> SeenFlow:
    octets = 4 if key["ip_version"] == 4 else 16
    addresses = [bytes(key[name]) for name in ("source_address", "destination_address")]
    assert all(not any(address[octets:]) for address in addresses), "what follows an IPv4 address is zero"
    source, destination = (str(ipaddress.ip_address(address[:octets])) for address in addresses)
    plain = {name: int(key[name]) for name in ("protocol", "source_port", "destination_port", "vlan_id",
                                               "customer_vlan_id", "ifindex", "ip_version", "tunnel_id")}
    plain |= {name: int(counters[name]) for name in ("packets", "octets", "tos", "ttl", "first_ns", "last_ns",
                                                     "socket_cookie", "fragments", "echo_after_ns")}
    assert counters["echo"] in (0, 1)
    echo = (int(counters["echo_identifier"]), int(counters["echo_sequence"])) if counters["echo"] else None
    bits = sum(1 << bit for bit, seen in enumerate(counters["tcp_bit_seen"].tolist()) if seen)
    assert not int(counters["tcp_bits_hint"]) & ~bits, "the hint invents no bit"
    return SeenFlow(source=source, destination=destination, echo=echo, kind=Kind(int(key["kind"])),
                    tunnel=Tunnel(int(key["tunnel"])), direction=Direction(int(key["direction"])),
                    tcp_bits=bits & 0xFFF, opening=bool(bits >> 12), source_mac=bytes(counters["source_mac"]),
                    destination_mac=bytes(counters["destination_mac"]), **plain)
