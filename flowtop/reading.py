"""What `-r` means for a run: which capture reads the file, and how the pipeline follows it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flowtop.errors import EXIT_USAGE, FlowtopError

if TYPE_CHECKING:
    from flowtop.capture import Capture
    from flowtop.pipeline import PipelineConfig

_STAY_S = 1e9
"""On screen, flows of a file that have ended do not fade away: who reads it wants to see what was in it."""
_PAGE_S = 0.1
"""Between two pages of a file that is read faster than anybody could look."""


@dataclass(frozen=True)
class Reading:
    """A file to be read.

    Attributes:
        path: of the file, "-" for standard input.
        screen: for the screen, not for batch output.
        tick_s: length of a tick in the file's time; None: all of it is one.
        speed: replay so many times as fast as it was recorded; None: as fast as it can be read.
        decap: packets in tunnels stand for what carries them.
    """

    path: str
    screen: bool
    tick_s: float | None
    speed: float | None
    decap: bool = False

    def capture(self) -> Capture:
        """What reads it. Raises FlowtopError: keys and capture cannot both come from standard input."""
        from flowtop.capture.files.capture import FileCapture, FileConfig

        descriptor = _take_standard_input() if self.screen and self.path == "-" else None
        return FileCapture(FileConfig(self.path, self.tick_s, self.speed, descriptor, self.decap))

    def pipeline_config(self, config: PipelineConfig) -> PipelineConfig:
        """How the pipeline follows it, otherwise as given."""
        table = replace(config.table, least_tick_s=self.tick_s or config.delay_s)
        if self.screen:
            table = replace(table, linger_s=_STAY_S)
        return replace(config, own_time=True, stay=self.screen, page_s=_PAGE_S if self.screen else 0.0, table=table)


def _take_standard_input() -> int:
    """A descriptor of what comes in there; keys come from the terminal itself from now on."""
    if sys.stdin is None or sys.stdin.isatty():
        raise FlowtopError("standard input is not a capture but the terminal", hint="tcpdump -U -w - | flowtop -r -",
                           exit_code=EXIT_USAGE)
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise FlowtopError("there is no terminal to read keys from", hint="use -b for output without a screen",
                           exit_code=EXIT_USAGE) from error
    capture = os.dup(sys.stdin.fileno())
    os.dup2(terminal, sys.stdin.fileno())
    os.close(terminal)
    return capture
