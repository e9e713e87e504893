"""What the screen needs of the pipeline, of exports and of what writes packets.

`pipeline.Pipeline` satisfies `PageSource`, `export.exports.Exports` satisfies `ExportControl`, `recording.Recorder`
satisfies `PacketControl`; tests hand in fakes. The splash imports these protocols: they need no numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flowtop.errors import FlowtopError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowtop.export.exports import Export, Keep
    from flowtop.filters.filter import Filter
    from flowtop.query.query import Page, Query
    from flowtop.recording.recording import RecordingStatistics
    from flowtop.text.names import KnownNames


class PageListener(Protocol):
    """Gets what a PageSource reports. Called from its threads."""

    def on_progress(self, text: str) -> None:
        """What the first page waits for, in words."""

    def on_page(self, page: Page) -> None:
        """The newest answer to the newest query: after each tick, and right after `ask`."""

    def on_error(self, error: FlowtopError) -> None:
        """Capturing failed and has ended; nothing is attached now."""


class PageSource(Protocol):
    """What the screen needs of the metering pipeline."""

    def start(self, listener: PageListener) -> None:
        """Start capturing; called once.

        Raises:
            FlowtopError: it cannot start.
        """

    def ask(self, query: Query) -> None:
        """Set the query that every later page answers, and answer it now. Any thread; the latest wins."""

    def stop(self) -> None:
        """Last drain, detach, flush. Blocks; called once, also after `on_error`."""


class ExportControl(Protocol):
    """What the screen needs of the exports of this run. Any thread; only `add` and `stop` may take long."""

    def add(self, url: str, keep: Keep | None = None, *, filter: str = "") -> int:  # noqa: A002 - the word of the screen
        """Open an export and start it; gives its number.

        Args:
            url: see `export.url`.
            keep: selects its records; None: all of the run.
            filter: what that is made from, to show.

        Raises:
            FlowtopError: it cannot be opened.
        """

    def statistics(self) -> tuple[Export, ...]:
        """State and figures of each, in order of number, also of stopped ones."""

    def pause(self, number: int) -> None:
        """Send nothing until `resume`."""

    def resume(self, number: int) -> None:
        """Send again."""

    def end(self, number: int) -> None:
        """Stop one, in the background."""

    @property
    def flush_s(self) -> float:
        """How long `stop` waits for collectors, at most."""

    def stop(self) -> object:
        """Send queued records, for at most `flush_s`, and stop all."""

    def hurry(self) -> None:
        """Let `stop` return soon, also when it already waits."""


class PacketControl(Protocol):
    """What the screen needs to have packets written. Any thread; `begin` and `end` may take seconds.

    Attributes:
        names: gives the names of hosts that are known now, for the file. For any thread.
    """

    names: Callable[[], KnownNames]

    def begin(self, path: str, filters: Sequence[Filter], *, new: bool, directory: int | None = None) -> None:
        """Write packets of flows that pass all the filters to a file, which must not be there yet when it is `new`.

        Args:
            directory: descriptor of the path's directory; None: it is found by its name.

        Raises:
            FlowtopError: the file cannot be written.
        """

    @property
    def running(self) -> bool:
        """Whether packets are being written."""

    def statistics(self) -> RecordingStatistics | None:
        """Figures of the packets being written, or written last."""

    def end(self) -> RecordingStatistics | None:
        """Write the packets read so far, and stop."""
