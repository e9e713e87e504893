"""The second set of books: per-CPU totals of every Observation Point, and the interfaces' own counters beside them."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.interfaces import Counters
from flowtop.capture.ebpf.maps import SIDES
from flowtop.model.kinds import Direction, Layer
from flowtop.model.record import FLOW_TOTALS_DTYPE, OBSERVATION_DTYPE

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
    """How many CPUs per-CPU maps have values for: the possible ones, not those online. Without /sys, those set up."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return os.sysconf("SC_NPROCESSORS_CONF")
    count = 0
    for part in text.strip().split(","):
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
        forgot: directions in which the device forgot what it had counted since then, with what the hook's own books
            held when that was noticed, (frames, octets): see `_settle`.
    """

    ifindex: int
    row: int
    overflow: bool = False
    live: bool = True
    undrained: set[int] = field(default_factory=set)
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    gained: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    forgot: dict[int, npt.NDArray[np.uint64]] = field(default_factory=dict)

    def count_interface(self, direction: int, now: Counters) -> bool:
        """Add packets and octets gained; False, and nothing added, when a counter fell: the device forgot."""
        columns = (direction, 2 + direction)
        fell = any(now[column] < self.counters[column] for column in columns)
        for unit, column in enumerate(columns):
            self.gained[direction][unit] += 0 if fell else now[column] - self.counters[column]
            self.counters[column] = now[column]
        return not fell


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
        if kept and point.forgot:
            for side in range(SIDES):
                self._add([point], side)  # nothing is attached: this is the end of what the hook saw
            self._settle(point)
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

    def count_interface(self, ifindex: int, direction: Direction, counters: Counters | None) -> None:
        """Add what the interface itself has counted in that direction since it was last asked: its last word.

        A counter that fell says nothing of the time since: a veth forgets what it received with its peer (then it says
        0, which what has received anything cannot say), a driver may start anew. Nor does an interface that left
        without a word (None). The device forgot; so the hook's own books (frames and their octets) stand in for its
        counters from the last look to the end, once they are complete.
        """
        point = self._points[ifindex]
        forgot = counters is None or not point.count_interface(direction, counters)
        if forgot or (direction == Direction.INGRESS and point.counters[direction] == 0):
            point.forgot.setdefault(direction, self._hook_counted(point, direction))

    def _hook_counted(self, point: _Point, direction: int) -> npt.NDArray[np.uint64]:
        """(frames, octets) of the hook's books so far, as the device would count them."""
        return _as_device(self._sums[point.row + direction], direction)

    def _settle(self, point: _Point) -> None:
        """Credit what the hook saw where the device forgot."""
        for direction, before in point.forgot.items():
            for unit, more in enumerate((self._hook_counted(point, direction) - before).tolist()):
                point.gained[direction][unit] += more
        point.forgot.clear()

    def vanish(self, ifindex: int) -> None:
        """The interface is no longer observed; what its totals still hold is read with the next drain of each side."""
        point = self._points[ifindex]
        point.live, point.undrained = False, set(range(SIDES))

    def read(self, side: int, counters: Mapping[int, Counters]) -> None:
        """Add what an idle side's totals gained since they were read last, and the interfaces' own counters."""
        readable = [point for point in self._points.values() if point.live or point.undrained]
        gained = self._add(readable, side)
        for number, point in enumerate(readable):
            if not point.live:
                point.undrained.discard(side)
                if not point.undrained:
                    self._release(point)
            elif (mine := counters.get(point.ifindex)) is not None:
                for direction in Direction:
                    if not point.count_interface(direction, mine):  # as in the method of that name
                        seen = _as_device(gained[2 * number + direction], direction)
                        for unit in range(2):
                            point.gained[direction][unit] += int(seen[unit])

    def _add(self, readable: list[_Point], side: int) -> npt.NDArray[np.uint64]:
        """Add what a side's totals gained since they were read last; those gains, shape (2 * points, words)."""
        if len(self._scratch) < 2 * len(readable):
            self._scratch = np.zeros((4 * len(readable), self._cpus), FLOW_TOTALS_DTYPE)
        rows = [row for number, point in enumerate(readable) for row in self._lookup(point, side, 2 * number)]
        words = self._scratch[:len(rows)].view("u8").reshape(len(rows), self._cpus, -1)[:, :, 1:]
        now = words.sum(axis=1, dtype="u8")
        gained: npt.NDArray[np.uint64] = now - self._last[side, rows]
        self._sums[rows] += gained
        self._last[side, rows] = now
        return gained

    def _lookup(self, point: _Point, side: int, place: int) -> tuple[int, int]:
        """Copy a point's totals to `place` and the one after it in scratch memory. Returns its rows."""
        stride = self._scratch.strides[0]
        address = self._scratch.ctypes.data + place * stride
        for direction in Direction:
            if not self._read(point, side, direction, address + direction * stride):
                self._scratch[place + direction] = 0
        return point.row, point.row + 1

    def _release(self, point: _Point) -> None:
        self._settle(point)
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


def _as_device(words: npt.NDArray[np.uint64], direction: int) -> npt.NDArray[np.uint64]:
    """(frames, octets) as the device counts them: with the tags it has taken off frames it received."""
    frames, octets, stripped = (words[_SUMS.index(name)] for name in ("frames", "frame_octets", "vlan_stripped_frames"))
    return np.array([frames, octets + 4 * stripped * (direction == Direction.INGRESS)], "u8")


def _slot(side: int, ifindex: int, direction: int) -> bytes:
    """Key in the totals array, as bpf/flow.bpf.c computes it."""
    return struct.pack("=I", side * 2 * SLOTS + ifindex % SLOTS * 2 + direction)


def _overflow_key(ifindex: int, direction: int, side: int) -> bytes:
    return struct.pack("=4I", ifindex, direction, side, 0)
