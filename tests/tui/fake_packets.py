"""A recording of packets without packets: it stands as the test says."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.filters.filter import Filter
from flowtop.recording.recording import RecordingStatistics


class FakePackets:
    """A `PacketControl` that writes down what it is asked.

    Attributes:
        refuse: raised by the next `begin`.
        ready: `begin` waits for it, as it does for the compiler.
        directory: where the open directory of the last `begin` is.
        asked: (path, texts of filters, new) of each `begin`.
    """

    def __init__(self, figures: RecordingStatistics | None = None) -> None:
        self.figures = figures
        self.directory: str | None = None
        self.refuse: FlowtopError | None = None
        self.asked: list[tuple[str, list[str], bool]] = []
        self.ready = threading.Event()
        self.ready.set()

    def begin(self, path: str, filters: Sequence[Filter], *, new: bool, directory: int | None = None) -> None:
        """As told, or an error."""
        self.directory = None if directory is None else str(Path(f"/proc/self/fd/{directory}").readlink())
        assert threading.current_thread() is not threading.main_thread(), "it compiles, and opens files"
        assert self.ready.wait(60)
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error
        texts = [one.text for one in filters]
        self.asked.append((path, texts, new))
        text = f"({') and ('.join(texts)})" if texts[1:] else "".join(texts)
        self.figures = RecordingStatistics(path, text, "writing")

    @property
    def running(self) -> bool:
        """Until it is ended, or something else has been said."""
        return self.figures is not None and self.figures.state == "writing"

    def statistics(self) -> RecordingStatistics | None:
        """What the test said."""
        return self.figures

    def change(self, **figures: Any) -> None:
        """Let it stand otherwise."""
        assert self.figures is not None
        self.figures = replace(self.figures, **figures)

    def end(self) -> RecordingStatistics | None:
        """Ended."""
        assert threading.current_thread() is not threading.main_thread(), "it waits for the disk"
        self.change(state="ended")
        return self.figures
