"""One recording of packets: selects, limits, writes and counts them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from flowtop.model.packets import PacketBatch, PacketLosses
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.recording.notes import Addresses, Comments, comments
from flowtop.recording.packet_file import InterfaceCounts, PacketFile
from flowtop.recording.pcapng import Integers, packet_octets
from flowtop.recording.selection import whole_keys
from flowtop.text.lookups import Lookups
from flowtop.text.names import NO_NAMES, KnownNames

RecordingState = Literal["writing", "full", "failed", "ended"]
MOST_FLOWS = 1 << 20
"""Limit of flows whose packets are counted; beyond it the oldest are dropped, and counted from 0 if they return."""
_AT_ONCE = 8192
"""Maximum number of packets per write."""
_WHOLE_KEY = f"V{FLOW_KEY_DTYPE.itemsize}"


class Selection(Protocol):
    """Selects packets."""

    def mask(self, keys: npt.NDArray[np.void], lookups: Lookups) -> npt.NDArray[np.bool_]:
        """The mask, shape (n,), of packets with these Flow Keys (FLOW_KEY_DTYPE, shape (n,))."""


@dataclass(frozen=True, slots=True)
class RecordingStatistics:
    """Figures of a recording. Every selected packet until its end is in one of `written`, `dropped` and `capped`.

    Attributes:
        path: path of the file, "-" for standard output.
        filter: the filter in the filter language; "" for all flows.
        state: "full": the file has reached its maximum size; "failed": see `error`.
        written: packets in the file.
        octets: size of the file.
        dropped: packets that the kernel had to drop.
        capped: packets beyond the limit of their flow, or after the file was full. When reading a file, all of those
            are counted; in a live capture, later ones are not, as the kernel programs are detached.
        full_ns: time of the first packet that did not fit in the file, since 1970 UTC; 0 if there was none.
        error: text of the error.
        broken_pipe: the reader of standard output has closed it.
    """

    path: str
    filter: str
    state: RecordingState
    written: int = 0
    octets: int = 0
    dropped: int = 0
    capped: int = 0
    full_ns: int = 0
    error: str = ""
    broken_pipe: bool = False


class PacketRecording:
    """A PacketSink that writes to a file.

    Args:
        path: path of the file.
        file: the file, before `begin`.
        selection: selects the packets.
        text: the selection in the filter language.
        per_flow: maximum packets per flow, 0 for all.
        most_octets: maximum size of the file, 0 for no limit.
    """

    def __init__(self, path: str, file: PacketFile, selection: Selection, text: str, *, per_flow: int = 0,
                 most_octets: int = 0) -> None:
        self._path = path
        self._file = file
        self._selection = selection
        self._text = text
        self._per_flow = per_flow
        self._most_octets = most_octets
        self._lock = threading.Lock()
        self._of_flow: dict[bytes, int] = {}
        self._written: Counter[int] = Counter()
        self._capped: Counter[int] = Counter()
        self._losses: Mapping[int, PacketLosses] = {}
        self._addresses = Addresses()
        self._names = NO_NAMES
        self._state: RecordingState = "writing"
        self._full_ns = 0
        self._error = ""
        self._broken_pipe = False

    def begin(self) -> None:
        """Write the file's header. Raises OSError."""
        self._file.begin()

    @property
    def over(self) -> bool:
        """See PacketSink."""
        return self._state != "writing"

    def write(self, packets: PacketBatch) -> None:
        """See PacketSink. After the file is full, packets are still counted."""
        with self._lock:
            if self._state not in ("writing", "full") or not len(packets.keys):
                return
            try:
                self._write(packets)
            except Exception as error:  # noqa: BLE001 - a thread's last resort: the error must be visible
                self._fail(f"{type(error).__name__}: {error}")

    def _write(self, packets: PacketBatch) -> None:
        lookups = Lookups({ifindex: interface.name for ifindex, interface in packets.interfaces.items()})
        rows = np.flatnonzero(self._selection.mask(packets.keys, lookups))
        rows = self._within_share(packets.keys, rows)
        beside = comments(packets)
        if self._state == "writing" and len(rows):
            named = self._addresses.of_flows(set(whole_keys(packets.keys[rows])), self._names)
            if not self._attempt(lambda: self._write_names(named)):
                return
        room = 0 if self._state == "full" else self._room(packets, rows, beside)
        self._count(self._capped, packets.keys, rows[room:])
        if self._write_parts(packets, rows[:room], beside) and room < len(rows) and self._state != "full":
            self._full_ns = int(packets.time_ns[rows[room]])
            self._end("full")

    def name(self, names: KnownNames) -> None:
        """Write the names of the packets' addresses, now and before later packets. Thread-safe."""
        with self._lock:
            if self._state == "writing" and names.edition != self._names.edition:
                self._names, named = names, self._addresses.named(names)
                self._attempt(lambda: self._write_names(named))

    def _write_names(self, named: Mapping[bytes, str]) -> None:
        """Names are written before the packets that follow, as programs read a file once."""
        if named:
            self._file.write_names(named, self._most_octets)

    def _write_parts(self, packets: PacketBatch, rows: Integers, beside: Comments) -> bool:
        """Write these packets in parts; returns whether they fit. A write error ends the recording as failed."""
        at_once = _AT_ONCE
        while len(rows):
            part, before = rows[:at_once], self._file.packets
            try:
                self._file.write(packets, part, beside)
            except OSError as error:
                rows = self._written_of(packets, rows, before)
                if self._file.regular and len(part) > 1:
                    at_once = len(part) // 2
                    continue
                self._fail_to_write(error)
                return False
            rows = self._written_of(packets, rows, before)
        return True

    def _written_of(self, packets: PacketBatch, rows: Integers, before: int) -> Integers:
        """Count the rows written since `before`; returns the others."""
        written = self._file.packets - before
        self._count(self._written, packets.keys, rows[:written])
        return rows[written:]

    def _within_share(self, keys: npt.NDArray[np.void], rows: Integers) -> Integers:
        """The rows within their flow's limit; the others are counted as capped."""
        if not self._per_flow:
            return rows
        chosen = np.zeros(len(rows), np.bool_)
        of_flow, most = self._of_flow, self._per_flow
        for place, key in enumerate(np.ascontiguousarray(keys[rows]).view(_WHOLE_KEY).tolist()):
            count = of_flow.get(key, 0)
            if count < most:
                of_flow[key] = count + 1
                chosen[place] = True
        while len(of_flow) > MOST_FLOWS:
            del of_flow[next(iter(of_flow))]
        self._count(self._capped, keys, rows[~chosen])
        return rows[chosen]

    def _room(self, packets: PacketBatch, rows: Integers, beside: Comments) -> int:
        """Number of these packets that fit in the file."""
        if not self._most_octets:
            return len(rows)
        ends = np.cumsum(packet_octets(self._file.cut(packets.captured[rows]), beside.octets(rows))) + self._file.octets
        most = self._most_octets - self._file.octets_beside(packets, rows)
        return int(np.searchsorted(ends, most, "right"))

    @staticmethod
    def _count(counter: Counter[int], keys: npt.NDArray[np.void], rows: Integers) -> None:
        ifindexes, counts = np.unique(keys["ifindex"][rows], return_counts=True)
        counter.update(dict(zip(ifindexes.tolist(), counts.tolist(), strict=True)))

    def note_losses(self, losses: Mapping[int, PacketLosses]) -> None:
        """See PacketSink."""
        self._losses = dict(losses)

    def finish(self) -> None:
        """See PacketSink."""
        with self._lock:
            if not self.over:
                self._end("ended")

    def remove(self) -> None:
        """Remove the file, if it was created here: nothing was recorded."""
        self._file.remove()

    def hurry(self, seconds: float) -> None:
        """See PacketFile.hurry."""
        self._file.hurry(seconds)

    def _end(self, state: RecordingState) -> None:
        if self._attempt(lambda: self._file.finish(self._counts())):
            self._state = state

    def _attempt(self, write: Callable[[], None]) -> bool:
        """Call `write`; returns whether it succeeded. If not, the recording has failed."""
        try:
            write()
        except OSError as error:
            self._fail_to_write(error)
            return False
        return True

    def _fail_to_write(self, error: OSError) -> None:
        self._broken_pipe = isinstance(error, BrokenPipeError)
        self._fail((error.strerror or str(error)).lower())

    def _fail(self, error: str) -> None:
        self._error, self._state = error, "failed"
        self._file.close()

    def _counts(self) -> dict[int, InterfaceCounts]:
        counts = {}
        for ifindex in self._written:
            losses = self._losses.get(ifindex, PacketLosses())
            written, capped = self._written[ifindex], self._capped[ifindex] + losses.capped
            counts[ifindex] = InterfaceCounts(written + capped + losses.dropped, losses.dropped, written)
        return counts

    def statistics(self) -> RecordingStatistics:
        """The current figures. Thread-safe."""
        losses = tuple(self._losses.values())
        return RecordingStatistics(
            self._path, self._text, self._state, written=sum(list(self._written.values())), octets=self._file.octets,
            dropped=sum(one.dropped for one in losses),
            capped=sum(list(self._capped.values())) + sum(one.capped for one in losses),
            full_ns=self._full_ns, error=self._error, broken_pipe=self._broken_pipe)
