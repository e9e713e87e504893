"""Recordings of packets: begun on the command line or on the screen, one at a time; over with the run at the latest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flowtop.errors import EXIT_NOT_SENT, EXIT_OK, EXIT_USAGE, FlowtopError
from flowtop.files import recording_owner
from flowtop.text.lookups import Lookups

if TYPE_CHECKING:
    from flowtop.filters.filter import Filter
    from flowtop.model.flows import FlowSource
    from flowtop.model.packets import PacketRequest
    from flowtop.recording.recording import PacketRecording, RecordingStatistics
    from flowtop.recording.selection import PacketSelection


@runtime_checkable
class PacketCapture(Protocol):
    """A capture that has packets to hand over."""

    def write_packets(self, request: PacketRequest | None) -> None:
        """From now on hand packets over; None: no more, all of them have been when this returns. Any thread.

        Before `open` it takes what was asked for from the first packet on.

        Raises:
            FlowtopError: there are no packets to be had.
        """


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """How much of packets is written.

    Attributes:
        snap: octets of a frame at most, > 0.
        per_flow: packets of a flow at most, 0: all.
        most_octets: of a file at most, 0: any number.
    """

    snap: int = 256
    per_flow: int = 10_000
    most_octets: int = 1 << 30


WRITE_PATIENCE_S = 5.0
"""How long the end of a run waits for the reader of a pipe that packets are written to."""
DEFAULT_LIMITS = RecordingLimits()


class Recorder:
    """Begins and ends recordings, and remembers the last one.

    Args:
        limits: of each.
    """

    def __init__(self, limits: RecordingLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._capture: PacketCapture | None = None
        self._begun = False
        self._changing = threading.Lock()
        self._recording: PacketRecording | None = None
        self._selection: PacketSelection | None = None
        self._request: PacketRequest | None = None

    def begin(self, path: str, filters: Sequence[Filter], *, new: bool) -> None:
        """Write packets of flows that pass all the filters to a file. May take a second: kernel programs are made.

        Args:
            path: "-" for standard output.
            new: the file must not be there yet; else one that is there is put aside.

        Raises FlowtopError: it cannot be written, there are no packets to be had, or a recording goes on already.
        """
        from flowtop.recording.packet_file import PacketFile
        from flowtop.recording.recording import PacketRecording
        from flowtop.recording.selection import PacketSelection

        limits = self._limits
        with self._changing:
            if self.running:
                raise FlowtopError("packets are being written already", hint="end that first", exit_code=EXIT_USAGE)
            selection = PacketSelection(filters)
            file = PacketFile(path, limits.snap, recording_owner(os.environ, os.geteuid()), new=new)
            recording = PacketRecording(path, file, selection, selection.text, per_flow=limits.per_flow,
                                        most_octets=limits.most_octets)
            try:
                recording.begin()
                self._connect(recording, selection)
            except OSError as error:
                file.remove()
                raise FlowtopError(f"cannot write {path}: {(error.strerror or str(error)).lower()}",
                                   exit_code=EXIT_USAGE) from error
            except BaseException:
                file.remove()
                self._recording = self._selection = self._request = None
                raise

    def _connect(self, recording: PacketRecording, selection: PacketSelection) -> None:
        from flowtop.model.packets import PacketRequest

        # The kernel may tell who has had its share where the key tells who is wanted: else that is not known yet there.
        self._request = PacketRequest(recording, self._limits.snap, self._limits.per_flow if selection.by_key else 0,
                                      selection.expression)
        self._selection, self._recording = selection, recording
        if self._begun:
            self._source().write_packets(self._request)

    def connect(self, capture: object) -> None:
        """Where packets come from, from now on. Raises FlowtopError: it has none, and they are being waited for."""
        self._begun = True
        if isinstance(capture, PacketCapture):
            self._capture = capture
        if self._request is not None:
            self._source().write_packets(self._request)

    @property
    def running(self) -> bool:
        """Whether packets are being written."""
        return self._recording is not None and not self._recording.over

    def _source(self) -> PacketCapture:
        if self._capture is None:
            raise FlowtopError("there are no packets here, only what others tell of flows", exit_code=EXIT_USAGE,
                               hint="packets are written of interfaces, and of capture files (-r)")
        return self._capture

    def follow(self, source: FlowSource, lookups: Lookups) -> None:
        """See watching.FlowWatcher."""
        selection = self._selection
        if selection is not None and self.running:
            selection.follow(source, lookups)

    def end(self) -> RecordingStatistics | None:
        """Write what is on its way, and end the recording; gives the last figures. Any thread."""
        with self._changing:
            if self._recording is not None:
                if self.running and self._capture is not None:
                    self._capture.write_packets(None)
                self._recording.finish()
        return self.statistics()

    def remove(self) -> None:
        """Take away the file of the recording that has ended: nothing came."""
        if self._recording is not None:
            self._recording.remove()

    def statistics(self) -> RecordingStatistics | None:
        """Figures of the recording that goes on, or of the last one; None: there was none. Any thread."""
        return None if self._recording is None else self._recording.statistics()

    def stop_by_signal(self, request_stop: Callable[[], None]) -> None:
        """Request the end of a run, and wait no longer than WRITE_PATIENCE_S for a reader that does not read."""
        if self._recording is not None:
            self._recording.hurry(WRITE_PATIENCE_S)
        request_stop()


def recording(recorder: Recorder, path: str | None, filters: Sequence[Filter], run: Callable[[], int],
              tell: Callable[[str], None]) -> int:
    """Run with a recorder; then say of its last recording what was written, as tcpdump does.

    Args:
        recorder: its recording has ended when this returns.
        path: where packets are written to from the beginning; None: nowhere.
        filters: of which flows.
        run: gives an exit status.
        tell: takes a line about the recording; of a failed run, where there is something to tell.

    Returns:
        What `run` gave; EXIT_NOT_SENT for EXIT_OK when packets could not be written.

    Raises FlowtopError: as `Recorder.begin`, and as `run`.
    """
    if path is not None:
        recorder.begin(path, filters, new=False)
    failed = True
    try:
        status = run()
        failed = False
    finally:
        figures = recorder.end()
        if figures is not None and (not failed or figures.written):
            tell(closing_line(figures))
        elif figures is not None:
            recorder.remove()
    return status or (EXIT_OK if figures is None or complete(figures) else EXIT_NOT_SENT)


def closing_line(figures: RecordingStatistics) -> str:
    """One line: what was written, what was not and why. Without control characters."""
    path = "standard output" if figures.path == "-" else figures.path
    parts = [f"{figures.written} packets written"]
    if figures.dropped:
        parts.append(f"{figures.dropped} DROPPED")
    if figures.capped:
        parts.append(f"{figures.capped} past --write-per-flow or --write-total")
    if figures.state == "full":
        moment = datetime.fromtimestamp(figures.full_ns / 1e9, UTC)
        parts.append(f"the file was full at {moment:%Y-%m-%dT%H:%M:%SZ}")
    if figures.state == "failed":
        parts.append("then its reader went away" if figures.broken_pipe else f"then it failed: {figures.error}")
    line = f"{path}: {', '.join(parts)}"
    return "".join(character if character.isprintable() else "?" for character in line)


def complete(figures: RecordingStatistics) -> bool:
    """Whether it ended as it was meant to."""
    return figures.state != "failed" or figures.broken_pipe
