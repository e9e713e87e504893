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
from flowtop.record import FLOW_TOTALS_DTYPE, OBSERVATION_DTYPE, Direction

SLOTS = 512
"""Interfaces with a slot of their own in the totals array; more of them go through totals_overflow."""

_SUMS = tuple(name for name in FLOW_TOTALS_DTYPE.names or () if name not in ("ifindex", "pad"))
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


@dataclass
class _Point:
    """The books of one interface; arrays have a row per direction.

    Attributes:
        overflow: its totals live in the hash map, not in its array slot.
        last: what was read before: side, direction, word.
        undrained: sides that may still hold something of it; empty once its slot was given up.
    """

    ifindex: int
    overflow: bool = False
    live: bool = True
    last: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((SIDES, 2, _WORDS), "u8"))
    total: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((2, _WORDS), "u8"))
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    interface: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros((2, 2), "u8"))
    undrained: set[int] = field(default_factory=set)


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
        self._value = np.zeros(cpus, FLOW_TOTALS_DTYPE)
        self._words = self._value.view("u8").reshape(cpus, -1)[:, 1:]
        self._points: dict[int, _Point] = {NOBODY: _Point(NOBODY)}
        self._slot_owner: dict[int, int] = {0: NOBODY}

    def claim(self, ifindex: int) -> None:
        """Open the books of an interface, before anything is attached to it.

        An interface that comes back with an ifindex seen before continues those books.
        """
        point = self._points.pop(ifindex, None) or _Point(ifindex)
        self._points[ifindex] = point
        point.live = True
        if point.undrained:  # its slot was never given up, what is in there still counts
            point.undrained = set()
            return
        point.last[:] = 0
        point.overflow = self._slot_owner.setdefault(ifindex % SLOTS, ifindex) != ifindex
        self._value[:] = 0
        self._value["ifindex"] = ifindex
        for side in range(SIDES):
            for direction in Direction:
                self._write(point, side, direction)

    def _write(self, point: _Point, side: int, direction: int) -> None:
        if not point.overflow:
            bpf.map_update(self._array_fd, _slot(side, point.ifindex, direction), self._value.tobytes())
            return
        try:
            bpf.map_update(self._overflow_fd, _overflow_key(point.ifindex, direction, side), self._value.tobytes())
        except OSError as error:
            if error.errno not in (errno.E2BIG, errno.ENOSPC):
                raise
            # No room for its own books: the kernel books it under NOBODY, whose row says so.

    def baseline(self, ifindex: int, direction: Direction, counters: Counters) -> None:
        """Count the interface's own counters of that direction from here on."""
        point = self._points[ifindex]
        for column in (direction, 2 + direction):
            point.counters[column] = counters[column]

    def count_interface(self, ifindex: int, direction: Direction, counters: Counters) -> None:
        """Add what the interface itself has counted in that direction since it was last asked."""
        _count_interface(self._points[ifindex], direction, counters)

    def vanish(self, ifindex: int) -> None:
        """The interface is no longer observed; what its totals still hold is read with the next drain of each side."""
        point = self._points[ifindex]
        point.live, point.undrained = False, set(range(SIDES))

    def read(self, side: int, counters: Mapping[int, Counters]) -> None:
        """Add what an idle side's totals gained since they were read last, and the interfaces' own counters."""
        for point in list(self._points.values()):
            if not (point.live or point.undrained):
                continue
            for direction in Direction:
                self._add(point, side, direction)
                if point.live and point.ifindex in counters:
                    _count_interface(point, direction, counters[point.ifindex])
            if not point.live:
                point.undrained.discard(side)
                if not point.undrained:
                    self._release(point)

    def _add(self, point: _Point, side: int, direction: int) -> None:
        address = self._value.ctypes.data
        if point.overflow:
            if not bpf.map_lookup(self._overflow_fd, _overflow_key(point.ifindex, direction, side), address):
                return
        else:
            bpf.map_lookup(self._array_fd, _slot(side, point.ifindex, direction), address)
        now = self._words.sum(axis=0, dtype="u8")
        point.total[direction] += now - point.last[side, direction]
        point.last[side, direction] = now

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
            nobody.total += old.total
            nobody.interface += old.interface
            del self._points[old.ifindex]

    def known(self) -> frozenset[int]:
        """Every ifindex with books of its own."""
        return frozenset(self._points)

    def nobody_counted(self) -> bool:
        """Whether anything is booked under NOBODY."""
        return bool(self._points[NOBODY].total.any())

    def observations(self) -> npt.NDArray[np.void]:
        """OBSERVATION_DTYPE, shape (m,): a new array. NOBODY's rows only when there is something in them."""
        points = [point for point in self._points.values() if point.ifindex != NOBODY or self.nobody_counted()]
        rows = np.zeros(2 * len(points), OBSERVATION_DTYPE)
        if not points:
            return rows
        sums = np.zeros(len(rows), FLOW_TOTALS_DTYPE)
        sums.view("u8").reshape(len(rows), -1)[:, 1:] = np.concatenate([point.total for point in points])
        for name in _SUMS:
            rows[name] = sums[name]
        rows["ifindex"] = np.repeat([point.ifindex for point in points], 2)
        rows["direction"] = np.tile([int(direction) for direction in Direction], len(points))
        interface = np.concatenate([point.interface for point in points])
        rows["interface_packets"], rows["interface_octets"] = interface[:, 0], interface[:, 1]
        return rows


def _slot(side: int, ifindex: int, direction: int) -> bytes:
    """Key in the totals array, as bpf/flow.bpf.c computes it."""
    return struct.pack("=I", side * 2 * SLOTS + ifindex % SLOTS * 2 + direction)


def _overflow_key(ifindex: int, direction: int, side: int) -> bytes:
    return struct.pack("=4I", ifindex, direction, side, 0)


def _count_interface(point: _Point, direction: int, now: Counters) -> None:
    """Packets and octets gained. A counter that fell was reset by its driver: it counts from zero."""
    for unit, column in enumerate((direction, 2 + direction)):
        new, old = now[column], point.counters[column]
        point.interface[direction, unit] += np.uint64(new - old if new >= old else new)
        point.counters[column] = new
