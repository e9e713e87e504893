"""Recordings of packets, started on the command line or on the screen; one at a time, ended with the run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flowtop.errors import EXIT_NOT_SENT, EXIT_OK, EXIT_USAGE, FlowtopError
from flowtop.files import recording_owner
from flowtop.text.lookups import Lookups
from flowtop.text.names import NO_NAMES, KnownNames

if TYPE_CHECKING:
    from flowtop.filters.filter import Filter
    from flowtop.model.flows import FlowSource
    from flowtop.model.packets import PacketRequest
    from flowtop.recording.recording import PacketRecording, RecordingStatistics
    from flowtop.recording.selection import PacketSelection


@runtime_checkable
class PacketCapture(Protocol):
    """A capture that can pass on packets."""

    def write_packets(self, request: PacketRequest | None) -> None:
        """Pass packets to this request's sink from now on; None: stop, after all packets were passed on. Thread-safe.

        If called before `open`, packets are passed on from the first one.

        Raises:
            FlowtopError: the capture has no packets.
        """


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """Limits of a recording.

    Attributes:
        snap: maximum octets per frame, > 0.
        per_flow: maximum packets per flow, 0 for all.
        most_octets: maximum size of the file, 0 for no limit.
    """

    snap: int = 256
    per_flow: int = 10_000
    most_octets: int = 1 << 30


WRITE_PATIENCE_S = 5.0
"""How long the end of a run waits for the reader of a pipe."""
DEFAULT_LIMITS = RecordingLimits()


class Recorder:
    """Starts and ends recordings, and keeps the last one.

    Args:
        limits: limits of each recording.

    Attributes:
        names: the names of hosts that are known now, for files. For any thread.
    """

    def __init__(self, limits: RecordingLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self.names: Callable[[], KnownNames] = lambda: NO_NAMES
        self._hosts = self._known = NO_NAMES
        self._called: Mapping[bytes, str] = {}
        self._capture: PacketCapture | None = None
        self._begun = False
        self._changing = threading.Lock()
        self._recording: PacketRecording | None = None
        self._selection: PacketSelection | None = None
        self._request: PacketRequest | None = None

    def begin(self, path: str, filters: Sequence[Filter], *, new: bool, directory: int | None = None) -> None:
        """Start writing packets of flows that pass all filters. Takes up to a second, to compile kernel programs.

        Args:
            path: path of the file, or "-" for standard output.
            new: fail if the file exists; otherwise an existing file is renamed.
            directory: descriptor of the path's directory; None: it is found by its name.

        Raises FlowtopError: the file cannot be written, there are no packets, or a recording is running already.
        """
        from flowtop.recording.packet_file import PacketFile
        from flowtop.recording.recording import PacketRecording
        from flowtop.recording.selection import PacketSelection

        limits = self._limits
        with self._changing:
            if self.running:
                raise FlowtopError("packets are being written already", hint="end it first", exit_code=EXIT_USAGE)
            selection = PacketSelection(filters)
            file = PacketFile(path, limits.snap, recording_owner(os.environ, os.geteuid()), new=new,
                              directory=directory)
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

        # The kernel can limit packets per flow if the filter applies to the key only; otherwise it does not know the
        # flows.
        self._request = PacketRequest(recording, self._limits.snap, self._limits.per_flow if selection.by_key else 0,
                                      selection.expression)
        self._selection, self._recording = selection, recording
        if self._begun:
            self._source().write_packets(self._request)

    def connect(self, capture: object) -> None:
        """Set the source of packets. Raises FlowtopError: it has none, but a recording is running."""
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
            raise FlowtopError("there are no packets here, only flow records of exporters", exit_code=EXIT_USAGE,
                               hint="packets can be written from interfaces and capture files (-r)")
        return self._capture

    def follow(self, source: FlowSource, lookups: Lookups) -> None:
        """Called after each update of the flow table."""
        selection, recording = self._selection, self._recording
        if selection is not None and recording is not None and self.running:
            selection.follow(source, lookups)
            recording.name(self._known_names(lookups))

    def _known_names(self, lookups: Lookups) -> KnownNames:
        """Names of hosts that were looked up, and before them what clients called addresses in packets."""
        hosts = self.names()
        if hosts.edition != self._hosts.edition or lookups.called is not self._called:
            self._hosts, self._called = hosts, lookups.called
            self._known = KnownNames(self._known.edition + 1, {**hosts.names, **lookups.called})
        return self._known

    def end(self) -> RecordingStatistics | None:
        """Write packets in transit and end the recording; returns the last figures. Thread-safe."""
        with self._changing:
            if self._recording is not None:
                if self.running and self._capture is not None:
                    self._capture.write_packets(None)
                self._recording.finish()
        return self.statistics()

    def remove(self) -> None:
        """Remove the file of the ended recording, which has no packets."""
        if self._recording is not None:
            self._recording.remove()

    def statistics(self) -> RecordingStatistics | None:
        """Figures of the current or last recording; None if there was none. Thread-safe."""
        return None if self._recording is None else self._recording.statistics()

    def stop_by_signal(self, request_stop: Callable[[], None]) -> None:
        """Request the end of a run, and limit waiting for a blocked reader to WRITE_PATIENCE_S."""
        if self._recording is not None:
            self._recording.hurry(WRITE_PATIENCE_S)
        request_stop()


def recording(recorder: Recorder, path: str | None, filters: Sequence[Filter], run: Callable[[], int],
              report: Callable[[str], None]) -> int:
    """Run with a recorder, then report what its last recording has written, as tcpdump does.

    Args:
        recorder: its recording has ended when this returns.
        path: file for packets from the start; None: no recording.
        filters: filters of the recording.
        run: returns an exit status.
        report: takes a line about the recording; not called if the run failed and nothing was written.

    Returns:
        The result of `run`; EXIT_NOT_SENT instead of EXIT_OK if packets could not be written.

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
            report(closing_line(figures))
        elif figures is not None:
            recorder.remove()
    return status or (EXIT_OK if figures is None or complete(figures) else EXIT_NOT_SENT)


def closing_line(figures: RecordingStatistics) -> str:
    """One line about what was written, what was not, and why; without control characters."""
    path = "standard output" if figures.path == "-" else figures.path
    parts = [f"{figures.written} packets written"]
    if figures.dropped:
        parts.append(f"{figures.dropped} DROPPED")
    if figures.capped:
        parts.append(f"{figures.capped} beyond --write-per-flow or --write-total")
    if figures.state == "full":
        moment = datetime.fromtimestamp(figures.full_ns / 1e9, UTC)
        parts.append(f"the file was full at {moment:%Y-%m-%dT%H:%M:%SZ}")
    if figures.state == "failed":
        parts.append("then its reader closed it" if figures.broken_pipe else f"then it failed: {figures.error}")
    line = f"{path}: {', '.join(parts)}"
    return "".join(character if character.isprintable() else "?" for character in line)


def complete(figures: RecordingStatistics) -> bool:
    """Whether the recording ended as intended."""
    return figures.state != "failed" or figures.broken_pipe
