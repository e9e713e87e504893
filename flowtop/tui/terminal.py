"""Textual's Linux driver, made to survive the loss of its terminal: the SSH line drops, the window is closed.

Textual's writer thread dies of the write error then, its queue fills, and the event loop waits for room for ever, with
no chance left to detach anything.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import IO, Any

from textual.drivers.linux_driver import LinuxDriver

GONE = (errno.EIO, errno.EBADF, errno.EPIPE, errno.ENXIO)
"""What reading from or writing to a terminal that is gone fails with."""


class _Output:
    """A terminal's file until it is gone; then writes are discarded, and `on_gone` is called once."""

    def __init__(self, file: IO[str], on_gone: Callable[[], None]) -> None:
        self._file = file
        self._on_gone = on_gone
        self._gone = False

    def write(self, text: str) -> None:
        self._do(lambda: self._file.write(text))

    def flush(self) -> None:
        self._do(self._file.flush)

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()

    def _do(self, operation: Callable[[], object]) -> None:
        if self._gone:
            return
        try:
            operation()
        except OSError as error:
            if error.errno not in GONE:
                raise
            self._gone = True
            self._on_gone()


class TerminalDriver(LinuxDriver):
    """Asks the app to quit when the terminal is gone. The app has a `request_quit` that any thread may call."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self._on_gone: Callable[[], None] = app.request_quit
        # textual draws on standard error. When that is redirected, draw on standard output, which is a terminal too.
        terminal = sys.__stderr__ if sys.__stderr__ is not None and sys.__stderr__.isatty() else sys.__stdout__
        assert terminal is not None, "the command has checked that standard output is a terminal"
        self._file: Any = _Output(terminal, self._on_gone)

    def stop_application_mode(self) -> None:
        """Leave nothing on the alternate screen: tmux copies it into the shell's when it was resized."""
        self.write("\x1b[2J")
        super().stop_application_mode()

    def run_input_thread(self) -> None:
        """Read keys until the driver stops or the terminal is gone."""
        while True:
            try:
                return super().run_input_thread()
            except UnicodeDecodeError:
                continue  # a byte that is no UTF-8 (line noise, an 8-bit Meta key): a key that means nothing
            except OSError as error:
                if error.errno not in GONE:
                    raise
                return self._on_gone()
