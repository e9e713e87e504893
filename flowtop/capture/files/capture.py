"""The file capture: reads, parses, and hands over what happened in the file's own time."""

from __future__ import annotations

import os
import select
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.entries import Observations, flow_entries
from flowtop.capture.files.fragments import FragmentJoiner
from flowtop.capture.files.frames import FrameReader, Frames, Integers
from flowtop.capture.files.internet import Packets, parse
from flowtop.capture.files.link import LINK_TYPES
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FlowBatch, SourceState

STEP_NS = 2_000_000_000
"""File time that one batch may cover: flows end between batches."""
_LIVE_NS = 60_000_000_000
"""A pipe whose newest packet is younger than this is a capture that goes on: its time goes on while it is silent."""


@dataclass(frozen=True)
class FileConfig:
    """What to read and how.

    Attributes:
        path: of the file, "-" for standard input.
        tick_s: length of a tick in the file's time; None: the whole file is one.
        speed: replay so many times as fast as it was recorded; None: as fast as it can be read.
        descriptor: of "-", where it is not standard input's.
    """

    path: str
    tick_s: float | None = 1.0
    speed: float | None = None
    descriptor: int | None = None


@dataclass(slots=True)
class _Piece:
    """Parsed packets and how far they were handed over.

    Attributes:
        clock_ns: at each packet, the latest time so far: never falls, whatever the order of the packets' own times.
        taken: packets handed over.
    """

    packets: Packets
    unjoined: npt.NDArray[np.bool_]
    clock_ns: Integers
    taken: int = 0


class FileCapture:
    """flowtop.capture.Capture of a capture file. Times are ns since 1970 UTC; batches say where ticks end.

    A tick ends every `tick_s` of the file's time, counted from its first packet. A stretch without packets that is
    longer is one tick.

    Args:
        config: what to read.
        clock_ns: monotonic, for replays.
        unix_ns: ns since 1970 UTC: tells a pipe from a running capture from one of an old file.
    """

    def __init__(self, config: FileConfig, *, clock_ns: Callable[[], int] = time.monotonic_ns,
                 unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._config = config
        self._clock_ns = clock_ns
        self._unix_ns = unix_ns
        self._step_ns = STEP_NS
        self._tick_ns: int | None = None
        if config.tick_s is not None:
            steps = -(-round(config.tick_s * 1e9) // STEP_NS)
            self._step_ns = round(config.tick_s * 1e9) // steps
            self._tick_ns = self._step_ns * steps
        self._resources = ExitStack()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._wake_fd)
        self._reader: FrameReader | None = None
        self._joiner = FragmentJoiner()
        self._observations = Observations()
        self._piece: _Piece | None = None
        self._names: dict[int, str] = {}
        self._start_ns = self._boundary_ns = self._now_ns = 0
        self._latest_ns = -1
        self._ticks = 0
        self._started_ns = self._arrived_ns = 0
        self._live = False
        self._ended = False
        self._fault: FlowtopError | None = None
        self._unread_link_types: set[int] = set()

    def open(self, progress: Callable[[str], None]) -> None:
        """See Capture.open. A pipe may not have said yet what it is: that comes with `drain` then."""
        progress(f"reading {self._config.path}")
        self._stream = OctetStream(self._config.path, self._config.descriptor)
        self._resources.callback(self._stream.close)
        try:
            if self._stream.octets_total is not None:
                self._identify()
        except BaseException:
            self._resources.close()
            raise

    # ---- waiting

    def wait(self, timeout_s: float) -> None:
        """See Capture.wait: until there is something to drain, which in a replay is when its time has come."""
        due_s = self._due_s()
        watched = [self._wake_fd]
        if due_s is None and not self._ended and not self._stream.ready:
            watched.append(self._stream.fileno())
        elif due_s is None and not self._ended:
            due_s = 0.0
        ready = select.select(watched, [], [], timeout_s if due_s is None else min(timeout_s, due_s))[0]
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)

    def _due_s(self) -> float | None:
        """Until the next batch of the piece in hand may be drained; None: there is none in hand."""
        if self._piece is None:
            return None
        if self._config.speed is None:
            return 0.0
        next_ns = min(self._boundary_ns, int(self._piece.clock_ns[-1])) - self._start_ns
        return max(0.0, (self._started_ns + next_ns / self._config.speed - self._clock_ns()) / 1e9)

    def wake(self) -> None:
        """See Capture.wake."""
        try:
            os.eventfd_write(self._wake_fd, 1)
        except BlockingIOError:
            return  # 2**64 - 2 wakes that nobody has read yet: one more says nothing new

    # ---- draining

    def drain(self) -> FlowBatch:
        """See Capture.drain. Raises FlowtopError when a pipe turns out to bring no capture."""
        if self._piece is None and not self._ended:
            self._read()
            if self._due_s():
                return self._batch(closes_tick=False)  # a replay's packets, whose time has not come
        if self._piece is None:
            if self._ended:
                return self._batch(closes_tick=True)
            return self._pass_time()
        return self._next_batch(self._piece)

    def _next_batch(self, piece: _Piece) -> FlowBatch:
        """Packets of the open step."""
        stop = int(np.searchsorted(piece.clock_ns, self._boundary_ns, "left"))
        start, piece.taken = piece.taken, stop
        if stop == len(piece.clock_ns):
            self._piece = None
            self._now_ns = int(piece.clock_ns[-1])
            closes_tick = False
        else:
            closes_tick = self._close_step(int(piece.clock_ns[stop]))
        keys, counters = flow_entries(piece.packets, start, stop)
        self._observations.add(piece.packets, piece.unjoined, start, stop)
        return self._batch(closes_tick, keys, counters)

    def _close_step(self, next_ns: int) -> bool:
        """The step is over, the next packet comes at `next_ns` or later; whether that ends a tick."""
        self._now_ns = self._boundary_ns
        whole_steps = (next_ns - self._start_ns) // self._step_ns * self._step_ns + self._start_ns
        skip = self._config.speed is None and whole_steps > self._boundary_ns
        self._boundary_ns = whole_steps if skip else self._boundary_ns + self._step_ns
        if self._tick_ns is None:
            return False
        ticks, self._ticks = self._ticks, (self._now_ns - self._start_ns) // self._tick_ns
        return self._ticks > ticks

    def _pass_time(self) -> FlowBatch:
        """No packet has come. A running capture's time goes on all the same."""
        now_ns = self._latest_ns + self._clock_ns() - self._arrived_ns
        if self._live and now_ns >= self._boundary_ns:
            return self._batch(self._close_step(now_ns))
        return self._batch(closes_tick=False)

    def _batch(self, closes_tick: bool, keys: npt.NDArray[np.void] | None = None,
               counters: npt.NDArray[np.void] | None = None) -> FlowBatch:
        return FlowBatch(
            np.zeros(0, FLOW_KEY_DTYPE) if keys is None else keys,
            np.zeros(0, FLOW_COUNTERS_DTYPE) if counters is None else counters,
            self._observations.rows(), self._now_ns, 0, self._names, tuple(sorted(set(self._names.values()))),
            SourceState(closes_tick, self._ended and self._piece is None, self._stream.octets_read,
                        self._stream.octets_total, self._fault))

    def close(self) -> FlowBatch:
        """See Capture.close. What was not drained was not observed."""
        self._resources.close()
        self._piece = None
        return self._batch(closes_tick=True)

    # ---- reading

    def _read(self) -> None:
        """The next piece, if there is one and it can be had without waiting; else note the end."""
        try:
            frames = self._frames()
        except DamagedError as error:
            self._end(str(error))
            return
        if frames is not None:
            self._take(frames)
        elif self._stream.at_end:
            self._end("")

    def _frames(self) -> Frames | None:
        while True:
            if self._reader is None:
                if not self._stream.at_end and not self._stream.ready:
                    return None
                self._identify()
            elif (frames := self._reader.read(self._stream)) is not None:
                return frames
            elif self._stream.at_end or not self._stream.ready:
                return None
            else:
                self._stream.fill()

    def _identify(self) -> None:
        """Tell the format from the first octets. Raises FlowtopError: none that is read here."""
        stream = self._stream
        try:
            stream.fill()
            head = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
            if len(head) < HEADER_OCTETS and not stream.at_end:
                return
            name = "stdin" if self._config.path == "-" else Path(self._config.path).name
            if pcap_order(head):
                self._reader = PcapReader(stream, name)
                self._require(self._reader.interfaces[0].link_type)
            elif is_pcapng(head):
                self._reader = PcapngReader(name)
            else:
                what = "is not a capture file" if head else "is empty"
                raise FlowtopError(f"{stream.name} {what}", hint="-r reads pcap and pcapng, gzipped too",
                                   exit_code=EXIT_DAMAGED)
        except DamagedError as error:
            raise FlowtopError(f"{stream.name} {error}", hint="nothing of it could be read",
                               exit_code=EXIT_DAMAGED) from error

    def _require(self, link_type: int) -> None:
        if link_type not in LINK_TYPES:
            raise FlowtopError(f"{self._stream.name} has link type {link_type}, which is not read here",
                               hint=_LINK_TYPES_HINT, exit_code=EXIT_DAMAGED)

    def _take(self, frames: Frames) -> None:
        """Parse."""
        self._names = {number + 1: interface.name for number, interface in enumerate(frames.interfaces)}
        for number in np.unique(frames.interface).tolist():
            if (link_type := frames.interfaces[number].link_type) not in LINK_TYPES:
                self._unread_link_types.add(link_type)
        packets = parse(frames)
        if self._latest_ns < 0:
            self._start(int(frames.time_ns[0]))
        clock_ns = np.maximum(np.maximum.accumulate(frames.time_ns), self._latest_ns)
        self._latest_ns = int(clock_ns[-1])
        self._arrived_ns = self._clock_ns()
        self._live = self._stream.octets_total is None and abs(self._unix_ns() - self._latest_ns) < _LIVE_NS
        self._piece = _Piece(packets, self._joiner.join(packets), clock_ns)

    def _start(self, first_ns: int) -> None:
        """The first packet: the file's time begins."""
        self._start_ns = self._now_ns = first_ns
        self._boundary_ns = first_ns + self._step_ns
        self._started_ns = self._clock_ns()

    def _end(self, damage: str) -> None:
        self._ended = True
        name = Path(self._stream.name).name  # there may be little room to say it in
        if damage:
            self._fault = FlowtopError(f"{name} {damage}", hint="what stands before that is counted",
                                       exit_code=EXIT_DAMAGED)
        elif self._unread_link_types:
            numbers = ", ".join(map(str, sorted(self._unread_link_types)))
            self._fault = FlowtopError(f"{name} has frames of link type {numbers}, which count as ignored",
                                       hint=_LINK_TYPES_HINT, exit_code=EXIT_DAMAGED)


_LINK_TYPES_HINT = "read are Ethernet, Linux cooked v1 and v2, raw IP, null and loopback"
