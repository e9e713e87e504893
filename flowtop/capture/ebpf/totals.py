"""The second set of books: per-CPU totals of every Observation Point, and the interfaces' own counters beside them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.interfaces import Counters
from flowtop.capture.ebpf.maps import SIDES
from flowtop.record import FLOW_TOTALS_DTYPE, OBSERVATION_DTYPE, Direction, Layer

SLOTS = 512
"""Interfaces with a slot of their own in the totals array; more of them go through totals_overflow."""

_SUMS = tuple(name for name in FLOW_TOTALS_DTYPE.names or () if name not in ("ifindex", "layer"))
_WORDS = FLOW_TOTALS_DTYPE.itemsize // 8 - 1
"""64-bit sums in struct flow_totals, after ifindex and pad."""
_KEPT_VANISHED = 1024
"""Vanished interfaces whose books are kept apart; older ones are added to ifindex 0, so memory stays bounded."""
NOBODY = 0
"""The ifindex under which packets are booked whose interface has no slot."""


def possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    """How many CPUs per-CPU maps have values for: the possible ones, not those online."""
    count = 0
    for part in path.read_text(encoding="ascii").strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


@dataclass(slots=True)
class _Point:
    """The books of one interface.

    Attributes:
        row: its row for ingress in the arrays of `Totals`; the one after it is for egress.
        overflow: its totals live in the hash map, not in its array slot.
        undrained: sides that may still hold something of it; empty once its slot was given up.
        counters: what the interface's counters were when last looked at.
        gained: what they gained: by direction, (packets, octets).
    """

    ifindex: int
    row: int
    overflow: bool = False
    live: bool = True
    undrained: set[int] = field(default_factory=set)
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    gained: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])

    def count_interface(self, direction: int, now: Counters) -> None:
        """Add packets and octets gained. A counter that fell was reset by its driver: it counts from zero."""
        for unit, column in enumerate((direction, 2 + direction)):
            new, old = now[column], self.counters[column]
            self.gained[direction][unit] += new - old if new >= old else new
            self.counters[column] = new


class Totals:
    """Reads struct flow_totals per side and adds what is new to cumulative observations.

    The kernel's totals are never reset while an interface is observed; differences to the previous reading are added.

    Args:
        maps: file descriptors by name: totals, totals_overflow.
        cpus: number of possible CPUs.
    """

    def __init__(self, maps: Mapping[str, int], cpus: int) -> None:
        self._array_fd = maps["totals"]
        self._overflow_fd = maps["totals_overflow"]
        self._array = bpf.MapReader(self._array_fd, 4)
        self._overflow = bpf.MapReader(self._overflow_fd, 16)
        self._cpus = cpus
        self._scratch = np.zeros((0, cpus), FLOW_TOTALS_DTYPE)
        self._last = np.zeros((SIDES, 0, _WORDS), "u8")
        self._sums = np.zeros((0, _WORDS), "u8")
        self._free_rows: list[int] = []
        self._points: dict[int, _Point] = {}
        self._slot_owner: dict[int, int] = {0: NOBODY}
        self._points[NOBODY] = _Point(NOBODY, self._take_rows())

    def _take_rows(self) -> int:
        """Two free rows, zeroed."""
        if not self._free_rows:
            rows, more = len(self._sums), max(16, len(self._sums))
            self._last = np.concatenate([self._last, np.zeros((SIDES, more, _WORDS), "u8")], axis=1)
            self._sums = np.concatenate([self._sums, np.zeros((more, _WORDS), "u8")])
            self._free_rows = list(range(rows, rows + more, 2))
        row = self._free_rows.pop()
        self._last[:, row:row + 2] = 0
        self._sums[row:row + 2] = 0
        return row

    def claim(self, ifindex: int, layer: Layer) -> None:
        """Open the books of an interface, before anything is attached to it: they tell the programs its layer.

        An interface that comes back with an ifindex seen before continues those books.

        Raises:
            OSError: ENOSPC: there is no room for the books of another layer 3 device.
        """
        point = self._points.pop(ifindex, None) or _Point(ifindex, self._take_rows())
        self._points[ifindex] = point
        point.live = True
        kept = bool(point.undrained)  # its slot was never given up, what is in there still counts
        point.undrained = set()
        if not kept:
            self._last[:, point.row:point.row + 2] = 0
            point.overflow = self._slot_owner.setdefault(ifindex % SLOTS, ifindex) != ifindex
        values = np.zeros(self._cpus, FLOW_TOTALS_DTYPE)
        for side in range(SIDES):
            for direction in Direction:
                if kept:
                    self._read(point, side, direction, values.ctypes.data)
                values["ifindex"], values["layer"] = ifindex, layer
                self._write(point, side, direction, values)

    def _write(self, point: _Point, side: int, direction: int, values: npt.NDArray[np.void]) -> None:
        if not point.overflow:
            bpf.map_update(self._array_fd, _slot(side, point.ifindex, direction), values.tobytes())
            return
        try:
            bpf.map_update(self._overflow_fd, _overflow_key(point.ifindex, direction, side), values.tobytes())
        except OSError as error:
            if error.errno not in (errno.E2BIG, errno.ENOSPC):
                raise
            # No room for its own books: the kernel books it under NOBODY, whose row says so, as an Ethernet device.
            if values["layer"][0] != Layer.ETHERNET:
                raise OSError(errno.ENOSPC, "too many interfaces") from error

    def _read(self, point: _Point, side: int, direction: int, address: int) -> bool:
        """Copy one direction's per-CPU totals to memory; False when it has none."""
        if not point.overflow:
            return self._array.read(_slot(side, point.ifindex, direction), address)
        return self._overflow.read(_overflow_key(point.ifindex, direction, side), address)

    def baseline(self, ifindex: int, direction: Direction, counters: Counters) -> None:
        """Count the interface's own counters of that direction from here on."""
        point = self._points[ifindex]
        for column in (direction, 2 + direction):
            point.counters[column] = counters[column]

    def count_interface(self, ifindex: int, direction: Direction, counters: Counters) -> None:
        """Add what the interface itself has counted in that direction since it was last asked."""
        self._points[ifindex].count_interface(direction, counters)

    def vanish(self, ifindex: int) -> None:
        """The interface is no longer observed; what its totals still hold is read with the next drain of each side."""
        point = self._points[ifindex]
        point.live, point.undrained = False, set(range(SIDES))

    def read(self, side: int, counters: Mapping[int, Counters]) -> None:
        """Add what an idle side's totals gained since they were read last, and the interfaces' own counters."""
        readable = [point for point in self._points.values() if point.live or point.undrained]
        if len(self._scratch) < 2 * len(readable):
            self._scratch = np.zeros((4 * len(readable), self._cpus), FLOW_TOTALS_DTYPE)
        rows = [row for number, point in enumerate(readable) for row in self._lookup(point, side, 2 * number)]
        words = self._scratch[:len(rows)].view("u8").reshape(len(rows), self._cpus, -1)[:, :, 1:]
        now = words.sum(axis=1, dtype="u8")
        self._sums[rows] += now - self._last[side, rows]
        self._last[side, rows] = now
        for point in readable:
            if not point.live:
                point.undrained.discard(side)
                if not point.undrained:
                    self._release(point)
            elif (mine := counters.get(point.ifindex)) is not None:
                for direction in Direction:
                    point.count_interface(direction, mine)

    def _lookup(self, point: _Point, side: int, place: int) -> tuple[int, int]:
        """Copy a point's totals to `place` and the one after it in scratch memory. Returns its rows."""
        stride = self._scratch.strides[0]
        address = self._scratch.ctypes.data + place * stride
        for direction in Direction:
            if not self._read(point, side, direction, address + direction * stride):
                self._scratch[place + direction] = 0
        return point.row, point.row + 1

    def _release(self, point: _Point) -> None:
        if point.overflow:
            for side in range(SIDES):
                for direction in Direction:
                    bpf.map_delete(self._overflow_fd, _overflow_key(point.ifindex, direction, side))
        else:
            del self._slot_owner[point.ifindex % SLOTS]
        gone = [other for other in self._points.values() if not other.live and not other.undrained]
        for old in gone[:-_KEPT_VANISHED]:
            nobody = self._points[NOBODY]
            self._sums[nobody.row:nobody.row + 2] += self._sums[old.row:old.row + 2]
            for direction in Direction:
                for unit, gained in enumerate(old.gained[direction]):
                    nobody.gained[direction][unit] += gained
            self._free_rows.append(old.row)
            del self._points[old.ifindex]

    def known(self) -> frozenset[int]:
        """Every ifindex with books of its own."""
        return frozenset(self._points)

    def nobody_counted(self) -> bool:
        """Whether anything is booked under NOBODY."""
        row = self._points[NOBODY].row
        return bool(self._sums[row:row + 2].any())

    def observations(self) -> npt.NDArray[np.void]:
        """OBSERVATION_DTYPE, shape (m,): a new array. NOBODY's rows only when there is something in them."""
        points = [point for point in self._points.values() if point.ifindex != NOBODY or self.nobody_counted()]
        found = np.zeros(2 * len(points), OBSERVATION_DTYPE)
        if not points:
            return found
        totals = np.zeros(len(found), FLOW_TOTALS_DTYPE)
        rows = [row for point in points for row in (point.row, point.row + 1)]
        totals.view("u8").reshape(len(found), -1)[:, 1:] = self._sums[rows]
        for name in _SUMS:
            found[name] = totals[name]
        found["ifindex"] = np.repeat([point.ifindex for point in points], 2)
        found["direction"] = np.tile([int(direction) for direction in Direction], len(points))
        gained = np.array([direction for point in points for direction in point.gained], "u8")
        found["interface_packets"], found["interface_octets"] = gained[:, 0], gained[:, 1]
        return found


def _slot(side: int, ifindex: int, direction: int) -> bytes:
    """Key in the totals array, as bpf/flow.bpf.c computes it."""
    return struct.pack("=I", side * 2 * SLOTS + ifindex % SLOTS * 2 + direction)


def _overflow_key(ifindex: int, direction: int, side: int) -> bytes:
    return struct.pack("=4I", ifindex, direction, side, 0)
