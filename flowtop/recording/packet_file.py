"""A growing pcapng file: every write ends with a complete block, so it can be read at any time."""

from __future__ import annotations

import fcntl
import os
import platform
import select
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowtop import __version__
from flowtop.errors import EXIT_USAGE, FlowtopError, output_hint
from flowtop.files import FILE_IN_USE, FileInUse, OutputFile, open_output, undo_output
from flowtop.model.kinds import Direction
from flowtop.model.packets import PacketBatch, PacketInterface
from flowtop.recording import pcapng
from flowtop.recording.notes import Comments
from flowtop.recording.pcapng import Integers

_POLL_MS = 100


@dataclass(frozen=True, slots=True)
class InterfaceCounts:
    """Counts of the selected packets of one interface."""

    matched: int
    dropped: int
    written: int


class PacketFile:
    """A pcapng file being written.

    Args:
        path: path of the file, or "-" for standard output.
        snap: maximum octets per frame.
        owner: user and group as whom it is opened, see files.open_output; None: as this process.
        new: fail if the file exists; otherwise an existing file is renamed.
        directory: descriptor of the path's directory, open as long as the file is; None: it is found by its name.
        wall: clock, seconds since 1970 UTC.

    Attributes:
        octets: octets written so far; may include a part of a block if the reader of a pipe has closed it.
        packets: complete packets written so far.
        regular: whether a failed write leaves nothing in the file, so that a smaller one may be tried.

    Raises FlowtopError (EXIT_USAGE): the file cannot be written.
    """

    def __init__(self, path: str, snap: int, owner: tuple[int, int] | None = None, *, new: bool = False,
                 directory: int | None = None, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._place = Path(path) if directory is None else Path("/proc/self/fd", str(directory), Path(path).name)
        self._snap = snap
        self._owner = owner
        self._wall = wall
        self._interfaces: dict[tuple[int, PacketInterface], int] = {}
        self._give_up_at: float | None = None
        self._output: OutputFile | None = None
        self.octets = self.packets = 0
        try:
            self._descriptor = self._open(new)
            self._identity = os.fstat(self._descriptor)
            self.regular = stat.S_ISREG(self._identity.st_mode)
            self._start = self._first_place() if self.regular else 0
        except FileExistsError:
            raise FlowtopError(f"{path} exists already", hint="use another name", exit_code=EXIT_USAGE) from None
        except FileInUse as error:
            raise FlowtopError(f"cannot write {path}: {FILE_IN_USE}", hint="use another file, or end that first",
                               exit_code=EXIT_USAGE) from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise FlowtopError(f"cannot write {path}: {_reason(error)}", exit_code=EXIT_USAGE,
                               hint=output_hint(_reason(error))) from error

    def _first_place(self) -> int:
        """Start offset of the data: standard output may be a file that is not empty."""
        appends = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_APPEND
        return os.lseek(self._descriptor, 0, os.SEEK_END if appends else os.SEEK_CUR)

    def _open(self, new: bool) -> int:
        if self._path == "-":
            return os.dup(1)
        self._output = open_output(self._place, self._wall, self._owner, new=new)
        return self._output.descriptor

    def begin(self) -> None:
        """Write the section header. Raises OSError."""
        system = os.uname()
        self._write(pcapng.section_header(platform.machine(), f"{system.sysname} {system.release}",
                                          f"flowtop {__version__}"))

    def cut(self, captured: Integers) -> Integers:
        """Octets of each frame that are written."""
        return np.minimum(captured, self._snap)

    def write(self, packets: PacketBatch, rows: Integers, comments: Comments) -> None:
        """Write these packets of a batch.

        Args:
            comments: of all its packets.

        Raises OSError: none were written to a regular file, the first ones to a pipe.
        """
        keys = packets.keys[rows]
        numbers = self._numbers(keys["ifindex"].astype(np.int64), packets.interfaces)
        captured = self.cut(packets.captured[rows])
        blocks = pcapng.enhanced_packets(pcapng.PacketBlocks(
            octets=packets.octets, offset=packets.offset[rows], captured=captured,
            wire=packets.wire[rows], time_ns=packets.time_ns[rows], interface=numbers,
            direction=np.where(keys["direction"] == Direction.EGRESS, pcapng.OUTBOUND,
                               packets.received[rows] * pcapng.INBOUND),
            comments=comments.options, comment=comments.which[rows]))
        ends = np.cumsum(pcapng.packet_octets(captured, comments.octets(rows))) + self.octets
        try:
            self._write(blocks)
        finally:
            self.packets += int(np.searchsorted(ends, self.octets, "right"))

    def write_names(self, names: Mapping[bytes, str], most_octets: int) -> None:
        """Write names of addresses, see pcapng.name_resolution, unless the file has no room for them. Raises OSError.

        Args:
            most_octets: maximum size of the file with what `finish` writes; 0: no limit.
        """
        block = pcapng.name_resolution(names)
        end = self.octets + len(block) + len(self._interfaces) * pcapng.INTERFACE_STATISTICS_OCTETS
        if not most_octets or end <= most_octets:
            self._write(block)

    def octets_beside(self, packets: PacketBatch, rows: Integers) -> int:
        """Octets of the file other than packets, if these are written: interface blocks before and after them."""
        described = set(self._interfaces)
        described.update((ifindex, packets.interfaces[ifindex])
                         for ifindex in np.unique(packets.keys["ifindex"][rows]).tolist())
        new = described.difference(self._interfaces)
        return (len({ifindex for ifindex, _ in described}) * pcapng.INTERFACE_STATISTICS_OCTETS
                + sum(len(self._description(interface)) for _, interface in new))

    def _description(self, interface: PacketInterface) -> bytes:
        return pcapng.interface_description(interface.name, interface.link_type, self._snap)

    def _numbers(self, ifindexes: Integers, interfaces: Mapping[int, PacketInterface]) -> Integers:
        """Numbers of the packets' interface descriptions; new ones are written before their first packet."""
        indexes, places = np.unique(ifindexes, return_inverse=True)
        numbers = []
        for ifindex in indexes.tolist():
            interface = interfaces[ifindex]
            if (ifindex, interface) not in self._interfaces:
                self._write(self._description(interface))
                self._interfaces[ifindex, interface] = len(self._interfaces)
            numbers.append(self._interfaces[ifindex, interface])
        result: Integers = np.array(numbers, np.int64)[places.reshape(-1)]
        return result

    def finish(self, counts: Mapping[int, InterfaceCounts]) -> None:
        """Write statistics by ifindex, and close. Raises OSError; the file is closed in any case."""
        try:
            last = {ifindex: number for (ifindex, _), number in self._interfaces.items()}
            for ifindex, number in last.items():
                count = counts[ifindex]
                self._write(pcapng.interface_statistics(
                    number, round(self._wall() * 1e9), matched=count.matched, dropped=count.dropped,
                    written=count.written))
            if self.regular:
                os.fsync(self._descriptor)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close the file and undo its creation: nothing was recorded."""
        self.close()
        if self._output is not None:
            undo_output(self._output, self._identity, self._place, self._owner)

    def hurry(self, seconds: float) -> None:
        """Limit waiting for a blocked reader to `seconds` from now. Thread-safe, and for signal handlers."""
        self._give_up_at = time.monotonic() + seconds

    def _write(self, octets: bytes | memoryview) -> None:
        """Write everything or, to a regular file, nothing."""
        left = memoryview(octets)
        try:
            while left:
                left = left[self._write_some(left):]
        except OSError:
            if self.regular:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self._start + self.octets)
                    os.lseek(self._descriptor, self._start + self.octets, os.SEEK_SET)
            else:
                self.octets += len(octets) - len(left)
            raise
        self.octets += len(octets)

    def _write_some(self, octets: memoryview) -> int:
        if self.regular:
            return os.write(self._descriptor, octets)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while not poll.poll(_POLL_MS):
            if self._give_up_at is not None and time.monotonic() > self._give_up_at:
                raise TimeoutError(0, "timed out waiting for its reader")
        # A pipe that polls as writable takes this many octets at once.
        return os.write(self._descriptor, octets[:select.PIPE_BUF])


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
