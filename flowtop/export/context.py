"""The interface between a transport and its exporter: clocks, facts to report, and interruptible waits."""

from __future__ import annotations

from typing import Protocol

from flowtop.errors import FlowtopError
from flowtop.export.statistics import GivenUp, MeteringFacts
from flowtop.model.record import FlowRecords
from flowtop.wire.owners import Texts


class Abandoned(Exception):  # noqa: N818 - not an error: the time to stop has come
    """The time limit of a stop has passed: stop waiting."""


class Waitable(Protocol):
    """A socket, or a file that may be a pipe."""

    def fileno(self) -> int:
        """Its file descriptor."""


class ExportContext(Protocol):
    """The exporter, as used by its transport. Only the exporter's thread calls this."""

    def monotonic(self) -> float:
        """Monotonic clock, in seconds."""

    def wall(self) -> float:
        """Seconds since 1970 UTC, for messages."""

    def metering(self) -> MeteringFacts:
        """The latest facts of the Metering Process."""

    def given_up(self) -> GivenUp:
        """Totals of records that this export has given up."""

    def owners(self) -> Texts | None:
        """The texts of the records' owners; None: they are not exported."""

    def cut_owners(self, records: int) -> None:
        """Count records whose owner's texts were cut or left out; negative: they were not sent after all."""

    def wait(self, connection: Waitable | None, *, write: bool, timeout_s: float) -> bool:
        """Wait for a socket or pipe while the exporter continues to take records. Returns whether it is ready.

        Raises Abandoned.
        """

    def blocked(self, blocked: bool) -> None:
        """Set whether the collector has stopped reading."""

    def refused(self, reason: str, messages: int = 0) -> None:
        """Set why sent data is refused; "" if it no longer is; and count the refused messages."""

    def wrote(self, messages: int, octets: int) -> None:
        """Count written messages and octets."""

    def announced(self) -> None:
        """Note that Templates have been written."""


class Transport(Protocol):
    """A transport of an export. Only the exporter's thread calls it: `open`, then `send` and `tick`, then `finish`.

    After an OSError, FlowtopError or Abandoned, `abandon` is called, and perhaps `open` again.
    """

    @property
    def retry_s(self) -> float:
        """Seconds between attempts to open."""

    @property
    def file_octets(self) -> int | None:
        """Size of the file being written; None if there is none. Thread-safe."""

    def open(self, context: ExportContext) -> None:
        """Connect, or begin a file."""

    def send(self, records: FlowRecords, context: ExportContext) -> None:
        """Write all records (FLOW_RECORD_DTYPE, not empty), or raise."""

    def tick(self, context: ExportContext) -> float:
        """Do periodic work while there is nothing to send; returns the seconds until the next call."""

    def finish(self, context: ExportContext) -> None:
        """Write the last reports, and wait until everything has arrived."""

    def abandon(self) -> tuple[FlowRecords, int]:
        """Close at once; returns records that may not have arrived, in order, and how many of them were written.

        The written ones come first; the collector may have received them.
        """


def in_words(error: OSError | FlowtopError) -> str:
    """The text of an error, for `last_error`."""
    if isinstance(error, FlowtopError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return error.strerror or str(error) or type(error).__name__
