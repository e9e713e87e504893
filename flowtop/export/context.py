"""What a transport gets from the exporter that runs it: time, facts to report, and waits that a stop can end."""

from __future__ import annotations

from typing import Protocol

from flowtop.errors import FlowtopError
from flowtop.export.statistics import GivenUp, MeteringFacts
from flowtop.model.record import FlowRecords


class Abandoned(Exception):  # noqa: N818 - not an error: the time to stop has come
    """The flush time-out of a stop has passed: whatever is being waited for is not waited for any longer."""


class Waitable(Protocol):
    """A socket, or a file that may be a pipe."""

    def fileno(self) -> int:
        """Its file descriptor."""


class ExportContext(Protocol):
    """The exporter, as its transport sees it. Only the exporter's own thread calls this."""

    def monotonic(self) -> float:
        """Seconds that only go forward."""

    def wall(self) -> float:
        """Seconds since 1970 UTC, as messages say it."""

    def metering(self) -> MeteringFacts:
        """The newest facts of the Metering Process."""

    def given_up(self) -> GivenUp:
        """What this export has given up so far."""

    def wait(self, connection: Waitable | None, *, write: bool, timeout_s: float) -> bool:
        """Wait for a socket or pipe; the exporter goes on taking records meanwhile. Gives whether it is ready.

        Raises Abandoned.
        """

    def blocked(self, blocked: bool) -> None:
        """The collector does not read, or reads again."""

    def refused(self, reason: str) -> None:
        """What is sent is refused, in words; "": not any more."""

    def wrote(self, messages: int, octets: int) -> None:
        """So much has been written."""

    def announced(self) -> None:
        """Templates have been written."""


class Transport(Protocol):
    """One way out. Only the exporter's own thread calls it: `open`, then `send` and `tick`, then `finish`.

    Whatever raises OSError, FlowtopError or Abandoned is followed by `abandon`, and that perhaps by `open` again.
    """

    @property
    def retry_s(self) -> float:
        """Seconds between attempts to open."""

    @property
    def file_octets(self) -> int | None:
        """Size of the file being written; None when it is none. Any thread."""

    def open(self, context: ExportContext) -> None:
        """Connect, or begin a file."""

    def send(self, records: FlowRecords, context: ExportContext) -> None:
        """Write records (FLOW_RECORD_DTYPE, never empty): all of them, or raise."""

    def tick(self, context: ExportContext) -> float:
        """What has to be done while there is nothing to send; gives the seconds until the next time."""

    def finish(self, context: ExportContext) -> None:
        """Write the last reports, and see that everything arrives."""

    def abandon(self) -> tuple[FlowRecords, int]:
        """Close at once; gives the records that may not have arrived, in order, and how many were written all the same.

        Those come first, and the collector may have them.
        """


def in_words(error: OSError | FlowtopError) -> str:
    """What went wrong, for `last_error`."""
    if isinstance(error, FlowtopError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return error.strerror or str(error) or type(error).__name__
