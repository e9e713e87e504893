"""The error type shown to users, and the exit statuses of flowtop.

Raise `FlowtopError` where the fault is understood. Only `cli/main.py` prints it and ends the process; the screen shows
the same object. Exit statuses follow sysexits.h where it defines one for the fault.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
"""Wrong options or values out of range (click's own status)."""
EXIT_DAMAGED = 65
"""The file of -r is damaged, truncated, or not a capture (EX_DATAERR)."""
EXIT_NO_INPUT = 66
"""No such interface or file (EX_NOINPUT)."""
EXIT_UNAVAILABLE = 69
"""The host lacks what capture needs: kernel too old, or bcc missing (EX_UNAVAILABLE)."""
EXIT_NOT_SENT = 74
"""Flow Records were given up (neither sent nor spooled), or packets of -w were not written (EX_IOERR)."""
EXIT_NO_PERMISSION = 77
"""Not root, or the kernel is locked down (EX_NOPERM)."""
EXIT_INTERRUPTED = 130
"""SIGINT arrived before the count of -c was reached."""
EXIT_TERMINATED = 143
"""SIGTERM arrived before the count of -c was reached."""


class FlowtopError(Exception):
    """An error with its message, a hint and an exit status.

    Args:
        message: one line without a full stop: what happened.
        hint: one line: what the user can do; empty if there is nothing to do.
        exit_code: exit status of the process if nothing catches the error.
    """

    def __init__(self, message: str, *, hint: str = "", exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
