"""Write Flow Records to files: IPFIX (RFC 5655), JSON Lines and CSV; with rotation and compression."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from flowtop.export.compression import END_OF_FLUSHED, Compressor, WholeWriter, compressor
from flowtop.export.context import ExportContext
from flowtop.export.lines import json_lines
from flowtop.export.session import TransportSession
from flowtop.export.url import ExportUrl
from flowtop.fields.records import flow_names, plain_records
from flowtop.files import open_output
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords, joined
from flowtop.text.csv_lines import CsvLines
from flowtop.wire.file_details import ROOM_OCTETS, Checksums, session_details, time_window
from flowtop.wire.flow_templates import flow_templates
from flowtop.wire.ipfix import MAX_MESSAGE_OCTETS

REPORT_S = 60.0
_PART_RECORDS = 512
_MESSAGE_OCTETS = MAX_MESSAGE_OCTETS - ROOM_OCTETS
_FLUSH_S = 1.0
_READER_S = 60.0
_UNFLUSHED_RECORDS = 50_000
"""Limit of records in a compressor; they are kept until it is flushed."""


class FileFormat(Protocol):
    """Encodes records for the files of one format."""

    def begin(self, context: ExportContext) -> list[bytes]:
        """The start of a file."""

    def arranged(self, records: FlowRecords) -> FlowRecords:
        """The records in an order in which even parts can be encoded on their own."""

    def records(self, records: FlowRecords, context: ExportContext) -> list[bytes]:
        """Encode records, preceded by the metadata they need."""

    def reports(self, context: ExportContext) -> list[bytes]:
        """Reports, written once a minute and at the end."""

    def end(self, context: ExportContext) -> list[bytes]:
        """The end of a file, before the last reports."""


class IpfixFile:
    """RFC 5655: IPFIX Messages one after another; each file is a Transport Session with its own Templates.

    Each message has a checksum; details of the session are at the start, the time window of its flows is at the end.

    Args:
        url: of kind file.
        address: gives an address of this host.
    """

    def __init__(self, url: ExportUrl, address: Callable[[], str] | None = None) -> None:
        self._address = own_address if address is None else address
        self._plain = url.profile.one_set  # no options
        self._domain = url.domain
        self._biflow = url.biflow
        self._templates = flow_templates(url.profile)

    def begin(self, context: ExportContext) -> list[bytes]:
        """Templates and Options Data."""
        self._session = TransportSession(self._templates, self._domain, biflow=self._biflow)
        self._checksums = Checksums()
        self._started_s = int(context.wall())
        self._window: tuple[int, int] | None = None
        context.announced()
        details = [] if self._plain else self._session.options(
            session_details(self._address(), self._started_s), context)
        return self._checked([*details, *self._session.announcement(context, _MESSAGE_OCTETS)])

    def arranged(self, records: FlowRecords) -> FlowRecords:
        """See FileFormat."""
        return self._session.arranged(records)

    def records(self, records: FlowRecords, context: ExportContext) -> list[bytes]:
        """Messages of Flow Records, preceded by changed interface tables and new tunnels."""
        first_ms, last_ms = int(records["start_ms"].min()), int(records["end_ms"].max())
        known = self._window or (first_ms, last_ms)
        self._window = min(known[0], first_ms), max(known[1], last_ms)
        changed = self._session.changed_interfaces(context, _MESSAGE_OCTETS)
        flows = self._session.flows(records, context, _MESSAGE_OCTETS)
        return self._checked([*changed, *flows.preceding, *flows.messages])

    def reports(self, context: ExportContext) -> list[bytes]:
        """Statistics and reliability."""
        return self._checked(self._session.reports(context, _MESSAGE_OCTETS))

    def end(self, context: ExportContext) -> list[bytes]:
        """The time window, if there was a flow."""
        if self._window is None or self._plain:
            return []
        return self._checked(self._session.options(
            time_window(*self._window, self._started_s, int(context.wall())), context))

    def _checked(self, messages: list[bytes]) -> list[bytes]:
        if self._plain:
            return messages
        checked = self._checksums.add(messages)
        self._session.count_more(sum(map(len, checked)) - sum(map(len, messages)))
        return checked


class JsonLines:
    """One JSON object per record, with the keys of `flowtop -b -o json`.

    Args:
        agent: which host they are from: see process.agent; None: not said.
    """

    def __init__(self, agent: Mapping[str, str] | None = None) -> None:
        self._agent: dict[str, Any] = {} if agent is None else {"agent": agent}

    def begin(self, context: ExportContext) -> list[bytes]:  # noqa: ARG002 - interface
        """Return no octets."""
        return []

    def arranged(self, records: FlowRecords) -> FlowRecords:
        """See FileFormat."""
        return records

    def records(self, records: FlowRecords, context: ExportContext) -> list[bytes]:
        """One line per record."""
        return json_lines(records, context, self._agent)

    def reports(self, context: ExportContext) -> list[bytes]:  # noqa: ARG002 - interface
        """Return no octets."""
        return []

    end = reports


class Csv:
    """CSV (RFC 4180) with a header line in each file."""

    def begin(self, context: ExportContext) -> list[bytes]:  # noqa: ARG002 - interface
        """The header line."""
        return [CsvLines(flow_names()).header().encode()]

    def arranged(self, records: FlowRecords) -> FlowRecords:
        """See FileFormat."""
        return records

    def records(self, records: FlowRecords, context: ExportContext) -> list[bytes]:
        """One line per record."""
        lines = CsvLines(flow_names())
        return [lines.line(record).encode() for record in plain_records(records, context.metering().lookups)]

    def reports(self, context: ExportContext) -> list[bytes]:  # noqa: ARG002 - interface
        """Return no octets."""
        return []

    end = reports


class _Pipe:
    """The records in a named pipe that its reader has not read yet: if it leaves, they are lost with the pipe.

    Args:
        raw: the end for writing.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._capacity = fcntl.fcntl(raw, fcntl.F_GETPIPE_SZ)
        self._parts: deque[tuple[FlowRecords, npt.NDArray[np.int64]]] = deque()  # records, where each begins and ends
        self.written = 0

    def add(self, records: FlowRecords, lines: list[bytes]) -> None:
        """Keep records that are going to be written, one for each line."""
        self._keep(records, np.cumsum([0, *map(len, lines)]) + self.written)

    def add_together(self, records: FlowRecords, start: int, end: int) -> None:
        """Keep records that are in these octets, nobody knows where: read when all of them are."""
        self._keep(records, np.array([start, end]))

    def _keep(self, records: FlowRecords, bounds: npt.NDArray[np.int64]) -> None:
        self._parts.append((records, bounds))
        while self._parts and self._parts[0][1][-1] <= self.written - self._capacity:
            self._parts.popleft()

    def check(self) -> None:
        """Raises BrokenPipeError if nobody reads it any more."""
        poll = select.poll()
        poll.register(self._raw, 0)
        if poll.poll(0):
            raise BrokenPipeError(errno.EPIPE, "its reader closed it")

    def unread(self) -> tuple[FlowRecords, int]:
        """The records that no reader has or will have in full, and how many of them were, or may have been, read."""
        read = self.written
        with suppress(OSError):
            try:
                self.check()
            except BrokenPipeError:
                read -= int.from_bytes(fcntl.ioctl(self._raw, termios.FIONREAD, bytes(4)), sys.byteorder)
        left, begun = [], 0
        for records, bounds in self._parts:
            together = len(bounds) <= len(records)
            left.append(records[np.repeat(bounds[-1:] > read, len(records)) if together else bounds[1:] > read])
            if bounds[0] < read < bounds[-1] and read not in bounds:
                begun += len(records) if together else 1
        return joined(left) if left else np.empty(0, FLOW_RECORD_DTYPE), begun


class FileTransport:
    """Writes one file after another. An existing file is renamed, not overwritten.

    Args:
        url: of kind file, jsonl or csv.
        owner: user and group as whom files are opened, see files.open_output; None: as this process.
        output: the file for `-`; None: file descriptor 1.
        agent: for JSON, see JsonLines.
    """

    def __init__(self, url: ExportUrl, owner: tuple[int, int] | None = None, output: BinaryIO | None = None,
                 agent: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._owner = owner
        formats: dict[str, FileFormat] = {"file": IpfixFile(url), "jsonl": JsonLines(agent), "csv": Csv()}
        self._format = formats[url.kind]
        self._output = output
        self._raw: BinaryIO | None = None
        self._compressor: Compressor | None = None
        self._regular = False
        self._pipe: _Pipe | None = None
        self._unsent: FlowRecords | None = None
        self._unflushed: list[FlowRecords] = []
        self._flushed_end = 0
        self._octets = 0

    @property
    def retry_s(self) -> float:
        """Seconds between attempts, for example if the disk is full."""
        return 5.0

    @property
    def file_octets(self) -> int | None:
        """Octets of the current file, before compression; None for standard output."""
        return None if self._url.path == "-" else self._octets

    def open(self, context: ExportContext) -> None:
        """Begin a file. Raises OSError."""
        self._raw, self._regular = self._begin_file(context)
        self._pipe = _Pipe(self._raw) if stat.S_ISFIFO(os.fstat(self._raw.fileno()).st_mode) else None
        self._piped = 0  # octets that were in the pipe at the last flush
        if self._url.compress:
            self._whole = WholeWriter(partial(self._write_raw, context=context))
            self._compressor = compressor(self._url.compress, self._whole, context.wall())
        self._octets = self._flushed_end = 0
        self._opened_at = self._flushed_at = self._reported_at = context.monotonic()
        self._write(self._format.begin(context), context)
        self._flush(context)

    def send(self, records: FlowRecords, context: ExportContext) -> None:
        """Write records. Raises OSError; then `abandon` returns those not written."""
        records = self._format.arranged(records)
        for start in range(0, len(records), _PART_RECORDS):
            self._unsent = records[start:]
            self._rotate(context)
            part = records[start:start + _PART_RECORDS]
            encoded = self._format.records(part, context)
            if self._pipe is not None and self._compressor is None:
                if self._url.kind == "file":  # messages, each with some of the records
                    self._pipe.add_together(part, self._pipe.written, self._pipe.written + sum(map(len, encoded)))
                else:
                    self._pipe.add(part, encoded)
                self._unsent = None if start + len(part) == len(records) else records[start + len(part):]
            self._write(encoded, context)
            if self._compressor is not None:
                self._unflushed.append(part)
                self._unsent = None if start + len(part) == len(records) else records[start + len(part):]
        self._unsent = None
        if (context.monotonic() - self._flushed_at >= _FLUSH_S
                or len(self._unflushed) * _PART_RECORDS > _UNFLUSHED_RECORDS):
            self._flush(context)

    def tick(self, context: ExportContext) -> float:
        """Rotate by time, report once a minute, and flush."""
        if self._pipe is not None:
            self._pipe.check()
        self._rotate(context)
        if context.monotonic() - self._reported_at >= REPORT_S:
            self._reported_at = context.monotonic()
            self._write(self._format.reports(context), context)
        self._flush(context)
        return _FLUSH_S

    def finish(self, context: ExportContext) -> None:
        """Write the last reports and sync the file to disk. Raises OSError."""
        self._write([*self._format.end(context), *self._format.reports(context)], context)
        self._flush(context)
        if self._pipe is not None and len(self._pipe.unread()[0]):
            self._pipe.check()
        self._end_file()

    def abandon(self) -> tuple[FlowRecords, int]:
        """Close the file; returns the records that were not written or not read, and how many were read in part."""
        if self._compressor is not None:
            self._end_compressed(self._compressor)
        unread, begun = (np.empty(0, FLOW_RECORD_DTYPE), 0) if self._pipe is None else self._pipe.unread()
        self._pipe = None
        raw, self._raw = self._raw, None
        if raw is not None and raw is not self._output:
            raw.close()
        parts = [*([unread] if len(unread) else []), *self._unflushed,
                 *([] if self._unsent is None else [self._unsent])]
        self._unflushed, self._unsent = [], None
        return joined(parts) if parts else np.empty(0, FLOW_RECORD_DTYPE), begun

    def _begin_file(self, context: ExportContext) -> tuple[BinaryIO, bool]:
        """Open the file, unbuffered; returns it, and whether it is a regular one. Raises OSError."""
        if self._url.path == "-":
            return self._output or os.fdopen(os.dup(1), "wb", buffering=0), False
        try:
            opened = open_output(Path(self._url.path), context.wall, self._owner)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(error.errno, "nothing reads it") from error
            raise
        return os.fdopen(opened.descriptor, "wb", buffering=0), opened.regular

    def _rotate(self, context: ExportContext) -> None:
        size, age = self._url.rotate_octets, self._url.rotate_s
        if (size is not None and self._octets >= size) or (
                age is not None and context.monotonic() - self._opened_at >= age):
            self._write([*self._format.end(context), *self._format.reports(context)], context)
            self._end_file()
            self.open(context)

    def _write(self, parts: list[bytes], context: ExportContext) -> None:
        """Write everything or, if the file allows it, nothing: an incomplete record is unreadable. Raises OSError."""
        if not parts:
            return
        assert self._raw is not None
        octets = b"".join(parts)
        start = self._raw.tell() if self._regular else 0
        try:
            if self._compressor is not None:
                self._compressor.write(octets)
            elif self._regular:
                self._write_raw(octets, context)
            else:
                _write_slowly(self._raw, parts, context, self._passed)
        except OSError:
            if self._regular and self._compressor is None:
                self._raw.truncate(start)
            raise
        self._octets += len(octets)
        context.wrote(len(parts), len(octets))

    def _write_raw(self, octets: bytes, context: ExportContext) -> None:
        assert self._raw is not None
        if self._regular:
            _write_all(self._raw, octets)
        else:
            _write_slowly(self._raw, [octets], context, self._passed)

    def _passed(self, octets: int) -> None:
        if self._pipe is not None:
            self._pipe.written += octets

    def _flush(self, context: ExportContext) -> None:
        """Write what the compressor holds. Raises OSError."""
        self._flushed_at = context.monotonic()
        if self._compressor is not None:
            self._compressor.flush()
            self._flushed()

    def _flushed(self) -> None:
        if self._pipe is not None:
            if self._unflushed:
                self._pipe.add_together(joined(self._unflushed), self._piped, self._pipe.written)
            self._piped = self._pipe.written
        self._unflushed = []
        if self._regular and self._raw is not None:
            self._flushed_end = self._raw.tell()

    def _end_compressed(self, compressed: Compressor) -> None:
        """Write a trailer if no write failed; else truncate the file at the last flush."""
        if self._regular and self._raw is not None:
            with suppress(OSError):
                if not self._whole.failed:
                    compressed.close()
                    self._flushed()
            with suppress(OSError):
                self._raw.truncate(self._flushed_end)
                if self._whole.failed and self._flushed_end:
                    self._raw.seek(self._flushed_end)
                    _write_all(self._raw, END_OF_FLUSHED[self._url.compress])
        self._whole.abandon()
        self._compressor = None

    def _end_file(self) -> None:
        assert self._raw is not None
        if self._compressor is not None:
            self._compressor.close()
            self._flushed()
        if self._regular:
            os.fsync(self._raw.fileno())
        if self._raw is not self._output:
            self._raw.close()
        self._raw = self._compressor = self._pipe = None


def own_address() -> str:
    """The address that this host would use for the internet; 0.0.0.0 if it has no such route. Nothing is sent."""
    for family, destination in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, 9))
            return str(probe.getsockname()[0])
    return "0.0.0.0"


def _write_all(raw: BinaryIO, octets: bytes) -> None:
    """Write all octets: an unbuffered write may be short."""
    left = memoryview(octets)
    while left:
        left = left[raw.write(left):]


def _write_slowly(raw: BinaryIO, parts: list[bytes], context: ExportContext, passed: Callable[[int], None]) -> None:
    """Write to a pipe or terminal: complete lines if possible, and only waits that a stop can end.

    Args:
        passed: called with the number of octets of each write.
    """
    for octets in _gathered(parts, select.PIPE_BUF):
        left = memoryview(octets)
        while left:
            if context.wait(raw, write=True, timeout_s=_READER_S):
                # A pipe that polls as writable takes this many octets; a write may still be short.
                try:
                    count = raw.write(left[:select.PIPE_BUF]) or 0
                except BrokenPipeError as error:
                    raise BrokenPipeError(errno.EPIPE, "its reader closed it") from error
                passed(count)
                left = left[count:]


def _gathered(parts: list[bytes], limit: int) -> Iterator[bytes]:
    """Join parts up to `limit` octets; a longer part remains alone."""
    joined = b""
    for part in parts:
        if joined and len(joined) + len(part) > limit:
            yield joined
            joined = b""
        joined += part
    if joined:
        yield joined
