"""What a command needs of its surroundings before anything else: open standard streams, messages, faults in words."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

import click

from flowtop.errors import EXIT_FAILURE, FlowtopError, host_fault

_WRITE_FAULTS = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EBADF)


def prepare() -> None:
    """Call it first: standard descriptors that are closed lead to /dev/null, and numpy's library makes no threads.

    Else a socket, a map or an export would get the number of a standard stream, and what is written there, also by
    the compiler's process, would be written into it. `sys.stdin` and the others stay None.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):  # no /dev/null
                os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
                os.set_inheritable(descriptor, True)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # flowtop multiplies no matrices; a thread needs memory


def without_controls(text: str) -> str:
    """Text for a terminal: what would control it is shown as Python writes it. Names of files and interfaces are in
    messages, and others choose them."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n " else one.encode("unicode_escape").decode() for one in text)


def say(line: str) -> None:
    """Write a line to standard error; where that is impossible (the terminal is gone), nothing happens."""
    try:
        click.echo(without_controls(line), err=True)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # what is left is flushed at exit: let that succeed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def complain(command: str, message: str, hint: str) -> None:
    """Say what is wrong, and what to do if there is something."""
    say(f"{command}: {message}")
    if hint:
        say(f"hint: {hint}")


def in_words(error: Exception) -> FlowtopError:
    """A fault that no other part has put into words: of the host, a library or a standard stream.

    Raises the error itself if it is a fault of the program.
    """
    if isinstance(error, OSError) and error.errno in _WRITE_FAULTS:  # click writes help and version itself
        return FlowtopError(f"cannot write: {(error.strerror or str(error)).lower()}",
                            hint="check where the output goes", exit_code=EXIT_FAILURE)
    fault = host_fault("cannot run", error)
    if fault is None:
        raise error
    return fault
