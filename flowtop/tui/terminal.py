"""Textual's Linux driver, made to survive the loss of its terminal: the SSH line drops, the window is closed.

Textual's writer thread dies of the write error then, its queue fills, and the event loop waits for room for ever, with
no chance left to detach anything.

Where the locale's character set is not UTF-8, symbols are written in ASCII: arrows, bars and boxes too.
"""

from __future__ import annotations

import codecs
import errno
import locale
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from textual.drivers.linux_driver import LinuxDriver

GONE = (errno.EIO, errno.EBADF, errno.EPIPE, errno.ENXIO)
"""What reading from or writing to a terminal that is gone fails with."""


_IN_ASCII = str.maketrans({
    **dict(zip("→←↑↓↔›…–−·•×µ✓Δ", "><^v=>~--.*xu+d", strict=True)),
    **dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True)), **dict(zip("░▒▓", ".+*", strict=True)),
    **dict(zip("●○◐◌‖■", "*o%.=#", strict=True)),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"), **dict.fromkeys("─━═▔", "-"), **dict.fromkeys("│┃║▎▏▕", "|"),
})
"""What stands for a symbol where there is no UTF-8: one cell each."""


def character_set(environment: Mapping[str, str], *, utf8_mode: bool) -> str:
    """The name of the locale's character set in lower case, such as `utf-8`, `ascii`, `iso8859-1`.

    Args:
        environment: for LC_ALL, LC_CTYPE and LANG. Python itself sets LC_CTYPE where these say no UTF-8 (PEP 538).
        utf8_mode: Python's UTF-8 mode, which it chooses where the locale is "C" or "POSIX" (PEP 540).
    """
    given = {name: environment.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")}
    coerced = not given["LC_ALL"] and given["LC_CTYPE"] in ("C.UTF-8", "C.utf8", "UTF-8") and utf8_mode
    if coerced:
        given["LC_CTYPE"] = ""
    name = next(filter(None, given.values()), "C")
    if name in ("C", "POSIX"):
        return "utf-8" if environment.get("PYTHONUTF8") == "1" else "ascii"
    text = locale.normalize(name).partition(".")[2].partition("@")[0]
    try:
        return codecs.lookup(text or "ascii").name
    except LookupError:
        return "ascii"


class _Output:
    """A terminal's file until it is gone; then writes are discarded, and `on_gone` is called once.

    Args:
        charset: what the terminal can show, as `character_set` says.
    """

    def __init__(self, file: TextIO, on_gone: Callable[[], None], charset: str) -> None:
        self._file = file
        self._on_gone = on_gone
        self._charset = charset
        self._gone = False

    def write(self, text: str) -> None:
        if self._charset == "utf-8":
            self._do(lambda: self._file.write(text))
            return
        octets = text.translate(_IN_ASCII).encode(self._charset, "replace")
        self._do(lambda: self._write(octets))

    def _write(self, octets: bytes) -> None:
        """The file's own encoding is Python's choice, not the terminal's."""
        self._file.flush()
        self._file.buffer.write(octets)
        self._file.buffer.flush()

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
        charset = character_set(os.environ, utf8_mode=bool(sys.flags.utf8_mode))
        self._file: Any = _Output(terminal, self._on_gone, charset)
        self._drawing = False

    def start_application_mode(self) -> None:
        """Take the terminal."""
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._drawing = True

    def stop_application_mode(self) -> None:
        """Leave nothing on the alternate screen: tmux copies it into the shell's when it was resized."""
        self._drawing = False
        self.write("\x1b[2J")
        super().stop_application_mode()

    def _sigcont_application(self, *_: object) -> None:
        """Go on after a stop.

        After one that came unannounced (SIGSTOP) the terminal may be as a shell has made it. textual would take it for
        the second time: two threads read the keys, and it is given back as the screen had it.
        """
        if self._must_signal_resume:
            super()._sigcont_application()
        elif self._drawing and self._auto_restart:
            self.suspend_application_mode()
            self._must_signal_resume = True
            self.resume_application_mode()

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
