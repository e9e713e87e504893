"""The error type shown to users, and the exit statuses of flowtop.

Raise `FlowtopError` where the fault is understood. Only `cli/main.py` prints it and ends the process; the screen shows
the same object. Exit statuses follow sysexits.h where it defines one for the fault.
"""

from __future__ import annotations

import errno

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
"""Flow Records were given up (neither sent nor spooled), datagrams of an export were refused, or packets of -w were not
written (EX_IOERR)."""
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


_OPEN_FILES = "raise the limit of open files: ulimit -n 1024"
_PROCESSES = "raise the limit of threads, or of memory: ulimit -u, ulimit -v, pids.max of the cgroup"
_MEMORY = "raise the limit of memory: ulimit -v, or memory.max of the cgroup"
_LIMITS = {errno.EMFILE: _OPEN_FILES, errno.ENFILE: "raise fs.file-max", errno.EAGAIN: _PROCESSES,
           errno.ENOMEM: _MEMORY}
_OF_LIMITS = (("too many open files", _OPEN_FILES), ("cannot allocate memory", _MEMORY),
              ("failed to map segment", _MEMORY), ("cannot map zero-fill pages", _MEMORY),
              ("memoryerror", _MEMORY), ("bad_alloc", _MEMORY), ("out of memory", _MEMORY),
              ("can't start new thread", _PROCESSES), ("resource temporarily unavailable", _PROCESSES))
"""In what libraries say, where they keep the error number for themselves."""


def limit_hint(text: str) -> str:
    """How to raise the limit of this host that a library's message is about; "" if it is about none."""
    return next((hint for words, hint in _OF_LIMITS if words in text.lower()), "")


def output_hint(problem: str) -> str:
    """What to do about a file that cannot be written, for this reason."""
    return limit_hint(problem) or "use a file in a directory this user can write to"


def host_fault(what: str, error: BaseException) -> FlowtopError | None:
    """What this host lacks or refuses, in words; None if the error is not of the host.

    Args:
        what: did not work, such as "cannot start the compiler".
    """
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        hint = _LIMITS.get(error.errno or 0, "run flowtop --check to see what this host supports")
        return FlowtopError(f"{what}: {(error.strerror or str(error)).lower()}{place}", hint=hint)
    if isinstance(error, MemoryError | SystemError):  # numpy raises the latter where it could not make its exception
        return FlowtopError(f"{what}: no memory", hint=_MEMORY)
    if isinstance(error, ImportError):  # numpy says a page of advice; what went wrong is where it began
        first = error
        while isinstance(first.__cause__ or first.__context__, ImportError | OSError):
            first = first.__cause__ or first.__context__  # type: ignore[assignment]
        text = next(iter(str(first).strip().splitlines()), "")
        return FlowtopError(f"{what}: {text}", hint=limit_hint(text) or "reinstall flowtop")
    if isinstance(error, RuntimeError) and (hint := limit_hint(str(error))):
        return FlowtopError(f"{what}: {error}", hint=hint)
    return None
