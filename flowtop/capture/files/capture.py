"""The file capture: reads and parses a file, and returns batches in the file's own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowtop.capture.files.formats import PacketReader, Reader, identify
from flowtop.capture.files.names import FileNames
from flowtop.capture.files.octets import DamagedError, OctetStream, readable
from flowtop.capture.files.pieces import PacketPiece, Piece
from flowtop.capture.packets.entries import Entries
from flowtop.capture.packets.frames import Integers
from flowtop.capture.protocol import Wake
from flowtop.errors import EXIT_DAMAGED, EXIT_USAGE, FlowtopError
from flowtop.model.names_seen import NAMES
from flowtop.model.packets import PacketRequest
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch, SourceState, Steps
from flowtop.model.tunnel_ports import TunnelPorts


class PacketOutlet:
    """Delays packets until the batch they belong to is in the flow table, where their flows can be looked up.

    Any thread may call `set_request`; the other methods are for the capture's thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request: PacketRequest | None = None
        self._held: tuple[Piece, int, int] | None = None
        self._over = False

    def set_request(self, request: PacketRequest | None) -> None:
        """Write packets to this request's sink from now on; None: stop.

        Raises FlowtopError: the file has been read completely.
        """
        with self._lock:
            if request is not None and self._over:
                raise FlowtopError("the file has been read to its end", exit_code=EXIT_USAGE,
                                   hint="start again with -w")
            self._request = request

    @property
    def active(self) -> bool:
        """Whether packets are being written."""
        return self._request is not None

    def hold(self, piece: Piece, start: int, stop: int) -> None:
        """Keep the packets `start` to `stop` of a piece, which are in the batch that is being returned."""
        self._held = piece, start, stop

    def flush(self, *, ended: bool) -> None:
        """Write the packets of the last batch, which is in the flow table now, before the buffer is reused.

        Args:
            ended: no packets follow.

        Raises FlowtopError: the file has flow records, not packets.
        """
        with self._lock:
            held, self._held = self._held, None
            self._over = self._over or ended
            request = self._request
            if request is None:
                return
            if held is not None:
                packets = held[0].packets_between(held[1], held[2])
                if packets is None:
                    raise FlowtopError("there are no packets in this file, only flow records", exit_code=EXIT_USAGE,
                                       hint="packets can be written from pcap and pcapng files")
                request.sink.write(packets)
            if ended:
                request.sink.finish()


LEAST_STEPS = 8
"""Minimum number of steps per batch; with fewer, combining gains little."""
MOST_STEPS = 1_000
"""Maximum number of steps per batch, so that a run can be interrupted if they have to be processed one by one."""
MOST_PACKETS = 1_000
"""Maximum average of packets per step; with more, combining gains little."""


class Stretch(NamedTuple):
    """The rest of a piece, or its first part, with the steps that separate batches would have.

    Attributes:
        now_ns: the time of each of these batches.
        step: index of each packet's batch.
        boundary_ns: end of the step that is open afterwards.
    """

    now_ns: Integers
    step: Integers
    boundary_ns: int

    def steps(self, piece: PacketPiece, start: int, entry: Integers) -> Steps:
        """The steps of the combined batch.

        Args:
            start: index of the first packet.
            entry: step of each entry.
        """
        ignored = self.now_ns[self.step[piece.ignored(start, start + len(self.step))]].tolist()
        return Steps(self.now_ns, entry, (ignored[0], ignored[-1]) if ignored else (0, 0))


def stretch(clock_ns: Integers, start_ns: int, boundary_ns: int, step_ns: int) -> Stretch | None:
    """Divide packets into steps; None if there are too few steps, or too many packets per step.

    A step ends where the next one begins. If steps without packets follow, there are two batches: one at the step's
    end, one where the next step with packets begins. The last step of a piece, which continues in the next piece, ends
    with its last packet.

    Args:
        clock_ns: time of each packet, never decreasing.
        start_ns: start of the file's time.
        boundary_ns: end of the open step.
        step_ns: length of a step.
    """
    open_step = (boundary_ns - start_ns) // step_ns - 1
    if len(clock_ns) > MOST_PACKETS * ((int(clock_ns[-1]) - start_ns) // step_ns - open_step + 1):
        return None
    numbers = np.maximum((clock_ns - start_ns) // step_ns, open_step)
    changes = np.diff(numbers, prepend=open_step)
    at = np.flatnonzero(changes)[:MOST_STEPS]  # the first packets of all steps but the open one
    if len(at) < LEAST_STEPS:
        return None
    skips = changes[at] > 1
    following, whole = numbers[at], len(at) < MOST_STEPS
    batches = np.zeros(len(clock_ns) if whole else int(at[-1]), np.int64)
    batches[at[:len(at) - (not whole)]] = 1 + skips[:len(at) - (not whole)]
    boundary = following[-1] + (whole or not skips[-1])
    skips[-1] &= whole
    ends_ns = start_ns + (np.concatenate(([open_step], following[:-1])) + 1) * step_ns
    both_ns = np.stack((ends_ns, start_ns + following * step_ns), axis=1)
    now_ns = both_ns[np.stack((np.ones(len(at), np.bool_), skips), axis=1)]
    return Stretch(np.append(now_ns, clock_ns[-1]) if whole else now_ns, np.cumsum(batches),
                   int(start_ns + boundary * step_ns))


STEP_NS = 2_000_000_000
"""Maximum file time of one batch; flows end between batches."""
SPARSE_NS = 60_000_000_000
"""Time between packets on average from which on ticks that nobody looks at are combined: as long as the longest rates
of flows go back."""
KEPT_NS = 300_000_000_000
"""The latest packets are not combined with others: so far back go charts."""
_LIVE_NS = 60_000_000_000
"""A pipe whose newest packet is younger than this is a running capture: its time advances while no packets arrive."""
_NOTHING = Entries(np.zeros(0, FLOW_KEY_DTYPE), np.zeros(0, FLOW_COUNTERS_DTYPE))


@dataclass(frozen=True)
class FileConfig:
    """What to read and how.

    Attributes:
        path: path of the file, or "-" for standard input.
        tick_s: length of a tick in file time; None: one tick for the whole file.
        speed: replay this many times as fast as recorded; None: as fast as possible.
        descriptor: of the file, if it is open already; the caller closes it.
        decap: count packets in tunnels by their inner flow; the outer flow is counted in entries of Kind.PARENT.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
        collect: of a capture count the flows in its export messages, not its packets.
        names_seen: read the names in DNS answers and in the first packets of connections.
        every_tick: each tick is looked at. If not, many can be one batch in a quiet capture, as a packet a day.
    """

    path: str
    tick_s: float | None = 1.0
    speed: float | None = None
    descriptor: int | None = None
    decap: bool = False
    tunnel_ports: TunnelPorts = field(default_factory=dict)
    collect: bool = False
    names_seen: bool = False
    every_tick: bool = False


class FileCapture:
    """A flowtop.capture.protocol.Capture of a file. Times are ns since 1970 UTC; batches mark the end of ticks.

    A tick ends every `tick_s` of file time, counted from the first packet. A longer time without packets is one tick.

    Args:
        config: what to read.
        clock_ns: monotonic, for replays.
        unix_ns: ns since 1970 UTC, to distinguish a running capture in a pipe from an old file.
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
        self._wake = Wake()
        self._reader: Reader | None = None
        self._piece: Piece | None = None
        self._taken = 0
        self._octets = 0, 0
        self._start_ns = self._boundary_ns = self._now_ns = 0
        self._latest_ns = -1
        self._ticks = 0
        self._started_ns = self._arrived_ns = 0
        self._live = False
        self._ended = False
        self._fault: FlowtopError | None = None
        self._outlet = PacketOutlet()
        self._names = FileNames() if config.names_seen and not config.collect else None

    def open(self, progress: Callable[[str], None]) -> None:
        """See Capture.open. The format of a pipe may be known only in `drain`."""
        progress(f"reading {self._config.path}")
        self._stream = OctetStream(self._config.path, self._config.descriptor)
        self._resources.callback(self._stream.close)
        try:
            if self._stream.octets_total is not None:
                self._reader = identify(self._stream, decap=self._config.decap, collect=self._config.collect,
                                         tunnel_ports=self._config.tunnel_ports, names=self._names)
        except BaseException:
            self._resources.close()
            raise

    # ---- waiting

    def wait(self, timeout_s: float) -> None:
        """See Capture.wait: until data can be drained; in a replay, until it is due."""
        self._outlet.flush(ended=self._ended and self._piece is None)
        due_s = self._due_s()
        watched = [self._wake.fileno()]
        if due_s is None and not self._ended and not self._stream.ready:
            watched.append(self._stream.fileno())
        elif due_s is None and not self._ended:
            due_s = 0.0
        if self._wake.fileno() in readable(watched, timeout_s if due_s is None else min(timeout_s, due_s)):
            self._wake.clear()

    def _due_s(self) -> float | None:
        """Seconds until the next batch of the current piece is due; None if there is no piece."""
        if self._piece is None:
            return None
        if self._config.speed is None:
            return 0.0
        next_ns = min(self._boundary_ns, int(self._piece.clock_ns[-1])) - self._start_ns
        return max(0.0, (self._started_ns + next_ns / self._config.speed - self._clock_ns()) / 1e9)

    def wake(self) -> None:
        """See Capture.wake."""
        self._wake.call()

    # ---- draining

    def lift_filter(self, lifted: bool) -> None:
        """See Capture.lift_filter; does nothing, as there is no capture filter."""

    def drain(self) -> FlowBatch:
        """See Capture.drain. Raises FlowtopError if a pipe turns out not to be a capture."""
        self._outlet.flush(ended=False)
        if self._piece is None and not self._ended:
            self._read()
            if self._due_s():
                return self._batch(closes_tick=False)  # packets of a replay that are not due yet
        if self._piece is None:
            if self._ended:
                return self._batch(closes_tick=True)
            return self._pass_time()
        return self._next_batch(self._piece)

    def _next_batch(self, piece: Piece) -> FlowBatch:
        """The rest of the open step in this piece; or many steps at once, if the result is the same."""
        if self._config.speed is None and isinstance(piece, PacketPiece):
            batch = self._whole(piece, len(piece.clock_ns) if self._tick_ns is None else self._sparse(piece))
            if batch is not None:
                return batch
        stop = int(np.searchsorted(piece.clock_ns, self._boundary_ns, "left"))
        start, self._taken = self._taken, stop
        if stop == len(piece.clock_ns):
            self._piece = None
            self._now_ns = max(self._now_ns, int(piece.clock_ns[-1]))  # packets of a pipe may be late, after _pass_time
            closes_tick = False
        else:
            closes_tick = self._close_step(int(piece.clock_ns[stop]))
        entries = piece.entries(start, stop)
        self._outlet.hold(piece, start, stop)
        return self._batch(closes_tick, entries)

    def _sparse(self, piece: PacketPiece) -> int:
        """Where to end combining ticks, as packets are rare and nobody looks at each; 0: they are not combined."""
        clock_ns = piece.clock_ns
        stop = int(np.searchsorted(clock_ns, clock_ns[-1] - KEPT_NS, "left"))
        number = stop - self._taken
        if self._config.every_tick or number < LEAST_STEPS:
            return 0
        return stop if int(clock_ns[stop - 1] - clock_ns[self._taken]) >= (number - 1) * SPARSE_NS else 0

    def _whole(self, piece: PacketPiece, end: int) -> FlowBatch | None:
        """One batch of many steps from the packets up to `end`; None if there are few, or packets are being written."""
        start = self._taken
        if end <= start:
            return None
        steps = stretch(piece.clock_ns[start:end], self._start_ns, self._boundary_ns, self._step_ns)
        if steps is None or self._outlet.active:
            return None
        stop = start + len(steps.step)
        if not piece.orderly(start, stop, self._start_ns, self._step_ns):
            return None
        self._taken = stop
        entries = piece.entries(start, stop, steps.step)
        assert entries.steps is not None
        if stop == len(piece.clock_ns):
            self._piece = None
        self._now_ns, self._boundary_ns = int(steps.now_ns[-1]), steps.boundary_ns
        if self._tick_ns is not None:
            self._ticks = (self._now_ns - self._start_ns) // self._tick_ns
        self._outlet.hold(piece, start, stop)
        return replace(self._batch(self._tick_ns is not None, entries), steps=steps.steps(piece, start, entries.steps))

    def _close_step(self, next_ns: int) -> bool:
        """End the step; the next packet is at `next_ns` or later. Returns whether this ends a tick."""
        self._now_ns = self._boundary_ns
        whole_steps = (next_ns - self._start_ns) // self._step_ns * self._step_ns + self._start_ns
        skip = self._config.speed is None and whole_steps > self._boundary_ns
        self._boundary_ns = whole_steps if skip else self._boundary_ns + self._step_ns
        if self._tick_ns is None:
            return False
        ticks, self._ticks = self._ticks, (self._now_ns - self._start_ns) // self._tick_ns
        return self._ticks > ticks

    def _pass_time(self) -> FlowBatch:
        """No packet has arrived: advance the time of a running capture."""
        now_ns = self._latest_ns + self._clock_ns() - self._arrived_ns
        if self._live and now_ns >= self._boundary_ns:
            return self._batch(self._close_step(now_ns))
        return self._batch(closes_tick=False)

    def _batch(self, closes_tick: bool, entries: Entries = _NOTHING) -> FlowBatch:
        reader, stream = self._reader, self._stream
        names = reader.names() if reader else {}
        observations = reader.observations() if reader else np.zeros(0, OBSERVATION_DTYPE)
        texts, seen = reader.texts() if reader else {}, self._names if isinstance(reader, PacketReader) else None
        owners = reader.owners() if isinstance(reader, PacketReader) else None
        if seen is not None and seen.book.texts():
            texts = {**texts, NAMES: seen.book.texts()}
        return FlowBatch(
            entries.keys, entries.counters, observations, self._now_ns, 0, names, tuple(sorted(set(names.values()))),
            SourceState(closes_tick, self._ended and self._piece is None, self._octets_done(), stream.octets_total,
                        self._fault),
            reader.statistics if reader else None, entries.other_ifindexes, entries.segments,
            described=entries.described, reported=entries.reported, texts=texts,
            owners=owners, names=None if seen is None else seen.book,
            name_statistics=None if seen is None else seen.statistics,
            named_addresses={} if seen is None else seen.book.addresses())

    def _octets_done(self) -> int:
        """Octets of the file up to the last drained packet. One piece of a quiet capture can cover hours."""
        if self._piece is None:
            return self._stream.octets_read
        before, after = self._octets
        return before + (after - before) * self._taken // len(self._piece.clock_ns)

    def close(self) -> FlowBatch:
        """See Capture.close. Packets that were not drained are not counted."""
        self._outlet.flush(ended=True)
        self._resources.close()
        self._piece = None
        return self._batch(closes_tick=True)

    def write_packets(self, request: PacketRequest | None) -> None:
        """See recording.PacketCapture. Packets are written by the call after the one that returned their batch."""
        self._outlet.set_request(request)

    # ---- reading

    def _read(self) -> None:
        """Read the next piece if that needs no waiting, or note the end."""
        try:
            piece = self._next_piece()
        except DamagedError as error:
            self._end(str(error), "everything before it is counted")
            return
        if piece is not None:
            self._take(piece)
        elif self._stream.at_end and self._reader is not None:
            collected = self._reader.statistics
            nothing = collected is not None and not (collected.messages or collected.refused_messages)
            self._end(self._reader.fault,
                      "without --collect its packets are counted" if nothing else "the rest is counted")

    def _next_piece(self) -> Piece | None:
        while True:
            if self._reader is None:
                if not self._stream.at_end and not self._stream.ready:
                    return None
                self._reader = identify(self._stream, decap=self._config.decap, collect=self._config.collect,
                                         tunnel_ports=self._config.tunnel_ports, names=self._names)
            # Late packets belong to the time that passed while waiting for them.
            elif (piece := self._reader.read(self._stream, max(self._latest_ns, self._now_ns))) is not None:
                return piece
            elif self._stream.at_end or not self._stream.ready:
                return None
            else:
                try:
                    self._stream.fill()
                except DamagedError:  # raised again by the next call
                    if (piece := self._reader.rest(max(self._latest_ns, self._now_ns))) is None:
                        raise
                    return piece

    def _take(self, piece: Piece) -> None:
        clock_ns = piece.clock_ns
        if self._latest_ns < 0:  # the start of the file's time
            self._start_ns = self._now_ns = int(clock_ns[0])
            self._boundary_ns = self._start_ns + self._step_ns
            self._started_ns = self._clock_ns()
        self._latest_ns = int(clock_ns[-1])
        self._arrived_ns = self._clock_ns()
        self._live = self._stream.octets_total is None and abs(self._unix_ns() - self._latest_ns) < _LIVE_NS
        self._piece, self._taken = piece, 0
        self._octets = self._octets[1], self._stream.octets_read

    def _end(self, fault: str, hint: str) -> None:
        self._ended = True
        if fault:
            name = Path(self._stream.name).name  # only the name: the screen may be narrow
            self._fault = FlowtopError(f"{name} {fault}", hint=hint, exit_code=EXIT_DAMAGED)
