"""A bundle for a ticket: a new directory with what the screen showed, the flows, the check of the host, and packets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flowtop
from flowtop.errors import FlowtopError
from flowtop.files import make_directory, open_output, release_directory
from flowtop.output.row_files import write_rows
from flowtop.query.query import Page

CHECK_S = 60.0
"""How long `--check` may take."""
SCREEN, FLOWS, CHECK, PACKETS = "screen.txt", "flows.csv", "check.txt", "packets.pcapng"
NO_PACKETS = "no-packets.txt"
"""Why there are none."""


class BundleDirectory:
    """A directory that must not exist yet, held open: what is written goes there, whatever its name leads to by then.

    Args:
        path: its name.
        owner: user and group of it and its files, as far as that user may write there; None: those of the process.

    Raises:
        FlowtopError: it exists, or cannot be made.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None) -> None:
        self._name = path
        self._owner = owner
        try:
            self.descriptor = make_directory(path, owner)
        except FileExistsError:
            raise FlowtopError(f"{path} exists already", hint="use another name") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise FlowtopError(f"cannot make {path}: {reason.lower()}", hint="type another place") from error

    @property
    def place(self) -> Path:
        """A path that leads to the open directory."""
        return Path("/proc/self/fd", str(self.descriptor))

    def write_text(self, name: str, text: str) -> None:
        """Write a text to a new file in it. Raises FlowtopError: it exists, or cannot be written."""
        try:
            output = open_output(self.place / name, time.time, self._owner, new=True)
            with os.fdopen(output.descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise FlowtopError(f"cannot write {self._name / name}: {reason}") from error

    def write_rows(self, name: str, page: Page) -> None:
        """Write rows to a new file in it; see row_files.write_rows."""
        try:
            write_rows(self.place / name, page, self._owner)
        except FlowtopError as error:
            raise FlowtopError(error.message.replace(str(self.place), str(self._name))) from error

    def close(self) -> None:
        """Close it. Once."""
        release_directory(self.descriptor)


_checks: list[Callable[[], str]] = []
"""At most one: who makes the check is the process's."""


def check_with(check: Callable[[], str]) -> None:
    """From now on have the check of the host made by another process, which may.

    Args:
        check: gives its text; raises OSError, FlowtopError.
    """
    _checks[:] = [check]


def check_text() -> str:
    """What `flowtop --check` reports of this host, by a process of its own: it does not disturb this one."""
    if _checks:
        try:
            return _checks[0]()
        except (OSError, FlowtopError) as error:
            return f"flowtop --check did not run: {error}\n"
    root = str(Path(flowtop.__file__).parent.parent)
    try:  # -P: no modules of the directory one happens to be in, which may be another user's
        done = subprocess.run([sys.executable, "-P", "-m", "flowtop", "--check"],
                              env={**os.environ, "PYTHONPATH": root}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=CHECK_S, check=False)
    except PermissionError:  # it has given up its rights
        return "flowtop --check did not run: the process of the screen may not start programs. Run it apart.\n"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"flowtop --check did not run: {error}\n"
    return done.stdout.decode(errors="replace")
