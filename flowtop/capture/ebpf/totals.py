"""Totals per Observation Point, independent of the flow maps, and the counters of the interfaces."""

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
from flowtop.model.record import FLOW_TOTALS_DTYPE, FLOW_TOTALS_SUMS, OBSERVATION_DTYPE

SLOTS = 512
"""Number of interfaces with a slot in the totals array; further ones use totals_overflow."""

_FRAMES, _PACKETS = FLOW_TOTALS_SUMS.index("frames"), FLOW_TOTALS_SUMS.index("packets")
_FEW = 16
"""Packets too few to ask why they were not seen."""
_WORDS = sum(FLOW_TOTALS_DTYPE[name].itemsize for name in FLOW_TOTALS_SUMS) // 8
"""Number of 64-bit sums at the end of struct flow_totals."""
_KEPT_VANISHED = 1024
"""Number of removed interfaces whose totals are kept; older ones are added to ifindex 0, which bounds memory."""
UNASSIGNED = 0
"""The ifindex of totals of packets whose interface has no slot."""


def possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    """Number of possible CPUs, for which per-CPU maps have values. Without /sys, the number of configured ones."""
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
    """Totals of one interface.

    Attributes:
        row: its row for ingress in the arrays of `Totals`; the next row is for egress.
        overflow: its totals are in the hash map, not in an array slot.
        undrained: sides that may still hold data of a removed interface; empty once its slot is free.
        counters: the interface's counters at the last reading.
        compared: directions whose counters are of what the hooks see.
        gained: increase of these counters: by direction, [packets, octets].
        missing: by direction, packets that these have in addition to those seen, since the hook was attached.
        forgot: directions in which the device lost its counters since the last reading, with the hook's (frames,
            octets) at that time: see `_settle`.
    """

    ifindex: int
    row: int
    overflow: bool = False
    live: bool = True
    undrained: set[int] = field(default_factory=set)
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    compared: set[int] = field(default_factory=set)
    gained: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    missing: list[int] = field(default_factory=lambda: [0, 0])
    forgot: dict[int, npt.NDArray[np.uint64]] = field(default_factory=dict)

    def count_interface(self, direction: int, now: Counters) -> bool:
        """Add the increase of the counters. Returns False and adds nothing if a counter fell: the device was reset."""
        columns = (direction, 2 + direction)
        fell = any(now[column] < self.counters[column] for column in columns)
        for unit, column in enumerate(columns):
            self.gained[direction][unit] += 0 if fell else now[column] - self.counters[column]
            self.counters[column] = now[column]
        return not fell


    def lacks(self, direction: int, counted: int, seen: npt.NDArray[np.uint64]) -> bool:
        """Note what was counted and seen since the last reading.

        Returns whether so much was not seen that it is not on its way.
        """
        frames, packets = int(seen[_FRAMES]), int(seen[_PACKETS])
        self.missing[direction] += counted - min(frames, packets, key=lambda found: abs(found - counted))
        gained, _ = self.gained[direction]
        on_their_way = _FEW + counted // 4 + gained // 200
        return self.missing[direction] > on_their_way


class Totals:
    """Reads struct flow_totals per side and adds the increase to cumulative observations.

    The kernel's totals are not reset while an interface is observed; the difference to the last reading is added.

    Args:
        maps: file descriptors by name: totals and totals_overflow.
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
        self._slot_owner: dict[int, int] = {0: UNASSIGNED}
        self._points[UNASSIGNED] = _Point(UNASSIGNED, self._take_rows())

    def _take_rows(self) -> int:
        """Two free rows, set to zero."""
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
        """Open the totals of an interface. Call it before attaching: the programs read its layer from them.

        An interface that returns with a known ifindex continues its totals.

        Raises:
            OSError: ENOSPC: no room for the totals of another layer 3 device.
        """
        point = self._points.pop(ifindex, None) or _Point(ifindex, self._take_rows())
        self._points[ifindex] = point
        point.live = True
        kept = bool(point.undrained)  # its slot is still in use, with valid data
        if kept and point.forgot:
            for side in range(SIDES):
                self._add([point], side)  # nothing is attached: the hook's totals are final
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
            # No room: the kernel counts this interface under UNASSIGNED, whose layer is Ethernet.
            if values["layer"][0] != Layer.ETHERNET:
                raise OSError(errno.ENOSPC, "too many interfaces") from error

    def _read(self, point: _Point, side: int, direction: int, address: int) -> bool:
        """Copy one direction's per-CPU totals to memory; False if there are none."""
        if not point.overflow:
            return self._array.read(_slot(side, point.ifindex, direction), address)
        return self._overflow.read(_overflow_key(point.ifindex, direction, side), address)

    def baseline(self, ifindex: int, direction: Direction, counters: Counters | None) -> None:
        """Start counting the increase of the interface's counters in that direction; None: do not count it."""
        point = self._points[ifindex]
        point.missing[direction] = 0
        if counters is None:
            point.compared.discard(direction)
            return
        point.compared.add(direction)
        for column in (direction, 2 + direction):
            point.counters[column] = counters[column]

    def count_interface(self, ifindex: int, direction: Direction, counters: Counters | None) -> None:
        """Add the increase of the interface's counters in that direction; called before detaching.

        If a counter fell, or the interface disappeared without a notification (None), the increase is unknown. A veth,
        for example, loses its receive counters with its peer (they become 0), and a driver may reset. Then the hook's
        own frames and octets since the last reading are used instead, once they are complete.
        """
        point = self._points[ifindex]
        if direction not in point.compared:
            return
        forgot = counters is None or not point.count_interface(direction, counters)
        if forgot or (direction == Direction.INGRESS and point.counters[direction] == 0):
            point.forgot.setdefault(direction, self._hook_counted(point, direction))

    def _hook_counted(self, point: _Point, direction: int) -> npt.NDArray[np.uint64]:
        """(frames, octets) counted by the hook so far, as the device would count them."""
        return _as_device(self._sums[point.row + direction], direction)

    def _settle(self, point: _Point) -> None:
        """Add the hook's counts where the device lost its counters."""
        for direction, before in point.forgot.items():
            for unit, more in enumerate((self._hook_counted(point, direction) - before).tolist()):
                point.gained[direction][unit] += more
        point.forgot.clear()

    def vanish(self, ifindex: int) -> None:
        """The interface is no longer observed; the rest of its totals is read with the next drain of each side."""
        point = self._points[ifindex]
        point.live, point.undrained = False, set(range(SIDES))

    def read(self, side: int, counters: Mapping[int, Counters]) -> list[tuple[int, Direction]]:
        """Add the increase of an idle side's totals and of the interfaces' counters since the last reading.

        Returns (ifindex, direction) where clearly fewer packets were seen than the interface has counted.
        """
        short = []
        readable = [point for point in self._points.values() if point.live or point.undrained]
        gained = self._add(readable, side)
        for number, point in enumerate(readable):
            if not point.live:
                point.undrained.discard(side)
                if not point.undrained:
                    self._release(point)
            elif (mine := counters.get(point.ifindex)) is not None:
                for direction in map(Direction, point.compared):
                    seen = gained[2 * number + direction]
                    before = point.gained[direction][0]
                    if not point.count_interface(direction, mine):  # see the method of that name
                        for unit, amount in enumerate(_as_device(seen, direction).tolist()):
                            point.gained[direction][unit] += amount
                    elif point.lacks(direction, point.gained[direction][0] - before, seen):
                        short.append((point.ifindex, direction))
        return short

    def _add(self, readable: list[_Point], side: int) -> npt.NDArray[np.uint64]:
        """Add the increase of a side's totals since the last reading; returns it, shape (2 * points, words)."""
        if len(self._scratch) < 2 * len(readable):
            self._scratch = np.zeros((4 * len(readable), self._cpus), FLOW_TOTALS_DTYPE)
        rows = [row for number, point in enumerate(readable) for row in self._lookup(point, side, 2 * number)]
        words = self._scratch[:len(rows)].view("u8").reshape(len(rows), self._cpus, -1)[:, :, -_WORDS:]
        now = words.sum(axis=1, dtype="u8")
        gained: npt.NDArray[np.uint64] = now - self._last[side, rows]
        self._sums[rows] += gained
        self._last[side, rows] = now
        return gained

    def _lookup(self, point: _Point, side: int, place: int) -> tuple[int, int]:
        """Copy a point's totals to `place` and `place` + 1 in scratch memory. Returns its rows."""
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
            unassigned = self._points[UNASSIGNED]
            self._sums[unassigned.row:unassigned.row + 2] += self._sums[old.row:old.row + 2]
            for direction in Direction:
                for unit, gained in enumerate(old.gained[direction]):
                    unassigned.gained[direction][unit] += gained
            self._free_rows.append(old.row)
            del self._points[old.ifindex]

    def known(self) -> frozenset[int]:
        """Every ifindex with totals of its own."""
        return frozenset(self._points)

    def unassigned_counted(self) -> bool:
        """Whether any packets are counted under UNASSIGNED."""
        row = self._points[UNASSIGNED].row
        return bool(self._sums[row:row + 2].any())

    def observations(self) -> npt.NDArray[np.void]:
        """OBSERVATION_DTYPE, shape (m,): a new array. Rows of UNASSIGNED only if they are not zero."""
        points = [point for point in self._points.values() if point.ifindex != UNASSIGNED or self.unassigned_counted()]
        observations = np.zeros(2 * len(points), OBSERVATION_DTYPE)
        if not points:
            return observations
        totals = np.zeros(len(observations), FLOW_TOTALS_DTYPE)
        rows = [row for point in points for row in (point.row, point.row + 1)]
        totals.view("u8").reshape(len(observations), -1)[:, -_WORDS:] = self._sums[rows]
        for name in FLOW_TOTALS_SUMS:
            observations[name] = totals[name]
        observations["ifindex"] = np.repeat([point.ifindex for point in points], 2)
        observations["direction"] = np.tile([int(direction) for direction in Direction], len(points))
        gained = np.array([direction for point in points for direction in point.gained], "u8")
        observations["interface_packets"], observations["interface_octets"] = gained[:, 0], gained[:, 1]
        observations["compared"] = [direction in point.compared for point in points for direction in Direction]
        return observations


def _as_device(words: npt.NDArray[np.uint64], direction: int) -> npt.NDArray[np.uint64]:
    """(frames, octets) as the device counts them: received frames with the VLAN tags it has stripped."""
    frames, octets, stripped = (words[FLOW_TOTALS_SUMS.index(name)]
                                for name in ("frames", "frame_octets", "vlan_stripped_frames"))
    return np.array([frames, octets + 4 * stripped * (direction == Direction.INGRESS)], "u8")


def _slot(side: int, ifindex: int, direction: int) -> bytes:
    """Key in the totals array, as computed by bpf/flow.bpf.c."""
    return struct.pack("=I", side * 2 * SLOTS + ifindex % SLOTS * 2 + direction)


def _overflow_key(ifindex: int, direction: int, side: int) -> bytes:
    return struct.pack("=4I", ifindex, direction, side, 0)
