"""The one error type a user ever sees, and every exit status flowtop can end with.

Raise `FlowtopError` where the fault is understood; only `cli.py` prints it and ends the process, and the screen
shows the same object. Exit statuses follow sysexits.h where it has a word for the fault.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
"""Wrong options or values out of range (click's own status)."""
EXIT_DAMAGED = 65
"""The file of -r is damaged, cut off, or not a capture (EX_DATAERR)."""
EXIT_NO_INPUT = 66
"""No such interface, or no such file (EX_NOINPUT)."""
EXIT_UNAVAILABLE = 69
"""The host lacks what capture needs: kernel too old, bcc missing (EX_UNAVAILABLE)."""
EXIT_NOT_SENT = 74
"""All went well, but Flow Records were given up, neither sent nor spooled, or packets (-w) not written (EX_IOERR)."""
EXIT_NO_PERMISSION = 77
"""Not root, or the kernel is locked down (EX_NOPERM)."""
EXIT_INTERRUPTED = 130
"""SIGINT before the count asked for with -c was reached."""
EXIT_TERMINATED = 143
"""SIGTERM before the count asked for with -c was reached."""


class FlowtopError(Exception):
    """What happened and what to do about it.

    Args:
        message: one line, no full stop: what happened.
        hint: one line: what the user can do; empty when there is nothing to do.
        exit_code: the exit status the process ends with when nothing catches this.
    """

    def __init__(self, message: str, *, hint: str = "", exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
